/* SPDX-License-Identifier: MIT */
/* The directory of a bus: what is refused, whose workers serve whom, advice on unknown names,
 * and that nothing is kept of what failed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "support/counting_host.h"
#include <bus/directory.h>

static int nothing(void *self, const void *in, void *out, struct lathe_error *err)
{
    (void)self, (void)in, (void)out, (void)err;
    return LATHE_OK;
}

static int self_a, self_b;
static const struct lathe_service_method methods[] = { { .name = "forward", .function = nothing, .self = &self_a },
                                                       { .name = "describe", .function = nothing, .self = &self_b } };
static const struct lathe_service model = { .size = sizeof model, .name = "model", .methods = methods,
                                            .method_count = 2 };

static struct counting_host counting;
static struct directory d;
static struct directory_service *s;
static struct lathe_error err;

static int prepare(void **state)
{
    (void)state;
    d = (struct directory){ .host = counting_host_init(&counting), .bus = "test" };
    return 0;
}

static int clear(void **state)
{
    (void)state;
    while (d.services) {
        struct directory_service *next = d.services->next;
        directory_free(&d, d.services);
        d.services = next;
    }
    return counting.live_blocks != 0;
}

static void endpoints_are_the_methods_until_changed(void **state)
{
    const struct lathe_endpoint *e;
    (void)state;
    assert_int_equal(directory_add(&d, &model, &s, &err), LATHE_OK);
    assert_ptr_equal(s->with, s);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(directory_resolve(&d, i ? "model.describe" : "model.forward", &e, &err), LATHE_OK);
        assert_ptr_equal(e, &s->endpoints[i]);
        assert_ptr_equal(e->call, nothing);
        assert_ptr_equal(e->self, methods[i].self);
        assert_int_equal(e->id, i);
    }
}

/* More than there are buckets, names with dots in them, taken out in another order. */
static void thousands_are_found_in_the_order_of_adding(void **state)
{
    enum { SERVICES = 3000 };
    static char names[SERVICES][24];
    static struct lathe_service services[SERVICES];
    const struct lathe_endpoint *e;
    int count = 0;
    (void)state;
    for (int i = 0; i < SERVICES; i++) {
        snprintf(names[i], sizeof names[i], i % 3 ? "model%d" : "a.b%d", i);
        services[i] = model;
        services[i].name = names[i];
        services[i].with = i % 10 == 9 ? names[i - 9] : NULL;
        assert_int_equal(directory_add(&d, &services[i], &s, &err), LATHE_OK);
    }
    for (struct directory_service *at = d.services; at; at = at->next)
        assert_ptr_equal(at->what, &services[count++]);
    assert_int_equal(count, SERVICES);
    for (int i = 0; i < SERVICES; i++) {
        char endpoint[40];
        snprintf(endpoint, sizeof endpoint, "%.23s.describe", names[i]);
        assert_int_equal(directory_resolve(&d, endpoint, &e, &err), LATHE_OK);
        assert_string_equal(e->name, endpoint);
    }
    for (int k = 0; k < SERVICES / 10; k++) {
        int first = k * 7 % (SERVICES / 10) * 10;
        assert_int_equal(directory_remove(&d, names[first], &s, &err), LATHE_EBUSY);
        for (int i = first + 9; i >= first; i--) {
            assert_int_equal(directory_remove(&d, names[i], &s, &err), LATHE_OK);
            assert_ptr_equal(s->what, &services[i]);
            directory_free(&d, s);
            if (i % 500 == 0) /* advice takes long */
                assert_int_equal(directory_find(&d, names[i], &s, &err), LATHE_ENOTFOUND);
        }
    }
    assert_null(d.services);
    assert_null(d.last);
    for (int i = 0; i < DIRECTORY_BUCKETS; i++)
        assert_null(d.buckets[i]);
}

