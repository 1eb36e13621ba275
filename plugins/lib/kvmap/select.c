/* SPDX-License-Identifier: MIT */
/* Who goes: the lowest scores of a set, of equal ones the lowest positions. See choice.h.
 *
 * One that goes, as in every step of a decode, is found in one pass. Where several go, a quickselect
 * (Hoare 1961) on a copy of the scores finds the largest score that goes, and a pass from the lowest
 * position on takes all below it, and of those equal to it as many as are left to go. */
#include <string.h>

#include "choice.h"

static uint32_t lowest(const float *scores, uint32_t count)
{
    uint32_t at = 0;
    for (uint32_t i = 1; i < count; i++)
        if (scores[i] < scores[at])
            at = i;
    return at;
}

/* The value at place k of the sorted array; the array is reordered. */
static float kth(float *a, uint32_t count, uint32_t k)
{
    int64_t low = 0, high = (int64_t)count - 1;
    while (low < high) {
        float pivot = a[low + (high - low) / 2];
        int64_t i = low, j = high;
        while (i <= j) {
            while (a[i] < pivot)
                i++;
            while (a[j] > pivot)
                j--;
            if (i <= j) {
                float swapped = a[i];
                a[i++] = a[j];
                a[j--] = swapped;
            }
        }
        if ((int64_t)k <= j)
            high = j;
        else if ((int64_t)k >= i)
            low = i;
        else
            break;
    }
    return a[k];
}

void kvchoice_evict(int32_t *positions, float *scores, float *order, uint32_t count, uint32_t over, uint32_t recent,
                    void (*gone)(void *user, int32_t position), void *user)
{
    uint32_t open = count - recent; /* that may go */
    if (over == 0)
        return;
    if (over == 1) {
        uint32_t at = lowest(scores, open);
        gone(user, positions[at]);
        memmove(positions + at, positions + at + 1, (count - at - 1) * sizeof *positions);
        memmove(scores + at, scores + at + 1, (count - at - 1) * sizeof *scores);
        return;
    }
    memcpy(order, scores, open * sizeof *order);
    float limit = kth(order, open, over - 1);
    uint32_t equal = over, left = 0; /* equal: of those at the limit, how many go */
    for (uint32_t i = 0; i < open; i++)
        equal -= scores[i] < limit;
    for (uint32_t i = 0; i < count; i++) {
        if (i < open && (scores[i] < limit || (scores[i] == limit && equal > 0))) {
            equal -= scores[i] == limit;
            gone(user, positions[i]);
            continue;
        }
        positions[left] = positions[i];
        scores[left++] = scores[i];
    }
}
