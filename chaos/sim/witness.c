// Witness: the manual is witness.h. This file hears workers and the head; the clients' side is witness_client.c.

#include "chaos/sim/witness_state.h"

#include "core/base/assert.h"
#include "core/io/blob.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

uint32_t witness_index(const uint32_t *node, uint32_t count, uint32_t wanted)
{
    uint32_t i = 0;
    while (i < count && node[i] != wanted)
        i++;
    return i;
}

bool witness_is_worker(const struct witness *witness, uint32_t node)
{
    return witness_index(witness->config.worker, witness->config.workers, node) < witness->config.workers;
}

struct heard_link *witness_link(struct witness *witness, uint64_t link)
{
    if (link >= witness->link_capacity) {
        uint64_t capacity = witness->link_capacity == 0 ? LINKS_FIRST : witness->link_capacity;
        while (capacity <= link)
            capacity *= 2;
        witness->link = realloc(witness->link, capacity * sizeof *witness->link);
        assert(witness->link != NULL);
        memset(witness->link + witness->link_capacity, 0, (capacity - witness->link_capacity) * sizeof *witness->link);
        witness->link_capacity = capacity;
    }
    return &witness->link[link];
}

// Journals -----------------------------------------------------------------------------------------------------------------

// A worker numbers its records through all of its incarnation, a client anew on every link. A process that was fenced goes on as another
// incarnation: it has dropped what it ran and the records of it, so that it may run the same again, and no acknowledgement is about them. Its
// clients have theirs.
static struct sender *sender_of(struct witness *witness, uint32_t node, uint64_t life, uint64_t link)
{
    bool is_worker = witness_is_worker(witness, node);
    uint64_t which = is_worker ? witness->incarnation[witness_index(witness->config.worker, witness->config.workers, node)]
                               : link + 1;
    for (uint32_t i = 0; i < witness->senders; i++) {
        struct sender *sender = witness->sender[i];
        if (sender->node == node && sender->life == life && sender->which == which)
            return sender;
    }
    witness->sender = realloc(witness->sender, (witness->senders + 1) * sizeof *witness->sender);
    struct sender *sender = calloc(1, sizeof *sender);
    assert(witness->sender != NULL && sender != NULL);
    *sender = (struct sender){.node = node, .life = life, .which = which, .is_worker = is_worker};
    witness->sender[witness->senders++] = sender;
    return sender;
}

static void enter(struct witness *witness, struct sender *sender, const char *name, struct fact *fact, uint64_t number)
{
    char text[EXEC_ID_TEXT];
    if (fact->sender == sender && fact->number != number && sender->is_worker)
        sim_fail(witness->config.sim, "one run per life: %s journals execution %s twice in one life", name,
                 exec_id_text(fact->id, text));
    if (fact->sender == sender && fact->number == number)
        return;    // told again after a lost link
    fact->sender = sender;
    fact->number = number;
    if (sender->entries == sender->capacity) {
        sender->capacity = sender->capacity == 0 ? ENTRIES_FIRST : sender->capacity * 2;
        sender->entry = realloc(sender->entry, sender->capacity * sizeof *sender->entry);
        assert(sender->entry != NULL);
    }
    sender->entry[sender->entries++] = (struct entry){.fact = fact, .number = number};
    *(sender->is_worker ? &witness->totals.journalled : &witness->totals.client_journalled) += 1;
}

static void hear_journal(struct witness *witness, const struct sim_message *message, const struct wire_journal *journal)
{
    struct sender *sender = sender_of(witness, message->from, message->from_life, message->link);
    struct reader reader = reader_make(journal->records, journal->records_bytes);
    const char *name = sender->is_worker ? "a worker" : "a client";
    struct record record;
    for (uint32_t i = 0; i < journal->count; i++) {
        if (record_read(&reader, ledger_scratch(witness->config.ledger), &record) != DJ_OK) {
            sim_fail(witness->config.sim, "%s journals what cannot be read", name);
            return;
        }
        struct fact *fact = ledger_said(witness->config.ledger, name, &record);
        if (fact != NULL)
            enter(witness, sender, name, fact, journal->first + i);
    }
}

static void hear_journal_ok(struct witness *witness, const struct sim_message *message, const struct wire_journal_ok *ok)
{
    struct sender *sender = sender_of(witness, message->to, message->to_life, message->link);
    char text[EXEC_ID_TEXT];
    for (; sender->acknowledged < sender->entries && sender->entry[sender->acknowledged].number <= ok->last;
         sender->acknowledged++) {
        const struct fact *fact = sender->entry[sender->acknowledged].fact;
        witness->totals.acknowledged++;
        if (!fact->was_stored && !ledger_is_over(witness->config.ledger, fact->id.session) &&
            !ledger_is_late(witness->config.ledger, fact->id))
            sim_fail(witness->config.sim, "nothing acknowledged lost: %s may be forgotten, and is not in the store",
                     exec_id_text(fact->id, text));
    }
}

// Answers ------------------------------------------------------------------------------------------------------------------

