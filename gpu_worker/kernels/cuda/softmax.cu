// Softmax on a GPU: a block a row (a loop over rows where there are more rows than blocks); y = exp(x - max) / sum of it, log softmax x - max - log(sum).
//
// Threads take elements with the stride of the block, so a row's sum has one order whatever else runs.

#include "gpu_worker/kernels/cuda/device.cuh"
#include "gpu_worker/kernels/cuda/softmax.h"

template <typename T> DJ_FN void softmax_rows(const struct softmax_args *args)
{
    typedef typename dj_math<T>::type Number;
    for (int64_t row = blockIdx.x; row < args->rows.count; row += gridDim.x) {
        const T *x = (const T *)args->x + dj_at(&args->rows, 0, row);
        T *y = (T *)args->out + dj_at(&args->rows, 2, row);
        Number top = -INFINITY, sum = 0;
        for (int64_t i = threadIdx.x; i < args->length; i += blockDim.x)
            top = dj_largest()(dj_load(x + i * args->stride[0]), top);
        top = dj_block_all(top, dj_largest(), (Number)-INFINITY);
        for (int64_t i = threadIdx.x; i < args->length; i += blockDim.x)
            sum += exp(dj_load(x + i * args->stride[0]) - top);
        sum = dj_block_all(sum, dj_add(), (Number)0);
        Number shift = top + log(sum), share = 1 / sum;
        for (int64_t i = threadIdx.x; i < args->length; i += blockDim.x) {
            Number value = dj_load(x + i * args->stride[0]);
            dj_store(y + i * args->stride[2], args->is_log ? value - shift : exp(value - top) * share);
        }
    }
}

// (g - sum(g y)) y, and g - exp(y) sum(g).
template <typename T> DJ_FN void softmax_backward_rows(const struct softmax_args *args)
{
    typedef typename dj_math<T>::type Number;
    for (int64_t row = blockIdx.x; row < args->rows.count; row += gridDim.x) {
        const T *g = (const T *)args->x + dj_at(&args->rows, 0, row), *y = (const T *)args->y + dj_at(&args->rows, 1, row);
        T *out = (T *)args->out + dj_at(&args->rows, 2, row);
        Number sum = 0;
        for (int64_t i = threadIdx.x; i < args->length; i += blockDim.x) {
            Number gradient = dj_load(g + i * args->stride[0]);
            sum += args->is_log ? gradient : gradient * dj_load(y + i * args->stride[1]);
        }
        sum = dj_block_all(sum, dj_add(), (Number)0);
        for (int64_t i = threadIdx.x; i < args->length; i += blockDim.x) {
            Number gradient = dj_load(g + i * args->stride[0]), value = dj_load(y + i * args->stride[1]);
            dj_store(out + i * args->stride[2], args->is_log ? gradient - exp(value) * sum : (gradient - sum) * value);
        }
    }
}

DJ_KERNEL(softmax_f32, struct softmax_args, 1024)
{
    softmax_rows<float>(args);
}
DJ_KERNEL(softmax_f64, struct softmax_args, 1024)
{
    softmax_rows<double>(args);
}
DJ_KERNEL(softmax_f16, struct softmax_args, 1024)
{
    softmax_rows<dj_half>(args);
}
DJ_KERNEL(softmax_bf16, struct softmax_args, 1024)
{
    softmax_rows<dj_bfloat>(args);
}
DJ_KERNEL(softmax_backward_f32, struct softmax_args, 1024)
{
    softmax_backward_rows<float>(args);
}
DJ_KERNEL(softmax_backward_f64, struct softmax_args, 1024)
{
    softmax_backward_rows<double>(args);
}
DJ_KERNEL(softmax_backward_f16, struct softmax_args, 1024)
{
    softmax_backward_rows<dj_half>(args);
}
DJ_KERNEL(softmax_backward_bf16, struct softmax_args, 1024)
{
    softmax_backward_rows<dj_bfloat>(args);
}
