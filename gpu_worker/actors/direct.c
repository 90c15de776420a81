// Direct: values that go from one device's memory to another's on the same host, and not through this process and a socket.
//
//   asker                                   owner
//   FETCH, domain            ---->          the value is pinned: lent
//                            <----          VALUE with its place in the region
//   copies, on its device
//   COPIED                   ---->          the pin is let go of
//   takes what it copied     <----          HELD, under the lease; or FAILED: it was not lent any more
//
// Nothing depends on what was copied before HELD has come: whatever became of the owner meanwhile, its memory may have held anything. A copy
// that fails on any of these steps is given up, and the value asked for as bytes. Memory for the copy is had at once or not at all: who waited
// for it, while a pin holds memory elsewhere, might wait for a worker that waits for this one.

#include "gpu_worker/actors/state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LENT_MAX = 256, COPIES_FAILED_MAX = 3 };
#define LENT_NS WORKER_FETCH_NS

// The owner ----------------------------------------------------------------------------------------------------------

static void lent_end(struct worker *worker, struct lent *lent)
{
    exec_unpin(worker->exec, &lent->pin);
    list_remove(&lent->list);
    free(lent);
    worker->lent_count--;
}

static struct blob *write_place(const struct worker *worker, const struct lent *lent)
{
    const struct device_info *info = worker->config.device[0]->info;
    uint8_t sizes[96];
    struct wire_value value = {.request = lent->request,
                               .dtype = (uint8_t)lent->pin.meta.dtype,
                               .sizes = sizes,
                               .bytes = (uint64_t)tensor_bytes(&lent->pin.meta),
                               .key = info->key.data,
                               .key_bytes = info->key.bytes,
                               .region_bytes = info->capacity_bytes};
    value.sizes_bytes = worker_write_sizes(&lent->pin.meta, sizes);
    bool is_dense = exec_pin_offset(&lent->pin, &value.offset);
    return is_dense && value.bytes > 0 && value.key_bytes > 0 ? wire_value_encode(&value) : NULL;
}

bool worker_lend(struct worker *worker, const struct work *work)
{
    if (worker->lent_count >= LENT_MAX || exec_value_state(worker->exec, work->handle) != VALUE_HERE)
        return false;
    struct lent *lent = calloc(1, sizeof *lent);
    if (lent == NULL)
        return false;
    *lent = (struct lent){.link = work->link, .request = work->request, .since_ns = actor_now_ns(worker->self)};
    if (exec_pin(worker->exec, work->handle, &lent->pin) != DJ_OK) {
        free(lent);
        return false;
    }
    list_push(&worker->lents, &lent->list);
    worker->lent_count++;
    struct blob *body = write_place(worker, lent);
    if (body == NULL)
        lent_end(worker, lent);
    else
        worker_value_send(worker, work->link, WIRE_VALUE, body, NULL, 0, 0);
    return body != NULL;
}

void worker_lent_copied(struct worker *worker, uint64_t link, const struct wire_copied *said)
{
    struct lent *found = NULL;
    list_each (node, &worker->lents) {
        struct lent *lent = list_entry(node, struct lent, list);
        if (lent->link == link && lent->request == said->request)
            found = lent;
    }
    if (found == NULL && said->is_done)
        worker_fail(worker, link, said->request, DJ_E_STALE, "the value is not kept in its place any more");
    if (found == NULL)
        return;
    lent_end(worker, found);
    struct wire_held held = {.request = said->request};
    struct blob *body = said->is_done ? wire_held_encode(&held) : NULL;
    if (body != NULL)
        worker_value_send(worker, link, WIRE_HELD, body, NULL, 0, 0);
    worker_pump(worker);    // somebody may have waited for the memory
}

void worker_lents_link_down(struct worker *worker, uint64_t link)
{
    list_each (node, &worker->lents) {
        struct lent *lent = list_entry(node, struct lent, list);
        if (lent->link == link)
            lent_end(worker, lent);
    }
}

void worker_lents_sweep(struct worker *worker)
{
    list_each (node, &worker->lents) {
        struct lent *lent = list_entry(node, struct lent, list);
        if (actor_now_ns(worker->self) - lent->since_ns > LENT_NS)
            lent_end(worker, lent);
    }
}

void worker_lents_end(struct worker *worker)
{
    list_each (node, &worker->lents)
        lent_end(worker, list_entry(node, struct lent, list));
}

// The asker ----------------------------------------------------------------------------------------------------------

