/* SPDX-License-Identifier: MIT */
/* The recorder, read back through a connection of its own. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "recorder.h"

static char folder[64];
static char path[128];
static struct lathe_error err;

static int make_folder(void **state)
{
    (void)state;
    strcpy(folder, "recorder_test_XXXXXX");
    if (!mkdtemp(folder))
        return -1;
    snprintf(path, sizeof path, "%s/x.db", folder);
    memset(&err, 0, sizeof err);
    return 0;
}

static int remove_folder(void **state)
{
    char command[128];
    (void)state;
    snprintf(command, sizeof command, "rm -rf %s", folder);
    return system(command);
}

static struct recorder *open_it(void)
{
    struct recorder *recorder = NULL;
    struct recorder_params params = { .path = path };
    int status = recorder_open(&params, &recorder, &err);
    if (status != LATHE_OK)
        print_error("%s\n", err.message);
    assert_int_equal(status, LATHE_OK);
    return recorder;
}

static struct recorder_run *begin(struct recorder *recorder)
{
    struct recorder_run *run = NULL;
    struct run_info info = { .label = "a run", .seed_index = -1, .clock = "virtual", .seed = UINT64_MAX, .dirty = -1,
                             .config_json = "{\"scheduler\":\"fcfs\"}", .argv_json = "[\"lathe\"]" };
    int status = recorder_run_begin(recorder, &info, &run, &err);
    if (status != LATHE_OK)
        print_error("%s\n", err.message);
    assert_int_equal(status, LATHE_OK);
    return run;
}

/* The first column of the first row, as text; "NULL" and "none" where there is none. */
static const char *ask(const char *sql)
{
    static char answer[8][512];
    static int turn;
    char *out = answer[turn++ % 8];
    sqlite3 *db;
    sqlite3_stmt *stmt;
    assert_int_equal(sqlite3_open_v2(path, &db, SQLITE_OPEN_READONLY, NULL), SQLITE_OK);
    if (sqlite3_prepare_v2(db, sql, -1, &stmt, NULL) != SQLITE_OK) {
        print_error("%s: %s\n", sql, sqlite3_errmsg(db));
        sqlite3_close(db);
        fail();
    }
    strcpy(out, "none");
    if (sqlite3_step(stmt) == SQLITE_ROW) {
        const char *text = (const char *)sqlite3_column_text(stmt, 0);
        snprintf(out, sizeof answer[0], "%s", text ? text : "NULL");
    }
    sqlite3_finalize(stmt);
    sqlite3_close(db);
    return out;
}

static void token(struct producer *producer, int64_t request, int64_t position)
{
    struct record_token t = { .request_id = request, .position = position, .step_id = position, .kind = "output",
                              .token = 5, .time_ns = position * 1000, .gap_ns = position ? 1000 : RECORD_NULL,
                              .logprob = -0.5 };
    record_token(producer, &t);
}

/* ---- rows ----------------------------------------------------------------------------- */

