// Pool: arguments of pool.cu.

#ifndef GPU_WORKER_KERNELS_CUDA_POOL_H
#define GPU_WORKER_KERNELS_CUDA_POOL_H

#include <stdint.h>

enum { POOL_THREADS = 256 };

// Windows along one of a plane's two dimensions.
struct pool_window { int64_t kernel, stride, padding, dilation; };

// Sizes and strides in elements of [images, channels, rows, columns].
struct pool_tensor { int64_t size[4], stride[4]; };

struct pool_args {
    const void *x;                  // what is pooled; of a backward, the gradient
    const int64_t *index;           // backward of the largest: its places within planes
    void *out;
    int64_t *ret_index;             // forward of the largest
    struct pool_tensor from, to, at;        // x; out; index or ret_index
    struct pool_window window[2];
    int64_t divisor;                // 0: the window's size
    int32_t is_adaptive;            // windows follow the sizes
    int32_t counts_padding;
    int32_t is_channels_last;       // neighbouring threads take neighbouring channels, else columns
    int32_t by_warps;               // a warp shares a window
    int32_t is_small;               // counts fit 31 bits
    int32_t pad;
};

#endif
