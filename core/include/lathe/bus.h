/* SPDX-License-Identifier: MIT */
/* The bus seam: how do services reach each other?
 *
 * A service is a name ("model"), methods and one or more instances to call them on. A
 * name such as "model.forward" is resolved once, to an endpoint; a call is then
 *
 *     endpoint->call(endpoint->self, in, out, err)
 *
 * whatever the bus: `direct` hands out the service's own function and self, so the call
 * is one indirect call and nothing else; other buses hand out a function of their own
 * that wraps it in an envelope (deadline, counters, retry, breaker), or brings the same
 * bytes to a worker and waits. Messages are flat (<lathe/message.h>) and are built in
 * memory loaned by the bus.
 *
 *     create → add_service … → resolve … → loan, call, give_back … → remove_service → destroy
 *
 * The envelope, on every bus but `direct`:
 *
 *     deadline passed? ─▶ LATHE_EDEADLINE          breaker open? ─▶ LATHE_EUNAVAILABLE
 *     attempt ─ ok ─▶ counted, observed, done
 *        ▲    └ failed for a passing reason, safe to repeat, attempts and time left?
 *        └────── pause: random (0, min (cap, base · 2^attempt)) ◀──┘ yes       no ─▶ its status
 *
 * Passing reasons are LATHE_EIO, LATHE_EBUSY and LATHE_EUNAVAILABLE. A breaker counts those,
 * LATHE_ENOMEM, LATHE_EINTERNAL, LATHE_EDEADLINE and LATHE_ELOST as failures of the service; every other
 * status is the caller's own mistake and says nothing about the service's health.
 * (Nygard, Release It!, 2007; Brooker, Exponential Backoff And Jitter, 2015.) */
#ifndef LATHE_BUS_H
#define LATHE_BUS_H

#include <lathe/host.h>
#include <lathe/message.h>

enum { LATHE_BUS_ABI = 2 };

enum lathe_method_flags {
    LATHE_METHOD_IDEMPOTENT = 1, /* may be called again with the same input: a retry is safe */
    LATHE_METHOD_STATEFUL = 2,   /* leans on what earlier calls left in its worker (keys and values).
                                    When that worker dies under a call, or has been replaced since
                                    the last one, the answer is LATHE_ELOST, once for all stateful
                                    methods of that worker; never retried */
};

struct lathe_service_method {
    const char *name; /* "forward" */
    lathe_method *function;
    void *self;       /* what the function's first argument is */
    uint32_t flags;   /* enum lathe_method_flags                                    since abi 2 */
    uint32_t reserved;
};

enum lathe_service_flags {
    /* Its messages carry pointers of the caller's: every bus runs it on the caller's thread,
     * in the envelope (scheduler, memory). */
    LATHE_SERVICE_LOCAL = 1,
};

struct lathe_service {
    uint32_t size;
    uint32_t method_count;
    const char *name; /* "model" */
    const struct lathe_service_method *methods;
    int32_t concurrency; /* enum lathe_concurrency of the plugin behind it */
    uint32_t workers;    /* wished for; a bus without workers ignores it. More than one of a
                            LATHE_SERIAL service is refused, unless each has an instance of its own */
    uint32_t flags;      /* enum lathe_service_flags                                since abi 2 */
    uint32_t reserved;
    /* Another service, added before, whose workers serve this one too ("sampler" with "model",
     * so that logits stay where they were computed); NULL: workers of its own.   since abi 2 */
    const char *with;
    /* From which a worker process makes the service itself (the host's own format, opaque to
     * the bus). None: it can't leave the process.                                since abi 2 */
    const void *recipe;
    uint64_t recipe_bytes;
};

/* Made by resolve, owned by the bus, valid until its service is removed. */
struct lathe_endpoint {
    lathe_method *call; /* waits. [any] on buses with workers, else as the method */
    void *self;
    uint32_t id;
    uint32_t reserved;
    const char *name; /* "model.forward" */
};

