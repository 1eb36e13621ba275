/* SPDX-License-Identifier: MIT */
/* Calls and posts of a method that does nothing, 64 bytes there and 64 back, over each bus. */
#include "opened.h"

enum { CALL_INLINE, CALL_SPIN, CALL_SLEEP, MAX_BATCH = 1024 };

/* Spinning: longer than any pause between two calls of a sample. */
static const char *const spinning[] = { "spin_us", "100000", NULL };
static const char *const sleeping[] = { "spin_us", "0", NULL };
/* Throughput: as delivered, but for a ring that holds the largest batch twice. */
static const char *const throughput[] = { "queue", "2048", NULL };

struct call {
    const struct lathe_endpoint *endpoint;
    struct lathe_message *in, *out;
};

static int call_step(void *context, uint64_t times, struct lathe_error *err)
{
    struct call *c = context;
    int status = LATHE_OK;
    for (uint64_t i = 0; i < times && status == LATHE_OK; i++)
        status = c->endpoint->call(c->endpoint->self, c->in, c->out, err);
    return status;
}

static struct lathe_message *letter(const struct opened *o, struct lathe_error *err)
{
    struct lathe_message *m = o->api->loan(o->self, BENCH_MESSAGE_BYTES, err);
    if (m)
        m->bytes = BENCH_MESSAGE_BYTES;
    return m;
}

static int sample_call(const struct bench *b, const struct bench_case *c, double *ns, struct lathe_error *err)
{
    static const char *const *const options[] = { NULL, spinning, sleeping };
    struct opened o;
    int status = opened_open(&o, b, c->bus, options[c->how], err);
    if (status != LATHE_OK)
        return status;
    struct call call = { .endpoint = o.nothing };
    if ((call.in = letter(&o, err)) && (call.out = letter(&o, err)))
        status = bench_time(b, c, call_step, &call, ns, err);
    else
        status = err->code;
    o.api->give_back(o.self, call.in);
    o.api->give_back(o.self, call.out);
    opened_close(&o);
    return status;
}

struct posts {
    const struct opened *o;
    uint32_t batch;
    const void *in[MAX_BATCH];
    void *out[MAX_BATCH];
    uint64_t tickets[MAX_BATCH];
    int statuses[MAX_BATCH];
};

/* `times` messages: a batch is posted, then waited for, then the next. */
static int post_step(void *context, uint64_t times, struct lathe_error *err)
{
    struct posts *p = context;
    const struct lathe_bus_api *api = p->o->api;
    for (uint64_t done = 0; done < times; done += p->batch) {
        uint32_t sent = 0;
        while (sent < p->batch) {
            uint32_t n = 0;
            int status = api->post_many(p->o->self, p->o->nothing, p->in + sent, p->out + sent, p->tickets,
                                        p->batch - sent, &n, err);
            if (status == LATHE_OK)
                status = api->wait_many(p->o->self, p->tickets, p->statuses, n, err);
            for (uint32_t i = 0; i < n && status == LATHE_OK; i++)
                status = p->statuses[i];
            if (status != LATHE_OK)
                return status;
            sent += n;
        }
    }
    return LATHE_OK;
}

static int sample_posts(const struct bench *b, const struct bench_case *c, double *ns, struct lathe_error *err)
{
    static struct posts p;
    struct opened o;
    int status = opened_open(&o, b, c->bus, throughput, err);
    if (status != LATHE_OK)
        return status;
    p = (struct posts){ .o = &o, .batch = (uint32_t)c->count };
    for (uint32_t i = 0; i < p.batch && status == LATHE_OK; i++) {
        p.in[i] = letter(&o, err);
        p.out[i] = p.in[i] ? letter(&o, err) : NULL;
        status = p.out[i] ? LATHE_OK : err->code;
    }
    if (status == LATHE_OK)
        status = bench_time(b, c, post_step, &p, ns, err);
    for (uint32_t i = 0; i < p.batch; i++) {
        o.api->give_back(o.self, (void *)(uintptr_t)p.in[i]);
        o.api->give_back(o.self, p.out[i]);
    }
    opened_close(&o);
    return status;
}

void bus_cases(struct bench_list *list)
{
    bench_add(list, BENCH_CALLS, sample_call, "bus/direct", "direct", CALL_INLINE, 0, "call/direct");
    bench_add(list, BENCH_CALLS, sample_call, "bus/sync, all counters on", "sync", CALL_INLINE, 0, "call/sync");
    bench_add(list, BENCH_SPINNING, sample_call, "bus/async, both spin", "async", CALL_SPIN, 0, "call/async/spin");
    bench_add(list, BENCH_SPINNING, sample_call, "bus/shm, both spin", "shm", CALL_SPIN, 0, "call/shm/spin");
    bench_add(list, BENCH_SLEEPING, sample_call, "bus/async, both sleep", "async", CALL_SLEEP, 0, "call/async/sleep");
    bench_add(list, BENCH_SLEEPING, sample_call, "bus/shm, both sleep", "shm", CALL_SLEEP, 0, "call/shm/sleep");
    for (const uint64_t *batch = bench_batches; *batch; batch++) {
        bench_add(list, BENCH_RATES, sample_posts, "bus/async, post_many and wait_many", "async", 0, *batch,
                  "post/async/%d", (int)*batch);
        bench_add(list, BENCH_RATES, sample_posts, "bus/shm, post_many and wait_many", "shm", 0, *batch,
                  "post/shm/%d", (int)*batch);
    }
}
