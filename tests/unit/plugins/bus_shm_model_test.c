/* SPDX-License-Identifier: MIT */
/* bus/shm with a model and its sampler in one worker process: logits stay where they were
 * computed, the answers are those of this process, and keys and values that are gone with a
 * worker are never taken for those of another. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <poll.h>

#include "support/shm_office.h"
#include <lathe/model.h>
#include <lathe/sampler.h>

enum { VOCAB = 260, BLOCK_TOKENS = 16, PROMPT = 20, STEPS = 6 };

static const struct lathe_context_params params = { .size = sizeof params, .block_tokens = BLOCK_TOKENS, .blocks = 8,
                                                    .batch_tokens = 64, .batch_slices = 4, .context_tokens = 64,
                                                    .output_rows = 2, .threads = 1, .kv_dtype = LATHE_F32 };

struct studio {
    struct office office;
    struct instance *model, *sampler;
    void *context; /* in this process, to compare with */
    char *recipe;
    struct lathe_service_method model_methods[MODEL_METHODS], sampler_methods[SAMPLER_METHODS];
    struct lathe_service services[2];
    struct lathe_forward_in *in;
    struct lathe_forward_out *out;
    struct lathe_sample_in *sample_in;
    struct lathe_sample_out *sample_out;
    int32_t *history; /* in a message of its own */
    struct lathe_message *history_message;
};

static void *loan(struct studio *s, size_t bytes)
{
    struct lathe_error err = { 0 };
    void *m = s->office.api->loan(s->office.bus, bytes, &err);
    if (!m)
        OFFICE_MUST(LATHE_ENOMEM, &err);
    return m;
}

static void open_studio(struct studio *s, const char *const *options)
{
    struct lathe_error err = { 0 };
    memset(s, 0, sizeof *s);
    office_open(&s->office, options);
    OFFICE_MUST(instance_create(s->office.registry, LATHE_KIND_MODEL, "tiny", NULL, 0, &s->model, &err), &err);
    OFFICE_MUST(instance_create(s->office.registry, LATHE_KIND_SAMPLER, "greedy", NULL, 0, &s->sampler, &err), &err);
    const struct lathe_model_api *model = s->model->api;
    const struct lathe_sampler_api *sampler = s->sampler->api;
    OFFICE_MUST(model->context_create(s->model->self, &params, &s->context, &err), &err);
    OFFICE_MUST(sampler->bind(s->sampler->self, VOCAB, &err), &err);
    OFFICE_MUST(recipe_of_model("model", s->model, &params, "sampler", s->sampler, VOCAB, &s->recipe, &err), &err);
    s->services[0] = (struct lathe_service){.size = sizeof(struct lathe_service),
                                            .name = "model",
                                            .methods = s->model_methods,
                                            .method_count = methods_of_model(model, NULL, NULL, s->model_methods),
                                            .workers = 1,
                                            .recipe = s->recipe,
                                            .recipe_bytes = strlen(s->recipe)};
    s->services[1] = (struct lathe_service){ .size = sizeof(struct lathe_service), .name = "sampler",
                                             .methods = s->sampler_methods, .with = "model",
                                             .method_count = methods_of_sampler(sampler, NULL, s->sampler_methods) };
    for (int i = 0; i < 2; i++)
        OFFICE_MUST(s->office.api->add_service(s->office.bus, &s->services[i], &err), &err);
    s->in = loan(s, 16384);
    s->out = loan(s, sizeof *s->out + 2 * VOCAB * sizeof(float) + 256);
    s->sample_in = loan(s, 4096);
    s->sample_out = loan(s, 4096);
    s->history_message = loan(s, 4096);
    s->history = (int32_t *)(void *)(s->history_message + 1);
}

