/* SPDX-License-Identifier: MIT */
/* The state that a policy runs in: what it leaves behind is collected between the calls, and a call
 * that failed takes nothing from the next. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "sandbox.h"
#include "support/counting_host.h"

static struct counting_host host;
static struct sandbox s;
static struct lathe_error err;

static int setup(void **state)
{
    (void)state;
    return sandbox_open(&s, counting_host_init(&host), 4.0, 100000, &err);
}

static int teardown(void **state)
{
    (void)state;
    sandbox_close(&s);
    return host.live_blocks != 0;
}

static int run_text(lua_State *L)
{
    const char *text = lua_touserdata(L, 1);
    if (luaL_loadbufferx(L, text, strlen(text), "=text", "t"))
        return lua_error(L);
    lua_call(L, 0, 0);
    return 0;
}

static int run(const char *text)
{
    return sandbox_call(&s, run_text, (void *)(uintptr_t)text, "text", &err);
}

static void garbage_is_collected_between_calls(void **state)
{
    size_t least = SIZE_MAX, most = 0;
    (void)state;
    for (int i = 0; i < 500; i++) {
        assert_int_equal(run("local t = {} for i = 1, 1000 do t[i] = { i, tostring(i) .. 'x' } end"), LATHE_OK);
        sandbox_collect(&s);
        if (i >= 20) {
            least = s.pool.used < least ? s.pool.used : least;
            most = s.pool.used > most ? s.pool.used : most;
        }
    }
    assert_true(most < 1024 * 1024); /* of 4 MB; a call makes 200 KB */
    assert_true(least > 0);
}

static void a_call_that_was_ended_takes_nothing_from_the_next(void **state)
{
    (void)state;
    for (int i = 0; i < 20; i++) {
        assert_int_equal(run("while true do end"), LATHE_EINVAL);
        assert_non_null(strstr(err.message, "text:1: text took more than the 100000 instructions"));
        assert_int_equal(run("for i = 1, 20000 do end"), LATHE_OK);
        assert_int_equal(run("error {}"), LATHE_EINVAL);
        assert_int_equal(run("local s = 'x' while true do s = s .. s end"), LATHE_ENOMEM);
        assert_int_equal(lua_gettop(s.L), 0);
    }
}

/* The budget is a call's: as many instructions as it has, at the same place every time. */
static void the_same_text_fails_at_the_same_place(void **state)
{
    (void)state;
    assert_int_equal(run("for i = 1, 200 do end"), LATHE_OK);
    assert_int_equal(run("for i = 1, 99000 do end"), LATHE_OK);
    assert_int_equal(run("for i = 1, 101000 do end"), LATHE_EINVAL);
}

static void figures_count_instructions_and_calls(void **state)
{
    (void)state;
    s.instructions = s.calls = 0;
    assert_int_equal(run("for i = 1, 10000 do end"), LATHE_OK);
    assert_int_equal(s.calls, 1);
    assert_true(s.instructions > 9800 && s.instructions < 10300);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(garbage_is_collected_between_calls, setup, teardown),
        cmocka_unit_test_setup_teardown(a_call_that_was_ended_takes_nothing_from_the_next, setup, teardown),
        cmocka_unit_test_setup_teardown(the_same_text_fails_at_the_same_place, setup, teardown),
        cmocka_unit_test_setup_teardown(figures_count_instructions_and_calls, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
