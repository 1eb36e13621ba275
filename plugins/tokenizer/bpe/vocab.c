/* SPDX-License-Identifier: MIT */
/* The vocabulary: read from the GGUF once, checked, turned into tables of ours.
 *
 *     tokenizer.ggml.tokens       strings in GPT-2's alphabet (special ones as they are)
 *     tokenizer.ggml.token_type   i32 each, may be absent: all normal
 *     tokenizer.ggml.merges       "left right", best first
 *
 * Two hash tables with open addressing, at most half full: bytes → id, and pair of ids → rank.
 * Their seed is drawn when the file is opened, so that no file can be made to collide. */
#include "bpe.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

enum { MAX_TOKENS = 1 << 22, MAX_MERGES = 1 << 22, SHOWN = 64 };

static uint64_t mix(uint64_t a, uint64_t b)
{
    __uint128_t product = (__uint128_t)(a ^ UINT64_C(0x9e3779b97f4a7c15)) * (b ^ UINT64_C(0xd6e8feb86659fd93));
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static uint64_t hash_bytes(uint64_t seed, const unsigned char *bytes, size_t count)
{
    uint64_t hash = mix(seed, count), word;
    for (; count >= 8; bytes += 8, count -= 8) {
        memcpy(&word, bytes, 8);
        hash = mix(hash ^ word, seed);
    }
    word = 0;
    memcpy(&word, bytes, count);
    return mix(hash ^ word, seed);
}

static uint32_t mask_for(uint32_t count)
{
    uint32_t slots = 8;
    while (slots < 2 * count)
        slots *= 2;
    return slots - 1;
}

/* The slot of these bytes, or the empty one where they would go. */
static uint32_t bytes_slot(const struct vocab *v, const unsigned char *bytes, size_t count)
{
    uint32_t slot = (uint32_t)hash_bytes(v->seed, bytes, count) & v->slot_mask;
    for (; v->by_bytes[slot] >= 0; slot = (slot + 1) & v->slot_mask) {
        const struct token *t = &v->tokens[v->by_bytes[slot]];
        if (t->count == count && memcmp(v->bytes + t->at, bytes, count) == 0)
            break;
    }
    return slot;
}

static uint32_t pair_slot(const struct vocab *v, int32_t left, int32_t right)
{
    uint64_t pair = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    uint32_t slot = (uint32_t)mix(pair ^ v->seed, v->seed) & v->pair_mask;
    for (; v->by_pair[slot] >= 0; slot = (slot + 1) & v->pair_mask) {
        const struct merge *m = &v->merges[v->by_pair[slot]];
        if (m->left == left && m->right == right)
            break;
    }
    return slot;
}

int32_t vocab_find(const struct vocab *v, const unsigned char *bytes, size_t count)
{
    return v->by_bytes[bytes_slot(v, bytes, count)];
}

int32_t vocab_rank(const struct vocab *v, int32_t left, int32_t right)
{
    return v->by_pair[pair_slot(v, left, right)];
}

/* ---- reading ---- */

static const char *show(struct gguf_string s, char shown[SHOWN])
{
    size_t n = s.count < SHOWN - 4 ? s.count : SHOWN - 4;
    for (size_t i = 0; i < n; i++)
        shown[i] = (unsigned char)s.bytes[i] < 0x20 || s.bytes[i] == 0x7f ? '?' : s.bytes[i];
    memcpy(shown + n, n < s.count ? "..." : "", n < s.count ? 4 : 1);
    return shown;
}

static int no_memory(const struct gguf *gguf, struct lathe_error *err)
{
    return lathe_fail(err, LATHE_ENOMEM, "%s: no memory for its vocabulary", gguf_path(gguf));
}

static int32_t *empty_table(const struct lathe_host *host, uint32_t mask)
{
    int32_t *table = lathe_alloc_array(host, (size_t)mask + 1, sizeof *table);
    if (table)
        memset(table, 0xff, ((size_t)mask + 1) * sizeof *table);
    return table;
}

/* An array of strings, with the views of them in memory that the caller frees. */
static int get_strings(const struct vocab *v, const struct gguf *gguf, const char *key, uint32_t most,
                       struct gguf_string **strings, uint32_t *count, struct lathe_error *err)
{
    struct gguf_array array;
    int rc = gguf_get_array(gguf, key, &array, err);
    if (rc)
        return rc;
    if (array.count > most)
        return lathe_fail(err, LATHE_EFORMAT, "%s: key %s: found %llu strings, expected at most %u", gguf_path(gguf), key,
                          (unsigned long long)array.count, most);
    if (array.type != GGUF_STRING)
        return lathe_fail(err, LATHE_EFORMAT, "%s: key %s: found an array of numbers, expected strings", gguf_path(gguf), key);
    *strings = lathe_alloc_array(v->host, array.count + 1, sizeof **strings);
    if (!*strings)
        return no_memory(gguf, err);
    *count = (uint32_t)array.count;
    return gguf_array_strings(gguf, &array, *strings, err);
}

static int read_kinds(struct vocab *v, const struct gguf *gguf, struct lathe_error *err)
{
    struct gguf_array types;
    int rc = gguf_get_array(gguf, "tokenizer.ggml.token_type", &types, err);
    if (rc && rc != LATHE_ENOTFOUND)
        return rc;
    if (!rc && (types.type != GGUF_I32 && types.type != GGUF_U32))
        return lathe_fail(err, LATHE_EFORMAT, "%s: key tokenizer.ggml.token_type: found elements of type %d, expected i32",
                          gguf_path(gguf), types.type);
    if (!rc && types.count != v->count)
        return lathe_fail(err, LATHE_EFORMAT, "%s: key tokenizer.ggml.token_type: found %llu types, expected one for each of %u "
                          "tokens", gguf_path(gguf), (unsigned long long)types.count, v->count);
    for (uint32_t i = 0; i < v->count; i++) {
        int32_t kind = TOKEN_NORMAL;
        if (!rc)
            memcpy(&kind, (const char *)types.data + 4 * (size_t)i, sizeof kind);
        if (kind < TOKEN_NORMAL || kind > TOKEN_BYTE)
            return lathe_fail(err, LATHE_EFORMAT, "%s: key tokenizer.ggml.token_type: found type %d for token %u, expected 1 to 6",
                              gguf_path(gguf), kind, i);
        v->tokens[i].kind = (uint8_t)kind;
    }
    return 0;
}

static int add_token(struct vocab *v, const struct gguf *gguf, uint32_t id, struct gguf_string text, uint32_t *used,
                     struct lathe_error *err)
{
    struct token *t = &v->tokens[id];
    char shown[SHOWN];
    int special = t->kind == TOKEN_CONTROL || t->kind == TOKEN_USER_DEFINED;
    if (text.count == 0)
        return lathe_fail(err, LATHE_EFORMAT, "%s: key tokenizer.ggml.tokens: found token %u empty, expected at least a byte",
                          gguf_path(gguf), id);
    t->at = *used;
    long count = special ? -1 : alphabet_spell(text.bytes, text.count, v->bytes + t->at);
    t->spelled = count >= 0 && t->kind != TOKEN_UNUSED;
    if (count < 0) {
        memcpy(v->bytes + t->at, text.bytes, text.count);
        count = (long)text.count;
    }
    t->count = (uint32_t)count;
    *used += t->count;
    if (t->count > v->max_token_bytes)
        v->max_token_bytes = t->count;
    if (special)
        v->special[v->special_count++] = (int32_t)id;
    if (!t->spelled)
        return 0;
    uint32_t slot = bytes_slot(v, v->bytes + t->at, t->count);
    if (v->by_bytes[slot] >= 0)
        return lathe_fail(err, LATHE_EFORMAT, "%s: key tokenizer.ggml.tokens: found \"%s\" as token %d and as token %u, expected "
                          "it once", gguf_path(gguf), show(text, shown), v->by_bytes[slot], id);
    v->by_bytes[slot] = (int32_t)id;
    if (t->count == 1)
        v->byte_tokens[v->bytes[t->at]] = (int32_t)id;
    return 0;
}

static int read_tokens(struct vocab *v, const struct gguf *gguf, struct lathe_error *err)
{
    struct gguf_string *strings = NULL;
    size_t bytes = 0;
    uint32_t used = 0;
    int rc = get_strings(v, gguf, "tokenizer.ggml.tokens", MAX_TOKENS, &strings, &v->count, err);
    if (rc)
        goto done;
    for (uint32_t i = 0; i < v->count; i++)
        bytes += strings[i].count; /* within the header, which is under 256 MiB */
    if (v->count == 0) {
        rc = lathe_fail(err, LATHE_EFORMAT, "%s: key tokenizer.ggml.tokens: found no token, expected a vocabulary",
                        gguf_path(gguf));
        goto done;
    }
    v->slot_mask = mask_for(v->count);
    v->tokens = lathe_alloc_array(v->host, v->count, sizeof *v->tokens);
    v->bytes = lathe_alloc(v->host, bytes + 1);
    v->special = lathe_alloc_array(v->host, v->count, sizeof *v->special);
    v->by_bytes = empty_table(v->host, v->slot_mask);
    if (!v->tokens || !v->bytes || !v->special || !v->by_bytes) {
        rc = no_memory(gguf, err);
        goto done;
    }
    memset(v->byte_tokens, 0xff, sizeof v->byte_tokens);
    rc = read_kinds(v, gguf, err);
    for (uint32_t i = 0; i < v->count && !rc; i++)
        rc = add_token(v, gguf, i, strings[i], &used, err);
done:
    lathe_free(v->host, strings);
    return rc;
}

/* One side of a merge, to its id; −1: not a token. `spare` has room for its bytes. */
static int32_t find_spelled(const struct vocab *v, const char *text, size_t count, unsigned char *spare)
{
    long bytes = alphabet_spell(text, count, spare);
    return bytes > 0 ? vocab_find(v, spare, (size_t)bytes) : -1;
}

static int add_merge(struct vocab *v, const struct gguf *gguf, uint32_t rank, struct gguf_string text, unsigned char *spare,
                     struct lathe_error *err)
{
    char shown[SHOWN];
    const char *space = memchr(text.bytes, ' ', text.count);
    size_t left = space ? (size_t)(space - text.bytes) : 0;
    if (!left || left + 1 == text.count || memchr(space + 1, ' ', text.count - left - 1))
        return lathe_fail(err, LATHE_EFORMAT, "%s: key tokenizer.ggml.merges: found \"%s\" as merge %u, expected two tokens with "
                          "a space between", gguf_path(gguf), show(text, shown), rank);
    struct merge m = {find_spelled(v, text.bytes, left, spare),
                      find_spelled(v, space + 1, text.count - left - 1, spare), -1};
    if (m.left >= 0 && m.right >= 0) {
        const struct token *a = &v->tokens[m.left], *b = &v->tokens[m.right];
        memcpy(spare, v->bytes + a->at, a->count);
        memcpy(spare + a->count, v->bytes + b->at, b->count);
        m.merged = vocab_find(v, spare, (size_t)a->count + b->count);
    }
    if (m.merged < 0)
        return lathe_fail(err, LATHE_EFORMAT, "%s: key tokenizer.ggml.merges: found \"%s\" as merge %u, expected that both and "
                          "what they make are tokens", gguf_path(gguf), show(text, shown), rank);
    v->merges[rank] = m;
    uint32_t slot = pair_slot(v, m.left, m.right);
    if (v->by_pair[slot] >= 0)
        return lathe_fail(err, LATHE_EFORMAT, "%s: key tokenizer.ggml.merges: found \"%s\" as merge %d and as merge %u, expected "
                          "it once", gguf_path(gguf), show(text, shown), v->by_pair[slot], rank);
    v->by_pair[slot] = (int32_t)rank;
    return 0;
}

static int read_merges(struct vocab *v, const struct gguf *gguf, struct lathe_error *err)
{
    struct gguf_string *strings = NULL;
    unsigned char *spare = NULL;
    size_t longest = 0;
    int rc = get_strings(v, gguf, "tokenizer.ggml.merges", MAX_MERGES, &strings, &v->merge_count, err);
    if (rc)
        goto done;
    for (uint32_t i = 0; i < v->merge_count; i++)
        longest = strings[i].count > longest ? strings[i].count : longest;
    v->pair_mask = mask_for(v->merge_count);
    v->merges = lathe_alloc_array(v->host, (size_t)v->merge_count + 1, sizeof *v->merges);
    v->by_pair = empty_table(v->host, v->pair_mask);
    spare = lathe_alloc(v->host, longest + 1);
    if (!v->merges || !v->by_pair || !spare) {
        rc = no_memory(gguf, err);
        goto done;
    }
    for (uint32_t i = 0; i < v->merge_count && !rc; i++)
        rc = add_merge(v, gguf, i, strings[i], spare, err);
done:
    lathe_free(v->host, strings);
    lathe_free(v->host, spare);
    return rc;
}

static int read_id(const struct vocab *v, const struct gguf *gguf, const char *key, int32_t *id, struct lathe_error *err)
{
    uint32_t value;
    *id = -1;
    int rc = gguf_get_u32(gguf, key, &value, err);
    if (rc)
        return rc == LATHE_ENOTFOUND ? 0 : rc;
    if (value >= v->count)
        return lathe_fail(err, LATHE_EFORMAT, "%s: key %s: found token %u, expected one of the vocabulary's %u", gguf_path(gguf),
                          key, value, v->count);
    *id = (int32_t)value;
    return 0;
}

static void add_stop(struct vocab *v, int32_t id)
{
    for (uint32_t i = 0; i < v->stop_count; i++)
        if (v->stops[i] == id)
            return;
    if (id >= 0 && v->stop_count < LATHE_TOKENIZER_MAX_STOPS)
        v->stops[v->stop_count++] = id;
}

/* eos, the file's own ends of turn, and control tokens that models end a turn with. */
static int read_ids(struct vocab *v, const struct gguf *gguf, struct lathe_error *err)
{
    static const char *const turn_ends[] = {"<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_turn|>",
                                            "<end_of_turn>", "<|end|>", "<|eot|>"};
    int32_t eot, eom;
    int rc = read_id(v, gguf, "tokenizer.ggml.bos_token_id", &v->bos, err);
    if (!rc)
        rc = read_id(v, gguf, "tokenizer.ggml.eos_token_id", &v->eos, err);
    if (!rc)
        rc = read_id(v, gguf, "tokenizer.ggml.unknown_token_id", &v->unknown, err);
    if (!rc)
        rc = read_id(v, gguf, "tokenizer.ggml.padding_token_id", &v->padding, err);
    if (!rc)
        rc = read_id(v, gguf, "tokenizer.ggml.eot_token_id", &eot, err);
    if (!rc)
        rc = read_id(v, gguf, "tokenizer.ggml.eom_token_id", &eom, err);
    if (rc)
        return rc;
    add_stop(v, v->eos);
    add_stop(v, eot);
    add_stop(v, eom);
    for (uint32_t i = 0; i < v->special_count; i++) {
        const struct token *t = &v->tokens[v->special[i]];
        for (size_t k = 0; k < sizeof turn_ends / sizeof *turn_ends && t->kind == TOKEN_CONTROL; k++)
            if (t->count == strlen(turn_ends[k]) && memcmp(v->bytes + t->at, turn_ends[k], t->count) == 0)
                add_stop(v, v->special[i]);
    }
    rc = gguf_get_bool(gguf, "tokenizer.ggml.add_bos_token", &v->add_bos, err);
    if (rc == LATHE_ENOTFOUND) {
        v->add_bos = v->pretokenizer == PRETOKENIZER_LLAMA3; /* files from before the key existed */
        rc = 0;
    }
    v->add_bos = v->add_bos && v->bos >= 0;
    return rc;
}

static int is(struct gguf_string s, const char *text)
{
    return s.count == strlen(text) && memcmp(s.bytes, text, s.count) == 0;
}

static int read_pretokenizer(struct vocab *v, const struct gguf *gguf, struct lathe_error *err)
{
    static const struct {
        const char *name;
        enum pretokenizer pretokenizer;
    } known[] = {
        {"smollm", PRETOKENIZER_SMOLLM},  {"gpt-2", PRETOKENIZER_GPT2},     {"llama-bpe", PRETOKENIZER_LLAMA3},
        {"llama3", PRETOKENIZER_LLAMA3},  {"llama-v3", PRETOKENIZER_LLAMA3}, {"qwen2", PRETOKENIZER_QWEN2},
        {"deepseek-r1-qwen", PRETOKENIZER_QWEN2},
    };
    struct gguf_string model, pre;
    char shown[SHOWN];
    int rc = gguf_get_string(gguf, "tokenizer.ggml.model", &model, err);
    if (rc)
        return rc;
    if (!is(model, "gpt2"))
        return lathe_fail(err, LATHE_EUNSUPPORTED, "%s: key tokenizer.ggml.model: found \"%s\", expected \"gpt2\", which is "
                          "byte-level BPE", gguf_path(gguf), show(model, shown));
    rc = gguf_get_string(gguf, "tokenizer.ggml.pre", &pre, err);
    if (rc)
        return rc;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (is(pre, known[i].name)) {
            v->pretokenizer = known[i].pretokenizer;
            v->ignore_merges = known[i].pretokenizer == PRETOKENIZER_LLAMA3;
            memcpy(v->name, pre.bytes, pre.count);
            return 0;
        }
    return lathe_fail(err, LATHE_EUNSUPPORTED, "%s: key tokenizer.ggml.pre: found \"%s\", expected smollm, gpt-2, llama-bpe or "
                      "qwen2", gguf_path(gguf), show(pre, shown));
}

static int read_template(struct vocab *v, const struct gguf *gguf, struct lathe_error *err)
{
    struct gguf_string text;
    int rc = gguf_get_string(gguf, "tokenizer.chat_template", &text, err);
    if (rc)
        return rc == LATHE_ENOTFOUND ? 0 : rc;
    v->chat_template = lathe_alloc(v->host, text.count + 1);
    if (!v->chat_template)
        return no_memory(gguf, err);
    memcpy(v->chat_template, text.bytes, text.count);
    v->template_bytes = text.count;
    return 0;
}

int vocab_load(const struct lathe_host *host, const struct gguf *gguf, struct vocab *v, struct lathe_error *err)
{
    v->host = host;
    if (getrandom(&v->seed, sizeof v->seed, GRND_NONBLOCK) != sizeof v->seed)
        v->seed = (uint64_t)(uintptr_t)v * UINT64_C(0x9e3779b97f4a7c15); /* where memory lies is random too */
    int rc = read_pretokenizer(v, gguf, err);
    if (!rc)
        rc = read_tokens(v, gguf, err);
    if (!rc)
        rc = read_merges(v, gguf, err);
    if (!rc)
        rc = special_load(v, gguf_path(gguf), err);
    if (!rc)
        rc = read_ids(v, gguf, err);
    if (!rc)
        rc = read_template(v, gguf, err);
    if (rc)
        vocab_free(v);
    return rc;
}

void vocab_free(struct vocab *v)
{
    lathe_free(v->host, v->tokens);
    lathe_free(v->host, v->bytes);
    lathe_free(v->host, v->by_bytes);
    lathe_free(v->host, v->merges);
    lathe_free(v->host, v->by_pair);
    lathe_free(v->host, v->special);
    lathe_free(v->host, v->chat_template);
}
