// Hashes: XXH3, compiled into this file, so that no shared library is needed and short inputs are inlined.

#include "core/base/hash.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

uint64_t hash64(const void *data, size_t bytes)
{
    return XXH3_64bits(data, bytes);
}

uint64_t hash64_seed(const void *data, size_t bytes, uint64_t seed)
{
    return XXH3_64bits_withSeed(data, bytes, seed);
}

struct hash128 hash128(const void *data, size_t bytes)
{
    XXH128_hash_t hash = XXH3_128bits(data, bytes);
    return (struct hash128){.hi = hash.high64, .lo = hash.low64};
}

static void half_text(uint64_t half, char text[16])
{
    for (int i = 15; i >= 0; i--, half >>= 4)
        text[i] = "0123456789abcdef"[half & 15];
}

void hash128_text(struct hash128 hash, char text[HASH128_TEXT])
{
    half_text(hash.hi, text);
    half_text(hash.lo, text + 16);
    text[32] = '\0';
}

static bool half_parse(const char *text, uint64_t *ret)
{
    uint64_t half = 0;
    for (int i = 0; i < 16; i++) {
        char c = text[i];
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;
        if (digit < 0)
            return false;    // a NUL ends here too, before anything behind it is read
        half = half << 4 | (uint64_t)digit;
    }
    *ret = half;
    return true;
}

bool hash128_parse(const char *text, struct hash128 *ret)
{
    struct hash128 hash;
    if (!half_parse(text, &hash.hi) || !half_parse(text + 16, &hash.lo) || text[32] != '\0')
        return false;
    *ret = hash;
    return true;
}
