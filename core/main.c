/* SPDX-License-Identifier: MIT */
/* The command line: a table of verbs, one file each (cmd_*.c). */
#include "command.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "host.h"
#include "log.h"
#include "product.h"
#include "registry.h"

/* A verb whose file is not there yet is left out; core/CMakeLists.txt says which are. */
static const struct command commands[] = {
#ifdef HAVE_CMD_RUN
    { "run", "run an experiment: lathe run experiments/x.lua [-- arguments]", cmd_run },
#endif
#ifdef HAVE_CMD_SQL
    { "sql", "ask a results database, by a query or at a prompt", cmd_sql },
#endif
#ifdef HAVE_CMD_REPLAY
    { "replay", "a run again, from its rows; the first difference named", cmd_replay },
#endif
#ifdef HAVE_CMD_EXPORT
    { "export", "a database for other programs: CSV, Perfetto and chrome://tracing, OpenTelemetry", cmd_export },
#endif
#ifdef HAVE_CMD_REPORT
    { "report", "a database as one page to look at: runs, latencies, timelines, attention", cmd_report },
#endif
#ifdef HAVE_CMD_WHY
    { "why", "one paragraph on the slowest token, a request or a step: what took the time", cmd_why },
#endif
#ifdef HAVE_CMD_MERGE
    { "merge", "runs of several databases into one", cmd_merge },
#endif
#ifdef HAVE_CMD_IMPORT
    { "import", "another engine's step timings, from a CSV file", cmd_import },
#endif
#ifdef HAVE_CMD_CITE
    { "cite", "BibTeX of what runs used", cmd_cite },
#endif
#ifdef HAVE_CMD_GENERATE
    { "generate", "a quick look at a model: stream a continuation", cmd_generate },
#endif
#ifdef HAVE_CMD_TOKENIZE
    { "tokenize", "text to token ids and back", cmd_tokenize },
#endif
#ifdef HAVE_CMD_LOGITS
    { "logits", "the most likely next tokens after some ids", cmd_logits },
#endif
#ifdef HAVE_CMD_EVAL
    { "eval", "perplexity of a text", cmd_eval },
#endif
#ifdef HAVE_CMD_BENCH
    { "bench", "tokens a second, beside what the machine allows", cmd_bench },
#endif
    { "plugins", "what stages there are, with their options", cmd_plugins },
#ifdef HAVE_CMD_SERVICES
    { "services", "what can be called by name, and what its messages hold", cmd_services },
#endif
#ifdef HAVE_CMD_NEW
    { "new", "start a plugin of your own from its kind's template", cmd_new },
#endif
#ifdef HAVE_CMD_DOCTOR
    { "doctor", "what this machine offers, and what is missing", cmd_doctor },
#endif
#ifdef HAVE_CMD_WORKER
    { "worker", NULL, cmd_worker }, /* a bus starts it */
#endif
};

enum { COMMAND_COUNT = sizeof commands / sizeof *commands };

static void print_help(FILE *out)
{
    fputs("lathe: a workbench for LLM inference: latency and attention, every stage a plugin\n\n"
          "usage: lathe VERB [arguments]\n\n", out);
    for (int i = 0; i < COMMAND_COUNT; i++)
        if (commands[i].run && commands[i].summary)
            fprintf(out, "  %-10s %s\n", commands[i].name, commands[i].summary);
    fputs("\n`lathe VERB --help` says more of each. Exit status: 0 success, 1 a failure, 2 bad usage.\n"
          "Environment: LATHE_PLUGIN_PATH, LATHE_MODELS (folders, separated by colons), LATHE_LOG (debug, info,\n"
          "warn, error, off), LATHE_LOG_FILE, LATHE_EXECUTABLE (the program that worker processes are).\n", out);
}

static int print_version(void)
{
    printf("lathe %s (%s, plugin ABI %d)\n", product_version(), product_build_type(), LATHE_PLUGIN_ABI);
    return 0;
}

/* What was said must have arrived: a full disk is a failure. */
static int finish(int status)
{
    if ((fflush(stdout) == 0 && !ferror(stdout)) || status != 0)
        return status;
    perror("lathe: the output could not be written");
    return 1;
}

static const struct command *find_command(const char *name)
{
    for (int i = 0; i < COMMAND_COUNT; i++)
        if (commands[i].run && strcmp(commands[i].name, name) == 0)
            return &commands[i];
    return NULL;
}

static int unknown_command(const char *name)
{
    const char *names[COMMAND_COUNT];
    size_t count = 0;
    for (int i = 0; i < COMMAND_COUNT; i++)
        if (commands[i].run && commands[i].summary)
            names[count++] = commands[i].name;
    const char *near = nearest_name(name, names, count);
    fprintf(stderr, "lathe: there is no verb `%.60s`%s%s%s; `lathe --help` lists them\n", name,
            near ? "; did you mean `" : "", near ? near : "", near ? "`?" : "");
    return 2;
}

/* `lathe help VERB` is `lathe VERB --help`. */
static int help(int argc, char **argv)
{
    if (argc < 3) {
        print_help(stdout);
        return 0;
    }
    const struct command *command = find_command(argv[2]);
    if (!command)
        return unknown_command(argv[2]);
    char flag[] = "--help";
    char *arguments[] = { argv[2], flag, NULL };
    return command->run(2, arguments);
}

int main(int argc, char **argv)
{
    struct lathe_error err;
    signal(SIGPIPE, SIG_IGN); /* a closed pipe is a failing write, not the end */
    host_set_thread_roles(LATHE_THREAD_MAIN | LATHE_THREAD_LOADER | LATHE_THREAD_ENGINE | LATHE_THREAD_WORKER);
    if (log_open(&err) != LATHE_OK) {
        fprintf(stderr, "lathe: %s\n", err.message);
        return 2;
    }
    if (argc < 2) {
        print_help(stderr);
        return 2;
    }
    if (strcmp(argv[1], "help") == 0)
        return finish(help(argc, argv));
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        print_help(stdout);
        return finish(0);
    }
    if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0)
        return finish(print_version());
    const struct command *command = find_command(argv[1]);
    if (!command)
        return unknown_command(argv[1]);
    return finish(command->run(argc - 1, argv + 1));
}
