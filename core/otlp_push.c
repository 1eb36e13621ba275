/* SPDX-License-Identifier: MIT */
/* Batches of spans to a collector: OTLP over HTTP, in JSON, by libcurl.
 *
 * What is asked again, and when, is what the OTLP specification says: 429, 502, 503 and 504, and a connection that
 * failed or timed out (a span that arrives twice has the same ids, so repeating is safe). Three attempts, between them
 * a random part of min(cap, base · 2^attempt) ("full jitter": Brooker, "Exponential backoff and jitter", 2015), or what
 * Retry-After asks if that is no longer than the cap. Anything else is final: one sentence with the collector's words.
 *
 * libcurl is opened when it is needed rather than linked: it brings two dozen libraries, which every worker process would
 * load at its start for nothing. */
#include <curl/curl.h>
#include <dlfcn.h>
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <lathe/random.h>

#include "export.h"
#include "product.h"

enum { ATTEMPTS = 3, MAX_REPLY_BYTES = 65536 };
enum { CONNECT_MS = 5000, ANSWER_MS = 10000, BACKOFF_BASE_MS = 250, BACKOFF_CAP_MS = 4000 };

struct curl_calls {
    CURLcode (*global_init)(long);
    CURL *(*easy_init)(void);
    CURLcode (*easy_setopt)(CURL *, CURLoption, ...);
    CURLcode (*easy_perform)(CURL *);
    CURLcode (*easy_getinfo)(CURL *, CURLINFO, ...);
    void (*easy_cleanup)(CURL *);
    struct curl_slist *(*slist_append)(struct curl_slist *, const char *);
    void (*slist_free_all)(struct curl_slist *);
    CURLU *(*url)(void);
    CURLUcode (*url_set)(CURLU *, CURLUPart, const char *, unsigned);
    CURLUcode (*url_get)(const CURLU *, CURLUPart, char **, unsigned);
    void (*url_cleanup)(CURLU *);
    void (*free)(void *);
};

struct otlp_push {
    struct curl_calls curl;
    CURL *easy;
    struct curl_slist *headers;
    char url[2048], said[CURL_ERROR_SIZE], why[256];
    struct text reply;
    int64_t rejected;
    uint32_t draws;
    uint64_t seed;
};

static int open_library(struct otlp_push *p, struct lathe_error *err)
{
    void *library = dlopen("libcurl.so.4", RTLD_NOW | RTLD_LOCAL); /* stays until the process ends */
    if (!library)
        return lathe_fail(err, LATHE_EUNSUPPORTED, "--push needs libcurl, which is not here; install it (apt install libcurl4), "
                                                   "or write a file with -o");
    const struct { const char *name; void *at; } calls[] = {
        { "curl_global_init", &p->curl.global_init },       { "curl_easy_init", &p->curl.easy_init },
        { "curl_easy_setopt", &p->curl.easy_setopt },       { "curl_easy_perform", &p->curl.easy_perform },
        { "curl_easy_getinfo", &p->curl.easy_getinfo },     { "curl_easy_cleanup", &p->curl.easy_cleanup },
        { "curl_slist_append", &p->curl.slist_append },     { "curl_slist_free_all", &p->curl.slist_free_all },
        { "curl_url", &p->curl.url },                       { "curl_url_set", &p->curl.url_set },
        { "curl_url_get", &p->curl.url_get },               { "curl_url_cleanup", &p->curl.url_cleanup },
        { "curl_free", &p->curl.free },
    };
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        void *found = dlsym(library, calls[i].name);
        if (!found)
            return lathe_fail(err, LATHE_EUNSUPPORTED, "libcurl.so.4 lacks %s; install a newer one (7.62 or later)", calls[i].name);
        memcpy(calls[i].at, &found, sizeof found);
    }
    if (p->curl.global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
        return lathe_fail(err, LATHE_ENOMEM, "libcurl can't begin");
    return LATHE_OK;
}

