// Link: a frame reader and a frame queue on one descriptor. The manual is link.h.
//
// Small frames are read through a buffer, many in one system call; what is missing of a large body or bulk is read straight into its blob,
// with the buffer behind it for what follows. A read that gave less than was asked has emptied the socket, so the read that would only say
// EAGAIN is saved: a small message costs one system call.

#include "core/link/link.h"

#include "core/base/assert.h"
#include "core/link/faults.h"
#include "core/link/frame_queue.h"
#include "core/link/frame_reader.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum {
    BUFFER_BYTES = 16 << 10,
    DIRECT_BYTES_MIN = 4 << 10,    // below it, copying out of the buffer is cheaper than a second span
    BURST_BYTES = 1 << 20,         // read by one call before other links get their turn
    SPANS = 48,
};

struct link {
    int fd;
    // Apart, so that a peer's last words are read although nothing can be written to it any more.
    enum dj_error send_error, receive_error;
    bool is_drained;    // the last read emptied the socket
    uint64_t peer;      // for faults: who is at the other end
    uint64_t bytes_in, bytes_out;
    struct frame_reader reader;
    struct frame_queue queue;
    size_t buffer_at, buffer_end;
    uint8_t buffer[BUFFER_BYTES];
};

enum dj_error link_make(int fd, uint64_t bulk_budget_bytes, struct link **ret)
{
    struct link *link = malloc(sizeof *link);
    if (link == NULL)
        return DJ_E_NO_MEMORY;
    link->fd = fd;
    link->send_error = link->receive_error = DJ_OK;
    link->is_drained = false;
    link->peer = 0;
    link->bytes_in = link->bytes_out = 0;
    link->buffer_at = link->buffer_end = 0;
    frame_reader_init(&link->reader, bulk_budget_bytes);
    frame_queue_init(&link->queue);
    *ret = link;
    return DJ_OK;
}

void link_free(struct link *link)
{
    if (link == NULL)
        return;
    close(link->fd);
    frame_reader_free(&link->reader);
    frame_queue_free(&link->queue);
    free(link);
}

int link_fd(const struct link *link)
{
    return link->fd;
}

// Sending ----------------------------------------------------------------------------------------------------------------

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec + knob(KNOB_CLOCK_JUMP_NS);
}

bool link_is_held(const struct link *link)
{
    return link_faults_are_on() && link_faults_held_until_ns(link->peer) != 0;
}

enum dj_error link_flush(struct link *link, uint64_t time_ns)
{
    if (link->send_error != DJ_OK)
        return link->send_error;
    frame_queue_expire(&link->queue, time_ns);
    link->queue.held_until_ns = link_faults_are_on() ? link_faults_held_until_ns(link->peer) : 0;
    while (!frame_queue_is_empty(&link->queue)) {
        struct iovec spans[SPANS];
        struct msghdr message = {.msg_iov = spans, .msg_iovlen = frame_queue_gather(&link->queue, spans, SPANS)};
        if (message.msg_iovlen == 0)
            return DJ_OK;    // held back, or not yet due
        ssize_t sent = sendmsg(link->fd, &message, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0 && (errno == EAGAIN || errno == ENOTCONN || errno == ENOBUFS)) {
            frame_queue_advance(&link->queue, 0);
            return DJ_OK;
        }
        if (sent < 0)
            return link->send_error = DJ_E_CLOSED;
        link->bytes_out += (uint64_t)sent;
        frame_queue_advance(&link->queue, (size_t)sent);
    }
    return DJ_OK;
}

enum dj_error link_send(struct link *link, uint16_t message, struct blob *body, struct blob *bulk, uint64_t bulk_offset,
                        uint64_t bulk_bytes, uint64_t not_after_ns)
{
    if (link->send_error != DJ_OK) {
        blob_drop(body);
        blob_drop(bulk);
        return link->send_error;
    }
    bool had_room = frame_queue_is_empty(&link->queue);
    enum dj_error error = frame_queue_add(&link->queue, message, body, bulk, bulk_offset, bulk_bytes, not_after_ns);
    if (error != DJ_OK)
        return error == DJ_E_LIMIT ? (link->send_error = DJ_E_LIMIT) : error;
    // Behind others it waits for its turn: the socket was full a moment ago.
    return had_room ? link_flush(link, not_after_ns == 0 ? 0 : now_ns()) : DJ_OK;
}

