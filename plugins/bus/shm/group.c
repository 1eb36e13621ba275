/* SPDX-License-Identifier: MIT */
/* Services come and go. Where one is served:
 *
 *     LOCAL, or with one that is      on the caller's thread, in the envelope
 *     with another                    by the workers of the other
 *     with a recipe                   by processes of its own
 *     otherwise                       by threads of its own */
#include <poll.h>
#include <string.h>

#include "shm.h"

static struct member *member_of(struct directory_service *service)
{
    return service->more;
}

/* --- a group ------------------------------------------------------------------------------- */

static void group_free(struct group *group)
{
    if (!group)
        return;
    const struct lathe_host *host = group->bus->host;
    while (group->lives) {
        struct life *life = group->lives;
        group->lives = life->next;
        pool_give(&group->bus->pool, life->block);
        lathe_free(host, life->records);
        lathe_free(host, life);
    }
    lathe_free(host, group->names);
    lathe_free(host, group);
}

static void group_link(struct group *group)
{
    struct shm *bus = group->bus;
    pthread_mutex_lock(&bus->lock);
    group->next = bus->groups;
    bus->groups = group;
    pthread_mutex_unlock(&bus->lock);
}

static void group_unlink(struct group *group)
{
    struct shm *bus = group->bus;
    pthread_mutex_lock(&bus->lock);
    for (struct group **at = &bus->groups; *at; at = &(*at)->next)
        if (*at == group) {
            *at = group->next;
            break;
        }
    pthread_mutex_unlock(&bus->lock);
}

/* Every slot is as it should be: up below `wanted` (or given up), empty above. Under lock. */
static bool is_settled(const struct group *group)
{
    for (uint32_t i = 0; i < GROUP_SLOTS; i++) {
        int state = group->slots[i].state;
        if (i < group->wanted ? state != SLOT_UP && state != SLOT_GAVE_UP : state != SLOT_EMPTY)
            return false;
    }
    return true;
}

/* Tells the monitor the wish and waits until it is so, or a first start failed; then the wish is what it
 * was before. */
static int want_processes(struct group *group, uint32_t workers, struct lathe_error *err)
{
    struct shm *bus = group->bus;
    int status = LATHE_OK;
    pthread_mutex_lock(&bus->lock);
    uint32_t before = group->wanted;
    group->wanted = workers;
    group->failed = LATHE_OK;
    for (uint32_t i = 0; i < GROUP_SLOTS; i++) /* who was given up gets another chance */
        if (group->slots[i].state == SLOT_GAVE_UP)
            group->slots[i].state = SLOT_EMPTY;
    monitor_wake(bus);
    while (!is_settled(group) && !group->failed)
        pthread_cond_wait(&bus->changed, &bus->lock);
    if (group->failed) {
        status = lathe_fail(err, group->failed, "%s", group->failure);
        group->wanted = before;
        monitor_wake(bus);
        while (!is_settled(group))
            pthread_cond_wait(&bus->changed, &bus->lock);
        group->failed = LATHE_OK;
    }
    pthread_mutex_unlock(&bus->lock);
    return status;
}

static int want_threads(struct group *group, uint32_t workers, struct lathe_error *err)
{
    struct shm *bus = group->bus;
    int status = LATHE_OK;
    uint32_t before = group->wanted, i;
    for (i = before; status == LATHE_OK && i < workers; i++)
        status = thread_start(&group->slots[i], err);
    uint32_t keep = status == LATHE_OK ? workers : before;
    for (i = GROUP_SLOTS; i-- > keep;)
        thread_stop(&group->slots[i]);
    pthread_mutex_lock(&bus->lock);
    group->wanted = keep;
    pthread_mutex_unlock(&bus->lock);
    return status;
}

static int want(struct group *group, uint32_t workers, struct lathe_error *err)
{
    return group->processes ? want_processes(group, workers, err) : want_threads(group, workers, err);
}

/* --- the methods' numbers --------------------------------------------------------------------- */

static int find_name(const struct group *group, const char *name, uint32_t *number)
{
    const char *at = group->names;
    for (uint32_t i = 0; i < group->names_count; i++, at += strlen(at) + 1)
        if (strcmp(at, name) == 0) {
            *number = i;
            return 1;
        }
    return 0;
}

