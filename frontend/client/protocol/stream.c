// Stream: the ordered submissions of one place: encoded when they are sent, kept until they are answered, counted until they are durable.

#include <stdlib.h>
#include <string.h>

#include "core/base/assert.h"
#include "core/base/log.h"
#include "core/base/planted.h"
#include "frontend/client/protocol/state.h"

enum { OFFER_LEAVES_MAX = 4096, UNSENT_MAX = 64 };

// Keeping ------------------------------------------------------------------------------------------------------------------

static void *carve(uint8_t **at, const void *from, size_t bytes)
{
    void *to = *at;
    if (bytes > 0)
        memcpy(to, from, bytes);
    *at += (bytes + 7) & ~(size_t)7;
    return to;
}

struct flight *flight_of_submission(const struct submission *from)
{
    const struct srg_plan *plan = from->plan;
    size_t kept = (plan->outputs + 7) / 8, donated = (plan->inputs + 7) / 8;
    size_t bytes = plan->words * sizeof(int64_t) + kept + donated + from->answers_count * sizeof(uint32_t) +
                   from->released_count * sizeof(struct released) + from->leaves_count * sizeof(struct leaf *) + 64;
    struct flight *flight = calloc(1, sizeof *flight);
    uint8_t *at = malloc(bytes);
    if (flight == NULL || at == NULL) {
        free(flight);
        free(at);
        return NULL;
    }
    *flight = (struct flight){
        .kind = FLIGHT_EXECUTE,
        .counter = from->counter,
        .tag = from->tag,
        .kept_bytes_total = bytes,
        .memory = at,
        .plan = plan_hold(from->plan),
        .plan_number = from->plan_number,
        .answers_count = from->answers_count,
        .released_count = from->released_count,
        .leaves_count = from->leaves_count,
    };
    flight->word = carve(&at, from->word, plan->words * sizeof(int64_t));
    flight->released = carve(&at, from->released, from->released_count * sizeof(struct released));
    flight->leaves = carve(&at, from->leaves, from->leaves_count * sizeof(struct leaf *));
    flight->answers = carve(&at, from->answers, from->answers_count * sizeof(uint32_t));
    flight->kept = carve(&at, from->kept, kept);
    flight->donated = carve(&at, from->donated, donated);
    for (uint32_t i = 0; i < flight->leaves_count; i++)
        leaf_hold(flight->leaves[i]);
    return flight;
}

static void flight_forget(struct flight *flight)
{
    for (uint32_t i = 0; i < flight->leaves_count; i++)
        leaf_drop(flight->leaves[i]);
    flight->leaves_count = 0;
    plan_drop(flight->plan);
    flight->plan = NULL;
    free(flight->memory);
    flight->memory = NULL;
}

void stream_add(struct protocol *protocol, struct peer *peer, struct flight *flight)
{
    list_push(&peer->flights, &flight->node);
    peer->in_flight++;
    protocol->in_flight++;
    protocol->in_flight_bytes += flight->kept_bytes_total;
    protocol->window++;
    protocol->stats.executions++;
}

// It has its outcome. What remains, for the count of what is not yet durable, is the encoding.
static void flight_done(struct protocol *protocol, struct peer *peer, struct flight *flight)
{
    assert(flight->state != FLIGHT_DONE);
    flight->state = FLIGHT_DONE;
    peer->in_flight--;
    protocol->in_flight--;
    protocol->in_flight_bytes -= flight->kept_bytes_total;
    flight_forget(flight);
}

static void flight_remove(struct protocol *protocol, struct flight *flight)
{
    assert(flight->state == FLIGHT_DONE);
    list_remove(&flight->node);
    protocol->window--;
    if (flight->body != NULL)
        protocol->window_bytes -= flight->body->bytes;
    blob_drop(flight->body);
    free(flight);
}

static void flight_keep_body(struct protocol *protocol, struct flight *flight, struct blob *body)
{
    if (flight->body != NULL)
        protocol->window_bytes -= flight->body->bytes;
    blob_drop(flight->body);
    flight->body = blob_hold(body);
    protocol->window_bytes += body->bytes;
}

// Encoding -----------------------------------------------------------------------------------------------------------------

static struct peer_plan *plan_slot(struct peer *peer, uint32_t number)
{
    if (number >= peer->plans) {
        uint32_t count = number + 16;
        struct peer_plan *grown = realloc(peer->plan, count * sizeof *grown);
        if (grown == NULL)
            return NULL;
        memset(grown + peer->plans, 0, (count - peer->plans) * sizeof *grown);
        peer->plan = grown;
        peer->plans = count;
    }
    return &peer->plan[number];
}

