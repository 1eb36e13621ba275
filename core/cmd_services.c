/* SPDX-License-Identifier: MIT */
/* `lathe services`: what can be called by name, and what its messages hold. Nothing is run. */
#include "command.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "payload.h"

static const char help[] =
    "usage: lathe services [SERVICE | SERVICE.METHOD]\n"
    "\n"
    "  lathe services                  every service and its methods\n"
    "  lathe services model            those of one\n"
    "  lathe services model.forward    one method: the fields that its message takes and its reply gives\n"
    "\n"
    "In a script: engine:call(\"model\", \"forward\", { slices = { … } }). Lists inside of a table are\n"
    "given where they belong: a slice says its own tokens and blocks.\n";

static void print_methods(const char *service)
{
    size_t count;
    const struct payload *all = payload_all(&count);
    puts("SERVICE.METHOD");
    for (size_t i = 0; i < count; i++) {
        char name[64];
        if (service && strcmp(all[i].service, service) != 0)
            continue;
        snprintf(name, sizeof name, "%s.%s", all[i].service, all[i].method);
        printf("%-26s %s\n", name, all[i].help);
    }
    printf("\n`lathe services SERVICE.METHOD` describes one.\n");
}

static const char *absent_text(const struct payload_field *f, int given, char *text, size_t capacity)
{
    if (!given)
        return "";
    if (!(f->flags & PAYLOAD_OPTIONAL))
        return "(required)";
    switch (f->type) {
    case PAYLOAD_BOOLEAN: return f->absent != 0 ? "true" : "false";
    case PAYLOAD_CHOICE:
        for (const struct payload_name *n = f->names; n->name; n++)
            if ((double)n->value == f->absent)
                return n->name;
        return "";
    case PAYLOAD_U32:
    case PAYLOAD_I32:
    case PAYLOAD_U64:
    case PAYLOAD_I64:
    case PAYLOAD_F32:
        if (f->flags & (PAYLOAD_ABSENT_INDEX | PAYLOAD_ABSENT_COUNT))
            return "";
        snprintf(text, capacity, "%g", f->absent);
        return text;
    default: return "";
    }
}

/* "from 0 to 4294967295" is what the type holds; a row says it shorter. */
static const char *kind_text(const struct payload_field *f, char *text, size_t capacity)
{
    static const char *const names[] = { [PAYLOAD_U8] = "0 to 255", [PAYLOAD_U32] = "u32", [PAYLOAD_I32] = "i32",
                                         [PAYLOAD_U64] = "u64", [PAYLOAD_I64] = "i64" };
    int list = f->type == PAYLOAD_LIST || f->type == PAYLOAD_SPAN || f->type == PAYLOAD_RANGE;
    int type = list ? f->element : f->type;
    if ((list && f->of) || f->min != 0 || f->max != 0 || type > PAYLOAD_I64)
        return payload_expects(f, text, capacity);
    snprintf(text, capacity, "%s%s", list ? "a list of " : "", names[type]);
    return text;
}

static void print_row(int depth, const char *name, const char *kind, const char *absent, const char *about)
{
    char indented[64];
    snprintf(indented, sizeof indented, "%*s%s", 2 * depth, "", name);
    printf("  %-24s %-34s %-11s %s\n", indented, kind, absent, about ? about : "");
}

static int print_fields(const struct payload_struct *of, int given, int depth)
{
    int rows = 0;
    for (size_t i = 0; i < of->count; i++) {
        const struct payload_field *f = &of->fields[i];
        char kind[160], absent[32];
        if (f->type == PAYLOAD_FLAGS) {
            for (const struct payload_name *flag = f->names; flag->name; flag++, rows++)
                print_row(depth, flag->name, "true or false", given ? "false" : "", flag->help);
        } else if (f->type == PAYLOAD_STRUCT && !f->name) {
            rows += print_fields(f->of, given, depth);
        } else if (f->name) {
            print_row(depth, f->name, kind_text(f, kind, sizeof kind), absent_text(f, given, absent, sizeof absent),
                      f->help);
            if (f->of)
                print_fields(f->of, given, depth + 1);
            rows++;
        }
    }
    return rows;
}

static void print_method(const struct payload *what)
{
    printf("%s.%s\n  %s\n\n  %-24s %-34s DEFAULT\n", what->service, what->method, what->help, "MESSAGE", "TYPE");
    if (print_fields(what->in, 1, 0) == 0)
        printf("  It takes no fields.\n");
    printf("\n  %-24s TYPE\n", "REPLY");
    print_fields(what->out, 0, 0);
    printf("\nIn a script: %s\n", what->example);
}

int cmd_services(int argc, char **argv)
{
    static const struct option options[] = { { "help", no_argument, NULL, 'h' }, { NULL, 0, NULL, 0 } };
    const struct payload *what;
    struct lathe_error err;
    opterr = 0;
    optind = 1;
    for (int c; (c = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
        if (c != 'h')
            return command_usage("services", "unknown option %s", argv[optind - 1]);
        fputs(help, stdout);
        return 0;
    }
    if (argc - optind > 1)
        return command_usage("services", "one SERVICE or SERVICE.METHOD is expected, not %d words", argc - optind);
    if (optind == argc) {
        print_methods(NULL);
        return 0;
    }
    char *dot = strchr(argv[optind], '.');
    if (dot)
        *dot++ = '\0';
    if (payload_find(argv[optind], dot, &what, &err) != LATHE_OK)
        return command_fail("services", 1, &err);
    if (dot)
        print_method(what);
    else
        print_methods(what->service);
    return 0;
}
