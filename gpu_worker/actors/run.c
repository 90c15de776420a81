// Run: a stream's work goes to the device in the order of the stream, at most WORKER_IN_FLIGHT_MAX executions of one session at a time,
// so that sessions take turns in the device's queue; and what comes back becomes answers.

#include "gpu_worker/actors/state.h"

#include "core/base/bits.h"
#include "core/base/knobs.h"

#include <stdio.h>

enum { ASKS_MAX = 4 };

enum step { STEP_DONE, STEP_WAIT };    // the work has left the stream, or stays at its head

static void leave_stream(struct work *work)
{
    struct stream *stream = work->stream;
    list_remove(&work->queue);
    stream->waiting--;
    bool has_position = work->kind == WORK_EXECUTE || work->kind == WORK_IMPORT;
    if (has_position && position_compare(work->position, stream->passed) > 0)
        stream->passed = work->position;
}

static void release_all(struct worker *worker, const struct work *work)
{
    for (uint32_t i = 0; i < work->releases; i++)
        exec_release(worker->exec, work->released[i]);
}

static struct exec_id id_of(const struct work *work)
{
    return (struct exec_id){.session = work->stream->session->id, .counter = work->position.counter};
}

static struct exec_request request_of(const struct work *work)
{
    static const uint8_t first[] = {1};
    if (work->kind == WORK_IMPORT)
        return (struct exec_request){.id = id_of(work), .kept = first, .kept_bytes = 1, .name = &work->output, .names = 1};
    return (struct exec_request){.id = id_of(work),
                                 .plan = work->plan,
                                 .word = work->word,
                                 .kept = work->kept,
                                 .kept_bytes = work->kept_bytes,
                                 .donated = work->donated,
                                 .donated_bytes = work->donated_bytes,
                                 .answer = work->answer,
                                 .answers = work->answers,
                                 .name = work->name,
                                 .names = work->names};
}

static void send_failure(struct worker *worker, struct work *work, int64_t node, const struct fault *fault)
{
    struct wire_execution_failed failed = {.counter = work->position.counter,
                                           .part = work->position.part,
                                           .incarnation = worker->incarnation,
                                           .error = (uint32_t)fault->code,
                                           .node = node};
    snprintf(failed.text, sizeof failed.text, "%s", fault->text[0] != '\0' ? fault->text : dj_error_text(fault->code));
    worker_stream_keep(worker, work->stream, work->kept_answer, WIRE_EXECUTION_FAILED, wire_execution_failed_encode(&failed),
                       NULL, 0);
}

static void send_done(struct worker *worker, struct work *work)
{
    struct wire_answer answer = {.counter = work->position.counter,
                                 .part = work->position.part,
                                 .incarnation = worker->incarnation,
                                 .generation = worker->generation};
    worker_stream_keep(worker, work->stream, work->kept_answer, WIRE_ANSWER, wire_answer_encode(&answer), NULL, 0);
}

// An execution or import that cannot be: its outputs are failed values, its client is told, the stream goes on.
static enum step give_up(struct worker *worker, struct work *work, int64_t node, const struct fault *fault)
{
    struct exec_request request = request_of(work);
    exec_fail(worker->exec, &request, node, fault);
    leave_stream(work);
    send_failure(worker, work, node, fault);
    release_all(worker, work);
    worker_journal_lost(worker, work, false);
    worker_work_free(work);
    return STEP_DONE;
}

static enum step put_on_device(struct worker *worker, struct work *work, struct exec_run *run)
{
    struct stream *stream = work->stream;
    struct flight flight = {.kind = OWNER_WORK, .work = work};
    work->run = run;
    stream->in_flight++;
    stream->session->in_flight++;
    stream->session->executing += work->kind == WORK_EXECUTE;
    if (work->kind == WORK_EXECUTE)
        worker_protect_prepared(worker, work);
    if (work->kind != WORK_CHECKPOINT)
        release_all(worker, work);
    leave_stream(work);
    list_push(&stream->running, &work->queue);
    if (worker_submit(worker, run, &flight))
        return STEP_DONE;
    run->list.error = fault_set(&run->list.fault, DJ_E_NO_MEMORY, "%s", dj_error_text(DJ_E_NO_MEMORY));
    exec_complete(worker->exec, run);
    worker_run_done(worker, work, run);
    return STEP_DONE;
}

