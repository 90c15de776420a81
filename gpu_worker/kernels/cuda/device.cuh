// Device: what device code is written with. The same sources are compiled twice: by nvcc for GPUs, and as C++ for the tests, which run them on this
// machine's cores, thread by thread (tests/lib/cuda/emulator.h defines there what is a word of CUDA's here). So kernels use only what stands in this file,
// besides C++17 without its library, threadIdx, blockIdx, blockDim and gridDim.
//
//     DJ_KERNEL(softmax_f32, struct softmax_args, 256) { ... args->x ... dj_sync(); ... dj_fail(fault, task, FAILURE_INDEX, i, index, size); }
//
// gives extern "C" softmax_f32(const struct softmax_args *args, unsigned long long *fault, unsigned task) for blocks of at most 256 threads. DJ_KERNEL_OF
// also says how many such blocks a multiprocessor is to hold: registers are given out accordingly, without it the compiler prefers few of them and lets
// loads that could be on their way together wait for each other.
//
// What stays: sums of products are fused where the compiler sees them (nvcc's default, as PyTorch's own kernels are built): an image gives the same bits
// from run to run, and the numerics class names the device's generation. What must be rounded apart says so (dj_product), what must be fused says fmaf.
// Pointwise ops are compiled without fusing (cmake/djinn_cuda.cmake): chains of them give the bits of single ones.

#ifndef GPU_WORKER_KERNELS_CUDA_DEVICE_CUH
#define GPU_WORKER_KERNELS_CUDA_DEVICE_CUH

#include <stdint.h>

#include "gpu_worker/kernels/cuda/loop.h"
#include "gpu_worker/kernels/cuda/report.h"
#include "gpu_worker/kernels/failure.h"

#if defined(__CUDACC__)
#include <math.h>
#define DJ_FN __device__ __forceinline__
#define DJ_UNROLL _Pragma("unroll")
#define DJ_ROLLED _Pragma("unroll 1")
#define DJ_COLD static __device__ __noinline__      // code for rare layouts: called, so that it stands once in a kernel
#define DJ_KERNEL(name, Args, threads) DJ_KERNEL_BOUND(name, Args, __launch_bounds__(threads))
#define DJ_KERNEL_OF(name, Args, threads, blocks) DJ_KERNEL_BOUND(name, Args, __launch_bounds__(threads, blocks))
#define DJ_KERNEL_BOUND(name, Args, bound)                                                                                         \
    DJ_FN void name##_body(const Args *__restrict__ args, unsigned long long *fault, unsigned task);                               \
    extern "C" __global__ void bound name(const Args *__restrict__ args, unsigned long long *fault, unsigned task)                 \
    {                                                                                                                              \
        if (dj_fetch_all(args, sizeof(Args)) == 0)                                                                                 \
            name##_body(args, fault, task);                                                                                        \
    }                                                                                                                              \
    DJ_FN void name##_body([[maybe_unused]] const Args *__restrict__ args, [[maybe_unused]] unsigned long long *fault,             \
                           [[maybe_unused]] unsigned task)
#define DJ_SHARED(type, name, count) __shared__ type name[count]
#define DJ_DYNAMIC(type, name)                                                                                                     \
    extern __shared__ __align__(16) unsigned char dj_dynamic_bytes[];                                                              \
    type *const name = reinterpret_cast<type *>(dj_dynamic_bytes)
