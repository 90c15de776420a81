// The inner loops for any processor that the compiler's default serves (x86-64: SSE2); compiled with the flags that CMakeLists.txt gives this file.

#include "gpu_worker/kernels/simd.h"

#define LANES 4
#define MR 4
#define SIMD_NAME simd_base
#define SIMD_TEXT "base"
#include "gpu_worker/kernels/simd_table.inc"
