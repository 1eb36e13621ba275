/* SPDX-License-Identifier: MIT */
/* SHA-256 by the book (FIPS 180-4, section 6.2): 64-byte blocks, 64 rounds, big-endian words. */
#include "sha256.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

static const uint32_t round_constants[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static uint32_t rotate_right(uint32_t x, int n)
{
    return x >> n | x << (32 - n);
}

static void compress(uint32_t state[8], const uint8_t *block)
{
    uint32_t w[64];
    for (int i = 0; i < 16; i++)
        w[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16 | (uint32_t)block[4 * i + 2] << 8 |
               block[4 * i + 3];
    for (int i = 16; i < 64; i++) {
        uint32_t s0 = rotate_right(w[i - 15], 7) ^ rotate_right(w[i - 15], 18) ^ w[i - 15] >> 3;
        uint32_t s1 = rotate_right(w[i - 2], 17) ^ rotate_right(w[i - 2], 19) ^ w[i - 2] >> 10;
        w[i] = w[i - 16] + s0 + w[i - 7] + s1;
    }
    uint32_t a = state[0], b = state[1], c = state[2], d = state[3];
    uint32_t e = state[4], f = state[5], g = state[6], h = state[7];
    for (int i = 0; i < 64; i++) {
        uint32_t sum1 = rotate_right(e, 6) ^ rotate_right(e, 11) ^ rotate_right(e, 25);
        uint32_t t1 = h + sum1 + ((e & f) ^ (~e & g)) + round_constants[i] + w[i];
        uint32_t sum0 = rotate_right(a, 2) ^ rotate_right(a, 13) ^ rotate_right(a, 22);
        uint32_t t2 = sum0 + ((a & b) ^ (a & c) ^ (b & c));
        h = g;
        g = f;
        f = e;
        e = d + t1;
        d = c;
        c = b;
        b = a;
        a = t1 + t2;
    }
    state[0] += a;
    state[1] += b;
    state[2] += c;
    state[3] += d;
    state[4] += e;
    state[5] += f;
    state[6] += g;
    state[7] += h;
}

void sha256_begin(struct sha256 *sha)
{
    static const uint32_t start[8] = { 0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                       0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19 };
    memcpy(sha->state, start, sizeof start);
    sha->bytes = 0;
}

void sha256_add(struct sha256 *sha, const void *bytes, size_t count)
{
    const uint8_t *from = bytes;
    size_t held = sha->bytes % 64;
    sha->bytes += count;
    if (held > 0) {
        size_t take = count < 64 - held ? count : 64 - held;
        if (take > 0)
            memcpy(sha->block + held, from, take);
        from += take;
        count -= take;
        if (held + take < 64)
            return;
        compress(sha->state, sha->block);
    }
    for (; count >= 64; from += 64, count -= 64)
        compress(sha->state, from);
    if (count > 0)
        memcpy(sha->block, from, count);
}

void sha256_end(struct sha256 *sha, char hex[SHA256_HEX_BYTES])
{
    uint64_t bits = sha->bytes * 8;
    uint8_t length[8], one = 0x80, zero = 0;
    for (int i = 0; i < 8; i++)
        length[i] = (uint8_t)(bits >> (56 - 8 * i));
    sha256_add(sha, &one, 1);
    while (sha->bytes % 64 != 56)
        sha256_add(sha, &zero, 1);
    sha256_add(sha, length, 8);
    for (int i = 0; i < 8; i++)
        snprintf(hex + 8 * i, 9, "%08x", sha->state[i]);
}

void sha256_bytes(const void *bytes, size_t count, char hex[SHA256_HEX_BYTES])
{
    struct sha256 sha;
    sha256_begin(&sha);
    sha256_add(&sha, bytes, count);
    sha256_end(&sha, hex);
}

int sha256_descriptor(int fd, const char *path, char hex[SHA256_HEX_BYTES], struct lathe_error *err)
{
    uint8_t piece[64 * 1024];
    struct sha256 sha;
    off_t at = 0;
    sha256_begin(&sha);
    for (;;) {
        ssize_t got = pread(fd, piece, sizeof piece, at);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return lathe_fail(err, LATHE_EIO, "%s: cannot be read: %s", path, strerror(errno));
        if (got == 0)
            break;
        sha256_add(&sha, piece, (size_t)got);
        at += got;
    }
    sha256_end(&sha, hex);
    return LATHE_OK;
}

int sha256_file(const char *path, char hex[SHA256_HEX_BYTES], struct lathe_error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return lathe_fail(err, LATHE_EIO, "%s: cannot be opened: %s", path, strerror(errno));
    int rc = sha256_descriptor(fd, path, hex, err);
    close(fd);
    return rc;
}
