// Sessions: a client's conversation and its grants. A grant is told to the worker first (ADMIT) and to the client only when the worker has
// confirmed, so that a client never arrives unannounced. How a session is opened, resumed and taken over is in resume.c, how it ends in
// retire.c.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/log.h"
#include "core/base/planted.h"
#include "sched/state.h"

// Grants need only be unguessable to other users of the same pool; the token is the secret that guards the pool. Derived from the token,
// the head's incarnation and the session, by XXH3 with a secret state.
static struct hash128 make_secret(const struct head *head, uint64_t session, uint32_t epoch, uint32_t worker)
{
    struct {
        struct hash128 token;
        uint64_t incarnation, generation, session;
        uint32_t epoch, worker;
    } material = {head->config.token, head->config.incarnation, head->generation, session, epoch, worker};
    return hash128(&material, sizeof material);
}

// The worker with the most room besides the one whose values it is to keep.
static struct head_worker *choose_replica(struct head *head, const struct head_worker *of)
{
    struct head_worker *best = NULL;
    uint64_t best_bytes = 0;

    for (uint32_t i = 0; i < HEAD_WORKERS_MAX; i++) {
        struct head_worker *worker = head->worker[i];
        if (worker == NULL || worker == of || worker->is_draining)
            continue;
        uint64_t capacity = worker->load.memory_capacity_bytes != 0 ? worker->load.memory_capacity_bytes
                                                                    : worker->device[0].capacity_bytes;
        uint64_t room = capacity > worker->load.memory_used_bytes ? capacity - worker->load.memory_used_bytes : 0;
        if (best == NULL || room > best_bytes) {
            best = worker;
            best_bytes = room;
        }
    }
    return best;
}

void session_admit(struct head *head, struct head_session *session, struct head_grant *grant)
{
    struct wire_location location = {0};
    struct wire_admit admit = {.session = session->id,
                               .epoch = session->epoch,
                               .recovery = session->recovery,
                               .replay_limit_ns = session->replay_limit_ns,
                               .replicas = &location,
                               .flags = head->config.is_sync ? ADMIT_SYNC : 0};
    const struct head_worker *replica = session->recovery == LINEAGE_REPLICATE ? choose_replica(head, grant->worker) : NULL;

    grant->replica = replica == NULL ? 0 : replica->id;
    grant->secret = make_secret(head, session->id, session->epoch, grant->worker->id);
    admit.secret = grant->secret;
    snprintf(admit.tenant, sizeof admit.tenant, "%s", session->tenant);
    if (replica != NULL) {
        worker_location(replica, &location);
        admit.replicas_count = 1;
    }
    head_send(head, grant->worker->link, WIRE_ADMIT, wire_admit_encode(&admit));
}

static void send_grant(struct head *head, const struct head_session *session, const struct head_grant *grant, uint64_t request)
{
    const struct head_worker *worker = grant->worker;
    const struct wire_device *device = &worker->device[grant->device_index - worker->first_device];
    struct wire_grant wire = {.device_index = grant->device_index,
                              .worker = worker->id,
                              .incarnation = worker->incarnation,
                              .secret = grant->secret,
                              .ops = device->ops,
                              .ops_bytes = device->ops_bytes};
    struct wire_session_grant message = {.request = request,
                                         .session = session->id,
                                         .epoch = session->epoch,
                                         .generation = head->generation,
                                         .pool_devices = head->devices,
                                         .grants = &wire,
                                         .grants_count = 1,
                                         .journalled = grant->is_opening ? session->opening.journalled : 0};

    snprintf(wire.name, sizeof wire.name, "%s", worker->name);
    snprintf(wire.address_unix, sizeof wire.address_unix, "%s", worker->address_unix);
    snprintf(wire.address_tcp, sizeof wire.address_tcp, "%s", worker->address_tcp);
    snprintf(wire.host, sizeof wire.host, "%s", worker->host);
    snprintf(wire.device_name, sizeof wire.device_name, "%s", device->name);
    snprintf(wire.numerics, sizeof wire.numerics, "%s", device->numerics);
    head_send(head, session->link, WIRE_SESSION_GRANT, wire_session_grant_encode(&message));
}

static bool has_grant(const struct head_session *session, const struct head_worker *worker)
{
    for (uint32_t i = 0; i < session->grants; i++)
        if (session->grant[i].worker == worker)
            return true;
    return false;
}

// The grant for a device: the one there is, also one of which only the worker is known, else a new one. NULL: there are too many.
static struct head_grant *take_grant(struct head_session *session, struct head_worker *worker, uint32_t device)
{
    struct head_grant *grant = NULL;

    for (uint32_t i = 0; i < session->grants && grant == NULL; i++)
        if (session->grant[i].worker == worker && (session->grant[i].device_index == device || session->grant[i].is_restored))
            grant = &session->grant[i];
    if (grant != NULL) {
        grant->device_index = device;
        grant->is_restored = false;
        return grant;
    }
    for (uint32_t i = 0; i < session->grants && grant == NULL; i++)
        if (session->grant[i].worker == NULL)
            grant = &session->grant[i];
    if (grant == NULL && session->grants < GRANTS_PER_SESSION_MAX)
        grant = &session->grant[session->grants++];
    if (grant == NULL)
        return NULL;
    worker->sessions += !has_grant(session, worker);
    *grant = (struct head_grant){.worker = worker, .incarnation = worker->incarnation, .device_index = device};
    return grant;
}

