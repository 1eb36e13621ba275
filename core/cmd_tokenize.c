/* SPDX-License-Identifier: MIT */
/* lathe tokenize: which tokens is a text made of, and which text are these tokens? */
#include "command.h"

#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "registry.h"
#include "score.h"
#include "service.h"

/* As strings, as a person would have written them. */
#define DEFAULT_TOKENIZER "bpe"
#define DEFAULT_TOKENIZER_WITHOUT_FILE "byte"

enum { MOST_SETTINGS = 32 };

static const char usage[] =
    "usage: lathe tokenize -m MODEL [TEXT] [options]\n"
    "       lathe tokenize -m MODEL --decode IDS\n"
    "\n"
    "A line for each token of TEXT, or of stdin without one: its id, and its bytes as text.\n"
    "Text is bytes; what isn't UTF-8 becomes U+FFFD, as the model sees it.\n"
    "\n"
    "  -m, --model MODEL    a GGUF file, or a short name such as smollm2-135m\n"
    "      --ids            the ids alone, as a JSON array\n"
    "      --parse-special  read the text of special tokens (<|im_start|>) as them\n"
    "      --bos            put the begin token in front, if the model wants one\n"
    "      --decode IDS     the other way: the text of these ids, 1,2,3 or [1, 2, 3]; - reads them\n"
    "                       from stdin\n"
    "      --set tokenizer=NAME:OPTION=VALUE,…   another tokenizer plugin, or its options; byte\n"
    "                       needs no model\n"
    "  -h, --help\n";

struct arguments {
    const char *model, *text, *decode;
    char *set; /* what --set said after "tokenizer=" */
    uint32_t flags;
    int ids;
};

/* A token's bytes in quotes: whole characters as they are, the rest as \n or \xff, since a token
 * may end within a character. */
static void print_quoted(const char *bytes, size_t count)
{
    static const char from[] = "\n\r\t\\\"", to[] = "nrt\\\"";
    putchar('"');
    for (size_t i = 0; i < count;) {
        unsigned char c = (unsigned char)bytes[i];
        const char *known = c ? strchr(from, c) : NULL;
        size_t tail = c >= 0xf0 ? 3 : c >= 0xe0 ? 2 : c >= 0xc2 ? 1 : 0, have = 0;
        while (have < tail && i + 1 + have < count && ((unsigned char)bytes[i + 1 + have] & 0xc0) == 0x80)
            have++;
        if (known) {
            printf("\\%c", to[known - from]);
        } else if ((c >= 0x20 && c < 0x7f) || (c >= 0xc2 && c < 0xf5 && have == tail)) {
            fwrite(bytes + i, 1, 1 + tail, stdout);
            i += tail;
        } else {
            printf("\\x%02x", c);
        }
        i++;
    }
    putchar('"');
}

static int print_tokens(const struct instance *tokenizer, const int32_t *tokens, size_t count, struct lathe_error *err)
{
    for (size_t i = 0; i < count; i++) {
        char *text;
        size_t bytes;
        int status = tokenizer_decode(tokenizer, &tokens[i], 1, LATHE_DECODE_SPECIAL | LATHE_DECODE_RAW, &text, &bytes, err);
        if (status)
            return status;
        printf("%7d  ", tokens[i]);
        print_quoted(text, bytes);
        putchar('\n');
        free(text);
    }
    return 0;
}

static int encode(const struct instance *tokenizer, const struct arguments *a, struct lathe_error *err)
{
    char *input = NULL;
    int32_t *tokens;
    size_t bytes = a->text ? strlen(a->text) : 0, count;
    int status = a->text ? 0 : score_read_file("-", &input, &bytes, err);
    if (!status)
        status = tokenizer_encode(tokenizer, a->text ? a->text : input, bytes, a->flags, &tokens, &count, err);
    free(input);
    if (status)
        return status;
    if (a->ids) {
        putchar('[');
        for (size_t i = 0; i < count; i++)
            printf("%s%d", i ? ", " : "", tokens[i]);
        puts("]");
    } else {
        status = print_tokens(tokenizer, tokens, count, err);
    }
    free(tokens);
    return status;
}

static int decode(const struct instance *tokenizer, const struct arguments *a, struct lathe_error *err)
{
    int32_t *tokens;
    char *text;
    size_t count, bytes;
    int status = score_parse_ids(a->decode, &tokens, &count, err);
    if (status)
        return status;
    status = tokenizer_decode(tokenizer, tokens, count, LATHE_DECODE_SPECIAL | LATHE_DECODE_FLUSH, &text, &bytes, err);
    if (!status) {
        fwrite(text, 1, bytes, stdout);
        free(text);
    }
    free(tokens);
    return status;
}

