// Sessions: who may submit here, and whose values these are. A session outlives its streams and links by a grace period. A newer epoch
// takes it over: streams of the old one end, the values stay, and the head hears of it when nothing of the old epoch is on the device any
// more and its records are sent.

#include "core/base/log.h"
#include "gpu_worker/actors/state.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Admission ----------------------------------------------------------------------------------------------------------

static struct session *session_make(struct worker *worker, uint64_t id, uint32_t epoch)
{
    struct session *session = calloc(1, sizeof *session);
    if (session == NULL)
        return NULL;
    *session = (struct session){.id = id, .epoch = epoch, .away_since_ns = actor_now_ns(worker->self)};
    list_init(&session->streams);
    list_init(&session->gone);
    if (map_put(worker->sessions, map_key(id), session) == DJ_OK)
        return session;
    log_write(LOG_WARN, "worker", "no room for another session session=%" PRIu64, id);
    free(session);
    return NULL;
}

static bool has_older_in_flight(const struct worker *worker, const struct session *session)
{
    for (const struct list *node = worker->gone_streams.next; node != &worker->gone_streams; node = node->next) {
        const struct stream *stream = list_entry(node, struct stream, list);
        if (stream->session == session && stream->epoch != session->epoch && stream->in_flight > 0)
            return true;
    }
    return false;
}

static void take_over(struct worker *worker, struct session *session, uint32_t epoch)
{
    log_write(LOG_INFO, "worker", "a newer epoch takes the session over session=%" PRIu64 " epoch=%u", session->id, epoch);
    list_each (node, &session->streams) {
        struct stream *stream = list_entry(node, struct stream, list);
        if (stream->link != 0)
            worker_links_close(worker, stream->link, DJ_E_EPOCH_FENCED, dj_error_text(DJ_E_EPOCH_FENCED));
        worker_stream_drop(worker, stream);
    }
    session->epoch = epoch;
    session->was_taken_over = true;
    session->away_since_ns = actor_now_ns(worker->self);
}

void worker_session_admit_settled(struct worker *worker, struct session *session)
{
    if (!session->owes_admitted || session->is_gone || has_older_in_flight(worker, session))
        return;
    if (worker->head_phase != HEAD_JOINED) {
        session->owes_admitted = false;    // the head asks again when this worker has joined again
        return;
    }
    if (session->was_taken_over && !worker_journal_flush(worker))
        return;
    session->owes_admitted = session->was_taken_over = false;
    struct wire_admitted admitted = {.session = session->id, .epoch = session->epoch};
    worker_send(worker, worker->head_link, WIRE_ADMITTED, wire_admitted_encode(&admitted));
}

void worker_sessions_admit_settled(struct worker *worker)
{
    uint32_t cursor = 0;
    struct session *session;
    while ((session = map_next(worker->sessions, &cursor, NULL)) != NULL)
        worker_session_admit_settled(worker, session);
}

void worker_session_admit(struct worker *worker, const struct wire_admit *admit)
{
    struct session *session = map_get(worker->sessions, map_key(admit->session));
    if (worker->is_draining || (session != NULL && session->epoch > admit->epoch))
        return;
    if (session == NULL)
        session = session_make(worker, admit->session, admit->epoch);
    else if (session->epoch < admit->epoch)
        take_over(worker, session, admit->epoch);
    if (session == NULL)
        return;
    session->secret = admit->secret;
    session->recovery = admit->recovery < LINEAGE_POLICIES ? admit->recovery : LINEAGE_CHECKPOINT;
    session->replay_limit_ns = admit->replay_limit_ns == 0 ? LINEAGE_REPLAY_LIMIT_NS : admit->replay_limit_ns;
    session->replica = admit->replicas_count > 0 ? admit->replicas[0] : (struct wire_location){0};
    session->is_sync = (admit->flags & ADMIT_SYNC) != 0;
    session->owes_admitted = true;
    worker_session_admit_settled(worker, session);
}

// Links --------------------------------------------------------------------------------------------------------------

static struct stream *stream_of(const struct session *session, uint32_t number)
{
    for (const struct list *node = session->streams.next; node != &session->streams; node = node->next) {
        struct stream *stream = list_entry(node, struct stream, list);
        if (stream->number == number)
            return stream;
    }
    return NULL;
}

static enum dj_error check_attach(const struct session *session, const struct worker_link *link, const struct wire_attach *attach)
{
    if (link->stream != NULL)
        return DJ_E_UNEXPECTED;
    if (session == NULL || session->epoch < attach->epoch)
        return DJ_E_SESSION_UNKNOWN;
    if (session->epoch > attach->epoch)
        return DJ_E_EPOCH_FENCED;
    return hash128_equal(session->secret, attach->secret) ? DJ_OK : DJ_E_GRANT;
}

