/* SPDX-License-Identifier: MIT */
/* SHA-256 (FIPS 180-4): which bytes a run used. Plugins, models, prompts and scripts are
 * recorded with it. Not for secrets. */
#ifndef CORE_SHA256_H
#define CORE_SHA256_H

#include <stddef.h>
#include <stdint.h>

#include <lathe/status.h>

enum { SHA256_HEX_BYTES = 65 }; /* 64 hexadecimal digits and the NUL */

struct sha256 {
    uint32_t state[8];
    uint64_t bytes;
    uint8_t block[64];
};

void sha256_begin(struct sha256 *sha);
void sha256_add(struct sha256 *sha, const void *bytes, size_t count);
void sha256_end(struct sha256 *sha, char hex[SHA256_HEX_BYTES]);

void sha256_bytes(const void *bytes, size_t count, char hex[SHA256_HEX_BYTES]); /* [any] */
/* A whole file, read in pieces. LATHE_EIO names file and reason. [any, not & running] */
int sha256_file(const char *path, char hex[SHA256_HEX_BYTES], struct lathe_error *err);
/* The same of an open file, from its start; `path` is for the sentence. */
int sha256_descriptor(int fd, const char *path, char hex[SHA256_HEX_BYTES], struct lathe_error *err);

#endif
