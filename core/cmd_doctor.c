/* SPDX-License-Identifier: MIT */
/* `lathe doctor`: what this machine offers, and what is missing. One line a finding: ok, warn
 * or missing, what was found, and what to do about it. */
#include "command.h"

#include <dlfcn.h>
#include <getopt.h>
#include <limits.h>
#include <lua.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "doctor.h"
#include "kinds.h"
#include "product.h"
#include "registry.h"
#include "text.h"

static const char help[] =
    "usage: lathe doctor [--json]\n"
    "\n"
    "Looks at processor, memory, libraries, plugins, models and disk, and measures how long waking a\n"
    "sleeping thread and handing a cache line to a spinning one take here. Each line is ok, warn or\n"
    "missing, and says what to do. Status 1 when something that Lathe needs is missing.\n";

enum { MAX_FINDINGS = 96 };

static const char *const words[] = { "ok", "warn", "missing" };

struct findings {
    size_t count;
    struct finding {
        int state;
        char what[32], found[320], advice[200];
    } list[MAX_FINDINGS];
};

/* `advice` may be "". */
__attribute__((format(printf, 5, 6))) static void note(struct findings *findings, int state, const char *what,
                                                       const char *advice, const char *format, ...)
{
    if (findings->count == MAX_FINDINGS)
        return;
    struct finding *finding = &findings->list[findings->count++];
    va_list args;
    finding->state = state;
    snprintf(finding->what, sizeof finding->what, "%s", what);
    snprintf(finding->advice, sizeof finding->advice, "%s", advice);
    va_start(args, format);
    vsnprintf(finding->found, sizeof finding->found, format, args);
    va_end(args);
}

/* --- the machine ----------------------------------------------------------------------- */

/* What follows "KEY…: " on the first line of a /proc file that begins with `key`; "" if none. */
static void proc_value(const char *path, const char *key, char *value, size_t capacity)
{
    char line[4096];
    FILE *file = fopen(path, "r");
    value[0] = '\0';
    while (file && fgets(line, sizeof line, file))
        if (strncmp(line, key, strlen(key)) == 0) {
            char *colon = strchr(line, ':');
            if (colon) {
                colon += 1 + strspn(colon + 1, " \t");
                colon[strcspn(colon, "\n")] = '\0';
                snprintf(value, capacity, "%s", colon);
                break;
            }
        }
    if (file)
        fclose(file);
}

static void note_processor(struct findings *f)
{
    char name[200];
    struct utsname machine;
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    proc_value("/proc/cpuinfo", "model name", name, sizeof name);
    uname(&machine);
    note(f, DOCTOR_OK, "processor", "", "%s, %ld processors, Linux %s %s", *name ? name : machine.machine, cores,
         machine.release, machine.machine);
    if (cores < 2)
        note(f, DOCTOR_WARN, "processors", "the recorder's writer then shares the engine's processor; latencies are "
             "disturbed", "only one");
#if defined __x86_64__
    int avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    note(f, avx2 ? DOCTOR_OK : DOCTOR_WARN, "instruction sets", avx2 ? "" : "kernels fall back to plain C, several "
         "times slower", "avx2+fma %s, avx512f %s, avx512bw %s, avx512vnni %s", avx2 ? "yes" : "no",
         __builtin_cpu_supports("avx512f") ? "yes" : "no", __builtin_cpu_supports("avx512bw") ? "yes" : "no",
         __builtin_cpu_supports("avx512vnni") ? "yes" : "no");
#else
    note(f, DOCTOR_WARN, "instruction sets", "kernels are plain C here", "not x86-64");
#endif
}

static void note_memory(struct findings *f)
{
    char total[64], available[64], pages[64], line[128] = "";
    proc_value("/proc/meminfo", "MemTotal", total, sizeof total);
    proc_value("/proc/meminfo", "MemAvailable", available, sizeof available);
    proc_value("/proc/meminfo", "HugePages_Total", pages, sizeof pages);
    double have = strtod(available, NULL) / (1024 * 1024), all = strtod(total, NULL) / (1024 * 1024);
    int enough = have >= 2;
    note(f, enough ? DOCTOR_OK : DOCTOR_WARN, "memory", enough ? "" : "a 135M model in float32 wants about 1 GiB; "
         "close something or choose a smaller context", "%.1f GiB, %.1f GiB available", all, have);
    FILE *file = fopen("/sys/kernel/mm/transparent_hugepage/enabled", "r");
    if (file) {
        if (!fgets(line, sizeof line, file))
            line[0] = '\0';
        fclose(file);
    }
    char *open = strchr(line, '['), *close = open ? strchr(open, ']') : NULL;
    int never = close && strncmp(open, "[never", 6) == 0;
    note(f, never ? DOCTOR_WARN : DOCTOR_OK, "huge pages", never ? "weights then cost more TLB misses: echo madvise > "
         "/sys/kernel/mm/transparent_hugepage/enabled" : "", "transparent: %.*s, reserved: %s",
         close ? (int)(close - open - 1) : 7, close ? open + 1 : "unknown", *pages ? pages : "0");
}

