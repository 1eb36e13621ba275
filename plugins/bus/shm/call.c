/* SPDX-License-Identifier: MIT */
/* One attempt of a call: handed over, waited for, taken back. See shm.h for who may answer. */
#include <string.h>
#include <time.h>

#include "bus/futex.h"
#include "shm.h"

enum { FULL_PAUSE_NS = 100000, FULL_PASSES_NS = 100000000, CAME_PAUSE_NS = 100000000 };

/* The life is to end: it broke a promise. The first sentence counts; the monitor does the rest. */
static void condemn(struct life *life, const char *sentence)
{
    struct group *group = life->slot->group;
    uint32_t none = 0;
    if (group->processes && atomic_compare_exchange_strong(&life->condemned, &none, 1)) {
        snprintf(life->sentence, sizeof life->sentence, "%s", sentence);
        atomic_store(&life->condemned, 2);
        monitor_wake(group->bus);
    }
}

/* --- a worker that may be called ------------------------------------------------------ */

/* Of the open lives the one with the fewest calls, the caller counted in; NULL: none is open. */
static struct life *enter(struct group *group)
{
    for (;;) {
        struct life *best = NULL;
        uint32_t least = UINT32_MAX, reach = atomic_load_explicit(&group->reach, memory_order_acquire);
        for (uint32_t i = 0; i < reach; i++) {
            struct life *life = atomic_load_explicit(&group->slots[i].current, memory_order_acquire);
            uint32_t users = life ? atomic_load_explicit(&life->users, memory_order_relaxed) : UINT32_MAX;
            if (users < least)
                least = users, best = life;
        }
        if (!best)
            return NULL;
        atomic_fetch_add(&best->entering, 1);
        if (atomic_load(&best->state) == LIFE_OPEN)
            return best;
        atomic_fetch_sub(&best->entering, 1);
    }
}

static void leave(struct life *life)
{
    atomic_fetch_sub(&life->entering, 1);
}

/* The same for one call of a batch, which stays counted in while the service has one worker only. */
static struct life *enter_batch(struct group *group, struct life **batch)
{
    if (!batch)
        return enter(group);
    if (*batch && atomic_load_explicit(&group->reach, memory_order_acquire) == 1 &&
        atomic_load(&(*batch)->state) == LIFE_OPEN)
        return *batch;
    host_batch_done(batch);
    return *batch = enter(group);
}

static void leave_batch(struct life *life, struct life **batch)
{
    if (batch)
        host_batch_done(batch);
    else
        leave(life);
}

void host_batch_done(struct life **batch)
{
    if (*batch) {
        callring_ring((*batch)->ring, 1);
        leave(*batch);
        *batch = NULL;
    }
}

/* 1 if the caller may go on with this life: the method leans on nothing in its worker, or callers know
 * that this worker is another one than before. They are told once for each worker. */
static int knows(const struct line *line, const struct life *life)
{
    if (!(line->envelope.method_flags & LATHE_METHOD_STATEFUL))
        return 1;
    uint32_t generation = atomic_load(&life->slot->known);
    if (generation != life->generation)
        generation = atomic_exchange(&life->slot->known, life->generation);
    return generation == 0 || generation == life->generation;
}

/* Whoever hears this of a stateful method knows that what a worker had in memory is gone. */
static int nobody(const struct line *line, struct lathe_error *err)
{
    struct group *group = line->group;
    struct shm *bus = group->bus;
    char sentence[LATHE_ERROR_MESSAGE_BYTES];
    uint32_t lost = 0;
    for (uint32_t i = 0; i < GROUP_SLOTS && line->envelope.method_flags & LATHE_METHOD_STATEFUL; i++)
        lost |= atomic_exchange(&group->slots[i].known, 0);
    if (lost)
        return lathe_fail(err, LATHE_ELOST,
                          "no worker of service '%s' is up, and what it held is gone; one is being started",
                          group->service->what->name);
    if (!atomic_load(&group->hopeless))
        return lathe_fail(err, LATHE_EUNAVAILABLE, "no worker of service '%s' is up; one is being started, try again",
                          group->service->what->name);
    pthread_mutex_lock(&bus->lock);
    memcpy(sentence, group->given_up, sizeof sentence);
    pthread_mutex_unlock(&bus->lock);
    return lathe_fail(err, LATHE_EUNAVAILABLE, "%s", sentence);
}

