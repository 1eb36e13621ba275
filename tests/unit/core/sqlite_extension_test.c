/* SPDX-License-Identifier: MIT */
/* The attention tables and percentile(), on blobs written here byte by byte, and the loadable
 * file through the sqlite3 shell. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "recorder_schema.h"
#include "sqlite_extension.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1 /* the shell isn't, and can't load what is */
#else
#define SANITIZED 0
#endif

static sqlite3 *db;
static struct lathe_error err;

/* Halves: 3c00 = 1, 3800 = 0.5, 3400 = 0.25, 3000 = 0.125, 2c00 = 0.0625, little-endian here. */
static const char rows[] =
    "INSERT INTO run (id, uid, started_at, state, seed) VALUES (1, 'u', 0, 'done', 0), (2, 'v', 0, 'done', 0);"
    "INSERT INTO probe VALUES (1, 1, '[0,2]', '[1]', 'summary', NULL, 8, 0, NULL, 1, 'weight'),"
    " (1, 2, '[0]', '[0, 1]', 'top', 2, NULL, 0, NULL, 1, 'weight'),"
    " (1, 3, '[3]', '[0]', 'full', NULL, 2, 0, NULL, 1, 'weight'),"
    " (2, 1, '[5]', '[7]', 'full', NULL, 2, 0, NULL, 1, 'weight');"
    "INSERT INTO attention_token VALUES"
    " (1, 1, 4, 9, 1, 5, x'0000803f003800340030002c04000000000000400038003400300000ff000000'),"
    " (1, 2, 4, 9, 2, 5, x'030000000000003f000000000000803e010000000000803fffffffff00000000'),"
    " (1, 3, 2, 9, 3, 3, x'003800340034'),"
    " (2, 3, 0, 1, 1, 1, x'003c'), (2, 3, 1, 2, 1, 2, x'00380038'), (2, 3, 2, 3, 1, 3, x'003400340038');";

static int open_it(void **state)
{
    (void)state;
    return sqlite3_open(":memory:", &db) || schema_harden(db, &err) || schema_apply(db, "memory", 0, &err) ||
           lathe_sqlite_init_static(db) || sqlite3_exec(db, rows, NULL, NULL, NULL);
}

static int close_it(void **state)
{
    (void)state;
    return sqlite3_close(db);
}

/* All rows joined, or the error's sentence. */
static const char *ask(const char *sql)
{
    static char out[8192];
    sqlite3_stmt *stmt;
    size_t at = 0;
    int rc;
    out[0] = 0;
    if (sqlite3_prepare_v2(db, sql, -1, &stmt, NULL) != SQLITE_OK)
        return sqlite3_errmsg(db);
    while ((rc = sqlite3_step(stmt)) == SQLITE_ROW) {
        at += (size_t)snprintf(out + at, sizeof out - at, "%s", at ? "\n" : "");
        for (int i = 0; i < sqlite3_column_count(stmt); i++) {
            const char *text = (const char *)sqlite3_column_text(stmt, i);
            at += (size_t)snprintf(out + at, sizeof out - at, "%s%s", i ? "|" : "", text ? text : "");
        }
    }
    if (rc != SQLITE_DONE)
        snprintf(out, sizeof out, "%s", sqlite3_errmsg(db));
    sqlite3_finalize(stmt);
    return out;
}

static void a_summary_reads_as_a_row_a_head(void **state)
{
    (void)state;
    assert_string_equal(ask("SELECT * FROM attention WHERE request_id = 1"),
                        "1|1|4|0|1|1.0|0.5|0.25|0.125|4|0.0625\n1|1|4|2|1|2.0|0.5|0.25|0.125|255|0.0");
    assert_string_equal(ask("SELECT count(*) FROM attention_weights WHERE request_id = 1"), "0");
}

static void top_keys_read_as_keys_and_the_unused_do_not(void **state)
{
    (void)state;
    assert_string_equal(ask("SELECT * FROM attention WHERE request_id = 2"), "1|2|4|0|0|||||3|0.5\n1|2|4|0|1|||||1|1.0");
    assert_string_equal(ask("SELECT head, key, weight FROM attention_weights WHERE request_id = 2"), "0|3|0.5\n0|0|0.25\n1|1|1.0");
}

static void a_full_row_gives_every_figure(void **state)
{
    char expected[100];
    (void)state;
    assert_string_equal(ask("SELECT layer, head, first_mass, recent_mass, self_mass, top_key, top_weight FROM attention WHERE request_id = 3 AND run_id = 1"),
                        "3|0|0.5|0.5|0.25|0|0.5");
    snprintf(expected, sizeof expected, "%.12f", 0.5 * log(2) + 2 * 0.25 * log(4));
    assert_string_equal(ask("SELECT printf('%.12f', entropy) FROM attention WHERE request_id = 3 AND run_id = 1"), expected);
    assert_string_equal(ask("SELECT key, weight FROM attention_weights WHERE run_id = 1 AND request_id = 3"), "0|0.5\n1|0.25\n2|0.25");
    assert_string_equal(ask("SELECT position, sum(weight) FROM attention_weights WHERE run_id = 2 GROUP BY position"), "0|1.0\n1|1.0\n2|1.0");
}

