/* SPDX-License-Identifier: MIT */
/* lathe import: how long another engine's steps took, and what was in them, as a run of its own.
 *
 *     start_s,end_s,prefill_tokens,decode_tokens,decode_context_tokens        run 1, clock real, done
 *     0.0,0.0123,128,0,0                                                 ─▶   step 1: 0 … 12300000 ns
 *     0.0125,0.0203,0,8,4096                                                  step 2: …
 *
 * vLLM, SGLang and TensorRT-LLM all log such figures, each in its own form; a few lines of awk bring
 * any to this one. experiments/calibrate.lua then fits a cost profile to them. The whole file is read
 * before the run begins, so that a bad line leaves nothing behind. */
#include "command.h"

#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "recorder.h"
#include "registry.h"
#include "sha256.h"
#include "text.h"

static const char usage[] =
    "usage: lathe import STEPS.csv -o DB [options]\n"
    "\n"
    "Makes a run in DB (made if need be) of another engine's step timings. The first line of STEPS.csv\n"
    "names the columns, in any order; others than these are ignored:\n"
    "\n"
    "  start_s, end_s          when the step began and ended, in seconds since any moment; or its length:\n"
    "  duration_s | duration_ms   with start_s, or one step after another\n"
    "  prefill_tokens          prompt tokens computed in it (required)\n"
    "  decode_tokens           requests that decoded in it (required)\n"
    "  prefill_token_context   sum over prefilling requests of tokens × past\n"
    "  decode_context_tokens   sum over decoding requests of their context\n"
    "  padding_tokens          computed and thrown away\n"
    "  requests                in the batch\n"
    "\n"
    "  -o, --output DB      the database that the run lands in\n"
    "      --label TEXT     of the run (default: the file's name)\n"
    "      --engine TEXT    what took the steps, such as \"vllm 0.6.3, A100\": kept as the factor `engine`\n"
    "  -h, --help\n"
    "\n"
    "  lathe import steps.csv -o results/vllm.db --engine \"vllm 0.6.3\"\n"
    "  lathe run experiments/calibrate.lua -- --db results/vllm.db\n";

enum column {
    START_S, END_S, DURATION_S, DURATION_MS, PREFILL, DECODE, PREFILL_CONTEXT, DECODE_CONTEXT, PADDING, REQUESTS, COLUMNS
};
static const char *const column_names[COLUMNS] = {
    "start_s", "end_s", "duration_s", "duration_ms", "prefill_tokens", "decode_tokens", "prefill_token_context",
    "decode_context_tokens", "padding_tokens", "requests",
};

enum { MAX_FIELDS = 256 };

struct timed {
    double start_s, end_s;
    double counts[COLUMNS]; /* from PREFILL on */
};

struct steps {
    const char *path;
    int place[COLUMNS]; /* field of the line, −1: absent */
    struct timed *rows;
    size_t count, capacity;
};

/* ---- lines ---------------------------------------------------------------------------- */

/* Cuts the line at its commas, in place; blanks and quotes around a field go. */
static int split(char *line, char *fields[MAX_FIELDS])
{
    int count = 0;
    line[strcspn(line, "\r\n")] = '\0';
    for (char *field = line; field && count < MAX_FIELDS; count++) {
        char *next = strchr(field, ',');
        if (next)
            *next++ = '\0';
        field += strspn(field, " \t\"");
        for (size_t n = strlen(field); n > 0 && strchr(" \t\"", field[n - 1]); n--)
            field[n - 1] = '\0';
        fields[count] = field;
        field = next;
    }
    return count;
}

static int read_header(struct steps *s, char *line, struct lathe_error *err)
{
    char *fields[MAX_FIELDS];
    if (strncmp(line, "\xEF\xBB\xBF", 3) == 0) /* a byte order mark */
        line += 3;
    int count = split(line, fields);
    for (int c = 0; c < COLUMNS; c++) {
        s->place[c] = -1;
        for (int i = 0; i < count; i++)
            if (strcmp(fields[i], column_names[c]) == 0)
                s->place[c] = i;
    }
    for (int c = PREFILL; c <= DECODE; c++) {
        const char *near = s->place[c] < 0 ? nearest_name(column_names[c], (const char *const *)fields, (size_t)count) : NULL;
        if (s->place[c] < 0)
            return lathe_fail(err, LATHE_EFORMAT, "%s:1: there is no column %s%s%.40s%s", s->path, column_names[c],
                              near ? " (is it \"" : "; the first line names the columns", near ? near : "", near ? "\"?)" : "");
    }
    bool ends = s->place[START_S] >= 0 && s->place[END_S] >= 0;
    if (!ends && s->place[DURATION_S] < 0 && s->place[DURATION_MS] < 0)
        return lathe_fail(err, LATHE_EFORMAT, "%s:1: nothing says how long a step took; it needs columns start_s and end_s, "
                                              "duration_s, or duration_ms", s->path);
    return LATHE_OK;
}

