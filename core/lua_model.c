/* SPDX-License-Identifier: MIT */
/* lathe.model { "llama", path = "…", threads = 2, tokenizer = "bpe" }: weights and the
 * tokenizer that fits, read once and used by every run that names them.
 *
 *     local model <close> = lathe.model { "tiny" }
 *     model:encode "text" → { ids }      model:decode { ids } → "text"
 *     model:template { { role = "user", content = "…" } } → "text"
 *     model:info() → { architecture = …, layers = …, … }
 *
 * The userdata closes with its scope, with :close(), or when it is collected. */
#include "lua_internal.h"

#include <stdlib.h>
#include <string.h>

#include "service.h"

struct lua_model *lua_check_model(lua_State *L, int index, const char *what)
{
    char text[128];
    struct lua_model *model = luaL_testudata(L, index, LUA_LATHE_MODEL);
    if (!model)
        lua_fail(L, "%s: should be a model, as lathe.model makes, not %s", what,
                 lua_describe(L, index, text, sizeof text));
    if (!model->open)
        lua_fail(L, "%s: the model is used after it was closed", what);
    return model;
}

static int model_close(lua_State *L)
{
    struct lua_model *model = luaL_checkudata(L, 1, LUA_LATHE_MODEL);
    if (model->open)
        loaded_model_close(&model->loaded);
    model->open = false;
    return 0;
}

/* ── making ────────────────────────────────────────────────────────────────────────── */

/* What must be given back if reading the description throws. */
struct description {
    struct stage model, tokenizer;
};

static int description_clear(lua_State *L)
{
    struct description *description = luaL_checkudata(L, 1, "lathe.description");
    stage_clear(&description->model);
    stage_clear(&description->tokenizer);
    return 0;
}

static void read_description(lua_State *L, struct description *description)
{
    struct lua_lathe *lathe = lua_lathe_of(L);
    struct lathe_error err;
    char text[128];
    if (lua_type(L, 1) == LUA_TSTRING) {
        lua_check_stage(L, 1, "lathe.model", LATHE_KIND_MODEL, &description->model);
    } else if (lua_istable(L, 1)) {
        /* The tokenizer's field is not an option of the model: read without it. */
        lua_newtable(L);
        for (lua_pushnil(L); lua_next(L, 1); lua_pop(L, 1)) {
            if (lua_type(L, -2) == LUA_TSTRING && !strcmp(lua_tostring(L, -2), "tokenizer"))
                continue;
            lua_pushvalue(L, -2);
            lua_pushvalue(L, -2);
            lua_rawset(L, -5);
        }
        lua_check_stage(L, -1, "lathe.model", LATHE_KIND_MODEL, &description->model);
        lua_pop(L, 1);
        lua_getfield(L, 1, "tokenizer");
        lua_check_stage(L, -1, "lathe.model: tokenizer", LATHE_KIND_TOKENIZER, &description->tokenizer);
        lua_pop(L, 1);
    } else {
        lua_fail(L, "lathe.model: should be a plugin's name or { \"name\", option = value }, not %s",
                 lua_describe(L, 1, text, sizeof text));
    }
    /* Another model by --set makes the script's tokenizer meaningless. */
    const struct stage *override = &lathe->overrides.stages[LATHE_KIND_MODEL];
    if (override->name && description->model.name && strcmp(override->name, description->model.name))
        stage_clear(&description->tokenizer);
    if (overrides_apply(&lathe->overrides, LATHE_KIND_MODEL, &description->model, &err) ||
        overrides_apply(&lathe->overrides, LATHE_KIND_TOKENIZER, &description->tokenizer, &err))
        lua_fail_error(L, "lathe.model", &err);
}

int lua_model_new(lua_State *L)
{
    struct lua_lathe *lathe = lua_lathe_of(L);
    struct lathe_error err;
    lua_stop_if_help(L);
    lua_settop(L, 1);
    struct description *description = lua_newuserdatauv(L, sizeof *description, 0);
    memset(description, 0, sizeof *description);
    luaL_setmetatable(L, "lathe.description");
    read_description(L, description);

    struct lua_model *model = lua_newuserdatauv(L, sizeof *model, 0);
    memset(model, 0, sizeof *model);
    luaL_setmetatable(L, LUA_LATHE_MODEL);
    int status = loaded_model_open(lathe->registry, &description->model, &description->tokenizer, &model->loaded, &err);
    stage_clear(&description->model);
    stage_clear(&description->tokenizer);
    if (status)
        lua_fail_error(L, "lathe.model", &err);
    model->open = true;
    return 1;
}

/* ── methods ───────────────────────────────────────────────────────────────────────── */

static int model_info(lua_State *L)
{
    const struct lua_model *model = lua_check_model(L, 1, "model:info");
    const struct lathe_model_info *info = &model->loaded.info;
    const struct lathe_tokenizer_info *tokens = &model->loaded.tokens;
    lua_newtable(L);
    lua_set_text(L, "plugin", model->loaded.model->entry->name);
    lua_set_text(L, "tokenizer", model->loaded.tokenizer->entry->name);
    lua_set_text(L, "path", model->loaded.path);
    lua_set_text(L, "architecture", info->architecture);
    lua_set_text(L, "name", info->name);
    lua_set_text(L, "quantization", info->quantization);
    lua_set_text(L, "pretokenizer", tokens->name);
    lua_set_integer(L, "layers", info->layers);
    lua_set_integer(L, "heads", info->heads);
    lua_set_integer(L, "kv_heads", info->kv_heads);
    lua_set_integer(L, "head_width", info->head_width);
    lua_set_integer(L, "embedding_width", info->embedding_width);
    lua_set_integer(L, "vocab_tokens", info->vocab_tokens);
    lua_set_integer(L, "context_tokens", info->context_tokens);
    lua_set_integer(L, "parameters", info->parameters);
    lua_set_integer(L, "weight_bytes", info->weight_bytes);
    lua_set_integer(L, "kv_bytes_per_token", info->kv_bytes_per_token);
    lua_pushboolean(L, tokens->has_template);
    lua_setfield(L, -2, "has_template");
    lua_newtable(L);
    for (uint32_t i = 0; i < tokens->stop_count && i < LATHE_TOKENIZER_MAX_STOPS; i++) {
        lua_pushinteger(L, tokens->stops[i]);
        lua_rawseti(L, -2, i + 1);
    }
    lua_setfield(L, -2, "stops");
    return 1;
}

