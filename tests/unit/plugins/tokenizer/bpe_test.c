/* SPDX-License-Identifier: MIT */
/* tokenizer/bpe: what it makes of hostile vocabularies, long words, little memory, small rooms and
 * many threads. What ids it gives is bpe_golden_test.c's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <time.h>

#include "support/gguf_build.h"
#include "support/tokenizer_plugin.h"

static struct counting_host counting;
static const struct lathe_host *host;
static struct lathe_error err;
static struct build b;

static int setup(void **state)
{
    (void)state;
    host = counting_host_init(&counting);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    return counting.live_blocks != 0;
}

/* A vocabulary to spoil: h, e, l, o, he, ll, <|x|>. */
struct spoilt {
    const char *model, *pre;
    const char *tokens[8], *merges[4];
    int32_t types[8];
    uint32_t type_count, eos;
    int tokens_are_numbers;
};

static const struct spoilt sound = {
    .model = "gpt2", .pre = "gpt-2", .tokens = {"h", "e", "l", "o", "he", "ll", "<|im_end|>"}, .merges = {"h e", "l l"},
    .types = {1, 1, 1, 1, 1, 1, 3}, .type_count = 7, .eos = 6,
};

static size_t length_of(const char *const *strings)
{
    size_t n = 0;
    while (strings[n])
        n++;
    return n;
}

static int open_spoilt(const struct spoilt *s, struct tokenizer *t)
{
    b_begin(&b, 3, 0, 4 + (uint64_t)(s->model != NULL) + (s->pre != NULL));
    if (s->model)
        b_key_text(&b, "tokenizer.ggml.model", s->model);
    if (s->pre)
        b_key_text(&b, "tokenizer.ggml.pre", s->pre);
    b_key_array(&b, "tokenizer.ggml.tokens", s->tokens_are_numbers ? B_U64 : B_STRING, length_of(s->tokens));
    for (size_t i = 0; s->tokens[i]; i++)
        if (s->tokens_are_numbers)
            b_u64(&b, i);
        else
            b_text(&b, s->tokens[i]);
    b_key_array(&b, "tokenizer.ggml.merges", B_STRING, length_of(s->merges));
    for (size_t i = 0; s->merges[i]; i++)
        b_text(&b, s->merges[i]);
    b_key_array(&b, "tokenizer.ggml.token_type", B_I32, s->type_count);
    b_raw(&b, s->types, 4 * s->type_count);
    b_key_u32(&b, "tokenizer.ggml.eos_token_id", s->eos);
    struct memory_file f = memory_file(b.bytes, b.count);
    int rc = tokenizer_open(t, host, "bpe", f.path, &err);
    memory_file_close(&f);
    return rc;
}

static void refused(struct spoilt s, int code, const char *word)
{
    struct tokenizer t;
    int rc = open_spoilt(&s, &t);
    if (rc != code || !strstr(err.message, word))
        print_message("got %d: %s\n", rc, rc ? err.message : "");
    assert_int_equal(rc, code);
    assert_non_null(strstr(err.message, word));
    assert_null(t.self);
    assert_int_equal(counting.live_blocks, 0);
}

static void describes_itself(const struct tokenizer *t, struct lathe_tokenizer_info *info)
{
    memset(info, 0, sizeof *info);
    info->head.capacity = sizeof *info;
    assert_int_equal(t->api->describe(t->self, NULL, info, &err), 0);
}

static void a_sound_vocabulary_works(void **state)
{
    (void)state;
    struct tokenizer t;
    struct lathe_tokenizer_info info;
    assert_int_equal(open_spoilt(&sound, &t), 0);
    describes_itself(&t, &info);
    assert_int_equal(info.vocab_tokens, 7);
    assert_int_equal(info.eos, 6);
    assert_int_equal(info.bos, -1);
    assert_int_equal(info.stop_count, 1);
    assert_int_equal(info.stops[0], 6);
    assert_int_equal(info.has_template, 0);
    assert_int_equal(info.max_token_bytes, 10);
    struct lathe_encode_out *out = tokenizer_ids(&t, "hello<|im_end|>", 15, LATHE_ENCODE_SPECIAL, &err);
    static const int32_t ids[] = {4, 5, 3, 6};
    assert_int_equal(out->tokens.count, 4);
    assert_memory_equal(LATHE_SPAN(int32_t, out, out->tokens), ids, sizeof ids);
    free(out);
    tokenizer_close(&t);
}

