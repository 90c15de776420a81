// Run: a session's work goes to the device in the order of its stream, at most WORKER_IN_FLIGHT_MAX executions of one session at a time,
// so that sessions take turns in the device's queue; and what comes back becomes answers.

#include "gpu_worker/actors/state.h"

#include <stdio.h>

enum { ASKS_MAX = 4 };

enum step { STEP_DONE, STEP_WAIT };    // the work has left the stream, or stays at its head

static void leave_stream(struct session *session, struct work *work)
{
    list_remove(&work->stream);
    session->waiting--;
    if (work->counter > session->passed_counter)
        session->passed_counter = work->counter;
}

static void release_all(struct worker *worker, const struct work *work)
{
    for (uint32_t i = 0; i < work->releases; i++)
        exec_release(worker->exec, work->released[i]);
}

static struct exec_request request_of(const struct work *work)
{
    static const uint8_t first[] = {1};
    struct exec_id id = {.session = work->session->id, .counter = work->counter};
    if (work->kind == WORK_IMPORT)    // counts as its execution's output 0
        return (struct exec_request){.id = id, .kept = first, .kept_bytes = 1};
    return (struct exec_request){.id = id,
                                 .plan = work->plan,
                                 .word = work->word,
                                 .kept = work->kept,
                                 .kept_bytes = work->kept_bytes,
                                 .donated = work->donated,
                                 .donated_bytes = work->donated_bytes,
                                 .answer = work->answer,
                                 .answers = work->answers};
}

static void send_failure(struct worker *worker, struct work *work, int64_t node, const struct fault *fault)
{
    struct wire_execution_failed failed = {
        .counter = work->counter, .incarnation = worker->incarnation, .error = (uint32_t)fault->code, .node = node};
    snprintf(failed.text, sizeof failed.text, "%s", fault->text[0] != '\0' ? fault->text : dj_error_text(fault->code));
    worker_session_keep(worker, work->session, work->kept_answer, WIRE_EXECUTION_FAILED, wire_execution_failed_encode(&failed),
                        NULL, 0);
}

// An execution or import that cannot be: its outputs are failed values, its client is told, the stream goes on.
static enum step give_up(struct worker *worker, struct work *work, int64_t node, const struct fault *fault)
{
    struct exec_request request = request_of(work);
    exec_fail(worker->exec, &request, node, fault);
    send_failure(worker, work, node, fault);
    release_all(worker, work);
    leave_stream(work->session, work);
    worker_work_free(work);
    return STEP_DONE;
}

static enum step put_on_device(struct worker *worker, struct work *work, struct exec_run *run)
{
    struct session *session = work->session;
    struct flight flight = {.kind = OWNER_WORK, .work = work};
    work->run = run;
    session->in_flight++;
    session->executing += work->kind == WORK_EXECUTE;
    release_all(worker, work);
    leave_stream(session, work);
    if (worker_submit(worker, run, &flight))
        return STEP_DONE;
    run->list.error = fault_set(&run->list.fault, DJ_E_NO_MEMORY, "%s", dj_error_text(DJ_E_NO_MEMORY));
    exec_complete(worker->exec, run);
    worker_run_done(worker, work, run);
    return STEP_DONE;
}

// True when every leaf is here; asks for those that are not. *ret_hopeless: one cannot be got.
static bool has_leaves(struct worker *worker, struct work *work, bool *ret_hopeless, struct hash128 *ret_content)
{
    uint32_t input = 0;
    if (!exec_missing_leaf(worker->exec, work->plan, work->word, &input, ret_content))
        return true;
    enum leaf_hope hope = worker_leaf_hope(worker, *ret_content);
    // A leaf that came may have been dropped again before the others were here: it is asked for anew, a few times.
    *ret_hopeless = work->asked > 0 && (hope == HOPE_NONE || (hope == HOPE_UNASKED && work->asked >= ASKS_MAX));
    if (work->asked > 0 && hope != HOPE_UNASKED)
        return false;
    work->asked++;
    struct hash128 content;
    for (input = 0; exec_missing_leaf(worker->exec, work->plan, work->word, &input, &content); input++)
        worker_leaf_want(worker, content, 0, work->session->link);
    return false;
}

