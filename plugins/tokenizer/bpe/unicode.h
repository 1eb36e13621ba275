/* SPDX-License-Identifier: MIT */
/* What the tokenizer must know of Unicode: UTF-8, classes of characters, composition (NFC).
 * Tables of our own, since the system's regex library knows Unicode 14 and the tokenizers that
 * we must agree with know 16: some 9,000 letters more. All functions are pure. */
#ifndef BPE_UNICODE_H
#define BPE_UNICODE_H

#include <stddef.h>
#include <stdint.h>

enum unicode_class {
    UNICODE_OTHER = 0,
    UNICODE_LETTER = 1, /* \p{L} */
    UNICODE_NUMBER = 2, /* \p{N} */
    UNICODE_SPACE = 3,  /* \p{White_Space} */
};

struct unicode_run {
    uint32_t first, last, value;
};

struct unicode_pair {
    uint32_t code, first, second;
};

extern const struct unicode_run unicode_classes[], unicode_combining[];
extern const unsigned unicode_classes_count, unicode_combining_count;
extern const struct unicode_pair unicode_pairs[]; /* by code */
extern const unsigned unicode_pairs_count;
extern const uint16_t unicode_composing[];        /* indexes into pairs, by first, second */
extern const unsigned unicode_composing_count;

enum unicode_class unicode_class(uint32_t code);

/* Bytes 1 … 4 of the sequence at `text`, if it is whole and well-formed; otherwise 0 and
 * *bad = bytes 1 … 3 of the maximal subpart that U+FFFD stands for (Unicode §3.9);
 * *open = 1 if more bytes could still make it well-formed. count ≥ 1. */
size_t utf8_sequence(const unsigned char *text, size_t count, size_t *bad, int *open);
/* The character at valid UTF-8 `text`; *length of it. */
uint32_t utf8_get(const unsigned char *text, size_t *length);
size_t utf8_put(uint32_t code, unsigned char bytes[4]); /* bytes written */
/* How many leading bytes are well-formed. */
size_t utf8_valid(const unsigned char *text, size_t count);

/* NFC. Needed: 1 if the valid text may change by it. compose: `out` has room for
 * 3 × count bytes and `codes` for 4 × count + 4; returns bytes written. */
int nfc_needed(const unsigned char *text, size_t count);
size_t nfc_compose(const unsigned char *text, size_t count, uint32_t *codes, unsigned char *out);

#endif
