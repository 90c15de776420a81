// Journal: what this client tells the head itself: submissions that were answered and that no worker has made durable: because the worker is
// gone, because they are older than JOURNAL_NS, or because the window is half full. The same records as a worker's, each standing alone.
// What a program has seen is a fact.

#include <stdlib.h>
#include <string.h>

#include "core/base/assert.h"
#include "core/base/bits.h"
#include "core/base/log.h"
#include "core/base/planted.h"
#include "frontend/client/protocol/state.h"

enum { BATCH_BYTES = 512 << 10, BATCH_BYTES_MAX = 1 << 20, PLANS_MAX = 1 << 14, RECORD_ROOM = 4096 };
#define PRESSED_NS 10000000u    // between two looks while the window is half full

struct batch {
    struct protocol *protocol;
    struct writer records;
    uint64_t first;
    uint32_t count;
};

static void batch_send(struct batch *batch)
{
    struct protocol *protocol = batch->protocol;
    if (batch->count == 0)
        return;
    struct wire_journal message = {.first = batch->first,
                                   .count = batch->count,
                                   .records = batch->records.data,
                                   .records_bytes = (uint32_t)batch->records.length};
    send_message(protocol, protocol->head_link, WIRE_JOURNAL, wire_journal_encode(&message));
    writer_reset(&batch->records);
    batch->count = 0;
}

static bool batch_add(struct batch *batch, const struct record *record, size_t about_bytes)
{
    if (batch->count > 0 && batch->records.length + about_bytes > BATCH_BYTES)
        batch_send(batch);
    if (batch->count == 0)
        batch->first = batch->protocol->journal_next + 1;
    size_t before = batch->records.length;
    record_write(&batch->records, record);
    if (batch->records.error != DJ_OK || batch->records.length > BATCH_BYTES_MAX) {
        log_write(LOG_WARN, "client", "a record of %zu bytes is too long for the journal", batch->records.length - before);
        batch->records.error = DJ_OK;
        batch->records.length = before;
        return false;
    }
    batch->protocol->journal_next++;
    batch->count++;
    return true;
}

// The head learns a plan before its first record on this link.
static bool add_plan(struct batch *batch, const struct srg_plan *plan)
{
    struct protocol *protocol = batch->protocol;
    if (map_get(protocol->journal_plans, plan->fingerprint) != NULL)
        return true;
    struct writer writer = writer_make(PLAN_BYTES_MAX);
    bool is_added = plan_encode(plan, &writer) == DJ_OK && writer.error == DJ_OK && writer.length < BATCH_BYTES_MAX - 1024;
    if (is_added) {
        struct record record = {.kind = RECORD_PLAN,
                                .plan = {.fingerprint = plan->fingerprint, .bytes = writer.data, .length = writer.length}};
        is_added = batch_add(batch, &record, writer.length + 64);
    }
    writer_free(&writer);
    // Not remembered, it is told again: no harm.
    return is_added && map_put(protocol->journal_plans, plan->fingerprint, protocol) != DJ_E_NO_MEMORY;
}

// Inputs: who made them, and which of them ended here.
static uint32_t read_inputs(const struct flight *flight, struct record_execution *execution, struct record_ref *gone)
{
    uint32_t gones = 0;
    for (uint32_t i = 0; i < flight->plan->inputs; i++) {
        uint64_t distance;
        uint32_t output;
        if (flight->plan->input[i].is_leaf)
            continue;
        binding_handle(flight->plan, flight->word, i, &distance, &output);
        record_add_producer(execution, flight->counter - distance);
        if (bit_get(flight->donated, i) && gones < RECORD_GONE_MAX)
            gone[gones++] = (struct record_ref){.counter = flight->counter - distance, .output = output};
    }
    for (uint32_t i = 0; i < flight->released_count && gones < RECORD_GONE_MAX; i++)
        gone[gones++] = (struct record_ref){.counter = flight->released[i].counter, .output = flight->released[i].output};
    return gones;
}

static void read_answers(struct protocol *protocol, const struct flight *flight, struct record_execution *execution)
{
    struct wire_answer answer;
    uint32_t total = 0;
    if (flight->answer == NULL ||
        wire_answer_decode(flight->answer->data, flight->answer->bytes, protocol->arena, &answer) != DJ_OK)
        return;
    for (uint32_t i = 0; i < answer.outputs_count && execution->answers < RECORD_ANSWERS_MAX; i++) {
        const struct wire_output *output = &answer.outputs[i];
        if (output->data_bytes != output->bytes || output->bytes > RECORD_ANSWER_BYTES_MAX - total)
            continue;
        total += output->data_bytes;
        execution->answer[execution->answers++] = (struct record_answer){
            .output = output->output, .length = output->data_bytes, .bytes = output->data};
    }
}