static enum step step_execute(struct worker *worker, struct work *work)
{
    struct fault fault = {0};
    struct hash128 content;
    bool is_hopeless = false;
    if (work->session->executing >= WORKER_IN_FLIGHT_MAX || worker_journal_is_full(worker))
        return STEP_WAIT;
    if (!has_leaves(worker, work, &is_hopeless, &content)) {
        // A client that lost its link comes back with its leaves, or its session ends.
        if (!is_hopeless || work->session->link == 0)
            return STEP_WAIT;
        char name[HASH128_TEXT];
        hash128_text(content, name);
        fault_set(&fault, DJ_E_LEAF_UNKNOWN, "neither the client nor the store nor another worker gave the leaf %s", name);
        return give_up(worker, work, -1, &fault);
    }
    struct exec_request request = request_of(work);
    struct exec_run *run;
    int64_t node = -1;
    enum dj_error error = exec_prepare(worker->exec, &request, &run, &node, &fault);
    if (error == DJ_OK)
        return put_on_device(worker, work, run);
    // What is on the device gives memory back when it is done.
    if ((error == DJ_E_DEVICE_MEMORY || error == DJ_E_BUSY) && exec_stats(worker->exec).in_flight > 0)
        return STEP_WAIT;
    fault.code = error;
    return give_up(worker, work, node, &fault);
}

static enum step step_import(struct worker *worker, struct work *work)
{
    struct fault fault = {0};
    if (work->error != DJ_OK) {
        fault_set(&fault, work->error, "%s", work->text);
        return give_up(worker, work, -1, &fault);
    }
    if (work->value == NULL)
        return STEP_WAIT;
    struct handle handle = {.execution = {.session = work->session->id, .counter = work->counter}};
    struct exec_run *run;
    enum dj_error error = exec_import(worker->exec, handle, &work->meta, work->value, &run, &fault);
    if (error == DJ_OK)
        return put_on_device(worker, work, run);
    if (error == DJ_E_DEVICE_MEMORY && exec_stats(worker->exec).in_flight > 0)
        return STEP_WAIT;
    return give_up(worker, work, -1, &fault);
}

static enum step step_fetch(struct worker *worker, struct work *work)
{
    struct fault fault = {0};
    struct exec_run *run;
    enum dj_error error = exec_fetch(worker->exec, work->handle, &run, &fault);
    if (error == DJ_OK)
        return put_on_device(worker, work, run);
    if ((error == DJ_E_DEVICE_MEMORY || error == DJ_E_BUSY) && exec_stats(worker->exec).in_flight > 0)
        return STEP_WAIT;
    worker_fail(worker, work->link, work->request, error, "%s", fault.text);
    leave_stream(work->session, work);
    worker_work_free(work);
    return STEP_DONE;
}

void worker_session_pump(struct worker *worker, struct session *session)
{
    enum step step = STEP_DONE;
    while (step == STEP_DONE && !session->is_gone && !list_is_empty(&session->stream)) {
        struct work *work = list_entry(session->stream.next, struct work, stream);
        switch ((enum work_kind)work->kind) {
        case WORK_EXECUTE: step = step_execute(worker, work); break;
        case WORK_IMPORT: step = step_import(worker, work); break;
        case WORK_FETCH: step = step_fetch(worker, work); break;
        case WORK_RELEASE:
            release_all(worker, work);
            leave_stream(session, work);
            worker_work_free(work);
            break;
        }
    }
}

// Done ---------------------------------------------------------------------------------------------------------------

static uint32_t write_sizes(const struct tensor_meta *meta, uint8_t sizes[96])
{
    uint32_t at = 0;
    for (uint32_t d = 0; d < meta->rank; d++) {
        uint64_t value = (uint64_t)meta->size[d];
        for (; value >= 0x80; value >>= 7)
            sizes[at++] = (uint8_t)(value | 0x80);
        sizes[at++] = (uint8_t)value;
    }
    return at;
}

static void answer_execution(struct worker *worker, struct work *work, struct exec_run *run)
{
    struct wire_answer answer = {.counter = work->counter,
                                 .incarnation = worker->incarnation,
                                 .generation = worker->generation,
                                 .execute_ns = run->list.elapsed_ns};
    struct wire_output *output = arena_zero(worker->arena, (run->answers + 1) * sizeof *output);
    uint8_t *sizes = arena_alloc(worker->arena, (size_t)run->answers * 96 + 1);
    uint64_t bulk_bytes = 0;
    for (uint32_t i = 0; output != NULL && sizes != NULL && i < run->answers; i++) {
        const struct exec_answer *from = &run->answer[i];
        output[i] = (struct wire_output){.output = from->output,
                                         .dtype = (uint8_t)from->meta.dtype,
                                         .bytes = from->bytes,
                                         .sizes = sizes + (size_t)i * 96,
                                         .sizes_bytes = write_sizes(&from->meta, sizes + (size_t)i * 96)};
        if (from->bytes <= EXEC_INLINE_BYTES) {
            output[i].data = run->blob->data + from->offset;
            output[i].data_bytes = (uint32_t)from->bytes;
        } else {
            bulk_bytes += from->bytes;
        }
    }
    answer.outputs = output;
    answer.outputs_count = run->answers;
    struct blob *body = output == NULL || sizes == NULL ? NULL : wire_answer_encode(&answer);
    struct blob *bulk = bulk_bytes == 0 || body == NULL ? NULL : blob_hold(run->blob);
    worker_session_keep(worker, work->session, work->kept_answer, WIRE_ANSWER, body, bulk, bulk_bytes);
}

