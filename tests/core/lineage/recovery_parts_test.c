// The parts of recovery that random histories do not reach: long chains, refusals and their words, restoring plans, explanations, hostile
// bytes, and running out of memory at every point.

#include "core/lineage/recovery.h"

#include "core/base/bits.h"
#include "tests/core/lineage/world.h"
#include "tests/lib/case.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

// A generation: each step takes over the cache of the one before, and answers a token.
struct line {
    struct graph_result plan;
    struct recovery *recovery;
    struct binding_history history;
    int64_t was[64];    // line_pairs: the vector before the last two
};

static void line_free(void *object)
{
    struct line *line = object;
    recovery_free(line->recovery);
    history_free(&line->history);
    graph_result_free(&line->plan);
    free(line);
}

static struct line *line_make(void **state)
{
    struct line *line = calloc(1, sizeof *line);
    assert_ok(recovery_make(WORLD_SESSION, &line->recovery));
    struct graph *graph = graph_make();
    graph_int(graph, "alpha", 1);
    struct srg_ref cache = OP2(graph, OP_ADD, HANDLE(graph, DTYPE_F32, 2), LEAF(graph, DTYPE_F32, 2));
    OP1(graph, OP_NEG, cache);
    line->plan = graph_finish(graph);
    history_init(&line->history, line->plan.plan->words);
    case_later(state, line_free, line);
    struct writer encoded = writer_make(1 << 20), writer = writer_make(1 << 20);
    assert_ok(plan_encode(line->plan.plan, &encoded));
    struct record record = {
        .kind = RECORD_PLAN,
        .plan = {.fingerprint = line->plan.plan->fingerprint, .bytes = encoded.data, .length = encoded.length}};
    record_write(&writer, &record);
    assert_ok(recovery_add(line->recovery, writer.data, writer.length));
    writer_free(&encoded);
    writer_free(&writer);
    return line;
}

// Step `counter`, whose input is output 0 of the one before. The delta stands alone if `base` is 0.
static enum dj_error line_add(struct line *line, uint64_t counter, uint64_t base, struct writer *writer, struct writer *delta)
{
    const struct srg_plan *plan = line->plan.plan;
    if (base == 0)
        history_reset(&line->history);
    binding_set_leaf(plan, line->plan.word, 1, hash128(&counter, sizeof counter));
    uint64_t before = base == 0 || line->history.depth < 2 ? 0 : base - 1;
    writer_reset(delta);
    writer_reset(writer);
    bindings_encode(&line->history, line->plan.word, delta);
    assert_ok(history_push(&line->history, line->plan.word));
    struct record record = {.kind = RECORD_EXECUTION};
    record.execution = (struct record_execution){.id = {WORLD_SESSION, counter},
                                                 .plan = plan->fingerprint,
                                                 .base = base,
                                                 .before = before,
                                                 .delta = delta->data,
                                                 .delta_length = (uint32_t)delta->length,
                                                 .check = record_words_check(line->plan.word, plan->words),
                                                 .keep = {.bits = (const uint8_t *)"\1", .bytes = 1},
                                                 .donate = {.bits = (const uint8_t *)"\1", .bytes = 1},
                                                 .numerics = WORLD_NUMERICS,
                                                 .cost_ns = UINT64_MAX / 1000};
    record_write(writer, &record);
    return recovery_add(line->recovery, writer->data, writer->length);
}

static void line_fill(struct line *line, uint64_t steps, uint64_t chain)
{
    struct writer writer = writer_make(1 << 20), delta = writer_make(1 << 20);
    for (uint64_t i = 1; i <= steps; i++)
        assert_ok(line_add(line, i + 1, (i - 1) % chain == 0 ? 0 : i, &writer, &delta));
    writer_free(&writer);
    writer_free(&delta);
}

