/* SPDX-License-Identifier: MIT */
/* A KV cache whose blocks are shared between requests that begin alike.
 *
 * Whole blocks of prompts and answers stay in a tree by their tokens (blocks.h) after their request
 * has ended, as long as nobody else needs the room. A new request takes over what its first tokens
 * spell, and only the rest is computed: a system prompt once for all, a conversation's next turn
 * without the turns before it. The last token is always computed, since its output is what is wanted.
 *
 *   share     whose texts may be the same: everybody's, those of one tenant, those of one session.
 *             Shared prefixes tell tenants apart by time: who finds a text quick to prefill knows that
 *             somebody had it before.
 *   evict     which idle block goes when a new one is wanted: heap.h
 *   preempt   recompute finds what is still in the tree, so it costs less than it does without
 *
 * Never another's tokens: blocks are found by comparing each token, not by a hash; they come into the
 * tree when the step that computed them has succeeded, and who writes into one is its only holder and
 * has it out of the tree (copy on write). tests/stress/prefix tries to show the contrary.
 *
 * Requests known by their lengths alone share nothing, and then this is the paged cache. Workloads
 * that give token ids (sessions, for one) keep them in virtual time too.
 *
 * Zheng et al., "SGLang: Efficient Execution of Structured Language Model Programs", NeurIPS 2024
 * (RadixAttention); Kwon et al., SOSP 2023 (blocks, tables, copy on write). */
#include <string.h>

#include "prefix.h"

enum { OPT_BLOCK_TOKENS, OPT_BLOCKS, OPT_MEMORY_MB, OPT_DTYPE, OPT_PREEMPT, OPT_SHARE, OPT_EVICT, OPT_HASH_BITS, OPT_COUNT };

static const struct lathe_option options[OPT_COUNT] = {
    { "block_tokens", LATHE_OPTION_INTEGER, "16", 1, 4096, "tokens", NULL,
      "Positions a block holds; only whole blocks are shared." },
    { "blocks", LATHE_OPTION_INTEGER, "0", 0, 1e9, "blocks", NULL,
      "Blocks in the pool; 0: as many as the memory holds." },
    { "memory_mb", LATHE_OPTION_INTEGER, "256", 1, 1e9, "MiB", NULL,
      "Memory for keys and values, if neither `blocks` nor the engine says." },
    { "dtype", LATHE_OPTION_CHOICE, "f32", 0, 0, "", "f32|f16|q8_0",
      "How keys and values are stored; unless given, as the engine says." },
    { "preempt", LATHE_OPTION_CHOICE, "recompute", 0, 0, "", "recompute|swap",
      "What becomes of a victim's keys and values: let go, or moved to host memory." },
    { "share", LATHE_OPTION_CHOICE, "all", 0, 0, "", "all|tenant|session",
      "Whose requests may share blocks: everybody's, one tenant's, one session's." },
    { "evict", LATHE_OPTION_CHOICE, "lru", 0, 0, "", "lru|lfu",
      "Which idle block makes room: the one used longest ago, or by fewest requests." },
    { "hash_bits", LATHE_OPTION_INTEGER, "32", 0, 32, "bits", NULL,
      "Bits of a block's hash that count; with 0 all collide, which is slow and changes nothing else." },
};

static void destroy(void *self)
{
    struct prefix *p = self;
    if (!p)
        return;
    blocks_close(&p->blocks);
    lathe_free(p->host, p->slots);
    lathe_free(p->host, p->tables);
    lathe_free(p->host, p->drops);
    lathe_free(p->host, p);
}

static int create(const struct lathe_host *host, const struct lathe_config *config, void **self,
                  struct lathe_error *err)
{
    static const int32_t dtypes[] = { LATHE_F32, LATHE_F16, LATHE_Q8_0 };
    const struct lathe_option_value *v = config->values;
    struct prefix *p = lathe_alloc(host, sizeof *p);
    if (!p)
        return lathe_fail(err, LATHE_ENOMEM, "kvcache prefix: no memory for %zu bytes", sizeof *p);
    p->host = host;
    p->want_block_tokens = v[OPT_BLOCK_TOKENS].integer;
    p->want_blocks = v[OPT_BLOCKS].integer;
    p->want_memory_mb = v[OPT_MEMORY_MB].integer;
    p->want_dtype = v[OPT_DTYPE].is_default ? -1 : dtypes[v[OPT_DTYPE].integer];
    p->preempt = v[OPT_PREEMPT].integer == 1 ? LATHE_KV_SWAP : LATHE_KV_RECOMPUTE;
    p->share = (int)v[OPT_SHARE].integer;
    p->lfu = v[OPT_EVICT].integer == 1;
    p->hash_bits = v[OPT_HASH_BITS].integer;
    *self = p;
    return LATHE_OK;
}

