// Sessions: who may submit here, what they are owed. A session outlives its link by a grace period; answers outlive their sending until
// the client confirms them, so that what is asked twice is answered twice and run once (design, rule 15).

#include "core/base/log.h"
#include "gpu_worker/actors/state.h"

#include <inttypes.h>
#include <stdlib.h>

static void answer_free(struct session *session, struct kept_answer *answer)
{
    list_remove(&answer->list);
    session->kept_count--;
    session->kept_bytes -= answer->bulk_bytes + (answer->body == NULL ? 0 : answer->body->bytes);
    blob_drop(answer->body);
    blob_drop(answer->bulk);
    free(answer);
}

static void session_free(struct session *session)
{
    list_each (node, &session->stream)
        worker_work_free(list_entry(node, struct work, stream));
    list_each (node, &session->kept)
        answer_free(session, list_entry(node, struct kept_answer, list));
    list_remove(&session->gone);
    free(session);
}

struct session *worker_session_admit(struct worker *worker, uint64_t id, uint32_t epoch, struct hash128 secret)
{
    struct session *session = map_get(worker->sessions, map_key(id));
    if (session != NULL && session->epoch == epoch) {
        session->secret = secret;
        return session;
    }
    if (session != NULL && session->epoch > epoch)
        return NULL;
    if (session != NULL)
        worker_session_drop(worker, session);    // a newer epoch speaks for it
    session = calloc(1, sizeof *session);
    if (session == NULL)
        return NULL;
    *session = (struct session){.id = id, .epoch = epoch, .secret = secret, .away_since_ns = actor_now_ns(worker->self)};
    list_init(&session->stream);
    list_init(&session->kept);
    list_init(&session->gone);
    if (map_put(worker->sessions, map_key(id), session) == DJ_OK)
        return session;
    log_write(LOG_WARN, "worker", "no room for another session session=%" PRIu64, id);
    free(session);
    return NULL;
}

void worker_session_attach(struct worker *worker, struct worker_link *link, const struct wire_attach *attach)
{
    struct session *session = map_get(worker->sessions, map_key(attach->session));
    uint64_t id = link->link;
    if (session == NULL && worker->config.head[0] == '\0')
        session = worker_session_admit(worker, attach->session, attach->epoch, attach->secret);
    enum dj_error error = DJ_OK;
    if (session == NULL || link->session != NULL)
        error = session == NULL ? DJ_E_SESSION_UNKNOWN : DJ_E_UNEXPECTED;
    else if (session->epoch != attach->epoch)
        error = session->epoch > attach->epoch ? DJ_E_EPOCH_FENCED : DJ_E_SESSION_UNKNOWN;
    else if (!hash128_equal(session->secret, attach->secret))
        error = DJ_E_GRANT;
    if (error != DJ_OK) {
        worker_fail(worker, id, 0, error, "ATTACH of session %" PRIu64 ": %s", attach->session, dj_error_text(error));
        worker_links_down(worker, id);
        actor_link_close(worker->self, id);
        return;
    }
    if (session->link != 0) {    // the client made a new link before the old one was seen to be gone
        uint64_t old = session->link;
        worker_links_down(worker, old);
        actor_link_close(worker->self, old);
    }
    session->link = id;
    link->session = session;
    struct wire_attached attached = {
        .incarnation = worker->incarnation, .generation = worker->generation, .last_counter = session->last_counter};
    worker_send(worker, id, WIRE_ATTACHED, wire_attached_encode(&attached));
    // Leaves that were on their way over the old link are asked for again.
    list_each (node, &session->stream)
        list_entry(node, struct work, stream)->asked = 0;
    worker_session_pump(worker, session);
}

void worker_session_away(struct worker *worker, struct session *session)
{
    session->link = 0;
    session->away_since_ns = actor_now_ns(worker->self);
}

void worker_session_drop(struct worker *worker, struct session *session)
{
    struct worker_link *link = session->link == 0 ? NULL : map_get(worker->links, map_key(session->link));
    if (link != NULL)
        link->session = NULL;
    map_take(worker->sessions, map_key(session->id));
    session->link = 0;
    session->is_gone = true;
    list_push(&worker->gone, &session->gone);
    list_each (node, &session->stream) {
        struct work *work = list_entry(node, struct work, stream);
        worker_import_forget(worker, work);
        worker_work_free(work);
    }
    session->waiting = 0;
    uint32_t values = exec_session_drop(worker->exec, session->id);
    log_write(LOG_INFO, "worker", "session over session=%" PRIu64 " values=%u", session->id, values);
    worker_session_free_if_done(worker, session);
}

void worker_session_free_if_done(struct worker *worker, struct session *session)
{
    (void)worker;
    if (!session->is_gone || session->in_flight > 0)
        return;
    // What was prepared before the end may have become values since.
    exec_session_drop(worker->exec, session->id);
    session_free(session);
}

