/* SPDX-License-Identifier: MIT */
/* The GGUF reader against files that are right, wrong in one way each, and cut anywhere. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <sys/stat.h>

#include <gguf/gguf.h>

#include "support/counting_host.h"
#include "support/gguf_build.h"

static struct counting_host counting;
static const struct lathe_host *host;
static struct build b;
static struct lathe_error err;

static int setup(void **state)
{
    (void)state;
    host = counting_host_init(&counting);
    memset(&err, 0, sizeof err);
    b.count = 0;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    assert_int_equal(counting.live_blocks, 0);
    return 0;
}

/* Opens what was built. */
static int open_built(struct gguf **g)
{
    struct memory_file f = memory_file(b.bytes, b.count);
    int rc = gguf_open(host, f.path, g, &err);
    memory_file_close(&f);
    return rc;
}

static void refused_path(const char *path, int code, const char *word)
{
    struct gguf *g = NULL;
    int rc = gguf_open(host, path, &g, &err);
    if (rc != code || !strstr(err.message, word))
        print_message("got %d: %s\n", rc, err.message);
    assert_int_equal(rc, code);
    assert_int_equal(err.code, code);
    assert_null(g);
    assert_non_null(strstr(err.message, word));
    assert_int_equal(counting.live_blocks, 0);
}

/* What was built is refused with this status, in a sentence that has this word. */
static void refused(int code, const char *word)
{
    struct memory_file f = memory_file(b.bytes, b.count);
    refused_path(f.path, code, word);
    assert_true(counting.peak_bytes <= b.count + GGUF_FIXED_BYTES);
    memory_file_close(&f);
}

/* A small file with one of everything. */
static void build_whole(void)
{
    b_begin(&b, 3, 2, 9);
    b_key_text(&b, "general.architecture", "llama");
    b_key_u32(&b, "a.u32", 7);
    b_key_f32(&b, "a.f32", 0.5f);
    b_key_bool(&b, "a.bool", 1);
    b_key_array(&b, "a.strings", B_STRING, 3);
    b_text(&b, "x");
    b_text(&b, "");
    b_text(&b, "three");
    b_key_array(&b, "a.ints", B_I32, 2);
    b_u32(&b, 1);
    b_u32(&b, 2);
    b_key(&b, "a.u64", B_U64);
    b_u64(&b, UINT64_C(1) << 40);
    b_key(&b, "a.i8", B_I8);
    b_raw(&b, "\xff", 1);
    b_key(&b, "a.f64", B_F64);
    double half = 0.25;
    b_raw(&b, &half, 8);
    b_tensor(&b, "token_embd.weight", 2, (uint64_t[]){32, 3}, 8, 0); /* Q8_0: 34 bytes a row */
    b_tensor(&b, "norm.weight", 1, (uint64_t[]){4}, 0, 128);
    b_pad(&b, 32);
    b_zeros(&b, 144);
}

static void reads_what_is_there(void **state)
{
    (void)state;
    struct gguf *g;
    uint32_t u;
    float f;
    int yes;
    struct gguf_string s, strings[3], name;
    struct gguf_array a;
    struct lathe_tensor t;
    build_whole();
    assert_int_equal(open_built(&g), 0);
    assert_int_equal(gguf_get_u32(g, "a.u32", &u, &err), 0);
    assert_int_equal(u, 7);
    assert_int_equal(gguf_get_f32(g, "a.f32", &f, &err), 0);
    assert_true(f == 0.5f);
    assert_int_equal(gguf_get_f32(g, "a.f64", &f, &err), 0);
    assert_true(f == 0.25f);
    assert_int_equal(gguf_get_bool(g, "a.bool", &yes, &err), 0);
    assert_int_equal(yes, 1);
    assert_int_equal(gguf_get_string(g, "general.architecture", &s, &err), 0);
    assert_int_equal(s.count, 5);
    assert_memory_equal(s.bytes, "llama", 5);
    assert_int_equal(gguf_get_array(g, "a.strings", &a, &err), 0);
    assert_int_equal(a.count, 3);
    assert_int_equal(gguf_array_strings(g, &a, strings, &err), 0);
    assert_int_equal(strings[1].count, 0);
    assert_memory_equal(strings[2].bytes, "three", 5);
    assert_int_equal(gguf_get_array(g, "a.ints", &a, &err), 0);
    assert_int_equal(a.type, GGUF_I32);
    assert_int_equal(gguf_array_strings(g, &a, strings, &err), LATHE_EFORMAT);

    assert_int_equal(gguf_tensor_count(g), 2);
    assert_int_equal(gguf_tensor(g, "token_embd.weight", &t, &err), 0);
    assert_int_equal(t.rank, 2);
    assert_int_equal(t.shape[0], 3);
    assert_int_equal(t.shape[1], 32);
    assert_int_equal(t.row_bytes, 34);
    const char *first = t.data;
    assert_int_equal(gguf_tensor_at(g, 1, &name, &t), 0);
    assert_memory_equal(name.bytes, "norm.weight", name.count);
    assert_int_equal((const char *)t.data - first, 128);
    assert_int_equal(gguf_tensor_at(g, 2, &name, &t), LATHE_ERANGE);
    assert_int_equal(gguf_file_bytes(g), b.count);
    gguf_close(g);
}

