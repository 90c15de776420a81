// Journal: what was run, told to the head behind the answers, in order, and kept until the head has it durably. After a lost link
// everything that was not acknowledged is told again, under the same numbers.

#include "core/base/log.h"
#include "gpu_worker/actors/state.h"

#include <stdlib.h>
#include <string.h>

enum { PART_BYTES = 512 << 10, PART_MAX = 1 << 20 };
#define FLUSH_AFTER_NS ((uint64_t)2000000)

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

static void add(struct worker *worker, const struct record *record, size_t about_bytes)
{
    if (worker->config.head[0] == '\0')
        return;
    struct journal_part *part = part_open(worker, about_bytes);
    if (part == NULL) {
        log_write(LOG_ERROR, "worker", "no memory for a record of the journal");
        return;
    }
    size_t before = part->records.length;
    record_write(&part->records, record);
    if (part->records.error != DJ_OK) {
        log_write(LOG_ERROR, "worker", "no memory for a record of the journal");
        return;
    }
    worker->journal_bytes += part->records.length - before;
    worker->journal_next++;
    part->count++;
    actor_timer(worker->self, TIMER_JOURNAL, actor_now_ns(worker->self) + FLUSH_AFTER_NS);
}

void worker_journal_plan(struct worker *worker, struct hash128 fingerprint, const uint8_t *bytes, uint32_t length)
{
    struct record record = {.kind = RECORD_PLAN, .plan = {.fingerprint = fingerprint, .bytes = bytes, .length = length}};
    if (length < PART_MAX - 1024)
        add(worker, &record, length + 64);
    else
        log_write(LOG_WARN, "worker", "a plan is too long for the journal bytes=%u", length);
}

static void add_producer(struct record_execution *execution, uint64_t counter)
{
    uint32_t at = execution->producers;
    while (at > 0 && execution->producer[at - 1] >= counter) {
        if (execution->producer[at - 1] == counter)
            return;
        at--;
    }
    if (execution->producers == RECORD_PRODUCERS_MAX)
        return;
    memmove(&execution->producer[at + 1], &execution->producer[at], (execution->producers - at) * sizeof execution->producer[0]);
    execution->producer[at] = counter;
    execution->producers++;
}

static void add_answers(struct record_execution *execution, const struct exec_run *run)
{
    uint32_t total = 0;
    for (uint32_t i = 0; i < run->answers && execution->answers < RECORD_ANSWERS_MAX; i++) {
        const struct exec_answer *answer = &run->answer[i];
        if (answer->bytes > RECORD_ANSWER_BYTES_MAX - total)
            continue;
        total += (uint32_t)answer->bytes;
        execution->answer[execution->answers++] = (struct record_answer){
            .output = answer->output, .length = (uint32_t)answer->bytes, .bytes = run->blob->data + answer->offset};
    }
}

void worker_journal_execution(struct worker *worker, const struct work *work, const struct exec_run *run)
{
    if (worker->config.head[0] == '\0')
        return;
    const struct srg_plan *srg = exec_plan_structure(work->plan);
    const char *numerics = worker->config.device[0]->info->numerics;
    struct record *record = arena_zero(worker->arena, sizeof *record);
    if (record == NULL)
        return;
    record->kind = RECORD_EXECUTION;
    struct record_execution *execution = &record->execution;
    execution->id = run->id;
    execution->plan = srg->fingerprint;
    execution->base = work->base;
    execution->before = work->before;
    execution->delta = work->delta;
    execution->delta_length = work->delta_bytes;
    execution->check = record_words_check(work->word, srg->words);
    execution->keep = (struct record_bits){.bits = work->kept, .bytes = work->kept_bytes};
    execution->donate = (struct record_bits){.bits = work->donated, .bytes = work->donated_bytes};
    execution->numerics = (uint32_t)hash64(numerics, strlen(numerics));
    for (uint32_t i = 0; i < srg->inputs; i++) {
        uint64_t distance;
        uint32_t output;
        if (srg->input[i].is_leaf)
            continue;
        binding_handle(srg, work->word, i, &distance, &output);
        add_producer(execution, run->id.counter - distance);
    }
    add_answers(execution, run);
    add(worker, record, work->delta_bytes + (size_t)work->kept_bytes + work->donated_bytes + RECORD_ANSWER_BYTES_MAX + 4096);
}

static void send_part(struct worker *worker, struct journal_part *part)
{
    struct wire_journal journal = {.first = part->first,
                                   .count = (uint32_t)part->count,
                                   .records = part->records.data,
                                   .records_bytes = (uint32_t)part->records.length};
    part->is_sent = true;
    worker_send(worker, worker->head_link, WIRE_JOURNAL, wire_journal_encode(&journal));
}

void worker_journal_flush(struct worker *worker)
{
    actor_timer(worker->self, TIMER_JOURNAL, 0);
    if (worker->head_phase != HEAD_JOINED)
        return;
    list_each (node, &worker->journal) {
        struct journal_part *part = list_entry(node, struct journal_part, list);
        if (!part->is_sent && part->count > 0)
            send_part(worker, part);
    }
}

static void part_free(struct worker *worker, struct journal_part *part)
{
    worker->journal_bytes -= part->records.length;
    list_remove(&part->list);
    writer_free(&part->records);
    free(part);
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
    if (was_full && !worker_journal_is_full(worker))
        worker_pump(worker);
}

void worker_journal_rejoined(struct worker *worker)
{
    list_each (node, &worker->journal)
        list_entry(node, struct journal_part, list)->is_sent = false;
    worker_journal_flush(worker);
}

bool worker_journal_is_full(const struct worker *worker)
{
    return worker->journal_bytes > WORKER_JOURNAL_BYTES_MAX;
}

void worker_journal_free(struct worker *worker)
{
    if (worker->journal.next == NULL)
        return;
    list_each (node, &worker->journal)
        part_free(worker, list_entry(node, struct journal_part, list));
}