static void refuses_hostile_vocabularies(void **state)
{
    (void)state;
#define SPOIL(change, code, word) do { struct spoilt s = sound; s.change; refused(s, code, word); } while (0)
    SPOIL(model = "llama", LATHE_EUNSUPPORTED, "llama");
    SPOIL(model = NULL, LATHE_ENOTFOUND, "tokenizer.ggml.model");
    SPOIL(pre = "unheard-of", LATHE_EUNSUPPORTED, "unheard-of");
    SPOIL(pre = NULL, LATHE_ENOTFOUND, "tokenizer.ggml.pre");
    SPOIL(tokens[0] = NULL, LATHE_EFORMAT, "no token");
    SPOIL(tokens[1] = "", LATHE_EFORMAT, "token 1 empty");
    SPOIL(tokens[3] = "h", LATHE_EFORMAT, "token 0 and as token 3");
    SPOIL(tokens_are_numbers = 1, LATHE_EFORMAT, "array of numbers");
    SPOIL(merges[1] = "l x", LATHE_EFORMAT, "merge 1");
    SPOIL(merges[1] = "h l", LATHE_EFORMAT, "what they make");
    SPOIL(merges[1] = "h e", LATHE_EFORMAT, "merge 0 and as merge 1");
    SPOIL(merges[0] = "he", LATHE_EFORMAT, "space between");
    SPOIL(merges[0] = " e", LATHE_EFORMAT, "space between");
    SPOIL(merges[0] = "h ", LATHE_EFORMAT, "space between");
    SPOIL(merges[0] = "h e l", LATHE_EFORMAT, "space between");
    SPOIL(merges[0] = "h \xff", LATHE_EFORMAT, "merge 0");
    SPOIL(merges[0] = "<0x-1> e", LATHE_EFORMAT, "merge 0");
    SPOIL(type_count = 6, LATHE_EFORMAT, "6 types");
    SPOIL(types[2] = 99, LATHE_EFORMAT, "type 99");
    SPOIL(types[2] = -1, LATHE_EFORMAT, "type -1");
    SPOIL(eos = 7, LATHE_EFORMAT, "token 7");
    SPOIL(eos = UINT32_MAX, LATHE_EFORMAT, "eos_token_id");
    struct spoilt twice = sound;
    twice.tokens[5] = "<|im_end|>";
    twice.types[5] = 3;
    twice.merges[1] = NULL;
    refused(twice, LATHE_EFORMAT, "the same text");
}

static void open_small(struct tokenizer *t, const char *name)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/vocab_%s.gguf", TEST_DATA, name);
    assert_int_equal(tokenizer_open(t, host, "bpe", path, &err), 0);
}

static double processor_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* Quadratic merging would take hours for the megabyte; under a sanitizer this takes seconds. */
static void a_word_of_a_megabyte_is_quick(void **state)
{
    (void)state;
    static const char *const names[] = {"gpt-2", "llama-bpe", "qwen2"};
    static const char *const units[] = {"a", "er", "\xcc\x81\xcc\xa3", "\xff", " ", "\n"};
    const size_t bytes = 1 << 20;
    char *text = malloc(bytes);
    for (size_t m = 0; m < sizeof names / sizeof *names; m++) {
        struct tokenizer t;
        open_small(&t, names[m]);
        for (size_t u = 0; u < sizeof units / sizeof *units; u++) {
            for (size_t i = 0; i < bytes; i++)
                text[i] = units[u][i % strlen(units[u])];
            double begun = processor_s();
            struct lathe_encode_in *in = calloc(1, sizeof *in + 64 + bytes);
            struct lathe_encode_out *out = calloc(1, sizeof *out + 128 + 16 * bytes);
            in->head = (struct lathe_message){.capacity = sizeof *in + 64 + bytes, .bytes = sizeof *in};
            memcpy(lathe_message_add(&in->head, &in->text, bytes, 1), text, bytes);
            out->head.capacity = sizeof *out + 128 + 16 * bytes;
            assert_int_equal(t.api->encode(t.self, in, out, &err), 0);
            assert_true(out->tokens.count > 0);
            assert_true(processor_s() - begun < 20);
            free(in);
            free(out);
        }
        tokenizer_close(&t);
    }
    free(text);
}

