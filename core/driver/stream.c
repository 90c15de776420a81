// Stream: connections over nng's byte streams, for the head's one address. The frames are core/link's.
//
// nng calls back on its own threads; each connection has at most one read and one write under way, and their completions come through the
// inbox as nodes that live in the connection. So the loop thread alone touches the reader, except for the bytes that nng fills between the start of
// a read and its node.
//
// The queue and what is being written are the driver's pulse thread's too (pulse.c), under driver->write_lock: it goes on with a write that has
// ended, and begins one, while the loop is busy. A node tells the loop that at least one write has ended; it is in the inbox once at most.

#include "core/driver/loop.h"

#include "core/base/assert.h"
#include "core/base/log.h"
#include "core/io/blob.h"
#include "core/link/frame_queue.h"
#include "core/link/frame_reader.h"

#include <nng/nng.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

enum {
    STREAM_BUFFER_BYTES = 32 << 10,
    STREAM_SPANS = 8,
    STREAM_HEADERS = 4,
    ACCEPT_PAUSE_MS = 50
};    // nng takes at most 8 spans

// One asynchronous operation of nng, and the node that tells of its end.
struct operation {
    struct inbox_node node;
    struct driver *driver;
    nng_aio *aio;
    bool is_running;
};

struct stream_conn {
    struct conn conn;
    nng_stream *stream;
    nng_stream_dialer *dialer;    // while opening
    struct operation dial, read, write;
    struct frame_reader reader;
    enum dj_error error;
    uint64_t peer;    // for faults: who is at the other end
    // Under write_lock, with write.is_running.
    struct frame_queue queue;
    bool has_failed;       // to write
    uint64_t bytes_out;    // that the driver's statistics do not have yet
    // nng's thread sets it when a write has ended (release), whoever settles that write takes it (acquire): the result is seen with it.
    bool is_written;
    // Whether write.node is in the inbox. Acquire and release, so that a write that ends while the loop takes the node is not missed.
    bool is_told;
    uint8_t header[STREAM_HEADERS][WIRE_HEADER_BYTES];    // of what is being written: the queue may move its own meanwhile
    size_t at, end;                                       // of what was read and not yet taken
    uint8_t buffer[STREAM_BUFFER_BYTES];
};

struct stream_listener {
    struct listener *listener;
    nng_stream_listener *nng;
    struct operation accept;
    bool is_closed;
    bool is_pausing;    // `accept` sleeps: no descriptor was left for another connection
};

static struct stream_conn *stream_of(const struct conn *conn)
{
    return (struct stream_conn *)(uintptr_t)conn;
}

static void on_done(void *argument)
{
    struct operation *operation = argument;
    driver_push(operation->driver, &operation->node);
}

static void on_write_done(void *argument)
{
    struct stream_conn *stream = argument;
    __atomic_store_n(&stream->is_written, true, __ATOMIC_RELEASE);
    if (!__atomic_exchange_n(&stream->is_told, true, __ATOMIC_ACQ_REL))
        driver_push(stream->write.driver, &stream->write.node);
}

static bool operation_init(struct operation *operation, struct driver *driver,
                           void (*handle)(struct driver *, struct inbox_node *))
{
    operation->driver = driver;
    operation->node.handle = handle;
    return nng_aio_alloc(&operation->aio, on_done, operation) == 0;
}

static bool write_init(struct stream_conn *stream, struct driver *driver, void (*handle)(struct driver *, struct inbox_node *))
{
    stream->write.driver = driver;
    stream->write.node.handle = handle;
    return nng_aio_alloc(&stream->write.aio, on_write_done, stream) == 0;
}

static void operation_free(struct operation *operation)
{
    if (operation->aio != NULL)
        nng_aio_free(operation->aio);
}

// Reading ----------------------------------------------------------------------------------------------------------------

// Or the loop has yet to hear that it was.
static bool is_writing(struct stream_conn *stream)
{
    struct driver *driver = stream->conn.driver;
    pthread_mutex_lock(&driver->write_lock);
    bool is_running = stream->write.is_running;
    pthread_mutex_unlock(&driver->write_lock);
    return is_running || __atomic_load_n(&stream->is_told, __ATOMIC_ACQUIRE);
}

