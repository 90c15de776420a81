// Emulator: runs device code (gpu_worker/kernels/cuda/*.cu, compiled as C++) on this machine, thread by thread, so that kernels are tested where there is no
// GPU. Included by device.cuh in place of what nvcc provides; C code of tests uses the part below it.
//
// A block's threads are coroutines. Between two barriers they run one after the other, in an order drawn anew from a seed: a kernel that lacks a barrier gives
// other results from seed to seed. Warps are 32 threads; a shuffle waits for the whole warp. What a GPU leaves undefined ends the process with the kernel's
// name: a barrier that part of a block never reaches, a shuffle with threads that have left.

#ifndef TESTS_LIB_CUDA_EMULATOR_H
#define TESTS_LIB_CUDA_EMULATOR_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef void emulated_kernel(const void *args, unsigned long long *fault, unsigned task);
struct emulated { const char *name; emulated_kernel *run; unsigned threads_max; };

// By enum cuda_function (program.h); NULL for none.
const struct emulated *emulator_find(unsigned function);
struct emulator_launch { unsigned grid[3], block; size_t shared_bytes; const void *args; unsigned long long *fault; unsigned task; };
void emulator_run(const struct emulated *kernel, const struct emulator_launch *launch, uint64_t seed);

#ifdef __cplusplus
}

#include <math.h>
#include <string.h>

struct emulator_dim { unsigned x, y, z; };
extern struct emulator_dim threadIdx, blockIdx, blockDim, gridDim;
extern unsigned char *emulator_dynamic;
void emulator_block_barrier();
void emulator_warp_barrier();
// Gives `bits` of each lane to all lanes of the warp: [32], good until the warp's next exchange but one.
const uint64_t *emulator_exchange(uint64_t bits);

#define DJ_FN inline
#define DJ_UNROLL
#define DJ_ROLLED
#define DJ_COLD static inline
#define DJ_KERNEL(name, Args, threads)                                                                                             \
    static void name##_body(const Args *args, unsigned long long *fault, unsigned task);                                           \
    extern "C" const unsigned emulated_##name##_threads = threads;                                                                 \
    extern "C" void emulated_##name(const void *args, unsigned long long *fault, unsigned task)                                    \
    {                                                                                                                              \
        name##_body(static_cast<const Args *>(args), fault, task);                                                                 \
    }                                                                                                                              \
    static void name##_body([[maybe_unused]] const Args *args, [[maybe_unused]] unsigned long long *fault, [[maybe_unused]] unsigned task)
#define DJ_KERNEL_OF(name, Args, threads, blocks) DJ_KERNEL(name, Args, threads)
#define DJ_SHARED(type, name, count) static type name[count]
#define DJ_DYNAMIC(type, name) type *const name = reinterpret_cast<type *>(emulator_dynamic)

DJ_FN void dj_sync() { emulator_block_barrier(); }
DJ_FN void dj_warp_sync() { emulator_warp_barrier(); }
template <typename T> DJ_FN T emulator_lane(T value, unsigned lane)
{
    static_assert(sizeof(T) <= 8, "a shuffle moves at most 8 bytes");
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof value);
    const uint64_t *all = emulator_exchange(bits);
    memcpy(&value, &all[lane & 31], sizeof value);
    return value;
}
DJ_FN unsigned emulator_own_lane() { return threadIdx.x % 32; }
template <typename T> DJ_FN T dj_shuffle_xor(T value, unsigned mask) { return emulator_lane(value, emulator_own_lane() ^ mask); }
template <typename T> DJ_FN T dj_shuffle_down(T value, unsigned by)
{
    unsigned from = emulator_own_lane() + by;
    return emulator_lane(value, from > 31 ? emulator_own_lane() : from);
}
template <typename T> DJ_FN T dj_shuffle_up(T value, unsigned by)
{
    unsigned own = emulator_own_lane();
    return emulator_lane(value, by > own ? own : own - by);
}
template <typename T> DJ_FN T dj_shuffle(T value, unsigned lane) { return emulator_lane(value, lane); }
DJ_FN unsigned dj_ballot(bool predicate)
{
    const uint64_t *all = emulator_exchange(predicate);
    unsigned mask = 0;
    for (unsigned lane = 0; lane < 32; lane++)
        mask |= (unsigned)all[lane] << lane;
    return mask;
}
DJ_FN unsigned long long dj_atomic_cas(unsigned long long *at, unsigned long long expected, unsigned long long value)
{
    unsigned long long before = *at;
    if (before == expected)
        *at = value;
    return before;
}
DJ_FN void dj_fence() {}
DJ_FN int dj_atomic_add(int *at, int value) { int before = *at; *at += value; return before; }
DJ_FN int dj_atomic_max(int *at, int value) { int before = *at; *at = before > value ? before : value; return before; }
DJ_FN double dj_product(double a, double b) { return a * b; }
DJ_FN uint32_t dj_float_bits(float x) { uint32_t bits; memcpy(&bits, &x, sizeof bits); return bits; }
DJ_FN float dj_bits_float(uint32_t bits) { float x; memcpy(&x, &bits, sizeof x); return x; }
DJ_FN unsigned dj_fetch(const void *) { return 0; }
DJ_FN unsigned dj_fetch_all(const void *, unsigned) { return 0; }
struct alignas(16) dj_bytes16 { uint32_t word[4]; };
DJ_FN dj_bytes16 dj_read_once(const void *at) { return *static_cast<const dj_bytes16 *>(at); }
DJ_FN dj_bytes16 dj_read_again(const void *at) { return *static_cast<const dj_bytes16 *>(at); }
#include "gpu_worker/kernels/half.h"
DJ_FN float dj_half_bits_to_float(uint16_t bits) { return half_to_float(bits); }
DJ_FN uint16_t dj_float_to_half_bits(float x) { return half_from_float(x); }
#endif

#endif
