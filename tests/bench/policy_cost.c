/* SPDX-License-Identifier: MIT */
/* What a policy costs a step: nanoseconds of rank, and of fill behind it, with 1,000 requests that
 * wait and 256 that run.
 *
 *     bench_policy_cost [-m] [-w waiting] [-r running] [-k ranking_wanted] [-n steps] plugin.so[:option=value,…] …
 *
 * Schedulers and batchings in any order; each scheduler is measured by itself (the first `running`
 * of its ranking are the plan) and with each batching. Each step one request that ran ends, one
 * arrives, all that were planned make progress, and if more hold their place than `running`, the
 * scheduler names victims. Medians over the steps; a clock reading's own cost is taken off. `-m` prints
 * Markdown, and what is beyond LIMIT_NS a step in bold. */
#include <inttypes.h>
#include <time.h>
#include <unistd.h>

#include <lathe/batching.h>
#include <lathe/random.h>

#include "support/counting_host.h"
#include "support/policy_plugin.h"

enum { PLUGINS = 64, WARM_UP = 2000, BATCH_TOKENS = 8192, TENANTS = 8 };
enum { LIMIT_NS = 20000 }; /* what a policy may take of a step */
enum part { RANK, FILL, PROGRESS, TURNOVER, PARTS };

struct load {
    uint32_t waiting, running, wanted, steps, capacity;
};

struct bench {
    struct load load;
    struct counting_host host;
    const struct lathe_scheduler_api *scheduler;
    const struct lathe_batching_api *batching;
    void *ranks, *fills; /* the instances */
    struct lathe_request *requests;
    const struct lathe_request **live;
    uint32_t *place; /* in live, by index */
    struct lathe_step_view view;
    struct lathe_ranking ranking;
    struct lathe_plan plan;
    uint64_t next_id;
    int64_t now_ns;
    uint32_t draws;
    int64_t *samples[PARTS];
};

static int64_t clock_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static uint32_t roll(struct bench *b, uint32_t below)
{
    return (uint32_t)(lathe_random_u64(7, LATHE_RANDOM_USER, 0, b->draws++) % below);
}

static int always(void *engine, const struct lathe_request *req, uint32_t tokens)
{
    (void)engine, (void)req, (void)tokens;
    return 1;
}

static uint32_t cached(void *engine, const struct lathe_request *req)
{
    (void)engine;
    return (uint32_t)(req->id * 7919 % (req->prompt_tokens + 1));
}

static void check(int status, const struct lathe_error *err)
{
    if (status == LATHE_OK)
        return;
    fprintf(stderr, "%s\n", err->message);
    exit(1);
}

static void *taken(size_t count, size_t each)
{
    void *memory = calloc(count, each);
    if (!memory)
        policy_die("no memory for", "the bench");
    return memory;
}

/* A new request in a free slot; most are short. Outputs are long, so that the bench says who ends. */
static void shape(struct bench *b, struct lathe_request *r)
{
    uint32_t index = (uint32_t)(r - b->requests);
    *r = (struct lathe_request){ .size = sizeof *r, .index = index, .id = ++b->next_id, .state = LATHE_REQUEST_WAITING,
                                 .priority = (int32_t)roll(b, 3), .tenant = roll(b, TENANTS), .planned_ns = b->now_ns,
                                 .arrival_ns = b->now_ns, .admitted_ns = -1, .first_token_ns = -1,
                                 .deadline_ns = INT64_MAX, .slo_ttft_ns = 30000000000, .slo_tpot_ns = 50000000,
                                 .prompt_tokens = 8u << roll(b, 8), .max_output_tokens = 1 << 20,
                                 .predicted_output_tokens = 1 + roll(b, 16u << roll(b, 7)) };
    b->place[index] = b->view.live_count;
    b->live[b->view.live_count++] = r;
    b->view.waiting++;
}

static void enter(struct bench *b, struct lathe_request *r, int32_t state)
{
    if (r->state == state)
        return;
    b->view.running -= r->state == LATHE_REQUEST_RUNNING;
    b->view.running += state == LATHE_REQUEST_RUNNING;
    b->view.waiting = b->view.live_count - b->view.running;
    r->state = state;
}

