// Journal: records from workers (or from a client after a failure) on their way into the store, in the order in which they came, inserted
// if absent. When they are durable the sender may forget them (JOURNAL_OK), and clients hear which executions are (WATERMARK).
//
// Idea: one batch is written at a time, and one waits and takes all that comes meanwhile. So what is durable is always a prefix of what was
// accepted, also when a write fails: it is then tried again, with nothing behind it, until the disk has room. Nothing is lost and no
// link is torn down for it; the head refuses new sessions meanwhile (head->is_full).
//
// A record whose ancestors were not told yet waits (held.c).

#include "sched/journal.h"

#include <stdlib.h>

#include "core/base/log.h"
#include "core/base/planted.h"

#define RETRY_FIRST_NS ((uint64_t)100000000)
#define RETRY_MAX_NS ((uint64_t)5000000000)

void journal_init(struct head *head)
{
    list_init(&head->journal.parts);
    list_init(&head->journal.held);
    head->journal.waiting.number = 1;
}

// Batches -----------------------------------------------------------------------------------------------------------------------

static void batch_clear(struct journal_batch *batch)
{
    batch_free(batch->batch);
    for (uint32_t i = 0; i < batch->marks; i++)
        free(batch->mark[i].counter);
    free(batch->mark);
    *batch = (struct journal_batch){0};
}

static void mark(struct journal_batch *batch, uint64_t session, uint64_t incarnation, uint64_t counter)
{
    uint32_t at = 0;

    while (at < batch->marks && (batch->mark[at].session != session || batch->mark[at].incarnation != incarnation))
        at++;
    if (at == batch->capacity) {
        uint32_t capacity = batch->capacity == 0 ? 8 : batch->capacity * 2;
        struct journal_mark *grown = realloc(batch->mark, capacity * sizeof *grown);
        if (grown == NULL)
            return;    // its client keeps it until it is told again
        batch->mark = grown;
        batch->capacity = capacity;
    }
    struct journal_mark *to = &batch->mark[at];
    if (at == batch->marks) {
        batch->marks++;
        *to = (struct journal_mark){.session = session, .incarnation = incarnation};
    }
    if (to->counters == to->capacity) {
        uint32_t capacity = to->capacity == 0 ? 16 : to->capacity * 2;
        uint64_t *grown = realloc(to->counter, capacity * sizeof *grown);
        if (grown == NULL)
            return;
        to->counter = grown;
        to->capacity = capacity;
    }
    to->counter[to->counters++] = counter;
}

static enum dj_error add_item(struct head *head, const struct record *record, enum store_verb verb, enum store_table table,
                              struct blob *body, const uint8_t *bytes, size_t length)
{
    struct journal_batch *batch = &head->journal.waiting;
    uint8_t key[RECORD_KEY_MAX];

    if (batch->batch == NULL && (batch->batch = batch_make()) == NULL)
        return DJ_E_NO_MEMORY;
    struct store_item *item = batch_add(batch->batch, verb, table, key, record_key(record, key));
    if (item == NULL)
        return DJ_E_NO_MEMORY;
    item->value = blob_hold(body);
    item->value_offset = (uint64_t)(bytes - body->data);
    item->value_bytes = length;
    batch->bytes += length;
    return DJ_OK;
}

static void write_batch(struct head *head)
{
    struct head_journal *journal = &head->journal;
    struct store_batch *batch = journal->writing.batch;

    journal->writing.batch = NULL;    // it comes back with the result
    head_ticket(head, actor_store_commit(head->self, batch), TICKET_JOURNAL);
}

static void finish(struct head *head);

void journal_pump(struct head *head)
{
    struct head_journal *journal = &head->journal;

    if (journal->is_writing)
        return;
    journal->is_writing = true;
    journal->writing = journal->waiting;
    journal->waiting = (struct journal_batch){.number = journal->writing.number + 1};
    if (journal->writing.batch != NULL)
        write_batch(head);
    else
        finish(head);
}

// Records -----------------------------------------------------------------------------------------------------------------------

