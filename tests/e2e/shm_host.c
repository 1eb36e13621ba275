/* SPDX-License-Identifier: MIT */
/* A host whose tokenizer sits in worker processes, under load, while somebody kills and stops
 * the workers at random moments.
 *
 *     shm_host KILLS STOPS [SEED [WITHIN_MS]]
 *     shm_host hold          says its workers' numbers, then works until it is killed
 *
 * Promised: every call has one result, the right one or LATHE_EUNAVAILABLE; every death is
 * noticed, and followed by a worker that serves; nothing is left open. With WITHIN_MS also:
 * noticed within that time. Exit status 0, or 1 and what was broken. */
#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <time.h>

#include "log.h"
#include "support/shm_office.h"
#include <lathe/random.h>

enum { WORKERS = 2, CALLERS = 3, WINDOW = 8, LONGEST = 1000, PATIENCE_MS = 120000 };

static struct office office;
static atomic_uint_least64_t begun, done, unavailable;
static atomic_int stop, broken;

static int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* The first of it is said. */
static void broke(const char *what, const struct lathe_error *err)
{
    if (atomic_exchange(&broken, 1))
        return;
    fprintf(stderr, "shm_host: %s%s%s\n", what, err ? ": " : "", err ? err->message : "");
}

/* --- the load ---------------------------------------------------------------------------- */

struct job {
    struct office_pair pair;
    char text[LONGEST + 1];
    uint64_t ticket;
};

static void write_job(struct job *job, uint64_t seed, uint64_t turn)
{
    uint32_t n = 1 + (uint32_t)(lathe_random_u64(seed, LATHE_RANDOM_USER, 0, turn) % LONGEST);
    for (uint32_t i = 0; i < n; i++)
        job->text[i] = (char)('a' + (turn + i) % 26);
    job->text[n] = '\0';
    office_write(&job->pair, job->text);
    atomic_fetch_add(&begun, 1);
}

static void check_job(const struct job *job, int status, const struct lathe_error *err)
{
    atomic_fetch_add(&done, 1);
    if (status == LATHE_EUNAVAILABLE)
        atomic_fetch_add(&unavailable, 1);
    else if (status != LATHE_OK)
        broke("a call failed", err);
    else if (!office_is_right(&job->pair, job->text))
        broke("a call had a wrong answer", NULL);
}

static void *caller(void *seed)
{
    const struct lathe_endpoint *endpoint = office_endpoint(&office, "tokenizer.encode");
    struct job job = { .pair = office_pair(&office) };
    for (uint64_t turn = 0; !atomic_load(&stop); turn++) {
        struct lathe_error err = { 0 };
        write_job(&job, (uintptr_t)seed, turn);
        check_job(&job, endpoint->call(endpoint->self, job.pair.in, job.pair.out, &err), &err);
    }
    office_pair_back(&office, &job.pair);
    return NULL;
}

/* Many under way at once; asks without waiting, and sleeps in poll. */
static void *poster(void *seed)
{
    const struct lathe_endpoint *endpoint = office_endpoint(&office, "tokenizer.encode");
    static struct job jobs[WINDOW];
    uint64_t seen = 0, turn = 0;
    int under_way = 0;
    for (int i = 0; i < WINDOW; i++)
        jobs[i] = (struct job){ .pair = office_pair(&office) };
    do {
        under_way = 0;
        for (int i = 0; i < WINDOW; i++) {
            struct lathe_error err = { 0 };
            struct job *job = &jobs[i];
            int status = job->ticket ? office.api->wait(office.bus, job->ticket, 0, &err) : LATHE_OK;
            if (job->ticket && status != LATHE_EBUSY) {
                check_job(job, status, &err);
                job->ticket = 0;
            }
            if (!job->ticket && !atomic_load(&stop)) {
                write_job(job, (uintptr_t)seed, turn++);
                status = office.api->post(office.bus, endpoint, job->pair.in, job->pair.out, &job->ticket, &err);
                if (status == LATHE_EFULL) /* not taken: again, later */
                    atomic_fetch_sub(&begun, 1);
                else if (status != LATHE_OK)
                    check_job(job, status, &err);
            }
            under_way += job->ticket != 0;
        }
        office.api->poll(office.bus, &seen, 100000000);
    } while (under_way || !atomic_load(&stop));
    for (int i = 0; i < WINDOW; i++)
        office_pair_back(&office, &jobs[i].pair);
    return NULL;
}

/* --- the chaos ----------------------------------------------------------------------------- */

/* 1 when the event was told `count` times. */
static int await(int kind, int count)
{
    for (int64_t until = now_ms() + PATIENCE_MS; office_events(&office, kind, NULL) < count; poll(NULL, 0, 1))
        if (now_ms() > until || atomic_load(&broken))
            return 0;
    return 1;
}

