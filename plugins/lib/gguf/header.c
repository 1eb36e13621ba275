/* SPDX-License-Identifier: MIT */
/* The walk over a header. One rule: compare a size with what is left before using it, by
 * subtraction, which can't wrap: `count > (size - at) / each`. */
#include "header.h"

#include <string.h>

enum {
    HEADER_FIXED_BYTES = 24,
    KEY_LEAST_BYTES = 8 + 1 + 4 + 1,             /* name, type, a U8 */
    TENSOR_LEAST_BYTES = 8 + 1 + 4 + 8 + 4 + 8,  /* name, rank, one dimension, type, offset */
    KEY_NAME_BYTES = 65535,                      /* as the specification has it */
    TENSOR_NAME_BYTES = 64,
    LARGEST_ALIGNMENT = 65536,
};

const char *header_show(struct gguf_string name, char shown[SHOWN_BYTES])
{
    size_t n = name.count < SHOWN_BYTES - 4 ? name.count : SHOWN_BYTES - 4;
    for (size_t i = 0; i < n; i++)
        shown[i] = name.bytes[i] >= 0x20 && name.bytes[i] < 0x7f ? name.bytes[i] : '?';
    memcpy(shown + n, n < name.count ? "..." : "", n < name.count ? 4 : 1);
    return shown;
}

const char *header_show_path(const char *path)
{
    size_t n = strlen(path);
    return n > 160 ? path + n - 160 : path;
}

