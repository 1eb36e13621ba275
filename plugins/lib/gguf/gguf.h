/* SPDX-License-Identifier: MIT */
/* A reader for GGUF v2 and v3 model files: mapped, indexed, checked before use.
 *
 *     "GGUF" | version u32 | tensor count u64 | key count u64
 *     key count × ( name string | value type u32 | value )
 *     tensor count × ( name string | rank u32 | dims u64 each | type u32 | offset u64 )
 *     padding to `alignment` | tensor data
 *
 * A file is hostile until checked. Every size is checked against what is left of the file
 * before it is used, and sums and products are computed so that they can't wrap. Then the
 * header (all but the tensors' data) is copied once and indexed by sorted names (a hash could
 * be fed collisions), so that a file changed later can't unsay what was checked: at most the
 * file's own size plus GGUF_FIXED_BYTES is ever taken.
 *
 * Tensor data stays in the mapping, as with every mapped executable: a file that is cut while
 * it is in use kills its user with SIGBUS. Replace model files by rename, not in place.
 * Spec: github.com/ggml-org/ggml, docs/gguf.md. Both `tokenizer/bpe` and `model/llama` link this. */
#ifndef LATHE_GGUF_H
#define LATHE_GGUF_H

#include <stddef.h>
#include <stdint.h>

#include <lathe/host.h>
#include <lathe/status.h>
#include <lathe/tensor.h>

struct gguf;

/* More than any model has: sizes the index, and so the bound on memory. */
enum {
    GGUF_MAX_KEYS = 65536,
    GGUF_MAX_TENSORS = 65536,
    GGUF_MAX_HEADER_BYTES = 256 << 20,
    GGUF_FIXED_BYTES = GGUF_MAX_KEYS * 8 + GGUF_MAX_TENSORS * 12 + 16384,
};

enum gguf_type {
    GGUF_U8 = 0, GGUF_I8, GGUF_U16, GGUF_I16, GGUF_U32, GGUF_I32, GGUF_F32, GGUF_BOOL,
    GGUF_STRING, GGUF_ARRAY, GGUF_U64, GGUF_I64, GGUF_F64,
};

/* Bytes in the mapping: not NUL-terminated, any bytes. */
struct gguf_string {
    const char *bytes;
    size_t count;
};

struct gguf_array {
    int32_t type;      /* of its elements; never ARRAY (refused) */
    uint64_t count;
    const void *data;  /* little-endian, unaligned; strings: walk with gguf_array_strings */
};

/* Opens, maps and checks everything but the tensors' bytes. The instance and its strings
 * live until gguf_close. Memory comes from `host`. */
int gguf_open(const struct lathe_host *host, const char *path, struct gguf **gguf, struct lathe_error *err);
void gguf_close(struct gguf *gguf); /* NULL is ignored */

/* Keys. 0, LATHE_ENOTFOUND when it isn't there, LATHE_EFORMAT when it is of another type;
 * integers of any width convert if the value fits. The sentence names file and key. */
int gguf_get_u32(const struct gguf *gguf, const char *key, uint32_t *value, struct lathe_error *err);
int gguf_get_f32(const struct gguf *gguf, const char *key, float *value, struct lathe_error *err);
int gguf_get_bool(const struct gguf *gguf, const char *key, int *value, struct lathe_error *err);
int gguf_get_string(const struct gguf *gguf, const char *key, struct gguf_string *value, struct lathe_error *err);
int gguf_get_array(const struct gguf *gguf, const char *key, struct gguf_array *value, struct lathe_error *err);

/* All strings of an array of strings, into `strings` (room for array->count). */
int gguf_array_strings(const struct gguf *gguf, const struct gguf_array *array, struct gguf_string *strings,
                       struct lathe_error *err);

/* Tensors. `tensor->data` points into the mapping, `row_bytes` is set, shape is outermost
 * first. Absent: LATHE_ENOTFOUND. */
int gguf_tensor(const struct gguf *gguf, const char *name, struct lathe_tensor *tensor, struct lathe_error *err);
uint64_t gguf_tensor_count(const struct gguf *gguf);
int gguf_tensor_at(const struct gguf *gguf, uint64_t index, struct gguf_string *name, struct lathe_tensor *tensor);

/* The tensor's bytes are not needed any more: its pages leave memory (and are read again, if they are). */
void gguf_release(const struct gguf *gguf, const struct lathe_tensor *tensor);

const char *gguf_path(const struct gguf *gguf);
size_t gguf_file_bytes(const struct gguf *gguf);

#endif
