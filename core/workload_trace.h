/* SPDX-License-Identifier: MIT */
/* A trace's file: a CSV whose first line names its columns, of which three count: arrived_at (s),
 * num_prefill_tokens, num_decode_tokens, as the Azure LLM inference trace of 2023 has them. */
#ifndef CORE_WORKLOAD_TRACE_H
#define CORE_WORKLOAD_TRACE_H

#include "workload.h"

struct workload_trace_file {
    const char *path;
    size_t from;     /* the first row that counts, 1, 2, …; 0: 1 */
    size_t rows;     /* at most so many; 0: all that there are */
    double window_s; /* only those that arrive within so many seconds of the first; 0: all */
    double scale;    /* of both lengths, rounded, at least 1 token; 0: 1 */
};

/* Line by line; an error names file, line, column and what stood there. *rows is malloc'd. [main] */
int workload_trace_read(const struct workload_trace_file *file, struct workload_trace_row **rows, size_t *count,
                        struct lathe_error *err);

#endif
