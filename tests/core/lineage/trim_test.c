// Trim on random histories: what stays is what the oracle reaches from live handles, and afterwards every recovery of them gives the same
// steps.

#include "tests/core/lineage/world.h"
#include "tests/lib/case.h"

#include <stdlib.h>
#include <string.h>

struct shelf {    // the store after a trim: the world's, with what was deleted (length 0) and rewritten
    const struct world *world;
    uint8_t *bytes[4 * WORLD_EVENTS_MAX];
    size_t length[4 * WORLD_EVENTS_MAX];
    uint32_t deleted, rewritten;
};

static void shelf_free(struct shelf *shelf)
{
    for (uint32_t i = 0; i < shelf->world->records; i++)
        free(shelf->bytes[i]);
    free(shelf);
}

static struct shelf *shelf_make(const struct world *world)
{
    struct shelf *shelf = calloc(1, sizeof *shelf);
    shelf->world = world;
    for (uint32_t i = 0; i < world->records; i++) {
        shelf->length[i] = world->stored[i].length;
        shelf->bytes[i] = malloc(shelf->length[i]);
        memcpy(shelf->bytes[i], world->stored[i].bytes, shelf->length[i]);
    }
    return shelf;
}

static uint32_t shelf_find(const struct shelf *shelf, const struct record *record)
{
    bool is_checkpoint = record->kind == RECORD_CHECKPOINT;
    uint64_t counter = is_checkpoint                   ? record->checkpoint.handle.execution.counter
                       : record->kind == RECORD_IMPORT ? record->import.id.counter
                                                       : record->execution.id.counter;
    for (uint32_t i = 0; i < shelf->world->records; i++) {
        const struct stored *stored = &shelf->world->stored[i];
        if (stored->event < 0 || shelf->world->event[stored->event].counter != counter)
            continue;
        if ((stored->bytes[0] == RECORD_CHECKPOINT) == is_checkpoint &&
            (!is_checkpoint || stored->output == record->checkpoint.handle.output))
            return i;
    }
    fail_msg("a record that is not in the store was visited");
    return 0;
}

static enum dj_error visit(void *context, const struct record *record, const uint8_t *bytes, size_t length)
{
    struct shelf *shelf = context;
    uint32_t at = shelf_find(shelf, record);
    assert_true(shelf->length[at] > 0);
    free(shelf->bytes[at]);
    shelf->bytes[at] = NULL;
    shelf->length[at] = length;
    if (bytes == NULL) {
        assert_int_equal(length, 0);
        shelf->deleted++;
        return DJ_OK;
    }
    assert_int_equal(record->kind, RECORD_EXECUTION);
    shelf->bytes[at] = malloc(length);
    memcpy(shelf->bytes[at], bytes, length);
    shelf->rewritten++;
    return DJ_OK;
}

static struct recovery *load(const struct shelf *shelf)
{
    struct recovery *recovery = NULL;
    assert_ok(recovery_make(WORLD_SESSION, &recovery));
    for (uint32_t i = 0; i < shelf->world->records; i++) {
        if (shelf->length[i] > 0)
            assert_ok(recovery_add(recovery, shelf->bytes[i], shelf->length[i]));
    }
    return recovery;
}

static bool any_need(const struct world *world, struct prng *prng, uint64_t of, struct world_question *question)
{
    bool is_any = false;
    memset(question, 0, sizeof *question);
    for (uint32_t i = 0; i < world->events; i++) {
        for (uint32_t o = 0; o < WORLD_OUTPUTS_MAX; o++) {
            question->needs[i][o] = world->event[i].output[o].is_live && prng_chance(prng, 1, of);
            is_any |= question->needs[i][o];
        }
    }
    return is_any;
}

static void need(struct recovery *recovery, const struct world *world, const struct world_question *question)
{
    for (uint32_t i = 0; i < world->events; i++) {
        for (uint32_t o = 0; o < WORLD_OUTPUTS_MAX; o++) {
            if (question->needs[i][o])
                assert_ok(recovery_need(recovery, (struct record_ref){world->event[i].counter, o}));
        }
    }
}

