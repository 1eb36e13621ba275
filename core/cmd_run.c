/* SPDX-License-Identifier: MIT */
/* lathe run SCRIPT [-- options]: an experiment, from its text to its last row.
 *
 * A script is a plain chunk that calls lathe.run, or returns a table { question, options,
 * prepare, run, report, cleanup } that scripts/lathe/experiment.lua carries out. */
#include "command.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "log.h"
#include "lua_internal.h"

static void print_help(void)
{
    puts("usage: lathe run [options] SCRIPT [-- script's options]\n"
         "\n"
         "Runs an experiment: SCRIPT is Lua, its rows land in results/SCRIPT.db.\n"
         "\n"
         "  --set KIND=NAME:OPTION=VALUE,…  another plugin or option in every run of the script\n"
         "                                  (--set scheduler=sjf, --set kvcache=:block_tokens=32); may be repeated\n"
         "  --database FILE                 where the rows land, whatever the script says\n"
         "  --resume                        what the database has as done is not run again\n"
         "  -q, --quiet                     no progress\n"
         "  -h, --help                      this text; after SCRIPT: the script's question and options\n"
         "\n"
         "  lathe run experiments/first_light.lua --help\n"
         "  lathe run experiments/first_light.lua -- --rate 2");
}

/* The script's first line of words, without the dashes: the question it asks. NULL: none. */
static char *read_question(const char *path)
{
    char line[1024], *question = NULL;
    FILE *file = fopen(path, "r");
    while (file && !question && fgets(line, sizeof line, file)) {
        if (!strncmp(line, "#!", 2))
            continue;
        if (strncmp(line, "--", 2) || !strncmp(line, "--[", 3))
            break;
        char *text = line + strspn(line, "- \t");
        text[strcspn(text, "\r\n")] = '\0';
        if (*text && strncmp(text, "SPDX", 4))
            question = strdup(text);
    }
    if (file)
        fclose(file);
    return question;
}

static char *arguments_json(int argc, char **argv)
{
    json_t *array = json_array();
    json_array_append_new(array, json_string("lathe"));
    for (int i = 0; i < argc; i++) {
        json_t *text = json_string(argv[i]);
        json_array_append_new(array, text ? text : json_string("(not UTF-8)"));
    }
    char *text = json_dumps(array, JSON_COMPACT);
    json_decref(array);
    return text;
}

/* The global `arg`: [0] the script, [1] … what stands behind "--". */
static void push_arguments(lua_State *L, const char *script, int count, char **values)
{
    lua_createtable(L, count, 1);
    lua_pushstring(L, script);
    lua_rawseti(L, -2, 0);
    for (int i = 0; i < count; i++) {
        lua_pushstring(L, values[i]);
        lua_rawseti(L, -2, i + 1);
    }
    lua_pushglobaltable(L);
    lua_pushvalue(L, -2);
    lua_pushliteral(L, "arg");
    lua_insert(L, -2);
    lua_rawset(L, -3); /* raw: the strict metatable has no say here */
    lua_pop(L, 2);
}

/* The chunk, and the experiment if it returns one. */
static int run_script(lua_State *L, const char *script, struct lathe_error *err)
{
    if (luaL_loadfilex(L, script, "t")) {
        const char *message = lua_tostring(L, -1);
        return lathe_fail(err, LATHE_EINVAL, "%s", message ? message : "the script can't be read");
    }
    int status = lua_lathe_call(L, 0, 1, err);
    if (status)
        return status;
    if (!lua_istable(L, -1))
        return LATHE_OK;
    lua_getglobal(L, "require");
    lua_pushliteral(L, "lathe.experiment");
    status = lua_lathe_call(L, 1, 1, err);
    if (status)
        return status;
    lua_insert(L, -2); /* the module is the function that carries it out */
    return lua_lathe_call(L, 1, 0, err);
}