struct lathe_endpoint_stats {
    uint64_t calls, failures, bytes; /* finished attempts; those with another status than 0; of in and out */
    int64_t total_ns, max_ns; /* 0 on buses that don't time */
    /* since abi 2 */
    uint64_t retries;         /* attempts beyond a call's first */
    uint64_t refused;         /* by an open breaker */
    uint64_t expired;         /* too late to begin */
    int64_t p50_ns, p90_ns, p99_ns, p999_ns; /* of attempts; from a log-linear histogram, within 3% */
};

enum lathe_breaker_state { LATHE_BREAKER_CLOSED = 0, LATHE_BREAKER_OPEN = 1, LATHE_BREAKER_HALF_OPEN = 2 };

struct lathe_service_health {
    uint32_t size;
    int32_t alive;           /* every worker that should run does, and its heart beats */
    int32_t ready;           /* a call would be served now: some worker is up, breaker not open */
    int32_t breaker;         /* enum lathe_breaker_state */
    uint32_t workers;        /* up now; 0 on buses without workers */
    uint32_t workers_wanted;
    uint32_t queued;         /* calls waiting for a worker, or with one */
    uint32_t restarts;       /* of workers, since the service was added */
    int64_t pid;             /* of its first worker process; 0: none */
    int64_t last_beat_ns;    /* the oldest heartbeat among its workers, on the host's clock; 0: none */
    int64_t last_error_ns;   /* 0: there was none */
    struct lathe_error last_error;
};

/* What became of an attempt; told to the observer on the caller's own thread. */
struct lathe_hop {
    const struct lathe_endpoint *endpoint;
    uint64_t correlation;
    int64_t sent_ns, started_ns, ended_ns; /* on the host's clock */
    uint64_t bytes;                        /* of message and reply */
    int32_t status;
    uint32_t worker;                       /* 0: the caller's own thread */
    uint32_t attempt;                      /* 1, 2, … of its call */
    uint32_t reserved;
};

enum lathe_bus_event_kind { /* appended, never renumbered */
    LATHE_BUS_WORKER_STARTED = 1,
    LATHE_BUS_WORKER_READY = 2,
    LATHE_BUS_WORKER_DIED = 3,   /* exited or killed, unasked */
    LATHE_BUS_WORKER_STUCK = 4,  /* missed its heartbeat or its time; will be killed */
    LATHE_BUS_WORKER_STOPPED = 5,/* scaled away */
    LATHE_BUS_BREAKER_OPENED = 6,
    LATHE_BUS_BREAKER_HALF_OPEN = 7,
    LATHE_BUS_BREAKER_CLOSED = 8,
};

struct lathe_bus_event {
    int32_t kind;        /* enum lathe_bus_event_kind */
    uint32_t worker;     /* 0: of the service as a whole */
    const char *service;
    int64_t time_ns;     /* on the host's clock */
    const char *detail;  /* a sentence, or "" */
};

/* Both may be NULL: nobody looks, and nothing is stamped. */
struct lathe_bus_observer {
    uint32_t size;
    uint32_t reserved;
    void *context;
    void (*hop)(void *context, const struct lathe_hop *hop);             /* [the caller's thread] */
    void (*event)(void *context, const struct lathe_bus_event *event);   /* [any]; must not call the bus */
};

struct lathe_bus_api {
    LATHE_API_HEAD;

    /* The service and its strings are borrowed until remove_service. A second of the same
     * name is LATHE_EBUSY. Returns when its workers are up. [main] */
    int (*add_service)(void *self, const struct lathe_service *service, struct lathe_error *err);
    /* Calls under way are finished first; workers are joined. Services that go `with` it must
     * be removed before: LATHE_EBUSY. [main] */
    int (*remove_service)(void *self, const char *name, struct lathe_error *err);

