// Gather: a session's lineage, read from the store for whoever plans with it on another thread: recovery, trim, explain.

#ifndef SCHED_GATHER_H
#define SCHED_GATHER_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/error.h"
#include "core/io/blob.h"
#include "core/lineage/record.h"

struct gather;
struct head;
struct head_ticket;
struct recovery;
struct store_result;

#define GATHER_BYTES_MAX ((uint64_t)1 << 31)

// Called once, with everything read or with an error; the gather stays the caller's.
typedef void gather_done(struct head *head, struct gather *gather, void *context, enum dj_error error, const struct fault *fault);

// Reads the session's records. False out of memory. *ret is set before `done` can be called.
bool gather_begin(struct head *head, uint64_t session, gather_done *done, void *context, struct gather **ret);
void gather_free(struct gather *gather);    // at any time: `done` is not called any more. NULL is allowed
void gather_abandon(struct gather *gather);    // what it waits for will not come: the head ends

void gathers_check(struct head *head);    // those that waited for the journal
void gather_read(struct head *head, struct gather *gather, enum dj_error error, struct store_result *result);    // takes the result
void gather_surveyed(struct head *head, struct gather *gather);

// After `done`, on any thread.
DJ_MUST_USE enum dj_error gather_feed(const struct gather *gather, struct recovery *recovery);    // plans, records, checkpoints
bool gather_has_leaf(void *context, struct hash128 content);    // a recovery_has_leaf; the context is the gather
const struct blob *gather_plan(const struct gather *gather, uint32_t index);    // RECORD_PLANs; NULL behind the last
uint64_t gather_records(const struct gather *gather);

// The records as stored, in the order of their keys: executions and imports (output UINT32_MAX), then checkpoints.
struct gather_cursor {
    uint32_t page, entry;
};
bool gather_next(const struct gather *gather, struct gather_cursor *cursor, struct record_ref *ret_key, const struct blob **ret);

#endif
