/* SPDX-License-Identifier: MIT */
/* bus/shm: a worker process that does not start, or can not start again, is one sentence that
 * says why; and which program it is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "support/shm_cases.h"

static void a_worker_that_does_not_start_says_why(void **state)
{
    struct office o;
    const char *const options[] = { "start_ms", "1000", NULL };
    (void)state;
    office_open(&o, options);
    int files = office_open_files();
    refused(&o, "{]", LATHE_EFORMAT, "the recipe is no JSON");
    refused(&o, "{\"services\":[]}", LATHE_EFORMAT, "the recipe has 0 services");
    refused(&o, "{\"services\":[{\"service\":\"tokenizer\",\"kind\":\"cook\",\"plugin\":\"/x\",\"name\":\"x\"}]}",
            LATHE_EFORMAT, "is no kind of plugin");
    refused(&o,
            "{\"services\":[{\"service\":\"tokenizer\",\"kind\":\"tokenizer\",\"plugin\":\"/nowhere/"
            "x.so\",\"name\":\"x\"}]}",
            LATHE_EIO, "did not start: tokenizer: /nowhere/x.so");
    char *fails = mischief_recipe("fails"), *dies = mischief_recipe("dies"), *hangs = mischief_recipe("hangs");
    refused(&o, fails, LATHE_ENOTFOUND, "did not start: tokenizer: tokenizer/mischief: the moon is not there");
    refused(&o, dies, LATHE_EUNAVAILABLE, "did not start: exited with status 7");
    refused(&o, hangs, LATHE_EUNAVAILABLE, "it was not ready in time");
    setenv("LATHE_EXECUTABLE", "/nowhere/lathe", 1);
    refused(&o, fails, LATHE_ENOTFOUND, "LATHE_EXECUTABLE is /nowhere/lathe, which is no program");
    unsetenv("LATHE_EXECUTABLE");
    assert_in_range(office_open_files(), 1, files + 1); /* the monitor's own */
    free(fails);
    free(dies);
    free(hangs);
    office_close(&o);
}

static void a_method_that_the_recipe_does_not_make_is_named(void **state)
{
    struct office o;
    struct lathe_error err = { 0 };
    static const struct lathe_service_method other[] = { { .name = "sing", .function = office_nothing } };
    (void)state;
    office_open(&o, NULL);
    char *text = office_recipe("byte");
    struct lathe_service s = office_service(text, 1);
    s.methods = other;
    s.method_count = 1;
    assert_int_equal(o.api->add_service(o.bus, &s, &err), LATHE_EINVAL);
    assert_said(err, "serve no tokenizer.sing");
    free(text);
    office_close(&o);
}

static void a_worker_that_can_not_start_again_is_given_up(void **state)
{
    struct office o;
    struct lathe_error err = { 0 };
    const char *const options[] = { "restarts_max", "3", "retry_attempts", "1", "breaker_window", "0", NULL };
    char sick[] = "/tmp/lathe_shm_sick_XXXXXX", option[64];
    (void)state;
    int fd = mkstemp(sick);
    assert_true(fd >= 0);
    close(fd);
    unlink(sick);
    snprintf(option, sizeof option, "dies while %s", sick);
    office_open(&o, options);
    recipe = mischief_recipe(option);
    service = office_service(recipe, 1);
    OFFICE_MUST(o.api->add_service(o.bus, &service, &err), &err);
    struct office_pair p = office_pair(&o);
    OFFICE_MUST(encode(&o, &p, "nothing", &err), &err);
    fclose(fopen(sick, "w"));
    kill((pid_t)office_health(&o, "tokenizer").pid, SIGKILL);
    await_events(&o, LATHE_BUS_WORKER_DIED, 4); /* one that had served, three that did not start */
    int status;
    while ((status = encode(&o, &p, "nothing", &err)) == LATHE_OK || !strstr(err.message, "given up after 3 deaths"))
        assert_int_equal(status, LATHE_EUNAVAILABLE);
    struct lathe_service_health health = office_health(&o, "tokenizer");
    assert_true(!health.alive && !health.ready && health.workers == 0);
    assert_said(health.last_error, "given up after 3 deaths");
    assert_said(health.last_error, "exited with status 8");
    unlink(sick);
    OFFICE_MUST(o.api->scale(o.bus, "tokenizer", 1, &err), &err); /* it is well again */
    OFFICE_MUST(encode(&o, &p, "nothing", &err), &err);
    assert_true(office_health(&o, "tokenizer").alive);
    office_pair_back(&o, &p);
    close_all(&o);
}