static void plan_slot_clear(struct peer_plan *known)
{
    history_free(&known->history);
    free(known->kept);
    free(known->donated);
    *known = (struct peer_plan){0};
}

// Makes sure that this link knows the plan under its number. DJ_E_NO_MEMORY, DJ_E_LIMIT: the plan is too large to be sent.
static enum dj_error send_plan(struct protocol *protocol, struct peer *peer, const struct flight *flight, struct peer_plan **ret)
{
    struct peer_plan *known = plan_slot(peer, flight->plan_number);
    if (known == NULL)
        return DJ_E_NO_MEMORY;
    *ret = known;
    if (hash128_equal(known->fingerprint, flight->plan->fingerprint))
        return DJ_OK;
    plan_slot_clear(known);
    struct writer writer = writer_make(PLAN_BYTES_MAX);
    enum dj_error error = plan_encode(flight->plan, &writer);
    if (error == DJ_OK)
        error = writer.error;
    if (error == DJ_OK) {
        struct wire_plan message = {.index = flight->plan_number,
                                    .fingerprint = flight->plan->fingerprint,
                                    .encoded = writer.data,
                                    .encoded_bytes = (uint32_t)writer.length};
        struct blob *body = wire_plan_encode(&message);
        if (body == NULL)
            error = DJ_E_NO_MEMORY;
        else
            send_message(protocol, peer->link, WIRE_PLAN, body);
    }
    writer_free(&writer);
    if (error != DJ_OK)
        return error;
    history_init(&known->history, flight->plan->words);
    known->kept_bytes = (flight->plan->outputs + 7) / 8;
    known->donated_bytes = (flight->plan->inputs + 7) / 8;
    known->kept = calloc(1, known->kept_bytes + 1);
    known->donated = calloc(1, known->donated_bytes + 1);
    if (known->kept == NULL || known->donated == NULL) {
        plan_slot_clear(known);
        return DJ_E_NO_MEMORY;
    }
    known->fingerprint = flight->plan->fingerprint;
    protocol->stats.plans_sent++;
    return DJ_OK;
}

// Leaves that the worker was not told about: small ones go inline, others are offered first.
static uint32_t collect_leaves(struct protocol *protocol, struct peer *peer, const struct flight *flight, struct wire_leaf *small)
{
    struct wire_leaf *offer = arena_alloc(protocol->arena, (flight->leaves_count + 1) * sizeof *offer);
    uint32_t smalls = 0, offers = 0;
    uint64_t bit = (uint64_t)1 << peer->slot;
    for (uint32_t i = 0; i < flight->leaves_count; i++) {
        struct leaf *leaf = flight->leaves[i];
        if ((leaf->known & bit) != 0)
            continue;
        leaf->known |= bit;
        struct wire_leaf named = {.content = leaf->content, .bytes = leaf->bytes};
        if (leaf->bytes <= WIRE_INLINE_BYTES && leaf->blob != NULL) {
            named.data = leaf->blob->data;
            named.data_bytes = (uint32_t)leaf->bytes;
            protocol->stats.leaf_bytes_out += leaf->bytes;
            small[smalls++] = named;
        } else if (offer != NULL) {
            offer[offers++] = named;
        }
    }
    for (uint32_t at = 0; at < offers; at += OFFER_LEAVES_MAX) {
        struct wire_leaf_offer message = {.leaves = offer + at,
                                          .leaves_count = offers - at < OFFER_LEAVES_MAX ? offers - at : OFFER_LEAVES_MAX};
        send_message(protocol, peer->link, WIRE_LEAF_OFFER, wire_leaf_offer_encode(&message));
    }
    return smalls;
}

static void write_numbers(struct protocol *protocol, const struct flight *flight, struct wire_execute *message)
{
    struct writer *writer = &protocol->numbers;
    writer_reset(writer);
    for (uint32_t i = 0; i < flight->answers_count; i++)
        write_var(writer, flight->answers[i]);
    size_t answers = writer->length;
    for (uint32_t i = 0; i < flight->released_count; i++) {
        write_var(writer, flight->counter - flight->released[i].counter);
        write_var(writer, flight->released[i].output);
    }
    message->answers = writer->data;
    message->answers_bytes = (uint32_t)answers;
    message->released = writer->data + answers;
    message->released_bytes = (uint32_t)(writer->length - answers);
}

