/* SPDX-License-Identifier: MIT */
/* Kept lists and masses of a forward message: what batch.c asks of each slice.
 *
 *     kept     set 0: p0 p1 … | set 1: p0 p1 … | …     kept_count each, ascending
 *     masses   set 0: k0 k1 … | set 1: …               the kept ones, then the slice's own rows */
#ifndef LATHE_FORWARD_KEPT_H
#define LATHE_FORWARD_KEPT_H

#include <forward/batch.h>

/* A position's block is in the slice's table, and in the pool. */
int forward_block_check(const struct forward_limits *limits, const struct forward_batch *b, uint32_t s, int32_t position,
                        struct lathe_error *err);

/* Checks the slice's lists and how its keys are rotated, and says how many of a set come before it. */
int forward_kept_check(const struct forward_limits *limits, const struct lathe_forward_in *in, struct forward_batch *b,
                       uint32_t s, struct lathe_error *err);

/* Gives the slice its place among the masses, if it wants them. After forward_kept_check. */
int forward_mass_place(const struct forward_limits *limits, struct forward_batch *b, uint32_t s, struct lathe_error *err);

/* Is there room for all? Clears it. */
int forward_mass_check(struct forward_batch *b, const struct lathe_forward_out *out, struct lathe_error *err);

#endif
