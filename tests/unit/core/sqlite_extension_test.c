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
        "step_id = 9", "probe_id = 1 AND keys > 2", "layer > 0", "layer >= 2 AND layer < 5", "layer < 2.5", "layer <= 4.99 AND layer > 2.01",
        "layer > 'x'", "layer < 'x'", "layer < NULL", "layer = 3.5", "layer < -1e300", "layer >= -1e300", "layer > 1e300", "layer = '3'",
        "head IN (0, 7)", "head IN ()", "head IN (0, 'x')", "head IN (NULL, 1)", "layer IN (0, 3) AND head IN (1, 0) AND position > 1",
        "head > -9223372036854775807 AND head < 9223372036854775807", "layer < -9223372036854775808", "layer IN (SELECT layer FROM plain)",
        "probe_id IN (1, 3)", "probe_id = 2 OR layer = 5", "run_id + 0 = 2 AND layer = 5", "head = x'31'", "layer > 1 AND layer > 2 AND layer > 4",
    };
    char sql[400], first[8192];
    (void)state;
    assert_int_equal(sqlite3_exec(db, "CREATE TEMP TABLE plain AS SELECT *, step_id, probe_id, keys FROM attention;"
                                      "CREATE TEMP TABLE plain_weights AS SELECT *, step_id, probe_id, keys, number FROM attention_weights",
                                  NULL, NULL, NULL), SQLITE_OK);
    for (size_t i = 0; i < sizeof where / sizeof *where; i++) {
        snprintf(sql, sizeof sql, "SELECT * FROM attention WHERE %s ORDER BY 1, 2, 3, 4, 5", where[i]);
        strcpy(first, ask(sql));
        snprintf(sql, sizeof sql, "SELECT run_id, request_id, position, layer, head, entropy, first_mass, recent_mass, self_mass,"
                 " top_key, top_weight FROM plain WHERE %s ORDER BY 1, 2, 3, 4, 5", where[i]);
        assert_string_equal(first, ask(sql));
        snprintf(sql, sizeof sql, "SELECT * FROM attention_weights WHERE %s ORDER BY 1, 2, 3, 4, 5, 6", where[i]);
        strcpy(first, ask(sql));
        snprintf(sql, sizeof sql, "SELECT run_id, request_id, position, layer, head, key, weight, measure FROM plain_weights WHERE %s ORDER BY 1, 2, 3, 4, 5, 6", where[i]);
        assert_string_equal(first, ask(sql));
    }
}

static void keys_are_pushed_down_as_a_plain_table_has_them(void **state)
{
    static const char *const where[] = {
        "key = 1", "key = 0 AND run_id = 2", "key > 0", "key >= 1 AND key < 2", "key <= 0.5", "key IN (0, 3)", "key IN (2, 1, 'x')", "key = '1'",
        "key < position", "key = position - 1", "key = 1 AND head = 0", "measure = 'weight'", "measure = 'score' AND key = 1", "measure = NULL",
        "measure = 5", "measure = 'WEIGHT' COLLATE NOCASE", "measure <> 'score'", "measure IN ('score', 'value')", "number = 1", "key IS NULL",
        "key > 1 AND key < 1", "key = -1", "key = 4294967295", "weight > 0.3", "measure = 'value'",
    };
    char sql[400], first[8192];
    (void)state;
    assert_int_equal(sqlite3_exec(db, "INSERT INTO probe VALUES (2, 2, '[5]', '[7]', 'full', NULL, 2, 0, NULL, 1, 'score'),"
                                      " (2, 3, '[5]', '[7]', 'full', NULL, 2, 0, NULL, 1, 'value');"
                                      "INSERT INTO attention_token VALUES (2, 3, 1, 2, 2, 2, x'00380034'), (2, 3, 1, 2, 3, 2, x'00bc0040'),"
                                      " (2, 4, 9, 2, 1, 2, x'00380038');" /* two of ten keys were left */
                                      "CREATE TEMP TABLE plain AS SELECT *, number FROM attention_weights", NULL, NULL, NULL), SQLITE_OK);
    for (size_t i = 0; i < sizeof where / sizeof *where; i++) {
        snprintf(sql, sizeof sql, "SELECT *, number FROM attention_weights WHERE %s ORDER BY 1, 2, 3, 4, 5, 6, 7", where[i]);
        strcpy(first, ask(sql));
        snprintf(sql, sizeof sql, "SELECT * FROM plain WHERE %s ORDER BY 1, 2, 3, 4, 5, 6, 7", where[i]);
        assert_string_equal(first, ask(sql));
    }
    assert_string_equal(ask("SELECT measure, sum(weight) FROM attention_weights WHERE run_id = 2 GROUP BY 1 ORDER BY 1"),
                        "score|0.75\nvalue|1.0\nweight|4.0");
    assert_string_equal(ask("SELECT count(*) FROM attention WHERE run_id = 2"), "4"); /* of weights alone */
}

