/* SPDX-License-Identifier: MIT */
/* Loops that do nothing but arithmetic, in registers: the peak of each instruction set.
 *
 * Enough sums at once that none waits for the one before (two units, four to five cycles), and an
 * empty asm that takes an operand each round, so that the compiler can neither hoist a product out
 * of the loop nor drop it. int8 is counted the way weights are multiplied: unsigned bytes by
 * signed ones into sums of 32 bits; with AVX2 that is maddubs, madd and add, with VNNI one
 * instruction. (4-bit weights whose products are summed in 16 bits before they are widened can
 * pass AVX2's figure: two instructions instead of three.)
 *
 * LATHE_KERNELS (plain, avx2, avx512) caps the set here as it does in model/llama, so that a
 * machine with wider instructions can be measured at those of a narrower one. */
#include "bench.h"

#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum { SUMS = 10 };

typedef float float4 __attribute__((vector_size(16)));

/* Multiplications and additions of four floats: what every processor has. */
static double plain_f32(uint64_t rounds)
{
    float4 sums[SUMS], x = { 1.0f, 1.0f, 1.0f, 1.0f }, y = { 1e-9f, 1e-9f, 1e-9f, 1e-9f };
    for (int i = 0; i < SUMS; i++)
        sums[i] = y * (float)i;
    for (uint64_t r = 0; r < rounds; r++) {
        __asm__ volatile("" : : "m"(x), "m"(y));
        for (int i = 0; i < SUMS; i++)
            sums[i] = sums[i] * x + y;
    }
    for (int i = 0; i < SUMS; i++)
        __asm__ volatile("" : : "m"(sums[i]));
    return (double)rounds * SUMS * 4 * 2;
}

#if defined(__x86_64__)
/* KEEP: the compiler must take the register as changed. */
#define KEEP(v) __asm__ volatile("" : "+x"(v))
#define KEEP512(v) __asm__ volatile("" : "+v"(v))
/* `sums` in registers of their own: an array of them would go through memory. */
#define EACH(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9)

__attribute__((target("avx2,fma"))) static double avx2_f32(uint64_t rounds)
{
    __m256 x = _mm256_set1_ps(1.0f), y = _mm256_set1_ps(1e-9f);
#define START(i) __m256 s##i = _mm256_set1_ps((float)i);
#define STEP(i) s##i = _mm256_fmadd_ps(s##i, x, y);
#define END(i) KEEP(s##i);
    EACH(START)
    for (uint64_t r = 0; r < rounds; r++) {
        KEEP(x);
        EACH(STEP)
    }
    EACH(END)
#undef START
#undef STEP
#undef END
    return (double)rounds * SUMS * 8 * 2;
}

__attribute__((target("avx2"))) static double avx2_int8(uint64_t rounds)
{
    __m256i x = _mm256_set1_epi8(3), y = _mm256_set1_epi8(-2), ones = _mm256_set1_epi16(1);
#define START(i) __m256i s##i = _mm256_set1_epi32(i);
#define STEP(i) \
    KEEP(x);    \
    s##i = _mm256_add_epi32(s##i, _mm256_madd_epi16(_mm256_maddubs_epi16(x, y), ones));
#define END(i) KEEP(s##i);
    EACH(START)
    for (uint64_t r = 0; r < rounds; r++) {
        EACH(STEP)
    }
    EACH(END)
#undef START
#undef STEP
#undef END
    return (double)rounds * SUMS * 32 * 2;
}

__attribute__((target("avxvnni"))) static double avx_vnni_int8(uint64_t rounds)
{
    __m256i x = _mm256_set1_epi8(3), y = _mm256_set1_epi8(-2);
#define START(i) __m256i s##i = _mm256_set1_epi32(i);
#define STEP(i) s##i = _mm256_dpbusd_avx_epi32(s##i, x, y);
#define END(i) KEEP(s##i);
    EACH(START)
    for (uint64_t r = 0; r < rounds; r++) {
        KEEP(x);
        EACH(STEP)
    }
    EACH(END)
#undef START
#undef STEP
#undef END
    return (double)rounds * SUMS * 32 * 2;
}

__attribute__((target("avx512f"))) static double avx512_f32(uint64_t rounds)
{
    __m512 x = _mm512_set1_ps(1.0f), y = _mm512_set1_ps(1e-9f);
#define START(i) __m512 s##i = _mm512_set1_ps((float)i);
#define STEP(i) s##i = _mm512_fmadd_ps(s##i, x, y);
#define END(i) KEEP512(s##i);
    EACH(START)
    for (uint64_t r = 0; r < rounds; r++) {
        KEEP512(x);
        EACH(STEP)
    }
    EACH(END)
#undef START
#undef STEP
#undef END
    return (double)rounds * SUMS * 16 * 2;
}

__attribute__((target("avx512f,avx512vnni"))) static double avx512_vnni_int8(uint64_t rounds)
{
    __m512i x = _mm512_set1_epi8(3), y = _mm512_set1_epi8(-2);
#define START(i) __m512i s##i = _mm512_set1_epi32(i);
#define STEP(i) s##i = _mm512_dpbusd_epi32(s##i, x, y);
#define END(i) KEEP512(s##i);
    EACH(START)
    for (uint64_t r = 0; r < rounds; r++) {
        KEEP512(x);
        EACH(STEP)
    }
    EACH(END)
#undef START
#undef STEP
#undef END
    return (double)rounds * SUMS * 64 * 2;
}
#endif

struct bench_loop bench_peak_loop(int arithmetic)
{
    struct bench_loop loop = { "none", NULL };
    const char *cap = getenv("LATHE_KERNELS");
    int widest = cap && !strcmp(cap, "plain") ? 0 : cap && !strcmp(cap, "avx2") ? 1 : 2;
    if (arithmetic == BENCH_F32)
        loop = (struct bench_loop){ "plain C", plain_f32 };
#if defined(__x86_64__)
    __builtin_cpu_init();
    int has_avx2 = widest >= 1 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    int has_avx512 = widest >= 2 && has_avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                     __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    if (arithmetic == BENCH_F32) {
        if (has_avx512)
            loop = (struct bench_loop){ "AVX-512", avx512_f32 };
        else if (has_avx2)
            loop = (struct bench_loop){ "AVX2", avx2_f32 };
    } else if (has_avx512 && __builtin_cpu_supports("avx512vnni")) {
        loop = (struct bench_loop){ "AVX-512 VNNI", avx512_vnni_int8 };
    } else if (widest >= 2 && has_avx2 && __builtin_cpu_supports("avxvnni")) {
        loop = (struct bench_loop){ "AVX-VNNI", avx_vnni_int8 };
    } else if (has_avx2) {
        loop = (struct bench_loop){ "AVX2", avx2_int8 };
    }
#else
    (void)widest;
#endif
    return loop;
}
