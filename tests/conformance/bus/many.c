/* SPDX-License-Identifier: MIT */
/* Calls in two halves: in batches, polled for, too many, waited for twice or not long enough. */
#include "office.h"

enum { MANY = 200, FLOOD = 8192, BATCH = 16 };

static struct letter *in[MANY], *out[MANY];
static uint64_t tickets[FLOOD];

static void write_letters(void *bus, uint64_t seed)
{
    struct dice d = { .seed = seed };
    for (int i = 0; i < MANY; i++) {
        in[i] = write_letter(bus, &d, i % 7 == 3 ? 0 : 1 + (uint32_t)i); /* some fail */
        out[i] = write_letter(bus, &d, 0);
    }
}

static void give_letters_back(void *bus)
{
    for (int i = 0; i < MANY; i++) {
        api->give_back(bus, &in[i]->head);
        api->give_back(bus, &out[i]->head);
    }
}

static void check_status(int i, int status)
{
    CHECK(status == (in[i]->count ? LATHE_OK : LATHE_ERANGE), "call %d ended with %d", i, status);
    if (status == LATHE_OK)
        check_answer(in[i], out[i]);
}

void posts_many_and_waits_for_all(struct subject *s)
{
    struct lathe_error err = { 0 };
    void *bus = open_bus(s);
    const struct lathe_endpoint *endpoint = endpoint_of(bus, "office.increment");
    int statuses[MANY];
    write_letters(bus, 11);
    for (uint32_t sent = 0, batch = 1; sent < MANY; batch = batch * 2 + 1) {
        uint32_t wanted = batch < MANY - sent ? batch : MANY - sent, posted = 0;
        int fails = 0, status;
        CHECK_OK(api->post_many(bus, endpoint, (const void *const *)&in[sent], (void *const *)&out[sent], tickets,
                                wanted, &posted, &err), &err);
        CHECK(posted > 0 && posted <= wanted, "%u of %u were posted", posted, wanted);
        for (uint32_t i = 0; i < posted; i++)
            fails |= in[sent + i]->count == 0;
        err.message[0] = '\0';
        status = api->wait_many(bus, tickets, statuses, posted, &err);
        CHECK(status == (fails ? LATHE_ERANGE : LATHE_OK), "a batch ended with %d: %s", status, err.message);
        CHECK(!fails || !strcmp(err.message, "an empty letter"), "the sentence became: %s", err.message);
        for (uint32_t i = 0; i < posted; i++)
            check_status((int)(sent + i), statuses[i]);
        sent += posted;
    }
    CHECK(office_calls == MANY, "%d calls came through of %d", office_calls, MANY);
    give_letters_back(bus);
    api->destroy(bus);
}

/* While its workers, if there are any, stand at the gate, so that full stays full. */
void pushes_back_when_full(struct subject *s)
{
    struct lathe_error err = { 0 };
    struct dice d = { .seed = 4 };
    void *bus = open_bus(s);
    const struct lathe_endpoint *endpoint = endpoint_of(bus, "office.gated");
    struct letter *question = write_letter(bus, &d, 3);
    static struct letter *reply[FLOOD]; /* each call's own */
    const void *same[BATCH];
    uint32_t n = 0, loaned = 0, posted = 0, waited = 0;
    int status = LATHE_OK;
    office_gate = !has_workers(bus);
    for (int i = 0; i < BATCH; i++)
        same[i] = question;
    while (n + BATCH <= FLOOD) {
        for (; loaned < n + BATCH; loaned++)
            reply[loaned] = write_letter(bus, &d, 0);
        status = api->post_many(bus, endpoint, same, (void *const *)&reply[n], tickets + n, BATCH, &posted, &err);
        if (status != LATHE_OK)
            break;
        CHECK(posted > 0, "a batch of which nothing was posted is LATHE_OK");
        n += posted;
    }
    CHECK(status == LATHE_EFULL, "%u calls may be under way, and then: %d", n, status);
    CHECK(err.message[0] && posted == 0, "full, but %u were posted: %s", posted, err.message);
    CHECK_FAILS(api->post(bus, endpoint, question, reply[n], &tickets[n], &err), LATHE_EFULL, &err);
    CHECK(n >= 8, "only %u calls may be under way", n);
    office_gate = 1;
    for (status = LATHE_EFULL; status == LATHE_EFULL && waited < n; waited++) { /* which makes room */
        CHECK_OK(api->wait(bus, tickets[waited], -1, &err), &err);
        check_answer(question, reply[waited]);
        status = api->post(bus, endpoint, question, reply[n], &tickets[n], &err);
    }
    CHECK_OK(status, &err);
    for (uint32_t i = waited; i <= n; i++) {
        CHECK_OK(api->wait(bus, tickets[i], -1, &err), &err);
        check_answer(question, reply[i]);
    }
    CHECK(office_calls == (int)n + 1, "%d calls came through of %u", office_calls, n + 1);
    while (loaned > 0)
        api->give_back(bus, &reply[--loaned]->head);
    api->give_back(bus, &question->head);
    api->destroy(bus);
}