void worker_sessions_sweep(struct worker *worker)
{
    uint64_t now = actor_now_ns(worker->self);
    uint32_t cursor = 0;
    struct session *session;
    while ((session = map_next(worker->sessions, &cursor, NULL)) != NULL) {
        if (session->link != 0 || now - session->away_since_ns <= worker->config.grace_ns)
            continue;
        worker_session_drop(worker, session);
        cursor = 0;
    }
}

void worker_sessions_free(struct worker *worker)
{
    uint32_t cursor = 0;
    for (struct session *session; worker->sessions != NULL && (session = map_next(worker->sessions, &cursor, NULL)) != NULL;)
        session_free(session);
    if (worker->gone.next == NULL)
        return;
    list_each (node, &worker->gone)
        session_free(list_entry(node, struct session, gone));
}

// Answers ------------------------------------------------------------------------------------------------------------

struct kept_answer *worker_session_expect(struct session *session, uint64_t counter, uint64_t content)
{
    struct kept_answer *answer = calloc(1, sizeof *answer);
    if (answer == NULL)
        return NULL;
    answer->counter = counter;
    answer->content = content;
    list_push(&session->kept, &answer->list);
    session->kept_count++;
    return answer;
}

static void send_answer(struct worker *worker, struct session *session, struct kept_answer *answer)
{
    if (session->link == 0 || !worker_may_answer(worker))
        return;
    answer->is_sent = true;
    struct blob *bulk = answer->bulk == NULL ? NULL : blob_hold(answer->bulk);
    actor_send(worker->self, session->link, answer->message, blob_hold(answer->body), bulk, 0, answer->bulk_bytes, 0);
    worker->load.bytes_out += answer->body->bytes + answer->bulk_bytes;
}

void worker_session_keep(struct worker *worker, struct session *session, struct kept_answer *answer, uint16_t message,
                         struct blob *body, struct blob *bulk, uint64_t bulk_bytes)
{
    if (body == NULL) {
        log_write(LOG_ERROR, "worker", "cannot encode an answer counter=%" PRIu64, answer->counter);
        blob_drop(bulk);
        return;
    }
    answer->message = message;
    answer->body = body;
    answer->bulk = bulk;
    answer->bulk_bytes = bulk_bytes;
    session->kept_bytes += bulk_bytes + body->bytes;
    send_answer(worker, session, answer);
    // Over the bound the oldest that were sent go: their client had every chance.
    list_each (node, &session->kept) {
        struct kept_answer *old = list_entry(node, struct kept_answer, list);
        if (session->kept_count <= WORKER_KEPT_MAX && session->kept_bytes <= WORKER_KEPT_BYTES_MAX)
            break;
        if (old->is_sent && old != answer)
            answer_free(session, old);
    }
}

void worker_session_confirm(struct session *session, uint64_t counter)
{
    list_each (node, &session->kept) {
        struct kept_answer *answer = list_entry(node, struct kept_answer, list);
        if (answer->counter > counter)
            break;
        if (answer->message != 0)
            answer_free(session, answer);
    }
}

void worker_session_repeat(struct worker *worker, struct session *session, uint64_t counter, uint64_t content, bool wants_values)
{
    list_each (node, &session->kept) {
        struct kept_answer *answer = list_entry(node, struct kept_answer, list);
        if (answer->counter != counter)
            continue;
        if (answer->content != content) {
            struct wire_execution_failed failed = {.counter = counter,
                                                   .incarnation = worker->incarnation,
                                                   .error = DJ_E_DUPLICATE_DIFFERS,
                                                   .node = -1,
                                                   .text = "this execution's number was used before for something else"};
            worker_send(worker, session->link, WIRE_EXECUTION_FAILED, wire_execution_failed_encode(&failed));
        } else if (answer->message != 0) {
            send_answer(worker, session, answer);
        }
        return;
    }
    if (wants_values) {
        struct wire_execution_failed failed = {
            .counter = counter,
            .incarnation = worker->incarnation,
            .error = DJ_E_STALE,
            .node = -1,
            .text = "this execution was answered, and the answer confirmed or given up, before"};
        worker_send(worker, session->link, WIRE_EXECUTION_FAILED, wire_execution_failed_encode(&failed));
        return;
    }
    struct wire_answer answer = {.counter = counter, .incarnation = worker->incarnation, .generation = worker->generation};
    worker_send(worker, session->link, WIRE_ANSWER, wire_answer_encode(&answer));
}

void worker_sessions_send_held(struct worker *worker)
{
    uint32_t cursor = 0;
    struct session *session;
    while ((session = map_next(worker->sessions, &cursor, NULL)) != NULL) {
        list_each (node, &session->kept) {
            struct kept_answer *answer = list_entry(node, struct kept_answer, list);
            if (answer->message != 0 && !answer->is_sent)
                send_answer(worker, session, answer);
        }
    }
}

void worker_pump(struct worker *worker)
{
    uint32_t cursor = 0;
    struct session *session;
    while ((session = map_next(worker->sessions, &cursor, NULL)) != NULL) {
        if (!list_is_empty(&session->stream))
            worker_session_pump(worker, session);
    }
}
