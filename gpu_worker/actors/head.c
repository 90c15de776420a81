// Head: this worker's link to the head: greeting, joining, heartbeats, the lease, and beginning again when it is lost.
//
// A new generation of the head hears a worker that it never fenced: handles stay. The same generation fenced this life when the link
// went down: nothing that this life holds may be spoken for any more, so it ends its sessions and joins as a new life.

#include "core/base/log.h"
#include "gpu_worker/actors/state.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define PAUSE_FIRST_NS ((uint64_t)50000000)
#define PAUSE_MAX_NS ((uint64_t)2000000000)

void worker_head_dial(struct worker *worker)
{
    if (worker->config.head[0] == '\0' || worker->head_phase != HEAD_CLOSED || worker->is_stopping)
        return;
    worker->head_phase = HEAD_DIALING;
    worker->head_request = actor_link_open(worker->self, worker->config.head);
}

void worker_head_up(struct worker *worker, uint64_t link)
{
    struct wire_hello hello = {.version = WIRE_VERSION,
                               .role = ROLE_WORKER,
                               .token = worker->config.token,
                               .incarnation = worker->incarnation,
                               .generation = worker->generation};
    snprintf(hello.name, sizeof hello.name, "%s", worker->config.name);
    snprintf(hello.build, sizeof hello.build, "%s", worker->config.version);
    worker->head_link = link;
    worker->head_request = 0;
    worker->head_phase = HEAD_GREETING;
    worker_send(worker, link, WIRE_HELLO, wire_hello_encode(&hello));
}

void worker_head_down(struct worker *worker, enum dj_error error)
{
    if (worker->head_phase == HEAD_JOINED || worker->head_failures == 0)
        log_write(LOG_WARN, "worker", "no link to the head at %s: %s; trying again", worker->config.head, dj_error_text(error));
    uint64_t pause = PAUSE_FIRST_NS << (worker->head_failures < 6 ? worker->head_failures : 6);
    worker->head_failures++;
    worker->head_phase = HEAD_CLOSED;
    worker->head_link = worker->head_request = 0;
    actor_timer(worker->self, TIMER_BEAT, 0);
    actor_timer(worker->self, TIMER_HEAD, actor_now_ns(worker->self) + (pause < PAUSE_MAX_NS ? pause : PAUSE_MAX_NS));
    worker_leaves_link_down(worker, 0);
    worker_serve_link_down(worker, 0);
}

static void end_all_sessions(struct worker *worker)
{
    uint32_t cursor = 0;
    struct session *session;
    while ((session = map_next(worker->sessions, &cursor, NULL)) != NULL) {
        list_each (node, &session->streams) {
            const struct stream *stream = list_entry(node, struct stream, list);
            if (stream->link != 0)
                worker_links_close(worker, stream->link, DJ_E_STALE, "the head has declared this life of the worker dead");
        }
        worker_session_drop(worker, session);
        cursor = 0;    // the map may have changed
    }
}

static void join(struct worker *worker)
{
    struct wire_device device[WORKER_DEVICES_MAX] = {0};
    struct wire_join join = {.incarnation = worker->incarnation,
                             .pid = worker->config.pid,
                             .devices = device,
                             .devices_count = worker->config.devices};
    snprintf(join.name, sizeof join.name, "%s", worker->config.name);
    snprintf(join.address_unix, sizeof join.address_unix, "%s", worker->config.address_unix);
    snprintf(join.address_tcp, sizeof join.address_tcp, "%s", worker->config.address_tcp);
    snprintf(join.host, sizeof join.host, "%s", worker->config.host);
    for (uint32_t i = 0; i < worker->config.devices; i++) {
        const struct device_info *info = worker->config.device[i]->info;
        snprintf(device[i].name, sizeof device[i].name, "%s", info->name);
        snprintf(device[i].backend, sizeof device[i].backend, "%s", info->backend);
        snprintf(device[i].numerics, sizeof device[i].numerics, "%s", info->numerics);
        device[i].capacity_bytes = info->capacity_bytes;
        device[i].threads = info->threads;
        device[i].ops = info->ops;
        device[i].ops_bytes = sizeof info->ops;
    }
    worker->head_phase = HEAD_JOINING;
    worker_send(worker, worker->head_link, WIRE_JOIN, wire_join_encode(&join));
}

static enum dj_error greeted(struct worker *worker, const struct wire_hello_ok *ok)
{
    if (worker->head_phase != HEAD_GREETING)
        return DJ_E_UNEXPECTED;
    if (ok->version != WIRE_VERSION)
        return DJ_E_VERSION;
    if (worker->was_joined && ok->generation == worker->generation) {
        worker->incarnation = hash_mix(worker->config.incarnation, ++worker->lives);
        log_write(LOG_WARN, "worker", "this life was fenced; joining as a new one incarnation=%016" PRIx64, worker->incarnation);
        end_all_sessions(worker);
        worker_journal_forget(worker);
        worker_lents_end(worker);
    }
    worker->generation = ok->generation;
    join(worker);
    return DJ_OK;
}

