// Norm: arguments of norm.cu.

#ifndef GPU_WORKER_KERNELS_CUDA_NORM_H
#define GPU_WORKER_KERNELS_CUDA_NORM_H

#include <stdint.h>

#include "gpu_worker/kernels/cuda/loop.h"

enum norm_kind { NORM_NONE, NORM_F32, NORM_F16, NORM_BF16 };

// What there is one of a channel or a row: weights, biases, means. Its dtype is its own.
struct norm_vector {
    void *data;
    int64_t stride;                 // in elements
    int32_t kind;                   // enum norm_kind
    int32_t is_wide;                // stride 1 and 16-aligned
};

enum { NORM_CHUNKS = 4, NORM_ROW_THREADS = 512, NORM_SUM_THREADS = 256 };
enum { NORM_APPLY_THREADS = 256, NORM_APPLY_BLOCKS = 3, NORM_APPLY_PIECES = 2 };      // pieces of 16 bytes that a thread takes at a time

// Rows of layer norm and group norm. Element i of row r has the channel r % groups * channels + i / plane.
struct norm_rows_args {
    const void *x, *gradient;       // gradient: of a backward
    void *out;
    void *ret_mean, *ret_rstd;      // float32, of a forward
    struct norm_vector weight, bias;
    struct norm_vector mean, rstd;  // a row's, of a backward
    int64_t length, plane, groups, channels;
    double eps;
    int32_t is_wide;                // 16-byte accesses along the row
    int32_t pad;
    struct loop columns;            // x, out, gradient within a row
    struct loop rows;               // x, out, gradient; or, of a forward, x, out, mean, rstd
};

enum norm_sum {
    NORM_SUM_MOMENTS,               // d, d^2                           d = x - the channel's first value
    NORM_SUM_CHANNELS,              // g, g (x - mean[channel])
    NORM_SUM_ROWS,                  // g, g (x - mean[row]) rstd[row]   row = item / per_row * groups + channel / per_group
};

// Two sums of each channel over its items, in parts that norm_finish adds.
struct norm_sums_args {
    const void *x, *gradient;
    double *partial;                // [2][splits][channels]
    struct norm_vector mean, rstd;
    int64_t channels, items, items_per_split, per_row, groups, per_group;
    int32_t sum;                    // enum norm_sum
    int32_t is_by_lanes;            // a block is 32 channels, its warps take items; else a block is a channel
    struct loop channel, item;      // x, gradient
};

struct norm_finish_args {
    const double *partial;
    const void *x;                  // of NORM_SUM_MOMENTS: for its first values
    float *coefficients;            // of NORM_SUM_CHANNELS: [3][channels], for norm_apply
    struct norm_vector weight, mean, rstd;          // of NORM_SUM_CHANNELS
    struct norm_vector first, second, variance;     // results: mean, rstd, var; or dw, db
    int64_t channels, items, splits, step;          // step: of x from channel to channel
    double eps;
    int32_t sum;                    // enum norm_sum
    int32_t is_training;
    int32_t x_kind;
    int32_t pad;
};

enum norm_apply {
    NORM_APPLY_VARIANCE,            // (x - mean) / sqrt(spread + eps) * weight + bias
    NORM_APPLY_RSTD,                // (x - mean) * spread * weight + bias
    NORM_APPLY_GRADIENT,            // (x - mean) * slope + shift + g * factor
};

// What a channel's values become, value by value.
struct norm_apply_args {
    const void *x, *gradient;
    void *out;
    struct norm_vector weight, bias, mean, spread;      // NORM_APPLY_GRADIENT: slope, shift, mean and factor
    int64_t channels, inner;        // is_dense: element i in memory is of channel i / inner % channels
    double eps;
    int32_t apply;                  // enum norm_apply
    int32_t is_dense;               // all tensors have one dense layout
    int32_t is_wide;
    int32_t pad;
    struct loop all;                // x, out, gradient, the channel's number
};

#endif
