// Pieces: values are read a piece at a time, each piece is named by its content and made safe: in the head's store, or in another worker's
// memory. When all pieces of all values of a cut are safe, the journal gets a RECORD_CHECKPOINT for each value, and a client that asked
// is told.
//
// Paced: pieces go a few at a time; while the device computes, PACE_BYTES a tick at most.
//
//   piece   READING -> OFFERED -> (asked for, sent: serve.c) -> OK

#include "gpu_worker/actors/cut.h"

#include "core/base/log.h"
#include "core/base/planted.h"

#include <stdlib.h>

enum { READS_MAX = 64, PACE_BYTES = 1 << 20, RETRIES_MAX = 3, RECORDS_BYTES_MAX = 1 << 20 };
#define PIECES_BYTES_MAX ((uint64_t)64 << 20)
#define PACE_NS ((uint64_t)2000000)

// Pieces that are out --------------------------------------------------------------------------------------------------

static void piece_free(struct worker *worker, struct piece *piece)
{
    if (piece->blob != NULL) {
        worker->pieces_bytes -= piece->bytes;
        worker->pieces_read--;
    }
    blob_drop(piece->blob);
    free(piece);
}

// Takes the pieces out of the table that `is_it` says; those that go were in *ret's chain.
static void take_pieces(struct worker *worker, struct hash128 content, const struct cut *cut, struct piece **ret)
{
    struct piece *first = map_take(worker->pieces, content), *left = NULL;
    while (first != NULL) {
        struct piece *next = first->same;
        struct piece **to = cut == NULL || first->cut == cut ? ret : &left;
        first->same = *to;
        *to = first;
        first = next;
    }
    if (left != NULL && map_put(worker->pieces, content, left) != DJ_OK)
        log_write(LOG_ERROR, "worker", "pieces of a checkpoint are lost: no memory");
}

static void let_go_of_reads(struct worker *worker, const struct cut *cut)
{
    uint32_t cursor = 0;
    struct flight *flight;
    while ((flight = map_next(worker->flights, &cursor, NULL)) != NULL) {
        if (flight->kind == OWNER_PIECE && flight->piece->cut == cut)
            flight->piece->cut = NULL;
    }
}

void pieces_drop(struct worker *worker, const struct cut *cut)
{
    let_go_of_reads(worker, cut);
    for (uint32_t i = 0; i < cut->values; i++) {
        for (uint32_t p = 0; p < cut->value[i].next; p++) {
            struct piece *gone = NULL;
            take_pieces(worker, cut->value[i].piece[p].content, cut, &gone);
            while (gone != NULL) {
                struct piece *next = gone->same;
                piece_free(worker, gone);
                gone = next;
            }
        }
    }
}

// The place -----------------------------------------------------------------------------------------------------------

static uint64_t place_of(const struct worker *worker, const struct cut *cut)
{
    if (cut->to_replica)
        return cut->to_link;
    return worker->head_phase == HEAD_JOINED ? worker->head_link : 0;
}

static void offer(struct worker *worker, const struct cut *cut, const struct wire_leaf *leaf, uint32_t leaves)
{
    struct wire_leaf_offer said = {.leaves = leaf, .leaves_count = leaves};
    uint64_t link = place_of(worker, cut);
    if (link != 0 && leaves > 0)
        worker_send(worker, link, WIRE_LEAF_OFFER, wire_leaf_offer_encode(&said));
}

static bool put_piece(struct worker *worker, struct piece *piece)
{
    piece->same = map_get(worker->pieces, piece->content);
    return map_put(worker->pieces, piece->content, piece) == DJ_OK;
}

// Offers the names of what is known of the value; false out of memory.
static bool offer_known(struct worker *worker, struct cut *cut, uint32_t index)
{
    struct cut_value *value = &cut->value[index];
    struct wire_leaf *leaf = arena_zero(worker->arena, (value->known + 1) * sizeof *leaf);
    if (leaf == NULL)
        return false;
    for (; value->next < value->known; value->next++) {
        const struct record_piece *known = &value->piece[value->next];
        struct piece *piece = calloc(1, sizeof *piece);
        if (piece == NULL)
            return false;
        *piece = (struct piece){
            .cut = cut, .value = index, .index = value->next, .content = known->content, .bytes = known->bytes};
        if (!put_piece(worker, piece)) {
            free(piece);
            return false;
        }
        leaf[value->next] = (struct wire_leaf){.content = known->content, .bytes = known->bytes};
        cut->pending++;
    }
    offer(worker, cut, leaf, value->known);
    return true;
}

