/* SPDX-License-Identifier: MIT */
/* Nodes of expressions to values. Names are looked up through frames, innermost first; what isn't
 * there is undefined, which prints as nothing and fails when something is asked of it. */
#include "internal.h"

#include <math.h>
#include <string.h>

struct value *frame_find(struct frame *frame, struct text name)
{
    for (; frame; frame = frame->parent)
        for (struct binding *b = frame->bindings; b; b = b->next)
            if (text_equal(b->name, name))
                return &b->value;
    return NULL;
}

void frame_set(struct jinja *j, struct frame *frame, struct text name, struct value value)
{
    for (struct binding *b = frame->bindings; b; b = b->next)
        if (text_equal(b->name, name)) {
            b->value = value;
            return;
        }
    struct binding *b = jinja_alloc(j, sizeof *b);
    *b = (struct binding){name, value, frame->bindings};
    frame->bindings = b;
}

static struct value undefined(struct text name)
{
    return (struct value){.type = V_UNDEFINED, .text = name};
}

static void need_defined(struct jinja *j, struct value v)
{
    if (v.type == V_UNDEFINED)
        jinja_fail(j, LATHE_EFORMAT, "line %d: '%.*s' is undefined", j->line, (int)(v.text.count < 60 ? v.text.count : 60),
                   v.text.bytes ? v.text.bytes : "");
}

static struct value loop_attribute(const struct loop *l, struct text name)
{
    int64_t count = (int64_t)l->items->count, index = (int64_t)l->index;
    if (text_is(name, "index"))
        return value_int(index + 1);
    if (text_is(name, "index0"))
        return value_int(index);
    if (text_is(name, "revindex"))
        return value_int(count - index);
    if (text_is(name, "revindex0"))
        return value_int(count - index - 1);
    if (text_is(name, "first"))
        return value_bool(index == 0);
    if (text_is(name, "last"))
        return value_bool(index + 1 == count);
    if (text_is(name, "length"))
        return value_int(count);
    if (text_is(name, "depth"))
        return value_int(l->depth);
    if (text_is(name, "depth0"))
        return value_int(l->depth - 1);
    if (text_is(name, "previtem") && index > 0)
        return l->items->items[index - 1];
    if (text_is(name, "nextitem") && index + 1 < count)
        return l->items->items[index + 1];
    return undefined(name);
}

struct value value_attribute(struct jinja *j, struct value of, struct text name)
{
    need_defined(j, of);
    if (of.type == V_LOOP)
        return loop_attribute(of.loop, name);
    if (of.type == V_DICT || of.type == V_NAMESPACE) {
        struct value *found = dict_get(j, of.dict, value_text(name));
        if (found)
            return *found;
    }
    return undefined(name);
}

struct value value_item(struct jinja *j, struct value of, struct value key)
{
    need_defined(j, of);
    if (of.type == V_DICT || of.type == V_NAMESPACE) {
        struct value *found = dict_get(j, of.dict, key);
        return found ? *found : undefined(key.type == V_STRING ? key.text : (struct text){"item", 4});
    }
    if ((key.type == V_INT || key.type == V_BOOL) && (of.type == V_LIST || of.type == V_TUPLE || of.type == V_STRING)) {
        int64_t count = (int64_t)value_length(j, of), at = key.integer < 0 ? key.integer + count : key.integer;
        if (at < 0 || at >= count)
            return undefined((struct text){"item", 4});
        if (of.type == V_STRING)
            return value_text(text_slice(of.text, (size_t)at, (size_t)at + 1));
        return of.list->items[at];
    }
    return undefined(key.type == V_STRING ? key.text : (struct text){"item", 4});
}

/* One bound of a slice, as Python clips it. */
static int64_t slice_bound(struct jinja *j, const struct node *node, int64_t none, int64_t low, int64_t high, int64_t count)
{
    struct value v = node ? jinja_eval(j, node) : (struct value){.type = V_NONE};
    if (v.type == V_NONE)
        return none;
    if (v.type != V_INT && v.type != V_BOOL)
        jinja_fail(j, LATHE_EFORMAT, "line %d: a slice's bound is a %s, expected an integer", j->line, value_type_name(v));
    int64_t at = v.integer < 0 && v.integer >= -count ? v.integer + count : v.integer;
    return at < low ? low : at > high ? high : at;
}

