// Walk: from the latest record back, which values are needed and how each comes back. A value that is not at hand waits at its record
// until the walk is there: by then everything that uses it is known, since a value is used by later executions only.

#include "core/lineage/recovery_internal.h"

#include "core/base/assert.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

const char *recovery_why_text(uint8_t why)
{
    switch ((enum why)why) {
    case WHY_NOT: break;
    case WHY_NO_RECORD: return "there is no record of what made it";
    case WHY_NO_PLAN: return "the plan of its execution is missing";
    case WHY_PLAN_BAD: return "the plan of its execution is damaged";
    case WHY_NO_BASE: return "the records that its bindings build on are missing";
    case WHY_BROKEN: return "a record that its bindings build on is damaged";
    case WHY_CHECK: return "the bindings of its execution do not match their check";
    case WHY_TANGLED: return "its bindings build on too many chains of records";
    case WHY_INPUT: return "its execution's record names an input that cannot be";
    case WHY_OUTPUT: return "its execution has no such output";
    case WHY_IMPORT: return "its record names a source that cannot be";
    case WHY_NUMERICS: return "it was computed in another numerics class, and the session does not allow close results";
    case WHY_SHAPE: return "nothing says of what shape it is";
    }
    return "nothing brings it back";
}

static void name_of(const struct recovery *recovery, struct record_ref ref, char text[HANDLE_TEXT])
{
    struct handle handle = {.execution = {.session = recovery->session, .counter = ref.counter}, .output = ref.output};
    handle_text(handle, text);
}

// From the missing value up to what the caller asked for.
static enum dj_error cannot(struct recovery *recovery, struct value *missing, enum why why)
{
    if (recovery->is_trim) {
        missing->way = WAY_LOST;
        return DJ_OK;
    }
    const struct value *needed = missing;
    while (needed->by != RECOVERY_NONE && recovery->record[needed->by].because != NULL)
        needed = recovery->record[needed->by].because;
    char text[HANDLE_TEXT], ancestor[HANDLE_TEXT];
    name_of(recovery, needed->ref, text);
    name_of(recovery, missing->ref, ancestor);
    if (needed == missing)
        return fault_set(recovery->fault, DJ_E_LINEAGE,
                         "the value %s cannot be brought back: no worker and no checkpoint has it, and %s", text,
                         recovery_why_text((uint8_t)why));
    return fault_set(recovery->fault, DJ_E_LINEAGE,
                     "the value %s cannot be brought back: it was made from %s, which no worker and no checkpoint has, and %s",
                     text, ancestor, recovery_why_text((uint8_t)why));
}

static bool is_ignored(const struct recovery *recovery, uint64_t incarnation)
{
    for (uint32_t i = 0; i < recovery->ignored_count; i++) {
        if (recovery->ignored[i] == incarnation)
            return true;
    }
    return false;
}

// The first location by the order in which they were added, the target before all.
static enum way find_location(const struct recovery *recovery, struct value *value)
{
    enum way way = WAY_NONE;
    for (const struct location *at = value->location; at != NULL; at = at->next) {
        if (is_ignored(recovery, at->incarnation))
            continue;
        if (at->incarnation == recovery->options->target)
            return WAY_HELD;
        if (way == WAY_NONE)
            value->from = at->incarnation;
        way = WAY_FETCH;
    }
    return way;
}

static bool has_pieces(const struct recovery *recovery, const struct checkpoint *checkpoint)
{
    if (checkpoint == NULL || (checkpoint->is_replica && (recovery->is_trim || recovery->has_leaf == NULL)))
        return false;
    struct reader reader = reader_make(checkpoint->piece, checkpoint->piece_bytes);
    for (uint32_t i = 0; checkpoint->is_replica && i < checkpoint->pieces; i++) {
        if (!recovery->has_leaf(recovery->context, record_piece_read(&reader).content))
            return false;
    }
    return true;
}

static enum dj_error demand(struct recovery *recovery, struct value *value, uint32_t by)
{
    if (value->way != WAY_NONE)
        return DJ_OK;
    value->by = by;
    value->way = recovery->is_trim ? WAY_NONE : (uint8_t)find_location(recovery, value);
    if (value->way == WAY_HELD)
        return DJ_OK;
    if (value->way == WAY_NONE && has_pieces(recovery, value->checkpoint))
        value->way = WAY_RESTORE;
    value->next_made = recovery->made;
    recovery->made = value;
    if (value->way != WAY_NONE)
        return DJ_OK;
    value->record = recovery_record_find(recovery, value->ref.counter, by == RECOVERY_NONE ? recovery->records - 1 : by);
    if (value->record == RECOVERY_NONE)
        return cannot(recovery, value, WHY_NO_RECORD);
    value->way = WAY_RECORD;
    value->next_wanted = recovery->record[value->record].wanted;
    recovery->record[value->record].wanted = value;
    return DJ_OK;
}

