/* SPDX-License-Identifier: MIT */
/* Rows that say what was asked for of layers and heads: tables probe, layer_probe, intervention. */
#include "recorder_internal.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { MASK_BYTES = 256 * 4 + 3 };

/* The numbers of the bits that are set: "[0,3,4]". */
static void mask_json(const uint64_t mask[4], char out[MASK_BYTES])
{
    size_t at = 0;
    out[at++] = '[';
    for (uint32_t i = 0; i < 256; i++)
        if (lathe_probe_has(mask, i))
            at += (size_t)sprintf(out + at, "%s%u", at > 1 ? "," : "", i);
    out[at++] = ']';
    out[at] = 0;
}

static int64_t or_end(int32_t last)
{
    return last < 0 ? RECORD_NULL : (int64_t)last;
}

int recorder_probe(struct recorder_run *run, const struct lathe_probe *probe, struct lathe_error *err)
{
    /* What is said of a whole row is of format full in the table, and `measure` tells which number it is. */
    static const char *const formats[LATHE_PROBE_FORMATS] = { NULL,   "summary", "top",  "full",  "full",
                                                              "full", "norms",   "lens", "hidden" };
    char layers[MASK_BYTES], heads[MASK_BYTES];
    const uint32_t format = probe->format;
    if (format < LATHE_PROBE_SUMMARY || format >= LATHE_PROBE_FORMATS)
        return lathe_fail(err, LATHE_EINVAL, "probe %u has format %u; there are %d to %d", probe->id, format,
                          LATHE_PROBE_SUMMARY, LATHE_PROBE_FORMATS - 1);
    if (run->probe_count == RECORDER_MAX_PROBES)
        return lathe_fail(err, LATHE_EFULL, "a run has at most %d probes", RECORDER_MAX_PROBES);
    pthread_mutex_lock(&run->recorder->list_lock);
    run->probes[run->probe_count++] = *probe;
    pthread_mutex_unlock(&run->recorder->list_lock);
    mask_json(probe->layers, layers);
    mask_json(probe->heads, heads);
    if (lathe_probe_of_layers(format))
        return cold_put(run, COLD_LAYER_PROBE, err, "isssnnini", (int64_t)probe->id, layers, heads, formats[format],
                        format == LATHE_PROBE_LENS ? (int64_t)probe->top_k : RECORD_NULL,
                        format == LATHE_PROBE_HIDDEN ? (int64_t)probe->width : RECORD_NULL, (int64_t)probe->first_position,
                        or_end(probe->last_position), (int64_t)probe->every);
    return cold_put(run, COLD_PROBE, err, "isssnninis", (int64_t)probe->id, layers, heads, formats[format],
                    format == LATHE_PROBE_TOP ? (int64_t)probe->top_k : RECORD_NULL,
                    format != LATHE_PROBE_TOP ? (int64_t)probe->recent_window : RECORD_NULL,
                    (int64_t)probe->first_position, or_end(probe->last_position), (int64_t)probe->every,
                    format == LATHE_PROBE_SCORES ? "score" : format == LATHE_PROBE_VALUES ? "value" : "weight");
}

int recorder_intervention(struct recorder_run *run, int64_t id, const struct lathe_intervention *v, const int32_t *keys,
                          struct lathe_error *err)
{
    static const char *const kinds[LATHE_INTERVENTION_KINDS] = {
        NULL, "head_scale", "head_set", "head_uniform", "keys_drop", "keys_keep", "attention_scale", "mlp_scale", "patch",
    };
    char layers[MASK_BYTES], heads[MASK_BYTES], *listed = NULL;
    size_t bytes = 0;
    if (v->kind == 0 || v->kind >= LATHE_INTERVENTION_KINDS)
        return lathe_fail(err, LATHE_EINVAL, "intervention %lld has kind %u; there are 1 to %d", (long long)id, v->kind,
                          LATHE_INTERVENTION_KINDS - 1);
    bool of_keys = v->kind == LATHE_KEYS_DROP || v->kind == LATHE_KEYS_KEEP;
    bool scales = v->kind == LATHE_HEAD_SCALE || v->kind == LATHE_ATTENTION_SCALE || v->kind == LATHE_MLP_SCALE;
    if (of_keys) {
        FILE *out = open_memstream(&listed, &bytes);
        for (uint32_t i = 0; out && i < v->key_count; i++)
            fprintf(out, "%s%d", i ? "," : "[", keys[v->key_first + i]);
        if (out)
            fputs(v->key_count ? "]" : "[]", out);
        if (!out || fclose(out) != 0) {
            free(listed);
            return lathe_fail(err, LATHE_ENOMEM, "no memory to list %u keys", v->key_count);
        }
    }
    mask_json(v->layers, layers);
    mask_json(v->heads, heads);
    int status = cold_put(run, COLD_INTERVENTION, err, "isssrsin", id, kinds[v->kind], layers,
                          v->kind <= LATHE_KEYS_KEEP ? heads : NULL, scales ? (double)v->factor : (double)NAN, listed,
                          (int64_t)v->first_position, or_end(v->last_position));
    free(listed);
    return status;
}