static int too_late(const struct line *line, struct lathe_error *err)
{
    return lathe_fail(err, LATHE_EDEADLINE, "the deadline of %s passed before a worker could take it",
                      line->envelope.endpoint->name);
}

static void nap(int64_t ns)
{
    nanosleep(&(struct timespec){ .tv_nsec = (long)ns }, NULL);
}

/* callring_take for a ring that a worker may have written over: a cell that is ahead of the tail, while the
 * tail stands still, would be waited for without an end. */
static struct callring_cell *take(struct life *life, uint32_t *position)
{
    struct callring *ring = life->ring;
    uint32_t mask = life->slot->group->bus->options.queue - 1, tail, turn;
    do {
        tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);
        turn = atomic_load_explicit(&ring->cells[tail & mask].turn, memory_order_acquire);
        if ((int32_t)(turn - tail) <= 0 && ring->capacity == mask + 1)
            return callring_take(ring, position);
    } while (tail != atomic_load_explicit(&ring->tail, memory_order_relaxed));
    condemn(life, LIFE_SPOILT);
    return NULL;
}

/* The ring is full. The cell in its way may hold an answer that nobody has waited for yet: it is put into
 * its ticket. Or its caller is about to take it, but lost its processor, and others lapped it: 1, since
 * that passes. 0: there are as many calls as there are cells. */
static int make_room(struct shm *bus, struct life *life)
{
    uint32_t tail = atomic_load_explicit(&life->ring->tail, memory_order_relaxed);
    struct record *record = &life->records[tail & (bus->options.queue - 1)];
    if (atomic_load_explicit(&record->state, memory_order_acquire) != RECORD_WAITING)
        return 1; /* being taken back, or being handed over */
    uint64_t ticket = atomic_load_explicit(&record->ticket, memory_order_relaxed);
    if (!callring_answered(life->ring, atomic_load(&record->position)))
        return 0;
    if (ticket)
        ticket_harvest(bus, ticket);
    return 1;
}

/* A cell of a life that is open; the caller is counted in. patience_ns 0: at once or not at all, but for
 * what passes. While workers are up but full it has no limit but the deadline. */
static int take_cell(struct line *line, const struct lathe_message *in, int64_t patience_ns, struct life **batch,
                     struct flight *flight, struct callring_cell **cell, struct lathe_error *err)
{
    const struct lathe_host *host = line->group->bus->host;
    struct group *group = line->group;
    int64_t until_ns = 0, passes_ns = 0;
    for (;;) {
        int passes = 0;
        uint32_t came = atomic_load_explicit(&group->came, memory_order_acquire);
        struct life *life = flight->life = enter_batch(group, batch);
        if (life) {
            if (!knows(line, life)) {
                leave_batch(life, batch);
                return lathe_fail(err, LATHE_ELOST,
                                  "worker %u of service '%s' was replaced: its state is gone", life->slot->worker,
                                  group->service->what->name);
            }
            if ((*cell = take(life, &flight->position)) != NULL)
                return LATHE_OK;
            passes = make_room(group->bus, life);
            if ((*cell = take(life, &flight->position)) != NULL)
                return LATHE_OK;
            leave_batch(life, batch);
            if (passes && passes_ns == 0)
                passes_ns = machine_ns() + FULL_PASSES_NS;
            if (patience_ns == 0 && (!passes || machine_ns() > passes_ns))
                return lathe_fail(err, LATHE_EFULL,
                                  "the rings of service '%s' are full; wait for a call that was posted",
                                  group->service->what->name);
        } else if (patience_ns == 0 || atomic_load(&group->hopeless)) {
            return nobody(line, err);
        }
        int64_t now_ns = machine_ns();
        if (until_ns == 0)
            until_ns = now_ns + patience_ns;
        if (in->deadline_ns && host->now_ns(host->context) > in->deadline_ns)
            return too_late(line, err);
        if (life)
            nap(FULL_PAUSE_NS);
        else if (now_ns >= until_ns)
            return nobody(line, err);
        else /* short, for the deadline's sake */
            futex_wait(&group->came, came, until_ns - now_ns < CAME_PAUSE_NS ? until_ns - now_ns : CAME_PAUSE_NS, 0);
    }
}

