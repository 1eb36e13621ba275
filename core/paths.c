/* SPDX-License-Identifier: MIT */
#include "product.h"
#include "registry.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

const char *product_version(void)
{
    return LATHE_VERSION;
}

const char *product_build_type(void)
{
    return LATHE_BUILD_TYPE;
}

const char *product_source_folder(void)
{
    return LATHE_SOURCE_DIR;
}

const char *product_build_folder(void)
{
    return LATHE_BUILD_DIR;
}

/* The folder of the running program, symlinks resolved. 0 when the system won't say. */
static int program_folder(char folder[PATH_MAX])
{
    ssize_t n = readlink("/proc/self/exe", folder, PATH_MAX - 1);
    if (n <= 0)
        return 0;
    folder[n] = '\0';
    char *slash = strrchr(folder, '/');
    if (!slash)
        return 0;
    *slash = '\0';
    return 1;
}

static int inside(const char *path, const char *folder)
{
    size_t n = strlen(folder);
    return strncmp(path, folder, n) == 0 && (path[n] == '/' || path[n] == '\0');
}

int product_in_build_tree(void)
{
    char folder[PATH_MAX], build[PATH_MAX];
    return program_folder(folder) && realpath(LATHE_BUILD_DIR, build) && inside(folder, build);
}

static int is_folder(const char *path)
{
    struct stat s;
    return stat(path, &s) == 0 && S_ISDIR(s.st_mode);
}

static int is_file(const char *path)
{
    struct stat s;
    return stat(path, &s) == 0 && S_ISREG(s.st_mode);
}

/* folder + "/" + rest into path; 0 when it doesn't fit or isn't there. */
static int try_folder(char *path, size_t capacity, const char *folder, const char *rest)
{
    int n = snprintf(path, capacity, "%s/%s", folder, rest);
    return n > 0 && (size_t)n < capacity && is_folder(path);
}

static int find_in_tree(const char *what, char *path, size_t capacity)
{
    if (strcmp(what, "plugins") == 0)
        return try_folder(path, capacity, LATHE_BUILD_DIR, "plugins");
    if (strcmp(what, "templates") == 0)
        return try_folder(path, capacity, LATHE_SOURCE_DIR, "plugins");
    if (strcmp(what, "include") == 0)
        return try_folder(path, capacity, LATHE_SOURCE_DIR, "core/include");
    return try_folder(path, capacity, LATHE_SOURCE_DIR, what);
}

static int find_installed(const char *what, char *path, size_t capacity, const char *folder)
{
    char rest[PATH_MAX];
    if (strcmp(what, "plugins") == 0) {
        if (try_folder(path, capacity, folder, "../" LATHE_LIBDIR "/lathe/plugins"))
            return 1;
        return try_folder(path, capacity, folder, "plugins"); /* a build tree that was moved */
    }
    if (strcmp(what, "templates") == 0)
        what = "plugins";
    if (strcmp(what, "include") == 0)
        return try_folder(path, capacity, folder, "../include");
    if (strcmp(what, "scripts") == 0)
        return try_folder(path, capacity, folder, "../" LATHE_DATADIR "/lathe");
    snprintf(rest, sizeof rest, "../" LATHE_DATADIR "/lathe/%.200s", what);
    return try_folder(path, capacity, folder, rest);
}

int product_path(const char *what, char *path, size_t capacity, struct lathe_error *err)
{
    char folder[PATH_MAX], found[PATH_MAX + 256], resolved[PATH_MAX];
    if (!program_folder(folder))
        return lathe_fail(err, LATHE_EIO, "/proc/self/exe cannot be read, so the folder `%s` cannot be found", what);
    int there = product_in_build_tree() ? find_in_tree(what, found, sizeof found)
                                        : find_installed(what, found, sizeof found, folder);
    if (!there || !realpath(found, resolved))
        return lathe_fail(err, LATHE_ENOTFOUND, "the folder `%s` is not there, neither in a build tree nor installed "
                          "beside %.300s; build or install again", what, folder);
    if (strlen(resolved) >= capacity)
        return lathe_fail(err, LATHE_EFULL, "the path of folder `%s` has %zu bytes, beyond %zu", what,
                          strlen(resolved), capacity);
    memcpy(path, resolved, strlen(resolved) + 1);
    return LATHE_OK;
}

