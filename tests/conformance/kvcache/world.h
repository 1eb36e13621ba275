/* SPDX-License-Identifier: MIT */
/* A model in miniature for the KV caches' conformance: its pool is of numbers. Each position of a
 * request has a value made of the tokens up to it; operations are carried out on the pool as a model
 * would, new positions are written through the table, and check_everything finds all values again, of
 * the positions that may be looked at. */
#ifndef TESTS_CONFORMANCE_KVCACHE_WORLD_H
#define TESTS_CONFORMANCE_KVCACHE_WORLD_H

#include <lathe/kvcache.h>

#include "../harness.h"

enum { REQUESTS = 12, CONTEXT = 200, KV_BYTES = 64, OPS = 4096, LAYERS = 2, KV_HEADS = 3 };

/* Of the subject; set by open_cache. */
extern const struct lathe_kvcache_api *api;
extern void *cache;
extern struct lathe_kv_geometry shape;
extern uint64_t evicted; /* positions, so far */

extern struct mirror {
    struct lathe_request req;
    int32_t tokens[CONTEXT];
    int live, swapped;
    uint32_t filled;
} mirrors[REQUESTS];
extern uint64_t next_id;
extern struct lathe_kv_op op_space[OPS];

/* Of a model that can do all that a cache may ask for. */
struct lathe_kv_demand demanded(uint32_t requests, uint32_t requests_in_memory);
void open_cache(struct subject *s, uint32_t requests_in_memory);
void close_cache(void);

void carry_out(const struct lathe_kv_ops *ops);
/* A request of random length, one of three families; 0: a cache that reserves whole requests has no room for it now. */
int admit(struct mirror *m, struct dice *d);
/* Reserves, lets the operations happen, writes the new positions, says so. 0 if there was no room. */
int grow(struct mirror *m, uint32_t tokens, int fill);
/* Would something be left that may be looked at? */
int may_truncate(const struct mirror *m, uint32_t tokens);
void release(struct mirror *m);
/* Every value, every block, every figure. */
void check_everything(void);

#endif
