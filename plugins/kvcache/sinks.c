/* SPDX-License-Identifier: MIT */
/* A KV cache that keeps the first few positions of a request and a window of the last ones: attention
 * sinks (StreamingLLM, Xiao et al., ICLR 2024).
 *
 * Heads that have nothing to look at look at the first positions; without those the softmax has
 * nowhere to put its mass, and the model breaks. Both parts together are `budget` positions; when and
 * what exactly: plugins/lib/kvmap/span.h.
 *
 * Positions, by choice:
 *
 *     cache      as the paper has it: keys count as they lie in the cache, so that no distance is ever
 *                beyond the budget. Keys are stored before their rotation and rotated when they are read
 *                (LATHE_KV_KEYS_UNROTATED), and every slice says LATHE_SLICE_CACHE_POSITIONS, whether
 *                something was evicted or not: until then both ways are the same.
 *     original   keys stay as they were rotated; the sinks drift out of the distances that the model knows.
 *
 * A model that tells no layers (a simulation) has no positions to turn, and takes either. */
#include <kvmap/span.h>

enum { OPT_SINKS = KVMAP_BUDGET_COUNT, OPT_POSITIONS, OPT_COUNT };

static const struct lathe_option options[OPT_COUNT] = {
    KVMAP_OPTIONS(KVMAP_PREEMPT_OR_EVICT),
    KVMAP_BUDGET_OPTIONS,
    { "sinks", LATHE_OPTION_INTEGER, "4", 0, 1e6, "tokens", NULL, "Positions at the beginning that always stay." },
    { "positions", LATHE_OPTION_CHOICE, "cache", 0, 0, "", "cache|original",
      "What rotary positions count: what lies in the cache, as the paper does, or what there was." },
};

struct sinks {
    struct kvspan span;
    int in_cache; /* positions = cache */
};

static int create(const struct lathe_host *host, const struct lathe_config *config, void **self,
                  struct lathe_error *err)
{
    void *made;
    int status = kvspan_create(host, config, "sinks", sizeof(struct sinks), (uint32_t)config->values[OPT_SINKS].integer,
                               &made, err);
    if (status != LATHE_OK)
        return status;
    ((struct sinks *)made)->in_cache = config->values[OPT_POSITIONS].integer == 0;
    *self = made;
    return LATHE_OK;
}


static int layout(void *self, const struct lathe_kv_demand *demand, struct lathe_kv_geometry *geometry,
                  struct lathe_error *err)
{
    const struct sinks *p = self;
    int status = kvspan_layout(self, demand, geometry, err);
    if (status != LATHE_OK || !p->in_cache || !p->span.most || demand->layers == 0)
        return status;
    if (!demand->unrotated)
        return lathe_fail(err, LATHE_EUNSUPPORTED, "kvcache sinks: this model can't rotate keys when it reads them; say "
                          "positions = original");
    geometry->kv_flags |= LATHE_KV_KEYS_UNROTATED;
    geometry->cache_positions = 1;
    return LATHE_OK;
}

static const struct lathe_kvcache_api api = {
    .size = sizeof api,
    .abi = LATHE_KVCACHE_ABI,
    .create = create,
    .destroy = kvspan_destroy,
    .layout = layout,
    .admit = kvspan_admit,
    .blocks_needed = kvmap_blocks_needed,
    .blocks_available = kvmap_blocks_available,
    .reserve = kvmap_reserve,
    .table = kvmap_table,
    .filled = kvspan_filled,
    .truncate = kvspan_truncate,
    .release = kvmap_release,
    .usage = kvmap_usage,
    .fork = kvspan_fork,
    .kept = kvspan_kept,
    .preempt_choice = kvmap_preempt_choice,
    .swap_out = kvmap_swap_out,
    .swap_in = kvmap_swap_in,
};

extern const struct lathe_plugin lathe_plugin;
LATHE_EXPORT const struct lathe_plugin lathe_plugin = {
    .size = sizeof lathe_plugin,
    .abi = LATHE_PLUGIN_ABI,
    .kind = LATHE_KIND_KVCACHE,
    .concurrency = LATHE_SERIAL,
    .name = "sinks",
    .version = "1.0.0",
    .summary = "keeps the first positions of each request and a window of the last",
    .citation = "@inproceedings{xiao2024streamingllm,\n"
                "  title = {Efficient Streaming Language Models with Attention Sinks},\n"
                "  author = {Xiao, Guangxuan and Tian, Yuandong and Chen, Beidi and Han, Song and Lewis, Mike},\n"
                "  booktitle = {The Twelfth International Conference on Learning Representations (ICLR 2024)},\n"
                "  year = {2024}\n"
                "}\n",
    .options = options,
    .option_count = OPT_COUNT,
    .api = &api,
};
