/* SPDX-License-Identifier: MIT */
/* How far a run is: a bar that redraws itself on a terminal; elsewhere a line every two
 * seconds or every tenth of the requests, so that a log stays readable. On stderr, since
 * stdout is the script's. */
#include "run_job.h"

#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

enum { BAR_WIDTH = 24 };
static const int64_t line_interval_ns = 2000000000, line_least_ns = 250000000;

void progress_start(struct progress *progress, const char *label)
{
    *progress = (struct progress){ .terminal = isatty(STDERR_FILENO), .label = label ? label : "run" };
}

static void print_figures(const struct drive_progress *now)
{
    double seconds = (double)now->now_ns * 1e-9;
    fprintf(stderr, "%" PRIu64 "/%" PRIu64 " requests, %" PRIu64 " tokens, %.1f s, %.1f tokens/s", now->finished,
            now->total, now->output_tokens, seconds, seconds > 0 ? (double)now->output_tokens / seconds : 0.0);
}

static void show_bar(const struct progress *progress, const struct drive_progress *now, bool last)
{
    int filled = now->total ? (int)(now->finished * BAR_WIDTH / now->total) : BAR_WIDTH;
    fprintf(stderr, "\r%s [", progress->label);
    for (int i = 0; i < BAR_WIDTH; i++)
        fputc(i < filled ? '#' : '.', stderr);
    fputs("] ", stderr);
    print_figures(now);
    if (!last)
        fprintf(stderr, ", %u running, %u waiting", now->running, now->waiting);
    fputs(last ? "\033[K\n" : "\033[K", stderr); /* clears what the line before left */
    fflush(stderr);
}

void progress_show(struct progress *progress, const struct drive_progress *now, bool last)
{
    if (progress->terminal) {
        show_bar(progress, now, last);
        return;
    }
    int64_t since = now->now_ns - progress->last_ns;
    bool tenth = (now->finished - progress->last_finished) * 10 >= now->total && since >= line_least_ns;
    if (!last && !tenth && since < line_interval_ns)
        return;
    fprintf(stderr, "%s: ", progress->label);
    print_figures(now);
    fputc('\n', stderr);
    progress->last_ns = now->now_ns;
    progress->last_finished = now->finished;
}
