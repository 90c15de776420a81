// Links over socket pairs and real listeners: whatever the pieces in which bytes come, the messages are the same; whatever is wrong with them,
// the error says so.

#include "core/link/link.h"

#include "core/io/io.h"
#include "core/wire/wire.h"
#include "tests/lib/case.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CHUNK_MAX = 300000 };

static void free_link(void *link)
{
    link_free(link);
}

static void close_fd(void *fd)
{
    close((int)(intptr_t)fd);
}

// A link, and the bare other end of its socket pair.
static struct link *link_and_end(void **state, int *ret_end)
{
    int fds[2];
    struct link *link = NULL;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    assert_ok(link_make(fds[0], WIRE_BULK_MAX, &link));
    case_later(state, free_link, link);
    if (state != NULL)
        case_later(state, close_fd, (void *)(intptr_t)fds[1]);
    *ret_end = fds[1];
    return link;
}

static struct blob *random_blob(struct prng *prng, size_t bytes)
{
    struct blob *blob = blob_make(bytes);
    assert_non_null(blob);
    for (size_t i = 0; i < bytes; i++)
        blob->data[i] = (uint8_t)prng_next(prng);
    return blob;
}

// The bytes of one LEAF_DATA frame with the given number, body and bulk; the caller frees them.
static uint8_t *frame_of(uint32_t number, const struct blob *body, const struct blob *bulk, size_t *ret_bytes)
{
    size_t bulk_bytes = bulk == NULL ? 0 : bulk->bytes;
    uint8_t *frame = malloc(WIRE_HEADER_BYTES + body->bytes + bulk_bytes);
    assert_non_null(frame);
    wire_header_write(frame, number, WIRE_LEAF_DATA, body->data, (uint32_t)body->bytes, bulk == NULL ? NULL : bulk->data,
                      bulk_bytes);
    memcpy(frame + WIRE_HEADER_BYTES, body->data, body->bytes);
    if (bulk != NULL)
        memcpy(frame + WIRE_HEADER_BYTES + body->bytes, bulk->data, bulk_bytes);
    *ret_bytes = WIRE_HEADER_BYTES + body->bytes + bulk_bytes;
    return frame;
}

static void a_frame_arrives_whole_however_it_is_cut(void **state)
{
    for (uint64_t seed = 1; seed <= 60; seed++) {
        struct prng prng = case_prng(state, seed);
        int end;
        struct link *link = link_and_end(state, &end);
        enum { FRAMES = 4 };
        struct blob *body[FRAMES], *bulk[FRAMES];
        uint8_t *stream = NULL;
        size_t length = 0;
        for (int i = 0; i < FRAMES; i++) {
            body[i] = random_blob(&prng, prng_between(&prng, 0, 30));
            bulk[i] = prng_chance(&prng, 1, 3) ? NULL : random_blob(&prng, prng_between(&prng, 1, 40000));
            size_t bytes;
            uint8_t *frame = frame_of((uint32_t)i, body[i], bulk[i], &bytes);
            stream = realloc(stream, length + bytes);
            memcpy(stream + length, frame, bytes);
            length += bytes;
            free(frame);
        }
        uint32_t got = 0;
        uint64_t largest = prng_chance(&prng, 1, 2) ? 50 : 20000;
        for (size_t at = 0; at < length;) {
            size_t piece = prng_between(&prng, 1, largest);
            piece = piece > length - at ? length - at : piece;
            assert_int_equal(write(end, stream + at, piece), piece);
            at += piece;
            for (;;) {
                struct link_message message;
                assert_ok(link_receive(link, &message));
                if (message.message == 0)
                    break;
                assert_int_equal(message.message, WIRE_LEAF_DATA);
                assert_int_equal(message.body->bytes, body[got]->bytes);
                assert_memory_equal(message.body->data, body[got]->data, body[got]->bytes);
                assert_int_equal(message.bulk == NULL, bulk[got] == NULL);
                if (message.bulk != NULL)
                    assert_memory_equal(message.bulk->data, bulk[got]->data, bulk[got]->bytes);
                blob_drop(message.body);
                blob_drop(message.bulk);
                got++;
            }
        }
        assert_int_equal(got, FRAMES);
        assert_int_equal(link_stats(link).bytes_in, length);
        for (int i = 0; i < FRAMES; i++) {
            blob_drop(body[i]);
            blob_drop(bulk[i]);
        }
        free(stream);
    }
}

