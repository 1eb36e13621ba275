/* SPDX-License-Identifier: MIT */
/* nng over inproc, at its best: pair sockets (req/rep adds headers and a state machine), whole
 * messages handed over instead of bytes copied, the received message sent back as it is, and
 * queues long enough for the one-way stream. */
#include "bench.h"

enum { NNG_SLEEP, NNG_SPIN, NNG_STREAM, NNG_QUEUE = 8192 };

#ifdef BENCH_NNG
#include <nng/nng.h>
#include <nng/protocol/pair0/pair.h>
#include <pthread.h>

struct nng {
    nng_socket mine, theirs;
    int how, flags; /* NNG_FLAG_NONBLOCK: asks again and again instead of sleeping */
    nng_msg *message;
    pthread_t thread;
};

static int receive(nng_msg **m, nng_socket socket, int flags)
{
    int rc;
    while ((rc = nng_recvmsg(socket, m, flags)) == NNG_EAGAIN)
        ;
    return rc;
}

static int send_again(nng_msg *m, nng_socket socket, int flags)
{
    int rc;
    while ((rc = nng_sendmsg(socket, m, flags)) == NNG_EAGAIN)
        ;
    return rc;
}

/* An empty message ends it. STREAM: one of a byte is answered, the others are read and dropped. */
static void *answer(void *n_)
{
    struct nng *n = n_;
    nng_msg *m;
    while (receive(&m, n->theirs, n->flags) == 0) {
        size_t bytes = nng_msg_len(m);
        if (bytes > 0 && (n->how != NNG_STREAM || bytes == 1) && send_again(m, n->theirs, n->flags) == 0)
            continue;
        nng_msg_free(m);
        if (bytes == 0)
            break;
    }
    return NULL;
}

static int failed(int rc, struct lathe_error *err)
{
    return lathe_fail(err, LATHE_EIO, "nng: %s", nng_strerror(rc));
}

static int round_trips(void *context, uint64_t times, struct lathe_error *err)
{
    struct nng *n = context;
    for (uint64_t i = 0; i < times; i++) {
        int rc = send_again(n->message, n->mine, n->flags);
        if (rc == 0) {
            n->message = NULL;
            rc = receive(&n->message, n->mine, n->flags);
        }
        if (rc)
            return failed(rc, err);
    }
    return LATHE_OK;
}

static int send_new(struct nng *n, size_t bytes)
{
    nng_msg *m;
    int rc = nng_msg_alloc(&m, bytes);
    if (rc == 0 && (rc = nng_sendmsg(n->mine, m, 0)) != 0)
        nng_msg_free(m);
    return rc;
}

static int stream(void *context, uint64_t times, struct lathe_error *err)
{
    struct nng *n = context;
    nng_msg *ack;
    int rc = 0;
    for (uint64_t i = 0; i < times && rc == 0; i++)
        rc = send_new(n, BENCH_MESSAGE_BYTES);
    if (rc == 0 && (rc = send_new(n, 1)) == 0 && (rc = nng_recvmsg(n->mine, &ack, 0)) == 0)
        nng_msg_free(ack);
    return rc ? failed(rc, err) : LATHE_OK;
}

static int sample(const struct bench *b, const struct bench_case *c, double *ns, struct lathe_error *err)
{
    struct nng n = { .how = c->how, .flags = c->how == NNG_SPIN ? NNG_FLAG_NONBLOCK : 0 };
    int rc, status = LATHE_OK;
    bench_pin(b, -1); /* its own threads go where they like */
    if ((rc = nng_pair0_open(&n.mine)) != 0)
        return failed(rc, err);
    if ((rc = nng_pair0_open(&n.theirs)) != 0) {
        nng_close(n.mine);
        return failed(rc, err);
    }
    if (c->how == NNG_STREAM) {
        nng_socket_set_int(n.mine, NNG_OPT_SENDBUF, NNG_QUEUE);
        nng_socket_set_int(n.theirs, NNG_OPT_RECVBUF, NNG_QUEUE);
    }
    if ((rc = nng_msg_alloc(&n.message, BENCH_MESSAGE_BYTES)) ||
        (rc = nng_listen(n.theirs, "inproc://bench", NULL, 0)) || (rc = nng_dial(n.mine, "inproc://bench", NULL, 0)))
        status = failed(rc, err);
    bench_pin(b, b->worker_cpu);
    if (status == LATHE_OK && pthread_create(&n.thread, NULL, answer, &n) != 0)
        status = lathe_fail(err, LATHE_EIO, "can't start a thread");
    bench_pin(b, b->caller_cpu);
    if (status == LATHE_OK) {
        status = bench_time(b, c, c->how == NNG_STREAM ? stream : round_trips, &n, ns, err);
        send_new(&n, 0);
        pthread_join(n.thread, NULL);
    }
    nng_msg_free(n.message);
    nng_close(n.mine);
    nng_close(n.theirs);
    return status;
}
#else
static int sample(const struct bench *b, const struct bench_case *c, double *ns, struct lathe_error *err)
{
    (void)b, (void)c, (void)ns;
    return lathe_fail(err, LATHE_EUNSUPPORTED, "not installed (libnng-dev)");
}
#endif

void nng_cases(struct bench_list *list)
{
    bench_add(list, BENCH_SPINNING, sample, "nng pair inproc, both spin (NONBLOCK)", NULL, NNG_SPIN, 0, "nng/spin");
    bench_add(list, BENCH_SLEEPING, sample, "nng pair inproc, both sleep", NULL, NNG_SLEEP, 0, "nng/sleep");
    bench_add(list, BENCH_RATES, sample, "nng pair inproc, one way", NULL, NNG_STREAM, 1, "stream/nng");
}
