// Loss of classes: -w[t] x[t] of each row's class t, their sum or mean, and its gradient. Part of norm.cu's image: a network that
// ends in it has norms.

#ifndef GPU_WORKER_KERNELS_CUDA_LOSS_CUH
#define GPU_WORKER_KERNELS_CUDA_LOSS_CUH

#include "gpu_worker/kernels/cuda/device.cuh"
#include "gpu_worker/kernels/cuda/loss.h"

// The class of a row; false where the row does not count. Classes that do not exist are reported.
DJ_FN bool class_of(const struct nll_args *args, int64_t row, unsigned long long *fault, unsigned task, int64_t *ret)
{
    int64_t at = row * args->of_step;
    *ret = args->is_byte ? ((const uint8_t *)args->classes_of)[at] : ((const int64_t *)args->classes_of)[at];
    if (*ret == args->ignored)
        return false;
    if (*ret >= 0 && *ret < args->classes)
        return true;
    dj_fail(fault, task, FAILURE_CLASS, (uint64_t)row, *ret, args->classes);
    return false;
}

template <typename T> DJ_FN double class_weight(const struct nll_args *args, int64_t number)
{
    return args->weight == nullptr ? 1.0 : (double)dj_load((const T *)args->weight + number * args->weight_step);
}

// -w[t] x[t] of each row, or the sum over all rows (one block), that over the sum of w[t] for the mean.
template <typename T> DJ_FN void nll_loss(const struct nll_args *args, unsigned long long *fault, unsigned task)
{
    typedef typename dj_math<T>::type Number;
    double sum = 0, weights = 0;
    for (int64_t row = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; row < args->rows; row += (int64_t)gridDim.x * blockDim.x) {
        double value = 0;
        int64_t number;
        if (class_of(args, row, fault, task, &number)) {
            double weight = class_weight<T>(args, number);
            value = -weight * (double)dj_load((const T *)args->x + row * args->x_row + number * args->x_column);
            weights += weight;
        }
        if (args->is_each)
            dj_store((T *)args->out + row * args->out_row, (Number)value);
        sum += value;
    }
    if (!args->is_each) {
        sum = dj_block_all(sum, dj_add(), 0.0);
        weights = dj_block_all(weights, dj_add(), 0.0);
    }
    if (blockIdx.x > 0 || threadIdx.x > 0)
        return;
    if (!args->is_each)
        dj_store((T *)args->out, (Number)(args->is_mean ? sum / weights : sum));
    dj_store((T *)args->ret_total, (Number)(args->is_each ? 0.0 : weights));
}

// -w[t] g at [row][t], 0 elsewhere; a block a row.
template <typename T> DJ_FN void nll_loss_backward(const struct nll_args *args, unsigned long long *fault, unsigned task)
{
    typedef typename dj_math<T>::type Number;
    double total = (double)dj_load((const T *)args->total);
    for (int64_t row = blockIdx.x; row < args->rows; row += gridDim.x) {
        int64_t number;
        Number slope = 0;
        if (class_of(args, row, fault, task, &number)) {
            double value = -class_weight<T>(args, number) *
                           (double)dj_load((const T *)args->gradient + row * args->gradient_step);
            slope = (Number)(args->is_mean ? value / total : value);
        } else {
            number = -1;
        }
        T *out = (T *)args->out + row * args->out_row;
        for (int64_t c = threadIdx.x; c < args->classes; c += blockDim.x)
            dj_store(out + c * args->out_column, c == number ? slope : (Number)0);
    }
}

#define NLL_KERNELS(suffix, T) \
    DJ_KERNEL(nll_loss_##suffix, struct nll_args, 1024) \
    { \
        nll_loss<T>(args, fault, task); \
    } \
    DJ_KERNEL(nll_loss_backward_##suffix, struct nll_args, 1024) \
    { \
        nll_loss_backward<T>(args, fault, task); \
    }
NLL_KERNELS(f32, float)
NLL_KERNELS(f64, double)
NLL_KERNELS(f16, dj_half)
NLL_KERNELS(bf16, dj_bfloat)

#endif
