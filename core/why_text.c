/* SPDX-License-Identifier: MIT */
/* The paragraph: what it is about, what made the difference, the parts, the heads, and what was not recorded. */
#include "why.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* Three figures, in the unit that suits them. */
static const char *duration(double ns, char text[32])
{
    static const struct { double ns; const char *unit; } units[] = { { 1e9, "s" }, { 1e6, "ms" }, { 1e3, "µs" }, { 1, "ns" } };
    size_t i = 0;
    while (i < 3 && fabs(ns) < 0.9995 * units[i].ns)
        i++;
    double value = ns / units[i].ns;
    snprintf(text, 32, "%.*f %s", fabs(value) < 9.995 && i < 3 ? 2 : fabs(value) < 99.95 && i < 3 ? 1 : 0, value, units[i].unit);
    return text;
}

static const char *plural(double count, const char *one, const char *many)
{
    return count > 0.5 && count < 1.5 ? one : many;
}

/* Text of a token, quoted, without what would disturb a terminal. */
static void token_text(struct text *out, const char *token)
{
    text_print(out, " (\"");
    for (const char *c = token; *c; c++) {
        if (*c == '\n')
            text_print(out, "\\n");
        else if ((unsigned char)*c < ' ' || *c == 0x7f)
            text_print(out, "\\x%02x", (unsigned)(unsigned char)*c);
        else
            text_add(out, c, 1);
    }
    text_print(out, "\")");
}

static void say_run(const struct why *w, struct text *out)
{
    text_print(out, "run %" PRId64, w->run);
    if (w->label[0])
        token_text(out, w->label);
    text_print(out, w->is_virtual ? ", by the virtual clock," : w->chosen ? "" : ",");
}

/* "1.21 s, 2.1 times the median of 812" */
static void say_rank(const struct why *w, const char *many, struct text *out)
{
    char a[32], b[32];
    double took = w->to_ns - w->from_ns;
    text_print(out, "%s", duration(took, a));
    if (w->population < 2 || isnan(w->typical_ns)) {
        text_print(out, "; it is the only one there is");
        return;
    }
    text_print(out, "; the median of the run's %.0f %s is %s", w->population, many, duration(w->typical_ns, b));
    if (w->typical_ns > 0)
        text_print(out, " (%.*f times as long)", took < 9.95 * w->typical_ns ? 2 : 0, took / w->typical_ns);
    if (!w->chosen)
        text_print(out, w->as_slow > 1 ? ", and %.0f of them took as long or longer" : ", and none took longer", w->as_slow);
}

static void say_subject(const struct why *w, struct text *out)
{
    switch (w->subject) {
    case WHY_GAP:
    case WHY_FIRST:
        text_print(out, w->chosen ? "The slowest token of " : "In ");
        say_run(w, out);
        text_print(out, w->chosen ? " is the one at position %" PRId64 " of request %" PRId64 : " the token at position %" PRId64 " of request %" PRId64, w->position, w->request);
        if (w->token[0])
            token_text(out, w->token);
        text_print(out, w->subject == WHY_GAP ? "%s came after a gap of " : "%s, the first of its answer, came after ", w->chosen ? ": it" : "");
        say_rank(w, w->subject == WHY_GAP ? "gaps" : "first tokens", out);
        break;
    case WHY_REQUEST:
        text_print(out, w->chosen ? "The slowest request of " : "In ");
        say_run(w, out);
        text_print(out, w->chosen ? " is %" PRId64 ": it" : " request %" PRId64, w->request);
        text_print(out, " (%.0f tokens of prompt, %.0f of answer, %s) took ", w->prompt_tokens, w->output_tokens, w->reason[0] ? w->reason : "not ended");
        say_rank(w, "requests", out);
        break;
    case WHY_STEP:
        text_print(out, w->chosen ? "The slowest step of " : "In ");
        say_run(w, out);
        text_print(out, w->chosen ? " is %" PRId64 ": on replica %" PRId64 " it took " : " step %" PRId64 " on replica %" PRId64 " took ", w->step, w->replica);
        say_rank(w, "steps", out);
    }
    text_print(out, ".");
}

/* "request 9 (512 tokens, joined in this step), request 11 (…) and 3 more" */
static void say_members(const struct why_member *list, size_t count, double all, bool in_step, bool prefill_only, struct text *out)
{
    size_t said = 0;
    for (size_t i = 0; i < count; i++) {
        if (prefill_only && !list[i].prefill)
            continue;
        text_print(out, "%srequest %" PRId64 " (%.0f %s%s)", said ? ", " : "", list[i].request, list[i].tokens, plural(list[i].tokens, "token", "tokens"),
                   in_step && list[i].joined ? ", new in this step" : "");
        said++;
    }
    if (!prefill_only && all > (double)said)
        text_print(out, " and %.0f more", all - (double)said);
}

