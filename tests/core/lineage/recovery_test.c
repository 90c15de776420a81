// Recovery on random histories: the steps are those of the oracle, and running them gives the needed values and nothing else.

#include "core/lineage/recovery.h"

#include "core/base/bits.h"
#include "tests/core/lineage/interpreter.h"
#include "tests/lib/case.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static struct recovery *recovery_of(const struct world *world)
{
    struct recovery *recovery = NULL;
    assert_ok(recovery_make(WORLD_SESSION, &recovery));
    world_load(world, recovery);
    return recovery;
}

static void ask_any(const struct world *world, struct prng *prng, struct world_question *question)
{
    *question = (struct world_question){.allows_close = prng_chance(prng, 1, 2)};
    uint64_t of = prng_chance(prng, 1, 3) ? 3 : 60;
    for (uint32_t i = 0; i < world->events; i++) {
        for (uint32_t o = 0; o < WORLD_OUTPUTS_MAX; o++) {
            const struct world_value *value = &world->event[i].output[o];
            question->needs[i][o] = value->exists && prng_chance(prng, value->is_live ? 4 : 1, of * 4);
        }
    }
}

static void need_all(struct recovery *recovery, const struct world *world, const struct world_question *question)
{
    for (uint32_t i = 0; i < world->events; i++) {
        for (uint32_t o = 0; o < WORLD_OUTPUTS_MAX; o++) {
            if (question->needs[i][o])
                assert_ok(recovery_need(recovery, (struct record_ref){world->event[i].counter, o}));
        }
    }
}

static void check_sum(const struct world *world, const struct world_answer *answer, const struct recovery_sum *sum)
{
    struct recovery_sum expected = {0};
    for (uint32_t i = 0; i < world->events; i++) {
        bool is_replayed = false;
        for (uint32_t o = 0; o < WORLD_OUTPUTS_MAX; o++) {
            uint8_t way = answer->way[i][o];
            bool is_restored = way == BY_PIECES || way == BY_FACT;
            expected.fetches += way == BY_FETCH;
            expected.restores += is_restored;
            expected.restored_bytes += is_restored ? WORLD_VALUE_BYTES : 0;
            expected.steps += way == BY_FETCH || is_restored || way == BY_COPY;
            is_replayed |= way == BY_REPLAY;
        }
        expected.replays += is_replayed;
        expected.steps += is_replayed;
        expected.cost_ns += is_replayed ? world->event[i].cost_ns : 0;
    }
    assert_memory_equal(sum, &expected, sizeof expected);
}

// Through the encoding, in parts of a random size.
static void run_encoded(struct recovery *recovery, struct prng *prng, struct interpreter *interpreter, uint32_t steps)
{
    struct record_scratch scratch;
    struct arena *arena = NULL;
    bool knows[WORLD_PLANS] = {false};
    assert_ok(record_scratch_make(&scratch));
    assert_ok(arena_make(1 << 16, 0, &arena));
    uint32_t from = 0;
    while (from < steps) {
        uint32_t in_part = 0, before = from;
        size_t max_bytes = prng_between(prng, 1, 3000);
        struct writer writer = writer_make(1 << 20);
        assert_ok(recovery_encode(recovery, &from, max_bytes, &writer, &in_part));
        assert_true(in_part > 0 && from == before + in_part && (in_part == 1 || writer.length <= max_bytes));
        struct recovery_reader reader = {.reader = reader_make(writer.data, writer.length), .arena = arena, .scratch = &scratch};
        struct record_plan plan;
        struct recovery_step step;
        for (;;) {
            enum recovery_item item = recovery_next(&reader, &plan, &step);
            if (item == RECOVERY_END)
                break;
            assert_true(item == RECOVERY_PLAN || item == RECOVERY_STEP);
            if (item == RECOVERY_PLAN) {
                assert_false(knows[world_plan_of(interpreter->world, plan.fingerprint)]);    // each comes once
                knows[world_plan_of(interpreter->world, plan.fingerprint)] = true;
                continue;
            }
            assert_true(step.kind != STEP_REPLAY || knows[world_plan_of(interpreter->world, step.plan)]);
            interpreter_step(interpreter, &step);
            in_part--;
        }
        assert_int_equal(in_part, 0);
        writer_free(&writer);
        arena_reset(arena);
    }
    arena_free(arena);
    record_scratch_free(&scratch);
}