/* --- handing over ---------------------------------------------------------------------- */

/* The message's place in the mapping; its room, as the bus remembers it. */
static int place_of(const struct line *line, const void *message, const char *what, uint64_t *offset, uint64_t *room,
                    struct lathe_error *err)
{
    struct shm *bus = line->group->bus;
    *offset = (uint64_t)((uintptr_t)message - (uintptr_t)bus->base);
    *room = pool_size(&bus->pool, *offset);
    if (*room == 0)
        return lathe_fail(err, LATHE_EINVAL,
                          "%s: its %s message was not loaned by this bus, so a worker can't see it",
                          line->envelope.endpoint->name, what);
    return LATHE_OK;
}

uint32_t host_call_flags(const struct line *line)
{
    return line->envelope.bus->observer.hop ? WIRE_STAMPED : 0;
}

int host_hand_over(struct line *line, const void *in, void *out, uint32_t flags, int64_t patience_ns,
                   struct life **batch, struct flight *flight, struct lathe_error *err)
{
    struct lathe_message *reply = out;
    struct callring_cell *cell;
    uint64_t in_at, out_at, room, in_room;
    int status;
    if ((status = place_of(line, in, "input", &in_at, &in_room, err)) != LATHE_OK ||
        (status = place_of(line, out, "output", &out_at, &room, err)) != LATHE_OK ||
        (status = take_cell(line, in, patience_ns, batch, flight, &cell, err)) != LATHE_OK)
        return status;
    struct life *life = flight->life;
    struct record *record = &life->records[flight->position & (line->group->bus->options.queue - 1)];
    if (reply->capacity > room)
        reply->capacity = room;
    flight->capacity = reply->capacity;
    atomic_fetch_add(&life->users, 1);
    record->position = flight->position;
    atomic_store_explicit(&record->ticket, flight->ticket, memory_order_relaxed);
    atomic_store_explicit(&record->state, RECORD_WAITING, memory_order_release);
    /* In one go: a worker that polls the cell would take the line away between its words and its turn. */
    cell->words[WORD_METHOD] = line->number | (uint64_t)flags << 32;
    cell->words[WORD_IN] = in_at;
    cell->words[WORD_OUT] = out_at;
    callring_fill(life->ring, flight->position, batch != NULL);
    if (!batch)
        leave(life);
    return LATHE_OK;
}

/* --- taking back ------------------------------------------------------------------------- */

/* The only word of a ring's head that the host steers by. */
static void keep_capacity(const struct line *line, struct life *life)
{
    uint32_t capacity = line->group->bus->options.queue;
    if (life->ring->capacity != capacity) {
        life->ring->capacity = capacity;
        condemn(life, LIFE_SPOILT);
    }
}

int host_wait(struct line *line, const struct flight *flight, int64_t timeout_ns)
{
    keep_capacity(line, flight->life);
    return callring_wait(flight->life->ring, flight->position, line->group->bus->options.spin_ns, timeout_ns);
}

static int forged(const struct line *line, struct life *life, const char *what, struct lathe_error *err)
{
    condemn(life, what);
    return lathe_fail(err, LATHE_EINTERNAL, "worker %u of service '%s' gave an answer to %s that can't be: %s",
                      life->slot->worker, line->group->service->what->name, line->envelope.endpoint->name, what);
}

/* What the worker wrote, held against what can be. `words` are a copy, so that they don't change meanwhile. */
static int check_answer(const struct line *line, struct life *life, const struct flight *flight,
                        const uint64_t *words, struct lathe_message *out, struct lathe_error *err)
{
    int64_t status = (int64_t)words[WORD_STATUS];
    uint64_t bytes = out->bytes;
    out->capacity = flight->capacity;
    if (status > 0 || status < INT32_MIN)
        return forged(line, life, "its status is no status", err);
    if (status == LATHE_OK) {
        if (bytes > flight->capacity)
            return forged(line, life, "it says that it used more bytes than there are", err);
        return LATHE_OK;
    }
    if (bytes > flight->capacity)
        out->bytes = 0;
    struct lathe_error said = life->errors[flight->position & (line->group->bus->options.queue - 1)];
    said.code = (int32_t)status;
    said.message[sizeof said.message - 1] = '\0';
    if (!said.message[0])
        lathe_error_set(&said, (int)status, "%s failed with status %d and gave no reason",
                        line->envelope.endpoint->name, (int)status);
    if (err)
        *err = said;
    return (int)status;
}

