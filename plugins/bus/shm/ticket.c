/* SPDX-License-Identifier: MIT */
/* Posted calls. A ticket is held by one thread at a time: who makes it, or who waits for it.
 *
 *     HANDED ── answered ──▶ settled ─ final ──▶ FINAL ── waited for ──▶ free
 *        ▲                      └ again ─▶ PAUSED until attempt.retry_ns
 *        └──────── handed over again ────────┘
 *
 * A retry happens where somebody waits or asks (timeout 0): nothing of this runs by itself. While
 * a ticket is paused, poll returns every few milliseconds, so that whoever sleeps there asks. */
#include <sched.h>

#include "bus/futex.h"
#include "shm.h"

#define TICKET_HELD (UINT64_C(1) << 63)

enum { PAUSED_POLL_NS = 5000000, POLL_LOOKS = 32, RUN = 32 };

/* --- holding ---------------------------------------------------------------------------- */

/* A free ticket, held, and its number to be; NULL: there is none. */
static struct ticket *claim(struct shm *bus, uint64_t *number)
{
    uint64_t turn = atomic_fetch_add_explicit(&bus->next_ticket, 1, memory_order_relaxed);
    for (uint32_t i = 0; i < TICKETS; i++) {
        uint32_t index = (uint32_t)((turn + i) % TICKETS);
        uint64_t none = 0;
        if (atomic_load_explicit(&bus->tickets[index].number, memory_order_relaxed) == 0 &&
            atomic_compare_exchange_strong_explicit(&bus->tickets[index].number, &none, TICKET_HELD,
                                                    memory_order_acquire, memory_order_relaxed)) {
            *number = ((turn + 1) * TICKETS + index) & ~TICKET_HELD;
            return &bus->tickets[index];
        }
    }
    return NULL;
}

static struct ticket *try_hold(struct shm *bus, uint64_t number)
{
    struct ticket *t = &bus->tickets[number % TICKETS];
    if (number == 0 || number & TICKET_HELD ||
        !atomic_compare_exchange_strong_explicit(&t->number, &number, number | TICKET_HELD, memory_order_acquire,
                                                 memory_order_relaxed))
        return NULL;
    return t;
}

/* NULL: there is no such ticket. Another may hold it for a moment. */
static struct ticket *hold(struct shm *bus, uint64_t number)
{
    struct ticket *t;
    while ((t = try_hold(bus, number)) == NULL) {
        if (number == 0 || number & TICKET_HELD ||
            (atomic_load(&bus->tickets[number % TICKETS].number) & ~TICKET_HELD) != number)
            return NULL;
        sched_yield();
    }
    return t;
}

static void let_go(struct ticket *t, uint64_t number)
{
    atomic_store_explicit(&t->number, number, memory_order_release);
}

/* By whoever holds it. */
static void set_line(struct ticket *t, struct line *line)
{
    atomic_store_explicit(&t->line, line, memory_order_release);
}

/* --- its life ------------------------------------------------------------------------------ */

static void finish(struct shm *bus, struct ticket *t, int status)
{
    t->state = TICKET_FINAL;
    t->status = status;
    bell_ring(bus->wire);
}

/* An attempt failed or was answered. */
static void settle(struct shm *bus, struct ticket *t, int status)
{
    if (envelope_settle(&t->line->envelope, t->in, t->out, status, &t->attempt, &t->err)) {
        t->state = TICKET_PAUSED;
        t->status = status;
        atomic_fetch_add(&bus->paused, 1);
    } else {
        t->state = TICKET_FINAL;
        t->status = status;
    }
}

static void take_back(struct shm *bus, struct ticket *t)
{
    settle(bus, t, host_take_back(t->line, &t->flight, t->out, &t->attempt, &t->err));
}

/* The next attempt. A ring that is full leaves it paused. */
static void try_again(struct shm *bus, struct ticket *t)
{
    int status = envelope_admit(&t->line->envelope, t->in, &t->attempt, &t->err);
    if (status == LATHE_OK) {
        status = host_hand_over(t->line, t->in, t->out, host_call_flags(t->line) | WIRE_POSTED, 0, NULL, &t->flight,
                                &t->err);
        if (status == LATHE_EFULL) {
            envelope_withdraw(&t->line->envelope, &t->attempt);
            t->attempt.number--;
            sched_yield();
            return;
        }
        atomic_fetch_sub(&bus->paused, 1);
        if (status == LATHE_OK)
            t->state = TICKET_HANDED;
        else
            settle(bus, t, status);
    } else {
        atomic_fetch_sub(&bus->paused, 1);
        finish(bus, t, status);
    }
}

