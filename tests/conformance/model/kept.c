/* SPDX-License-Identifier: MIT */
/* See kept.h. Each asks for a prompt of FIRST tokens, and then for ROWS more that look at it. */
#include <math.h>

#include <lathe/model.h>

#include "kept.h"

enum { BLOCK = 8, TABLE = 6, FIRST = 20, ROWS = 5, LENGTH = FIRST + ROWS, ROOM = 1 << 20 };

static const double TOLERANCE = 2e-3; /* of logits, as in model_conformance.c */

static const struct lathe_model_api *api;
static void *model, *context;
static struct lathe_model_info info;
static _Alignas(64) unsigned char question[ROOM];
static struct lathe_forward_out answer;
static float *logits, *wanted, *masses;
static uint32_t sets;

static int make_context(int32_t scope, uint32_t kv_flags, int32_t dtype, struct lathe_error *err)
{
    const struct lathe_context_params params = { .size = sizeof params, .block_tokens = BLOCK, .blocks = 16, .batch_tokens = 32,
                                                 .batch_slices = 2, .context_tokens = 40, .output_rows = 4, .threads = 2,
                                                 .kv_dtype = dtype, .kv_flags = kv_flags, .kv_scope = scope };
    api->context_destroy(context);
    context = NULL;
    err->message[0] = '\0';
    sets = lathe_kv_sets(scope, info.layers, info.kv_heads);
    return api->context_create(model, &params, &context, err);
}

static void open_model(struct subject *s)
{
    struct lathe_error err = { 0 };
    struct lathe_empty empty = { .head = { sizeof empty, sizeof empty, 0, 0 } };
    api = (const void *)s->head;
    model = subject_create(s);
    context = NULL;
    info.head = (struct lathe_message){ .capacity = sizeof info };
    CHECK_OK(api->describe(model, &empty, &info, &err), &err);
    CHECK_OK(make_context(LATHE_KV_REQUEST, 0, LATHE_F32, &err), &err);
    logits = calloc(info.vocab_tokens, sizeof *logits);
    wanted = calloc(info.vocab_tokens, sizeof *wanted);
    masses = calloc((size_t)info.layers * info.kv_heads * LENGTH, sizeof *masses);
}

static void close_model(void)
{
    api->context_destroy(context);
    api->destroy(model);
    free(logits);
    free(wanted);
    free(masses);
}

/* `count` positions from `first` on, with logits of the last; each set keeps what `kept` says, 0 … kept_count − 1 of it. */
static int ask(int32_t first, uint32_t count, uint32_t flags, const int32_t *kept, uint32_t kept_count, struct lathe_error *err)
{
    struct lathe_forward_in *in = (void *)question;
    *in = (struct lathe_forward_in){ .head = { .capacity = ROOM, .bytes = sizeof *in } };
    struct lathe_slice *slice = lathe_message_add(&in->head, &in->slices, 1, sizeof *slice);
    int32_t *tokens = lathe_message_add(&in->head, &in->tokens, count, sizeof *tokens);
    int32_t *blocks = lathe_message_add(&in->head, &in->blocks, TABLE, sizeof *blocks);
    uint32_t *outputs = lathe_message_add(&in->head, &in->outputs, 1, sizeof *outputs);
    int32_t *lists = lathe_message_add(&in->head, &in->kept, (uint64_t)sets * kept_count, sizeof *lists);
    CHECK(slice && tokens && blocks && outputs && (lists || !kept_count), "message too small");
    *slice = (struct lathe_slice){ .request = 1, .flags = LATHE_SLICE_LOGITS | flags, .first_position = first,
                                   .token_count = count, .block_count = TABLE, .output_count = 1, .kept_count = kept_count,
                                   .probe = LATHE_NO_PROBE, .adapter = -1 };
    for (uint32_t i = 0; i < count; i++)
        tokens[i] = (int32_t)(((uint32_t)first + i) * 29 + 3) % (int32_t)info.vocab_tokens;
    for (int32_t i = 0; i < TABLE; i++)
        blocks[i] = 15 - 2 * i;
    outputs[0] = count - 1;
    for (uint32_t i = 0; i < sets * kept_count; i++)
        lists[i] = kept[i % kept_count];
    answer = (struct lathe_forward_out){ .head = { .capacity = sizeof answer } };
    answer.logits = (struct lathe_region){ (char *)logits - (char *)&answer, info.vocab_tokens * sizeof *logits };
    answer.masses = (struct lathe_region){ (char *)masses - (char *)&answer,
                                           (uint64_t)info.layers * info.kv_heads * LENGTH * sizeof *masses };
    err->message[0] = '\0';
    return api->forward(context, in, &answer, err);
}

/* The prompt, then the rows; 0 where the model refuses such a context or list. */
static int rows_after_prompt(uint32_t flags, const int32_t *kept, uint32_t kept_count)
{
    struct lathe_error err = { 0 };
    CHECK_OK(ask(0, FIRST, flags & LATHE_SLICE_CACHE_POSITIONS, NULL, 0, &err), &err);
    int status = ask(FIRST, ROWS, flags, kept, kept_count, &err);
    CHECK(status == LATHE_OK || status == LATHE_EUNSUPPORTED, "%d: %s", status, err.message);
    CHECK(status == LATHE_OK || err.message[0], "refused without a sentence");
    return status == LATHE_OK;
}

static int has_context(int32_t scope, uint32_t kv_flags)
{
    struct lathe_error err = { 0 };
    int status = make_context(scope, kv_flags, LATHE_F32, &err);
    CHECK(status == LATHE_OK || (status == LATHE_EUNSUPPORTED && err.message[0]), "scope %d, flags %u: %d %s", scope, kv_flags,
          status, err.message);
    return status == LATHE_OK;
}

