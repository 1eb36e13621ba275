/* SPDX-License-Identifier: MIT */
/* One worker process: `lathe worker`, executed, never forked from a process with threads. Its
 * socket is fd 3 and no other descriptor of the host's is open in it.
 *
 * Which program? The first of these that is there:
 *   1. $LATHE_EXECUTABLE, for tests and for hosts that embed lathe;
 *   2. this program, if it is named lathe;
 *   3. `lathe` or `bin/lathe` in a folder above this plugin's file: a build tree has
 *      BUILD/plugins/bus/shm.so and BUILD/lathe, an installed one LIB/lathe/plugins/bus/shm.so
 *      and PREFIX/bin/lathe. Never $PATH, never the current folder. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shm.h"

extern char **environ;

enum { WORKER_FD = 3, FOLDERS_UP = 8 };

static int is_program(const char *path)
{
    struct stat s;
    return stat(path, &s) == 0 && S_ISREG(s.st_mode) && access(path, X_OK) == 0;
}

/* This plugin's own file, without symlinks. */
static int own_file(char path[PATH_MAX])
{
    Dl_info info;
    return dladdr((const void *)(uintptr_t)&shm_bus_worker, &info) && info.dli_fname &&
           realpath(info.dli_fname, path);
}

static int named_lathe(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash && strcmp(slash, "/lathe") == 0;
}

int spawn_executable(char *path, size_t capacity, struct lathe_error *err)
{
    const char *told = getenv("LATHE_EXECUTABLE");
    char found[PATH_MAX + 16], folder[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", found, PATH_MAX - 1);
    if (told && *told) {
        if (!is_program(told) || strlen(told) >= capacity)
            return lathe_fail(err, LATHE_ENOTFOUND, "LATHE_EXECUTABLE is %.300s, which is no program", told);
        memcpy(path, told, strlen(told) + 1);
        return LATHE_OK;
    }
    found[n > 0 ? n : 0] = '\0';
    int there = named_lathe(found) && is_program(found);
    if (!there && own_file(folder))
        for (int i = 0; !there && i < FOLDERS_UP; i++) {
            char *slash = strrchr(folder, '/');
            if (!slash)
                break;
            *slash = '\0';
            snprintf(found, sizeof found, "%s/lathe", folder);
            if (!(there = is_program(found))) {
                snprintf(found, sizeof found, "%s/bin/lathe", folder);
                there = is_program(found);
            }
        }
    if (!there || strlen(found) >= capacity)
        return lathe_fail(err, LATHE_ENOTFOUND,
                          "there is no program to be a worker: this one is not named lathe, and "
                          "no lathe lies above the bus's file; name one in LATHE_EXECUTABLE");
    memcpy(path, found, strlen(found) + 1);
    return LATHE_OK;
}

/* --- exec ---------------------------------------------------------------------------------- */

static int exec_worker(struct shm *bus, const char *executable, int socket, pid_t *pid, struct lathe_error *err)
{
    char fd[16], epoch[24], file[PATH_MAX];
    int64_t epoch_ns = machine_ns() - bus->host->now_ns(bus->host->context);
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none, usual;
    if (!own_file(file))
        return lathe_fail(err, LATHE_EIO, "the bus's own file can't be found");
    snprintf(fd, sizeof fd, "%d", WORKER_FD);
    snprintf(epoch, sizeof epoch, "%lld", (long long)(epoch_ns > 0 ? epoch_ns : 0));
    const char *arguments[] = { executable, "worker", "--fd", fd, "--bus", file, "--epoch", epoch, NULL };
    sigemptyset(&none);
    sigemptyset(&usual);
    sigaddset(&usual, SIGTERM);
    sigaddset(&usual, SIGCHLD);
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
    posix_spawn_file_actions_adddup2(&actions, socket, WORKER_FD);
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, STDERR_FILENO, STDOUT_FILENO); /* the host's output is not its own */
    posix_spawn_file_actions_addclosefrom_np(&actions, WORKER_FD + 1);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &usual);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    int rc = posix_spawn(pid, executable, &actions, &attributes, (char *const *)(uintptr_t)arguments, environ);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    return rc == 0 ? LATHE_OK : lathe_fail(err, LATHE_EIO, "%.300s can't be started: %s", executable, strerror(rc));
}

