/* SPDX-License-Identifier: MIT */
/* scheduler/lua and policies that mean ill, or are wrong: always a status and one sentence, never a
 * crash, a hang or a byte that isn't given back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "policy_fixture.h"

static struct lathe_request requests[3];
static const struct lathe_request *live[3] = { &requests[0], &requests[1], &requests[2] };
static const struct lathe_step_view view = { .size = sizeof view, .live = live, .live_count = 3, .now_ns = 2000000000 };

static int setup(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 3; i++)
        requests[i] = (struct lathe_request){ .size = sizeof *requests, .index = i, .id = i + 1, .prompt_tokens = 10 * (3 - i),
                                              .state = LATHE_REQUEST_WAITING, .planned_ns = i, .admitted_ns = -1,
                                              .first_token_ns = -1, .deadline_ns = INT64_MAX };
    return 0;
}

/* Through a whole life; the first status that isn't 0, with its sentence in `err`. */
static int live_with(const char *const *settings, struct lathe_error *err)
{
    struct scheduler s;
    struct ranked r;
    memset(err, 0, sizeof *err);
    setup(NULL);
    int status = scheduler_open(&s, "lua", settings, err);
    for (uint32_t i = 0; !status && i < 3; i++)
        status = s.api->admit(s.self, &requests[i], err);
    for (uint32_t step = 0; !status && step < 3; step++) {
        if ((status = scheduler_rank(&s, &view, &r, err)) != LATHE_OK)
            break;
        requests[step].state = LATHE_REQUEST_RUNNING;
        s.api->progress(s.self, &requests[step], 5);
        s.api->victim(s.self, &view, &requests[1]);
    }
    if (!status) {
        requests[0].state = LATHE_REQUEST_FINISHED;
        s.api->retire(s.self, &requests[0]);
        status = scheduler_rank(&s, &view, &r, err);
    }
    assert_int_equal(scheduler_close(&s), 0);
    return status;
}

static void expect(const char *text, int wanted, const char *part)
{
    struct lathe_error err;
    int status = live_with((const char *const[]){ "text", text, "instructions", "100000", NULL }, &err);
    if (status != wanted || (wanted && (!strstr(err.message, part) || strchr(err.message, '\n'))))
        fail_msg("%s\nended with %d: %s\nexpected %d: %s", text, status, err.message, wanted, part);
}

/* In the chunk, in a key and in a rank: the same body is met by the same guard. */
static void everywhere(const char *body, int wanted, const char *part)
{
    char text[2000];
    snprintf(text, sizeof text, "do\n%s\nend return { key = function(r) return 1 end }", body);
    expect(text, wanted, part);
    snprintf(text, sizeof text, "return { key = function(r) do\n%s\nend return 1 end }", body);
    expect(text, wanted, part);
    snprintf(text, sizeof text, "return { rank = function(view, requests) do\n%s\nend return requests end }", body);
    expect(text, wanted, part);
    snprintf(text, sizeof text, "return { key = function() return 1 end, progress = function(r, tokens)\n%s\nend }", body);
    expect(text, wanted, part);
    snprintf(text, sizeof text, "return { key = function() return 1 end, retire = function(r)\n%s\nend }", body);
    expect(text, wanted, part);
}

static void loops_end(void **state)
{
    (void)state;
    everywhere("while true do end", LATHE_EINVAL, "instructions");
    everywhere("while true do pcall(function() while true do end end) end", LATHE_EINVAL, "instructions");
    everywhere("local function f() pcall(f) return f() end f()", LATHE_EINVAL, "instructions");
    everywhere("while true do pcall(error) end", LATHE_EINVAL, "instructions");
    everywhere("while true do local x <close> = setmetatable({}, { __close = function() while true do end end }) end", LATHE_EINVAL,
               "instructions");
    everywhere("goto a ::a:: goto a", LATHE_EINVAL, "instructions");
    everywhere("table.sort({ 3, 2, 1, 5, 4 }, function() while true do end end)", LATHE_EINVAL, "instructions");
    everywhere("local t = setmetatable({}, { __index = function(t, k) return t[k + 1] end }) return t[1]", LATHE_EINVAL, "");
    expect("return { key = function()\n\n while true do end end }", LATHE_EINVAL, "policy:3: ");
}

