/* SPDX-License-Identifier: MIT */
/* Sampling with temperature, top-k, min-p, top-p and penalties.
 *
 *     logits ─ penalties ─ banned ─ ÷ temperature ─┬─ top-k ─ min-p ─ top-p ─ draw ─▶ token
 *        └───────────── log-softmax of the row as it came ─────────────────────▶ logprob
 *
 * All three truncations keep a prefix of the tokens sorted by probability (ties: the lower
 * id first), of the distribution after temperature:
 *     top-k  the k first;
 *     min-p  those with at least min_p × the largest probability;
 *     top-p  of what those two left, renormalised, the shortest prefix with mass ≥ top_p.
 *
 * The draw inverts the cumulative sum at one uniform number that is a function of
 * (sampling seed, request, output index): the same whatever else is in the batch.
 *
 * Sorting 49152 tokens a row would cost more than a small model's forward. Truncated draws
 * collect the tokens above a weight of 1e-6 of the largest, check that the prefix asked for
 * must lie among them (all of them otherwise), and pop only that prefix off a heap. Scratch
 * is sized by bind; a call allocates nothing.
 *
 * Penalties. Repetition (Keskar et al. 2019): the logit of each token of prompt or output
 * is divided by it if positive, multiplied otherwise. Presence is subtracted once from
 * tokens that the output has, frequency for each occurrence. */
#include <math.h>
#include <string.h>

#include <sampling/sampling.h>

#include <lathe/host.h>
#include <lathe/random.h>

static const char name[] = "sampler topp";

/* Below this a temperature is greedy: 1/T would overflow what float32 logits mean. */
static const float COLDEST = 1e-5f;
/* Tokens lighter than this share of the largest are collected only if need be. */
static const float LIGHT = 1e-6f;

enum { OPT_TEMPERATURE, OPT_TOP_P, OPT_TOP_K, OPT_MIN_P, OPT_REPETITION, OPT_PRESENCE, OPT_FREQUENCY, OPT_SEED,
       OPT_COUNT };

static const struct lathe_option options[OPT_COUNT] = {
    { "temperature", LATHE_OPTION_NUMBER, "1.0", 0, 100, "", NULL, "Divides the logits; 0 is greedy." },
    { "top_p", LATHE_OPTION_NUMBER, "1.0", 1e-6, 1, "", NULL, "Shortest prefix with this probability mass; 1: off." },
    { "top_k", LATHE_OPTION_INTEGER, "0", 0, 2147483647, "tokens", NULL, "Only the k most likely tokens; 0: off." },
    { "min_p", LATHE_OPTION_NUMBER, "0.0", 0, 0.999999, "", NULL,
      "Drop tokens below this share of the largest probability; 0: off." },
    { "repetition_penalty", LATHE_OPTION_NUMBER, "1.0", 0.01, 100, "", NULL,
      "Weakens tokens that prompt or output have already; 1: off." },
    { "presence_penalty", LATHE_OPTION_NUMBER, "0.0", -2, 2, "nats", NULL,
      "Subtracted once from tokens that the output has." },
    { "frequency_penalty", LATHE_OPTION_NUMBER, "0.0", -2, 2, "nats", NULL,
      "Subtracted for each occurrence in the output." },
    { "seed", LATHE_OPTION_INTEGER, "0", 0, 9007199254740991.0, "", NULL,
      "Seed of requests that bring none of their own." },
};

struct topp {
    const struct lathe_host *host;
    struct lathe_sampling defaults;
    uint32_t vocab_tokens;
    uint32_t mark;      /* the row being done: seen[] entries of older rows are stale */
    float *logits;      /* (vocab) the row with penalties, if it has any */
    float *weights;     /* (vocab) exp((logit − largest) / temperature) */
    int32_t *heap;      /* (vocab) candidates */
    uint32_t *seen;     /* (vocab) mark when the token's penalty was last applied */
};

static void destroy(void *self)
{
    struct topp *t = self;
    if (!t)
        return;
    lathe_free(t->host, t->logits);
    lathe_free(t->host, t->weights);
    lathe_free(t->host, t->heap);
    lathe_free(t->host, t->seen);
    lathe_free(t->host, t);
}

