/* SPDX-License-Identifier: MIT */
/* See sampling.h.
 *
 * exp: x = n ln 2 + r, |r| ≤ ln 2 / 2; e^r by a polynomial of degree 7, scaled by 2^n
 * through the exponent bits, eight at once; the constants are Cephes' expf split of ln 2 and Taylor's coefficients.
 *
 * The loops over a vocabulary are compiled twice, for AVX2 and for any processor, from the same
 * lines; each product and sum is rounded, so both give the same bits. Written as vectors since compilers
 * don't find them: a choice of a float is control flow to them. A row of 49,152 took 14 us for its largest,
 * 12 for its token and 168 for its sum, a fifth of a decode step of 16 sequences; now 2, 3 and 29
 * (one thread of an AMD EPYC of family 26, the best of 400).
 */
#include <math.h>
#include <string.h>

#include <sampling/sampling.h>

#if defined(__x86_64__)
#define AVX2(function) __attribute__((target("avx2"))) function
static int has_avx2(void)
{
    return __builtin_cpu_supports("avx2"); /* a look at a table that was filled when the process began */
}
#else
#define AVX2(function) function
static int has_avx2(void)
{
    return 0;
}
#endif

int sampling_open(const char *name, uint32_t vocab_tokens, const struct lathe_sample_in *in,
                  struct lathe_sample_out *out, struct sampling_batch *batch, struct lathe_error *err)
{
    uint64_t history_count = in->history.bytes / sizeof(int32_t);

    if (in->head.bytes < sizeof *in || in->head.bytes > in->head.capacity ||
        !lathe_span_check(&in->head, in->rows, sizeof *batch->rows, _Alignof(struct lathe_sample_row)) ||
        !lathe_span_check(&in->head, in->stops, sizeof *batch->stops, _Alignof(int32_t)) ||
        in->rows.count > UINT32_MAX || in->stops.count > UINT32_MAX)
        return lathe_fail(err, LATHE_EINVAL, "%s: the message's spans don't lie inside it", name);
    if (vocab_tokens == 0 || in->vocab_tokens != vocab_tokens)
        return lathe_fail(err, LATHE_ERANGE, "%s: rows of %u logits, but it was bound for a vocabulary of %u", name,
                          in->vocab_tokens, vocab_tokens);
    batch->rows = LATHE_SPAN(const struct lathe_sample_row, in, in->rows);
    batch->row_count = (uint32_t)in->rows.count;
    batch->vocab_tokens = vocab_tokens;
    batch->logits = LATHE_REGION(const float, in, in->logits);
    batch->history = LATHE_REGION(const int32_t, in, in->history);
    batch->stops = LATHE_SPAN(const int32_t, in, in->stops);
    batch->stop_count = (uint32_t)in->stops.count;
    for (uint32_t i = 0; i < batch->row_count; i++) {
        const struct lathe_sample_row *row = &batch->rows[i];
        uint64_t end;
        if (__builtin_mul_overflow((uint64_t)row->logits_row + 1, (uint64_t)vocab_tokens * sizeof(float), &end) ||
            end > in->logits.bytes)
            return lathe_fail(err, LATHE_EINVAL, "%s: request %llu names row %u, beyond the %llu bytes of logits", name,
                              (unsigned long long)row->request, row->logits_row, (unsigned long long)in->logits.bytes);
        if ((uint64_t)row->history_first + row->history_count > history_count ||
            row->prompt_count > row->history_count || row->banned_count > batch->stop_count)
            return lathe_fail(err, LATHE_EINVAL, "%s: request %llu names history or banned ids beyond those sent", name,
                              (unsigned long long)row->request);
        if (row->is_forced && (row->forced < 0 || (uint32_t)row->forced >= vocab_tokens))
            return lathe_fail(err, LATHE_ERANGE, "%s: request %llu is forced to token %d; the vocabulary has %u", name,
                              (unsigned long long)row->request, row->forced, vocab_tokens);
    }
    out->head.bytes = sizeof *out;
    batch->sampled = lathe_message_add(&out->head, &out->sampled, batch->row_count, sizeof *batch->sampled);
    if (!batch->sampled)
        return lathe_fail(err, LATHE_EFULL, "%s: a reply of %u tokens takes %zu bytes, there is room for %llu", name,
                          batch->row_count, ((sizeof *out + 63) & ~(size_t)63) +
                          (size_t)batch->row_count * sizeof *batch->sampled, (unsigned long long)out->head.capacity);
    return LATHE_OK;
}

typedef float floats __attribute__((vector_size(32)));
typedef int32_t ints __attribute__((vector_size(32)));
typedef float four __attribute__((vector_size(16)));
typedef double doubles __attribute__((vector_size(32)));

/* The largest of n; *bad if any is a NaN or +inf. */
static inline __attribute__((always_inline)) float largest_of(const float *logits, uint32_t n, uint32_t *bad)
{
    enum { LANES = 8, SUMS = 4 };
    floats best[SUMS];
    ints wrong = { 0 };
    uint32_t i = 0;
    float top = -INFINITY;

    for (int k = 0; k < SUMS; k++)
        best[k] = (floats){ 0 } - INFINITY;
    for (; i + LANES * SUMS <= n; i += LANES * SUMS)
        for (uint32_t k = 0; k < SUMS; k++) {
            floats x;
            memcpy(&x, logits + i + LANES * k, sizeof x);
            ints larger = x > best[k];
            wrong |= ~(x < INFINITY);
            best[k] = (floats)(((ints)x & larger) | ((ints)best[k] & ~larger));
        }
    for (; i < n; i++) {
        *bad |= (uint32_t)!(logits[i] < INFINITY);
        top = logits[i] > top ? logits[i] : top;
    }
    for (int k = 0; k < LANES * SUMS; k++) {
        *bad |= (uint32_t)wrong[k % LANES];
        top = best[k / LANES][k % LANES] > top ? best[k / LANES][k % LANES] : top;
    }
    return top;
}

