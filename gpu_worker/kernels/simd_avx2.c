// The inner loops for AVX2 and FMA (x86-64-v3); compiled with the flags that CMakeLists.txt gives this file.

#include "gpu_worker/kernels/simd.h"

#if defined(__AVX2__)
#include <immintrin.h>

#define LANES 8
#define MR 6
#define SIMD_NAME simd_avx2
#define SIMD_TEXT "avx2"
#include "gpu_worker/kernels/simd_table.inc"
#else
const struct simd simd_avx2;    // not this kind of processor: simd() never chooses it
#endif
