// Recovery: what is known. The manual is recovery.h; recovery_words.c decodes, recovery_walk.c marks, recovery_plan.c writes the steps.

#include "core/lineage/recovery_internal.h"

#include "core/base/assert.h"

#include <stdlib.h>
#include <string.h>

enum { CHUNK_BYTES = 1 << 20 };

enum dj_error recovery_make(uint64_t session, struct recovery **ret)
{
    struct recovery *recovery = calloc(1, sizeof *recovery);
    if (recovery == NULL)
        return DJ_E_NO_MEMORY;
    recovery->session = session;
    list_init(&recovery->cursors);
    recovery->parsed = calloc(1, sizeof *recovery->parsed);
    enum dj_error error = recovery->parsed == NULL ? DJ_E_NO_MEMORY : record_scratch_make(&recovery->scratch);
    if (error == DJ_OK)
        error = arena_make(CHUNK_BYTES, 0, &recovery->arena);
    if (error == DJ_OK)
        error = map_make(RECOVERY_PLANS_MAX, &recovery->plans);
    if (error == DJ_OK)
        error = map_make(RECOVERY_VALUES_MAX, &recovery->values);
    if (error != DJ_OK) {
        recovery_free(recovery);
        return error;
    }
    *ret = recovery;
    return DJ_OK;
}

void recovery_free(struct recovery *recovery)
{
    if (recovery == NULL)
        return;
    recovery_cursors_free(recovery);
    for (uint32_t i = 0; i < recovery->known_plans; i++) {
        plan_drop(recovery->plan[i].plan);
        history_free(&recovery->plan[i].history);
    }
    free(recovery->plan);
    free(recovery->record);
    free(recovery->word);
    free(recovery->out);
    free(recovery->ignored);
    free(recovery->step);
    free(recovery->parsed);
    record_scratch_free(&recovery->scratch);
    map_free(recovery->plans);
    map_free(recovery->values);
    arena_free(recovery->arena);
    free(recovery);
}

void *recovery_alloc(struct recovery *recovery, size_t bytes, enum dj_error *error)
{
    if (bytes > RECOVERY_BYTES_MAX - arena_used_bytes(recovery->arena)) {
        *error = DJ_E_LIMIT;
        return NULL;
    }
    void *block = arena_zero(recovery->arena, bytes == 0 ? 1 : bytes);
    if (block == NULL)
        *error = DJ_E_NO_MEMORY;
    return block;
}

static const uint8_t *copy(struct recovery *recovery, const void *from, size_t bytes, enum dj_error *error)
{
    uint8_t *block = recovery_alloc(recovery, bytes, error);
    if (block != NULL && bytes > 0)
        memcpy(block, from, bytes);
    return block;
}

// Values -----------------------------------------------------------------------------------------------------------------------

static struct hash128 value_key(struct record_ref ref)
{
    return (struct hash128){.hi = ref.output, .lo = ref.counter};
}

struct value *recovery_value_find(const struct recovery *recovery, struct record_ref ref)
{
    return map_get(recovery->values, value_key(ref));
}

enum dj_error recovery_value(struct recovery *recovery, struct record_ref ref, struct value **ret)
{
    struct value *value = recovery_value_find(recovery, ref);
    enum dj_error error = DJ_OK;
    if (value == NULL) {
        value = recovery_alloc(recovery, sizeof *value, &error);
        if (value == NULL)
            return error;
        value->ref = ref;
        value->record = value->by = RECOVERY_NONE;
        error = map_put(recovery->values, value_key(ref), value);
        if (error != DJ_OK)
            return error;
        value->next = recovery->first_value;
        recovery->first_value = value;
    }
    *ret = value;
    return DJ_OK;
}

enum dj_error recovery_add_location(struct recovery *recovery, struct record_ref handle, uint64_t incarnation)
{
    struct value *value = NULL;
    enum dj_error error = recovery_value(recovery, handle, &value);
    if (error != DJ_OK)
        return error;
    struct location **at = &value->location;
    for (; *at != NULL; at = &(*at)->next) {
        if ((*at)->incarnation == incarnation)
            return DJ_OK;
    }
    struct location *location = recovery_alloc(recovery, sizeof *location, &error);
    if (location == NULL)
        return error;
    location->incarnation = incarnation;
    *at = location;
    return DJ_OK;
}

enum dj_error recovery_need(struct recovery *recovery, struct record_ref handle)
{
    struct value *value = NULL;
    enum dj_error error = recovery_value(recovery, handle, &value);
    if (error == DJ_OK)
        value->is_needed = true;
    return error;
}

