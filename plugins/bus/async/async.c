/* SPDX-License-Identifier: MIT */
/* The asynchronous bus: queues, and threads that work on them.
 *
 *     caller ─ admit ─▶ ring of calls (bus/callring.h) ─▶ worker: function(self, in, out)
 *        ▲                 one for each service that                   │
 *        └─ settle ◀────── has workers of its own ◀── status, times ──┘
 *
 * A service `with` another uses that one's ring and workers; one that is LATHE_SERVICE_LOCAL
 * is called on the caller's thread, in the envelope. Messages stay where they are: a call
 * costs one cache line there and one back. What is in which file:
 *
 *     async.c   the table: services, endpoints, workers wished for, health
 *     pool.c    a ring and its threads
 *     call.c    the caller's side, calls that wait
 *     post.c    calls in two halves
 *
 * Waiting, on either side, spins for spin_us and then sleeps on a futex; whoever spins in vain
 * spins less (spin_for in async.h). On a machine that needs 100 µs to wake an idle thread, a spin
 * shorter than that may never get out of sleeping: each side is asleep whenever the other comes.
 * Hence the default, about what waking costs: at worst that is paid twice.
 *
 * Tickets are (slot of the ring, its generation, position): 16, 16 and 32 bits. One thread at
 * a time waits for a ticket. A queue that is full refuses posts (LATHE_EFULL) and makes calls
 * wait, within their deadline. A ticket holds its place until it is spent: who holds tickets of
 * a service and waits for another that itself calls that service needs a queue with room for
 * both. Work whose deadline passed in the queue is not begun. */
#include "async.h"

#include <string.h>

enum { OPTION_QUEUE = ENVELOPE_OPTION_COUNT, OPTION_SPIN, OPTION_COUNT };

static const struct lathe_option options[] = {
    ENVELOPE_OPTIONS,
    { "queue", LATHE_OPTION_INTEGER, "1024", CALLRING_MIN, CALLRING_MAX, "calls", NULL,
      "calls that a service may hold, rounded up to a power of two" },
    { "spin_us", LATHE_OPTION_NUMBER, "100", 0, 1000000, "us", NULL,
      "how long a thread that waits looks on before it sleeps; 0: not at all" },
};

static int create(const struct lathe_host *host, const struct lathe_config *config, void **self,
                  struct lathe_error *err)
{
    struct async *bus = host->alloc(host->context, sizeof *bus, 64);
    int status;

    if (!bus)
        return lathe_fail(err, LATHE_ENOMEM, "bus async: no memory for %zu bytes", sizeof *bus);
    if ((status = envelope_policy_read(&bus->envelope.policy, config, 0, err)) != LATHE_OK) {
        lathe_free(host, bus);
        return status;
    }
    bus->host = host;
    bus->envelope.host = host;
    ticks_open(&bus->envelope.ticks);
    bus->directory = (struct directory){ .host = host, .bus = "async" };
    bus->queue = (uint32_t)config->values[OPTION_QUEUE].integer;
    bus->spin_ns = (int64_t)(config->values[OPTION_SPIN].number * 1000);
    pthread_mutex_init(&bus->lock, NULL);
    *self = bus;
    return LATHE_OK;
}

/* --- services --------------------------------------------------------------------------- */

static bool has_own_pool(const struct lathe_service *service)
{
    return !service->with || service->flags & LATHE_SERVICE_LOCAL;
}

/* May `workers` threads serve a service of this concurrency? */
static int check_workers(const struct lathe_service *service, const struct pool *with, uint32_t workers,
                         struct lathe_error *err)
{
    if (workers > MAX_WORKERS)
        return lathe_fail(err, LATHE_EINVAL, "bus async: service '%s' asks for %u workers; at most %d are possible",
                          service->name, workers, MAX_WORKERS);
    if (workers > 1 && service->concurrency == LATHE_SERIAL && !(service->flags & LATHE_SERVICE_LOCAL))
        return lathe_fail(err, LATHE_EINVAL, "bus async: service '%s' takes one call at a time, so it can't have %u "
                          "workers%s%s; ask for one", service->name, workers, with ? ", those of " : "",
                          with ? with->name : "");
    return LATHE_OK;
}

static void free_desk(struct async *bus, struct desk *desk)
{
    if (desk) {
        if (desk->own_pool && desk->pool)
            pool_close(desk->pool);
        envelope_service_close(&desk->envelope);
        lathe_free(bus->host, desk->lines);
        lathe_free(bus->host, desk);
    }
}

