/* SPDX-License-Identifier: MIT */
/* See tickets.h. A place is taken under the lock, its call runs outside of it, and then the
 * answer is made known under the lock again: so a wait never sees half an answer, and a poll
 * that begins before the count changes is woken by the change. */
#include "tickets.h"

#include <errno.h>
#include <string.h>
#include <time.h>

void tickets_open(struct tickets *tickets, const char *bus)
{
    pthread_condattr_t monotonic;
    memset(tickets, 0, sizeof *tickets);
    tickets->bus = bus;
    pthread_mutex_init(&tickets->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&tickets->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
}

void tickets_close(struct tickets *tickets)
{
    pthread_cond_destroy(&tickets->changed);
    pthread_mutex_destroy(&tickets->lock);
}

static struct ticket *take(struct tickets *tickets)
{
    struct ticket *t = NULL;
    pthread_mutex_lock(&tickets->lock);
    for (uint32_t i = 0; i < TICKETS && !t; i++) {
        struct ticket *candidate = &tickets->places[(tickets->next + i) % TICKETS];
        t = candidate->number ? NULL : candidate;
    }
    if (t) {
        t->number = ++tickets->next;
        t->done = 0;
    }
    pthread_mutex_unlock(&tickets->lock);
    return t;
}

int tickets_post(struct tickets *tickets, const struct lathe_endpoint *endpoint, const void *in, void *out,
                 uint64_t *ticket, struct lathe_error *err)
{
    struct ticket *t = take(tickets);
    if (!t)
        return lathe_fail(err, LATHE_EFULL, "bus %s: %d posted calls were not waited for; wait for one", tickets->bus,
                          TICKETS);
    uint64_t number = t->number;
    t->err.code = LATHE_OK;
    t->err.message[0] = '\0';
    t->status = endpoint->call(endpoint->self, in, out, &t->err);
    pthread_mutex_lock(&tickets->lock);
    t->done = 1;
    tickets->done++;
    pthread_cond_broadcast(&tickets->changed);
    pthread_mutex_unlock(&tickets->lock);
    *ticket = number;
    return LATHE_OK;
}

int tickets_post_many(struct tickets *tickets, const struct lathe_endpoint *endpoint, const void *const *in,
                      void *const *out, uint64_t *numbers, uint32_t count, uint32_t *posted, struct lathe_error *err)
{
    int status = LATHE_OK;
    for (*posted = 0; *posted < count; ++*posted) {
        status = tickets_post(tickets, endpoint, in[*posted], out[*posted], &numbers[*posted], err);
        if (status != LATHE_OK)
            break;
    }
    return *posted ? LATHE_OK : status;
}

/* 0: the time has passed. NULL: it never does. */
static int sleep_until(struct tickets *tickets, const struct timespec *until)
{
    if (!until)
        return pthread_cond_wait(&tickets->changed, &tickets->lock) == 0;
    return pthread_cond_timedwait(&tickets->changed, &tickets->lock, until) != ETIMEDOUT;
}

static const struct timespec *until_of(struct timespec *until, int64_t timeout_ns)
{
    if (timeout_ns < 0)
        return NULL;
    clock_gettime(CLOCK_MONOTONIC, until);
    until->tv_sec += (time_t)(timeout_ns / 1000000000);
    until->tv_nsec += (long)(timeout_ns % 1000000000);
    if (until->tv_nsec >= 1000000000)
        until->tv_sec++, until->tv_nsec -= 1000000000;
    return until;
}

int tickets_wait(struct tickets *tickets, uint64_t ticket, int64_t timeout_ns, struct lathe_error *err)
{
    struct ticket *t = NULL;
    int status;
    (void)timeout_ns; /* a ticket is known only when its call is done */
    pthread_mutex_lock(&tickets->lock);
    for (uint32_t i = 0; ticket && i < TICKETS && !t; i++)
        if (tickets->places[i].number == ticket && tickets->places[i].done)
            t = &tickets->places[i];
    if (!t) {
        pthread_mutex_unlock(&tickets->lock);
        return lathe_fail(err, LATHE_ENOTFOUND, "bus %s: there is no ticket %llu; each is spent by one wait",
                          tickets->bus, (unsigned long long)ticket);
    }
    t->number = 0;
    status = t->status;
    if (status != LATHE_OK && err)
        *err = t->err;
    pthread_mutex_unlock(&tickets->lock);
    return status;
}

int tickets_wait_many(struct tickets *tickets, const uint64_t *numbers, int *statuses, uint32_t count,
                      struct lathe_error *err)
{
    int first = LATHE_OK;
    for (uint32_t i = 0; i < count; i++) {
        statuses[i] = tickets_wait(tickets, numbers[i], -1, first == LATHE_OK ? err : NULL);
        first = first == LATHE_OK ? statuses[i] : first;
    }
    return first;
}

int tickets_poll(struct tickets *tickets, uint64_t *seen, int64_t timeout_ns)
{
    struct timespec space;
    const struct timespec *until = until_of(&space, timeout_ns);
    int status;
    pthread_mutex_lock(&tickets->lock);
    while (tickets->done == *seen && timeout_ns != 0)
        if (!sleep_until(tickets, until))
            break;
    status = tickets->done == *seen ? LATHE_EBUSY : LATHE_OK;
    *seen = tickets->done;
    pthread_mutex_unlock(&tickets->lock);
    return status;
}
