/* SPDX-License-Identifier: MIT */
/* A table of the caller's into the pieces of a message: see payload.h.
 *
 * One walk over the description. Fixed fields are written where the struct has them; the
 * elements of spans go to one growing array a span, so that lists inside of an element (a
 * slice's tokens) can be appended to several arrays at once (payload_parts.c). */
#include "payload_read.h"

#include <stdlib.h>
#include <string.h>

#include "registry.h"

enum { NAMES_MAX = 40 };

static void whole_mask(const struct payload_parts *parts, const struct payload_field *f, unsigned char *at)
{
    uint64_t mask[LATHE_PROBE_MAX_LAYERS / 64] = { 0 };
    uint32_t bits = LATHE_PROBE_MAX_LAYERS;
    int own = payload_member(parts->what->in, f->link);
    if (own >= 0) /* of the message's field, which is read before */
        bits = (uint32_t)parts->parts[own].count;
    else if (parts->model)
        bits = strcmp(f->link, "layers") == 0 ? parts->model->layers : parts->model->heads;
    for (uint32_t i = 0; i < bits && i < f->bytes * 8; i++)
        mask[i / 64] |= UINT64_C(1) << (i % 64);
    memcpy(at, mask, f->bytes);
}

/* ── structs ───────────────────────────────────────────────────────────────────────── */

static int read_struct(struct payload_walk *w, const struct payload_struct *of, unsigned char *base, size_t index);

/* Elements may move while a later one is read: they are found anew by their index. */
static int read_elements(struct payload_walk *w, const struct payload_field *f, int target)
{
    size_t length;
    int rc = walk_length(w, f, &length);
    for (size_t i = 0; rc == LATHE_OK && i < length; i++) {
        size_t before = walk_enter_index(w, i);
        unsigned char *at = payload_parts_add(w->parts, target, 1, f->of->bytes, w->err);
        if (!at)
            return w->err->code;
        if ((rc = read_struct(w, f->of, at, i)) == LATHE_OK)
            walk_leave(w, before);
    }
    return rc;
}

static int read_bytes(struct payload_walk *w, const struct payload_field *f, int target)
{
    const struct payload_source *s = w->source;
    size_t bytes = 0;
    char *made = NULL;
    const char *text = s->kind(s->context) == PAYLOAD_IS_TEXT ? s->text(s->context, &bytes) : NULL;
    if (!text && f->type == PAYLOAD_JSON && (text = made = s->json(s->context)))
        bytes = strlen(made);
    if (!text)
        return walk_refuse_field(w, f);
    void *at = payload_parts_add(w->parts, target, bytes, 1, w->err);
    if (at && bytes > 0)
        memcpy(at, text, bytes);
    free(made);
    return at ? LATHE_OK : w->err->code;
}

static int read_choice(struct payload_walk *w, const struct payload_field *f, void *at)
{
    const struct payload_source *s = w->source;
    size_t bytes;
    const char *text = s->kind(s->context) == PAYLOAD_IS_TEXT ? s->text(s->context, &bytes) : NULL;
    for (const struct payload_name *n = f->names; text && n->name; n++) {
        if (strcmp(n->name, text) != 0)
            continue;
        memcpy(at, &n->value, sizeof n->value);
        return LATHE_OK;
    }
    return walk_refuse_field(w, f);
}

static int read_boolean(struct payload_walk *w, const struct payload_field *f, uint32_t set, unsigned char *at)
{
    const struct payload_source *s = w->source;
    uint32_t word;
    if (s->kind(s->context) != PAYLOAD_IS_BOOLEAN)
        return walk_refuse_field(w, f);
    memcpy(&word, at, sizeof word);
    word |= s->integer(s->context) ? set : 0;
    memcpy(at, &word, sizeof word);
    return LATHE_OK;
}

