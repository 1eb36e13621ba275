/* SPDX-License-Identifier: MIT */
/* What every bus must keep: the same bytes arrive, the same status and sentence come back,
 * names are found or refused with advice, loans are aligned and given back. Batches, envelope
 * and workers are in bus/. */
#include "bus/office.h"

static void brings_the_same_bytes_there_and_back(struct subject *s)
{
    struct lathe_error err = { 0 };
    struct dice d = { .seed = 1 };
    void *bus = open_bus(s);
    const struct lathe_endpoint *endpoint;
    struct lathe_endpoint_stats stats;
    CHECK_OK(api->resolve(bus, "office.increment", &endpoint, &err), &err);
    CHECK(!strcmp(endpoint->name, "office.increment"), "it is named %s", endpoint->name);
    office_calls = 0;
    for (int i = 0; i < 200; i++) {
        struct letter *in = write_letter(bus, &d, 1 + roll(&d, LETTER_BYTES)), *out = write_letter(bus, &d, 0);
        CHECK_OK(endpoint->call(endpoint->self, in, out, &err), &err);
        check_answer(in, out);
        api->give_back(bus, &in->head);
        api->give_back(bus, &out->head);
    }
    CHECK(office_calls == 200, "200 calls came through as %d", office_calls);
    api->stats(bus, endpoint, &stats);
    CHECK(stats.calls == (is_direct(s) ? 0 : 200), "%llu calls were counted", (unsigned long long)stats.calls);
    CHECK(stats.failures == 0, "%llu failures were counted", (unsigned long long)stats.failures);
    api->destroy(bus);
}

static void brings_back_a_failure_and_its_sentence(struct subject *s)
{
    struct lathe_error err = { 0 };
    struct dice d = { .seed = 2 };
    void *bus = open_bus(s);
    const struct lathe_endpoint *endpoint;
    struct letter *in = write_letter(bus, &d, 0), *out = write_letter(bus, &d, 0);
    uint64_t ticket;
    CHECK_OK(api->resolve(bus, "office.increment", &endpoint, &err), &err);
    CHECK_FAILS(endpoint->call(endpoint->self, in, out, &err), LATHE_ERANGE, &err);
    CHECK(!strcmp(err.message, "an empty letter"), "the sentence became: %s", err.message);
    CHECK_OK(api->post(bus, endpoint, in, out, &ticket, &err), &err);
    CHECK_FAILS(api->wait(bus, ticket, -1, &err), LATHE_ERANGE, &err);
    CHECK(!strcmp(err.message, "an empty letter"), "the sentence became: %s", err.message);
    api->give_back(bus, &in->head);
    api->give_back(bus, &out->head);
    api->give_back(bus, NULL);
    api->destroy(bus);
}

static void answers_posted_calls_in_any_order(struct subject *s)
{
    struct lathe_error err = { 0 };
    struct dice d = { .seed = 3 };
    void *bus = open_bus(s);
    const struct lathe_endpoint *endpoint;
    struct letter *in[8], *out[8];
    uint64_t tickets[8];
    CHECK_OK(api->resolve(bus, "office.increment", &endpoint, &err), &err);
    for (int i = 0; i < 8; i++) {
        in[i] = write_letter(bus, &d, 10 + (uint32_t)i);
        out[i] = write_letter(bus, &d, 0);
        CHECK_OK(api->post(bus, endpoint, in[i], out[i], &tickets[i], &err), &err);
        for (int j = 0; j < i; j++)
            CHECK(tickets[i] != tickets[j], "two calls have ticket %llu", (unsigned long long)tickets[i]);
    }
    for (int i = 7; i >= 0; i--) {
        CHECK_OK(api->wait(bus, tickets[i], -1, &err), &err);
        check_answer(in[i], out[i]);
        CHECK(api->wait(bus, tickets[i], 0, &err) < 0, "a ticket was good twice");
        api->give_back(bus, &in[i]->head);
        api->give_back(bus, &out[i]->head);
    }
    CHECK_FAILS(api->wait(bus, 987654321, 0, &err), LATHE_ENOTFOUND, &err);
    api->destroy(bus);
}

static void suggests_the_nearest_of_unknown_names(struct subject *s)
{
    struct lathe_error err = { 0 };
    void *bus = open_bus(s);
    const struct lathe_endpoint *endpoint = NULL;
    static const char *const unknown[] = { "office.incremnt", "offic.increment", "office.incrementt" };
    for (int i = 0; i < 3; i++) {
        CHECK_FAILS(api->resolve(bus, unknown[i], &endpoint, &err), LATHE_ENOTFOUND, &err);
        CHECK(strstr(err.message, "office."), "no advice: %s", err.message);
    }
    CHECK_FAILS(api->resolve(bus, "", &endpoint, &err), LATHE_ENOTFOUND, &err);
    CHECK_FAILS(api->resolve(bus, "office", &endpoint, &err), LATHE_ENOTFOUND, &err);
    CHECK(!endpoint, "an endpoint was made up");
    api->destroy(bus);
}

