/* SPDX-License-Identifier: MIT */
/* A bus whose services may live in other processes: messages lie in memory that host and
 * workers share, so that bytes are written once, in their final place, whoever reads them.
 *
 *     host                                one memfd, mapped by all
 *     caller ─ envelope ─▶ ring of worker 1 ◀─ lathe worker (tokenizer)
 *                      └─▶ ring of worker 2 ◀─ lathe worker (model, sampler)
 *     monitor ── pidfd, socket, heartbeat ──▶ starts, watches, kills, starts again
 *
 * A worker that dies takes with it what it had in memory, and nothing else: its calls are
 * answered with LATHE_EUNAVAILABLE, which the envelope repeats where that is safe; a service
 * whose state is gone is told to the caller once (call.c: knows). The files are listed in
 * shm.h. The memory has no name, and the kernel ends the workers with the host: nothing is
 * left behind, whatever happens.
 *
 * A worker's methods are believed no more than their answers: sizes, status and sentence are
 * checked. But it can write anywhere in the shared memory, so it can spoil what other services
 * say; this keeps accidents apart, not enemies. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "shm.h"

enum { OPT_MEMORY, OPT_QUEUE, OPT_SPIN, OPT_HEARTBEAT, OPT_STUCK, OPT_START, OPT_READY, OPT_STOP, OPT_RESTARTS,
       OPT_ENVELOPE, OPT_COUNT = OPT_ENVELOPE + ENVELOPE_OPTION_COUNT };

static const struct lathe_option options[] = {
    { "memory_mb", LATHE_OPTION_INTEGER, "4096", 8, 1 << 20, "MiB", NULL,
      "shared memory for messages; pages cost nothing until they are touched" },
    { "queue", LATHE_OPTION_INTEGER, "256", CALLRING_MIN, 4096, "calls", NULL,
      "calls under way with one worker; rounded up to a power of two" },
    { "spin_us", LATHE_OPTION_NUMBER, "50", 0, 100000, "µs", NULL, "how long a wait spins before it sleeps" },
    { "heartbeat_ms", LATHE_OPTION_INTEGER, "500", 100, 3600000, "ms", NULL,
      "a worker whose heart has not beaten for so long is killed" },
    { "stuck_ms", LATHE_OPTION_INTEGER, "60000", 0, 86400000, "ms", NULL,
      "a worker whose call takes longer is killed; 0: never" },
    { "start_ms", LATHE_OPTION_INTEGER, "120000", 1, 3600000, "ms", NULL,
      "a worker that is not ready after so long is killed" },
    { "ready_ms", LATHE_OPTION_INTEGER, "10000", 0, 3600000, "ms", NULL,
      "how long a call waits for a worker while none is up" },
    { "stop_ms", LATHE_OPTION_INTEGER, "2000", 1, 3600000, "ms", NULL,
      "a worker that has no call and does not end when told to is killed after so long" },
    { "restarts_max", LATHE_OPTION_INTEGER, "10", 1, 1000000, "", NULL,
      "deaths in a row, without an answered call between, after which a worker is given up" },
    ENVELOPE_OPTIONS,
};
_Static_assert(sizeof options / sizeof *options == OPT_COUNT, "every option has its number");

static void read_options(struct shm_options *o, const struct lathe_option_value *v)
{
    const int64_t ms = 1000000;
    *o = (struct shm_options){
        .queue = CALLRING_MIN,
        .spin_ns = (int64_t)(v[OPT_SPIN].number * 1000),
        .heartbeat_ns = v[OPT_HEARTBEAT].integer * ms,
        .stuck_ns = v[OPT_STUCK].integer * ms,
        .start_ns = v[OPT_START].integer * ms,
        .ready_ns = v[OPT_READY].integer * ms,
        .stop_ns = v[OPT_STOP].integer * ms,
        .restarts_max = (uint32_t)v[OPT_RESTARTS].integer,
    };
    while (o->queue < v[OPT_QUEUE].integer)
        o->queue *= 2;
}

/* The memfd, of a size that nobody can change any more, and its mapping. */
static int open_memory(struct shm *bus, uint64_t bytes, struct lathe_error *err)
{
    const unsigned seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
    bus->memory = memfd_create("lathe-bus", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (bus->memory < 0 || ftruncate(bus->memory, (off_t)bytes) != 0 || fcntl(bus->memory, F_ADD_SEALS, seals) != 0)
        return lathe_fail(err, LATHE_ENOMEM, "bus shm: no shared memory of %llu MiB: %s",
                          (unsigned long long)(bytes >> 20), strerror(errno));
    void *base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, bus->memory, 0);
    if (base == MAP_FAILED)
        return lathe_fail(err, LATHE_ENOMEM, "bus shm: %llu MiB can't be mapped: %s; lower memory_mb",
                          (unsigned long long)(bytes >> 20), strerror(errno));
    bus->base = base;
    bus->bytes = bytes;
    bus->wire = base;
    return pool_open(&bus->pool, bus->host, base, bytes, WIRE_BUS_BYTES, err);
}