/* http://host:4318 means its /v1/traces, as OTEL_EXPORTER_OTLP_ENDPOINT does; a URL with a path is taken as it is. */
static int find_url(struct otlp_push *p, const char *given, struct lathe_error *err)
{
    CURLU *url = p->curl.url();
    char *path = NULL, *scheme = NULL, *whole = NULL;
    int status = LATHE_OK;
    if (!url)
        return lathe_fail(err, LATHE_ENOMEM, "no memory for a URL");
    if (p->curl.url_set(url, CURLUPART_URL, given, 0) != CURLUE_OK || p->curl.url_get(url, CURLUPART_SCHEME, &scheme, 0) != CURLUE_OK ||
        (strcmp(scheme, "http") != 0 && strcmp(scheme, "https") != 0))
        status = lathe_fail(err, LATHE_EINVAL, "--push %.100s: a collector's URL is expected, such as http://localhost:4318", given);
    if (!status && p->curl.url_get(url, CURLUPART_PATH, &path, 0) == CURLUE_OK && strcmp(path, "/") == 0)
        p->curl.url_set(url, CURLUPART_PATH, "/v1/traces", 0);
    if (!status && (p->curl.url_get(url, CURLUPART_URL, &whole, 0) != CURLUE_OK ||
                    snprintf(p->url, sizeof p->url, "%s", whole) >= (int)sizeof p->url))
        status = lathe_fail(err, LATHE_EINVAL, "--push: the URL is too long");
    p->curl.free(path);
    p->curl.free(scheme);
    p->curl.free(whole);
    p->curl.url_cleanup(url);
    return status;
}

static size_t keep_reply(char *bytes, size_t size, size_t count, void *of)
{
    struct otlp_push *p = of;
    size_t given = size * count, room = MAX_REPLY_BYTES - p->reply.count;
    text_add(&p->reply, bytes, given < room ? given : room);
    return given;
}

static int add_header(struct otlp_push *p, const char *header, struct lathe_error *err)
{
    struct curl_slist *longer = p->curl.slist_append(p->headers, header);
    if (!longer)
        return lathe_fail(err, LATHE_ENOMEM, "no memory for a header");
    p->headers = longer;
    return LATHE_OK;
}

static int set_options(struct otlp_push *p, const struct export_arguments *a, struct lathe_error *err)
{
    char agent[64];
    snprintf(agent, sizeof agent, "lathe/%s", product_version());
    int status = add_header(p, "Content-Type: application/json", err);
    if (!status)
        status = add_header(p, "Expect:", err); /* no waiting for "100 Continue" */
    for (size_t i = 0; i < a->header_count && !status; i++)
        status = add_header(p, a->headers[i], err);
    if (status)
        return status;
    CURLcode code = p->curl.easy_setopt(p->easy, CURLOPT_URL, p->url);
    code |= p->curl.easy_setopt(p->easy, CURLOPT_HTTPHEADER, p->headers);
    code |= p->curl.easy_setopt(p->easy, CURLOPT_USERAGENT, agent);
    code |= p->curl.easy_setopt(p->easy, CURLOPT_POST, 1L);
    code |= p->curl.easy_setopt(p->easy, CURLOPT_NOSIGNAL, 1L);
    code |= p->curl.easy_setopt(p->easy, CURLOPT_CONNECTTIMEOUT_MS, (long)CONNECT_MS);
    code |= p->curl.easy_setopt(p->easy, CURLOPT_TIMEOUT_MS, (long)ANSWER_MS);
    code |= p->curl.easy_setopt(p->easy, CURLOPT_ERRORBUFFER, p->said);
    code |= p->curl.easy_setopt(p->easy, CURLOPT_WRITEFUNCTION, keep_reply);
    code |= p->curl.easy_setopt(p->easy, CURLOPT_WRITEDATA, p);
    return code == CURLE_OK ? LATHE_OK : lathe_fail(err, LATHE_EUNSUPPORTED, "libcurl refuses an option; install a newer one");
}

int otlp_push_open(const struct export_arguments *a, struct otlp_push **push, struct lathe_error *err)
{
    struct timespec now;
    struct otlp_push *p = calloc(1, sizeof *p);
    if (!p)
        return lathe_fail(err, LATHE_ENOMEM, "no memory to push");
    clock_gettime(CLOCK_MONOTONIC, &now);
    p->seed = (uint64_t)now.tv_nsec ^ (uint64_t)getpid() << 32;
    int status = open_library(p, err);
    if (!status)
        status = find_url(p, a->push, err);
    if (!status && !(p->easy = p->curl.easy_init()))
        status = lathe_fail(err, LATHE_ENOMEM, "no memory to push");
    if (!status)
        status = set_options(p, a, err);
    if (status) {
        otlp_push_close(p);
        return status;
    }
    *push = p;
    return LATHE_OK;
}

