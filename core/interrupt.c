/* SPDX-License-Identifier: MIT */
/* See interrupt.h. */
#include "interrupt.h"

#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>

static atomic_bool wanted; /* lock-free: a handler may set it, runs on other threads ask it */
static void (*volatile watcher)(void);

static void on_signal(int number)
{
    atomic_store(&wanted, true);
    signal(number, SIG_DFL);
    if (watcher)
        watcher();
}

void interrupt_watch(void (*also)(void))
{
    struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
    atomic_store(&wanted, false);
    watcher = also;
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

void interrupt_unwatch(void)
{
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    watcher = NULL;
}

bool interrupt_wanted(void)
{
    return atomic_load_explicit(&wanted, memory_order_relaxed);
}