static void what_no_hook_sees_is_absent(void **state)
{
    (void)state;
    everywhere("coroutine.wrap(function() while true do end end)()", LATHE_EINVAL, "no coroutine");
    everywhere("xpcall(function() while true do end end, function() while true do end end)", LATHE_EINVAL, "no xpcall");
    everywhere("return (('a'):rep(30)):find(('a*'):rep(20) .. 'b')", LATHE_EINVAL, "no string.find");
    everywhere("return (''):gsub('', '')", LATHE_EINVAL, "no string.gsub");
    everywhere("setmetatable({}, { __gc = function() while true do end end })", LATHE_EINVAL, "__gc");
    everywhere("setmetatable({}, { __mode = 'k' })", LATHE_EINVAL, "__mode");
    everywhere("collectgarbage('stop')", LATHE_EINVAL, "no collectgarbage");
    everywhere("table.move({}, 1, 1 << 60, 2)", LATHE_EINVAL, "no table.move");
}

static void nothing_reaches_the_system(void **state)
{
    static const char *const names[] = { "io", "os", "debug", "package", "require", "load", "loadfile", "dofile", "print", "utf8" };
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char body[100], part[100];
        snprintf(body, sizeof body, "return %s.x", names[i]);
        snprintf(part, sizeof part, ": a policy has no %s:", names[i]);
        everywhere(body, LATHE_EINVAL, part);
    }
    everywhere("return string.dump(function() end)", LATHE_EINVAL, "no string.dump");
    everywhere("getmetatable(_G).__index = nil", LATHE_EINVAL, "policy:");
    everywhere("setmetatable(_G, nil)", LATHE_EINVAL, "protected");
    everywhere("x = 1", LATHE_EINVAL, "undeclared global x");
    expect("return { key = function(r) return getmetatable(r).__index(1, 2) end }", LATHE_EINVAL, "policy:1:");
    expect("return { key = function(r) setmetatable(r, {}) return 1 end }", LATHE_EINVAL, "policy:1:");
    expect("\x1bLua\x54", LATHE_EINVAL, "attempt to load a binary chunk");
}

static void memory_is_bounded(void **state)
{
    (void)state;
    everywhere("return ('x'):rep(10000000000)", LATHE_EINVAL, "instructions");
    everywhere("return ('x'):rep(1e10)", LATHE_EINVAL, "instructions");
    everywhere("return (''):rep(2.0 ^ 62)", LATHE_EINVAL, "instructions");
    everywhere("return (''):rep('0x4000000000000000')", LATHE_EINVAL, "instructions");
    everywhere("return (''):rep(1 << 62)", LATHE_EINVAL, "instructions");
    everywhere("local s = 'x' while true do s = s .. s end", LATHE_ENOMEM, "memory_mb");
    everywhere("local t = {} while true do t[#t + 1] = {} end", LATHE_EINVAL, "instructions");
    everywhere("local s = 'x' while true do pcall(function() s = s .. s end) end", LATHE_EINVAL, "instructions");
    everywhere("local function f() return 1 + f() end f()", LATHE_ENOMEM, "memory_mb");
    everywhere("local function f() f() end pcall(f) pcall(f) error 'again'", LATHE_EINVAL, "instructions");
    everywhere("return table.concat(setmetatable({}, { __index = rawlen }), '', 1, 1 << 60)", LATHE_EINVAL, "metatable");
    everywhere("local t = {} for i = 0, 62 do t[1 << i], t[(1 << i) + 1] = 1, 1 end assert(#t > 1 << 60) table.insert(t, 1, 2)",
               LATHE_EINVAL, "instructions");
    everywhere("return table.unpack({}, 1, 1e8)", LATHE_EINVAL, "policy:");
    everywhere("return string.format('%9999d', 1)", LATHE_EINVAL, "policy:");
    struct lathe_error err;
    assert_int_equal(live_with((const char *const[]){ "text", "local t = {} while true do t[#t + 1] = {} end", "instructions",
                                                      "1000000000", NULL }, &err), LATHE_ENOMEM);
}

static void errors_of_any_kind_are_one_sentence(void **state)
{
    (void)state;
    everywhere("error({ code = 1 })", LATHE_EINVAL, "no text but a table");
    everywhere("error()", LATHE_EINVAL, "no text but a nil");
    everywhere("error(setmetatable({}, { __tostring = function() while true do end end }))", LATHE_EINVAL, "no text but a table");
    everywhere("error 'two\\nlines'", LATHE_EINVAL, "two lines");
    everywhere("error(('x'):rep(5000))", LATHE_EINVAL, "xxxx");
    everywhere("local a = nil return a.b", LATHE_EINVAL, "policy:");
}

