/* SPDX-License-Identifier: MIT */
/* The formats of `lathe sql`, on rows that SQLite itself made. */
#include "sql.h"

#include <locale.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static sqlite3 *db;

static int open_database(void **state)
{
    (void)state;
    setlocale(LC_CTYPE, "C.UTF-8");
    return sqlite3_open(":memory:", &db);
}

static int close_database(void **state)
{
    (void)state;
    return sqlite3_close(db);
}

/* The result of `query` as text, to be freed. */
static char *written(enum sql_format format, const char *query, int64_t limit, int wanted, int64_t *rows, bool *more)
{
    sqlite3_stmt *statement;
    char *bytes = NULL;
    size_t count;
    FILE *out = open_memstream(&bytes, &count);
    assert_non_null(out);
    assert_int_equal(sqlite3_prepare_v2(db, query, -1, &statement, NULL), SQLITE_OK);
    assert_int_equal(sql_table_write(out, format, statement, limit, rows, more), wanted);
    sqlite3_finalize(statement);
    fclose(out);
    return bytes;
}

static void gives(enum sql_format format, const char *query, const char *expected)
{
    int64_t rows;
    bool more;
    char *bytes = written(format, query, 0, SQLITE_DONE, &rows, &more);
    assert_string_equal(bytes, expected);
    assert_false(more);
    free(bytes);
}

static void column_aligns_numbers_at_the_right_and_text_at_the_left(void **state)
{
    (void)state;
    gives(SQL_COLUMN, "VALUES (1, 'a', 0.5), (-20, 'bcd', 10.25)",
          "column1  column2  column3\n"
          "-------  -------  -------\n"
          "      1  a            0.5\n"
          "    -20  bcd        10.25\n");
}

static void column_leaves_null_empty_and_no_blanks_at_line_ends(void **state)
{
    (void)state;
    gives(SQL_COLUMN, "SELECT NULL AS a, 12 AS b, NULL AS c UNION ALL SELECT 'x', NULL, NULL",
          "a   b  c\n"
          "-  --  -\n"
          "   12\n"
          "x\n");
}

static void column_counts_wide_and_combining_characters_as_the_terminal_does(void **state)
{
    (void)state;
    gives(SQL_COLUMN, "SELECT '日本' AS a, 1 AS b UNION ALL SELECT 'e' || char(0x301), 2 UNION ALL SELECT 'hé', 3",
          "a     b\n"
          "----  -\n"
          "日本  1\n"
          "e\xCC\x81     2\n"
          "hé    3\n");
}

static void control_characters_and_bad_bytes_cannot_reach_the_terminal(void **state)
{
    (void)state;
    gives(SQL_COLUMN, "SELECT char(27) || '[31m' || char(10) || char(0x9b) AS a, cast(x'41ff42' AS text) AS b",
          "a               b\n"
          "--------------  ---\n"
          "\\x1b[31m\\n\\x9b  A\xEF\xBF\xBD"
          "B\n");
    gives(SQL_LINE, "SELECT char(7) AS a", "a = \\x07\n");
}

static void column_cuts_long_cells_unless_they_are_alone(void **state)
{
    (void)state;
    int64_t rows;
    bool more;
    char *bytes = written(SQL_COLUMN, "SELECT printf('%.200c', 'x') AS a, 1 AS b", 0, SQLITE_DONE, &rows, &more);
    char *row = strrchr(bytes, 'x');
    assert_non_null(strstr(bytes, "x…  1\n"));
    assert_non_null(row);
    assert_int_equal(row + 1 - strchr(bytes, 'x'), 79);
    free(bytes);
    bytes = written(SQL_COLUMN, "SELECT printf('%.200c', 'x') AS a", 0, SQLITE_DONE, &rows, &more);
    assert_null(strstr(bytes, "…"));
    free(bytes);
}

