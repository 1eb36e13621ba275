/* SPDX-License-Identifier: MIT */
/* Opening: walk the mapping, copy the header, walk the copy, sort, check what only sorted
 * entries show (a name twice, data that overlaps). Everything after reads the copy. */
#include "gguf.h"
#include "header.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static struct cursor at(const struct gguf *g, uint64_t where, struct lathe_error *err)
{
    return (struct cursor){g->header, g->header_bytes, (size_t)where, g->path, err};
}

/* Entries were checked when the file was opened, and the copy is ours: these can't fail. */
static void key_at(const struct gguf *g, uint64_t where, struct header_key *key)
{
    struct cursor c = at(g, where, NULL);
    header_read_key(&c, key);
}

static void tensor_entry(const struct gguf *g, uint64_t index, struct header_tensor *tensor)
{
    struct cursor c = at(g, g->tensors[index], NULL);
    header_read_tensor(&c, tensor);
}

static struct gguf_string name_at(const struct gguf *g, uint64_t where)
{
    uint64_t count;
    memcpy(&count, g->header + where, sizeof count);
    return (struct gguf_string){(const char *)g->header + where + 8, (size_t)count};
}

static int compare_names(struct gguf_string a, struct gguf_string b)
{
    int order = memcmp(a.bytes, b.bytes, a.count < b.count ? a.count : b.count);
    return order ? order : (a.count > b.count) - (a.count < b.count);
}

/* ---- sorting: a heap sort, since it takes no memory and no file can slow it down ---- */

typedef int order_fn(const struct gguf *g, uint64_t a, uint64_t b);

static int keys_by_name(const struct gguf *g, uint64_t a, uint64_t b)
{
    return compare_names(name_at(g, g->keys[a]), name_at(g, g->keys[b]));
}

static int tensors_by_name(const struct gguf *g, uint64_t a, uint64_t b)
{
    return compare_names(name_at(g, g->tensors[g->by_name[a]]), name_at(g, g->tensors[g->by_name[b]]));
}

static int tensors_by_offset(const struct gguf *g, uint64_t a, uint64_t b)
{
    struct header_tensor left, right;
    tensor_entry(g, g->by_name[a], &left);
    tensor_entry(g, g->by_name[b], &right);
    return (left.offset > right.offset) - (left.offset < right.offset);
}

static void swap(struct gguf *g, int keys, uint64_t a, uint64_t b)
{
    if (keys) {
        uint64_t held = g->keys[a];
        g->keys[a] = g->keys[b];
        g->keys[b] = held;
    } else {
        uint32_t held = g->by_name[a];
        g->by_name[a] = g->by_name[b];
        g->by_name[b] = held;
    }
}

static void sift(struct gguf *g, int keys, order_fn *order, uint64_t root, uint64_t count)
{
    for (uint64_t child; (child = 2 * root + 1) < count; root = child) {
        if (child + 1 < count && order(g, child, child + 1) < 0)
            child++;
        if (order(g, root, child) >= 0)
            return;
        swap(g, keys, root, child);
    }
}

static void sort(struct gguf *g, int keys, order_fn *order, uint64_t count)
{
    for (uint64_t i = count / 2; i-- > 0;)
        sift(g, keys, order, i, count);
    for (uint64_t n = count; n > 1; n--) {
        swap(g, keys, 0, n - 1);
        sift(g, keys, order, 0, n - 1);
    }
}

/* ---- opening ---- */

static int check_data(struct gguf *g, struct lathe_error *err)
{
    const char *path = header_show_path(g->path);
    char shown[SHOWN_BYTES];
    struct header_tensor t;
    /* header_bytes ≤ 256 MiB, so this can't wrap. */
    g->data_start = (g->header_bytes + g->alignment - 1) & ~(g->alignment - 1);
    uint64_t room = g->data_start < g->file_bytes ? g->file_bytes - g->data_start : 0;
    for (uint64_t i = 0; i < g->tensor_count; i++) {
        g->by_name[i] = (uint32_t)i;
        tensor_entry(g, i, &t);
        if (t.offset % g->alignment)
            return lathe_fail(err, LATHE_EFORMAT, "%s: tensor %s: found offset %llu, expected a multiple of %llu", path,
                              header_show(t.name, shown), (unsigned long long)t.offset, (unsigned long long)g->alignment);
        if (t.offset > room || t.bytes > room - t.offset)
            return lathe_fail(err, LATHE_EFORMAT,
                              "%s: tensor %s: found %llu bytes at offset %llu, expected them within the file's %llu bytes of "
                              "data: it is cut short or damaged",
                              path, header_show(t.name, shown), (unsigned long long)t.bytes, (unsigned long long)t.offset,
                              (unsigned long long)room);
    }
    sort(g, 0, tensors_by_offset, g->tensor_count);
    uint64_t end = 0;
    for (uint64_t i = 0; i < g->tensor_count; i++) {
        tensor_entry(g, g->by_name[i], &t);
        if (t.offset < end)
            return lathe_fail(err, LATHE_EFORMAT,
                              "%s: tensor %s: found offset %llu within another tensor's data, expected %llu or more", path,
                              header_show(t.name, shown), (unsigned long long)t.offset, (unsigned long long)end);
        end = t.offset + t.bytes;
    }
    return 0;
}

