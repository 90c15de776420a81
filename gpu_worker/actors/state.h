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


struct cut;
struct piece;
struct closure;
struct kept_answer;
struct session;
struct worker;

// Where a message stands in its stream. Strictly growing; what is not greater than the last one is a repetition.
struct position {
    uint64_t counter;
    uint32_t part;
};

static inline int position_compare(struct position a, struct position b)
{
    if (a.counter != b.counter)
        return a.counter < b.counter ? -1 : 1;
    return a.part < b.part ? -1 : a.part > b.part;
}

// The records of one plan on one link, as a chain of deltas (journal.c).
struct chain {
    uint32_t refs;
    uint32_t length;                    // records since one that stands alone
    uint64_t last, before;              // counters of the last record and the one before it; 0: none
    bool is_own;                        // an execution has no record: until the client resets, deltas are coded here, against ...
    struct binding_history history;     // ... what was journalled
};

// A plan under the number that one link gave it, with what later EXECUTEs refer back to.
struct link_plan {
    struct exec_plan *plan;
    struct binding_history history;
    struct chain *chain;
    uint64_t last_counter;              // of the execution that made the history's last vector; 0: none
    uint64_t before_counter;            // and of the one before it
    uint8_t *kept, *donated;
    uint32_t kept_bytes, donated_bytes;
};

struct worker_link {                    // an accepted connection
    uint64_t link;
    uint8_t role;                       // enum wire_role; 0 until HELLO
    struct stream *stream;              // of a client, after ATTACH
    struct link_plan *plan;             // by the client's number
    uint32_t plans, plans_capacity;
};

enum work_kind { WORK_EXECUTE, WORK_IMPORT, WORK_FETCH, WORK_RELEASE, WORK_CHECKPOINT };

// One message of a stream, from its arrival to its end.
struct work {
    struct list queue;                  // in stream->queue until it is prepared, then in stream->running
    uint8_t kind;
    struct stream *stream;              // NULL: a peer's fetch
    struct kept_answer *kept_answer;    // EXECUTE, IMPORT
    struct position position;           // EXECUTE, IMPORT
    struct exec_run *run;               // in flight
    uint64_t waiting_since_ns;          // for a leaf, a value; 0: not waiting
    uint8_t asked;                      // EXECUTE: how often the leaves it lacks were asked for
    bool is_replay;                     // EXECUTE, IMPORT: not journalled again
    // EXECUTE
    struct exec_plan *plan;
    struct chain *chain;
    int64_t *word;
    uint8_t *kept, *donated, *delta;
    uint32_t *answer, *name;
    uint32_t kept_bytes, donated_bytes, delta_bytes, answers, names;
    uint64_t base, before;              // journal: the executions before in the delta's history
    struct cut *cut;                    // what it keeps was pinned when it was prepared
    struct handle *released;            // EXECUTE, RELEASE; CHECKPOINT: what to make safe
    uint32_t releases;
    // FETCH, IMPORT, CHECKPOINT
    uint64_t request, link;             // whom to answer
    struct handle handle;               // IMPORT: the source
    bool takes_place;                   // FETCH: who asks can open this device's region
    uint32_t output;                    // IMPORT: of the position's counter
    struct wire_location *location;     // IMPORT: where the source is
    struct tensor_meta meta;            // IMPORT: what arrived
    struct blob *value;
    enum dj_error error;                // IMPORT: what went wrong on the way
    char text[128];
};

// An answer until the client confirms it.
struct kept_answer {
    struct list list;                   // in stream->kept, by position
    struct position position;
    uint64_t content;                   // hash of what was asked
    uint64_t record;                    // of the journal that must be durable first (sessions with `sync`); 0: none
    uint16_t message;                   // ANSWER or EXECUTION_FAILED; 0: not done yet
    struct blob *body, *bulk;
    uint64_t bulk_bytes;
    uint64_t until_ns, sent_number;     // the lease it was sent under; which of the stream's sendings it was
    bool is_sent, is_read;              // is_read: a PONG behind it came while its lease ran
    uint8_t resends;
};

