/* SPDX-License-Identifier: MIT */
/* Chat templates: a bounded subset of Jinja 2, as Hugging Face's models use it. What it is made of
 * stands in internal.h. */
#ifndef LATHE_JINJA_H
#define LATHE_JINJA_H

#include <stddef.h>

#include <lathe/host.h>

struct jinja_job {
    const char *source;   /* the template */
    size_t source_bytes;
    const char *messages; /* a JSON array */
    size_t messages_bytes;
    int add_generation_prompt;
    const char *bos, *eos; /* variables bos_token, eos_token; NULL: undefined */
    size_t bos_bytes, eos_bytes;
    char *out;            /* room for the text */
    size_t room;
    size_t written;       /* set: bytes of the text, also when they didn't fit (LATHE_EFULL) */
};

/* LATHE_EFORMAT: the template is no Jinja or doesn't fit the messages; LATHE_EUNSUPPORTED: a
 * part of Jinja that isn't done here; LATHE_EINVAL: the messages, or the template raised an
 * exception; LATHE_ERANGE: more steps, depth or memory than a template may take; LATHE_EFULL. [worker] */
int jinja_render(const struct lathe_host *host, struct jinja_job *job, struct lathe_error *err);

#endif
