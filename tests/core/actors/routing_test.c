// Who gets which event: links, requests and tickets belong to actors; what nobody owns is dropped and freed.

#include "core/actors/actor.h"

#include "core/io/blob.h"
#include "core/wire/wire.h"
#include "tests/lib/case.h"

#include <stdlib.h>
#include <string.h>

enum { VERB_OPEN = 1, VERB_TAKE, VERB_CLOSE, VERB_FAIL, VERB_TICKETS, VERB_SEND_NOTHING };

// The root 'a' opens and accepts links; its child 'b' takes them over.
struct shared {
    actor_id b;
    uint64_t link, request, tickets[4];
    struct device_list list;
    uint32_t a_events[16], b_events[16];    // by io_event_kind
    uint16_t b_messages[16];
    uint32_t b_count;
};
static struct shared shared;

static enum dj_error b_start(struct actor *self, void *state, const void *argument)
{
    (void)state, (void)argument;
    shared.b = actor_self(self);
    return DJ_OK;
}

static enum dj_error b_receive(struct actor *self, void *state, struct letter *letter)
{
    (void)state;
    enum dj_error error = DJ_OK;
    if (letter->kind == LETTER_USER && letter->number == VERB_TAKE)
        actor_link_take(self, shared.link);
    if (letter->kind == LETTER_USER && letter->number == VERB_FAIL)
        error = DJ_E_INTERNAL;
    if (letter->kind == LETTER_EVENT) {
        shared.b_events[letter->event.kind]++;
        if (letter->event.kind == IO_RECV)
            shared.b_messages[shared.b_count++] = letter->event.recv.message;
    }
    letter_drop(letter);
    return error;
}

static const struct actor_class b_class = {.name = "b", .start = b_start, .receive = b_receive};

static enum actor_verdict a_child_failed(struct actor *self, void *state, actor_id child, enum dj_error error)
{
    (void)self, (void)state, (void)child, (void)error;
    return ACTOR_STOP;
}

static enum dj_error a_start(struct actor *self, void *state, const void *argument)
{
    (void)state, (void)argument;
    actor_accept_links(self);
    actor_accept_submits(self);
    return actor_make(self, &b_class, NULL, 0, &shared.b);
}

static void obey(struct actor *self, uint32_t verb)
{
    switch (verb) {
    case VERB_OPEN: shared.request = actor_link_open(self, "tcp://somewhere:1"); break;
    case VERB_TAKE:
    case VERB_FAIL: assert_ok(actor_post(self, shared.b, verb, NULL, NULL)); break;
    case VERB_CLOSE: actor_link_close(self, shared.link); break;
    case VERB_TICKETS:
        shared.tickets[0] = actor_store_commit(self, batch_make());
        shared.tickets[1] = actor_store_read(self, batch_make());
        shared.tickets[2] = actor_device_submit(self, 0, &shared.list);
        shared.tickets[3] = actor_compute(self, NULL, NULL);
        break;
    case VERB_SEND_NOTHING: actor_send(self, shared.link, WIRE_PING, NULL, NULL, 0, 0, 0); break;
    default: break;
    }
}

static enum dj_error a_receive(struct actor *self, void *state, struct letter *letter)
{
    (void)state;
    if (letter->kind == LETTER_EVENT) {
        shared.a_events[letter->event.kind]++;
        if (letter->event.kind == IO_LINK_UP)
            shared.link = letter->event.link_up.link;
        if (letter->event.kind == IO_SUBMIT)
            obey(self, letter->event.submit.verb);
    }
    letter_drop(letter);
    return DJ_OK;
}

static const struct actor_class a_class = {.name = "a", .start = a_start, .receive = a_receive, .child_failed = a_child_failed};

static struct process *process;
static struct io_effects effects;

static void free_all(void *unused)
{
    (void)unused;
    process_free(process);
    effects_free(&effects);
}

static void step(void)
{
    static uint64_t now_ns = 1;
    effects_free(&effects);
    while (process_run(process, now_ns++, &effects))
        ;
}

static void begin(void **state)
{
    memset(&shared, 0, sizeof shared);
    assert_ok(process_make(&process));
    assert_ok(process_root(process, &a_class, NULL, 0));
    effects_init(&effects);
    case_later(state, free_all, NULL);
    step();
}