static void people_get_six_digits_and_programs_all_of_them(void **state)
{
    (void)state;
    gives(SQL_COLUMN, "SELECT 0.1 + 0.2 AS x UNION ALL SELECT 1234567.891 UNION ALL SELECT 2.0 UNION ALL SELECT 1e300",
          "        x\n---------\n      0.3\n1234567.9\n      2.0\n   1e+300\n");
    gives(SQL_CSV, "SELECT 0.1 + 0.2 AS x, 1234567.891 AS y, 2.0 AS z", "x,y,z\n0.30000000000000004,1234567.891,2.0\n");
    gives(SQL_JSON, "SELECT 0.1 + 0.2 AS x, 9007199254740993 AS y, 9e999 AS z",
          "[{\"x\":0.30000000000000004,\"y\":9007199254740993,\"z\":9e999}]\n");
}

static void csv_quotes_what_needs_it_and_tells_null_from_empty(void **state)
{
    (void)state;
    gives(SQL_CSV, "SELECT 'a,b' AS \"x y\", 'say \"hi\"' AS q, char(10) AS n, NULL AS z, '' AS e",
          "x y,q,n,z,e\n\"a,b\",\"say \"\"hi\"\"\",\"\n\",,\"\"\n");
}

static void json_escapes_and_keeps_bytes_after_a_zero(void **state)
{
    (void)state;
    gives(SQL_JSON, "SELECT '\"\\' || char(10) || char(0) || 'é' AS \"a\"\"b\", NULL AS n",
          "[{\"a\\\"b\":\"\\\"\\\\\\n\\u0000é\",\"n\":null}]\n");
    gives(SQL_JSON, "SELECT 1 AS a UNION ALL SELECT 2", "[{\"a\":1},\n{\"a\":2}]\n");
}

static void markdown_marks_alignment_and_escapes_bars(void **state)
{
    (void)state;
    gives(SQL_MARKDOWN, "SELECT 1 AS n, 'a|b' AS t UNION ALL SELECT NULL, ''",
          "| n | t    |\n"
          "|--:|------|\n"
          "| 1 | a\\|b |\n"
          "|   |      |\n");
}

static void line_sets_names_at_the_right_and_rows_apart(void **state)
{
    (void)state;
    gives(SQL_LINE, "SELECT 1 AS a, 'x' AS long UNION ALL SELECT 2, NULL", "   a = 1\nlong = x\n\n   a = 2\nlong = \n");
}

static void blobs_are_told_by_their_size(void **state)
{
    (void)state;
    gives(SQL_COLUMN, "SELECT zeroblob(300) AS b", "b\n-----------\n<300 bytes>\n");
    gives(SQL_JSON, "SELECT x'00' AS b", "[{\"b\":\"<1 bytes>\"}]\n");
}

static void no_rows_give_the_names_alone_or_an_empty_array(void **state)
{
    (void)state;
    gives(SQL_COLUMN, "SELECT 1 AS abc WHERE 0", "abc\n---\n");
    gives(SQL_CSV, "SELECT 1 AS abc WHERE 0", "abc\n");
    gives(SQL_JSON, "SELECT 1 AS abc WHERE 0", "[]\n");
    gives(SQL_LINE, "SELECT 1 AS abc WHERE 0", "");
}

static void a_limit_stops_and_says_that_there_was_more(void **state)
{
    (void)state;
    static const char three[] = "SELECT 1 AS a UNION ALL SELECT 2 UNION ALL SELECT 3";
    int64_t rows;
    bool more;
    for (int format = 0; format < SQL_FORMATS; format++) {
        free(written((enum sql_format)format, three, 2, SQLITE_DONE, &rows, &more));
        assert_int_equal(rows, 2);
        assert_true(more);
        free(written((enum sql_format)format, three, 3, SQLITE_DONE, &rows, &more));
        assert_int_equal(rows, 3);
        assert_false(more);
    }
}

static void long_results_keep_every_row_in_order(void **state)
{
    (void)state;
    int64_t rows;
    bool more;
    for (int format = 0; format < SQL_FORMATS; format++) {
        char *bytes = written((enum sql_format)format,
                              "WITH RECURSIVE c(x) AS (SELECT 100000 UNION ALL SELECT x + 1 FROM c LIMIT 5001) SELECT x FROM c", 0,
                              SQLITE_DONE, &rows, &more);
        const char *at = bytes;
        assert_int_equal(rows, 5001);
        for (int i = 100000; i <= 105000; i++) {
            char number[16];
            snprintf(number, sizeof number, "%d", i);
            at = strstr(at, number);
            assert_non_null(at);
            at += 6;
        }
        free(bytes);
    }
}

