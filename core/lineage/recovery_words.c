// Words: binding vectors out of records. A record's delta refers to its base's vector and the one before that, so a chain is decoded from
// its start; a cursor stays where it got to, and whoever asks in the order of counters pays for each record once. A record names both
// vectors by their counters: the one before the base's is the cursor's own, normally; where the base's record stands alone (a client
// journalled it, or a trim wrote it anew), it comes from the chain that has it. The check of each record is the verdict.
//
// What was found is remembered: a record is checked once, and its handle inputs are taken out then.

#include "core/lineage/recovery_internal.h"

#include "core/base/assert.h"

#include <stdlib.h>
#include <string.h>

// Plans ------------------------------------------------------------------------------------------------------------------------

static enum dj_error room_for(struct recovery *recovery, const struct srg_plan *plan)
{
    if (plan->words >= recovery->words) {
        int64_t *word = realloc(recovery->word, (plan->words + 1) * sizeof *word);
        if (word == NULL)
            return DJ_E_NO_MEMORY;
        recovery->word = word;
        recovery->words = plan->words + 1;
    }
    if (plan->outputs >= recovery->outs) {
        struct tensor_meta *out = realloc(recovery->out, (plan->outputs + 1) * sizeof *out);
        if (out == NULL)
            return DJ_E_NO_MEMORY;
        recovery->out = out;
        recovery->outs = plan->outputs + 1;
    }
    return DJ_OK;
}

static enum dj_error list_handles(struct recovery *recovery, struct known_plan *plan)
{
    enum dj_error error = DJ_OK;
    plan->handle_inputs = 0;
    plan->handle_input = recovery_alloc(recovery, plan->plan->inputs * sizeof(uint32_t), &error);
    for (uint32_t i = 0; error == DJ_OK && i < plan->plan->inputs; i++) {
        if (!plan->plan->input[i].is_leaf)
            plan->handle_input[plan->handle_inputs++] = i;
    }
    return error;
}

enum dj_error recovery_structure(struct recovery *recovery, uint32_t index, const struct srg_plan **ret)
{
    struct known_plan *plan = &recovery->plan[index];
    if (plan->plan == NULL && !plan->is_bad) {
        struct srg_plan *decoded = NULL;
        enum dj_error error = plan_decode(plan->bytes, plan->length, &decoded, NULL);
        if (error == DJ_E_NO_MEMORY)
            return error;
        if (error != DJ_OK || !hash128_equal(decoded->fingerprint, plan->fingerprint)) {
            plan_drop(decoded);
            plan->is_bad = true;
        } else {
            plan->plan = decoded;
            error = room_for(recovery, decoded);
            if (error == DJ_OK)
                error = list_handles(recovery, plan);
            if (error != DJ_OK) {
                plan->plan = NULL;
                plan_drop(decoded);
                return error;
            }
        }
    }
    *ret = plan->plan;
    return DJ_OK;
}

// Cursors ----------------------------------------------------------------------------------------------------------------------

static void cursor_free(struct recovery *recovery, struct cursor *cursor)
{
    recovery->cursor_bytes -= 2 * sizeof(int64_t) * (uint64_t)cursor->history.words;
    recovery->record[cursor->root].cursor = NULL;
    history_free(&cursor->history);
    list_remove(&cursor->used);
    free(cursor);
}

void recovery_cursors_free(struct recovery *recovery)
{
    list_each (node, &recovery->cursors)
        cursor_free(recovery, list_entry(node, struct cursor, used));
}

static enum dj_error cursor_open(struct recovery *recovery, uint32_t root, uint32_t words, struct cursor **ret)
{
    struct cursor *cursor = recovery->record[root].cursor;
    if (cursor == NULL) {
        cursor = calloc(1, sizeof *cursor);
        if (cursor == NULL)
            return DJ_E_NO_MEMORY;
        *cursor = (struct cursor){.root = root, .at = RECOVERY_NONE};
        history_init(&cursor->history, words);
        list_init(&cursor->used);
        recovery->record[root].cursor = cursor;
        recovery->cursor_bytes += 2 * sizeof(int64_t) * (uint64_t)words;
    }
    list_remove(&cursor->used);
    list_push(&recovery->cursors, &cursor->used);
    list_each (node, &recovery->cursors) {
        struct cursor *oldest = list_entry(node, struct cursor, used);
        if (recovery->cursor_bytes <= RECOVERY_CURSOR_BYTES || oldest == cursor)
            break;
        if (!oldest->is_busy)
            cursor_free(recovery, oldest);
    }
    *ret = cursor;
    return DJ_OK;
}

// Decoding ---------------------------------------------------------------------------------------------------------------------

static enum dj_error cursor_to(struct recovery *recovery, uint32_t index, struct cursor **ret);

// The history of a record whose base the cursor is at, as the record names it. It borrows its vectors: good until another cursor is opened.
// depth 0: there is none.
static enum dj_error history_of(struct recovery *recovery, struct cursor *cursor, const struct known *record,
                                struct binding_history *ret)
{
    *ret = cursor->history;
    if (record->prev == RECOVERY_NONE || record->before == recovery->record[record->prev].prev)
        return DJ_OK;
    ret->depth = 1;
    if (record->before == RECOVERY_NONE)
        return DJ_OK;
    struct cursor *other = NULL;
    cursor->is_busy = true;
    enum dj_error error = cursor_to(recovery, record->before, &other);
    cursor->is_busy = false;
    ret->depth = other == NULL ? 0 : 2;
    ret->before = other == NULL ? NULL : other->history.last;
    return error;
}

