/* SPDX-License-Identifier: MIT */
/* Inside of the chat-template engine: a subset of Jinja 2, as transformers sets it up (trim_blocks,
 * lstrip_blocks, break and continue, raise_exception; no autoescape).
 *
 *     source ─ lex.c ─ lexemes ─ parse.c ─ nodes ─ run.c ─ text
 *                                expr.c            eval.c     (expressions)
 *                                                  call.c     (filters, tests), methods.c
 *                                                  value.c    (what Python's values do), write.c
 *
 * A template comes from a model file, so it is hostile: steps, depth, memory and output are
 * bounded. All memory of a rendering is one arena that is given back at its end, which lets an
 * error leave from any depth by one longjmp, jinja_fail. Nothing outlives a call.
 *
 * Left out, refused with a sentence: import, include, extends, block, call, with, recursive loops,
 * *args, % formatting of strings, letters beyond ASCII in upper, lower, title, capitalize. */
#ifndef JINJA_INTERNAL_H
#define JINJA_INTERNAL_H

#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>

#include "jinja.h"

enum {
    JINJA_STEPS = 1000000,          /* nodes evaluated, and bytes handled / 64 */
    JINJA_DEPTH = 200,              /* expressions, statements and macros within each other */
    JINJA_MEMORY_BYTES = 64 << 20,
    JINJA_OUTPUT_BYTES = 16 << 20,
    JINJA_RANGE = 100000,           /* as jinja2's sandbox has it */
};

struct text {
    const char *bytes;
    size_t count;
};

enum value_type {
    V_UNDEFINED, V_NONE, V_BOOL, V_INT, V_FLOAT, V_STRING, V_LIST, V_TUPLE, V_DICT, V_NAMESPACE, V_MACRO, V_LOOP, V_FUNCTION,
};

struct value {
    enum value_type type;
    union {
        int64_t integer; /* BOOL too */
        double number;
        struct text text;       /* STRING; UNDEFINED: its name; FUNCTION: its name */
        struct list *list;      /* LIST, TUPLE */
        struct dict *dict;      /* DICT, NAMESPACE: in order of insertion */
        struct macro *macro;
        struct loop *loop;
    };
};

struct list {
    struct value *items;
    size_t count, room;
};

struct dict {
    struct pair {
        struct value key, value;
    } *pairs;
    size_t count, room;
};

struct loop {
    const struct list *items;
    size_t index;
    int64_t depth;
};

enum node_kind {
    /* expressions */
    N_CONST, N_NAME, N_LIST, N_TUPLE, N_DICT, N_ATTRIBUTE, N_ITEM, N_SLICE, N_CALL, N_FILTER, N_TEST, N_NOT, N_NEGATE,
    N_AND, N_OR, N_CHOOSE, N_COMPARE, N_ARITHMETIC, N_JOIN, N_ARGUMENT,
    /* statements */
    N_TEXT, N_OUTPUT, N_IF, N_FOR, N_SET, N_SET_BLOCK, N_MACRO, N_BREAK, N_CONTINUE, N_GROUP,
};

enum op {
    OP_EQ = 1, OP_NE, OP_LT, OP_LE, OP_GT, OP_GE, OP_IN, OP_NOT_IN,
    OP_ADD, OP_SUB, OP_MUL, OP_DIV, OP_FLOOR, OP_MOD, OP_POW,
};

struct node {
    enum node_kind kind;
    int op;              /* enum op; TEST: 1 negated */
    int line;
    struct text name;    /* NAME, ATTRIBUTE, FILTER, TEST, ARGUMENT, MACRO */
    struct value value;  /* CONST, TEXT */
    struct node *a, *b, *c;
    struct node *children; /* items, arguments, targets, parameters */
    struct node *body, *otherwise;
    struct node *next;   /* in its parent's list */
};

struct binding {
    struct text name;
    struct value value;
    struct binding *next;
};

struct frame {
    struct frame *parent;
    struct binding *bindings;
};

struct macro {
    const struct node *node;
    struct frame *frame; /* where it was defined */
};

/* Text being made: the caller's room at the bottom, the arena's above it. */
struct writer {
    char *bytes;
    size_t count, room;
    int grows;
};

