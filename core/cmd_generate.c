/* SPDX-License-Identifier: MIT */
/* lathe generate -m MODEL -p "…": text as it is made, from the same engine that
 * experiments measure: one request, stepped until it ends. */
#include "command.h"

#include <getopt.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

#include "interrupt.h"
#include "service.h"
#include "stages.h"

struct wishes {
    const char *model, *prompt, *system;
    bool chat, stats, sampled, special;
    uint32_t max_tokens, threads, context;
    struct lathe_sampling sampling; /* NAN, −1: not said */
    struct stage_overrides overrides;
};

static void print_help(void)
{
    puts("usage: lathe generate -m MODEL -p TEXT [options]\n"
         "\n"
         "  -m, --model MODEL       a GGUF file, or a short name (smollm2-135m)\n"
         "  -p, --prompt TEXT       what to go on from; - reads it from stdin\n"
         "  -n, --max-tokens N      at most this many tokens (256)\n"
         "      --chat              the prompt is a user's message: the model's chat template is put around it\n"
         "      --system TEXT       with --chat: a system message in front\n"
         "      --special           read <|im_start|> and the like in the prompt as tokens\n"
         "      --temperature T     0 takes the likeliest token each time (0)\n"
         "      --top-p P, --top-k K, --min-p P\n"
         "                          keep the likeliest tokens only\n"
         "      --seed N            of the draws (1)\n"
         "      --threads N         of the model\n"
         "      --context N         tokens of prompt and output together\n"
         "      --set KIND=NAME:OPTION=VALUE,…\n"
         "                          another plugin or option; may be repeated\n"
         "      --stats             tokens, times and tokens/s on stderr\n"
         "  -h, --help              this text");
}

/* ── the command line ──────────────────────────────────────────────────────────────── */

static int parse_number(const char *option, const char *text, double min, double max, bool whole, double *value)
{
    char *end;
    *value = strtod(text, &end);
    if (!*text || *end || !(*value >= min && *value <= max) || (whole && *value != floor(*value)))
        return command_usage("generate", "%s should be a %s from %.14g to %.14g, not \"%s\"", option,
                             whole ? "whole number" : "number", min, max, text);
    return 0;
}

enum { OPTION_CHAT = 256, OPTION_SYSTEM, OPTION_SPECIAL, OPTION_TEMPERATURE, OPTION_TOP_P, OPTION_TOP_K, OPTION_MIN_P,
       OPTION_SEED, OPTION_THREADS, OPTION_CONTEXT, OPTION_SET, OPTION_STATS };

static const struct option long_options[] = {
    { "model", required_argument, NULL, 'm' },
    { "prompt", required_argument, NULL, 'p' },
    { "max-tokens", required_argument, NULL, 'n' },
    { "chat", no_argument, NULL, OPTION_CHAT },
    { "system", required_argument, NULL, OPTION_SYSTEM },
    { "special", no_argument, NULL, OPTION_SPECIAL },
    { "temperature", required_argument, NULL, OPTION_TEMPERATURE },
    { "top-p", required_argument, NULL, OPTION_TOP_P },
    { "top-k", required_argument, NULL, OPTION_TOP_K },
    { "min-p", required_argument, NULL, OPTION_MIN_P },
    { "seed", required_argument, NULL, OPTION_SEED },
    { "threads", required_argument, NULL, OPTION_THREADS },
    { "context", required_argument, NULL, OPTION_CONTEXT },
    { "set", required_argument, NULL, OPTION_SET },
    { "stats", no_argument, NULL, OPTION_STATS },
    { "help", no_argument, NULL, 'h' },
    { NULL, 0, NULL, 0 },
};

static int unknown_option(const char *word)
{
    const char *names[sizeof long_options / sizeof long_options[0]], *near = NULL;
    size_t count = 0;
    for (; long_options[count].name; count++)
        names[count] = long_options[count].name;
    if (word && !strncmp(word, "--", 2))
        near = nearest_name(word + 2, names, count);
    return command_usage("generate", "there is no option %s, or its value is missing%s%s%s", word ? word : "",
                         near ? ": did you mean --" : "", near ? near : "", near ? "?" : "");
}