static void post(struct io_event event)
{
    assert_ok(process_post(process, &event));
}

static void submit(uint32_t verb)
{
    struct io_event event = {.kind = IO_SUBMIT};
    event.submit.verb = verb;
    post(event);
}

static void receive(uint64_t link, uint16_t message, struct blob *body)
{
    struct io_event event = {.kind = IO_RECV};
    event.recv.link = link;
    event.recv.message = message;
    event.recv.body = body;
    post(event);
}

static void link_up(uint64_t link, uint64_t request, uint32_t listener)
{
    struct io_event event = {.kind = IO_LINK_UP};
    event.link_up.link = link;
    event.link_up.request = request;
    event.link_up.listener = listener;
    post(event);
}

static void link_down(uint64_t link, uint64_t request)
{
    struct io_event event = {.kind = IO_LINK_DOWN};
    event.link_down.link = link;
    event.link_down.request = request;
    event.link_down.error = DJ_E_CLOSED;
    post(event);
}

static bool has_closed(uint64_t link)
{
    for (uint32_t i = 0; i < effects.count; i++) {
        if (effects.effect[i].kind == IO_LINK_CLOSE && effects.effect[i].link_close.link == link)
            return true;
    }
    return false;
}

static void an_opened_links_events_come_to_who_opened_it(void **state)
{
    begin(state);
    submit(VERB_OPEN);
    step();
    assert_int_equal(effects.count, 1);
    assert_int_equal(effects.effect[0].kind, IO_LINK_OPEN);
    assert_string_equal(effects.effect[0].link_open.address, "tcp://somewhere:1");
    assert_int_equal(effects.effect[0].link_open.request, shared.request);

    link_up(5, shared.request, 0);
    receive(5, WIRE_PING, NULL);
    link_down(5, shared.request);
    step();
    assert_int_equal(shared.a_events[IO_LINK_UP], 1);
    assert_int_equal(shared.a_events[IO_RECV], 1);
    assert_int_equal(shared.a_events[IO_LINK_DOWN], 1);
    receive(5, WIRE_PING, NULL);
    step();
    assert_int_equal(shared.a_events[IO_RECV], 1);    // it is gone
}

static void a_link_that_never_came_up_is_told_by_its_request(void **state)
{
    begin(state);
    submit(VERB_OPEN);
    step();
    link_down(0, shared.request);
    step();
    assert_int_equal(shared.a_events[IO_LINK_DOWN], 1);
    link_up(6, shared.request, 0);    // the request is answered: this link is nobody's
    step();
    assert_int_equal(shared.a_events[IO_LINK_UP], 0);
    assert_true(has_closed(6));
}

static void what_waits_for_the_former_owner_comes_along_with_the_link(void **state)
{
    begin(state);
    link_up(9, 0, 0);
    step();
    submit(VERB_TAKE);
    receive(9, WIRE_HELLO, NULL);    // still the acceptor's when they are routed
    receive(9, WIRE_ATTACH, NULL);
    step();
    receive(9, WIRE_PLAN, NULL);
    step();
    // 'a' saw none or the first; nothing is lost, and what 'b' got is in order.
    assert_int_equal(shared.a_events[IO_RECV] + shared.b_events[IO_RECV], 3);
    assert_true(shared.b_count >= 1);
    assert_int_equal(shared.b_messages[shared.b_count - 1], WIRE_PLAN);
    if (shared.b_count >= 2)
        assert_int_equal(shared.b_messages[shared.b_count - 2], WIRE_ATTACH);
}

static void a_closed_link_gives_no_more_events_and_its_blobs_are_freed(void **state)
{
    begin(state);
    link_up(9, 0, 0);
    step();
    struct blob *body = blob_copy("x", 1);
    submit(VERB_CLOSE);
    receive(9, WIRE_PING, blob_hold(body));
    link_down(9, 0);
    step();
    assert_true(has_closed(9));
    assert_int_equal(shared.a_events[IO_RECV], 0);
    assert_int_equal(shared.a_events[IO_LINK_DOWN], 0);
    assert_int_equal(body->holders, 1);
    blob_drop(body);
}

