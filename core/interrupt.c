/* SPDX-License-Identifier: MIT */
/* See interrupt.h. */
#include "interrupt.h"

#include <signal.h>
#include <stddef.h>

static volatile sig_atomic_t wanted;
static void (*volatile watcher)(void);

static void on_signal(int number)
{
    wanted = 1;
    signal(number, SIG_DFL);
    if (watcher)
        watcher();
}

void interrupt_watch(void (*also)(void))
{
    struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
    wanted = 0;
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
    return wanted;
}
