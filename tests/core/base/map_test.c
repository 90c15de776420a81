// What a map promises, against a brute-force twin (an array indexed by a small key space, so that runs collide and wrap).

#include "core/base/map.h"
#include "tests/lib/case.h"

static void release(void *map)
{
    map_free(map);
}

static struct map *make(void **state, uint32_t max)
{
    struct map *map = NULL;
    assert_ok(map_make(max, &map));
    case_later(state, release, map);
    return map;
}

enum { KEYS = 300 };
static int value[KEYS * 2];

static struct hash128 key_of(uint64_t seed, uint32_t i)
{
    // Counters and hashes: both kinds of keys are in use.
    return seed % 2 == 0 ? map_key(i) : (struct hash128){.hi = hash_mix(seed, i), .lo = i % 7};
}

static void check_iteration(const struct map *map, uint64_t seed, int *const twin[KEYS])
{
    bool seen[KEYS] = {false};
    uint32_t cursor = 0, count = 0;
    struct hash128 key;
    for (int *found; (found = map_next(map, &cursor, &key)) != NULL; count++) {
        uint32_t i = 0;
        while (i < KEYS && !hash128_equal(key, key_of(seed, i)))
            i++;
        assert_true(i < KEYS && !seen[i]);
        seen[i] = true;
        assert_ptr_equal(found, twin[i]);
    }
    assert_int_equal(count, map_count(map));
    assert_null(map_next(map, &cursor, NULL));
}

static void it_agrees_with_an_array(void **state)
{
    for (uint64_t seed = 1; seed <= 60; seed++) {
        struct prng prng = case_prng(state, seed);
        uint32_t max = (uint32_t)prng_between(&prng, 1, KEYS), count = 0;
        struct map *map = make(state, max);
        int *twin[KEYS] = {NULL};

        for (int step = 0; step < 3000; step++) {
            uint32_t i = (uint32_t)prng_between(&prng, 0, KEYS - 1);
            struct hash128 key = key_of(seed, i);
            assert_ptr_equal(map_get(map, key), twin[i]);
            if (prng_chance(&prng, 1, 2)) {
                int *new = &value[prng_between(&prng, 0, KEYS * 2 - 1)];
                bool fits = twin[i] != NULL || count < max;
                assert_error(fits ? DJ_OK : DJ_E_LIMIT, map_put(map, key, new));
                count += fits && twin[i] == NULL;
                if (fits)
                    twin[i] = new;
            } else {
                assert_ptr_equal(map_take(map, key), twin[i]);
                count -= twin[i] != NULL;
                twin[i] = NULL;
            }
            assert_int_equal(map_count(map), count);
        }
        check_iteration(map, seed, twin);
        for (uint32_t i = 0; i < KEYS; i++)
            assert_ptr_equal(map_get(map, key_of(seed, i)), twin[i]);
    }
}

static void the_same_calls_give_the_same_order(void **state)
{
    struct map *a = make(state, 1000), *b = make(state, 1000);
    for (uint32_t i = 0; i < 500; i++) {
        assert_ok(map_put(a, map_key(i * 977), &value[i]));
        assert_ok(map_put(b, map_key(i * 977), &value[i]));
    }
    uint32_t at_a = 0, at_b = 0;
    for (void *found; (found = map_next(a, &at_a, NULL)) != NULL;)
        assert_ptr_equal(found, map_next(b, &at_b, NULL));
}

static void an_empty_map_answers(void **state)
{
    struct map *map = make(state, 1), *none = NULL;
    uint32_t cursor = 0;
    assert_null(map_get(map, map_key(1)));
    assert_null(map_take(map, map_key(1)));
    assert_null(map_next(map, &cursor, NULL));
    assert_error(DJ_E_INVALID, map_make(0, &none));
    assert_error(DJ_E_INVALID, map_make(UINT32_MAX, &none));
}

static void out_of_memory_leaves_the_map_as_it_was(void **state)
{
    (void)state;
    for (uint64_t n = 0, more = 1; more; n++) {
        struct map *map = NULL;
        uint32_t put = 0;
        alloc_fail_after(n);
        enum dj_error error = map_make(100, &map);
        while (error == DJ_OK && put < 100) {
            error = map_put(map, map_key(put), &value[put]);
            put += error == DJ_OK;
        }
        more = alloc_fail_stop();
        assert_error(more ? DJ_E_NO_MEMORY : DJ_OK, error);
        for (uint32_t i = 0; map != NULL && i < 100; i++)
            assert_ptr_equal(map_get(map, map_key(i)), i < put ? &value[i] : NULL);
        map_free(map);
    }
    map_free(NULL);
}

CASES(it_agrees_with_an_array, the_same_calls_give_the_same_order, an_empty_map_answers, out_of_memory_leaves_the_map_as_it_was)
