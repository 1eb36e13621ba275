/* SPDX-License-Identifier: MIT */
/* What the files of this bus share.
 *
 *   plugin.c    the table: options, create, destroy, loans
 *   group.c     services come, go and scale;  health.c  how they are
 *   life.c      a worker's life, whatever it runs in
 *   call.c      one attempt: handed to a worker, taken back, its answer checked
 *   ticket.c    calls in two halves: post, wait, poll
 *   monitor.c   the thread that starts, watches and ends worker processes; slot.c  what is next
 *   spawn.c     one process: exec, hello, its report, its end
 *   thread.c    worker threads, for services that can't leave the process
 *   worker.c    the process at the other end;  serve.c  its loop, and a worker thread's
 *   pool.c      room in the shared memory;     wire.h   its layout
 *
 * Groups, slots, lives. A service with workers of its own has a group; `with` services join
 * it. A group has slots, one for each worker wished for; in a slot one life follows another:
 *
 *     slot   EMPTY ▶ DUE ─ spawn ▶ STARTING ─ ready ▶ UP ─ dies ─▶ DUE (after a pause) … GAVE_UP
 *                                                     UP ─ scaled away ▶ CLOSING ▶ STOPPING ▶ EMPTY
 *     life   a ring of its own in shared memory, and in the host's memory the list of calls that
 *            lie in it, so that nothing of a dead worker's progress must be believed
 *
 * Handing over without a lock. A caller counts itself in (`entering`), and looks whether the
 * life is still the slot's and open; only then it puts its call in the ring. The monitor closes
 * the life first, and looks at `entering` after. Both are seq_cst, so that either the caller
 * sees the closing, or the monitor sees the caller. A call's record (enum record_state) says
 * who may answer it: the taker turns WAITING into DONE, the monitor, after the worker's death,
 * into ABANDONED; one of them succeeds, so a call has exactly one result.
 *
 * A cell stops its ring a lap later, so an answer that nobody waits for yet would stop everybody:
 * who finds a ring full moves the answer in its way into its ticket (ticket_harvest).
 *
 * A life's memory is used again for a later life of its group (never freed before the group),
 * when nobody holds it (`users`): a late caller may still count itself in and out of it.
 *
 * bus->lock guards groups, slots and lives but for what is atomic; the monitor holds it while
 * it looks around, [main] while it changes what is wished for. */
#ifndef SHM_SHM_H
#define SHM_SHM_H

#include <pthread.h>
#include <stdalign.h>
#include <stdbool.h>
#include <sys/types.h>

#include "bus/directory.h"
#include "bus/envelope.h"
#include "pool.h"
#include "serve.h"

enum { MONITOR_LOOK_MS = 100, GROUP_SLOTS = 64, GROUP_METHODS = 256, TICKETS = 4096, DEATH_BYTES = 400 };

enum record_state { RECORD_FREE = 0, RECORD_WAITING = 1, RECORD_DONE = 2, RECORD_ABANDONED = 3 };

struct record {
    _Atomic uint32_t state;  /* enum record_state */
    _Atomic uint32_t position;
    _Atomic uint64_t ticket; /* whose call it is; 0: of somebody who waits for it anyway */
};

#define LIFE_SPOILT "it wrote over its ring"

enum life_state { LIFE_NEW = 0, LIFE_OPEN = 1, LIFE_CLOSED = 2, LIFE_DEAD = 3 };

struct life {
    struct life *next;       /* of its group; all that ever were */
    struct slot *slot;
    _Atomic uint32_t state;  /* enum life_state */
    _Atomic uint32_t entering; /* callers between the look at state and the call in the ring */
    _Atomic uint32_t users;  /* calls handed over and not taken back */
    _Atomic uint32_t served; /* 1: it answered a call */
    _Atomic uint32_t condemned; /* 1: a caller found it lying; `sentence` says how */
    uint32_t generation;     /* of the slot; from 1 */
    uint64_t block;          /* its piece of shared memory; 0: none */
    struct wire_worker *control;
    struct lathe_error *errors;
    struct callring *ring;
    struct record *records;  /* (ring's capacity); position % capacity */
    /* Of a process. */
    pid_t pid;
    int pidfd, socket;
    int64_t began_ns;        /* machine time of its state */
    int code;                /* why it failed to start */
    bool killed;             /* by the monitor; its end is awaited */
    char sentence[DEATH_BYTES]; /* why it is to die, said before it did */
    char death[DEATH_BYTES]; /* how it died; written before any call is abandoned */
    /* Of a thread. */
    pthread_t thread;
    struct serving serving;
};

