/* SPDX-License-Identifier: MIT */
/* The service that is called: methods of one service `bench`, the same wherever it runs. */
#ifndef BENCH_BUS_CALLEE_H
#define BENCH_BUS_CALLEE_H

#include <lathe/bus.h>

struct callee_answer {
    struct lathe_message head;
    uint64_t sum;
};

/* Answers at once; looks at nothing. */
int callee_nothing(void *self, const void *in, void *out, struct lathe_error *err);
/* Sums what follows the header of `in`, where it lies. */
int callee_sum(void *self, const void *in, void *out, struct lathe_error *err);
/* Copies it to memory of its own first. */
int callee_copy_sum(void *self, const void *in, void *out, struct lathe_error *err);

/* nothing, sum, copy_sum. One worker; the recipe is one word. */
extern const struct lathe_service callee_service;
/* For worker processes. */
extern const struct lathe_recipe_maker callee_maker;

#endif
