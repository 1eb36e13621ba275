/* SPDX-License-Identifier: MIT */
/* A sampler to copy. It works: temperature alone, drawn with the request's own seed.
 *
 *   1. Say in this comment what your sampler does, and cite its paper below.
 *   2. Declare your options: name, type, default, range, unit, help. The host checks them.
 *   3. defaults: what a request gets that says nothing.
 *   4. sample: a token and its log-probability for each row. lathe_sampling checks the
 *      message and has the sums over the vocabulary; draw with lathe_random_unit, so that
 *      a request draws the same whatever is beside it in the batch. Allocate nothing.
 *   5. Name it in lathe_plugin, at the end, and link the library in mine.cmake as
 *      template.cmake does.
 *
 * Build, and the conformance tests run on it by themselves; then swap it in:
 *     lathe.run { sampler = "mine", … } */
#include <math.h>

#include <sampling/sampling.h>

#include <lathe/host.h>
#include <lathe/random.h>

static const char name[] = "sampler template";

/* Step 2. create finds the values in this order. */
enum { OPT_TEMPERATURE, OPT_COUNT };

static const struct lathe_option options[OPT_COUNT] = {
    { "temperature", LATHE_OPTION_NUMBER, "1.0", 0, 100, "", NULL, "Divides the logits; 0 is greedy." },
};

struct mine {
    const struct lathe_host *host;
    float temperature;
    uint32_t vocab_tokens;
};

static int create(const struct lathe_host *host, const struct lathe_config *config, void **self,
                  struct lathe_error *err)
{
    struct mine *m = lathe_alloc(host, sizeof *m); /* zeroed */
    if (!m)
        return lathe_fail(err, LATHE_ENOMEM, "%s: no memory for %zu bytes", name, sizeof *m);
    m->host = host;
    m->temperature = (float)config->values[OPT_TEMPERATURE].number;
    *self = m;
    return LATHE_OK;
}

static void destroy(void *self)
{
    struct mine *m = self;
    if (m)
        lathe_free(m->host, m);
}

/* Step 3. */
static int defaults(void *self, struct lathe_sampling *sampling, struct lathe_error *err)
{
    (void)err;
    *sampling = (struct lathe_sampling){ .temperature = ((struct mine *)self)->temperature, .top_p = 1.0f,
                                         .repetition_penalty = 1.0f };
    return LATHE_OK;
}

static int bind_vocabulary(void *self, uint32_t vocab_tokens, struct lathe_error *err)
{
    if (vocab_tokens == 0 || vocab_tokens > INT32_MAX)
        return lathe_fail(err, LATHE_EINVAL, "%s: a vocabulary of %u tokens; 1 to %d are possible", name, vocab_tokens,
                          INT32_MAX);
    ((struct mine *)self)->vocab_tokens = vocab_tokens;
    return LATHE_OK;
}

/* Step 4. Walks the cumulative sum to u × the whole; banned tokens count nothing. */
static int32_t draw(const float *logits, uint32_t n, const int32_t *banned, uint32_t banned_count, float peak,
                    float temperature, double u)
{
    double whole = 0.0, sum = 0.0;
    int32_t last = -1;
    for (int pass = 0; pass < 2; pass++) {
        for (uint32_t i = 0; i < n; i++) {
            double weight = exp(((double)logits[i] - (double)peak) / (double)temperature);
            for (uint32_t b = 0; b < banned_count; b++)
                if (banned[b] == (int32_t)i)
                    weight = 0.0;
            if (weight == 0.0)
                continue;
            if (pass == 0) {
                whole += weight;
                continue;
            }
            sum += weight;
            last = (int32_t)i;
            if (sum > u * whole)
                return last;
        }
    }
    return last; /* rounding */
}

static int sample(void *self, const void *in, void *out, struct lathe_error *err)
{
    const struct mine *m = self;
    struct sampling_batch batch;
    int status = sampling_open(name, m->vocab_tokens, in, out, &batch, err);

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
        if (!row->is_forced && row->sampling.temperature > 1e-5f)
            token = draw(logits, batch.vocab_tokens, batch.stops, row->banned_count, logits[token],
                         row->sampling.temperature,
                         lathe_random_unit(row->sampling.seed, LATHE_RANDOM_SAMPLING, row->request, row->output_index));
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

/* Step 5. */
extern const struct lathe_plugin lathe_plugin;
LATHE_EXPORT const struct lathe_plugin lathe_plugin = {
    .size = sizeof lathe_plugin,
    .abi = LATHE_PLUGIN_ABI,
    .kind = LATHE_KIND_SAMPLER,
    .concurrency = LATHE_SERIAL,
    .name = "template",
    .version = "1.0.0",
    .summary = "a sampler to copy: temperature alone",
    .options = options,
    .option_count = OPT_COUNT,
    .api = &api,
};
