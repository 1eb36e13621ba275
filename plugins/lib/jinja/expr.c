/* SPDX-License-Identifier: MIT */
/* Expressions to nodes: recursive descent, one function a level of binding, loosest first:
 *
 *     a if b else c · or · and · not · == != < <= > >= in, not in · + - · ~ · * / // % · ** · - +
 *     · then .name [item] (arguments) · then |filter · is test
 */
#include "parse.h"

#include <string.h>

void next_lexeme(struct parser *p)
{
    p->now = p->ahead;
    p->j->line = p->now.line;
    if (p->now.type != T_END)
        lexer_next(&p->lexer, &p->ahead);
}

struct node *make_node(struct parser *p, enum node_kind kind)
{
    struct node *n = jinja_alloc(p->j, sizeof *n);
    n->kind = kind;
    n->line = p->now.line;
    return n;
}

int is_op(const struct lexeme *x, const char *op)
{
    return x->type == T_OP && text_is(x->text, op);
}

int is_name(const struct lexeme *x, const char *name)
{
    return x->type == T_NAME && text_is(x->text, name);
}

int take_op(struct parser *p, const char *op)
{
    if (!is_op(&p->now, op))
        return 0;
    next_lexeme(p);
    return 1;
}

int take_name(struct parser *p, const char *name)
{
    if (!is_name(&p->now, name))
        return 0;
    next_lexeme(p);
    return 1;
}

_Noreturn void unexpected(struct parser *p, const char *expected)
{
    const struct lexeme *x = &p->now;
    struct text found = x->text;
    if (x->type != T_NAME && x->type != T_OP && x->type != T_STRING) {
        found.bytes = x->type == T_END ? "the template's end" : x->type == T_TEXT ? "text" : "a tag's mark or a number";
        found.count = strlen(found.bytes);
    }
    jinja_fail(p->j, LATHE_EFORMAT, "line %d: found %.*s, expected %s", x->line, (int)(found.count < 40 ? found.count : 40),
               found.bytes, expected);
}

void need_op(struct parser *p, const char *op)
{
    if (!take_op(p, op))
        unexpected(p, op);
}

struct text need_name(struct parser *p, const char *what)
{
    struct text name = p->now.text;
    if (p->now.type != T_NAME)
        unexpected(p, what);
    next_lexeme(p);
    return name;
}

static struct node *pair(struct parser *p, enum node_kind kind, int op, struct node *a, struct node *b)
{
    struct node *n = make_node(p, kind);
    n->op = op;
    n->a = a;
    n->b = b;
    return n;
}

static struct node *constant(struct parser *p, struct value value)
{
    struct node *n = make_node(p, N_CONST);
    n->value = value;
    return n;
}

static struct node *parse_unary(struct parser *p, int with_filters);

/* Items up to `close`, which is taken. */
static struct node *parse_items(struct parser *p, const char *close)
{
    struct node *first = NULL, **last = &first;
    while (!take_op(p, close)) {
        *last = parse_expression(p);
        last = &(*last)->next;
        if (!is_op(&p->now, close))
            need_op(p, ",");
    }
    return first;
}

/* After "(" : values, then name = value. */
static struct node *parse_arguments(struct parser *p)
{
    struct node *first = NULL, **last = &first;
    while (!take_op(p, ")")) {
        struct node *n = make_node(p, N_ARGUMENT);
        if (is_op(&p->now, "*") || is_op(&p->now, "**"))
            jinja_fail(p->j, LATHE_EUNSUPPORTED, "line %d: arguments by * and ** aren't supported", p->now.line);
        if (p->now.type == T_NAME && is_op(&p->ahead, "=")) {
            n->name = p->now.text;
            next_lexeme(p);
            next_lexeme(p);
        }
        n->a = parse_expression(p);
        *last = n;
        last = &n->next;
        if (!is_op(&p->now, ")"))
            need_op(p, ",");
    }
    return first;
}

static struct node *parse_dict(struct parser *p)
{
    struct node *n = make_node(p, N_DICT), **last = &n->children;
    while (!take_op(p, "}")) {
        struct node *item = make_node(p, N_ARGUMENT);
        item->a = parse_expression(p);
        need_op(p, ":");
        item->b = parse_expression(p);
        *last = item;
        last = &item->next;
        if (!is_op(&p->now, "}"))
            need_op(p, ",");
    }
    return n;
}

static struct node *parse_parenthesis(struct parser *p)
{
    struct node *n;
    if (take_op(p, ")"))
        return make_node(p, N_TUPLE);
    n = parse_expression(p);
    if (is_op(&p->now, ",")) {
        struct node *tuple = make_node(p, N_TUPLE);
        next_lexeme(p);
        tuple->children = n;
        n->next = parse_items(p, ")");
        return tuple;
    }
    need_op(p, ")");
    return n;
}