static void same(const char *what, int at)
{
    for (uint32_t i = 0; i < info.vocab_tokens; i++)
        CHECK(fabs((double)wanted[i] - (double)logits[i]) < TOLERANCE, "%s (%d): logit %u is %g, expected %g", what, at, i,
              (double)logits[i], (double)wanted[i]);
}

static void remember(void)
{
    memcpy(wanted, logits, info.vocab_tokens * sizeof *wanted);
}

void takes_the_kv_types_that_it_offers(struct subject *s)
{
    struct lathe_error err = { 0 };
    open_model(s);
    CHECK(info.kv_bytes_per_token == 0 || info.kv_dtypes >> LATHE_F32 & 1, "keys and values in F32 are not offered: %x",
          info.kv_dtypes);
    for (int32_t dtype = -1; dtype <= 32 && info.kv_bytes_per_token; dtype++) {
        int offered = dtype >= 0 && dtype < 32 && (info.kv_dtypes >> dtype & 1);
        int status = make_context(LATHE_KV_REQUEST, 0, dtype, &err);
        CHECK(status == (offered ? LATHE_OK : LATHE_EUNSUPPORTED), "%s, offered %d: %d %s", lathe_dtype_name(dtype), offered,
              status, err.message);
        CHECK(offered || err.message[0], "%s was refused without a sentence", lathe_dtype_name(dtype));
        CHECK(!offered || rows_after_prompt(0, NULL, 0), "%s: no forward", lathe_dtype_name(dtype));
    }
    close_model();
}

void a_kept_list_of_all_changes_nothing(struct subject *s)
{
    int32_t all[FIRST];
    for (int32_t i = 0; i < FIRST; i++)
        all[i] = i;
    open_model(s);
    rows_after_prompt(0, NULL, 0);
    remember();
    for (int32_t scope = LATHE_KV_REQUEST; scope <= LATHE_KV_HEAD; scope++)
        if (has_context(scope, 0) && rows_after_prompt(0, all, FIRST))
            same("all positions kept, scope", scope);
    close_model();
}

void sets_that_are_alike_are_one(struct subject *s)
{
    static const int32_t some[] = { 0, 1, 7, 11, 12, 19 };
    open_model(s);
    if (rows_after_prompt(0, some, 6)) {
        remember();
        for (int32_t scope = LATHE_KV_LAYER; scope <= LATHE_KV_HEAD; scope++)
            if (has_context(scope, 0) && rows_after_prompt(0, some, 6))
                same("the same positions in each set, scope", scope);
    }
    close_model();
}

void positions_in_the_cache_are_positions_while_nothing_goes(struct subject *s)
{
    struct lathe_error err = { 0 };
    open_model(s);
    CHECK(ask(0, FIRST, LATHE_SLICE_CACHE_POSITIONS, NULL, 0, &err) < 0 || info.kv_bytes_per_token == 0,
          "positions in the cache of keys that are kept rotated");
    rows_after_prompt(0, NULL, 0);
    remember();
    if (has_context(LATHE_KV_REQUEST, LATHE_KV_KEYS_UNROTATED)) {
        rows_after_prompt(0, NULL, 0);
        same("keys rotated when read", 0);
        rows_after_prompt(LATHE_SLICE_CACHE_POSITIONS, NULL, 0);
        same("positions in the cache", 0);
    }
    close_model();
}

void masses_sum_to_rows_and_heads(struct subject *s)
{
    static const int32_t some[] = { 0, 1, 7, 11, 12, 19 };
    struct lathe_error err = { 0 };
    open_model(s);
    int offered = api->get_extension && api->get_extension(model, LATHE_MODEL_KEY_MASS);
    if (!offered && info.kv_bytes_per_token)
        CHECK_FAILS(ask(0, FIRST, LATHE_SLICE_KEY_MASS, NULL, 0, &err), LATHE_EUNSUPPORTED, &err);
    for (int32_t scope = LATHE_KV_REQUEST; offered && scope <= LATHE_KV_HEAD; scope++)
        for (uint32_t kept = 0; kept <= 6; kept += 6) {
            if (!has_context(scope, 0))
                continue;
            CHECK(ask(0, FIRST, 0, NULL, 0, &err) == LATHE_OK, "%s", err.message);
            size_t calls = atomic_load(&s->host.calls);
            CHECK_OK(ask(FIRST, ROWS, LATHE_SLICE_KEY_MASS, some, kept, &err), &err);
            CHECK(atomic_load(&s->host.calls) == calls, "memory was taken inside the step loop");
            uint32_t keys = (kept ? kept : FIRST) + ROWS;
            double share = (double)info.layers * info.heads / sets * ROWS; /* each row and head gives 1 */
            CHECK(answer.mass_bytes == (uint64_t)sets * keys * sizeof *masses, "%llu bytes of masses, %u sets of %u keys",
                  (unsigned long long)answer.mass_bytes, sets, keys);
            for (uint32_t set = 0; set < sets; set++) {
                double sum = 0;
                for (uint32_t k = 0; k < keys; k++) {
                    CHECK(masses[set * keys + k] >= 0, "mass %g", (double)masses[set * keys + k]);
                    sum += masses[set * keys + k];
                }
                CHECK(fabs(sum - share) < 1e-4 * share, "scope %d, set %u: masses sum to %g, not %g", scope, set, sum, share);
            }
        }
    close_model();
}