/* 0: go on; 2: reported; −1: help was shown. */
static int parse_option(int c, struct wishes *w)
{
    struct lathe_error err;
    double value = 0;
    int status = 0;
    switch (c) {
    case 'm': w->model = optarg; break;
    case 'p': w->prompt = optarg; break;
    case 'n':
        status = parse_number("--max-tokens", optarg, 1, 1 << 24, true, &value);
        w->max_tokens = (uint32_t)value;
        break;
    case OPTION_CHAT: w->chat = true; break;
    case OPTION_SYSTEM: w->system = optarg; break;
    case OPTION_SPECIAL: w->special = true; break;
    case OPTION_TEMPERATURE:
        status = parse_number("--temperature", optarg, 0, 1000, false, &value);
        w->sampling.temperature = (float)value;
        w->sampled = value > 0;
        break;
    case OPTION_TOP_P:
        status = parse_number("--top-p", optarg, 1e-6, 1, false, &value);
        w->sampling.top_p = (float)value;
        break;
    case OPTION_TOP_K:
        status = parse_number("--top-k", optarg, 0, INT32_MAX, true, &value);
        w->sampling.top_k = (int32_t)value;
        break;
    case OPTION_MIN_P:
        status = parse_number("--min-p", optarg, 0, 0.999999, false, &value);
        w->sampling.min_p = (float)value;
        break;
    case OPTION_SEED:
        status = parse_number("--seed", optarg, 0, 9007199254740992.0, true, &value);
        w->sampling.seed = (uint64_t)value;
        break;
    case OPTION_THREADS:
        status = parse_number("--threads", optarg, 1, 1024, true, &value);
        w->threads = (uint32_t)value;
        break;
    case OPTION_CONTEXT:
        status = parse_number("--context", optarg, 2, 1 << 24, true, &value);
        w->context = (uint32_t)value;
        break;
    case OPTION_SET:
        if (overrides_add(&w->overrides, optarg, &err))
            status = command_usage("generate", "%s", err.message);
        break;
    case OPTION_STATS: w->stats = true; break;
    case 'h': print_help(); return -1;
    }
    return status;
}

static int parse(int argc, char **argv, struct wishes *w)
{
    *w = (struct wishes){
        .max_tokens = 256,
        .sampling = { .temperature = NAN, .top_p = NAN, .min_p = NAN, .top_k = -1, .seed = 1 },
    };
    optind = 0;
    opterr = 0;
    for (int c; (c = getopt_long(argc, argv, "m:p:n:h", long_options, NULL)) != -1;) {
        int status = c == '?' ? unknown_option(argv[optind - 1]) : parse_option(c, w);
        if (status)
            return status;
    }
    if (optind < argc)
        return command_usage("generate", "\"%s\" belongs to no option: the prompt goes behind -p, in quotes", argv[optind]);
    if (!w->model && !w->overrides.stages[LATHE_KIND_MODEL].name)
        return command_usage("generate", "which model? -m smollm2-135m, or -m FILE.gguf");
    if (!w->prompt && isatty(STDIN_FILENO))
        return command_usage("generate", "which prompt? -p \"…\", or -p - to read it from stdin");
    if (w->system && !w->chat)
        return command_usage("generate", "--system belongs to --chat");
    return 0;
}

/* ── the prompt ────────────────────────────────────────────────────────────────────── */

enum { MAX_PROMPT_BYTES = 64 << 20 };

/* malloc'd. */
static int read_all(FILE *file, char **text, size_t *bytes, struct lathe_error *err)
{
    size_t capacity = 1 << 16;
    *bytes = 0;
    *text = malloc(capacity);
    while (*text) {
        *bytes += fread(*text + *bytes, 1, capacity - *bytes, file);
        if (*bytes < capacity)
            return LATHE_OK;
        char *more = capacity < MAX_PROMPT_BYTES ? realloc(*text, capacity *= 2) : NULL;
        if (!more)
            break;
        *text = more;
    }
    free(*text);
    *text = NULL;
    return lathe_fail(err, LATHE_ENOMEM, "the prompt on stdin is longer than %d MiB", MAX_PROMPT_BYTES >> 20);
}

static int apply_chat(const struct instance *tokenizer, const char *system, char **text, size_t *bytes,
                      struct lathe_error *err)
{
    json_t *content = json_stringn(*text, *bytes), *messages = json_array();
    if (system)
        json_array_append_new(messages, json_pack("{s:s, s:s}", "role", "system", "content", system));
    json_array_append_new(messages, json_pack("{s:s, s:o}", "role", "user", "content", content));
    char *json = content ? json_dumps(messages, JSON_COMPACT) : NULL, *whole;
    json_decref(messages);
    int status = json ? tokenizer_template(tokenizer, json, 1, NULL, &whole, bytes, err)
                      : lathe_fail(err, LATHE_EINVAL, "a message of a chat must be UTF-8, and the prompt is not");
    free(json);
    if (!status) {
        free(*text);
        *text = whole;
    }
    return status;
}

