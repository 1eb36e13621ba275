/* SPDX-License-Identifier: MIT */
/* What does a bus cost, against a C call, against two bare cores, against ZeroMQ and nng?
 *
 *     bench_bus [--rounds N] [--seed N] [--only PARTS] [--plugins DIR] [--json] [--report FILE]
 *
 * How it measures is in bench.h, the floor in echo.h, payloads in copies.c, goals in goals.c. */
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

#include <lathe/random.h>

#include "build_commit.h"
#include "echo.h"
#include "opened.h"

static struct bench_list list;

static void one_line(const char *file, const char *key, char *line, size_t bytes)
{
    FILE *f = fopen(file, "r");
    char text[512];
    while (f && fgets(text, sizeof text, f)) {
        if (strncmp(text, key, strlen(key)))
            continue;
        const char *value = *key && strchr(text, ':') ? strchr(text, ':') + 2 : text;
        snprintf(line, bytes, "%.*s", (int)strcspn(value, "\n"), value);
        break;
    }
    if (f)
        fclose(f);
}

static void describe(struct bench_machine *m)
{
    struct utsname u;
    cpu_set_t set;
    one_line("/proc/cpuinfo", "model name", m->cpu, sizeof m->cpu);
    sched_getaffinity(0, sizeof set, &set);
    m->cores = (uint32_t)CPU_COUNT(&set);
    if (uname(&u) == 0)
        snprintf(m->kernel, sizeof m->kernel, "%s %s", u.sysname, u.release);
    snprintf(m->commit, sizeof m->commit, "%.12s%s", BUILD_COMMIT, BUILD_DIRTY > 0 ? " with changes" : "");
}

/* The first two cores that we may run on. */
static int choose_cores(struct bench *b)
{
    cpu_set_t set;
    int found[2], count = 0;
    if (sched_getaffinity(0, sizeof set, &set) != 0)
        return 0;
    for (int i = 0; i < CPU_SETSIZE && count < 2; i++)
        if (CPU_ISSET(i, &set))
            found[count++] = i;
    if (count < 2)
        return 0;
    b->caller_cpu = found[0];
    b->worker_cpu = found[1];
    return 1;
}

struct turn {
    uint64_t group, own; /* drawn */
    uint32_t at;
};

static int by_draw(const void *a, const void *b)
{
    const struct turn *x = a, *y = b;
    return x->group != y->group ? (x->group > y->group) - (x->group < y->group)
                                : (x->own > y->own) - (x->own < y->own);
}

/* Does the id hold one of the parts, which commas separate? */
static int asked_for(const char *id, const char *parts)
{
    for (;;) {
        char part[64];
        size_t n = strcspn(parts, ",");
        snprintf(part, sizeof part, "%.*s", (int)n, parts);
        if (strstr(id, part))
            return 1;
        if (!parts[n])
            return 0;
        parts += n + 1;
    }
}

static int measure(const struct bench *b, uint64_t seed, uint32_t rounds, const char *only)
{
    struct turn order[BENCH_MAX_CASES];
    for (uint32_t round = 0; round < rounds; round++) {
        for (uint32_t i = 0; i < list.count; i++) {
            uint32_t group = (uint32_t)list.cases[i].group;
            order[i] = (struct turn){ .group = lathe_random_u64(seed, LATHE_RANDOM_USER, round, group),
                                      .own = lathe_random_u64(seed, LATHE_RANDOM_USER + 1, round, i),
                                      .at = i };
        }
        qsort(order, list.count, sizeof *order, by_draw);
        for (uint32_t i = 0; i < list.count; i++) {
            struct bench_case *c = &list.cases[order[i].at];
            struct lathe_error err = { 0 };
            int status;
            if (c->missing[0])
                continue;
            if (only && !asked_for(c->id, only)) {
                snprintf(c->missing, sizeof c->missing, "not asked for");
                continue;
            }
            if ((status = c->sample(b, c, &c->ns[round], &err)) == LATHE_EUNSUPPORTED) {
                snprintf(c->missing, sizeof c->missing, "%.150s", err.message);
            } else if (status != LATHE_OK) {
                fprintf(stderr, "bench_bus: %s: %s\n", c->id, err.message);
                return 1;
            }
        }
        fprintf(stderr, "\rround %u of %u", round + 1, rounds);
    }
    fputc('\n', stderr);
    list.rounds = rounds;
    return 0;
}

static int usage(void)
{
    fprintf(stderr,
            "usage: bench_bus [--rounds 1…%d] [--seed N] [--only PARTS,OF,IDS] [--plugins DIR] [--json] "
            "[--report FILE]\n",
            BENCH_MAX_ROUNDS);
    return 2;
}

int main(int argc, char **argv)
{
    struct bench b = { .plugins = BENCH_PLUGINS, .warm_ns = 4000000, .batch_ns = 2000000, .batches = 9 };
    static struct bench_machine machine;
    const char *only = NULL, *report = NULL;
    uint32_t rounds = 21;
    uint64_t seed = 1;
    int json = 0;
    if (argc == 4 && !strcmp(argv[1], "echo"))
        return echo_main(atoi(argv[2]), strtoull(argv[3], NULL, 10));
    if (argc > 1 && !strcmp(argv[1], "worker"))
        return opened_worker(argc, argv);
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (!strcmp(argv[i], "--json"))
            json = 1;
        else if (!value)
            return usage();
        else if (!strcmp(argv[i], "--rounds"))
            rounds = (uint32_t)atoi(argv[++i]);
        else if (!strcmp(argv[i], "--seed"))
            seed = strtoull(argv[++i], NULL, 10);
        else if (!strcmp(argv[i], "--only"))
            only = argv[++i];
        else if (!strcmp(argv[i], "--plugins"))
            b.plugins = argv[++i];
        else if (!strcmp(argv[i], "--report"))
            report = argv[++i];
        else
            return usage();
    }
    if (rounds < 1 || rounds > BENCH_MAX_ROUNDS)
        return usage();
    if (!choose_cores(&b)) {
        fprintf(stderr, "bench_bus: two cores are needed, one for the caller, one for the worker\n");
        return 1;
    }
    describe(&machine);
    bench_pin(&b, b.caller_cpu);
    floor_cases(&list);
    ring_cases(&list);
    bus_cases(&list);
    zeromq_cases(&list);
    nng_cases(&list);
    copy_cases(&list);
    one_line("/proc/loadavg", "", machine.load_before, sizeof machine.load_before);
    int64_t start = bench_now_ns();
    if (measure(&b, seed, rounds, only) != 0)
        return 1;
    machine.seconds = (double)(bench_now_ns() - start) * 1e-9;
    one_line("/proc/loadavg", "", machine.load_after, sizeof machine.load_after);
    if (json)
        return report_json(&list, &machine) || (report && report_markdown(&list, &machine, report));
    report_table(&list);
    return report ? report_markdown(&list, &machine, report) : 0;
}
