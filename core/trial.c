/* SPDX-License-Identifier: MIT */
#include "trial.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "instance.h"
#include "library.h"
#include "options.h"
#include "product.h"

extern char **environ;

enum { REPORT_FD = 3, MAX_ARGUMENTS = OPTIONS_MAX + 8, LOAD_SECONDS = 5, CREATE_SECONDS = 60 };

/* --- the parent's side --------------------------------------------------------------- */

static int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static int trials_off(void)
{
    const char *word = getenv("LATHE_PLUGIN_TRIAL");
    return word && strcmp(word, "off") == 0;
}

static int limit_seconds(int otherwise)
{
    const char *text = getenv("LATHE_PLUGIN_TRIAL_SECONDS");
    long seconds = text ? strtol(text, NULL, 10) : 0;
    return seconds > 0 && seconds <= 3600 ? (int)seconds : otherwise;
}

/* All that the child says until it ends or the time is up; 0 when it was up. */
static int listen_to(int fd, int seconds, char *report, size_t capacity)
{
    int64_t until = now_ms() + (int64_t)seconds * 1000;
    size_t count = 0;
    for (;;) {
        int64_t left = until - now_ms();
        struct pollfd wait = { .fd = fd, .events = POLLIN };
        if (left <= 0)
            break;
        int ready = poll(&wait, 1, (int)left);
        if (ready < 0 && errno == EINTR)
            continue;
        if (ready <= 0)
            break;
        char piece[512];
        ssize_t got = read(fd, piece, sizeof piece);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0) {
            report[count] = '\0';
            return 1;
        }
        size_t take = (size_t)got < capacity - 1 - count ? (size_t)got : capacity - 1 - count;
        memcpy(report + count, piece, take);
        count += take;
    }
    report[count] = '\0';
    return 0;
}

/* Starts the child with its report pipe at REPORT_FD and nothing else of ours. */
static int start(char **arguments, const char *executable, int pipe_write, pid_t *child)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none;
    sigemptyset(&none);
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, pipe_write, REPORT_FD);
    posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
    int rc = posix_spawn(child, executable, &actions, &attributes, arguments, environ);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    return rc;
}

/* The report is "stage\n…" lines and at the end "ok\n" or "refused CODE sentence\n". */
static int judge(const char *path, const char *report, int in_time, int seconds, int status, struct lathe_error *err)
{
    static const char *const stages[] = { "destroying", "creating", "loading" };
    const char *stage = "starting", *refusal = strstr(report, "refused "), *end;
    for (size_t i = 0; i < sizeof stages / sizeof *stages; i++)
        if (strstr(report, stages[i])) {
            stage = stages[i];
            break;
        }
    if (!in_time)
        return lathe_fail(err, LATHE_EINVAL, "%s: not done after %d s of %s it on trial, so it was stopped", path,
                          seconds, stage);
    if (refusal) {
        int code = (int)strtol(refusal + strlen("refused "), (char **)(uintptr_t)&end, 10);
        const char *stop = strchr(end, '\n');
        if (*end == ' ')
            end++;
        return lathe_fail(err, code < 0 ? code : LATHE_EINVAL, "%.*s", stop ? (int)(stop - end) : 480, end);
    }
    if (strstr(report, "ok\n") && WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return LATHE_OK;
    if (WIFSIGNALED(status))
        return lathe_fail(err, LATHE_EINVAL, "%s: crashed in %s it on trial (%s)", path, stage,
                          strsignal(WTERMSIG(status)));
    return lathe_fail(err, LATHE_EINVAL, "%s: ended the process in %s it on trial (status %d)", path, stage,
                      WIFEXITED(status) ? WEXITSTATUS(status) : -1);
}

static int try_out(char **arguments, const char *executable, const char *path, int seconds, struct lathe_error *err)
{
    int ends[2];
    char report[1024];
    pid_t child;
    if (pipe2(ends, O_CLOEXEC) != 0)
        return lathe_fail(err, LATHE_EIO, "%s: no pipe for its trial: %s", path, strerror(errno));
    /* dup2 onto itself would keep close-on-exec set. */
    if (ends[1] == REPORT_FD) {
        int moved = fcntl(ends[1], F_DUPFD_CLOEXEC, REPORT_FD + 1);
        close(ends[1]);
        ends[1] = moved;
    }
    int rc = start(arguments, executable, ends[1], &child);
    close(ends[1]);
    if (rc != 0) {
        close(ends[0]);
        return lathe_fail(err, LATHE_EIO, "%s: cannot be tried out: %s: %s", path, executable, strerror(rc));
    }
    int in_time = listen_to(ends[0], seconds, report, sizeof report), status = 0;
    close(ends[0]);
    /* The pipe is closed when the child ends, or earlier by a plugin that closes what is not
     * its own; either way nothing is waited for any longer than the limit. */
    if (!in_time)
        kill(child, SIGKILL);
    int64_t until = now_ms() + (int64_t)seconds * 1000;
    for (pid_t got = 0; got == 0;) {
        got = waitpid(child, &status, WNOHANG);
        if (got < 0 && errno == EINTR)
            got = 0;
        if (got == 0) {
            if (now_ms() > until) {
                kill(child, SIGKILL);
                in_time = 0;
            }
            nanosleep(&(struct timespec){ .tv_nsec = 500000 }, NULL);
        }
    }
    return judge(path, report, in_time, seconds, status, err);
}

static int trial(const char *what, const char *path, int kind, const char *name, const struct option_setting *settings,
                 size_t setting_count, int seconds, struct lathe_error *err)
{
    char executable[PATH_MAX];
    char *arguments[MAX_ARGUMENTS + 1], *written[MAX_ARGUMENTS];
    size_t count = 0, used = 0;
    if (trials_off())
        return LATHE_OK;
    int rc = product_executable(executable, sizeof executable, err);
    if (rc != LATHE_OK)
        return rc;
    const char *fixed[] = { executable, "plugins", "--probe", what, path, kind_name(kind), name };
    for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++)
        arguments[count++] = (char *)(uintptr_t)fixed[i];
    for (size_t i = 0; i < setting_count && count < MAX_ARGUMENTS; i++) {
        if (asprintf(&written[used], "%s=%s", settings[i].name, settings[i].text) < 0) {
            rc = lathe_fail(err, LATHE_ENOMEM, "%s: no memory for its trial", path);
            break;
        }
        arguments[count++] = written[used++];
    }
    arguments[count] = NULL;
    if (rc == LATHE_OK)
        rc = try_out(arguments, executable, path, limit_seconds(seconds), err);
    while (used > 0)
        free(written[--used]);
    return rc;
}

