/* SPDX-License-Identifier: MIT */
/* lathe bench --explain: how the limits came about, and where the engine's share of a step went. */
#include "bench.h"

static void explain_engine(FILE *out, const char *name, const struct bench_result *r)
{
    const double *shares = r->engine_shares, rest = r->engine_own_share - shares[BENCH_SAMPLE] - shares[BENCH_SCHEDULE] -
                                                    shares[BENCH_RESERVE];
    fprintf(out,
            "\n%s through the engine: of a step the model has %.2f%%, sampling %.2f%%, ranking and filling %.2f%%, finding\n"
            "  KV blocks %.2f%%, the rest %.2f%% (the loop, recording, handing tokens out)\n",
            name, 100 * shares[BENCH_FORWARD], 100 * shares[BENCH_SAMPLE], 100 * shares[BENCH_SCHEDULE],
            100 * shares[BENCH_RESERVE], 100 * rest);
}

void bench_explain(FILE *out, const struct bench_subject *s, const struct bench_result *results, size_t count)
{
    const struct bench_model *model = s->model;
    const struct lathe_model_info *info = &model->info;
    double output = (double)info->vocab_tokens * info->embedding_width, body = (double)info->parameters - output;
    fprintf(out,
            "\nHow the limits come about\n\n"
            "A test can't be quicker than reading what it must read, nor than multiplying what it must multiply; both can\n"
            "go on at once, so the slower of the two bounds. Everything is counted at its least:\n\n"
            "  bytes       a forward reads all weights once, %.1f MB, whatever its rows, and of each sequence its keys and\n"
            "              values, %.0f bytes a position (%s); chunks of a prompt but the last leave the output matrix out\n"
            "  operations  a row takes 2 × %.1f M for the layers' weights, 2 × %.1f M for the output matrix if it gives a\n"
            "              token, and 4 × %u layers × %u heads × %u for each key that it sees\n"
            "  types       products with weights: %s; attention: f32. Seconds: the sum of operations of each type over\n"
            "              that type's peak (where the processor has no int8 products: f32's)\n\n"
            "Measured at the start and again at the end, the best of several rounds. What could pass a limit: a model that fits the last cache;\n"
            "4-bit products summed in 16 bits, on AVX2. An embedding beside the output matrix counts as read, though it isn't.\n",
            (double)info->weight_bytes * 1e-6, model->kv_bytes_per_token, s->kv_type, body > 0 ? body * 1e-6 : 0,
            info->parameters ? output * 1e-6 : 0, info->layers, info->heads, info->head_width,
            model->arithmetic == BENCH_INT8 ? "int8" : "f32");
    for (size_t i = 0; i < count; i++) {
        const struct bench_result *r = &results[i];
        const struct bench_machine *m = r->machine;
        double tokens = bench_test_tokens(&r->test);
        char name[BENCH_NAME_BYTES], share[BENCH_NAME_BYTES];
        bench_test_name(&r->test, name);
        if (r->engine)
            explain_engine(out, name, r);
        if (!m || !r->limit.bound)
            continue;
        bench_share(s, r, share);
        fprintf(out,
                "\n%s, %u thread%s (buffer of %zu MB, last cache %zu MB):\n"
                "  memory      %.1f MB over %.1f GB/s = %.2f ms: %.0f t/s\n"
                "  arithmetic  %.2f G of f32 over %.0f G/s (%s) + %.2f G of int8 over %.0f G/s (%s) = %.2f ms: %.0f t/s\n"
                "  measured    %.2f ms: %.1f t/s, %s\n",
                name, m->threads, m->threads == 1 ? "" : "s", m->buffer_bytes / 1000000, m->cache_bytes / 1000000,
                r->demand.bytes * 1e-6, m->read_bytes_s * 1e-9, r->limit.memory_s * 1e3,
                r->limit.memory_s > 0 ? tokens / r->limit.memory_s : 0, r->demand.ops[BENCH_F32] * 1e-9,
                m->ops_s[BENCH_F32] * 1e-9, m->set[BENCH_F32], r->demand.ops[BENCH_INT8] * 1e-9, m->ops_s[BENCH_INT8] * 1e-9,
                m->set[BENCH_INT8], r->limit.arithmetic_s * 1e3,
                r->limit.arithmetic_s > 0 ? tokens / r->limit.arithmetic_s : 0, r->figures.mean_ns * 1e-6, r->figures.mean_rate,
                share);
    }
}
