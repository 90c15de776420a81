// Peer: the link to one worker, from its grant to its loss, and the next one. The table of states is in protocol.h.

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/assert.h"
#include "core/base/log.h"
#include "core/base/planted.h"
#include "frontend/client/protocol/state.h"

enum { REFUSALS_MAX = 8, RELEASED_BYTES_MAX = 1 << 20 };
#define AGAIN_NS 250000000u    // between two grants that led nowhere

struct peer *peer_at(const struct protocol *protocol, uint32_t place)
{
    list_each (node, &protocol->peers) {
        struct peer *peer = list_entry(node, struct peer, node);
        if (peer->place == place)
            return peer;
    }
    return NULL;
}

struct peer *peer_make(struct protocol *protocol, uint64_t now_ns, int64_t device)
{
    struct peer *peer = calloc(1, sizeof *peer);
    if (peer == NULL)
        return NULL;
    list_init(&peer->flights);
    recover_init(peer);
    peer->released = writer_make(RELEASED_BYTES_MAX);
    peer->failed = writer_make(RELEASED_BYTES_MAX);
    peer->place = protocol->next_place++;
    peer->device = device;
    peer->state = PEER_ASKED;
    peer->is_home = device < 0;
    peer->session = protocol->session;
    peer->epoch = protocol->epoch;
    peer->deadline_ns = later(now_ns, protocol->state == PROTOCOL_OPENING ? protocol->config.timeout_ns
                                                                          : protocol->config.recovery_timeout_ns);
    list_push(&protocol->peers, &peer->node);
    if (protocol->slots == UINT64_MAX) {
        peer->slot = PROTOCOL_PLACES_LIVE_MAX;    // none: peer_lose leaves it alone
        peer_lose(protocol, peer, DJ_E_LIMIT, "a session uses at most %d devices at a time", PROTOCOL_PLACES_LIVE_MAX);
        return peer;
    }
    peer->slot = (uint32_t)__builtin_ctzll(~protocol->slots);
    protocol->slots |= (uint64_t)1 << peer->slot;
    return peer;
}

void peer_free(struct protocol *protocol, struct peer *peer)
{
    recover_free(protocol, peer);
    stream_free(protocol, peer);
    list_remove(&peer->node);
    writer_free(&peer->released);
    writer_free(&peer->failed);
    free(peer);
}

// Dialling -----------------------------------------------------------------------------------------------------------------

static void dial(struct protocol *protocol, struct peer *peer)
{
    peer->is_unix = peer->grant.address_unix[0] != '\0' && !peer->has_failed_unix &&
                    strcmp(peer->grant.host, protocol->config.host) == 0;
    peer->state = PEER_DIALLING;
    peer->dial_at_ns = 0;
    peer->dial_request = protocol->port.link_open(protocol->port.self,
                                                  peer->is_unix ? peer->grant.address_unix : peer->grant.address_tcp);
}

static void stream_begin(struct protocol *protocol, struct peer *peer)
{
    peer->stream = PLANTED(REUSE_STREAM) && peer->stream > 1 ? peer->stream : ++protocol->next_stream;
    peer->is_draining = false;
    peer->confirmed = peer->answered_counter = peer->answered_part = 0;
    recover_drop(protocol, peer);
}

// Another life of the place: nothing that was there is here.
static void life_begin(struct protocol *protocol, struct peer *peer)
{
    bool had_one = peer->incarnation != 0;
    if (peer->is_life_over)
        recover_blame(protocol, peer);
    peer->suspect_counter = 0;
    peer->is_life_over = false;
    stream_begin(protocol, peer);
    peer->recovery.absents = 0;
    peer->incarnation = peer->grant.incarnation;
    peer->must_recover = had_one || peer->is_behind;
    writer_reset(&peer->released);
    writer_reset(&peer->failed);
    stream_restart(protocol, peer);
    list_each (node, &peer->flights)
        list_entry(node, struct flight, node)->has_failed = false;
}

