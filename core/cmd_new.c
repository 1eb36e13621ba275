/* SPDX-License-Identifier: MIT */
/* `lathe new scheduler mine`: the first minute of a newcomer's hour. A copy of the kind's
 * template, named, built at once into the folder where this lathe looks, and ready to be
 * swapped in by a word.
 *
 *     build tree:  SOURCE/plugins/KIND/NAME.c   →  BUILD/plugins/KIND/NAME.so
 *     installed:   ./NAME.c                     →  the installed plugin folder, or, where that
 *                                                  can't be written, ./plugins/KIND/NAME.so */
#include "command.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <glob.h>
#include <limits.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kinds.h"
#include "options.h"
#include "product.h"
#include "registry.h"
#include "text.h"
#include "trial.h"

extern char **environ;

static const char help[] =
    "usage: lathe new KIND NAME\n"
    "\n"
    "Copies the template of KIND (tokenizer, model, sampler, kvcache, scheduler, batching, bus, router,\n"
    "frontend), names it NAME (lower-case letters, digits and _), compiles it and tries it out. Says which\n"
    "file to edit, which command builds it again, and how to swap it in. Nothing that exists is overwritten.\n"
    "The compiler is $CC, or cc.\n";

enum { MAX_TEMPLATE_BYTES = 1 << 20, MAX_ARGUMENTS = 128 };

struct work {
    int kind;
    const char *name;
    const char *compiler;
    char templates[PATH_MAX];     /* the folder with a folder for each kind */
    char template_path[PATH_MAX]; /* of this one */
    char include[PATH_MAX];
    char source[PATH_MAX];  /* NAME.c */
    char library[PATH_MAX]; /* NAME.so */
    int outside;            /* the library is not where lathe looks by itself */
};

/* --- where ------------------------------------------------------------------------- */

static int fits(int n, struct lathe_error *err)
{
    return n > 0 && n < PATH_MAX ? LATHE_OK : lathe_fail(err, LATHE_EINVAL, "a path here is longer than %d bytes",
                                                         PATH_MAX);
}

static int find_template(struct work *work, struct lathe_error *err)
{
    const char *kind = kind_name(work->kind);
    int rc = product_path("templates", work->templates, sizeof work->templates, err);
    if (rc == LATHE_OK)
        rc = fits(snprintf(work->template_path, PATH_MAX, "%.4000s/%s/template.c", work->templates, kind), err);
    if (rc == LATHE_OK && access(work->template_path, R_OK) != 0)
        rc = lathe_fail(err, LATHE_ENOTFOUND, "there is no template for a %s: %.300s: %s", kind, work->template_path,
                        strerror(errno));
    return rc == LATHE_OK ? product_path("include", work->include, sizeof work->include, err) : rc;
}

static int make_folder(const char *path, struct lathe_error *err)
{
    if (mkdir(path, 0755) != 0 && errno != EEXIST)
        return lathe_fail(err, LATHE_EIO, "%.300s cannot be made: %s", path, strerror(errno));
    return LATHE_OK;
}

/* Where source and library go. */
static int choose_places(struct work *work, struct lathe_error *err)
{
    const char *kind = kind_name(work->kind);
    char folder[PATH_MAX], here[PATH_MAX];
    int rc;
    if (product_in_build_tree())
        rc = fits(snprintf(work->source, PATH_MAX, "%s/plugins/%s/%s.c", product_source_folder(), kind, work->name),
                  err);
    else
        rc = fits(snprintf(work->source, PATH_MAX, "%s.c", work->name), err);
    if (rc != LATHE_OK || (rc = product_path("plugins", folder, sizeof folder, err)) != LATHE_OK)
        return rc;
    if (access(folder, W_OK) != 0) {
        if (!getcwd(here, sizeof here))
            return lathe_fail(err, LATHE_EIO, "the current folder cannot be read: %s", strerror(errno));
        if ((rc = fits(snprintf(folder, sizeof folder, "%.4000s/plugins", here), err)) != LATHE_OK ||
            (rc = make_folder(folder, err)) != LATHE_OK)
            return rc;
        work->outside = 1;
    }
    if ((rc = fits(snprintf(here, sizeof here, "%.4000s/%s", folder, kind), err)) != LATHE_OK ||
        (rc = make_folder(here, err)) != LATHE_OK)
        return rc;
    return fits(snprintf(work->library, PATH_MAX, "%.4000s/%s.so", here, work->name), err);
}

