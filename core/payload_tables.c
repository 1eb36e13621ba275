/* SPDX-License-Identifier: MIT */
/* Every field of every message, once: what <lathe/tokenizer.h>, <lathe/model.h>,
 * <lathe/sampler.h> and local_services.h say, for programs. tests/unit/core/payload_test.c
 * reads those headers and fails for a member that isn't here. */
#include "payload.h"

#include "local_services.h"
#include <lathe/attention.h>
#include <lathe/sampler.h>
#include <lathe/tokenizer.h>

#define WHERE(s, m) .member = #m, .offset = offsetof(struct s, m), .bytes = sizeof(((struct s *)0)->m)
#define SHOWN(s, m, t, ...) { WHERE(s, m), .name = #m, .type = PAYLOAD_##t, __VA_ARGS__ }
#define HIDDEN(s, m, t, ...) { WHERE(s, m), .type = PAYLOAD_##t, __VA_ARGS__ }
#define INLINE(s, m, t, ...) HIDDEN(s, m, t, __VA_ARGS__)
#define HEAD(s) HIDDEN(s, head, HEAD)
#define RESERVED(s) HIDDEN(s, reserved, RESERVED)
#define RANGE(s, shown, first, count, ...) \
    { .name = shown, .member = #first, .second = #count, .type = PAYLOAD_RANGE, .offset = offsetof(struct s, first), \
      .bytes = 2 * sizeof(uint32_t), __VA_ARGS__ }
#define ABSENT(value) .flags = PAYLOAD_OPTIONAL, .absent = (value)
#define HELP(text) .help = text
#define STRUCT(s, ...) \
    static const struct payload_struct describes_##s = { \
        #s, s##_fields, sizeof s##_fields / sizeof *s##_fields, sizeof(struct s), __VA_ARGS__ }

static const struct payload_field lathe_empty_fields[] = { HEAD(lathe_empty) };
STRUCT(lathe_empty, NULL);

/* ── tokenizer ─────────────────────────────────────────────────────────────────────── */

static const struct payload_field lathe_tokenizer_info_fields[] = {
    HEAD(lathe_tokenizer_info),
    SHOWN(lathe_tokenizer_info, name, CHARS, HELP("the pre-tokenizer, or the plugin's own name")),
    SHOWN(lathe_tokenizer_info, vocab_tokens, U32, HELP("ids are below this")),
    SHOWN(lathe_tokenizer_info, bos, I32, HELP("begins a text; -1: there is none")),
    SHOWN(lathe_tokenizer_info, eos, I32, HELP("ends a text; -1: there is none")),
    SHOWN(lathe_tokenizer_info, unknown, I32, HELP("stands for what has no token; -1: there is none")),
    SHOWN(lathe_tokenizer_info, padding, I32, HELP("fills batches; -1: there is none")),
    SHOWN(lathe_tokenizer_info, add_bos, BOOLEAN, HELP("encode with bos = true puts bos in front")),
    HIDDEN(lathe_tokenizer_info, stop_count, COUNT),
    SHOWN(lathe_tokenizer_info, stops, LIST, .element = PAYLOAD_I32, .link = "stop_count",
          HELP("ids that end a generation")),
    SHOWN(lathe_tokenizer_info, has_template, BOOLEAN, HELP("apply_template works")),
    SHOWN(lathe_tokenizer_info, max_token_bytes, U32, HELP("longest text of one token")),
};
STRUCT(lathe_tokenizer_info, NULL);

static const struct payload_name encode_flags[] = {
    { "special", LATHE_ENCODE_SPECIAL, "read the text of special tokens (<|im_start|>) as them" },
    { "bos", LATHE_ENCODE_BOS, "put bos in front if the model wants one" },
    { NULL, 0, NULL },
};
static const struct payload_field lathe_encode_in_fields[] = {
    HEAD(lathe_encode_in),
    INLINE(lathe_encode_in, flags, FLAGS, .names = encode_flags),
    RESERVED(lathe_encode_in),
    SHOWN(lathe_encode_in, text, TEXT, HELP("what to encode; ill-formed UTF-8 becomes U+FFFD")),
};
STRUCT(lathe_encode_in, NULL);

static const struct payload_field lathe_encode_out_fields[] = {
    HEAD(lathe_encode_out),
    HIDDEN(lathe_encode_out, needed, NEEDED, .each = sizeof(int32_t)),
    SHOWN(lathe_encode_out, tokens, SPAN, .element = PAYLOAD_I32, HELP("ids")),
};
STRUCT(lathe_encode_out, NULL);

