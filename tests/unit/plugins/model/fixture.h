/* SPDX-License-Identifier: MIT */
/* A model plugin outside of the host: opened by name, with a host table whose allocator can
 * be made to fail, and forward messages built slice by slice. For tests and benchmarks. */
#ifndef TESTS_MODEL_FIXTURE_H
#define TESTS_MODEL_FIXTURE_H

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <lathe/host.h>
#include <lathe/model.h>

struct fixture_option {
    const char *name, *text;
};

struct fixture {
    struct lathe_host host;
    long allocations, live, fail_at; /* fail_at n: the n-th allocation from then on fails; 0: none */
    const struct lathe_plugin *plugin;
    const struct lathe_model_api *api;
    void *self, *context;
    struct lathe_option_value values[32];
    struct lathe_model_info info;
    struct lathe_context_params params;
    struct lathe_error err;
};

static void *fixture_alloc(void *context, size_t bytes, size_t align)
{
    struct fixture *f = context;
    long n = __atomic_add_fetch(&f->allocations, 1, __ATOMIC_RELAXED);
    if ((f->fail_at && n >= f->fail_at) || bytes > (size_t)1 << 39) /* the sanitizers abort beyond */
        return NULL;
    if (align < 64)
        align = 64;
    void *raw = calloc(1, bytes + align + 64);
    if (!raw)
        return NULL;
    void *memory = (void *)(((uintptr_t)raw + 64 + align - 1) & ~(uintptr_t)(align - 1));
    ((void **)memory)[-1] = raw;
    __atomic_add_fetch(&f->live, 1, __ATOMIC_RELAXED);
    return memory;
}

static void fixture_free(void *context, void *memory)
{
    struct fixture *f = context;
    if (!memory)
        return;
    __atomic_sub_fetch(&f->live, 1, __ATOMIC_RELAXED);
    free(((void **)memory)[-1]);
}

static int64_t fixture_now(void *context)
{
    struct timespec t;
    (void)context;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ll + t.tv_nsec;
}

static void fixture_log(void *context, int level, uint64_t correlation, const char *message)
{
    (void)context, (void)level, (void)correlation, (void)message;
}

static int fixture_metric(void *context, const char *name, const char *unit, const char *help)
{
    (void)context, (void)name, (void)unit, (void)help;
    return 0;
}

static void fixture_record(void *context, int metric, double value)
{
    (void)context, (void)metric, (void)value;
}

static uint32_t fixture_roles(void *context)
{
    (void)context;
    return 15;
}

static void fixture_set_roles(void *context, uint32_t roles)
{
    (void)context, (void)roles;
}

static void fixture_wait_until(void *context, int64_t when_ns)
{
    int64_t left = when_ns - fixture_now(context);
    if (left > 0)
        nanosleep(&(struct timespec){ .tv_sec = left / 1000000000, .tv_nsec = left % 1000000000 }, NULL);
}

/* Creates an instance of plugins/model/NAME.so; options end with {NULL}. Returns create's status. */
static int fixture_open(struct fixture *f, const char *name, const struct fixture_option *options)
{
    char path[1024];
    memset(f, 0, sizeof *f);
    f->host = (struct lathe_host){ sizeof f->host, LATHE_PLUGIN_ABI, f, fixture_log, fixture_now, fixture_alloc,
                                   fixture_free, fixture_metric, fixture_record, fixture_roles, fixture_set_roles,
                                   fixture_wait_until };
    snprintf(path, sizeof path, "%s/model/%s.so", TEST_PLUGINS, name);
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library)
        return lathe_fail(&f->err, LATHE_ENOTFOUND, "%s", dlerror());
    f->plugin = dlsym(library, LATHE_PLUGIN_SYMBOL);
    f->api = f->plugin->api;
    for (uint32_t i = 0; i < f->plugin->option_count; i++) {
        const struct lathe_option *o = &f->plugin->options[i];
        const char *text = o->default_text;
        for (const struct fixture_option *set = options; set && set->name; set++)
            if (strcmp(set->name, o->name) == 0)
                text = set->text;
        struct lathe_option_value *v = &f->values[i];
        *v = (struct lathe_option_value){ .type = o->type, .text = text };
        if (text && o->type == LATHE_OPTION_CHOICE) {
            const char *at = o->choices;
            for (size_t n = strlen(text); strncmp(at, text, n) != 0 || (at[n] && at[n] != '|'); v->integer++)
                at = strchr(at, '|') + 1;
        } else if (text) {
            v->number = strtod(text, NULL);
            v->integer = strtoll(text, NULL, 10);
            if (o->type == LATHE_OPTION_BOOLEAN)
                v->integer = strcmp(text, "true") == 0 || strcmp(text, "1") == 0;
        }
    }
    struct lathe_config config = { sizeof config, f->plugin->option_count, f->values };
    int status = f->api->create(&f->host, &config, &f->self, &f->err);
    if (status)
        return status;
    struct lathe_empty in = { .head = { .capacity = sizeof in, .bytes = sizeof in } };
    f->info.head.capacity = sizeof f->info;
    return f->api->describe(f->self, &in, &f->info, &f->err);
}

