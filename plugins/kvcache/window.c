/* SPDX-License-Identifier: MIT */
/* A KV cache that keeps the last `budget` positions of a request: sliding window attention as a
 * cache policy (Longformer, Beltagy et al. 2020).
 *
 * When and what exactly: plugins/lib/kvmap/span.h, with no first positions. A model that was trained
 * on full attention breaks when its first positions leave the window, which is what the plugin
 * `sinks` shows; this is its counterpart. Keys stay as they were rotated. */
#include <kvmap/span.h>

static const struct lathe_option options[KVMAP_BUDGET_COUNT] = { KVMAP_OPTIONS(KVMAP_PREEMPT_OR_EVICT), KVMAP_BUDGET_OPTIONS };

static int create(const struct lathe_host *host, const struct lathe_config *config, void **self,
                  struct lathe_error *err)
{
    return kvspan_create(host, config, "window", sizeof(struct kvspan), 0, self, err);
}

static const struct lathe_kvcache_api api = {
    .size = sizeof api,
    .abi = LATHE_KVCACHE_ABI,
    .create = create,
    .destroy = kvspan_destroy,
    .layout = kvspan_layout,
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
    .name = "window",
    .version = "1.0.0",
    .summary = "keeps the last positions of each request",
    .citation = "@misc{beltagy2020longformer,\n"
                "  title = {Longformer: The Long-Document Transformer},\n"
                "  author = {Beltagy, Iz and Peters, Matthew E. and Cohan, Arman},\n"
                "  year = {2020},\n"
                "  eprint = {2004.05150},\n"
                "  archivePrefix = {arXiv}\n"
                "}\n",
    .options = options,
    .option_count = KVMAP_BUDGET_COUNT,
    .api = &api,
};
