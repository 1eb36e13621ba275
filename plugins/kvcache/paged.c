/* SPDX-License-Identifier: MIT */
/* A paged KV cache: blocks, block tables, reference counts (PagedAttention, SOSP 2023).
 *
 * The block map of plugins/lib/kvmap as it is: every position stays until its request ends, and
 * the only waste is the last block's empty end. What the other caches are compared with. */
#include <kvmap/kvmap.h>

static const struct lathe_option options[KVMAP_COUNT] = { KVMAP_OPTIONS(KVMAP_PREEMPT) };

static int create(const struct lathe_host *host, const struct lathe_config *config, void **self,
                  struct lathe_error *err)
{
    return kvmap_create(host, config, "paged", 0, sizeof(struct kvmap), self, err);
}

static void destroy(void *self)
{
    struct kvmap *map = self;
    if (!map)
        return;
    kvmap_close(map);
    lathe_free(map->host, map);
}

static const struct lathe_kvcache_api api = {
    .size = sizeof api,
    .abi = LATHE_KVCACHE_ABI,
    .create = create,
    .destroy = destroy,
    .layout = kvmap_layout,
    .admit = kvmap_admit,
    .blocks_needed = kvmap_blocks_needed,
    .blocks_available = kvmap_blocks_available,
    .reserve = kvmap_reserve,
    .table = kvmap_table,
    .filled = kvmap_filled,
    .truncate = kvmap_truncate,
    .release = kvmap_release,
    .usage = kvmap_usage,
    .fork = kvmap_fork,
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
    .name = "paged",
    .version = "1.1.0",
    .summary = "fixed-size blocks with reference counts, copy on write and swapping",
    .citation = "@inproceedings{kwon2023pagedattention,\n"
                "  title = {Efficient Memory Management for Large Language Model Serving with PagedAttention},\n"
                "  author = {Kwon, Woosuk and Li, Zhuohan and Zhuang, Siyuan and Sheng, Ying and Zheng, Lianmin and "
                "Yu, Cody Hao and Gonzalez, Joseph E. and Zhang, Hao and Stoica, Ion},\n"
                "  booktitle = {Proceedings of the 29th Symposium on Operating Systems Principles (SOSP '23)},\n"
                "  year = {2023},\n"
                "  doi = {10.1145/3600006.3613165}\n"
                "}\n",
    .options = options,
    .option_count = KVMAP_COUNT,
    .api = &api,
};