enum slot_state { SLOT_EMPTY = 0, SLOT_DUE, SLOT_STARTING, SLOT_UP, SLOT_CLOSING, SLOT_STOPPING, SLOT_GAVE_UP };

struct slot {
    struct group *group;
    _Atomic(struct life *) current; /* may be called; NULL: none */
    struct life *life;       /* under lock: the one being started, up or ending */
    int state;               /* enum slot_state, under lock */
    uint32_t worker;         /* its number on the bus, from 1; 0: not given yet */
    uint32_t deaths;         /* in a row, without one answered call */
    uint32_t generation;     /* of its life */
    _Atomic uint32_t known;  /* the generation that callers of stateful methods lean on; 0: none */
    int64_t due_ns;
    bool proven;             /* a life of it was up, so a failure to start is no longer add_service's */
};

struct group {
    struct group *next;
    struct shm *bus;
    struct directory_service *service;
    bool processes;
    struct slot slots[GROUP_SLOTS];
    struct life *lives;
    uint32_t wanted;         /* under lock */
    _Atomic uint32_t reach;  /* slots below it may have a life */
    _Atomic uint32_t up;     /* lives that are open */
    _Atomic uint32_t hopeless; /* 1: no worker will come up any more */
    _Atomic uint32_t came;   /* changes when a worker came up or hope went; callers sleep on it */
    uint32_t restarts;
    int failed;              /* under lock: why a first start failed */
    char failure[LATHE_ERROR_MESSAGE_BYTES];
    char given_up[LATHE_ERROR_MESSAGE_BYTES]; /* under lock: why it is hopeless */
    char last_death[DEATH_BYTES]; /* under lock */
    /* Of processes: what the first one that was ready said it serves. */
    char *names;
    uint32_t names_bytes, names_count;
    /* Of threads. */
    struct served_method methods[GROUP_METHODS];
    _Atomic uint32_t method_count;
};

/* One endpoint; its self. */
struct line {
    struct envelope envelope;
    struct group *group;     /* NULL: called on the caller's thread */
    const struct lathe_service_method *method;
    uint32_t number;         /* of the method, to its workers */
    _Atomic uint32_t active; /* calls under way: its service goes when there is none */
};

/* What the bus keeps with a service: directory_service.more. */
struct member {
    struct envelope_service envelope;
    struct group *group;     /* the one whose workers serve it; NULL: none */
    struct line *lines;      /* (line_count) */
    uint32_t line_count;
};

struct shm_options {
    int64_t spin_ns, heartbeat_ns, stuck_ns, start_ns, ready_ns, stop_ns;
    uint32_t restarts_max, queue;
};

/* A call handed over. */
struct flight {
    struct life *life;
    uint32_t position;
    uint64_t capacity;       /* of out, as it was */
    uint64_t ticket;         /* set before it is handed over; 0: none */
};

enum ticket_state { TICKET_HANDED = 1, TICKET_PAUSED = 2, TICKET_FINAL = 3 };

struct ticket {
    _Atomic uint64_t number; /* 0: free; TICKET_HELD set: somebody waits for it or makes it */
    _Atomic(struct line *) line; /* NULL: its service is gone */
    const void *in;
    void *out;
    struct envelope_attempt attempt;
    struct flight flight;
    int state, status;
    struct lathe_error err;
};

struct shm {
    struct envelope_bus envelope; /* host, policy, observer */
    const struct lathe_host *host;
    struct directory directory;
    pthread_mutex_t names;   /* of the directory and who serves what: [main] changes them, health asks */
    struct shm_options options;
    struct pool pool;
    int memory;              /* the memfd; −1: none */
    unsigned char *base;
    uint64_t bytes;
    struct wire_bus *wire;
    struct group *groups;    /* under lock */
    uint32_t next_worker;
    /* The monitor. */
    pthread_mutex_t lock;    /* taken after `names` */
    pthread_cond_t changed;  /* a slot's state did */
    pthread_t monitor;
    bool monitoring, quit;   /* quit: under lock */
    int wake;                /* eventfd; −1: none */
    struct pollfd *fds;      /* the monitor's own */
    struct wire_report *report;
    /* Tickets. */
    struct ticket *tickets;
    _Atomic uint64_t next_ticket;
    _Atomic uint32_t paused; /* tickets that wait for their next attempt */
};

