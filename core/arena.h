/* SPDX-License-Identifier: MIT */
/* Arenas: memory of one lifetime, given back at once.
 *
 *     process   weights' indexes, tables          never reset
 *     request   a prompt, its output              reset when it retires
 *     step      scratch of one step               reset every step
 *
 *     ┌──────────────────────────────┐   ┌────────────────────┐
 *     │ used ▓▓▓▓▓▓▓▓▓│ free         │──▶│ older, full blocks │
 *     └──────────────────────────────┘   └────────────────────┘
 *
 * Taking is a bump of one offset. A fixed arena (`grows` 0) never calls the system after it
 * was opened, so it serves the step loop; a growing one adds blocks, each twice the last.
 * Reset keeps the newest block. Not for several threads at once. */
#ifndef CORE_ARENA_H
#define CORE_ARENA_H

#include <stddef.h>

#include <lathe/status.h>

struct arena_block;

struct arena {
    struct arena_block *block; /* where taking happens; older ones hang on it */
    size_t limit_bytes;        /* of all blocks; 0: none */
    size_t total_bytes;
    size_t peak_bytes;         /* most that was in use between two resets */
    size_t used_bytes;
    int grows;
};

/* `limit_bytes` bounds growth; a fixed arena has `bytes` and no more. */
int arena_open(struct arena *arena, size_t bytes, int grows, size_t limit_bytes, struct lathe_error *err);
void arena_close(struct arena *arena);

/* Zeroed; `align` a power of two, 0 for 16. NULL when it doesn't fit or the sum wraps. */
void *arena_take(struct arena *arena, size_t bytes, size_t align);
/* count × each, NULL when the product would wrap. */
void *arena_take_array(struct arena *arena, size_t count, size_t each, size_t align);
/* A NUL-terminated copy. */
char *arena_copy_text(struct arena *arena, const char *text, size_t bytes);

/* All that was taken is gone. */
void arena_reset(struct arena *arena);

#endif
