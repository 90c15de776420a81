// Send: what every file of this folder does all the time: messages, refusals, tickets, single records.

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/base/log.h"
#include "sched/state.h"

void head_send(struct head *head, uint64_t link, uint16_t message, struct blob *body)
{
    if (body == NULL) {
        log_write(LOG_ERROR, "head", "cannot encode a message message=%s", wire_name(message));
        return;
    }
    actor_send(head->self, link, message, body, NULL, 0, 0, 0);
}

void head_reply_failed(struct head *head, uint64_t link, uint64_t request, enum dj_error error, const char *format, ...)
{
    struct wire_failed failed = {.request = request, .error = (uint32_t)error};
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(failed.text, sizeof failed.text, format, arguments);
    va_end(arguments);
    head_send(head, link, WIRE_FAILED, wire_failed_encode(&failed));
}

struct head_ticket *head_ticket(struct head *head, uint64_t ticket, enum ticket_kind kind)
{
    struct head_ticket *made = calloc(1, sizeof *made);
    if (made == NULL || map_put(head->tickets, map_key(ticket), made) != DJ_OK) {
        log_write(LOG_ERROR, "head", "no room to remember a request to the store");
        free(made);
        return NULL;
    }
    made->kind = kind;
    return made;
}

struct head_ticket *head_commit_record(struct head *head, const struct record *record, enum store_table table,
                                       enum ticket_kind kind)
{
    uint8_t key[RECORD_KEY_MAX];
    struct writer writer = writer_make(RECORD_BYTES_MAX);
    struct store_batch *batch = batch_make();

    record_write(&writer, record);
    struct store_item *item = batch == NULL ? NULL : batch_add(batch, STORE_PUT, table, key, record_key(record, key));
    struct blob *value = writer.error == DJ_OK ? blob_copy(writer.data, writer.length) : NULL;
    writer_free(&writer);
    if (item == NULL || value == NULL) {
        log_write(LOG_ERROR, "head", "no memory to write a record");
        blob_drop(value);
        batch_free(batch);
        return NULL;
    }
    item->value = value;
    item->value_bytes = value->bytes;
    return head_ticket(head, actor_store_commit(head->self, batch), kind);
}
