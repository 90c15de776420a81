// Conn: the life of a connection, whatever carries its bytes: opening, up, lingering (the core has closed it, its last words are still
// leaving), closed.
//
// Backpressure goes both ways. A peer that does not read what it is sent is not read from (is_congested), and while the core's own queue is full
// nobody is. A peer whose bytes make no sense is told why in a FAILED before the connection ends.

#include "core/driver/loop.h"

#include "core/base/assert.h"
#include "core/base/log.h"
#include "core/io/blob.h"

#include <inttypes.h>
#include <stdio.h>

enum dj_error conn_init(struct driver *driver, struct conn *conn, const struct conn_ops *ops, uint64_t request)
{
    uint64_t id = driver->conn_next;
    enum dj_error error = map_put(driver->conns, map_key(id), conn);
    if (error != DJ_OK)
        return error;
    driver->conn_next++;
    *conn = (struct conn){.driver = driver, .ops = ops, .id = id, .request = request, .state = CONN_OPENING};
    uv_update_time(&driver->loop);    // the loop's own time is of the turn's beginning
    conn->deadline_ms = uv_now(&driver->loop) + CONN_OPEN_MS;
    list_init(&conn->hungry);
    list_push(&driver->all, &conn->all);
    driver_sweep_soon(driver);
    return DJ_OK;
}

struct conn *conn_find(struct driver *driver, uint64_t id)
{
    struct conn *conn = map_get(driver->conns, map_key(id));
    return conn != NULL && conn->state != CONN_CLOSED ? conn : NULL;
}

void conn_forget(struct conn *conn)
{
    map_take(conn->driver->conns, map_key(conn->id));
    list_remove(&conn->all);
    list_remove(&conn->hungry);
}

void conn_open_failed(struct driver *driver, uint64_t request, enum dj_error error)
{
    struct io_event event = {.kind = IO_LINK_DOWN};
    event.link_down.request = request;
    event.link_down.error = error;
    driver_post(driver, &event);
}

void conn_is_up(struct conn *conn)
{
    if (conn->state != CONN_OPENING)
        return;
    conn->state = CONN_UP;
    struct io_event event = {.kind = IO_LINK_UP};
    event.link_up.link = conn->id;
    event.link_up.request = conn->request;
    event.link_up.is_local = conn->is_local;
    event.link_up.listener = conn->listener;
    driver_post(conn->driver, &event);
    conn->ops->update(conn);
}

static void end(struct conn *conn)
{
    if (conn->state == CONN_CLOSED)
        return;
    conn->state = CONN_CLOSED;
    list_remove(&conn->hungry);
    conn->ops->close(conn);
}

static void tell_down(struct conn *conn, enum dj_error error)
{
    struct io_event event = {.kind = IO_LINK_DOWN};
    event.link_down.link = conn->state == CONN_UP ? conn->id : 0;
    event.link_down.request = conn->request;
    event.link_down.error = error;
    driver_post(conn->driver, &event);
}

void conn_is_down(struct conn *conn, enum dj_error error)
{
    if (conn->state == CONN_OPENING || conn->state == CONN_UP)
        tell_down(conn, error);
    end(conn);
}

static void linger(struct conn *conn)
{
    conn->state = CONN_LINGERING;
    uv_update_time(&conn->driver->loop);
    conn->deadline_ms = uv_now(&conn->driver->loop) + CONN_LINGER_MS;
    list_remove(&conn->hungry);
    driver_sweep_soon(conn->driver);
    if (conn->ops->queued_bytes(conn) == 0 && !conn->is_finished) {
        conn->is_finished = true;
        conn->ops->finish(conn);
    }
    if (conn->state == CONN_LINGERING)
        conn->ops->update(conn);
}

void conn_close(struct conn *conn)
{
    if (conn->state == CONN_UP)
        linger(conn);
    else if (conn->state == CONN_OPENING)
        end(conn);
}

