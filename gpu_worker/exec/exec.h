// Exec: one device's executor. Turns executions (a plan and its bindings) into lists of tasks for the device port, and owns every byte of
// the device's region: values that handles name, leaves, workspaces.
//
// Idea: everything is decided before the device starts. exec_prepare infers shapes, lays out memory, reserves all of it and writes the
// task list; the device only follows. Values exist from then on (later executions may be prepared on top of them at once, since lists of
// one stream run in order); exec_complete says whether they came true. When an execution fails, whatever was prepared on top of it
// fails with the same error.
//
// Memory: intermediates live in one workspace, by lifetimes; kept outputs in buffers of their own. Buffers are counted: by values, by
// leaves, by runs in flight. A dying input is reused in place for a pointwise result; a donated one is a dying input. `cat(c, x)`
// writes only x where c ends at what its buffer has committed and capacity is left (design, rule 10). View ops are metadata.
//
// Pure: no clock, no thread, no I/O; one thread. What is in flight stays untouched until its IO_DEVICE_DONE.

#ifndef GPU_WORKER_EXEC_EXEC_H
#define GPU_WORKER_EXEC_EXEC_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/error.h"
#include "core/base/hash.h"
#include "core/io/blob.h"
#include "core/io/device.h"
#include "core/lineage/handle.h"
#include "core/srg/plan.h"

struct exec;
struct exec_plan;
struct exec_run;

enum {
    EXEC_VALUES_MAX = 1 << 20,          // handles alive on one device
    EXEC_LEAVES_MAX = 1 << 15,          // above it the least recently used ones that may be dropped are
    EXEC_PLANS_MAX = 4096,              // likewise
    EXEC_BLOCKS_MAX = 1 << 21,
    EXEC_DEPENDENCIES_MAX = 32,         // runs in flight that one execution may build on
    EXEC_ANSWERS_MAX = 4096,            // outputs read back by one execution
    EXEC_SLACK_ROWS = 64,               // what a growing value gets at least ...
    EXEC_READ_SEGMENTS_MAX = 4096,      // contiguous stretches of one exec_read; beyond it the rows are gathered by a kernel
};
#define EXEC_SLACK_BYTES_MAX ((uint64_t)64 << 20)   // ... and at most, beyond its size
#define EXEC_INLINE_BYTES ((uint64_t)1024)          // answers up to this size lie behind the larger ones in the blob

// Makes an executor for the whole region of `port`, which must outlive it. DJ_E_NO_MEMORY, DJ_E_INVALID.
DJ_MUST_USE enum dj_error exec_make(const struct device_port *port, struct exec **ret);
void exec_free(struct exec *exec);              // the device is stopped; runs still out are freed. NULL is allowed

// Plans, by fingerprint; the least recently used one that nobody holds makes room. exec_plan_put takes its own hold of `plan`;
// putting one that is there only touches it.
DJ_MUST_USE enum dj_error exec_plan_put(struct exec *exec, struct srg_plan *plan);
struct exec_plan *exec_plan_find(struct exec *exec, struct hash128 fingerprint);    // NULL when absent
void exec_plan_hold(struct exec_plan *plan);
void exec_plan_drop(struct exec_plan *plan);    // NULL is allowed
struct srg_plan *exec_plan_structure(const struct exec_plan *plan);

// Leaves, by content.
enum exec_leaf_state { LEAF_ABSENT, LEAF_FILLING, LEAF_READY };
enum exec_leaf_state exec_leaf_state(const struct exec *exec, struct hash128 content);
// A whole leaf: a copy of blob[offset, +bytes). DJ_E_FRAME_CORRUPT when its hash is another one.
DJ_MUST_USE enum dj_error exec_leaf_put(struct exec *exec, struct hash128 content, struct blob *blob, uint64_t offset, uint64_t bytes);
// A leaf in chunks, in order: begin reserves its memory (DJ_E_DEVICE_MEMORY with sizes), chunk gives a run to submit for each.
// The leaf is ready when the last run is complete. A wrong hash (DJ_E_FRAME_CORRUPT), a gap or an excess (DJ_E_MALFORMED) drops it.
DJ_MUST_USE enum dj_error exec_leaf_begin(struct exec *exec, struct hash128 content, uint64_t bytes, struct fault *fault);
DJ_MUST_USE enum dj_error exec_leaf_chunk(struct exec *exec, struct hash128 content, uint64_t offset, struct blob *blob,
                                          struct exec_run **ret, struct fault *fault);