static void find_place(struct worker *worker, struct cut *cut)
{
    bool has_failed = false;
    if (!cut->to_replica || cut->to_link != 0)
        return;
    cut->to_link = worker_peer_link(worker, &cut->session->replica, &has_failed);
    if (!has_failed)
        return;
    cut->session->replica.incarnation = 0;    // the store takes it, until the head names another worker
    cut_give_up(worker, cut, DJ_E_WORKER_LOST);
}

// Reading -------------------------------------------------------------------------------------------------------------

static bool is_computing(const struct worker *worker)
{
    return exec_stats(worker->exec).in_flight > worker->pieces_read;
}

// Whether one more piece may be read now.
static bool may_read(struct worker *worker, uint64_t bytes)
{
    if (worker->pieces_read >= READS_MAX || (worker->pieces_bytes > 0 && worker->pieces_bytes + bytes > PIECES_BYTES_MAX))
        return false;
    if (worker->pace_bytes == 0 || worker->pace_bytes + bytes <= PACE_BYTES || !is_computing(worker))
        return true;
    actor_timer(worker->self, TIMER_CUTS, actor_now_ns(worker->self) + PACE_NS);
    return false;
}

static enum dj_error read_piece(struct worker *worker, struct cut *cut, struct cut_value *value)
{
    const struct tensor_meta *meta = &value->pin.meta;
    int64_t size = meta->rank == 0 ? 1 : meta->size[value->dim], start = value->next * value->rows;
    int64_t rows = size - start < value->rows ? size - start : value->rows;
    struct record_piece *said = &value->piece[value->next];
    struct piece *piece = calloc(1, sizeof *piece);
    struct exec_run *run;
    enum dj_error error = piece == NULL ? DJ_E_NO_MEMORY : exec_read(worker->exec, &value->pin, value->dim, start, rows, &run);
    if (error != DJ_OK) {
        free(piece);
        return error;
    }
    *said = (struct record_piece){.rows = rows, .bytes = run->answer[0].bytes};
    *piece = (struct piece){.cut = cut, .value = cut->at, .index = value->next, .bytes = said->bytes};
    struct flight flight = {.kind = OWNER_PIECE, .piece = piece};
    if (!worker_submit(worker, run, &flight)) {
        run->list.error = DJ_E_NO_MEMORY;
        exec_complete(worker->exec, run);
        exec_run_free(worker->exec, run);
        free(piece);
        return DJ_E_NO_MEMORY;
    }
    piece->blob = blob_hold(run->blob);
    worker->pieces_read++;
    worker->pieces_bytes += piece->bytes;
    worker->pace_bytes += piece->bytes;
    value->next++;
    cut->pending++;
    return DJ_OK;
}

static void finish(struct worker *worker, struct cut *cut);

// Begins what may be begun. May free the cut.
static void step(struct worker *worker, struct cut *cut)
{
    while (cut->at < cut->values) {
        struct cut_value *value = &cut->value[cut->at];
        if (value->next < value->known && !offer_known(worker, cut, cut->at)) {
            cut_give_up(worker, cut, DJ_E_NO_MEMORY);
            return;
        }
        while (value->next < value->pieces) {
            uint64_t about = (uint64_t)tensor_bytes(&value->pin.meta) / value->pieces;
            if (!may_read(worker, about))
                return;
            enum dj_error error = read_piece(worker, cut, value);
            if (error != DJ_OK) {
                cut_give_up(worker, cut, error);
                return;
            }
        }
        cut_unpin(worker, value);    // reads in flight have pins of their own
        cut->at++;
    }
    if (cut->pending == 0 || (PLANTED(EARLY_CHECKPOINT) && cut->values > 2))
        finish(worker, cut);
}

void worker_cuts_pump(struct worker *worker)
{
    list_each (node, &worker->cuts) {
        struct cut *cut = list_entry(node, struct cut, list);
        find_place(worker, cut);
    }
    list_each (ready, &worker->cuts) {
        struct cut *cut = list_entry(ready, struct cut, list);
        if (place_of(worker, cut) != 0)
            step(worker, cut);
    }
}

