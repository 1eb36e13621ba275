/* SPDX-License-Identifier: MIT */
/* lathe cite: what to cite for a figure that came out of these runs, as BibTeX.
 *
 * A plugin carries the paper of its method (struct lathe_plugin's citation); models and data that
 * are known by name or SHA-256 stand in a table here. Each entry comes once, by its key, under a
 * comment that says what used it; BibTeX ignores what stands outside entries. */
#include "command.h"

#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "product.h"
#include "recorder_schema.h"
#include "registry.h"
#include "results.h"
#include "text.h"

static const char usage[] =
    "usage: lathe cite DB [RUN …]\n"
    "\n"
    "Writes BibTeX of what the runs of DB used (all of them, or those named): the papers of the\n"
    "plugins' methods, model, data, and Lathe itself. Each entry once, under a comment that says\n"
    "which stage used it. What has no citation, or isn't known, is listed in comments too.\n"
    "\n"
    "  -h, --help\n"
    "\n"
    "  lathe cite results/x.db > used.bib\n";

/* Models and data that are no plugins: recognised by the file's SHA-256, or by a part of its name. */
static const struct known {
    const char *kind, *sha256, *part, *citation; /* the part in lower case */
} known[] = {
#define SPLITWISE                                                                                                        \
    "@inproceedings{patel2024splitwise,\n"                                                                               \
    "  title = {Splitwise: Efficient Generative {LLM} Inference Using Phase Splitting},\n"                               \
    "  author = {Patel, Pratyush and Choukse, Esha and Zhang, Chaojie and Shah, Aashaka and Goiri, {\\'I}{\\~n}igo and " \
    "Maleki, Saeed and Bianchini, Ricardo},\n"                                                                           \
    "  booktitle = {Proceedings of the International Symposium on Computer Architecture (ISCA)},\n"                      \
    "  year = {2024},\n"                                                                                                 \
    "  note = {Describes the Azure LLM inference trace 2023 (CC-BY)}\n"                                                  \
    "}"
    { "trace", "439e4138b7e384f316de614c071f7162be05b8af0cef866f82faacd1b0472249", "azure_llm_2023_conv", SPLITWISE },
    { "trace", "f266b907d109d471c61283ab69771c17ad79a18b33ff6e96aa546346f52767a6", "azure_llm_2023_code", SPLITWISE },
    { "trace", NULL, "azurellminferencetrace_conv.csv", SPLITWISE }, /* as it was published */
    { "trace", NULL, "azurellminferencetrace_code.csv", SPLITWISE },
    { "trace", NULL, "splitwise_conv", SPLITWISE }, /* as Vidur's repository has it */
    { "trace", NULL, "splitwise_code", SPLITWISE },
    { "model", "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53", "smollm2",
      "@misc{allal2025smollm2,\n"
      "  title = {{SmolLM2}: When Smol Goes Big -- Data-Centric Training of a Small Language Model},\n"
      "  author = {Ben Allal, Loubna and Lozhkov, Anton and Bakouch, Elie and others},\n"
      "  year = {2025},\n"
      "  eprint = {2502.02737},\n"
      "  archivePrefix = {arXiv}\n"
      "}" },
};

struct entry {
    char key[96];
    struct text bibtex, users; /* "scheduler/sjf, batching/continuous" */
};

struct bibliography {
    struct entry *entries;
    size_t count;
    struct text silent; /* what has no citation */
    struct text absent; /* what isn't here to ask */
    bool failed;
};

static void add_user(struct text *users, const char *user)
{
    text_print(users, "%s%s", users->count ? ", " : "", user);
}

/* One entry, from its @ on; a key that is there already only gets another user. */
static void add_entry(struct bibliography *b, const char *bibtex, size_t bytes, const char *user)
{
    char key[96] = "";
    const char *brace = memchr(bibtex, '{', bytes);
    const char *end = brace ? memchr(brace, ',', bytes - (size_t)(brace - bibtex)) : NULL;
    if (end)
        snprintf(key, sizeof key, "%.*s", (int)(end - brace - 1), brace + 1);
    for (size_t i = 0; i < b->count; i++)
        if (strcmp(b->entries[i].key, key) == 0) {
            add_user(&b->entries[i].users, user);
            return;
        }
    struct entry *more = realloc(b->entries, (b->count + 1) * sizeof *more);
    b->failed |= !more;
    if (!more)
        return;
    b->entries = more;
    struct entry *entry = &more[b->count++];
    memset(entry, 0, sizeof *entry);
    snprintf(entry->key, sizeof entry->key, "%s", key);
    text_add(&entry->bibtex, bibtex, bytes);
    add_user(&entry->users, user);
}

