/* SPDX-License-Identifier: MIT */
/* Text from a database on a terminal: any bytes, made harmless, and how many columns they take. */
#include "sql.h"

#include <string.h>
#include <wchar.h>

size_t sql_character(const unsigned char *s, size_t count, uint32_t *code)
{
    size_t n = s[0] < 0x80 ? 1 : s[0] >= 0xF0 ? 4 : s[0] >= 0xE0 ? 3 : s[0] >= 0xC2 ? 2 : 0;
    static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
    uint32_t value = n == 1 ? s[0] : n ? s[0] & (0x7Fu >> n) : 0;
    bool good = n > 0 && n <= count;
    for (size_t i = 1; good && i < n; i++) {
        good = (s[i] & 0xC0) == 0x80;
        value = value << 6 | (s[i] & 0x3F);
    }
    good = good && value >= least[n] && value <= 0x10FFFF && (value < 0xD800 || value > 0xDFFF);
    *code = good ? value : 0xFFFD;
    return good ? n : 1;
}

/* What a terminal gets for one character, and how many columns that takes. */
static int show(uint32_t code, const unsigned char *s, size_t n, char shown[8])
{
    static const char from[] = "\n\r\t", to[] = "nrt";
    const char *known = code && code < 0x20 ? strchr(from, (int)code) : NULL;
    if (known)
        return snprintf(shown, 8, "\\%c", to[known - from]);
    if (code < 0x20 || (code >= 0x7F && code < 0xA0))
        return snprintf(shown, 8, "\\x%02x", (unsigned)code);
    if (code == 0xFFFD) {
        strcpy(shown, "\xEF\xBF\xBD");
        return 1;
    }
    memcpy(shown, s, n);
    shown[n] = '\0';
    int width = wcwidth((wchar_t)code);
    return width < 0 ? 1 : width;
}

int sql_print_text(FILE *out, const char *bytes, size_t count, int most)
{
    const unsigned char *s = (const unsigned char *)bytes, *end = s + count, *fits = s;
    int width = 0, fitting = 0; /* of the whole; of what leaves room for "…" */
    char shown[8];
    uint32_t code;
    for (const unsigned char *p = s; p < end;) {
        size_t n = sql_character(p, (size_t)(end - p), &code);
        int columns = show(code, p, n, shown);
        if (most > 0 && width + columns > most) {
            for (p = s; out && p < fits; p += n) {
                n = sql_character(p, (size_t)(end - p), &code);
                show(code, p, n, shown);
                fputs(shown, out);
            }
            if (out)
                fputs("…", out);
            return fitting + 1;
        }
        width += columns;
        p += n;
        if (width < most) {
            fits = p;
            fitting = width;
        }
    }
    for (const unsigned char *p = s; out && p < end;) {
        size_t n = sql_character(p, (size_t)(end - p), &code);
        show(code, p, n, shown);
        fputs(shown, out);
        p += n;
    }
    return width;
}
