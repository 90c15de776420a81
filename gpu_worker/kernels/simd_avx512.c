// The inner loops for AVX-512 (x86-64-v4); compiled with the flags that CMakeLists.txt gives this file.

#include "gpu_worker/kernels/simd.h"

#if defined(__AVX512F__)
#include <immintrin.h>

#define LANES 16
#define MR 14
#define SIMD_NAME simd_avx512
#define SIMD_TEXT "avx512"
#include "gpu_worker/kernels/simd_table.inc"
#else
const struct simd simd_avx512;    // not this kind of processor: simd() never chooses it
#endif
