/* SPDX-License-Identifier: MIT */
/* The registry: finds plugins by kind and name, checks them, makes instances.
 *
 * Plugins lie in `<folder>/<kind>/<name>.so`. Folders, in order: those that the
 * configuration or LATHE_PLUGIN_PATH name (absolute only), the build tree's or the
 * installed folder beside the executable. Never the current folder by accident. A file
 * is opened with RTLD_NOW | RTLD_LOCAL, checked field by field against its kind, and
 * stays mapped until the process ends. A refusal names file, field, expected and found. */
#ifndef CORE_REGISTRY_H
#define CORE_REGISTRY_H

#include <stddef.h>
#include <stdint.h>

#include "clock.h"
#include <lathe/host.h>
#include <lathe/plugin.h>

struct registry;
struct producer;

const char *kind_name(int kind);       /* "scheduler"; "unknown" */
int kind_from_name(const char *name);  /* 0: no such kind */

/* `folders`: NULL-terminated, absolute, searched first; may be NULL. [main] */
int registry_open(const char *const *folders, struct registry **registry, struct lathe_error *err);
void registry_close(struct registry *registry);

/* One plugin that was found. `plugin` is NULL when the file was refused: `refusal` says why. */
struct registry_entry {
    int kind;
    const char *name;
    const char *path;
    const struct lathe_plugin *plugin;
    const char *refusal;
    char sha256[65]; /* of the file; filled by registry_find and registry_list */
};

/* Loads it if need be. Not there: LATHE_ENOTFOUND, naming the nearest. [main] */
int registry_find(struct registry *registry, int kind, const char *name, const struct registry_entry **entry,
                  struct lathe_error *err);
/* Every plugin of every folder, kinds in order, names sorted; loads all. The array is the registry's. [main] */
int registry_list(struct registry *registry, const struct registry_entry **entries, size_t *count,
                  struct lathe_error *err);

/* name = text, as a person would write it; Lua and the command line both make these. */
struct option_setting {
    const char *name, *text;
};

/* A live plugin. The host table and its context are the instance's own. */
struct instance {
    const struct registry_entry *entry;
    const struct lathe_plugin *plugin;
    const void *api;     /* cast to the kind's table */
    void *self;
    struct lathe_host host;
    char *options_json;  /* every option's value as used: {"block_tokens": 16, …} */
    const struct lathe_option_value *values; /* the same, (plugin->option_count): also which nobody set */
    struct host_context *context;
};

/* Checks settings against the option table (unknown names: the nearest is suggested; types;
 * ranges), fills in defaults, calls create. `clock` may be NULL until instance_attach. [main or loader] */
int instance_create(struct registry *registry, int kind, const char *name, const struct option_setting *settings,
                    size_t setting_count, struct instance **instance, struct lathe_error *err);
void instance_destroy(struct instance *instance); /* NULL is ignored */

/* A run begins or ends around this instance: its clock and where its metrics go. NULLs detach. [main] */
void instance_attach(struct instance *instance, struct clock *clock, struct producer *producer);

/* An optional ability, or NULL. */
const void *instance_extension(const struct instance *instance, const char *id);

/* Splits "name:option=value,option=value" (values may be quoted with "…") in place; settings
 * point into `text`. For --set. */
int settings_parse(char *text, char **name, struct option_setting *settings, size_t capacity, size_t *count,
                   struct lathe_error *err);

/* The nearest of `count` names by edit distance, or NULL if none is near. */
const char *nearest_name(const char *name, const char *const *names, size_t count);

/* Short model names ("smollm2-135m") to files: LATHE_MODELS, models/ beside the executable's
 * tree, ./models. A path that exists is taken as it is. */
int model_path_resolve(const char *name, char *path, size_t capacity, struct lathe_error *err);

/* Where the product's files lie: "scripts", "schemas", "plugins", "experiments", "models" in the
 * source/build tree or installed. 0 or LATHE_ENOTFOUND. */
int product_path(const char *what, char *path, size_t capacity, struct lathe_error *err);

#endif