// One ordered stream of submissions: one life of a place of the client.
struct stream {
    struct list list;                   // in session->streams; in worker->gone_streams once is_gone
    struct session *session;            // outlives it
    uint32_t number, epoch;
    uint64_t link;                      // 0: away
    uint64_t away_since_ns;
    struct position last;               // the last execution or import received
    struct position passed;             // the last one prepared or failed
    struct list queue;                  // of work, in order
    struct list running;                // of work on the device, as it went there; releases wait there to be told
    struct list kept;                   // of kept_answer
    uint32_t waiting, in_flight, kept_count;
    uint64_t kept_bytes;
    uint64_t sends, probe, probe_sends; // answers sent; the PING behind them (0: none out), and how many were before it
    bool is_gone;                       // freed when nothing of it is in flight
};

// Who may submit here, and whose values these are. Outlives its streams and links.
struct session {
    uint64_t id;
    uint32_t epoch;
    struct hash128 secret;
    uint8_t recovery;                   // enum lineage_policy
    bool is_sync;                       // answers wait until their record is durable
    bool was_taken_over;                // and ADMITTED was not said since
    bool owes_admitted;                 // the head waits for ADMITTED until nothing of an older epoch is in flight
    bool is_gone;                       // freed when nothing of it is in flight
    uint64_t replay_limit_ns;
    struct wire_location replica;       // incarnation 0: none
    uint64_t away_since_ns;             // no stream has a link
    struct list streams;                // of struct stream
    struct list gone;                   // in worker->gone once is_gone
    uint32_t stream_count, executing, in_flight;    // in_flight: all runs of its streams, executing: its executions
    struct closure *closure;            // protect.c; NULL until there is something to protect
    uint32_t cuts;                      // cut.c: begun and not done
};

// A leaf that somebody needs here, and how it is being got.
enum want_source { SOURCE_NONE, SOURCE_LOCATING, SOURCE_PEER, SOURCE_STORE, SOURCE_CLIENT, SOURCE_SPENT };
struct want {
    struct hash128 content;
    uint64_t bytes;
    uint8_t source;
    bool tried_head, tried_peer, tried_store, in_store;
    bool head_first;                    // the client is asked last, however small it is
    bool is_replica;                    // kept for another worker: nobody here needs it
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
    uint32_t copies_failed;             // beyond a few it is asked for bytes only
    char address_tcp[IO_ADDRESS_MAX];
};

// ASKED -> here (bytes came), or -> COPYING (a place came) -> COPIED -> LANDED (the place was held); what fails on that way: ASKED once more, for bytes.
enum import_phase { IMPORT_ASKED, IMPORT_COPYING, IMPORT_COPIED, IMPORT_LANDED };
struct import {                         // a value that another worker is asked for
    struct list list;
    struct work *work;
    struct wire_location location;
    uint64_t link, request;             // 0: not asked yet
    uint8_t phase;                      // enum import_phase
    bool wants_bytes;                   // a place would not do
    struct exec_pin copy;               // from COPIED on
};

struct landing {                        // a copy on the device, whose import may be gone when it is done
    uint64_t link, request, incarnation;
    struct exec_pin copy;
};

struct lent {                           // a value whose place another worker was told
    struct list list;
    uint64_t link, request, since_ns;
    struct exec_pin pin;
};

struct served {                         // a leaf, or a piece of a value, on its way out: to a worker or to the store
    struct list list;
    struct hash128 content;
    uint64_t link, bytes, offset, number;   // number: of its PINGs
    struct blob *piece;                 // NULL: the leaf is read from the device
    bool to_head, is_waiting;           // is_waiting: for the PONG behind its last piece
    uint8_t failures;                   // of reading it
};