void peer_granted(struct protocol *protocol, uint64_t now_ns, struct peer *peer, const struct wire_grant *grant)
{
    if (peer->state != PEER_ASKED)
        return;
    if (peer->incarnation != 0 && peer->session != protocol->session) {
        // The new session has nothing to bring its values back from.
        peer_lose(protocol, peer, DJ_E_HANDLE_LOST, "the head lost the session whose values were on worker %s", peer->grant.name);
        return;
    }
    if (grant->incarnation != peer->incarnation && strcmp(grant->name, peer->grant.name) == 0)
        peer->is_life_over = true;    // this is the next one
    peer->grant = *grant;
    if (grant->ops_bytes <= sizeof peer->ops)
        memcpy(peer->ops, grant->ops, grant->ops_bytes);
    peer->grant.ops = NULL;    // pointed into the message
    peer->grant.ops_bytes = 0;
    if (peer->device < 0)
        peer->device = grant->device_index;
    peer->session = protocol->session;
    peer->epoch = protocol->epoch;
    peer->grant_request = peer->ask_at_ns = 0;
    peer->numerics = record_numerics(grant->numerics);
    peer->has_failed_unix = peer->was_attached = false;
    peer->dials = 0;
    peer->down_since_ns = 0;
    peer->fault = (struct fault){0};
    struct wire_location location = {.worker = grant->worker, .incarnation = grant->incarnation};
    memcpy(location.address_unix, grant->address_unix, sizeof location.address_unix);
    memcpy(location.address_tcp, grant->address_tcp, sizeof location.address_tcp);
    memcpy(location.host, grant->host, sizeof location.host);
    whereabouts_learn(protocol, &location);
    if (grant->incarnation != peer->incarnation)
        life_begin(protocol, peer);
    if (recover_is_quarantined(peer)) {
        peer_lose(protocol, peer, DJ_E_QUARANTINED,
                  "execution %llu was on the device in every death of its worker as it was run again",
                  (unsigned long long)exec_number(peer->recovery.blamed_counter));
        return;
    }
    peer->deadline_ns = later(now_ns, protocol->config.timeout_ns);
    dial(protocol, peer);
}

void peer_up(struct protocol *protocol, struct peer *peer, uint64_t link)
{
    peer->link = link;
    peer->dial_request = 0;
    peer->state = PEER_HELLO;
    struct wire_hello hello = {.version = WIRE_VERSION,
                               .role = ROLE_CLIENT,
                               .token = protocol->config.token,
                               .incarnation = protocol->config.incarnation,
                               .generation = protocol->generation};
    snprintf(hello.name, sizeof hello.name, "%s", protocol->config.name);
    send_message(protocol, link, WIRE_HELLO, wire_hello_encode(&hello));
}

// Losing -------------------------------------------------------------------------------------------------------------------

static void link_forget(struct protocol *protocol, struct peer *peer)
{
    if (peer->link != 0)
        protocol->port.link_close(protocol->port.self, peer->link);
    peer->link = peer->dial_request = peer->dial_at_ns = 0;
    peer->leaves_out = 0;
    peer->recovery.locating = 0;
    if (!peer->recovery.is_planned)
        recover_drop(protocol, peer);
    stream_restart(protocol, peer);
    fetches_restart(protocol, peer);
}

