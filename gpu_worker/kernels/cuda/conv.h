// Convolution: arguments of conv.cu. One dimension is two, with a height of 1.

#ifndef GPU_WORKER_KERNELS_CUDA_CONV_H
#define GPU_WORKER_KERNELS_CUDA_CONV_H

#include <stdint.h>

enum { CONV_SLICE = 2048 };         // pixels that one slice of a weight's gradient sums: the order of the sum, whatever the grid

struct conv_plane { int64_t image, channel, row, column; };     // strides in elements

struct conv_args {
    const void *x, *weight, *bias;  // bias may be NULL
    void *y;                        // forward: the output; backward: the gradient of it, which is read
    void *out;                      // backward: what is written
    float *slice;                   // backward of the weight: [slices][outputs of all groups][taps]; NULL when there is one slice
    struct conv_plane x_stride, y_stride, weight_stride;    // weight: image is the output channel
    int64_t bias_stride;
    int64_t images, groups, channels, outputs;              // channels and outputs of one group
    int64_t in_h, in_w, out_h, out_w, kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, step_h, step_w;
    int64_t slices;
};

#endif
