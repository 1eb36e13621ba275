/* SPDX-License-Identifier: MIT */
/* From a GGUF to checked weights.
 *
 * Metadata says the shape; every tensor must then have exactly that shape, and a type that
 * we can dequantize. What disagrees is refused with the tensor's name, what was found and
 * what was expected. Nothing is sized by the file before it was checked against a bound.
 * Weights are copied out of the mapping, so that a file that is cut while it is mapped can
 * hurt loading only. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "llama.h"

static int key_u32(const struct gguf *file, const char *architecture, const char *name, uint32_t least, uint32_t most,
                   const uint32_t *otherwise, uint32_t *value, struct lathe_error *err)
{
    char key[128];
    snprintf(key, sizeof key, "%s.%s", architecture, name);
    int status = gguf_get_u32(file, key, value, err);
    if (status == LATHE_ENOTFOUND && otherwise) {
        *value = *otherwise;
        status = 0;
    }
    if (status == 0 && (*value < least || *value > most))
        return lathe_fail(err, LATHE_EFORMAT, "%s: %s is %u; %u to %u can be had", gguf_path(file), key, *value, least,
                          most);
    return status;
}

static int copy_string(const struct gguf *file, const char *key, char *to, size_t capacity)
{
    struct gguf_string s;
    struct lathe_error ignored;
    if (gguf_get_string(file, key, &s, &ignored))
        return 0;
    size_t n = s.count < capacity ? s.count : capacity - 1;
    memcpy(to, s.bytes, n);
    to[n] = 0;
    return 1;
}

static int load_shape(struct llama *m, const struct gguf *file, struct lathe_error *err)
{
    struct llama_shape *s = &m->shape;
    const char *a = m->architecture;
    int status;
    char key[128];
    if (!copy_string(file, "general.architecture", m->architecture, sizeof m->architecture))
        return lathe_fail(err, LATHE_EFORMAT, "%s: general.architecture is missing, so its shape can't be known",
                          gguf_path(file));
    if (strcmp(a, "llama") != 0 && strcmp(a, "qwen2") != 0)
        return lathe_fail(err, LATHE_EUNSUPPORTED, "%s: architecture \"%.31s\" is not known to model llama; llama and qwen2 "
                          "are", gguf_path(file), a);
    if (!copy_string(file, "general.name", m->name, sizeof m->name))
        snprintf(m->name, sizeof m->name, "%s", a);
    s->halves = strcmp(a, "qwen2") == 0;
    if ((status = key_u32(file, a, "block_count", 1, LLAMA_MAX_LAYERS, NULL, &s->layers, err)) ||
        (status = key_u32(file, a, "embedding_length", 1, LLAMA_MAX_WIDTH, NULL, &s->width, err)) ||
        (status = key_u32(file, a, "feed_forward_length", 1, LLAMA_MAX_WIDTH, NULL, &s->feed, err)) ||
        (status = key_u32(file, a, "attention.head_count", 1, LLAMA_MAX_HEADS, NULL, &s->heads, err)) ||
        (status = key_u32(file, a, "attention.head_count_kv", 1, s->heads, &s->heads, &s->kv_heads, err)) ||
        (status = key_u32(file, a, "context_length", 1, INT32_MAX, NULL, &s->context, err)))
        return status;
    uint32_t head = s->width / s->heads, experts = 0, none = 0, value_head;
    if (head == 0)
        return lathe_fail(err, LATHE_EFORMAT, "%s: %u heads do not fit an embedding of %u", gguf_path(file), s->heads,
                          s->width);
    if ((status = key_u32(file, a, "attention.key_length", 1, LLAMA_MAX_HEAD, &head, &s->head, err)) ||
        (status = key_u32(file, a, "attention.value_length", 1, LLAMA_MAX_HEAD, &s->head, &value_head, err)) ||
        (status = key_u32(file, a, "rope.dimension_count", 2, s->head, &s->head, &s->rotated, err)) ||
        (status = key_u32(file, a, "expert_count", 0, UINT32_MAX, &none, &experts, err)))
        return status;
    if (s->head > LLAMA_MAX_HEAD)
        return lathe_fail(err, LATHE_EFORMAT, "%s: a head is %u wide; at most %d can be had", gguf_path(file), s->head,
                          LLAMA_MAX_HEAD);
    if (s->heads % s->kv_heads || value_head != s->head || s->rotated % 2)
        return lathe_fail(err, LATHE_EFORMAT, "%s: %u heads over %u KV heads, keys %u and values %u wide, %u rotated: heads "
                          "must be a multiple of KV heads, the widths equal, the rotated part even", gguf_path(file),
                          s->heads, s->kv_heads, s->head, value_head, s->rotated);
    if ((uint64_t)s->heads * s->head > LLAMA_MAX_WIDTH)
        return lathe_fail(err, LATHE_EFORMAT, "%s: %u heads of %u are wider than %d", gguf_path(file), s->heads, s->head,
                          LLAMA_MAX_WIDTH);
    if (experts)
        return lathe_fail(err, LATHE_EUNSUPPORTED, "%s: a mixture of %u experts is not something model llama does",
                          gguf_path(file), experts);
    snprintf(key, sizeof key, "%s.attention.layer_norm_rms_epsilon", a);
    if ((status = gguf_get_f32(file, key, &s->epsilon, err)))
        return status;
    if (!(s->epsilon >= 0 && s->epsilon < 1))
        return lathe_fail(err, LATHE_EFORMAT, "%s: %s is %g; 0 to 1 can be had", gguf_path(file), key, (double)s->epsilon);
    return 0;
}

void *llama_take(struct llama *m, size_t count, size_t each, struct lathe_error *err)
{
    size_t bytes = 0;
    void *memory = NULL;
    if (m->owned_count == m->owned_capacity) {
        lathe_fail(err, LATHE_EINTERNAL, "model llama: more allocations than were counted");
        return NULL;
    }
    if (!__builtin_mul_overflow(count, each, &bytes))
        memory = m->host->alloc(m->host->context, bytes, 64);
    if (!memory) {
        lathe_fail(err, LATHE_ENOMEM, "model llama: no memory for weights: %zu × %zu bytes wanted, %" PRIu64
                   " are taken already", count, each, m->weight_bytes);
        return NULL;
    }
    m->owned[m->owned_count++] = memory;
    return memory;
}

void llama_free_weights(struct llama *m)
{
    for (size_t i = 0; i < m->owned_count; i++)
        lathe_free(m->host, m->owned[i]);
    lathe_free(m->host, m->owned);
    m->owned = NULL;
    m->owned_count = 0;
}

/* Finds a tensor and checks it; rank 1 when rows is 0. LATHE_ENOTFOUND passes through. */
static int find(const struct gguf *file, const char *name, uint32_t rows, uint32_t columns, struct lathe_tensor *t,
                struct lathe_error *err)
{
    int status = gguf_tensor(file, name, t, err);
    if (status)
        return status;
    uint32_t rank = rows ? 2 : 1;
    const uint64_t *shape = t->shape;
    while (t->rank > rank && shape[0] == 1) { /* leading ones say nothing */
        memmove(t->shape, t->shape + 1, (t->rank - 1) * sizeof *t->shape);
        t->rank--;
    }
    if (rows ? t->rank != 2 || shape[0] != rows || shape[1] != columns : t->rank != 1 || shape[0] != columns) {
        char found[100];
        int at = 0;
        for (uint32_t i = 0; i < t->rank && i < LATHE_TENSOR_MAX_RANK; i++)
            at += snprintf(found + at, sizeof found - (size_t)at, "%s%" PRIu64, i ? " × " : "", shape[i]);
        char expected[40];
        if (rows)
            snprintf(expected, sizeof expected, "%u × %u", rows, columns);
        else
            snprintf(expected, sizeof expected, "%u", columns);
        return lathe_fail(err, LATHE_EFORMAT, "%s: tensor %s is %s; the metadata says %s", gguf_path(file), name, found,
                          expected);
    }
    uint32_t block = lathe_dtype_block(t->dtype);
    if (block == 0 || t->dtype == LATHE_I32 || columns % block)
        return lathe_fail(err, LATHE_EUNSUPPORTED, "%s: tensor %s is of type %s (%d) in rows of %u; F32, F16, BF16, Q8_0, "
                          "Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K and Q6_K in whole blocks can be read", gguf_path(file), name,
                          lathe_dtype_name(t->dtype), t->dtype, columns);
    return 0;
}

