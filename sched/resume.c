// Resume: how a session is opened: a new one, one whose client comes back on a new link, or one that is taken over by name.
//
//   SETTLING ──inventories──► COMMITTING ──durable──► FENCING ──every worker's ADMITTED──► granted
//
// A new session is durable before its client hears of it. A named one of the same tenant gets its next epoch: durable first, then told to
// every worker that holds something of it, and awaited: a worker confirms when nothing of the old epoch is on its device any more and its
// records were sent. So what the new client reads (JOURNAL_GET) is all there is. A worker's death counts as its answer.
//
// Settled: after a restart the head knows who joined its last life and waits for their inventories, or one lease. Before that it plans no
// recovery and lets nobody take over.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/log.h"
#include "core/base/planted.h"
#include "sched/state.h"

enum { SESSION_NO_DEVICE = -2 };
#define FENCING_NS ((uint64_t)30000000000)

static struct hash128 name_key(const char *tenant, const char *name)
{
    uint8_t key[RECORD_KEY_MAX];
    struct hash128 hash = {0};

    record_key_tag(tenant, name, key);
    memcpy(&hash, key, sizeof hash);
    return hash;
}

uint64_t head_wall_ns(const struct head *head)
{
    return (uint64_t)((int64_t)actor_now_ns(head->self) + head->config.wall_offset_ns);
}

// Its record, as it is now. The ticket is answered to session_stored.
void session_remember(struct head *head, const struct head_session *session, bool is_over)
{
    struct record record = {.kind = RECORD_SESSION};
    struct record_session *to = &record.session;

    to->session = session->id;
    to->epoch = session->epoch;
    to->recovery = session->recovery;
    to->allows_close = session->allows_close;
    to->is_over = is_over;
    to->replay_limit_ns = session->replay_limit_ns;
    to->watermark = session->watermark;
    to->opened_ns = session->opened_ns;
    to->seen_ns = session->seen_ns;
    snprintf(to->client, sizeof to->client, "%s", session->name);
    snprintf(to->tenant, sizeof to->tenant, "%s", session->tenant);
    for (uint32_t i = 0; i < session->grants; i++)
        if (session->grant[i].worker != NULL)
            snprintf(to->worker, sizeof to->worker, "%s", session->grant[i].worker->name);
    struct head_ticket *ticket = head_commit_record(head, &record, STORE_SESSION, TICKET_SESSION);
    if (ticket != NULL) {
        ticket->number = session->id;
        ticket->last = session->epoch;
    }
}

static struct head_session *session_make(struct head *head, uint64_t id, const char *tenant, const char *name)
{
    struct head_session *session = calloc(1, sizeof *session);

    if (session == NULL || map_put(head->sessions, map_key(id), session) != DJ_OK) {
        free(session);
        return NULL;
    }
    session->id = id;
    session->epoch = 1;
    snprintf(session->tenant, sizeof session->tenant, "%.63s", tenant);
    snprintf(session->name, sizeof session->name, "%.63s", name);
    session->opened_ns = session->seen_ns = head_wall_ns(head);
    if (session->name[0] != '\0' && map_put(head->names, name_key(session->tenant, session->name), session) != DJ_OK) {
        map_take(head->sessions, map_key(id));
        free(session);
        return NULL;
    }
    return session;
}

void session_unname(struct head *head, const struct head_session *session)
{
    struct hash128 key = name_key(session->tenant, session->name);
    if (session->name[0] != '\0' && map_get(head->names, key) == session)
        map_take(head->names, key);
}

void session_restore(struct head *head, const struct record_session *record)
{
    head->sessions_stored++;
    if (record->is_over) {
        erase_session(head, record->session);
        return;
    }
    if (map_get(head->sessions, map_key(record->session)) != NULL)
        return;
    struct head_session *session = session_make(head, record->session, record->tenant, record->client);
    if (session == NULL) {
        log_write(LOG_WARN, "head", "no room for a stored session");
        head->is_partial = true;
        return;
    }
    session->epoch = record->epoch;
    session->recovery = record->recovery;
    session->allows_close = record->allows_close;
    session->replay_limit_ns = record->replay_limit_ns;
    session->watermark = record->watermark;
    session->opened_ns = record->opened_ns;
    session->seen_ns = record->seen_ns;
    session->is_stored = true;
    session->away_since_ns = actor_now_ns(head->self);
    if (record->session >> 32 == head->generation && (uint32_t)record->session > head->next_session)
        head->next_session = (uint32_t)record->session;
}

// Opening -------------------------------------------------------------------------------------------------------------------------

static void take_options(struct head_session *session, const struct wire_session_open *open)
{
    session->recovery = open->recovery;
    session->replay_limit_ns = open->replay_limit_ns;
    session->allows_close = open->allows_close;
}

