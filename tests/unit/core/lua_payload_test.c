/* SPDX-License-Identifier: MIT */
/* Services called by name from Lua: what comes back is what a direct call in C gives. */
#include "payload_fixture.h"

#include <lauxlib.h>
#include <lualib.h>

#include "lua_payload.h"

static struct fixture *fixture;

/* call (service, method, table) */
static int call(lua_State *L)
{
    struct lua_payload_bus bus = { .bus = fixture->bus, .bus_self = fixture->bus_self, .model = &fixture->info };
    return lua_payload_call(L, &bus, luaL_checkstring(L, 1), luaL_checkstring(L, 2), 3);
}

static lua_State *open_lua(struct fixture *f)
{
    lua_State *L = luaL_newstate();
    fixture_open(f);
    fixture = f;
    luaL_openlibs(L);
    lua_pushcfunction(L, call);
    lua_setglobal(L, "call");
    return L;
}

static void close_lua(lua_State *L)
{
    lua_close(L);
    fixture_close(fixture);
}

static void run(lua_State *L, const char *script)
{
    if (luaL_loadstring(L, script) || lua_pcall(L, 0, LUA_MULTRET, 0))
        fail_msg("%s", lua_tostring(L, -1));
}

static void tokenizers_are_called_with_tables(void **state)
{
    struct fixture f;
    lua_State *L = open_lua(&f);
    int32_t *tokens;
    size_t count;
    struct lathe_error err;
    (void)state;
    run(L, "local info = assert(call('tokenizer', 'describe'))\n"
           "assert(info.name == 'byte' and info.vocab_tokens == 260 and #info.stops == 2 and info.has_template == "
           "false)\n"
           "assert(info.head == nil and info.stop_count == nil)\n"
           "return table.unpack(assert(call('tokenizer', 'encode', { text = 'na\\xC3\\xAFve<|eos|>', special = true "
           "})).tokens)");
    assert_int_equal(
        tokenizer_encode(f.tokenizer, "na\xC3\xAFve<|eos|>", 13, LATHE_ENCODE_SPECIAL, &tokens, &count, &err), 0);
    assert_int_equal(lua_gettop(L), count);
    for (size_t i = 0; i < count; i++)
        assert_int_equal(lua_tointeger(L, (int)i + 1), tokens[i]);
    free(tokens);
    lua_settop(L, 0);
    run(L, "local state, text = nil, ''\n"
           "for _, token in ipairs { 0x6E, 0xE2, 0x82, 0xAC, 0xC3 } do\n"
           "    local piece = assert(call('tokenizer', 'decode', { tokens = { token }, state = state }))\n"
           "    state, text = piece.state, text .. piece.text\n"
           "end\n"
           "assert(text == 'n\\u{20AC}' and state.started and #state.bytes == 1 and state.bytes[1] == 0xC3)\n"
           "local last = assert(call('tokenizer', 'decode', { tokens = {}, state = state, flush = true }))\n"
           "assert(last.text == '\\u{FFFD}' and #last.state.bytes == 0)\n"
           "assert(assert(call('tokenizer', 'decode', { tokens = { 0, 200 }, raw = true })).text == '\\0\\200')\n"
           "local long = string.rep('x', 100000)\n"
           "assert(#assert(call('tokenizer', 'encode', { text = long })).tokens == #long)");
    close_lua(L);
}

/* A message of one request: tokens of positions 0 … 5 in blocks 2 and 5, logits and hidden states of rows
 * 1 and 5, and a probe. */
struct direct {
    struct lathe_forward_in in;
    struct lathe_slice slice;
    struct lathe_probe probe;
    int32_t tokens[6], blocks[2];
    uint32_t outputs[2];
} __attribute__((aligned(64)));

struct direct_reply {
    struct lathe_forward_out out;
    float logits[2 * 260];
    float hidden[2 * 128];
    uint64_t attention[8192];
} __attribute__((aligned(64)));

