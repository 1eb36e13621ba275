/* SPDX-License-Identifier: MIT */
/* The figures as a table for a terminal, as JSON, and as a Markdown report: the same rows. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include <jansson.h>

#include "bench.h"

struct spread {
    double median, low, high, quickest;
};

static int spread_of(const struct bench_list *list, const struct bench_case *c, struct spread *s)
{
    double values[BENCH_MAX_ROUNDS];
    if (!c || c->missing[0])
        return 0;
    memcpy(values, c->ns, list->rounds * sizeof *values);
    s->low = bench_quantile(values, list->rounds, 0.25);
    s->median = bench_quantile(values, list->rounds, 0.5);
    s->high = bench_quantile(values, list->rounds, 0.75);
    s->quickest = c->quickest;
    return 1;
}

static const char *time_text(double ns, char text[32])
{
    if (ns < 1e3)
        snprintf(text, 32, "%.1f ns", ns);
    else if (ns < 1e6)
        snprintf(text, 32, "%.2f us", ns * 1e-3);
    else
        snprintf(text, 32, "%.2f ms", ns * 1e-6);
    return text;
}

static const char *bytes_text(uint64_t bytes, char text[32])
{
    static const char *const units[] = { "B", "KiB", "MiB" };
    int unit = bytes >= 1 << 20 ? 2 : bytes >= 1 << 10;
    snprintf(text, 32, "%llu %s", (unsigned long long)(bytes >> (10 * unit)), units[unit]);
    return text;
}

static int starts(const struct bench_case *c, const char *prefix)
{
    return !strncmp(c->id, prefix, strlen(prefix));
}

/* Rows whose ids start with one of the prefixes, in the list's order. */
static void times(FILE *f, const struct bench_list *list, const char *const *prefixes)
{
    char a[32], b[32], c[32], d[32];
    fprintf(f, "| a call there and back | median | quartiles | quickest |\n| --- | ---: | ---: | ---: |\n");
    for (; *prefixes; prefixes++) {
        for (uint32_t i = 0; i < list->count; i++) {
            const struct bench_case *k = &list->cases[i];
            struct spread s;
            if (!starts(k, *prefixes))
                continue;
            if (spread_of(list, k, &s))
                fprintf(f, "| %s | %s | %s – %s | %s |\n", k->title, time_text(s.median, a), time_text(s.low, b),
                        time_text(s.high, c), time_text(s.quickest, d));
            else
                fprintf(f, "| %s | %s | | |\n", k->title, k->missing);
        }
    }
}

static void rates(FILE *f, const struct bench_list *list)
{
    fprintf(f, "| from one producer | batch | million messages/s | quartiles | ns a message |\n"
               "| --- | ---: | ---: | ---: | ---: |\n");
    for (uint32_t i = 0; i < list->count; i++) {
        const struct bench_case *k = &list->cases[i];
        struct spread s;
        if (!starts(k, "post/") && !starts(k, "stream/"))
            continue;
        char batch[24] = "a stream";
        if (starts(k, "post/"))
            snprintf(batch, sizeof batch, "%llu", (unsigned long long)k->count);
        if (spread_of(list, k, &s))
            fprintf(f, "| %s | %s | %.2f | %.2f – %.2f | %.1f |\n", k->title, batch, 1e3 / s.median, 1e3 / s.high,
                    1e3 / s.low, s.median);
        else
            fprintf(f, "| %s | %s | %s | | |\n", k->title, batch, k->missing);
    }
}

static double excess(const struct bench_list *list, uint64_t bytes, int threads, int *known)
{
    double values[BENCH_MAX_ROUNDS];
    *known = 1;
    for (uint32_t i = 0; i < list->rounds && *known; i++)
        *known = goals_loan_excess(list, bytes, threads, i, &values[i]);
    return *known ? bench_quantile(values, list->rounds, 0.5) : 0;
}

