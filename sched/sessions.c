// Sessions: a client's conversation and its grants. A grant is told to the worker first (ADMIT) and to the client only when the worker has
// confirmed, so that a client never arrives unannounced.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/log.h"
#include "sched/state.h"

enum { SESSION_NO_DEVICE = -2 };

// Grants need only be unguessable to other users of the same pool; the token is the secret that guards the pool. Derived from the token, the
// head's incarnation and the session, by XXH3 with a secret state.
static struct hash128 make_secret(const struct head *head, uint64_t session, uint32_t epoch, uint32_t worker)
{
    struct {
        struct hash128 token;
        uint64_t incarnation, generation, session;
        uint32_t epoch, worker;
    } material = {head->config.token, head->config.incarnation, head->generation, session, epoch, worker};
    return hash128(&material, sizeof material);
}

static void remember(struct head *head, const struct head_session *session)
{
    struct record record = {.kind = RECORD_SESSION};
    uint64_t wall_ns = (uint64_t)((int64_t)actor_now_ns(head->self) + head->config.wall_offset_ns);

    record.session.session = session->id;
    record.session.epoch = session->epoch;
    record.session.watermark = session->watermark;
    record.session.opened_ns = record.session.seen_ns = wall_ns;
    snprintf(record.session.client, sizeof record.session.client, "%s", session->name);
    snprintf(record.session.tenant, sizeof record.session.tenant, "%s", session->tenant);
    for (uint32_t i = 0; i < session->grants; i++)
        if (session->grant[i].worker != NULL)
            snprintf(record.session.worker, sizeof record.session.worker, "%s", session->grant[i].worker->name);
    head_side_commit(head, &record, STORE_SESSION);
}

static void send_grant(struct head *head, const struct head_session *session, const struct head_grant *grant)
{
    const struct head_worker *worker = grant->worker;
    const struct wire_device *device = &worker->device[grant->device_index - worker->first_device];
    struct wire_grant wire = {.device_index = grant->device_index,
                              .worker = worker->id,
                              .incarnation = worker->incarnation,
                              .secret = grant->secret,
                              .ops = device->ops,
                              .ops_bytes = device->ops_bytes};
    struct wire_session_grant message = {.request = grant->request,
                                         .session = session->id,
                                         .epoch = session->epoch,
                                         .generation = head->generation,
                                         .pool_devices = head->devices,
                                         .grants = &wire,
                                         .grants_count = 1};

    snprintf(wire.name, sizeof wire.name, "%s", worker->name);
    snprintf(wire.address_unix, sizeof wire.address_unix, "%s", worker->address_unix);
    snprintf(wire.address_tcp, sizeof wire.address_tcp, "%s", worker->address_tcp);
    snprintf(wire.host, sizeof wire.host, "%s", worker->host);
    snprintf(wire.device_name, sizeof wire.device_name, "%s", device->name);
    snprintf(wire.numerics, sizeof wire.numerics, "%s", device->numerics);
    head_send(head, session->link, WIRE_SESSION_GRANT, wire_session_grant_encode(&message));
}

static void grant_device(struct head *head, struct head_session *session, uint64_t request, int64_t device_index)
{
    char reason[REASON_MAX];
    enum dj_error error = DJ_OK;
    uint32_t device = 0, place = 0;
    struct head_worker *worker = placement_choose(head, session, device_index, &device, &error, reason);

    if (worker == NULL) {
        head_reply_failed(head, session->link, request, error, "%s", reason);
        return;
    }
    while (place < session->grants && session->grant[place].worker != NULL && session->grant[place].device_index != device)
        place++;
    if (place == GRANTS_PER_SESSION_MAX) {
        head_reply_failed(head, session->link, request, DJ_E_LIMIT, "a session may use at most %d devices",
                          GRANTS_PER_SESSION_MAX);
        return;
    }
    struct head_grant *grant = &session->grant[place];
    bool is_new = place == session->grants || grant->worker == NULL;
    if (place == session->grants)
        session->grants++;
    if (is_new) {
        *grant = (struct head_grant){.worker = worker, .incarnation = worker->incarnation, .device_index = device};
        grant->secret = make_secret(head, session->id, session->epoch, worker->id);
        worker->sessions++;
    }
    grant->request = request;
    snprintf(grant->reason, sizeof grant->reason, "%s", reason);
    struct wire_admit admit = {.session = session->id, .epoch = session->epoch, .secret = grant->secret};
    snprintf(admit.tenant, sizeof admit.tenant, "%s", session->tenant);
    head_send(head, worker->link, WIRE_ADMIT, wire_admit_encode(&admit));
}

static struct head_session *session_make(struct head *head, uint64_t id, uint32_t epoch, const struct wire_session_open *open)
{
    struct head_session *session = calloc(1, sizeof *session);

    if (session == NULL || map_put(head->sessions, map_key(id), session) != DJ_OK) {
        free(session);
        return NULL;
    }
    session->id = id;
    session->epoch = epoch;
    snprintf(session->tenant, sizeof session->tenant, "%s", open->tenant[0] != '\0' ? open->tenant : "default");
    snprintf(session->name, sizeof session->name, "%s", open->name);
    return session;
}

