/* SPDX-License-Identifier: MIT */
/* UTF-8 as Unicode §3.9 has it: what is well-formed, U+FFFD for each maximal subpart of what
 * isn't, and streams that may be cut within a character. Tokenizers link it. All functions are
 * pure; nothing is allocated. [any] */
#ifndef LATHE_UTF8_H
#define LATHE_UTF8_H

#include <stddef.h>
#include <stdint.h>

#include <lathe/tokenizer.h>

/* Bytes 1 … 4 of the sequence at `text`, if it is whole and well-formed; otherwise 0 and
 * *bad = bytes 1 … 3 of the maximal subpart that U+FFFD stands for (Unicode §3.9);
 * *open = 1 if more bytes could still make it well-formed. count ≥ 1. */
size_t utf8_sequence(const unsigned char *text, size_t count, size_t *bad, int *open);
/* The character at valid UTF-8 `text`; *length of it. */
uint32_t utf8_get(const unsigned char *text, size_t *length);
size_t utf8_put(uint32_t code, unsigned char bytes[4]); /* bytes written */
/* How many leading bytes are well-formed. */
size_t utf8_valid(const unsigned char *text, size_t count);
/* A copy with U+FFFD for what is ill-formed; `out` has room for 3 × count. Returns its bytes. */
size_t utf8_repair(const unsigned char *text, size_t count, unsigned char *out);

/* Text going out: bytes beyond the room are counted, not written. */
struct utf8_output {
    unsigned char *bytes;
    uint64_t room, count;
};

void utf8_output_put(struct utf8_output *output, const unsigned char *bytes, size_t count);

/* Whole characters of the pending bytes and these go out; an open sequence waits in `state`,
 * whose count must be 0 … 3. So any cut of a stream gives the same text. */
void utf8_feed(struct lathe_decode_state *state, const unsigned char *bytes, size_t count, struct utf8_output *output);
/* The stream ends: an open sequence is U+FFFD. */
void utf8_flush(struct lathe_decode_state *state, struct utf8_output *output);

#endif
