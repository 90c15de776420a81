// Journal: what was run, told to the head behind the answers, in order, and kept until the head has it durably. After a lost link
// everything that was not acknowledged is told again, under the same numbers.
//
// What is durable must be replayable: a record leaves when the store has every leaf that its execution names (design, rule 13), so one that
// waits for a leaf holds up those behind it.
//
// An execution's record takes over the delta that its client sent, as long as every execution that the delta builds on has a record too.
// One that failed, or was replayed, has none: from there until the client resets, deltas are coded here against what was journalled.

#include "core/base/log.h"
#include "core/base/planted.h"
#include "gpu_worker/actors/state.h"

#include <stdlib.h>
#include <string.h>

enum { PART_BYTES = 512 << 10, PART_MAX = 1 << 20, RELEASES_MAX = 1 << 15 };
#define FLUSH_AFTER_NS ((uint64_t)2000000)
#define ASK_AGAIN_NS ((uint64_t)1000000000)

static bool has_head(const struct worker *worker)
{
    return worker->config.head[0] != '\0';
}

static struct journal_part *part_open(struct worker *worker, size_t bytes)
{
    struct journal_part *last = list_is_empty(&worker->journal) ? NULL
                                                                : list_entry(worker->journal.prev, struct journal_part, list);
    if (last != NULL && !last->is_sent && last->records.length + bytes <= PART_BYTES)
        return last;
    struct journal_part *part = calloc(1, sizeof *part);
    if (part == NULL)
        return NULL;
    part->first = worker->journal_next;
    part->records = writer_make(RECORD_BYTES_MAX);
    list_push(&worker->journal, &part->list);
    return part;
}

void worker_journal_soon(struct worker *worker)
{
    actor_timer(worker->self, TIMER_JOURNAL, actor_now_ns(worker->self) + FLUSH_AFTER_NS);
}

static void part_free(struct worker *worker, struct journal_part *part)
{
    worker->journal_bytes -= part->records.length;
    list_remove(&part->list);
    writer_free(&part->records);
    free(part->leaf);
    free(part);
}

static void wait_for_leaf(struct worker *worker, struct hash128 content)
{
    struct journal_part *part = list_entry(worker->journal.prev, struct journal_part, list);
    for (uint32_t i = 0; i < part->leaves; i++) {
        if (hash128_equal(part->leaf[i], content))
            return;
    }
    if (part->leaves == part->leaves_capacity) {
        uint32_t larger = part->leaves_capacity == 0 ? 16 : part->leaves_capacity * 2;
        struct hash128 *leaf = realloc(part->leaf, larger * sizeof *leaf);
        if (leaf == NULL)
            return;
        part->leaf = leaf;
        part->leaves_capacity = larger;
    }
    part->leaf[part->leaves++] = content;
}

static bool is_missing(const struct worker *worker, struct hash128 content)
{
    return exec_leaf_state(worker->exec, content) != LEAF_ABSENT && !exec_leaf_is_durable(worker->exec, content);
}

static bool is_ready(const struct worker *worker, struct journal_part *part)
{
    while (part->leaves > 0 && !is_missing(worker, part->leaf[part->leaves - 1]))
        part->leaves--;
    return part->leaves == 0;
}

// The record's number; 0: it is not in the journal.
static uint64_t add(struct worker *worker, const struct record *record, size_t about_bytes)
{
    if (!has_head(worker))
        return 0;
    struct journal_part *part = part_open(worker, about_bytes);
    if (part == NULL) {
        log_write(LOG_ERROR, "worker", "no memory for a record of the journal");
        return 0;
    }
    size_t before = part->records.length;
    record_write(&part->records, record);
    if (part->records.error != DJ_OK || part->records.length > PART_MAX) {
        log_write(LOG_ERROR, "worker", "a record is not in the journal: %s",
                  part->records.error == DJ_OK ? "it is too long" : dj_error_text(part->records.error));
        part->records.error = DJ_OK;
        part->records.length = before;
        return 0;
    }
    worker->journal_bytes += part->records.length - before;
    part->count++;
    worker_journal_soon(worker);
    return worker->journal_next++;
}

void worker_journal_plan(struct worker *worker, struct hash128 fingerprint, const uint8_t *bytes, uint32_t length)
{
    struct record record = {.kind = RECORD_PLAN, .plan = {.fingerprint = fingerprint, .bytes = bytes, .length = length}};
    if (length < PART_MAX - 1024)
        (void)add(worker, &record, length + 64);
    else
        log_write(LOG_WARN, "worker", "a plan is too long for the journal bytes=%u", length);
}