static bool has_replica(void *context, struct hash128 content)
{
    return world_has_leaf(context, content);
}

// One question: false when the oracle says that it cannot be.
static bool try_question(struct world *world, const struct world_question *question, struct prng *prng, uint32_t *ret_donations)
{
    static struct world_answer answer;
    static struct interpreter interpreter;
    world_ask(world, question, &answer);
    struct recovery *recovery = recovery_of(world);
    need_all(recovery, world, question);
    struct recovery_options options = {
        .target = WORLD_TARGET, .numerics = WORLD_NUMERICS, .allows_close = question->allows_close};
    struct recovery_sum sum;
    struct fault fault = {0};
    enum dj_error error = recovery_plan(recovery, &options, has_replica, world, &sum, &fault);
    if (!answer.is_possible) {
        assert_error(DJ_E_LINEAGE, error);
        assert_int_equal(fault.code, DJ_E_LINEAGE);
        assert_non_null(strstr(fault.text, "the value 17."));
        recovery_free(recovery);
        return false;
    }
    if (error != DJ_OK)
        print_message("%s\n", fault.text);
    assert_ok(error);
    check_sum(world, &answer, &sum);
    interpreter_start(&interpreter, world);
    for (uint32_t i = 0; i < sum.steps; i++)
        interpreter_step(&interpreter, recovery_step_at(recovery, i));
    interpreter_end(&interpreter, question, &answer);
    *ret_donations += interpreter.donations;
    interpreter_start(&interpreter, world);
    run_encoded(recovery, prng, &interpreter, sum.steps);
    assert_int_equal(interpreter.steps, sum.steps);
    interpreter_end(&interpreter, question, &answer);
    recovery_free(recovery);
    return true;
}

static void steps_bring_back_what_is_needed_and_nothing_else(void **state)
{
    uint32_t possible = 0, impossible = 0, donations = 0;
    static struct world_question question;
    for (uint64_t seed = 1; seed <= 250; seed++) {
        struct prng prng = case_prng(state, seed);
        struct world_options options = {
            .events = (uint32_t)prng_between(&prng, 1, 120), .is_whole = seed % 2 == 0, .is_narrow = seed % 5 < 2};
        struct world *world = world_make(&prng, options);
        for (int i = 0; i < 4; i++) {
            ask_any(world, &prng, &question);
            if (try_question(world, &question, &prng, &donations))
                possible++;
            else
                impossible++;
        }
        world_free(world);
    }
    print_message("%u recoveries, %u that cannot be, %u donations\n", possible, impossible, donations);
    assert_true(possible > 300 && impossible > 50 && donations > 500);    // or the test tests nothing
}

// In a history with gaps most sets of many handles hold one that is lost: one at a time says more.
static void each_handle_alone_comes_back_or_is_lost_as_the_oracle_says(void **state)
{
    uint32_t possible = 0, impossible = 0, donations = 0;
    for (uint64_t seed = 1001; seed <= 1030; seed++) {
        struct prng prng = case_prng(state, seed);
        struct world *world = world_make(&prng, (struct world_options){.events = 60, .is_narrow = seed % 2 == 0});
        for (uint32_t i = 0; i < world->events; i++) {
            static struct world_question question;
            question = (struct world_question){0};
            uint32_t output = 0;
            while (!world->event[i].output[output].exists)
                output++;
            question.needs[i][output] = true;
            if (try_question(world, &question, &prng, &donations))
                possible++;
            else
                impossible++;
        }
        world_free(world);
    }
    print_message("%u come back, %u do not\n", possible, impossible);
    assert_true(possible > 500 && impossible > 100);
}

CASES(steps_bring_back_what_is_needed_and_nothing_else, each_handle_alone_comes_back_or_is_lost_as_the_oracle_says)
