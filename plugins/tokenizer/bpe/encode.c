/* SPDX-License-Identifier: MIT */
/* Text to ids: repair, cut at special tokens, normalize, cut into pieces, merge. */
#include "bpe.h"

/* Invalid UTF-8 with U+FFFD for each maximal subpart, in memory from the host. */
static int repair(const struct vocab *v, const unsigned char **text, size_t *count, unsigned char **owned,
                  struct lathe_error *err)
{
    if (utf8_valid(*text, *count) == *count)
        return 0;
    unsigned char *out = lathe_alloc_array(v->host, *count, 3);
    if (!out)
        return lathe_fail(err, LATHE_ENOMEM, "no memory to repair %zu bytes of text that isn't UTF-8", *count);
    *count = utf8_repair(*text, *count, out);
    *owned = out;
    *text = out;
    return 0;
}

static int encode_pieces(const struct vocab *v, const unsigned char *text, size_t count, struct sink *sink)
{
    int rc = 0;
    while (count && !rc) {
        size_t piece = pretokenize(v->pretokenizer, text, count);
        rc = merge_piece(v, text, piece, sink);
        text += piece;
        count -= piece;
    }
    return rc;
}

/* Text between special tokens. */
static int encode_plain(const struct vocab *v, const unsigned char *text, size_t count, struct sink *sink)
{
    if (v->pretokenizer != PRETOKENIZER_QWEN2 || !nfc_needed(text, count))
        return encode_pieces(v, text, count, sink);
    uint32_t *codes = lathe_alloc_array(v->host, 4 * count + 4, sizeof *codes);
    unsigned char *normal = lathe_alloc_array(v->host, count, 3);
    int rc = codes && normal ? 0 : LATHE_ENOMEM;
    if (!rc)
        rc = encode_pieces(v, normal, nfc_compose(text, count, codes, normal), sink);
    lathe_free(v->host, codes);
    lathe_free(v->host, normal);
    return rc;
}

int encode_text(const struct vocab *v, uint32_t flags, const unsigned char *text, size_t count, struct sink *sink,
                struct lathe_error *err)
{
    unsigned char *owned = NULL;
    size_t plain = 0; /* where the text since the last special token begins */
    if (count > INT32_MAX)
        return lathe_fail(err, LATHE_ERANGE, "found %zu bytes of text, expected less than 2^31", count);
    int rc = repair(v, &text, &count, &owned, err);
    if (rc)
        return rc;
    if ((flags & LATHE_ENCODE_BOS) && v->add_bos)
        sink_put(sink, v->bos);
    for (size_t at = 0; at < count && v->special_count && !rc;) {
        int32_t id = special_at(v, text + at, count - at, flags & LATHE_ENCODE_SPECIAL);
        if (id < 0) {
            at++;
            continue;
        }
        rc = encode_plain(v, text + plain, at - plain, sink);
        sink_put(sink, id);
        at += v->tokens[id].count;
        plain = at;
    }
    if (!rc)
        rc = encode_plain(v, text + plain, count - plain, sink);
    lathe_free(v->host, owned);
    return rc ? lathe_fail(err, rc, "no memory to encode %zu bytes of text", count) : 0;
}