/* 1 when a paused ticket should be tried now: its pause is over, and a worker is up, or will not be. */
static int is_due(struct shm *bus, const struct ticket *t)
{
    const struct group *group = t->line->group;
    int64_t now_ns = bus->host->now_ns(bus->host->context);
    if (now_ns < t->attempt.retry_ns)
        return 0;
    return atomic_load(&group->up) || atomic_load(&group->hopeless) ||
           now_ns - t->attempt.retry_ns > bus->options.ready_ns ||
           (((const struct lathe_message *)t->in)->deadline_ns &&
            now_ns > ((const struct lathe_message *)t->in)->deadline_ns);
}

static int post(struct shm *bus, const struct lathe_endpoint *endpoint, const void *in, void *out, uint64_t *number,
                struct life **batch, struct lathe_error *err)
{
    uint64_t own;
    int status;
    struct line *line = endpoint->self;
    struct ticket *t = claim(bus, &own);
    if (!t)
        return lathe_fail(err, LATHE_EFULL, "bus shm: %d posted calls were not waited for; wait for one", TICKETS);
    set_line(t, line);
    t->flight.ticket = own;
    t->in = in;
    t->out = out;
    t->attempt = (struct envelope_attempt){ 0 };
    t->err.code = LATHE_OK;
    t->err.message[0] = '\0';
    if (!line->group) {
        status = line_call_local(line, in, out, &t->err);
        finish(bus, t, status);
    } else if ((status = envelope_admit(&line->envelope, in, &t->attempt, &t->err)) != LATHE_OK) {
        finish(bus, t, status);
    } else {
        status = host_hand_over(line, in, out, host_call_flags(line) | WIRE_POSTED, 0, batch, &t->flight, &t->err);
        if (status == LATHE_EFULL || status == LATHE_EINVAL) {
            envelope_withdraw(&line->envelope, &t->attempt);
            if (err)
                *err = t->err;
            set_line(t, NULL);
            let_go(t, 0);
            return status;
        }
        if (status == LATHE_OK) {
            t->state = TICKET_HANDED;
        } else {
            settle(bus, t, status);
            if (t->state == TICKET_FINAL)
                bell_ring(bus->wire);
        }
    }
    *number = own;
    let_go(t, own);
    return LATHE_OK;
}

int ticket_post(struct shm *bus, const struct lathe_endpoint *endpoint, const void *in, void *out, uint64_t *number,
                struct lathe_error *err)
{
    return post(bus, endpoint, in, out, number, NULL, err);
}

static int64_t left(int64_t timeout_ns, int64_t until_ns)
{
    int64_t now_ns;
    if (timeout_ns <= 0)
        return timeout_ns;
    now_ns = machine_ns();
    return now_ns < until_ns ? until_ns - now_ns : 0;
}

/* Sleeps towards the next attempt of a paused ticket, a little at a time: a worker may come up. */
static void sleep_a_little(struct shm *bus, const struct ticket *t, int64_t left_ns)
{
    const struct lathe_host *host = bus->host;
    int64_t now_ns = host->now_ns(host->context), end_ns = t->attempt.retry_ns;
    if (end_ns <= now_ns) {
        uint32_t came = atomic_load(&t->line->group->came);
        if (!is_due(bus, t))
            futex_wait(&t->line->group->came, came,
                       left_ns >= 0 && left_ns < PAUSED_POLL_NS ? left_ns : PAUSED_POLL_NS, 0);
        return;
    }
    if (left_ns >= 0 && end_ns - now_ns > left_ns)
        end_ns = now_ns + left_ns;
    host->wait_until(host->context, end_ns);
}

static int unknown(uint64_t number, struct lathe_error *err)
{
    return lathe_fail(err, LATHE_ENOTFOUND, "bus shm: there is no ticket %llu; each is spent by one wait",
                      (unsigned long long)number);
}

int ticket_wait(struct shm *bus, uint64_t number, int64_t timeout_ns, struct lathe_error *err)
{
    struct ticket *t = hold(bus, number);
    int64_t until_ns = 0, rest_ns;
    if (!t)
        return unknown(number, err);
    if (timeout_ns > 0 && __builtin_add_overflow(machine_ns(), timeout_ns, &until_ns))
        until_ns = INT64_MAX;
    while (t->state != TICKET_FINAL) {
        rest_ns = left(timeout_ns, until_ns);
        if (t->state == TICKET_HANDED && host_wait(t->line, &t->flight, rest_ns))
            take_back(bus, t);
        else if (t->state == TICKET_PAUSED && is_due(bus, t))
            try_again(bus, t);
        else if (rest_ns == 0) {
            let_go(t, number);
            return lathe_fail(err, LATHE_EBUSY, "bus shm: the call of ticket %llu is not done yet",
                              (unsigned long long)number);
        } else if (t->state == TICKET_PAUSED)
            sleep_a_little(bus, t, rest_ns);
    }
    int status = t->status;
    if (status != LATHE_OK && err)
        *err = t->err;
    set_line(t, NULL);
    let_go(t, 0);
    return status;
}

