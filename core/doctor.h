/* SPDX-License-Identifier: MIT */
/* What `lathe doctor` measures and looks for. */
#ifndef CORE_DOCTOR_H
#define CORE_DOCTOR_H

#include <stddef.h>
#include <stdint.h>

#include <lathe/status.h>

enum doctor_state { DOCTOR_OK = 0, DOCTOR_WARN = 1, DOCTOR_MISSING = 2 };

struct doctor_waking {
    int rounds;
    int64_t wake_p50_ns, wake_max_ns; /* from the signal until the sleeping thread runs */
    int64_t spin_p50_ns;              /* a cache line there and back between two spinning threads */
};

/* Takes about 100 ms and one thread. LATHE_EIO: no thread could be made. */
int doctor_measure_waking(struct doctor_waking *waking);

/* Is this command in PATH (or a path itself)? 1 and where it is, or 0. */
int doctor_in_path(const char *command, char *path, size_t capacity);

#endif
