// Serve: how leaves leave here: to other workers that ask, and to the store behind the results. And what the head is told about leaves, in
// batches: which are here, which are gone, which the store should have.
//
// Reading a leaf back takes the device's and the link's time, so pieces go one at a time, and to the store only while nothing is
// computed (or after a bounded wait). Each piece is followed by a PING, and at most PIECES_MAX wait for their PONG: else a large leaf would
// lie in the link's queue as a whole, and a heartbeat behind it would come too late to keep the lease.

#include "core/base/planted.h"
#include "gpu_worker/actors/state.h"

#include <stdlib.h>

enum { BATCH_MAX = 4096, SERVED_MAX = 1 << 15, IDLE_WAITS_MAX = 5, PIECES_MAX = 2, FAILURES_MAX = 8 };
#define BATCH_AFTER_NS ((uint64_t)10000000)
#define PIECE_AFTER_NS ((uint64_t)2000000)

static bool push(struct wire_leaf **list, uint32_t *count, uint32_t *capacity, struct hash128 content, uint64_t bytes)
{
    if (*count == *capacity) {
        uint32_t larger = *capacity == 0 ? 64 : *capacity * 2;
        struct wire_leaf *grown = realloc(*list, larger * sizeof *grown);
        if (grown == NULL)
            return false;
        *list = grown;
        *capacity = larger;
    }
    (*list)[(*count)++] = (struct wire_leaf){.content = content, .bytes = bytes};
    return true;
}

void worker_serve_tell(struct worker *worker, struct hash128 content, uint64_t bytes, bool is_gained, bool to_store)
{
    if (worker->config.head[0] == '\0')
        return;
    if (is_gained) {
        (void)push(&worker->gained, &worker->gained_count, &worker->gained_capacity, content, bytes);
        if (to_store)
            (void)push(&worker->to_store, &worker->to_store_count, &worker->to_store_capacity, content, bytes);
    } else {
        (void)push(&worker->dropped, &worker->dropped_count, &worker->dropped_capacity, content, bytes);
    }
    actor_timer(worker->self, TIMER_BATCH, actor_now_ns(worker->self) + BATCH_AFTER_NS);
}

void worker_serve_offer(struct worker *worker, struct hash128 content, uint64_t bytes)
{
    (void)push(&worker->to_store, &worker->to_store_count, &worker->to_store_capacity, content, bytes);
    actor_timer(worker->self, TIMER_BATCH, actor_now_ns(worker->self) + BATCH_AFTER_NS);
}

static uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static void flush_holds(struct worker *worker)
{
    uint32_t gained = 0, dropped = 0;
    while (gained < worker->gained_count || dropped < worker->dropped_count) {
        struct wire_holds holds = {.gained = worker->gained + gained,
                                   .gained_count = least(BATCH_MAX, worker->gained_count - gained),
                                   .dropped = worker->dropped + dropped,
                                   .dropped_count = least(BATCH_MAX, worker->dropped_count - dropped)};
        gained += holds.gained_count;
        dropped += holds.dropped_count;
        worker_send(worker, worker->head_link, WIRE_HOLDS, wire_holds_encode(&holds));
    }
    worker->gained_count = worker->dropped_count = 0;
}

static void flush_offers(struct worker *worker)
{
    for (uint32_t at = 0; at < worker->to_store_count;) {
        struct wire_leaf_offer offer = {.leaves = worker->to_store + at,
                                        .leaves_count = least(BATCH_MAX, worker->to_store_count - at)};
        at += offer.leaves_count;
        worker_send(worker, worker->head_link, WIRE_LEAF_OFFER, wire_leaf_offer_encode(&offer));
    }
    worker->to_store_count = 0;
}

// The batch timer also paces the pieces that go to the store.
void worker_serve_flush(struct worker *worker)
{
    actor_timer(worker->self, TIMER_BATCH, 0);
    if (worker->head_phase == HEAD_JOINED) {
        flush_holds(worker);
        flush_offers(worker);
    }
    worker_serve_pump(worker);
}

