/* SPDX-License-Identifier: MIT */
/* Ids to text. A token may end within a character: its bytes wait in the caller's state, so what
 * goes out is whole characters, and any cut of a stream gives the same text. Nothing is
 * allocated: the engine decodes inside its step. */
#include "bpe.h"

int bpe_decode(void *self, const void *in_, void *out_, struct lathe_error *err)
{
    const struct vocab *v = self;
    const struct lathe_decode_in *in = in_;
    struct lathe_decode_out *out = out_;
    struct lathe_decode_state state = in->state;
    if (out->head.capacity < sizeof *out)
        return lathe_fail(err, LATHE_EFULL, "found room for %llu bytes of a decode reply, expected at least %zu",
                          (unsigned long long)out->head.capacity, sizeof *out);
    if (!lathe_span_check(&in->head, in->tokens, sizeof(int32_t), _Alignof(int32_t)) || state.count > 3)
        return lathe_fail(err, LATHE_EINVAL, "found tokens outside of the message or %u pending bytes, expected a span and 0 to 3",
                          state.count);
    const int32_t *tokens = LATHE_SPAN(const int32_t, in, in->tokens);
    struct utf8_output o = {(unsigned char *)(out + 1), out->head.capacity - sizeof *out, 0};
    for (uint64_t i = 0; i < in->tokens.count; i++) {
        if (tokens[i] < 0 || (uint32_t)tokens[i] >= v->count)
            return lathe_fail(err, LATHE_ERANGE, "found token %d, expected 0 to %u", tokens[i], v->count - 1);
        const struct token *t = &v->tokens[tokens[i]];
        state.started = 1;
        if (t->kind == TOKEN_CONTROL && !(in->flags & LATHE_DECODE_SPECIAL))
            continue;
        if (in->flags & LATHE_DECODE_RAW)
            utf8_output_put(&o, v->bytes + t->at, t->count);
        else
            utf8_feed(&state, v->bytes + t->at, t->count, &o);
    }
    if (in->flags & LATHE_DECODE_FLUSH)
        utf8_flush(&state, &o);
    out->needed = o.count;
    out->text = (struct lathe_span){sizeof *out, 0};
    out->head.bytes = sizeof *out;
    out->state = in->state;
    if (o.count > o.room)
        return lathe_fail(err, LATHE_EFULL, "found room for %llu bytes of text, expected %llu", (unsigned long long)o.room,
                          (unsigned long long)o.count);
    out->text.count = o.count;
    out->head.bytes = sizeof *out + o.count;
    out->state = state;
    return 0;
}
