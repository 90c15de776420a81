// Protocol: the client's side of every conversation: one session at the head, one ordered stream per worker.
//
// Idea: a place is an ordered stream of submissions to one worker at a time; it keeps its number when its worker changes, so that whoever
// holds a handle knows for ever where it is. A submission is kept whole until the head has its record durably (watermark, or this client told it
// itself), so that it can be sent again, and told. When a worker is gone the place gets another one, the head plans which steps bring back
// what is needed there, the steps go first, then what was unanswered: a program sees a pause. Whatever happens, every submission, fetch and
// question gets exactly one outcome.
//
// A place:  ASKED ──grant──► DIALLING ──link──► HELLO ──► ATTACHING ──► READY
//             ▲                 ▲ ▲                           │ values are due   │ link cut: dialled again, same stream
//             │                 │ └──── new stream ──────┐    ▼                  │
//             │                 └────────────────────────┼─ RECOVERING ──plan──► READY (steps, then the rest)
//             ├── worker gone (refused, fenced, silent, told so by the head) ◄───┴ from every state but GONE; again and again
//             └── no worker, no head for recovery_timeout; LINEAGE; taken over; ──► GONE
// READY drains and begins a new stream when an input that should be there is not.
//
// Pure: events in, calls of the port out; the same code in the client's loop and in the simulator. Thread: one at a time (the client's
// lock). The port's functions must not call back into the protocol.

#ifndef FRONTEND_CLIENT_PROTOCOL_PROTOCOL_H
#define FRONTEND_CLIENT_PROTOCOL_PROTOCOL_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/error.h"
#include "core/io/io.h"
#include "frontend/client/protocol/submission.h"

struct protocol;

enum {
    PROTOCOL_PLACES_LIVE_MAX = 64,              // workers of one session at a time
    PROTOCOL_IN_FLIGHT_MAX = 256,               // submissions without an answer ...
    PROTOCOL_IN_FLIGHT_BYTES_MAX = 64 << 20,    // ... and what is kept for them
    PROTOCOL_WINDOW_MAX = 1 << 16,              // submissions not yet durable ...
    PROTOCOL_WINDOW_BYTES_MAX = 64 << 20,       // ... and what is kept for them
    PROTOCOL_FETCHES_MAX = 4096,
    PROTOCOL_DIALS_MAX = 3,    // before a worker that cannot be reached is given up
    PROTOCOL_STEPS_OUT_MAX = 64,    // of a recovery, not answered
    PROTOCOL_TEXT_MAX = 400,
};
#define PROTOCOL_RETRY_NS 50000000u          // between two dials of a lost worker
#define PROTOCOL_REACH_NS 800000000u         // a worker that cannot be dialled for so long is gone
#define PROTOCOL_PING_NS 2000000000u         // of silence while work is out
#define PROTOCOL_SILENCE_NS 10000000000u     // of silence after which a worker that used to answer pings is gone
#define PROTOCOL_NO_WORKER_NS 3000000000u    // how long a head without workers is asked again as a session opens
#define PROTOCOL_ASK_AGAIN_NS 250000000u     // between two questions for a worker when there is none
#define PROTOCOL_JOURNAL_NS 1000000000u      // answered for so long and not durable: this client tells the head itself
#define PROTOCOL_RECOVERY_NS ((uint64_t)600000000000)    // how long a place waits for a worker or the head: the default

struct protocol_config {
    char head[IO_ADDRESS_MAX];    // "tcp://host:port"
    struct hash128 token;
    char tenant[64], name[64];
    char host[64];    // names this machine as workers do: unix sockets are used where it is the same
    uint64_t incarnation;
    uint64_t timeout_ns;    // for the session to be ready
    uint32_t first_place;
    uint32_t pid;              // for people
    uint8_t recovery;          // enum lineage_policy
    uint64_t replay_limit_ns;  // 0: the head's default
    bool allows_close;
    uint64_t recovery_timeout_ns;    // 0: PROTOCOL_RECOVERY_NS
    bool waits_for_worker;    // NO_WORKER is not an answer: one may be started
    bool is_embedded;    // the head is this process's child, its worker comes right after it: NO_WORKER is not an answer
    struct leaf_table *leaves;
};

// One recovery of a place, for people.
struct protocol_recovery {
    uint32_t place, executions;    // run again
    uint64_t cost_ns, took_ns;     // as long as they took first; the pause
    bool was_lost;                 // else its worker had lost values, or records stood for them
    char from[64], to[64];         // workers
};