static enum dj_error joined(struct worker *worker, const struct wire_joined *said)
{
    if (worker->head_phase != HEAD_JOINING)
        return DJ_E_UNEXPECTED;
    worker->head_phase = HEAD_JOINED;
    worker->head_failures = 0;
    worker->was_joined = true;
    worker->worker_number = said->worker;
    worker->generation = said->generation;
    worker->lease_ns = said->lease_ns;
    worker->heartbeat_ns = said->heartbeat_ns;
    worker->lease_until_ns = actor_now_ns(worker->self) + said->lease_ns;
    log_write(LOG_INFO, "worker", "joined the head at %s id=%u generation=%" PRIu64, worker->config.head, said->worker,
              said->generation);
    worker_head_beat(worker);
    worker_inventory_all(worker);
    worker_journal_rejoined(worker);
    worker_serve_rejoined(worker);
    worker_cuts_rejoined(worker);
    worker_streams_send_held(worker);
    return DJ_OK;
}

void worker_head_beat(struct worker *worker)
{
    if (worker->head_phase != HEAD_JOINED)
        return;
    struct exec_stats stats = exec_stats(worker->exec);
    struct wire_heartbeat beat = worker->load;
    beat.sequence = ++worker->heartbeat_number;
    beat.sent_ns = actor_now_ns(worker->self);
    beat.memory_used_bytes = stats.used_bytes;
    beat.memory_capacity_bytes = stats.capacity_bytes;
    beat.sessions = map_count(worker->sessions);
    beat.queued = stats.in_flight;
    beat.plans = stats.plans;
    beat.leaf_bytes = stats.leaf_bytes;
    beat.appends = stats.appends;
    beat.copies = stats.cat_copies + stats.view_copies;
    worker_send(worker, worker->head_link, WIRE_HEARTBEAT, wire_heartbeat_encode(&beat));
    actor_timer(worker->self, TIMER_BEAT, beat.sent_ns + (worker->heartbeat_ns == 0 ? PAUSE_MAX_NS : worker->heartbeat_ns));
}

static void renewed(struct worker *worker, const struct wire_heartbeat_ok *ok)
{
    bool may_not = !worker_may_answer(worker);
    uint64_t until = ok->sent_ns + worker->lease_ns;
    if (ok->generation == worker->generation && ok->sent_ns <= actor_now_ns(worker->self) && until > worker->lease_until_ns)
        worker->lease_until_ns = until;
    if (may_not && worker_may_answer(worker))
        worker_streams_send_held(worker);
}

static void refused(struct worker *worker, const struct wire_failed *failed)
{
    enum dj_error error = (enum dj_error)failed->error;
    bool may_retry = dj_error_retry(error) == ERROR_RETRY_later;
    log_write(may_retry ? LOG_WARN : LOG_ERROR, "worker", "the head refused: %s (%s)", failed->text, dj_error_name(error));
    if (failed->request == 0 && error == DJ_E_STORE_FULL)
        worker_cuts_refused(worker, worker->head_link, error);
    // Another token, name or version does not appear by waiting.
    if (!worker->was_joined && failed->request == 0 && dj_error_retry(error) == ERROR_RETRY_no)
        actor_exit(worker->self, 1);
}

static void dismiss(struct worker *worker, const struct wire_dismiss *dismiss)
{
    struct session *session = map_get(worker->sessions, map_key(dismiss->session));
    if (session != NULL && session->epoch == dismiss->epoch)
        worker_session_drop(worker, session);
}

// Decodes the body into `said`, then calls.
#define TAKE(name, call) \
    { \
        struct wire_##name said; \
        enum dj_error error = wire_##name##_decode(body->data, body->bytes, worker->arena, &said); \
        if (error != DJ_OK) \
            return error; \
        call; \
        return DJ_OK; \
    }

enum dj_error worker_head_message(struct worker *worker, uint16_t message, struct blob *body, struct blob *bulk)
{
    switch (message) {
    case WIRE_HELLO_OK: TAKE(hello_ok, return greeted(worker, &said))
    case WIRE_JOINED: TAKE(joined, return joined(worker, &said))
    case WIRE_FAILED: TAKE(failed, refused(worker, &said); worker_leaf_refused(worker, worker->head_link, said.request))
    case WIRE_HEARTBEAT_OK: TAKE(heartbeat_ok, renewed(worker, &said))
    case WIRE_ADMIT: TAKE(admit, worker_session_admit(worker, &said))
    case WIRE_DISMISS: TAKE(dismiss, dismiss(worker, &said))
    case WIRE_JOURNAL_OK: TAKE(journal_ok, worker_journal_acknowledged(worker, said.last))
    case WIRE_LOCATED: TAKE(located, worker_leaf_located(worker, &said))
    case WIRE_LEAF_NEED: TAKE(leaf_need, worker_serve_need(worker, worker->head_link, &said))
    case WIRE_LEAF_DATA: TAKE(leaf_data, worker_leaf_data(worker, worker->head_link, &said, bulk))
    case WIRE_LEAF_OK: TAKE(leaf_ok, worker_serve_stored(worker, &said))
    case WIRE_DRAIN: worker->is_draining = true; return DJ_OK;
    case WIRE_PING:
        TAKE(ping, struct wire_pong pong = {.number = said.number};
             worker_send(worker, worker->head_link, WIRE_PONG, wire_pong_encode(&pong)))
    case WIRE_PONG: TAKE(pong, worker_serve_pong(worker, worker->head_link, &said))
    default: return DJ_E_UNEXPECTED;
    }
}

void worker_head_leave(struct worker *worker)
{
    if (worker->head_phase != HEAD_JOINED)
        return;
    (void)worker_journal_flush(worker);
    struct wire_leave leave = {.incarnation = worker->incarnation};
    worker_send(worker, worker->head_link, WIRE_LEAVE, wire_leave_encode(&leave));
}