// Whether it decodes, into recovery->word. What was checked once is not checked again.
static enum dj_error decode(struct recovery *recovery, struct cursor *cursor, const struct known *record, bool *ret_fits)
{
    struct binding_history history;
    *ret_fits = false;
    enum dj_error error = history_of(recovery, cursor, record, &history);
    if (error != DJ_OK || (history.depth == 0 && !record->stands_alone))
        return error;
    struct reader reader = reader_make(record->delta, record->delta_length);
    if (bindings_decode(&history, &reader, recovery->word) != DJ_OK || reader_left(&reader) != 0)
        return DJ_OK;
    *ret_fits = record->state != KNOWN_RAW || record_words_check(recovery->word, history.words) == record->check;
    return DJ_OK;
}

static enum dj_error take_inputs(struct recovery *recovery, struct known *record)
{
    const struct known_plan *plan = &recovery->plan[record->plan];
    enum dj_error error = DJ_OK;
    struct input *input = recovery_alloc(recovery, plan->handle_inputs * sizeof *input, &error);
    if (input == NULL)
        return error;
    for (uint32_t i = 0; i < plan->handle_inputs; i++) {
        uint64_t distance;
        input[i].input = plan->handle_input[i];
        binding_handle(plan->plan, recovery->word, input[i].input, &distance, &input[i].output);
        if (distance == 0 || distance >= record->counter) {
            record->state = KNOWN_BAD;
            record->why = WHY_INPUT;
            return DJ_OK;
        }
        input[i].counter = record->counter - distance;
    }
    record->input = input;
    record->inputs = plan->handle_inputs;
    record->state = KNOWN_DECODED;
    return DJ_OK;
}

// One step of a cursor. Leaves the record bad if it does not decode.
static enum dj_error cursor_step(struct recovery *recovery, struct cursor *cursor, uint32_t index)
{
    struct known *record = &recovery->record[index];
    bool fits = false, is_new = record->state == KNOWN_RAW;
    enum dj_error error = decode(recovery, cursor, record, &fits);
    if (error != DJ_OK)
        return error;
    if (!fits) {
        record->state = KNOWN_BAD;
        record->why = WHY_CHECK;
        return DJ_OK;
    }
    // A record whose inputs make no sense can still be what the next one builds on.
    error = is_new ? take_inputs(recovery, record) : DJ_OK;
    if (error == DJ_OK)
        error = history_push(&cursor->history, recovery->word);
    if (error == DJ_OK)
        cursor->at = index;
    return error;
}

static bool is_dead_end(const struct known *record)
{
    return record->state == KNOWN_BAD && record->why != WHY_INPUT;
}

static void mark_broken(struct known *record)
{
    record->state = KNOWN_BAD;
    record->why = WHY_BROKEN;
}

// Moves a cursor on to `index`, or as far as the chain decodes; what is behind that is marked. The path is found backwards and gone
// forwards: its links are turned round meanwhile.
static enum dj_error cursor_move(struct recovery *recovery, struct cursor *cursor, uint32_t index)
{
    struct known *record = recovery->record;
    uint32_t at = index, next = RECOVERY_NONE;
    while (at != cursor->at && at != cursor->root && !is_dead_end(&record[at])) {
        uint32_t prev = record[at].prev;
        record[at].prev = next;
        next = at;
        at = prev;
    }
    bool is_dead = is_dead_end(&record[at]);
    enum dj_error error = DJ_OK;
    if (at != cursor->at && !is_dead) {
        history_reset(&cursor->history);
        cursor->at = RECOVERY_NONE;
        error = cursor_step(recovery, cursor, at);
    }
    while (next != RECOVERY_NONE) {
        uint32_t after = record[next].prev;
        record[next].prev = at;
        if (error == DJ_OK && !is_dead && cursor->at == at)
            error = cursor_step(recovery, cursor, next);
        else if (error == DJ_OK)
            mark_broken(&record[next]);
        at = next;
        next = after;
    }
    return error;
}

// *ret NULL: it does not decode, else the cursor's last vector is the record's.
static enum dj_error cursor_to(struct recovery *recovery, uint32_t index, struct cursor **ret)
{
    const struct srg_plan *plan = NULL;
    struct cursor *cursor = NULL;
    struct known *record = &recovery->record[index];
    *ret = NULL;
    if (record->kind != RECORD_EXECUTION || is_dead_end(record))
        return DJ_OK;
    enum dj_error error = recovery_structure(recovery, record->plan, &plan);
    if (error != DJ_OK)
        return error;
    if (plan == NULL) {
        record->state = KNOWN_BAD;
        record->why = WHY_PLAN_BAD;
        return DJ_OK;
    }
    error = cursor_open(recovery, record->root, plan->words, &cursor);
    assert(error != DJ_OK || !cursor->is_busy);    // chains ask for earlier ones only
    if (error == DJ_OK)
        error = cursor_move(recovery, cursor, index);
    if (error == DJ_OK && cursor->at == index)
        *ret = cursor;
    return error;
}

enum dj_error recovery_words(struct recovery *recovery, uint32_t index, const int64_t **ret)
{
    struct cursor *cursor = NULL;
    enum dj_error error = cursor_to(recovery, index, &cursor);
    *ret = cursor != NULL && recovery->record[index].state == KNOWN_DECODED ? cursor->history.last : NULL;
    return error;
}
