/* SPDX-License-Identifier: MIT */
/* Rows of weights of one request under one probe, as columns of the page. */
#ifndef CORE_REPORT_WEIGHTS_H
#define CORE_REPORT_WEIGHTS_H

#include "report.h"

/* A request under a probe. */
struct report_part {
    int64_t run, request, probe, rows, bytes;
};

struct report_shape {
    bool full, weights; /* a whole row a head; of weights, not scores or values */
    size_t heads;       /* layers × heads */
    size_t head_bytes;  /* 0: as many as there are keys */
};

/* Writes positions, cells, data and how many rows had keys dropped: pooled n × n if they are whole rows, else every
 * n-th. A row that is not as long as its shape makes it is an error that names it. */
int report_weights(struct report *r, const struct report_part *part, const struct report_shape *shape, int64_t n,
                   struct lathe_error *err);

#endif
