/* SPDX-License-Identifier: MIT */
/* What a run's row says of where it ran: the machine, and the build. Timings mean nothing
 * without them. */
#include "run_job.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <jansson.h>
#include <sqlite3.h>

#include "build_commit.h"
#include "sha256.h"

/* The value behind `key : ` in /proc/cpuinfo; "" if it isn't there. */
static void cpu_field(const char *key, char *value, size_t capacity)
{
    char line[8192]; /* the flags of one processor are about 2,000 bytes */
    value[0] = '\0';
    FILE *file = fopen("/proc/cpuinfo", "r");
    while (file && fgets(line, sizeof line, file)) {
        char *colon = strchr(line, ':');
        if (!colon || strncmp(line, key, strlen(key)))
            continue;
        snprintf(value, capacity, "%s", colon + 1 + strspn(colon + 1, " \t"));
        value[strcspn(value, "\n")] = '\0';
        break;
    }
    if (file)
        fclose(file);
}

/* Instruction sets that the kernels choose by. */
static json_t *cpu_features(void)
{
    static const char *const names[] = { "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512_vnni", "avx_vnni", "amx_int8" };
    char line[8192], padded[64];
    json_t *array = json_array();
    line[0] = ' ';
    cpu_field("flags", line + 1, sizeof line - 2);
    strcat(line, " ");
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        snprintf(padded, sizeof padded, " %s ", names[i]);
        if (strstr(line, padded))
            json_array_append_new(array, json_string(names[i]));
    }
    return array;
}

char *machine_json(void)
{
    struct utsname system;
    struct sysinfo memory;
    char cpu[256];
    json_t *object = json_object();
    if (!object)
        return NULL;
    cpu_field("model name", cpu, sizeof cpu);
    if (!uname(&system)) {
        json_object_set_new(object, "hostname", json_string(system.nodename));
        json_object_set_new(object, "system", json_string(system.sysname));
        json_object_set_new(object, "kernel", json_string(system.release));
        json_object_set_new(object, "architecture", json_string(system.machine));
    }
    json_object_set_new(object, "cpu", json_string(cpu));
    json_object_set_new(object, "cpu_features", cpu_features());
    json_object_set_new(object, "cpus", json_integer(sysconf(_SC_NPROCESSORS_ONLN)));
    if (!sysinfo(&memory))
        json_object_set_new(object, "memory_bytes", json_integer((json_int_t)memory.totalram * memory.mem_unit));
    json_object_set_new(object, "lathe", json_string(LATHE_VERSION));
    json_object_set_new(object, "build_type", json_string(LATHE_BUILD_TYPE));
    json_object_set_new(object, "compiler", json_string(__VERSION__));
    json_object_set_new(object, "sqlite", json_string(sqlite3_libversion()));
    char *text = json_dumps(object, JSON_COMPACT);
    json_decref(object);
    return text;
}

const char *build_commit(int *dirty)
{
    *dirty = BUILD_DIRTY;
    return BUILD_COMMIT;
}

/* ── sums of files ─────────────────────────────────────────────────────────────────── */

/* A model of 100 MB takes a third of a second: once a process is enough, unless it changed. */
static struct {
    char path[4096], hex[65];
    struct timespec changed;
    off_t bytes;
} remembered[32];
static size_t remembered_count;
static pthread_mutex_t remembered_lock = PTHREAD_MUTEX_INITIALIZER; /* held while summing: two runs want the same file */

static int sum_locked(const char *path, char hex[65], struct lathe_error *err)
{
    struct stat status;
    if (stat(path, &status) || !S_ISREG(status.st_mode))
        return lathe_fail(err, LATHE_EIO, "can't read %s to take its sum: it is no readable file", path);
    for (size_t i = 0; i < remembered_count; i++) {
        if (!strcmp(remembered[i].path, path) && remembered[i].bytes == status.st_size &&
            remembered[i].changed.tv_sec == status.st_mtim.tv_sec &&
            remembered[i].changed.tv_nsec == status.st_mtim.tv_nsec) {
            memcpy(hex, remembered[i].hex, 65);
            return LATHE_OK;
        }
    }
    int result = sha256_file(path, hex, err);
    if (!result && strlen(path) < sizeof remembered[0].path) {
        const size_t last = sizeof remembered / sizeof remembered[0] - 1;
        size_t slot = remembered_count <= last ? remembered_count++ : last;
        snprintf(remembered[slot].path, sizeof remembered[slot].path, "%s", path);
        memcpy(remembered[slot].hex, hex, 65);
        remembered[slot].changed = status.st_mtim;
        remembered[slot].bytes = status.st_size;
    }
    return result;
}

int file_sha256_cached(const char *path, char hex[65], struct lathe_error *err)
{
    pthread_mutex_lock(&remembered_lock);
    int status = sum_locked(path, hex, err);
    pthread_mutex_unlock(&remembered_lock);
    return status;
}
