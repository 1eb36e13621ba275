/* SPDX-License-Identifier: MIT */
/* Every scheduler with every batching and every kvcache, on random requests in virtual time.
 *
 *     policies all N        every pair once, the kvcaches in turn, N requests each, seeds fixed: what ctest runs
 *     policies product N    every pair with every kvcache
 *     policies kept FILE    the lines of FILE: cases that ever failed
 *     policies starve       policies that promise not to starve anybody, in overload, with every kvcache;
 *     policies starve turn  with the kvcaches in turn
 *     policies soak S       new seeds for S seconds; prints the line of one that fails, for FILE
 *     policies case LINE…   that one
 *
 * Plugins are whatever the registry finds: a new one is in it from its first build on. Those that
 * behave differently by their options are listed with them. */
#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "case.h"
#include "stress/stress.h"

enum { MAX_WORDS = 64, HANGS_AFTER_S = 120 };

/* Beside each plugin as it is. */
static const char *const variants[] = {
    "scheduler/sjf:preemptive=true", "scheduler/sjf:aging_s=0.2", "scheduler/sjf:preemptive=true,aging_s=0.2,unknown=prompt",
    "scheduler/srpt:preempt=recompute", "scheduler/srpt:preemptive=false", "scheduler/srpt:key=output,outrun=double,unknown=prompt",
    "scheduler/priority:preemptive=true", "scheduler/priority:preemptive=true,preempt=recompute",
    "scheduler/priority:aging_s=0.1,preemptive=true", "scheduler/mlfq:preempt=recompute,quantum=2,starve_s=0.2", "scheduler/mlfq:starve_s=0.2",
    "scheduler/edf:preemptive=false", "scheduler/edf:late=drop-to-end", "scheduler/edf:target=request,late=last",
    "scheduler/vtc:preempt_margin=20", "scheduler/hrrn:key=output,unknown=prompt", "scheduler/template:keep_running=true",
    "batching/single:sticky=false", "batching/static:batch=3,window_ms=5", "batching/static:reserve=grow,padded_tokens=64",
    "batching/dynamic:buckets=16,window_ms=5", "batching/dynamic:pad=false,shrink=true,batch=3",
    "batching/continuous:split_prompts=false", "batching/continuous:overtake=true,max_requests=3",
    "batching/prefill_first:watermark=0.3", "batching/chunked:budget=16,max_partial=3", "batching/chunked:watermark=0.2",
    "batching/memory_aware:assume=optimistic", "batching/memory_aware:assume=pessimistic,watermark=0.6",
    "batching/template:prompts=3",
};
/* A pool that holds some requests only, whose tables end within a block. A simulated model tells no masses of keys:
 * h2o has no budget here, and random chooses as it does. */
static const char *const pools[] = {
    "paged:block_tokens=8,blocks=24", "paged:block_tokens=8,blocks=24,preempt=swap", "paged:block_tokens=8,blocks=24,preempt=refuse",
    "paged:block_tokens=1,blocks=150,preempt=swap", "template:places=3", "contiguous:block_tokens=8,blocks=24",
    "contiguous:block_tokens=4,blocks=80,reserve_tokens=90", "window:block_tokens=8,blocks=24,budget=20",
    "window:block_tokens=8,blocks=24,preempt=evict", "sinks:block_tokens=8,blocks=24,budget=20,preempt=swap,positions=original",
    "sinks:block_tokens=4,blocks=40,pool_budget=100,positions=original", "random:block_tokens=8,blocks=24,budget=20,preempt=swap",
    "random:block_tokens=4,blocks=50,budget=40,preempt=evict", "h2o:block_tokens=8,blocks=24,preempt=swap", "prefix:block_tokens=8,blocks=24",
    "prefix:block_tokens=4,blocks=48,preempt=swap,evict=lfu,share=tenant",
};

static char running[512]; /* the case, for whoever kills it */

static void on_alarm(int signal_number)
{
    (void)signal_number;
    const char *words[] = { "not ok: never ends: ", running, "\n" };
    for (int i = 0; i < 3; i++)
        if (write(STDERR_FILENO, words[i], strlen(words[i])) < 0)
            break;
    _exit(1);
}

