// State: what the files of this folder share. Private.
//
// Who counts what: a buffer is counted by each value, by its leaf and by each run that may still touch it, and its bytes are free at the
// last drop. A run is in the list `in_flight` from exec_prepare to exec_complete.

#ifndef GPU_WORKER_EXEC_STATE_H
#define GPU_WORKER_EXEC_STATE_H

#include "core/base/list.h"
#include "core/base/map.h"
#include "core/base/pool.h"
#include "gpu_worker/exec/exec.h"
#include "gpu_worker/exec/region.h"
#include "gpu_worker/exec/span.h"

struct buffer {
    struct region_block *block;         // NULL: not reserved yet (inside exec_prepare)
    uint64_t bytes;                     // asked for
    uint32_t refs;
    uint64_t serial;                    // of its contents so far: another one when an execution overwrites them
    // Growth: the first `committed` rows along grow_dim belong to values; -1: the buffer does not grow.
    int32_t grow_dim;
    int64_t committed;
    struct tensor_meta grow;            // sizes with the capacity along grow_dim, and the strides of it
};

// Why values are lost; shared by all that depend on the first failure.
struct failure {
    uint32_t refs;
    int64_t node;
    struct fault fault;
};

struct value {
    struct handle handle;
    struct buffer *buffer;              // NULL exactly when failure is set
    uint64_t offset;                    // of the first element, in bytes from the buffer's start
    struct tensor_meta meta;            // physical: sizes and the strides in memory
    struct run *producer;               // still in flight, or NULL
    struct failure *failure;
};

struct run;

struct leaf {
    struct hash128 content;
    uint64_t bytes;
    struct buffer *buffer;              // NULL while it is staged
    struct blob *host;                  // came whole and is not durable yet: its bytes
    struct blob *staged;                // bytes that no run has written yet, at staged_offset
    uint64_t staged_offset;
    struct run *writer;                 // in flight: the run that writes the staged bytes first; who reads them builds on it
    uint64_t received;                  // chunks: bytes so far
    uint32_t writes;                    // chunks: runs in flight
    bool is_filling, is_durable, is_replica, is_failed;
    void *hash;                         // chunks: the running XXH3 state
    struct list lru;
};

// A plan and what of it does not depend on bindings. Roots: who owns the memory that a value shows. Root numbers: inputs first,
// then flat outputs; a view's root is its input's.
struct exec_plan {
    struct srg_plan *plan;
    uint32_t refs;
    struct list lru;
    uint32_t *root;                     // [outputs]
    uint32_t *last_use;                 // [inputs + outputs]: the last node that needs the root's memory
    uint32_t *death;                    // roots by last_use ...
    uint32_t *first_death;              // ... [nodes + 1]: where node n's begin
    const struct op_info **op;          // [nodes]
    uint8_t *compute;                   // [nodes]: enum dtype; DTYPE_COUNT: not known yet
};

// Where a tensor is, while its execution is prepared: in storage 0, the workspace, or in a buffer of the run.
struct place {
    uint32_t storage;                   // 0 or 1 + index into run->buffer
    bool is_logical;                    // *meta equals what was inferred
    uint32_t root;
    uint64_t offset;                    // bytes from the storage's start
    const struct tensor_meta *meta;     // physical
    uint64_t constant_key;              // leaves and their views; 0: none
};

struct run {
    struct exec_run face;               // first: what callers see
    struct list in_flight;
    struct failure *failure;            // of something it builds on
    struct run *builds_on[EXEC_DEPENDENCIES_MAX];
    uint32_t dependencies;
    struct region_block *workspace;
    uint32_t buffers, buffers_capacity; // pinned; index + 1 is the storage number
    struct buffer **buffer;
    uint32_t kept, kept_capacity;       // handles it makes
    struct handle *handle;
    struct device_peer peer;            // of a copy from it
    struct leaf *leaf;                  // of a chunk; the leaf cannot go while it has writes
    struct leaf **staged;               // leaves whose first write is in this run
    uint32_t staged_count, staged_capacity;
    // The list's memory. Tensors refer to storages until everything is reserved.
    uint32_t tasks, tasks_capacity, tensors, tensors_capacity, attrs, attrs_capacity, words_capacity, answers_capacity;
    struct device_task *task;
    struct task_part { uint32_t tensor, attr, storage; } *part;     // parallel to task: its first tensor and attr; storage of its span
    struct device_tensor *tensor;
    uint32_t *storage;                  // parallel to tensor
    struct attr *attr;
    int64_t *word;
    struct exec_answer *answer;
};

enum { RUNS_IDLE_MAX = 8, STORAGE_WORKSPACE = 0, STORAGE_NONE = UINT32_MAX };

struct root {                           // while an execution is prepared
    uint32_t storage;
    uint64_t offset, bytes;
    bool is_span;                       // workspace memory that may be given back when it dies
    bool holds;                         // kept or answered: lives to the end
    bool is_kept;                       // some kept output shows it
    bool is_owned;                      // nobody outside this execution can see it: it may be overwritten when it dies
};

