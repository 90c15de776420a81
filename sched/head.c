// Head: the root actor: starts from the store, routes messages and events to the files of this folder. The manual is sched.h.

#include "sched/sched.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/assert.h"
#include "core/base/log.h"
#include "sched/state.h"

enum { TIMER_CHECK = 1 };

// Messages -----------------------------------------------------------------------------------------------------------

static void refuse_link(struct head *head, struct head_link *link, enum dj_error error, const char *why)
{
    log_write(LOG_WARN, "head", "link refused: %s link=%llu", why, (unsigned long long)link->link);
    head_reply_failed(head, link->link, 0, error, "%s", why);
    head_close(head, link->link);
}

static void take_hello(struct head *head, struct head_link *link, const struct wire_hello *hello)
{
    char why[256];

    if (hello->version != WIRE_VERSION) {
        snprintf(
            why, sizeof why,
            "the head (djinn %s) speaks protocol version %d, the other side (djinn %s) version %u; use the same djinn on both sides",
            head->config.version, WIRE_VERSION, hello->build, hello->version);
        refuse_link(head, link, DJ_E_VERSION, why);
        return;
    }
    if (!hash128_is_zero(head->config.token) && !hash128_equal(hello->token, head->config.token)) {
        refuse_link(head, link, DJ_E_TOKEN,
                    "the token does not match the head's; set DJINN_TOKEN to the contents of the head's token file");
        return;
    }
    if (hello->role != ROLE_CLIENT && hello->role != ROLE_WORKER && hello->role != ROLE_ADMIN) {
        refuse_link(head, link, DJ_E_MALFORMED, "a head takes clients, workers and administrators only");
        return;
    }
    link->role = hello->role;
    struct wire_hello_ok ok = {
        .version = WIRE_VERSION, .role = ROLE_HEAD, .incarnation = head->config.incarnation, .generation = head->generation};
    snprintf(ok.build, sizeof ok.build, "%s", head->config.version);
    head_send(head, link->link, WIRE_HELLO_OK, wire_hello_ok_encode(&ok));
}

// Decodes body into `name`, or refuses the link.
#define TAKE(name, role_needed, call) \
    { \
        struct wire_##name said; \
        if (link->role != (role_needed) && (role_needed) != 0) \
            return DJ_E_UNEXPECTED; \
        enum dj_error error = wire_##name##_decode(body->data, body->bytes, head->arena, &said); \
        if (error != DJ_OK) \
            return error; \
        call; \
        return DJ_OK; \
    }

// The same for what may find fault with the contents itself.
#define TRY(name, role_needed, call) \
    { \
        struct wire_##name said; \
        if (link->role != (role_needed) && (role_needed) != 0) \
            return DJ_E_UNEXPECTED; \
        enum dj_error error = wire_##name##_decode(body->data, body->bytes, head->arena, &said); \
        return error != DJ_OK ? error : call; \
    }

static enum dj_error take_worker_message(struct head *head, struct head_link *link, uint16_t message, const struct blob *body)
{
    switch (message) {
    case WIRE_HEARTBEAT: TAKE(heartbeat, ROLE_WORKER, worker_heard(head, link->worker, &said))
    case WIRE_ADMITTED: TAKE(admitted, ROLE_WORKER, session_admitted(head, link->worker, &said))
    case WIRE_HOLDS: TAKE(holds, ROLE_WORKER, leaf_holds(head, link->worker, &said))
    case WIRE_INVENTORY: TRY(inventory, ROLE_WORKER, lineage_inventory(head, link->worker, &said))
    case WIRE_LEAVE: TAKE(leave, ROLE_WORKER, (void)said; worker_fence(head, link->worker, "it left"))
    default: return DJ_E_UNEXPECTED;
    }
}

static enum dj_error take_client_message(struct head *head, struct head_link *link, uint16_t message, const struct blob *body)
{
    switch (message) {
    case WIRE_SESSION_OPEN: TAKE(session_open, ROLE_CLIENT, session_open(head, link, &said))
    case WIRE_GRANT_ASK: TAKE(grant_ask, ROLE_CLIENT, session_grant_ask(head, link, &said))
    case WIRE_SESSION_CLOSE: TAKE(session_close, ROLE_CLIENT, session_closed(head, link, &said))
    case WIRE_RECOVER: TRY(recover, ROLE_CLIENT, recovery_asked(head, link, &said))
    case WIRE_JOURNAL_GET: TAKE(journal_get, ROLE_CLIENT, journal_get(head, link, &said))
    case WIRE_TAG_PUT: TRY(tag_put, ROLE_CLIENT, tag_put(head, link, &said))
    case WIRE_TAG_GET: TAKE(tag_get, ROLE_CLIENT, tag_get(head, link, &said))
    default: return DJ_E_UNEXPECTED;
    }
}