// The encoded steps, or the error.
static enum dj_error steps_of(const struct shelf *shelf, const struct world_question *question, struct prng prng,
                              struct writer *writer)
{
    const struct world *world = shelf->world;
    struct recovery *recovery = load(shelf);
    need(recovery, world, question);
    for (uint32_t i = 0; i < world->events; i++) {
        for (uint32_t o = 0; o < WORLD_OUTPUTS_MAX; o++) {
            if (prng_chance(&prng, 1, 30))
                assert_ok(recovery_add_location(recovery, (struct record_ref){world->event[i].counter, o},
                                                prng_between(&prng, 1, WORLD_WORKERS)));
        }
    }
    struct recovery_options options = {.target = WORLD_TARGET, .numerics = WORLD_NUMERICS, .allows_close = true};
    struct recovery_sum sum;
    uint32_t from = 0, steps;
    enum dj_error error = recovery_plan(recovery, &options, world_has_leaf, (void *)(uintptr_t)world, &sum, NULL);
    while (error == DJ_OK && from < sum.steps)
        error = recovery_encode(recovery, &from, 1 << 20, writer, &steps);
    recovery_free(recovery);
    return error;
}

static void compare(const struct shelf *before, const struct shelf *after, const struct world_question *question,
                    struct prng *prng, uint32_t *ret_same)
{
    struct writer first = writer_make(1 << 24), second = writer_make(1 << 24);
    struct prng places = prng_make(prng_next(prng));
    enum dj_error error = steps_of(before, question, places, &first);
    enum dj_error then = steps_of(after, question, places, &second);
    if (error == DJ_OK)
        assert_ok(then);
    assert_true(error == DJ_OK || error == DJ_E_LINEAGE);
    assert_int_equal(first.length, error == DJ_OK ? second.length : 0);
    if (first.length > 0)
        assert_memory_equal(first.data, second.data, first.length);
    *ret_same += error == DJ_OK && first.length > 0;
    writer_free(&first);
    writer_free(&second);
}

// Ends of chains, and what is before them: records to come build on those.
static void find_ends(const struct world *world, bool *ret)
{
    static bool is_base[WORLD_EVENTS_MAX];
    memset(is_base, 0, sizeof is_base);
    memset(ret, 0, world->events * sizeof *ret);
    for (uint32_t i = 0; i < world->events; i++) {
        const struct world_event *event = &world->event[i];
        if (event->is_dropped || event->is_import || event->stored_base < 0 || world->event[event->stored_base].is_dropped)
            continue;
        is_base[event->stored_base] = true;
        if (event->before >= 0)
            is_base[event->before] = true;
    }
    for (int32_t i = 0; i < (int32_t)world->events; i++) {
        if (world->event[i].is_import || is_base[i] || !world_decodes(world, i))
            continue;
        ret[i] = true;
        if (world->event[i].stored_base >= 0)
            ret[world->event[i].stored_base] = true;
    }
}

static void check_kept(const struct shelf *shelf, const struct world_answer *answer)
{
    static bool is_end[WORLD_EVENTS_MAX];
    find_ends(shelf->world, is_end);
    for (uint32_t i = 0; i < shelf->world->records; i++) {
        const struct stored *stored = &shelf->world->stored[i];
        bool is_kept = shelf->length[i] > 0;
        if (stored->event < 0)
            assert_true(is_kept);    // plans are everybody's
        else if (stored->bytes[0] != RECORD_CHECKPOINT)
            assert_int_equal(is_kept, answer->is_reached[stored->event] || is_end[stored->event]);
        else
            assert_int_equal(is_kept, answer->is_asked[stored->event][stored->output]);
    }
}