// Something on the device gives memory back when it is done, a worker when it has copied a value, or a checkpoint gives up.
static bool may_get_memory(struct worker *worker, enum dj_error error)
{
    if (error != DJ_E_DEVICE_MEMORY && error != DJ_E_BUSY)
        return false;
    return exec_stats(worker->exec).in_flight > 0 || worker->lent_count > 0;
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
        worker_leaf_want(worker, content, 0, work->stream->link, work->is_replay);
    return false;
}

// A value may come by another stream of the session; the wait for it is bounded.
static bool may_wait_for(struct worker *worker, struct work *work, uint64_t counter)
{
    uint64_t now = actor_now_ns(worker->self);
    if (!worker_stream_expects(work->stream->session, work->stream, counter))
        return false;
    if (work->waiting_since_ns == 0)
        work->waiting_since_ns = now;
    return now - work->waiting_since_ns <= WORKER_FETCH_NS;
}

static bool may_wait_for_inputs(struct worker *worker, struct work *work)
{
    const struct srg_plan *srg = exec_plan_structure(work->plan);
    for (uint32_t i = 0; i < srg->inputs; i++) {
        struct handle handle = {.execution = id_of(work)};
        uint64_t distance;
        if (srg->input[i].is_leaf)
            continue;
        binding_handle(srg, work->word, i, &distance, &handle.output);
        handle.execution.counter -= distance;
        if (exec_value_state(worker->exec, handle) == VALUE_ABSENT)
            return may_wait_for(worker, work, handle.execution.counter);
    }
    return false;
}

// Visits the handles that the execution keeps, by its names.
static void each_kept(const struct work *work, void (*visit)(void *context, struct handle handle), void *context)
{
    struct handle handle = {.execution = id_of(work)};
    uint32_t nth = 0;
    for (uint32_t byte = 0; byte < work->kept_bytes; byte++) {
        for (uint32_t bits = work->kept[byte]; bits != 0; bits &= bits - 1) {
            uint32_t flat = byte * 8 + (uint32_t)__builtin_ctz(bits);
            handle.output = work->name == NULL || nth >= work->names ? flat : work->name[nth];
            nth++;
            visit(context, handle);
        }
    }
}

struct presence {
    struct worker *worker;
    uint32_t kept, here;
};

static void count_here(void *context, struct handle handle)
{
    struct presence *presence = context;
    presence->kept++;
    presence->here += exec_value_state(presence->worker->exec, handle) == VALUE_HERE;
}

// A step of a recovery whose values are all here already: only what it would have ended ends.
static bool is_there_already(struct worker *worker, const struct work *work)
{
    struct presence presence = {.worker = worker};
    if (!work->is_replay || work->answers > 0)
        return false;
    each_kept(work, count_here, &presence);
    return presence.kept > 0 && presence.here == presence.kept;
}

static void release_donated(struct worker *worker, const struct work *work)
{
    const struct srg_plan *srg = exec_plan_structure(work->plan);
    for (uint32_t i = 0; i < srg->inputs; i++) {
        struct handle handle = {.execution = id_of(work)};
        uint64_t distance;
        if (srg->input[i].is_leaf || i / 8 >= work->donated_bytes || !bit_get(work->donated, i))
            continue;
        binding_handle(srg, work->word, i, &distance, &handle.output);
        handle.execution.counter -= distance;
        exec_release(worker->exec, handle);
    }
}

