// Reduce: arguments of reduce.cu.

#ifndef GPU_WORKER_KERNELS_CUDA_REDUCE_H
#define GPU_WORKER_KERNELS_CUDA_REDUCE_H

#include <stdint.h>

#include "gpu_worker/kernels/cuda/loop.h"

enum reduce_rule { REDUCE_SUM, REDUCE_PROD, REDUCE_MAX, REDUCE_MIN, REDUCE_ANY, REDUCE_ALL, REDUCE_VAR, REDUCE_NORM };
enum { REDUCE_THREADS = 256, REDUCE_BLOCKS = 2, REDUCE_STATE_BYTES = 32 };

struct reduce_args {
    const void *in;
    void *value;                    // NULL: not wanted
    int64_t *index;                 // NULL: not wanted
    void *partial;                  // REDUCE_STATE_BYTES for each output and split; NULL: there is one split
    int64_t outputs, length;        // elements folded into each output
    int64_t piece;                  // of them, what one split folds
    double parameter;               // var: correction; norm: order
    struct loop kept;               // tensors in, value, index without the reduced dimensions
    struct loop reduced;            // tensor in
    uint32_t rule, is_mean;
    uint32_t lanes;                 // threads that fold one output, a power of two
    uint32_t is_column;             // neighbouring threads fold neighbouring outputs, else neighbouring elements of one
    uint32_t splits, in_dtype, out_dtype, pad;
};

// Running sums along rows; with `carry`, rows are cut into pieces whose sums come first.
struct scan_args {
    const void *in;
    void *out;
    void *carry;                    // double or int64 for each row and piece
    int64_t length, piece, in_stride, out_stride;
    struct loop rows;               // tensors in, out
    uint32_t pieces, in_dtype, out_dtype, is_column;
};

#endif
