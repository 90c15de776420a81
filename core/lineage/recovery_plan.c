// Plan: the steps, after the walk. They are put in the order of their counters; then one pass sees which step uses each value last, and
// one gives that step its donations and releases. A value that the target held before is never taken from it.
//
// Steps keep no words: they are decoded again when a step is looked at or encoded, in order, from the chain's cursor.

#include "core/lineage/recovery_internal.h"

#include "core/base/assert.h"
#include "core/base/bits.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static uint64_t add_saturating(uint64_t a, uint64_t b)
{
    return a + b < a ? UINT64_MAX : a + b;
}

static enum recovery_step_kind kind_of(const struct value *value)
{
    switch ((enum way)value->way) {
    case WAY_FETCH: return STEP_FETCH;
    case WAY_RESTORE:
    case WAY_FACT: return STEP_RESTORE;
    case WAY_COPY: return STEP_COPY;
    default: return STEP_REPLAY;
    }
}

static int step_order(const void *a, const void *b)
{
    const struct planned *x = a, *y = b;
    if (x->counter != y->counter)
        return x->counter < y->counter ? -1 : 1;
    if (x->kind != y->kind)
        return x->kind > y->kind ? -1 : 1;    // what only brings bytes first
    uint32_t m = x->value == NULL ? 0 : x->value->ref.output, n = y->value == NULL ? 0 : y->value->ref.output;
    return m < n ? -1 : m > n;
}

static uint32_t count_steps(const struct recovery *recovery)
{
    uint32_t steps = 0;
    for (const struct value *value = recovery->made; value != NULL; value = value->next_made)
        steps += kind_of(value) != STEP_REPLAY;
    for (uint32_t i = 0; i < recovery->records; i++)
        steps += recovery->record[i].is_replayed;
    return steps;
}

static enum dj_error collect(struct recovery *recovery)
{
    uint32_t steps = count_steps(recovery), at = 0;
    free(recovery->step);
    recovery->step = NULL;
    recovery->steps = 0;
    if (steps > RECOVERY_STEPS_MAX)
        return fault_set(recovery->fault, DJ_E_LIMIT, "%" PRIu32 " steps would bring everything back, %d is the most", steps,
                         RECOVERY_STEPS_MAX);
    struct planned *step = calloc(steps + 1, sizeof *step);
    if (step == NULL)
        return DJ_E_NO_MEMORY;
    for (struct value *value = recovery->made; value != NULL; value = value->next_made) {
        if (kind_of(value) != STEP_REPLAY)
            step[at++] = (struct planned){
                .kind = (uint8_t)kind_of(value), .counter = value->ref.counter, .record = value->record, .value = value};
    }
    for (uint32_t i = 0; i < recovery->records; i++) {
        if (recovery->record[i].is_replayed)
            step[at++] = (struct planned){.kind = STEP_REPLAY, .counter = recovery->record[i].counter, .record = i};
    }
    assert(at == steps);
    if (steps > 1)
        qsort(step, steps, sizeof *step, step_order);
    for (uint32_t i = 1; i < steps; i++)
        step[i].part = step[i].counter == step[i - 1].counter ? step[i - 1].part + 1 : 0;
    recovery->step = step;
    recovery->steps = steps;
    return DJ_OK;
}

// Shapes -----------------------------------------------------------------------------------------------------------------------

static enum dj_error shape_fault(struct recovery *recovery, const struct value *value)
{
    char text[HANDLE_TEXT];
    struct handle handle = {.execution = {.session = recovery->session, .counter = value->ref.counter},
                            .output = value->ref.output};
    return fault_set(recovery->fault, DJ_E_LINEAGE, "the value %s cannot be brought back: %s", handle_text(handle, text),
                     recovery_why_text(WHY_SHAPE));
}

// The shape of what the value is: as its checkpoint says, or as the bindings of what made it give it.
static enum dj_error shape_of(struct recovery *recovery, const struct value *value, struct tensor_meta *ret)
{
    struct record_ref from = value->ref;
    uint32_t index = RECOVERY_NONE;
    for (;;) {
        const struct value *known = recovery_value_find(recovery, from);
        if (known != NULL && known->checkpoint != NULL) {
            *ret = known->checkpoint->meta;
            return DJ_OK;
        }
        index = recovery_record_find(recovery, from.counter, index);
        if (index == RECOVERY_NONE || recovery->record[index].kind == RECORD_EXECUTION)
            break;
        if (recovery->record[index].state == KNOWN_BAD)
            return shape_fault(recovery, value);
        from = recovery->record[index].source;    // an earlier one: this ends
    }
    const int64_t *word = NULL;
    enum dj_error error = index == RECOVERY_NONE ? DJ_OK : recovery_words(recovery, index, &word);
    if (error != DJ_OK)
        return error;
    if (word == NULL)
        return shape_fault(recovery, value);
    const struct srg_plan *plan = recovery->plan[recovery->record[index].plan].plan;
    if (from.output >= plan->outputs || plan_infer(plan, word, recovery->out, NULL, NULL, NULL) != DJ_OK)
        return shape_fault(recovery, value);
    *ret = recovery->out[from.output];
    tensor_make_contiguous(ret);
    return DJ_OK;
}

