/* SPDX-License-Identifier: MIT */
/* The real model and the golden data of tests/data, for tests that need them. */
#ifndef TESTS_MODEL_GOLDEN_H
#define TESTS_MODEL_GOLDEN_H

#include <math.h>
#include <unistd.h>

#include <jansson.h>

#include "fixture.h"

/* The real model's file, or NULL: the test then skips itself with status 77. */
static const char *golden_model_path(void)
{
    static char path[1024];
    const char *folders = getenv("LATHE_MODELS"); /* separated by colons */
    while (folders && *folders) {
        int n = (int)strcspn(folders, ":");
        snprintf(path, sizeof path, "%.*s/smollm2-135m.gguf", n, folders);
        if (access(path, R_OK) == 0)
            return path;
        folders += n + (folders[n] == ':');
    }
    snprintf(path, sizeof path, "%s", TEST_SOURCE "/models/smollm2-135m.gguf");
    if (access(path, R_OK) == 0)
        return path;
    printf("skipped: %s is not there (scripts/quickstart.sh fetches it)\n", path);
    return NULL;
}

static json_t *golden_json(const char *name)
{
    char path[4096];
    json_error_t error;
    snprintf(path, sizeof path, "%s/%s", TEST_DATA, name);
    json_t *j = json_load_file(path, 0, &error);
    if (!j) {
        fprintf(stderr, "%s: %s (line %d)\n", path, error.text, error.line);
        abort();
    }
    return j;
}

/* Ids of a JSON array; returns how many. */
static uint32_t golden_ids(const json_t *array, int32_t *ids)
{
    size_t n = json_array_size(array);
    for (size_t i = 0; i < n; i++)
        ids[i] = (int32_t)json_integer_value(json_array_get(array, i));
    return (uint32_t)n;
}

/* ln Σ exp(logits), in double. */
static double log_sum(const float *logits, uint32_t count)
{
    double most = logits[0], sum = 0;
    for (uint32_t i = 1; i < count; i++)
        most = logits[i] > most ? logits[i] : most;
    for (uint32_t i = 0; i < count; i++)
        sum += exp((double)logits[i] - most);
    return most + log(sum);
}

static int32_t largest(const float *logits, uint32_t count)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i < count; i++)
        if (logits[i] > logits[best])
            best = i;
    return (int32_t)best;
}

/* The best logit less the second. */
static double margin_of(const float *logits, uint32_t count)
{
    int32_t best = largest(logits, count);
    double second = -INFINITY;
    for (uint32_t i = 0; i < count; i++)
        if ((int32_t)i != best && logits[i] > second)
            second = logits[i];
    return logits[best] - second;
}

#endif
