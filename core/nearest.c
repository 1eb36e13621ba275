/* SPDX-License-Identifier: MIT */
/* "Did you mean …?": the nearest of some names by edit distance (Damerau, adjacent swaps
 * count one). Near is at most a third of the longer name, and at least one edit. */
#include "registry.h"

#include <string.h>

enum { NEAREST_MAX = 63 };

static unsigned least(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

static unsigned distance(const char *a, size_t n, const char *b, size_t m)
{
    unsigned rows[3][NEAREST_MAX + 1];
    unsigned *before = rows[0], *above = rows[1], *row = rows[2];
    for (size_t j = 0; j <= m; j++)
        above[j] = (unsigned)j;
    memcpy(before, above, sizeof rows[0]);
    for (size_t i = 1; i <= n; i++) {
        row[0] = (unsigned)i;
        for (size_t j = 1; j <= m; j++) {
            row[j] = least(least(above[j] + 1, row[j - 1] + 1), above[j - 1] + (a[i - 1] != b[j - 1]));
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                row[j] = least(row[j], before[j - 2] + 1);
        }
        unsigned *spent = before;
        before = above;
        above = row;
        row = spent;
    }
    return above[m];
}

const char *nearest_name(const char *name, const char *const *names, size_t count)
{
    const char *best = NULL;
    unsigned best_distance = 0;
    size_t n = strlen(name);
    if (n == 0 || n > NEAREST_MAX)
        return NULL;
    for (size_t i = 0; i < count; i++) {
        size_t m = strlen(names[i]);
        if (m == 0 || m > NEAREST_MAX)
            continue;
        unsigned d = distance(name, n, names[i], m);
        /* A name that was typed in part ("cont" for "continuous") is near, too. */
        if (n >= 3 && n < m && memcmp(name, names[i], n) == 0)
            d = 1;
        unsigned longer = (unsigned)(n > m ? n : m);
        unsigned allowed = longer / 3 > 1 ? longer / 3 : 1;
        if (d <= allowed && d < longer && (!best || d < best_distance)) {
            best = names[i];
            best_distance = d;
        }
    }
    return best;
}