static void grant_opened(struct head *head, struct head_session *session)
{
    struct wire_grant_ask ask = {
        .request = session->opening.request, .session = session->id, .device_index = session->opening.device_index};

    session->opening.stage = OPENING_NONE;
    session->told_epoch = session->epoch;
    if (ask.device_index != SESSION_NO_DEVICE) {
        session_grant(head, session, &ask, true);
        return;
    }
    struct wire_session_grant message = {.request = ask.request,
                                         .session = session->id,
                                         .epoch = session->epoch,
                                         .generation = head->generation,
                                         .pool_devices = head->devices,
                                         .journalled = session->opening.journalled};
    head_send(head, session->link, WIRE_SESSION_GRANT, wire_session_grant_encode(&message));
}

static void begin_commit(struct head *head, struct head_session *session)
{
    session->opening.stage = OPENING_COMMITTING;
    session->seen_ns = head_wall_ns(head);
    session_remember(head, session, false);
}

static void begin_fencing(struct head *head, struct head_session *session)
{
    session->opening.stage = OPENING_FENCING;
    session->opening.since_ns = actor_now_ns(head->self);
    for (uint32_t i = 0; i < session->grants; i++)
        if (session->grant[i].worker != NULL && session->grant[i].admitted_epoch != session->epoch)
            session_admit(head, session, &session->grant[i]);
    opening_check(head, session);
}

static void fail_opening(struct head *head, struct head_session *session, enum dj_error error, const char *text)
{
    struct head_link *link = map_get(head->links, map_key(session->link));

    head_reply_failed(head, session->link, session->opening.request, error, "%s", text);
    if (link != NULL)
        link->session = NULL;
    session_away(head, session);
}

void opening_check(struct head *head, struct head_session *session)
{
    if (session->opening.stage == OPENING_SETTLING && head->is_settled)
        begin_commit(head, session);
    if (session->opening.stage != OPENING_FENCING)
        return;
    for (uint32_t i = 0; i < session->grants; i++) {
        const struct head_grant *grant = &session->grant[i];
        if (grant->worker == NULL || grant->admitted_epoch == session->epoch)
            continue;
        if (actor_now_ns(head->self) - session->opening.since_ns > FENCING_NS)
            fail_opening(head, session, DJ_E_TIMEOUT,
                         "a worker has not finished the session's earlier work within 30 s; try again, or stop that worker");
        return;
    }
    session->opening.journalled = session->records;
    grant_opened(head, session);
}

void session_stored(struct head *head, const struct head_ticket *ticket, enum dj_error error)
{
    struct head_session *session = map_get(head->sessions, map_key(ticket->number));

    if (error != DJ_OK)
        log_write(LOG_WARN, "head", "the record of a session cannot be written: %s", dj_error_text(error));
    if (session == NULL || session->epoch != ticket->last || session->opening.stage != OPENING_COMMITTING)
        return;
    if (error != DJ_OK) {
        fail_opening(head, session, error, "the head cannot write the session's record");
        return;
    }
    if (session->opening.is_takeover)
        begin_fencing(head, session);
    else
        grant_opened(head, session);
}

static void opening_set(struct head *head, struct head_link *link, struct head_session *session,
                        const struct wire_session_open *open)
{
    session->link = link->link;
    link->session = session;
    session->opening.request = open->request;
    session->opening.device_index = open->device_index;
    session->opening.since_ns = actor_now_ns(head->self);
    session->opening.journalled = 0;
    session->opening.is_takeover = false;
}

static void open_new(struct head *head, struct head_link *link, const struct wire_session_open *open)
{
    const char *tenant = open->tenant[0] != '\0' ? open->tenant : "default";
    struct head_session *session = session_make(head, head->generation << 32 | (head->next_session + 1), tenant, open->name);

    if (session == NULL) {
        head_reply_failed(head, link->link, open->request, DJ_E_LIMIT, "this head serves at most %d sessions", HEAD_SESSIONS_MAX);
        return;
    }
    head->next_session++;
    head->sessions_stored++;
    take_options(session, open);
    opening_set(head, link, session, open);
    begin_commit(head, session);
}

// Another client took the session over: the one before hears so, and its link is closed.
static void fence_client(struct head *head, struct head_session *session)
{
    struct head_link *old = session->link == 0 ? NULL : map_get(head->links, map_key(session->link));

    if (old == NULL)
        return;
    old->session = NULL;
    head_reply_failed(head, old->link, 0, DJ_E_EPOCH_FENCED, "another client has taken over the session \"%s\"", session->name);
    head_close(head, old->link);
    session->link = 0;
}

