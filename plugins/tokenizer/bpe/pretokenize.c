/* SPDX-License-Identifier: MIT */
/* Pieces that merging never crosses: what each model's regular expression matches next.
 *
 *   gpt-2      's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
 *   smollm     \p{N} each on its own first, then gpt-2 on what lies between, which ends there
 *   llama-bpe  (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}
 *              | ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
 *   qwen2      as llama-bpe, with \p{N} for \p{N}{1,3}
 *
 * Written out, because a matcher for four patterns is short, never backtracks over more than a
 * character, and knows the classes of Unicode 16 (see unicode.h). Every character belongs to some
 * alternative, so pieces join up to the text. A test compares it with a regex library. */
#include "bpe.h"

struct reader {
    const unsigned char *text;
    size_t count;
};

/* Class and code of the character at `at`; UNICODE_SPACE is never returned past the end. */
struct character {
    uint32_t code;
    size_t length; /* 0: the end */
    enum unicode_class class;
};

static struct character look(const struct reader *r, size_t at)
{
    struct character c = {0, 0, UNICODE_OTHER};
    if (at < r->count) {
        c.code = utf8_get(r->text + at, &c.length);
        c.class = unicode_class(c.code);
    }
    return c;
}

/* The end of the run of `class` that begins at `at`. */
static size_t run(const struct reader *r, size_t at, enum unicode_class class)
{
    for (struct character c; (c = look(r, at)).length && c.class == class;)
        at += c.length;
    return at;
}

/* Bytes of 's, 't, 're, 've, 'm, 'll, 'd at the start, or 0. Under (?i: the long s is an s. */
static size_t contraction(const struct reader *r, int any_case)
{
    if (r->count < 2 || r->text[0] != '\'')
        return 0;
    unsigned fold = any_case ? 0x20 : 0;
    unsigned a = r->text[1] | fold, b = r->count > 2 ? r->text[2] | fold : 0;
    if (a == 's' || a == 't' || a == 'm' || a == 'd')
        return 2;
    if ((a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l'))
        return 3;
    if (any_case && r->count > 2 && r->text[1] == 0xc5 && r->text[2] == 0xbf) /* U+017F */
        return 3;
    return 0;
}

/* \s+(?!\S)|\s+ : a run leaves its last character to the word that follows. */
static size_t spaces(const struct reader *r)
{
    size_t at = 0, last = 0;
    for (struct character c; (c = look(r, at)).length && c.class == UNICODE_SPACE; at += c.length)
        last = at;
    return at == r->count || last == 0 ? at : last;
}

static size_t gpt2(const struct reader *r)
{
    size_t length = contraction(r, 0);
    if (length)
        return length;
    struct character first = look(r, 0);
    size_t at = 0;
    if (first.code == ' ') {
        struct character next = look(r, 1);
        if (next.length && next.class != UNICODE_SPACE) {
            at = 1;
            first = next;
        }
    }
    return first.class == UNICODE_SPACE ? spaces(r) : run(r, at, first.class);
}

static size_t smollm(struct reader r)
{
    struct character first = look(&r, 0);
    if (first.class == UNICODE_NUMBER)
        return first.length;
    /* What gpt-2 would take, were the next number the end of the text. Only a run of spaces
     * looks at what follows it, and only a space takes a number along. */
    if (first.class == UNICODE_SPACE) {
        size_t end = run(&r, 0, UNICODE_SPACE);
        if (look(&r, end).class == UNICODE_NUMBER)
            r.count = end;
    }
    return gpt2(&r);
}

static int is_newline(uint32_t code)
{
    return code == '\r' || code == '\n';
}

/* \s*[\r\n]+ : up to the last newline of the run of spaces, or 0. */
static size_t through_newlines(const struct reader *r)
{
    size_t at = 0, end = 0;
    for (struct character c; (c = look(r, at)).length && c.class == UNICODE_SPACE;) {
        at += c.length;
        if (is_newline(c.code))
            end = at;
    }
    return end;
}

static size_t llama3(const struct reader *r, unsigned most_digits)
{
    size_t length = contraction(r, 1);
    if (length)
        return length;
    struct character first = look(r, 0);
    if (first.class == UNICODE_LETTER)
        return run(r, 0, UNICODE_LETTER);
    struct character next = look(r, first.length);
    if (!is_newline(first.code) && first.class != UNICODE_NUMBER && next.class == UNICODE_LETTER)
        return run(r, first.length, UNICODE_LETTER);
    if (first.class == UNICODE_NUMBER) {
        size_t at = first.length;
        for (unsigned n = 1; n < most_digits && (next = look(r, at)).class == UNICODE_NUMBER; n++)
            at += next.length;
        return at;
    }
    size_t at = first.code == ' ' && next.length && next.class == UNICODE_OTHER ? 1 : 0;
    if (at || first.class == UNICODE_OTHER) {
        at = run(r, at, UNICODE_OTHER);
        while (at < r->count && is_newline(r->text[at]))
            at++;
        return at;
    }
    length = through_newlines(r);
    return length ? length : spaces(r);
}

size_t pretokenize(enum pretokenizer pretokenizer, const unsigned char *text, size_t count)
{
    struct reader r = {text, count};
    switch (pretokenizer) {
    case PRETOKENIZER_SMOLLM: return smollm(r);
    case PRETOKENIZER_LLAMA3: return llama3(&r, 3);
    case PRETOKENIZER_QWEN2: return llama3(&r, 1);
    default: return gpt2(&r);
    }
}