static void a_large_bulk_passes_through_a_small_socket_buffer(void **state)
{
    struct prng prng = case_prng(state, 5);
    int fds[2], small = 4096;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
    struct link *a, *b;
    assert_ok(link_make(fds[0], WIRE_BULK_MAX, &a));
    assert_ok(link_make(fds[1], WIRE_BULK_MAX, &b));
    case_later(state, free_link, a);
    case_later(state, free_link, b);

    struct blob *bulk = random_blob(&prng, 3000000);
    struct wire_leaf_data leaf = {.bytes = bulk->bytes, .offset = 7};
    uint64_t offset = 1000, bytes = bulk->bytes - 5000;
    assert_ok(link_send(a, WIRE_LEAF_DATA, wire_leaf_data_encode(&leaf), blob_hold(bulk), offset, bytes, 0));
    assert_ok(link_send(a, WIRE_PING, wire_ping_encode(&(struct wire_ping){.number = 1}), NULL, 0, 0, 0));
    assert_true(link_wants_write(a));
    assert_true(link_queued_bytes(a) > 2000000);

    struct link_message message = {0};
    int turns = 0;
    while (message.message == 0 && turns++ < 100000) {
        assert_ok(link_flush(a, 0));
        assert_ok(link_receive(b, &message));
    }
    assert_int_equal(message.message, WIRE_LEAF_DATA);
    assert_int_equal(message.bulk->bytes, bytes);
    assert_memory_equal(message.bulk->data, bulk->data + offset, bytes);
    blob_drop(message.body);
    blob_drop(message.bulk);
    do {
        assert_ok(link_flush(a, 0));
        assert_ok(link_receive(b, &message));
    } while (message.message == 0);
    assert_int_equal(message.message, WIRE_PING);
    blob_drop(message.body);
    assert_false(link_wants_write(a));
    assert_int_equal(link_queued_bytes(a), 0);
    assert_int_equal(bulk->holders, 1);
    assert_int_equal(link_stats(a).messages_out, 2);
    assert_int_equal(link_stats(b).messages_in, 2);
    blob_drop(bulk);
}

// Everything that arrives after `bytes` bytes of a good stream and then the end of it.
static enum dj_error end_after(void **state, size_t bytes, uint32_t *ret_messages)
{
    struct prng prng = prng_make(3);
    int fds[2];
    struct link *link = NULL;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    assert_ok(link_make(fds[0], WIRE_BULK_MAX, &link));
    case_later(state, free_link, link);
    struct blob *body = random_blob(&prng, 10), *bulk = random_blob(&prng, 20);
    size_t length;
    uint8_t *frame = frame_of(0, body, bulk, &length);
    assert_int_equal(write(fds[1], frame, bytes < length ? bytes : length), bytes < length ? bytes : length);
    close(fds[1]);
    free(frame);
    blob_drop(body);
    blob_drop(bulk);

    *ret_messages = 0;
    for (;;) {
        struct link_message message;
        enum dj_error error = link_receive(link, &message);
        if (message.message != 0) {
            (*ret_messages)++;
            blob_drop(message.body);
            blob_drop(message.bulk);
        } else if (error != DJ_OK) {
            return error;
        }
    }
}

static void a_stream_that_ends_anywhere_is_closed_and_what_was_whole_arrived(void **state)
{
    for (size_t bytes = 0; bytes <= WIRE_HEADER_BYTES + 30; bytes++) {
        uint32_t messages;
        assert_error(DJ_E_CLOSED, end_after(state, bytes, &messages));
        assert_int_equal(messages, bytes == WIRE_HEADER_BYTES + 30);
    }
}