static void destroy(void *self)
{
    struct shm *bus = self;
    struct lathe_error ignored;
    if (!bus)
        return;
    while (bus->directory.services) { /* the last first: those that go with another stand behind it */
        struct directory_service *last = bus->directory.services;
        while (last->next)
            last = last->next;
        group_remove_service(bus, last->what->name, &ignored);
    }
    monitor_stop(bus);
    pool_close(&bus->pool);
    if (bus->base)
        munmap(bus->base, bus->bytes);
    if (bus->memory >= 0)
        close(bus->memory);
    pthread_cond_destroy(&bus->changed);
    pthread_mutex_destroy(&bus->lock);
    pthread_mutex_destroy(&bus->names);
    lathe_free(bus->host, bus->tickets);
    lathe_free(bus->host, bus);
}

static int create(const struct lathe_host *host, const struct lathe_config *config, void **self,
                  struct lathe_error *err)
{
    struct shm *bus = lathe_alloc(host, sizeof *bus);
    int status = LATHE_OK;
    if (!bus)
        return lathe_fail(err, LATHE_ENOMEM, "bus shm: no memory for %zu bytes", sizeof *bus);
    bus->host = bus->envelope.host = bus->directory.host = host;
    bus->directory.bus = "shm";
    bus->memory = bus->wake = -1;
    pthread_mutex_init(&bus->lock, NULL);
    pthread_mutex_init(&bus->names, NULL);
    pthread_cond_init(&bus->changed, NULL);
    read_options(&bus->options, config->values);
    ticks_open(&bus->envelope.ticks);
    if (!(bus->tickets = lathe_alloc_array(host, TICKETS, sizeof *bus->tickets)))
        status = lathe_fail(err, LATHE_ENOMEM, "bus shm: no memory for %d tickets", TICKETS);
    if (status == LATHE_OK)
        status = envelope_policy_read(&bus->envelope.policy, config, OPT_ENVELOPE, err);
    if (status == LATHE_OK)
        status = open_memory(bus, (uint64_t)config->values[OPT_MEMORY].integer << 20, err);
    if (status != LATHE_OK) {
        destroy(bus);
        return status;
    }
    *self = bus;
    return LATHE_OK;
}

static int add_service(void *self, const struct lathe_service *service, struct lathe_error *err)
{
    return group_add_service(self, service, err);
}

static int remove_service(void *self, const char *name, struct lathe_error *err)
{
    return group_remove_service(self, name, err);
}

static int resolve(void *self, const char *name, const struct lathe_endpoint **endpoint, struct lathe_error *err)
{
    struct shm *bus = self;
    return directory_resolve(&bus->directory, name, endpoint, err);
}

