// Trim: what no live handle reaches goes. The walk is a recovery's, with everything lost but what the store has.
//
// A record that stays while one of the two records that its delta refers to goes is written anew, standing alone. A vector is found by its
// counter alone, so what was coded against the record decodes as before: a chain is mended at its first two records, and the rest of it
// stays as it is.
//
// Records to come build on the ends of chains, and on what was before those: the last two of each stay too. Which chains have ended for
// good nobody says, so the latest ends of each plan count as open; what a trim itself makes an end of is among them, hence the generous
// bound.

#include "core/lineage/recovery_internal.h"

#include "core/base/assert.h"

#include <string.h>

static void mark_kept(struct recovery *recovery)
{
    for (uint32_t i = 0; i < recovery->records; i++)
        recovery->record[i].is_kept = recovery->record[i].is_pinned;
    for (const struct value *value = recovery->made; value != NULL; value = value->next_made) {
        if (value->way != WAY_RESTORE && value->record != RECOVERY_NONE)
            recovery->record[value->record].is_kept = true;
    }
}

static bool stays(const struct recovery *recovery, uint32_t index)
{
    return recovery->record[index].is_kept && recovery->record[index].state == KNOWN_DECODED;
}

static bool must_stand_alone(const struct recovery *recovery, const struct known *record)
{
    if (record->stands_alone || record->state != KNOWN_DECODED)
        return false;
    return !stays(recovery, record->prev) || (record->before != RECOVERY_NONE && !stays(recovery, record->before));
}

static enum dj_error rewrite(struct recovery *recovery, uint32_t index, struct writer *delta, struct writer *writer)
{
    const struct known *record = &recovery->record[index];
    const int64_t *word = NULL;
    enum dj_error error = recovery_words(recovery, index, &word);
    if (error != DJ_OK)
        return error;
    assert(word != NULL);    // it decoded in the walk
    struct binding_history history;
    history_init(&history, recovery->plan[record->plan].plan->words);
    writer_reset(delta);
    writer_reset(writer);
    bindings_encode(&history, word, delta);
    error = recovery_parse(recovery, index);
    if (error != DJ_OK || delta->error != DJ_OK)
        return error != DJ_OK ? error : delta->error;
    struct record_execution *execution = &recovery->parsed->execution;
    execution->base = execution->before = 0;
    execution->delta = delta->data;
    execution->delta_length = (uint32_t)delta->length;
    record_write(writer, recovery->parsed);
    return writer->error;
}

static enum dj_error visit_records(struct recovery *recovery, recovery_trim_visit visit, void *context, struct writer *delta,
                                   struct writer *writer)
{
    enum dj_error error = DJ_OK;
    for (uint32_t i = 0; i < recovery->records && error == DJ_OK; i++) {
        const struct known *record = &recovery->record[i];
        if (!record->is_kept) {
            error = recovery_parse(recovery, i);
            if (error == DJ_OK)
                error = visit(context, recovery->parsed, NULL, 0);
            continue;
        }
        if (!must_stand_alone(recovery, record))
            continue;
        error = rewrite(recovery, i, delta, writer);
        if (error == DJ_OK)
            error = visit(context, recovery->parsed, writer->data, writer->length);
    }
    return error;
}

static enum dj_error visit_checkpoints(struct recovery *recovery, recovery_trim_visit visit, void *context)
{
    enum dj_error error = DJ_OK;
    for (const struct value *value = recovery->first_value; value != NULL && error == DJ_OK; value = value->next) {
        const struct checkpoint *checkpoint = value->checkpoint;
        if (checkpoint == NULL || value->way != WAY_NONE)
            continue;
        struct record *record = recovery->parsed;
        record->kind = RECORD_CHECKPOINT;
        record->checkpoint = (struct record_checkpoint){
            .handle = {.execution = {.session = recovery->session, .counter = value->ref.counter}, .output = value->ref.output},
            .meta = checkpoint->meta,
            .dim = checkpoint->dim,
            .is_replica = checkpoint->is_replica,
            .pieces = checkpoint->pieces,
            .piece = checkpoint->piece,
            .piece_bytes = checkpoint->piece_bytes};
        error = visit(context, record, NULL, 0);
    }
    return error;
}

enum dj_error recovery_keep(struct recovery *recovery, uint64_t counter)
{
    uint32_t index = recovery_record_find(recovery, counter, RECOVERY_NONE);
    if (index != RECOVERY_NONE)
        recovery->record[index].is_pinned = true;
    return DJ_OK;
}

// With what is decoded here, or was in the walk, every record that is kept can be written anew.
static enum dj_error keep_ends(struct recovery *recovery)
{
    const int64_t *word = NULL;
    for (uint32_t i = 0; i < recovery->records; i++)
        recovery->record[i].has_next = false;
    for (uint32_t i = 0; i < recovery->records; i++) {
        const struct known *record = &recovery->record[i];
        if (record->prev == RECOVERY_NONE)
            continue;    // a record that comes later may be between this and what it names
        recovery->record[record->prev].has_next = true;
        if (record->before != RECOVERY_NONE)
            recovery->record[record->before].has_next = true;
    }
    for (uint32_t i = 0; i < recovery->known_plans; i++)
        recovery->plan[i].ends = 0;
    for (uint32_t i = recovery->records; i-- > 0;) {
        struct known *record = &recovery->record[i];
        bool is_end = record->plan != RECOVERY_NONE && !record->has_next && recovery->plan[record->plan].ends < RECOVERY_ENDS_MAX;
        if (record->kind != RECORD_EXECUTION || !(is_end || record->is_pinned))
            continue;
        enum dj_error error = recovery_words(recovery, i, &word);
        if (error != DJ_OK)
            return error;
        if (!is_end || record->state != KNOWN_DECODED)
            continue;
        recovery->plan[record->plan].ends++;
        record->is_kept = true;
        if (record->prev != RECOVERY_NONE)
            recovery->record[record->prev].is_kept = true;
    }
    return DJ_OK;
}

enum dj_error recovery_trim(struct recovery *recovery, recovery_trim_visit visit, void *context)
{
    recovery->is_trim = true;
    recovery->fault = NULL;
    enum dj_error error = recovery_walk(recovery);
    recovery->is_trim = false;
    if (error != DJ_OK)
        return error;
    mark_kept(recovery);
    error = keep_ends(recovery);
    if (error != DJ_OK)
        return error;
    struct writer delta = writer_make(RECORD_DELTA_BYTES_MAX), writer = writer_make(RECORD_BYTES_MAX + RECORD_DELTA_BYTES_MAX);
    error = visit_records(recovery, visit, context, &delta, &writer);
    if (error == DJ_OK)
        error = visit_checkpoints(recovery, visit, context);
    writer_free(&delta);
    writer_free(&writer);
    return error;
}
