// Philox4x32-10: a counter-based generator; see random_cpu.c for how counters are made of calls and elements.

#ifndef GPU_WORKER_KERNELS_PHILOX_H
#define GPU_WORKER_KERNELS_PHILOX_H

#include <stdint.h>

#ifndef PHILOX_FN      // device code has qualifiers of its own
#define PHILOX_FN static inline
#endif

PHILOX_FN void philox(uint64_t seed, uint64_t offset, uint64_t block, uint32_t ret[4])
{
    uint32_t c0 = (uint32_t)block, c1 = (uint32_t)(block >> 32), c2 = (uint32_t)offset, c3 = (uint32_t)(offset >> 32);
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        c0 = n0;
        c2 = n2;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    ret[0] = c0;
    ret[1] = c1;
    ret[2] = c2;
    ret[3] = c3;
}

#endif