static enum dj_error walk_import(struct recovery *recovery, uint32_t index)
{
    struct known *record = &recovery->record[index];
    enum dj_error error = DJ_OK;
    for (struct value *value = record->wanted; value != NULL && error == DJ_OK; value = value->next_wanted) {
        struct value *source = NULL;
        if (record->state == KNOWN_BAD || value->ref.output != record->output) {
            error = cannot(recovery, value, record->state == KNOWN_BAD ? record->why : WHY_OUTPUT);
            continue;
        }
        value->way = WAY_COPY;
        record->because = value;
        error = recovery_value(recovery, record->source, &source);
        if (error == DJ_OK)
            error = demand(recovery, source, index);
    }
    return error;
}

// Recorded bytes lie in the record's own copy, which stays.
static bool find_fact(const struct record_execution *record, struct value *value)
{
    for (uint32_t i = 0; i < record->answers; i++) {
        if (record->answer[i].output != value->ref.output)
            continue;
        value->way = WAY_FACT;
        value->fact = record->answer[i].bytes;
        value->fact_bytes = record->answer[i].length;
        return true;
    }
    return false;
}

static enum dj_error demand_inputs(struct recovery *recovery, uint32_t index)
{
    struct known *record = &recovery->record[index];
    enum dj_error error = DJ_OK;
    for (uint32_t i = 0; i < record->inputs && error == DJ_OK; i++) {
        struct input *input = &record->input[i];
        if (input->value == NULL)
            error = recovery_value(recovery, (struct record_ref){.counter = input->counter, .output = input->output},
                                   &input->value);
        if (error == DJ_OK)
            error = demand(recovery, input->value, index);
    }
    return error;
}

// Makes `record` ready, or says of its first output that is wanted why it cannot be.
static enum dj_error ready(struct recovery *recovery, uint32_t index, enum why *ret)
{
    struct known *record = &recovery->record[index];
    enum dj_error error = DJ_OK;
    const int64_t *word = NULL;
    *ret = WHY_NOT;
    if (record->state == KNOWN_RAW)
        error = recovery_words(recovery, index, &word);
    if (error == DJ_OK && record->state != KNOWN_DECODED)
        *ret = record->why;
    if (error == DJ_OK && record->has_answers)
        error = recovery_parse(recovery, index);
    return error;
}

static enum dj_error walk_execution(struct recovery *recovery, uint32_t index)
{
    struct known *record = &recovery->record[index];
    enum why why;
    enum dj_error error = ready(recovery, index, &why);
    for (struct value *value = record->wanted; value != NULL && error == DJ_OK; value = value->next_wanted) {
        enum why not = why;
        if (not == WHY_NOT && value->ref.output >= recovery->plan[record->plan].plan->outputs)
            not = WHY_OUTPUT;
        if (not == WHY_NOT && record->has_answers && find_fact(&recovery->parsed->execution, value))
            continue;
        if (not == WHY_NOT && !recovery->is_trim && !recovery->options->allows_close &&
            record->numerics != recovery->options->numerics)
            not = WHY_NUMERICS;
        if (not != WHY_NOT) {
            error = cannot(recovery, value, not );
            continue;
        }
        value->way = WAY_REPLAY;
        if (!record->is_replayed)
            record->because = value;
        record->is_replayed = true;
    }
    return error == DJ_OK && record->is_replayed ? demand_inputs(recovery, index) : error;
}

static void forget_last_walk(struct recovery *recovery)
{
    for (struct value *value = recovery->first_value; value != NULL; value = value->next) {
        value->way = WAY_NONE;
        value->next_wanted = value->next_made = NULL;
        value->record = value->by = RECOVERY_NONE;
        value->last_use = value->ended = 0;
        value->meta = NULL;
    }
    for (uint32_t i = 0; i < recovery->records; i++) {
        recovery->record[i].wanted = recovery->record[i].because = NULL;
        recovery->record[i].is_replayed = false;
    }
    recovery->made = NULL;
}

enum dj_error recovery_walk(struct recovery *recovery)
{
    enum dj_error error = DJ_OK;
    forget_last_walk(recovery);
    for (struct value *value = recovery->first_value; value != NULL && error == DJ_OK; value = value->next) {
        if (value->is_needed)
            error = demand(recovery, value, RECOVERY_NONE);
    }
    for (uint32_t i = recovery->records; i-- > 0 && error == DJ_OK;) {
        if (recovery->record[i].wanted == NULL)
            continue;
        error = recovery->record[i].kind == RECORD_IMPORT ? walk_import(recovery, i) : walk_execution(recovery, i);
    }
    return error;
}