void otlp_push_close(struct otlp_push *p)
{
    if (!p)
        return;
    if (p->headers)
        p->curl.slist_free_all(p->headers);
    if (p->easy)
        p->curl.easy_cleanup(p->easy);
    text_free(&p->reply);
    free(p);
}

/* {"partialSuccess": {"rejectedSpans": "3", "errorMessage": "…"}} */
static void read_reply(struct otlp_push *p)
{
    json_t *reply = p->reply.bytes ? json_loadb(p->reply.bytes, p->reply.count, 0, NULL) : NULL;
    json_t *partial = json_object_get(reply, "partialSuccess"), *count = json_object_get(partial, "rejectedSpans");
    const char *why = json_string_value(json_object_get(partial, "errorMessage"));
    int64_t rejected = json_is_integer(count) ? json_integer_value(count) : json_is_string(count) ? atoll(json_string_value(count)) : 0;
    if (rejected > 0) {
        p->rejected += rejected;
        snprintf(p->why, sizeof p->why, "%s", why && *why ? why : "nothing");
    }
    json_decref(reply);
}

/* What a collector said that refused, on one line. */
static const char *words_of(struct otlp_push *p, char *line, size_t capacity)
{
    json_t *reply = p->reply.bytes ? json_loadb(p->reply.bytes, p->reply.count, 0, NULL) : NULL;
    const char *message = json_string_value(json_object_get(reply, "message"));
    snprintf(line, capacity, "%s", message ? message : p->reply.count ? p->reply.bytes : "nothing");
    json_decref(reply);
    for (char *c = line; *c; c++)
        if ((unsigned char)*c < ' ')
            *c = ' ';
    return line;
}

static void wait_before(struct otlp_push *p, int attempt, curl_off_t retry_after_s)
{
    double most = BACKOFF_BASE_MS * (double)(1 << attempt);
    most = most < BACKOFF_CAP_MS ? most : BACKOFF_CAP_MS;
    double ms = most * lathe_random_unit(p->seed, LATHE_RANDOM_USER, 0, p->draws++);
    if (retry_after_s > 0 && retry_after_s * 1000 <= BACKOFF_CAP_MS)
        ms = (double)retry_after_s * 1000;
    struct timespec left = { (time_t)(ms / 1000), (long)(ms * 1e6) % 1000000000 };
    while (nanosleep(&left, &left) && errno == EINTR)
        ;
}

int otlp_push_send(struct otlp_push *p, const char *json, size_t bytes, struct lathe_error *err)
{
    char line[200];
    p->curl.easy_setopt(p->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)bytes);
    p->curl.easy_setopt(p->easy, CURLOPT_POSTFIELDS, json);
    for (int attempt = 1;; attempt++) {
        long answer = 0;
        curl_off_t retry_after_s = 0;
        p->reply.count = 0;
        p->said[0] = '\0';
        CURLcode code = p->curl.easy_perform(p->easy);
        if (code == CURLE_OK) {
            p->curl.easy_getinfo(p->easy, CURLINFO_RESPONSE_CODE, &answer);
            p->curl.easy_getinfo(p->easy, CURLINFO_RETRY_AFTER, &retry_after_s);
        }
        if (p->reply.failed)
            return lathe_fail(err, LATHE_ENOMEM, "no memory for a reply");
        if (code == CURLE_OK && answer >= 200 && answer < 300) {
            read_reply(p);
            return LATHE_OK;
        }
        bool passing = code == CURLE_OK ? answer == 429 || (answer >= 502 && answer <= 504)
                                        : code == CURLE_COULDNT_CONNECT || code == CURLE_OPERATION_TIMEDOUT || code == CURLE_GOT_NOTHING ||
                                              code == CURLE_SEND_ERROR || code == CURLE_RECV_ERROR || code == CURLE_COULDNT_RESOLVE_HOST;
        if (passing && attempt < ATTEMPTS) {
            wait_before(p, attempt, retry_after_s);
            continue;
        }
        if (code != CURLE_OK)
            return lathe_fail(err, LATHE_EUNAVAILABLE, "%s can't be reached, in %d attempts: %s; is a collector listening there?", p->url, attempt,
                              p->said[0] ? p->said : "no reason given");
        return lathe_fail(err, LATHE_EIO, "%s answered %ld, in %d attempts, and says: %s", p->url, answer, attempt, words_of(p, line, sizeof line));
    }
}

int64_t otlp_push_rejected(const struct otlp_push *p, const char **why)
{
    *why = p->why;
    return p->rejected;
}