// Records ----------------------------------------------------------------------------------------------------------------------

// Counters are dense but for gaps: near the hint first.
uint32_t recovery_record_find(const struct recovery *recovery, uint64_t counter, uint32_t hint)
{
    const struct known *record = recovery->record;
    if (hint < recovery->records && counter <= record[hint].counter) {
        uint64_t back = record[hint].counter - counter;
        if (back <= hint && record[hint - back].counter == counter)
            return hint - (uint32_t)back;
    }
    uint32_t low = 0, high = recovery->records;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (record[middle].counter < counter)
            low = middle + 1;
        else
            high = middle;
    }
    return low < recovery->records && record[low].counter == counter ? low : RECOVERY_NONE;
}

enum dj_error recovery_parse(struct recovery *recovery, uint32_t index)
{
    struct reader reader = reader_make(recovery->record[index].bytes, recovery->record[index].length);
    return record_read(&reader, &recovery->scratch, recovery->parsed);
}

static enum dj_error add_plan(struct recovery *recovery, const struct record_plan *said)
{
    if (map_get(recovery->plans, said->fingerprint) != NULL)
        return DJ_OK;
    if (recovery->known_plans == RECOVERY_PLANS_MAX)
        return DJ_E_LIMIT;
    if (recovery->known_plans == recovery->plans_capacity) {
        uint32_t capacity = recovery->plans_capacity == 0 ? 16 : recovery->plans_capacity * 2;
        struct known_plan *plan = realloc(recovery->plan, capacity * sizeof *plan);
        if (plan == NULL)
            return DJ_E_NO_MEMORY;
        recovery->plan = plan;
        recovery->plans_capacity = capacity;
    }
    enum dj_error error = DJ_OK;
    struct known_plan plan = {
        .fingerprint = said->fingerprint, .bytes = copy(recovery, said->bytes, said->length, &error), .length = said->length};
    if (error == DJ_OK)    // the map's values are numbers from 1 on: the array moves
        error = map_put(recovery->plans, said->fingerprint, (void *)(uintptr_t)(recovery->known_plans + 1));
    if (error == DJ_OK)
        recovery->plan[recovery->known_plans++] = plan;
    return error;
}

static enum dj_error add_checkpoint(struct recovery *recovery, const struct record_checkpoint *said)
{
    if (said->handle.execution.session != recovery->session)
        return DJ_E_INVALID;
    struct value *value = NULL;
    struct record_ref ref = {.counter = said->handle.execution.counter, .output = said->handle.output};
    enum dj_error error = recovery_value(recovery, ref, &value);
    if (error != DJ_OK || (value->checkpoint != NULL && !value->checkpoint->is_replica))
        return error;
    struct checkpoint *checkpoint = recovery_alloc(recovery, sizeof *checkpoint, &error);
    if (checkpoint == NULL)
        return error;
    *checkpoint = (struct checkpoint){.meta = said->meta,
                                      .dim = said->dim,
                                      .pieces = said->pieces,
                                      .piece_bytes = said->piece_bytes,
                                      .is_replica = said->is_replica};
    checkpoint->piece = copy(recovery, said->piece, said->piece_bytes, &error);
    if (error == DJ_OK)
        value->checkpoint = checkpoint;
    return error;
}

// The next record, after checks of what both kinds have.
static enum dj_error next_record(struct recovery *recovery, struct exec_id id, const void *bytes, size_t length,
                                 struct known **ret)
{
    if (id.session != recovery->session ||
        (recovery->records > 0 && recovery->record[recovery->records - 1].counter >= id.counter))
        return DJ_E_INVALID;
    if (recovery->records == RECOVERY_RECORDS_MAX)
        return DJ_E_LIMIT;
    if (recovery->records == recovery->records_capacity) {
        uint32_t capacity = recovery->records_capacity == 0 ? 256 : recovery->records_capacity * 2;
        struct known *record = realloc(recovery->record, capacity * sizeof *record);
        if (record == NULL)
            return DJ_E_NO_MEMORY;
        recovery->record = record;
        recovery->records_capacity = capacity;
    }
    enum dj_error error = DJ_OK;
    struct known *record = &recovery->record[recovery->records];
    *record = (struct known){.counter = id.counter,
                             .bytes = copy(recovery, bytes, length, &error),
                             .length = (uint32_t)length,
                             .plan = RECOVERY_NONE,
                             .prev = RECOVERY_NONE,
                             .before = RECOVERY_NONE};
    *ret = record;
    return error;
}

