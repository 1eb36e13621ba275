/* SPDX-License-Identifier: MIT */
/* See harness.h. */
#include "harness.h"

#include <dlfcn.h>
#include <stdarg.h>

enum { MAX_OPTIONS = 64, MAX_FAILURES = 4000 };

static const char *current = "opening";
static struct lathe_option_value values[MAX_OPTIONS];

void check_failed(const char *file, int line, const char *condition, const char *format, ...)
{
    va_list args;
    fprintf(stderr, "not ok  %s\n  %s:%d: %s\n  ", current, file, line, condition);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    exit(1);
}

/* As the host reads an option; 0 if it isn't one of the type. */
static int parse(const struct lathe_option *o, const char *text, struct lathe_option_value *v)
{
    char *end = NULL;
    *v = (struct lathe_option_value){ .type = o->type, .text = text };
    switch (o->type) {
    case LATHE_OPTION_INTEGER:
        v->integer = strtoll(text, &end, 10);
        v->number = (double)v->integer;
        return end != text && *end == '\0';
    case LATHE_OPTION_NUMBER:
        v->number = strtod(text, &end);
        return end != text && *end == '\0';
    case LATHE_OPTION_BOOLEAN:
        v->integer = !strcmp(text, "true");
        return v->integer || !strcmp(text, "false");
    case LATHE_OPTION_CHOICE:
        for (const char *c = o->choices; c; c = strchr(c, '|') ? strchr(c, '|') + 1 : NULL) {
            size_t n = strcspn(c, "|");
            if (n == strlen(text) && !strncmp(c, text, n))
                return 1;
            v->integer++;
        }
        return 0;
    default:
        return 1;
    }
}

int subject_set(struct subject *s, const char *option, const char *value)
{
    for (uint32_t i = 0; i < s->plugin->option_count; i++) {
        if (!strcmp(s->plugin->options[i].name, option)) {
            CHECK(parse(&s->plugin->options[i], value, &values[i]), "option %s can't be '%s'", option, value);
            return 1;
        }
    }
    return 0;
}

/* Defaults into the configuration; they must parse and lie in their ranges. */
static void defaults(struct subject *s)
{
    CHECK(s->plugin->option_count <= MAX_OPTIONS, "%u options", s->plugin->option_count);
    for (uint32_t i = 0; i < s->plugin->option_count; i++) {
        const struct lathe_option *o = &s->plugin->options[i];
        CHECK(o->name && o->help && o->help[0], "option %u has no name or no help", i);
        CHECK(o->type >= LATHE_OPTION_STRING && o->type <= LATHE_OPTION_PATH, "option %s: type %d", o->name, o->type);
        CHECK((o->type == LATHE_OPTION_CHOICE) == (o->choices != NULL), "option %s: choices", o->name);
        values[i] = (struct lathe_option_value){ .type = 0 };
        if (!o->default_text)
            continue;
        CHECK(parse(o, o->default_text, &values[i]), "option %s: default '%s'", o->name, o->default_text);
        values[i].is_default = 1;
        CHECK((o->type != LATHE_OPTION_INTEGER && o->type != LATHE_OPTION_NUMBER) || (o->min == 0 && o->max == 0) ||
                  (values[i].number >= o->min && values[i].number <= o->max),
              "option %s: default %s is outside %g to %g", o->name, o->default_text, o->min, o->max);
    }
    s->config = (struct lathe_config){ .size = sizeof s->config, .count = s->plugin->option_count, .values = values };
}

int subject_try_create(struct subject *s, void **self, struct lathe_error *err)
{
    return s->head->create(&s->host.host, &s->config, self, err);
}

void *subject_create(struct subject *s)
{
    struct lathe_error err = { 0 };
    void *self = NULL;
    CHECK_OK(subject_try_create(s, &self, &err), &err);
    CHECK(self, "create succeeded without an instance");
    return self;
}