static void close_studio(struct studio *s)
{
    struct lathe_error err = { 0 };
    struct lathe_message *messages[] = { &s->in->head, &s->out->head, &s->sample_in->head, &s->sample_out->head,
                                         s->history_message };
    pid_t children[4];
    for (int i = 0; i < 5; i++)
        s->office.api->give_back(s->office.bus, messages[i]);
    assert_int_equal(s->office.api->remove_service(s->office.bus, "model", &err), LATHE_EBUSY);
    OFFICE_MUST(s->office.api->remove_service(s->office.bus, "sampler", &err), &err);
    OFFICE_MUST(s->office.api->remove_service(s->office.bus, "model", &err), &err);
    assert_int_equal(office_children(children, 4), 0);
    ((const struct lathe_model_api *)s->model->api)->context_destroy(s->context);
    instance_destroy(s->model);
    instance_destroy(s->sampler);
    office_close(&s->office);
    free(s->recipe);
}

/* One request: rows `first` … `first + count` of the history. */
static void write_forward(struct studio *s, uint32_t first, uint32_t count)
{
    struct lathe_forward_in *in = s->in;
    in->head.bytes = sizeof *in;
    in->kv_ops = in->kept = in->probes = (struct lathe_span){ 0 };
    struct lathe_slice *slice = lathe_message_add(&in->head, &in->slices, 1, sizeof *slice);
    int32_t *tokens = lathe_message_add(&in->head, &in->tokens, count, sizeof *tokens);
    int32_t *blocks = lathe_message_add(&in->head, &in->blocks, 4, sizeof *blocks);
    uint32_t *outputs = lathe_message_add(&in->head, &in->outputs, 1, sizeof *outputs);
    *slice = (struct lathe_slice){ .request = 1, .flags = LATHE_SLICE_LOGITS, .first_position = (int32_t)first,
                                   .token_count = count, .block_count = 4, .output_count = 1, .probe = LATHE_NO_PROBE,
                                   .adapter = -1 };
    memcpy(tokens, s->history + first, count * sizeof *tokens);
    for (int i = 0; i < 4; i++)
        blocks[i] = 2 * i % 7;
    outputs[0] = count - 1;
    struct lathe_span span;
    s->out->head.bytes = sizeof *s->out;
    char *room = lathe_message_add(&s->out->head, &span, VOCAB, sizeof(float));
    s->out->logits = (struct lathe_region){ room - (char *)s->out, VOCAB * sizeof(float) };
    s->out->hidden = s->out->attention = (struct lathe_region){ 0 };
}

static int forward(struct studio *s, uint32_t first, uint32_t count, struct lathe_error *err)
{
    const struct lathe_endpoint *endpoint = office_endpoint(&s->office, "model.forward");
    write_forward(s, first, count);
    err->message[0] = '\0';
    return endpoint->call(endpoint->self, s->in, s->out, err);
}

/* The token that the sampler picks of the logits, which lie in another message. */
static int32_t sample(struct studio *s, uint32_t count)
{
    const struct lathe_endpoint *endpoint = office_endpoint(&s->office, "sampler.sample");
    struct lathe_error err = { 0 };
    struct lathe_sample_in *in = s->sample_in;
    in->head.bytes = sizeof *in;
    in->vocab_tokens = VOCAB;
    in->stops = (struct lathe_span){ 0 };
    struct lathe_sample_row *row = lathe_message_add(&in->head, &in->rows, 1, sizeof *row);
    *row = (struct lathe_sample_row){ .request = 1, .history_count = count, .prompt_count = PROMPT,
                                      .sampling = { .top_p = 1, .repetition_penalty = 1 } };
    in->logits = (struct lathe_region){ (char *)s->out + s->out->logits.offset - (char *)in, VOCAB * sizeof(float) };
    in->history = (struct lathe_region){ (char *)s->history - (char *)in, count * sizeof(int32_t) };
    s->sample_out->head.bytes = sizeof *s->sample_out;
    OFFICE_MUST(endpoint->call(endpoint->self, in, s->sample_out, &err), &err);
    assert_int_equal(s->sample_out->sampled.count, 1);
    return LATHE_SPAN(struct lathe_sampled, s->sample_out, s->sample_out->sampled)->token;
}