/* group.c */
int group_add_service(struct shm *bus, const struct lathe_service *service, struct lathe_error *err);
int group_remove_service(struct shm *bus, const char *name, struct lathe_error *err);
int group_scale(struct shm *bus, const char *name, uint32_t workers, struct lathe_error *err);
/* health.c [any] */
int group_health(struct shm *bus, const char *name, struct lathe_service_health *health, struct lathe_error *err);

/* life.c */
/* A life for a slot, with its block of shared memory; NULL: no memory. Under lock. */
struct life *life_new(struct slot *slot, const void *recipe, uint64_t recipe_bytes, uint64_t *recipe_at);
/* It may be called; it may no longer. Under lock. */
void life_open(struct slot *slot, struct life *life);
void life_close(struct slot *slot, struct life *life);
/* Its calls that have no answer get its death for one; the life may be used again. Under lock. */
void life_end(struct slot *slot, struct life *life);
/* Callers that wait for a worker look again. */
void group_tell_came(struct group *group);

/* call.c */
int line_call(void *line, const void *in, void *out, struct lathe_error *err);
int line_call_local(void *line, const void *in, void *out, struct lathe_error *err);
/* One attempt, handed to a worker. Waits at most `patience_ns` for a worker to be up, and for room in its
 * ring. `batch`, if not NULL, holds what one call of it leaves to the next, NULL at first; nobody is woken
 * before host_batch_done. */
int host_hand_over(struct line *line, const void *in, void *out, uint32_t flags, int64_t patience_ns,
                   struct life **batch, struct flight *flight, struct lathe_error *err);
/* Rings for what was handed over in a batch, and leaves. */
void host_batch_done(struct life **batch);
/* 1 if it is answered within timeout_ns (< 0: never too late). */
int host_wait(struct line *line, const struct flight *flight, int64_t timeout_ns);
/* Its status, checked; the flight is over. */
int host_take_back(struct line *line, const struct flight *flight, void *out, struct envelope_attempt *attempt,
                   struct lathe_error *err);
uint32_t host_call_flags(const struct line *line);

/* ticket.c */
int ticket_post(struct shm *bus, const struct lathe_endpoint *endpoint, const void *in, void *out, uint64_t *number,
                struct lathe_error *err);
int ticket_wait(struct shm *bus, uint64_t number, int64_t timeout_ns, struct lathe_error *err);
int ticket_post_many(struct shm *bus, const struct lathe_endpoint *endpoint, const void *const *in, void *const *out,
                     uint64_t *numbers, uint32_t count, uint32_t *posted, struct lathe_error *err);
int ticket_wait_many(struct shm *bus, const uint64_t *numbers, int *statuses, uint32_t count,
                     struct lathe_error *err);
int ticket_poll(struct shm *bus, uint64_t *seen, int64_t timeout_ns);
/* A ring is full because of this ticket's cell: if it is answered, the answer is put into the ticket. */
void ticket_harvest(struct shm *bus, uint64_t number);
/* Every ticket of the service's endpoints gets its final status: the service goes. */
void ticket_settle_all(struct shm *bus, const struct member *member);

/* slot.c */
/* Does what there is to do. `back_ns`: heartbeats count from then at the earliest. [monitor, under lock] */
void slot_step(struct slot *slot, int64_t now_ns, int64_t back_ns);
/* When to ask again: milliseconds; −1: when something happened. */
int slot_patience(const struct slot *slot, int64_t now_ns);

/* monitor.c */
int monitor_start(struct shm *bus, struct lathe_error *err);
void monitor_stop(struct shm *bus);
void monitor_wake(struct shm *bus);

/* spawn.c */
/* Which program a worker is. */
int spawn_executable(char *path, size_t capacity, struct lathe_error *err);
/* Starts it and says hello. Sets pid, pidfd, socket. */
int spawn_worker(struct shm *bus, struct life *life, uint64_t recipe_at, uint64_t recipe_bytes,
                 struct lathe_error *err);
/* 1: it ended, and was reaped; `how` is "was killed by signal 9 (Killed)". */
int spawn_ended(struct life *life, char *how, size_t capacity);
void spawn_kill(const struct life *life);
void spawn_close(struct life *life);

/* thread.c */
int thread_start(struct slot *slot, struct lathe_error *err);
void thread_stop(struct slot *slot);

#endif
