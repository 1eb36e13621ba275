/* SPDX-License-Identifier: MIT */
/* The room in shared memory: no two pieces overlap, all comes back, and whatever is asked for
 * wrongly is refused. A model of the pool, a map of owned units, is held against it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <lathe/random.h>

#include "pool.h"
#include "support/counting_host.h"

enum { BYTES = 1 << 20, RESERVED = 4096, HELD = 300 };

struct bed {
    struct counting_host counting;
    const struct lathe_host *host;
    struct pool pool;
    unsigned char *base;
    int memory;
};

static void open_pool(struct bed *b, size_t bytes)
{
    struct lathe_error err = { 0 };
    b->host = counting_host_init(&b->counting);
    b->memory = memfd_create("test", MFD_CLOEXEC);
    assert_int_equal(ftruncate(b->memory, (off_t)bytes), 0);
    b->base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, b->memory, 0);
    assert_true(b->base != MAP_FAILED);
    assert_int_equal(pool_open(&b->pool, b->host, b->base, bytes, RESERVED, &err), LATHE_OK);
}

static void close_pool(struct bed *b, size_t bytes)
{
    pool_close(&b->pool);
    munmap(b->base, bytes);
    close(b->memory);
    assert_int_equal(atomic_load(&b->counting.live_blocks), 0);
}

static void pieces_are_aligned_and_beyond_what_is_reserved(void **state)
{
    struct bed b;
    (void)state;
    open_pool(&b, BYTES);
    for (uint64_t bytes = 1; bytes < 40000; bytes = bytes * 3 + 1) {
        uint64_t at = pool_take(&b.pool, bytes);
        assert_true(at >= RESERVED && at % 64 == 0 && at + bytes <= BYTES);
        if (bytes >= POOL_PAGE)
            assert_int_equal(at % POOL_PAGE, 0);
        assert_true(pool_size(&b.pool, at) >= bytes && pool_size(&b.pool, at) < bytes + 64);
        assert_int_equal(pool_size(&b.pool, at + 64), 0);
    }
    close_pool(&b, BYTES);
}

static void what_is_too_large_or_was_never_taken_is_refused(void **state)
{
    struct bed b;
    (void)state;
    open_pool(&b, BYTES);
    assert_int_equal(pool_take(&b.pool, 0), 0);
    assert_int_equal(pool_take(&b.pool, BYTES), 0);
    assert_int_equal(pool_take(&b.pool, UINT64_MAX), 0);
    assert_int_equal(pool_take(&b.pool, SIZE_MAX / 2 + 1), 0);
    uint64_t all = pool_take(&b.pool, BYTES - RESERVED);
    assert_int_equal(all, RESERVED);
    assert_int_equal(pool_take(&b.pool, 1), 0);
    assert_int_equal(pool_used(&b.pool), BYTES - RESERVED);
    assert_int_equal(pool_give(&b.pool, all + 64), 0);
    assert_int_equal(pool_give(&b.pool, all + 1), 0);
    assert_int_equal(pool_give(&b.pool, UINT64_MAX - 63), 0);
    assert_int_equal(pool_size(&b.pool, UINT64_MAX - 63), 0);
    assert_int_equal(pool_give(&b.pool, all), 1);
    assert_int_equal(pool_give(&b.pool, all), 0); /* once */
    assert_int_equal(pool_used(&b.pool), 0);
    close_pool(&b, BYTES);
}

static void random_pieces_never_overlap_and_all_come_back(void **state)
{
    struct bed b;
    static uint8_t owner[BYTES / POOL_UNIT];
    struct { uint64_t at, bytes; uint8_t mark; } held[HELD];
    int count = 0;
    (void)state;
    open_pool(&b, BYTES);
    memset(owner, 0, sizeof owner);
    for (uint32_t turn = 0; turn < 40000; turn++) {
        uint64_t r = lathe_random_u64(7, LATHE_RANDOM_USER, 0, turn), used = 0;
        if (count < HELD && r % 3) {
            uint64_t bytes = 1 + (r >> 8) % (r % 7 ? 3000 : 60000), at = pool_take(&b.pool, bytes);
            if (!at)
                continue;
            held[count].at = at;
            held[count].bytes = (bytes + 63) / 64 * 64;
            held[count].mark = (uint8_t)(1 + r % 255);
            for (uint64_t u = at / 64; u < (at + held[count].bytes) / 64; u++) {
                assert_int_equal(owner[u], 0);
                owner[u] = held[count].mark;
            }
            count++;
        } else if (count) {
            int i = (int)((r >> 8) % (uint64_t)count);
            for (uint64_t u = held[i].at / 64; u < (held[i].at + held[i].bytes) / 64; u++) {
                assert_int_equal(owner[u], held[i].mark);
                owner[u] = 0;
            }
            assert_int_equal(pool_size(&b.pool, held[i].at), held[i].bytes);
            assert_int_equal(pool_give(&b.pool, held[i].at), 1);
            held[i] = held[--count];
        }
        for (int i = 0; i < count && turn % 1000 == 0; i++)
            used += held[i].bytes;
        if (turn % 1000 == 0)
            assert_int_equal(pool_used(&b.pool), used);
    }
    while (count)
        assert_int_equal(pool_give(&b.pool, held[--count].at), 1);
    uint64_t all = pool_take(&b.pool, BYTES - RESERVED); /* one piece again */
    assert_int_equal(all, RESERVED);
    close_pool(&b, BYTES);
}

static void a_large_piece_gives_its_pages_back(void **state)
{
    enum { LARGE = 16 << 20 };
    struct bed b;
    (void)state;
    open_pool(&b, LARGE);
    uint64_t at = pool_take(&b.pool, LARGE / 2);
    memset(b.base + at, 1, LARGE / 2);
    pool_give(&b.pool, at);
    assert_int_equal(b.base[at], 0); /* a new page */
    assert_int_equal(b.base[at + LARGE / 2 - 1], 0);
    close_pool(&b, LARGE);
}

static void no_memory_for_the_account_is_no_piece(void **state)
{
    struct bed b;
    uint64_t taken[3000];
    uint32_t n = 0;
    (void)state;
    open_pool(&b, BYTES);
    b.counting.fail_at = atomic_load(&b.counting.calls) + 1; /* the next block of pieces */
    while (n < 3000 && (taken[n] = pool_take(&b.pool, 64)) != 0)
        n++;
    assert_in_range(n, POOL_CHUNK / 2, POOL_CHUNK);
    while (n)
        assert_int_equal(pool_give(&b.pool, taken[--n]), 1);
    assert_int_equal(pool_used(&b.pool), 0);
    close_pool(&b, BYTES);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pieces_are_aligned_and_beyond_what_is_reserved),
        cmocka_unit_test(what_is_too_large_or_was_never_taken_is_refused),
        cmocka_unit_test(random_pieces_never_overlap_and_all_come_back),
        cmocka_unit_test(a_large_piece_gives_its_pages_back),
        cmocka_unit_test(no_memory_for_the_account_is_no_piece),
    };
    return cmocka_run_group_tests_name("bus/shm pool", tests, NULL, NULL);
}
