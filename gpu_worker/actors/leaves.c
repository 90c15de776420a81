// Leaves: how leaves come here. A leaf that somebody names and this device lacks is wanted; wanted leaves are asked for at one source
// after another: another worker, the store, the client. Large ones first at the head, which knows who has them, so that weights cross a
// client's link once; small ones at the client, which has them at hand.

#include "core/base/log.h"
#include "gpu_worker/actors/state.h"

#include <stdlib.h>

enum { SMALL_BYTES = 64 << 10 };           // up to here a leaf is written by the execution that uses it first
#define SMALL_NS (WORKER_FETCH_NS / 10)    // in which a client that has a small one at hand gives it

static struct want *want_of(struct worker *worker, struct hash128 content)
{
    return map_get(worker->wants, content);
}

static void ask_next(struct worker *worker, struct want *want);

static void ask_client(struct worker *worker, struct want *want)
{
    struct wire_leaf leaf = {.content = want->content, .bytes = want->bytes};
    struct wire_leaf_need need = {.leaves = &leaf, .leaves_count = 1};
    want->source = SOURCE_CLIENT;
    want->link = want->client;
    want->client = 0;    // asked once
    worker_send(worker, want->link, WIRE_LEAF_NEED, wire_leaf_need_encode(&need));
}

static void ask_head(struct worker *worker, struct want *want)
{
    struct wire_locate locate = {.request = ++worker->next_request, .content = want->content};
    want->tried_head = true;
    want->source = SOURCE_LOCATING;
    want->request = locate.request;
    worker_send(worker, worker->head_link, WIRE_LOCATE, wire_locate_encode(&locate));
}

static void ask_get(struct worker *worker, struct want *want, uint64_t link)
{
    struct wire_leaf_get get = {.request = ++worker->next_request, .content = want->content};
    want->link = link;
    want->request = get.request;
    worker_send(worker, link, WIRE_LEAF_GET, wire_leaf_get_encode(&get));
}

static void ask_peer(struct worker *worker, struct want *want)
{
    bool has_failed = false;
    want->source = SOURCE_PEER;
    uint64_t link = worker_peer_link(worker, &want->location, &has_failed);
    if (has_failed) {
        want->tried_peer = true;
        ask_next(worker, want);
    } else if (link != 0) {
        want->tried_peer = true;
        ask_get(worker, want, link);
    }
}

// The next source that has not been tried.
static void ask_next(struct worker *worker, struct want *want)
{
    bool has_head = worker->head_phase == HEAD_JOINED;
    bool is_small = want->bytes <= SMALL_BYTES && want->client != 0 && !(has_head && want->head_first);
    want->progress_ns = actor_now_ns(worker->self);
    want->link = want->request = 0;
    if (is_small)
        ask_client(worker, want);
    else if (has_head && !want->tried_head)
        ask_head(worker, want);
    else if (want->location.incarnation != 0 && !want->tried_peer)
        ask_peer(worker, want);
    else if (has_head && want->in_store && !want->tried_store) {
        want->tried_store = true;
        want->source = SOURCE_STORE;
        ask_get(worker, want, worker->head_link);
    } else if (want->client != 0) {
        ask_client(worker, want);
    } else {
        want->source = SOURCE_SPENT;
    }
}

void worker_leaf_want(struct worker *worker, struct hash128 content, uint64_t bytes, uint64_t client, bool head_first)
{
    if (exec_leaf_state(worker->exec, content) == LEAF_READY)
        return;
    struct want *want = want_of(worker, content);
    if (want != NULL && want->source != SOURCE_SPENT) {
        want->is_replica = false;
        if (want->client == 0 && want->link != client)
            want->client = client;
        return;
    }
    if (want == NULL) {
        want = calloc(1, sizeof *want);
        if (want == NULL || map_put(worker->wants, content, want) != DJ_OK) {
            free(want);
            log_write(LOG_WARN, "worker", "too many leaves are on their way");
            return;
        }
    }
    *want = (struct want){
        .content = content, .bytes = bytes, .client = client, .head_first = head_first, .serial = ++worker->want_serial};
    ask_next(worker, want);
}

enum leaf_hope worker_leaf_hope(struct worker *worker, struct hash128 content)
{
    struct want *want = want_of(worker, content);
    return want == NULL ? HOPE_UNASKED : want->source == SOURCE_SPENT ? HOPE_NONE : HOPE_COMING;
}

static void want_drop(struct worker *worker, struct hash128 content)
{
    free(map_take(worker->wants, content));
}

