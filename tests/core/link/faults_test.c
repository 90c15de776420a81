// Faults of frames over socket pairs: what a broken network does to a stream is noticed at the other end, and what only delays it delays it.

#include "core/link/faults.h"

#include "core/io/io.h"
#include "core/link/link.h"
#include "core/wire/wire.h"
#include "tests/lib/case.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct pair {
    struct link *from, *to;
};

static void quiet(void *unused)
{
    (void)unused;
    for (int i = 0; i < KNOBS; i++)
        knob_set((enum knob)i, 0);
}

static void free_link(void *link)
{
    link_free(link);
}

static struct pair pair_make(void **state)
{
    int fds[2];
    struct pair pair;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    assert_ok(link_make(fds[0], WIRE_BULK_MAX, &pair.from));
    assert_ok(link_make(fds[1], WIRE_BULK_MAX, &pair.to));
    case_later(state, free_link, pair.from);
    case_later(state, free_link, pair.to);
    case_later(state, quiet, NULL);
    return pair;
}

static void ping(const struct pair *pair, uint64_t number)
{
    assert_ok(link_send(pair->from, WIRE_PING, wire_ping_encode(&(struct wire_ping){.number = number}), NULL, 0, 0, 0));
}

// The next PING's number; UINT64_MAX: there is none now. *ret_error as link_receive's.
static uint64_t heard(const struct pair *pair, enum dj_error *ret_error)
{
    struct link_message message = {0};
    struct wire_ping said;
    struct arena *arena = NULL;
    *ret_error = link_receive(pair->to, &message);
    if (message.message == 0)
        return UINT64_MAX;
    assert_int_equal(message.message, WIRE_PING);
    assert_ok(arena_make(256, 0, &arena));
    assert_ok(wire_ping_decode(message.body->data, message.body->bytes, arena, &said));
    arena_free(arena);
    blob_drop(message.body);
    return said.number;
}

// Flushes and listens until something is heard or goes wrong, for at most a second.
static uint64_t wait_heard(const struct pair *pair, enum dj_error *ret_error)
{
    uint64_t until_ns = link_faults_now_ns() + 1000000000u;
    uint64_t number;
    do {
        assert_ok(link_flush(pair->from, 0));
        number = heard(pair, ret_error);
        poll(NULL, 0, 1);
    } while (number == UINT64_MAX && *ret_error == DJ_OK && link_faults_now_ns() < until_ns);
    return number;
}

static void frames_keep_their_order_while_they_are_delayed(void **state)
{
    struct pair pair = pair_make(state);
    enum dj_error error;
    knob_set(KNOB_FRAME_DELAY_US, 20000);
    knob_set(KNOB_FRAME_JITTER_US, 10000);
    knob_set(KNOB_FRAMES, 1);
    uint64_t begun_ns = link_faults_now_ns();
    for (uint64_t i = 0; i < 5; i++)
        ping(&pair, i);
    assert_true(heard(&pair, &error) == UINT64_MAX);
    assert_false(link_wants_write(pair.from));    // polling for room would only spin
    for (uint64_t i = 0; i < 5; i++)
        assert_int_equal(wait_heard(&pair, &error), i);
    assert_true(link_faults_now_ns() - begun_ns >= 20000000);
    assert_ok(error);
}

static void a_fault_ends_the_link_as_corrupt(void **state, enum knob fault, uint64_t before)
{
    struct pair pair = pair_make(state);
    enum dj_error error;
    for (uint64_t i = 0; i < before; i++) {
        ping(&pair, i);
        assert_int_equal(wait_heard(&pair, &error), i);
    }
    knob_set(KNOB_FRAME_SEED, before);
    knob_set(fault, 1);
    knob_set(KNOB_FRAMES, 1);
    for (uint64_t i = 0; i < 3; i++)
        ping(&pair, before + i);
    uint64_t next = before, number;
    while ((number = wait_heard(&pair, &error)) != UINT64_MAX)
        assert_int_equal(number, next++);    // nothing is given twice, or out of its turn
    assert_true(error != DJ_OK && error != DJ_E_CLOSED);
    assert_true(next < before + 3);
    assert_int_equal(knob(fault), 0);    // it struck once
    quiet(NULL);
}

static void a_frame_left_out_ends_the_link(void **state)
{
    struct pair pair = pair_make(state);
    enum dj_error error;
    ping(&pair, 0);
    knob_set(KNOB_FRAME_DROP, 1);
    knob_set(KNOB_FRAMES, 1);
    struct blob *body = wire_ping_encode(&(struct wire_ping){.number = 1});
    assert_error(DJ_E_LIMIT, link_send(pair.from, WIRE_PING, blob_hold(body), NULL, 0, 0, 0));
    assert_int_equal(body->holders, 1);
    assert_error(DJ_E_LIMIT, link_send(pair.from, WIRE_PING, body, NULL, 0, 0, 0));    // nothing follows it
    assert_int_equal(heard(&pair, &error), 0);
    assert_ok(error);
}

