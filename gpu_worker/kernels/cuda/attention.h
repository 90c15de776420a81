// Attention: arguments and shapes of attention.cu.

#ifndef GPU_WORKER_KERNELS_CUDA_ATTENTION_H
#define GPU_WORKER_KERNELS_CUDA_ATTENTION_H

#include <stdint.h>

enum {
    ATTENTION_FEW_THREADS = 128,        // of a block that walks a part of the keys for one query
    ATTENTION_MANY_THREADS = 128,       // of a block that walks all keys for ATTENTION_QUERIES queries
    ATTENTION_QUERIES = 32,
    ATTENTION_KEYS = 32,                // keys in shared memory at a time
};

enum attention_mask { MASK_NONE, MASK_BOOL, MASK_F32, MASK_F16, MASK_BF16 };

// Strides in elements: batch, head, row, element.
struct attention_args {
    const void *q, *k, *v, *mask;
    void *out;
    float *lse;                         // may be NULL
    float *part;                        // few: for each (batch and head, query, part): the largest score, the sum of weights, value_depth sums
    int64_t q_stride[4], k_stride[4], v_stride[4], mask_stride[4], out_stride[4], lse_stride[3];
    int64_t heads, queries, keys, depth, value_depth;
    int64_t part_keys, parts;           // few: keys of a part
    int32_t mask_kind, is_causal;
    float scale;
    int32_t pad;
};

#endif
