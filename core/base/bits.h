// Bits and checked arithmetic on sizes that come from outside.

#ifndef CORE_BASE_BITS_H
#define CORE_BASE_BITS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

static inline uint32_t u32_next_power_of_two(uint32_t value)                 // 0 and 1 give 1; above 2^31 gives 0
{
    return value <= 1 ? 1 : value > (1u << 31) ? 0 : 1u << (32 - __builtin_clz(value - 1));
}

static inline bool i64_add(int64_t a, int64_t b, int64_t *ret) { return !__builtin_add_overflow(a, b, ret); }
static inline bool i64_mul(int64_t a, int64_t b, int64_t *ret) { return !__builtin_mul_overflow(a, b, ret); }
static inline bool size_add(size_t a, size_t b, size_t *ret) { return !__builtin_add_overflow(a, b, ret); }
static inline bool size_mul(size_t a, size_t b, size_t *ret) { return !__builtin_mul_overflow(a, b, ret); }

static inline size_t size_round_up(size_t value, size_t power_of_two) { return (value + power_of_two - 1) & ~(power_of_two - 1); }

static inline bool bit_get(const uint8_t *bits, size_t index) { return (bits[index >> 3] >> (index & 7)) & 1; }
static inline void bit_set(uint8_t *bits, size_t index) { bits[index >> 3] = (uint8_t)(bits[index >> 3] | 1u << (index & 7)); }
static inline void bit_clear(uint8_t *bits, size_t index) { bits[index >> 3] = (uint8_t)(bits[index >> 3] & ~(1u << (index & 7))); }

#endif
