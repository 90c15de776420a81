// Journal: records from workers (or from a client after a failure) go into the store in order, inserted if absent; when they are durable the
// sender may forget them (JOURNAL_OK) and the sessions' watermarks rise (WATERMARK).

#include <stdlib.h>
#include <string.h>

#include "core/base/log.h"
#include "core/base/planted.h"
#include "sched/state.h"

static enum dj_error add_record(struct head *head, struct store_batch *batch, const struct record *record, const uint8_t *bytes,
                                size_t length)
{
    static const enum store_table table_of[] = {[RECORD_PLAN] = STORE_PLAN, [RECORD_EXECUTION] = STORE_EXECUTION};
    uint8_t key[RECORD_KEY_MAX];

    (void)head;
    struct store_item *item = batch_add(batch, STORE_PUT_IF_ABSENT, table_of[record->kind], key, record_key(record, key));
    if (item == NULL || (item->value = blob_copy(bytes, length)) == NULL)
        return DJ_E_NO_MEMORY;
    item->value_bytes = length;
    return DJ_OK;
}

static void mark(struct head_ticket *ticket, struct exec_id id)
{
    uint32_t at = 0;

    while (at < ticket->marks && ticket->mark[at].session != id.session)
        at++;
    if (at == sizeof ticket->mark / sizeof ticket->mark[0])
        return;    // the session's next batch raises its watermark
    if (at == ticket->marks) {
        ticket->marks++;
        ticket->mark[at].session = id.session;
    }
    ticket->mark[at].executions++;
    if (ticket->mark[at].counter < id.counter)
        ticket->mark[at].counter = id.counter;
}

// Reads all records of the message into `batch`; learns what the head wants to know of them.
static enum dj_error read_records(struct head *head, const struct head_link *link, const struct wire_journal *journal,
                                  struct store_batch *batch, struct head_ticket *ticket)
{
    struct reader reader = reader_make(journal->records, journal->records_bytes);
    struct record record;

    for (uint32_t i = 0; i < journal->count; i++) {
        const uint8_t *start = reader.at;
        enum dj_error error = record_read(&reader, &head->scratch, &record);
        if (error == DJ_OK && record.kind != RECORD_PLAN && record.kind != RECORD_EXECUTION && record.kind != RECORD_LEAF)
            error = DJ_E_MALFORMED;
        if (error == DJ_OK && record.kind != RECORD_LEAF)    // leaves come with their bytes, by LEAF_OFFER
            error = add_record(head, batch, &record, start, (size_t)(reader.at - start));
        if (error != DJ_OK)
            return error;
        if (record.kind == RECORD_PLAN)
            plans_learn(head, &record.plan);
        if (record.kind == RECORD_EXECUTION) {
            plans_ran(head, &record.execution, link->worker);
            mark(ticket, record.execution.id);
            ticket->executions++;
        }
    }
    return reader_left(&reader) == 0 ? DJ_OK : DJ_E_MALFORMED;
}

void journal_take(struct head *head, struct head_link *link, const struct wire_journal *journal)
{
    struct store_batch *batch = batch_make();
    struct head_ticket *read = calloc(1, sizeof *read);
    enum dj_error error = batch == NULL || read == NULL ? DJ_E_NO_MEMORY : read_records(head, link, journal, batch, read);

    if (error != DJ_OK) {
        batch_free(batch);
        free(read);
        head_reply_failed(head, link->link, 0, error, "JOURNAL: %s", dj_error_text(error));
        head_close(head, link->link);
        return;
    }
    struct head_ticket *ticket = head_ticket(head, actor_store_commit(head->self, batch), TICKET_JOURNAL);
    if (ticket != NULL) {
        *ticket = *read;
        ticket->kind = TICKET_JOURNAL;
        ticket->link = link->link;
        ticket->incarnation = link->worker == NULL ? 0 : link->worker->incarnation;
        ticket->last = journal->first + journal->count - 1;
    }
    free(read);
}

#ifdef DJINN_PLANTED_BUGS
static uint64_t last_accepted(const struct head *head, const struct head_ticket *done)
{
    uint32_t cursor = 0;
    uint64_t last = done->last;
    for (const struct head_ticket *ticket; (ticket = map_next(head->tickets, &cursor, NULL)) != NULL;)
        if (ticket->kind == TICKET_JOURNAL && ticket->link == done->link && ticket->last > last)
            last = ticket->last;
    return last;
}
#else
#define last_accepted(head, done) 0
#endif

void journal_done(struct head *head, struct head_ticket *ticket, enum dj_error error)
{
    if (error != DJ_OK) {
        // The sender keeps its records and gives them again when it reconnects.
        log_write(LOG_ERROR, "head", "the journal cannot be written: %s", dj_error_text(error));
        head_reply_failed(head, ticket->link, 0, error, "the head cannot write its journal: %s", dj_error_text(error));
        head_close(head, ticket->link);
        return;
    }
    if (map_get(head->links, map_key(ticket->link)) != NULL) {
        struct wire_journal_ok ok = {.last = PLANTED(EARLY_ACKNOWLEDGE) ? last_accepted(head, ticket) : ticket->last};
        head_send(head, ticket->link, WIRE_JOURNAL_OK, wire_journal_ok_encode(&ok));
    }
    // A session may be over by now, its executions stay. What is told again after a lost link counts again, until the head starts anew.
    head->executions_stored += ticket->executions;
    // A session's executions on several workers become durable in no common order: the mark is one worker's.
    for (uint32_t i = 0; i < ticket->marks; i++) {
        struct head_session *session = map_get(head->sessions, map_key(ticket->mark[i].session));
        if (session == NULL)
            continue;
        session->executions += ticket->mark[i].executions;
        if (session->watermark < ticket->mark[i].counter)
            session->watermark = ticket->mark[i].counter;
        struct wire_watermark watermark = {.session = session->id,
                                           .epoch = session->epoch,
                                           .counter = ticket->mark[i].counter,
                                           .incarnation = ticket->incarnation};
        if (session->link != 0)
            head_send(head, session->link, WIRE_WATERMARK, wire_watermark_encode(&watermark));
    }
}
