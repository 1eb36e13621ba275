/* SPDX-License-Identifier: MIT */
/* A stage is a choice: which plugin of a kind, and how it is set. A Lua table
 * `scheduler = { "sjf", aging = 2 }` and a word on the command line
 * `--set scheduler=sjf:aging=2` both become one of these; both `lathe run` and
 * `lathe generate` make instances from them. What is used where nobody chose stands in
 * one table in stages.c, as the strings that a person would have written. */
#ifndef CORE_STAGES_H
#define CORE_STAGES_H

#include <stdbool.h>

#include "engine.h"

/* Owns its strings. Zeroed: no choice. */
struct stage {
    int kind;   /* enum lathe_kind */
    char *name; /* NULL: nobody chose */
    struct option_setting *settings;
    size_t count, capacity;
};

/* All strings are copied; a second setting of the same name replaces the first.
 * LATHE_ENOMEM is the only failure. [main] */
int stage_choose(struct stage *stage, int kind, const char *name, struct lathe_error *err);
int stage_set(struct stage *stage, const char *option, const char *text, struct lathe_error *err);
int stage_copy(struct stage *to, const struct stage *from, struct lathe_error *err);
void stage_clear(struct stage *stage); /* gives the strings back and zeroes it */

/* The word for a stage that nobody chose: "greedy", "paged" …; NULL for a model. */
const char *stage_default(int kind);
/* The tokenizer that fits a model which names none: one that reads the model's file if
 * the model has one (an option `path`), else plain bytes. */
const char *stage_tokenizer_for(const struct registry_entry *model);

/* An instance of it; of the default where nobody chose. */
int stage_create(struct registry *registry, int kind, const struct stage *stage, struct instance **instance,
                 struct lathe_error *err);

/* The words of --set, in the order given: a later one of the same kind and name adds to
 * the first, one with another name replaces it. */
struct stage_overrides {
    struct stage stages[LATHE_KIND_FRONTEND + 1]; /* by kind; name NULL: not overridden */
};

/* "kind=name:option=value,option=value"; "kind=:option=value" keeps the name. */
int overrides_add(struct stage_overrides *overrides, const char *word, struct lathe_error *err);
/* What the override says about `stage`, merged into it in place. */
int overrides_apply(const struct stage_overrides *overrides, int kind, struct stage *stage, struct lathe_error *err);
void overrides_clear(struct stage_overrides *overrides);

/* A model and the tokenizer that fits it: loaded together, shared by every engine.
 * `path` is the file that the model was read from, "" if none. */
struct loaded_model {
    struct instance *model, *tokenizer;
    struct lathe_model_info info;
    struct lathe_tokenizer_info tokens;
    char path[4096];
};

/* `tokenizer` may be a stage without a name; its option `path`, if it has one, is the
 * model's unless set. Seconds for a large file. [main or loader] */
int loaded_model_open(struct registry *registry, const struct stage *model, const struct stage *tokenizer,
                      struct loaded_model *loaded, struct lathe_error *err);
void loaded_model_close(struct loaded_model *loaded); /* zeroed is ignored */
/* Loaded once more, with the options of `from`: for a run on a thread of its own, since a run's
 * clock and rings hang on the instances that serve it (model_copy.c). [main or loader] */
int loaded_model_copy(struct registry *registry, const struct loaded_model *from, struct loaded_model *copy,
                      struct lathe_error *err);

/* The stages of one engine beside model and tokenizer. `stages` is by kind. All or none. */
int parts_open(struct registry *registry, const struct loaded_model *loaded, const struct stage *stages,
               struct engine_parts *parts, struct lathe_error *err);
/* Destroys all but model and tokenizer, which stay as they were. */
void parts_close(struct engine_parts *parts);
/* Sampler, kvcache, scheduler and batching of one more replica; tokenizer, model and bus are
 * left as they are. All or none. */
int parts_open_replica(struct registry *registry, const struct stage *stages, struct engine_parts *parts,
                       struct lathe_error *err);
void parts_close_replica(struct engine_parts *parts);

#endif
