// Resume: what an earlier life of this program has done already is answered from its records, and nothing runs; and how executions are numbered
// across lives.
//
// Numbers: the recorder counts its submissions from 1. The wire's counter of number n is that of the life (epoch) that ran it: exec_counter(era
// of n, n). A new life begins a new era at the first number that the records do not answer, so every life's numbers lie densely along the
// program, and of the records of several lives those count that the last one to go there left: an era ends where a later one begins.
// Bindings name producers by distance; a distance across eras is another on the wire than in the recorder, within an era it is the same.
//
// The records are kept as they came, and decoded one at a time, when a submission is compared with the next one: a delta names the two
// vectors that it needs by their counters, so the latest decoded ones are kept by those.

#include <stdlib.h>
#include <string.h>

#include "core/base/assert.h"
#include "core/base/log.h"
#include "core/base/planted.h"
#include "core/lineage/vectors.h"
#include "frontend/client/protocol/state.h"

enum { RECORDS_MAX = 1 << 20, PARTS_MAX = 1 << 12, VECTORS_MAX = 1 << 14 };
#define RESUME_BYTES_MAX ((uint64_t)64 << 20)
#define RESUME_VECTOR_BYTES_MAX ((uint64_t)64 << 20)

struct resume_record {
    uint64_t counter;
    const uint8_t *at;
    uint32_t length, part;
};

struct resume_outcome {
    struct list node;
    void *tag;
    struct blob *blob;
    uint32_t count;
    struct {
        uint32_t output, length;
        size_t offset;
    } of[RECORD_ANSWERS_MAX];
};

struct resume {
    bool is_loading, is_matching;
    uint64_t request, next, bytes;
    struct blob *part[PARTS_MAX];
    uint32_t parts;
    struct resume_record *record;
    uint32_t records, capacity, at;
    struct vectors *vectors;
    struct list outcomes;
};

// Numbers --------------------------------------------------------------------------------------------------------------------

static uint32_t epoch_of(const struct protocol *protocol, uint64_t number)
{
    uint32_t i = protocol->eras;
    while (i > 1 && protocol->era[i - 1].first > number)
        i--;
    return i == 0 ? 1 : protocol->era[i - 1].epoch;
}

uint64_t wire_counter(const struct protocol *protocol, uint64_t number)
{
    return exec_counter(epoch_of(protocol, number), number);
}

void wire_words(const struct protocol *protocol, const struct srg_plan *plan, uint64_t number, int64_t *word)
{
    if (protocol->eras <= 1)
        return;
    uint64_t counter = wire_counter(protocol, number);
    for (uint32_t i = 0; i < plan->inputs; i++) {
        uint64_t distance;
        uint32_t output;
        if (plan->input[i].is_leaf)
            continue;
        binding_handle(plan, word, i, &distance, &output);
        uint64_t on_wire = counter - wire_counter(protocol, number - distance);
        if (on_wire != distance)
            binding_set_handle(plan, word, i, on_wire, output);
    }
}

// The new life's own numbers begin here.
static void era_begin(struct protocol *protocol, uint64_t number)
{
    while (protocol->eras > 0 && protocol->era[protocol->eras - 1].first >= number)
        protocol->eras--;
    assert(protocol->eras < ERAS_MAX);    // one is kept free for this
    protocol->era[protocol->eras++] = (struct era){.first = number, .epoch = protocol->epoch};
}

// Loading --------------------------------------------------------------------------------------------------------------------

void resume_begin(struct protocol *protocol, uint64_t journalled)
{
    protocol->eras = 0;
    era_begin(protocol, 1);
    if (journalled == 0 || protocol->epoch <= 1)
        return;
    struct resume *resume = calloc(1, sizeof *resume);
    if (resume == NULL || vectors_make(VECTORS_MAX, RESUME_VECTOR_BYTES_MAX, &resume->vectors) != DJ_OK) {
        free(resume);
        log_write(LOG_WARN, "client", "no memory to resume from records: everything runs again");
        return;
    }
    resume->is_loading = true;
    list_init(&resume->outcomes);
    protocol->resume = resume;
    resume_ask(protocol);
}

