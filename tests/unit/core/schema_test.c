/* SPDX-License-Identifier: MIT */
/* The schema against core/events.h, and the views against figures worked out by hand. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "events.h"
#include "recorder_schema.h"
#include "sqlite_extension.h"

static sqlite3 *db;
static struct lathe_error err;

static int open_it(void **state)
{
    (void)state;
    if (sqlite3_open(":memory:", &db) != SQLITE_OK || schema_harden(db, &err) != LATHE_OK)
        return -1;
    int status = schema_apply(db, "memory", 0, &err);
    if (status != LATHE_OK)
        print_error("%s\n", err.message);
    return status;
}

static int close_it(void **state)
{
    (void)state;
    return sqlite3_close(db);
}

static void run_sql(const char *sql)
{
    char *why = NULL;
    if (sqlite3_exec(db, sql, NULL, NULL, &why) != SQLITE_OK)
        print_error("%s: %s\n", sql, why);
    assert_null(why);
}

/* All rows and columns, joined by | and newline. */
static const char *ask(const char *sql)
{
    static char out[8192];
    sqlite3_stmt *stmt;
    size_t at = 0;
    if (sqlite3_prepare_v2(db, sql, -1, &stmt, NULL) != SQLITE_OK)
        print_error("%s: %s\n", sql, sqlite3_errmsg(db));
    assert_non_null(stmt);
    out[0] = 0;
    while (sqlite3_step(stmt) == SQLITE_ROW) {
        at += (size_t)snprintf(out + at, sizeof out - at, "%s", at ? "\n" : "");
        for (int i = 0; i < sqlite3_column_count(stmt); i++) {
            const char *text = (const char *)sqlite3_column_text(stmt, i);
            at += (size_t)snprintf(out + at, sizeof out - at, "%s%s", i ? "|" : "", text ? text : "");
        }
    }
    sqlite3_finalize(stmt);
    return out;
}

#define NAME(name) "|" #name
#define EXPECT(table, key, COLUMNS) { #table, "run_id" COLUMNS(NAME, NAME, NAME, NAME, NAME) },

static void event_tables_have_the_columns_of_events_h(void **state)
{
    static const struct { const char *table, *columns; } expected[] = { RECORD_EVENTS(EXPECT) };
    char sql[200];
    (void)state;
    for (size_t i = 0; i < RECORD_EVENT_COUNT; i++) {
        snprintf(sql, sizeof sql, "SELECT group_concat(name, '|') FROM pragma_table_info('%s')", expected[i].table);
        assert_string_equal(ask(sql), expected[i].columns);
    }
}

static void every_table_is_strict_and_says_what_a_row_is(void **state)
{
    (void)state;
    assert_string_equal(ask("SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table'"
                            " AND name NOT LIKE 'sqlite%' AND NOT strict"), "");
    assert_string_equal(ask("SELECT name FROM sqlite_schema WHERE type = 'view' AND sql NOT LIKE '%AS' || char(10) || '-- One row per %'"), "");
    assert_int_equal(atoi(ask("PRAGMA user_version")), schema_file_count);
    assert_true(schema_file_count >= 6);
    assert_string_equal(ask("PRAGMA application_id"), "1279349832");
    assert_string_equal(ask("PRAGMA integrity_check"), "ok");
}

static void every_view_can_be_read(void **state)
{
    char names[4096], sql[200], *save = NULL;
    (void)state;
    assert_int_equal(lathe_sqlite_init_static(db), SQLITE_OK);
    strcpy(names, ask("SELECT name FROM sqlite_schema WHERE type = 'view'"));
    for (char *name = strtok_r(names, "\n", &save); name; name = strtok_r(NULL, "\n", &save)) {
        snprintf(sql, sizeof sql, "SELECT * FROM \"%s\" LIMIT 1", name);
        ask(sql);
    }
}

