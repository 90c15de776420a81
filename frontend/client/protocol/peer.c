// Peer: the link to one worker, from its grant to its loss. The table of states is in protocol.h.

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/assert.h"
#include "core/base/log.h"
#include "frontend/client/protocol/state.h"

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
    peer->place = protocol->next_place++;
    peer->device = device;
    peer->state = PEER_ASKED;
    peer->is_home = device < 0;
    peer->session = protocol->session;
    peer->epoch = protocol->epoch;
    peer->deadline_ns = later(now_ns, protocol->config.timeout_ns);
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
    stream_free(protocol, peer);
    list_remove(&peer->node);
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

// A session has one stream at a worker, so one place. Another place with a grant for it: asked for when nobody could know where both would go.
static struct peer *peer_at_worker(const struct protocol *protocol, const struct peer *than, const struct wire_grant *grant)
{
    list_each (node, &protocol->peers) {
        struct peer *peer = list_entry(node, struct peer, node);
        bool is_there = peer != than && peer->state != PEER_GONE && peer->state != PEER_ASKED;
        if (is_there && peer->session == protocol->session && peer->epoch == protocol->epoch &&
            peer->grant.incarnation == grant->incarnation)
            return peer;
    }
    return NULL;
}

void peer_granted(struct protocol *protocol, uint64_t now_ns, struct peer *peer, const struct wire_grant *grant)
{
    if (peer->state != PEER_ASKED)
        return;
    struct peer *other = peer_at_worker(protocol, peer, grant);
    if (other != NULL) {
        other->is_home = other->is_home || peer->is_home;
        peer_lose(protocol, peer, DJ_E_WORKER_LOST,
                  "worker %s serves this session at another place already; what is asked for now goes there", grant->name);
        return;
    }
    peer->grant = *grant;
    if (grant->ops_bytes <= sizeof peer->ops)
        memcpy(peer->ops, grant->ops, grant->ops_bytes);
    peer->grant.ops = NULL;    // pointed into the message
    peer->grant.ops_bytes = 0;
    peer->session = protocol->session;
    peer->epoch = protocol->epoch;
    peer->grant_request = 0;
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

// Refused or broken. A worker is tried again for a moment: its link may have been cut, or its socket file be stale.
void peer_down(struct protocol *protocol, uint64_t now_ns, struct peer *peer, enum dj_error error)
{
    if (peer->state == PEER_GONE)
        return;
    bool was_up = peer->state > PEER_DIALLING;
    peer->link = peer->dial_request = 0;
    if (was_up) {
        protocol->stats.links_lost++;
        stream_restart(protocol, peer);
    }
    if (was_up && peer->fault.code != DJ_OK) {
        // What it holds against this session it will hold against it again.
        char why[FAULT_TEXT_MAX];
        memcpy(why, peer->fault.text, sizeof why);
        peer_lose(protocol, peer, peer->fault.code, "%s", why);
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
        peer_lose(protocol, peer, DJ_E_WORKER_LOST, "worker %s at %s cannot be reached any more (%s)", peer->grant.name,
                  peer->grant.address_tcp, dj_error_name(error));
        return;
    }
    peer->dial_at_ns = later(now_ns, peer->dials == 1 ? 0 : PROTOCOL_RETRY_NS);
}

static void fetches_lose(struct protocol *protocol, uint32_t place, enum dj_error error, const char *text)
{
    list_each (node, &protocol->fetches) {
        struct fetch *fetch = list_entry(node, struct fetch, node);
        if (fetch->place != place)
            continue;
        list_remove(&fetch->node);
        protocol->fetches_count--;
        protocol->port.fetched(protocol->port.self, fetch->tag, error, text, NULL, 0);
        free(fetch);
    }
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
    peer->state = PEER_GONE;
    log_write(LOG_WARN, "client", "place=%u lost: %s", peer->place, peer->fault.text);
    if (peer->link != 0)
        protocol->port.link_close(protocol->port.self, peer->link);
    peer->link = 0;
    peer->dial_at_ns = 0;
    if (peer->slot < PROTOCOL_PLACES_LIVE_MAX) {
        protocol->slots &= ~((uint64_t)1 << peer->slot);
        leaf_forget_peer(protocol->config.leaves, peer->slot);
    }
    stream_fail_all(protocol, peer, error, peer->fault.text);
    fetches_lose(protocol, peer->place, error, peer->fault.text);
    // A place that never was a worker has no handles to lose: who asks it hears why it never was.
    enum dj_error lost = error == DJ_E_WORKER_LOST || error == DJ_E_STALE ? DJ_E_HANDLE_LOST : error;
    protocol->port.place_lost(protocol->port.self, peer->place, lost, peer->fault.text);
}

// Messages -----------------------------------------------------------------------------------------------------------------

static void attach(struct protocol *protocol, struct peer *peer, const struct wire_hello_ok *hello)
{
    if (hello->incarnation != peer->grant.incarnation) {
        peer_lose(protocol, peer, DJ_E_WORKER_LOST, "worker %s died; another process serves its address now", peer->grant.name);
        return;
    }
    peer->state = PEER_ATTACHING;
    struct wire_attach message = {.session = peer->session, .epoch = peer->epoch, .secret = peer->grant.secret};
    send_message(protocol, peer->link, WIRE_ATTACH, wire_attach_encode(&message));
}

static void ready(struct protocol *protocol, uint64_t now_ns, struct peer *peer, const struct wire_attached *attached)
{
    if (attached->incarnation != peer->grant.incarnation) {
        peer_lose(protocol, peer, DJ_E_WORKER_LOST, "worker %s died; another process serves its address now", peer->grant.name);
        return;
    }
    peer->state = PEER_READY;
    peer->down_since_ns = 0;
    peer->dials = 0;
    peer->heard_ns = now_ns;
    peer->fault = (struct fault){0};
    stream_restart(protocol, peer);
    // Everything unanswered goes again, in order; what it already had (up to attached->last_counter) it answers from memory.
    stream_send(protocol, peer);
    list_each (node, &protocol->fetches) {
        struct fetch *fetch = list_entry(node, struct fetch, node);
        if (fetch->place == peer->place)
            fetch_send(protocol, peer, fetch);
    }
    // A place that waited for this one's address can import now.
    list_each (other, &protocol->peers)
        stream_send(protocol, list_entry(other, struct peer, node));
}

static void send_leaf(struct protocol *protocol, const struct peer *peer, const struct leaf *leaf)
{
    uint64_t offset = 0;
    do {
        uint64_t left = leaf->bytes - offset, chunk = left < WIRE_CHUNK_BYTES ? left : WIRE_CHUNK_BYTES;
        struct wire_leaf_data message = {.content = leaf->content, .bytes = leaf->bytes, .offset = offset};
        struct blob *body = wire_leaf_data_encode(&message);
        if (body == NULL)
            return;
        protocol->stats.leaf_bytes_out += chunk;
        protocol->stats.messages_out++;
        protocol->port.send(protocol->port.self, peer->link, WIRE_LEAF_DATA, body, blob_hold(leaf->blob), offset, chunk, 0);
        offset += chunk;
    } while (offset < leaf->bytes);
}

static void send_leaves(struct protocol *protocol, const struct peer *peer, const struct wire_leaf_need *need)
{
    for (uint32_t i = 0; i < need->leaves_count; i++) {
        const struct leaf *leaf = leaf_find(protocol->config.leaves, need->leaves[i].content);
        if (leaf != NULL && leaf->blob != NULL) {
            send_leaf(protocol, peer, leaf);
            continue;
        }
        char text[HASH128_TEXT];
        hash128_text(need->leaves[i].content, text);
        struct wire_failed failed = {.error = DJ_E_LEAF_UNKNOWN};
        snprintf(failed.text, sizeof failed.text, "this client does not have the bytes of leaf %s any more", text);
        send_message(protocol, peer->link, WIRE_FAILED, wire_failed_encode(&failed));
    }
}

static void leaves_arrived(struct protocol *protocol, const struct wire_leaf_ok *ok)
{
    for (uint32_t i = 0; ok->durable && i < ok->leaves_count; i++) {
        struct leaf *leaf = leaf_find(protocol->config.leaves, ok->leaves[i].content);
        if (leaf != NULL)
            leaf_set_durable(leaf);
    }
}

void fetch_send(struct protocol *protocol, struct peer *peer, const struct fetch *fetch)
{
    if (peer->state != PEER_READY)
        return;
    struct wire_handle handle = {
        .session = peer->session, .counter = fetch->counter, .output = fetch->output};
    struct wire_fetch message = {.request = fetch->request, .handles = &handle, .handles_count = 1};
    send_message(protocol, peer->link, WIRE_FETCH, wire_fetch_encode(&message));
}

static void fetched(struct protocol *protocol, const struct peer *peer, uint64_t request, enum dj_error error, const char *text,
                    struct blob *bulk, uint64_t bytes)
{
    list_each (node, &protocol->fetches) {
        struct fetch *fetch = list_entry(node, struct fetch, node);
        if (fetch->request != request || fetch->place != peer->place)
            continue;
        list_remove(&fetch->node);
        protocol->fetches_count--;
        protocol->stats.round_trips++;
        if (error == DJ_OK && bytes > 0 && (bulk == NULL || bulk->bytes < bytes)) {
            error = DJ_E_MALFORMED;
            text = "the worker answered a fetch without the bytes it named";
        }
        protocol->port.fetched(protocol->port.self, fetch->tag, error, text, bulk, bytes);
        free(fetch);
        return;
    }
}

static void failed(struct protocol *protocol, struct peer *peer, const struct wire_failed *message)
{
    if (message->request != 0) {
        fetched(protocol, peer, message->request, (enum dj_error)message->error, message->text, NULL, 0);
        return;
    }
    // Why the worker will close the link, if it does: peer_down has the last word.
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
        HANDLE(HELLO_OK, hello_ok, if (peer->state == PEER_HELLO) attach(protocol, peer, &message))
        HANDLE(ATTACHED, attached, if (peer->state == PEER_ATTACHING) ready(protocol, now_ns, peer, &message))
        HANDLE(FAILED, failed, failed(protocol, peer, &message))
        HANDLE(LEAF_NEED, leaf_need, send_leaves(protocol, peer, &message))
        HANDLE(LEAF_OK, leaf_ok, leaves_arrived(protocol, &message))
        HANDLE(ANSWER, answer,
               if (!is_stale(protocol, peer, message.incarnation, message.generation))
                   stream_answer(protocol, peer, &message, body, bulk))
        HANDLE(EXECUTION_FAILED, execution_failed,
               if (message.incarnation == peer->grant.incarnation) stream_failed(protocol, peer, &message))
        HANDLE(VALUE, value, fetched(protocol, peer, message.request, DJ_OK, "", bulk, message.bytes))
        HANDLE(PING, ping,
               send_message(protocol, peer->link, WIRE_PONG, wire_pong_encode(&(struct wire_pong){.number = message.number})))
    case WIRE_PONG: peer->has_pong = true; break;
    default: return DJ_E_UNEXPECTED;
    }
    return error;
}

