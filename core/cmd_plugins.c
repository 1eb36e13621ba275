/* SPDX-License-Identifier: MIT */
/* `lathe plugins`: what there is. Nothing of a plugin is run to list or describe it. */
#include "command.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kinds.h"
#include "options.h"
#include "registry.h"
#include "text.h"
#include "trial.h"

static const char help[] =
    "usage: lathe plugins [KIND | KIND/NAME] [--json] [--check]\n"
    "\n"
    "  lathe plugins                    every plugin that was found, and why a file was refused\n"
    "  lathe plugins scheduler          those of one kind\n"
    "  lathe plugins scheduler/fcfs     one, with its options: type, default, range, unit\n"
    "\n"
    "  --check   load each in a child process, make an instance with the default options there,\n"
    "            and say whether that went well; status 1 if one failed\n"
    "  --json    the same as JSON\n"
    "\n"
    "Plugins lie in FOLDER/KIND/NAME.so, in the folders of LATHE_PLUGIN_PATH (absolute, separated by\n"
    "colons), then in the product's own folder. Kinds: tokenizer, model, sampler, kvcache, scheduler,\n"
    "batching, bus, router, frontend.\n";

/* --- as JSON --------------------------------------------------------------------- */

static void json_option(struct text *out, const struct lathe_option *option)
{
    text_print(out, "{\"name\": ");
    text_json(out, option->name);
    text_print(out, ", \"type\": \"%s\", \"default\": ", option_type_name(option->type));
    text_json(out, option->default_text);
    if (option->min != 0 || option->max != 0) {
        text_print(out, ", \"min\": ");
        text_json_number(out, option->min);
        text_print(out, ", \"max\": ");
        text_json_number(out, option->max);
    }
    if (option->type == LATHE_OPTION_CHOICE) {
        text_print(out, ", \"choices\": ");
        text_json(out, option->choices);
    }
    text_print(out, ", \"unit\": ");
    text_json(out, option->unit ? option->unit : "");
    text_print(out, ", \"help\": ");
    text_json(out, option->help);
    text_print(out, "}");
}

static void json_entry(struct text *out, const struct registry_entry *entry, const char *trial)
{
    const struct lathe_plugin *plugin = entry->plugin;
    text_print(out, "{\"kind\": \"%s\", \"name\": ", kind_name(entry->kind));
    text_json(out, entry->name);
    text_print(out, ", \"path\": ");
    text_json(out, entry->path);
    text_print(out, ", \"sha256\": ");
    text_json(out, entry->sha256);
    text_print(out, ", \"refusal\": ");
    text_json(out, entry->refusal);
    if (trial) {
        text_print(out, ", \"check\": ");
        text_json(out, trial);
    }
    if (plugin) {
        text_print(out, ", \"version\": ");
        text_json(out, plugin->version);
        text_print(out, ", \"abi\": %u, \"summary\": ", ((const struct lathe_api_head *)plugin->api)->abi);
        text_json(out, plugin->summary);
        text_print(out, ", \"citation\": ");
        text_json(out, plugin->citation);
        text_print(out, ", \"options\": [");
        for (uint32_t i = 0; i < plugin->option_count; i++) {
            text_print(out, "%s", i > 0 ? ", " : "");
            json_option(out, &plugin->options[i]);
        }
        text_print(out, "]");
    }
    text_print(out, "}");
}

/* --- for people -------------------------------------------------------------------- */

static void print_range(struct text *out, const struct lathe_option *option)
{
    if (option->type == LATHE_OPTION_CHOICE)
        text_print(out, "%s", option->choices);
    else if (option->min != 0 || option->max != 0)
        text_print(out, "%.15g to %.15g", option->min, option->max);
    if (option->unit && *option->unit)
        text_print(out, "%s%s", out->count > 0 ? " " : "", option->unit);
}

static void print_details(const struct registry_entry *entry)
{
    const struct lathe_plugin *plugin = entry->plugin;
    printf("%s/%s %s\n  %s\n  file    %s\n  sha256  %s\n  threads %s\n", kind_name(entry->kind), entry->name,
           plugin->version, plugin->summary, entry->path, entry->sha256,
           plugin->concurrency == LATHE_PARALLEL ? "parallel" : "serial");
    if (plugin->citation)
        printf("  cite    %s\n", plugin->citation);
    if (plugin->option_count == 0) {
        printf("\nIt takes no options.\n");
        return;
    }
    printf("\n  %-22s %-8s %-14s %-24s %s\n", "OPTION", "TYPE", "DEFAULT", "RANGE, UNIT", "");
    for (uint32_t i = 0; i < plugin->option_count; i++) {
        const struct lathe_option *option = &plugin->options[i];
        const char *value = option->default_text;
        struct text range = { 0 };
        print_range(&range, option);
        printf("  %-22s %-8s %-14s %-24s %s\n", option->name, option_type_name(option->type),
               !value ? "(required)" : *value ? value : "\"\"", range.bytes ? range.bytes : "", option->help);
        text_free(&range);
    }
    printf("\nIn a script: %s = { \"%s\", %s = … }; on the command line: --set %s=%s:%s=…\n", kind_name(entry->kind),
           entry->name, plugin->options[0].name, kind_name(entry->kind), entry->name, plugin->options[0].name);
}