/* The current value into the field. */
static int read_field(struct payload_walk *w, const struct payload_struct *of, const struct payload_field *f,
                      unsigned char *base)
{
    const struct payload_struct *message = w->parts->what->in;
    int own = (int)(f - of->fields), link = f->link ? payload_member(message, f->link) : -1, rc;
    uint32_t range[2];
    void *place;
    switch (f->type) {
    case PAYLOAD_F32: return walk_float(w, f, base + f->offset);
    case PAYLOAD_BOOLEAN: return read_boolean(w, f, 1, base + f->offset);
    case PAYLOAD_CHOICE: return read_choice(w, f, base + f->offset);
    case PAYLOAD_MASK: return walk_mask(w, f, base + f->offset);
    case PAYLOAD_LIST: return walk_list(w, of, f, base);
    case PAYLOAD_STRUCT: return read_struct(w, f->of, base + f->offset, 0);
    case PAYLOAD_TEXT:
    case PAYLOAD_JSON: return read_bytes(w, f, own);
    case PAYLOAD_ROWS: return walk_rows(w, f, own);
    case PAYLOAD_SPAN:
        if (f->of)
            return read_elements(w, f, own);
        return walk_append(w, f, own, range);
    case PAYLOAD_RANGE:
        if ((rc = walk_append(w, f, link, range)) == LATHE_OK)
            memcpy(base + f->offset, range, sizeof range);
        return rc;
    case PAYLOAD_PLACE:
        range[0] = (uint32_t)w->parts->parts[link].count;
        place = payload_parts_add(w->parts, link, 1, f->of->bytes, w->err);
        if (!place)
            return w->err->code;
        memcpy(base + f->offset, range, sizeof *range);
        return read_struct(w, f->of, place, range[0]);
    default: return walk_integer(w, f, base + f->offset);
    }
}

/* Nobody gave it. */
static int read_absent(struct payload_walk *w, const struct payload_struct *of, const struct payload_field *f,
                       unsigned char *base, size_t index)
{
    const struct payload *what = w->parts->what;
    float single = (float)f->absent;
    uint32_t none = UINT32_MAX;
    if (!(f->flags & PAYLOAD_OPTIONAL)) {
        char expected[160];
        return lathe_fail(w->err, LATHE_EINVAL, "%s.%s: %s is missing: %s is expected", what->service, what->method,
                          w->path, payload_expects(f, expected, sizeof expected));
    }
    switch (f->type) {
    case PAYLOAD_F32: memcpy(base + f->offset, &single, sizeof single); break;
    case PAYLOAD_MASK: whole_mask(w->parts, f, base + f->offset); break;
    case PAYLOAD_PLACE: memcpy(base + f->offset, &none, sizeof none); break;
    case PAYLOAD_RANGE: /* of nothing, wherever it would begin */
    case PAYLOAD_LIST:
    case PAYLOAD_SPAN:
    case PAYLOAD_TEXT:
    case PAYLOAD_JSON:
    case PAYLOAD_ROWS: break;
    case PAYLOAD_STRUCT:
        for (size_t i = 0; i < f->of->count; i++) {
            int rc = f->of->fields[i].name ? read_absent(w, f->of, &f->of->fields[i], base + f->offset, 0) : LATHE_OK;
            if (rc != LATHE_OK)
                return rc;
        }
        break;
    default:
        if (f->flags & PAYLOAD_ABSENT_INDEX)
            walk_put(base + f->offset, f->bytes, (int64_t)index);
        else if (f->flags & PAYLOAD_ABSENT_COUNT) /* `link` is a range beside it, read before */
            for (size_t i = 0; i < of->count; i++) {
                const struct payload_field *range = &of->fields[i];
                if (range->type == PAYLOAD_RANGE && strcmp(range->name, f->link) == 0)
                    memcpy(base + f->offset, base + range->offset + sizeof(uint32_t), sizeof(uint32_t));
            }
        else
            walk_put(base + f->offset, f->bytes, (int64_t)f->absent);
    }
    return LATHE_OK;
}

/* ── names ─────────────────────────────────────────────────────────────────────────── */

struct names {
    const char *names[NAMES_MAX];
    size_t count;
    char unknown[64]; /* cut if longer */
};

static void add_names(struct names *n, const struct payload_struct *of)
{
    for (size_t i = 0; i < of->count; i++) {
        const struct payload_field *f = &of->fields[i];
        if (f->name && n->count < NAMES_MAX)
            n->names[n->count++] = f->name;
        else if (f->type == PAYLOAD_STRUCT && !f->name)
            add_names(n, f->of);
        else if (f->type == PAYLOAD_FLAGS)
            for (const struct payload_name *flag = f->names; flag->name && n->count < NAMES_MAX; flag++)
                n->names[n->count++] = flag->name;
    }
}

