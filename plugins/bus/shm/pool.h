/* SPDX-License-Identifier: MIT */
/* Room in one mapping, given out and taken back. What is free, and how large each piece is,
 * stands in memory of the host's own: a worker that writes where it should not can spoil
 * messages, never this.
 *
 *     pieces in order of address    │used│free  │used    │free            …│
 *     shadow, a word for each 64 B   ▲n          ▲m          which piece begins here; 0: none
 *
 * First fit among the free ones; neighbours that are free become one. Pieces are multiples of
 * 64 bytes and begin at one; from a page on, at a page, and from PAGES_BACK bytes on their
 * pages go back to the system when they are given back. The shadow is as sparse as the
 * mapping: a page of it is touched only where pieces begin.
 *
 * pool_size may be called by any thread about a piece that it holds; the rest is under a lock. */
#ifndef SHM_POOL_H
#define SHM_POOL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#include <lathe/host.h>

enum { POOL_UNIT = 64, POOL_PAGE = 4096, POOL_PAGES_BACK = 1 << 20, POOL_CHUNK = 1024, POOL_CHUNKS = 1024 };

struct piece {
    uint64_t first, units;     /* in units of 64 bytes */
    uint32_t before, after;    /* neighbours by address; 0: none */
    uint32_t less, more;       /* the list of free ones, in no order; of unused pieces `more` alone */
    uint32_t free;
};

struct pool {
    const struct lathe_host *host;
    unsigned char *base;
    uint64_t bytes, used;      /* used: under lock */
    _Atomic uint32_t *shadow;
    pthread_mutex_t lock;
    struct piece *chunks[POOL_CHUNKS]; /* never move, so that a holder may read its piece */
    uint32_t pieces;           /* that exist; number 0 is none */
    uint32_t unused;           /* list of those that stand for nothing now */
    uint32_t free;             /* list */
};

/* `base` is a shared mapping of `bytes`, page-aligned both. Its first `reserved` bytes are never given out. */
int pool_open(struct pool *pool, const struct lathe_host *host, void *base, uint64_t bytes, uint64_t reserved,
              struct lathe_error *err);
void pool_close(struct pool *pool);

/* The offset of at least `bytes`; 0: there is no such room, or no memory to note it down. The bytes are
 * what they were. */
uint64_t pool_take(struct pool *pool, uint64_t bytes);
/* `offset` must be one that was given out; 0 is ignored. 1; 0 if it was not. */
int pool_give(struct pool *pool, uint64_t offset);
/* How much of the mapping is given out. */
uint64_t pool_used(struct pool *pool);
/* The bytes of the piece that begins at `offset`; 0 if none does. [any] */
uint64_t pool_size(struct pool *pool, uint64_t offset);

#endif
