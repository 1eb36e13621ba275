/* SPDX-License-Identifier: MIT */
/* A test through the whole engine: what lathe.run does, with scheduler, batching, cache, sampler and
 * a recorder whose database is thrown away. The rows of `step` tell what of it was the test's:
 *
 *     ppN      the steps that prefill: from the first one's start to the last one's end
 *     tgN xB   the first N steps that decode all B sequences and prefill nothing, likewise
 *
 * So the time between steps (handing tokens out, recording, the loop) counts as the engine's, and
 * what is not the model's forward of that stretch is its own share. The writer's thread runs
 * meanwhile: what it takes from the model shows in the rate, not in the share. */
#include "bench.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sqlite3.h>

#include "run_job.h"

enum { SPARE_TOKENS = 256 }; /* of KV a sequence: blocks are never quite full */

bool bench_engine_can(const struct bench_test *test)
{
    return test->prompt ? !test->generated && !test->depth && test->sequences == 1 : test->generated > 0;
}

static const char prefill_query[] =
    "select count(*), min(start_ns), max(end_ns), sum(forward_ns), sum(prefill_tokens) from step where prefill_tokens > 0";
static const char decode_query[] =
    "select count(*), min(start_ns), max(end_ns), sum(forward_ns), sum(decode_tokens) from "
    "(select * from step where decode_tokens = ?1 and prefill_tokens = 0 order by run_id, id limit ?2)";

static int read_steps(const char *path, const struct bench_test *test, struct bench_engine_result *result,
                      struct lathe_error *err)
{
    sqlite3 *db = NULL;
    sqlite3_stmt *statement = NULL;
    uint32_t wanted = test->prompt ? 1 : test->generated;
    int status = LATHE_OK;
    if (sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL) ||
        sqlite3_prepare_v2(db, test->prompt ? prefill_query : decode_query, -1, &statement, NULL) ||
        (!test->prompt && (sqlite3_bind_int64(statement, 1, test->sequences) || sqlite3_bind_int64(statement, 2, wanted))) ||
        sqlite3_step(statement) != SQLITE_ROW)
        status = lathe_fail(err, LATHE_EIO, "%s: the steps can't be read back: %s", path, db ? sqlite3_errmsg(db) : "no memory");
    else if (sqlite3_column_int64(statement, 0) < wanted)
        status = lathe_fail(err, LATHE_ERANGE, "the engine made %lld steps of all %u sequences, %u are needed: its batching or "
                            "its cache doesn't take so many at once", (long long)sqlite3_column_int64(statement, 0),
                            test->sequences, wanted);
    if (!status) {
        result->seconds = (sqlite3_column_double(statement, 2) - sqlite3_column_double(statement, 1)) * 1e-9;
        result->forward_s = sqlite3_column_double(statement, 3) * 1e-9;
        result->tokens = sqlite3_column_double(statement, 4);
    }
    sqlite3_finalize(statement);
    sqlite3_close(db);
    return status;
}

/* Requests as long as the test's sequences; a few tokens more, since those that come first decode
 * while the last are still prefilled. */
static struct planned_request *plan(const struct bench_test *test, uint32_t chunk, uint32_t vocab, int32_t **tokens)
{
    uint32_t prompt = test->prompt ? test->prompt : test->depth ? test->depth : 1, output = 1;
    if (test->generated)
        output = test->generated + 2 + (uint32_t)((uint64_t)test->sequences * prompt / chunk);
    struct planned_request *requests = calloc(test->sequences, sizeof *requests);
    *tokens = calloc((size_t)prompt * test->sequences, sizeof **tokens);
    for (uint32_t i = 0; requests && *tokens && i < test->sequences; i++) {
        int32_t *ids = *tokens + (size_t)i * prompt;
        for (uint32_t k = 0; k < prompt; k++) /* no two prompts alike: a cache that shares has nothing to share */
            ids[k] = (int32_t)(((uint64_t)k * 7919 + (uint64_t)i * 104729 + 1) % vocab);
        requests[i].submit = (struct engine_submit){ .tokens = ids, .token_count = prompt, .forced_output_tokens = output,
                                                     .max_output_tokens = output, .ignore_eos = 1 };
    }
    if (requests && *tokens)
        return requests;
    free(requests);
    free(*tokens);
    *tokens = NULL;
    return NULL;
}

