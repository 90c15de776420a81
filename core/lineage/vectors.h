// Vectors: binding vectors out of execution records, one record after the other. A delta names the two vectors that it needs by the counters of
// their executions (record.h: base, before), so the latest decoded ones are kept by those. Who needs vectors in any order has core/lineage/recovery.h.
//
// Bounded: over a limit the one goes first that was the last but one of a chain, then the oldest. One thread.

#ifndef CORE_LINEAGE_VECTORS_H
#define CORE_LINEAGE_VECTORS_H

#include <stdint.h>

#include "core/base/error.h"
#include "core/lineage/record.h"

struct vectors;

DJ_MUST_USE enum dj_error vectors_make(uint32_t entries_max, uint64_t bytes_max, struct vectors **ret);
void vectors_free(struct vectors *vectors);    // NULL is allowed

// The words of a record of a plan that has so many: NULL when it does not decode to what its check says, when a vector that it needs is not
// there, or out of memory. Good until the next call.
const int64_t *vectors_decode(struct vectors *vectors, const struct record_execution *execution, uint32_t words);

#endif
