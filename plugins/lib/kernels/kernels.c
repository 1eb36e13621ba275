/* SPDX-License-Identifier: MIT */
/* Which implementation: asked of the processor once. The answer is a constant of the machine,
 * so that two threads that ask at once store the same pointer. */
#include <stdlib.h>
#include <string.h>

#include <kernels/kernels.h>

#if defined(__x86_64__)
extern const struct kernels kernels_avx2, kernels_avx512;
#endif

size_t kernels_all(const struct kernels **all, size_t capacity)
{
    const struct kernels *found[3] = { &kernels_plain };
    size_t count = 1;
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c")) {
        found[count++] = &kernels_avx2;
        if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
            __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
            found[count++] = &kernels_avx512;
    }
#endif
    for (size_t i = 0; i < count && i < capacity; i++)
        all[i] = found[i];
    return count;
}

const struct kernels *kernels_best(void)
{
    static const struct kernels *chosen; /* written once with the one right answer */
    const struct kernels *best = __atomic_load_n(&chosen, __ATOMIC_ACQUIRE);
    if (best)
        return best;
    const struct kernels *all[3];
    const char *wanted = getenv("LATHE_KERNELS");
    size_t count = kernels_all(all, 3);
    best = all[count - 1];
    for (size_t i = 0; wanted && i < count; i++)
        if (strcmp(all[i]->name, wanted) == 0)
            best = all[i];
    __atomic_store_n(&chosen, best, __ATOMIC_RELEASE);
    return best;
}
