// The table of handles against a brute-force twin, over random sequences of everything that it takes.

#include "core/lineage/handles.h"

#include "core/base/list.h"
#include "tests/lib/case.h"

#include <stdlib.h>
#include <string.h>

enum { HANDLES = 12, WORKERS = 4, HOLDERS = 3, SEQUENCES = 3 };

struct twin {
    bool is_there[HANDLES], is_lost[HANDLES], is_fenced[WORKERS];
    bool location[HANDLES][WORKERS], reference[HANDLES][HOLDERS][SEQUENCES];
};

static void free_handles(void *handles)
{
    handles_free(handles);
}

static struct handles *make(void **state, struct handles_limits limits)
{
    struct handles *handles = NULL;
    assert_ok(handles_make(limits, &handles));
    case_later(state, free_handles, handles);
    return handles;
}

static struct handle name(uint32_t h)
{
    return (struct handle){.execution = {.session = h % 3, .counter = h / 4 + 1}, .output = h % 4};
}

static uint32_t count(const bool *flags, size_t n)
{
    uint32_t result = 0;
    for (size_t i = 0; i < n; i++)
        result += flags[i];
    return result;
}

static void compare(const struct handles *handles, const struct twin *twin)
{
    struct handles_stats stats = handles_stats(handles);
    uint32_t lost = 0, locations = 0, references = 0;
    for (uint32_t h = 0; h < HANDLES; h++) {
        struct handles_info info;
        assert_int_equal(handles_find(handles, name(h), &info), twin->is_there[h]);
        if (!twin->is_there[h])
            continue;
        assert_int_equal(info.bytes, h * 10);
        assert_int_equal(info.locations, count(twin->location[h], WORKERS));
        assert_int_equal(info.references, count(twin->reference[h][0], HOLDERS * SEQUENCES));
        assert_int_equal(info.is_lost, twin->is_lost[h]);
        uint64_t where[WORKERS];
        uint32_t n = handles_locations(handles, name(h), where, WORKERS);
        assert_int_equal(n, info.locations);
        for (uint32_t i = 0; i < n; i++)
            assert_true(twin->location[h][where[i]]);
        assert_int_equal(info.location, n == 0 ? 0 : where[0]);
        lost += twin->is_lost[h];
        locations += n;
        references += info.references;
    }
    assert_int_equal(stats.handles, count(twin->is_there, HANDLES));
    assert_int_equal(stats.lost, lost);
    assert_int_equal(stats.locations, locations);
    assert_int_equal(stats.references, references);
    assert_int_equal(stats.fenced, count(twin->is_fenced, WORKERS));
    uint32_t cursor = 0, visited = 0;
    struct handles_info info;
    while (handles_next(handles, &cursor, &info))
        visited++;
    assert_int_equal(visited, stats.handles);
}

static void fence(struct handles *handles, struct twin *twin, uint32_t worker)
{
    struct handle *lost;
    uint32_t lost_count;
    assert_ok(handles_fence(handles, worker, &lost, &lost_count));
    uint32_t expected = 0;
    for (uint32_t h = 0; h < HANDLES; h++) {
        if (!twin->location[h][worker])
            continue;
        twin->location[h][worker] = false;
        if (count(twin->location[h], WORKERS) != 0)
            continue;
        twin->is_lost[h] = true;
        expected++;
        bool is_named = false;
        for (uint32_t i = 0; i < lost_count; i++)
            is_named |= handle_equal(lost[i], name(h));
        assert_true(is_named);
    }
    assert_int_equal(lost_count, expected);
    assert_int_equal(lost == NULL, expected == 0);
    twin->is_fenced[worker] = true;
    free(lost);
}

static void step(struct handles *handles, struct twin *twin, struct prng *prng)
{
    uint32_t h = (uint32_t)prng_between(prng, 0, HANDLES - 1), worker = (uint32_t)prng_between(prng, 0, WORKERS - 1);
    uint32_t holder = (uint32_t)prng_between(prng, 0, HOLDERS - 1), sequence = (uint32_t)prng_between(prng, 0, SEQUENCES - 1);
    bool is_there = twin->is_there[h];
    switch (prng_between(prng, 0, 20)) {
    case 0:
    case 1:
    case 2:
    case 3:
        assert_ok(handles_put(handles, name(h), h * 10));
        assert_error(DJ_E_DUPLICATE_DIFFERS, handles_put(handles, name(h), h * 10 + 1));
        twin->is_there[h] = true;
        break;
    case 4:
        assert_int_equal(handles_drop(handles, name(h)), is_there);
        twin->is_there[h] = twin->is_lost[h] = false;
        memset(twin->location[h], 0, sizeof twin->location[h]);
        memset(twin->reference[h], 0, sizeof twin->reference[h]);
        break;
    case 5:
    case 6:
    case 7:
    case 8:
    case 9:
        assert_error(!is_there                 ? DJ_E_HANDLE_UNKNOWN
                     : twin->is_fenced[worker] ? DJ_E_EPOCH_FENCED
                                               : DJ_OK,
                     handles_add_location(handles, name(h), worker));
        if (is_there && !twin->is_fenced[worker]) {
            twin->location[h][worker] = true;
            twin->is_lost[h] = false;
        }
        break;
    case 10:
        assert_int_equal(handles_remove_location(handles, name(h), worker), twin->location[h][worker]);
        if (twin->location[h][worker]) {
            twin->location[h][worker] = false;
            twin->is_lost[h] = count(twin->location[h], WORKERS) == 0;
        }
        break;
    case 11:
    case 12:
    case 13:
    case 14:
        assert_error(is_there ? DJ_OK : DJ_E_HANDLE_UNKNOWN, handles_hold(handles, name(h), holder, sequence));
        twin->reference[h][holder][sequence] = is_there;
        break;
    case 15:
    case 16:
    case 17:
        twin->reference[h][holder][sequence] = false;
        assert_int_equal(handles_release(handles, name(h), holder, sequence),
                         is_there && count(twin->reference[h][0], HOLDERS * SEQUENCES) == 0);
        break;
    case 18:
        if (prng_chance(prng, 1, 10))
            fence(handles, twin, worker);
        break;
    default: assert_int_equal(handles_is_fenced(handles, worker), twin->is_fenced[worker]);
    }
}