/* Two ends, both above the numbers that the child's file actions write to. */
static int socket_pair(int ends[2], struct lathe_error *err)
{
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0)
        return lathe_fail(err, LATHE_EIO, "no socket for a worker: %s", strerror(errno));
    if (ends[1] <= WORKER_FD) {
        int moved = fcntl(ends[1], F_DUPFD_CLOEXEC, WORKER_FD + 1);
        close(ends[1]);
        ends[1] = moved;
    }
    if (ends[1] >= 0)
        return LATHE_OK;
    close(ends[0]);
    return lathe_fail(err, LATHE_EIO, "no socket for a worker: %s", strerror(errno));
}

static int say_hello(struct shm *bus, const struct life *life, uint64_t recipe_at, uint64_t recipe_bytes,
                     struct lathe_error *err)
{
    struct wire_hello hello = {
        .magic = WIRE_MAGIC,
        .kind = WIRE_HELLO,
        .protocol = WIRE_PROTOCOL,
        .worker = life->slot->worker,
        .bytes = bus->bytes,
        .control = life->block,
        .errors = (uint64_t)((unsigned char *)life->errors - bus->base),
        .ring = (uint64_t)((unsigned char *)life->ring - bus->base),
        .recipe = recipe_at,
        .recipe_bytes = recipe_bytes,
        .spin_ns = bus->options.spin_ns,
    };
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(sizeof(int))];
    } control = { .room = { 0 } };
    struct iovec piece = { &hello, sizeof hello };
    struct msghdr message = {
        .msg_iov = &piece, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    struct cmsghdr *c = CMSG_FIRSTHDR(&message);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(c), &bus->memory, sizeof(int));
    if (sendmsg(life->socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)sizeof hello)
        return lathe_fail(err, LATHE_EIO, "nothing can be said to a new worker: %s", strerror(errno));
    return LATHE_OK;
}

int spawn_worker(struct shm *bus, struct life *life, uint64_t recipe_at, uint64_t recipe_bytes,
                 struct lathe_error *err)
{
    char executable[PATH_MAX];
    int ends[2];
    int status = spawn_executable(executable, sizeof executable, err);
    if (status != LATHE_OK || (status = socket_pair(ends, err)) != LATHE_OK)
        return status;
    life->socket = ends[0];
    status = say_hello(bus, life, recipe_at, recipe_bytes, err); /* it lies in the socket until the worker reads */
    if (status == LATHE_OK)
        status = exec_worker(bus, executable, ends[1], &life->pid, err);
    close(ends[1]);
    if (status != LATHE_OK) {
        life->pid = 0;
        spawn_close(life);
        return status;
    }
#ifdef SYS_pidfd_open
    life->pidfd = (int)syscall(SYS_pidfd_open, life->pid, 0); /* −1: the socket's end tells */
#endif
    return LATHE_OK;
}

/* --- its end ---------------------------------------------------------------------------------- */

int spawn_ended(struct life *life, char *how, size_t capacity)
{
    int status = 0;
    pid_t got;
    do
        got = waitpid(life->pid, &status, WNOHANG);
    while (got < 0 && errno == EINTR);
    if (got == 0)
        return 0;
    if (got < 0)
        snprintf(how, capacity, "ended, and somebody else reaped it");
    else if (WIFSIGNALED(status))
        snprintf(how, capacity, "was killed by signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
    else
        snprintf(how, capacity, "exited with status %d", WEXITSTATUS(status));
    return 1;
}

void spawn_kill(const struct life *life)
{
    if (life->pid > 0)
        kill(life->pid, SIGKILL); /* not reaped yet, so the number is still its own */
}

void spawn_close(struct life *life)
{
    if (life->socket >= 0)
        close(life->socket);
    if (life->pidfd >= 0)
        close(life->pidfd);
    life->socket = life->pidfd = -1;
}
