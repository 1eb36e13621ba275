/* SPDX-License-Identifier: MIT */
/* Whose turn it is to be evicted: a binary heap of the idle leaves, the next one first.
 *
 *     lru   what was left longest ago
 *     lfu   what was of use to fewest requests; among these what was left longest ago. Nothing
 *           ages: what was popular once stays until it is outnumbered.
 *
 * A node serves and is left no less and no earlier than those below it, so leaves before their
 * parents is the order of either rule, and not an exception to it. Each block knows its place, so
 * that one which is found again is taken out in O(log n). */
#ifndef PREFIX_HEAP_H
#define PREFIX_HEAP_H

#include "blocks.h"

void heap_push(struct blocks *b, int32_t block);
void heap_remove(struct blocks *b, int32_t block);

#endif
