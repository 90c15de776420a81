// Steps: the head's plan of a recovery becomes flights, one at a time, when there is room for the next in the stream.

#include <stdlib.h>
#include <string.h>

#include "core/base/log.h"
#include "core/base/planted.h"
#include "frontend/client/protocol/state.h"

enum { STEP_ARENA_BYTES = 256 << 10 };

struct step_plan {
    struct srg_plan *plan;
    uint32_t number;
};

// The one plan of that fingerprint; takes `plan` over. NULL: it could not be remembered.
static const struct step_plan *plan_remember(struct protocol *protocol, struct srg_plan *plan)
{
    struct step_plan *known = map_get(protocol->step_plans, plan->fingerprint);
    if (known == NULL && (known = calloc(1, sizeof *known)) != NULL) {
        // Numbers from the end: those of the program's own plans grow from 0.
        *known = (struct step_plan){.plan = plan_hold(plan), .number = PLAN_NUMBERS - 1 - map_count(protocol->step_plans)};
        if (map_put(protocol->step_plans, plan->fingerprint, known) != DJ_OK) {
            plan_drop(known->plan);
            free(known);
            known = NULL;
        }
    }
    plan_drop(plan);
    return known;
}

void step_plans_free(struct protocol *protocol)
{
    uint32_t cursor = 0;
    for (struct step_plan *known = map_next(protocol->step_plans, &cursor, NULL); known != NULL;
         known = map_next(protocol->step_plans, &cursor, NULL)) {
        plan_drop(known->plan);
        free(known);
    }
    map_free(protocol->step_plans);
}

static bool plan_learn(struct protocol *protocol, const struct record_plan *record)
{
    struct srg_plan *plan;
    struct fault fault = {0};
    if (map_get(protocol->step_plans, record->fingerprint) != NULL)
        return true;
    if (plan_decode(record->bytes, record->length, &plan, &fault) != DJ_OK) {
        log_write(LOG_WARN, "client", "a plan of a recovery cannot be read: %s", fault.text);
        return false;
    }
    return plan_remember(protocol, plan) != NULL;
}

// Leaves whose bytes this process has; the worker gets others from the store.
static uint32_t own_leaves(const struct protocol *protocol, const struct srg_plan *plan, const int64_t *word, struct leaf **leaf)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < plan->inputs; i++) {
        struct leaf *found = plan->input[i].is_leaf ? leaf_find(protocol->config.leaves, binding_leaf(plan, word, i)) : NULL;
        if (found != NULL && found->blob != NULL)
            leaf[count++] = found;
    }
    return count;
}

// An EXECUTE of `word`; masks are given as far as they have set bits.
static struct flight *flight_of_plan(struct protocol *protocol, const struct recovery_step *step, const struct step_plan *known,
                                     const int64_t *word, const uint8_t *keep, uint32_t keep_bytes)
{
    const struct srg_plan *plan = known->plan;
    size_t kept = (plan->outputs + 7) / 8, donated = (plan->inputs + 7) / 8;
    struct submission like = {.plan = known->plan, .plan_number = known->number, .word = word};
    uint8_t *masks = calloc(1, kept + donated + 1);
    struct leaf **leaf = malloc((plan->inputs + 1) * sizeof(struct leaf *));
    struct flight *flight = NULL;
    if (masks != NULL && leaf != NULL) {
        memcpy(masks, keep, keep_bytes < kept ? keep_bytes : kept);
        if (step->donate_bytes > 0 && step->kind == STEP_REPLAY)
            memcpy(masks + kept, step->donate, step->donate_bytes < donated ? step->donate_bytes : donated);
        like.kept = masks;
        like.donated = masks + kept;
        like.leaves = leaf;
        like.leaves_count = own_leaves(protocol, plan, word, leaf);
        flight = flight_of_step(&like);
    }
    if (PLANTED(REPLAY_DONATES) && flight != NULL && step->kind == STEP_REPLAY && step->releases == 0 && !plan->input[0].is_leaf)
        flight->donated[0] |= 1;
    free(masks);
    free(leaf);
    return flight;
}

static struct flight *flight_of_small_plan(struct protocol *protocol, const struct recovery_step *step)
{
    static const uint8_t first[] = {1};
    struct srg_plan *plan;
    int64_t *word;
    struct fault fault = {0};
    struct leaf *fact = NULL;
    enum dj_error error = DJ_OK;
    if (step->kind == STEP_RESTORE && step->fact != NULL)
        error = leaf_of(protocol->config.leaves, step->fact, step->fact_bytes, &fact);
    if (error == DJ_OK)
        error = step->kind == STEP_COPY
                    ? recovery_copy_plan(step, &plan, &word, &fault)
                    : recovery_restore_plan(step, fact == NULL ? (struct hash128){0} : fact->content, &plan, &word, &fault);
    struct flight *flight = NULL;
    if (error == DJ_OK) {
        const struct step_plan *known = plan_remember(protocol, plan);
        if (known != NULL)
            flight = flight_of_plan(protocol, step, known, word, first, 1);
        if (flight != NULL) {
            flight->has_name = true;
            flight->output = step->output;
        }
        free(word);
    } else {
        log_write(LOG_WARN, "client", "a step of a recovery cannot be made: %s", fault.text);
    }
    leaf_drop(fact);
    return flight;
}