static struct lathe_request *own(struct bench *b, const struct lathe_request *r)
{
    return &b->requests[r->index];
}

/* One that was planned ends, and its slot is taken by a newcomer. */
static void turn_over(struct bench *b)
{
    struct lathe_error err = { 0 };
    struct lathe_request *r = own(b, b->plan.entries[roll(b, b->plan.count)].request);
    enter(b, r, LATHE_REQUEST_FINISHED);
    b->live[b->place[r->index]] = b->live[--b->view.live_count];
    b->place[b->live[b->place[r->index]]->index] = b->place[r->index];
    b->view.waiting = b->view.live_count - b->view.running;
    int64_t from = clock_ns();
    b->scheduler->retire(b->ranks, r);
    if (b->batching && b->batching->retire)
        b->batching->retire(b->fills, r);
    int64_t between = clock_ns();
    shape(b, r);
    int64_t again = clock_ns();
    check(b->scheduler->admit(b->ranks, r, &err), &err);
    b->samples[TURNOVER][0] = between - from + clock_ns() - again;
}

/* Memory is short when more hold a place than may run. */
static void make_room(struct bench *b)
{
    while (b->view.running > b->load.running) {
        const struct lathe_request *v = b->scheduler->victim(b->ranks, &b->view, b->ranking.requests[0]);
        if (!v)
            return;
        own(b, v)->computed_tokens = 0;
        enter(b, own(b, v), LATHE_REQUEST_PREEMPTED);
        if (b->batching && b->batching->retire)
            b->batching->retire(b->fills, v);
    }
}

static void plan(struct bench *b)
{
    struct lathe_error err = { 0 };
    b->plan.count = 0;
    b->plan.wake_ns = INT64_MAX;
    if (b->batching) {
        check(b->batching->fill(b->fills, &b->view, &b->ranking, &b->plan, &err), &err);
        return;
    }
    for (uint32_t i = 0; i < b->ranking.count && b->plan.count < b->load.running; i++)
        b->plan.entries[b->plan.count++] = (struct lathe_plan_entry){
            .request = b->ranking.requests[i], .tokens = lathe_request_pending(b->ranking.requests[i]) };
}

static void run(struct bench *b)
{
    uint32_t count = 0; /* without pure padding */
    for (uint32_t i = 0; i < b->plan.count; i++)
        if (b->plan.entries[i].request)
            b->plan.entries[count++] = b->plan.entries[i];
    b->plan.count = count;
    for (uint32_t i = 0; i < b->plan.count; i++) {
        struct lathe_request *r = own(b, b->plan.entries[i].request);
        if (r->admitted_ns < 0)
            r->admitted_ns = b->now_ns;
        r->computed_tokens += b->plan.entries[i].tokens;
        enter(b, r, LATHE_REQUEST_RUNNING);
    }
    b->now_ns += 20000000;
    b->host.now_ns = b->now_ns;
    int64_t from = clock_ns();
    for (uint32_t i = 0; i < b->plan.count && b->scheduler->progress; i++)
        b->scheduler->progress(b->ranks, b->plan.entries[i].request, b->plan.entries[i].tokens);
    b->samples[PROGRESS][0] = clock_ns() - from;
    for (uint32_t i = 0; i < b->plan.count; i++) {
        struct lathe_request *r = own(b, b->plan.entries[i].request);
        if (lathe_request_pending(r) == 0 && ++r->output_tokens == 1)
            r->first_token_ns = b->now_ns;
    }
}

static void step(struct bench *b)
{
    struct lathe_error err = { 0 };
    b->view.now_ns = b->now_ns;
    b->view.step++;
    b->ranking.count = b->ranking.preempt_count = 0;
    int64_t from = clock_ns();
    check(b->scheduler->rank(b->ranks, &b->view, &b->ranking, &err), &err);
    int64_t ranked = clock_ns();
    for (uint32_t i = 0; i < b->ranking.preempt_count; i++) {
        own(b, b->ranking.preempt[i])->computed_tokens = 0;
        enter(b, own(b, b->ranking.preempt[i]), LATHE_REQUEST_PREEMPTED);
    }
    int64_t before = clock_ns();
    plan(b);
    b->samples[FILL][0] = clock_ns() - before;
    b->samples[RANK][0] = ranked - from;
    run(b);
    make_room(b);
    if (b->plan.count)
        turn_over(b);
}