static void what_does_not_fit_into_the_memory_is_refused(void **state)
{
    struct office o;
    struct lathe_error err = { 0 };
    const char *const options[] = { "memory_mb", "8", NULL };
    struct lathe_message *all[64];
    int n = 0;
    (void)state;
    office_open(&o, options);
    assert_null(o.api->loan(o.bus, 9 << 20, &err));
    assert_int_equal(err.code, LATHE_ENOMEM);
    assert_said(err, "raise memory_mb");
    while (n < 64 && (all[n] = o.api->loan(o.bus, 500000, &err)) != NULL)
        n++;
    assert_in_range(n, 14, 16);
    assert_said(err, "7 of 8 MiB of its shared memory are in use");
    struct lathe_message *rest[4096];
    int more = 0;
    while (more < 4096 && (rest[more] = o.api->loan(o.bus, 4096, &err)) != NULL)
        more++;
    char *text = office_recipe("byte");
    refused(&o, text, LATHE_ENOMEM, "no memory for a worker of service 'tokenizer'; raise memory_mb");
    while (more)
        o.api->give_back(o.bus, rest[--more]);
    while (n)
        o.api->give_back(o.bus, all[--n]);
    struct lathe_service s = office_service(text, 1);
    OFFICE_MUST(o.api->add_service(o.bus, &s, &err), &err);
    office_close(&o);
    free(text);
}

/* PREFIX/bin/lathe beside PREFIX/lib/lathe/plugins/bus/shm.so: the one that belongs to the bus is run. */
static void an_installed_bus_runs_the_program_that_was_installed_with_it(void **state)
{
    char prefix[] = "/tmp/lathe_shm_prefix_XXXXXX", command[2000], path[200], program[300];
    struct office o;
    struct lathe_error err = { 0 };
    (void)state;
    assert_non_null(mkdtemp(prefix));
    snprintf(command, sizeof command, "umask 022; cd %s && mkdir -p bin lib/lathe/plugins/bus && "
             "cp %s/lathe bin/ && cp %s/bus/shm.so lib/lathe/plugins/bus/", prefix, TEST_BUILD, TEST_PLUGINS);
    assert_int_equal(system(command), 0);
    snprintf(path, sizeof path, "%s/lib/lathe/plugins", prefix);
    office_open_at(&o, path, NULL);
    recipe = office_recipe("byte");
    service = office_service(recipe, 1);
    OFFICE_MUST(o.api->add_service(o.bus, &service, &err), &err);
    snprintf(path, sizeof path, "/proc/%d/exe", (int)office_health(&o, "tokenizer").pid);
    ssize_t n = readlink(path, program, sizeof program - 1);
    program[n > 0 ? n : 0] = '\0';
    snprintf(path, sizeof path, "%s/bin/lathe", prefix);
    assert_string_equal(program, path);
    close_all(&o);
    snprintf(command, sizeof command, "rm -r %s", prefix);
    assert_int_equal(system(command), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_worker_that_does_not_start_says_why),
        cmocka_unit_test(a_method_that_the_recipe_does_not_make_is_named),
        cmocka_unit_test(a_worker_that_can_not_start_again_is_given_up),
        cmocka_unit_test(what_does_not_fit_into_the_memory_is_refused),
        cmocka_unit_test(an_installed_bus_runs_the_program_that_was_installed_with_it),
    };
    return cmocka_run_group_tests_name("bus/shm: starts", tests, NULL, NULL);
}