static int check_names(struct gguf *g, struct lathe_error *err)
{
    char shown[SHOWN_BYTES];
    sort(g, 1, keys_by_name, g->key_count);
    for (uint64_t i = 1; i < g->key_count; i++)
        if (keys_by_name(g, i - 1, i) == 0)
            return lathe_fail(err, LATHE_EFORMAT, "%s: key %s: found twice, expected once", header_show_path(g->path),
                              header_show(name_at(g, g->keys[i]), shown));
    sort(g, 0, tensors_by_name, g->tensor_count);
    for (uint64_t i = 1; i < g->tensor_count; i++)
        if (tensors_by_name(g, i - 1, i) == 0)
            return lathe_fail(err, LATHE_EFORMAT, "%s: tensor %s: found twice, expected once", header_show_path(g->path),
                              header_show(name_at(g, g->tensors[g->by_name[i]]), shown));
    return 0;
}

static int copy_header(struct gguf *g, int fd, struct lathe_error *err)
{
    const struct lathe_host *host = g->host;
    g->header = lathe_alloc(host, g->header_bytes);
    /* Counts of 0 still get an array, so that it can say "filled on the next walk". */
    uint64_t *keys = lathe_alloc_array(host, g->key_count + 1, sizeof *keys);
    uint64_t *tensors = lathe_alloc_array(host, g->tensor_count + 1, sizeof *tensors);
    g->by_name = lathe_alloc_array(host, g->tensor_count + 1, sizeof *g->by_name);
    g->keys = keys;
    g->tensors = tensors;
    if (!g->header || !keys || !tensors || !g->by_name)
        return lathe_fail(err, LATHE_ENOMEM, "%s: no memory for a header of %zu bytes", header_show_path(g->path),
                          g->header_bytes);
    size_t done = 0;
    while (done < g->header_bytes) {
        ssize_t got = pread(fd, g->header + done, g->header_bytes - done, (off_t)done);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return lathe_fail(err, LATHE_EIO, "%s: reading stopped at byte %zu of %zu: %s", header_show_path(g->path), done,
                              g->header_bytes, got ? strerror(errno) : "the file shrank while it was read");
        done += (size_t)got;
    }
    struct cursor c = {g->header, g->header_bytes, 0, g->path, err};
    return header_walk(&c, g);
}

