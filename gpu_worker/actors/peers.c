// Peers: other workers that this one dialed, for leaves and for values. A link to one is made when it is first needed and kept.
//
//   peer   DIALING -> GREETING -> READY; link lost: gone, and what was asked there is asked elsewhere or fails

#include "gpu_worker/actors/state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void dial(struct worker *worker, struct peer *peer, const char *address)
{
    peer->phase = PEER_DIALING;
    peer->link = 0;
    peer->request = actor_link_open(worker->self, address);
}

uint64_t worker_peer_link(struct worker *worker, const struct wire_location *location, bool *ret_failed)
{
    struct peer *peer = map_get(worker->peers, map_key(location->incarnation));
    if (peer != NULL)
        return peer->phase == PEER_READY ? peer->link : 0;
    peer = calloc(1, sizeof *peer);
    if (peer == NULL || map_put(worker->peers, map_key(location->incarnation), peer) != DJ_OK) {
        free(peer);
        *ret_failed = true;
        return 0;
    }
    peer->incarnation = location->incarnation;
    memcpy(peer->address_tcp, location->address_tcp, sizeof peer->address_tcp);
    bool is_near = location->address_unix[0] != '\0' && strcmp(location->host, worker->config.host) == 0;
    peer->tried_tcp = !is_near;
    dial(worker, peer, is_near ? location->address_unix : location->address_tcp);
    return 0;
}

bool worker_peer_owns(struct worker *worker, uint64_t link, uint64_t request, struct peer **ret)
{
    uint32_t cursor = 0;
    struct peer *peer;
    while ((peer = map_next(worker->peers, &cursor, NULL)) != NULL) {
        if ((link != 0 && peer->link == link) || (link == 0 && request != 0 && peer->request == request)) {
            *ret = peer;
            return true;
        }
    }
    return false;
}

void worker_peer_up(struct worker *worker, struct peer *peer, uint64_t link)
{
    struct wire_hello hello = {.version = WIRE_VERSION,
                               .role = ROLE_WORKER,
                               .token = worker->config.token,
                               .incarnation = worker->incarnation,
                               .generation = worker->generation};
    snprintf(hello.name, sizeof hello.name, "%s", worker->config.name);
    snprintf(hello.build, sizeof hello.build, "%s", worker->config.version);
    peer->link = link;
    peer->request = 0;
    peer->phase = PEER_GREETING;
    worker_send(worker, link, WIRE_HELLO, wire_hello_encode(&hello));
}

static void import_end(struct worker *worker, struct import *import)
{
    if (import->phase >= IMPORT_COPIED)
        exec_unpin(worker->exec, &import->copy);
    list_remove(&import->list);
    free(import);
}

void worker_import_failed(struct worker *worker, struct import *import, enum dj_error error, const char *text)
{
    import->work->error = error;
    snprintf(import->work->text, sizeof import->work->text, "the value cannot be had from the other worker: %.80s", text);
    import_end(worker, import);
}

void worker_peer_down(struct worker *worker, struct peer *peer)
{
    uint64_t incarnation = peer->incarnation, link = peer->link;
    bool was_ready = peer->phase == PEER_READY;
    if (!was_ready && !peer->tried_tcp) {
        peer->tried_tcp = true;
        dial(worker, peer, peer->address_tcp);
        return;
    }
    free(map_take(worker->peers, map_key(incarnation)));
    worker_direct_forget(worker, incarnation);
    list_each (node, &worker->imports) {
        struct import *import = list_entry(node, struct import, list);
        if (import->location.incarnation == incarnation && import->phase != IMPORT_LANDED)
            worker_import_failed(worker, import, DJ_E_HANDLE_LOST, "that worker is not there");
    }
    if (link != 0)
        worker_leaves_link_down(worker, link);
    worker_serve_link_down(worker, link);
    worker_leaves_peer_gone(worker, incarnation);
    worker_cuts_peer_gone(worker, incarnation);
    worker_pump(worker);
}

