/* SPDX-License-Identifier: MIT */
/* What every model must keep: logits depend on a request's own tokens, and not on how a
 * prompt was cut, who else was in the forward, in which blocks its keys lie, or whether
 * those were copied or swapped; and no message, however wrong, is believed. A model without
 * attention keeps most of it by nature. */
#include <math.h>

#include <lathe/model.h>

#include "harness.h"
#include "model/kept.h"

enum { BLOCK = 8, BLOCKS = 64, ROWS = 64, SLICES = 8, CONTEXT = 96, OUTPUTS = 16, ROOM = 1 << 16, MAX_SLICES = 12 };

/* Rounding of float32 sums in another order; logits are of the order of 10. */
static const double TOLERANCE = 2e-3;

static const struct lathe_model_api *api;
static void *model, *context;
static struct lathe_model_info info;
static _Alignas(64) unsigned char question[ROOM];
static struct lathe_forward_out answer;
static float *logits; /* (OUTPUTS, vocab) */
static const struct lathe_context_params usual = { .size = sizeof usual, .block_tokens = BLOCK, .blocks = BLOCKS,
                                                   .batch_tokens = ROWS, .batch_slices = SLICES,
                                                   .context_tokens = CONTEXT, .output_rows = OUTPUTS, .threads = 2,
                                                   .kv_dtype = LATHE_F32 };

/* One request's part of a forward. */
struct part {
    const int32_t *tokens, *blocks;
    int32_t first;
    uint32_t count, flags;
};

static struct lathe_slice *slices;
static int32_t *message_tokens, *message_blocks;
static uint32_t *message_outputs;

/* A forward's message: each part one slice with logits of its last row. */
static struct lathe_forward_in *build(const struct part *parts, uint32_t count, const struct lathe_kv_op *ops,
                                      uint32_t op_count)
{
    struct lathe_forward_in *in = (void *)question;
    uint32_t tokens = 0, blocks = 0;
    struct lathe_kv_op *kv_ops;
    *in = (struct lathe_forward_in){ .head = { .capacity = ROOM, .bytes = sizeof *in } };
    kv_ops = lathe_message_add(&in->head, &in->kv_ops, op_count, sizeof *ops);
    slices = lathe_message_add(&in->head, &in->slices, count, sizeof *slices);
    message_tokens = lathe_message_add(&in->head, &in->tokens, 2 * ROWS, sizeof(int32_t));
    message_blocks = lathe_message_add(&in->head, &in->blocks, MAX_SLICES * CONTEXT / BLOCK, sizeof(int32_t));
    message_outputs = lathe_message_add(&in->head, &in->outputs, MAX_SLICES, sizeof(uint32_t));
    CHECK(kv_ops && slices && message_outputs, "message too small");
    if (op_count)
        memcpy(kv_ops, ops, op_count * sizeof *ops);
    for (uint32_t i = 0; i < count; i++) {
        const struct part *p = &parts[i];
        int padding = p->flags & LATHE_SLICE_PADDING;
        uint32_t need = padding ? 0 : ((uint32_t)p->first + p->count + BLOCK - 1) / BLOCK;
        slices[i] = (struct lathe_slice){ .request = i + 1, .flags = p->flags ? p->flags : LATHE_SLICE_LOGITS,
                                          .first_position = p->first, .token_first = tokens, .token_count = p->count,
                                          .block_first = blocks, .block_count = need, .output_first = i,
                                          .output_count = padding ? 0 : 1, .probe = LATHE_NO_PROBE, .adapter = -1 };
        memcpy(message_tokens + tokens, p->tokens, p->count * sizeof(int32_t));
        if (need)
            memcpy(message_blocks + blocks, p->blocks, need * sizeof(int32_t));
        message_outputs[i] = p->count - 1;
        tokens += p->count;
        blocks += need;
    }
    answer = (struct lathe_forward_out){ .head = { .capacity = sizeof answer } };
    answer.logits = (struct lathe_region){ (char *)logits - (char *)&answer,
                                           (uint64_t)OUTPUTS * info.vocab_tokens * sizeof *logits };
    return in;
}