// What an earlier epoch ran and tells only now, since its worker was away when the session was taken over: who resumed it has read all that
// there is, and may have gone another way since. It is acknowledged and left out.
static bool is_late(const struct head_session *session, const struct record *record)
{
    bool is_run = record->kind == RECORD_EXECUTION || record->kind == RECORD_IMPORT;
    return is_run && exec_epoch(record_run_id(record).counter) < session->told_epoch;
}

static enum dj_error accept_run(struct head *head, const struct head_link *link, struct head_session *session,
                                const struct record *record, struct blob *body, const uint8_t *bytes, size_t length, bool is_old)
{
    struct exec_id id = record_run_id(record);

    if (is_late(session, record))
        return DJ_OK;
    enum dj_error error = add_item(head, record, STORE_PUT_IF_ABSENT, STORE_EXECUTION, body, bytes, length);
    if (error != DJ_OK)
        return error;
    if (record->kind == RECORD_EXECUTION) {
        plans_ran(head, &record->execution, link->worker);
        lineage_ran(head, session, &record->execution, link->worker, is_old);
        head->journal.waiting.executions++;
    } else {
        lineage_imported(head, session, &record->import, link->worker, is_old);
    }
    mark(&head->journal.waiting, id.session, link->worker == NULL ? 0 : link->worker->incarnation, id.counter);
    trim_note(session, id.counter);
    lineage_accept(session, id.counter);
    return DJ_OK;
}

enum dj_error journal_accept(struct head *head, const struct head_link *link, struct head_session *session,
                             const struct record *record, struct blob *body, const uint8_t *bytes, size_t length, bool is_old)
{
    switch (record->kind) {
    case RECORD_EXECUTION:
    case RECORD_IMPORT: return accept_run(head, link, session, record, body, bytes, length, is_old);
    case RECORD_RELEASE: lineage_released(head, session, &record->release, link->worker); return DJ_OK;
    case RECORD_CHECKPOINT:
        session->has_checkpoint = session->has_checkpoint || !record->checkpoint.is_replica;
        // What the store has is never given up for what only other workers have.
        return add_item(head, record, record->checkpoint.is_replica ? STORE_PUT_IF_ABSENT : STORE_PUT, STORE_CHECKPOINT, body,
                        bytes, length);
    case RECORD_PLAN:
        plans_learn(head, &record->plan);
        return add_item(head, record, STORE_PUT_IF_ABSENT, STORE_PLAN, body, bytes, length);
    case RECORD_LEAF: return DJ_OK;    // leaves come with their bytes, by LEAF_OFFER
    case RECORD_SESSION:
    case RECORD_WORKER:
    case RECORD_TAG: break;
    }
    return DJ_E_MALFORMED;
}

// Whether a record belongs to a session, and to which. A sender may name 0, which none has.
static bool is_of_session(const struct record *record, uint64_t *ret)
{
    switch (record->kind) {
    case RECORD_EXECUTION: *ret = record->execution.id.session; return true;
    case RECORD_IMPORT: *ret = record->import.id.session; return true;
    case RECORD_RELEASE: *ret = record->release.session; return true;
    case RECORD_CHECKPOINT: *ret = record->checkpoint.handle.execution.session; return true;
    default: return false;
    }
}

// A client speaks of its own session only, a worker of those that it was granted. What others say is left out; it is no reason to lose the
// rest.
struct head_session *journal_allowed(struct head *head, const struct head_link *link, uint64_t id)
{
    struct head_session *session = map_get(head->sessions, map_key(id));
    bool is_allowed = session != NULL &&
                      (link->worker == NULL ? link->session == session : session_is_granted(session, link->worker));

    if (is_allowed && link->worker != NULL)
        session_was_run(head, session, link->worker);
    if (is_allowed)
        return session;
    // Said at the first, the second, the fourth ...
    if ((head->stats.records_refused & (head->stats.records_refused + 1)) == 0)
        log_write(LOG_WARN, "head", "a record is left out: its sender has no grant, or the session is over session=%llx",
                  (unsigned long long)id);
    head->stats.records_refused++;
    return NULL;
}

