/* SPDX-License-Identifier: MIT */
/* A bus to copy. It works: the caller's thread does the call, in the envelope that all buses
 * but `direct` have (deadline, breaker, retry, counters: see <lathe/bus.h>).
 *
 *     caller ─ endpoint->call ─▶ trampoline ─▶ envelope_call ─▶ the service's function
 *
 *   1. Say in this comment how messages travel, and cite its paper below.
 *   2. Declare options of your own before the envelope's, and count them in `create`.
 *   3. add_service, remove_service: <bus/directory.h> keeps names and endpoints; add what you
 *      need of your own as `more` of a service, and put your function in each endpoint.
 *   4. resolve: a name to an endpoint, once. The directory gives advice on unknown ones.
 *   5. The trampoline: what lies between caller and callee. It runs in the step loop. To bring
 *      a call elsewhere, put envelope_admit and envelope_settle around your hand-over.
 *   6. loan, give_back: memory that messages are built in, 64-byte aligned.
 *   7. post, wait, poll: the same call in two halves, one or many at once. <bus/tickets.h> does
 *      it for a bus without workers.
 *   8. scale, health, stats, observe: what the outside may ask, and be told.
 *   9. Name it in lathe_plugin, at the end, as the file is named.
 *
 * Build, and the conformance tests run on it by themselves; then swap it in:
 *     lathe.run { bus = "mine", … } */
#include <stdalign.h>

#include <bus/directory.h>
#include <bus/envelope.h>
#include <bus/tickets.h>

/* What is behind an endpoint, and what was counted. The endpoint's self is this. */
struct line {
    struct envelope envelope;
    const struct lathe_service_method *method;
};

/* Of a service: its `more` in the directory. */
struct branch {
    struct envelope_service envelope;
    struct line *lines; /* (method_count) */
    uint32_t workers;   /* wished for */
};

struct mine {
    const struct lathe_host *host;
    struct envelope_bus envelope;
    struct directory directory;
    struct tickets tickets;
};

/* Step 2. */
static const struct lathe_option options[] = { ENVELOPE_OPTIONS };

static int create(const struct lathe_host *host, const struct lathe_config *config, void **self,
                  struct lathe_error *err)
{
    struct mine *m = lathe_alloc(host, sizeof *m); /* zeroed */
    if (!m)
        return lathe_fail(err, LATHE_ENOMEM, "bus template: no memory for %zu bytes", sizeof *m);
    int status = envelope_policy_read(&m->envelope.policy, config, 0, err); /* 0: the envelope's options come first */
    if (status != LATHE_OK) {
        lathe_free(host, m);
        return status;
    }
    m->host = m->envelope.host = host;
    ticks_open(&m->envelope.ticks);
    m->directory = (struct directory){ .host = host, .bus = "template" };
    tickets_open(&m->tickets, "template");
    *self = m;
    return LATHE_OK;
}

/* Step 5. Services whose methods run in parallel call this in parallel. */
static int trampoline(void *self, const void *in, void *out, struct lathe_error *err)
{
    struct line *line = self;
    return envelope_call(&line->envelope, line->method->function, line->method->self, in, out, err);
}

static void close_service(struct mine *m, struct directory_service *s)
{
    struct branch *branch = s->more;
    if (branch) {
        envelope_service_close(&branch->envelope);
        lathe_free(m->host, branch->lines);
        lathe_free(m->host, branch);
    }
    directory_free(&m->directory, s);
}

static struct branch *open_branch(struct mine *m, const struct directory_service *s)
{
    const struct lathe_service *service = s->what;
    struct branch *branch = lathe_alloc(m->host, sizeof *branch);
    size_t bytes;
    if (!branch)
        return NULL;
    if (!__builtin_mul_overflow(service->method_count, sizeof *branch->lines, &bytes))
        branch->lines = m->host->alloc(m->host->context, bytes, alignof(struct line));
    if (!branch->lines) {
        lathe_free(m->host, branch);
        return NULL;
    }
    branch->workers = service->workers;
    envelope_service_open(&branch->envelope, &m->envelope.policy);
    for (uint32_t i = 0; i < service->method_count; i++) {
        struct line *line = &branch->lines[i];
        line->method = &service->methods[i];
        line->envelope.bus = &m->envelope;
        line->envelope.service = &branch->envelope;
        line->envelope.endpoint = &s->endpoints[i];
        line->envelope.method_flags = line->method->flags;
        s->endpoints[i].call = trampoline;
        s->endpoints[i].self = line;
    }
    return branch;
}

