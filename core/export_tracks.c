/* SPDX-License-Identifier: MIT */
/* Trace Event JSON, event by event (Google's "Trace Event Format" document). Slices are pairs of B and E rather
 * than one X with a duration: readers turn both into whole nanoseconds, and the end of a slice, rounded as a sum, may
 * come to lie behind its parent's. A time by itself rounds alike everywhere, so what touches still nests. */
#include <inttypes.h>
#include <stdlib.h>

#include "export.h"

int export_lane(struct export_lanes *lanes, int64_t group, int64_t from_ns, int64_t to_ns, bool *fresh, int *of_group)
{
    size_t i;
    *of_group = 0;
    for (i = 0; i < lanes->count; i++)
        if (lanes->lanes[i].group == group) {
            if (lanes->lanes[i].end_ns <= from_ns)
                break;
            ++*of_group;
        }
    *fresh = i == lanes->count;
    if (*fresh && lanes->count == lanes->capacity) {
        size_t capacity = lanes->capacity ? 2 * lanes->capacity : 16;
        struct export_lane *larger = realloc(lanes->lanes, capacity * sizeof *larger);
        if (!larger)
            return -1;
        lanes->lanes = larger;
        lanes->capacity = capacity;
    }
    lanes->count += *fresh;
    lanes->lanes[i] = (struct export_lane){ group, to_ns };
    return (int)i;
}

/* Microseconds with all of the nanoseconds. */
static void write_time(FILE *out, int64_t ns)
{
    uint64_t size = ns < 0 ? 0 - (uint64_t)ns : (uint64_t)ns;
    fprintf(out, "%s%" PRIu64 ".%03" PRIu64, ns < 0 ? "-" : "", size / 1000, size % 1000);
}

static void write_text(struct chrome *c, const char *key, const char *value)
{
    struct text json = { 0 };
    text_json(&json, value);
    fprintf(c->out, ",\"%s\":%s", key, json.failed ? "\"\"" : json.bytes);
    c->args.failed |= json.failed; /* said at the end */
    text_free(&json);
}

static void open_event(struct chrome *c, const char *phase, int64_t pid, int64_t tid, int64_t at_ns)
{
    fprintf(c->out, "%s{\"ph\":\"%s\",\"pid\":%" PRId64 ",\"tid\":%" PRId64 ",\"ts\":", c->any ? ",\n" : "\n", phase, pid, tid);
    write_time(c->out, at_ns);
    c->any = true;
}

static void close_event(struct chrome *c)
{
    if (c->args.count)
        fprintf(c->out, ",\"args\":{%s}", c->args.bytes);
    c->args.count = 0;
    fputc('}', c->out);
}

void chrome_begin(struct chrome *c, int64_t pid, int64_t tid, int64_t at_ns, const char *category, const char *name)
{
    open_event(c, "B", pid, tid, at_ns);
    fprintf(c->out, ",\"cat\":\"%s\"", category);
    write_text(c, "name", name);
    close_event(c);
}

void chrome_end(struct chrome *c, int64_t pid, int64_t tid, int64_t at_ns)
{
    open_event(c, "E", pid, tid, at_ns);
    close_event(c);
}

void chrome_flow(struct chrome *c, char phase, int64_t pid, int64_t tid, int64_t at_ns, int64_t run, int64_t id)
{
    const char letters[2] = { phase, '\0' };
    open_event(c, letters, pid, tid, at_ns);
    fprintf(c->out, ",\"cat\":\"run%" PRId64 "\",\"name\":\"step\",\"id\":%" PRId64 "%s", run, id, phase == 'f' ? ",\"bp\":\"e\"" : "");
    close_event(c);
}

void chrome_counter(struct chrome *c, int64_t pid, int64_t at_ns, const char *name)
{
    open_event(c, "C", pid, 0, at_ns);
    write_text(c, "name", name);
    close_event(c);
}

void chrome_instant(struct chrome *c, int64_t pid, int64_t at_ns, const char *name)
{
    open_event(c, "i", pid, 0, at_ns);
    fputs(",\"s\":\"p\",\"cat\":\"event\"", c->out);
    write_text(c, "name", name);
    close_event(c);
}

void chrome_name(struct chrome *c, int64_t pid, int64_t tid, const char *name)
{
    chrome_arg_text(c, "name", name);
    open_event(c, "M", pid, tid, 0);
    fprintf(c->out, ",\"name\":\"%s\"", tid ? "thread_name" : "process_name");
    close_event(c);
}

void chrome_arg_text(struct chrome *c, const char *name, const char *value)
{
    text_print(&c->args, "%s\"%s\":", c->args.count ? "," : "", name);
    text_json(&c->args, value);
}

void chrome_arg_number(struct chrome *c, const char *name, int64_t value)
{
    text_print(&c->args, "%s\"%s\":%" PRId64, c->args.count ? "," : "", name, value);
}