static int ascending(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static int64_t median(int64_t *samples, uint32_t count)
{
    qsort(samples, count, sizeof *samples, ascending);
    return samples[count / 2];
}

static int64_t clock_cost(void)
{
    int64_t samples[1001];
    for (int i = 0; i < 1001; i++) {
        int64_t from = clock_ns();
        samples[i] = clock_ns() - from;
    }
    return median(samples, 1001);
}

static void open_bench(struct bench *b)
{
    uint32_t n = b->load.capacity;
    b->requests = taken(n, sizeof *b->requests);
    b->live = taken(n, sizeof *b->live);
    b->place = taken(n, sizeof *b->place);
    b->ranking = (struct lathe_ranking){ .capacity = n, .requests = taken(n, sizeof *b->ranking.requests),
                                         .preempt_capacity = n, .preempt = taken(n, sizeof *b->ranking.preempt) };
    b->plan = (struct lathe_plan){ .capacity = n, .entries = taken(n, sizeof *b->plan.entries) };
    b->view = (struct lathe_step_view){ .size = sizeof b->view, .live = b->live, .max_batch_tokens = BATCH_TOKENS,
                                        .max_batch_requests = b->load.running, .blocks_available = 1u << 20,
                                        .blocks_total = 1u << 20, .block_tokens = 16,
                                        .ranking_wanted = b->load.wanted, .can_reserve = always,
                                        .cached_prefix = cached };
    for (int k = 0; k < PARTS; k++)
        b->samples[k] = taken(b->load.steps + 1, sizeof *b->samples[k]);
}

static void close_bench(struct bench *b, int64_t *samples[PARTS])
{
    b->scheduler->destroy(b->ranks);
    if (b->batching)
        b->batching->destroy(b->fills);
    free(b->requests);
    free(b->live);
    free(b->place);
    free(b->ranking.requests);
    free(b->ranking.preempt);
    free(b->plan.entries);
    for (int k = 0; k < PARTS; k++)
        free(samples[k]);
}

static int markdown;

static void print_header(const struct load *load)
{
    if (markdown) {
        printf("# What a policy takes of a step\n\n%u requests wait and %u run, %u of those that wait are wanted; medians of %u "
               "steps, in µs (`tests/bench/policy_cost.c`). Whatever takes more than %d µs, rank and fill together, is in bold. "
               "Progress is told for all that ran; turnover is one that ends and one that comes.\n\n"
               "| scheduler | | batching | rank | fill | both | progress | turnover |\n|---|---|---|---:|---:|---:|---:|---:|\n",
               load->waiting, load->running, load->wanted, load->steps, LIMIT_NS / 1000);
        return;
    }
    printf("%u wait, %u run, %u of those that wait are wanted; medians of %u steps, nanoseconds a step\n", load->waiting,
           load->running, load->wanted, load->steps);
    printf("%-10s %-28s %-14s %8s %8s %9s %9s %8s %8s\n", "scheduler", "", "batching", "rank", "fill", "progress",
           "turnover", "waiting", "running");
}

static void print_row(const struct bench *b, const char *scheduler, const char *options, const char *batching, const int64_t *ns)
{
    if (!markdown) {
        printf("%-10s %-28s %-14s %8" PRId64 " %8" PRId64 " %9" PRId64 " %9" PRId64 " %8u %8u\n", scheduler, options, batching,
               ns[RANK], ns[FILL], ns[PROGRESS], ns[TURNOVER], b->view.waiting, b->view.running);
        return;
    }
    const char *mark = ns[RANK] + ns[FILL] > LIMIT_NS ? "**" : "";
    printf("| %s | %s | %s | %.1f | %.1f | %s%.1f%s | %.1f | %.1f |\n", scheduler, options, batching, (double)ns[RANK] * 1e-3,
           (double)ns[FILL] * 1e-3, mark, (double)(ns[RANK] + ns[FILL]) * 1e-3, mark, (double)ns[PROGRESS] * 1e-3,
           (double)ns[TURNOVER] * 1e-3);
}

static void measure(const struct load *load, struct policy *scheduler, const char *scheduler_options,
                    struct policy *batching, const char *batching_options, int64_t clock)
{
    struct bench b = { .load = *load };
    struct lathe_error err = { 0 };
    int64_t *samples[PARTS], ns[PARTS];
    const struct lathe_host *host = counting_host_init(&b.host);
    struct lathe_scheduler_limits ranks = { .size = sizeof ranks, .max_requests = load->capacity, .seed = 1,
                                            .cached_prefix = 1 };
    struct lathe_batching_limits fills = { .size = sizeof fills, .max_requests = load->capacity,
                                           .max_batch_tokens = BATCH_TOKENS, .max_batch_requests = load->running };
    b.scheduler = scheduler->api;
    check(policy_create(scheduler, host, scheduler_options, &b.ranks, &err), &err);
    check(b.scheduler->bind(b.ranks, &ranks, &err), &err);
    if (batching) {
        b.batching = batching->api;
        check(policy_create(batching, host, batching_options, &b.fills, &err), &err);
        check(b.batching->bind(b.fills, &fills, &err), &err);
    }
    open_bench(&b);
    memcpy(samples, b.samples, sizeof samples);
    for (uint32_t i = 0; i < load->waiting + load->running; i++) {
        b.now_ns += 1000000;
        shape(&b, &b.requests[i]);
        check(b.scheduler->admit(b.ranks, &b.requests[i], &err), &err);
    }
    for (uint32_t i = 0; i < WARM_UP; i++)
        step(&b);
    for (uint32_t i = 0; i < load->steps; i++) {
        step(&b);
        for (int k = 0; k < PARTS; k++)
            b.samples[k]++;
    }
    for (int k = 0; k < PARTS; k++) {
        ns[k] = median(samples[k], load->steps) - (k == TURNOVER ? 2 * clock : clock);
        ns[k] = ns[k] > 0 ? ns[k] : 0;
    }
    print_row(&b, scheduler->plugin->name, scheduler_options ? scheduler_options : "", batching ? batching->plugin->name : "-", ns);
    fflush(stdout);
    close_bench(&b, samples);
}

static int usage(void)
{
    fprintf(stderr, "usage: bench_policy_cost [-m] [-w waiting] [-r running] [-k ranking_wanted] [-n steps] "
                    "plugin.so[:option=value,...] ...; at least one scheduler, counts from 1\n");
    return 2;
}

int main(int argc, char **argv)
{
    static struct policy policies[PLUGINS];
    const char *options[PLUGINS];
    struct load load = { .waiting = 1000, .running = 256, .wanted = 256, .steps = 10000 };
    int count = 0, schedulers = 0, c;

    while ((c = getopt(argc, argv, "mw:r:k:n:")) != -1) {
        if (c == 'm') {
            markdown = 1;
            continue;
        }
        uint32_t number = c == '?' ? 0 : (uint32_t)strtoul(optarg, NULL, 10);
        if (c == '?' || (number == 0 && c != 'k'))
            return usage();
        *(c == 'w' ? &load.waiting : c == 'r' ? &load.running : c == 'k' ? &load.wanted : &load.steps) = number;
    }
    load.capacity = load.waiting + load.running;
    for (; optind < argc && count < PLUGINS; optind++, count++) {
        char *colon = strchr(argv[optind], ':');
        options[count] = colon ? colon + 1 : NULL;
        if (colon)
            *colon = '\0';
        policy_open(&policies[count], argv[optind]);
        schedulers += policies[count].plugin->kind == LATHE_KIND_SCHEDULER;
        if (policies[count].plugin->kind != LATHE_KIND_SCHEDULER && policies[count].plugin->kind != LATHE_KIND_BATCHING)
            policy_die("neither a scheduler nor a batching:", argv[optind]);
    }
    if (!schedulers)
        return usage();
    int64_t clock = clock_cost();
    print_header(&load);
    for (int i = 0; i < count; i++) {
        if (policies[i].plugin->kind != LATHE_KIND_SCHEDULER)
            continue;
        measure(&load, &policies[i], options[i], NULL, NULL, clock);
        for (int j = 0; j < count; j++)
            if (policies[j].plugin->kind == LATHE_KIND_BATCHING)
                measure(&load, &policies[i], options[i], &policies[j], options[j], clock);
    }
    return 0;
}