void worker_cuts_tick(struct worker *worker)
{
    actor_timer(worker->self, TIMER_CUTS, 0);
    worker->pace_bytes = 0;
    worker_cuts_pump(worker);
}

void worker_cut_begin(struct worker *worker, struct cut *cut)
{
    for (uint32_t i = 0; i < cut->values; i++)
        cut_find_known(worker, cut, &cut->value[i]);
    cut->has_begun = true;
    cut->session->cuts++;
    cut->progress_ns = actor_now_ns(worker->self);
    list_push(&worker->cuts, &cut->list);
    worker_cuts_tick(worker);
}

void worker_cut_read_done(struct worker *worker, struct piece *piece, struct exec_run *run)
{
    struct cut *cut = piece->cut;
    enum dj_error error = run->error;
    exec_run_free(worker->exec, run);
    if (cut == NULL) {
        piece_free(worker, piece);
    } else if (error != DJ_OK) {
        piece_free(worker, piece);
        cut_give_up(worker, cut, error);
    } else {
        piece->content = hash128(piece->blob->data, piece->blob->bytes);
        cut->value[piece->value].piece[piece->index].content = piece->content;
        cut->progress_ns = actor_now_ns(worker->self);
        struct wire_leaf leaf = {.content = piece->content, .bytes = piece->bytes};
        if (put_piece(worker, piece)) {
            offer(worker, cut, &leaf, 1);
        } else {
            piece_free(worker, piece);
            cut_give_up(worker, cut, DJ_E_NO_MEMORY);
        }
    }
    worker_cuts_pump(worker);
}

// Safe ----------------------------------------------------------------------------------------------------------------

struct blob *worker_cut_piece(struct worker *worker, struct hash128 content)
{
    struct piece *piece = map_get(worker->pieces, content);
    while (piece != NULL && piece->blob == NULL)
        piece = piece->same;
    return piece == NULL ? NULL : piece->blob;
}

bool worker_cut_has(const struct worker *worker, struct hash128 content)
{
    return map_get(worker->pieces, content) != NULL;
}

void worker_cut_lacks(struct worker *worker, struct hash128 content)
{
    const struct piece *piece = map_get(worker->pieces, content);
    if (piece == NULL)
        return;
    cut_forget(worker, piece->cut);
    cut_give_up(worker, piece->cut, DJ_E_LEAF_UNKNOWN);
}

void worker_cuts_stored(struct worker *worker, uint64_t link, const struct wire_leaf_ok *ok)
{
    bool is_head = link == worker->head_link;
    for (uint32_t i = 0; i < ok->leaves_count; i++) {
        struct piece *all = NULL;
        if (!worker_cut_has(worker, ok->leaves[i].content))
            continue;
        take_pieces(worker, ok->leaves[i].content, NULL, &all);
        while (all != NULL) {
            struct piece *next = all->same;
            struct cut *cut = all->cut;
            if (is_head ? !cut->to_replica && ok->durable : cut->to_replica && cut->to_link == link) {
                cut->written_bytes += all->blob == NULL ? 0 : all->bytes;
                cut->progress_ns = actor_now_ns(worker->self);
                cut->pending--;
                piece_free(worker, all);
            } else if (!put_piece(worker, all)) {
                cut->pending--;
                piece_free(worker, all);
            }
            all = next;
        }
    }
    worker_cuts_pump(worker);
}

// Appends the record of one value to `writer`; what it points to lies in worker->scratch.
static void write_record(struct worker *worker, const struct cut *cut, const struct cut_value *value, struct record *ret)
{
    writer_reset(&worker->scratch);
    for (uint32_t p = 0; p < value->pieces; p++) {
        struct record_piece piece = value->piece[p];
        if (value->pieces == 1)
            piece.rows = value->pin.meta.rank > 0 ? value->pin.meta.size[0] : 1;    // of dim 0, whichever it grows in
        record_piece_write(&worker->scratch, &piece);
    }
    *ret = (struct record){.kind = RECORD_CHECKPOINT,
                           .checkpoint = {.handle = value->pin.handle,
                                          .meta = value->pin.meta,
                                          .dim = value->pieces == 1 ? 0 : value->dim,
                                          .is_replica = cut->to_replica,
                                          .pieces = value->pieces,
                                          .piece = worker->scratch.data,
                                          .piece_bytes = (uint32_t)worker->scratch.length}};
}