// Imports ------------------------------------------------------------------------------------------------------------

void worker_import_begin(struct worker *worker, struct work *work, const struct wire_location *location)
{
    struct import *import = calloc(1, sizeof *import);
    if (import == NULL) {
        work->error = DJ_E_NO_MEMORY;
        snprintf(work->text, sizeof work->text, "%s", dj_error_text(DJ_E_NO_MEMORY));
        return;
    }
    *import = (struct import){.work = work, .location = *location};
    list_push(&worker->imports, &import->list);
    bool has_failed = false;
    if (worker_peer_link(worker, location, &has_failed) != 0)
        worker_imports_ask(worker);
    else if (has_failed)
        worker_import_failed(worker, import, DJ_E_LIMIT, "too many workers are connected");
}

void worker_imports_ask(struct worker *worker)
{
    list_each (node, &worker->imports) {
        struct import *import = list_entry(node, struct import, list);
        struct peer *peer = map_get(worker->peers, map_key(import->location.incarnation));
        if (import->request != 0 || peer == NULL || peer->phase != PEER_READY)
            continue;
        struct handle handle = import->work->handle;
        struct wire_handle named = {
            .session = handle.execution.session, .counter = handle.execution.counter, .output = handle.output};
        struct wire_fetch fetch = {.request = ++worker->next_request, .handles = &named, .handles_count = 1};
        if (!import->wants_bytes)
            snprintf(fetch.domain, sizeof fetch.domain, "%s", worker_direct_domain(worker, peer));
        import->request = fetch.request;
        import->link = peer->link;
        worker_send(worker, peer->link, WIRE_FETCH, wire_fetch_encode(&fetch));
    }
}

void worker_import_forget(struct worker *worker, const struct work *work)
{
    list_each (node, &worker->imports) {
        struct import *import = list_entry(node, struct import, list);
        if (import->work == work)
            import_end(worker, import);
    }
}

const struct import *worker_import_landed(struct worker *worker, const struct work *work)
{
    list_each (node, &worker->imports) {
        const struct import *import = list_entry(node, struct import, list);
        if (import->work == work)
            return import->phase == IMPORT_LANDED ? import : NULL;
    }
    return NULL;
}

void worker_import_again(struct worker *worker, struct import *import)
{
    if (import->phase >= IMPORT_COPIED)
        exec_unpin(worker->exec, &import->copy);
    import->phase = IMPORT_ASKED;
    import->link = import->request = 0;
    import->wants_bytes = true;
    worker_imports_ask(worker);
}

void worker_imports_sweep(struct worker *worker)
{
    uint64_t now = actor_now_ns(worker->self);
    list_each (node, &worker->imports) {
        struct import *import = list_entry(node, struct import, list);
        if (import->phase != IMPORT_LANDED && now - import->work->waiting_since_ns > WORKER_FETCH_NS + WORKER_FETCH_NS / 2)
            worker_import_failed(worker, import, DJ_E_HANDLE_LOST, "that worker does not answer");
    }
}

struct import *worker_import_find(struct worker *worker, uint64_t link, uint64_t request)
{
    list_each (node, &worker->imports) {
        struct import *import = list_entry(node, struct import, list);
        if (import->link == link && import->request == request && request != 0)
            return import;
    }
    return NULL;
}

static bool read_meta(const struct wire_value *value, struct tensor_meta *ret)
{
    struct reader reader = reader_make(value->sizes, value->sizes_bytes);
    *ret = (struct tensor_meta){.dtype = value->dtype};
    while (reader_left(&reader) > 0 && ret->rank < DJ_RANK_MAX && reader.error == DJ_OK)
        ret->size[ret->rank++] = (int64_t)read_var_max(&reader, INT64_MAX);
    if (reader.error != DJ_OK || reader_left(&reader) > 0 || tensor_check(ret, NULL) != DJ_OK)
        return false;
    tensor_make_contiguous(ret);
    return true;
}

