// Recovery: RECOVER in, steps out. The head reads the session's lineage (gather.c), adds what it knows of locations, plans on another
// thread (core/lineage/recovery.h) and answers with the steps, in parts; what cannot be brought back is told with the planner's words.
//
// A recovery belongs to the client's link: it is dropped when that goes down, and answered with WORKER_LOST when its target does. At most
// HEAD_RECOVERIES_MAX are planned at a time, the others wait in order; none is planned before the head is settled (resume.c), since what
// a worker still holds need not be replayed.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/log.h"
#include "core/lineage/recovery.h"
#include "sched/state.h"

enum { PART_BYTES = 1 << 20, RECOVERIES_A_LINK_MAX = 64 };

struct recovery_part {
    uint8_t *bytes;
    uint32_t length, steps;
};

struct head_recovery {
    struct list list;
    uint64_t session, link, request, target, lost, started_ns;
    uint32_t replayed, numerics;
    bool allows_close, is_active, is_dropped, is_computing;
    bool is_early;    // records of the session waited for others when it began: what it lacks may be among them
    char lost_name[64], target_name[64];
    struct record_ref *need;
    uint32_t needs;
    struct gather *gather;
    struct lineage_view *view;
    struct recovery_sum sum;    // written by the computation, as what follows
    struct recovery_part *part;
    uint32_t parts;
    enum dj_error error;
    struct fault fault;
};

static void recovery_end(struct head_recovery *job)
{
    if (job->is_computing) {    // its result frees it
        job->is_dropped = true;
        return;
    }
    for (uint32_t i = 0; i < job->parts; i++)
        free(job->part[i].bytes);
    list_remove(&job->list);
    gather_free(job->gather);
    free(job->part);
    free(job->view);
    free(job->need);
    free(job);
}

void recovery_abandon(struct head_recovery *job)
{
    job->is_computing = false;
    if (job->is_dropped)
        recovery_end(job);
}

static void forget(struct head *head, struct head_recovery *job)
{
    struct head_session *session = map_get(head->sessions, map_key(job->session));

    if (job->is_dropped)
        return;
    if (session != NULL)
        session->recoveries--;
    head->recoveries_active -= job->is_active;
    list_remove(&job->list);
    recovery_end(job);
}

// Planning (on another thread) ----------------------------------------------------------------------------------------------------

static enum dj_error add_part(struct head_recovery *job, const struct writer *writer, uint32_t steps)
{
    struct recovery_part *grown = realloc(job->part, ((size_t)job->parts + 1) * sizeof *grown);

    if (grown == NULL)
        return DJ_E_NO_MEMORY;
    job->part = grown;
    uint8_t *bytes = malloc(writer->length + 1);
    if (bytes == NULL)
        return DJ_E_NO_MEMORY;
    memcpy(bytes, writer->data, writer->length);
    job->part[job->parts++] = (struct recovery_part){.bytes = bytes, .length = (uint32_t)writer->length, .steps = steps};
    return DJ_OK;
}

static enum dj_error encode(struct head_recovery *job, struct recovery *recovery)
{
    struct writer writer = writer_make(RECORD_BYTES_MAX + PART_BYTES);
    enum dj_error error = DJ_OK;

    for (uint32_t from = 0, steps = 0; from < job->sum.steps && error == DJ_OK; writer_reset(&writer)) {
        error = recovery_encode(recovery, &from, PART_BYTES, &writer, &steps);
        if (error == DJ_OK)
            error = writer.error == DJ_OK ? add_part(job, &writer, steps) : writer.error;
    }
    writer_free(&writer);
    return error;
}

enum dj_error recovery_add_view(struct recovery *recovery, const struct lineage_view *view)
{
    enum dj_error error = DJ_OK;

    for (uint32_t i = 0; i < view->values && error == DJ_OK; i++)
        for (uint32_t k = 0; k < view->value[i].locations && error == DJ_OK; k++)
            error = recovery_add_location(recovery, view->value[i].ref, view->value[i].location[k]);
    return error;
}

