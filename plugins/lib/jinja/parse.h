/* SPDX-License-Identifier: MIT */
/* What the two halves of the parser share: the lexeme now and the one ahead, and expressions. */
#ifndef JINJA_PARSE_H
#define JINJA_PARSE_H

#include "internal.h"

struct parser {
    struct jinja *j;
    struct lexer lexer;
    struct lexeme now, ahead;
};

/* expr.c. "take" moves on and returns 1 if it is there; "need" fails if it isn't. */
void next_lexeme(struct parser *p);
struct node *make_node(struct parser *p, enum node_kind kind);
int is_op(const struct lexeme *x, const char *op);
int is_name(const struct lexeme *x, const char *name);
int take_op(struct parser *p, const char *op);
int take_name(struct parser *p, const char *name);
_Noreturn void unexpected(struct parser *p, const char *expected);
void need_op(struct parser *p, const char *op);
struct text need_name(struct parser *p, const char *what);
struct node *parse_expression(struct parser *p);
struct node *parse_logic(struct parser *p, int any);            /* without "if" */
struct node *parse_filters(struct parser *p, struct node *n);

#endif