static void call_directly(struct fixture *f, uint32_t format, struct direct_reply *r)
{
    const struct lathe_model_api *api = f->model->api;
    static struct direct m;
    struct lathe_error err;
    void *context = fixture_context(f);
    memset(&m, 0, sizeof m);
    m.in.head.capacity = m.in.head.bytes = sizeof m;
    m.in.slices = (struct lathe_span){ offsetof(struct direct, slice), 1 };
    m.in.probes = (struct lathe_span){ offsetof(struct direct, probe), 1 };
    m.in.tokens = (struct lathe_span){ offsetof(struct direct, tokens), 6 };
    m.in.blocks = (struct lathe_span){ offsetof(struct direct, blocks), 2 };
    m.in.outputs = (struct lathe_span){ offsetof(struct direct, outputs), 2 };
    m.slice = (struct lathe_slice){ .request = 42, .flags = LATHE_SLICE_LOGITS | LATHE_SLICE_HIDDEN, .token_count = 6,
                                    .block_count = 2, .output_count = 2, .probe = 0, .adapter = -1 };
    m.probe = (struct lathe_probe){ .id = 1,
                                    .format = format,
                                    .top_k = 3,
                                    .recent_window = 2,
                                    .first_position = 2,
                                    .last_position = -1,
                                    .every = 2,
                                    .layers = { 2 },
                                    .heads = { (1u << f->info.heads) - 1 } };
    for (int i = 0; i < 6; i++)
        m.tokens[i] = 10 * i + 7;
    m.blocks[0] = 2, m.blocks[1] = 5;
    m.outputs[0] = 1, m.outputs[1] = 5;
    memset(r, 0, sizeof *r);
    r->out.head.capacity = sizeof *r;
    r->out.logits = (struct lathe_region){ offsetof(struct direct_reply, logits), sizeof r->logits };
    r->out.hidden = (struct lathe_region){ offsetof(struct direct_reply, hidden), sizeof r->hidden };
    r->out.attention = (struct lathe_region){ offsetof(struct direct_reply, attention), sizeof r->attention };
    if (api->forward(context, &m, r, &err) != LATHE_OK)
        fail_msg("%s", err.message);
    api->context_destroy(context);
}

static const char forward_script[] =
    "local reply = assert(call('model', 'forward', { slices = { { request = 42, tokens = { 7, 17, 27, 37, 47, 57 },\n"
    "    blocks = { 2, 5 }, outputs = { 1, 5 }, logits = true, hidden = true,\n"
    "    probe = { format = format, top_k = 3, recent_window = 2, first_position = 2, every = 2, layers = { 1 } } } "
    "} }))\n"
    "return reply.logits, reply.hidden, reply.attention";

static void forward_with(lua_State *L, const char *format)
{
    lua_settop(L, 0);
    lua_pushstring(L, format);
    lua_setglobal(L, "format");
    run(L, forward_script);
    assert_int_equal(lua_gettop(L), 3);
}

static void compare_rows(lua_State *L, int index, const float *rows, size_t count, size_t width)
{
    assert_int_equal(lua_rawlen(L, index), count);
    for (size_t r = 0; r < count; r++) {
        lua_rawgeti(L, index, (lua_Integer)r + 1);
        assert_int_equal(lua_rawlen(L, -1), width);
        for (size_t i = 0; i < width; i++) {
            lua_rawgeti(L, -1, (lua_Integer)i + 1);
            assert_true(lua_tonumber(L, -1) == (double)rows[r * width + i]);
            lua_pop(L, 1);
        }
        lua_pop(L, 1);
    }
}

static void forward_gives_the_same_numbers_as_a_direct_call(void **state)
{
    struct fixture f;
    struct direct_reply *r = aligned_alloc(64, (sizeof *r + 63) & ~(size_t)63);
    lua_State *L = open_lua(&f);
    (void)state;
    call_directly(&f, LATHE_PROBE_SUMMARY, r);
    forward_with(L, "summary");
    assert_int_equal(r->out.logits_rows, 2);
    compare_rows(L, 1, r->logits, 2, f.info.vocab_tokens);
    compare_rows(L, 2, r->hidden, 2, f.info.embedding_width);
    close_lua(L);
    free(r);
}

static const unsigned char *record(const struct direct_reply *r, int n, struct lathe_attention_row *row)
{
    const unsigned char *at = (const unsigned char *)r->attention;
    for (memcpy(row, at, sizeof *row); n > 0; n--) {
        at += row->bytes;
        memcpy(row, at, sizeof *row);
    }
    return at + sizeof *row;
}

