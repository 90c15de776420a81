// Random: arguments of random.cu.

#ifndef GPU_WORKER_KERNELS_CUDA_RANDOM_H
#define GPU_WORKER_KERNELS_CUDA_RANDOM_H

#include <stdint.h>

#include "gpu_worker/kernels/cuda/loop.h"

enum random_kind { RANDOM_UNIFORM, RANDOM_NORMAL, RANDOM_BERNOULLI, RANDOM_INTEGER, RANDOM_DROPOUT };
enum { RANDOM_THREADS = 256, MULTINOMIAL_THREADS = 512 };    // multinomial: at most, a power of two
enum { RANDOM_ELEMENTS = 4 };       // of a thread: those of one block of 32-bit draws

struct random_args {
    uint64_t seed, offset;
    double a, b;                    // low, high; mean, standard deviation; p and the scale of what is kept
    int64_t low;                    // integers: low + draw % range
    uint64_t range;
    const void *in;                 // dropout
    void *out, *mask;
    uint32_t kind, dtype;
    struct loop loop;               // out, in, mask; in the order of elements
};

struct multinomial_args {
    uint64_t seed, offset;
    const void *weight;
    int64_t *out;
    int64_t rows, classes, draws;
    int64_t row_stride, class_stride;   // of weight
    uint32_t dtype, replaces;
};

#endif