void peer_lost(struct protocol *protocol, uint64_t now_ns, struct peer *peer, const char *format, ...)
{
    char text[FAULT_TEXT_MAX];
    if (peer->state == PEER_GONE || peer->state == PEER_ASKED)
        return;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    log_write(LOG_INFO, "client", "place=%u %s", peer->place, text);
    bool is_again = peer->recovery.begun_ns != 0;
    link_forget(protocol, peer);
    if (!is_again)
        peer->recovery.begun_ns = now_ns;
    if (peer->recovery.lost == 0 && peer->incarnation != 0) {
        peer->recovery.lost = peer->incarnation;
        snprintf(peer->recovery.name, sizeof peer->recovery.name, "%s", peer->grant.name);
    }
    peer->state = PEER_ASKED;
    peer->recoveries++;
    peer->down_since_ns = 0;
    peer->grant_request = 0;
    peer->deadline_ns = later(peer->recovery.begun_ns, protocol->config.recovery_timeout_ns);
    peer->ask_at_ns = peer->was_attached ? 0 : later(now_ns, AGAIN_NS);
    if (protocol->config.is_embedded && protocol->head == HEAD_CLOSED && protocol->head_tries > 0) {
        peer_lose(protocol, peer, DJ_E_WORKER_LOST, "%s", text);    // the one child that both were is gone
        return;
    }
    journal_place(protocol, peer);
    head_ask_grant(protocol, now_ns);
}

void peer_lose(struct protocol *protocol, struct peer *peer, enum dj_error error, const char *format, ...)
{
    if (peer->state == PEER_GONE)
        return;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(peer->fault.text, sizeof peer->fault.text, format, arguments);
    va_end(arguments);
    peer->fault.code = error;
    link_forget(protocol, peer);
    peer->state = PEER_GONE;
    log_write(LOG_WARN, "client", "place=%u lost: %s", peer->place, peer->fault.text);
    if (peer->slot < PROTOCOL_PLACES_LIVE_MAX) {
        protocol->slots &= ~((uint64_t)1 << peer->slot);
        leaf_forget_peer(protocol->config.leaves, peer->slot);
    }
    recover_drop(protocol, peer);
    stream_fail_all(protocol, peer, error, peer->fault.text);
    fetches_lose(protocol, peer->place, error, peer->fault.text);
    // A place that never was a worker has no handles to lose: who asks it hears why it never was.
    enum dj_error lost = error == DJ_E_WORKER_LOST || error == DJ_E_STALE ? DJ_E_HANDLE_LOST : error;
    protocol->port.place_lost(protocol->port.self, peer->place, lost, peer->fault.text);
    // What waited for a value of it waits in vain.
    list_each (node, &protocol->peers) {
        struct peer *waiting = list_entry(node, struct peer, node);
        if (waiting->state == PEER_READY && !protocol->is_fenced)
            stream_send(protocol, waiting);
    }
}

// What a worker said before it closed the link. True: the place ends with it, or begins anew.
static bool was_refused(struct protocol *protocol, uint64_t now_ns, struct peer *peer)
{
    char why[FAULT_TEXT_MAX];
    enum dj_error error = peer->fault.code;
    memcpy(why, peer->fault.text, sizeof why);
    if (error == DJ_OK)
        return false;
    peer->fault = (struct fault){0};
    if (error == DJ_E_FRAME_CORRUPT)
        return false;    // bytes changed on the way: a link that was cut
    if (error == DJ_E_EPOCH_FENCED && peer->session == protocol->session) {
        head_fenced(protocol, error, why);
        return true;
    }
    if (++peer->refusals > REFUSALS_MAX) {
        peer_lose(protocol, peer, error, "%s", why);
        return true;
    }
    peer_lost(protocol, now_ns, peer, "%s", why);
    return true;
}

// Refused or broken. A worker is tried again for a moment: its link may have been cut, or its socket file be stale.
void peer_down(struct protocol *protocol, uint64_t now_ns, struct peer *peer, enum dj_error error)
{
    if (peer->state == PEER_GONE)
        return;
    bool was_up = peer->state > PEER_DIALLING;
    peer->link = peer->dial_request = 0;
    if (was_up) {
        protocol->stats.links_lost++;
        recover_suspect(peer);
        link_forget(protocol, peer);
        if (was_refused(protocol, now_ns, peer))
            return;
    }
    if (peer->down_since_ns == 0)
        peer->down_since_ns = now_ns;
    peer->state = PEER_DIALLING;
    if (!was_up && peer->is_unix) {
        peer->has_failed_unix = true;
        dial(protocol, peer);
        return;
    }
    if (++peer->dials > PROTOCOL_DIALS_MAX || now_ns - peer->down_since_ns > PROTOCOL_REACH_NS) {
        peer_lost(protocol, now_ns, peer, "worker %s at %s cannot be reached any more (%s)", peer->grant.name,
                  peer->grant.address_tcp, dj_error_name(error));
        return;
    }
    peer->dial_at_ns = later(now_ns, peer->dials == 1 ? 0 : PROTOCOL_RETRY_NS);
}