static void copies(FILE *f, const struct bench_list *list)
{
    static const char *const columns[] = { "alone", "threads", "processes", "loan", "copy" };
    fprintf(f, "| payload | one thread | two threads | two processes | bus/shm, loan | bus/shm, copies | loan beyond "
               "two threads | beyond one thread |\n| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n");
    for (const uint64_t *bytes = copy_sizes; *bytes; bytes++) {
        char text[32], id[64];
        fprintf(f, "| %s |", bytes_text(*bytes, text));
        for (int i = 0; i < 5; i++) {
            struct spread s;
            snprintf(id, sizeof id, "copy/%s/%llu", columns[i], (unsigned long long)*bytes);
            fprintf(f, " %s |", spread_of(list, bench_find(list, id), &s) ? time_text(s.median, text) : "—");
        }
        for (int threads = 1; threads >= 0; threads--) {
            int known;
            double percent = excess(list, *bytes, threads, &known);
            if (known)
                fprintf(f, " %+.1f%% |", percent);
            else
                fprintf(f, " — |");
        }
        fprintf(f, "\n");
    }
}

static void goals(FILE *f, const struct bench_list *list)
{
    struct bench_goal g[BENCH_MAX_GOALS];
    uint32_t count = goals_judge(list, g);
    fprintf(f, "| goal | wanted | measured | quartiles | met |\n| --- | ---: | ---: | ---: | --- |\n");
    for (uint32_t i = 0; i < count; i++) {
        fprintf(f, "| %s | %s %g %s |", g[i].text, g[i].at_least ? "≥" : "≤", g[i].limit, g[i].unit);
        if (g[i].known)
            fprintf(f, " %.2f %s | %.2f – %.2f | %s |\n", g[i].value, g[i].unit, g[i].low, g[i].high,
                    goal_met(&g[i]) ? "yes" : "**no**");
        else
            fprintf(f, " | | not measured |\n");
    }
}

static void tables(FILE *f, const struct bench_list *list)
{
    static const char *const calls[] = { "call/static", "call/indirect", "call/direct", "call/sync", NULL };
    static const char *const spinning[] = { "raw/line",      "raw/pair",    "raw/ring", "call/async/spin",
                                            "call/shm/spin", "zeromq/spin", "nng/spin", NULL };
    static const char *const sleeping[] = { "raw/futex",    "call/async/sleep", "call/shm/sleep",
                                            "zeromq/sleep", "nng/sleep",        NULL };
    fprintf(f, "\n## On the caller's thread\n\n");
    times(f, list, calls);
    fprintf(f, "\n## To another core and back, both sides spinning\n\n");
    times(f, list, spinning);
    fprintf(f, "\n## To another core and back, both sides sleeping\n\n");
    times(f, list, sleeping);
    fprintf(f, "\n## Throughput of 64-byte messages\n\n");
    rates(f, list);
    fprintf(f, "\n## A payload written by one side and summed by the other\n\n");
    copies(f, list);
    fprintf(f, "\n## Goals\n\n");
    goals(f, list);
}

int report_table(const struct bench_list *list)
{
    tables(stdout, list);
    return 0;
}

static const char method[] =
    "Figures that are compared are sampled one after the other, in an order drawn anew each round. A figure is the\n"
    "median over the rounds, a round's figure the median of its batches of 2 ms; beside it stand the quartiles over\n"
    "rounds, and the quickest batch of all. Caller and worker are pinned to two cores. On a virtual machine these\n"
    "move: where quartiles lie far apart, the cores were neighbours in some rounds and far from each other in "
    "others.\n"
    "\n"
    "Messages are 64 bytes there and 64 back. *Spinning* is spin_us = 100000 on our buses, DONTWAIT and NONBLOCK\n"
    "with ZeroMQ and nng; *sleeping* is spin_us = 0, and calls that block. ZeroMQ and nng use their quickest "
    "sockets\n"
    "(PAIR) and send the received message back as it is. They run between two threads of one process, as bus/async\n"
    "does; bus/shm runs between two processes. Their throughput is one way; ours is there and back: a batch is\n"
    "posted, every answer of it collected, then the next is posted.\n";