static void survives_each_failing_allocation(void **state)
{
    (void)state;
    struct tokenizer t;
    size_t nth;
    for (nth = 1;; nth++) {
        counting.calls = 0;
        counting.fail_at = nth;
        int rc = open_spoilt(&sound, &t);
        if (!rc)
            break;
        assert_int_equal(rc, LATHE_ENOMEM);
        assert_int_equal(counting.live_blocks, 0);
        assert_true(nth < 100);
    }
    tokenizer_close(&t);
    assert_true(nth > 10);

    counting.fail_at = 0;
    open_small(&t, "qwen2");
    char text[3000]; /* too long for the stack, ill-formed, and not composed */
    memset(text, 'a', sizeof text);
    memcpy(text, "\xff" "e\xcc\x81", 4);
    size_t kept = counting.live_blocks;
    for (nth = 1;; nth++) {
        counting.calls = 0;
        counting.fail_at = nth;
        struct lathe_encode_out *out = tokenizer_ids(&t, text, sizeof text, 0, &err);
        assert_int_equal(counting.live_blocks, kept);
        if (out) {
            free(out);
            break;
        }
        assert_int_equal(err.code, LATHE_ENOMEM);
    }
    assert_true(nth > 4);
    counting.fail_at = 0;
    tokenizer_close(&t);
}

static void short_text_and_decoding_allocate_nothing(void **state)
{
    (void)state;
    struct tokenizer t;
    open_small(&t, "llama-bpe");
    size_t calls = counting.calls;
    struct lathe_encode_out *out = tokenizer_ids(&t, "The quick brown fox \xe2\x82\xac 123", 27, 0, &err);
    struct lathe_decode_state s = {0};
    struct lathe_decode_out *text = tokenizer_text(&t, LATHE_SPAN(int32_t, out, out->tokens), out->tokens.count, 0, &s, 256, &err);
    assert_int_equal(text->text.count, 27);
    assert_int_equal(counting.calls, calls);
    free(out);
    free(text);
    tokenizer_close(&t);
}

static void a_small_room_says_what_it_needed(void **state)
{
    (void)state;
    struct tokenizer t;
    open_small(&t, "gpt-2");
    struct {
        struct lathe_encode_in in;
        char text[64];
    } in = {.in.head = {.capacity = sizeof in, .bytes = sizeof in.in}, .text = {0}};
    union {
        struct lathe_encode_out out;
        char room[sizeof(struct lathe_encode_out) + 256];
    } out;
    memset(&out, 0, sizeof out);
    in.in.text = (struct lathe_span){sizeof in.in, 26};
    in.in.head.bytes = sizeof in;
    memcpy(in.text, "zqxjzqxjzqxjzqxjzqxjzqxjzq", 26);
    out.out.head.capacity = sizeof out.out + 64 + 4;
    assert_int_equal(t.api->encode(t.self, &in, &out, &err), LATHE_EFULL);
    uint64_t needed = out.out.needed;
    assert_true(needed > 2 && needed <= 26);
    out.out.head.capacity = sizeof out;
    assert_int_equal(t.api->encode(t.self, &in, &out, &err), 0);
    assert_int_equal(out.out.tokens.count, needed);
    assert_true(lathe_span_check(&out.out.head, out.out.tokens, 4, 4));

    in.in.text.count = 1000; /* beyond the message */
    assert_int_equal(t.api->encode(t.self, &in, &out, &err), LATHE_EINVAL);
    out.out.head.capacity = 8;
    assert_int_equal(t.api->encode(t.self, &in, &out, &err), LATHE_EFULL);
    tokenizer_close(&t);
}

