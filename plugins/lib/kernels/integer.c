/* SPDX-License-Identifier: MIT */
/* Which implementation of integer products: asked of the processor once, as in kernels.c. */
#include <stdlib.h>
#include <string.h>

#include <kernels/integer.h>

#if defined(__x86_64__)
#include <cpuid.h>

extern const struct integer_kernels integer_avx2, integer_avx_vnni, integer_avx512_vnni;

/* CPUID leaf 7.1, EAX bit 4; GCC 12 has no name for it. */
static int has_avx_vnni(void)
{
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) && a >> 4 & 1;
}
#endif

enum { MOST = 4 };

size_t integer_all(const struct integer_kernels **all, size_t capacity)
{
    const struct integer_kernels *found[MOST] = { &integer_plain };
    size_t count = 1;
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c")) {
        found[count++] = &integer_avx2;
        if (has_avx_vnni())
            found[count++] = &integer_avx_vnni;
        if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
            __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
            __builtin_cpu_supports("avx512vnni"))
            found[count++] = &integer_avx512_vnni;
    }
#endif
    for (size_t i = 0; i < count && i < capacity; i++)
        all[i] = found[i];
    return count;
}

const struct integer_kernels *integer_best(void)
{
    static const struct integer_kernels *chosen; /* written once with the one right answer */
    const struct integer_kernels *best = __atomic_load_n(&chosen, __ATOMIC_ACQUIRE);
    if (best)
        return best;
    const struct integer_kernels *all[MOST];
    const char *wanted = getenv("LATHE_KERNELS");
    size_t count = integer_all(all, MOST);
    best = all[count - 1];
    for (size_t i = 0; wanted && i < count; i++)
        if (strcmp(all[i]->name, wanted) == 0)
            best = all[i];
    __atomic_store_n(&chosen, best, __ATOMIC_RELEASE);
    return best;
}