static const struct recovery_options OPTIONS = {.target = WORLD_TARGET, .numerics = WORLD_NUMERICS};

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void a_long_line(void **state, uint64_t chain)
{
    enum { STEPS = 100000 };
    struct line *line = line_make(state);
    double start = seconds();
    line_fill(line, STEPS, chain);
    double added = seconds();
    assert_ok(recovery_add_location(line->recovery, (struct record_ref){1, 0}, WORLD_TARGET));
    assert_ok(recovery_need(line->recovery, (struct record_ref){STEPS + 1, 0}));
    struct recovery_sum sum;
    assert_ok(recovery_plan(line->recovery, &OPTIONS, NULL, NULL, &sum, NULL));
    double planned = seconds();
    struct writer writer = writer_make(1 << 26);
    uint32_t from = 0, steps;
    while (from < sum.steps)
        assert_ok(recovery_encode(line->recovery, &from, 4 << 20, &writer, &steps));
    print_message("%d records, chains of %d: added in %.3f s, planned in %.3f s, encoded in %.3f s, %zu bytes\n", STEPS,
                  (int)chain, added - start, planned - added, seconds() - planned, writer.length);
    writer_free(&writer);
    assert_int_equal(sum.replays, STEPS);
    assert_int_equal(sum.cost_ns, UINT64_MAX);    // and not some small rest
    for (uint32_t i = 0; i < STEPS; i += 9999) {
        const struct recovery_step *step = recovery_step_at(line->recovery, i);
        assert_int_equal(step->counter, i + 2);
        assert_int_equal(bit_get(step->donate, 0), i > 0);    // what the target held stays
        assert_int_equal(step->releases, 0);
    }
}

static void a_hundred_thousand_steps_are_planned_in_a_walk(void **state)
{
    a_long_line(state, RECORD_CHAIN_MAX);
    a_long_line(state, UINT64_MAX);    // one chain
}

