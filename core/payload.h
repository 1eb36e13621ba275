/* SPDX-License-Identifier: MIT */
/* Messages, described once: which fields a method's message has, of which type, where they lie,
 * what they default to and what they mean. From the descriptions (payload_tables.c) come
 * calls by name with a table from Lua, with JSON from elsewhere, and `lathe services`.
 *
 *     a table ─payload_read─▶ parts ─payload_call_run─▶ in ─the bus─▶ out ─payload_write─▶ a table
 *               (source)      loans, lays out, calls, and grows the reply while it's too small   (sink)
 *
 * The walk over the description is written once (payload_read.c, payload_write.c); Lua and JSON
 * are a `source` and a `sink` each, a few callbacks (lua_payload.c, payload_json.c).
 *
 * Spans, counts and indexes are never taken from a caller: the caller nests, and the walk lays
 * out. A slice of model.forward says its own tokens, blocks, outputs and probe:
 *
 *     engine:call("model", "forward", {
 *         slices = { { request = 1, first_position = 0, tokens = { 72, 105 }, blocks = { 0 }, logits = true,
 *                      probe = { format = "summary", layers = { 0 } } } } })
 *     → { logits = { { 0.1, … } }, hidden = {}, attention = { { request = 1, position = 0, … }, … } }
 *
 * and the walk appends them to the message's flat arrays and sets token_first, token_count and
 * the like. So a method can't be made to read outside of its message; what only it can know
 * (vocabulary, pool, context) it checks itself, as every method does for the engine.
 * What a method wrote is checked before it is read: spans lie in the reply, counts in their room. */
#ifndef CORE_PAYLOAD_H
#define CORE_PAYLOAD_H

#include <stddef.h>
#include <stdint.h>

#include "text.h"
#include <lathe/bus.h>
#include <lathe/message.h>
#include <lathe/model.h>

/* ── descriptions ──────────────────────────────────────────────────────────────────── */

enum payload_type {
    PAYLOAD_NONE,
    /* Of a known width. */
    PAYLOAD_U8, PAYLOAD_U32, PAYLOAD_I32, PAYLOAD_U64, PAYLOAD_I64, PAYLOAD_F32,
    PAYLOAD_BOOLEAN,   /* u32 or i32: true is 1 */
    PAYLOAD_CHOICE,    /* u32 or i32: one of `names`, as text */
    PAYLOAD_FLAGS,     /* uint32_t: each of `names` is a boolean field beside the others */
    PAYLOAD_MASK,      /* uint64_t or uint64_t[4]: a list of bit numbers; absent: all that the model, or the
                          message, has (`link`) */
    PAYLOAD_CHARS,     /* char[]: a text */
    PAYLOAD_LIST,      /* an array of `element`, as many as member `link` says */
    PAYLOAD_STRUCT,    /* `of`; without a name its fields stand beside the others */
    /* Spans and regions of the message. */
    PAYLOAD_TEXT,      /* bytes */
    PAYLOAD_JSON,      /* bytes: the JSON text of any value; a text is taken as it is */
    PAYLOAD_SPAN,      /* a list of `element`, or of `of` */
    PAYLOAD_ROWS,      /* region of float rows, all as wide; in a reply as many as member `link` says */
    PAYLOAD_INTEGERS,  /* region of int32_t, gathered from ranges */
    PAYLOAD_ATTENTION, /* region of attention records; bytes in member `link` */
    PAYLOAD_MASSES,    /* region of keys' masses; bytes in member `link` */
    /* Of an element, about the message it is in. */
    PAYLOAD_RANGE,     /* two uint32_t, first and count: a list, appended to the message's field `link` */
    PAYLOAD_PLACE,     /* uint32_t: a table, appended to the message's field `link`; absent: UINT32_MAX */
    /* Not shown: the walk, the method or the bus fills them. */
    PAYLOAD_HEAD,      /* struct lathe_message */
    PAYLOAD_RESERVED,  /* 0 */
    PAYLOAD_COUNT,     /* of a LIST or a region */
    PAYLOAD_NUMBER,    /* an element's own number in its span, from 1 */
    PAYLOAD_WIDTH,     /* of the rows of field `link` */
    PAYLOAD_GATHERED,  /* a span of `element` or `of` that RANGE and PLACE append to */
    PAYLOAD_NEEDED,    /* the reply's wish on LATHE_EFULL, in units of `each` bytes */
};