static void every_event_becomes_a_row(void **state)
{
    (void)state;
    struct recorder *recorder = open_it();
    struct recorder_run *run = begin(recorder);
    struct producer *producer;
    assert_int_equal(recorder_producer(run, &producer, &err), LATHE_OK);

    struct record_request request = { .id = 1, .class = "chat", .session = RECORD_NULL, .turn = RECORD_NULL,
        .planned_ns = 5, .arrival_ns = 6, .admitted_ns = RECORD_NULL, .first_token_ns = RECORD_NULL,
        .finish_ns = RECORD_NULL, .prompt_tokens = 3, .slo_ttft_ns = RECORD_NULL, .slo_tpot_ns = RECORD_NULL,
        .deadline_ns = RECORD_NULL };
    record_request(producer, &request);
    request.finish_ns = 99, strcpy(request.finish_reason, "stop");
    record_request(producer, &request); /* arrives, ends: one row */
    struct record_request_span span = { .request_id = 1, .from_ns = 1, .to_ns = 2, .state = "waiting" };
    record_request_span(producer, &span);
    struct record_step step = { .id = 1, .start_ns = 1, .end_ns = 9, .kv_blocks_total = 17 };
    record_step(producer, &step);
    struct record_step_request entry = { .step_id = 1, .request_id = 1, .phase = "prefill", .tokens = 3 };
    record_step_request(producer, &entry);
    struct record_token t = { .request_id = 1, .position = 3, .step_id = 1, .kind = "output", .token = 7,
                              .time_ns = 8, .gap_ns = RECORD_NULL, .logprob = NAN };
    record_token(producer, &t);
    struct record_hop hop = { .id = 1, .parent_id = RECORD_NULL, .step_id = RECORD_NULL, .endpoint = "model.forward" };
    record_hop(producer, &hop);
    struct record_score score = { .request_id = 1, .name = "nll", .value = 2.5, .n = 3 };
    record_score(producer, &score);
    struct record_metric metric = { .time_ns = 4, .plugin = "scheduler/fcfs", .name = "queue", .value = 1 };
    record_metric(producer, &metric);
    struct record_event event = { .time_ns = 4, .level = "warn", .correlation_id = RECORD_NULL,
                                  .message = "naïve \xff end", .fields = "{\"a\":1}" };
    record_event(producer, &event);
    assert_int_equal(recorder_factor(run, "rate", "2.5", &err), LATHE_OK);
    assert_int_equal(recorder_artifact(run, "model", "m", NULL, "file", NULL, &err), LATHE_OK);
    assert_int_equal(recorder_plugin(run, "bus", "direct", "1.0.0", 1, NULL, "{}", 0, RECORD_NULL, &err), LATHE_OK);
    assert_int_equal(recorder_token_text(run, 7, "\xf0\x9f\x98", 3, &err), LATHE_OK);
    assert_int_equal(recorder_token_text(run, 7, "again", 5, &err), LATHE_OK);

    assert_int_equal(recorder_flush(recorder, &err), LATHE_OK); /* readable while the run goes on */
    assert_string_equal(ask("SELECT count(*) || finish_ns || finish_reason || ifnull(tenant, '-') FROM request"), "199stop-");
    assert_string_equal(ask("SELECT state FROM request_span"), "waiting");
    assert_string_equal(ask("SELECT kv_blocks_total FROM step"), "17");
    assert_string_equal(ask("SELECT phase || tokens FROM step_request"), "prefill3");
    assert_string_equal(ask("SELECT logprob FROM token WHERE gap_ns IS NULL"), "NULL");
    assert_string_equal(ask("SELECT endpoint FROM hop"), "model.forward");
    assert_string_equal(ask("SELECT value FROM score"), "2.5");
    assert_string_equal(ask("SELECT plugin FROM metric"), "scheduler/fcfs");
    assert_string_equal(ask("SELECT message FROM event"), "naïve \xef\xbf\xbd end");
    assert_string_equal(ask("SELECT value + 0 FROM run_factor"), "2.5");
    assert_string_equal(ask("SELECT uri FROM artifact"), "file");
    assert_string_equal(ask("SELECT name FROM plugin"), "direct");
    assert_string_equal(ask("SELECT text FROM token_text"), "\xef\xbf\xbd"); /* one maximal ill-formed part */
    assert_string_equal(ask("SELECT state || seed || length(uid) FROM run"), "running-136");
    assert_int_equal(recorder_run_end(run, "done", &err), LATHE_OK);
    assert_int_equal(recorder_close(recorder, &err), LATHE_OK);
    assert_string_equal(ask("SELECT state FROM run"), "done");
    assert_string_equal(ask("PRAGMA integrity_check"), "ok");
    assert_string_equal(ask("SELECT count(*) FROM pragma_foreign_key_check"), "0");
}

static void attention_rows_keep_the_probes_bytes(void **state)
{
    (void)state;
    struct recorder *recorder = open_it();
    struct recorder_run *run = begin(recorder);
    struct producer *producer;
    struct lathe_probe probe = { .id = 1, .format = LATHE_PROBE_FULL, .every = 1, .last_position = -1,
                                 .layers = { 2 }, .heads = { 5 } };
    assert_int_equal(recorder_producer(run, &producer, &err), LATHE_OK);
    assert_int_equal(recorder_probe(run, &probe, &err), LATHE_OK);
    assert_true(record_attention_capacity(producer) > 15 << 20);

    size_t bytes = lathe_attention_row_bytes(&probe, 3);
    uint8_t *room = record_attention_reserve(producer, 4 * bytes);
    assert_non_null(room);
    assert_int_equal((uintptr_t)room % 64, 0);
    for (int i = 0; i < 2; i++) {
        struct lathe_attention_row row = { .request = 1, .position = 2 + i, .keys = 3, .probe = 1, .bytes = (uint32_t)bytes };
        memset(room + i * bytes, 0xab, bytes);
        memcpy(room + i * bytes, &row, sizeof row);
    }
    record_attention_commit(producer, 2 * bytes, 9);
    assert_int_equal(recorder_run_end(run, "done", &err), LATHE_OK);
    assert_int_equal(recorder_close(recorder, &err), LATHE_OK);
    assert_string_equal(ask("SELECT count(*) || min(step_id) || min(length(data)) || max(hex(data)) FROM attention_token"),
                        "2912ABABABABABABABABABABABAB");
    assert_string_equal(ask("SELECT layers || heads || format FROM probe"), "[1][0,2]full");
}

