/* SPDX-License-Identifier: MIT */
/* A KV cache that keeps the last positions of a request and a random choice of those before: the
 * control for h2o. What a policy that looks at scores brings is what it brings beyond this.
 *
 * Each position draws a number when it comes (counter-based: seed, request, set, position), and the
 * lowest goes first; so at any time those that stay are a uniform sample of all that have left the recent
 * part, and what goes doesn't depend on who else runs. The draw: the upper 24 bits of lathe_random_u64
 * (seed, LATHE_RANDOM_EVICTION, request id + set · 2⁴⁰, position). When and what exactly goes:
 * plugins/lib/kvmap/choice.h. */
#include <kvmap/choice.h>

enum { OPT_SEED = KVCHOICE_COUNT, OPT_COUNT };

static const struct lathe_option options[OPT_COUNT] = {
    KVMAP_OPTIONS(KVMAP_PREEMPT_OR_EVICT),
    KVMAP_BUDGET_OPTIONS,
    KVCHOICE_OPTIONS,
    { "seed", LATHE_OPTION_INTEGER, "1", 0, 1e15, "", NULL, "Another seed chooses others." },
};

static int create(const struct lathe_host *host, const struct lathe_config *config, void **self,
                  struct lathe_error *err)
{
    void *made;
    int status = kvchoice_create(host, config, "random", sizeof(struct kvchoice), &made, err);
    if (status != LATHE_OK)
        return status;
    struct kvchoice *c = made;
    c->draws = 1;
    c->seed = (uint64_t)config->values[OPT_SEED].integer;
    *self = made;
    return LATHE_OK;
}

static const struct lathe_kvcache_api api = {
    .size = sizeof api,
    .abi = LATHE_KVCACHE_ABI,
    .create = create,
    .destroy = kvchoice_destroy,
    .layout = kvchoice_layout,
    .admit = kvchoice_admit,
    .blocks_needed = kvmap_blocks_needed,
    .blocks_available = kvmap_blocks_available,
    .reserve = kvmap_reserve,
    .table = kvmap_table,
    .filled = kvchoice_filled,
    .truncate = kvchoice_truncate,
    .release = kvmap_release,
    .usage = kvmap_usage,
    .fork = kvchoice_fork,
    .kept = kvchoice_kept,
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
    .name = "random",
    .version = "1.0.0",
    .summary = "keeps the last positions of each request and a random choice of the others",
    .citation = NULL,
    .options = options,
    .option_count = OPT_COUNT,
    .api = &api,
};
