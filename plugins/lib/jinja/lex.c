/* SPDX-License-Identifier: MIT */
/* Template text to lexemes, with Jinja's rules for white space:
 *
 *     {%- and -%}   strip all white space before, after (also {{- and {#-)
 *     {%  at the start of a line   its indentation goes (lstrip_blocks); {%+ keeps it
 *     %}  before a newline         that newline goes (trim_blocks); +%} keeps it
 *
 * Comments do as blocks do. One newline at the end of the source goes, too. */
#include "internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <utf8/utf8.h>

static int is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static int is_word(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

static int starts(const struct lexer *l, const char *text)
{
    size_t n = strlen(text);
    return (size_t)(l->end - l->at) >= n && memcmp(l->at, text, n) == 0;
}

static void advance(struct lexer *l, size_t count)
{
    for (; count; count--)
        l->line += *l->at++ == '\n';
}

/* After a tag's end mark: what white space goes with it. */
static void after_tag(struct lexer *l, int strip, int trims)
{
    l->line_starting = 0;
    if (strip) {
        while (l->at < l->end && is_space(*l->at)) {
            l->line_starting = *l->at == '\n';
            advance(l, 1);
        }
    } else if (trims && l->at < l->end && *l->at == '\n') {
        advance(l, 1);
        l->line_starting = 1;
    }
}

/* Text up to the next tag, with what the tag takes of it removed. Returns 0 when the text is
 * empty and the tag was a comment: look again. */
static int lex_text(struct lexer *l, struct lexeme *x)
{
    const char *from = l->at, *tag = from;
    while (tag < l->end && !(tag[0] == '{' && tag + 1 < l->end && (tag[1] == '{' || tag[1] == '%' || tag[1] == '#')))
        tag++;
    const char *stop = tag;
    char sign = tag + 2 < l->end ? tag[2] : 0;
    if (tag < l->end && sign == '-') {
        while (stop > from && is_space(stop[-1]))
            stop--;
    } else if (tag < l->end && sign != '+' && tag[1] != '{') {
        const char *indent = stop;
        while (indent > from && (indent[-1] == ' ' || indent[-1] == '\t'))
            indent--;
        if (indent > from ? indent[-1] == '\n' : l->line_starting)
            stop = indent;
    }
    x->type = T_TEXT;
    x->line = l->line;
    x->text = (struct text){from, (size_t)(stop - from)};
    advance(l, (size_t)(tag - from));
    if (tag == l->end) {
        if (stop == from)
            x->type = T_END;
        return 1;
    }
    if (tag[1] != '#')
        return x->text.count > 0; /* the tag comes next */
    const char *close = tag + 2;
    while (close + 1 < l->end && !(close[0] == '#' && close[1] == '}'))
        close++;
    if (close + 1 >= l->end)
        jinja_fail(l->j, LATHE_EFORMAT, "the comment of line %d doesn't end", l->line);
    int strip = close > tag + 2 && close[-1] == '-', keep = close > tag + 2 && close[-1] == '+';
    advance(l, (size_t)(close + 2 - l->at));
    after_tag(l, strip, !keep);
    return x->text.count > 0;
}

/* After "{%": raw … endraw is text as it stands. */
static int lex_raw(struct lexer *l, struct lexeme *x)
{
    const char *p = l->at;
    int strip;
    while (p < l->end && is_space(*p))
        p++;
    if (l->end - p < 3 || memcmp(p, "raw", 3) != 0 || (p + 3 < l->end && is_word(p[3])))
        return 0;
    advance(l, (size_t)(p + 3 - l->at));
    while (l->at < l->end && is_space(*l->at))
        advance(l, 1);
    strip = starts(l, "-%}");
    if (!strip && !starts(l, "%}"))
        jinja_fail(l->j, LATHE_EFORMAT, "line %d: found something after raw, expected %%}", l->line);
    advance(l, strip ? 3 : 2);
    after_tag(l, strip, 1);
    const char *from = l->at, *tag, *name, *stop;
    for (tag = from;; tag++) {
        if (l->end - tag < 2)
            jinja_fail(l->j, LATHE_EFORMAT, "line %d: raw doesn't end", l->line);
        if (tag[0] != '{' || tag[1] != '%')
            continue;
        name = tag + 2;
        name += name < l->end && (*name == '-' || *name == '+');
        while (name < l->end && is_space(*name))
            name++;
        if (l->end - name >= 6 && memcmp(name, "endraw", 6) == 0)
            break;
    }
    stop = tag;
    if (tag[2] == '-')
        while (stop > from && is_space(stop[-1]))
            stop--;
    x->type = T_TEXT;
    x->line = l->line;
    x->text = (struct text){from, (size_t)(stop - from)};
    advance(l, (size_t)(name + 6 - l->at));
    while (l->at < l->end && is_space(*l->at))
        advance(l, 1);
    strip = starts(l, "-%}");
    if (!strip && !starts(l, "%}"))
        jinja_fail(l->j, LATHE_EFORMAT, "line %d: found something after endraw, expected %%}", l->line);
    advance(l, strip ? 3 : 2);
    after_tag(l, strip, 1);
    l->mode = 0;
    return 1;
}

static int open_tag(struct lexer *l, struct lexeme *x)
{
    if (!starts(l, "{{") && !starts(l, "{%"))
        return 0;
    x->type = l->at[1] == '{' ? T_BEGIN_OUTPUT : T_BEGIN_BLOCK;
    x->line = l->line;
    l->mode = x->type;
    l->nested = 0;
    advance(l, 2);
    if (l->at < l->end && (*l->at == '-' || (*l->at == '+' && x->type == T_BEGIN_BLOCK)))
        advance(l, 1);
    if (x->type == T_BEGIN_BLOCK)
        lex_raw(l, x);
    return 1;
}

static int close_tag(struct lexer *l, struct lexeme *x)
{
    int block = l->mode == T_BEGIN_BLOCK;
    const char *mark = block ? "%}" : "}}";
    int sign = starts(l, block ? "-%}" : "-}}") || (block && starts(l, "+%}"));
    if (l->nested || (!sign && !starts(l, mark)))
        return 0;
    char how = sign ? *l->at : 0;
    x->type = block ? T_END_BLOCK : T_END_OUTPUT;
    l->mode = 0;
    advance(l, sign ? 3 : 2);
    after_tag(l, how == '-', block && how != '+');
    return 1;
}

static unsigned hex(struct lexer *l, const char *at, size_t digits)
{
    unsigned value = 0;
    for (size_t i = 0; i < digits; i++) {
        char c = at + i < l->end ? at[i] : 0;
        if (c >= '0' && c <= '9')
            value = value * 16 + (unsigned)(c - '0');
        else if ((c | 32) >= 'a' && (c | 32) <= 'f')
            value = value * 16 + (unsigned)((c | 32) - 'a' + 10);
        else
            jinja_fail(l->j, LATHE_EFORMAT, "a string of line %d has a broken \\x or \\u", l->line);
    }
    return value;
}

static void lex_string(struct lexer *l, struct lexeme *x)
{
    static const char from[] = "ntr\\'\"abfv0\n", to[] = "\n\t\r\\'\"\a\b\f\v\0";
    char quote = *l->at;
    const char *end = l->at + 1;
    while (end < l->end && *end != quote)
        end += *end == '\\' && end + 1 < l->end ? 2 : 1;
    if (end >= l->end)
        jinja_fail(l->j, LATHE_EFORMAT, "a string of line %d doesn't end", l->line);
    char *out = jinja_alloc(l->j, (size_t)(end - l->at) + 4);
    size_t n = 0;
    for (const char *p = l->at + 1; p < end; p++) {
        const char *known;
        if (*p != '\\') {
            out[n++] = *p;
        } else if (p[1] == 'x' || p[1] == 'u') {
            size_t digits = p[1] == 'x' ? 2 : 4;
            unsigned code = hex(l, p + 2, digits);
            if (code >= 0xd800 && code <= 0xdfff)
                jinja_fail(l->j, LATHE_EFORMAT, "a string of line %d has half a surrogate pair", l->line);
            n += utf8_put(code, (unsigned char *)out + n);
            p += 1 + digits;
        } else if (p[1] && (known = strchr(from, p[1]))) {
            if (*known != '\n') /* a backslash at the end of a line joins it to the next */
                out[n++] = to[known - from];
            p++;
        } else {
            out[n++] = '\\';
        }
    }
    x->type = T_STRING;
    x->text = (struct text){out, n};
    advance(l, (size_t)(end + 1 - l->at));
}

static void lex_number(struct lexer *l, struct lexeme *x)
{
    char digits[64];
    const char *p = l->at;
    int real = 0;
    size_t n = 0;
    for (; p < l->end; p++) {
        int exponent = *p == 'e' || *p == 'E';
        if (*p == '.' && !(p + 1 < l->end && p[1] >= '0' && p[1] <= '9'))
            break;
        if (!(*p >= '0' && *p <= '9') && *p != '_' && *p != '.' && !exponent && !((*p == '-' || *p == '+') && (p[-1] | 32) == 'e'))
            break;
        real |= *p == '.' || exponent;
        if (n == sizeof digits - 1)
            jinja_fail(l->j, LATHE_EFORMAT, "a number of line %d is too long", l->line);
        if (*p != '_')
            digits[n++] = *p;
    }
    digits[n] = 0;
    errno = 0;
    x->type = real ? T_FLOAT : T_INT;
    if (real)
        x->number = strtod(digits, NULL);
    else
        x->integer = strtoll(digits, NULL, 10);
    if (errno == ERANGE && !real)
        jinja_fail(l->j, LATHE_ERANGE, "a number of line %d is over 2^63", l->line);
    advance(l, (size_t)(p - l->at));
}

static void lex_operator(struct lexer *l, struct lexeme *x)
{
    static const char *const doubles[] = {"==", "!=", "<=", ">=", "//", "**"};
    static const char singles[] = "+-*/%~()[]{}.,:|<>=";
    size_t n = 0;
    for (size_t i = 0; i < sizeof doubles / sizeof *doubles; i++)
        if (starts(l, doubles[i]))
            n = 2;
    if (!n && *l->at && strchr(singles, *l->at))
        n = 1;
    if (!n)
        jinja_fail(l->j, LATHE_EFORMAT, "line %d has a character 0x%02x where an expression was expected", l->line,
                   (unsigned char)*l->at);
    if (strchr("([{", *l->at))
        l->nested++;
    else if (strchr(")]}", *l->at) && l->nested)
        l->nested--;
    x->type = T_OP;
    x->text = (struct text){l->at, n};
    advance(l, n);
}

void lexer_next(struct lexer *l, struct lexeme *x)
{
    memset(x, 0, sizeof *x);
    while (!l->mode) {
        if (open_tag(l, x) || lex_text(l, x))
            return;
        l->j->line = l->line;
    }
    while (l->at < l->end && is_space(*l->at))
        advance(l, 1);
    x->line = l->line;
    if (l->at == l->end)
        jinja_fail(l->j, LATHE_EFORMAT, "a tag doesn't end before the template does");
    if (close_tag(l, x))
        return;
    if (*l->at == '\'' || *l->at == '"') {
        lex_string(l, x);
    } else if (*l->at >= '0' && *l->at <= '9') {
        lex_number(l, x);
    } else if (is_word(*l->at)) {
        const char *from = l->at;
        while (l->at < l->end && is_word(*l->at))
            l->at++;
        x->type = T_NAME;
        x->text = (struct text){from, (size_t)(l->at - from)};
    } else {
        lex_operator(l, x);
    }
}