// What is put together from recorded bytes, and what is copied, needs its shape.
static enum dj_error give_shapes(struct recovery *recovery)
{
    enum dj_error error = DJ_OK;
    for (uint32_t i = 0; i < recovery->steps && error == DJ_OK; i++) {
        struct value *value = recovery->step[i].value;
        if (value == NULL || (value->way != WAY_FACT && value->way != WAY_COPY))
            continue;
        value->meta = recovery_alloc(recovery, sizeof *value->meta, &error);
        if (error == DJ_OK)
            error = shape_of(recovery, value, value->meta);
        if (error == DJ_OK && value->way == WAY_FACT && (uint64_t)tensor_bytes(value->meta) != value->fact_bytes)
            error = shape_fault(recovery, value);
    }
    return error;
}

// Last uses --------------------------------------------------------------------------------------------------------------------

static void see_uses(struct recovery *recovery)
{
    for (uint32_t i = 0; i < recovery->steps; i++) {
        const struct planned *step = &recovery->step[i];
        const struct known *record = step->record == RECOVERY_NONE ? NULL : &recovery->record[step->record];
        if (step->kind == STEP_COPY)
            recovery_value_find(recovery, record->source)->last_use = i;
        for (uint32_t k = 0; step->kind == STEP_REPLAY && k < record->inputs; k++)
            record->input[k].value->last_use = i;
    }
}

static bool ends_here(const struct value *value, uint32_t step)
{
    return value->way != WAY_HELD && !value->is_needed && value->last_use == step;
}

static bool had_bit(const struct record_bits *bits, uint32_t bit)
{
    return bit / 8 < bits->bytes && bit_get(bits->bits, bit);
}

static enum dj_error fill_replay(struct recovery *recovery, uint32_t index)
{
    struct planned *step = &recovery->step[index];
    const struct known *record = &recovery->record[step->record];
    const struct srg_plan *plan = recovery->plan[record->plan].plan;
    enum dj_error error = recovery_parse(recovery, step->record);
    if (error != DJ_OK)
        return error;
    uint32_t most = 0, released = 0;
    for (const struct value *value = record->wanted; value != NULL; value = value->next_wanted)
        most = value->way == WAY_REPLAY && value->ref.output > most ? value->ref.output : most;
    step->keep_bytes = most / 8 + 1;
    step->donate_bytes = plan->inputs / 8 + 1;
    step->keep = recovery_alloc(recovery, step->keep_bytes, &error);
    step->donate = recovery_alloc(recovery, step->donate_bytes, &error);
    if (error != DJ_OK)
        return error;
    for (const struct value *value = record->wanted; value != NULL; value = value->next_wanted) {
        if (value->way == WAY_REPLAY)
            bit_set(step->keep, value->ref.output);
    }
    for (uint32_t i = 0; i < record->inputs; i++) {
        struct value *value = record->input[i].value;
        if (!ends_here(value, index))
            continue;
        released++;
        if (had_bit(&recovery->parsed->execution.donate, record->input[i].input)) {
            bit_set(step->donate, record->input[i].input);
            value->ended = index + 1;
        }
    }
    step->released = recovery_alloc(recovery, released * sizeof *step->released, &error);
    for (uint32_t i = 0; i < record->inputs && error == DJ_OK; i++) {
        struct value *value = record->input[i].value;
        if (!ends_here(value, index) || value->ended != 0)
            continue;
        step->released[step->releases++] = value->ref;
        value->ended = index + 1;
    }
    return error;
}

static enum dj_error fill(struct recovery *recovery, uint32_t index)
{
    struct planned *step = &recovery->step[index];
    struct recovery_sum *sum = &recovery->sum;
    enum dj_error error = DJ_OK;
    struct value *source;
    sum->steps++;
    switch ((enum recovery_step_kind)step->kind) {
    case STEP_REPLAY:
        sum->replays++;
        sum->cost_ns = add_saturating(sum->cost_ns, recovery->record[step->record].cost_ns);
        return fill_replay(recovery, index);
    case STEP_RESTORE:
        sum->restores++;
        sum->restored_bytes = add_saturating(sum->restored_bytes, step->value->way == WAY_FACT
                                                                      ? step->value->fact_bytes
                                                                      : (uint64_t)tensor_bytes(&step->value->checkpoint->meta));
        return DJ_OK;
    case STEP_FETCH: sum->fetches++; return DJ_OK;
    case STEP_COPY:
        source = recovery_value_find(recovery, recovery->record[step->record].source);
        if (!ends_here(source, index))
            return DJ_OK;
        step->released = recovery_alloc(recovery, sizeof *step->released, &error);
        if (error == DJ_OK)
            step->released[step->releases++] = source->ref;
        return error;
    }
    return DJ_E_INTERNAL;
}