static int run(const struct part *parts, uint32_t count, const struct lathe_kv_op *ops, uint32_t op_count,
               struct lathe_error *err)
{
    return api->forward(context, build(parts, count, ops, op_count), &answer, err);
}

static void forward(const struct part *parts, uint32_t count)
{
    struct lathe_error err = { 0 };
    CHECK_OK(run(parts, count, NULL, 0, &err), &err);
}

static void open_model(struct subject *s)
{
    struct lathe_error err = { 0 };
    struct lathe_empty empty = { .head = { sizeof empty, sizeof empty, 0, 0 } };
    api = (const void *)s->head;
    subject_set(s, "swap_blocks", "8");
    model = subject_create(s);
    info.head = (struct lathe_message){ .capacity = sizeof info };
    CHECK_OK(api->describe(model, &empty, &info, &err), &err);
    CHECK_OK(api->context_create(model, &usual, &context, &err), &err);
    logits = calloc((size_t)OUTPUTS * info.vocab_tokens, sizeof *logits);
}

static void close_model(void)
{
    api->context_destroy(context);
    api->destroy(model);
    free(logits);
}

static void tokens(int32_t *t, uint32_t count, uint64_t seed)
{
    struct dice d = { .seed = seed };
    for (uint32_t i = 0; i < count; i++)
        t[i] = (int32_t)roll(&d, info.vocab_tokens);
}

/* Blocks in an order that isn't theirs, different for each `which` < 4. */
static void blocks(int32_t *b, uint32_t which)
{
    for (int32_t i = 0; i < CONTEXT / BLOCK; i++)
        b[i] = (i * 5 % (CONTEXT / BLOCK)) + (int32_t)which * (CONTEXT / BLOCK);
}

static float *keep(uint32_t row)
{
    float *copy = malloc(info.vocab_tokens * sizeof *copy);
    memcpy(copy, logits + (size_t)row * info.vocab_tokens, info.vocab_tokens * sizeof *copy);
    return copy;
}

static void same(const float *wanted, uint32_t row, const char *what, int at)
{
    for (uint32_t i = 0; i < info.vocab_tokens; i++) {
        double off = fabs((double)wanted[i] - (double)logits[(size_t)row * info.vocab_tokens + i]);
        CHECK(off < TOLERANCE, "%s (%d): logit %u is %g, expected %g", what, at, i,
              (double)logits[(size_t)row * info.vocab_tokens + i], (double)wanted[i]);
    }
}

/* --- behaviours -------------------------------------------------------------- */

static void describes_itself(struct subject *s)
{
    struct lathe_error err = { 0 };
    struct lathe_empty empty = { .head = { sizeof empty, sizeof empty, 0, 0 } };
    open_model(s);
    CHECK(info.vocab_tokens > 0 && info.context_tokens >= CONTEXT && info.layers > 0 && info.heads > 0 &&
              info.embedding_width > 0, "a vocabulary of %u, %u layers", info.vocab_tokens, info.layers);
    CHECK(memchr(info.architecture, 0, sizeof info.architecture) && info.architecture[0], "no architecture");
    info.head.capacity = 40;
    CHECK_FAILS(api->describe(model, &empty, &info, &err), LATHE_EFULL, &err);
    close_model();
}

static void gives_the_same_logits_however_a_prompt_is_cut(struct subject *s)
{
    int32_t t[60], b[CONTEXT / BLOCK];
    float *whole;
    open_model(s);
    tokens(t, 60, 1);
    blocks(b, 1);
    forward(&(struct part){ t, b, 0, 60, 0 }, 1);
    CHECK(answer.logits_rows == 1, "%llu rows", (unsigned long long)answer.logits_rows);
    whole = keep(0);
    for (uint32_t cut = 1; cut < 60; cut += cut < 18 ? 1 : 13) {
        forward(&(struct part){ t, b, 0, cut, 0 }, 1);
        forward(&(struct part){ t + cut, b, (int32_t)cut, 60 - cut, 0 }, 1);
        same(whole, 0, "cut", (int)cut);
    }
    for (int32_t i = 0; i < 60; i++) /* one by one */
        forward(&(struct part){ t + i, b, i, 1, 0 }, 1);
    same(whole, 0, "one by one", 60);
    free(whole);
    close_model();
}