// It ran in an earlier life of its place, whose answer may not have arrived: that one is given again, not made again. When what it kept is
// gone since, it runs as a step of a recovery does.
static enum step repeat(struct worker *worker, struct work *work, const struct kept_answer *earlier)
{
    struct presence presence = {.worker = worker};
    each_kept(work, count_here, &presence);
    if (presence.here < presence.kept) {
        work->is_replay = true;
        return STEP_WAIT;
    }
    release_donated(worker, work);
    release_all(worker, work);
    leave_stream(work);
    work->kept_answer->record = earlier->record;
    worker_stream_keep(worker, work->stream, work->kept_answer, earlier->message, blob_hold(earlier->body),
                       earlier->bulk == NULL ? NULL : blob_hold(earlier->bulk), earlier->bulk_bytes);
    worker_work_free(work);
    return STEP_DONE;
}

static enum step skip(struct worker *worker, struct work *work)
{
    release_donated(worker, work);
    release_all(worker, work);
    leave_stream(work);
    worker_journal_ended(worker, work);
    send_done(worker, work);
    worker_work_free(work);
    return STEP_DONE;
}

static enum step step_execute(struct worker *worker, struct work *work)
{
    struct fault fault = {0};
    struct hash128 content;
    bool is_hopeless = false;
    if (work->stream->session->executing >= WORKER_IN_FLIGHT_MAX || worker_journal_is_full(worker))
        return STEP_WAIT;
    const struct kept_answer *earlier = work->is_replay ? NULL : worker_stream_earlier(work->stream, work->kept_answer);
    if (earlier != NULL && earlier->message == 0)
        return STEP_WAIT;
    if (earlier != NULL && earlier->message == WIRE_ANSWER && repeat(worker, work, earlier) == STEP_DONE)
        return STEP_DONE;
    if (is_there_already(worker, work))
        return skip(worker, work);
    if (!has_leaves(worker, work, &is_hopeless, &content)) {
        // A client that lost its link comes back with its leaves, or its session ends.
        if (!is_hopeless || work->stream->link == 0)
            return STEP_WAIT;
        char name[HASH128_TEXT];
        hash128_text(content, name);
        fault_set(&fault, DJ_E_LEAF_UNKNOWN, "neither the client nor the store nor another worker gave the leaf %s", name);
        return give_up(worker, work, -1, &fault);
    }
    struct exec_request request = request_of(work);
    struct exec_run *run;
    int64_t node = -1;
    enum dj_error error;
    do {
        error = exec_prepare(worker->exec, &request, &run, &node, &fault);
    } while (error == DJ_E_DEVICE_MEMORY && worker_cuts_yield(worker));
    if (error == DJ_OK)
        return put_on_device(worker, work, run);
    if (may_get_memory(worker, error) || (error == DJ_E_HANDLE_UNKNOWN && may_wait_for_inputs(worker, work)))
        return STEP_WAIT;
    fault.code = error;
    return give_up(worker, work, node, &fault);
}

// The import is done, without the device or with it.
static void import_done(struct worker *worker, struct work *work, struct handle made, bool was_here)
{
    uint64_t bytes = exec_value_bytes(worker->exec, made);
    if (work->is_replay)
        worker_inventory_add(worker, made, bytes);
    else if (!was_here)
        work->kept_answer->record = worker_journal_import(worker, work, bytes);
    if (!work->stream->is_gone)
        send_done(worker, work);
}

static enum step import_at_once(struct worker *worker, struct work *work, struct handle made, bool was_here)
{
    worker_import_forget(worker, work);
    leave_stream(work);
    import_done(worker, work, made, was_here);
    worker_work_free(work);
    return STEP_DONE;
}

// The source is a value of this worker: a second name for it.
static enum step import_own(struct worker *worker, struct work *work, struct handle made)
{
    struct fault fault = {0};
    enum dj_error error = exec_alias(worker->exec, work->handle, made, &fault);
    if (error == DJ_OK)
        return import_at_once(worker, work, made, false);
    if (error == DJ_E_BUSY || (error == DJ_E_HANDLE_UNKNOWN && may_wait_for(worker, work, work->handle.execution.counter)))
        return STEP_WAIT;
    fault.code = error;
    return give_up(worker, work, -1, &fault);
}