struct protocol_port {
    void *self;
    // As the effects of core/io/io.h: link_open answers later with IO_LINK_UP or IO_LINK_DOWN, send takes both holds.
    uint64_t (*link_open)(void *self, const char *address);
    void (*link_close)(void *self, uint64_t link);
    void (*send)(void *self, uint64_t link, uint16_t message, struct blob *body, struct blob *bulk, uint64_t bulk_offset,
                 uint64_t bulk_bytes, uint64_t not_after_ns);
    // Outcomes, each tag once: executed or failed; answered any number of times before executed. An import is executed when its record is
    // durable: until then its source must not be released, or the head might forget what made it before it hears that it was used.
    void (*answered)(void *self, void *tag, uint32_t output, struct blob *blob, uint64_t offset, uint64_t length);
    void (*executed)(void *self, void *tag);
    void (*failed)(void *self, void *tag, enum dj_error error, int64_t node, const char *text);
    void (*place_lost)(void *self, uint32_t place, enum dj_error error, const char *text);
    void (*fetched)(void *self, void *tag, enum dj_error error, const char *text, struct blob *blob, uint64_t length);
    void (*told)(void *self, void *tag, enum dj_error error, const char *text, const void *data, size_t bytes);
    // Visits the live handles of a place; NULL: there are none. Called from protocol_event and protocol_tick only.
    void (*live_handles)(void *self, uint32_t place, void (*visit)(void *context, uint64_t counter, uint32_t output), void *context);
    void (*recovered)(void *self, const struct protocol_recovery *recovery);    // may be NULL
};

DJ_MUST_USE enum dj_error protocol_make(const struct protocol_config *config, const struct protocol_port *port,
                                        struct protocol **ret);
// Fetches and questions get DJ_E_CLOSED; submissions no outcome: the caller has told its own people (recorder_close). NULL is allowed.
void protocol_free(struct protocol *protocol);

void protocol_start(struct protocol *protocol, uint64_t now_ns);    // dials the head
// IO_LINK_UP, IO_LINK_DOWN and IO_RECV, whose blobs it takes; others are ignored.
void protocol_event(struct protocol *protocol, uint64_t now_ns, const struct io_event *event);
void protocol_tick(struct protocol *protocol, uint64_t now_ns);    // at the latest at the deadline
uint64_t protocol_deadline_ns(const struct protocol *protocol);    // UINT64_MAX: none

enum protocol_state { PROTOCOL_OPENING, PROTOCOL_READY, PROTOCOL_FAILED };
enum protocol_state protocol_state(const struct protocol *protocol, struct fault *fault);    // FAILED fills *fault

// The place that serves a device of the pool (negative: the session's own choice); a new one is asked for if there is none.
uint32_t protocol_place(struct protocol *protocol, uint64_t now_ns, int device);
// The pool device of the session's own choice; 0 while there is none.
uint32_t protocol_home_device(const struct protocol *protocol);
// Takes a submission; never refuses (a full window is for the caller to heed before).
void protocol_submit(struct protocol *protocol, uint64_t now_ns, const struct submission *submission);
void protocol_import(struct protocol *protocol, uint64_t now_ns, uint32_t place, uint64_t counter, uint32_t from_place,
                     uint64_t from_counter, uint32_t from_output, void *tag);
void protocol_release(struct protocol *protocol, uint32_t place, const struct released *released, uint32_t count);
void protocol_fetch(struct protocol *protocol, uint64_t now_ns, uint32_t place, uint64_t counter, uint32_t output, void *tag);
void protocol_ask(struct protocol *protocol, uint64_t now_ns, const char *verb, const char *argument, void *tag);
// Makes these values of a place durable: told with RECORD_CHECKPOINT of each, in order.
void protocol_checkpoint(struct protocol *protocol, uint64_t now_ns, uint32_t place, const struct released *handle, uint32_t count,
                         void *tag);
// A RECORD_TAG under a name of the tenant; told with what the head keeps under it.
void protocol_tag_put(struct protocol *protocol, uint64_t now_ns, const char *name, const void *record, size_t bytes, void *tag);
void protocol_tag_get(struct protocol *protocol, uint64_t now_ns, const char *name, void *tag);
bool protocol_is_full(const struct protocol *protocol);
bool protocol_has_worker(const struct protocol *protocol);      // false: the head said last that the pool has none
bool protocol_is_idle(const struct protocol *protocol);         // every submission has its outcome
// Tells the head at once what was answered and is not durable; protocol_is_durable: nothing is left to tell.
void protocol_tell(struct protocol *protocol, uint64_t now_ns);
bool protocol_is_durable(const struct protocol *protocol);
// Says good-bye to the head; keep: what is needed to resume the session by its name stays.
void protocol_close(struct protocol *protocol, bool keep);
// The session, 0 while there is none, and a recorder's number as wires and records have it.
uint64_t protocol_session(const struct protocol *protocol);
uint64_t protocol_counter(const struct protocol *protocol, uint64_t number);
bool protocol_is_resuming(const struct protocol *protocol);     // submissions are still compared with records

uint32_t protocol_devices(const struct protocol *protocol);         // of the pool
bool protocol_can(const struct protocol *protocol, uint32_t op);    // some granted device has a kernel

struct protocol_stats {
    uint64_t executions, plans_sent, round_trips, messages_out, leaf_bytes_out, resubmissions, links_lost, bind_ns, execute_ns;
    uint64_t bytes_unacknowledged, executions_unacknowledged, stale;
    uint64_t recoveries, replayed, recovery_ns, nondeterminism, resumed, journalled;
};
struct protocol_stats protocol_stats(const struct protocol *protocol);

#endif