static void assert_lost(struct line *line, uint64_t counter, const char *why)
{
    struct recovery_sum sum;
    struct fault fault = {0};
    assert_ok(recovery_need(line->recovery, (struct record_ref){counter, 0}));
    assert_error(DJ_E_LINEAGE, recovery_plan(line->recovery, &OPTIONS, NULL, NULL, &sum, &fault));
    if (strstr(fault.text, why) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", fault.text, why);
}

static void an_error_names_the_handle_the_ancestor_and_why(void **state)
{
    struct line *line = line_make(state);
    line_fill(line, 5, 512);
    assert_lost(
        line, 6,
        "the value 17.1.6:0 cannot be brought back: it was made from 17.1.1:0, which no worker and no checkpoint has, and "
        "there is no record of what made it");
}

static void a_chain_without_its_start_says_so(void **state)
{
    struct line *line = line_make(state);
    struct writer writer = writer_make(1 << 20), delta = writer_make(1 << 20);
    assert_ok(line_add(line, 10, 9, &writer, &delta));
    assert_ok(line_add(line, 11, 10, &writer, &delta));
    assert_ok(line_add(line, 12, 0, &writer, &delta));
    writer_free(&writer);
    writer_free(&delta);
    assert_lost(
        line, 11,
        "17.1.11:0 cannot be brought back: no worker and no checkpoint has it, and the records that its bindings build on are "
        "missing");
}

// Each of a pair of records needs the pair before it: base a record that stands alone, before the one before that.
static void line_pairs(struct line *line, uint64_t pairs)
{
    struct writer writer = writer_make(1 << 20), delta = writer_make(1 << 20);
    for (uint64_t i = 0; i < pairs; i++) {
        uint64_t counter = 10 + 2 * i;
        line->history.depth = 0;
        assert_ok(line_add(line, counter, 0, &writer, &delta));
        if (i > 0) {
            line->history.depth = 2;    // what the stream that it ran in knew
            memcpy(line->history.before, line->was, line->plan.plan->words * sizeof *line->was);
        }
        assert_ok(line_add(line, counter + 1, counter, &writer, &delta));
        memcpy(line->was, line->history.last, line->plan.plan->words * sizeof *line->was);
    }
    writer_free(&writer);
    writer_free(&delta);
}

static void chains_that_need_one_another_are_followed_so_far_and_no_further(void **state)
{
    struct line *line = line_make(state);
    line_pairs(line, 100);
    assert_ok(recovery_add_location(line->recovery, (struct record_ref){9, 0}, WORLD_TARGET));
    assert_ok(recovery_need(line->recovery, (struct record_ref){10 + 2 * 64 + 1, 0}));
    struct recovery_sum sum;
    assert_ok(recovery_plan(line->recovery, &OPTIONS, NULL, NULL, &sum, NULL));
    assert_int_equal(sum.replays, 2 * 65);
    assert_lost(line, 10 + 2 * 65 + 1, "its bindings build on too many chains of records");
}

static void another_numerics_class_is_refused_unless_close_is_allowed(void **state)
{
    struct line *line = line_make(state);
    line_fill(line, 3, 512);
    assert_ok(recovery_add_location(line->recovery, (struct record_ref){1, 0}, 9));
    assert_ok(recovery_need(line->recovery, (struct record_ref){4, 0}));
    struct recovery_options options = {.target = WORLD_TARGET, .numerics = WORLD_NUMERICS + 1};
    struct recovery_sum sum;
    struct fault fault = {0};
    assert_error(DJ_E_LINEAGE, recovery_plan(line->recovery, &options, NULL, NULL, &sum, &fault));
    assert_non_null(strstr(fault.text, "numerics"));
    options.allows_close = true;
    assert_ok(recovery_plan(line->recovery, &options, NULL, NULL, &sum, &fault));
    assert_true(sum.steps == 4 && sum.replays == 3 && sum.fetches == 1);
}

static void records_out_of_order_or_of_others_are_refused(void **state)
{
    struct line *line = line_make(state);
    struct writer writer = writer_make(1 << 20), delta = writer_make(1 << 20);
    assert_ok(line_add(line, 10, 0, &writer, &delta));
    assert_error(DJ_E_INVALID, line_add(line, 10, 0, &writer, &delta));
    assert_error(DJ_E_INVALID, line_add(line, 9, 0, &writer, &delta));
    writer_reset(&writer);
    struct record other = {.kind = RECORD_IMPORT, .import = {.id = {WORLD_SESSION + 1, 30}}};
    record_write(&writer, &other);
    assert_error(DJ_E_INVALID, recovery_add(line->recovery, writer.data, writer.length));
    assert_error(DJ_E_MALFORMED, recovery_add(line->recovery, writer.data, writer.length - 1));
    assert_error(DJ_E_MALFORMED, recovery_add(line->recovery, "\0", 1));
    writer_free(&writer);
    writer_free(&delta);
}

// Small plans ------------------------------------------------------------------------------------------------------------------

static void assert_gives(const struct srg_plan *plan, const int64_t *word, const struct tensor_meta *meta)
{
    struct tensor_meta out[4];
    struct fault fault = {0};
    assert_int_equal(plan->outputs, 1);
    assert_ok(plan_infer(plan, word, out, NULL, NULL, &fault));
    assert_int_equal(out[0].dtype, meta->dtype);
    assert_true(tensor_same_sizes(&out[0], meta) && tensor_is_contiguous(&out[0]));
}

static void pieces_are_put_together_by_one_node(void **state)
{
    (void)state;
    struct recovery_step step = {.kind = STEP_RESTORE, .counter = 9, .dim = 1};
    step.meta = (struct tensor_meta){.dtype = DTYPE_BF16, .rank = 3, .size = {2, 10, 3}, .stride = {30, 3, 1}};
    for (uint32_t pieces = 1; pieces <= 10; pieces += 3) {
        struct writer writer = writer_make(4096);
        for (uint32_t i = 0; i < pieces; i++) {
            int64_t rows = i == 0 ? 11 - (int64_t)pieces : 1;
            record_piece_write(&writer, &(struct record_piece){.content = {1, i}, .rows = rows, .bytes = (uint64_t)rows * 12});
        }
        step.pieces = pieces;
        step.piece = writer.data;
        step.piece_bytes = (uint32_t)writer.length;
        assert_true(record_pieces_fit(&step.meta, 1, pieces, writer.data, step.piece_bytes));
        struct srg_plan *plan;
        int64_t *word;
        struct fault fault = {0};
        assert_ok(recovery_restore_plan(&step, (struct hash128){0}, &plan, &word, &fault));
        assert_int_equal(plan->inputs, pieces);
        for (uint32_t i = 0; i < pieces; i++)
            assert_true(hash128_equal(binding_leaf(plan, word, i), (struct hash128){1, i}));
        assert_gives(plan, word, &step.meta);
        plan_drop(plan);
        free(word);
        writer_free(&writer);
    }
}

static void facts_and_copies_are_one_input_s_plans(void **state)
{
    (void)state;
    struct recovery_step step = {.kind = STEP_RESTORE, .counter = 9, .fact = (const uint8_t *)"12345678", .fact_bytes = 8};
    step.meta = (struct tensor_meta){.dtype = DTYPE_I64};
    struct srg_plan *plan;
    int64_t *word;
    assert_ok(recovery_restore_plan(&step, (struct hash128){5, 6}, &plan, &word, NULL));
    assert_true(plan->inputs == 1 && hash128_equal(binding_leaf(plan, word, 0), (struct hash128){5, 6}));
    assert_gives(plan, word, &step.meta);
    plan_drop(plan);
    free(word);
    step = (struct recovery_step){.kind = STEP_COPY, .counter = 9, .source = {.counter = 4, .output = 2}};
    step.meta = (struct tensor_meta){.dtype = DTYPE_F32, .rank = 2, .size = {0, 3}, .stride = {3, 1}};
    assert_ok(recovery_copy_plan(&step, &plan, &word, NULL));
    uint64_t distance;
    uint32_t output;
    binding_handle(plan, word, 0, &distance, &output);
    assert_true(distance == 5 && output == 2);
    assert_gives(plan, word, &step.meta);
    plan_drop(plan);
    free(word);
}

static void an_explanation_says_how_a_value_came_to_be(void **state)
{
    struct line *line = line_make(state);
    line_fill(line, 3, 512);
    assert_ok(recovery_add_location(line->recovery, (struct record_ref){4, 0}, 8));
    assert_ok(recovery_add_location(line->recovery, (struct record_ref){3, 0}, 8));    // gone with it
    assert_ok(recovery_add_location(line->recovery, (struct record_ref){2, 0}, 9));
    assert_ok(recovery_need(line->recovery, (struct record_ref){4, 0}));
    struct recovery_options options = {.numerics = WORLD_NUMERICS};
    struct recovery_sum sum;
    assert_ok(recovery_plan(line->recovery, &options, NULL, NULL, &sum, NULL));
    struct writer json = writer_make(1 << 20);
    assert_ok(recovery_explain(line->recovery, (struct record_ref){4, 0}, &json));
    write_u8(&json, 0);
    const char *text = (const char *)json.data;
    print_message("%s\n", text);
    static const char *const says[] = {
        "\"handle\":\"17.1.4:0\"",
        "\"op\":\"ADD\"",
        "\"nodes\":2",
        "\"inputs\":[\"17.1.3:0\"]",
        "\"locations\":[\"8\"]",
        "\"checkpoint\":null",
        "\"steps\":3,\"replays\":2,\"restores\":0,\"fetches\":1",
        "{\"kind\":\"fetch\",\"handle\":\"17.1.2:0\"},{\"kind\":\"replay\",\"execution\":\"17.1.3\""};
    for (size_t i = 0; i < sizeof says / sizeof says[0]; i++) {
        if (strstr(text, says[i]) == NULL)
            fail_msg("no %s", says[i]);
    }
    writer_free(&json);
}

// Hostile bytes ----------------------------------------------------------------------------------------------------------------

static void read_all(const uint8_t *bytes, size_t length, struct arena *arena, struct record_scratch *scratch)
{
    struct recovery_reader reader = {.reader = reader_make(bytes, length), .arena = arena, .scratch = scratch};
    struct record_plan plan;
    struct recovery_step step;
    enum recovery_item item;
    while ((item = recovery_next(&reader, &plan, &step)) == RECOVERY_PLAN || item == RECOVERY_STEP)
        ;
    assert_true(item == RECOVERY_END || reader.reader.error != DJ_OK);
    arena_reset(arena);
}

static void changed_parts_are_refused_or_other_steps(void **state)
{
    struct record_scratch scratch;
    struct arena *arena;
    assert_ok(record_scratch_make(&scratch));
    assert_ok(arena_make(1 << 16, 0, &arena));
    for (uint64_t seed = 1; seed <= 30; seed++) {
        struct prng prng = case_prng(state, seed);
        struct world *world = world_make(&prng, (struct world_options){.events = 50, .is_whole = true});
        struct recovery *recovery = NULL;
        assert_ok(recovery_make(WORLD_SESSION, &recovery));
        world_load(world, recovery);
        assert_ok(recovery_need(recovery, (struct record_ref){world->event[world->events - 1].counter, 0}));
        struct recovery_sum sum;
        uint32_t from = 0, steps;
        struct writer writer = writer_make(1 << 20);
        if (recovery_plan(recovery, &OPTIONS, NULL, NULL, &sum, NULL) == DJ_OK)
            assert_ok(recovery_encode(recovery, &from, 1 << 20, &writer, &steps));
        for (int round = 0; round < 300 && writer.length > 0; round++) {
            size_t length = prng_chance(&prng, 1, 3) ? prng_between(&prng, 0, writer.length) : writer.length;
            uint8_t *bytes = malloc(length + 1);
            memcpy(bytes, writer.data, length);
            for (uint64_t n = prng_between(&prng, 0, 4); n > 0 && length > 0; n--)
                bytes[prng_between(&prng, 0, length - 1)] = (uint8_t)prng_next(&prng);
            read_all(bytes, length, arena, &scratch);
            free(bytes);
        }
        writer_free(&writer);
        recovery_free(recovery);
        world_free(world);
    }
    arena_free(arena);
    record_scratch_free(&scratch);
}

static void a_part_cannot_ask_for_more_memory_than_a_part_may(void **state)
{
    (void)state;
    struct record_scratch scratch;
    struct arena *arena;
    assert_ok(record_scratch_make(&scratch));
    assert_ok(arena_make(1 << 16, 0, &arena));
    struct writer writer = writer_make(1 << 20);
    for (uint32_t i = 0; i < 100; i++) {    // each of a million words, all zero
        write_u8(&writer, STEP_REPLAY);
        write_var(&writer, 1);
        write_var(&writer, 0);
        write_var(&writer, 0);
        if (i == 0) {
            write_hash(&writer, (struct hash128){1, 2});
            write_var(&writer, PLAN_WORDS_MAX);
        }
        write_var(&writer, 3);    // the end of a delta
        for (int k = 0; k < 4; k++)
            write_u8(&writer, 0);
    }
    struct recovery_reader reader = {.reader = reader_make(writer.data, writer.length), .arena = arena, .scratch = &scratch};
    struct record_plan plan;
    struct recovery_step step;
    uint32_t steps = 0;
    while (recovery_next(&reader, &plan, &step) == RECOVERY_STEP)
        steps++;
    assert_error(DJ_E_MALFORMED, reader.reader.error);
    assert_int_equal(steps, 8);
    writer_free(&writer);
    arena_free(arena);
    record_scratch_free(&scratch);
}

// Out of memory at the n-th call, for all n: an error, and nothing lost.
static enum dj_error whole_recovery(const struct world *world, struct world_question *question)
{
    struct recovery *recovery = NULL;
    struct recovery_sum sum;
    struct writer writer = writer_make(1 << 20);
    uint32_t from = 0, steps;
    enum dj_error error = recovery_make(WORLD_SESSION, &recovery);
    for (uint32_t i = 0; i < world->records && error == DJ_OK; i++)
        error = recovery_add(recovery, world->stored[i].bytes, world->stored[i].length);
    for (uint32_t i = 0; i < world->events && error == DJ_OK; i++) {
        if (question->needs[i][0])
            error = recovery_need(recovery, (struct record_ref){world->event[i].counter, 0});
    }
    if (error == DJ_OK)
        error = recovery_plan(recovery, &OPTIONS, NULL, NULL, &sum, NULL);
    while (error == DJ_OK && from < sum.steps)
        error = recovery_encode(recovery, &from, 2000, &writer, &steps);
    writer_free(&writer);
    recovery_free(recovery);
    return error;
}

static void running_out_of_memory_is_an_error_at_every_point(void **state)
{
    struct prng prng = case_prng(state, 3);
    struct world *world = world_make(&prng, (struct world_options){.events = 40, .is_whole = true});
    static struct world_question question;
    for (uint32_t i = 30; i < world->events; i++)
        question.needs[i][0] = world->event[i].output[0].exists;
    assert_ok(whole_recovery(world, &question));
    uint64_t failures = 0;
    for (bool more = true; more; failures += more) {
        alloc_fail_after(failures);
        enum dj_error error = whole_recovery(world, &question);
        more = alloc_fail_stop();
        assert_error(more ? DJ_E_NO_MEMORY : DJ_OK, error);
    }
    assert_true(failures > 20);
    world_free(world);
}

CASES(a_hundred_thousand_steps_are_planned_in_a_walk, an_error_names_the_handle_the_ancestor_and_why,
      a_chain_without_its_start_says_so, chains_that_need_one_another_are_followed_so_far_and_no_further,
      another_numerics_class_is_refused_unless_close_is_allowed, records_out_of_order_or_of_others_are_refused,
      pieces_are_put_together_by_one_node, facts_and_copies_are_one_input_s_plans, an_explanation_says_how_a_value_came_to_be,
      changed_parts_are_refused_or_other_steps, a_part_cannot_ask_for_more_memory_than_a_part_may,
      running_out_of_memory_is_an_error_at_every_point)