// Another worker's piece, to be kept for it: only its offerer is asked, and only while there is room that nobody uses.
static void want_replica(struct worker *worker, const struct wire_leaf *leaf, uint64_t link)
{
    struct exec_stats stats = exec_stats(worker->exec);
    if (leaf->bytes > stats.capacity_bytes - stats.used_bytes) {
        worker_fail(worker, link, 0, DJ_E_DEVICE_MEMORY, "this worker has no room for a replica of %llu bytes",
                    (unsigned long long)leaf->bytes);
        return;
    }
    struct want *want = want_of(worker, leaf->content);
    if (want != NULL && want->source != SOURCE_SPENT) {
        if (want->client == 0 && want->link != link)
            want->client = link;
        return;
    }
    if (want == NULL) {
        want = calloc(1, sizeof *want);
        if (want == NULL || map_put(worker->wants, leaf->content, want) != DJ_OK) {
            free(want);
            return;
        }
    }
    *want = (struct want){.content = leaf->content,
                          .bytes = leaf->bytes,
                          .client = link,
                          .is_replica = true,
                          .tried_head = true,
                          .tried_peer = true,
                          .tried_store = true,
                          .serial = ++worker->want_serial};
    ask_next(worker, want);
}

void worker_leaf_offered(struct worker *worker, struct worker_link *link, const struct wire_leaf_offer *offer)
{
    struct wire_leaf *here = arena_alloc(worker->arena, (offer->leaves_count + 1) * sizeof *here);
    struct wire_leaf_ok ok = {.leaves = here};
    if (here == NULL)
        return;
    for (uint32_t i = 0; i < offer->leaves_count; i++) {
        const struct wire_leaf *leaf = &offer->leaves[i];
        if (exec_leaf_state(worker->exec, leaf->content) == LEAF_READY)
            here[ok.leaves_count++] = (struct wire_leaf){.content = leaf->content, .bytes = leaf->bytes};
        else if (link->role == ROLE_WORKER)
            want_replica(worker, leaf, link->link);
        else
            worker_leaf_want(worker, leaf->content, leaf->bytes, link->link, false);
    }
    if (ok.leaves_count > 0)
        worker_send(worker, link->link, WIRE_LEAF_OK, wire_leaf_ok_encode(&ok));
}

void worker_leaf_located(struct worker *worker, const struct wire_located *located)
{
    uint32_t cursor = 0;
    struct want *want;
    while ((want = map_next(worker->wants, &cursor, NULL)) != NULL) {
        if (want->source == SOURCE_LOCATING && want->request == located->request)
            break;
    }
    if (want == NULL)
        return;
    want->in_store = located->in_store;
    for (uint32_t i = 0; i < located->locations_count; i++) {
        if (located->locations[i].incarnation != worker->incarnation) {
            want->location = located->locations[i];
            break;
        }
    }
    ask_next(worker, want);
}

// The leaf cannot come from where it was asked for.
static void source_failed(struct worker *worker, struct want *want)
{
    exec_leaf_abandon(worker->exec, want->content);
    ask_next(worker, want);
    if (want->source == SOURCE_SPENT)
        worker_pump(worker);
}

void worker_leaf_refused(struct worker *worker, uint64_t link, uint64_t request)
{
    uint32_t cursor = 0;
    struct want *want;
    while (request != 0 && (want = map_next(worker->wants, &cursor, NULL)) != NULL) {
        bool is_it = want->request == request &&
                     (want->link == link || (want->source == SOURCE_LOCATING && link == worker->head_link));
        if (is_it) {
            source_failed(worker, want);
            return;
        }
    }
}

static void fail_memory(struct worker *worker, struct want *want, const struct fault *fault)
{
    log_write(LOG_WARN, "worker", "a leaf is refused: %s", fault->text);
    worker_fail(worker, want->link, 0, fault->code, "%s", fault->text);
    want->client = 0;
    want->tried_head = want->tried_peer = want->tried_store = true;
    want->source = SOURCE_SPENT;
    want->link = 0;
    worker_pump(worker);
}

static void take_small(struct worker *worker, struct want *want, const struct wire_leaf_data *data, struct blob *bulk)
{
    struct blob *blob = bulk != NULL ? blob_hold(bulk) : blob_make(0);
    enum dj_error error = blob == NULL ? DJ_E_NO_MEMORY : exec_leaf_put(worker->exec, data->content, blob, 0, blob->bytes);
    blob_drop(blob);
    if (error == DJ_OK)
        worker_leaf_is_here(worker, data->content, true);
    else
        source_failed(worker, want);
}

static void take_chunk(struct worker *worker, struct want *want, const struct wire_leaf_data *data, struct blob *bulk)
{
    struct fault fault = {0};
    struct exec_run *run;
    enum dj_error error = DJ_OK;
    if (data->offset == 0) {
        exec_leaf_abandon(worker->exec, data->content);
        error = exec_leaf_begin(worker->exec, data->content, data->bytes, &fault);
        if (error == DJ_E_DEVICE_MEMORY) {
            fail_memory(worker, want, &fault);
            return;
        }
    }
    if (error == DJ_OK)
        error = exec_leaf_chunk(worker->exec, data->content, data->offset, bulk, &run, &fault);
    if (error != DJ_OK) {
        log_write(LOG_WARN, "worker", "a leaf's piece is refused: %s", fault.text);
        source_failed(worker, want);
        return;
    }
    struct flight flight = {.kind = OWNER_LEAF_IN, .content = data->content};
    if (worker_submit(worker, run, &flight))
        return;
    run->list.error = fault_set(&run->list.fault, DJ_E_NO_MEMORY, "%s", dj_error_text(DJ_E_NO_MEMORY));
    exec_complete(worker->exec, run);
    worker_leaf_chunk_done(worker, data->content, run);
}

