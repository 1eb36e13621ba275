/* SPDX-License-Identifier: MIT */
/* Read first: what a plugin is.
 *
 * A plugin is one shared object that exports one constant, `lathe_plugin`, and
 * links to nothing of the host's: what it may ask for comes in as a table
 * (`<lathe/host.h>`). The constant says what the plugin is, which options it
 * takes and where its table of functions lies, so that the host can list,
 * describe and check it without running a line of it.
 *
 *     dlopen → checked → create(host, config) → (the kind's own calls) → destroy
 *
 * The library stays mapped until the process ends, since libraries below it
 * (OpenBLAS) leave thread-local destructors behind.
 *
 * Thread tags. Every function of a seam says who calls it:
 *
 *   [main]     the thread that runs Lua and the command line; lifecycle calls
 *   [loader]   any one thread, for slow work such as reading weights; may block,
 *              may allocate; runs while other instances serve
 *   [engine]   one thread at a time for an instance, not always the same one
 *   [worker]   several threads at once
 *   [any]      any thread at any time
 *
 * `& running` after a tag means: inside the step loop. There a plugin allocates
 * nothing, takes no contended lock, makes no system call and looks up no string.
 *
 * ABI rules. Structs open with `size` (and tables with `abi`); the reader goes
 * no further than `size`. Fields and enum values are appended, never moved.
 * A change raises the number in the same commit. */
#ifndef LATHE_PLUGIN_H
#define LATHE_PLUGIN_H

#include <stddef.h>
#include <stdint.h>

#include <lathe/status.h>

struct lathe_host;

enum { LATHE_PLUGIN_ABI = 2 }; /* of this header and of <lathe/host.h> */

#define LATHE_PLUGIN_SYMBOL "lathe_plugin"
#define LATHE_EXPORT __attribute__((visibility("default")))

/* Kinds: what question a plugin answers. Appended, never renumbered. */
enum lathe_kind {
    LATHE_KIND_TOKENIZER = 1, /* what are the tokens? */
    LATHE_KIND_MODEL = 2,     /* what comes next? */
    LATHE_KIND_SAMPLER = 3,   /* which token of those? */
    LATHE_KIND_KVCACHE = 4,   /* where do keys and values live, and which go first? */
    LATHE_KIND_SCHEDULER = 5, /* who goes next, and who waits or is preempted? */
    LATHE_KIND_BATCHING = 6,  /* how many tokens of each go in this step? */
    LATHE_KIND_BUS = 7,       /* how do services reach each other? */
    LATHE_KIND_ROUTER = 8,    /* which replica, which model, which version? */
    LATHE_KIND_FRONTEND = 9,  /* how does the world reach the engine? */
};

/* Options. The host parses, converts, range-checks and fills in defaults; a
 * plugin's `create` receives every option of its table, in the table's order,
 * so it reads `config->values[OPT_BLOCK_TOKENS].integer` with an enum of its own. */
enum lathe_option_type {
    LATHE_OPTION_STRING = 1,
    LATHE_OPTION_INTEGER = 2,
    LATHE_OPTION_NUMBER = 3,
    LATHE_OPTION_BOOLEAN = 4,
    LATHE_OPTION_CHOICE = 5, /* one of `choices`, "a|b|c"; integer = its index */
    LATHE_OPTION_PATH = 6,   /* a file or folder; short model names are resolved by the host */
};

struct lathe_option {
    const char *name;         /* lower_case, unique in the plugin */
    int32_t type;             /* enum lathe_option_type */
    const char *default_text; /* as a person would write it; NULL: must be given */
    double min, max;          /* inclusive, numbers only; both 0: unbounded */
    const char *unit;         /* "tokens", "ms", "" */
    const char *choices;      /* CHOICE only */
    const char *help;         /* one line, a sentence */
};

struct lathe_option_value {
    int32_t type;
    int32_t is_default; /* 1: nobody set it */
    int64_t integer;    /* INTEGER, BOOLEAN, CHOICE (index) */
    double number;      /* NUMBER; INTEGER too, converted */
    const char *text;   /* STRING, PATH, CHOICE; valid until destroy */
};

struct lathe_config {
    uint32_t size;
    uint32_t count; /* the plugin's option_count */
    const struct lathe_option_value *values;
};

/* How many threads may call one instance at once; the host does the locking. */
enum lathe_concurrency {
    LATHE_SERIAL = 0,   /* one call at a time */
    LATHE_PARALLEL = 1, /* methods marked [worker] may run at once */
};

/* The exported constant. */
struct lathe_plugin {
    uint32_t size;          /* sizeof (struct lathe_plugin) */
    uint32_t abi;           /* LATHE_PLUGIN_ABI */
    int32_t kind;           /* enum lathe_kind */
    int32_t concurrency;    /* enum lathe_concurrency */
    const char *name;       /* [a-z0-9_]+, the file's name without .so */
    const char *version;    /* "1.0.0" */
    const char *summary;    /* one line for `lathe plugins` */
    const char *citation;   /* BibTeX of the method's paper, or NULL */
    const struct lathe_option *options;
    uint32_t option_count;
    uint32_t reserved;
    const void *api;        /* the kind's table; it opens with LATHE_API_HEAD */
};

/* What every kind's table opens with, so that the host can create and destroy
 * without knowing the kind.
 *
 * create        [main or loader] Make an instance. `host` outlives it. On failure
 *               *self is left alone and nothing is kept.
 * destroy       [main] Give everything back; joins own threads. NULL is ignored.
 * get_extension [main] An optional ability: a const table by id, such as
 *               "lathe.model-pick/1", or NULL. Asked once, at binding. May be NULL. */
#define LATHE_API_HEAD                                                           \
    uint32_t size;                                                               \
    uint32_t abi;                                                                \
    int (*create)(const struct lathe_host *host, const struct lathe_config *config, \
                  void **self, struct lathe_error *err);                         \
    void (*destroy)(void *self);                                                 \
    const void *(*get_extension)(void *self, const char *id)

struct lathe_api_head {
    LATHE_API_HEAD;
};

#endif