static int read_prompt(const struct wishes *w, const struct instance *tokenizer, char **text, size_t *bytes,
                       struct lathe_error *err)
{
    int status = LATHE_OK;
    if (!w->prompt || !strcmp(w->prompt, "-")) {
        status = read_all(stdin, text, bytes, err);
    } else {
        *text = strdup(w->prompt);
        *bytes = strlen(w->prompt);
        if (!*text)
            status = lathe_fail(err, LATHE_ENOMEM, "no memory left for the prompt");
    }
    if (!status && w->chat)
        status = apply_chat(tokenizer, w->system, text, bytes, err);
    return status;
}

/* ── generating ────────────────────────────────────────────────────────────────────── */

struct tally {
    uint64_t prompt_tokens, output_tokens;
    int64_t submitted_ns, first_ns, last_ns;
    int finish_reason;
    bool newline; /* the text ended with one */
};

/* Steps the engine and prints what comes, until the request ends. */
static int stream(struct engine *engine, const struct clock *clock, uint64_t id, struct tally *tally,
                  struct lathe_error *err)
{
    bool cancelled = false;
    for (;;) {
        int state;
        int64_t until;
        int status = engine_step(engine, &state, &until, err);
        if (status)
            return status;
        struct lathe_output piece = { 0 };
        struct lathe_error unread;
        while (!(status = engine_read(engine, id, &piece, &unread))) {
            if (piece.token >= 0) {
                tally->first_ns = tally->output_tokens++ ? tally->first_ns : piece.time_ns;
                tally->last_ns = piece.time_ns;
            }
            if (piece.text_bytes) {
                fwrite(piece.text, 1, piece.text_bytes, stdout);
                fflush(stdout);
                tally->newline = piece.text[piece.text_bytes - 1] == '\n';
            }
            if (piece.finish_reason) {
                tally->finish_reason = piece.finish_reason;
                return piece.finish_reason == LATHE_FINISH_ERROR
                           ? lathe_fail(err, LATHE_EINVAL, "%s", engine_request_error(engine, id))
                           : LATHE_OK;
            }
        }
        if (status != LATHE_EBUSY) {
            *err = unread;
            return status;
        }
        if ((interrupt_wanted() || ferror(stdout)) && !cancelled) {
            engine_cancel(engine, id);
            cancelled = true;
        }
        if (state == ENGINE_IDLE && until == INT64_MAX)
            return lathe_fail(err, LATHE_EINTERNAL, "the engine has nothing to do, but the request has not ended");
        if (state == ENGINE_IDLE)
            clock_wait_until((struct clock *)clock, until);
    }
}

static void print_stats(const struct tally *tally, const char *sampler)
{
    static const char *const reasons[] = { "none", "stop", "length", "abort", "error", "deadline" };
    double first = (double)(tally->first_ns - tally->submitted_ns) * 1e-9;
    double rest = (double)(tally->last_ns - tally->first_ns) * 1e-9;
    fprintf(stderr, "prompt   %6" PRIu64 " tokens, first token after %.1f ms (%.1f tokens/s)\n", tally->prompt_tokens,
            first * 1e3, first > 0 ? (double)tally->prompt_tokens / first : 0.0);
    fprintf(stderr, "output   %6" PRIu64 " tokens", tally->output_tokens);
    if (tally->output_tokens > 1)
        fprintf(stderr, ", %.2f ms a token after the first (%.1f tokens/s)",
                rest * 1e3 / (double)(tally->output_tokens - 1), (double)(tally->output_tokens - 1) / rest);
    fprintf(stderr, "\nended by %s; sampler %s\n", reasons[tally->finish_reason], sampler);
}

/* A request's wishes over the sampler's own defaults. */
static int choose_sampling(const struct wishes *w, const struct instance *sampler, struct lathe_sampling *s,
                           struct lathe_error *err)
{
    int status = ((const struct lathe_sampler_api *)sampler->api)->defaults(sampler->self, s, err);
    if (!isnan(w->sampling.temperature))
        s->temperature = w->sampling.temperature;
    if (!isnan(w->sampling.top_p))
        s->top_p = w->sampling.top_p;
    if (!isnan(w->sampling.min_p))
        s->min_p = w->sampling.min_p;
    if (w->sampling.top_k >= 0)
        s->top_k = w->sampling.top_k;
    s->seed = w->sampling.seed;
    return status;
}

