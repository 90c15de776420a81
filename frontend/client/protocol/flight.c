// Flight: one submission, kept whole from its taking until the head has it durably: to be sent again, and to be told to the head by this
// client if its worker cannot. Steps of recoveries are flights too, forgotten once they are answered.

#include <stdlib.h>
#include <string.h>

#include "core/base/assert.h"
#include "core/base/planted.h"
#include "frontend/client/protocol/state.h"

static void *carve(uint8_t **at, const void *from, size_t bytes)
{
    void *to = *at;
    if (bytes > 0)
        memcpy(to, from, bytes);
    *at += (bytes + 7) & ~(size_t)7;
    return to;
}

struct flight *flight_of_step(const struct submission *from)
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
        .bytes = bytes + sizeof *flight,
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

struct flight *flight_of_submission(const struct protocol *protocol, const struct submission *from)
{
    struct flight *flight = flight_of_step(from);
    if (flight == NULL)
        return NULL;
    flight->counter = wire_counter(protocol, from->counter);
    wire_words(protocol, from->plan, from->counter, flight->word);
    for (uint32_t i = 0; i < flight->released_count; i++)
        flight->released[i].counter = wire_counter(protocol, flight->released[i].counter);
    return flight;
}

void flight_free(struct flight *flight)
{
    if (flight == NULL)
        return;
    for (uint32_t i = 0; i < flight->leaves_count; i++)
        leaf_drop(flight->leaves[i]);
    plan_drop(flight->plan);
    blob_drop(flight->answer);
    if (flight->owns_released)
        free(flight->released);
    free(flight->memory);
    free(flight);
}

// Most come at the end; a step has its place among what is there.
void flight_add(struct protocol *protocol, struct peer *peer, struct flight *flight)
{
    struct list *after = peer->flights.prev;
    while (after != &peer->flights) {
        const struct flight *before = list_entry(after, struct flight, node);
        if (position_compare(before->counter, before->part, flight->counter, flight->part) < 0)
            break;
        after = after->prev;
    }
    list_push(after->next, &flight->node);
    peer->undone++;
    if (flight->is_step)
        return;
    peer->in_flight++;
    protocol->in_flight++;
    protocol->in_flight_bytes += flight->bytes;
    protocol->window++;
    protocol->window_bytes += flight->bytes;
    protocol->stats.executions++;
}

void flight_done(struct protocol *protocol, struct peer *peer, struct flight *flight)
{
    assert(flight->state != FLIGHT_DONE);
    flight->state = FLIGHT_DONE;
    peer->undone--;
    flight->done_ns = protocol->now_ns;
    flight->numerics = peer->numerics;
    if (flight->is_step)
        return;
    peer->in_flight--;
    protocol->in_flight--;
    protocol->in_flight_bytes -= flight->bytes;
    if (protocol->journal_at_ns == 0)
        protocol->journal_at_ns = later(protocol->now_ns, PROTOCOL_JOURNAL_NS);
}

void flight_remove(struct protocol *protocol, struct peer *peer, struct flight *flight)
{
    assert(flight->state == FLIGHT_DONE || flight->is_step);
    peer->undone -= flight->state != FLIGHT_DONE;
    list_remove(&flight->node);
    if (!flight->is_step) {
        protocol->window--;
        protocol->window_bytes -= flight->bytes;
    }
    if (flight->owes_outcome)
        protocol->port.executed(protocol->port.self, flight->tag);
    flight_free(flight);
}

bool flight_has_durable_leaves(const struct flight *flight)
{
    for (uint32_t i = 0; i < flight->leaves_count; i++)
        if (!flight->leaves[i]->is_durable && !(PLANTED(FORGET_LEAVES) && flight->leaves_count > 2))
            return false;
    return true;
}

void flight_settle(struct protocol *protocol, struct peer *peer, struct flight *flight)
{
    if (flight->state == FLIGHT_DONE && flight->is_recorded && flight_has_durable_leaves(flight))
        flight_remove(protocol, peer, flight);
}

void flight_keep_answer(struct protocol *protocol, struct flight *flight, struct blob *body)
{
    assert(flight->answer == NULL && !flight->is_step);
    flight->answer = blob_hold(body);
    flight->bytes += body->bytes;
    protocol->in_flight_bytes += body->bytes;    // taken off with the rest of it in flight_done
    protocol->window_bytes += body->bytes;
}
