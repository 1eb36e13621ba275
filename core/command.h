/* SPDX-License-Identifier: MIT */
/* The command line: one file a verb (cmd_*.c), each with the function below. Exit status:
 * 0 success, 1 a failure, 2 bad usage; errors are one line on stderr: "lathe VERB: sentence". */
#ifndef CORE_COMMAND_H
#define CORE_COMMAND_H

#include <lathe/status.h>

struct command {
    const char *name;
    const char *summary;              /* one line for `lathe --help`; NULL: not for people, left out there */
    int (*run)(int argc, char **argv); /* argv[0] is the verb; returns the exit status */
};

int cmd_run(int argc, char **argv);
int cmd_sql(int argc, char **argv);
int cmd_replay(int argc, char **argv);
int cmd_export(int argc, char **argv);
int cmd_report(int argc, char **argv);
int cmd_why(int argc, char **argv);
int cmd_merge(int argc, char **argv);
int cmd_import(int argc, char **argv);
int cmd_cite(int argc, char **argv);
int cmd_generate(int argc, char **argv);
int cmd_tokenize(int argc, char **argv);
int cmd_logits(int argc, char **argv);
int cmd_eval(int argc, char **argv);
int cmd_bench(int argc, char **argv);
int cmd_plugins(int argc, char **argv);
int cmd_services(int argc, char **argv);
int cmd_new(int argc, char **argv);
int cmd_doctor(int argc, char **argv);
int cmd_worker(int argc, char **argv);

/* "lathe VERB: message" on stderr; returns `status`. */
int command_fail(const char *verb, int status, const struct lathe_error *err);
/* The same for bad usage, with a pointer to --help; returns 2. */
int command_usage(const char *verb, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