// `piece`: its bytes, when they are no leaf of the device.
static void begin(struct worker *worker, struct hash128 content, struct blob *piece, uint64_t link)
{
    struct served *served = worker->served_count >= SERVED_MAX ? NULL : calloc(1, sizeof *served);
    if (served == NULL)
        return;
    *served = (struct served){.content = content,
                              .link = link,
                              .piece = piece == NULL ? NULL : blob_hold(piece),
                              .to_head = link == worker->head_link,
                              .bytes = piece == NULL ? exec_leaf_bytes(worker->exec, content) : piece->bytes,
                              .number = ++worker->next_request};
    list_push(&worker->serving, &served->list);
    worker->served_count++;
    worker_serve_pump(worker);
}

void worker_serve_get(struct worker *worker, uint64_t link, const struct wire_leaf_get *get)
{
    if (exec_leaf_state(worker->exec, get->content) != LEAF_READY || worker->served_count >= SERVED_MAX) {
        worker_fail(worker, link, get->request, DJ_E_LEAF_UNKNOWN, "this worker does not have the leaf");
        return;
    }
    begin(worker, get->content, NULL, link);
}

void worker_serve_need(struct worker *worker, uint64_t link, const struct wire_leaf_need *need)
{
    for (uint32_t i = 0; i < need->leaves_count; i++) {
        struct hash128 content = need->leaves[i].content;
        struct blob *piece = worker_cut_piece(worker, content);
        if (piece == NULL)
            piece = exec_leaf_host(worker->exec, content);
        if (piece != NULL || exec_leaf_state(worker->exec, content) == LEAF_READY)
            begin(worker, content, piece, link);
        else
            worker_cut_lacks(worker, content);
    }
}

// The store has these: they may be dropped here, and clients need not keep them.
void worker_serve_stored(struct worker *worker, const struct wire_leaf_ok *ok)
{
    if (!ok->durable)
        return;
    uint32_t leaves = 0;
    for (uint32_t i = 0; i < ok->leaves_count; i++) {
        leaves += exec_leaf_state(worker->exec, ok->leaves[i].content) != LEAF_ABSENT;
        exec_leaf_set_durable(worker->exec, ok->leaves[i].content);
    }
    uint32_t cursor = 0;
    struct session *session;
    while (leaves > 0 && (session = map_next(worker->sessions, &cursor, NULL)) != NULL) {
        list_each (node, &session->streams) {
            const struct stream *stream = list_entry(node, struct stream, list);
            if (stream->link != 0)
                worker_send(worker, stream->link, WIRE_LEAF_OK, wire_leaf_ok_encode(ok));
        }
    }
    worker_journal_leaf_stored(worker);
    worker_cuts_stored(worker, worker->head_link, ok);
}

static void served_free(struct worker *worker, struct served *served)
{
    list_remove(&served->list);
    worker->served_count--;
    blob_drop(served->piece);
    free(served);
}

// Sends the next piece's read to the device; false when the leaf is gone or memory is short.
static bool read_piece(struct worker *worker, struct served *served)
{
    uint64_t left = served->bytes - served->offset;
    struct exec_run *run;
    if (exec_leaf_read(worker->exec, served->content, served->offset, left < WIRE_CHUNK_BYTES ? left : WIRE_CHUNK_BYTES, &run) !=
        DJ_OK)
        return false;
    struct flight flight = {.kind = OWNER_LEAF_OUT, .served = served};
    if (worker_submit(worker, run, &flight))
        return true;
    run->list.error = fault_set(&run->list.fault, DJ_E_NO_MEMORY, "%s", dj_error_text(DJ_E_NO_MEMORY));
    exec_complete(worker->exec, run);
    exec_run_free(worker->exec, run);
    return false;
}

static bool is_busy(const struct worker *worker)
{
    return map_count(worker->flights) > 0;
}

// Other workers first, since somebody waits for them; then what need not be read: records wait for it; then the rest.
static int rank(const struct served *served)
{
    return !served->to_head ? 0 : served->piece != NULL ? 1 : 2;
}

// The next leaf to go on with.
static struct served *choose(struct worker *worker)
{
    struct served *chosen = NULL;
    // served_free unlinks before it frees, which the analyzer does not follow through the neighbours' pointers.
    // NOLINTNEXTLINE(clang-analyzer-unix.Malloc)
    list_each (node, &worker->serving) {
        struct served *served = list_entry(node, struct served, list);
        if (served->is_waiting)
            continue;
        if (chosen == NULL || rank(served) < rank(chosen))
            chosen = served;
        if (rank(chosen) == 0)
            break;
    }
    return chosen;
}

