/* SPDX-License-Identifier: MIT */
/* Character classes, by search in runs, and canonical composition (UAX 15). */
#include "unicode.h"

static uint32_t run_value(const struct unicode_run *runs, unsigned count, uint32_t code)
{
    unsigned low = 0, high = count;
    while (low < high) {
        unsigned middle = (low + high) / 2;
        if (code > runs[middle].last)
            low = middle + 1;
        else if (code < runs[middle].first)
            high = middle;
        else
            return runs[middle].value;
    }
    return 0;
}

enum unicode_class unicode_class(uint32_t c)
{
    if (c < 0x80) {
        if ((c | 0x20) - 'a' < 26)
            return UNICODE_LETTER;
        if (c - '0' < 10)
            return UNICODE_NUMBER;
        return c == ' ' || c - 9 < 5 ? UNICODE_SPACE : UNICODE_OTHER;
    }
    if (c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 ||
        c == 0x202f || c == 0x205f || c == 0x3000)
        return UNICODE_SPACE;
    return (enum unicode_class)run_value(unicode_classes, unicode_classes_count, c);
}

/* ---- composition (UAX 15) ---- */

enum { /* Hangul syllables are arithmetic: L + V + T */
    S_BASE = 0xac00, L_BASE = 0x1100, V_BASE = 0x1161, T_BASE = 0x11a7,
    L_COUNT = 19, V_COUNT = 21, T_COUNT = 28, S_COUNT = L_COUNT * V_COUNT * T_COUNT,
};

static uint32_t combining(uint32_t code)
{
    return code < 0x300 ? 0 : run_value(unicode_combining, unicode_combining_count, code);
}

static const struct unicode_pair *decomposition(uint32_t code)
{
    unsigned low = 0, high = unicode_pairs_count;
    if (code < 0xc0)
        return NULL;
    while (low < high) {
        unsigned middle = (low + high) / 2;
        if (unicode_pairs[middle].code == code)
            return &unicode_pairs[middle];
        if (unicode_pairs[middle].code < code)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

static size_t decompose(uint32_t code, uint32_t *out)
{
    if (code >= S_BASE && code < S_BASE + S_COUNT) {
        uint32_t s = code - S_BASE;
        out[0] = L_BASE + s / (V_COUNT * T_COUNT);
        out[1] = V_BASE + s % (V_COUNT * T_COUNT) / T_COUNT;
        out[2] = T_BASE + s % T_COUNT;
        return s % T_COUNT ? 3 : 2;
    }
    const struct unicode_pair *pair = decomposition(code);
    if (!pair) {
        out[0] = code;
        return 1;
    }
    size_t n = decompose(pair->first, out); /* at most three deep in Unicode's table */
    if (pair->second)
        n += decompose(pair->second, out + n);
    return n;
}

static uint32_t composition(uint32_t first, uint32_t second)
{
    if (first - L_BASE < L_COUNT && second - V_BASE < V_COUNT)
        return S_BASE + ((first - L_BASE) * V_COUNT + (second - V_BASE)) * T_COUNT;
    if (first - S_BASE < S_COUNT && (first - S_BASE) % T_COUNT == 0 && second - T_BASE - 1 < T_COUNT - 1)
        return first + (second - T_BASE);
    unsigned low = 0, high = unicode_composing_count;
    while (low < high) {
        unsigned middle = (low + high) / 2;
        const struct unicode_pair *pair = &unicode_pairs[unicode_composing[middle]];
        if (pair->first == first && pair->second == second)
            return pair->code;
        if (pair->first < first || (pair->first == first && pair->second < second))
            low = middle + 1;
        else
            high = middle;
    }
    return 0;
}

/* Marks of one run by combining class, stable: a counting sort, since a run may be as long as
 * the text. */
static void order_marks(uint32_t *codes, size_t count, uint32_t *spare)
{
    size_t starts[257] = {0};
    for (size_t i = 0; i < count; i++)
        starts[combining(codes[i]) + 1]++;
    for (unsigned i = 1; i < 257; i++)
        starts[i] += starts[i - 1];
    for (size_t i = 0; i < count; i++)
        spare[starts[combining(codes[i])]++] = codes[i];
    for (size_t i = 0; i < count; i++)
        codes[i] = spare[i];
}

int nfc_needed(const unsigned char *text, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (text[i] >= 0xcc) /* U+0300 is CC 80: below it nothing decomposes and stays so */
            return 1;
    return 0;
}

size_t nfc_compose(const unsigned char *text, size_t count, uint32_t *codes, unsigned char *out)
{
    size_t n = 0, length, written = 0;
    uint32_t *spare = codes + 2 * count + 2;
    for (size_t at = 0; at < count; at += length)
        n += decompose(utf8_get(text + at, &length), codes + n);
    for (size_t i = 0; i < n;) {
        size_t end = i;
        while (end < n && combining(codes[end]))
            end++;
        if (end > i + 1)
            order_marks(codes + i, end - i, spare);
        i = end + 1;
    }

    size_t kept = 0, starter = SIZE_MAX;
    uint32_t last = 0; /* class of the mark kept last after the starter */
    for (size_t i = 0; i < n; i++) {
        uint32_t class = combining(codes[i]), whole = 0;
        /* A mark is blocked by one of its class or higher in between; a starter by any. */
        if (starter != SIZE_MAX && (kept == starter + 1 || (last < class && last)))
            whole = composition(codes[starter], codes[i]);
        if (whole) {
            codes[starter] = whole;
            continue;
        }
        if (!class)
            starter = kept;
        last = class;
        codes[kept++] = codes[i];
    }
    for (size_t i = 0; i < kept; i++)
        written += utf8_put(codes[i], out + written);
    return written;
}
