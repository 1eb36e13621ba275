/* SPDX-License-Identifier: MIT */
/* A bus to copy. It works: a direct bus that counts calls, failures and bytes.
 *
 *     caller ─ endpoint->call ─▶ trampoline(endpoint's own state) ─▶ the service's function
 *
 *   1. Say in this comment how messages travel, and cite its paper below.
 *   2. Declare options, if you need any, as plugins/scheduler/template.c does.
 *   3. add_service, remove_service: a service's strings are borrowed in between.
 *   4. resolve: a name to an endpoint, once. An unknown name gets the nearest as advice.
 *   5. The trampoline: what lies between caller and callee. It runs in the step loop.
 *   6. loan, give_back: memory that messages are built in, 64-byte aligned.
 *   7. post, wait: the same call in two halves.
 *   8. Name it in lathe_plugin, at the end, as the file is named.
 *
 * Build, and the conformance tests run on it by themselves; then swap it in:
 *     lathe.run { bus = "mine", … } */
#include <stdatomic.h>
#include <string.h>

#include <lathe/bus.h>

enum { METHODS = 64, NAME_BYTES = 128, TICKETS = 16 };

/* An endpoint, what is behind it, and what was counted. The endpoint's self is this. */
struct line {
    struct lathe_endpoint endpoint;
    const struct lathe_service *service; /* NULL: free */
    const struct lathe_service_method *method;
    char name[NAME_BYTES];
    atomic_uint_least64_t calls, failures, bytes;
};

struct mine {
    const struct lathe_host *host;
    struct line lines[METHODS];
    uint64_t next_ticket;
    struct { uint64_t number; int status; struct lathe_error err; } done[TICKETS]; /* number 0: free */
};

static int create(const struct lathe_host *host, const struct lathe_config *config, void **self,
                  struct lathe_error *err)
{
    struct mine *m = lathe_alloc(host, sizeof *m); /* zeroed */
    (void)config;
    if (!m)
        return lathe_fail(err, LATHE_ENOMEM, "bus template: no memory for %zu bytes", sizeof *m);
    m->host = host;
    *self = m;
    return LATHE_OK;
}

static void destroy(void *self)
{
    struct mine *m = self;
    if (m)
        lathe_free(m->host, m);
}

/* Step 5. Services whose methods run in parallel call this in parallel: counters are atomic. */
static int trampoline(void *self, const void *in, void *out, struct lathe_error *err)
{
    struct line *line = self;
    int status = line->method->function(line->method->self, in, out, err);
    atomic_fetch_add_explicit(&line->calls, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&line->failures, status != LATHE_OK, memory_order_relaxed);
    atomic_fetch_add_explicit(&line->bytes, ((const struct lathe_message *)in)->bytes, memory_order_relaxed);
    return status;
}

/* Step 3. */
static int add_service(void *self, const struct lathe_service *service, struct lathe_error *err)
{
    struct mine *m = self;
    uint32_t room = 0, added = 0;

    if (!service->name || service->method_count == 0)
        return lathe_fail(err, LATHE_EINVAL, "bus template: a service needs a name and at least one method");
    for (uint32_t i = 0; i < METHODS; i++) {
        room += m->lines[i].service == NULL;
        if (m->lines[i].service && !strcmp(m->lines[i].service->name, service->name))
            return lathe_fail(err, LATHE_EBUSY, "bus template: there is a service '%s' already; remove it first",
                              service->name);
    }
    if (service->method_count > room)
        return lathe_fail(err, LATHE_EFULL, "bus template: service '%s' has %u methods, there is room for %u",
                          service->name, service->method_count, room);
    for (uint32_t i = 0; added < service->method_count; i++) {
        struct line *line = &m->lines[i];
        if (line->service)
            continue;
        line->service = service;
        line->method = &service->methods[added++];
        line->calls = line->failures = line->bytes = 0;
        snprintf(line->name, sizeof line->name, "%s.%s", service->name, line->method->name);
        line->endpoint = (struct lathe_endpoint){ .call = trampoline, .self = line, .id = i, .name = line->name };
    }
    return LATHE_OK;
}

