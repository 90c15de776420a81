// Head: the root actor: starts from the store, routes messages and events to the files of this folder. The manual is sched.h.

#include "sched/sched.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/assert.h"
#include "core/base/log.h"
#include "sched/state.h"

enum { TIMER_CHECK = 1, SCAN_PAGE = 4096 };
#define CHECK_EVERY_NS ((uint64_t)250000000)

static const char key_generation[] = "generation";

// Sending ------------------------------------------------------------------------------------------------------------

void head_send(struct head *head, uint64_t link, uint16_t message, struct blob *body)
{
    if (body == NULL) {
        log_write(LOG_ERROR, "head", "cannot encode a message message=%s", wire_name(message));
        return;
    }
    actor_send(head->self, link, message, body, NULL, 0, 0, 0);
}

void head_reply_failed(struct head *head, uint64_t link, uint64_t request, enum dj_error error, const char *format, ...)
{
    struct wire_failed failed = {.request = request, .error = (uint32_t)error};
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(failed.text, sizeof failed.text, format, arguments);
    va_end(arguments);
    head_send(head, link, WIRE_FAILED, wire_failed_encode(&failed));
}

struct head_ticket *head_ticket(struct head *head, uint64_t ticket, enum ticket_kind kind)
{
    struct head_ticket *made = calloc(1, sizeof *made);
    if (made == NULL || map_put(head->tickets, map_key(ticket), made) != DJ_OK) {
        log_write(LOG_ERROR, "head", "no room to remember a request to the store");
        free(made);
        return NULL;
    }
    made->kind = kind;
    return made;
}

void head_side_commit(struct head *head, const struct record *record, enum store_table table)
{
    uint8_t key[RECORD_KEY_MAX];
    struct writer writer = writer_make(RECORD_BYTES_MAX);
    struct store_batch *batch = batch_make();

    record_write(&writer, record);
    struct store_item *item = batch == NULL ? NULL : batch_add(batch, STORE_PUT, table, key, record_key(record, key));
    struct blob *value = writer.error == DJ_OK ? blob_copy(writer.data, writer.length) : NULL;
    writer_free(&writer);
    if (item == NULL || value == NULL) {
        log_write(LOG_ERROR, "head", "no memory to write a record");
        blob_drop(value);
        batch_free(batch);
        return;
    }
    item->value = value;
    item->value_bytes = value->bytes;
    head_ticket(head, actor_store_commit(head->self, batch), TICKET_SIDE);
}

// Starting -----------------------------------------------------------------------------------------------------------

static enum dj_error start_read(struct head *head)
{
    struct store_batch *batch = batch_make();
    if (batch == NULL || batch_add(batch, STORE_GET, STORE_META, key_generation, strlen(key_generation)) == NULL)
        return DJ_E_NO_MEMORY;
    return head_ticket(head, actor_store_read(head->self, batch), TICKET_START_READ) == NULL ? DJ_E_NO_MEMORY : DJ_OK;
}

// The generation is durable before the first message leaves (rule 18).
static enum dj_error start_commit(struct head *head, const struct store_result *result)
{
    uint64_t last = 0;

    if (result->entries > 0 && result->entry[0].value->bytes == sizeof last)
        memcpy(&last, result->entry[0].value->data, sizeof last);
    head->generation = last + 1;
    struct store_batch *batch = batch_make();
    struct store_item *item = batch == NULL ? NULL
                                            : batch_add(batch, STORE_PUT, STORE_META, key_generation, strlen(key_generation));
    if (item == NULL || (item->value = blob_copy(&head->generation, sizeof head->generation)) == NULL)
        return DJ_E_NO_MEMORY;
    item->value_bytes = sizeof head->generation;
    return head_ticket(head, actor_store_commit(head->self, batch), TICKET_START_COMMIT) == NULL ? DJ_E_NO_MEMORY : DJ_OK;
}

// Reads a page of a table; the ticket's `marks` is the table, so that the pages follow each other through the tables.
static enum dj_error start_scan(struct head *head, enum store_table table, const uint8_t *from, uint32_t from_bytes)
{
    struct store_batch *batch = batch_make();
    struct store_item *item = batch == NULL ? NULL : batch_add(batch, STORE_SCAN, table, from, from_bytes);
    if (item == NULL)
        return DJ_E_NO_MEMORY;
    item->scan_max = SCAN_PAGE;
    struct head_ticket *ticket = head_ticket(head, actor_store_read(head->self, batch), TICKET_START_SCAN);
    if (ticket == NULL)
        return DJ_E_NO_MEMORY;
    ticket->marks = table;
    return DJ_OK;
}