static void knows_a_service_until_it_is_removed(struct subject *s)
{
    struct lathe_error err = { 0 };
    void *bus = open_bus(s);
    const struct lathe_endpoint *endpoint;
    struct lathe_service other = office;
    char name[8];
    CHECK_FAILS(api->add_service(bus, &office, &err), LATHE_EBUSY, &err);
    for (int i = 0; i < 10; i++) { /* come and go */
        snprintf(name, sizeof name, "s%d", i);
        other.name = name;
        CHECK_OK(api->add_service(bus, &other, &err), &err);
        snprintf(name, sizeof name, "s%d", i); /* the string is borrowed, and still there */
        CHECK_OK(api->remove_service(bus, name, &err), &err);
    }
    CHECK_FAILS(api->remove_service(bus, "s3", &err), LATHE_ENOTFOUND, &err);
    CHECK_OK(api->remove_service(bus, "office", &err), &err);
    CHECK_FAILS(api->resolve(bus, "office.increment", &endpoint, &err), LATHE_ENOTFOUND, &err);
    CHECK_OK(api->add_service(bus, &office, &err), &err);
    CHECK_OK(api->resolve(bus, "office.refuse", &endpoint, &err), &err);
    api->destroy(bus);
}

static void refuses_a_loan_without_room_for_a_header(struct subject *s)
{
    struct lathe_error err = { 0 };
    void *bus = open_bus(s);
    CHECK(!api->loan(bus, 8, &err) && err.code == LATHE_EINVAL && err.message[0], "a loan of 8 bytes");
    err.message[0] = '\0';
    CHECK(!api->loan(bus, SIZE_MAX / 2 + 1, &err) && err.code == LATHE_ENOMEM && err.message[0],
          "a loan of everything");
    api->destroy(bus);
}

static int life(struct subject *s, struct lathe_error *err)
{
    const struct lathe_endpoint *endpoint;
    struct lathe_message *in = NULL, *out = NULL;
    void *bus;
    int status = subject_try_create(s, &bus, err);
    api = (const void *)s->head;
    if (status != LATHE_OK)
        return status;
    if ((status = api->add_service(bus, &office, err)) == LATHE_OK &&
        (status = api->resolve(bus, "office.increment", &endpoint, err)) == LATHE_OK) {
        in = api->loan(bus, sizeof(struct letter), err);
        out = in ? api->loan(bus, sizeof(struct letter), err) : NULL;
        status = out ? LATHE_OK : err->code;
        api->give_back(bus, in);
        api->give_back(bus, out);
    }
    api->destroy(bus);
    return status;
}

int main(int argc, char **argv)
{
#define BEHAVIOUR(name) { #name, name }
    static const struct behaviour behaviours[] = {
        BEHAVIOUR(brings_the_same_bytes_there_and_back),
        BEHAVIOUR(brings_back_a_failure_and_its_sentence),
        BEHAVIOUR(answers_posted_calls_in_any_order),
        BEHAVIOUR(suggests_the_nearest_of_unknown_names),
        BEHAVIOUR(knows_a_service_until_it_is_removed),
        BEHAVIOUR(refuses_a_loan_without_room_for_a_header),
        BEHAVIOUR(posts_many_and_waits_for_all),
        BEHAVIOUR(pushes_back_when_full),
        BEHAVIOUR(poll_misses_no_completion),
        BEHAVIOUR(a_stale_ticket_spoils_no_other),
        BEHAVIOUR(waits_no_longer_than_told),
        BEHAVIOUR(refuses_a_passed_deadline_without_calling),
        BEHAVIOUR(retries_what_may_be_retried),
        BEHAVIOUR(makes_a_positive_status_a_broken_promise),
        BEHAVIOUR(opens_its_breaker_and_closes_it_again),
        BEHAVIOUR(tells_one_hop_an_attempt),
        BEHAVIOUR(says_how_a_service_is),
        BEHAVIOUR(runs_a_local_service_on_its_callers_thread),
        BEHAVIOUR(lets_services_share_workers),
        BEHAVIOUR(scales_while_calls_run),
        BEHAVIOUR(finishes_calls_before_it_removes),
    };
    return conformance(argc, argv, LATHE_KIND_BUS, LATHE_BUS_ABI, sizeof(struct lathe_bus_api), behaviours,
                       sizeof behaviours / sizeof *behaviours, life);
}