static void gives_the_same_logits_whoever_is_beside(struct subject *s)
{
    int32_t t[3][30], b[3][CONTEXT / BLOCK];
    float *alone[3];
    open_model(s);
    for (uint32_t i = 0; i < 3; i++) {
        tokens(t[i], 30, 10 + i);
        blocks(b[i], i);
        forward(&(struct part){ t[i], b[i], 0, 20, 0 }, 1);
        alone[i] = keep(0);
    }
    forward(&(struct part){ t[0], b[0], 0, 19, 0 }, 1); /* 0 decodes, 1 prefills whole, 2 in parts */
    forward(&(struct part){ t[2], b[2], 0, 7, 0 }, 1);
    struct part mixed[] = { { t[0] + 19, b[0], 19, 1, 0 }, { t[1], NULL, 0, 4, LATHE_SLICE_PADDING },
                            { t[1], b[1], 0, 20, 0 }, { t[2] + 7, b[2], 7, 13, 0 } };
    forward(mixed, 4);
    CHECK(answer.logits_rows == 3, "%llu rows", (unsigned long long)answer.logits_rows);
    for (uint32_t i = 0; i < 3; i++) {
        same(alone[i], i, "beside others", (int)i);
        free(alone[i]);
    }
    close_model();
}

static void gives_logits_of_the_rows_that_were_asked_for(struct subject *s)
{
    struct lathe_error err = { 0 };
    int32_t t[12], b[CONTEXT / BLOCK];
    float *each[12];
    open_model(s);
    tokens(t, 12, 3);
    blocks(b, 0);
    for (uint32_t i = 0; i < 12; i++) {
        forward(&(struct part){ t, b, 0, i + 1, 0 }, 1);
        each[i] = keep(0);
    }
    struct lathe_forward_in *in = build(&(struct part){ t, b, 0, 12, 0 }, 1, NULL, 0);
    slices[0].output_count = 4;
    message_outputs[0] = 0, message_outputs[1] = 5, message_outputs[2] = 6, message_outputs[3] = 11;
    CHECK_OK(api->forward(context, in, &answer, &err), &err);
    CHECK(answer.logits_rows == 4, "%llu rows", (unsigned long long)answer.logits_rows);
    same(each[0], 0, "row", 0);
    same(each[5], 1, "row", 5);
    same(each[6], 2, "row", 6);
    same(each[11], 3, "row", 11);
    for (uint32_t i = 0; i < 12; i++)
        free(each[i]);
    close_model();
}

static void decodes_from_a_copied_block(struct subject *s)
{
    struct lathe_error err = { 0 };
    int32_t t[10], other[10], b[2] = { 3, 9 }, copy[2] = { 3, 20 };
    float *wanted, *others;
    open_model(s);
    tokens(t, 10, 4);
    tokens(other, 10, 44);
    memcpy(other, t, 9 * sizeof *t);
    forward(&(struct part){ t, b, 0, 10, 0 }, 1);
    wanted = keep(0);
    forward(&(struct part){ other, b, 0, 10, 0 }, 1);
    others = keep(0);
    forward(&(struct part){ t, b, 0, 9, 0 }, 1);
    /* two that have 9 tokens in common write their tenth in blocks of their own */
    struct lathe_kv_op op = { .kind = LATHE_KV_COPY, .from = 9, .to = 20, .tokens = 1 };
    struct part both[] = { { t + 9, b, 9, 1, 0 }, { other + 9, copy, 9, 1, 0 } };
    CHECK_OK(run(both, 2, &op, 1, &err), &err);
    same(wanted, 0, "the original", 9);
    same(others, 1, "the copy", 20);
    free(wanted);
    free(others);
    close_model();
}