static struct value eval_slice(struct jinja *j, const struct node *n)
{
    struct value of = jinja_eval(j, n->a);
    need_defined(j, of);
    if (of.type != V_STRING && of.type != V_LIST && of.type != V_TUPLE)
        jinja_fail(j, LATHE_EFORMAT, "line %d: a %s can't be sliced", j->line, value_type_name(of));
    int64_t count = (int64_t)value_length(j, of);
    int64_t stride = slice_bound(j, n->children, 1, -JINJA_OUTPUT_BYTES, JINJA_OUTPUT_BYTES, 0);
    if (stride == 0)
        jinja_fail(j, LATHE_EFORMAT, "line %d: a slice's step is 0", j->line);
    int64_t from = stride > 0 ? slice_bound(j, n->b, 0, 0, count, count) : slice_bound(j, n->b, count - 1, -1, count - 1, count);
    int64_t to = stride > 0 ? slice_bound(j, n->c, count, 0, count, count) : slice_bound(j, n->c, -1, -1, count - 1, count);
    if (of.type == V_STRING && stride == 1) {
        jinja_charge(j, of.text.count);
        return value_text(from < to ? text_slice(of.text, (size_t)from, (size_t)to) : (struct text){"", 0});
    }
    const struct list *items = value_items(j, of);
    struct value out = value_list(j, 0);
    for (int64_t i = from; stride > 0 ? i < to : i > to; i += stride) {
        jinja_charge(j, 0);
        list_add(j, out.list, items->items[i]);
    }
    out.type = of.type;
    if (of.type != V_STRING)
        return out;
    struct writer w = {.grows = 1};
    for (size_t i = 0; i < out.list->count; i++)
        writer_put(j, &w, out.list->items[i].text);
    return value_text((struct text){w.bytes ? w.bytes : "", w.count});
}

static _Noreturn void bad_operands(struct jinja *j, struct value a, struct value b)
{
    jinja_fail(j, LATHE_EFORMAT, "line %d: a %s and a %s can't be combined so", j->line, value_type_name(a), value_type_name(b));
}

static struct value repeat(struct jinja *j, struct value what, int64_t times)
{
    if (what.type == V_STRING) {
        struct writer w = {.grows = 1};
        for (int64_t i = 0; i < times && what.text.count; i++)
            writer_put(j, &w, what.text);
        return value_text((struct text){w.bytes ? w.bytes : "", w.count});
    }
    struct value out = value_list(j, 0);
    out.type = what.type;
    for (int64_t i = 0; i < times && what.list->count; i++)
        for (size_t k = 0; k < what.list->count; k++) {
            jinja_charge(j, 0);
            list_add(j, out.list, what.list->items[k]);
        }
    return out;
}

static struct value real(double number)
{
    return (struct value){.type = V_FLOAT, .number = number};
}

static int64_t integer_power(int64_t base, int64_t exponent, int *wraps)
{
    int64_t result = 1;
    while (exponent && !*wraps) {
        if (exponent & 1)
            *wraps = __builtin_mul_overflow(result, base, &result);
        exponent >>= 1;
        if (exponent && !*wraps)
            *wraps = __builtin_mul_overflow(base, base, &base);
    }
    return result;
}

static struct value integers(struct jinja *j, int op, int64_t a, int64_t b)
{
    int64_t r = 0;
    int wraps = 0;
    if ((op == OP_DIV || op == OP_FLOOR || op == OP_MOD) && b == 0)
        jinja_fail(j, LATHE_EFORMAT, "line %d: a division by zero", j->line);
    switch (op) {
    case OP_ADD: wraps = __builtin_add_overflow(a, b, &r); break;
    case OP_SUB: wraps = __builtin_sub_overflow(a, b, &r); break;
    case OP_MUL: wraps = __builtin_mul_overflow(a, b, &r); break;
    case OP_DIV: return real((double)a / (double)b);
    case OP_POW:
        if (b < 0)
            return real(pow((double)a, (double)b));
        r = integer_power(a, b, &wraps);
        break;
    default: /* rounded down, unlike C */
        wraps = a == INT64_MIN && b == -1;
        if (wraps)
            break;
        r = a % b;
        if (r && (r < 0) != (b < 0))
            r += b;
        if (op == OP_FLOOR)
            r = (a - r) / b;
        break;
    }
    if (wraps)
        jinja_fail(j, LATHE_ERANGE, "line %d: an integer goes over 2^63", j->line);
    return value_int(r);
}

static struct value reals(struct jinja *j, int op, double a, double b)
{
    if ((op == OP_DIV || op == OP_FLOOR || op == OP_MOD) && b == 0)
        jinja_fail(j, LATHE_EFORMAT, "line %d: a division by zero", j->line);
    switch (op) {
    case OP_ADD: return real(a + b);
    case OP_SUB: return real(a - b);
    case OP_MUL: return real(a * b);
    case OP_DIV: return real(a / b);
    case OP_FLOOR: return real(floor(a / b));
    case OP_MOD: return real(a - b * floor(a / b));
    default: return real(pow(a, b));
    }
}

