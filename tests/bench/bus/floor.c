/* SPDX-License-Identifier: MIT */
/* What there is without any bus: a C call, and two cores that pass a line (see echo.h). */
#include "callee.h"
#include "echo.h"

enum { CALL_STATIC, CALL_INDIRECT };

struct calls {
    lathe_method *function;
    void *self;
    struct lathe_message *in, *out;
};

static int call_static(void *context, uint64_t times, struct lathe_error *err)
{
    struct calls *c = context;
    int status = LATHE_OK;
    for (uint64_t i = 0; i < times && status == LATHE_OK; i++)
        status = callee_nothing(c->self, c->in, c->out, err);
    return status;
}

/* The pointer is read anew for each call, as from an endpoint. */
static int call_indirect(void *context, uint64_t times, struct lathe_error *err)
{
    struct calls *c = context;
    int status = LATHE_OK;
    for (uint64_t i = 0; i < times && status == LATHE_OK; i++)
        status = c->function(c->self, c->in, c->out, err);
    return status;
}

static int sample_call(const struct bench *b, const struct bench_case *c, double *ns, struct lathe_error *err)
{
    static struct lathe_message in, out;
    struct calls calls = { .function = callee_nothing, .in = &in, .out = &out };
    return bench_time(b, c, c->how == CALL_STATIC ? call_static : call_indirect, &calls, ns, err);
}

static int echo_step(void *context, uint64_t times, struct lathe_error *err)
{
    (void)err;
    for (uint64_t i = 0; i < times; i++)
        echo_once(context);
    return LATHE_OK;
}

static int sample_echo(const struct bench *b, const struct bench_case *c, double *ns, struct lathe_error *err)
{
    struct echo e;
    int status = echo_open(&e, b, c->how, (int)c->count, 0, err);
    if (status != LATHE_OK)
        return status;
    status = bench_time(b, c, echo_step, &e, ns, err);
    echo_close(&e);
    return status;
}

void floor_cases(struct bench_list *list)
{
    bench_add(list, BENCH_CALLS, sample_call, "a static C call", NULL, CALL_STATIC, 0, "call/static");
    bench_add(list, BENCH_CALLS, sample_call, "an indirect C call", NULL, CALL_INDIRECT, 0, "call/indirect");
    static const struct {
        const char *name, *titles[2];
    } hows[] = {
        [ECHO_LINE] = { "line", { "ping-pong of two threads, one line", "ping-pong of two processes, one line" } },
        [ECHO_PAIR] = { "pair",
                        { "ping-pong of two threads, a line each way",
                          "ping-pong of two processes, a line each way" } },
        [ECHO_SLEEP] = { "futex",
                         { "two threads, futex sleep and wake each way",
                           "two processes, futex sleep and wake each way" } },
    };
    for (int how = ECHO_LINE; how <= ECHO_SLEEP; how++)
        for (uint64_t processes = 0; processes < 2; processes++)
            bench_add(list, how == ECHO_SLEEP ? BENCH_SLEEPING : BENCH_SPINNING, sample_echo,
                      hows[how].titles[processes], NULL, how, processes, "raw/%s/%s", hows[how].name,
                      processes ? "processes" : "threads");
}