static void decodes_after_its_blocks_were_swapped(struct subject *s)
{
    struct lathe_error err = { 0 };
    int32_t t[12], noise[12], b[2] = { 1, 2 }, back[2] = { 40, 41 };
    float *wanted;
    int status;
    open_model(s);
    tokens(t, 12, 5);
    tokens(noise, 12, 55);
    forward(&(struct part){ t, b, 0, 12, 0 }, 1);
    wanted = keep(0);
    struct lathe_kv_op out[] = { { LATHE_KV_MOVE_OUT, 1, 0, 0, 7001 }, { LATHE_KV_MOVE_OUT, 2, 0, 0, 7002 } };
    struct lathe_kv_op in[] = { { LATHE_KV_MOVE_IN, 0, 40, 0, 7001 }, { LATHE_KV_MOVE_IN, 0, 41, 0, 7002 } };
    status = run(&(struct part){ noise, b, 0, 12, 0 }, 1, out, 2, &err); /* others write there at once */
    CHECK(status == LATHE_OK || status == LATHE_EUNSUPPORTED, "move out: %s", err.message);
    if (status == LATHE_OK) {
        CHECK_OK(run(&(struct part){ t + 11, back, 11, 1, 0 }, 1, in, 2, &err), &err);
        same(wanted, 0, "after a swap", 0);
    }
    free(wanted);
    close_model();
}

static void refuses_wrong_messages(struct subject *s)
{
    struct lathe_error err = { 0 };
    int32_t t[ROWS + 1], b[CONTEXT / BLOCK];
    struct part p = { t, b, 0, 10, 0 };
    float *before;
    open_model(s);
    tokens(t, ROWS + 1, 6);
    blocks(b, 0);
    forward(&p, 1);
    before = keep(0);
    for (int k = 0; k < 16; k++) {
        struct lathe_forward_in *in = build(&p, 1, NULL, 0);
        int status;
        if (k == 0) message_tokens[3] = (int32_t)info.vocab_tokens;
        if (k == 1) message_tokens[3] = -1;
        if (k == 2) message_blocks[0] = BLOCKS;
        if (k == 3) message_blocks[1] = -1;
        if (k == 4) slices[0].block_count = 1;            /* ten positions don't fit */
        if (k == 5) slices[0].first_position = -1;
        if (k == 6) slices[0].first_position = INT32_MAX;
        if (k == 7) slices[0].token_count = ROWS + 1;
        if (k == 8) slices[0].token_first = UINT32_MAX;
        if (k == 9) message_outputs[0] = 10;              /* beyond its rows */
        if (k == 10) slices[0].output_first = UINT32_MAX;
        if (k == 11) in->slices.count = UINT64_MAX / 16;
        if (k == 12) in->tokens.offset = ROOM;
        if (k == 13) answer.logits.bytes = 4;             /* no room for a row */
        if (k == 14) slices[0].block_first = UINT32_MAX - 2;
        if (k == 15) slices[0].probe = 3;
        err.message[0] = '\0';
        status = api->forward(context, in, &answer, &err);
        CHECK(status < 0 && err.message[0], "wrong message %d was taken: %d", k, status);
        CHECK(k > 1 || status == LATHE_ERANGE, "a token outside the vocabulary: %d", status);
        CHECK(k != 13 || status == LATHE_EFULL, "no room for logits: %d", status);
    }
    for (int k = 0; k < 4; k++) { /* operations; a model without KV may take them */
        struct lathe_kv_op op = { .kind = k == 3 ? 99 : LATHE_KV_COPY, .from = k == 0 ? -1 : 0, .to = k == 1 ? BLOCKS : 1,
                                  .tokens = k == 2 ? BLOCK + 1 : 1 };
        int status = run(&p, 1, &op, 1, &err);
        CHECK(status < 0 || info.kv_bytes_per_token == 0, "wrong operation %d was taken", k);
    }
    forward(&p, 1); /* and it goes on */
    same(before, 0, "after refusals", 0);
    free(before);
    close_model();
}

