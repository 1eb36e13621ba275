/* SPDX-License-Identifier: MIT */
/* What the host knows of each kind: its name, question, ABI, and which slots of its table
 * must be filled, so that hot calls never test for NULL. */
#ifndef CORE_KINDS_H
#define CORE_KINDS_H

#include <stddef.h>
#include <stdint.h>

#include <lathe/plugin.h>

struct kind_slot {
    const char *name;
    size_t offset;
};

struct kind_info {
    const char *name;
    const char *question;
    uint32_t abi;
    uint32_t table_bytes;
    const struct kind_slot *slots; /* the required ones, up to a NULL name */
};

enum { KIND_COUNT = 9 };

/* NULL: no such kind. Numbered from 1. */
const struct kind_info *kind_info(int kind);

/* The first required slot that is empty, or NULL when all are filled. */
const char *kind_empty_slot(int kind, const void *api);

#endif