const char *header_type_name(int32_t type)
{
    static const char *const names[] = {"u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                        "bool", "string", "array", "u64", "i64", "f64"};
    return type >= 0 && type <= GGUF_F64 ? names[type] : "unknown";
}

size_t header_type_bytes(int32_t type)
{
    switch (type) {
    case GGUF_U8: case GGUF_I8: case GGUF_BOOL: return 1;
    case GGUF_U16: case GGUF_I16: return 2;
    case GGUF_U32: case GGUF_I32: case GGUF_F32: return 4;
    case GGUF_U64: case GGUF_I64: case GGUF_F64: return 8;
    default: return 0;
    }
}

static size_t left(const struct cursor *c)
{
    return c->size - c->at;
}

static int cut(struct cursor *c, const char *what)
{
    return lathe_fail(c->err, LATHE_EFORMAT, "%s: the file ends at byte %zu, within %s: it is cut short or damaged",
                      header_show_path(c->path), c->size, what);
}

static int read_u32(struct cursor *c, uint32_t *value, const char *what)
{
    if (left(c) < sizeof *value)
        return cut(c, what);
    memcpy(value, c->bytes + c->at, sizeof *value);
    c->at += sizeof *value;
    return 0;
}

static int read_u64(struct cursor *c, uint64_t *value, const char *what)
{
    if (left(c) < sizeof *value)
        return cut(c, what);
    memcpy(value, c->bytes + c->at, sizeof *value);
    c->at += sizeof *value;
    return 0;
}

/* `what` is a key or tensor's name, shown; limit is what is allowed at most. */
static int read_string(struct cursor *c, struct gguf_string *string, uint64_t limit, const char *what)
{
    uint64_t count;
    int rc = read_u64(c, &count, what);
    if (rc)
        return rc;
    if (count > left(c) || count > limit)
        return lathe_fail(c->err, LATHE_EFORMAT, "%s: %s at byte %zu: found a length of %llu bytes, expected at most %llu",
                          header_show_path(c->path), what, c->at - 8, (unsigned long long)count,
                          (unsigned long long)(limit < left(c) ? limit : left(c)));
    string->bytes = (const char *)c->bytes + c->at;
    string->count = (size_t)count;
    c->at += (size_t)count;
    return 0;
}

static int read_name(struct cursor *c, struct gguf_string *name, uint64_t limit, const char *what)
{
    size_t at = c->at;
    int rc = read_string(c, name, limit, what);
    if (!rc && name->count == 0)
        return lathe_fail(c->err, LATHE_EFORMAT, "%s: %s at byte %zu: found an empty name, expected at least one byte",
                          header_show_path(c->path), what, at);
    return rc;
}

static int read_array(struct cursor *c, struct header_key *key, const char *shown)
{
    uint32_t type;
    uint64_t count;
    int rc = read_u32(c, &type, shown);
    if (!rc)
        rc = read_u64(c, &count, shown);
    if (rc)
        return rc;
    if (type == GGUF_ARRAY)
        return lathe_fail(c->err, LATHE_EUNSUPPORTED, "%s: key %s: found an array of arrays, expected one of plain values",
                          header_show_path(c->path), shown);
    if (type > GGUF_F64)
        return lathe_fail(c->err, LATHE_EFORMAT, "%s: key %s: found elements of type %u, expected 0 to 12",
                          header_show_path(c->path), shown, type);
    size_t each = type == GGUF_STRING ? 8 : header_type_bytes((int32_t)type);
    if (count > left(c) / each)
        return lathe_fail(c->err, LATHE_EFORMAT,
                          "%s: key %s: found an array of %llu elements, expected at most the %zu that the file has room for",
                          header_show_path(c->path), shown, (unsigned long long)count, left(c) / each);
    key->element = (int32_t)type;
    key->count = count;
    key->value = c->bytes + c->at;
    if (type != GGUF_STRING) {
        c->at += (size_t)count * each;
        return 0;
    }
    for (uint64_t i = 0; i < count && !rc; i++) {
        struct gguf_string ignored;
        rc = read_string(c, &ignored, UINT64_MAX, shown);
    }
    return rc;
}

int header_read_key(struct cursor *c, struct header_key *key)
{
    char shown[SHOWN_BYTES];
    uint32_t type;
    memset(key, 0, sizeof *key);
    int rc = read_name(c, &key->name, KEY_NAME_BYTES, "the name of a key");
    if (rc)
        return rc;
    header_show(key->name, shown);
    rc = read_u32(c, &type, shown);
    if (rc)
        return rc;
    if (type > GGUF_F64)
        return lathe_fail(c->err, LATHE_EFORMAT, "%s: key %s: found value type %u, expected 0 to 12",
                          header_show_path(c->path), shown, type);
    key->type = (int32_t)type;
    if (type == GGUF_ARRAY)
        return read_array(c, key, shown);
    if (type == GGUF_STRING) {
        struct gguf_string s;
        rc = read_string(c, &s, UINT64_MAX, shown);
        if (!rc) {
            key->value = s.bytes;
            key->count = s.count;
        }
        return rc;
    }
    if (left(c) < header_type_bytes(key->type))
        return cut(c, shown);
    key->value = c->bytes + c->at;
    c->at += header_type_bytes(key->type);
    return 0;
}

/* Types that ggml has or had and that we don't read: a name helps more than a number. */
static const char *foreign_type(uint32_t type)
{
    static const char *const names[] = {
        [4] = "Q4_2, which was removed from the format", [5] = "Q4_3, which was removed from the format",
        [9] = "Q8_1", [10] = "Q2_K", [11] = "Q3_K", [15] = "Q8_K", [16] = "IQ2_XXS", [17] = "IQ2_XS",
        [18] = "IQ3_XXS", [19] = "IQ1_S", [20] = "IQ4_NL", [21] = "IQ3_S", [22] = "IQ2_S", [23] = "IQ4_XS",
        [24] = "I8", [25] = "I16", [27] = "I64", [28] = "F64", [29] = "IQ1_M",
        [31] = "Q4_0_4_4, which was removed from the format", [32] = "Q4_0_4_8, which was removed from the format",
        [33] = "Q4_0_8_8, which was removed from the format", [34] = "TQ1_0", [35] = "TQ2_0", [39] = "MXFP4",
    };
    return type < sizeof names / sizeof *names && names[type] ? names[type] : "unknown to the format";
}

static int read_shape(struct cursor *c, struct header_tensor *t, const char *shown, uint32_t rank)
{
    uint64_t ne[LATHE_TENSOR_MAX_RANK], elements = 1;
    for (uint32_t i = 0; i < rank; i++) {
        int rc = read_u64(c, &ne[i], shown);
        if (rc)
            return rc;
        if (ne[i] == 0 || ne[i] > INT64_MAX)
            return lathe_fail(c->err, LATHE_EFORMAT, "%s: tensor %s: found dimension %u of %lld, expected 1 or more",
                              header_show_path(c->path), shown, i, (long long)ne[i]);
        if (__builtin_mul_overflow(elements, ne[i], &elements) || elements > INT64_MAX)
            return lathe_fail(c->err, LATHE_EFORMAT, "%s: tensor %s: found more than 2^63 elements, expected what fits a file",
                              header_show_path(c->path), shown);
        t->tensor.shape[rank - 1 - i] = ne[i];
    }
    t->tensor.rank = rank;
    return 0;
}

int header_read_tensor(struct cursor *c, struct header_tensor *t)
{
    char shown[SHOWN_BYTES];
    uint32_t rank, type;
    memset(t, 0, sizeof *t);
    int rc = read_name(c, &t->name, TENSOR_NAME_BYTES, "the name of a tensor");
    if (rc)
        return rc;
    header_show(t->name, shown);
    rc = read_u32(c, &rank, shown);
    if (rc)
        return rc;
    if (rank < 1 || rank > LATHE_TENSOR_MAX_RANK)
        return lathe_fail(c->err, LATHE_EFORMAT, "%s: tensor %s: found %u dimensions, expected 1 to %d",
                          header_show_path(c->path), shown, rank, LATHE_TENSOR_MAX_RANK);
    rc = read_shape(c, t, shown, rank);
    if (!rc)
        rc = read_u32(c, &type, shown);
    if (!rc)
        rc = read_u64(c, &t->offset, shown);
    if (rc)
        return rc;

    uint32_t block = type <= INT32_MAX ? lathe_dtype_block((int32_t)type) : 0;
    if (!block)
        return lathe_fail(c->err, LATHE_EUNSUPPORTED,
                          "%s: tensor %s: found type %u (%s), expected F32, F16, BF16, I32, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, "
                          "Q4_K, Q5_K or Q6_K",
                          header_show_path(c->path), shown, type, foreign_type(type));
    uint64_t row = t->tensor.shape[rank - 1], rows = 1;
    if (row % block)
        return lathe_fail(c->err, LATHE_EFORMAT, "%s: tensor %s: found rows of %llu elements, expected whole blocks of %u (%s)",
                          header_show_path(c->path), shown, (unsigned long long)row, block, lathe_dtype_name((int32_t)type));
    for (uint32_t i = 0; i + 1 < rank; i++)
        rows *= t->tensor.shape[i]; /* within the product that was checked */
    t->tensor.dtype = (int32_t)type;
    if (__builtin_mul_overflow(row / block, (uint64_t)lathe_dtype_block_bytes((int32_t)type), &t->tensor.row_bytes) ||
        __builtin_mul_overflow(t->tensor.row_bytes, rows, &t->bytes))
        return lathe_fail(c->err, LATHE_EFORMAT, "%s: tensor %s: found more than 2^64 bytes of data, expected what fits a file",
                          header_show_path(c->path), shown);
    return 0;
}

static int check_alignment(struct cursor *c, const struct header_key *key, struct gguf *gguf)
{
    uint32_t value;
    if (key->type != GGUF_U32)
        return lathe_fail(c->err, LATHE_EFORMAT, "%s: key general.alignment: found type %s, expected u32",
                          header_show_path(c->path), header_type_name(key->type));
    memcpy(&value, key->value, sizeof value);
    if (value < 8 || value > LARGEST_ALIGNMENT || (value & (value - 1)))
        return lathe_fail(c->err, LATHE_EFORMAT, "%s: key general.alignment: found %u, expected a power of two from 8 to %d",
                          header_show_path(c->path), value, LARGEST_ALIGNMENT);
    gguf->alignment = value;
    return 0;
}

static int check_version(struct cursor *c)
{
    const char *path = header_show_path(c->path);
    uint32_t version;
    if (c->size < 4 || memcmp(c->bytes, "GGUF", 4) != 0)
        return lathe_fail(c->err, LATHE_EFORMAT, "%s: the file doesn't open with \"GGUF\": it isn't a GGUF model file", path);
    if (c->size < HEADER_FIXED_BYTES)
        return lathe_fail(c->err, LATHE_EFORMAT, "%s: found %zu bytes, expected a GGUF header of at least %d: it is cut short",
                          path, c->size, HEADER_FIXED_BYTES);
    c->at = 4;
    read_u32(c, &version, "the version");
    if (version == 2 || version == 3)
        return 0;
    if (version == 1)
        return lathe_fail(c->err, LATHE_EUNSUPPORTED,
                          "%s: found GGUF version 1, expected 2 or 3: convert the model again with a current tool", path);
    if (__builtin_bswap32(version) <= 3 && version)
        return lathe_fail(c->err, LATHE_EUNSUPPORTED,
                          "%s: found a big-endian file, expected a little-endian one: fetch or convert that", path);
    return lathe_fail(c->err, LATHE_EUNSUPPORTED, "%s: found GGUF version %u, expected 2 or 3", path, version);
}

static int check_count(struct cursor *c, uint64_t count, uint64_t limit, size_t least, const char *what)
{
    if (count > left(c) / least || count > limit)
        return lathe_fail(c->err, LATHE_EFORMAT, "%s: found %llu %s, expected at most %llu, which is what there is room for",
                          header_show_path(c->path), (unsigned long long)count, what,
                          (unsigned long long)(limit < left(c) / least ? limit : left(c) / least));
    return 0;
}

int header_walk(struct cursor *c, struct gguf *gguf)
{
    uint64_t tensors, keys;
    int rc = check_version(c);
    if (!rc)
        rc = read_u64(c, &tensors, "the tensor count");
    if (!rc)
        rc = read_u64(c, &keys, "the key count");
    if (!rc)
        rc = check_count(c, keys, GGUF_MAX_KEYS, KEY_LEAST_BYTES, "keys");
    if (!rc)
        rc = check_count(c, tensors, GGUF_MAX_TENSORS, TENSOR_LEAST_BYTES, "tensors");
    /* A second walk fills the arrays of the first: a file that grew between them is refused. */
    if (!rc && gguf->keys && (keys != gguf->key_count || tensors != gguf->tensor_count))
        rc = lathe_fail(c->err, LATHE_EIO, "%s: the file changed while it was read: try again", header_show_path(c->path));
    if (rc)
        return rc;

    gguf->alignment = 32;
    for (uint64_t i = 0; i < keys; i++) {
        struct header_key key;
        size_t at = c->at;
        rc = header_read_key(c, &key);
        if (!rc && key.name.count == 17 && memcmp(key.name.bytes, "general.alignment", 17) == 0)
            rc = check_alignment(c, &key, gguf);
        if (rc)
            return rc;
        if (gguf->keys)
            gguf->keys[i] = at;
    }
    for (uint64_t i = 0; i < tensors; i++) {
        struct header_tensor tensor;
        size_t at = c->at;
        rc = header_read_tensor(c, &tensor);
        if (rc)
            return rc;
        if (gguf->tensors)
            gguf->tensors[i] = at;
    }
    gguf->key_count = keys;
    gguf->tensor_count = tensors;
    gguf->header_bytes = c->at;
    return 0;
}
