// Prng: xoshiro256** seeded by splitmix64 (Blackman and Vigna, https://prng.di.unimi.it). For simulation and tests; never for secrets.

#ifndef CORE_BASE_PRNG_H
#define CORE_BASE_PRNG_H

#include <stdbool.h>
#include <stdint.h>

struct prng { uint64_t s[4]; };

struct prng prng_make(uint64_t seed);
uint64_t prng_next(struct prng *prng);
uint64_t prng_between(struct prng *prng, uint64_t low, uint64_t high);       // low <= result <= high
bool prng_chance(struct prng *prng, uint64_t in, uint64_t of);               // true `in` times out of `of`
double prng_unit(struct prng *prng);                                         // [0, 1)

#endif