/* Pushes attention[record].heads[head] */
static void push_head(lua_State *L, int record_number, int head)
{
    lua_rawgeti(L, 3, record_number + 1);
    lua_getfield(L, -1, "heads");
    lua_rawgeti(L, -1, head + 1);
    lua_replace(L, -3);
    lua_pop(L, 1);
}

static double number_field(lua_State *L, const char *name)
{
    lua_getfield(L, -1, name);
    assert_true(lua_isnumber(L, -1));
    double value = lua_tonumber(L, -1);
    lua_pop(L, 1);
    return value;
}

static double element_of(lua_State *L, const char *name, int i)
{
    lua_getfield(L, -1, name);
    lua_rawgeti(L, -1, i + 1);
    double value = lua_tonumber(L, -1);
    lua_pop(L, 2);
    return value;
}

static void attention_records_come_back_as_tables(void **state)
{
    struct fixture f;
    struct direct_reply *r = aligned_alloc(64, (sizeof *r + 63) & ~(size_t)63);
    struct lathe_attention_row row;
    lua_State *L = open_lua(&f);
    (void)state;

    call_directly(&f, LATHE_PROBE_SUMMARY, r);
    forward_with(L, "summary");
    assert_int_equal(lua_rawlen(L, 3), 2); /* positions 2 and 4 */
    for (int n = 0; n < 2; n++) {
        const unsigned char *bytes = record(r, n, &row);
        lua_rawgeti(L, 3, n + 1);
        assert_int_equal(number_field(L, "request"), 42);
        assert_int_equal(number_field(L, "position"), 2 + 2 * n);
        assert_int_equal(number_field(L, "keys"), 3 + 2 * n);
        lua_getfield(L, -1, "heads");
        assert_int_equal(lua_rawlen(L, -1), f.info.heads);
        lua_pop(L, 2);
        for (uint32_t h = 0; h < f.info.heads; h++) {
            struct lathe_attention_summary s;
            memcpy(&s, bytes + h * sizeof s, sizeof s);
            push_head(L, n, (int)h);
            assert_int_equal(number_field(L, "layer"), 1);
            assert_int_equal(number_field(L, "head"), h);
            assert_true(number_field(L, "entropy") == (double)s.entropy);
            assert_int_equal(number_field(L, "top_key"), s.top_key);
            assert_true(number_field(L, "top_weight") > 0 && number_field(L, "top_weight") <= 1);
            lua_pop(L, 1);
        }
    }

    call_directly(&f, LATHE_PROBE_TOP, r);
    forward_with(L, "top");
    const unsigned char *bytes = record(r, 1, &row);
    push_head(L, 1, 1);
    for (int i = 0; i < 3; i++) {
        struct lathe_attention_top top;
        memcpy(&top, bytes + (3 + i) * sizeof top, sizeof top); /* head 1 */
        assert_int_equal(element_of(L, "keys", i), top.key);
        assert_true(element_of(L, "weights", i) == (double)top.weight);
    }

    forward_with(L, "full");
    for (int n = 0; n < 2; n++) {
        push_head(L, n, 0);
        double sum = 0;
        for (int i = 0; i < 3 + 2 * n; i++)
            sum += element_of(L, "weights", i);
        assert_true(sum > 0.99 && sum < 1.01); /* half precision, decoded */
        lua_pop(L, 1);
    }
    close_lua(L);
    free(r);
}

static void a_forward_without_wishes_gives_nothing(void **state)
{
    struct fixture f;
    lua_State *L = open_lua(&f);
    (void)state;
    run(L, "local r = assert(call('model', 'forward', { slices = { { tokens = { 1, 2 }, blocks = { 0 } } } }))\n"
           "assert(#r.logits == 0 and #r.hidden == 0 and #r.attention == 0)\n"
           "r = assert(call('model', 'forward', { slices = { { tokens = { 3 }, first_position = 2, blocks = { 0 }, "
           "logits = true } } }))\n"
           "assert(#r.logits == 1 and #r.logits[1] == 260)\n"
           "r = assert(call('model', 'forward', { slices = {}, kv_ops = { { kind = 'copy', from = 0, to = 1, tokens "
           "= 3 } } }))\n"
           "assert(#r.logits == 0)");
    close_lua(L);
}

