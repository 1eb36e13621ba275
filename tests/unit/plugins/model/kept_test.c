/* SPDX-License-Identifier: MIT */
/* Kept lists by request, layer and head, rotation by position and by place in the cache, masses and
 * Q8_0: a prompt in two chunks and a decode, whose lists are drawn anew at each step, against
 * reference.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <sys/wait.h>

#include "golden.h"
#include "reference.h"

struct subject {
    const char *plugin, *file;
    struct fixture_option options[4];
    int wide; /* heads of 32: Q8_0 can be had */
};

static struct subject subjects[] = {
    { .plugin = "tiny", .options = { { "layers", "3" }, { "heads", "4" } } },
    { .plugin = "llama", .file = "llama-f32.gguf" },        /* pairs side by side, 2 layers, heads share in twos */
    { .plugin = "llama", .file = "llama-mha-untied.gguf" }, /* nothing shared */
    { .plugin = "llama", .file = "llama-key-length.gguf" }, /* heads of 24: vectors and what is left */
    { .plugin = "llama", .file = "qwen2-f16.gguf" },        /* halves, biases */
    { .plugin = "llama", .file = "llama-q4_k.gguf", .wide = 1 }, /* eight heads share one */
};
enum { SUBJECTS = sizeof subjects / sizeof *subjects, BLOCK = 5, TABLE = 16, LENGTH = 64, MASSES = 1 << 14 };

static struct fixture f;
static struct call *c;
static struct reference reference;
static int32_t ids[LENGTH];

/* A way of keeping and rotating. */
struct way {
    int32_t scope, dtype;
    uint32_t budget; /* of positions before a slice; 0: all are kept, no list */
    int unrotated, cache_positions, mass;
    uint32_t threads;
};

static void begin(const struct subject *s, const struct way *w)
{
    char path[1024];
    struct fixture_option options[4];
    memcpy(options, s->options, sizeof options);
    if (s->file) {
        snprintf(path, sizeof path, "%s/zoo/%s", TEST_DATA, s->file);
        options[0] = (struct fixture_option){ "path", path };
        options[1] = (struct fixture_option){ "compute", "exact" };
        options[2] = (struct fixture_option){ NULL, NULL };
    }
    if (fixture_open(&f, s->plugin, options) ||
        fixture_context(&f, (struct lathe_context_params){
                                .block_tokens = BLOCK, .blocks = 64, .context_tokens = 80, .output_rows = 64, .threads = w->threads,
                                .kv_scope = w->scope, .kv_dtype = w->dtype,
                                .kv_flags = w->unrotated ? LATHE_KV_KEYS_UNROTATED : 0 }))
        fail_msg("%s %s: %s", s->plugin, s->file ? s->file : "", f.err.message);
    if (s->file)
        reference_open(&reference, &f.host, path, &f.info);
    else
        reference_tiny(&reference, &f.info);
    reference.q8_0 = w->dtype == LATHE_Q8_0;
    c = call_new();
    call_mass_room(c, MASSES);
    for (int i = 0; i < LENGTH; i++)
        ids[i] = (int32_t)(i * 37 + 11 + i * i) % 250;
}

static void end(void)
{
    call_free(c);
    reference_close(&reference);
    fixture_close(&f);
    assert_int_equal(f.live, 0);
}

/* Draws which positions before `first` each set keeps: ascending, `budget` of them, others at each step. */
static uint32_t draw_kept(const struct way *w, int32_t first, int32_t *kept)
{
    uint32_t sets = lathe_kv_sets(w->scope, f.info.layers, f.info.kv_heads), count = w->budget;
    count = count < (uint32_t)first ? count : (uint32_t)first;
    for (uint32_t set = 0; set < sets; set++)
        for (int32_t p = 0, left = (int32_t)count; p < first; p++) /* Knuth's selection sampling */
            if (lathe_random_u64((uint64_t)first, LATHE_RANDOM_USER, set, (uint32_t)p) % (uint32_t)(first - p) < (uint32_t)left)
                kept[set * count + count - (uint32_t)left--] = p;
    return count;
}

struct found {
    double worst, worst_mass, moved; /* differences; moved: how far the lists took the logits from full attention's */
};

