/* SPDX-License-Identifier: MIT */
/* Text that grows, and JSON written into it piece by piece.
 *
 * Zero-initialise, append, take `bytes`, free. When memory runs out the text is marked
 * `failed` and further appends do nothing, so that a caller checks once, at the end. */
#ifndef CORE_TEXT_H
#define CORE_TEXT_H

#include <stddef.h>

struct text {
    char *bytes; /* NUL-terminated once anything was appended */
    size_t count, capacity;
    int failed;
};

void text_add(struct text *text, const char *bytes, size_t count);
void text_print(struct text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* A JSON string with its quotes. NULL is null. Bytes that are no UTF-8 become U+FFFD. */
void text_json(struct text *text, const char *string);
/* The same of `count` bytes, NULs among them. */
void text_json_bytes(struct text *text, const char *bytes, size_t count);
/* The shortest decimal that reads back as the same double; null for NaN and infinities. */
void text_json_number(struct text *text, double value);
void text_free(struct text *text);

#endif
