// Leaves: which worker holds which content, and the way of leaves into the store (offer, need, data in chunks, checked, committed) and out
// of it again (get).

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/log.h"
#include "sched/state.h"

enum { TRANSFER_PIECES = 2 };                 // of one leaf, sent and not yet answered
#define PATIENCE_NS ((uint64_t)2000000000)    // with a leaf of which nothing arrives: then whoever offers it is asked

struct head_leaf *leaf_see(struct head *head, struct hash128 content, uint64_t bytes)
{
    struct head_leaf *leaf = map_get(head->leaves, content);

    if (leaf != NULL) {
        leaf->spoken_ns = actor_now_ns(head->self);
        return leaf;
    }
    leaf = calloc(1, sizeof *leaf);
    if (leaf == NULL || map_put(head->leaves, content, leaf) != DJ_OK) {
        free(leaf);
        return NULL;
    }
    leaf->content = content;
    leaf->bytes = bytes;
    leaf->spoken_ns = actor_now_ns(head->self);
    return leaf;
}

static void drop_assembly(struct head *head, struct head_leaf *leaf)
{
    if (leaf->assembly != NULL)
        head->assembly_bytes -= leaf->bytes;
    blob_drop(leaf->assembly);
    leaf->assembly = NULL;
    leaf->assembled_bytes = 0;
    leaf->from_link = 0;
}

void leaf_offered(struct head *head, struct head_link *link, const struct wire_leaf_offer *offer)
{
    struct wire_leaf *lacking = arena_alloc(head->arena, (offer->leaves_count + 1) * sizeof *lacking);
    struct wire_leaf *have = arena_alloc(head->arena, (offer->leaves_count + 1) * sizeof *have);
    struct wire_leaf_need need = {.leaves = lacking};
    struct wire_leaf_ok ok = {.durable = true, .leaves = have};
    uint64_t now_ns = actor_now_ns(head->self);

    if (lacking == NULL || have == NULL)
        return;
    for (uint32_t i = 0; i < offer->leaves_count; i++) {
        struct head_leaf *leaf = leaf_see(head, offer->leaves[i].content, offer->leaves[i].bytes);
        struct wire_leaf named = {.content = offer->leaves[i].content, .bytes = offer->leaves[i].bytes};
        if (leaf == NULL)
            continue;
        // While it arrives its size stays what room was made for.
        if (!leaf->is_stored && leaf->from_link == 0)
            leaf->bytes = offer->leaves[i].bytes;
        bool is_stuck = leaf->from_link != 0 && (leaf->assembly == NULL || leaf->assembled_bytes < leaf->bytes) &&
                        now_ns - leaf->moved_ns > PATIENCE_NS;
        if (!leaf->is_stored && is_stuck)
            drop_assembly(head, leaf);
        if (leaf->is_stored) {
            have[ok.leaves_count++] = named;
        } else if (leaf->from_link == 0) {
            leaf->from_link = link->link;
            leaf->moved_ns = now_ns;
            lacking[need.leaves_count++] = named;
        }
        // A leaf that is on its way from somebody else is neither: every worker hears when the store has it.
    }
    if (need.leaves_count > 0)
        head_send(head, link->link, WIRE_LEAF_NEED, wire_leaf_need_encode(&need));
    if (ok.leaves_count > 0)
        head_send(head, link->link, WIRE_LEAF_OK, wire_leaf_ok_encode(&ok));
}

static void commit_leaf(struct head *head, struct head_leaf *leaf, uint64_t link)
{
    uint8_t key[RECORD_KEY_MAX];
    struct store_batch *batch = batch_make();
    struct store_item *item = batch == NULL
                                  ? NULL
                                  : batch_add(batch, STORE_PUT_IF_ABSENT, STORE_LEAF, key, record_key_leaf(leaf->content, key));

    if (item == NULL) {
        batch_free(batch);
        drop_assembly(head, leaf);
        return;
    }
    item->value = blob_hold(leaf->assembly);
    item->value_bytes = leaf->assembly->bytes;
    struct head_ticket *ticket = head_ticket(head, actor_store_commit(head->self, batch), TICKET_LEAF);
    if (ticket != NULL) {
        ticket->hash = leaf->content;
        ticket->link = link;
    }
}