void exec_leaf_abandon(struct exec *exec, struct hash128 content);      // a leaf that is filling and will not be continued
// Reads a ready leaf's bytes [offset, +bytes) back: a run whose blob has them. DJ_E_LEAF_UNKNOWN, DJ_E_INVALID, DJ_E_BUSY.
DJ_MUST_USE enum dj_error exec_leaf_read(struct exec *exec, struct hash128 content, uint64_t offset, uint64_t bytes,
                                         struct exec_run **ret);
// The bytes of a leaf that came whole, while it is not durable: who makes it so need not ask the device. NULL otherwise. The executor's
// hold.
struct blob *exec_leaf_host(const struct exec *exec, struct hash128 content);
uint64_t exec_leaf_bytes(const struct exec *exec, struct hash128 content);          // 0 when absent
// Others have the leaf too, so that it may be dropped under pressure. Leaves are not droppable before.
void exec_leaf_set_durable(struct exec *exec, struct hash128 content);
bool exec_leaf_is_durable(const struct exec *exec, struct hash128 content);
// It may be dropped too, and is the first to go; but it is not durable.
void exec_leaf_set_replica(struct exec *exec, struct hash128 content);
// Visits every ready leaf; `visit` must not change them.
void exec_each_leaf(const struct exec *exec, void (*visit)(void *context, struct hash128 content, uint64_t bytes), void *context);
// Called for each leaf that is dropped under pressure; must not call back.
void exec_on_leaf_dropped(struct exec *exec, void (*dropped)(void *context, struct hash128 content), void *context);

struct exec_answer {
    uint32_t output;
    struct tensor_meta meta;            // contiguous
    uint64_t offset, bytes;             // in the run's blob; answers over EXEC_INLINE_BYTES come first, without gaps
};

// One list in flight: an execution, a fetch, an import or a leaf's chunk.
struct exec_run {
    struct device_list list;            // to submit
    struct exec_id id;
    void *owner;                        // the caller's, for its own bookkeeping
    // After exec_complete:
    enum dj_error error;
    int64_t node;                       // that failed; -1: none in particular
    struct fault fault;
    struct blob *blob;                  // answers; NULL when there are none. The run's hold
    uint32_t answers;
    const struct exec_answer *answer;
};

struct exec_request {
    struct exec_id id;
    struct exec_plan *plan;
    const int64_t *word;                // plan->words; copied
    const uint8_t *kept, *donated;      // bits over flat outputs and inputs; bits beyond the end are 0
    uint32_t kept_bytes, donated_bytes;
    const uint32_t *answer;             // flat outputs whose bytes are wanted
    uint32_t answers;
    const uint32_t *name;               // the kept outputs' numbers as handles, by flat output; NULL: the flat outputs themselves
    uint32_t names;                     // equals the number of kept outputs, and no number comes twice: checked
};

// The first leaf that the execution names and that is not ready; false when none is missing.
bool exec_missing_leaf(const struct exec *exec, const struct exec_plan *plan, const int64_t *word, uint32_t *input,
                       struct hash128 *ret);

// Binds, reserves, writes the list. On success the kept outputs are values, donated handles are gone, and *ret must be submitted and later
// completed. A kept output whose handle is a value already stays that value (a handle names one value for ever); a failed one is
// replaced. On failure nothing has changed: DJ_E_DEVICE_MEMORY with sizes, DJ_E_HANDLE_UNKNOWN, DJ_E_LEAF_UNKNOWN, DJ_E_OP_UNSUPPORTED,
// DJ_E_BINDINGS_INVALID and what op_infer says, DJ_E_BUSY beyond EXEC_DEPENDENCIES_MAX; an input that failed gives its own error.
// *ret_node: which node (-1: none).
DJ_MUST_USE enum dj_error exec_prepare(struct exec *exec, const struct exec_request *request, struct exec_run **ret, int64_t *ret_node,
                                       struct fault *fault);

// Marks the outputs that an execution should have kept as failed, so that who needs them gets this error.
void exec_fail(struct exec *exec, const struct exec_request *request, int64_t node, const struct fault *fault);

// One value's bytes, contiguous, as the run's only answer. DJ_E_HANDLE_UNKNOWN; a failed value's own error.
DJ_MUST_USE enum dj_error exec_fetch(struct exec *exec, struct handle handle, struct exec_run **ret, struct fault *fault);