// Executions ---------------------------------------------------------------------------------------------------------

static void add_answers(struct record_execution *execution, const struct exec_run *run)
{
    uint32_t total = 0;
    for (uint32_t i = 0; i < run->answers && execution->answers < RECORD_ANSWERS_MAX; i++) {
        const struct exec_answer *answer = &run->answer[i];
        if (answer->bytes > RECORD_ANSWER_BYTES_MAX - total)
            continue;
        total += (uint32_t)answer->bytes;
        execution->answer[execution->answers++] = (struct record_answer){
            .output = answer->output ^ (PLANTED(FACT_OF_ANOTHER) && answer->output > 2),
            .length = (uint32_t)answer->bytes,
            .bytes = run->blob->data + answer->offset};
    }
}

void worker_chain_drop(struct chain *chain)
{
    if (chain == NULL || --chain->refs > 0)
        return;
    history_free(&chain->history);
    free(chain);
}

// The delta that the record has, in worker->delta when it is coded here.
static void choose_delta(struct worker *worker, const struct work *work, struct record_execution *execution)
{
    struct chain *chain = work->chain;
    if (work->base == 0) {
        chain->is_own = false;
        chain->last = chain->before = 0;
        chain->length = 0;
    } else if (!chain->is_own && (chain->last != work->base || chain->before != work->before)) {
        chain->is_own = true;
        chain->length = 0;
        history_reset(&chain->history);
    }
    if (!chain->is_own) {
        execution->base = work->base;
        execution->before = PLANTED(WRONG_BASE) && work->base > 4 ? 0 : work->before;
        execution->delta = work->delta;
        execution->delta_length = work->delta_bytes;
        return;
    }
    // A record builds on older ones only, and lists may come back in another order than they ran in.
    if (chain->length >= RECORD_CHAIN_MAX || chain->last >= work->position.counter) {
        chain->length = 0;
        history_reset(&chain->history);
    }
    writer_reset(&worker->delta);
    bindings_encode(&chain->history, work->word, &worker->delta);
    execution->base = chain->length == 0 ? 0 : chain->last;
    execution->before = chain->length < 2 ? 0 : chain->before;
    execution->delta = worker->delta.data;
    execution->delta_length = (uint32_t)worker->delta.length;
}

static void chain_goes_on(struct chain *chain, const struct work *work, bool is_journalled)
{
    if (!is_journalled) {    // what follows names an execution that has no record
        chain->last = chain->before = 0;
        chain->length = 0;
        history_reset(&chain->history);
        return;
    }
    chain->before = chain->last;
    chain->last = work->position.counter;
    chain->length++;
    if (chain->is_own && history_push(&chain->history, work->word) != DJ_OK) {
        chain->length = 0;
        history_reset(&chain->history);
    }
}

// The handles that end with the work: those it releases, and its donated inputs when it was prepared. In the message's arena.
static uint32_t gone_of(struct worker *worker, const struct work *work, bool is_prepared, struct record_ref **ret)
{
    const struct srg_plan *srg = exec_plan_structure(work->plan);
    struct record_ref *ref = arena_alloc(worker->arena, (srg->inputs + work->releases + 1) * sizeof *ref);
    uint32_t count = 0;
    *ret = ref;
    if (ref == NULL)
        return 0;
    for (uint32_t i = 0; i < work->releases; i++)
        ref[count++] = (struct record_ref){work->released[i].execution.counter, work->released[i].output};
    for (uint32_t i = 0; is_prepared && i < srg->inputs; i++) {
        uint64_t distance;
        if (srg->input[i].is_leaf || i / 8 >= work->donated_bytes || (work->donated[i / 8] >> (i % 8) & 1) == 0)
            continue;
        binding_handle(srg, work->word, i, &distance, &ref[count].output);
        ref[count++].counter = work->position.counter - distance;
    }
    return count;
}

static void write_release(struct worker *worker, uint64_t session, struct record_ref *ref, uint32_t count, bool is_lost)
{
    while (count > 0) {
        uint32_t some = count < RELEASES_MAX ? count : RELEASES_MAX;
        struct record record = {.kind = RECORD_RELEASE, .release = {.session = session, .from = 1, .is_lost = is_lost}};
        for (uint32_t i = 0; i < some; i++) {
            if (ref[i].counter >= record.release.from)
                record.release.from = ref[i].counter + 1;
        }
        writer_reset(&worker->scratch);
        record_refs_write(&worker->scratch, record.release.from, ref, some);
        record.release.gone = worker->scratch.data;
        record.release.gone_bytes = (uint32_t)worker->scratch.length;
        if (worker->scratch.error == DJ_OK)
            (void)add(worker, &record, worker->scratch.length + 64);
        ref += some;
        count -= some;
    }
}