void leaf_data(struct head *head, struct head_link *link, const struct wire_leaf_data *data, struct blob *bulk)
{
    struct head_leaf *leaf = map_get(head->leaves, data->content);
    uint64_t bytes = bulk == NULL ? 0 : bulk->bytes;

    if (leaf == NULL || leaf->from_link != link->link || leaf->is_stored)
        return;
    if (leaf->assembly != NULL && leaf->assembled_bytes == leaf->bytes)
        return;    // all of it is here, and on its way into the store
    if (leaf->assembly == NULL) {
        if (data->offset != 0 || data->bytes != leaf->bytes || head->assembly_bytes + leaf->bytes > HEAD_ASSEMBLY_BYTES_MAX ||
            (leaf->assembly = blob_make(leaf->bytes)) == NULL) {
            head_reply_failed(head, link->link, 0, DJ_E_NO_MEMORY, "the head cannot take a leaf of %" PRIu64 " bytes",
                              data->bytes);
            leaf->from_link = 0;
            return;
        }
        head->assembly_bytes += leaf->bytes;
    }
    if (data->offset != leaf->assembled_bytes || bytes > leaf->bytes - leaf->assembled_bytes) {
        drop_assembly(head, leaf);
        head_reply_failed(head, link->link, 0, DJ_E_MALFORMED, "a leaf's chunks are out of order or too long");
        return;
    }
    if (bytes > 0)
        memcpy(leaf->assembly->data + leaf->assembled_bytes, bulk->data, bytes);
    leaf->assembled_bytes += bytes;
    leaf->moved_ns = actor_now_ns(head->self);
    if (leaf->assembled_bytes < leaf->bytes)
        return;
    if (!hash128_equal(hash128(leaf->assembly->data, leaf->assembly->bytes), leaf->content)) {
        drop_assembly(head, leaf);
        head_reply_failed(head, link->link, 0, DJ_E_FRAME_CORRUPT, "a leaf's bytes are not what its name says");
        return;
    }
    commit_leaf(head, leaf, link->link);
}

void leaf_stored(struct head *head, struct head_ticket *ticket, enum dj_error error)
{
    struct head_leaf *leaf = map_get(head->leaves, ticket->hash);

    if (leaf == NULL)
        return;
    uint64_t bytes = leaf->bytes;
    drop_assembly(head, leaf);
    if (error != DJ_OK) {
        head_reply_failed(head, ticket->link, 0, error, "the store cannot take a leaf of %" PRIu64 " bytes: %s", bytes,
                          dj_error_text(error));
        return;
    }
    leaf->is_stored = true;
    head->leaves_stored++;
    head->leaf_bytes_stored += bytes;
    struct wire_leaf named = {.content = leaf->content, .bytes = bytes};
    struct wire_leaf_ok ok = {.durable = true, .leaves = &named, .leaves_count = 1};
    // Every worker hears of it: others may have offered the same leaf while it was on its way.
    for (uint32_t i = 0; i < HEAD_WORKERS_MAX; i++)
        if (head->worker[i] != NULL)
            head_send(head, head->worker[i]->link, WIRE_LEAF_OK, wire_leaf_ok_encode(&ok));
    const struct head_link *offerer = map_get(head->links, map_key(ticket->link));
    if (offerer != NULL && offerer->role == ROLE_CLIENT)
        head_send(head, ticket->link, WIRE_LEAF_OK, wire_leaf_ok_encode(&ok));
}