// Which step needs a plan first: there its bytes go.
static void see_plans(struct recovery *recovery)
{
    for (uint32_t i = 0; i < recovery->known_plans; i++)
        recovery->plan[i].first_step = RECOVERY_NONE;
    for (uint32_t i = recovery->steps; i-- > 0;) {
        if (recovery->step[i].kind == STEP_REPLAY)
            recovery->plan[recovery->record[recovery->step[i].record].plan].first_step = i;
    }
}

// What holds a needed value is taken for gone with everything it holds: what would be, if its worker died now.
static enum dj_error ignore_holders(struct recovery *recovery)
{
    for (const struct value *value = recovery->first_value; value != NULL; value = value->next) {
        for (const struct location *at = value->is_needed ? value->location : NULL; at != NULL; at = at->next) {
            uint64_t *ignored = realloc(recovery->ignored, (recovery->ignored_count + 1u) * sizeof *ignored);
            if (ignored == NULL)
                return DJ_E_NO_MEMORY;
            recovery->ignored = ignored;
            uint32_t i = 0;
            while (i < recovery->ignored_count && ignored[i] != at->incarnation)
                i++;
            ignored[i] = at->incarnation;
            recovery->ignored_count += i == recovery->ignored_count;
        }
    }
    return DJ_OK;
}

static enum dj_error plan_steps(struct recovery *recovery)
{
    enum dj_error error = recovery->options->target == 0 ? ignore_holders(recovery) : DJ_OK;
    if (error == DJ_OK)
        error = recovery_walk(recovery);
    if (error == DJ_OK)
        error = collect(recovery);
    if (error == DJ_OK)
        error = give_shapes(recovery);
    if (error != DJ_OK)
        return error;
    see_uses(recovery);
    for (uint32_t i = 0; i < recovery->steps && error == DJ_OK; i++)
        error = fill(recovery, i);
    see_plans(recovery);
    return error;
}

enum dj_error recovery_plan(struct recovery *recovery, const struct recovery_options *options, recovery_has_leaf has_leaf,
                            void *context, struct recovery_sum *ret, struct fault *fault)
{
    recovery->planned_fault = (struct fault){0};
    recovery->options = options;
    recovery->has_leaf = has_leaf;
    recovery->context = context;
    recovery->fault = &recovery->planned_fault;
    recovery->is_trim = false;
    recovery->ignored_count = 0;
    recovery->sum = (struct recovery_sum){0};
    enum dj_error error = plan_steps(recovery);
    if (error != DJ_OK) {
        recovery->steps = 0;
        if (recovery->planned_fault.code != error)
            fault_set(&recovery->planned_fault, error, "%s", dj_error_text(error));
        if (fault != NULL)
            *fault = recovery->planned_fault;
        return error;
    }
    *ret = recovery->sum;
    return DJ_OK;
}

// Looking at them --------------------------------------------------------------------------------------------------------------

static enum dj_error show_replay(struct recovery *recovery, const struct planned *planned, struct recovery_step *ret)
{
    const struct known *record = &recovery->record[planned->record];
    enum dj_error error = recovery_words(recovery, planned->record, &ret->word);
    if (error != DJ_OK)
        return error;
    assert(ret->word != NULL);    // it was decoded before
    const struct known_plan *plan = &recovery->plan[record->plan];
    ret->plan = plan->fingerprint;
    ret->words = plan->plan->words;
    ret->cost_ns = record->cost_ns;
    ret->keep = planned->keep;
    ret->keep_bytes = planned->keep_bytes;
    ret->donate = planned->donate;
    ret->donate_bytes = planned->donate_bytes;
    return DJ_OK;
}

static void show_value(const struct recovery *recovery, const struct planned *planned, struct recovery_step *ret)
{
    static const uint8_t none[1] = {0};
    const struct value *value = planned->value;
    const struct checkpoint *checkpoint = value->checkpoint;
    ret->output = value->ref.output;
    switch ((enum way)value->way) {
    case WAY_FETCH: ret->from = value->from; break;
    case WAY_COPY:
        ret->meta = *value->meta;
        ret->source = recovery->record[planned->record].source;
        break;
    case WAY_FACT:
        ret->meta = *value->meta;
        ret->fact = value->fact_bytes == 0 ? none : value->fact;
        ret->fact_bytes = value->fact_bytes;
        break;
    default:
        ret->meta = checkpoint->meta;
        ret->dim = checkpoint->dim;
        ret->pieces = checkpoint->pieces;
        ret->piece = checkpoint->piece;
        ret->piece_bytes = checkpoint->piece_bytes;
        ret->fact = checkpoint->pieces == 0 ? none : NULL;    // nothing to put together: no bytes at all
        break;
    }
}

const struct recovery_step *recovery_step_at(struct recovery *recovery, uint32_t index)
{
    assert(index < recovery->steps);
    const struct planned *planned = &recovery->step[index];
    struct recovery_step step = {.kind = planned->kind,
                                 .counter = planned->counter,
                                 .part = planned->part,
                                 .released = planned->released,
                                 .releases = planned->releases};
    if (planned->kind != STEP_REPLAY)
        show_value(recovery, planned, &step);
    else if (show_replay(recovery, planned, &step) != DJ_OK)
        return NULL;
    recovery->shown = step;
    return &recovery->shown;
}