static void say_step(const struct why *w, struct text *out)
{
    const struct why_step *s = &w->decisive;
    char a[32];
    if (s->id == 0)
        return;
    if (w->subject == WHY_STEP)
        text_print(out, " In it %s ", plural(s->requests, "was", "were"));
    else if (w->steps == 1)
        text_print(out, " It was made in step %" PRId64 " of replica %" PRId64 " (%s), in which %s ", s->id, w->replica, duration(s->took_ns, a), plural(s->requests, "was", "were"));
    else
        text_print(out, " It took part in %" PRId64 " steps of replica %" PRId64 "; in the longest, step %" PRId64 " (%s), %s ", w->steps, w->replica, s->id, duration(s->took_ns, a), plural(s->requests, "was", "were"));
    text_print(out, "%.0f %s: %.0f %s of prompts and %.0f of answers", s->requests, plural(s->requests, "request", "requests"), s->prefill_tokens,
               plural(s->prefill_tokens, "token", "tokens"), s->decode_tokens);
    if (w->subject == WHY_GAP && w->has_members && s->prefill_tokens > w->others_prefill)
        text_print(out, ", %.0f of them its own, computed again after it was preempted", s->prefill_tokens - w->others_prefill);
    text_print(out, ".");
}

/* Whether `x` outgrew what is usual far enough to speak for the forward: its excess is at least `share` of the forward's. */
static bool explains(const struct why *w, double x, double usual, double share)
{
    double forward = w->subject == WHY_REQUEST || !(w->parts[WHY_FORWARD].typical_ns > 0) ? 1 : w->decisive.forward_ns / w->parts[WHY_FORWARD].typical_ns;
    return x > 1.2 * usual && (usual <= 0 || x / usual - 1 >= share * (forward - 1));
}

/* Why the forward was long: the work in the step, against that of usual ones. Tokens of a prefill cost less than those of
 * answers, and a token looked back at less still. */
static void say_forward(const struct why *w, struct text *out)
{
    const struct why_step *s = &w->decisive;
    double usual = isnan(w->typical_prefill) ? 0 : w->typical_prefill, own = s->prefill_tokens - w->others_prefill;
    bool prefills = explains(w, s->prefill_tokens + s->decode_tokens, usual + w->typical_decode, 0.25);
    if (prefills && w->has_members && w->others_prefill > usual && w->others_prefill > own) {
        text_print(out, "%s shared the forward: ", w->joined_prefill > 0 ? "a prefill that joined" : "a prefill that was under way");
        say_members(w->company, w->company_count, 0, true, true, out);
        text_print(out, w->others_prefill >= 2 * (own + s->decode_tokens) ? ", most of what was computed" : "");
    } else if (prefills && w->subject != WHY_STEP && own > usual) {
        text_print(out, "its own prompt: %.0f tokens of it were computed in the longest step, where %.0f are usual", own, usual);
    } else if (prefills && s->prefill_tokens > 1.2 * usual) {
        text_print(out, "a prefill: %.0f tokens of prompts were computed in the step, where %.0f are usual", s->prefill_tokens, usual);
    } else if (w->subject == WHY_REQUEST && w->steps > 1) {
        text_print(out, "the model: its %" PRId64 " steps were forwards for the most part", w->steps);
    } else if (explains(w, s->decode_tokens, w->typical_decode, 0.25)) {
        text_print(out, "a larger batch: %.0f requests decoded in the step, where %.0f are usual", s->decode_tokens, w->typical_decode);
    } else if (explains(w, s->context, w->typical_context, 1)) {
        text_print(out, "longer contexts: %.0f tokens were looked back at in the step, where %.0f are usual", s->context, w->typical_context);
    } else {
        text_print(out, "the forward itself: the work in the step was hardly more than usual, so the model or the machine was slower at that moment");
    }
}

static void say_meanwhile(const struct why *w, const char *none, struct text *out)
{
    if (w->meanwhile_count == 0) {
        text_print(out, "%s", none);
        return;
    }
    text_print(out, "; replica %" PRId64 " served meanwhile ", w->replica);
    say_members(w->meanwhile, w->meanwhile_count, w->meanwhile_requests, false, false, out);
}

static void say_cause(const struct why *w, struct text *out)
{
    char a[32], b[32];
    if (!w->has_steps) {
        if (!w->unusual)
            return;
    } else if (!w->unusual) {
        text_print(out, " Nothing in it took longer than usual.");
        return;
    }
    const struct why_figure *part = &w->parts[w->cause];
    text_print(out, " What made the difference is ");
    switch (w->cause) {
    case WHY_FORWARD: say_forward(w, out); break;
    case WHY_WAITING:
        text_print(out, "waiting: it stood in the queue until it was admitted");
        say_meanwhile(w, "", out);
        break;
    case WHY_PREEMPTED:
    case WHY_SWAPPED:
        text_print(out, "%s", w->cause == WHY_SWAPPED ? "preemption: it was swapped out" : "preemption: it was put back among the waiting");
        if (w->preempted_for[0])
            text_print(out, ", because: %s", w->preempted_for);
        say_meanwhile(w, "", out);
        break;
    case WHY_OTHERS:
        text_print(out, "that steps went on without it, though it ran");
        say_meanwhile(w, "", out);
        break;
    case WHY_SCHEDULE: text_print(out, "the scheduler: ranking and filling the batch, with %.0f %s waiting", w->decisive.waiting, plural(w->decisive.waiting, "request", "requests")); break;
    case WHY_RESERVE: text_print(out, "finding KV blocks, with %.0f of %.0f in use", w->decisive.kv_used, w->decisive.kv_total); break;
    case WHY_SAMPLE: text_print(out, "the sampler"); break;
    case WHY_BUS: text_print(out, "the bus: the engine waited for its calls to get to the worker and back, while the worker itself was no slower"); break;
    default: text_print(out, "time between and beside its steps, in which none of its work was under way"); break;
    }
    text_print(out, " (%s, usually %s).", duration(part->ns, a), duration(isnan(part->typical_ns) ? 0 : part->typical_ns, b));
}