static enum dj_error receive_changed(void **state, size_t at, uint8_t mask)
{
    struct prng prng = prng_make(3);
    int end;
    struct link *link = link_and_end(state, &end);
    struct blob *body = random_blob(&prng, 10), *bulk = random_blob(&prng, 20);
    size_t length;
    uint8_t *frame = frame_of(0, body, bulk, &length);
    frame[at] ^= mask;
    assert_int_equal(write(end, frame, length), length);
    free(frame);
    blob_drop(body);
    blob_drop(bulk);
    struct link_message message;
    enum dj_error error = link_receive(link, &message);
    assert_int_equal(message.message, 0);
    if (error != DJ_OK)
        assert_error(error, link_receive(link, &message));    // it stays
    return error;
}

static void every_changed_byte_is_noticed_or_waits_for_more(void **state)
{
    for (size_t at = 0; at < WIRE_HEADER_BYTES + 30; at++) {
        enum dj_error error = receive_changed(state, at, 0x01);
        bool is_length = (at >= 8 && at < 12) || (at >= 16 && at < 24);
        assert_true(error != DJ_OK || is_length);
    }
    assert_error(DJ_E_FRAME_CORRUPT, receive_changed(state, 0, 0xFF));
    assert_error(DJ_E_VERSION, receive_changed(state, 4, 0x40));
    assert_error(DJ_E_FRAME_OVERSIZED, receive_changed(state, 11, 0x80));
    assert_error(DJ_E_FRAME_OVERSIZED, receive_changed(state, 23, 0x80));
    assert_error(DJ_E_FRAME_CORRUPT, receive_changed(state, WIRE_HEADER_BYTES + 3, 0x10));
    assert_error(DJ_E_FRAME_CORRUPT, receive_changed(state, WIRE_HEADER_BYTES + 25, 0x10));
}

static void random_bytes_are_an_error_and_never_a_message(void **state)
{
    for (uint64_t seed = 1; seed <= 200; seed++) {
        struct prng prng = case_prng(state, seed);
        int end;
        struct link *link = link_and_end(state, &end);
        uint8_t noise[200];
        for (size_t i = 0; i < sizeof noise; i++)
            noise[i] = (uint8_t)prng_next(&prng);
        memcpy(noise, "DJN1\x01", prng_between(&prng, 0, 5));
        assert_int_equal(write(end, noise, sizeof noise), sizeof noise);
        struct link_message message;
        assert_int_not_equal(link_receive(link, &message), DJ_OK);
        assert_int_equal(message.message, 0);
    }
}

static void a_peer_may_not_make_us_allocate_more_than_its_budget(void **state)
{
    int fds[2];
    struct link *link = NULL;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    assert_ok(link_make(fds[0], 1000, &link));
    case_later(state, free_link, link);
    struct blob *body = blob_copy("b", 1), *bulk = blob_make(1001);
    memset(bulk->data, 0, 1001);
    size_t length;
    uint8_t *frame = frame_of(0, body, bulk, &length);
    assert_int_equal(write(fds[1], frame, length), length);
    struct link_message message;
    assert_error(DJ_E_FRAME_OVERSIZED, link_receive(link, &message));
    free(frame);
    close(fds[1]);
    blob_drop(body);
    blob_drop(bulk);
}

static void a_message_that_no_receiver_would_take_is_refused_and_its_holds_are_dropped(void **state)
{
    int end;
    struct link *link = link_and_end(state, &end);
    struct blob *blob = blob_copy("some bytes that are too many", 28);
    assert_error(DJ_E_INVALID, link_send(link, 9999, blob_hold(blob), NULL, 0, 0, 0));
    assert_error(DJ_E_INVALID, link_send(link, WIRE_PING, blob_hold(blob), NULL, 0, 0, 0));    // longer than a PING can be
    assert_error(DJ_E_INVALID, link_send(link, WIRE_HELLO, blob_hold(blob), blob_hold(blob), 0, 0, 0));     // carries no bulk
    assert_error(DJ_E_INVALID, link_send(link, WIRE_VALUE, blob_hold(blob), blob_hold(blob), 20, 9, 0));    // outside the blob
    assert_int_equal(blob->holders, 1);
    assert_int_equal(link_queued_bytes(link), 0);
    blob_drop(blob);
}