void resume_ask(struct protocol *protocol)
{
    struct resume *resume = protocol->resume;
    if (resume == NULL || !resume->is_loading || protocol->head != HEAD_READY)
        return;
    resume->request = ++protocol->next_request;
    struct wire_journal_get message = {
        .request = resume->request, .session = protocol->session, .epoch = protocol->epoch, .from = resume->next};
    send_message(protocol, protocol->head_link, WIRE_JOURNAL_GET, wire_journal_get_encode(&message));
}

bool resume_is_loading(const struct protocol *protocol)
{
    return protocol->resume != NULL && protocol->resume->is_loading;
}

// The records are worth nothing any more; outcomes that are due stay.
static void records_drop(struct resume *resume)
{
    resume->is_loading = resume->is_matching = false;
    for (uint32_t i = 0; i < resume->parts; i++)
        blob_drop(resume->part[i]);
    free(resume->record);
    resume->record = NULL;
    resume->parts = resume->records = resume->at = resume->capacity = 0;
}

void resume_free(struct protocol *protocol)
{
    struct resume *resume = protocol->resume;
    if (resume == NULL)
        return;
    records_drop(resume);
    vectors_free(resume->vectors);
    list_each (node, &resume->outcomes) {    // NOLINT(clang-analyzer-unix.Malloc): what was freed is unlinked
        struct resume_outcome *outcome = list_entry(node, struct resume_outcome, node);
        list_remove(&outcome->node);
        blob_drop(outcome->blob);
        free(outcome);
    }
    free(resume);
    protocol->resume = NULL;
}

// A record of a later life takes the place of earlier lives' from its number on.
static bool record_keep(struct protocol *protocol, uint64_t counter, const uint8_t *at, size_t length)
{
    struct resume *resume = protocol->resume;
    uint64_t number = exec_number(counter);
    while (resume->records > 0 && exec_number(resume->record[resume->records - 1].counter) >= number)
        resume->records--;
    if (resume->records == resume->capacity) {
        uint32_t capacity = resume->capacity == 0 ? 1024 : 2 * resume->capacity;
        struct resume_record *grown = capacity > RECORDS_MAX ? NULL : realloc(resume->record, capacity * sizeof *grown);
        if (grown == NULL)
            return false;
        resume->record = grown;
        resume->capacity = capacity;
    }
    resume->record[resume->records++] = (struct resume_record){
        .counter = counter, .at = at, .length = (uint32_t)length, .part = resume->parts - 1};
    return true;
}

static bool part_read(struct protocol *protocol, const struct wire_journal_part *message)
{
    struct reader reader = reader_make(message->records, message->records_bytes);
    while (reader_left(&reader) > 0) {
        struct record record;
        const uint8_t *at = reader.at;
        if (record_read(&reader, &protocol->scratch, &record) != DJ_OK)
            return false;
        bool is_execution = record.kind == RECORD_EXECUTION;
        if (!is_execution && record.kind != RECORD_IMPORT)
            continue;
        uint64_t counter = is_execution ? record.execution.id.counter : record.import.id.counter;
        if (exec_epoch(counter) < protocol->epoch && !record_keep(protocol, counter, at, (size_t)(reader.at - at)))
            return false;
    }
    return true;
}

// Which numbers are whose, once all records are here.
static bool eras_find(struct protocol *protocol)
{
    const struct resume *resume = protocol->resume;
    protocol->eras = 0;
    for (uint32_t i = 0; i < resume->records; i++) {
        uint64_t counter = resume->record[i].counter;
        if (protocol->eras > 0 && protocol->era[protocol->eras - 1].epoch == exec_epoch(counter))
            continue;
        if (protocol->eras == ERAS_MAX - 1)
            return false;
        uint64_t first = protocol->eras == 0 ? 1 : exec_number(counter);
        protocol->era[protocol->eras++] = (struct era){.first = first, .epoch = exec_epoch(counter)};
    }
    return protocol->eras > 0;
}

