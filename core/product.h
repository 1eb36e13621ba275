/* SPDX-License-Identifier: MIT */
/* Where the product's own files lie, and what it says of itself.
 *
 *                build tree (executable inside it)      installed (executable in PREFIX/bin)
 *     plugins    BUILD/plugins                          PREFIX/lib…/lathe/plugins
 *     templates  SOURCE/plugins                         PREFIX/share/lathe/plugins
 *     scripts    SOURCE/scripts                         PREFIX/share/lathe
 *     schemas, experiments  SOURCE/…                    PREFIX/share/lathe/…
 *     include    SOURCE/core/include                    PREFIX/include
 *     models     SOURCE/models                          PREFIX/share/lathe/models
 *
 * "scripts" is the folder that holds the Lua library (lathe/); see product_path in registry.h. */
#ifndef CORE_PRODUCT_H
#define CORE_PRODUCT_H

#include <stddef.h>

#include <lathe/status.h>

const char *product_version(void);    /* "0.1.0" */
const char *product_build_type(void); /* "Release" */

/* 1 when the running program lies in the build tree it was made in; its source tree then. */
int product_in_build_tree(void);
const char *product_source_folder(void);
const char *product_build_folder(void);

/* The `lathe` executable that belongs to the running program (itself, or the one that a test
 * was built beside). 0 or LATHE_ENOTFOUND. */
int product_executable(char *path, size_t capacity, struct lathe_error *err);

#endif