void peer_message(struct protocol *protocol, uint64_t now_ns, struct peer *peer, uint16_t kind, struct blob *body,
                  struct blob *bulk)
{
    peer->heard_ns = now_ns;
    peer->pinged_ns = 0;
    enum dj_error error = handle(protocol, now_ns, peer, kind, body, bulk);
    arena_reset(protocol->arena);
    if (error != DJ_OK)
        peer_lose(protocol, peer, DJ_E_WORKER_LOST, "worker %s sent a message (%s) that cannot be taken: %s", peer->grant.name,
                  wire_name(kind), dj_error_text(error));
}

// Time ---------------------------------------------------------------------------------------------------------------------

static bool is_waited_for(const struct protocol *protocol, const struct peer *peer)
{
    if (peer->in_flight > 0)
        return true;
    list_each (node, &protocol->fetches)
        if (list_entry(node, struct fetch, node)->place == peer->place)
            return true;
    return false;
}

static void check_silence(struct protocol *protocol, uint64_t now_ns, struct peer *peer)
{
    if (!is_waited_for(protocol, peer)) {
        peer->heard_ns = now_ns;
        return;
    }
    if (peer->has_pong && now_ns - peer->heard_ns >= PROTOCOL_SILENCE_NS) {
        peer_lose(protocol, peer, DJ_E_WORKER_LOST, "worker %s says nothing any more, not even to pings", peer->grant.name);
        return;
    }
    if (now_ns - peer->heard_ns >= PROTOCOL_PING_NS && (peer->pinged_ns == 0 || now_ns - peer->pinged_ns >= PROTOCOL_PING_NS)) {
        peer->pinged_ns = now_ns;
        send_message(protocol, peer->link, WIRE_PING, wire_ping_encode(&(struct wire_ping){.number = now_ns}));
    }
}

