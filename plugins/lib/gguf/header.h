/* SPDX-License-Identifier: MIT */
/* Inside of the GGUF reader: the walk over a header's bytes, and what it finds.
 * The walk reads no further than the bytes it is given, whatever they say, so it may run
 * on a mapping that others write to, and again on the copy that is then kept. */
#ifndef LATHE_GGUF_HEADER_H
#define LATHE_GGUF_HEADER_H

#include "gguf.h"

struct gguf {
    const struct lathe_host *host;
    char *path;
    void *map;
    size_t file_bytes;
    unsigned char *header; /* our copy: (header_bytes) */
    size_t header_bytes;
    uint64_t data_start;   /* of the file: header_bytes, aligned */
    uint64_t alignment;
    uint64_t key_count, tensor_count;
    uint64_t *keys;        /* where each key begins in the header, by name */
    uint64_t *tensors;     /* where each tensor's entry begins, as in the file */
    uint32_t *by_name;     /* indexes into tensors */
};

/* Where we read, and whom we blame. */
struct cursor {
    const unsigned char *bytes;
    size_t size, at;
    const char *path;
    struct lathe_error *err;
};

struct header_key {
    struct gguf_string name;
    int32_t type;          /* enum gguf_type */
    const void *value;     /* unaligned; STRING: its bytes; ARRAY: its first element */
    uint64_t count;        /* STRING: bytes; ARRAY: elements */
    int32_t element;       /* ARRAY: their type */
};

struct header_tensor {
    struct gguf_string name;
    struct lathe_tensor tensor; /* data not set */
    uint64_t offset, bytes;
};

enum { SHOWN_BYTES = 100 };

/* Bytes from a file, made fit for a sentence. */
const char *header_show(struct gguf_string name, char shown[SHOWN_BYTES]);
const char *header_show_path(const char *path);
const char *header_type_name(int32_t type);
size_t header_type_bytes(int32_t type); /* 0 for STRING, ARRAY and unknown */

/* Each reads one entry at the cursor, or fills its err: LATHE_EFORMAT, LATHE_EUNSUPPORTED. */
int header_read_key(struct cursor *cursor, struct header_key *key);
int header_read_tensor(struct cursor *cursor, struct header_tensor *tensor);

/* The whole header: fills counts, alignment, header_bytes of `gguf`, and keys and tensors
 * where they are not NULL (room for the counts that an earlier walk has found). */
int header_walk(struct cursor *cursor, struct gguf *gguf);

#endif