static void malformed_attention_is_counted_and_told(void **state)
{
    (void)state;
    struct recorder *recorder = open_it();
    struct recorder_run *run = begin(recorder);
    struct producer *producer;
    assert_int_equal(recorder_producer(run, &producer, &err), LATHE_OK);
    struct lathe_attention_row row = { .request = 1, .keys = 3, .probe = 77, .bytes = 64 };
    void *room = record_attention_reserve(producer, 64);
    memcpy(room, &row, sizeof row);
    record_attention_commit(producer, 64, 1);
    assert_int_not_equal(recorder_run_end(run, "done", &err), LATHE_OK);
    assert_non_null(strstr(err.message, "attention_token"));
    assert_int_equal(recorder_close(recorder, &err), LATHE_OK);
    assert_string_equal(ask("SELECT state || dropped_events FROM run"), "done1");
}

static void a_refused_row_is_counted_and_the_rest_kept(void **state)
{
    (void)state;
    struct recorder *recorder = open_it();
    struct recorder_run *run = begin(recorder);
    struct producer *producer;
    assert_int_equal(recorder_producer(run, &producer, &err), LATHE_OK);
    token(producer, 1, 1);
    token(producer, 1, 1); /* the same key twice */
    token(producer, 1, 2);
    assert_int_equal(recorder_flush(recorder, &err), LATHE_OK);
    assert_int_not_equal(recorder_run_end(run, "done", &err), LATHE_OK);
    assert_non_null(strstr(err.message, "token"));
    recorder_close(recorder, &err);
    assert_string_equal(ask("SELECT count(*) FROM token"), "2");
    assert_string_equal(ask("SELECT state || dropped_events FROM run"), "done1");
}

/* ---- rings that are full -------------------------------------------------------------- */

static void a_full_ring_waits_and_loses_nothing(void **state)
{
    (void)state;
    struct recorder *recorder;
    struct recorder_params params = { .path = path, .ring_bytes = 8192, .flush_interval_ns = 3600000000000 };
    assert_int_equal(recorder_open(&params, &recorder, &err), LATHE_OK);
    struct recorder_run *run = begin(recorder);
    struct producer *producer;
    assert_int_equal(recorder_producer(run, &producer, &err), LATHE_OK);
    for (int i = 0; i < 20000; i++)
        token(producer, 1, i);
    assert_int_equal(recorder_run_end(run, "done", &err), LATHE_OK);
    assert_int_equal(recorder_close(recorder, &err), LATHE_OK);
    assert_string_equal(ask("SELECT count(*) FROM token"), "20000");
    assert_string_equal(ask("SELECT dropped_events FROM run"), "0");
}

static void a_full_ring_drops_and_counts_when_asked_to(void **state)
{
    (void)state;
    struct recorder *recorder;
    struct recorder_params params = { .path = path, .ring_bytes = 8192, .on_full = RECORDER_DROP, .bulk_bytes = 8192 };
    assert_int_equal(recorder_open(&params, &recorder, &err), LATHE_OK);
    struct recorder_run *run = begin(recorder);
    struct producer *producer;
    uint64_t events, attention;
    char sql[128];
    assert_int_equal(recorder_producer(run, &producer, &err), LATHE_OK);
    for (int i = 0; i < 20000; i++)
        token(producer, 1, i);
    assert_null(record_attention_reserve(producer, 1 << 20));
    recorder_dropped(run, &events, &attention);
    assert_true(events > 0 && events < 20000);
    assert_int_equal(attention, 1);
    assert_int_equal(recorder_run_end(run, "done", &err), LATHE_OK);
    assert_int_equal(recorder_close(recorder, &err), LATHE_OK);
    snprintf(sql, sizeof sql, "SELECT count(*) + %llu FROM token", (unsigned long long)events);
    assert_string_equal(ask(sql), "20000");
    snprintf(sql, sizeof sql, "SELECT dropped_events = %llu FROM run", (unsigned long long)events + 1);
    assert_string_equal(ask(sql), "1");
}

struct thread_work {
    struct producer *producer;
    int64_t request;
};

static void *record_many(void *argument)
{
    struct thread_work *work = argument;
    for (int i = 0; i < 5000; i++)
        token(work->producer, work->request, i);
    return NULL;
}