static void hear_answer(struct witness *witness, const struct sim_message *message, const struct wire_answer *answer)
{
    uint64_t session = witness_link(witness, message->link)->session, at = message->bulk_offset;
    struct fact *fact = ledger_fact(witness->config.ledger, (struct exec_id){.session = session, .counter = answer->counter});
    const void *life = sender_of(witness, message->from, message->from_life, message->link);
    if (session == 0 || answer->part != 0)
        return;
    witness->totals.answers++;
    witness->totals.duplicates += fact->answerer == life;
    fact->answerer = life;
    for (uint32_t i = 0; i < answer->outputs_count && !fact->has_names; i++) {
        const struct wire_output *output = &answer->outputs[i];
        bool is_inline = output->data_bytes > 0 || output->bytes == 0;
        if (!is_inline && (message->bulk == NULL || at + output->bytes > message->bulk_offset + message->bulk_bytes)) {
            sim_fail(witness->config.sim, "an answer is shorter than it says");
            return;
        }
        ledger_answered(witness->config.ledger, "a worker", fact, output->output,
                        is_inline ? output->data : message->bulk->data + at, is_inline ? output->data_bytes : output->bytes);
        at += is_inline ? 0 : output->bytes;
    }
}

// Leases -------------------------------------------------------------------------------------------------------------------

// A worker's present incarnation is over: the head says so to a client, or the worker joins as another. Each counts once, however often it is
// told, and also if no client hears of it.
static void life_ended(struct witness *witness, uint32_t worker)
{
    if (witness->incarnation[worker] == 0 || witness->ended[worker] == witness->incarnation[worker])
        return;
    witness->ended[worker] = witness->incarnation[worker];
    witness->totals.ended_lives++;
}

// The head says that a life of a worker is over. Where the two are still linked and the worker lives, its lease has run out: the worker must
// have noticed before.
static void hear_gone(struct witness *witness, const struct wire_worker_gone *gone)
{
    struct sim *sim = witness->config.sim;
    for (uint32_t i = 0; i < witness->fences; i++)
        if (witness->fence[i].incarnation == gone->incarnation)
            return;
    uint32_t worker = 0;
    while (worker < witness->config.workers && witness->incarnation[worker] != gone->incarnation)
        worker++;
    witness->totals.fences++;
    if (worker < witness->config.workers)
        life_ended(witness, worker);
    if (worker == witness->config.workers || !sim_is_alive(sim, witness->config.worker[worker]) ||
        !sim_is_linked(sim, witness->config.head, witness->config.worker[worker]) || witness->fences == FENCES_MAX)
        return;
    witness->fence[witness->fences++] = (struct fence){.incarnation = gone->incarnation,
                                                       .node = witness->config.worker[worker],
                                                       .life = witness->life[worker],
                                                       .at_ns = sim_now_ns(sim)};
}

void witness_check_lease(struct witness *witness, const struct sim_message *message)
{
    for (uint32_t i = 0; i < witness->fences; i++) {
        const struct fence *fence = &witness->fence[i];
        if (fence->node == message->from && fence->life == message->from_life && message->departed_ns > fence->at_ns &&
            witness->joined[witness_index(witness->config.worker, witness->config.workers, fence->node)] <= fence->at_ns)
            sim_fail(witness->config.sim,
                     "no answer after the lease: a worker sends a %s %.3f s after the head counted its lease expired",
                     wire_name(message->message), (double)(message->departed_ns - fence->at_ns) / 1e9);
    }
}

// The head's table of a life of a worker begins with JOINED: from then on it may answer again.
static void hear_join(struct witness *witness, const struct sim_message *message, const struct wire_join *join)
{
    uint32_t worker = witness_index(witness->config.worker, witness->config.workers, message->from);
    if (worker == witness->config.workers)
        return;
    if (witness->incarnation[worker] != join->incarnation)
        life_ended(witness, worker);
    witness->incarnation[worker] = join->incarnation;
    witness->life[worker] = message->from_life;
}

static void hear_joined(struct witness *witness, const struct sim_message *message)
{
    uint32_t worker = witness_index(witness->config.worker, witness->config.workers, message->to);
    if (worker < witness->config.workers)
        witness->joined[worker] = sim_now_ns(witness->config.sim);
}

// Epochs -------------------------------------------------------------------------------------------------------------------

static void hear_admitted(struct witness *witness, const struct sim_message *message, const struct wire_admitted *said)
{
    uint32_t at = witness->admissions;
    while (at > 0 && (witness->admission[at - 1].session != said->session || witness->admission[at - 1].node != message->from ||
                      witness->admission[at - 1].life != message->from_life))
        at--;
    if (at == 0) {
        witness->admission = realloc(witness->admission, ++witness->admissions * sizeof *witness->admission);
        assert(witness->admission != NULL);
        at = witness->admissions;
    }
    witness->admission[at - 1] = (struct admission){
        .session = said->session, .life = message->from_life, .node = message->from, .epoch = said->epoch};
}

