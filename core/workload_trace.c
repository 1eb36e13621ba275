/* SPDX-License-Identifier: MIT */
/* See workload_trace.h. Rows ascend by time: a trace that goes back is two traces, or is sorted
 * by something else, and is refused with its line. */
#include "workload_draw.h"
#include "workload_trace.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { COLUMNS = 3 };
static const char *const column_names[COLUMNS] = { "arrived_at", "num_prefill_tokens", "num_decode_tokens" };

struct reader {
    const char *path;
    FILE *file;
    char *line;
    size_t capacity, number; /* of the line, the first is 1 */
    int place[COLUMNS];      /* which field of a line it is */
    struct workload_trace_row *rows;
    size_t count, room;
};

/* Without its end; 0 at the file's end. */
static int next_line(struct reader *r)
{
    ssize_t bytes = getline(&r->line, &r->capacity, r->file);
    if (bytes < 0)
        return 0;
    while (bytes > 0 && (r->line[bytes - 1] == '\n' || r->line[bytes - 1] == '\r'))
        r->line[--bytes] = '\0';
    r->number++;
    return 1;
}

static int is_blank(const char *line)
{
    return line[strspn(line, " \t")] == '\0';
}

/* Field `place` of the line, which is cut up: *bytes long. */
static const char *field(const char *line, int place, size_t *bytes)
{
    while (place-- > 0) {
        line = strchr(line, ',');
        if (!line)
            return NULL;
        line++;
    }
    *bytes = strcspn(line, ",");
    return line;
}

static int read_header(struct reader *r, struct lathe_error *err)
{
    const char *line = next_line(r) ? r->line : "", *text;
    size_t bytes;
    for (int c = 0; c < COLUMNS; c++) {
        r->place[c] = -1;
        for (int i = 0; (text = field(line, i, &bytes)); i++)
            if (bytes == strlen(column_names[c]) && !strncmp(text, column_names[c], bytes))
                r->place[c] = i;
        if (r->place[c] < 0)
            return lathe_fail(err, LATHE_EFORMAT, "%s has no column %s in its first line", r->path, column_names[c]);
    }
    return LATHE_OK;
}

static int read_number(const struct reader *r, int column, double *value, struct lathe_error *err)
{
    size_t bytes = 0;
    const char *text = field(r->line, r->place[column], &bytes);
    char *end = NULL;
    *value = text && bytes ? strtod(text, &end) : 0;
    while (end && (*end == ' ' || *end == '\t'))
        end++;
    if (!text || !bytes || end != text + bytes || !(*value >= 0 && *value < INFINITY))
        return lathe_fail(err, LATHE_EFORMAT, "%s:%zu: %s should be a number, not \"%.*s\"", r->path, r->number,
                          column_names[column], (int)(bytes < 60 ? bytes : 60), text ? text : "");
    return LATHE_OK;
}

static int add_row(struct reader *r, const double value[COLUMNS], double scale, struct lathe_error *err)
{
    static const struct workload_length any = { .kind = WORKLOAD_FIXED };
    if (r->count == r->room) {
        size_t room = r->room ? 2 * r->room : 4096;
        struct workload_trace_row *rows = reallocarray(r->rows, room, sizeof *rows);
        if (!rows)
            return lathe_fail(err, LATHE_ENOMEM, "%s: no memory left for more than %zu rows", r->path, r->count);
        r->rows = rows;
        r->room = room;
    }
    r->rows[r->count++] = (struct workload_trace_row){ value[0], workload_length_cut(&any, value[1] * scale),
                                                       workload_length_cut(&any, value[2] * scale) };
    return LATHE_OK;
}

static int read_rows(struct reader *r, const struct workload_trace_file *f, struct lathe_error *err)
{
    double value[COLUMNS], last = 0;
    int status = read_header(r, err);
    size_t seen = 0;
    while (status == LATHE_OK && (!f->rows || r->count < f->rows) && next_line(r)) {
        if (is_blank(r->line))
            continue;
        for (int c = 0; c < COLUMNS; c++)
            if ((status = read_number(r, c, &value[c], err)))
                return status;
        if (value[0] < last)
            return lathe_fail(err, LATHE_EFORMAT, "%s:%zu: arrived_at is %g, before the row above (%g): sort the file by it",
                              r->path, r->number, value[0], last);
        last = value[0];
        if (++seen < f->from)
            continue;
        if (f->window_s > 0 && r->count && value[0] - r->rows[0].at_s >= f->window_s)
            break;
        status = add_row(r, value, f->scale > 0 ? f->scale : 1, err);
    }
    if (status == LATHE_OK && ferror(r->file))
        return lathe_fail(err, LATHE_EIO, "can't read %s: %s", r->path, strerror(errno));
    if (status == LATHE_OK && seen == 0)
        return lathe_fail(err, LATHE_EFORMAT, "%s has no rows", r->path);
    if (status == LATHE_OK && r->count == 0)
        return lathe_fail(err, LATHE_EINVAL, "%s has %zu rows, and row %zu was to be the first", r->path, seen, f->from);
    return status;
}

int workload_trace_read(const struct workload_trace_file *f, struct workload_trace_row **rows, size_t *count,
                        struct lathe_error *err)
{
    struct reader r = { .path = f->path, .file = fopen(f->path, "re") };
    if (!r.file)
        return lathe_fail(err, LATHE_EIO, "can't read %s: %s", f->path, strerror(errno));
    int status = read_rows(&r, f, err);
    fclose(r.file);
    free(r.line);
    if (status) {
        free(r.rows);
        return status;
    }
    *rows = r.rows;
    *count = r.count;
    return LATHE_OK;
}
