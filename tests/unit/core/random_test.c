/* SPDX-License-Identifier: MIT */
/* Known answers of Random123 (examples/kat_vectors, philox4x32 10). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <lathe/random.h>

static void philox_gives_the_known_answers(void **state)
{
    static const struct {
        uint32_t counter[4], key[2], out[4];
    } vectors[] = {
        { { 0, 0, 0, 0 }, { 0, 0 }, { 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8 } },
        { { 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff }, { 0xffffffff, 0xffffffff },
          { 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd } },
        { { 0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344 }, { 0xa4093822, 0x299f31d0 },
          { 0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1 } },
    };
    (void)state;
    for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++) {
        uint32_t out[4];
        lathe_philox4x32_10(vectors[i].key, vectors[i].counter, out);
        for (int j = 0; j < 4; j++)
            assert_int_equal(out[j], vectors[i].out[j]);
    }
}

static void a_draw_depends_on_each_of_its_coordinates(void **state)
{
    uint64_t base = lathe_random_u64(1, LATHE_RANDOM_SAMPLING, 7, 3);
    (void)state;
    assert_true(base == lathe_random_u64(1, LATHE_RANDOM_SAMPLING, 7, 3));
    assert_true(base != lathe_random_u64(2, LATHE_RANDOM_SAMPLING, 7, 3));
    assert_true(base != lathe_random_u64(1ull << 32 | 1, LATHE_RANDOM_SAMPLING, 7, 3));
    assert_true(base != lathe_random_u64(1, LATHE_RANDOM_ARRIVALS, 7, 3));
    assert_true(base != lathe_random_u64(1, LATHE_RANDOM_SAMPLING, 8, 3));
    assert_true(base != lathe_random_u64(1, LATHE_RANDOM_SAMPLING, 7ull | 1ull << 40, 3));
    assert_true(base != lathe_random_u64(1, LATHE_RANDOM_SAMPLING, 7, 4));
}

/* Chi-square over 64 cells: 99.9% of uniform samples stay below 103.4 (63 degrees of freedom);
 * seed and count are fixed, so this can't fail by chance. */
static void unit_draws_are_uniform_and_below_one(void **state)
{
    enum { CELLS = 64, DRAWS = 64000 };
    uint32_t cells[CELLS] = { 0 };
    double chi_square = 0, mean = 0;
    (void)state;
    for (uint32_t i = 0; i < DRAWS; i++) {
        double u = lathe_random_unit(42, LATHE_RANDOM_NOISE, 5, i);
        assert_true(u >= 0 && u < 1);
        cells[(int)(u * CELLS)]++;
        mean += u / DRAWS;
    }
    for (int i = 0; i < CELLS; i++) {
        double away = (double)cells[i] - DRAWS / CELLS;
        chi_square += away * away / (DRAWS / CELLS);
    }
    assert_true(chi_square < 103.4);
    assert_true(mean > 0.495 && mean < 0.505);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(philox_gives_the_known_answers),
        cmocka_unit_test(a_draw_depends_on_each_of_its_coordinates),
        cmocka_unit_test(unit_draws_are_uniform_and_below_one),
    };
    return cmocka_run_group_tests_name("random", tests, NULL, NULL);
}
