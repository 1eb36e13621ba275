/* SPDX-License-Identifier: MIT */
/* What of a plan there is room for. Three things of a step are of no fixed size:
 *
 *     kept positions   kept[] of the forward's message: of each request (sets, count)
 *     masses           of its reply: of each request (sets, keys)
 *     probes' records  the recorder's bulk ring
 *
 * Their room is for what a step usually is. A plan that would need more is cut: a long prefill goes on in the
 * next step, a request beyond comes in the next. The first entry always fits (a request's keys lie in the pool,
 * and the rooms hold the pool), but for a record that is larger than the whole ring: that probe is refused. */
#include "engine_internal.h"

#include <inttypes.h>
#include <string.h>

uint32_t fit_kept(const struct engine *e, const struct live *live, const int32_t **positions)
{
    uint32_t count = 0;
    *positions = NULL;
    if (e->kept_room > 0 && (live->in_kv || live->req.state == LATHE_REQUEST_SWAPPED))
        e->kv->kept(e->kv_self, &live->req, positions, &count);
    if (count == 0)
        *positions = NULL;
    return count > 0 ? count : live->req.computed_tokens;
}

/* ── Records ────────────────────────────────────────────────────────────────────────── */

/* Bytes of all probes' records of one row, which sees so many keys. */
static size_t row_bytes(const struct engine *e, uint32_t probes, uint32_t position, uint32_t keys)
{
    size_t bytes = 0;
    for (; probes; probes &= probes - 1) {
        const struct lathe_probe *probe = &e->probes[__builtin_ctz(probes)];
        if (lathe_probe_wants(probe, (int32_t)position))
            bytes += lathe_attention_row_bytes(probe, keys);
    }
    return bytes;
}

/* How many of an entry's rows fit into *room bytes, which are then taken. */
static uint32_t rows_that_fit(const struct engine *e, uint32_t probes, uint32_t first, uint32_t kept, uint32_t tokens,
                              size_t *room)
{
    for (uint32_t i = 0; i < tokens; i++) {
        size_t bytes = row_bytes(e, probes, first + i, kept + i + 1);
        if (bytes > *room)
            return i;
        *room -= bytes;
    }
    return tokens;
}

static void refuse_probes(struct engine *e, struct live *live, size_t bytes, size_t room)
{
    struct record_event event = { .time_ns = e->row.start_ns, .correlation_id = (int64_t)live->req.correlation };
    memcpy(event.level, "warn", 5);
    snprintf(event.message, sizeof event.message,
             "request %" PRIu64 ": one token's attention takes %zu bytes, the recorder's bulk ring holds %zu; its probe was "
             "switched off: probe fewer layers or heads, or give the recorder a larger ring",
             live->req.id, bytes, room);
    record_event(e->producer, &event);
    live->probes = 0;
}

/* ── The plan ───────────────────────────────────────────────────────────────────────── */

struct rooms {
    uint64_t kept, mass;  /* numbers that are left */
    size_t ring, whole;   /* bytes that are left, and that there were */
};

/* How many tokens of an entry there is room for; the room is taken. */
static uint32_t fit(struct engine *e, struct live *live, uint32_t tokens, struct rooms *left)
{
    const int32_t *positions;
    uint32_t first = live->req.computed_tokens, kept = fit_kept(e, live, &positions), probes = probes_of(e, live);
    uint64_t listed = positions ? (uint64_t)kept * e->kv_sets : 0;

    if (listed > left->kept)
        return 0;
    if (e->mass_room > 0) {
        uint64_t keys = left->mass / e->kv_sets;
        if (keys <= kept)
            return 0;
        tokens = tokens < keys - kept ? tokens : (uint32_t)(keys - kept);
    }
    if (probes && e->producer) {
        uint32_t rows = rows_that_fit(e, probes, first, kept, tokens, &left->ring);
        if (rows == 0 && left->ring == left->whole)
            refuse_probes(e, live, row_bytes(e, probes, first, kept + 1), left->whole);
        else
            tokens = rows;
    }
    left->kept -= tokens > 0 ? listed : 0;
    left->mass -= e->mass_room > 0 && tokens > 0 ? ((uint64_t)kept + tokens) * e->kv_sets : 0;
    return tokens;
}

void fit_plan(struct engine *e)
{
    struct rooms left = { .kept = e->kept_room, .mass = e->mass_room };
    uint32_t count = 0;

    e->attention_room = 0;
    if (e->by_length || (e->kept_room == 0 && e->mass_room == 0 && e->params.probe_count == 0))
        return;
    left.ring = left.whole = e->params.probe_count && e->producer ? record_attention_capacity(e->producer) : 0;
    for (uint32_t i = 0; i < e->plan.count; i++) {
        struct lathe_plan_entry *planned = &e->plan.entries[i];
        if (planned->request) {
            struct live *live = live_of(e, planned->request);
            uint32_t tokens = fit(e, live, planned->tokens, &left);
            if (tokens == 0) {
                live->planned = 0; /* its turn is the next step */
                continue;
            }
            planned->tokens = tokens;
        }
        e->plan.entries[count++] = *planned;
    }
    e->plan.count = count;
    e->attention_room = left.whole - left.ring;
}
