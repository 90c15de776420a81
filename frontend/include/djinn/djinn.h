/* djinn.h: the C ABI of Djinn's client, which every frontend (PyTorch, ONNX, C programs) uses. Plain C99; usable from C++.
 *
 * A program records ops on lazy tensors; nothing runs until a value is asked for (dj_read), dj_flush is called, or a bound on recorded
 * work is reached. Shapes, strides and dtypes are known at once and locally.
 *
 * A tensor is a window (dtype, sizes, strides, offset, all in elements) on a cell. A cell is a storage: it holds a current value, is
 * shared by all views of it, and counts holders. In-place writes change what the cell holds, never a value.
 *
 * Threads: every function may be called from any thread. Functions that can block say so; release interpreter locks around them.
 * Errors: functions return 0 or an error number (dj_error_name); outputs are untouched on failure; `fault`, where given, may be NULL
 * and gets words for a person.
 */

#ifndef DJINN_DJINN_H
#define DJINN_DJINN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define DJ_ABI_VERSION 2
#define DJ_MAX_RANK 8
#define DJ_MAX_OUTPUTS 4
#define DJ_ANY_DEVICE (-1)

#if defined(__GNUC__)
#define DJ_API __attribute__((visibility("default")))
#else
#define DJ_API
#endif

struct dj_cell;

struct dj_fault {
    int32_t error;                  /* as returned */
    uint32_t site;                  /* what dj_set_site said when the failing op was recorded; 0 unknown */
    char text[512];                 /* NUL-terminated UTF-8 */
};

/* dtypes: 1 bool, 2 uint8, 3 int8, 4 int16, 5 int32, 6 int64, 7 float16, 8 bfloat16, 9 float32, 10 float64, 11 complex64, 12 complex128;
 * 0 is none. The numbers of core/ops/dtype.h. */
struct dj_tensor {
    struct dj_cell *cell;
    int64_t offset;                 /* of the first element from the cell's start, in elements */
    int32_t dtype;
    uint32_t rank;
    int64_t size[DJ_MAX_RANK];
    int64_t stride[DJ_MAX_RANK];
};

enum dj_arg_kind { DJ_ARG_ABSENT = 0, DJ_ARG_TENSOR = 1, DJ_ARG_SCALAR = 2 };

struct dj_arg {
    int32_t kind;
    int32_t scalar_dtype;           /* SCALAR (a Python number, which promotes weakly): 1 bool, 6 int64 or 10 float64 */
    const struct dj_tensor *tensor; /* TENSOR */
    int64_t scalar;                 /* SCALAR: its 64 bits */
};

enum dj_attr_kind { DJ_ATTR_ABSENT = 0, DJ_ATTR_INT = 1, DJ_ATTR_BOOL = 2, DJ_ATTR_FLOAT = 3, DJ_ATTR_INTS = 4 };

struct dj_attr {
    uint8_t kind;
    uint8_t count;                  /* of ints, at most 32 */
    union { int64_t i; double f; const int64_t *ints; } value;
};

/* ------------------------------------------------------------------ errors */

DJ_API const char *dj_error_name_of(int error);     /* "HANDLE_LOST" */
DJ_API const char *dj_error_text_of(int error);     /* the sentence of core/base/errors.def */

/* ------------------------------------------------------------------ life */

struct dj_config {
    const char *address;            /* head's "host:port"; NULL: $DJINN_ADDRESS, else start an embedded head and worker as one child */
    const char *token;              /* 32 hex digits; NULL: $DJINN_TOKEN, else the token file of this user's state folder */
    const char *tenant;             /* NULL: "default" */
    const char *session;            /* name; NULL: none */
    const char *program;            /* the djinn executable for the embedded child; NULL: beside libdjinn, then $PATH */
    uint32_t embedded_threads;      /* 0: as many as the machine has cores */
    uint64_t timeout_ns;            /* for connecting; 0: 10 s */
    const char *recovery;           /* how values are protected: "checkpoint" (NULL), "replicate" or "recompute" */
    uint64_t replay_limit_ns;       /* how long it may take to run again what a value was made by, before it is made safe; 0: 1 s */
    uint64_t recovery_timeout_ns;   /* how long a program waits for a worker or a head to come back before it gets an error; 0: 600 s */
    uint32_t allows_close;          /* 1: lost values may be run again on another kind of worker: close to what they were, not exact */
    uint32_t allows_local;          /* 1: with no worker in the pool for 5 s, start one on this machine, as long as this process lives */
};

