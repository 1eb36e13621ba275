/* SPDX-License-Identifier: MIT */
/* One plugin file: looked at before it is mapped, mapped, and its descriptor checked.
 *
 *     path ─resolve─▶ regular file? not writable by others? ELF of this machine, whole?
 *          ─dlopen (NOW, LOCAL)─▶ lathe_plugin: size, abi, kind, name, options, table, slots
 *
 * A refusal names file, field, expected and found. A library that was mapped stays. */
#ifndef CORE_LIBRARY_H
#define CORE_LIBRARY_H

#include <lathe/plugin.h>

#include "sha256.h"

struct library {
    const struct lathe_plugin *plugin;
    char sha256[SHA256_HEX_BYTES];
};

/* Everything that can be known without running a line of it. `resolved` (PATH_MAX bytes)
 * gets the path without symlinks. [main or loader] */
int library_inspect(const char *path, char *resolved, char sha256[SHA256_HEX_BYTES], struct lathe_error *err);

/* Inspects, maps and checks. `kind` and `name` are what its folder and file name say. */
int library_open(const char *path, int kind, const char *name, struct library *library, struct lathe_error *err);

/* The descriptor alone, for tests and for library_open. `path` is for the sentence;
 * `exported_bytes` is how large the exported object is, 0 when unknown. */
int library_check(const char *path, const struct lathe_plugin *plugin, size_t exported_bytes, int kind,
                  const char *name, struct lathe_error *err);

#endif