static void says_what_it_cannot_convert(void **state)
{
    (void)state;
    struct gguf *g;
    uint32_t u;
    float f;
    int yes;
    struct gguf_string s;
    struct gguf_array a;
    struct lathe_tensor t;
    build_whole();
    assert_int_equal(open_built(&g), 0);
    assert_int_equal(gguf_get_u32(g, "none", &u, &err), LATHE_ENOTFOUND);
    assert_non_null(strstr(err.message, "none"));
    assert_int_equal(gguf_tensor(g, "none", &t, &err), LATHE_ENOTFOUND);
    assert_int_equal(gguf_get_u32(g, "a.u64", &u, &err), LATHE_EFORMAT);
    assert_non_null(strstr(err.message, "1099511627776"));
    assert_int_equal(gguf_get_u32(g, "a.i8", &u, &err), LATHE_EFORMAT);
    assert_non_null(strstr(err.message, "-1"));
    assert_int_equal(gguf_get_u32(g, "a.f32", &u, &err), LATHE_EFORMAT);
    assert_int_equal(gguf_get_u32(g, "a.strings", &u, &err), LATHE_EFORMAT);
    assert_int_equal(gguf_get_f32(g, "a.u32", &f, &err), LATHE_EFORMAT);
    assert_int_equal(gguf_get_bool(g, "a.u32", &yes, &err), LATHE_EFORMAT);
    assert_int_equal(gguf_get_string(g, "a.u32", &s, &err), LATHE_EFORMAT);
    assert_int_equal(gguf_get_array(g, "a.u32", &a, &err), LATHE_EFORMAT);
    gguf_close(g);
    gguf_close(NULL);
}

static void refuses_what_is_no_regular_file(void **state)
{
    (void)state;
    char fifo[] = "/tmp/lathe_gguf_test_XXXXXX", deep[5000];
    refused_path("/nowhere/model.gguf", LATHE_ENOTFOUND, "can't be opened");
    refused_path("/", LATHE_EIO, "folder");
    refused_path("/dev/null", LATHE_EIO, "device");
    int fd = mkstemp(fifo);
    assert_true(fd >= 0);
    close(fd);
    unlink(fifo);
    assert_int_equal(mkfifo(fifo, 0600), 0);
    refused_path(fifo, LATHE_EIO, "pipe");
    unlink(fifo);
    memset(deep, 'a', sizeof deep - 1);
    deep[sizeof deep - 1] = 0;
    refused_path(deep, LATHE_EINVAL, "longer");
}

static void refuses_foreign_beginnings(void **state)
{
    (void)state;
    b.count = 0;
    refused(LATHE_EFORMAT, "empty");
    b_raw(&b, "GGU", 3);
    refused(LATHE_EFORMAT, "isn't a GGUF");
    b_begin(&b, 3, 0, 0);
    memcpy(b.bytes, "GGJT", 4);
    refused(LATHE_EFORMAT, "isn't a GGUF");
    b_begin(&b, 0, 0, 0);
    refused(LATHE_EUNSUPPORTED, "version 0");
    b_begin(&b, 1, 0, 0);
    refused(LATHE_EUNSUPPORTED, "version 1, expected 2 or 3: convert");
    b_begin(&b, 99, 0, 0);
    refused(LATHE_EUNSUPPORTED, "version 99");
    b_begin(&b, 3u << 24, 0, 0);
    refused(LATHE_EUNSUPPORTED, "big-endian");
}