static int create(const struct lathe_host *host, const struct lathe_config *config, void **self,
                  struct lathe_error *err)
{
    const struct lathe_option_value *v = config->values;
    struct topp *t = lathe_alloc(host, sizeof *t);
    if (!t)
        return lathe_fail(err, LATHE_ENOMEM, "%s: no memory for %zu bytes", name, sizeof *t);
    t->host = host;
    t->defaults = (struct lathe_sampling){
        .temperature = (float)v[OPT_TEMPERATURE].number,
        .top_p = (float)v[OPT_TOP_P].number,
        .min_p = (float)v[OPT_MIN_P].number,
        .top_k = (int32_t)v[OPT_TOP_K].integer,
        .repetition_penalty = (float)v[OPT_REPETITION].number,
        .presence_penalty = (float)v[OPT_PRESENCE].number,
        .frequency_penalty = (float)v[OPT_FREQUENCY].number,
        .seed = (uint64_t)v[OPT_SEED].integer,
    };
    *self = t;
    return LATHE_OK;
}

static int defaults(void *self, struct lathe_sampling *sampling, struct lathe_error *err)
{
    (void)err;
    *sampling = ((struct topp *)self)->defaults;
    return LATHE_OK;
}

static int bind_vocabulary(void *self, uint32_t vocab_tokens, struct lathe_error *err)
{
    struct topp *t = self;
    float *logits, *weights;
    int32_t *heap;
    uint32_t *seen;

    if (vocab_tokens == 0 || vocab_tokens > INT32_MAX)
        return lathe_fail(err, LATHE_EINVAL, "%s: a vocabulary of %u tokens; 1 to %d are possible", name, vocab_tokens,
                          INT32_MAX);
    logits = lathe_alloc_array(t->host, vocab_tokens, sizeof *logits);
    weights = lathe_alloc_array(t->host, vocab_tokens, sizeof *weights);
    heap = lathe_alloc_array(t->host, vocab_tokens, sizeof *heap);
    seen = lathe_alloc_array(t->host, vocab_tokens, sizeof *seen);
    if (!logits || !weights || !heap || !seen) {
        lathe_free(t->host, logits);
        lathe_free(t->host, weights);
        lathe_free(t->host, heap);
        lathe_free(t->host, seen);
        return lathe_fail(err, LATHE_ENOMEM, "%s: no memory for scratch of %u tokens", name, vocab_tokens);
    }
    lathe_free(t->host, t->logits);
    lathe_free(t->host, t->weights);
    lathe_free(t->host, t->heap);
    lathe_free(t->host, t->seen);
    t->logits = logits, t->weights = weights, t->heap = heap, t->seen = seen;
    t->vocab_tokens = vocab_tokens;
    t->mark = 0;
    return LATHE_OK;
}

static int check_wishes(const struct lathe_sample_row *row, struct lathe_error *err)
{
    const struct lathe_sampling *s = &row->sampling;
    /* written so that NaN fails */
    if (!(s->temperature >= 0.0f && s->temperature < INFINITY && s->top_p > 0.0f && s->top_p <= 1.0f &&
          s->min_p >= 0.0f && s->min_p < 1.0f && s->top_k >= 0 && s->repetition_penalty > 0.0f &&
          s->repetition_penalty < INFINITY && fabsf(s->presence_penalty) <= 2.0f && fabsf(s->frequency_penalty) <= 2.0f))
        return lathe_fail(err, LATHE_EINVAL, "%s: request %llu wants temperature %g, top_p %g, min_p %g, top_k %d, "
                          "repetition %g, presence %g, frequency %g; one is out of range", name,
                          (unsigned long long)row->request, (double)s->temperature, (double)s->top_p, (double)s->min_p,
                          (int)s->top_k, (double)s->repetition_penalty, (double)s->presence_penalty,
                          (double)s->frequency_penalty);
    return LATHE_OK;
}