static struct value arithmetic(struct jinja *j, int op, struct value a, struct value b)
{
    int a_whole = a.type == V_INT || a.type == V_BOOL, b_whole = b.type == V_INT || b.type == V_BOOL;
    need_defined(j, a);
    need_defined(j, b);
    if (a_whole && b_whole)
        return integers(j, op, a.integer, b.integer);
    if ((a_whole || a.type == V_FLOAT) && (b_whole || b.type == V_FLOAT))
        return reals(j, op, a_whole ? (double)a.integer : a.number, b_whole ? (double)b.integer : b.number);
    if (op == OP_ADD && a.type == V_STRING && b.type == V_STRING) {
        struct writer w = {.grows = 1};
        writer_put(j, &w, a.text);
        writer_put(j, &w, b.text);
        return value_text((struct text){w.bytes ? w.bytes : "", w.count});
    }
    if (op == OP_ADD && (a.type == V_LIST || a.type == V_TUPLE) && a.type == b.type) {
        struct value out = value_list(j, a.list->count + b.list->count);
        jinja_charge(j, 16 * (a.list->count + b.list->count));
        for (size_t i = 0; i < a.list->count; i++)
            list_add(j, out.list, a.list->items[i]);
        for (size_t i = 0; i < b.list->count; i++)
            list_add(j, out.list, b.list->items[i]);
        out.type = a.type;
        return out;
    }
    if (op == OP_MUL && b_whole && (a.type == V_STRING || a.type == V_LIST || a.type == V_TUPLE))
        return repeat(j, a, b.integer);
    if (op == OP_MUL && a_whole && (b.type == V_STRING || b.type == V_LIST || b.type == V_TUPLE))
        return repeat(j, b, a.integer);
    if (op == OP_MOD && a.type == V_STRING)
        jinja_fail(j, LATHE_EUNSUPPORTED, "line %d: formatting by %% isn't supported", j->line);
    bad_operands(j, a, b);
}

static int compare(struct jinja *j, int op, struct value a, struct value b)
{
    switch (op) {
    case OP_EQ: return value_equal(j, a, b);
    case OP_NE: return !value_equal(j, a, b);
    case OP_IN: return value_contains(j, b, a);
    case OP_NOT_IN: return !value_contains(j, b, a);
    default: break;
    }
    need_defined(j, a);
    need_defined(j, b);
    int order = value_compare(j, a, b);
    return op == OP_LT ? order < 0 : op == OP_LE ? order <= 0 : op == OP_GT ? order > 0 : order >= 0;
}

static struct value eval_compare(struct jinja *j, const struct node *n)
{
    struct value left = jinja_eval(j, n->a);
    for (const struct node *part = n->children; part; part = part->next) {
        struct value right = jinja_eval(j, part->a);
        if (!compare(j, part->op, left, right))
            return value_bool(0);
        left = right;
    }
    return value_bool(1);
}

static void eval_arguments(struct jinja *j, const struct node *first, struct arguments *args)
{
    memset(args, 0, sizeof *args);
    for (const struct node *n = first; n; n = n->next) {
        if (args->count == sizeof args->given / sizeof *args->given)
            jinja_fail(j, LATHE_EUNSUPPORTED, "line %d: more than %zu arguments", j->line, args->count);
        args->names[args->count] = n->name;
        args->given[args->count++] = jinja_eval(j, n->a);
        if (!n->name.count)
            args->positional = args->count;
    }
}

/* dict(…) and namespace(…) take any number of names. */
static struct value eval_mapping(struct jinja *j, const struct node *first, enum value_type type)
{
    struct value out = {.type = type, .dict = jinja_alloc(j, sizeof *out.dict)};
    for (const struct node *n = first; n; n = n->next) {
        struct value v = jinja_eval(j, n->a);
        if (n->name.count) {
            dict_set(j, out.dict, value_text(n->name), v);
            continue;
        }
        if (v.type != V_DICT)
            jinja_fail(j, LATHE_EFORMAT, "line %d: found a %s, expected a dict or name=value", j->line, value_type_name(v));
        for (size_t i = 0; i < v.dict->count; i++)
            dict_set(j, out.dict, v.dict->pairs[i].key, v.dict->pairs[i].value);
    }
    return out;
}

