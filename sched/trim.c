// Trim: when a session has many records more than at its last trim, or gets a checkpoint, what no live handle reaches any more is deleted
// from the store (core/lineage/recovery.h plans it, on another thread), in small batches. A named session keeps all its records, so that it
// can be resumed.
//
// Records keep coming while a trim reads. So what is live is taken before the first page is read, and those that came since stay, whatever
// reaches them: their inputs were live then, or came since too, since nobody gives a value back before all that uses it was told (a client
// an import's source, a worker what ran before a release).
//
// A session that an earlier life of the head knew may have live values that nobody has told of yet (a worker died with that head, and the
// client has not asked). For such a session everything counts as live that was made and not ended as far as its stored records say.

#include <stdlib.h>
#include <string.h>

#include "core/base/bits.h"
#include "core/base/log.h"
#include "core/base/planted.h"
#include "core/lineage/recovery.h"
#include "sched/state.h"

enum { TRIM_RECORDS = 4096, TRIM_RECORDS_CHECKPOINTED = 512, TRIM_BATCH = 1024, FRESH_MAX = 1 << 18 };

struct trim_fresh {
    uint64_t *counter;
    uint32_t count, capacity;
    bool is_too_many;    // the trim is given up
};

struct trim {
    struct list list;
    uint64_t session, records, deleted, rewritten;
    bool is_stored, is_computing;
    struct gather *gather;
    struct lineage_view *live;
    struct trim_fresh fresh;
    struct store_batch **batch;    // made by the computation
    uint32_t batches, next_batch;
    enum dj_error error;
};

static void trim_free(struct trim *trim)
{
    if (trim->is_computing)
        return;
    for (uint32_t i = trim->next_batch; i < trim->batches; i++)
        batch_free(trim->batch[i]);
    list_remove(&trim->list);
    gather_free(trim->gather);
    free(trim->fresh.counter);
    free(trim->batch);
    free(trim->live);
    free(trim);
}

void trim_abandon(struct trim *trim)
{
    trim->is_computing = false;
}

void trim_note(struct head_session *session, uint64_t counter)
{
    struct trim_fresh *fresh = session == NULL ? NULL : session->fresh;

    if (fresh == NULL || fresh->is_too_many)
        return;
    if (fresh->count == fresh->capacity) {
        uint32_t capacity = fresh->capacity == 0 ? 256 : fresh->capacity * 2;
        uint64_t *grown = capacity > FRESH_MAX ? NULL : realloc(fresh->counter, capacity * sizeof *grown);
        if (grown == NULL) {
            fresh->is_too_many = true;
            return;
        }
        fresh->counter = grown;
        fresh->capacity = capacity;
    }
    fresh->counter[fresh->count++] = counter;
}

void trim_forget(struct head_session *session)
{
    session->fresh = NULL;    // it is the trim's
}

static void over(struct head *head, struct trim *trim)
{
    struct head_session *session = map_get(head->sessions, map_key(trim->session));

    if (session != NULL) {
        session->fresh = NULL;
        session->is_trimming = false;
    }
    trim_free(trim);
}

// Planning (on another thread) ----------------------------------------------------------------------------------------------------

// The rewritten records are the first batch, whole: they decode against each other, and only then may what they referred to before go.
static struct store_batch *batch_for(struct trim *trim, enum store_verb verb)
{
    if (trim->batches > 0 && verb == STORE_PUT)
        return trim->batch[0];
    if (trim->batches > 1 && trim->batch[trim->batches - 1]->items < TRIM_BATCH)
        return trim->batch[trim->batches - 1];
    struct store_batch **grown = realloc(trim->batch, ((size_t)trim->batches + 1) * sizeof *grown);
    if (grown == NULL)
        return NULL;
    trim->batch = grown;
    if ((grown[trim->batches] = batch_make()) == NULL)
        return NULL;
    trim->batches++;
    return trim->batches == 1 ? batch_for(trim, verb) : grown[trim->batches - 1];
}

static struct store_item *add_item(struct trim *trim, enum store_verb verb, const struct record *record)
{
    struct store_batch *batch = batch_for(trim, verb);
    uint8_t key[RECORD_KEY_MAX];
    enum store_table table = record->kind == RECORD_CHECKPOINT ? STORE_CHECKPOINT : STORE_EXECUTION;

    return batch == NULL ? NULL : batch_add(batch, verb, table, key, record_key(record, key));
}

static uint64_t counter_of(const struct record *record)
{
    switch (record->kind) {
    case RECORD_EXECUTION: return record->execution.id.counter;
    case RECORD_IMPORT: return record->import.id.counter;
    case RECORD_CHECKPOINT: return record->checkpoint.handle.execution.counter;
    default: return 0;
    }
}

static int counter_order(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;
    return *x < *y ? -1 : *x > *y;
}

static bool has(const uint64_t *list, uint32_t count, uint64_t counter)
{
    return count > 0 && bsearch(&counter, list, count, sizeof counter, counter_order) != NULL;
}