/* Connects (blocks). Idempotent for an equal address; DJ_E_INVALID for another one while connected. First use of anything that needs a worker
 * calls it with NULL by itself. After a fork, the child gets DJ_E_FORKED until it calls dj_init, which gives it a session of its own. */
DJ_API int dj_init(const struct dj_config *config, struct dj_fault *fault);
/* Ends the session: submitted work finishes, handles are released, the embedded child stops. Blocks, at most 5 s. Tensors that still
 * live give DJ_E_CLOSED. keep: a session with a name can be resumed (dj_init with the same name, in any process); else it is forgotten. */
DJ_API int dj_shutdown(int keep);
DJ_API int dj_is_initialized(void);
/* The pool device that the head chose for this session: where DJ_ANY_DEVICE goes. Initialises; negative error number on failure. When its worker
 * is lost, DJ_ANY_DEVICE goes elsewhere from then on. */
DJ_API int dj_default_device(struct dj_fault *fault);
DJ_API int dj_device_count(void);                   /* of the pool; initialises; negative error number on failure */
/* Called about every 50 ms while a call blocks; non-zero makes it return DJ_E_INTERRUPTED (work goes on remotely). */
DJ_API void dj_on_wait(int (*check)(void *context), void *context);

/* ------------------------------------------------------------------ the op table */

struct dj_op {
    uint32_t number;
    uint32_t flags;                 /* 1 det, 2 view, 4 random, 8 sized, 16 manual, 32 creates: enum op_flag in core/ops/op.h */
    uint32_t outputs;
    uint32_t attrs;                 /* how many attributes dj_record expects */
    const char *name, *aten, *signature;    /* signature language: core/ops/op.h */
};

DJ_API const struct dj_op *dj_op_table(uint32_t *count);
DJ_API const struct dj_op *dj_op_find(const char *name_or_aten);    /* NULL: none */
/* Whether some worker of the pool can run the op at all (0 or 1; initialises). */
DJ_API int dj_op_is_native(uint32_t number);

/* ------------------------------------------------------------------ tensors */

/* An empty storage on a device: zeros of whatever dtype it is read as, until written. One holder. device may be DJ_ANY_DEVICE. */
DJ_API struct dj_cell *dj_cell_make(int device);
DJ_API void dj_cell_hold(struct dj_cell *cell);
DJ_API void dj_cell_drop(struct dj_cell *cell);     /* never blocks */
DJ_API int dj_cell_device(const struct dj_cell *cell);

/* Records one op. `in` are the tensor arguments flattened in the order of the signature (a list's members in place; absent optionals as ABSENT);
 * `attr` one entry for each attribute. dtype: the result dtype, where the caller decides it (0: by PyTorch's promotion rules).
 * device: for ops without tensor inputs. out gets the op's outputs: fresh cells with one holder each; for view ops the input's own cell,
 * NOT held again, and the new window. Never blocks, but for the bound on recorded work and the unacknowledged window.
 * DJ_E_SHAPE, DJ_E_DTYPE, DJ_E_INDEX, DJ_E_RANK, DJ_E_OVERFLOW as PyTorch would raise them; DJ_E_OP_UNKNOWN. */
DJ_API int dj_record(uint32_t op, const struct dj_arg *in, uint32_t n_in, const struct dj_attr *attr, uint32_t n_attr, int dtype, int device,
                     struct dj_tensor *out, struct dj_fault *fault);

/* In-place: the elements of the window `to` become those of `from` (broadcast and converted to `to`'s dtype), for all views of the cell. */
DJ_API int dj_write(const struct dj_tensor *to, const struct dj_tensor *from, struct dj_fault *fault);
/* The cell's value becomes exactly `from`'s (same cell geometry afterwards as `from`): set_data, resize_ from empty, out= results. */
DJ_API int dj_assign(struct dj_cell *cell, const struct dj_tensor *from, struct dj_fault *fault);

