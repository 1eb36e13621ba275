/* SPDX-License-Identifier: MIT */
/* The service that the bus's conformance tests call: an office with a letter as message. */
#ifndef TESTS_CONFORMANCE_BUS_OFFICE_H
#define TESTS_CONFORMANCE_BUS_OFFICE_H

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include <lathe/bus.h>

#include "../harness.h"

enum { LETTER_BYTES = 5000 };

extern const struct lathe_bus_api *api;

struct letter {
    struct lathe_message head;
    uint32_t count;
    unsigned char bytes[LETTER_BYTES];
};

/* increment: answers with every byte plus one; a count of 0 is LATHE_ERANGE, "an empty letter".
 * refuse: LATHE_EUNSUPPORTED. shaky, which may be repeated: as office_shaky says. gated: as
 * increment, but waits until office_gate is open. who: like increment, and notes its thread. */
extern struct lathe_service office;
extern _Atomic int office_calls; /* of increment and gated */
extern _Atomic int office_begun; /* of gated: inside, or done */
extern _Atomic int office_gate;  /* 1: open */
extern struct office_shaky {
    _Atomic int failures; /* so many are left; then it succeeds */
    _Atomic int status;   /* of a failure */
    _Atomic int calls;
} office_shaky;
extern pthread_t office_thread; /* that who ran on */

/* A bus with the office. Sets `api`. */
void *open_bus(struct subject *s);
/* Resolved, or the program ends. */
const struct lathe_endpoint *endpoint_of(void *bus, const char *name);
/* On loan, with `count` random bytes. */
struct letter *write_letter(void *bus, struct dice *d, uint32_t count);
void check_answer(const struct letter *question, const struct letter *answer);

/* What kind of bus it is. */
int is_direct(const struct subject *s);
int has_envelope(const struct subject *s);
int has_workers(void *bus); /* calls run elsewhere than on their caller's thread */

static inline void nap(int64_t ns)
{
    nanosleep(&(struct timespec){ .tv_nsec = ns }, NULL);
}

/* ── The behaviours of the other files ──────────────────────────────────────────────── */

void posts_many_and_waits_for_all(struct subject *s);
void pushes_back_when_full(struct subject *s);
void poll_misses_no_completion(struct subject *s);
void a_stale_ticket_spoils_no_other(struct subject *s);
void waits_no_longer_than_told(struct subject *s);

void refuses_a_passed_deadline_without_calling(struct subject *s);
void retries_what_may_be_retried(struct subject *s);
void makes_a_positive_status_a_broken_promise(struct subject *s);
void opens_its_breaker_and_closes_it_again(struct subject *s);
void tells_one_hop_an_attempt(struct subject *s);
void says_how_a_service_is(struct subject *s);

void runs_a_local_service_on_its_callers_thread(struct subject *s);
void lets_services_share_workers(struct subject *s);
void scales_while_calls_run(struct subject *s);
void finishes_calls_before_it_removes(struct subject *s);

#endif