static void several_threads_record_at_once(void **state)
{
    (void)state;
    struct recorder *recorder = open_it();
    struct recorder_run *run = begin(recorder);
    struct thread_work work[4];
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) {
        work[i].request = i;
        assert_int_equal(recorder_producer(run, &work[i].producer, &err), LATHE_OK);
        assert_int_equal(pthread_create(&threads[i], NULL, record_many, &work[i]), 0);
    }
    assert_int_equal(recorder_flush(recorder, &err), LATHE_OK);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(recorder_run_end(run, "done", &err), LATHE_OK);
    assert_int_equal(recorder_close(recorder, &err), LATHE_OK);
    assert_string_equal(ask("SELECT count(*) FROM token"), "20000");
}

/* ---- runs ----------------------------------------------------------------------------- */

static void invalid_json_of_a_run_is_refused(void **state)
{
    (void)state;
    struct recorder *recorder = open_it();
    struct recorder_run *run;
    struct run_info info = { .config_json = "{nonsense" };
    assert_int_not_equal(recorder_run_begin(recorder, &info, &run, &err), LATHE_OK);
    assert_non_null(strstr(err.message, "json_valid"));
    assert_int_equal(recorder_close(recorder, &err), LATHE_OK);
}

static void a_killed_run_is_cut_short_on_the_next_open(void **state)
{
    (void)state;
    int tell[2];
    char byte;
    assert_int_equal(pipe(tell), 0);
    pid_t child = fork();
    if (child == 0) {
        struct recorder *recorder = open_it();
        struct recorder_run *run = begin(recorder);
        struct producer *producer;
        recorder_producer(run, &producer, &err);
        token(producer, 1, 1);
        recorder_flush(recorder, &err);
        (void)!write(tell[1], "x", 1);
        pause();
        _exit(0);
    }
    assert_int_equal(read(tell[0], &byte, 1), 1);
    /* While it lives, nobody else writes, and its run is left alone. */
    struct recorder *recorder;
    struct recorder_params params = { .path = path };
    assert_int_equal(recorder_open(&params, &recorder, &err), LATHE_EBUSY);
    assert_non_null(strstr(err.message, "process"));
    assert_string_equal(ask("SELECT state FROM run"), "running");
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    assert_int_equal(recorder_close(open_it(), &err), LATHE_OK);
    assert_string_equal(ask("SELECT state FROM run"), "cut_short");
    assert_string_equal(ask("SELECT count(*) FROM token"), "1");
    close(tell[0]), close(tell[1]);
}

static void run_numbers_go_on_where_the_file_ended(void **state)
{
    (void)state;
    for (int i = 1; i <= 2; i++) {
        struct recorder *recorder = open_it();
        struct recorder_run *run = begin(recorder);
        assert_int_equal(recorder_run_id(run), i);
        assert_int_equal(recorder_run_end(run, "failed", &err), LATHE_OK);
        assert_int_equal(recorder_close(recorder, &err), LATHE_OK);
    }
    char lock[160];
    snprintf(lock, sizeof lock, "%s-lock", path);
    assert_int_equal(access(lock, F_OK), -1); /* left clean */
}

/* ---- files that are not for us -------------------------------------------------------- */

static void refused(const char *sentence)
{
    struct recorder *recorder;
    struct recorder_params params = { .path = path };
    assert_int_not_equal(recorder_open(&params, &recorder, &err), LATHE_OK);
    if (!strstr(err.message, sentence))
        print_error("%s\n", err.message);
    assert_non_null(strstr(err.message, sentence));
}

