/* SPDX-License-Identifier: MIT */
/* plugins/model/sim: what slices count as, what steps cost, and how tables and profiles are read. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cost.h>

static struct lathe_error err;

static struct sim_table table_of(const char *text)
{
    struct sim_table table;
    if (sim_table_read("here", text, &table, &err))
        fail_msg("%s", err.message);
    return table;
}

static void assert_near(double found, double expected)
{
    if (!(fabs(found - expected) <= 1e-9 * (1.0 + fabs(expected))))
        fail_msg("found %.12g, expected %.12g", found, expected);
}

static int64_t ns_of(const struct sim_cost *cost, struct sim_work work)
{
    return sim_duration_ns(cost, &work, 1, 1);
}

static void counts_slices(void **state)
{
    struct sim_work w = { 0 };
    (void)state;
    sim_work_add(&w, &(struct lathe_slice){ .token_count = 10, .first_position = 5 }); /* cut: no output */
    sim_work_add(&w, &(struct lathe_slice){ .token_count = 4, .output_count = 1 });
    sim_work_add(&w, &(struct lathe_slice){ .token_count = 1, .first_position = 7, .output_count = 1 });
    sim_work_add(&w, &(struct lathe_slice){ .token_count = 1, .output_count = 1 }); /* a prompt of one token */
    sim_work_add(&w, &(struct lathe_slice){ .token_count = 6, .flags = LATHE_SLICE_PADDING });
    assert_int_equal(w.prefill_tokens, 15);
    assert_int_equal(w.prefill_context, (50 + 45) + 6);
    assert_int_equal(w.decode_tokens, 1);
    assert_int_equal(w.decode_context, 8);
    assert_int_equal(w.padding_tokens, 6);
    assert_int_equal(w.outputs, 3);
}

static void adds_up_the_line(void **state)
{
    const struct sim_cost cost = { .step_us = 1000, .prefill_us = 10, .prefill_context_ns = 100, .decode_us = 20,
                                   .decode_context_ns = 200, .padding_us = 5, .swap_us = 50 };
    const struct sim_work work = { .prefill_tokens = 3, .prefill_context = 30, .decode_tokens = 2, .decode_context = 40,
                                   .padding_tokens = 4, .moved_blocks = 2, .outputs = 3 };
    struct sim_cost floored = cost;
    (void)state;
    assert_int_equal(ns_of(&cost, work), 1000 * (1000 + 30 + 3 + 40 + 8 + 20 + 100));
    floored.floor_us = 5000;
    assert_int_equal(ns_of(&floored, work), 5000000);
    assert_int_equal(ns_of(&(struct sim_cost){ 0 }, work), 1); /* time goes on */
    assert_true(ns_of(&(struct sim_cost){ .step_us = 1e12, .prefill_us = 1e12 }, (struct sim_work){ .prefill_tokens = 1u << 30 }) > 0);
}

static void adds_the_tables(void **state)
{
    struct sim_cost cost = { .rows = table_of("1:1000, 8:1700, 9:3000"), .rest = table_of("1:7, 2:5, 3:11"),
                             .outputs = table_of("2:60") };
    (void)state;
    assert_near(sim_rest_at(&cost.rest, &cost.rows, 9), 0); /* a knot of rows says all */
    assert_near(sim_rest_at(&cost.rest, &cost.rows, 13), 7);
    assert_near(sim_rest_at(&cost.rest, &cost.outputs, 3), 11);
    assert_near(sim_rest_at(&cost.rest, &cost.rows, 12), 0);
    /* 8 rows of three kinds, of them 3 give a token: 1700 + 90 */
    assert_int_equal(ns_of(&cost, (struct sim_work){ .prefill_tokens = 3, .decode_tokens = 2, .padding_tokens = 3, .outputs = 3 }),
                     1790000);
    assert_int_equal(ns_of(&cost, (struct sim_work){ .decode_tokens = 3 }), 1211000);  /* 1000 + 2 · 100 + 11 */
    assert_int_equal(ns_of(&cost, (struct sim_work){ .decode_tokens = 10 }), 4305000); /* on along 8 to 9, and 5 */
    cost.step_us = 1;
    assert_int_equal(ns_of(&cost, (struct sim_work){ .outputs = 1 }), 31000);
}

static void noise_has_mean_one_and_is_of_its_step(void **state)
{
    const struct sim_cost cost = { .step_us = 1000, .noise = 0.2 };
    const struct sim_work work = { .decode_tokens = 1 };
    double sum = 0;
    (void)state;
    for (uint64_t i = 0; i < 20000; i++)
        sum += (double)sim_duration_ns(&cost, &work, 3, i);
    assert_true(fabs(sum / 20000 - 1e6) < 1e4); /* 7 standard errors */
    assert_int_equal(sim_duration_ns(&cost, &work, 3, 9), sim_duration_ns(&cost, &work, 3, 9));
    assert_int_not_equal(sim_duration_ns(&cost, &work, 3, 9), sim_duration_ns(&cost, &work, 4, 9));
}

