/* SPDX-License-Identifier: MIT */
/* The first folder that has a file of that kind and name decides; a refusal stands, it is
 * not passed over for a later folder: nobody should run another plugin than the one that
 * lies first. Entries are made once and live until registry_close, so pointers to them hold.
 * One lock guards the table, since instances are made on [loader] threads, too. */
#include "registry.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "instance.h"
#include "kinds.h"
#include "library.h"
#include "options.h"
#include "trial.h"

enum { MAX_FOLDERS = 64, MAX_ENTRIES = 4096 };

/* An entry and the texts it points to. */
struct found {
    struct registry_entry entry;
    char name[64];
    char path[PATH_MAX];
    char refusal[LATHE_ERROR_MESSAGE_BYTES];
    int refusal_code;
    int own; /* lies in the product's own folder */
};

struct registry {
    pthread_mutex_t lock;
    size_t folder_count;
    char *folders[MAX_FOLDERS];
    char *own_folder; /* resolved; NULL: none */
    size_t count;
    struct found *found[MAX_ENTRIES];
    struct registry_entry *list; /* what registry_list gave last */
};

/* --- folders ------------------------------------------------------------------------- */

static int add_folder(struct registry *registry, const char *source, const char *folder, struct lathe_error *err)
{
    struct stat s;
    if (folder[0] != '/')
        return lathe_fail(err, LATHE_EINVAL, "%s: the plugin folder \"%.200s\" is relative; give an absolute path, so "
                          "that it never depends on the current folder", source, folder);
    if (registry->folder_count == MAX_FOLDERS)
        return lathe_fail(err, LATHE_EFULL, "%s: more than %d plugin folders", source, MAX_FOLDERS);
    if (stat(folder, &s) != 0 || !S_ISDIR(s.st_mode))
        return lathe_fail(err, LATHE_ENOTFOUND, "%s: the plugin folder %.300s is not there", source, folder);
    char *copy = strdup(folder);
    if (!copy)
        return lathe_fail(err, LATHE_ENOMEM, "no memory for the plugin folders");
    registry->folders[registry->folder_count++] = copy;
    return LATHE_OK;
}

static int add_listed(struct registry *registry, const char *list, struct lathe_error *err)
{
    while (*list) {
        char folder[PATH_MAX];
        size_t n = strcspn(list, ":");
        if (n >= sizeof folder)
            return lathe_fail(err, LATHE_EINVAL, "LATHE_PLUGIN_PATH: a folder's name has %zu bytes", n);
        memcpy(folder, list, n);
        folder[n] = '\0';
        int rc = n == 0 ? LATHE_OK : add_folder(registry, "LATHE_PLUGIN_PATH", folder, err);
        if (rc != LATHE_OK)
            return rc;
        list += list[n] == ':' ? n + 1 : n;
    }
    return LATHE_OK;
}

int registry_open(const char *const *folders, struct registry **registry, struct lathe_error *err)
{
    struct registry *made = calloc(1, sizeof *made);
    if (!made)
        return lathe_fail(err, LATHE_ENOMEM, "no memory for the plugin registry");
    pthread_mutex_init(&made->lock, NULL);
    int rc = LATHE_OK;
    for (; folders && *folders && rc == LATHE_OK; folders++)
        rc = add_folder(made, "configuration", *folders, err);
    const char *list = getenv("LATHE_PLUGIN_PATH");
    if (rc == LATHE_OK && list)
        rc = add_listed(made, list, err);
    char own[PATH_MAX];
    if (rc == LATHE_OK && product_path("plugins", own, sizeof own, NULL) == LATHE_OK) {
        rc = add_folder(made, "product", own, err);
        made->own_folder = rc == LATHE_OK ? strdup(own) : NULL;
    }
    if (rc != LATHE_OK) {
        registry_close(made);
        return rc;
    }
    *registry = made;
    return LATHE_OK;
}

void registry_close(struct registry *registry)
{
    if (!registry)
        return;
    for (size_t i = 0; i < registry->count; i++)
        free(registry->found[i]);
    for (size_t i = 0; i < registry->folder_count; i++)
        free(registry->folders[i]);
    free(registry->own_folder);
    free(registry->list);
    pthread_mutex_destroy(&registry->lock);
    free(registry);
}

/* --- one file ------------------------------------------------------------------------- */

static struct found *known(const struct registry *registry, int kind, const char *name)
{
    for (size_t i = 0; i < registry->count; i++)
        if (registry->found[i]->entry.kind == kind && strcmp(registry->found[i]->name, name) == 0)
            return registry->found[i];
    return NULL;
}