void worker_leaf_data(struct worker *worker, uint64_t link, const struct wire_leaf_data *data, struct blob *bulk)
{
    struct want *want = want_of(worker, data->content);
    uint64_t bytes = bulk == NULL ? 0 : bulk->bytes;
    if (want == NULL || want->link != link || exec_leaf_state(worker->exec, data->content) == LEAF_READY)
        return;    // nobody asked this sender, or it is here by now
    worker->load.bytes_in += bytes;
    want->progress_ns = actor_now_ns(worker->self);
    if (bytes > data->bytes || (bytes == 0 && (data->bytes != 0 || data->offset != 0))) {
        source_failed(worker, want);
    } else if (data->offset == 0 && bytes == data->bytes && bytes <= SMALL_BYTES) {
        take_small(worker, want, data, bulk);
    } else {
        take_chunk(worker, want, data, bulk);
    }
}

void worker_leaf_chunk_done(struct worker *worker, struct hash128 content, struct exec_run *run)
{
    bool is_ok = run->error == DJ_OK;
    exec_run_free(worker->exec, run);
    if (exec_leaf_state(worker->exec, content) == LEAF_READY) {
        worker_leaf_is_here(worker, content, true);
        return;
    }
    struct want *want = want_of(worker, content);
    if (!is_ok && want != NULL)
        source_failed(worker, want);
}

// Tells who offered it, the head, and whoever waits.
void worker_leaf_is_here(struct worker *worker, struct hash128 content, bool is_new)
{
    struct want *want = want_of(worker, content);
    struct wire_leaf leaf = {.content = content, .bytes = exec_leaf_bytes(worker->exec, content)};
    struct wire_leaf_ok ok = {.leaves = &leaf, .leaves_count = 1};
    bool is_replica = want != NULL && want->is_replica;
    if (is_replica)
        exec_leaf_set_replica(worker->exec, content);
    if (is_new)
        worker_serve_tell(worker, content, leaf.bytes, true, !is_replica);
    if (want == NULL)
        return;
    uint64_t sender = want->source == SOURCE_CLIENT ? want->link : 0, offerer = want->client;
    if (want->source == SOURCE_STORE)
        exec_leaf_set_durable(worker->exec, content);
    want_drop(worker, content);
    if (sender != 0)
        worker_send(worker, sender, WIRE_LEAF_OK, wire_leaf_ok_encode(&ok));
    if (offerer != 0 && offerer != sender)
        worker_send(worker, offerer, WIRE_LEAF_OK, wire_leaf_ok_encode(&ok));
    worker_pump(worker);
}

// link 0: the head's.
void worker_leaves_link_down(struct worker *worker, uint64_t link)
{
    uint32_t cursor = 0;
    struct want *want;
    while ((want = map_next(worker->wants, &cursor, NULL)) != NULL) {
        bool was_head = want->source == SOURCE_LOCATING || want->source == SOURCE_STORE;
        if (want->client == link)
            want->client = 0;
        if (link == 0 && was_head)
            want->tried_head = want->tried_store = false;    // it has not said no: the next life of it is asked
        if (want->source != SOURCE_SPENT && (link == 0 ? was_head : want->link == link))
            source_failed(worker, want);
    }
}

void worker_leaves_try_again(struct worker *worker, uint64_t link)
{
    (void)link;
    uint32_t cursor = 0;
    struct want *want;
    while ((want = map_next(worker->wants, &cursor, NULL)) != NULL) {
        if (want->source == SOURCE_PEER && want->request == 0)
            ask_peer(worker, want);
    }
}

void worker_leaves_peer_gone(struct worker *worker, uint64_t incarnation)
{
    uint32_t cursor = 0;
    struct want *want;
    while ((want = map_next(worker->wants, &cursor, NULL)) != NULL) {
        if (want->location.incarnation != incarnation)
            continue;
        want->tried_peer = true;
        if (want->source == SOURCE_PEER && want->request == 0)
            source_failed(worker, want);
    }
}

void worker_leaves_sweep(struct worker *worker)
{
    uint64_t now = actor_now_ns(worker->self);
    uint32_t cursor = 0;
    struct want *want;
    while ((want = map_next(worker->wants, &cursor, NULL)) != NULL) {
        bool is_at_hand = want->source == SOURCE_CLIENT && want->bytes <= SMALL_BYTES && worker->head_phase == HEAD_JOINED &&
                          !want->tried_head;
        if (now - want->progress_ns <= (is_at_hand ? SMALL_NS : WORKER_FETCH_NS))
            continue;
        if (is_at_hand) {    // it may not have it any more: it is asked again when nobody else has
            want->client = want->link;
            want->head_first = true;
        }
        if (want->source != SOURCE_SPENT) {
            source_failed(worker, want);
        } else {    // long given up: whoever needs it again begins anew
            want_drop(worker, want->content);
            cursor = 0;
        }
    }
}
