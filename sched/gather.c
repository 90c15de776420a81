// Gather: reads a session's lineage from the store, page by page: its execution and import records, its checkpoints, and the plans that
// they name. What is read stays as the store gave it; a COMPUTE surveys it for the plans and for the replicas' pieces, so that the head's
// thread decodes nothing.
//
// Reads are answered in the order of the commits accepted before them; a gather begins when everything that was journalled before it
// was asked for is durable (journal_barrier), so that who says JOURNAL and then RECOVER finds its records.

#include <stdlib.h>
#include <string.h>

#include "core/base/log.h"
#include "core/lineage/recovery.h"
#include "sched/gather.h"
#include "sched/state.h"

enum { PAGE_RECORDS = 2048, VALUES_A_READ = 64, KEY_PREFIX = 8 };

enum gather_step { GATHER_WAITING, GATHER_RUNS, GATHER_CHECKPOINTS, GATHER_LARGE, GATHER_SURVEY, GATHER_PLANS, GATHER_DONE };

struct gather {
    struct list list;    // head->gathers while it waits
    uint64_t session, barrier;
    enum gather_step step;
    bool is_behind;               // records of the session are held: the barrier is not known yet
    bool is_cancelled, is_out;    // is_out: a read or a computation of it is under way
    gather_done *done;
    void *context;
    struct store_result **page, **plan_page;
    uint32_t pages, page_capacity, plan_pages;
    struct gather_cursor large;    // records that a scan lists without their bytes are read up to here
    uint64_t bytes, records;
    uint32_t key_bytes;
    uint8_t key[STORE_KEY_MAX];    // where the next page begins
    struct hash128 *plan, *replica;
    bool *is_replica_held;
    uint32_t plans, plan_capacity, plans_read, replicas, replica_capacity;
    enum dj_error error;
    struct fault fault;
};

static enum dj_error proceed(struct head *head, struct gather *gather);

bool gather_begin(struct head *head, uint64_t session, gather_done *done, void *context, struct gather **ret)
{
    struct gather *gather = calloc(1, sizeof *gather);

    if (gather == NULL)
        return false;
    *ret = gather;
    gather->session = session;
    gather->barrier = journal_barrier(head);
    gather->done = done;
    gather->context = context;
    list_push(&head->gathers, &gather->list);
    gathers_check(head);
    return true;
}

void gather_free(struct gather *gather)
{
    if (gather == NULL)
        return;
    if (gather->is_out) {    // its answer frees it
        gather->is_cancelled = true;
        return;
    }
    list_remove(&gather->list);
    for (uint32_t i = 0; i < gather->pages; i++)
        result_free(gather->page[i]);
    for (uint32_t i = 0; i < gather->plan_pages; i++)
        result_free(gather->plan_page[i]);
    free(gather->page);
    free(gather->plan_page);
    free(gather->plan);
    free(gather->replica);
    free(gather->is_replica_held);
    free(gather);
}

void gather_abandon(struct gather *gather)
{
    gather->is_out = false;
    if (gather->is_cancelled)
        gather_free(gather);
}

static void end(struct head *head, struct gather *gather, enum dj_error error, const char *text)
{
    gather->step = GATHER_DONE;
    gather->error = error;
    if (error != DJ_OK)
        fault_set(&gather->fault, error, "%s: %s", text, dj_error_text(error));
    gather->done(head, gather, gather->context, error, &gather->fault);
}

void gathers_check(struct head *head)
{
    list_each (node, &head->gathers) {
        struct gather *gather = list_entry(node, struct gather, list);
        if (gather->barrier > head->journal.durable)
            continue;
        list_remove(&gather->list);
        gather->step = GATHER_RUNS;
        gather->key_bytes = (uint32_t)record_key_session(gather->session, gather->key);
        enum dj_error error = proceed(head, gather);
        if (error != DJ_OK) {
            end(head, gather, error, "reading the session's lineage");
            break;    // what it told may have changed the list; the rest is looked at again soon
        }
    }
}

// Reading ---------------------------------------------------------------------------------------------------------------------

static enum dj_error read_page(struct head *head, struct gather *gather, enum store_table table)
{
    struct store_batch *batch = batch_make();
    struct store_item *item = batch == NULL ? NULL : batch_add(batch, STORE_SCAN, table, gather->key, gather->key_bytes);

    if (item == NULL) {
        batch_free(batch);
        return DJ_E_NO_MEMORY;
    }
    item->scan_max = PAGE_RECORDS;
    struct head_ticket *ticket = head_ticket(head, actor_store_read(head->self, batch), TICKET_GATHER);
    if (ticket == NULL)
        return DJ_E_NO_MEMORY;
    ticket->job = gather;
    gather->is_out = true;
    return DJ_OK;
}

