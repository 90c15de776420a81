// The CPU backend's table, and the choice of instruction set. DJINN_CPU_ISA=base|avx2|avx512 asks for a lesser one (tests).

#include "gpu_worker/kernels/cpu.h"

#include <gnu/libc-version.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct simd *chosen;
static struct kernel_table table;
static char numerics[96];
static pthread_once_t once = PTHREAD_ONCE_INIT;

enum { KERNELS_VERSION = 2 };    // counts changes of any kernel's bits: part of the numerics class

static const struct simd *choose(void)
{
    const struct simd *best = &simd_base;
#if defined(__x86_64__)
    const char *asked = getenv("DJINN_CPU_ISA");
    bool any = asked == NULL, avx2_too = any || strcmp(asked, "avx512") == 0;
    __builtin_cpu_init();
    bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
    bool has_avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512cd");
    if (has_avx2 && (avx2_too || strcmp(asked, "avx2") == 0))
        best = &simd_avx2;
    if (has_avx2 && has_avx512 && avx2_too)
        best = &simd_avx512;
#endif
    return best;
}

static void build(void)
{
    chosen = choose();
    snprintf(numerics, sizeof numerics, "cpu %s kernels-%d glibc-%s", chosen->name, KERNELS_VERSION, gnu_get_libc_version());
    table.backend = "cpu";
    table.numerics = numerics;
    table_pointwise(table.kernel);
    table_copy(table.kernel);
    table_fill(table.kernel);
    table_random(table.kernel);
    table_gather(table.kernel);
    table_scatter(table.kernel);
    table_reduce(table.kernel);
    table_scan(table.kernel);
    table_sort(table.kernel);
    table_matmul(table.kernel);
    table_softmax(table.kernel);
    table_norm(table.kernel);
    table_norm_backward(table.kernel);
    table_batch_norm(table.kernel);
    table_loss(table.kernel);
    table_conv(table.kernel);
    table_conv_backward(table.kernel);
    table_pool(table.kernel);
    table_pool_backward(table.kernel);
    table_attention(table.kernel);
}

const struct simd *simd(void)
{
    return chosen;
}

const struct kernel_table *kernels_cpu(void)
{
    pthread_once(&once, build);
    return &table;
}