static int load_vector(struct llama *m, const struct gguf *file, const char *name, uint32_t count, float **vector,
                       struct lathe_error *err)
{
    struct lathe_tensor t;
    int status = find(file, name, 0, count, &t, err);
    if (status)
        return status;
    if (!(*vector = llama_take(m, count, sizeof(float), err)))
        return err->code;
    m->kernels->dequantize(t.dtype, t.data, *vector, count);
    m->parameters += count;
    m->weight_bytes += count * sizeof(float);
    return 0;
}

static int load_matrix(struct llama *m, const struct gguf *file, const char *name, uint32_t rows, uint32_t columns,
                       struct matrix *matrix, struct lathe_error *err)
{
    struct lathe_tensor t;
    int status = find(file, name, rows, columns, &t, err);
    if (status)
        return status;
    return llama_store(m, file, &t, matrix, err);
}

static int load_layer(struct llama *m, const struct gguf *file, uint32_t l, struct lathe_error *err)
{
    const struct llama_shape *s = &m->shape;
    struct llama_layer *layer = &m->layers[l];
    uint32_t q = s->heads * s->head, kv = s->kv_heads * s->head;
    const struct {
        const char *name;
        uint32_t rows, columns;
        struct matrix *matrix;
    } matrices[] = {
        { "attn_q", q, s->width, &layer->q },      { "attn_k", kv, s->width, &layer->k },
        { "attn_v", kv, s->width, &layer->v },     { "attn_output", s->width, q, &layer->o },
        { "ffn_gate", s->feed, s->width, &layer->gate }, { "ffn_up", s->feed, s->width, &layer->up },
        { "ffn_down", s->width, s->feed, &layer->down },
    };
    const struct {
        const char *name;
        uint32_t count;
        float **vector;
        int optional;
    } vectors[] = {
        { "attn_norm.weight", s->width, &layer->attention_norm, 0 },
        { "ffn_norm.weight", s->width, &layer->feed_norm, 0 },
        { "attn_q.bias", q, &layer->q_bias, 1 },
        { "attn_k.bias", kv, &layer->k_bias, 1 },
        { "attn_v.bias", kv, &layer->v_bias, 1 },
    };
    char name[64];
    int status;
    for (size_t i = 0; i < sizeof matrices / sizeof *matrices; i++) {
        snprintf(name, sizeof name, "blk.%u.%s.weight", l, matrices[i].name);
        if ((status = load_matrix(m, file, name, matrices[i].rows, matrices[i].columns, matrices[i].matrix, err)))
            return status;
    }
    for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++) {
        snprintf(name, sizeof name, "blk.%u.%s", l, vectors[i].name);
        status = load_vector(m, file, name, vectors[i].count, vectors[i].vector, err);
        if (status && !(status == LATHE_ENOTFOUND && vectors[i].optional))
            return status;
    }
    return 0;
}

