// Tags: named checkpoints of a tenant. A tag's record lists values whose pieces are leaves in the store; it is answered when it is durable
// itself, and its pieces are never collected while it names them.

#include <stdio.h>

#include "sched/state.h"

enum { TAG_BYTES_MAX = 1 << 20 };

static bool is_stored(const struct head *head, const struct record_checkpoint *checkpoint)
{
    struct reader reader = reader_make(checkpoint->piece, checkpoint->piece_bytes);

    for (uint32_t i = 0; i < checkpoint->pieces; i++) {
        const struct head_leaf *leaf = map_get(head->leaves, record_piece_read(&reader).content);
        if (leaf == NULL || !leaf->is_stored)
            return false;
    }
    return reader.error == DJ_OK;
}

// Every entry is a checkpoint, all of whose pieces the store has.
static enum dj_error check_entries(struct head *head, const struct record_tag *tag)
{
    struct reader reader = reader_make(tag->entry, tag->entry_bytes);
    struct record_scratch scratch;
    struct record entry;

    enum dj_error error = record_scratch_make(&scratch);
    if (error != DJ_OK)
        return error;
    for (uint32_t i = 0; i < tag->entries && error == DJ_OK; i++) {
        error = record_read(&reader, &scratch, &entry);
        if (error == DJ_OK && (entry.kind != RECORD_CHECKPOINT || entry.checkpoint.is_replica))
            error = DJ_E_MALFORMED;
        if (error == DJ_OK && !is_stored(head, &entry.checkpoint))
            error = DJ_E_LEAF_UNKNOWN;
    }
    record_scratch_free(&scratch);
    return error != DJ_OK ? error : reader_left(&reader) == 0 ? DJ_OK : DJ_E_MALFORMED;
}

enum dj_error tag_put(struct head *head, struct head_link *link, const struct wire_tag_put *put)
{
    struct reader reader = reader_make(put->record, put->record_bytes);
    struct record record;

    if (link->session == NULL) {
        head_reply_failed(head, link->link, put->request, DJ_E_SESSION_UNKNOWN, "a tag belongs to a session's tenant");
        return DJ_OK;
    }
    enum dj_error error = record_read(&reader, &head->scratch, &record);
    if (error != DJ_OK || record.kind != RECORD_TAG || put->name[0] == '\0')
        return DJ_E_MALFORMED;
    error = check_entries(head, &record.tag);
    if (error == DJ_E_LEAF_UNKNOWN) {
        head_reply_failed(head, link->link, put->request, error, "the store does not have all the bytes of the checkpoint \"%s\"",
                          put->name);
        return DJ_OK;
    }
    if (error != DJ_OK)
        return error;
    if (head->is_full) {
        head_reply_failed(head, link->link, put->request, DJ_E_STORE_FULL, "the head's disk is full");
        return DJ_OK;
    }
    // The name and the tenant are what the message and the session say, whatever is in the record.
    snprintf(record.tag.tenant, sizeof record.tag.tenant, "%s", link->session->tenant);
    snprintf(record.tag.name, sizeof record.tag.name, "%s", put->name);
    record.tag.made_ns = head_wall_ns(head);
    struct writer writer = writer_make(TAG_BYTES_MAX);
    record_write(&writer, &record);
    struct wire_tag tag = {.request = put->request, .record = writer.data, .record_bytes = (uint32_t)writer.length};
    struct blob *body = writer.error == DJ_OK ? wire_tag_encode(&tag) : NULL;
    writer_free(&writer);
    struct head_ticket *ticket = body == NULL ? NULL : head_commit_record(head, &record, STORE_TAG, TICKET_TAG_PUT);
    if (ticket == NULL) {
        blob_drop(body);
        head_reply_failed(head, link->link, put->request, DJ_E_LIMIT, "the checkpoint \"%s\" has too many entries", put->name);
        return DJ_OK;
    }
    ticket->link = link->link;
    ticket->request = put->request;
    ticket->body = body;
    return DJ_OK;
}

void tag_stored(struct head *head, struct head_ticket *ticket, enum dj_error error)
{
    if (map_get(head->links, map_key(ticket->link)) == NULL)
        return;
    if (error != DJ_OK) {
        head_reply_failed(head, ticket->link, ticket->request, error, "the store cannot take the checkpoint: %s",
                          dj_error_text(error));
        return;
    }
    head_send(head, ticket->link, WIRE_TAG, ticket->body);
    ticket->body = NULL;
}

void tag_get(struct head *head, struct head_link *link, const struct wire_tag_get *get)
{
    struct store_batch *batch = batch_make();
    uint8_t key[RECORD_KEY_MAX];

    if (link->session == NULL || batch == NULL ||
        batch_add(batch, STORE_GET, STORE_TAG, key, record_key_tag(link->session->tenant, get->name, key)) == NULL) {
        batch_free(batch);
        head_reply_failed(head, link->link, get->request, link->session == NULL ? DJ_E_SESSION_UNKNOWN : DJ_E_NO_MEMORY,
                          "a tag belongs to a session's tenant");
        return;
    }
    struct head_ticket *ticket = head_ticket(head, actor_store_read(head->self, batch), TICKET_TAG_GET);
    if (ticket != NULL) {
        ticket->link = link->link;
        ticket->request = get->request;
    }
}

void tag_read(struct head *head, const struct head_ticket *ticket, enum dj_error error, const struct store_result *result)
{
    if (map_get(head->links, map_key(ticket->link)) == NULL)
        return;
    if (error == DJ_OK && result->entries == 0) {
        head_reply_failed(head, ticket->link, ticket->request, DJ_E_NOT_FOUND,
                          "there is no checkpoint of that name; djinn.checkpoint(name, tensors) makes one");
        return;
    }
    if (error != DJ_OK) {
        head_reply_failed(head, ticket->link, ticket->request, error, "the store cannot give the checkpoint: %s",
                          dj_error_text(error));
        return;
    }
    const struct blob *value = result->entry[0].value;
    struct wire_tag tag = {.request = ticket->request, .record = value->data, .record_bytes = (uint32_t)value->bytes};
    head_send(head, ticket->link, WIRE_TAG, wire_tag_encode(&tag));
}