void leaf_get(struct head *head, struct head_link *link, const struct wire_leaf_get *get)
{
    struct head_leaf *leaf = map_get(head->leaves, get->content);
    struct store_batch *batch = batch_make();
    uint8_t key[RECORD_KEY_MAX];

    if (leaf == NULL || !leaf->is_stored || batch == NULL ||
        batch_add(batch, STORE_GET, STORE_LEAF, key, record_key_leaf(get->content, key)) == NULL) {
        batch_free(batch);
        head_reply_failed(head, link->link, get->request, DJ_E_LEAF_UNKNOWN, "the store does not have this leaf");
        return;
    }
    struct head_ticket *ticket = head_ticket(head, actor_store_read(head->self, batch), TICKET_LEAF_READ);
    if (ticket != NULL) {
        ticket->hash = get->content;
        ticket->link = link->link;
        ticket->request = get->request;
    }
}

static void end_transfer(struct head *head, struct head_transfer *transfer)
{
    map_take(head->transfers, map_key(transfer->id));
    blob_drop(transfer->value);
    free(transfer);
}

// The next piece and a PING whose PONG brings the one after; false when the last one was sent.
static bool send_piece(struct head *head, struct head_transfer *transfer)
{
    uint64_t left = transfer->value->bytes - transfer->sent_bytes, piece = left < WIRE_CHUNK_BYTES ? left : WIRE_CHUNK_BYTES;
    struct wire_leaf_data data = {.content = transfer->content, .bytes = transfer->value->bytes, .offset = transfer->sent_bytes};
    struct wire_ping ping = {.number = transfer->id};
    struct blob *body = wire_leaf_data_encode(&data);
    bool is_last = piece == left;

    if (body == NULL) {
        end_transfer(head, transfer);
        return false;
    }
    actor_send(head->self, transfer->link, WIRE_LEAF_DATA, body, piece > 0 ? blob_hold(transfer->value) : NULL,
               transfer->sent_bytes, piece, 0);
    transfer->sent_bytes += piece;
    if (is_last)
        end_transfer(head, transfer);
    else
        head_send(head, transfer->link, WIRE_PING, wire_ping_encode(&ping));
    return !is_last;
}

void leaf_read_done(struct head *head, struct head_ticket *ticket, enum dj_error error, struct store_result *result)
{
    if (map_get(head->links, map_key(ticket->link)) == NULL)
        return;
    if (error == DJ_OK && result->entries == 0)
        error = DJ_E_LEAF_UNKNOWN;
    struct blob *value = error == DJ_OK ? result->entry[0].value : NULL;
    if (error == DJ_OK && !hash128_equal(hash128(value->data, value->bytes), ticket->hash))
        error = DJ_E_STORE_CORRUPT;
    if (error != DJ_OK) {
        head_reply_failed(head, ticket->link, ticket->request, error, "the store cannot give this leaf: %s",
                          dj_error_text(error));
        return;
    }
    struct head_transfer *transfer = calloc(1, sizeof *transfer);
    if (transfer == NULL || map_put(head->transfers, map_key(head->next_transfer + 1), transfer) != DJ_OK) {
        free(transfer);
        head_reply_failed(head, ticket->link, ticket->request, DJ_E_BUSY, "the head sends as many leaves as it may");
        return;
    }
    *transfer = (struct head_transfer){
        .id = ++head->next_transfer, .link = ticket->link, .content = ticket->hash, .value = blob_hold(value)};
    bool has_more = true;
    for (int i = 0; i < TRANSFER_PIECES && has_more; i++)
        has_more = send_piece(head, transfer);
}

void leaf_continue(struct head *head, const struct head_link *link, uint64_t id)
{
    struct head_transfer *transfer = map_get(head->transfers, map_key(id));

    if (transfer != NULL && transfer->link == link->link)
        send_piece(head, transfer);
}