/* A free place in the table of a group of threads; nobody calls it before it is told its number. */
static int enter_method(struct group *group, const struct lathe_service_method *method, uint32_t *number)
{
    uint32_t count = atomic_load(&group->method_count), i = 0;
    while (i < count && group->methods[i].function)
        i++;
    if (i == GROUP_METHODS)
        return 0;
    group->methods[i] = (struct served_method){ method->function, method->self };
    if (i == count)
        atomic_store_explicit(&group->method_count, count + 1, memory_order_release);
    *number = i;
    return 1;
}

/* Of threads: free places of the group's table. Of processes: the numbers that the workers told. */
static int number_lines(struct group *group, struct directory_service *service, struct member *member,
                        struct lathe_error *err)
{
    for (uint32_t i = 0; i < member->line_count; i++) {
        struct line *line = &member->lines[i];
        const char *name = service->endpoints[i].name;
        if (group->processes && !find_name(group, name, &line->number))
            return lathe_fail(err, LATHE_EINVAL, "bus shm: the workers of '%s' serve no %s; it is missing in their "
                              "recipe", group->service->what->name, name);
        if (!group->processes && !enter_method(group, line->method, &line->number))
            return lathe_fail(err, LATHE_EFULL, "bus shm: the workers of '%s' serve %d methods already; there is no "
                              "room for %s", group->service->what->name, GROUP_METHODS, name);
        line->group = group;
    }
    return LATHE_OK;
}

/* Its places are free again; no call of them is under way. */
static void leave_methods(struct member *member)
{
    for (uint32_t i = 0; i < member->line_count; i++) {
        struct line *line = &member->lines[i];
        if (line->group && !line->group->processes)
            line->group->methods[line->number].function = NULL;
    }
}

/* --- add ------------------------------------------------------------------------------------------ */

static void member_free(struct shm *bus, struct member *member)
{
    if (!member)
        return;
    envelope_service_close(&member->envelope);
    lathe_free(bus->host, member->lines);
    lathe_free(bus->host, member);
}

static struct member *member_new(struct shm *bus, struct directory_service *service)
{
    uint32_t n = service->what->method_count;
    struct member *member = lathe_alloc(bus->host, sizeof *member);
    struct line *lines = bus->host->alloc(bus->host->context, (size_t)n * sizeof *lines, alignof(struct line));
    if (!member || !lines) {
        lathe_free(bus->host, member);
        lathe_free(bus->host, lines);
        return NULL;
    }
    member->lines = lines;
    member->line_count = n;
    envelope_service_open(&member->envelope, &bus->envelope.policy);
    for (uint32_t i = 0; i < n; i++) {
        struct line *line = &lines[i];
        line->method = &service->what->methods[i];
        line->envelope.bus = &bus->envelope;
        line->envelope.service = &member->envelope;
        line->envelope.endpoint = &service->endpoints[i];
        line->envelope.method_flags = line->method->flags;
        service->endpoints[i].call = line_call_local;
        service->endpoints[i].self = line;
    }
    return member;
}

static int open_group(struct shm *bus, struct directory_service *service, struct group **opened,
                      struct lathe_error *err)
{
    const struct lathe_service *what = service->what;
    uint32_t workers = what->workers ? what->workers : 1;
    struct group *group = lathe_alloc(bus->host, sizeof *group);
    int status = LATHE_OK;
    if (!group)
        return lathe_fail(err, LATHE_ENOMEM, "bus shm: no memory for the workers of service '%s'", what->name);
    group->bus = bus;
    group->service = service;
    group->processes = what->recipe != NULL;
    for (uint32_t i = 0; i < GROUP_SLOTS; i++)
        group->slots[i].group = group;
    if (group->processes)
        status = monitor_start(bus, err);
    if (status == LATHE_OK) {
        group_link(group);
        status = want(group, workers, err);
        if (status != LATHE_OK)
            group_unlink(group);
    }
    if (status != LATHE_OK) {
        group_free(group);
        return status;
    }
    *opened = group;
    return LATHE_OK;
}

static int check_workers(const struct lathe_service *service, uint32_t workers, struct lathe_error *err)
{
    if (workers > GROUP_SLOTS)
        return lathe_fail(err, LATHE_ERANGE, "bus shm: %u workers for service '%s' are beyond %d", workers,
                          service->name, GROUP_SLOTS);
    if (workers > 1 && service->concurrency == LATHE_SERIAL && !service->recipe)
        return lathe_fail(err, LATHE_EINVAL,
                          "bus shm: service '%s' takes one call at a time, so it can't have %u workers",
                          service->name, workers);
    return LATHE_OK;
}

