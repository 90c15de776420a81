// Head: the link to the head: opening the session, asking for grants, hearing what is durable and who is gone.
//
// A head that goes away later takes nothing with it: the workers' links live on. It is dialled again, ever more slowly, and the session
// resumed there, with a new life of the head too. One that does not know the session any more gives a new one, for new grants.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/log.h"
#include "frontend/client/protocol/state.h"

#define HEAD_RETRY_NS 20000000u
#define HEAD_RETRY_MOST_NS 1000000000u

enum { DEVICE_OF_CHOICE = -1, DEVICE_NONE = -2 };

static void fail_session(struct protocol *protocol, enum dj_error error, const char *text)
{
    if (protocol->state != PROTOCOL_OPENING)
        return;
    protocol->state = PROTOCOL_FAILED;
    fault_set(&protocol->fault, error, "%s", text);
}

void head_dial(struct protocol *protocol, uint64_t now_ns)
{
    (void)now_ns;
    protocol->head = HEAD_DIALLING;
    protocol->head_retry_ns = 0;
    protocol->head_request = protocol->port.link_open(protocol->port.self, protocol->config.head);
}

void head_up(struct protocol *protocol)
{
    protocol->head = HEAD_HELLO;
    struct wire_hello hello = {.version = WIRE_VERSION,
                               .role = ROLE_CLIENT,
                               .token = protocol->config.token,
                               .incarnation = protocol->config.incarnation,
                               .generation = protocol->generation};
    snprintf(hello.name, sizeof hello.name, "%s", protocol->config.name);
    send_message(protocol, protocol->head_link, WIRE_HELLO, wire_hello_encode(&hello));
}

static void say_unreachable(const struct protocol *protocol, enum dj_error error, char text[PROTOCOL_TEXT_MAX])
{
    const char *address = protocol->config.head + (strncmp(protocol->config.head, "tcp://", 6) == 0 ? 6 : 0);
    if (protocol->config.is_embedded)
        snprintf(text, PROTOCOL_TEXT_MAX,
                 "the embedded head and worker at %s are gone (%s); shut down and initialise again to start new ones", address,
                 dj_error_text(error));
    else
        snprintf(text, PROTOCOL_TEXT_MAX,
                 "the head at %s cannot be reached (%s); start one with: djinn start --head, or name another with DJINN_ADDRESS",
                 address, dj_error_text(error));
}

// Who asked the head hears that it cannot be reached. Places wait for it, unless it was this process's own child.
static void head_unreachable(struct protocol *protocol, enum dj_error error)
{
    char text[PROTOCOL_TEXT_MAX];
    say_unreachable(protocol, error, text);
    questions_fail(protocol, DJ_E_NO_HEAD, text);
    list_each (node, &protocol->peers) {
        struct peer *peer = list_entry(node, struct peer, node);
        if (protocol->config.is_embedded && peer->state == PEER_ASKED)
            peer_lose(protocol, peer, DJ_E_WORKER_LOST, "%s", text);    // nobody will start it again
    }
}

void head_fenced(struct protocol *protocol, enum dj_error error, const char *text)
{
    char said[PROTOCOL_TEXT_MAX];
    if (protocol->is_fenced)
        return;
    protocol->is_fenced = true;
    snprintf(said, sizeof said, "another client took session %s over: %s",
             protocol->config.name[0] == '\0' ? "(unnamed)" : protocol->config.name, text);
    fail_session(protocol, error, said);
    fault_set(&protocol->fault, error, "%s", said);
    if (protocol->head_link != 0)
        protocol->port.link_close(protocol->port.self, protocol->head_link);
    protocol->head = HEAD_CLOSED;
    protocol->head_link = protocol->head_request = protocol->head_retry_ns = 0;
    questions_fail(protocol, error, said);
    list_each (node, &protocol->peers)
        peer_lose(protocol, list_entry(node, struct peer, node), error, "%s", said);
}

// What was asked on a link that is gone is asked again on the next.
static void unask_grants(struct protocol *protocol)
{
    list_each (node, &protocol->peers) {
        struct peer *peer = list_entry(node, struct peer, node);
        if (peer->state == PEER_ASKED)
            peer->grant_request = 0;
    }
}

