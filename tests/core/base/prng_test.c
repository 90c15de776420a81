// Prng: the published algorithm, its bounds, and that it is not lopsided.

#include "core/base/prng.h"
#include "tests/lib/case.h"

static void the_numbers_are_those_of_the_published_code(void **state)
{
    (void)state;
    // xoshiro256** from the state {1, 2, 3, 4}: the first outputs, as the Rust crate rand_xoshiro tests them too.
    static const uint64_t expected[] = {11520, 0, 1509978240, 1215971899390074240};
    struct prng prng = {.s = {1, 2, 3, 4}};
    for (int i = 0; i < 4; i++)
        assert_true(prng_next(&prng) == expected[i]);
    // splitmix64 from 0: its first output seeds the first word.
    assert_true(prng_make(0).s[0] == 0xE220A8397B1DCDAFu);
}

static void a_range_is_kept_and_every_value_in_it_comes(void **state)
{
    struct prng prng = case_prng(state, 1);
    int count[7] = {0};
    for (int i = 0; i < 70000; i++) {
        uint64_t value = prng_between(&prng, 10, 16);
        assert_in_range(value, 10, 16);
        count[value - 10]++;
    }
    for (int i = 0; i < 7; i++)
        assert_in_range(count[i], 9600, 10400);
    assert_int_equal(prng_between(&prng, 5, 5), 5);
    uint64_t seen = 0;
    for (int i = 0; i < 100; i++)
        seen |= prng_between(&prng, 0, UINT64_MAX);
    assert_true(seen == UINT64_MAX);
}

static void a_range_that_does_not_divide_the_numbers_evenly_is_not_lopsided(void **state)
{
    // Three quarters of 2^64: a plain remainder would give the first third of the range half of the draws.
    struct prng prng = case_prng(state, 3);
    uint64_t quarter = (uint64_t)1 << 62;
    int first = 0;
    for (int i = 0; i < 30000; i++)
        first += prng_between(&prng, 0, 3 * quarter - 1) < quarter;
    assert_in_range(first, 9600, 10400);
}

static void a_chance_and_a_unit_are_what_they_say(void **state)
{
    struct prng prng = case_prng(state, 2);
    int hits = 0;
    double sum = 0;
    for (int i = 0; i < 40000; i++) {
        hits += prng_chance(&prng, 1, 4);
        double unit = prng_unit(&prng);
        assert_true(unit >= 0 && unit < 1);
        sum += unit;
        assert_false(prng_chance(&prng, 0, 3));
        assert_true(prng_chance(&prng, 3, 3));
    }
    assert_in_range(hits, 9600, 10400);
    assert_true(sum > 19600 && sum < 20400);
}

CASES(the_numbers_are_those_of_the_published_code, a_range_is_kept_and_every_value_in_it_comes,
      a_range_that_does_not_divide_the_numbers_evenly_is_not_lopsided, a_chance_and_a_unit_are_what_they_say)