void peer_restream(struct protocol *protocol, uint64_t at_ns, struct peer *peer)
{
    if (recover_is_hopeless(peer)) {
        peer_lose(protocol, peer, peer->trouble.code, "the values of worker %s cannot be brought back: %s", peer->grant.name,
                  peer->trouble.text);
        return;
    }
    struct writer *writer = &peer->failed;
    // What failed has left failed values of its names; the same names are to be made again.
    list_each (node, &peer->flights) {
        struct flight *flight = list_entry(node, struct flight, node);
        for (uint32_t i = 0;
             flight->has_failed && flight->kind == FLIGHT_EXECUTE && !flight->is_step && i < flight->plan->outputs; i++)
            if ((flight->kept[i / 8] >> i % 8 & 1) != 0) {
                write_var(writer, flight->counter);
                write_var(writer, i);
            }
        if (flight->has_failed && flight->kind == FLIGHT_IMPORT && !flight->is_step) {
            write_var(writer, flight->counter);
            write_var(writer, flight->output);
        }
        flight->has_failed = false;
    }
    link_forget(protocol, peer);
    stream_begin(protocol, peer);
    peer->must_recover = true;
    peer->state = PEER_DIALLING;
    peer->dials = 0;
    peer->down_since_ns = protocol->now_ns;
    peer->deadline_ns = later(at_ns, protocol->config.timeout_ns);
    peer->dial_at_ns = at_ns > protocol->now_ns ? at_ns : protocol->now_ns;
    if (at_ns <= protocol->now_ns)
        dial(protocol, peer);
    else
        peer->down_since_ns = at_ns;
}

// Messages -----------------------------------------------------------------------------------------------------------------

static void attach(struct protocol *protocol, uint64_t now_ns, struct peer *peer, const struct wire_hello_ok *hello)
{
    if (hello->incarnation != peer->grant.incarnation) {
        peer->is_life_over = true;
        peer_lost(protocol, now_ns, peer, "worker %s died; another process serves its address now", peer->grant.name);
        return;
    }
    peer->state = PEER_ATTACHING;
    struct wire_attach message = {
        .session = peer->session, .epoch = peer->epoch, .secret = peer->grant.secret, .stream = peer->stream};
    send_message(protocol, peer->link, WIRE_ATTACH, wire_attach_encode(&message));
}

static void attached(struct protocol *protocol, uint64_t now_ns, struct peer *peer, const struct wire_attached *said)
{
    if (said->incarnation != peer->grant.incarnation) {
        peer->is_life_over = true;
        peer_lost(protocol, now_ns, peer, "worker %s died; another process serves its address now", peer->grant.name);
        return;
    }
    peer->down_since_ns = 0;
    peer->dials = 0;
    peer->was_attached = true;
    peer->suspect_counter = 0;
    peer->heard_ns = now_ns;
    peer->fault = (struct fault){0};
    peer->had_counter = said->last_counter;
    peer->had_part = said->last_part;
    stream_restart(protocol, peer);
    fetches_restart(protocol, peer);
    // A stream that the worker has forgotten, with its session: it was away for longer than the grace period.
    bool is_forgotten = position_compare(said->last_counter, said->last_part, peer->answered_counter, peer->answered_part) < 0;
    if (is_forgotten) {
        log_write(LOG_INFO, "client", "place=%u worker %s has forgotten the session", peer->place, peer->grant.name);
        if (peer->recovery.begun_ns == 0)
            peer->recovery.begun_ns = now_ns;
        peer_restream(protocol, now_ns, peer);
        return;
    }
    // It was to end and begin anew when its link was lost; the recovery that it was in is not the one that is due.
    if (peer->must_recover && peer->is_draining) {
        peer_restream(protocol, now_ns, peer);
        return;
    }
    if (!peer->must_recover) {
        peer_ready(protocol, now_ns, peer);
        return;
    }
    peer->state = PEER_RECOVERING;
    recover_ask(protocol, peer);
}