int trial_load(const char *path, int kind, const char *name, struct lathe_error *err)
{
    return trial("load", path, kind, name, NULL, 0, LOAD_SECONDS, err);
}

int trial_create(const char *path, int kind, const char *name, const struct option_setting *settings,
                 size_t setting_count, struct lathe_error *err)
{
    return trial("create", path, kind, name, settings, setting_count, CREATE_SECONDS, err);
}

/* --- the child's side ------------------------------------------------------------------ */

static void say(const char *text)
{
    dprintf(REPORT_FD, "%s\n", text);
}

static int child_refused(int code, const struct lathe_error *why)
{
    dprintf(REPORT_FD, "refused %d %s\n", code, why->message);
    return 1;
}

int trial_child(int argc, char **argv)
{
    static const struct rlimit no_core = { 0, 0 };
    struct lathe_error err;
    struct library library = { 0 };
    struct option_setting settings[OPTIONS_MAX];
    size_t count = 0;
    int kind = argc >= 4 ? kind_from_name(argv[2]) : 0;
    if (kind == 0 || fcntl(REPORT_FD, F_GETFD) < 0)
        return 2;
    setrlimit(RLIMIT_CORE, &no_core);
    say("loading");
    int rc = library_open(argv[1], kind, argv[3], &library, &err);
    if (rc != LATHE_OK)
        return child_refused(rc, &err);
    if (strcmp(argv[0], "create") == 0) {
        for (int i = 4; i < argc && count < OPTIONS_MAX; i++) {
            char *equals = strchr(argv[i], '=');
            if (!equals)
                return 2;
            *equals = '\0';
            settings[count].name = argv[i];
            settings[count++].text = equals + 1;
        }
        struct registry_entry entry = { .kind = kind, .name = argv[3], .path = argv[1], .plugin = library.plugin };
        struct instance *instance;
        say("creating");
        rc = instance_of_entry(&entry, settings, count, &instance, &err);
        if (rc != LATHE_OK)
            return child_refused(rc, &err);
        say("destroying");
        instance_destroy(instance);
    }
    say("ok");
    /* Destructors and exit handlers of a foreign library are part of the trial. */
    return 0;
}