static enum dj_error send_execute(struct protocol *protocol, struct peer *peer, struct flight *flight)
{
    struct peer_plan *known;
    enum dj_error error = send_plan(protocol, peer, flight, &known);
    if (error != DJ_OK)
        return error;
    struct wire_leaf *small = arena_alloc(protocol->arena, (flight->leaves_count + 1) * sizeof *small);
    if (small == NULL)
        return DJ_E_NO_MEMORY;
    struct wire_execute message = {.counter = flight->counter,
                                   .plan = flight->plan_number,
                                   .confirmed = PLANTED(EARLY_CONFIRM) ? flight->counter : peer->confirmed,
                                   .leaves = small};
    message.leaves_count = collect_leaves(protocol, peer, flight, small);
    message.reset = known->history.depth == 0;
    writer_reset(&protocol->delta);
    bindings_encode(&known->history, flight->word, &protocol->delta);
    message.delta = protocol->delta.data;
    message.delta_bytes = (uint32_t)protocol->delta.length;
    if (message.reset || memcmp(known->kept, flight->kept, known->kept_bytes) != 0) {
        message.kept = flight->kept;
        message.kept_bytes = known->kept_bytes;
        memcpy(known->kept, flight->kept, known->kept_bytes);
    }
    if (message.reset || memcmp(known->donated, flight->donated, known->donated_bytes) != 0) {
        message.donated = flight->donated;
        message.donated_bytes = known->donated_bytes;
        memcpy(known->donated, flight->donated, known->donated_bytes);
    }
    write_numbers(protocol, flight, &message);
    if (protocol->delta.error != DJ_OK || protocol->numbers.error != DJ_OK)
        return DJ_E_LIMIT;
    struct blob *body = wire_execute_encode(&message);
    if (body == NULL)
        return DJ_E_LIMIT;
    flight_keep_body(protocol, flight, body);
    send_message(protocol, peer->link, WIRE_EXECUTE, body);
    return history_push(&known->history, flight->word);
}

static enum dj_error send_import(struct protocol *protocol, struct peer *peer, struct flight *flight)
{
    const struct peer *from = peer_at(protocol, flight->from_place);
    if (from == NULL || from->state == PEER_GONE)
        return DJ_E_HANDLE_LOST;
    struct wire_handle handle = {
        .session = from->session, .counter = flight->from_counter, .output = flight->from_output};
    struct wire_location location = {.worker = from->grant.worker, .incarnation = from->grant.incarnation};
    memcpy(location.address_unix, from->grant.address_unix, sizeof location.address_unix);
    memcpy(location.address_tcp, from->grant.address_tcp, sizeof location.address_tcp);
    memcpy(location.host, from->grant.host, sizeof location.host);
    struct wire_import message = {
        .counter = flight->counter, .handles = &handle, .handles_count = 1, .locations = &location, .locations_count = 1};
    struct blob *body = wire_import_encode(&message);
    if (body == NULL)
        return DJ_E_NO_MEMORY;
    flight_keep_body(protocol, flight, body);
    send_message(protocol, peer->link, WIRE_IMPORT, body);
    return DJ_OK;
}

// An import from a place that has no address yet waits, and what comes after it with it.
static bool must_wait(const struct protocol *protocol, const struct flight *flight)
{
    if (flight->kind != FLIGHT_IMPORT)
        return false;
    const struct peer *from = peer_at(protocol, flight->from_place);
    return from != NULL && from->state == PEER_ASKED;
}

// What could not even be sent: its worker knows nothing of it, so what builds on it gets its error here.
struct unsent {
    uint64_t counter;
    enum dj_error error;
};

static bool builds_on(const struct flight *flight, const struct unsent *unsent, uint32_t count, enum dj_error *ret)
{
    for (uint32_t i = 0; count > 0 && i < flight->plan->inputs; i++) {
        uint64_t distance;
        uint32_t output;
        if (flight->plan->input[i].is_leaf)
            continue;
        binding_handle(flight->plan, flight->word, i, &distance, &output);
        for (uint32_t k = 0; k < count; k++)
            if (flight->counter - distance == unsent[k].counter) {
                *ret = unsent[k].error;
                return true;
            }
    }
    return false;
}

void stream_send(struct protocol *protocol, struct peer *peer)
{
    struct unsent unsent[UNSENT_MAX];
    uint32_t unsent_count = 0;
    enum dj_error cause = DJ_OK;
    if (peer->state != PEER_READY)
        return;
    list_each (node, &peer->flights) {
        struct flight *flight = list_entry(node, struct flight, node);
        if (flight->state != FLIGHT_WAITING)
            continue;
        if (must_wait(protocol, flight))
            return;
        enum dj_error error = flight->kind == FLIGHT_IMPORT                     ? send_import(protocol, peer, flight)
                              : builds_on(flight, unsent, unsent_count, &cause) ? cause
                                                                                : send_execute(protocol, peer, flight);
        arena_reset(protocol->arena);
        if (error != DJ_OK) {
            if (unsent_count < UNSENT_MAX)
                unsent[unsent_count++] = (struct unsent){.counter = flight->counter, .error = error};
            flight_done(protocol, peer, flight);
            protocol->port.failed(protocol->port.self, flight->tag, error, -1, "the submission could not be sent");
            flight_remove(protocol, flight);
            continue;
        }
        flight->state = FLIGHT_SENT;
        protocol->stats.resubmissions += flight->was_sent;
        flight->was_sent = true;
    }
}

