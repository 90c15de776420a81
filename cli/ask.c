// Ask: one question to a head over a plain TCP stream, in the foreground: HELLO, ASK, one answer. Every wait is bounded.

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "cli/command.h"
#include "core/link/link.h"
#include "core/wire/wire.h"

enum { CONNECT_TIMEOUT_MS = 5000, ASK_TIMEOUT_MS = 10000, ASK_BULK_MAX = 1 << 20 };

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

// Waits for the next message; the caller drops its blobs.
static enum dj_error next_message(struct link *link, int64_t deadline_ms, struct link_message *ret)
{
    for (;;) {
        enum dj_error error = link_receive(link, ret);
        if (error != DJ_OK || ret->message != 0)
            return error;
        int64_t left = deadline_ms - now_ms();
        if (left <= 0)
            return DJ_E_TIMEOUT;
        struct pollfd descriptor = {.fd = link_fd(link), .events = (short)(POLLIN | (link_wants_write(link) ? POLLOUT : 0))};
        poll(&descriptor, 1, (int)left);
        if ((descriptor.revents & POLLOUT) != 0 && (error = link_flush(link, 0)) != DJ_OK)
            return error;
    }
}

static enum dj_error send_questions(struct link *link, const struct hash128 *token, const char *verb, const char *argument)
{
    struct wire_hello hello = {.version = WIRE_VERSION, .role = ROLE_ADMIN, .token = *token};
    struct wire_ask ask = {.request = 1};

    snprintf(hello.name, sizeof hello.name, "djinn %s", verb);
    snprintf(hello.build, sizeof hello.build, "%s", DJINN_VERSION);
    snprintf(ask.verb, sizeof ask.verb, "%s", verb);
    snprintf(ask.argument, sizeof ask.argument, "%s", argument);
    struct blob *first = wire_hello_encode(&hello), *second = wire_ask_encode(&ask);
    if (first == NULL || second == NULL) {
        blob_drop(first);
        blob_drop(second);
        return DJ_E_NO_MEMORY;
    }
    enum dj_error error = link_send(link, WIRE_HELLO, first, NULL, 0, 0, 0);
    if (error != DJ_OK) {
        blob_drop(second);
        return error;
    }
    return link_send(link, WIRE_ASK, second, NULL, 0, 0, 0);
}

// One message from the head: true when it ends the conversation.
static bool take_answer(const struct link_message *message, struct arena *arena, char **ret, size_t *ret_bytes,
                        enum dj_error *ret_error, struct fault *fault)
{
    struct wire_told told;
    struct wire_failed failed;

    if (message->message == WIRE_HELLO_OK)
        return false;
    *ret_error = DJ_E_UNEXPECTED;
    if (message->message == WIRE_TOLD && wire_told_decode(message->body->data, message->body->bytes, arena, &told) == DJ_OK) {
        char *text = malloc((size_t)told.data_bytes + 1);
        *ret_error = text == NULL ? DJ_E_NO_MEMORY : DJ_OK;
        if (text != NULL) {
            memcpy(text, told.data, told.data_bytes);
            text[told.data_bytes] = '\0';
            *ret = text;
            *ret_bytes = told.data_bytes;
        }
    }
    if (message->message == WIRE_FAILED && wire_failed_decode(message->body->data, message->body->bytes, arena, &failed) == DJ_OK)
        *ret_error = fault_set(fault, (enum dj_error)failed.error, "%s", failed.text);
    return true;
}

static enum dj_error converse(struct link *link, const struct hash128 *token, const char *verb, const char *argument, char **ret,
                              size_t *ret_bytes, struct fault *fault)
{
    struct arena *arena;
    int64_t deadline_ms = now_ms() + ASK_TIMEOUT_MS;
    enum dj_error error = arena_make(4096, 16 << 20, &arena);
    bool is_over = false;

    if (error != DJ_OK)
        return error;
    error = send_questions(link, token, verb, argument);
    while (error == DJ_OK && !is_over) {
        struct link_message message = {0};
        error = next_message(link, deadline_ms, &message);
        if (error != DJ_OK)
            break;
        is_over = take_answer(&message, arena, ret, ret_bytes, &error, fault);
        blob_drop(message.body);
        blob_drop(message.bulk);
    }
    arena_free(arena);
    return error;
}

// Waits until the connection is there, so that a head that is not is told from one that does not answer.
static enum dj_error await_connection(int fd)
{
    struct pollfd descriptor = {.fd = fd, .events = POLLOUT};
    int reason = ETIMEDOUT;
    socklen_t bytes = sizeof reason;

    if (poll(&descriptor, 1, CONNECT_TIMEOUT_MS) > 0 && getsockopt(fd, SOL_SOCKET, SO_ERROR, &reason, &bytes) == 0 && reason == 0)
        return DJ_OK;
    errno = reason;
    return DJ_E_NO_HEAD;
}

static enum dj_error connect_to(const char *address, int *ret_fd, struct fault *fault)
{
    char dialled[CLI_ADDRESS_MAX + 8];

    snprintf(dialled, sizeof dialled, "tcp://%s", address);
    if (link_dial(dialled, ret_fd, fault) != DJ_OK) {
        (void)fault_wrap(fault, "no head can be reached: ");
        return fault->code = DJ_E_NO_HEAD;
    }
    if (await_connection(*ret_fd) == DJ_OK)
        return DJ_OK;
    int reason = errno;
    close(*ret_fd);
    return fault_set(
        fault, DJ_E_NO_HEAD,
        "no head answers at %s: %s; start one with 'djinn start --head --listen %s', or name its address with --head or "
        "DJINN_ADDRESS",
        address, strerror(reason), address);
}

enum dj_error head_ask(const char *address, const char *state, const char *verb, const char *argument, char **ret,
                       size_t *ret_bytes, struct fault *fault)
{
    char folder[CLI_PATH_MAX], parsed[CLI_ADDRESS_MAX];
    struct hash128 token;
    struct link *link = NULL;
    int fd;

    if (address == NULL)
        address = getenv("DJINN_ADDRESS");
    if (address == NULL || address[0] == '\0')
        address = "127.0.0.1:" DJINN_PORT;
    enum dj_error error = address_parse(address, parsed, fault);
    if (error != DJ_OK)
        return error;
    if ((error = connect_to(parsed, &fd, fault)) != DJ_OK)
        return error;
    state_folder(state, folder);
    error = token_load(folder, false, &token, fault);
    if (error == DJ_OK)
        error = link_make(fd, ASK_BULK_MAX, &link);
    if (error != DJ_OK) {
        close(fd);
        return error;
    }
    fault->text[0] = '\0';
    error = converse(link, &token, verb, argument, ret, ret_bytes, fault);
    link_free(link);
    if (error != DJ_OK && fault->text[0] == '\0')
        return fault_set(fault, DJ_E_NO_HEAD,
                         "no head answers at %s (%s): is what listens there a djinn head, of this version (%s)?", parsed,
                         dj_error_text(error), DJINN_VERSION);
    return error;
}

int ask_failed(enum dj_error error, const struct fault *fault)
{
    return complain_fault(error == DJ_E_NO_HEAD   ? EXIT_UNREACHABLE
                          : error == DJ_E_ADDRESS ? EXIT_USAGE
                                                  : EXIT_FAILED,
                          error, fault);
}
