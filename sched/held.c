// Held: records that wait for what they build on: causal closure (rule 13). A record is accepted when all that it builds on was: what it
// was made of, and the records that its bindings refer to. Mostly the order of a worker's journal gives that for free, but an import's
// source was made elsewhere, and a device may tell of two streams in another order than it ran them. Such a record waits, with all that
// follows it from that link for that session but what it waits for; not for ever: what is never told cannot be built on, and what builds on
// it is left out.

#include "sched/journal.h"

#include <stdlib.h>

#include "core/base/log.h"

#define ASK_AGAIN_NS ((uint64_t)500000000)

uint64_t held_missing(const struct head_session *session, const struct record *record)
{
    if (record->kind == RECORD_IMPORT)
        return lineage_is_accepted(session, record->import.source.counter) ? 0 : record->import.source.counter;
    if (record->kind != RECORD_EXECUTION)
        return 0;
    // The records that its bindings refer to, too: without them it cannot be run again.
    if (record->execution.base != 0 && !lineage_is_accepted(session, record->execution.base))
        return record->execution.base;
    if (record->execution.before != 0 && !lineage_is_accepted(session, record->execution.before))
        return record->execution.before;
    for (uint32_t i = 0; i < record->execution.producers; i++)
        if (!lineage_is_accepted(session, record->execution.producer[i]))
            return record->execution.producer[i];
    return 0;
}

bool held_is_behind(const struct head *head, uint64_t link, const struct head_session *session)
{
    if (session->held == 0)
        return false;
    list_each (node, &head->journal.held) {
        const struct held *held = list_entry(node, struct held, list);
        if (held->link == link && held->session == session->id)
            return true;
    }
    return false;
}

enum dj_error held_add(struct head *head, struct part *part, struct head_session *session, const struct record *record,
                       uint64_t source, struct blob *body, const uint8_t *bytes, size_t length, bool is_old)
{
    bool is_run = record->kind == RECORD_EXECUTION || record->kind == RECORD_IMPORT;
    struct held *held = calloc(1, sizeof *held);

    if (held == NULL)
        return DJ_E_NO_MEMORY;
    if (head->journal.held_count == HEAD_HELD_MAX || head->journal.held_bytes + length > HEAD_HELD_BYTES_MAX) {
        free(held);
        return DJ_E_BUSY;
    }
    *held = (struct held){.part = part,
                          .link = part->link,
                          .session = session->id,
                          .counter = is_run ? record_run_id(record).counter : 0,
                          .source = source,
                          .since_ns = actor_now_ns(head->self),
                          .body = blob_hold(body),
                          .offset = (size_t)(bytes - body->data),
                          .length = length,
                          .is_old = is_old};
    part->held++;
    session->held++;
    head->journal.held_count++;
    head->journal.held_bytes += length;
    list_push(&head->journal.held, &held->list);
    return DJ_OK;
}

void held_free(struct head *head, struct held *held)
{
    struct head_session *session = map_get(head->sessions, map_key(held->session));

    if (session != NULL)
        session->held--;
    held->part->held--;
    head->journal.held_count--;
    head->journal.held_bytes -= held->length;
    list_remove(&held->list);
    blob_drop(held->body);
    free(held);
}

// An earlier life of the head may have accepted it.
static void ask_store(struct head *head, struct held *held)
{
    uint8_t key[RECORD_KEY_MAX];
    struct store_batch *batch = batch_make();
    struct exec_id source = {.session = held->session, .counter = held->source};

    held->asked_ns = actor_now_ns(head->self);
    if (batch == NULL || batch_add(batch, STORE_GET, STORE_EXECUTION, key, record_key_execution(source, key)) == NULL) {
        batch_free(batch);
        return;
    }
    struct head_ticket *ticket = head_ticket(head, actor_store_read(head->self, batch), TICKET_SOURCE);
    if (ticket != NULL) {
        ticket->number = source.session;
        ticket->last = source.counter;
    }
}

