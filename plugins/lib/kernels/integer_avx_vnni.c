/* SPDX-License-Identifier: MIT */
/* Integer products for AVX-VNNI: dpbusd of 256 bits. */
#if defined(__x86_64__)
#include <kernels/integer_256.h>

#define UNPACKED 8
#define TOGETHER 2

static inline __attribute__((always_inline)) void unpack(VI *q, const unsigned char *quads, int bytes)
{
    for (int j = 0; j < (bytes ? 8 : 4); j++) {
        VI v = quad_at(quads, j);
        q[j] = bytes ? v : low_four(v);
        if (!bytes)
            q[j + 4] = high_four(v);
    }
}

static inline __attribute__((always_inline)) void dot(VI *sums, int n, const VI *q, const struct integer_block *const *block,
                                                      int bytes)
{
    (void)bytes;
    for (int j = 0; j < 8; j++)
        for (int r = 0; r < n; r++)
            sums[r] = _mm256_dpbusd_avx_epi32(sums[r], q[j], four_of(block[r]->p, j));
}

#include <kernels/integer_vector.h>

extern const struct integer_kernels integer_avx_vnni;
const struct integer_kernels integer_avx_vnni = { .name = "avx_vnni", .lanes = LANES, .quantize = quantize_row,
                                                  .multiply = multiply };
#else
typedef int nothing_here;
#endif
