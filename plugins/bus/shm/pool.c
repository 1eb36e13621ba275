/* SPDX-License-Identifier: MIT */
#include "pool.h"

#include <sys/mman.h>

static struct piece *piece(struct pool *pool, uint32_t number)
{
    return &pool->chunks[number / POOL_CHUNK][number % POOL_CHUNK];
}

static uint64_t shadow_bytes(const struct pool *pool)
{
    return pool->bytes / POOL_UNIT * sizeof *pool->shadow;
}

/* A piece that stands for nothing yet; 0: no memory. */
static uint32_t new_piece(struct pool *pool)
{
    uint32_t number = pool->unused;
    if (number) {
        pool->unused = piece(pool, number)->more;
        return number;
    }
    number = pool->pieces;
    if (number / POOL_CHUNK >= POOL_CHUNKS)
        return 0;
    if (!pool->chunks[number / POOL_CHUNK] &&
        !(pool->chunks[number / POOL_CHUNK] = lathe_alloc_array(pool->host, POOL_CHUNK, sizeof(struct piece))))
        return 0;
    pool->pieces++;
    return number;
}

static void drop_piece(struct pool *pool, uint32_t number)
{
    piece(pool, number)->more = pool->unused;
    pool->unused = number;
}

static void free_link(struct pool *pool, uint32_t number)
{
    struct piece *p = piece(pool, number);
    p->free = 1;
    p->less = 0;
    p->more = pool->free;
    if (p->more)
        piece(pool, p->more)->less = number;
    pool->free = number;
}

static void free_unlink(struct pool *pool, uint32_t number)
{
    struct piece *p = piece(pool, number);
    p->free = 0;
    if (p->less)
        piece(pool, p->less)->more = p->more;
    else
        pool->free = p->more;
    if (p->more)
        piece(pool, p->more)->less = p->less;
}

int pool_open(struct pool *pool, const struct lathe_host *host, void *base, uint64_t bytes, uint64_t reserved,
              struct lathe_error *err)
{
    *pool = (struct pool){ .host = host, .base = base, .bytes = bytes, .pieces = 1 };
    void *shadow = mmap(NULL, shadow_bytes(pool), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                        -1, 0);
    if (shadow == MAP_FAILED)
        return lathe_fail(err, LATHE_ENOMEM, "bus shm: no address space to keep account of %llu bytes",
                          (unsigned long long)bytes);
    pool->shadow = shadow;
    uint32_t all = new_piece(pool);
    if (!all) {
        munmap(shadow, shadow_bytes(pool));
        return lathe_fail(err, LATHE_ENOMEM, "bus shm: no memory to keep account of loans");
    }
    *piece(pool, all) = (struct piece){ .first = reserved / POOL_UNIT, .units = (bytes - reserved) / POOL_UNIT };
    free_link(pool, all);
    pthread_mutex_init(&pool->lock, NULL);
    return LATHE_OK;
}

void pool_close(struct pool *pool)
{
    if (!pool->shadow)
        return;
    for (uint32_t i = 0; i < POOL_CHUNKS; i++)
        lathe_free(pool->host, pool->chunks[i]);
    munmap((void *)(uintptr_t)pool->shadow, shadow_bytes(pool));
    pthread_mutex_destroy(&pool->lock);
    pool->shadow = NULL;
}

/* Where `units` could begin in a free piece, or UINT64_MAX. */
static uint64_t place_in(const struct piece *p, uint64_t units, uint64_t align)
{
    uint64_t first = (p->first + align - 1) / align * align, skip = first - p->first;
    return p->units >= skip && p->units - skip >= units ? first : UINT64_MAX;
}

/* Cuts `number` in two at `at` units from its beginning; the second half's number, 0: no memory. */
static uint32_t cut(struct pool *pool, uint32_t number, uint64_t at)
{
    uint32_t second = new_piece(pool);
    if (!second)
        return 0;
    struct piece *p = piece(pool, number), *q = piece(pool, second);
    *q = (struct piece){ .first = p->first + at, .units = p->units - at, .before = number, .after = p->after };
    if (q->after)
        piece(pool, q->after)->before = second;
    p->after = second;
    p->units = at;
    return second;
}

static uint64_t take_locked(struct pool *pool, uint64_t units, uint64_t align)
{
    for (uint32_t number = pool->free; number; number = piece(pool, number)->more) {
        uint64_t first = place_in(piece(pool, number), units, align);
        uint32_t rest;
        if (first == UINT64_MAX)
            continue;
        if (first > piece(pool, number)->first) { /* what lies before stays free */
            uint32_t second = cut(pool, number, first - piece(pool, number)->first);
            if (!second)
                return 0;
            free_link(pool, number = second);
        }
        if (piece(pool, number)->units > units) {
            if (!(rest = cut(pool, number, units)))
                return 0;
            free_link(pool, rest);
        }
        free_unlink(pool, number);
        pool->used += units * POOL_UNIT;
        atomic_store_explicit(&pool->shadow[first], number, memory_order_release);
        return first * POOL_UNIT;
    }
    return 0;
}

uint64_t pool_take(struct pool *pool, uint64_t bytes)
{
    uint64_t align = bytes >= POOL_PAGE ? POOL_PAGE / POOL_UNIT : 1, offset;
    if (bytes == 0 || bytes > pool->bytes)
        return 0;
    pthread_mutex_lock(&pool->lock);
    offset = take_locked(pool, (bytes + POOL_UNIT - 1) / POOL_UNIT, align);
    pthread_mutex_unlock(&pool->lock);
    return offset;
}

/* Two free neighbours become the first of them. */
static void join(struct pool *pool, uint32_t number, uint32_t next)
{
    struct piece *p = piece(pool, number), *q = piece(pool, next);
    free_unlink(pool, next);
    p->units += q->units;
    p->after = q->after;
    if (p->after)
        piece(pool, p->after)->before = number;
    drop_piece(pool, next);
}

int pool_give(struct pool *pool, uint64_t offset)
{
    if (!offset)
        return 1;
    if (offset % POOL_UNIT || offset >= pool->bytes)
        return 0;
    pthread_mutex_lock(&pool->lock);
    uint32_t number = atomic_load_explicit(&pool->shadow[offset / POOL_UNIT], memory_order_relaxed);
    if (number) {
        struct piece *p = piece(pool, number);
        uint64_t bytes = p->units * POOL_UNIT;
        atomic_store_explicit(&pool->shadow[offset / POOL_UNIT], 0, memory_order_relaxed);
        pool->used -= bytes;
        if (bytes >= POOL_PAGES_BACK)
            madvise(pool->base + offset, bytes / POOL_PAGE * POOL_PAGE, MADV_REMOVE);
        free_link(pool, number);
        if (p->after && piece(pool, p->after)->free)
            join(pool, number, p->after);
        if (p->before && piece(pool, p->before)->free)
            join(pool, p->before, number);
    }
    pthread_mutex_unlock(&pool->lock);
    return number != 0;
}

uint64_t pool_used(struct pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    uint64_t used = pool->used;
    pthread_mutex_unlock(&pool->lock);
    return used;
}

uint64_t pool_size(struct pool *pool, uint64_t offset)
{
    if (offset % POOL_UNIT || offset >= pool->bytes)
        return 0;
    uint32_t number = atomic_load_explicit(&pool->shadow[offset / POOL_UNIT], memory_order_acquire);
    return number ? piece(pool, number)->units * POOL_UNIT : 0;
}
