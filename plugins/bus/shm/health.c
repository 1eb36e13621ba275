/* SPDX-License-Identifier: MIT */
/* How a service is: asked by any thread, while services and workers come and go. */
#include "shm.h"

static void health_of_group(const struct group *group, struct lathe_service_health *health)
{
    const struct lathe_host *host = group->bus->host;
    int64_t now_ns = machine_ns(), oldest_ns = INT64_MAX;
    for (uint32_t i = 0; i < GROUP_SLOTS; i++) {
        const struct slot *slot = &group->slots[i];
        const struct life *life = slot->life;
        if (!life)
            continue;
        health->queued += atomic_load(&life->users);
        if (!health->pid)
            health->pid = life->pid;
        int64_t beat_ns = atomic_load(&life->control->beat_ns);
        if (slot->state == SLOT_UP && group->processes && beat_ns < oldest_ns)
            oldest_ns = beat_ns;
    }
    if (oldest_ns != INT64_MAX)
        health->last_beat_ns = host->now_ns(host->context) - (now_ns - oldest_ns);
    health->workers = atomic_load(&group->up);
    health->workers_wanted = group->wanted;
    health->restarts = group->restarts;
    health->alive = health->workers == group->wanted;
}

static void health_of_member(struct shm *bus, struct member *member, struct lathe_service_health *health)
{
    *health = (struct lathe_service_health){ .size = sizeof *health, .alive = 1 };
    envelope_health(&member->envelope, health);
    if (member->group) {
        pthread_mutex_lock(&bus->lock);
        health_of_group(member->group, health);
        if (atomic_load(&member->group->hopeless))
            lathe_error_set(&health->last_error, LATHE_EUNAVAILABLE, "%s", member->group->given_up);
        pthread_mutex_unlock(&bus->lock);
    }
    health->ready = (!member->group || health->workers > 0) && health->breaker != LATHE_BREAKER_OPEN;
}

int group_health(struct shm *bus, const char *name, struct lathe_service_health *health, struct lathe_error *err)
{
    struct directory_service *service;
    pthread_mutex_lock(&bus->names); /* so that it doesn't go meanwhile */
    int status = directory_find(&bus->directory, name, &service, err);
    if (status == LATHE_OK)
        health_of_member(bus, service->more, health);
    pthread_mutex_unlock(&bus->names);
    return status;
}
