/* SPDX-License-Identifier: MIT */
/* See opened.h. */
#include "opened.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "callee.h"

enum { MAX_OPTIONS = 64 };

/* --- the host: the machine's clock and memory, no log, no figures --------------------------- */

static void host_log(void *context, int level, uint64_t correlation, const char *message)
{
    (void)context, (void)correlation;
    if (level >= LATHE_LOG_WARN)
        fprintf(stderr, "bench_bus: %s\n", message);
}

static int64_t host_now(void *context)
{
    (void)context;
    return bench_now_ns();
}

static void *host_alloc(void *context, size_t bytes, size_t align)
{
    size_t unit = align > 64 ? align : 64, room;
    (void)context;
    if (__builtin_add_overflow(bytes, unit - 1, &room))
        return NULL;
    void *memory = aligned_alloc(unit, room / unit * unit + (room < unit ? unit : 0));
    return memory ? memset(memory, 0, bytes) : NULL;
}

static void host_free(void *context, void *memory)
{
    (void)context;
    free(memory);
}

static int host_metric(void *context, const char *name, const char *unit, const char *help)
{
    (void)context, (void)name, (void)unit, (void)help;
    return 0;
}

static void host_record(void *context, int metric, double value)
{
    (void)context, (void)metric, (void)value;
}

static uint32_t host_roles(void *context)
{
    (void)context;
    return LATHE_THREAD_MAIN | LATHE_THREAD_LOADER | LATHE_THREAD_ENGINE | LATHE_THREAD_WORKER;
}

static void host_set_roles(void *context, uint32_t roles)
{
    (void)context, (void)roles;
}

static void host_wait_until(void *context, int64_t when_ns)
{
    struct timespec t = { .tv_sec = when_ns / 1000000000, .tv_nsec = when_ns % 1000000000 };
    (void)context;
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
}

static const struct lathe_host host = { .size = sizeof host,
                                        .abi = LATHE_PLUGIN_ABI,
                                        .log = host_log,
                                        .now_ns = host_now,
                                        .alloc = host_alloc,
                                        .free = host_free,
                                        .metric = host_metric,
                                        .record = host_record,
                                        .thread_roles = host_roles,
                                        .set_thread_roles = host_set_roles,
                                        .wait_until = host_wait_until };

/* --- a plugin and its options ---------------------------------------------------------------- */

static int load(const char *file, const struct lathe_plugin **plugin, struct lathe_error *err)
{
    if (access(file, R_OK) != 0)
        return lathe_fail(err, LATHE_EUNSUPPORTED, "not built");
    void *library = dlopen(file, RTLD_NOW | RTLD_LOCAL); /* stays mapped */
    const struct lathe_plugin *p = library ? dlsym(library, LATHE_PLUGIN_SYMBOL) : NULL;
    if (!p)
        return lathe_fail(err, LATHE_EFORMAT, "%s", dlerror());
    const struct lathe_bus_api *api = p->api;
    if (p->kind != LATHE_KIND_BUS || api->abi != LATHE_BUS_ABI || api->size < sizeof *api || !api->post_many)
        return lathe_fail(err, LATHE_EUNSUPPORTED, "not a bus of ABI %d", LATHE_BUS_ABI);
    *plugin = p;
    return LATHE_OK;
}

static int parse(const struct lathe_option *o, const char *text, struct lathe_option_value *v,
                 struct lathe_error *err)
{
    char *end = NULL;
    *v = (struct lathe_option_value){ .type = o->type, .text = text, .is_default = text == o->default_text };
    if (!text)
        return lathe_fail(err, LATHE_EINVAL, "the bus needs the option %s", o->name);
    if (o->type == LATHE_OPTION_INTEGER || o->type == LATHE_OPTION_NUMBER) {
        v->number = strtod(text, &end);
        v->integer = (int64_t)v->number;
        if (end == text || *end || ((o->min != 0 || o->max != 0) && (v->number < o->min || v->number > o->max)))
            return lathe_fail(err, LATHE_EINVAL, "option %s can't be '%s': %g to %g", o->name, text, o->min, o->max);
    } else if (o->type == LATHE_OPTION_BOOLEAN) {
        v->integer = !strcmp(text, "true");
    } else if (o->type == LATHE_OPTION_CHOICE) {
        for (const char *c = o->choices; strncmp(c, text, strcspn(c, "|")) || text[strcspn(c, "|")]; v->integer++)
            if (!(c = strchr(c, '|')) || !*++c)
                return lathe_fail(err, LATHE_EINVAL, "option %s can't be '%s', only %s", o->name, text, o->choices);
    }
    return LATHE_OK;
}