void head_down(struct protocol *protocol, uint64_t now_ns, enum dj_error error)
{
    bool was_up = protocol->head > HEAD_DIALLING;
    if (protocol->is_fenced)
        return;
    recover_head_down(protocol);
    unask_grants(protocol);    // also while records of an earlier life are read: a worker may have died meanwhile
    questions_resend(protocol);
    protocol->head = HEAD_CLOSED;
    protocol->head_link = protocol->head_request = 0;
    protocol->stats.links_lost += was_up;
    if (protocol->state == PROTOCOL_OPENING) {
        // A head that is just starting is worth a moment; one whose answer was no is not asked again (fail_session).
        bool has_time = now_ns < protocol->deadline_ns &&
                        (protocol->config.is_embedded || now_ns - protocol->started_ns < PROTOCOL_REACH_NS);
        if (has_time) {
            protocol->head_retry_ns = later(now_ns, HEAD_RETRY_NS);
            return;
        }
        char text[PROTOCOL_TEXT_MAX];
        say_unreachable(protocol, error, text);
        fail_session(protocol, DJ_E_NO_HEAD, text);
        return;
    }
    protocol->head_tries = was_up ? 0 : protocol->head_tries + 1;
    uint64_t pause_ns = protocol->head_tries > 6 ? HEAD_RETRY_MOST_NS : (uint64_t)HEAD_RETRY_NS << protocol->head_tries;
    protocol->head_retry_ns = later(now_ns, pause_ns < HEAD_RETRY_MOST_NS ? pause_ns : HEAD_RETRY_MOST_NS);
    if (!was_up)
        head_unreachable(protocol, error);    // refused, not cut: nobody is there
}

// Asking -------------------------------------------------------------------------------------------------------------------

static void open_session(struct protocol *protocol, int64_t device)
{
    protocol->head = HEAD_OPENING;
    protocol->session_request = ++protocol->next_request;
    struct wire_session_open message = {.request = protocol->session_request,
                                        .incarnation = protocol->config.incarnation,
                                        .device_index = device,
                                        .pid = protocol->config.pid,
                                        .recovery = protocol->config.recovery,
                                        .replay_limit_ns = protocol->config.replay_limit_ns,
                                        .allows_close = protocol->config.allows_close};
    snprintf(message.host, sizeof message.host, "%s", protocol->config.host);
    if (protocol->is_resuming) {
        message.session = protocol->session;
        message.epoch = protocol->epoch;
    }
    snprintf(message.tenant, sizeof message.tenant, "%s", protocol->config.tenant);
    snprintf(message.name, sizeof message.name, "%s", protocol->config.name);
    send_message(protocol, protocol->head_link, WIRE_SESSION_OPEN, wire_session_open_encode(&message));
}

static void send_waiting(struct protocol *protocol)
{
    if (protocol->head != HEAD_READY)
        return;
    list_each (node, &protocol->peers) {
        struct peer *peer = list_entry(node, struct peer, node);
        if (peer->state != PEER_ASKED || peer->grant_request != 0 || peer->ask_at_ns > protocol->now_ns)
            continue;
        bool had_one = peer->incarnation != 0;
        peer->grant_request = ++protocol->next_request;
        struct wire_grant_ask message = {.request = peer->grant_request,
                                         .session = protocol->session,
                                         .epoch = protocol->epoch,
                                         .device_index = had_one ? DEVICE_OF_CHOICE : peer->device,
                                         .numerics = had_one ? peer->numerics : 0,
                                         .avoid = peer->incarnation};
        send_message(protocol, protocol->head_link, WIRE_GRANT_ASK, wire_grant_ask_encode(&message));
    }
}

void head_ask_grant(struct protocol *protocol, uint64_t now_ns)
{
    if (protocol->head == HEAD_CLOSED && protocol->head_tries == 0 && !protocol->is_fenced)
        head_dial(protocol, now_ns);
    send_waiting(protocol);
}

// Hearing ------------------------------------------------------------------------------------------------------------------

static struct peer *peer_of_request(const struct protocol *protocol, uint64_t request)
{
    list_each (node, &protocol->peers) {
        struct peer *peer = list_entry(node, struct peer, node);
        if (request != 0 && peer->state == PEER_ASKED && peer->grant_request == request)
            return peer;
    }
    return NULL;
}

void session_ready(struct protocol *protocol)
{
    if (protocol->state == PROTOCOL_OPENING && !resume_is_loading(protocol))
        protocol->state = PROTOCOL_READY;
}

// The session is open, for the first time or on a new link of the head.
static struct peer *opened(struct protocol *protocol, const struct wire_session_grant *message)
{
    struct peer *peer = NULL;
    protocol->head = HEAD_READY;
    protocol->session = message->session;
    protocol->epoch = message->epoch;
    journal_reset(protocol);
    list_each (node, &protocol->peers) {
        struct peer *waiting = list_entry(node, struct peer, node);
        if (peer == NULL && waiting->state == PEER_ASKED && message->grants_count > 0)
            peer = waiting;    // the session was opened for its sake
    }
    if (protocol->state == PROTOCOL_OPENING && protocol->eras == 0)
        resume_begin(protocol, message->journalled);
    else
        resume_ask(protocol);    // the page that the last link did not bring
    session_ready(protocol);
    return peer;
}

