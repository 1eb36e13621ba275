/* SPDX-License-Identifier: MIT */
/* What every router must keep, among eight replicas and among a thousand: the choice is a replica
 * that is ready; a request is held only while another one is under way that may make room; none
 * ready is said so; no ready replica is left out for good; and a replay chooses the same.
 *
 * A fleet stands for the deployment: what its replicas say of themselves is true after each call, so
 * a request that was routed is seen waiting there, and one that ended is told of and gone. */
#include <lathe/router.h>

#include "harness.h"

enum { FEW = 8, MANY = 1000, MOST_FLIGHTS = 4 * MANY };

static const struct lathe_router_api *api;
static void (*finished)(void *self, const struct lathe_request *req, uint32_t replica);

struct flight {
    struct lathe_request req;
    uint32_t replica;
};

struct fleet {
    void *self;
    struct lathe_replica r[MANY];
    uint32_t count, flights;
    struct flight flight[MOST_FLIGHTS];
    int32_t tokens[4][16]; /* prompts that begin alike */
};

static void *open_router(struct subject *s, uint32_t max_replicas)
{
    struct lathe_router_limits limits = { .size = sizeof limits, .max_replicas = max_replicas, .seed = 4 };
    struct lathe_error err = { 0 };
    void *self = subject_create(s);
    api = (const void *)s->head;
    finished = api->size >= offsetof(struct lathe_router_api, finished) + sizeof api->finished ? api->finished : NULL;
    CHECK_OK(api->bind(self, &limits, &err), &err);
    return self;
}

static struct fleet *open_fleet(struct subject *s, uint32_t count)
{
    struct fleet *f = calloc(1, sizeof *f);
    CHECK(f, "no memory for a fleet");
    f->self = open_router(s, count);
    f->count = count;
    for (uint32_t i = 0; i < count; i++)
        f->r[i] = (struct lathe_replica){ .id = i, .model = i % 3, .blocks_total = 100, .weight = 1000, .ready = 1 };
    for (int32_t i = 0; i < 4 * 16; i++)
        f->tokens[i / 16][i % 16] = i;
    return f;
}

static void close_fleet(struct fleet *f)
{
    api->destroy(f->self);
    free(f);
}

static struct lathe_request request(struct fleet *f, struct dice *d, uint64_t id)
{
    uint32_t prompt = roll(d, 5);
    return (struct lathe_request){ .size = sizeof(struct lathe_request), .id = id, .correlation = id * 77, .tenant = roll(d, 9),
                                   .session = roll(d, 50), .prompt_tokens = prompt < 4 ? 16 : 10,
                                   .tokens = prompt < 4 ? f->tokens[prompt] : NULL };
}

static void end_flight(struct fleet *f, uint32_t number)
{
    struct flight ended = f->flight[number];
    struct lathe_replica *r = &f->r[ended.replica];
    f->flight[number] = f->flight[--f->flights];
    r->waiting--;
    r->pending_tokens -= ended.req.prompt_tokens;
    if (finished)
        finished(f->self, &ended.req, ended.replica);
}

static uint32_t ready_ones(const struct fleet *f)
{
    uint32_t ready = 0;
    for (uint32_t i = 0; i < f->count; i++)
        ready += f->r[i].ready != 0;
    return ready;
}

/* Where it went, LATHE_ROUTER_HOLD, or f->count: nobody is ready. */
static uint32_t route(struct fleet *f, const struct lathe_request *req)
{
    struct lathe_error err = { 0 };
    uint32_t choice = f->count, ready = ready_ones(f);
    int status = api->route(f->self, req, f->r, f->count, &choice, &err);
    if (ready == 0) {
        CHECK(status == LATHE_EBUSY && err.message[0], "none ready: status %d", status);
        return f->count;
    }
    CHECK_OK(status, &err);
    if (choice == LATHE_ROUTER_HOLD) {
        CHECK(f->flights > 0, "request %llu is held while none is under way, so for ever", (unsigned long long)req->id);
        return choice;
    }
    CHECK(choice < f->count && f->r[choice].ready, "replica %u of %u was chosen", choice, f->count);
    f->flight[f->flights++] = (struct flight){ *req, choice };
    f->r[choice].waiting++;
    f->r[choice].pending_tokens += req->prompt_tokens;
    return choice;
}

/* As the deployment does with one that is held: again after each end. */
static uint32_t route_at_last(struct fleet *f, struct dice *d, const struct lathe_request *req)
{
    uint32_t choice;
    while ((choice = route(f, req)) == LATHE_ROUTER_HOLD)
        end_flight(f, roll(d, f->flights));
    return choice;
}

/* A day of `requests` among replicas that come and go; *digest is of all choices. */
static void day(struct fleet *f, uint64_t requests, uint64_t *digest)
{
    struct dice d = { .seed = 1 };
    for (uint64_t id = 1; id <= requests; id++) {
        struct lathe_request req = request(f, &d, id);
        if (roll(&d, 50) == 0) /* one is ill, or well again; now and then nearly all are */
            f->r[roll(&d, f->count)].ready ^= 1;
        if (roll(&d, 2000) == 0)
            for (uint32_t i = 0, left = roll(&d, 3); i < f->count; i++)
                f->r[i].ready = i % 7 < left;
        if (roll(&d, 1000) == 0)
            for (uint32_t i = 0; i < f->count; i++)
                f->r[i].ready = 1;
        *digest = *digest * 31 + route_at_last(f, &d, &req);
        for (uint32_t ends = f->flights == MOST_FLIGHTS ? 1 : roll(&d, 3); f->flights > 0 && ends > 0; ends--)
            end_flight(f, roll(&d, f->flights));
    }
}

