/* SPDX-License-Identifier: MIT */
/* A shm bus as the product has it, with services in real worker processes, for tests. */
#ifndef TESTS_SHM_OFFICE_H
#define TESTS_SHM_OFFICE_H

#include <dirent.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "methods.h"
#include "recipe.h"
#include "registry.h"
#include <lathe/bus.h>

enum { OFFICE_EVENTS = 4096, OFFICE_OPTIONS = 12 };

/* What went wrong in the fixture itself ends the program. */
#define OFFICE_MUST(call, err) \
    do { \
        int office_status_ = (call); \
        if (office_status_ != LATHE_OK) { \
            fprintf(stderr, "%s:%d: %d: %s\n", __FILE__, __LINE__, office_status_, (err)->message); \
            abort(); \
        } \
    } while (0)

struct office {
    struct registry *registry;
    struct instance *bus_instance;
    const struct lathe_bus_api *api;
    void *bus;
    pthread_mutex_t lock;
    struct { int kind; uint32_t worker; char detail[500]; } events[OFFICE_EVENTS];
    int event_count; /* under lock */
};

static void office_event(void *context, const struct lathe_bus_event *event)
{
    struct office *o = context;
    pthread_mutex_lock(&o->lock);
    if (o->event_count < OFFICE_EVENTS) {
        o->events[o->event_count].kind = event->kind;
        o->events[o->event_count].worker = event->worker;
        snprintf(o->events[o->event_count].detail, sizeof o->events[0].detail, "%s", event->detail);
        o->event_count++;
    }
    pthread_mutex_unlock(&o->lock);
}

/* How often an event was told; `detail` (if not NULL): the last one's sentence. */
static inline int office_events(struct office *o, int kind, char detail[500])
{
    int n = 0;
    pthread_mutex_lock(&o->lock);
    for (int i = 0; i < o->event_count; i++)
        if (o->events[i].kind == kind) {
            n++;
            if (detail)
                memcpy(detail, o->events[i].detail, 500);
        }
    pthread_mutex_unlock(&o->lock);
    return n;
}

/* The bus of a folder of plugins. `options`: name, value, …, NULL. */
static inline void office_open_at(struct office *o, const char *folder, const char *const *options)
{
    struct lathe_error err = { 0 };
    const char *folders[] = { folder, NULL };
    struct option_setting settings[OFFICE_OPTIONS];
    size_t count = 0;
    memset(o, 0, sizeof *o);
    pthread_mutex_init(&o->lock, NULL);
    OFFICE_MUST(registry_open(folders, &o->registry, &err), &err);
    for (; options && options[2 * count]; count++)
        settings[count] = (struct option_setting){ options[2 * count], options[2 * count + 1] };
    OFFICE_MUST(instance_create(o->registry, LATHE_KIND_BUS, "shm", settings, count, &o->bus_instance, &err), &err);
    o->api = o->bus_instance->api;
    o->bus = o->bus_instance->self;
    struct lathe_bus_observer observer = { .size = sizeof observer, .context = o, .event = office_event };
    o->api->observe(o->bus, &observer);
}

static inline void office_open(struct office *o, const char *const *options)
{
    office_open_at(o, TEST_PLUGINS, options);
}

static inline void office_close(struct office *o)
{
    instance_destroy(o->bus_instance);
    registry_close(o->registry);
    pthread_mutex_destroy(&o->lock);
}

/* Services whose methods are elsewhere. They stay until the program ends. */
static int office_nothing(void *self, const void *in, void *out, struct lathe_error *err)
{
    (void)self, (void)in, (void)out;
    return lathe_fail(err, LATHE_EINTERNAL, "this process was asked");
}

static const struct lathe_service_method office_tokenizer_methods[] = {
    { .name = "describe", .function = office_nothing, .flags = LATHE_METHOD_IDEMPOTENT },
    { .name = "encode", .function = office_nothing, .flags = LATHE_METHOD_IDEMPOTENT },
    { .name = "decode", .function = office_nothing, .flags = LATHE_METHOD_IDEMPOTENT },
};
static const struct lathe_service_method office_stateful_methods[] = {
    { .name = "describe", .function = office_nothing, .flags = LATHE_METHOD_IDEMPOTENT },
    { .name = "encode", .function = office_nothing, .flags = LATHE_METHOD_IDEMPOTENT | LATHE_METHOD_STATEFUL },
};

static inline struct lathe_service office_service(const char *recipe, uint32_t workers)
{
    return (struct lathe_service){ .size = sizeof(struct lathe_service), .name = "tokenizer", .method_count = 3,
                                   .methods = office_tokenizer_methods, .concurrency = LATHE_PARALLEL,
                                   .workers = workers, .recipe = recipe, .recipe_bytes = strlen(recipe) };
}

