/* SPDX-License-Identifier: MIT */
/* Ids to text. A token may end within a character: its bytes wait in the caller's state, so what
 * goes out is whole characters, and any cut of a stream gives the same text. Nothing is
 * allocated: the engine decodes inside its step. */
#include "bpe.h"

#include <string.h>

/* Text going out: counted beyond the room. */
struct output {
    unsigned char *bytes;
    uint64_t room, count;
};

static void put(struct output *o, const unsigned char *bytes, size_t count)
{
    if (o->count + count <= o->room)
        memcpy(o->bytes + o->count, bytes, count);
    o->count += count;
}

static void put_replacement(struct output *o)
{
    put(o, (const unsigned char *)"\xef\xbf\xbd", 3);
}

/* Everything whole that the pending bytes hold; an open sequence stays. */
static void settle(struct lathe_decode_state *s, struct output *o)
{
    while (s->count) {
        size_t bad;
        int open;
        size_t length = utf8_sequence(s->bytes, s->count, &bad, &open);
        if (!length && open)
            return;
        if (length)
            put(o, s->bytes, length);
        else
            put_replacement(o);
        length = length ? length : bad;
        s->count -= (uint32_t)length;
        memmove(s->bytes, s->bytes + length, s->count);
    }
}

static void feed(struct lathe_decode_state *s, const unsigned char *bytes, size_t count, struct output *o)
{
    while (count) {
        if (!s->count) {
            size_t valid = utf8_valid(bytes, count);
            put(o, bytes, valid);
            bytes += valid;
            count -= valid;
            if (!count)
                return;
        }
        s->bytes[s->count++] = *bytes++;
        count--;
        settle(s, o);
    }
}

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
    struct output o = {(unsigned char *)(out + 1), out->head.capacity - sizeof *out, 0};
    for (uint64_t i = 0; i < in->tokens.count; i++) {
        if (tokens[i] < 0 || (uint32_t)tokens[i] >= v->count)
            return lathe_fail(err, LATHE_ERANGE, "found token %d, expected 0 to %u", tokens[i], v->count - 1);
        const struct token *t = &v->tokens[tokens[i]];
        state.started = 1;
        if (t->kind == TOKEN_CONTROL && !(in->flags & LATHE_DECODE_SPECIAL))
            continue;
        if (in->flags & LATHE_DECODE_RAW)
            put(&o, v->bytes + t->at, t->count);
        else
            feed(&state, v->bytes + t->at, t->count, &o);
    }
    if ((in->flags & LATHE_DECODE_FLUSH) && state.count) {
        put_replacement(&o); /* what is open is one maximal subpart */
        state.count = 0;
    }
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
