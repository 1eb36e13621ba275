/* SPDX-License-Identifier: MIT */
/* lathe report: a database as one page to look at, to send, and to keep beside a paper. What is in it and how: report.h. */
#include "command.h"

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "product.h"
#include "recorder_schema.h"
#include "registry.h"
#include "report.h"
#include "results.h"

static const char usage[] =
    "usage: lathe report DB [-o FILE.html] [options]\n"
    "\n"
    "Writes one page that shows the runs of DB: a table of them, distributions of latency with\n"
    "confidence bands, timelines of steps and requests, attention maps, the KV pool over time, and a\n"
    "paired comparison of two runs. It is one file, needs no network, and opens in any browser.\n"
    "\n"
    "  -o, --output FILE     where it lands; DB's name with .html if absent\n"
    "      --run N[,M…]      these runs only\n"
    "      --request N[,M…]  attention of these requests only; as many as there is room for if absent\n"
    "      --window FROM,TO  steps between these seconds only, to see all of them where a run has too many\n"
    "      --compare A,B     which two runs the comparison begins with; the page can choose others\n"
    "  -h, --help\n"
    "\n"
    "  lathe report results/first_light.db\n"
    "  lathe report results/x.db -o x.html --run 1,4 --compare 1,4\n";

struct arguments {
    const char *output;
    char path[PATH_MAX]; /* of the page */
};

/* "1,4" → numbers from 1 on. 0, or the status of a sentence said. */
static int parse_list(const char *option, const char *text, int64_t *list, size_t *count)
{
    const char *at = text;
    for (;;) {
        char *end;
        errno = 0;
        long long n = strtoll(at, &end, 10);
        if (end == at || errno || n < 1 || (*end != ',' && *end != '\0'))
            return command_usage("report", "%s %.40s: numbers are expected, such as 1 or 1,4", option, text);
        if (*count == REPORT_MAX_NAMED)
            return command_usage("report", "%s: %d numbers are the most", option, REPORT_MAX_NAMED);
        list[(*count)++] = n;
        if (!*end)
            return 0;
        at = end + 1;
    }
}

/* "10,20.5", in seconds. */
static int parse_window(struct report *r, const char *text)
{
    char *end = NULL, *last = NULL;
    double from = strtod(text, &end), to = *end == ',' ? strtod(end + 1, &last) : 0;
    if (end == text || *end != ',' || last == end + 1 || *last || !(from >= 0 && to > from && to < 9e9))
        return command_usage("report", "--window %.40s: two times in seconds are expected, such as 10,20", text);
    r->from_ns = (int64_t)(from * 1e9);
    r->to_ns = (int64_t)(to * 1e9);
    return 0;
}

static int parse_pair(struct report *r, const char *text)
{
    int64_t list[REPORT_MAX_NAMED];
    size_t count = 0;
    int status = parse_list("--compare", text, list, &count);
    if (status)
        return status;
    if (count != 2 || list[0] == list[1])
        return command_usage("report", "--compare %.40s: two different runs are expected, such as 1,2", text);
    memcpy(r->compare, list, sizeof r->compare);
    r->comparing = true;
    return 0;
}

/* results/x.db → results/x.html */
static int find_output(struct arguments *a, const char *database, struct lathe_error *err)
{
    size_t length = strlen(database);
    struct stat one, other;
    if (!a->output && length > 3 && strcmp(database + length - 3, ".db") == 0)
        length -= 3;
    int wrote = a->output ? snprintf(a->path, sizeof a->path, "%s", a->output)
                          : snprintf(a->path, sizeof a->path, "%.*s.html", (int)length, database);
    if (wrote >= (int)sizeof a->path)
        return lathe_fail(err, LATHE_EINVAL, "the page's path is too long; name a shorter one with -o");
    if (stat(a->path, &one) == 0 && stat(database, &other) == 0 && one.st_dev == other.st_dev && one.st_ino == other.st_ino)
        return lathe_fail(err, LATHE_EINVAL, "%s is the database itself; name another file with -o", a->path);
    return LATHE_OK;
}

