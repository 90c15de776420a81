// Two drivers in two threads of one process talk over every kind of address; and what a driver does when it stops.
//
// The server answers PING with PONG; the client counts, then tells the server to stop, and stops.

#include "core/driver/driver.h"

#include "core/io/blob.h"
#include "core/wire/wire.h"
#include "tests/core/driver/quiet_nng.h"
#include "tests/lib/case.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { VERB_STOP = 7 };

struct ping_plan {
    char address[IO_ADDRESS_MAX];
    uint32_t rounds;
    uint32_t value_bytes;    // of a bulk sent along; 0: none
    struct outcome *outcome;
};

struct outcome {
    uint32_t pongs;
    uint64_t round_trip_ns;
    bool is_local, came_down;
    enum dj_error error;
};

struct client {
    struct ping_plan plan;
    uint64_t link;
    uint64_t started_ns;
    uint32_t sent;
};

static void send_ping(struct actor *self, struct client *client)
{
    struct wire_ping ping = {.number = client->sent++};
    actor_send(self, client->link, WIRE_PING, wire_ping_encode(&ping), NULL, 0, 0, 0);
}

static enum dj_error client_start(struct actor *self, void *state, const void *argument)
{
    struct client *client = state;
    client->plan = *(const struct ping_plan *)argument;
    actor_link_open(self, client->plan.address);
    return DJ_OK;
}

static enum dj_error client_receive(struct actor *self, void *state, struct letter *letter)
{
    struct client *client = state;
    struct outcome *outcome = client->plan.outcome;
    if (letter->kind == LETTER_EVENT && letter->event.kind == IO_LINK_UP) {
        client->link = letter->event.link_up.link;
        client->started_ns = driver_now_ns();
        outcome->is_local = letter->event.link_up.is_local;
        send_ping(self, client);
    } else if (letter->kind == LETTER_EVENT && letter->event.kind == IO_RECV && letter->event.recv.message == WIRE_PONG) {
        outcome->pongs++;
        if (client->sent < client->plan.rounds) {
            send_ping(self, client);
        } else {
            outcome->round_trip_ns = (driver_now_ns() - client->started_ns) / client->sent;
            actor_send(self, client->link, WIRE_LEAVE, wire_leave_encode(&(struct wire_leave){.incarnation = 1}), NULL, 0, 0, 0);
            actor_link_close(self, client->link);
            actor_exit(self, 3);
        }
    } else if (letter->kind == LETTER_EVENT && letter->event.kind == IO_LINK_DOWN) {
        outcome->came_down = true;
        outcome->error = letter->event.link_down.error;
        actor_exit(self, 4);
    }
    letter_drop(letter);
    return DJ_OK;
}

static const struct actor_class client_class = {
    .name = "client",
    .state_bytes = sizeof(struct client),
    .start = client_start,
    .receive = client_receive,
};

static enum dj_error server_start(struct actor *self, void *state, const void *argument)
{
    (void)state, (void)argument;
    actor_accept_links(self);
    actor_accept_submits(self);
    return DJ_OK;
}

static enum dj_error server_receive(struct actor *self, void *state, struct letter *letter)
{
    (void)state;
    const struct io_event *event = &letter->event;
    if (letter->kind == LETTER_EVENT && event->kind == IO_RECV && event->recv.message == WIRE_PING) {
        actor_send(self, event->recv.link, WIRE_PONG, wire_pong_encode(&(struct wire_pong){.number = 1}), NULL, 0, 0, 0);
    } else if (letter->kind == LETTER_EVENT && event->kind == IO_RECV && event->recv.message == WIRE_LEAVE) {
        actor_exit(self, 5);
    } else if (letter->kind == LETTER_EVENT && event->kind == IO_SUBMIT && event->submit.verb == VERB_STOP) {
        actor_exit(self, 6);
    }
    letter_drop(letter);
    return DJ_OK;
}

static const struct actor_class server_class = {.name = "server", .start = server_start, .receive = server_receive};

struct runner {
    struct driver *driver;
    int exit_code;
};

static void *run_driver(void *argument)
{
    struct runner *runner = argument;
    runner->exit_code = driver_run(runner->driver);
    return NULL;
}

struct node {
    struct process *process;
    struct driver *driver;
};

static void node_free(void *object)
{
    struct node *node = object;
    driver_free(node->driver);
    process_free(node->process);
    free(node);
}

static struct node *node_make(void **state, const struct actor_class *class, const void *argument, size_t bytes)
{
    struct node *node = calloc(1, sizeof *node);
    assert_ok(process_make(&node->process));
    assert_ok(process_root(node->process, class, argument, bytes));
    assert_ok(driver_make(node->process, &node->driver));
    case_later(state, node_free, node);
    return node;
}

static void talk(void **state, const char *address, uint32_t rounds, struct outcome *outcome)
{
    struct node *server = node_make(state, &server_class, NULL, 0);
    struct ping_plan plan = {.rounds = rounds, .outcome = outcome};
    struct fault fault = {0};
    assert_ok(driver_listen(server->driver, address, plan.address, &fault));
    struct node *client = node_make(state, &client_class, &plan, sizeof plan);

    struct runner runner = {.driver = server->driver};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, run_driver, &runner), 0);
    assert_int_equal(driver_run(client->driver), 3);
    pthread_join(thread, NULL);
    assert_int_equal(runner.exit_code, 5);    // its last message left although it stopped at once
    assert_int_equal(outcome->pongs, rounds);
    print_message("%s: %u round trips, %.1f us each\n", plan.address, rounds, (double)outcome->round_trip_ns / 1000);
}

static void two_drivers_talk_over_tcp(void **state)
{
    struct outcome outcome = {0};
    talk(state, "tcp://127.0.0.1:0", 2000, &outcome);
    assert_false(outcome.is_local);
}

static void two_drivers_talk_over_a_unix_socket_and_know_that_it_is_local(void **state)
{
    struct outcome outcome = {0};
    char address[IO_ADDRESS_MAX];
    snprintf(address, sizeof address, "unix:///tmp/djinn-driver-test-%d", (int)getpid());
    talk(state, address, 2000, &outcome);
    assert_true(outcome.is_local);
    assert_int_not_equal(access(address + 7, F_OK), 0);    // the listener took its file away
}

static void two_drivers_talk_over_the_heads_byte_streams(void **state)
{
    struct outcome outcome = {0};
    talk(state, "head://127.0.0.1:0", 300, &outcome);
}

CASES(two_drivers_talk_over_tcp, two_drivers_talk_over_a_unix_socket_and_know_that_it_is_local,
      two_drivers_talk_over_the_heads_byte_streams)
