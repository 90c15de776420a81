// Cut: what cut.c and pieces.c share. Private to both.

#ifndef GPU_WORKER_ACTORS_CUT_H
#define GPU_WORKER_ACTORS_CUT_H

#include "gpu_worker/actors/state.h"

enum { PIECE_ROWS = 64, PIECE_BYTES = WIRE_CHUNK_BYTES };

struct cut_value {
    struct exec_pin pin;
    bool is_pinned;
    uint32_t dim, pieces, known, next;    // next: the first that was not begun
    int64_t rows;                         // of a full piece
    struct record_piece *piece;
};

struct cut {
    struct list list;    // in worker->cuts once it has begun
    struct session *session;
    uint64_t counter;          // of the execution whose outputs these are; 0: a client asked
    uint64_t link, request;    // of that client
    bool to_replica, has_begun;
    uint64_t to_link;    // REPLICATE: the peer's link; 0: not there yet
    uint32_t values, capacity, at;    // at: the value to read next
    uint32_t pending;                 // pieces begun and not safe
    uint32_t retries;
    uint64_t progress_ns, written_bytes;
    struct cut_value *value;
};

struct piece {
    struct piece *same;    // another one with this content
    struct cut *cut;       // NULL: it was given up
    uint32_t value, index;
    struct hash128 content;
    struct blob *blob;    // NULL: only its name is offered
    uint64_t bytes;
};

// Full pieces of a growing value's memory that are safe at one place.
struct safe_rows {
    struct list order;
    struct hash128 key;
    uint64_t session;
    int64_t rows;
    uint32_t pieces, capacity;
    struct record_piece *piece;
};

// cut.c
void cut_find_known(const struct worker *worker, const struct cut *cut, struct cut_value *value);  // what is safe already
void cut_remember(struct worker *worker, const struct cut *cut, const struct cut_value *value);    // it is safe now
void cut_forget(struct worker *worker, const struct cut *cut);                                     // it is not, after all
void cut_unpin(struct worker *worker, struct cut_value *value);
void cut_give_up(struct worker *worker, struct cut *cut, enum dj_error error);

// pieces.c
void pieces_drop(struct worker *worker, const struct cut *cut);                                    // those that are out

#endif