struct timed_value {                    // a VALUE or HELD until its reader has it: one that left too late for the lease was dropped on the way
    struct list list;
    uint16_t message;
    uint64_t link, number, until_ns;    // number: of the PING behind it
    struct blob *body, *bulk;
    uint64_t bulk_offset, bulk_bytes;
    uint8_t sends;
    bool is_held;                       // not sent: there is no lease
};

enum run_owner { OWNER_WORK, OWNER_LEAF_IN, OWNER_LEAF_OUT, OWNER_PIECE, OWNER_LANDING };
struct flight {                         // a run on the device
    struct list early;                  // in worker->early: it is back before something that it builds on
    uint8_t kind;                       // enum run_owner
    uint8_t device;
    struct exec_run *run;
    struct work *work;
    struct served *served;
    struct piece *piece;
    struct landing *landing;
    struct hash128 content;
};

struct journal_part {                   // records sent in one message
    struct list list;
    uint64_t first, count;
    bool is_sent;
    struct writer records;
    struct hash128 *leaf;               // of its executions, that the store does not have yet: the part waits for them
    uint32_t leaves, leaves_capacity;
};

struct held_value {                     // that the head does not hear of through the journal
    struct handle handle;
    uint64_t bytes;
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
    uint32_t out;                       // lists on the device
    bool is_lost;                       // the device lost all that it held: this life ends when no list is out
    bool was_joined, is_draining, is_stopping;
    uint64_t stop_at_ns;
    // Tables.
    struct map *links, *sessions, *wants, *peers, *flights;     // by link, session, content, incarnation, ticket
    uint32_t want_serial;
    uint64_t next_request;
    struct list serving;                // of struct served
    uint32_t served_count, serving_in_flight, idle_waits, pieces_out;
    struct list early;                  // of flights
    struct list peer_fetches;           // of work: FETCHes of peers that wait for a stream
    struct list gone;                   // of session: dropped, something of it is still on the device
    struct list gone_streams;           // of stream: likewise
    struct list imports;                // of import: values on their way here
    struct list lents;                  // of lent: values whose places others were told
    uint32_t lent_count;
    struct list timed_values;
    // What the head is told in batches.
    struct wire_leaf *gained, *dropped, *to_store;
    uint32_t gained_count, dropped_count, to_store_count, gained_capacity, dropped_capacity, to_store_capacity;
    struct held_value *held;
    uint32_t held_count, held_capacity;
    // Journal.
    struct list journal;                // of journal_part
    uint64_t journal_next, journal_bytes, journal_durable;      // durable: the last record that the head has
    uint64_t journal_asked_ns;          // when the leaves that it waits for were offered again
    uint32_t numerics;                  // class of device 0
    // Checkpoints.
    struct list cuts;                   // of struct cut, in the order of their beginning
    struct map *pieces;                 // of struct piece that were offered, by content
    struct map *safe;                   // rows of growing values that are safe: struct safe_rows
    struct list safe_order;             // the first is the oldest
    uint32_t safe_count, pieces_read;   // pieces_read: being read, or waiting for an OK with their bytes
    uint64_t pieces_bytes, pace_bytes;  // their bytes; read since the last tick
    struct writer scratch, delta;       // of one record
    struct wire_heartbeat load;         // counters so far
    uint64_t trimmed_at;                // load.executions when memory was last trimmed
};

enum { TIMER_HEAD = 1, TIMER_BEAT, TIMER_SWEEP, TIMER_BATCH, TIMER_JOURNAL, TIMER_STOP, TIMER_CUTS };

// worker.c
void worker_send(struct worker *worker, uint64_t link, uint16_t message, struct blob *body);   // body NULL: logs
void worker_fail(struct worker *worker, uint64_t link, uint64_t request, enum dj_error error, const char *format, ...) DJ_PRINTF(5, 6);
bool worker_submit(struct worker *worker, struct exec_run *run, const struct flight *flight);
bool worker_may_answer(const struct worker *worker);
uint64_t worker_lease(const struct worker *worker);     // until when an answer may leave; 0: for ever

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
void worker_links_close(struct worker *worker, uint64_t link, enum dj_error error, const char *why);     // says why, then closes
void worker_links_message(struct worker *worker, struct worker_link *link, uint16_t message, struct blob *body, struct blob *bulk);