/* The row with penalties and bans in it: the row itself where there are none. */
static int penalise(struct topp *t, const struct sampling_batch *batch, const struct lathe_sample_row *row,
                    const float **logits, struct lathe_error *err)
{
    const struct lathe_sampling *s = &row->sampling;
    const int32_t *history = batch->history + row->history_first;
    int additive = s->presence_penalty != 0.0f || s->frequency_penalty != 0.0f, repeated = s->repetition_penalty != 1.0f;

    if (!additive && !repeated && row->banned_count == 0)
        return LATHE_OK;
    for (uint32_t i = 0; i < row->history_count && (additive || repeated); i++)
        if (history[i] < 0 || (uint32_t)history[i] >= t->vocab_tokens)
            return lathe_fail(err, LATHE_ERANGE, "%s: request %llu has token %d in its history, outside the "
                              "vocabulary of %u", name, (unsigned long long)row->request, history[i], t->vocab_tokens);
    if (t->mark >= UINT32_MAX - 2) { /* marks start again */
        memset(t->seen, 0, t->vocab_tokens * sizeof *t->seen);
        t->mark = 0;
    }
    memcpy(t->logits, *logits, t->vocab_tokens * sizeof *t->logits);
    *logits = t->logits;
    if (repeated) {
        t->mark++;
        for (uint32_t i = 0; i < row->history_count; i++) {
            float *x = &t->logits[history[i]];
            if (t->seen[history[i]] == t->mark)
                continue;
            t->seen[history[i]] = t->mark;
            *x = *x > 0.0f ? *x / s->repetition_penalty : *x * s->repetition_penalty;
        }
    }
    if (additive) {
        t->mark++;
        for (uint32_t i = row->prompt_count; i < row->history_count; i++) {
            float *x = &t->logits[history[i]];
            if (t->seen[history[i]] != t->mark)
                *x -= s->presence_penalty;
            t->seen[history[i]] = t->mark;
            *x -= s->frequency_penalty;
        }
    }
    for (uint32_t i = 0; i < row->banned_count; i++)
        if (batch->stops[i] >= 0 && (uint32_t)batch->stops[i] < t->vocab_tokens)
            t->logits[batch->stops[i]] = -INFINITY;
    return LATHE_OK;
}

/* --- drawing ----------------------------------------------------------------- */

static int likelier(const float *weights, int32_t a, int32_t b)
{
    return weights[a] != weights[b] ? weights[a] > weights[b] : a < b;
}

static void sift_down(const float *weights, int32_t *heap, uint32_t count, uint32_t at)
{
    int32_t moving = heap[at];
    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child >= count)
            break;
        if (child + 1 < count && likelier(weights, heap[child + 1], heap[child]))
            child++;
        if (!likelier(weights, heap[child], moving))
            break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = moving;
}

/* Tokens with a weight of at least `floor` (and not 0) into heap[]; their mass to *mass. */
static uint32_t collect(struct topp *t, float floor, double *mass)
{
    uint32_t n = 0;
    *mass = 0.0;
    for (uint32_t i = 0; i < t->vocab_tokens; i++) {
        if (t->weights[i] >= floor && t->weights[i] > 0.0f) {
            t->heap[n++] = (int32_t)i;
            *mass += (double)t->weights[i];
        }
    }
    return n;
}

/* Among the first `count` of list[], the one that the cumulative sum reaches at u × mass. */
static int32_t invert(const float *weights, const int32_t *list, uint32_t count, double mass, double u)
{
    double target = u * mass, sum = 0.0;
    for (uint32_t i = 0; i < count; i++) {
        sum += (double)weights[list[i]];
        if (sum > target)
            return list[i];
    }
    return list[count - 1]; /* rounding */
}

static int32_t draw(struct topp *t, const struct lathe_sampling *s, double total, double u)
{
    uint32_t most = s->top_k > 0 ? (uint32_t)s->top_k : t->vocab_tokens, count, kept = 0;
    double mass, limit, sum = 0.0;
    int32_t *heap = t->heap;

    if (most >= t->vocab_tokens && s->top_p >= 1.0f) {
        count = collect(t, s->min_p, &mass);
        return invert(t->weights, heap, count, mass, u);
    }
    count = collect(t, s->min_p > 0.0f ? s->min_p : LIGHT, &mass);
    if (s->min_p == 0.0f && count < most) {
        if (most < t->vocab_tokens || mass < (double)s->top_p * total)
            count = collect(t, 0.0f, &mass);
        else
            mass = total; /* the light ones aren't in the prefix, but in what it is a share of */
    }
    for (uint32_t i = count / 2; i-- > 0;)
        sift_down(t->weights, heap, count, i);

    /* Pop the likeliest to the back; without top-k it ends as soon as the mass is reached.
     * With it, top-p is a share of the k's mass, which is known only at the end. */
    limit = most < count || s->top_p >= 1.0f ? INFINITY : (double)s->top_p * mass;
    while (kept < most && kept < count && sum < limit) {
        int32_t best = heap[0];
        kept++;
        heap[0] = heap[count - kept];
        heap[count - kept] = best;
        sift_down(t->weights, heap, count - kept, 0);
        sum += (double)t->weights[best];
    }
    for (uint32_t i = 0, j = count - kept; i < kept / 2; i++) { /* likeliest first, at heap + j */
        int32_t swap = heap[j + i];
        heap[j + i] = heap[count - 1 - i];
        heap[count - 1 - i] = swap;
    }
    heap += count - kept;
    if (limit == INFINITY && s->top_p < 1.0f) {
        uint32_t i = 0;
        for (limit = (double)s->top_p * sum, sum = 0.0; i < kept && sum < limit; i++)
            sum += (double)t->weights[heap[i]];
        kept = i;
    }
    return invert(t->weights, heap, kept, sum, u);
}

