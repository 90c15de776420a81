// State: what the files of this folder share. One actor owns it; one thread. Private.

#ifndef GPU_WORKER_ACTORS_STATE_H
#define GPU_WORKER_ACTORS_STATE_H

#include <stdbool.h>

#include "core/base/arena.h"
#include "core/base/codec.h"
#include "core/base/list.h"
#include "core/base/map.h"
#include "core/io/blob.h"
#include "core/lineage/record.h"
#include "core/srg/bindings.h"
#include "core/wire/wire.h"
#include "gpu_worker/actors/worker.h"
#include "gpu_worker/exec/exec.h"

struct session;
struct worker;

// A plan under the number that one link gave it, with what later EXECUTEs refer back to.
struct kept_answer;

struct link_plan {
    struct exec_plan *plan;
    struct binding_history history;
    uint64_t last_counter, before_counter;      // of the executions that made the history's vectors; 0: none
    uint8_t *kept, *donated;
    uint32_t kept_bytes, donated_bytes;
};

struct worker_link {                    // an accepted connection
    uint64_t link;
    uint8_t role;                       // enum wire_role; 0 until HELLO
    struct session *session;            // of a client, after ATTACH
    struct link_plan *plan;             // by the client's number
    uint32_t plans, plans_capacity;
};

enum work_kind { WORK_EXECUTE, WORK_IMPORT, WORK_FETCH, WORK_RELEASE };

// One message of a session's stream, from its arrival to its end.
struct work {
    struct list stream;                 // in session->stream until it is prepared, then unlinked
    uint8_t kind;
    struct session *session;            // NULL: a peer's fetch
    struct kept_answer *kept_answer;    // EXECUTE, IMPORT
    uint64_t counter;                   // EXECUTE, IMPORT
    struct exec_run *run;               // in flight
    uint64_t waiting_since_ns;          // for a leaf, a value; 0: not waiting
    uint8_t asked;                      // EXECUTE: how often the leaves it lacks were asked for
    // EXECUTE
    struct exec_plan *plan;
    int64_t *word;
    uint8_t *kept, *donated, *delta;
    uint32_t *answer;
    uint32_t kept_bytes, donated_bytes, delta_bytes, answers;
    uint64_t base, before;              // journal: the executions before in the delta's history
    struct handle *released;            // EXECUTE, RELEASE
    uint32_t releases;
    // FETCH, IMPORT
    uint64_t request, link;             // whom to answer
    struct handle handle;
    struct tensor_meta meta;            // IMPORT: what arrived
    struct blob *value;
    enum dj_error error;                // IMPORT: what went wrong on the way
    char text[128];
};

// An answer until the client confirms it.
struct kept_answer {
    struct list list;                   // in session->kept, by counter
    uint64_t counter, content;          // content: hash of what was asked
    uint16_t message;                   // ANSWER or EXECUTION_FAILED; 0: not done yet
    struct blob *body, *bulk;
    uint64_t bulk_bytes;
    bool is_sent;
};

struct session {
    uint64_t id;
    uint32_t epoch;
    struct hash128 secret;
    uint64_t link;                      // 0: away
    uint64_t away_since_ns;
    uint64_t last_counter;              // the last execution or import received
    uint64_t passed_counter;            // the last one prepared or failed
    struct list stream;                 // of work, in order
    struct list kept;                   // of kept_answer
    struct list gone;                   // in worker->gone once is_gone
    uint32_t waiting, executing, in_flight, kept_count;     // in_flight: all runs of it, executing: its executions
    uint64_t kept_bytes;
    bool is_gone;                       // freed when nothing of it is in flight
};

// A leaf that somebody needs here, and how it is being got.
enum want_source { SOURCE_NONE, SOURCE_LOCATING, SOURCE_PEER, SOURCE_STORE, SOURCE_CLIENT, SOURCE_SPENT };
struct want {
    struct hash128 content;
    uint64_t bytes;
    uint8_t source;
    bool tried_head, tried_peer, tried_store, in_store;
    uint64_t link;                      // from which LEAF_DATA may come
    uint64_t request;                   // LOCATE, LEAF_GET
    uint64_t client;                    // a link whose client has it; 0: nobody
    uint64_t progress_ns;
    struct wire_location location;
    uint32_t serial;                    // in the order of wanting
};

enum peer_phase { PEER_DIALING, PEER_GREETING, PEER_READY };
struct peer {                           // another worker that this one dialed
    uint64_t incarnation, request, link;
    uint8_t phase;
    bool tried_tcp;
    char address_tcp[IO_ADDRESS_MAX];
};

struct import {                         // a value that another worker is asked for
    struct list list;
    struct work *work;
    struct wire_location location;
    uint64_t link, request;             // 0: not asked yet
};