// The peer speaks another language: say so in ours, and end.
static void refuse(struct conn *conn, enum dj_error error)
{
    log_write(LOG_WARN, "driver", "a peer's bytes make no sense; its connection ends link=%" PRIu64 " error=%s", conn->id,
              dj_error_name(error));
    struct wire_failed failed = {.error = error};
    snprintf(failed.text, sizeof failed.text, "%s (this process speaks protocol version %d)", dj_error_text(error), WIRE_VERSION);
    struct io_effect effect = {.kind = IO_SEND};
    effect.send.message = WIRE_FAILED;
    effect.send.body = wire_failed_encode(&failed);
    tell_down(conn, error);
    if (effect.send.body == NULL || conn->ops->send(conn, &effect) != DJ_OK)
        end(conn);
    else
        linger(conn);
}

void conn_is_readable(struct conn *conn)
{
    struct driver *driver = conn->driver;
    list_remove(&conn->hungry);
    for (int left = CONN_BURST_MESSAGES; conn->state == CONN_UP && !conn->is_congested; left--) {
        if (left == 0 || driver_is_stalled(driver)) {
            list_push(&driver->hungry, &conn->hungry);
            return;
        }
        struct link_message message;
        enum dj_error error = conn->ops->receive(conn, &message);
        if (error == DJ_E_CLOSED)
            conn_is_down(conn, error);
        else if (error != DJ_OK)
            refuse(conn, error);
        if (error != DJ_OK || message.message == 0)
            return;
        struct io_event event = {.kind = IO_RECV};
        event.recv.link = conn->id;
        event.recv.message = message.message;
        event.recv.body = message.body;
        event.recv.bulk = message.bulk;
        driver_post(driver, &event);
    }
}

void conn_was_flushed(struct conn *conn)
{
    uint64_t queued = conn->ops->queued_bytes(conn);
    if (conn->state == CONN_LINGERING && queued == 0 && !conn->is_finished) {
        conn->is_finished = true;
        conn->ops->finish(conn);
        return;
    }
    if (!conn->is_congested || queued > LINK_QUEUE_LOW_BYTES || conn->state != CONN_UP)
        return;
    conn->is_congested = false;
    struct io_event event = {.kind = IO_WRITABLE};
    event.writable.link = conn->id;
    driver_post(conn->driver, &event);
    if (list_is_empty(&conn->hungry))
        list_push(&conn->driver->hungry, &conn->hungry);
}

void conns_refresh(struct driver *driver)
{
    list_each (node, &driver->all) {
        struct conn *conn = list_entry(node, struct conn, all);
        if (conn->state != CONN_UP)
            continue;
        conn->ops->refresh(conn);
        if (conn->state == CONN_UP && list_is_empty(&conn->hungry))
            list_push(&driver->hungry, &conn->hungry);
    }
}

void conn_send(struct conn *conn, const struct io_effect *effect)
{
    if (conn->state != CONN_UP && conn->state != CONN_OPENING) {
        blob_drop(effect->send.body);
        blob_drop(effect->send.bulk);
        return;
    }
    enum dj_error error = conn->ops->send(conn, effect);
    if (error == DJ_E_LIMIT || error == DJ_E_INVALID || error == DJ_E_NO_MEMORY) {
        // A message left out would break the stream's order without anybody noticing.
        log_write(LOG_ERROR, "driver", "cannot send; the connection ends link=%" PRIu64 " message=%s error=%s", conn->id,
                  wire_name(effect->send.message), dj_error_name(error));
        conn_is_down(conn, error);
        return;
    }
    if (conn->ops->queued_bytes(conn) > LINK_QUEUE_HIGH_BYTES)
        conn->is_congested = true;
    conn->ops->update(conn);
}

bool conn_sweep(struct driver *driver, uint64_t now_ms)
{
    bool is_watching = false;
    list_each (node, &driver->all) {
        struct conn *conn = list_entry(node, struct conn, all);
        if (conn->state != CONN_OPENING && conn->state != CONN_LINGERING)
            continue;
        if (now_ms < conn->deadline_ms)
            is_watching = true;
        else
            conn_is_down(conn, DJ_E_TIMEOUT);
    }
    return is_watching;
}