static enum dj_error take_message(struct head *head, struct head_link *link, uint16_t message, struct blob *body,
                                  struct blob *bulk)
{
    if (link->role == 0 && message != WIRE_HELLO)
        return DJ_E_UNEXPECTED;
    if (head->phase == HEAD_STOPPING && (message == WIRE_JOIN || message == WIRE_SESSION_OPEN || message == WIRE_GRANT_ASK))
        return DJ_E_CLOSED;
    switch (message) {
    case WIRE_HELLO: TAKE(hello, 0, take_hello(head, link, &said))
    case WIRE_PING:
        TAKE(ping, 0, struct wire_pong pong = {.number = said.number};
             head_send(head, link->link, WIRE_PONG, wire_pong_encode(&pong)))
    case WIRE_PONG: TAKE(pong, 0, leaf_continue(head, link, said.number))
    case WIRE_JOIN: TAKE(join, ROLE_WORKER, worker_join(head, link, &said))
    case WIRE_JOURNAL: TAKE(journal, 0, journal_take(head, link, &said, body))
    case WIRE_LEAF_OFFER: TAKE(leaf_offer, 0, leaf_offered(head, link, &said))
    case WIRE_LEAF_DATA: TAKE(leaf_data, 0, leaf_data(head, link, &said, bulk))
    case WIRE_LEAF_GET: TAKE(leaf_get, 0, leaf_get(head, link, &said))
    case WIRE_LOCATE: TAKE(locate, 0, leaf_locate(head, link, &said))
    case WIRE_ASK: TAKE(ask, 0, admin_ask(head, link, &said))
    default:
        return link->worker == NULL ? take_client_message(head, link, message, body)
                                    : take_worker_message(head, link, message, body);
    }
}

void head_receive_message(struct head *head, uint64_t link_id, uint16_t message, struct blob *body, struct blob *bulk)
{
    struct head_link *link = map_get(head->links, map_key(link_id));
    char why[160];

    if (link != NULL) {
        arena_reset(head->arena);
        enum dj_error error = take_message(head, link, message, body, bulk);
        if (error != DJ_OK) {
            snprintf(why, sizeof why, "%s: %s", wire_name(message), dj_error_text(error));
            refuse_link(head, link, error, why);
        }
    }
    blob_drop(body);
    blob_drop(bulk);
}

static void take_recv(struct head *head, const struct io_event *event)
{
    if (head->phase != HEAD_STARTING) {
        head_receive_message(head, event->recv.link, event->recv.message, event->recv.body, event->recv.bulk);
        return;
    }
    if (head->parked_count == HEAD_PARKED_MAX) {
        blob_drop(event->recv.body);
        blob_drop(event->recv.bulk);
        head_close(head, event->recv.link);
        return;
    }
    head->parked[head->parked_count++] = (struct parked){
        .link = event->recv.link, .message = event->recv.message, .body = event->recv.body, .bulk = event->recv.bulk};
}

// Links --------------------------------------------------------------------------------------------------------------

static void link_up(struct head *head, uint64_t id)
{
    struct head_link *link = calloc(1, sizeof *link);

    if (link == NULL || map_put(head->links, map_key(id), link) != DJ_OK) {
        log_write(LOG_WARN, "head", "too many connections; one is closed");
        free(link);
        actor_link_close(head->self, id);
        return;
    }
    link->link = id;
    actor_link_take(head->self, id);
}

static void forget_link(struct head *head, uint64_t id)
{
    struct head_link *link = map_take(head->links, map_key(id));

    if (link == NULL)
        return;
    leaves_link_down(head, id);
    journal_link_down(head, id);
    recoveries_link_down(head, id);
    if (link->worker != NULL && link->worker->link == id)
        worker_fence(head, link->worker, "its connection closed");
    if (link->session != NULL && link->session->link == id)
        session_away(head, link->session);
    map_free(link->told_plans);
    free(link);
}

void head_close(struct head *head, uint64_t link)
{
    actor_link_close(head->self, link);
    forget_link(head, link);
}

// Events -------------------------------------------------------------------------------------------------------------

// What is left of a result that its taker has not kept.
static enum dj_error store_done(struct head *head, const struct io_event *event)
{
    struct head_ticket *ticket = map_take(head->tickets, map_key(event->store_done.ticket));
    struct store_result *result = event->store_done.result;
    enum dj_error error = event->store_done.error, verdict = DJ_OK;

