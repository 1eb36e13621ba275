/* SPDX-License-Identifier: MIT */
/* One rendering: JSON to values, template to nodes, nodes to text; then the arena goes back. */
#include "internal.h"

#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <utf8/utf8.h>

enum { CHUNK_BYTES = 32 << 10 };

struct chunk {
    struct chunk *next;
    size_t used, room;
    _Alignas(16) unsigned char bytes[];
};

_Noreturn void jinja_fail(struct jinja *j, int code, const char *format, ...)
{
    char message[400];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    lathe_fail(j->err, code, "chat template: %s", message);
    j->code = code;
    longjmp(j->failed, 1);
}

void *jinja_alloc(struct jinja *j, size_t bytes)
{
    struct chunk *c = j->chunks;
    bytes = bytes <= JINJA_MEMORY_BYTES ? (bytes + 15) & ~(size_t)15 : bytes;
    if (!c || c->room - c->used < bytes) {
        size_t room = bytes > CHUNK_BYTES ? bytes : CHUNK_BYTES;
        if (room > JINJA_MEMORY_BYTES - j->taken_bytes)
            jinja_fail(j, LATHE_ERANGE, "line %d: it takes more than %d bytes of memory", j->line, JINJA_MEMORY_BYTES);
        c = lathe_alloc(j->host, sizeof *c + room);
        if (!c)
            jinja_fail(j, LATHE_ENOMEM, "no memory for it");
        c->room = room;
        c->next = j->chunks;
        j->chunks = c;
        j->taken_bytes += room;
    }
    void *memory = c->bytes + c->used; /* the host's memory is zeroed */
    c->used += bytes;
    return memory;
}

void jinja_charge(struct jinja *j, size_t bytes)
{
    j->steps += 1 + bytes / 64;
    if (j->steps > JINJA_STEPS)
        jinja_fail(j, LATHE_ERANGE, "line %d: it takes more than %d steps", j->line, JINJA_STEPS);
}

void jinja_enter(struct jinja *j)
{
    if (++j->depth > JINJA_DEPTH)
        jinja_fail(j, LATHE_ERANGE, "line %d: it goes more than %d levels deep", j->line, JINJA_DEPTH);
}

void jinja_write(struct jinja *j, struct text text)
{
    writer_put(j, j->writer, text);
}

static struct value from_json(struct jinja *j, const json_t *json)
{
    struct value v = {.type = V_NONE};
    const char *key;
    json_t *item;
    size_t i;
    jinja_enter(j);
    switch (json_typeof(json)) {
    case JSON_NULL: break;
    case JSON_TRUE: case JSON_FALSE: v = value_bool(json_is_true(json)); break;
    case JSON_INTEGER: v = value_int(json_integer_value(json)); break;
    case JSON_REAL: v = (struct value){.type = V_FLOAT, .number = json_real_value(json)}; break;
    case JSON_STRING:
        v = value_text(text_copy(j, (struct text){json_string_value(json), json_string_length(json)}));
        break;
    case JSON_ARRAY:
        v = value_list(j, json_array_size(json));
        json_array_foreach(json, i, item)
            list_add(j, v.list, from_json(j, item));
        break;
    case JSON_OBJECT:
        v = (struct value){.type = V_DICT, .dict = jinja_alloc(j, sizeof *v.dict)};
        json_object_foreach((json_t *)json, key, item)
            dict_set(j, v.dict, value_text(text_copy(j, (struct text){key, strlen(key)})), from_json(j, item));
        break;
    }
    j->depth--;
    return v;
}

static void set_global(struct jinja *j, const char *name, struct value value)
{
    frame_set(j, j->frame, (struct text){name, strlen(name)}, value);
}

static void render(struct jinja *j, const struct jinja_job *job, const json_t *messages)
{
    struct text source = {job->source, job->source_bytes};
    if (utf8_valid((const unsigned char *)source.bytes, source.count) != source.count)
        jinja_fail(j, LATHE_EFORMAT, "it isn't UTF-8");
    j->frame = jinja_alloc(j, sizeof *j->frame);
    set_global(j, "messages", from_json(j, messages));
    set_global(j, "add_generation_prompt", value_bool(job->add_generation_prompt));
    set_global(j, "tools", (struct value){.type = V_NONE});
    set_global(j, "documents", (struct value){.type = V_NONE});
    if (job->bos)
        set_global(j, "bos_token", value_text((struct text){job->bos, job->bos_bytes}));
    if (job->eos)
        set_global(j, "eos_token", value_text((struct text){job->eos, job->eos_bytes}));
    j->steps = 0;
    jinja_run(j, jinja_parse(j, source));
}

/* A function of its own, so that nothing that changes after setjmp lives in its frame. */
static void render_guarded(struct jinja *j, const struct jinja_job *job, const json_t *messages)
{
    if (!setjmp(j->failed))
        render(j, job, messages);
}

int jinja_render(const struct lathe_host *host, struct jinja_job *job, struct lathe_error *err)
{
    json_error_t where;
    job->written = 0;
    json_t *messages = json_loadb(job->messages, job->messages_bytes, JSON_ALLOW_NUL, &where);
    if (!messages)
        return lathe_fail(err, LATHE_EINVAL, "messages: line %d column %d: %s", where.line, where.column, where.text);
    if (!json_is_array(messages)) {
        json_decref(messages);
        return lathe_fail(err, LATHE_EINVAL, "messages: found no list, expected [{\"role\": …, \"content\": …}, …]");
    }
    struct jinja j = {.host = host, .err = err, .line = 1};
    struct writer out = {.bytes = job->out, .room = job->room};
    j.writer = &out;
    render_guarded(&j, job, messages);
    json_decref(messages);
    for (struct chunk *c = j.chunks, *next; c; c = next) {
        next = c->next;
        lathe_free(host, c);
    }
    if (j.code)
        return j.code;
    job->written = out.count;
    if (out.count > job->room)
        return lathe_fail(err, LATHE_EFULL, "found room for %zu bytes of text, expected %zu", job->room, out.count);
    return 0;
}
