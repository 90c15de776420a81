// Pages: JOURNAL_GET: a session's records for a client that resumes it, in the order of their counters, each plan before its first use. A
// page is one scan, then the plans that were not told on this link yet; the client asks for the next from where this one ended.

#include <stdlib.h>
#include <string.h>

#include "core/lineage/recovery.h"
#include "sched/state.h"

enum { PAGE_RECORDS = 512, PAGE_BYTES = 2 << 20, PART_BYTES_MAX = 4 << 20 };

struct page {
    struct list list;
    uint64_t link, request, session, from, next, barrier;
    enum { PAGE_WAITS, PAGE_SCANS, PAGE_READS_LARGE, PAGE_READS_PLANS } step;
    struct store_result *records;
    struct {
        struct hash128 fingerprint;
        uint32_t record;    // that is the first to name it
    } * plan;
    uint32_t plans, count;    // count: how many of the records go at most
    bool is_asked;            // a read is under way
};

static void page_free(struct page *page)
{
    list_remove(&page->list);
    result_free(page->records);
    free(page->plan);
    free(page);
}

static enum dj_error ask(struct head *head, struct page *page, struct store_batch *batch)
{
    struct head_ticket *ticket = head_ticket(head, actor_store_read(head->self, batch), TICKET_PAGE);

    if (ticket == NULL)
        return DJ_E_NO_MEMORY;
    ticket->job = page;
    page->is_asked = true;
    return DJ_OK;
}

static void fail(struct head *head, struct page *page, enum dj_error error)
{
    head_reply_failed(head, page->link, page->request, error, "the session's records cannot be read: %s", dj_error_text(error));
    page_free(page);
}

static bool is_of(const struct page *page, const struct store_entry *entry, struct exec_id *ret)
{
    return record_key_parse_execution(entry->key, entry->key_bytes, ret) && ret->session == page->session;
}

static enum dj_error scan(struct head *head, struct page *page)
{
    uint8_t key[RECORD_KEY_MAX];
    struct store_batch *batch = batch_make();
    struct exec_id from = {.session = page->session, .counter = page->from};
    struct store_item *item = batch == NULL ? NULL
                                            : batch_add(batch, STORE_SCAN, STORE_EXECUTION, key, record_key_execution(from, key));

    if (item == NULL) {
        batch_free(batch);
        return DJ_E_NO_MEMORY;
    }
    item->scan_max = PAGE_RECORDS + 1;    // one more says where the next page begins
    page->step = PAGE_SCANS;
    return ask(head, page, batch);
}

static enum dj_error read_large(struct head *head, struct page *page)
{
    struct store_batch *batch = NULL;
    struct exec_id id;

    for (uint32_t i = 0; i < page->records->entries; i++) {
        const struct store_entry *entry = &page->records->entry[i];
        if (entry->value->bytes != 0 || !is_of(page, entry, &id))
            continue;
        if ((batch == NULL && (batch = batch_make()) == NULL) ||
            batch_add(batch, STORE_GET, STORE_EXECUTION, entry->key, entry->key_bytes) == NULL) {
            batch_free(batch);
            return DJ_E_NO_MEMORY;
        }
    }
    page->step = PAGE_READS_LARGE;
    return batch == NULL ? DJ_OK : ask(head, page, batch);
}

static enum dj_error take_large(struct page *page, const struct store_result *result)
{
    uint32_t at = 0;
    struct exec_id id;

    for (uint32_t i = 0; i < page->records->entries && result != NULL; i++) {
        struct store_entry *entry = &page->records->entry[i];
        if (entry->value->bytes != 0 || !is_of(page, entry, &id))
            continue;
        if (at == result->entries)
            return DJ_E_NOT_FOUND;
        blob_drop(entry->value);
        entry->value = blob_hold(result->entry[at++].value);
    }
    return DJ_OK;
}

// The plans that this link has not been told, of the records that fit.
static enum dj_error choose(struct head *head, struct page *page, struct head_link *link)
{
    uint64_t bytes = 0;
    struct exec_id id = {0};
    struct record record;

    page->plan = calloc((size_t)page->records->entries + 1, sizeof *page->plan);
    if (page->plan == NULL)
        return DJ_E_NO_MEMORY;
    if (link->told_plans == NULL && map_make(RECOVERY_PLANS_MAX, &link->told_plans) != DJ_OK)
        return DJ_E_NO_MEMORY;
    for (page->count = 0; page->count < page->records->entries; page->count++) {
        const struct store_entry *entry = &page->records->entry[page->count];
        struct reader reader = reader_make(entry->value->data, entry->value->bytes);
        bytes += entry->value->bytes;
        if (!is_of(page, entry, &id)) {
            page->next = 0;
            return DJ_OK;
        }
        page->next = id.counter;
        if (page->count == PAGE_RECORDS || (bytes > PAGE_BYTES && page->count > 0))
            return DJ_OK;
        if (record_read(&reader, &head->scratch, &record) != DJ_OK || record.kind != RECORD_EXECUTION ||
            map_get(link->told_plans, record.execution.plan) != NULL)
            continue;
        if (map_put(link->told_plans, record.execution.plan, link) != DJ_OK)
            return DJ_E_LIMIT;
        page->plan[page->plans].fingerprint = record.execution.plan;
        page->plan[page->plans++].record = page->count;
    }
    page->next = 0;
    return DJ_OK;
}

