/* SPDX-License-Identifier: MIT */
/* One model, one sequence, no engine: what `lathe logits` and `lathe eval` are made of.
 *
 * A scorer owns a context of the model with one block that holds the whole sequence, so
 * the block table is a single 0. Tokens are run in chunks; logits are read where they lie. */
#ifndef CORE_SCORE_H
#define CORE_SCORE_H

#include <stddef.h>
#include <stdint.h>

#include "registry.h"
#include <lathe/model.h>

struct scorer;

/* `context_tokens`: the longest sequence. `rows`: how many rows' logits one call can give, 1 for
 * the last token's only. The model is borrowed. [main] */
int scorer_open(const struct instance *model, uint32_t context_tokens, uint32_t rows, struct scorer **scorer,
                struct lathe_error *err);
void scorer_close(struct scorer *scorer); /* NULL is ignored */

/* Runs tokens at positions first … first + count − 1; earlier positions are as they were last
 * run. *logits: (count, vocab) if the scorer was opened for as many rows, and otherwise the last
 * row alone; valid until the next call. [main] */
int scorer_run(struct scorer *scorer, uint32_t first, const int32_t *tokens, size_t count, const float **logits,
               struct lathe_error *err);

/* ln Σ exp(x), in double: log-probability of i = x[i] − this. */
double log_sum_exp(const float *x, size_t count);

struct score_token {
    int32_t id;
    double logprob;
};

/* The `top` likeliest, best first (of equals the smaller id); returns how many, at most `count`. */
size_t score_top(const float *logits, size_t count, struct score_token *best, size_t top);

struct score_likelihood {
    size_t tokens, scored, windows;
    double nll; /* −Σ ln p of the scored tokens, nats */
};

/* −ln p of tokens 1 … count − 1 given what is before them. Longer than `context`: in windows of
 * `context` tokens that advance by `stride`; each token is scored once, by the first window that
 * holds it, so that all but the first window's have at least context − stride tokens before them.
 * `scorer` was opened for `context` tokens and some rows. progress (may be NULL) after each window. */
int score_likelihood(struct scorer *scorer, const int32_t *tokens, size_t count, uint32_t context, uint32_t stride,
                     void (*progress)(size_t done, size_t count), struct score_likelihood *result,
                     struct lathe_error *err);

/* The stages that a command which scores works with, from its command line:
 * -m MODEL, --set KIND=NAME:OPTION=VALUE,… */
struct score_stages {
    const char *verb, *model_path; /* -m, or NULL */
    char *model_set, *tokenizer_set; /* what --set said after "KIND=", or NULL; owned */
    struct registry *registry;
    struct instance *model, *tokenizer;
    struct lathe_model_info info;
};

/* Takes one --set; only model and tokenizer are stages here. */
int score_stages_set(struct score_stages *stages, const char *text, struct lathe_error *err);
/* Loads the model, and the tokenizer if `want_tokenizer` is 2; if it is 1 a tokenizer that can't be
 * had is left out. */
int score_stages_open(struct score_stages *stages, int want_tokenizer, struct lathe_error *err);
void score_stages_close(struct score_stages *stages);

/* Bad usage, with the nearest of the options that there are. */
struct option;
int score_unknown_option(const char *verb, const char *word, const struct option *options);

/* All inside the model's vocabulary? */
int score_check_ids(const struct score_stages *stages, const int32_t *ids, size_t count, struct lathe_error *err);
/* Ids from "1,2,3", "[1, 2, 3]", or, for "-", the same from stdin. *ids is malloc'd. */
int score_parse_ids(const char *text, int32_t **ids, size_t *count, struct lathe_error *err);
/* A whole file, or stdin for "-"; malloc'd, NUL-terminated. */
int score_read_file(const char *path, char **text, size_t *bytes, struct lathe_error *err);

#endif