/* A leaf from host memory: `meta`'s cell is ignored, its sizes and strides describe `data` (dense in some order). The bytes are copied before it
 * returns. out: a fresh cell with one holder, with the same window. Blocks only while the bound on bytes held is reached. */
DJ_API int dj_upload(int device, const void *data, const struct dj_tensor *meta, struct dj_tensor *out, struct dj_fault *fault);

/* Waits for the window's elements and copies them, row-major, to `data` (exactly `bytes` long). Submits what it needs. Blocks. */
DJ_API int dj_read(const struct dj_tensor *tensor, void *data, size_t bytes, struct dj_fault *fault);

/* The same values on another device of the pool; a fresh cell with one holder. */
DJ_API int dj_to_device(const struct dj_tensor *tensor, int device, struct dj_tensor *out, struct dj_fault *fault);

DJ_API int dj_flush(struct dj_fault *fault);                    /* submits everything recorded that a living tensor needs */
DJ_API int dj_synchronize(struct dj_fault *fault);              /* flushes and waits until all of it has run. Blocks */

/* ------------------------------------------------------------------ checkpoints */

/* Makes the values of these tensors durable with the head, under a name of the tenant (at most 119 bytes); what was there under it is replaced.
 * Blocks. */
DJ_API int dj_checkpoint(const char *tag, const struct dj_tensor *tensors, uint32_t count, struct dj_fault *fault);
/* The tensors of a checkpoint, in their order, as contiguous ones in fresh cells with one holder each: at most `room`; *ret_count is how many
 * there are (when it is more than `room`, nothing is made and DJ_E_LIMIT returned). DJ_E_NOT_FOUND. Blocks. */
DJ_API int dj_restore(const char *tag, int device, struct dj_tensor *out, uint32_t room, uint32_t *ret_count, struct dj_fault *fault);

/* ------------------------------------------------------------------ where in the program */

/* Interns a module path; the number is valid for the process's life; 0 is "outside every module". */
DJ_API uint32_t dj_module(const char *path, const char *type, int is_training);
DJ_API uint32_t dj_set_module(uint32_t module);     /* for what this thread records from now on; returns the one before */
DJ_API void dj_set_site(uint32_t site);             /* any number; comes back in dj_fault.site */

/* ------------------------------------------------------------------ looking in */

struct dj_stats {
    uint64_t ops_recorded, ops_submitted, ops_dropped;      /* dropped: dead before any flush */
    uint64_t views_restrided;                               /* reads that fell back to as_strided */
    uint64_t executions, plans, plans_sent, reads, reads_predicted, round_trips;
    uint64_t bytes_out, bytes_in, leaf_bytes_out, leaf_bytes_in_reads, leaves, leaves_reused;
    uint64_t record_ns, flush_ns, wait_ns;                  /* time inside dj_record (sampled), slicing and encoding, waiting */
    uint64_t bind_ns, execute_ns;                           /* as workers reported */
    uint64_t init_ns;
    uint64_t handles_live, bytes_unacknowledged, executions_unacknowledged;
    uint64_t resubmissions, links_lost;
    uint64_t recoveries, replayed, recovery_ns;             /* lost workers made good: how often, executions run again, time paused */
    uint64_t nondeterminism;                                /* answers that came twice and differed */
    uint64_t resumed;                                       /* executions that were answered from an earlier life's records */
};

DJ_API void dj_stats(struct dj_stats *ret);

/* JSON into a malloc'd string (free with dj_free): the SRG of the last plan submitted ("last"), of what is recorded and not yet submitted
 * ("pending"), or of the capture in course ("capture"). */
DJ_API int dj_graph_json(const char *which, char **ret, struct dj_fault *fault);
DJ_API int dj_capture_begin(struct dj_fault *fault);            /* flushes; from now on nothing is flushed for bounds, only for reads */
DJ_API int dj_capture_end(struct dj_fault *fault);              /* keeps the graph for "capture" */

/* Asks the head ("status", "plans", "plan" with an id): JSON, malloc'd. Blocks. */
DJ_API int dj_ask(const char *verb, const char *argument, char **json, struct dj_fault *fault);
DJ_API void dj_free(void *memory);

DJ_API const char *dj_version(void);                /* "0.1.0" */

#ifdef __cplusplus
}
#endif

#endif