static enum dj_error take_record(struct head *head, struct head_link *link, struct part *part, const struct record *record,
                                 struct blob *body, const uint8_t *bytes, size_t length, bool is_old)
{
    uint64_t id;
    if (!is_of_session(record, &id))    // a plan or a leaf belongs to nobody
        return journal_accept(head, link, NULL, record, body, bytes, length, is_old);
    struct head_session *session = journal_allowed(head, link, id);
    if (session == NULL || is_late(session, record))
        return DJ_OK;
    bool follows = held_is_behind(head, link->link, session);
    uint64_t source = follows ? 0 : held_missing(session, record);
    if (follows || source != 0)
        return held_add(head, part, session, record, source, body, bytes, length, is_old);
    return journal_accept(head, link, session, record, body, bytes, length, is_old);
}

static enum dj_error take_records(struct head *head, struct head_link *link, const struct wire_journal *journal,
                                  struct blob *body, struct part *part)
{
    struct reader reader = reader_make(journal->records, journal->records_bytes);
    struct record record;

    for (uint32_t i = 0; i < journal->count; i++) {
        const uint8_t *start = reader.at;
        bool is_old = link->worker != NULL && journal->first + i < link->worker->journal_since;
        enum dj_error error = record_read(&reader, &head->scratch, &record);
        if (error == DJ_OK)
            error = take_record(head, link, part, &record, body, start, (size_t)(reader.at - start), is_old);
        if (error != DJ_OK)
            return error;
    }
    return reader_left(&reader) == 0 ? DJ_OK : DJ_E_MALFORMED;
}

void journal_take(struct head *head, struct head_link *link, const struct wire_journal *journal, struct blob *body)
{
    struct part *part = calloc(1, sizeof *part);
    enum dj_error error = part == NULL ? DJ_E_NO_MEMORY : DJ_OK;

    if (error == DJ_OK && head->journal.waiting.bytes + journal->records_bytes > HEAD_JOURNAL_BYTES_MAX)
        error = DJ_E_BUSY;
    if (part != NULL) {
        part->link = link->link;
        part->last = journal->first + journal->count - 1;
        list_push(&head->journal.parts, &part->list);
    }
    if (error == DJ_OK)
        error = take_records(head, link, journal, body, part);
    if (error != DJ_OK) {
        head_reply_failed(head, link->link, 0, error, "JOURNAL: %s", dj_error_text(error));
        head_close(head, link->link);    // and with it its parts; the sender keeps what was not acknowledged
        return;
    }
    part->batch = head->journal.waiting.number;
    journal_release(head);
    journal_pump(head);
}

// Durable -----------------------------------------------------------------------------------------------------------------------

static int counter_order(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;
    return *x < *y ? -1 : *x > *y;
}

static void tell_watermark(struct head *head, struct journal_mark *done)
{
    struct head_session *session = map_get(head->sessions, map_key(done->session));
    struct writer writer = writer_make(1 << 20);
    uint64_t before = 0;

    if (session == NULL || done->counters == 0)
        return;
    qsort(done->counter, done->counters, sizeof done->counter[0], counter_order);
    for (uint32_t i = 0; i < done->counters; i++) {
        write_var(&writer, done->counter[i] - before);
        before = done->counter[i];
    }
    session->executions += done->counters;
    session->records += done->counters;
    session->since_trim += done->counters;
    if (session->watermark < before)
        session->watermark = before;
    struct wire_watermark watermark = {.session = session->id,
                                       .epoch = session->epoch,
                                       .counter = before,
                                       .incarnation = done->incarnation,
                                       .counters = writer.data,
                                       .counters_bytes = (uint32_t)writer.length};
    if (session->link != 0 && writer.error == DJ_OK)
        head_send(head, session->link, WIRE_WATERMARK, wire_watermark_encode(&watermark));
    writer_free(&writer);
    trim_consider(head, session);
}