static void shell(const char *sql)
{
    sqlite3 *db;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static void refuses_a_schema_from_the_future(void **state)
{
    (void)state;
    assert_int_equal(recorder_close(open_it(), &err), LATHE_OK);
    shell("PRAGMA user_version = 99");
    refused("newer lathe");
}

static void refuses_another_programs_database(void **state)
{
    (void)state;
    shell("CREATE TABLE run (id INTEGER); CREATE TRIGGER t AFTER INSERT ON run BEGIN DELETE FROM run; END");
    refused("another program");
    assert_string_equal(ask("SELECT count(*) FROM sqlite_schema"), "2");
}

static void a_trigger_planted_in_our_database_does_not_run(void **state)
{
    (void)state;
    assert_int_equal(recorder_close(open_it(), &err), LATHE_OK);
    shell("CREATE TRIGGER t AFTER INSERT ON run BEGIN DELETE FROM run; END");
    struct recorder *recorder = open_it();
    assert_int_equal(recorder_run_end(begin(recorder), "done", &err), LATHE_OK);
    assert_int_equal(recorder_close(recorder, &err), LATHE_OK);
    assert_string_equal(ask("SELECT count(*) FROM run"), "1");
}

static void refuses_what_is_no_database(void **state)
{
    (void)state;
    FILE *f = fopen(path, "w");
    for (int i = 0; i < 1000; i++)
        fputs("This is a text, not a database. ", f);
    fclose(f);
    refused("not an SQLite database");
    unlink(path);
    assert_int_equal(mkdir(path, 0777), 0);
    refused("is a folder");
    rmdir(path);
    assert_int_equal(mkfifo(path, 0666), 0);
    refused("not a regular file");
    unlink(path);
    snprintf(path, sizeof path, "%s/no/such/x.db", folder);
    refused("can't make the folder");
}

static void refuses_a_damaged_database(void **state)
{
    (void)state;
    assert_int_equal(recorder_close(open_it(), &err), LATHE_OK);
    int fd = open(path, O_WRONLY);
    char junk[4096];
    memset(junk, 0xee, sizeof junk);
    assert_int_equal(pwrite(fd, junk, 3900, 196), 3900); /* the schema's first page, its header left */
    close(fd);
    refused("damaged");
}

static void a_database_held_by_another_is_busy_not_a_hang(void **state)
{
    (void)state;
    sqlite3 *db;
    assert_int_equal(recorder_close(open_it(), &err), LATHE_OK);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "BEGIN EXCLUSIVE", NULL, NULL, NULL), SQLITE_OK);
    refused("another process holds");
    sqlite3_close(db);
}

static void a_full_disk_keeps_what_was_committed_and_says_so(void **state)
{
    (void)state;
    pid_t child = fork();
    if (child == 0) { /* a limit on file size stands in for the disk */
        struct rlimit limit = { 1 << 20, 1 << 20 };
        struct recorder *recorder = open_it();
        struct recorder_run *run = begin(recorder);
        struct producer *producer;
        recorder_producer(run, &producer, &err);
        token(producer, 1, 0);
        if (recorder_flush(recorder, &err) != LATHE_OK)
            _exit(1);
        signal(SIGXFSZ, SIG_IGN);
        setrlimit(RLIMIT_FSIZE, &limit);
        for (int i = 1; i < 200000; i++)
            token(producer, 1, i);
        if (recorder_flush(recorder, &err) == LATHE_OK)
            _exit(2);
        if (recorder_run_end(run, "done", &err) == LATHE_OK)
            _exit(3);
        if (recorder_close(recorder, &err) == LATHE_OK || !err.message[0])
            _exit(4);
        _exit(0);
    }
    int status;
    waitpid(child, &status, 0);
    assert_int_equal(status, 0);
    assert_int_equal(recorder_close(open_it(), &err), LATHE_OK);
    assert_string_equal(ask("PRAGMA integrity_check"), "ok");
    assert_string_equal(ask("SELECT state FROM run"), "cut_short");
    assert_string_equal(ask("SELECT count(*) > 0 FROM token WHERE position = 0"), "1");
}

static void a_null_producer_records_nothing(void **state)
{
    (void)state;
    token(NULL, 1, 1);
    assert_null(record_attention_reserve(NULL, 64));
    record_attention_commit(NULL, 64, 1);
    assert_int_equal(record_attention_capacity(NULL), 0);
    assert_int_equal(recorder_close(NULL, &err), LATHE_OK);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make_folder, remove_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(every_event_becomes_a_row),
        TEST(attention_rows_keep_the_probes_bytes),
        TEST(malformed_attention_is_counted_and_told),
        TEST(a_refused_row_is_counted_and_the_rest_kept),
        TEST(a_full_ring_waits_and_loses_nothing),
        TEST(a_full_ring_drops_and_counts_when_asked_to),
        TEST(several_threads_record_at_once),
        TEST(invalid_json_of_a_run_is_refused),
        TEST(a_killed_run_is_cut_short_on_the_next_open),
        TEST(run_numbers_go_on_where_the_file_ended),
        TEST(refuses_a_schema_from_the_future),
        TEST(refuses_another_programs_database),
        TEST(a_trigger_planted_in_our_database_does_not_run),
        TEST(refuses_what_is_no_database),
        TEST(refuses_a_damaged_database),
        TEST(a_database_held_by_another_is_busy_not_a_hang),
        TEST(a_full_disk_keeps_what_was_committed_and_says_so),
        TEST(a_null_producer_records_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
