/* SPDX-License-Identifier: MIT */
/* The bus without workers, with the whole envelope: a call runs on its caller's thread, but
 * behind deadline, breaker and retry, and it is timed, counted and, while somebody observes,
 * told. What it costs beyond `direct` is what the envelope costs; what `async` costs beyond
 * it is the way to another thread and back.
 *
 *     endpoint->call (self = its line) ─▶ envelope_call ─▶ the service's function
 *
 * Several threads may call at once if the service allows it. Only [main] changes the
 * directory; health, which may be asked by anybody, is why there is a lock around it. */
#include <stdalign.h>

#include <bus/directory.h>
#include <bus/envelope.h>
#include <bus/tickets.h>

/* What is behind an endpoint; the endpoint's self. */
struct line {
    struct envelope envelope;
    const struct lathe_service_method *method;
};

/* Of a service: its `more` in the directory. */
struct desk {
    struct envelope_service envelope;
    struct line *lines; /* (method_count) */
    uint32_t workers;   /* wished for */
};

struct sync {
    const struct lathe_host *host;
    struct envelope_bus envelope;
    pthread_mutex_t lock; /* of the directory and what its services wish for */
    struct directory directory;
    struct tickets tickets;
};

static const struct lathe_option options[] = { ENVELOPE_OPTIONS };

static int create(const struct lathe_host *host, const struct lathe_config *config, void **self,
                  struct lathe_error *err)
{
    struct sync *s = lathe_alloc(host, sizeof *s);
    if (!s)
        return lathe_fail(err, LATHE_ENOMEM, "bus sync: no memory for %zu bytes", sizeof *s);
    int status = envelope_policy_read(&s->envelope.policy, config, 0, err);
    if (status != LATHE_OK) {
        lathe_free(host, s);
        return status;
    }
    s->host = s->envelope.host = host;
    ticks_open(&s->envelope.ticks);
    pthread_mutex_init(&s->lock, NULL);
    s->directory = (struct directory){ .host = host, .bus = "sync" };
    tickets_open(&s->tickets, "sync");
    *self = s;
    return LATHE_OK;
}

static void close_service(struct sync *s, struct directory_service *service)
{
    struct desk *desk = service->more;
    if (desk) {
        envelope_service_close(&desk->envelope);
        lathe_free(s->host, desk->lines);
        lathe_free(s->host, desk);
    }
    directory_free(&s->directory, service);
}

static void destroy(void *self)
{
    struct sync *s = self;
    if (!s)
        return;
    while (s->directory.services) {
        struct directory_service *service = s->directory.services;
        s->directory.services = service->next;
        close_service(s, service);
    }
    tickets_close(&s->tickets);
    pthread_mutex_destroy(&s->lock);
    lathe_free(s->host, s);
}

static int call(void *self, const void *in, void *out, struct lathe_error *err)
{
    struct line *line = self;
    return envelope_call(&line->envelope, line->method->function, line->method->self, in, out, err);
}

static struct desk *make_desk(struct sync *s, const struct directory_service *service)
{
    size_t bytes;
    struct desk *desk = lathe_alloc(s->host, sizeof *desk);
    if (!desk)
        return NULL;
    if (!__builtin_mul_overflow(service->what->method_count, sizeof *desk->lines, &bytes))
        desk->lines = s->host->alloc(s->host->context, bytes, alignof(struct line));
    if (!desk->lines) {
        lathe_free(s->host, desk);
        return NULL;
    }
    desk->workers = service->what->workers;
    envelope_service_open(&desk->envelope, &s->envelope.policy);
    for (uint32_t i = 0; i < service->what->method_count; i++) {
        struct line *line = &desk->lines[i];
        line->method = &service->what->methods[i];
        line->envelope.bus = &s->envelope;
        line->envelope.service = &desk->envelope;
        line->envelope.endpoint = &service->endpoints[i];
        line->envelope.method_flags = line->method->flags;
        service->endpoints[i].call = call;
        service->endpoints[i].self = line;
    }
    return desk;
}

