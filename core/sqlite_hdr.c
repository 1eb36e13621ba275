/* SPDX-License-Identifier: MIT */
/* hdr_percentile(x, p): a percentile of any number of numbers in little memory, and hdr(x): what it
 * counts, as a blob that can be kept and merged. After HdrHistogram (Tene 2012) and DDSketch (Masson
 * et al., VLDB 2019): numbers fall into buckets whose width grows with them.
 *
 * A number's bucket is its sign, its exponent and the first seven bits of its mantissa: 128 buckets an
 * octave, nothing to choose beforehand, any range.
 *
 *     1.0 │1|2|3| … |128│ 2.0 │  1 |  2 | … | 128│ 4.0 …
 *
 * The p-th percentile is of the number whose rank is ⌈p / 100 · n⌉ (the least for p = 0), and what is
 * said is the middle of its bucket: within 1/256 of it, 0.4%. Subnormal numbers count as 0. hdr(x) of
 * numbers, hdr(x) of such blobs, and hdr_percentile(x, p) of either or both: merging first or last
 * makes no difference, to the bit.
 *
 * The blob: "hdr1", then for each bucket that isn't empty, ascending, its number (int32) and its count
 * (uint64), little-endian. NULLs are left out; of no numbers both are NULL. */
#include "sqlite_extension.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { SUB_BITS = 7, SUB = 1 << SUB_BITS, MOST = 2047 * SUB - 1, PAIR = 4 + 8, HEAD = 4 };

static const char magic[] = "hdr1";

struct octave {
    int32_t number; /* the bucket's number / 128, rounded down */
    uint64_t counts[SUB];
};

struct hdr {
    struct octave *octaves; /* in no order: there are few, and the last is asked for again */
    uint32_t count, capacity, last;
    uint64_t total;
    double p;
    int started;
};

/* Ascending with x; 0 for 0, negative for negative. */
static int32_t bucket_of(double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    int32_t place = (int32_t)(bits << 1 >> (53 - SUB_BITS)); /* exponent and first bits of the mantissa */
    if (place < SUB)
        return 0; /* subnormal */
    return bits >> 63 ? -place : place;
}

static double middle_of(int32_t bucket)
{
    uint64_t bits = (uint64_t)(bucket < 0 ? -bucket : bucket) << (52 - SUB_BITS) | (uint64_t)1 << (51 - SUB_BITS);
    double x;
    if (bucket == 0)
        return 0;
    memcpy(&x, &bits, sizeof x);
    return bucket < 0 ? -x : x;
}

static int add(struct hdr *h, int32_t bucket, uint64_t n)
{
    int32_t number = bucket >> SUB_BITS;
    if (h->last >= h->count || h->octaves[h->last].number != number) {
        for (h->last = 0; h->last < h->count && h->octaves[h->last].number != number; h->last++)
            ;
        if (h->last == h->capacity) {
            uint32_t capacity = h->capacity ? 2 * h->capacity : 4;
            struct octave *more = sqlite3_realloc64(h->octaves, capacity * sizeof *more);
            if (!more)
                return SQLITE_NOMEM;
            h->octaves = more;
            h->capacity = capacity;
        }
        if (h->last == h->count)
            h->octaves[h->count++] = (struct octave){ .number = number };
    }
    h->octaves[h->last].counts[bucket & (SUB - 1)] += n;
    h->total += n;
    return SQLITE_OK;
}

/* A blob of hdr(). Its sentence, or NULL. */
static const char *merge(struct hdr *h, const uint8_t *blob, size_t bytes)
{
    static const char damaged[] = "the blob is none that hdr(x) made, or is damaged";
    int64_t before = INT64_MIN;
    if (bytes < HEAD || memcmp(blob, magic, HEAD) != 0 || (bytes - HEAD) % PAIR != 0)
        return damaged;
    for (size_t at = HEAD; at < bytes; at += PAIR) {
        int32_t bucket;
        uint64_t n;
        memcpy(&bucket, blob + at, sizeof bucket);
        memcpy(&n, blob + at + sizeof bucket, sizeof n);
        if (bucket <= before || bucket > MOST || bucket < -MOST || n == 0 || n > INT64_MAX - h->total)
            return damaged;
        before = bucket;
        if (add(h, bucket, n) != SQLITE_OK)
            return "out of memory";
    }
    return NULL;
}

