// Softmax on a GPU: a block a row (a loop over rows where there are more rows than blocks); y = exp(x - max) / sum of it, log softmax x - max - log(sum).
//
// Threads take elements with the stride of the block, so a row's sum has one order whatever else runs.

#include "gpu_worker/kernels/cuda/device.cuh"
#include "gpu_worker/kernels/cuda/softmax.h"

// Calls `use` with a thread's elements of a row and their places, in their order; several are on their way together.
template <typename T, typename Use> DJ_FN void softmax_walk(const T *x, int64_t stride, int64_t length, Use use)
{
    enum { AHEAD = 8 };
    const int64_t threads = blockDim.x;
    int64_t i = threadIdx.x;
    DJ_ROLLED
    for (; i + (AHEAD - 1) * threads < length; i += AHEAD * threads) {
        T value[AHEAD];
        DJ_UNROLL
        for (int a = 0; a < AHEAD; a++)
            value[a] = x[(i + a * threads) * stride];
        DJ_UNROLL
        for (int a = 0; a < AHEAD; a++)
            use(i + a * threads, dj_load(&value[a]));
    }
    DJ_ROLLED
    for (; i < length; i += threads)
        use(i, dj_load(x + i * stride));
}

template <typename T> DJ_FN void softmax_rows(const struct softmax_args *args)
{
    typedef typename dj_math<T>::type Number;
    for (int64_t row = blockIdx.x; row < args->rows.count; row += gridDim.x) {
        const T *x = (const T *)args->x + dj_at(&args->rows, 0, row);
        T *y = (T *)args->out + dj_at(&args->rows, 2, row);
        const int64_t stride = args->stride[0], y_stride = args->stride[2];
        const bool is_log = args->is_log;
        Number top = -INFINITY, sum = 0;
        softmax_walk(x, stride, args->length, [&](int64_t, Number value) { top = dj_largest()(value, top); });
        top = dj_block_all(top, dj_largest(), (Number)-INFINITY);
        softmax_walk(x, stride, args->length, [&](int64_t, Number value) { sum += exp(value - top); });
        sum = dj_block_all(sum, dj_add(), (Number)0);
        const Number shift = top + log(sum), share = 1 / sum;
        softmax_walk(x, stride, args->length, [&](int64_t i, Number value) {
            dj_store(y + i * y_stride, is_log ? value - shift : exp(value - top) * share);
        });
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
