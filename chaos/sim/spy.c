// Spy: the manual is spy.h.

#include "chaos/sim/spy.h"

#include "core/base/assert.h"
#include "core/base/map.h"
#include "core/io/blob.h"
#include "core/lineage/record.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { ENTRIES_MAX = 1 << 18, LINKS_FIRST = 16 };

// One execution that this life journalled or answered.
struct seen {
    struct exec_id id;
    uint64_t number, answer_hash;
    bool is_journalled, is_answered;
};

struct attached {
    uint64_t link, session;
    uint32_t epoch;
};

struct spy {
    struct sim *sim;
    const struct spy_config *config;
    struct process *process;
    struct arena *arena;
    struct record_scratch scratch;
    struct map *executions;     // exec_id -> struct seen
    struct seen **by_number;    // journalled, in the order of their numbers
    uint32_t numbers, number_capacity, acknowledged;
    struct attached *link;
    uint32_t links, link_capacity;
};

static struct hash128 key_of(struct exec_id id)
{
    return (struct hash128){.hi = hash_mix(id.session, 1), .lo = id.counter};
}

static struct seen *see(struct spy *spy, struct exec_id id)
{
    struct seen *seen = map_get(spy->executions, key_of(id));
    if (seen != NULL)
        return seen;
    seen = calloc(1, sizeof *seen);
    assert(seen != NULL);
    seen->id = id;
    enum dj_error error = map_put(spy->executions, key_of(id), seen);
    assert(error == DJ_OK);
    return seen;
}

static struct attached *attached_at(struct spy *spy, uint64_t link)
{
    for (uint32_t i = 0; i < spy->links; i++)
        if (spy->link[i].link == link)
            return &spy->link[i];
    return NULL;
}

// What the worker says -------------------------------------------------------------------------------------------------------

static void journalled(struct spy *spy, struct exec_id id, uint64_t number)
{
    struct seen *seen = see(spy, id);
    if (seen->is_journalled) {
        if (seen->number != number)
            sim_fail(spy->sim, "%s ran execution %" PRIu64 " of session %" PRIu64 " twice in one life", spy->config->worker.name,
                     id.counter, id.session);
        return;    // told again after a lost link
    }
    seen->is_journalled = true;
    seen->number = number;
    if (spy->numbers == spy->number_capacity) {
        spy->number_capacity = spy->number_capacity == 0 ? 64 : spy->number_capacity * 2;
        spy->by_number = realloc(spy->by_number, spy->number_capacity * sizeof(struct seen *));
        assert(spy->by_number != NULL);
    }
    spy->by_number[spy->numbers++] = seen;
    spy->config->totals->journalled++;
}

static void hear_journal(struct spy *spy, const struct blob *body)
{
    struct wire_journal journal;
    struct record record;
    if (wire_journal_decode(body->data, body->bytes, spy->arena, &journal) != DJ_OK)
        return;
    struct reader reader = reader_make(journal.records, journal.records_bytes);
    for (uint32_t i = 0; i < journal.count; i++) {
        if (record_read(&reader, &spy->scratch, &record) != DJ_OK) {
            sim_fail(spy->sim, "%s journals what cannot be read", spy->config->worker.name);
            return;
        }
        if (record.kind == RECORD_EXECUTION)
            journalled(spy, record.execution.id, journal.first + i);
    }
}

// A repeated answer must be the answer: one value per id.
static void hear_answer(struct spy *spy, uint64_t link, const struct blob *body, const struct blob *bulk, uint64_t bulk_bytes)
{
    const struct attached *at = attached_at(spy, link);
    struct wire_answer answer;
    if (at == NULL || wire_answer_decode(body->data, body->bytes, spy->arena, &answer) != DJ_OK)
        return;
    uint64_t hash = bulk_bytes == 0 ? 1 : hash64(bulk->data, bulk_bytes);
    for (uint32_t i = 0; i < answer.outputs_count; i++)
        hash = hash_mix(hash, hash64_seed(answer.outputs[i].data, answer.outputs[i].data_bytes, answer.outputs[i].output));
    struct seen *seen = see(spy, (struct exec_id){.session = at->session, .counter = answer.counter});
    if (seen->is_answered) {
        spy->config->totals->duplicates++;
        if (seen->answer_hash != hash)
            sim_fail(spy->sim, "one value per id: %s answers execution %" PRIu64 " of session %" PRIu64 " again, and differently",
                     spy->config->worker.name, answer.counter, at->session);
    }
    seen->is_answered = true;
    seen->answer_hash = hash;
}

static void hear_heartbeat(struct spy *spy, const struct blob *body)
{
    struct wire_heartbeat beat;
    if (wire_heartbeat_decode(body->data, body->bytes, spy->arena, &beat) == DJ_OK)
        spy->config->totals->last = beat;
}

