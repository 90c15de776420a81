// Recover: what brings a place's values to the worker that it has now. The head plans (RECOVER, RECOVERY), this side names what is needed and
// puts the steps into the stream, each before what may build on it. Nothing is asked while the head is away, and nothing planned is lost with
// it: the parts are kept until they are read, and a step is read when it can be sent.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/assert.h"
#include "core/base/bits.h"
#include "core/base/log.h"
#include "core/base/planted.h"
#include "frontend/client/protocol/state.h"

enum { DEATHS_MAX = 2, ROUNDS_MAX = 40, NEEDED_BYTES_MAX = 8 << 20, ABSENT_MAX = 1 << 16 };
#define AGAIN_NS 250000000u
#define PARTS_BYTES_MAX ((uint64_t)1 << 30)

void recover_init(struct peer *peer)
{
    list_init(&peer->recovery.parts);
}

void plan_part_free(struct plan_part *part)
{
    list_remove(&part->node);
    blob_drop(part->body);
    free(part);
}

void recover_drop(struct protocol *protocol, struct peer *peer)
{
    struct recovery_state *recovery = &peer->recovery;
    list_each (node, &recovery->parts)
        plan_part_free(list_entry(node, struct plan_part, node));
    flight_free(recovery->next);
    list_each (node, &peer->flights) {
        struct flight *flight = list_entry(node, struct flight, node);
        if (flight->is_step)
            flight_remove(protocol, peer, flight);
    }
    recovery->next = NULL;
    recovery->is_reading = recovery->is_planned = false;
    recovery->request = recovery->locating = recovery->ask_at_ns = recovery->bytes = 0;
    recovery->steps_out = 0;
    if (recovery->reader.arena != NULL)
        arena_reset(recovery->reader.arena);
}

void recover_free(struct protocol *protocol, struct peer *peer)
{
    recover_drop(protocol, peer);
    if (peer->recovery.reader.arena != NULL)
        arena_free(peer->recovery.reader.arena);
    free(peer->recovery.absent);
}

// What is needed -----------------------------------------------------------------------------------------------------------

struct names {
    const struct protocol *protocol;
    struct absent *name;
    size_t count, capacity;
    bool has_failed;
};

static void names_add(struct names *names, uint64_t counter, uint32_t output)
{
    if (names->count == names->capacity) {
        size_t capacity = names->capacity == 0 ? 256 : 2 * names->capacity;
        struct absent *grown = realloc(names->name, capacity * sizeof *grown);
        if (grown == NULL) {
            names->has_failed = true;
            return;
        }
        names->name = grown;
        names->capacity = capacity;
    }
    names->name[names->count++] = (struct absent){.counter = counter, .output = output};
}

static void names_visit(void *context, uint64_t number, uint32_t output)
{
    struct names *names = context;
    names_add(names, wire_counter(names->protocol, number), output);
}

static int compare_names(const void *left, const void *right)
{
    const struct absent *a = left, *b = right;
    return position_compare(a->counter, a->output, b->counter, b->output);
}

// Every counter of [count] sorted ones, once.
static bool has_counter(const uint64_t *counter, size_t count, uint64_t wanted)
{
    size_t low = 0, high = count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (counter[middle] < wanted)
            low = middle + 1;
        else
            high = middle;
    }
    return low < count && counter[low] == wanted;
}

static void add_inputs(struct names *names, const struct flight *flight, bool only_donated)
{
    for (uint32_t i = 0; flight->kind == FLIGHT_EXECUTE && i < flight->plan->inputs; i++) {
        uint64_t distance;
        uint32_t output;
        if (flight->plan->input[i].is_leaf || (only_donated && !bit_get(flight->donated, i)))
            continue;
        binding_handle(flight->plan, flight->word, i, &distance, &output);
        names_add(names, flight->counter - distance, output);
    }
}

