/* SPDX-License-Identifier: MIT */
/* Kept lists and masses: see kept.h. */
#include <inttypes.h>
#include <string.h>

#include <forward/kept.h>

static uint32_t sets_of(const struct forward_limits *limits)
{
    return lathe_kv_sets(limits->params.kv_scope, limits->layers, limits->kv_heads);
}

/* One set. Of a scope with one, entries from first_position on end it; with several there are none. */
static int check_set(const struct forward_limits *limits, struct forward_batch *b, uint32_t s, uint32_t set, int alone,
                     struct lathe_error *err)
{
    const struct lathe_slice *slice = &b->slices[s];
    const int32_t *kept = b->kept + slice->kept_first + (uint64_t)set * slice->kept_count;
    int64_t step = limits->params.block_tokens, checked = 0; /* positions below lie in blocks that were looked at */
    uint32_t before = 0;
    int status;
    for (uint32_t k = 0; k < slice->kept_count; k++) {
        if (kept[k] < 0 || (k && kept[k] <= kept[k - 1]))
            return lathe_fail(err, LATHE_EINVAL, "forward: slice %u (request %" PRIu64 ") has a kept list that does not "
                              "ascend at entry %u of set %u", s, slice->request, k, set);
        if (kept[k] >= slice->first_position && alone)
            break;
        if (kept[k] >= slice->first_position)
            return lathe_fail(err, LATHE_EINVAL, "forward: slice %u (request %" PRIu64 ") keeps position %d in set %u and begins "
                              "at %d; with several sets all lie before it", s, slice->request, kept[k], set,
                              slice->first_position);
        before++;
        if (kept[k] < checked)
            continue;
        if ((status = forward_block_check(limits, b, s, kept[k], err)))
            return status;
        checked = (kept[k] / step + 1) * step;
    }
    b->slice_kept[s] = before;
    return 0;
}

int forward_kept_check(const struct forward_limits *limits, const struct lathe_forward_in *in, struct forward_batch *b,
                       uint32_t s, struct lathe_error *err)
{
    const struct lathe_slice *slice = &b->slices[s];
    uint32_t sets = sets_of(limits);
    int status = 0;
    b->slice_kept[s] = 0;
    if (slice->flags & LATHE_SLICE_CACHE_POSITIONS && !(limits->params.kv_flags & LATHE_KV_KEYS_UNROTATED))
        return lathe_fail(err, LATHE_EINVAL, "forward: slice %u (request %" PRIu64 ") wants positions in the cache; the context "
                          "was made to keep keys rotated: give it LATHE_KV_KEYS_UNROTATED", s, slice->request);
    if ((uint64_t)slice->kept_first + (uint64_t)slice->kept_count * sets > in->kept.count)
        return lathe_fail(err, LATHE_EINVAL, "forward: slice %u (request %" PRIu64 ") has a kept list of %u sets of %u outside "
                          "its message", s, slice->request, sets, slice->kept_count);
    for (uint32_t set = 0; set < sets && slice->kept_count && !status; set++)
        status = check_set(limits, b, s, set, limits->params.kv_scope == LATHE_KV_REQUEST, err);
    return status;
}

int forward_mass_place(const struct forward_limits *limits, struct forward_batch *b, uint32_t s, struct lathe_error *err)
{
    const struct lathe_slice *slice = &b->slices[s];
    int wanted = slice->flags & LATHE_SLICE_KEY_MASS && !(slice->flags & LATHE_SLICE_PADDING);
    uint64_t count = (uint64_t)sets_of(limits) * forward_slice_keys(b, s);
    if (wanted && !b->slice_mass)
        return lathe_fail(err, LATHE_EUNSUPPORTED, "forward: slice %u (request %" PRIu64 ") wants its keys' masses; this model "
                          "can't tell them", s, slice->request);
    if (!b->slice_mass)
        return 0;
    b->slice_mass[s] = wanted ? 1 + b->mass_count : 0;
    if (wanted && (b->mass_count += count) > SIZE_MAX / 16)
        return lathe_fail(err, LATHE_EFULL, "forward: the masses of %u slices are more than can be counted", s + 1);
    return 0;
}

int forward_mass_check(struct forward_batch *b, const struct lathe_forward_out *out, struct lathe_error *err)
{
    if (b->mass_count == 0)
        return 0;
    if (out->masses.bytes < out->mass_bytes || (uintptr_t)b->masses % sizeof(float))
        return lathe_fail(err, LATHE_EFULL, "forward: keys' masses need %" PRIu64 " bytes; the reply has room for %" PRIu64
                          " (4-byte aligned)", out->mass_bytes, out->masses.bytes);
    memset(b->masses, 0, out->mass_bytes);
    return 0;
}
