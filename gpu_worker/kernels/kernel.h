// Kernels: how every backend's kernels are called. A backend is a table indexed by op number; an empty slot is a missing
// capability. A kernel reads its inputs through strides, writes its outputs densely as their strides say, keeps no state, and
// promises (where the op carries OP_DET) the same bits for the same inputs whatever the number of threads, the alignment or the
// neighbours: work is cut by shape, never by thread count, and each sum has one fixed order.
//
// Thread: called on the device's thread, one call at a time; may use the team.

#ifndef GPU_WORKER_KERNELS_KERNEL_H
#define GPU_WORKER_KERNELS_KERNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/error.h"
#include "core/ops/op.h"

struct team;

// A tensor in memory. `data` points to the first element (the view's offset applied). Scalars that Python gave (wrapped numbers)
// arrive as rank 0 tensors of bool, int64 or float64 with `is_scalar` set.
struct tensor {
    void *data;
    struct tensor_meta meta;
    bool is_scalar;
    bool is_constant;               // a weight: its bytes never change and its address is stable while `constant_key` is
    uint64_t constant_key;          // names the bytes (content hash), for kernels that keep a packed copy; 0: not constant
};

struct kernel_call {
    const struct op_info *op;
    const struct tensor *in;        // absent optional tensors have meta.dtype DTYPE_NONE
    uint32_t n_in;
    struct tensor *out;             // memory is reserved; never overlaps an input unless the op is pointwise and the views are equal
    uint32_t n_out;
    const struct attr *attr;
    enum dtype compute;             // op_compute_dtype, for pointwise ops
    void *scratch;                  // scratch_bytes(call) bytes, 64-aligned, contents undefined
    size_t scratch_bytes;
    struct team *team;
    struct fault *fault;            // filled on failure; may be NULL
};

// May fail only on values that shapes cannot tell (an index out of range in the data: DJ_E_INDEX) or on dtypes that the table's
// `can` refused. On failure the outputs' contents are undefined.
typedef enum dj_error (*kernel_run)(const struct kernel_call *call);
typedef size_t (*kernel_scratch)(const struct kernel_call *call);      // data pointers may be NULL
typedef bool (*kernel_can)(const struct kernel_call *call);            // dtypes and shapes supported? data pointers may be NULL

struct kernel {
    kernel_run run;                 // NULL: the backend lacks the op
    kernel_scratch scratch;         // NULL: none needed
    kernel_can can;                 // NULL: everything that op_infer accepts
};

struct kernel_table {
    const char *backend;            // "cpu"
    const char *numerics;           // the numerics class: backend, instruction set, libraries and their versions, in one line
    struct kernel kernel[OP_LIMIT]; // by op number; view ops have none
};

// The CPU backend's table; the first call detects the instruction set. Never NULL.
const struct kernel_table *kernels_cpu(void);

// Constant weights that a kernel wants in another layout are kept packed, for the whole process, up to a limit (1 GiB unless set; 0:
// never keep any). Results are the same with and without. Any thread.
void kernels_cpu_pack_limit(size_t bytes);
size_t kernels_cpu_pack_bytes(void);                                    // what the packs hold now

// Team: a fixed set of threads that run parts of one call. Created by the device. n_threads counts the caller.
DJ_MUST_USE enum dj_error team_make(uint32_t n_threads, struct team **ret);
void team_free(struct team *team);                                      // NULL is allowed
uint32_t team_threads(const struct team *team);

// Calls part(context, i) for every i in [0, parts), in any order, on any thread of the team, the caller's included; returns when
// all are done. `team` NULL runs them in order. Parts are cut by shape by the caller.
void team_run(struct team *team, uint32_t parts, void (*part)(void *context, uint32_t index), void *context);

#endif
