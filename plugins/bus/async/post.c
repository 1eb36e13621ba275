/* SPDX-License-Identifier: MIT */
/* Calls in two halves: post, wait, retries in between, poll.
 *
 * The cell of a posted call is kept until its ticket, which names it, is spent. A retry takes
 * another cell for the attempt; one that finds the ring full is not made, since nobody else
 * would make room while the only waiter waits here. */
#include "async.h"

#include <limits.h>

#include <bus/futex.h>

enum { COLLECT_AHEAD = 4 };

/* --- post ------------------------------------------------------------------------------ */

static struct posted *record_of(const struct pool *pool, uint32_t position)
{
    return &pool->posted[position & (pool->ring->capacity - 1)];
}

static struct lathe_error *error_of(const struct pool *pool, uint32_t position)
{
    return &pool->errors[position & (pool->ring->capacity - 1)];
}

/* Fills the record and cell of an admitted call; refused: its status, and nobody works on it. */
static uint64_t enter(struct line *line, uint32_t position, const struct lathe_message *in, struct lathe_message *out,
                      int refused)
{
    struct pool *pool = line->pool;
    struct posted *r = record_of(pool, position);
    const uint64_t ticket = pool->ticket_base | position;

    r->position = position;
    r->in = in;
    r->out = out;
    r->status = refused;
    r->state = refused ? POSTED_FINAL : POSTED_QUEUED;
    atomic_store_explicit(&r->line, line, memory_order_release);
    async_write_cell(callring_cell(pool->ring, position), refused ? NULL : line, in, out, error_of(pool, position),
                     true);
    atomic_store_explicit(&r->ticket, ticket, memory_order_release);
    return ticket;
}

static int full(const struct line *line, struct lathe_error *err)
{
    return lathe_fail(err, LATHE_EFULL, "bus async: %u calls of '%s' are under way or were not waited for; wait for "
                      "one, or make option queue larger", line->pool->ring->capacity, line->pool->name);
}

/* A call of a local service is done when it is posted; its ticket keeps the answer. */
static int post_local(struct line *line, const void *in, void *out, uint64_t *ticket, struct lathe_error *err)
{
    struct pool *pool = line->pool;
    uint32_t position;
    int status;
    if (!callring_take(pool->ring, &position))
        return full(line, err);
    status = envelope_call(&line->envelope, line->function, line->self, in, out, error_of(pool, position));
    *ticket = enter(line, position, in, out, status);
    record_of(pool, position)->state = POSTED_FINAL;
    callring_answer(pool->ring, position);
    pool_count(pool->bus, pool->slot);
    return LATHE_OK;
}

int async_post(void *self, const struct lathe_endpoint *endpoint, const void *in, void *out, uint64_t *ticket,
               struct lathe_error *err)
{
    struct line *line = endpoint->self;
    struct envelope_attempt attempt = { 0 };
    uint32_t position;
    int status;

    (void)self;
    if (line->local)
        return post_local(line, in, out, ticket, err);
    if ((status = envelope_admit(&line->envelope, in, &attempt, err)) != LATHE_OK)
        return status;
    if (!callring_take(line->pool->ring, &position)) {
        envelope_withdraw(&line->envelope, &attempt);
        return full(line, err);
    }
    record_of(line->pool, position)->attempt = attempt;
    *ticket = enter(line, position, in, out, LATHE_OK);
    callring_fill(line->pool->ring, position, 0);
    return LATHE_OK;
}

