// Hashes: XXH3's published test vectors (xxhash 0.8, tests of the empty input), text and back, and a mixing that spreads.

#include "core/base/hash.h"
#include "tests/lib/case.h"

#include <string.h>

static void the_hashes_are_those_of_xxh3(void **state)
{
    (void)state;
    assert_true(hash64("", 0) == 0x2D06800538D394C2u);
    struct hash128 empty = hash128("", 0);
    assert_true(empty.hi == 0x99AA06D3014798D8u && empty.lo == 0x6001C324468D497Fu);
    assert_true(hash64_seed("abc", 3, 0) == hash64("abc", 3));
    assert_true(hash64_seed("abc", 3, 1) != hash64("abc", 3));
}

static void a_hash_survives_its_text(void **state)
{
    for (uint64_t seed = 1; seed <= 100; seed++) {
        struct prng prng = case_prng(state, seed);
        struct hash128 hash = {prng_next(&prng), prng_next(&prng)}, back = {0};
        char text[HASH128_TEXT];
        hash128_text(hash, text);
        assert_int_equal(strlen(text), 32);
        assert_true(hash128_parse(text, &back));
        assert_true(hash128_equal(hash, back));
        text[prng_between(&prng, 0, 31)] = "g/:@`G \0"[prng_between(&prng, 0, 7)];
        assert_false(hash128_parse(text, &back));
    }
    struct hash128 hash;
    assert_true(hash128_parse("000102030405060708090A0B0C0D0E0F", &hash));
    assert_true(hash.hi == 0x0001020304050607u && hash.lo == 0x08090A0B0C0D0E0Fu);
    assert_false(hash128_parse("000102030405060708090A0B0C0D0E0F0", &hash));
    assert_true(hash128_is_zero((struct hash128){0}) && !hash128_is_zero(hash));
}

static void mixing_depends_on_order_and_flips_half_the_bits(void **state)
{
    (void)state;
    assert_true(hash_mix(hash_mix(1, 2), 3) != hash_mix(hash_mix(1, 3), 2));
    int flipped = 0;
    for (int bit = 0; bit < 64; bit++) {
        for (uint64_t i = 0; i < 64; i++)
            flipped += __builtin_popcountll(hash_mix(7, i) ^ hash_mix(7, i ^ (uint64_t)1 << bit));
    }
    assert_in_range(flipped / 64 / 64, 26, 38);
}

CASES(the_hashes_are_those_of_xxh3, a_hash_survives_its_text, mixing_depends_on_order_and_flips_half_the_bits)