// A client whose link was lost goes on with its session: one that is known, or one that an earlier life of the head gave out. Its
// workers hold its values all the while.
static struct head_session *session_resume(struct head *head, const struct head_link *link, const struct wire_session_open *open)
{
    struct head_session *session = map_get(head->sessions, map_key(open->session));

    if (session == NULL && open->session >> 32 < head->generation && open->session >> 32 != 0)
        return session_make(head, open->session, open->epoch, open);
    if (session == NULL || session->epoch != open->epoch)
        return NULL;
    struct head_link *old = session->link == 0 ? NULL : map_get(head->links, map_key(session->link));
    if (old != NULL && old != link)
        old->session = NULL;
    return session;
}

void session_open(struct head *head, struct head_link *link, const struct wire_session_open *open)
{
    if (link->session != NULL) {
        head_reply_failed(head, link->link, open->request, DJ_E_UNEXPECTED, "this connection has a session already");
        return;
    }
    bool is_resumed = open->session != 0;
    struct head_session *session = is_resumed ? session_resume(head, link, open)
                                              : session_make(head, head->generation << 32 | (head->next_session + 1), 1, open);
    if (session == NULL && is_resumed) {
        head_reply_failed(head, link->link, open->request, DJ_E_SESSION_UNKNOWN, "session %llu is over",
                          (unsigned long long)open->session);
        return;
    }
    if (session == NULL) {
        head_reply_failed(head, link->link, open->request, DJ_E_LIMIT, "this head serves at most %d sessions", HEAD_SESSIONS_MAX);
        return;
    }
    head->next_session += !is_resumed;
    session->link = link->link;
    link->session = session;
    if (open->device_index == SESSION_NO_DEVICE) {
        struct wire_session_grant message = {.request = open->request,
                                             .session = session->id,
                                             .epoch = session->epoch,
                                             .generation = head->generation,
                                             .pool_devices = head->devices};
        head_send(head, link->link, WIRE_SESSION_GRANT, wire_session_grant_encode(&message));
    } else {
        grant_device(head, session, open->request, open->device_index);
    }
    remember(head, session);
}

void session_grant_ask(struct head *head, struct head_link *link, const struct wire_grant_ask *ask)
{
    struct head_session *session = link->session;

    if (session == NULL || session->id != ask->session || session->epoch != ask->epoch) {
        head_reply_failed(head, link->link, ask->request, DJ_E_SESSION_UNKNOWN, "this connection has no session %llu",
                          (unsigned long long)ask->session);
        return;
    }
    grant_device(head, session, ask->request, ask->device_index);
}

void session_admitted(struct head *head, struct head_worker *worker, const struct wire_admitted *admitted)
{
    struct head_session *session = map_get(head->sessions, map_key(admitted->session));

    if (session == NULL || session->epoch != admitted->epoch)
        return;
    for (uint32_t i = 0; i < session->grants; i++) {
        struct head_grant *grant = &session->grant[i];
        if (grant->worker != worker || grant->request == 0)
            continue;
        if (session->link != 0)
            send_grant(head, session, grant);
        grant->request = 0;
    }
}

void session_away(struct head *head, struct head_session *session)
{
    session->link = 0;
    session->away_since_ns = actor_now_ns(head->self);
}

void session_close(struct head *head, struct head_session *session)
{
    struct wire_dismiss dismiss = {.session = session->id, .epoch = session->epoch};
    struct head_link *link = session->link == 0 ? NULL : map_get(head->links, map_key(session->link));

    for (uint32_t i = 0; i < session->grants; i++) {
        struct head_worker *worker = session->grant[i].worker;
        if (worker == NULL)
            continue;
        worker->sessions--;
        head_send(head, worker->link, WIRE_DISMISS, wire_dismiss_encode(&dismiss));
    }
    remember(head, session);
    if (link != NULL)
        link->session = NULL;
    map_take(head->sessions, map_key(session->id));
    free(session);
}

void session_worker_gone(struct head *head, struct head_worker *worker)
{
    uint32_t cursor = 0;
    struct head_session *session;

    while ((session = map_next(head->sessions, &cursor, NULL)) != NULL) {
        for (uint32_t i = 0; i < session->grants; i++) {
            struct head_grant *grant = &session->grant[i];
            if (grant->worker != worker)
                continue;
            if (grant->request != 0 && session->link != 0)
                head_reply_failed(head, session->link, grant->request, DJ_E_WORKER_LOST,
                                  "worker %s died before it could take the session", worker->name);
            grant->worker = NULL;
            grant->request = 0;
        }
    }
}

void sessions_check(struct head *head, uint64_t now_ns)
{
    // The map must not change while it is visited: one session a check is closed, which is far faster than sessions leave.
    uint32_t cursor = 0;
    struct head_session *session;

    while ((session = map_next(head->sessions, &cursor, NULL)) != NULL)
        if (session->link == 0 && now_ns - session->away_since_ns > HEAD_GRACE_NS) {
            session_close(head, session);
            return;
        }
}