static void chooses_only_a_ready_replica(struct subject *s)
{
    struct fleet *f = open_fleet(s, FEW);
    struct lathe_error err = { 0 };
    uint64_t digest = 0;
    day(f, 20000, &digest);
    for (uint32_t i = 0; i < f->count; i++)
        f->r[i].ready = 0;
    CHECK_FAILS(api->route(f->self, &(struct lathe_request){ .id = 1 }, f->r, f->count, &(uint32_t){ 0 }, &err), LATHE_EBUSY, &err);
    CHECK_FAILS(api->route(f->self, &(struct lathe_request){ .id = 1 }, NULL, 0, &(uint32_t){ 0 }, &err), LATHE_EBUSY, &err);
    close_fleet(f);
}

static void serves_a_thousand_replicas(struct subject *s)
{
    struct fleet *f = open_fleet(s, MANY);
    uint64_t digest = 0;
    day(f, 20000, &digest);
    close_fleet(f);
}

static void a_replay_chooses_the_same(struct subject *s)
{
    uint64_t digest[2] = { 0 };
    for (int i = 0; i < 2; i++) {
        struct fleet *f = open_fleet(s, 100);
        day(f, 5000, &digest[i]);
        close_fleet(f);
    }
    CHECK(digest[0] == digest[1], "the second time some choice was another");
}

/* More replicas than when it began, then fewer: the last ones have served what they had. */
static void follows_when_it_is_scaled(struct subject *s)
{
    struct fleet *f = open_fleet(s, 100);
    struct dice d = { .seed = 2 };
    uint64_t id = 1;
    for (int round = 0; round < 40; round++) {
        f->count = 1 + roll(&d, 100);
        for (int i = 0; i < 300; i++) {
            struct lathe_request req = request(f, &d, id++);
            route_at_last(f, &d, &req);
        }
        while (f->flights > 0)
            end_flight(f, 0);
    }
    close_fleet(f);
}

static void leaves_no_ready_replica_out(struct subject *s)
{
    struct fleet *f = open_fleet(s, FEW);
    struct dice d = { .seed = 3 };
    uint32_t times[FEW] = { 0 };
    f->r[3].ready = 0;
    for (uint64_t id = 1; id <= 800; id++) {
        struct lathe_request req = { .size = sizeof req, .id = id, .session = id, .prompt_tokens = 10 };
        times[route_at_last(f, &d, &req)]++; /* what it holds back is seen by those that look at load */
    }
    for (uint32_t i = 0; i < FEW; i++)
        CHECK((times[i] > 0) == (i != 3), "replica %u got %u of 800 requests", i, times[i]);
    while (f->flights > 0)
        end_flight(f, 0);
    f->r[3].ready = 1; /* it is well again: it gets its part at once */
    for (uint64_t id = 801; id <= 1600; id++) {
        struct lathe_request req = { .size = sizeof req, .id = id, .session = id, .prompt_tokens = 10 };
        times[route_at_last(f, &d, &req)]++;
    }
    CHECK(times[3] > 0, "replica 3 got nothing after it became ready");
    close_fleet(f);
}

/* All that it gave out comes back; then nothing may be held, however often that happens. */
static void what_has_ended_is_forgotten(struct subject *s)
{
    struct fleet *f = open_fleet(s, 5);
    struct dice d = { .seed = 4 };
    for (uint64_t id = 1; id <= 3000;) {
        uint32_t choice = 0;
        for (int i = 0; i < 20 && choice != LATHE_ROUTER_HOLD; i++, id++) {
            struct lathe_request req = request(f, &d, id);
            choice = route(f, &req);
        }
        while (f->flights > 0)
            end_flight(f, roll(&d, f->flights));
        if (finished) /* of a request that came before the router did */
            finished(f->self, &(struct lathe_request){ .size = sizeof(struct lathe_request), .id = id }, roll(&d, 5));
    }
    close_fleet(f);
}

static int life(struct subject *s, struct lathe_error *err)
{
    struct lathe_router_limits limits = { .size = sizeof limits, .max_replicas = FEW, .seed = 4 };
    struct lathe_replica r = { .ready = 1, .weight = 1000 };
    struct lathe_request req = { .size = sizeof req, .id = 1 };
    uint32_t choice;
    void *self;
    int status = subject_try_create(s, &self, err);
    api = (const void *)s->head;
    if (status != LATHE_OK)
        return status;
    if ((status = api->bind(self, &limits, err)) == LATHE_OK)
        status = api->route(self, &req, &r, 1, &choice, err);
    api->destroy(self);
    return status;
}

int main(int argc, char **argv)
{
    static const struct behaviour behaviours[] = {
        { "chooses_only_a_ready_replica", chooses_only_a_ready_replica },
        { "serves_a_thousand_replicas", serves_a_thousand_replicas },
        { "a_replay_chooses_the_same", a_replay_chooses_the_same },
        { "follows_when_it_is_scaled", follows_when_it_is_scaled },
        { "leaves_no_ready_replica_out", leaves_no_ready_replica_out },
        { "what_has_ended_is_forgotten", what_has_ended_is_forgotten },
    };
    return conformance(argc, argv, LATHE_KIND_ROUTER, LATHE_ROUTER_ABI,
                       offsetof(struct lathe_router_api, route) + sizeof(void *), behaviours,
                       sizeof behaviours / sizeof *behaviours, life);
}