static void take(sqlite3_context *context, struct hdr *h, sqlite3_value *value)
{
    const char *why = NULL;
    switch (sqlite3_value_numeric_type(value)) {
    case SQLITE_NULL: return;
    case SQLITE_BLOB: why = merge(h, sqlite3_value_blob(value), (size_t)sqlite3_value_bytes(value)); break;
    case SQLITE_INTEGER:
    case SQLITE_FLOAT:
        if (isinf(sqlite3_value_double(value)))
            why = "x must be a finite number, NULL, or a blob of hdr(x)";
        else if (add(h, bucket_of(sqlite3_value_double(value)), 1) != SQLITE_OK)
            why = "out of memory";
        break;
    default: why = "x must be a finite number, NULL, or a blob of hdr(x)";
    }
    if (why) {
        char text[128];
        sqlite3_snprintf(sizeof text, text, "hdr: %s", why);
        sqlite3_result_error(context, text, -1);
    }
}

static void hdr_step(sqlite3_context *context, int argc, sqlite3_value **argv)
{
    struct hdr *h = sqlite3_aggregate_context(context, sizeof *h);
    if (!h) {
        sqlite3_result_error_nomem(context);
        return;
    }
    if (argc == 2) {
        int type = sqlite3_value_numeric_type(argv[1]);
        double p = sqlite3_value_double(argv[1]);
        if ((type != SQLITE_INTEGER && type != SQLITE_FLOAT) || !(p >= 0 && p <= 100)) {
            sqlite3_result_error(context, "hdr_percentile(x, p): p must be a number from 0 to 100", -1);
            return;
        }
        if (h->started && h->p != p) {
            sqlite3_result_error(context, "hdr_percentile(x, p): p must be the same in every row", -1);
            return;
        }
        h->p = p;
        h->started = 1;
    }
    take(context, h, argv[0]);
}

static int by_number(const void *a, const void *b)
{
    const struct octave *x = a, *y = b;
    return (x->number > y->number) - (x->number < y->number);
}

static void release(struct hdr *h)
{
    sqlite3_free(h->octaves);
    memset(h, 0, sizeof *h);
}

static void percentile_final(sqlite3_context *context)
{
    struct hdr *h = sqlite3_aggregate_context(context, 0);
    if (!h)
        return;
    if (h->total > 0) {
        double place = ceil(h->p / 100 * (double)h->total);
        uint64_t rank = place < 1 ? 1 : place > (double)h->total ? h->total : (uint64_t)place, seen = 0;
        int found = 0;
        qsort(h->octaves, h->count, sizeof *h->octaves, by_number);
        for (uint32_t o = 0; o < h->count && !found; o++)
            for (int32_t s = 0; s < SUB && !found; s++)
                if ((seen += h->octaves[o].counts[s]) >= rank) {
                    sqlite3_result_double(context, middle_of(h->octaves[o].number * SUB + s));
                    found = 1;
                }
    }
    release(h);
}

static void hdr_final(sqlite3_context *context)
{
    struct hdr *h = sqlite3_aggregate_context(context, 0);
    size_t used = 0;
    if (!h)
        return;
    if (h->total > 0)
        qsort(h->octaves, h->count, sizeof *h->octaves, by_number);
    for (uint32_t o = 0; o < h->count; o++)
        for (int s = 0; s < SUB; s++)
            used += h->octaves[o].counts[s] > 0;
    uint8_t *blob = h->total ? sqlite3_malloc64(HEAD + used * PAIR) : NULL;
    if (blob) {
        uint8_t *to = blob + HEAD;
        memcpy(blob, magic, HEAD);
        for (uint32_t o = 0; o < h->count; o++)
            for (int32_t s = 0; s < SUB; s++)
                if (h->octaves[o].counts[s] > 0) {
                    int32_t bucket = h->octaves[o].number * SUB + s;
                    memcpy(to, &bucket, sizeof bucket);
                    memcpy(to + sizeof bucket, &h->octaves[o].counts[s], sizeof(uint64_t));
                    to += PAIR;
                }
        sqlite3_result_blob64(context, blob, HEAD + used * PAIR, sqlite3_free);
    } else if (h->total) {
        sqlite3_result_error_nomem(context);
    }
    release(h);
}

int sqlite_hdr_init(sqlite3 *db)
{
    const int flags = SQLITE_UTF8 | SQLITE_INNOCUOUS | SQLITE_DETERMINISTIC;
    int rc = sqlite3_create_function_v2(db, "hdr_percentile", 2, flags, NULL, NULL, hdr_step, percentile_final, NULL);
    return rc == SQLITE_OK ? sqlite3_create_function_v2(db, "hdr", 1, flags, NULL, NULL, hdr_step, hdr_final, NULL) : rc;
}
