/* SPDX-License-Identifier: MIT */
/* Builds GGUF bytes for tests, right or wrong on purpose, and puts them where a path can
 * name them: a file in memory, /proc/self/fd/N. */
#ifndef TESTS_GGUF_BUILD_H
#define TESTS_GGUF_BUILD_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { B_U8, B_I8, B_U16, B_I16, B_U32, B_I32, B_F32, B_BOOL, B_STRING, B_ARRAY, B_U64, B_I64, B_F64 };

struct build {
    unsigned char *bytes;
    size_t count, room;
};

static inline void b_raw(struct build *b, const void *bytes, size_t count)
{
    if (b->count + count > b->room) {
        b->room = 2 * (b->count + count) + 256;
        b->bytes = realloc(b->bytes, b->room);
        if (!b->bytes)
            abort();
    }
    if (count)
        memcpy(b->bytes + b->count, bytes, count);
    b->count += count;
}

static inline void b_u32(struct build *b, uint32_t v) { b_raw(b, &v, sizeof v); }
static inline void b_u64(struct build *b, uint64_t v) { b_raw(b, &v, sizeof v); }
static inline void b_f32(struct build *b, float v) { b_raw(b, &v, sizeof v); }

static inline void b_bytes(struct build *b, const char *s, size_t count)
{
    b_u64(b, count);
    b_raw(b, s, count);
}

static inline void b_text(struct build *b, const char *s) { b_bytes(b, s, strlen(s)); }

static inline void b_begin(struct build *b, uint32_t version, uint64_t tensors, uint64_t keys)
{
    b->count = 0;
    b_raw(b, "GGUF", 4);
    b_u32(b, version);
    b_u64(b, tensors);
    b_u64(b, keys);
}

static inline void b_key(struct build *b, const char *name, uint32_t type)
{
    b_text(b, name);
    b_u32(b, type);
}

static inline void b_key_u32(struct build *b, const char *name, uint32_t v)
{
    b_key(b, name, B_U32);
    b_u32(b, v);
}

static inline void b_key_f32(struct build *b, const char *name, float v)
{
    b_key(b, name, B_F32);
    b_f32(b, v);
}

static inline void b_key_bool(struct build *b, const char *name, int v)
{
    unsigned char byte = (unsigned char)v;
    b_key(b, name, B_BOOL);
    b_raw(b, &byte, 1);
}

static inline void b_key_text(struct build *b, const char *name, const char *v)
{
    b_key(b, name, B_STRING);
    b_text(b, v);
}

static inline void b_key_array(struct build *b, const char *name, uint32_t element, uint64_t count)
{
    b_key(b, name, B_ARRAY);
    b_u32(b, element);
    b_u64(b, count);
}

/* dims innermost first, as the file has them */
static inline void b_tensor(struct build *b, const char *name, uint32_t rank, const uint64_t *dims, uint32_t type,
                            uint64_t offset)
{
    b_text(b, name);
    b_u32(b, rank);
    for (uint32_t i = 0; i < rank; i++)
        b_u64(b, dims[i]);
    b_u32(b, type);
    b_u64(b, offset);
}

static inline void b_pad(struct build *b, size_t alignment)
{
    while (b->count % alignment)
        b_raw(b, "", 1);
}

static inline void b_zeros(struct build *b, size_t count)
{
    for (size_t i = 0; i < count; i++)
        b_raw(b, "", 1);
}

struct memory_file {
    int fd;
    char path[40];
};

static inline struct memory_file memory_file(const void *bytes, size_t count)
{
    struct memory_file f;
    f.fd = memfd_create("test.gguf", MFD_CLOEXEC);
    if (f.fd < 0 || ftruncate(f.fd, 0) < 0)
        abort();
    for (size_t done = 0; done < count;) {
        ssize_t n = write(f.fd, (const char *)bytes + done, count - done);
        if (n <= 0)
            abort();
        done += (size_t)n;
    }
    snprintf(f.path, sizeof f.path, "/proc/self/fd/%d", f.fd);
    return f;
}

static inline void memory_file_close(struct memory_file *f) { close(f->fd); }

#endif
