// Matmul: arguments of matmul.cu. out[b][i][j] = alpha * sum over k of a[b][i][k] * b[b][k][j] + beta * add[b][i][j]; steps are in
// elements.

#ifndef GPU_WORKER_KERNELS_CUDA_MATMUL_H
#define GPU_WORKER_KERNELS_CUDA_MATMUL_H

#include <stdint.h>

enum {
    MATMUL_ROWS_MAX = 8,            // of a, in the kernels that read b once
    MATMUL_NK_THREADS = 256,
    MATMUL_NK_WARPS = MATMUL_NK_THREADS / 32,
    MATMUL_KN_THREADS_MOST = 512,    // where a multiprocessor has one block
    MATMUL_KN_THREADS = 256,
    MATMUL_LANES_LEAST = 2,         // of the [k][n] kernels: neighbouring threads side by side in a row of b
    MATMUL_LANES_MOST = 8,
    MATMUL_TILE = 64,
    MATMUL_TILE_THREADS = 256,
    MATMUL_SUM_THREADS = 256,
    MATMUL_VECTOR_BYTES = 16,       // that a thread reads of b at a time
};

// Columns that a warp of the [n][k] kernels takes: more of them share what is read of a.
#define MATMUL_NK_COLUMNS(rows_max) ((rows_max) == 1 ? 2 : 4)

struct matmul_args {
    const void *a, *b, *add;        // add NULL: none
    void *out;
    void *partial;                  // [split][batch][m][n] sums of the splits, in the type that sums
    int64_t batch, m, n, k;
    int64_t a_batch, a_m, a_k;
    int64_t b_batch, b_k, b_n;
    int64_t add_batch, add_m, add_n;
    int64_t out_batch, out_m, out_n;
    int64_t k_part;                 // of k in a split, a multiple of what a warp reads at a time
    double alpha, beta;             // of floats
    int64_t alpha_int, beta_int;    // of integers
    int32_t splits;                 // 1: the kernel finishes its sums itself
    int32_t k_warps;                // [n][k]: warps of a block that share a column
    int32_t lanes;                  // [k][n]: a power of two
    int32_t a_is_wide, b_is_wide;   // reads of MATMUL_VECTOR_BYTES are possible
    int32_t pad;
};

#endif
