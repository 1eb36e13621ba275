/* SPDX-License-Identifier: MIT */
/* A KV cache that keeps heavy hitters: the last positions of a request, and of those before the ones
 * that were looked at most (H2O, Zhang et al., NeurIPS 2023).
 *
 * A key's score is the sum of the weights that rows gave it, from the step that it was stored in on,
 * its own row's weight included; it is never divided by its age, so that old keys have had more time
 * to gather. In a set of a KV head the weights of its query heads are added up, in one of a layer
 * those of all its heads, in one of a request those of all layers. What an evicted key had gathered is
 * forgotten with it. When and what exactly goes: plugins/lib/kvmap/choice.h.
 *
 * The paper's eviction is this with one head a set. Its published code (FMInference/H2O) differs: the
 * form that masks keys takes heavy and recent sizes as shares of the prompt's length, the form that drops
 * them has fixed sizes as here; both have a score a query head, since their models have as many KV heads.
 * Here, with grouped queries, a KV head is the finest there is, as its keys are stored once.
 *
 * Scores cost a step: the model adds up masses, and this a pass over sets × budget numbers. */
#include <kvmap/choice.h>

static const struct lathe_option options[KVCHOICE_COUNT] = { KVMAP_OPTIONS(KVMAP_PREEMPT_OR_EVICT), KVMAP_BUDGET_OPTIONS,
                                                             KVCHOICE_OPTIONS };

static int create(const struct lathe_host *host, const struct lathe_config *config, void **self,
                  struct lathe_error *err)
{
    return kvchoice_create(host, config, "h2o", sizeof(struct kvchoice), self, err);
}

static int layout(void *self, const struct lathe_kv_demand *demand, struct lathe_kv_geometry *geometry,
                  struct lathe_error *err)
{
    const struct kvchoice *c = self;
    int status = kvchoice_layout(self, demand, geometry, err);
    if (status != LATHE_OK || !c->most)
        return status;
    if (!demand->key_mass)
        return lathe_fail(err, LATHE_EUNSUPPORTED, "kvcache h2o: this model can't tell how much its keys are looked at; take "
                          "another model, or the kvcache random, which needs nothing of it");
    geometry->wants_mass = 1;
    return LATHE_OK;
}

static const struct lathe_kvcache_api api = {
    .size = sizeof api,
    .abi = LATHE_KVCACHE_ABI,
    .create = create,
    .destroy = kvchoice_destroy,
    .layout = layout,
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
    .observe = kvchoice_observe,
};

extern const struct lathe_plugin lathe_plugin;
LATHE_EXPORT const struct lathe_plugin lathe_plugin = {
    .size = sizeof lathe_plugin,
    .abi = LATHE_PLUGIN_ABI,
    .kind = LATHE_KIND_KVCACHE,
    .concurrency = LATHE_SERIAL,
    .name = "h2o",
    .version = "1.0.0",
    .summary = "keeps the last positions of each request and those that were looked at most",
    .citation = "@inproceedings{zhang2023h2o,\n"
                "  title = {H2O: Heavy-Hitter Oracle for Efficient Generative Inference of Large Language Models},\n"
                "  author = {Zhang, Zhenyu and Sheng, Ying and Zhou, Tianyi and Chen, Tianlong and Zheng, Lianmin and "
                "Cai, Ruisi and Song, Zhao and Tian, Yuandong and R{\\'e}, Christopher and Barrett, Clark and Wang, "
                "Zhangyang and Chen, Beidi},\n"
                "  booktitle = {Advances in Neural Information Processing Systems 36 (NeurIPS 2023)},\n"
                "  year = {2023}\n"
                "}\n",
    .options = options,
    .option_count = KVCHOICE_COUNT,
    .api = &api,
};
