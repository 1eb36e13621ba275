/* SPDX-License-Identifier: MIT */
/* A profile: what a machine and a model take, as a plain file that people can read, write and
 * send each other. calibrate.lua writes them.
 *
 *     # SmolLM2-135M, two cores: fitted to 812 steps, median error 1.1%
 *     prefill_context_ns = 61
 *     rows_us = 1:5200, 2:6100, 4:6900, 8:9800, 9:24100, 64:66000
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cost.h"

enum { LINE_BYTES = 4096 };

const char *const sim_cost_names[SIM_COST_COUNT + SIM_TABLE_COUNT] = {
    "step_us",    "floor_us", "prefill_us", "prefill_context_ns", "decode_us", "decode_context_ns",
    "padding_us", "swap_us",  "noise",      "rows_us",            "rest_us",   "outputs_us",
};

static char *trimmed(char *text)
{
    text += strspn(text, " \t\r\n");
    for (size_t n = strlen(text); n > 0 && strchr(" \t\r\n", text[n - 1]); n--)
        text[n - 1] = '\0';
    return text;
}

static int read_table(const char *path, unsigned number, const char *text, int which, struct sim_profile *profile,
                      struct lathe_error *err)
{
    char where[300];
    struct sim_table *table = &profile->tables[which - SIM_COST_COUNT];
    snprintf(where, sizeof where, "%.200s:%u: %s", path, number, sim_cost_names[which]);
    int status = sim_table_read(where, text, table, err);
    return status == LATHE_OK && which == SIM_COST_COUNT + SIM_REST ? sim_rest_check(where, table, err) : status;
}

static int read_line(const char *path, unsigned number, char *line, struct sim_profile *profile, struct lathe_error *err)
{
    line[strcspn(line, "#")] = '\0';
    line = trimmed(line);
    if (!*line)
        return LATHE_OK;
    char *equals = strchr(line, '=');
    if (!equals)
        return lathe_fail(err, LATHE_EINVAL, "%s:%u: expected name = value, found \"%.60s\"", path, number, line);
    *equals = '\0';
    char *name = trimmed(line), *text = trimmed(equals + 1), *end;
    int which = 0;
    while (which < SIM_COST_COUNT + SIM_TABLE_COUNT && strcmp(sim_cost_names[which], name))
        which++;
    if (which == SIM_COST_COUNT + SIM_TABLE_COUNT)
        return lathe_fail(err, LATHE_EINVAL, "%s:%u: a profile has no \"%.60s\"; its names are those of model/sim's "
                          "options: `lathe plugins model/sim`", path, number, name);
    if (profile->given[which])
        return lathe_fail(err, LATHE_EINVAL, "%s:%u: %s is given twice", path, number, name);
    profile->given[which] = 1;
    if (which >= SIM_COST_COUNT)
        return read_table(path, number, text, which, profile, err);
    double value = strtod(text, &end);
    if (end == text || *end || !(value >= 0.0 && value <= 1e12))
        return lathe_fail(err, LATHE_EINVAL, "%s:%u: %s should be a number from 0 to 1e12, not \"%.60s\"", path, number,
                          name, text);
    profile->values[which] = value;
    return LATHE_OK;
}

int sim_profile_read(const char *path, struct sim_profile *profile, struct lathe_error *err)
{
    char line[LINE_BYTES];
    unsigned number = 0;
    int status = LATHE_OK;
    *profile = (struct sim_profile){ 0 };
    FILE *file = fopen(path, "r");
    if (!file)
        return lathe_fail(err, LATHE_EIO, "model sim: can't read the profile %s: %s", path, strerror(errno));
    while (status == LATHE_OK && fgets(line, sizeof line, file)) {
        number++;
        if (!strchr(line, '\n') && strlen(line) == sizeof line - 1)
            status = lathe_fail(err, LATHE_EINVAL, "%s:%u: a line of a profile has at most %d bytes", path, number,
                                LINE_BYTES - 2);
        else
            status = read_line(path, number, line, profile, err);
    }
    if (status == LATHE_OK && ferror(file))
        status = lathe_fail(err, LATHE_EIO, "model sim: can't read the profile %s: %s", path, strerror(errno));
    fclose(file);
    return status;
}
