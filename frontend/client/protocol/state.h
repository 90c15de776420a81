// State: the protocol's structures, shared by its source files and by nobody else.

#ifndef FRONTEND_CLIENT_PROTOCOL_STATE_H
#define FRONTEND_CLIENT_PROTOCOL_STATE_H

#include "core/base/arena.h"
#include "core/base/list.h"
#include "core/io/blob.h"
#include "core/srg/bindings.h"
#include "core/wire/wire.h"
#include "frontend/client/protocol/protocol.h"

enum flight_kind { FLIGHT_EXECUTE, FLIGHT_IMPORT };
enum flight_state { FLIGHT_WAITING, FLIGHT_SENT, FLIGHT_DONE };

// One submission in its place's stream.
struct flight {
    struct list node;
    uint8_t kind, state;
    bool was_sent;    // at least once: a second time is a resubmission
    uint64_t counter;
    void *tag;
    size_t kept_bytes_total;    // of this struct's own memory, until it is answered
    struct blob *body;          // as last sent, until it is durable
    // EXECUTE, until it is answered: one allocation behind `memory`.
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
    uint32_t from_place;
    uint64_t from_counter;
    uint32_t from_output;
};

// What this link's other end knows about a plan.
struct peer_plan {
    struct hash128 fingerprint;    // zero: nothing sent on this link
    struct binding_history history;
    uint8_t *kept, *donated;    // as in the last EXECUTE
    uint32_t kept_bytes, donated_bytes;
};

struct fetch {
    struct list node;
    uint64_t request, counter;
    uint32_t place, output;
    void *tag;
};

enum peer_state { PEER_ASKED, PEER_DIALLING, PEER_HELLO, PEER_ATTACHING, PEER_READY, PEER_GONE };

struct peer {
    struct list node;
    uint32_t place, slot;
    int64_t device;    // asked for; -1: any
    enum peer_state state;
    bool is_home;
    struct wire_grant grant;
    uint8_t ops[64];
    uint64_t session;
    uint32_t epoch;
    uint64_t grant_request, dial_request, link;
    uint64_t down_since_ns, dial_at_ns, deadline_ns;
    uint32_t dials;
    bool is_unix, has_failed_unix;
    struct list flights;    // struct flight, by counter
    uint64_t confirmed;
    uint64_t watermark;    // durable at the head up to this counter
    uint32_t in_flight;
    struct peer_plan *plan;
    uint32_t plans;
    uint64_t heard_ns, pinged_ns;
    bool has_pong;
    struct fault fault;    // GONE: why
};

enum head_state { HEAD_CLOSED, HEAD_DIALLING, HEAD_HELLO, HEAD_OPENING, HEAD_READY };

struct question {
    struct list node;
    uint64_t request;
    void *tag;
    char verb[32], argument[256];
    bool is_sent;
};

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

    uint64_t next_request;
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
void head_message(struct protocol *protocol, uint64_t now_ns, uint16_t message, const struct blob *body);
void head_ask_grant(struct protocol *protocol, uint64_t now_ns, struct peer *peer);
void head_tick(struct protocol *protocol, uint64_t now_ns);

// peer.c
struct peer *peer_make(struct protocol *protocol, uint64_t now_ns, int64_t device);    // NULL: out of memory
struct peer *peer_at(const struct protocol *protocol, uint32_t place);
void peer_granted(struct protocol *protocol, uint64_t now_ns, struct peer *peer, const struct wire_grant *grant);
void peer_up(struct protocol *protocol, struct peer *peer, uint64_t link);
void peer_down(struct protocol *protocol, uint64_t now_ns, struct peer *peer, enum dj_error error);
void peer_message(struct protocol *protocol, uint64_t now_ns, struct peer *peer, uint16_t message, struct blob *body,
                  struct blob *bulk);
// Every outcome that is still due at that place becomes `error`; its handles are lost.
void peer_lose(struct protocol *protocol, struct peer *peer, enum dj_error error, const char *format, ...) DJ_PRINTF(4, 5);
void peer_tick(struct protocol *protocol, uint64_t now_ns, struct peer *peer);
uint64_t peer_deadline_ns(const struct peer *peer);
void peer_free(struct protocol *protocol, struct peer *peer);
void fetch_send(struct protocol *protocol, struct peer *peer, const struct fetch *fetch);

// stream.c
void stream_add(struct protocol *protocol, struct peer *peer, struct flight *flight);
void stream_send(struct protocol *protocol, struct peer *peer);       // what waits, in order
void stream_restart(struct protocol *protocol, struct peer *peer);    // a new link: what is unanswered waits again
void stream_answer(struct protocol *protocol, struct peer *peer, const struct wire_answer *answer, struct blob *body,
                   struct blob *bulk);
void stream_failed(struct protocol *protocol, struct peer *peer, const struct wire_execution_failed *failed);
void stream_fail_all(struct protocol *protocol, struct peer *peer, enum dj_error error, const char *text);
void stream_durable(struct protocol *protocol, struct peer *peer, uint64_t counter);
void stream_free(struct protocol *protocol, struct peer *peer);
struct flight *flight_of_submission(const struct submission *submission);    // NULL: out of memory

#endif
