// State: the protocol's structures, shared by its source files and by nobody else.

#ifndef FRONTEND_CLIENT_PROTOCOL_STATE_H
#define FRONTEND_CLIENT_PROTOCOL_STATE_H

#include "core/base/arena.h"
#include "core/base/list.h"
#include "core/base/map.h"
#include "core/io/blob.h"
#include "core/lineage/recovery.h"
#include "core/srg/bindings.h"
#include "core/wire/wire.h"
#include "frontend/client/protocol/protocol.h"

enum flight_kind { FLIGHT_EXECUTE, FLIGHT_IMPORT };
enum flight_state { FLIGHT_WAITING, FLIGHT_SENT, FLIGHT_DONE };

// One submission in its place's stream, or one step of its recovery. Counters here are those of the wire (resume.c).
struct flight {
    struct list node;
    uint8_t kind, state;
    bool was_sent;     // at least once: a second time is a resubmission
    bool is_step;      // of a recovery: nobody's outcome, forgotten once it is answered
    bool has_failed;   // for want of an input: goes again in a new stream, where its failed outputs are released first
    bool has_name;     // EXECUTE: its only kept output is known as `output`
    bool is_replay;    // a step that runs again what ran before
    bool owns_released;    // `released` is malloc'd on its own
    bool is_recorded;      // its record is durable: with its leaves durable too, nobody needs it here any more
    uint8_t deaths;    // of workers that had it on the device
    uint8_t absences;  // how often an input of it was not there
    enum dj_error doom;    // is not sent any more, but fails with this ...
    uint64_t doomed_by;    // ... for want of what this execution should have made; 0: for its own sake
    uint64_t counter;
    uint32_t part, output;
    void *tag;
    size_t bytes;         // kept for it
    uint64_t journal;     // told to the head under this number of its link; 0: not yet
    uint64_t done_ns, cost_ns;
    uint32_t numerics;    // class that answered it
    struct blob *answer;  // the ANSWER's body, for the record
    // EXECUTE: one allocation behind `memory`, until it is durable.
    void *memory;
    struct srg_plan *plan;
    uint32_t plan_number;
    int64_t *word;
    uint8_t *kept, *donated;
    uint32_t *answers;
    struct released *released;
    struct leaf **leaves;
    uint32_t answers_count, released_count, leaves_count;
    // IMPORT
    bool owes_outcome;    // it has run, and its program hears so when it goes
    uint32_t from_place;
    uint64_t from_counter, from_incarnation;    // incarnation 0: wherever the place is
    uint32_t from_output;
};

// What this link's other end knows about a plan.
struct peer_plan {
    struct hash128 fingerprint;    // zero: nothing sent on this link
    struct binding_history history;
    uint8_t *kept, *donated;    // as in the last EXECUTE
    uint32_t kept_bytes, donated_bytes;
    uint32_t chain;      // executions since one stood alone
    bool is_unrecorded;  // the last one was a repetition or a step: whose record the next delta could not build on
};

enum fetch_kind { FETCH_VALUE, FETCH_CHECKPOINT };

// What is asked of a place behind its stream; asked again until it is answered.
struct fetch {
    struct list node;
    uint8_t kind, absences;
    bool is_sent;    // on this link
    uint64_t request, counter;
    uint32_t place, output;
    void *tag;
    uint8_t *handles;    // CHECKPOINT: as on the wire
    uint32_t handles_bytes;
};

// Where the values of an incarnation can be had.
struct whereabouts {
    uint64_t incarnation;
    struct wire_location location;
};

struct absent {
    uint64_t counter;
    uint32_t output;
};

// A part of the head's plan, as it came.
struct plan_part {
    struct list node;
    struct blob *body;
    const uint8_t *bytes;
    uint32_t length;
};

