/* SPDX-License-Identifier: MIT */
/* Behaviours of models' memory: kept lists, rotation when read, masses, types of keys and values. A
 * model may refuse what it doesn't offer, with LATHE_EUNSUPPORTED and a sentence. */
#ifndef TESTS_CONFORMANCE_MODEL_KEPT_H
#define TESTS_CONFORMANCE_MODEL_KEPT_H

#include "../harness.h"

void takes_the_kv_types_that_it_offers(struct subject *s);
void a_kept_list_of_all_changes_nothing(struct subject *s);
void sets_that_are_alike_are_one(struct subject *s);
void positions_in_the_cache_are_positions_while_nothing_goes(struct subject *s);
void masses_sum_to_rows_and_heads(struct subject *s);

#endif