static bool add_execution(struct batch *batch, const struct peer *peer, const struct flight *flight)
{
    struct protocol *protocol = batch->protocol;
    const struct srg_plan *plan = flight->plan;
    if (!add_plan(batch, plan))
        return false;
    struct record *record = arena_zero(protocol->arena, sizeof *record);
    struct record_ref *gone = malloc((plan->inputs + (size_t)flight->released_count + 1) * sizeof *gone);
    struct binding_history alone;
    history_init(&alone, plan->words);
    bool is_added = false;
    if (record != NULL && gone != NULL) {
        record->kind = RECORD_EXECUTION;
        struct record_execution *execution = &record->execution;
        execution->id = (struct exec_id){.session = peer->session, .counter = flight->counter};
        execution->plan = plan->fingerprint;
        uint32_t gones = read_inputs(flight, execution, gone);
        writer_reset(&protocol->delta);
        bindings_encode(&alone, flight->word, &protocol->delta);
        execution->delta = protocol->delta.data;
        execution->delta_length = (uint32_t)protocol->delta.length;
        execution->check = record_words_check(flight->word, plan->words);
        writer_reset(&protocol->numbers);
        record_refs_write(&protocol->numbers, flight->counter, gone, gones);
        execution->gone = protocol->numbers.data;
        execution->gone_bytes = (uint32_t)protocol->numbers.length;
        execution->keep = (struct record_bits){.bits = flight->kept, .bytes = (plan->outputs + 7) / 8};
        execution->donate = (struct record_bits){.bits = flight->donated, .bytes = (plan->inputs + 7) / 8};
        execution->numerics = flight->numerics;
        execution->cost_ns = flight->cost_ns;
        read_answers(protocol, flight, execution);
        bool fits = protocol->delta.error == DJ_OK && protocol->numbers.error == DJ_OK &&
                    protocol->numbers.length <= RECORD_GONE_BYTES_MAX;
        is_added = fits && batch_add(batch, record, protocol->delta.length + protocol->numbers.length + RECORD_ROOM);
    }
    history_free(&alone);
    free(gone);
    arena_reset(protocol->arena);
    return is_added;
}

static bool add_import(struct batch *batch, const struct peer *peer, const struct flight *flight)
{
    struct record record = {.kind = RECORD_IMPORT,
                            .import = {.id = {.session = peer->session, .counter = flight->counter},
                                       .output = flight->output,
                                       .source = {.counter = flight->from_counter, .output = flight->from_output}}};
    return batch_add(batch, &record, RECORD_ROOM);
}

// Choosing -----------------------------------------------------------------------------------------------------------------

struct chosen {
    const struct peer *peer;
    struct flight *flight;
};

static int compare_chosen(const void *left, const void *right)
{
    const struct chosen *a = left, *b = right;
    return position_compare(a->flight->counter, 0, b->flight->counter, 0);
}

static bool is_untold(const struct flight *flight)
{
    return flight->state == FLIGHT_DONE && !flight->is_step && !flight->is_recorded && flight->journal == 0;
}

bool journal_waits_for_leaves(const struct protocol *protocol)
{
    for (const struct list *p = protocol->peers.next; p != &protocol->peers; p = p->next) {
        const struct peer *peer = list_entry(p, struct peer, node);
        list_each (node, &peer->flights) {
            const struct flight *flight = list_entry(node, struct flight, node);
            if (peer->session == protocol->session && is_untold(flight) && !flight_has_durable_leaves(flight))
                return true;
        }
    }
    return false;
}

// Those with an outcome, not told yet, and that old.
static uint32_t choose(const struct protocol *protocol, const struct peer *only, uint64_t older_ns, struct chosen *chosen)
{
    uint32_t count = 0;
    for (const struct list *p = protocol->peers.next; p != &protocol->peers; p = p->next) {
        struct peer *peer = list_entry(p, struct peer, node);
        if (peer->session != protocol->session || (only != NULL && only != peer))
            continue;
        list_each (node, &peer->flights) {
            struct flight *flight = list_entry(node, struct flight, node);
            if (is_untold(flight) && flight->done_ns <= older_ns)
                chosen[count++] = (struct chosen){.peer = peer, .flight = flight};
        }
    }
    return count;
}

