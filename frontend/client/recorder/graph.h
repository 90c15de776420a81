// Graph: the recorder's own structures, shared by its source files and by nobody else.
//
// Ownership in one place:
//   value   counted: `refs` counts everything that points at it (cells, remembered views, inputs of recorded nodes, readers);
//           `roots` counts those among them that a flush must preserve (cells and readers). At 0 refs it goes at once.
//   node    lives in the recorder's arena until the next flush; holds its inputs; dead once none of its outputs is alive.
//   view    a window on a cell with the op that derives it from another window; its value is a cache that may be empty.
//   exec    counted by the values that it made and by the protocol while it is out.

#ifndef FRONTEND_CLIENT_RECORDER_GRAPH_H
#define FRONTEND_CLIENT_RECORDER_GRAPH_H

#include "core/base/arena.h"
#include "core/base/list.h"
#include "core/base/map.h"
#include "core/base/pool.h"
#include "core/ops/op.h"
#include "core/srg/bindings.h"
#include "core/srg/plan.h"
#include "frontend/client/recorder/recorder.h"

enum value_kind { VALUE_PENDING, VALUE_HANDLE, VALUE_LEAF };

enum { EXEC_ASKED_MAX = 64, VIEW_ATTRS_MAX = 4, VIEW_INTS_MAX = 2 * DJ_RANK_MAX };

struct asked {
    uint32_t flat;
    struct value *value;
};

// One execution or import, as long as anybody cares how it went.
struct exec {
    uint32_t holders;
    uint32_t place;
    uint64_t counter;
    bool is_live;    // in recorder->live_exec, at live_index
    uint32_t live_index;
    struct plan_entry *entry;    // NULL: an import. Another plan may have recycled it since
    struct value *source;        // import: held until its record is durable, so that it is not released before
    struct srg_plan *plan;
    uint32_t *site;    // per node of the plan, while it runs
    uint32_t asked_count;
    struct asked *asked;       // values held until they are answered
    struct dj_fault *fault;    // NULL: none so far
};

struct value {
    uint32_t refs, roots;
    uint8_t kind;       // enum value_kind
    uint8_t output;     // PENDING: of its node
    bool is_wanted;     // the next flush asks for its bytes
    bool is_coming;     // its bytes are on their way
    bool is_donated;    // the worker takes its memory: not released
    bool is_counted;    // in stats.handles_live and recorder->handles
    bool was_predicted;
    uint32_t flat;                       // HANDLE
    uint32_t needed_mark;                // == recorder->epoch: a needed node reads it
    uint32_t crossing_mark;              // == recorder->epoch: a later segment reads it
    uint32_t input_mark, input_index;    // == recorder->segment: its number among the plan's inputs
    uint32_t uses;                       // references from nodes of the segment
    uint32_t imports;                    // of it, that are out: it stays a handle
    struct node *node;                   // PENDING
    struct exec *exec;                   // HANDLE
    struct leaf *leaf;                   // LEAF
    struct view *view;                   // who remembers it
    struct exec *twin;                   // HANDLE: the import that brought it to another place
    struct blob *answer;
    uint64_t answer_offset;
    struct value *next_dead;
    struct list live;    // is_counted: in recorder->handles
    struct tensor_meta meta;
};

struct node_in {
    struct value *value;    // REF_NODE: any tensor
    int64_t scalar;         // REF_SCALAR
    uint8_t kind;           // enum srg_ref_kind; REF_NODE stands for REF_INPUT too
    uint8_t dtype;
};

struct node {
    const struct op_info *op;
    struct value *out[OP_OUTPUTS_MAX];    // NULL once nobody needs it
    struct node_in *in;
    struct attr *attr;
    uint32_t n_in;
    uint32_t module, site;
    uint32_t index;    // in the plan
    uint32_t segment, place;
    int16_t device;
    uint8_t live;    // outputs that are not NULL
    uint8_t dtype[OP_OUTPUTS_MAX];
    bool is_dead, is_needed, is_submitted;
};

struct view {
    uint64_t key;
    struct view *parent;    // NULL: derived from the base
    struct value *value;    // NULL: to be derived again
    uint32_t children;
    uint16_t op;
    int64_t offset;
    struct tensor_meta meta;    // with the offset: the window
    struct attr attr[VIEW_ATTRS_MAX];
    int64_t ints[VIEW_INTS_MAX];
};

struct dj_cell {
    uint32_t holders;
    int32_t device;
    uint32_t generation;    // of the recorder when it was made
    struct recorder *recorder;
    struct value *base;    // NULL: zeros, of any geometry
    int64_t offset;        // where the base's first element is
    uint32_t views;
    struct view **view;    // RECORDER_VIEWS_MAX slots, made on first need
};

struct plan_entry {
    struct srg_plan *plan;
    uint32_t number;
    uint64_t used;    // the recorder's execution count when it was used last
    uint32_t reads;
    struct {
        uint32_t flat;
        uint32_t misses;
    } read[RECORDER_PREDICTIONS_MAX];
};

struct module_entry {
    char *path, *type;
    bool is_training;
    uint32_t mark;    // == recorder->segment: index is valid
    uint16_t index;
};

struct place_entry {
    struct dj_fault *fault;    // NULL: alive
    uint32_t released_count, released_capacity;
    struct released *released;
};

struct recorder {
    struct recorder_port port;
    struct arena *arena;    // nodes
    struct pool *values, *cells, *views, *execs;
    struct leaf_table *leaves;

    struct node **node;
    uint32_t nodes, nodes_capacity;
    bool is_capturing;
    uint64_t leaf_bytes_pending;