void worker_journal_release(struct worker *worker, uint64_t session, const struct handle *handle, uint32_t handles)
{
    struct record_ref *ref = has_head(worker) && handles > 0 ? arena_alloc(worker->arena, handles * sizeof *ref) : NULL;
    if (ref == NULL)
        return;
    for (uint32_t i = 0; i < handles; i++)
        ref[i] = (struct record_ref){handle[i].execution.counter, handle[i].output};
    write_release(worker, session, ref, handles, false);
}

// A step of a recovery that ran has no record of its own that says what ended with it.
void worker_journal_ended(struct worker *worker, const struct work *work)
{
    if (!has_head(worker) || work->kind != WORK_EXECUTE)
        return;
    struct record_ref *ref;
    uint32_t count = gone_of(worker, work, true, &ref);
    write_release(worker, work->stream->session->id, ref, count, false);
}

// With an execution that failed nothing ends: its client may give it again, and then needs what it took. When the client has given it up,
// the client says so.
void worker_journal_lost(struct worker *worker, const struct work *work, bool is_prepared)
{
    if (!has_head(worker) || work->kind != WORK_EXECUTE)
        return;
    struct record_ref *ref;
    uint32_t count = gone_of(worker, work, is_prepared, &ref);
    write_release(worker, work->stream->session->id, ref, count, true);
}

// What of `gone` the record can name: handles of earlier executions.
static void add_gone(struct worker *worker, const struct work *work, struct record_execution *execution)
{
    struct record_ref *ref;
    uint32_t count = gone_of(worker, work, true, &ref), earlier = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (ref[i].counter < work->position.counter)
            ref[earlier++] = ref[i];
    }
    writer_reset(&worker->scratch);
    record_refs_write(&worker->scratch, work->position.counter, ref, earlier);
    if (worker->scratch.error != DJ_OK || worker->scratch.length > RECORD_GONE_BYTES_MAX / 2)
        return;    // the head's table keeps them: it asks for them in vain
    execution->gone = worker->scratch.data;
    execution->gone_bytes = (uint32_t)worker->scratch.length;
}

uint64_t worker_journal_execution(struct worker *worker, const struct work *work, const struct exec_run *run)
{
    if (!has_head(worker) || (PLANTED(DROP_RECORD) && worker->journal_next % 16 == 15))
        return 0;
    const struct srg_plan *srg = exec_plan_structure(work->plan);
    struct record *record = arena_zero(worker->arena, sizeof *record);
    if (record == NULL) {
        chain_goes_on(work->chain, work, false);
        return 0;
    }
    record->kind = RECORD_EXECUTION;
    struct record_execution *execution = &record->execution;
    execution->id = run->id;
    execution->plan = srg->fingerprint;
    choose_delta(worker, work, execution);
    execution->check = record_words_check(work->word, srg->words);
    execution->keep = (struct record_bits){.bits = work->kept, .bytes = work->kept_bytes};
    execution->donate = (struct record_bits){.bits = work->donated, .bytes = work->donated_bytes};
    execution->numerics = worker->numerics;
    execution->cost_ns = run->list.elapsed_ns;
    for (uint32_t i = 0; i < srg->inputs; i++) {
        uint64_t distance;
        uint32_t output;
        if (srg->input[i].is_leaf)
            continue;
        binding_handle(srg, work->word, i, &distance, &output);
        record_add_producer(execution, run->id.counter - distance);
    }
    add_gone(worker, work, execution);
    add_answers(execution, run);
    uint64_t number = 0;
    if (worker->delta.error == DJ_OK)
        number = add(worker, record,
                     execution->delta_length + execution->gone_bytes + (size_t)work->kept_bytes + work->donated_bytes +
                         RECORD_ANSWER_BYTES_MAX + 4096);
    chain_goes_on(work->chain, work, number != 0);
    for (uint32_t i = 0; number != 0 && i < srg->inputs; i++) {
        struct hash128 content = srg->input[i].is_leaf ? binding_leaf(srg, work->word, i) : (struct hash128){0};
        if (srg->input[i].is_leaf && is_missing(worker, content))
            wait_for_leaf(worker, content);
    }
    return number;
}

uint64_t worker_journal_import(struct worker *worker, const struct work *work, uint64_t bytes)
{
    struct record record = {.kind = RECORD_IMPORT,
                            .import = {.id = {.session = work->stream->session->id, .counter = work->position.counter},
                                       .output = work->output,
                                       .source = {.counter = work->handle.execution.counter, .output = work->handle.output},
                                       .bytes = bytes}};
    return add(worker, &record, 64);
}