enum payload_field_flags {
    PAYLOAD_OPTIONAL = 1,     /* absent: `absent` */
    PAYLOAD_ABSENT_INDEX = 2, /* absent: the element's own index */
    PAYLOAD_ABSENT_COUNT = 4, /* absent: the count of range `link` beside it */
    PAYLOAD_ABOVE_MIN = 8,    /* `min` itself is not allowed */
    PAYLOAD_BELOW_MAX = 16,   /* `max` itself is not allowed */
};

struct payload_struct;

struct payload_name {
    const char *name; /* NULL ends the list */
    uint32_t value;
    const char *help;
};

struct payload_field {
    const char *name;   /* NULL: not shown */
    const char *member; /* in C; of a RANGE the first of two */
    const char *second; /* RANGE only */
    uint8_t type;       /* enum payload_type */
    uint8_t element;    /* enum payload_type: of lists; NONE: see `of` */
    uint16_t flags;     /* enum payload_field_flags */
    uint32_t offset, bytes, each;
    double min, max;    /* both 0: what the type holds; of lists: of an element */
    double absent;
    const struct payload_struct *of;
    const struct payload_name *names;
    const char *link;   /* a member's name, see the types */
    const char *help;   /* one line */
};

struct payload_parts;

struct payload_struct {
    const char *name; /* the C struct's: "lathe_slice" */
    const struct payload_field *fields;
    size_t count, bytes;
    /* After an element was read: what its description can't say. NULL: nothing. */
    int (*finish)(struct payload_parts *parts, void *element, struct lathe_error *err);
};

enum { PAYLOAD_FIELDS_MAX = 20 }; /* of one struct */

/* Regions of a reply, by the index of their field in the reply's struct. */
struct payload_room {
    uint64_t bytes, width; /* width: floats a row */
};

struct payload {
    const char *service, *method;
    const char *help;    /* one line */
    const char *example; /* a Lua call */
    const struct payload_struct *in, *out;
    /* How large the regions of the reply to `in` are. NULL: it has none. */
    int (*measure)(const struct lathe_message *in, const struct lathe_model_info *model,
                   struct payload_room rooms[PAYLOAD_FIELDS_MAX], struct lathe_error *err);
};

/* Every method, services together. */
const struct payload *payload_all(size_t *count);
/* LATHE_ENOTFOUND names the nearest. `method` NULL: the service's first method. */
int payload_find(const char *service, const char *method, const struct payload **what, struct lathe_error *err);
/* "an integer from 0 to 7", "a list of texts": what a field takes or gives, for sentences. */
const char *payload_expects(const struct payload_field *field, char *text, size_t capacity);
/* By C member or, for flags words and others alike, by shown name; −1: none. */
int payload_member(const struct payload_struct *of, const char *member);

/* ── sources and sinks ─────────────────────────────────────────────────────────────── */

enum payload_kind { PAYLOAD_IS_OTHER, PAYLOAD_IS_BOOLEAN, PAYLOAD_IS_INTEGER, PAYLOAD_IS_NUMBER, PAYLOAD_IS_TEXT };

/* A value of the caller's, looked at one level at a time: there is a current value, first the
 * whole; `field` and `element` go into it, `leave` comes back. */
struct payload_source {
    void *context;
    int first;                                       /* number of a list's first element, for sentences */
    int (*kind)(void *context);                      /* enum payload_kind */
    int64_t (*integer)(void *context);               /* of INTEGER and BOOLEAN */
    double (*number)(void *context);                 /* of NUMBER */
    const char *(*text)(void *context, size_t *bytes); /* of TEXT; valid until leave */
    char *(*json)(void *context);                    /* malloc'd; NULL: JSON can't say it */
    int (*list)(void *context, size_t *length);      /* 1: it can be read as a list */
    int (*table)(void *context);                     /* 1: it can be read as a table */
    int (*field)(void *context, const char *name);   /* 0: there is none, and nothing to leave */
    void (*element)(void *context, size_t index);    /* from 0 */
    void (*leave)(void *context);
    /* Calls `visit` with each field's name until it returns another value than 0, and returns that. */
    int (*each_name)(void *context, int (*visit)(void *who, const char *name), void *who);
    void (*describe)(void *context, char *text, size_t capacity); /* "the text \"x\"" */
};

struct payload_sink {
    void *context;
    void (*list)(void *context, size_t count); /* opens one */
    void (*table)(void *context);
    void (*close)(void *context);
    void (*name)(void *context, const char *name); /* of the value that follows, in a table */
    void (*integer)(void *context, int64_t value);
    void (*natural)(void *context, uint64_t value);
    void (*number)(void *context, float value);
    void (*boolean)(void *context, int value);
    void (*text)(void *context, const char *text, size_t bytes);
};