static bool is_of(const struct gather *gather, const struct store_entry *entry)
{
    uint64_t session = 0;
    return entry->key_bytes >= KEY_PREFIX && record_key_parse_session(entry->key, KEY_PREFIX, &session) &&
           session == gather->session;
}

static enum dj_error read_values(struct head *head, struct gather *gather, struct store_batch *batch)
{
    struct head_ticket *ticket = head_ticket(head, actor_store_read(head->self, batch), TICKET_GATHER);

    if (ticket == NULL)
        return DJ_E_NO_MEMORY;
    ticket->job = gather;
    gather->is_out = true;
    return DJ_OK;
}

static enum dj_error read_plans(struct head *head, struct gather *gather)
{
    struct store_batch *batch = batch_make();
    uint8_t key[RECORD_KEY_MAX];

    if (batch == NULL)
        return DJ_E_NO_MEMORY;
    for (uint32_t n = 0; n < VALUES_A_READ && gather->plans_read < gather->plans; n++, gather->plans_read++)
        if (batch_add(batch, STORE_GET, STORE_PLAN, key, record_key_plan(gather->plan[gather->plans_read], key)) == NULL) {
            batch_free(batch);
            return DJ_E_NO_MEMORY;
        }
    return read_values(head, gather, batch);
}

// A scan lists large values (files) without their bytes.
static struct store_entry *next_large(const struct gather *gather, struct gather_cursor *cursor)
{
    for (; cursor->page < gather->pages; cursor->page++, cursor->entry = 0)
        while (cursor->entry < gather->page[cursor->page]->entries) {
            struct store_entry *entry = &gather->page[cursor->page]->entry[cursor->entry++];
            if (entry->value->bytes == 0 && is_of(gather, entry))
                return entry;
        }
    return NULL;
}

static enum dj_error read_large(struct head *head, struct gather *gather)
{
    struct gather_cursor cursor = gather->large;
    struct store_batch *batch = NULL;
    const struct store_entry *entry;

    for (uint32_t n = 0; n < VALUES_A_READ && (entry = next_large(gather, &cursor)) != NULL; n++) {
        struct exec_id id;
        enum store_table table = record_key_parse_execution(entry->key, entry->key_bytes, &id) ? STORE_EXECUTION
                                                                                               : STORE_CHECKPOINT;
        if (batch == NULL && (batch = batch_make()) == NULL)
            return DJ_E_NO_MEMORY;
        if (batch_add(batch, STORE_GET, table, entry->key, entry->key_bytes) == NULL) {
            batch_free(batch);
            return DJ_E_NO_MEMORY;
        }
    }
    if (batch != NULL)
        return read_values(head, gather, batch);
    gather->step = GATHER_SURVEY;
    return proceed(head, gather);
}

// In the order in which they were asked for.
static enum dj_error take_large(struct gather *gather, struct store_result *result)
{
    struct store_entry *entry;

    for (uint32_t n = 0, at = 0; n < VALUES_A_READ && (entry = next_large(gather, &gather->large)) != NULL; n++) {
        if (at == result->entries || result->entry[at].item != n)
            return DJ_E_NOT_FOUND;
        blob_drop(entry->value);
        entry->value = blob_hold(result->entry[at++].value);
        gather->bytes += entry->value->bytes;
    }
    return gather->bytes > GATHER_BYTES_MAX ? DJ_E_LIMIT : DJ_OK;
}

// Survey (on another thread) ----------------------------------------------------------------------------------------------------

static bool add_hash(struct hash128 **list, uint32_t *count, uint32_t *capacity, struct hash128 hash)
{
    if (*count == *capacity) {
        uint32_t grown = *capacity == 0 ? 16 : *capacity * 2;
        struct hash128 *bigger = realloc(*list, grown * sizeof *bigger);
        if (bigger == NULL)
            return false;
        *list = bigger;
        *capacity = grown;
    }
    (*list)[(*count)++] = hash;
    return true;
}

