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
 * sentence wait in one of TICKETS places until somebody asks. */
#include <string.h>

#include <lathe/bus.h>

enum { TICKETS = 64, NAME_BYTES = 128 };

struct service {
    struct service *next;
    const struct lathe_service *what; /* borrowed */
    struct lathe_endpoint *endpoints; /* (what->method_count) */
    char *names;                      /* (what->method_count, NAME_BYTES) */
};

struct ticket {
    uint64_t number; /* 0: free */
    int status;
    struct lathe_error err;
};

struct direct {
    const struct lathe_host *host;
    struct service *services;
    uint32_t next_id;
    uint64_t next_ticket;
    struct ticket tickets[TICKETS];
};

static int create(const struct lathe_host *host, const struct lathe_config *config, void **self,
                  struct lathe_error *err)
{
    struct direct *d = lathe_alloc(host, sizeof *d);
    (void)config;
    if (!d)
        return lathe_fail(err, LATHE_ENOMEM, "bus direct: no memory for %zu bytes", sizeof *d);
    d->host = host;
    *self = d;
    return LATHE_OK;
}

static void service_free(const struct lathe_host *host, struct service *s)
{
    lathe_free(host, s->endpoints);
    lathe_free(host, s->names);
    lathe_free(host, s);
}

static void destroy(void *self)
{
    struct direct *d = self;
    if (!d)
        return;
    while (d->services) {
        struct service *s = d->services;
        d->services = s->next;
        service_free(d->host, s);
    }
    lathe_free(d->host, d);
}

/* The link that points at the service, or at the NULL where it would be. */
static struct service **find(struct direct *d, const char *name)
{
    struct service **link = &d->services;
    while (*link && strcmp((*link)->what->name, name))
        link = &(*link)->next;
    return link;
}

static int add_service(void *self, const struct lathe_service *service, struct lathe_error *err)
{
    struct direct *d = self;
    struct service *s, **link;

    if (!service->name || !service->name[0] || service->method_count == 0)
        return lathe_fail(err, LATHE_EINVAL, "bus direct: a service needs a name and at least one method");
    link = find(d, service->name);
    if (*link)
        return lathe_fail(err, LATHE_EBUSY, "bus direct: there is a service '%s' already; remove it first",
                          service->name);
    for (uint32_t i = 0; i < service->method_count; i++) {
        const struct lathe_service_method *m = &service->methods[i];
        if (!m->function || !m->name || strlen(service->name) + 1 + strlen(m->name) >= NAME_BYTES)
            return lathe_fail(err, LATHE_EINVAL, "bus direct: method %u of service '%s' has no function, no name, or "
                              "a name that with the service's exceeds %d bytes", i, service->name, NAME_BYTES - 1);
    }
    s = lathe_alloc(d->host, sizeof *s);
    if (s) {
        s->what = service;
        s->endpoints = lathe_alloc_array(d->host, service->method_count, sizeof *s->endpoints);
        s->names = lathe_alloc_array(d->host, service->method_count, NAME_BYTES);
    }
    if (!s || !s->endpoints || !s->names) {
        if (s)
            service_free(d->host, s);
        return lathe_fail(err, LATHE_ENOMEM, "bus direct: no memory for the endpoints of service '%s'", service->name);
    }
    for (uint32_t i = 0; i < service->method_count; i++) {
        const struct lathe_service_method *m = &service->methods[i];
        char *name = s->names + (size_t)i * NAME_BYTES;
        snprintf(name, NAME_BYTES, "%s.%s", service->name, m->name);
        s->endpoints[i] = (struct lathe_endpoint){ .call = m->function, .self = m->self, .id = d->next_id++,
                                                   .name = name };
    }
    *link = s;
    return LATHE_OK;
}

static int remove_service(void *self, const char *name, struct lathe_error *err)
{
    struct direct *d = self;
    struct service **link = find(d, name), *s = *link;
    if (!s)
        return lathe_fail(err, LATHE_ENOTFOUND, "bus direct: there is no service '%s' to remove", name);
    *link = s->next;
    service_free(d->host, s);
    return LATHE_OK;
}