bool link_wants_write(const struct link *link)
{
    return link->send_error == DJ_OK && frame_queue_is_due(&link->queue);
}

bool link_is_congested(const struct link *link)
{
    return link->queue.bytes > LINK_QUEUE_HIGH_BYTES;
}

size_t link_queued_bytes(const struct link *link)
{
    return link->queue.bytes;
}

// Receiving --------------------------------------------------------------------------------------------------------------

enum outcome { READ_SOME, READ_NOTHING, READ_FAILED };

// One read: into the rest of a large part and the buffer, or into the buffer alone, which is empty. *ret as frame_reader_filled gives it.
static enum outcome read_once(struct link *link, struct link_message *ret)
{
    uint8_t *at;
    size_t direct = frame_reader_span(&link->reader, &at);
    if (direct < DIRECT_BYTES_MIN)
        direct = 0;
    struct iovec spans[2] = {{.iov_base = at, .iov_len = direct}, {.iov_base = link->buffer, .iov_len = BUFFER_BYTES}};
    ssize_t got;
    do {
        got = direct == 0 ? read(link->fd, link->buffer, BUFFER_BYTES) : readv(link->fd, spans, 2);
    } while (got < 0 && errno == EINTR);
    if (got < 0 && (errno == EAGAIN || errno == ENOTCONN))
        return READ_NOTHING;
    if (got <= 0) {
        link->receive_error = DJ_E_CLOSED;
        return READ_FAILED;
    }
    size_t bytes = (size_t)got;
    link->bytes_in += bytes;
    link->is_drained = bytes < direct + BUFFER_BYTES;
    size_t filled = bytes < direct ? bytes : direct;
    link->buffer_at = 0;
    link->buffer_end = bytes - filled;
    if (filled > 0)
        link->receive_error = frame_reader_filled(&link->reader, filled, ret);
    return link->receive_error == DJ_OK ? READ_SOME : READ_FAILED;
}

// For faults: learns from a greeting who is there. A new link to a peer that this process is parted from does not come up.
static enum dj_error know_peer(struct link *link, struct link_message *message)
{
    uint64_t peer = link_faults_peer(message);
    link->peer = peer != 0 ? peer : link->peer;
    if (!link_is_held(link))
        return DJ_OK;
    blob_drop(message->body);
    blob_drop(message->bulk);
    *message = (struct link_message){0};
    return link->receive_error = DJ_E_CLOSED;
}

static enum dj_error receive(struct link *link, struct link_message *ret)
{
    uint64_t burst_end = link->bytes_in + BURST_BYTES;
    ret->message = 0;
    while (link->receive_error == DJ_OK) {
        const uint8_t *data = link->buffer + link->buffer_at;
        size_t bytes = link->buffer_end - link->buffer_at;
        if (bytes > 0) {
            link->receive_error = frame_reader_feed(&link->reader, &data, &bytes, ret);
            link->buffer_at = link->buffer_end - bytes;
            if (link->receive_error != DJ_OK || ret->message != 0)
                break;
        }
        if (link->is_drained || link->bytes_in >= burst_end) {
            link->is_drained = false;
            break;
        }
        enum outcome outcome = read_once(link, ret);
        if (outcome == READ_NOTHING || ret->message != 0)
            break;
    }
    return link->receive_error;
}

enum dj_error link_receive(struct link *link, struct link_message *ret)
{
    if (link_is_held(link)) {
        ret->message = 0;
        return DJ_OK;
    }
    enum dj_error error = receive(link, ret);
    bool is_greeting = ret->message == WIRE_HELLO || ret->message == WIRE_HELLO_OK;
    return is_greeting && knob(KNOB_ALLOWED) != 0 ? know_peer(link, ret) : error;
}

struct link_stats link_stats(const struct link *link)
{
    return (struct link_stats){
        .bytes_in = link->bytes_in,
        .bytes_out = link->bytes_out,
        .messages_in = link->reader.messages,
        .messages_out = link->queue.messages,
        .checksum_failures = link->reader.checksum_failures,
    };
}