static void check_masses(const struct way *w, const double *expected, uint32_t keys, uint32_t rows, struct found *found)
{
    uint32_t sets = lathe_kv_sets(w->scope, f.info.layers, f.info.kv_heads);
    uint64_t heads = (uint64_t)f.info.layers * f.info.heads / sets; /* query heads that share a set */
    assert_int_equal(c->out.mass_bytes, (uint64_t)sets * keys * sizeof(float));
    for (uint32_t set = 0; set < sets; set++) {
        double sum = 0;
        for (uint32_t j = 0; j < keys; j++) {
            double off = fabs(c->masses[set * keys + j] - expected[set * keys + j]);
            found->worst_mass = off > found->worst_mass ? off : found->worst_mass;
            sum += c->masses[set * keys + j];
        }
        if (fabs(sum - (double)(rows * heads)) > 1e-4 * (double)(rows * heads))
            fail_msg("set %u has %g of mass, %llu expected", set, sum, (unsigned long long)(rows * heads));
    }
}

/* One slice in both; blocks that no set looks at are gone from the table. */
static void step(const struct way *w, int32_t first, uint32_t rows, struct found *found)
{
    static double expected[1 << 14], masses[MASSES];
    int32_t kept[4096], table[TABLE];
    uint32_t sets = lathe_kv_sets(w->scope, f.info.layers, f.info.kv_heads), vocab = f.info.vocab_tokens;
    uint32_t count = w->budget ? draw_kept(w, first, kept) : 0;
    uint32_t keys = (count ? count : (uint32_t)first) + rows;
    blocks_fill(table, TABLE, 63, -2);
    for (int32_t b = 0; count && b < first / BLOCK; b++) {
        int seen = 0;
        for (uint32_t i = 0; i < sets * count; i++)
            seen |= kept[i] / BLOCK == b;
        table[b] = seen ? table[b] : -1;
    }
    call_reset(c);
    uint32_t flags = LATHE_SLICE_LOGITS | CALL_ALL_ROWS | (w->mass ? LATHE_SLICE_KEY_MASS : 0) |
                     (w->cache_positions ? LATHE_SLICE_CACHE_POSITIONS : 0);
    struct lathe_slice *s = call_slice(c, 1, flags, first, ids + first, rows, table, TABLE);
    memcpy(c->kept, kept, sets * count * sizeof *kept);
    s->kept_count = count;
    c->kept_count = sets * count;
    if (call_run(&f, c))
        fail_msg("forward: %s", f.err.message);
    memset(masses, 0, sizeof masses);
    struct reference_view v = { w->scope, kept, count, first, count == 0, w->cache_positions, masses, keys };
    for (uint32_t r = 0; r < rows; r++) {
        reference_row(&reference, &v, ids[first + (int32_t)r], first + (int32_t)r, expected);
        for (uint32_t i = 0; i < vocab; i++) {
            double off = fabs(c->logits[(size_t)r * vocab + i] - expected[i]);
            found->worst = off > found->worst ? off : found->worst;
        }
    }
    if (w->mass)
        check_masses(w, masses, keys, rows, found);
    if (count && count < (uint32_t)first) { /* another look at the same row, at everything */
        double full[1 << 14];
        struct reference_view all = { .first = first, .all = 1 };
        reference_row(&reference, &all, ids[first + (int32_t)rows - 1], first + (int32_t)rows - 1, full);
        for (uint32_t i = 0; i < vocab; i++)
            found->moved = fabs(full[i] - expected[i]) > found->moved ? fabs(full[i] - expected[i]) : found->moved;
        reference_row(&reference, &v, ids[first + (int32_t)rows - 1], first + (int32_t)rows - 1, expected);
    }
}

static struct found text(const struct subject *s, const struct way *w)
{
    struct found found = { 0 };
    begin(s, w);
    step(w, 0, 23, &found);
    step(w, 23, 17, &found); /* a chunk whose rows see each other and what was kept */
    for (int32_t p = 40; p < LENGTH; p++)
        step(w, p, 1, &found);
    end();
    return found;
}

static void check(const struct subject *s, const struct way *w, double tolerance)
{
    struct found found = text(s, w);
    if (!(found.worst < tolerance && found.worst_mass < 1e-4))
        fail_msg("%s %s, scope %d, budget %u, unrotated %d, cache positions %d: logits off by %g, masses by %g", s->plugin,
                 s->file ? s->file : "", w->scope, w->budget, w->unrotated, w->cache_positions, found.worst, found.worst_mass);
    if (w->budget && !(found.moved > 100 * tolerance))
        fail_msg("%s: what was dropped was never missed (%g): the test shows nothing", s->plugin, found.moved);
}

