/* SPDX-License-Identifier: MIT */
/* The monitor: one thread of the bus that starts, watches and ends its worker processes, all
 * of them, so that starting and ending never cross. Others only say what they wish
 * (group->wanted), and wake it.
 *
 * It sleeps in poll on every worker's pidfd and socket, so an end is noticed at once; every
 * MONITOR_LOOK_MS it looks at the heartbeats and at calls that take too long. It looks at states, not at
 * what poll said: each round asks every slot what there is to do. If the monitor itself was away
 * (the whole job was stopped, the machine is overloaded), then so may the workers have been: they
 * get GRACE_MS from its return to show a heartbeat.
 *
 * It is also the thread whose end kills the workers (PR_SET_PDEATHSIG in worker.c): it ends
 * after the last of them. */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "shm.h"

enum { AWAY_MS = 3 * MONITOR_LOOK_MS, GRACE_MS = 4 * WIRE_BEAT_MS, MOST_FDS = 1024 };

static nfds_t round_of(struct shm *bus, int64_t now_ns, int64_t back_ns, struct pollfd *fds, int *timeout_ms)
{
    nfds_t n = 0;
    *timeout_ms = -1;
    fds[n++] = (struct pollfd){ .fd = bus->wake, .events = POLLIN };
    for (struct group *group = bus->groups; group; group = group->next) {
        for (uint32_t i = 0; group->processes && i < GROUP_SLOTS; i++) {
            struct slot *slot = &group->slots[i];
            slot_step(slot, now_ns, back_ns);
            int ms = slot_patience(slot, now_ns);
            if (ms >= 0 && (*timeout_ms < 0 || ms < *timeout_ms))
                *timeout_ms = ms;
            if (slot->life && slot->life->pidfd >= 0 && n < MOST_FDS)
                fds[n++] = (struct pollfd){ .fd = slot->life->pidfd, .events = POLLIN };
            if (slot->life && slot->life->socket >= 0 && n < MOST_FDS &&
                (slot->state == SLOT_STARTING || slot->life->pidfd < 0))
                fds[n++] = (struct pollfd){ .fd = slot->life->socket, .events = POLLIN };
        }
    }
    return n;
}

static void *monitor(void *self)
{
    struct shm *bus = self;
    struct pollfd *fds = bus->fds;
    int64_t last_ns = machine_ns(), back_ns = 0;
    pthread_mutex_lock(&bus->lock);
    while (!bus->quit) {
        int timeout_ms;
        int64_t now_ns = machine_ns();
        uint64_t count;
        if (now_ns - last_ns > (int64_t)AWAY_MS * 1000000)
            back_ns = now_ns + (int64_t)GRACE_MS * 1000000 - bus->options.heartbeat_ns;
        nfds_t n = round_of(bus, now_ns, back_ns, fds, &timeout_ms);
        bool slept_long = timeout_ms < 0;
        pthread_mutex_unlock(&bus->lock);
        poll(fds, n, timeout_ms);
        if (fds[0].revents && read(bus->wake, &count, sizeof count) < 0 && errno != EAGAIN)
            poll(NULL, 0, 1); /* can't be; don't spin on it */
        last_ns = slept_long ? machine_ns() : now_ns;
        pthread_mutex_lock(&bus->lock);
    }
    pthread_mutex_unlock(&bus->lock);
    return NULL;
}

void monitor_wake(struct shm *bus)
{
    uint64_t one = 1;
    if (bus->wake >= 0 && write(bus->wake, &one, sizeof one) < 0)
        return; /* full: it will wake */
}

int monitor_start(struct shm *bus, struct lathe_error *err)
{
    if (bus->monitoring)
        return LATHE_OK;
    if (!bus->fds && !(bus->fds = lathe_alloc_array(bus->host, MOST_FDS, sizeof *bus->fds)))
        return lathe_fail(err, LATHE_ENOMEM, "bus shm: no memory for the monitor");
    if (!bus->report && !(bus->report = lathe_alloc(bus->host, sizeof *bus->report)))
        return lathe_fail(err, LATHE_ENOMEM, "bus shm: no memory for the monitor");
    if (bus->wake < 0 && (bus->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) < 0)
        return lathe_fail(err, LATHE_EIO, "bus shm: no eventfd: %s", strerror(errno));
    bus->quit = false;
    if (pthread_create(&bus->monitor, NULL, monitor, bus) != 0)
        return lathe_fail(err, LATHE_ENOMEM, "bus shm: no thread for the monitor");
    bus->monitoring = true;
    return LATHE_OK;
}

void monitor_stop(struct shm *bus)
{
    if (bus->monitoring) {
        pthread_mutex_lock(&bus->lock);
        bus->quit = true;
        pthread_mutex_unlock(&bus->lock);
        monitor_wake(bus);
        pthread_join(bus->monitor, NULL);
        bus->monitoring = false;
    }
    if (bus->wake >= 0)
        close(bus->wake);
    bus->wake = -1;
    lathe_free(bus->host, bus->fds);
    lathe_free(bus->host, bus->report);
    bus->fds = NULL;
    bus->report = NULL;
}
