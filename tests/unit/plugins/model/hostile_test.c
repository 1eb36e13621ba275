/* SPDX-License-Identifier: MIT */
/* Bad input to models: files whose metadata and tensors disagree, and forward messages that
 * lie. Each is refused with a sentence, and the model goes on working. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "golden.h"
#include <lathe/random.h>

static struct fixture f;
static struct call *c;
static char zoo[1024], scratch[1024];

/* ---- files ---- */

static unsigned char *bytes;
static size_t length;

static void read_zoo(const char *name)
{
    char path[2048];
    snprintf(path, sizeof path, "%s/zoo/%s", TEST_DATA, name);
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    free(bytes);
    bytes = malloc(1 << 22);
    length = fread(bytes, 1, 1 << 22, file);
    fclose(file);
}

/* Where the value of a key (or what follows a tensor's name) begins. */
static unsigned char *after(const char *name)
{
    size_t n = strlen(name);
    unsigned char *at = memmem(bytes, length, name, n);
    assert_non_null(at);
    return at + n;
}

static void set_u32(const char *key, uint32_t value)
{
    unsigned char *at = after(key);
    assert_int_equal(at[0], 4); /* GGUF's u32 */
    memcpy(at + 4, &value, 4);
}

static void expect_refusal(int status, const char *words)
{
    FILE *file = fopen(scratch, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, length, file), length);
    fclose(file);
    const struct fixture_option options[] = { { "path", scratch }, { NULL, NULL } };
    int found = fixture_open(&f, "llama", options);
    if (found != status || !strstr(f.err.message, words))
        fail_msg("status %d, \"%s\"; expected %d and \"%s\"", found, f.err.message, status, words);
    fixture_close(&f);
    assert_int_equal(f.live, 0);
}

static void metadata_outside_its_range_is_refused(void **state)
{
    const struct {
        const char *key;
        uint32_t value;
        int status;
        const char *words;
    } cases[] = {
        { "llama.block_count", 0, LATHE_EFORMAT, "llama.block_count is 0" },
        { "llama.block_count", 0x80000000u, LATHE_EFORMAT, "llama.block_count is 2147483648" },
        { "llama.block_count", 3, LATHE_ENOTFOUND, "blk.2." },
        { "llama.attention.head_count", 0, LATHE_EFORMAT, "head_count is 0" },
        { "llama.attention.head_count", 0xffffffffu, LATHE_EFORMAT, "head_count is 4294967295" },
        { "llama.attention.head_count", 257, LATHE_EFORMAT, "head_count is 257; 1 to 256" },
        { "llama.block_count", 257, LATHE_EFORMAT, "block_count is 257; 1 to 256" },
        { "llama.attention.head_count", 3, LATHE_EFORMAT, "multiple" },
        { "llama.attention.head_count_kv", 0, LATHE_EFORMAT, "head_count_kv is 0" },
        { "llama.attention.head_count_kv", 1000, LATHE_EFORMAT, "head_count_kv is 1000" },
        { "llama.attention.head_count_kv", 4, LATHE_EFORMAT, "attn_k.weight is 32 × 64; the metadata says 64 × 64" },
        { "llama.embedding_length", 128, LATHE_EFORMAT, "token_embd.weight is" },
        { "llama.embedding_length", 0xfffffff0u, LATHE_EFORMAT, "embedding_length is 4294967280" },
        { "llama.feed_forward_length", 97, LATHE_EFORMAT, "ffn_gate.weight is 96 × 64; the metadata says 97 × 64" },
        { "llama.context_length", 0, LATHE_EFORMAT, "context_length is 0" },
        { "llama.rope.dimension_count", 18, LATHE_EFORMAT, "rope.dimension_count is 18" },
        { "llama.rope.dimension_count", 3, LATHE_EFORMAT, "even" },
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        read_zoo("llama-q8_0.gguf");
        if (strcmp(cases[i].key, "llama.attention.head_count") == 0 && memmem(bytes, length, "head_count_kv", 13)) {
            /* the shorter name is also the longer one's beginning: take the one followed by a type */
            unsigned char *at = bytes;
            while ((at = memmem(at, length - (size_t)(at - bytes), cases[i].key, strlen(cases[i].key))) &&
                   at[strlen(cases[i].key)] != 4)
                at++;
            assert_non_null(at);
            memcpy(at + strlen(cases[i].key) + 4, &cases[i].value, 4);
        } else {
            set_u32(cases[i].key, cases[i].value);
        }
        expect_refusal(cases[i].status, cases[i].words);
    }
}