static void tell(struct protocol *protocol, const struct peer *only, uint64_t older_ns)
{
    if (protocol->head != HEAD_READY || protocol->window == 0 || protocol->is_fenced)
        return;
    leaves_offer(protocol, only, older_ns);
    struct chosen *chosen = malloc((protocol->window + 1) * sizeof *chosen);
    if (chosen == NULL)
        return;    // later
    uint32_t count = choose(protocol, only, older_ns, chosen);
    // In the order of their counters: nothing is told before what it was made of; nor before its leaves are durable: a client that resumes the
    // session has no others.
    qsort(chosen, count, sizeof *chosen, compare_chosen);
    struct batch batch = {.protocol = protocol, .records = writer_make(BATCH_BYTES_MAX + RECORD_BYTES_MAX)};
    for (uint32_t i = 0; i < count && flight_has_durable_leaves(chosen[i].flight); i++) {
        struct flight *flight = chosen[i].flight;
        bool is_added = flight->kind == FLIGHT_IMPORT ? add_import(&batch, chosen[i].peer, flight)
                                                      : add_execution(&batch, chosen[i].peer, flight);
        if (is_added)
            flight->journal = protocol->journal_next;
        protocol->stats.journalled += is_added;
    }
    batch_send(&batch);
    writer_free(&batch.records);
    free(chosen);
}

void journal_reset(struct protocol *protocol)
{
    protocol->journal_next = 0;
    map_free(protocol->journal_plans);
    if (map_make(PLANS_MAX, &protocol->journal_plans) != DJ_OK)
        protocol->journal_plans = NULL;
    assert(protocol->journal_plans != NULL);
    list_each (p, &protocol->peers) {
        struct peer *peer = list_entry(p, struct peer, node);
        list_each (node, &peer->flights)
            list_entry(node, struct flight, node)->journal = 0;
    }
    if (protocol->window > 0)
        protocol->journal_at_ns = later(protocol->now_ns, PROTOCOL_JOURNAL_NS);
}

void journal_place(struct protocol *protocol, const struct peer *peer)
{
    tell(protocol, peer, UINT64_MAX);
}

void journal_acknowledged(struct protocol *protocol, uint64_t last)
{
    list_each (p, &protocol->peers) {
        struct peer *peer = list_entry(p, struct peer, node);
        list_each (node, &peer->flights) {
            struct flight *flight = list_entry(node, struct flight, node);
            if (flight->is_step || flight->journal == 0 || (flight->journal > last && !(PLANTED(EARLY_TOLD) && last > 6)))
                continue;
            flight->is_recorded = true;
            flight_settle(protocol, peer, flight);
        }
    }
}

static bool is_pressed(const struct protocol *protocol)
{
    return protocol->window > PROTOCOL_WINDOW_MAX / 2 || protocol->window_bytes > PROTOCOL_WINDOW_BYTES_MAX / 2;
}

void journal_tick(struct protocol *protocol)
{
    if (is_pressed(protocol) && protocol->journal_at_ns > later(protocol->now_ns, PRESSED_NS))
        protocol->journal_at_ns = later(protocol->now_ns, PRESSED_NS);
    if (protocol->journal_at_ns == 0 || protocol->journal_at_ns > protocol->now_ns)
        return;
    tell(protocol, NULL, is_pressed(protocol) ? UINT64_MAX : protocol->now_ns - PROTOCOL_JOURNAL_NS);
    protocol->journal_at_ns = 0;
    for (const struct list *p = protocol->peers.next; p != &protocol->peers; p = p->next) {
        struct peer *peer = list_entry(p, struct peer, node);
        list_each (node, &peer->flights) {
            const struct flight *flight = list_entry(node, struct flight, node);
            if (flight->state != FLIGHT_DONE || flight->is_step || (flight->journal != 0 && !flight->is_recorded))
                continue;    // is_recorded: some leaf of it is not durable
            uint64_t at_ns = later(flight->done_ns, PROTOCOL_JOURNAL_NS);
            at_ns = at_ns > protocol->now_ns ? at_ns : later(protocol->now_ns, PROTOCOL_JOURNAL_NS);
            if (protocol->journal_at_ns == 0 || at_ns < protocol->journal_at_ns)
                protocol->journal_at_ns = at_ns;
            break;    // the others are younger
        }
    }
}

uint64_t journal_deadline_ns(const struct protocol *protocol)
{
    return protocol->journal_at_ns == 0 || protocol->head != HEAD_READY ? UINT64_MAX : protocol->journal_at_ns;
}