    if (error == DJ_OK && result == NULL)
        error = DJ_E_NO_MEMORY;
    switch (ticket == NULL ? TICKET_SIDE : ticket->kind) {
    case TICKET_START_READ:
    case TICKET_START_COMMIT:
    case TICKET_START_SCAN: verdict = start_done(head, ticket->kind, ticket->table, error, result); break;
    case TICKET_JOURNAL: journal_done(head, error, result); break;
    case TICKET_SOURCE: journal_source_read(head, ticket, error, result); break;
    case TICKET_LEAF: leaf_stored(head, ticket, error); break;
    case TICKET_LEAF_READ: leaf_read_done(head, ticket, error, result); break;
    case TICKET_SESSION: session_stored(head, ticket, error); break;
    case TICKET_ERASE: erase_done(head, ticket->job, error, result); break;
    case TICKET_TRIM_COMMIT: trim_committed(head, ticket->job, error); break;
    case TICKET_TAG_PUT: tag_stored(head, ticket, error); break;
    case TICKET_TAG_GET: tag_read(head, ticket, error, result); break;
    case TICKET_GATHER:
        gather_read(head, ticket->job, error, result);
        result = NULL;
        break;
    case TICKET_PAGE:
        page_read(head, ticket->job, error, result);
        result = NULL;
        break;
    case TICKET_COLLECT: collect_done(head, error, result); break;
    default:
        if (error != DJ_OK)
            log_write(LOG_WARN, "head", "the store refused a record: %s", dj_error_text(error));
        break;
    }
    if (ticket != NULL)
        blob_drop(ticket->body);
    free(ticket);
    result_free(result);
    return verdict;
}

static void compute_done(struct head *head, const struct io_event *event)
{
    struct head_ticket *ticket = map_take(head->tickets, map_key(event->compute_done.ticket));

    switch (ticket == NULL ? TICKET_SIDE : ticket->kind) {
    case TICKET_ANNOTATE: plans_annotated(map_get(head->plans, ticket->hash), ticket->job); break;
    case TICKET_SURVEY: gather_surveyed(head, ticket->job); break;
    case TICKET_RECOVERY: recovery_planned(head, ticket->job); break;
    case TICKET_EXPLAIN: explained(head, ticket->job); break;
    case TICKET_TRIM: trim_planned(head, ticket->job); break;
    case TICKET_COLLECT: collect_decoded(head); break;
    default: break;
    }
    free(ticket);
}

void head_check_at(struct head *head, uint64_t at_ns)
{
    actor_timer(head->self, TIMER_CHECK, at_ns);
}

void head_finish(struct head *head)
{
    struct hash128 key;
    uint32_t cursor = 0;
    struct head_link *link;

    head->phase = HEAD_STOPPING;
    while ((link = map_next(head->links, &cursor, &key)) != NULL)
        head_reply_failed(head, link->link, 0, DJ_E_CLOSED, "the head is stopping");
    log_write(LOG_INFO, "head", "stopping");
    actor_exit(head->self, 0);
}

static enum dj_error head_event(struct head *head, const struct io_event *event)
{
    switch (event->kind) {
    case IO_START: return start_read(head);
    case IO_RECV: take_recv(head, event); break;
    case IO_LINK_UP: link_up(head, event->link_up.link); break;
    case IO_LINK_DOWN: forget_link(head, event->link_down.link); break;
    case IO_STORE_DONE: return store_done(head, event);
    case IO_COMPUTE_DONE: compute_done(head, event); break;
    case IO_SUBMIT:
        if (event->submit.verb == HEAD_STOP)
            head_finish(head);
        break;
    case IO_WRITABLE:
    case IO_TIMER:
    case IO_DEVICE_DONE: break;
    }
    return DJ_OK;
}

static void check(struct head *head, uint64_t now_ns)
{
    workers_check(head, now_ns);
    sessions_check(head, now_ns);
    openings_check(head);
    settle_check(head, now_ns);
    journal_check(head, now_ns);
    gathers_check(head);
    pages_check(head);
    erase_check(head);
    collect_check(head, now_ns);
}

static enum dj_error head_receive(struct actor *self, void *state, struct letter *letter)
{
    struct head *head = state;

    head->self = self;
    if (letter->kind == LETTER_EVENT)
        return head_event(head, &letter->event);
    if (letter->kind == LETTER_TIMER && head->phase == HEAD_STARTING)
        return start_commit(head);
    if (letter->kind == LETTER_TIMER && head->phase == HEAD_SERVING) {
        check(head, actor_now_ns(self));
        actor_timer(self, TIMER_CHECK, actor_now_ns(self) + HEAD_CHECK_NS);
    }
    if (letter->kind == LETTER_TIMER && head->phase == HEAD_STOPPING)
        stop_check(head, actor_now_ns(self));
    return DJ_OK;
}

