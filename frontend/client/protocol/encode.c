// Encode: one flight as messages. What the other end of this link knows (plans, the last bindings, masks, leaves) is not said again.
//
// A worker's record of an execution is the delta that came with it, so a delta must build on one that is recorded: after a repetition or a step
// of a recovery, and every CHAIN_MAX executions, it stands alone.

#include <stdlib.h>
#include <string.h>

#include "core/base/planted.h"
#include "frontend/client/protocol/state.h"

enum { OFFER_LEAVES_MAX = 4096, CHAIN_MAX = RECORD_CHAIN_MAX };

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

void plans_forget(struct peer *peer)
{
    for (uint32_t i = 0; i < peer->plans; i++)
        plan_slot_clear(&peer->plan[i]);
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
    size_t released = writer->length;
    if (flight->has_name)
        write_var(writer, flight->output);
    if (writer->error != DJ_OK)
        return;
    message->answers = writer->data;
    message->answers_bytes = (uint32_t)answers;
    message->released = writer->data + answers;
    message->released_bytes = (uint32_t)(released - answers);
    message->names = writer->data + released;
    message->names_bytes = (uint32_t)(writer->length - released);
}

// Whether the worker will record this execution with the delta that goes with it.
static bool is_recorded(const struct peer *peer, const struct flight *flight)
{
    return !flight->is_step && position_compare(flight->counter, flight->part, peer->had_counter, peer->had_part) > 0;
}

static void begin_chain_if_due(struct peer_plan *known, bool is_now_recorded)
{
    if (known->history.depth > 0 && is_now_recorded && (known->is_unrecorded || known->chain >= CHAIN_MAX - 1))
        history_reset(&known->history);
    known->chain = known->history.depth == 0 ? 0 : known->chain + 1;
    known->is_unrecorded = !is_now_recorded;
}

static void write_masks(const struct flight *flight, struct peer_plan *known, struct wire_execute *message)
{
    if (message->reset || memcmp(known->kept, flight->kept, known->kept_bytes) != 0) {
        message->kept = flight->kept;
        message->kept_bytes = known->kept_bytes;
        memcpy(known->kept, flight->kept, known->kept_bytes);
    }
    if (message->reset || memcmp(known->donated, flight->donated, known->donated_bytes) != 0) {
        message->donated = flight->donated;
        message->donated_bytes = known->donated_bytes;
        memcpy(known->donated, flight->donated, known->donated_bytes);
    }
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
    begin_chain_if_due(known, is_recorded(peer, flight));
    struct wire_execute message = {.counter = flight->counter,
                                   .part = flight->part,
                                   .plan = flight->plan_number,
                                   .is_replay = flight->is_step,
                                   .confirmed = PLANTED(EARLY_CONFIRM) && peer->undone > 3 ? flight->counter : peer->confirmed,
                                   .leaves = small};
    message.leaves_count = collect_leaves(protocol, peer, flight, small);
    message.reset = known->history.depth == 0;
    writer_reset(&protocol->delta);
    bindings_encode(&known->history, flight->word, &protocol->delta);
    message.delta = protocol->delta.data;
    message.delta_bytes = (uint32_t)protocol->delta.length;
    write_masks(flight, known, &message);
    write_numbers(protocol, flight, &message);
    if (protocol->delta.error != DJ_OK || protocol->numbers.error != DJ_OK)
        return DJ_E_LIMIT;
    struct blob *body = wire_execute_encode(&message);
    if (body == NULL)
        return DJ_E_LIMIT;
    send_message(protocol, peer->link, WIRE_EXECUTE, body);
    return history_push(&known->history, flight->word);
}

static void location_of_grant(const struct wire_grant *grant, struct wire_location *ret)
{
    *ret = (struct wire_location){.worker = grant->worker, .incarnation = grant->incarnation};
    memcpy(ret->address_unix, grant->address_unix, sizeof ret->address_unix);
    memcpy(ret->address_tcp, grant->address_tcp, sizeof ret->address_tcp);
    memcpy(ret->host, grant->host, sizeof ret->host);
}

static enum dj_error send_import(struct protocol *protocol, struct peer *peer, const struct flight *flight)
{
    struct wire_location location;
    struct wire_handle handle = {.session = peer->session, .counter = flight->from_counter, .output = flight->from_output};
    if (flight->from_incarnation != 0) {
        const struct wire_location *known = whereabouts_of(protocol, flight->from_incarnation);
        if (known == NULL)
            return DJ_E_HANDLE_LOST;
        location = *known;
    } else {
        const struct peer *from = peer_at(protocol, flight->from_place);
        if (from == NULL || from->state == PEER_GONE)    // one that never had a worker says why
            return from != NULL && from->incarnation == 0 && from->fault.code != DJ_OK ? from->fault.code : DJ_E_HANDLE_LOST;
        handle.session = from->session;
        location_of_grant(&from->grant, &location);
    }
    struct wire_import message = {.counter = flight->counter,
                                  .part = flight->part,
                                  .output = flight->output,
                                  .is_replay = flight->is_step,
                                  .handles = &handle,
                                  .handles_count = 1,
                                  .locations = &location,
                                  .locations_count = 1};
    struct blob *body = wire_import_encode(&message);
    if (body == NULL)
        return DJ_E_NO_MEMORY;
    send_message(protocol, peer->link, WIRE_IMPORT, body);
    return DJ_OK;
}

enum dj_error flight_send(struct protocol *protocol, struct peer *peer, struct flight *flight)
{
    return flight->kind == FLIGHT_IMPORT ? send_import(protocol, peer, flight) : send_execute(protocol, peer, flight);
}
