/* SPDX-License-Identifier: MIT */
/* Probes and interventions of an engine: copied and checked against the model when it opens, named by each
 * request with a bit, and laid out in each forward's message.
 *
 * A slice names a run of the message's probes. All the engine's stand there in their order, so that a request
 * with all of them, or with neighbours, points into them; other combinations are appended. Interventions stand
 * in a message only if one of its rows is changed by them: a patch may be large. */
#include "engine_internal.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "host.h"

/* ── Checks ─────────────────────────────────────────────────────────────────────────── */

static void clear_beyond(uint64_t *mask, uint32_t count)
{
    for (uint32_t bit = count; bit < LATHE_PROBE_MAX_LAYERS; bit++)
        mask[bit / 64] &= ~(UINT64_C(1) << bit % 64);
}

static int check_model_size(const struct lathe_model_info *info, struct lathe_error *err)
{
    if (info->layers <= LATHE_PROBE_MAX_LAYERS && info->heads <= LATHE_PROBE_MAX_HEADS)
        return LATHE_OK;
    return lathe_fail(err, LATHE_EUNSUPPORTED, "the model has %u layers and %u heads, a probe can name %d and %d",
                      info->layers, info->heads, LATHE_PROBE_MAX_LAYERS, LATHE_PROBE_MAX_HEADS);
}

/* Bits of layers and heads that the model doesn't have are cleared; a probe of nothing is
 * an error, and so is a format that this model can't serve. */
static int check_probe(const struct engine *e, struct lathe_probe *p, struct lathe_error *err)
{
    const struct lathe_model_info *info = &e->model_info;
    int status = check_model_size(info, err);
    if (status != LATHE_OK)
        return status;
    clear_beyond(p->layers, info->layers);
    clear_beyond(p->heads, info->heads);
    p->width = info->embedding_width;
    if (p->format < LATHE_PROBE_SUMMARY || p->format >= LATHE_PROBE_FORMATS || !(info->probe_formats >> p->format & 1))
        return lathe_fail(err, LATHE_EUNSUPPORTED, "model/%s has no attention to show in format %u",
                          e->params.parts.model->plugin->name, p->format);
    if (lathe_probe_count(p->layers) == 0 || (lathe_probe_count(p->heads) == 0 && !lathe_probe_of_layers(p->format)))
        return lathe_fail(err, LATHE_ERANGE, "the probe names no layer or head that the model has (%u layers, %u heads)",
                          info->layers, info->heads);
    bool counts = p->format == LATHE_PROBE_TOP || p->format == LATHE_PROBE_LENS;
    if (p->every == 0 || (counts && (p->top_k == 0 || p->top_k > 1024)) || p->first_position < 0)
        return lathe_fail(err, LATHE_EINVAL, "a probe wants every ≥ 1, first position ≥ 0 and top_k 1 … 1024");
    if (p->format == LATHE_PROBE_LENS && p->top_k > info->vocab_tokens)
        return lathe_fail(err, LATHE_EINVAL, "a probe wants %u likeliest tokens of a vocabulary of %u", p->top_k,
                          info->vocab_tokens);
    return LATHE_OK;
}

static int check_vectors(const struct engine *e, const struct lathe_intervention *v, uint32_t number, struct lathe_error *err)
{
    const struct engine_params *p = &e->params;
    const struct lathe_model_info *info = &e->model_info;
    uint64_t floats = 0;
    if (v->kind == LATHE_HEAD_SET)
        floats = info->head_width;
    else if (v->kind == LATHE_PATCH)
        floats = ((uint64_t)(v->last_position - v->first_position) + 1) * info->embedding_width;
    if (v->float_count != floats || (uint64_t)v->float_first + v->float_count > p->intervention_float_count)
        return lathe_fail(err, LATHE_EINVAL, "intervention %u has %u values, it takes %" PRIu64, number, v->float_count, floats);
    for (uint32_t i = 0; i < v->float_count; i++)
        if (!isfinite(p->intervention_floats[v->float_first + i]))
            return lathe_fail(err, LATHE_EINVAL, "value %u of intervention %u is not finite", i + 1, number);
    bool of_keys = v->kind == LATHE_KEYS_DROP || v->kind == LATHE_KEYS_KEEP;
    if ((!of_keys && v->key_count) || (uint64_t)v->key_first + v->key_count > p->intervention_key_count)
        return lathe_fail(err, LATHE_EINVAL, "intervention %u has %u keys, it takes %s", number, v->key_count,
                          of_keys ? "those that the engine was given" : "none");
    for (uint32_t i = 0; i < v->key_count; i++) {
        const int32_t *key = &p->intervention_keys[v->key_first + i];
        if (*key < 0 || (i > 0 && *key <= key[-1]))
            return lathe_fail(err, LATHE_EINVAL, "the keys of intervention %u should be positions from 0, ascending", number);
    }
    return LATHE_OK;
}

