/* SPDX-License-Identifier: MIT */
/* What every bus but `direct` puts around a call: deadline, retry, breaker, counters, observer.
 * The clock is the test's own (counting_host.h). */
#include "office.h"

static const int64_t MS = 1000000;

/* One call of a letter, and what became of it. */
static int call(void *bus, const char *name, struct lathe_message head, struct lathe_error *err)
{
    struct dice d = { .seed = 21 };
    const struct lathe_endpoint *endpoint = endpoint_of(bus, name);
    struct letter *in = write_letter(bus, &d, 5), *out = write_letter(bus, &d, 0);
    in->head.deadline_ns = head.deadline_ns;
    in->head.correlation = head.correlation;
    in->head.flags = head.flags;
    err->message[0] = '\0';
    int status = endpoint->call(endpoint->self, in, out, err);
    CHECK(status == LATHE_OK || err->message[0], "%s failed with %d and no sentence", name, status);
    if (status == LATHE_OK)
        check_answer(in, out);
    api->give_back(bus, &in->head);
    api->give_back(bus, &out->head);
    return status;
}

static int plain(void *bus, const char *name, struct lathe_error *err)
{
    return call(bus, name, (struct lathe_message){ 0 }, err);
}

static struct lathe_endpoint_stats stats_of(void *bus, const char *name)
{
    struct lathe_endpoint_stats stats;
    memset(&stats, 0xff, sizeof stats);
    api->stats(bus, endpoint_of(bus, name), &stats);
    return stats;
}

static struct lathe_service_health health_of(void *bus)
{
    struct lathe_error err = { 0 };
    struct lathe_service_health health = { .size = sizeof health };
    CHECK_OK(api->health(bus, "office", &health, &err), &err);
    return health;
}

void refuses_a_passed_deadline_without_calling(struct subject *s)
{
    struct lathe_error err = { 0 };
    struct dice d = { .seed = 22 };
    void *bus = open_bus(s);
    struct letter *in = write_letter(bus, &d, 5), *out = write_letter(bus, &d, 0);
    uint64_t ticket;
    s->host.now_ns += 10 * MS;
    in->head.deadline_ns = s->host.now_ns - MS;
    int status = call(bus, "office.increment", in->head, &err);
    CHECK(status == (is_direct(s) ? LATHE_OK : LATHE_EDEADLINE), "a call after its deadline: %d", status);
    CHECK(office_calls == is_direct(s), "it was begun");
    status = api->post(bus, endpoint_of(bus, "office.increment"), in, out, &ticket, &err);
    status = status == LATHE_OK ? api->wait(bus, ticket, -1, &err) : status;
    CHECK(status == (is_direct(s) ? LATHE_OK : LATHE_EDEADLINE), "a post after its deadline: %d", status);
    CHECK(office_calls == 2 * is_direct(s), "it was begun");
    if (!is_direct(s)) {
        struct lathe_endpoint_stats stats = stats_of(bus, "office.increment");
        CHECK(stats.calls == 0 && stats.expired == 2, "%llu calls, %llu expired", (unsigned long long)stats.calls,
              (unsigned long long)stats.expired);
    }
    struct lathe_message later = { .deadline_ns = s->host.now_ns + (int64_t)3600 * 1000 * MS };
    CHECK_OK(call(bus, "office.increment", later, &err), &err);
    api->give_back(bus, &in->head);
    api->give_back(bus, &out->head);
    api->destroy(bus);
}

/* shaky may be repeated, so that it is; increment wasn't said to be. */
void retries_what_may_be_retried(struct subject *s)
{
    static const struct { int status; uint32_t flags; int failures, calls, ends; } table[] = {
        { LATHE_EIO, 0, 2, 3, LATHE_OK },
        { LATHE_EBUSY, 0, 2, 3, LATHE_OK },
        { LATHE_EUNAVAILABLE, 0, 1, 2, LATHE_OK },
        { LATHE_EIO, 0, 9, 3, LATHE_EIO },
        { LATHE_EIO, LATHE_MESSAGE_ONCE, 1, 1, LATHE_EIO },
        { LATHE_ERANGE, 0, 1, 1, LATHE_ERANGE },
    };
    struct lathe_error err = { 0 };
    if (!has_envelope(s))
        return;
    subject_set(s, "retry_attempts", "3");
    subject_set(s, "retry_base_ms", "0.01");
    subject_set(s, "breaker_window", "0");
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        void *bus = open_bus(s);
        office_shaky.status = table[i].status;
        office_shaky.failures = table[i].failures;
        int status = call(bus, "office.shaky", (struct lathe_message){ .flags = table[i].flags }, &err);
        struct lathe_endpoint_stats stats = stats_of(bus, "office.shaky");
        CHECK(status == table[i].ends && office_shaky.calls == table[i].calls, "row %zu: %d after %d calls", i,
              status, office_shaky.calls);
        CHECK(stats.calls == (uint64_t)table[i].calls && stats.retries == stats.calls - 1,
              "row %zu: %llu, %llu again", i, (unsigned long long)stats.calls, (unsigned long long)stats.retries);
        api->destroy(bus);
    }
    void *bus = open_bus(s); /* a posted call, too */
    struct dice d = { .seed = 23 };
    struct letter *in = write_letter(bus, &d, 5), *out = write_letter(bus, &d, 0);
    uint64_t ticket;
    office_shaky.status = LATHE_EIO;
    office_shaky.failures = 2;
    CHECK_OK(api->post(bus, endpoint_of(bus, "office.shaky"), in, out, &ticket, &err), &err);
    CHECK_OK(api->wait(bus, ticket, -1, &err), &err);
    check_answer(in, out);
    CHECK(office_shaky.calls == 3, "%d calls", office_shaky.calls);
    api->give_back(bus, &in->head);
    api->give_back(bus, &out->head);
    api->destroy(bus);
}