// Starts reading the line at `at` into the first-level cache. Gives 0, which nvcc does not see: an asm without effects, whose result is used, leaves it the
// right to read what lies there as constants.
DJ_FN unsigned dj_fetch(const void *at)
{
    unsigned zero;
    asm("{ prefetch.global.L1 [%1]; mov.u32 %0, 0; }" : "=r"(zero) : "l"(at));
    return zero;
}
// The same for `bytes`, the block's threads a line each: what a kernel would read one after the other while it goes along then waits for memory once.
DJ_FN unsigned dj_fetch_all(const void *at, unsigned bytes)
{
    unsigned offset = threadIdx.x * 128;
    return offset < bytes + 128 ? dj_fetch((const char *)at + (offset < bytes ? offset : bytes - 1)) : 0;
}
#define dj_sync() __syncthreads()
#define dj_warp_sync() __syncwarp()
template <typename T> DJ_FN T dj_shuffle_xor(T value, unsigned mask) { return __shfl_xor_sync(0xffffffffu, value, mask); }
template <typename T> DJ_FN T dj_shuffle_down(T value, unsigned by) { return __shfl_down_sync(0xffffffffu, value, by); }
template <typename T> DJ_FN T dj_shuffle_up(T value, unsigned by) { return __shfl_up_sync(0xffffffffu, value, by); }
template <typename T> DJ_FN T dj_shuffle(T value, unsigned lane) { return __shfl_sync(0xffffffffu, value, lane); }
DJ_FN unsigned dj_ballot(bool predicate) { return __ballot_sync(0xffffffffu, predicate); }
DJ_FN unsigned long long dj_atomic_cas(unsigned long long *at, unsigned long long expected, unsigned long long value)
{
    return atomicCAS(at, expected, value);
}
DJ_FN void dj_fence() { __threadfence(); }
DJ_FN int dj_atomic_add(int *at, int value) { return atomicAdd(at, value); }
DJ_FN int dj_atomic_max(int *at, int value) { return atomicMax(at, value); }
DJ_FN uint32_t dj_float_bits(float x) { return __float_as_uint(x); }
DJ_FN double dj_product(double a, double b) { return __dmul_rn(a, b); }     // rounded: never fused with a sum
DJ_FN float dj_bits_float(uint32_t bits) { return __uint_as_float(bits); }
// 16 bytes at a multiple of 16 that no thread writes while the kernel runs; those that are read once pass the first-level cache by.
struct alignas(16) dj_bytes16 { uint32_t word[4]; };
DJ_FN dj_bytes16 dj_read_once(const void *at)
{
    dj_bytes16 ret;
    asm("ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0, %1, %2, %3}, [%4];"
        : "=r"(ret.word[0]), "=r"(ret.word[1]), "=r"(ret.word[2]), "=r"(ret.word[3])
        : "l"(at));
    return ret;
}
DJ_FN dj_bytes16 dj_read_again(const void *at)
{
    dj_bytes16 ret;
    asm("ld.global.nc.v4.u32 {%0, %1, %2, %3}, [%4];"
        : "=r"(ret.word[0]), "=r"(ret.word[1]), "=r"(ret.word[2]), "=r"(ret.word[3])
        : "l"(at));
    return ret;
}
DJ_FN float dj_half_bits_to_float(uint16_t bits)
{
    float result;
    asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(bits));
    return result;
}
DJ_FN uint16_t dj_float_to_half_bits(float x)
{
    uint16_t result;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(result) : "f"(x));
    return result;
}
#else
#include "tests/lib/cuda/emulator.h"
#endif

// Numbers ----------------------------------------------------------------------------------------------------------------------

struct dj_half { uint16_t bits; };
struct dj_bfloat { uint16_t bits; };

