/* SPDX-License-Identifier: MIT */
/* What every frontend must keep: it starts, stops and starts again, refuses what it can't
 * open, and leaves neither threads nor requests behind. The door is a fake one: each request
 * is answered by its own text, a few bytes a piece, after being called busy and overloaded
 * now and then. Frontends that read prompts from the file of option `path` and write answers
 * to that of option `out` are also asked whether the answers are right. */
#include <pthread.h>
#include <time.h>

#include <lathe/frontend.h>

#include "harness.h"

enum { REQUESTS = 256 };

static const struct lathe_frontend_api *api;

static struct {
    pthread_mutex_t lock;
    struct { char text[2048]; size_t bytes, sent; int ended, cancelled; } requests[REQUESTS];
    uint32_t count, calls, after_stop;
    int stopped;
    size_t most_bytes; /* of one answer; SIZE_MAX: whole, 0: they never end by themselves */
} door;

static int submit(void *self, const struct lathe_submission *what, uint64_t *request, struct lathe_error *err)
{
    int status = LATHE_OK;
    (void)self;
    pthread_mutex_lock(&door.lock);
    door.after_stop += (uint32_t)door.stopped;
    if (++door.calls % 5 == 3 || door.count == REQUESTS) {
        status = lathe_fail(err, LATHE_EFULL, "overloaded");
    } else if (what->size < sizeof *what || what->text_bytes >= sizeof door.requests->text) {
        status = lathe_fail(err, LATHE_ERANGE, "the prompt is beyond the context");
    } else {
        memcpy(door.requests[door.count].text, what->text, what->text_bytes);
        door.requests[door.count].bytes = what->text_bytes;
        *request = ++door.count;
    }
    pthread_mutex_unlock(&door.lock);
    return status;
}

static int read_piece(void *self, uint64_t request, int64_t timeout_ns, struct lathe_output *out, struct lathe_error *err)
{
    int status = LATHE_OK;
    size_t n;
    (void)self, (void)timeout_ns;
    pthread_mutex_lock(&door.lock);
    door.after_stop += (uint32_t)door.stopped;
    *out = (struct lathe_output){ .finish_reason = LATHE_FINISH_NONE };
    if (request == 0 || request > door.count || door.requests[request - 1].ended) {
        status = lathe_fail(err, LATHE_ENOTFOUND, "there is no such request");
    } else if (door.requests[request - 1].cancelled) {
        out->finish_reason = LATHE_FINISH_ABORT;
        door.requests[request - 1].ended = 1;
    } else if (++door.calls % 3 == 1 || door.most_bytes == 0) {
        status = lathe_fail(err, LATHE_EBUSY, "nothing yet");
    } else {
        n = door.requests[request - 1].bytes - door.requests[request - 1].sent;
        n = n < 7 ? n : 7;
        memcpy(out->text, door.requests[request - 1].text + door.requests[request - 1].sent, n);
        out->text_bytes = (uint32_t)n;
        door.requests[request - 1].sent += n;
        if (n == 0 || door.requests[request - 1].sent == door.requests[request - 1].bytes) {
            out->finish_reason = LATHE_FINISH_STOP;
            door.requests[request - 1].ended = 1;
        }
    }
    pthread_mutex_unlock(&door.lock);
    if (status == LATHE_EBUSY)
        nanosleep(&(struct timespec){ 0, 1000000 }, NULL);
    return status;
}

static void cancel(void *self, uint64_t request)
{
    (void)self;
    pthread_mutex_lock(&door.lock);
    if (request > 0 && request <= door.count)
        door.requests[request - 1].cancelled = 1;
    pthread_mutex_unlock(&door.lock);
}

static const struct lathe_door table = { .size = sizeof table, .abi = LATHE_FRONTEND_ABI, .submit = submit,
                                         .read = read_piece, .cancel = cancel };

static void open_door(size_t most_bytes)
{
    memset(&door, 0, sizeof door);
    pthread_mutex_init(&door.lock, NULL);
    door.most_bytes = most_bytes;
}

/* The value of a path option, or NULL if the frontend has none of that name. */
static const char *path_option(const struct subject *s, const char *name)
{
    for (uint32_t i = 0; i < s->plugin->option_count; i++)
        if (!strcmp(s->plugin->options[i].name, name) && s->plugin->options[i].type == LATHE_OPTION_PATH)
            return s->config.values[i].text;
    return NULL;
}

