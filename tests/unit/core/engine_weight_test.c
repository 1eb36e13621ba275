/* SPDX-License-Identifier: MIT */
/* A tenant's weight reaches the policies as it was submitted; unsaid, it is 1000. */
#include "engine_fixture.h"

struct seen {
    uint32_t weights[4], count;
};

static void on_ended(void *user, const struct engine_ended *ended)
{
    struct seen *seen = user;
    seen->weights[ended->request->id - 1] = ended->request->weight;
    seen->count++;
}

static void a_weight_is_what_was_submitted(void **state)
{
    (void)state;
    struct fixture f;
    struct seen seen = { .count = 0 };
    fixture_open(&f, (struct fixture_params){ .ended = on_ended, .user = &seen });
    struct planned_request requests[2] = { { .submit = { .text = "a", .text_bytes = 1, .max_output_tokens = 2, .weight = 250 } },
                                           { .submit = { .text = "b", .text_bytes = 1, .max_output_tokens = 2 } } };
    fixture_drive(&f, requests, 2, 0);
    assert_int_equal(seen.count, 2);
    assert_int_equal(seen.weights[0], 250);
    assert_int_equal(seen.weights[1], 1000);
    fixture_free(requests, 2);
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(a_weight_is_what_was_submitted) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