static void send_failed(struct protocol *protocol, struct peer *peer)
{
    struct wire_release message = {.handles = peer->failed.data, .handles_bytes = (uint32_t)peer->failed.length};
    if (peer->failed.length > 0 && peer->failed.error == DJ_OK)
        send_message(protocol, peer->link, WIRE_RELEASE, wire_release_encode(&message));
    writer_reset(&peer->failed);
}

void peer_ready(struct protocol *protocol, uint64_t now_ns, struct peer *peer)
{
    (void)now_ns;
    peer->state = PEER_READY;
    peer->must_recover = false;
    send_failed(protocol, peer);
    // Everything unanswered goes again, in order; what the stream had already is answered from the worker's memory.
    stream_send(protocol, peer);
    recover_finish(protocol, peer);
    // A place that waited for this one's values can import now.
    list_each (node, &protocol->peers) {
        struct peer *other = list_entry(node, struct peer, node);
        if (other != peer)
            stream_send(protocol, other);
    }
}

static void failed(struct protocol *protocol, struct peer *peer, const struct wire_failed *message)
{
    if (message->request != 0) {
        fetch_answered(protocol, peer, message->request, (enum dj_error)message->error, message->text, NULL, 0, NULL, 0);
        return;
    }
    // Why the worker will close the link, if it does: peer_down has the last word. That leaves are missing is not a reason.
    fault_set(&peer->fault, (enum dj_error)message->error, "worker %s: %s", peer->grant.name, message->text);
    log_write(LOG_WARN, "client", "%s", peer->fault.text);
}

// Old news: from another life of the worker. A lower generation is no reason to drop an answer of the incarnation that was granted: the
// worker holds what it may not say, and a dropped answer would never come again.
static bool is_stale(struct protocol *protocol, const struct peer *peer, uint64_t incarnation, uint64_t generation)
{
    bool is_old = incarnation != peer->grant.incarnation;
    protocol->stats.stale += is_old;
    if (!is_old && generation > protocol->generation)
        protocol->generation = generation;
    return is_old;
}

// Decodes and handles one kind of message; on malformed bytes the link is given up with the worker.
#define HANDLE(NAME, name, call) \
    case WIRE_##NAME: { \
        struct wire_##name message; \
        error = wire_##name##_decode(body->data, body->bytes, protocol->arena, &message); \
        if (error == DJ_OK) { \
            call; \
        } \
        break; \
    }

