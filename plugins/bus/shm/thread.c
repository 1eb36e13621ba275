/* SPDX-License-Identifier: MIT */
/* Workers that are threads of this process, for services that can't leave it: the same ring in
 * the same memory, the same loop at its end; only nobody can kill it. [main] */
#include <sched.h>

#include "shm.h"

static void *run(void *self)
{
    struct life *life = self;
    const struct lathe_host *host = life->serving.host;
    host->set_thread_roles(host->context, LATHE_THREAD_ENGINE | LATHE_THREAD_WORKER);
    serve_ring(&life->serving);
    return NULL;
}

static int start(struct slot *slot, struct lathe_error *err)
{
    struct group *group = slot->group;
    struct shm *bus = group->bus;
    struct life *life = life_new(slot, NULL, 0, NULL);
    if (!life)
        return lathe_fail(err, LATHE_ENOMEM, "bus shm: no memory for a worker of service '%s'",
                          group->service->what->name);
    life->serving = (struct serving){
        .host = bus->host,
        .base = bus->base,
        .bytes = bus->bytes,
        .ring = life->ring,
        .capacity = bus->options.queue,
        .errors = life->errors,
        .control = life->control,
        .methods = group->methods,
        .method_count = &group->method_count,
        .spin_ns = bus->options.spin_ns,
    };
    if (pthread_create(&life->thread, NULL, run, life) != 0) {
        life_end(slot, life);
        return lathe_fail(err, LATHE_ENOMEM, "bus shm: no thread for a worker of service '%s'",
                          group->service->what->name);
    }
    slot->life = life;
    slot->state = SLOT_UP;
    life_open(slot, life);
    envelope_tell(&bus->envelope, LATHE_BUS_WORKER_READY, group->service->what->name, slot->worker, "");
    return LATHE_OK;
}

int thread_start(struct slot *slot, struct lathe_error *err)
{
    struct shm *bus = slot->group->bus;
    pthread_mutex_lock(&bus->lock);
    if (!slot->worker)
        slot->worker = ++bus->next_worker;
    int status = start(slot, err);
    pthread_mutex_unlock(&bus->lock);
    return status;
}

void thread_stop(struct slot *slot)
{
    struct life *life = slot->life; /* nobody but [main] gives a thread's slot another */
    struct group *group = slot->group;
    struct shm *bus = group->bus;
    if (!life)
        return;
    pthread_mutex_lock(&bus->lock);
    life_close(slot, life);
    pthread_mutex_unlock(&bus->lock);
    while (atomic_load(&life->entering)) /* who came before the closing gets its call in */
        sched_yield();
    atomic_store(&life->serving.stop, 1);
    callring_ring(life->ring, 1);
    pthread_join(life->thread, NULL); /* as long as its last call takes: not under lock */
    pthread_mutex_lock(&bus->lock);
    slot->life = NULL;
    slot->state = SLOT_EMPTY;
    life_end(slot, life);
    envelope_tell(&bus->envelope, LATHE_BUS_WORKER_STOPPED, group->service->what->name, slot->worker, "");
    pthread_mutex_unlock(&bus->lock);
}