static int collect(struct registry *registry, int kind, char words[][CASE_WORD])
{
    const struct registry_entry *entries;
    struct lathe_error err;
    size_t count;
    int found = 0;
    CHECK(registry_list(registry, &entries, &count, &err) == LATHE_OK, "%s", err.message);
    for (size_t i = 0; i < count; i++)
        if (entries[i].kind == kind && entries[i].plugin)
            snprintf(words[found++], CASE_WORD, "%s", entries[i].name);
    for (size_t i = 0; i < sizeof variants / sizeof *variants; i++) {
        const char *slash = strchr(variants[i], '/');
        if ((size_t)(slash - variants[i]) == strlen(kind_name(kind)) &&
            strncmp(variants[i], kind_name(kind), (size_t)(slash - variants[i])) == 0)
            snprintf(words[found++], CASE_WORD, "%s", slash + 1);
    }
    for (size_t i = 0; kind == LATHE_KIND_KVCACHE && i < sizeof pools / sizeof *pools; i++)
        snprintf(words[found++], CASE_WORD, "%s", pools[i]);
    CHECK(found > 0 && found <= MAX_WORDS, "%d plugins of kind %s", found, kind_name(kind));
    return found;
}

/* A scheduler that needs what no cache here can tell is refused, in a sentence that names both. */
static int allowed_refusal(const struct policy_case *of, const char *why)
{
    return strncmp(of->scheduler, "prefix", 6) == 0 && strstr(why, "scheduler prefix: this kvcache can't tell") &&
           strstr(why, "or another scheduler");
}

/* 1: it went well. */
static int run(struct registry *registry, const struct policy_case *of, struct case_result *result)
{
    snprintf(running, sizeof running, "%s %s %s %u %" PRIu64, of->scheduler, of->batching, of->kvcache, of->requests, of->seed);
    alarm(HANGS_AFTER_S);
    case_run(registry, of, result);
    alarm(0);
    if (!result->error[0] || (result->refused && allowed_refusal(of, result->error)))
        return 1;
    fprintf(stderr, "not ok: %s\n        %s\n", running, result->error);
    return 0;
}

/* All pairs, the kvcaches in turn with them: each batching meets each kvcache, and each scheduler too. `product`:
 * each pair meets each kvcache. */
static int all(struct registry *registry, uint32_t requests, uint64_t first_seed, int64_t until_ns, int product)
{
    static char schedulers[MAX_WORDS][CASE_WORD], batchings[MAX_WORDS][CASE_WORD], caches[MAX_WORDS][CASE_WORD];
    int s = collect(registry, LATHE_KIND_SCHEDULER, schedulers), b = collect(registry, LATHE_KIND_BATCHING, batchings),
        k = collect(registry, LATHE_KIND_KVCACHE, caches), failures = 0, refused = 0;
    struct case_result sum = { 0 }, one;
    uint64_t seed = first_seed;
    int cases = product ? s * b * k : s * b;
    for (int i = 0; i < cases && (until_ns == 0 || stress_now() < until_ns); i++) {
        struct policy_case of = { .requests = requests, .seed = seed++ };
        int pair = i % (s * b), turn = i / (s * b) + pair / b + pair % b;
        snprintf(of.scheduler, sizeof of.scheduler, "%s", schedulers[pair / b]);
        snprintf(of.batching, sizeof of.batching, "%s", batchings[pair % b]);
        snprintf(of.kvcache, sizeof of.kvcache, "%s", caches[((uint64_t)turn + first_seed) % (uint64_t)k]);
        failures += !run(registry, &of, &one);
        refused += one.refused;
        sum.preemptions += one.preemptions, sum.losses += one.losses, sum.failed += one.failed;
        sum.cancelled += one.cancelled, sum.late += one.late, sum.not_taken += one.not_taken;
    }
    printf("%d schedulers, %d batchings, %d kvcaches, %d cases of %u requests, seeds from %" PRIu64 ": %d failed, %d refused; %"
           PRIu64 " preemptions, %" PRIu64 " losses, %" PRIu64 " ended as error, %" PRIu64 " cancelled, %" PRIu64 " late, %" PRIu64
           " not taken\n", s, b, k, cases, requests, first_seed, failures, refused, sum.preemptions, sum.losses, sum.failed,
           sum.cancelled, sum.late, sum.not_taken);
    CHECK(until_ns || (sum.preemptions && sum.losses && sum.failed && sum.cancelled && sum.late && sum.not_taken && refused),
          "something that these cases are for never happened");
    return failures;
}