static int choose_dtype(const struct prefix *p, const struct lathe_kv_demand *demand, struct lathe_kv_geometry *geometry,
                        struct lathe_error *err)
{
    uint32_t kept = demand->kv_dtypes ? demand->kv_dtypes : 1u << LATHE_F32;
    if (p->want_dtype >= 0)
        geometry->kv_dtype = p->want_dtype;
    if (geometry->kv_dtype < 0 || geometry->kv_dtype > 31 || !(kept >> geometry->kv_dtype & 1))
        return lathe_fail(err, LATHE_EUNSUPPORTED, "kvcache prefix: this model can't keep keys and values as %s; "
                          "leave dtype at f32", lathe_dtype_name(geometry->kv_dtype));
    return LATHE_OK;
}

/* How many blocks, at most `most`: more could never be used, and all beyond what requests hold is cache. */
static int count_blocks(const struct prefix *p, const struct lathe_kv_demand *demand, int32_t dtype, uint64_t most,
                        uint64_t *blocks, struct lathe_error *err)
{
    uint64_t token_bytes = dtype == LATHE_F32 ? demand->kv_bytes_per_token : lathe_kv_bytes(demand, dtype), block_bytes;
    uint64_t memory = demand->memory_bytes ? demand->memory_bytes : (uint64_t)p->want_memory_mb << 20;
    if (__builtin_mul_overflow(token_bytes, (uint64_t)p->block_tokens, &block_bytes))
        return lathe_fail(err, LATHE_ERANGE, "kvcache prefix: a block of %u tokens at %llu bytes each is too large",
                          p->block_tokens, (unsigned long long)token_bytes);
    *blocks = p->want_blocks > 0 ? (uint64_t)p->want_blocks : block_bytes ? memory / block_bytes : most;
    if (*blocks == 0)
        return lathe_fail(err, LATHE_EINVAL, "kvcache prefix: %llu bytes hold no block of %u tokens, which takes "
                          "%llu bytes; raise memory_mb or lower block_tokens", (unsigned long long)memory,
                          p->block_tokens, (unsigned long long)block_bytes);
    if (*blocks > INT32_MAX)
        *blocks = INT32_MAX;
    return LATHE_OK;
}

static int allocate(struct prefix *p, uint64_t table_entries, const struct blocks_shape *shape)
{
    p->slots = lathe_alloc_array(p->host, p->max_requests, sizeof *p->slots);
    p->tables = table_entries > SIZE_MAX / 4 ? NULL : lathe_alloc_array(p->host, (size_t)table_entries, sizeof *p->tables);
    p->drops = lathe_alloc_array(p->host, p->max_requests, sizeof *p->drops);
    if (p->slots && p->tables && p->drops && blocks_open(&p->blocks, p->host, shape) == LATHE_OK)
        return LATHE_OK;
    lathe_free(p->host, p->slots);
    lathe_free(p->host, p->tables);
    lathe_free(p->host, p->drops);
    p->slots = NULL, p->tables = NULL, p->drops = NULL;
    return LATHE_ENOMEM;
}

static int layout(void *self, const struct lathe_kv_demand *demand, struct lathe_kv_geometry *geometry,
                  struct lathe_error *err)
{
    struct prefix *p = self;
    uint64_t blocks, entries;
    int status;

