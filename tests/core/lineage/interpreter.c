// Interpreter: the manual is interpreter.h.

#include "tests/core/lineage/interpreter.h"

#include "core/base/bits.h"
#include "tests/lib/case.h"

#include <string.h>

void interpreter_start(struct interpreter *interpreter, const struct world *world)
{
    memset(interpreter, 0, sizeof *interpreter);
    interpreter->world = world;
    for (uint32_t i = 0; i < world->events; i++) {
        for (uint32_t o = 0; o < WORLD_OUTPUTS_MAX; o++) {
            interpreter->holds[i][o] = world->event[i].output[o].at & 1u << (WORLD_TARGET - 1);
            interpreter->value[i][o] = world->event[i].output[o].bits;
        }
    }
}

static void put(struct interpreter *interpreter, int32_t event, uint32_t output, struct hash128 bits, enum world_way way)
{
    assert_in_range(event, 0, interpreter->world->events - 1);
    assert_in_range(output, 0, WORLD_OUTPUTS_MAX - 1);
    assert_false(interpreter->holds[event][output]);    // never what the target holds already
    interpreter->holds[event][output] = true;
    interpreter->value[event][output] = bits;
    interpreter->way[event][output] = (uint8_t)way;
}

static struct hash128 use(struct interpreter *interpreter, uint64_t counter, uint32_t output, int32_t *ret_event)
{
    int32_t event = world_event_of(interpreter->world, counter);
    assert_in_range(event, 0, interpreter->world->events - 1);
    assert_in_range(output, 0, WORLD_OUTPUTS_MAX - 1);
    assert_true(interpreter->holds[event][output]);
    interpreter->used[event][output] = (int32_t)interpreter->steps + 1;
    interpreter->could_donate[event][output] = false;
    *ret_event = event;
    return interpreter->value[event][output];
}

static void end_value(struct interpreter *interpreter, int32_t event, uint32_t output)
{
    assert_true(interpreter->holds[event][output]);
    interpreter->holds[event][output] = false;
    interpreter->ended[event][output] = (int32_t)interpreter->steps + 1;
}

static void replay(struct interpreter *interpreter, const struct recovery_step *step)
{
    int32_t plan_number = world_plan_of(interpreter->world, step->plan),
            event = world_event_of(interpreter->world, step->counter);
    assert_in_range(plan_number, 0, WORLD_PLANS - 1);
    const struct srg_plan *plan = interpreter->world->plan[plan_number].plan;
    const struct world_event *original = &interpreter->world->event[event];
    assert_int_equal(step->words, plan->words);
    assert_int_equal(step->cost_ns, original->cost_ns);
    struct hash128 value[WORLD_INPUTS_MAX];
    int32_t from[WORLD_INPUTS_MAX];
    uint32_t output[WORLD_INPUTS_MAX], k = 0;
    for (uint32_t i = 0; i < plan->inputs; i++) {
        uint64_t distance;
        if (plan->input[i].is_leaf)
            continue;
        binding_handle(plan, step->word, i, &distance, &output[k]);
        value[k] = use(interpreter, step->counter - distance, output[k], &from[k]);
        k++;
    }
    k = 0;
    for (uint32_t i = 0; i < plan->inputs; i++) {
        bool is_donated = i / 8 < step->donate_bytes && bit_get(step->donate, i);
        if (plan->input[i].is_leaf) {
            assert_false(is_donated);
            continue;
        }
        if (original->input[k].is_donated)
            interpreter->could_donate[from[k]][output[k]] = true;
        if (is_donated) {
            assert_true(original->input[k].is_donated);
            end_value(interpreter, from[k], output[k]);
            interpreter->was_donated[from[k]][output[k]] = true;
            interpreter->donations++;
        }
        k++;
    }
    uint32_t kept = 0;
    for (uint32_t o = 0; o < step->keep_bytes * 8; o++) {
        if (!bit_get(step->keep, o))
            continue;
        assert_in_range(o, 0, plan->outputs - 1);
        put(interpreter, event, o, world_evaluate(plan, step->word, value, o), BY_REPLAY);
        kept++;
    }
    assert_true(kept > 0);
}

static void restore(struct interpreter *interpreter, const struct recovery_step *step)
{
    struct hash128 bits = {0};
    uint64_t bytes = 0, length;
    assert_int_equal(tensor_bytes(&step->meta), WORLD_VALUE_BYTES);
    if (step->fact != NULL) {
        assert_int_equal(step->fact_bytes, WORLD_VALUE_BYTES);
        memcpy(&bits, step->fact, sizeof bits);
    }
    struct reader pieces = reader_make(step->piece, step->piece_bytes);
    for (uint32_t i = 0; step->fact == NULL && i < step->pieces; i++) {
        struct record_piece piece = record_piece_read(&pieces);
        assert_true(world_leaf(interpreter->world, piece.content, (uint8_t *)&bits + bytes, &length));
        assert_int_equal(length, piece.bytes);
        bytes += length;
    }
    put(interpreter, world_event_of(interpreter->world, step->counter), step->output, bits,
        step->fact != NULL ? BY_FACT : BY_PIECES);
}

void interpreter_step(struct interpreter *interpreter, const struct recovery_step *step)
{
    int32_t event = world_event_of(interpreter->world, step->counter), source;
    assert_in_range(event, 0, interpreter->world->events - 1);
    assert_true(step->counter > interpreter->counter
                    ? step->part == 0
                    : step->counter == interpreter->counter && step->part == interpreter->part + 1);
    interpreter->counter = step->counter;
    interpreter->part = step->part;
    struct hash128 bits;
    switch (step->kind) {
    case STEP_REPLAY: replay(interpreter, step); break;
    case STEP_RESTORE: restore(interpreter, step); break;
    case STEP_FETCH:
        assert_in_range(step->from, 2, WORLD_WORKERS);
        assert_true(interpreter->world->event[event].output[step->output].at & 1u << (step->from - 1));
        put(interpreter, event, step->output, interpreter->world->event[event].output[step->output].bits, BY_FETCH);
        break;
    case STEP_COPY:
        assert_int_equal(tensor_bytes(&step->meta), WORLD_VALUE_BYTES);
        bits = use(interpreter, step->source.counter, step->source.output, &source);
        put(interpreter, event, step->output, bits, BY_COPY);
        break;
    default: fail_msg("a step of kind %d", step->kind);
    }
    for (uint32_t i = 0; i < step->releases; i++)
        end_value(interpreter, world_event_of(interpreter->world, step->released[i].counter), step->released[i].output);
    interpreter->steps++;
}

void interpreter_end(const struct interpreter *interpreter, const struct world_question *question,
                     const struct world_answer *answer)
{
    const struct world *world = interpreter->world;
    for (uint32_t i = 0; i < world->events; i++) {
        for (uint32_t o = 0; o < WORLD_OUTPUTS_MAX; o++) {
            bool was_held = world->event[i].output[o].at & 1u << (WORLD_TARGET - 1);
            assert_int_equal(interpreter->holds[i][o], was_held || question->needs[i][o]);
            if (interpreter->holds[i][o])
                assert_true(hash128_equal(interpreter->value[i][o], world->event[i].output[o].bits));
            assert_int_equal(interpreter->way[i][o], answer->way[i][o] == BY_HELD ? BY_NONE : answer->way[i][o]);
            if (interpreter->ended[i][o] == 0)
                continue;
            assert_false(was_held);
            assert_int_equal(interpreter->ended[i][o], interpreter->used[i][o]);
            assert_int_equal(interpreter->was_donated[i][o], interpreter->could_donate[i][o]);
        }
    }
}