int ticket_post_many(struct shm *bus, const struct lathe_endpoint *endpoint, const void *const *in, void *const *out,
                     uint64_t *numbers, uint32_t count, uint32_t *posted, struct lathe_error *err)
{
    struct life *batch = NULL;
    int status = LATHE_OK;
    uint32_t n = 0;
    while (n < count && (status = post(bus, endpoint, in[n], out[n], &numbers[n], &batch, err)) == LATHE_OK) {
        if (n++ % RUN == 0 && batch) /* who sleeps shall begin while the rest is posted */
            callring_ring(batch->ring, 1);
    }
    host_batch_done(&batch);
    *posted = n;
    return n > 0 ? LATHE_OK : status;
}

/* Waits without taking anything back: whoever sleeps for the last of a run is woken once for all of it. */
static void await_run(struct shm *bus, uint64_t number)
{
    struct ticket *t = hold(bus, number);
    if (!t)
        return;
    if (t->state == TICKET_HANDED)
        host_wait(t->line, &t->flight, -1);
    let_go(t, number);
}

int ticket_wait_many(struct shm *bus, const uint64_t *numbers, int *statuses, uint32_t count, struct lathe_error *err)
{
    int status = LATHE_OK;
    for (uint32_t i = 0; i < count; i++) {
        if (i % RUN == 0 && count > 1)
            await_run(bus, numbers[count - i > RUN ? i + RUN - 1 : count - 1]);
        statuses[i] = ticket_wait(bus, numbers[i], -1, status == LATHE_OK ? err : NULL);
        if (status == LATHE_OK)
            status = statuses[i];
    }
    return status;
}

int ticket_poll(struct shm *bus, uint64_t *seen, int64_t timeout_ns)
{
    struct wire_bus *wire = bus->wire;
    int64_t begun_ns = machine_ns(), now_ns = begun_ns, end_ns;
    if (timeout_ns < 0 || __builtin_add_overflow(begun_ns, timeout_ns, &end_ns))
        end_ns = INT64_MAX;
    for (uint32_t looks = 1;; looks++) {
        uint32_t bell = atomic_load(&wire->bell);
        if (bell != (uint32_t)*seen) {
            *seen = bell;
            return LATHE_OK;
        }
        if (looks % POLL_LOOKS == 0 || timeout_ns == 0)
            now_ns = machine_ns();
        if (now_ns >= end_ns)
            return LATHE_EBUSY;
        if (now_ns - begun_ns < bus->options.spin_ns) {
            cpu_relax();
            continue;
        }
        int paused = atomic_load(&bus->paused) != 0;
        int64_t sleep_ns = end_ns == INT64_MAX ? -1 : end_ns - now_ns;
        if (paused && (sleep_ns < 0 || sleep_ns > PAUSED_POLL_NS))
            sleep_ns = PAUSED_POLL_NS;
        atomic_fetch_add(&wire->sleepers, 1); /* seq_cst, then futex_wait looks again: pairs with bell_ring */
        if (atomic_load(&wire->bell) == bell)
            futex_wait(&wire->bell, bell, sleep_ns, 1);
        atomic_fetch_sub(&wire->sleepers, 1);
        if (paused && atomic_load(&wire->bell) == bell)
            bell_ring(wire);
        looks = POLL_LOOKS - 1;
    }
}

void ticket_harvest(struct shm *bus, uint64_t number)
{
    struct ticket *t = try_hold(bus, number);
    if (!t)
        return;
    if (t->state == TICKET_HANDED && host_wait(t->line, &t->flight, 0))
        take_back(bus, t);
    let_go(t, number);
}

void ticket_settle_all(struct shm *bus, const struct member *member)
{
    for (uint32_t i = 0; i < TICKETS; i++) {
        struct ticket *t = &bus->tickets[i];
        uint64_t number;
        while ((number = atomic_load(&t->number)) != 0) {
            struct line *line = t->line;
            if (!line || line < member->lines || line >= member->lines + member->line_count)
                break;
            if (number & TICKET_HELD || !try_hold(bus, number)) { /* somebody waits for it, and will be done */
                sched_yield();
                continue;
            }
            if (t->state == TICKET_HANDED) {
                host_wait(line, &t->flight, -1);
                take_back(bus, t);
            }
            if (t->state == TICKET_PAUSED) { /* no more attempts */
                atomic_fetch_sub(&bus->paused, 1);
                finish(bus, t, t->status);
            }
            t->line = NULL;
            let_go(t, number);
            break;
        }
    }
}
