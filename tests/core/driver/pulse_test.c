// The pulse: while a worker's core is held up its last heartbeat is repeated, and not for ever. A scripted core sends one HEARTBEAT and then keeps its
// loop from turning; the other end of its connection is read by a second thread.

#include "core/driver/driver.h"

#include "core/io/blob.h"
#include "core/link/link.h"
#include "core/wire/wire.h"
#include "tests/core/driver/quiet_nng.h"
#include "tests/lib/case.h"

#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

// The manual of pulse.c: late after one second, patient for four.
enum { TIMER_HOLD = 1, HELD_MS = 6500, FIRST_MS_MAX = 2000, LAST_MS_MIN = 3000, LAST_MS_MAX = 5500, HEARD_MAX = 64, PINGS = 3 };

static char address[IO_ADDRESS_MAX];
static struct process *process;
static struct driver *driver;

struct listener {
    int fd;
    uint64_t at_ns[HEARD_MAX];    // of each HEARTBEAT
    uint32_t heard, pings;
    bool is_same;    // all of them are
    enum dj_error end;
};

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void *listen_to(void *argument)
{
    struct listener *listener = argument;
    struct pollfd set = {.fd = listener->fd, .events = POLLIN};
    struct blob *first = NULL;
    struct link *link;
    int fd;
    listener->is_same = true;
    if (poll(&set, 1, 5000) <= 0 || link_accept(listener->fd, &fd) != DJ_OK || link_make(fd, 0, &link) != DJ_OK)
        return NULL;
    for (set.fd = fd; listener->end == DJ_OK && poll(&set, 1, 20000) > 0;) {
        struct link_message message;
        listener->end = link_receive(link, &message);
        if (message.message == 0)
            continue;
        listener->pings += message.message == WIRE_PING;
        if (message.message == WIRE_HEARTBEAT && listener->heard < HEARD_MAX) {
            listener->at_ns[listener->heard++] = now_ns();
            if (first == NULL)
                first = blob_hold(message.body);
            listener->is_same = listener->is_same && first->bytes == message.body->bytes &&
                                memcmp(first->data, message.body->data, first->bytes) == 0;
        }
        blob_drop(message.body);
    }
    blob_drop(first);
    link_free(link);
    return NULL;
}

static enum dj_error start(struct actor *self, void *state, const void *argument)
{
    (void)state, (void)argument;
    actor_link_open(self, address);
    return DJ_OK;
}

static enum dj_error receive(struct actor *self, void *state, struct letter *letter)
{
    (void)state;
    static uint64_t link;
    if (letter->kind == LETTER_EVENT && letter->event.kind == IO_LINK_UP) {
        struct wire_heartbeat heartbeat = {.sequence = 1, .sent_ns = 12345};
        link = letter->event.link_up.link;
        actor_send(self, link, WIRE_HEARTBEAT, wire_heartbeat_encode(&heartbeat), NULL, 0, 0, 0);
        actor_timer(self, TIMER_HOLD, actor_now_ns(self) + 50000000);
    } else if (letter->kind == LETTER_TIMER) {
        poll(NULL, 0, HELD_MS);    // what a handler must never do
        for (uint64_t i = 0; i < PINGS; i++)
            actor_send(self, link, WIRE_PING, wire_ping_encode(&(struct wire_ping){.number = i}), NULL, 0, 0, 0);
        actor_exit(self, 0);
    } else if (letter->kind == LETTER_EVENT && letter->event.kind == IO_LINK_DOWN) {
        actor_exit(self, 1);
    }
    letter_drop(letter);
    return DJ_OK;
}

static const struct actor_class heart_class = {.name = "heart", .start = start, .receive = receive};

static void a_held_up_core_is_heard_of_for_a_while_and_then_goes_on(void **state)
{
    (void)state;
    char bound[IO_ADDRESS_MAX];
    struct listener listener = {0};
    struct fault fault = {0};
    pthread_t thread;
    assert_ok(link_listen("tcp://127.0.0.1:0", &listener.fd, bound, &fault));
    snprintf(address, sizeof address, "head://%.100s", bound + strlen("tcp://"));
    assert_int_equal(pthread_create(&thread, NULL, listen_to, &listener), 0);
    assert_ok(process_make(&process));
    assert_ok(process_root(process, &heart_class, NULL, 0));
    assert_ok(driver_make(process, &driver));
    uint64_t begun_ns = now_ns();
    assert_int_equal(driver_run(driver), 0);
    driver_free(driver);
    process_free(process);
    pthread_join(thread, NULL);
    close(listener.fd);

    assert_true(listener.heard >= 3);
    assert_true(listener.is_same);    // an old message, with the time at which the core sent it
    assert_true(listener.at_ns[1] - begun_ns < FIRST_MS_MAX * 1000000ull);
    uint64_t last_ms = (listener.at_ns[listener.heard - 1] - begun_ns) / 1000000;
    assert_true(last_ms > LAST_MS_MIN && last_ms < LAST_MS_MAX);
    // What the core says afterwards arrives in order on the same link: the numbers of the frames fit.
    assert_int_equal(listener.pings, PINGS);
    assert_error(DJ_E_CLOSED, listener.end);
}

CASES(a_held_up_core_is_heard_of_for_a_while_and_then_goes_on)