/* A citation may be several entries: each goes from an @ to the brace that closes it. */
static void add_citation(struct bibliography *b, const char *citation, const char *user)
{
    for (const char *at = strchr(citation, '@'); at;) {
        int depth = 0;
        const char *end = at;
        while (*end && !(*end == '}' && depth == 1)) {
            depth += *end == '{' ? 1 : *end == '}' ? -1 : 0;
            end++;
        }
        add_entry(b, at, (size_t)(end - at) + (*end == '}'), user);
        at = *end ? strchr(end, '@') : NULL;
    }
}

/* ---- what the runs used --------------------------------------------------------------- */

static void cite_plugin(struct bibliography *b, struct registry *registry, const char *kind, const char *name)
{
    const struct registry_entry *found;
    struct lathe_error ignored;
    char user[160];
    snprintf(user, sizeof user, "%.60s/%.90s", kind, name);
    int number = kind_from_name(kind);
    if (!number || registry_find(registry, number, name, &found, &ignored) || !found->plugin)
        add_user(&b->absent, user);
    else if (found->plugin->citation)
        add_citation(b, found->plugin->citation, user);
    else
        add_user(&b->silent, user);
}

static bool holds(const char *text, const char *part)
{
    for (size_t bytes = strlen(part); text && *text; text++)
        if (strncasecmp(text, part, bytes) == 0)
            return true;
    return false;
}

static void cite_artifact(struct bibliography *b, const char *kind, const char *name, const char *uri, const char *sha256)
{
    char user[160];
    snprintf(user, sizeof user, "%.60s %.90s", kind, name);
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        const struct known *k = &known[i];
        bool same = k->sha256 && sha256 && strcmp(k->sha256, sha256) == 0;
        if (strcmp(k->kind, kind) == 0 && (same || holds(name, k->part) || holds(uri, k->part))) {
            add_citation(b, k->citation, user);
            return;
        }
    }
    if (strcmp(kind, "script") != 0)
        add_user(&b->silent, user);
}

static void cite_lathe(struct bibliography *b, const char *commits)
{
    struct text entry = { 0 };
    text_print(&entry, "@software{lathe,\n  title = {Lathe: a workbench for {LLM} inference},\n  version = {%s}", product_version());
    if (commits && *commits)
        text_print(&entry, ",\n  note = {Commit %s}", commits);
    text_print(&entry, "\n}");
    b->failed |= entry.failed;
    if (!entry.failed)
        add_citation(b, entry.bytes, "Lathe itself");
    text_free(&entry);
}

/* ?1: a JSON array of runs, or NULL for all. */
#define OF_THESE_RUNS "(?1 IS NULL OR run_id IN (SELECT value FROM json_each(?1)))"

static int prepare(sqlite3 *db, const char *path, const char *sql, const char *runs, sqlite3_stmt **statement, struct lathe_error *err)
{
    if (sqlite3_prepare_v2(db, sql, -1, statement, NULL) != SQLITE_OK ||
        sqlite3_bind_text(*statement, 1, runs, -1, SQLITE_STATIC) != SQLITE_OK)
        return schema_fail(db, path, "reading what its runs used", err);
    return LATHE_OK;
}

static int ended(sqlite3 *db, const char *path, sqlite3_stmt *statement, int code, struct lathe_error *err)
{
    int status = code == SQLITE_DONE ? LATHE_OK : schema_fail(db, path, "reading what its runs used", err);
    sqlite3_finalize(statement);
    return status;
}

static const char *column(sqlite3_stmt *statement, int i)
{
    return (const char *)sqlite3_column_text(statement, i);
}

