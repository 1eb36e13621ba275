/* SPDX-License-Identifier: MIT */
/* A slot of a process: what there is to do next for the worker in it. Asked by the monitor, again
 * and again; nothing here waits.
 *
 * Starting again. At once the first time; if a life ends before it answered a call, after
 * 10 ms · 2^n, at most a second; after restarts_max such deaths in a row the slot is given up,
 * and with the last slot the service's callers are told that there is no hope. */
#include <string.h>
#include <sys/socket.h>

#include "shm.h"

enum { CLOSING_MS = 1, STOPPING_MS = 10, BACKOFF_FIRST_NS = 10000000, BACKOFF_MAX_NS = 1000000000 };

static const char *name_of(const struct slot *slot)
{
    return slot->group->service->what->name;
}

static void tell(const struct slot *slot, int kind, const char *detail)
{
    const struct lathe_host *host = slot->group->bus->host;
    if (kind == LATHE_BUS_WORKER_DIED || kind == LATHE_BUS_WORKER_STUCK)
        host->log(host->context, LATHE_LOG_WARN, 0, detail);
    envelope_tell(&slot->group->bus->envelope, kind, name_of(slot), slot->worker, detail);
}

/* --- ends -------------------------------------------------------------------------------- */

/* No worker of the service will come up any more, once the last slot is given up. */
static void give_up(struct slot *slot)
{
    struct group *group = slot->group;
    slot->state = SLOT_GAVE_UP;
    for (uint32_t i = 0; i < GROUP_SLOTS; i++)
        if (group->slots[i].state != SLOT_EMPTY && group->slots[i].state != SLOT_GAVE_UP)
            return;
    snprintf(group->given_up, sizeof group->given_up,
             "service '%.60s' is given up after %u deaths of worker %u in a row without "
             "an answered call; scale it to try again; the last: %.240s",
             name_of(slot), slot->deaths, slot->worker, group->last_death);
    atomic_store(&group->hopeless, 1);
}

/* The life is over, its process reaped or never there. What comes next? */
static void slot_died(struct slot *slot, const char *how)
{
    struct group *group = slot->group;
    struct life *life = slot->life;
    bool asked = slot->state == SLOT_STOPPING, wanted = (uint32_t)(slot - group->slots) < group->wanted;
    bool was_up = slot->state == SLOT_UP || slot->state == SLOT_CLOSING || asked;

    if (was_up)
        snprintf(life->death, sizeof life->death, "worker %u of service '%.60s' (pid %d) %.60s%s%.200s", slot->worker,
                 name_of(slot), (int)life->pid, how, life->sentence[0] ? ": " : "", life->sentence);
    else
        snprintf(life->death, sizeof life->death, "worker %u of service '%.60s' did not start: %.300s", slot->worker,
                 name_of(slot), life->sentence[0] ? life->sentence : how);
    snprintf(group->last_death, sizeof group->last_death, "%s", life->death);
    slot->deaths = atomic_load(&life->served) ? 0 : slot->deaths + 1;
    slot->life = NULL;
    spawn_close(life);
    if (!wanted) {
        slot->state = SLOT_EMPTY;
        slot->deaths = 0;
    } else if (!slot->proven) {
        slot->state = SLOT_EMPTY;
        group->failed = life->code ? life->code : LATHE_EUNAVAILABLE;
        snprintf(group->failure, sizeof group->failure, "%s", life->death);
    } else if (slot->deaths >= group->bus->options.restarts_max) {
        give_up(slot);
    } else {
        uint32_t doublings = slot->deaths < 2 ? 0 : slot->deaths - 2 < 10 ? slot->deaths - 2 : 10;
        int64_t pause_ns = slot->deaths < 2 ? 0 : (int64_t)BACKOFF_FIRST_NS << doublings;
        slot->state = SLOT_DUE;
        slot->due_ns = machine_ns() + (pause_ns < BACKOFF_MAX_NS ? pause_ns : BACKOFF_MAX_NS);
        group->restarts++;
    }
    tell(slot, asked || !wanted ? LATHE_BUS_WORKER_STOPPED : LATHE_BUS_WORKER_DIED, life->death);
    life_end(slot, life);
}

/* To be killed, and why; its end is noticed later. Callers stay away from it at once. */
static void kill_life(struct slot *slot, const char *sentence)
{
    struct life *life = slot->life;
    if (life->killed)
        return;
    life->killed = true;
    if (sentence && !life->sentence[0])
        snprintf(life->sentence, sizeof life->sentence, "%s", sentence);
    life_close(slot, life);
    spawn_kill(life);
}

/* --- starts ------------------------------------------------------------------------------- */