static void where_keys_were_dropped_a_row_has_no_positions(void **state)
{
    (void)state;
    assert_int_equal(sqlite3_exec(db, "INSERT INTO attention_token VALUES (2, 4, 9, 2, 1, 2, x'00380034')", NULL, NULL, NULL), SQLITE_OK);
    assert_string_equal(ask("SELECT key IS NULL, number, weight FROM attention_weights WHERE request_id = 4"), "1|0|0.5\n1|1|0.25");
    assert_string_equal(ask("SELECT first_mass IS NULL, top_key IS NULL, self_mass, recent_mass, top_weight FROM attention WHERE request_id = 4"),
                        "1|1|0.25|0.75|0.5");
    assert_string_equal(ask("SELECT count(*) FROM attention_weights WHERE request_id = 4 AND key >= 0"), "0");
}

static void what_layers_do_reads_as_rows(void **state)
{
    (void)state;
    assert_int_equal(sqlite3_exec(db, "INSERT INTO layer_probe VALUES (1, 4, '[0,2]', '[1,3]', 'norms', NULL, NULL, 0, NULL, 1),"
        " (1, 5, '[2]', '[]', 'lens', 2, NULL, 0, NULL, 1), (1, 6, '[1,7]', '[]', 'hidden', NULL, 2, 0, NULL, 1);"
        "INSERT INTO layer_token VALUES"
        " (1, 1, 3, 8, 4, x'0000803f0000004000004040000080400000a0400000c0400000003f0000003f0000003f0000003f000080bf0000803e'),"
        " (1, 1, 3, 8, 5, x'11000000000000bf12000000000080bf'), (1, 1, 3, 8, 6, x'0000803f000000400000404000008040')", NULL, NULL, NULL), SQLITE_OK);
    assert_string_equal(ask("SELECT * FROM layer_norms"), "1|1|3|0|1.0|2.0|3.0|4.0\n1|1|3|2|0.5|0.5|0.5|0.5");
    assert_string_equal(ask("SELECT * FROM head_norms"), "1|1|3|0|1|5.0\n1|1|3|0|3|6.0\n1|1|3|2|1|-1.0\n1|1|3|2|3|0.25");
    assert_string_equal(ask("SELECT *, step_id, probe_id FROM head_norms WHERE head = 3 AND layer = 2"), "1|1|3|2|3|0.25|8|4");
    assert_string_equal(ask("SELECT * FROM layer_lens"), "1|1|3|2|1|17|-0.5\n1|1|3|2|2|18|-1.0");
    assert_string_equal(ask("SELECT token FROM layer_lens WHERE rank = 2"), "18");
    assert_string_equal(ask("SELECT count(*) FROM layer_lens WHERE rank < 1 OR rank > 2"), "0");
    assert_string_equal(ask("SELECT layer, dimension, value FROM layer_hidden WHERE position = 3"), "1|0|1.0\n1|1|2.0\n7|0|3.0\n7|1|4.0");
    assert_string_equal(ask("SELECT value FROM layer_hidden WHERE layer = 7 AND dimension = 1"), "4.0");
    static const char *const damages[] = {
        "UPDATE layer_token SET data = x''", "UPDATE layer_token SET data = CAST(data || x'00' AS BLOB)", "UPDATE layer_token SET data = substr(data, 5)",
        "UPDATE layer_probe SET top_k = 0 WHERE id = 5; UPDATE layer_probe SET width = 0 WHERE id = 6; UPDATE layer_probe SET heads = 'null' WHERE id = 4",
        "UPDATE layer_probe SET top_k = 99999999999 WHERE id = 5; UPDATE layer_probe SET width = 4294967298 WHERE id = 6; UPDATE layer_probe SET heads = '[1]' WHERE id = 4",
        "PRAGMA foreign_keys = OFF; DELETE FROM layer_probe",
    };
    for (size_t i = 0; i < sizeof damages / sizeof *damages; i++) {
        assert_int_equal(sqlite3_exec(db, "SAVEPOINT s", NULL, NULL, NULL), SQLITE_OK);
        if (strstr(damages[i], "foreign_keys"))
            sqlite3_exec(db, "RELEASE s", NULL, NULL, NULL); /* the pragma does nothing within one */
        assert_int_equal(sqlite3_exec(db, damages[i], NULL, NULL, NULL), SQLITE_OK);
        assert_non_null(strstr(ask("SELECT sum(before) FROM layer_norms"), "layer_token of run 1, request 1, position 3"));
        assert_non_null(strstr(ask("SELECT sum(norm) FROM head_norms"), "layer_token of run 1"));
        assert_non_null(strstr(ask("SELECT sum(token) FROM layer_lens"), "layer_token of run 1"));
        assert_non_null(strstr(ask("SELECT sum(value) FROM layer_hidden"), "layer_token of run 1"));
        sqlite3_exec(db, "ROLLBACK TO s; RELEASE s", NULL, NULL, NULL);
    }
}

