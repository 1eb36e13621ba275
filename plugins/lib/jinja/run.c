/* SPDX-License-Identifier: MIT */
/* Statements. A loop's body and a macro's have a frame of their own, so what they set is gone
 * after them (a namespace is how templates carry something out); an if's has none. */
#include "internal.h"

#include <string.h>

enum flow { FLOW_ON, FLOW_BREAK, FLOW_CONTINUE };

static enum flow run(struct jinja *j, const struct node *statements);

static struct frame *push_frame(struct jinja *j, struct frame *parent)
{
    struct frame *old = j->frame;
    j->frame = jinja_alloc(j, sizeof *j->frame);
    j->frame->parent = parent;
    return old;
}

static void assign(struct jinja *j, const struct node *target, struct value v)
{
    if (target->kind == N_NAME) {
        frame_set(j, j->frame, target->name, v);
        return;
    }
    struct value of = jinja_eval(j, target->a);
    if (of.type != V_NAMESPACE)
        jinja_fail(j, LATHE_EFORMAT, "line %d: found a %s, expected a namespace to set %.*s in", target->line, value_type_name(of),
                   (int)(target->name.count < 60 ? target->name.count : 60), target->name.bytes);
    dict_set(j, of.dict, value_text(target->name), v);
}

static void assign_all(struct jinja *j, const struct node *targets, struct value v)
{
    size_t i = 0;
    if (!targets->next) {
        assign(j, targets, v);
        return;
    }
    const struct list *items = value_items(j, v);
    for (; targets; targets = targets->next, i++) {
        if (i >= items->count || (!targets->next && i + 1 != items->count))
            jinja_fail(j, LATHE_EFORMAT, "line %d: found %zu values to unpack, expected one for each name", targets->line, items->count);
        assign(j, targets, items->items[i]);
    }
}

/* The text that statements make, instead of writing it. */
static struct text capture(struct jinja *j, const struct node *statements)
{
    struct writer made = {.grows = 1}, *old = j->writer;
    j->writer = &made;
    run(j, statements);
    j->writer = old;
    return (struct text){made.bytes ? made.bytes : "", made.count};
}

/* What is left of `items` by the loop's own "if". */
static const struct list *select_items(struct jinja *j, const struct node *n, const struct list *items)
{
    if (!n->b)
        return items;
    struct value kept = value_list(j, 0);
    for (size_t i = 0; i < items->count; i++) {
        struct frame *outer = push_frame(j, j->frame);
        assign_all(j, n->children, items->items[i]);
        if (value_true(jinja_eval(j, n->b)))
            list_add(j, kept.list, items->items[i]);
        j->frame = outer;
    }
    return kept.list;
}

static enum flow run_for(struct jinja *j, const struct node *n)
{
    struct loop loop = {.items = select_items(j, n, value_items(j, jinja_eval(j, n->a))), .depth = ++j->loop_depth};
    struct value it = {.type = V_LOOP, .loop = jinja_alloc(j, sizeof *it.loop)};
    enum flow flow = FLOW_ON;
    for (size_t i = 0; i < loop.items->count && flow != FLOW_BREAK; i++) {
        struct frame *outer = push_frame(j, j->frame);
        loop.index = i;
        *it.loop = loop;
        frame_set(j, j->frame, (struct text){"loop", 4}, it);
        assign_all(j, n->children, loop.items->items[i]);
        flow = run(j, n->body);
        j->frame = outer;
    }
    j->loop_depth--;
    return loop.items->count ? FLOW_ON : run(j, n->otherwise);
}

static void run_set_block(struct jinja *j, const struct node *n)
{
    struct frame *outer = push_frame(j, j->frame);
    n->b->value = value_text(capture(j, n->body));
    j->frame = outer;
    assign_all(j, n->children, jinja_eval(j, n->a));
}

static enum flow run_one(struct jinja *j, const struct node *n)
{
    struct value v;
    switch (n->kind) {
    case N_TEXT: jinja_write(j, n->value.text); return FLOW_ON;
    case N_OUTPUT: jinja_write(j, value_string(j, jinja_eval(j, n->a))); return FLOW_ON;
    case N_IF: return run(j, value_true(jinja_eval(j, n->a)) ? n->body : n->otherwise);
    case N_FOR: return run_for(j, n);
    case N_SET: assign_all(j, n->children, jinja_eval(j, n->a)); return FLOW_ON;
    case N_SET_BLOCK: run_set_block(j, n); return FLOW_ON;
    case N_MACRO:
        v = (struct value){.type = V_MACRO, .macro = jinja_alloc(j, sizeof *v.macro)};
        *v.macro = (struct macro){n, j->frame};
        frame_set(j, j->frame, n->name, v);
        return FLOW_ON;
    case N_BREAK: case N_CONTINUE:
        if (!j->loop_depth)
            jinja_fail(j, LATHE_EFORMAT, "line %d: break or continue outside of a loop", n->line);
        return n->kind == N_BREAK ? FLOW_BREAK : FLOW_CONTINUE;
    case N_GROUP: return run(j, n->body);
    default: return jinja_eval(j, n), FLOW_ON;
    }
}

static enum flow run(struct jinja *j, const struct node *n)
{
    enum flow flow = FLOW_ON;
    jinja_enter(j);
    for (; n && flow == FLOW_ON; n = n->next) {
        j->line = n->line;
        jinja_charge(j, 0);
        flow = run_one(j, n);
    }
    j->depth--;
    return flow;
}

void jinja_run(struct jinja *j, const struct node *statements)
{
    run(j, statements);
}

struct value call_macro(struct jinja *j, const struct macro *macro, const struct arguments *args)
{
    const struct node *n = macro->node;
    struct frame *caller = push_frame(j, macro->frame);
    int64_t loops = j->loop_depth;
    size_t position = 0, used = 0;
    j->loop_depth = 0;
    for (const struct node *p = n->children; p; p = p->next, position++) {
        struct value v = {.type = V_UNDEFINED, .text = p->name};
        int given = position < args->positional;
        if (given)
            v = args->given[position];
        for (size_t i = args->positional; i < args->count; i++)
            if (text_equal(args->names[i], p->name)) {
                v = args->given[i];
                given = 1;
            }
        used += (size_t)given;
        if (!given && p->a)
            v = jinja_eval(j, p->a);
        frame_set(j, j->frame, p->name, v);
    }
    if (used != args->count)
        jinja_fail(j, LATHE_EFORMAT, "line %d: the macro %.*s takes other arguments than it is given", j->line,
                   (int)(n->name.count < 60 ? n->name.count : 60), n->name.bytes);
    struct value out = value_text(capture(j, n->body));
    j->loop_depth = loops;
    j->frame = caller;
    return out;
}