/* model:encode(text[, { special = true, bos = true }]) → { ids } */
static int model_encode(lua_State *L)
{
    static const char *const fields[] = { "special", "bos", NULL };
    const struct lua_model *model = lua_check_model(L, 1, "model:encode");
    struct lathe_error err;
    char what[128];
    size_t bytes, count;
    uint32_t flags = 0;
    int32_t *tokens;
    if (lua_type(L, 2) != LUA_TSTRING)
        lua_fail(L, "model:encode: takes a text, not %s", lua_describe(L, 2, what, sizeof what));
    const char *text = lua_tolstring(L, 2, &bytes);
    if (lua_istable(L, 3)) {
        lua_check_fields(L, 3, "model:encode", fields, 0);
        flags = (lua_field_boolean(L, 3, "model:encode", "special", false) ? LATHE_ENCODE_SPECIAL : 0) |
                (lua_field_boolean(L, 3, "model:encode", "bos", false) ? LATHE_ENCODE_BOS : 0);
    }
    if (tokenizer_encode(model->loaded.tokenizer, text, bytes, flags, &tokens, &count, &err))
        lua_fail_error(L, "model:encode", &err);
    lua_createtable(L, (int)count, 0);
    for (size_t i = 0; i < count; i++) {
        lua_pushinteger(L, tokens[i]);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    free(tokens);
    return 1;
}

/* model:decode({ ids }[, { special = true }]) → text */
static int model_decode(lua_State *L)
{
    static const char *const fields[] = { "special", NULL };
    const struct lua_model *model = lua_check_model(L, 1, "model:decode");
    struct lathe_error err;
    char what[128], *text;
    size_t bytes;
    uint32_t flags = LATHE_DECODE_FLUSH;
    if (!lua_istable(L, 2))
        lua_fail(L, "model:decode: takes an array of token ids, not %s", lua_describe(L, 2, what, sizeof what));
    if (lua_istable(L, 3)) {
        lua_check_fields(L, 3, "model:decode", fields, 0);
        flags |= lua_field_boolean(L, 3, "model:decode", "special", false) ? LATHE_DECODE_SPECIAL : 0;
    }
    size_t count = (size_t)luaL_len(L, 2);
    int32_t *tokens = lua_newuserdatauv(L, (count + 1) * sizeof *tokens, 0);
    for (size_t i = 0; i < count; i++) {
        int whole;
        lua_rawgeti(L, 2, (lua_Integer)i + 1);
        lua_Integer id = lua_tointegerx(L, -1, &whole);
        if (!whole || id < 0 || id > INT32_MAX)
            lua_fail(L, "model:decode: element %zu should be a token id, not %s", i + 1,
                     lua_describe(L, -1, what, sizeof what));
        tokens[i] = (int32_t)id;
        lua_pop(L, 1);
    }
    if (tokenizer_decode(model->loaded.tokenizer, tokens, count, flags, &text, &bytes, &err))
        lua_fail_error(L, "model:decode", &err);
    lua_pushlstring(L, text, bytes);
    free(text);
    return 1;
}

/* model:template(messages[, { add_generation_prompt = true, source = "…" }]) → text */
static int model_template(lua_State *L)
{
    static const char *const fields[] = { "add_generation_prompt", "source", NULL };
    const struct lua_model *model = lua_check_model(L, 1, "model:template");
    struct lathe_error err;
    const char *source = NULL;
    char what[128], *text;
    size_t bytes;
    bool prompt = true;
    if (!lua_istable(L, 2))
        lua_fail(L, "model:template: takes messages { { role = \"user\", content = \"…\" }, … }, not %s",
                 lua_describe(L, 2, what, sizeof what));
    if (lua_istable(L, 3)) {
        lua_check_fields(L, 3, "model:template", fields, 0);
        prompt = lua_field_boolean(L, 3, "model:template", "add_generation_prompt", true);
        source = lua_field_string(L, 3, "model:template", "source", NULL);
    }
    lua_json_push(L, 2, "model:template");
    if (tokenizer_template(model->loaded.tokenizer, lua_tostring(L, -1), prompt, source, &text, &bytes, &err))
        lua_fail_error(L, "model:template", &err);
    lua_pushlstring(L, text, bytes);
    free(text);
    return 1;
}

static const luaL_Reg methods[] = {
    { "info", model_info },         { "encode", model_encode }, { "decode", model_decode },
    { "template", model_template }, { "close", model_close },   { NULL, NULL },
};

void lua_model_register(lua_State *L)
{
    lua_class(L, LUA_LATHE_MODEL, methods, model_close);
    lua_class(L, "lathe.description", NULL, description_clear);
}
