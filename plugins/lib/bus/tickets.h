/* SPDX-License-Identifier: MIT */
/* Tickets of calls that are done by the time they are posted: what a bus without workers has
 * of post, wait and poll. Status and sentence stay in one of TICKETS places until somebody
 * asks. Any thread may call. */
#ifndef LATHE_LIB_BUS_TICKETS_H
#define LATHE_LIB_BUS_TICKETS_H

#include <pthread.h>

#include <lathe/bus.h>

enum { TICKETS = 64 };

struct ticket {
    uint64_t number; /* 0: free */
    int status;
    int done;        /* 0: its call runs */
    struct lathe_error err;
};

struct tickets {
    const char *bus; /* "direct": who speaks in sentences */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    uint64_t next;
    uint64_t done;   /* calls, since the beginning */
    struct ticket places[TICKETS];
};

void tickets_open(struct tickets *tickets, const char *bus);
void tickets_close(struct tickets *tickets);

/* Calls the endpoint, and keeps the answer. LATHE_EFULL: every place is taken. */
int tickets_post(struct tickets *tickets, const struct lathe_endpoint *endpoint, const void *in, void *out,
                 uint64_t *ticket, struct lathe_error *err);
int tickets_post_many(struct tickets *tickets, const struct lathe_endpoint *endpoint, const void *const *in,
                      void *const *out, uint64_t *numbers, uint32_t count, uint32_t *posted, struct lathe_error *err);
/* The call's status. LATHE_ENOTFOUND: there is no such ticket (any more). */
int tickets_wait(struct tickets *tickets, uint64_t ticket, int64_t timeout_ns, struct lathe_error *err);
/* Every ticket is waited for, whatever became of those before. The first status that isn't 0, and its sentence. */
int tickets_wait_many(struct tickets *tickets, const uint64_t *numbers, int *statuses, uint32_t count,
                      struct lathe_error *err);
/* Until the count of calls done differs from *seen: see lathe_bus_api.poll. */
int tickets_poll(struct tickets *tickets, uint64_t *seen, int64_t timeout_ns);

#endif
