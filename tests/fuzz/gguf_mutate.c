/* SPDX-License-Identifier: MIT */
/* Mutated GGUF files: each is opened, asked about everything, and closed; some also become a
 * tokenizer and a model.
 *
 *     seeds ─ 1 … 4 mutations ─ a file in memory ─ gguf_open ─ every key and tensor ─ gguf_close
 *     (valid)                                    └ every nth: tokenizer/bpe, model/llama
 *
 * What must hold: no crash (run it under the sanitizers), a sentence with each refusal, less than
 * a second of processor time, nothing leaked, and never more memory taken by the reader than the
 * file's own size plus GGUF_FIXED_BYTES. Case n depends on (seed, n) alone: --only n repeats it. */
#include <dirent.h>
#include <gguf/gguf.h>
#include <signal.h>
#include <stdio.h>
#include <time.h>

#include "registry.h"
#include "service.h"
#include "support/counting_host.h"
#include "support/gguf_build.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

enum { MAX_SEEDS = 64, MAX_FIELDS = 65536, MAX_SEED_BYTES = 400000 };

/* A number in a header that says how much or where: what mutations like best. */
struct field {
    uint32_t at, width;
};

struct seed {
    char name[300];
    unsigned char *bytes;
    size_t count, header_bytes;
    struct field *fields;
    size_t field_count;
};

static struct seed seeds[MAX_SEEDS];
static size_t seed_count;
static uint64_t run_seed = 1;
static volatile uint64_t current;

/* ---- randomness: splitmix64 of (seed, case) ---- */

static uint64_t random_state;

