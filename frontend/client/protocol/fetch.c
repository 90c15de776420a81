// Fetch: what is asked of a place behind its stream: the bytes of a value, or that values be made safe (CHECKPOINT). Asked again on every new
// link until it is answered; at a place that recovers it waits.

#include <stdlib.h>
#include <string.h>

#include "core/base/assert.h"
#include "frontend/client/protocol/state.h"

enum { FETCH_ABSENCES_MAX = 3, CHECKPOINT_BYTES_MAX = 1 << 20 };
#define FETCH_AGAIN_NS 250000000u

void fetch_free(struct protocol *protocol, struct fetch *fetch)
{
    list_remove(&fetch->node);
    protocol->fetches_count--;
    free(fetch->handles);
    free(fetch);
}

static void fetch_send(struct protocol *protocol, struct peer *peer, struct fetch *fetch)
{
    fetch->is_sent = true;
    if (fetch->kind == FETCH_CHECKPOINT) {
        struct wire_checkpoint message = {
            .request = fetch->request, .handles = fetch->handles, .handles_bytes = fetch->handles_bytes};
        send_message(protocol, peer->link, WIRE_CHECKPOINT, wire_checkpoint_encode(&message));
        return;
    }
    struct wire_handle handle = {.session = peer->session, .counter = fetch->counter, .output = fetch->output};
    struct wire_fetch message = {.request = fetch->request, .handles = &handle, .handles_count = 1};
    send_message(protocol, peer->link, WIRE_FETCH, wire_fetch_encode(&message));
}

void fetches_send(struct protocol *protocol, struct peer *peer)
{
    if (protocol->fetches_count == 0 || !stream_is_caught_up(peer))
        return;
    list_each (node, &protocol->fetches) {
        struct fetch *fetch = list_entry(node, struct fetch, node);
        if (fetch->place == peer->place && !fetch->is_sent)
            fetch_send(protocol, peer, fetch);
    }
}

void fetches_restart(struct protocol *protocol, const struct peer *peer)
{
    list_each (node, &protocol->fetches) {
        struct fetch *fetch = list_entry(node, struct fetch, node);
        if (fetch->place == peer->place)
            fetch->is_sent = false;
    }
}

bool fetch_waits_at(const struct protocol *protocol, uint32_t place)
{
    for (const struct list *node = protocol->fetches.next; node != &protocol->fetches; node = node->next)
        if (list_entry(node, struct fetch, node)->place == place)
            return true;
    return false;
}

static void fetch_end(struct protocol *protocol, struct fetch *fetch, enum dj_error error, const char *text, struct blob *bulk,
                      uint64_t bytes, const void *data, size_t data_bytes)
{
    const struct protocol_port *port = &protocol->port;
    void *tag = fetch->tag;
    bool is_value = fetch->kind == FETCH_VALUE;
    fetch_free(protocol, fetch);
    if (is_value)
        port->fetched(port->self, tag, error, text, bulk, bytes);
    else
        port->told(port->self, tag, error, text, data, data_bytes);
}

// A value that should be there and is not: its place brings it back, and it is asked for again.
static bool is_absent(struct protocol *protocol, struct peer *peer, struct fetch *fetch, enum dj_error error)
{
    bool is_absence = error == DJ_E_HANDLE_UNKNOWN || error == DJ_E_HANDLE_LOST;
    // At a place that drains it is for want of what failed before it, a step of a recovery perhaps: it is seen when it goes again.
    bool is_consequence = peer->is_draining && error != DJ_OK && error == peer->trouble.code;
    if ((!is_absence && !is_consequence) || (!peer->is_draining && fetch->absences++ >= FETCH_ABSENCES_MAX))
        return false;
    fetch->is_sent = false;
    if (!is_absence)
        return true;
    if (fetch->kind == FETCH_VALUE) {
        recover_absent(protocol, peer, fetch->counter, fetch->output);
    } else {
        struct reader reader = reader_make(fetch->handles, fetch->handles_bytes);
        while (reader_left(&reader) > 0 && reader.error == DJ_OK) {
            uint64_t counter = read_var(&reader);
            recover_absent(protocol, peer, counter, (uint32_t)read_var(&reader));
        }
    }
    stream_begin_to_drain(protocol, peer, error, "a value that was asked for is not there");
    return true;
}

