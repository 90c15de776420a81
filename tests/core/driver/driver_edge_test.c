// The driver where the world is unkind: nobody there, nonsense from a peer, more than can be read, missing ports, signals, and the end.
//
// One scripted actor runs in a driver on the test's own thread; peers are bare sockets or a second thread.

#include "core/driver/driver.h"

#include "core/io/blob.h"
#include "core/link/link.h"
#include "core/wire/wire.h"
#include "tests/core/driver/quiet_nng.h"
#include "tests/lib/case.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { VERB_SIGNAL = 1, VERB_PIPE = 2, TIMER_GIVE_UP = 99, EXIT_GAVE_UP = 98 };
#define GIVE_UP_NS 20000000000u

static enum dj_error (*on_letter)(struct actor *self, struct letter *letter);
static void (*on_start)(struct actor *self);
static struct process *process;
static struct driver *driver;

static enum dj_error scripted_start(struct actor *self, void *state, const void *argument)
{
    (void)state, (void)argument;
    actor_accept_links(self);
    actor_accept_submits(self);
    actor_timer(self, TIMER_GIVE_UP, actor_now_ns(self) + GIVE_UP_NS);
    if (on_start != NULL)
        on_start(self);
    return DJ_OK;
}

static enum dj_error scripted_receive(struct actor *self, void *state, struct letter *letter)
{
    (void)state;
    enum dj_error error = DJ_OK;
    if (letter->kind == LETTER_TIMER && letter->number == TIMER_GIVE_UP)
        actor_exit(self, EXIT_GAVE_UP);
    else
        error = on_letter(self, letter);
    letter_drop(letter);
    return error;
}

static const struct actor_class scripted_class = {.name = "scripted", .start = scripted_start, .receive = scripted_receive};

static void free_all(void *unused)
{
    (void)unused;
    driver_free(driver);
    process_free(process);
    driver = NULL;
    process = NULL;
}

static void begin(void **state, void (*start)(struct actor *), enum dj_error (*letter)(struct actor *, struct letter *))
{
    free_all(NULL);    // of an earlier round
    on_start = start;
    on_letter = letter;
    assert_ok(process_make(&process));
    assert_ok(process_root(process, &scripted_class, NULL, 0));
    assert_ok(driver_make(process, &driver));
    case_later(state, free_all, NULL);
}

static bool is_event(const struct letter *letter, enum io_event_kind kind)
{
    return letter->kind == LETTER_EVENT && letter->event.kind == kind;
}

// Nobody there -----------------------------------------------------------------------------------------------------------

static char dead_address[3][IO_ADDRESS_MAX];
static uint32_t downs;

static void open_dead(struct actor *self)
{
    for (int i = 0; i < 3; i++)
        actor_link_open(self, dead_address[i]);
}

static enum dj_error count_downs(struct actor *self, struct letter *letter)
{
    if (is_event(letter, IO_LINK_DOWN)) {
        assert_int_equal(letter->event.link_down.link, 0);
        assert_int_not_equal(letter->event.link_down.request, 0);
        assert_int_not_equal(letter->event.link_down.error, DJ_OK);
        if (++downs == 3)
            actor_exit(self, 0);
    }
    return DJ_OK;
}

static void a_link_to_nobody_goes_down_with_its_request(void **state)
{
    struct fault fault = {0};
    int fd;
    char bound[IO_ADDRESS_MAX];
    assert_ok(link_listen("tcp://127.0.0.1:0", &fd, bound, &fault));
    close(fd);    // now nobody listens there
    strcpy(dead_address[0], bound);
    snprintf(dead_address[1], IO_ADDRESS_MAX, "head://%.100s", bound + 6);
    strcpy(dead_address[2], "unix:///tmp/djinn-nobody");
    downs = 0;
    begin(state, open_dead, count_downs);
    assert_int_equal(driver_run(driver), 0);
    assert_int_equal(downs, 3);
}

// Nonsense ---------------------------------------------------------------------------------------------------------------

static enum dj_error down_error;
static uint32_t received;

static enum dj_error end_on_down(struct actor *self, struct letter *letter)
{
    if (is_event(letter, IO_RECV))
        received++;
    if (is_event(letter, IO_LINK_DOWN)) {
        down_error = letter->event.link_down.error;
        actor_exit(self, 0);
    }
    return DJ_OK;
}

struct peer {
    char address[IO_ADDRESS_MAX];
    uint8_t bytes[256];
    size_t length;
    struct wire_failed told;
    bool was_told;
};