static int generate_with(const struct wishes *w, const struct engine_parts *parts, const char *prompt,
                         size_t bytes, struct lathe_error *err)
{
    struct clock clock;
    struct engine *engine;
    struct lathe_sampling sampling;
    struct tally tally = { 0 };
    uint64_t id;
    clock_start(&clock, CLOCK_KIND_REAL);
    struct engine_params params = { .parts = *parts, .clock = &clock, .max_requests = 1, .batch_requests = 1,
                                    .context_tokens = w->context, .threads = w->threads, .seed = w->sampling.seed };
    int status = choose_sampling(w, parts->sampler, &sampling, err);
    if (!status)
        status = engine_open(&params, &engine, err);
    if (status)
        return status;
    struct engine_submit submit = {
        .text = prompt, .text_bytes = bytes, .parse_special = w->chat || w->special, .add_bos = !w->chat,
        .sampling = &sampling, .max_output_tokens = w->max_tokens, .planned_ns = -1, .want_text = 1,
    };
    clock_start(&clock, CLOCK_KIND_REAL);
    tally.submitted_ns = clock_now(&clock);
    status = engine_submit(engine, &submit, &id, err);
    if (!status) {
        interrupt_watch(NULL);
        status = stream(engine, &clock, id, &tally, err);
        interrupt_unwatch();
        if (!tally.newline)
            putchar('\n');
        struct engine_stats stats;
        engine_get_stats(engine, &stats);
        tally.prompt_tokens = stats.prompt_tokens;
        if (!status && w->stats)
            print_stats(&tally, parts->sampler->entry->name);
        if (!status && tally.finish_reason == LATHE_FINISH_ABORT)
            status = lathe_fail(err, LATHE_ECANCELLED, "interrupted");
    }
    engine_close(engine);
    return status;
}

/* The stages: what the command line says, else the sampler that its temperature asks for. */
static int choose_stages(const struct wishes *w, struct stage *stages, struct lathe_error *err)
{
    int status = stage_choose(&stages[LATHE_KIND_MODEL], LATHE_KIND_MODEL, "llama", err);
    if (!status && w->model)
        status = stage_set(&stages[LATHE_KIND_MODEL], "path", w->model, err);
    if (!status && w->sampled)
        status = stage_choose(&stages[LATHE_KIND_SAMPLER], LATHE_KIND_SAMPLER, "topp", err);
    for (int kind = 1; !status && kind <= LATHE_KIND_BUS; kind++)
        status = overrides_apply(&w->overrides, kind, &stages[kind], err);
    return status;
}

static int generate(const struct wishes *w, struct lathe_error *err)
{
    struct registry *registry;
    struct stage stages[LATHE_KIND_FRONTEND + 1] = { 0 };
    struct loaded_model loaded = { 0 };
    struct engine_parts parts = { 0 };
    char *prompt = NULL;
    size_t bytes = 0;
    int status = registry_open(NULL, &registry, err);
    if (status)
        return status;
    status = choose_stages(w, stages, err);
    if (!status)
        status = loaded_model_open(registry, &stages[LATHE_KIND_MODEL], &stages[LATHE_KIND_TOKENIZER], &loaded, err);
    if (!status)
        status = parts_open(registry, &loaded, stages, &parts, err);
    if (!status)
        status = read_prompt(w, loaded.tokenizer, &prompt, &bytes, err);
    if (!status)
        status = generate_with(w, &parts, prompt, bytes, err);
    free(prompt);
    parts_close(&parts);
    loaded_model_close(&loaded);
    for (int kind = 0; kind <= LATHE_KIND_FRONTEND; kind++)
        stage_clear(&stages[kind]);
    registry_close(registry);
    return status;
}

int cmd_generate(int argc, char **argv)
{
    struct wishes wishes;
    struct lathe_error err = { 0 };
    int status = parse(argc, argv, &wishes);
    if (status == 0 && generate(&wishes, &err))
        status = command_fail("generate", 1, &err);
    overrides_clear(&wishes.overrides);
    return status < 0 ? 0 : status;
}