/* Everything of a service but its threads. */
static struct desk *make_desk(struct async *bus, struct directory_service *s, struct lathe_error *err)
{
    const struct lathe_host *host = bus->host;
    const struct lathe_service *what = s->what;
    const struct desk *with = has_own_pool(what) ? NULL : s->with->more;
    struct desk *desk = host->alloc(host->context, sizeof *desk, 64);
    struct line *lines = host->alloc(host->context, what->method_count * sizeof *lines, 64);

    if (!desk || !lines) {
        lathe_free(host, desk);
        lathe_free(host, lines);
        lathe_fail(err, LATHE_ENOMEM, "bus async: no memory for the endpoints of service '%s'", what->name);
        return NULL;
    }
    envelope_service_open(&desk->envelope, &bus->envelope.policy);
    desk->lines = lines;
    desk->own_pool = !with;
    desk->pool = with ? with->pool : pool_open(bus, what, err);
    if (!desk->pool) {
        free_desk(bus, desk);
        return NULL;
    }
    for (uint32_t i = 0; i < what->method_count; i++) {
        struct line *line = &lines[i];
        line->envelope.bus = &bus->envelope;
        line->envelope.service = &desk->envelope;
        line->envelope.endpoint = &s->endpoints[i];
        line->envelope.method_flags = what->methods[i].flags;
        line->function = what->methods[i].function;
        line->self = what->methods[i].self;
        line->pool = desk->pool;
        line->local = what->flags & LATHE_SERVICE_LOCAL || (with && with->lines[0].local);
        s->endpoints[i].call = async_call;
        s->endpoints[i].self = line;
    }
    return desk;
}

static void forget(struct async *bus, const char *name)
{
    struct directory_service *s;
    struct lathe_error err;
    int found;
    pthread_mutex_lock(&bus->lock);
    found = directory_remove(&bus->directory, name, &s, &err) == LATHE_OK;
    pthread_mutex_unlock(&bus->lock);
    if (found) {
        free_desk(bus, s->more);
        directory_free(&bus->directory, s);
    }
}

static int add_service(void *self, const struct lathe_service *service, struct lathe_error *err)
{
    struct async *bus = self;
    struct directory_service *s;
    struct desk *desk;
    const uint32_t workers = service->workers ? service->workers : 1;
    int status;

    LATHE_ASSERT_THREAD(bus->host, LATHE_THREAD_MAIN);
    pthread_mutex_lock(&bus->lock);
    status = directory_add(&bus->directory, service, &s, err);
    pthread_mutex_unlock(&bus->lock);
    if (status != LATHE_OK)
        return status;
    if (has_own_pool(service)) {
        status = check_workers(service, NULL, workers, err);
    } else {
        const struct pool *pool = ((struct desk *)s->with->more)->pool;
        status = check_workers(service, pool, atomic_load(&pool->wanted), err);
    }
    if (status == LATHE_OK && !(desk = make_desk(bus, s, err)))
        status = err->code;
    if (status != LATHE_OK) {
        forget(bus, service->name);
        return status;
    }
    if (!desk->lines[0].local && desk->own_pool)
        status = pool_scale(desk->pool, workers, STOP_NOW, err);
    else if (desk->own_pool)
        atomic_store(&desk->pool->wanted, workers);
    if (status == LATHE_OK && service->concurrency == LATHE_SERIAL && !desk->lines[0].local)
        desk->pool->serial++;
    pthread_mutex_lock(&bus->lock);
    s->more = desk;
    pthread_mutex_unlock(&bus->lock);
    if (status != LATHE_OK)
        forget(bus, service->name);
    return status;
}

static int remove_service(void *self, const char *name, struct lathe_error *err)
{
    struct async *bus = self;
    struct directory_service *s;
    struct desk *desk;
    int status;

    LATHE_ASSERT_THREAD(bus->host, LATHE_THREAD_MAIN);
    pthread_mutex_lock(&bus->lock);
    status = directory_remove(&bus->directory, name, &s, err);
    pthread_mutex_unlock(&bus->lock);
    if (status != LATHE_OK)
        return status;
    desk = s->more;
    if (s->what->concurrency == LATHE_SERIAL && !desk->lines[0].local)
        desk->pool->serial--;
    if (desk->own_pool && !desk->lines[0].local)
        pool_scale(desk->pool, 0, STOP_WHEN_EMPTY, err);
    pool_settle(desk->pool, desk->own_pool ? NULL : desk, s->what->method_count);
    free_desk(bus, desk);
    directory_free(&bus->directory, s);
    return LATHE_OK;
}