struct served {                         // a leaf on its way out: to a peer (LEAF_GET) or to the store
    struct list list;
    struct hash128 content;
    uint64_t link, bytes, offset, number;   // number: of its PINGs
    bool to_head, is_waiting;           // is_waiting: for the PONG behind its last piece
};

enum run_owner { OWNER_WORK, OWNER_LEAF_IN, OWNER_LEAF_OUT };
struct flight {                         // a run on the device
    uint8_t kind;                       // enum run_owner
    uint8_t device;
    struct exec_run *run;
    struct work *work;
    struct served *served;
    struct hash128 content;
};

struct journal_part {                   // records sent in one message
    struct list list;
    uint64_t first, count;
    bool is_sent;
    struct writer records;
};

enum head_phase { HEAD_CLOSED, HEAD_DIALING, HEAD_GREETING, HEAD_JOINING, HEAD_JOINED };

struct worker {
    struct actor *self;
    struct worker_config config;
    struct exec *exec;                  // of device 0
    struct arena *arena;                // of one message
    uint64_t incarnation;               // config's, until this life was fenced
    // The head.
    uint8_t head_phase;
    uint64_t head_link, head_request, generation, lease_ns, lease_until_ns, heartbeat_ns, heartbeat_number;
    uint32_t head_failures, worker_number, lives;
    bool was_joined, is_draining, is_stopping;
    uint64_t stop_at_ns;
    // Tables.
    struct map *links, *sessions, *wants, *peers, *flights;     // by link, session, content, incarnation, ticket
    uint32_t want_serial;
    uint64_t next_request;
    struct list serving;                // of struct served
    uint32_t served_count, serving_in_flight, idle_waits, pieces_out;
    struct list peer_fetches;           // of work: FETCHes of peers that wait for a stream
    struct list gone;                   // of session: dropped, something of it is still on the device
    struct list imports;                // of import: values on their way here
    // What the head is told in batches.
    struct wire_leaf *gained, *dropped, *to_store;
    uint32_t gained_count, dropped_count, to_store_count, gained_capacity, dropped_capacity, to_store_capacity;
    // Journal.
    struct list journal;                // of journal_part
    uint64_t journal_next, journal_bytes;
    struct wire_heartbeat load;         // counters so far
    uint64_t trimmed_at;                // load.executions when memory was last trimmed
};

enum { TIMER_HEAD = 1, TIMER_BEAT, TIMER_SWEEP, TIMER_BATCH, TIMER_JOURNAL, TIMER_STOP };

// worker.c
void worker_send(struct worker *worker, uint64_t link, uint16_t message, struct blob *body);   // body NULL: logs
void worker_fail(struct worker *worker, uint64_t link, uint64_t request, enum dj_error error, const char *format, ...) DJ_PRINTF(5, 6);
bool worker_submit(struct worker *worker, struct exec_run *run, const struct flight *flight);
bool worker_may_answer(const struct worker *worker);

// head.c
void worker_head_dial(struct worker *worker);
void worker_head_up(struct worker *worker, uint64_t link);
void worker_head_down(struct worker *worker, enum dj_error error);
DJ_MUST_USE enum dj_error worker_head_message(struct worker *worker, uint16_t message, struct blob *body, struct blob *bulk);
void worker_head_beat(struct worker *worker);
void worker_head_leave(struct worker *worker);

// links.c
void worker_links_up(struct worker *worker, uint64_t link);
void worker_links_down(struct worker *worker, uint64_t link);
void worker_links_message(struct worker *worker, struct worker_link *link, uint16_t message, struct blob *body, struct blob *bulk);

// sessions.c
struct session *worker_session_admit(struct worker *worker, uint64_t id, uint32_t epoch, struct hash128 secret);   // NULL: refused
void worker_session_attach(struct worker *worker, struct worker_link *link, const struct wire_attach *attach);
void worker_session_away(struct worker *worker, struct session *session);
void worker_session_drop(struct worker *worker, struct session *session);
void worker_sessions_sweep(struct worker *worker);
void worker_sessions_free(struct worker *worker);
void worker_session_free_if_done(struct worker *worker, struct session *session);
struct kept_answer *worker_session_expect(struct session *session, uint64_t counter, uint64_t content);    // NULL out of memory
void worker_session_keep(struct worker *worker, struct session *session, struct kept_answer *answer, uint16_t message, struct blob *body,
                  struct blob *bulk, uint64_t bulk_bytes);       // takes both holds; sends it
void worker_session_repeat(struct worker *worker, struct session *session, uint64_t counter, uint64_t content, bool wants_values);
void worker_session_confirm(struct session *session, uint64_t counter);
void worker_sessions_send_held(struct worker *worker);
void worker_pump(struct worker *worker);        // every session does what it can

