// Recorder: what a program did and what it means, before anything runs.
//
// Idea: tensors are windows on cells; a cell holds the current value of a storage; values are outputs of recorded nodes, leaves, or
// handles of executions already submitted. Recording infers shapes at once (core/ops) and appends a node; in-place writes change which
// value a cell holds. A flush slices out of the recorded nodes those that a living cell needs, in record order, and hands them as
// submissions to its port; what is left of a value afterwards is a handle.
//
// Pure: no I/O, no clock. Thread: one at a time (the client's lock). Errors leave everything as it was unless said otherwise.

#ifndef FRONTEND_CLIENT_RECORDER_RECORDER_H
#define FRONTEND_CLIENT_RECORDER_RECORDER_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/codec.h"
#include "core/base/error.h"
#include "core/ops/op.h"
#include "frontend/client/protocol/submission.h"
#include "frontend/include/djinn/djinn.h"

struct recorder;
struct value;

enum {
    RECORDER_NODES_MAX = 4096,              // recorded before recorder_is_full
    RECORDER_CAPTURE_NODES_MAX = 60000,     // the same while capturing
    RECORDER_LEAF_BYTES_MAX = 256 << 20,    // of new leaves before recorder_is_full
    RECORDER_VALUES_MAX = 1 << 22,
    RECORDER_CELLS_MAX = 1 << 22,
    RECORDER_VIEWS_MAX = 32,    // remembered per cell
    RECORDER_PLANS_MAX = 4096,
    RECORDER_MODULES_MAX = 1 << 14,
    RECORDER_PLACES_MAX = 1 << 16,
    RECORDER_PREDICTIONS_MAX = 16,          // outputs of a plan that are asked for unasked
    RECORDER_PREDICTED_BYTES_MAX = 4096,    // larger ones are never predicted
    RECORDER_RELEASED_MAX = 4096,           // waiting releases of a place before they are sent on their own
};

// What a flush needs from the world. None of these may call back.
struct recorder_port {
    void *self;
    uint32_t (*place)(void *self, int device);    // where a device's work runs now
    void (*submit)(void *self, const struct submission *submission);
    void (*import)(void *self, uint32_t place, uint64_t counter, uint32_t from_place, uint64_t from_counter, uint32_t from_output,
                   void *tag);
    void (*release)(void *self, uint32_t place, const struct released *released, uint32_t count);
};

DJ_MUST_USE enum dj_error recorder_make(const struct recorder_port *port, struct recorder **ret);
void recorder_free(struct recorder *recorder);    // every cell must have been dropped; NULL is allowed

// Cells and recording; see djinn.h for the meaning of each.
struct dj_cell *recorder_cell(struct recorder *recorder, int device);    // NULL: out of memory
void recorder_cell_hold(struct dj_cell *cell);
void recorder_cell_drop(struct recorder *recorder, struct dj_cell *cell);
int recorder_cell_device(const struct dj_cell *cell);

struct recorded_at {
    uint32_t module, site;
};    // where in the program; set by who records
DJ_MUST_USE enum dj_error recorder_record(struct recorder *recorder, uint32_t op, const struct dj_arg *in, uint32_t n_in,
                                          const struct dj_attr *attr, uint32_t n_attr, int dtype, int device,
                                          struct recorded_at at, struct dj_tensor *out, struct fault *fault);
DJ_MUST_USE enum dj_error recorder_write(struct recorder *recorder, const struct dj_tensor *to, const struct dj_tensor *from,
                                         struct recorded_at at, struct fault *fault);
DJ_MUST_USE enum dj_error recorder_assign(struct recorder *recorder, struct dj_cell *cell, const struct dj_tensor *from,
                                          struct recorded_at at, struct fault *fault);
DJ_MUST_USE enum dj_error recorder_upload(struct recorder *recorder, int device, const void *data, const struct dj_tensor *meta,
                                          struct recorded_at at, struct dj_tensor *out, struct fault *fault);
DJ_MUST_USE enum dj_error recorder_to_device(struct recorder *recorder, const struct dj_tensor *tensor, int device,
                                             struct recorded_at at, struct dj_tensor *out, struct fault *fault);
uint32_t recorder_module(struct recorder *recorder, const char *path, const char *type, bool is_training);    // 0 when full

// Reading. recorder_want gives the value behind a window, held until recorder_unwant, and marks it so that the next flush asks for its
// bytes. Then: not pending any more (flush), answered, failed, or to be fetched.
DJ_MUST_USE enum dj_error recorder_want(struct recorder *recorder, const struct dj_tensor *tensor, struct recorded_at at,
                                        struct value **ret, struct fault *fault);
