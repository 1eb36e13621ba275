/* SPDX-License-Identifier: MIT */
/* What there is to ask in a database: views and tables with what they say of themselves. A view's
 * comment stands in its SQL, which SQLite keeps; a table's stands before it, where SQLite
 * doesn't, so it comes from the schema that this lathe makes tables with. */
#include "sql.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "recorder_schema.h"
#include "registry.h"

/* Of an ordinary database's objects, and the extension's tables, which are in every database. */
#define RELATIONS                                                                                   \
    "SELECT name, type, sql FROM sqlite_schema WHERE type IN ('table', 'view') AND name NOT GLOB 'sqlite_*' " \
    "UNION ALL SELECT name, 'table', NULL FROM pragma_module_list WHERE name IN "                      \
    "('attention', 'attention_weights', 'layer_norms', 'head_norms', 'layer_lens', 'layer_hidden')"

enum { GAP = 2, LEAST_COMMENT = 20, USUAL_NAME = 38 }; /* a longer name moves its own comment alone */

/* ---- comments ---- */

struct span {
    const char *bytes;
    size_t count;
};

/* The text of the line comment at s, which points at "--". */
static struct span comment_at(const char *s)
{
    s += 2;
    s += strspn(s, " \t");
    return (struct span){ s, strcspn(s, "\r\n") };
}

/* The first line comment in an SQL text that isn't inside quotes. */
static struct span first_comment(const char *sql)
{
    char quote = 0;
    for (const char *s = sql; s && *s; s++) {
        if (quote)
            quote = *s == quote ? 0 : quote;
        else if (*s == '\'' || *s == '"' || *s == '`')
            quote = *s;
        else if (s[0] == '-' && s[1] == '-')
            return comment_at(s);
    }
    return (struct span){ "", 0 };
}

/* The first of the comment lines right before "CREATE TABLE name (" in one of our schema's files. */
static struct span table_comment(const char *name)
{
    char create[128];
    snprintf(create, sizeof create, "\nCREATE TABLE %.90s (", name);
    for (int i = 0; i < schema_file_count; i++) {
        const char *sql = schema_files[i].sql, *found = strstr(sql, create), *first = NULL;
        while (found && found > sql) {
            const char *line = found; /* found points at the newline after a line; go to its beginning */
            while (line > sql && line[-1] != '\n')
                line--;
            if (line[0] != '-' || line[1] != '-')
                break;
            first = line;
            found = line > sql ? line - 1 : sql;
        }
        if (first)
            return comment_at(first);
    }
    return (struct span){ "", 0 };
}

/* ---- lists ---- */

/* In lines of at most `columns`, each but the first indented; words stay whole where they fit. */
static void print_wrapped(FILE *out, struct span text, int indent, int columns)
{
    int used = 0, room = columns - indent;
    for (size_t i = 0; i < text.count;) {
        size_t n = 0;
        while (i + n < text.count && text.bytes[i + n] != ' ')
            n++;
        int width = sql_print_text(NULL, text.bytes + i, n, 0);
        if (used && used + 1 + width > room) {
            fprintf(out, "\n%*s", indent, "");
            used = 0;
        } else if (used) {
            fputc(' ', out);
            used++;
        }
        sql_print_text(out, text.bytes + i, n, 0);
        used += width;
        for (i += n; i < text.count && text.bytes[i] == ' ';)
            i++;
    }
}

static bool made_by_lathe(sqlite3 *db)
{
    sqlite3_stmt *statement;
    bool ours = sqlite3_prepare_v2(db, "PRAGMA application_id", -1, &statement, NULL) == SQLITE_OK &&
                sqlite3_step(statement) == SQLITE_ROW && sqlite3_column_int64(statement, 0) == SCHEMA_APPLICATION_ID;
    sqlite3_finalize(statement);
    return ours;
}

static struct span extension_comment(const char *name)
{
    static const char *const said[][2] = {
        { "attention", "Of the extension: what attention_token has packed, a row a head." },
        { "attention_weights", "Of the extension: the same, a row a key; measure is weight, score or value." },
        { "layer_norms", "Of the extension: norms that layer_token has packed, a row a layer." },
        { "head_norms", "Of the extension: norms of what each head adds, a row a head." },
        { "layer_lens", "Of the extension: what each layer would say, a row a token, rank 1 the likeliest." },
        { "layer_hidden", "Of the extension: the residual stream after a layer, a row a dimension." },
    };
    for (size_t i = 0; name && i < sizeof said / sizeof *said; i++)
        if (strcmp(name, said[i][0]) == 0)
            return (struct span){ said[i][1], strlen(said[i][1]) };
    return (struct span){ "", 0 };
}