/* Zero fields become: 16-token blocks, 256 of them, 512 rows, 32 slices, 2048 tokens, 64 outputs, 1 thread. */
static int fixture_context(struct fixture *f, struct lathe_context_params p)
{
    p.size = sizeof p;
    p.block_tokens = p.block_tokens ? p.block_tokens : 16;
    p.blocks = p.blocks ? p.blocks : 256;
    p.batch_tokens = p.batch_tokens ? p.batch_tokens : 512;
    p.batch_slices = p.batch_slices ? p.batch_slices : 32;
    p.context_tokens = p.context_tokens ? p.context_tokens : 2048;
    p.output_rows = p.output_rows ? p.output_rows : 64;
    p.threads = p.threads ? p.threads : 1;
    f->params = p;
    return f->api->context_create(f->self, &p, &f->context, &f->err);
}

static void fixture_close(struct fixture *f)
{
    if (f->api) {
        f->api->context_destroy(f->context);
        f->api->destroy(f->self);
    }
    f->context = f->self = NULL;
}

/* A forward being built. Arrays are collected, then laid out by call_run. */
enum { CALL_SLICES = 64, CALL_TOKENS = 16384, CALL_BLOCKS = 65536 };

struct call {
    struct lathe_slice slices[CALL_SLICES];
    struct lathe_kv_op ops[CALL_SLICES];
    struct lathe_probe probes[8];
    struct lathe_intervention interventions[LATHE_MAX_INTERVENTIONS];
    float floats[CALL_TOKENS]; /* the interventions' */
    int32_t keys[CALL_TOKENS];
    uint32_t intervention_count, float_count, key_count;
    int32_t tokens[CALL_TOKENS], blocks[CALL_BLOCKS], kept[CALL_TOKENS];
    uint32_t outputs[CALL_TOKENS];
    uint32_t slice_count, op_count, probe_count, token_count, block_count, kept_count, output_count;
    /* room for the reply's regions */
    float *logits, *hidden;
    unsigned char *attention;
    float *masses;
    size_t logits_rows, hidden_rows, attention_bytes, mass_floats;
    struct lathe_forward_out out;
    struct lathe_forward_in *in;
    size_t in_capacity;
};

static struct call *call_new(void)
{
    struct call *c = calloc(1, sizeof *c);
    c->in_capacity = 1 << 20;
    c->in = aligned_alloc(64, c->in_capacity);
    return c;
}

static void call_reset(struct call *c)
{
    c->intervention_count = c->float_count = c->key_count = 0;
    c->slice_count = c->op_count = c->probe_count = c->token_count = c->block_count = c->kept_count = c->output_count = 0;
}

static void call_free(struct call *c)
{
    free(c->in);
    free(c->logits);
    free(c->hidden);
    free(c->attention);
    free(c->masses);
    free(c);
}

/* A slice; its last row gives logits if LOGITS is set (ALL_ROWS: every row). */
enum { CALL_ALL_ROWS = 1 << 16 };

