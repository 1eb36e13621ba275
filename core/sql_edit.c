/* SPDX-License-Identifier: MIT */
/* Lines from a terminal: libedit's editing, a history kept in a file, completion of the
 * database's words, and Ctrl-C.
 *
 * Ctrl-C while a query runs ends the query; while a line is being typed it throws the line away.
 * libedit would take a signal for nothing and read on, so its characters are read here,
 * by a wait that a signal ends. SIGINT is blocked except within that wait and outside of line editing:
 * it can't come between the look at the flag and the read. */
#include "sql.h"

#include <editline/readline.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <wchar.h>

#include "text.h"

enum { HISTORY_LINES = 1000, HISTORY_REWRITE = 3000 };

/* Process-wide, as signals, and libedit's readline(), are. */
static struct {
    sqlite3 *db;
    const char *const *commands; /* for completion: "tables", "views", … */
    size_t command_count;
    char **words; /* of the completion under way */
    size_t next_word;
    char history[PATH_MAX]; /* "": none is kept */
    sigset_t outside;       /* the signal mask around editing */
    struct sigaction before;
} edit;

static volatile sig_atomic_t interrupted;

static void on_interrupt(int number)
{
    (void)number;
    interrupted = 1;
    sqlite3_interrupt(edit.db); /* made to be called while the query runs */
}

/* ---- reading ---- */

/* One character of UTF-8, or −1: end of input, or Ctrl-C. */
static int next_character(FILE *unused)
{
    mbstate_t state = { 0 };
    (void)unused;
    for (;;) {
        struct pollfd input = { .fd = STDIN_FILENO, .events = POLLIN };
        unsigned char byte;
        wchar_t code;
        int ready = interrupted ? -1 : ppoll(&input, 1, NULL, &edit.outside);
        if (interrupted)
            return -1;
        if (ready < 0 && errno == EINTR)
            continue; /* another signal: the window's size, say */
        if (ready < 0 || read(STDIN_FILENO, &byte, 1) != 1)
            return -1;
        size_t n = mbrtowc(&code, (const char *)&byte, 1, &state);
        if (n == (size_t)-1)
            memset(&state, 0, sizeof state); /* no UTF-8: passed over */
        else if (n != (size_t)-2)
            return (int)code;
    }
}

char *sql_edit_line(const char *prompt, bool *was_interrupted)
{
    sigset_t block;
    sigemptyset(&block);
    sigaddset(&block, SIGINT);
    sigprocmask(SIG_BLOCK, &block, &edit.outside);
    interrupted = 0;
    char *line = readline(prompt);
    *was_interrupted = interrupted;
    sigprocmask(SIG_SETMASK, &edit.outside, NULL);
    if (*was_interrupted) {
        free(line);
        line = NULL;
    }
    return line;
}

/* ---- completion ---- */

static char *next_word(const char *prefix, int state)
{
    (void)prefix;
    if (state == 0)
        edit.next_word = 0;
    return edit.words && edit.words[edit.next_word] ? strdup(edit.words[edit.next_word++]) : NULL;
}

static char *next_command(const char *prefix, int state)
{
    static size_t next;
    for (next = state ? next : 0; next < edit.command_count; next++)
        if (strncmp(edit.commands[next], prefix, strlen(prefix)) == 0)
            return strdup(edit.commands[next++]);
    return NULL;
}

static char *next_format(const char *prefix, int state)
{
    static int next;
    for (next = state ? next : 0; next < SQL_FORMATS; next++)
        if (strncmp(sql_format_names[next], prefix, strlen(prefix)) == 0)
            return strdup(sql_format_names[next++]);
    return NULL;
}

/* The word before the one that begins at `start` is one that a table or view follows. */
static bool wants_relation(const char *line, int start)
{
    int end = start;
    while (end > 0 && line[end - 1] == ' ')
        end--;
    return end < start && end >= 4 &&
           (sqlite3_strnicmp(line + end - 4, "from", 4) == 0 || sqlite3_strnicmp(line + end - 4, "join", 4) == 0);
}

