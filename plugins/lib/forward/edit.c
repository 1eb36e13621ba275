/* SPDX-License-Identifier: MIT */
/* Interventions: see edit.h. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include <forward/edit.h>

static const float dropped = -1e20f;       /* a score that no key has */
static const float least_weight = 2e-38f;  /* the softmax stops at e^−87 = 1.6e-38 */

static int has_heads(uint32_t kind)
{
    return kind >= LATHE_HEAD_SCALE && kind <= LATHE_KEYS_KEEP;
}

static int has_factor(uint32_t kind)
{
    return kind == LATHE_HEAD_SCALE || kind == LATHE_ATTENTION_SCALE || kind == LATHE_MLP_SCALE;
}

static int check_masks(const struct forward_limits *limits, uint64_t n, const struct lathe_intervention *i,
                       struct lathe_error *err)
{
    uint32_t layer = forward_beyond(i->layers, limits->layers);
    uint32_t head = has_heads(i->kind) ? forward_beyond(i->heads, limits->heads) : 256;
    if (layer < 256 || head < 256)
        return lathe_fail(err, LATHE_EINVAL, "forward: intervention %" PRIu64 " names layer or head %u; the model has %u "
                          "layers of %u heads", n, layer < 256 ? layer : head, limits->layers, limits->heads);
    return 0;
}

/* Vectors: HEAD_SET one of a head's width, PATCH a row of the residual stream a position. */
static int check_floats(const struct lathe_forward_in *in, const struct forward_limits *limits, uint64_t n,
                        const struct lathe_intervention *i, struct lathe_error *err)
{
    uint64_t wanted = limits->head_width;
    if (i->kind == LATHE_PATCH) {
        if (i->last_position < i->first_position)
            return lathe_fail(err, LATHE_EINVAL, "forward: intervention %" PRIu64 " patches positions %d to %d; a patch says "
                              "where it ends", n, i->first_position, i->last_position);
        wanted = ((uint64_t)(i->last_position - i->first_position) + 1) * limits->embedding_width;
    }
    if (i->float_count != wanted || (uint64_t)i->float_first + i->float_count > in->intervention_floats.count)
        return lathe_fail(err, LATHE_EINVAL, "forward: intervention %" PRIu64 " has %u floats from number %u of %" PRIu64
                          "; it needs %" PRIu64, n, i->float_count, i->float_first, in->intervention_floats.count, wanted);
    return 0;
}

static int check_keys(const struct lathe_forward_in *in, const struct forward_batch *b, uint64_t n,
                      const struct lathe_intervention *i, struct lathe_error *err)
{
    if ((uint64_t)i->key_first + i->key_count > in->intervention_keys.count)
        return lathe_fail(err, LATHE_EINVAL, "forward: intervention %" PRIu64 " has %u keys from number %u of %" PRIu64, n,
                          i->key_count, i->key_first, in->intervention_keys.count);
    const int32_t *keys = i->key_count ? b->intervention_keys + i->key_first : NULL;
    for (uint32_t k = 0; k < i->key_count; k++)
        if (keys[k] < 0 || (k && keys[k] <= keys[k - 1]))
            return lathe_fail(err, LATHE_EINVAL, "forward: intervention %" PRIu64 " has keys that do not ascend at entry %u",
                              n, k);
    return 0;
}

int forward_edits_check(const struct lathe_forward_in *in, const struct forward_batch *b, struct lathe_error *err)
{
    const struct forward_limits *limits = b->limits;
    int status = 0;
    if (b->intervention_count > LATHE_MAX_INTERVENTIONS)
        return lathe_fail(err, LATHE_ERANGE, "forward: %" PRIu64 " interventions; a message may have %d",
                          b->intervention_count, LATHE_MAX_INTERVENTIONS);
    if (limits->layers > LATHE_PROBE_MAX_LAYERS || limits->heads > LATHE_PROBE_MAX_HEADS)
        return lathe_fail(err, LATHE_EUNSUPPORTED, "forward: an intervention names at most %d layers and %d heads; the model "
                          "has %u and %u", LATHE_PROBE_MAX_LAYERS, LATHE_PROBE_MAX_HEADS, limits->layers, limits->heads);
    for (uint64_t n = 0; n < b->intervention_count && !status; n++) {
        const struct lathe_intervention *i = &b->interventions[n];
        if (i->kind < LATHE_HEAD_SCALE || i->kind >= LATHE_INTERVENTION_KINDS || i->first_position < 0)
            return lathe_fail(err, LATHE_EINVAL, "forward: intervention %" PRIu64 " has kind %u and first position %d; kinds "
                              "are 1 to %d, positions at least 0", n, i->kind, i->first_position,
                              LATHE_INTERVENTION_KINDS - 1);
        if (!(limits->interventions >> i->kind & 1))
            return lathe_fail(err, LATHE_EUNSUPPORTED, "forward: intervention %" PRIu64 " is of kind %u, which this model "
                              "doesn't offer", n, i->kind);
        if (has_factor(i->kind) && !isfinite(i->factor))
            return lathe_fail(err, LATHE_EINVAL, "forward: intervention %" PRIu64 " has the factor %g; it must be finite", n,
                              (double)i->factor);
        if ((status = check_masks(limits, n, i, err)))
            return status;
        if (i->kind == LATHE_HEAD_SET || i->kind == LATHE_PATCH)
            status = check_floats(in, limits, n, i, err);
        else if (i->kind == LATHE_KEYS_DROP || i->kind == LATHE_KEYS_KEEP)
            status = check_keys(in, b, n, i, err);
    }
    return status;
}