/* Tensors that change what a layer computes and that this model would silently leave out. */
static int refuse_unknown(const struct gguf *file, struct lathe_error *err)
{
    static const char *const known[] = {
        "attn_q.weight", "attn_k.weight", "attn_v.weight", "attn_output.weight", "ffn_gate.weight", "ffn_up.weight",
        "ffn_down.weight", "attn_norm.weight", "ffn_norm.weight", "attn_q.bias", "attn_k.bias", "attn_v.bias",
        "rope_freqs.weight", "attn_rot_embd.weight",
    };
    for (uint64_t i = 0; i < gguf_tensor_count(file); i++) {
        struct gguf_string name;
        struct lathe_tensor t;
        if (gguf_tensor_at(file, i, &name, &t) || name.count < 5 || memcmp(name.bytes, "blk.", 4) != 0)
            continue;
        const char *dot = memchr(name.bytes + 4, '.', name.count - 4);
        size_t left = dot ? name.count - (size_t)(dot + 1 - name.bytes) : 0;
        int found = 0;
        for (size_t k = 0; dot && k < sizeof known / sizeof *known; k++)
            found |= strlen(known[k]) == left && memcmp(dot + 1, known[k], left) == 0;
        if (!found)
            return lathe_fail(err, LATHE_EUNSUPPORTED, "%s: tensor %.*s is not part of the layers that model llama computes; "
                              "this file is of another architecture than it says", gguf_path(file),
                              (int)(name.count < 100 ? name.count : 100), name.bytes);
    }
    return 0;
}