    uint32_t epoch, segment;
    uint64_t counter;
    struct plan_builder *builder;
    struct map *plan_by_fingerprint;
    struct plan_entry *entry;    // RECORDER_PLANS_MAX
    uint32_t entries;
    struct srg_plan *last_plan, *capture_plan;

    struct module_entry *module;
    uint32_t modules;
    struct map *module_by_name;

    struct place_entry *place;
    uint32_t places;
    struct list handles;        // values that are handles, in the order of their making
    struct exec **live_exec;    // those that are out, for recorder_close
    uint32_t live_execs, live_execs_capacity;
    uint32_t generation;    // sessions that are over
    struct fault closed;    // why the last one is

    // Scratch of a flush, kept between flushes.
    struct value **input;
    uint32_t inputs, inputs_capacity;
    int64_t *word;
    uint32_t words_capacity;
    uint8_t *bits;
    uint32_t bits_capacity;
    struct leaf **leaf;
    uint32_t leaves_capacity;

    struct recorder_stats stats;
};

// value.c
struct value *value_make(struct recorder *recorder, enum value_kind kind,
                         const struct tensor_meta *meta);    // 1 ref; NULL: out of memory
static inline struct value *value_hold(struct value *value)
{
    value->refs++;
    return value;
}
void value_drop(struct recorder *recorder, struct value *value);    // NULL is allowed
static inline void value_root(struct value *value)
{
    value->refs++;
    value->roots++;
}
void value_unroot(struct recorder *recorder, struct value *value);    // NULL is allowed
// Why the value cannot be used by a worker; NULL: nothing is known against it. What was answered can be read all the same.
const struct dj_fault *value_fault(const struct recorder *recorder, const struct value *value);
// A value that was lost with its worker and that this process has read becomes a leaf. False: it has not, or has not the memory.
void value_uncount(struct recorder *recorder, struct value *value);    // it is no live handle any more
bool value_revive(struct recorder *recorder, struct value *value);
void value_fail(struct recorder *recorder, struct value *value, struct exec *cause);    // a pending value becomes one that failed
struct exec *submitted_make(struct recorder *recorder, uint32_t place, uint64_t counter);    // 1 holder; NULL: out of memory
void submitted_drop(struct recorder *recorder, struct exec *exec);                           // NULL is allowed
struct place_entry *place_entry(struct recorder *recorder, uint32_t place);                  // NULL: out of memory

// node.c: appending. The inputs' holds pass to the node, also on failure. *out gets the first output with one ref; outs (may be NULL) all.
struct node_call {
    const struct op_info *op;
    struct node_in *in;
    const struct attr *attr;
    uint32_t n_in;
    enum dtype dtype;
    int device;
    struct recorded_at at;
};
DJ_MUST_USE enum dj_error node_infer(const struct node_call *call, struct op_result *result, struct fault *fault);
DJ_MUST_USE enum dj_error node_append(struct recorder *recorder, const struct node_call *call, const struct op_result *result,
                                      struct value *outs[OP_OUTPUTS_MAX]);
void node_call_drop(struct recorder *recorder, const struct node_call *call);    // drops the inputs' holds
// Infers and appends an op of one output that the recorder itself needs.
DJ_MUST_USE enum dj_error node_emit(struct recorder *recorder, enum op op, struct value *first, struct value *second,
                                    const struct attr *attr, enum dtype dtype, int device, struct recorded_at at,
                                    struct value **ret, struct fault *fault);
void node_kill(struct recorder *recorder, struct node *node);    // releases its inputs

// A fresh cell that holds the value, whose reference it takes over.
DJ_MUST_USE enum dj_error cell_of(struct recorder *recorder, int device, struct value *value, struct dj_tensor *out,
                                  struct fault *fault);

// window.c: windows on cells.
DJ_MUST_USE enum dj_error cell_check(const struct recorder *recorder, const struct dj_cell *cell, struct fault *fault);
bool geometry_equal(const struct tensor_meta *a, const struct tensor_meta *b);    // strides of dimensions of size 1 do not count
struct tensor_meta tensor_meta_of(const struct dj_tensor *tensor);
void tensor_of(const struct tensor_meta *meta, int64_t offset, struct dj_cell *cell, struct dj_tensor *ret);
// The value behind a window, held.
DJ_MUST_USE enum dj_error window_resolve(struct recorder *recorder, const struct dj_tensor *tensor, struct recorded_at at,
                                         struct value **ret, struct fault *fault);
struct view *window_find(const struct dj_cell *cell, const struct tensor_meta *meta, int64_t offset);
struct view *window_remember(struct recorder *recorder, struct dj_cell *cell, struct view *parent, const struct op_info *op,
                             const struct attr *attr, const struct tensor_meta *meta, int64_t offset,
                             struct value *value);                                         // may be NULL
void window_forget_values(struct recorder *recorder, struct dj_cell *cell);                // the base changed
void window_forget_all(struct recorder *recorder, struct dj_cell *cell);                   // its geometry changed too
void view_set_value(struct recorder *recorder, struct view *view, struct value *value);    // holds it; NULL: empties
void cell_set_base(struct recorder *recorder, struct dj_cell *cell, struct value *value, int64_t offset);    // roots it
// Makes the cell hold every element of [0, elements) of `dtype`, flat: what was not there is zero.
DJ_MUST_USE enum dj_error cell_flatten(struct recorder *recorder, struct dj_cell *cell, int64_t elements, enum dtype dtype,
                                       struct recorded_at at, struct fault *fault);

static inline struct attr attr_int(int64_t i)
{
    return (struct attr){.kind = ATTR_INT, .i = i};
}
static inline struct attr attr_ints(const int64_t *ints, uint32_t count)
{
    return (struct attr){.kind = ATTR_INTS, .count = (uint8_t)count, .ints = ints};
}

#endif