static void note_waking(struct findings *f)
{
    struct doctor_waking waking;
    if (doctor_measure_waking(&waking) != LATHE_OK) {
        note(f, DOCTOR_WARN, "waking a thread", "", "could not be measured");
        return;
    }
    int slow = waking.wake_p50_ns > 200000;
    note(f, slow ? DOCTOR_WARN : DOCTOR_OK, "waking a thread", slow ? "expect jitter of this size in token gaps; stop "
         "other work on this machine" : "", "median %.1f µs, slowest of %d %.1f µs", (double)waking.wake_p50_ns / 1e3,
         waking.rounds, (double)waking.wake_max_ns / 1e3);
    note(f, DOCTOR_OK, "spinning hand-over", "", "median %.2f µs there and back", (double)waking.spin_p50_ns / 1e3);
}

/* --- libraries ---------------------------------------------------------------------------- */

/* Asked for, not linked: only model plugins use OpenBLAS. */
static void note_openblas(struct findings *f)
{
    void *handle = dlopen("libopenblas.so.0", RTLD_NOW | RTLD_LOCAL);
    if (!handle) {
        note(f, DOCTOR_MISSING, "OpenBLAS", "apt-get install libopenblas0-pthread", "libopenblas.so.0 cannot be loaded");
        return;
    }
    char *(*config)(void);
    int (*threads)(void);
    *(void **)&config = dlsym(handle, "openblas_get_config");
    *(void **)&threads = dlsym(handle, "openblas_get_num_threads");
    note(f, DOCTOR_OK, "OpenBLAS", "", "%s; %d threads unless a plugin says otherwise", config ? config() : "unknown",
         threads ? threads() : 0);
}

static void note_libraries(struct findings *f)
{
    note_openblas(f);
    int new_enough = sqlite3_libversion_number() >= 3037000; /* STRICT tables */
    note(f, new_enough ? DOCTOR_OK : DOCTOR_MISSING, "SQLite", new_enough ? "" : "3.37 or newer is needed", "%s",
         sqlite3_libversion());
    note(f, DOCTOR_OK, "Lua", "", "%s", LUA_RELEASE);
    const char *compiler = getenv("CC") && *getenv("CC") ? getenv("CC") : "cc";
    char command[PATH_MAX + 32];
    int there = doctor_in_path(compiler, command, sizeof command);
    note(f, there ? DOCTOR_OK : DOCTOR_WARN, "C compiler", there ? "" : "`lathe new` needs one: apt-get install gcc",
         "%s", there ? command : "not found");
}

/* --- the product's files -------------------------------------------------------------------- */

static void note_plugins(struct findings *f)
{
    struct registry *registry;
    const struct registry_entry *entries = NULL;
    struct lathe_error err;
    size_t count = 0;
    int of_kind[KIND_COUNT + 1] = { 0 };
    char folder[PATH_MAX];
    if (registry_open(NULL, &registry, &err) != LATHE_OK) {
        note(f, DOCTOR_MISSING, "plugins", "correct LATHE_PLUGIN_PATH, or build again", "%s", err.message);
        return;
    }
    if (registry_list(registry, &entries, &count, &err) != LATHE_OK)
        note(f, DOCTOR_MISSING, "plugins", "", "%s", err.message);
    struct text list = { 0 };
    size_t sound = 0;
    for (size_t i = 0; i < count; i++)
        if (entries[i].plugin) {
            of_kind[entries[i].kind]++;
            sound++;
        }
    for (int kind = 1; kind <= KIND_COUNT; kind++)
        text_print(&list, "%s%s %d", kind > 1 ? ", " : "", kind_name(kind), of_kind[kind]);
    if (product_path("plugins", folder, sizeof folder, &err) != LATHE_OK)
        note(f, DOCTOR_MISSING, "plugin folder", "build or install again", "%s", err.message);
    note(f, sound > 0 ? DOCTOR_OK : DOCTOR_MISSING, "plugins", sound > 0 ? "" : "build: cmake --build", "%zu: %s", sound,
         list.bytes ? list.bytes : "");
    for (int kind = LATHE_KIND_TOKENIZER; kind <= LATHE_KIND_BUS; kind++)
        if (of_kind[kind] == 0 && sound > 0)
            note(f, DOCTOR_MISSING, "plugins", "an engine needs one of each kind; build again", "no %s", kind_name(kind));
    for (size_t i = 0; i < count; i++)
        if (!entries[i].plugin)
            note(f, DOCTOR_WARN, "refused plugin", "mend it or take it away", "%s", entries[i].refusal);
    text_free(&list);
    registry_close(registry);
}