static void a_trim_keeps_what_live_handles_reach_and_changes_no_recovery(void **state)
{
    static struct world_question live, some;
    static struct world_answer answer;
    uint32_t same = 0, deleted = 0, rewritten = 0;
    for (uint64_t seed = 1; seed <= 150; seed++) {
        struct prng prng = case_prng(state, seed);
        struct world *world = world_make(&prng, (struct world_options){.events = (uint32_t)prng_between(&prng, 10, 150),
                                                                       .is_whole = seed % 2 == 0,
                                                                       .is_narrow = seed % 5 < 2});
        struct shelf *before = shelf_make(world), *after = shelf_make(world);
        any_need(world, &prng, prng_between(&prng, 1, 40), &live);
        live.is_trim = true;
        world_ask(world, &live, &answer);
        struct recovery *recovery = load(before);
        need(recovery, world, &live);
        if (seed % 3 == 0) {    // what was planned before makes no difference
            struct recovery_options options = {.target = WORLD_TARGET, .allows_close = true, .numerics = WORLD_NUMERICS};
            struct recovery_sum sum;
            enum dj_error error = recovery_plan(recovery, &options, world_has_leaf, world, &sum, NULL);
            assert_true(error == DJ_OK || error == DJ_E_LINEAGE);
        }
        assert_ok(recovery_trim(recovery, visit, after));
        recovery_free(recovery);
        check_kept(after, &answer);
        deleted += after->deleted;
        rewritten += after->rewritten;
        for (int i = 0; i < 6; i++) {
            some = (struct world_question){0};
            for (uint32_t e = 0; e < world->events; e++) {
                for (uint32_t o = 0; o < WORLD_OUTPUTS_MAX; o++)
                    some.needs[e][o] = live.needs[e][o] && prng_chance(&prng, 1, (uint64_t)i + 1);
            }
            compare(before, after, &some, &prng, &same);
        }
        // Trimmed again, nothing is left to do.
        uint32_t visits = after->deleted + after->rewritten;
        recovery = load(after);
        need(recovery, world, &live);
        assert_ok(recovery_trim(recovery, visit, after));
        recovery_free(recovery);
        assert_int_equal(after->deleted + after->rewritten, visits);
        shelf_free(before);
        shelf_free(after);
        world_free(world);
    }
    print_message("%u records deleted, %u written anew, %u recoveries with the same steps\n", deleted, rewritten, same);
    assert_true(same > 200 && deleted > 1000 && rewritten > 200);
}

// What an execution after the cut reads was live then, and so was what is live in the end.
static void live_at(const struct world *world, uint32_t cut, struct world_question *ret)
{
    memset(ret, 0, sizeof *ret);
    for (uint32_t i = 0; i < world->events; i++) {
        for (uint32_t o = 0; i < cut && o < WORLD_OUTPUTS_MAX; o++)
            ret->needs[i][o] = world->event[i].output[o].is_live;
        for (uint32_t k = 0; i >= cut && k < world->event[i].inputs; k++) {
            if (world->event[i].input[k].event < (int32_t)cut)
                ret->needs[world->event[i].input[k].event][world->event[i].input[k].output] = true;
        }
    }
}

static struct recovery *load_before(const struct shelf *shelf, uint32_t cut)
{
    struct recovery *recovery = NULL;
    assert_ok(recovery_make(WORLD_SESSION, &recovery));
    for (uint32_t i = 0; i < shelf->world->records; i++) {
        if (shelf->length[i] > 0 && shelf->world->stored[i].event < (int32_t)cut)
            assert_ok(recovery_add(recovery, shelf->bytes[i], shelf->length[i]));
    }
    return recovery;
}

static void records_that_come_after_a_trim_build_on_what_it_left(void **state)
{
    static struct world_question live, some;
    uint32_t same = 0, deleted = 0;
    for (uint64_t seed = 1; seed <= 150; seed++) {
        struct prng prng = case_prng(state, seed);
        struct world *world = world_make(&prng, (struct world_options){.events = (uint32_t)prng_between(&prng, 30, 200),
                                                                       .is_whole = seed % 4 != 0,
                                                                       .is_narrow = seed % 5 < 2});
        struct shelf *before = shelf_make(world), *after = shelf_make(world);
        uint32_t trims = (uint32_t)prng_between(&prng, 1, 3), cut = 0;
        for (uint32_t trim = 0; trim < trims; trim++) {
            cut = (uint32_t)prng_between(&prng, cut, world->events - 1);
            live_at(world, cut, &live);
            struct recovery *recovery = load_before(after, cut);
            need(recovery, world, &live);
            assert_ok(recovery_trim(recovery, visit, after));
            recovery_free(recovery);
        }
        deleted += after->deleted;
        for (int i = 0; i < 5; i++) {
            some = (struct world_question){0};
            for (uint32_t e = 0; e < world->events; e++) {
                for (uint32_t o = 0; o < WORLD_OUTPUTS_MAX; o++)
                    some.needs[e][o] = world->event[e].output[o].is_live && prng_chance(&prng, 1, 6 * (uint64_t)i + 1);
            }
            compare(before, after, &some, &prng, &same);
        }
        shelf_free(before);
        shelf_free(after);
        world_free(world);
    }
    print_message("%u records deleted, %u recoveries with the same steps\n", deleted, same);
    assert_true(same > 200 && deleted > 500);
}

CASES(a_trim_keeps_what_live_handles_reach_and_changes_no_recovery, records_that_come_after_a_trim_build_on_what_it_left)