static char **complete(const char *text, int start, int end)
{
    const char *line = rl_line_buffer;
    (void)end;
    rl_attempted_completion_over = 1; /* no file names */
    if (line[0] == '.' && start <= 1)
        return rl_completion_matches(text, next_command);
    if (strncmp(line, ".mode ", 6) == 0)
        return rl_completion_matches(text, next_format);
    bool relations = line[0] == '.' || !*text || wants_relation(line, start);
    edit.words = sql_words(edit.db, text, relations ? SQL_WORD_RELATIONS : SQL_WORD_RELATIONS | SQL_WORD_OTHERS);
    char **matches = edit.words ? rl_completion_matches(text, next_word) : NULL;
    for (size_t i = 0; edit.words && edit.words[i]; i++)
        free(edit.words[i]);
    free(edit.words);
    edit.words = NULL;
    return matches;
}

/* ---- history ---- */

static void make_folders(char *path)
{
    for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(path, 0700); /* what can't be made is noticed when the file is opened */
        *slash = '/';
    }
}

/* $XDG_STATE_HOME/lathe/history. Queries may name what is private: only its owner may read it. */
static void find_history(void)
{
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    char *path = edit.history;
    int n = state && state[0] == '/' ? snprintf(path, PATH_MAX, "%s/lathe/history", state)
          : home && home[0] == '/'   ? snprintf(path, PATH_MAX, "%s/.local/state/lathe/history", home)
                                     : 0;
    if (n > 0 && n < PATH_MAX)
        make_folders(path);
    else
        path[0] = '\0';
}

/* A line an entry, with \\ for a backslash and \n for a line's end, added with one write: prompts that
 * run side by side each keep their own. (libedit 3.1's append_history writes entries twice.) */
static void append_to_file(const char *entry)
{
    struct text line = { 0 };
    for (const char *c = entry; *c; c++)
        text_print(&line, *c == '\n' ? "\\n" : *c == '\\' ? "\\\\" : "%c", *c);
    text_add(&line, "\n", 1);
    int file = line.failed ? -1 : open(edit.history, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (file >= 0) {
        if (write(file, line.bytes, line.count) < 0)
            edit.history[0] = '\0'; /* a full disk: the prompt goes on without */
        close(file);
    }
    text_free(&line);
}

static void unescape(char *line)
{
    char *to = line;
    for (const char *from = line; *from && *from != '\n'; from++) {
        bool escaped = from[0] == '\\' && (from[1] == 'n' || from[1] == '\\');
        *to++ = escaped && from[1] == 'n' ? '\n' : *from;
        from += escaped;
    }
    *to = '\0';
}

/* libedit keeps the last HISTORY_LINES; once the file has many more, it is written anew with those. */
static void load_history(void)
{
    FILE *file = edit.history[0] ? fopen(edit.history, "re") : NULL;
    char *line = NULL;
    size_t capacity = 0, count = 0;
    if (!file)
        return;
    for (; getline(&line, &capacity, file) > 0; count++) {
        unescape(line);
        if (*line)
            add_history(line);
    }
    free(line);
    fclose(file);
    if (count < HISTORY_REWRITE || truncate(edit.history, 0) != 0)
        return;
    for (int i = 0; i < history_length; i++) {
        HIST_ENTRY *entry = history_get(history_base + i);
        if (entry && entry->line)
            append_to_file(entry->line);
    }
}

void sql_edit_remember(const char *text)
{
    HIST_ENTRY *last = history_length > 0 ? history_get(history_base + history_length - 1) : NULL;
    if (last && last->line && strcmp(last->line, text) == 0)
        return;
    add_history(text);
    if (edit.history[0])
        append_to_file(text);
}

/* ---- */

void sql_edit_begin(sqlite3 *db, const char *const *commands, size_t count)
{
    edit.db = db;
    edit.commands = commands;
    edit.command_count = count;
    struct sigaction action = { .sa_handler = on_interrupt }; /* not SA_RESTART: it has to end the wait */
    sigaction(SIGINT, &action, &edit.before);
    rl_readline_name = "lathe";
    rl_getc_function = next_character; /* before rl_initialize, which takes it */
    rl_initialize();
    rl_basic_word_break_characters = " \t\n\"'`=<>;,.()*+-/|&%!~[]{}";
    rl_completion_append_character = ' ';
    rl_attempted_completion_function = complete;
    using_history();
    stifle_history(HISTORY_LINES);
    find_history();
    load_history();
}

void sql_edit_end(void)
{
    sigaction(SIGINT, &edit.before, NULL);
    edit.db = NULL;
}