static void free_if_idle(struct stream_conn *stream)
{
    if (stream->conn.state != CONN_CLOSED || stream->dial.is_running || stream->read.is_running || is_writing(stream))
        return;
    pulse_forget(stream->conn.driver, &stream->conn);
    operation_free(&stream->dial);
    operation_free(&stream->read);
    operation_free(&stream->write);
    if (stream->stream != NULL)
        nng_stream_free(stream->stream);
    if (stream->dialer != NULL)
        nng_stream_dialer_free(stream->dialer);
    frame_reader_free(&stream->reader);
    frame_queue_free(&stream->queue);
    conn_forget(&stream->conn);
    free(stream);
}

static void read_more(struct stream_conn *stream)
{
    if (stream->read.is_running || stream->at != stream->end || stream->error != DJ_OK)
        return;
    nng_iov span = {.iov_buf = stream->buffer, .iov_len = sizeof stream->buffer};
    stream->read.is_running = true;
    nng_aio_set_iov(stream->read.aio, 1, &span);
    nng_stream_recv(stream->stream, stream->read.aio);
}

static void on_read(struct driver *driver, struct inbox_node *node)
{
    struct stream_conn *stream = (struct stream_conn *)(void *)((char *)node - offsetof(struct stream_conn, read.node));
    stream->read.is_running = false;
    driver->is_due = true;
    if (nng_aio_result(stream->read.aio) != 0) {
        stream->error = DJ_E_CLOSED;
    } else {
        stream->at = 0;
        stream->end = nng_aio_count(stream->read.aio);
        driver->stats.bytes_in += stream->end;
    }
    if (stream->conn.state == CONN_UP)
        conn_is_readable(&stream->conn);
    else if (stream->conn.state == CONN_LINGERING && stream->error != DJ_OK)
        conn_is_down(&stream->conn, stream->error);
    else if (stream->conn.state == CONN_LINGERING)
        stream->conn.ops->update(&stream->conn);
    free_if_idle(stream);
}

static bool is_held(const struct stream_conn *stream)
{
    return link_faults_are_on() && link_faults_held_until_ns(stream->peer) != 0;
}

// As core/link: learns who is there, and does not let a peer in that this process is parted from.
static enum dj_error know_peer(struct stream_conn *stream, struct link_message *message)
{
    uint64_t peer = link_faults_peer(message);
    stream->peer = peer != 0 ? peer : stream->peer;
    if (!is_held(stream))
        return DJ_OK;
    blob_drop(message->body);
    blob_drop(message->bulk);
    *message = (struct link_message){0};
    return stream->error = DJ_E_CLOSED;
}

static enum dj_error stream_receive(struct conn *conn, struct link_message *ret)
{
    struct stream_conn *stream = stream_of(conn);
    ret->message = 0;
    if (is_held(stream))
        return DJ_OK;
    if (stream->at != stream->end) {
        const uint8_t *data = stream->buffer + stream->at;
        size_t bytes = stream->end - stream->at;
        enum dj_error error = frame_reader_feed(&stream->reader, &data, &bytes, ret);
        stream->at = stream->end - bytes;
        bool is_greeting = ret->message == WIRE_HELLO || ret->message == WIRE_HELLO_OK;
        if (is_greeting && knob(KNOB_ALLOWED) != 0)
            return know_peer(stream, ret);
        if (error != DJ_OK || ret->message != 0) {
            stream->error = error;
            return error;
        }
    }
    read_more(stream);
    return stream->error;
}

// Writing ----------------------------------------------------------------------------------------------------------------

// A write that has ended: its bytes are gone from the queue. Under write_lock.
static void settle_write(struct stream_conn *stream)
{
    if (!stream->write.is_running || !__atomic_exchange_n(&stream->is_written, false, __ATOMIC_ACQUIRE))
        return;
    stream->write.is_running = false;
    bool has_failed = nng_aio_result(stream->write.aio) != 0;
    size_t bytes = has_failed ? 0 : nng_aio_count(stream->write.aio);
    frame_queue_advance(&stream->queue, bytes);
    stream->bytes_out += bytes;
    stream->has_failed = stream->has_failed || has_failed;
}

