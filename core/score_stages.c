/* SPDX-License-Identifier: MIT */
/* What `lathe logits` and `lathe eval` share of a command line: stages, ids, files. */
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "command.h"
#include "score.h"
#include "service.h"

/* Without -m: models that need no file, such as the small one for tests, and bytes as tokens. */
#define DEFAULT_MODEL "llama"
#define DEFAULT_TOKENIZER "bpe"
#define DEFAULT_TOKENIZER_WITHOUT_FILE "byte"

enum { MOST_SETTINGS = 32 };

int score_stages_set(struct score_stages *stages, const char *text, struct lathe_error *err)
{
    const char *equals = strchr(text, '=');
    size_t n = equals ? (size_t)(equals - text) : 0;
    char **set = NULL;
    if (n == strlen("model") && strncmp(text, "model", n) == 0)
        set = &stages->model_set;
    else if (n == strlen("tokenizer") && strncmp(text, "tokenizer", n) == 0)
        set = &stages->tokenizer_set;
    else
        return lathe_fail(err, LATHE_EINVAL, "--set \"%s\": model=NAME:option=value,… or tokenizer=NAME:… is expected here",
                          text);
    free(*set);
    *set = strdup(equals + 1);
    return *set ? 0 : lathe_fail(err, LATHE_ENOMEM, "no memory for --set");
}

/* `set` is "name:option=value,…", "" or NULL; path goes with it unless `set` names one. */
static int open_stage(struct score_stages *stages, int kind, char *set, const char *otherwise, const char *path,
                      struct instance **instance, struct lathe_error *err)
{
    struct option_setting settings[MOST_SETTINGS + 1];
    size_t count = 0;
    char *name = NULL;
    int status;
    if (set && (status = settings_parse(set, &name, settings, MOST_SETTINGS, &count, err)))
        return status;
    for (size_t i = 0; path && i < count; i++)
        if (strcmp(settings[i].name, "path") == 0)
            path = NULL;
    if (path)
        settings[count++] = (struct option_setting){ "path", path };
    return instance_create(stages->registry, kind, name && *name ? name : otherwise, settings, count, instance, err);
}

int score_stages_open(struct score_stages *stages, int want_tokenizer, struct lathe_error *err)
{
    static char path[PATH_MAX];
    const char *file = NULL;
    int status;
    if (!stages->model_path && !stages->model_set)
        return lathe_fail(err, LATHE_EINVAL, "no model: name one with -m (a GGUF file, or a short name such as smollm2-135m)");
    if (stages->model_path) {
        if ((status = model_path_resolve(stages->model_path, path, sizeof path, err)))
            return status;
        file = path;
    }
    if ((status = registry_open(NULL, &stages->registry, err)) ||
        (status = open_stage(stages, LATHE_KIND_MODEL, stages->model_set, DEFAULT_MODEL, file, &stages->model, err)) ||
        (status = model_describe(stages->model, &stages->info, err)))
        return status;
    if (want_tokenizer) {
        struct lathe_error ignored;
        status = open_stage(stages, LATHE_KIND_TOKENIZER, stages->tokenizer_set,
                            file ? DEFAULT_TOKENIZER : DEFAULT_TOKENIZER_WITHOUT_FILE, file, &stages->tokenizer,
                            want_tokenizer == 2 || stages->tokenizer_set ? err : &ignored);
        if (status && (want_tokenizer == 2 || stages->tokenizer_set))
            return status;
    }
    return 0;
}

void score_stages_close(struct score_stages *stages)
{
    instance_destroy(stages->tokenizer);
    instance_destroy(stages->model);
    if (stages->registry)
        registry_close(stages->registry);
    free(stages->model_set);
    free(stages->tokenizer_set);
    memset(stages, 0, sizeof *stages);
}

int score_read_file(const char *path, char **text, size_t *bytes, struct lathe_error *err)
{
    FILE *file = strcmp(path, "-") == 0 ? stdin : fopen(path, "rb");
    size_t capacity = 1 << 16, n = 0, got;
    char *buffer = NULL, *grown;
    int failed;
    if (!file)
        return lathe_fail(err, LATHE_EIO, "%s: %s", path, strerror(errno));
    do { /* doubled until a read falls short */
        capacity *= 2;
        grown = realloc(buffer, capacity);
        if (!grown)
            break;
        buffer = grown;
        got = fread(buffer + n, 1, capacity - 1 - n, file);
        n += got;
    } while (n == capacity - 1);
    failed = ferror(file) ? errno : 0;
    if (file != stdin)
        fclose(file);
    if (!grown || failed) {
        free(buffer);
        return failed ? lathe_fail(err, LATHE_EIO, "%s: %s", path, strerror(failed))
                      : lathe_fail(err, LATHE_ENOMEM, "%s: no memory for %zu bytes", path, capacity);
    }
    buffer[n] = 0;
    *text = buffer;
    *bytes = n;
    return 0;
}

int score_unknown_option(const char *verb, const char *word, const struct option *options)
{
    const char *names[32];
    size_t count = 0;
    while (options[count].name && count < sizeof names / sizeof *names) {
        names[count] = options[count].name;
        count++;
    }
    const char *near = nearest_name(word + strspn(word, "-"), names, count);
    return near ? command_usage(verb, "unknown option %s; did you mean --%s?", word, near)
                : command_usage(verb, "unknown option %s", word);
}

int score_check_ids(const struct score_stages *stages, const int32_t *ids, size_t count, struct lathe_error *err)
{
    for (size_t i = 0; i < count; i++)
        if (ids[i] < 0 || (uint32_t)ids[i] >= stages->info.vocab_tokens)
            return lathe_fail(err, LATHE_ERANGE, "token %d, number %zu of the prompt, is outside the vocabulary of %u", ids[i],
                              i + 1, stages->info.vocab_tokens);
    return 0;
}

int score_parse_ids(const char *text, int32_t **ids, size_t *count, struct lathe_error *err)
{
    char *input = NULL;
    size_t bytes, n = 0;
    int status = 0;
    if (strcmp(text, "-") == 0) {
        if ((status = score_read_file("-", &input, &bytes, err)))
            return status;
        text = input;
    }
    size_t room = strlen(text) / 2 + 1;
    int32_t *list = malloc(room * sizeof *list);
    const char *at = text + strspn(text, " \t\r\n"), *spaces = " \t\r\n,";
    int bracket = *at == '[';
    at += bracket;
    at += strspn(at, spaces);
    while (list && *at && *at != ']') {
        char *end;
        errno = 0;
        long value = strtol(at, &end, 10);
        if (end == at || errno || value < 0 || value > INT32_MAX || n == room || (*end && !strchr(" \t\r\n,]", *end))) {
            status = lathe_fail(err, LATHE_EINVAL, "--ids: \"%.20s\" is not a token id; a list such as 1,2,3 or [1, 2, 3] is "
                                "expected", at);
            break;
        }
        list[n++] = (int32_t)value;
        at = end + strspn(end, spaces);
    }
    if (!list)
        status = lathe_fail(err, LATHE_ENOMEM, "no memory for %zu ids", room);
    else if (!status && (bracket ? *at != ']' || at[1 + strspn(at + 1, spaces)] : *at != 0))
        status = lathe_fail(err, LATHE_EINVAL, "--ids: the list does not end where it should, near \"%.20s\"", at);
    else if (!status && n == 0)
        status = lathe_fail(err, LATHE_EINVAL, "--ids: the list is empty");
    free(input);
    if (status) {
        free(list);
        return status;
    }
    *ids = list;
    *count = n;
    return 0;
}