static int all_up(void)
{
    for (int64_t until = now_ms() + PATIENCE_MS; office_health(&office, "tokenizer").workers < WORKERS;
         poll(NULL, 0, 1))
        if (now_ms() > until || atomic_load(&broken))
            return 0;
    return 1;
}

static int64_t hit(int signal_number, uint64_t seed, uint64_t turn)
{
    pid_t children[16];
    int deaths = office_events(&office, LATHE_BUS_WORKER_DIED, NULL), n;
    uint64_t random = lathe_random_u64(seed, LATHE_RANDOM_USER, 1, turn);
    nanosleep(&(struct timespec){ .tv_nsec = (long)(random % 30000000) }, NULL);
    n = office_children(children, 16);
    if (n == 0)
        return -1;
    int64_t begun_ms = now_ms();
    kill(children[random / 30000000 % (uint64_t)n], signal_number);
    if (!await(LATHE_BUS_WORKER_DIED, deaths + 1)) {
        broke("a death was not noticed", NULL);
        return -1;
    }
    return now_ms() - begun_ms;
}

/* The load goes on: results come after this moment. */
static int serves_again(void)
{
    uint64_t before = atomic_load(&done);
    for (int64_t until = now_ms() + PATIENCE_MS; atomic_load(&done) < before + CALLERS + WINDOW; poll(NULL, 0, 1))
        if (now_ms() > until || atomic_load(&broken))
            return 0;
    return 1;
}

static int chaos(int kills, int stops, uint64_t seed, int within_ms)
{
    int64_t longest[2] = { 0, 0 };
    for (int i = 0; i < kills + stops && !atomic_load(&broken); i++) {
        int stopped = i % 2 ? i / 2 < stops : i / 2 >= kills;
        int64_t ms = hit(stopped ? SIGSTOP : SIGKILL, seed, (uint64_t)i);
        if (ms > longest[stopped])
            longest[stopped] = ms;
        if (ms < 0 || !all_up() || !serves_again())
            broke("nobody serves after a death", NULL);
        if (within_ms && ms > within_ms)
            broke("a death was noticed too late", NULL);
    }
    printf("%d kills, noticed within %lld ms; %d stops, within %lld ms\n", kills, (long long)longest[0], stops,
           (long long)longest[1]);
    return !atomic_load(&broken);
}

static void say_children(void)
{
    pid_t children[16];
    int n = office_children(children, 16);
    printf("workers");
    for (int i = 0; i < n; i++)
        printf(" %d", (int)children[i]);
    printf("\n");
    fflush(stdout);
}

int main(int argc, char **argv)
{
    static const char *const options[] = { "retry_attempts", "100", "retry_base_ms", "1", "retry_cap_ms", "50",
                                           "breaker_window", "0", "restarts_max", "1000000", NULL };
    struct lathe_error err = { 0 };
    pthread_t threads[CALLERS + 1];
    int hold = argc > 1 && strcmp(argv[1], "hold") == 0, files = office_open_files();
    uint64_t seed = argc > 3 ? strtoull(argv[3], NULL, 10) : 1;
    if (argc < 2 || (!hold && argc < 3)) {
        fprintf(stderr, "usage: shm_host KILLS STOPS [SEED [WITHIN_MS]] | hold\n");
        return 2;
    }
    OFFICE_MUST(log_open(&err), &err);
    office_open(&office, options);
    char *recipe = office_recipe("byte");
    struct lathe_service service = office_service(recipe, WORKERS);
    OFFICE_MUST(office.api->add_service(office.bus, &service, &err), &err);
    for (uintptr_t i = 0; i <= CALLERS; i++)
        if (pthread_create(&threads[i], NULL, i < CALLERS ? caller : poster, (void *)(seed + i)) != 0)
            return 1;
    if (hold) {
        say_children();
        for (;;)
            pause();
    }
    int fine = chaos(atoi(argv[1]), atoi(argv[2]), seed, argc > 4 ? atoi(argv[4]) : 0);
    atomic_store(&stop, 1);
    for (int i = 0; i <= CALLERS; i++)
        pthread_join(threads[i], NULL);
    struct lathe_endpoint_stats stats;
    office.api->stats(office.bus, office_endpoint(&office, "tokenizer.encode"), &stats);
    printf("%llu calls, %llu results, %llu of them unavailable; %llu attempts repeated\n", (unsigned long long)begun,
           (unsigned long long)done, (unsigned long long)unavailable, (unsigned long long)stats.retries);
    if (begun != done)
        broke("a call has not exactly one result", NULL);
    office_close(&office);
    free(recipe);
    pid_t children[16];
    if (office_children(children, 16) != 0 || office_open_files() != files)
        broke("something was left behind", NULL);
    return fine && !atomic_load(&broken) ? 0 : 1;
}