static struct lathe_message *loan(void *self, size_t bytes, struct lathe_error *err)
{
    struct shm *bus = self;
    struct lathe_message *m;
    uint64_t offset;
    if (bytes < sizeof *m) {
        lathe_fail(err, LATHE_EINVAL, "bus shm: a loan of %zu bytes holds no message header, which takes %zu", bytes,
                   sizeof *m);
        return NULL;
    }
    offset = pool_take(&bus->pool, bytes);
    if (!offset) {
        lathe_fail(err, LATHE_ENOMEM,
                   "bus shm: no room for a message of %zu bytes: %llu of %llu MiB of its shared memory "
                   "are in use; raise memory_mb",
                   bytes, (unsigned long long)(pool_used(&bus->pool) >> 20), (unsigned long long)(bus->bytes >> 20));
        return NULL;
    }
    m = (void *)(bus->base + offset);
    *m = (struct lathe_message){ .capacity = bytes };
    return m;
}

static void give_back(void *self, struct lathe_message *message)
{
    struct shm *bus = self;
    if (message)
        pool_give(&bus->pool, (uint64_t)((unsigned char *)message - bus->base));
}

static int post(void *self, const struct lathe_endpoint *endpoint, const void *in, void *out, uint64_t *ticket,
                struct lathe_error *err)
{
    return ticket_post(self, endpoint, in, out, ticket, err);
}

static int wait_for(void *self, uint64_t ticket, int64_t timeout_ns, struct lathe_error *err)
{
    return ticket_wait(self, ticket, timeout_ns, err);
}

static void stats(void *self, const struct lathe_endpoint *endpoint, struct lathe_endpoint_stats *s)
{
    const struct line *line = endpoint->self;
    (void)self;
    envelope_stats(&line->envelope, s);
}

static int post_many(void *self, const struct lathe_endpoint *endpoint, const void *const *in, void *const *out,
                     uint64_t *tickets, uint32_t count, uint32_t *posted, struct lathe_error *err)
{
    return ticket_post_many(self, endpoint, in, out, tickets, count, posted, err);
}

static int wait_many(void *self, const uint64_t *tickets, int *statuses, uint32_t count, struct lathe_error *err)
{
    return ticket_wait_many(self, tickets, statuses, count, err);
}

static int poll_posted(void *self, uint64_t *seen, int64_t timeout_ns)
{
    return ticket_poll(self, seen, timeout_ns);
}

static int scale(void *self, const char *service, uint32_t workers, struct lathe_error *err)
{
    return group_scale(self, service, workers, err);
}

static int health(void *self, const char *service, struct lathe_service_health *h, struct lathe_error *err)
{
    return group_health(self, service, h, err);
}

static void observe(void *self, const struct lathe_bus_observer *observer)
{
    struct shm *bus = self;
    pthread_mutex_lock(&bus->lock); /* the monitor may be about to tell something */
    bus->envelope.observer = observer ? *observer : (struct lathe_bus_observer){ 0 };
    pthread_mutex_unlock(&bus->lock);
}

/* `self` may be NULL: a worker process asks for its end before there is any bus. */
static const void *get_extension(void *self, const char *id)
{
    (void)self;
    return strcmp(id, LATHE_BUS_WORKER) == 0 ? &shm_bus_worker : NULL;
}

static const struct lathe_bus_api api = {
    .size = sizeof api,
    .abi = LATHE_BUS_ABI,
    .create = create,
    .destroy = destroy,
    .get_extension = get_extension,
    .add_service = add_service,
    .remove_service = remove_service,
    .resolve = resolve,
    .loan = loan,
    .give_back = give_back,
    .post = post,
    .wait = wait_for,
    .stats = stats,
    .post_many = post_many,
    .wait_many = wait_many,
    .poll = poll_posted,
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
    .name = "shm",
    .version = "1.0.0",
    .summary = "tokenizer and model in worker processes, messages in memory that they share",
    .options = options,
    .option_count = OPT_COUNT,
    .api = &api,
};