static float largest_plain(const float *logits, uint32_t n, uint32_t *bad)
{
    return largest_of(logits, n, bad);
}

AVX2(static float largest_avx2(const float *logits, uint32_t n, uint32_t *bad))
{
    return largest_of(logits, n, bad);
}

int sampling_largest(const char *name, const struct lathe_sample_row *row, const float *logits, uint32_t n,
                     float *largest, struct lathe_error *err)
{
    uint32_t any = 0, i;
    float top = has_avx2() ? largest_avx2(logits, n, &any) : largest_plain(logits, n, &any);

    if (any) {
        for (i = 0; i < n && logits[i] < INFINITY; i++)
            ;
        return lathe_fail(err, LATHE_EINVAL, "%s: the logits of request %llu hold %s at token %u; the model's numbers "
                          "went wrong", name, (unsigned long long)row->request, isnan(logits[i]) ? "a NaN" : "+inf", i);
    }
    if (top == -INFINITY)
        return lathe_fail(err, LATHE_EINVAL, "%s: all logits of request %llu are -inf; no token can be chosen", name,
                          (unsigned long long)row->request);
    *largest = top;
    return LATHE_OK;
}

static int is_banned(int32_t token, const int32_t *banned, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        if (banned[i] == token)
            return 1;
    return 0;
}

int32_t sampling_argmax(const float *logits, uint32_t n, const int32_t *banned, uint32_t banned_count)
{
    enum { PIECE = 1024 };
    float best = -INFINITY;
    int32_t token = -1;
    for (uint32_t first = 0; first < n; first += PIECE) { /* most pieces hold nothing larger */
        uint32_t count = n - first < PIECE ? n - first : PIECE, bad = 0;
        float top = has_avx2() ? largest_avx2(logits + first, count, &bad) : largest_plain(logits + first, count, &bad);
        if (!(top > best))
            continue;
        for (uint32_t i = first; i < first + count; i++) {
            if (logits[i] > best && !is_banned((int32_t)i, banned, banned_count)) {
                best = logits[i];
                token = (int32_t)i;
            }
        }
    }
    return token;
}

/* e^x of eight x ≤ 0, in place. */
static inline __attribute__((always_inline)) void exp_nonpositive(floats *x)
{
    ints kept = *x >= -87.0f, bits;
    floats in = (floats)(((ints)*x & kept) | ((ints)((floats){ 0 } - 87.0f) & ~kept)), n, r, p;
    n = (in * 1.44269504f + 12582912.0f) - 12582912.0f; /* 1.5 × 2^23: the sum's low bits are the rounded n */
    r = in - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    p = (floats){ 0 } + 1.0f / 5040;
    p = p * r + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    bits = (__builtin_convertvector(n, ints) + 127) << 23;
    *x = (floats)((ints)(p * (floats)bits) & kept);
}

static inline __attribute__((always_inline)) double exponentials_of(const float *logits, uint32_t n, float largest, float scale,
                                                                    float *weights)
{
    enum { PIECE = 256, LANES = 8 };
    float piece[PIECE];
    double sum = 0.0;

    for (uint32_t first = 0; first < n; first += PIECE) {
        uint32_t count = n - first < PIECE ? n - first : PIECE;
        doubles part = { 0 };
        uint32_t i = 0;
        for (uint32_t k = 0; k < count; k += LANES) {
            floats x = { 0 };
            size_t bytes = (count - k < LANES ? count - k : LANES) * sizeof(float);
            if (bytes == sizeof x)
                memcpy(&x, logits + first + k, sizeof x);
            else
                memcpy(&x, logits + first + k, bytes);
            x = (x - largest) * scale;
            exp_nonpositive(&x);
            memcpy(piece + k, &x, sizeof x);
        }
        for (; i + 4 <= count; i += 4) {
            four terms;
            memcpy(&terms, piece + i, sizeof terms);
            part += __builtin_convertvector(terms, doubles);
        }
        for (; i < count; i++)
            part[0] += (double)piece[i];
        sum += (part[0] + part[1]) + (part[2] + part[3]);
        if (weights)
            memcpy(weights + first, piece, count * sizeof *piece);
    }
    return sum;
}

static double exponentials_plain(const float *logits, uint32_t n, float largest, float scale, float *weights)
{
    return exponentials_of(logits, n, largest, scale, weights);
}

AVX2(static double exponentials_avx2(const float *logits, uint32_t n, float largest, float scale, float *weights))
{
    return exponentials_of(logits, n, largest, scale, weights);
}

double sampling_exponentials(const float *logits, uint32_t n, float largest, float scale, float *weights)
{
    return has_avx2() ? exponentials_avx2(logits, n, largest, scale, weights)
                      : exponentials_plain(logits, n, largest, scale, weights);
}