static const struct payload_field lathe_decode_state_fields[] = {
    HIDDEN(lathe_decode_state, count, COUNT),
    SHOWN(lathe_decode_state, started, BOOLEAN, ABSENT(0), HELP("the stream's first token is past")),
    SHOWN(lathe_decode_state, bytes, LIST, .element = PAYLOAD_U8, .link = "count", .each = 3,
          .flags = PAYLOAD_OPTIONAL, HELP("of a character that isn't whole yet, at most 3")),
};
STRUCT(lathe_decode_state, NULL);

static const struct payload_name decode_flags[] = {
    { "special", LATHE_DECODE_SPECIAL, "write special tokens' text; otherwise they are silent" },
    { "flush", LATHE_DECODE_FLUSH, "the stream ends: pending bytes come out as U+FFFD" },
    { "raw", LATHE_DECODE_RAW, "the tokens' bytes as they are, no holding back" },
    { NULL, 0, NULL },
};
static const struct payload_field lathe_decode_in_fields[] = {
    HEAD(lathe_decode_in),
    INLINE(lathe_decode_in, flags, FLAGS, .names = decode_flags),
    RESERVED(lathe_decode_in),
    SHOWN(lathe_decode_in, state, STRUCT, .of = &describes_lathe_decode_state, .flags = PAYLOAD_OPTIONAL,
          HELP("the state of the reply before, in a stream; absent: the stream begins")),
    SHOWN(lathe_decode_in, tokens, SPAN, .element = PAYLOAD_I32, HELP("ids, each below vocab_tokens")),
};
STRUCT(lathe_decode_in, NULL);

static const struct payload_field lathe_decode_out_fields[] = {
    HEAD(lathe_decode_out),
    HIDDEN(lathe_decode_out, needed, NEEDED, .each = 1),
    SHOWN(lathe_decode_out, state, STRUCT, .of = &describes_lathe_decode_state,
          HELP("for the next call of the stream")),
    SHOWN(lathe_decode_out, text, TEXT, HELP("whole UTF-8 characters, unless raw")),
};
STRUCT(lathe_decode_out, NULL);

static const struct payload_field lathe_template_in_fields[] = {
    HEAD(lathe_template_in),
    SHOWN(lathe_template_in, add_generation_prompt, BOOLEAN, ABSENT(0),
          HELP("end with what opens the assistant's turn")),
    RESERVED(lathe_template_in),
    SHOWN(lathe_template_in, messages, JSON, HELP("a list of { role = …, content = … }, or its JSON text")),
    SHOWN(lathe_template_in, source, TEXT, .flags = PAYLOAD_OPTIONAL,
          HELP("a template to use instead of the model's")),
};
STRUCT(lathe_template_in, NULL);

static const struct payload_field lathe_template_out_fields[] = {
    HEAD(lathe_template_out),
    HIDDEN(lathe_template_out, needed, NEEDED, .each = 1),
    SHOWN(lathe_template_out, text, TEXT, HELP("encode it with special = true")),
};
STRUCT(lathe_template_out, NULL);

/* ── model ─────────────────────────────────────────────────────────────────────────── */