static void learn_stored(struct head *head, enum store_table table, const struct store_entry *entry)
{
    struct reader reader = reader_make(entry->value->data, entry->value->bytes);
    struct hash128 hash;
    struct record record;

    switch (table) {
    case STORE_PLAN:
        if (record_key_parse_hash(entry->key, entry->key_bytes, &hash))
            plans_see(head, hash);
        if (entry->value->bytes > 0 && record_read(&reader, &head->scratch, &record) == DJ_OK && record.kind == RECORD_PLAN)
            plans_learn(head, &record.plan);
        break;
    case STORE_LEAF:
        if (record_key_parse_hash(entry->key, entry->key_bytes, &hash)) {
            struct head_leaf *leaf = leaf_see(head, hash, entry->value->bytes);
            if (leaf != NULL)
                leaf->is_stored = true;
            head->leaves_stored++;
        }
        break;
    case STORE_EXECUTION:
        head->executions_stored++;
        if (record_read(&reader, &head->scratch, &record) == DJ_OK && record.kind == RECORD_EXECUTION) {
            struct head_plan *plan = plans_see(head, record.execution.plan);
            if (plan != NULL)
                plan->executions++;
        }
        break;
    case STORE_SESSION: head->sessions_stored++; break;
    default: break;
    }
}

static void serve(struct head *head);

static enum dj_error start_scanned(struct head *head, enum store_table table, const struct store_result *result)
{
    static const enum store_table next_table[STORE_TABLES] = {
        [STORE_PLAN] = STORE_LEAF, [STORE_LEAF] = STORE_EXECUTION, [STORE_EXECUTION] = STORE_SESSION};

    for (uint32_t i = 0; i < result->entries; i++)
        learn_stored(head, table, &result->entry[i]);
    if (result->entries == SCAN_PAGE) {
        // The next page starts just behind the last key: the same key with a zero byte more.
        uint8_t from[STORE_KEY_MAX] = {0};
        const struct store_entry *last = &result->entry[result->entries - 1];
        if (last->key_bytes < STORE_KEY_MAX) {
            memcpy(from, last->key, last->key_bytes);
            return start_scan(head, table, from, last->key_bytes + 1);
        }
    }
    if (next_table[table] != 0)
        return start_scan(head, next_table[table], NULL, 0);
    serve(head);
    return DJ_OK;
}

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

static enum dj_error take_worker_message(struct head *head, struct head_link *link, uint16_t message, const struct blob *body)
{
    switch (message) {
    case WIRE_HEARTBEAT: TAKE(heartbeat, ROLE_WORKER, worker_heard(head, link->worker, &said))
    case WIRE_ADMITTED: TAKE(admitted, ROLE_WORKER, session_admitted(head, link->worker, &said))
    case WIRE_HOLDS: TAKE(holds, ROLE_WORKER, leaf_holds(head, link->worker, &said))
    case WIRE_LEAVE: TAKE(leave, ROLE_WORKER, (void)said; worker_fence(head, link->worker, "it left"))
    default: return DJ_E_UNEXPECTED;
    }
}

static enum dj_error take_message(struct head *head, struct head_link *link, uint16_t message, const struct blob *body,
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
    case WIRE_JOURNAL: TAKE(journal, 0, journal_take(head, link, &said))
    case WIRE_LEAF_OFFER: TAKE(leaf_offer, 0, leaf_offered(head, link, &said))
    case WIRE_LEAF_DATA: TAKE(leaf_data, 0, leaf_data(head, link, &said, bulk))
    case WIRE_LEAF_GET: TAKE(leaf_get, 0, leaf_get(head, link, &said))
    case WIRE_LOCATE: TAKE(locate, 0, leaf_locate(head, link, &said))
    case WIRE_SESSION_OPEN: TAKE(session_open, ROLE_CLIENT, session_open(head, link, &said))
    case WIRE_GRANT_ASK: TAKE(grant_ask, ROLE_CLIENT, session_grant_ask(head, link, &said))
    case WIRE_SESSION_CLOSE:
        TAKE(session_close, ROLE_CLIENT, (void)said; if (link->session != NULL) session_close(head, link->session))
    case WIRE_ASK: TAKE(ask, 0, admin_ask(head, link, &said))
    default: return link->worker == NULL ? DJ_E_UNEXPECTED : take_worker_message(head, link, message, body);
    }
}