/* --- the copy ------------------------------------------------------------------------ */

static int word_byte(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

/* Puts the name where "template" stands as a word of a string literal. Comments, which speak
 * of the template, stay. */
static void rename_words(struct text *out, const char *bytes, size_t count, const char *name)
{
    static const char word[] = "template";
    enum { WORD = sizeof word - 1 };
    enum { CODE, COMMENT, STRING, CHARACTER } state = CODE;
    for (size_t i = 0; i < count; i++) {
        char c = bytes[i], next = i + 1 < count ? bytes[i + 1] : '\0';
        if (state == STRING && count - i >= WORD && memcmp(bytes + i, word, WORD) == 0 && !word_byte(bytes[i - 1]) &&
            !word_byte(i + WORD < count ? bytes[i + WORD] : '\0')) {
            text_add(out, name, strlen(name));
            i += WORD - 1;
            continue;
        }
        text_add(out, &c, 1);
        if (state == CODE) {
            state = c == '"' ? STRING : c == '\'' ? CHARACTER : c == '/' && next == '*' ? COMMENT : CODE;
        } else if (state == COMMENT) {
            if (c == '*' && next == '/') {
                text_add(out, &next, 1);
                i++;
                state = CODE;
            }
        } else if (c == '\\') {
            text_add(out, &next, 1);
            i++;
        } else if ((state == STRING && c == '"') || (state == CHARACTER && c == '\'')) {
            state = CODE;
        }
    }
}

/* One file: `from` to `to`, which must not exist; words renamed if it is C. */
static int copy_file(const char *from, const char *to, const char *name, struct lathe_error *err)
{
    struct text copy = { 0 };
    FILE *file = fopen(from, "rb");
    char *bytes = malloc(MAX_TEMPLATE_BYTES);
    int rc = LATHE_OK, fd = -1;
    if (!file || !bytes) {
        rc = lathe_fail(err, LATHE_EIO, "%.300s cannot be read: %s", from, strerror(errno));
        goto done;
    }
    size_t count = fread(bytes, 1, MAX_TEMPLATE_BYTES, file);
    if (name)
        rename_words(&copy, bytes, count, name);
    else
        text_add(&copy, bytes, count);
    fd = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0)
        rc = lathe_fail(err, LATHE_EIO, "%.300s cannot be made: %s", to, strerror(errno));
    else if (copy.failed || write(fd, copy.bytes, copy.count) != (ssize_t)copy.count)
        rc = lathe_fail(err, LATHE_EIO, "%.300s cannot be written: %s", to, strerror(errno));
done:
    if (fd >= 0)
        close(fd);
    if (file)
        fclose(file);
    free(bytes);
    text_free(&copy);
    return rc;
}

/* The template, and in a source tree what its build needs beside it (template.cmake). */
static int copy_template(const struct work *work, struct lathe_error *err)
{
    char from[PATH_MAX + 8], to[PATH_MAX + 8];
    int rc = copy_file(work->template_path, work->source, work->name, err);
    snprintf(from, sizeof from, "%.*s.cmake", (int)strlen(work->template_path) - 2, work->template_path);
    snprintf(to, sizeof to, "%.*s.cmake", (int)strlen(work->source) - 2, work->source);
    if (rc != LATHE_OK || !product_in_build_tree() || access(from, R_OK) != 0)
        return rc;
    rc = copy_file(from, to, NULL, err);
    if (rc != LATHE_OK)
        unlink(work->source);
    return rc;
}

/* Nothing half-made stays in the way of the next try. */
static void remove_copies(const struct work *work)
{
    char list[PATH_MAX + 8];
    snprintf(list, sizeof list, "%.*s.cmake", (int)strlen(work->source) - 2, work->source);
    if (product_in_build_tree())
        unlink(list);
    unlink(work->source);
    unlink(work->library);
}

