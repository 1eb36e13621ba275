/* SPDX-License-Identifier: MIT */
/* What the buses tell, turned into rows: a row of `hop` for each attempt of a call, and a row
 * of `service_event` for each change of a service's state.
 *
 * Hops are told on the thread that called, which is the engine's: they go straight into its
 * ring. Events come from any thread (a bus notices a dead worker on a thread of its own): they
 * wait in a short list under a mutex until the engine's thread drains it between steps. */
#ifndef CORE_BUS_WATCH_H
#define CORE_BUS_WATCH_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "clock.h"
#include "recorder.h"
#include "registry.h"
#include <lathe/bus.h>

enum { BUS_WATCH_EVENTS = 64, BUS_WATCH_NAME_BYTES = 48 };

struct bus_watch_event {
    int64_t time_ns;
    uint32_t worker;
    char service[BUS_WATCH_NAME_BYTES], what[24], detail[256];
};

struct bus_watch {
    const struct lathe_bus_api *bus;
    void *bus_self;
    struct clock *clock;
    struct producer *producer; /* NULL: nothing is recorded */
    bool hops;
    uint64_t hop;              /* numbers the hops of the run */
    uint64_t step;             /* the step that calls are made for now; 0: none. The engine sets it. */
    _Atomic uint32_t waiting;  /* events in the list */
    _Atomic uint64_t lost;     /* events that found it full */
    pthread_mutex_t lock;
    struct bus_watch_event events[BUS_WATCH_EVENTS];
};

/* Begins to watch; `hops`: with a row a hop. [main] */
void bus_watch_open(struct bus_watch *watch, const struct instance *bus, struct clock *clock, struct producer *producer,
                    bool hops);
/* From now on another bus is watched. [main], with no call under way */
void bus_watch_move(struct bus_watch *watch, const struct instance *bus);
void bus_watch_close(struct bus_watch *watch); /* [main], with no call under way */

/* A word of the host's own: "degraded", "scaled" … [any] */
void bus_watch_tell(struct bus_watch *watch, const char *service, uint32_t worker, const char *what, const char *detail);
/* Writes what waits as rows and log lines; one load when nothing does. [engine] */
void bus_watch_drain(struct bus_watch *watch);

#endif