/* Everything that is the member's own; the service leaves the directory elsewhere. */
static void close_member(struct shm *bus, struct member *member)
{
    struct lathe_error ignored;
    for (uint32_t i = 0; i < member->line_count; i++) /* calls under way on other threads are finished first */
        while (atomic_load_explicit(&member->lines[i].active, memory_order_acquire))
            poll(NULL, 0, 1);
    ticket_settle_all(bus, member);
    leave_methods(member);
    if (member->group && member->group->service->more == member) {
        want(member->group, 0, &ignored);
        group_unlink(member->group);
        group_free(member->group);
    }
    member_free(bus, member);
}

/* In the directory, with its lines, which are called on the caller's thread so far. */
static int enter_service(struct shm *bus, const struct lathe_service *service, struct directory_service **added,
                         struct lathe_error *err)
{
    struct directory_service *removed;
    struct lathe_error ignored;
    pthread_mutex_lock(&bus->names);
    int status = directory_add(&bus->directory, service, added, err);
    if (status == LATHE_OK && !((*added)->more = member_new(bus, *added))) {
        status = lathe_fail(err, LATHE_ENOMEM, "bus shm: no memory for service '%s'", service->name);
        directory_remove(&bus->directory, service->name, &removed, &ignored);
        directory_free(&bus->directory, *added);
    }
    pthread_mutex_unlock(&bus->names);
    return status;
}

/* Workers of its own, or another's; its lines lead to them. */
static int find_workers(struct shm *bus, struct directory_service *service, struct lathe_error *err)
{
    struct member *member = service->more;
    struct group *group = NULL;
    int status = LATHE_OK;
    if (service->with != service)
        group = member_of(service->with)->group; /* NULL if that one is local */
    else if ((status = check_workers(service->what, service->what->workers, err)) == LATHE_OK)
        status = open_group(bus, service, &group, err);
    if (status != LATHE_OK || !group)
        return status;
    pthread_mutex_lock(&bus->names);
    member->group = group;
    pthread_mutex_unlock(&bus->names);
    status = number_lines(group, service, member, err);
    for (uint32_t i = 0; status == LATHE_OK && i < member->line_count; i++)
        service->endpoints[i].call = line_call;
    return status;
}

int group_add_service(struct shm *bus, const struct lathe_service *service, struct lathe_error *err)
{
    struct directory_service *added, *removed;
    struct lathe_error ignored;
    int status = enter_service(bus, service, &added, err);
    if (status != LATHE_OK)
        return status;
    status = service->flags & LATHE_SERVICE_LOCAL ? LATHE_OK : find_workers(bus, added, err);
    if (status == LATHE_OK)
        return LATHE_OK;
    pthread_mutex_lock(&bus->names);
    directory_remove(&bus->directory, service->name, &removed, &ignored);
    pthread_mutex_unlock(&bus->names);
    close_member(bus, added->more);
    directory_free(&bus->directory, added);
    return status;
}

int group_remove_service(struct shm *bus, const char *name, struct lathe_error *err)
{
    struct directory_service *removed;
    pthread_mutex_lock(&bus->names);
    int status = directory_remove(&bus->directory, name, &removed, err);
    pthread_mutex_unlock(&bus->names);
    if (status != LATHE_OK)
        return status;
    close_member(bus, removed->more);
    directory_free(&bus->directory, removed);
    return LATHE_OK;
}

/* --- scale --------------------------------------------------------------------------------------- */

int group_scale(struct shm *bus, const char *name, uint32_t workers, struct lathe_error *err)
{
    struct directory_service *service;
    int status = directory_find(&bus->directory, name, &service, err);
    if (status != LATHE_OK)
        return status;
    struct group *group = member_of(service)->group;
    if (group && group->service != service)
        return lathe_fail(err, LATHE_EINVAL, "bus shm: service '%s' is served by the workers of '%s'; scale that",
                          name, group->service->what->name);
    if (workers == 0)
        return lathe_fail(err, LATHE_ERANGE,
                          "bus shm: service '%s' needs at least one worker; remove it to have none", name);
    status = check_workers(service->what, workers, err);
    return status != LATHE_OK || !group ? status : want(group, workers, err);
}