static int open_tokenizer(struct registry *registry, struct arguments *a, struct instance **tokenizer, struct lathe_error *err)
{
    struct option_setting settings[MOST_SETTINGS + 1];
    size_t count = 0;
    char path[PATH_MAX], *name = NULL;
    int status = a->set ? settings_parse(a->set, &name, settings, MOST_SETTINGS, &count, err) : 0;
    if (status)
        return status;
    if (a->model) {
        if ((status = model_path_resolve(a->model, path, sizeof path, err)))
            return status;
        settings[count++] = (struct option_setting){ "path", path };
    }
    if (!name || !*name)
        name = a->model || count ? DEFAULT_TOKENIZER : DEFAULT_TOKENIZER_WITHOUT_FILE;
    return instance_create(registry, LATHE_KIND_TOKENIZER, name, settings, count, tokenizer, err);
}

static int run(struct arguments *a, struct lathe_error *err)
{
    struct registry *registry = NULL;
    struct instance *tokenizer = NULL;
    int status = registry_open(NULL, &registry, err);
    if (!status)
        status = open_tokenizer(registry, a, &tokenizer, err);
    if (!status)
        status = a->decode ? decode(tokenizer, a, err) : encode(tokenizer, a, err);
    if (fflush(stdout) && !status)
        status = lathe_fail(err, LATHE_EIO, "the output can't be written");
    instance_destroy(tokenizer);
    if (registry)
        registry_close(registry);
    return status;
}

static int choose(struct arguments *a, const char *word)
{
    static const char kind[] = "tokenizer=";
    if (strncmp(word, kind, sizeof kind - 1) != 0)
        return command_usage("tokenize", "--set %s: tokenizer=NAME:option=value,… is expected here", word);
    free(a->set);
    a->set = strdup(word + sizeof kind - 1);
    return a->set ? 0 : command_usage("tokenize", "no memory for --set");
}

static int unknown_option(const char *word)
{
    static const char *const names[] = { "--model", "--ids", "--parse-special", "--bos", "--decode", "--set", "--help" };
    const char *nearest = nearest_name(word, names, sizeof names / sizeof *names);
    return nearest ? command_usage("tokenize", "unknown option %s; perhaps %s", word, nearest)
                   : command_usage("tokenize", "unknown option %s", word);
}

int cmd_tokenize(int argc, char **argv)
{
    static const struct option options[] = {
        { "model", required_argument, NULL, 'm' },    { "ids", no_argument, NULL, 'i' },
        { "parse-special", no_argument, NULL, 'p' },  { "bos", no_argument, NULL, 'b' },
        { "decode", required_argument, NULL, 'd' },   { "set", required_argument, NULL, 's' },
        { "help", no_argument, NULL, 'h' },           { NULL, 0, NULL, 0 },
    };
    struct arguments a = { 0 };
    struct lathe_error err = { 0 };
    int option, status = 0, help = 0;
    optind = 1;
    opterr = 0;
    while (!status && !help && (option = getopt_long(argc, argv, ":m:h", options, NULL)) != -1)
        switch (option) {
        case 'm': a.model = optarg; break;
        case 'i': a.ids = 1; break;
        case 'p': a.flags |= LATHE_ENCODE_SPECIAL; break;
        case 'b': a.flags |= LATHE_ENCODE_BOS; break;
        case 'd': a.decode = optarg; break;
        case 's': status = choose(&a, optarg); break;
        case 'h': help = 1; break;
        case ':': status = command_usage("tokenize", "%s needs a value", argv[optind - 1]); break;
        default: status = unknown_option(argv[optind - 1]);
        }
    if (help) {
        fputs(usage, stdout);
    } else {
        if (!status && optind < argc)
            a.text = argv[optind++];
        if (!status && (optind < argc || (a.decode && (a.text || a.ids || a.flags))))
            status = command_usage("tokenize", "one text is expected (in quotes), or --decode alone");
        if (!status && !a.model && !a.set)
            status = command_usage("tokenize", "no model: name one with -m, or --set tokenizer=byte");
        if (!status && run(&a, &err))
            status = command_fail("tokenize", 1, &err);
    }
    free(a.set);
    return status;
}
