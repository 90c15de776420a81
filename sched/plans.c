// Plans: the registry of structures that were ever run, with their annotations. A plan is annotated off the core's thread, by its
// second execution, with the sizes of one whose bindings are known.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/bits.h"
#include "core/base/log.h"
#include "core/srg/bindings.h"
#include "sched/state.h"

enum { ANNOTATION_ARENA_BYTES = 1 << 16, ANNOTATE_AT = 2 };

struct annotate_job {
    struct srg_plan *plan;
    int64_t *word;
    uint8_t *keep;
    struct arena *arena;
    struct srg_annotations annotations;
    char warning[SEMANTIC_WARNING_MAX];
    enum dj_error error;
    struct fault fault;
};

struct head_plan *plans_see(struct head *head, struct hash128 fingerprint)
{
    struct head_plan *plan = map_get(head->plans, fingerprint);

    if (plan != NULL)
        return plan;
    plan = calloc(1, sizeof *plan);
    if (plan == NULL || map_put(head->plans, fingerprint, plan) != DJ_OK) {
        log_write(LOG_WARN, "head", "the plan registry is full; a plan is not remembered");
        free(plan);
        return NULL;
    }
    plan->fingerprint = fingerprint;
    plan->first_seen_ns = plan->last_seen_ns = actor_now_ns(head->self);
    return plan;
}

void plans_learn(struct head *head, const struct record_plan *record)
{
    struct head_plan *plan = plans_see(head, record->fingerprint);
    struct srg_plan *decoded;
    struct fault fault = {0};

    if (plan == NULL || plan->plan != NULL)
        return;
    if (plan_decode(record->bytes, record->length, &decoded, &fault) != DJ_OK) {
        log_write(LOG_WARN, "head", "a plan cannot be read: %s", fault.text);
        return;
    }
    if (!hash128_equal(decoded->fingerprint, record->fingerprint)) {
        log_write(LOG_WARN, "head", "a plan is not what its name says");
        plan_drop(decoded);
        return;
    }
    plan->plan = decoded;
    plan->nodes = decoded->nodes;
    plan->inputs = decoded->inputs;
    plan->outputs = decoded->outputs;
}

// Off the core's thread: everything it needs is in the job.
static void *annotate(void *input)
{
    struct annotate_job *job = input;
    struct tensor_meta *out = calloc(job->plan->outputs + 1, sizeof *out);

    job->error = out == NULL ? DJ_E_NO_MEMORY : arena_make(ANNOTATION_ARENA_BYTES, 0, &job->arena);
    if (job->error == DJ_OK)
        job->error = plan_infer(job->plan, job->word, out, NULL, NULL, &job->fault);
    if (job->error == DJ_OK) {
        struct semantic_input semantic = {.plan = job->plan, .word = job->word, .out = out, .keep = job->keep};
        job->error = semantic_annotate(&semantic, job->arena, &job->annotations, job->warning, &job->fault);
    }
    free(out);
    return job;
}

static void begin_annotation(struct head *head, struct head_plan *plan)
{
    struct annotate_job *job = calloc(1, sizeof *job);
    if (job == NULL)
        return;
    job->plan = plan_hold(plan->plan);
    job->word = plan->word;
    job->keep = plan->keep;
    plan->is_annotating = true;
    struct head_ticket *ticket = head_ticket(head, actor_compute(head->self, annotate, job), TICKET_ANNOTATE);
    if (ticket != NULL) {
        ticket->hash = plan->fingerprint;
        ticket->job = job;
    }
}

void plans_annotated(struct head_plan *plan, struct annotate_job *job)
{
    plan_drop(job->plan);
    if (plan == NULL || job->error != DJ_OK) {
        if (job->error != DJ_OK)
            log_write(LOG_WARN, "head", "a plan cannot be annotated: %s", job->fault.text);
        arena_free(job->arena);
    } else {
        plan->arena = job->arena;
        plan->annotations = job->annotations;
        memcpy(plan->warning, job->warning, sizeof plan->warning);
        if (plan->warning[0] != '\0')
            log_write(LOG_INFO, "head", "%s", plan->warning);
    }
    free(job);
}

static void note_words(struct head_plan *plan, const struct record_execution *record)
{
    struct binding_history history;

    if (plan->word != NULL || plan->plan == NULL || record->base != 0)
        return;
    int64_t *word = calloc(plan->plan->words + 1, sizeof *word);
    uint8_t *keep = calloc(plan->plan->outputs / 8 + 1, 1);
    if (word == NULL || keep == NULL) {
        free(word);
        free(keep);
        return;
    }
    struct reader reader = reader_make(record->delta, record->delta_length);
    history_init(&history, plan->plan->words);
    enum dj_error error = bindings_decode(&history, &reader, word);
    history_free(&history);
    if (error != DJ_OK) {
        free(word);
        free(keep);
        return;
    }
    for (uint32_t output = 0; output < plan->plan->outputs && output / 8 < record->keep.bytes; output++)
        if (bit_get(record->keep.bits, output))
            bit_set(keep, output);
    plan->word = word;
    plan->keep = keep;
}

static void note_run(struct head *head, struct head_plan *plan, const struct record_execution *record,
                     const struct head_worker *worker)
{
    struct plan_run *run = NULL;

    for (uint32_t i = 0; i < plan->runs; i++)
        if (plan->run[i].worker == worker->id && plan->run[i].session == record->id.session)
            run = &plan->run[i];
    if (run == NULL) {
        if (plan->runs == PLAN_RUNS_MAX)
            memmove(&plan->run[0], &plan->run[1], (--plan->runs) * sizeof plan->run[0]);
        run = &plan->run[plan->runs++];
        *run = (struct plan_run){.worker = worker->id, .session = record->id.session};
        snprintf(run->worker_name, sizeof run->worker_name, "%s", worker->name);
        const struct head_session *session = map_get(head->sessions, map_key(record->id.session));
        for (uint32_t i = 0; session != NULL && i < session->grants; i++)
            if (session->grant[i].worker == worker)
                snprintf(run->reason, sizeof run->reason, "%s", session->grant[i].reason);
    }
    run->executions++;
}

void plans_ran(struct head *head, const struct record_execution *record, const struct head_worker *worker)
{
    struct head_plan *plan = plans_see(head, record->plan);

    if (plan == NULL)
        return;
    plan->executions++;
    plan->last_seen_ns = actor_now_ns(head->self);
    note_words(plan, record);
    if (worker != NULL)
        note_run(head, plan, record, worker);
    if (plan->executions >= ANNOTATE_AT && plan->word != NULL && !plan->is_annotating)
        begin_annotation(head, plan);
}

void plans_free(struct head_plan *plan)
{
    plan_drop(plan->plan);
    arena_free(plan->arena);
    free(plan->word);
    free(plan->keep);
    free(plan);
}