static const struct payload_name probe_formats[] = {
    { "probe_summary", 1u << LATHE_PROBE_SUMMARY, "forward can serve probes of format summary" },
    { "probe_top", 1u << LATHE_PROBE_TOP, "… of format top" },
    { "probe_full", 1u << LATHE_PROBE_FULL, "… of format full" },
    { "probe_scores", 1u << LATHE_PROBE_SCORES, "… of format scores" },
    { "probe_values", 1u << LATHE_PROBE_VALUES, "… of format values" },
    { "probe_norms", 1u << LATHE_PROBE_NORMS, "… of format norms" },
    { "probe_lens", 1u << LATHE_PROBE_LENS, "… of format lens" },
    { "probe_hidden", 1u << LATHE_PROBE_HIDDEN, "… of format hidden" },
    { NULL, 0, NULL },
};
static const struct payload_name kv_dtypes[] = {
    { "kv_f32", 1u << LATHE_F32, "keys and values can be kept as float32" },
    { "kv_f16", 1u << LATHE_F16, "… as float16" },
    { "kv_q8_0", 1u << LATHE_Q8_0, "… as 8-bit blocks" },
    { NULL, 0, NULL },
};
static const struct payload_name interventions[] = {
    { "head_scale", 1u << LATHE_HEAD_SCALE, "forward can scale heads" },
    { "head_set", 1u << LATHE_HEAD_SET, "… set a head's output" },
    { "head_uniform", 1u << LATHE_HEAD_UNIFORM, "… make a head look at all keys alike" },
    { "keys_drop", 1u << LATHE_KEYS_DROP, "… hide keys from heads" },
    { "keys_keep", 1u << LATHE_KEYS_KEEP, "… hide all but some keys" },
    { "attention_scale", 1u << LATHE_ATTENTION_SCALE, "… scale what a layer's attention adds" },
    { "mlp_scale", 1u << LATHE_MLP_SCALE, "… scale what a layer's MLP adds" },
    { "patch", 1u << LATHE_PATCH, "… replace the residual stream after a layer" },
    { NULL, 0, NULL },
};
static const struct payload_field lathe_model_info_fields[] = {
    HEAD(lathe_model_info),
    SHOWN(lathe_model_info, architecture, CHARS, HELP("llama, qwen2, tiny")),
    SHOWN(lathe_model_info, name, CHARS, HELP("the file's own name for itself")),
    SHOWN(lathe_model_info, quantization, CHARS, HELP("the type most weights have")),
    SHOWN(lathe_model_info, layers, U32, HELP("blocks of attention and feed-forward")),
    SHOWN(lathe_model_info, heads, U32, HELP("query heads of a layer")),
    SHOWN(lathe_model_info, kv_heads, U32, HELP("key and value heads of a layer")),
    SHOWN(lathe_model_info, head_width, U32, HELP("elements of a head")),
    SHOWN(lathe_model_info, embedding_width, U32, HELP("elements of a hidden state")),
    SHOWN(lathe_model_info, vocab_tokens, U32, HELP("logits of a row")),
    SHOWN(lathe_model_info, context_tokens, U32, HELP("trained maximum")),
    INLINE(lathe_model_info, probe_formats, FLAGS, .names = probe_formats),
    SHOWN(lathe_model_info, parameters, U64, HELP("weights")),
    SHOWN(lathe_model_info, weight_bytes, U64, HELP("in memory, as loaded")),
    SHOWN(lathe_model_info, kv_bytes_per_token, U64, HELP("keys and values of one position, as float32")),
    INLINE(lathe_model_info, kv_dtypes, FLAGS, .names = kv_dtypes),
    INLINE(lathe_model_info, interventions, FLAGS, .names = interventions),
};
STRUCT(lathe_model_info, NULL);

static const struct payload_name kv_op_kinds[] = {
    { "copy", LATHE_KV_COPY, NULL }, { "move_out", LATHE_KV_MOVE_OUT, NULL },
    { "move_in", LATHE_KV_MOVE_IN, NULL }, { "drop", LATHE_KV_DROP, NULL }, { NULL, 0, NULL },
};
static const struct payload_field lathe_kv_op_fields[] = {
    SHOWN(lathe_kv_op, kind, CHOICE, .names = kv_op_kinds, HELP("what to do")),
    SHOWN(lathe_kv_op, from, I32, ABSENT(0), HELP("block: copy, move_out")),
    SHOWN(lathe_kv_op, to, I32, ABSENT(0), HELP("block: copy, move_in")),
    SHOWN(lathe_kv_op, tokens, U32, ABSENT(0), HELP("positions to copy")),
    SHOWN(lathe_kv_op, handle, U64, ABSENT(0), HELP("number of a swapped block: move_out, move_in, drop")),
};
STRUCT(lathe_kv_op, NULL);

