/* SPDX-License-Identifier: MIT */
#include "command.h"

#include <stdarg.h>
#include <stdio.h>

int command_fail(const char *verb, int status, const struct lathe_error *err)
{
    fflush(stdout);
    fprintf(stderr, "lathe %s: %s\n", verb, err && err->message[0] ? err->message : "failed without a reason");
    return status;
}

int command_usage(const char *verb, const char *format, ...)
{
    va_list args;
    fflush(stdout);
    fprintf(stderr, "lathe %s: ", verb);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, "; see `lathe %s --help`\n", verb);
    return 2;
}