static void entropy_is_shannons(void **state)
{
    (void)state;
    assert_string_equal(ask("SELECT abs(entropy(column1) - ln(4)) < 1e-12 FROM (VALUES (1), (1), (1), (1), (0), (NULL))"), "1");
    assert_string_equal(ask("SELECT abs(entropy(column1) - 1.5 * ln(2)) < 1e-12 FROM (VALUES (0.5), (0.25), (0.25))"), "1");
    assert_string_equal(ask("SELECT abs(entropy(x'003800340034') - 1.5 * ln(2)) < 1e-12"), "1");
    assert_string_equal(ask("SELECT entropy(7)"), "0.0");
    assert_string_equal(ask("SELECT entropy(0) IS NULL, entropy(NULL) IS NULL, entropy(x'') IS NULL"), "1|1|1");
    assert_string_equal(ask("SELECT a.request_id FROM attention a JOIN (SELECT run_id, request_id, position, layer, head, entropy(weight) AS e"
                            " FROM attention_weights WHERE probe_id = 3 GROUP BY 1, 2, 3, 4, 5) w ON w.run_id = a.run_id AND"
                            " w.request_id = a.request_id AND w.position = a.position AND abs(w.e - a.entropy) < 1e-6"), "3");
    static const char *const wrong[] = { "entropy(-1)", "entropy('x')", "entropy(1e999)", "entropy(x'00')", "entropy(x'00bc')", "entropy(x'007c')" };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        char sql[64];
        snprintf(sql, sizeof sql, "SELECT %s", wrong[i]);
        assert_non_null(strstr(ask(sql), "entropy(w): w must be"));
    }
}

static void rows_of_weights_are_compared(void **state)
{
    (void)state;
    assert_string_equal(ask("SELECT jensen_shannon(column1, column2), round(cosine(column1, column2), 12) FROM (VALUES (0.5, 0.5), (0.25, 0.25), (0.25, 0.25))"), "0.0|1.0");
    assert_string_equal(ask("SELECT abs(jensen_shannon(column1, column2) - ln(2)) < 1e-12, cosine(column1, column2) FROM (VALUES (1, 0), (0, 1))"), "1|0.0");
    /* of (1, 0) and (½, ½): ¾ ln 4/3 … by hand: ½ ln 4/3 + ¼ ln 2/3 + ¼ ln 2 */
    assert_string_equal(ask("SELECT abs(jensen_shannon(column1, column2) - (ln(4.0 / 3) / 2 + ln(2.0 / 3) / 4 + ln(2) / 4)) < 1e-12,"
                            " abs(cosine(column1, column2) - sqrt(0.5)) < 1e-12 FROM (VALUES (1, 0.5), (NULL, 0.5))"), "1|1");
    assert_string_equal(ask("SELECT jensen_shannon(0, 1) IS NULL, cosine(NULL, NULL) IS NULL"), "1|1");
    assert_non_null(strstr(ask("SELECT jensen_shannon(-1, 1)"), "finite numbers from 0"));
    assert_non_null(strstr(ask("SELECT cosine(1, 1e999)"), "finite numbers from 0"));
}