static struct span comment_of(sqlite3_stmt *relation, bool ours)
{
    const char *name = (const char *)sqlite3_column_text(relation, 0);
    const char *sql = (const char *)sqlite3_column_text(relation, 1);
    if (!sql)
        return extension_comment(name);
    if (ours && sqlite3_strnicmp(sql, "create table", 12) == 0) {
        struct span known = table_comment(name ? name : "");
        if (known.count > 0)
            return known;
    }
    return first_comment(sql);
}

int sql_list(sqlite3 *db, FILE *out, enum sql_relation relation, int columns, bool whole)
{
    static const char query[] = "SELECT name, sql, max(length(name)) FILTER (WHERE length(name) <= ?2) OVER () FROM (" RELATIONS ") WHERE type = ?1 ORDER BY sql IS NULL, name";
    sqlite3_stmt *statement;
    int count = 0;
    bool ours = made_by_lathe(db);
    if (sqlite3_prepare_v2(db, query, -1, &statement, NULL) != SQLITE_OK)
        return 0;
    sqlite3_bind_text(statement, 1, relation == SQL_VIEWS ? "view" : "table", -1, SQLITE_STATIC);
    sqlite3_bind_int(statement, 2, USUAL_NAME);
    for (; sqlite3_step(statement) == SQLITE_ROW; count++) {
        const char *name = (const char *)sqlite3_column_text(statement, 0);
        int widest = sqlite3_column_int(statement, 2) + GAP;
        struct span comment = comment_of(statement, ours);
        int width = sql_print_text(out, name ? name : "", (size_t)sqlite3_column_bytes(statement, 0), 0);
        if (comment.count > 0) {
            int from = widest > width ? widest : width + 1, room = columns - 1 - from;
            fprintf(out, "%*s", from - width, "");
            if (columns == 0 || room < LEAST_COMMENT)
                sql_print_text(out, comment.bytes, comment.count, 0);
            else if (whole)
                print_wrapped(out, comment, from, columns - 1);
            else
                sql_print_text(out, comment.bytes, comment.count, room);
        }
        fputc('\n', out);
    }
    sqlite3_finalize(statement);
    return count;
}

/* ---- one object ---- */

static void free_words(char **words)
{
    for (size_t i = 0; words && words[i]; i++)
        free(words[i]);
    free(words);
}

static int no_such_relation(sqlite3 *db, const char *name, struct lathe_error *err)
{
    char **words = sql_words(db, "", SQL_WORD_RELATIONS);
    size_t count = 0;
    while (words && words[count])
        count++;
    const char *nearest = words ? nearest_name(name, (const char *const *)words, count) : NULL;
    int status = nearest ? lathe_fail(err, LATHE_ENOTFOUND, "there is no table or view %.80s; perhaps %s", name, nearest)
                         : lathe_fail(err, LATHE_ENOTFOUND, "there is no table or view %.80s; .tables and .views list them", name);
    free_words(words);
    return status;
}

/* The extension's tables have no SQL in the database; their columns are told. */
static int print_columns(sqlite3 *db, FILE *out, const char *name)
{
    sqlite3_stmt *statement;
    int count = 0;
    if (sqlite3_prepare_v2(db, "SELECT name FROM pragma_table_xinfo(?1)", -1, &statement, NULL) != SQLITE_OK)
        return 0;
    sqlite3_bind_text(statement, 1, name, -1, SQLITE_STATIC);
    for (; sqlite3_step(statement) == SQLITE_ROW; count++)
        fprintf(out, "%s%s%s", count ? ", " : name, count ? "" : " (of the extension) has the columns ",
                (const char *)sqlite3_column_text(statement, 0));
    if (count)
        fputc('\n', out);
    sqlite3_finalize(statement);
    return count;
}