static void a_failing_step_gives_its_status_and_the_rows_before_it(void **state)
{
    (void)state;
    int64_t rows;
    bool more;
    for (int format = 0; format < SQL_FORMATS; format++) {
        char *bytes = written((enum sql_format)format, "SELECT abs(x) AS y FROM (SELECT 7 AS x UNION ALL SELECT -9223372036854775808)",
                              0, SQLITE_ERROR, &rows, &more);
        assert_int_equal(rows, 1);
        assert_non_null(strchr(bytes, '7'));
        free(bytes);
    }
}

static void text_that_is_cut_fits_with_its_mark(void **state)
{
    (void)state;
    for (int most = 1; most <= 8; most++) {
        char *bytes = NULL;
        size_t count;
        FILE *out = open_memstream(&bytes, &count);
        int width = sql_print_text(out, "日本語日本語", 18, most);
        fclose(out);
        assert_in_range(width, 1, most);
        assert_int_equal(sql_print_text(NULL, "日本語日本語", 18, most), width);
        assert_int_equal(sql_print_text(NULL, bytes, count, 0), width);
        assert_non_null(strstr(bytes, "…"));
        free(bytes);
    }
    assert_int_equal(sql_print_text(NULL, "日本", 6, 4), 4);
}

static void every_code_point_decodes_and_nothing_else_does(void **state)
{
    (void)state;
    static const char *const bad[] = { "\xC0\x80", "\xE0\x80\x80", "\xED\xA0\x80", "\xF4\x90\x80\x80", "\x80", "\xFF", "\xE2\x82" };
    uint32_t code;
    for (uint32_t c = 1; c <= 0x10FFFF; c += c < 0x3000 ? 1 : 257) {
        if (c >= 0xD800 && c <= 0xDFFF)
            continue;
        char *query = sqlite3_mprintf("SELECT char(%u)", c); /* SQLite's encoder is the judge */
        sqlite3_stmt *statement;
        assert_int_equal(sqlite3_prepare_v2(db, query, -1, &statement, NULL), SQLITE_OK);
        assert_int_equal(sqlite3_step(statement), SQLITE_ROW);
        size_t count = (size_t)sqlite3_column_bytes(statement, 0);
        assert_int_equal(sql_character(sqlite3_column_text(statement, 0), count, &code), count);
        assert_int_equal(code, c);
        sqlite3_finalize(statement);
        sqlite3_free(query);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(sql_character((const unsigned char *)bad[i], strlen(bad[i]), &code), 1);
        assert_int_equal(code, 0xFFFD);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(column_aligns_numbers_at_the_right_and_text_at_the_left),
        cmocka_unit_test(column_leaves_null_empty_and_no_blanks_at_line_ends),
        cmocka_unit_test(column_counts_wide_and_combining_characters_as_the_terminal_does),
        cmocka_unit_test(control_characters_and_bad_bytes_cannot_reach_the_terminal),
        cmocka_unit_test(column_cuts_long_cells_unless_they_are_alone),
        cmocka_unit_test(people_get_six_digits_and_programs_all_of_them),
        cmocka_unit_test(csv_quotes_what_needs_it_and_tells_null_from_empty),
        cmocka_unit_test(json_escapes_and_keeps_bytes_after_a_zero),
        cmocka_unit_test(markdown_marks_alignment_and_escapes_bars),
        cmocka_unit_test(line_sets_names_at_the_right_and_rows_apart),
        cmocka_unit_test(blobs_are_told_by_their_size),
        cmocka_unit_test(no_rows_give_the_names_alone_or_an_empty_array),
        cmocka_unit_test(a_limit_stops_and_says_that_there_was_more),
        cmocka_unit_test(long_results_keep_every_row_in_order),
        cmocka_unit_test(a_failing_step_gives_its_status_and_the_rows_before_it),
        cmocka_unit_test(text_that_is_cut_fits_with_its_mark),
        cmocka_unit_test(every_code_point_decodes_and_nothing_else_does),
    };
    return cmocka_run_group_tests(tests, open_database, close_database);
}