struct jinja {
    const struct lathe_host *host;
    struct lathe_error *err;
    jmp_buf failed;
    int code;
    struct chunk *chunks;
    size_t taken_bytes;
    uint64_t steps;
    int depth, line;
    int64_t loop_depth;
    struct frame *frame;
    struct writer *writer;
};

/* ---- memory and errors: render.c ---- */
_Noreturn void jinja_fail(struct jinja *j, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));
void *jinja_alloc(struct jinja *j, size_t bytes);              /* zeroed; never NULL */
void jinja_charge(struct jinja *j, size_t bytes);              /* one step, and more for long work */
void jinja_enter(struct jinja *j);                             /* one level deeper; leave with depth-- */
void jinja_write(struct jinja *j, struct text text);

/* ---- lex.c, parse.c ---- */
enum token_type { T_END, T_TEXT, T_BEGIN_BLOCK, T_END_BLOCK, T_BEGIN_OUTPUT, T_END_OUTPUT, T_NAME, T_STRING, T_INT, T_FLOAT, T_OP };

struct lexeme {
    enum token_type type;
    struct text text; /* STRING: unescaped */
    int64_t integer;
    double number;
    int line;
};

struct lexer {
    struct jinja *j;
    const char *at, *end;
    int line;
    int mode;           /* 0: text; else the type that began the tag */
    int nested;         /* open brackets within it */
    int line_starting;  /* what came before ended its line */
};

void lexer_next(struct lexer *lexer, struct lexeme *lexeme);
struct node *jinja_parse(struct jinja *j, struct text source); /* a list of statements */

/* ---- value.c, write.c ---- */
struct value value_text(struct text text);
struct value value_cstring(const char *text);
struct value value_int(int64_t integer);
struct value value_bool(int truth);
struct value value_list(struct jinja *j, size_t room);
void list_add(struct jinja *j, struct list *list, struct value value);
struct value *dict_get(struct jinja *j, const struct dict *dict, struct value key); /* NULL: not there */
void dict_set(struct jinja *j, struct dict *dict, struct value key, struct value value);
const char *value_type_name(struct value value);
int value_true(struct value value);
int value_equal(struct jinja *j, struct value a, struct value b);
int value_compare(struct jinja *j, struct value a, struct value b);
int value_contains(struct jinja *j, struct value container, struct value item);
struct text value_string(struct jinja *j, struct value value);                /* str(value) */
struct text value_json(struct jinja *j, struct value value, int indent);      /* indent −1: one line */
struct list *value_items(struct jinja *j, struct value value);                /* what a for loop sees */
size_t value_length(struct jinja *j, struct value value);
int text_is(struct text text, const char *cstring);
int text_equal(struct text a, struct text b);
size_t text_length(struct text text);                                          /* characters */
struct text text_slice(struct text text, size_t from, size_t to);              /* characters */
struct text text_copy(struct jinja *j, struct text text);
void writer_put(struct jinja *j, struct writer *w, struct text text);
void writer_text(struct jinja *j, struct writer *w, const char *cstring);

/* ---- eval.c, call.c, methods.c, run.c ---- */
struct value jinja_eval(struct jinja *j, const struct node *node);
struct value *frame_find(struct frame *frame, struct text name);
void frame_set(struct jinja *j, struct frame *frame, struct text name, struct value value);
struct value value_attribute(struct jinja *j, struct value of, struct text name);
struct value value_item(struct jinja *j, struct value of, struct value key);

struct arguments {
    struct value given[8];
    struct text names[8]; /* empty: by position; those come first */
    size_t count, positional;
};

/* By position or by name; V_UNDEFINED type with has == 0 when absent. */
int argument(const struct arguments *args, size_t position, const char *name, struct value *value);
struct value call_filter(struct jinja *j, struct text name, struct value of, const struct arguments *args);
int call_test(struct jinja *j, struct text name, struct value of, const struct arguments *args);
struct value call_method(struct jinja *j, struct value of, struct text name, const struct arguments *args);
struct value call_function(struct jinja *j, struct text name, const struct arguments *args);
int is_function(struct text name);
struct value call_macro(struct jinja *j, const struct macro *macro, const struct arguments *args);
struct value string_method(struct jinja *j, struct text of, struct text name, const struct arguments *args, int *found);
void jinja_run(struct jinja *j, const struct node *statements);

#endif