/* When the worker began and ended, if it can be true. */
static void take_times(const struct line *line, const uint64_t *words, struct envelope_attempt *attempt)
{
    const struct lathe_host *host = line->group->bus->host;
    int64_t started_ns = (int64_t)words[WORD_STARTED], ended_ns = (int64_t)words[WORD_ENDED];
    if (!attempt->sent_ns || started_ns < attempt->sent_ns || ended_ns < started_ns ||
        ended_ns > host->now_ns(host->context))
        return;
    attempt->started_ns = started_ns;
    attempt->ended_ns = ended_ns;
}

int host_take_back(struct line *line, const struct flight *flight, void *out, struct envelope_attempt *attempt,
                   struct lathe_error *err)
{
    struct life *life = flight->life;
    struct record *record = &life->records[flight->position & (line->group->bus->options.queue - 1)];
    uint32_t waiting = RECORD_WAITING;
    int status;
    keep_capacity(line, life);
    attempt->worker = life->slot->worker;
    if (atomic_compare_exchange_strong(&record->state, &waiting, RECORD_DONE)) {
        uint64_t words[CALLRING_WORDS];
        memcpy(words, callring_cell(life->ring, flight->position)->words, sizeof words);
        status = check_answer(line, life, flight, words, out, err);
        take_times(line, words, attempt);
        if (!atomic_load_explicit(&life->served, memory_order_relaxed) && status != LATHE_EINTERNAL)
            atomic_store_explicit(&life->served, 1, memory_order_relaxed);
    } else {
        struct lathe_message *reply = out;
        reply->capacity = flight->capacity;
        reply->bytes = 0;
        status = LATHE_EUNAVAILABLE;
        if (line->envelope.method_flags & LATHE_METHOD_STATEFUL) { /* the caller knows now, so its next call may go */
            status = LATHE_ELOST;
            uint32_t generation = life->generation;
            atomic_compare_exchange_strong(&life->slot->known, &generation, 0);
        }
        lathe_error_set(err, status, "%s", life->death);
    }
    atomic_store_explicit(&record->state, RECORD_FREE, memory_order_relaxed);
    callring_collect(life->ring, flight->position);
    atomic_fetch_sub(&life->users, 1);
    return status;
}

/* --- a whole call --------------------------------------------------------------------------- */

static int attempts(struct line *line, const void *in, void *out, struct lathe_error *err)
{
    struct shm *bus = line->group->bus;
    struct envelope_attempt attempt = { 0 };
    for (;;) {
        struct flight flight = { .ticket = 0 };
        int status = envelope_admit(&line->envelope, in, &attempt, err);
        if (status != LATHE_OK)
            return status;
        status = host_hand_over(line, in, out, host_call_flags(line), bus->options.ready_ns, NULL, &flight, err);
        if (status == LATHE_EINVAL) { /* the caller's mistake: nobody was asked */
            envelope_withdraw(&line->envelope, &attempt);
            return status;
        }
        if (status == LATHE_OK) {
            host_wait(line, &flight, -1);
            status = host_take_back(line, &flight, out, &attempt, err);
        }
        if (!envelope_settle(&line->envelope, in, out, status, &attempt, err))
            return status;
        bus->host->wait_until(bus->host->context, attempt.retry_ns);
    }
}

int line_call(void *self, const void *in, void *out, struct lathe_error *err)
{
    struct line *line = self;
    atomic_fetch_add_explicit(&line->active, 1, memory_order_relaxed);
    int status = attempts(line, in, out, err);
    atomic_fetch_sub_explicit(&line->active, 1, memory_order_release);
    return status;
}

int line_call_local(void *self, const void *in, void *out, struct lathe_error *err)
{
    struct line *line = self;
    return envelope_call(&line->envelope, line->method->function, line->method->self, in, out, err);
}