static void refuses_contexts_that_cannot_be(struct subject *s)
{
    struct lathe_error err = { 0 };
    open_model(s);
    s->host.limit_bytes = (size_t)1 << 30;
    for (int k = 0; k < 6; k++) {
        struct lathe_context_params p = usual;
        void *c = NULL;
        int status;
        if (k == 0) p.block_tokens = 0;
        if (k == 1) p.blocks = p.block_tokens = UINT32_MAX;
        if (k == 2) p.batch_tokens = 0;
        if (k == 3) p.kv_dtype = LATHE_Q4_1;
        if (k == 4) p.context_tokens = UINT32_MAX;
        if (k == 5) p.batch_tokens = p.output_rows = UINT32_MAX;
        err.message[0] = '\0';
        status = api->context_create(model, &p, &c, &err);
        if (k == 1 && info.kv_bytes_per_token == 0 && status == LATHE_OK)
            api->context_destroy(c); /* nothing lies in its blocks */
        else if (k == 3 && info.kv_bytes_per_token == 0 && status == LATHE_OK)
            api->context_destroy(c);
        else
            CHECK(status < 0 && err.message[0] && !c, "context %d was made: %d", k, status);
    }
    s->host.limit_bytes = 0;
    api->context_destroy(NULL);
    close_model();
}

static int life(struct subject *s, struct lathe_error *err)
{
    int32_t t[10] = { 0 }, b[2] = { 1, 2 };
    struct lathe_empty empty = { .head = { sizeof empty, sizeof empty, 0, 0 } };
    int status = subject_try_create(s, &model, err);
    api = (const void *)s->head;
    if (status != LATHE_OK)
        return status;
    info.head = (struct lathe_message){ .capacity = sizeof info };
    if ((status = api->describe(model, &empty, &info, err)) == LATHE_OK &&
        (status = api->context_create(model, &usual, &context, err)) == LATHE_OK) {
        size_t calls = atomic_load(&s->host.calls);
        logits = calloc((size_t)OUTPUTS * info.vocab_tokens, sizeof *logits);
        status = run(&(struct part){ t, b, 0, 10, 0 }, 1, NULL, 0, err);
        CHECK(atomic_load(&s->host.calls) == calls, "memory was taken inside the step loop");
        free(logits);
        api->context_destroy(context);
    }
    api->destroy(model);
    return status;
}

int main(int argc, char **argv)
{
#define BEHAVIOUR(name) { #name, name }
    static const struct behaviour behaviours[] = {
        BEHAVIOUR(describes_itself),
        BEHAVIOUR(gives_the_same_logits_however_a_prompt_is_cut),
        BEHAVIOUR(gives_the_same_logits_whoever_is_beside),
        BEHAVIOUR(gives_logits_of_the_rows_that_were_asked_for),
        BEHAVIOUR(decodes_from_a_copied_block),
        BEHAVIOUR(decodes_after_its_blocks_were_swapped),
        BEHAVIOUR(refuses_wrong_messages),
        BEHAVIOUR(refuses_contexts_that_cannot_be),
        BEHAVIOUR(takes_the_kv_types_that_it_offers),
        BEHAVIOUR(a_kept_list_of_all_changes_nothing),
        BEHAVIOUR(sets_that_are_alike_are_one),
        BEHAVIOUR(positions_in_the_cache_are_positions_while_nothing_goes),
        BEHAVIOUR(masses_sum_to_rows_and_heads),
    };
    return conformance(argc, argv, LATHE_KIND_MODEL, LATHE_MODEL_ABI, sizeof(struct lathe_model_api), behaviours,
                       sizeof behaviours / sizeof *behaviours, life);
}
