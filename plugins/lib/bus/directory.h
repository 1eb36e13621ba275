/* SPDX-License-Identifier: MIT */
/* Names to services and endpoints: the part of a bus that all of them have. A bus keeps what
 * it needs of its own in `more` of each service and `call`, `self` of each endpoint.
 *
 * Everything here is [main]; an endpoint that was handed out stays where it is until its
 * service is removed. */
#ifndef LATHE_LIB_BUS_DIRECTORY_H
#define LATHE_LIB_BUS_DIRECTORY_H

#include <lathe/bus.h>

enum { DIRECTORY_NAME_BYTES = 128, DIRECTORY_BUCKETS = 1024 };

struct directory_service {
    struct directory_service *next, *prev;
    struct directory_service *bucket;    /* the next one whose name hashes alike */
    const struct lathe_service *what;    /* borrowed */
    struct directory_service *with;      /* whose workers serve it; itself if its own */
    struct lathe_endpoint *endpoints;    /* (what->method_count); call and self as for `direct` until changed */
    char *names;                         /* (what->method_count, DIRECTORY_NAME_BYTES) */
    uint32_t followers;                  /* others that go with it */
    void *more;                          /* the bus's */
};

struct directory {
    const struct lathe_host *host;
    const char *bus;                     /* "direct": who speaks in sentences */
    struct directory_service *services, *last; /* in order of adding */
    struct directory_service *buckets[DIRECTORY_BUCKETS]; /* by name: a fleet of 1,000 has 6,000 services */
    uint32_t next_id;
};

/* Checks and enters it. LATHE_EINVAL, LATHE_EBUSY (there is one of that name), LATHE_ENOTFOUND (`with`
 * is unknown), LATHE_ENOMEM. */
int directory_add(struct directory *d, const struct lathe_service *service, struct directory_service **added,
                  struct lathe_error *err);
/* LATHE_ENOTFOUND, naming the nearest. */
int directory_find(struct directory *d, const char *name, struct directory_service **service,
                   struct lathe_error *err);
/* LATHE_EBUSY while another goes with it. Unlinks it; `more` is the bus's to free before directory_free. */
int directory_remove(struct directory *d, const char *name, struct directory_service **removed,
                     struct lathe_error *err);
void directory_free(struct directory *d, struct directory_service *service);
/* "service.method"; LATHE_ENOTFOUND, naming the nearest endpoint. */
int directory_resolve(struct directory *d, const char *name, const struct lathe_endpoint **endpoint,
                      struct lathe_error *err);

/* Loans from the heap, for buses whose callers and workers share it. */
struct lathe_message *heap_loan(const struct lathe_host *host, const char *bus, size_t bytes,
                                struct lathe_error *err);

#endif
