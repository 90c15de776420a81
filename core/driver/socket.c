// Socket: connections on core/link under uv_poll.

#include "core/driver/loop.h"

#include "core/base/assert.h"
#include "core/base/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct socket_conn {
    struct conn conn;
    struct link *link;
    uv_poll_t poll;
    int events;    // that the poll is set to
};

static struct socket_conn *socket_of(const struct conn *conn)
{
    return (struct socket_conn *)(uintptr_t)conn;
}

static enum dj_error socket_receive(struct conn *conn, struct link_message *ret)
{
    struct driver *driver = conn->driver;
    struct link *link = socket_of(conn)->link;
    uint64_t before = link_stats(link).bytes_in;
    enum dj_error error = link_receive(link, ret);
    driver->stats.bytes_in += link_stats(link).bytes_in - before;
    return error;
}

static enum dj_error socket_send(struct conn *conn, const struct io_effect *effect)
{
    return link_send(socket_of(conn)->link, effect->send.message, effect->send.body, effect->send.bulk, effect->send.bulk_offset,
                     effect->send.bulk_bytes, effect->send.not_after_ns);
}

static uint64_t socket_queued_bytes(const struct conn *conn)
{
    return link_queued_bytes(socket_of(conn)->link);
}

static void on_poll(uv_poll_t *poll, int status, int events);

static void socket_update(struct conn *conn)
{
    struct socket_conn *socket = socket_of(conn);
    if (conn->state == CONN_CLOSED)
        return;
    int events = conn->state == CONN_OPENING || link_wants_write(socket->link) ? UV_WRITABLE : 0;
    bool may_read = !conn->is_congested && !link_is_held(socket->link);
    if (conn->state == CONN_LINGERING || (conn->state == CONN_UP && may_read))
        events |= UV_READABLE;
    if (events == socket->events)
        return;
    socket->events = events;
    if (events == 0)
        uv_poll_stop(&socket->poll);
    else
        uv_poll_start(&socket->poll, events, on_poll);
}

static void socket_refresh(struct conn *conn)
{
    // An error of sending shows in the poll, or in the read behind what the peer said before.
    if (link_flush(socket_of(conn)->link, driver_now_ns()) == DJ_OK)
        conn_was_flushed(conn);
    socket_update(conn);
}

// The peer sees the end of the stream once it has read everything; closing at once could make the system throw that away.
static void socket_finish(struct conn *conn)
{
    shutdown(link_fd(socket_of(conn)->link), SHUT_WR);
}

static void on_closed(uv_handle_t *handle)
{
    struct socket_conn *socket = handle->data;
    socket->conn.driver->stats.bytes_out += link_stats(socket->link).bytes_out;
    link_free(socket->link);
    conn_forget(&socket->conn);
    free(socket);
}

static void socket_close(struct conn *conn)
{
    uv_close((uv_handle_t *)&socket_of(conn)->poll, on_closed);
}

static const struct conn_ops socket_ops = {
    .receive = socket_receive,
    .send = socket_send,
    .queued_bytes = socket_queued_bytes,
    .update = socket_update,
    .refresh = socket_refresh,
    .finish = socket_finish,
    .close = socket_close,
};

static void end_opening(struct socket_conn *socket)
{
    int reason = 0;
    socklen_t bytes = sizeof reason;
    if (getsockopt(link_fd(socket->link), SOL_SOCKET, SO_ERROR, &reason, &bytes) != 0 || reason != 0)
        conn_is_down(&socket->conn, reason == ETIMEDOUT ? DJ_E_TIMEOUT : DJ_E_CLOSED);
    else
        conn_is_up(&socket->conn);
}

// Reads on until the peer has seen our end and closes too; what it says meanwhile is nobody's business any more.
static void read_to_the_end(struct socket_conn *socket)
{
    char nothing[4096];
    ssize_t got = recv(link_fd(socket->link), nothing, sizeof nothing, MSG_DONTWAIT);
    if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR))
        conn_is_down(&socket->conn, DJ_E_CLOSED);
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct socket_conn *socket = poll->data;
    struct conn *conn = &socket->conn;
    conn->driver->is_due = true;
    if (status < 0) {
        conn_is_down(conn, DJ_E_CLOSED);
        return;
    }
    if (conn->state == CONN_OPENING) {
        end_opening(socket);
        return;
    }
    if ((events & UV_WRITABLE) != 0) {
        enum dj_error error = link_flush(socket->link, driver_now_ns());
        if (error == DJ_OK)
            conn_was_flushed(conn);
        else if (conn->state == CONN_LINGERING)
            conn_is_down(conn, error);
    }
    if ((events & UV_READABLE) != 0 && conn->state == CONN_LINGERING)
        read_to_the_end(socket);
    else if ((events & UV_READABLE) != 0)
        conn_is_readable(conn);
    socket_update(conn);
}