static void prompt(struct studio *s)
{
    for (int i = 0; i < PROMPT; i++)
        s->history[i] = 'a' + i * 7 % 26;
}

static void a_worker_computes_what_this_process_computes(void **state)
{
    struct studio s;
    struct lathe_error err = { 0 };
    float logits[VOCAB];
    const struct lathe_model_api *model;
    (void)state;
    open_studio(&s, NULL);
    model = s.model->api;
    prompt(&s);
    for (uint32_t step = 0, first = 0, count = PROMPT; step < STEPS; step++, first += count, count = 1) {
        OFFICE_MUST(forward(&s, first, count, &err), &err);
        assert_true(s.out->head.ended_ns >= s.out->head.started_ns && s.out->head.started_ns > 0);
        assert_int_equal(s.out->logits_rows, 1);
        memcpy(logits, LATHE_REGION(float, s.out, s.out->logits), sizeof logits);
        write_forward(&s, first, count);
        OFFICE_MUST(model->forward(s.context, s.in, s.out, &err), &err);
        assert_memory_equal(LATHE_REGION(float, s.out, s.out->logits), logits, sizeof logits);
        int32_t best = 0;
        for (int32_t i = 1; i < VOCAB; i++)
            best = logits[i] > logits[best] ? i : best;
        assert_int_equal(sample(&s, first + count), best);
        s.history[first + count] = best;
    }
    close_studio(&s);
}

static void keys_and_values_that_are_gone_are_told_before_a_step_uses_them(void **state)
{
    struct studio s;
    struct lathe_error err = { 0 };
    float logits[VOCAB];
    (void)state;
    open_studio(&s, NULL);
    prompt(&s);
    OFFICE_MUST(forward(&s, 0, PROMPT, &err), &err);
    s.history[PROMPT] = sample(&s, PROMPT);
    OFFICE_MUST(forward(&s, PROMPT, 1, &err), &err);
    memcpy(logits, LATHE_REGION(float, s.out, s.out->logits), sizeof logits);

    kill((pid_t)office_health(&s.office, "model").pid, SIGKILL);
    while (office_events(&s.office, LATHE_BUS_WORKER_READY, NULL) < 2)
        poll(NULL, 0, 1);
    assert_int_equal(forward(&s, PROMPT, 1, &err), LATHE_ELOST);
    assert_non_null(strstr(err.message, "its state is gone"));
    OFFICE_MUST(forward(&s, 0, PROMPT + 1, &err), &err); /* prefilled again: as it was */
    assert_true(sample(&s, PROMPT + 1) >= 0);              /* told once, not to each method */
    for (int i = 0; i < VOCAB; i++)
        assert_true(LATHE_REGION(float, s.out, s.out->logits)[i] - logits[i] < 1e-4f &&
                    logits[i] - LATHE_REGION(float, s.out, s.out->logits)[i] < 1e-4f);
    close_studio(&s);
}

static void both_services_have_one_worker_and_one_health(void **state)
{
    struct studio s;
    struct lathe_error err = { 0 };
    pid_t children[4];
    (void)state;
    open_studio(&s, NULL);
    assert_int_equal(office_children(children, 4), 1);
    assert_int_equal(office_health(&s.office, "model").pid, children[0]);
    assert_int_equal(office_health(&s.office, "sampler").pid, children[0]);
    assert_int_equal(s.office.api->scale(s.office.bus, "sampler", 2, &err), LATHE_EINVAL);
    assert_non_null(strstr(err.message, "served by the workers of 'model'"));
    close_studio(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_worker_computes_what_this_process_computes),
        cmocka_unit_test(keys_and_values_that_are_gone_are_told_before_a_step_uses_them),
        cmocka_unit_test(both_services_have_one_worker_and_one_health),
    };
    return cmocka_run_group_tests_name("bus/shm with a model", tests, NULL, NULL);
}