/* A file of version 5, with a run in it, gains what came later; its probes were of weights. */
static void an_older_file_is_migrated(void **state)
{
    sqlite3 *newest = db;
    (void)state;
    assert_int_equal(sqlite3_open(":memory:", &db), SQLITE_OK);
    for (int i = 0; i < 5; i++)
        run_sql(schema_files[i].sql);
    run_sql("PRAGMA user_version = 5; INSERT INTO run (id, uid, started_at, state, seed) VALUES (1, 'u', 0, 'done', 0);"
            "INSERT INTO probe VALUES (1, 1, '[0]', '[0]', 'full', NULL, 8, 0, NULL, 1)");
    assert_int_equal(schema_apply(db, "older", 5, &err), LATHE_OK);
    assert_string_equal(ask("SELECT measure FROM probe"), "weight");
    assert_string_equal(ask("SELECT name FROM sqlite_schema WHERE type = 'table' AND name IN ('kv_usage', 'layer_probe',"
                            " 'layer_token', 'intervention') ORDER BY 1"), "intervention\nkv_usage\nlayer_probe\nlayer_token");
    run_sql("INSERT INTO layer_probe VALUES (1, 2, '[0]', '[0]', 'hidden', NULL, 1, 0, NULL, 1);"
            "INSERT INTO layer_token VALUES (1, 1, 0, 1, 2, x'00000000')");
    assert_int_not_equal(sqlite3_exec(db, "INSERT INTO layer_token VALUES (1, 1, 0, 1, 2, x'')", NULL, NULL, NULL), SQLITE_OK);
    run_sql("PRAGMA foreign_keys = on; DELETE FROM run");
    assert_string_equal(ask("SELECT count(*) FROM layer_token"), "0");
    const char *const sql = "SELECT group_concat(sql, char(10)) FROM (SELECT sql FROM sqlite_schema WHERE name LIKE '%layer%' ORDER BY name)";
    char *migrated = strdup(ask(sql));
    sqlite3_close(db);
    db = newest;
    assert_string_equal(migrated, ask(sql)); /* as a new file has it */
    free(migrated);
}

static void views_without_attention_need_no_extension(void **state)
{
    (void)state;
    assert_string_equal(ask("SELECT count(*) FROM run_latency"), "0");
    sqlite3_stmt *stmt = NULL;
    assert_int_not_equal(sqlite3_prepare_v2(db, "SELECT * FROM attention_head", -1, &stmt, NULL), SQLITE_OK);
}

static void a_run_and_requests(int count)
{
    char sql[400];
    run_sql("INSERT INTO run (id, uid, started_at, state, seed, label) VALUES (1, 'u', 0, 'done', 0, 'r')");
    for (int i = 1; i <= count; i++) { /* planned at 0, arrives late: TTFT is i ms all the same */
        snprintf(sql, sizeof sql,
                 "INSERT INTO request (run_id, id, priority, replica, planned_ns, arrival_ns, admitted_ns, first_token_ns,"
                 " finish_ns, finish_reason, prompt_tokens, cached_tokens, output_tokens, preemptions)"
                 " VALUES (1, %d, 0, 0, 0, 500000, 600000, %d, %d, 'length', 3, 0, 11, 0)",
                 i, i * 1000000, i * 1000000 + 20000000);
        run_sql(sql);
    }
}

static void latency_counts_from_the_planned_arrival(void **state)
{
    (void)state;
    a_run_and_requests(2);
    assert_string_equal(ask("SELECT request_id, queue_ms, ttft_ms, tpot_ms, e2e_ms, met_slo FROM request_latency ORDER BY 1"),
                        "1|0.6|1.0|2.0|21.0|1\n2|0.6|2.0|2.0|22.0|1");
    run_sql("UPDATE request SET slo_ttft_ns = 1500000, slo_tpot_ns = 2000000");
    assert_string_equal(ask("SELECT met_slo FROM request_latency ORDER BY request_id"), "1\n0");
    run_sql("UPDATE request SET finish_reason = 'abort', slo_ttft_ns = NULL");
    assert_string_equal(ask("SELECT met_slo FROM request_latency"), "0\n0");
}