static inline char *office_recipe(const char *name)
{
    enum { RECIPE_BYTES = 1024 };
    char *recipe = malloc(RECIPE_BYTES);
    const char *folder = strcmp(name, "mischief") ? TEST_PLUGINS : TEST_BUILD "/mischief";
    if (!recipe ||
        snprintf(recipe, RECIPE_BYTES,
                 "{\"services\":[{\"service\":\"tokenizer\",\"kind\":\"tokenizer\",\"plugin\":\"%s/tokenizer/%s.so\","
                 "\"name\":\"%s\",\"options\":{}}]}",
                 folder, name, name) >= RECIPE_BYTES)
        abort();
    return recipe;
}

static inline const struct lathe_endpoint *office_endpoint(struct office *o, const char *name)
{
    const struct lathe_endpoint *endpoint;
    struct lathe_error err = { 0 };
    OFFICE_MUST(o->api->resolve(o->bus, name, &endpoint, &err), &err);
    return endpoint;
}

/* A pair of messages for encode. */
struct office_pair {
    struct lathe_encode_in *in;
    struct lathe_encode_out *out;
};

static inline struct office_pair office_pair(struct office *o)
{
    struct lathe_error err = { 0 };
    struct office_pair p = { (void *)o->api->loan(o->bus, 4096, &err), (void *)o->api->loan(o->bus, 16384, &err) };
    if (!p.in || !p.out)
        OFFICE_MUST(LATHE_ENOMEM, &err);
    return p;
}

static inline void office_pair_back(struct office *o, struct office_pair *p)
{
    o->api->give_back(o->bus, &p->in->head);
    o->api->give_back(o->bus, &p->out->head);
}

static inline void office_write(struct office_pair *p, const char *text)
{
    p->in->head.bytes = sizeof *p->in;
    p->in->head.flags = 0;
    p->in->head.deadline_ns = 0;
    p->in->flags = 0;
    p->out->head.bytes = 0;
    memcpy(lathe_message_add(&p->in->head, &p->in->text, strlen(text), 1), text, strlen(text));
}

/* 1 if the answer is a token a byte. */
static inline int office_is_right(const struct office_pair *p, const char *text)
{
    if (!lathe_span_check(&p->out->head, p->out->tokens, sizeof(int32_t), 4) || p->out->tokens.count != strlen(text))
        return 0;
    for (size_t i = 0; text[i]; i++)
        if (LATHE_SPAN(int32_t, p->out, p->out->tokens)[i] != (unsigned char)text[i])
            return 0;
    return 1;
}

static inline struct lathe_service_health office_health(struct office *o, const char *service)
{
    struct lathe_service_health health;
    struct lathe_error err = { 0 };
    OFFICE_MUST(o->api->health(o->bus, service, &health, &err), &err);
    return health;
}

/* Processes whose parent is this one, zombies too; up to `capacity` of their numbers. */
static inline int office_children(pid_t *children, int capacity)
{
    int n = 0;
    DIR *proc = opendir("/proc");
    for (struct dirent *entry; proc && (entry = readdir(proc)) != NULL;) {
        char path[300], line[512], *after;
        int parent;
        snprintf(path, sizeof path, "/proc/%s/stat", entry->d_name);
        FILE *file = entry->d_name[0] >= '0' && entry->d_name[0] <= '9' ? fopen(path, "r") : NULL;
        if (!file)
            continue;
        if (fgets(line, sizeof line, file) && (after = strrchr(line, ')')) != NULL &&
            sscanf(after + 1, " %*c %d", &parent) == 1 && parent == getpid() && n < capacity)
            children[n++] = (pid_t)atoi(entry->d_name);
        fclose(file);
    }
    if (proc)
        closedir(proc);
    return n;
}

/* SIGSTOP, and until every thread of it has stopped. */
static inline void office_stop(pid_t pid)
{
    int running = 1;
    kill(pid, SIGSTOP);
    while (running) {
        char path[300], line[512], *after;
        running = 0;
        snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
        DIR *tasks = opendir(path);
        for (struct dirent *entry; tasks && (entry = readdir(tasks)) != NULL;) {
            snprintf(path, sizeof path, "/proc/%d/task/%s/stat", (int)pid, entry->d_name);
            FILE *file = entry->d_name[0] != '.' ? fopen(path, "r") : NULL;
            if (file && fgets(line, sizeof line, file) && (after = strrchr(line, ')')) != NULL)
                running += after[2] == 'R' || after[2] == 'S' || after[2] == 'D';
            if (file)
                fclose(file);
        }
        if (tasks)
            closedir(tasks);
    }
}

static inline int office_open_files(void)
{
    int n = 0;
    DIR *files = opendir("/proc/self/fd");
    while (files && readdir(files))
        n++;
    closedir(files);
    return n;
}

#endif
