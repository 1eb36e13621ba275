/* SPDX-License-Identifier: MIT */
/* One recorder a file for all runs of this process: a file has one writer (recorder_lock.c), and
 * a sweep has many runs, some of them at once. Opening SQLite for each would also cost more than
 * a short run in virtual time does: whoever runs many borrows one recorder of its own first, and
 * gives it back last.
 *
 * Files are told apart by the name that they were asked for with. Two names of one file are two
 * recorders, and the second is told that the first holds the file. */
#include "recorder.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct shared {
    struct shared *next;
    struct recorder *recorder;
    size_t borrowers;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* held while opening and closing, too */
static struct shared *all;

static int open_shared(const struct recorder_params *params, struct shared **shared, struct lathe_error *err)
{
    *shared = calloc(1, sizeof **shared);
    if (!*shared)
        return lathe_fail(err, LATHE_ENOMEM, "%s: out of memory", params->path);
    int status = recorder_open(params, &(*shared)->recorder, err);
    if (status) {
        free(*shared);
        return status;
    }
    (*shared)->next = all;
    all = *shared;
    return LATHE_OK;
}

int recorder_borrow(const struct recorder_params *params, struct recorder **recorder, struct lathe_error *err)
{
    int status = LATHE_OK;
    pthread_mutex_lock(&lock);
    struct shared *shared = all;
    while (shared && strcmp(recorder_path(shared->recorder), params->path))
        shared = shared->next;
    if (!shared)
        status = open_shared(params, &shared, err);
    if (!status) {
        shared->borrowers++;
        *recorder = shared->recorder;
    }
    pthread_mutex_unlock(&lock);
    return status;
}

int recorder_return(struct recorder *recorder, struct lathe_error *err)
{
    int status = LATHE_OK;
    pthread_mutex_lock(&lock);
    for (struct shared **at = &all; *at; at = &(*at)->next) {
        struct shared *shared = *at;
        if (shared->recorder != recorder)
            continue;
        if (--shared->borrowers == 0) {
            *at = shared->next;
            free(shared);
            status = recorder_close(recorder, err);
        }
        break;
    }
    pthread_mutex_unlock(&lock);
    return status;
}
