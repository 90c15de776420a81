// Elements: one value of any real dtype read as, or written from, the type that a kernel computes in. A dtype is the same for a whole
// launch, so its switch costs a uniform branch.

#ifndef GPU_WORKER_KERNELS_CUDA_ELEMENTS_CUH
#define GPU_WORKER_KERNELS_CUDA_ELEMENTS_CUH

#include "core/ops/dtype.h"
#include "gpu_worker/kernels/cuda/device.cuh"

struct dj_truth { uint8_t byte; };      // bool

template <typename P> struct dj_pointee;
template <typename T> struct dj_pointee<T *> { typedef T type; };

// Calls `use` with a null pointer of the dtype's element type.
template <typename Use> DJ_FN void dj_with_dtype(uint32_t dtype, Use use)
{
    switch (dtype) {
    case DTYPE_BOOL: use((dj_truth *)nullptr); break;
    case DTYPE_U8: use((uint8_t *)nullptr); break;
    case DTYPE_I8: use((int8_t *)nullptr); break;
    case DTYPE_I16: use((int16_t *)nullptr); break;
    case DTYPE_I32: use((int32_t *)nullptr); break;
    case DTYPE_I64: use((int64_t *)nullptr); break;
    case DTYPE_F16: use((dj_half *)nullptr); break;
    case DTYPE_BF16: use((dj_bfloat *)nullptr); break;
    case DTYPE_F32: use((float *)nullptr); break;
    default: use((double *)nullptr); break;
    }
}

// An element as a number of C's.
template <typename T> DJ_FN T dj_number(T value) { return value; }
DJ_FN uint8_t dj_number(dj_truth value) { return value.byte; }
DJ_FN float dj_number(dj_half value) { return dj_half_bits_to_float(value.bits); }
DJ_FN float dj_number(dj_bfloat value) { return dj_bfloat_bits_to_float(value.bits); }

// A number as an element, as PyTorch casts. Floats become uint8 by way of int32, so that negative ones wrap as they do on a CPU.
template <typename T> struct dj_make { template <typename C> static DJ_FN T of(C value) { return (T)value; } };
template <> struct dj_make<uint8_t> {
    static DJ_FN uint8_t of(float value) { return (uint8_t)(int32_t)value; }
    static DJ_FN uint8_t of(double value) { return (uint8_t)(int32_t)value; }
    static DJ_FN uint8_t of(int64_t value) { return (uint8_t)value; }
};
template <> struct dj_make<dj_truth> { template <typename C> static DJ_FN dj_truth of(C value) { return {(uint8_t)(value != 0)}; } };
template <> struct dj_make<dj_half> {
    template <typename C> static DJ_FN dj_half of(C value) { return {dj_float_to_half_bits((float)value)}; }
};
template <> struct dj_make<dj_bfloat> {
    template <typename C> static DJ_FN dj_bfloat of(C value) { return {dj_float_to_bfloat_bits((float)value)}; }
};

// Element `index` at `base`, whatever its dtype, as the number that a kernel computes in; and back. Calls, so that rare layouts cost little code.
template <typename Number> DJ_COLD Number dj_load_any(const void *base, uint32_t dtype, int64_t index)
{
    Number number = 0;
    dj_with_dtype(dtype, [&](auto *type) {
        typedef typename dj_pointee<decltype(type)>::type T;
        number = (Number)dj_number(((const T *)base)[index]);
    });
    return number;
}

template <typename Number> DJ_COLD void dj_store_any(void *base, uint32_t dtype, int64_t index, Number value)
{
    dj_with_dtype(dtype, [&](auto *type) {
        typedef typename dj_pointee<decltype(type)>::type T;
        ((T *)base)[index] = dj_make<T>::of(value);
    });
}

#endif
