/* SPDX-License-Identifier: MIT */
/* Two threads and a flag. Waking: one sleeps on a condition, the other takes the time and
 * signals, and the sleeper takes the time as its first act. Spinning: both turn a counter
 * that lies in a cache line of its own. */
#include "doctor.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { WAKE_ROUNDS = 50, SPIN_ROUNDS = 2000, SPIN_PATIENCE = 10000 };

struct pair {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int sent, received;
    int64_t sent_ns, wake_ns[WAKE_ROUNDS];
    _Alignas(64) _Atomic int turn; /* even: the first thread's */
};

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* With one processor, spinning alone would wait for the scheduler's slice. */
static void await_turn(struct pair *pair, int turn)
{
    for (int i = 0; atomic_load_explicit(&pair->turn, memory_order_acquire) != turn; i++)
        if (i > SPIN_PATIENCE)
            sched_yield();
}

static void *sleeper(void *user)
{
    struct pair *pair = user;
    pthread_mutex_lock(&pair->lock);
    for (int i = 0; i < WAKE_ROUNDS; i++) {
        while (pair->sent == i)
            pthread_cond_wait(&pair->changed, &pair->lock);
        pair->wake_ns[i] = now_ns() - pair->sent_ns;
        pair->received = i + 1;
    }
    pthread_mutex_unlock(&pair->lock);
    for (int i = 0; i < SPIN_ROUNDS; i++) {
        await_turn(pair, 2 * i + 1);
        atomic_store_explicit(&pair->turn, 2 * i + 2, memory_order_release);
    }
    return NULL;
}

static int ascending(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static void send_wakes(struct pair *pair)
{
    for (int i = 0; i < WAKE_ROUNDS; i++) {
        int received;
        do { /* long enough to be asleep */
            nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
            pthread_mutex_lock(&pair->lock);
            received = pair->received;
            pthread_mutex_unlock(&pair->lock);
        } while (received != i);
        pthread_mutex_lock(&pair->lock);
        pair->sent = i + 1;
        pair->sent_ns = now_ns();
        pthread_mutex_unlock(&pair->lock);
        pthread_cond_signal(&pair->changed);
    }
}

int doctor_measure_waking(struct doctor_waking *waking)
{
    struct pair pair = { .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER };
    pthread_t thread;
    int64_t spin_ns[SPIN_ROUNDS];
    if (pthread_create(&thread, NULL, sleeper, &pair) != 0)
        return LATHE_EIO;
    send_wakes(&pair);
    for (int i = 0; i < SPIN_ROUNDS; i++) {
        int64_t before = now_ns();
        atomic_store_explicit(&pair.turn, 2 * i + 1, memory_order_release);
        await_turn(&pair, 2 * i + 2);
        spin_ns[i] = now_ns() - before;
    }
    pthread_join(thread, NULL);
    qsort(pair.wake_ns, WAKE_ROUNDS, sizeof *pair.wake_ns, ascending);
    qsort(spin_ns, SPIN_ROUNDS, sizeof *spin_ns, ascending);
    waking->rounds = WAKE_ROUNDS;
    waking->wake_p50_ns = pair.wake_ns[WAKE_ROUNDS / 2];
    waking->wake_max_ns = pair.wake_ns[WAKE_ROUNDS - 1];
    waking->spin_p50_ns = spin_ns[SPIN_ROUNDS / 2];
    return LATHE_OK;
}

int doctor_in_path(const char *command, char *path, size_t capacity)
{
    if (strchr(command, '/')) {
        snprintf(path, capacity, "%s", command);
        return access(path, X_OK) == 0;
    }
    for (const char *list = getenv("PATH"); list && *list;) {
        int n = (int)strcspn(list, ":");
        int length = snprintf(path, capacity, "%.*s/%s", n, list, command);
        if (n > 0 && length > 0 && (size_t)length < capacity && access(path, X_OK) == 0)
            return 1;
        list += list[n] == ':' ? n + 1 : n;
    }
    return 0;
}
