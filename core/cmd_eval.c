/* SPDX-License-Identifier: MIT */
/* lathe eval: how well does the model predict a text? */
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

#include "command.h"
#include "score.h"
#include "service.h"

enum { DEFAULT_CONTEXT = 2048, ROWS = 128 };

static const char usage[] =
    "usage: lathe eval -m MODEL (FILE | --ids IDS) [options]\n"
    "\n"
    "The perplexity of a text: exp of the mean −ln p of tokens 2 … n given those before.\n"
    "\n"
    "  -m, --model MODEL   a GGUF file, or a short name such as smollm2-135m\n"
    "  FILE                the text; - reads stdin\n"
    "      --ids IDS       or token ids: 1,2,3 or [1, 2, 3]; - reads them from stdin\n"
    "      --context N     tokens a window (default: the model's, at most 2048)\n"
    "      --stride N      tokens from one window to the next (default: half of a window). A text of more\n"
    "                      tokens than a window is scored in several; each token once, with at least\n"
    "                      context − stride tokens before it (the first window's: all that there are)\n"
    "      --json          {\"tokens\", \"scored\", \"nll\", \"nll_total\", \"perplexity\", \"context\", \"stride\", \"windows\"};\n"
    "                      nll is in nats a token\n"
    "      --set KIND=NAME:OPTION=VALUE,…   another model or tokenizer plugin, or its options\n"
    "  -h, --help\n";

struct arguments {
    struct score_stages stages;
    const char *ids, *file;
    long context, stride;
    int json;
};

static void show_progress(size_t done, size_t count)
{
    if (isatty(STDERR_FILENO))
        fprintf(stderr, "\r%zu of %zu tokens%s", done, count, done >= count ? "\r\033[K" : "");
}

static int read_tokens(const struct arguments *a, int32_t **ids, size_t *count, struct lathe_error *err)
{
    if (a->ids)
        return score_parse_ids(a->ids, ids, count, err);
    char *text = NULL;
    size_t bytes;
    int status = score_read_file(a->file, &text, &bytes, err);
    if (!status)
        status = tokenizer_encode(a->stages.tokenizer, text, bytes, LATHE_ENCODE_BOS, ids, count, err);
    free(text);
    return status;
}

static int run(struct arguments *a, struct lathe_error *err)
{
    struct score_likelihood result;
    struct scorer *scorer = NULL;
    int32_t *ids = NULL;
    size_t count = 0;
    int status = score_stages_open(&a->stages, a->ids ? 0 : 2, err);
    if (status || (status = read_tokens(a, &ids, &count, err)) || (status = score_check_ids(&a->stages, ids, count, err)))
        goto end;
    long most = (long)a->stages.info.context_tokens;
    if (!a->context)
        a->context = most < DEFAULT_CONTEXT ? most : DEFAULT_CONTEXT;
    if (a->context > most) {
        status = lathe_fail(err, LATHE_ERANGE, "--context %ld is beyond the model's %ld tokens", a->context, most);
        goto end;
    }
    if (!a->stride)
        a->stride = a->context / 2;
    uint32_t longest = count < (size_t)a->context && count > 1 ? (uint32_t)count : (uint32_t)a->context;
    if ((status = scorer_open(a->stages.model, longest, ROWS, &scorer, err)) ||
        (status = score_likelihood(scorer, ids, count, (uint32_t)a->context, (uint32_t)a->stride, show_progress, &result, err)))
        goto end;
    double nll = result.nll / (double)result.scored;
    if (a->json)
        printf("{\"tokens\": %zu, \"scored\": %zu, \"nll\": %.9g, \"nll_total\": %.9g, \"perplexity\": %.9g, \"context\": %ld, "
               "\"stride\": %ld, \"windows\": %zu}\n",
               result.tokens, result.scored, nll, result.nll, exp(nll), a->context, a->stride, result.windows);
    else
        printf("perplexity %.4f   nll %.6f nats a token   %zu tokens, %zu scored in %zu window%s of %ld, stride %ld\n", exp(nll),
               nll, result.tokens, result.scored, result.windows, result.windows == 1 ? "" : "s", a->context, a->stride);
end:
    free(ids);
    scorer_close(scorer);
    return status;
}

static int number(const char *name, const char *text, long least, long *value)
{
    char *end;
    *value = strtol(text, &end, 10);
    if (*end || end == text || *value < least || *value > INT32_MAX)
        return command_usage("eval", "--%s %s: a number of tokens, at least %ld, is expected", name, text, least);
    return 0;
}

int cmd_eval(int argc, char **argv)
{
    static const struct option options[] = {
        { "model", required_argument, NULL, 'm' },   { "ids", required_argument, NULL, 'i' },
        { "context", required_argument, NULL, 'c' }, { "stride", required_argument, NULL, 'd' },
        { "json", no_argument, NULL, 'j' },          { "set", required_argument, NULL, 's' },
        { "help", no_argument, NULL, 'h' },          { NULL, 0, NULL, 0 },
    };
    struct arguments a = { .stages = { .verb = "eval" } };
    struct lathe_error err = { 0 };
    int option, status = 0;
    optind = 1;
    opterr = 0;
    while (!status && (option = getopt_long(argc, argv, ":m:h", options, NULL)) != -1)
        switch (option) {
        case 'm': a.stages.model_path = optarg; break;
        case 'i': a.ids = optarg; break;
        case 'j': a.json = 1; break;
        case 'c': status = number("context", optarg, 2, &a.context); break;
        case 'd': status = number("stride", optarg, 1, &a.stride); break;
        case 's':
            if (score_stages_set(&a.stages, optarg, &err))
                status = command_usage("eval", "%s", err.message);
            break;
        case 'h': fputs(usage, stdout); score_stages_close(&a.stages); return 0;
        case ':': status = command_usage("eval", "%s needs a value", argv[optind - 1]); break;
        default: status = score_unknown_option("eval", argv[optind - 1], options);
        }
    if (!status && optind < argc)
        a.file = argv[optind++];
    if (!status && (optind < argc || !a.ids == !a.file))
        status = command_usage("eval", "one text is expected: a file or --ids");
    if (!status && !a.stages.model_path && !a.stages.model_set)
        status = command_usage("eval", "no model: name one with -m");
    if (!status && a.context && a.stride >= a.context)
        status = command_usage("eval", "--stride %ld must be less than --context %ld", a.stride, a.context);
    if (!status && run(&a, &err))
        status = command_fail("eval", 1, &err);
    score_stages_close(&a.stages);
    return status;
}
