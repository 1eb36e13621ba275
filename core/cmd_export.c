/* SPDX-License-Identifier: MIT */
/* lathe export: a database for other programs. What is written, and by which file: export.h. */
#include "command.h"

#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "export.h"
#include "recorder_schema.h"
#include "registry.h"
#include "results.h"

static const char usage[] =
    "usage: lathe export DB -o FOLDER [options]                       every table as CSV\n"
    "       lathe export DB --format chrome -o FILE.json [--run N]    for ui.perfetto.dev, chrome://tracing\n"
    "       lathe export DB --format otlp [-o FILE.jsonl] [--push URL] [--run N]\n"
    "\n"
    "  csv     every table of DB as FOLDER/TABLE.csv, sorted by primary key: RFC 4180, a line of names\n"
    "          first, NULL empty, an empty text \"\", blobs in hexadecimal. FOLDER is made if need be.\n"
    "  chrome  requests, steps and calls over the bus as nested slices, with arrows from each step to its\n"
    "          requests, and counters of the KV pool.\n"
    "  otlp    the same as OpenTelemetry spans, in JSON: a line of the file for each batch of them.\n"
    "\n"
    "A request has the same W3C trace id in all three.\n"
    "\n"
    "  -o, --output PATH    where it lands\n"
    "  -f, --format FORMAT  csv, chrome, otlp; csv if absent\n"
    "      --run N          this run only (chrome, otlp)\n"
    "      --push URL       sends the spans to a collector, such as http://localhost:4318 (otlp)\n"
    "      --header \"K: V\"  goes along with them; may be repeated\n"
    "      --stable         csv: leave out the columns that differ between two runs of the same thing: what\n"
    "                       names a run (uid, started_at, machine, commit, command line, trace ids), where\n"
    "                       files lay, and times that are the host's. Two runs by the virtual clock with\n"
    "                       the same seed are then the same bytes\n"
    "      --plain          csv: the tables of packed attention (attention, attention_weights) too, as\n"
    "                       `lathe sql` shows them; large\n"
    "  -h, --help\n"
    "\n"
    "  lathe export results/x.db -o x-csv\n"
    "  lathe export results/x.db --format chrome -o x.json --run 2\n"
    "  lathe export results/x.db --format otlp --push http://localhost:4318\n";

static const struct format {
    const char *name;
    int (*write)(sqlite3 *db, const struct export_arguments *a, struct lathe_error *err);
} formats[] = { { "csv", export_csv }, { "chrome", export_chrome }, { "otlp", export_otlp } };

int export_prepare(sqlite3 *db, const struct export_arguments *a, const char *sql, int64_t run, sqlite3_stmt **statement, struct lathe_error *err)
{
    if (sqlite3_prepare_v2(db, sql, -1, statement, NULL) != SQLITE_OK || sqlite3_bind_int64(*statement, 1, run) != SQLITE_OK) {
        int status = schema_fail(db, a->path, "reading its rows", err);
        sqlite3_finalize(*statement);
        *statement = NULL;
        return status;
    }
    return LATHE_OK;
}

int export_finish(sqlite3 *db, const struct export_arguments *a, sqlite3_stmt *statement, int code, struct lathe_error *err)
{
    int status = code == SQLITE_DONE ? LATHE_OK : schema_fail(db, a->path, "reading its rows", err);
    sqlite3_finalize(statement);
    return status;
}

int export_create(const struct export_arguments *a, FILE **out, struct lathe_error *err)
{
    struct stat one, other;
    if (stat(a->output, &one) == 0 && stat(a->path, &other) == 0 && one.st_dev == other.st_dev && one.st_ino == other.st_ino)
        return lathe_fail(err, LATHE_EINVAL, "%s is the database itself; name another file with -o", a->output);
    *out = fopen(a->output, "w");
    return *out ? LATHE_OK : lathe_fail(err, LATHE_EIO, "%s can't be written: %s", a->output, strerror(errno));
}

int export_close(const struct export_arguments *a, FILE *out, int status, struct lathe_error *err)
{
    struct stat found;
    bool failed = ferror(out) != 0; /* bitwise: the file is closed whatever came before */
    if (((fclose(out) != 0) | failed) && !status)
        status = lathe_fail(err, LATHE_EIO, "%s can't be written: %s", a->output, strerror(errno));
    if (status && stat(a->output, &found) == 0 && S_ISREG(found.st_mode))
        unlink(a->output);
    return status;
}

static int find_run(sqlite3 *db, const struct export_arguments *a, struct lathe_error *err)
{
    sqlite3_stmt *row = NULL;
    int status = export_prepare(db, a, "SELECT count(*) FILTER (WHERE ?1 IN (0, id)), max(id) FROM run", a->run, &row, err);
    if (status)
        return status;
    int code = sqlite3_step(row);
    if (code == SQLITE_ROW && sqlite3_column_int64(row, 0) == 0)
        status = a->run ? lathe_fail(err, LATHE_ENOTFOUND, "%s has no run %lld; its last is %lld", a->path, (long long)a->run,
                                     (long long)sqlite3_column_int64(row, 1))
                        : lathe_fail(err, LATHE_ENOTFOUND, "%s has no run", a->path);
    sqlite3_finalize(row);
    return status;
}