void peer_tick(struct protocol *protocol, uint64_t now_ns, struct peer *peer)
{
    if (peer->state == PEER_READY) {
        check_silence(protocol, now_ns, peer);
        return;
    }
    if (peer->state == PEER_GONE)
        return;
    bool is_relink = peer->down_since_ns != 0;
    if (peer->dial_at_ns != 0 && peer->dial_at_ns <= now_ns)
        dial(protocol, peer);
    if (is_relink && now_ns - peer->down_since_ns > PROTOCOL_REACH_NS)
        peer_lose(protocol, peer, DJ_E_WORKER_LOST, "worker %s at %s cannot be reached any more", peer->grant.name,
                  peer->grant.address_tcp);
    else if (now_ns >= peer->deadline_ns && !is_relink)
        peer_lose(protocol, peer, peer->state == PEER_ASKED ? DJ_E_NO_WORKER : DJ_E_WORKER_LOST,
                  peer->state == PEER_ASKED ? "the head gave no worker in time%s%s" : "worker %s at %s did not answer in time",
                  peer->grant.name, peer->grant.address_tcp);
}

uint64_t peer_deadline_ns(const struct peer *peer)
{
    switch (peer->state) {
    case PEER_GONE: return UINT64_MAX;
    case PEER_READY:
        return peer->in_flight == 0 && peer->pinged_ns == 0
                   ? later(peer->heard_ns, PROTOCOL_SILENCE_NS)
                   : later(peer->pinged_ns != 0 ? peer->pinged_ns : peer->heard_ns, PROTOCOL_PING_NS);
    default: {
        uint64_t at = peer->down_since_ns != 0 ? later(peer->down_since_ns, PROTOCOL_REACH_NS + 1) : peer->deadline_ns;
        return peer->dial_at_ns != 0 && peer->dial_at_ns < at ? peer->dial_at_ns : at;
    }
    }
}