static const struct payload_name probe_format_names[] = {
    { "summary", LATHE_PROBE_SUMMARY, NULL }, { "top", LATHE_PROBE_TOP, NULL }, { "full", LATHE_PROBE_FULL, NULL },
    { "scores", LATHE_PROBE_SCORES, NULL },   { "values", LATHE_PROBE_VALUES, NULL },
    { "norms", LATHE_PROBE_NORMS, NULL },     { "lens", LATHE_PROBE_LENS, NULL },
    { "hidden", LATHE_PROBE_HIDDEN, NULL },   { NULL, 0, NULL },
};
static const struct payload_field lathe_probe_fields[] = {
    HIDDEN(lathe_probe, id, NUMBER),
    SHOWN(lathe_probe, format, CHOICE, .names = probe_format_names, ABSENT(LATHE_PROBE_SUMMARY),
          HELP("how much of each head's row, or of each layer")),
    SHOWN(lathe_probe, top_k, U32, .min = 1, .max = 1024, ABSENT(8), HELP("top: so many of the heaviest keys; lens: of the likeliest tokens")),
    SHOWN(lathe_probe, recent_window, U32, ABSENT(32), HELP("summary: recent_mass is over the last so many keys")),
    SHOWN(lathe_probe, first_position, I32, .min = 0, .max = INT32_MAX, ABSENT(0),
          HELP("first query position, absolute")),
    SHOWN(lathe_probe, last_position, I32, .min = -1, .max = INT32_MAX, ABSENT(-1),
          HELP("last, inclusive; -1: to the end")),
    SHOWN(lathe_probe, every, U32, .min = 1, .max = UINT32_MAX, ABSENT(1),
          HELP("every n-th position from the first")),
    HIDDEN(lathe_probe, width, RESERVED),
    SHOWN(lathe_probe, layers, MASK, .link = "layers", .flags = PAYLOAD_OPTIONAL, HELP("from 0; absent: all")),
    SHOWN(lathe_probe, heads, MASK, .link = "heads", .flags = PAYLOAD_OPTIONAL, HELP("from 0; absent: all")),
};
STRUCT(lathe_probe, payload_finish_probe);

static const struct payload_name intervention_kinds[] = {
    { "head_scale", LATHE_HEAD_SCALE, NULL },     { "head_set", LATHE_HEAD_SET, NULL },
    { "head_uniform", LATHE_HEAD_UNIFORM, NULL }, { "keys_drop", LATHE_KEYS_DROP, NULL },
    { "keys_keep", LATHE_KEYS_KEEP, NULL },       { "attention_scale", LATHE_ATTENTION_SCALE, NULL },
    { "mlp_scale", LATHE_MLP_SCALE, NULL },       { "patch", LATHE_PATCH, NULL },
    { NULL, 0, NULL },
};
static const struct payload_field lathe_intervention_fields[] = {
    SHOWN(lathe_intervention, kind, CHOICE, .names = intervention_kinds, HELP("what is changed")),
    SHOWN(lathe_intervention, factor, F32, ABSENT(0), HELP("head_scale, attention_scale, mlp_scale: 0 removes it")),
    SHOWN(lathe_intervention, first_position, I32, .min = 0, .max = INT32_MAX, ABSENT(0),
          HELP("first query position that it holds for, absolute")),
    SHOWN(lathe_intervention, last_position, I32, .min = -1, .max = INT32_MAX, ABSENT(-1),
          HELP("last, inclusive; -1: to the end (not of patch)")),
    RANGE(lathe_intervention, "values", float_first, float_count, .element = PAYLOAD_F32, .link = "intervention_floats",
          .flags = PAYLOAD_OPTIONAL, HELP("head_set: head_width of them; patch: embedding_width a position")),
    RANGE(lathe_intervention, "keys", key_first, key_count, .element = PAYLOAD_I32, .link = "intervention_keys",
          .flags = PAYLOAD_OPTIONAL, HELP("keys_drop, keys_keep: positions, ascending")),
    SHOWN(lathe_intervention, layers, MASK, .link = "layers", .flags = PAYLOAD_OPTIONAL, HELP("from 0; absent: all")),
    SHOWN(lathe_intervention, heads, MASK, .link = "heads", .flags = PAYLOAD_OPTIONAL, HELP("from 0; absent: all")),
};
STRUCT(lathe_intervention, NULL);