// The queue's own headers move when it grows, which may be while nng reads them.
static uint32_t gather(struct stream_conn *stream, nng_iov nng_spans[STREAM_SPANS])
{
    struct iovec spans[STREAM_SPANS];
    uint32_t count = frame_queue_gather(&stream->queue, spans, STREAM_SPANS), headers = 0;
    const char *first = (const char *)stream->queue.slot, *end = (const char *)(stream->queue.slot + stream->queue.slots);
    for (uint32_t i = 0; i < count; i++) {
        const char *at = spans[i].iov_base;
        if (at >= first && at < end) {
            assert(headers < STREAM_HEADERS && spans[i].iov_len <= WIRE_HEADER_BYTES);
            memcpy(stream->header[headers], at, spans[i].iov_len);
            spans[i].iov_base = stream->header[headers++];
        }
        nng_spans[i] = (nng_iov){.iov_buf = spans[i].iov_base, .iov_len = spans[i].iov_len};
    }
    return count;
}

// Under write_lock.
static void begin_write(struct stream_conn *stream)
{
    nng_iov spans[STREAM_SPANS];
    if (stream->write.is_running || stream->stream == NULL || stream->has_failed)
        return;
    frame_queue_expire(&stream->queue, driver_now_ns());
    stream->queue.held_until_ns = link_faults_are_on() ? link_faults_held_until_ns(stream->peer) : 0;
    uint32_t count = gather(stream, spans);
    if (count == 0)
        return;
    stream->write.is_running = true;
    nng_aio_set_iov(stream->write.aio, count, spans);
    nng_stream_send(stream->stream, stream->write.aio);
}

static void write_more(struct stream_conn *stream)
{
    struct driver *driver = stream->conn.driver;
    pthread_mutex_lock(&driver->write_lock);
    settle_write(stream);
    if (stream->error != DJ_E_CLOSED)
        begin_write(stream);
    pthread_mutex_unlock(&driver->write_lock);
}

void stream_pulse(struct conn *conn, struct blob *body)
{
    struct stream_conn *stream = stream_of(conn);
    settle_write(stream);
    // Behind what is being written it would only lengthen the queue; what is written is a sign of life only once it has left.
    if (stream->write.is_running || stream->has_failed ||
        frame_queue_add(&stream->queue, WIRE_HEARTBEAT, blob_hold(body), NULL, 0, 0, 0) != DJ_OK)
        return;
    begin_write(stream);
}

static void on_written(struct driver *driver, struct inbox_node *node)
{
    struct stream_conn *stream = (struct stream_conn *)(void *)((char *)node - offsetof(struct stream_conn, write.node));
    __atomic_store_n(&stream->is_told, false, __ATOMIC_RELEASE);
    driver->is_due = true;
    pthread_mutex_lock(&driver->write_lock);
    settle_write(stream);
    bool has_failed = stream->has_failed;
    driver->stats.bytes_out += stream->bytes_out;
    stream->bytes_out = 0;
    pthread_mutex_unlock(&driver->write_lock);
    if (has_failed && stream->conn.state != CONN_CLOSED) {
        conn_is_down(&stream->conn, DJ_E_CLOSED);
    } else if (stream->conn.state != CONN_CLOSED) {
        conn_was_flushed(&stream->conn);
        write_more(stream);
    }
    free_if_idle(stream);
}

static enum dj_error stream_send(struct conn *conn, const struct io_effect *effect)
{
    struct stream_conn *stream = stream_of(conn);
    struct driver *driver = conn->driver;
    if (effect->send.message == WIRE_HEARTBEAT)
        pulse_follow(driver, conn, effect->send.body);
    pthread_mutex_lock(&driver->write_lock);
    enum dj_error error = frame_queue_add(&stream->queue, effect->send.message, effect->send.body, effect->send.bulk,
                                          effect->send.bulk_offset, effect->send.bulk_bytes, effect->send.not_after_ns);
    pthread_mutex_unlock(&driver->write_lock);
    return error;
}

static uint64_t stream_queued_bytes(const struct conn *conn)
{
    pthread_mutex_lock(&conn->driver->write_lock);
    uint64_t bytes = stream_of(conn)->queue.bytes;
    pthread_mutex_unlock(&conn->driver->write_lock);
    return bytes;
}

