/* SPDX-License-Identifier: MIT */
/* What every bus must keep: the same bytes arrive, the same status and sentence come back,
 * names are found or refused with advice, loans are aligned and given back. */
#include <lathe/bus.h>

#include "harness.h"

enum { BYTES = 5000 };

static const struct lathe_bus_api *api;

struct letter {
    struct lathe_message head;
    uint32_t count;
    unsigned char bytes[BYTES];
};

/* Answers with every byte plus one; a count of 0 is a failure with a sentence. */
static int increment(void *self, const void *in_, void *out_, struct lathe_error *err)
{
    const struct letter *in = in_;
    struct letter *out = out_;
    ++*(int *)self;
    if (in->count == 0)
        return lathe_fail(err, LATHE_ERANGE, "an empty letter");
    out->count = in->count;
    for (uint32_t i = 0; i < in->count; i++)
        out->bytes[i] = (unsigned char)(in->bytes[i] + 1);
    out->head.bytes = in->head.bytes;
    return LATHE_OK;
}

static int refuse(void *self, const void *in, void *out, struct lathe_error *err)
{
    (void)self, (void)in, (void)out;
    return lathe_fail(err, LATHE_EUNSUPPORTED, "never");
}

static int increments, refusals;
static struct lathe_service_method methods[] = { { "increment", increment, &increments }, { "refuse", refuse, &refusals } };
static struct lathe_service post_office = { .size = sizeof post_office, .name = "office", .methods = methods,
                                            .method_count = 2, .workers = 1 };

static struct letter *write_letter(void *bus, struct dice *d, uint32_t count)
{
    struct lathe_error err = { 0 };
    struct letter *l = (void *)api->loan(bus, sizeof *l, &err);
    CHECK(l, "%s", err.message);
    CHECK((uintptr_t)l % 64 == 0 && l->head.capacity >= sizeof *l && l->head.bytes == 0, "a loan of %llu bytes at %p",
          (unsigned long long)l->head.capacity, (void *)l);
    l->head.bytes = sizeof *l;
    l->count = count;
    for (uint32_t i = 0; i < count; i++)
        l->bytes[i] = (unsigned char)roll(d, 256);
    return l;
}

static void *open_bus(struct subject *s)
{
    struct lathe_error err = { 0 };
    void *bus = subject_create(s);
    api = (const void *)s->head;
    CHECK_OK(api->add_service(bus, &post_office, &err), &err);
    return bus;
}

static void check_answer(const struct letter *question, const struct letter *answer)
{
    CHECK(answer->count == question->count, "%u bytes came back of %u", answer->count, question->count);
    for (uint32_t i = 0; i < answer->count; i++)
        CHECK(answer->bytes[i] == (unsigned char)(question->bytes[i] + 1), "byte %u came back wrong", i);
}

static void brings_the_same_bytes_there_and_back(struct subject *s)
{
    struct lathe_error err = { 0 };
    struct dice d = { .seed = 1 };
    void *bus = open_bus(s);
    const struct lathe_endpoint *endpoint;
    struct lathe_endpoint_stats stats;
    CHECK_OK(api->resolve(bus, "office.increment", &endpoint, &err), &err);
    CHECK(!strcmp(endpoint->name, "office.increment"), "it is named %s", endpoint->name);
    increments = 0;
    for (int i = 0; i < 200; i++) {
        struct letter *in = write_letter(bus, &d, 1 + roll(&d, BYTES)), *out = write_letter(bus, &d, 0);
        CHECK_OK(endpoint->call(endpoint->self, in, out, &err), &err);
        check_answer(in, out);
        api->give_back(bus, &in->head);
        api->give_back(bus, &out->head);
    }
    CHECK(increments == 200, "200 calls came through as %d", increments);
    api->stats(bus, endpoint, &stats);
    CHECK(stats.calls == 0 || stats.calls == 200, "%llu calls were counted", (unsigned long long)stats.calls);
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

static void refuses_unwaited_posts_when_full(struct subject *s)
{
    struct lathe_error err = { 0 };
    struct dice d = { .seed = 4 };
    void *bus = open_bus(s);
    const struct lathe_endpoint *endpoint;
    struct letter *in = write_letter(bus, &d, 3), *out = write_letter(bus, &d, 0);
    static uint64_t tickets[10000];
    uint32_t n = 0;
    int status = LATHE_OK;
    CHECK_OK(api->resolve(bus, "office.increment", &endpoint, &err), &err);
    while (n < 10000 && (status = api->post(bus, endpoint, in, out, &tickets[n], &err)) == LATHE_OK)
        n++;
    CHECK(n == 10000 || status == LATHE_EFULL, "post %u: %d", n, status);
    CHECK(n >= 8, "only %u calls may be under way", n);
    while (n-- > 0)
        CHECK_OK(api->wait(bus, tickets[n], -1, &err), &err);
    api->give_back(bus, &in->head);
    api->give_back(bus, &out->head);
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
    struct lathe_service other = post_office;
    char name[8];
    CHECK_FAILS(api->add_service(bus, &post_office, &err), LATHE_EBUSY, &err);
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
    CHECK_OK(api->add_service(bus, &post_office, &err), &err);
    CHECK_OK(api->resolve(bus, "office.refuse", &endpoint, &err), &err);
    api->destroy(bus);
}

static void refuses_a_loan_without_room_for_a_header(struct subject *s)
{
    struct lathe_error err = { 0 };
    void *bus = open_bus(s);
    CHECK(!api->loan(bus, 8, &err) && err.code == LATHE_EINVAL && err.message[0], "a loan of 8 bytes");
    err.message[0] = '\0';
    CHECK(!api->loan(bus, SIZE_MAX / 2 + 1, &err) && err.code == LATHE_ENOMEM && err.message[0], "a loan of everything");
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
    if ((status = api->add_service(bus, &post_office, err)) == LATHE_OK &&
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
        BEHAVIOUR(refuses_unwaited_posts_when_full),
        BEHAVIOUR(suggests_the_nearest_of_unknown_names),
        BEHAVIOUR(knows_a_service_until_it_is_removed),
        BEHAVIOUR(refuses_a_loan_without_room_for_a_header),
    };
    return conformance(argc, argv, LATHE_KIND_BUS, LATHE_BUS_ABI, sizeof(struct lathe_bus_api), behaviours,
                       sizeof behaviours / sizeof *behaviours, life);
}