static const struct payload_name slice_flags[] = {
    { "padding", LATHE_SLICE_PADDING, "rows are computed and thrown away; no blocks, no outputs" },
    { "logits", LATHE_SLICE_LOGITS, "output rows give logits" },
    { "hidden", LATHE_SLICE_HIDDEN, "output rows give the final hidden state" },
    { "cache_positions", LATHE_SLICE_CACHE_POSITIONS, "rotary positions count what a row sees" },
    { "key_mass", LATHE_SLICE_KEY_MASS, "the reply's masses have its keys' weights" },
    { NULL, 0, NULL },
};
static const struct payload_field lathe_slice_fields[] = {
    SHOWN(lathe_slice, request, U64, ABSENT(0), HELP("whose rows these are")),
    INLINE(lathe_slice, flags, FLAGS, .names = slice_flags),
    SHOWN(lathe_slice, first_position, I32, .min = 0, .max = INT32_MAX, ABSENT(0),
          HELP("of its first row, absolute")),
    RANGE(lathe_slice, "tokens", token_first, token_count, .element = PAYLOAD_I32, .link = "tokens",
          HELP("the rows, in order")),
    RANGE(lathe_slice, "blocks", block_first, block_count, .element = PAYLOAD_I32, .link = "blocks",
          .flags = PAYLOAD_OPTIONAL,
          HELP("its block table: position p lies in blocks[p / block_tokens]; needed unless it is padding")),
    RANGE(lathe_slice, "outputs", output_first, output_count, .element = PAYLOAD_U32, .link = "outputs",
          .flags = PAYLOAD_OPTIONAL,
          HELP("rows of the slice, from 0, ascending; none: the last, if logits or hidden is set")),
    RANGE(lathe_slice, "kept", kept_first, kept_count, .element = PAYLOAD_I32, .link = "kept",
          .flags = PAYLOAD_OPTIONAL, HELP("positions that may be looked at, ascending; none: all")),
    SHOWN(lathe_slice, probe, PLACE, .of = &describes_lathe_probe, .link = "probes", .flags = PAYLOAD_OPTIONAL,
          HELP("what to record of its attention; absent: nothing")),
    SHOWN(lathe_slice, adapter, I32, ABSENT(-1), HELP("-1: none")),
    HIDDEN(lathe_slice, probe_count, RESERVED), /* 0 is 1 */
    RESERVED(lathe_slice),
    SHOWN(lathe_slice, interventions, MASK, .link = "interventions", .max = LATHE_MAX_INTERVENTIONS - 1,
          .flags = PAYLOAD_OPTIONAL, HELP("of the message's, those that hold for it, from 0; absent: all")),
};
STRUCT(lathe_slice, payload_finish_slice);

static const struct payload_field lathe_forward_in_fields[] = {
    HEAD(lathe_forward_in),
    SHOWN(lathe_forward_in, step, U64, ABSENT(0), HELP("the step's number, for the model's own figures")),
    SHOWN(lathe_forward_in, interventions, SPAN, .of = &describes_lathe_intervention, .flags = PAYLOAD_OPTIONAL,
          HELP("what is changed, in order; at most 64")),
    SHOWN(lathe_forward_in, kv_ops, SPAN, .of = &describes_lathe_kv_op, .flags = PAYLOAD_OPTIONAL,
          HELP("done first, in order")),
    SHOWN(lathe_forward_in, slices, SPAN, .of = &describes_lathe_slice, HELP("rows of one request each")),
    HIDDEN(lathe_forward_in, tokens, GATHERED, .element = PAYLOAD_I32),
    HIDDEN(lathe_forward_in, blocks, GATHERED, .element = PAYLOAD_I32),
    HIDDEN(lathe_forward_in, outputs, GATHERED, .element = PAYLOAD_U32),
    HIDDEN(lathe_forward_in, kept, GATHERED, .element = PAYLOAD_I32),
    HIDDEN(lathe_forward_in, probes, GATHERED, .of = &describes_lathe_probe),
    HIDDEN(lathe_forward_in, intervention_floats, GATHERED, .element = PAYLOAD_F32),
    HIDDEN(lathe_forward_in, intervention_keys, GATHERED, .element = PAYLOAD_I32),
};
STRUCT(lathe_forward_in, NULL);

static const struct payload_field lathe_picked_fields[] = {
    SHOWN(lathe_picked, token, I32, HELP("the model's own choice")),
    SHOWN(lathe_picked, logprob, F32, HELP("natural logarithm; NaN: it can't tell")),
};
STRUCT(lathe_picked, NULL);