static void hear(struct spy *spy, const struct io_effect *effect)
{
    if (effect->kind != IO_SEND)
        return;
    switch (effect->send.message) {
    case WIRE_JOURNAL: hear_journal(spy, effect->send.body); break;
    case WIRE_ANSWER: hear_answer(spy, effect->send.link, effect->send.body, effect->send.bulk, effect->send.bulk_bytes); break;
    case WIRE_HEARTBEAT: hear_heartbeat(spy, effect->send.body); break;
    default: break;
    }
    arena_reset(spy->arena);
}

// What the worker is told ----------------------------------------------------------------------------------------------------

static void acknowledged(struct spy *spy, uint64_t last)
{
    for (; spy->acknowledged < spy->numbers && spy->by_number[spy->acknowledged]->number <= last; spy->acknowledged++) {
        struct exec_id id = spy->by_number[spy->acknowledged]->id;
        uint8_t key[RECORD_KEY_MAX];
        spy->config->totals->acknowledged++;
        if (sim_store_get(spy->sim, spy->config->head_node, STORE_EXECUTION, key, record_key_execution(id, key)) == NULL)
            sim_fail(spy->sim,
                     "nothing acknowledged lost: %s may forget execution %" PRIu64 " of session %" PRIu64
                     ", which is not in the store",
                     spy->config->worker.name, id.counter, id.session);
    }
}

static void attach(struct spy *spy, uint64_t link, const struct wire_attach *said)
{
    if (spy->links == spy->link_capacity) {
        spy->link_capacity = spy->link_capacity == 0 ? LINKS_FIRST : spy->link_capacity * 2;
        spy->link = realloc(spy->link, spy->link_capacity * sizeof *spy->link);
        assert(spy->link != NULL);
    }
    spy->link[spy->links++] = (struct attached){.link = link, .session = said->session, .epoch = said->epoch};
}

static void overhear(struct spy *spy, const struct io_event *event)
{
    struct wire_journal_ok ok;
    struct wire_attach said;
    if (event->kind != IO_RECV)
        return;
    const struct blob *body = event->recv.body;
    if (event->recv.message == WIRE_JOURNAL_OK && wire_journal_ok_decode(body->data, body->bytes, spy->arena, &ok) == DJ_OK)
        acknowledged(spy, ok.last);
    if (event->recv.message == WIRE_ATTACH && wire_attach_decode(body->data, body->bytes, spy->arena, &said) == DJ_OK)
        attach(spy, event->recv.link, &said);
    arena_reset(spy->arena);
}

// The node -------------------------------------------------------------------------------------------------------------------

static enum dj_error spy_post(void *self, const struct io_event *event)
{
    struct spy *spy = self;
    overhear(spy, event);
    return process_post(spy->process, event);
}

static bool spy_run(void *self, uint64_t now_ns, struct io_effects *ret)
{
    struct spy *spy = self;
    uint32_t before = ret->count;
    bool has_more = process_run(spy->process, now_ns, ret);
    for (uint32_t i = before; i < ret->count; i++)
        hear(spy, &ret->effect[i]);
    return has_more;
}

static uint64_t spy_deadline_ns(const void *self)
{
    return process_deadline_ns(((const struct spy *)self)->process);
}

static void spy_free(void *self)
{
    struct spy *spy = self;
    uint32_t cursor = 0;
    process_free(spy->process);
    for (struct seen *seen; (seen = map_next(spy->executions, &cursor, NULL)) != NULL;)
        free(seen);
    map_free(spy->executions);
    record_scratch_free(&spy->scratch);
    arena_free(spy->arena);
    free(spy->by_number);
    free(spy->link);
    free(spy);
}

const struct sim_ops spy_ops = {.post = spy_post, .run = spy_run, .deadline_ns = spy_deadline_ns, .free = spy_free};

void *spy_make(struct sim *sim, uint32_t node, uint64_t life, void *argument)
{
    const struct spy_config *config = argument;
    struct spy *spy = calloc(1, sizeof *spy);
    assert(spy != NULL);
    (void)node;
    spy->sim = sim;
    spy->config = config;
    config->totals->lives++;
    config->totals->last = (struct wire_heartbeat){0};
    struct worker_config worker = config->worker;
    worker.incarnation = hash_mix(config->worker.incarnation, life);
    enum dj_error error = arena_make(1 << 16, 0, &spy->arena);
    if (error == DJ_OK)
        error = record_scratch_make(&spy->scratch);
    if (error == DJ_OK)
        error = map_make(ENTRIES_MAX, &spy->executions);
    if (error == DJ_OK)
        error = process_make(&spy->process);
    if (error == DJ_OK)
        error = process_root(spy->process, &worker_class, &worker, sizeof worker);
    assert(error == DJ_OK);
    return spy;
}