static void half_reads_one_number_and_never_beyond(void **state)
{
    (void)state;
    assert_string_equal(ask("SELECT half(x'003c003800b8', 0), half(x'003c003800b8', 2), half(x'0100', 0) > 5.9e-8, half(x'ff7b', 0)"),
                        "1.0|-0.5|1|65504.0");
    assert_string_equal(ask("SELECT half(x'007e', 0) IS NULL, half(NULL, 0) IS NULL, half(x'003c', NULL) IS NULL, half(x'007c', 0) > 1e308"), "1|1|1|1");
    assert_non_null(strstr(ask("SELECT half(x'003c00', 1)"), "i is 1, and the blob has 1 numbers"));
    assert_non_null(strstr(ask("SELECT half(x'003c', -1)"), "i is -1"));
    assert_non_null(strstr(ask("SELECT half(x'003c', 9223372036854775807)"), "i is 9223372036854775807"));
    assert_non_null(strstr(ask("SELECT half('ab', 0)"), "takes a blob"));
    assert_non_null(strstr(ask("SELECT half(x'003c', 0.5)"), "takes a blob"));
}

static void a_tokens_text_is_found(void **state)
{
    (void)state;
    assert_int_equal(sqlite3_exec(db, "INSERT INTO token_text VALUES (1, 7, 'seven'), (1, 8, 'eight'), (2, 7, 'sieben')", NULL, NULL, NULL), SQLITE_OK);
    assert_string_equal(ask("SELECT token_text(1, 7), token_text(2, 7), token_text(2, 8) IS NULL, token_text(NULL, 1) IS NULL"), "seven|sieben|1|1");
    assert_string_equal(ask("SELECT token_text(column1, column2) FROM (VALUES (1, 8), (2, 7), (1, 7))"), "eight\nsieben\nseven");
    sqlite3 *other;
    assert_int_equal(sqlite3_open(":memory:", &other), SQLITE_OK);
    assert_int_equal(lathe_sqlite_init_static(other), SQLITE_OK);
    assert_int_equal(sqlite3_exec(other, "SELECT token_text(1, 2)", NULL, NULL, NULL), SQLITE_ERROR);
    assert_non_null(strstr(sqlite3_errmsg(other), "not a database of lathe's"));
    assert_int_equal(sqlite3_close(other), SQLITE_OK); /* no statement is left open */
}

