/* SPDX-License-Identifier: MIT */
/* kvcache policies: who goes of a set, against sorting. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include <kvmap/choice.h>
#include <lathe/random.h>

enum { MOST = 200 };

static struct { int32_t position; float score; } rows[MOST];
static uint8_t is_gone[MOST * 2];

static void note(void *user, int32_t position)
{
    ++*(uint32_t *)user;
    is_gone[position] = 1;
}

static int by_score(const void *a, const void *b)
{
    const float x = ((const float *)a)[1], y = ((const float *)b)[1];
    const int32_t p = *(const int32_t *)a, q = *(const int32_t *)b;
    return x != y ? (x > y) - (x < y) : (p > q) - (p < q);
}

static void the_lowest_go_and_the_others_keep_their_order(void **state)
{
    uint32_t draws = 0;
    (void)state;
    for (int round = 0; round < 3000; round++) {
        int32_t positions[MOST];
        float scores[MOST], order[MOST];
        uint32_t count = 1 + (uint32_t)(lathe_random_u64(5, LATHE_RANDOM_USER, 0, draws++) % MOST);
        uint32_t recent = (uint32_t)(lathe_random_u64(5, LATHE_RANDOM_USER, 0, draws++) % (count + 1));
        uint32_t over = (uint32_t)(lathe_random_u64(5, LATHE_RANDOM_USER, 0, draws++) % (count - recent + 1));
        uint32_t kinds = round % 3 == 0 ? 3 : round % 3 == 1 ? 1 : 1 << 20, called = 0, left = 0;
        for (uint32_t i = 0; i < count; i++) {
            positions[i] = rows[i].position = (int32_t)(2 * i);
            scores[i] = rows[i].score = (float)(lathe_random_u64(5, LATHE_RANDOM_USER, 0, draws++) % kinds);
            is_gone[2 * i] = 0;
        }
        kvchoice_evict(positions, scores, order, count, over, recent, note, &called);
        assert_int_equal(called, over);
        qsort(rows, count - recent, sizeof *rows, by_score);
        for (uint32_t i = 0; i < count - recent; i++)
            assert_int_equal(is_gone[rows[i].position], i < over);
        for (uint32_t i = 0; i < count; i++)
            if (!is_gone[2 * i])
                assert_int_equal(positions[left++], 2 * i);
        assert_int_equal(left, count - over);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(the_lowest_go_and_the_others_keep_their_order) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
