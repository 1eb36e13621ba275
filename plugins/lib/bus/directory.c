/* SPDX-License-Identifier: MIT */
/* See directory.h. A list in order of adding, and a hash table by name: names are looked up when
 * things are set up, never in a step, but a fleet that is simulated sets up thousands. What was
 * meant by a name that isn't there is looked for only then: it takes far longer. */
#include "directory.h"

#include <string.h>

/* The link that points at the service of that name, or at the NULL where it would be. */
static struct directory_service **link_of(struct directory *d, const char *name, size_t bytes)
{
    uint32_t hash = 2166136261u; /* FNV-1a */
    for (size_t i = 0; i < bytes; i++)
        hash = (hash ^ (unsigned char)name[i]) * 16777619u;
    struct directory_service **link = &d->buckets[hash % DIRECTORY_BUCKETS];
    while (*link && (strncmp((*link)->what->name, name, bytes) || (*link)->what->name[bytes]))
        link = &(*link)->bucket;
    return link;
}

static void link_last(struct directory *d, struct directory_service *s)
{
    s->prev = d->last;
    *(d->last ? &d->last->next : &d->services) = s;
    d->last = s;
}

static void unlink_service(struct directory *d, struct directory_service *s)
{
    *(s->prev ? &s->prev->next : &d->services) = s->next;
    *(s->next ? &s->next->prev : &d->last) = s->prev;
    s->next = s->prev = NULL;
}