static const struct payload_field lathe_forward_out_fields[] = {
    HEAD(lathe_forward_out),
    SHOWN(lathe_forward_out, logits, ROWS, .link = "logits_rows", HELP("of the output rows asked for, slices' order")),
    SHOWN(lathe_forward_out, hidden, ROWS, .link = "hidden_rows", HELP("final hidden states, the same way")),
    SHOWN(lathe_forward_out, attention, ATTENTION, .link = "attention_bytes",
          HELP("{ request, position, keys, format, heads = { { layer, head, … } } } for each probed row; of the formats "
               "of layers, layers = { { layer, … } }")),
    HIDDEN(lathe_forward_out, logits_rows, COUNT),
    HIDDEN(lathe_forward_out, hidden_rows, COUNT),
    HIDDEN(lathe_forward_out, attention_bytes, COUNT),
    SHOWN(lathe_forward_out, duration_ns, I64, HELP("of a model that tells its time: how long this forward takes")),
    SHOWN(lathe_forward_out, picked, SPAN, .of = &describes_lathe_picked,
          HELP("tokens that the model picked itself, an output row each")),
    SHOWN(lathe_forward_out, masses, MASSES, .link = "mass_bytes",
          HELP("{ request, keys, masses = { a list a set } } for each slice with key_mass")),
    HIDDEN(lathe_forward_out, mass_bytes, COUNT),
};
STRUCT(lathe_forward_out, NULL);

/* ── sampler ───────────────────────────────────────────────────────────────────────── */

static const struct payload_field lathe_sampling_fields[] = {
    SHOWN(lathe_sampling, temperature, F32, .min = 0, .max = 100, ABSENT(1), HELP("0 is greedy")),
    SHOWN(lathe_sampling, top_p, F32, .min = 0, .max = 1, .flags = PAYLOAD_OPTIONAL | PAYLOAD_ABOVE_MIN, .absent = 1,
          HELP("1: off")),
    SHOWN(lathe_sampling, min_p, F32, .min = 0, .max = 1, .flags = PAYLOAD_OPTIONAL | PAYLOAD_BELOW_MAX,
          HELP("drop below min_p times the largest; 0: off")),
    SHOWN(lathe_sampling, top_k, I32, .min = 0, .max = INT32_MAX, ABSENT(0), HELP("0: off")),
    SHOWN(lathe_sampling, repetition_penalty, F32, .min = 0, .max = 100,
          .flags = PAYLOAD_OPTIONAL | PAYLOAD_ABOVE_MIN, .absent = 1, HELP("1: off")),
    SHOWN(lathe_sampling, presence_penalty, F32, .min = -2, .max = 2, ABSENT(0),
          HELP("subtracted once if it occurred")),
    SHOWN(lathe_sampling, frequency_penalty, F32, .min = -2, .max = 2, ABSENT(0),
          HELP("subtracted for each occurrence")),
    RESERVED(lathe_sampling),
    SHOWN(lathe_sampling, seed, U64, ABSENT(0), HELP("of this request")),
};
STRUCT(lathe_sampling, NULL);

static const struct payload_field lathe_sample_row_fields[] = {
    SHOWN(lathe_sample_row, request, U64, ABSENT(0), HELP("whose token this will be")),
    SHOWN(lathe_sample_row, output_index, U32, ABSENT(0), HELP("which of its outputs, from 0: a draw depends on it")),
    SHOWN(lathe_sample_row, logits_row, U32, .flags = PAYLOAD_OPTIONAL | PAYLOAD_ABSENT_INDEX,
          HELP("of logits, from 0; absent: the row's own number")),
    RANGE(lathe_sample_row, "history", history_first, history_count, .element = PAYLOAD_I32, .link = "history",
          .flags = PAYLOAD_OPTIONAL, HELP("ids of prompt and output so far: what penalties see")),
    SHOWN(lathe_sample_row, prompt_count, U32, .flags = PAYLOAD_OPTIONAL | PAYLOAD_ABSENT_COUNT, .link = "history",
          HELP("how many of the history are prompt; absent: all")),
    SHOWN(lathe_sample_row, banned_count, U32, ABSENT(0), HELP("how many of stops may not be chosen")),
    SHOWN(lathe_sample_row, sampling, STRUCT, .of = &describes_lathe_sampling, .flags = PAYLOAD_OPTIONAL,
          HELP("the request's wishes; absent: the model's own distribution")),
    SHOWN(lathe_sample_row, is_forced, BOOLEAN, ABSENT(0), HELP("the token is `forced`, whatever the logits say")),
    SHOWN(lathe_sample_row, forced, I32, ABSENT(0), HELP("with is_forced: the token")),
};
STRUCT(lathe_sample_row, NULL);