static void *plan(void *input)
{
    struct head_recovery *job = input;
    struct recovery *recovery = NULL;
    struct recovery_options options = {.target = job->target, .numerics = job->numerics, .allows_close = job->allows_close};

    job->error = recovery_make(job->session, &recovery);
    if (job->error == DJ_OK)
        job->error = gather_feed(job->gather, recovery);
    if (job->error == DJ_OK)
        job->error = recovery_add_view(recovery, job->view);
    for (uint32_t i = 0; i < job->needs && job->error == DJ_OK; i++)
        job->error = recovery_need(recovery, job->need[i]);
    if (job->error == DJ_OK)
        job->error = recovery_plan(recovery, &options, gather_has_leaf, job->gather, &job->sum, &job->fault);
    if (job->error == DJ_OK)
        job->error = encode(job, recovery);
    recovery_free(recovery);
    return job;
}

// Answering -----------------------------------------------------------------------------------------------------------------------

static void note(struct head *head, const struct head_recovery *job)
{
    uint64_t now_ns = actor_now_ns(head->self);
    struct recent_recovery *recent = &head->recent[head->recents++ % RECENT_RECOVERIES];

    *recent = (struct recent_recovery){.session = job->session,
                                       .at_ns = now_ns,
                                       .took_ns = now_ns - job->started_ns,
                                       .cost_ns = job->sum.cost_ns,
                                       .replays = job->sum.replays,
                                       .restores = job->sum.restores,
                                       .fetches = job->sum.fetches,
                                       .steps = job->sum.steps,
                                       .error = (uint32_t)job->error};
    memcpy(recent->lost, job->lost_name, sizeof recent->lost);
    memcpy(recent->target, job->target_name, sizeof recent->target);
    if (job->error != DJ_OK) {
        head->stats.recoveries_failed++;
        return;
    }
    head->stats.recoveries++;
    head->stats.replayed += job->sum.replays;
    head->stats.replay_cost_ns += job->sum.cost_ns;
}

static void answer(struct head *head, const struct head_recovery *job)
{
    note(head, job);
    if (job->error != DJ_OK) {
        log_write(LOG_WARN, "head", "a recovery failed session=%llx: %s", (unsigned long long)job->session,
                  job->fault.text[0] != '\0' ? job->fault.text : dj_error_text(job->error));
        head_reply_failed(head, job->link, job->request, job->error, "%s",
                          job->fault.text[0] != '\0' ? job->fault.text : dj_error_text(job->error));
        return;
    }
    log_write(LOG_INFO, "head", "a recovery is planned session=%llx lost=%s target=%s needed=%u steps=%u replays=%u cost_ms=%llu",
              (unsigned long long)job->session, job->lost_name, job->target_name, job->needs, job->sum.steps, job->sum.replays,
              (unsigned long long)(job->sum.cost_ns / 1000000));
    for (uint32_t i = 0; i < job->parts || i == 0; i++) {
        struct wire_recovery part = {
            .request = job->request, .is_last = i + 1 >= job->parts, .cost_ns = job->sum.cost_ns, .executions = job->sum.replays};
        if (i < job->parts) {
            part.steps = job->part[i].steps;
            part.encoded = job->part[i].bytes;
            part.encoded_bytes = job->part[i].length;
        }
        head_send(head, job->link, WIRE_RECOVERY, wire_recovery_encode(&part));
    }
}

void recovery_planned(struct head *head, struct head_recovery *job)
{
    job->is_computing = false;
    if (job->is_dropped) {
        recovery_end(job);
        recoveries_check(head);
        return;
    }
    if (job->error == DJ_E_LINEAGE && job->is_early) {    // who asked asks again
        job->error = DJ_E_BUSY;
        fault_set(&job->fault, DJ_E_BUSY, "records of the session wait for what they build on");
    }
    answer(head, job);
    forget(head, job);
    recoveries_check(head);
}