static int is_unknown(void *who, const char *name)
{
    struct names *n = who;
    for (size_t i = 0; i < n->count; i++)
        if (strcmp(n->names[i], name) == 0)
            return 0;
    snprintf(n->unknown, sizeof n->unknown, "%s", name);
    return 1;
}

static int check_names(struct payload_walk *w, const struct payload_struct *of)
{
    const struct payload *what = w->parts->what;
    char list[320] = "";
    struct names n = { .count = 0 };
    add_names(&n, of);
    if (!w->source->each_name(w->source->context, is_unknown, &n))
        return LATHE_OK;
    for (size_t i = 0, used = 0; i < n.count && used < sizeof list; i++)
        used += (size_t)snprintf(list + used, sizeof list - used, "%s%s", i ? ", " : "", n.names[i]);
    const char *near = nearest_name(n.unknown, n.names, n.count), *in = w->path[0] ? w->path : "the message";
    if (near)
        return lathe_fail(w->err, LATHE_EINVAL, "%s.%s: %s has no field `%s`; did you mean `%s`?", what->service,
                          what->method, in, n.unknown, near);
    return lathe_fail(w->err, LATHE_EINVAL, "%s.%s: %s has no field `%s`; it has %s", what->service, what->method, in,
                      n.unknown, n.count ? list : "none");
}

static int read_flags(struct payload_walk *w, const struct payload_field *f, unsigned char *base)
{
    int rc = LATHE_OK;
    for (const struct payload_name *flag = f->names; rc == LATHE_OK && flag->name; flag++) {
        if (!w->source->field(w->source->context, flag->name))
            continue;
        size_t before = walk_enter_name(w, flag->name);
        if ((rc = read_boolean(w, f, flag->value, base + f->offset)) == LATHE_OK)
            walk_leave(w, before);
    }
    return rc;
}

/* `base` may move when an array grows: an element's own array grows only after it was read. */
static int read_fields(struct payload_walk *w, const struct payload_struct *of, unsigned char *base, size_t index)
{
    int rc = LATHE_OK;
    for (size_t i = 0; rc == LATHE_OK && i < of->count; i++) {
        const struct payload_field *f = &of->fields[i];
        if (f->type == PAYLOAD_FLAGS) {
            rc = read_flags(w, f, base);
        } else if (f->type == PAYLOAD_NUMBER) {
            walk_put(base + f->offset, f->bytes, (int64_t)index + 1);
        } else if (f->name) {
            size_t before = walk_enter_name(w, f->name);
            if (!w->source->field(w->source->context, f->name)) {
                rc = read_absent(w, of, f, base, index);
                w->path[before] = '\0';
            } else if ((rc = read_field(w, of, f, base)) == LATHE_OK) {
                walk_leave(w, before);
            }
        }
    }
    return rc == LATHE_OK && of->finish ? of->finish(w->parts, base, w->err) : rc;
}

static int read_struct(struct payload_walk *w, const struct payload_struct *of, unsigned char *base, size_t index)
{
    if (!w->source->table(w->source->context))
        return walk_refuse(w, "a table");
    int rc = check_names(w, of);
    return rc == LATHE_OK ? read_fields(w, of, base, index) : rc;
}

int payload_read(const struct payload *what, const struct payload_source *source, const struct lathe_model_info *model,
                 struct payload_parts *parts, struct lathe_error *err)
{
    struct payload_walk w = { .parts = parts, .source = source, .err = err };
    memset(parts, 0, sizeof *parts);
    parts->what = what;
    parts->model = model;
    parts->fixed = calloc(1, what->in->bytes);
    if (!parts->fixed)
        return lathe_fail(err, LATHE_ENOMEM, "%s.%s: no memory for a message", what->service, what->method);
    int rc = read_struct(&w, what->in, parts->fixed, 0);
    for (size_t i = 0; rc == LATHE_OK && i < what->in->count; i++) {
        const struct payload_field *f = &what->in->fields[i];
        if (f->type == PAYLOAD_WIDTH)
            walk_put(parts->fixed + f->offset, f->bytes,
                (int64_t)(parts->parts[payload_member(what->in, f->link)].each / sizeof(float)));
    }
    return rc;
}