static void each_set_is_looked_at_by_its_heads(void **state)
{
    (void)state;
    for (int i = 0; i < SUBJECTS; i++)
        for (int32_t scope = LATHE_KV_REQUEST; scope <= LATHE_KV_HEAD; scope++)
            check(&subjects[i], &(struct way){ .scope = scope, .budget = 9, .threads = 2 }, 5e-4);
}

static void masses_are_what_the_rows_gave(void **state)
{
    (void)state;
    for (int i = 0; i < SUBJECTS; i++)
        for (int32_t scope = LATHE_KV_REQUEST; scope <= LATHE_KV_HEAD; scope++)
            for (uint32_t budget = 0; budget <= 9; budget += 9)
                check(&subjects[i], &(struct way){ .scope = scope, .budget = budget, .mass = 1, .threads = 2 }, 5e-4);
}

static void keys_rotated_when_read_are_the_same(void **state)
{
    (void)state;
    for (int i = 0; i < SUBJECTS; i++)
        for (uint32_t budget = 0; budget <= 9; budget += 9)
            check(&subjects[i], &(struct way){ .scope = LATHE_KV_HEAD, .budget = budget, .unrotated = 1, .threads = 2 }, 5e-4);
}

static void positions_in_the_cache_count_what_is_seen(void **state)
{
    (void)state;
    for (int i = 0; i < SUBJECTS; i++)
        for (int32_t scope = LATHE_KV_REQUEST; scope <= LATHE_KV_HEAD; scope++)
            for (uint32_t budget = 0; budget <= 9; budget += 9) /* with nothing evicted: full attention */
                check(&subjects[i], &(struct way){ .scope = scope, .budget = budget, .unrotated = 1, .cache_positions = 1,
                                                   .mass = 1, .threads = 2 }, 5e-4);
}

static void q8_0_is_the_rounding_that_it_says(void **state)
{
    (void)state;
    for (int i = 0; i < SUBJECTS; i++) {
        struct way w = { .scope = LATHE_KV_HEAD, .dtype = LATHE_Q8_0, .budget = 9, .unrotated = 1, .mass = 1, .threads = 2 };
        if (subjects[i].wide) {
            check(&subjects[i], &w, 5e-3); /* a number on the edge may be rounded to the other side */
            w.cache_positions = 1;
            check(&subjects[i], &w, 5e-3);
        }
    }
}

/* `top` of more keys than there are: exactly those of the head's own set, and the row itself. */
static void a_probe_names_the_keys_of_its_heads_set(void **state)
{
    enum { BUDGET = 9, FIRST = 40, TOP = 16 };
    (void)state;
    for (int i = 0; i < SUBJECTS; i++) {
        struct way w = { .scope = LATHE_KV_HEAD, .budget = BUDGET, .threads = 2 };
        int32_t kept[4096], table[TABLE];
        begin(&subjects[i], &w);
        uint32_t layers = f.info.layers, heads = f.info.heads, group = heads / f.info.kv_heads;
        blocks_fill(table, TABLE, 0, 1);
        call_reset(c);
        call_slice(c, 1, 0, 0, ids, FIRST, table, TABLE);
        assert_int_equal(call_run(&f, c), 0);
        call_reset(c);
        struct lathe_slice *s = call_slice(c, 1, LATHE_SLICE_LOGITS, FIRST, ids + FIRST, 1, table, TABLE);
        s->kept_count = draw_kept(&w, FIRST, kept);
        c->kept_count = layers * f.info.kv_heads * BUDGET;
        memcpy(c->kept, kept, c->kept_count * sizeof *kept);
        c->probes[0] = (struct lathe_probe){ .id = 1, .format = LATHE_PROBE_TOP, .top_k = TOP, .last_position = -1, .every = 1,
                                             .layers = { (1u << layers) - 1 }, .heads = { (1u << heads) - 1 } };
        c->probe_count = 1;
        s->probe = 0;
        call_attention_room(c, 1 << 14);
        assert_int_equal(call_run(&f, c), 0);
        const struct lathe_attention_top *top = (const void *)(c->attention + sizeof(struct lathe_attention_row));
        for (uint32_t part = 0; part < layers * heads; part++, top += TOP) {
            const int32_t *set = kept + part / group * BUDGET; /* layer-major: heads of a group are neighbours */
            double sum = 0;
            for (uint32_t k = 0; k <= BUDGET; k++) {
                int known = top[k].key == FIRST;
                for (uint32_t j = 0; j < BUDGET; j++)
                    known |= (uint32_t)set[j] == top[k].key;
                assert_true(known);
                sum += top[k].weight;
            }
            assert_int_equal(top[BUDGET + 1].key, UINT32_MAX);
            assert_true(fabs(sum - 1) < 1e-4);
        }
        end();
    }
}

