/* SPDX-License-Identifier: MIT */
/* lathe sql: ask a results database, by a query, a script on stdin, or at a prompt. */
#include "command.h"

#include <getopt.h>
#include <langinfo.h>
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "registry.h"
#include "sql.h"
#include "text.h"

static const char usage[] =
    "usage: lathe sql DB [QUERY] [options]\n"
    "\n"
    "Runs QUERY (one statement, or several with ; between) on a results database and prints what it\n"
    "gives. QUERY - reads it from stdin, and so does no QUERY when stdin is no terminal. On a\n"
    "terminal without a QUERY there is a prompt, which lists the views; .help says what else it knows.\n"
    "The database is opened for reading only; a run may be writing to it meanwhile.\n"
    "\n"
    "  -f, --format FORMAT  column (the default), csv, json, markdown or line. csv and json give\n"
    "                       numbers in full; column cuts cells longer than 80 characters. Blobs are\n"
    "                       told by their size; hex(blob) gives their bytes\n"
    "  -h, --help\n"
    "\n"
    "  lathe sql results/x.db \"select * from run_latency\"\n"
    "  lathe sql results/x.db -f csv \"select * from request_latency\" > latency.csv\n";

struct arguments {
    const char *path, *query;
    enum sql_format format;
};

static int read_stdin(struct text *text, struct lathe_error *err)
{
    char block[65536];
    size_t count;
    text_add(text, "", 0);
    while ((count = fread(block, 1, sizeof block, stdin)) > 0)
        text_add(text, block, count);
    if (ferror(stdin))
        return lathe_fail(err, LATHE_EIO, "the query can't be read from stdin");
    if (text->failed)
        return lathe_fail(err, LATHE_ENOMEM, "the query on stdin is too long for the memory there is");
    if (memchr(text->bytes, '\0', text->count))
        return lathe_fail(err, LATHE_EINVAL, "the query on stdin has a zero byte in it: it isn't text");
    return 0;
}

static int fail_at(const struct sql_position *at, struct lathe_error *err)
{
    int line, column;
    if (sql_where(at, &line, &column)) {
        size_t used = strlen(err->message);
        snprintf(err->message + used, sizeof err->message - used, " (line %d, column %d)", line, column);
    }
    return command_fail("sql", 1, err);
}

static int answer(const struct arguments *a)
{
    sqlite3 *db;
    struct lathe_error err = { 0 };
    struct text script = { 0 };
    bool piped = a->query ? strcmp(a->query, "-") == 0 : !isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO);
    if (sql_open(a->path, stderr, &db, &err))
        return command_fail("sql", 1, &err);
    int status = 0;
    if (!a->query && !piped) {
        status = sql_prompt(db, a->path, a->format);
    } else if (piped && read_stdin(&script, &err)) {
        status = command_fail("sql", 1, &err);
    } else {
        struct sql_position at = { .text = piped ? script.bytes : a->query };
        struct sql_output output = { .out = stdout, .format = a->format };
        if (sql_run(db, &at, &output, &err))
            status = fail_at(&at, &err);
    }
    text_free(&script);
    sqlite3_close(db);
    return status;
}

/* Results are UTF-8 wherever they are shown; the terminal's widths are needed for that. */
static void use_utf8(void)
{
    if (!setlocale(LC_CTYPE, "") || strcmp(nl_langinfo(CODESET), "UTF-8") != 0)
        setlocale(LC_CTYPE, "C.UTF-8");
}

static int choose_format(const char *name, enum sql_format *format)
{
    int found = sql_format_find(name);
    if (found < 0) {
        const char *nearest = nearest_name(name, sql_format_names, SQL_FORMATS);
        return command_usage("sql", "--format %.40s: column, csv, json, markdown or line is expected%s%s%s", name,
                             nearest ? "; perhaps " : "", nearest ? nearest : "", "");
    }
    *format = (enum sql_format)found;
    return 0;
}

static int unknown_option(const char *word)
{
    static const char *const names[] = { "--format", "--help" };
    char name[40];
    snprintf(name, sizeof name, "%.*s", (int)strcspn(word, "="), word);
    const char *nearest = nearest_name(name, names, sizeof names / sizeof *names);
    return nearest ? command_usage("sql", "unknown option %s; perhaps %s", word, nearest)
                   : command_usage("sql", "unknown option %s", word);
}

int cmd_sql(int argc, char **argv)
{
    static const struct option options[] = {
        { "format", required_argument, NULL, 'f' }, { "help", no_argument, NULL, 'h' }, { NULL, 0, NULL, 0 },
    };
    struct arguments a = { .format = SQL_COLUMN };
    int option, status = 0;
    optind = 1;
    opterr = 0;
    while (!status && (option = getopt_long(argc, argv, ":f:h", options, NULL)) != -1)
        switch (option) {
        case 'f': status = choose_format(optarg, &a.format); break;
        case 'h': fputs(usage, stdout); return 0;
        case ':': status = command_usage("sql", "%s needs a value", argv[optind - 1]); break;
        default: status = unknown_option(argv[optind - 1]);
        }
    if (status)
        return status;
    if (optind == argc)
        return command_usage("sql", "no database: name one, such as results/x.db");
    a.path = argv[optind++];
    if (optind < argc)
        a.query = argv[optind++];
    if (optind < argc)
        return command_usage("sql", "one query is expected (in quotes), and `%.60s` is left over", argv[optind]);
    use_utf8();
    signal(SIGPIPE, SIG_DFL); /* `lathe sql … | head` ends as other filters do: nothing can be lost */
    return answer(&a);
}