static int remove_database(const char *folder, struct lathe_error *err)
{
    static const char *const files[] = { "bench.db", "bench.db-wal", "bench.db-shm" };
    char path[4200];
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, files[i]);
        unlink(path);
    }
    return rmdir(folder) ? lathe_fail(err, LATHE_EIO, "%s can't be removed: %s", folder, strerror(errno)) : LATHE_OK;
}

static int run_recorded(const struct bench_engine *e, const struct bench_test *test, const char *path,
                        struct bench_engine_result *result, struct lathe_error *err)
{
    struct run_job *job = calloc(1, sizeof *job);
    int32_t *tokens = NULL;
    if (!job)
        return lathe_fail(err, LATHE_ENOMEM, "no memory for a run");
    job->requests = plan(test, e->chunk, e->loaded->info.vocab_tokens, &tokens);
    job->who = "lathe bench";
    job->registry = e->registry;
    job->model = e->loaded;
    job->count = test->sequences;
    job->recording = job->quiet = true;
    job->database = path;
    job->info = (struct run_info){ .label = "bench", .seed_index = -1, .clock = "real", .seed = 1, .dirty = -1 };
    uint32_t longest = job->requests ? (uint32_t)job->requests[0].submit.token_count +
                                       job->requests[0].submit.forced_output_tokens : 0;
    job->engine = (struct engine_params){ .max_requests = test->sequences, .batch_requests = test->sequences,
                                          .batch_tokens = e->chunk > test->sequences ? e->chunk : test->sequences,
                                          .context_tokens = longest, .threads = test->threads, .kv_dtype = e->kv_dtype };
    job->engine.kv_memory_bytes = ((uint64_t)longest + SPARE_TOKENS) * test->sequences * e->loaded->info.kv_bytes_per_token;
    int status = job->requests ? LATHE_OK : lathe_fail(err, LATHE_ENOMEM, "no memory for %u requests", test->sequences);
    for (int kind = 1; !status && kind <= LATHE_KIND_FRONTEND; kind++)
        status = stage_copy(&job->stages[kind], &e->stages[kind], err);
    if (!status)
        status = parts_open(e->registry, e->loaded, job->stages, &job->parts, err);
    if (!status)
        status = run_job(job, err);
    for (size_t i = 0; !status && i < job->count; i++)
        if (job->requests[i].finish_reason == LATHE_FINISH_ERROR)
            status = lathe_fail(err, LATHE_EINVAL, "a request of the test failed in the engine: %s", job->requests[i].error);
    if (!status)
        status = read_steps(path, test, result, err);
    run_requests_free(job->requests, job->count);
    run_job_close(job);
    free(tokens);
    free(job);
    return status;
}

int bench_engine_run(const struct bench_engine *engine, const struct bench_test *test, struct bench_engine_result *result,
                     struct lathe_error *err)
{
    const char *temporary = getenv("TMPDIR");
    char folder[4096], path[4200];
    struct lathe_error removing;
    if (!bench_engine_can(test))
        return lathe_fail(err, LATHE_EUNSUPPORTED, "through the engine only prompts without depth and generation can be timed");
    snprintf(folder, sizeof folder, "%s/lathe-bench-XXXXXX", temporary && *temporary ? temporary : "/tmp");
    if (!mkdtemp(folder))
        return lathe_fail(err, LATHE_EIO, "no folder for the database can be made as %s: %s; name another place in TMPDIR", folder,
                          strerror(errno));
    snprintf(path, sizeof path, "%s/bench.db", folder);
    int status = run_recorded(engine, test, path, result, err);
    int removed = remove_database(folder, &removing);
    if (!status && removed)
        *err = removing;
    return status ? status : removed;
}
