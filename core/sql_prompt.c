/* SPDX-License-Identifier: MIT */
/* The prompt of `lathe sql`. */
#include "sql.h"

#include <stdlib.h>

int sql_prompt(sqlite3 *db, const char *path, enum sql_format format)
{
    char *line = NULL;
    size_t capacity = 0;
    printf("%s\n", path);
    while (fputs("lathe> ", stdout), fflush(stdout), getline(&line, &capacity, stdin) > 0) {
        struct sql_position at = { .text = line };
        struct lathe_error err;
        if (sql_run(db, &at, format, stdout, &err))
            fprintf(stderr, "%s\n", err.message);
    }
    putchar('\n');
    free(line);
    return 0;
}