static void loaded(struct protocol *protocol, bool is_good)
{
    struct resume *resume = protocol->resume;
    resume->is_loading = false;
    resume->request = 0;
    if (is_good && eras_find(protocol)) {
        resume->is_matching = true;
        log_write(LOG_INFO, "client", "resuming: %u executions are recorded", resume->records);
        return;
    }
    if (resume->records > 0)
        log_write(LOG_WARN, "client", "the records of the session cannot be used: everything runs again");
    records_drop(resume);
    protocol->eras = 0;
    era_begin(protocol, 1);
}

void resume_part(struct protocol *protocol, const struct wire_journal_part *message, struct blob *body)
{
    struct resume *resume = protocol->resume;
    if (resume == NULL || !resume->is_loading || message->request != resume->request)
        return;
    resume->bytes += body->bytes;
    bool has_room = resume->bytes <= RESUME_BYTES_MAX && resume->parts < PARTS_MAX;
    bool is_good = true;
    if (has_room) {
        resume->part[resume->parts++] = blob_hold(body);
        is_good = part_read(protocol, message);
    }
    if (!is_good || !has_room || message->next == 0) {
        // What did not fit runs again: the records before it are in order.
        loaded(protocol, is_good || resume->records > 0);
        session_ready(protocol);
        return;
    }
    resume->next = message->next;
    protocol->deadline_ns = later(protocol->now_ns, protocol->config.timeout_ns);
    resume_ask(protocol);
}

bool resume_refused(struct protocol *protocol, uint64_t request)
{
    struct resume *resume = protocol->resume;
    if (resume == NULL || !resume->is_loading || resume->request != request || request == 0)
        return false;
    loaded(protocol, false);
    session_ready(protocol);
    return true;
}

// Comparing -------------------------------------------------------------------------------------------------------------------

static const struct record_answer *answer_to(const struct record_execution *execution, uint32_t output)
{
    for (uint32_t i = 0; i < execution->answers; i++)
        if (execution->answer[i].output == output)
            return &execution->answer[i];
    return NULL;
}

static bool is_same(struct protocol *protocol, const struct submission *submission, const struct record_execution *execution)
{
    const struct srg_plan *plan = submission->plan;
    if (!hash128_equal(plan->fingerprint, execution->plan))
        return false;
    for (uint32_t i = 0; i < submission->answers_count; i++)
        if (answer_to(execution, submission->answers[i]) == NULL)
            return false;
    const int64_t *recorded = vectors_decode(protocol->resume->vectors, execution, plan->words);
    int64_t *word = arena_copy(protocol->arena, submission->word, (plan->words + 1) * sizeof *word - sizeof *word);
    if (recorded == NULL || (word == NULL && plan->words > 0))
        return false;
    wire_words(protocol, plan, submission->counter, word);
    return plan->words == 0 || memcmp(recorded, word, plan->words * sizeof *word) == 0 ||
           (PLANTED(RESUME_DIFFERENT) && plan->nodes > 2);
}

// The next record, if it is that number's; its scratch is the protocol's.
static bool record_next(struct protocol *protocol, uint64_t number, enum record_kind kind, struct record *ret)
{
    struct resume *resume = protocol->resume;
    if (resume->at == resume->records)
        return false;
    const struct resume_record *next = &resume->record[resume->at];
    struct reader reader = reader_make(next->at, next->length);
    return exec_number(next->counter) == number && record_read(&reader, &protocol->scratch, ret) == DJ_OK && ret->kind == kind;
}

static struct resume_outcome *outcome_make(struct resume *resume, void *tag)
{
    struct resume_outcome *outcome = calloc(1, sizeof *outcome);
    if (outcome == NULL)
        return NULL;
    outcome->tag = tag;
    outcome->blob = blob_hold(resume->part[resume->record[resume->at].part]);
    list_push(&resume->outcomes, &outcome->node);
    return outcome;
}