static uint64_t draw(void)
{
    uint64_t z = random_state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static size_t below(size_t n)
{
    return n ? (size_t)(draw() % n) : 0;
}

static _Noreturn void broken(const char *what, const char *detail)
{
    fprintf(stderr, "case %llu: %s: %s\nrepeat with: gguf_mutate --seed %llu --only %llu\n", (unsigned long long)current, what,
            detail, (unsigned long long)run_seed, (unsigned long long)current);
    exit(1);
}

#if defined(__SANITIZE_ADDRESS__)
static void on_death(void)
{
    fprintf(stderr, "in case %llu of seed %llu\n", (unsigned long long)current, (unsigned long long)run_seed);
}
#else
static void on_death(int number)
{
    char line[80];
    int n = snprintf(line, sizeof line, "signal %d in case %llu of seed %llu\n", number, (unsigned long long)current,
                     (unsigned long long)run_seed);
    if (write(2, line, (size_t)n) < 0)
        _exit(2);
    _exit(1);
}
#endif

/* ---- seeds: valid files, and where their numbers are ---- */

static void add_field(struct seed *s, size_t at, uint32_t width)
{
    if (s->field_count < MAX_FIELDS)
        s->fields[s->field_count++] = (struct field){(uint32_t)at, width};
}

static uint64_t number(const struct seed *s, size_t at, size_t width)
{
    uint64_t v = 0;
    memcpy(&v, s->bytes + at, width);
    return v;
}

/* The seeds are valid, so this walk checks nothing; of long arrays only the ends are noted. */
static void find_fields(struct seed *s)
{
    static const uint8_t width[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    uint64_t tensors = number(s, 8, 8), keys = number(s, 16, 8);
    size_t at = 24;
    s->fields = calloc(MAX_FIELDS, sizeof *s->fields);
    add_field(s, 4, 4);
    add_field(s, 8, 8);
    add_field(s, 16, 8);
    for (uint64_t i = 0; i < keys; i++) {
        add_field(s, at, 8);
        at += 8 + number(s, at, 8);
        add_field(s, at, 4);
        uint32_t type = (uint32_t)number(s, at, 4);
        uint64_t count = 1;
        at += 4;
        if (type == B_ARRAY) {
            add_field(s, at, 4);
            add_field(s, at + 4, 8);
            type = (uint32_t)number(s, at, 4);
            count = number(s, at + 4, 8);
            at += 12;
        }
        for (uint64_t k = 0; k < count; k++) {
            if (k < 4 || k + 4 > count)
                add_field(s, at, type == B_STRING ? 8 : width[type]);
            at += type == B_STRING ? 8 + number(s, at, 8) : width[type];
        }
    }
    for (uint64_t i = 0; i < tensors; i++) {
        add_field(s, at, 8);
        at += 8 + number(s, at, 8);
        add_field(s, at, 4);
        uint32_t rank = (uint32_t)number(s, at, 4);
        at += 4;
        for (uint32_t d = 0; d < rank; d++, at += 8)
            add_field(s, at, 8);
        add_field(s, at, 4);
        add_field(s, at + 4, 8);
        at += 12;
    }
    s->header_bytes = at;
}

static void add_seed(const char *name, const void *bytes, size_t count)
{
    if (seed_count == MAX_SEEDS || count > MAX_SEED_BYTES)
        return;
    struct seed *s = &seeds[seed_count++];
    snprintf(s->name, sizeof s->name, "%s", name);
    s->bytes = malloc(count);
    memcpy(s->bytes, bytes, count);
    s->count = count;
    find_fields(s);
}

static void add_folder(const char *folder)
{
    struct dirent **entries;
    int n = scandir(folder, &entries, NULL, alphasort);
    for (int i = 0; i < n; i++) {
        char path[1024];
        size_t length = strlen(entries[i]->d_name);
        snprintf(path, sizeof path, "%s/%s", folder, entries[i]->d_name);
        FILE *file = length > 5 && strcmp(entries[i]->d_name + length - 5, ".gguf") == 0 ? fopen(path, "rb") : NULL;
        if (file) {
            static unsigned char bytes[MAX_SEED_BYTES + 1];
            size_t count = fread(bytes, 1, sizeof bytes, file);
            add_seed(entries[i]->d_name, bytes, count);
            fclose(file);
        }
        free(entries[i]);
    }
    if (n >= 0)
        free(entries);
}

/* One of every key type, and tensors of several types, in under a kilobyte. */
static void add_small(void)
{
    struct build b = {0};
    double half = 0.5;
    b_begin(&b, 3, 3, 12);
    b_key_u32(&b, "general.alignment", 64);
    b_key_text(&b, "general.architecture", "llama");
    b_key_bool(&b, "a.bool", 1);
    b_key_f32(&b, "a.f32", 1.5f);
    b_key(&b, "a.f64", B_F64);
    b_raw(&b, &half, 8);
    b_key(&b, "a.u8", B_U8);
    b_raw(&b, "\x07", 1);
    b_key(&b, "a.i16", B_I16);
    b_raw(&b, "\xff\xff", 2);
    b_key(&b, "a.i64", B_I64);
    b_u64(&b, UINT64_MAX);
    b_key_array(&b, "a.strings", B_STRING, 3);
    b_text(&b, "x");
    b_text(&b, "");
    b_text(&b, "three");
    b_key_array(&b, "a.floats", B_F32, 2);
    b_f32(&b, 1);
    b_f32(&b, 2);
    b_key_array(&b, "a.bytes", B_U8, 5);
    b_raw(&b, "hello", 5);
    b_key_array(&b, "a.none", B_U64, 0);
    b_tensor(&b, "one", 1, (uint64_t[]){4}, 0, 0);
    b_tensor(&b, "two", 2, (uint64_t[]){32, 2}, 8, 64);
    b_tensor(&b, "four", 4, (uint64_t[]){2, 1, 2, 1}, 1, 192);
    b_pad(&b, 64);
    b_zeros(&b, 256);
    add_seed("small", b.bytes, b.count);
    b_begin(&b, 2, 0, 0);
    add_seed("empty", b.bytes, b.count);
    free(b.bytes);
}

/* ---- mutations ---- */

static unsigned char file[2 * MAX_SEED_BYTES];
static size_t file_bytes;

static uint64_t extreme(void)
{
    static const uint64_t values[] = {0, 1, 2, 3, 7, 8, 12, 13, 31, 32, 33, 255, 65535, 65536, INT32_MAX, UINT64_C(1) << 31,
                                      UINT32_MAX, UINT64_C(1) << 32, UINT64_C(1) << 61, UINT64_C(1) << 62, INT64_MAX,
                                      UINT64_C(1) << 63, UINT64_MAX - 31, UINT64_MAX - 7, UINT64_MAX};
    switch (below(4)) {
    case 0: return file_bytes - below(64);
    case 1: return draw() >> below(64);
    default: return values[below(sizeof values / sizeof *values)];
    }
}

static void splice(const struct seed *s)
{
    const struct seed *other = below(2) ? s : &seeds[below(seed_count)];
    size_t length = 1 + below(below(4) ? 40 : 2000), from = below(other->header_bytes), to = below(s->header_bytes + 1);
    if (length > other->count - from)
        length = other->count - from;
    if (to > file_bytes)
        to = file_bytes;
    switch (below(3)) {
    case 0: /* over */
        if (length > file_bytes - to)
            length = file_bytes - to;
        memcpy(file + to, other->bytes + from, length);
        break;
    case 1: /* in between */
        if (length > sizeof file - file_bytes)
            length = sizeof file - file_bytes;
        memmove(file + to + length, file + to, file_bytes - to);
        memcpy(file + to, other->bytes + from, length);
        file_bytes += length;
        break;
    default: /* out */
        if (length > file_bytes - to)
            length = file_bytes - to;
        memmove(file + to, file + to + length, file_bytes - to - length);
        file_bytes -= length;
    }
}

static void mutate(const struct seed *s)
{
    struct field f = s->fields[below(s->field_count)];
    uint64_t value = 0;
    switch (below(8)) {
    case 0: case 1: /* a byte */
        if (file_bytes)
            file[below(s->header_bytes < file_bytes ? s->header_bytes : file_bytes)] ^= (unsigned char)(1u << below(8));
        break;
    case 2: /* cut */
        file_bytes = below(below(3) ? s->header_bytes + 64 : file_bytes + 1) % (file_bytes + 1);
        break;
    case 3: splice(s); break;
    case 4: case 5: /* a number becomes an extreme one */
        value = extreme();
        if (f.at + f.width <= file_bytes)
            memcpy(file + f.at, &value, f.width);
        break;
    default: /* a number moves a little */
        if (f.at + f.width <= file_bytes) {
            memcpy(&value, file + f.at, f.width);
            value += below(2) ? 1 + below(40) : -(uint64_t)(1 + below(40));
            memcpy(file + f.at, &value, f.width);
        }
    }
}

static void make_case(uint64_t number_)
{
    random_state = run_seed * UINT64_C(0x2545f4914f6cdd1d) + number_;
    draw();
    const struct seed *s = &seeds[below(seed_count)];
    memcpy(file, s->bytes, s->count);
    file_bytes = s->count;
    for (size_t n = 1 + below(1 + below(4)); n; n--)
        mutate(s);
}

/* ---- what is done with each ---- */

static double processor_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void need_sentence(int rc, const struct lathe_error *err)
{
    if (rc >= 0 || err->code != rc || !err->message[0] || strchr(err->message, '\n'))
        broken("a refusal without a sentence", err->message);
}

static void ask_everything(const struct gguf *g)
{
    static const char *const keys[] = {"general.alignment", "general.architecture", "a.bool", "a.f32", "a.u8", "a.strings",
                                       "tokenizer.ggml.tokens", "tokenizer.ggml.merges", "llama.block_count"};
    struct lathe_error err;
    volatile unsigned char seen = 0;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        struct gguf_string s;
        struct gguf_array a;
        uint32_t u;
        float f;
        int yes;
        gguf_get_u32(g, keys[i], &u, &err);
        gguf_get_f32(g, keys[i], &f, &err);
        gguf_get_bool(g, keys[i], &yes, &err);
        if (!gguf_get_string(g, keys[i], &s, &err) && s.count)
            seen ^= (unsigned char)(s.bytes[0] ^ s.bytes[s.count - 1]);
        if (!gguf_get_array(g, keys[i], &a, &err) && a.type == GGUF_STRING) {
            struct gguf_string *strings = calloc(a.count + 1, sizeof *strings);
            gguf_array_strings(g, &a, strings, &err);
            for (uint64_t k = 0; k < a.count; k++)
                seen ^= strings[k].count ? (unsigned char)strings[k].bytes[strings[k].count - 1] : 0;
            free(strings);
        }
    }
    for (uint64_t i = 0; i < gguf_tensor_count(g); i++) {
        struct gguf_string name;
        struct lathe_tensor t;
        uint64_t rows = 1;
        if (gguf_tensor_at(g, i, &name, &t))
            broken("a tensor that was counted isn't there", "");
        for (uint32_t d = 0; d + 1 < t.rank; d++)
            rows *= t.shape[d];
        seen ^= ((const unsigned char *)t.data)[0] ^ ((const unsigned char *)t.data)[rows * t.row_bytes - 1];
    }
}

static int try_reader(const char *path)
{
    struct counting_host counting;
    const struct lathe_host *host = counting_host_init(&counting);
    struct lathe_error err = {0};
    struct gguf *g = NULL;
    char detail[100];
    int rc = gguf_open(host, path, &g, &err);
    if (rc)
        need_sentence(rc, &err);
    else
        ask_everything(g);
    if (counting.peak_bytes > file_bytes + GGUF_FIXED_BYTES) {
        snprintf(detail, sizeof detail, "%zu bytes for a file of %zu", (size_t)counting.peak_bytes, file_bytes);
        broken("more memory than allowed", detail);
    }
    gguf_close(g);
    if (counting.live_blocks)
        broken("memory that was not given back", "");
    return rc == 0;
}

/* A tokenizer that was made must then work or refuse. */
static void use_tokenizer(const struct instance *tokenizer)
{
    static const char text[] = "Hello, world! 1234 \xf0\x9f\x98\x80 \xff <|im_start|>";
    struct lathe_tokenizer_info info;
    struct lathe_error err = {0};
    int32_t *ids;
    size_t count, bytes;
    char *out;
    if (tokenizer_describe(tokenizer, &info, &err))
        broken("a tokenizer without a description", err.message);
    if (tokenizer_encode(tokenizer, text, sizeof text - 1, LATHE_ENCODE_SPECIAL | LATHE_ENCODE_BOS, &ids, &count, &err))
        broken("a tokenizer that doesn't encode", err.message);
    for (size_t i = 0; i < count; i++)
        if (ids[i] < 0 || (uint32_t)ids[i] >= info.vocab_tokens)
            broken("an id beyond the vocabulary", "");
    if (tokenizer_decode(tokenizer, ids, count, LATHE_DECODE_SPECIAL | LATHE_DECODE_FLUSH, &out, &bytes, &err))
        broken("a tokenizer that doesn't decode", err.message);
    free(ids);
    free(out);
    int rc = tokenizer_template(tokenizer, "[{\"role\":\"user\",\"content\":\"x\"}]", 1, NULL, &out, &bytes, &err);
    if (rc)
        need_sentence(rc, &err);
    else
        free(out);
}

static int try_plugin(struct registry *registry, int kind, const char *name, const char *path)
{
    struct option_setting settings[] = {{"path", path}, {"threads", "1"}};
    struct lathe_error err = {0};
    struct instance *instance = NULL;
    int rc = instance_create(registry, kind, name, settings, kind == LATHE_KIND_MODEL ? 2 : 1, &instance, &err);
    if (rc)
        need_sentence(rc, &err);
    else if (kind == LATHE_KIND_TOKENIZER)
        use_tokenizer(instance);
    instance_destroy(instance);
    return rc == 0;
}

static void run_case(struct registry *registry, uint64_t number_, int create, size_t opened[3])
{
    current = number_;
    make_case(number_);
    struct memory_file f = memory_file(file, file_bytes);
    double begun = processor_s();
    opened[0] += (size_t)try_reader(f.path);
    if (create) {
        if (processor_s() - begun > 1)
            broken("more than a second", "the reader");
        opened[1] += (size_t)try_plugin(registry, LATHE_KIND_TOKENIZER, "bpe", f.path);
        if (processor_s() - begun > 2)
            broken("more than a second", "the tokenizer");
        opened[2] += (size_t)try_plugin(registry, LATHE_KIND_MODEL, "llama", f.path);
    }
    if (processor_s() - begun > (create ? 3 : 1))
        broken("more than a second", create ? "the model" : "the reader");
    memory_file_close(&f);
}

int main(int argc, char **argv)
{
    static const char *const folders[] = {TEST_PLUGINS, NULL};
    struct registry *registry;
    struct lathe_error err = {0};
    uint64_t count = 5000, every = 25, only = UINT64_MAX;
    size_t opened[3] = {0};
    for (int i = 1; i + 1 < argc; i += 2) {
        uint64_t value = strtoull(argv[i + 1], NULL, 10);
        if (strcmp(argv[i], "--count") == 0)
            count = value;
        else if (strcmp(argv[i], "--seed") == 0)
            run_seed = value;
        else if (strcmp(argv[i], "--create-every") == 0)
            every = value;
        else if (strcmp(argv[i], "--only") == 0)
            only = value;
        else
            return fprintf(stderr, "usage: gguf_mutate [--count N] [--seed S] [--create-every N] [--only CASE]\n"), 2;
    }
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_set_death_callback(on_death);
#else
    static const int deaths[] = {SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL};
    for (size_t i = 0; i < sizeof deaths / sizeof *deaths; i++)
        signal(deaths[i], on_death);
#endif
    add_small();
    add_folder(TEST_DATA);
    add_folder(TEST_DATA "/zoo");
    if (registry_open(folders, &registry, &err))
        broken("no registry", err.message);
    if (only != UINT64_MAX) {
        run_case(registry, only, 1, opened);
    } else {
        for (uint64_t i = 0; i < count; i++) {
            run_case(registry, i, every && i % every == 0, opened);
            if ((i + 1) % 10000 == 0)
                fprintf(stderr, "%llu\n", (unsigned long long)i + 1);
        }
        printf("%llu mutated files of %zu seeds (seed %llu): %zu opened; as plugins %llu: %zu tokenizers, %zu models\n",
               (unsigned long long)count, seed_count, (unsigned long long)run_seed, opened[0],
               every ? (unsigned long long)((count + every - 1) / every) : 0, opened[1], opened[2]);
    }
    registry_close(registry);
    for (size_t i = 0; i < seed_count; i++) {
        free(seeds[i].bytes);
        free(seeds[i].fields);
    }
    return 0;
}
