/* SPDX-License-Identifier: MIT */
/* Greedy: always the largest logit, ties to the lower id.
 *
 * Ignores every wish but banned tokens: for runs that must be compared token by token.
 * The log-probability is of the model's own distribution, as for every sampler. */
#include <math.h>

#include <sampling/sampling.h>

#include <lathe/host.h>

static const char name[] = "sampler greedy";

struct greedy {
    const struct lathe_host *host;
    uint32_t vocab_tokens;
};

static int create(const struct lathe_host *host, const struct lathe_config *config, void **self,
                  struct lathe_error *err)
{
    struct greedy *g = lathe_alloc(host, sizeof *g);
    (void)config;
    if (!g)
        return lathe_fail(err, LATHE_ENOMEM, "%s: no memory for %zu bytes", name, sizeof *g);
    g->host = host;
    *self = g;
    return LATHE_OK;
}

static void destroy(void *self)
{
    struct greedy *g = self;
    if (g)
        lathe_free(g->host, g);
}

static int defaults(void *self, struct lathe_sampling *sampling, struct lathe_error *err)
{
    (void)self, (void)err;
    *sampling = (struct lathe_sampling){ .temperature = 0.0f, .top_p = 1.0f, .repetition_penalty = 1.0f };
    return LATHE_OK;
}

static int bind_vocabulary(void *self, uint32_t vocab_tokens, struct lathe_error *err)
{
    if (vocab_tokens == 0 || vocab_tokens > INT32_MAX)
        return lathe_fail(err, LATHE_EINVAL, "%s: a vocabulary of %u tokens; 1 to %d are possible", name, vocab_tokens,
                          INT32_MAX);
    ((struct greedy *)self)->vocab_tokens = vocab_tokens;
    return LATHE_OK;
}

static int sample(void *self, const void *in, void *out, struct lathe_error *err)
{
    struct greedy *g = self;
    struct sampling_batch batch;
    int status = sampling_open(name, g->vocab_tokens, in, out, &batch, err);

    for (uint32_t i = 0; status == LATHE_OK && i < batch.row_count; i++) {
        const struct lathe_sample_row *row = &batch.rows[i];
        const float *logits = batch.logits + (size_t)row->logits_row * batch.vocab_tokens;
        float largest;
        int32_t token;

        if ((status = sampling_largest(name, row, logits, batch.vocab_tokens, &largest, err)) != LATHE_OK)
            break;
        token = row->is_forced ? row->forced
                               : sampling_argmax(logits, batch.vocab_tokens, batch.stops, row->banned_count);
        if (token < 0)
            return lathe_fail(err, LATHE_EINVAL, "%s: every token that request %llu could have is banned", name,
                              (unsigned long long)row->request);
        batch.sampled[i].token = token;
        batch.sampled[i].logprob = (float)((double)logits[token] - (double)largest -
                                           log(sampling_exponentials(logits, batch.vocab_tokens, largest, 1.0f, NULL)));
    }
    return status;
}

static const struct lathe_sampler_api api = {
    .size = sizeof api,
    .abi = LATHE_SAMPLER_ABI,
    .create = create,
    .destroy = destroy,
    .defaults = defaults,
    .bind = bind_vocabulary,
    .sample = sample,
};

extern const struct lathe_plugin lathe_plugin;
LATHE_EXPORT const struct lathe_plugin lathe_plugin = {
    .size = sizeof lathe_plugin,
    .abi = LATHE_PLUGIN_ABI,
    .kind = LATHE_KIND_SAMPLER,
    .concurrency = LATHE_SERIAL,
    .name = "greedy",
    .version = "1.0.0",
    .summary = "always the most likely token",
    .api = &api,
};