static int collect(struct report *r, struct lathe_error *err)
{
    if (sqlite3_exec(r->db, "BEGIN", NULL, NULL, NULL) != SQLITE_OK) /* one moment, if a run is writing */
        return schema_fail(r->db, r->path, "reading it", err);
    text_add(&r->json, "{", 1);
    const char *slash = strrchr(r->path, '/');
    report_string(r, "database", slash ? slash + 1 : r->path);
    report_string(r, "version", product_version());
    report_open(r, "window", '[');
    report_number(r, NULL, (double)r->from_ns / 1e9);
    report_number(r, NULL, r->to_ns == INT64_MAX ? (double)NAN : (double)r->to_ns / 1e9);
    report_close(r, ']');
    int status = report_runs(r, err);
    if (!status)
        status = report_attention(r, err);
    if (r->comparing) {
        report_open(r, "compare", '[');
        report_number(r, NULL, (double)r->compare[0]);
        report_number(r, NULL, (double)r->compare[1]);
        report_close(r, ']');
    }
    text_add(&r->json, "}", 1);
    return status;
}

/* A page that can't be finished is taken away. */
static int write_file(const struct report *r, const struct arguments *a, struct lathe_error *err)
{
    FILE *out = fopen(a->path, "w");
    if (!out)
        return lathe_fail(err, LATHE_EIO, "%s can't be written: %s", a->path, strerror(errno));
    int status = report_page(r, out, err);
    long bytes = ftell(out);
    bool failed = ferror(out) != 0;
    if (((fclose(out) != 0) | failed) && !status)
        status = lathe_fail(err, LATHE_EIO, "%s can't be written: %s", a->path, strerror(errno));
    if (status) {
        struct stat found;
        if (stat(a->path, &found) == 0 && S_ISREG(found.st_mode))
            unlink(a->path);
        return status;
    }
    printf("%s: %zu %s, %.1f MB\n", a->path, r->run_count, r->run_count == 1 ? "run" : "runs", (double)bytes / 1e6);
    return LATHE_OK;
}

static int report(struct report *r, struct arguments *a, struct lathe_error *err)
{
    int status = results_open(r->path, &r->db, err);
    if (!status)
        status = find_output(a, r->path, err);
    if (!status)
        status = collect(r, err);
    if (!status)
        status = write_file(r, a, err);
    free(r->runs);
    text_free(&r->json);
    text_free(&r->columns);
    sqlite3_close(r->db);
    return status;
}

static int unknown_option(const char *word)
{
    static const char *const names[] = { "--output", "--run", "--request", "--window", "--compare", "--help" };
    const char *near = nearest_name(word, names, sizeof names / sizeof *names);
    return command_usage("report", "there is no option %.60s%s%s%s", word, near ? ", did you mean " : "", near ? near : "",
                         near ? "?" : "");
}

int cmd_report(int argc, char **argv)
{
    static const struct option options[] = {
        { "output", required_argument, NULL, 'o' },  { "run", required_argument, NULL, 'r' },
        { "request", required_argument, NULL, 'q' }, { "window", required_argument, NULL, 'w' },
        { "compare", required_argument, NULL, 'c' }, { "help", no_argument, NULL, 'h' },
        { NULL, 0, NULL, 0 },
    };
    struct report r = { .to_ns = INT64_MAX };
    struct arguments a = { 0 };
    struct lathe_error err = { 0 };
    int option, status = 0;
    optind = 1;
    opterr = 0;
    while (!status && (option = getopt_long(argc, argv, ":o:h", options, NULL)) != -1)
        switch (option) {
        case 'o': a.output = optarg; break;
        case 'r': status = parse_list("--run", optarg, r.named_runs, &r.named_run_count); break;
        case 'q': status = parse_list("--request", optarg, r.named_requests, &r.named_request_count); break;
        case 'w': status = parse_window(&r, optarg); break;
        case 'c': status = parse_pair(&r, optarg); break;
        case 'h': fputs(usage, stdout); return 0;
        case ':': status = command_usage("report", "%s needs a value", argv[optind - 1]); break;
        default: status = unknown_option(argv[optind - 1]);
        }
    if (status)
        return status;
    if (optind + 1 != argc)
        return command_usage("report", "one database is expected, such as results/x.db");
    r.path = argv[optind];
    return report(&r, &a, &err) ? command_fail("report", 1, &err) : 0;
}
