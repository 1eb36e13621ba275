/* SPDX-License-Identifier: MIT */
/* One line is built in memory and written with one write(2) to a descriptor opened with
 * O_APPEND, so that lines of several threads and processes never mix. Level and descriptor
 * are set once, at start; the rest is [any]. */
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "registry.h"
#include "text.h"

enum { LOG_OFF = 4, LOG_MESSAGE_BYTES = 2048 };

static const char *const level_names[] = { "debug", "info", "warn", "error", "off" };

static _Atomic int log_level = LATHE_LOG_WARN;
static _Atomic int log_fd = STDERR_FILENO;

static int set_level(const char *text, struct lathe_error *err)
{
    for (int i = 0; i <= LOG_OFF; i++)
        if (strcmp(text, level_names[i]) == 0) {
            atomic_store(&log_level, i);
            return LATHE_OK;
        }
    const char *near = nearest_name(text, level_names, LOG_OFF + 1);
    return lathe_fail(err, LATHE_EINVAL, "LATHE_LOG is \"%.40s\", but must be debug, info, warn, error or off%s%s%s",
                      text, near ? "; did you mean " : "", near ? near : "", near ? "?" : "");
}

int log_open(struct lathe_error *err)
{
    const char *level = getenv("LATHE_LOG"), *file = getenv("LATHE_LOG_FILE");
    if (level && *level) {
        int rc = set_level(level, err);
        if (rc != LATHE_OK)
            return rc;
    }
    if (file && *file) {
        int fd = open(file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
        if (fd < 0)
            return lathe_fail(err, LATHE_EIO, "LATHE_LOG_FILE: %.300s cannot be opened: %s", file, strerror(errno));
        int before = atomic_exchange(&log_fd, fd);
        if (before > STDERR_FILENO)
            close(before);
    }
    return LATHE_OK;
}

int log_enabled(int level)
{
    return level >= atomic_load_explicit(&log_level, memory_order_relaxed) && level < LOG_OFF;
}

static void write_whole(int fd, const char *bytes, size_t count)
{
    while (count > 0) {
        ssize_t n = write(fd, bytes, count);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return; /* nobody is left to tell */
        bytes += n;
        count -= (size_t)n;
    }
}

void log_write(int level, const char *from, const char *correlation_id, const char *fields_json, const char *format, ...)
{
    if (level < LATHE_LOG_DEBUG || !log_enabled(level))
        return;
    char message[LOG_MESSAGE_BYTES], when[32];
    struct timespec now;
    struct tm utc;
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%S", &utc);

    struct text line = { 0 };
    text_print(&line, "{\"time\": \"%s.%06ldZ\", \"level\": \"%s\", \"from\": ", when, now.tv_nsec / 1000,
               level_names[level]);
    text_json(&line, from ? from : "");
    if (correlation_id) {
        text_print(&line, ", \"correlation_id\": ");
        text_json(&line, correlation_id);
    }
    text_print(&line, ", \"message\": ");
    text_json(&line, message);
    if (fields_json && *fields_json)
        text_print(&line, ", %s", fields_json);
    text_print(&line, "}\n");
    if (!line.failed)
        write_whole(atomic_load(&log_fd), line.bytes, line.count);
    text_free(&line);
}