static void take_over(struct head *head, struct head_link *link, struct head_session *session,
                      const struct wire_session_open *open)
{
    if (session->epoch == EPOCHS_MAX) {
        head_reply_failed(head, link->link, open->request, DJ_E_LIMIT, "the session \"%s\" was taken over too often", open->name);
        return;
    }
    fence_client(head, session);
    session_away(head, session);
    session->epoch += !(PLANTED(SKIP_FENCE) && session->epoch > 2);
    session->is_retired = false;
    take_options(session, open);
    opening_set(head, link, session, open);
    session->opening.is_takeover = true;
    session->opening.stage = OPENING_SETTLING;
    log_write(LOG_INFO, "head", "a session is taken over name=%s epoch=%u", session->name, session->epoch);
    opening_check(head, session);
}

// A client whose link was lost goes on with its session. Its workers hold its values all the while.
static void come_back(struct head *head, struct head_link *link, const struct wire_session_open *open)
{
    struct head_session *session = map_get(head->sessions, map_key(open->session));

    if (session == NULL || open->epoch > session->epoch) {
        head_reply_failed(head, link->link, open->request, DJ_E_SESSION_UNKNOWN, "session %llu is over",
                          (unsigned long long)open->session);
        return;
    }
    if (open->epoch < session->epoch) {
        head_reply_failed(head, link->link, open->request, DJ_E_EPOCH_FENCED, "another client has taken over the session \"%s\"",
                          session->name);
        head_close(head, link->link);
        return;
    }
    struct head_link *old = session->link == 0 ? NULL : map_get(head->links, map_key(session->link));
    if (old != NULL && old != link) {
        recoveries_link_down(head, old->link);
        old->session = NULL;
    }
    session->is_retired = false;
    session->opening.stage = OPENING_NONE;
    opening_set(head, link, session, open);
    grant_opened(head, session);
}

void session_open(struct head *head, struct head_link *link, const struct wire_session_open *open)
{
    const char *tenant = open->tenant[0] != '\0' ? open->tenant : "default";
    struct head_session *named = open->name[0] == '\0' ? NULL : map_get(head->names, name_key(tenant, open->name));

    if (link->session != NULL)
        head_reply_failed(head, link->link, open->request, DJ_E_UNEXPECTED, "this connection has a session already");
    else if (open->recovery >= LINEAGE_POLICIES)
        head_reply_failed(head, link->link, open->request, DJ_E_INVALID, "there is no recovery policy %u", open->recovery);
    else if (open->session != 0)
        come_back(head, link, open);
    else if (head->is_full)
        head_reply_failed(head, link->link, open->request, DJ_E_STORE_FULL,
                          "the head's disk is full, and it takes no new work until its journal can be written");
    else if (named != NULL)
        take_over(head, link, named, open);
    else
        open_new(head, link, open);
}

// Settling ------------------------------------------------------------------------------------------------------------------------

void settle_expect(struct head *head, const struct record_worker *record)
{
    if (record->generation == 0)
        return;    // it left, or was fenced
    if (head->expecteds == head->expected_capacity) {
        uint32_t capacity = head->expected_capacity == 0 ? 8 : head->expected_capacity * 2;
        struct expected_worker *grown = realloc(head->expected, capacity * sizeof *grown);
        if (grown == NULL)
            return;
        head->expected = grown;
        head->expected_capacity = capacity;
    }
    struct expected_worker *expected = &head->expected[head->expecteds++];
    *expected = (struct expected_worker){0};
    snprintf(expected->name, sizeof expected->name, "%.63s", record->name);
}

static void settle(struct head *head)
{
    uint32_t cursor = 0;
    struct head_session *session;

    for (uint32_t i = 0; i < head->expecteds; i++)
        if (!head->expected[i].is_here) {
            log_write(LOG_WARN, "head", "a worker of the head's last life did not come back name=%s", head->expected[i].name);
            worker_unremember(head, head->expected[i].name);
        }
    head->is_settled = true;
    while ((session = map_next(head->sessions, &cursor, NULL)) != NULL)
        opening_check(head, session);
    recoveries_check(head);
}

void settle_worker(struct head *head, const char *name)
{
    bool is_complete = true;

    for (uint32_t i = 0; i < head->expecteds; i++) {
        if (strcmp(head->expected[i].name, name) == 0)
            head->expected[i].is_here = true;
        is_complete = is_complete && head->expected[i].is_here;
    }
    if (!head->is_settled && is_complete)
        settle(head);
}

void settle_check(struct head *head, uint64_t now_ns)
{
    if (head->is_settled)
        return;
    if (now_ns - head->serving_since_ns > HEAD_LEASE_NS)
        settle(head);
    else
        settle_worker(head, "");
}

void openings_check(struct head *head)
{
    uint32_t cursor = 0;
    struct head_session *session;

    while ((session = map_next(head->sessions, &cursor, NULL)) != NULL)
        if (session->opening.stage == OPENING_FENCING)
            opening_check(head, session);
}