static enum dj_error handle(struct protocol *protocol, uint64_t now_ns, struct peer *peer, uint16_t kind, struct blob *body,
                            struct blob *bulk)
{
    enum dj_error error = DJ_OK;
    switch (kind) {
        HANDLE(HELLO_OK, hello_ok, if (peer->state == PEER_HELLO) attach(protocol, now_ns, peer, &message))
        HANDLE(ATTACHED, attached, if (peer->state == PEER_ATTACHING) attached(protocol, now_ns, peer, &message))
        HANDLE(FAILED, failed, failed(protocol, peer, &message))
        HANDLE(LEAF_NEED, leaf_need, peer->leaves_out += message.leaves_count; leaves_send(protocol, peer->link, &message))
        HANDLE(LEAF_OK, leaf_ok, leaves_are_there(peer, &message); leaves_arrived(protocol, &message))
        HANDLE(ANSWER, answer,
               if (!is_stale(protocol, peer, message.incarnation, message.generation))
                   stream_answer(protocol, peer, &message, body, bulk))
        HANDLE(EXECUTION_FAILED, execution_failed,
               if (message.incarnation == peer->grant.incarnation) stream_failed(protocol, peer, &message))
        HANDLE(VALUE, value, fetch_answered(protocol, peer, message.request, DJ_OK, "", bulk, message.bytes, NULL, 0))
        HANDLE(CHECKPOINTED, checkpointed,
               fetch_answered(protocol, peer, message.request, DJ_OK, "", NULL, 0, message.records, message.records_bytes))
        HANDLE(PING, ping,
               send_message(protocol, peer->link, WIRE_PONG, wire_pong_encode(&(struct wire_pong){.number = message.number})))
    case WIRE_PONG: peer->has_pong = true; break;
    default: return DJ_E_UNEXPECTED;
    }
    return error;
}

// What the messages and the time have made due.
static void go_on(struct protocol *protocol, uint64_t now_ns, struct peer *peer)
{
    if (peer->state != PEER_READY)
        return;
    if (peer->is_behind && (peer->undone > 0 || fetch_waits_at(protocol, peer->place)))
        resume_needs_values(protocol, peer);
    if (peer->is_draining && now_ns >= peer->drained_at_ns && stream_is_drained(peer)) {
        peer->drained_at_ns = 0;
        peer_restream(protocol, now_ns, peer);
        return;
    }
    if (peer->recovery.begun_ns == 0)
        return;
    if (recover_has_steps(peer))
        stream_send(protocol, peer);
    recover_finish(protocol, peer);
}

void peer_message(struct protocol *protocol, uint64_t now_ns, struct peer *peer, uint16_t kind, struct blob *body,
                  struct blob *bulk)
{
    peer->heard_ns = now_ns;
    peer->pinged_ns = 0;
    enum dj_error error = handle(protocol, now_ns, peer, kind, body, bulk);
    arena_reset(protocol->arena);
    if (error != DJ_OK && ++peer->refusals > REFUSALS_MAX)
        peer_lose(protocol, peer, DJ_E_WORKER_LOST, "worker %s sends messages (%s) that cannot be taken: %s", peer->grant.name,
                  wire_name(kind), dj_error_text(error));
    else if (error != DJ_OK)
        peer_lost(protocol, now_ns, peer, "worker %s sent a message (%s) that cannot be taken: %s", peer->grant.name,
                  wire_name(kind), dj_error_text(error));
    else
        go_on(protocol, now_ns, peer);
}

// Time ---------------------------------------------------------------------------------------------------------------------

static void check_silence(struct protocol *protocol, uint64_t now_ns, struct peer *peer)
{
    if (peer->in_flight == 0 && peer->undone == 0 && !fetch_waits_at(protocol, peer->place)) {
        peer->heard_ns = now_ns;
        return;
    }
    if (peer->has_pong && now_ns - peer->heard_ns >= PROTOCOL_SILENCE_NS) {
        peer_lost(protocol, now_ns, peer, "worker %s says nothing any more, not even to pings", peer->grant.name);
        return;
    }
    if (now_ns - peer->heard_ns >= PROTOCOL_PING_NS && (peer->pinged_ns == 0 || now_ns - peer->pinged_ns >= PROTOCOL_PING_NS)) {
        peer->pinged_ns = now_ns;
        send_message(protocol, peer->link, WIRE_PING, wire_ping_encode(&(struct wire_ping){.number = now_ns}));
    }
}

