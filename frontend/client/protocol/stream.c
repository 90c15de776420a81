// Stream: the ordered submissions of one place, with the steps of its recovery among them: sent in order, given their outcomes, sent again.
//
// An execution for which the worker lacks an input is not told to the program: the place drains (nothing more is sent until everything sent
// has its outcome), then recovers in a new stream, and what failed goes again.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/assert.h"
#include "core/base/bits.h"
#include "core/base/log.h"
#include "core/base/planted.h"
#include "frontend/client/protocol/state.h"

enum { ABSENCES_MAX = 3, IMPORT_ABSENCES_MAX = 100, ANSWER_KEPT_BYTES_MAX = 64 << 10 };
#define IMPORT_AGAIN_NS 250000000u    // before a value that its worker did not give is asked for again

// The oldest without an outcome; the head of the list when there is none. Those that have one and wait to be durable may be many.
static struct list *first_undone(struct peer *peer)
{
    struct list *first = &peer->flights;
    uint32_t left = peer->undone;
    for (struct list *node = peer->flights.prev; left > 0; node = node->prev) {
        assert(node != &peer->flights);
        if (list_entry(node, struct flight, node)->state != FLIGHT_DONE) {
            first = node;
            left--;
        }
    }
    return first;
}

#define each_from(node, from, peer) \
    for (struct list *node = (from), *node##_next = node->next; node != &(peer)->flights; \
         node = node##_next, node##_next = node->next)

// Sending ------------------------------------------------------------------------------------------------------------------

// An import from a place whose values are not there yet waits, and what comes after it with it.
static bool must_wait(const struct protocol *protocol, const struct flight *flight)
{
    if (flight->kind != FLIGHT_IMPORT || flight->is_step || flight->doom != DJ_OK)
        return false;
    const struct peer *from = peer_at(protocol, flight->from_place);
    return from != NULL && from->state != PEER_GONE && (from->state != PEER_READY || from->is_draining || from->is_behind);
}

static bool builds_on(const struct flight *flight, uint32_t place, const struct peer *at, uint64_t counter)
{
    if (flight->kind == FLIGHT_IMPORT)
        return flight->from_place == place && flight->from_counter == counter;
    for (uint32_t i = 0; at->place == place && i < flight->plan->inputs; i++) {
        uint64_t distance;
        uint32_t output;
        if (flight->plan->input[i].is_leaf)
            continue;
        binding_handle(flight->plan, flight->word, i, &distance, &output);
        if (flight->counter - distance == counter)
            return true;
    }
    return false;
}

// What it would have ended, ends: the worker does not say so of what failed.
static void give_back(struct peer *peer, const struct flight *flight)
{
    for (uint32_t i = 0; flight->kind == FLIGHT_EXECUTE && i < flight->plan->inputs; i++) {
        uint64_t distance;
        uint32_t output;
        if (flight->plan->input[i].is_leaf || !bit_get(flight->donated, i))
            continue;
        binding_handle(flight->plan, flight->word, i, &distance, &output);
        write_var(&peer->released, flight->counter - distance);
        write_var(&peer->released, output);
    }
    for (uint32_t i = 0; i < flight->released_count; i++) {
        write_var(&peer->released, flight->released[i].counter);
        write_var(&peer->released, flight->released[i].output);
    }
}

// It is not tried again: the program hears it. What was submitted on top of it before that can have no other end, wherever it is by then:
// nothing could bring its inputs into being.
static void fail_for_good(struct protocol *protocol, struct peer *peer, struct flight *flight, enum dj_error error, int64_t node,
                          const char *text)
{
    list_each (p, &protocol->peers) {
        struct peer *other = list_entry(p, struct peer, node);
        for (struct list *at = other->flights.prev; at != &other->flights; at = at->prev) {
            struct flight *follower = list_entry(at, struct flight, node);
            if (follower->counter <= flight->counter)
                break;
            if (follower->state == FLIGHT_DONE || follower->is_step || follower->doom != DJ_OK ||
                !builds_on(follower, peer->place, other, flight->counter))
                continue;
            follower->doom = error;
            follower->doomed_by = flight->counter;
        }
    }
    fetches_fail(protocol, peer->place, flight->counter, error, text);
    give_back(peer, flight);
    flight_done(protocol, peer, flight);
    protocol->port.failed(protocol->port.self, flight->tag, error, node, text);
    flight_remove(protocol, peer, flight);
}

static void say_quarantined(const struct flight *flight, char text[PROTOCOL_TEXT_MAX])
{
    char name[HASH128_TEXT] = "?";
    if (flight->plan != NULL)
        hash128_text(flight->plan->fingerprint, name);
    snprintf(text, PROTOCOL_TEXT_MAX,
             "execution %llu of plan %s (%u nodes) was on the device in %u deaths of its worker, and is not tried again",
             (unsigned long long)exec_number(flight->counter), name, flight->plan == NULL ? 0 : flight->plan->nodes,
             flight->deaths);
}

static void say_unsent(const struct flight *flight, enum dj_error error, char text[PROTOCOL_TEXT_MAX])
{
    if (flight->doomed_by != 0)
        snprintf(text, PROTOCOL_TEXT_MAX, "it builds on execution %llu, which failed: %s",
                 (unsigned long long)exec_number(flight->doomed_by), dj_error_text(error));
    else if (flight->doom == DJ_E_QUARANTINED)
        say_quarantined(flight, text);
    else
        snprintf(text, PROTOCOL_TEXT_MAX, "the submission could not be sent: %s", dj_error_text(error));
}

static void send_one(struct protocol *protocol, struct peer *peer, struct flight *flight)
{
    enum dj_error error = flight->doom != DJ_OK ? flight->doom : flight_send(protocol, peer, flight);
    arena_reset(protocol->arena);
    if (error == DJ_OK) {
        flight->state = FLIGHT_SENT;
        protocol->stats.resubmissions += flight->was_sent && !flight->is_step;
        flight->was_sent = true;
        return;
    }
    if (flight->is_step) {
        log_write(LOG_WARN, "client", "place=%u a step of its recovery cannot be sent: %s", peer->place, dj_error_name(error));
        fault_set(&peer->trouble, error, "a step of the recovery could not be sent");
        peer->is_draining = true;
        flight_remove(protocol, peer, flight);
        peer->recovery.steps_out--;
        return;
    }
    char text[PROTOCOL_TEXT_MAX];
    say_unsent(flight, error, text);
    fail_for_good(protocol, peer, flight, error, -1, text);
}

// What takes its turn behind everything that was submitted before it.
static void send_behind(struct protocol *protocol, struct peer *peer)
{
    if (peer->released.length > 0) {
        struct wire_release message = {.handles = peer->released.data, .handles_bytes = (uint32_t)peer->released.length};
        if (peer->released.error == DJ_OK)
            send_message(protocol, peer->link, WIRE_RELEASE, wire_release_encode(&message));
        writer_reset(&peer->released);
    }
    fetches_send(protocol, peer);
}

void stream_send(struct protocol *protocol, struct peer *peer)
{
    bool waits = false;
    struct flight *step;
    if (peer->state != PEER_READY || peer->is_draining || peer->is_behind)
        return;
    each_from(node, first_undone(peer), peer)
    {
        struct flight *flight = list_entry(node, struct flight, node);
        if (flight->state != FLIGHT_WAITING)
            continue;
        while (!flight->is_step && !peer->is_draining &&
               (step = recover_next_step(protocol, peer, flight->counter, &waits)) != NULL)
            send_one(protocol, peer, step);
        if (waits || peer->is_draining || must_wait(protocol, flight))
            return;
        send_one(protocol, peer, flight);
    }
    while (!peer->is_draining && (step = recover_next_step(protocol, peer, UINT64_MAX, &waits)) != NULL)
        send_one(protocol, peer, step);
    if (!waits && !peer->is_draining)
        send_behind(protocol, peer);
}

void stream_restart(struct protocol *protocol, struct peer *peer)
{
    plans_forget(peer);
    // What named or carried a leaf may be lost with the link.
    if (peer->slot < PROTOCOL_PLACES_LIVE_MAX)
        leaf_forget_peer(protocol->config.leaves, peer->slot);
    each_from(node, first_undone(peer), peer)
    {
        struct flight *flight = list_entry(node, struct flight, node);
        bool is_forgotten = PLANTED(FORGET_LAST) && node->next == &peer->flights && peer->undone > 3;
        if (flight->state == FLIGHT_SENT && !is_forgotten)
            flight->state = FLIGHT_WAITING;
    }
}

bool stream_is_drained(const struct peer *peer)
{
    for (const struct list *node = peer->flights.next; node != &peer->flights; node = node->next)
        if (list_entry(node, struct flight, node)->state == FLIGHT_SENT)
            return false;
    return true;
}

bool stream_is_caught_up(struct peer *peer)
{
    if (peer->state != PEER_READY || peer->is_draining || peer->is_behind || recover_has_steps(peer))
        return false;
    each_from(node, first_undone(peer), peer) if (list_entry(node, struct flight, node)->state == FLIGHT_WAITING) return false;
    return true;
}

// Outcomes -----------------------------------------------------------------------------------------------------------------

static void passed(struct peer *peer, const struct flight *flight, uint64_t counter, uint32_t part)
{
    // Parts of one execution are confirmed together, when a later execution is.
    uint64_t confirmed = flight != NULL && !flight->is_step ? counter : counter - 1;
    if (confirmed > peer->confirmed)
        peer->confirmed = confirmed;
    if (position_compare(counter, part, peer->answered_counter, peer->answered_part) > 0) {
        peer->answered_counter = counter;
        peer->answered_part = part;
    }
    peer->leaves_out = 0;
    peer->refusals = 0;
}

static void flight_executed(struct protocol *protocol, struct peer *peer, struct flight *flight)
{
    if (flight->is_step) {
        recover_step_done(protocol, peer, flight);
        return;
    }
    flight_done(protocol, peer, flight);
    peer->recovery.rounds = 0;
    // Its source may end with the outcome, and another worker tells of that: not before the head knows what was made of it.
    flight->owes_outcome = flight->kind == FLIGHT_IMPORT;
    if (!flight->owes_outcome)
        protocol->port.executed(protocol->port.self, flight->tag);
    flight->is_recorded |= PLANTED(TRIM_WINDOW) && flight->leaves_count > 1;
    flight_settle(protocol, peer, flight);
}

static void deliver(struct protocol *protocol, struct flight *flight, const struct wire_answer *answer, struct blob *body,
                    struct blob *bulk)
{
    uint64_t bulk_at = 0;
    flight->cost_ns = answer->execute_ns;
    if (flight->is_step)
        return;
    if (answer->outputs_count > 0 && flight->answer == NULL && body->bytes <= ANSWER_KEPT_BYTES_MAX)
        flight_keep_answer(protocol, flight, body);
    for (uint32_t i = 0; i < answer->outputs_count; i++) {
        const struct wire_output *output = &answer->outputs[i];
        if (output->data_bytes > 0 || output->bytes == 0) {
            uint64_t offset = output->data_bytes == 0 ? 0 : (uint64_t)(output->data - body->data);
            protocol->port.answered(protocol->port.self, flight->tag, output->output, body, offset, output->data_bytes);
        } else if (bulk != NULL && output->bytes <= bulk->bytes - bulk_at) {
            protocol->port.answered(protocol->port.self, flight->tag, output->output, bulk, bulk_at, output->bytes);
            bulk_at += output->bytes;
        }
    }
}

// An answer for the second time must say what the first one said; what was said first stands.
static void compare_repeated(struct protocol *protocol, const struct flight *flight, const struct wire_answer *answer)
{
    struct wire_answer first;
    if (flight->answer == NULL ||
        wire_answer_decode(flight->answer->data, flight->answer->bytes, protocol->arena, &first) != DJ_OK)
        return;
    for (uint32_t i = 0; i < first.outputs_count && i < answer->outputs_count; i++) {
        const struct wire_output *a = &first.outputs[i], *b = &answer->outputs[i];
        bool is_equal = a->output == b->output && a->bytes == b->bytes && a->data_bytes == b->data_bytes &&
                        (a->data_bytes == 0 || memcmp(a->data, b->data, a->data_bytes) == 0);
        if (is_equal)
            continue;
        char name[HASH128_TEXT] = "?";
        if (flight->plan != NULL)
            hash128_text(flight->plan->fingerprint, name);
        protocol->stats.nondeterminism++;
        log_write(LOG_WARN, "client", "not deterministic: execution %llu of plan %s gave output %u otherwise than before",
                  (unsigned long long)exec_number(flight->counter), name, a->output);
    }
}

static void repeated(struct protocol *protocol, struct peer *peer, const struct wire_answer *answer)
{
    for (struct list *node = peer->flights.prev; node != &peer->flights; node = node->prev) {
        const struct flight *flight = list_entry(node, struct flight, node);
        int order = position_compare(flight->counter, flight->part, answer->counter, answer->part);
        if (order == 0 && flight->state == FLIGHT_DONE)
            compare_repeated(protocol, flight, answer);
        if (order <= 0)
            return;
    }
}

void stream_answer(struct protocol *protocol, struct peer *peer, const struct wire_answer *answer, struct blob *body,
                   struct blob *bulk)
{
    bool is_new = false;
    protocol->stats.bind_ns += answer->bind_ns;
    protocol->stats.execute_ns += answer->execute_ns;
    each_from(node, first_undone(peer), peer)
    {
        struct flight *flight = list_entry(node, struct flight, node);
        int order = position_compare(flight->counter, flight->part, answer->counter, answer->part);
        if (order > 0)
            break;
        if (flight->state != FLIGHT_SENT)
            continue;
        // Answers come in stream order: what lies before this one has run too.
        passed(peer, flight, flight->counter, flight->part);
        if (order == 0) {
            is_new = true;
            protocol->stats.round_trips++;
            deliver(protocol, flight, answer, body, bulk);
        }
        flight_executed(protocol, peer, flight);
    }
    if (!is_new && answer->outputs_count > 0)
        repeated(protocol, peer, answer);
}

// DEVICE: a list that the device began and did not end has taken what it donated; everything else is as it was. That nothing could be reserved
// for a list (DEVICE_MEMORY) is no absence: another try would end like the first.
static bool is_absence(enum dj_error error)
{
    return error == DJ_E_HANDLE_UNKNOWN || error == DJ_E_HANDLE_LOST || error == DJ_E_DEVICE;
}

void stream_begin_to_drain(struct protocol *protocol, struct peer *peer, enum dj_error error, const char *text)
{
    if (!peer->is_draining)
        log_write(LOG_INFO, "client", "place=%u recovers: %s (%s)", peer->place, text, dj_error_name(error));
    if (!peer->is_draining)
        fault_set(&peer->trouble, error, "%s", text);
    if (peer->recovery.begun_ns == 0)
        peer->recovery.begun_ns = protocol->now_ns;
    peer->is_draining = true;
}

// The other place does not have what it should give: it must have it brought back.
static void source_lacks(struct protocol *protocol, const struct flight *flight, enum dj_error error)
{
    struct peer *from = peer_at(protocol, flight->from_place);
    if (error != DJ_E_HANDLE_UNKNOWN || from == NULL || from->state != PEER_READY || from->is_draining)
        return;
    stream_begin_to_drain(protocol, from, error, "another place asked it for a value that it does not have");
    recover_absent(protocol, from, flight->from_counter, flight->from_output);
}

// True: it goes again after a recovery.
static bool goes_again(struct protocol *protocol, struct peer *peer, struct flight *flight,
                       const struct wire_execution_failed *failed)
{
    enum dj_error error = (enum dj_error)failed->error;
    if (flight->doom != DJ_OK)
        return false;
    uint32_t most = flight->kind == FLIGHT_IMPORT ? IMPORT_ABSENCES_MAX : ABSENCES_MAX;
    if (peer->is_draining && (is_absence(error) || error == peer->trouble.code))
        return true;    // for want of what failed before it, perhaps: it is seen when it goes again
    if (flight->is_step) {
        stream_begin_to_drain(protocol, peer, error, failed->text);
        if (is_absence(error) && flight->kind == FLIGHT_EXECUTE)
            recover_absent_inputs(protocol, peer, flight, error == DJ_E_DEVICE);
        if (error == DJ_E_HANDLE_UNKNOWN && flight->kind == FLIGHT_IMPORT)
            recover_absent(protocol, peer, flight->from_counter, flight->from_output);    // not where the head thought it was
        // A step for which there is no room will find none for ever: the rounds end.
        peer->recovery.rounds += !is_absence(error) && flight->kind == FLIGHT_EXECUTE;
        peer->drained_at_ns = later(protocol->now_ns, IMPORT_AGAIN_NS);
        return true;
    }
    if (!is_absence(error) || flight->absences >= most)
        return false;
    flight->absences++;
    stream_begin_to_drain(protocol, peer, error, failed->text);
    if (flight->kind == FLIGHT_IMPORT) {
        source_lacks(protocol, flight, error);
        peer->drained_at_ns = later(protocol->now_ns, IMPORT_AGAIN_NS);
    } else {
        recover_absent_inputs(protocol, peer, flight, error == DJ_E_DEVICE);
    }
    return true;
}

void stream_failed(struct protocol *protocol, struct peer *peer, const struct wire_execution_failed *failed)
{
    each_from(node, first_undone(peer), peer)
    {
        struct flight *flight = list_entry(node, struct flight, node);
        int order = position_compare(flight->counter, flight->part, failed->counter, failed->part);
        if (order > 0)
            break;
        if (flight->state != FLIGHT_SENT || order != 0)
            continue;
        passed(peer, flight, flight->counter, flight->part);
        if (goes_again(protocol, peer, flight, failed)) {
            flight->state = FLIGHT_WAITING;
            flight->has_failed = true;
            break;
        }
        fail_for_good(protocol, peer, flight, (enum dj_error)failed->error, failed->node, failed->text);
        if (stream_is_caught_up(peer))
            send_behind(protocol, peer);
        break;
    }
}

void stream_fail_all(struct protocol *protocol, struct peer *peer, enum dj_error error, const char *text)
{
    list_each (node, &peer->flights) {
        struct flight *flight = list_entry(node, struct flight, node);
        if (flight->state != FLIGHT_DONE && !flight->is_step) {
            flight_done(protocol, peer, flight);
            protocol->port.failed(protocol->port.self, flight->tag, error, -1, text);
        }
        flight_remove(protocol, peer, flight);
    }
}

void stream_free(struct protocol *protocol, struct peer *peer)
{
    list_each (node, &peer->flights) {
        struct flight *flight = list_entry(node, struct flight, node);
        if (flight->state != FLIGHT_DONE && !flight->is_step)
            flight_done(protocol, peer, flight);
        flight->owes_outcome = false;
        flight_remove(protocol, peer, flight);
    }
    plans_forget(peer);
    free(peer->plan);
    peer->plan = NULL;
    peer->plans = 0;
}
