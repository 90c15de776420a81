// What the region's allocator promises, against a brute-force twin that knows every unit.

#include "gpu_worker/exec/region.h"

#include "core/io/device.h"
#include "gpu_worker/exec/span.h"
#include "tests/lib/case.h"

#include <string.h>

enum { UNITS = 512, LIVE_MAX = 128 };

static void free_region(void *region)
{
    region_free(region);
}

static struct region *region_of(void **state, uint64_t bytes)
{
    struct region *region = NULL;
    assert_ok(region_make(bytes, 4096, &region));
    case_later(state, free_region, region);
    return region;
}

static void blocks_never_overlap_and_freed_neighbours_join(void **state)
{
    for (uint64_t seed = 1; seed <= 100; seed++) {
        struct prng prng = case_prng(state, seed);
        struct region *region = region_of(state, UNITS * DEVICE_ALIGNMENT);
        uint8_t owner[UNITS] = {0};
        struct region_block *live[LIVE_MAX];
        uint32_t lives = 0, used = 0;
        for (int step = 0; step < 2000; step++) {
            if (lives < LIVE_MAX && prng_chance(&prng, 1, 2)) {
                uint64_t bytes = prng_between(&prng, 0, prng_chance(&prng, 1, 8) ? 6000 : 700);
                struct region_block *block = region_take(region, bytes);
                uint64_t units = bytes == 0 ? 1 : (bytes + DEVICE_ALIGNMENT - 1) / DEVICE_ALIGNMENT, longest = 0, length = 0;
                for (uint32_t u = 0; u < UNITS; u++) {
                    length = owner[u] == 0 ? length + 1 : 0;
                    longest = length > longest ? length : longest;
                }
                assert_int_equal(block != NULL, longest >= units);    // found whenever any gap is long enough
                if (block == NULL)
                    continue;
                assert_int_equal(block->offset % DEVICE_ALIGNMENT, 0);
                assert_int_equal(block->bytes, units * DEVICE_ALIGNMENT);
                for (uint64_t u = 0; u < units; u++) {
                    assert_int_equal(owner[block->offset / DEVICE_ALIGNMENT + u], 0);
                    owner[block->offset / DEVICE_ALIGNMENT + u] = 1;
                }
                live[lives++] = block;
                used += (uint32_t)units;
            } else if (lives > 0) {
                uint32_t at = (uint32_t)prng_between(&prng, 0, lives - 1);
                struct region_block *block = live[at];
                live[at] = live[--lives];
                memset(&owner[block->offset / DEVICE_ALIGNMENT], 0, block->bytes / DEVICE_ALIGNMENT);
                used -= (uint32_t)(block->bytes / DEVICE_ALIGNMENT);
                region_release(region, block);
            }
            assert_int_equal(region_used_bytes(region), used * DEVICE_ALIGNMENT);
        }
        while (lives > 0)
            region_release(region, live[--lives]);
        assert_int_equal(region_largest_free_bytes(region), UNITS * DEVICE_ALIGNMENT);
    }
}

static uint64_t trimmed;

static void count_trim(void *self, uint64_t offset, uint64_t bytes)
{
    (void)self;
    (void)offset;
    trimmed += bytes;
}

static void only_what_was_touched_is_trimmed_and_only_once(void **state)
{
    struct region *region = region_of(state, 1 << 20);
    struct region_block *a = region_take(region, 1 << 16), *b = region_take(region, 64);
    region_release(region, a);
    trimmed = 0;
    region_trim(region, 4096, count_trim, NULL);
    assert_int_equal(trimmed, 1 << 16);
    region_trim(region, 4096, count_trim, NULL);
    assert_int_equal(trimmed, 1 << 16);
    region_release(region, b);
}

static void spans_are_as_long_as_what_lives_at_once_and_never_overlap(void **state)
{
    for (uint64_t seed = 1; seed <= 200; seed++) {
        struct prng prng = case_prng(state, seed);
        struct spans spans = {0};
        struct span live[LIVE_MAX];
        uint32_t lives = 0;
        uint8_t owner[1 << 14] = {0};
        for (int step = 0; step < 500; step++) {
            if (lives < 40 && prng_chance(&prng, 1, 2)) {
                struct span span = {.bytes = prng_between(&prng, 0, 1000)};
                assert_true(spans_take(&spans, span.bytes, &span.offset));
                uint64_t units = span.bytes == 0 ? 1 : (span.bytes + 63) / 64;
                for (uint64_t u = 0; u < units; u++)
                    assert_int_equal(owner[span.offset / 64 + u]++, 0);
                assert_true(span.offset + span.bytes <= spans.bytes);
                live[lives++] = span;
            } else if (lives > 0) {
                uint32_t at = (uint32_t)prng_between(&prng, 0, lives - 1);
                uint64_t units = live[at].bytes == 0 ? 1 : (live[at].bytes + 63) / 64;
                memset(&owner[live[at].offset / 64], 0, units);
                spans_give(&spans, live[at].offset, live[at].bytes);
                live[at] = live[--lives];
            }
        }
        while (lives-- > 0)
            spans_give(&spans, live[lives].offset, live[lives].bytes);
        assert_true(spans.bytes == 0 || (spans.holes == 1 && spans.hole[0].bytes == spans.bytes));
        spans_free(&spans);
    }
}

CASES(blocks_never_overlap_and_freed_neighbours_join, only_what_was_touched_is_trimmed_and_only_once,
      spans_are_as_long_as_what_lives_at_once_and_never_overlap)