static enum dj_error survey_record(struct gather *gather, struct map *seen, const struct record *record)
{
    if (record->kind == RECORD_EXECUTION && map_get(seen, record->execution.plan) == NULL) {
        if (map_put(seen, record->execution.plan, gather) != DJ_OK)
            return DJ_OK;    // more plans than are planned with: their records will be named as not replayable
        return add_hash(&gather->plan, &gather->plans, &gather->plan_capacity, record->execution.plan) ? DJ_OK : DJ_E_NO_MEMORY;
    }
    if (record->kind != RECORD_CHECKPOINT || !record->checkpoint.is_replica)
        return DJ_OK;
    struct reader reader = reader_make(record->checkpoint.piece, record->checkpoint.piece_bytes);
    for (uint32_t i = 0; i < record->checkpoint.pieces; i++)
        if (!add_hash(&gather->replica, &gather->replicas, &gather->replica_capacity, record_piece_read(&reader).content))
            return DJ_E_NO_MEMORY;
    return DJ_OK;
}

static void *survey(void *input)
{
    struct gather *gather = input;
    struct record_scratch scratch = {0};
    struct map *seen = NULL;
    struct record *record = malloc(sizeof *record);

    gather->error = record == NULL ? DJ_E_NO_MEMORY : record_scratch_make(&scratch);
    if (gather->error == DJ_OK)
        gather->error = map_make(RECOVERY_PLANS_MAX, &seen);
    for (uint32_t p = 0; p < gather->pages && gather->error == DJ_OK; p++)
        for (uint32_t i = 0; i < gather->page[p]->entries && gather->error == DJ_OK; i++) {
            const struct store_entry *entry = &gather->page[p]->entry[i];
            struct reader reader = reader_make(entry->value->data, entry->value->bytes);
            if (is_of(gather, entry) && record_read(&reader, &scratch, record) == DJ_OK)
                gather->error = survey_record(gather, seen, record);
        }
    map_free(seen);
    record_scratch_free(&scratch);
    free(record);
    return gather;
}

static enum dj_error begin_survey(struct head *head, struct gather *gather)
{
    struct head_ticket *ticket = head_ticket(head, actor_compute(head->self, survey, gather), TICKET_SURVEY);

    gather->is_out = true;
    if (ticket == NULL)
        return DJ_E_NO_MEMORY;
    ticket->job = gather;
    return DJ_OK;
}

// Steps -----------------------------------------------------------------------------------------------------------------------

static enum dj_error proceed(struct head *head, struct gather *gather)
{
    switch (gather->step) {
    case GATHER_RUNS: return read_page(head, gather, STORE_EXECUTION);
    case GATHER_CHECKPOINTS: return read_page(head, gather, STORE_CHECKPOINT);
    case GATHER_LARGE: return read_large(head, gather);
    case GATHER_SURVEY: return begin_survey(head, gather);
    case GATHER_PLANS:
        if (gather->plans_read < gather->plans)
            return read_plans(head, gather);
        end(head, gather, DJ_OK, "");
        return DJ_OK;
    case GATHER_WAITING:
    case GATHER_DONE: break;
    }
    return DJ_E_INTERNAL;
}

static enum dj_error keep(struct store_result ***list, uint32_t *count, uint32_t capacity, struct store_result *result)
{
    if ((*count & (*count - 1)) == 0 || capacity == 0) {
        struct store_result **grown = realloc(*list, ((size_t)*count * 2 + 1) * sizeof *grown);
        if (grown == NULL)
            return DJ_E_NO_MEMORY;
        *list = grown;
    }
    (*list)[(*count)++] = result;
    return DJ_OK;
}

// Takes a page; where the next begins, or the next step.
static enum dj_error take_page(struct gather *gather, struct store_result *result)
{
    uint32_t entries = result->entries;
    const struct store_entry *last = entries == 0 ? NULL : &result->entry[entries - 1];
    bool has_more = entries == PAGE_RECORDS && is_of(gather, last) && last->key_bytes < STORE_KEY_MAX;

    for (uint32_t i = 0; i < entries; i++) {
        gather->bytes += result->entry[i].value->bytes;
        gather->records += is_of(gather, &result->entry[i]);
    }
    if (has_more) {
        // The next page starts just behind the last key: the same key with a zero byte more.
        memcpy(gather->key, last->key, last->key_bytes);
        gather->key[last->key_bytes] = 0;
        gather->key_bytes = last->key_bytes + 1;
    }
    enum dj_error error = keep(&gather->page, &gather->pages, gather->pages, result);
    if (error != DJ_OK) {
        result_free(result);
        return error;
    }
    if (gather->records > RECOVERY_RECORDS_MAX || gather->bytes > GATHER_BYTES_MAX)
        return DJ_E_LIMIT;
    if (has_more)
        return DJ_OK;
    if (gather->step == GATHER_RUNS) {
        gather->step = GATHER_CHECKPOINTS;
        gather->key_bytes = (uint32_t)record_key_session(gather->session, gather->key);
    } else {
        gather->step = GATHER_LARGE;
    }
    return DJ_OK;
}

