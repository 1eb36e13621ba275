/* SPDX-License-Identifier: MIT */
/* A life: made with its block of shared memory, opened, closed, ended. All of it under the
 * bus's lock; see shm.h for what callers do meanwhile. */
#include <limits.h>
#include <sched.h>
#include <string.h>

#include "bus/futex.h"
#include "shm.h"

/* The shared memory of lives that nobody holds any more. */
static void give_blocks_back(struct group *group)
{
    for (struct life *life = group->lives; life; life = life->next)
        if (life->block && atomic_load(&life->state) == LIFE_DEAD && atomic_load(&life->users) == 0) {
            pool_give(&group->bus->pool, life->block);
            life->block = 0;
        }
}

/* One whose end was told to all its callers, or memory for another. */
static struct life *find_life(struct group *group)
{
    const struct lathe_host *host = group->bus->host;
    struct life *life = group->lives;
    while (life && (life->block || atomic_load(&life->state) != LIFE_DEAD || atomic_load(&life->entering)))
        life = life->next;
    if (life)
        return life;
    life = lathe_alloc(host, sizeof *life);
    struct record *records = lathe_alloc_array(host, group->bus->options.queue, sizeof *records);
    if (!life || !records) {
        lathe_free(host, life);
        lathe_free(host, records);
        return NULL;
    }
    life->records = records;
    life->next = group->lives;
    group->lives = life;
    return life;
}

struct life *life_new(struct slot *slot, const void *recipe, uint64_t recipe_bytes, uint64_t *recipe_at)
{
    struct group *group = slot->group;
    struct shm *bus = group->bus;
    uint64_t errors = sizeof(struct wire_worker), total;
    uint64_t ring = errors + (uint64_t)bus->options.queue * sizeof(struct lathe_error);
    uint64_t after = ring + callring_bytes(bus->options.queue);
    give_blocks_back(group);
    struct life *life = find_life(group);
    if (!life)
        return NULL;
    life->block = __builtin_add_overflow(after, recipe_bytes, &total) ? 0 : pool_take(&bus->pool, total);
    if (!life->block) {
        atomic_store(&life->state, LIFE_DEAD);
        return NULL;
    }
    unsigned char *at = bus->base + life->block;
    life->slot = slot;
    life->generation = ++slot->generation;
    life->control = (void *)at;
    life->errors = (void *)(at + errors);
    life->ring = (void *)(at + ring);
    life->pid = 0;
    life->pidfd = life->socket = -1;
    life->code = LATHE_OK;
    life->killed = false;
    life->sentence[0] = life->death[0] = '\0';
    life->began_ns = machine_ns();
    atomic_store(&life->served, 0);
    atomic_store(&life->condemned, 0);
    for (uint32_t i = 0; i < bus->options.queue; i++)
        atomic_store_explicit(&life->records[i].state, RECORD_FREE, memory_order_relaxed);
    memset(life->control, 0, sizeof *life->control);
    callring_init(life->ring, bus->options.queue, 1);
    if (recipe_bytes)
        memcpy(at + after, recipe, recipe_bytes);
    if (recipe_at)
        *recipe_at = life->block + after;
    atomic_store(&life->state, LIFE_NEW);
    return life;
}

void group_tell_came(struct group *group)
{
    atomic_fetch_add(&group->came, 1);
    futex_wake(&group->came, INT_MAX, 0);
    bell_ring(group->bus->wire);
    pthread_cond_broadcast(&group->bus->changed);
}

void life_open(struct slot *slot, struct life *life)
{
    struct group *group = slot->group;
    uint32_t reach = (uint32_t)(slot - group->slots) + 1;
    atomic_store(&life->state, LIFE_OPEN);
    atomic_store(&slot->current, life);
    if (atomic_load(&group->reach) < reach)
        atomic_store(&group->reach, reach);
    atomic_fetch_add(&group->up, 1);
    atomic_store(&group->hopeless, 0);
    group_tell_came(group);
}

void life_close(struct slot *slot, struct life *life)
{
    uint32_t open = LIFE_OPEN;
    if (atomic_compare_exchange_strong(&life->state, &open, LIFE_CLOSED)) {
        atomic_store(&slot->current, NULL);
        atomic_fetch_sub(&slot->group->up, 1);
    }
}

void life_end(struct slot *slot, struct life *life)
{
    struct shm *bus = slot->group->bus;
    life_close(slot, life);
    atomic_store(&life->state, LIFE_DEAD);
    while (atomic_load(&life->entering)) /* a handful of stores long, unless it lost its processor */
        sched_yield();
    if (life->ring->capacity != bus->options.queue) /* the worker's doing */
        life->ring->capacity = bus->options.queue;
    for (uint32_t i = 0; i < bus->options.queue; i++) {
        uint32_t waiting = RECORD_WAITING;
        struct record *record = &life->records[i];
        if (atomic_load(&record->state) != RECORD_WAITING)
            continue;
        uint32_t position = record->position; /* the taker may free the record once it is abandoned */
        if (callring_answered(life->ring, position)) /* the answer is whole, and its caller is on the way */
            continue;
        if (atomic_compare_exchange_strong(&record->state, &waiting, RECORD_ABANDONED))
            callring_answer(life->ring, position);
    }
    give_blocks_back(slot->group);
    group_tell_came(slot->group);
}
