// Protocol: its life, its events by link, and what its owner asks of it. The manual is protocol.h.

#include "frontend/client/protocol/protocol.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/assert.h"
#include "core/base/bits.h"
#include "frontend/client/protocol/state.h"

enum { DECODE_CHUNK_BYTES = 64 << 10, DECODE_BYTES_MAX = 64 << 20, DELTA_BYTES_MAX = 8 << 20, NUMBERS_BYTES_MAX = 1 << 20 };

enum dj_error protocol_make(const struct protocol_config *config, const struct protocol_port *port, struct protocol **ret)
{
    struct protocol *protocol = calloc(1, sizeof *protocol);
    if (protocol == NULL)
        return DJ_E_NO_MEMORY;
    enum dj_error error = arena_make(DECODE_CHUNK_BYTES, DECODE_BYTES_MAX, &protocol->arena);
    if (error == DJ_OK)
        error = map_make(STEP_PLANS_MAX, &protocol->step_plans);
    if (error == DJ_OK)
        error = record_scratch_make(&protocol->scratch);
    if (error != DJ_OK) {
        map_free(protocol->step_plans);
        arena_free(protocol->arena);
        free(protocol);
        return error;
    }
    protocol->config = *config;
    if (config->recovery_timeout_ns == 0)
        protocol->config.recovery_timeout_ns = PROTOCOL_RECOVERY_NS;
    protocol->port = *port;
    protocol->delta = writer_make(DELTA_BYTES_MAX);
    protocol->numbers = writer_make(NUMBERS_BYTES_MAX);
    protocol->next_place = config->first_place;
    list_init(&protocol->peers);
    list_init(&protocol->fetches);
    list_init(&protocol->questions);
    *ret = protocol;
    return DJ_OK;
}

void protocol_free(struct protocol *protocol)
{
    if (protocol == NULL)
        return;
    list_each (node, &protocol->peers)
        peer_free(protocol, list_entry(node, struct peer, node));
    while (!list_is_empty(&protocol->fetches))
        fetches_lose(protocol, list_entry(protocol->fetches.next, struct fetch, node)->place, DJ_E_CLOSED,
                     dj_error_text(DJ_E_CLOSED));
    questions_fail(protocol, DJ_E_CLOSED, dj_error_text(DJ_E_CLOSED));
    resume_free(protocol);
    step_plans_free(protocol);
    map_free(protocol->journal_plans);
    record_scratch_free(&protocol->scratch);
    writer_free(&protocol->delta);
    writer_free(&protocol->numbers);
    arena_free(protocol->arena);
    free(protocol);
}

void protocol_start(struct protocol *protocol, uint64_t now_ns)
{
    protocol->started_ns = protocol->now_ns = now_ns;
    protocol->deadline_ns = later(now_ns, protocol->config.timeout_ns);
    // The session's first place: the head chooses its device as it opens the session.
    struct peer *home = peer_make(protocol, now_ns, -1);
    if (home == NULL) {
        protocol->state = PROTOCOL_FAILED;
        fault_set(&protocol->fault, DJ_E_NO_MEMORY, "no memory to open a session");
        return;
    }
    head_dial(protocol, now_ns);
}

void send_message(struct protocol *protocol, uint64_t link, uint16_t message, struct blob *body)
{
    if (body == NULL || link == 0) {
        blob_drop(body);
        return;
    }
    protocol->stats.messages_out++;
    protocol->port.send(protocol->port.self, link, message, body, NULL, 0, 0, 0);
}

// Events -------------------------------------------------------------------------------------------------------------------

static void link_up(struct protocol *protocol, uint64_t link, uint64_t request)
{
    if (request == protocol->head_request && protocol->head == HEAD_DIALLING) {
        protocol->head_request = 0;
        protocol->head_link = link;
        head_up(protocol);
        return;
    }
    list_each (node, &protocol->peers) {
        struct peer *peer = list_entry(node, struct peer, node);
        if (peer->state == PEER_DIALLING && peer->dial_request == request) {
            peer_up(protocol, peer, link);
            return;
        }
    }
    protocol->port.link_close(protocol->port.self, link);    // nobody wants it any more
}

static void link_down(struct protocol *protocol, uint64_t now_ns, uint64_t link, uint64_t request, enum dj_error error)
{
    bool is_head = link != 0 ? link == protocol->head_link
                             : (protocol->head == HEAD_DIALLING && request == protocol->head_request);
    if (is_head) {
        head_down(protocol, now_ns, error);
        return;
    }
    list_each (node, &protocol->peers) {
        struct peer *peer = list_entry(node, struct peer, node);
        if (peer->state != PEER_GONE &&
            (link != 0 ? peer->link == link : peer->dial_request != 0 && peer->dial_request == request)) {
            peer_down(protocol, now_ns, peer, error);
            return;
        }
    }
}

