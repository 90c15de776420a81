// What a pool promises, against a brute-force twin (an array of the objects that are out).

#include "core/base/pool.h"
#include "tests/lib/case.h"

#include <string.h>

static void release(void *pool)
{
    pool_free(pool);
}

static struct pool *make(void **state, size_t bytes, uint32_t max)
{
    struct pool *pool = NULL;
    assert_ok(pool_make(bytes, max, &pool));
    case_later(state, release, pool);
    return pool;
}

static void a_pool_of_nothing_is_refused(void **state)
{
    (void)state;
    struct pool *pool = NULL;
    assert_error(DJ_E_INVALID, pool_make(0, 1, &pool));
    assert_error(DJ_E_INVALID, pool_make(1, 0, &pool));
    assert_error(DJ_E_OVERFLOW, pool_make(SIZE_MAX, 2, &pool));
    assert_error(DJ_E_OVERFLOW, pool_make(SIZE_MAX / 2, UINT32_MAX, &pool));
    assert_null(pool);
}

static void objects_are_zeroed_distinct_and_bounded(void **state)
{
    for (uint64_t seed = 1; seed <= 50; seed++) {
        struct prng prng = case_prng(state, seed);
        enum { MAX = 100 };
        uint32_t max = (uint32_t)prng_between(&prng, 1, MAX);
        size_t bytes = prng_between(&prng, 1, 70);
        struct pool *pool = make(state, bytes, max);
        unsigned char *out[MAX];
        uint32_t count = 0;

        for (int step = 0; step < 1000; step++) {
            if (prng_chance(&prng, 3, 5)) {
                unsigned char *object = pool_take(pool);
                assert_int_equal(object != NULL, count < max);
                if (object == NULL)
                    continue;
                assert_int_equal((uintptr_t)object % 16, 0);
                for (size_t i = 0; i < bytes; i++)
                    assert_int_equal(object[i], 0);
                memset(object, (int)count + 1, bytes);
                out[count++] = object;
            } else if (count > 0) {
                count--;
                for (size_t i = 0; i < bytes; i++)
                    assert_int_equal(out[count][i], count + 1);    // nobody else wrote there
                pool_give(pool, out[count]);
            }
            assert_int_equal(pool_out(pool), count);
        }
    }
}

static void a_pool_that_has_grown_allocates_nothing_more(void **state)
{
    struct pool *pool = make(state, 32, 64);
    void *object[64];
    for (int i = 0; i < 64; i++)
        object[i] = pool_take(pool);
    for (int i = 0; i < 64; i++)
        pool_give(pool, object[i]);
    uint64_t before = alloc_count();
    for (int round = 0; round < 1000; round++)
        pool_give(pool, pool_take(pool));
    assert_int_equal(alloc_count(), before);
}

static void out_of_memory_is_an_answer(void **state)
{
    (void)state;
    for (uint64_t n = 0, more = 1; more; n++) {
        struct pool *pool = NULL;
        alloc_fail_after(n);
        enum dj_error error = pool_make(64, 100, &pool);
        uint32_t taken = 0;
        while (error == DJ_OK && pool_take(pool) != NULL)
            taken++;
        more = alloc_fail_stop();
        assert_int_equal(taken == 100, !more);
        if (error == DJ_OK && more)
            assert_non_null(pool_take(pool));    // it goes on once there is memory again
        pool_free(pool);
    }
    pool_free(NULL);
}

static void give_to_an_empty_pool(void *pool)
{
    int stranger = 0;
    pool_give(pool, &stranger);
}

static void giving_back_more_than_was_taken_aborts(void **state)
{
    assert_aborts(give_to_an_empty_pool, make(state, 16, 4));
}

CASES(a_pool_of_nothing_is_refused, objects_are_zeroed_distinct_and_bounded, a_pool_that_has_grown_allocates_nothing_more,
      out_of_memory_is_an_answer, giving_back_more_than_was_taken_aborts)
