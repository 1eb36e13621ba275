/* SPDX-License-Identifier: MIT */
/* Vectors of FIPS 180-2, appendix B, and of NIST's SHAVS (empty, a million a's). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "sha256.h"

static void agrees_with_the_standard(void **state)
{
    static const struct {
        const char *text, *hex;
    } vectors[] = {
        { "", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" },
        { "abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" },
        { "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
          "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1" },
        { "abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrst"
          "nopqrstu", "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1" },
    };
    char hex[SHA256_HEX_BYTES];
    (void)state;
    for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++) {
        sha256_bytes(vectors[i].text, strlen(vectors[i].text), hex);
        assert_string_equal(hex, vectors[i].hex);
    }
    struct sha256 sha;
    char thousand[1000];
    memset(thousand, 'a', sizeof thousand);
    sha256_begin(&sha);
    for (int i = 0; i < 1000; i++)
        sha256_add(&sha, thousand, sizeof thousand);
    sha256_end(&sha, hex);
    assert_string_equal(hex, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

static void pieces_of_any_size_give_the_same(void **state)
{
    unsigned char bytes[300];
    char whole[SHA256_HEX_BYTES], pieces[SHA256_HEX_BYTES];
    (void)state;
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (unsigned char)(i * 7 + 3);
    sha256_bytes(bytes, sizeof bytes, whole);
    for (size_t piece = 1; piece <= 130; piece++) {
        struct sha256 sha;
        sha256_begin(&sha);
        for (size_t at = 0; at < sizeof bytes; at += piece)
            sha256_add(&sha, bytes + at, at + piece <= sizeof bytes ? piece : sizeof bytes - at);
        sha256_end(&sha, pieces);
        assert_string_equal(pieces, whole);
    }
}

static void a_file_gives_what_its_bytes_give(void **state)
{
    char path[] = "/tmp/lathe-sha256-XXXXXX", of_file[SHA256_HEX_BYTES], of_bytes[SHA256_HEX_BYTES];
    size_t count = 200000; /* more than one piece */
    unsigned char *bytes = malloc(count);
    struct lathe_error err;
    (void)state;
    for (size_t i = 0; i < count; i++)
        bytes[i] = (unsigned char)(i * i >> 3);
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, count), (ssize_t)count);
    close(fd);
    assert_int_equal(sha256_file(path, of_file, &err), LATHE_OK);
    sha256_bytes(bytes, count, of_bytes);
    assert_string_equal(of_file, of_bytes);
    unlink(path);
    free(bytes);
}

static void absent_files_and_folders_are_a_sentence(void **state)
{
    char hex[SHA256_HEX_BYTES];
    struct lathe_error err;
    (void)state;
    assert_int_equal(sha256_file("/nowhere/file", hex, &err), LATHE_EIO);
    assert_non_null(strstr(err.message, "/nowhere/file"));
    assert_int_equal(sha256_file("/tmp", hex, &err), LATHE_EIO);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(agrees_with_the_standard),
        cmocka_unit_test(pieces_of_any_size_give_the_same),
        cmocka_unit_test(a_file_gives_what_its_bytes_give),
        cmocka_unit_test(absent_files_and_folders_are_a_sentence),
    };
    return cmocka_run_group_tests_name("sha256", tests, NULL, NULL);
}