/* Step 3. */
static int add_service(void *self, const struct lathe_service *service, struct lathe_error *err)
{
    struct mine *m = self;
    struct directory_service *s;
    struct lathe_error ignored;
    int status = directory_add(&m->directory, service, &s, err);
    if (status != LATHE_OK || (s->more = open_branch(m, s)))
        return status;
    directory_remove(&m->directory, service->name, &s, &ignored);
    close_service(m, s);
    return lathe_fail(err, LATHE_ENOMEM, "bus template: no memory for service '%s'", service->name);
}

static int remove_service(void *self, const char *name, struct lathe_error *err)
{
    struct mine *m = self;
    struct directory_service *s;
    int status = directory_remove(&m->directory, name, &s, err);
    if (status == LATHE_OK)
        close_service(m, s);
    return status;
}

static void destroy(void *self)
{
    struct mine *m = self;
    if (!m)
        return;
    while (m->directory.services) {
        struct directory_service *s = m->directory.services;
        m->directory.services = s->next;
        close_service(m, s);
    }
    tickets_close(&m->tickets);
    lathe_free(m->host, m);
}

/* Step 4. */
static int resolve(void *self, const char *name, const struct lathe_endpoint **endpoint, struct lathe_error *err)
{
    return directory_resolve(&((struct mine *)self)->directory, name, endpoint, err);
}

/* Step 6. */
static struct lathe_message *loan(void *self, size_t bytes, struct lathe_error *err)
{
    return heap_loan(((struct mine *)self)->host, "template", bytes, err);
}

static void give_back(void *self, struct lathe_message *message)
{
    lathe_free(((struct mine *)self)->host, message);
}

/* Step 7. There are no workers: the call is done at once, its answer kept. */
static int post(void *self, const struct lathe_endpoint *endpoint, const void *in, void *out, uint64_t *ticket,
                struct lathe_error *err)
{
    return tickets_post(&((struct mine *)self)->tickets, endpoint, in, out, ticket, err);
}

static int wait_for(void *self, uint64_t ticket, int64_t timeout_ns, struct lathe_error *err)
{
    return tickets_wait(&((struct mine *)self)->tickets, ticket, timeout_ns, err);
}

static int post_many(void *self, const struct lathe_endpoint *endpoint, const void *const *in, void *const *out,
                     uint64_t *tickets, uint32_t count, uint32_t *posted, struct lathe_error *err)
{
    return tickets_post_many(&((struct mine *)self)->tickets, endpoint, in, out, tickets, count, posted, err);
}

static int wait_many(void *self, const uint64_t *tickets, int *statuses, uint32_t count, struct lathe_error *err)
{
    return tickets_wait_many(&((struct mine *)self)->tickets, tickets, statuses, count, err);
}

/* Only the one caller could change the count: it needn't sleep for that. */
static int poll(void *self, uint64_t *seen, int64_t timeout_ns)
{
    (void)timeout_ns;
    return tickets_poll(&((struct mine *)self)->tickets, seen, 0);
}

/* Step 8. Without workers a wish for some is only remembered. */
static int scale(void *self, const char *service, uint32_t workers, struct lathe_error *err)
{
    struct directory_service *s;
    int status = directory_find(&((struct mine *)self)->directory, service, &s, err);
    if (status == LATHE_OK)
        ((struct branch *)s->more)->workers = workers;
    return status;
}

static int health(void *self, const char *service, struct lathe_service_health *health, struct lathe_error *err)
{
    struct directory_service *s;
    int status = directory_find(&((struct mine *)self)->directory, service, &s, err);
    if (status != LATHE_OK)
        return status;
    struct branch *branch = s->more;
    *health = (struct lathe_service_health){ .size = sizeof *health, .alive = 1, .workers_wanted = branch->workers };
    envelope_health(&branch->envelope, health);
    health->ready = health->breaker != LATHE_BREAKER_OPEN;
    return LATHE_OK;
}

static void stats(void *self, const struct lathe_endpoint *endpoint, struct lathe_endpoint_stats *stats)
{
    (void)self;
    envelope_stats(&((struct line *)endpoint->self)->envelope, stats);
}

static void observe(void *self, const struct lathe_bus_observer *observer)
{
    struct mine *m = self;
    m->envelope.observer = observer ? *observer : (struct lathe_bus_observer){ 0 };
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

/* Step 9. */
extern const struct lathe_plugin lathe_plugin;
LATHE_EXPORT const struct lathe_plugin lathe_plugin = {
    .size = sizeof lathe_plugin,
    .abi = LATHE_PLUGIN_ABI,
    .kind = LATHE_KIND_BUS,
    .concurrency = LATHE_SERIAL,
    .name = "template",
    .version = "2.0.0",
    .summary = "a bus to copy: the caller's thread, in the envelope",
    .options = options,
    .option_count = ENVELOPE_OPTION_COUNT,
    .api = &api,
};