/* --- the compiler ---------------------------------------------------------------------- */

/* What is said to the compiler; the texts that were made are freed with the list. */
struct arguments {
    size_t count;
    char *words[MAX_ARGUMENTS + 1];
};

__attribute__((format(printf, 2, 3))) static void add_word(struct arguments *arguments, const char *format, ...)
{
    va_list args;
    char *word;
    va_start(args, format);
    if (arguments->count < MAX_ARGUMENTS && vasprintf(&word, format, args) >= 0)
        arguments->words[arguments->count++] = word;
    va_end(args);
}

/* Some templates use a library of plugins/lib: template.cmake links lathe_NAME. Its sources are
 * then compiled along; what of them the copy doesn't call is left out, and needn't find what it would call
 * itself (kernels, which are compiled with flags of their own). */
static void add_libraries(const struct work *work, struct arguments *arguments)
{
    char path[PATH_MAX + 64], line[512];
    snprintf(path, sizeof path, "%.*s.cmake", (int)strlen(work->template_path) - 2, work->template_path);
    FILE *file = fopen(path, "r");
    if (!file)
        return;
    add_word(arguments, "-I%s/lib", work->templates);
    while (fgets(line, sizeof line, file)) {
        static const char prefix[] = "lathe_";
        for (char *at = line; (at = strstr(at, prefix)) != NULL;) {
            glob_t found;
            at += strlen(prefix);
            int n = (int)strspn(at, "abcdefghijklmnopqrstuvwxyz0123456789_");
            snprintf(path, sizeof path, "%s/lib/%.*s/*.c", work->templates, n, at);
            if (glob(path, 0, NULL, &found) == 0)
                for (size_t i = 0; i < found.gl_pathc; i++)
                    add_word(arguments, "%s", found.gl_pathv[i]);
            globfree(&found);
        }
    }
    fclose(file);
}

static void make_arguments(const struct work *work, struct arguments *arguments)
{
    static const char *const flags[] = { "-std=gnu11", "-D_GNU_SOURCE", "-O2", "-g", "-Wall", "-Wextra", "-fPIC",
                                         "-fvisibility=hidden", "-shared", "-Wl,-z,defs",
                                         "-ffunction-sections", "-Wl,--gc-sections" };
    add_word(arguments, "%s", work->compiler);
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++)
        add_word(arguments, "%s", flags[i]);
    add_word(arguments, "-I%s", work->include);
    add_word(arguments, "-o");
    add_word(arguments, "%s", work->library);
    add_word(arguments, "%s", work->source);
    add_libraries(work, arguments);
    add_word(arguments, "-lm");
}

static void free_arguments(struct arguments *arguments)
{
    while (arguments->count > 0)
        free(arguments->words[--arguments->count]);
}

/* The compiler's own words go to stderr. */
static int compile(const struct work *work, struct lathe_error *err)
{
    struct arguments arguments = { 0 };
    pid_t child;
    int status = 0;
    make_arguments(work, &arguments);
    int rc = posix_spawnp(&child, work->compiler, NULL, NULL, arguments.words, environ);
    free_arguments(&arguments);
    if (rc != 0)
        return lathe_fail(err, LATHE_ENOTFOUND, "the compiler `%.100s` cannot be started (%s); install one "
                          "(apt-get install gcc) or name it in CC", work->compiler, strerror(rc));
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR)
            return lathe_fail(err, LATHE_EIO, "the compiler was lost: %s", strerror(errno));
    if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
        return lathe_fail(err, LATHE_ENOTFOUND, "the compiler `%.100s` is not there; install one (apt-get install gcc) "
                          "or name it in CC", work->compiler);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        return lathe_fail(err, LATHE_EINVAL, "the copy of %.300s does not compile; what the compiler said stands above",
                          work->template_path);
    return LATHE_OK;
}

