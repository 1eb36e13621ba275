/* SPDX-License-Identifier: MIT */
#include "text.h"

#include <math.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int make_room(struct text *text, size_t more)
{
    size_t need;
    if (text->failed)
        return 0;
    if (__builtin_add_overflow(text->count, more, &need) || need > SIZE_MAX / 4) {
        text->failed = 1;
        return 0;
    }
    if (need + 1 > text->capacity) {
        size_t capacity = text->capacity ? text->capacity : 128;
        while (capacity < need + 1)
            capacity *= 2;
        char *bytes = realloc(text->bytes, capacity);
        if (!bytes) {
            text->failed = 1;
            return 0;
        }
        text->bytes = bytes;
        text->capacity = capacity;
    }
    return 1;
}

void text_add(struct text *text, const char *bytes, size_t count)
{
    if (!make_room(text, count))
        return;
    if (count > 0)
        memcpy(text->bytes + text->count, bytes, count);
    text->count += count;
    text->bytes[text->count] = '\0';
}

void text_print(struct text *text, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    if (n < 0)
        text->failed = 1;
    else if (make_room(text, (size_t)n)) {
        vsnprintf(text->bytes + text->count, (size_t)n + 1, format, again);
        text->count += (size_t)n;
    }
    va_end(again);
    va_end(args);
}

/* Bytes of the well-formed UTF-8 character at s, 0 if there is none (Unicode 15, table 3-7). */
static size_t utf8_length(const unsigned char *s)
{
    if (s[0] < 0x80)
        return 1;
    if (s[0] >= 0xC2 && s[0] <= 0xDF)
        return (s[1] & 0xC0) == 0x80 ? 2 : 0;
    if (s[0] >= 0xE0 && s[0] <= 0xEF) {
        unsigned low = s[0] == 0xE0 ? 0xA0 : 0x80, high = s[0] == 0xED ? 0x9F : 0xBF;
        return s[1] >= low && s[1] <= high && (s[2] & 0xC0) == 0x80 ? 3 : 0;
    }
    if (s[0] >= 0xF0 && s[0] <= 0xF4) {
        unsigned low = s[0] == 0xF0 ? 0x90 : 0x80, high = s[0] == 0xF4 ? 0x8F : 0xBF;
        return s[1] >= low && s[1] <= high && (s[2] & 0xC0) == 0x80 && (s[3] & 0xC0) == 0x80 ? 4 : 0;
    }
    return 0;
}

void text_json_bytes(struct text *text, const char *bytes, size_t count)
{
    text_add(text, "\"", 1);
    for (size_t i = 0, n; i < count; i += n) {
        unsigned char s[5] = { 0 }; /* what follows the last byte ends any character */
        memcpy(s, bytes + i, count - i < 4 ? count - i : 4);
        n = utf8_length(s);
        if (n == 0) {
            text_add(text, "\xEF\xBF\xBD", 3);
            n = 1;
        } else if (n > 1) {
            text_add(text, (const char *)s, n);
        } else if (*s == '"' || *s == '\\') {
            text_print(text, "\\%c", *s);
        } else if (*s == '\n') {
            text_add(text, "\\n", 2);
        } else if (*s == '\t') {
            text_add(text, "\\t", 2);
        } else if (*s < 0x20 || *s == 0x7F) {
            text_print(text, "\\u%04x", *s);
        } else {
            text_add(text, (const char *)s, 1);
        }
    }
    text_add(text, "\"", 1);
}

void text_json(struct text *text, const char *string)
{
    if (string)
        text_json_bytes(text, string, strlen(string));
    else
        text_print(text, "null");
}

void text_json_number(struct text *text, double value)
{
    char digits[40];
    if (!isfinite(value)) {
        text_print(text, "null");
        return;
    }
    for (int precision = 15; precision <= 17; precision++) {
        snprintf(digits, sizeof digits, "%.*g", precision, value);
        if (strtod(digits, NULL) == value)
            break;
    }
    text_print(text, "%s", digits);
}

void text_free(struct text *text)
{
    free(text->bytes);
    memset(text, 0, sizeof *text);
}
