/* SPDX-License-Identifier: MIT */
/* What the files of bus/async share; the idea is at the top of async.c.
 *
 * What a cell's words mean:
 *
 *     word   there (caller)              back (worker)
 *     0      the line                    the same
 *     1, 2   in, out
 *     3      where a sentence may go
 *     4      1: posted                   status (low half), worker (high half)
 *     5      the deadline, 0: none       started_ns, while hops are observed
 *     6                                  ended_ns
 *
 * so that the queue itself takes one cache line to the worker and one back, and a message
 * whose method doesn't look at its head is never touched by the bus on the worker's side.
 * A line of NULL is a call that was refused after its cell was taken: the worker only passes
 * it on, with the status that stands there. */
#ifndef LATHE_BUS_ASYNC_H
#define LATHE_BUS_ASYNC_H

#include <pthread.h>
#include <stdbool.h>

#include <bus/callring.h>
#include <bus/directory.h>
#include <bus/envelope.h>

enum { WORD_LINE, WORD_IN, WORD_OUT, WORD_ERROR, WORD_STATUS, WORD_DEADLINE, WORD_ENDED,
       WORD_STARTED = WORD_DEADLINE };
enum { TICKET_RETRY = 1 }; /* no ticket has this value, since generations begin with 1 */
enum { MAX_POOLS = 1024, MAX_WORKERS = 64, LOCAL_QUEUE = 64, STRIPES = 64 };

struct pool;

/* An endpoint's inside: endpoint.self points here. */
struct line {
    struct envelope envelope;
    lathe_method *function;
    void *self;
    struct pool *pool;      /* whose ring and workers */
    bool local;             /* done on the caller's thread */
    alignas(64) _Atomic uint32_t vain; /* see spin_for */
};

/* What the bus keeps of a service: directory_service.more. */
struct desk {
    struct envelope_service envelope;
    struct line *lines;     /* (method_count) */
    struct pool *pool;      /* its own, or that of the service it goes `with` */
    bool own_pool;
};

/* A posted call, on the caller's side; that of position p is posted[p % capacity]. */
struct posted {
    alignas(64) _Atomic uint64_t ticket; /* 0: spent, or the cell is a `call`'s; TICKET_RETRY: another record's */
    _Atomic uint32_t waiting;            /* 1: somebody is inside wait */
    uint32_t position;                   /* of the attempt under way: a retry has another one */
    struct line *_Atomic line;           /* atomic for remove_service, which looks at others' records too */
    const struct lathe_message *in;
    struct lathe_message *out;
    struct envelope_attempt attempt;
    int32_t status;                      /* of a call that was refused or done at once */
    enum { POSTED_QUEUED, POSTED_PAUSING, POSTED_FINAL } state;
};

struct worker {
    alignas(64) _Atomic uint32_t stop;   /* enum stop */
    _Atomic uint32_t up;
    struct pool *pool;
    pthread_t thread;
    uint32_t number;                     /* from 1, in its pool */
    uint32_t vain;
};

enum stop { STOP_NOT = 0, STOP_NOW = 1, STOP_WHEN_EMPTY = 2 };

/* A ring and the threads that work on it. A local service has a ring for its tickets, and no thread. */
struct pool {
    struct async *bus;
    struct callring *ring;
    struct posted *posted;               /* (capacity) */
    struct lathe_error *errors;          /* (capacity): sentences of posted calls, untouched without failures */
    const char *name;                    /* of the service that owns it */
    uint64_t ticket_base;                /* slot and generation: the high half of its tickets */
    uint32_t slot;
    uint32_t serial;                     /* services on it that bear one worker only */
    struct worker workers[MAX_WORKERS];
    alignas(64) _Atomic uint32_t wanted, running;
    _Atomic uint32_t lingering;          /* calls that hold no cell: waiting for room, or before a retry */
};

struct async {
    const struct lathe_host *host;
    struct directory directory;
    struct envelope_bus envelope;
    uint32_t queue;
    int64_t spin_ns;
    pthread_mutex_t lock;                /* the directory, for health from any thread */
    struct pool *_Atomic pools[MAX_POOLS];
    uint16_t generations[MAX_POOLS];

    alignas(64) _Atomic uint32_t room;   /* what callers sleep on while a ring is full */
    _Atomic uint32_t room_wanted;
    _Atomic int64_t retry_ns;            /* the first retry that a wait without time left for later; 0: none */
    alignas(64) _Atomic uint32_t bell;   /* what poll sleeps on */
    _Atomic uint32_t poll_wanted;
    struct {
        alignas(64) _Atomic uint64_t n;
    } done[STRIPES];                     /* posted calls done, workers come or gone; poll adds them up */
};

/* NULL: not one of ours. Reached without a call, which dlopen allows for a few bytes. */
extern _Thread_local struct worker *async_this_worker __attribute__((tls_model("initial-exec")));

/* How long to wait actively: everybody spins spin_us at most, which should be about what waking a
 * thread costs. Who spun in vain VAIN times in a row sleeps at once, but for each PROBE'th
 * time, when it tries; a spin that pays makes it spin again. */
enum { VAIN = 4, PROBE = 16 };
static inline int64_t spin_for(const struct async *bus, uint32_t vain)
{
    return vain < VAIN || vain % PROBE == 0 ? bus->spin_ns : 0;
}

/* pool.c */
struct pool *pool_open(struct async *bus, const struct lathe_service *service, struct lathe_error *err);
/* `workers` threads from now on; waits for those that come and those that go. [main] */
int pool_scale(struct pool *pool, uint32_t workers, enum stop how, struct lathe_error *err);
/* Waits until every call under way is collected, spends the tickets of `desk` (NULL: all). [main] */
void pool_settle(struct pool *pool, const struct desk *desk, uint32_t lines);
/* The cell of a retry is free again. */
void pool_collect_retry(struct pool *pool, uint32_t position);
void pool_close(struct pool *pool);
/* Does the call in the cell, on this thread. */
void pool_serve(struct pool *pool, struct callring_cell *cell, uint32_t position, uint32_t worker);
/* Something happened that poll waits for. */
void pool_count(struct async *bus, uint32_t stripe);

/* call.c */
lathe_method async_call;
/* When a timeout > 0 that begins now is over, and what is left of it then; others stay what they are. */
int64_t async_end_of(int64_t timeout_ns);
int64_t async_left_of(int64_t timeout_ns, int64_t end_ns);
int64_t async_host_now(const struct async *bus);
void async_write_cell(struct callring_cell *cell, struct line *line, const struct lathe_message *in, void *out,
                      struct lathe_error *err, bool posted);
int async_read_cell(const struct callring_cell *cell, struct envelope_attempt *attempt);
/* 1: answered. 0: timeout_ns (< 0: never) passed. */
int async_await(struct line *line, uint32_t position, int64_t timeout_ns);
void async_collect(struct async *bus, struct pool *pool, uint32_t position);

/* post.c */
int async_post(void *self, const struct lathe_endpoint *endpoint, const void *in, void *out, uint64_t *ticket,
               struct lathe_error *err);
int async_post_many(void *self, const struct lathe_endpoint *endpoint, const void *const *in, void *const *out,
                    uint64_t *tickets, uint32_t count, uint32_t *posted, struct lathe_error *err);
int async_wait(void *self, uint64_t ticket, int64_t timeout_ns, struct lathe_error *err);
int async_wait_many(void *self, const uint64_t *tickets, int *statuses, uint32_t count, struct lathe_error *err);
int async_poll(void *self, uint64_t *seen, int64_t timeout_ns);

#endif
