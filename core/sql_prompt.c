/* SPDX-License-Identifier: MIT */
/* The prompt of `lathe sql`: statements over as many lines as they take, and a few commands. */
#include "sql.h"

#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "registry.h"
#include "text.h"

enum { ROWS_SHOWN = 1000 };

struct prompt {
    sqlite3 *db;
    struct sql_output output;
    struct text statement; /* what was typed of it */
    bool done;
};

static int terminal_columns(void)
{
    struct winsize size;
    return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 ? size.ws_col : 0;
}

/* ---- errors ---- */

/* The line that is wrong with a mark below the place, where both fit. */
static void point_at(const struct sql_position *at)
{
    if (at->offset < 0)
        return;
    const char *place = at->text + at->offset, *line = place;
    while (line > at->text && line[-1] != '\n')
        line--;
    size_t count = strcspn(line, "\n");
    int width = sql_print_text(NULL, line, count, 0), columns = terminal_columns();
    if (columns > 0 && width + 3 > columns)
        return;
    fputs("  ", stderr);
    sql_print_text(stderr, line, count, 0);
    fprintf(stderr, "\n  %*s^\n", sql_print_text(NULL, line, (size_t)(place - line), 0), "");
}

static void complain(const char *message)
{
    fflush(stdout);
    fprintf(stderr, "%s\n", message);
}

/* ---- commands ---- */

static void cmd_tables(struct prompt *p, const char *argument)
{
    (void)argument;
    sql_list(p->db, stdout, SQL_TABLES, terminal_columns(), true);
}

static void cmd_views(struct prompt *p, const char *argument)
{
    (void)argument;
    if (sql_list(p->db, stdout, SQL_VIEWS, terminal_columns(), true) == 0)
        puts("there are no views in this database");
}

static void cmd_schema(struct prompt *p, const char *argument)
{
    struct lathe_error err;
    if (sql_schema(p->db, stdout, *argument ? argument : NULL, &err))
        complain(err.message);
}

static void cmd_mode(struct prompt *p, const char *argument)
{
    int format = sql_format_find(argument);
    if (format >= 0)
        p->output.format = (enum sql_format)format;
    else if (!*argument)
        puts(sql_format_names[p->output.format]);
    else
        complain("column, csv, json, markdown or line is expected after .mode");
}

static void cmd_limit(struct prompt *p, const char *argument)
{
    char *end;
    long long limit = strtoll(argument, &end, 10);
    if (!*argument)
        printf("%lld\n", (long long)p->output.limit);
    else if (*end || limit < 0)
        complain("a number of rows is expected after .limit; 0 is all of them");
    else
        p->output.limit = limit;
}

static void cmd_quit(struct prompt *p, const char *argument)
{
    (void)argument;
    p->done = true;
}

static void cmd_help(struct prompt *p, const char *argument);

static const struct {
    const char *name, *argument, *help;
    void (*run)(struct prompt *p, const char *argument);
} commands[] = {
    { "views", "", "questions that are answered already, with what each tells", cmd_views },
    { "tables", "", "what was recorded", cmd_tables },
    { "schema", "[NAME]", "the SQL that made a table or view: its columns, with units and meaning", cmd_schema },
    { "mode", "[FORMAT]", "column, csv, json, markdown or line", cmd_mode },
    { "limit", "[ROWS]", "how many rows of a result are shown; 0: all", cmd_limit },
    { "help", "", "this", cmd_help },
    { "quit", "", "(or Ctrl-D)", cmd_quit },
};

enum { COMMAND_COUNT = sizeof commands / sizeof *commands };

static void cmd_help(struct prompt *p, const char *argument)
{
    (void)p, (void)argument;
    puts("A statement ends with ; and may take several lines. Tab completes views, tables, columns and\n"
         "keywords; Ctrl-C ends a query that runs, or throws away what was typed.");
    for (int i = 0; i < COMMAND_COUNT; i++)
        printf("  .%-6s %-9s %s\n", commands[i].name, commands[i].argument, commands[i].help);
}