static void refuses_what_is_no_service(void **state)
{
    static char long_name[DIRECTORY_NAME_BYTES];
    static const struct lathe_service_method nameless[] = { { .function = nothing } };
    static const struct lathe_service_method empty[] = { { .name = "forward" } };
    static const struct lathe_service_method twice[] = { { .name = "a", .function = nothing },
                                                         { .name = "a", .function = nothing } };
    memset(long_name, 'x', sizeof long_name - 1);
    const struct lathe_service bad[] = {
        { .size = sizeof model, .name = NULL, .methods = methods, .method_count = 2 },
        { .size = sizeof model, .name = "", .methods = methods, .method_count = 2 },
        { .size = sizeof model, .name = "m", .methods = methods },
        { .size = sizeof model, .name = "m", .method_count = 1 },
        { .size = sizeof model, .name = "m", .methods = nameless, .method_count = 1 },
        { .size = sizeof model, .name = "m", .methods = empty, .method_count = 1 },
        { .size = sizeof model, .name = "m", .methods = twice, .method_count = 2 },
        { .size = sizeof model, .name = long_name, .methods = methods, .method_count = 2 },
        { .size = 48, .name = "m", .methods = methods, .method_count = 2 }, /* of an older header */
    };
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        err.message[0] = '\0';
        assert_int_equal(directory_add(&d, &bad[i], &s, &err), LATHE_EINVAL);
        assert_non_null(strstr(err.message, "bus test: "));
    }
    assert_null(d.services);
}

static void a_second_of_the_name_is_busy(void **state)
{
    (void)state;
    assert_int_equal(directory_add(&d, &model, &s, &err), LATHE_OK);
    assert_int_equal(directory_add(&d, &model, &s, &err), LATHE_EBUSY);
    assert_int_equal(directory_remove(&d, "model", &s, &err), LATHE_OK);
    directory_free(&d, s);
    assert_int_equal(directory_add(&d, &model, &s, &err), LATHE_OK);
}

static void with_leads_to_the_one_that_has_workers(void **state)
{
    struct lathe_service sampler = model, filter = model, lost = model;
    struct directory_service *root;
    (void)state;
    sampler.name = "sampler", sampler.with = "model";
    filter.name = "filter", filter.with = "sampler";
    lost.name = "lost", lost.with = "modell";
    assert_int_equal(directory_add(&d, &model, &root, &err), LATHE_OK);
    assert_int_equal(directory_add(&d, &sampler, &s, &err), LATHE_OK);
    assert_ptr_equal(s->with, root);
    assert_int_equal(directory_add(&d, &filter, &s, &err), LATHE_OK);
    assert_ptr_equal(s->with, root);
    assert_int_equal(directory_add(&d, &lost, &s, &err), LATHE_ENOTFOUND);
    assert_non_null(strstr(err.message, "'model'"));
    assert_int_equal(directory_remove(&d, "model", &s, &err), LATHE_EBUSY);
    assert_non_null(strstr(err.message, "'sampler'"));
    static const char *const order[] = { "filter", "sampler", "model" };
    for (int i = 0; i < 3; i++) {
        assert_int_equal(directory_remove(&d, order[i], &s, &err), LATHE_OK);
        directory_free(&d, s);
    }
}

static void many_come_and_go_in_any_order(void **state)
{
    enum { MANY = 3000 };
    static struct lathe_service services[MANY];
    static char names[MANY][24], endpoint[40];
    const struct lathe_endpoint *e;
    (void)state;
    for (int i = 0; i < MANY; i++) {
        snprintf(names[i], sizeof names[i], i % 2 ? "model.%d" : "sampler%d", i);
        services[i] = model;
        services[i].name = names[i];
        services[i].with = i % 2 ? names[i - 1] : NULL;
        assert_int_equal(directory_add(&d, &services[i], &s, &err), LATHE_OK);
    }
    for (int step = 0, i = 1; step < MANY / 2; step++, i = (i + 2 * 701) % MANY) { /* each odd one once, not in order */
        assert_int_equal(directory_remove(&d, names[i - 1], &s, &err), LATHE_EBUSY);
        snprintf(endpoint, sizeof endpoint, "%s.describe", names[i]);
        assert_int_equal(directory_resolve(&d, endpoint, &e, &err), LATHE_OK);
        assert_string_equal(e->name, endpoint);
        assert_int_equal(directory_remove(&d, names[i], &s, &err), LATHE_OK);
        directory_free(&d, s);
        assert_int_equal(directory_resolve(&d, endpoint, &e, &err), LATHE_ENOTFOUND);
        assert_int_equal(directory_remove(&d, names[i - 1], &s, &err), LATHE_OK);
        directory_free(&d, s);
    }
    assert_null(d.services);
    assert_int_equal(directory_add(&d, &model, &s, &err), LATHE_OK); /* behind the last that left */
    assert_ptr_equal(d.services, s);
}