// Who held it until now may still tell of executions that name it: for a while it counts as spoken of (collect.c).
static void drop_holder(const struct head *head, struct head_leaf *leaf, uint32_t worker)
{
    for (uint32_t i = 0; i < leaf->holders; i++)
        if (leaf->holder[i] == worker) {
            leaf->holder[i] = leaf->holder[--leaf->holders];
            leaf->spoken_ns = actor_now_ns(head->self);
            return;
        }
}

void leaf_holds(struct head *head, struct head_worker *worker, const struct wire_holds *holds)
{
    for (uint32_t i = 0; i < holds->gained_count; i++) {
        struct head_leaf *leaf = leaf_see(head, holds->gained[i].content, holds->gained[i].bytes);
        if (leaf == NULL)
            continue;
        drop_holder(head, leaf, worker->id);
        if (leaf->holders < LEAF_HOLDERS_MAX)
            leaf->holder[leaf->holders++] = worker->id;
    }
    for (uint32_t i = 0; i < holds->dropped_count; i++) {
        struct head_leaf *leaf = map_get(head->leaves, holds->dropped[i].content);
        if (leaf == NULL)
            continue;
        drop_holder(head, leaf, worker->id);
        leaf->spoken_ns = actor_now_ns(head->self);
    }
}

static void add_location(struct wire_located *located, struct wire_location *location, const struct head_link *link,
                         const struct head_worker *worker)
{
    if (worker != NULL && worker != link->worker && located->locations_count < LEAF_HOLDERS_MAX)
        worker_location(worker, &location[located->locations_count++]);
}

// A leaf by its content, or (content zero) a value by its handle.
void leaf_locate(struct head *head, struct head_link *link, const struct wire_locate *locate)
{
    struct wire_location location[LEAF_HOLDERS_MAX];
    struct wire_located located = {.request = locate->request, .locations = location};
    uint64_t incarnation[LEAF_HOLDERS_MAX];

    if (!hash128_is_zero(locate->content)) {
        struct head_leaf *leaf = map_get(head->leaves, locate->content);
        if (leaf != NULL)
            leaf->spoken_ns = actor_now_ns(head->self);
        for (uint32_t i = 0; leaf != NULL && i < leaf->holders; i++)
            add_location(&located, location, link, worker_find(head, leaf->holder[i]));
        located.in_store = leaf != NULL && leaf->is_stored;
    } else if (locate->handles_count == 1) {
        const struct wire_handle *handle = &locate->handles[0];
        const struct head_session *session = map_get(head->sessions, map_key(handle->session));
        struct record_ref ref = {.counter = handle->counter, .output = handle->output};
        uint32_t count = session == NULL ? 0 : lineage_locations(session, ref, incarnation, LEAF_HOLDERS_MAX);
        for (uint32_t i = 0; i < count; i++)
            add_location(&located, location, link, worker_living(head, incarnation[i]));
    }
    head_send(head, link->link, WIRE_LOCATED, wire_located_encode(&located));
}

void leaves_worker_gone(struct head *head, const struct head_worker *worker)
{
    uint32_t cursor = 0;
    struct head_leaf *leaf;

    while ((leaf = map_next(head->leaves, &cursor, NULL)) != NULL)
        drop_holder(head, leaf, worker->id);
}

// The map must not change while it is visited: the search starts anew behind each that ends.
static void end_transfers(struct head *head, uint64_t link)
{
    struct head_transfer *transfer;
    uint32_t cursor = 0;

    while ((transfer = map_next(head->transfers, &cursor, NULL)) != NULL)
        if (transfer->link == link) {
            end_transfer(head, transfer);
            cursor = 0;
        }
}

void leaves_link_down(struct head *head, uint64_t link)
{
    uint32_t cursor = 0;
    struct head_leaf *leaf;

    end_transfers(head, link);
    while ((leaf = map_next(head->leaves, &cursor, NULL)) != NULL)
        if (leaf->from_link == link && !leaf->is_stored && (leaf->assembly == NULL || leaf->assembled_bytes < leaf->bytes))
            drop_assembly(head, leaf);
}