// What brings a place's values back (recover.c).
struct recovery_state {
    uint64_t begun_ns;       // since when the place is without its values; 0: it is not
    uint64_t lost;           // the incarnation that had them; 0: none
    char name[64];           // its worker's
    uint64_t request;        // RECOVER that is out; 0: none
    uint64_t ask_at_ns;      // when to ask again after a refusal
    bool is_planned;         // every part is here
    struct list parts;       // struct plan_part, not yet read
    struct recovery_reader reader;
    bool is_reading;         // `reader` is in the first part
    struct flight *next;     // read, and not yet in the stream
    uint32_t steps_out;      // in the stream, not answered
    uint32_t rounds;         // without progress
    uint64_t bytes;          // of parts
    uint64_t cost_ns;
    uint32_t executions;
    struct absent *absent;
    uint32_t absents, absents_capacity;
    uint64_t locating;       // LOCATE that is out; 0: none
    uint64_t blamed_counter;    // a step that was on the device at a death
    uint32_t blamed_part, blamed_deaths;
};

enum peer_state { PEER_ASKED, PEER_DIALLING, PEER_HELLO, PEER_ATTACHING, PEER_RECOVERING, PEER_READY, PEER_GONE };

struct peer {
    struct list node;
    uint32_t place, slot;
    int64_t device;    // asked for; -1: any, until the first grant says which
    enum peer_state state;
    bool is_home;
    struct wire_grant grant;
    uint8_t ops[64];
    uint64_t session;
    uint32_t epoch;
    uint64_t grant_request, dial_request, link;
    uint64_t down_since_ns, dial_at_ns, deadline_ns;
    uint64_t ask_at_ns;    // ASKED and refused: when to ask again
    uint32_t dials, refusals;
    bool is_unix, has_failed_unix;
    bool was_attached;    // with this grant: it was good for something
    // The life of the place at one incarnation.
    uint32_t stream;
    uint64_t incarnation;       // that this stream is for; 0: none yet
    bool must_recover;          // before anything else is sent in this stream
    bool is_draining;           // an input was absent: nothing more is sent; when all is answered, a new stream begins
    bool is_behind;             // executions that were answered from records made values that its worker may not have
    uint64_t had_counter;       // received in this stream before this link
    uint32_t had_part;
    uint64_t suspect_counter;    // on the device when the link went down; 0: none
    uint32_t suspect_part;
    bool is_life_over;           // as the head said of this incarnation, or another one at its address
    uint32_t leaves_out;         // asked for and sent on this link, and not said to be there
    struct recovery_state recovery;
    uint32_t recoveries;
    uint32_t numerics;          // class of its first worker
    struct list flights;        // struct flight, by position
    uint64_t confirmed;
    uint64_t answered_counter;    // the last position with an outcome in this stream
    uint32_t answered_part;
    uint32_t in_flight, undone;    // submissions without an outcome; and with the steps of a recovery
    struct peer_plan *plan;
    uint32_t plans;
    struct writer released;    // handles dropped while their turn in the stream could not come, as RELEASE says them
    struct writer failed;      // names of failed values that a new stream makes again
    uint64_t heard_ns, pinged_ns;
    bool has_pong;
    struct fault trouble;    // why the place drains
    uint64_t drained_at_ns;  // not before
    struct fault fault;    // GONE: why; else what the worker held against the session on this link
};

enum head_state { HEAD_CLOSED, HEAD_DIALLING, HEAD_HELLO, HEAD_OPENING, HEAD_READY };

struct question {
    struct list node;
    uint8_t kind;    // enum question_kind
    uint64_t request;
    void *tag;
    char verb[32], argument[256];    // TAG_*: the tag's name is the argument
    uint8_t *record;                 // TAG_PUT
    uint32_t record_bytes;
    bool is_sent;
};
enum question_kind { QUESTION_ASK, QUESTION_TAG_PUT, QUESTION_TAG_GET };

// From this number of the recorder's on, executions are of that epoch of the session.
struct era {
    uint64_t first;
    uint32_t epoch;
};
enum { ERAS_MAX = 256, WHEREABOUTS_MAX = 64, PLAN_NUMBERS = 4096, STEP_PLANS_MAX = 2048 };

