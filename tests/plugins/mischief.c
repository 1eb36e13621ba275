/* SPDX-License-Identifier: MIT */
/* tokenizer/mischief: a tokenizer whose encode does what the first byte of its text says, so
 * that a worker process can be made to fail at will. The rest of the bytes are its tokens. */
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <lathe/host.h>
#include <lathe/tokenizer.h>

static int create(const struct lathe_host *host, const struct lathe_config *config, void **self,
                  struct lathe_error *err)
{
    const char *how = config->values[0].text;
    void **own = lathe_alloc(host, sizeof *own);
    if (!own)
        return lathe_fail(err, LATHE_ENOMEM, "no memory");
    *own = (void *)(uintptr_t)host;
    *self = own;
    if (strcmp(how, "fails") == 0) {
        lathe_free(host, own);
        return lathe_fail(err, LATHE_ENOTFOUND, "the moon is not there");
    }
    if (strcmp(how, "dies") == 0)
        _exit(7);
    if (strcmp(how, "hangs") == 0)
        for (;;)
            pause();
    if (strncmp(how, "dies while ", 11) == 0 && access(how + 11, F_OK) == 0) /* so the first can live */
        _exit(8);
    return LATHE_OK;
}

static void destroy(void *self)
{
    if (self)
        lathe_free(*(const struct lathe_host **)self, self);
}

static int describe(void *self, const void *in, void *out, struct lathe_error *err)
{
    struct lathe_tokenizer_info *info = out;
    struct lathe_message head = info->head;
    (void)self, (void)in, (void)err;
    memset(info, 0, sizeof *info);
    info->head = head;
    info->head.bytes = sizeof *info;
    strcpy(info->name, "mischief");
    info->vocab_tokens = 256;
    info->bos = info->eos = info->unknown = info->padding = -1;
    info->max_token_bytes = 1;
    return LATHE_OK;
}

static void sleep_ms(long ms)
{
    nanosleep(&(struct timespec){ ms / 1000, ms % 1000 * 1000000 }, NULL);
}

/* Every cell of the ring in the first worker's block (wire.h; 256 calls) is put out of turn. */
static void spoil_ring(void)
{
    enum { BLOCK = 4096, CONTROL = 64, ERRORS = 256 * 512, RING_HEAD = 256, CELL = 64, CELLS = 256 };
    char line[512], *base = NULL;
    FILE *maps = fopen("/proc/self/maps", "r");
    while (!base && maps && fgets(line, sizeof line, maps))
        if (strstr(line, "memfd:lathe-bus"))
            base = (char *)(uintptr_t)strtoull(line, NULL, 16);
    for (int i = 0; base && i < CELLS; i++)
        *(_Atomic uint32_t *)(void *)(base + BLOCK + CONTROL + ERRORS + RING_HEAD + i * CELL) += 1000;
}

static int encode(void *self, const void *input, void *output, struct lathe_error *err)
{
    const struct lathe_encode_in *in = input;
    struct lathe_encode_out *out = output;
    const unsigned char *text = LATHE_SPAN(const unsigned char, in, in->text);
    (void)self;
    if (!lathe_span_check(&in->head, in->text, 1, 1) || in->text.count == 0)
        return lathe_fail(err, LATHE_EINVAL, "a text with a first byte is expected");
    switch (text[0]) {
    case 'k': kill(getpid(), SIGKILL); break;
    case 'x': _exit(3);
    case 'h': for (;;) pause();                    /* the heart beats on */
    case 'w': spoil_ring(); for (;;) pause();      /* the same */
    case 'z': sleep_ms(300); break;
    case 's': return 7;                            /* no status */
    case 'b': out->head.bytes = out->head.capacity + 1; return LATHE_OK;
    case 'c': out->head.capacity = UINT64_MAX; out->head.bytes = 1 << 30; return LATHE_OK;
    case 'e': memset(err->message, 'A', sizeof err->message); return LATHE_EIO;
    case 'm': err->message[0] = '\0'; return LATHE_ERANGE;
    }
    out->head.bytes = sizeof *out;
    out->needed = in->text.count;
    int32_t *tokens = lathe_message_add(&out->head, &out->tokens, in->text.count, sizeof *tokens);
    if (!tokens)
        return lathe_fail(err, LATHE_EFULL, "%llu tokens don't fit", (unsigned long long)in->text.count);
    for (uint64_t i = 0; i < in->text.count; i++)
        tokens[i] = text[i];
    return LATHE_OK;
}

static int decode(void *self, const void *in, void *out, struct lathe_error *err)
{
    (void)self, (void)in, (void)out;
    return lathe_fail(err, LATHE_EUNSUPPORTED, "mischief decodes nothing");
}

static const struct lathe_option options[] = {
    {"create", LATHE_OPTION_STRING, "", 0, 0, "", NULL,
     "How create goes: fails, dies, hangs, or dies while FILE is there."},
};

static const struct lathe_tokenizer_api api = {
    .size = sizeof api,
    .abi = LATHE_TOKENIZER_ABI,
    .create = create,
    .destroy = destroy,
    .describe = describe,
    .encode = encode,
    .decode = decode,
};

extern const struct lathe_plugin lathe_plugin;
LATHE_EXPORT const struct lathe_plugin lathe_plugin = {
    .size = sizeof lathe_plugin,
    .abi = LATHE_PLUGIN_ABI,
    .kind = LATHE_KIND_TOKENIZER,
    .concurrency = LATHE_PARALLEL,
    .name = "mischief",
    .version = "1.0.0",
    .summary = "fails as it is told",
    .options = options,
    .option_count = 1,
    .api = &api,
};
