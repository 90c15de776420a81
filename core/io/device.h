// The device port: memory and kernels behind a list of tasks. Implemented by gpu_worker/device (cpu, cuda) and by chaos/sim.
//
// A device shows one flat region of `capacity_bytes`; offsets into it are the only addresses the core knows. The executor
// (gpu_worker/exec) owns every byte of the region: the device allocates nothing per execution. A list runs in order on one
// stream; lists of one stream run in the order of submission; `after` orders a list behind lists of other streams.
// Completion comes back as IO_DEVICE_DONE, of several lists in any order.
//
// A device may be lost with all that it holds (a GPU's sticky error): the list that meets it and all further lists of that incarnation fail with DJ_E_DEVICE_LOST.
// Lists of another incarnation find the device anew, its region's contents undefined; or it is gone, then they fail too.
//
// Devices of different processes on one host may reach each other's memory: who opens a region by its key copies from it with COPY_PEER,
// device to device. The copier learns nothing of what the owner does meanwhile; that the bytes stay is for the two cores to agree on.
//
// CUDA fits unchanged: the region is one cudaMalloc, scalars are
// kernel arguments, READ and WRITE are asynchronous copies through pinned staging, streams and `after` are streams and events, a key is
// cudaIpcGetMemHandle's.

#ifndef CORE_IO_DEVICE_H
#define CORE_IO_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/error.h"
#include "core/ops/op.h"

struct blob;
struct io_sink;

enum { DEVICE_ALIGNMENT = 64, DEVICE_STREAMS = 2, DEVICE_COMPUTE = 0, DEVICE_TRANSFER = 1, DEVICE_NAME_MAX = 64, DEVICE_CLASS_MAX = 160 };
enum { DEVICE_KEY_MAX = 64, DEVICE_DOMAIN_MAX = 64 };

// How the device of another process opens a region. Only devices look inside.
struct device_key {
    uint32_t bytes;                             // 0: nobody can
    uint8_t data[DEVICE_KEY_MAX];
};

// Another process's device.
struct device_peer {
    uint64_t incarnation;                       // of its process
    struct device_key key;
};

struct device_info {
    char name[DEVICE_NAME_MAX];                 // "cpu", "NVIDIA H200"
    char backend[16];                           // "cpu", "cuda", "sim"
    char numerics[DEVICE_CLASS_MAX];            // the numerics class
    uint64_t capacity_bytes;
    uint32_t threads;
    uint32_t lives;                             // how often the device was lost: changes before such a list comes back
    bool is_gone;                               // lost, and cannot be made anew in this process: nothing will run any more
    uint8_t ops[OP_LIMIT / 8];                  // bit per op number: the capability
    char domain[DEVICE_DOMAIN_MAX];             // devices of equal domains may open each other's regions; "": it opens none
    struct device_key key;                      // of its region. Another one when the device was made anew: valid once a list of this incarnation is back
};

struct device_tensor {
    uint64_t offset;                            // of the first element, in bytes from the start of the region
    struct tensor_meta meta;
    bool is_scalar;                             // no memory: the value is in `scalar` (dtype BOOL, I64 or F64, rank 0)
    bool is_constant;                           // see struct tensor in kernel.h
    uint64_t constant_key;
    int64_t scalar;                             // 64 bits
};

enum device_task_kind {
    DEVICE_KERNEL,                              // run `op`
    DEVICE_WRITE,                               // blob[blob_offset, +bytes) -> region[offset, +bytes)
    DEVICE_READ,                                // region[offset, +bytes) -> blob[blob_offset, +bytes)
    DEVICE_ZERO,                                // region[offset, +bytes) = 0
    DEVICE_COPY_PEER,                           // the peer's region[blob_offset, +bytes) -> region[offset, +bytes). On DEVICE_TRANSFER; all of a
                                                // list's have one peer. DJ_E_DEVICE when the region cannot be opened: nothing else is harmed
};

struct device_task {
    uint8_t kind;                               // enum device_task_kind
    uint8_t n_out;
    uint8_t compute;                            // enum dtype: op_compute_dtype
    uint32_t n_in;
    uint32_t node;                              // for error reports: the plan's node
    const struct op_info *op;
    const struct device_tensor *in, *out;       // absent optional inputs: meta.dtype DTYPE_NONE
    const struct attr *attr;
    uint64_t offset, bytes;                     // KERNEL: scratch; others: the span
    struct blob *blob;
    uint64_t blob_offset;
    const struct device_peer *peer;             // COPY_PEER
};

struct device_list {
    uint64_t ticket;                            // given by the core; comes back in IO_DEVICE_DONE
    uint64_t incarnation;                       // of the device
    uint32_t stream;                            // DEVICE_COMPUTE or DEVICE_TRANSFER
    uint64_t after;                             // a ticket of another stream to wait for; 0: none
    uint32_t tasks;
    const struct device_task *task;
    // Filled by the device before IO_DEVICE_DONE:
    enum dj_error error;                        // of the first task that failed; later tasks did not run
    uint32_t failed_task;
    struct fault fault;
    uint64_t elapsed_ns;                        // execution, without waiting
};

// The list and everything it names stay untouched by the core from submit until its IO_DEVICE_DONE.
struct device_port {
    const struct device_info *info;
    void *self;
    // Pure questions, answered on the core's thread at once:
    bool (*can)(void *self, const struct device_task *task);                // op, dtypes, shapes
    size_t (*scratch_bytes)(void *self, const struct device_task *task);
    // The effect DEVICE_SUBMIT, called by the driver. Never fails: errors come back in the list.
    void (*submit)(void *self, struct device_list *list);
    // Tells that [offset, +bytes) holds nothing any more, so that physical memory can go back to the system. May be NULL.
    void (*trim)(void *self, uint64_t offset, uint64_t bytes);
    // Tells that this peer is gone or not needed: its region is closed once what runs is done. Lists that name it later open it anew. May be NULL.
    void (*forget_peer)(void *self, uint64_t incarnation);
    void (*stop)(void *self);                                               // finishes what runs, ends threads, frees
};

#endif
