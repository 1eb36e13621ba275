/* SPDX-License-Identifier: MIT */
/* model/llama's descriptor: options, create, describe. See llama.h for the map. */
#include <pthread.h>
#include <string.h>

#include <cblas.h>

#include "llama.h"

enum { OPT_PATH, OPT_THREADS, OPT_WEIGHTS, OPT_SWAP_BLOCKS, OPT_COMPUTE, OPT_PIN, OPT_COUNT };
enum { COMPUTE_AUTO, COMPUTE_INT8, COMPUTE_BLAS, COMPUTE_EXACT };

/* OpenBLAS is told once, for the process, to start no threads of its own: the parallelism is
 * ours, and its threaded calls would wait for each other. Nothing else here links it. */
static void blas_on_one_thread(void)
{
    openblas_set_num_threads(1);
}

static void llama_destroy(void *self)
{
    struct llama *m = self;
    if (!m)
        return;
    llama_free_weights(m);
    lathe_free(m->host, m);
}

static int llama_create(const struct lathe_host *host, const struct lathe_config *config, void **self,
                        struct lathe_error *err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    const struct lathe_option_value *v = config->values;
    struct gguf *file;
    pthread_once(&once, blas_on_one_thread);
    struct llama *m = lathe_alloc(host, sizeof *m);
    if (!m)
        return lathe_fail(err, LATHE_ENOMEM, "model llama: no memory for %zu bytes", sizeof *m);
    m->host = host;
    m->kernels = kernels_best();
    m->threads = (uint32_t)v[OPT_THREADS].integer;
    m->resident = v[OPT_WEIGHTS].integer == 1;
    m->swap_blocks = (uint32_t)v[OPT_SWAP_BLOCKS].integer;
    m->pin = v[OPT_PIN].integer == 1;
    m->blas = v[OPT_COMPUTE].integer == COMPUTE_BLAS;
    int64_t compute = v[OPT_COMPUTE].integer;
    if (compute == COMPUTE_INT8 || (compute == COMPUTE_AUTO && !m->resident && integer_best() != &integer_plain))
        m->integer = integer_best(); /* plain loops are slower than float32's: only if they are asked for */
    int status = m->integer && m->resident
                     ? lathe_fail(err, LATHE_EINVAL, "model llama: compute = int8 needs quantized weights, weights = f32 "
                                  "undoes that: leave one of the two out")
                     : gguf_open(host, v[OPT_PATH].text, &file, err);
    if (status == 0) {
        status = pool_open(host, m->threads ? m->threads : pool_cores(), &m->loaders, err);
        if (status == 0)
            status = llama_load(m, file, err);
        pool_close(m->loaders);
        m->loaders = NULL;
        gguf_close(file);
    }
    if (status) {
        llama_destroy(m);
        return status;
    }
    *self = m;
    return 0;
}

static int llama_describe(void *self, const void *in, void *out, struct lathe_error *err)
{
    const struct llama *m = self;
    const struct llama_shape *s = &m->shape;
    struct forward_kv_shape kv = { s->layers, s->kv_heads, s->head, 0 };
    struct lathe_model_info *info = out;
    int status = forward_reply_check(&info->head, sizeof *info, "describe", err);
    (void)in;
    if (status)
        return status;
    uint64_t capacity = info->head.capacity;
    *info = (struct lathe_model_info){
        .head = { .capacity = capacity, .bytes = sizeof *info },
        .layers = s->layers, .heads = s->heads, .kv_heads = s->kv_heads, .head_width = s->head,
        .embedding_width = s->width, .vocab_tokens = s->vocab, .context_tokens = s->context,
        .probe_formats = FORWARD_HEAD_FORMATS | FORWARD_LAYER_FORMATS, .interventions = FORWARD_INTERVENTIONS,
        .parameters = m->parameters, .weight_bytes = m->weight_bytes,
        .kv_bytes_per_token = forward_kv_bytes_per_token(&kv, LATHE_F32), .kv_dtypes = forward_kv_dtypes(&kv),
    };
    memcpy(info->architecture, m->architecture, sizeof info->architecture);
    memcpy(info->name, m->name, sizeof info->name);
    memcpy(info->quantization, m->quantization, sizeof info->quantization);
    return 0;
}

static const void *llama_extension(void *self, const char *id)
{
    static const struct lathe_model_ability ability = { .size = sizeof ability };
    (void)self;
    return strcmp(id, LATHE_MODEL_KEY_MASS) == 0 ? &ability : NULL;
}

static const struct lathe_model_api llama_api = {
    .size = sizeof llama_api,
    .abi = LATHE_MODEL_ABI,
    .create = llama_create,
    .destroy = llama_destroy,
    .get_extension = llama_extension,
    .describe = llama_describe,
    .context_create = llama_context_create,
    .context_destroy = llama_context_destroy,
    .forward = llama_forward,
};

static const struct lathe_option llama_options[OPT_COUNT] = {
    [OPT_PATH] = { "path", LATHE_OPTION_PATH, NULL, 0, 0, "", NULL, "The GGUF file, or a model's short name." },
    [OPT_THREADS] = { "threads", LATHE_OPTION_INTEGER, "0", 0, POOL_MAX_THREADS, "threads",
                      NULL, "Threads of a forward, the caller's included; 0: one a processor." },
    [OPT_WEIGHTS] = { "weights", LATHE_OPTION_CHOICE, "keep", 0, 0, "", "keep|f32",
                      "Keep weights as the file has them, or dequantize all at load, which needs float32 arithmetic." },
    [OPT_SWAP_BLOCKS] = { "swap_blocks", LATHE_OPTION_INTEGER, "0", 0, 1e7, "blocks",
                          NULL, "Room for KV blocks that are swapped out." },
    [OPT_COMPUTE] = { "compute", LATHE_OPTION_CHOICE, "auto", 0, 0, "", "auto|int8|blas|exact",
                      "int8: quantized weights are multiplied in integers, activations rounded to 8 bits by 32. exact: float32 "
                      "by own kernels. These two give a request the same bits in any batch, however its prompt is cut, with "
                      "any number of threads. blas: float32, attention of prompts by OpenBLAS: the reference. auto: int8 "
                      "where the processor has vectors for it, exact elsewhere and with weights = f32." },
    [OPT_PIN] = { "pin", LATHE_OPTION_CHOICE, "no", 0, 0, "", "no|yes",
                  "Keep each thread of a forward but the caller's on a core of its own: for one model alone on the machine." },
};

LATHE_EXPORT const struct lathe_plugin lathe_plugin = {
    .size = sizeof lathe_plugin,
    .abi = LATHE_PLUGIN_ABI,
    .kind = LATHE_KIND_MODEL,
    .concurrency = LATHE_SERIAL,
    .name = "llama",
    .version = "1.0.0",
    .summary = "Llama-shaped transformers (llama, qwen2) from GGUF files, in 8-bit integers or float32.",
    .citation = "@article{touvron2023llama, title={LLaMA: Open and Efficient Foundation Language Models}, "
                "author={Touvron, Hugo and others}, journal={arXiv:2302.13971}, year={2023}}",
    .options = llama_options,
    .option_count = OPT_COUNT,
    .api = &llama_api,
};