// The prepare step's own memory, reused from one to the next.
struct bench {
    uint32_t outputs_capacity, roots_capacity;
    struct tensor_meta *out;            // [outputs]: inferred
    struct tensor_meta *physical;       // [inputs + outputs]: where it differs
    int64_t *view;                      // [outputs]: view offsets
    struct place *place;                // [inputs + outputs], like root numbers
    struct root *root;                  // [inputs + outputs]
    struct tensor_meta *in;             // [inputs]: as bound
    struct value **value;               // [inputs]: of handle inputs
    struct spans spans;
    uint32_t advances, advances_capacity;   // growing buffers advanced in this prepare, for undo
    struct advance { struct buffer *buffer; int64_t committed; } *advance;
};

struct exec {
    const struct device_port *port;
    struct region *region;
    struct pool *buffers, *values, *leaves;
    struct map *value, *leaf, *plan;
    struct list leaf_lru, plan_lru, in_flight;      // lru: the head's next is the oldest
    struct run *idle[RUNS_IDLE_MAX];
    uint32_t idle_count;
    struct bench bench;
    struct exec_stats stats;
    uint64_t next_serial;
    void (*leaf_dropped)(void *context, struct hash128 content);
    void *leaf_dropped_context;
};

// buffers.c
struct buffer *exec_buffer_make(struct exec *exec, uint64_t bytes);          // one ref, nothing reserved; NULL out of memory
bool exec_buffer_reserve(struct exec *exec, struct buffer *buffer);          // evicts leaves when it must
void exec_buffer_drop(struct exec *exec, struct buffer *buffer);             // NULL is allowed
struct region_block *exec_region_need(struct exec *exec, uint64_t bytes);    // region_take, with eviction; NULL when nothing helps
enum dj_error exec_fault_memory(const struct exec *exec, uint64_t bytes, const char *what, struct fault *fault);
struct failure *exec_failure_make(int64_t node, const struct fault *fault);  // one ref; never NULL (a static one out of memory)
struct failure *exec_failure_hold(struct failure *failure);
void exec_failure_drop(struct failure *failure);

// values.c
struct value *exec_value_find(const struct exec *exec, struct handle handle);
// Takes over a ref of its buffer or failure; replaces a failed value of the same name. DJ_E_DUPLICATE_DIFFERS: a value has this name.
DJ_MUST_USE enum dj_error exec_value_put(struct exec *exec, const struct value *value);
void exec_value_drop(struct exec *exec, struct value *value);

// leaves.c
struct leaf *exec_leaf_find(const struct exec *exec, struct hash128 content);
void exec_leaf_touch(struct exec *exec, struct leaf *leaf);
void exec_leaves_settle(struct exec *exec, struct run *run, bool is_ok);     // those that it staged are written, or staged again
bool exec_leaf_evict(struct exec *exec);                                     // drops one; false when none may go
void exec_leaf_written(struct exec *exec, struct leaf *leaf, bool is_ok);    // a chunk's run is complete

void exec_leaf_free_hash(struct leaf *leaf);

// runs.c
struct run *exec_run_take(struct exec *exec);                                // empty; NULL out of memory
void exec_run_give(struct exec *exec, struct run *run);                      // drops pins and blobs
DJ_MUST_USE enum dj_error exec_run_pin(struct run *run, struct buffer *buffer, uint32_t *ret_storage);   // takes over a ref on success
struct device_task *exec_run_task(struct run *run, enum device_task_kind kind);      // zeroed; NULL out of memory
struct device_tensor *exec_run_tensors(struct run *run, uint32_t count, uint32_t *ret_first);    // uninitialised
struct attr *exec_run_attrs(struct run *run, uint32_t count, uint32_t *ret_first);
bool exec_run_words(struct run *run, const int64_t *word, uint32_t words);  // copies them; false out of memory, like the next two
bool exec_run_keep(struct run *run, struct handle handle);
bool exec_run_stage(struct run *run, struct leaf *leaf);
DJ_MUST_USE enum dj_error exec_run_depend(struct run *run, struct run *on);
void exec_run_resolve(struct run *run);      // storages to offsets, indices to pointers, the device_list
bool exec_run_add_answer(struct run *run, uint32_t output, const struct tensor_meta *meta);
DJ_MUST_USE enum dj_error exec_run_place_answers(struct run *run);           // lays out and makes the blob

void exec_runs_free_idle(struct exec *exec);

// transfer.c: the run's only answer, read at `from` behind a kernel that makes it contiguous
DJ_MUST_USE enum dj_error exec_read_gathered(struct exec *exec, struct run *run, const struct place *from, struct fault *fault);

// lower.c
struct lowering {
    struct exec *exec;
    struct run *run;
    const struct exec_request *request;
    const struct exec_plan *plan;
    bool may_slack;                     // growing values get capacity
    int64_t node;                       // being lowered, for errors
    struct fault *fault;
};
DJ_MUST_USE enum dj_error lower_plan(struct lowering *lowering);
DJ_MUST_USE enum dj_error lower_copy(struct lowering *lowering, const struct place *from,
                                     const struct place *to);           // CLONE of whole tensors, any strides
DJ_MUST_USE enum dj_error lower_take(struct lowering *lowering, uint32_t root, uint64_t bytes, bool in_buffer);     // memory for a root
DJ_MUST_USE enum dj_error lower_kernel(struct lowering *lowering, uint32_t node);
bool lower_bit(const uint8_t *bits, uint32_t bytes, uint32_t index);

// cat.c: true in *ret when it was lowered as an append or a growing copy; false: like any other op.
DJ_MUST_USE enum dj_error lower_cat(struct lowering *lowering, uint32_t node, bool *ret);
void exec_advances_undo(struct exec *exec);

#endif
