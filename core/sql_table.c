/* SPDX-License-Identifier: MIT */
/* Results as text. Two are for people (column, line), three for programs (csv, json, markdown for
 * pages): those give numbers in full, people get six digits.
 *
 *     column     line            csv        markdown          json
 *     id  mean   id = 1          id,mean    | id | mean |     [{"id":1,"mean":0.25},
 *     --  ----   mean = 0.25     1,0.25     |---:|-----:|     {"id":2,"mean":null}]
 *      1  0.25                   2,         |  1 | 0.25 |
 *      2
 *
 * Columns are aligned over the first HELD_ROWS rows (and HELD_BYTES, whichever ends first), which are kept
 * until then; later rows follow with those widths, so that a result of any length takes bounded memory.
 * Blobs are told by their size: hex(blob) gives their bytes. */
#include "sql.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "text.h"

enum {
    HELD_ROWS = 2000,
    HELD_BYTES = 8 << 20,
    WIDEST = 80, /* columns of a cell that isn't alone in its row */
};

const char *const sql_format_names[SQL_FORMATS] = { "column", "csv", "json", "markdown", "line" };

int sql_format_find(const char *name)
{
    for (int i = 0; i < SQL_FORMATS; i++)
        if (strcmp(sql_format_names[i], name) == 0)
            return i;
    return -1;
}

/* As many digits as read back as the same number. A real is seen to be one, here and below: 1.0 */
static void print_full(struct text *text, double value)
{
    size_t from = text->count;
    if (isinf(value)) {
        text_print(text, value > 0 ? "9e999" : "-9e999"); /* reads back as an infinity, in JSON too */
        return;
    }
    text_json_number(text, value);
    if (!text->failed && !strpbrk(text->bytes + from, ".e"))
        text_print(text, ".0");
}

/* Six digits, more where they stand before the point. */
static void print_short(struct text *text, double value)
{
    double size = fabs(value);
    char digits[48];
    if (isinf(value)) {
        text_print(text, value > 0 ? "Inf" : "-Inf");
        return;
    }
    if (size >= 1e5 && size < 1e15)
        snprintf(digits, sizeof digits, "%.1f", value);
    else
        snprintf(digits, sizeof digits, "%.6g", value);
    text_print(text, "%s%s", digits, strpbrk(digits, ".e") ? "" : ".0");
}

static void add_json(struct text *text, const char *bytes, size_t count)
{
    const unsigned char *s = (const unsigned char *)bytes, *end = s + count;
    text_add(text, "\"", 1);
    while (s < end) {
        uint32_t code;
        size_t n = sql_character(s, (size_t)(end - s), &code);
        if (code == '"' || code == '\\')
            text_print(text, "\\%c", (int)code);
        else if (code == '\n')
            text_add(text, "\\n", 2);
        else if (code < 0x20 || code == 0x7F)
            text_print(text, "\\u%04x", (unsigned)code);
        else if (code == 0xFFFD)
            text_add(text, "\xEF\xBF\xBD", 3);
        else
            text_add(text, (const char *)s, n);
        s += n;
    }
    text_add(text, "\"", 1);
}

/* RFC 4180. An empty text is "", so that it isn't taken for NULL, which is nothing. */
static void add_csv(struct text *text, const char *bytes, size_t count)
{
    bool quoted = count == 0 || bytes[0] == ' ' || bytes[count - 1] == ' ';
    for (size_t i = 0; i < count && !quoted; i++)
        quoted = bytes[i] == ',' || bytes[i] == '"' || (unsigned char)bytes[i] < 0x20;
    if (quoted)
        text_add(text, "\"", 1);
    for (size_t i = 0; i < count; i++)
        text_add(text, bytes[i] == '"' ? "\"\"" : &bytes[i], bytes[i] == '"' ? 2 : 1);
    if (quoted)
        text_add(text, "\"", 1);
}

static void add_markdown(struct text *text, const char *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (bytes[i] == '|')
            text_add(text, "\\", 1);
        text_add(text, &bytes[i], 1);
    }
}

static void add_string(struct text *text, enum sql_format format, const char *bytes, size_t count)
{
    if (format == SQL_JSON)
        add_json(text, bytes, count);
    else if (format == SQL_CSV)
        add_csv(text, bytes, count);
    else if (format == SQL_MARKDOWN)
        add_markdown(text, bytes, count);
    else
        text_add(text, bytes, count);
}

