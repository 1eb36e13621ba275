/* SPDX-License-Identifier: MIT */
/* ZeroMQ over inproc, at its best: PAIR sockets (REQ/REP adds envelopes and a state machine),
 * no I/O thread, the received message sent back as it is, constant memory in the one-way
 * stream, so that no message is allocated or copied. */
#include "bench.h"

enum { ZEROMQ_SLEEP, ZEROMQ_SPIN, ZEROMQ_STREAM };

#ifdef BENCH_ZEROMQ
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

struct zeromq {
    void *context, *mine, *theirs;
    int how, flags; /* ZMQ_DONTWAIT: asks again and again instead of sleeping */
    zmq_msg_t message;
    pthread_t thread;
};

static int receive(zmq_msg_t *m, void *socket, int flags)
{
    int n;
    while ((n = zmq_msg_recv(m, socket, flags)) < 0 && errno == EAGAIN && flags)
        ;
    return n;
}

/* An empty message ends it. STREAM: one of a byte is answered, the others are read and dropped. */
static void *answer(void *z_)
{
    struct zeromq *z = z_;
    zmq_msg_t m;
    int n;
    zmq_msg_init(&m);
    while ((n = receive(&m, z->theirs, z->flags)) > 0) {
        if (z->how != ZEROMQ_STREAM || n == 1)
            zmq_msg_send(&m, z->theirs, 0);
    }
    zmq_msg_close(&m);
    return NULL;
}

static int failed(struct lathe_error *err)
{
    return lathe_fail(err, LATHE_EIO, "ZeroMQ: %s", zmq_strerror(errno));
}

static int round_trips(void *context, uint64_t times, struct lathe_error *err)
{
    struct zeromq *z = context;
    for (uint64_t i = 0; i < times; i++) {
        if (zmq_msg_send(&z->message, z->mine, 0) < 0 ||
            receive(&z->message, z->mine, z->flags) != BENCH_MESSAGE_BYTES)
            return failed(err);
    }
    return LATHE_OK;
}

static int stream(void *context, uint64_t times, struct lathe_error *err)
{
    static const char bytes[BENCH_MESSAGE_BYTES];
    struct zeromq *z = context;
    char ack[1];
    for (uint64_t i = 0; i < times; i++) {
        if (zmq_send_const(z->mine, bytes, sizeof bytes, 0) < 0)
            return failed(err);
    }
    if (zmq_send(z->mine, "", 1, 0) < 0 || zmq_recv(z->mine, ack, 1, 0) != 1)
        return failed(err);
    return LATHE_OK;
}

static int sample(const struct bench *b, const struct bench_case *c, double *ns, struct lathe_error *err)
{
    struct zeromq z = { .how = c->how, .flags = c->how == ZEROMQ_SPIN ? ZMQ_DONTWAIT : 0 };
    int status = LATHE_OK, started = 0;
    bench_pin(b, -1);
    z.context = zmq_ctx_new();
    zmq_ctx_set(z.context, ZMQ_IO_THREADS, 0);
    z.mine = zmq_socket(z.context, ZMQ_PAIR);
    z.theirs = zmq_socket(z.context, ZMQ_PAIR);
    zmq_msg_init_size(&z.message, BENCH_MESSAGE_BYTES);
    memset(zmq_msg_data(&z.message), 0, BENCH_MESSAGE_BYTES);
    bench_pin(b, b->worker_cpu);
    if (!z.mine || !z.theirs || zmq_bind(z.theirs, "inproc://bench") || zmq_connect(z.mine, "inproc://bench"))
        status = failed(err);
    else if (pthread_create(&z.thread, NULL, answer, &z) != 0)
        status = lathe_fail(err, LATHE_EIO, "can't start a thread");
    else
        started = 1;
    bench_pin(b, b->caller_cpu);
    if (status == LATHE_OK)
        status = bench_time(b, c, c->how == ZEROMQ_STREAM ? stream : round_trips, &z, ns, err);
    if (started) {
        zmq_send(z.mine, "", 0, 0);
        pthread_join(z.thread, NULL);
    }
    zmq_msg_close(&z.message);
    zmq_close(z.mine);
    zmq_close(z.theirs);
    zmq_ctx_term(z.context);
    return status;
}
#else
static int sample(const struct bench *b, const struct bench_case *c, double *ns, struct lathe_error *err)
{
    (void)b, (void)c, (void)ns;
    return lathe_fail(err, LATHE_EUNSUPPORTED, "not installed (libzmq3-dev)");
}
#endif

void zeromq_cases(struct bench_list *list)
{
    bench_add(list, BENCH_SPINNING, sample, "ZeroMQ PAIR inproc, both spin (DONTWAIT)", NULL, ZEROMQ_SPIN, 0,
              "zeromq/spin");
    bench_add(list, BENCH_SLEEPING, sample, "ZeroMQ PAIR inproc, both sleep", NULL, ZEROMQ_SLEEP, 0, "zeromq/sleep");
    bench_add(list, BENCH_RATES, sample, "ZeroMQ PAIR inproc, one way", NULL, ZEROMQ_STREAM, 1, "stream/zeromq");
}