static void percentiles_are_interpolated_and_p99_needs_368(void **state)
{
    (void)state;
    a_run_and_requests(367); /* ttft 1 … 367 ms */
    assert_string_equal(ask("SELECT requests, round(ttft_p50_ms, 6), round(ttft_p90_ms, 6), ttft_p99_ms, ttft_max_ms FROM run_latency"),
                        "367|184.0|330.4||367.0");
    run_sql("INSERT INTO request SELECT run_id, 368, class, tenant, session, turn, priority, model, replica, planned_ns,"
            " arrival_ns, admitted_ns, 368000000, 388000000, finish_reason, prompt_tokens, cached_tokens, output_tokens,"
            " preemptions, slo_ttft_ns, slo_tpot_ns, deadline_ns, prompt_sha256, correlation_id, NULL, NULL, NULL, NULL, NULL FROM request WHERE id = 1");
    assert_string_equal(ask("SELECT round(ttft_p50_ms, 6), round(ttft_p99_ms, 6), round(tokens_per_s, 3) FROM run_latency"),
                        "184.5|364.33|10432.99");
    assert_int_equal(lathe_sqlite_init_static(db), SQLITE_OK);
    assert_string_equal(ask("SELECT round(percentile(ttft_ms, 99), 6) FROM request_latency"), "364.33");
}

static void slow_tokens_company_is_every_step_in_its_gap(void **state)
{
    (void)state;
    a_run_and_requests(2);
    for (int i = 1; i <= 4; i++) {
        char sql[300];
        snprintf(sql, sizeof sql, "INSERT INTO step VALUES (1, %d, 0, %d, %d, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0);", i,
                 i * 1000000, i * 1000000 + 1000000);
        run_sql(sql);
    }
    run_sql("INSERT INTO step_request VALUES (1, 1, 1, 'prefill', 0, 3, 0, 1), (1, 2, 2, 'prefill', 0, 3, 0, 1),"
            " (1, 3, 2, 'decode', 3, 1, 3, 1), (1, 4, 1, 'decode', 3, 1, 3, 1)");
    run_sql("INSERT INTO token VALUES (1, 1, 3, 1, 'output', 5, 2000000, NULL, -1.0), (1, 1, 4, 4, 'output', 6, 5000000, 3000000, -1.0)");
    assert_string_equal(ask("SELECT step_id, company_id, phase FROM slow_token_company WHERE request_id = 1 AND position = 4 ORDER BY 1"),
                        "2|2|prefill\n3|2|decode\n4|1|decode");
    assert_string_equal(ask("SELECT gap_ms FROM token_gap"), "3.0");
    assert_string_equal(ask("SELECT part, round(share, 3) FROM where_did_the_time_go ORDER BY part LIMIT 2"),
                        "between steps|0.0\nforward|0.0");
    run_sql("UPDATE request SET tenant = 'a' WHERE id = 1");
    assert_string_equal(ask("SELECT second, tenant, prefill_tokens, decode_tokens, backlogged FROM tenant_service_window ORDER BY tenant"),
                        "0||3|1|1\n0|a|3|1|1");
}

static void bad_json_and_unknown_words_are_refused(void **state)
{
    (void)state;
    assert_int_not_equal(sqlite3_exec(db, "INSERT INTO run (id, uid, started_at, state, seed, config) VALUES (1, 'u', 0, 'done', 0, '{')",
                                      NULL, NULL, NULL), SQLITE_OK);
    assert_int_not_equal(sqlite3_exec(db, "INSERT INTO run (id, uid, started_at, state, seed) VALUES (1, 'u', 0, 'fine', 0)",
                                      NULL, NULL, NULL), SQLITE_OK);
    assert_int_not_equal(sqlite3_exec(db, "INSERT INTO token VALUES (9, 1, 3, 1, 'output', 5, 2, NULL, -1.0)", NULL, NULL, NULL),
                         SQLITE_OK); /* no such run */
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, open_it, close_it)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(event_tables_have_the_columns_of_events_h),
        TEST(every_table_is_strict_and_says_what_a_row_is),
        TEST(every_view_can_be_read),
        TEST(an_older_file_is_migrated),
        TEST(views_without_attention_need_no_extension),
        TEST(latency_counts_from_the_planned_arrival),
        TEST(percentiles_are_interpolated_and_p99_needs_368),
        TEST(slow_tokens_company_is_every_step_in_its_gap),
        TEST(bad_json_and_unknown_words_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