int async_post_many(void *self, const struct lathe_endpoint *endpoint, const void *const *in, void *const *out,
                    uint64_t *tickets, uint32_t count, uint32_t *posted, struct lathe_error *err)
{
    struct line *line = endpoint->self;
    struct pool *pool = line->pool;
    uint32_t first, n = 0;

    (void)self;
    *posted = 0;
    if (line->local) {
        while (*posted < count && post_local(line, in[*posted], out[*posted], &tickets[*posted], err) == LATHE_OK)
            ++*posted;
        return *posted || !count ? LATHE_OK : LATHE_EFULL;
    }
    if (count && !(n = callring_take_many(pool->ring, count, &first)))
        return full(line, err);
    for (uint32_t i = 0; i < n; i++) { /* one that is refused has its cell by now: wait says its status */
        struct posted *r = record_of(pool, first + i);
        r->attempt = (struct envelope_attempt){ 0 };
        tickets[i] = enter(line, first + i, in[i], out[i],
                           envelope_admit(&line->envelope, in[i], &r->attempt, error_of(pool, first + i)));
        callring_fill(pool->ring, first + i, 1);
    }
    if (n)
        callring_ring(pool->ring, n);
    *posted = n;
    return LATHE_OK;
}

/* --- wait ------------------------------------------------------------------------------ */

static struct posted *find(struct async *bus, uint64_t ticket, struct pool **pool)
{
    const uint64_t slot = ticket >> 48;
    struct posted *r;
    if (slot >= MAX_POOLS || !(*pool = atomic_load_explicit(&bus->pools[slot], memory_order_acquire)) ||
        (*pool)->ticket_base >> 32 != ticket >> 32)
        return NULL;
    r = record_of(*pool, (uint32_t)ticket);
    return atomic_load_explicit(&r->ticket, memory_order_acquire) == ticket ? r : NULL;
}

/* The pause before a retry: 0 when it is over, LATHE_EBUSY when the timeout is first. */
static int pause_for(struct async *bus, const struct posted *r, int64_t left_ns)
{
    const struct lathe_host *host = bus->host;
    const int64_t now_ns = async_host_now(bus), retry_ns = r->attempt.retry_ns;
    if (left_ns >= 0 && retry_ns - now_ns > left_ns) {
        int64_t first = atomic_load(&bus->retry_ns);
        while ((first == 0 || retry_ns < first) && !atomic_compare_exchange_weak(&bus->retry_ns, &first, retry_ns))
            ;
        if (left_ns > 0)
            host->wait_until(host->context, now_ns + left_ns);
        return LATHE_EBUSY;
    }
    if (retry_ns > now_ns)
        host->wait_until(host->context, retry_ns);
    return LATHE_OK;
}

/* One more attempt, in a cell of its own. */
static void post_again(struct pool *pool, struct posted *r, uint32_t first)
{
    struct line *line = atomic_load_explicit(&r->line, memory_order_relaxed);
    struct lathe_error *err = error_of(pool, first);
    uint32_t position;
    struct callring_cell *cell;
    int refused = envelope_admit(&line->envelope, r->in, &r->attempt, err);

    r->state = POSTED_FINAL;
    if (refused) {
        r->status = refused;
    } else if (!(cell = callring_take(pool->ring, &position))) {
        envelope_withdraw(&line->envelope, &r->attempt); /* the last attempt's status is final */
    } else {
        r->state = POSTED_QUEUED;
        r->position = position;
        atomic_store_explicit(&record_of(pool, position)->ticket, TICKET_RETRY, memory_order_release);
        async_write_cell(cell, line, r->in, r->out, err, true);
        callring_fill(pool->ring, position, 0);
    }
}