static void acknowledge(struct head *head)
{
    struct head_journal *journal = &head->journal;
    uint64_t accepted = PLANTED(EARLY_ACKNOWLEDGE) ? journal->waiting.number : journal->durable;

    journal->walk++;
    list_each (node, &journal->parts) {
        struct part *part = list_entry(node, struct part, list);
        struct head_link *link = map_get(head->links, map_key(part->link));
        if (link == NULL || link->stuck == journal->walk)
            continue;
        if (part->held > 0 || part->batch > accepted) {
            link->stuck = journal->walk;
            continue;
        }
        struct wire_journal_ok ok = {.last = part->last};
        head_send(head, part->link, WIRE_JOURNAL_OK, wire_journal_ok_encode(&ok));
        list_remove(&part->list);
        free(part);
    }
}

// What was written is durable.
static void finish(struct head *head)
{
    struct head_journal *journal = &head->journal;

    journal->durable = journal->writing.number;
    journal->is_writing = false;
    head->executions_stored += journal->writing.executions;
    acknowledge(head);
    for (uint32_t i = 0; i < journal->writing.marks; i++) {
        head->records_stored += journal->writing.mark[i].counters;
        tell_watermark(head, &journal->writing.mark[i]);
    }
    batch_clear(&journal->writing);
    gathers_check(head);
}

// The batch itself is lost, as for want of memory: whoever sent some of it sends it again on a new link.
static void begin_anew(struct head *head)
{
    struct head_journal *journal = &head->journal;

    while (!list_is_empty(&journal->parts))
        head_close(head, list_entry(journal->parts.next, struct part, list)->link);
    batch_clear(&journal->waiting);
    journal->waiting.number = journal->writing.number + 1;
    for (uint32_t i = 0; i < journal->writing.marks; i++)
        journal->writing.mark[i].counters = 0;
    journal->writing.executions = 0;
    finish(head);
}

void journal_done(struct head *head, enum dj_error error, struct store_result *result)
{
    struct head_journal *journal = &head->journal;

    if (error != DJ_OK && (result == NULL || result->batch == NULL)) {
        log_write(LOG_ERROR, "head", "the journal cannot be written: %s", dj_error_text(error));
        begin_anew(head);
        return;
    }
    if (error != DJ_OK) {
        journal->writing.batch = result->batch;
        result->batch = NULL;
        journal->retry_after_ns = journal->retry_after_ns == 0                 ? RETRY_FIRST_NS
                                  : journal->retry_after_ns * 2 > RETRY_MAX_NS ? RETRY_MAX_NS
                                                                               : journal->retry_after_ns * 2;
        journal->retry_at_ns = actor_now_ns(head->self) + journal->retry_after_ns;
        if (!head->is_full)
            log_write(LOG_ERROR, "head", "the journal cannot be written, new work is refused until it can: %s",
                      dj_error_text(error));
        head->is_full = true;
        return;
    }
    if (head->is_full)
        log_write(LOG_INFO, "head", "the journal is written again");
    head->is_full = false;
    journal->retry_after_ns = 0;
    finish(head);
    journal_pump(head);
}

void journal_check(struct head *head, uint64_t now_ns)
{
    if (head->journal.retry_at_ns != 0 && now_ns >= head->journal.retry_at_ns) {
        head->journal.retry_at_ns = 0;
        write_batch(head);
    }
    journal_release(head);
    journal_pump(head);
}

uint64_t journal_barrier(const struct head *head)
{
    const struct head_journal *journal = &head->journal;
    return journal->waiting.batch != NULL ? journal->waiting.number : journal->waiting.number - 1;
}

void journal_link_down(struct head *head, uint64_t link)
{
    list_each (node, &head->journal.held) {
        struct held *held = list_entry(node, struct held, list);
        if (held->link == link)
            held_free(head, held);
    }
    list_each (node, &head->journal.parts) {
        struct part *part = list_entry(node, struct part, list);
        if (part->link == link) {
            list_remove(&part->list);
            free(part);
        }
    }
}

void journal_end(struct head *head)
{
    if (head->journal.parts.next == NULL)
        return;
    list_each (node, &head->journal.held)
        held_free(head, list_entry(node, struct held, list));
    list_each (node, &head->journal.parts)
        free(list_entry(node, struct part, list));
    batch_clear(&head->journal.waiting);
    batch_clear(&head->journal.writing);
}