static void constraints_agree_with_a_plain_table(void **state)
{
    static const char *const where[] = {
        "run_id = 1", "run_id = 2 AND request_id = 3", "position = 2", "position > 1", "position >= 1 AND position < 3",
        "position <= 1.5", "position > 0 AND position >= 2", "layer = 2", "layer = 2.0", "layer = '2'", "layer = -1",
        "head = 1 AND layer = 0", "head = 7", "head > 0", "run_id = NULL", "layer IS NULL", "run_id IN (1, 2) AND layer IN (0, 5)",
        "position = 'x'", "request_id = 3 AND position BETWEEN 1 AND 2", "layer = 99999999999", "position < 9223372036854775807",
        "step_id = 9", "probe_id = 1 AND keys > 2",
    };
    char sql[400], first[8192];
    (void)state;
    assert_int_equal(sqlite3_exec(db, "CREATE TEMP TABLE plain AS SELECT *, step_id, probe_id, keys FROM attention;"
                                      "CREATE TEMP TABLE plain_weights AS SELECT *, step_id, probe_id, keys FROM attention_weights",
                                  NULL, NULL, NULL), SQLITE_OK);
    for (size_t i = 0; i < sizeof where / sizeof *where; i++) {
        snprintf(sql, sizeof sql, "SELECT * FROM attention WHERE %s ORDER BY 1, 2, 3, 4, 5", where[i]);
        strcpy(first, ask(sql));
        snprintf(sql, sizeof sql, "SELECT run_id, request_id, position, layer, head, entropy, first_mass, recent_mass, self_mass,"
                 " top_key, top_weight FROM plain WHERE %s ORDER BY 1, 2, 3, 4, 5", where[i]);
        assert_string_equal(first, ask(sql));
        snprintf(sql, sizeof sql, "SELECT * FROM attention_weights WHERE %s ORDER BY 1, 2, 3, 4, 5, 6", where[i]);
        strcpy(first, ask(sql));
        snprintf(sql, sizeof sql, "SELECT run_id, request_id, position, layer, head, key, weight FROM plain_weights WHERE %s ORDER BY 1, 2, 3, 4, 5, 6", where[i]);
        assert_string_equal(first, ask(sql));
    }
}

static void the_index_is_used_below_the_virtual_table(void **state)
{
    (void)state;
    assert_non_null(strstr(ask("EXPLAIN QUERY PLAN SELECT * FROM attention_token WHERE run_id = 1 AND request_id = 1 AND position > 2"),
                           "attention_token_at"));
    /* A join asks for one position at a time. */
    assert_non_null(strstr(ask("EXPLAIN QUERY PLAN SELECT * FROM token_attention WHERE run_id = 1 AND request_id = 1"), "VIRTUAL TABLE INDEX 7"));
}

static void the_token_at_p_was_predicted_at_p_minus_1(void **state)
{
    (void)state;
    assert_int_equal(sqlite3_exec(db, "INSERT INTO token VALUES (2, 3, 0, NULL, 'prompt', 10, NULL, NULL, NULL),"
        "(2, 3, 1, 1, 'output', 11, 5, NULL, -0.1), (2, 3, 2, 2, 'output', 12, 6, 1, -0.2), (2, 3, 3, 3, 'output', 13, 7, 1, -0.3);"
        "INSERT INTO token_text VALUES (2, 10, 'a'), (2, 11, 'b'), (2, 12, 'c'), (2, 13, 'd')", NULL, NULL, NULL), SQLITE_OK);
    assert_string_equal(ask("SELECT position, text, layer, head, top_key, top_text, top_weight FROM token_attention WHERE run_id = 2 ORDER BY 1"),
                        "1|b|5|7|0|a|1.0\n2|c|5|7|0|a|0.5\n3|d|5|7|2|c|0.5");
}