// Its bytes were copied from another device's memory before its turn came.
static enum step import_landed(struct worker *worker, struct work *work, struct handle made, const struct import *import)
{
    struct fault fault = {0};
    fault.code = exec_adopt(worker->exec, made, &import->copy, &fault);
    if (fault.code == DJ_OK)
        return import_at_once(worker, work, made, false);
    worker_import_forget(worker, work);
    return give_up(worker, work, -1, &fault);
}

static enum step step_import(struct worker *worker, struct work *work)
{
    struct fault fault = {0};
    struct handle made = {.execution = id_of(work), .output = work->output};
    enum exec_value_state state = exec_value_state(worker->exec, made);
    if (state == VALUE_HERE)
        return import_at_once(worker, work, made, true);
    if (state == VALUE_COMING)
        return STEP_WAIT;
    if (work->location->incarnation == worker->incarnation)
        return import_own(worker, work, made);
    if (work->error != DJ_OK) {
        fault_set(&fault, work->error, "%s", work->text);
        return give_up(worker, work, -1, &fault);
    }
    const struct import *landed = worker_import_landed(worker, work);
    if (landed != NULL)
        return import_landed(worker, work, made, landed);
    if (work->value == NULL)
        return STEP_WAIT;
    struct exec_run *run;
    enum dj_error error;
    do {
        error = exec_import(worker->exec, made, &work->meta, work->value, &run, &fault);
    } while (error == DJ_E_DEVICE_MEMORY && worker_cuts_yield(worker));
    if (error == DJ_OK)
        return put_on_device(worker, work, run);
    if (may_get_memory(worker, error))
        return STEP_WAIT;
    fault.code = error;
    return give_up(worker, work, -1, &fault);
}

static enum step step_fetch(struct worker *worker, struct work *work)
{
    struct fault fault = {0};
    struct exec_run *run;
    enum dj_error error = exec_fetch(worker->exec, work->handle, &run, &fault);
    if (error == DJ_OK)
        return put_on_device(worker, work, run);
    if (may_get_memory(worker, error) ||
        (error == DJ_E_HANDLE_UNKNOWN && may_wait_for(worker, work, work->handle.execution.counter)))
        return STEP_WAIT;
    worker_fail(worker, work->link, work->request, error, "%s", fault.text);
    leave_stream(work);
    worker_work_free(work);
    return STEP_DONE;
}

// What ended is told behind what ran before it and may have used it: else the head might forget in between how it came to be.
static void tell_released(struct worker *worker, struct stream *stream)
{
    while (!list_is_empty(&stream->running)) {
        struct work *work = list_entry(stream->running.next, struct work, queue);
        if (work->kind != WORK_RELEASE)
            return;
        if (!stream->session->is_gone)
            worker_journal_release(worker, stream->session->id, work->released, work->releases);
        worker_work_free(work);
    }
}

// Left from a lost link: it waits for what it came behind, unless that never came again.
static enum step step_release(struct worker *worker, struct work *work)
{
    struct stream *stream = work->stream;
    const struct list *next = work->queue.next;
    while (next != &stream->queue && list_entry(next, struct work, queue)->kind == WORK_RELEASE)
        next = next->next;
    if (position_compare(stream->passed, work->position) < 0 && next == &stream->queue)
        return STEP_WAIT;
    release_all(worker, work);
    leave_stream(work);
    list_push(&stream->running, &work->queue);
    tell_released(worker, stream);
    return STEP_DONE;
}

static enum step step_checkpoint(struct worker *worker, struct work *work)
{
    struct fault fault = {0};
    enum dj_error error = worker_protect_ask(worker, work, &fault);
    if (error == DJ_E_BUSY)
        return STEP_WAIT;
    if (error != DJ_OK)
        worker_fail(worker, work->link, work->request, error, "%s", fault.text);
    leave_stream(work);
    worker_work_free(work);
    return STEP_DONE;
}

