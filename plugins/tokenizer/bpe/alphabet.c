/* SPDX-License-Identifier: MIT */
/* GPT-2's alphabet: 256 printable characters for 256 bytes, so that a vocabulary can be a text
 * file. Bytes 21…7E, A1…AC and AE…FF stand for themselves as code points; the other 68, in
 * order, are U+0100 … U+0143 (so the space, 20, is U+0120, Ġ). */
#include "bpe.h"

int alphabet_byte(uint32_t code)
{
    if ((code >= 0x21 && code <= 0x7e) || (code >= 0xa1 && code <= 0xac) || (code >= 0xae && code <= 0xff))
        return (int)code;
    if (code < 0x100 || code > 0x143)
        return -1;
    uint32_t nth = code - 0x100;
    if (nth <= 0x20)
        return (int)nth;                   /* 00…20 */
    return nth <= 0x42 ? (int)(0x7f + nth - 0x21) /* 7F…A0 */ : 0xad;
}

long alphabet_spell(const char *text, size_t count, unsigned char *out)
{
    const unsigned char *bytes = (const unsigned char *)text;
    size_t n = 0, length;
    if (utf8_valid(bytes, count) != count)
        return -1;
    for (size_t at = 0; at < count; at += length) {
        int byte = alphabet_byte(utf8_get(bytes + at, &length));
        if (byte < 0)
            return -1;
        out[n++] = (unsigned char)byte;
    }
    return (long)n;
}