static void a_frame_sent_twice_ends_the_link(void **state)
{
    a_fault_ends_the_link_as_corrupt(state, KNOB_FRAME_DUPLICATE, 0);
    a_fault_ends_the_link_as_corrupt(state, KNOB_FRAME_DUPLICATE, 7);
}

static void a_frame_out_of_its_turn_ends_the_link(void **state)
{
    a_fault_ends_the_link_as_corrupt(state, KNOB_FRAME_REORDER, 0);
    a_fault_ends_the_link_as_corrupt(state, KNOB_FRAME_REORDER, 7);
}

static void a_changed_bit_ends_the_link(void **state)
{
    for (uint64_t seed = 0; seed < 30; seed++)
        a_fault_ends_the_link_as_corrupt(state, KNOB_FRAME_CORRUPT, seed);
}

static void a_partition_holds_frames_both_ways_and_then_lets_them_go(void **state)
{
    struct pair pair = pair_make(state);
    enum dj_error error;
    knob_set(KNOB_ALLOWED, 1);
    struct wire_hello hello = {.version = WIRE_VERSION, .role = ROLE_WORKER, .name = "w1"};
    assert_ok(link_send(pair.from, WIRE_HELLO, wire_hello_encode(&hello), NULL, 0, 0, 0));
    struct link_message message = {0};
    assert_ok(link_receive(pair.to, &message));    // now `to` knows that w1 is there
    blob_drop(message.body);

    assert_true(link_faults_partition("another", link_faults_now_ns() + 60000000000u));
    assert_true(link_faults_partition("w1", link_faults_now_ns() + 50000000));
    knob_set(KNOB_FRAMES, 1);
    ping(&pair, 5);
    assert_true(link_is_held(pair.to));
    assert_true(heard(&pair, &error) == UINT64_MAX);
    assert_ok(error);
    assert_ok(link_send(pair.to, WIRE_PONG, wire_pong_encode(&(struct wire_pong){.number = 1}), NULL, 0, 0, 0));
    assert_ok(link_receive(pair.from, &message));
    assert_int_equal(message.message, 0);
    assert_int_equal(wait_heard(&pair, &error), 5);
    assert_ok(link_flush(pair.to, 0));
    assert_ok(link_receive(pair.from, &message));
    assert_int_equal(message.message, WIRE_PONG);
    blob_drop(message.body);
    assert_true(link_faults_partition("another", 1));
}

static void a_new_link_to_a_parted_peer_does_not_come_up(void **state)
{
    struct pair pair = pair_make(state);
    knob_set(KNOB_ALLOWED, 1);
    assert_true(link_faults_partition("w2", link_faults_now_ns() + 60000000000u));
    knob_set(KNOB_FRAMES, 1);
    struct wire_hello hello = {.version = WIRE_VERSION, .role = ROLE_WORKER, .name = "w2"};
    assert_ok(link_send(pair.from, WIRE_HELLO, wire_hello_encode(&hello), NULL, 0, 0, 0));
    struct link_message message = {0};
    assert_error(DJ_E_CLOSED, link_receive(pair.to, &message));
    assert_int_equal(message.message, 0);
    assert_true(link_faults_partition("w2", 1));
}

static void what_is_too_late_leaves_no_gap(void **state)
{
    struct pair pair = pair_make(state);
    enum dj_error error;
    knob_set(KNOB_FRAME_DELAY_US, 20000);
    knob_set(KNOB_FRAMES, 1);
    uint64_t far = UINT64_MAX - 1;
    for (uint64_t i = 0; i < 6; i++)
        assert_ok(link_send(pair.from, WIRE_PING, wire_ping_encode(&(struct wire_ping){.number = i}), NULL, 0, 0,
                            i % 2 == 0 ? 0 : far));
    assert_ok(link_flush(pair.from, UINT64_MAX));
    for (uint64_t i = 0; i < 6; i += 2)
        assert_int_equal(wait_heard(&pair, &error), i);
    assert_ok(error);
}

CASES(frames_keep_their_order_while_they_are_delayed, a_frame_left_out_ends_the_link, a_frame_sent_twice_ends_the_link,
      a_frame_out_of_its_turn_ends_the_link, a_changed_bit_ends_the_link,
      a_partition_holds_frames_both_ways_and_then_lets_them_go, a_new_link_to_a_parted_peer_does_not_come_up,
      what_is_too_late_leaves_no_gap)