void makes_a_positive_status_a_broken_promise(struct subject *s)
{
    struct lathe_error err = { 0 };
    void *bus = open_bus(s);
    office_shaky.status = 5;
    office_shaky.failures = 1;
    int status = plain(bus, "office.shaky", &err);
    CHECK(status == (is_direct(s) ? 5 : LATHE_EINTERNAL), "status 5 became %d: %s", status, err.message);
    api->destroy(bus);
}

void opens_its_breaker_and_closes_it_again(struct subject *s)
{
    struct lathe_error err = { 0 };
    struct lathe_service_health health;
    if (!has_envelope(s))
        return;
    subject_set(s, "retry_attempts", "1");
    subject_set(s, "breaker_window", "4");
    subject_set(s, "breaker_minimum", "2");
    subject_set(s, "breaker_open_ms", "1000");
    void *bus = open_bus(s);
    office_shaky.status = LATHE_EIO;
    office_shaky.failures = 2;
    health = health_of(bus);
    CHECK(health.breaker == LATHE_BREAKER_CLOSED && health.ready && health.last_error_ns == 0,
          "it isn't well at first");
    for (int i = 0; i < 2; i++)
        CHECK_FAILS(plain(bus, "office.shaky", &err), LATHE_EIO, &err);
    health = health_of(bus);
    CHECK(health.breaker == LATHE_BREAKER_OPEN && !health.ready, "two of two failed, and the breaker is %d",
          health.breaker);
    CHECK(health.last_error_ns > 0 && health.last_error.code == LATHE_EIO &&
              !strcmp(health.last_error.message, "the lamp is out"), "its last error: %s", health.last_error.message);
    CHECK_FAILS(plain(bus, "office.shaky", &err), LATHE_EUNAVAILABLE, &err);
    CHECK_FAILS(plain(bus, "office.increment", &err), LATHE_EUNAVAILABLE, &err); /* it is the service's */
    CHECK(office_shaky.calls == 2 && office_calls == 0, "an open breaker let a call through");
    CHECK(stats_of(bus, "office.shaky").refused == 1, "refusals aren't counted");
    s->host.now_ns += 1001 * MS;
    CHECK_OK(plain(bus, "office.shaky", &err), &err); /* the trial */
    CHECK(health_of(bus).breaker == LATHE_BREAKER_CLOSED, "the trial succeeded, and the breaker is %d",
          health_of(bus).breaker);
    CHECK_OK(plain(bus, "office.increment", &err), &err);
    api->destroy(bus);
}

/* ── The observer ───────────────────────────────────────────────────────────────────── */

static struct lathe_hop hops[16];
static uint32_t hop_count;
static pthread_t hop_thread;

static void on_hop(void *context, const struct lathe_hop *hop)
{
    CHECK(context == hops, "the observer's context is another");
    hop_thread = pthread_self();
    hops[hop_count++ % 16] = *hop;
}