static enum dj_error visit(void *context, const struct record *record, const uint8_t *bytes, size_t length)
{
    struct trim *trim = context;
    // A checkpoint of a value that has just been made: who made it may not have been read.
    bool is_fresh = record->kind == RECORD_CHECKPOINT && has(trim->fresh.counter, trim->fresh.count, counter_of(record));

    if (bytes == NULL && is_fresh)
        return DJ_OK;
    struct store_item *item = add_item(trim, bytes == NULL ? STORE_DELETE : STORE_PUT, record);
    if (item == NULL)
        return DJ_E_NO_MEMORY;
    if (bytes == NULL) {
        trim->deleted++;
        return DJ_OK;
    }
    item->value = blob_copy(bytes, length);
    item->value_bytes = length;
    trim->rewritten++;
    return item->value == NULL ? DJ_E_NO_MEMORY : DJ_OK;
}

static enum dj_error keep_all(struct recovery *recovery, const uint64_t *counter, uint32_t count)
{
    enum dj_error error = DJ_OK;
    for (uint32_t i = 0; i < count && error == DJ_OK; i++)
        error = recovery_keep(recovery, counter[i]);
    return error;
}

static int ref_order(const void *a, const void *b)
{
    const struct record_ref *x = a, *y = b;
    if (x->counter != y->counter)
        return x->counter < y->counter ? -1 : 1;
    return x->output < y->output ? -1 : x->output > y->output;
}

struct refs {
    struct record_ref *ref;
    size_t count, capacity;
};

static bool push(struct refs *refs, struct record_ref ref)
{
    if (refs->count == refs->capacity) {
        size_t capacity = refs->capacity == 0 ? 1024 : refs->capacity * 2;
        struct record_ref *grown = realloc(refs->ref, capacity * sizeof *grown);
        if (grown == NULL)
            return false;
        refs->ref = grown;
        refs->capacity = capacity;
    }
    refs->ref[refs->count++] = ref;
    return true;
}

static bool note_made(const struct record *record, struct refs *made, struct refs *ended)
{
    bool is_ok = true;

    if (record->kind == RECORD_IMPORT)
        return push(made, (struct record_ref){.counter = record->import.id.counter, .output = record->import.output});
    if (record->kind != RECORD_EXECUTION)
        return true;
    for (uint32_t bit = 0; bit < record->execution.keep.bytes * 8 && is_ok; bit++)
        if (bit_get(record->execution.keep.bits, bit))
            is_ok = push(made, (struct record_ref){.counter = record->execution.id.counter, .output = bit});
    struct record_refs gone = record_refs_open(record->execution.gone, record->execution.gone_bytes,
                                               record->execution.id.counter);
    for (struct record_ref ref; is_ok && record_refs_next(&gone, &ref);)
        is_ok = push(ended, ref);
    return is_ok;
}

// What was made and not ended, by the stored records alone: more than is live, never less.
static enum dj_error need_stored(struct trim *trim, struct refs *live, struct record_scratch *scratch, struct record *record)
{
    struct refs made = {0}, ended = {0};
    struct gather_cursor cursor = {0};
    struct record_ref key;
    const struct blob *value;
    bool is_ok = true;

    while (is_ok && gather_next(trim->gather, &cursor, &key, &value)) {
        struct reader reader = reader_make(value->data, value->bytes);
        if (key.output == UINT32_MAX && record_read(&reader, scratch, record) == DJ_OK)
            is_ok = note_made(record, &made, &ended);
    }
    if (ended.count > 0)
        qsort(ended.ref, ended.count, sizeof ended.ref[0], ref_order);
    for (size_t i = 0; i < made.count && is_ok; i++)
        if (ended.count == 0 || bsearch(&made.ref[i], ended.ref, ended.count, sizeof ended.ref[0], ref_order) == NULL)
            is_ok = push(live, made.ref[i]);
    free(made.ref);
    free(ended.ref);
    return is_ok ? DJ_OK : DJ_E_NO_MEMORY;
}

static enum dj_error need_live(struct trim *trim, struct recovery *recovery, struct record_scratch *scratch,
                               struct record *record)
{
    struct refs live = {0};
    enum dj_error error = DJ_OK;

    for (uint32_t i = PLANTED(TRIM_LIVE) && trim->live->values > 2; i < trim->live->values && error == DJ_OK; i++)
        error = push(&live, trim->live->value[i].ref) ? DJ_OK : DJ_E_NO_MEMORY;
    if (error == DJ_OK && trim->is_stored)
        error = need_stored(trim, &live, scratch, record);
    if (live.count > 0)
        qsort(live.ref, live.count, sizeof live.ref[0], ref_order);
    for (size_t i = 0; i < live.count && error == DJ_OK; i++)
        if (i == 0 || ref_order(&live.ref[i], &live.ref[i - 1]) != 0)
            error = recovery_need(recovery, live.ref[i]);
    free(live.ref);
    return error;
}