// sessions.c
void worker_session_admit(struct worker *worker, const struct wire_admit *admit);               // ADMITTED follows, or nothing: refused
void worker_session_admit_settled(struct worker *worker, struct session *session);              // something of it ended on the device
void worker_sessions_admit_settled(struct worker *worker);                                      // the journal went on
void worker_session_attach(struct worker *worker, struct worker_link *link, const struct wire_attach *attach);
void worker_session_drop(struct worker *worker, struct session *session);
void worker_sessions_sweep(struct worker *worker);
void worker_sessions_free(struct worker *worker);
void worker_session_free_if_done(struct worker *worker, struct session *session);
void worker_pump(struct worker *worker);        // every session does what it can
void worker_session_pump(struct worker *worker, struct session *session);

// streams.c: one stream's life, and what it is owed
struct stream *worker_stream_make(struct worker *worker, struct session *session, uint32_t number);      // NULL: too many, or no memory
void worker_stream_away(struct worker *worker, struct stream *stream);      // what was not prepared is forgotten: it comes again
void worker_stream_drop(struct worker *worker, struct stream *stream);      // takes it out of its session
void worker_stream_free_if_done(struct worker *worker, struct stream *stream);
struct kept_answer *worker_stream_expect(struct stream *stream, struct position position, uint64_t content);     // NULL out of memory
void worker_stream_keep(struct worker *worker, struct stream *stream, struct kept_answer *answer, uint16_t message, struct blob *body,
                        struct blob *bulk, uint64_t bulk_bytes);       // takes both holds; sends it
void worker_stream_repeat(struct worker *worker, struct stream *stream, struct position position, uint64_t content, bool wants_values);
void worker_stream_confirm(struct stream *stream, uint64_t counter);
// The same submission in an earlier life of its place, whose link is gone; NULL: there is none. Its message is 0 while it is on the device.
const struct kept_answer *worker_stream_earlier(const struct stream *stream, const struct kept_answer *answer);
void worker_streams_send_held(struct worker *worker);           // what may leave now and did not
void worker_streams_probe(struct worker *worker);               // asks whether what was sent was read; sends again what surely was not
void worker_stream_pong(struct worker *worker, struct stream *stream, uint64_t number);
// A VALUE or HELD under the lease: kept here without one, sent again when it may have been dropped on the way. Takes both holds.
void worker_value_send(struct worker *worker, uint64_t link, uint16_t message, struct blob *body, struct blob *bulk, uint64_t offset,
                       uint64_t bytes);
void worker_values_pong(struct worker *worker, uint64_t link, uint64_t number);
void worker_values_link_down(struct worker *worker, uint64_t link);
void worker_values_free(struct worker *worker);

// stream.c: messages become work
DJ_MUST_USE enum dj_error worker_stream_plan(struct worker *worker, struct worker_link *link, const struct wire_plan *plan);
DJ_MUST_USE enum dj_error worker_stream_execute(struct worker *worker, struct worker_link *link, const struct wire_execute *execute,
                                                struct blob *body);
DJ_MUST_USE enum dj_error worker_stream_import(struct worker *worker, struct worker_link *link, const struct wire_import *import);
DJ_MUST_USE enum dj_error worker_stream_fetch(struct worker *worker, struct worker_link *link, const struct wire_fetch *fetch);
DJ_MUST_USE enum dj_error worker_stream_release(struct worker *worker, struct worker_link *link, const struct wire_release *release);
DJ_MUST_USE enum dj_error worker_stream_checkpoint(struct worker *worker, struct worker_link *link, const struct wire_checkpoint *said);
void worker_work_free(struct work *work);
void worker_link_plans_free(struct worker_link *link);

