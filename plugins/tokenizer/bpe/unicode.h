/* SPDX-License-Identifier: MIT */
/* What the tokenizer must know of Unicode: classes of characters, and composition (NFC).
 * Tables of our own, since the system's regex library knows Unicode 14 and the tokenizers that
 * we must agree with know 16: some 9,000 letters more. All functions are pure. */
#ifndef BPE_UNICODE_H
#define BPE_UNICODE_H

#include <stddef.h>
#include <stdint.h>

#include <utf8/utf8.h>

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

/* NFC. Needed: 1 if the valid text may change by it. compose: `out` has room for
 * 3 × count bytes and `codes` for 4 × count + 4; returns bytes written. */
int nfc_needed(const unsigned char *text, size_t count);
size_t nfc_compose(const unsigned char *text, size_t count, uint32_t *codes, unsigned char *out);

#endif