int async_wait(void *self, uint64_t ticket, int64_t timeout_ns, struct lathe_error *err)
{
    struct async *bus = self;
    const uint32_t first = (uint32_t)ticket;
    const int64_t end_ns = async_end_of(timeout_ns);
    struct pool *pool;
    struct posted *r = find(bus, ticket, &pool);
    struct line *line;
    int status;

    if (!r)
        return lathe_fail(err, LATHE_ENOTFOUND, "bus async: there is no ticket %llu; each is spent by one wait",
                          (unsigned long long)ticket);
    atomic_store_explicit(&r->waiting, 1, memory_order_relaxed);
    line = atomic_load_explicit(&r->line, memory_order_relaxed);
    while (r->state != POSTED_FINAL) {
        if (r->state == POSTED_PAUSING) {
            if (pause_for(bus, r, async_left_of(timeout_ns, end_ns)) != LATHE_OK)
                goto not_yet;
            post_again(pool, r, first);
        } else {
            if (!async_await(line, r->position, async_left_of(timeout_ns, end_ns)))
                goto not_yet;
            r->status = async_read_cell(callring_cell(pool->ring, r->position), &r->attempt);
            r->state = envelope_settle(&line->envelope, r->in, r->out, r->status, &r->attempt,
                                       error_of(pool, first)) ? POSTED_PAUSING : POSTED_FINAL;
            if (r->position != first)
                pool_collect_retry(pool, r->position);
            r->position = first;
        }
    }
    if (!callring_answered(pool->ring, first) && !async_await(line, first, async_left_of(timeout_ns, end_ns)))
        goto not_yet; /* refused in a batch, and its cell is still on its way through the queue */
    status = r->status;
    if (status != LATHE_OK)
        *err = *error_of(pool, first);
    atomic_store_explicit(&r->ticket, 0, memory_order_release);
    atomic_store_explicit(&r->waiting, 0, memory_order_release);
    async_collect(bus, pool, first); /* the last touch of what remove_service gives back */
    return status;

not_yet:
    atomic_store_explicit(&r->waiting, 0, memory_order_release);
    return lathe_fail(err, LATHE_EBUSY, "bus async: the call of ticket %llu is not done; wait again, or longer",
                      (unsigned long long)ticket);
}

int async_wait_many(void *self, const uint64_t *tickets, int *statuses, uint32_t count, struct lathe_error *err)
{
    struct async *bus = self;
    struct lathe_error own;
    int first = LATHE_OK;
    for (uint32_t i = 0; i < count; i++) {
        if (i + COLLECT_AHEAD < count) {
            struct pool *pool;
            struct posted *r = find(bus, tickets[i + COLLECT_AHEAD], &pool);
            if (r)
                __builtin_prefetch(callring_cell(pool->ring, (uint32_t)tickets[i + COLLECT_AHEAD]));
        }
        statuses[i] = async_wait(self, tickets[i], -1, first == LATHE_OK ? err : &own);
        if (first == LATHE_OK)
            first = statuses[i];
    }
    return first;
}

/* --- poll ------------------------------------------------------------------------------ */

static uint64_t count_done(struct async *bus)
{
    uint64_t n = 0;
    for (uint32_t i = 0; i < STRIPES; i++)
        n += atomic_load(&bus->done[i].n);
    return n;
}

int async_poll(void *self, uint64_t *seen, int64_t timeout_ns)
{
    struct async *bus = self;
    const int64_t end_ns = async_end_of(timeout_ns);
    for (;;) {
        const uint32_t bell = atomic_load(&bus->bell);
        int64_t left_ns = async_left_of(timeout_ns, end_ns), retry_ns, pause_ns = INT64_MAX;
        uint64_t n;
        if (left_ns != 0)
            atomic_store(&bus->poll_wanted, 1); /* then look: whoever counts later sees it */
        if ((retry_ns = atomic_load(&bus->retry_ns)) != 0) { /* there is a retry to make in wait: return in time */
            pause_ns = retry_ns - async_host_now(bus);
            if (pause_ns <= 0 && atomic_exchange(&bus->retry_ns, 0))
                pool_count(bus, 0);
        }
        if ((n = count_done(bus)) != *seen) {
            *seen = n;
            return LATHE_OK;
        }
        if (left_ns == 0)
            return LATHE_EBUSY;
        if (pause_ns <= 0)
            continue;
        if (left_ns >= 0 && left_ns < pause_ns)
            pause_ns = left_ns, retry_ns = 0;
        futex_wait(&bus->bell, bell, pause_ns, 0);
        if (retry_ns && atomic_load(&bus->bell) == bell) /* slept until the retry, unless the clock is another one */
            bus->host->wait_until(bus->host->context, retry_ns);
    }
}
