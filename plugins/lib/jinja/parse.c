/* SPDX-License-Identifier: MIT */
/* Statements to nodes. A body ends at a name that its opener knows: else, endif, endfor … */
#include "parse.h"

static struct node *parse_statements(struct parser *p, const char *const *ends);

static void need_end(struct parser *p, enum token_type type)
{
    if (p->now.type != type)
        unexpected(p, type == T_END_BLOCK ? "%}" : "}}");
    next_lexeme(p);
}

/* Values with commas between, without brackets: a tuple. */
static struct node *parse_tuple(struct parser *p)
{
    struct node *n = parse_expression(p);
    if (!is_op(&p->now, ","))
        return n;
    struct node *tuple = make_node(p, N_TUPLE), **last = &n->next;
    tuple->children = n;
    while (take_op(p, ",") && p->now.type != T_END_BLOCK && p->now.type != T_END_OUTPUT) {
        *last = parse_expression(p);
        last = &(*last)->next;
    }
    return tuple;
}

/* Names that are set: a, b or namespace.name. */
static struct node *parse_targets(struct parser *p)
{
    struct node *first = NULL, **last = &first;
    int bracket = take_op(p, "(");
    do {
        struct node *n = make_node(p, N_NAME);
        n->name = need_name(p, "a name to set");
        if (take_op(p, ".")) {
            struct node *of = n;
            n = make_node(p, N_ATTRIBUTE);
            n->a = of;
            n->name = need_name(p, "a name to set");
        }
        *last = n;
        last = &n->next;
    } while (take_op(p, ",") && p->now.type == T_NAME);
    if (bracket)
        need_op(p, ")");
    return first;
}

static struct node *parse_if(struct parser *p)
{
    static const char *const ends[] = {"elif", "else", "endif", NULL};
    struct node *n = make_node(p, N_IF);
    n->a = parse_tuple(p);
    need_end(p, T_END_BLOCK);
    n->body = parse_statements(p, ends);
    if (take_name(p, "elif")) {
        jinja_enter(p->j);
        n->otherwise = parse_if(p); /* takes the endif */
        p->j->depth--;
        return n;
    }
    if (take_name(p, "else")) {
        need_end(p, T_END_BLOCK);
        n->otherwise = parse_statements(p, ends + 2);
    }
    next_lexeme(p);
    return n;
}

static struct node *parse_for(struct parser *p)
{
    static const char *const ends[] = {"else", "endfor", NULL};
    struct node *n = make_node(p, N_FOR);
    n->children = parse_targets(p);
    if (!take_name(p, "in"))
        unexpected(p, "in");
    /* Not a whole expression: its "if" is the loop's. */
    n->a = parse_logic(p, 1);
    if (is_op(&p->now, ",")) {
        struct node *tuple = make_node(p, N_TUPLE);
        next_lexeme(p);
        tuple->children = n->a;
        n->a->next = parse_tuple(p);
        n->a = tuple;
    }
    if (take_name(p, "if"))
        n->b = parse_expression(p);
    if (is_name(&p->now, "recursive"))
        jinja_fail(p->j, LATHE_EUNSUPPORTED, "line %d: recursive loops aren't supported", p->now.line);
    need_end(p, T_END_BLOCK);
    n->body = parse_statements(p, ends);
    if (take_name(p, "else")) {
        need_end(p, T_END_BLOCK);
        n->otherwise = parse_statements(p, ends + 1);
    }
    next_lexeme(p);
    return n;
}

static struct node *parse_set(struct parser *p)
{
    static const char *const ends[] = {"endset", NULL};
    struct node *n = make_node(p, N_SET);
    n->children = parse_targets(p);
    if (take_op(p, "=")) {
        n->a = parse_tuple(p);
        return n;
    }
    n->kind = N_SET_BLOCK;
    /* {% set x | filter %}: filters over what the block makes, as over a constant filled in later */
    n->b = make_node(p, N_CONST);
    n->a = parse_filters(p, n->b);
    need_end(p, T_END_BLOCK);
    n->body = parse_statements(p, ends);
    next_lexeme(p);
    return n;
}