static void stream_update(struct conn *conn)
{
    struct stream_conn *stream = stream_of(conn);
    if (conn->state != CONN_UP && conn->state != CONN_LINGERING)
        return;
    write_more(stream);
    if (conn->state == CONN_LINGERING)
        stream->at = stream->end;    // what the peer says now is nobody's business any more
    read_more(stream);
}

static void stream_refresh(struct conn *conn)
{
    write_more(stream_of(conn));
}

// nng cannot close one direction: the peer gets the end once everything is written.
static void stream_finish(struct conn *conn)
{
    conn_is_down(conn, DJ_E_CLOSED);
}

static void stream_close(struct conn *conn)
{
    struct stream_conn *stream = stream_of(conn);
    pulse_forget(conn->driver, conn);
    if (stream->stream != NULL)
        nng_stream_close(stream->stream);
    if (stream->dialer != NULL)
        nng_stream_dialer_close(stream->dialer);
    if (stream->dial.is_running || stream->read.is_running || is_writing(stream))
        return;
    // Nothing is under way that would come back and free it; freed from the inbox all the same, since the caller still holds it.
    stream->dial.is_running = true;
    driver_push(conn->driver, &stream->dial.node);
}

static const struct conn_ops stream_ops = {
    .receive = stream_receive,
    .send = stream_send,
    .queued_bytes = stream_queued_bytes,
    .update = stream_update,
    .refresh = stream_refresh,
    .finish = stream_finish,
    .close = stream_close,
};

// Opening ----------------------------------------------------------------------------------------------------------------

static void on_dialled(struct driver *driver, struct inbox_node *node)
{
    struct stream_conn *stream = (struct stream_conn *)(void *)((char *)node - offsetof(struct stream_conn, dial.node));
    stream->dial.is_running = false;
    driver->is_due = true;
    if (stream->conn.state == CONN_OPENING) {
        int failure = nng_aio_result(stream->dial.aio);
        if (failure == 0) {
            stream->stream = nng_aio_get_output(stream->dial.aio, 0);
            conn_is_up(&stream->conn);
        } else {
            conn_is_down(&stream->conn, failure == NNG_ETIMEDOUT ? DJ_E_TIMEOUT : DJ_E_CLOSED);
        }
    } else if (stream->dialer != NULL && stream->stream == NULL && nng_aio_result(stream->dial.aio) == 0) {
        stream->stream = nng_aio_get_output(stream->dial.aio, 0);    // it came up after it was given up
    }
    free_if_idle(stream);
}

static struct stream_conn *stream_make(struct driver *driver, uint64_t request)
{
    struct stream_conn *stream = malloc(sizeof *stream);
    if (stream == NULL)
        return NULL;
    memset(stream, 0, offsetof(struct stream_conn, buffer));
    bool is_ready = operation_init(&stream->dial, driver, on_dialled) && operation_init(&stream->read, driver, on_read) &&
                    write_init(stream, driver, on_written);
    if (!is_ready || conn_init(driver, &stream->conn, &stream_ops, request) != DJ_OK) {
        operation_free(&stream->dial);
        operation_free(&stream->read);
        operation_free(&stream->write);
        free(stream);
        return NULL;
    }
    frame_reader_init(&stream->reader, CONN_BULK_BUDGET_BYTES);
    frame_queue_init(&stream->queue);
    return stream;
}

static void tcp_url(const char *address, char url[IO_ADDRESS_MAX])
{
    snprintf(url, IO_ADDRESS_MAX, "tcp://%s", address + strlen("head://"));
}

void stream_open(struct driver *driver, uint64_t request, const char *address)
{
    struct stream_conn *stream = stream_make(driver, request);
    if (stream == NULL) {
        conn_open_failed(driver, request, DJ_E_NO_MEMORY);
        return;
    }
    char url[IO_ADDRESS_MAX];
    tcp_url(address, url);
    int failure = nng_stream_dialer_alloc(&stream->dialer, url);
    if (failure != 0) {
        log_write(LOG_WARN, "driver", "%s: cannot connect: %s", address, nng_strerror(failure));
        stream->dialer = NULL;
        conn_is_down(&stream->conn, failure == NNG_ENOMEM ? DJ_E_NO_MEMORY : DJ_E_ADDRESS);
        return;
    }
    stream->dial.is_running = true;
    nng_stream_dialer_dial(stream->dialer, stream->dial.aio);
}

