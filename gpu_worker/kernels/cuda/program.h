// Program: what one list of tasks is for a GPU, before any of it is given to the GPU: launches of our kernels with their arguments, and calls of
// libraries. Kernels' emit functions (cuda.h) write it; the device (device/cuda) uploads the arguments with one copy, and launches the steps or replays
// the CUDA graph that it captured of the same steps.
//
// Idea: a kernel of ours has three parameters, the address of its arguments in device memory, the address of the program's report, and the number of its
// task. Everything that changes between two executions of a plan (pointers, sizes, numbers) lies in the arguments; the steps themselves stay the same, so
// one captured graph serves all executions with equal steps. What a step is, is thus the key of a graph: function, grid, block, shared memory, place of
// its arguments, task; for library calls their context's bytes. So grids must not follow sizes that grow by one a token: cuda_blocks rounds them up.
//
// Host code, no CUDA call in it. One thread.

#ifndef GPU_WORKER_KERNELS_CUDA_PROGRAM_H
#define GPU_WORKER_KERNELS_CUDA_PROGRAM_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/error.h"
#include "core/base/hash.h"
#include "gpu_worker/kernels/cuda/api.h"
#include "gpu_worker/kernels/cuda/chain.h"
#include "gpu_worker/kernels/cuda/report.h"

enum cuda_function {
    CUDA_FUNCTION_NONE,
#define KERNEL(family, name) CUDA_##name,
#include "gpu_worker/kernels/cuda/kernels.def"
#undef KERNEL
    CUDA_FUNCTIONS_END
};

enum cuda_family {      // one image of device code each, loaded when the first of its kernels is launched
#define FAMILY(name) CUDA_FAMILY_##name,
#include "gpu_worker/kernels/cuda/kernels.def"
#undef FAMILY
    CUDA_FAMILIES
};

struct cuda_kernel_name {
    const char *name;           // NULL for CUDA_FUNCTION_NONE
    enum cuda_family family;
};
extern const struct cuda_kernel_name cuda_kernel_names[CUDA_FUNCTIONS_END];

struct cuda_libraries;          // libraries.h: cuBLASLt and cuDNN as the device opened them, with their handles, workspaces and caches

// A library's call on a stream. 0, or the library's error put into `fault`. `context` is the bytes given to cuda_emit_call.
typedef enum dj_error (*cuda_call)(const void *context, const struct cuda_libraries *libraries, cuda_stream stream, struct fault *fault);

enum { CUDA_ARGS_ALIGNMENT = 16, CUDA_STEPS_MAX = 1 << 16, CUDA_ARGS_MAX = 64 << 20 };

struct cuda_step {
    uint32_t task;
    uint16_t function;          // enum cuda_function; NONE: a call
    uint16_t block;             // threads
    uint32_t grid_x, grid_y, grid_z;
    uint32_t shared_bytes;
    uint32_t args_offset;       // of a launch: into `args`; of a call: into `context`
    uint32_t args_bytes;
    cuda_call call;
};

struct cuda_program {
    struct cuda_step *step;
    uint32_t steps, step_capacity;
    uint8_t *args;              // goes to the device
    uint32_t args_bytes, args_capacity;
    uint8_t *context;           // stays here
    uint32_t context_bytes, context_capacity;
    uint32_t task;              // the one that emits now
    bool may_fault;             // a step looks at values and may report them
    struct chain chain;         // that the last step may be
    const struct cuda_libraries *libraries;
    enum dj_error error;        // DJ_E_NO_MEMORY, DJ_E_LIMIT: sticky
};

void cuda_program_reset(struct cuda_program *program);      // keeps memory
void cuda_program_free(struct cuda_program *program);

struct cuda_shape { uint32_t grid_x, grid_y, grid_z, block, shared_bytes; };

// Adds a launch; copies `bytes` of arguments. Pointers in them are device addresses.
void cuda_emit(struct cuda_program *program, enum cuda_function function, struct cuda_shape shape, const void *args, uint32_t bytes);
// Whether the chain is the last step, so that parts may join it.
bool cuda_goes_on(const struct cuda_program *program);
// Puts further arguments behind the last step's, which has some, and makes it a launch of `function`: its kernel finds them behind the first ones.
void cuda_emit_more(struct cuda_program *program, enum cuda_function function, struct cuda_shape shape, const void *args, uint32_t bytes);
// Adds a library's call; `context` is copied and is part of a graph's key, so it holds no bytes that are not set (zero the struct first).
void cuda_emit_call(struct cuda_program *program, cuda_call call, const void *context, uint32_t bytes);

// Blocks for `count` items at `per_block`, at least 1, at most `most`, rounded up so that few numbers occur (1, 2, 3, 4, 6, 8, 12, 16, ...): the kernel
// loops with its grid's stride, or leaves when its block is beyond the end.
uint32_t cuda_blocks(int64_t count, int64_t per_block, uint32_t most);
uint32_t cuda_bucket(uint32_t n);       // n rounded up to 2^k or 3 * 2^k

// What makes two programs replayable by one graph.
struct hash128 cuda_program_key(const struct cuda_program *program);

#endif