struct protocol {
    struct protocol_config config;
    struct protocol_port port;
    struct arena *arena;             // decoding
    struct writer delta, numbers;    // scratch of encoding

    enum head_state head;
    uint64_t head_link, head_request;
    uint64_t session_request;
    uint32_t head_tries;    // dialled in vain since it was last up
    bool is_resuming;       // SESSION_OPEN named the session that there was
    uint64_t started_ns, head_retry_ns, deadline_ns;
    enum protocol_state state;
    struct fault fault;
    uint64_t session, generation;
    uint32_t epoch, pool_devices;

    uint64_t now_ns;    // of the last call
    uint64_t next_request;
    uint32_t next_stream;
    bool is_fenced;
    bool is_without_worker;    // as the head said last
    struct era era[ERAS_MAX];
    uint32_t eras;
    struct resume *resume;    // NULL: nothing of an earlier life is left to compare with
    // What this client told the head itself, on the head's link that there is.
    uint64_t journal_next, journal_acknowledged;
    uint64_t journal_at_ns;       // when to look for old ones
    struct map *journal_plans;    // told on this link
    struct map *step_plans;       // fingerprint -> struct srg_plan, of recoveries
    struct record_scratch scratch;
    struct whereabouts where[WHEREABOUTS_MAX];
    uint32_t wheres;
    struct list peers, fetches, questions;    // GONE peers stay: handles ask about them
    uint32_t next_place, in_flight, fetches_count;
    uint64_t slots, in_flight_bytes, window_bytes, window;
    struct protocol_stats stats;
};

static inline uint64_t later(uint64_t now_ns, uint64_t by_ns)
{
    return now_ns + by_ns < now_ns ? UINT64_MAX : now_ns + by_ns;
}
void send_message(struct protocol *protocol, uint64_t link, uint16_t message,
                  struct blob *body);    // body NULL: encoding failed; logged

// head.c
void head_dial(struct protocol *protocol, uint64_t now_ns);
void head_up(struct protocol *protocol);
void head_down(struct protocol *protocol, uint64_t now_ns, enum dj_error error);
void head_message(struct protocol *protocol, uint64_t now_ns, uint16_t message, struct blob *body);
void head_ask_grant(struct protocol *protocol, uint64_t now_ns);
void head_tick(struct protocol *protocol, uint64_t now_ns);
// The session is somebody else's, or cannot be: everything ends with these words.
void head_fenced(struct protocol *protocol, enum dj_error error, const char *text);

void session_ready(struct protocol *protocol);    // unless records are still to be read

// questions.c
void questions_send(struct protocol *protocol);
void questions_resend(struct protocol *protocol);    // the head's link is gone: they are asked again on the next
// False: no such request.
bool question_answered(struct protocol *protocol, uint64_t request, enum dj_error error, const char *text, const void *data,
                       size_t bytes);
void questions_fail(struct protocol *protocol, enum dj_error error, const char *text);

// peer.c
struct peer *peer_make(struct protocol *protocol, uint64_t now_ns, int64_t device);    // NULL: out of memory
struct peer *peer_at(const struct protocol *protocol, uint32_t place);
void peer_granted(struct protocol *protocol, uint64_t now_ns, struct peer *peer, const struct wire_grant *grant);
void peer_up(struct protocol *protocol, struct peer *peer, uint64_t link);
void peer_down(struct protocol *protocol, uint64_t now_ns, struct peer *peer, enum dj_error error);
void peer_message(struct protocol *protocol, uint64_t now_ns, struct peer *peer, uint16_t message, struct blob *body,
                  struct blob *bulk);