static int export(const struct export_arguments *a, const struct format *format, struct lathe_error *err)
{
    sqlite3 *db;
    int status = results_open(a->path, &db, err);
    if (status)
        return status;
    if (format->write != export_csv)
        status = results_complete(db, a->path, err);
    if (!status && sqlite3_exec(db, "BEGIN", NULL, NULL, NULL) != SQLITE_OK) /* one moment, if a run is writing */
        status = schema_fail(db, a->path, "reading it", err);
    if (!status)
        status = export_ids_register(db, a, err);
    if (!status && format->write != export_csv)
        status = find_run(db, a, err);
    if (!status)
        status = format->write(db, a, err);
    sqlite3_close(db);
    return status;
}

static int unknown_option(const char *word)
{
    static const char *const names[] = { "--output", "--format", "--run", "--push", "--header", "--stable", "--plain", "--help" };
    const char *near = nearest_name(word, names, sizeof names / sizeof *names);
    return command_usage("export", "there is no option %.60s%s%s%s", word, near ? ", did you mean " : "", near ? near : "",
                         near ? "?" : "");
}

static int parse_format(const char *word, const struct format **format)
{
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        if (strcmp(word, formats[i].name) == 0) {
            *format = &formats[i];
            return 0;
        }
    return command_usage("export", "--format %.40s: csv, chrome and otlp are known", word);
}

static int parse_run(const char *word, int64_t *run)
{
    char *end;
    errno = 0;
    *run = strtoll(word, &end, 10);
    return errno || end == word || *end || *run < 1 ? command_usage("export", "--run %.40s: a number of a run is expected, such as 1", word) : 0;
}

static int parse_header(const char *word, struct export_arguments *a)
{
    if (!strchr(word, ':') || strpbrk(word, "\r\n"))
        return command_usage("export", "--header: \"Name: value\" is expected, on one line");
    if (a->header_count == EXPORT_MAX_HEADERS)
        return command_usage("export", "--header: %d are the most", EXPORT_MAX_HEADERS);
    a->headers[a->header_count++] = word;
    return 0;
}

/* What goes with which format. */
static int check_arguments(const struct export_arguments *a, const struct format *format)
{
    bool csv = format->write == export_csv, otlp = format->write == export_otlp;
    if (!csv && (a->stable || a->plain))
        return command_usage("export", "--stable and --plain are for csv");
    if (csv && a->run)
        return command_usage("export", "--run is for chrome and otlp; csv has every run");
    if (!otlp && (a->push || a->header_count))
        return command_usage("export", "--push and --header are for otlp");
    if (a->header_count && !a->push)
        return command_usage("export", "--header goes with --push");
    if (!a->output && !a->push)
        return command_usage("export", csv ? "where to? name a folder with -o" : otlp ? "where to? name a file with -o, or a collector with --push"
                                                                                 : "where to? name a file with -o");
    return 0;
}

int cmd_export(int argc, char **argv)
{
    static const struct option options[] = {
        { "output", required_argument, NULL, 'o' }, { "format", required_argument, NULL, 'f' },
        { "run", required_argument, NULL, 'r' },    { "push", required_argument, NULL, 'u' },
        { "header", required_argument, NULL, 'k' }, { "stable", no_argument, NULL, 's' },
        { "plain", no_argument, NULL, 'p' },        { "help", no_argument, NULL, 'h' },
        { NULL, 0, NULL, 0 },
    };
    struct export_arguments a = { 0 };
    const struct format *format = &formats[0];
    struct lathe_error err = { 0 };
    int option, status = 0;
    optind = 1;
    opterr = 0;
    while (!status && (option = getopt_long(argc, argv, ":o:f:h", options, NULL)) != -1)
        switch (option) {
        case 'o': a.output = optarg; break;
        case 'f': status = parse_format(optarg, &format); break;
        case 'r': status = parse_run(optarg, &a.run); break;
        case 'u': a.push = optarg; break;
        case 'k': status = parse_header(optarg, &a); break;
        case 's': a.stable = true; break;
        case 'p': a.plain = true; break;
        case 'h': fputs(usage, stdout); return 0;
        case ':': status = command_usage("export", "%s needs a value", argv[optind - 1]); break;
        default: status = unknown_option(argv[optind - 1]);
        }
    if (status)
        return status;
    if (optind + 1 != argc)
        return command_usage("export", "one database is expected, such as results/x.db");
    a.path = argv[optind];
    if ((status = check_arguments(&a, format)))
        return status;
    return export(&a, format, &err) ? command_fail("export", 1, &err) : 0;
}