static int lies_in(const char *path, const char *folder)
{
    size_t n = folder ? strlen(folder) : 0;
    return n > 0 && strncmp(path, folder, n) == 0 && path[n] == '/';
}

/* Inspects, tries out if it is foreign, and loads; what is wrong becomes the refusal. */
static void load(const struct registry *registry, struct found *found)
{
    char resolved[PATH_MAX];
    struct lathe_error why = { 0 };
    struct library library = { 0 };
    int kind = found->entry.kind;
    int rc = library_inspect(found->path, resolved, found->entry.sha256, &why);
    found->own = rc == LATHE_OK && lies_in(resolved, registry->own_folder);
    if (rc == LATHE_OK && !found->own)
        rc = trial_load(found->path, kind, found->name, &why);
    if (rc == LATHE_OK)
        rc = library_open(found->path, kind, found->name, &library, &why);
    if (rc == LATHE_OK) {
        found->entry.plugin = library.plugin;
        memcpy(found->entry.sha256, library.sha256, sizeof library.sha256);
    } else {
        snprintf(found->refusal, sizeof found->refusal, "%s", why.message);
        found->refusal_code = rc;
        found->entry.refusal = found->refusal;
    }
}

/* Makes the entry for a file that exists. */
static int add_found(struct registry *registry, int kind, const char *name, const char *path, struct found **out,
                     struct lathe_error *err)
{
    if (registry->count == MAX_ENTRIES)
        return lathe_fail(err, LATHE_EFULL, "more than %d plugins", MAX_ENTRIES);
    struct found *found = calloc(1, sizeof *found);
    if (!found)
        return lathe_fail(err, LATHE_ENOMEM, "no memory for plugin %s/%s", kind_name(kind), name);
    snprintf(found->name, sizeof found->name, "%s", name);
    snprintf(found->path, sizeof found->path, "%s", path);
    found->entry.kind = kind;
    found->entry.name = found->name;
    found->entry.path = found->path;
    load(registry, found);
    registry->found[registry->count++] = found;
    *out = found;
    return LATHE_OK;
}

/* --- folders' contents ------------------------------------------------------------------ */

/* "fcfs.so" → "fcfs"; 0 for anything else, names that nobody could ask for included. */
static int plugin_file_name(const char *file, char name[64])
{
    size_t n = strlen(file);
    if (n < 4 || n - 3 >= 64 || strcmp(file + n - 3, ".so") != 0)
        return 0;
    memcpy(name, file, n - 3);
    name[n - 3] = '\0';
    return plain_name(name);
}

/* Calls `see` for each plugin file of a kind in a folder. */
static int each_file(const char *folder, int kind, int (*see)(void *user, const char *name, const char *path),
                     void *user)
{
    char path[PATH_MAX + 512], name[64];
    int rc = LATHE_OK;
    snprintf(path, sizeof path, "%s/%s", folder, kind_name(kind));
    DIR *dir = opendir(path);
    if (!dir)
        return LATHE_OK;
    for (struct dirent *file; rc == LATHE_OK && (file = readdir(dir)) != NULL;)
        if (plugin_file_name(file->d_name, name)) {
            int n = snprintf(path, sizeof path, "%s/%s/%s", folder, kind_name(kind), file->d_name);
            if (n < PATH_MAX)
                rc = see(user, name, path);
        }
    closedir(dir);
    return rc;
}

struct names {
    size_t count;
    char names[256][64];
};

static int see_name(void *user, const char *name, const char *path)
{
    struct names *names = user;
    (void)path;
    if (names->count < 256)
        memcpy(names->names[names->count++], name, strlen(name) + 1);
    return LATHE_OK;
}

static int not_found(const struct registry *registry, int kind, const char *name, struct lathe_error *err)
{
    struct names *names = calloc(1, sizeof *names);
    const char *pointers[256], *near = NULL;
    for (size_t i = 0; names && i < registry->folder_count; i++)
        each_file(registry->folders[i], kind, see_name, names);
    for (size_t i = 0; names && i < names->count; i++)
        pointers[i] = names->names[i];
    if (names)
        near = nearest_name(name, pointers, names->count);
    int none = registry->folder_count == 0;
    lathe_fail(err, LATHE_ENOTFOUND, "there is no %s plugin `%s`%s%s%s; `lathe plugins %s` lists them%s", kind_name(kind),
               name, near ? "; did you mean `" : "", near ? near : "", near ? "`?" : "", kind_name(kind),
               none ? " (no plugin folder was found beside the executable)" : "");
    free(names);
    return LATHE_ENOTFOUND;
}