// Listening --------------------------------------------------------------------------------------------------------------

static void on_accepted(struct driver *driver, struct inbox_node *node)
{
    struct stream_listener *listener = (struct stream_listener *)(void *)((char *)node -
                                                                          offsetof(struct stream_listener, accept.node));
    driver->is_due = true;
    int result = nng_aio_result(listener->accept.aio);
    bool was_pausing = listener->is_pausing;
    nng_stream *accepted = result == 0 && !was_pausing ? nng_aio_get_output(listener->accept.aio, 0) : NULL;
    listener->is_pausing = false;
    if (listener->is_closed) {
        if (accepted != NULL)
            nng_stream_free(accepted);
        nng_stream_listener_free(listener->nng);
        operation_free(&listener->accept);
        list_remove(&listener->listener->closing);
        free(listener->listener);
        free(listener);
        return;
    }
    if (accepted == NULL && !was_pausing) {
        // It would fail again at once, as often as a core can try.
        listener->is_pausing = true;
        nng_sleep_aio(ACCEPT_PAUSE_MS, listener->accept.aio);
        return;
    }
    struct stream_conn *stream = accepted == NULL ? NULL : stream_make(driver, 0);
    if (stream != NULL) {
        stream->stream = accepted;
        stream->conn.listener = listener->listener->index;
        conn_is_up(&stream->conn);
    } else if (accepted != NULL) {
        log_write(LOG_WARN, "driver", "a connection was turned away: too many, or no memory");
        nng_stream_free(accepted);
    }
    nng_stream_listener_accept(listener->nng, listener->accept.aio);
}

static enum dj_error refused(const char *address, int failure, struct fault *fault)
{
    const char *advice = failure == NNG_EADDRINUSE
                             ? "another process listens there: stop it, or choose another port (0 lets the system choose)"
                         : failure == NNG_EADDRINVAL ? "an address is HOST:PORT, and the host must be one of this machine's"
                                                     : "choose another address";
    return fault_set(fault, DJ_E_ADDRESS, "%s: cannot listen: %s; %s", address, nng_strerror(failure), advice);
}

enum dj_error stream_listen(struct driver *driver, struct listener *listener, const char *address, char *bound,
                            struct fault *fault)
{
    struct stream_listener *stream = calloc(1, sizeof *stream);
    if (stream == NULL || !operation_init(&stream->accept, driver, on_accepted)) {
        free(stream);
        return fault_set(fault, DJ_E_NO_MEMORY, "%s: no memory to listen", address);
    }
    char url[IO_ADDRESS_MAX];
    tcp_url(address, url);
    int port = 0;
    int failure = nng_stream_listener_alloc(&stream->nng, url);
    if (failure == 0)
        failure = nng_stream_listener_listen(stream->nng);
    if (failure == 0)
        failure = nng_stream_listener_get_int(stream->nng, NNG_OPT_TCP_BOUND_PORT, &port);
    const char *colon = strrchr(url, ':');
    if (failure != 0 || colon == NULL) {
        if (stream->nng != NULL)
            nng_stream_listener_free(stream->nng);
        operation_free(&stream->accept);
        free(stream);
        return refused(address, failure, fault);
    }
    int host_bytes = (int)(colon - url) - (int)strlen("tcp://");
    snprintf(bound, IO_ADDRESS_MAX, "head://%.*s:%d", host_bytes, url + strlen("tcp://"), port);
    stream->listener = listener;
    listener->stream = stream;
    list_init(&listener->closing);
    nng_stream_listener_accept(stream->nng, stream->accept.aio);
    return DJ_OK;
}

void stream_listener_close(struct listener *listener)
{
    listener->stream->is_closed = true;
    list_push(&listener->driver->closing, &listener->closing);
    nng_stream_listener_close(listener->stream->nng);
}
