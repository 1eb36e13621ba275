/* SPDX-License-Identifier: MIT */
/* Well-formed sequences, first byte to the range of its second (the others are 80…BF):
 *
 *     00…7F   C2…DF 80…BF   E0 A0…BF   E1…EC 80…BF   ED 80…9F   EE…EF 80…BF
 *     F0 90…BF   F1…F3 80…BF   F4 80…8F */
#include "utf8.h"

#include <string.h>

size_t utf8_sequence(const unsigned char *text, size_t count, size_t *bad, int *open)
{
    unsigned char first = text[0], low = 0x80, high = 0xbf;
    size_t length = first < 0x80 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
    *bad = 1;
    *open = 0;
    if (length == 1)
        return 1;
    if (first < 0xc2 || first > 0xf4)
        return 0;
    switch (first) {
    case 0xe0: low = 0xa0; break;
    case 0xed: high = 0x9f; break;
    case 0xf0: low = 0x90; break;
    case 0xf4: high = 0x8f; break;
    }
    for (size_t i = 1; i < length; i++, low = 0x80, high = 0xbf) {
        *bad = i;
        if (i == count) {
            *open = 1;
            return 0;
        }
        if (text[i] < low || text[i] > high)
            return 0;
    }
    return length;
}

uint32_t utf8_get(const unsigned char *t, size_t *length)
{
    if (t[0] < 0x80) {
        *length = 1;
        return t[0];
    }
    if (t[0] < 0xe0) {
        *length = 2;
        return (uint32_t)(t[0] & 0x1f) << 6 | (t[1] & 0x3f);
    }
    if (t[0] < 0xf0) {
        *length = 3;
        return (uint32_t)(t[0] & 0x0f) << 12 | (uint32_t)(t[1] & 0x3f) << 6 | (t[2] & 0x3f);
    }
    *length = 4;
    return (uint32_t)(t[0] & 0x07) << 18 | (uint32_t)(t[1] & 0x3f) << 12 | (uint32_t)(t[2] & 0x3f) << 6 | (t[3] & 0x3f);
}

size_t utf8_put(uint32_t code, unsigned char bytes[4])
{
    if (code < 0x80) {
        bytes[0] = (unsigned char)code;
        return 1;
    }
    if (code < 0x800) {
        bytes[0] = (unsigned char)(0xc0 | code >> 6);
        bytes[1] = (unsigned char)(0x80 | (code & 0x3f));
        return 2;
    }
    if (code < 0x10000) {
        bytes[0] = (unsigned char)(0xe0 | code >> 12);
        bytes[1] = (unsigned char)(0x80 | (code >> 6 & 0x3f));
        bytes[2] = (unsigned char)(0x80 | (code & 0x3f));
        return 3;
    }
    bytes[0] = (unsigned char)(0xf0 | code >> 18);
    bytes[1] = (unsigned char)(0x80 | (code >> 12 & 0x3f));
    bytes[2] = (unsigned char)(0x80 | (code >> 6 & 0x3f));
    bytes[3] = (unsigned char)(0x80 | (code & 0x3f));
    return 4;
}

size_t utf8_valid(const unsigned char *text, size_t count)
{
    size_t at = 0, bad;
    int open;
    while (at < count) {
        size_t length = text[at] < 0x80 ? 1 : utf8_sequence(text + at, count - at, &bad, &open);
        if (!length)
            return at;
        at += length;
    }
    return at;
}

size_t utf8_repair(const unsigned char *text, size_t count, unsigned char *out)
{
    size_t n = 0, bad;
    int open;
    for (size_t at = 0; at < count;) {
        size_t length = utf8_sequence(text + at, count - at, &bad, &open);
        if (length) {
            memcpy(out + n, text + at, length);
            n += length;
            at += length;
        } else {
            n += utf8_put(0xfffd, out + n);
            at += bad;
        }
    }
    return n;
}

/* ---- streams ---- */

void utf8_output_put(struct utf8_output *o, const unsigned char *bytes, size_t count)
{
    if (o->count + count <= o->room)
        memcpy(o->bytes + o->count, bytes, count);
    o->count += count;
}

static void put_replacement(struct utf8_output *o)
{
    utf8_output_put(o, (const unsigned char *)"\xef\xbf\xbd", 3);
}

/* Everything whole that the pending bytes hold; an open sequence stays. */
static void settle(struct lathe_decode_state *s, struct utf8_output *o)
{
    while (s->count) {
        size_t bad;
        int open;
        size_t length = utf8_sequence(s->bytes, s->count, &bad, &open);
        if (!length && open)
            return;
        if (length)
            utf8_output_put(o, s->bytes, length);
        else
            put_replacement(o);
        length = length ? length : bad;
        s->count -= (uint32_t)length;
        memmove(s->bytes, s->bytes + length, s->count);
    }
}

void utf8_feed(struct lathe_decode_state *s, const unsigned char *bytes, size_t count, struct utf8_output *o)
{
    while (count) {
        if (!s->count) {
            size_t valid = utf8_valid(bytes, count);
            utf8_output_put(o, bytes, valid);
            bytes += valid;
            count -= valid;
            if (!count)
                return;
        }
        s->bytes[s->count++] = *bytes++;
        count--;
        settle(s, o);
    }
}

void utf8_flush(struct lathe_decode_state *s, struct utf8_output *o)
{
    if (s->count)
        put_replacement(o); /* what is open is one maximal subpart */
    s->count = 0;
}
