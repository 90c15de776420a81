// Copy: arguments of copy.cu.

#ifndef GPU_WORKER_KERNELS_CUDA_COPY_H
#define GPU_WORKER_KERNELS_CUDA_COPY_H

#include <stdint.h>

#include "gpu_worker/kernels/cuda/sweep.h"

enum { COPY_THREADS = 256, COPY_PATTERN_BYTES = 16 };
enum { COPY_TILE_BYTES = COPY_THREADS * 16 };       // that a block moves at a time

// A rectangle that is moved, or filled, in units of 1, 2, 4, 8 or 16 bytes. A launch has one a grid_y.
struct copy_part {
    const void *from;                               // NULL: `pattern`, which repeats the value to fill with
    void *to;
    uint8_t pattern[COPY_PATTERN_BYTES];
    struct sweep sweep;                             // to, from; in units
    uint32_t unit, pad;
};

// out[b, i, j] = keeps j - i ? in[b, i, j] : 0
struct triangle_args {
    const void *from;
    void *to;
    struct loop batch;                              // to, from
    int64_t rows, columns, row_stride[2], column_stride[2];
    int64_t diagonal;
    uint32_t is_lower, unit;
};

// out[i] = start + step * i
struct range_args {
    void *to;
    int64_t count, stride, start, step;
    double from, by;
    uint32_t dtype, is_float;
};

// 32 by 32 tiles turned over in shared memory: `to` is dense along columns, `from` along rows.
enum { TURN_TILE = 32, TURN_ROWS = 8 };
struct turn_args {
    const void *from;
    void *to;
    struct loop batch;                              // to, from
    int64_t rows, columns, row_stride[2], column_stride[2];
    uint32_t unit, pad;
};

#endif
