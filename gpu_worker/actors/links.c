// Links: connections that others opened to this worker: clients, other workers. Greeting first; then who it is decides what it may say.

#include "core/base/log.h"
#include "gpu_worker/actors/state.h"

#include <stdio.h>
#include <stdlib.h>

void worker_links_up(struct worker *worker, uint64_t id)
{
    struct worker_link *link = calloc(1, sizeof *link);
    if (link == NULL || worker->is_stopping || map_put(worker->links, map_key(id), link) != DJ_OK) {
        free(link);
        actor_link_close(worker->self, id);
        return;
    }
    link->link = id;
}

void worker_links_down(struct worker *worker, uint64_t id)
{
    struct worker_link *link = map_take(worker->links, map_key(id));
    if (link == NULL)
        return;
    if (link->stream != NULL && link->stream->link == id)
        worker_stream_away(worker, link->stream);
    worker_values_link_down(worker, id);
    worker_leaves_link_down(worker, id);
    worker_serve_link_down(worker, id);
    worker_peer_fetches_link_down(worker, id);
    worker_lents_link_down(worker, id);
    worker_link_plans_free(link);
    free(link);
}

void worker_links_close(struct worker *worker, uint64_t id, enum dj_error error, const char *why)
{
    log_write(LOG_WARN, "worker", "link refused: %s link=%llu", why, (unsigned long long)id);
    worker_fail(worker, id, 0, error, "%s", why);
    worker_links_down(worker, id);
    actor_link_close(worker->self, id);
}

static enum dj_error hello(struct worker *worker, struct worker_link *link, const struct wire_hello *said)
{
    char why[256];
    if (link->role != 0)
        return DJ_E_UNEXPECTED;
    if (said->version != WIRE_VERSION) {
        snprintf(
            why, sizeof why,
            "this worker (djinn %s) speaks protocol version %d, the other side (djinn %s) version %u; use the same djinn on both sides",
            worker->config.version, WIRE_VERSION, said->build, said->version);
        worker_links_close(worker, link->link, DJ_E_VERSION, why);
        return DJ_OK;
    }
    if (!hash128_is_zero(worker->config.token) && !hash128_equal(said->token, worker->config.token)) {
        worker_links_close(worker, link->link, DJ_E_TOKEN,
                           "the token does not match the worker's; set DJINN_TOKEN to the contents of the head's token file");
        return DJ_OK;
    }
    if (said->role != ROLE_CLIENT && said->role != ROLE_WORKER)
        return DJ_E_MALFORMED;
    link->role = said->role;
    struct wire_hello_ok ok = {
        .version = WIRE_VERSION, .role = ROLE_WORKER, .incarnation = worker->incarnation, .generation = worker->generation};
    snprintf(ok.build, sizeof ok.build, "%s", worker->config.version);
    worker_send(worker, link->link, WIRE_HELLO_OK, wire_hello_ok_encode(&ok));
    return DJ_OK;
}

// Decodes the body into `said` for a link of this role, then calls.
#define TAKE(name, wanted, call) \
    { \
        struct wire_##name said; \
        if ((wanted) != 0 && link->role != (wanted)) \
            return DJ_E_UNEXPECTED; \
        enum dj_error error = wire_##name##_decode(body->data, body->bytes, worker->arena, &said); \
        if (error != DJ_OK) \
            return error; \
        call; \
        return DJ_OK; \
    }

static enum dj_error session_message(struct worker *worker, struct worker_link *link, uint16_t message, struct blob *body)
{
    if (link->stream == NULL)
        return DJ_E_SESSION_UNKNOWN;
    switch (message) {
    case WIRE_PLAN: TAKE(plan, ROLE_CLIENT, return worker_stream_plan(worker, link, &said))
    case WIRE_EXECUTE: TAKE(execute, ROLE_CLIENT, return worker_stream_execute(worker, link, &said, body))
    case WIRE_IMPORT: TAKE(import, ROLE_CLIENT, return worker_stream_import(worker, link, &said))
    case WIRE_RELEASE: TAKE(release, ROLE_CLIENT, return worker_stream_release(worker, link, &said))
    case WIRE_CHECKPOINT: TAKE(checkpoint, ROLE_CLIENT, return worker_stream_checkpoint(worker, link, &said))
    default: return DJ_E_UNEXPECTED;
    }
}

static void pong(struct worker *worker, struct worker_link *link, const struct wire_pong *said)
{
    worker_serve_pong(worker, link->link, said);
    worker_values_pong(worker, link->link, said->number);
    if (link->stream != NULL)
        worker_stream_pong(worker, link->stream, said->number);
}

// By a client that is attached, or by another worker that looks for a place for its pieces.
static enum dj_error offered(struct worker *worker, struct worker_link *link, const struct wire_leaf_offer *said)
{
    if (link->role == ROLE_CLIENT && link->stream == NULL)
        return DJ_E_SESSION_UNKNOWN;
    worker_leaf_offered(worker, link, said);
    return DJ_OK;
}

static enum dj_error message_of(struct worker *worker, struct worker_link *link, uint16_t message, struct blob *body,
                                struct blob *bulk)
{
    if (link->role == 0 && message != WIRE_HELLO)
        return DJ_E_UNEXPECTED;
    switch (message) {
    case WIRE_HELLO: TAKE(hello, 0, return hello(worker, link, &said))
    case WIRE_PING:
        TAKE(ping, 0, struct wire_pong pong = {.number = said.number};
             worker_send(worker, link->link, WIRE_PONG, wire_pong_encode(&pong)))
    case WIRE_PONG: TAKE(pong, 0, pong(worker, link, &said))
    case WIRE_ATTACH: TAKE(attach, ROLE_CLIENT, worker_session_attach(worker, link, &said))
    case WIRE_PEER: TAKE(peer, ROLE_WORKER, (void)said)
    case WIRE_LEAF_GET: TAKE(leaf_get, ROLE_WORKER, worker_serve_get(worker, link->link, &said))
    case WIRE_LEAF_OFFER: TAKE(leaf_offer, 0, return offered(worker, link, &said))
    case WIRE_LEAF_DATA: TAKE(leaf_data, 0, worker_leaf_data(worker, link->link, &said, bulk))
    case WIRE_FETCH: TAKE(fetch, 0, return worker_stream_fetch(worker, link, &said))
    case WIRE_COPIED: TAKE(copied, ROLE_WORKER, worker_lent_copied(worker, link->link, &said))
    case WIRE_FAILED: TAKE(failed, 0, worker_leaf_refused(worker, link->link, said.request))
    default: return session_message(worker, link, message, body);
    }
}

void worker_links_message(struct worker *worker, struct worker_link *link, uint16_t message, struct blob *body, struct blob *bulk)
{
    uint64_t id = link->link;
    enum dj_error error = message_of(worker, link, message, body, bulk);
    link = error == DJ_OK ? NULL : map_get(worker->links, map_key(id));
    if (link == NULL)
        return;
    char why[160];
    snprintf(why, sizeof why, "%s: %s", wire_name(message), dj_error_text(error));
    worker_links_close(worker, id, error, why);
}