// A worker that has confirmed an epoch serves no older one.
static void hear_attached(struct witness *witness, const struct sim_message *message)
{
    const struct heard_link *link = witness_link(witness, message->link);
    for (uint32_t i = 0; i < witness->admissions; i++) {
        const struct admission *admission = &witness->admission[i];
        if (admission->session == link->session && admission->node == message->from && admission->life == message->from_life &&
            admission->epoch > link->epoch)
            sim_fail(witness->config.sim, "no older epoch: a worker that confirmed epoch %u lets one of epoch %u attach",
                     admission->epoch, link->epoch);
    }
}

static void hear_heartbeat(struct witness *witness, const struct sim_message *message, const struct wire_heartbeat *beat)
{
    uint32_t worker = witness_index(witness->config.worker, witness->config.workers, message->from);
    if (worker == witness->config.workers)
        return;
    witness->beat[worker] = *beat;
    witness->beat_life[worker] = message->from_life;
}

static void hear_copied(struct witness *witness, const struct wire_copied *said)
{
    witness->totals.copies_given_up += !said->is_done;
}

static void hear_failed(struct witness *witness, const struct sim_message *message, const struct wire_failed *said)
{
    bool is_between_workers = witness_is_worker(witness, message->from) && witness_is_worker(witness, message->to);
    witness->totals.copies_refused += is_between_workers && said->request != 0 && said->error == DJ_E_STALE;
}

// Listening ----------------------------------------------------------------------------------------------------------------

#define HEAR(name, call) \
    { \
        struct wire_##name said; \
        if (wire_##name##_decode(body->data, body->bytes, witness->arena, &said) == DJ_OK) \
            call; \
        break; \
    }

static void hear_sent(struct witness *witness, const struct sim_message *message)
{
    const struct blob *body = message->body;
    bool is_from_head = message->from == witness->config.head;
    switch (message->message) {
    case WIRE_JOURNAL: HEAR(journal, hear_journal(witness, message, &said))
    case WIRE_JOURNAL_OK: HEAR(journal_ok, hear_journal_ok(witness, message, &said))
    case WIRE_ANSWER: HEAR(answer, hear_answer(witness, message, &said))
    case WIRE_WORKER_GONE: HEAR(worker_gone, hear_gone(witness, &said))
    case WIRE_JOIN: HEAR(join, hear_join(witness, message, &said))
    case WIRE_JOINED: hear_joined(witness, message); break;
    case WIRE_ADMITTED: HEAR(admitted, hear_admitted(witness, message, &said))
    case WIRE_ATTACHED: hear_attached(witness, message); break;
    case WIRE_HEARTBEAT: HEAR(heartbeat, hear_heartbeat(witness, message, &said))
    case WIRE_INVENTORY: witness->totals.inventories++; break;
    case WIRE_CHECKPOINTED: witness->totals.checkpoints++; break;
    case WIRE_COPIED: HEAR(copied, hear_copied(witness, &said))
    case WIRE_HELD: witness->totals.held++; break;
    case WIRE_FAILED: HEAR(failed, hear_failed(witness, message, &said))
    default:
        if (!is_from_head)
            witness_client_sends(witness, message);
        break;
    }
}

static void hear_close(struct witness *witness, const struct blob *body)
{
    struct wire_session_close said;
    if (wire_session_close_decode(body->data, body->bytes, witness->arena, &said) == DJ_OK && !said.keep)
        ledger_session_over(witness->config.ledger, said.session);
}

static void passes(void *context, const struct sim_message *message)
{
    struct witness *witness = context;
    if (!message->is_arrival)
        hear_sent(witness, message);
    else if (witness_is_worker(witness, message->from) &&
             (message->message == WIRE_ANSWER || message->message == WIRE_EXECUTION_FAILED || message->message == WIRE_VALUE ||
              message->message == WIRE_HELD))
        witness_check_lease(witness, message);
    if (message->is_arrival && message->message == WIRE_SESSION_CLOSE)
        hear_close(witness, message->body);
    if (message->is_arrival)
        witness_client_hears(witness, message);
    arena_reset(witness->arena);
}

struct witness *witness_make(const struct witness_config *config)
{
    struct witness *witness = calloc(1, sizeof *witness);
    assert(witness != NULL);
    witness->config = *config;
    enum dj_error error = arena_make(1 << 16, 0, &witness->arena);
    assert(error == DJ_OK);
    sim_on_message(config->sim, passes, witness);
    return witness;
}

void witness_free(struct witness *witness)
{
    for (uint32_t i = 0; i < witness->senders; i++) {
        free(witness->sender[i]->entry);
        free(witness->sender[i]);
    }
    for (uint32_t i = 0; i < WITNESS_NODES_MAX; i++) {
        free(witness->account[i].deed);
        free(witness->account[i].question);
    }
    free(witness->sender);
    free(witness->admission);
    free(witness->link);
    arena_free(witness->arena);
    free(witness);
}

struct witness_totals witness_totals(const struct witness *witness)
{
    return witness->totals;
}

const struct wire_heartbeat *witness_heartbeat(const struct witness *witness, uint32_t worker)
{
    static const struct wire_heartbeat none;
    return witness->beat_life[worker] == witness->life[worker] ? &witness->beat[worker] : &none;
}