// Live handles, and inputs of what goes again, but for what that makes itself; sorted, each once.
static bool collect_needed(const struct protocol *protocol, const struct peer *peer, struct names *names)
{
    uint64_t *making = malloc((peer->undone + 1) * sizeof *making);
    size_t makings = 0, kept = 0;
    if (making == NULL)
        return false;
    if (protocol->port.live_handles != NULL)
        protocol->port.live_handles(protocol->port.self, peer->place, names_visit, names);
    for (const struct list *node = peer->flights.next; node != &peer->flights; node = node->next) {
        const struct flight *flight = list_entry(node, struct flight, node);
        if (flight->state == FLIGHT_DONE || flight->is_step)
            continue;
        making[makings++] = flight->counter;
        if (flight->doom == DJ_OK)
            add_inputs(names, flight, false);
    }
    for (const struct list *node = protocol->fetches.next; node != &protocol->fetches; node = node->next) {
        const struct fetch *fetch = list_entry(node, struct fetch, node);
        if (fetch->place == peer->place && fetch->kind == FETCH_VALUE)
            names_add(names, fetch->counter, fetch->output);
    }
    if (names->count > 0)
        qsort(names->name, names->count, sizeof *names->name, compare_names);
    for (size_t i = 0; i < names->count; i++) {
        bool is_repeated = kept > 0 && compare_names(&names->name[kept - 1], &names->name[i]) == 0;
        if (!is_repeated && !has_counter(making, makings, names->name[i].counter))
            names->name[kept++] = names->name[i];
    }
    names->count = kept;
    free(making);
    return !names->has_failed;
}

static void write_names(struct writer *writer, const struct absent *name, size_t count)
{
    uint64_t before = 0;
    for (size_t i = 0; i < count; i++) {
        write_var(writer, name[i].counter - before);
        write_var(writer, name[i].output);
        before = name[i].counter;
    }
}

static enum dj_error send_recover(struct protocol *protocol, struct peer *peer, const struct names *names)
{
    struct recovery_state *recovery = &peer->recovery;
    struct writer needed = writer_make(NEEDED_BYTES_MAX), absent = writer_make(NEEDED_BYTES_MAX);
    if (recovery->absents > 0)
        qsort(recovery->absent, recovery->absents, sizeof *recovery->absent, compare_names);
    write_names(&needed, names->name, names->count - (PLANTED(FORGET_REFERENCE) && names->count > 4));
    write_names(&absent, recovery->absent, recovery->absents);
    struct wire_recover message = {.request = ++protocol->next_request,
                                   .session = peer->session,
                                   .epoch = peer->epoch,
                                   .incarnation = peer->grant.incarnation,
                                   .needed = needed.data,
                                   .needed_bytes = (uint32_t)needed.length,
                                   .absent = absent.data,
                                   .absent_bytes = (uint32_t)absent.length,
                                   .lost = recovery->lost,
                                   .replayed = peer->recoveries};
    struct blob *body = needed.error == DJ_OK && absent.error == DJ_OK ? wire_recover_encode(&message) : NULL;
    writer_free(&needed);
    writer_free(&absent);
    if (body == NULL)
        return DJ_E_LIMIT;
    recovery->request = message.request;
    send_message(protocol, protocol->head_link, WIRE_RECOVER, body);
    return DJ_OK;
}

void recover_ask(struct protocol *protocol, struct peer *peer)
{
    struct recovery_state *recovery = &peer->recovery;
    bool is_due = peer->state == PEER_RECOVERING && !recovery->is_planned && recovery->request == 0 &&
                  recovery->ask_at_ns <= protocol->now_ns;
    if (!is_due || protocol->head != HEAD_READY)
        return;
    recovery->ask_at_ns = 0;
    if (peer->session != protocol->session) {
        peer_lose(protocol, peer, DJ_E_HANDLE_LOST, "the head lost the session whose values were on worker %s", recovery->name);
        return;
    }
    // What was seen is told first: the plan starts from it.
    journal_place(protocol, NULL);
    if (journal_waits_for_leaves(protocol)) {
        recovery->ask_at_ns = later(protocol->now_ns, AGAIN_NS);
        return;
    }
    struct names names = {.protocol = protocol};
    peer->is_behind = false;
    if (!collect_needed(protocol, peer, &names)) {
        recovery->ask_at_ns = later(protocol->now_ns, AGAIN_NS);
    } else if (names.count == 0 && recovery->absents == 0) {
        recovery->is_planned = true;
        peer_ready(protocol, protocol->now_ns, peer);
    } else if (send_recover(protocol, peer, &names) != DJ_OK) {
        peer_lose(protocol, peer, DJ_E_LIMIT, "%zu values are more than one recovery brings back", names.count);
    }
    free(names.name);
}

// What the head says --------------------------------------------------------------------------------------------------------

static struct peer *peer_of(const struct protocol *protocol, uint64_t request)
{
    list_each (node, &protocol->peers) {
        struct peer *peer = list_entry(node, struct peer, node);
        if (request != 0 && peer->recovery.request == request && peer->state == PEER_RECOVERING)
            return peer;
    }
    return NULL;
}