static int add_service(void *self, const struct lathe_service *what, struct lathe_error *err)
{
    struct sync *s = self;
    struct directory_service *service;
    struct lathe_error ignored;
    pthread_mutex_lock(&s->lock);
    int status = directory_add(&s->directory, what, &service, err);
    if (status == LATHE_OK && !(service->more = make_desk(s, service))) {
        status = lathe_fail(err, LATHE_ENOMEM, "bus sync: no memory for the counters of service '%s'", what->name);
        directory_remove(&s->directory, what->name, &service, &ignored);
        directory_free(&s->directory, service);
    }
    pthread_mutex_unlock(&s->lock);
    return status;
}

static int remove_service(void *self, const char *name, struct lathe_error *err)
{
    struct sync *s = self;
    struct directory_service *service;
    pthread_mutex_lock(&s->lock);
    int status = directory_remove(&s->directory, name, &service, err);
    if (status == LATHE_OK)
        close_service(s, service);
    pthread_mutex_unlock(&s->lock);
    return status;
}

static int resolve(void *self, const char *name, const struct lathe_endpoint **endpoint, struct lathe_error *err)
{
    return directory_resolve(&((struct sync *)self)->directory, name, endpoint, err);
}

static struct lathe_message *loan(void *self, size_t bytes, struct lathe_error *err)
{
    return heap_loan(((struct sync *)self)->host, "sync", bytes, err);
}

static void give_back(void *self, struct lathe_message *message)
{
    lathe_free(((struct sync *)self)->host, message);
}

static int post(void *self, const struct lathe_endpoint *endpoint, const void *in, void *out, uint64_t *ticket,
                struct lathe_error *err)
{
    return tickets_post(&((struct sync *)self)->tickets, endpoint, in, out, ticket, err);
}

static int wait_for(void *self, uint64_t ticket, int64_t timeout_ns, struct lathe_error *err)
{
    return tickets_wait(&((struct sync *)self)->tickets, ticket, timeout_ns, err);
}

static int post_many(void *self, const struct lathe_endpoint *endpoint, const void *const *in, void *const *out,
                     uint64_t *tickets, uint32_t count, uint32_t *posted, struct lathe_error *err)
{
    return tickets_post_many(&((struct sync *)self)->tickets, endpoint, in, out, tickets, count, posted, err);
}

static int wait_many(void *self, const uint64_t *tickets, int *statuses, uint32_t count, struct lathe_error *err)
{
    return tickets_wait_many(&((struct sync *)self)->tickets, tickets, statuses, count, err);
}

static int poll(void *self, uint64_t *seen, int64_t timeout_ns)
{
    return tickets_poll(&((struct sync *)self)->tickets, seen, timeout_ns);
}

static int scale(void *self, const char *name, uint32_t workers, struct lathe_error *err)
{
    struct sync *s = self;
    struct directory_service *service;
    pthread_mutex_lock(&s->lock);
    int status = directory_find(&s->directory, name, &service, err);
    if (status == LATHE_OK)
        ((struct desk *)service->more)->workers = workers;
    pthread_mutex_unlock(&s->lock);
    return status;
}

static int health(void *self, const char *name, struct lathe_service_health *health, struct lathe_error *err)
{
    struct sync *s = self;
    struct directory_service *service;
    pthread_mutex_lock(&s->lock);
    int status = directory_find(&s->directory, name, &service, err);
    if (status == LATHE_OK) {
        struct desk *desk = service->more;
        *health = (struct lathe_service_health){ .size = sizeof *health, .alive = 1,
                                                 .workers_wanted = desk->workers };
        envelope_health(&desk->envelope, health);
        health->ready = health->breaker != LATHE_BREAKER_OPEN;
    }
    pthread_mutex_unlock(&s->lock);
    return status;
}

static void stats(void *self, const struct lathe_endpoint *endpoint, struct lathe_endpoint_stats *stats)
{
    (void)self;
    envelope_stats(&((struct line *)endpoint->self)->envelope, stats);
}

static void observe(void *self, const struct lathe_bus_observer *observer)
{
    struct sync *s = self;
    s->envelope.observer = observer ? *observer : (struct lathe_bus_observer){ 0 };
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
    .concurrency = LATHE_PARALLEL,
    .name = "sync",
    .version = "1.0.0",
    .summary = "the caller's thread, with deadlines, retries, a breaker and counters",
    .citation = "@book{nygard2007release, title={Release It!}, author={Nygard, Michael T.}, year={2007}}",
    .options = options,
    .option_count = ENVELOPE_OPTION_COUNT,
    .api = &api,
};