static int check_intervention(const struct engine *e, struct lathe_intervention *v, uint32_t number, struct lathe_error *err)
{
    const struct lathe_model_info *info = &e->model_info;
    int status = check_model_size(info, err);
    if (status != LATHE_OK)
        return status;
    if (v->kind == 0 || v->kind >= LATHE_INTERVENTION_KINDS || !(info->interventions >> v->kind & 1))
        return lathe_fail(err, LATHE_EUNSUPPORTED, "model/%s can't carry out interventions of kind %u",
                          e->params.parts.model->plugin->name, v->kind);
    clear_beyond(v->layers, info->layers);
    clear_beyond(v->heads, info->heads);
    bool of_heads = v->kind <= LATHE_KEYS_KEEP;
    if (lathe_probe_count(v->layers) == 0 || (of_heads && lathe_probe_count(v->heads) == 0))
        return lathe_fail(err, LATHE_ERANGE, "intervention %u names no layer or head that the model has (%u layers, %u heads)",
                          number, info->layers, info->heads);
    if (!isfinite(v->factor))
        return lathe_fail(err, LATHE_EINVAL, "the factor of intervention %u is not finite", number);
    if (v->first_position < 0 || v->last_position < -1 || (v->last_position >= 0 && v->last_position < v->first_position) ||
        (v->kind == LATHE_PATCH && v->last_position < 0))
        return lathe_fail(err, LATHE_EINVAL, "intervention %u holds for positions %d to %d, which can't be", number,
                          v->first_position, v->last_position);
    return check_vectors(e, v, number, err);
}

/* ── Opening ────────────────────────────────────────────────────────────────────────── */

static void *copied(const void *from, size_t count, size_t each)
{
    size_t bytes;
    void *to = __builtin_mul_overflow(count ? count : 1, each, &bytes) ? NULL : host_take(bytes);
    if (to && count)
        memcpy(to, from, bytes);
    return to;
}

int probes_open(struct engine *e, struct lathe_error *err)
{
    const struct engine_params *p = &e->params;
    int status = LATHE_OK;
    if (p->probe_count > LATHE_MAX_PROBES || p->intervention_count > LATHE_MAX_INTERVENTIONS)
        return lathe_fail(err, LATHE_ERANGE, "an engine has at most %d probes and %d interventions", LATHE_MAX_PROBES,
                          LATHE_MAX_INTERVENTIONS);
    e->probes = copied(p->probes, p->probe_count, sizeof *e->probes);
    e->interventions = copied(p->interventions, p->intervention_count, sizeof *e->interventions);
    e->intervention_floats = copied(p->intervention_floats, p->intervention_float_count, sizeof(float));
    e->intervention_keys = copied(p->intervention_keys, p->intervention_key_count, sizeof(int32_t));
    if (!e->probes || !e->interventions || !e->intervention_floats || !e->intervention_keys)
        return lathe_fail(err, LATHE_ENOMEM, "no memory for %u probes and %u interventions with %u values", p->probe_count,
                          p->intervention_count, p->intervention_float_count);
    for (uint32_t i = 0; status == LATHE_OK && i < p->probe_count; i++)
        status = check_probe(e, &e->probes[i], err);
    for (uint32_t i = 0; status == LATHE_OK && i < p->intervention_count; i++)
        status = check_intervention(e, &e->interventions[i], i + 1, err);
    return status;
}

void probes_close(struct engine *e)
{
    host_give(e->probes);
    host_give(e->interventions);
    host_give(e->intervention_floats);
    host_give(e->intervention_keys);
}

size_t probes_message_bytes(const struct engine *e)
{
    const struct engine_params *p = &e->params;
    size_t probes = p->probe_count; /* of two, each choice is a run */
    if (p->probe_count > 2)
        probes += (size_t)p->batch_requests * p->probe_count;
    return probes * sizeof(struct lathe_probe) + p->intervention_count * sizeof(struct lathe_intervention) +
           p->intervention_float_count * sizeof(float) + p->intervention_key_count * sizeof(int32_t);
}

/* ── A step ─────────────────────────────────────────────────────────────────────────── */

static bool is_run(uint32_t mask)
{
    uint32_t shifted = mask >> __builtin_ctz(mask);
    return (shifted & (shifted + 1)) == 0;
}

