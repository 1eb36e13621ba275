/* SPDX-License-Identifier: MIT */
/* Inside of tokenizer/bpe: byte-level BPE from a GGUF.
 *
 *     text ─ repaired ─ split at special tokens ─ (NFC) ─ pieces ─ bytes merged by rank ─ ids
 *            utf8        special.c                 unicode  pretokenize   merge.c
 *
 * The file spells tokens in GPT-2's printable alphabet (a space is Ġ); vocab.c turns that into
 * bytes once, and nothing after it knows of the alphabet. An instance is constant after create,
 * so any number of threads may use it; what a call needs lies on its stack or, for a piece that
 * is too long for that, in memory from the host for as long as the call. */
#ifndef BPE_BPE_H
#define BPE_BPE_H

#include <stddef.h>
#include <stdint.h>

#include <gguf/gguf.h>
#include <lathe/host.h>
#include <lathe/tokenizer.h>

#include "unicode.h"

enum pretokenizer {
    PRETOKENIZER_GPT2,   /* the pattern of GPT-2 */
    PRETOKENIZER_SMOLLM, /* digits one by one first, then that of GPT-2 on what lies between */
    PRETOKENIZER_LLAMA3, /* cl100k's: up to three digits, newlines stay with what they follow */
    PRETOKENIZER_QWEN2,  /* the same, digits one by one; text is put into NFC first */
};

enum token_kind { /* as GGUF numbers them */
    TOKEN_NORMAL = 1,
    TOKEN_UNKNOWN = 2,
    TOKEN_CONTROL = 3,      /* read from text only when asked, silent when decoded unless asked */
    TOKEN_USER_DEFINED = 4, /* always read from text, always written */
    TOKEN_UNUSED = 5,
    TOKEN_BYTE = 6,
};

struct token {
    uint32_t at, count; /* its bytes in vocab.bytes */
    uint8_t kind;       /* enum token_kind */
    uint8_t spelled;    /* 1: made of bytes, so that merging may reach it */
};

struct merge {
    int32_t left, right, merged;
};

struct vocab {
    const struct lathe_host *host;
    uint64_t seed;             /* of both hashes, so that no file can choose collisions */
    struct token *tokens;      /* (count) */
    uint32_t count;
    unsigned char *bytes;      /* all tokens' bytes, one after the other */
    int32_t byte_tokens[256];  /* −1: the vocabulary can't spell this byte */
    int32_t *by_bytes;         /* (slot_mask + 1) ids of spelled tokens, −1 empty */
    uint32_t slot_mask;
    struct merge *merges;      /* (merge_count): index is rank */
    uint32_t merge_count;
    int32_t *by_pair;          /* (pair_mask + 1) ranks, −1 empty */
    uint32_t pair_mask;
    int32_t *special;          /* (special_count) ids of control and user-defined, by bytes */
    uint32_t special_count;
    enum pretokenizer pretokenizer;
    char name[64];
    int ignore_merges;         /* a whole piece that is a token is that token */
    int32_t bos, eos, unknown, padding, add_bos;
    int32_t stops[LATHE_TOKENIZER_MAX_STOPS];
    uint32_t stop_count, max_token_bytes;
    char *chat_template;       /* (template_bytes), NULL: none */
    size_t template_bytes;
};

/* Where ids go: counted beyond the room, so that the caller learns what was needed. */
struct sink {
    int32_t *tokens;
    uint64_t room, count;
};

static inline void sink_put(struct sink *sink, int32_t token)
{
    if (sink->count < sink->room)
        sink->tokens[sink->count] = token;
    sink->count++;
}

/* vocab.c: everything is checked here; afterwards every id in it is in range. */
int vocab_load(const struct lathe_host *host, const struct gguf *gguf, struct vocab *vocab, struct lathe_error *err);
void vocab_free(struct vocab *vocab);
int32_t vocab_find(const struct vocab *vocab, const unsigned char *bytes, size_t count); /* −1: not there */
int32_t vocab_rank(const struct vocab *vocab, int32_t left, int32_t right);              /* −1: none */

/* alphabet.c: GPT-2's printable characters and bytes. */
int alphabet_byte(uint32_t code); /* 0 … 255, −1: not in the alphabet */
/* Bytes written to `out` (room for count), or −1 when `text` isn't spelled in the alphabet. */
long alphabet_spell(const char *text, size_t count, unsigned char *out);

/* special.c: sorts the ids; finds the longest special token at `text`. */
int special_load(struct vocab *vocab, const char *path, struct lathe_error *err);
int32_t special_at(const struct vocab *vocab, const unsigned char *text, size_t count, int controls);

/* pretokenize.c: bytes of the next piece of valid UTF-8; count ≥ 1. */
size_t pretokenize(enum pretokenizer pretokenizer, const unsigned char *text, size_t count);

/* merge.c: one piece into ids. 0 or LATHE_ENOMEM. */
int merge_piece(const struct vocab *vocab, const unsigned char *piece, size_t count, struct sink *sink);

/* encode.c, decode.c: the seam's methods. */
int encode_text(const struct vocab *vocab, uint32_t flags, const unsigned char *text, size_t count, struct sink *sink,
                struct lathe_error *err);
int bpe_decode(void *self, const void *in, void *out, struct lathe_error *err);

#endif