DJ_FN float dj_bfloat_bits_to_float(uint16_t bits) { return dj_bits_float((uint32_t)bits << 16); }
DJ_FN uint16_t dj_float_to_bfloat_bits(float x)
{
    uint32_t bits = dj_float_bits(x);
    if (x != x)
        return 0x7fc0;
    return (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// What a dtype is computed in: dj_math<T>::type; and loads and stores that convert.
template <typename T> struct dj_math { typedef T type; };
template <> struct dj_math<dj_half> { typedef float type; };
template <> struct dj_math<dj_bfloat> { typedef float type; };

template <typename T> DJ_FN typename dj_math<T>::type dj_load(const T *at) { return *at; }
template <> DJ_FN float dj_load<dj_half>(const dj_half *at) { return dj_half_bits_to_float(at->bits); }
template <> DJ_FN float dj_load<dj_bfloat>(const dj_bfloat *at) { return dj_bfloat_bits_to_float(at->bits); }

template <typename T> DJ_FN void dj_store(T *at, typename dj_math<T>::type value) { *at = value; }
template <> DJ_FN void dj_store<dj_half>(dj_half *at, float value) { at->bits = dj_float_to_half_bits(value); }
template <> DJ_FN void dj_store<dj_bfloat>(dj_bfloat *at, float value) { at->bits = dj_float_to_bfloat_bits(value); }

// Places -----------------------------------------------------------------------------------------------------------------------

// The element offset of element `index` of a loop in its tensor `which`.
DJ_FN int64_t dj_at(const struct loop *loop, uint32_t which, int64_t index)
{
    if (loop->is_dense)
        return index;
    int64_t offset = 0;
    for (int d = (int)loop->rank - 1; d > 0; d--) {
        int64_t above = index / loop->size[d];
        offset += (index - above * loop->size[d]) * loop->stride[which][d];
        index = above;
    }
    return loop->rank == 0 ? 0 : offset + index * loop->stride[which][0];
}

// Reports that a value cannot be used (report.h). `position` orders values of one task: the lowest one is named. Called with many of them at once, in any order:
// whoever comes after an earlier one leaves without waiting, the others take turns.
[[maybe_unused]] DJ_COLD void dj_fail(unsigned long long *fault, unsigned task, enum failure failure, uint64_t position, int64_t value,
                                      int64_t size)
{
    volatile cuda_report *report = reinterpret_cast<cuda_report *>(fault);
    bool is_through = false;
    while (!is_through) {
        unsigned long long said = report->first >> 32;
        dj_fence();     // `position` is not read before `first`
        if (said != 0 && (said < task + 1 || (said == task + 1 && report->position <= position)))
            return;
        if (dj_atomic_cas(fault + 1, 0ull, 1ull) != 0)
            continue;
        dj_fence();
        said = report->first >> 32;
        if (said == 0 || said > task + 1 || (said == task + 1 && report->position > position)) {
            report->position = position;
            report->value = value;
            report->size = size;
            dj_fence();     // who sees `first` sees the position that belongs to it, or a lower one
            report->first = (unsigned long long)(task + 1) << 32 | (unsigned)failure;
        }
        dj_fence();
        dj_atomic_cas(fault + 1, 1ull, 0ull);
        is_through = true;
    }
}

// Sums and extremes over a block -------------------------------------------------------------------------------------------------
// One order: within warps by halves, then the warps' results by halves. Every thread gets the result. blockDim.x is a multiple of 32 and at most 1024; every
// thread of the block calls it.

struct dj_add { template <typename T> DJ_FN T operator()(T a, T b) const { return a + b; } };
// NaN wins, as in PyTorch.
struct dj_largest { template <typename T> DJ_FN T operator()(T a, T b) const { return a != a || a > b ? a : b; } };
struct dj_smallest { template <typename T> DJ_FN T operator()(T a, T b) const { return a != a || a < b ? a : b; } };

template <typename T, typename Combine> DJ_FN T dj_warp_all(T value, Combine combine)
{
    for (unsigned mask = 16; mask > 0; mask >>= 1)
        value = combine(value, dj_shuffle_xor(value, mask));
    return value;
}

template <typename T, typename Combine> DJ_FN T dj_block_all(T value, Combine combine, T neutral)
{
    DJ_SHARED(T, partial, 32);
    unsigned warps = blockDim.x / 32, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    value = dj_warp_all(value, combine);
    dj_sync();      // whoever read `partial` of the call before is through
    if (lane == 0)
        partial[warp] = value;
    dj_sync();
    return dj_warp_all(lane < warps ? partial[lane] : neutral, combine);
}

#endif