/* Edits (insert, delete, replace) from a to b; both are cut at NAME_BYTES. */
static unsigned distance(const char *a, const char *b)
{
    unsigned row[NAME_BYTES + 1];
    size_t m = strnlen(a, NAME_BYTES), n = strnlen(b, NAME_BYTES);
    for (size_t j = 0; j <= n; j++)
        row[j] = (unsigned)j;
    for (size_t i = 1; i <= m; i++) {
        unsigned diagonal = row[0];
        row[0] = (unsigned)i;
        for (size_t j = 1; j <= n; j++) {
            unsigned replace = diagonal + (a[i - 1] != b[j - 1]), best = row[j] + 1;
            diagonal = row[j];
            best = row[j - 1] + 1 < best ? row[j - 1] + 1 : best;
            row[j] = replace < best ? replace : best;
        }
    }
    return row[n];
}

static int resolve(void *self, const char *name, const struct lathe_endpoint **endpoint, struct lathe_error *err)
{
    struct direct *d = self;
    const char *nearest = NULL;
    unsigned least = UINT32_MAX;

    for (struct service *s = d->services; s; s = s->next) {
        for (uint32_t i = 0; i < s->what->method_count; i++) {
            unsigned edits;
            if (!strcmp(s->endpoints[i].name, name)) {
                *endpoint = &s->endpoints[i];
                return LATHE_OK;
            }
            edits = distance(name, s->endpoints[i].name);
            if (edits < least)
                least = edits, nearest = s->endpoints[i].name;
        }
    }
    if (!nearest)
        return lathe_fail(err, LATHE_ENOTFOUND, "bus direct: there is no endpoint '%.128s'; no service was added yet",
                          name);
    return lathe_fail(err, LATHE_ENOTFOUND, "bus direct: there is no endpoint '%.128s'; did you mean '%s'?", name,
                      nearest);
}

static struct lathe_message *loan(void *self, size_t bytes, struct lathe_error *err)
{
    struct direct *d = self;
    struct lathe_message *m;
    if (bytes < sizeof *m) {
        lathe_fail(err, LATHE_EINVAL, "bus direct: a loan of %zu bytes holds no message header, which takes %zu", bytes,
                   sizeof *m);
        return NULL;
    }
    m = d->host->alloc(d->host->context, bytes, 64);
    if (!m) {
        lathe_fail(err, LATHE_ENOMEM, "bus direct: no memory for a message of %zu bytes", bytes);
        return NULL;
    }
    m->capacity = bytes;
    m->bytes = 0;
    return m;
}

static void give_back(void *self, struct lathe_message *message)
{
    lathe_free(((struct direct *)self)->host, message);
}

static int post(void *self, const struct lathe_endpoint *endpoint, const void *in, void *out, uint64_t *ticket,
                struct lathe_error *err)
{
    struct direct *d = self;
    struct ticket *t = NULL;
    for (uint32_t i = 0; i < TICKETS && !t; i++) {
        struct ticket *candidate = &d->tickets[(d->next_ticket + i) % TICKETS];
        t = candidate->number ? NULL : candidate;
    }
    if (!t)
        return lathe_fail(err, LATHE_EFULL, "bus direct: %d posted calls were not waited for; wait for one", TICKETS);
    t->number = ++d->next_ticket;
    t->err.code = LATHE_OK;
    t->err.message[0] = '\0';
    t->status = endpoint->call(endpoint->self, in, out, &t->err);
    *ticket = t->number;
    return LATHE_OK;
}

static int wait_for(void *self, uint64_t number, int64_t timeout_ns, struct lathe_error *err)
{
    struct direct *d = self;
    (void)timeout_ns; /* it is done */
    for (uint32_t i = 0; number && i < TICKETS; i++) {
        struct ticket *t = &d->tickets[i];
        if (t->number == number) {
            t->number = 0;
            if (t->status != LATHE_OK && err)
                *err = t->err;
            return t->status;
        }
    }
    return lathe_fail(err, LATHE_ENOTFOUND, "bus direct: there is no ticket %llu; each is spent by one wait",
                      (unsigned long long)number);
}

static void stats(void *self, const struct lathe_endpoint *endpoint, struct lathe_endpoint_stats *s)
{
    (void)self, (void)endpoint; /* nothing lies between caller and callee that could count */
    *s = (struct lathe_endpoint_stats){ 0 };
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

extern const struct lathe_plugin lathe_plugin;
LATHE_EXPORT const struct lathe_plugin lathe_plugin = {
    .size = sizeof lathe_plugin,
    .abi = LATHE_PLUGIN_ABI,
    .kind = LATHE_KIND_BUS,
    .concurrency = LATHE_SERIAL,
    .name = "direct",
    .version = "1.0.0",
    .summary = "no bus at all: a call between services is one indirect call",
    .api = &api,
};