static int open_regular(struct gguf *g, int *fd, struct lathe_error *err)
{
    const char *path = header_show_path(g->path);
    struct stat st;
    /* O_NONBLOCK: opening a FIFO must not wait for its writer. */
    *fd = open(g->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (*fd < 0)
        return lathe_fail(err, errno == ENOENT ? LATHE_ENOTFOUND : LATHE_EIO, "%s: the model file can't be opened: %s", path,
                          strerror(errno));
    if (fstat(*fd, &st) < 0)
        return lathe_fail(err, LATHE_EIO, "%s: the model file can't be read: %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode))
        return lathe_fail(err, LATHE_EIO, "%s: found a %s, expected a file", path,
                          S_ISDIR(st.st_mode) ? "folder" : S_ISFIFO(st.st_mode) ? "pipe" : "device or socket");
    if (st.st_size == 0)
        return lathe_fail(err, LATHE_EFORMAT, "%s: found an empty file, expected a GGUF model", path);
    g->file_bytes = (size_t)st.st_size;
    g->map = mmap(NULL, g->file_bytes, PROT_READ, MAP_PRIVATE, *fd, 0);
    if (g->map == MAP_FAILED) {
        g->map = NULL;
        return lathe_fail(err, LATHE_EIO, "%s: %zu bytes can't be mapped: %s", path, g->file_bytes, strerror(errno));
    }
    return 0;
}

static int open_at(struct gguf *g, int *fd, struct lathe_error *err)
{
    int rc = open_regular(g, fd, err);
    if (rc)
        return rc;
    size_t walked = g->file_bytes < GGUF_MAX_HEADER_BYTES ? g->file_bytes : GGUF_MAX_HEADER_BYTES;
    struct cursor c = {g->map, walked, 0, g->path, err};
    rc = header_walk(&c, g);
    if (!rc)
        rc = copy_header(g, *fd, err);
    if (!rc)
        rc = check_data(g, err);
    return rc ? rc : check_names(g, err);
}

int gguf_open(const struct lathe_host *host, const char *path, struct gguf **gguf, struct lathe_error *err)
{
    size_t bytes = strlen(path) + 1;
    int fd = -1;
    if (bytes > PATH_MAX)
        return lathe_fail(err, LATHE_EINVAL, "a path of %zu bytes is longer than the system's %d", bytes - 1, PATH_MAX - 1);
    struct gguf *g = lathe_alloc(host, sizeof *g);
    if (!g)
        return lathe_fail(err, LATHE_ENOMEM, "%s: no memory to open it", header_show_path(path));
    g->host = host;
    g->path = lathe_alloc(host, bytes);
    if (!g->path) {
        gguf_close(g);
        return lathe_fail(err, LATHE_ENOMEM, "%s: no memory to open it", header_show_path(path));
    }
    memcpy(g->path, path, bytes);
    int rc = open_at(g, &fd, err);
    if (fd >= 0)
        close(fd);
    if (rc)
        gguf_close(g);
    else
        *gguf = g;
    return rc;
}

void gguf_close(struct gguf *g)
{
    if (!g)
        return;
    if (g->map)
        munmap(g->map, g->file_bytes);
    lathe_free(g->host, g->keys);
    lathe_free(g->host, g->tensors);
    lathe_free(g->host, g->by_name);
    lathe_free(g->host, g->header);
    lathe_free(g->host, g->path);
    lathe_free(g->host, g);
}

void gguf_release(const struct gguf *g, const struct lathe_tensor *t)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), from = (uintptr_t)t->data, bytes = t->row_bytes;
    for (uint32_t i = 0; i + 1 < t->rank; i++)
        bytes *= t->shape[i];
    from = (from + page - 1) / page * page; /* whole pages inside of it: the rest are its neighbours' too */
    uintptr_t end = ((uintptr_t)t->data + bytes) / page * page;
    if (g->map && from < end)
        madvise((void *)from, end - from, MADV_DONTNEED); /* a hint: a refusal costs memory only */
}

/* ---- asking ---- */

static int find_key(const struct gguf *g, const char *name, struct header_key *key, struct lathe_error *err)
{
    struct gguf_string wanted = {name, strlen(name)};
    uint64_t low = 0, high = g->key_count;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        int order = compare_names(wanted, name_at(g, g->keys[middle]));
        if (order == 0) {
            key_at(g, g->keys[middle], key);
            return 0;
        }
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return lathe_fail(err, LATHE_ENOTFOUND, "%s: key %s: not found, expected it in a model file", header_show_path(g->path),
                      name);
}

static int wrong_type(const struct gguf *g, const char *name, const struct header_key *key, const char *expected,
                      struct lathe_error *err)
{
    return lathe_fail(err, LATHE_EFORMAT, "%s: key %s: found type %s, expected %s", header_show_path(g->path), name,
                      header_type_name(key->type), expected);
}

int gguf_get_u32(const struct gguf *g, const char *name, uint32_t *value, struct lathe_error *err)
{
    struct header_key key;
    int rc = find_key(g, name, &key, err);
    if (rc)
        return rc;
    uint64_t wide = 0;
    int64_t negative = 0;
    memcpy(&wide, key.value, header_type_bytes(key.type)); /* 0 bytes for strings and arrays */
    switch (key.type) {
    case GGUF_U8: case GGUF_U16: case GGUF_U32: case GGUF_U64: break;
    case GGUF_I8: negative = (int8_t)wide; break;
    case GGUF_I16: negative = (int16_t)wide; break;
    case GGUF_I32: negative = (int32_t)wide; break;
    case GGUF_I64: negative = (int64_t)wide; break;
    default: return wrong_type(g, name, &key, "an integer", err);
    }
    if (negative < 0)
        return lathe_fail(err, LATHE_EFORMAT, "%s: key %s: found %lld, expected 0 or more", header_show_path(g->path), name,
                          (long long)negative);
    if (wide > UINT32_MAX)
        return lathe_fail(err, LATHE_EFORMAT, "%s: key %s: found %llu, expected less than 2^32", header_show_path(g->path),
                          name, (unsigned long long)wide);
    *value = (uint32_t)wide;
    return 0;
}

