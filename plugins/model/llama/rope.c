/* SPDX-License-Identifier: MIT */
/* Rotary positions: how many radians a position turns each pair of a head's elements.
 *
 *     frequency(i) = theta^(−2i / rotated)
 *
 * Computed in float32 as transformers does, angles too, so that both round alike at long
 * positions. Scalings: `linear` divides all frequencies; the tensor rope_freqs.weight (Llama
 * 3) divides each by its own number; `yarn` (Peng et al. 2023, arXiv:2309.00071) divides the
 * slow ones, keeps the fast ones, ramps between, and scales cosines and sines. */
#include <math.h>
#include <string.h>

#include "llama.h"

static int scaling_f32(const struct gguf *file, const struct llama *m, const char *name, float otherwise, float *value,
                       struct lathe_error *err)
{
    char key[128];
    snprintf(key, sizeof key, "%s.rope.%s", m->architecture, name);
    int status = gguf_get_f32(file, key, value, err);
    if (status == LATHE_ENOTFOUND) {
        *value = otherwise;
        return 0;
    }
    if (status == 0 && !(*value > 0 && *value <= 1e12f))
        return lathe_fail(err, LATHE_EFORMAT, "%s: %s is %g; a number above 0 is expected", gguf_path(file), key,
                          (double)*value);
    return status;
}

/* The pair whose wavelength fits `turns` times into the original context. */
static float yarn_pair(float turns, float original, float theta, uint32_t rotated)
{
    return (float)((double)rotated * log((double)original / ((double)turns * 2 * M_PI)) / (2 * log((double)theta)));
}

static int yarn(struct llama *m, const struct gguf *file, float theta, float factor, struct lathe_error *err)
{
    uint32_t pairs = m->shape.rotated / 2;
    uint32_t context;
    float original, fast, slow, attention;
    char key[128];
    snprintf(key, sizeof key, "%s.rope.scaling.original_context_length", m->architecture);
    int status = gguf_get_u32(file, key, &context, err);
    if (status == LATHE_ENOTFOUND)
        context = m->shape.context;
    else if (status)
        return status;
    if (context == 0)
        return lathe_fail(err, LATHE_EFORMAT, "%s: %s is 0; a number of tokens is expected", gguf_path(file), key);
    original = (float)context;
    if ((status = scaling_f32(file, m, "scaling.yarn_beta_fast", 32, &fast, err)) ||
        (status = scaling_f32(file, m, "scaling.yarn_beta_slow", 1, &slow, err)) ||
        (status = scaling_f32(file, m, "scaling.attn_factor", 1, &attention, err)))
        return status;
    float low = floorf(yarn_pair(fast, original, theta, m->shape.rotated));
    float high = ceilf(yarn_pair(slow, original, theta, m->shape.rotated));
    low = low > 0 ? low : 0;
    high = high < (float)m->shape.rotated - 1 ? high : (float)m->shape.rotated - 1;
    if (high == low)
        high += 0.001f;
    for (uint32_t i = 0; i < pairs; i++) {
        float ramp = ((float)i - low) / (high - low);
        ramp = ramp < 0 ? 0 : ramp > 1 ? 1 : ramp;
        m->frequencies[i] = m->frequencies[i] / factor * ramp + m->frequencies[i] * (1 - ramp);
    }
    m->rope_scale = factor <= 1 ? attention : attention * (0.1f * logf(factor) + 1.0f);
    return 0;
}

int llama_load_rope(struct llama *m, const struct gguf *file, struct lathe_error *err)
{
    uint32_t pairs = m->shape.rotated / 2;
    float theta, factor, old_factor;
    struct gguf_string type = { "none", 4 };
    struct lathe_error ignored;
    struct lathe_tensor t;
    char key[128];
    int status;
    if ((status = scaling_f32(file, m, "freq_base", 10000.0f, &theta, err)) ||
        (status = scaling_f32(file, m, "scale_linear", 1, &old_factor, err)) ||
        (status = scaling_f32(file, m, "scaling.factor", old_factor, &factor, err)))
        return status;
    if (!(m->frequencies = llama_take(m, pairs, sizeof(float), err)))
        return err->code;
    for (uint32_t i = 0; i < pairs; i++)
        m->frequencies[i] = 1.0f / powf(theta, (float)(2 * i) / (float)m->shape.rotated);
    m->rope_scale = 1;
    snprintf(key, sizeof key, "%s.rope.scaling.type", m->architecture);
    int has_type = gguf_get_string(file, key, &type, &ignored) == 0;
    if ((has_type && type.count == 6 && memcmp(type.bytes, "linear", 6) == 0) || (!has_type && factor != 1)) {
        for (uint32_t i = 0; i < pairs; i++)
            m->frequencies[i] /= factor;
    } else if (has_type && type.count == 4 && memcmp(type.bytes, "yarn", 4) == 0) {
        if ((status = yarn(m, file, theta, factor, err)))
            return status;
    } else if (has_type && !(type.count == 4 && memcmp(type.bytes, "none", 4) == 0)) {
        return lathe_fail(err, LATHE_EUNSUPPORTED, "%s: %s is \"%.*s\"; none, linear and yarn are known", gguf_path(file), key,
                          (int)(type.count < 32 ? type.count : 32), type.bytes);
    }
    status = gguf_tensor(file, "rope_freqs.weight", &t, &ignored);
    if (status == LATHE_ENOTFOUND)
        return 0;
    if (status || t.dtype != LATHE_F32 || t.rank != 1 || t.shape[0] != pairs)
        return lathe_fail(err, LATHE_EFORMAT, "%s: tensor rope_freqs.weight is %s, rank %u, %llu long; %u numbers of type F32 "
                          "are expected", gguf_path(file), lathe_dtype_name(t.dtype), t.rank,
                          (unsigned long long)t.shape[0], pairs);
    for (uint32_t i = 0; i < pairs; i++) {
        float divide;
        memcpy(&divide, (const char *)t.data + i * sizeof divide, sizeof divide);
        if (!(divide > 0))
            return lathe_fail(err, LATHE_EFORMAT, "%s: tensor rope_freqs.weight has %g at %u; numbers above 0 are expected",
                              gguf_path(file), (double)divide, i);
        m->frequencies[i] /= divide;
    }
    return 0;
}

void llama_turn(const struct llama *m, int32_t position, float *turn)
{
    uint32_t pairs = m->shape.rotated / 2;
    for (uint32_t i = 0; i < pairs; i++) {
        float angle = (float)position * m->frequencies[i];
        turn[i] = cosf(angle) * m->rope_scale;
        turn[pairs + i] = sinf(angle) * m->rope_scale;
    }
}
