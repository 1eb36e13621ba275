/* SPDX-License-Identifier: MIT */
/* See options.h. */
#include "options.h"

#include <string.h>

void kvmap_read(const struct lathe_config *config, int budgets, struct kvmap_wishes *wishes)
{
    static const int32_t dtypes[] = { -1, LATHE_F32, LATHE_F16, LATHE_Q8_0 };
    const struct lathe_option_value *v = config->values;
    *wishes = (struct kvmap_wishes){
        .block_tokens = v[KVMAP_BLOCK_TOKENS].integer, .blocks = v[KVMAP_BLOCKS].integer,
        .memory_mb = v[KVMAP_MEMORY_MB].integer, .dtype = dtypes[v[KVMAP_DTYPE].integer],
        .preempt = strcmp(v[KVMAP_PREEMPTION].text, "swap") == 0     ? LATHE_KV_SWAP
                   : strcmp(v[KVMAP_PREEMPTION].text, "refuse") == 0 ? LATHE_KV_REFUSE
                                                                     : LATHE_KV_RECOMPUTE,
        .evict = strcmp(v[KVMAP_PREEMPTION].text, "evict") == 0,
    };
    if (budgets)
        wishes->budget = v[KVMAP_BUDGET].integer, wishes->pool_budget = v[KVMAP_POOL_BUDGET].integer;
}

int kvmap_size(const struct kvmap_wishes *wishes, const char *name, const struct lathe_kv_demand *demand,
               struct lathe_kv_geometry *geometry, struct lathe_error *err)
{
    uint32_t block_tokens = (uint32_t)wishes->block_tokens;
    uint64_t block_bytes, blocks, each;

    if (demand->max_requests == 0 || demand->context_tokens == 0)
        return lathe_fail(err, LATHE_EINVAL, "kvcache %s: asked for %u requests of %u tokens; both must be at least 1",
                          name, demand->max_requests, demand->context_tokens);
    if (wishes->dtype >= 0 && !((demand->kv_dtypes ? demand->kv_dtypes : 1u << LATHE_F32) >> wishes->dtype & 1))
        return lathe_fail(err, LATHE_EUNSUPPORTED, "kvcache %s: this model can't keep keys and values as %s; take another "
                          "dtype", name, lathe_dtype_name(wishes->dtype));
    if (wishes->dtype >= 0)
        geometry->kv_dtype = wishes->dtype;
    each = lathe_kv_bytes(demand, geometry->kv_dtype);
    if (__builtin_mul_overflow(each, (uint64_t)block_tokens, &block_bytes))
        return lathe_fail(err, LATHE_ERANGE, "kvcache %s: a block of %u tokens at %llu bytes each is too large", name,
                          block_tokens, (unsigned long long)each);
    /* More than this could never be used. */
    uint64_t most = ((uint64_t)demand->context_tokens + block_tokens - 1) / block_tokens * demand->max_requests;
    if (wishes->blocks > 0) {
        blocks = (uint64_t)wishes->blocks;
    } else {
        uint64_t memory = demand->memory_bytes ? demand->memory_bytes : (uint64_t)wishes->memory_mb << 20;
        blocks = block_bytes ? memory / block_bytes : most;
        if (blocks == 0)
            return lathe_fail(err, LATHE_EINVAL, "kvcache %s: %llu bytes hold no block of %u tokens, which takes %llu "
                              "bytes; raise memory_mb or lower block_tokens", name, (unsigned long long)memory,
                              block_tokens, (unsigned long long)block_bytes);
        if (blocks > most)
            blocks = most;
    }
    geometry->block_tokens = block_tokens;
    geometry->blocks = blocks > INT32_MAX ? INT32_MAX : (uint32_t)blocks;
    return LATHE_OK;
}
