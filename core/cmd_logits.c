/* SPDX-License-Identifier: MIT */
/* lathe logits: which tokens does the model expect next? */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "command.h"
#include "score.h"
#include "service.h"

static const char usage[] =
    "usage: lathe logits -m MODEL (--ids IDS | TEXT) [options]\n"
    "\n"
    "The likeliest next tokens after a prompt, with their log-probabilities (natural).\n"
    "\n"
    "  -m, --model MODEL   a GGUF file, or a short name such as smollm2-135m\n"
    "      --ids IDS       token ids: 1,2,3 or [1, 2, 3]; - reads them from stdin\n"
    "  TEXT                or text, which the model's tokenizer encodes; - reads it from stdin\n"
    "      --parse-special read the text of special tokens (<|im_start|>) as them\n"
    "      --top K         how many (default 10)\n"
    "      --json          [{\"id\": 28, \"logprob\": -1.2345, \"text\": \" the\"}, …], best first\n"
    "      --set KIND=NAME:OPTION=VALUE,…   another model or tokenizer plugin, or its options\n"
    "  -h, --help\n";

struct arguments {
    struct score_stages stages;
    const char *ids, *text;
    long top;
    int json, special;
};

static int print_tokens(const struct arguments *a, const struct score_token *best, size_t count, struct lathe_error *err)
{
    json_t *list = json_array();
    int status = 0;
    for (size_t i = 0; i < count && !status; i++) {
        char *text = NULL;
        size_t bytes = 0;
        if (a->stages.tokenizer)
            status = tokenizer_decode(a->stages.tokenizer, &best[i].id, 1, LATHE_DECODE_SPECIAL | LATHE_DECODE_FLUSH, &text,
                                      &bytes, err);
        json_t *string = text ? json_stringn(text, bytes) : json_null();
        if (a->json) {
            json_array_append_new(list, json_pack("{s:i, s:f, s:o}", "id", (int)best[i].id, "logprob", best[i].logprob, "text",
                                                  string ? string : json_null()));
        } else if (!status) {
            char *quoted = string ? json_dumps(string, JSON_ENCODE_ANY) : NULL;
            printf("%8d  %10.4f  %s\n", best[i].id, best[i].logprob, quoted && text ? quoted : "");
            free(quoted);
            json_decref(string);
        }
        free(text);
    }
    if (a->json && !status) {
        json_dumpf(list, stdout, JSON_REAL_PRECISION(9));
        putchar('\n');
    }
    json_decref(list);
    return status;
}

static int prompt_ids(const struct arguments *a, int32_t **ids, size_t *count, struct lathe_error *err)
{
    if (a->ids)
        return score_parse_ids(a->ids, ids, count, err);
    char *text = NULL;
    size_t bytes = strlen(a->text);
    int status = strcmp(a->text, "-") == 0 ? score_read_file("-", &text, &bytes, err) : 0;
    if (!status)
        status = tokenizer_encode(a->stages.tokenizer, text ? text : a->text, bytes,
                                  LATHE_ENCODE_BOS | (a->special ? LATHE_ENCODE_SPECIAL : 0), ids, count, err);
    free(text);
    if (!status && *count == 0)
        status = lathe_fail(err, LATHE_EINVAL, "the text has no tokens: there is nothing to continue");
    return status;
}

static int run(struct arguments *a, struct lathe_error *err)
{
    struct score_token *best = NULL;
    struct scorer *scorer = NULL;
    const float *logits;
    int32_t *ids = NULL;
    size_t count = 0;
    int status = score_stages_open(&a->stages, a->ids ? 1 : 2, err);
    if (status || (status = prompt_ids(a, &ids, &count, err)) ||
        (status = score_check_ids(&a->stages, ids, count, err)))
        goto end;
    if (count > a->stages.info.context_tokens) {
        status = lathe_fail(err, LATHE_ERANGE, "the prompt has %zu tokens; the model's context holds %u", count,
                            a->stages.info.context_tokens);
        goto end;
    }
    if ((size_t)a->top > a->stages.info.vocab_tokens)
        a->top = (long)a->stages.info.vocab_tokens;
    if ((status = scorer_open(a->stages.model, (uint32_t)count, 1, &scorer, err)) ||
        (status = scorer_run(scorer, 0, ids, count, &logits, err)))
        goto end;
    best = malloc((size_t)a->top * sizeof *best);
    if (!best)
        status = lathe_fail(err, LATHE_ENOMEM, "no memory for %ld tokens", a->top);
    else
        status = print_tokens(a, best, score_top(logits, a->stages.info.vocab_tokens, best, (size_t)a->top), err);
end:
    free(best);
    free(ids);
    scorer_close(scorer);
    return status;
}

int cmd_logits(int argc, char **argv)
{
    static const struct option options[] = {
        { "model", required_argument, NULL, 'm' }, { "ids", required_argument, NULL, 'i' },
        { "top", required_argument, NULL, 't' },   { "json", no_argument, NULL, 'j' },
        { "set", required_argument, NULL, 's' },   { "parse-special", no_argument, NULL, 'p' },
        { "help", no_argument, NULL, 'h' },        { NULL, 0, NULL, 0 },
    };
    struct arguments a = { .stages = { .verb = "logits" }, .top = 10 };
    struct lathe_error err = { 0 };
    char *end;
    int option, status = 0;
    optind = 1;
    opterr = 0;
    while (!status && (option = getopt_long(argc, argv, ":m:h", options, NULL)) != -1)
        switch (option) {
        case 'm': a.stages.model_path = optarg; break;
        case 'i': a.ids = optarg; break;
        case 'j': a.json = 1; break;
        case 'p': a.special = 1; break;
        case 't':
            a.top = strtol(optarg, &end, 10);
            if (*end || end == optarg || a.top < 1 || a.top > 1000000)
                status = command_usage("logits", "--top %s: a number from 1 to 1000000 is expected", optarg);
            break;
        case 's':
            if (score_stages_set(&a.stages, optarg, &err))
                status = command_usage("logits", "%s", err.message);
            break;
        case 'h': fputs(usage, stdout); score_stages_close(&a.stages); return 0;
        case ':': status = command_usage("logits", "%s needs a value", argv[optind - 1]); break;
        default: status = score_unknown_option("logits", argv[optind - 1], options);
        }
    if (!status && optind < argc)
        a.text = argv[optind++];
    if (!status && (optind < argc || !a.ids == !a.text))
        status = command_usage("logits", "one prompt is expected: --ids or a text");
    if (!status && !a.stages.model_path && !a.stages.model_set)
        status = command_usage("logits", "no model: name one with -m");
    if (!status && run(&a, &err))
        status = command_fail("logits", 1, &err);
    score_stages_close(&a.stages);
    return status;
}
