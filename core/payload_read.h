/* SPDX-License-Identifier: MIT */
/* What the two halves of the reading walk share: payload_value.c reads numbers and lists of
 * them, payload_read.c structs and what they are made of. */
#ifndef CORE_PAYLOAD_READ_H
#define CORE_PAYLOAD_READ_H

#include "payload.h"

enum { PAYLOAD_PATH_BYTES = 160 };

/* `path` is where the walk is, for sentences. */
struct payload_walk {
    struct payload_parts *parts;
    const struct payload_source *source;
    struct lathe_error *err;
    char path[PAYLOAD_PATH_BYTES];
};

/* Into an element of the current list, and back; a name is entered by the source's `field`. */
size_t walk_enter_index(struct payload_walk *w, size_t index);
size_t walk_enter_name(struct payload_walk *w, const char *name);
void walk_leave(struct payload_walk *w, size_t before);
/* "SERVICE.METHOD: PATH should be EXPECTED, not …". */
int walk_refuse(struct payload_walk *w, const char *expected);
int walk_refuse_field(struct payload_walk *w, const struct payload_field *field);

/* The current value, checked, to where it belongs. `target`: index of the message's array. */
int walk_integer(struct payload_walk *w, const struct payload_field *f, void *at);
int walk_float(struct payload_walk *w, const struct payload_field *f, void *at); /* f NULL: any number */
int walk_list(struct payload_walk *w, const struct payload_struct *of, const struct payload_field *f,
              unsigned char *base);
int walk_mask(struct payload_walk *w, const struct payload_field *f, void *at);
int walk_rows(struct payload_walk *w, const struct payload_field *f, int target);
int walk_append(struct payload_walk *w, const struct payload_field *f, int target, uint32_t range[2]);
int walk_length(struct payload_walk *w, const struct payload_field *f, size_t *length);
/* `value` was range-checked. */
void walk_put(void *at, size_t width, int64_t value);

#endif
