/* SPDX-License-Identifier: MIT */
#include "kinds.h"

#include <string.h>

#include "registry.h"
#include <lathe/batching.h>
#include <lathe/bus.h>
#include <lathe/frontend.h>
#include <lathe/kvcache.h>
#include <lathe/model.h>
#include <lathe/router.h>
#include <lathe/sampler.h>
#include <lathe/scheduler.h>
#include <lathe/tokenizer.h>

#define SLOT(kind, slot) { #slot, offsetof(struct lathe_##kind##_api, slot) }
#define HEAD_SLOTS(kind) SLOT(kind, create), SLOT(kind, destroy)

static const struct kind_slot tokenizer_slots[] = {
    HEAD_SLOTS(tokenizer), SLOT(tokenizer, describe), SLOT(tokenizer, encode), SLOT(tokenizer, decode), { NULL, 0 },
};
static const struct kind_slot model_slots[] = {
    HEAD_SLOTS(model), SLOT(model, describe), SLOT(model, context_create), SLOT(model, context_destroy),
    SLOT(model, forward), { NULL, 0 },
};
static const struct kind_slot sampler_slots[] = {
    HEAD_SLOTS(sampler), SLOT(sampler, defaults), SLOT(sampler, bind), SLOT(sampler, sample), { NULL, 0 },
};
static const struct kind_slot kvcache_slots[] = {
    HEAD_SLOTS(kvcache), SLOT(kvcache, layout), SLOT(kvcache, admit), SLOT(kvcache, blocks_needed),
    SLOT(kvcache, blocks_available), SLOT(kvcache, reserve), SLOT(kvcache, table), SLOT(kvcache, filled),
    SLOT(kvcache, truncate), SLOT(kvcache, release), SLOT(kvcache, usage), { NULL, 0 },
};
static const struct kind_slot scheduler_slots[] = {
    HEAD_SLOTS(scheduler), SLOT(scheduler, bind), SLOT(scheduler, admit), SLOT(scheduler, rank),
    SLOT(scheduler, victim), SLOT(scheduler, retire), { NULL, 0 },
};
static const struct kind_slot batching_slots[] = {
    HEAD_SLOTS(batching), SLOT(batching, bind), SLOT(batching, fill), { NULL, 0 },
};
static const struct kind_slot bus_slots[] = {
    HEAD_SLOTS(bus), SLOT(bus, add_service), SLOT(bus, remove_service), SLOT(bus, resolve), SLOT(bus, loan),
    SLOT(bus, give_back), SLOT(bus, post), SLOT(bus, wait), SLOT(bus, stats), SLOT(bus, post_many),
    SLOT(bus, wait_many), SLOT(bus, poll), SLOT(bus, scale), SLOT(bus, health), SLOT(bus, observe), { NULL, 0 },
};
static const struct kind_slot router_slots[] = {
    HEAD_SLOTS(router), SLOT(router, bind), SLOT(router, route), { NULL, 0 },
};
static const struct kind_slot frontend_slots[] = {
    HEAD_SLOTS(frontend), SLOT(frontend, start), SLOT(frontend, stop), { NULL, 0 },
};

#define KIND(NUMBER, kind, question, ABI) \
    [NUMBER] = { #kind, question, ABI, sizeof(struct lathe_##kind##_api), kind##_slots }

static const struct kind_info kinds[KIND_COUNT + 1] = {
    KIND(LATHE_KIND_TOKENIZER, tokenizer, "what are the tokens?", LATHE_TOKENIZER_ABI),
    KIND(LATHE_KIND_MODEL, model, "what comes next?", LATHE_MODEL_ABI),
    KIND(LATHE_KIND_SAMPLER, sampler, "which token of those?", LATHE_SAMPLER_ABI),
    KIND(LATHE_KIND_KVCACHE, kvcache, "where do keys and values live, and which go first?", LATHE_KVCACHE_ABI),
    KIND(LATHE_KIND_SCHEDULER, scheduler, "who goes next, and who waits or is preempted?", LATHE_SCHEDULER_ABI),
    KIND(LATHE_KIND_BATCHING, batching, "how many tokens of each go in this step?", LATHE_BATCHING_ABI),
    KIND(LATHE_KIND_BUS, bus, "how do services reach each other?", LATHE_BUS_ABI),
    KIND(LATHE_KIND_ROUTER, router, "which replica, which model, which version?", LATHE_ROUTER_ABI),
    KIND(LATHE_KIND_FRONTEND, frontend, "how does the world reach the engine?", LATHE_FRONTEND_ABI),
};

const struct kind_info *kind_info(int kind)
{
    return kind >= 1 && kind <= KIND_COUNT ? &kinds[kind] : NULL;
}

const char *kind_name(int kind)
{
    const struct kind_info *info = kind_info(kind);
    return info ? info->name : "unknown";
}

int kind_from_name(const char *name)
{
    for (int kind = 1; kind <= KIND_COUNT; kind++)
        if (strcmp(kinds[kind].name, name) == 0)
            return kind;
    return 0;
}

const char *kind_empty_slot(int kind, const void *api)
{
    for (const struct kind_slot *slot = kinds[kind].slots; slot->name; slot++) {
        void (*function)(void);
        memcpy(&function, (const char *)api + slot->offset, sizeof function);
        if (!function)
            return slot->name;
    }
    return NULL;
}