int gguf_get_f32(const struct gguf *g, const char *name, float *value, struct lathe_error *err)
{
    struct header_key key;
    int rc = find_key(g, name, &key, err);
    if (rc)
        return rc;
    if (key.type == GGUF_F32) {
        memcpy(value, key.value, sizeof *value);
    } else if (key.type == GGUF_F64) {
        double wide;
        memcpy(&wide, key.value, sizeof wide);
        *value = (float)wide;
    } else {
        return wrong_type(g, name, &key, "f32", err);
    }
    return 0;
}

int gguf_get_bool(const struct gguf *g, const char *name, int *value, struct lathe_error *err)
{
    struct header_key key;
    int rc = find_key(g, name, &key, err);
    if (rc)
        return rc;
    if (key.type != GGUF_BOOL)
        return wrong_type(g, name, &key, "bool", err);
    *value = *(const unsigned char *)key.value != 0;
    return 0;
}

int gguf_get_string(const struct gguf *g, const char *name, struct gguf_string *value, struct lathe_error *err)
{
    struct header_key key;
    int rc = find_key(g, name, &key, err);
    if (rc)
        return rc;
    if (key.type != GGUF_STRING)
        return wrong_type(g, name, &key, "string", err);
    *value = (struct gguf_string){key.value, (size_t)key.count};
    return 0;
}

int gguf_get_array(const struct gguf *g, const char *name, struct gguf_array *value, struct lathe_error *err)
{
    struct header_key key;
    int rc = find_key(g, name, &key, err);
    if (rc)
        return rc;
    if (key.type != GGUF_ARRAY)
        return wrong_type(g, name, &key, "array", err);
    *value = (struct gguf_array){key.element, key.count, key.value};
    return 0;
}

int gguf_array_strings(const struct gguf *g, const struct gguf_array *array, struct gguf_string *strings,
                       struct lathe_error *err)
{
    if (array->type != GGUF_STRING)
        return lathe_fail(err, LATHE_EFORMAT, "%s: found an array of %s, expected strings", header_show_path(g->path),
                          header_type_name(array->type));
    const char *bytes = array->data; /* lengths were walked when the file was opened */
    for (uint64_t i = 0; i < array->count; i++) {
        uint64_t count;
        memcpy(&count, bytes, sizeof count);
        strings[i] = (struct gguf_string){bytes + 8, (size_t)count};
        bytes += 8 + count;
    }
    return 0;
}

int gguf_tensor_at(const struct gguf *g, uint64_t index, struct gguf_string *name, struct lathe_tensor *tensor)
{
    struct header_tensor entry;
    if (index >= g->tensor_count)
        return LATHE_ERANGE;
    tensor_entry(g, index, &entry);
    *name = entry.name;
    *tensor = entry.tensor;
    tensor->data = (const unsigned char *)g->map + g->data_start + entry.offset;
    return 0;
}

int gguf_tensor(const struct gguf *g, const char *name, struct lathe_tensor *tensor, struct lathe_error *err)
{
    struct gguf_string wanted = {name, strlen(name)}, found;
    uint64_t low = 0, high = g->tensor_count;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        int order = compare_names(wanted, name_at(g, g->tensors[g->by_name[middle]]));
        if (order == 0)
            return gguf_tensor_at(g, g->by_name[middle], &found, tensor);
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return lathe_fail(err, LATHE_ENOTFOUND, "%s: tensor %s: not found, expected it in this model", header_show_path(g->path),
                      name);
}

uint64_t gguf_tensor_count(const struct gguf *g)
{
    return g->tensor_count;
}

const char *gguf_path(const struct gguf *g)
{
    return g->path;
}

size_t gguf_file_bytes(const struct gguf *g)
{
    return g->file_bytes;
}
