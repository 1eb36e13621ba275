/* SPDX-License-Identifier: MIT */
/* What Lathe adds to SQLite. Built twice: into lathe, and as lathe_sqlite.so, which sqlite3 (.load)
 * and Python (load_extension) load by name.
 *
 *     attention           a row a head of a probed query: run_id, request_id, position, layer, head,
 *                         entropy (nats), first_mass, recent_mass, self_mass, top_key, top_weight
 *     attention_weights   a row a key: run_id, request_id, position, layer, head, key, weight, measure
 *     layer_norms         a row a layer: …, layer, before, attention, feed, after
 *     head_norms          a row a head: …, layer, head, norm
 *     layer_lens          a row a token that a layer would say: …, layer, rank, token, logprob
 *     layer_hidden        a row a dimension: …, layer, dimension, value
 *
 *     percentile(x, p)      exact, interpolated; median(x)
 *     hdr_percentile(x, p)  within 0.4%, in little memory; hdr(x) is what it counts, to be merged
 *     entropy(w)            of weights or counts w, or of blobs of half precision, in nats
 *     jensen_shannon(p, q)  divergence of two rows of weights, over their pairs, in nats; cosine(p, q)
 *     half(blob, i)         the i-th number, from 0, of a blob in half precision
 *     token_text(run, id)   a token's text in a run */
#ifndef CORE_SQLITE_EXTENSION_H
#define CORE_SQLITE_EXTENSION_H

#ifdef LATHE_SQLITE_LOADABLE
#include <sqlite3ext.h>
SQLITE_EXTENSION_INIT3 /* the routines of the program that loads it, which sqlite_extension.c holds */
#else
#include <sqlite3.h>
#endif

/* For a connection of lathe's own: SQLITE_OK or an SQLite error code. [any] */
int lathe_sqlite_init_static(sqlite3 *db);

int sqlite_packed_init(sqlite3 *db);     /* sqlite_packed.c: the tables */
int sqlite_percentile_init(sqlite3 *db); /* sqlite_percentile.c: percentile, median */
int sqlite_hdr_init(sqlite3 *db);        /* sqlite_hdr.c: hdr, hdr_percentile */
int sqlite_functions_init(sqlite3 *db);  /* sqlite_functions.c: entropy, half, token_text */

#endif