static void looks_up_tables(void **state)
{
    const struct sim_table empty = table_of(""), one = table_of(" 4:40 "), many = table_of("2:100,4:80 , 10:200"),
                           falling = table_of("1:10, 2:1");
    (void)state;
    assert_near(sim_table_at(&empty, 5), 0);
    assert_near(sim_table_at(&one, 2), 20);
    assert_near(sim_table_at(&one, 4), 40);
    assert_near(sim_table_at(&one, 400), 4000);
    assert_near(sim_table_at(&many, 0), 0);
    assert_near(sim_table_at(&many, 1), 50);
    assert_near(sim_table_at(&many, 2), 100);
    assert_near(sim_table_at(&many, 3), 90);
    assert_near(sim_table_at(&many, 4), 80);
    assert_near(sim_table_at(&many, 7), 140);
    assert_near(sim_table_at(&many, 10), 200);
    assert_near(sim_table_at(&many, 16), 320);
    assert_near(sim_table_at(&falling, 50), 0); /* never less than nothing */
    assert_near(sim_rest_at(&empty, &empty, 5), 0);
}

static void refuses_tables(void **state)
{
    static const char *const wrong[] = { "5", "1:", ":3", "1:2,", "1:2 3:4", "2:1, 2:3", "3:1, 2:3", "0:1", "-1:2", "1.5:2", "1:-2",
                                         "1:nan", "1:2x", "1:inf", "x", "," };
    struct sim_table table;
    char text[SIM_TABLE_MOST * 8 + 16] = "";
    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_int_equal(sim_table_read("here", wrong[i], &table, &err), LATHE_EINVAL);
        assert_non_null(strstr(err.message, "here should be at:microseconds"));
    }
    for (int i = 0; i <= SIM_TABLE_MOST; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), "%s%d:1", i ? "," : "", i + 1);
    assert_int_equal(sim_table_read("here", text, &table, &err), LATHE_ERANGE);
    assert_int_equal(sim_table_read("here", "1:5, 3:6", &table, &err), LATHE_OK);
    assert_int_equal(sim_rest_check("here", &table, &err), LATHE_EINVAL);
    assert_non_null(strstr(err.message, "2 is missing"));
}

/* A profile with this text. */
static int read_profile(const char *text, struct sim_profile *profile)
{
    const char *path = "sim_cost_test.profile";
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
    int status = sim_profile_read(path, profile, &err);
    remove(path);
    return status;
}

static void reads_profiles(void **state)
{
    struct sim_profile p;
    (void)state;
    assert_int_equal(read_profile("# a machine\n\n  step_us=3.5e3 # with a word\nnoise = 0\nrows_us = 1:5, 2:7\nrest_us=1:3\noutputs_us =\n", &p),
                     LATHE_OK);
    assert_near(p.values[SIM_STEP], 3500);
    assert_true(p.given[SIM_STEP] && p.given[SIM_NOISE] && p.given[SIM_COST_COUNT + SIM_ROWS] && !p.given[SIM_FLOOR]);
    assert_int_equal(p.tables[SIM_ROWS].count, 2);
    assert_near(p.tables[SIM_ROWS].us[1], 7);
    assert_int_equal(p.tables[SIM_REST].count, 1);
    assert_int_equal(p.tables[SIM_OUTPUTS].count, 0);
}

static void refuses_profiles(void **state)
{
    static const struct { const char *text, *message; } wrong[] = {
        { "step_us\n", ":1: expected name = value" },
        { "\nsteps_us = 1\n", ":2: a profile has no \"steps_us\"" },
        { "step_us = -1\n", ":1: step_us should be a number from 0 to 1e12" },
        { "step_us = much\n", "not \"much\"" },
        { "step_us =\n", "step_us should be a number" },
        { "step_us = 1\nstep_us = 1\n", ":2: step_us is given twice" },
        { "rows_us = 1:2\nrows_us = 1:2\n", ":2: rows_us is given twice" },
        { "rows_us = 3:1, 2:1\n", ":1: rows_us should be at:microseconds" },
        { "rest_us = 2:1\n", ":1: rest_us should name every remainder from 1 on: 1 is missing" },
    };
    struct sim_profile p;
    char *line = calloc(1, 6000);
    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_int_equal(read_profile(wrong[i].text, &p), LATHE_EINVAL);
        if (!strstr(err.message, wrong[i].message))
            fail_msg("\"%s\" is not in: %s", wrong[i].message, err.message);
    }
    assert_non_null(line);
    memset(line, ' ', 5000);
    assert_int_equal(read_profile(line, &p), LATHE_EINVAL);
    assert_non_null(strstr(err.message, "bytes"));
    free(line);
    assert_int_equal(sim_profile_read("no/such/profile", &p, &err), LATHE_EIO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts_slices),
        cmocka_unit_test(adds_up_the_line),
        cmocka_unit_test(adds_the_tables),
        cmocka_unit_test(noise_has_mean_one_and_is_of_its_step),
        cmocka_unit_test(looks_up_tables),
        cmocka_unit_test(refuses_tables),
        cmocka_unit_test(reads_profiles),
        cmocka_unit_test(refuses_profiles),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