void stream_restart(struct protocol *protocol, struct peer *peer)
{
    for (uint32_t i = 0; i < peer->plans; i++)
        plan_slot_clear(&peer->plan[i]);
    // What named or carried a leaf may be lost with the link.
    if (peer->slot < PROTOCOL_PLACES_LIVE_MAX)
        leaf_forget_peer(protocol->config.leaves, peer->slot);
    list_each (node, &peer->flights) {
        struct flight *flight = list_entry(node, struct flight, node);
        bool is_forgotten = PLANTED(FORGET_LAST) && node->next == &peer->flights && node->prev != &peer->flights;
        if (flight->state == FLIGHT_SENT && !is_forgotten)
            flight->state = FLIGHT_WAITING;
    }
}

// Outcomes -----------------------------------------------------------------------------------------------------------------

static void flight_executed(struct protocol *protocol, struct peer *peer, struct flight *flight)
{
    flight_done(protocol, peer, flight);
    protocol->port.executed(protocol->port.self, flight->tag);
    if (flight->counter <= peer->watermark)
        flight_remove(protocol, flight);
}

static void deliver(struct protocol *protocol, const struct flight *flight, const struct wire_answer *answer, struct blob *body,
                    struct blob *bulk)
{
    uint64_t bulk_at = 0;
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

void stream_answer(struct protocol *protocol, struct peer *peer, const struct wire_answer *answer, struct blob *body,
                   struct blob *bulk)
{
    protocol->stats.bind_ns += answer->bind_ns;
    protocol->stats.execute_ns += answer->execute_ns;
    list_each (node, &peer->flights) {
        struct flight *flight = list_entry(node, struct flight, node);
        if (flight->counter > answer->counter)
            break;
        if (flight->state != FLIGHT_SENT)
            continue;
        // Answers come in stream order: what lies before this one has run too.
        if (flight->counter == answer->counter) {
            protocol->stats.round_trips++;
            deliver(protocol, flight, answer, body, bulk);
        }
        flight_executed(protocol, peer, flight);
    }
    if (answer->counter > peer->confirmed)
        peer->confirmed = answer->counter;
}

void stream_failed(struct protocol *protocol, struct peer *peer, const struct wire_execution_failed *failed)
{
    list_each (node, &peer->flights) {
        struct flight *flight = list_entry(node, struct flight, node);
        if (flight->counter > failed->counter)
            break;
        if (flight->state != FLIGHT_SENT || flight->counter != failed->counter)
            continue;
        flight_done(protocol, peer, flight);
        protocol->port.failed(protocol->port.self, flight->tag, (enum dj_error)failed->error, failed->node, failed->text);
        flight_remove(protocol, flight);
    }
    if (failed->counter > peer->confirmed)
        peer->confirmed = failed->counter;
}

void stream_fail_all(struct protocol *protocol, struct peer *peer, enum dj_error error, const char *text)
{
    list_each (node, &peer->flights) {
        struct flight *flight = list_entry(node, struct flight, node);
        if (flight->state != FLIGHT_DONE) {
            flight_done(protocol, peer, flight);
            protocol->port.failed(protocol->port.self, flight->tag, error, -1, text);
        }
        flight_remove(protocol, flight);
    }
}

void stream_durable(struct protocol *protocol, struct peer *peer, uint64_t counter)
{
    list_each (node, &peer->flights) {
        struct flight *flight = list_entry(node, struct flight, node);
        if (flight->counter > counter)
            break;
        if (flight->state == FLIGHT_DONE)
            flight_remove(protocol, flight);
    }
}

void stream_free(struct protocol *protocol, struct peer *peer)
{
    list_each (node, &peer->flights) {
        struct flight *flight = list_entry(node, struct flight, node);
        if (flight->state != FLIGHT_DONE)
            flight_done(protocol, peer, flight);
        flight_remove(protocol, flight);
    }
    for (uint32_t i = 0; i < peer->plans; i++)
        plan_slot_clear(&peer->plan[i]);
    free(peer->plan);
    peer->plan = NULL;
    peer->plans = 0;
}
