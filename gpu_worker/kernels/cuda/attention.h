// Attention: arguments and shapes of attention.cu.

#ifndef GPU_WORKER_KERNELS_CUDA_ATTENTION_H
#define GPU_WORKER_KERNELS_CUDA_ATTENTION_H

#include <stdint.h>

enum {
    ATTENTION_FEW_THREADS = 128,        // of a block that walks a part of the keys for one query
    ATTENTION_FEW_LOADS = 4,            // pieces of 16 bytes of keys that a thread of it has on their way, and as many of values
    ATTENTION_FEW_BLOCKS = 4,           // of it that a multiprocessor holds at least
    ATTENTION_ROUND_BYTES = ATTENTION_FEW_THREADS * ATTENTION_FEW_LOADS * 16,   // of keys that such a block reads at once
    ATTENTION_JOIN_THREADS = 256,
    ATTENTION_PARTS_MOST = 64,
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
    float *part;                        // few, where there are several parts: for each (batch and head, query, part): part_pitch sums
    float *part_top;                    // and the largest score, the sum of weights
    int64_t q_stride[4], k_stride[4], v_stride[4], mask_stride[4], out_stride[4], lse_stride[3];
    int64_t heads, queries, keys, depth, value_depth;
    int64_t part_keys, parts, part_pitch;   // few: keys of a part
    int32_t mask_kind, is_causal;
    float scale;
    int32_t join_lane_bits;             // join: 1 << that many threads take four sums each
};

#endif