static int kept(struct registry *registry, const char *path)
{
    FILE *file = fopen(path, "r");
    char line[512];
    int failures = 0, count = 0;
    struct case_result result;
    CHECK(file, "%s can't be read", path);
    while (fgets(line, sizeof line, file)) {
        struct policy_case of = { 0 };
        if (line[0] == '#' || line[0] == '\n')
            continue;
        CHECK(sscanf(line, "%159s %159s %159s %u %" SCNu64, of.scheduler, of.batching, of.kvcache, &of.requests, &of.seed) == 5,
              "not a case: %s", line);
        failures += !run(registry, &of, &result);
        count++;
    }
    fclose(file);
    CHECK(count > 0, "%s has no cases", path);
    return failures;
}

static int starve(struct registry *registry, int in_turn)
{
    static char schedulers[MAX_WORDS][CASE_WORD], batchings[MAX_WORDS][CASE_WORD], caches[MAX_WORDS][CASE_WORD];
    int s = collect(registry, LATHE_KIND_SCHEDULER, schedulers), b = collect(registry, LATHE_KIND_BATCHING, batchings);
    int k = collect(registry, LATHE_KIND_KVCACHE, caches), failures = 0, promising = 0, others = 0;
    for (int at = 0; at < s * b * k; at += in_turn ? k + 1 : 1) {
        struct policy_case of = { .requests = 3000, .seed = 1 };
        int i = at / k;
        struct case_result result;
        int starved, promised;
        snprintf(of.scheduler, sizeof of.scheduler, "%s", schedulers[i / b]);
        snprintf(of.batching, sizeof of.batching, "%s", batchings[i % b]);
        snprintf(of.kvcache, sizeof of.kvcache, "%s", caches[at % k]);
        case_starve(registry, &of, &result, &starved, &promised);
        if (promised && starved) { /* or was it only slow? */
            of.requests *= 4;
            case_starve(registry, &of, &result, &starved, &promised);
        }
        promising += promised;
        others += starved && !promised;
        if (strncmp(of.scheduler, "prefix", 6) == 0 || (!result.error[0] && !(promised && starved)))
            continue;
        failures++;
        fprintf(stderr, "not ok: %s with %s and %s: %s\n", of.scheduler, of.batching, of.kvcache,
                result.error[0] ? result.error : "promises no starvation, and ten requests waited until nobody came any more");
    }
    printf("%d kvcaches; %d cases promise that nobody starves, %d of the others starve somebody: %d failed\n", k, promising, others,
           failures);
    CHECK(promising > 20 && others > 5, "nothing was tried");
    return failures;
}

int main(int count, char **words)
{
    const char *folders[] = { TEST_PLUGINS, NULL };
    struct registry *registry;
    struct lathe_error err;
    int failures = 0;
    CHECK(count > 1, "usage: policies all N | product N | kept FILE | starve [turn] | soak SECONDS | case SCHEDULER BATCHING KVCACHE N SEED");
    CHECK(registry_open(folders, &registry, &err) == LATHE_OK, "%s", err.message);
    signal(SIGALRM, on_alarm);
    if (strcmp(words[1], "all") == 0 || strcmp(words[1], "product") == 0) {
        failures = all(registry, count > 2 ? (uint32_t)atoi(words[2]) : 10000, 1, 0, words[1][0] == 'p');
    } else if (strcmp(words[1], "kept") == 0 && count > 2) {
        failures = kept(registry, words[2]);
    } else if (strcmp(words[1], "starve") == 0) {
        failures = starve(registry, count > 2);
    } else if (strcmp(words[1], "soak") == 0 && count > 2) {
        int64_t until = stress_now() + (int64_t)(atof(words[2]) * 1e9);
        for (uint64_t seed = (uint64_t)time(NULL) * 10000; stress_now() < until && !failures; seed += 10000)
            failures = all(registry, (uint32_t)(seed % 3 ? 10000 : 1000), seed, until, 0);
    } else if (strcmp(words[1], "case") == 0 && count > 6) {
        struct policy_case of = { .requests = (uint32_t)atoi(words[5]), .seed = strtoull(words[6], NULL, 10) };
        struct case_result result;
        snprintf(of.scheduler, sizeof of.scheduler, "%s", words[2]);
        snprintf(of.batching, sizeof of.batching, "%s", words[3]);
        snprintf(of.kvcache, sizeof of.kvcache, "%s", words[4]);
        failures = !run(registry, &of, &result);
        printf("%s\n", failures ? "failed" : result.refused ? result.error : "ok");
    } else {
        CHECK(0, "%s is not known, or has too few arguments", words[1]);
    }
    registry_close(registry);
    return failures ? 1 : 0;
}