static void what_is_too_late_is_not_sent_and_what_is_begun_is_finished(void **state)
{
    int fds[2], small = 4096;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
    struct link *a, *b;
    assert_ok(link_make(fds[0], WIRE_BULK_MAX, &a));
    assert_ok(link_make(fds[1], WIRE_BULK_MAX, &b));
    case_later(state, free_link, a);
    case_later(state, free_link, b);
    uint64_t far = UINT64_MAX - 1;
    struct blob *bulk = blob_make(500000);
    memset(bulk->data, 1, bulk->bytes);
    assert_ok(link_send(a, WIRE_LEAF_DATA, wire_leaf_data_encode(&(struct wire_leaf_data){0}), blob_hold(bulk), 0, 0, far));
    assert_ok(link_send(a, WIRE_PING, wire_ping_encode(&(struct wire_ping){.number = 1}), NULL, 0, 0, far));
    assert_ok(link_send(a, WIRE_PING, wire_ping_encode(&(struct wire_ping){.number = 2}), NULL, 0, 0, 0));
    assert_ok(link_flush(a, UINT64_MAX));
    struct link_message message = {0};
    uint16_t seen[2];
    for (int count = 0; count < 2;) {
        assert_ok(link_flush(a, UINT64_MAX));
        assert_ok(link_receive(b, &message));
        if (message.message == 0)
            continue;
        seen[count++] = message.message;
        if (message.message == WIRE_PING)
            assert_int_equal(message.body->data[0], 2);
        blob_drop(message.body);
        blob_drop(message.bulk);
    }
    assert_int_equal(seen[0], WIRE_LEAF_DATA);
    assert_int_equal(seen[1], WIRE_PING);
    assert_int_equal(bulk->holders, 1);
    blob_drop(bulk);
}

static void a_peer_that_is_gone_does_not_kill_us_and_its_last_words_are_read(void **state)
{
    int end;
    struct link *link = link_and_end(state, &end);
    struct blob *body = blob_copy("x", 1);
    size_t length;
    uint8_t *frame = frame_of(0, body, NULL, &length);
    assert_int_equal(write(end, frame, length), length);
    shutdown(end, SHUT_RDWR);
    free(frame);
    blob_drop(body);
    enum dj_error error = DJ_OK;
    for (int i = 0; i < 3 && error == DJ_OK; i++)
        error = link_send(link, WIRE_PING, wire_ping_encode(&(struct wire_ping){0}), NULL, 0, 0, 0);
    assert_error(DJ_E_CLOSED, error);    // and no SIGPIPE
    struct link_message message;
    assert_ok(link_receive(link, &message));
    assert_int_equal(message.message, WIRE_LEAF_DATA);
    blob_drop(message.body);
    for (error = DJ_OK; error == DJ_OK;)
        error = link_receive(link, &message);
    assert_error(DJ_E_CLOSED, error);
}

static void a_queue_over_its_mark_says_so(void **state)
{
    int end;
    struct link *link = link_and_end(state, &end);
    struct blob *bulk = blob_make(4 << 20);
    memset(bulk->data, 0, bulk->bytes);
    for (int i = 0; i < 18 && !link_is_congested(link); i++)
        assert_ok(link_send(link, WIRE_LEAF_DATA, wire_leaf_data_encode(&(struct wire_leaf_data){0}), blob_hold(bulk), 0, 0, 0));
    assert_true(link_is_congested(link));
    blob_drop(bulk);
}

