// Upkeep: checking, copying and bringing back a store, beside a head that runs on it or without one. `djinn store` is made of this.
//
// All of it looks at one moment: LMDB's readers see a snapshot, and while <state>/pin is held the head removes no blob file that the
// snapshot names. Whoever dies in the middle lets go of both. Any thread; blocks for as long as the disk takes.

#ifndef STORE_UPKEEP_H
#define STORE_UPKEEP_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/error.h"
#include "core/io/store.h"

// What is told on the way; each may be NULL.
struct upkeep_watch {
    void *context;
    void (*progress)(void *context, const char *what, uint64_t done_bytes, uint64_t all_bytes);    // from time to time
    void (*damaged)(void *context, const char *table, const char *key_hex, const char *why);
};

struct upkeep_report {
    uint64_t values, plain_bytes;       // read and found good
    uint64_t files, file_bytes;         // of them, in files; what those take on disk
    uint64_t damaged;                   // values that cannot be read, or not as they were written
    uint64_t orphans;                   // files that no value names: no damage, a head removes them when it starts
    uint64_t tree_bytes;
    uint64_t entries[STORE_TABLES];
};

// Reads every value of the store in `state` (a backup is one too) and compares it with its checksum. DJ_OK when it could be gone through,
// whatever was found. DJ_E_NOT_FOUND, DJ_E_STORE_VERSION, DJ_E_STORE_CORRUPT (not even its tables can be read), DJ_E_STORE.
DJ_MUST_USE enum dj_error upkeep_check(const char *state, const struct upkeep_watch *watch, struct upkeep_report *ret, struct fault *fault);

// Copies the store of `state` to `target`, which must not be there: written to `target`.part, checked, synced, renamed. The token goes with
// it. *ret is what the check of the copy found: what was damaged before is damaged in the copy. DJ_E_STORE_FULL.
DJ_MUST_USE enum dj_error upkeep_backup(const char *state, const char *target, const struct upkeep_watch *watch, struct upkeep_report *ret,
                                        struct fault *fault);
// Makes the state folder `state`, absent or empty, of a backup, in the same way. DJ_E_BUSY when a head runs on it, DJ_E_INVALID when it is
// not empty.
DJ_MUST_USE enum dj_error upkeep_restore(const char *backup, const char *state, const struct upkeep_watch *watch, struct upkeep_report *ret,
                                         struct fault *fault);

#endif