static void *plan(void *input)
{
    struct trim *trim = input;
    struct recovery *recovery = NULL;
    struct record_scratch scratch = {0};
    struct record *record = malloc(sizeof *record);

    trim->error = record == NULL ? DJ_E_NO_MEMORY : record_scratch_make(&scratch);
    if (trim->error == DJ_OK)
        trim->error = recovery_make(trim->session, &recovery);
    if (trim->error == DJ_OK)
        trim->error = gather_feed(trim->gather, recovery);
    if (trim->error == DJ_OK)
        trim->error = need_live(trim, recovery, &scratch, record);
    if (trim->error == DJ_OK)
        trim->error = keep_all(recovery, trim->fresh.counter, trim->fresh.count);
    if (trim->error == DJ_OK)
        trim->error = recovery_trim(recovery, visit, trim);
    recovery_free(recovery);
    record_scratch_free(&scratch);
    free(record);
    return trim;
}

// Doing -------------------------------------------------------------------------------------------------------------------------------

static void commit_next(struct head *head, struct trim *trim)
{
    if (trim->next_batch == trim->batches) {
        struct head_session *session = map_get(head->sessions, map_key(trim->session));
        head->stats.trims++;
        head->stats.trimmed += trim->deleted;
        head->stats.rewritten += trim->rewritten;
        head->records_stored -= trim->deleted < head->records_stored ? trim->deleted : head->records_stored;
        if (session != NULL)
            session->records -= trim->deleted < session->records ? trim->deleted : session->records;
        log_write(LOG_DEBUG, "head", "trimmed session=%llx deleted=%llu rewritten=%llu of=%llu",
                  (unsigned long long)trim->session, (unsigned long long)trim->deleted, (unsigned long long)trim->rewritten,
                  (unsigned long long)trim->records);
        over(head, trim);
        return;
    }
    struct store_batch *batch = trim->batch[trim->next_batch++];
    if (batch->items == 0) {
        batch_free(batch);
        commit_next(head, trim);
        return;
    }
    struct head_ticket *ticket = head_ticket(head, actor_store_commit(head->self, batch), TICKET_TRIM_COMMIT);
    if (ticket != NULL)
        ticket->job = trim;
}

void trim_committed(struct head *head, struct trim *trim, enum dj_error error)
{
    struct head_session *session = map_get(head->sessions, map_key(trim->session));

    if (error != DJ_OK || session == NULL || session->recoveries > 0)
        over(head, trim);    // what was done is whole; the rest is found again by the next one
    else
        commit_next(head, trim);
}

void trim_planned(struct head *head, struct trim *trim)
{
    struct head_session *session = map_get(head->sessions, map_key(trim->session));

    trim->is_computing = false;
    if (trim->error != DJ_OK)
        log_write(LOG_WARN, "head", "a session cannot be trimmed session=%llx: %s", (unsigned long long)trim->session,
                  dj_error_text(trim->error));
    bool may_go_on = trim->error == DJ_OK && session != NULL && session->recoveries == 0 && !trim->fresh.is_too_many &&
                     session->is_trimming;
    if (may_go_on)
        commit_next(head, trim);
    else
        over(head, trim);
}

static void gathered(struct head *head, struct gather *gather, void *context, enum dj_error error, const struct fault *fault)
{
    struct trim *trim = context;
    struct head_session *session = map_get(head->sessions, map_key(trim->session));

    (void)fault;
    if (error != DJ_OK || session == NULL || session->recoveries > 0 || trim->fresh.is_too_many) {
        over(head, trim);
        return;
    }
    // From here on nothing that comes can be in what was read.
    session->fresh = NULL;
    session->is_trimming = true;
    trim->records = gather_records(gather);
    if (trim->fresh.count > 0)
        qsort(trim->fresh.counter, trim->fresh.count, sizeof trim->fresh.counter[0], counter_order);
    struct head_ticket *ticket = head_ticket(head, actor_compute(head->self, plan, trim), TICKET_TRIM);
    trim->is_computing = true;
    if (ticket != NULL)
        ticket->job = trim;
}

void trim_consider(struct head *head, struct head_session *session)
{
    uint64_t enough = session->has_checkpoint ? TRIM_RECORDS_CHECKPOINTED : TRIM_RECORDS;
    if (head->config.trim_records != 0)
        enough = head->config.trim_records;

    if (session->is_trimming || session->recoveries > 0 || session->since_trim < enough || !head->is_settled ||
        session->name[0] != '\0')
        return;
    struct trim *trim = calloc(1, sizeof *trim);
    if (trim == NULL)
        return;
    trim->session = session->id;
    trim->is_stored = session->is_stored;
    trim->live = lineage_view(head, session);
    list_push(&head->trims, &trim->list);
    session->fresh = &trim->fresh;
    session->is_trimming = true;
    session->has_checkpoint = false;
    session->since_trim = 0;
    if (trim->live == NULL || !gather_begin(head, session->id, gathered, trim, &trim->gather))
        over(head, trim);
}

void trims_end(struct head *head)
{
    if (head->trims.next == NULL)
        return;
    list_each (node, &head->trims)
        trim_free(list_entry(node, struct trim, list));
}
