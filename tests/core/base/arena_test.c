// What an arena promises: alignment, its limit, nothing overlaps, nothing leaks when memory runs out.

#include "core/base/arena.h"
#include "tests/lib/case.h"

#include <string.h>

static void release(void *arena)
{
    arena_free(arena);
}

static struct arena *make(void **state, size_t chunk, size_t limit)
{
    struct arena *arena = NULL;
    assert_ok(arena_make(chunk, limit, &arena));
    case_later(state, release, arena);
    return arena;
}

static void a_chunk_that_is_too_small_is_refused(void **state)
{
    (void)state;
    struct arena *arena = NULL;
    assert_error(DJ_E_INVALID, arena_make(255, 0, &arena));
    assert_error(DJ_E_INVALID, arena_make(SIZE_MAX, 0, &arena));
    assert_null(arena);
}

static void blocks_are_aligned_and_do_not_overlap(void **state)
{
    for (uint64_t seed = 1; seed <= 50; seed++) {
        struct prng prng = case_prng(state, seed);
        struct arena *arena = make(state, 256, 0);
        enum { BLOCKS = 200 };
        unsigned char *block[BLOCKS];
        size_t bytes[BLOCKS];
        for (size_t i = 0; i < BLOCKS; i++) {
            bytes[i] = prng_between(&prng, 0, prng_chance(&prng, 1, 10) ? 2000 : 100);
            block[i] = arena_alloc(arena, bytes[i]);
            assert_non_null(block[i]);
            assert_int_equal((uintptr_t)block[i] % 16, 0);
            if (bytes[i] != 0)
                memset(block[i], (int)(i & 0xFF), bytes[i]);
        }
        for (size_t i = 0; i < BLOCKS; i++) {
            for (size_t b = 0; b < bytes[i]; b++)
                assert_int_equal(block[i][b], i & 0xFF);
        }
    }
}

static void the_limit_holds_to_the_byte(void **state)
{
    struct arena *arena = make(state, 256, 1024);
    size_t blocks = 0;
    while (arena_alloc(arena, 16) != NULL)
        blocks++;
    assert_int_equal(blocks, 64);
    assert_int_equal(arena_used_bytes(arena), 1024);
    arena_reset(arena);
    assert_int_equal(arena_used_bytes(arena), 0);
    assert_null(arena_alloc(arena, 1025));
    assert_null(arena_alloc(arena, SIZE_MAX));
    assert_null(arena_alloc(arena, SIZE_MAX - 8));
    assert_non_null(arena_alloc(arena, 16));
}

static void a_limit_below_one_chunk_is_a_limit_too(void **state)
{
    struct arena *arena = make(state, 4096, 64);
    assert_non_null(arena_alloc(arena, 64));
    assert_null(arena_alloc(arena, 1));
}

static void after_a_reset_the_same_work_allocates_nothing(void **state)
{
    struct arena *arena = make(state, 4096, 0);
    uint64_t before = alloc_count();
    for (int round = 0; round < 100; round++) {
        for (int i = 0; i < 100; i++)
            assert_non_null(arena_alloc(arena, 32));
        arena_reset(arena);
    }
    assert_int_equal(alloc_count(), before);
}

static void zero_copy_and_text_hold_what_they_say(void **state)
{
    struct arena *arena = make(state, 256, 0);
    memset(arena_alloc(arena, 128), 0xAA, 128);
    arena_reset(arena);
    const char *zero = arena_zero(arena, 128);
    for (int i = 0; i < 128; i++)
        assert_int_equal(zero[i], 0);
    assert_memory_equal(arena_copy(arena, "abc", 3), "abc", 3);
    assert_string_equal(arena_text(arena, "a text"), "a text");
}

static void out_of_memory_is_an_answer(void **state)
{
    for (uint64_t n = 0, more = 1; more; n++) {
        struct arena *arena = NULL;
        alloc_fail_after(n);
        enum dj_error error = arena_make(256, 0, &arena);
        bool has_block = error == DJ_OK && arena_alloc(arena, 1000) != NULL && arena_alloc(arena, 200) != NULL &&
                         arena_alloc(arena, 200) != NULL;
        more = alloc_fail_stop();
        assert_int_equal(has_block, !more);
        if (error == DJ_OK)
            assert_non_null(arena_alloc(arena, 5000));    // it goes on once there is memory again
        arena_free(arena);
    }
    arena_free(NULL);
    (void)state;
}

CASES(a_chunk_that_is_too_small_is_refused, blocks_are_aligned_and_do_not_overlap, the_limit_holds_to_the_byte,
      a_limit_below_one_chunk_is_a_limit_too, after_a_reset_the_same_work_allocates_nothing,
      zero_copy_and_text_hold_what_they_say, out_of_memory_is_an_answer)
