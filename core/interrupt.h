/* SPDX-License-Identifier: MIT */
/* Ctrl-C (and SIGTERM): a flag that loops look at between steps, so that what is under way
 * ends in good order. A second one ends the process at once. Process-wide, as signals are. */
#ifndef CORE_INTERRUPT_H
#define CORE_INTERRUPT_H

#include <stdbool.h>

/* Clears the flag and watches. `also` (may be NULL) is called inside the signal handler
 * too: it may only do what a handler may. [main] */
void interrupt_watch(void (*also)(void));
void interrupt_unwatch(void); /* [main] */
bool interrupt_wanted(void);  /* [any] */

#endif