static enum dj_error head_start(struct actor *self, void *state, const void *argument)
{
    struct head *head = state;
    enum dj_error error;

    head->self = self;
    head->config = *(const struct head_config *)argument;
    head->started_ns = actor_now_ns(self);
    if (head->config.retention_ns == 0)
        head->config.retention_ns = HEAD_RETENTION_NS;
    if (head->config.leaf_store_bytes == 0)
        head->config.leaf_store_bytes = HEAD_LEAF_STORE_BYTES;
    list_init(&head->gathers);
    list_init(&head->recoveries);
    list_init(&head->explanations);
    list_init(&head->erasures);
    list_init(&head->pages);
    list_init(&head->trims);
    journal_init(head);
    if ((error = arena_make(1 << 16, 64 << 20, &head->arena)) != DJ_OK ||
        (error = map_make(HEAD_LINKS_MAX, &head->links)) != DJ_OK ||
        (error = map_make(HEAD_SESSIONS_MAX, &head->sessions)) != DJ_OK ||
        (error = map_make(HEAD_SESSIONS_MAX, &head->names)) != DJ_OK ||
        (error = map_make(HEAD_PLANS_MAX, &head->plans)) != DJ_OK ||
        (error = map_make(HEAD_LEAVES_MAX, &head->leaves)) != DJ_OK || (error = map_make(1 << 16, &head->tickets)) != DJ_OK ||
        (error = map_make(HEAD_TRANSFERS_MAX, &head->transfers)) != DJ_OK ||
        (error = record_scratch_make(&head->scratch)) != DJ_OK)
        return error;
    actor_accept_links(self);
    actor_accept_submits(self);
    return DJ_OK;
}

static void end_map(struct map *map, void (*end)(void *value))
{
    uint32_t cursor = 0;
    void *value;

    if (map == NULL)
        return;
    while ((value = map_next(map, &cursor, NULL)) != NULL)
        end(value);
    map_free(map);
}

static void end_link(void *value)
{
    map_free(((struct head_link *)value)->told_plans);
    free(value);
}

static void end_session(void *value)
{
    lineage_end(value);
}

// Nothing is under way any more (an actor ends after its process' threads): what a ticket's answer would have freed goes with its owner,
// or here where it has none.
static void end_ticket(void *value)
{
    struct head_ticket *ticket = value;

    switch (ticket->job == NULL ? TICKET_SIDE : ticket->kind) {
    case TICKET_ANNOTATE: plans_annotated(NULL, ticket->job); break;
    case TICKET_GATHER:
    case TICKET_SURVEY: gather_abandon(ticket->job); break;
    case TICKET_RECOVERY: recovery_abandon(ticket->job); break;
    case TICKET_TRIM: trim_abandon(ticket->job); break;
    default: break;
    }
    blob_drop(ticket->body);
    free(ticket);
}

static void end_plan(void *value)
{
    plans_free(value);
}

static void end_leaf(void *value)
{
    blob_drop(((struct head_leaf *)value)->assembly);
    free(value);
}

static void end_transfer(void *value)
{
    blob_drop(((struct head_transfer *)value)->value);
    free(value);
}

static void head_end(struct actor *self, void *state)
{
    struct head *head = state;

    (void)self;
    for (uint32_t i = 0; i < HEAD_WORKERS_MAX; i++)
        free(head->worker[i]);
    for (uint32_t i = 0; i < head->parked_count; i++) {
        blob_drop(head->parked[i].body);
        blob_drop(head->parked[i].bulk);
    }
    end_map(head->tickets, end_ticket);
    recoveries_end(head);
    explanations_end(head);
    trims_end(head);
    pages_end(head);
    erase_end(head);
    journal_end(head);
    collect_end(head);
    free(head->expected);
    end_map(head->links, end_link);
    end_map(head->sessions, end_session);
    map_free(head->names);
    end_map(head->plans, end_plan);
    end_map(head->leaves, end_leaf);
    end_map(head->transfers, end_transfer);
    record_scratch_free(&head->scratch);
    arena_free(head->arena);
}

const struct actor_class head_class = {
    .name = "head",
    .state_bytes = sizeof(struct head),
    .mailbox_capacity = MAILBOX_CAPACITY_MAX,
    .start = head_start,
    .receive = head_receive,
    .end = head_end,
};