static void fail(struct head *head, struct head_recovery *job, enum dj_error error, const char *text)
{
    job->error = error;
    fault_set(&job->fault, error, "%s", text);
    answer(head, job);
    forget(head, job);
}

// Beginning -----------------------------------------------------------------------------------------------------------------------

static void gathered(struct head *head, struct gather *gather, void *context, enum dj_error error, const struct fault *fault)
{
    struct head_recovery *job = context;
    struct head_session *session = map_get(head->sessions, map_key(job->session));

    (void)gather;
    if (error == DJ_OK && (session == NULL || (job->view = lineage_view(head, session)) == NULL))
        error = session == NULL ? DJ_E_SESSION_UNKNOWN : DJ_E_NO_MEMORY;
    if (error != DJ_OK) {
        fail(head, job, error, fault->text[0] != '\0' ? fault->text : dj_error_text(error));
        return;
    }
    struct head_ticket *ticket = head_ticket(head, actor_compute(head->self, plan, job), TICKET_RECOVERY);
    job->is_computing = true;
    if (ticket != NULL)
        ticket->job = job;
}

static void begin(struct head *head, struct head_recovery *job)
{
    const struct head_session *session = map_get(head->sessions, map_key(job->session));

    job->is_active = true;
    job->is_early = session != NULL && session->held > 0;
    head->recoveries_active++;
    if (!gather_begin(head, job->session, gathered, job, &job->gather))
        fail(head, job, DJ_E_NO_MEMORY, "the head has no memory to plan a recovery");
}

void recoveries_check(struct head *head)
{
    while (head->is_settled && head->recoveries_active < HEAD_RECOVERIES_MAX) {
        struct head_recovery *next = NULL;
        list_each (node, &head->recoveries) {
            struct head_recovery *job = list_entry(node, struct head_recovery, list);
            if (next == NULL && !job->is_active)
                next = job;
        }
        if (next == NULL)
            return;
        begin(head, next);
    }
}

// Asked ---------------------------------------------------------------------------------------------------------------------------

static enum dj_error read_refs(const uint8_t *bytes, uint32_t length, struct record_ref **ret, uint32_t *ret_count)
{
    struct reader reader = reader_make(bytes, length);
    struct record_ref *list = malloc(((size_t)length / 2 + 1) * sizeof *list);
    uint64_t counter = 0;
    uint32_t count = 0;

    if (list == NULL)
        return DJ_E_NO_MEMORY;
    while (reader.error == DJ_OK && reader_left(&reader) > 0) {
        uint64_t gap = read_var(&reader);
        uint32_t output = (uint32_t)read_var_max(&reader, UINT32_MAX);
        if (gap > UINT64_MAX - counter || (gap == 0 && count > 0 && output <= list[count - 1].output))
            reader_fail(&reader, DJ_E_MALFORMED);
        counter += gap;
        if (reader.error == DJ_OK)
            list[count++] = (struct record_ref){.counter = counter, .output = output};
    }
    if (reader.error != DJ_OK) {
        free(list);
        return reader.error;
    }
    *ret = list;
    *ret_count = count;
    return DJ_OK;
}

// A client has one RECOVER out for each of its places; more than it can have places means that it forgot the oldest.
static void drop_oldest(struct head *head, uint64_t link, uint64_t request)
{
    struct head_recovery *oldest = NULL;
    uint32_t count = 0;

    list_each (node, &head->recoveries) {
        struct head_recovery *job = list_entry(node, struct head_recovery, list);
        if (job->link != link)
            continue;
        if (oldest == NULL || job->request == request)
            oldest = job;
        count = job->request == request ? RECOVERIES_A_LINK_MAX : count + 1;
    }
    if (count >= RECOVERIES_A_LINK_MAX)
        forget(head, oldest);
}