static void it_does_what_plain_arrays_do(void **state)
{
    for (uint64_t seed = 1; seed <= 150; seed++) {
        struct prng prng = case_prng(state, seed);
        struct handles *handles = make(
            state, (struct handles_limits){HANDLES, HANDLES * WORKERS, HANDLES * HOLDERS * SEQUENCES, WORKERS});
        struct twin twin = {0};
        for (int i = 0; i < 400; i++) {
            step(handles, &twin, &prng);
            compare(handles, &twin);
        }
    }
}

static void a_fenced_incarnation_never_holds_anything_again(void **state)
{
    struct handles *handles = make(state, (struct handles_limits){4, 4, 4, 4});
    struct handle *lost;
    uint32_t n;
    assert_ok(handles_put(handles, name(0), 1));
    assert_ok(handles_add_location(handles, name(0), 7));
    assert_ok(handles_fence(handles, 7, &lost, &n));
    assert_int_equal(n, 1);
    free(lost);
    assert_ok(handles_fence(handles, 7, &lost, &n));
    assert_int_equal(n, 0);
    assert_null(lost);
    assert_error(DJ_E_EPOCH_FENCED, handles_add_location(handles, name(0), 7));
    assert_ok(handles_add_location(handles, name(0), 8));
    struct handles_info info;
    assert_true(handles_find(handles, name(0), &info));
    assert_false(info.is_lost);
}

static void every_limit_is_a_refusal_that_changes_nothing(void **state)
{
    struct handles *handles = make(state, (struct handles_limits){2, 2, 2, 2});
    assert_ok(handles_put(handles, name(0), 1));
    assert_ok(handles_put(handles, name(1), 1));
    assert_error(DJ_E_LIMIT, handles_put(handles, name(2), 1));
    assert_ok(handles_hold(handles, name(0), 1, 1));
    assert_ok(handles_hold(handles, name(0), 1, 2));
    assert_error(DJ_E_LIMIT, handles_hold(handles, name(0), 1, 3));
    assert_ok(handles_add_location(handles, name(0), 1));
    assert_ok(handles_add_location(handles, name(0), 2));
    assert_error(DJ_E_LIMIT, handles_add_location(handles, name(1), 1));
    assert_error(DJ_E_LIMIT, handles_add_location(handles, name(1), 3));
    struct handles_stats stats = handles_stats(handles);
    assert_true(stats.handles == 2 && stats.references == 2 && stats.locations == 2);
    assert_true(handles_drop(handles, name(0)));
    assert_ok(handles_put(handles, name(2), 1));
    assert_ok(handles_add_location(handles, name(2), 2));
}

static enum dj_error use_all(void)
{
    struct handles *handles = NULL;
    struct handle *lost = NULL;
    uint32_t n;
    enum dj_error error = handles_make((struct handles_limits){8, 8, 8, 8}, &handles);
    if (error == DJ_OK)
        error = handles_put(handles, name(0), 1);
    if (error == DJ_OK)
        error = handles_add_location(handles, name(0), 1);
    if (error == DJ_OK)
        error = handles_hold(handles, name(0), 1, 1);
    if (error == DJ_OK)
        error = handles_fence(handles, 1, &lost, &n);
    free(lost);
    handles_free(handles);
    return error;
}

static void out_of_memory_is_an_answer(void **state)
{
    (void)state;
    for (uint64_t n = 0, more = 1; more; n++) {
        alloc_fail_after(n);
        enum dj_error error = use_all();
        more = alloc_fail_stop();
        assert_error(more ? DJ_E_NO_MEMORY : DJ_OK, error);
    }
}

CASES(it_does_what_plain_arrays_do, a_fenced_incarnation_never_holds_anything_again,
      every_limit_is_a_refusal_that_changes_nothing, out_of_memory_is_an_answer)