void session_grant(struct head *head, struct head_session *session, const struct wire_grant_ask *ask, bool is_opening)
{
    char reason[REASON_MAX];
    enum dj_error error = DJ_OK;
    uint32_t device = 0;
    struct head_worker *worker = placement_choose(head, session, ask, &device, &error, reason);

    if (worker == NULL) {
        head_reply_failed(head, session->link, ask->request, error, "%s", reason);
        return;
    }
    struct head_grant *grant = take_grant(session, worker, device);
    if (grant == NULL) {
        head_reply_failed(head, session->link, ask->request, DJ_E_LIMIT, "a session may use at most %d devices",
                          GRANTS_PER_SESSION_MAX);
        return;
    }
    if (grant->requests == GRANT_REQUESTS_MAX) {
        head_reply_failed(head, session->link, ask->request, DJ_E_BUSY, "the session has asked for this worker %d times already",
                          GRANT_REQUESTS_MAX);
        return;
    }
    grant->requests -= PLANTED(GRANT_ONCE) && grant->requests == 2;
    grant->request[grant->requests++] = ask->request;
    grant->is_opening |= is_opening;
    memcpy(grant->reason, reason, sizeof grant->reason);
    session_admit(head, session, grant);
}

void session_grant_ask(struct head *head, struct head_link *link, const struct wire_grant_ask *ask)
{
    struct head_session *session = link->session;

    if (session == NULL || session->id != ask->session || session->epoch != ask->epoch) {
        head_reply_failed(head, link->link, ask->request, DJ_E_SESSION_UNKNOWN, "this connection has no session %llu",
                          (unsigned long long)ask->session);
        return;
    }
    if (head->is_full) {
        head_reply_failed(head, link->link, ask->request, DJ_E_STORE_FULL,
                          "the head's disk is full, and it takes no new work until its journal can be written");
        return;
    }
    session_grant(head, session, ask, false);
}

void session_admitted(struct head *head, struct head_worker *worker, const struct wire_admitted *admitted)
{
    struct head_session *session = map_get(head->sessions, map_key(admitted->session));

    if (session == NULL || session->epoch != admitted->epoch)
        return;
    for (uint32_t i = 0; i < session->grants; i++) {
        struct head_grant *grant = &session->grant[i];
        if (grant->worker != worker)
            continue;
        grant->admitted_epoch = admitted->epoch;
        for (uint32_t k = 0; k < grant->requests && session->link != 0; k++)
            send_grant(head, session, grant, grant->request[k]);
        grant->requests = 0;
        grant->is_opening = false;
    }
    opening_check(head, session);
}

bool session_is_granted(const struct head_session *session, const struct head_worker *worker)
{
    return session->is_stored || has_grant(session, worker);
}

void session_is_held(struct head *head, struct head_session *session, struct head_worker *worker, uint32_t epoch)
{
    if (session->is_retired) {
        session_is_over_at(head, worker, session->id, session->epoch);
        return;
    }
    struct head_grant *grant = has_grant(session, worker) ? NULL : take_grant(session, worker, worker->first_device);
    if (grant == NULL)
        return;
    grant->is_restored = true;
    snprintf(grant->reason, sizeof grant->reason, "it holds something of the session");
    grant->admitted_epoch = epoch;
    if (epoch != session->epoch)
        session_admit(head, session, grant);
}

void session_was_run(struct head *head, struct head_session *session, struct head_worker *worker)
{
    if (session->is_stored && !session->is_retired && !has_grant(session, worker))
        session_is_held(head, session, worker, session->opening.stage == OPENING_NONE ? session->epoch : 0);
}

void session_is_over_at(struct head *head, const struct head_worker *worker, uint64_t session, uint32_t epoch)
{
    struct wire_dismiss dismiss = {.session = session, .epoch = epoch};
    head_send(head, worker->link, WIRE_DISMISS, wire_dismiss_encode(&dismiss));
}

void session_away(struct head *head, struct head_session *session)
{
    session->link = 0;
    session->away_since_ns = actor_now_ns(head->self);
    session->opening.stage = OPENING_NONE;
    for (uint32_t i = 0; i < session->grants; i++)
        session->grant[i].requests = 0;
}

static void fail_grant(struct head *head, const struct head_session *session, uint64_t request, const struct head_worker *worker)
{
    if (session->link != 0)
        head_reply_failed(head, session->link, request, DJ_E_WORKER_LOST, "worker %s died before it could take the session",
                          worker->name);
}

void session_worker_gone(struct head *head, struct head_worker *worker)
{
    uint32_t cursor = 0;
    struct head_session *session;

    while ((session = map_next(head->sessions, &cursor, NULL)) != NULL) {
        for (uint32_t i = 0; i < session->grants; i++) {
            struct head_grant *grant = &session->grant[i];
            if (grant->worker != NULL && grant->worker != worker && grant->replica == worker->id)
                session_admit(head, session, grant);    // with another worker for its replicas
            if (grant->worker != worker)
                continue;
            for (uint32_t k = 0; k < grant->requests; k++)
                fail_grant(head, session, grant->request[k], worker);
            grant->worker = NULL;
            grant->requests = 0;
        }
        opening_check(head, session);
    }
}

void session_worker_joined(struct head *head)
{
    uint32_t cursor = 0;
    struct head_session *session;

    while ((session = map_next(head->sessions, &cursor, NULL)) != NULL)
        for (uint32_t i = 0; session->recovery == LINEAGE_REPLICATE && i < session->grants; i++)
            if (session->grant[i].worker != NULL && session->grant[i].replica == 0)
                session_admit(head, session, &session->grant[i]);
}