static void when_an_actor_ends_its_links_close(void **state)
{
    begin(state);
    link_up(3, 0, 0);
    step();
    submit(VERB_TAKE);
    step();
    submit(VERB_FAIL);
    step();
    assert_true(has_closed(3));
    receive(3, WIRE_PING, NULL);
    step();
    assert_int_equal(shared.a_events[IO_RECV] + shared.b_events[IO_RECV], 0);
}

static void answers_come_to_who_holds_the_ticket_and_once(void **state)
{
    begin(state);
    submit(VERB_TICKETS);
    step();
    assert_int_equal(effects.count, 4);
    assert_int_equal(shared.list.ticket, shared.tickets[2]);
    for (int round = 0; round < 2; round++) {
        struct io_event done = {.kind = IO_STORE_DONE};
        done.store_done.ticket = shared.tickets[0];
        post(done);
        done.store_done.ticket = shared.tickets[1];
        done.store_done.result = result_make();    // freed by whoever gets it, or by the process
        post(done);
        struct io_event device = {.kind = IO_DEVICE_DONE};
        device.device_done.list = &shared.list;
        post(device);
        struct io_event compute = {.kind = IO_COMPUTE_DONE};
        compute.compute_done.ticket = shared.tickets[3];
        post(compute);
        step();
    }
    assert_int_equal(shared.a_events[IO_STORE_DONE], 2);
    assert_int_equal(shared.a_events[IO_DEVICE_DONE], 1);
    assert_int_equal(shared.a_events[IO_COMPUTE_DONE], 1);
}

static void a_message_without_a_body_ends_its_sender(void **state)
{
    begin(state);
    submit(VERB_SEND_NOTHING);
    step();
    assert_int_equal(effects.effect[effects.count - 1].kind, IO_STOP);
}

// Two roots, each with its own listener.
static uint32_t accepted[2], submits[2];

static enum dj_error listener_start(struct actor *self, void *state, const void *argument)
{
    uint32_t listener = *(const uint32_t *)argument;
    *(uint32_t *)state = listener;
    actor_accept_links_of(self, listener);
    actor_accept_submits(self);
    return DJ_OK;
}

static enum dj_error listener_receive(struct actor *self, void *state, struct letter *letter)
{
    (void)self;
    uint32_t listener = *(uint32_t *)state;
    if (letter->kind == LETTER_EVENT && letter->event.kind == IO_LINK_UP)
        accepted[listener]++;
    if (letter->kind == LETTER_EVENT && letter->event.kind == IO_SUBMIT)
        submits[listener]++;
    return DJ_OK;
}

static const struct actor_class listener_class = {
    .name = "listener",
    .state_bytes = sizeof(uint32_t),
    .start = listener_start,
    .receive = listener_receive,
};

static void each_listeners_links_go_to_its_own_acceptor_and_submits_to_all(void **state)
{
    memset(accepted, 0, sizeof accepted);
    memset(submits, 0, sizeof submits);
    assert_ok(process_make(&process));
    effects_init(&effects);
    case_later(state, free_all, NULL);
    for (uint32_t i = 0; i < 2; i++)
        assert_ok(process_root(process, &listener_class, &i, sizeof i));
    step();
    link_up(1, 0, 1);
    link_up(2, 0, 0);
    link_up(3, 0, 1);
    link_up(4, 0, 7);    // a listener that nobody registered for
    submit(1);
    step();
    assert_int_equal(accepted[0], 1);
    assert_int_equal(accepted[1], 2);
    assert_true(has_closed(4));
    assert_int_equal(submits[0], 1);
    assert_int_equal(submits[1], 1);
}

CASES(an_opened_links_events_come_to_who_opened_it, a_link_that_never_came_up_is_told_by_its_request,
      what_waits_for_the_former_owner_comes_along_with_the_link, a_closed_link_gives_no_more_events_and_its_blobs_are_freed,
      when_an_actor_ends_its_links_close, answers_come_to_who_holds_the_ticket_and_once, a_message_without_a_body_ends_its_sender,
      each_listeners_links_go_to_its_own_acceptor_and_submits_to_all)
