/* SPDX-License-Identifier: MIT */
/* A scheduler with one thing wrong with it: which one, its CMakeLists.txt says by -D. What is
 * not said is as it should be. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <lathe/scheduler.h>

#ifndef SYMBOL
#define SYMBOL lathe_plugin
#endif
#ifndef DESCRIPTOR_SIZE
#define DESCRIPTOR_SIZE sizeof(struct lathe_plugin)
#endif
#ifndef DESCRIPTOR_ABI
#define DESCRIPTOR_ABI LATHE_PLUGIN_ABI
#endif
#ifndef DESCRIPTOR_KIND
#define DESCRIPTOR_KIND LATHE_KIND_SCHEDULER
#endif
#ifndef DESCRIPTOR_NAME
#define DESCRIPTOR_NAME HOSTILE
#endif
#ifndef DESCRIPTOR_VERSION
#define DESCRIPTOR_VERSION "1.0.0"
#endif
#ifndef TABLE
#define TABLE &api
#endif
#ifndef TABLE_SIZE
#define TABLE_SIZE sizeof(struct lathe_scheduler_api)
#endif
#ifndef TABLE_ABI
#define TABLE_ABI LATHE_SCHEDULER_ABI
#endif
#ifndef RANK
#define RANK rank
#endif
#ifndef ON_LOAD
#define ON_LOAD (void)0
#endif
#ifndef ON_CREATE
#define ON_CREATE (void)0
#endif
#ifndef ON_DESTROY
#define ON_DESTROY (void)0
#endif
#ifndef OPTIONS
#define OPTIONS                                                                                  \
    { .name = "quantum", .type = LATHE_OPTION_INTEGER, .default_text = "16", .min = 1, .max = 64, \
      .unit = "tokens", .help = "How many." }
#endif

#define SLEEP_FOR_EVER for (;;) pause()
#define SLEEP_A_WHILE nanosleep(&(struct timespec){ .tv_nsec = 300000000 }, NULL)

#ifdef MISSING_FUNCTION
int nobody_has_this_function(void);
#endif

__attribute__((constructor, used)) static void on_load(void)
{
    ON_LOAD;
}

static int one;

static int create(const struct lathe_host *host, const struct lathe_config *config, void **self,
                  struct lathe_error *err)
{
    (void)host, (void)config, (void)err;
    *self = &one;
#ifdef MISSING_FUNCTION
    one = nobody_has_this_function();
#endif
    ON_CREATE;
    return LATHE_OK;
}

static void destroy(void *self)
{
    (void)self;
    ON_DESTROY;
}

static int bind_limits(void *self, const struct lathe_scheduler_limits *limits, struct lathe_error *err)
{
    (void)self, (void)limits, (void)err;
    return LATHE_OK;
}

static int admit(void *self, const struct lathe_request *req, struct lathe_error *err)
{
    (void)self, (void)req, (void)err;
    return LATHE_OK;
}

__attribute__((unused)) static int rank(void *self, const struct lathe_step_view *view,
                                        struct lathe_ranking *ranking, struct lathe_error *err)
{
    (void)self, (void)view, (void)err;
    ranking->count = 0;
    return LATHE_OK;
}

static const struct lathe_request *victim(void *self, const struct lathe_step_view *view,
                                          const struct lathe_request *needy)
{
    (void)self, (void)view, (void)needy;
    return NULL;
}

static void retire(void *self, const struct lathe_request *req)
{
    (void)self, (void)req;
}

__attribute__((unused)) static const struct lathe_scheduler_api api = {
    .size = TABLE_SIZE,
    .abi = TABLE_ABI,
    .create = create,
    .destroy = destroy,
    .bind = bind_limits,
    .admit = admit,
    .rank = RANK,
    .victim = victim,
    .retire = retire,
};

__attribute__((unused)) static const struct lathe_option options[] = { OPTIONS };

#ifdef SMALL_OBJECT
LATHE_EXPORT const uint32_t lathe_plugin[2] = { sizeof(struct lathe_plugin), LATHE_PLUGIN_ABI };
#else
LATHE_EXPORT const struct lathe_plugin SYMBOL = {
    .size = DESCRIPTOR_SIZE,
    .abi = DESCRIPTOR_ABI,
    .kind = DESCRIPTOR_KIND,
    .concurrency = LATHE_SERIAL,
    .name = DESCRIPTOR_NAME,
    .version = DESCRIPTOR_VERSION,
    .summary = "One thing is wrong with it.",
    .options = options,
    .option_count = sizeof options / sizeof *options,
    .api = TABLE,
};
#endif