static struct node *parse_primary(struct parser *p)
{
    static const struct {
        const char *name;
        enum value_type type;
        int truth;
    } words[] = {{"true", V_BOOL, 1}, {"True", V_BOOL, 1}, {"false", V_BOOL, 0}, {"False", V_BOOL, 0}, {"none", V_NONE, 0}, {"None", V_NONE, 0}};
    struct lexeme x = p->now;
    struct node *n;
    switch (x.type) {
    case T_NAME:
        next_lexeme(p);
        for (size_t i = 0; i < sizeof words / sizeof *words; i++)
            if (text_is(x.text, words[i].name))
                return constant(p, (struct value){.type = words[i].type, .integer = words[i].truth});
        n = make_node(p, N_NAME);
        n->name = x.text;
        return n;
    case T_INT:
        next_lexeme(p);
        return constant(p, value_int(x.integer));
    case T_FLOAT:
        next_lexeme(p);
        return constant(p, (struct value){.type = V_FLOAT, .number = x.number});
    case T_STRING:
        next_lexeme(p);
        while (p->now.type == T_STRING) { /* neighbours are one string */
            char *joined = jinja_alloc(p->j, x.text.count + p->now.text.count + 1);
            memcpy(joined, x.text.bytes, x.text.count);
            memcpy(joined + x.text.count, p->now.text.bytes, p->now.text.count);
            x.text = (struct text){joined, x.text.count + p->now.text.count};
            next_lexeme(p);
        }
        return constant(p, value_text(x.text));
    default: break;
    }
    if (take_op(p, "("))
        return parse_parenthesis(p);
    if (take_op(p, "[")) {
        n = make_node(p, N_LIST);
        n->children = parse_items(p, "]");
        return n;
    }
    if (take_op(p, "{"))
        return parse_dict(p);
    unexpected(p, "a value");
}

/* After "[" : an item or a slice a:b:c. */
static struct node *parse_subscript(struct parser *p, struct node *of)
{
    struct node *parts[3] = {0};
    int colons = 0;
    while (!is_op(&p->now, "]")) {
        if (is_op(&p->now, ":")) {
            if (++colons > 2)
                unexpected(p, "]");
            next_lexeme(p);
        } else if (parts[colons]) {
            unexpected(p, "]");
        } else {
            parts[colons] = parse_expression(p);
        }
    }
    struct node *n = pair(p, colons ? N_SLICE : N_ITEM, 0, of, parts[0]);
    if (!colons && !parts[0])
        unexpected(p, "a subscript");
    need_op(p, "]");
    n->c = parts[1];
    n->children = parts[2];
    return n;
}

static struct node *parse_postfix(struct parser *p, struct node *n)
{
    for (int depth = 0;; depth++) {
        if (depth > JINJA_DEPTH)
            jinja_fail(p->j, LATHE_ERANGE, "line %d: more than %d subscripts and calls on one value", p->now.line, JINJA_DEPTH);
        if (take_op(p, ".")) {
            struct node *of = n;
            if (p->now.type == T_INT) {
                n = pair(p, N_ITEM, 0, of, constant(p, value_int(p->now.integer)));
                next_lexeme(p);
                continue;
            }
            n = pair(p, N_ATTRIBUTE, 0, of, NULL);
            n->name = need_name(p, "an attribute's name");
        } else if (take_op(p, "[")) {
            n = parse_subscript(p, n);
        } else if (take_op(p, "(")) {
            n = pair(p, N_CALL, 0, n, NULL);
            n->children = parse_arguments(p);
        } else {
            return n;
        }
    }
}

static int begins_argument(const struct lexeme *x)
{
    if (x->type == T_NAME)
        return !is_name(x, "else") && !is_name(x, "or") && !is_name(x, "and") && !is_name(x, "is") && !is_name(x, "if") &&
               !is_name(x, "not") && !is_name(x, "in");
    return x->type == T_STRING || x->type == T_INT || x->type == T_FLOAT || is_op(x, "[") || is_op(x, "{");
}

static struct node *parse_test(struct parser *p, struct node *of)
{
    struct node *n = pair(p, N_TEST, take_name(p, "not"), of, NULL);
    n->name = need_name(p, "a test's name");
    if (take_op(p, "(")) {
        n->children = parse_arguments(p);
    } else if (begins_argument(&p->now)) {
        n->children = make_node(p, N_ARGUMENT);
        n->children->a = parse_postfix(p, parse_primary(p));
    }
    return n;
}

struct node *parse_filters(struct parser *p, struct node *n)
{
    for (int depth = 0;; depth++) {
        if (depth > JINJA_DEPTH)
            jinja_fail(p->j, LATHE_ERANGE, "line %d: more than %d filters on one value", p->now.line, JINJA_DEPTH);
        if (take_op(p, "|")) {
            n = pair(p, N_FILTER, 0, n, NULL);
            n->name = need_name(p, "a filter's name");
            if (take_op(p, "("))
                n->children = parse_arguments(p);
        } else if (take_name(p, "is")) {
            n = parse_test(p, n);
        } else if (take_op(p, "(")) {
            n = pair(p, N_CALL, 0, n, NULL);
            n->children = parse_arguments(p);
        } else {
            return n;
        }
    }
}