/* Logits and masses of all steps of a text, one after the other; masses alone where the first chunk is long. */
static size_t collect(const struct subject *s, struct way w, uint32_t threads, uint32_t chunk, float *to)
{
    size_t n = 0;
    w.threads = threads;
    begin(s, &w);
    for (int32_t first = 0; first < (chunk > 8 ? LENGTH : 24); first += first ? 1 : (int32_t)chunk) {
        struct found ignored = { 0 };
        uint32_t rows = first ? 1 : chunk;
        step(&w, first, rows, &ignored);
        if (chunk <= 8) {
            memcpy(to + n, c->logits, (size_t)rows * f.info.vocab_tokens * sizeof *to);
            n += (size_t)rows * f.info.vocab_tokens;
        }
        memcpy(to + n, c->masses, c->out.mass_bytes);
        n += c->out.mass_bytes / sizeof *to;
    }
    end();
    return n;
}

/* Products of many rows are cut by the number of threads, and round with it; those of up to eight rows are
 * not, and those of these small files no more once there are nine threads. Masses never are. */
static void threads_change_no_bit(void **state)
{
    float *one = malloc(1 << 24), *other = malloc(1 << 24);
    (void)state;
    for (int i = 0; i < SUBJECTS; i++)
        for (int32_t scope = LATHE_KV_REQUEST; scope <= LATHE_KV_HEAD; scope++) {
            struct way w = { .scope = scope, .budget = 9, .unrotated = 1, .cache_positions = 1, .mass = 1 };
            for (int several = 0; several < 2; several++) { /* 60 rows: several tiles add to one set */
                size_t n = collect(&subjects[i], w, several ? 9 : 1, several ? 60 : 8, one);
                assert_int_equal(collect(&subjects[i], w, several ? 12 : 2, several ? 60 : 8, other), n);
                assert_memory_equal(one, other, n * sizeof *one);
            }
        }
    free(one);
    free(other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_set_is_looked_at_by_its_heads),
        cmocka_unit_test(masses_are_what_the_rows_gave),
        cmocka_unit_test(keys_rotated_when_read_are_the_same),
        cmocka_unit_test(positions_in_the_cache_count_what_is_seen),
        cmocka_unit_test(q8_0_is_the_rounding_that_it_says),
        cmocka_unit_test(a_probe_names_the_keys_of_its_heads_set),
    };
    const struct CMUnitTest of_kernels[] = { /* these pass through every kernel */
        cmocka_unit_test(positions_in_the_cache_count_what_is_seen),
        cmocka_unit_test(q8_0_is_the_rounding_that_it_says),
    };
    const struct CMUnitTest of_threads[] = { cmocka_unit_test(threads_change_no_bit) }; /* with the best kernels alone */
    const char *sets[] = { "plain", "avx2" }; /* beside the best; chosen once a process, so each in its own */
    int failed = 0;
    for (int i = 0; i < 2; i++) {
        int status = -1;
        pid_t child = fork();
        if (child == 0) {
            setenv("LATHE_KERNELS", sets[i], 1);
            exit(cmocka_run_group_tests(of_kernels, NULL, NULL));
        }
        if (child < 0 || waitpid(child, &status, 0) != child || status != 0) {
            fprintf(stderr, "failed with the kernels %s\n", sets[i]);
            failed++;
        }
    }
    failed += cmocka_run_group_tests(tests, NULL, NULL);
    return failed + cmocka_run_group_tests(of_threads, NULL, NULL);
}