static void a_token_is_sampled_from_what_forward_gave(void **state)
{
    struct fixture f;
    lua_State *L = open_lua(&f);
    (void)state;
    run(L, "local forward = assert(call('model', 'forward', { slices = {\n"
           "    { request = 1, tokens = { 5, 6, 7 }, blocks = { 0 }, outputs = { 0, 2 }, logits = true } } }))\n"
           "local reply = assert(call('sampler', 'sample', { logits = forward.logits, rows = {\n"
           "    { request = 1, history = { 5 } }, { request = 1, history = { 5, 6, 7 }, sampling = { temperature = 0 "
           "} },\n"
           "    { request = 2, logits_row = 0, banned_count = 1 } }, stops = { 257 } }))\n"
           "assert(#reply.sampled == 3)\n"
           "local function best(row, banned)\n"
           "    local at, sum = 1, 0\n"
           "    for i, x in ipairs(row) do if x > row[at] and i - 1 ~= banned then at = i end end\n"
           "    for _, x in ipairs(row) do sum = sum + math.exp(x - row[at]) end\n"
           "    return at - 1, -math.log(sum)\n"
           "end\n"
           "for i, row in ipairs { 1, 2, 1 } do\n"
           "    local token, logprob = best(forward.logits[row], i == 3 and 257)\n"
           "    assert(reply.sampled[i].token == token, reply.sampled[i].token .. ' is not ' .. token)\n"
           "    assert(math.abs(reply.sampled[i].logprob - logprob) < 1e-4)\n"
           "end");
    close_lua(L);
}

static void refusals_are_nil_a_sentence_and_a_number(void **state)
{
    struct fixture f;
    lua_State *L = open_lua(&f);
    char codes[128];
    (void)state;
    snprintf(codes, sizeof codes, "EINVAL, ERANGE, ENOTFOUND = %d, %d, %d", LATHE_EINVAL, LATHE_ERANGE,
             LATHE_ENOTFOUND);
    run(L, codes);
    run(L,
        "local function refused(code, sentence, ...)\n"
        "    local reply, message, number = call(...)\n"
        "    assert(reply == nil and number == code, message)\n"
        "    assert(message:find(sentence, 1, true), message)\n"
        "end\n"
        "refused(ENOTFOUND, 'did you mean `model`?', 'modell', 'forward')\n"
        "refused(ENOTFOUND, 'did you mean `forward`?', 'model', 'forwards')\n"
        "refused(ENOTFOUND, 'scheduler', 'scheduler', 'rank')\n" /* described, but not on this bus */
        "refused(EINVAL, 'model.forward: slices[2].first_position should be an integer from 0 to 2147483647, not the "
        "text \"x\"',\n"
        "        'model', 'forward', { slices = { { tokens = { 1 } }, { tokens = { 1 }, first_position = 'x' } } })\n"
        "refused(EINVAL, 'slices[1].tokens[2] should be an integer', 'model', 'forward', { slices = { { tokens = { "
        "1, {} } } } })\n"
        "refused(EINVAL, 'slices[1].tokens should be a list', 'model', 'forward', { slices = { { tokens = { 1, nil, "
        "3, x = 1 } } } })\n"
        "refused(EINVAL, 'has no field `[1]`', 'tokenizer', 'encode', { 'text' })\n"
        "refused(EINVAL, 'did you mean `text`?', 'tokenizer', 'encode', { txt = 'x' })\n"
        "refused(EINVAL, 'text is missing: a text is expected', 'tokenizer', 'encode')\n"
        "refused(EINVAL, 'the message should be a table, not 7', 'tokenizer', 'encode', 7)\n"
        "refused(EINVAL, 'sampling.temperature should be a number', 'sampler', 'sample',\n"
        "        { logits = { { 1 } }, rows = { { sampling = { temperature = 0/0 } } } })\n"
        "refused(ERANGE, '260', 'tokenizer', 'decode', { tokens = { 260 } })\n"
        "local self = {}; self.slices = self\n"
        "refused(EINVAL, 'slices should be a list of tables', 'model', 'forward', self)\n"
        "local calls = setmetatable({}, { __index = function() error('a metamethod ran') end })\n"
        "refused(EINVAL, 'text is missing', 'tokenizer', 'encode', calls)");
    assert_int_equal(lua_gettop(L), 0);
    close_lua(L);
}

