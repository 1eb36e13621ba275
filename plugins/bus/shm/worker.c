/* SPDX-License-Identifier: MIT */
/* The worker process: hello, services made, ready; then three threads.
 *
 *     [main]     waits at the socket: told to stop, or the host is gone
 *     [serving]  works on the ring
 *     [beating]  writes the time into shared memory, whatever the other two do
 *
 * The kernel kills it when the host's thread that started it ends (PR_SET_PDEATHSIG), so that
 * nothing outlives a host that was killed itself; that thread is the bus's monitor, which ends
 * only after its workers. A host that was gone before that was set up shows as EOF. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "serve.h"

enum { MOST_METHODS = 256 };

struct process {
    struct serving serving;
    struct served_method methods[MOST_METHODS];
    _Atomic uint32_t method_count;
    struct wire_hello hello;
    pthread_t server, heart;
    _Atomic uint32_t heart_stops;
    struct wire_report report;
};

static int gone(struct lathe_error *err)
{
    return lathe_fail(err, LATHE_EUNAVAILABLE, "the host is gone");
}

/* The hello and the memory's file descriptor. */
static int receive_hello(int fd, struct wire_hello *hello, int *memory, struct lathe_error *err)
{
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec piece = { hello, sizeof *hello };
    struct msghdr message = {
        .msg_iov = &piece, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    ssize_t n;
    do
        n = recvmsg(fd, &message, MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    if (n == 0)
        return gone(err);
    if (n < 0)
        return lathe_fail(err, LATHE_EIO, "the socket %d can't be read: %s", fd, strerror(errno));
    const struct cmsghdr *c = CMSG_FIRSTHDR(&message);
    if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS && c->cmsg_len == CMSG_LEN(sizeof(int)))
        memcpy(memory, CMSG_DATA(c), sizeof *memory);
    if (n != (ssize_t)sizeof *hello || hello->magic != WIRE_MAGIC || hello->kind != WIRE_HELLO || *memory < 0)
        return lathe_fail(err, LATHE_EFORMAT, "what came through the socket %d is no bus's hello", fd);
    if (hello->protocol != WIRE_PROTOCOL)
        return lathe_fail(err, LATHE_EABI,
                          "the host speaks protocol %u of bus shm, this worker %d; they must be of one "
                          "build",
                          hello->protocol, WIRE_PROTOCOL);
    return LATHE_OK;
}

static int map_memory(struct process *p, int memory, struct lathe_error *err)
{
    const struct wire_hello *h = &p->hello;
    struct stat s;
    uint64_t end;
    if (fstat(memory, &s) != 0 || (uint64_t)s.st_size != h->bytes || h->bytes < WIRE_BUS_BYTES ||
        h->control >= h->bytes || h->errors >= h->bytes || h->ring >= h->bytes || h->recipe >= h->bytes ||
        __builtin_add_overflow(h->recipe, h->recipe_bytes, &end) || end > h->bytes)
        return lathe_fail(err, LATHE_EFORMAT, "the host's hello doesn't fit the memory that came with it");
    void *base = mmap(NULL, h->bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, memory, 0);
    if (base == MAP_FAILED)
        return lathe_fail(err, LATHE_ENOMEM, "the bus's %llu bytes can't be mapped: %s", (unsigned long long)h->bytes,
                          strerror(errno));
    struct serving *v = &p->serving;
    v->base = base;
    v->bytes = h->bytes;
    v->control = (void *)(v->base + h->control);
    v->errors = (void *)(v->base + h->errors);
    v->ring = (void *)(v->base + h->ring);
    v->capacity = v->ring->capacity;
    v->spin_ns = h->spin_ns;
    v->methods = p->methods;
    v->method_count = &p->method_count;
    return LATHE_OK;
}

/* Numbers the methods in the services' order, and notes their names in the report. */
static int list_methods(struct process *p, const struct lathe_service *services, uint32_t count,
                        struct lathe_error *err)
{
    struct wire_report *report = &p->report;
    uint32_t n = 0;
    for (uint32_t i = 0; i < count; i++)
        for (uint32_t j = 0; j < services[i].method_count; j++) {
            const struct lathe_service_method *m = &services[i].methods[j];
            size_t room = sizeof report->text - report->text_bytes;
            int bytes = snprintf(report->text + report->text_bytes, room, "%s.%s", services[i].name, m->name);
            if (n == MOST_METHODS || bytes < 0 || (size_t)bytes >= room)
                return lathe_fail(err, LATHE_EFULL, "the recipe has more than %d methods, or names beyond %d bytes",
                                  MOST_METHODS, WIRE_TEXT_BYTES);
            report->text_bytes += (uint32_t)bytes + 1;
            p->methods[n++] = (struct served_method){ m->function, m->self };
        }
    report->count = n;
    atomic_store(&p->method_count, n);
    return LATHE_OK;
}

static int send_report(int fd, struct wire_report *report, uint32_t kind)
{
    ssize_t n;
    report->magic = WIRE_MAGIC;
    report->kind = kind;
    do
        n = send(fd, report, offsetof(struct wire_report, text) + report->text_bytes, MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    return n > 0;
}

/* 1 when the host knows: it is then the host's to tell. */
static int send_failure(int fd, struct wire_report *report, int status, const struct lathe_error *err)
{
    report->code = status;
    report->count = 0;
    report->text_bytes = (uint32_t)snprintf(report->text, sizeof report->text, "%s", err->message) + 1;
    return send_report(fd, report, WIRE_FAILED);
}

static void *serve_thread(void *self)
{
    struct process *p = self;
    const struct lathe_host *host = p->serving.host;
    host->set_thread_roles(host->context, LATHE_THREAD_ENGINE | LATHE_THREAD_WORKER);
    serve_ring(&p->serving);
    return NULL;
}

static void *heart_thread(void *self)
{
    struct process *p = self;
    while (!atomic_load(&p->heart_stops)) {
        atomic_store_explicit(&p->serving.control->beat_ns, machine_ns(), memory_order_relaxed);
        poll(NULL, 0, WIRE_BEAT_MS);
    }
    return NULL;
}

/* Until the host says so, or is gone. */
static void wait_for_stop(int fd)
{
    for (;;) {
        struct wire_word word = { 0 };
        ssize_t n = recv(fd, &word, sizeof word, 0);
        if (n == 0 || (n < 0 && errno != EINTR) || (n == (ssize_t)sizeof word && word.kind == WIRE_STOP))
            return;
    }
}

static int run(struct process *p, int fd, struct lathe_error *err)
{
    if (pthread_create(&p->heart, NULL, heart_thread, p) != 0)
        return lathe_fail(err, LATHE_ENOMEM, "no thread for the heartbeat");
    int serving = pthread_create(&p->server, NULL, serve_thread, p) == 0;
    int status = serving ? LATHE_OK : lathe_fail(err, LATHE_ENOMEM, "no thread to serve with");
    if (status == LATHE_OK && !send_report(fd, &p->report, WIRE_READY))
        status = gone(err);
    if (status == LATHE_OK)
        wait_for_stop(fd);
    if (serving) {
        atomic_store(&p->serving.stop, 1);
        callring_ring(p->serving.ring, 1);
        pthread_join(p->server, NULL);
    }
    atomic_store(&p->heart_stops, 1);
    pthread_join(p->heart, NULL);
    return status;
}

static int serve(const struct lathe_host *host, int fd, const struct lathe_recipe_maker *maker,
                 struct lathe_error *err)
{
    struct process *p = lathe_alloc(host, sizeof *p);
    const struct lathe_service *services;
    uint32_t count;
    int memory = -1, status;
    if (!p)
        return lathe_fail(err, LATHE_ENOMEM, "no memory for a worker");
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    p->serving.host = host;
    if ((status = receive_hello(fd, &p->hello, &memory, err)) == LATHE_OK)
        status = map_memory(p, memory, err);
    if (memory >= 0)
        close(memory);
    if (status == LATHE_OK) {
        status = maker->open(maker->context, p->serving.base + p->hello.recipe, p->hello.recipe_bytes, &services,
                             &count, err);
        if (status == LATHE_OK) {
            status = list_methods(p, services, count, err);
            if (status == LATHE_OK)
                status = run(p, fd, err);
        }
    }
    if (status != LATHE_OK && send_failure(fd, &p->report, status, err))
        status = LATHE_OK;
    maker->close(maker->context);
    if (p->serving.base)
        munmap(p->serving.base, p->hello.bytes);
    lathe_free(host, p);
    return status;
}

const struct lathe_bus_worker shm_bus_worker = { .size = sizeof shm_bus_worker, .serve = serve };