static void unknown_architectures_and_layers_are_refused(void **state)
{
    (void)state;
    read_zoo("llama-q8_0.gguf");
    unsigned char *at = after("general.architecture");
    memcpy(at + 4 + 8, "mamba", 5);
    expect_refusal(LATHE_EUNSUPPORTED, "architecture \"mamba\" is not known");
    read_zoo("llama-q8_0.gguf");
    memcpy(after("blk.1.ffn_u") - 5, "misc_", 5); /* blk.1.misc_p.weight */
    expect_refusal(LATHE_EUNSUPPORTED, "is not part of the layers");
    read_zoo("llama-rope-linear.gguf");
    at = after("llama.rope.scaling.type");
    memcpy(at + 4 + 8, "longxx", 6);
    expect_refusal(LATHE_EUNSUPPORTED, "none, linear and yarn are known");
}

static void an_unknown_tensor_type_is_refused(void **state)
{
    (void)state;
    read_zoo("llama-q8_0.gguf");
    unsigned char *at = after("blk.0.attn_q.weight"); /* rank u32, dims u64 × 2, type u32 */
    uint32_t type = 10;                               /* Q2_K */
    memcpy(at + 4 + 16, &type, 4);
    FILE *file = fopen(scratch, "wb");
    fwrite(bytes, 1, length, file);
    fclose(file);
    const struct fixture_option options[] = { { "path", scratch }, { NULL, NULL } };
    assert_true(fixture_open(&f, "llama", options) < 0);
    assert_non_null(strstr(f.err.message, "attn_q.weight"));
    fixture_close(&f);
}

/* ---- messages ---- */

static void open_tiny(void)
{
    const struct fixture_option options[] = { { NULL, NULL } };
    assert_int_equal(fixture_open(&f, "tiny", options), 0);
    assert_int_equal(fixture_context(&f, (struct lathe_context_params){ .block_tokens = 4, .blocks = 8, .batch_tokens = 16,
                                                                        .batch_slices = 2, .context_tokens = 24,
                                                                        .output_rows = 2 }), 0);
    c = call_new();
}

static struct lathe_slice *one_slice(void)
{
    static const int32_t ids[] = { 1, 2, 3, 4, 5, 6 }, table[] = { 0, 1, 2 };
    call_reset(c);
    return call_slice(c, 9, LATHE_SLICE_LOGITS, 0, ids, 6, table, 3);
}