// stream.c: messages become work
DJ_MUST_USE enum dj_error worker_stream_plan(struct worker *worker, struct worker_link *link, const struct wire_plan *plan);
DJ_MUST_USE enum dj_error worker_stream_execute(struct worker *worker, struct worker_link *link, const struct wire_execute *execute, struct blob *body);
DJ_MUST_USE enum dj_error worker_stream_import(struct worker *worker, struct worker_link *link, const struct wire_import *import);
DJ_MUST_USE enum dj_error worker_stream_fetch(struct worker *worker, struct worker_link *link, const struct wire_fetch *fetch);
DJ_MUST_USE enum dj_error worker_stream_release(struct worker *worker, struct worker_link *link, const struct wire_release *release);
void worker_work_free(struct work *work);
void worker_link_plans_free(struct worker_link *link);

// run.c: work runs
void worker_session_pump(struct worker *worker, struct session *session);
void worker_run_done(struct worker *worker, struct work *work, struct exec_run *run);
void worker_peer_fetches_pump(struct worker *worker);
void worker_peer_fetches_link_down(struct worker *worker, uint64_t link);

// leaves.c: leaves come
void worker_leaf_offered(struct worker *worker, struct worker_link *link, const struct wire_leaf_offer *offer);
void worker_leaf_want(struct worker *worker, struct hash128 content, uint64_t bytes, uint64_t client);
enum leaf_hope { HOPE_UNASKED, HOPE_COMING, HOPE_NONE };
enum leaf_hope worker_leaf_hope(struct worker *worker, struct hash128 content);
void worker_leaf_data(struct worker *worker, uint64_t link, const struct wire_leaf_data *data, struct blob *bulk);
void worker_leaf_located(struct worker *worker, const struct wire_located *located);
void worker_leaf_refused(struct worker *worker, uint64_t link, uint64_t request);      // a FAILED to a LEAF_GET
void worker_leaf_chunk_done(struct worker *worker, struct hash128 content, struct exec_run *run);
void worker_leaf_is_here(struct worker *worker, struct hash128 content, bool is_new);
void worker_leaves_link_down(struct worker *worker, uint64_t link);
void worker_leaves_peer_gone(struct worker *worker, uint64_t incarnation);
void worker_leaves_sweep(struct worker *worker);
void worker_leaves_try_again(struct worker *worker, uint64_t link);                    // a peer's link is ready

// serve.c: leaves go
void worker_serve_get(struct worker *worker, uint64_t link, const struct wire_leaf_get *get);
void worker_serve_need(struct worker *worker, const struct wire_leaf_need *need);      // from the head's store
void worker_serve_stored(struct worker *worker, const struct wire_leaf_ok *ok);
void worker_serve_chunk_done(struct worker *worker, struct served *served, struct exec_run *run);
void worker_serve_pong(struct worker *worker, uint64_t link, const struct wire_pong *pong);
void worker_serve_pump(struct worker *worker);
void worker_serve_link_down(struct worker *worker, uint64_t link);
void worker_serve_tell(struct worker *worker, struct hash128 content, uint64_t bytes, bool is_gained);
void worker_serve_flush(struct worker *worker);                                        // HOLDS and offers
void worker_serve_rejoined(struct worker *worker);

// peers.c
uint64_t worker_peer_link(struct worker *worker, const struct wire_location *location, bool *ret_failed);      // 0: not ready yet
bool worker_peer_owns(struct worker *worker, uint64_t link, uint64_t request, struct peer **ret);
void worker_peer_up(struct worker *worker, struct peer *peer, uint64_t link);
void worker_peer_down(struct worker *worker, struct peer *peer);
void worker_imports_ask(struct worker *worker);                                        // those that a ready peer can be asked for
void worker_import_begin(struct worker *worker, struct work *work, const struct wire_location *location);
void worker_import_forget(struct worker *worker, const struct work *work);             // its session is gone
void worker_imports_sweep(struct worker *worker);
DJ_MUST_USE enum dj_error worker_peer_message(struct worker *worker, struct peer *peer, uint16_t message, struct blob *body, struct blob *bulk);

// journal.c
void worker_journal_execution(struct worker *worker, const struct work *work, const struct exec_run *run);
void worker_journal_plan(struct worker *worker, struct hash128 fingerprint, const uint8_t *bytes, uint32_t length);
void worker_journal_flush(struct worker *worker);
void worker_journal_acknowledged(struct worker *worker, uint64_t last);
void worker_journal_rejoined(struct worker *worker);
bool worker_journal_is_full(const struct worker *worker);
void worker_journal_free(struct worker *worker);

#endif