static void receive(struct head *head, uint64_t link_id, uint16_t message, struct blob *body, struct blob *bulk)
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

static void serve(struct head *head)
{
    head->phase = HEAD_SERVING;
    log_write(LOG_INFO, "head", "serving generation=%llu plans=%u leaves=%u executions=%llu",
              (unsigned long long)head->generation, map_count(head->plans), head->leaves_stored,
              (unsigned long long)head->executions_stored);
    for (uint32_t i = 0; i < head->parked_count; i++)
        receive(head, head->parked[i].link, head->parked[i].message, head->parked[i].body, head->parked[i].bulk);
    head->parked_count = 0;
    actor_timer(head->self, TIMER_CHECK, actor_now_ns(head->self) + CHECK_EVERY_NS);
}

static void take_recv(struct head *head, const struct io_event *event)
{
    if (head->phase != HEAD_STARTING) {
        receive(head, event->recv.link, event->recv.message, event->recv.body, event->recv.bulk);
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
    if (link->worker != NULL && link->worker->link == id)
        worker_fence(head, link->worker, "its connection closed");
    if (link->session != NULL && link->session->link == id)
        session_away(head, link->session);
    free(link);
}

void head_close(struct head *head, uint64_t link)
{
    actor_link_close(head->self, link);
    forget_link(head, link);
}

// Events -------------------------------------------------------------------------------------------------------------

static enum dj_error start_done(struct head *head, enum ticket_kind kind, uint32_t table, enum dj_error error,
                                const struct store_result *result)
{
    if (error != DJ_OK) {
        log_write(LOG_ERROR, "head", "cannot start from the store: %s", dj_error_text(error));
        actor_exit(head->self, 1);
        return DJ_OK;
    }
    if (kind == TICKET_START_READ)
        return start_commit(head, result);
    if (kind == TICKET_START_COMMIT)
        return start_scan(head, STORE_PLAN, NULL, 0);
    return start_scanned(head, (enum store_table)table, result);
}

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
    case TICKET_START_SCAN: verdict = start_done(head, ticket->kind, ticket->marks, error, result); break;
    case TICKET_JOURNAL: journal_done(head, ticket, error); break;
    case TICKET_LEAF: leaf_stored(head, ticket, error); break;
    case TICKET_LEAF_READ: leaf_read_done(head, ticket, error, result); break;
    case TICKET_SIDE:
    case TICKET_ANNOTATE:
        if (error != DJ_OK)
            log_write(LOG_WARN, "head", "the store refused a record: %s", dj_error_text(error));
        break;
    }
    free(ticket);
    result_free(result);
    return verdict;
}

static void compute_done(struct head *head, const struct io_event *event)
{
    struct head_ticket *ticket = map_take(head->tickets, map_key(event->compute_done.ticket));
    struct head_plan *plan = ticket == NULL ? NULL : map_get(head->plans, ticket->hash);

    plans_annotated(head, plan, event->compute_done.result);
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

static enum dj_error head_receive(struct actor *self, void *state, struct letter *letter)
{
    struct head *head = state;

    head->self = self;
    if (letter->kind == LETTER_EVENT)
        return head_event(head, &letter->event);
    if (letter->kind == LETTER_TIMER && head->phase == HEAD_SERVING) {
        workers_check(head, actor_now_ns(self));
        sessions_check(head, actor_now_ns(self));
        actor_timer(self, TIMER_CHECK, actor_now_ns(self) + CHECK_EVERY_NS);
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
    if ((error = arena_make(1 << 16, 64 << 20, &head->arena)) != DJ_OK ||
        (error = map_make(HEAD_LINKS_MAX, &head->links)) != DJ_OK ||
        (error = map_make(HEAD_SESSIONS_MAX, &head->sessions)) != DJ_OK ||
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

static void end_plan(void *value)
{
    plans_forget(value);
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
    end_map(head->links, free);
    end_map(head->sessions, free);
    end_map(head->plans, end_plan);
    end_map(head->leaves, end_leaf);
    end_map(head->tickets, free);
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