static const char reading[] =
    "\nGoals are computed within each round; the median over the rounds counts. *Loan beyond two threads* is\n"
    "(loan − work − hop) / work: hop is the 64-byte call over bus/shm while both spin, work the two threads' time\n"
    "less the bare ping-pong by which they hand over. *Beyond one thread* takes the one thread's time as work: "
    "while\n"
    "the payload fits a core's own cache, one thread needn't fetch a line from the other core, and two must, by\n"
    "whichever bus. *Two processes* is the bare ping-pong over shared memory, no bus at all.\n";

int report_markdown(const struct bench_list *list, const struct bench_machine *m, const char *file)
{
    char nice_text[24] = "";
    int nice = getpriority(PRIO_PROCESS, 0);
    FILE *f = fopen(file, "w");
    if (nice)
        snprintf(nice_text, sizeof nice_text, "nice -n %d ", nice);
    if (!f) {
        fprintf(stderr, "bench_bus: can't write %s: %s\n", file, strerror(errno));
        return 1;
    }
    fprintf(f,
            "# What a bus costs\n\n`%sbuild/release/tests/bench/bench_bus --rounds %u --report %s`, commit %s, %s, "
            "%u cores, %s.\n%u rounds, %.0f s; load average %.14s before, %.14s after.\n\n%s",
            nice_text, list->rounds, file, m->commit, m->cpu, m->cores, m->kernel, list->rounds, m->seconds,
            m->load_before, m->load_after, method);
    tables(f, list);
    fputs(reading, f);
    if (fclose(f) != 0) {
        fprintf(stderr, "bench_bus: can't write %s: %s\n", file, strerror(errno));
        return 1;
    }
    return 0;
}

int report_json(const struct bench_list *list, const struct bench_machine *m)
{
    json_t *figures = json_object(), *judged = json_array();
    struct bench_goal g[BENCH_MAX_GOALS];
    uint32_t count = goals_judge(list, g);
    for (uint32_t i = 0; i < list->count; i++) {
        const struct bench_case *c = &list->cases[i];
        struct spread s;
        json_t *row = json_pack("{s:s}", "title", c->title);
        if (spread_of(list, c, &s)) {
            json_t *rounds = json_array();
            for (uint32_t r = 0; r < list->rounds; r++)
                json_array_append_new(rounds, json_real(c->ns[r]));
            json_object_update_new(row, json_pack("{s:f, s:f, s:f, s:f, s:o}", "median_ns", s.median, "q1_ns", s.low,
                                                  "q3_ns", s.high, "quickest_ns", s.quickest, "rounds_ns", rounds));
        } else {
            json_object_set_new(row, "missing", json_string(c->missing));
        }
        json_object_set_new(figures, c->id, row);
    }
    for (uint32_t i = 0; i < count; i++) {
        json_t *goal = json_pack("{s:s, s:s, s:f, s:b}", "goal", g[i].text, "unit", g[i].unit, "limit", g[i].limit,
                                 "at_least", g[i].at_least);
        if (g[i].known)
            json_object_update_new(goal, json_pack("{s:f, s:f, s:f, s:b}", "median", g[i].value, "q1", g[i].low, "q3",
                                                   g[i].high, "met", goal_met(&g[i])));
        json_array_append_new(judged, goal);
    }
    json_t *all = json_pack("{s:{s:s, s:i, s:s, s:s, s:s, s:s}, s:i, s:f, s:o, s:o}", "machine", "cpu", m->cpu,
                            "cores", (int)m->cores, "kernel", m->kernel, "commit", m->commit, "load_before",
                            m->load_before, "load_after", m->load_after, "rounds", (int)list->rounds, "seconds",
                            m->seconds, "figures", figures, "goals", judged);
    int failed = !all || json_dumpf(all, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(8)) != 0;
    putchar('\n');
    json_decref(all);
    return failed;
}