static struct node *parse_macro(struct parser *p)
{
    static const char *const ends[] = {"endmacro", NULL};
    struct node *n = make_node(p, N_MACRO), **last = &n->children;
    n->name = need_name(p, "a macro's name");
    need_op(p, "(");
    while (!take_op(p, ")")) {
        struct node *parameter = make_node(p, N_ARGUMENT);
        parameter->name = need_name(p, "a parameter's name");
        if (take_op(p, "="))
            parameter->a = parse_expression(p);
        *last = parameter;
        last = &parameter->next;
        if (!is_op(&p->now, ")"))
            need_op(p, ",");
    }
    need_end(p, T_END_BLOCK);
    n->body = parse_statements(p, ends);
    next_lexeme(p);
    if (p->now.type == T_NAME) /* endmacro may repeat the name */
        next_lexeme(p);
    return n;
}

static struct node *parse_block(struct parser *p)
{
    static const char *const generation_ends[] = {"endgeneration", NULL};
    struct node *n;
    if (take_name(p, "if")) {
        n = parse_if(p);
    } else if (take_name(p, "for")) {
        n = parse_for(p);
    } else if (take_name(p, "set")) {
        n = parse_set(p);
    } else if (take_name(p, "macro")) {
        n = parse_macro(p);
    } else if (take_name(p, "break")) {
        n = make_node(p, N_BREAK);
    } else if (take_name(p, "continue")) {
        n = make_node(p, N_CONTINUE);
    } else if (take_name(p, "generation")) { /* marks what the model says, for training */
        need_end(p, T_END_BLOCK);
        n = make_node(p, N_GROUP);
        n->body = parse_statements(p, generation_ends);
        next_lexeme(p);
    } else {
        jinja_fail(p->j, p->now.type == T_NAME ? LATHE_EUNSUPPORTED : LATHE_EFORMAT,
                   "line %d: the statement %.*s isn't one of if, for, set, macro, break, continue, generation", p->now.line,
                   p->now.type == T_NAME ? (int)(p->now.text.count < 40 ? p->now.text.count : 40) : 0,
                   p->now.text.bytes ? p->now.text.bytes : "");
    }
    need_end(p, T_END_BLOCK);
    return n;
}

static int ends_here(const struct lexeme *x, const char *const *ends)
{
    for (; ends && *ends; ends++)
        if (is_name(x, *ends))
            return 1;
    return 0;
}

/* Statements up to {% one of ends; that name is the lexeme now, not yet taken. */
static struct node *parse_statements(struct parser *p, const char *const *ends)
{
    struct node *first = NULL, **last = &first;
    jinja_enter(p->j);
    for (;;) {
        struct node *n;
        if (p->now.type == T_TEXT) {
            n = make_node(p, N_TEXT);
            n->value = value_text(p->now.text);
            next_lexeme(p);
        } else if (p->now.type == T_BEGIN_OUTPUT) {
            n = make_node(p, N_OUTPUT);
            next_lexeme(p);
            n->a = parse_tuple(p);
            need_end(p, T_END_OUTPUT);
        } else if (p->now.type == T_BEGIN_BLOCK) {
            next_lexeme(p);
            if (ends_here(&p->now, ends))
                break;
            n = parse_block(p);
        } else if (p->now.type == T_END && !ends) {
            break;
        } else {
            unexpected(p, ends ? ends[0] : "text");
        }
        *last = n;
        last = &n->next;
    }
    p->j->depth--;
    return first;
}

struct node *jinja_parse(struct jinja *j, struct text source)
{
    struct parser p = {.j = j};
    if (source.count && source.bytes[source.count - 1] == '\n')
        source.count--;
    p.lexer = (struct lexer){.j = j, .at = source.bytes, .end = source.bytes + source.count, .line = 1, .line_starting = 1};
    lexer_next(&p.lexer, &p.ahead);
    next_lexeme(&p);
    return parse_statements(&p, NULL);
}
