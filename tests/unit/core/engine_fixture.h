/* SPDX-License-Identifier: MIT */
/* An engine on real plugins from the build tree, for tests: model/tiny unless said. */
#ifndef TESTS_ENGINE_FIXTURE_H
#define TESTS_ENGINE_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "drive.h"
#include "engine.h"
#include "registry.h"

enum { FIXTURE_OPTIONS = 4 };

struct fixture_params {
    const char *scheduler, *batching, *bus, *cache; /* NULL: fcfs, continuous, direct, paged */
    struct option_setting model[FIXTURE_OPTIONS], kvcache[FIXTURE_OPTIONS];
    struct engine_params engine;      /* parts and clock are filled in */
    void (*ended)(void *user, const struct engine_ended *ended); /* told of ends; may be NULL */
    void *user;
    void (*dress)(struct engine_parts *parts); /* puts other tables in front of the parts'; may be NULL */
    const char *refusal;              /* opening is refused with this in the sentence; the engine is then NULL */
};

struct fixture {
    struct registry *registry;
    struct engine_parts parts;
    struct clock clock;
    struct deployment *deployment;
    struct engine *engine; /* its replica 0 */
};

static inline struct instance *fixture_instance(struct fixture *f, int kind, const char *name,
                                                const struct option_setting *options)
{
    struct instance *instance = NULL;
    struct lathe_error err = { 0 };
    size_t count = 0;
    while (options && count < FIXTURE_OPTIONS && options[count].name)
        count++;
    if (instance_create(f->registry, kind, name, options, count, &instance, &err) != LATHE_OK)
        fail_msg("%s/%s: %s", kind_name(kind), name, err.message);
    return instance;
}

static inline void fixture_open(struct fixture *f, struct fixture_params p)
{
    struct lathe_error err = { 0 };
    const char *folders[] = { TEST_PLUGINS, NULL };
    memset(f, 0, sizeof *f);
    if (registry_open(folders, &f->registry, &err) != LATHE_OK)
        fail_msg("%s", err.message);
    f->parts.tokenizer = fixture_instance(f, LATHE_KIND_TOKENIZER, "byte", NULL);
    f->parts.model = fixture_instance(f, LATHE_KIND_MODEL, "tiny", p.model);
    f->parts.sampler = fixture_instance(f, LATHE_KIND_SAMPLER, "greedy", NULL);
    f->parts.kvcache = fixture_instance(f, LATHE_KIND_KVCACHE, p.cache ? p.cache : "paged", p.kvcache);
    f->parts.scheduler = fixture_instance(f, LATHE_KIND_SCHEDULER, p.scheduler ? p.scheduler : "fcfs", NULL);
    f->parts.batching = fixture_instance(f, LATHE_KIND_BATCHING, p.batching ? p.batching : "continuous", NULL);
    f->parts.bus = fixture_instance(f, LATHE_KIND_BUS, p.bus ? p.bus : "direct", NULL);
    clock_start(&f->clock, CLOCK_KIND_REAL);
    p.engine.parts = f->parts;
    p.engine.clock = &f->clock;
    struct deployment_params deployment = { .engine = p.engine, .ended = p.ended, .user = p.user };
    if (p.dress)
        p.dress(&f->parts);
    int status = deployment_open(&deployment, &f->deployment, &err);
    if (p.refusal) {
        assert_int_not_equal(status, LATHE_OK);
        if (!strstr(err.message, p.refusal))
            fail_msg("\"%s\", expected \"%s\"", err.message, p.refusal);
        f->deployment = NULL;
        return;
    }
    if (status != LATHE_OK)
        fail_msg("%s", err.message);
    f->engine = deployment_engine(f->deployment, 0);
}

static inline void fixture_close(struct fixture *f)
{
    deployment_close(f->deployment);
    instance_destroy(f->parts.bus);
    instance_destroy(f->parts.batching);
    instance_destroy(f->parts.scheduler);
    instance_destroy(f->parts.kvcache);
    instance_destroy(f->parts.sampler);
    instance_destroy(f->parts.model);
    instance_destroy(f->parts.tokenizer);
    registry_close(f->registry);
}

static inline uint64_t fixture_submit(struct fixture *f, const struct engine_submit *submit)
{
    struct lathe_error err = { 0 };
    uint64_t id = 0;
    if (engine_submit(f->engine, submit, &id, &err) != LATHE_OK)
        fail_msg("%s", err.message);
    return id;
}

static inline void fixture_drive(struct fixture *f, struct planned_request *requests, size_t count, uint32_t concurrency)
{
    struct lathe_error err = { 0 };
    struct drive_params params = { .deployment = f->deployment, .clock = &f->clock, .requests = requests, .count = count,
                                   .concurrency = concurrency };
    if (drive(&params, &err) != LATHE_OK)
        fail_msg("%s", err.message);
}

static inline void fixture_free(struct planned_request *requests, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        free(requests[i].output);
        free(requests[i].logprobs);
        free(requests[i].text);
    }
}

#endif