static void note_models(struct findings *f)
{
    char path[PATH_MAX];
    struct lathe_error err;
    if (model_path_resolve("smollm2-135m", path, sizeof path, &err) == LATHE_OK)
        note(f, DOCTOR_OK, "models", "", "smollm2-135m: %s", path);
    else
        note(f, DOCTOR_WARN, "models", "scripts/quickstart.sh fetches it, or name another with -m", "%s",
             "smollm2-135m is not here");
    static const char *const folders[] = { "scripts", "schemas", "experiments" };
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++)
        if (product_path(folders[i], path, sizeof path, &err) != LATHE_OK)
            note(f, DOCTOR_MISSING, folders[i], "install again", "%s", err.message);
}

static void note_disk(struct findings *f)
{
    struct statvfs disk;
    if (statvfs(".", &disk) != 0)
        return;
    double free_gib = (double)disk.f_bavail * (double)disk.f_frsize / (1024.0 * 1024 * 1024);
    int enough = free_gib >= 1;
    note(f, enough ? DOCTOR_OK : DOCTOR_WARN, "disk", enough ? "" : "results land in ./results; make room or change "
         "folder", "%.1f GiB free here", free_gib);
    if (access(".", W_OK) != 0)
        note(f, DOCTOR_WARN, "current folder", "run from a folder that you may write", "results cannot be written here");
}

/* --- telling -------------------------------------------------------------------------------- */

static void print_json(const struct findings *f)
{
    struct text json = { 0 };
    text_print(&json, "[");
    for (size_t i = 0; i < f->count; i++) {
        text_print(&json, "%s\n  {\"state\": \"%s\", \"what\": ", i > 0 ? "," : "", words[f->list[i].state]);
        text_json(&json, f->list[i].what);
        text_print(&json, ", \"found\": ");
        text_json(&json, f->list[i].found);
        text_print(&json, ", \"advice\": ");
        text_json(&json, f->list[i].advice);
        text_print(&json, "}");
    }
    text_print(&json, "\n]");
    puts(json.failed ? "[]" : json.bytes);
    text_free(&json);
}

static void print_lines(const struct findings *f)
{
    int counts[3] = { 0 };
    for (size_t i = 0; i < f->count; i++) {
        const struct finding *finding = &f->list[i];
        counts[finding->state]++;
        printf("%-8s %-20s %s%s%s\n", words[finding->state], finding->what, finding->found,
               finding->advice[0] ? " → " : "", finding->advice);
    }
    printf("\n%d ok, %d to look at, %d missing\n", counts[DOCTOR_OK], counts[DOCTOR_WARN], counts[DOCTOR_MISSING]);
}

int cmd_doctor(int argc, char **argv)
{
    static const struct option options[] = {
        { "help", no_argument, NULL, 'h' }, { "json", no_argument, NULL, 'j' }, { NULL, 0, NULL, 0 },
    };
    int json = 0, status = 0;
    opterr = 0;
    optind = 1;
    for (int c; (c = getopt_long(argc, argv, "h", options, NULL)) != -1;)
        switch (c) {
        case 'h': fputs(help, stdout); return 0;
        case 'j': json = 1; break;
        default: return command_usage("doctor", "unknown option %s", argv[optind - 1]);
        }
    if (optind < argc)
        return command_usage("doctor", "it takes no arguments, but got `%.60s`", argv[optind]);
    struct findings *findings = calloc(1, sizeof *findings);
    struct lathe_error err;
    if (!findings) {
        lathe_fail(&err, LATHE_ENOMEM, "no memory for the findings");
        return command_fail("doctor", 1, &err);
    }
    note(findings, DOCTOR_OK, "lathe", "", "%s, %s build", product_version(), product_build_type());
    note_processor(findings);
    note_memory(findings);
    note_waking(findings);
    note_libraries(findings);
    note_plugins(findings);
    note_models(findings);
    note_disk(findings);
    if (json)
        print_json(findings);
    else
        print_lines(findings);
    for (size_t i = 0; i < findings->count; i++)
        if (findings->list[i].state == DOCTOR_MISSING)
            status = 1;
    free(findings);
    return status;
}