// Says its bytes, then reads until the end and keeps what it was told.
static void *run_peer(void *argument)
{
    struct peer *peer = argument;
    struct fault fault = {0};
    int fd;
    if (link_dial(peer->address, &fd, &fault) != DJ_OK)
        return NULL;
    struct pollfd ready = {.fd = fd, .events = POLLOUT};
    poll(&ready, 1, 5000);
    send(fd, peer->bytes, peer->length, MSG_NOSIGNAL);
    struct link *link;
    if (link_make(fd, 0, &link) != DJ_OK)
        return NULL;
    enum dj_error error = DJ_OK;
    while (error == DJ_OK) {
        struct link_message message;
        ready.events = POLLIN;
        if (poll(&ready, 1, 5000) <= 0)
            break;
        error = link_receive(link, &message);
        if (error == DJ_OK && message.message == WIRE_FAILED) {
            struct arena *arena = NULL;
            if (arena_make(4096, 0, &arena) == DJ_OK)
                peer->was_told = wire_failed_decode(message.body->data, message.body->bytes, arena, &peer->told) == DJ_OK;
            arena_free(arena);
        }
        if (error == DJ_OK && message.message != 0)
            blob_drop(message.body);
    }
    link_free(link);
    return NULL;
}

static void told_why(void **state, const char *address, size_t at, uint8_t value, enum dj_error expected)
{
    struct peer *peer = calloc(1, sizeof *peer);
    case_later(state, free, peer);
    begin(state, NULL, end_on_down);
    struct fault fault = {0};
    assert_ok(driver_listen(driver, address, peer->address, &fault));
    struct blob *body = wire_ping_encode(&(struct wire_ping){.number = 1});
    wire_header_write(peer->bytes, 0, WIRE_PING, body->data, (uint32_t)body->bytes, NULL, 0);
    memcpy(peer->bytes + WIRE_HEADER_BYTES, body->data, body->bytes);
    peer->length = WIRE_HEADER_BYTES + body->bytes;
    blob_drop(body);
    peer->bytes[at] = value;
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, run_peer, peer), 0);
    down_error = DJ_OK;
    received = 0;
    assert_int_equal(driver_run(driver), 0);
    pthread_join(thread, NULL);
    assert_error(expected, down_error);
    assert_int_equal(received, 0);
    assert_true(peer->was_told);
    assert_error(expected, peer->told.error);
}

static void a_peer_that_speaks_nonsense_is_told_why(void **state)
{
    static const char *const address[] = {"tcp://127.0.0.1:0", "head://127.0.0.1:0"};
    for (int i = 0; i < 2; i++) {
        told_why(state, address[i], 0, 'X', DJ_E_FRAME_CORRUPT);
        told_why(state, address[i], 4, WIRE_VERSION + 1, DJ_E_VERSION);
        told_why(state, address[i], 7, 0x77, DJ_E_FRAME_UNKNOWN);
        told_why(state, address[i], 11, 0x7F, DJ_E_FRAME_OVERSIZED);
        told_why(state, address[i], WIRE_HEADER_BYTES, 9, DJ_E_FRAME_CORRUPT);
    }
}

// More than can be read at once ------------------------------------------------------------------------------------------

enum { FLOOD_MESSAGES = 3000, FLOOD_BULK = 100000 };

static uint64_t flood_bytes;

static enum dj_error count_flood(struct actor *self, struct letter *letter)
{
    if (is_event(letter, IO_RECV)) {
        struct wire_leaf_data leaf;
        struct arena *arena = NULL;
        assert_ok(arena_make(4096, 0, &arena));
        assert_ok(wire_leaf_data_decode(letter->event.recv.body->data, letter->event.recv.body->bytes, arena, &leaf));
        arena_free(arena);
        assert_int_equal(leaf.offset, received);    // none lost, none out of order
        received++;
        flood_bytes += letter->event.recv.bulk == NULL ? 0 : letter->event.recv.bulk->bytes;
        if (received == FLOOD_MESSAGES)
            actor_exit(self, 0);
    }
    return DJ_OK;
}