static void add_cell(struct text *text, enum sql_format format, sqlite3_stmt *statement, int column)
{
    char size[40];
    switch (sqlite3_column_type(statement, column)) {
    case SQLITE_NULL:
        if (format == SQL_JSON)
            text_print(text, "null");
        break;
    case SQLITE_INTEGER:
        text_print(text, "%lld", (long long)sqlite3_column_int64(statement, column));
        break;
    case SQLITE_FLOAT:
        if (format == SQL_COLUMN || format == SQL_LINE)
            print_short(text, sqlite3_column_double(statement, column));
        else
            print_full(text, sqlite3_column_double(statement, column));
        break;
    case SQLITE_BLOB:
        snprintf(size, sizeof size, "<%d bytes>", sqlite3_column_bytes(statement, column));
        add_string(text, format, size, strlen(size));
        break;
    default: {
        const char *bytes = (const char *)sqlite3_column_text(statement, column);
        size_t count = (size_t)sqlite3_column_bytes(statement, column);
        if (bytes)
            add_string(text, format, bytes, count);
        else
            text->failed = 1;
    }
    }
}

/* ---- rows that need no width ---- */

static void write_plain_row(FILE *out, enum sql_format format, sqlite3_stmt *statement, bool names, bool first, struct text *row)
{
    int columns = sqlite3_column_count(statement);
    row->count = 0;
    if (format == SQL_JSON)
        text_print(row, first ? "[{" : ",\n{");
    for (int i = 0; i < columns; i++) {
        const char *name = sqlite3_column_name(statement, i);
        if (i)
            text_add(row, ",", 1);
        if (format == SQL_JSON) {
            add_json(row, name, strlen(name));
            text_add(row, ":", 1);
        }
        if (names)
            add_csv(row, name, strlen(name));
        else
            add_cell(row, format, statement, i);
    }
    text_add(row, format == SQL_JSON ? "}" : "\n", 1);
    if (!row->failed)
        fwrite(row->bytes, 1, row->count, out);
}

static void write_lines(FILE *out, sqlite3_stmt *statement, bool first, struct text *cell)
{
    int columns = sqlite3_column_count(statement), widest = 0;
    for (int i = 0; i < columns; i++) {
        const char *name = sqlite3_column_name(statement, i);
        int width = sql_print_text(NULL, name, strlen(name), 0);
        widest = width > widest ? width : widest;
    }
    if (!first)
        fputc('\n', out);
    for (int i = 0; i < columns; i++) {
        const char *name = sqlite3_column_name(statement, i);
        fprintf(out, "%*s", widest - sql_print_text(NULL, name, strlen(name), 0), "");
        sql_print_text(out, name, strlen(name), 0);
        fputs(" = ", out);
        cell->count = 0;
        add_cell(cell, SQL_LINE, statement, i);
        sql_print_text(out, cell->bytes, cell->count, 0);
        fputc('\n', out);
    }
}

/* ---- rows that are aligned ---- */

struct grid {
    FILE *out;
    enum sql_format format;
    int columns, *widths;
    bool *numbers;     /* a column's first value that isn't NULL was a number: it stands at the right */
    bool *known;
    struct text cells; /* of the held rows, one after the other */
    size_t *ends;      /* [HELD_ROWS × columns] */
    size_t held;       /* rows */
    bool begun;        /* the head is written, rows go straight out */
};

static int widest_of(const struct grid *grid)
{
    return grid->format == SQL_MARKDOWN || grid->columns == 1 ? 0 : WIDEST;
}

/* Blanks wait in *blanks for something to stand after them: no line of `column` ends in any. */
static void write_cell(struct grid *grid, int column, const char *bytes, size_t count, int *blanks)
{
    int most = widest_of(grid), width = sql_print_text(NULL, bytes, count, most);
    int pad = grid->widths[column] > width ? grid->widths[column] - width : 0;
    bool last = column == grid->columns - 1, markdown = grid->format == SQL_MARKDOWN, number = grid->numbers[column];
    if (markdown)
        fputs("| ", grid->out);
    *blanks += (column && !markdown ? 2 : 0) + (number ? pad : 0);
    if (count > 0 || markdown) {
        fprintf(grid->out, "%*s", *blanks, "");
        *blanks = 0;
    }
    sql_print_text(grid->out, bytes, count, most);
    *blanks += number ? 0 : pad;
    if (markdown) {
        fprintf(grid->out, "%*s", *blanks + 1, "");
        *blanks = 0;
    }
    if (last) {
        fputs(markdown ? "|\n" : "\n", grid->out);
        *blanks = 0;
    }
}

static void write_rule(struct grid *grid)
{
    bool markdown = grid->format == SQL_MARKDOWN;
    for (int i = 0; i < grid->columns; i++) {
        fputs(markdown ? "|-" : i ? "  " : "", grid->out);
        for (int n = 0; n < grid->widths[i]; n++)
            fputc('-', grid->out);
        if (markdown)
            fputc(grid->numbers[i] ? ':' : '-', grid->out);
    }
    fputs(markdown ? "|\n" : "\n", grid->out);
}