static int remove_service(void *self, const char *name, struct lathe_error *err)
{
    struct mine *m = self;
    int found = 0;
    for (uint32_t i = 0; i < METHODS; i++) {
        if (m->lines[i].service && !strcmp(m->lines[i].service->name, name)) {
            m->lines[i].service = NULL;
            found = 1;
        }
    }
    return found ? LATHE_OK : lathe_fail(err, LATHE_ENOTFOUND, "bus template: there is no service '%s'", name);
}

/* Step 4. Nearest here is: the longest common beginning. */
static int resolve(void *self, const char *name, const struct lathe_endpoint **endpoint, struct lathe_error *err)
{
    struct mine *m = self;
    const char *nearest = "";
    size_t longest = 0;
    for (uint32_t i = 0; i < METHODS; i++) {
        const struct line *line = &m->lines[i];
        size_t same = 0;
        if (!line->service)
            continue;
        if (!strcmp(line->name, name)) {
            *endpoint = &line->endpoint;
            return LATHE_OK;
        }
        while (name[same] && name[same] == line->name[same])
            same++;
        if (same >= longest)
            longest = same, nearest = line->name;
    }
    return lathe_fail(err, LATHE_ENOTFOUND, "bus template: there is no endpoint '%.128s'; the nearest is '%s'", name,
                      nearest);
}

/* Step 6. */
static struct lathe_message *loan(void *self, size_t bytes, struct lathe_error *err)
{
    struct mine *m = self;
    struct lathe_message *message = NULL;
    if (bytes < sizeof *message)
        lathe_fail(err, LATHE_EINVAL, "bus template: a loan of %zu bytes holds no message header", bytes);
    else if (!(message = m->host->alloc(m->host->context, bytes, 64)))
        lathe_fail(err, LATHE_ENOMEM, "bus template: no memory for a message of %zu bytes", bytes);
    else
        message->capacity = bytes;
    return message;
}

static void give_back(void *self, struct lathe_message *message)
{
    lathe_free(((struct mine *)self)->host, message);
}

/* Step 7. There are no workers: the call is done at once, its answer kept. */
static int post(void *self, const struct lathe_endpoint *endpoint, const void *in, void *out, uint64_t *ticket,
                struct lathe_error *err)
{
    struct mine *m = self;
    for (int i = 0; i < TICKETS; i++) {
        if (m->done[i].number == 0) {
            m->done[i].err = (struct lathe_error){ 0 };
            m->done[i].status = endpoint->call(endpoint->self, in, out, &m->done[i].err);
            *ticket = m->done[i].number = ++m->next_ticket;
            return LATHE_OK;
        }
    }
    return lathe_fail(err, LATHE_EFULL, "bus template: %d posted calls were not waited for; wait for one", TICKETS);
}

static int wait_for(void *self, uint64_t ticket, int64_t timeout_ns, struct lathe_error *err)
{
    struct mine *m = self;
    (void)timeout_ns;
    for (int i = 0; ticket && i < TICKETS; i++) {
        if (m->done[i].number == ticket) {
            m->done[i].number = 0;
            if (m->done[i].status != LATHE_OK)
                *err = m->done[i].err;
            return m->done[i].status;
        }
    }
    return lathe_fail(err, LATHE_ENOTFOUND, "bus template: there is no ticket %llu; each is spent by one wait",
                      (unsigned long long)ticket);
}

static void stats(void *self, const struct lathe_endpoint *endpoint, struct lathe_endpoint_stats *s)
{
    struct line *line = endpoint->self;
    (void)self;
    *s = (struct lathe_endpoint_stats){ .calls = line->calls, .failures = line->failures, .bytes = line->bytes };
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
};

/* Step 8. */
extern const struct lathe_plugin lathe_plugin;
LATHE_EXPORT const struct lathe_plugin lathe_plugin = {
    .size = sizeof lathe_plugin,
    .abi = LATHE_PLUGIN_ABI,
    .kind = LATHE_KIND_BUS,
    .concurrency = LATHE_SERIAL,
    .name = "template",
    .version = "1.0.0",
    .summary = "a bus to copy: direct, but counting",
    .api = &api,
};
