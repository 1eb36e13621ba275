/* SPDX-License-Identifier: MIT */
/* A frontend to copy. It works: each line of a file or pipe is a prompt, answered by one
 * line of the output file.
 *
 *   1. Say in this comment what the world says to it, and what it answers.
 *   2. Declare your options: name, type, default, range, unit, help. The host checks them.
 *   3. start: open what can fail here, then start threads. The door is yours until stop.
 *   4. The thread: submit, read until a finish reason comes, mind that stop may be asked.
 *   5. stop: no new work, cancel what is under way, join.
 *   6. Name it in lathe_plugin, at the end, as the file is named; link Threads in
 *      mine.cmake as template.cmake does.
 *
 * Build, and the conformance tests run on it by themselves. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include <lathe/frontend.h>

/* Step 2. create finds the values in this order. */
enum { OPT_PATH, OPT_OUT, OPT_MAX_OUTPUT, OPT_COUNT };

static const struct lathe_option options[OPT_COUNT] = {
    { "path", LATHE_OPTION_PATH, NULL, 0, 0, "", NULL, "File or pipe with a prompt on each line." },
    { "out", LATHE_OPTION_PATH, NULL, 0, 0, "", NULL, "File that gets an answer on each line." },
    { "max_output_tokens", LATHE_OPTION_INTEGER, "64", 1, 1e6, "tokens", NULL, "Longest answer." },
};

enum { LINE_BYTES = 65536 };

struct mine {
    const struct lathe_host *host;
    const char *path, *out;
    uint32_t max_output_tokens;
    const struct lathe_door *door;
    int in_fd, out_fd;
    pthread_t thread;
    int started;
    atomic_int stopping;
    size_t used;
    char line[LINE_BYTES];
};

static int create(const struct lathe_host *host, const struct lathe_config *config, void **self,
                  struct lathe_error *err)
{
    struct mine *m = lathe_alloc(host, sizeof *m); /* zeroed */
    if (!m)
        return lathe_fail(err, LATHE_ENOMEM, "frontend template: no memory for %zu bytes", sizeof *m);
    m->host = host;
    m->path = config->values[OPT_PATH].text;
    m->out = config->values[OPT_OUT].text;
    m->max_output_tokens = (uint32_t)config->values[OPT_MAX_OUTPUT].integer;
    *self = m;
    return LATHE_OK;
}

static void say(struct mine *m, const char *text, size_t bytes)
{
    while (bytes) {
        ssize_t n = write(m->out_fd, text, bytes);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return; /* nobody reads any more */
        text += n;
        bytes -= (size_t)n;
    }
}

/* One prompt, one answer; newlines in it become spaces. */
static void answer(struct mine *m, const char *text, size_t bytes)
{
    struct lathe_submission submission = { .size = sizeof submission, .max_output_tokens = m->max_output_tokens,
                                           .text = text, .text_bytes = bytes };
    struct lathe_output piece = { .finish_reason = LATHE_FINISH_NONE };
    struct lathe_error err;
    uint64_t request;
    int status, cancelled = 0;

    while ((status = m->door->submit(m->door->door, &submission, &request, &err)) == LATHE_EFULL && !m->stopping)
        poll(NULL, 0, 10); /* overloaded: try later */
    while (status == LATHE_OK && piece.finish_reason == LATHE_FINISH_NONE) {
        if (m->stopping && !cancelled) {
            m->door->cancel(m->door->door, request);
            cancelled = 1; /* the last piece still comes */
        }
        status = m->door->read(m->door->door, request, 50 * 1000000, &piece, &err);
        if (status == LATHE_EBUSY) {
            status = LATHE_OK; /* nothing yet */
            continue;
        }
        if (status == LATHE_OK) {
            for (uint32_t i = 0; i < piece.text_bytes; i++)
                if (piece.text[i] == '\n')
                    piece.text[i] = ' ';
            say(m, piece.text, piece.text_bytes);
        }
    }
    if (status != LATHE_OK) {
        say(m, "error: ", 7);
        say(m, err.message, strlen(err.message));
    }
    say(m, "\n", 1);
}

/* Step 4. */
static void *serve(void *self)
{
    struct mine *m = self;
    while (!m->stopping) {
        char *end = memchr(m->line, '\n', m->used);
        if (end || m->used == sizeof m->line) { /* a longer line is cut there */
            size_t bytes = end ? (size_t)(end - m->line) : m->used, eaten = bytes + (end != NULL);
            answer(m, m->line, bytes);
            memmove(m->line, m->line + eaten, m->used - eaten);
            m->used -= eaten;
            continue;
        }
        struct pollfd ready = { .fd = m->in_fd, .events = POLLIN };
        ssize_t n;
        if (poll(&ready, 1, 50) <= 0)
            continue; /* so that stop is noticed */
        n = read(m->in_fd, m->line + m->used, sizeof m->line - m->used);
        if (n < 0 && (errno == EINTR || errno == EAGAIN))
            continue;
        if (n <= 0)
            break;
        m->used += (size_t)n;
    }
    if (m->used && !m->stopping) /* a last line without a newline */
        answer(m, m->line, m->used);
    return NULL;
}

/* Step 5. */
static void stop(void *self)
{
    struct mine *m = self;
    if (!m->started)
        return;
    m->stopping = 1;
    pthread_join(m->thread, NULL);
    close(m->in_fd);
    close(m->out_fd);
    m->started = 0;
}

/* Step 3. */
static int start(void *self, const struct lathe_door *door, struct lathe_error *err)
{
    struct mine *m = self;
    int code;
    if (m->started)
        return lathe_fail(err, LATHE_ESTATE, "frontend template: started twice; stop it first");
    m->in_fd = open(m->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (m->in_fd < 0)
        return lathe_fail(err, LATHE_EIO, "frontend template: can't read '%s': %s", m->path, strerror(errno));
    m->out_fd = open(m->out, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (m->out_fd < 0) {
        code = errno;
        close(m->in_fd);
        return lathe_fail(err, LATHE_EIO, "frontend template: can't write '%s': %s", m->out, strerror(code));
    }
    m->door = door;
    m->stopping = 0;
    m->used = 0;
    code = pthread_create(&m->thread, NULL, serve, m);
    if (code) {
        close(m->in_fd);
        close(m->out_fd);
        return lathe_fail(err, LATHE_EIO, "frontend template: no thread: %s", strerror(code));
    }
    m->started = 1;
    return LATHE_OK;
}

static void destroy(void *self)
{
    struct mine *m = self;
    if (!m)
        return;
    stop(m);
    lathe_free(m->host, m);
}

static const struct lathe_frontend_api api = {
    .size = sizeof api,
    .abi = LATHE_FRONTEND_ABI,
    .create = create,
    .destroy = destroy,
    .start = start,
    .stop = stop,
};

/* Step 6. */
extern const struct lathe_plugin lathe_plugin;
LATHE_EXPORT const struct lathe_plugin lathe_plugin = {
    .size = sizeof lathe_plugin,
    .abi = LATHE_PLUGIN_ABI,
    .kind = LATHE_KIND_FRONTEND,
    .concurrency = LATHE_SERIAL,
    .name = "template",
    .version = "1.0.0",
    .summary = "a frontend to copy: prompts from a file's lines",
    .options = options,
    .option_count = OPT_COUNT,
    .api = &api,
};