static void say_parts(const struct why *w, struct text *out)
{
    static const char *const words[WHY_PARTS] = { "waiting", "being preempted", "being swapped out", "steps without it", "scheduling", "reserving KV blocks", "the forward", "sampling", "the bus", "the rest" };
    bool used[WHY_PARTS] = { false };
    double all = w->to_ns - w->from_ns;
    char a[32], b[32];
    bool said = false;
    text_print(out, " Of the %s, ", duration(all, a));
    for (;;) { /* the largest first; what is below a thousandth is not said */
        int best = -1;
        for (int i = 0; i < WHY_PARTS; i++)
            if (!used[i] && w->parts[i].ns > all / 1000 && (best < 0 || w->parts[i].ns > w->parts[best].ns))
                best = i;
        if (best < 0)
            break;
        used[best] = true;
        text_print(out, "%s%s%s %s", said ? ", " : "", words[best], said ? "" : " took", duration(w->parts[best].ns, a));
        said = true;
        if (w->parts[best].typical_ns > 0)
            text_print(out, " (usually %s)", duration(w->parts[best].typical_ns, b));
    }
    text_print(out, ".");
}

static void say_heads(const struct why *w, struct text *out)
{
    if (!w->traced_here || isnan(w->heads_traced))
        return;
    if (w->subject == WHY_GAP || w->subject == WHY_FIRST)
        text_print(out, " The query that predicted it, at position %" PRId64 ", was", w->position - 1);
    else
        text_print(out, w->subject == WHY_REQUEST ? " The queries of its answer were" : " The queries in it were");
    text_print(out, " traced in %.0f %s", w->heads_traced, plural(w->heads_traced, "head", "heads"));
    if (!isnan(w->first_mass)) {
        text_print(out, ": %.2f of the weight lay on the first token", w->first_mass);
        if (!isnan(w->usual_first_mass))
            text_print(out, " (%.2f over the request)", w->usual_first_mass);
    }
    if (!isnan(w->entropy)) {
        text_print(out, "%s the entropy was %.2f nats", isnan(w->first_mass) ? ":" : ",", w->entropy);
        if (!isnan(w->usual_entropy))
            text_print(out, " (%.2f)", w->usual_entropy);
    }
    for (size_t i = 0; i < w->head_count; i++) {
        const struct why_head *h = &w->heads[i];
        text_print(out, i == 0 ? "; beyond the first token most went from layer %d head %d to position %" PRId64 : ", from layer %d head %d to position %" PRId64, h->layer, h->head, h->key);
        if (h->text[0])
            token_text(out, h->text);
        text_print(out, " with %.2f", h->weight);
    }
    text_print(out, ".");
}

/* What would have said more. */
static void say_missing(const struct why *w, struct text *out)
{
    if (!w->has_steps)
        text_print(out, " Steps were not recorded, so that nothing is known of what took the time; trace = { rows = \"step_requests\" } in lathe.run records them and who was in them.");
    else if (!w->has_members)
        text_print(out, " Who was in the steps was not recorded; trace = { rows = \"step_requests\" } does.");
    if (w->has_steps && !w->has_hops && !w->is_virtual)
        text_print(out, " Calls over the bus were not recorded, so that the forward and sampling hold the bus as well; trace = { hops = true } does.");
    if (!w->traced && !w->is_virtual)
        text_print(out, " What the heads saw was not recorded; trace = { attention = \"summary\" } does.");
    else if (w->traced && !w->traced_here)
        text_print(out, " Heads were traced in this run, but not at these positions.");
}

void why_text(const struct why *w, struct text *out)
{
    char note[320];
    say_subject(w, out);
    say_step(w, out);
    say_cause(w, out);
    if (w->has_steps)
        say_parts(w, out);
    for (size_t i = 0; i < w->told_count; i++) {
        snprintf(note, sizeof note, "%s", w->told[i]);
        size_t length = strlen(note);
        while (length && (note[length - 1] == '.' || note[length - 1] == '\n'))
            note[--length] = '\0';
        text_print(out, "%s%s%s", i == 0 ? " Meanwhile the run was told: " : "; ", note, i + 1 == w->told_count ? "." : "");
    }
    say_heads(w, out);
    say_missing(w, out);
}