static int configure(const struct lathe_plugin *p, const char *const *options, struct lathe_option_value *values,
                     struct lathe_error *err)
{
    int status = LATHE_OK;
    if (p->option_count > MAX_OPTIONS)
        return lathe_fail(err, LATHE_EUNSUPPORTED, "a bus of %u options", p->option_count);
    for (; options && options[0]; options += 2) {
        uint32_t i = 0;
        while (i < p->option_count && strcmp(p->options[i].name, options[0]))
            i++;
        if (i == p->option_count)
            return lathe_fail(err, LATHE_EUNSUPPORTED, "bus %s has no option %s", p->name, options[0]);
        if ((status = parse(&p->options[i], options[1], &values[i], err)) != LATHE_OK)
            return status;
    }
    for (uint32_t i = 0; i < p->option_count && status == LATHE_OK; i++)
        if (!values[i].type)
            status = parse(&p->options[i], p->options[i].default_text, &values[i], err);
    return status;
}

void opened_close(struct opened *o)
{
    struct lathe_error err;
    if (o->added)
        o->api->remove_service(o->self, callee_service.name, &err);
    if (o->self)
        o->api->destroy(o->self);
    *o = (struct opened){ .api = NULL };
}

int opened_open(struct opened *o, const struct bench *b, const char *name, const char *const *options,
                struct lathe_error *err)
{
    char file[4096];
    const struct lathe_plugin *plugin;
    struct lathe_option_value values[MAX_OPTIONS] = { { 0 } };
    int status;
    *o = (struct opened){ .api = NULL };
    snprintf(file, sizeof file, "%s/bus/%s.so", b->plugins, name);
    if ((status = load(file, &plugin, err)) != LATHE_OK ||
        (status = configure(plugin, options, values, err)) != LATHE_OK)
        return status;
    struct lathe_config config = { .size = sizeof config, .count = plugin->option_count, .values = values };
    char self[4096] = "";
    if (readlink("/proc/self/exe", self, sizeof self - 1) > 0)
        setenv("LATHE_EXECUTABLE", self, 1); /* what a bus starts as its worker */
    o->api = plugin->api;
    bench_pin(b, b->worker_cpu);
    status = o->api->create(&host, &config, &o->self, err);
    if (status == LATHE_OK && (status = o->api->add_service(o->self, &callee_service, err)) == LATHE_OK) {
        o->added = 1;
        if ((status = o->api->resolve(o->self, "bench.nothing", &o->nothing, err)) == LATHE_OK &&
            (status = o->api->resolve(o->self, "bench.sum", &o->sum, err)) == LATHE_OK)
            status = o->api->resolve(o->self, "bench.copy_sum", &o->copy_sum, err);
    }
    bench_pin(b, b->caller_cpu);
    if (status != LATHE_OK)
        opened_close(o);
    return status;
}

int opened_worker(int argc, char **argv)
{
    const struct lathe_plugin *plugin;
    const char *file = "";
    struct lathe_error err = { 0 };
    int fd = -1;
    for (int i = 2; i + 1 < argc; i += 2) {
        fd = !strcmp(argv[i], "--fd") ? atoi(argv[i + 1]) : fd;
        file = !strcmp(argv[i], "--bus") ? argv[i + 1] : file;
    }
    int status = load(file, &plugin, &err);
    if (status == LATHE_OK) {
        const struct lathe_bus_api *api = plugin->api;
        const struct lathe_bus_worker *worker =
            api->get_extension ? api->get_extension(NULL, LATHE_BUS_WORKER) : NULL;
        status = worker ? worker->serve(&host, fd, &callee_maker, &err)
                        : lathe_fail(&err, LATHE_EUNSUPPORTED, "bus %s has no worker processes", plugin->name);
    }
    if (status != LATHE_OK)
        fprintf(stderr, "bench_bus worker: %s\n", err.message);
    return status != LATHE_OK;
}
