/* SPDX-License-Identifier: MIT */
/* The tokenizer seam: text to token ids and back. A service: flat messages, so it
 * may live in another process.
 *
 * Called by the engine for each request (encode once, decode as tokens come) and by
 * the command line. All methods are [worker]: they keep no state between calls;
 * what a stream needs travels in `struct lathe_decode_state`.
 *
 *     create [loader] → describe, encode, decode, apply_template [worker] … → destroy
 *
 * Text is bytes. Invalid UTF-8 in is not an error: each maximal ill-formed
 * subsequence becomes U+FFFD first, as Unicode 15 §3.9 recommends and Hugging
 * Face's tokenizers see it through Python. */
#ifndef LATHE_TOKENIZER_H
#define LATHE_TOKENIZER_H

#include <lathe/message.h>
#include <lathe/plugin.h>

enum { LATHE_TOKENIZER_ABI = 2 }; /* 2: a message's header is a cache line */

enum { LATHE_TOKENIZER_MAX_STOPS = 8 };

/* Reply to `describe`. Ids are −1 where the vocabulary has no such token. */
struct lathe_tokenizer_info {
    struct lathe_message head;
    char name[64];            /* "smollm", "llama-bpe": the pre-tokenizer, or the plugin's own */
    uint32_t vocab_tokens;
    int32_t bos, eos, unknown, padding;
    int32_t add_bos;          /* 1: encode puts bos in front when LATHE_ENCODE_BOS is set */
    uint32_t stop_count;      /* ids that end a generation: eos, end of turn, … */
    int32_t stops[LATHE_TOKENIZER_MAX_STOPS];
    int32_t has_template;     /* 1: apply_template works */
    uint32_t max_token_bytes; /* longest text of one token: sizes decode buffers */
};

enum lathe_encode_flags {
    LATHE_ENCODE_SPECIAL = 1, /* read the text of special tokens (<|im_start|>) as them */
    LATHE_ENCODE_BOS = 2,     /* put bos in front if the model wants one (info.add_bos) */
};

struct lathe_encode_in {
    struct lathe_message head;
    uint32_t flags, reserved;
    struct lathe_span text; /* bytes, not NUL-terminated */
};

/* One token a byte of text, plus one, is always room enough. */
struct lathe_encode_out {
    struct lathe_message head;
    uint64_t needed;          /* tokens; set on LATHE_EFULL too */
    struct lathe_span tokens; /* int32_t; the method lays it out after the fixed fields */
};

/* What a stream of tokens must remember: bytes of a character not yet whole. Zero it
 * at the stream's start. */
struct lathe_decode_state {
    uint32_t count;   /* 0 … 3 pending bytes */
    uint32_t started; /* 1 after the first token: tokenizers that drop a leading space ask */
    uint8_t bytes[8];
};

enum lathe_decode_flags {
    LATHE_DECODE_SPECIAL = 1, /* write special tokens' text; otherwise they are silent */
    LATHE_DECODE_FLUSH = 2,   /* the stream ends: pending bytes come out as U+FFFD */
    LATHE_DECODE_RAW = 4,     /* the tokens' bytes as they are, no holding back */
};

struct lathe_decode_in {
    struct lathe_message head;
    uint32_t flags, reserved;
    struct lathe_decode_state state;
    struct lathe_span tokens; /* int32_t; an id outside the vocabulary is LATHE_ERANGE */
};

/* `text` is whole UTF-8 characters only, unless RAW. */
struct lathe_decode_out {
    struct lathe_message head;
    uint64_t needed;              /* bytes; set on LATHE_EFULL too */
    struct lathe_decode_state state;
    struct lathe_span text;       /* bytes */
};

/* Chat messages to prompt text, by the model's own template (Jinja subset; bounded in
 * steps and output). `messages` is a JSON array of {"role": …, "content": …}. */
struct lathe_template_in {
    struct lathe_message head;
    uint32_t add_generation_prompt, reserved;
    struct lathe_span messages; /* bytes of JSON */
    struct lathe_span source;   /* bytes: a template to use instead of the model's; may be empty */
};

struct lathe_template_out {
    struct lathe_message head;
    uint64_t needed;
    struct lathe_span text; /* bytes; encode them with LATHE_ENCODE_SPECIAL */
};

/* Service "tokenizer": methods "describe", "encode", "decode", "apply_template". */
struct lathe_tokenizer_api {
    LATHE_API_HEAD;
    lathe_method *describe;       /* lathe_empty → lathe_tokenizer_info     since abi 1 */
    lathe_method *encode;         /* lathe_encode_in → lathe_encode_out     since abi 1 */
    lathe_method *decode;         /* lathe_decode_in → lathe_decode_out     since abi 1 */
    lathe_method *apply_template; /* (optional) lathe_template_in → _out    since abi 1 */
};

#endif
