// Cut: which values are made safe together, how each is cut into pieces, and what of them is safe already.
//
// A growing value is cut along the dimension it grows in, in pieces of PIECE_ROWS rows; the full pieces of one memory are remembered, and
// the next cut offers their names without reading them. Whoever lacks one after all asks for it, which ends the cut: the next one reads
// everything.

#include "gpu_worker/actors/cut.h"

#include "core/base/log.h"

#include <stdlib.h>
#include <string.h>

enum { SAFE_MAX = 4096 };

// What is safe ----------------------------------------------------------------------------------------------------------

static struct hash128 safe_key(const struct cut *cut, const struct exec_pin *pin)
{
    return (struct hash128){.hi = cut->to_replica ? cut->session->replica.incarnation : 0, .lo = pin->memory};
}

static void safe_drop(struct worker *worker, struct safe_rows *safe)
{
    map_take(worker->safe, safe->key);
    list_remove(&safe->order);
    worker->safe_count--;
    free(safe->piece);
    free(safe);
}

static struct safe_rows *safe_make(struct worker *worker, const struct cut *cut, const struct cut_value *value)
{
    if (worker->safe_count >= SAFE_MAX)
        safe_drop(worker, list_entry(worker->safe_order.next, struct safe_rows, order));
    struct safe_rows *safe = calloc(1, sizeof *safe);
    if (safe == NULL)
        return NULL;
    safe->key = safe_key(cut, &value->pin);
    safe->session = cut->session->id;
    safe->rows = value->rows;
    if (map_put(worker->safe, safe->key, safe) != DJ_OK) {
        free(safe);
        return NULL;
    }
    list_push(&worker->safe_order, &safe->order);
    worker->safe_count++;
    return safe;
}

// Remembers the full pieces of a growing value that is safe as a whole.
void cut_remember(struct worker *worker, const struct cut *cut, const struct cut_value *value)
{
    uint32_t full = value->pieces;
    while (full > 0 && value->piece[full - 1].rows != value->rows)
        full--;
    if (value->pin.memory == 0 || full == 0)
        return;
    struct safe_rows *safe = map_get(worker->safe, safe_key(cut, &value->pin));
    if (safe == NULL)
        safe = safe_make(worker, cut, value);
    if (safe == NULL || (safe->rows == value->rows && safe->pieces >= full))
        return;
    struct record_piece *piece = realloc(safe->piece, full * sizeof *piece);
    if (piece == NULL)
        return;
    memcpy(piece, value->piece, full * sizeof *piece);
    safe->piece = piece;
    safe->pieces = full;
    safe->rows = value->rows;
    list_remove(&safe->order);
    list_push(&worker->safe_order, &safe->order);
}

void cut_forget(struct worker *worker, const struct cut *cut)
{
    for (uint32_t i = 0; i < cut->values; i++) {
        struct safe_rows *safe = cut->value[i].pin.memory == 0 ? NULL : map_get(worker->safe, safe_key(cut, &cut->value[i].pin));
        if (safe != NULL)
            safe_drop(worker, safe);
    }
}

// Making ----------------------------------------------------------------------------------------------------------------

struct cut *worker_cut_make(struct session *session, uint32_t values)
{
    struct cut *cut = calloc(1, sizeof *cut);
    struct cut_value *value = calloc(values, sizeof *value);
    if (cut == NULL || value == NULL) {
        free(cut);
        free(value);
        return NULL;
    }
    *cut = (struct cut){.session = session, .value = value, .capacity = values};
    cut->to_replica = session->recovery == LINEAGE_REPLICATE && session->replica.incarnation != 0;
    list_init(&cut->list);
    return cut;
}

void worker_cut_of_execution(struct cut *cut, uint64_t counter)
{
    cut->counter = counter;
}

void worker_cut_of_request(struct cut *cut, uint64_t link, uint64_t request)
{
    cut->link = link;
    cut->request = request;
    cut->to_replica = false;
}