static void finish(struct worker *worker, struct cut *cut)
{
    struct writer records = writer_make(RECORDS_BYTES_MAX);
    struct record *record = arena_zero(worker->arena, sizeof *record);
    for (uint32_t i = 0; i < cut->values && record != NULL; i++) {
        write_record(worker, cut, &cut->value[i], record);
        if (worker->scratch.error != DJ_OK)
            break;
        worker_journal_checkpoint(worker, record, record->checkpoint.piece_bytes + 256);
        if (cut->counter == 0)
            record_write(&records, record);
        cut_remember(worker, cut, &cut->value[i]);
    }
    worker->load.checkpoints++;
    worker->load.checkpoint_bytes += cut->written_bytes;
    struct wire_checkpointed said = {.request = cut->request, .records = records.data, .records_bytes = (uint32_t)records.length};
    if (cut->counter != 0)
        worker_protect_safe(cut->session, cut->counter);
    else if (record == NULL || records.error != DJ_OK)
        worker_fail(worker, cut->link, cut->request, DJ_E_LIMIT, "a checkpoint's records are longer than %d bytes",
                    RECORDS_BYTES_MAX);
    else
        worker_send(worker, cut->link, WIRE_CHECKPOINTED, wire_checkpointed_encode(&said));
    writer_free(&records);
    worker_cut_free(worker, cut);
}

// What goes wrong -----------------------------------------------------------------------------------------------------

static void offer_again(struct worker *worker, struct cut *cut)
{
    for (uint32_t i = 0; i < cut->values; i++) {
        struct cut_value *value = &cut->value[i];
        struct wire_leaf *leaf = arena_zero(worker->arena, (value->pieces + 1) * sizeof *leaf);
        uint32_t leaves = 0;
        for (uint32_t p = 0; leaf != NULL && p < value->next; p++) {
            struct hash128 content = value->piece[p].content;
            if (!hash128_is_zero(content) && worker_cut_has(worker, content))
                leaf[leaves++] = (struct wire_leaf){.content = content, .bytes = value->piece[p].bytes};
        }
        offer(worker, cut, leaf, leaves);
    }
}

void worker_cuts_rejoined(struct worker *worker)
{
    list_each (node, &worker->cuts) {
        struct cut *cut = list_entry(node, struct cut, list);
        cut->progress_ns = actor_now_ns(worker->self);
        if (!cut->to_replica)
            offer_again(worker, cut);
    }
    worker_cuts_pump(worker);
}

void worker_cuts_peer_gone(struct worker *worker, uint64_t incarnation)
{
    list_each (node, &worker->cuts) {
        struct cut *cut = list_entry(node, struct cut, list);
        if (!cut->to_replica || cut->session->replica.incarnation != incarnation)
            continue;
        cut->session->replica.incarnation = 0;
        cut_give_up(worker, cut, DJ_E_WORKER_LOST);
    }
}

void worker_cuts_refused(struct worker *worker, uint64_t link, enum dj_error error)
{
    list_each (node, &worker->cuts) {
        struct cut *cut = list_entry(node, struct cut, list);
        if (place_of(worker, cut) == link)
            cut_give_up(worker, cut, error);
    }
}

// A place that says nothing for long is asked again, a few times.
void worker_cuts_sweep(struct worker *worker)
{
    uint64_t now = actor_now_ns(worker->self);
    list_each (node, &worker->cuts) {
        struct cut *cut = list_entry(node, struct cut, list);
        if (now - cut->progress_ns <= WORKER_FETCH_NS)
            continue;
        cut->progress_ns = now;
        if (cut->retries++ < RETRIES_MAX)
            offer_again(worker, cut);
        else
            cut_give_up(worker, cut, DJ_E_TIMEOUT);
    }
    worker_cuts_pump(worker);
}

void worker_cuts_piece_free(struct worker *worker, struct piece *piece)
{
    piece_free(worker, piece);
}
