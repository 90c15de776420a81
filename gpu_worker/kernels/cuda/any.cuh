// Any: loads and stores of elements whose dtype is known when the kernel runs. The branch is the same for all threads.

#ifndef GPU_WORKER_KERNELS_CUDA_ANY_CUH
#define GPU_WORKER_KERNELS_CUDA_ANY_CUH

#include "core/ops/dtype.h"
#include "gpu_worker/kernels/cuda/device.cuh"

// Converted as C does: floats to integers truncate.
template <typename Number> DJ_COLD Number any_load(const void *base, uint32_t dtype, int64_t index)
{
    switch (dtype) {
    case DTYPE_BOOL:
    case DTYPE_U8: return (Number)((const uint8_t *)base)[index];
    case DTYPE_I8: return (Number)((const int8_t *)base)[index];
    case DTYPE_I16: return (Number)((const int16_t *)base)[index];
    case DTYPE_I32: return (Number)((const int32_t *)base)[index];
    case DTYPE_I64: return (Number)((const int64_t *)base)[index];
    case DTYPE_F16: return (Number)dj_load((const dj_half *)base + index);
    case DTYPE_BF16: return (Number)dj_load((const dj_bfloat *)base + index);
    case DTYPE_F32: return (Number)((const float *)base)[index];
    default: return (Number)((const double *)base)[index];
    }
}

template <typename Number> DJ_COLD void any_store(void *base, uint32_t dtype, int64_t index, Number value)
{
    switch (dtype) {
    case DTYPE_BOOL: ((uint8_t *)base)[index] = value != (Number)0; break;
    case DTYPE_U8: ((uint8_t *)base)[index] = (uint8_t)value; break;
    case DTYPE_I8: ((int8_t *)base)[index] = (int8_t)value; break;
    case DTYPE_I16: ((int16_t *)base)[index] = (int16_t)value; break;
    case DTYPE_I32: ((int32_t *)base)[index] = (int32_t)value; break;
    case DTYPE_I64: ((int64_t *)base)[index] = (int64_t)value; break;
    case DTYPE_F16: dj_store((dj_half *)base + index, (float)value); break;
    case DTYPE_BF16: dj_store((dj_bfloat *)base + index, (float)value); break;
    case DTYPE_F32: ((float *)base)[index] = (float)value; break;
    default: ((double *)base)[index] = (double)value; break;
    }
}

#endif