const char *worker_direct_domain(const struct worker *worker, const struct peer *peer)
{
    return peer->copies_failed < COPIES_FAILED_MAX ? worker->config.device[0]->info->domain : "";
}

void worker_direct_forget(struct worker *worker, uint64_t incarnation)
{
    struct device_port *port = worker->config.device[0];
    if (port->forget_peer != NULL)
        port->forget_peer(port->self, incarnation);
}

static void say_copied(struct worker *worker, uint64_t link, uint64_t request, bool is_done)
{
    struct wire_copied copied = {.request = request, .is_done = is_done};
    worker_send(worker, link, WIRE_COPIED, wire_copied_encode(&copied));
}

static enum dj_error begin_copy(struct worker *worker, const struct import *import, const struct wire_value *value,
                                const struct tensor_meta *meta)
{
    struct device_peer peer = {.incarnation = import->location.incarnation, .key = {.bytes = value->key_bytes}};
    struct landing *landing = calloc(1, sizeof *landing);
    if (landing == NULL)
        return DJ_E_NO_MEMORY;
    memcpy(peer.key.data, value->key, value->key_bytes);
    *landing = (struct landing){.link = import->link, .request = import->request, .incarnation = peer.incarnation};
    struct exec_run *run;
    enum dj_error error = exec_copy_peer(worker->exec, &peer, value->offset, meta, &landing->copy, &run);
    if (error != DJ_OK) {
        free(landing);
        return error;
    }
    struct flight flight = {.kind = OWNER_LANDING, .landing = landing};
    if (worker_submit(worker, run, &flight))
        return DJ_OK;
    run->list.error = DJ_E_NO_MEMORY;
    exec_complete(worker->exec, run);
    exec_run_free(worker->exec, run);
    exec_unpin(worker->exec, &landing->copy);
    free(landing);
    return DJ_E_NO_MEMORY;
}

// `meta` is of value->bytes bytes. The rest of the message is judged here.
void worker_direct_place(struct worker *worker, struct peer *peer, struct import *import, const struct wire_value *value,
                         const struct tensor_meta *meta)
{
    if (import == NULL) {
        say_copied(worker, peer->link, value->request, false);    // its session is gone
        return;
    }
    if (import->phase != IMPORT_ASKED)
        return;    // sent twice
    struct stream *stream = import->work->stream;
    if (import->wants_bytes || value->bytes == 0 || value->bytes > value->region_bytes ||
        value->offset > value->region_bytes - value->bytes) {
        worker_import_failed(worker, import, DJ_E_MALFORMED, "its place contradicts itself");
        worker_stream_pump(worker, stream);
    } else if (begin_copy(worker, import, value, meta) == DJ_OK) {
        import->phase = IMPORT_COPYING;
    } else {
        say_copied(worker, peer->link, value->request, false);
        worker_import_again(worker, import);
    }
}

void worker_direct_done(struct worker *worker, struct landing *landing, struct exec_run *run)
{
    struct import *import = worker_import_find(worker, landing->link, landing->request);
    struct peer *peer;
    bool is_done = run->error == DJ_OK && import != NULL;
    bool has_peer = worker_peer_owns(worker, landing->link, 0, &peer);
    if (has_peer)
        say_copied(worker, landing->link, landing->request, is_done);
    if (is_done) {
        import->copy = landing->copy;
        import->phase = IMPORT_COPIED;
    } else {
        exec_unpin(worker->exec, &landing->copy);
        if (has_peer && run->error != DJ_OK)
            peer->copies_failed++;
        if (import != NULL)
            worker_import_again(worker, import);
    }
    if (!has_peer)
        worker_direct_forget(worker, landing->incarnation);    // the copy may have opened it anew
    free(landing);
    exec_run_free(worker->exec, run);
    if (!is_done)
        worker_pump(worker);
}

void worker_direct_held(struct worker *worker, struct peer *peer, const struct wire_held *said)
{
    struct import *import = worker_import_find(worker, peer->link, said->request);
    if (import == NULL || import->phase != IMPORT_COPIED)
        return;    // its session is gone, or it was sent twice
    import->phase = IMPORT_LANDED;
    import->link = 0;
    worker->load.peer_copies++;
    worker->load.peer_bytes += (uint64_t)tensor_bytes(&import->copy.meta);
    worker_stream_pump(worker, import->work->stream);
    if (!list_is_empty(&worker->peer_fetches))
        worker_peer_fetches_pump(worker);
}
