// Dnn world: what the tests of cuDNN's kernels share: libraries with a fake of cuDNN, calls of convolutions and attention, and the
// comparison with our own kernels.

#ifndef TESTS_GPU_WORKER_KERNELS_CUDA_DNN_WORLD_H
#define TESTS_GPU_WORKER_KERNELS_CUDA_DNN_WORLD_H

#include "gpu_worker/kernels/cuda/cuda.h"
#include "gpu_worker/kernels/cuda/libraries.h"
#include "tests/lib/case.h"
#include "tests/lib/cuda/fake_cudnn.h"

enum { TENSORS_MAX = 6, WINDOWS = 4 };

struct world {
    struct cuda_libraries libraries;
    struct cuda_program program;
    struct arena *arena;
    struct fault fault;
    uint32_t evictions;
};

// Ends with the test, and with everything given back to the fake.
struct world *world_make(void **state);

// A call of an op, its tensors in the arena.
struct run {
    struct tensor in[TENSORS_MAX], out[2];
    struct attr attr[8];
    struct kernel_call call;
    uint32_t calls, launches;    // steps of the program
    enum dj_error error;
};

// Writes the program of a call, with the library or without; counts its steps. Then runs it, until a step fails.
void emit(struct world *world, struct run *run, bool by_library);
void run_steps(struct world *world, struct run *run);
void blank(const struct run *run);      // puts other bytes into the outputs

// What our own kernels make of it, as floats: both outputs one after the other.
struct expected {
    double *number;
    int64_t count[2];
};

struct expected expect(struct world *world, struct run *run);
void assert_expected(const struct run *run, const struct expected *expected);
// By the library, in `calls` calls and `launches` of our own kernels, and as our kernels compute it.
void check(struct world *world, struct run *run, uint32_t calls, uint32_t launches);

struct window {
    int64_t images, channels, outputs, groups, height, width, kernel, stride, padding, dilation;
    bool has_bias, is_channels_last;
};

extern const struct window windows[WINDOWS];
void convolution(struct world *world, enum op op, enum dtype dtype, const struct window *w, struct run *run);

enum layout { BY_HEAD, BY_ROW, IN_ONE };    // [b, h, rows, d]; [b, rows, h, d]; q, k and v in rows of [3, h, d]

struct attended {
    enum dtype dtype;
    int64_t batch, heads, queries, keys, depth, values;    // values 0: as depth
    bool is_causal, has_mask, is_without_lse;
    enum layout layout;
    double scale;    // 0: none said
    int64_t shift;
};

void attention(struct world *world, const struct attended *a, struct run *run);

#endif