int forward_edits_check_slice(const struct forward_batch *b, const struct lathe_slice *slice, struct lathe_error *err)
{
    uint64_t known = b->intervention_count < 64 ? ((uint64_t)1 << b->intervention_count) - 1 : UINT64_MAX;
    if (slice->interventions & ~known)
        return lathe_fail(err, LATHE_EINVAL, "forward: request %" PRIu64 " names intervention %d; the message has %" PRIu64,
                          slice->request, __builtin_ctzll(slice->interventions & ~known), b->intervention_count);
    return 0;
}

uint64_t forward_edits_at(const struct forward_batch *b, const struct lathe_slice *slice, int32_t position)
{
    uint64_t edits = slice->flags & LATHE_SLICE_PADDING ? 0 : slice->interventions;
    for (uint64_t left = edits; left; left &= left - 1)
        if (!lathe_intervention_holds(&b->interventions[__builtin_ctzll(left)], position))
            edits &= ~(left & -left);
    return edits;
}

/* The next of `left` that is of this kind and names the layer; takes it out. */
static const struct lathe_intervention *next(const struct forward_batch *b, uint64_t *left, uint32_t kind, uint32_t layer)
{
    while (*left) {
        const struct lathe_intervention *i = &b->interventions[__builtin_ctzll(*left)];
        *left &= *left - 1;
        if (i->kind == kind && lathe_probe_has(i->layers, layer))
            return i;
    }
    return NULL;
}

int forward_edit_keys(const struct forward_batch *b, const struct forward_row *row, uint32_t layer, uint32_t head,
                      float *scores)
{
    int went = 0;
    uint32_t set = forward_set(b, layer, head / (b->limits->heads / b->limits->kv_heads));
    for (uint32_t kind = LATHE_KEYS_DROP; kind <= LATHE_KEYS_KEEP; kind++) {
        const struct lathe_intervention *i;
        for (uint64_t left = row->edits; (i = next(b, &left, kind, layer));) {
            if (!lathe_probe_has(i->heads, head))
                continue;
            uint32_t k = 0;
            for (uint32_t j = 0; j + 1 < row->keys; j++) { /* both lists ascend; the last key is the row itself */
                int32_t position = forward_key_position(b, row->slice, set, j);
                while (k < i->key_count && b->intervention_keys[i->key_first + k] < position)
                    k++;
                int listed = k < i->key_count && b->intervention_keys[i->key_first + k] == position;
                if (listed == (kind == LATHE_KEYS_DROP)) {
                    scores[j] = dropped;
                    went = 1;
                }
            }
        }
    }
    return went;
}

void forward_edit_uniform(const struct forward_batch *b, const struct forward_row *row, uint32_t layer, uint32_t head,
                          float *scores)
{
    const struct lathe_intervention *i;
    for (uint64_t left = row->edits; (i = next(b, &left, LATHE_HEAD_UNIFORM, layer));)
        if (lathe_probe_has(i->heads, head))
            for (uint32_t j = 0; j < row->keys; j++)
                scores[j] = scores[j] == dropped ? dropped : 0;
}

void forward_edit_weights(const struct forward_row *row, float *weights)
{
    for (uint32_t j = 0; j < row->keys; j++)
        weights[j] = weights[j] < least_weight ? 0 : weights[j];
}

void forward_edit_heads(const struct forward_batch *b, const struct forward_row *row, uint32_t layer, float *outputs)
{
    uint32_t width = b->limits->head_width;
    for (uint64_t left = row->edits; left; left &= left - 1) {
        const struct lathe_intervention *i = &b->interventions[__builtin_ctzll(left)];
        if ((i->kind != LATHE_HEAD_SCALE && i->kind != LATHE_HEAD_SET) || !lathe_probe_has(i->layers, layer))
            continue;
        for (uint32_t h = 0; h < b->limits->heads; h++) {
            float *output = outputs + (size_t)h * width;
            if (!lathe_probe_has(i->heads, h))
                continue;
            if (i->kind == LATHE_HEAD_SET)
                memcpy(output, b->intervention_floats + i->float_first, width * sizeof(float));
            else
                for (uint32_t k = 0; k < width; k++)
                    output[k] *= i->factor;
        }
    }
}

float forward_edit_factor(const struct forward_batch *b, const struct forward_row *row, uint32_t layer, uint32_t kind)
{
    const struct lathe_intervention *i;
    float factor = 1;
    for (uint64_t left = row->edits; (i = next(b, &left, kind, layer));)
        factor *= i->factor;
    return factor;
}

const float *forward_edit_patch(const struct forward_batch *b, const struct forward_row *row, uint32_t layer)
{
    const struct lathe_intervention *i, *last = NULL;
    for (uint64_t left = row->edits; (i = next(b, &left, LATHE_PATCH, layer));)
        last = i;
    return last ? b->intervention_floats + last->float_first +
                      (size_t)(row->position - last->first_position) * b->limits->embedding_width : NULL;
}