static int seen_template(void *self, const void *in_, void *out_, struct lathe_error *err)
{
    const struct lathe_template_in *in = in_;
    struct lathe_template_out *out = out_;
    (void)self, (void)err;
    char *text = lathe_message_add(&out->head, &out->text, in->messages.count, 1);
    memcpy(text, LATHE_SPAN(char, in, in->messages), in->messages.count);
    return LATHE_OK;
}

/* What a chat is made of may be a table or JSON text. */
static void chat_messages_are_given_as_a_table(void **state)
{
    struct fixture f;
    struct lathe_service_method method = { .name = "apply_template", .function = seen_template };
    struct lathe_service service = {
        .size = sizeof service, .method_count = 1, .name = "tokenizer", .methods = &method
    };
    struct lathe_error err;
    lua_State *L = open_lua(&f);
    (void)state;
    assert_int_equal(f.bus->remove_service(f.bus_self, "tokenizer", &err), LATHE_OK);
    assert_int_equal(f.bus->add_service(f.bus_self, &service, &err), LATHE_OK);
    run(L, "local messages = { { role = 'user', content = 'Hi \"you\"' } }\n"
           "local text = assert(call('tokenizer', 'apply_template', { messages = messages })).text\n"
           "assert(text == '[{\"content\":\"Hi \\\\\"you\\\\\"\",\"role\":\"user\"}]', text)\n"
           "assert(assert(call('tokenizer', 'apply_template', { messages = '[1]' })).text == '[1]')\n"
           "local reply, why = call('tokenizer', 'apply_template', { messages = print })\n"
           "assert(not reply and why:find('messages should be a value that JSON can hold, not a function', 1, true), "
           "why)");
    close_lua(L);
}

/* Memory that runs out in Lua while a reply is built is Lua's error, and loans go back (the leak
 * checker of the asan build says so). */
enum { LONG = 10000 };

struct budget {
    size_t left; /* the largest block that can be had */
};

static void *limited(void *context, void *memory, size_t old, size_t wanted)
{
    struct budget *b = context;
    if (wanted == 0) {
        free(memory);
        return NULL;
    }
    if (wanted > (memory ? old : 0) && wanted > b->left)
        return NULL;
    return realloc(memory, wanted);
}

static void running_out_of_lua_memory_leaks_nothing(void **state)
{
    struct fixture f;
    struct budget budget = { SIZE_MAX };
    (void)state;
    fixture_open(&f);
    fixture = &f;
    lua_State *L = lua_newstate(limited, &budget);
    lua_pushcfunction(L, call);
    lua_setglobal(L, "call");
    assert_int_equal(luaL_loadstring(L, "return call('tokenizer', 'encode', { text = long })"), LUA_OK);
    char *text = calloc(1, LONG);
    lua_pushlstring(L, text, LONG);
    lua_setglobal(L, "long");
    free(text);
    int failed = 0;
    for (size_t left = 16; left <= 64 * LONG; left *= 2) { /* no single block is larger */
        budget.left = left;
        lua_pushvalue(L, -1);
        if (lua_pcall(L, 0, 1, 0) != LUA_OK)
            failed++;
        else
            assert_true(left >= LONG * 16);
        lua_pop(L, 1);
    }
    assert_true(failed >= 8 && budget.left >= LONG * 16);
    budget.left = SIZE_MAX;
    lua_close(L);
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokenizers_are_called_with_tables),
        cmocka_unit_test(forward_gives_the_same_numbers_as_a_direct_call),
        cmocka_unit_test(attention_records_come_back_as_tables),
        cmocka_unit_test(a_forward_without_wishes_gives_nothing),
        cmocka_unit_test(a_token_is_sampled_from_what_forward_gave),
        cmocka_unit_test(refusals_are_nil_a_sentence_and_a_number),
        cmocka_unit_test(chat_messages_are_given_as_a_table),
        cmocka_unit_test(running_out_of_lua_memory_leaks_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
