/* SPDX-License-Identifier: MIT */
/* What a run's row says of machine and build, and sums of files that change. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "run_job.h"

static void the_machine_is_valid_json(void **state)
{
    (void)state;
    char *text = machine_json();
    json_t *object = json_loads(text, 0, NULL);
    assert_non_null(object);
    assert_true(json_integer_value(json_object_get(object, "cpus")) >= 1);
    assert_true(json_integer_value(json_object_get(object, "memory_bytes")) > 1 << 20);
    assert_non_null(json_string_value(json_object_get(object, "sqlite")));
    json_decref(object);
    free(text);
}

static void the_commit_is_hexadecimal_or_unknown(void **state)
{
    (void)state;
    int dirty;
    const char *commit = build_commit(&dirty);
    assert_true(commit[0] == '\0' ? dirty == -1 : dirty == 0 || dirty == 1);
    assert_int_equal(strspn(commit, "0123456789abcdef"), strlen(commit));
}

static void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static void a_sum_is_remembered_until_the_file_changes(void **state)
{
    (void)state;
    char path[] = "machine_test_XXXXXX", hex[65];
    struct lathe_error err;
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    write_file(path, "abc"); /* FIPS 180-4, example B.1 */
    for (int i = 0; i < 2; i++) {
        assert_int_equal(file_sha256_cached(path, hex, &err), 0);
        assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
    write_file(path, "");
    assert_int_equal(file_sha256_cached(path, hex, &err), 0);
    assert_string_equal(hex, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    unlink(path);
    assert_int_equal(file_sha256_cached(path, hex, &err), LATHE_EIO);
    assert_non_null(strstr(err.message, path));
    assert_int_equal(file_sha256_cached("/", hex, &err), LATHE_EIO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_machine_is_valid_json),
        cmocka_unit_test(the_commit_is_hexadecimal_or_unknown),
        cmocka_unit_test(a_sum_is_remembered_until_the_file_changes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