static void start(struct slot *slot)
{
    struct shm *bus = slot->group->bus;
    const struct lathe_service *service = slot->group->service->what;
    struct lathe_error err = { 0 };
    uint64_t recipe_at = 0;
    struct life *life = life_new(slot, service->recipe, service->recipe_bytes, &recipe_at);
    if (!life && !slot->proven) {
        slot->state = SLOT_EMPTY;
        slot->group->failed = LATHE_ENOMEM;
        snprintf(slot->group->failure, sizeof slot->group->failure,
                 "bus shm: no memory for a worker of service '%.60s'; "
                 "raise memory_mb",
                 service->name);
        group_tell_came(slot->group);
        return;
    }
    if (!life) {
        slot->due_ns = machine_ns() + BACKOFF_MAX_NS;
        return;
    }
    slot->life = life;
    slot->state = SLOT_STARTING;
    life->code = spawn_worker(bus, life, recipe_at, service->recipe_bytes, &err);
    if (life->code != LATHE_OK) {
        snprintf(life->sentence, sizeof life->sentence, "%.390s", err.message);
        slot_died(slot, "");
        return;
    }
    tell(slot, LATHE_BUS_WORKER_STARTED, "");
}

/* What it says it serves must be what the first of its service said. */
static int take_names(struct group *group, const struct wire_report *report, size_t bytes)
{
    const struct lathe_host *host = group->bus->host;
    uint32_t text = report->text_bytes, nuls = 0;
    if (text > sizeof report->text || bytes != offsetof(struct wire_report, text) + text)
        return 0;
    for (uint32_t i = 0; i < text; i++)
        nuls += report->text[i] == '\0';
    if (nuls != report->count || text == 0 || report->text[text - 1] != '\0')
        return 0;
    if (group->names)
        return group->names_bytes == text && memcmp(group->names, report->text, text) == 0;
    if (!(group->names = lathe_alloc(host, text)))
        return 0;
    memcpy(group->names, report->text, text);
    group->names_bytes = text;
    group->names_count = nuls;
    return 1;
}

static void listen_to(struct slot *slot)
{
    struct life *life = slot->life;
    struct wire_report *report = slot->group->bus->report;
    ssize_t n = recv(life->socket, report, sizeof *report, MSG_DONTWAIT);
    size_t head = offsetof(struct wire_report, text);
    if (n <= 0) /* nothing yet, or its end: which is seen elsewhere */
        return;
    if ((size_t)n < head || report->magic != WIRE_MAGIC || life->killed)
        return kill_life(slot, "it does not speak this bus's language");
    if (report->kind == WIRE_FAILED) {
        int bytes = (int)((size_t)n - head);
        life->code = report->code < 0 ? report->code : LATHE_EINTERNAL;
        snprintf(life->sentence, sizeof life->sentence, "%.*s", bytes < 390 ? bytes : 390, report->text);
        kill_life(slot, NULL);
    } else if (report->kind != WIRE_READY || !take_names(slot->group, report, (size_t)n)) {
        kill_life(slot, "it serves other methods than the worker before it");
    } else {
        life->began_ns = machine_ns();
        slot->state = SLOT_UP;
        slot->proven = true;
        life_open(slot, life);
        tell(slot, LATHE_BUS_WORKER_READY, "");
    }
}

/* --- a round -------------------------------------------------------------------------------- */

/* 1 if the worker left its ring alone but for what is its own: a cell that waits was filled, or is answered.
 * Callers come and go meanwhile, so what looks wrong is looked at twice. */
static bool is_sound(const struct life *life, uint32_t queue)
{
    bool sound = true;
    for (uint32_t i = 0; sound && i < queue; i++) {
        struct record *record = &life->records[i];
        uint32_t position = atomic_load(&record->position);
        if (atomic_load(&record->state) != RECORD_WAITING)
            continue;
        uint32_t ahead = atomic_load(&life->ring->cells[i].turn) - position;
        sound = ahead <= 2 || atomic_load(&record->state) != RECORD_WAITING || atomic_load(&record->position) != position;
    }
    return sound;
}