int sql_schema(sqlite3 *db, FILE *out, const char *name, struct lathe_error *err)
{
    static const char query[] = "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL AND "
                                "(?1 IS NULL OR lower(name) = lower(?1) OR lower(tbl_name) = lower(?1)) ORDER BY rowid";
    sqlite3_stmt *statement;
    int count = 0, code = sqlite3_prepare_v2(db, query, -1, &statement, NULL);
    if (code != SQLITE_OK)
        return sql_step_fail(db, code, err);
    if (name)
        sqlite3_bind_text(statement, 1, name, -1, SQLITE_STATIC);
    for (; (code = sqlite3_step(statement)) == SQLITE_ROW; count++) /* whole lines: it is for reading, and for copying */
        fprintf(out, "%s;\n", (const char *)sqlite3_column_text(statement, 0));
    int status = code == SQLITE_DONE ? 0 : sql_step_fail(db, code, err);
    sqlite3_finalize(statement);
    if (!status && name && count == 0 && print_columns(db, out, name) == 0)
        return no_such_relation(db, name, err);
    return status;
}

/* ---- words to complete ---- */

struct words {
    char **items; /* ends with NULL */
    size_t count, capacity;
    const char *prefix;
    bool failed;
};

static void add_word(struct words *words, const char *word, int letters)
{
    size_t prefix = strlen(words->prefix);
    if (words->failed || letters < (int)prefix || sqlite3_strnicmp(word, words->prefix, (int)prefix) != 0)
        return;
    if (words->count + 1 >= words->capacity) {
        size_t capacity = words->capacity ? words->capacity * 2 : 64;
        char **items = realloc(words->items, capacity * sizeof *items);
        if (!items) {
            words->failed = true;
            return;
        }
        words->items = items;
        words->capacity = capacity;
    }
    words->items[words->count] = strndup(word, (size_t)letters);
    words->failed = !words->items[words->count];
    words->items[words->count += !words->failed] = NULL;
}

/* A broken view's columns can't be told: it is passed over. */
static void add_query(struct words *words, sqlite3 *db, const char *query, const char *about)
{
    sqlite3_stmt *statement;
    if (sqlite3_prepare_v2(db, query, -1, &statement, NULL) != SQLITE_OK)
        return;
    if (about)
        sqlite3_bind_text(statement, 1, about, -1, SQLITE_STATIC);
    while (sqlite3_step(statement) == SQLITE_ROW) {
        const char *word = (const char *)sqlite3_column_text(statement, 0);
        if (word)
            add_word(words, word, sqlite3_column_bytes(statement, 0));
    }
    sqlite3_finalize(statement);
}

static void add_keywords(struct words *words)
{
    bool upper = words->prefix[0] >= 'A' && words->prefix[0] <= 'Z'; /* written as the person writes */
    for (int i = 0; i < sqlite3_keyword_count(); i++) {
        const char *keyword;
        char written[32];
        int letters;
        if (sqlite3_keyword_name(i, &keyword, &letters) != SQLITE_OK || letters >= (int)sizeof written)
            continue;
        for (int n = 0; n < letters; n++)
            written[n] = (char)(upper ? toupper((unsigned char)keyword[n]) : tolower((unsigned char)keyword[n]));
        add_word(words, written, letters);
    }
}

static int compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

char **sql_words(sqlite3 *db, const char *prefix, int which)
{
    struct words words = { .prefix = prefix }, relations = { .prefix = "" };
    add_query(&relations, db, "SELECT name FROM (" RELATIONS ")", NULL);
    for (size_t i = 0; i < relations.count; i++) {
        if (which & SQL_WORD_RELATIONS)
            add_word(&words, relations.items[i], (int)strlen(relations.items[i]));
        if (which & SQL_WORD_OTHERS)
            add_query(&words, db, "SELECT name FROM pragma_table_xinfo(?1)", relations.items[i]);
    }
    free_words(relations.items);
    if (which & SQL_WORD_OTHERS) {
        add_query(&words, db, "SELECT DISTINCT name FROM pragma_function_list WHERE name GLOB '[a-z]*'", NULL);
        add_keywords(&words);
    }
    if (!words.items)
        words.items = calloc(1, sizeof *words.items);
    if (words.failed || relations.failed || !words.items) {
        free_words(words.items);
        return NULL;
    }
    if (words.count > 1)
        qsort(words.items, words.count, sizeof *words.items, compare);
    size_t kept = 0;
    for (size_t i = 0; i < words.count; i++)
        if (kept && strcmp(words.items[kept - 1], words.items[i]) == 0)
            free(words.items[i]);
        else
            words.items[kept++] = words.items[i];
    words.items[kept] = NULL;
    return words.items;
}