static struct lathe_slice *call_slice(struct call *c, uint64_t request, uint32_t flags, int32_t first, const int32_t *tokens,
                                      uint32_t count, const int32_t *blocks, uint32_t block_count)
{
    struct lathe_slice *s = &c->slices[c->slice_count++];
    *s = (struct lathe_slice){ .request = request, .flags = flags & 0xffff, .first_position = first,
                               .token_first = c->token_count, .token_count = count, .block_first = c->block_count,
                               .block_count = block_count, .output_first = c->output_count, .probe = LATHE_NO_PROBE,
                               .adapter = -1 };
    memcpy(c->tokens + c->token_count, tokens, count * sizeof *tokens);
    c->token_count += count;
    if (block_count)
        memcpy(c->blocks + c->block_count, blocks, block_count * sizeof *blocks);
    c->block_count += block_count;
    if (flags & (LATHE_SLICE_LOGITS | LATHE_SLICE_HIDDEN)) {
        if (flags & CALL_ALL_ROWS)
            for (uint32_t i = 0; i < count; i++)
                c->outputs[c->output_count++] = i;
        else
            c->outputs[c->output_count++] = count - 1;
    }
    s->output_count = c->output_count - s->output_first;
    return s;
}

static void call_add(struct call *c, struct lathe_span *span, const void *data, uint64_t count, size_t bytes)
{
    void *to = lathe_message_add(&c->in->head, span, count, bytes);
    if (count && to)
        memcpy(to, data, count * bytes);
}

static void call_build(struct call *c)
{
    memset(c->in, 0, sizeof *c->in);
    c->in->head.capacity = c->in_capacity;
    c->in->head.bytes = sizeof *c->in;
    call_add(c, &c->in->kv_ops, c->ops, c->op_count, sizeof *c->ops);
    call_add(c, &c->in->slices, c->slices, c->slice_count, sizeof *c->slices);
    call_add(c, &c->in->tokens, c->tokens, c->token_count, 4);
    call_add(c, &c->in->blocks, c->blocks, c->block_count, 4);
    call_add(c, &c->in->outputs, c->outputs, c->output_count, 4);
    call_add(c, &c->in->kept, c->kept, c->kept_count, 4);
    call_add(c, &c->in->probes, c->probes, c->probe_count, sizeof *c->probes);
    call_add(c, &c->in->interventions, c->interventions, c->intervention_count, sizeof *c->interventions);
    call_add(c, &c->in->intervention_floats, c->floats, c->float_count, sizeof *c->floats);
    call_add(c, &c->in->intervention_keys, c->keys, c->key_count, sizeof *c->keys);
}

/* Runs it as built; regions have room for as many rows as there are outputs and attention_bytes. */
static int call_forward(struct fixture *f, struct call *c)
{
    size_t rows = c->output_count ? c->output_count : 1;
    if (rows > c->logits_rows) {
        free(c->logits);
        free(c->hidden);
        c->logits = malloc(rows * f->info.vocab_tokens * sizeof(float));
        c->hidden = malloc(rows * f->info.embedding_width * sizeof(float));
        c->logits_rows = rows;
    }
    memset(&c->out, 0, sizeof c->out);
    c->out.head.capacity = sizeof c->out;
    c->out.logits = (struct lathe_region){ (char *)c->logits - (char *)&c->out, rows * f->info.vocab_tokens * 4 };
    c->out.hidden = (struct lathe_region){ (char *)c->hidden - (char *)&c->out, rows * f->info.embedding_width * 4 };
    c->out.attention = (struct lathe_region){ (char *)c->attention - (char *)&c->out, c->attention_bytes };
    c->out.masses = (struct lathe_region){ (char *)c->masses - (char *)&c->out, c->mass_floats * sizeof *c->masses };
    return f->api->forward(f->context, c->in, &c->out, &f->err);
}

static int call_run(struct fixture *f, struct call *c)
{
    call_build(c);
    return call_forward(f, c);
}

static void call_attention_room(struct call *c, size_t bytes)
{
    free(c->attention);
    c->attention = aligned_alloc(64, (bytes + 63) & ~(size_t)63);
    c->attention_bytes = bytes;
}

static void call_mass_room(struct call *c, size_t floats)
{
    free(c->masses);
    c->masses = malloc(floats * sizeof *c->masses);
    c->mass_floats = floats;
}

/* first, first + step, … : a block table. */
static void blocks_fill(int32_t *blocks, uint32_t count, int32_t first, int32_t step)
{
    for (uint32_t i = 0; i < count; i++)
        blocks[i] = first + (int32_t)i * step;
}

#endif
