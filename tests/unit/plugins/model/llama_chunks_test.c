/* SPDX-License-Identifier: MIT */
/* The same bits for every row of a prompt however it is cut, by any number of threads, and looked at or not: at
 * contexts long enough that blocks of keys are joined, and cut among threads. The tiny files are of 256
 * tokens of context, so copies say more. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "golden.h"

enum { PROMPT = 700, CONTEXT = 1024, TABLE = CONTEXT / 16, MOST_VOCAB = 4096 };

static float whole[PROMPT][MOST_VOCAB];

/* A copy of the file whose context_length is CONTEXT; its path. */
static const char *longer(const char *file)
{
    static char path[64];
    static const char key[] = "llama.context_length";
    static char bytes[4 << 20];
    char from[1024];
    uint32_t context = CONTEXT;
    snprintf(from, sizeof from, "%s/zoo/%s", TEST_DATA, file);
    snprintf(path, sizeof path, "/tmp/lathe-chunks-XXXXXX");
    FILE *in = fopen(from, "rb");
    assert_non_null(in);
    size_t n = fread(bytes, 1, sizeof bytes, in);
    fclose(in);
    char *at = memmem(bytes, n, key, strlen(key));
    assert_true(at && n < sizeof bytes);
    memcpy(at + strlen(key) + 4, &context, sizeof context); /* after the value's type */
    int to = mkstemp(path);
    assert_int_equal(write(to, bytes, n), n);
    close(to);
    return path;
}

static void probe_all(struct fixture *f, struct call *c, struct lathe_slice *s)
{
    c->probes[0] = (struct lathe_probe){ .id = 1, .format = LATHE_PROBE_SUMMARY, .recent_window = 64, .last_position = -1,
                                         .every = 1 };
    for (uint32_t i = 0; i < f->info.layers; i++)
        c->probes[0].layers[i / 64] |= 1ull << i % 64;
    for (uint32_t i = 0; i < f->info.heads; i++)
        c->probes[0].heads[i / 64] |= 1ull << i % 64;
    c->probe_count = 1;
    s->probe = 0;
}

/* The prompt in chunks; every row's logits against `whole`, or into it. */
static void run_chunks(struct fixture *f, struct call *c, uint32_t chunk, int probed, int first)
{
    int32_t ids[PROMPT], table[TABLE];
    size_t vocab = f->info.vocab_tokens;
    for (uint32_t i = 0; i < PROMPT; i++)
        ids[i] = (int32_t)(i * 7919 % vocab);
    blocks_fill(table, TABLE, TABLE - 1, -1);
    for (uint32_t at = 0; at < PROMPT; at += chunk) {
        uint32_t n = PROMPT - at < chunk ? PROMPT - at : chunk;
        call_reset(c);
        struct lathe_slice *s = call_slice(c, 1, LATHE_SLICE_LOGITS | CALL_ALL_ROWS, (int32_t)at, ids + at, n, table, TABLE);
        if (probed)
            probe_all(f, c, s);
        if (call_run(f, c))
            fail_msg("chunk of %u at %u: %s", chunk, at, f->err.message);
        for (uint32_t r = 0; r < n; r++)
            if (first)
                memcpy(whole[at + r], c->logits + r * vocab, vocab * sizeof(float));
            else if (memcmp(whole[at + r], c->logits + r * vocab, vocab * sizeof(float)) != 0)
                fail_msg("row %u: other bits in chunks of %u%s, %u threads, than in one thread's chunks of %d", at + r, chunk,
                         probed ? ", probed" : "", f->params.threads, PROMPT);
    }
}

static void a_row_has_the_same_bits_in_every_chunk(void **state)
{
    static const char *const files[] = { "llama-f32.gguf", "llama-mqa-base.gguf", "llama-q4_k.gguf" };
    static const int32_t dtypes[] = { LATHE_F32, LATHE_F16, LATHE_Q8_0 };
    static const uint32_t chunks[] = { PROMPT, 512, 128, 37, 16, 1 };
    uint32_t tried = 0;
    (void)state;
    for (uint32_t i = 0; i < 3; i++) {
        const char *path = longer(files[i]);
        const struct fixture_option options[] = { { "path", path }, { NULL, NULL } };
        for (uint32_t d = 0; d < 3; d++)
            for (uint32_t threads = 1; threads <= 3; threads++) {
                static struct fixture f;
                assert_int_equal(fixture_open(&f, "llama", options), 0);
                assert_true(f.info.vocab_tokens <= MOST_VOCAB);
                if (!(f.info.kv_dtypes >> dtypes[d] & 1)) {
                    fixture_close(&f);
                    continue;
                }
                if (fixture_context(&f, (struct lathe_context_params){ .blocks = TABLE, .context_tokens = CONTEXT,
                                    .batch_tokens = PROMPT, .output_rows = PROMPT, .threads = threads, .kv_dtype = dtypes[d] }))
                    fail_msg("%s: %s", files[i], f.err.message);
                struct call *c = call_new();
                call_attention_room(c, (size_t)PROMPT * (64 + 32ull * f.info.layers * f.info.heads));
                for (uint32_t k = 0; k < sizeof chunks / sizeof *chunks; k++)
                    run_chunks(&f, c, chunks[k], 0, k == 0 && threads == 1);
                run_chunks(&f, c, 64, 1, 0);
                call_free(c);
                fixture_close(&f);
                tried++;
            }
        unlink(path);
    }
    assert_true(tried >= 3 * 2 * 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(a_row_has_the_same_bits_in_every_chunk) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