static void write_file(const char *path, const char *text)
{
    FILE *f = path ? fopen(path, "wb") : NULL;
    CHECK(!path || f, "can't write %s", path);
    if (f) {
        fputs(text, f);
        fclose(f);
    }
}

static size_t read_file(const char *path, char *text, size_t room)
{
    FILE *f = fopen(path, "rb");
    size_t n = f ? fread(text, 1, room - 1, f) : 0;
    if (f)
        fclose(f);
    text[n] = '\0';
    return n;
}

static void stop(void *self)
{
    api->stop(self);
    pthread_mutex_lock(&door.lock);
    door.stopped = 1;
    for (uint32_t i = 0; i < door.count; i++)
        CHECK(door.requests[i].ended, "request %u was left behind", i + 1);
    pthread_mutex_unlock(&door.lock);
    nanosleep(&(struct timespec){ 0, 20000000 }, NULL);
    CHECK(door.after_stop == 0, "the door was used %u times after stop", door.after_stop);
}

static void answers_each_line_of_its_file(struct subject *s)
{
    static const char prompts[] = "first\nthe second line is longer than a piece\n\nlast without a newline";
    static const char answers[] = "first\nthe second line is longer than a piece\n\nlast without a newline\n";
    struct lathe_error err = { 0 };
    const char *in = path_option(s, "path"), *out = path_option(s, "out");
    char found[500] = "";
    void *self;
    if (!in || !out)
        return; /* it hears from the world otherwise */
    write_file(in, prompts);
    open_door(SIZE_MAX);
    api = (const void *)s->head;
    self = subject_create(s);
    CHECK_OK(api->start(self, &table, &err), &err);
    for (int i = 0; i < 500 && strcmp(found, answers); i++) {
        nanosleep(&(struct timespec){ 0, 10000000 }, NULL);
        read_file(out, found, sizeof found);
    }
    CHECK(!strcmp(found, answers), "answered '%s'", found);
    stop(self);
    api->destroy(self);
}

static void stops_while_a_request_is_under_way(struct subject *s)
{
    struct lathe_error err = { 0 };
    void *self;
    api = (const void *)s->head;
    write_file(path_option(s, "path"), "one that never ends\nand another\n");
    self = subject_create(s);
    for (int i = 0; i < 3; i++) { /* and starts again */
        open_door(0);
        CHECK_OK(api->start(self, &table, &err), &err);
        if (i)
            nanosleep(&(struct timespec){ 0, 30000000 }, NULL);
        stop(self);
    }
    api->stop(self); /* ignored */
    api->destroy(self);
    self = subject_create(s);
    api->destroy(self); /* never started */
}

static void refuses_a_file_that_is_not_there(struct subject *s)
{
    struct lathe_error err = { 0 };
    void *self;
    if (!subject_set(s, "path", "/nowhere/at/all"))
        return;
    open_door(SIZE_MAX);
    api = (const void *)s->head;
    self = subject_create(s);
    CHECK_FAILS(api->start(self, &table, &err), LATHE_EIO, &err);
    CHECK(strstr(err.message, "/nowhere/at/all"), "the sentence doesn't name the file: %s", err.message);
    api->destroy(self);
}

static int life(struct subject *s, struct lathe_error *err)
{
    void *self;
    int status = subject_try_create(s, &self, err);
    api = (const void *)s->head;
    if (status != LATHE_OK)
        return status;
    write_file(path_option(s, "path"), "");
    open_door(SIZE_MAX);
    if ((status = api->start(self, &table, err)) == LATHE_OK)
        stop(self);
    api->destroy(self);
    return status;
}

int main(int argc, char **argv)
{
    static const struct behaviour behaviours[] = {
        { "answers_each_line_of_its_file", answers_each_line_of_its_file },
        { "stops_while_a_request_is_under_way", stops_while_a_request_is_under_way },
        { "refuses_a_file_that_is_not_there", refuses_a_file_that_is_not_there },
    };
    return conformance(argc, argv, LATHE_KIND_FRONTEND, LATHE_FRONTEND_ABI, sizeof(struct lathe_frontend_api), behaviours,
                       sizeof behaviours / sizeof *behaviours, life);
}