static void rankings_are_checked(void **state)
{
#define RANK(body) "return { rank = function(view, requests) " body " end }"
    (void)state;
    expect(RANK("return requests"), LATHE_OK, "");
    expect(RANK("return {}, nil, view.now + 1"), LATHE_OK, "");
    expect(RANK("return { requests[1], requests[1] }"), LATHE_EINVAL, "policy:1: request 1 stands in the order twice");
    expect(RANK("return nil"), LATHE_EINVAL, "policy:1: rank must return an array");
    expect(RANK("return 3"), LATHE_EINVAL, "rank must return an array");
    expect(RANK("return { 3 }"), LATHE_EINVAL, "element 1 of the order is number");
    expect(RANK("return { requests[1], {} }"), LATHE_EINVAL, "element 2 of the order is table");
    expect(RANK("return { requests }"), LATHE_EINVAL, "element 1 of the order is table");
    expect(RANK("return requests[1]"), LATHE_EINVAL, "rank must return an array");
    expect(RANK("return requests, { requests[3] }"), LATHE_EINVAL, "doesn't run is to be preempted");
    expect(RANK("return requests, 1"), LATHE_EINVAL, "second result");
    expect(RANK("return requests, nil, 'soon'"), LATHE_EINVAL, "third result");
    expect(RANK("return requests, nil, 0/0"), LATHE_EINVAL, "third result");
    expect(RANK("return requests, nil, 1e300"), LATHE_OK, "");
    expect(RANK("requests[9] = 1 requests[4] = 2 requests[2] = nil return {}"), LATHE_OK, "");
    expect(RANK("return setmetatable({}, { __len = function() return 1 << 60 end })"), LATHE_OK, "");
    expect("local first return { rank = function(view, requests) first = first or requests[1] return { first } end }", LATHE_EINVAL,
           "a request that has finished");
    expect("local first return { key = function(r) first = first or r return 1 end, retire = function(r) end,\n"
           " admit = function(r) r.notes.x = 1 end, dynamic = 'step', victim = function(running, needy) return first end }",
           LATHE_OK, "");
    expect("local first return { dynamic = 'step', key = function(r) first = first or r return first.prompt_tokens end }",
           LATHE_EINVAL, "policy:1: a request that has finished is asked for its prompt_tokens");
}

static void keys_are_checked(void **state)
{
    (void)state;
    expect("return { key = function(r) return 0/0 end }", LATHE_EINVAL, "policy:1: the key of request 1 is not a number (0/0)");
    expect("return { key = function(r) end }", LATHE_EINVAL, "the key of request 1 is nil");
    expect("return { key = function(r) return '1' end }", LATHE_EINVAL, "is string");
    expect("return { key = function(r) return 1, {} end }", LATHE_EINVAL, "is table");
    expect("return { key = function(r) return math.huge, -math.huge end }", LATHE_OK, "");
    expect("return { key = function(r) r.id = 2 return 1 end }", LATHE_EINVAL, "r.notes");
}

static void tables_are_checked(void **state)
{
    (void)state;
    expect("", LATHE_EINVAL, "as `file` or as `text`");
    expect("return", LATHE_EINVAL, "a policy returns a table");
    expect("return {}", LATHE_EINVAL, "neither");
    expect("return { key = function() end, rank = function() end }", LATHE_EINVAL, "both");
    expect("return { key = 1 }", LATHE_EINVAL, "must be a function");
    expect("return { key = math.abs }", LATHE_EINVAL, "library's");
    expect("return { key = function() return 1 end, victm = 1 }", LATHE_EINVAL, "no field victm");
    expect("return { key = function() return 1 end, 7 }", LATHE_EINVAL, "no field number");
    expect("return { key = function() return 1 end, promises = { 'all' } }", LATHE_EINVAL, "no promise all");
    expect("return { key = function() return 1 end, promises = 1 }", LATHE_EINVAL, "promises");
    expect("return { key = function() return 1 end, dynamic = 'often' }", LATHE_EINVAL, "dynamic");
    expect("return { key = function() return 1 end, preemptive = 1 }", LATHE_EINVAL, "preemptive");
    expect("return { key = function() return 1 end, name = {} }", LATHE_EINVAL, "name");
    expect("return {", LATHE_EINVAL, "policy:1:");
    struct lathe_error err;
    assert_int_equal(live_with((const char *const[]){ "file", "/no/such.lua", NULL }, &err), LATHE_EINVAL);
    assert_non_null(strstr(err.message, "/no/such.lua"));
    assert_int_equal(live_with((const char *const[]){ "file", "/", NULL }, &err), LATHE_EINVAL);
    assert_int_equal(live_with((const char *const[]){ "text", "return 1", "options", "a=1,b", NULL }, &err), LATHE_EINVAL);
    assert_non_null(strstr(err.message, "\"b\""));
}

static void options_are_numbers_texts_and_booleans(void **state)
{
    struct lathe_error err;
    (void)state;
    assert_int_equal(live_with((const char *const[]){
        "text", "assert(options.a == 1 and options.b == 'x y' and options.c == true and options.d == 2.5 and options.e == '')\n"
                "assert(options.f == nil) return { key = function() return options.a end }",
        "options", "a=1,b=x y;c=true;d=2.5,e=", NULL }, &err), LATHE_OK);
}