    if (p->slots)
        return lathe_fail(err, LATHE_ESTATE, "kvcache prefix: laid out twice; make a second instance instead");
    if (demand->max_requests == 0 || demand->context_tokens == 0)
        return lathe_fail(err, LATHE_EINVAL, "kvcache prefix: asked for %u requests of %u tokens; both must be at "
                          "least 1", demand->max_requests, demand->context_tokens);
    p->block_tokens = (uint32_t)p->want_block_tokens;
    p->max_requests = demand->max_requests;
    p->table_blocks = blocks_for(p, demand->context_tokens);
    entries = (uint64_t)p->max_requests * p->table_blocks;
    if ((status = choose_dtype(p, demand, geometry, err)) != LATHE_OK ||
        (status = count_blocks(p, demand, geometry->kv_dtype, entries, &blocks, err)) != LATHE_OK)
        return status;
    struct blocks_shape shape = { (uint32_t)blocks, p->block_tokens, (uint32_t)p->hash_bits, p->lfu };
    if (allocate(p, entries, &shape) != LATHE_OK)
        return lathe_fail(err, LATHE_ENOMEM, "kvcache prefix: no memory for the map of %u blocks and %u requests",
                          shape.blocks, p->max_requests);
    p->next_handle = 1;
    geometry->block_tokens = p->block_tokens;
    geometry->blocks = shape.blocks;
    return LATHE_OK;
}

/* What waits to be dropped is gone with the rest. */
static void forget(void *self)
{
    struct prefix *p = self;
    if (!p->slots)
        return;
    blocks_forget(&p->blocks);
    p->drop_first = p->drop_count = 0;
}

static void usage(void *self, struct lathe_kv_usage *u)
{
    struct prefix *p = self;
    *u = (struct lathe_kv_usage){
        .blocks_total = p->blocks.shape.blocks,
        .blocks_used = atomic_load_explicit(&p->blocks.used, memory_order_relaxed),
        .blocks_cached = atomic_load_explicit(&p->blocks.idle, memory_order_relaxed),
        .blocks_shared = atomic_load_explicit(&p->blocks.shared, memory_order_relaxed),
        .reserved_tokens = atomic_load_explicit(&p->reserved_tokens, memory_order_relaxed),
        .filled_tokens = atomic_load_explicit(&p->filled_tokens, memory_order_relaxed),
        .evicted_blocks = atomic_load_explicit(&p->blocks.evicted, memory_order_relaxed), /* idle: nobody's positions */
        .hit_tokens = atomic_load_explicit(&p->hit_tokens, memory_order_relaxed),
        .looked_up_tokens = atomic_load_explicit(&p->looked_up_tokens, memory_order_relaxed),
    };
}

static const struct lathe_kvcache_api api = {
    .size = sizeof api,
    .abi = LATHE_KVCACHE_ABI,
    .create = create,
    .destroy = destroy,
    .layout = layout,
    .admit = map_admit,
    .blocks_needed = map_blocks_needed,
    .blocks_available = map_blocks_available,
    .reserve = map_reserve,
    .table = map_table,
    .filled = map_filled,
    .truncate = map_truncate,
    .release = map_release,
    .usage = usage,
    .fork = map_fork,
    .preempt_choice = swap_preempt_choice,
    .swap_out = swap_out,
    .swap_in = swap_in,
    .cached_prefix = map_cached_prefix,
    .forget = forget,
};

extern const struct lathe_plugin lathe_plugin;
LATHE_EXPORT const struct lathe_plugin lathe_plugin = {
    .size = sizeof lathe_plugin,
    .abi = LATHE_PLUGIN_ABI,
    .kind = LATHE_KIND_KVCACHE,
    .concurrency = LATHE_SERIAL,
    .name = "prefix",
    .version = "1.0.0",
    .summary = "blocks shared by requests that begin alike, kept after their requests",
    .citation = "@inproceedings{zheng2024sglang,\n"
                "  title = {{SGLang}: Efficient Execution of Structured Language Model Programs},\n"
                "  author = {Zheng, Lianmin and Yin, Liangsheng and Xie, Zhiqiang and Sun, Chuyue and Huang, Jeff and "
                "Yu, Cody Hao and Cao, Shiyi and Kozyrakis, Christos and Stoica, Ion and Gonzalez, Joseph E. and "
                "Barrett, Clark and Sheng, Ying},\n"
                "  booktitle = {Advances in Neural Information Processing Systems 37 (NeurIPS 2024)},\n"
                "  year = {2024}\n"
                "}\n",
    .options = options,
    .option_count = OPT_COUNT,
    .api = &api,
};
