// Half floats: IEEE binary16 and bfloat16 to and from float32, round to nearest even, NaN stays NaN.

#ifndef GPU_WORKER_KERNELS_HALF_H
#define GPU_WORKER_KERNELS_HALF_H

#include <stdint.h>
#include <string.h>

static inline float float_of_bits(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static inline uint32_t bits_of_float(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static inline float brain_to_float(uint16_t x) { return float_of_bits((uint32_t)x << 16); }

static inline uint16_t brain_from_float(float x)
{
    uint32_t bits = bits_of_float(x);
    if (x != x)
        return 0x7fc0;
    return (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// A subnormal half is an integer times 2^-24, which float32 holds exactly.
static inline float half_to_float(uint16_t x)
{
    uint32_t sign = (uint32_t)(x & 0x8000) << 16, exponent = (x >> 10) & 31, fraction = x & 0x3ff;
    if (exponent == 0) {
        float value = (float)fraction * 0x1p-24f;
        return float_of_bits(bits_of_float(value) | sign);
    }
    if (exponent == 31)
        return float_of_bits(sign | 0x7f800000 | fraction << 13);
    return float_of_bits(sign | (exponent + 112) << 23 | fraction << 13);
}

static inline uint16_t half_from_float(float x)
{
    uint32_t bits = bits_of_float(x), sign = (bits >> 16) & 0x8000, rest = bits & 0x7fffffff;
    if (rest > 0x7f800000)
        return (uint16_t)(sign | 0x7e00);
    if (rest >= 0x477ff000)                                     // rounds to 2^16 or more
        return (uint16_t)(sign | 0x7c00);
    if (rest < 0x38800000) {                                    // below 2^-14: adding 0.5 rounds at the last subnormal bit
        float shifted = float_of_bits(rest) + 0.5f;
        return (uint16_t)(sign | (bits_of_float(shifted) - 0x3f000000));
    }
    rest += 0xfff + ((rest >> 13) & 1);
    return (uint16_t)(sign | ((rest - 0x38000000) >> 13));
}

#endif
