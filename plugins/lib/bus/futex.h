/* SPDX-License-Identifier: MIT */
/* Sleeping on a word, and waking who sleeps there (futex(2)). `shared`: the word lies in memory
 * of several processes. A sleep may end early for no reason: look again. */
#ifndef LATHE_LIB_BUS_FUTEX_H
#define LATHE_LIB_BUS_FUTEX_H

#include <linux/futex.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Sleeps while *word is `value`, at most timeout_ns (< 0: for ever). */
static inline void futex_wait(const _Atomic uint32_t *word, uint32_t value, int64_t timeout_ns, int shared)
{
    struct timespec t = { .tv_sec = timeout_ns / 1000000000, .tv_nsec = timeout_ns % 1000000000 };
    syscall(SYS_futex, word, shared ? FUTEX_WAIT : FUTEX_WAIT_PRIVATE, value, timeout_ns < 0 ? NULL : &t, NULL, 0);
}

static inline void futex_wake(const _Atomic uint32_t *word, uint32_t count, int shared)
{
    syscall(SYS_futex, word, shared ? FUTEX_WAKE : FUTEX_WAKE_PRIVATE, count, NULL, NULL, 0);
}

static inline void cpu_relax(void)
{
#if defined __x86_64__ || defined __i386__
    __builtin_ia32_pause();
#elif defined __aarch64__
    __asm__ volatile("yield");
#endif
}

#endif