/* As <lathe/bus.h> says: begin with 0, look at the tickets after each return. */
void poll_misses_no_completion(struct subject *s)
{
    enum { UNDER_WAY = 8, SECOND = 1000000000 };
    struct lathe_error err = { 0 };
    void *bus = open_bus(s);
    const struct lathe_endpoint *endpoint = endpoint_of(bus, "office.increment");
    uint64_t seen = 0;
    int next = 0, done = 0, number[UNDER_WAY];
    uint64_t ticket[UNDER_WAY] = { 0 };
    write_letters(bus, 12);
    while (done < MANY) {
        for (int k = 0; k < UNDER_WAY && next < MANY; k++)
            if (!ticket[k]) {
                CHECK_OK(api->post(bus, endpoint, in[next], out[next], &ticket[k], &err), &err);
                number[k] = next++;
            }
        CHECK(api->poll(bus, &seen, (int64_t)60 * SECOND) == LATHE_OK, "%d calls are done of %d posted: none is told",
              done, next);
        for (int k = 0; k < UNDER_WAY; k++) {
            int status = ticket[k] ? api->wait(bus, ticket[k], 0, &err) : LATHE_EBUSY;
            if (status == LATHE_EBUSY)
                continue;
            check_status(number[k], status);
            ticket[k] = 0;
            done++;
        }
    }
    int status = LATHE_OK;
    for (int i = 0; i < 1000 && status == LATHE_OK; i++) /* nothing changes any more */
        status = api->poll(bus, &seen, 0);
    CHECK(status == LATHE_EBUSY, "a poll for nothing: %d", status);
    give_letters_back(bus);
    api->destroy(bus);
}

void a_stale_ticket_spoils_no_other(struct subject *s)
{
    struct lathe_error err = { 0 };
    struct dice d = { .seed = 13 };
    void *bus = open_bus(s);
    const struct lathe_endpoint *endpoint = endpoint_of(bus, "office.increment");
    struct letter *question = write_letter(bus, &d, 9);
    struct letter *reply[2] = { write_letter(bus, &d, 0), write_letter(bus, &d, 0) };
    uint64_t three[3];
    int statuses[3] = { 1, 1, 1 };
    CHECK_OK(api->post(bus, endpoint, question, reply[0], &three[1], &err), &err);
    CHECK_OK(api->wait(bus, three[1], -1, &err), &err);
    CHECK_OK(api->post(bus, endpoint, question, reply[0], &three[0], &err), &err);
    CHECK_OK(api->post(bus, endpoint, question, reply[1], &three[2], &err), &err);
    CHECK(three[0] != three[1] && three[2] != three[1], "a ticket was given out twice");
    err.message[0] = '\0';
    CHECK(api->wait_many(bus, three, statuses, 3, &err) == LATHE_ENOTFOUND && err.message[0],
          "no word of the stale one");
    CHECK(statuses[0] == LATHE_OK && statuses[1] == LATHE_ENOTFOUND && statuses[2] == LATHE_OK, "%d, %d, %d",
          statuses[0], statuses[1], statuses[2]);
    for (uint64_t ticket = 0; ticket < 3; ticket++)
        CHECK_FAILS(api->wait(bus, ticket == 0 ? 0 : ticket == 1 ? UINT64_MAX : three[0], 0, &err), LATHE_ENOTFOUND,
                    &err);
    api->give_back(bus, &question->head);
    api->give_back(bus, &reply[0]->head);
    api->give_back(bus, &reply[1]->head);
    api->destroy(bus);
}

/* On a bus with workers: one is kept busy. */
void waits_no_longer_than_told(struct subject *s)
{
    struct lathe_error err = { 0 };
    struct dice d = { .seed = 14 };
    void *bus = open_bus(s);
    const struct lathe_endpoint *endpoint = endpoint_of(bus, "office.gated");
    struct letter *question = write_letter(bus, &d, 9), *reply = write_letter(bus, &d, 0);
    uint64_t ticket;
    office_gate = !has_workers(bus);
    CHECK_OK(api->post(bus, endpoint, question, reply, &ticket, &err), &err);
    if (!office_gate) {
        CHECK_FAILS(api->wait(bus, ticket, 0, &err), LATHE_EBUSY, &err);
        CHECK_FAILS(api->wait(bus, ticket, 2000000, &err), LATHE_EBUSY, &err);
        office_gate = 1;
    }
    CHECK_OK(api->wait(bus, ticket, -1, &err), &err);
    check_answer(question, reply);
    api->give_back(bus, &question->head);
    api->give_back(bus, &reply->head);
    api->destroy(bus);
}
