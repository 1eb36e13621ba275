/* SPDX-License-Identifier: MIT */
/* What `lathe why --json` prints: the figures behind the paragraph, and the paragraph. Times are nanoseconds, null where
 * nothing was recorded. */
#include "why.h"

#include <math.h>
#include <string.h>

const char *const why_part_words[WHY_PARTS] = { "waiting", "preempted", "swapped", "other_steps", "schedule", "reserve", "forward", "sample", "bus", "between" };

static void key(struct text *out, const char *name)
{
    char last = out->count ? out->bytes[out->count - 1] : '{';
    if (last != '{' && last != '[')
        text_add(out, ",", 1);
    if (name)
        text_print(out, "\"%s\":", name);
}

static void number(struct text *out, const char *name, double value)
{
    key(out, name);
    text_json_number(out, value);
}

static void string(struct text *out, const char *name, const char *value)
{
    key(out, name);
    text_json(out, value && *value ? value : NULL);
}

static void boolean(struct text *out, const char *name, bool value)
{
    key(out, name);
    text_print(out, value ? "true" : "false");
}

static void open(struct text *out, const char *name, const char *bracket)
{
    key(out, name);
    text_add(out, bracket, 1);
}

static void close(struct text *out, const char *bracket)
{
    text_add(out, bracket, 1);
}

static void members(struct text *out, const char *name, const struct why_member *list, size_t count, bool in_step)
{
    open(out, name, "[");
    for (size_t i = 0; i < count; i++) {
        open(out, NULL, "{");
        number(out, "request", (double)list[i].request);
        number(out, "tokens", list[i].tokens);
        if (in_step) {
            string(out, "phase", list[i].prefill ? "prefill" : "decode");
            number(out, "context", list[i].context);
            boolean(out, "joined", list[i].joined);
        }
        close(out, "}");
    }
    close(out, "]");
}

static void step(struct text *out, const struct why_step *s)
{
    const struct { const char *name; double value; } fields[] = {
        { "id", (double)s->id }, { "took_ns", s->took_ns }, { "schedule_ns", s->schedule_ns }, { "reserve_ns", s->reserve_ns }, { "forward_ns", s->forward_ns },
        { "sample_ns", s->sample_ns }, { "requests", s->requests }, { "prefill_tokens", s->prefill_tokens }, { "decode_tokens", s->decode_tokens },
        { "waiting", s->waiting }, { "kv_blocks_used", s->kv_used }, { "kv_blocks_total", s->kv_total },
    };
    open(out, "step", "{");
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        number(out, fields[i].name, fields[i].value);
    close(out, "}");
}

static void attention(struct text *out, const struct why *w)
{
    open(out, "attention", "{");
    number(out, "heads", w->heads_traced);
    number(out, "entropy", w->entropy);
    number(out, "usual_entropy", w->usual_entropy);
    number(out, "first_mass", w->first_mass);
    number(out, "usual_first_mass", w->usual_first_mass);
    open(out, "top", "[");
    for (size_t i = 0; i < w->head_count; i++) {
        open(out, NULL, "{");
        number(out, "layer", w->heads[i].layer);
        number(out, "head", w->heads[i].head);
        number(out, "weight", w->heads[i].weight);
        number(out, "key", (double)w->heads[i].key);
        string(out, "text", w->heads[i].text);
        close(out, "}");
    }
    close(out, "]");
    close(out, "}");
}

void why_json(const struct why *w, struct text *out)
{
    static const char *const subjects[] = { [WHY_GAP] = "token", [WHY_FIRST] = "first_token", [WHY_REQUEST] = "request", [WHY_STEP] = "step" };
    struct text words = { 0 };
    why_text(w, &words);
    open(out, NULL, "{");
    number(out, "run", (double)w->run);
    string(out, "label", w->label);
    string(out, "subject", subjects[w->subject]);
    boolean(out, "slowest", w->chosen);
    if (w->subject != WHY_STEP) {
        number(out, "request", (double)w->request);
        if (w->subject != WHY_REQUEST)
            number(out, "position", (double)w->position);
    }
    number(out, "replica", (double)w->replica);
    number(out, "from_ns", w->from_ns);
    number(out, "to_ns", w->to_ns);
    number(out, "took_ns", w->to_ns - w->from_ns);
    number(out, "typical_ns", w->typical_ns);
    number(out, "of", w->population);
    number(out, "as_slow", w->as_slow);
    string(out, "cause", w->unusual ? why_part_words[w->cause] : NULL);
    open(out, "parts", "{");
    for (int i = 0; i < WHY_PARTS; i++) {
        open(out, why_part_words[i], "{");
        number(out, "ns", w->parts[i].ns);
        number(out, "typical_ns", w->parts[i].typical_ns);
        close(out, "}");
    }
    close(out, "}");
    if (w->decisive.id)
        step(out, &w->decisive);
    members(out, "company", w->company, w->company_count, true);
    members(out, "meanwhile", w->meanwhile, w->meanwhile_count, false);
    open(out, "told", "[");
    for (size_t i = 0; i < w->told_count; i++)
        string(out, NULL, w->told[i]);
    close(out, "]");
    if (w->traced_here)
        attention(out, w);
    string(out, "text", words.bytes);
    text_add(out, "}\n", 2);
    out->failed |= words.failed;
    text_free(&words);
}