static void received(struct protocol *protocol, uint64_t now_ns, uint64_t link, uint16_t message, struct blob *body,
                     struct blob *bulk)
{
    if (link == protocol->head_link) {
        head_message(protocol, now_ns, message, body);
        return;
    }
    list_each (node, &protocol->peers) {
        struct peer *peer = list_entry(node, struct peer, node);
        if (peer->link == link && peer->state != PEER_GONE) {
            peer_message(protocol, now_ns, peer, message, body, bulk);
            return;
        }
    }
}

void protocol_event(struct protocol *protocol, uint64_t now_ns, const struct io_event *event)
{
    protocol->now_ns = now_ns;
    switch (event->kind) {
    case IO_LINK_UP: link_up(protocol, event->link_up.link, event->link_up.request); break;
    case IO_LINK_DOWN:
        link_down(protocol, now_ns, event->link_down.link, event->link_down.request, event->link_down.error);
        break;
    case IO_RECV:
        received(protocol, now_ns, event->recv.link, event->recv.message, event->recv.body, event->recv.bulk);
        blob_drop(event->recv.body);
        blob_drop(event->recv.bulk);
        break;
    default: break;
    }
}

void protocol_tick(struct protocol *protocol, uint64_t now_ns)
{
    protocol->now_ns = now_ns;
    resume_tick(protocol);
    head_tick(protocol, now_ns);
    list_each (node, &protocol->peers)
        peer_tick(protocol, now_ns, list_entry(node, struct peer, node));
    journal_tick(protocol);
}

uint64_t protocol_deadline_ns(const struct protocol *protocol)
{
    uint64_t at = protocol->state == PROTOCOL_OPENING ? protocol->deadline_ns : UINT64_MAX,
             tell_ns = journal_deadline_ns(protocol);
    if (resume_has_outcomes(protocol))
        return 0;
    at = tell_ns < at ? tell_ns : at;
    if (protocol->head == HEAD_CLOSED && protocol->head_retry_ns != 0 && protocol->head_retry_ns < at)
        at = protocol->head_retry_ns;
    list_each (node, &protocol->peers) {
        uint64_t then = peer_deadline_ns(protocol, list_entry(node, struct peer, node));
        at = then < at ? then : at;
    }
    return at;
}

enum protocol_state protocol_state(const struct protocol *protocol, struct fault *fault)
{
    if ((protocol->state == PROTOCOL_FAILED || protocol->is_fenced) && fault != NULL)
        *fault = protocol->fault;
    return protocol->state;
}

// What the owner asks --------------------------------------------------------------------------------------------------------

static bool serves(const struct peer *peer, int device)
{
    if (device < 0)
        return peer->is_home;
    return peer->device == device;    // it is asked for once; its worker may be another one later
}

uint32_t protocol_home_device(const struct protocol *protocol)
{
    for (const struct list *node = protocol->peers.next; node != &protocol->peers; node = node->next) {
        const struct peer *peer = list_entry(node, struct peer, node);
        if (peer->is_home && peer->state != PEER_GONE && peer->device >= 0)
            return (uint32_t)peer->device;
    }
    return 0;
}

uint32_t protocol_place(struct protocol *protocol, uint64_t now_ns, int device)
{
    list_each (node, &protocol->peers) {
        const struct peer *peer = list_entry(node, struct peer, node);
        if (peer->state != PEER_GONE && serves(peer, device))
            return peer->place;
    }
    // A lost home: where the session has a place already is as good a choice as the head's.
    list_each (node, &protocol->peers) {
        struct peer *peer = list_entry(node, struct peer, node);
        if (device < 0 && peer->state != PEER_GONE) {
            peer->is_home = true;
            return peer->place;
        }
    }
    protocol->now_ns = now_ns;
    struct peer *peer = peer_make(protocol, now_ns, device < 0 ? -1 : device);
    assert(peer != NULL);    // a kilobyte; without it no place can be named
    if (protocol->is_fenced)
        peer_lose(protocol, peer, protocol->fault.code, "%s", protocol->fault.text);
    if (peer->state == PEER_ASKED)
        head_ask_grant(protocol, now_ns);
    return peer->place;
}

static void add(struct protocol *protocol, uint32_t place, struct flight *flight)
{
    struct peer *peer = peer_at(protocol, place);
    assert(peer != NULL);
    flight_add(protocol, peer, flight);
    if (peer->state == PEER_GONE)
        stream_fail_all(protocol, peer, peer->fault.code, peer->fault.text);
    else
        stream_send(protocol, peer);
}

