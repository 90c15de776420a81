// Prng: xoshiro256** as its authors publish it.

#include "core/base/prng.h"

#include "core/base/assert.h"

static uint64_t splitmix64(uint64_t *state)
{
    uint64_t z = (*state += 0x9E3779B97F4A7C15u);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

struct prng prng_make(uint64_t seed)
{
    struct prng prng;
    for (int i = 0; i < 4; i++)
        prng.s[i] = splitmix64(&seed);
    return prng;
}

static uint64_t rotate_left(uint64_t value, int by)
{
    return value << by | value >> (64 - by);
}

uint64_t prng_next(struct prng *prng)
{
    uint64_t *s = prng->s;
    uint64_t result = rotate_left(s[1] * 5, 7) * 9;
    uint64_t t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotate_left(s[3], 45);
    return result;
}

uint64_t prng_between(struct prng *prng, uint64_t low, uint64_t high)
{
    assert(low <= high);

    uint64_t span = high - low + 1;    // 0: all of 2^64
    if (span == 0)
        return prng_next(prng);
    // Values under 2^64 mod span would be drawn once more often than the others: drawn again.
    uint64_t uneven = (0 - span) % span;
    uint64_t value;
    do
        value = prng_next(prng);
    while (value < uneven);
    return low + value % span;
}

bool prng_chance(struct prng *prng, uint64_t in, uint64_t of)
{
    assert(of > 0);
    return prng_between(prng, 0, of - 1) < in;
}

double prng_unit(struct prng *prng)
{
    return (double)(prng_next(prng) >> 11) * 0x1p-53;
}