static void refuses_counts_without_room(void **state)
{
    (void)state;
    static const uint64_t counts[] = {UINT64_C(1) << 63, UINT64_MAX, UINT64_MAX / 14, 1000, 1};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        b_begin(&b, 3, 0, counts[i]);
        refused(LATHE_EFORMAT, "keys");
        b_begin(&b, 3, counts[i], 0);
        refused(LATHE_EFORMAT, "tensors");
    }
}

static void refuses_bad_keys(void **state)
{
    (void)state;
    static const uint64_t lengths[] = {UINT64_MAX, UINT64_C(1) << 63, UINT64_MAX - 7, 70000, 100};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        b_begin(&b, 3, 0, 1);
        b_u64(&b, lengths[i]);
        b_zeros(&b, 20);
        refused(LATHE_EFORMAT, "length");
    }
    b_begin(&b, 3, 0, 1);
    b_key_u32(&b, "", 1);
    refused(LATHE_EFORMAT, "empty name");
    b_begin(&b, 3, 0, 2);
    b_key_u32(&b, "twice", 1);
    b_key_u32(&b, "twice", 2);
    refused(LATHE_EFORMAT, "key twice: found twice");
    b_begin(&b, 3, 0, 1);
    b_key(&b, "odd", 255);
    b_zeros(&b, 8);
    refused(LATHE_EFORMAT, "255");
    b_begin(&b, 3, 0, 1);
    b_key(&b, "text", B_STRING);
    b_u64(&b, UINT64_MAX);
    refused(LATHE_EFORMAT, "text");
}

static void refuses_bad_arrays(void **state)
{
    (void)state;
    static const uint64_t counts[] = {UINT64_MAX, UINT64_C(1) << 62, (UINT64_C(1) << 61) + 1, 3};
    for (uint32_t type = 0; type <= B_F64; type++)
        for (size_t i = 0; i < sizeof counts / sizeof *counts && type != B_ARRAY; i++) {
            b_begin(&b, 3, 0, 1);
            b_key_array(&b, "list", type, counts[i]);
            b_zeros(&b, 2);
            refused(LATHE_EFORMAT, "list");
        }
    b_begin(&b, 3, 0, 1);
    b_key_array(&b, "list", B_ARRAY, 1);
    b_zeros(&b, 32);
    refused(LATHE_EUNSUPPORTED, "array of arrays");
    b_begin(&b, 3, 0, 1);
    b_key_array(&b, "list", 255, 1);
    b_zeros(&b, 32);
    refused(LATHE_EFORMAT, "255");
    b_begin(&b, 3, 0, 1);
    b_key_array(&b, "list", B_STRING, 2);
    b_text(&b, "a");
    b_u64(&b, UINT64_MAX);
    refused(LATHE_EFORMAT, "list");
}

static void refuses_bad_alignment(void **state)
{
    (void)state;
    static const uint32_t values[] = {0, 1, 3, 4, 33, UINT32_C(1) << 31, UINT32_MAX, 131072};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        b_begin(&b, 3, 0, 1);
        b_key_u32(&b, "general.alignment", values[i]);
        refused(LATHE_EFORMAT, "power of two");
    }
    b_begin(&b, 3, 0, 1);
    b_key_text(&b, "general.alignment", "32");
    refused(LATHE_EFORMAT, "string, expected u32");
}

static void build_tensor(uint32_t rank, const uint64_t *dims, uint32_t type, uint64_t offset)
{
    b_begin(&b, 3, 1, 0);
    b_tensor(&b, "w", rank, dims, type, offset);
    b_pad(&b, 32);
    b_zeros(&b, 256);
}