void worker_journal_checkpoint(struct worker *worker, const struct record *record, size_t about_bytes)
{
    (void)add(worker, record, about_bytes);
}

// Telling it ---------------------------------------------------------------------------------------------------------

static void send_part(struct worker *worker, struct journal_part *part)
{
    struct wire_journal journal = {.first = part->first,
                                   .count = (uint32_t)part->count,
                                   .records = part->records.data,
                                   .records_bytes = (uint32_t)part->records.length};
    part->is_sent = true;
    worker_send(worker, worker->head_link, WIRE_JOURNAL, wire_journal_encode(&journal));
}

bool worker_journal_flush(struct worker *worker)
{
    actor_timer(worker->self, TIMER_JOURNAL, 0);
    if (worker->head_phase != HEAD_JOINED)
        return false;
    worker_inventory_flush(worker);
    list_each (node, &worker->journal) {
        struct journal_part *part = list_entry(node, struct journal_part, list);
        if (part->is_sent || part->count == 0)
            continue;
        if (!is_ready(worker, part))
            return false;
        send_part(worker, part);
    }
    return true;
}

void worker_journal_leaf_stored(struct worker *worker)
{
    if (!list_is_empty(&worker->journal) && worker_journal_flush(worker))
        worker_sessions_admit_settled(worker);
}

// The store may have refused a leaf, or waited for it from somebody who is gone.
void worker_journal_sweep(struct worker *worker)
{
    uint64_t now = actor_now_ns(worker->self);
    if (worker->head_phase != HEAD_JOINED || now - worker->journal_asked_ns < ASK_AGAIN_NS)
        return;
    worker->journal_asked_ns = now;
    list_each (node, &worker->journal) {
        const struct journal_part *part = list_entry(node, struct journal_part, list);
        for (uint32_t i = 0; !part->is_sent && i < part->leaves; i++) {
            if (is_missing(worker, part->leaf[i]))
                worker_serve_offer(worker, part->leaf[i], exec_leaf_bytes(worker->exec, part->leaf[i]));
        }
        if (part->leaves > 0)
            return;
    }
}

void worker_journal_acknowledged(struct worker *worker, uint64_t last)
{
    bool was_full = worker_journal_is_full(worker);
    list_each (node, &worker->journal) {
        struct journal_part *part = list_entry(node, struct journal_part, list);
        if (!part->is_sent || part->first + part->count - 1 > last)
            break;
        part_free(worker, part);
    }
    if (last > worker->journal_durable && last < worker->journal_next) {
        worker->journal_durable = last;
        worker_streams_send_held(worker);
    }
    if (was_full && !worker_journal_is_full(worker))
        worker_pump(worker);
}

void worker_journal_rejoined(struct worker *worker)
{
    list_each (node, &worker->journal)
        list_entry(node, struct journal_part, list)->is_sent = false;
    (void)worker_journal_flush(worker);
}

bool worker_journal_is_full(const struct worker *worker)
{
    return worker->journal_bytes > WORKER_JOURNAL_BYTES_MAX;
}

static void plans_again(struct worker *worker, const struct journal_part *part, struct record_scratch *scratch)
{
    struct record *record = arena_zero(worker->arena, sizeof *record);
    struct reader reader = reader_make(part->records.data, part->records.length);
    while (record != NULL && reader_left(&reader) > 0 && record_read(&reader, scratch, record) == DJ_OK) {
        if (record->kind == RECORD_PLAN)
            worker_journal_plan(worker, record->plan.fingerprint, record->plan.bytes, (uint32_t)record->plan.length);
    }
}

// Plans are of no life: whoever uses one that is known here does not send it again.
void worker_journal_forget(struct worker *worker)
{
    struct list old;
    struct record_scratch scratch;
    bool has_scratch = record_scratch_make(&scratch) == DJ_OK;
    list_init(&old);
    list_each (node, &worker->journal) {
        list_remove(node);
        list_push(&old, node);
    }
    list_each (gone, &old) {
        struct journal_part *part = list_entry(gone, struct journal_part, list);
        if (has_scratch)
            plans_again(worker, part, &scratch);
        part_free(worker, part);
    }
    if (has_scratch)
        record_scratch_free(&scratch);
}

void worker_journal_free(struct worker *worker)
{
    if (worker->journal.next == NULL)
        return;
    list_each (node, &worker->journal)
        part_free(worker, list_entry(node, struct journal_part, list));
    writer_free(&worker->scratch);
    writer_free(&worker->delta);
}