static void *run_flood(void *argument)
{
    const char *address = argument;
    struct fault fault = {0};
    int fd;
    struct link *link;
    if (link_dial(address, &fd, &fault) != DJ_OK || link_make(fd, 0, &link) != DJ_OK)
        return NULL;
    struct blob *bulk = blob_make(FLOOD_BULK);
    memset(bulk->data, 7, bulk->bytes);
    struct pollfd ready = {.fd = fd, .events = POLLOUT};
    for (uint64_t i = 0; i < FLOOD_MESSAGES; i++) {
        struct wire_leaf_data leaf = {.offset = i};
        if (link_send(link, WIRE_LEAF_DATA, wire_leaf_data_encode(&leaf), i % 50 == 0 ? blob_hold(bulk) : NULL, 0, 0, 0) != DJ_OK)
            break;
    }
    while (link_wants_write(link) && poll(&ready, 1, 5000) > 0 && link_flush(link, 0) == DJ_OK)
        ;
    poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, 5000);    // until the other side ends
    link_free(link);
    blob_drop(bulk);
    return NULL;
}

static void a_flood_arrives_whole_and_in_order(void **state)
{
    static const char *const address[] = {"tcp://127.0.0.1:0", "head://127.0.0.1:0"};
    for (int i = 0; i < 2; i++) {
        static char bound[IO_ADDRESS_MAX];
        begin(state, NULL, count_flood);
        struct fault fault = {0};
        assert_ok(driver_listen(driver, address[i], bound, &fault));
        received = 0;
        flood_bytes = 0;
        pthread_t thread;
        assert_int_equal(pthread_create(&thread, NULL, run_flood, bound), 0);
        assert_int_equal(driver_run(driver), 0);
        pthread_join(thread, NULL);
        assert_int_equal(flood_bytes, (FLOOD_MESSAGES + 49) / 50 * (uint64_t)FLOOD_BULK);
        assert_true(driver_stats(driver).bytes_in > flood_bytes);
    }
}

// A peer that does not read ----------------------------------------------------------------------------------------------

static int silent_fd;
static uint32_t writables, values_sent;

static void *read_everything(void *unused)
{
    (void)unused;
    static char nothing[1 << 20];
    struct pollfd ready = {.fd = silent_fd, .events = POLLIN};
    while (poll(&ready, 1, 5000) > 0 && recv(silent_fd, nothing, sizeof nothing, MSG_DONTWAIT) > 0)
        ;
    return NULL;
}

static pthread_t reading;

static enum dj_error send_too_much(struct actor *self, struct letter *letter)
{
    if (is_event(letter, IO_LINK_UP)) {
        struct blob *bulk = blob_make(10 << 20);
        memset(bulk->data, 1, bulk->bytes);
        for (values_sent = 0; values_sent < 10; values_sent++)
            actor_send(self, letter->event.link_up.link, WIRE_VALUE, wire_value_encode(&(struct wire_value){0}), blob_hold(bulk),
                       0, 0, 0);
        blob_drop(bulk);
        actor_timer(self, 1, actor_now_ns(self) + 20000000);
    }
    if (letter->kind == LETTER_TIMER)    // only now does the peer begin to read
        assert_int_equal(pthread_create(&reading, NULL, read_everything, NULL), 0);
    if (is_event(letter, IO_WRITABLE)) {
        writables++;
        actor_exit(self, 0);
    }
    return DJ_OK;
}

static void the_core_hears_when_a_congested_link_has_drained(void **state)
{
    begin(state, NULL, send_too_much);
    struct fault fault = {0};
    char bound[IO_ADDRESS_MAX];
    assert_ok(driver_listen(driver, "tcp://127.0.0.1:0", bound, &fault));
    assert_ok(link_dial(bound, &silent_fd, &fault));
    writables = 0;
    assert_int_equal(driver_run(driver), 0);
    assert_int_equal(writables, 1);
    pthread_join(reading, NULL);
    close(silent_fd);
}

// Ports ------------------------------------------------------------------------------------------------------------------

static uint32_t answers;
static struct device_list list;

static void *twice(void *input)
{
    return (char *)input + 1;
}

static void use_ports(struct actor *self)
{
    actor_store_commit(self, batch_make());
    actor_store_read(self, batch_make());
    actor_device_submit(self, 3, &list);
    actor_compute(self, twice, (void *)(uintptr_t)41);
}

static enum dj_error check_answers(struct actor *self, struct letter *letter)
{
    if (is_event(letter, IO_STORE_DONE))
        assert_error(DJ_E_UNSUPPORTED, letter->event.store_done.error);
    else if (is_event(letter, IO_DEVICE_DONE))
        assert_error(DJ_E_NO_DEVICE, letter->event.device_done.list->error);
    else if (is_event(letter, IO_COMPUTE_DONE))
        assert_int_equal((uintptr_t)letter->event.compute_done.result, 42);
    else
        return DJ_OK;
    if (++answers == 4)
        actor_exit(self, 0);
    return DJ_OK;
}