static void refuses_bad_shapes(void **state)
{
    (void)state;
    const uint64_t big = UINT64_C(1) << 32;
    build_tensor(0, NULL, 0, 0);
    refused(LATHE_EFORMAT, "0 dimensions");
    build_tensor(5, (uint64_t[]){1, 1, 1, 1, 1}, 0, 0);
    refused(LATHE_EFORMAT, "5 dimensions");
    build_tensor(2, (uint64_t[]){4, 0}, 0, 0);
    refused(LATHE_EFORMAT, "dimension 1 of 0");
    build_tensor(2, (uint64_t[]){UINT64_MAX, 4}, 0, 0);
    refused(LATHE_EFORMAT, "dimension 0 of -1");
    build_tensor(4, (uint64_t[]){big, big, big, big}, 0, 0);
    refused(LATHE_EFORMAT, "2^63");
    build_tensor(2, (uint64_t[]){big, big}, 0, 0); /* the product wraps to 0 */
    refused(LATHE_EFORMAT, "2^63");
    build_tensor(2, (uint64_t[]){UINT64_C(1) << 62, 1}, 0, 0); /* four bytes each wrap to 0 */
    refused(LATHE_EFORMAT, "2^64");
    build_tensor(1, (uint64_t[]){33}, 8, 0);
    refused(LATHE_EFORMAT, "whole blocks of 32");
    build_tensor(2, (uint64_t[]){8, 32}, 2, 0);
    refused(LATHE_EFORMAT, "whole blocks of 32");
    build_tensor(1, (uint64_t[]){128}, 14, 0);
    refused(LATHE_EFORMAT, "whole blocks of 256");
}

static void refuses_types_it_does_not_read(void **state)
{
    (void)state;
    build_tensor(1, (uint64_t[]){32}, 4, 0);
    refused(LATHE_EUNSUPPORTED, "removed");
    build_tensor(1, (uint64_t[]){256}, 10, 0);
    refused(LATHE_EUNSUPPORTED, "Q2_K");
    build_tensor(1, (uint64_t[]){32}, 200, 0);
    refused(LATHE_EUNSUPPORTED, "200");
    build_tensor(1, (uint64_t[]){32}, UINT32_MAX, 0);
    refused(LATHE_EUNSUPPORTED, "unknown");
}

static void refuses_bad_offsets(void **state)
{
    (void)state;
    static const uint64_t past[] = {256, 32 * 1024, UINT64_MAX - 31, UINT64_C(1) << 63};
    build_tensor(1, (uint64_t[]){4}, 0, 16);
    refused(LATHE_EFORMAT, "multiple of 32");
    for (size_t i = 0; i < sizeof past / sizeof *past; i++) {
        build_tensor(1, (uint64_t[]){4}, 0, past[i]);
        refused(LATHE_EFORMAT, "cut short");
    }
    build_tensor(1, (uint64_t[]){65}, 0, 0);
    refused(LATHE_EFORMAT, "cut short");

    b_begin(&b, 3, 2, 0);
    b_tensor(&b, "a", 1, (uint64_t[]){16}, 0, 32);
    b_tensor(&b, "b", 1, (uint64_t[]){9}, 0, 0); /* 36 bytes: four within a */
    b_pad(&b, 32);
    b_zeros(&b, 256);
    refused(LATHE_EFORMAT, "within another tensor");

    b_begin(&b, 3, 1, 0);
    b_tensor(&b, "a", 1, (uint64_t[]){1}, 0, 0);
    refused(LATHE_EFORMAT, "cut short"); /* the padding already lies past the end */
}

static void refuses_bad_tensor_names(void **state)
{
    (void)state;
    char name[66];
    memset(name, 'n', 65);
    name[65] = 0;
    b_begin(&b, 3, 1, 0);
    b_tensor(&b, name, 1, (uint64_t[]){4}, 0, 0);
    b_pad(&b, 32);
    b_zeros(&b, 32);
    refused(LATHE_EFORMAT, "65");
    b_begin(&b, 3, 2, 0);
    b_tensor(&b, "same", 1, (uint64_t[]){4}, 0, 0);
    b_tensor(&b, "same", 1, (uint64_t[]){4}, 0, 32);
    b_pad(&b, 32);
    b_zeros(&b, 64);
    refused(LATHE_EFORMAT, "tensor same: found twice");
    b_begin(&b, 3, 1, 0);
    b_tensor(&b, "", 1, (uint64_t[]){4}, 0, 0);
    b_pad(&b, 32);
    b_zeros(&b, 64);
    refused(LATHE_EFORMAT, "empty name");
}