static enum dj_error read_plans(struct head *head, struct page *page)
{
    struct store_batch *batch = batch_make();
    uint8_t key[RECORD_KEY_MAX];

    for (uint32_t i = 0; batch != NULL && i < page->plans; i++)
        if (batch_add(batch, STORE_GET, STORE_PLAN, key, record_key_plan(page->plan[i].fingerprint, key)) == NULL) {
            batch_free(batch);
            return DJ_E_NO_MEMORY;
        }
    if (batch == NULL)
        return DJ_E_NO_MEMORY;
    page->step = PAGE_READS_PLANS;
    return ask(head, page, batch);
}

static const struct store_entry *plan_of(const struct store_result *plans, uint32_t index)
{
    for (uint32_t i = 0; plans != NULL && i < plans->entries; i++)
        if (plans->entry[i].item == index)
            return &plans->entry[i];
    return NULL;    // no worker told it: what names it cannot be replayed
}

// Each record behind the plan that it is the first to name, as many as fit; where the next page begins.
static enum dj_error tell(struct head *head, struct page *page, struct head_link *link, const struct store_result *plans)
{
    struct writer writer = writer_make(PART_BYTES_MAX);
    struct wire_journal_part part = {.request = page->request};
    uint32_t next_plan = 0;

    for (uint32_t i = 0; i < page->count; i++) {
        const struct store_entry *entry = &page->records->entry[i];
        bool has_plan = next_plan < page->plans && page->plan[next_plan].record == i;
        const struct store_entry *plan = has_plan ? plan_of(plans, next_plan) : NULL;
        size_t bytes = entry->value->bytes + (plan == NULL ? 0 : plan->value->bytes);
        struct exec_id id;
        if (part.count > 0 && writer.length + bytes > PAGE_BYTES) {
            page->next = is_of(page, entry, &id) ? id.counter : 0;
            break;
        }
        if (plan != NULL)
            write_raw(&writer, plan->value->data, plan->value->bytes);
        write_raw(&writer, entry->value->data, entry->value->bytes);
        part.count += plan != NULL ? 2 : 1;
        next_plan += has_plan;
    }
    for (; next_plan < page->plans; next_plan++)
        map_take(link->told_plans, page->plan[next_plan].fingerprint);
    part.records = writer.data;
    part.records_bytes = (uint32_t)writer.length;
    part.next = page->next;
    if (writer.error == DJ_OK)
        head_send(head, page->link, WIRE_JOURNAL_PART, wire_journal_part_encode(&part));
    enum dj_error error = writer.error;
    writer_free(&writer);
    return error;
}

// What a read has brought; false when another is under way.
static enum dj_error proceed(struct head *head, struct page *page, struct head_link *link, const struct store_result *result,
                             bool *ret_is_over)
{
    enum dj_error error = DJ_OK;

    if (page->step == PAGE_SCANS) {
        error = read_large(head, page);
        if (error != DJ_OK || page->is_asked)
            return error;
        result = NULL;
    }
    if (page->step == PAGE_READS_LARGE) {
        error = take_large(page, result);
        if (error == DJ_OK)
            error = choose(head, page, link);
        if (error == DJ_OK && page->plans > 0)
            return read_plans(head, page);
        result = NULL;
    }
    *ret_is_over = true;
    return error == DJ_OK ? tell(head, page, link, result) : error;
}

void page_read(struct head *head, struct page *page, enum dj_error error, struct store_result *result)
{
    struct head_link *link = map_get(head->links, map_key(page->link));
    bool is_over = false, is_scan = page->step == PAGE_SCANS;

    page->is_asked = false;
    if (is_scan && error == DJ_OK)
        page->records = result;
    if (link != NULL && error == DJ_OK)
        error = proceed(head, page, link, result, &is_over);
    if (page->records != result)
        result_free(result);
    if (link == NULL || (error == DJ_OK && is_over))
        page_free(page);
    else if (error != DJ_OK)
        fail(head, page, error);
}

void pages_check(struct head *head)
{
    list_each (node, &head->pages) {
        struct page *page = list_entry(node, struct page, list);
        if (page->step != PAGE_WAITS || page->barrier > head->journal.durable)
            continue;
        enum dj_error error = scan(head, page);
        if (error != DJ_OK)
            fail(head, page, error);
    }
}

void journal_get(struct head *head, struct head_link *link, const struct wire_journal_get *get)
{
    struct page *page = calloc(1, sizeof *page);

    if (link->session == NULL || link->session->id != get->session || link->session->epoch != get->epoch || page == NULL) {
        free(page);
        head_reply_failed(head, link->link, get->request, page == NULL ? DJ_E_NO_MEMORY : DJ_E_SESSION_UNKNOWN,
                          "this connection has no session %llu", (unsigned long long)get->session);
        return;
    }
    if (get->from == 0 && link->told_plans != NULL) {
        map_free(link->told_plans);    // it begins anew
        link->told_plans = NULL;
    }
    page->link = link->link;
    page->request = get->request;
    page->session = get->session;
    page->from = get->from;
    page->barrier = journal_barrier(head);
    list_push(&head->pages, &page->list);
    pages_check(head);
}

void pages_end(struct head *head)
{
    if (head->pages.next == NULL)
        return;
    list_each (node, &head->pages)
        page_free(list_entry(node, struct page, list));
}