static struct head_recovery *job_of(struct head *head, const struct head_link *link, const struct wire_recover *recover,
                                    const struct head_worker *target)
{
    struct head_recovery *job = calloc(1, sizeof *job);

    if (job == NULL)
        return NULL;
    *job = (struct head_recovery){.session = link->session->id,
                                  .link = link->link,
                                  .request = recover->request,
                                  .target = target->incarnation,
                                  .lost = recover->lost,
                                  .replayed = recover->replayed,
                                  .numerics = worker_numerics(target, 0),
                                  .allows_close = link->session->allows_close,
                                  .started_ns = actor_now_ns(head->self)};
    snprintf(job->target_name, sizeof job->target_name, "%s", target->name);
    worker_name(head, recover->lost, job->lost_name);
    return job;
}

static enum dj_error take(struct head *head, struct head_link *link, const struct wire_recover *recover,
                          struct head_recovery *job)
{
    struct record_ref *absent = NULL;
    uint32_t absents = 0;

    enum dj_error error = read_refs(recover->absent, recover->absent_bytes, &absent, &absents);
    if (error == DJ_OK)
        error = read_refs(recover->needed, recover->needed_bytes, &job->need, &job->needs);
    for (uint32_t i = 0; i < absents && error == DJ_OK; i++)
        lineage_absent(link->session, absent[i]);
    free(absent);
    if (error == DJ_OK)
        lineage_needed(head, link->session, job->need, job->needs, job->target, job->lost);
    return error;
}

enum dj_error recovery_asked(struct head *head, struct head_link *link, const struct wire_recover *recover)
{
    struct head_worker *target = worker_living(head, recover->incarnation);

    if (link->session == NULL || link->session->id != recover->session || link->session->epoch != recover->epoch) {
        head_reply_failed(head, link->link, recover->request, DJ_E_SESSION_UNKNOWN, "this connection has no session %llu",
                          (unsigned long long)recover->session);
        return DJ_OK;
    }
    if (target == NULL) {
        head_reply_failed(head, link->link, recover->request, DJ_E_WORKER_LOST, "the worker to recover on is gone too");
        return DJ_OK;
    }
    drop_oldest(head, link->link, recover->request);
    struct head_recovery *job = job_of(head, link, recover, target);
    enum dj_error error = job == NULL ? DJ_E_NO_MEMORY : take(head, link, recover, job);
    if (error != DJ_OK) {
        if (job != NULL)
            free(job->need);
        free(job);
        if (error == DJ_E_MALFORMED || error == DJ_E_FRAME_TRUNCATED)
            return error;
        head_reply_failed(head, link->link, recover->request, error, "the head has no memory to plan a recovery");
        return DJ_OK;
    }
    list_push(&head->recoveries, &job->list);
    link->session->recoveries++;
    recoveries_check(head);
    return DJ_OK;
}

void recoveries_link_down(struct head *head, uint64_t link)
{
    list_each (node, &head->recoveries) {
        struct head_recovery *job = list_entry(node, struct head_recovery, list);
        if (job->link == link)
            forget(head, job);
    }
}

void recoveries_worker_gone(struct head *head, const struct head_worker *worker)
{
    list_each (node, &head->recoveries) {
        struct head_recovery *job = list_entry(node, struct head_recovery, list);
        if (job->target == worker->incarnation && !job->is_dropped) {
            head_reply_failed(head, job->link, job->request, DJ_E_WORKER_LOST, "worker %s died before the recovery was planned",
                              worker->name);
            forget(head, job);
        }
    }
}

void recoveries_session_over(struct head *head, uint64_t session)
{
    list_each (node, &head->recoveries) {
        struct head_recovery *job = list_entry(node, struct head_recovery, list);
        if (job->session == session && !job->is_dropped) {
            head_reply_failed(head, job->link, job->request, DJ_E_SESSION_UNKNOWN, "the session is over");
            forget(head, job);
        }
    }
}

void recoveries_end(struct head *head)
{
    if (head->recoveries.next == NULL)
        return;
    list_each (node, &head->recoveries)
        recovery_end(list_entry(node, struct head_recovery, list));
}