static void connect_and_say_hello(void **state, const char *address, char bound[IO_ADDRESS_MAX])
{
    struct fault fault = {0};
    int listener, dialled, accepted;
    assert_ok(link_listen(address, &listener, bound, &fault));
    case_later(state, close_fd, (void *)(intptr_t)listener);
    assert_error(DJ_E_NOT_FOUND, link_accept(listener, &accepted));
    assert_ok(link_dial(bound, &dialled, &fault));
    poll(&(struct pollfd){.fd = listener, .events = POLLIN}, 1, 5000);
    assert_ok(link_accept(listener, &accepted));
    struct link *a, *b;
    assert_ok(link_make(dialled, 0, &a));
    assert_ok(link_make(accepted, 0, &b));
    case_later(state, free_link, a);
    case_later(state, free_link, b);
    poll(&(struct pollfd){.fd = dialled, .events = POLLOUT}, 1, 5000);
    assert_ok(link_send(a, WIRE_HELLO, wire_hello_encode(&(struct wire_hello){.version = 1}), NULL, 0, 0, 0));
    poll(&(struct pollfd){.fd = accepted, .events = POLLIN}, 1, 5000);
    struct link_message message;
    assert_ok(link_receive(b, &message));
    assert_int_equal(message.message, WIRE_HELLO);
    blob_drop(message.body);
}

static void addresses_of_both_kinds_can_be_listened_on_and_dialled(void **state)
{
    char bound[IO_ADDRESS_MAX], address[IO_ADDRESS_MAX];
    connect_and_say_hello(state, "tcp://127.0.0.1:0", bound);
    assert_null(strstr(bound, ":0"));
    connect_and_say_hello(state, "tcp://localhost:0", bound);

    snprintf(address, sizeof address, "unix:///tmp/djinn-link-test-%d", (int)getpid());
    connect_and_say_hello(state, address, bound);
    struct stat file;
    assert_int_equal(stat(address + 7, &file), 0);
    assert_int_equal(file.st_mode & 0777, 0600);

    // A live listener is not pushed aside; a stale file is.
    struct fault fault = {0};
    int listener;
    assert_error(DJ_E_ADDRESS, link_listen(address, &listener, bound, &fault));
    assert_non_null(strstr(fault.text, "another process listens there"));
    unlink(address + 7);
    int stale = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_ok(link_listen(address, &listener, bound, &fault));
    close(listener);    // leaves the file
    close(stale);
    assert_ok(link_listen(address, &listener, bound, &fault));
    close(listener);
    unlink(address + 7);
}

static void a_wrong_address_says_what_is_wrong(void **state)
{
    (void)state;
    static const char *const wrong[] = {
        "",         "tcp://",          "tcp://host",   "tcp://host:", "tcp://host:99999", "tcp://host:12x",
        "tcp://:1", "unix://relative", "udp://host:1", "host:1"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct fault fault = {0};
        int fd = -1;
        assert_error(DJ_E_ADDRESS, link_dial(wrong[i], &fd, &fault));
        assert_int_equal(fd, -1);
        assert_true(fault.text[0] != '\0');
    }
    char bound[IO_ADDRESS_MAX];
    struct fault fault = {0};
    int fd, other;
    assert_ok(link_listen("tcp://127.0.0.1:0", &fd, bound, &fault));
    assert_error(DJ_E_ADDRESS, link_listen(bound, &other, bound, &fault));
    assert_non_null(strstr(fault.text, "port 0"));
    close(fd);
    assert_error(DJ_E_CLOSED, link_dial("unix:///tmp/djinn-nobody-listens-here", &fd, &fault));
}

CASES(a_frame_arrives_whole_however_it_is_cut, a_large_bulk_passes_through_a_small_socket_buffer,
      a_stream_that_ends_anywhere_is_closed_and_what_was_whole_arrived, every_changed_byte_is_noticed_or_waits_for_more,
      random_bytes_are_an_error_and_never_a_message, a_peer_may_not_make_us_allocate_more_than_its_budget,
      a_message_that_no_receiver_would_take_is_refused_and_its_holds_are_dropped,
      what_is_too_late_is_not_sent_and_what_is_begun_is_finished,
      a_peer_that_is_gone_does_not_kill_us_and_its_last_words_are_read, a_queue_over_its_mark_says_so,
      addresses_of_both_kinds_can_be_listened_on_and_dialled, a_wrong_address_says_what_is_wrong)
