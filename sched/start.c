// Start: what a new life of the head does first: reads its generation and commits the next (rule 18: it is durable before the first message
// leaves), then what the store has: plans, leaves, sessions, the workers it remembers, and how many records each session has.

#include <string.h>

#include "core/base/log.h"
#include "sched/state.h"

enum { SCAN_PAGE = 4096 };

static const char key_generation[] = "generation";

enum dj_error start_read(struct head *head)
{
    struct store_batch *batch = batch_make();
    if (batch == NULL || batch_add(batch, STORE_GET, STORE_META, key_generation, strlen(key_generation)) == NULL)
        return DJ_E_NO_MEMORY;
    return head_ticket(head, actor_store_read(head->self, batch), TICKET_START_READ) == NULL ? DJ_E_NO_MEMORY : DJ_OK;
}

// The generation is durable before the first message leaves (rule 18).
enum dj_error start_commit(struct head *head)
{
    struct store_batch *batch = batch_make();
    struct store_item *item = batch == NULL ? NULL
                                            : batch_add(batch, STORE_PUT, STORE_META, key_generation, strlen(key_generation));
    if (item == NULL || (item->value = blob_copy(&head->generation, sizeof head->generation)) == NULL)
        return DJ_E_NO_MEMORY;
    item->value_bytes = sizeof head->generation;
    return head_ticket(head, actor_store_commit(head->self, batch), TICKET_START_COMMIT) == NULL ? DJ_E_NO_MEMORY : DJ_OK;
}

// Reads a page of a table; the ticket's `table` is the table, so that the pages follow each other through the tables.
static enum dj_error start_scan(struct head *head, enum store_table table, const uint8_t *from, uint32_t from_bytes)
{
    struct store_batch *batch = batch_make();
    struct store_item *item = batch == NULL ? NULL : batch_add(batch, STORE_SCAN, table, from, from_bytes);
    if (item == NULL)
        return DJ_E_NO_MEMORY;
    item->scan_max = SCAN_PAGE;
    struct head_ticket *ticket = head_ticket(head, actor_store_read(head->self, batch), TICKET_START_SCAN);
    if (ticket == NULL)
        return DJ_E_NO_MEMORY;
    ticket->table = table;
    return DJ_OK;
}

static void learn_execution(struct head *head, const struct store_entry *entry)
{
    struct reader reader = reader_make(entry->value->data, entry->value->bytes);
    struct record record;
    struct exec_id id;

    head->records_stored++;
    if (!record_key_parse_execution(entry->key, entry->key_bytes, &id))
        return;
    struct head_session *session = map_get(head->sessions, map_key(id.session));
    if (session != NULL) {
        session->records++;
        lineage_accept(session, id.counter);
    }
    if (record_read(&reader, &head->scratch, &record) != DJ_OK || record.kind != RECORD_EXECUTION)
        return;
    struct head_plan *plan = plans_see(head, record.execution.plan);
    head->executions_stored++;
    if (plan != NULL)
        plan->executions++;
}

static void learn_stored(struct head *head, enum store_table table, const struct store_entry *entry)
{
    struct reader reader = reader_make(entry->value->data, entry->value->bytes);
    struct hash128 hash;
    struct record record;

    switch (table) {
    case STORE_PLAN:
        if (record_key_parse_hash(entry->key, entry->key_bytes, &hash))
            plans_see(head, hash);
        if (entry->value->bytes > 0 && record_read(&reader, &head->scratch, &record) == DJ_OK && record.kind == RECORD_PLAN)
            plans_learn(head, &record.plan);
        break;
    case STORE_LEAF:
        if (record_key_parse_hash(entry->key, entry->key_bytes, &hash)) {
            struct head_leaf *leaf = leaf_see(head, hash, entry->bytes);
            if (leaf != NULL)
                leaf->is_stored = true;
            head->leaves_stored++;
            head->leaf_bytes_stored += entry->bytes;
        }
        break;
    case STORE_SESSION:
        if (record_read(&reader, &head->scratch, &record) == DJ_OK && record.kind == RECORD_SESSION)
            session_restore(head, &record.session);
        break;
    case STORE_WORKER:
        if (record_read(&reader, &head->scratch, &record) == DJ_OK && record.kind == RECORD_WORKER)
            settle_expect(head, &record.worker);
        break;
    case STORE_EXECUTION: learn_execution(head, entry); break;
    default: break;
    }
}

static void serve(struct head *head)
{
    head->phase = HEAD_SERVING;
    head->serving_since_ns = head->checked_ns = actor_now_ns(head->self);
    settle_worker(head, "");
    log_write(LOG_INFO, "head", "serving generation=%llu plans=%u leaves=%u executions=%llu",
              (unsigned long long)head->generation, map_count(head->plans), head->leaves_stored,
              (unsigned long long)head->executions_stored);
    for (uint32_t i = 0; i < head->parked_count; i++)
        head_receive_message(head, head->parked[i].link, head->parked[i].message, head->parked[i].body, head->parked[i].bulk);
    head->parked_count = 0;
    head_check_at(head, actor_now_ns(head->self) + HEAD_CHECK_NS);
}

static enum dj_error start_scanned(struct head *head, enum store_table table, const struct store_result *result)
{
    static const enum store_table next_table[STORE_TABLES] = {[STORE_PLAN] = STORE_LEAF,
                                                              [STORE_LEAF] = STORE_SESSION,
                                                              [STORE_SESSION] = STORE_WORKER,
                                                              [STORE_WORKER] = STORE_EXECUTION};

    for (uint32_t i = 0; i < result->entries; i++)
        learn_stored(head, table, &result->entry[i]);
    if (result->entries == SCAN_PAGE) {
        // The next page starts just behind the last key: the same key with a zero byte more.
        uint8_t from[STORE_KEY_MAX] = {0};
        const struct store_entry *last = &result->entry[result->entries - 1];
        if (last->key_bytes < STORE_KEY_MAX) {
            memcpy(from, last->key, last->key_bytes);
            return start_scan(head, table, from, last->key_bytes + 1);
        }
    }
    if (next_table[table] != 0)
        return start_scan(head, next_table[table], NULL, 0);
    serve(head);
    return DJ_OK;
}

enum dj_error start_done(struct head *head, enum ticket_kind kind, uint32_t table, enum dj_error error,
                         const struct store_result *result)
{
    // A disk that is full now may have room later; nobody is told anything before.
    if (error != DJ_OK && kind == TICKET_START_COMMIT && dj_error_retry(error) == ERROR_RETRY_later) {
        log_write(LOG_ERROR, "head", "cannot begin a new generation yet: %s", dj_error_text(error));
        head_check_at(head, actor_now_ns(head->self) + HEAD_CHECK_NS);
        return DJ_OK;
    }
    if (error != DJ_OK) {
        log_write(LOG_ERROR, "head", "cannot start from the store: %s", dj_error_text(error));
        actor_exit(head->self, 1);
        return DJ_OK;
    }
    if (kind == TICKET_START_READ) {
        uint64_t last = 0;
        if (result->entries > 0 && result->entry[0].value->bytes == sizeof last)
            memcpy(&last, result->entry[0].value->data, sizeof last);
        head->generation = last + 1;
        return start_commit(head);
    }
    if (kind == TICKET_START_COMMIT)
        return start_scan(head, STORE_PLAN, NULL, 0);
    return start_scanned(head, (enum store_table)table, result);
}
