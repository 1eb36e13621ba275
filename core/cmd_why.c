/* SPDX-License-Identifier: MIT */
/* lathe why: one paragraph on the slowest token, or on a request or a step. How it is found out: why.h. */
#include "command.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "recorder_schema.h"
#include "registry.h"
#include "results.h"
#include "why.h"

static const char usage[] =
    "usage: lathe why DB [options]\n"
    "\n"
    "Says in a paragraph what took the time of the slowest token of DB's newest run: which step made it, who\n"
    "joined, which component took the time and how much it usually takes, and what the heads looked at.\n"
    "\n"
    "      --run N       of this run\n"
    "      --token R:P   the token of request R at position P (0 is its prompt's first)\n"
    "      --request R   the whole of a request\n"
    "      --step S      a step\n"
    "      --json        the figures behind it, and the paragraph as \"text\"\n"
    "  -h, --help\n"
    "\n"
    "  lathe why results/first_light.db\n"
    "  lathe why results/first_light.db --run 1 --request 7\n";

struct arguments {
    const char *path;
    bool json;
    struct why_asked asked;
};

/* Words of a line each at most `columns` wide; a pipe gets one line. */
static void print_wrapped(const char *text, int columns)
{
    int at = 0;
    for (const char *word = text; *word;) {
        size_t length = strcspn(word, " "), wide = 0;
        for (size_t i = 0; i < length; i++)
            wide += ((unsigned char)word[i] & 0xc0) != 0x80; /* characters, not bytes */
        if (at && columns && at + 1 + (int)wide > columns) {
            putchar('\n');
            at = 0;
        } else if (word != text) {
            putchar(' ');
            at++;
        }
        fwrite(word, 1, length, stdout);
        at += (int)wide;
        word += length + (word[length] == ' ');
    }
    putchar('\n');
}

static int terminal_columns(void)
{
    struct winsize size;
    if (!isatty(STDOUT_FILENO) || ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col < 20)
        return 0;
    return size.ws_col < 100 ? size.ws_col : 100;
}

static int answer(const struct arguments *a, struct lathe_error *err)
{
    struct why w = { .path = a->path };
    struct text out = { 0 };
    int status = results_open(a->path, &w.db, err);
    if (status)
        return status;
    status = results_complete(w.db, a->path, err);
    if (!status && sqlite3_exec(w.db, "BEGIN", NULL, NULL, NULL) != SQLITE_OK) /* one moment, if a run is writing */
        status = schema_fail(w.db, a->path, "reading it", err);
    if (!status)
        status = why_find(&w, &a->asked, err);
    if (!status)
        status = why_parts(&w, err);
    if (!status)
        status = why_company(&w, err);
    if (!status)
        status = why_heads(&w, err);
    sqlite3_close(w.db);
    if (status)
        return status;
    if (a->json)
        why_json(&w, &out);
    else
        why_text(&w, &out);
    if (out.failed)
        status = lathe_fail(err, LATHE_ENOMEM, "no memory for an answer");
    else if (a->json)
        fputs(out.bytes, stdout);
    else
        print_wrapped(out.bytes, terminal_columns());
    text_free(&out);
    return status;
}

static int unknown_option(const char *word)
{
    static const char *const names[] = { "--run", "--token", "--request", "--step", "--json", "--help" };
    const char *near = nearest_name(word, names, sizeof names / sizeof *names);
    return command_usage("why", "there is no option %.60s%s%s%s", word, near ? ", did you mean " : "", near ? near : "", near ? "?" : "");
}

static bool read_number(const char *text, char end_mark, int64_t least, int64_t *number, const char **end)
{
    char *stop;
    errno = 0;
    *number = strtoll(text, &stop, 10);
    *end = stop;
    return !errno && stop != text && *stop == end_mark && *number >= least;
}

static int parse_number(const char *option, const char *text, int64_t *number)
{
    const char *end;
    return read_number(text, '\0', 1, number, &end) ? 0 : command_usage("why", "%s %.40s: a number from 1 on is expected", option, text);
}

static int parse_token(const char *text, struct why_asked *asked)
{
    const char *end;
    asked->token = true;
    if (!read_number(text, ':', 1, &asked->request, &end) || !read_number(end + 1, '\0', 0, &asked->position, &end))
        return command_usage("why", "--token %.40s: a request and a position are expected, such as 4:37", text);
    return 0;
}

int cmd_why(int argc, char **argv)
{
    static const struct option options[] = {
        { "run", required_argument, NULL, 'r' },  { "token", required_argument, NULL, 't' }, { "request", required_argument, NULL, 'q' },
        { "step", required_argument, NULL, 's' }, { "json", no_argument, NULL, 'j' },        { "help", no_argument, NULL, 'h' },
        { NULL, 0, NULL, 0 },
    };
    struct arguments a = { 0 };
    struct lathe_error err = { 0 };
    int option, status = 0, subjects = 0;
    optind = 1;
    opterr = 0;
    while (!status && (option = getopt_long(argc, argv, ":h", options, NULL)) != -1)
        switch (option) {
        case 'r': status = parse_number("--run", optarg, &a.asked.run); break;
        case 't': status = parse_token(optarg, &a.asked); subjects++; break;
        case 'q': status = parse_number("--request", optarg, &a.asked.request); subjects++; break;
        case 's': status = parse_number("--step", optarg, &a.asked.step); subjects++; break;
        case 'j': a.json = true; break;
        case 'h': fputs(usage, stdout); return 0;
        case ':': status = command_usage("why", "%s needs a value", argv[optind - 1]); break;
        default: status = unknown_option(argv[optind - 1]);
        }
    if (status)
        return status;
    if (subjects > 1)
        return command_usage("why", "one of --token, --request and --step is expected");
    if (optind + 1 != argc)
        return command_usage("why", "one database is expected, such as results/x.db");
    a.path = argv[optind];
    return answer(&a, &err) ? command_fail("why", 1, &err) : 0;
}
