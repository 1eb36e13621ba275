/* SPDX-License-Identifier: MIT */
/* Making an instance of an entry that is already loaded and trusted; registry.h has the
 * public face, which finds it and tries it out first. */
#ifndef CORE_INSTANCE_H
#define CORE_INSTANCE_H

#include "registry.h"

/* The entry must outlive the instance. [main or loader] */
int instance_of_entry(const struct registry_entry *entry, const struct option_setting *settings, size_t setting_count,
                      struct instance **instance, struct lathe_error *err);

#endif