static void granted(struct protocol *protocol, uint64_t now_ns, const struct wire_session_grant *message)
{
    bool is_session = message->request == protocol->session_request && protocol->head == HEAD_OPENING;
    if (message->grants_count == 0 && !is_session)
        return;
    protocol->pool_devices = message->pool_devices;
    if (message->grants_count > 0)
        protocol->is_without_worker = false;
    if (message->generation > protocol->generation)
        protocol->generation = message->generation;
    struct peer *peer = is_session ? opened(protocol, message) : peer_of_request(protocol, message->request);
    if (peer != NULL)
        peer_granted(protocol, now_ns, peer, &message->grants[0]);
    send_waiting(protocol);
    questions_send(protocol);
    if (!is_session)
        return;
    list_each (node, &protocol->peers) {
        struct peer *waiting = list_entry(node, struct peer, node);
        if (waiting->state == PEER_ASKED || waiting->state == PEER_RECOVERING)
            journal_place(protocol, waiting);
        recover_ask(protocol, waiting);
        if (waiting->state == PEER_READY && recover_has_steps(waiting))
            stream_send(protocol, waiting);    // it may have waited for the head to say where a value is
    }
}

// No worker now: a place that can wait asks again.
static bool asks_again(uint64_t now_ns, struct peer *peer, enum dj_error error)
{
    if (dj_error_retry(error) != ERROR_RETRY_later)
        return false;
    peer->grant_request = 0;
    peer->ask_at_ns = later(now_ns, PROTOCOL_ASK_AGAIN_NS);
    return true;
}

static void close_head(struct protocol *protocol, uint64_t now_ns)
{
    if (protocol->head_link != 0)
        protocol->port.link_close(protocol->port.self, protocol->head_link);
    protocol->head = HEAD_CLOSED;
    protocol->head_link = 0;
    recover_head_down(protocol);
    unask_grants(protocol);
    questions_resend(protocol);
    protocol->head_retry_ns = later(now_ns, protocol->state == PROTOCOL_OPENING ? HEAD_RETRY_NS : PROTOCOL_ASK_AGAIN_NS);
}

static void refused(struct protocol *protocol, uint64_t now_ns, const struct wire_failed *message)
{
    enum dj_error error = (enum dj_error)message->error;
    struct peer *peer = peer_of_request(protocol, message->request);
    bool is_session = protocol->head == HEAD_OPENING && message->request == protocol->session_request;
    protocol->is_without_worker = protocol->is_without_worker || error == DJ_E_NO_WORKER;
    bool is_fence = error == DJ_E_EPOCH_FENCED && (message->request == 0 || is_session || peer != NULL);
    if (is_fence && protocol->state != PROTOCOL_OPENING) {
        head_fenced(protocol, error, message->text);
        return;
    }
    if (question_answered(protocol, message->request, error, message->text, NULL, 0) ||
        recover_refused(protocol, message->request, error, message->text) || resume_refused(protocol, message->request))
        return;
    if (peer != NULL) {
        if (!asks_again(now_ns, peer, error))
            peer_lose(protocol, peer, error, "%s", message->text);
        return;
    }
    if (message->request != 0 && !is_session)
        return;
    if (error == DJ_E_SESSION_UNKNOWN && protocol->is_resuming) {
        protocol->is_resuming = false;
        open_session(protocol, DEVICE_NONE);
        return;
    }
    bool may_come = dj_error_retry(error) == ERROR_RETRY_later && now_ns < protocol->deadline_ns &&
                    (error != DJ_E_NO_WORKER || protocol->config.is_embedded || protocol->config.waits_for_worker ||
                     now_ns - protocol->started_ns < PROTOCOL_NO_WORKER_NS);
    if (protocol->state == PROTOCOL_OPENING && !may_come) {
        fail_session(protocol, error, message->text);
        return;
    }
    // The head has no name for the session that it refused; a new link asks again.
    close_head(protocol, now_ns);
}

static void worker_gone(struct protocol *protocol, uint64_t now_ns, const struct wire_worker_gone *message)
{
    list_each (node, &protocol->peers) {
        struct peer *peer = list_entry(node, struct peer, node);
        if (peer->incarnation == message->incarnation)
            peer->is_life_over = true;    // also if it was given up before
        if (peer->state == PEER_ASKED || peer->grant.worker != message->worker || peer->grant.incarnation != message->incarnation)
            continue;
        recover_suspect(peer);
        peer_lost(protocol, now_ns, peer, "worker %s died", peer->grant.name);
    }
}