static void bos_comes_when_asked_and_wanted(void **state)
{
    (void)state;
    struct tokenizer t;
    struct lathe_tokenizer_info info;
    open_small(&t, "llama-bpe");
    describes_itself(&t, &info);
    assert_int_equal(info.add_bos, 1);
    struct lathe_encode_out *out = tokenizer_ids(&t, "", 0, LATHE_ENCODE_BOS, &err);
    assert_int_equal(out->tokens.count, 1);
    assert_int_equal(LATHE_SPAN(int32_t, out, out->tokens)[0], info.bos);
    free(out);
    tokenizer_close(&t);
}

static void templates_come_from_the_file_or_the_caller(void **state)
{
    (void)state;
    struct tokenizer t;
    struct {
        struct lathe_template_in in;
        char text[128];
    } in;
    union {
        struct lathe_template_out out;
        char room[sizeof(struct lathe_template_out) + 256];
    } out;
    memset(&in, 0, sizeof in);
    memset(&out, 0, sizeof out);
    assert_int_equal(open_spoilt(&sound, &t), 0);
    in.in.head = (struct lathe_message){.capacity = sizeof in, .bytes = sizeof in};
    strcpy(in.text, "[{\"content\":\"hi\"}]{{ messages[0].content ~ eos_token }}");
    in.in.messages = (struct lathe_span){sizeof in.in, 18};
    out.out.head.capacity = sizeof out;
    assert_int_equal(t.api->apply_template(t.self, &in, &out, &err), LATHE_ENOTFOUND);
    in.in.source = (struct lathe_span){sizeof in.in + 18, strlen(in.text) - 18};
    assert_int_equal(t.api->apply_template(t.self, &in, &out, &err), 0);
    assert_int_equal(out.out.text.count, 12);
    assert_memory_equal(LATHE_SPAN(char, &out, out.out.text), "hi<|im_end|>", 12);
    tokenizer_close(&t);
}

/* ---- threads ---- */

enum { THREADS = 4, ROUNDS = 50 };

struct job {
    const struct tokenizer *tokenizer;
    const char *text;
    const int32_t *ids;
    size_t bytes, count;
    int differed;
};

static void *encode_again(void *context)
{
    struct job *job = context;
    struct lathe_error mine;
    for (int i = 0; i < ROUNDS; i++) {
        struct lathe_encode_out *out = tokenizer_ids(job->tokenizer, job->text, job->bytes, 0, &mine);
        job->differed |= !out || out->tokens.count != job->count ||
                         memcmp(LATHE_SPAN(int32_t, out, out->tokens), job->ids, 4 * job->count) != 0;
        free(out);
    }
    return NULL;
}

static void threads_share_an_instance(void **state)
{
    (void)state;
    struct tokenizer t;
    char text[2000];
    pthread_t threads[THREADS];
    struct job jobs[THREADS];
    open_small(&t, "qwen2");
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = "the lathe turns, 1987 \xcc\x81 "[i % 25];
    struct lathe_encode_out *out = tokenizer_ids(&t, text, sizeof text, 0, &err);
    for (int i = 0; i < THREADS; i++) {
        jobs[i] = (struct job){&t, text, LATHE_SPAN(int32_t, out, out->tokens), sizeof text, out->tokens.count, 0};
        assert_int_equal(pthread_create(&threads[i], NULL, encode_again, &jobs[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        assert_false(jobs[i].differed);
    }
    free(out);
    tokenizer_close(&t);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(a_sound_vocabulary_works),
        T(refuses_hostile_vocabularies),
        T(a_word_of_a_megabyte_is_quick),
        T(survives_each_failing_allocation),
        T(short_text_and_decoding_allocate_nothing),
        T(a_small_room_says_what_it_needed),
        T(bos_comes_when_asked_and_wanted),
        T(templates_come_from_the_file_or_the_caller),
        T(threads_share_an_instance),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    free(b.bytes);
    return failed;
}