static int find_locked(struct registry *registry, int kind, const char *name, struct found **out,
                       struct lathe_error *err)
{
    struct found *found = known(registry, kind, name);
    for (size_t i = 0; !found && i < registry->folder_count; i++) {
        char path[PATH_MAX + 128];
        struct stat s;
        int n = snprintf(path, sizeof path, "%s/%s/%s.so", registry->folders[i], kind_name(kind), name);
        if (n >= PATH_MAX || lstat(path, &s) != 0)
            continue;
        int rc = add_found(registry, kind, name, path, &found, err);
        if (rc != LATHE_OK)
            return rc;
    }
    if (!found)
        return not_found(registry, kind, name, err);
    if (!found->entry.plugin)
        return lathe_fail(err, found->refusal_code, "plugin %s/%s is refused: %.430s", kind_name(kind), name,
                          found->refusal);
    *out = found;
    return LATHE_OK;
}

static int find(struct registry *registry, int kind, const char *name, struct found **found, struct lathe_error *err)
{
    if (!kind_info(kind))
        return lathe_fail(err, LATHE_EINVAL, "%d is no kind of plugin", kind);
    if (!plain_name(name))
        return lathe_fail(err, LATHE_EINVAL, "\"%.80s\" is no plugin name: lower-case letters, digits and _ are, and "
                          "no path", name);
    pthread_mutex_lock(&registry->lock);
    int rc = find_locked(registry, kind, name, found, err);
    pthread_mutex_unlock(&registry->lock);
    return rc;
}

int registry_find(struct registry *registry, int kind, const char *name, const struct registry_entry **entry,
                  struct lathe_error *err)
{
    struct found *found = NULL;
    int rc = find(registry, kind, name, &found, err);
    if (rc == LATHE_OK)
        *entry = &found->entry;
    return rc;
}

/* --- all of them ------------------------------------------------------------------------- */

struct listing {
    struct registry *registry;
    int kind;
    struct lathe_error *err;
};

static int see_file(void *user, const char *name, const char *path)
{
    struct listing *listing = user;
    struct found *found;
    if (known(listing->registry, listing->kind, name))
        return LATHE_OK;
    return add_found(listing->registry, listing->kind, name, path, &found, listing->err);
}

static int by_kind_and_name(const void *a, const void *b)
{
    const struct registry_entry *x = a, *y = b;
    return x->kind != y->kind ? x->kind - y->kind : strcmp(x->name, y->name);
}

static int list_locked(struct registry *registry, struct lathe_error *err)
{
    for (size_t i = 0; i < registry->folder_count; i++)
        for (int kind = 1; kind <= KIND_COUNT; kind++) {
            struct listing listing = { registry, kind, err };
            int rc = each_file(registry->folders[i], kind, see_file, &listing);
            if (rc != LATHE_OK)
                return rc;
        }
    free(registry->list);
    registry->list = malloc((registry->count + 1) * sizeof *registry->list);
    if (!registry->list)
        return lathe_fail(err, LATHE_ENOMEM, "no memory for the list of plugins");
    for (size_t i = 0; i < registry->count; i++)
        registry->list[i] = registry->found[i]->entry;
    qsort(registry->list, registry->count, sizeof *registry->list, by_kind_and_name);
    return LATHE_OK;
}

int registry_list(struct registry *registry, const struct registry_entry **entries, size_t *count,
                  struct lathe_error *err)
{
    pthread_mutex_lock(&registry->lock);
    int rc = list_locked(registry, err);
    *entries = registry->list;
    *count = rc == LATHE_OK ? registry->count : 0;
    pthread_mutex_unlock(&registry->lock);
    return rc;
}

int instance_create(struct registry *registry, int kind, const char *name, const struct option_setting *settings,
                    size_t setting_count, struct instance **instance, struct lathe_error *err)
{
    struct found *found = NULL;
    int rc = find(registry, kind, name, &found, err);
    if (rc == LATHE_OK && !found->own) {
        /* Wrong options are the person's mistake, not a matter for a trial. */
        struct lathe_option_value *values = NULL;
        char owner[96];
        snprintf(owner, sizeof owner, "%s/%s", kind_name(kind), name);
        rc = options_resolve(kind, owner, found->entry.plugin->options, found->entry.plugin->option_count, settings,
                             setting_count, &values, err);
        free(values);
        if (rc == LATHE_OK)
            rc = trial_create(found->path, kind, name, settings, setting_count, err);
    }
    return rc == LATHE_OK ? instance_of_entry(&found->entry, settings, setting_count, instance, err) : rc;
}