static const struct payload_field lathe_sample_in_fields[] = {
    HEAD(lathe_sample_in),
    HIDDEN(lathe_sample_in, vocab_tokens, WIDTH, .link = "logits"),
    RESERVED(lathe_sample_in),
    SHOWN(lathe_sample_in, logits, ROWS, HELP("vocab_tokens numbers a row, as model.forward gives them")),
    SHOWN(lathe_sample_in, rows, SPAN, .of = &describes_lathe_sample_row, HELP("one for each token to choose")),
    HIDDEN(lathe_sample_in, history, INTEGERS, .element = PAYLOAD_I32),
    SHOWN(lathe_sample_in, stops, SPAN, .element = PAYLOAD_I32, .flags = PAYLOAD_OPTIONAL,
          HELP("ids that a row may ban")),
};
STRUCT(lathe_sample_in, NULL);

static const struct payload_field lathe_sampled_fields[] = {
    SHOWN(lathe_sampled, token, I32, HELP("the id")),
    SHOWN(lathe_sampled, logprob, F32, HELP("nats, of the model's own distribution")),
};
STRUCT(lathe_sampled, NULL);

static const struct payload_field lathe_sample_out_fields[] = {
    HEAD(lathe_sample_out),
    SHOWN(lathe_sample_out, sampled, SPAN, .of = &describes_lathe_sampled, HELP("one a row")),
};
STRUCT(lathe_sample_out, NULL);

/* ── the host's own ────────────────────────────────────────────────────────────────── */

static const struct payload_field local_request_in_fields[] = {
    HEAD(local_request_in),
    SHOWN(local_request_in, request, U64, HELP("the run's number for it: 1, 2, …")),
};
STRUCT(local_request_in, NULL);

static const struct payload_name request_states[] = {
    { "waiting", LATHE_REQUEST_WAITING, NULL },   { "running", LATHE_REQUEST_RUNNING, NULL },
    { "preempted", LATHE_REQUEST_PREEMPTED, NULL }, { "swapped", LATHE_REQUEST_SWAPPED, NULL },
    { "finished", LATHE_REQUEST_FINISHED, NULL }, { NULL, 0, NULL },
};
static const struct payload_name ranked_flags[] = {
    { "waiting", LOCAL_RANKED_WAITING, "has no place yet, or lost it" },
    { "running", LOCAL_RANKED_RUNNING, "has a place and KV" },
    { "decoding", LOCAL_RANKED_DECODING, "all but its newest token is in KV" },
    { NULL, 0, NULL },
};
static const struct payload_field local_ranked_fields[] = {
    SHOWN(local_ranked, request, U64, HELP("the run's number for it")),
    SHOWN(local_ranked, state, CHOICE, .names = request_states, HELP("where it is in its life")),
    INLINE(local_ranked, flags, FLAGS, .names = ranked_flags),
    SHOWN(local_ranked, priority, I32, HELP("larger goes first")),
    SHOWN(local_ranked, pending_tokens, U32, HELP("known, not yet in KV")),
};
STRUCT(local_ranked, NULL);

static const struct payload_field local_rank_out_fields[] = {
    HEAD(local_rank_out),
    HIDDEN(local_rank_out, needed, NEEDED, .each = 1),
    SHOWN(local_rank_out, wake_ns, I64,
          HELP("when to ask again if nothing is ranked; the largest: on the next event")),
    SHOWN(local_rank_out, ranked, SPAN, .of = &describes_local_ranked, HELP("who may run now, best first")),
    SHOWN(local_rank_out, preempt, SPAN, .element = PAYLOAD_U64,
          HELP("numbers of requests that would lose their place")),
};
STRUCT(local_rank_out, NULL);

static const struct payload_field local_explain_out_fields[] = {
    HEAD(local_explain_out),
    HIDDEN(local_explain_out, needed, NEEDED, .each = 1),
    SHOWN(local_explain_out, text, TEXT, HELP("one line")),
};
STRUCT(local_explain_out, NULL);

