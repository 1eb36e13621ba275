/* SPDX-License-Identifier: MIT */
/* How a map begins and ends, and how much a request may keep: see kvmap.h. */
#include "kvmap.h"

int kvmap_create(const struct lathe_host *host, const struct lathe_config *config, const char *name, int budgets,
                 size_t bytes, void **self, struct lathe_error *err)
{
    struct kvmap *map = lathe_alloc(host, bytes);
    if (!map)
        return lathe_fail(err, LATHE_ENOMEM, "kvcache %s: no memory for %zu bytes", name, bytes);
    map->host = host;
    map->name = name;
    kvmap_read(config, budgets, &map->wishes);
    *self = map;
    return LATHE_OK;
}

void kvmap_close(struct kvmap *map)
{
    lathe_free(map->host, map->slots);
    lathe_free(map->host, map->tables);
    lathe_free(map->host, map->references);
    lathe_free(map->host, map->freed);
    lathe_free(map->host, map->drops);
    map->slots = NULL, map->tables = NULL, map->references = NULL, map->freed = NULL, map->drops = NULL;
}

int kvmap_layout(void *self, const struct lathe_kv_demand *demand, struct lathe_kv_geometry *geometry,
                 struct lathe_error *err)
{
    struct kvmap *map = self;
    if (map->slots)
        return lathe_fail(err, LATHE_ESTATE, "kvcache %s: laid out twice; make a second instance instead", map->name);
    int status = kvmap_size(&map->wishes, map->name, demand, geometry, err);
    if (status != LATHE_OK)
        return status;
    map->block_tokens = geometry->block_tokens;
    map->blocks = geometry->blocks;
    map->max_requests = demand->max_requests;
    map->table_blocks = kvmap_blocks_for(map, demand->context_tokens);
    map->next_handle = 1;

    size_t entries;
    map->slots = lathe_alloc_array(map->host, map->max_requests, sizeof *map->slots);
    map->tables = __builtin_mul_overflow((size_t)map->max_requests, (size_t)map->table_blocks, &entries)
                      ? NULL
                      : lathe_alloc_array(map->host, entries, sizeof *map->tables);
    map->references = lathe_alloc_array(map->host, map->blocks, sizeof *map->references);
    map->freed = lathe_alloc_array(map->host, map->blocks, sizeof *map->freed);
    map->drops = lathe_alloc_array(map->host, map->max_requests, sizeof *map->drops);
    if (!map->slots || !map->tables || !map->references || !map->freed || !map->drops) {
        kvmap_close(map);
        return lathe_fail(err, LATHE_ENOMEM, "kvcache %s: no memory for the map of %u blocks and %u requests", map->name,
                          map->blocks, map->max_requests);
    }
    return LATHE_OK;
}

/* --- how much a request may keep ----------------------------------------------- */

/* Of a pool that is shared by `requests`: what fits into an even share of its blocks, less those that it
 * takes to store the next position and to begin and end within a block. */
static uint32_t share_of_blocks(const struct kvmap *map, uint32_t requests)
{
    uint32_t blocks = map->blocks / requests;
    return (blocks > 4 ? blocks - 3 : 1) * map->block_tokens;
}

uint32_t kvmap_limit(const struct kvmap *map)
{
    uint32_t limit = UINT32_MAX, requests = map->admitted ? map->admitted : 1;
    if (map->wishes.budget)
        limit = (uint32_t)map->wishes.budget;
    if (map->wishes.pool_budget) {
        int64_t share = map->wishes.pool_budget / requests;
        if (share < limit)
            limit = share > 0 ? (uint32_t)share : 1;
    }
    if (map->wishes.evict) {
        uint32_t share = share_of_blocks(map, requests);
        limit = share < limit ? share : limit;
    }
    return limit;
}

uint32_t kvmap_most_kept(const struct kvmap *map)
{
    uint64_t most = (uint64_t)map->table_blocks * map->block_tokens;
    if (!map->wishes.budget && !map->wishes.pool_budget && !map->wishes.evict)
        return 0;
    if (map->wishes.budget && (uint64_t)map->wishes.budget < most)
        most = (uint64_t)map->wishes.budget;
    if (map->wishes.pool_budget && (uint64_t)map->wishes.pool_budget < most)
        most = (uint64_t)map->wishes.pool_budget;
    if (map->wishes.evict && share_of_blocks(map, 1) < most)
        most = share_of_blocks(map, 1);
    return (uint32_t)most;
}