    /* "service.method" → endpoint; unknown is LATHE_ENOTFOUND, naming the nearest. [main] */
    int (*resolve)(void *self, const char *name, const struct lathe_endpoint **endpoint,
                   struct lathe_error *err);

    /* Memory for messages of up to `bytes`, 64-byte aligned, head.capacity set, the rest of
     * the head zeroed, what follows undefined. Held from step to step by the engine. [main] */
    struct lathe_message *(*loan)(void *self, size_t bytes, struct lathe_error *err);
    void (*give_back)(void *self, struct lathe_message *message);

    /* Start a call without waiting; `ticket` names it. A bus without workers does it at
     * once. `in` and `out` stay untouched until it was waited for. [any] on buses with
     * workers, else [engine & running] */
    int (*post)(void *self, const struct lathe_endpoint *endpoint, const void *in, void *out,
                uint64_t *ticket, struct lathe_error *err);
    /* The call's own status. timeout_ns < 0: as long as it takes; 0: LATHE_EBUSY if it is
     * not done. A ticket is spent by any other answer. A retry happens in here. [as post] */
    int (*wait)(void *self, uint64_t ticket, int64_t timeout_ns, struct lathe_error *err);

    /* [any] */
    void (*stats)(void *self, const struct lathe_endpoint *endpoint, struct lathe_endpoint_stats *stats);

    /* ── since abi 2; all are required ─────────────────────────────────────────────────── */

    /* Many calls of one endpoint at once: `in`, `out` and `tickets` have `count` elements; as
     * many as fit are posted, *posted says how many. LATHE_EFULL only if none was. [as post] */
    int (*post_many)(void *self, const struct lathe_endpoint *endpoint, const void *const *in, void *const *out,
                     uint64_t *tickets, uint32_t count, uint32_t *posted, struct lathe_error *err);
    /* Waits for all; statuses[i] is the i-th call's own. [as post] */
    int (*wait_many)(void *self, const uint64_t *tickets, int *statuses, uint32_t count, struct lathe_error *err);

    /* Sleep until the bus's count of posted calls done, and of workers that came or went, is
     * another than *seen, and put it there: begin with 0, look at your tickets after each
     * return, and nothing is missed. LATHE_EBUSY when timeout_ns passed first. [as post] */
    int (*poll)(void *self, uint64_t *seen, int64_t timeout_ns);

    /* More or fewer workers, while it runs; waits until they are up, or have finished what they
     * had begun. A bus without workers only remembers the wish. [main] */
    int (*scale)(void *self, const char *service, uint32_t workers, struct lathe_error *err);

    /* [any] */
    int (*health)(void *self, const char *service, struct lathe_service_health *health, struct lathe_error *err);

    /* Copied; NULL: nobody looks any more. While no call is under way. [main] */
    void (*observe)(void *self, const struct lathe_bus_observer *observer);
};

/* ── The other end, for buses whose workers are processes ─────────────────────────────────
 *
 * get_extension (NULL, LATHE_BUS_WORKER): a bus with this ability runs services that have a
 * recipe in processes of `lathe worker --fd N --bus FILE`, which load the bus's own .so and
 * call `serve`. The host then makes no instance behind such a service: `self` of its methods
 * may be NULL. */
#define LATHE_BUS_WORKER "lathe.bus-worker/1"

/* Makes what a recipe says; the services stay until close. */
struct lathe_recipe_maker {
    uint32_t size;
    uint32_t reserved;
    void *context;
    int (*open)(void *context, const void *recipe, uint64_t bytes, const struct lathe_service **services,
                uint32_t *count, struct lathe_error *err);
    void (*close)(void *context);
};

struct lathe_bus_worker {
    uint32_t size;
    uint32_t reserved;
    /* Returns when told to stop, or when the host at the other end of `fd` is gone. [main] */
    int (*serve)(const struct lathe_host *host, int fd, const struct lathe_recipe_maker *maker,
                 struct lathe_error *err);
};

#endif
