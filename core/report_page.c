/* SPDX-License-Identifier: MIT */
/* The page around the data: report/page.html, with style, data and scripts put in where it says
 * <!-- style -->, <!-- data --> and <!-- script -->.
 *
 * Nothing of a database can become markup or code: its strings are in the JSON only, where every < is
 * written as an escape, and the page's scripts make text nodes of them. Should one slip through all the same, the
 * page's content security policy names style and script by their SHA-256 and allows no other, and no network. */
#include "report.h"

#include <stdlib.h>
#include <string.h>

#include "product.h"
#include "sha256.h"

static const struct report_file *find_file(const char *name)
{
    for (int i = 0; i < report_file_count; i++)
        if (strcmp(report_files[i].name, name) == 0)
            return &report_files[i];
    return NULL;
}

/* All files that end so, one after the other. */
static void join(struct text *text, const char *ending)
{
    size_t length = strlen(ending);
    for (int i = 0; i < report_file_count; i++) {
        size_t name = strlen(report_files[i].name);
        if (name > length && strcmp(report_files[i].name + name - length, ending) == 0)
            text_add(text, report_files[i].bytes, report_files[i].count);
    }
}

/* 'sha256-…' as a policy has it. */
static void write_hash(FILE *out, const struct text *text)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char hex[SHA256_HEX_BYTES];
    unsigned bytes[33] = { 0 };
    sha256_bytes(text->bytes, text->count, hex);
    for (int i = 0; i < 32; i++)
        sscanf(hex + 2 * i, "%2x", &bytes[i]);
    fputs("'sha256-", out);
    for (int i = 0; i < 33; i += 3) {
        unsigned word = bytes[i] << 16 | bytes[i + 1] << 8 | bytes[i + 2];
        fputc(digits[word >> 18], out);
        fputc(digits[word >> 12 & 63], out);
        fputc(digits[word >> 6 & 63], out);
        fputc(i < 30 ? digits[word & 63] : '=', out);
    }
    fputc('\'', out);
}

static void write_data(const struct report *r, FILE *out)
{
    fwrite(r->columns.bytes ? r->columns.bytes : "", 1, r->columns.count, out);
    fputs("<script type=\"application/json\" id=\"data\">", out);
    for (size_t i = 0; i < r->json.count; i++)
        if (r->json.bytes[i] == '<')
            fputs("\\u003c", out);
        else
            fputc(r->json.bytes[i], out);
    fputs("</script>\n", out);
}

int report_page(const struct report *r, FILE *out, struct lathe_error *err)
{
    const struct report_file *page = find_file("page.html");
    struct text style = { 0 }, script = { 0 };
    join(&style, ".css");
    text_print(&script, "'use strict';\n(() => {\n");
    join(&script, ".js");
    text_print(&script, "})();\n");
    int status = r->json.failed || r->columns.failed || style.failed || script.failed
        ? lathe_fail(err, LATHE_ENOMEM, "no memory for the page; name fewer runs with --run") : LATHE_OK;
    for (const char *at = page->bytes, *mark; !status && *at; at = mark) {
        mark = strstr(at, "<!-- ");
        if (!mark)
            mark = at + strlen(at);
        fwrite(at, 1, (size_t)(mark - at), out);
        if (strncmp(mark, "<!-- policy -->", 15) == 0) {
            fputs("<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src data:; "
                  "base-uri 'none'; form-action 'none'; style-src ", out);
            write_hash(out, &style);
            fputs("; script-src ", out);
            write_hash(out, &script);
            fputs("\">", out);
            mark += 15;
        } else if (strncmp(mark, "<!-- style -->", 14) == 0) {
            fprintf(out, "<style>%s</style>", style.bytes);
            mark += 14;
        } else if (strncmp(mark, "<!-- data -->", 13) == 0) {
            write_data(r, out);
            mark += 13;
        } else if (strncmp(mark, "<!-- script -->", 15) == 0) {
            fprintf(out, "<script>%s</script>", script.bytes);
            mark += 15;
        } else if (*mark) { /* a comment */
            const char *end = strstr(mark, "-->");
            mark = end ? end + 3 : mark + strlen(mark);
        }
    }
    text_free(&style);
    text_free(&script);
    return status;
}