// run.c: work runs
uint32_t worker_write_sizes(const struct tensor_meta *meta, uint8_t sizes[96]);      // as VALUE and ANSWER have them; gives their bytes
void worker_stream_pump(struct worker *worker, struct stream *stream);
void worker_run_done(struct worker *worker, struct work *work, struct exec_run *run);

// fetches.c: values that other workers ask for
// A stream of the session, not `except`, has work that makes what this execution made.
bool worker_stream_expects(const struct session *session, const struct stream *except, uint64_t counter);
void worker_peer_fetches_pump(struct worker *worker);
void worker_peer_fetches_link_down(struct worker *worker, uint64_t link);

// leaves.c: leaves come
void worker_leaf_offered(struct worker *worker, struct worker_link *link, const struct wire_leaf_offer *offer);
// head_first: of a recovery, so the store is more likely to have it than the client.
void worker_leaf_want(struct worker *worker, struct hash128 content, uint64_t bytes, uint64_t client, bool head_first);
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
void worker_serve_need(struct worker *worker, uint64_t link, const struct wire_leaf_need *need);        // of what was offered there
void worker_serve_stored(struct worker *worker, const struct wire_leaf_ok *ok);
void worker_serve_chunk_done(struct worker *worker, struct served *served, struct exec_run *run);
void worker_serve_pong(struct worker *worker, uint64_t link, const struct wire_pong *pong);
void worker_serve_pump(struct worker *worker);
void worker_serve_link_down(struct worker *worker, uint64_t link);
void worker_serve_tell(struct worker *worker, struct hash128 content, uint64_t bytes, bool is_gained, bool to_store);
void worker_serve_offer(struct worker *worker, struct hash128 content, uint64_t bytes);        // to the store
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
struct import *worker_import_find(struct worker *worker, uint64_t link, uint64_t request);     // NULL: it is gone
void worker_import_again(struct worker *worker, struct import *import);                // for bytes
void worker_import_failed(struct worker *worker, struct import *import, enum dj_error error, const char *text);
const struct import *worker_import_landed(struct worker *worker, const struct work *work);     // NULL: no copy for it has landed
DJ_MUST_USE enum dj_error worker_peer_message(struct worker *worker, struct peer *peer, uint16_t message, struct blob *body,
                                              struct blob *bulk);

// direct.c: values go from one device's memory to another's
bool worker_lend(struct worker *worker, const struct work *work);                      // tells a FETCH the place; false: bytes must go
void worker_lent_copied(struct worker *worker, uint64_t link, const struct wire_copied *said);
void worker_lents_link_down(struct worker *worker, uint64_t link);
void worker_lents_sweep(struct worker *worker);
void worker_lents_end(struct worker *worker);                                          // of a life that was fenced
void worker_direct_place(struct worker *worker, struct peer *peer, struct import *import, const struct wire_value *value,
                         const struct tensor_meta *meta);
void worker_direct_done(struct worker *worker, struct landing *landing, struct exec_run *run);
void worker_direct_held(struct worker *worker, struct peer *peer, const struct wire_held *said);
void worker_direct_forget(struct worker *worker, uint64_t incarnation);                // its link is lost
const char *worker_direct_domain(const struct worker *worker, const struct peer *peer);       // what FETCH says