// COMING: what makes it is in flight.
enum exec_value_state { VALUE_ABSENT, VALUE_FAILED, VALUE_COMING, VALUE_HERE };
enum exec_value_state exec_value_state(const struct exec *exec, struct handle handle);
uint64_t exec_value_bytes(const struct exec *exec, struct handle handle);       // as read; 0 when it is not here
static inline bool exec_has(const struct exec *exec, struct handle handle)      // here or coming
{
    return exec_value_state(exec, handle) >= VALUE_COMING;
}
// Visits every value that is HERE; `visit` must not change them.
void exec_each_value(const struct exec *exec, void (*visit)(void *context, struct handle handle, uint64_t bytes), void *context);
// A second name for a value that is HERE: same memory. DJ_E_HANDLE_UNKNOWN, DJ_E_BUSY (COMING), a failed value's own error, DJ_E_LIMIT.
DJ_MUST_USE enum dj_error exec_alias(struct exec *exec, struct handle from, struct handle to, struct fault *fault);

// A pin keeps a value's bytes as they are now, also after its handle was released or donated (who would have overwritten them gets other
// memory). A value that is COMING may be pinned, and read once what makes it is complete without an error.
struct exec_pin {
    struct handle handle;
    struct tensor_meta meta;            // contiguous
    int32_t grow_dim;                   // the dimension it grows in; -1: it does not
    uint64_t memory;                    // with grow_dim >= 0: equal for values whose common first rows are the same bytes; else 0
    struct { struct buffer *buffer; uint64_t offset; struct tensor_meta meta; } place;     // exec's
};
// DJ_E_HANDLE_UNKNOWN; a failed value's own error.
DJ_MUST_USE enum dj_error exec_pin(struct exec *exec, struct handle handle, struct exec_pin *ret);
void exec_unpin(struct exec *exec, struct exec_pin *pin);           // reads in flight go on
// Rows [start, +rows) of dimension `dim` as the run's only answer, contiguous: read on the transfer stream without a kernel where the rows
// are few enough stretches. Rank 0: dim 0, start 0, rows 1. DJ_E_INVALID outside the value, DJ_E_DEVICE_MEMORY, DJ_E_NO_MEMORY.
DJ_MUST_USE enum dj_error exec_read(struct exec *exec, const struct exec_pin *pin, uint32_t dim, int64_t start, int64_t rows,
                                    struct exec_run **ret);

// A value from elsewhere: `blob` (held until complete) has the bytes of a contiguous tensor of dtype and sizes of `meta`.
DJ_MUST_USE enum dj_error exec_import(struct exec *exec, struct handle handle, const struct tensor_meta *meta, struct blob *blob,
                                      struct exec_run **ret, struct fault *fault);

// A value in the memory of another device, `offset` bytes from the start of its region, dense, of at least a byte: takes memory here and gives the
// run that copies it there on the transfer stream. *ret holds the memory until exec_unpin. DJ_E_DEVICE_MEMORY, DJ_E_NO_MEMORY.
DJ_MUST_USE enum dj_error exec_copy_peer(struct exec *exec, const struct device_peer *peer, uint64_t offset, const struct tensor_meta *meta,
                                         struct exec_pin *ret_pin, struct exec_run **ret_run);
// What was so copied, by a run that is complete without an error, becomes this value at once. The pin stays the caller's. DJ_E_NO_MEMORY,
// DJ_E_LIMIT, DJ_E_DUPLICATE_DIFFERS.
DJ_MUST_USE enum dj_error exec_adopt(struct exec *exec, struct handle handle, const struct exec_pin *pin, struct fault *fault);
// Where the pinned value's bytes begin in the region; false when they do not lie there one behind the other.
bool exec_pin_offset(const struct exec_pin *pin, uint64_t *ret_offset);

// The device is done with the run's list: fills the run's result fields and lets go of what it pinned. Not before all that the run builds
// on is complete (lists may come back in another order than they ran in): it fails with them.
bool exec_may_complete(const struct exec_run *run);
void exec_complete(struct exec *exec, struct exec_run *run);
void exec_run_free(struct exec *exec, struct exec_run *run);            // after exec_complete

bool exec_release(struct exec *exec, struct handle handle);             // false when there is no such handle
uint32_t exec_session_drop(struct exec *exec, uint64_t session);    // all handles of it; returns how many

// Gives physical memory behind large free spans back to the system; for idle moments.
void exec_trim(struct exec *exec);

struct exec_stats {
    uint64_t executions, tasks, failures;
    uint64_t appends;                   // cats that wrote only what is new
    uint64_t cat_copies;                // cats onto a kept value that had to copy it
    uint64_t view_copies;               // views without a physical equivalent
    uint64_t in_place, donated;         // results that took over an input's memory; of those, from donated inputs
    uint64_t evictions;                 // leaves dropped under pressure
    uint64_t used_bytes, capacity_bytes, leaf_bytes;
    uint32_t values, leaves, plans, in_flight;
};

struct exec_stats exec_stats(const struct exec *exec);

#endif