static void hdr_percentiles_are_within_what_is_said(void **state)
{
    (void)state;
    /* 1 … 10,000 in some order, beside the exact number of that rank. */
    for (int p = 0; p <= 100; p += 5) {
        char sql[256];
        double rank = ceil(p / 100.0 * 10000), exact = rank < 1 ? 1 : rank;
        snprintf(sql, sizeof sql, "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 10000)"
                 " SELECT hdr_percentile(x * 7919 %% 10007, %d) FROM n WHERE x * 7919 %% 10007 <= 10000", p);
        assert_true(fabs(atof(ask(sql)) - exact) <= exact / 256 + 7); /* seven of 10,007 are left out */
        snprintf(sql, sizeof sql, "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 10000)"
                 " SELECT hdr_percentile(x, %d) FROM n", p);
        assert_true(fabs(atof(ask(sql)) - exact) <= exact / 256);
    }
    assert_string_equal(ask("SELECT abs(hdr_percentile(column1, 50) - 1e-9) < 4e-12 FROM (VALUES (1e-9), (5), (-3))"), "1");
    assert_string_equal(ask("SELECT abs(hdr_percentile(column1, 0) + 3e9) < 3e9 / 256 FROM (VALUES (0), (5), (-3e9))"), "1");
    assert_string_equal(ask("SELECT hdr_percentile(column1, 50), hdr_percentile(NULL, 50) IS NULL FROM (VALUES (0), (1e-320), (-1e-320))"), "0.0|1");
    assert_string_equal(ask("SELECT hdr_percentile(1.7976931348623157e308, 100) > 1.79e308, hdr(NULL) IS NULL"), "1|1");
    /* Merged first or last: the same, to the bit. */
    assert_string_equal(ask("WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 3000), y(g, v) AS (SELECT x % 7, x * x * 0.37 - 900 FROM n),"
                            " s(b) AS (SELECT hdr(v) FROM y GROUP BY g)"
                            " SELECT (SELECT hdr(b) FROM s) = (SELECT hdr(v) FROM y), (SELECT hdr_percentile(b, 90) FROM s) = (SELECT hdr_percentile(v, 90) FROM y)"),
                        "1|1");
    static const char *const wrong[][2] = {
        { "hdr_percentile(1, 101)", "p must be a number" }, { "hdr_percentile(1, 'x')", "p must be a number" }, { "hdr('x')", "x must be" },
        { "hdr(1e999)", "x must be" }, { "hdr(x'00')", "damaged" }, { "hdr(x'6864723100')", "damaged" },
        { "hdr(x'68647231' || x'010000000000000000000000')", "x must be" }, /* text */
        { "hdr(CAST(x'68647231' || x'010000000000000000000000' AS BLOB))", "damaged" },
        { "hdr(x'6864723100000080ffffffffffffff7f')", "damaged" },
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        char sql[128];
        snprintf(sql, sizeof sql, "SELECT %s", wrong[i][0]);
        assert_non_null(strstr(ask(sql), wrong[i][1]));
    }
    assert_non_null(strstr(ask("SELECT hdr_percentile(column1, column1) FROM (VALUES (1), (2))"), "same in every row"));
}

static void statements_are_kept_and_let_go(void **state)
{
    (void)state;
    /* More sets of constraints at once than are kept, one within the other. */
    assert_string_equal(ask("SELECT count(*) FROM attention a, attention b, attention c, attention d, attention e, attention f, attention g, attention h,"
                            " attention i, attention j WHERE a.run_id = 1 AND b.run_id = 2 AND b.request_id = 3 AND c.position = 4 AND d.position > 1"
                            " AND e.position < 1 AND f.position >= 2 AND g.position <= 0 AND h.run_id = 2 AND h.position = 0 AND i.request_id = 1 AND"
                            " j.run_id = 2 AND j.position > 1"), "4320");
    assert_string_equal(ask("SELECT sum((SELECT count(*) FROM attention b WHERE b.run_id = a.run_id AND b.position = a.position)) FROM attention a"), "20");
}

static void the_index_is_used_below_the_virtual_table(void **state)
{
    (void)state;
    assert_non_null(strstr(ask("EXPLAIN QUERY PLAN SELECT * FROM attention_token WHERE run_id = 1 AND request_id = 1 AND position > 2"),
                           "attention_token_at"));
    /* A join asks for one position at a time. */
    assert_non_null(strstr(ask("EXPLAIN QUERY PLAN SELECT * FROM token_attention WHERE run_id = 1 AND request_id = 1"), "VIRTUAL TABLE INDEX 11"));
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
        TEST(keys_are_pushed_down_as_a_plain_table_has_them),
        TEST(where_keys_were_dropped_a_row_has_no_positions),
        TEST(what_layers_do_reads_as_rows),
        TEST(entropy_is_shannons),
        TEST(rows_of_weights_are_compared),
        TEST(half_reads_one_number_and_never_beyond),
        TEST(a_tokens_text_is_found),
        TEST(hdr_percentiles_are_within_what_is_said),
        TEST(statements_are_kept_and_let_go),
        TEST(the_index_is_used_below_the_virtual_table),
        TEST(the_token_at_p_was_predicted_at_p_minus_1),
        TEST(damaged_blobs_and_probes_are_a_sentence),
        TEST(a_database_without_the_tables_is_a_sentence),
        TEST(percentiles_are_those_of_the_closed_form),
        TEST(the_sqlite3_shell_loads_it_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
