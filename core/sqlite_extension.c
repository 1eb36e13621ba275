/* SPDX-License-Identifier: MIT */
/* The extension's entry: what there is stands in sqlite_extension.h. */
#include "sqlite_extension.h"

#ifdef LATHE_SQLITE_LOADABLE
SQLITE_EXTENSION_INIT1
#endif

static int init(sqlite3 *db)
{
    int rc = sqlite_percentile_init(db);
    if (rc == SQLITE_OK)
        rc = sqlite_hdr_init(db);
    if (rc == SQLITE_OK)
        rc = sqlite_functions_init(db);
    return rc == SQLITE_OK ? sqlite_packed_init(db) : rc;
}

#ifdef LATHE_SQLITE_LOADABLE
/* SQLite makes this name from lathe_sqlite.so. */
__attribute__((visibility("default"))) int sqlite3_lathesqlite_init(sqlite3 *db, char **error,
                                                                    const sqlite3_api_routines *api);
int sqlite3_lathesqlite_init(sqlite3 *db, char **error, const sqlite3_api_routines *api)
{
    SQLITE_EXTENSION_INIT2(api);
    (void)error;
    return init(db);
}
#else
int lathe_sqlite_init_static(sqlite3 *db)
{
    return init(db);
}
#endif