int product_executable(char *path, size_t capacity, struct lathe_error *err)
{
    char folder[PATH_MAX], found[PATH_MAX + 16];
    if (program_folder(folder)) {
        snprintf(found, sizeof found, "%s/lathe", folder);
        if (!is_file(found) && product_in_build_tree())
            snprintf(found, sizeof found, "%s/lathe", LATHE_BUILD_DIR);
        if (is_file(found) && strlen(found) < capacity) {
            memcpy(path, found, strlen(found) + 1);
            return LATHE_OK;
        }
    }
    return lathe_fail(err, LATHE_ENOTFOUND, "the lathe executable is not beside the running program");
}

/* --- models -------------------------------------------------------------------- */

enum { MODEL_NAMES_MAX = 64, MODEL_NAME_BYTES = 64 };

/* Short names seen on the way, for the sentence when none fits. */
struct seen_models {
    size_t count;
    char names[MODEL_NAMES_MAX][MODEL_NAME_BYTES];
};

static void see_models(const char *folder, struct seen_models *seen)
{
    DIR *dir = opendir(folder);
    if (!dir)
        return;
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        size_t n = strlen(entry->d_name);
        if (n > 5 && n - 5 < MODEL_NAME_BYTES && strcmp(entry->d_name + n - 5, ".gguf") == 0 &&
            seen->count < MODEL_NAMES_MAX) {
            memcpy(seen->names[seen->count], entry->d_name, n - 5);
            seen->names[seen->count++][n - 5] = '\0';
        }
    }
    closedir(dir);
}

static int model_in_folder(const char *folder, const char *name, char *path, size_t capacity)
{
    static const char *const endings[] = { "", ".gguf" };
    for (int i = 0; i < 2; i++) {
        int n = snprintf(path, capacity, "%s/%s%s", folder, name, endings[i]);
        if (n > 0 && (size_t)n < capacity && is_file(path))
            return 1;
    }
    return 0;
}

/* Looks in each folder in turn; 1 when found. */
static int search_models(const char *name, char *path, size_t capacity, struct seen_models *seen)
{
    const char *list = getenv("LATHE_MODELS");
    while (list && *list) {
        char folder[PATH_MAX];
        int n = (int)strcspn(list, ":");
        if (n > 0 && n < PATH_MAX) {
            snprintf(folder, sizeof folder, "%.*s", n, list);
            if (model_in_folder(folder, name, path, capacity))
                return 1;
            see_models(folder, seen);
        }
        list += list[n] == ':' ? n + 1 : n;
    }
    char product[PATH_MAX];
    if (product_path("models", product, sizeof product, NULL) == LATHE_OK) {
        if (model_in_folder(product, name, path, capacity))
            return 1;
        see_models(product, seen);
    }
    if (model_in_folder("./models", name, path, capacity))
        return 1;
    see_models("./models", seen);
    return 0;
}

int model_path_resolve(const char *name, char *path, size_t capacity, struct lathe_error *err)
{
    struct seen_models seen = { 0 };
    size_t n = strlen(name);
    if (n == 0)
        return lathe_fail(err, LATHE_EINVAL, "the model's name is empty: give a path, or a short name such as "
                          "smollm2-135m");
    if (n >= capacity)
        return lathe_fail(err, LATHE_EINVAL, "the model's path has %zu bytes, expected less than %zu", n, capacity);
    int has_slash = strchr(name, '/') != NULL;
    if (access(name, F_OK) == 0 && (has_slash || !is_folder(name))) {
        memcpy(path, name, n + 1);
        return LATHE_OK;
    }
    if (has_slash)
        return lathe_fail(err, LATHE_ENOTFOUND, "no model at %.300s: %s", name, strerror(errno));
    if (search_models(name, path, capacity, &seen))
        return LATHE_OK;
    const char *names[MODEL_NAMES_MAX];
    for (size_t i = 0; i < seen.count; i++)
        names[i] = seen.names[i];
    const char *near = nearest_name(name, names, seen.count);
    return lathe_fail(err, LATHE_ENOTFOUND, "no model `%.100s` in LATHE_MODELS, the product's models folder or "
                      "./models%s%s%s; scripts/quickstart.sh fetches smollm2-135m", name,
                      near ? "; did you mean `" : "", near ? near : "", near ? "`?" : "");
}