/* Its heart beats, no call takes too long, and its ring is as it should be. */
static void look_after(struct slot *slot, int64_t now_ns, int64_t back_ns)
{
    const struct shm_options *o = &slot->group->bus->options;
    struct life *life = slot->life;
    char sentence[DEATH_BYTES], told[DEATH_BYTES];
    int64_t beat_ns = atomic_load_explicit(&life->control->beat_ns, memory_order_relaxed);
    int64_t begun_ns = atomic_load_explicit(&life->control->begun_ns, memory_order_relaxed);
    beat_ns = beat_ns < life->began_ns ? life->began_ns : beat_ns;
    beat_ns = beat_ns < back_ns ? back_ns : beat_ns;
    if (life->killed)
        return;
    if (atomic_load(&life->condemned) == 2)
        return kill_life(slot, NULL);
    if (now_ns - beat_ns > o->heartbeat_ns)
        snprintf(sentence, sizeof sentence, "its heart had not beaten for %lld ms",
                 (long long)((now_ns - beat_ns) / 1000000));
    else if (o->stuck_ns && begun_ns > 0 && now_ns - (begun_ns < back_ns ? back_ns : begun_ns) > o->stuck_ns)
        snprintf(sentence, sizeof sentence, "a call had taken %lld ms", (long long)((now_ns - begun_ns) / 1000000));
    else if (!is_sound(life, o->queue))
        snprintf(sentence, sizeof sentence, LIFE_SPOILT);
    else
        return;
    kill_life(slot, sentence);
    snprintf(told, sizeof told, "worker %u of service '%.60s' (pid %d) is killed: %.250s", slot->worker,
             name_of(slot), (int)life->pid, sentence);
    tell(slot, LATHE_BUS_WORKER_STUCK, told);
}

static void close_down(struct slot *slot, int64_t now_ns)
{
    struct life *life = slot->life;
    struct wire_word stop = { WIRE_MAGIC, WIRE_STOP };
    life_close(slot, life);
    if (atomic_load(&life->entering)) /* who came before the closing gets its call in */
        return;
    send(life->socket, &stop, sizeof stop, MSG_NOSIGNAL | MSG_DONTWAIT);
    slot->state = SLOT_STOPPING;
    life->began_ns = now_ns;
}

/* A call that the worker has, or that waits in its ring. */
static bool has_work(const struct life *life, uint32_t queue)
{
    for (uint32_t i = 0; i < queue; i++)
        if (atomic_load(&life->records[i].state) == RECORD_WAITING &&
            !callring_answered(life->ring, life->records[i].position))
            return true;
    return false;
}

void slot_step(struct slot *slot, int64_t now_ns, int64_t back_ns)
{
    struct group *group = slot->group;
    const struct shm_options *o = &group->bus->options;
    bool wanted = (uint32_t)(slot - group->slots) < group->wanted;
    char how[128];

    if (slot->state == SLOT_EMPTY && wanted && !group->failed) {
        slot->state = SLOT_DUE;
        slot->due_ns = now_ns;
        slot->deaths = 0;
        slot->proven = false;
        if (!slot->worker)
            slot->worker = ++group->bus->next_worker;
    }
    if ((slot->state == SLOT_DUE || slot->state == SLOT_GAVE_UP) && !wanted) {
        slot->state = SLOT_EMPTY;
        pthread_cond_broadcast(&group->bus->changed);
    }
    if (slot->state == SLOT_DUE && now_ns >= slot->due_ns)
        start(slot);
    if (!slot->life)
        return;
    if (slot->state == SLOT_STARTING)
        listen_to(slot);
    if (spawn_ended(slot->life, how, sizeof how)) {
        slot_died(slot, how);
        return;
    }
    switch (slot->state) {
    case SLOT_STARTING:
        if (!wanted)
            kill_life(slot, "it was no longer wanted");
        else if (now_ns - slot->life->began_ns > o->start_ns)
            kill_life(slot, "it was not ready in time; raise start_ms");
        break;
    case SLOT_UP:
        look_after(slot, now_ns, back_ns);
        if (!wanted)
            slot->state = SLOT_CLOSING;
        break;
    case SLOT_CLOSING:
        look_after(slot, now_ns, back_ns);
        close_down(slot, now_ns);
        break;
    case SLOT_STOPPING: /* what it had begun it finishes, under the same eye; then its time runs */
        if (has_work(slot->life, o->queue)) {
            look_after(slot, now_ns, back_ns);
            slot->life->began_ns = now_ns;
        } else if (now_ns - slot->life->began_ns > o->stop_ns) {
            kill_life(slot, "it did not end when it was told to");
        }
        break;
    }
}

int slot_patience(const struct slot *slot, int64_t now_ns)
{
    switch (slot->state) {
    case SLOT_EMPTY:
    case SLOT_GAVE_UP: return -1;
    case SLOT_DUE: return now_ns >= slot->due_ns ? 0 : (int)((slot->due_ns - now_ns) / 1000000) + 1;
    case SLOT_CLOSING: return CLOSING_MS;
    case SLOT_STOPPING: return STOPPING_MS;
    default: return MONITOR_LOOK_MS;
    }
}