void recover_said(struct protocol *protocol, const struct wire_recovery *message, struct blob *body)
{
    struct peer *peer = peer_of(protocol, message->request);
    if (peer == NULL)
        return;    // of a worker that died meanwhile
    struct recovery_state *recovery = &peer->recovery;
    struct plan_part *part = calloc(1, sizeof *part);
    if (part == NULL || recovery->bytes + message->encoded_bytes > PARTS_BYTES_MAX) {
        free(part);
        peer_lose(protocol, peer, part == NULL ? DJ_E_NO_MEMORY : DJ_E_LIMIT, "the plan of the recovery is too long to be kept");
        return;
    }
    part->body = blob_hold(body);
    part->bytes = message->encoded;
    part->length = message->encoded_bytes;
    recovery->bytes += message->encoded_bytes;
    list_push(&recovery->parts, &part->node);
    if (!message->is_last)
        return;
    recovery->is_planned = true;
    recovery->request = 0;
    recovery->absents = 0;
    recovery->cost_ns = message->cost_ns;
    recovery->executions = message->executions;
    peer_ready(protocol, protocol->now_ns, peer);
}

bool recover_refused(struct protocol *protocol, uint64_t request, enum dj_error error, const char *text)
{
    struct peer *peer = peer_of(protocol, request);
    if (peer == NULL)
        return false;
    recover_drop(protocol, peer);
    if (dj_error_retry(error) != ERROR_RETRY_later && error != DJ_E_STALE && error != DJ_E_HANDLE_LOST && error != DJ_E_GRANT) {
        peer_lose(protocol, peer, error, "%s", text);
        return true;
    }
    log_write(LOG_INFO, "client", "place=%u the head plans no recovery yet: %s", peer->place, text);
    peer->recovery.ask_at_ns = later(protocol->now_ns, AGAIN_NS);
    return true;
}

// Parts of an unfinished plan are worth nothing without the rest.
void recover_head_down(struct protocol *protocol)
{
    list_each (node, &protocol->peers) {
        struct peer *peer = list_entry(node, struct peer, node);
        peer->recovery.locating = 0;
        if (peer->state == PEER_RECOVERING && !peer->recovery.is_planned)
            recover_drop(protocol, peer);
    }
}

// Where values are ----------------------------------------------------------------------------------------------------------

const struct wire_location *whereabouts_of(const struct protocol *protocol, uint64_t incarnation)
{
    for (uint32_t i = 0; i < WHEREABOUTS_MAX; i++)
        if (protocol->where[i].incarnation == incarnation && incarnation != 0)
            return &protocol->where[i].location;
    return NULL;
}

void whereabouts_learn(struct protocol *protocol, const struct wire_location *location)
{
    if (whereabouts_of(protocol, location->incarnation) != NULL)
        return;
    struct whereabouts *to = &protocol->where[protocol->wheres++ % WHEREABOUTS_MAX];
    *to = (struct whereabouts){.incarnation = location->incarnation, .location = *location};
}

void recover_located(struct protocol *protocol, const struct wire_located *message)
{
    for (uint32_t i = 0; i < message->locations_count; i++)
        whereabouts_learn(protocol, &message->locations[i]);
    list_each (node, &protocol->peers) {
        struct peer *peer = list_entry(node, struct peer, node);
        struct recovery_state *recovery = &peer->recovery;
        if (recovery->locating != message->request)
            continue;
        recovery->locating = 0;
        if (recovery->next != NULL && whereabouts_of(protocol, recovery->next->from_incarnation) == NULL) {
            recovery->rounds++;    // gone since it was planned: another plan
            fault_set(&peer->trouble, DJ_E_HANDLE_LOST, "the worker that a value was to come from is gone");
            peer->drained_at_ns = later(protocol->now_ns, AGAIN_NS);
            peer->is_draining = true;
        }
        stream_send(protocol, peer);
        return;
    }
}

bool recover_has_steps(const struct peer *peer)
{
    return peer->recovery.next != NULL || !list_is_empty(&peer->recovery.parts);
}

void recover_step_done(struct protocol *protocol, struct peer *peer, struct flight *flight)
{
    protocol->stats.replayed += flight->is_replay;
    flight_done(protocol, peer, flight);
    flight_remove(protocol, peer, flight);
    peer->recovery.steps_out--;
}

