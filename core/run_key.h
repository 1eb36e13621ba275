/* SPDX-License-Identifier: MIT */
/* What a run is known by: two runs with one key are the same experiment done twice, so that the
 * second may be left out (lathe.run's `resume`, lathe.sweep). */
#ifndef CORE_RUN_KEY_H
#define CORE_RUN_KEY_H

#include "run_job.h"

/* Of a job whose description was read and whose requests stand as they were written. A file
 * that can't be read is an error: without its bytes nobody knows whether the run is the same.
 * [main] */
int run_key(const struct run_job *job, char hex[65], struct lathe_error *err);

#endif