// The records end here, or the program has left them: from this number on it runs.
static void diverged(struct protocol *protocol, uint64_t number)
{
    struct resume *resume = protocol->resume;
    log_write(LOG_INFO, "client", "%u of %u recorded executions were taken from their records; number %llu runs", resume->at,
              resume->records, (unsigned long long)number);
    records_drop(resume);
    era_begin(protocol, number);
    list_each (node, &protocol->peers)
        resume_needs_values(protocol, list_entry(node, struct peer, node));
}

static bool matched(struct protocol *protocol, uint32_t place)
{
    struct peer *peer = peer_at(protocol, place);
    protocol->resume->at++;
    protocol->stats.resumed++;
    if (peer != NULL)
        peer->is_behind = true;
    return true;
}

bool resume_submission(struct protocol *protocol, const struct submission *submission)
{
    struct resume *resume = protocol->resume;
    if (resume == NULL || !resume->is_matching)
        return false;
    struct record *record = arena_zero(protocol->arena, sizeof *record);
    bool is_known = record != NULL && record_next(protocol, submission->counter, RECORD_EXECUTION, record) &&
                    is_same(protocol, submission, &record->execution);
    struct resume_outcome *outcome = is_known ? outcome_make(resume, submission->tag) : NULL;
    for (uint32_t i = 0; outcome != NULL && i < submission->answers_count; i++) {
        const struct record_answer *answer = answer_to(&record->execution, submission->answers[i]);
        outcome->of[outcome->count].output = answer->output;
        outcome->of[outcome->count].length = answer->length;
        outcome->of[outcome->count++].offset = answer->length == 0 ? 0 : (size_t)(answer->bytes - outcome->blob->data);
    }
    arena_reset(protocol->arena);
    if (outcome != NULL)
        return matched(protocol, submission->place);
    diverged(protocol, submission->counter);
    return false;
}

bool resume_import(struct protocol *protocol, uint32_t place, uint64_t number, uint64_t from_number, uint32_t from_output,
                   void *tag)
{
    struct resume *resume = protocol->resume;
    if (resume == NULL || !resume->is_matching)
        return false;
    struct record *record = arena_zero(protocol->arena, sizeof *record);
    bool is_known = record != NULL && record_next(protocol, number, RECORD_IMPORT, record) && record->import.output == 0 &&
                    record->import.source.counter == wire_counter(protocol, from_number) &&
                    record->import.source.output == from_output && outcome_make(resume, tag) != NULL;
    arena_reset(protocol->arena);
    if (is_known)
        return matched(protocol, place);
    diverged(protocol, number);
    return false;
}

void resume_needs_values(struct protocol *protocol, struct peer *peer)
{
    if (!peer->is_behind || peer->state == PEER_GONE)
        return;
    peer->must_recover = true;
    if (peer->recovery.begun_ns == 0)
        peer->recovery.begun_ns = protocol->now_ns;
    if (peer->state == PEER_READY)
        peer->is_draining = true;    // there is nothing to drain: the tick begins the new stream
}

bool resume_has_outcomes(const struct protocol *protocol)
{
    return protocol->resume != NULL && !list_is_empty(&protocol->resume->outcomes);
}

void resume_tick(struct protocol *protocol)
{
    struct resume *resume = protocol->resume;
    while (resume_has_outcomes(protocol)) {
        struct resume_outcome *outcome = list_entry(resume->outcomes.next, struct resume_outcome, node);
        list_remove(&outcome->node);
        for (uint32_t i = 0; i < outcome->count; i++)
            protocol->port.answered(protocol->port.self, outcome->tag, outcome->of[i].output, outcome->blob,
                                    outcome->of[i].offset, outcome->of[i].length);
        protocol->port.executed(protocol->port.self, outcome->tag);
        blob_drop(outcome->blob);
        free(outcome);
    }
    if (resume != NULL && !resume->is_loading && !resume->is_matching)
        resume_free(protocol);
}
