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
    if (error != DJ_OK) {
        free(protocol);
        return error;
    }
    protocol->config = *config;
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
    list_each (node, &protocol->fetches) {
        struct fetch *fetch = list_entry(node, struct fetch, node);
        protocol->port.fetched(protocol->port.self, fetch->tag, DJ_E_CLOSED, dj_error_text(DJ_E_CLOSED), NULL, 0);
        free(fetch);
    }
    list_each (node, &protocol->questions) {
        struct question *question = list_entry(node, struct question, node);
        protocol->port.told(protocol->port.self, question->tag, DJ_E_CLOSED, dj_error_text(DJ_E_CLOSED), NULL, 0);
        free(question);
    }
    writer_free(&protocol->delta);
    writer_free(&protocol->numbers);
    arena_free(protocol->arena);
    free(protocol);
}

void protocol_start(struct protocol *protocol, uint64_t now_ns)
{
    protocol->started_ns = now_ns;
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
    head_tick(protocol, now_ns);
    list_each (node, &protocol->peers)
        peer_tick(protocol, now_ns, list_entry(node, struct peer, node));
}

uint64_t protocol_deadline_ns(const struct protocol *protocol)
{
    uint64_t at = protocol->state == PROTOCOL_OPENING ? protocol->deadline_ns : UINT64_MAX;
    if (protocol->head == HEAD_CLOSED && protocol->head_retry_ns != 0 && protocol->head_retry_ns < at)
        at = protocol->head_retry_ns;
    list_each (node, &protocol->peers) {
        uint64_t then = peer_deadline_ns(list_entry(node, struct peer, node));
        at = then < at ? then : at;
    }
    return at;
}

enum protocol_state protocol_state(const struct protocol *protocol, struct fault *fault)
{
    if (protocol->state == PROTOCOL_FAILED && fault != NULL)
        *fault = protocol->fault;
    return protocol->state;
}

// What the owner asks --------------------------------------------------------------------------------------------------------

static bool serves(const struct peer *peer, int device)
{
    if (device < 0)
        return peer->is_home;
    return peer->state == PEER_ASKED ? peer->device == device : peer->grant.device_index == (uint32_t)device;
}

uint32_t protocol_home_device(const struct protocol *protocol)
{
    for (const struct list *node = protocol->peers.next; node != &protocol->peers; node = node->next) {
        const struct peer *peer = list_entry(node, struct peer, node);
        if (peer->is_home && peer->state != PEER_GONE && peer->state != PEER_ASKED)
            return peer->grant.device_index;
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
    // A lost home: where the session has a place already is as good a choice as the head's, and never a second stream to one worker.
    list_each (node, &protocol->peers) {
        struct peer *peer = list_entry(node, struct peer, node);
        if (device < 0 && peer->state != PEER_GONE) {
            peer->is_home = true;
            return peer->place;
        }
    }
    struct peer *peer = peer_make(protocol, now_ns, device < 0 ? -1 : device);
    assert(peer != NULL);    // a kilobyte; without it no place can be named
    if (peer->state == PEER_ASKED)
        head_ask_grant(protocol, now_ns, peer);
    return peer->place;
}

static void add(struct protocol *protocol, uint32_t place, struct flight *flight)
{
    struct peer *peer = peer_at(protocol, place);
    assert(peer != NULL);
    if (peer->state == PEER_GONE) {
        stream_add(protocol, peer, flight);
        stream_fail_all(protocol, peer, peer->fault.code, peer->fault.text);
        return;
    }
    stream_add(protocol, peer, flight);
    stream_send(protocol, peer);
}

void protocol_submit(struct protocol *protocol, uint64_t now_ns, const struct submission *submission)
{
    (void)now_ns;
    struct flight *flight = flight_of_submission(submission);
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
    (void)now_ns;
    struct flight *flight = calloc(1, sizeof *flight);
    if (flight == NULL) {
        protocol->port.failed(protocol->port.self, tag, DJ_E_NO_MEMORY, -1, "no memory to ask for a value of another device");
        return;
    }
    *flight = (struct flight){.kind = FLIGHT_IMPORT,
                              .counter = counter,
                              .tag = tag,
                              .from_place = from_place,
                              .from_counter = from_counter,
                              .from_output = from_output};
    add(protocol, place, flight);
}

void protocol_release(struct protocol *protocol, uint32_t place, const struct released *released, uint32_t count)
{
    struct peer *peer = peer_at(protocol, place);
    if (peer == NULL || peer->state != PEER_READY)
        return;    // a lost link: the worker drops them with the session
    struct writer *writer = &protocol->numbers;
    writer_reset(writer);
    for (uint32_t i = 0; i < count; i++) {
        write_var(writer, released[i].counter);
        write_var(writer, released[i].output);
    }
    struct wire_release message = {.handles = writer->data, .handles_bytes = (uint32_t)writer->length};
    if (writer->error == DJ_OK)
        send_message(protocol, peer->link, WIRE_RELEASE, wire_release_encode(&message));
}

void protocol_fetch(struct protocol *protocol, uint64_t now_ns, uint32_t place, uint64_t counter, uint32_t output, void *tag)
{
    (void)now_ns;
    struct peer *peer = peer_at(protocol, place);
    assert(peer != NULL);
    struct fetch *fetch = calloc(1, sizeof *fetch);
    if (fetch == NULL || peer->state == PEER_GONE || protocol->fetches_count >= PROTOCOL_FETCHES_MAX) {
        enum dj_error error = fetch == NULL ? DJ_E_NO_MEMORY : peer->state == PEER_GONE ? peer->fault.code : DJ_E_BUSY;
        free(fetch);
        protocol->port.fetched(protocol->port.self, tag, error,
                               peer->state == PEER_GONE ? peer->fault.text : dj_error_text(error), NULL, 0);
        return;
    }
    *fetch = (struct fetch){
        .request = ++protocol->next_request, .counter = counter, .place = place, .output = output, .tag = tag};
    list_push(&protocol->fetches, &fetch->node);
    protocol->fetches_count++;
    fetch_send(protocol, peer, fetch);
}

bool protocol_is_full(const struct protocol *protocol)
{
    return protocol->in_flight >= PROTOCOL_IN_FLIGHT_MAX || protocol->in_flight_bytes >= PROTOCOL_IN_FLIGHT_BYTES_MAX ||
           protocol->window >= PROTOCOL_WINDOW_MAX || protocol->window_bytes >= PROTOCOL_WINDOW_BYTES_MAX;
}

bool protocol_is_relinking(const struct protocol *protocol)
{
    list_each (node, &protocol->peers) {
        const struct peer *peer = list_entry(node, struct peer, node);
        if (peer->state != PEER_GONE && peer->down_since_ns != 0)
            return true;
    }
    return false;
}

bool protocol_is_idle(const struct protocol *protocol)
{
    return protocol->in_flight == 0;
}

void protocol_close(struct protocol *protocol)
{
    if (protocol->head != HEAD_READY)
        return;
    struct wire_session_close message = {.session = protocol->session, .epoch = protocol->epoch};
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