static int collect(sqlite3 *db, const char *path, const char *runs, struct registry *registry, struct bibliography *b,
                   struct lathe_error *err)
{
    sqlite3_stmt *s = NULL;
    struct text commits = { 0 };
    int code, status = prepare(db, path, "SELECT DISTINCT kind, name FROM plugin WHERE " OF_THESE_RUNS " ORDER BY kind, name", runs, &s, err);
    if (status)
        return status;
    while ((code = sqlite3_step(s)) == SQLITE_ROW)
        cite_plugin(b, registry, column(s, 0), column(s, 1));
    if ((status = ended(db, path, s, code, err)) ||
        (status = prepare(db, path, "SELECT DISTINCT kind, name, uri, sha256 FROM artifact WHERE " OF_THESE_RUNS " ORDER BY kind, name",
                          runs, &s, err)))
        return status;
    while ((code = sqlite3_step(s)) == SQLITE_ROW)
        cite_artifact(b, column(s, 0), column(s, 1), column(s, 2), column(s, 3));
    if ((status = ended(db, path, s, code, err)) ||
        (status = prepare(db, path, "SELECT DISTINCT substr(commit_id, 1, 12) FROM (SELECT id AS run_id, commit_id FROM run) WHERE "
                                    OF_THESE_RUNS " AND commit_id IS NOT NULL ORDER BY 1", runs, &s, err)))
        return status;
    while ((code = sqlite3_step(s)) == SQLITE_ROW)
        add_user(&commits, column(s, 0));
    status = ended(db, path, s, code, err);
    cite_lathe(b, commits.bytes);
    text_free(&commits);
    return status;
}

/* The JSON array of the runs that were named, each of which must be there. NULL text: all. */
static int name_runs(sqlite3 *db, const char *path, char **words, int count, struct text *runs, struct lathe_error *err)
{
    for (int i = 0; i < count; i++) {
        char *end;
        sqlite3_stmt *s = NULL;
        long long id = strtoll(words[i], &end, 10);
        if (*end || end == words[i])
            return lathe_fail(err, LATHE_EINVAL, "\"%.60s\" is no run's number (select id from run)", words[i]);
        int code = sqlite3_prepare_v2(db, "SELECT 1 FROM run WHERE id = ?1", -1, &s, NULL);
        if (code == SQLITE_OK) {
            sqlite3_bind_int64(s, 1, id);
            code = sqlite3_step(s);
        }
        sqlite3_finalize(s);
        if (code != SQLITE_ROW)
            return code == SQLITE_DONE ? lathe_fail(err, LATHE_ENOTFOUND, "%s has no run %lld", path, id)
                                       : schema_fail(db, path, "reading its runs", err);
        text_print(runs, "%s%lld", i ? "," : "[", id);
    }
    if (count)
        text_add(runs, "]", 1);
    return runs->failed ? lathe_fail(err, LATHE_ENOMEM, "no memory for %d runs", count) : LATHE_OK;
}

static void print_all(const struct bibliography *b)
{
    for (size_t i = 0; i < b->count; i++)
        printf("%s%% %s\n%s\n", i ? "\n" : "", b->entries[i].users.bytes, b->entries[i].bibtex.bytes);
    if (b->silent.count)
        printf("\n%% Without a citation of their own: %s\n", b->silent.bytes);
    if (b->absent.count)
        printf("\n%% Not among the plugins here, so that nobody could ask them: %s\n", b->absent.bytes);
}

static int cite(const char *path, char **words, int count, struct lathe_error *err)
{
    struct bibliography b = { 0 };
    struct registry *registry = NULL;
    struct text runs = { 0 };
    sqlite3 *db;
    int status = results_open(path, &db, err);
    if (status)
        return status;
    if (!(status = name_runs(db, path, words, count, &runs, err)) && !(status = registry_open(NULL, &registry, err)))
        status = collect(db, path, runs.bytes, registry, &b, err);
    if (!status && (b.failed || b.silent.failed || b.absent.failed))
        status = lathe_fail(err, LATHE_ENOMEM, "no memory for the bibliography");
    if (!status)
        print_all(&b);
    for (size_t i = 0; i < b.count; i++) {
        text_free(&b.entries[i].bibtex);
        text_free(&b.entries[i].users);
    }
    free(b.entries);
    text_free(&b.silent);
    text_free(&b.absent);
    text_free(&runs);
    if (registry)
        registry_close(registry);
    sqlite3_close(db);
    return status;
}

int cmd_cite(int argc, char **argv)
{
    static const struct option options[] = { { "help", no_argument, NULL, 'h' }, { NULL, 0, NULL, 0 } };
    struct lathe_error err = { 0 };
    int option;
    optind = 1;
    opterr = 0;
    while ((option = getopt_long(argc, argv, "h", options, NULL)) != -1) {
        if (option != 'h')
            return command_usage("cite", "there is no option %.60s", argv[optind - 1]);
        fputs(usage, stdout);
        return 0;
    }
    if (optind == argc)
        return command_usage("cite", "no database: name one, such as results/x.db");
    const char *path = argv[optind++];
    return cite(path, argv + optind, argc - optind, &err) ? command_fail("cite", 1, &err) : 0;
}
