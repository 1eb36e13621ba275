/* SPDX-License-Identifier: MIT */
/* What a run was, as JSON for its row: every stage with its options as used, and what was plain Lua
 * in the description. lathe replay makes the run again from it. */
#include "lua_internal.h"

#include <string.h>

#include "workload.h"

/* Options as used, and which of them nobody set: a profile decides those. */
static void add_instance(luaL_Buffer *buffer, const char *kind, const struct instance *instance)
{
    luaL_addstring(buffer, "\"");
    luaL_addstring(buffer, kind);
    luaL_addstring(buffer, "\":{\"name\":\"");
    luaL_addstring(buffer, instance->entry->name); /* [a-z0-9_]+ */
    luaL_addstring(buffer, "\",\"options\":");
    luaL_addstring(buffer, instance->options_json ? instance->options_json : "{}");
    luaL_addstring(buffer, ",\"unset\":[");
    for (uint32_t i = 0, shown = 0; i < instance->plugin->option_count; i++) {
        if (!instance->values[i].is_default)
            continue;
        luaL_addstring(buffer, shown++ ? ",\"" : "\"");
        luaL_addstring(buffer, instance->plugin->options[i].name); /* lower_case */
        luaL_addstring(buffer, "\"");
    }
    luaL_addstring(buffer, "]},");
}

/* What beside the first model is there, with its options as JSON in a text. */
static void put_models(lua_State *L, const struct run_job *job)
{
    if (!job->model_count)
        return;
    lua_createtable(L, (int)job->model_count, 0);
    for (uint32_t i = 0; i < job->model_count; i++) {
        const struct instance *model = job->groups[i].model;
        lua_createtable(L, 0, 4);
        lua_set_text(L, "name", model->entry->name);
        lua_set_text(L, "options", model->options_json ? model->options_json : "{}");
        lua_newtable(L);
        for (uint32_t k = 0; k < model->plugin->option_count; k++) {
            if (!model->values[k].is_default)
                continue;
            lua_pushstring(L, model->plugin->options[k].name);
            lua_rawseti(L, -2, luaL_len(L, -2) + 1);
        }
        lua_setfield(L, -2, "unset");
        lua_set_integer(L, "replicas", job->groups[i].replicas);
        lua_set_integer(L, "weight", job->groups[i].weight);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    lua_setfield(L, -2, "models");
}

/* A stage whose instance is made later, as the script and the command line have it. */
static void put_stage(lua_State *L, const char *kind, const struct stage *stage)
{
    if (!stage->name && !stage->count)
        return;
    lua_createtable(L, 0, 2);
    lua_pushstring(L, stage->name ? stage->name : stage_default(stage->kind));
    lua_setfield(L, -2, "name");
    lua_createtable(L, 0, (int)stage->count);
    for (size_t i = 0; i < stage->count; i++) {
        lua_pushstring(L, stage->settings[i].text);
        lua_setfield(L, -2, stage->settings[i].name);
    }
    lua_setfield(L, -2, "options");
    lua_setfield(L, -2, kind);
}

void lua_push_configuration(lua_State *L, const struct run_job *job)
{
    lua_newtable(L); /* what is plain Lua: engine, trace, workers, workload */
    static const char *const plain[] = { "engine", "trace", "workers", "clock", "faults", "warmup", "disaggregate" };
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++) {
        lua_getfield(L, 1, plain[i]);
        lua_setfield(L, -2, plain[i]);
    }
    if (lua_getfield(L, 1, "interventions") == LUA_TTABLE) {
        lua_push_interventions(L, lua_gettop(L));
        lua_setfield(L, -3, "interventions");
    }
    lua_pop(L, 1);
    put_models(L, job);
    put_stage(L, "router", &job->stages[LATHE_KIND_ROUTER]);
    lua_newtable(L);
    if (lua_getfield(L, 1, "workload") == LUA_TNIL) { /* lathe.engine: requests come later */
        lua_pop(L, 1);
        lua_newtable(L);
    }
    static const char *const workload[] = { "name", "parameters", "concurrency", "think", "source" };
    for (size_t i = 0; i < sizeof workload / sizeof workload[0]; i++) {
        lua_getfield(L, -1, workload[i]);
        lua_setfield(L, -3, workload[i]);
    }
    lua_pop(L, 1);
    lua_pushinteger(L, (lua_Integer)(job->workload ? workload_count(job->workload) : job->count));
    lua_setfield(L, -2, "requests");
    lua_setfield(L, -2, "workload");
    lua_json_push(L, -1, job->who);
    const char *rest = lua_tostring(L, -1);

    luaL_Buffer buffer;
    luaL_buffinit(L, &buffer);
    luaL_addstring(&buffer, "{");
    add_instance(&buffer, "model", job->parts.model);
    add_instance(&buffer, "tokenizer", job->parts.tokenizer);
    add_instance(&buffer, "sampler", job->parts.sampler);
    add_instance(&buffer, "kvcache", job->parts.kvcache);
    add_instance(&buffer, "scheduler", job->parts.scheduler);
    add_instance(&buffer, "batching", job->parts.batching);
    add_instance(&buffer, "bus", job->parts.bus);
    luaL_addstring(&buffer, rest + 1); /* its own brace was opened above */
    luaL_pushresult(&buffer);
    lua_replace(L, -3);
    lua_pop(L, 1);
}