void recorder_unwant(struct recorder *recorder, struct value *value);
void recorder_value_retain(struct value *value);    // one more hold, that recorder_value_release lets go of
void recorder_value_release(struct recorder *recorder, struct value *value);    // does not forget what was answered
enum value_state { VALUE_RECORDED, VALUE_AT_WORKER, VALUE_ANSWERED, VALUE_LOCAL, VALUE_FAILED };
enum value_state recorder_value_state(const struct recorder *recorder, const struct value *value);
// ANSWERED, LOCAL: copies the elements row-major; `bytes` must be exact (DJ_E_INVALID).
DJ_MUST_USE enum dj_error recorder_copy(struct recorder *recorder, struct value *value, void *data, size_t bytes,
                                        struct fault *fault);
// FAILED: why, with the site of the op that failed.
enum dj_error recorder_value_fault(const struct recorder *recorder, const struct value *value, struct dj_fault *ret);
// AT_WORKER: whether its answer is on its way without a fetch; else what to fetch.
bool recorder_value_is_coming(const struct value *value);
void recorder_value_set_coming(struct value *value, bool is_coming);    // a fetch was sent, or failed
void recorder_value_handle(const struct value *value, uint32_t *ret_place, uint64_t *ret_counter, uint32_t *ret_output);
// What a fetch brought: bytes[offset, +length) of the blob, which is held as long as it is needed.
void recorder_value_answer(struct recorder *recorder, struct value *value, struct blob *blob, uint64_t offset, uint64_t length);

// Flushing. After an error everything that was pending carries it.
bool recorder_is_full(const struct recorder *recorder);
bool recorder_has_pending(const struct recorder *recorder);
DJ_MUST_USE enum dj_error recorder_flush(struct recorder *recorder, struct fault *fault);
void recorder_capture(struct recorder *recorder, bool is_on);
// Sends releases that no submission has carried yet.
void recorder_flush_releases(struct recorder *recorder);

// Outcomes, by the tag of the submission. Each tag gets exactly one of these two.
void recorder_executed(struct recorder *recorder, void *tag);
void recorder_failed(struct recorder *recorder, void *tag, enum dj_error error, int64_t node, const char *text);
// Before recorder_executed: one answered output (see recorder_value_answer).
void recorder_answered(struct recorder *recorder, void *tag, uint32_t output, struct blob *blob, uint64_t offset,
                       uint64_t length);
// Everything at that place is gone.
void recorder_place_lost(struct recorder *recorder, uint32_t place, enum dj_error error, const char *text);
// Visits the handles at that place that this process still needs, and cannot make from bytes that it has. Those whose bytes it has become
// leaves. Not within a flush.
void recorder_live_handles(struct recorder *recorder, uint32_t place,
                           void (*visit)(void *context, uint64_t counter, uint32_t output), void *context);
// The session is over (shutdown, fork): every value, recorded ones included, fails with this from now on; numbering starts again.
// Tags that are still out must not come back after this.
void recorder_close(struct recorder *recorder, enum dj_error error, const char *text);

// Checkpoints. recorder_keepable gives a value behind the window that can be named as it is, once it is flushed: a contiguous handle, a leaf
// that the store has, or nothing at all (no elements); held until recorder_unwant.
DJ_MUST_USE enum dj_error recorder_keepable(struct recorder *recorder, const struct dj_tensor *tensor, struct recorded_at at,
                                            struct value **ret, struct fault *fault);
bool recorder_value_failed(const struct recorder *recorder, const struct value *value, struct dj_fault *ret);
const struct tensor_meta *recorder_value_meta(const struct value *value);
bool recorder_value_leaf(const struct value *value, struct hash128 *ret_content);    // false: it is no leaf
// A tensor whose bytes are leaves that the store has: pieces along `dim`, each contiguous.
struct recorder_piece {
    struct hash128 content;
    int64_t rows;
    uint64_t bytes;
};
DJ_MUST_USE enum dj_error recorder_restore(struct recorder *recorder, int device, const struct tensor_meta *meta, uint32_t dim,
                                           const struct recorder_piece *piece, uint32_t pieces, struct recorded_at at,
                                           struct dj_tensor *out, struct fault *fault);

// Looking in.
DJ_MUST_USE enum dj_error recorder_graph_json(struct recorder *recorder, const char *which, struct writer *writer,
                                              struct fault *fault);

struct recorder_stats {
    uint64_t ops_recorded, ops_submitted, ops_dropped, views_restrided, executions, plans, reads_predicted, leaf_bytes_pending,
        handles_live, cells_live;
};
uint32_t recorder_places(const struct recorder *recorder);    // places up to here were used: a new session numbers on from it
struct recorder_stats recorder_stats(const struct recorder *recorder);
struct leaf_table *recorder_leaves(struct recorder *recorder);

#endif
