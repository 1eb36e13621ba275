/* SPDX-License-Identifier: MIT */
/* Trying out a foreign plugin in a child process before it is let into this one.
 *
 * A plugin runs in the host's process: one that crashes takes the host with it. So a file
 * outside of the product's own plugin folder is first loaded, and before an instance is
 * made created and destroyed with the very same options, by a child:
 *
 *     lathe plugins --probe load|create FILE KIND NAME [option=value …]
 *
 * started by posix_spawn (a fork of a threaded host would copy held locks). The child says
 * on a pipe how far it came; a crash, an exit or a hang is then a sentence. What passes its
 * trial can still crash later: this is a seat belt, not a sandbox.
 *
 * LATHE_PLUGIN_TRIAL=off leaves trials out; LATHE_PLUGIN_TRIAL_SECONDS sets the limits
 * (default: 5 s to load, 60 s to create). */
#ifndef CORE_TRIAL_H
#define CORE_TRIAL_H

#include "registry.h"

/* Tries loading. [main or loader] */
int trial_load(const char *path, int kind, const char *name, struct lathe_error *err);
/* Tries create and destroy, too. */
int trial_create(const char *path, int kind, const char *name, const struct option_setting *settings,
                 size_t setting_count, struct lathe_error *err);

/* The child's side: argv after --probe. Returns its exit status. */
int trial_child(int argc, char **argv);

#endif