static struct node *parse_unary(struct parser *p, int with_filters)
{
    struct node *n;
    jinja_enter(p->j);
    if (take_op(p, "-"))
        n = pair(p, N_NEGATE, 0, parse_unary(p, 0), NULL);
    else if (take_op(p, "+"))
        n = parse_unary(p, 0);
    else
        n = parse_primary(p);
    n = parse_postfix(p, n);
    if (with_filters)
        n = parse_filters(p, n);
    p->j->depth--;
    return n;
}

/* One level of operators, all of which bind to the left. */
struct level {
    const char *ops[4];
    int codes[4];
    enum node_kind kind;
};

static const struct level levels[] = {
    {{"+", "-"}, {OP_ADD, OP_SUB}, N_ARITHMETIC},
    {{"~"}, {0}, N_JOIN},
    {{"*", "/", "//", "%"}, {OP_MUL, OP_DIV, OP_FLOOR, OP_MOD}, N_ARITHMETIC},
    {{"**"}, {OP_POW}, N_ARITHMETIC},
};

enum { LEVELS = sizeof levels / sizeof *levels };

static struct node *parse_level(struct parser *p, int level)
{
    if (level == LEVELS)
        return parse_unary(p, 1);
    struct node *n = parse_level(p, level + 1);
    const struct level *l = &levels[level];
    for (int depth = 0;; depth++) {
        int found = -1;
        for (int i = 0; i < 4 && l->ops[i]; i++)
            if (is_op(&p->now, l->ops[i]))
                found = i;
        if (found < 0)
            return n;
        if (depth > JINJA_DEPTH) /* evaluation goes as deep as the chain is long */
            jinja_fail(p->j, LATHE_ERANGE, "line %d: more than %d operators in a row", p->now.line, JINJA_DEPTH);
        next_lexeme(p);
        n = pair(p, l->kind, l->codes[found], n, parse_level(p, level + 1));
    }
}

static int comparison(struct parser *p)
{
    static const char *const ops[] = {"==", "!=", "<", "<=", ">", ">="};
    for (int i = 0; i < 6; i++)
        if (take_op(p, ops[i]))
            return OP_EQ + i;
    if (take_name(p, "in"))
        return OP_IN;
    if (is_name(&p->now, "not") && is_name(&p->ahead, "in")) {
        next_lexeme(p);
        next_lexeme(p);
        return OP_NOT_IN;
    }
    return 0;
}

/* children: arguments (op, a) after the first value, since a < b < c is one chain. */
static struct node *parse_compare(struct parser *p)
{
    struct node *n = parse_level(p, 0), *chain = NULL, **last = NULL;
    for (int op; (op = comparison(p));) {
        struct node *part = make_node(p, N_ARGUMENT);
        if (!chain) {
            chain = pair(p, N_COMPARE, 0, n, NULL);
            last = &chain->children;
        }
        part->op = op;
        part->a = parse_level(p, 0);
        *last = part;
        last = &part->next;
    }
    return chain ? chain : n;
}

static struct node *parse_not(struct parser *p)
{
    if (!is_name(&p->now, "not"))
        return parse_compare(p);
    jinja_enter(p->j);
    next_lexeme(p);
    struct node *n = pair(p, N_NOT, 0, parse_not(p), NULL);
    p->j->depth--;
    return n;
}

struct node *parse_logic(struct parser *p, int any)
{
    struct node *n = any ? parse_logic(p, 0) : parse_not(p);
    for (int depth = 0; take_name(p, any ? "or" : "and"); depth++) {
        if (depth > JINJA_DEPTH)
            jinja_fail(p->j, LATHE_ERANGE, "line %d: more than %d conditions in a row", p->now.line, JINJA_DEPTH);
        n = pair(p, any ? N_OR : N_AND, 0, n, any ? parse_logic(p, 0) : parse_not(p));
    }
    return n;
}

struct node *parse_expression(struct parser *p)
{
    jinja_enter(p->j);
    struct node *n = parse_logic(p, 1);
    for (int depth = 0; take_name(p, "if"); depth++) {
        struct node *choice = make_node(p, N_CHOOSE);
        if (depth > JINJA_DEPTH)
            jinja_fail(p->j, LATHE_ERANGE, "line %d: more than %d conditions in a row", p->now.line, JINJA_DEPTH);
        choice->a = n;
        choice->b = parse_logic(p, 1);
        if (take_name(p, "else"))
            choice->c = parse_expression(p);
        n = choice;
    }
    p->j->depth--;
    return n;
}