/* Edits (insert, delete, replace) from a to b; both are cut at DIRECTORY_NAME_BYTES. */
static unsigned distance(const char *a, const char *b)
{
    unsigned row[DIRECTORY_NAME_BYTES + 1];
    size_t m = strnlen(a, DIRECTORY_NAME_BYTES), n = strnlen(b, DIRECTORY_NAME_BYTES);
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

/* Of the names seen, the one that is fewest edits away from what was asked for. */
struct nearest {
    const char *asked, *name; /* NULL: nothing seen yet */
    unsigned edits;
};

static void consider(struct nearest *nearest, const char *name)
{
    unsigned edits = distance(nearest->asked, name);
    if (!nearest->name || edits < nearest->edits)
        nearest->name = name, nearest->edits = edits;
}

static int check_service(const struct directory *d, const struct lathe_service *service, struct lathe_error *err)
{
    if (service->size < sizeof *service)
        return lathe_fail(err, LATHE_EINVAL, "bus %s: a service's table has %u bytes, expected %zu; build its owner "
                          "again with these headers", d->bus, service->size, sizeof *service);
    if (!service->name || !service->name[0] || service->method_count == 0 || !service->methods)
        return lathe_fail(err, LATHE_EINVAL, "bus %s: a service needs a name and at least one method", d->bus);
    for (uint32_t i = 0; i < service->method_count; i++) {
        const struct lathe_service_method *m = &service->methods[i];
        if (!m->function || !m->name || !m->name[0] ||
            strlen(service->name) + 1 + strlen(m->name) >= DIRECTORY_NAME_BYTES)
            return lathe_fail(err, LATHE_EINVAL, "bus %s: method %u of service '%.128s' has no function, no name, or "
                              "a name that with the service's exceeds %d bytes", d->bus, i, service->name,
                              DIRECTORY_NAME_BYTES - 1);
        for (uint32_t j = 0; j < i; j++)
            if (!strcmp(service->methods[j].name, m->name))
                return lathe_fail(err, LATHE_EINVAL, "bus %s: service '%s' has two methods '%s'; name them apart",
                                  d->bus, service->name, m->name);
    }
    return LATHE_OK;
}

int directory_add(struct directory *d, const struct lathe_service *service, struct directory_service **added,
                  struct lathe_error *err)
{
    struct directory_service *s, **link, *with = NULL;
    int status = check_service(d, service, err);
    if (status != LATHE_OK)
        return status;
    link = link_of(d, service->name, strlen(service->name));
    if (*link)
        return lathe_fail(err, LATHE_EBUSY, "bus %s: there is a service '%s' already; remove it first", d->bus,
                          service->name);
    if (service->with && (status = directory_find(d, service->with, &with, err)) != LATHE_OK)
        return status;
    s = lathe_alloc(d->host, sizeof *s);
    if (s) {
        s->what = service;
        s->with = with ? with->with : s;
        s->endpoints = lathe_alloc_array(d->host, service->method_count, sizeof *s->endpoints);
        s->names = lathe_alloc_array(d->host, service->method_count, DIRECTORY_NAME_BYTES);
    }
    if (!s || !s->endpoints || !s->names) {
        directory_free(d, s);
        return lathe_fail(err, LATHE_ENOMEM, "bus %s: no memory for the endpoints of service '%s'", d->bus,
                          service->name);
    }
    for (uint32_t i = 0; i < service->method_count; i++) {
        const struct lathe_service_method *m = &service->methods[i];
        char *name = s->names + (size_t)i * DIRECTORY_NAME_BYTES;
        snprintf(name, DIRECTORY_NAME_BYTES, "%s.%s", service->name, m->name);
        s->endpoints[i] = (struct lathe_endpoint){ .call = m->function, .self = m->self, .id = d->next_id++,
                                                   .name = name };
    }
    s->with->followers += s->with != s;
    link_last(d, s);
    *link = *added = s;
    return LATHE_OK;
}

int directory_find(struct directory *d, const char *name, struct directory_service **service, struct lathe_error *err)
{
    struct nearest nearest = { .asked = name };
    *service = *link_of(d, name, strlen(name));
    if (*service)
        return LATHE_OK;
    for (struct directory_service *s = d->services; s; s = s->next)
        consider(&nearest, s->what->name);
    if (!nearest.name)
        return lathe_fail(err, LATHE_ENOTFOUND, "bus %s: there is no service '%.128s'; none was added yet", d->bus,
                          name);
    return lathe_fail(err, LATHE_ENOTFOUND, "bus %s: there is no service '%.128s'; did you mean '%s'?", d->bus, name,
                      nearest.name);
}

int directory_remove(struct directory *d, const char *name, struct directory_service **removed,
                     struct lathe_error *err)
{
    struct directory_service *s;
    int status = directory_find(d, name, &s, err);
    if (status != LATHE_OK)
        return status;
    for (struct directory_service *other = d->services; other && s->followers; other = other->next)
        if (other != s && other->with == s)
            return lathe_fail(err, LATHE_EBUSY, "bus %s: service '%s' is served by the workers of '%s'; remove it "
                              "first", d->bus, other->what->name, name);
    *link_of(d, name, strlen(name)) = s->bucket;
    s->bucket = NULL;
    unlink_service(d, s);
    s->with->followers -= s->with != s;
    *removed = s;
    return LATHE_OK;
}

void directory_free(struct directory *d, struct directory_service *service)
{
    if (!service)
        return;
    lathe_free(d->host, service->endpoints);
    lathe_free(d->host, service->names);
    lathe_free(d->host, service);
}

int directory_resolve(struct directory *d, const char *name, const struct lathe_endpoint **endpoint,
                      struct lathe_error *err)
{
    struct nearest nearest = { .asked = name };
    for (size_t dot = strlen(name); dot-- > 0;) { /* either name may have dots in it */
        struct directory_service *s = name[dot] == '.' ? *link_of(d, name, dot) : NULL;
        for (uint32_t i = 0; s && i < s->what->method_count; i++)
            if (!strcmp(s->what->methods[i].name, name + dot + 1)) {
                *endpoint = &s->endpoints[i];
                return LATHE_OK;
            }
    }
    for (struct directory_service *s = d->services; s; s = s->next)
        for (uint32_t i = 0; i < s->what->method_count; i++)
            consider(&nearest, s->endpoints[i].name);
    if (!nearest.name)
        return lathe_fail(err, LATHE_ENOTFOUND, "bus %s: there is no endpoint '%.128s'; no service was added yet",
                          d->bus, name);
    return lathe_fail(err, LATHE_ENOTFOUND, "bus %s: there is no endpoint '%.128s'; did you mean '%s'?", d->bus, name,
                      nearest.name);
}

struct lathe_message *heap_loan(const struct lathe_host *host, const char *bus, size_t bytes, struct lathe_error *err)
{
    struct lathe_message *m;
    if (bytes < sizeof *m) {
        lathe_fail(err, LATHE_EINVAL, "bus %s: a loan of %zu bytes holds no message header, which takes %zu", bus,
                   bytes, sizeof *m);
        return NULL;
    }
    m = host->alloc(host->context, bytes, 64);
    if (!m) {
        lathe_fail(err, LATHE_ENOMEM, "bus %s: no memory for a message of %zu bytes", bus, bytes);
        return NULL;
    }
    *m = (struct lathe_message){ .capacity = bytes };
    return m;
}