/* ".exit", and what people type at other prompts, mean .quit. */
static void run_command(struct prompt *p, char *line)
{
    const char *names[COMMAND_COUNT];
    char *name = line + (*line == '.'), *end = name + strcspn(name, " \t;"), *argument = end;
    argument += strspn(argument, " \t;");
    for (size_t n = strlen(argument); n > 0 && strchr(" \t;", argument[n - 1]); n--)
        argument[n - 1] = '\0';
    *end = '\0';
    for (int i = 0; i < COMMAND_COUNT; i++) {
        names[i] = commands[i].name;
        if (strcmp(commands[i].name, name) == 0 || (commands[i].run == cmd_quit && strcmp(name, "exit") == 0)) {
            commands[i].run(p, argument);
            return;
        }
    }
    const char *nearest = nearest_name(name, names, COMMAND_COUNT);
    fprintf(stderr, "there is no command .%.40s; %s%s\n", name, nearest ? "perhaps ." : ".help lists them", nearest ? nearest : "");
}

static bool is_command(const char *line)
{
    static const char *const bare[] = { "exit", "quit", "help" };
    size_t n = strcspn(line, "; \t");
    for (size_t i = 0; i < sizeof bare / sizeof *bare; i++)
        if (n == 4 && strncmp(line, bare[i], 4) == 0 && !line[n + strspn(line + n, "; \t")])
            return true;
    return *line == '.';
}

/* ---- statements ---- */

/* In the history a statement is one line, unless that would make a comment of its end. */
static void remember(struct text *statement)
{
    if (!strstr(statement->bytes, "--"))
        for (char *c = statement->bytes; *c; c++)
            *c = *c == '\n' ? ' ' : *c;
    sql_edit_remember(statement->bytes);
}

static void run_statement(struct prompt *p)
{
    struct sql_position at = { .text = p->statement.bytes };
    struct lathe_error err;
    if (sql_run(p->db, &at, &p->output, &err)) {
        complain(err.message);
        point_at(&at);
    }
    clearerr(stdout);
    remember(&p->statement);
}

static void take_line(struct prompt *p, char *line)
{
    line += strspn(line, p->statement.count ? "" : " \t");
    if (p->statement.count == 0 && is_command(line)) {
        for (size_t n = strlen(line); n > 1 && (line[n - 1] == ' ' || line[n - 1] == '\t'); n--)
            line[n - 1] = '\0';
        sql_edit_remember(line);
        run_command(p, line);
        return;
    }
    if (p->statement.count > 0)
        text_add(&p->statement, "\n", 1);
    text_add(&p->statement, line, strlen(line));
    if (p->statement.failed)
        complain("memory ran out; the statement is thrown away");
    else if (p->statement.count == 0 || !sqlite3_complete(p->statement.bytes))
        return;
    else
        run_statement(p);
    text_free(&p->statement);
}

static void welcome(const struct prompt *p, const char *path)
{
    printf("%s, for reading only. Views, which .schema NAME explains; .help says more.\n", path);
    if (sql_list(p->db, stdout, SQL_VIEWS, terminal_columns(), false) == 0)
        puts("(none; .tables lists the tables)");
}

int sql_prompt(sqlite3 *db, const char *path, enum sql_format format)
{
    struct prompt p = { .db = db, .output = { stdout, format, ROWS_SHOWN, stdout } };
    const char *names[COMMAND_COUNT];
    for (int i = 0; i < COMMAND_COUNT; i++)
        names[i] = commands[i].name;
    welcome(&p, path);
    sql_edit_begin(db, names, COMMAND_COUNT);
    while (!p.done) {
        bool interrupted;
        char *line = sql_edit_line(p.statement.count ? "   ...> " : "lathe> ", &interrupted);
        if (interrupted) {
            puts("^C");
            text_free(&p.statement);
        } else if (!line) {
            putchar('\n');
            break;
        } else {
            take_line(&p, line);
        }
        free(line);
    }
    text_free(&p.statement);
    sql_edit_end();
    return 0;
}
