// Pointwise: the contiguous loop of one op in one compute dtype. Strides and other dtypes are the caller's business (blocks).

#ifndef GPU_WORKER_KERNELS_POINTWISE_H
#define GPU_WORKER_KERNELS_POINTWISE_H

#include <stdint.h>

enum { POINTWISE_OPS = 128, SCALARS_MAX = 4 };      // pointwise ops have numbers below the first

// The scalar attributes of a call, each as a double and as an integer.
struct block_scalars {
    double f[SCALARS_MAX];
    int64_t i[SCALARS_MAX];
    bool has[SCALARS_MAX];
    int64_t mode;                       // rounding, or the form of gelu
};

// out[j] = op(a[j], b[j], c[j]) for j < n. Comparisons write bytes.
typedef void (*block_function)(const void *a, const void *b, const void *c, void *out, int64_t n, const struct block_scalars *s);

#endif