void tells_one_hop_an_attempt(struct subject *s)
{
    struct lathe_bus_observer observer = { .size = sizeof observer, .context = hops, .hop = on_hop };
    struct lathe_error err = { 0 };
    subject_set(s, "retry_base_ms", "0.01");
    subject_set(s, "breaker_window", "0");
    void *bus = open_bus(s);
    api->observe(bus, &observer);
    hop_count = 0;
    office_shaky.status = LATHE_EIO;
    office_shaky.failures = has_envelope(s) ? 2 : 0;
    CHECK_OK(call(bus, "office.shaky", (struct lathe_message){ .correlation = 77 }, &err), &err);
    CHECK(hop_count == (uint32_t)(is_direct(s) ? 0 : has_envelope(s) ? 3 : 1), "%u hops", hop_count);
    for (uint32_t i = 0; i < hop_count; i++) {
        const struct lathe_hop *h = &hops[i];
        CHECK(h->endpoint == endpoint_of(bus, "office.shaky") && h->correlation == 77 && h->attempt == i + 1,
              "hop %u", i);
        CHECK(h->status == (i + 1 < hop_count ? LATHE_EIO : LATHE_OK), "hop %u has status %d", i, h->status);
        CHECK(0 < h->sent_ns && h->sent_ns <= h->started_ns && h->started_ns <= h->ended_ns,
              "hop %u: %lld, %lld, %lld", i, (long long)h->sent_ns, (long long)h->started_ns, (long long)h->ended_ns);
        CHECK(i == 0 || h->sent_ns >= hops[i - 1].ended_ns, "attempt %u began before the one before ended", i + 1);
        CHECK((h->worker != 0) == has_workers(bus), "hop %u: worker %u", i, h->worker);
        CHECK(h->bytes >= sizeof(struct letter), "hop %u: %llu bytes", i, (unsigned long long)h->bytes);
        CHECK(pthread_equal(hop_thread, pthread_self()), "it was told on another thread than the caller's");
    }
    if (!is_direct(s)) { /* a posted call's hop is told by the time it was waited for */
        struct dice d = { .seed = 24 };
        struct letter *in = write_letter(bus, &d, 0), *out = write_letter(bus, &d, 0);
        uint64_t ticket;
        hop_count = 0;
        CHECK_OK(api->post(bus, endpoint_of(bus, "office.increment"), in, out, &ticket, &err), &err);
        CHECK_FAILS(api->wait(bus, ticket, -1, &err), LATHE_ERANGE, &err);
        CHECK(hop_count == 1 && hops[0].status == LATHE_ERANGE && hops[0].attempt == 1, "%u hops of a post",
              hop_count);
        api->give_back(bus, &in->head);
        api->give_back(bus, &out->head);
    }
    api->observe(bus, NULL);
    hop_count = 0;
    CHECK_OK(plain(bus, "office.increment", &err), &err);
    CHECK(hop_count == 0, "nobody looks, and somebody was told");
    api->destroy(bus);
}

void says_how_a_service_is(struct subject *s)
{
    struct lathe_error err = { 0 };
    struct lathe_service_health health = { .size = sizeof health };
    void *bus = open_bus(s);
    CHECK_FAILS(api->health(bus, "offce", &health, &err), LATHE_ENOTFOUND, &err);
    CHECK_FAILS(api->scale(bus, "offce", 2, &err), LATHE_ENOTFOUND, &err);
    health = health_of(bus);
    CHECK(health.alive && health.ready && health.breaker == LATHE_BREAKER_CLOSED, "alive %d, ready %d, breaker %d",
          health.alive, health.ready, health.breaker);
    CHECK(health.workers_wanted == 1 && health.workers <= 1 && health.restarts == 0 && health.queued == 0,
          "%u workers of %u, %u restarts, %u queued", health.workers, health.workers_wanted, health.restarts,
          health.queued);
    CHECK(health.last_error_ns == 0, "an error before the first call");
    for (int i = 0; i < 300; i++)
        CHECK_OK(plain(bus, "office.increment", &err), &err);
    CHECK_FAILS(plain(bus, "office.refuse", &err), LATHE_EUNSUPPORTED, &err);
    struct lathe_endpoint_stats st = stats_of(bus, "office.increment"), none = stats_of(bus, "office.gated");
    if (!is_direct(s)) {
        CHECK(st.calls == 300 && st.failures == 0 && st.bytes == 300 * 2 * sizeof(struct letter),
              "%llu calls, %llu bytes", (unsigned long long)st.calls, (unsigned long long)st.bytes);
        CHECK(0 < st.p50_ns && st.p50_ns <= st.p90_ns && st.p90_ns <= st.p99_ns && st.p99_ns <= st.p999_ns,
              "quantiles: %lld, %lld, %lld, %lld", (long long)st.p50_ns, (long long)st.p90_ns, (long long)st.p99_ns,
              (long long)st.p999_ns);
        CHECK((double)st.p999_ns <= 1.04 * (double)st.max_ns && st.max_ns <= st.total_ns,
              "the longest took %lld of %lld", (long long)st.max_ns, (long long)st.total_ns);
        CHECK(stats_of(bus, "office.refuse").failures == 1, "a failure isn't counted");
    }
    CHECK(none.calls == 0 && none.p50_ns == 0 && none.max_ns == 0, "what was never called has figures");
    api->destroy(bus);
}
