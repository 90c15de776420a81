// Hashes: XXH3 (https://xxhash.com), 64 and 128 bits, for names and checks within a tenant. Not cryptographic.

#ifndef CORE_BASE_HASH_H
#define CORE_BASE_HASH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct hash128 { uint64_t hi, lo; };

uint64_t hash64(const void *data, size_t bytes);
uint64_t hash64_seed(const void *data, size_t bytes, uint64_t seed);
struct hash128 hash128(const void *data, size_t bytes);

// Folds one more value into a running structure hash (order matters). A few ns; used on the recording path.
static inline uint64_t hash_mix(uint64_t hash, uint64_t value)
{
    uint64_t x = (hash ^ value) * 0x9E3779B185EBCA87u;
    x ^= x >> 32;
    x = (x + value) * 0xC2B2AE3D27D4EB4Fu;
    return x ^ (x >> 29);
}

static inline bool hash128_equal(struct hash128 a, struct hash128 b) { return a.hi == b.hi && a.lo == b.lo; }
static inline bool hash128_is_zero(struct hash128 a) { return (a.hi | a.lo) == 0; }

enum { HASH128_TEXT = 33 };
void hash128_text(struct hash128 hash, char text[HASH128_TEXT]);             // 32 lower-case hex digits and NUL
bool hash128_parse(const char *text, struct hash128 *ret);                   // exactly 32 hex digits

#endif
