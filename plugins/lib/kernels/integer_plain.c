/* SPDX-License-Identifier: MIT */
/* Integer products as plain loops: what they mean. */
#include <math.h>

#include <kernels/integer_quantize.h>

enum { LANES = 4 };

/* Σ q · p of a block, of each lane. */
static void dot_block(int32_t sum[LANES], const unsigned char *quads, int form, const int8_t *p)
{
    for (size_t j = 0; j < 8; j++) {
        const unsigned char *quad = quads + 4 * LANES * (form < PACKED_BYTES ? j % 4 : j);
        for (size_t lane = 0; lane < LANES; lane++)
            for (size_t i = 0; i < 4; i++) {
                int q = quad[4 * lane + i];
                q = form >= PACKED_BYTES ? q : j < 4 ? q & 15 : q >> 4;
                sum[lane] += q * p[4 * j + i];
            }
    }
}

static void multiply(float *y, size_t y_stride, const unsigned char *x, size_t x_stride, size_t m,
                     const struct integer_weights *w, int add)
{
    size_t blocks = w->columns / PACKED_BLOCK, quads = packed_quads_bytes(w->form, LANES);
    size_t scales = packed_scales_bytes(w->form, LANES), group_bytes = packed_group_bytes(w->form, LANES, w->columns);
    for (size_t r = 0; r < m; r++, x += x_stride, y += y_stride)
        for (size_t from = 0; from < w->n; from += LANES) {
            const unsigned char *group = w->groups + from / LANES * group_bytes;
            float sum[LANES] = { 0 };
            for (size_t at = 0; at < blocks; at++) {
                const struct integer_block *block = (const struct integer_block *)(const void *)x + at;
                uint16_t factors[2 * LANES];
                int32_t dot[LANES];
                memcpy(factors, group + blocks * quads + at * scales, scales);
                for (size_t lane = 0; lane < LANES; lane++)
                    dot[lane] = block->zero * (w->form == PACKED_NIBBLES ? 1 : w->form == PACKED_BYTES ? 16 : 0);
                dot_block(dot, group + at * quads, w->form, block->p);
                for (size_t lane = 0; lane < LANES; lane++) {
                    sum[lane] = fmaf((float)dot[lane], float_of_half(factors[lane]) * block->s, sum[lane]);
                    if (scales > 2 * LANES)
                        sum[lane] = fmaf(float_of_half(factors[LANES + lane]), block->sum, sum[lane]);
                }
            }
            for (size_t lane = 0; lane < LANES && from + lane < w->n; lane++)
                y[from + lane] = add ? y[from + lane] + sum[lane] : sum[lane];
        }
}

const struct integer_kernels integer_plain = { .name = "plain", .lanes = LANES, .quantize = quantize_row,
                                               .multiply = multiply };
