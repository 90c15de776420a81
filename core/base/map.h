// Map: open addressing from a 128-bit key (wrap narrower keys with lo only) to a pointer. Bounded, one thread, no tombstones
// (backward-shift deletion). Iteration order is that of the slots: deterministic for the same sequence of calls.

#ifndef CORE_BASE_MAP_H
#define CORE_BASE_MAP_H

#include <stddef.h>
#include <stdint.h>

#include "core/base/error.h"
#include "core/base/hash.h"

struct map;

DJ_MUST_USE enum dj_error map_make(uint32_t entries_max, struct map **ret);
void map_free(struct map *map);                                              // NULL is allowed; values are not touched

void *map_get(const struct map *map, struct hash128 key);                    // NULL when absent
// Inserts or replaces; `value` must not be NULL. DJ_E_LIMIT at entries_max, DJ_E_NO_MEMORY.
DJ_MUST_USE enum dj_error map_put(struct map *map, struct hash128 key, void *value);
void *map_take(struct map *map, struct hash128 key);                         // removes; the value, or NULL when absent
uint32_t map_count(const struct map *map);

// Visits the entries from *cursor (start at 0) on: returns the value and advances, NULL at the end. The map must not change
// between calls. `key` may be NULL.
void *map_next(const struct map *map, uint32_t *cursor, struct hash128 *key);

static inline struct hash128 map_key(uint64_t lo) { return (struct hash128){.hi = 0, .lo = lo}; }

#endif