void recover_finish(struct protocol *protocol, struct peer *peer)
{
    struct recovery_state *recovery = &peer->recovery;
    if (recovery->begun_ns == 0 || peer->state != PEER_READY || peer->is_draining || recover_has_steps(peer) ||
        recovery->steps_out > 0)
        return;
    struct protocol_recovery told = {.place = peer->place,
                                     .executions = recovery->executions,
                                     .cost_ns = recovery->cost_ns,
                                     .took_ns = protocol->now_ns - recovery->begun_ns,
                                     .was_lost = recovery->lost != 0};
    snprintf(told.from, sizeof told.from, "%s", recovery->name);
    snprintf(told.to, sizeof told.to, "%s", peer->grant.name);
    protocol->stats.recoveries++;
    protocol->stats.recovery_ns += told.took_ns;
    recovery->begun_ns = recovery->lost = recovery->cost_ns = 0;
    recovery->executions = 0;
    recovery->rounds = 0;
    if (protocol->port.recovered != NULL)
        protocol->port.recovered(protocol->port.self, &told);
}

bool recover_is_hopeless(const struct peer *peer)
{
    return peer->recovery.rounds > ROUNDS_MAX;
}

// Absent and blamed ----------------------------------------------------------------------------------------------------------

void recover_absent(struct protocol *protocol, struct peer *peer, uint64_t counter, uint32_t output)
{
    struct recovery_state *recovery = &peer->recovery;
    (void)protocol;
    for (uint32_t i = 0; i < recovery->absents; i++)
        if (recovery->absent[i].counter == counter && recovery->absent[i].output == output)
            return;
    if (recovery->absents == recovery->absents_capacity) {
        uint32_t capacity = recovery->absents_capacity == 0 ? 16 : 2 * recovery->absents_capacity;
        struct absent *grown = capacity > ABSENT_MAX ? NULL : realloc(recovery->absent, capacity * sizeof *grown);
        if (grown == NULL)
            return;    // another round names it
        recovery->absent = grown;
        recovery->absents_capacity = capacity;
    }
    recovery->absent[recovery->absents++] = (struct absent){.counter = counter, .output = output};
}

void recover_absent_inputs(struct protocol *protocol, struct peer *peer, const struct flight *flight, bool only_donated)
{
    struct names names = {.protocol = protocol};
    add_inputs(&names, flight, only_donated);
    for (size_t i = 0; i < names.count; i++)
        recover_absent(protocol, peer, names.name[i].counter, names.name[i].output);
    free(names.name);
}

// The execution that the worker was at, if it was at one, when its link went or the head told of its death; an execution whose leaves are
// on their way is not on the device. It is blamed when another incarnation takes the place because this one is over, not because this one
// cannot be reached from here.
void recover_suspect(struct peer *peer)
{
    if (peer->state != PEER_READY)
        return;
    peer->suspect_counter = 0;
    if (peer->leaves_out > 0)
        return;
    list_each (node, &peer->flights) {
        const struct flight *flight = list_entry(node, struct flight, node);
        if (flight->state != FLIGHT_SENT)
            continue;
        if (flight->kind == FLIGHT_EXECUTE) {
            peer->suspect_counter = flight->counter;
            peer->suspect_part = flight->part;
        }
        return;
    }
}

void recover_blame(struct protocol *protocol, struct peer *peer)
{
    uint64_t counter = peer->suspect_counter;
    uint32_t part = peer->suspect_part;
    struct recovery_state *recovery = &peer->recovery;
    (void)protocol;
    peer->suspect_counter = 0;
    if (counter == 0)
        return;
    list_each (node, &peer->flights) {
        struct flight *flight = list_entry(node, struct flight, node);
        if (position_compare(flight->counter, flight->part, counter, part) != 0 || flight->state == FLIGHT_DONE)
            continue;
        if (!flight->is_step) {
            if (++flight->deaths >= DEATHS_MAX)
                flight->doom = DJ_E_QUARANTINED;
            return;
        }
        bool is_same = recovery->blamed_counter == counter && recovery->blamed_part == part;
        recovery->blamed_deaths = is_same ? recovery->blamed_deaths + 1 : 1;
        recovery->blamed_counter = counter;
        recovery->blamed_part = part;
        return;
    }
}

bool recover_is_quarantined(const struct peer *peer)
{
    return peer->recovery.blamed_deaths > DEATHS_MAX;
}