void gather_read(struct head *head, struct gather *gather, enum dj_error error, struct store_result *result)
{
    gather->is_out = false;
    if (gather->is_cancelled || error != DJ_OK) {
        result_free(result);
        if (gather->is_cancelled)
            gather_free(gather);
        else
            end(head, gather, error, "reading the session's lineage");
        return;
    }
    if (gather->step == GATHER_PLANS) {
        error = keep(&gather->plan_page, &gather->plan_pages, gather->plan_pages, result);
        if (error != DJ_OK)
            result_free(result);
    } else if (gather->step == GATHER_LARGE) {
        error = take_large(gather, result);
        result_free(result);
    } else {
        error = take_page(gather, result);
    }
    if (error == DJ_OK)
        error = proceed(head, gather);
    if (error != DJ_OK)
        end(head, gather, error, "reading the session's lineage");
}

static bool is_held(const struct head *head, struct hash128 content)
{
    const struct head_leaf *leaf = map_get(head->leaves, content);
    return leaf != NULL && (leaf->holders > 0 || leaf->is_stored);
}

void gather_surveyed(struct head *head, struct gather *gather)
{
    gather->is_out = false;
    if (gather->is_cancelled) {
        gather_free(gather);
        return;
    }
    enum dj_error error = gather->error;
    gather->is_replica_held = calloc((size_t)gather->replicas + 1, 1);
    if (error == DJ_OK && gather->is_replica_held == NULL)
        error = DJ_E_NO_MEMORY;
    for (uint32_t i = 0; error == DJ_OK && i < gather->replicas; i++)
        gather->is_replica_held[i] = is_held(head, gather->replica[i]);
    gather->step = GATHER_PLANS;
    if (error == DJ_OK)
        error = proceed(head, gather);
    if (error != DJ_OK)
        end(head, gather, error, "reading the session's lineage");
}

// Using it (on another thread) ----------------------------------------------------------------------------------------------------

enum dj_error gather_feed(const struct gather *gather, struct recovery *recovery)
{
    enum dj_error error = DJ_OK;

    for (uint32_t p = 0; p < gather->plan_pages && error == DJ_OK; p++)
        for (uint32_t i = 0; i < gather->plan_page[p]->entries && error == DJ_OK; i++) {
            const struct blob *value = gather->plan_page[p]->entry[i].value;
            error = recovery_add(recovery, value->data, value->bytes);
        }
    for (uint32_t p = 0; p < gather->pages && error == DJ_OK; p++)
        for (uint32_t i = 0; i < gather->page[p]->entries && error == DJ_OK; i++) {
            const struct store_entry *entry = &gather->page[p]->entry[i];
            if (is_of(gather, entry))
                error = recovery_add(recovery, entry->value->data, entry->value->bytes);
        }
    return error;
}

bool gather_has_leaf(void *context, struct hash128 content)
{
    const struct gather *gather = context;

    for (uint32_t i = 0; i < gather->replicas; i++)
        if (gather->is_replica_held[i] && hash128_equal(gather->replica[i], content))
            return true;
    return false;
}

bool gather_next(const struct gather *gather, struct gather_cursor *cursor, struct record_ref *ret_key, const struct blob **ret)
{
    for (; cursor->page < gather->pages; cursor->page++, cursor->entry = 0)
        while (cursor->entry < gather->page[cursor->page]->entries) {
            const struct store_entry *entry = &gather->page[cursor->page]->entry[cursor->entry++];
            struct exec_id id;
            struct handle handle;
            if (!is_of(gather, entry))
                continue;
            *ret = entry->value;
            if (record_key_parse_execution(entry->key, entry->key_bytes, &id))
                *ret_key = (struct record_ref){.counter = id.counter, .output = UINT32_MAX};
            else if (record_key_parse_handle(entry->key, entry->key_bytes, &handle))
                *ret_key = (struct record_ref){.counter = handle.execution.counter, .output = handle.output};
            else
                continue;
            return true;
        }
    return false;
}

const struct blob *gather_plan(const struct gather *gather, uint32_t index)
{
    for (uint32_t p = 0; p < gather->plan_pages; p++) {
        if (index < gather->plan_page[p]->entries)
            return gather->plan_page[p]->entry[index].value;
        index -= gather->plan_page[p]->entries;
    }
    return NULL;
}

uint64_t gather_records(const struct gather *gather)
{
    return gather->records;
}