static void ports_that_are_missing_answer_with_an_error_and_computations_come_back(void **state)
{
    answers = 0;
    begin(state, use_ports, check_answers);
    assert_int_equal(driver_run(driver), 0);
}

static uint64_t timer_late_ns;

static void set_timers(struct actor *self)
{
    actor_timer(self, 1, actor_now_ns(self) + 30000000);
}

static enum dj_error measure_timer(struct actor *self, struct letter *letter)
{
    if (letter->kind == LETTER_TIMER) {
        timer_late_ns = driver_now_ns();
        actor_exit(self, 0);
    }
    return DJ_OK;
}

static void a_timer_wakes_the_driver_not_before_its_time(void **state)
{
    begin(state, set_timers, measure_timer);
    uint64_t start_ns = driver_now_ns();
    assert_int_equal(driver_run(driver), 0);
    assert_true(timer_late_ns - start_ns >= 30000000);
    assert_true(timer_late_ns - start_ns < 10000000000);
}

// Ends -------------------------------------------------------------------------------------------------------------------

static enum dj_error exit_on_submit(struct actor *self, struct letter *letter)
{
    if (is_event(letter, IO_START))
        raise(SIGTERM);
    if (is_event(letter, IO_SUBMIT))
        actor_exit(self, (int)letter->event.submit.verb);
    return DJ_OK;
}

static void a_signal_becomes_a_submit(void **state)
{
    begin(state, NULL, exit_on_submit);
    driver_on_signals(driver, VERB_SIGNAL);
    assert_int_equal(driver_run(driver), VERB_SIGNAL);
}

static enum dj_error exit_on_pipe(struct actor *self, struct letter *letter)
{
    if (is_event(letter, IO_SUBMIT))
        actor_exit(self, (int)letter->event.submit.verb);
    return DJ_OK;
}

static void a_closed_pipe_becomes_a_submit(void **state)
{
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    begin(state, NULL, exit_on_pipe);
    driver_on_close(driver, fds[0], VERB_PIPE);
    close(fds[1]);
    assert_int_equal(driver_run(driver), VERB_PIPE);
    close(fds[0]);
}

static void *post_from_outside(void *argument)
{
    struct io_sink *sink = argument;
    struct io_event event = {.kind = IO_SUBMIT};
    for (uint32_t i = 1; i <= 20000; i++) {
        event.submit.verb = i;
        sink->post(sink->self, &event);
    }
    return NULL;
}

static uint32_t outside_sum;

static enum dj_error count_outside(struct actor *self, struct letter *letter)
{
    if (is_event(letter, IO_SUBMIT) && ++outside_sum == 60000)
        actor_exit(self, 0);
    return DJ_OK;
}

static void events_from_many_threads_all_arrive(void **state)
{
    begin(state, NULL, count_outside);
    outside_sum = 0;
    pthread_t threads[3];
    for (int i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, post_from_outside, driver_sink(driver)), 0);
    assert_int_equal(driver_run(driver), 0);
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
}

static void a_port_in_use_says_what_to_do(void **state)
{
    begin(state, NULL, exit_on_pipe);
    struct fault fault = {0};
    char bound[IO_ADDRESS_MAX], other[IO_ADDRESS_MAX];
    assert_ok(driver_listen(driver, "head://127.0.0.1:0", bound, &fault));
    assert_error(DJ_E_ADDRESS, driver_listen(driver, bound, other, &fault));
    assert_non_null(strstr(fault.text, "another port"));
    assert_ok(driver_listen(driver, "tcp://127.0.0.1:0", bound, &fault));
    assert_error(DJ_E_ADDRESS, driver_listen(driver, bound, other, &fault));
    assert_error(DJ_E_ADDRESS, driver_listen(driver, "head://nonsense", other, &fault));
    assert_error(DJ_E_ADDRESS, driver_listen(driver, "carrier-pigeon://1", other, &fault));
}

CASES(a_link_to_nobody_goes_down_with_its_request, a_peer_that_speaks_nonsense_is_told_why, a_flood_arrives_whole_and_in_order,
      the_core_hears_when_a_congested_link_has_drained, ports_that_are_missing_answer_with_an_error_and_computations_come_back,
      a_timer_wakes_the_driver_not_before_its_time, a_signal_becomes_a_submit, a_closed_pipe_becomes_a_submit,
      events_from_many_threads_all_arrive, a_port_in_use_says_what_to_do)
