// Retire: how sessions end. A client that is away keeps its session for the grace period. Then its grants and values go; a named one keeps
// its records for the retention time, so that it can be resumed. What is over for good is marked so durably and then erased from the store
// in small batches; a head that dies in between goes on where the mark is found.

#include <stdlib.h>
#include <string.h>

#include "core/base/log.h"
#include "sched/state.h"

enum { ERASE_PAGE = 512, KEY_PREFIX = 8 };
#define ERASE_RETRY_NS ((uint64_t)1000000000)

// A session whose records are erased. One at a time.
struct erasure {
    struct list list;
    uint64_t session, barrier, retry_at_ns;
    enum store_table table;
    bool is_out, is_done;
};

static void dismiss(struct head *head, struct head_session *session)
{
    for (uint32_t i = 0; i < session->grants; i++) {
        struct head_worker *worker = session->grant[i].worker;
        if (worker == NULL)
            continue;
        bool is_told = false;
        for (uint32_t k = 0; k < i; k++)
            is_told = is_told || session->grant[k].worker == worker;
        if (is_told)
            continue;
        worker->sessions--;
        session_is_over_at(head, worker, session->id, session->epoch);
    }
    session->grants = 0;
    lineage_forget(head, session);
    recoveries_session_over(head, session->id);
}

static void leave_link(struct head *head, struct head_session *session)
{
    struct head_link *link = session->link == 0 ? NULL : map_get(head->links, map_key(session->link));

    if (link != NULL)
        link->session = NULL;
    session_away(head, session);
}

void session_close(struct head *head, struct head_session *session)
{
    uint64_t id = session->id;

    dismiss(head, session);
    leave_link(head, session);
    session_unname(head, session);
    session_remember(head, session, true);
    trim_forget(session);
    map_take(head->sessions, map_key(id));
    lineage_end(session);
    erase_session(head, id);
}

static void retire(struct head *head, struct head_session *session)
{
    dismiss(head, session);
    leave_link(head, session);
    session->is_retired = true;
    session->seen_ns = head_wall_ns(head);
    session_remember(head, session, false);
}

void session_leave(struct head *head, struct head_session *session)
{
    if (session->name[0] == '\0')
        session_close(head, session);
    else if (!session->is_retired)
        retire(head, session);
}

void session_closed(struct head *head, struct head_link *link, const struct wire_session_close *close)
{
    struct head_session *session = link->session;

    if (session == NULL || session->id != close->session || session->epoch != close->epoch)
        return;    // somebody else's by now
    if (close->keep)
        session_leave(head, session);
    else
        session_close(head, session);
}

void sessions_check(struct head *head, uint64_t now_ns)
{
    // The map must not change while it is visited: one session a check ends, which is far faster than sessions leave.
    uint32_t cursor = 0;
    struct head_session *session;
    uint64_t wall_ns = head_wall_ns(head);

    while ((session = map_next(head->sessions, &cursor, NULL)) != NULL) {
        if (session->link != 0)
            continue;
        if (session->is_retired) {
            if (wall_ns > session->seen_ns && wall_ns - session->seen_ns > head->config.retention_ns) {
                session_close(head, session);
                return;
            }
        } else if (now_ns - session->away_since_ns > HEAD_GRACE_NS) {
            session_leave(head, session);
            return;
        }
    }
}

// Erasing ---------------------------------------------------------------------------------------------------------------------------

void erase_session(struct head *head, uint64_t session)
{
    struct erasure *erasure = calloc(1, sizeof *erasure);

    if (erasure == NULL)
        return;    // its mark is found at the next start
    erasure->session = session;
    erasure->barrier = journal_barrier(head);
    erasure->table = STORE_EXECUTION;
    list_push(&head->erasures, &erasure->list);
}

static void read_keys(struct head *head, struct erasure *erasure)
{
    uint8_t key[RECORD_KEY_MAX];
    struct store_batch *batch = batch_make();
    struct store_item *item = batch == NULL
                                  ? NULL
                                  : batch_add(batch, STORE_SCAN, erasure->table, key, record_key_session(erasure->session, key));

    if (item == NULL) {
        batch_free(batch);
        return;
    }
    item->scan_max = ERASE_PAGE;
    struct head_ticket *ticket = head_ticket(head, actor_store_read(head->self, batch), TICKET_ERASE);
    if (ticket == NULL)
        return;
    ticket->job = erasure;
    erasure->is_out = true;
}

// Deletes the page's keys; when there are none, goes on to the next table, and last to the session's own record.
static struct store_batch *deletions(struct erasure *erasure, const struct store_result *result)
{
    struct store_batch *batch = batch_make();
    uint8_t key[RECORD_KEY_MAX];

    for (uint32_t i = 0; batch != NULL && i < result->entries; i++) {
        const struct store_entry *entry = &result->entry[i];
        uint64_t session = 0;
        if (entry->key_bytes < KEY_PREFIX || !record_key_parse_session(entry->key, KEY_PREFIX, &session) ||
            session != erasure->session)
            break;
        batch_add(batch, STORE_DELETE, erasure->table, entry->key, entry->key_bytes);
    }
    if (batch != NULL && batch->items == 0 && erasure->table == STORE_CHECKPOINT) {
        batch_add(batch, STORE_DELETE, STORE_SESSION, key, record_key_session(erasure->session, key));
        erasure->is_done = true;
    }
    return batch;
}

void erase_done(struct head *head, struct erasure *erasure, enum dj_error error, const struct store_result *result)
{
    erasure->is_out = false;
    if (error != DJ_OK) {
        erasure->retry_at_ns = actor_now_ns(head->self) + ERASE_RETRY_NS;
        erasure->is_done = false;
        return;
    }
    bool is_read = result->batch != NULL && result->batch->items == 1 && result->batch->item[0].verb == STORE_SCAN;
    if (!is_read) {
        uint32_t items = result->batch == NULL ? 0 : result->batch->items;
        head->stats.erased += items;
        head->records_stored -= items < head->records_stored ? items : head->records_stored;
        if (erasure->is_done) {
            head->sessions_stored -= head->sessions_stored > 0;
            list_remove(&erasure->list);
            free(erasure);
        }
        erase_check(head);
        return;
    }
    struct store_batch *batch = deletions(erasure, result);
    if (batch != NULL && batch->items > 0) {
        struct head_ticket *ticket = head_ticket(head, actor_store_commit(head->self, batch), TICKET_ERASE);
        erasure->is_out = true;
        if (ticket != NULL)
            ticket->job = erasure;
        return;
    }
    batch_free(batch);
    if (erasure->table == STORE_EXECUTION)
        erasure->table = STORE_CHECKPOINT;
    erase_check(head);
}

void erase_check(struct head *head)
{
    if (list_is_empty(&head->erasures))
        return;
    struct erasure *first = list_entry(head->erasures.next, struct erasure, list);
    if (!first->is_out && first->barrier <= head->journal.durable && actor_now_ns(head->self) >= first->retry_at_ns)
        read_keys(head, first);
}

void erase_end(struct head *head)
{
    if (head->erasures.next == NULL)
        return;
    list_each (node, &head->erasures)
        free(list_entry(node, struct erasure, list));
}