static void names_in_sentences_are_printable(void **state)
{
    (void)state;
    b_begin(&b, 3, 0, 1);
    b_bytes(&b, "\033[2J\n\0x", 7);
    b_u32(&b, 99);
    b_zeros(&b, 8);
    refused(LATHE_EFORMAT, "?[2J??x");
}

static void refuses_a_file_cut_anywhere(void **state)
{
    (void)state;
    struct gguf *g;
    build_whole();
    size_t whole = b.count;
    for (size_t cut = 0; cut < whole; cut++) {
        b.count = cut;
        refused(LATHE_EFORMAT, "/proc/self/fd");
    }
    b.count = whole;
    assert_int_equal(open_built(&g), 0);
    gguf_close(g);
}

static void checked_header_survives_a_later_change(void **state)
{
    (void)state;
    struct gguf *g;
    struct gguf_array a;
    struct gguf_string strings[3];
    struct lathe_tensor t;
    build_whole();
    struct memory_file f = memory_file(b.bytes, b.count);
    assert_int_equal(gguf_open(host, f.path, &g, &err), 0);
    unsigned char *noise = malloc(b.count);
    memset(noise, 0xff, b.count);
    assert_int_equal(pwrite(f.fd, noise, b.count, 0), (ssize_t)b.count);
    assert_int_equal(gguf_get_array(g, "a.strings", &a, &err), 0);
    assert_int_equal(gguf_array_strings(g, &a, strings, &err), 0);
    assert_memory_equal(strings[2].bytes, "three", 5);
    assert_int_equal(gguf_tensor(g, "norm.weight", &t, &err), 0);
    assert_int_equal(t.shape[0], 4);
    gguf_close(g);
    memory_file_close(&f);
    free(noise);
}

static void survives_each_failing_allocation(void **state)
{
    (void)state;
    struct gguf *g;
    build_whole();
    for (size_t nth = 1; nth < 20; nth++) {
        counting.calls = 0;
        counting.fail_at = nth;
        int rc = open_built(&g);
        if (rc == 0) {
            gguf_close(g);
            assert_true(nth > 4);
            return;
        }
        assert_int_equal(rc, LATHE_ENOMEM);
        assert_int_equal(counting.live_blocks, 0);
    }
    fail_msg("never opened");
}

static void many_entries_stay_quick_and_within_bounds(void **state)
{
    (void)state;
    struct gguf *g;
    char name[32];
    uint32_t value;
    const uint32_t keys = 60000, tensors = 60000;
    b_begin(&b, 2, tensors, keys);
    for (uint32_t i = 0; i < keys; i++) {
        snprintf(name, sizeof name, "k%u", i * 7919u % keys);
        b_key_u32(&b, name, i * 7919u % keys);
    }
    for (uint32_t i = 0; i < tensors; i++) {
        snprintf(name, sizeof name, "t%u", i);
        b_tensor(&b, name, 1, (uint64_t[]){1}, 0, (uint64_t)(tensors - 1 - i) * 32);
    }
    b_pad(&b, 32);
    b_zeros(&b, (size_t)tensors * 32);
    assert_int_equal(open_built(&g), 0);
    assert_true(counting.peak_bytes <= b.count + GGUF_FIXED_BYTES);
    assert_int_equal(gguf_get_u32(g, "k31415", &value, &err), 0);
    assert_int_equal(value, 31415);
    gguf_close(g);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(reads_what_is_there),
        T(says_what_it_cannot_convert),
        T(refuses_what_is_no_regular_file),
        T(refuses_foreign_beginnings),
        T(refuses_counts_without_room),
        T(refuses_bad_keys),
        T(refuses_bad_arrays),
        T(refuses_bad_alignment),
        T(refuses_bad_shapes),
        T(refuses_types_it_does_not_read),
        T(refuses_bad_offsets),
        T(refuses_bad_tensor_names),
        T(names_in_sentences_are_printable),
        T(refuses_a_file_cut_anywhere),
        T(checked_header_survives_a_later_change),
        T(survives_each_failing_allocation),
        T(many_entries_stay_quick_and_within_bounds),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    free(b.bytes);
    return failed;
}