// Makes a connection of `fd`, which it owns in every case.
static struct socket_conn *socket_make(struct driver *driver, int fd, uint64_t request)
{
    struct socket_conn *socket = calloc(1, sizeof *socket);
    if (socket == NULL || link_make(fd, CONN_BULK_BUDGET_BYTES, &socket->link) != DJ_OK) {
        close(fd);
        free(socket);
        return NULL;
    }
    if (uv_poll_init_socket(&driver->loop, &socket->poll, fd) != 0) {
        link_free(socket->link);
        free(socket);
        return NULL;
    }
    socket->poll.data = socket;
    if (conn_init(driver, &socket->conn, &socket_ops, request) != DJ_OK) {
        // libuv must let go of the handle before its memory goes.
        socket->conn.driver = driver;
        list_init(&socket->conn.all);
        list_init(&socket->conn.hungry);
        uv_close((uv_handle_t *)&socket->poll, on_closed);
        return NULL;
    }
    return socket;
}

void socket_open(struct driver *driver, uint64_t request, const char *address)
{
    int fd = -1;
    struct fault fault = {0};
    enum dj_error error = link_dial(address, &fd, &fault);
    struct socket_conn *socket = error == DJ_OK ? socket_make(driver, fd, request) : NULL;
    if (socket == NULL) {
        log_write(LOG_INFO, "driver", "%s", error == DJ_OK ? "no memory for a connection" : fault.text);
        conn_open_failed(driver, request, error == DJ_OK ? DJ_E_NO_MEMORY : error);
        return;
    }
    socket->conn.is_local = strncmp(address, "unix://", 7) == 0;
    socket_update(&socket->conn);
}

static void on_connection(uv_poll_t *poll, int status, int events)
{
    (void)events;
    struct listener *listener = poll->data;
    struct driver *driver = listener->driver;
    driver->is_due = true;
    enum dj_error error = status == 0 ? DJ_OK : DJ_E_SYSTEM;
    for (int left = CONN_BURST_MESSAGES; left > 0 && error == DJ_OK; left--) {
        int fd;
        error = link_accept(listener->fd, &fd);
        if (error != DJ_OK)
            break;
        struct socket_conn *socket = socket_make(driver, fd, 0);
        if (socket == NULL) {
            log_write(LOG_WARN, "driver", "a connection was turned away: too many, or no memory");
            continue;
        }
        socket->conn.is_local = listener->is_unix;
        socket->conn.listener = listener->index;
        conn_is_up(&socket->conn);
    }
    // No descriptors left, most likely: the connection still waits, and would wake us for ever.
    if (error == DJ_E_SYSTEM) {
        log_write(LOG_WARN, "driver", "connections cannot be accepted now; is the limit on open files (ulimit -n) too low?");
        uv_poll_stop(poll);
        listener->is_resting = true;
        driver_sweep_soon(driver);
    }
}

void socket_listener_resume(struct listener *listener)
{
    if (!listener->is_resting)
        return;
    listener->is_resting = false;
    uv_poll_start(&listener->poll, UV_READABLE, on_connection);
}

enum dj_error socket_listen(struct driver *driver, struct listener *listener, const char *address, char *bound,
                            struct fault *fault)
{
    enum dj_error error = link_listen(address, &listener->fd, bound, fault);
    if (error != DJ_OK)
        return error;
    if (uv_poll_init_socket(&driver->loop, &listener->poll, listener->fd) != 0) {
        close(listener->fd);
        return fault_set(fault, DJ_E_SYSTEM, "%s: cannot wait for connections", address);
    }
    listener->is_unix = strncmp(bound, "unix://", 7) == 0;
    if (listener->is_unix)
        strcpy(listener->path, bound + 7);
    listener->poll.data = listener;
    uv_poll_start(&listener->poll, UV_READABLE, on_connection);
    return DJ_OK;
}

static void on_listener_closed(uv_handle_t *handle)
{
    struct listener *listener = handle->data;
    close(listener->fd);
    free(listener);
}

void socket_listener_close(struct listener *listener)
{
    if (listener->is_unix)
        unlink(listener->path);
    uv_close((uv_handle_t *)&listener->poll, on_listener_closed);
}