static void say_what_next(const struct work *work)
{
    const char *kind = kind_name(work->kind);
    printf("%s/%s is built and ready.\n\n", kind, work->name);
    printf("  edit         %s\n", work->source);
    if (product_in_build_tree()) {
        printf("  build again  cmake --build %s -t plugin_%s_%s\n", product_build_folder(), kind, work->name);
    } else {
        struct arguments arguments = { 0 };
        make_arguments(work, &arguments);
        printf("  build again ");
        for (size_t i = 0; i < arguments.count; i++)
            printf(" %s", arguments.words[i]);
        printf("\n");
        free_arguments(&arguments);
    }
    if (work->outside) {
        char *slash = strstr(work->library, "/plugins/");
        printf("  be found     export LATHE_PLUGIN_PATH=%.*s/plugins\n", slash ? (int)(slash - work->library) : 0,
               work->library);
    }
    printf("  look at it   lathe plugins %s/%s\n", kind, work->name);
    printf("  swap it in   %s = \"%s\" in a script, or --set %s=%s on the command line\n", kind, work->name, kind,
           work->name);
}

/* --- all in order ------------------------------------------------------------------------ */

static int refuse_existing(const struct work *work, struct lathe_error *err)
{
    struct registry *registry;
    const struct registry_entry *entries;
    size_t count;
    struct stat s;
    if (lstat(work->source, &s) == 0)
        return lathe_fail(err, LATHE_EBUSY, "%.300s is there already; choose another name", work->source);
    if (lstat(work->library, &s) == 0)
        return lathe_fail(err, LATHE_EBUSY, "%.300s is there already; choose another name", work->library);
    int rc = registry_open(NULL, &registry, err);
    if (rc != LATHE_OK)
        return rc;
    rc = registry_list(registry, &entries, &count, err);
    for (size_t i = 0; rc == LATHE_OK && i < count; i++)
        if (entries[i].kind == work->kind && strcmp(entries[i].name, work->name) == 0)
            rc = lathe_fail(err, LATHE_EBUSY, "there is a %s `%s` already (%.300s); choose another name",
                            kind_name(work->kind), work->name, entries[i].path);
    registry_close(registry);
    return rc;
}

static int make(struct work *work, struct lathe_error *err)
{
    int rc = find_template(work, err);
    if (rc == LATHE_OK)
        rc = choose_places(work, err);
    if (rc == LATHE_OK)
        rc = refuse_existing(work, err);
    if (rc == LATHE_OK)
        rc = copy_template(work, err);
    if (rc != LATHE_OK)
        return rc;
    rc = compile(work, err);
    if (rc == LATHE_OK)
        rc = trial_load(work->library, work->kind, work->name, err);
    if (rc != LATHE_OK)
        remove_copies(work);
    return rc;
}

static int bad_kind(const char *word)
{
    const char *names[KIND_COUNT];
    for (int kind = 1; kind <= KIND_COUNT; kind++)
        names[kind - 1] = kind_name(kind);
    const char *near = nearest_name(word, names, KIND_COUNT);
    return command_usage("new", "there is no kind `%.60s`%s%s%s", word, near ? "; did you mean `" : "",
                         near ? near : "", near ? "`?" : "");
}

int cmd_new(int argc, char **argv)
{
    static const struct option options[] = { { "help", no_argument, NULL, 'h' }, { NULL, 0, NULL, 0 } };
    struct work work = { 0 };
    struct lathe_error err;
    opterr = 0;
    optind = 1;
    for (int c; (c = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
        if (c != 'h')
            return command_usage("new", "unknown option %s", argv[optind - 1]);
        fputs(help, stdout);
        return 0;
    }
    if (argc - optind != 2)
        return command_usage("new", "KIND and NAME are expected, such as `lathe new scheduler mine`");
    work.kind = kind_from_name(argv[optind]);
    work.name = argv[optind + 1];
    if (!work.kind)
        return bad_kind(argv[optind]);
    if (!plain_name(work.name) || (work.name[0] >= '0' && work.name[0] <= '9') || strcmp(work.name, "template") == 0)
        return command_usage("new", "\"%.80s\" is no name for a plugin: lower-case letters, digits and _ are, a letter "
                             "first, and not `template`", work.name);
    work.compiler = getenv("CC") && *getenv("CC") ? getenv("CC") : "cc";
    if (make(&work, &err) != LATHE_OK)
        return command_fail("new", 1, &err);
    say_what_next(&work);
    return 0;
}
