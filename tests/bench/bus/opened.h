/* SPDX-License-Identifier: MIT */
/* A bus plugin opened as the host would, with the service of callee.h on it, and the other end
 * of one whose workers are processes: this program again, as `lathe worker` would be. */
#ifndef BENCH_BUS_OPENED_H
#define BENCH_BUS_OPENED_H

#include "bench.h"

struct opened {
    const struct lathe_bus_api *api;
    void *self;
    int added;
    const struct lathe_endpoint *nothing, *sum, *copy_sum;
};

/* `options`: names and values in turn, NULL at the end. Workers land on the worker's core. No
 * such plugin is LATHE_EUNSUPPORTED. */
int opened_open(struct opened *o, const struct bench *b, const char *name, const char *const *options,
                struct lathe_error *err);
void opened_close(struct opened *o);

/* `bench_bus worker --fd N --bus FILE` */
int opened_worker(int argc, char **argv);

#endif
