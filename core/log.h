/* SPDX-License-Identifier: MIT */
/* The log: one JSON object a line on stderr or a file, with time, level, where from and,
 * if it is about a request, its correlation id. LATHE_LOG sets the level (debug, info, warn,
 * error, off; default warn), LATHE_LOG_FILE the file. Lines are written whole. */
#ifndef CORE_LOG_H
#define CORE_LOG_H

#include <stdint.h>

#include <lathe/host.h>

/* Bad values are one sentence; the default holds meanwhile. [main] */
int log_open(struct lathe_error *err);
int log_enabled(int level); /* [any] */
/* `correlation_id` may be NULL. fields_json: further members, `"a":1,"b":2`, or NULL. [any, not & running] */
void log_write(int level, const char *from, const char *correlation_id, const char *fields_json, const char *format, ...)
    __attribute__((format(printf, 5, 6)));

#endif
