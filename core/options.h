/* SPDX-License-Identifier: MIT */
/* Options: what a plugin's table says, held against what a person wrote.
 *
 * A table is checked once, when its plugin is loaded. Settings are checked when an
 * instance is made: unknown names (the nearest is suggested), types, ranges, required
 * ones. Every value comes out typed, in the table's order, with defaults filled in. */
#ifndef CORE_OPTIONS_H
#define CORE_OPTIONS_H

#include "registry.h"

enum { OPTIONS_MAX = 256 };

/* Is this table sound? names, types, choices, ranges, defaults. LATHE_EINVAL names option
 * and field. [main] */
int options_check(const struct lathe_option *options, uint32_t count, struct lathe_error *err);

/* The values for a plugin. `owner` ("scheduler/fcfs") opens sentences. The array and the
 * texts in it are one malloc'd block: free(*values). kind: PATHs of models and tokenizers
 * may be short model names. [main or loader] */
int options_resolve(int kind, const char *owner, const struct lathe_option *options, uint32_t count,
                    const struct option_setting *settings, size_t setting_count, struct lathe_option_value **values,
                    struct lathe_error *err);

/* {"block_tokens": 16, …}, malloc'd; NULL when memory ran out. */
char *options_json(const struct lathe_option *options, const struct lathe_option_value *values, uint32_t count);

const char *option_type_name(int32_t type); /* "integer"; "unknown" */

/* [a-z0-9_]+, at most 63 bytes: names of plugins and options. */
int plain_name(const char *name);

#endif
