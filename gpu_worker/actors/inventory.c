// Inventory: which values are here, told to the head: all of them after joining, since the head's table of handles is rebuilt and not
// stored; later those that it does not hear of through the journal, because they were made by the steps of a recovery.

#include "core/base/log.h"
#include "gpu_worker/actors/state.h"

#include <stdlib.h>

enum { PAGE_BYTES = 1000 << 10, ENTRY_BYTES_MAX = 10 + 5 + 10 };

void worker_inventory_add(struct worker *worker, struct handle handle, uint64_t bytes)
{
    if (worker->config.head[0] == '\0')
        return;
    if (worker->held_count == worker->held_capacity) {
        uint32_t larger = worker->held_capacity == 0 ? 256 : worker->held_capacity * 2;
        struct held_value *grown = larger > 2 * EXEC_VALUES_MAX ? NULL : realloc(worker->held, larger * sizeof *grown);
        if (grown == NULL) {
            log_write(LOG_WARN, "worker", "the head does not hear of a value: no memory");
            return;
        }
        worker->held = grown;
        worker->held_capacity = larger;
    }
    worker->held[worker->held_count++] = (struct held_value){.handle = handle, .bytes = bytes};
    worker_journal_soon(worker);
}

static int compare(const void *a, const void *b)
{
    const struct handle *left = &((const struct held_value *)a)->handle, *right = &((const struct held_value *)b)->handle;
    if (left->execution.session != right->execution.session)
        return left->execution.session < right->execution.session ? -1 : 1;
    if (left->execution.counter != right->execution.counter)
        return left->execution.counter < right->execution.counter ? -1 : 1;
    return left->output < right->output ? -1 : left->output > right->output;
}

static void send_page(struct worker *worker, struct wire_inventory *page, struct writer *writer, bool is_last)
{
    const struct session *session = map_get(worker->sessions, map_key(page->session));
    page->epoch = session == NULL ? 0 : session->epoch;
    page->handles = writer->data;
    page->handles_bytes = (uint32_t)writer->length;
    page->is_last = is_last;
    page->journal_next = is_last ? worker->journal_next : 0;
    if (page->count > 0 || is_last)
        worker_send(worker, worker->head_link, WIRE_INVENTORY, wire_inventory_encode(page));
    *page = (struct wire_inventory){0};
    writer_reset(writer);
}

// Sends what is in worker->held, a session at a time, and empties it.
static void send_held(struct worker *worker, bool is_all)
{
    struct wire_inventory page = {0};
    struct writer *writer = &worker->scratch;
    uint64_t counter = 0;
    writer_reset(writer);
    if (worker->held_count > 0)
        qsort(worker->held, worker->held_count, sizeof worker->held[0], compare);
    for (uint32_t i = 0; i < worker->held_count; i++) {
        const struct held_value *held = &worker->held[i];
        bool is_again = i > 0 && handle_equal(held->handle, worker->held[i - 1].handle);
        if (is_again || exec_value_state(worker->exec, held->handle) != VALUE_HERE)
            continue;
        if (page.count > 0 && (page.session != held->handle.execution.session || writer->length + ENTRY_BYTES_MAX > PAGE_BYTES))
            send_page(worker, &page, writer, false);
        page.session = held->handle.execution.session;
        write_var(writer, held->handle.execution.counter - (page.count == 0 ? 0 : counter));
        write_var(writer, held->handle.output);
        write_var(writer, held->bytes);
        counter = held->handle.execution.counter;
        page.count++;
    }
    send_page(worker, &page, writer, is_all);
    worker->held_count = 0;
}

void worker_inventory_flush(struct worker *worker)
{
    if (worker->held_count > 0)
        send_held(worker, false);
}

static void hold(void *context, struct handle handle, uint64_t bytes)
{
    worker_inventory_add(context, handle, bytes);
}

// Which sessions are here, also those of which nothing is held: a head that was started anew does not know whom it admitted where.
static void send_sessions(struct worker *worker)
{
    uint32_t cursor = 0;
    const struct session *session;
    while ((session = map_next(worker->sessions, &cursor, NULL)) != NULL) {
        struct wire_inventory page = {.session = session->id, .epoch = session->epoch};
        worker_send(worker, worker->head_link, WIRE_INVENTORY, wire_inventory_encode(&page));
    }
}

void worker_inventory_all(struct worker *worker)
{
    send_sessions(worker);
    worker->held_count = 0;
    exec_each_value(worker->exec, hold, worker);
    send_held(worker, true);
    if (worker->held_capacity > 4096) {    // a large one is rare
        free(worker->held);
        worker->held = NULL;
        worker->held_capacity = 0;
    }
}