static void print_row(const struct registry_entry *entry, const char *trial)
{
    if (entry->plugin)
        printf("%-10s %-14s %-8s %s%s%s\n", kind_name(entry->kind), entry->name, entry->plugin->version,
               entry->plugin->summary, trial ? "  — " : "", trial ? trial : "");
    else
        printf("%-10s %-14s refused  %s\n", kind_name(entry->kind), entry->name, entry->refusal);
}

/* --- which, and in which form -------------------------------------------------------- */

struct wish {
    int kind;         /* 0: all */
    const char *name; /* NULL: all */
    int json, check;
};

/* "ok" or why not, in `err`; a plugin that needs an option is only loaded. */
static const char *check(const struct registry_entry *entry, struct lathe_error *err)
{
    int required = 0;
    for (uint32_t i = 0; i < entry->plugin->option_count; i++)
        required |= !entry->plugin->options[i].default_text;
    int rc = required ? trial_load(entry->path, entry->kind, entry->name, err)
                      : trial_create(entry->path, entry->kind, entry->name, NULL, 0, err);
    if (rc != LATHE_OK)
        return err->message;
    return required ? "ok (loaded; it needs options to be created)" : "ok";
}

static int print_list(const struct wish *wish, const struct registry_entry *entries, size_t count)
{
    struct text json = { 0 };
    size_t shown = 0;
    int failed = 0;
    text_print(&json, "[");
    if (!wish->json)
        printf("%-10s %-14s %-8s %s\n", "KIND", "NAME", "VERSION", "SUMMARY");
    for (size_t i = 0; i < count; i++) {
        struct lathe_error why;
        if ((wish->kind && entries[i].kind != wish->kind) || (wish->name && strcmp(entries[i].name, wish->name) != 0))
            continue;
        const char *trial = wish->check && entries[i].plugin ? check(&entries[i], &why) : NULL;
        failed |= wish->check && (!trial || strncmp(trial, "ok", 2) != 0);
        if (wish->json) {
            text_print(&json, "%s\n  ", shown > 0 ? "," : "");
            json_entry(&json, &entries[i], trial);
        } else {
            print_row(&entries[i], trial);
        }
        shown++;
    }
    text_print(&json, "%s]", shown > 0 ? "\n" : "");
    if (wish->json)
        puts(json.failed ? "[]" : json.bytes);
    text_free(&json);
    return failed;
}

static int show(struct registry *registry, const struct wish *wish)
{
    struct lathe_error err;
    const struct registry_entry *entries;
    size_t count;
    if (wish->name) { /* not there or refused: the sentence is the answer */
        const struct registry_entry *entry;
        int rc = registry_find(registry, wish->kind, wish->name, &entry, &err);
        if (rc != LATHE_OK)
            return command_fail("plugins", 1, &err);
        if (!wish->json && !wish->check) {
            print_details(entry);
            return 0;
        }
        return print_list(wish, entry, 1);
    }
    if (registry_list(registry, &entries, &count, &err) != LATHE_OK)
        return command_fail("plugins", 1, &err);
    return print_list(wish, entries, count);
}

/* "scheduler" or "scheduler/fcfs", cut up in place. 0, or the exit status. */
static int read_wish(char *word, struct wish *wish)
{
    const char *names[KIND_COUNT];
    char *slash = strchr(word, '/');
    if (slash) {
        *slash = '\0';
        wish->name = slash + 1;
    }
    wish->kind = kind_from_name(word);
    if (wish->kind)
        return 0;
    for (int kind = 1; kind <= KIND_COUNT; kind++)
        names[kind - 1] = kind_name(kind);
    const char *near = nearest_name(word, names, KIND_COUNT);
    return command_usage("plugins", "there is no kind `%.60s`%s%s%s", word, near ? "; did you mean `" : "",
                         near ? near : "", near ? "`?" : "");
}

int cmd_plugins(int argc, char **argv)
{
    static const struct option options[] = {
        { "help", no_argument, NULL, 'h' },
        { "json", no_argument, NULL, 'j' },
        { "check", no_argument, NULL, 'c' },
        { NULL, 0, NULL, 0 },
    };
    struct wish wish = { 0 };
    struct lathe_error err;
    struct registry *registry;
    if (argc > 2 && strcmp(argv[1], "--probe") == 0)
        return trial_child(argc - 2, argv + 2);
    opterr = 0;
    optind = 1;
    for (int c; (c = getopt_long(argc, argv, "h", options, NULL)) != -1;)
        switch (c) {
        case 'h': fputs(help, stdout); return 0;
        case 'j': wish.json = 1; break;
        case 'c': wish.check = 1; break;
        default: return command_usage("plugins", "unknown option %s", argv[optind - 1]);
        }
    if (argc - optind > 1)
        return command_usage("plugins", "one KIND or KIND/NAME is expected, not %d words", argc - optind);
    if (optind < argc) {
        int status = read_wish(argv[optind], &wish);
        if (status != 0)
            return status;
    }
    if (registry_open(NULL, &registry, &err) != LATHE_OK)
        return command_fail("plugins", 1, &err);
    int status = show(registry, &wish);
    registry_close(registry);
    return status;
}
