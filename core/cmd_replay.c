/* SPDX-License-Identifier: MIT */
/* lathe replay DB RUN: a run again, from its rows; the first difference is named.
 *
 * The work is done by scripts/lathe/replay.lua in the state that `lathe run` has too: what it
 * rebuilds is a description for lathe.run, and two databases are compared by SQL. */
#include "command.h"

#include <getopt.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "lua_internal.h"

static const char usage[] =
    "usage: lathe replay DB [RUN] [options]\n"
    "\n"
    "Repeats run number RUN of DB from its rows: the stages and options of run.config, its requests\n"
    "(when, how long, for whom), its seed and clock. Then compares who was in which step with how\n"
    "many tokens, the tokens, and how requests ended. Says how many steps and tokens are equal, or\n"
    "names the first difference, with status 1. RUN may be left out where DB holds one.\n"
    "\n"
    "A run with arrivals by a real clock can't be repeated exactly; all at once, a closed loop without\n"
    "thinking, or the virtual clock can. Prompts are repeated if the run recorded them (trace =\n"
    "{ tokens = \"all\" }) or drew them by length.\n"
    "\n"
    "  -o, --output FILE               where the repeated run lands (default: results/replay.db)\n"
    "      --set KIND=NAME:OPTION=VALUE,…  another plugin or option than then: what would it have\n"
    "                                  decided? May be repeated\n"
    "  -q, --quiet                     no progress\n"
    "  -h, --help\n"
    "\n"
    "  lathe replay results/first_light.db 2\n"
    "  lathe replay results/first_light.db 2 --set scheduler=sjf\n";

struct arguments {
    const char *path;
    lua_Integer run; /* 0: the only one */
};

static int replay(lua_State *L, const struct arguments *a, struct lathe_error *err)
{
    lua_getglobal(L, "require");
    lua_pushliteral(L, "lathe.replay");
    int status = lua_lathe_call(L, 1, 1, err);
    if (status)
        return status;
    lua_getfield(L, -1, "main");
    lua_newtable(L);
    lua_set_text(L, "database", a->path);
    if (a->run)
        lua_set_integer(L, "run", a->run);
    return lua_lathe_call(L, 1, 0, err);
}

static int run(struct lua_lathe *lathe, const struct arguments *a, struct lathe_error *err)
{
    char script[PATH_MAX], scripts[PATH_MAX - 32];
    int status = product_path("scripts", scripts, sizeof scripts, err);
    if (!status)
        status = registry_open(NULL, &lathe->registry, err);
    if (status)
        return status;
    snprintf(script, sizeof script, "%s/lathe/replay.lua", scripts);
    lathe->script = script;
    lua_State *L = lua_lathe_open(lathe, err);
    if (L) {
        lua_interrupt_watch(L);
        status = replay(L, a, err);
        interrupt_unwatch();
        lua_close(L);
    } else {
        status = err->code;
    }
    registry_close(lathe->registry);
    return status;
}

static int read_run(const char *text, lua_Integer *run)
{
    char *end;
    *run = strtoll(text, &end, 10);
    if (*end || end == text || *run < 1)
        return command_usage("replay", "RUN is a run's number (select id from run), not \"%.60s\"", text);
    return 0;
}

static int unknown_option(const char *word)
{
    static const char *const names[] = { "--output", "--set", "--quiet", "--help" };
    const char *near = nearest_name(word, names, sizeof names / sizeof *names);
    return command_usage("replay", "there is no option %.60s%s%s%s", word, near ? ", did you mean " : "", near ? near : "",
                         near ? "?" : "");
}

int cmd_replay(int argc, char **argv)
{
    static const struct option options[] = {
        { "output", required_argument, NULL, 'o' }, { "set", required_argument, NULL, 's' },
        { "quiet", no_argument, NULL, 'q' },        { "help", no_argument, NULL, 'h' },
        { NULL, 0, NULL, 0 },
    };
    struct lua_lathe lathe = { .name = "replay" };
    struct arguments a = { 0 };
    struct lathe_error err = { 0 };
    int option, status = 0;
    optind = 1;
    opterr = 0;
    while (!status && (option = getopt_long(argc, argv, ":o:qh", options, NULL)) != -1)
        switch (option) {
        case 'o': lathe.database = optarg; break;
        case 'q': lathe.quiet = true; break;
        case 's':
            if (overrides_add(&lathe.overrides, optarg, &err))
                status = command_usage("replay", "%s", err.message);
            break;
        case 'h': fputs(usage, stdout); overrides_clear(&lathe.overrides); return 0;
        case ':': status = command_usage("replay", "%s needs a value", argv[optind - 1]); break;
        default: status = unknown_option(argv[optind - 1]);
        }
    if (!status && optind == argc)
        status = command_usage("replay", "which run? lathe replay results/x.db 1");
    if (!status)
        a.path = argv[optind++];
    if (!status && optind < argc)
        status = read_run(argv[optind++], &a.run);
    if (!status && optind < argc)
        status = command_usage("replay", "one run at a time, and \"%.60s\" is left over", argv[optind]);
    if (!status && run(&lathe, &a, &err))
        status = command_fail("replay", 1, &err);
    overrides_clear(&lathe.overrides);
    return status;
}