#define REFUSED(change, status, words)                                                        \
    do {                                                                                      \
        struct lathe_slice *s = one_slice();                                                  \
        (void)s;                                                                              \
        change;                                                                               \
        int found = call_run(&f, c);                                                          \
        if (found != (status) || !strstr(f.err.message, words))                               \
            fail_msg("%s: status %d, \"%s\"", #change, found, f.err.message);                 \
    } while (0)

static void messages_that_lie_are_refused(void **state)
{
    (void)state;
    open_tiny();
    REFUSED(c->tokens[3] = 260, LATHE_ERANGE, "token 260");
    REFUSED(c->tokens[0] = -1, LATHE_ERANGE, "token -1");
    REFUSED(c->blocks[1] = 8, LATHE_ERANGE, "block 8");
    REFUSED(c->blocks[0] = -1, LATHE_ERANGE, "block -1");
    REFUSED(s->block_count = 1, LATHE_EINVAL, "too few");
    REFUSED(s->block_first = 1, LATHE_EINVAL, "outside its message");
    REFUSED(s->first_position = -1, LATHE_ERANGE, "position -1");
    REFUSED(s->first_position = 19, LATHE_ERANGE, "the context holds 24");
    REFUSED(s->first_position = INT32_MAX, LATHE_ERANGE, "the context holds 24");
    REFUSED(s->token_count = 0, LATHE_EINVAL, "0 tokens");
    REFUSED(s->token_count = 7, LATHE_EINVAL, "7 tokens");
    REFUSED(s->token_first = UINT32_MAX, LATHE_EINVAL, "tokens from number");
    REFUSED(c->outputs[0] = 6, LATHE_EINVAL, "output row 6 of 6");
    REFUSED(s->output_count = 2, LATHE_EINVAL, "outputs outside");
    REFUSED(s->adapter = 0, LATHE_EUNSUPPORTED, "adapter 0");
    REFUSED(s->probe = 0, LATHE_EINVAL, "probes 0 to 0 of 0");
    REFUSED(s->kept_count = 1, LATHE_EINVAL, "kept list");
    REFUSED(s->flags |= LATHE_SLICE_PADDING, LATHE_EINVAL, "padding");
    REFUSED((c->ops[c->op_count++] = (struct lathe_kv_op){ .kind = LATHE_KV_COPY, .from = 0, .to = 8 }), LATHE_ERANGE, "block 8");
    REFUSED((c->ops[c->op_count++] = (struct lathe_kv_op){ .kind = LATHE_KV_COPY, .tokens = 5 }), LATHE_ERANGE, "copies 5 tokens");
    REFUSED((c->ops[c->op_count++] = (struct lathe_kv_op){ .kind = 9 }), LATHE_EUNSUPPORTED, "of kind 9");
    REFUSED((c->ops[c->op_count++] = (struct lathe_kv_op){ .kind = LATHE_KV_MOVE_OUT, .from = -1 }), LATHE_ERANGE, "block -1");
    REFUSED((call_slice(c, 1, 0, 0, c->tokens, 6, c->blocks, 3), call_slice(c, 1, 0, 0, c->tokens, 1, c->blocks, 3)),
            LATHE_ERANGE, "3 slices");
    REFUSED(call_slice(c, 1, 0, 0, c->tokens, 6, c->blocks, 3)->token_count = 11, LATHE_EINVAL, "11 tokens");
    REFUSED((c->probes[0] = (struct lathe_probe){ .format = 9, .every = 1 }, c->probe_count = 1, s->probe = 0), LATHE_EINVAL,
            "format 9");
    REFUSED((c->probes[0] = (struct lathe_probe){ .format = 1, .every = 0 }, c->probe_count = 1, s->probe = 0), LATHE_EINVAL,
            "every 0");
    REFUSED((c->probes[0] = (struct lathe_probe){ .format = 2, .every = 1, .top_k = 2000 }, c->probe_count = 1, s->probe = 0),
            LATHE_EINVAL, "top 2000");
    REFUSED((c->probes[0] = (struct lathe_probe){ .format = LATHE_PROBE_HIDDEN, .every = 1, .width = 15 }, c->probe_count = 1,
             s->probe = 0), LATHE_EINVAL, "15 elements; they have 16");
    REFUSED((c->probes[0] = (struct lathe_probe){ .format = 1, .every = 1, .layers = { 4 }, .heads = { 1 } },
             c->probe_count = 1, s->probe = 0), LATHE_EINVAL, "layer or head 2");
    REFUSED((c->probes[0] = (struct lathe_probe){ .format = 3, .every = 1, .last_position = -1, .layers = { 3 }, .heads = { 3 } },
             c->probe_count = 1, s->probe = 0), LATHE_EFULL, "attention records need");
    assert_int_equal(c->out.attention_bytes, 6 * 32 + 16 + 16 + 32 + 32 + 48 + 48); /* what is needed is said */
    one_slice();
    assert_int_equal(call_run(&f, c), 0); /* and after all that it works */
    call_free(c);
    fixture_close(&f);
}

static struct lathe_intervention *intervene(struct lathe_slice *s, uint32_t kind)
{
    c->interventions[0] = (struct lathe_intervention){ .kind = kind, .factor = 1, .last_position = -1, .layers = { 3 },
                                                       .heads = { 3 }, .float_count = 8, .key_count = 2 };
    c->intervention_count = 1;
    c->float_count = 64;
    c->key_count = 2;
    c->keys[0] = 1;
    c->keys[1] = 3;
    s->interventions = 1;
    return &c->interventions[0];
}

static void interventions_that_lie_are_refused(void **state)
{
    (void)state;
    open_tiny();
    struct lathe_slice *fine = one_slice();
    for (uint32_t kind = LATHE_HEAD_SCALE; kind < LATHE_PATCH; kind++) {
        intervene(fine, kind);
        assert_int_equal(call_run(&f, c), 0);
    }
    REFUSED(intervene(s, 0), LATHE_EINVAL, "kind 0");
    REFUSED(intervene(s, LATHE_INTERVENTION_KINDS), LATHE_EINVAL, "kind 9");
    REFUSED(intervene(s, 1)->first_position = -1, LATHE_EINVAL, "first position -1");
    REFUSED(intervene(s, 1)->factor = INFINITY, LATHE_EINVAL, "factor inf");
    REFUSED(intervene(s, 6)->factor = NAN, LATHE_EINVAL, "finite");
    REFUSED(intervene(s, 7)->layers[0] = 4, LATHE_EINVAL, "layer or head 2");
    REFUSED(intervene(s, 3)->heads[3] = 1, LATHE_EINVAL, "layer or head 192");
    REFUSED(intervene(s, 2)->float_count = 7, LATHE_EINVAL, "7 floats");
    REFUSED(intervene(s, 2)->float_first = 57, LATHE_EINVAL, "from number 57 of 64");
    REFUSED(intervene(s, 2)->float_first = UINT32_MAX, LATHE_EINVAL, "floats from number");
    REFUSED(intervene(s, 8), LATHE_EINVAL, "where it ends");
    REFUSED(intervene(s, 8)->last_position = 1, LATHE_EINVAL, "it needs 32");
    REFUSED(intervene(s, 8)->last_position = INT32_MAX, LATHE_EINVAL, "it needs");
    REFUSED(intervene(s, 4)->key_count = 3, LATHE_EINVAL, "3 keys");
    REFUSED(intervene(s, 5)->key_first = 1, LATHE_EINVAL, "2 keys from number 1");
    REFUSED((intervene(s, 4), c->keys[1] = 1), LATHE_EINVAL, "ascend at entry 1");
    REFUSED((intervene(s, 5), c->keys[0] = -1), LATHE_EINVAL, "ascend at entry 0");
    REFUSED((intervene(s, 1), s->interventions = 2), LATHE_EINVAL, "names intervention 1");
    REFUSED(s->interventions = 1ull << 63, LATHE_EINVAL, "names intervention 63; the message has 0");
    one_slice();
    assert_int_equal(call_run(&f, c), 0);
    call_free(c);
    fixture_close(&f);
}

/* A slice of two rows that begins at position 4 and keeps two positions in each of the four sets. */
static struct lathe_slice *kept_slice(void)
{
    static const int32_t ids[] = { 1, 2 }, table[] = { 0, 1 }, kept[] = { 0, 3, 1, 2, 0, 1, 2, 3 };
    call_reset(c);
    struct lathe_slice *s = call_slice(c, 9, LATHE_SLICE_LOGITS | LATHE_SLICE_KEY_MASS, 4, ids, 2, table, 2);
    memcpy(c->kept, kept, sizeof kept);
    c->kept_count = 8;
    s->kept_count = 2;
    return s;
}

static void open_tiny_by_head(uint32_t kv_flags)
{
    const struct fixture_option options[] = { { "heads", "4" }, { NULL, NULL } };
    assert_int_equal(fixture_open(&f, "tiny", options), 0);
    assert_int_equal(fixture_context(&f, (struct lathe_context_params){ .block_tokens = 4, .blocks = 8, .batch_tokens = 16,
                                                                        .batch_slices = 2, .context_tokens = 24,
                                                                        .output_rows = 2, .kv_scope = LATHE_KV_HEAD,
                                                                        .kv_flags = kv_flags }), 0);
    c = call_new();
    call_mass_room(c, 16); /* (4 sets, 2 kept and 2 own) */
}

#define KEPT_REFUSED(change, status, words)                                                   \
    do {                                                                                      \
        struct lathe_slice *s = kept_slice();                                                 \
        (void)s;                                                                              \
        change;                                                                               \
        int found = call_run(&f, c);                                                          \
        if (found != (status) || !strstr(f.err.message, words))                               \
            fail_msg("%s: status %d, \"%s\"", #change, found, f.err.message);                 \
    } while (0)

static void kept_lists_that_lie_are_refused(void **state)
{
    (void)state;
    open_tiny_by_head(0);
    KEPT_REFUSED(c->kept_count = 7, LATHE_EINVAL, "4 sets of 2 outside");
    KEPT_REFUSED(s->kept_count = 3, LATHE_EINVAL, "4 sets of 3 outside");
    KEPT_REFUSED(s->kept_count = UINT32_MAX, LATHE_EINVAL, "outside its message");
    KEPT_REFUSED(s->kept_first = UINT32_MAX, LATHE_EINVAL, "outside its message");
    KEPT_REFUSED(c->kept[6] = 3, LATHE_EINVAL, "does not ascend at entry 1 of set 3");
    KEPT_REFUSED(c->kept[2] = -1, LATHE_EINVAL, "does not ascend at entry 0 of set 1");
    KEPT_REFUSED(c->kept[5] = 4, LATHE_EINVAL, "keeps position 4 in set 2 and begins at 4");
    KEPT_REFUSED(c->kept[7] = INT32_MAX, LATHE_EINVAL, "keeps position 2147483647 in set 3");
    KEPT_REFUSED(c->blocks[0] = -1, LATHE_ERANGE, "block -1");
    KEPT_REFUSED(s->flags |= LATHE_SLICE_CACHE_POSITIONS, LATHE_EINVAL, "LATHE_KV_KEYS_UNROTATED");
    kept_slice();
    c->mass_floats = 15;
    assert_int_equal(call_run(&f, c), LATHE_EFULL);
    assert_non_null(strstr(f.err.message, "masses need 64 bytes"));
    assert_int_equal(c->out.mass_bytes, 64);
    c->mass_floats = 16;
    assert_int_equal(call_run(&f, c), 0); /* and after all that it works */
    assert_int_equal(c->out.mass_bytes, 64);
    for (int i = 0; i < 2; i++) {
        struct lathe_context_params p = f.params;
        void *context = NULL;
        if (i) p.kv_scope = 3;
        else p.kv_flags = 2;
        assert_int_equal(f.api->context_create(f.self, &p, &context, &f.err), LATHE_EINVAL);
        assert_non_null(strstr(f.err.message, "kv_scope"));
    }
    call_free(c);
    fixture_close(&f);
}

static void what_a_model_does_not_offer_is_refused(void **state)
{
    static const int32_t ids[] = { 1, 2 }, table[] = { 0 };
    const struct fixture_option options[] = { { NULL, NULL } };
    (void)state;
    assert_int_equal(fixture_open(&f, "template", options), 0);
    assert_int_equal(fixture_context(&f, (struct lathe_context_params){ .context_tokens = 24 }), 0);
    assert_true(f.info.probe_formats == 0 && f.info.interventions == 0);
    c = call_new();
    call_attention_room(c, 4096);
    struct lathe_slice *s = call_slice(c, 9, LATHE_SLICE_LOGITS, 0, ids, 2, table, 1);
    c->probes[0] = (struct lathe_probe){ .id = 5, .format = LATHE_PROBE_LENS, .top_k = 1, .every = 1 };
    c->probe_count = 1;
    s->probe = 0;
    assert_int_equal(call_run(&f, c), LATHE_EUNSUPPORTED);
    assert_non_null(strstr(f.err.message, "probe 5 has format 7, which this model doesn't offer"));
    s->probe = LATHE_NO_PROBE;
    intervene(s, LATHE_MLP_SCALE)->layers[0] = 1;
    assert_int_equal(call_run(&f, c), LATHE_EUNSUPPORTED);
    assert_non_null(strstr(f.err.message, "kind 7, which this model doesn't offer"));
    c->intervention_count = 0;
    s->interventions = 0;
    assert_int_equal(call_run(&f, c), 0);
    call_free(c);
    fixture_close(&f);
}

static void a_reply_without_room_is_refused(void **state)
{
    (void)state;
    open_tiny();
    one_slice();
    assert_int_equal(call_run(&f, c), 0);
    struct lathe_forward_out out = c->out;
    out.logits.bytes = 260 * 4 - 1;
    assert_int_equal(f.api->forward(f.context, c->in, &out, &f.err), LATHE_EFULL);
    assert_int_equal(out.logits_rows, 1);
    out = c->out;
    out.head.capacity = sizeof out - 1;
    assert_int_equal(f.api->forward(f.context, c->in, &out, &f.err), LATHE_EFULL);
    call_free(c);
    fixture_close(&f);
}

static void damage(uint32_t round)
{
    uint32_t *words = (uint32_t *)(void *)c->in, count = (uint32_t)(c->in->head.bytes / 4);
    for (uint32_t k = 0; k <= round % 3; k++) {
        uint64_t draw = lathe_random_u64(round, LATHE_RANDOM_USER, k, 0);
        uint32_t at = 4 + (uint32_t)(draw % (count - 4)); /* not capacity and bytes: the caller's own */
        static const uint32_t values[] = { 0, 1, 2, 3, 5, 8, 64, 0x7fffffff, 0x80000000u, 0xffffffffu };
        words[at] = draw >> 40 & 1 ? values[(draw >> 41) % 10] : (uint32_t)(draw >> 32);
    }
}

static void damaged_kept_lists_do_no_harm(void **state)
{
    unsigned refused = 0;
    (void)state;
    open_tiny_by_head(LATHE_KV_KEYS_UNROTATED);
    for (uint32_t round = 0; round < 20000; round++) {
        kept_slice()->flags |= LATHE_SLICE_CACHE_POSITIONS;
        call_build(c);
        damage(round);
        refused += call_forward(&f, c) != 0;
    }
    print_message("%u of 20000 damaged messages with kept lists were refused\n", refused);
    assert_true(refused > 5000);
    kept_slice();
    assert_int_equal(call_run(&f, c), 0);
    call_free(c);
    fixture_close(&f);
}

/* Words of a good message replaced at random: under the sanitizers nothing may be touched
 * that isn't the message's, whatever is answered. */
static void damaged_messages_do_no_harm(void **state)
{
    unsigned refused = 0;
    (void)state;
    open_tiny();
    for (uint32_t round = 0; round < 20000; round++) {
        struct lathe_slice *s = one_slice();
        call_attention_room(c, 4096);
        c->probes[0] = (struct lathe_probe){ .id = 1, .format = 1 + round % 8, .width = 16, .top_k = 3, .recent_window = 2, .last_position = -1,
                                             .every = 1, .layers = { 3 }, .heads = { 3 } };
        c->probe_count = 1;
        s->probe = 0;
        if (round % 4 > 1) {
            intervene(s, 1 + round / 4 % 8);
            if (c->interventions[0].kind == LATHE_PATCH)
                c->interventions[0].last_position = 0, c->interventions[0].float_count = 16;
        }
        if (round % 2) {
            c->ops[0] = (struct lathe_kv_op){ .kind = LATHE_KV_COPY, .from = 4, .to = 5, .tokens = 3 };
            c->op_count = 1;
        }
        call_build(c);
        damage(round);
        refused += call_forward(&f, c) != 0;
    }
    print_message("%u of 20000 damaged messages were refused\n", refused);
    assert_true(refused > 5000);
    one_slice();
    assert_int_equal(call_run(&f, c), 0);
    call_free(c);
    fixture_close(&f);
}

static void contexts_beyond_all_memory_are_refused_with_the_bytes(void **state)
{
    (void)state;
    snprintf(zoo, sizeof zoo, "%s/zoo/llama-q8_0.gguf", TEST_DATA);
    const struct fixture_option options[] = { { "path", zoo }, { NULL, NULL } };
    assert_int_equal(fixture_open(&f, "llama", options), 0);
    int status = fixture_context(&f, (struct lathe_context_params){ .blocks = INT32_MAX, .block_tokens = 1 << 20,
                                                                   .context_tokens = 200 });
    assert_int_equal(status, LATHE_ENOMEM);
    assert_non_null(strstr(f.err.message, "bytes"));
    status = fixture_context(&f, (struct lathe_context_params){ .blocks = INT32_MAX, .block_tokens = INT32_MAX,
                                                               .context_tokens = 200 });
    assert_int_equal(status, LATHE_ENOMEM);
    status = fixture_context(&f, (struct lathe_context_params){ .context_tokens = 257 });
    assert_int_equal(status, LATHE_ERANGE);
    assert_non_null(strstr(f.err.message, "256 tokens"));
    status = fixture_context(&f, (struct lathe_context_params){ .context_tokens = 200, .kv_dtype = LATHE_Q8_0 });
    assert_int_equal(status, LATHE_EUNSUPPORTED);
    assert_non_null(strstr(f.err.message, "packed by 32 elements; this model's heads have 16"));
    assert_int_equal(f.info.kv_dtypes, 1u << LATHE_F32 | 1u << LATHE_F16);
    fixture_close(&f);
    assert_int_equal(f.live, 0);
}

static void an_injected_failure_comes_once(void **state)
{
    (void)state;
    const struct fixture_option options[] = { { "fail_after", "2" }, { "delay_us", "2000" }, { NULL, NULL } };
    assert_int_equal(fixture_open(&f, "tiny", options), 0);
    assert_int_equal(fixture_context(&f, (struct lathe_context_params){ 0 }), 0);
    c = call_new();
    one_slice();
    int64_t before = fixture_now(NULL);
    assert_int_equal(call_run(&f, c), 0);
    assert_true(fixture_now(NULL) - before >= 2000000);
    assert_int_equal(call_run(&f, c), LATHE_EINTERNAL);
    assert_int_equal(call_run(&f, c), 0);
    call_free(c);
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(metadata_outside_its_range_is_refused),
        cmocka_unit_test(unknown_architectures_and_layers_are_refused),
        cmocka_unit_test(an_unknown_tensor_type_is_refused),
        cmocka_unit_test(messages_that_lie_are_refused),
        cmocka_unit_test(interventions_that_lie_are_refused),
        cmocka_unit_test(kept_lists_that_lie_are_refused),
        cmocka_unit_test(what_a_model_does_not_offer_is_refused),
        cmocka_unit_test(a_reply_without_room_is_refused),
        cmocka_unit_test(damaged_messages_do_no_harm),
        cmocka_unit_test(damaged_kept_lists_do_no_harm),
        cmocka_unit_test(contexts_beyond_all_memory_are_refused_with_the_bytes),
        cmocka_unit_test(an_injected_failure_comes_once),
    };
    snprintf(scratch, sizeof scratch, "%s/hostile_model_%d.gguf", TEST_BUILD, (int)getpid());
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(scratch);
    free(bytes);
    return failed;
}