void fetch_answered(struct protocol *protocol, struct peer *peer, uint64_t request, enum dj_error error, const char *text,
                    struct blob *bulk, uint64_t bytes, const void *data, size_t data_bytes)
{
    list_each (node, &protocol->fetches) {
        struct fetch *fetch = list_entry(node, struct fetch, node);
        if (fetch->request != request || fetch->place != peer->place)
            continue;
        protocol->stats.round_trips++;
        if (is_absent(protocol, peer, fetch, error))
            return;
        if (error == DJ_OK && bytes > 0 && (bulk == NULL || bulk->bytes < bytes)) {
            error = DJ_E_MALFORMED;
            text = "the worker answered a fetch without the bytes it named";
        }
        fetch_end(protocol, fetch, error, text, bulk, bytes, data, data_bytes);
        return;
    }
}

void fetches_lose(struct protocol *protocol, uint32_t place, enum dj_error error, const char *text)
{
    list_each (node, &protocol->fetches) {
        struct fetch *fetch = list_entry(node, struct fetch, node);
        if (fetch->place == place)
            fetch_end(protocol, fetch, error, text, NULL, 0, NULL, 0);
    }
}

static bool asks_for(const struct fetch *fetch, uint64_t counter)
{
    struct reader reader = reader_make(fetch->handles, fetch->handles_bytes);
    if (fetch->kind == FETCH_VALUE)
        return fetch->counter == counter;
    while (reader_left(&reader) > 0 && reader.error == DJ_OK) {
        if (read_var(&reader) == counter)
            return true;
        read_var(&reader);
    }
    return false;
}

void fetches_fail(struct protocol *protocol, uint32_t place, uint64_t counter, enum dj_error error, const char *text)
{
    list_each (node, &protocol->fetches) {
        struct fetch *fetch = list_entry(node, struct fetch, node);
        if (fetch->place == place && asks_for(fetch, counter))
            fetch_end(protocol, fetch, error, text, NULL, 0, NULL, 0);
    }
}

static struct fetch *fetch_begin(struct protocol *protocol, const struct peer *peer, enum fetch_kind kind, void *tag,
                                 enum dj_error *ret)
{
    bool is_gone = peer == NULL || peer->state == PEER_GONE;
    struct fetch *fetch = is_gone || protocol->fetches_count >= PROTOCOL_FETCHES_MAX ? NULL : calloc(1, sizeof *fetch);
    if (fetch == NULL) {
        *ret = peer == NULL ? DJ_E_INVALID : is_gone ? peer->fault.code : DJ_E_BUSY;
        return NULL;
    }
    *fetch = (struct fetch){.kind = (uint8_t)kind, .request = ++protocol->next_request, .place = peer->place, .tag = tag};
    list_push(&protocol->fetches, &fetch->node);
    protocol->fetches_count++;
    return fetch;
}

void protocol_fetch(struct protocol *protocol, uint64_t now_ns, uint32_t place, uint64_t counter, uint32_t output, void *tag)
{
    struct peer *peer = peer_at(protocol, place);
    enum dj_error error = DJ_OK;
    assert(peer != NULL);
    protocol->now_ns = now_ns;
    struct fetch *fetch = fetch_begin(protocol, peer, FETCH_VALUE, tag, &error);
    if (fetch == NULL) {
        protocol->port.fetched(protocol->port.self, tag, error,
                               peer->state == PEER_GONE ? peer->fault.text : dj_error_text(error), NULL, 0);
        return;
    }
    fetch->counter = wire_counter(protocol, counter);
    fetch->output = output;
    resume_needs_values(protocol, peer);
    fetches_send(protocol, peer);
}

static bool write_handles(struct fetch *fetch, const struct protocol *protocol, const struct released *handle, uint32_t count)
{
    struct writer writer = writer_make(CHECKPOINT_BYTES_MAX);
    for (uint32_t i = 0; i < count; i++) {
        write_var(&writer, wire_counter(protocol, handle[i].counter));
        write_var(&writer, handle[i].output);
    }
    fetch->handles = writer.data;    // malloc's
    fetch->handles_bytes = (uint32_t)writer.length;
    return writer.error == DJ_OK;
}

void protocol_checkpoint(struct protocol *protocol, uint64_t now_ns, uint32_t place, const struct released *handle,
                         uint32_t count, void *tag)
{
    struct peer *peer = peer_at(protocol, place);
    enum dj_error error = DJ_OK;
    protocol->now_ns = now_ns;
    struct fetch *fetch = fetch_begin(protocol, peer, FETCH_CHECKPOINT, tag, &error);
    if (fetch == NULL) {
        protocol->port.told(protocol->port.self, tag, error,
                            peer != NULL && peer->state == PEER_GONE ? peer->fault.text : dj_error_text(error), NULL, 0);
        return;
    }
    if (!write_handles(fetch, protocol, handle, count)) {
        fetch_end(protocol, fetch, DJ_E_LIMIT, "too many values for one checkpoint", NULL, 0, NULL, 0);
        return;
    }
    resume_needs_values(protocol, peer);
    fetches_send(protocol, peer);
}