static void write_head(struct grid *grid, sqlite3_stmt *statement)
{
    struct text name = { 0 };
    int blanks = 0;
    for (int i = 0; i < grid->columns; i++) {
        const char *given = sqlite3_column_name(statement, i);
        name.count = 0;
        add_string(&name, grid->format, given ? given : "", given ? strlen(given) : 0);
        if (!name.failed)
            write_cell(grid, i, name.bytes ? name.bytes : "", name.count, &blanks);
    }
    text_free(&name);
    write_rule(grid);
}

static void write_held(struct grid *grid, sqlite3_stmt *statement)
{
    size_t from = 0, cell = 0;
    int blanks = 0;
    if (!grid->begun)
        write_head(grid, statement);
    grid->begun = true;
    for (size_t row = 0; row < grid->held; row++)
        for (int i = 0; i < grid->columns; i++, cell++) {
            write_cell(grid, i, grid->cells.bytes + from, grid->ends[cell] - from, &blanks);
            from = grid->ends[cell];
        }
    grid->held = 0;
    grid->cells.count = 0;
}

static void take_row(struct grid *grid, sqlite3_stmt *statement)
{
    size_t *ends = grid->ends + grid->held * (size_t)grid->columns;
    for (int i = 0; i < grid->columns; i++) {
        size_t from = grid->cells.count;
        int type = sqlite3_column_type(statement, i);
        if (type != SQLITE_NULL && !grid->known[i] && !grid->begun) {
            grid->known[i] = true;
            grid->numbers[i] = type == SQLITE_INTEGER || type == SQLITE_FLOAT;
        }
        text_add(&grid->cells, "", 0);
        add_cell(&grid->cells, grid->format, statement, i);
        ends[i] = grid->cells.count;
        if (grid->cells.failed)
            return;
        int width = grid->begun ? 0 : sql_print_text(NULL, grid->cells.bytes + from, ends[i] - from, widest_of(grid));
        grid->widths[i] = width > grid->widths[i] ? width : grid->widths[i];
    }
    grid->held++;
    if (grid->begun || grid->held == HELD_ROWS || grid->cells.count > HELD_BYTES)
        write_held(grid, statement);
}

static int grid_open(struct grid *grid, sqlite3_stmt *statement)
{
    size_t n = (size_t)grid->columns;
    grid->widths = calloc(n, sizeof *grid->widths);
    grid->numbers = calloc(n, sizeof *grid->numbers);
    grid->known = calloc(n, sizeof *grid->known);
    grid->ends = calloc(n * HELD_ROWS, sizeof *grid->ends); /* SQLite allows 2000 columns: 32 MiB, touched as used */
    if (!grid->widths || !grid->numbers || !grid->known || !grid->ends)
        return SQLITE_NOMEM;
    for (int i = 0; i < grid->columns; i++) {
        const char *name = sqlite3_column_name(statement, i);
        int width = name ? sql_print_text(NULL, name, strlen(name), widest_of(grid)) : 0;
        grid->widths[i] = width > 0 ? width : 1;
    }
    return SQLITE_OK;
}

static void grid_close(struct grid *grid)
{
    free(grid->widths);
    free(grid->numbers);
    free(grid->known);
    free(grid->ends);
    text_free(&grid->cells);
}

/* ---- */

int sql_table_write(FILE *out, enum sql_format format, sqlite3_stmt *statement, int64_t limit, int64_t *rows, bool *more)
{
    struct grid grid = { .out = out, .format = format, .columns = sqlite3_column_count(statement) };
    struct text line = { 0 };
    bool aligned = format == SQL_COLUMN || format == SQL_MARKDOWN;
    int status;
    *rows = 0;
    *more = false;
    if (grid.columns > 0 && aligned && (status = grid_open(&grid, statement)) != SQLITE_OK)
        goto out;
    if (grid.columns > 0 && format == SQL_CSV)
        write_plain_row(out, format, statement, true, true, &line);
    while ((status = sqlite3_step(statement)) == SQLITE_ROW && !ferror(out)) {
        if (limit > 0 && *rows == limit) {
            *more = true;
            status = SQLITE_DONE;
            break;
        }
        if (aligned)
            take_row(&grid, statement);
        else if (format == SQL_LINE)
            write_lines(out, statement, *rows == 0, &line);
        else
            write_plain_row(out, format, statement, false, *rows == 0, &line);
        if (line.failed || grid.cells.failed) {
            status = SQLITE_NOMEM;
            break;
        }
        ++*rows;
    }
    if (grid.columns > 0 && aligned && (grid.held > 0 || (!grid.begun && status == SQLITE_DONE)))
        write_held(&grid, statement);
    if (grid.columns > 0 && format == SQL_JSON && (*rows > 0 || status == SQLITE_DONE))
        fputs(*rows ? "]\n" : "[]\n", out);
out:
    grid_close(&grid);
    text_free(&line);
    return status == SQLITE_ROW ? SQLITE_DONE : status; /* a row is left only when `out` failed */
}
