/* SPDX-License-Identifier: MIT */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "log.h"

static char path[] = "/tmp/lathe-log-XXXXXX";

static int open_file(void **state)
{
    int fd = mkstemp(path);
    struct lathe_error err;
    (void)state;
    close(fd);
    setenv("LATHE_LOG_FILE", path, 1);
    setenv("LATHE_LOG", "info", 1);
    return log_open(&err) == LATHE_OK && fd >= 0 ? 0 : -1;
}

static int remove_file(void **state)
{
    (void)state;
    return unlink(path);
}

/* Line n of the file, from 0, as JSON. */
static json_t *line(int n)
{
    char text[8192];
    json_error_t why;
    json_t *json = NULL;
    FILE *file = fopen(path, "r");
    for (int i = 0; fgets(text, sizeof text, file); i++)
        if (i == n) {
            json = json_loads(text, 0, &why);
            if (!json)
                fail_msg("%s: %s", why.text, text);
        }
    fclose(file);
    return json;
}

static const char *member(const json_t *json, const char *name)
{
    return json_string_value(json_object_get(json, name));
}

static void a_line_is_one_json_object(void **state)
{
    (void)state;
    log_write(LATHE_LOG_WARN, "scheduler/fcfs", "req-7", "\"step\": 12", "it said \"%s\"\nand \xff went", "no");
    json_t *json = line(0);
    assert_non_null(json);
    assert_string_equal(member(json, "level"), "warn");
    assert_string_equal(member(json, "from"), "scheduler/fcfs");
    assert_string_equal(member(json, "correlation_id"), "req-7");
    assert_string_equal(member(json, "message"), "it said \"no\"\nand \xef\xbf\xbd went");
    assert_int_equal(json_integer_value(json_object_get(json, "step")), 12);
    assert_int_equal(strlen(member(json, "time")), strlen("2026-01-01T00:00:00.000000Z"));
    json_decref(json);
}

static void levels_below_the_chosen_one_are_silent(void **state)
{
    (void)state;
    assert_false(log_enabled(LATHE_LOG_DEBUG));
    assert_true(log_enabled(LATHE_LOG_INFO));
    log_write(LATHE_LOG_DEBUG, "test", NULL, NULL, "not this");
    log_write(LATHE_LOG_INFO, "test", NULL, NULL, "but this");
    json_t *json = line(1);
    assert_string_equal(member(json, "message"), "but this");
    assert_null(json_object_get(json, "correlation_id"));
    json_decref(json);
    assert_null(line(2));
}

static void bad_settings_are_a_sentence_and_change_nothing(void **state)
{
    struct lathe_error err;
    (void)state;
    setenv("LATHE_LOG", "inof", 1);
    assert_int_equal(log_open(&err), LATHE_EINVAL);
    assert_non_null(strstr(err.message, "did you mean info?"));
    setenv("LATHE_LOG", "info", 1);
    setenv("LATHE_LOG_FILE", "/nowhere/log", 1);
    assert_int_equal(log_open(&err), LATHE_EIO);
    setenv("LATHE_LOG_FILE", path, 1);
    assert_true(log_enabled(LATHE_LOG_INFO));
}

enum { THREADS = 4, LINES = 500 };

static void *write_lines(void *user)
{
    for (int i = 0; i < LINES; i++)
        log_write(LATHE_LOG_ERROR, "thread", user, NULL, "line %d of a thread that writes at some length", i);
    return NULL;
}

static void lines_of_several_threads_stay_whole(void **state)
{
    static char names[THREADS][8];
    pthread_t threads[THREADS];
    int count = 0;
    (void)state;
    for (int i = 0; i < THREADS; i++) {
        snprintf(names[i], sizeof names[i], "t%d", i);
        assert_int_equal(pthread_create(&threads[i], NULL, write_lines, names[i]), 0);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    char text[8192];
    FILE *file = fopen(path, "r");
    while (fgets(text, sizeof text, file)) {
        json_t *json = json_loads(text, 0, NULL);
        if (!json)
            fail_msg("broken line: %s", text);
        count += strcmp(member(json, "from"), "thread") == 0;
        json_decref(json);
    }
    fclose(file);
    assert_int_equal(count, THREADS * LINES);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_line_is_one_json_object),
        cmocka_unit_test(levels_below_the_chosen_one_are_silent),
        cmocka_unit_test(bad_settings_are_a_sentence_and_change_nothing),
        cmocka_unit_test(lines_of_several_threads_stay_whole),
    };
    return cmocka_run_group_tests_name("log", tests, open_file, remove_file);
}
