// Handles, the head's table: where each live value is (locations), and who still needs it (references).
//
// Idea: a location is the incarnation of a worker; a reference is a (holder, sequence) pair in a set, so that a repeated message
// changes nothing (there are no counters). Fencing an incarnation takes all its locations away at once and for ever and says which
// handles have none left: those are lost, until somebody gives them a location again (recovery does).
//
// Bounded by the limits given at handles_make. One thread.

#ifndef CORE_LINEAGE_HANDLES_H
#define CORE_LINEAGE_HANDLES_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/error.h"
#include "core/lineage/handle.h"

struct handles;

struct handles_limits {
    uint32_t handles;         // entries
    uint32_t locations;       // of all handles together
    uint32_t references;      // of all handles together
    uint32_t incarnations;    // ever seen, fenced ones included
};

struct handles_info {
    struct handle handle;
    uint64_t bytes;
    uint32_t locations, references;
    uint64_t location;    // the longest-standing one; 0: none
    bool is_lost;         // had a location and has none now
};

struct handles_stats {
    uint32_t handles, locations, references, lost, fenced;
};

DJ_MUST_USE enum dj_error handles_make(struct handles_limits limits, struct handles **ret);
void handles_free(struct handles *handles);    // NULL is allowed

// Adds a handle if it is absent; nothing happens when it is there with the same size, DJ_E_DUPLICATE_DIFFERS with another.
// DJ_E_LIMIT, DJ_E_NO_MEMORY.
DJ_MUST_USE enum dj_error handles_put(struct handles *handles, struct handle handle, uint64_t bytes);
// Forgets a handle with its locations and references; false when it was not there.
bool handles_drop(struct handles *handles, struct handle handle);
bool handles_find(const struct handles *handles, struct handle handle, struct handles_info *ret);    // ret NULL: only whether

// DJ_E_HANDLE_UNKNOWN; DJ_E_EPOCH_FENCED for a fenced incarnation; adding one that is there does nothing.
DJ_MUST_USE enum dj_error handles_add_location(struct handles *handles, struct handle handle, uint64_t incarnation);
bool handles_remove_location(struct handles *handles, struct handle handle, uint64_t incarnation);
// Up to `max` incarnations that hold it, the longest-standing first; returns how many there are in all.
uint32_t handles_locations(const struct handles *handles, struct handle handle, uint64_t *ret, uint32_t max);

// Fences an incarnation (idempotent). Returns in *ret (malloc'd, the caller frees; NULL when there are none) the handles that lost
// their last location by it, in the order in which it got them.
DJ_MUST_USE enum dj_error handles_fence(struct handles *handles, uint64_t incarnation, struct handle **ret, uint32_t *ret_count);
bool handles_is_fenced(const struct handles *handles, uint64_t incarnation);

// Sets of references. Adding one twice, or removing one that is not there, does nothing. handles_release says whether the handle
// exists and has no reference left.
DJ_MUST_USE enum dj_error handles_hold(struct handles *handles, struct handle handle, uint64_t holder, uint64_t sequence);
bool handles_release(struct handles *handles, struct handle handle, uint64_t holder, uint64_t sequence);

// Visits the handles from *cursor (start at 0) on; false at the end. The table must not change between calls.
bool handles_next(const struct handles *handles, uint32_t *cursor, struct handles_info *ret);
struct handles_stats handles_stats(const struct handles *handles);

#endif