static struct value eval_call(struct jinja *j, const struct node *n)
{
    struct arguments args;
    if (n->a->kind == N_ATTRIBUTE) {
        struct value of = jinja_eval(j, n->a->a);
        need_defined(j, of);
        eval_arguments(j, n->children, &args);
        return call_method(j, of, n->a->name, &args);
    }
    struct value callee = jinja_eval(j, n->a);
    need_defined(j, callee);
    if (callee.type == V_FUNCTION && text_is(callee.text, "namespace"))
        return eval_mapping(j, n->children, V_NAMESPACE);
    if (callee.type == V_FUNCTION && text_is(callee.text, "dict"))
        return eval_mapping(j, n->children, V_DICT);
    eval_arguments(j, n->children, &args);
    if (callee.type == V_FUNCTION)
        return call_function(j, callee.text, &args);
    if (callee.type == V_MACRO)
        return call_macro(j, callee.macro, &args);
    jinja_fail(j, LATHE_EFORMAT, "line %d: a %s can't be called", j->line, value_type_name(callee));
}

static struct value eval_name(struct jinja *j, const struct node *n)
{
    struct value *found = frame_find(j->frame, n->name);
    if (found)
        return *found;
    return is_function(n->name) ? (struct value){.type = V_FUNCTION, .text = n->name} : undefined(n->name);
}

static struct value eval_collection(struct jinja *j, const struct node *n)
{
    struct value out;
    if (n->kind == N_DICT) {
        out = (struct value){.type = V_DICT, .dict = jinja_alloc(j, sizeof *out.dict)};
        for (const struct node *item = n->children; item; item = item->next)
            dict_set(j, out.dict, jinja_eval(j, item->a), jinja_eval(j, item->b));
        return out;
    }
    out = value_list(j, 0);
    for (const struct node *item = n->children; item; item = item->next)
        list_add(j, out.list, jinja_eval(j, item));
    out.type = n->kind == N_LIST ? V_LIST : V_TUPLE;
    return out;
}

static struct value eval(struct jinja *j, const struct node *n)
{
    struct arguments args;
    struct value a;
    switch (n->kind) {
    case N_CONST: return n->value;
    case N_NAME: return eval_name(j, n);
    case N_LIST: case N_TUPLE: case N_DICT: return eval_collection(j, n);
    case N_ATTRIBUTE: return value_attribute(j, jinja_eval(j, n->a), n->name);
    case N_ITEM:
        a = jinja_eval(j, n->a);
        return value_item(j, a, jinja_eval(j, n->b));
    case N_SLICE: return eval_slice(j, n);
    case N_CALL: return eval_call(j, n);
    case N_FILTER:
        a = jinja_eval(j, n->a);
        eval_arguments(j, n->children, &args);
        return call_filter(j, n->name, a, &args);
    case N_TEST:
        a = jinja_eval(j, n->a);
        eval_arguments(j, n->children, &args);
        return value_bool(call_test(j, n->name, a, &args) != n->op);
    case N_NOT: return value_bool(!value_true(jinja_eval(j, n->a)));
    case N_NEGATE:
        a = jinja_eval(j, n->a);
        return a.type == V_FLOAT ? real(-a.number) : arithmetic(j, OP_SUB, value_int(0), a);
    case N_AND:
        a = jinja_eval(j, n->a);
        return value_true(a) ? jinja_eval(j, n->b) : a;
    case N_OR:
        a = jinja_eval(j, n->a);
        return value_true(a) ? a : jinja_eval(j, n->b);
    case N_CHOOSE:
        if (value_true(jinja_eval(j, n->b)))
            return jinja_eval(j, n->a);
        return n->c ? jinja_eval(j, n->c) : undefined((struct text){"if without else", 15});
    case N_COMPARE: return eval_compare(j, n);
    case N_ARITHMETIC:
        a = jinja_eval(j, n->a);
        return arithmetic(j, n->op, a, jinja_eval(j, n->b));
    case N_JOIN: {
        struct writer w = {.grows = 1};
        writer_put(j, &w, value_string(j, jinja_eval(j, n->a)));
        writer_put(j, &w, value_string(j, jinja_eval(j, n->b)));
        return value_text((struct text){w.bytes ? w.bytes : "", w.count});
    }
    default: jinja_fail(j, LATHE_EINTERNAL, "line %d: a statement where a value was expected: please report it", n->line);
    }
}

struct value jinja_eval(struct jinja *j, const struct node *n)
{
    j->line = n->line;
    jinja_charge(j, 0);
    jinja_enter(j);
    struct value v = eval(j, n);
    j->depth--;
    return v;
}