static void answer_fetch(struct worker *worker, const struct work *work, const struct exec_run *run)
{
    if (run->error != DJ_OK) {
        worker_fail(worker, work->link, work->request, run->error, "%s", run->fault.text);
        return;
    }
    const struct exec_answer *from = &run->answer[0];
    uint8_t sizes[96];
    struct wire_value value = {
        .request = work->request, .dtype = (uint8_t)from->meta.dtype, .bytes = from->bytes, .sizes = sizes};
    value.sizes_bytes = write_sizes(&from->meta, sizes);
    struct blob *body = wire_value_encode(&value);
    if (body == NULL)
        return;
    actor_send(worker->self, work->link, WIRE_VALUE, body, from->bytes == 0 ? NULL : blob_hold(run->blob), from->offset,
               from->bytes, 0);
    worker->load.bytes_out += body->bytes + from->bytes;
}

static void finish(struct worker *worker, struct work *work, struct exec_run *run)
{
    if (work->kind == WORK_FETCH) {
        answer_fetch(worker, work, run);
        return;
    }
    worker->load.executions++;
    worker->load.busy_ns += run->list.elapsed_ns;
    if (work->session->is_gone)
        return;
    if (run->error != DJ_OK) {
        send_failure(worker, work, run->node, &run->fault);
        return;
    }
    answer_execution(worker, work, run);
    if (work->kind == WORK_EXECUTE)
        worker_journal_execution(worker, work, run);
}

void worker_run_done(struct worker *worker, struct work *work, struct exec_run *run)
{
    struct session *session = work->session;
    finish(worker, work, run);
    exec_run_free(worker->exec, run);
    if (session != NULL) {
        session->in_flight--;
        session->executing -= work->kind == WORK_EXECUTE;
    }
    worker_work_free(work);
    if (session != NULL)
        worker_session_free_if_done(worker, session);
    worker_pump(worker);
    if (!list_is_empty(&worker->peer_fetches))
        worker_peer_fetches_pump(worker);
}

// Fetches of other workers -------------------------------------------------------------------------------------------

// They come on links of their own, so they wait until the session's stream here has passed the execution that they name.
void worker_peer_fetches_pump(struct worker *worker)
{
    list_each (node, &worker->peer_fetches) {
        struct work *work = list_entry(node, struct work, stream);
        struct session *session = map_get(worker->sessions, map_key(work->handle.execution.session));
        struct fault fault = {.code = DJ_E_HANDLE_UNKNOWN, .text = "the stream did not reach this value's execution in time"};
        bool is_late = actor_now_ns(worker->self) - work->waiting_since_ns > WORKER_FETCH_NS;
        bool is_reached = session == NULL || session->passed_counter >= work->handle.execution.counter;
        if (!is_late && !is_reached)
            continue;
        struct exec_run *run;
        enum dj_error error = is_reached ? exec_fetch(worker->exec, work->handle, &run, &fault) : DJ_E_HANDLE_UNKNOWN;
        list_remove(&work->stream);
        struct flight flight = {.kind = OWNER_WORK, .work = work};
        if (error == DJ_OK && worker_submit(worker, run, &flight))
            continue;
        if (error == DJ_OK) {
            run->list.error = fault_set(&fault, DJ_E_NO_MEMORY, "%s", dj_error_text(DJ_E_NO_MEMORY));
            exec_complete(worker->exec, run);
            exec_run_free(worker->exec, run);
        }
        worker_fail(worker, work->link, work->request, fault.code, "%s", fault.text);
        worker_work_free(work);
    }
}

void worker_peer_fetches_link_down(struct worker *worker, uint64_t link)
{
    list_each (node, &worker->peer_fetches) {
        struct work *work = list_entry(node, struct work, stream);
        if (work->link == link)
            worker_work_free(work);
    }
}
