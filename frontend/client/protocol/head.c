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

static void question_answer(struct protocol *protocol, struct question *question, enum dj_error error, const char *text,
                            const void *data, size_t bytes)
{
    list_remove(&question->node);
    protocol->port.told(protocol->port.self, question->tag, error, text, data, bytes);
    free(question);
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

// Who waits for the head hears that it cannot be reached; places that were not granted yet are lost.
static void head_unreachable(struct protocol *protocol, enum dj_error error)
{
    char text[PROTOCOL_TEXT_MAX];
    say_unreachable(protocol, error, text);
    list_each (node, &protocol->questions)
        question_answer(protocol, list_entry(node, struct question, node), DJ_E_NO_HEAD, text, NULL, 0);
    list_each (node, &protocol->peers) {
        struct peer *peer = list_entry(node, struct peer, node);
        if (peer->state == PEER_ASKED)
            peer_lose(protocol, peer, DJ_E_NO_HEAD, "%s", text);
    }
}

void head_down(struct protocol *protocol, uint64_t now_ns, enum dj_error error)
{
    bool was_up = protocol->head > HEAD_DIALLING;
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
    list_each (node, &protocol->peers) {
        struct peer *peer = list_entry(node, struct peer, node);
        if (peer->state == PEER_ASKED)
            peer->grant_request = 0;
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
    struct wire_session_open message = {
        .request = protocol->session_request, .incarnation = protocol->config.incarnation, .device_index = device};
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
        if (peer->state != PEER_ASKED || peer->grant_request != 0)
            continue;
        peer->grant_request = ++protocol->next_request;
        struct wire_grant_ask message = {
            .request = peer->grant_request, .session = protocol->session, .epoch = protocol->epoch, .device_index = peer->device};
        send_message(protocol, protocol->head_link, WIRE_GRANT_ASK, wire_grant_ask_encode(&message));
    }
}

static void send_questions(struct protocol *protocol)
{
    if (protocol->head < HEAD_OPENING)
        return;
    list_each (node, &protocol->questions) {
        struct question *question = list_entry(node, struct question, node);
        if (question->is_sent)
            continue;
        question->is_sent = true;
        struct wire_ask message = {.request = question->request};
        memcpy(message.verb, question->verb, sizeof message.verb);
        memcpy(message.argument, question->argument, sizeof message.argument);
        send_message(protocol, protocol->head_link, WIRE_ASK, wire_ask_encode(&message));
    }
}

void head_ask_grant(struct protocol *protocol, uint64_t now_ns, struct peer *peer)
{
    (void)peer;
    if (protocol->head == HEAD_CLOSED)
        head_dial(protocol, now_ns);
    send_waiting(protocol);
}

void protocol_ask(struct protocol *protocol, uint64_t now_ns, const char *verb, const char *argument, void *tag)
{
    struct question *question = calloc(1, sizeof *question);
    if (question == NULL || strlen(verb) >= sizeof question->verb || strlen(argument) >= sizeof question->argument) {
        free(question);
        protocol->port.told(protocol->port.self, tag, question == NULL ? DJ_E_NO_MEMORY : DJ_E_INVALID,
                            "the question is too long", NULL, 0);
        return;
    }
    question->request = ++protocol->next_request;
    question->tag = tag;
    snprintf(question->verb, sizeof question->verb, "%s", verb);
    snprintf(question->argument, sizeof question->argument, "%s", argument);
    list_push(&protocol->questions, &question->node);
    if (protocol->head == HEAD_CLOSED)
        head_dial(protocol, now_ns);
    send_questions(protocol);
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

static void granted(struct protocol *protocol, uint64_t now_ns, const struct wire_session_grant *message)
{
    bool is_session = message->request == protocol->session_request && protocol->head == HEAD_OPENING;
    if (message->grants_count == 0 && !is_session)
        return;
    protocol->pool_devices = message->pool_devices;
    if (message->generation > protocol->generation)
        protocol->generation = message->generation;
    struct peer *peer;
    if (is_session) {
        protocol->head = HEAD_READY;
        protocol->session = message->session;
        protocol->epoch = message->epoch;
        peer = NULL;
        list_each (node, &protocol->peers) {
            struct peer *waiting = list_entry(node, struct peer, node);
            if (peer == NULL && waiting->state == PEER_ASKED && message->grants_count > 0)
                peer = waiting;    // the session was opened for its sake
        }
        if (protocol->state == PROTOCOL_OPENING)
            protocol->state = PROTOCOL_READY;
    } else {
        peer = peer_of_request(protocol, message->request);
    }
    if (peer != NULL)
        peer_granted(protocol, now_ns, peer, &message->grants[0]);
    send_waiting(protocol);
    send_questions(protocol);
}

// The device that a place waits for; DEVICE_NONE when none does.
static int64_t device_waited_for(const struct protocol *protocol)
{
    list_each (node, &protocol->peers) {
        const struct peer *peer = list_entry(node, struct peer, node);
        if (peer->state == PEER_ASKED)
            return peer->device;
    }
    return DEVICE_NONE;
}

static void refused(struct protocol *protocol, uint64_t now_ns, const struct wire_failed *message)
{
    enum dj_error error = (enum dj_error)message->error;
    struct peer *peer = peer_of_request(protocol, message->request);
    list_each (node, &protocol->questions) {
        struct question *question = list_entry(node, struct question, node);
        if (question->request == message->request) {
            question_answer(protocol, question, error, message->text, NULL, 0);
            return;
        }
    }
    if (peer != NULL) {
        peer_lose(protocol, peer, error, "%s", message->text);
        return;
    }
    bool is_ours = message->request == 0 || (protocol->head == HEAD_OPENING && message->request == protocol->session_request);
    if (!is_ours)
        return;
    if (error == DJ_E_SESSION_UNKNOWN && protocol->is_resuming) {
        protocol->is_resuming = false;
        open_session(protocol, device_waited_for(protocol));
        return;
    }
    bool may_come = error == DJ_E_NO_WORKER && now_ns < protocol->deadline_ns &&
                    (protocol->config.is_embedded || now_ns - protocol->started_ns < PROTOCOL_NO_WORKER_NS);
    if (protocol->state == PROTOCOL_OPENING && !may_come) {
        fail_session(protocol, error, message->text);
        return;
    }
    // The head has no name for the session that it refused; a new link asks again.
    if (protocol->head_link != 0)
        protocol->port.link_close(protocol->port.self, protocol->head_link);
    protocol->head = HEAD_CLOSED;
    protocol->head_link = 0;
    if (protocol->state == PROTOCOL_OPENING) {
        protocol->head_retry_ns = later(now_ns, HEAD_RETRY_NS);
        return;
    }
    list_each (node, &protocol->peers) {
        struct peer *waiting = list_entry(node, struct peer, node);
        if (waiting->state == PEER_ASKED)
            peer_lose(protocol, waiting, error, "%s", message->text);
    }
}

static void worker_gone(struct protocol *protocol, const struct wire_worker_gone *message)
{
    list_each (node, &protocol->peers) {
        struct peer *peer = list_entry(node, struct peer, node);
        if (peer->state != PEER_ASKED && peer->grant.worker == message->worker && peer->grant.incarnation == message->incarnation)
            peer_lose(protocol, peer, DJ_E_WORKER_LOST, "worker %s died", peer->grant.name);
    }
}

static void durable(struct protocol *protocol, const struct wire_watermark *message)
{
    list_each (node, &protocol->peers) {
        struct peer *peer = list_entry(node, struct peer, node);
        if (peer->state == PEER_ASKED || peer->grant.incarnation != message->incarnation || peer->session != message->session ||
            peer->epoch != message->epoch || peer->watermark >= message->counter)
            continue;
        peer->watermark = message->counter;
        stream_durable(protocol, peer, message->counter);
    }
}

static void told(struct protocol *protocol, const struct wire_told *message)
{
    list_each (node, &protocol->questions) {
        struct question *question = list_entry(node, struct question, node);
        if (question->request == message->request) {
            question_answer(protocol, question, DJ_OK, "", message->data, message->data_bytes);
            return;
        }
    }
}

static void welcome(struct protocol *protocol)
{
    if (protocol->head != HEAD_HELLO)
        return;
    protocol->head_tries = 0;
    protocol->is_resuming = protocol->state != PROTOCOL_OPENING;
    open_session(protocol, protocol->is_resuming ? device_waited_for(protocol) : DEVICE_OF_CHOICE);
    send_questions(protocol);
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

static enum dj_error handle(struct protocol *protocol, uint64_t now_ns, uint16_t kind, const struct blob *body)
{
    enum dj_error error = DJ_OK;
    switch (kind) {
        HANDLE(HELLO_OK, hello_ok, (void)message; welcome(protocol))
        HANDLE(SESSION_GRANT, session_grant, granted(protocol, now_ns, &message))
        HANDLE(FAILED, failed, refused(protocol, now_ns, &message))
        HANDLE(WATERMARK, watermark, durable(protocol, &message))
        HANDLE(WORKER_GONE, worker_gone, worker_gone(protocol, &message))
        HANDLE(TOLD, told, told(protocol, &message))
        HANDLE(PING, ping,
               send_message(protocol, protocol->head_link, WIRE_PONG,
                            wire_pong_encode(&(struct wire_pong){.number = message.number})))
    default: return DJ_E_UNEXPECTED;
    }
    return error;
}

void head_message(struct protocol *protocol, uint64_t now_ns, uint16_t kind, const struct blob *body)
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
