/* SPDX-License-Identifier: MIT */
/* What the cmocka programs about bus/shm share: a tokenizer service in worker processes that
 * may fail, and what must be true when it is gone. Include cmocka first. */
#ifndef TESTS_SHM_CASES_H
#define TESTS_SHM_CASES_H

#include <poll.h>

#include "shm_office.h"

enum { PATIENCE_MS = 60000 }; /* a hang, not a measure */

#define assert_said(err, text) \
    do { \
        if (!strstr((err).message, text)) \
            fail_msg("\"%s\" does not say \"%s\"", (err).message, text); \
    } while (0)

/* An office with a tokenizer service of `workers` processes. */
static struct lathe_service service;
static char *recipe;

static void open_with(struct office *o, const char *tokenizer, uint32_t workers, const char *const *options)
{
    struct lathe_error err = { 0 };
    office_open(o, options);
    recipe = office_recipe(tokenizer);
    service = office_service(recipe, workers);
    OFFICE_MUST(o->api->add_service(o->bus, &service, &err), &err);
}

static void close_all(struct office *o)
{
    pid_t children[64];
    office_close(o);
    free(recipe);
    assert_int_equal(office_children(children, 64), 0); /* no worker, and no zombie */
}

static int encode(struct office *o, struct office_pair *p, const char *text, struct lathe_error *err)
{
    const struct lathe_endpoint *endpoint = office_endpoint(o, "tokenizer.encode");
    office_write(p, text);
    err->message[0] = '\0';
    return endpoint->call(endpoint->self, p->in, p->out, err);
}

/* Until the event was told so often. */
static void await_events(struct office *o, int kind, int count)
{
    for (int ms = 0; office_events(o, kind, NULL) < count; ms++) {
        if (ms > PATIENCE_MS)
            fail_msg("event %d was told %d times, not %d", kind, office_events(o, kind, NULL), count);
        poll(NULL, 0, 1);
    }
}

static const char *const quick[] = { "retry_base_ms", "1", "breaker_window", "0", NULL };
static const char *const impatient[] = { "retry_attempts", "1", "breaker_window", "0", NULL };

/* What adding a service with this recipe says. */
static void refused(struct office *o, const char *bad, int status, const char *says)
{
    struct lathe_error err = { 0 };
    struct lathe_service s = office_service(bad, 1);
    assert_int_equal(o->api->add_service(o->bus, &s, &err), status);
    assert_said(err, says);
    pid_t children[4];
    assert_int_equal(office_children(children, 4), 0);
}

static char *mischief_recipe(const char *option)
{
    char *text = office_recipe("mischief"), *made;
    int before = (int)(strstr(text, "\"options\":{}") - text);
    if (asprintf(&made, "%.*s\"options\":{\"create\":\"%s\"}}]}", before, text, option) < 0)
        abort();
    free(text);
    return made;
}

#endif