static enum dj_error take_value(struct worker *worker, struct peer *peer, const struct wire_value *value, struct blob *bulk)
{
    struct import *import = worker_import_find(worker, peer->link, value->request);
    struct tensor_meta meta;
    bool is_sound = read_meta(value, &meta) && (uint64_t)tensor_bytes(&meta) == value->bytes;
    if (value->key_bytes > 0 && is_sound && bulk == NULL) {
        worker_direct_place(worker, peer, import, value, &meta);
        return DJ_OK;
    }
    if (import == NULL || import->phase != IMPORT_ASKED)
        return DJ_OK;    // its session is gone, or it was sent twice
    struct work *work = import->work;
    if (!is_sound || value->key_bytes > 0 || value->bytes != (bulk == NULL ? 0 : bulk->bytes)) {
        worker_import_failed(worker, import, DJ_E_MALFORMED, "its sizes and bytes contradict each other");
    } else {
        work->meta = meta;
        work->value = bulk != NULL ? blob_hold(bulk) : blob_make(0);
        import_end(worker, import);
    }
    worker_stream_pump(worker, work->stream);
    return DJ_OK;
}

static void refused(struct worker *worker, struct peer *peer, const struct wire_failed *failed)
{
    struct import *import = worker_import_find(worker, peer->link, failed->request);
    if (failed->request == 0)
        worker_cuts_refused(worker, peer->link, (enum dj_error)failed->error);
    if (import == NULL) {
        worker_leaf_refused(worker, peer->link, failed->request);
        return;
    }
    if (import->phase == IMPORT_COPIED) {
        worker_import_again(worker, import);
        return;
    }
    struct stream *stream = import->work->stream;
    worker_import_failed(worker, import, (enum dj_error)failed->error, failed->text);
    worker_stream_pump(worker, stream);
}

static enum dj_error greeted(struct worker *worker, struct peer *peer, const struct wire_hello_ok *ok)
{
    if (peer->phase != PEER_GREETING)
        return DJ_E_UNEXPECTED;
    if (ok->incarnation != peer->incarnation)
        return DJ_E_STALE;    // another life answers at this address
    struct wire_peer said = {.worker = worker->worker_number, .incarnation = worker->incarnation};
    worker_send(worker, peer->link, WIRE_PEER, wire_peer_encode(&said));
    peer->phase = PEER_READY;
    worker_imports_ask(worker);
    worker_leaves_try_again(worker, peer->link);
    worker_cuts_pump(worker);
    return DJ_OK;
}

#define TAKE(name, call) \
    { \
        struct wire_##name said; \
        enum dj_error error = wire_##name##_decode(body->data, body->bytes, worker->arena, &said); \
        if (error != DJ_OK) \
            return error; \
        call; \
        return DJ_OK; \
    }

enum dj_error worker_peer_message(struct worker *worker, struct peer *peer, uint16_t message, struct blob *body,
                                  struct blob *bulk)
{
    switch (message) {
    case WIRE_HELLO_OK: TAKE(hello_ok, return greeted(worker, peer, &said))
    case WIRE_LEAF_DATA: TAKE(leaf_data, worker_leaf_data(worker, peer->link, &said, bulk))
    case WIRE_VALUE: TAKE(value, return take_value(worker, peer, &said, bulk))
    case WIRE_HELD: TAKE(held, worker_direct_held(worker, peer, &said))
    case WIRE_PING:
        TAKE(ping, struct wire_pong pong = {.number = said.number};
             worker_send(worker, peer->link, WIRE_PONG, wire_pong_encode(&pong)))
    case WIRE_PONG: TAKE(pong, worker_serve_pong(worker, peer->link, &said))
    case WIRE_LEAF_NEED: TAKE(leaf_need, worker_serve_need(worker, peer->link, &said))
    case WIRE_LEAF_OK: TAKE(leaf_ok, worker_cuts_stored(worker, peer->link, &said))
    case WIRE_FAILED: TAKE(failed, refused(worker, peer, &said))
    default: return DJ_E_UNEXPECTED;
    }
}