void protocol_submit(struct protocol *protocol, uint64_t now_ns, const struct submission *submission)
{
    protocol->now_ns = now_ns;
    if (resume_submission(protocol, submission))
        return;
    struct flight *flight = flight_of_submission(protocol, submission);
    if (flight == NULL) {
        protocol->port.failed(protocol->port.self, submission->tag, DJ_E_NO_MEMORY, -1,
                              "no memory to keep the submission until it is answered");
        return;
    }
    add(protocol, submission->place, flight);
}

void protocol_import(struct protocol *protocol, uint64_t now_ns, uint32_t place, uint64_t counter, uint32_t from_place,
                     uint64_t from_counter, uint32_t from_output, void *tag)
{
    protocol->now_ns = now_ns;
    if (resume_import(protocol, place, counter, from_counter, from_output, tag))
        return;
    struct flight *flight = calloc(1, sizeof *flight);
    if (flight == NULL) {
        protocol->port.failed(protocol->port.self, tag, DJ_E_NO_MEMORY, -1, "no memory to ask for a value of another device");
        return;
    }
    *flight = (struct flight){.kind = FLIGHT_IMPORT,
                              .bytes = sizeof *flight,
                              .counter = wire_counter(protocol, counter),
                              .tag = tag,
                              .from_place = from_place,
                              .from_counter = wire_counter(protocol, from_counter),
                              .from_output = from_output};
    struct peer *from = peer_at(protocol, from_place);
    if (from != NULL)
        resume_needs_values(protocol, from);
    add(protocol, place, flight);
}

void protocol_release(struct protocol *protocol, uint32_t place, const struct released *released, uint32_t count)
{
    struct peer *peer = peer_at(protocol, place);
    if (peer == NULL || peer->state == PEER_GONE)
        return;    // the worker drops them with the session
    // What was submitted before goes first; a new worker never has them.
    bool goes_now = stream_is_caught_up(peer);
    struct writer *writer = goes_now ? &protocol->numbers : &peer->released;
    if (goes_now)
        writer_reset(writer);
    for (uint32_t i = 0; i < count; i++) {
        write_var(writer, wire_counter(protocol, released[i].counter));
        write_var(writer, released[i].output);
    }
    struct wire_release message = {.handles = writer->data, .handles_bytes = (uint32_t)writer->length};
    if (goes_now && writer->error == DJ_OK)
        send_message(protocol, peer->link, WIRE_RELEASE, wire_release_encode(&message));
}

bool protocol_is_full(const struct protocol *protocol)
{
    return protocol->in_flight >= PROTOCOL_IN_FLIGHT_MAX || protocol->in_flight_bytes >= PROTOCOL_IN_FLIGHT_BYTES_MAX ||
           protocol->window >= PROTOCOL_WINDOW_MAX || protocol->window_bytes >= PROTOCOL_WINDOW_BYTES_MAX;
}

bool protocol_has_worker(const struct protocol *protocol)
{
    return !protocol->is_without_worker;
}

bool protocol_is_idle(const struct protocol *protocol)
{
    return protocol->in_flight == 0 && !resume_has_outcomes(protocol);
}

void protocol_tell(struct protocol *protocol, uint64_t now_ns)
{
    protocol->now_ns = now_ns;
    journal_place(protocol, NULL);
}

bool protocol_is_durable(const struct protocol *protocol)
{
    return protocol->window == 0;
}

uint64_t protocol_session(const struct protocol *protocol)
{
    return protocol->session;
}

uint64_t protocol_counter(const struct protocol *protocol, uint64_t number)
{
    return wire_counter(protocol, number);
}

bool protocol_is_resuming(const struct protocol *protocol)
{
    return protocol->resume != NULL;
}

void protocol_close(struct protocol *protocol, bool keep)
{
    if (protocol->head != HEAD_READY)
        return;
    struct wire_session_close message = {.session = protocol->session, .epoch = protocol->epoch, .keep = keep};
    send_message(protocol, protocol->head_link, WIRE_SESSION_CLOSE, wire_session_close_encode(&message));
}

uint32_t protocol_devices(const struct protocol *protocol)
{
    return protocol->pool_devices;
}

bool protocol_can(const struct protocol *protocol, uint32_t op)
{
    list_each (node, &protocol->peers) {
        const struct peer *peer = list_entry(node, struct peer, node);
        if (peer->state != PEER_ASKED && op / 8 < sizeof peer->ops && bit_get(peer->ops, op))
            return true;
    }
    return false;
}

struct protocol_stats protocol_stats(const struct protocol *protocol)
{
    struct protocol_stats stats = protocol->stats;
    stats.bytes_unacknowledged = protocol->window_bytes;
    stats.executions_unacknowledged = protocol->window;
    return stats;
}