// journal.c
// These give the record's number; 0: it has none.
uint64_t worker_journal_execution(struct worker *worker, const struct work *work, const struct exec_run *run);
uint64_t worker_journal_import(struct worker *worker, const struct work *work, uint64_t bytes);
void worker_journal_ended(struct worker *worker, const struct work *work);    // with a step of a recovery: it has no record
// What an execution that failed took: it is not here, and needed as before.
void worker_journal_lost(struct worker *worker, const struct work *work, bool is_prepared);
void worker_journal_release(struct worker *worker, uint64_t session, const struct handle *handle, uint32_t handles);
void worker_journal_checkpoint(struct worker *worker, const struct record *record, size_t about_bytes);
void worker_journal_plan(struct worker *worker, struct hash128 fingerprint, const uint8_t *bytes, uint32_t length);
bool worker_journal_flush(struct worker *worker);                                      // true: all of it is sent
void worker_journal_leaf_stored(struct worker *worker);
void worker_journal_sweep(struct worker *worker);
void worker_journal_soon(struct worker *worker);                                       // flushes after a moment
void worker_journal_acknowledged(struct worker *worker, uint64_t last);
void worker_journal_rejoined(struct worker *worker);
void worker_journal_forget(struct worker *worker);                                     // a fenced life: nobody may hear of what it ran
bool worker_journal_is_full(const struct worker *worker);
void worker_journal_free(struct worker *worker);
void worker_chain_drop(struct chain *chain);                                           // NULL is allowed

// inventory.c: which values are here
void worker_inventory_add(struct worker *worker, struct handle handle, uint64_t bytes);        // told with the next flush
void worker_inventory_flush(struct worker *worker);
void worker_inventory_all(struct worker *worker);                                      // after joining

// protect.c: what values would cost to bring back, and when they are made safe
void worker_protect_prepared(struct worker *worker, struct work *work);                // may pin what it keeps
void worker_protect_done(struct worker *worker, struct work *work, const struct exec_run *run);       // takes work->cut
DJ_MUST_USE enum dj_error worker_protect_ask(struct worker *worker, struct work *work, struct fault *fault);  // CHECKPOINT, in its turn
void worker_protect_safe(struct session *session, uint64_t counter);                   // what this execution kept is safe
void worker_protect_failed(struct worker *worker, struct session *session);            // a cut was given up: the next one waits
void worker_protect_drop(struct worker *worker, struct session *session);              // the session ends

// cut.c: values are read in pieces, and the pieces made safe
struct cut *worker_cut_make(struct session *session, uint32_t values);                 // NULL out of memory
void worker_cut_free(struct worker *worker, struct cut *cut);
DJ_MUST_USE enum dj_error worker_cut_add(struct worker *worker, struct cut *cut, struct handle handle);
void worker_cut_of_execution(struct cut *cut, uint64_t counter);                       // these are its outputs
void worker_cut_of_request(struct cut *cut, uint64_t link, uint64_t request);          // a client asked: to the store, and it is told
uint64_t worker_cut_bytes(const struct worker *worker, struct cut *cut);               // that are to be written
void worker_cut_begin(struct worker *worker, struct cut *cut);
void worker_cuts_session_over(struct worker *worker, const struct session *session);
// pieces.c: the pieces are read and made safe
void worker_cuts_pump(struct worker *worker);
void worker_cuts_tick(struct worker *worker);
bool worker_cuts_yield(struct worker *worker);                                         // memory is short: one gives up; false: none to give
void worker_cut_read_done(struct worker *worker, struct piece *piece, struct exec_run *run);
void worker_cuts_piece_free(struct worker *worker, struct piece *piece);               // of a read that never ended
struct blob *worker_cut_piece(struct worker *worker, struct hash128 content);          // of a piece that was offered; NULL: none
void worker_cut_lacks(struct worker *worker, struct hash128 content);                  // somebody asks for what is only known by name
bool worker_cut_has(const struct worker *worker, struct hash128 content);
void worker_cuts_stored(struct worker *worker, uint64_t link, const struct wire_leaf_ok *ok);
void worker_cuts_peer_gone(struct worker *worker, uint64_t incarnation);
void worker_cuts_refused(struct worker *worker, uint64_t link, enum dj_error error);   // FAILED without a request
void worker_cuts_rejoined(struct worker *worker);
void worker_cuts_sweep(struct worker *worker);

#endif