static void damaged_blobs_and_probes_are_a_sentence(void **state)
{
    static const char *const damages[] = {
        "UPDATE attention_token SET data = x''",
        "UPDATE attention_token SET data = CAST(data || x'00' AS BLOB)",
        "UPDATE attention_token SET data = substr(data, 2)",
        "UPDATE attention_token SET keys = -1",
        "UPDATE attention_token SET keys = 9223372036854775807",
        "UPDATE attention_token SET keys = 2147483647",
        "UPDATE probe SET layers = '[256]'",
        "UPDATE probe SET layers = '{}'",
        "UPDATE probe SET heads = '[\"a\"]'",
        "UPDATE probe SET heads = '[-1]'",
        "UPDATE probe SET layers = '[0,1,2,3,4,5,6,7,8,9]'",
        "UPDATE probe SET top_k = 0, format = 'top'",
        "UPDATE probe SET top_k = 9223372036854775807, format = 'top'",
        "PRAGMA foreign_keys = OFF; DELETE FROM probe",
    };
    (void)state;
    for (size_t i = 0; i < sizeof damages / sizeof *damages; i++) {
        sqlite3_close(db);
        assert_int_equal(open_it(state), 0);
        assert_int_equal(sqlite3_exec(db, damages[i], NULL, NULL, NULL), SQLITE_OK);
        assert_non_null(strstr(ask("SELECT count(entropy), sum(top_weight) FROM attention WHERE run_id = 1"), "attention_token of run 1"));
        assert_non_null(strstr(ask("SELECT sum(weight) FROM attention_weights WHERE run_id = 1"), "attention_token of run 1"));
    }
}

static void a_database_without_the_tables_is_a_sentence(void **state)
{
    sqlite3 *other;
    sqlite3_stmt *stmt;
    (void)state;
    assert_int_equal(sqlite3_open(":memory:", &other), SQLITE_OK);
    assert_int_equal(lathe_sqlite_init_static(other), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(other, "SELECT * FROM attention", -1, &stmt, NULL), SQLITE_OK);
    assert_int_not_equal(sqlite3_step(stmt), SQLITE_ROW);
    assert_non_null(strstr(sqlite3_errmsg(other), "not a database of lathe"));
    sqlite3_finalize(stmt);
    sqlite3_close(other);
}

static void percentiles_are_those_of_the_closed_form(void **state)
{
    (void)state;
    assert_string_equal(ask("SELECT median(column1) FROM (VALUES (3), (1), (2))"), "2.0");
    assert_string_equal(ask("SELECT median(column1) FROM (VALUES (4), (1), (2), (3))"), "2.5");
    assert_string_equal(ask("SELECT percentile(column1, 0), percentile(column1, 100), percentile(column1, 25) FROM (VALUES (4), (1), (2), (3))"),
                        "1.0|4.0|1.75");
    /* 0 … 1000: the p-th percentile is 10 p. */
    assert_string_equal(ask("WITH RECURSIVE n(x) AS (SELECT 0 UNION ALL SELECT x + 1 FROM n WHERE x < 1000)"
                            " SELECT percentile(x, 99.0), round(percentile(x, 37.3), 9) FROM n"), "990.0|373.0");
    assert_string_equal(ask("SELECT median(column1) FROM (VALUES (NULL), (7))"), "7.0");
    assert_string_equal(ask("SELECT median(column1) IS NULL FROM (VALUES (NULL))"), "1");
    assert_string_equal(ask("SELECT median(1) IS NULL WHERE 0"), "1");
    assert_non_null(strstr(ask("SELECT percentile(1, 101)"), "p must be"));
    assert_non_null(strstr(ask("SELECT percentile(1, 'x')"), "p must be"));
    assert_non_null(strstr(ask("SELECT percentile('abc', 50)"), "finite number"));
    assert_non_null(strstr(ask("SELECT percentile(1e999, 50)"), "finite number"));
    assert_non_null(strstr(ask("SELECT percentile(column1, column1) FROM (VALUES (1), (2))"), "same in every row"));
}

static void the_sqlite3_shell_loads_it_by_name(void **state)
{
    char command[1024], line[200] = "";
    (void)state;
    if (access(TEST_BUILD "/lathe_sqlite.so", R_OK) != 0 || system("command -v sqlite3 >/dev/null 2>&1") != 0 ||
        SANITIZED)
        skip();
    snprintf(command, sizeof command, "sqlite3 :memory: -cmd '.load %s/lathe_sqlite' 'select median(value) from json_each(\"[1,2,4]\")'"
             " 'select count(*) from pragma_table_info(\"attention\")' 2>&1", TEST_BUILD);
    FILE *pipe = popen(command, "r");
    assert_non_null(pipe);
    assert_non_null(fgets(line, sizeof line, pipe));
    assert_string_equal(line, "2.0\n");
    assert_non_null(fgets(line, sizeof line, pipe));
    assert_string_equal(line, "11\n");
    assert_int_equal(pclose(pipe), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, open_it, close_it)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_summary_reads_as_a_row_a_head),
        TEST(top_keys_read_as_keys_and_the_unused_do_not),
        TEST(a_full_row_gives_every_figure),
        TEST(constraints_agree_with_a_plain_table),
        TEST(the_index_is_used_below_the_virtual_table),
        TEST(the_token_at_p_was_predicted_at_p_minus_1),
        TEST(damaged_blobs_and_probes_are_a_sentence),
        TEST(a_database_without_the_tables_is_a_sentence),
        TEST(percentiles_are_those_of_the_closed_form),
        TEST(the_sqlite3_shell_loads_it_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