// Its worker is gone: another one is asked for, and what it held is brought there.
void peer_lost(struct protocol *protocol, uint64_t now_ns, struct peer *peer, const char *format, ...) DJ_PRINTF(4, 5);
// For ever: every outcome that is still due at that place becomes `error`; its handles are lost.
void peer_lose(struct protocol *protocol, struct peer *peer, enum dj_error error, const char *format, ...) DJ_PRINTF(4, 5);
// The place goes on in a new stream, from at_ns on: it must recover, or positions were used up by failures.
void peer_restream(struct protocol *protocol, uint64_t at_ns, struct peer *peer);
void peer_ready(struct protocol *protocol, uint64_t now_ns, struct peer *peer);    // nothing is left to plan
void peer_tick(struct protocol *protocol, uint64_t now_ns, struct peer *peer);
uint64_t peer_deadline_ns(const struct protocol *protocol, const struct peer *peer);
void peer_free(struct protocol *protocol, struct peer *peer);

// fetch.c
void fetches_send(struct protocol *protocol, struct peer *peer);    // once the stream before them has been sent
void fetches_restart(struct protocol *protocol, const struct peer *peer);    // a new link
void fetch_answered(struct protocol *protocol, struct peer *peer, uint64_t request, enum dj_error error, const char *text,
                    struct blob *bulk, uint64_t bytes, const void *data, size_t data_bytes);
void fetches_lose(struct protocol *protocol, uint32_t place, enum dj_error error, const char *text);
// That execution failed and is not tried again: what is asked of its outputs ends with its error.
void fetches_fail(struct protocol *protocol, uint32_t place, uint64_t counter, enum dj_error error, const char *text);
bool fetch_waits_at(const struct protocol *protocol, uint32_t place);
void fetch_free(struct protocol *protocol, struct fetch *fetch);

// leaves.c
void leaves_send(struct protocol *protocol, uint64_t link, const struct wire_leaf_need *need);
// Leaves of what has its outcome and is that old go to the store from here: their worker may be gone, or be refused by a full disk.
void leaves_offer(struct protocol *protocol, const struct peer *only, uint64_t older_ns);
void leaves_arrived(struct protocol *protocol, const struct wire_leaf_ok *ok);
void leaves_are_there(struct peer *peer, const struct wire_leaf_ok *ok);    // at the peer's worker

// flight.c
struct flight *flight_of_submission(const struct protocol *protocol, const struct submission *submission);    // NULL: out of memory
void flight_add(struct protocol *protocol, struct peer *peer, struct flight *flight);    // at the end of the stream, or of an equal place
void flight_done(struct protocol *protocol, struct peer *peer, struct flight *flight);
void flight_remove(struct protocol *protocol, struct peer *peer, struct flight *flight);    // DONE, or a step
// Forgets it once it has its outcome, its record is durable and so are its leaves: what is replayed without them would fail.
bool flight_has_durable_leaves(const struct flight *flight);
void flight_settle(struct protocol *protocol, struct peer *peer, struct flight *flight);
void flight_keep_answer(struct protocol *protocol, struct flight *flight, struct blob *body);
struct flight *flight_of_step(const struct submission *like);    // its words and counter as they are on the wire
void flight_free(struct flight *flight);    // that never was in a stream
static inline int position_compare(uint64_t a, uint32_t a_part, uint64_t b, uint32_t b_part)
{
    return a != b ? (a < b ? -1 : 1) : a_part != b_part ? (a_part < b_part ? -1 : 1) : 0;
}

// stream.c
void stream_send(struct protocol *protocol, struct peer *peer);       // what waits, in order
void stream_restart(struct protocol *protocol, struct peer *peer);    // a new link: what is unanswered waits again
void stream_answer(struct protocol *protocol, struct peer *peer, const struct wire_answer *answer, struct blob *body,
                   struct blob *bulk);
void stream_failed(struct protocol *protocol, struct peer *peer, const struct wire_execution_failed *failed);
void stream_fail_all(struct protocol *protocol, struct peer *peer, enum dj_error error, const char *text);
bool stream_is_drained(const struct peer *peer);    // nothing that was sent waits for its outcome
bool stream_is_caught_up(struct peer *peer);         // everything was sent
void stream_begin_to_drain(struct protocol *protocol, struct peer *peer, enum dj_error error, const char *text);
void stream_free(struct protocol *protocol, struct peer *peer);
// encode.c: sending one flight. An error: it cannot be sent, ever.
DJ_MUST_USE enum dj_error flight_send(struct protocol *protocol, struct peer *peer, struct flight *flight);
void plans_forget(struct peer *peer);    // the other end knows nothing any more