// How the value is cut: along which dimension, and rows of a piece so that it is neither large nor one of too many.
static void choose_pieces(struct cut_value *value)
{
    const struct tensor_meta *meta = &value->pin.meta;
    bool grows = value->pin.grow_dim >= 0;
    while (!grows && value->dim + 1 < meta->rank && meta->size[value->dim] == 1)
        value->dim++;
    if (grows)
        value->dim = (uint32_t)value->pin.grow_dim;
    int64_t size = meta->rank == 0 ? 1 : meta->size[value->dim], bytes = tensor_bytes(meta);
    int64_t row_bytes = size == 0 ? 1 : bytes / size;
    int64_t rows = grows ? PIECE_ROWS : size;
    if (row_bytes > 0 && rows > PIECE_BYTES / row_bytes)
        rows = PIECE_BYTES / row_bytes;
    int64_t least = (size + RECORD_PIECES_MAX - 1) / RECORD_PIECES_MAX;
    rows = rows < 1 ? 1 : rows;
    for (; rows < least; rows *= 2) {    // by doubling, so that a growing value seldom changes its pieces
    }
    value->rows = rows;
    value->pieces = size == 0 ? 1 : (uint32_t)((size + rows - 1) / rows);
    if (value->pieces == 1)
        value->dim = grows ? value->dim : 0;
}

enum dj_error worker_cut_add(struct worker *worker, struct cut *cut, struct handle handle)
{
    struct cut_value *value = &cut->value[cut->values];
    enum dj_error error = exec_pin(worker->exec, handle, &value->pin);
    if (error != DJ_OK)
        return error;
    cut->values++;
    value->is_pinned = true;
    choose_pieces(value);
    value->piece = calloc(value->pieces, sizeof *value->piece);
    return value->piece == NULL ? DJ_E_NO_MEMORY : DJ_OK;
}

// What is safe already is known now, and again when the cut begins: a cut waits for its execution.
void cut_find_known(const struct worker *worker, const struct cut *cut, struct cut_value *value)
{
    const struct safe_rows *safe = value->pin.memory == 0 ? NULL : map_get(worker->safe, safe_key(cut, &value->pin));
    value->known = 0;
    if (safe == NULL || safe->rows != value->rows)
        return;
    uint32_t full = (uint32_t)(value->pin.meta.size[value->dim] / value->rows);
    value->known = safe->pieces < full ? safe->pieces : full;
    memcpy(value->piece, safe->piece, value->known * sizeof *value->piece);
}

uint64_t worker_cut_bytes(const struct worker *worker, struct cut *cut)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < cut->values; i++) {
        struct cut_value *value = &cut->value[i];
        cut_find_known(worker, cut, value);
        bytes += (uint64_t)tensor_bytes(&value->pin.meta);
        for (uint32_t p = 0; p < value->known; p++)
            bytes -= value->piece[p].bytes;
    }
    return bytes;
}

void cut_unpin(struct worker *worker, struct cut_value *value)
{
    if (value->is_pinned)
        exec_unpin(worker->exec, &value->pin);
    value->is_pinned = false;
}

void worker_cut_free(struct worker *worker, struct cut *cut)
{
    if (cut == NULL)
        return;
    if (cut->has_begun) {
        pieces_drop(worker, cut);
        cut->session->cuts--;
    }
    list_remove(&cut->list);
    for (uint32_t i = 0; i < cut->values; i++) {
        cut_unpin(worker, &cut->value[i]);
        free(cut->value[i].piece);
    }
    free(cut->value);
    free(cut);
}

void cut_give_up(struct worker *worker, struct cut *cut, enum dj_error error)
{
    log_write(LOG_WARN, "worker", "a checkpoint is given up: %s", dj_error_text(error));
    if (cut->counter == 0)
        worker_fail(worker, cut->link, cut->request, error, "the checkpoint was given up: %s", dj_error_text(error));
    worker_protect_failed(worker, cut->session);
    worker_cut_free(worker, cut);
}

bool worker_cuts_yield(struct worker *worker)
{
    list_each (node, &worker->cuts) {
        struct cut *cut = list_entry(node, struct cut, list);
        if (cut->at == cut->values)
            continue;    // it pins nothing
        cut_give_up(worker, cut, DJ_E_DEVICE_MEMORY);
        return true;
    }
    return false;
}

void worker_cuts_session_over(struct worker *worker, const struct session *session)
{
    if (worker->cuts.next == NULL)
        return;
    list_each (node, &worker->cuts) {
        struct cut *cut = list_entry(node, struct cut, list);
        if (cut->session == session)
            worker_cut_free(worker, cut);
    }
    list_each (entry, &worker->safe_order) {
        struct safe_rows *safe = list_entry(entry, struct safe_rows, order);
        if (safe->session == session->id)
            safe_drop(worker, safe);
    }
}