void journal_source_read(struct head *head, const struct head_ticket *ticket, enum dj_error error,
                         const struct store_result *result)
{
    struct head_session *session = map_get(head->sessions, map_key(ticket->number));

    if (error != DJ_OK || result->entries == 0 || session == NULL)
        return;
    lineage_accept(session, ticket->last);
    journal_release(head);
    journal_pump(head);
}

// Nothing of its session and link is in front of it. True when it is done with.
static bool let_go(struct head *head, struct held *held, struct head_link *link)
{
    struct head_session *session = journal_allowed(head, link, held->session);
    const uint8_t *bytes = held->body->data + held->offset;
    struct reader reader = reader_make(bytes, held->length);
    uint64_t now_ns = actor_now_ns(head->self);
    struct record record;

    if (session != NULL && held->source != 0 && !lineage_is_accepted(session, held->source) &&
        now_ns - held->since_ns < HEAD_HELD_NS) {
        if (held->asked_ns == 0 || now_ns - held->asked_ns > ASK_AGAIN_NS)
            ask_store(head, held);
        return false;
    }
    // It was read before.
    if (session != NULL && record_read(&reader, &head->scratch, &record) == DJ_OK) {
        held->source = held_missing(session, &record);
        held->asked_ns = 0;
        if (held->source != 0 && now_ns - held->since_ns < HEAD_HELD_NS)
            return let_go(head, held, link);
        if (held->source != 0)
            log_write(LOG_ERROR, "head", "a record is left out: what it builds on was never told session=%llx counter=%llu",
                      (unsigned long long)held->session, (unsigned long long)held->source);
        else if (journal_accept(head, link, session, &record, held->body, bytes, held->length, held->is_old) != DJ_OK)
            log_write(LOG_ERROR, "head", "no memory for a record of the journal");
    }
    held->part->batch = head->journal.waiting.number;
    held_free(head, held);
    return true;
}

// Records that wait. Those behind wait, too, but for what they wait for.
struct waiting {
    const struct held *held;
    uint64_t link, session, source;
};

static bool is_behind(const struct waiting *waiting, uint32_t count, const struct held *held)
{
    bool is_behind = false;

    // What was seen is not seen again, also where another waits for it: each has room for once.
    for (uint32_t i = 0; i < count; i++)
        if (waiting[i].held == held)
            return true;
    for (uint32_t i = 0; i < count; i++) {
        if (waiting[i].session == held->session && waiting[i].source == held->counter && held->counter != 0)
            return false;
        is_behind = is_behind || (waiting[i].link == held->link && waiting[i].session == held->session);
    }
    return is_behind;
}

// Lets go what may; the others are added to `waiting`. True when there is more to see: what has gone may be what another waits for, and what
// is waited for may stand in front of who was found to wait for it, and may itself wait for something in front of it.
static bool release_some(struct head *head, struct waiting *waiting, uint32_t *count)
{
    bool has_moved = false;
    uint32_t before = *count;

    list_each (node, &head->journal.held) {
        struct held *held = list_entry(node, struct held, list);
        struct head_link *link = map_get(head->links, map_key(held->link));
        if (link == NULL || is_behind(waiting, *count, held))
            continue;
        if (let_go(head, held, link))
            has_moved = true;
        else
            waiting[(*count)++] = (struct waiting){
                .held = held, .link = held->link, .session = held->session, .source = held->source};
    }
    bool has_more = has_moved || *count > before;
    if (has_moved)
        *count = 0;
    return has_more;
}

void journal_release(struct head *head)
{
    struct waiting *waiting = head->journal.held_count == 0 ? NULL : malloc((size_t)head->journal.held_count * sizeof *waiting);
    uint32_t count = 0;

    while (waiting != NULL && head->journal.held_count > 0 && release_some(head, waiting, &count))
        ;
    free(waiting);
}
