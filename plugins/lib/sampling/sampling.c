/* SPDX-License-Identifier: MIT */
/* See sampling.h.
 *
 * exp: x = n ln 2 + r, |r| ≤ ln 2 / 2; e^r by a polynomial of degree 7, scaled by 2^n
 * through the exponent bits. Free of branches, so that compilers turn the loop into
 * vectors; the constants are Cephes' expf split of ln 2 and Taylor's coefficients. */
#include <math.h>
#include <string.h>

#include <sampling/sampling.h>

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

int sampling_largest(const char *name, const struct lathe_sample_row *row, const float *logits, uint32_t n,
                     float *largest, struct lathe_error *err)
{
    float best[8], top;
    uint32_t bad[8] = { 0 }, i = 0, any = 0;

    for (int k = 0; k < 8; k++)
        best[k] = -INFINITY;
    for (; i + 8 <= n; i += 8) {
        for (int k = 0; k < 8; k++) {
            float x = logits[i + (uint32_t)k];
            bad[k] |= (uint32_t)!(x < INFINITY); /* NaN, or +inf */
            best[k] = x > best[k] ? x : best[k];
        }
    }
    for (; i < n; i++) {
        bad[0] |= (uint32_t)!(logits[i] < INFINITY);
        best[0] = logits[i] > best[0] ? logits[i] : best[0];
    }
    top = best[0];
    for (int k = 0; k < 8; k++) {
        any |= bad[k];
        top = best[k] > top ? best[k] : top;
    }
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
    float best = -INFINITY;
    int32_t token = -1;
    for (uint32_t i = 0; i < n; i++) {
        if (logits[i] > best && !is_banned((int32_t)i, banned, banned_count)) {
            best = logits[i];
            token = (int32_t)i;
        }
    }
    return token;
}

static inline float exp_nonpositive(float x)
{
    float in = x < -87.0f ? -87.0f : x, shifted, n, r, p;
    int32_t bits;
    shifted = in * 1.44269504f + 12582912.0f; /* 1.5 × 2^23: the sum's low bits are the rounded n */
    n = shifted - 12582912.0f;
    r = in - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    p = 1.0f / 5040;
    p = p * r + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    bits = ((int32_t)n + 127) * (1 << 23);
    memcpy(&n, &bits, sizeof n);
    return x < -87.0f ? 0.0f : p * n;
}

double sampling_exponentials(const float *logits, uint32_t n, float largest, float scale, float *weights)
{
    enum { PIECE = 256 };
    float piece[PIECE];
    double sum = 0.0;

    for (uint32_t first = 0; first < n; first += PIECE) {
        uint32_t count = n - first < PIECE ? n - first : PIECE;
        float *terms = weights ? weights + first : piece;
        double part[4] = { 0 };
        uint32_t i = 0;
        for (uint32_t k = 0; k < count; k++)
            terms[k] = exp_nonpositive((logits[first + k] - largest) * scale);
        for (; i + 4 <= count; i += 4)
            for (int k = 0; k < 4; k++)
                part[k] += (double)terms[i + (uint32_t)k];
        for (; i < count; i++)
            part[0] += (double)terms[i];
        sum += (part[0] + part[1]) + (part[2] + part[3]);
    }
    return sum;
}
