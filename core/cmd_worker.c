/* SPDX-License-Identifier: MIT */
/* lathe worker: the other end of a bus whose workers are processes. Not for people: a bus
 * starts it, with a socket as --fd. It loads the bus's own .so and lets that serve; what the
 * recipe says is made here (recipe.h), so that a bus needs to know nothing of tokenizers and
 * models. Its clock is the host's: --epoch is where the host's clock has its 0. */
#include "command.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "host.h"
#include "library.h"
#include "recipe.h"
#include <lathe/bus.h>

static const char usage[] =
    "usage: lathe worker --fd N --bus FILE [--epoch NS]\n"
    "\n"
    "A worker process of a bus, started by the bus itself: it makes the services that it is told\n"
    "of through the socket N, answers their calls, and ends when it is told to or when the host is\n"
    "gone. By hand it is of no use.\n"
    "\n"
    "      --fd N       the socket to the host\n"
    "      --bus FILE   the bus's own plugin file\n"
    "      --epoch NS   the machine's monotonic time at which the host's clock says 0\n"
    "  -h, --help\n";

/* The maker's context: what serve asked for. */
struct kitchen {
    struct clock clock;
    struct recipe *recipe;
};

static int open_services(void *context, const void *json, uint64_t bytes, const struct lathe_service **services,
                         uint32_t *count, struct lathe_error *err)
{
    struct kitchen *kitchen = context;
    int status = recipe_open(json, (size_t)bytes, &kitchen->clock, &kitchen->recipe, err);
    if (status == LATHE_OK)
        *services = recipe_services(kitchen->recipe, count);
    return status;
}

static void close_services(void *context)
{
    struct kitchen *kitchen = context;
    recipe_close(kitchen->recipe);
    kitchen->recipe = NULL;
}

/* "…/shm.so" → "shm". */
static int name_of_file(const char *path, char name[64], struct lathe_error *err)
{
    const char *file = strrchr(path, '/');
    size_t n = strlen(file = file ? file + 1 : path);
    if (n < 4 || n - 3 >= 64 || strcmp(file + n - 3, ".so") != 0)
        return lathe_fail(err, LATHE_EINVAL, "--bus %.300s: a plugin's file, NAME.so, is expected", path);
    snprintf(name, 64, "%.*s", (int)(n - 3), file);
    return LATHE_OK;
}

static int serve(int fd, const char *path, int64_t epoch_ns, struct lathe_error *err)
{
    struct kitchen kitchen = { .clock = { .kind = CLOCK_KIND_REAL, .epoch_ns = epoch_ns } };
    struct lathe_recipe_maker maker = { .size = sizeof maker, .context = &kitchen, .open = open_services,
                                        .close = close_services };
    struct library library;
    struct lathe_host host;
    char name[64], owner[72];
    int status = name_of_file(path, name, err);
    if (status != LATHE_OK || (status = library_open(path, LATHE_KIND_BUS, name, &library, err)) != LATHE_OK)
        return status;
    const struct lathe_api_head *api = library.plugin->api;
    const struct lathe_bus_worker *worker = api->get_extension ? api->get_extension(NULL, LATHE_BUS_WORKER) : NULL;
    if (!worker)
        return lathe_fail(err, LATHE_EUNSUPPORTED, "bus %s has no worker processes", name);
    snprintf(owner, sizeof owner, "bus/%s", name);
    struct host_context *context = host_context_create(owner, &kitchen.clock, &host);
    if (!context)
        return lathe_fail(err, LATHE_ENOMEM, "no memory for a worker");
    status = worker->serve(&host, fd, &maker, err);
    close_services(&kitchen);
    host_context_destroy(context);
    return status;
}

/* A whole number of at least 0, or −1. */
static int64_t number(const char *text)
{
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    return end == text || *end || errno || value < 0 ? -1 : value;
}

int cmd_worker(int argc, char **argv)
{
    static const struct option options[] = {
        { "fd", required_argument, NULL, 'f' },
        { "bus", required_argument, NULL, 'b' },
        { "epoch", required_argument, NULL, 'e' },
        { "help", no_argument, NULL, 'h' },
        { NULL, 0, NULL, 0 },
    };
    struct lathe_error err = { 0 };
    const char *bus = NULL;
    int64_t fd = -1, epoch_ns = 0;
    optind = 1;
    opterr = 0;
    for (int option; (option = getopt_long(argc, argv, ":h", options, NULL)) != -1;)
        switch (option) {
        case 'f': fd = number(optarg); break;
        case 'b': bus = optarg; break;
        case 'e': epoch_ns = number(optarg); break;
        case 'h': fputs(usage, stdout); return 0;
        case ':': return command_usage("worker", "%s needs a value", argv[optind - 1]);
        default: return command_usage("worker", "unknown option %s", argv[optind - 1]);
        }
    if (optind < argc)
        return command_usage("worker", "\"%s\" is unexpected", argv[optind]);
    if (fd < 0 || fd > INT32_MAX || fcntl((int)fd, F_GETFD) < 0 || !bus || epoch_ns < 0)
        return command_usage("worker", "an open socket (--fd N) and a bus's file (--bus FILE) are expected; a bus gives "
                             "both when it starts a worker");
    signal(SIGINT, SIG_IGN); /* Ctrl-C at the terminal is the host's to handle; it then ends its workers */
    if (serve((int)fd, bus, epoch_ns, &err) != LATHE_OK)
        return command_fail("worker", 1, &err);
    return 0;
}