void worker_session_attach(struct worker *worker, struct worker_link *link, const struct wire_attach *attach)
{
    struct session *session = map_get(worker->sessions, map_key(attach->session));
    struct stream *stream = NULL;
    if (session == NULL && worker->config.head[0] == '\0' &&
        (session = session_make(worker, attach->session, attach->epoch)) != NULL)
        session->secret = attach->secret;
    enum dj_error error = check_attach(session, link, attach);
    if (error == DJ_OK) {
        stream = stream_of(session, attach->stream);
        if (stream == NULL)
            stream = worker_stream_make(worker, session, attach->stream);
        if (stream == NULL)
            error = DJ_E_LIMIT;
    }
    if (error != DJ_OK) {
        char why[128];
        snprintf(why, sizeof why, "ATTACH of session %" PRIu64 ": %s", attach->session, dj_error_text(error));
        worker_links_close(worker, link->link, error, why);
        return;
    }
    if (stream->link != 0) {    // the client made a new link before the old one was seen to be gone
        uint64_t old = stream->link;
        worker_links_down(worker, old);
        actor_link_close(worker->self, old);
    }
    stream->link = link->link;
    link->stream = stream;
    struct wire_attached attached = {.incarnation = worker->incarnation,
                                     .generation = worker->generation,
                                     .last_counter = stream->last.counter,
                                     .last_part = stream->last.part};
    worker_send(worker, link->link, WIRE_ATTACHED, wire_attached_encode(&attached));
    worker_stream_pump(worker, stream);
}

static bool has_link(const struct session *session)
{
    for (const struct list *node = session->streams.next; node != &session->streams; node = node->next) {
        if (list_entry(node, struct stream, list)->link != 0)
            return true;
    }
    return false;
}

void worker_sessions_sweep(struct worker *worker)
{
    uint64_t now = actor_now_ns(worker->self);
    uint32_t cursor = 0;
    struct session *session;
    while ((session = map_next(worker->sessions, &cursor, NULL)) != NULL) {
        if (has_link(session)) {
            session->away_since_ns = now;
        } else if (now - session->away_since_ns > worker->config.grace_ns) {
            worker_session_drop(worker, session);
            cursor = 0;
            continue;
        }
        list_each (node, &session->streams) {
            struct stream *stream = list_entry(node, struct stream, list);
            if (stream->link == 0 && now - stream->away_since_ns > worker->config.grace_ns)
                worker_stream_drop(worker, stream);
        }
    }
}

// Ends ---------------------------------------------------------------------------------------------------------------

void worker_session_drop(struct worker *worker, struct session *session)
{
    map_take(worker->sessions, map_key(session->id));
    session->is_gone = true;
    list_push(&worker->gone, &session->gone);
    worker_protect_drop(worker, session);
    list_each (node, &session->streams)
        worker_stream_drop(worker, list_entry(node, struct stream, list));
    // What is in flight made its values when it was prepared: they go now, their memory when it is done.
    uint32_t values = exec_session_drop(worker->exec, session->id);
    log_write(LOG_INFO, "worker", "session over session=%" PRIu64 " values=%u", session->id, values);
    worker_session_free_if_done(worker, session);
}

void worker_session_free_if_done(struct worker *worker, struct session *session)
{
    (void)worker;
    if (!session->is_gone || session->in_flight > 0)
        return;
    list_remove(&session->gone);
    free(session);
}

static void session_free(struct worker *worker, struct session *session)
{
    worker_protect_drop(worker, session);
    session->is_gone = true;
    list_each (node, &session->streams) {
        struct stream *stream = list_entry(node, struct stream, list);
        worker_stream_drop(worker, stream);
    }
    list_remove(&session->gone);
    free(session);
}

// At the end of the process. What is in flight is freed after this, and must not look at its stream.
void worker_sessions_free(struct worker *worker)
{
    uint32_t cursor = 0;
    for (struct session *session; worker->sessions != NULL && (session = map_next(worker->sessions, &cursor, NULL)) != NULL;)
        session_free(worker, session);
    if (worker->gone.next == NULL)
        return;
    list_each (node, &worker->gone)
        session_free(worker, list_entry(node, struct session, gone));
    list_each (stream, &worker->gone_streams) {
        struct stream *gone = list_entry(stream, struct stream, list);
        gone->in_flight = 0;
        worker_stream_free_if_done(worker, gone);
    }
}

void worker_pump(struct worker *worker)
{
    uint32_t cursor = 0;
    struct session *session;
    while ((session = map_next(worker->sessions, &cursor, NULL)) != NULL)
        worker_session_pump(worker, session);
}

void worker_session_pump(struct worker *worker, struct session *session)
{
    list_each (node, &session->streams) {
        struct stream *stream = list_entry(node, struct stream, list);
        if (!list_is_empty(&stream->queue))
            worker_stream_pump(worker, stream);
    }
}
