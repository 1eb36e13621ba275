/* SPDX-License-Identifier: MIT */
/* The direct bus: no bus at all.
 *
 * resolve hands out the service's own function and self, so that a call between services
 * is one indirect call: no counters, no hops, no copy. It is the limit that the others are
 * measured against, and what makes the whole a simple engine in one process.
 *
 *     endpoint->call == method->function      endpoint->self == method->self
 *
 * Loans are heap. A posted call is done at once, on the caller's thread; its status and
 * sentence wait in one of TICKETS places until somebody asks. There is no envelope: nothing is
 * stamped, counted, retried or refused, and an observer hears nothing. */
#include <bus/directory.h>
#include <bus/tickets.h>

struct direct {
    const struct lathe_host *host;
    struct directory directory; /* a service's `more` is the number of workers wished for */
    struct tickets tickets;
};

static int create(const struct lathe_host *host, const struct lathe_config *config, void **self,
                  struct lathe_error *err)
{
    struct direct *d = lathe_alloc(host, sizeof *d);
    (void)config;
    if (!d)
        return lathe_fail(err, LATHE_ENOMEM, "bus direct: no memory for %zu bytes", sizeof *d);
    d->host = host;
    d->directory = (struct directory){ .host = host, .bus = "direct" };
    tickets_open(&d->tickets, "direct");
    *self = d;
    return LATHE_OK;
}

static void destroy(void *self)
{
    struct direct *d = self;
    if (!d)
        return;
    while (d->directory.services) {
        struct directory_service *s = d->directory.services;
        d->directory.services = s->next;
        directory_free(&d->directory, s);
    }
    tickets_close(&d->tickets);
    lathe_free(d->host, d);
}

static int add_service(void *self, const struct lathe_service *service, struct lathe_error *err)
{
    struct direct *d = self;
    struct directory_service *added;
    int status = directory_add(&d->directory, service, &added, err);
    if (status == LATHE_OK)
        added->more = (void *)(uintptr_t)service->workers;
    return status;
}

static int remove_service(void *self, const char *name, struct lathe_error *err)
{
    struct direct *d = self;
    struct directory_service *removed;
    int status = directory_remove(&d->directory, name, &removed, err);
    if (status == LATHE_OK)
        directory_free(&d->directory, removed);
    return status;
}

static int resolve(void *self, const char *name, const struct lathe_endpoint **endpoint, struct lathe_error *err)
{
    return directory_resolve(&((struct direct *)self)->directory, name, endpoint, err);
}

static struct lathe_message *loan(void *self, size_t bytes, struct lathe_error *err)
{
    return heap_loan(((struct direct *)self)->host, "direct", bytes, err);
}

static void give_back(void *self, struct lathe_message *message)
{
    lathe_free(((struct direct *)self)->host, message);
}

static int post(void *self, const struct lathe_endpoint *endpoint, const void *in, void *out, uint64_t *ticket,
                struct lathe_error *err)
{
    return tickets_post(&((struct direct *)self)->tickets, endpoint, in, out, ticket, err);
}

static int wait_for(void *self, uint64_t ticket, int64_t timeout_ns, struct lathe_error *err)
{
    return tickets_wait(&((struct direct *)self)->tickets, ticket, timeout_ns, err);
}

static int post_many(void *self, const struct lathe_endpoint *endpoint, const void *const *in, void *const *out,
                     uint64_t *tickets, uint32_t count, uint32_t *posted, struct lathe_error *err)
{
    return tickets_post_many(&((struct direct *)self)->tickets, endpoint, in, out, tickets, count, posted, err);
}

static int wait_many(void *self, const uint64_t *tickets, int *statuses, uint32_t count, struct lathe_error *err)
{
    return tickets_wait_many(&((struct direct *)self)->tickets, tickets, statuses, count, err);
}

/* The one caller is here, so that nothing can be done while it sleeps: it is told so at once. */
static int poll(void *self, uint64_t *seen, int64_t timeout_ns)
{
    (void)timeout_ns;
    return tickets_poll(&((struct direct *)self)->tickets, seen, 0);
}

static int scale(void *self, const char *service, uint32_t workers, struct lathe_error *err)
{
    struct direct *d = self;
    struct directory_service *s;
    int status = directory_find(&d->directory, service, &s, err);
    if (status == LATHE_OK)
        s->more = (void *)(uintptr_t)workers;
    return status;
}

static int health(void *self, const char *service, struct lathe_service_health *health, struct lathe_error *err)
{
    struct direct *d = self;
    struct directory_service *s;
    int status = directory_find(&d->directory, service, &s, err);
    if (status != LATHE_OK)
        return status;
    *health = (struct lathe_service_health){ .size = sizeof *health, .alive = 1, .ready = 1,
                                             .breaker = LATHE_BREAKER_CLOSED,
                                             .workers_wanted = (uint32_t)(uintptr_t)s->more };
    return LATHE_OK;
}

static void stats(void *self, const struct lathe_endpoint *endpoint, struct lathe_endpoint_stats *s)
{
    (void)self, (void)endpoint; /* nothing lies between caller and callee that could count */
    *s = (struct lathe_endpoint_stats){ 0 };
}

static void observe(void *self, const struct lathe_bus_observer *observer)
{
    (void)self, (void)observer; /* nothing is there that could tell */
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
    .post = post,
    .wait = wait_for,
    .stats = stats,
    .post_many = post_many,
    .wait_many = wait_many,
    .poll = poll,
    .scale = scale,
    .health = health,
    .observe = observe,
};

extern const struct lathe_plugin lathe_plugin;
LATHE_EXPORT const struct lathe_plugin lathe_plugin = {
    .size = sizeof lathe_plugin,
    .abi = LATHE_PLUGIN_ABI,
    .kind = LATHE_KIND_BUS,
    .concurrency = LATHE_SERIAL,
    .name = "direct",
    .version = "2.0.0",
    .summary = "no bus at all: a call between services is one indirect call",
    .api = &api,
};
