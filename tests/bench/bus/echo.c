/* SPDX-License-Identifier: MIT */
/* See echo.h. */
#include "echo.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <bus/futex.h>

static uint32_t await_change(const _Atomic uint32_t *word, uint32_t old, const struct echo_shared *s)
{
    uint32_t now;
    while ((now = atomic_load_explicit(word, memory_order_acquire)) == old) {
        if (s->how == ECHO_SLEEP)
            futex_wait(word, old, -1, (int)s->processes);
        else
            cpu_relax();
    }
    return now;
}

static void set(_Atomic uint32_t *word, uint32_t value, const struct echo_shared *s)
{
    atomic_store_explicit(word, value, memory_order_release);
    if (s->how == ECHO_SLEEP)
        futex_wake(word, 1, (int)s->processes);
}

static void serve(struct echo_shared *s)
{
    uint32_t seen = 0;
    for (;;) {
        seen = await_change(&s->there, seen, s);
        if (seen == ECHO_STOP)
            return;
        if (s->bytes)
            s->sum = bench_sum((unsigned char *)s + ECHO_PAYLOAD_AT, s->bytes);
        if (s->how == ECHO_LINE)
            set(&s->there, ++seen, s);
        else
            set(&s->back, seen, s);
    }
}

static void *serve_thread(void *shared)
{
    serve(shared);
    return NULL;
}

void *echo_payload(const struct echo *e)
{
    return (unsigned char *)e->shared + ECHO_PAYLOAD_AT;
}

void echo_once(struct echo *e)
{
    struct echo_shared *s = e->shared;
    if (s->how == ECHO_LINE) {
        uint32_t turn = e->n + 1;
        set(&s->there, turn, s);
        e->n = await_change(&s->there, turn, s);
    } else {
        uint32_t before = e->n++;
        set(&s->there, e->n, s);
        await_change(&s->back, before, s);
    }
}

int echo_open(struct echo *e, const struct bench *b, int how, int processes, uint64_t payload_bytes,
              struct lathe_error *err)
{
    int fd = -1, status = LATHE_OK;
    *e = (struct echo){ .mapped = ECHO_PAYLOAD_AT + payload_bytes };
    if (processes && ((fd = memfd_create("bench_bus echo", 0)) < 0 || ftruncate(fd, (off_t)e->mapped) != 0))
        status = lathe_fail(err, LATHE_EIO, "no shared memory of %llu bytes: %s", (unsigned long long)e->mapped,
                            strerror(errno));
    void *memory = status == LATHE_OK ? mmap(NULL, e->mapped, PROT_READ | PROT_WRITE,
                                             processes ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS, fd, 0)
                                      : MAP_FAILED;
    if (memory == MAP_FAILED) {
        if (status == LATHE_OK)
            status = lathe_fail(err, LATHE_ENOMEM, "can't map %llu bytes: %s", (unsigned long long)e->mapped,
                                strerror(errno));
        if (fd >= 0)
            close(fd);
        return status;
    }
    e->shared = memory;
    e->shared->how = how;
    e->shared->processes = processes != 0;
    e->shared->bytes = payload_bytes;
    if (processes) {
        char number[16], bytes[32];
        snprintf(number, sizeof number, "%d", fd);
        snprintf(bytes, sizeof bytes, "%llu", (unsigned long long)e->mapped);
        char *arguments[] = { "bench_bus", "echo", number, bytes, NULL };
        e->pid = bench_spawn(b, arguments);
        close(fd);
        if (e->pid < 0)
            status = lathe_fail(err, LATHE_EIO, "can't start a second process");
    } else {
        bench_pin(b, b->worker_cpu);
        if (pthread_create(&e->thread, NULL, serve_thread, e->shared) != 0)
            status = lathe_fail(err, LATHE_EIO, "can't start a second thread");
        bench_pin(b, b->caller_cpu);
    }
    if (status != LATHE_OK)
        munmap(memory, e->mapped);
    return status;
}

void echo_close(struct echo *e)
{
    set(&e->shared->there, ECHO_STOP, e->shared);
    if (e->pid)
        waitpid(e->pid, NULL, 0);
    else
        pthread_join(e->thread, NULL);
    munmap(e->shared, e->mapped);
}

int echo_main(int fd, uint64_t mapped)
{
    void *memory = mmap(NULL, mapped, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED)
        return 1;
    serve(memory);
    return 0;
}