/* ── reading ───────────────────────────────────────────────────────────────────────── */

/* No message, and no reply, is larger: what is asked by hand is for looking, not for load. */
#define PAYLOAD_MAX_BYTES ((uint64_t)1 << 30)

struct payload_part {
    unsigned char *bytes;
    size_t count, each, capacity; /* elements, bytes of one, elements of room */
};

/* A message in pieces: its fixed fields, and an array for each of its spans and regions. */
struct payload_parts {
    const struct payload *what;
    const struct lathe_model_info *model; /* NULL: unknown */
    unsigned char *fixed;
    struct payload_part parts[PAYLOAD_FIELDS_MAX]; /* by the index of their field */
};

/* Free with payload_parts_free, also after a failure. LATHE_EINVAL: one sentence that names
 * service.method and the field's path. */
int payload_read(const struct payload *what, const struct payload_source *source, const struct lathe_model_info *model,
                 struct payload_parts *parts, struct lathe_error *err);
void payload_parts_free(struct payload_parts *parts);
/* Appends `count` zeroed elements to the array of the message's field. NULL: too many, see err. */
void *payload_parts_add(struct payload_parts *parts, int field, size_t count, size_t each, struct lathe_error *err);
/* How large the message must be, and writing it: `in` has that capacity and a zeroed head. */
size_t payload_in_bytes(const struct payload_parts *parts);
int payload_lay_out(const struct payload_parts *parts, struct lathe_message *in, struct lathe_error *err);

/* ── calling ───────────────────────────────────────────────────────────────────────── */

struct payload_call {
    /* Set by the caller; the rest is zero. */
    const struct payload *what;
    const struct lathe_bus_api *bus;
    void *bus_self;
    const struct lathe_endpoint *endpoint;
    const struct lathe_model_info *model; /* NULL: unknown; model.forward wants it */
    uint64_t correlation;                 /* of the envelope, as in struct lathe_message */
    int64_t deadline_ns;
    uint32_t flags;
    /* Filled; read by payload_write. */
    struct lathe_message *in, *out;
    uint64_t out_capacity;
    struct payload_room rooms[PAYLOAD_FIELDS_MAX];
    struct lathe_region regions[PAYLOAD_FIELDS_MAX];
};

/* Loans, lays out, calls; on LATHE_EFULL with a wish, again with more room. Messages stay until
 * payload_call_close, which is needed after a failure too. [main] */
int payload_call_run(struct payload_call *call, const struct payload_parts *parts, struct lathe_error *err);
void payload_call_close(struct payload_call *call);
/* The reply as a table. LATHE_EINTERNAL: the method wrote what can't be; the sink then holds a
 * part of it. */
int payload_write(const struct payload_call *call, const struct payload_sink *sink, struct lathe_error *err);

/* payload_forward.c: what model.forward needs beyond its description. */
int payload_finish_slice(struct payload_parts *parts, void *element, struct lathe_error *err);
int payload_finish_probe(struct payload_parts *parts, void *element, struct lathe_error *err);
int payload_measure_forward(const struct lathe_message *in, const struct lathe_model_info *model,
                            struct payload_room rooms[PAYLOAD_FIELDS_MAX], struct lathe_error *err);
/* payload_records.c: what a probe recorded, and keys' masses, as tables. */
int payload_write_attention(const struct payload_call *call, const unsigned char *records, uint64_t bytes,
                            const struct payload_sink *sink, struct lathe_error *err);
int payload_write_masses(const struct payload_call *call, const unsigned char *masses, uint64_t bytes,
                         const struct payload_sink *sink, struct lathe_error *err);
/* Keys that the last row of a slice sees. */
uint64_t payload_slice_keys(const struct lathe_forward_in *in, const struct lathe_slice *slice);

/* ── JSON (payload_json.c) ─────────────────────────────────────────────────────────── */

struct json_t;
/* The same as payload_read, from an object; NULL counts as {}. */
int payload_from_json(const struct payload *what, struct json_t *value, const struct lathe_model_info *model,
                      struct payload_parts *parts, struct lathe_error *err);
/* Appends the reply. Bytes that are no UTF-8 become U+FFFD, infinities and NaN null. */
int payload_to_json(const struct payload_call *call, struct text *json, struct lathe_error *err);

#endif