// The pause has its end: what the program waits for becomes an error.
static bool gives_up(struct protocol *protocol, uint64_t now_ns, struct peer *peer)
{
    uint64_t begun_ns = peer->recovery.begun_ns;
    bool is_over = begun_ns != 0 && now_ns - begun_ns >= protocol->config.recovery_timeout_ns &&
                   (peer->state != PEER_READY || peer->is_draining);
    bool is_ungranted = peer->state == PEER_ASKED && now_ns >= peer->deadline_ns;
    if (!is_over && !is_ungranted)
        return false;
    if (protocol->head != HEAD_READY)
        peer_lose(protocol, peer, DJ_E_NO_HEAD, "the head at %s cannot be reached; nothing brings back what worker %s held",
                  protocol->config.head, peer->recovery.name[0] == '\0' ? "-" : peer->recovery.name);
    else
        peer_lose(protocol, peer, DJ_E_NO_WORKER, "the head gave no worker in time%s%s",
                  begun_ns == 0 ? "" : " to take the place of ", begun_ns == 0 ? "" : peer->recovery.name);
    return true;
}

void peer_tick(struct protocol *protocol, uint64_t now_ns, struct peer *peer)
{
    if (peer->state == PEER_GONE || gives_up(protocol, now_ns, peer))
        return;
    if (peer->state == PEER_READY) {
        go_on(protocol, now_ns, peer);
        if (peer->state == PEER_READY)
            check_silence(protocol, now_ns, peer);
        return;
    }
    if (peer->state == PEER_ASKED) {
        if (peer->ask_at_ns != 0 && peer->ask_at_ns <= now_ns) {
            peer->ask_at_ns = 0;
            head_ask_grant(protocol, now_ns);
        }
        return;
    }
    if (peer->state == PEER_RECOVERING) {
        recover_ask(protocol, peer);
        return;
    }
    bool is_relink = peer->down_since_ns != 0 && now_ns >= peer->down_since_ns;
    if (peer->dial_at_ns != 0 && peer->dial_at_ns <= now_ns)
        dial(protocol, peer);
    if (is_relink && now_ns - peer->down_since_ns > PROTOCOL_REACH_NS)
        peer_lost(protocol, now_ns, peer, "worker %s at %s cannot be reached any more", peer->grant.name,
                  peer->grant.address_tcp);
    else if (now_ns >= peer->deadline_ns && !is_relink)
        peer_lost(protocol, now_ns, peer, "worker %s at %s did not answer in time", peer->grant.name, peer->grant.address_tcp);
}

static uint64_t earlier(uint64_t at, uint64_t other)
{
    return other != 0 && other < at ? other : at;
}

uint64_t peer_deadline_ns(const struct protocol *protocol, const struct peer *peer)
{
    uint64_t now_ns = protocol->now_ns;
    uint64_t begun_ns = peer->recovery.begun_ns;
    uint64_t most = begun_ns == 0 ? UINT64_MAX : later(begun_ns, protocol->config.recovery_timeout_ns);
    switch (peer->state) {
    case PEER_GONE: return UINT64_MAX;
    case PEER_ASKED: return earlier(earlier(most, peer->deadline_ns), peer->ask_at_ns);
    case PEER_RECOVERING: return protocol->head == HEAD_READY ? earlier(most, peer->recovery.ask_at_ns) : most;
    case PEER_READY: {
        uint64_t at = peer->undone == 0 && peer->pinged_ns == 0
                          ? later(peer->heard_ns, PROTOCOL_SILENCE_NS)
                          : later(peer->pinged_ns != 0 ? peer->pinged_ns : peer->heard_ns, PROTOCOL_PING_NS);
        if (peer->is_draining && stream_is_drained(peer))
            return peer->drained_at_ns > now_ns ? peer->drained_at_ns : now_ns;
        return peer->is_draining ? earlier(at, most) : at;
    }
    default: {
        uint64_t at = peer->down_since_ns != 0 ? later(peer->down_since_ns, PROTOCOL_REACH_NS + 1) : peer->deadline_ns;
        return earlier(earlier(at, peer->dial_at_ns), most);
    }
    }
}