static int run(struct lua_lathe *lathe, int count, char **values, struct lathe_error *err)
{
    int status = registry_open(NULL, &lathe->registry, err);
    if (status)
        return status;
    lua_State *L = lua_lathe_open(lathe, err);
    if (L) {
        push_arguments(L, lathe->script, count, values);
        if (lathe->help) {
            if (lathe->question)
                printf("%s\n\n", lathe->question);
            printf("usage: lathe run %s [-- options]\n\n", lathe->script);
        }
        lua_interrupt_watch(L);
        status = run_script(L, lathe->script, err);
        interrupt_unwatch();
        if (lathe->stopped) /* --help said what there is to say */
            status = LATHE_OK;
        lua_close(L);
    } else {
        status = err->code;
    }
    registry_close(lathe->registry);
    return status;
}

/* Where the options end: the script's place in argv. 0: none. −1: bad usage was reported;
 * −2: help was shown. */
static int parse(int argc, char **argv, struct lua_lathe *lathe, int *first_argument)
{
    struct lathe_error err;
    int script = 0, i = 1;
    for (; i < argc && strcmp(argv[i], "--"); i++) {
        const char *word = argv[i];
        const char *value = NULL;
        if (!strcmp(word, "-h") || !strcmp(word, "--help")) {
            lathe->help = true;
        } else if (!strcmp(word, "-q") || !strcmp(word, "--quiet")) {
            lathe->quiet = true;
        } else if (!strcmp(word, "--resume")) {
            lathe->resume = true;
        } else if (!strncmp(word, "--set", 5) || !strncmp(word, "--database", 10)) {
            bool set = word[2] == 's';
            size_t length = set ? 5 : 10;
            if (word[length] == '=')
                value = word + length + 1;
            else if (word[length])
                return command_usage("run", "there is no option %s", word), -1;
            else if (i + 1 < argc)
                value = argv[++i];
            else
                return command_usage("run", "%s needs a value", word), -1;
            if (!set)
                lathe->database = value;
            else if (overrides_add(&lathe->overrides, value, &err))
                return command_usage("run", "%s", err.message), -1;
        } else if (word[0] == '-' && word[1]) {
            static const char *const options[] = { "--set", "--database", "--resume", "--quiet", "--help" };
            const char *near = nearest_name(word, options, 5);
            return command_usage("run", script ? "there is no option %s%s%s%s (the script's own stand behind --)"
                                               : "there is no option %s%s%s%s", word,
                                 near ? ", did you mean " : "", near ? near : "", near ? "?" : ""), -1;
        } else if (script) {
            return command_usage("run", "one script at a time, but there is \"%s\" too (its options stand behind --)",
                                 word), -1;
        } else {
            script = i;
        }
    }
    *first_argument = i < argc ? i + 1 : argc;
    return script;
}

int cmd_run(int argc, char **argv)
{
    struct lua_lathe lathe = { 0 };
    struct lathe_error err = { 0 };
    int first = argc, result;
    int script = parse(argc, argv, &lathe, &first);
    if (script < 0) {
        result = 2;
    } else if (!script && lathe.help) {
        print_help();
        result = 0;
    } else if (!script) {
        result = command_usage("run", "which script? lathe run experiments/first_light.lua");
    } else {
        lathe.script = argv[script];
        const char *slash = strrchr(lathe.script, '/'), *base = slash ? slash + 1 : lathe.script;
        size_t length = strlen(base);
        if (length > 4 && !strcmp(base + length - 4, ".lua"))
            length -= 4;
        snprintf(lathe.name, sizeof lathe.name, "%.*s", (int)length, base);
        lathe.question = read_question(lathe.script);
        lathe.argv_json = arguments_json(argc, argv);
        int status = run(&lathe, argc - first, argv + first, &err);
        if (lathe.usage)
            result = command_usage("run", "%s", err.message);
        else
            result = status ? command_fail("run", 1, &err) : 0;
    }
    free(lathe.question);
    free(lathe.argv_json);
    overrides_clear(&lathe.overrides);
    return result;
}