/* One field as a number; absent or empty: 0 where that may be. */
static int number(const struct steps *s, long line, char **fields, int count, int column, double *value, struct lathe_error *err)
{
    int place = s->place[column];
    const char *text = place >= 0 && place < count ? fields[place] : "";
    bool required = column <= DECODE && place >= 0, whole = column >= PREFILL;
    char *end;
    *value = 0;
    if (!*text && !required)
        return LATHE_OK;
    *value = strtod(text, &end);
    bool fits = isfinite(*value) && (!whole || (*value >= 0 && *value <= 9e15 && *value == floor(*value)));
    if (!*text || *end || !fits || strpbrk(text, "xX"))
        return lathe_fail(err, LATHE_EFORMAT, "%s:%ld: %s should be a %s, not \"%.40s\"", s->path, line, column_names[column],
                          whole ? "whole number from 0" : "number", text);
    return LATHE_OK;
}

static int read_line(struct steps *s, long line, char *text, struct lathe_error *err)
{
    char *fields[MAX_FIELDS];
    double v[COLUMNS];
    int count = split(text, fields), status = LATHE_OK;
    for (int c = 0; c < COLUMNS && !status; c++)
        status = number(s, line, fields, count, c, &v[c], err);
    if (status)
        return status;
    if (s->count == s->capacity) {
        size_t capacity = s->capacity ? 2 * s->capacity : 1024;
        struct timed *more = realloc(s->rows, capacity * sizeof *more);
        if (!more)
            return lathe_fail(err, LATHE_ENOMEM, "%s: no memory for %zu steps", s->path, capacity);
        s->rows = more;
        s->capacity = capacity;
    }
    struct timed *row = &s->rows[s->count];
    row->start_s = s->place[START_S] >= 0 ? v[START_S] : s->count ? row[-1].end_s : 0;
    if (s->place[START_S] >= 0 && s->place[END_S] >= 0)
        row->end_s = v[END_S];
    else
        row->end_s = row->start_s + (s->place[DURATION_S] >= 0 ? v[DURATION_S] : v[DURATION_MS] / 1e3);
    if (row->end_s < row->start_s || row->end_s - row->start_s > 1e6)
        return lathe_fail(err, LATHE_ERANGE, "%s:%ld: the step took %g s, but should take 0 to 1000000", s->path, line,
                          row->end_s - row->start_s);
    memcpy(row->counts, v, sizeof v);
    s->count++;
    return LATHE_OK;
}

static int read_steps(struct steps *s, struct lathe_error *err)
{
    char *line = NULL;
    size_t capacity = 0;
    long number_of_line = 1;
    FILE *file = fopen(s->path, "r");
    if (!file)
        return lathe_fail(err, LATHE_EIO, "%s can't be read: %s", s->path, strerror(errno));
    int status = getline(&line, &capacity, file) < 0 ? lathe_fail(err, LATHE_EFORMAT, "%s is empty; its first line should name the columns", s->path)
                                                     : read_header(s, line, err);
    while (!status && getline(&line, &capacity, file) >= 0) {
        number_of_line++;
        if (line[strspn(line, " \t\r\n")])
            status = read_line(s, number_of_line, line, err);
    }
    if (!status && ferror(file))
        status = lathe_fail(err, LATHE_EIO, "%s can't be read: %s", s->path, strerror(errno));
    if (!status && s->count == 0)
        status = lathe_fail(err, LATHE_EFORMAT, "%s has no steps, only names of columns", s->path);
    free(line);
    fclose(file);
    return status;
}

/* ---- rows ----------------------------------------------------------------------------- */

static int64_t nanoseconds(double seconds)
{
    return (int64_t)llround(seconds * 1e9);
}