static void recorded(struct protocol *protocol, uint64_t counter)
{
    list_each (p, &protocol->peers) {
        struct peer *peer = list_entry(p, struct peer, node);
        list_each (node, &peer->flights) {
            struct flight *flight = list_entry(node, struct flight, node);
            if (flight->counter > counter)
                break;
            if (flight->counter < counter || flight->is_step)
                continue;
            flight->is_recorded = true;
            flight_settle(protocol, peer, flight);
            return;
        }
    }
}

// Exactly these: records of two streams at one worker, or of one that waited for another's, become durable in no common order.
static void durable(struct protocol *protocol, const struct wire_watermark *message)
{
    struct reader reader = reader_make(message->counters, message->counters_bytes);
    if (message->session != protocol->session)
        return;
    for (uint64_t counter = 0; reader_left(&reader) > 0;) {
        counter += read_var(&reader);
        if (reader.error == DJ_OK)
            recorded(protocol, counter);
    }
}

static void welcome(struct protocol *protocol)
{
    if (protocol->head != HEAD_HELLO)
        return;
    protocol->head_tries = 0;
    // Also while its records are still read: who opened it by its name again would take it over from itself.
    protocol->is_resuming = protocol->session != 0;
    open_session(protocol, protocol->is_resuming ? DEVICE_NONE : DEVICE_OF_CHOICE);
    questions_send(protocol);
}

#define HANDLE(NAME, name, call) \
    case WIRE_##NAME: { \
        struct wire_##name message; \
        error = wire_##name##_decode(body->data, body->bytes, protocol->arena, &message); \
        if (error == DJ_OK) { \
            call; \
        } \
        break; \
    }

static enum dj_error handle(struct protocol *protocol, uint64_t now_ns, uint16_t kind, struct blob *body)
{
    enum dj_error error = DJ_OK;
    switch (kind) {
        HANDLE(HELLO_OK, hello_ok, (void)message; welcome(protocol))
        HANDLE(SESSION_GRANT, session_grant, granted(protocol, now_ns, &message))
        HANDLE(FAILED, failed, refused(protocol, now_ns, &message))
        HANDLE(WATERMARK, watermark, durable(protocol, &message))
        HANDLE(WORKER_GONE, worker_gone, worker_gone(protocol, now_ns, &message))
        HANDLE(TOLD, told, (void)question_answered(protocol, message.request, DJ_OK, "", message.data, message.data_bytes))
        HANDLE(TAG, tag, (void)question_answered(protocol, message.request, DJ_OK, "", message.record, message.record_bytes))
        HANDLE(RECOVERY, recovery, recover_said(protocol, &message, body))
        HANDLE(LEAF_NEED, leaf_need, leaves_send(protocol, protocol->head_link, &message))
        HANDLE(LEAF_OK, leaf_ok, leaves_arrived(protocol, &message))
        HANDLE(JOURNAL_OK, journal_ok, journal_acknowledged(protocol, message.last))
        HANDLE(JOURNAL_PART, journal_part, resume_part(protocol, &message, body))
        HANDLE(LOCATED, located, recover_located(protocol, &message))
        HANDLE(PING, ping,
               send_message(protocol, protocol->head_link, WIRE_PONG,
                            wire_pong_encode(&(struct wire_pong){.number = message.number})))
    default: return DJ_E_UNEXPECTED;
    }
    return error;
}

void head_message(struct protocol *protocol, uint64_t now_ns, uint16_t kind, struct blob *body)
{
    enum dj_error error = handle(protocol, now_ns, kind, body);
    arena_reset(protocol->arena);
    if (error == DJ_OK)
        return;
    char text[PROTOCOL_TEXT_MAX];
    snprintf(text, sizeof text, "the head sent a message (%s) that cannot be taken: %s", wire_name(kind), dj_error_text(error));
    log_write(LOG_WARN, "client", "%s", text);
    fail_session(protocol, error, text);
    if (protocol->head_link != 0)
        protocol->port.link_close(protocol->port.self, protocol->head_link);
    head_down(protocol, now_ns, error);
}

void head_tick(struct protocol *protocol, uint64_t now_ns)
{
    if (protocol->head == HEAD_CLOSED && protocol->head_retry_ns != 0 && protocol->head_retry_ns <= now_ns)
        head_dial(protocol, now_ns);
    if (protocol->state == PROTOCOL_OPENING && now_ns >= protocol->deadline_ns) {
        char text[PROTOCOL_TEXT_MAX];
        snprintf(text, sizeof text,
                 "the head at %s gave no session in time; is it a Djinn head, and is a worker connected to it?",
                 protocol->config.head);
        fail_session(protocol, DJ_E_TIMEOUT, text);
    }
}
