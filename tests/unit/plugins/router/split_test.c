/* SPDX-License-Identifier: MIT */
/* Split: each side its share, and whoever is sticky on one side. */
#include "fixture.h"

static void shares_are_even_without_stickiness(void **state)
{
    (void)state;
    struct fleet *f = fleet_open("split", 4, (const char *const[]){ "weights", "0:9,2:1", NULL });
    for (int i = 1; i <= 5000; i++) {
        fleet_route(f, (struct lathe_request){ 0 });
        double off = f->r[2].waiting - i * 0.1; /* at every moment, not in the end alone */
        assert_true(off > -4 && off < 4);
    }
    assert_int_equal(f->r[1].waiting + f->r[3].waiting, 0);
    fleet_close(f);
}

static void a_tenant_is_always_on_one_side(void **state)
{
    (void)state;
    struct fleet *f = fleet_open("split", 2, (const char *const[]){ "weights", "0:3,1:1", "sticky", "tenant", NULL });
    double second = 0;
    for (uint32_t tenant = 0; tenant < 8000; tenant++) {
        uint32_t side = fleet_route(f, (struct lathe_request){ .tenant = tenant, .session = 1 });
        assert_int_equal(fleet_route(f, (struct lathe_request){ .tenant = tenant, .session = 2 }), side);
        second += side;
    }
    near(second / 8000, 0.25, 0.08, "share of side 1");
    fleet_close(f);
}

static void each_stickiness_looks_at_its_own(void **state)
{
    (void)state;
    static const char *const names[] = { "tenant", "session", "correlation", "request" };
    for (int sticky = 0; sticky < 4; sticky++) {
        struct fleet *f = fleet_open("split", 2, (const char *const[]){ "sticky", names[sticky], NULL });
        for (int moved = 0; moved < 4; moved++) {
            uint32_t sides[2] = { 0 };
            for (uint32_t i = 1; i <= 200; i++) {
                struct lathe_request req = { .id = 5, .tenant = 5, .session = 5, .correlation = 5 };
                if (moved == 0)
                    req.tenant = i;
                else if (moved == 1)
                    req.session = i;
                else if (moved == 2)
                    req.correlation = i;
                else
                    req.id = i;
                sides[fleet_route(f, req)]++;
            }
            assert_true((sides[0] > 0 && sides[1] > 0) == (moved == sticky));
        }
        fleet_close(f);
    }
}

static void models_are_sides(void **state)
{
    (void)state;
    struct fleet *f = fleet_open("split", 10, (const char *const[]){ "by", "model", "weights", "4:1,7:3", NULL });
    double of_seven = 0;
    for (uint32_t i = 0; i < 10; i++)
        f->r[i].model = i < 8 ? 4 : i < 9 ? 7 : 1;
    for (int i = 0; i < 4000; i++)
        of_seven += fleet_route(f, (struct lathe_request){ 0 }) == 8;
    near(of_seven / 4000, 0.75, 0.01, "share of model 7");
    assert_int_equal(f->r[9].waiting, 0); /* its model has no weight */
    for (uint32_t i = 0; i < 8; i++)
        near(f->r[i].waiting, 125, 0.05, "one of model 4's"); /* two are drawn, the less loaded goes */

    f->r[0].model = 7; /* another version there: the table is made again */
    for (int i = 0; i < 20; i++)
        fleet_route(f, (struct lathe_request){ 0 });
    uint32_t before = f->r[0].waiting;
    for (int i = 0; i < 1000; i++)
        fleet_route(f, (struct lathe_request){ 0 });
    assert_in_range(f->r[0].waiting - before, 600, 800);
    fleet_close(f);
}

static void a_side_that_is_not_ready_loses_its_share_until_it_is(void **state)
{
    (void)state;
    struct fleet *f = fleet_open("split", 3, (const char *const[]){ "weights", "0:2,1:1,2:1", "sticky", "session", NULL });
    uint32_t side[300];
    for (uint32_t s = 0; s < 300; s++)
        side[s] = fleet_route(f, (struct lathe_request){ .session = s + 1 });
    f->r[0].ready = 0;
    for (uint32_t s = 0; s < 300; s++) {
        uint32_t now = fleet_route(f, (struct lathe_request){ .session = s + 1 });
        assert_true(side[s] == 0 ? now != 0 : now == side[s]); /* the others stay where they are */
        assert_int_equal(fleet_route(f, (struct lathe_request){ .session = s + 1 }), now);
    }
    f->r[0].ready = 1;
    for (uint32_t s = 0; s < 300; s++)
        assert_int_equal(fleet_route(f, (struct lathe_request){ .session = s + 1 }), side[s]);
    fleet_close(f);
}

static void without_weights_the_replicas_own_hold(void **state)
{
    (void)state;
    struct fleet *f = fleet_open("split", 3, NULL);
    f->r[0].weight = 0;
    f->r[1].weight = 3000;
    for (int i = 0; i < 4000; i++)
        fleet_route(f, (struct lathe_request){ 0 });
    assert_int_equal(f->r[0].waiting, 0);
    near(f->r[1].waiting, 3000, 0.01, "three quarters");
    fleet_close(f);
}

static void weights_that_are_none_are_refused(void **state)
{
    (void)state;
    static const char *const wrong[] = { "0", "0:", "0:x", "a:1", "0:1,", "0:-1", "0:1;1:1", "0:nan", "-1:1", "0:0", "5000000000:1" };
    const char *folders[] = { TEST_PLUGINS, NULL };
    struct registry *registry;
    struct instance *instance;
    struct lathe_error err;
    assert_int_equal(registry_open(folders, &registry, &err), LATHE_OK);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct option_setting setting = { "weights", wrong[i] };
        assert_int_equal(instance_create(registry, LATHE_KIND_ROUTER, "split", &setting, 1, &instance, &err), LATHE_EINVAL);
        if (!strstr(err.message, wrong[i]))
            fail_msg("expected %s in: %s", wrong[i], err.message);
    }
    registry_close(registry);
}

static void weights_of_nobody_are_said_so(void **state)
{
    (void)state;
    struct fleet *f = fleet_open("split", 2, (const char *const[]){ "weights", "7:1", NULL });
    struct lathe_error err = { 0 };
    uint32_t choice;
    assert_int_equal(f->api->route(f->instance->self, &(struct lathe_request){ .id = 1 }, f->r, 2, &choice, &err), LATHE_EBUSY);
    assert_non_null(strstr(err.message, "weights"));
    fleet_close(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shares_are_even_without_stickiness),
        cmocka_unit_test(a_tenant_is_always_on_one_side),
        cmocka_unit_test(each_stickiness_looks_at_its_own),
        cmocka_unit_test(models_are_sides),
        cmocka_unit_test(a_side_that_is_not_ready_loses_its_share_until_it_is),
        cmocka_unit_test(without_weights_the_replicas_own_hold),
        cmocka_unit_test(weights_that_are_none_are_refused),
        cmocka_unit_test(weights_of_nobody_are_said_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