static const struct payload_field lathe_kv_usage_fields[] = {
    SHOWN(lathe_kv_usage, blocks_total, U32, HELP("of the pool")),
    SHOWN(lathe_kv_usage, blocks_used, U32, HELP("referred to by a live request, shared ones once")),
    SHOWN(lathe_kv_usage, blocks_cached, U32, HELP("kept for reuse, may be evicted")),
    SHOWN(lathe_kv_usage, blocks_shared, U32, HELP("referred to by more than one")),
    SHOWN(lathe_kv_usage, reserved_tokens, U64, HELP("room given out")),
    SHOWN(lathe_kv_usage, filled_tokens, U64, HELP("of it in use")),
    SHOWN(lathe_kv_usage, evicted_blocks, U64, HELP("so far")),
    SHOWN(lathe_kv_usage, evicted_tokens, U64, HELP("positions that may no longer be looked at, so far")),
    SHOWN(lathe_kv_usage, hit_tokens, U64, HELP("of prompts: found cached, so far")),
    SHOWN(lathe_kv_usage, looked_up_tokens, U64, HELP("of prompts: looked for, so far")),
};
STRUCT(lathe_kv_usage, NULL);

static const struct payload_field local_usage_out_fields[] = {
    HEAD(local_usage_out),
    INLINE(local_usage_out, usage, STRUCT, .of = &describes_lathe_kv_usage),
    SHOWN(local_usage_out, block_tokens, U32, HELP("positions of a block")),
    RESERVED(local_usage_out),
};
STRUCT(local_usage_out, NULL);

static const struct payload_field local_table_out_fields[] = {
    HEAD(local_table_out),
    HIDDEN(local_table_out, needed, NEEDED, .each = 1),
    SHOWN(local_table_out, computed_tokens, U32, HELP("positions whose KV is valid")),
    SHOWN(local_table_out, block_tokens, U32, HELP("positions of a block")),
    SHOWN(local_table_out, blocks, SPAN, .element = PAYLOAD_I32,
          HELP("its block table; -1: nothing of that block is kept")),
};
STRUCT(local_table_out, NULL);

/* ── methods ───────────────────────────────────────────────────────────────────────── */

#define METHOD(service, method, from, to, measure, help, example) \
    { #service, #method, help, example, &describes_##from, &describes_##to, measure }

static const struct payload payloads[] = {
    METHOD(tokenizer, describe, lathe_empty, lathe_tokenizer_info, NULL, "what its vocabulary is like",
           "engine:call(\"tokenizer\", \"describe\").vocab_tokens"),
    METHOD(tokenizer, encode, lathe_encode_in, lathe_encode_out, NULL, "text to token ids",
           "engine:call(\"tokenizer\", \"encode\", { text = \"Hello\", bos = true }).tokens"),
    METHOD(tokenizer, decode, lathe_decode_in, lathe_decode_out, NULL, "token ids to text",
           "engine:call(\"tokenizer\", \"decode\", { tokens = { 72, 105 }, flush = true }).text"),
    METHOD(tokenizer, apply_template, lathe_template_in, lathe_template_out, NULL, "chat messages to prompt text",
           "engine:call(\"tokenizer\", \"apply_template\", "
           "{ messages = { { role = \"user\", content = \"Hi\" } } }).text"),
    METHOD(model, describe, lathe_empty, lathe_model_info, NULL, "what it is: layers, widths, bytes",
           "engine:call(\"model\", \"describe\").layers"),
    METHOD(model, forward, lathe_forward_in, lathe_forward_out, payload_measure_forward, "tokens in, logits out",
           "engine:call(\"model\", \"forward\", "
           "{ slices = { { tokens = { 72, 105 }, blocks = { 0 }, logits = true } } }).logits[1]"),
    METHOD(sampler, sample, lathe_sample_in, lathe_sample_out, NULL, "which token of those?",
           "engine:call(\"sampler\", \"sample\", "
           "{ logits = forward.logits, rows = { { request = 1 } } }).sampled[1].token"),
    METHOD(scheduler, rank, lathe_empty, local_rank_out, NULL,
           "who goes next, and who would be preempted; changes nothing",
           "engine:call(\"scheduler\", \"rank\").ranked[1].request"),
    METHOD(scheduler, explain, local_request_in, local_explain_out, NULL,
           "why is this request where it is in the ranking?",
           "engine:call(\"scheduler\", \"explain\", { request = 1 }).text"),
    METHOD(memory, usage, lathe_empty, local_usage_out, NULL, "how full is the KV pool?",
           "engine:call(\"memory\", \"usage\").blocks_used"),
    METHOD(memory, table, local_request_in, local_table_out, NULL,
           "which blocks hold this request's keys and values?",
           "engine:call(\"memory\", \"table\", { request = 1 }).blocks"),
};

const struct payload *payload_all(size_t *count)
{
    *count = sizeof payloads / sizeof *payloads;
    return payloads;
}