static int record_steps(const struct steps *s, struct recorder_run *run, struct lathe_error *err)
{
    struct producer *producer;
    double zero = s->rows[0].start_s;
    int status = recorder_producer(run, &producer, err);
    if (status)
        return status;
    for (size_t i = 1; i < s->count; i++)
        zero = s->rows[i].start_s < zero ? s->rows[i].start_s : zero;
    for (size_t i = 0; i < s->count; i++) {
        const struct timed *t = &s->rows[i];
        int64_t start = nanoseconds(t->start_s - zero), took = nanoseconds(t->end_s - t->start_s);
        struct record_step row = {
            .id = (int64_t)i + 1, .start_ns = start, .end_ns = start + took, .forward_ns = took,
            .requests = (int64_t)t->counts[REQUESTS], .prefill_tokens = (int64_t)t->counts[PREFILL],
            .decode_tokens = (int64_t)t->counts[DECODE], .padding_tokens = (int64_t)t->counts[PADDING],
            .decode_context_tokens = (int64_t)t->counts[DECODE_CONTEXT],
            .prefill_token_context = (int64_t)t->counts[PREFILL_CONTEXT],
        };
        record_step(producer, &row);
    }
    return LATHE_OK;
}

struct arguments {
    const char *path, *output, *label, *engine;
};

static int record_run(const struct arguments *a, const struct steps *s, struct recorder_run *run, struct lathe_error *err)
{
    char hex[SHA256_HEX_BYTES];
    const char *slash = strrchr(a->path, '/');
    struct text engine = { 0 };
    int status = sha256_file(a->path, hex, err);
    if (!status)
        status = recorder_artifact(run, "trace", slash ? slash + 1 : a->path, NULL, a->path, hex, err);
    text_json(&engine, a->engine);
    if (!status && a->engine)
        status = engine.failed ? lathe_fail(err, LATHE_ENOMEM, "no memory for the engine's name")
                               : recorder_factor(run, "engine", engine.bytes, err);
    text_free(&engine);
    return status ? status : record_steps(s, run, err);
}

static int import(const struct arguments *a, struct lathe_error *err)
{
    struct steps s = { .path = a->path };
    struct recorder_params params = { .path = a->output };
    const char *slash = strrchr(a->path, '/');
    struct run_info info = { .label = a->label ? a->label : slash ? slash + 1 : a->path, .experiment = "import",
                             .seed_index = -1, .clock = "real", .dirty = -1 };
    struct recorder *recorder = NULL;
    struct recorder_run *run = NULL;
    struct lathe_error closing;
    int64_t id = 0;
    int status = read_steps(&s, err);
    if (!status)
        status = recorder_open(&params, &recorder, err);
    if (!status && (status = recorder_run_begin(recorder, &info, &run, err)) == LATHE_OK) {
        id = recorder_run_id(run);
        status = record_run(a, &s, run, err);
        if (recorder_run_end(run, status ? "failed" : "done", &closing) && !status)
            *err = closing, status = closing.code;
    }
    if (recorder && recorder_close(recorder, &closing) && !status)
        *err = closing, status = closing.code;
    if (!status)
        printf("run %lld of %s: %zu step%s of %s\n", (long long)id, a->output, s.count, s.count == 1 ? "" : "s", a->path);
    free(s.rows);
    return status;
}

/* ---- the command line ----------------------------------------------------------------- */

static int unknown_option(const char *word)
{
    static const char *const names[] = { "--output", "--label", "--engine", "--help" };
    const char *near = nearest_name(word, names, sizeof names / sizeof *names);
    return command_usage("import", "there is no option %.60s%s%s%s", word, near ? ", did you mean " : "", near ? near : "",
                         near ? "?" : "");
}

int cmd_import(int argc, char **argv)
{
    static const struct option options[] = {
        { "output", required_argument, NULL, 'o' }, { "label", required_argument, NULL, 'l' },
        { "engine", required_argument, NULL, 'e' }, { "help", no_argument, NULL, 'h' },
        { NULL, 0, NULL, 0 },
    };
    struct arguments a = { 0 };
    struct lathe_error err = { 0 };
    int option, status = 0;
    optind = 1;
    opterr = 0;
    while (!status && (option = getopt_long(argc, argv, ":o:h", options, NULL)) != -1)
        switch (option) {
        case 'o': a.output = optarg; break;
        case 'l': a.label = optarg; break;
        case 'e': a.engine = optarg; break;
        case 'h': fputs(usage, stdout); return 0;
        case ':': status = command_usage("import", "%s needs a value", argv[optind - 1]); break;
        default: status = unknown_option(argv[optind - 1]);
        }
    if (status)
        return status;
    if (optind + 1 != argc)
        return command_usage("import", "one CSV file is expected: lathe import steps.csv -o results/x.db");
    if (!a.output)
        return command_usage("import", "into what? name a database with -o");
    a.path = argv[optind];
    return import(&a, &err) ? command_fail("import", 1, &err) : 0;
}
