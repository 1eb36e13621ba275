/* SPDX-License-Identifier: MIT */
/* Loops over a vocabulary against plain ones, at every tail length. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <sampling/sampling.h>

enum { MOST = 1100 };

static float logits[MOST], weights[MOST + 1];

/* Ties among them, and some that can't be chosen. */
static void fill(uint32_t n, unsigned seed)
{
    srand(seed);
    for (uint32_t i = 0; i < n; i++)
        logits[i] = rand() % 50 == 0 ? -INFINITY : (float)(rand() % 3900 - 3900) * 0.05f;
    logits[(uint32_t)rand() % n] = 1.0f;
}

static void sums_are_of_all_exponentials(void **state)
{
    (void)state;
    for (uint32_t n = 1; n < MOST; n += n < 300 ? 1 : 97) {
        double expected = 0;
        fill(n, n);
        weights[n] = 42.0f;
        double sum = sampling_exponentials(logits, n, 1.0f, 0.5f, weights);
        for (uint32_t i = 0; i < n; i++) {
            double x = ((double)logits[i] - 1.0) * 0.5, term = x < -87 ? 0 : exp(x);
            expected += term;
            if (fabs(x + 87) > 1e-3) /* at the edge either is right */
                assert_true(fabs((double)weights[i] - term) <= (2e-7 + 1e-7 * fmin(-x, 90)) * term); /* x is rounded too */
        }
        assert_true(fabs(sum - expected) <= 3e-7 * expected);
        assert_true(weights[n] == 42.0f);
        assert_true(sampling_exponentials(logits, n, 1.0f, 0.5f, NULL) == sum);
    }
}

static void the_largest_is_found_wherever_it_stands(void **state)
{
    (void)state;
    struct lathe_sample_row row = { .request = 7 };
    struct lathe_error err;
    for (uint32_t n = 1; n < MOST; n += n < 80 ? 1 : 97)
        for (uint32_t at = 0; at < n; at += n < 80 ? 1 : 31) {
            float largest = 0;
            fill(n, n);
            logits[at] = 5.0f;
            assert_int_equal(sampling_largest("test", &row, logits, n, &largest, &err), 0);
            assert_true(largest == 5.0f);
            logits[at] = at % 2 ? NAN : INFINITY;
            assert_int_equal(sampling_largest("test", &row, logits, n, &largest, &err), LATHE_EINVAL);
            assert_non_null(strstr(err.message, at % 2 ? "a NaN at token" : "+inf at token"));
        }
    for (uint32_t i = 0; i < MOST; i++)
        logits[i] = -INFINITY;
    float largest;
    assert_int_equal(sampling_largest("test", &row, logits, MOST, &largest, &err), LATHE_EINVAL);
}

static int32_t plain_argmax(uint32_t n, const int32_t *banned, uint32_t count)
{
    int32_t token = -1;
    for (uint32_t i = 0; i < n; i++) {
        int out = 0;
        for (uint32_t k = 0; k < count; k++)
            out |= banned[k] == (int32_t)i;
        if (!out && logits[i] > (token < 0 ? -INFINITY : logits[token]))
            token = (int32_t)i;
    }
    return token;
}

static void ties_go_to_the_lower_id_and_banned_ones_to_nobody(void **state)
{
    (void)state;
    for (uint32_t n = 1; n < 3 * MOST; n += 13) {
        static float many[3 * MOST];
        uint32_t count = n < MOST ? n : MOST - 1;
        fill(count, n);
        int32_t banned[3] = { plain_argmax(count, NULL, 0) };
        banned[1] = plain_argmax(count, banned, 1);
        banned[2] = -1;
        for (uint32_t k = 0; k <= 3; k++)
            assert_int_equal(sampling_argmax(logits, count, banned, k), plain_argmax(count, banned, k));
        for (uint32_t i = 0; i < n; i++)
            many[i] = -INFINITY;
        assert_int_equal(sampling_argmax(many, n, NULL, 0), -1);
        many[n / 2] = many[n - 1] = -3.0f; /* in another piece, and one like it */
        assert_int_equal(sampling_argmax(many, n, NULL, 0), n / 2);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums_are_of_all_exponentials),
        cmocka_unit_test(the_largest_is_found_wherever_it_stands),
        cmocka_unit_test(ties_go_to_the_lower_id_and_banned_ones_to_nobody),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