static void send_piece(struct worker *worker, struct served *served, struct blob *body, struct blob *from, uint64_t offset,
                       uint64_t bytes)
{
    struct wire_ping ping = {.number = served->number};
    actor_send(worker->self, served->link, WIRE_LEAF_DATA, body, bytes == 0 ? NULL : blob_hold(from), offset, bytes, 0);
    worker_send(worker, served->link, WIRE_PING, wire_ping_encode(&ping));
    worker->load.bytes_out += bytes;
    served->offset += bytes;
    served->is_waiting = true;
    worker->pieces_out++;
}

static void send_chunk_of(struct worker *worker, struct served *served)
{
    struct wire_leaf_data data = {.content = served->content, .bytes = served->bytes, .offset = served->offset};
    struct blob *body = wire_leaf_data_encode(&data);
    uint64_t left = served->bytes - served->offset;
    if (body == NULL)
        served_free(worker, served);
    else
        send_piece(worker, served, body, served->piece, served->offset, left < WIRE_CHUNK_BYTES ? left : WIRE_CHUNK_BYTES);
}

void worker_serve_pump(struct worker *worker)
{
    struct served *served;
    while (worker->serving_in_flight == 0 && worker->pieces_out < PIECES_MAX && (served = choose(worker)) != NULL) {
        if (served->to_head && served->piece == NULL && is_busy(worker) && worker->idle_waits++ < IDLE_WAITS_MAX) {
            actor_timer(worker->self, TIMER_BATCH, actor_now_ns(worker->self) + PIECE_AFTER_NS);
            return;
        }
        worker->idle_waits = 0;
        if (served->piece != NULL)
            send_chunk_of(worker, served);
        else if (read_piece(worker, served))
            worker->serving_in_flight++;
        else
            served_free(worker, served);
    }
}

void worker_serve_chunk_done(struct worker *worker, struct served *served, struct exec_run *run)
{
    worker->serving_in_flight--;
    struct wire_leaf_data data = {.content = served->content, .bytes = served->bytes, .offset = served->offset};
    struct blob *body = run->error == DJ_OK && served->link != 0 ? wire_leaf_data_encode(&data) : NULL;
    bool again = run->error != DJ_OK && served->link != 0 && served->failures++ < FAILURES_MAX;    // the receiver waits for it
    if (body != NULL)
        send_piece(worker, served, body, run->blob, 0, run->blob->bytes);
    else if (!again)
        served_free(worker, served);
    exec_run_free(worker->exec, run);
    worker_serve_pump(worker);
}

// The receiver has read the piece that this PING followed.
void worker_serve_pong(struct worker *worker, uint64_t link, const struct wire_pong *pong)
{
    list_each (node, &worker->serving) {
        struct served *served = list_entry(node, struct served, list);
        if (!served->is_waiting || served->link != link || served->number != pong->number)
            continue;
        served->is_waiting = false;
        worker->pieces_out--;
        if (served->offset >= served->bytes)
            served_free(worker, served);
        break;
    }
    worker_serve_pump(worker);
}

// link 0: the head's. What is in flight ends when its read is done.
void worker_serve_link_down(struct worker *worker, uint64_t link)
{
    list_each (node, &worker->serving) {
        struct served *served = list_entry(node, struct served, list);
        if (link == 0 ? !served->to_head : served->to_head || served->link != link)
            continue;
        served->link = 0;
        if (!served->is_waiting && (served->piece == NULL || PLANTED(SEND_TO_NOBODY)))
            continue;
        worker->pieces_out -= served->is_waiting;
        served_free(worker, served);
    }
}

static void leaf_again(void *context, struct hash128 content, uint64_t bytes)
{
    worker_serve_tell(context, content, bytes, true, true);
}

// A head that begins anew knows nothing of what is here.
void worker_serve_rejoined(struct worker *worker)
{
    worker->gained_count = worker->dropped_count = worker->to_store_count = 0;
    exec_each_leaf(worker->exec, leaf_again, worker);
}