static int sample_row(struct topp *t, const struct sampling_batch *batch, const struct lathe_sample_row *row,
                      struct lathe_sampled *sampled, struct lathe_error *err)
{
    const struct lathe_sampling *s = &row->sampling;
    const float *raw = batch->logits + (size_t)row->logits_row * batch->vocab_tokens, *logits = raw;
    float largest, peak;
    double mass = -1.0, raw_mass = -1.0;
    int32_t token;
    int status;

    if ((status = check_wishes(row, err)) != LATHE_OK ||
        (status = sampling_largest(name, row, raw, t->vocab_tokens, &largest, err)) != LATHE_OK)
        return status;
    if (row->is_forced) {
        raw_mass = sampling_exponentials(raw, t->vocab_tokens, largest, 1.0f, NULL);
        *sampled = (struct lathe_sampled){ row->forced,
                                           (float)((double)raw[row->forced] - (double)largest - log(raw_mass)) };
        return LATHE_OK;
    }
    if ((status = penalise(t, batch, row, &logits, err)) != LATHE_OK)
        return status;
    token = sampling_argmax(logits, t->vocab_tokens, NULL, 0);
    if (token < 0)
        return lathe_fail(err, LATHE_EINVAL, "%s: every token that request %llu could have is banned", name,
                          (unsigned long long)row->request);
    peak = logits[token];
    if (peak == INFINITY)
        return lathe_fail(err, LATHE_EINVAL, "%s: the penalties of request %llu take a logit beyond float32", name,
                          (unsigned long long)row->request);
    if (s->temperature >= COLDEST && s->top_k != 1) {
        mass = sampling_exponentials(logits, t->vocab_tokens, peak, 1.0f / s->temperature, t->weights);
        token = draw(t, s, mass, lathe_random_unit(s->seed, LATHE_RANDOM_SAMPLING, row->request, row->output_index));
    }
    raw_mass = logits == raw && s->temperature == 1.0f && mass > 0.0
                   ? mass
                   : sampling_exponentials(raw, t->vocab_tokens, largest, 1.0f, NULL);
    sampled->token = token;
    sampled->logprob = (float)((double)raw[token] - (double)largest - log(raw_mass));
    return LATHE_OK;
}

static int sample(void *self, const void *in, void *out, struct lathe_error *err)
{
    struct topp *t = self;
    struct sampling_batch batch;
    int status = sampling_open(name, t->vocab_tokens, in, out, &batch, err);
    for (uint32_t i = 0; status == LATHE_OK && i < batch.row_count; i++)
        status = sample_row(t, &batch, &batch.rows[i], &batch.sampled[i], err);
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
    .name = "topp",
    .version = "1.0.0",
    .summary = "temperature, top-k, min-p, top-p and penalties, seeded for each request",
    .citation = "@inproceedings{holtzman2020curious,\n"
                "  title = {The Curious Case of Neural Text Degeneration},\n"
                "  author = {Holtzman, Ari and Buys, Jan and Du, Li and Forbes, Maxwell and Choi, Yejin},\n"
                "  booktitle = {International Conference on Learning Representations},\n"
                "  year = {2020}\n"
                "}\n"
                "@article{keskar2019ctrl,\n"
                "  title = {{CTRL}: A Conditional Transformer Language Model for Controllable Generation},\n"
                "  author = {Keskar, Nitish Shirish and McCann, Bryan and Varshney, Lav R. and Xiong, Caiming and "
                "Socher, Richard},\n"
                "  journal = {arXiv preprint arXiv:1909.05858},\n"
                "  year = {2019}\n"
                "}\n"
                "@inproceedings{nguyen2025minp,\n"
                "  title = {Turning Up the Heat: Min-p Sampling for Creative and Coherent {LLM} Outputs},\n"
                "  author = {Nguyen, Minh Nhat and Baker, Andrew and Neo, Clement and Roush, Allen and Kirsch, Andreas "
                "and Shwartz-Ziv, Ravid},\n"
                "  booktitle = {International Conference on Learning Representations},\n"
                "  year = {2025}\n"
                "}\n",
    .options = options,
    .option_count = OPT_COUNT,
    .api = &api,
};