// journal.c: telling the head what was answered.
void journal_reset(struct protocol *protocol);                            // a new link of the head
bool journal_waits_for_leaves(const struct protocol *protocol);    // something that was seen cannot be told yet
void journal_place(struct protocol *protocol, const struct peer *peer);    // NULL: every place
void journal_acknowledged(struct protocol *protocol, uint64_t last);
void journal_tick(struct protocol *protocol);
uint64_t journal_deadline_ns(const struct protocol *protocol);

// recover.c
void recover_init(struct peer *peer);
void recover_drop(struct protocol *protocol, struct peer *peer);    // the plan and its steps; what is absent stays known
void recover_free(struct protocol *protocol, struct peer *peer);
void recover_ask(struct protocol *protocol, struct peer *peer);      // RECOVERING: RECOVER goes out as soon as the head is there
void recover_said(struct protocol *protocol, const struct wire_recovery *message, struct blob *body);
bool recover_refused(struct protocol *protocol, uint64_t request, enum dj_error error, const char *text);
void recover_located(struct protocol *protocol, const struct wire_located *message);
void recover_head_down(struct protocol *protocol);
// The next step that comes before this counter (UINT64_MAX: any), put into the stream; NULL: none, or (*ret_waits) not now.
struct flight *recover_next_step(struct protocol *protocol, struct peer *peer, uint64_t counter, bool *ret_waits);
void recover_step_done(struct protocol *protocol, struct peer *peer, struct flight *flight);
void plan_part_free(struct plan_part *part);
bool recover_has_steps(const struct peer *peer);    // not yet in the stream
void recover_absent(struct protocol *protocol, struct peer *peer, uint64_t counter, uint32_t output);
void recover_absent_inputs(struct protocol *protocol, struct peer *peer, const struct flight *flight, bool only_donated);
void recover_suspect(struct peer *peer);    // its worker dies, it seems: what is it at?
void recover_blame(struct protocol *protocol, struct peer *peer);    // its worker's life is over: who was on the device?
const struct wire_location *whereabouts_of(const struct protocol *protocol, uint64_t incarnation);
void whereabouts_learn(struct protocol *protocol, const struct wire_location *location);

void recover_finish(struct protocol *protocol, struct peer *peer);    // tells people, once nothing of it is left
bool recover_is_hopeless(const struct peer *peer);                    // rounds without progress
bool recover_is_quarantined(const struct peer *peer);
void step_plans_free(struct protocol *protocol);

// resume.c: numbers of executions, and what an earlier life of the program has done already.
uint64_t wire_counter(const struct protocol *protocol, uint64_t number);
void wire_words(const struct protocol *protocol, const struct srg_plan *plan, uint64_t number, int64_t *word);
void resume_begin(struct protocol *protocol, uint64_t journalled);
void resume_part(struct protocol *protocol, const struct wire_journal_part *message, struct blob *body);
void resume_ask(struct protocol *protocol);    // the next page, if one is due
bool resume_is_loading(const struct protocol *protocol);
bool resume_refused(struct protocol *protocol, uint64_t request);
// True: it is answered from its record, at the next tick.
bool resume_submission(struct protocol *protocol, const struct submission *submission);
bool resume_import(struct protocol *protocol, uint32_t place, uint64_t number, uint64_t from_number, uint32_t from_output, void *tag);
void resume_needs_values(struct protocol *protocol, struct peer *peer);    // those that records stood for so far, if any
void resume_tick(struct protocol *protocol);    // outcomes that are due
bool resume_has_outcomes(const struct protocol *protocol);
void resume_free(struct protocol *protocol);

#endif