static void unknown_names_get_the_nearest(void **state)
{
    static const struct { const char *asked, *advice; } cases[] = {
        { "model.forwrd", "'model.forward'" }, { "modl.describe", "'model.describe'" },
        { "tokeniser.forward", "'tokenizer.forward'" }, { "", "'model.forward'" },
    };
    struct lathe_service tokenizer = model;
    const struct lathe_endpoint *e = NULL;
    char endless[4000];
    (void)state;
    assert_int_equal(directory_resolve(&d, "model.forward", &e, &err), LATHE_ENOTFOUND);
    assert_int_equal(directory_find(&d, "model", &s, &err), LATHE_ENOTFOUND);
    tokenizer.name = "tokenizer";
    assert_int_equal(directory_add(&d, &model, &s, &err), LATHE_OK);
    assert_int_equal(directory_add(&d, &tokenizer, &s, &err), LATHE_OK);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(directory_resolve(&d, cases[i].asked, &e, &err), LATHE_ENOTFOUND);
        assert_non_null(strstr(err.message, cases[i].advice));
    }
    memset(endless, 'm', sizeof endless - 1);
    endless[sizeof endless - 1] = '\0';
    assert_int_equal(directory_resolve(&d, endless, &e, &err), LATHE_ENOTFOUND);
    assert_int_equal(directory_find(&d, "tokenize", &s, &err), LATHE_ENOTFOUND);
    assert_non_null(strstr(err.message, "'tokenizer'"));
    assert_int_equal(directory_remove(&d, "mode", &s, &err), LATHE_ENOTFOUND);
    assert_null(e);
}

static void keeps_nothing_when_memory_runs_out(void **state)
{
    (void)state;
    for (size_t n = 1; n <= 3; n++) {
        counting.calls = 0;
        counting.fail_at = n;
        assert_int_equal(directory_add(&d, &model, &s, &err), LATHE_ENOMEM);
        assert_null(d.services);
        assert_int_equal(counting.live_blocks, 0);
    }
    counting.fail_at = 0;
    assert_int_equal(directory_add(&d, &model, &s, &err), LATHE_OK);
}

static void a_loan_has_a_clean_head(void **state)
{
    (void)state;
    struct lathe_message *m = heap_loan(&counting.host, "test", 100, &err), expected = { .capacity = 100 };
    assert_non_null(m);
    assert_int_equal((uintptr_t)m % 64, 0);
    assert_memory_equal(m, &expected, sizeof expected);
    lathe_free(&counting.host, m);
    assert_null(heap_loan(&counting.host, "test", sizeof *m - 1, &err));
    assert_int_equal(err.code, LATHE_EINVAL);
    counting.fail_at = counting.calls + 1;
    assert_null(heap_loan(&counting.host, "test", 100, &err));
    assert_int_equal(err.code, LATHE_ENOMEM);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, prepare, clear)
    const struct CMUnitTest tests[] = {
        TEST(endpoints_are_the_methods_until_changed), TEST(thousands_are_found_in_the_order_of_adding), TEST(refuses_what_is_no_service),
        TEST(a_second_of_the_name_is_busy),            TEST(with_leads_to_the_one_that_has_workers),
        TEST(unknown_names_get_the_nearest),           TEST(keeps_nothing_when_memory_runs_out),
        TEST(many_come_and_go_in_any_order),           TEST(a_loan_has_a_clean_head),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