/* The victim may fail: nobody gives way, and the engine goes on. */
static void a_failing_victim_is_nobody(void **state)
{
    static const char *const victims[] = { "error 'no'", "while true do end", "return 1", "return {}", "return running", "return nil" };
    (void)state;
    for (size_t i = 0; i < sizeof victims / sizeof *victims; i++) {
        char text[200];
        struct lathe_error err;
        struct scheduler s;
        struct ranked r;
        snprintf(text, sizeof text, "return { key = function() return 1 end, victim = function(running, needy) %s end }", victims[i]);
        setup(NULL);
        assert_int_equal(scheduler_open(&s, "lua", (const char *const[]){ "text", text, NULL }, &err), LATHE_OK);
        for (uint32_t k = 0; k < 3; k++) {
            assert_int_equal(s.api->admit(s.self, &requests[k], &err), LATHE_OK);
            requests[k].state = LATHE_REQUEST_RUNNING;
        }
        assert_null(s.api->victim(s.self, &view, &requests[0]));
        assert_int_equal(scheduler_rank(&s, &view, &r, &err), LATHE_OK);
        assert_int_equal(scheduler_close(&s), 0);
    }
}

/* Memory of every size, from none to enough: an allocation fails at every place there is. */
static void any_amount_of_memory_ends_well(void **state)
{
    static const char text[] =
        "local served = {}\n"
        "return { name = 'x', dynamic = 'step', admit = function(r) r.notes.since = { r.id } end,\n"
        "  key = function(r, now) served[r.id] = { now, ('%d'):format(r.id) } return #served[r.id], r.notes.since[1] end,\n"
        "  progress = function(r, tokens) served[#served + 1] = tokens .. 'x' end,\n"
        "  victim = function(running, needy) return running[#running] end, retire = function(r) r.notes.x = {} end }";
    int failures = 0, status = LATHE_ENOMEM;
    (void)state;
    for (int bytes = 1100; bytes < 200000; bytes += 96) {
        char mb[32];
        struct lathe_error err;
        snprintf(mb, sizeof mb, "%.9f", bytes / 1048576.0);
        status = live_with((const char *const[]){ "text", text, "memory_mb", mb, NULL }, &err);
        if (status != LATHE_OK && (status != LATHE_ENOMEM || !err.message[0]))
            fail_msg("%d bytes: %d: %s", bytes, status, err.message);
        failures += status != LATHE_OK;
    }
    assert_true(failures > 100);
    assert_int_equal(status, LATHE_OK);
}

/* What is thrown away in each step is collected between steps. */
static void garbage_does_not_pile_up(void **state)
{
    struct lathe_error err;
    struct scheduler s;
    struct ranked r;
    (void)state;
    assert_int_equal(scheduler_open(&s, "lua", (const char *const[]){
        "text", "return { rank = function(view, requests) local t = {} for i = 1, 100 do t[i] = { i } end return requests end }",
        "memory_mb", "0.25", NULL }, &err), LATHE_OK);
    for (int i = 0; i < 2000; i++)
        assert_int_equal(scheduler_rank(&s, &view, &r, &err), LATHE_OK);
    assert_int_equal(scheduler_close(&s), 0);
}

static void a_random_policy_repeats_itself(void **state)
{
    double found[2];
    (void)state;
    for (int k = 0; k < 2; k++) {
        struct lathe_error err;
        struct scheduler s;
        struct ranked r;
        assert_int_equal(scheduler_open(&s, "lua", (const char *const[]){
            "text", "return { rank = function() return {}, nil, math.random() end }", NULL }, &err), LATHE_OK);
        assert_int_equal(scheduler_rank(&s, &view, &r, &err), LATHE_OK);
        found[k] = (double)r.ranking.wake_ns;
        assert_int_equal(scheduler_close(&s), 0);
    }
    assert_true(found[0] == found[1] && found[0] > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(loops_end),
        cmocka_unit_test(what_no_hook_sees_is_absent),
        cmocka_unit_test(nothing_reaches_the_system),
        cmocka_unit_test(memory_is_bounded),
        cmocka_unit_test(errors_of_any_kind_are_one_sentence),
        cmocka_unit_test(rankings_are_checked),
        cmocka_unit_test(keys_are_checked),
        cmocka_unit_test(tables_are_checked),
        cmocka_unit_test(options_are_numbers_texts_and_booleans),
        cmocka_unit_test(a_failing_victim_is_nobody),
        cmocka_unit_test(any_amount_of_memory_ends_well),
        cmocka_unit_test(garbage_does_not_pile_up),
        cmocka_unit_test(a_random_policy_repeats_itself),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