static struct flight *flight_of(struct protocol *protocol, const struct peer *peer, const struct recovery_step *step)
{
    struct flight *flight = NULL;
    const struct step_plan *known;
    switch ((enum recovery_step_kind)step->kind) {
    case STEP_REPLAY:
        known = map_get(protocol->step_plans, step->plan);
        if (known != NULL && known->plan->words == step->words)
            flight = flight_of_plan(protocol, step, known, step->word, step->keep, step->keep_bytes);
        if (flight != NULL)
            flight->is_replay = true;
        break;
    case STEP_RESTORE:
    case STEP_COPY: flight = flight_of_small_plan(protocol, step); break;
    case STEP_FETCH:
        flight = calloc(1, sizeof *flight);
        if (flight != NULL)
            *flight = (struct flight){.kind = FLIGHT_IMPORT,
                                      .from_place = peer->place,
                                      .from_counter = step->counter,
                                      .from_output = step->output,
                                      .from_incarnation = step->from,
                                      .output = step->output};
        break;
    }
    if (flight == NULL)
        return NULL;
    flight->is_step = true;
    flight->counter = step->counter;
    flight->part = step->part;
    if (step->releases > 0 && (flight->released = malloc(step->releases * sizeof *flight->released)) != NULL) {
        flight->owns_released = true;
        flight->released_count = step->releases;
        for (uint32_t i = 0; i < step->releases; i++)
            flight->released[i] = (struct released){.counter = step->released[i].counter, .output = step->released[i].output};
    }
    return flight;
}

static bool begin_part(struct protocol *protocol, struct recovery_state *recovery)
{
    if (recovery->is_reading)
        return true;
    if (list_is_empty(&recovery->parts))
        return false;
    const struct plan_part *part = list_entry(recovery->parts.next, struct plan_part, node);
    if (recovery->reader.arena == NULL && arena_make(STEP_ARENA_BYTES, RECOVERY_BYTES_MAX, &recovery->reader.arena) != DJ_OK)
        return false;
    arena_reset(recovery->reader.arena);
    recovery->reader.reader = reader_make(part->bytes, part->length);
    recovery->reader.scratch = &protocol->scratch;
    recovery->reader.part = NULL;
    recovery->is_reading = true;
    return true;
}

static struct flight *read_next(struct protocol *protocol, struct peer *peer)
{
    struct recovery_state *recovery = &peer->recovery;
    while (begin_part(protocol, recovery)) {
        struct record_plan plan;
        struct recovery_step step;
        enum recovery_item item = recovery_next(&recovery->reader, &plan, &step);
        struct flight *flight = item == RECOVERY_STEP ? flight_of(protocol, peer, &step) : NULL;
        if (flight != NULL)
            return flight;
        if (item == RECOVERY_PLAN && plan_learn(protocol, &plan))
            continue;
        if (item == RECOVERY_END) {
            recovery->is_reading = false;
            plan_part_free(list_entry(recovery->parts.next, struct plan_part, node));
            continue;
        }
        fault_set(&peer->trouble, DJ_E_MALFORMED, "a part of the recovery's plan cannot be read");
        log_write(LOG_WARN, "client", "place=%u %s", peer->place, peer->trouble.text);
        recovery->rounds++;
        peer->is_draining = true;
        return NULL;
    }
    return NULL;
}

static void locate(struct protocol *protocol, struct peer *peer, const struct flight *flight)
{
    if (protocol->head != HEAD_READY || peer->recovery.locating != 0)
        return;
    struct wire_handle handle = {.session = peer->session, .counter = flight->from_counter, .output = flight->from_output};
    struct wire_locate message = {.request = ++protocol->next_request, .handles = &handle, .handles_count = 1};
    peer->recovery.locating = message.request;
    send_message(protocol, protocol->head_link, WIRE_LOCATE, wire_locate_encode(&message));
}

struct flight *recover_next_step(struct protocol *protocol, struct peer *peer, uint64_t counter, bool *ret_waits)
{
    struct recovery_state *recovery = &peer->recovery;
    if (recovery->next == NULL && !list_is_empty(&recovery->parts))
        recovery->next = read_next(protocol, peer);
    struct flight *next = recovery->next;
    if (next == NULL || next->counter > counter)
        return NULL;
    bool is_nowhere = next->from_incarnation != 0 && whereabouts_of(protocol, next->from_incarnation) == NULL;
    if (is_nowhere)
        locate(protocol, peer, next);
    if (is_nowhere || recovery->steps_out >= PROTOCOL_STEPS_OUT_MAX) {
        *ret_waits = true;
        return NULL;
    }
    recovery->next = NULL;
    recovery->steps_out++;
    flight_add(protocol, peer, next);
    return next;
}