static void mark_bad(struct known *record, enum why why)
{
    record->state = KNOWN_BAD;
    record->why = (uint8_t)why;
}

static bool is_of_plan(const struct recovery *recovery, uint32_t index, uint32_t plan)
{
    return index != RECOVERY_NONE && recovery->record[index].plan == plan && recovery->record[index].state != KNOWN_BAD;
}

// Finds the records whose vectors the delta refers to. Where the base's own record does not show what was before it (it stands alone),
// another chain gives that vector. Chains ask for others that start earlier only, so that it ends; how many, and how many records that
// makes, is bounded here and not where they are decoded.
static void find_history(const struct recovery *recovery, struct known *record, const struct record_execution *said)
{
    record->prev = recovery_record_find(recovery, said->base, recovery->records - 1);
    if (said->before != 0)
        record->before = recovery_record_find(recovery, said->before, recovery->records - 1);
    if (!is_of_plan(recovery, record->prev, record->plan) ||
        (said->before != 0 && !is_of_plan(recovery, record->before, record->plan))) {
        mark_bad(record, WHY_NO_BASE);
        return;
    }
    const struct known *base = &recovery->record[record->prev];
    record->root = base->root;
    record->effort = base->effort + 1;
    record->nest = base->nest;
    if (record->before == RECOVERY_NONE || record->before == base->prev)
        return;
    const struct known *before = &recovery->record[record->before];
    record->effort += before->effort;
    record->nest = before->nest + 1 > base->nest ? before->nest + 1 : base->nest;
    if (before->root >= base->root || record->nest > RECOVERY_NEST_MAX || record->effort > RECOVERY_EFFORT_MAX)
        mark_bad(record, WHY_TANGLED);
}

static enum dj_error add_execution(struct recovery *recovery, const struct record_execution *said, const void *bytes,
                                   size_t length)
{
    struct known *record = NULL;
    enum dj_error error = next_record(recovery, said->id, bytes, length, &record);
    if (error != DJ_OK)
        return error;
    uint32_t index = recovery->records++;
    record->kind = RECORD_EXECUTION;
    record->cost_ns = said->cost_ns;
    record->check = said->check;
    record->numerics = said->numerics;
    record->has_answers = said->answers > 0;
    record->stands_alone = said->base == 0;
    record->delta = said->delta_length == 0 ? record->bytes : record->bytes + (said->delta - (const uint8_t *)bytes);
    record->delta_length = said->delta_length;
    record->plan = (uint32_t)(uintptr_t)map_get(recovery->plans, said->plan) - 1;    // RECOVERY_NONE where there is none
    if (record->plan == RECOVERY_NONE) {
        mark_bad(record, WHY_NO_PLAN);
        return DJ_OK;
    }
    record->root = index;
    record->effort = 1;
    if (!record->stands_alone)
        find_history(recovery, record, said);
    return DJ_OK;
}

static enum dj_error add_import(struct recovery *recovery, const struct record_import *said, const void *bytes, size_t length)
{
    struct known *record = NULL;
    enum dj_error error = next_record(recovery, said->id, bytes, length, &record);
    if (error != DJ_OK)
        return error;
    recovery->records++;
    record->kind = RECORD_IMPORT;
    record->output = said->output;
    record->source = said->source;
    if (said->source.counter == 0 || said->source.counter >= said->id.counter)
        mark_bad(record, WHY_IMPORT);
    return DJ_OK;
}

enum dj_error recovery_add(struct recovery *recovery, const void *bytes, size_t length)
{
    struct reader reader = reader_make(bytes, length);
    struct record *record = recovery->parsed;
    if (length > RECORD_BYTES_MAX + RECORD_DELTA_BYTES_MAX)
        return DJ_E_LIMIT;
    if (record_read(&reader, &recovery->scratch, record) != DJ_OK || reader_left(&reader) != 0)
        return DJ_E_MALFORMED;
    switch (record->kind) {
    case RECORD_PLAN: return add_plan(recovery, &record->plan);
    case RECORD_EXECUTION: return add_execution(recovery, &record->execution, bytes, length);
    case RECORD_IMPORT: return add_import(recovery, &record->import, bytes, length);
    case RECORD_CHECKPOINT: return add_checkpoint(recovery, &record->checkpoint);
    case RECORD_LEAF:
    case RECORD_SESSION:
    case RECORD_WORKER:
    case RECORD_RELEASE:
    case RECORD_TAG: return DJ_OK;    // nothing that a recovery needs
    }
    return DJ_E_MALFORMED;
}