static void settings(struct subject *s, int argc, char **argv)
{
    for (int i = 2; i < argc; i++) {
        char *equals = strchr(argv[i], '=');
        if (!equals)
            continue;
        *equals = '\0';
        CHECK(subject_set(s, argv[i], equals + 1), "the plugin has no option %s", argv[i]);
        *equals = '=';
    }
}

static void descriptor(const struct subject *s, int kind, uint32_t abi, uint32_t required)
{
    const struct lathe_plugin *p = s->plugin;
    CHECK(p->size >= sizeof *p && p->abi == LATHE_PLUGIN_ABI, "descriptor of %u bytes, ABI %u", p->size, p->abi);
    CHECK(p->kind == kind, "kind %d", p->kind);
    CHECK(p->name && p->name[strspn(p->name, "abcdefghijklmnopqrstuvwxyz0123456789_")] == '\0', "name %s", p->name);
    CHECK(p->version && p->summary && p->summary[0], "version or summary is missing");
    CHECK(p->option_count == 0 || p->options, "options");
    CHECK(s->head->size >= required && s->head->abi == abi, "table of %u bytes, ABI %u", s->head->size, s->head->abi);
    CHECK(s->head->create && s->head->destroy, "create or destroy is missing");
}

static void no_leak(const struct subject *s)
{
    CHECK(atomic_load(&s->host.live_blocks) == 0, "%zu blocks of memory, %zu bytes, were not given back",
          atomic_load(&s->host.live_blocks), atomic_load(&s->host.live_bytes));
}

static void survives_failing_allocations(struct subject *s, int (*scenario)(struct subject *, struct lathe_error *))
{
    for (size_t n = 1; n <= MAX_FAILURES; n++) {
        struct lathe_error err = { 0 };
        int status;
        atomic_store(&s->host.calls, 0);
        s->host.fail_at = n;
        status = scenario(s, &err);
        s->host.fail_at = 0;
        no_leak(s);
        if (atomic_load(&s->host.calls) < n) {
            CHECK(status == LATHE_OK, "with all memory: %d: %s", status, err.message);
            return;
        }
        CHECK(status == LATHE_OK || status == LATHE_ENOMEM, "allocation %zu failed: %d: %s", n, status, err.message);
        CHECK(status == LATHE_OK || err.message[0], "allocation %zu failed: no sentence", n);
    }
    CHECK(0, "more than %d allocations in one life", MAX_FAILURES);
}

int conformance(int argc, char **argv, int kind, uint32_t abi, uint32_t required, const struct behaviour *behaviours,
                size_t count, int (*scenario)(struct subject *, struct lathe_error *))
{
    static struct subject s;
    void *library;

    if (argc < 2) {
        fprintf(stderr, "usage: %s plugin.so [option=value …]\n", argv[0]);
        return 2;
    }
    library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
    CHECK(library, "%s", dlerror());
    s.plugin = dlsym(library, LATHE_PLUGIN_SYMBOL);
    CHECK(s.plugin, "%s exports no %s", argv[1], LATHE_PLUGIN_SYMBOL);
    s.head = s.plugin->api;
    counting_host_init(&s.host);
    descriptor(&s, kind, abi, required);
    defaults(&s);
    settings(&s, argc, argv);
    for (uint32_t i = 0; i < s.plugin->option_count; i++) {
        if (values[i].type == 0) {
            printf("skipped: %s needs the option %s\n", s.plugin->name, s.plugin->options[i].name);
            return 77;
        }
    }
    for (size_t i = 0; i < count; i++) {
        current = behaviours[i].name;
        defaults(&s);
        settings(&s, argc, argv);
        behaviours[i].run(&s);
        no_leak(&s);
        printf("ok      %s\n", current);
        fflush(stdout);
    }
    current = "survives_failing_allocations";
    defaults(&s);
    settings(&s, argc, argv);
    survives_failing_allocations(&s, scenario);
    printf("ok      %s\n", current);
    return 0;
}
