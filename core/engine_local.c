/* SPDX-License-Identifier: MIT */
/* The local services' answers to whoever asks by name (local_services.h): the ranking and why,
 * how full the KV pool is, which blocks are whose. The step loop calls the same methods with a
 * reply that has no room for an answer, and takes the result from the engine itself. */
#include "engine_internal.h"

#include <inttypes.h>
#include <string.h>

#include "local_services.h"

/* A reply's fixed fields, zeroed; false (and LATHE_EFULL said) when they don't fit. */
static bool open_reply(struct lathe_message *out, size_t fixed, const char *method, struct lathe_error *err)
{
    if (out->capacity < fixed) {
        lathe_fail(err, LATHE_EFULL, "%s: the reply needs %zu bytes, there are %" PRIu64, method, fixed, out->capacity);
        return false;
    }
    memset(out + 1, 0, fixed - sizeof *out);
    out->bytes = fixed;
    return true;
}

static uint64_t whole(uint64_t fixed, uint64_t count, uint64_t each)
{
    return ((fixed + 63) & ~(uint64_t)63) + count * each; /* as lathe_message_add aligns */
}

static struct live *find_asked(struct engine *e, const void *in_, struct lathe_error *err)
{
    const struct local_request_in *in = in_;
    struct live *live = in->head.bytes >= sizeof *in ? engine_find(e, in->request) : NULL;
    if (!live)
        lathe_fail(err, LATHE_ENOTFOUND, "there is no request %" PRIu64 " in this engine now",
                   in->head.bytes >= sizeof *in ? in->request : 0);
    return live;
}

int local_rank_reply(struct engine *e, struct lathe_message *head, struct lathe_error *err)
{
    struct local_rank_out *out = (void *)head;
    const struct lathe_ranking *ranking = &e->ranking;
    if (!open_reply(head, sizeof *out, "scheduler.rank", err))
        return LATHE_EFULL;
    out->needed = whole(whole(sizeof *out, ranking->count, sizeof(struct local_ranked)), ranking->preempt_count,
                        sizeof(uint64_t));
    out->wake_ns = ranking->wake_ns;
    struct local_ranked *ranked = lathe_message_add(head, &out->ranked, ranking->count, sizeof *ranked);
    uint64_t *preempt = ranked ? lathe_message_add(head, &out->preempt, ranking->preempt_count, sizeof *preempt) : NULL;
    if (!preempt)
        return lathe_fail(err, LATHE_EFULL, "scheduler.rank: the reply needs %" PRIu64 " bytes", out->needed);
    for (uint32_t i = 0; i < ranking->count; i++) {
        const struct lathe_request *r = ranking->requests[i];
        bool running = r->state == LATHE_REQUEST_RUNNING;
        ranked[i] = (struct local_ranked){
            .request = r->id,
            .state = r->state,
            .flags = (running ? LOCAL_RANKED_RUNNING : LOCAL_RANKED_WAITING) |
                     (running && lathe_request_decoding(r) ? LOCAL_RANKED_DECODING : 0u),
            .priority = r->priority,
            .pending_tokens = lathe_request_pending(r),
        };
    }
    for (uint32_t i = 0; i < ranking->preempt_count; i++)
        preempt[i] = ranking->preempt[i]->id;
    return LATHE_OK;
}

int local_explain(void *self, const void *in, void *out_, struct lathe_error *err)
{
    struct engine *e = self;
    struct local_explain_out *out = out_;
    struct live *live = find_asked(e, in, err);
    char text[512];
    if (!live)
        return LATHE_ENOTFOUND;
    if (!e->scheduler->explain)
        return lathe_fail(err, LATHE_EUNSUPPORTED, "scheduler/%s explains nothing", e->params.parts.scheduler->plugin->name);
    if (!open_reply(&out->head, sizeof *out, "scheduler.explain", err))
        return LATHE_EFULL;
    int length = e->scheduler->explain(e->scheduler_self, &live->req, text, sizeof text);
    size_t bytes = length < 0 ? 0 : (size_t)length < sizeof text ? (size_t)length : sizeof text - 1;
    out->needed = whole(sizeof *out, bytes, 1);
    char *room = lathe_message_add(&out->head, &out->text, bytes, 1);
    if (!room)
        return lathe_fail(err, LATHE_EFULL, "scheduler.explain: the reply needs %" PRIu64 " bytes", out->needed);
    memcpy(room, text, bytes);
    return LATHE_OK;
}

int local_usage(void *self, const void *in, void *out_, struct lathe_error *err)
{
    struct engine *e = self;
    struct local_usage_out *out = out_;
    (void)in;
    if (!open_reply(&out->head, sizeof *out, "memory.usage", err))
        return LATHE_EFULL;
    e->kv->usage(e->kv_self, &out->usage);
    out->block_tokens = e->geometry.block_tokens;
    return LATHE_OK;
}

int local_table(void *self, const void *in, void *out_, struct lathe_error *err)
{
    struct engine *e = self;
    struct local_table_out *out = out_;
    struct live *live = find_asked(e, in, err);
    const int32_t *blocks = NULL;
    uint32_t count = 0;
    if (!live)
        return LATHE_ENOTFOUND;
    if (!open_reply(&out->head, sizeof *out, "memory.table", err))
        return LATHE_EFULL;
    if (live->in_kv)
        e->kv->table(e->kv_self, &live->req, &blocks, &count);
    out->needed = whole(sizeof *out, count, sizeof *blocks);
    out->computed_tokens = live->req.computed_tokens;
    out->block_tokens = e->geometry.block_tokens;
    int32_t *room = lathe_message_add(&out->head, &out->blocks, count, sizeof *room);
    if (!room)
        return lathe_fail(err, LATHE_EFULL, "memory.table: the reply needs %" PRIu64 " bytes", out->needed);
    if (count)
        memcpy(room, blocks, count * sizeof *room);
    return LATHE_OK;
}