/* The type that most matrix elements have. */
static void name_quantization(struct llama *m, const struct gguf *file)
{
    uint64_t elements[32] = { 0 };
    int32_t most = LATHE_F32;
    for (uint64_t i = 0; i < gguf_tensor_count(file); i++) {
        struct gguf_string name;
        struct lathe_tensor t;
        if (gguf_tensor_at(file, i, &name, &t) || t.rank < 2 || t.dtype < 0 || t.dtype >= 32)
            continue;
        elements[t.dtype] += t.shape[0] * t.shape[1];
        if (elements[t.dtype] > elements[most])
            most = t.dtype;
    }
    snprintf(m->quantization, sizeof m->quantization, "%s", lathe_dtype_name(most));
}

int llama_load(struct llama *m, const struct gguf *file, struct lathe_error *err)
{
    struct lathe_tensor t;
    int status = load_shape(m, file, err);
    if (status || (status = refuse_unknown(file, err)))
        return status;
    struct llama_shape *s = &m->shape;
    m->owned_capacity = 8 + (size_t)s->layers * 12;
    m->owned = lathe_alloc_array(m->host, m->owned_capacity, sizeof *m->owned);
    if (!m->owned)
        return lathe_fail(err, LATHE_ENOMEM, "model llama: no memory for a list of %zu allocations", m->owned_capacity);
    if (!(m->layers = llama_take(m, s->layers, sizeof *m->layers, err)))
        return err->code;
    if ((status = gguf_tensor(file, "token_embd.weight", &t, err)))
        return status;
    if (t.rank != 2 || t.shape[0] == 0 || t.shape[0] > INT32_MAX)
        return lathe_fail(err, LATHE_EFORMAT, "%s: tensor token_embd.weight has rank %u and %" PRIu64 " rows; one row a token "
                          "is expected", gguf_path(file), t.rank, t.shape[0]);
    s->vocab = (uint32_t)t.shape[0];
    struct gguf_array tokens;
    struct lathe_error ignored;
    if (gguf_get_array(file, "tokenizer.ggml.tokens", &tokens, &ignored) == 0 && tokens.count != s->vocab)
        return lathe_fail(err, LATHE_EFORMAT, "%s: tensor token_embd.weight has %u rows; the vocabulary has %" PRIu64
                          " tokens", gguf_path(file), s->vocab, tokens.count);
    if ((status = load_matrix(m, file, "token_embd.weight", s->vocab, s->width, &m->embedding, err)) ||
        (status = load_vector(m, file, "output_norm.weight", s->width, &m->output_norm, err)) ||
        (status = llama_load_rope(m, file, err)))
        return status;
    status = load_matrix(m, file, "output.weight", s->vocab, s->width, &m->output, err);
    if (status == LATHE_ENOTFOUND) { /* tied */
        m->output = m->embedding;
        status = 0;
    }
    for (uint32_t l = 0; l < s->layers && status == 0; l++)
        status = load_layer(m, file, l, err);
    name_quantization(m, file);
    return status;
}