void worker_stream_pump(struct worker *worker, struct stream *stream)
{
    enum step step = STEP_DONE;
    while (step == STEP_DONE && !stream->is_gone && !list_is_empty(&stream->queue)) {
        struct work *work = list_entry(stream->queue.next, struct work, queue);
        switch ((enum work_kind)work->kind) {
        case WORK_EXECUTE: step = step_execute(worker, work); break;
        case WORK_IMPORT: step = step_import(worker, work); break;
        case WORK_FETCH: step = step_fetch(worker, work); break;
        case WORK_RELEASE: step = step_release(worker, work); break;
        case WORK_CHECKPOINT: step = step_checkpoint(worker, work); break;
        }
    }
}

// Done ---------------------------------------------------------------------------------------------------------------

uint32_t worker_write_sizes(const struct tensor_meta *meta, uint8_t sizes[96])
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
    struct wire_answer answer = {.counter = work->position.counter,
                                 .part = work->position.part,
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
                                         .sizes_bytes = worker_write_sizes(&from->meta, sizes + (size_t)i * 96)};
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
    worker_stream_keep(worker, work->stream, work->kept_answer, WIRE_ANSWER, body, bulk, bulk_bytes);
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
    value.sizes_bytes = worker_write_sizes(&from->meta, sizes);
    struct blob *body = wire_value_encode(&value);
    if (body != NULL)
        worker_value_send(worker, work->link, WIRE_VALUE, body, from->bytes == 0 ? NULL : blob_hold(run->blob), from->offset,
                          from->bytes);
}

static void tell_held(void *context, struct handle handle)
{
    struct worker *worker = context;
    worker_inventory_add(worker, handle, exec_value_bytes(worker->exec, handle));
}

// The head hears of an execution through its record, of a step of a recovery through what is here now and what is not any more.
static void journal(struct worker *worker, struct work *work, const struct exec_run *run)
{
    if (work->is_replay) {
        each_kept(work, tell_held, worker);
        worker_journal_ended(worker, work);
    } else {
        work->kept_answer->record = knob(KNOB_JOURNAL_OFF) != 0 ? 0 : worker_journal_execution(worker, work, run);
    }
}

static void finish(struct worker *worker, struct work *work, struct exec_run *run)
{
    if (work->kind == WORK_FETCH) {
        answer_fetch(worker, work, run);
        return;
    }
    struct stream *stream = work->stream;
    worker->load.executions++;
    worker->load.busy_ns += run->list.elapsed_ns;
    if (stream->session->is_gone)
        return;
    if (run->error != DJ_OK) {
        worker_journal_lost(worker, work, true);
        if (!stream->is_gone)
            send_failure(worker, work, run->node, &run->fault);
        return;
    }
    if (work->kind == WORK_IMPORT) {
        import_done(worker, work, (struct handle){.execution = id_of(work), .output = work->output}, false);
        return;
    }
    journal(worker, work, run);
    if (!stream->is_gone)
        answer_execution(worker, work, run);
}

void worker_run_done(struct worker *worker, struct work *work, struct exec_run *run)
{
    struct stream *stream = work->stream;
    finish(worker, work, run);
    list_remove(&work->queue);
    if (stream != NULL)
        tell_released(worker, stream);
    if (work->kind == WORK_EXECUTE)
        worker_protect_done(worker, work, run);
    exec_run_free(worker->exec, run);
    if (stream != NULL) {
        struct session *session = stream->session;
        stream->in_flight--;
        session->in_flight--;
        session->executing -= work->kind == WORK_EXECUTE;
        worker_work_free(work);
        worker_stream_free_if_done(worker, stream);
        worker_session_admit_settled(worker, session);
        worker_session_free_if_done(worker, session);
    } else {
        worker_work_free(work);
    }
    worker_pump(worker);
    if (!list_is_empty(&worker->peer_fetches))
        worker_peer_fetches_pump(worker);
}