static void destroy(void *self)
{
    struct async *bus = self;
    if (!bus)
        return;
    while (bus->directory.services) { /* the last first: it may go with one before it */
        struct directory_service *s = bus->directory.services;
        struct lathe_error err;
        while (s->next)
            s = s->next;
        remove_service(bus, s->what->name, &err);
    }
    pthread_mutex_destroy(&bus->lock);
    lathe_free(bus->host, bus);
}

static int resolve(void *self, const char *name, const struct lathe_endpoint **endpoint, struct lathe_error *err)
{
    return directory_resolve(&((struct async *)self)->directory, name, endpoint, err);
}

static int scale(void *self, const char *name, uint32_t workers, struct lathe_error *err)
{
    struct async *bus = self;
    struct directory_service *s;
    struct desk *desk;
    int status = directory_find(&bus->directory, name, &s, err);

    LATHE_ASSERT_THREAD(bus->host, LATHE_THREAD_MAIN);
    if (status != LATHE_OK)
        return status;
    desk = s->more;
    if (workers == 0)
        return lathe_fail(err, LATHE_EINVAL, "bus async: service '%s' needs at least one worker; remove it instead",
                          name);
    if (!desk->own_pool)
        return lathe_fail(err, LATHE_EINVAL, "bus async: service '%s' has no workers of its own; scale '%s'", name,
                          desk->pool->name);
    if ((status = check_workers(s->what, NULL, workers, err)) != LATHE_OK)
        return status;
    if (workers > 1 && desk->pool->serial)
        return lathe_fail(err, LATHE_EINVAL, "bus async: the workers of '%s' also serve one that takes one call at a "
                          "time, so there can't be %u of them", name, workers);
    if (!desk->lines[0].local)
        return pool_scale(desk->pool, workers, STOP_NOW, err);
    atomic_store(&desk->pool->wanted, workers);
    return LATHE_OK;
}

static int health(void *self, const char *name, struct lathe_service_health *health, struct lathe_error *err)
{
    struct async *bus = self;
    const uint32_t size = health->size;
    struct lathe_service_health h = { .size = sizeof h };
    struct directory_service *s;
    int status;

    pthread_mutex_lock(&bus->lock);
    status = directory_find(&bus->directory, name, &s, err);
    if (status == LATHE_OK && s->more) {
        struct desk *desk = s->more;
        const bool local = desk->lines[0].local;
        envelope_health(&desk->envelope, &h);
        h.workers = local ? 0 : atomic_load(&desk->pool->running);
        h.workers_wanted = atomic_load(&desk->pool->wanted);
        h.queued = callring_depth(desk->pool->ring);
        h.alive = local || h.workers == h.workers_wanted;
        h.ready = (local || h.workers > 0) && h.breaker != LATHE_BREAKER_OPEN;
    }
    pthread_mutex_unlock(&bus->lock);
    if (status == LATHE_OK) {
        memcpy(health, &h, size < sizeof h ? size : sizeof h);
        health->size = size;
    }
    return status;
}

/* --- the rest ------------------------------------------------------------------------------ */

static struct lathe_message *loan(void *self, size_t bytes, struct lathe_error *err)
{
    return heap_loan(((struct async *)self)->host, "async", bytes, err);
}

static void give_back(void *self, struct lathe_message *message)
{
    lathe_free(((struct async *)self)->host, message);
}

static void stats(void *self, const struct lathe_endpoint *endpoint, struct lathe_endpoint_stats *s)
{
    (void)self;
    envelope_stats(&((struct line *)endpoint->self)->envelope, s);
}

static void observe(void *self, const struct lathe_bus_observer *observer)
{
    struct async *bus = self;
    bus->envelope.observer = observer ? *observer : (struct lathe_bus_observer){ 0 };
}

static const struct lathe_bus_api api = {
    .size = sizeof api,
    .abi = LATHE_BUS_ABI,
    .create = create,
    .destroy = destroy,
    .add_service = add_service,
    .remove_service = remove_service,
    .resolve = resolve,
    .loan = loan,
    .give_back = give_back,
    .post = async_post,
    .wait = async_wait,
    .stats = stats,
    .post_many = async_post_many,
    .wait_many = async_wait_many,
    .poll = async_poll,
    .scale = scale,
    .health = health,
    .observe = observe,
};

extern const struct lathe_plugin lathe_plugin;
LATHE_EXPORT const struct lathe_plugin lathe_plugin = {
    .size = sizeof lathe_plugin,
    .abi = LATHE_PLUGIN_ABI,
    .kind = LATHE_KIND_BUS,
    .concurrency = LATHE_PARALLEL,
    .name = "async",
    .version = "1.0.0",
    .summary = "queues and worker threads: calls go to a worker and wait, or are posted",
    .options = options,
    .option_count = OPTION_COUNT,
    .api = &api,
};
