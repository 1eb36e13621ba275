/* SPDX-License-Identifier: MIT */
/* Special tokens in text: the longest that begins here, by narrowing a sorted list byte by
 * byte. Hugging Face's tokenizers take the leftmost, then the longest; so do we. */
#include "bpe.h"

#include <stdlib.h>
#include <string.h>

static const unsigned char *bytes_of(const struct vocab *v, uint32_t index, size_t *count)
{
    const struct token *t = &v->tokens[v->special[index]];
    *count = t->count;
    return v->bytes + t->at;
}

static int compare(const struct vocab *v, uint32_t a, uint32_t b)
{
    size_t m, n;
    const unsigned char *left = bytes_of(v, a, &m), *right = bytes_of(v, b, &n);
    int order = memcmp(left, right, m < n ? m : n);
    return order ? order : (m > n) - (m < n);
}

static void swap(struct vocab *v, uint32_t a, uint32_t b)
{
    int32_t held = v->special[a];
    v->special[a] = v->special[b];
    v->special[b] = held;
}

static void sift(struct vocab *v, uint32_t root, uint32_t count)
{
    for (uint32_t child; (child = 2 * root + 1) < count; root = child) {
        if (child + 1 < count && compare(v, child, child + 1) < 0)
            child++;
        if (compare(v, root, child) >= 0)
            return;
        swap(v, root, child);
    }
}

int special_load(struct vocab *v, const char *path, struct lathe_error *err)
{
    for (uint32_t i = v->special_count / 2; i-- > 0;)
        sift(v, i, v->special_count);
    for (uint32_t n = v->special_count; n > 1; n--) {
        swap(v, 0, n - 1);
        sift(v, 0, n - 1);
    }
    for (uint32_t i = 1; i < v->special_count; i++)
        if (compare(v, i - 1, i) == 0)
            return lathe_fail(err, LATHE_EFORMAT, "%s: key tokenizer.ggml.tokens: found tokens %d and %d with the same text, "
                              "expected each once", path, v->special[i - 1], v->special[i]);
    return 0;
}

/* The first of [low, high) whose byte at `depth` is at least `byte`; all share what comes before
 * and are longer than `depth`. */
static uint32_t bound(const struct vocab *v, uint32_t low, uint32_t high, size_t depth, unsigned byte)
{
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        size_t count;
        if (bytes_of(v, middle, &count)[depth] < byte)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

int32_t special_at(const struct vocab *v, const unsigned char *text, size_t count, int controls)
{
    uint32_t low = 0, high = v->special_count;
    int32_t found = -1;
    for (size_t depth = 0; depth < count && low < high; depth++) {
        low = bound(v, low, high, depth, text[depth]);
        high = bound(v, low, high, depth, text[depth] + 1u);
        size_t length;
        if (low < high && (bytes_of(v, low, &length), length == depth + 1)) {
            int32_t id = v->special[low++]; /* the shorter sorts first; the rest are longer */
            if (controls || v->tokens[id].kind == TOKEN_USER_DEFINED)
                found = id;
        }
    }
    return found;
}