static int lay_out_probes(struct engine *e, struct lathe_error *err)
{
    uint64_t count = e->params.probe_count;
    for (uint32_t i = 0; i < e->entry_count; i++) {
        struct step_entry *entry = &e->entries[i];
        uint32_t mask = e->attention_room ? probes_of(e, entry->live) : 0;
        entry->probe_count = (uint32_t)__builtin_popcount(mask);
        entry->probe = LATHE_NO_PROBE;
        if (mask)
            entry->probe = is_run(mask) ? (uint32_t)__builtin_ctz(mask) : (uint32_t)count;
        if (mask && !is_run(mask))
            count += entry->probe_count;
    }
    struct lathe_probe *probe = lathe_message_add(&e->forward_in->head, &e->forward_in->probes, count, sizeof *probe);
    if (!probe)
        return lathe_fail(err, LATHE_EINTERNAL, "a step has more probes than its message was sized for");
    if (e->params.probe_count)
        memcpy(probe, e->probes, e->params.probe_count * sizeof *probe);
    for (uint32_t i = 0; i < e->entry_count && count > e->params.probe_count; i++) {
        const struct step_entry *entry = &e->entries[i];
        uint32_t mask = entry->probe_count ? entry->live->probes : 0;
        if (mask && !is_run(mask))
            for (uint32_t at = entry->probe; mask; mask &= mask - 1)
                probe[at++] = e->probes[__builtin_ctz(mask)];
    }
    return LATHE_OK;
}

/* Those of the request's that hold for a row of the entry. */
static uint64_t holding(const struct engine *e, const struct step_entry *entry)
{
    uint64_t found = 0;
    int64_t first = entry->first, last = first + entry->tokens - 1;
    for (uint64_t mask = entry->live ? entry->live->interventions : 0; mask; mask &= mask - 1) {
        int bit = __builtin_ctzll(mask);
        const struct lathe_intervention *v = &e->interventions[bit];
        if (v->first_position <= last && (v->last_position < 0 || v->last_position >= first))
            found |= UINT64_C(1) << bit;
    }
    return found;
}

static int lay_out_interventions(struct engine *e, struct lathe_error *err)
{
    struct lathe_forward_in *in = e->forward_in;
    uint64_t used = 0, floats = 0, keys = 0;
    in->interventions = in->intervention_floats = in->intervention_keys = (struct lathe_span){ 0 };
    for (uint32_t i = 0; i < e->entry_count; i++)
        used |= e->entries[i].interventions = holding(e, &e->entries[i]);
    if (used == 0)
        return LATHE_OK;
    for (uint64_t mask = used; mask; mask &= mask - 1) {
        floats += e->interventions[__builtin_ctzll(mask)].float_count;
        keys += e->interventions[__builtin_ctzll(mask)].key_count;
    }
    struct lathe_intervention *to =
        lathe_message_add(&in->head, &in->interventions, (uint64_t)__builtin_popcountll(used), sizeof *to);
    float *value = to ? lathe_message_add(&in->head, &in->intervention_floats, floats, sizeof *value) : NULL;
    int32_t *key = value ? lathe_message_add(&in->head, &in->intervention_keys, keys, sizeof *key) : NULL;
    if (!key)
        return lathe_fail(err, LATHE_EINTERNAL, "a step's interventions are larger than the message that was sized for them");
    floats = keys = 0;
    for (uint64_t mask = used; mask; mask &= mask - 1, to++) {
        *to = e->interventions[__builtin_ctzll(mask)];
        memcpy(value + floats, e->intervention_floats + to->float_first, to->float_count * sizeof *value);
        memcpy(key + keys, e->intervention_keys + to->key_first, to->key_count * sizeof *key);
        to->float_first = (uint32_t)floats;
        to->key_first = (uint32_t)keys;
        floats += to->float_count;
        keys += to->key_count;
    }
    for (uint32_t i = 0; i < e->entry_count; i++) { /* bit numbers of the message */
        uint64_t named = 0;
        for (uint64_t mask = e->entries[i].interventions; mask; mask &= mask - 1)
            named |= UINT64_C(1) << __builtin_popcountll(used & ((mask & -mask) - 1));
        e->entries[i].interventions = named;
    }
    return LATHE_OK;
}

int probes_lay_out(struct engine *e, struct lathe_error *err)
{
    int status = lay_out_probes(e, err);
    if (status == LATHE_OK && e->params.intervention_count > 0)
        return lay_out_interventions(e, err);
    e->forward_in->interventions = e->forward_in->intervention_floats = e->forward_in->intervention_keys =
        (struct lathe_span){ 0 };
    return status;
}
