/* SPDX-License-Identifier: MIT */
/* How far a run is: a bar that redraws itself on a terminal; elsewhere a line every two
 * seconds or every tenth of the requests, so that a log stays readable. On stderr, since
 * stdout is the script's. */
#include "run_job.h"

#include <inttypes.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { BAR_WIDTH = 16 };
static const int64_t line_interval_ns = 2000000000, line_least_ns = 250000000;

void progress_start(struct progress *progress, const char *label)
{
    *progress = (struct progress){ .terminal = isatty(STDERR_FILENO), .label = label ? label : "run" };
}

static int print_figures(char *text, size_t capacity, const struct drive_progress *now)
{
    double seconds = (double)now->now_ns * 1e-9;
    return snprintf(text, capacity, "%" PRIu64 "/%" PRIu64 " requests, %" PRIu64 " tokens, %.1f s, %.1f tokens/s",
                    now->finished, now->total, now->output_tokens, seconds,
                    seconds > 0 ? (double)now->output_tokens / seconds : 0.0);
}

/* One line, cut to the terminal's width: a line that wraps can't be redrawn. */
static void show_bar(const struct progress *progress, const struct drive_progress *now, bool last)
{
    char bar[BAR_WIDTH + 1], figures[160], line[400];
    struct winsize window = { 0 };
    int filled = now->total ? (int)(now->finished * BAR_WIDTH / now->total) : BAR_WIDTH;
    for (int i = 0; i < BAR_WIDTH; i++)
        bar[i] = i < filled ? '#' : '.';
    bar[BAR_WIDTH] = '\0';
    print_figures(figures, sizeof figures, now);
    int length = snprintf(line, sizeof line, "%.60s [%s] %s", progress->label, bar, figures);
    if (!last)
        length += snprintf(line + length, sizeof line - (size_t)length, ", %u running, %u waiting", now->running,
                           now->waiting);
    int width = ioctl(STDERR_FILENO, TIOCGWINSZ, &window) || window.ws_col < 2 ? 80 : window.ws_col;
    fprintf(stderr, "\r%.*s\033[K%s", width - 1, line, last ? "\n" : ""); /* clears what the line before left */
    fflush(stderr);
}

void progress_show(struct progress *progress, const struct drive_progress *now, bool last)
{
    if (progress->terminal) {
        show_bar(progress, now, last);
        return;
    }
    int64_t since = now->machine_ns - progress->last_ns;
    bool tenth = (now->finished - progress->last_finished) * 10 >= now->total && since >= line_least_ns;
    if (!last && ((!tenth && since < line_interval_ns) || now->finished == now->total))
        return;
    char figures[160];
    print_figures(figures, sizeof figures, now);
    fprintf(stderr, "%s: %s\n", progress->label, figures);
    progress->last_ns = now->machine_ns;
    progress->last_finished = now->finished;
}
