/* SPDX-License-Identifier: MIT */
/* What sections of `lathe report` write with: JSON in pieces, columns in base64, and thinning that nests. */
#include "report.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static void free_report(struct report *r)
{
    text_free(&r->json);
    text_free(&r->columns);
}

static void commas_stand_between_members_only(void **state)
{
    struct report r = { 0 };
    (void)state;
    report_open(&r, NULL, '{');
    report_number(&r, "a", 1);
    report_open(&r, "b", '[');
    report_string(&r, NULL, "x\"\n<");
    report_string(&r, NULL, NULL);
    report_open(&r, NULL, '{');
    report_close(&r, '}');
    report_close(&r, ']');
    report_number(&r, "c", (double)__builtin_nanf(""));
    report_close(&r, '}');
    assert_string_equal(r.json.bytes, "{\"a\":1,\"b\":[\"x\\\"\\n<\",null,{}],\"c\":null}");
    free_report(&r);
}

/* RFC 4648, section 10. */
static void bytes_are_base64(void **state)
{
    static const char *const pairs[][2] = { { "", "" }, { "f", "Zg==" }, { "fo", "Zm8=" }, { "foo", "Zm9v" }, { "foob", "Zm9vYg==" },
                                            { "fooba", "Zm9vYmE=" }, { "foobar", "Zm9vYmFy" } };
    (void)state;
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        struct report r = { 0 };
        char expected[128];
        report_bytes(&r, "x", pairs[i][0], strlen(pairs[i][0]));
        snprintf(expected, sizeof expected, "<script type=\"text/plain\" id=\"column-0\">%s</script>\n", pairs[i][1]);
        assert_string_equal(r.columns.bytes, expected);
        snprintf(expected, sizeof expected, "\"x\":{\"column\":0,\"type\":\"u8\",\"count\":%zu}", strlen(pairs[i][0]));
        assert_string_equal(r.json.bytes + (r.json.bytes[0] == ','), expected);
        free_report(&r);
    }
}

static void columns_are_numbered_and_as_long_as_what_was_added(void **state)
{
    struct report r = { 0 };
    struct column c = { 0 };
    (void)state;
    for (uint32_t i = 0; i < 5000; i++)
        column_add(&c, i);
    report_column(&r, "long", "u32", &c);
    assert_null(c.values);
    column_add_float(&c, 1.0);
    report_column(&r, "one", "f32", &c);
    assert_non_null(strstr(r.json.bytes, "\"long\":{\"column\":0,\"type\":\"u32\",\"count\":5000}"));
    assert_non_null(strstr(r.json.bytes, ",\"one\":{\"column\":1,\"type\":\"f32\",\"count\":1}"));
    assert_non_null(strstr(r.columns.bytes, "id=\"column-1\">AACAPw==<")); /* 0x3f800000 */
    const char *end = strstr(r.columns.bytes, "</script>");
    assert_int_equal(end - strchr(r.columns.bytes, '>') - 1, (5000 * 4 + 2) / 3 * 4);
    free_report(&r);
}

static void strides_keep_the_budget_and_nest(void **state)
{
    (void)state;
    for (int64_t count = 0; count < 5000; count += 37) {
        int64_t stride = report_stride(count, 100);
        assert_true((count + stride - 1) / stride <= 100);
        assert_true(stride == 1 || (count + stride / 2 - 1) / (stride / 2) > 100); /* no coarser than it must be */
        assert_int_equal(stride & (stride - 1), 0);
    }
    assert_int_equal(report_stride(100, 100), 1);
    assert_int_equal(report_stride(101, 100), 2);
    assert_int_equal(report_stride(8, 0), 8); /* a budget of nothing is one */
}

static void times_fit_their_unit(void **state)
{
    static const char *const rows = "SELECT 1500, NULL, -7, 9000000000000";
    struct report_run run = { .id = 1, .unit_ns = 1000 };
    struct column c = { 0 };
    sqlite3 *db;
    sqlite3_stmt *s;
    (void)state;
    assert_int_equal(sqlite3_open(":memory:", &db), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(db, rows, -1, &s, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(s), SQLITE_ROW);
    for (int i = 0; i < 4; i++)
        column_add_time(&c, &run, s, i);
    column_add_row(&c, s, 0);
    column_add_row(&c, s, 1);
    column_add_row(&c, s, 2);
    column_add_row(&c, s, 3);
    static const uint32_t expected[] = { 2, REPORT_NONE, 0, REPORT_NONE - 1, 1500, REPORT_NONE, 0, REPORT_NONE - 1 };
    assert_int_equal(c.count, 8);
    assert_memory_equal(c.values, expected, sizeof expected);
    struct report r = { 0 };
    report_column(&r, "x", "u32", &c);
    free_report(&r);
    sqlite3_finalize(s);
    sqlite3_close(db);
}

/* Its parts are there: page, style, scripts, in the order of their names. */
static void the_page_travels_in_the_executable(void **state)
{
    bool page = false, style = false;
    (void)state;
    for (int i = 0; i < report_file_count; i++) {
        page |= strcmp(report_files[i].name, "page.html") == 0;
        style |= strcmp(report_files[i].name, "page.css") == 0;
        assert_int_equal(report_files[i].count, strlen(report_files[i].bytes));
        if (i > 0)
            assert_true(strcmp(report_files[i - 1].name, report_files[i].name) < 0);
        assert_null(strstr(report_files[i].bytes, "innerHTML")); /* a database's text is never parsed as markup */
        assert_null(strstr(report_files[i].bytes, "eval("));
    }
    assert_true(page && style);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(commas_stand_between_members_only),
        cmocka_unit_test(bytes_are_base64),
        cmocka_unit_test(columns_are_numbered_and_as_long_as_what_was_added),
        cmocka_unit_test(strides_keep_the_budget_and_nest),
        cmocka_unit_test(times_fit_their_unit),
        cmocka_unit_test(the_page_travels_in_the_executable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
