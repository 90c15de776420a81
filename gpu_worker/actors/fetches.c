// Fetches: values that other workers ask for. They come on links of their own, so one that is early waits until a stream here has made
// the value, or cannot make it any more; every wait is bounded.

#include "gpu_worker/actors/state.h"

#define PASSED_NS (WORKER_FETCH_NS / 10)    // how long a peer waits for a value that one of several streams may still make

bool worker_stream_expects(const struct session *session, const struct stream *except, uint64_t counter)
{
    for (const struct list *node = session->streams.next; node != &session->streams; node = node->next) {
        const struct stream *stream = list_entry(node, struct stream, list);
        if (stream == except || position_compare(stream->passed, stream->last) >= 0)
            continue;
        for (const struct list *at = stream->queue.next; at != &stream->queue; at = at->next) {
            const struct work *work = list_entry(at, struct work, queue);
            if (work->kind <= WORK_IMPORT && work->position.counter == counter)
                return true;
        }
    }
    return false;
}

// Whether every stream here has passed the execution, or some: a value that is not here then may never come.
static void who_passed(const struct session *session, uint64_t counter, bool *ret_every, bool *ret_some)
{
    *ret_every = true;
    *ret_some = false;
    for (const struct list *node = session->streams.next; node != &session->streams; node = node->next) {
        bool has_passed = list_entry(node, struct stream, list)->passed.counter >= counter;
        *ret_every = *ret_every && has_passed;
        *ret_some = *ret_some || has_passed;
    }
}

// They come on links of their own, so one that is early waits for the stream that makes the value.
static bool is_reached(const struct worker *worker, const struct work *work)
{
    const struct session *session = map_get(worker->sessions, map_key(work->handle.execution.session));
    bool every, some;
    if (session == NULL || exec_value_state(worker->exec, work->handle) != VALUE_ABSENT)
        return true;
    if (worker_stream_expects(session, NULL, work->handle.execution.counter))
        return false;
    who_passed(session, work->handle.execution.counter, &every, &some);
    return session->stream_count > 0 && (every || (some && actor_now_ns(worker->self) - work->waiting_since_ns > PASSED_NS));
}

void worker_peer_fetches_pump(struct worker *worker)
{
    list_each (node, &worker->peer_fetches) {
        struct work *work = list_entry(node, struct work, queue);
        struct fault fault = {.code = DJ_E_HANDLE_UNKNOWN, .text = "the stream did not reach this value's execution in time"};
        bool is_late = actor_now_ns(worker->self) - work->waiting_since_ns > WORKER_FETCH_NS;
        bool may_go = is_reached(worker, work);
        if (!is_late && !may_go)
            continue;
        if (work->takes_place && !is_late && exec_value_state(worker->exec, work->handle) == VALUE_COMING)
            continue;    // a place is told when its bytes are there
        if (work->takes_place && worker_lend(worker, work)) {
            worker_work_free(work);
            continue;
        }
        struct exec_run *run;
        enum dj_error error = may_go ? exec_fetch(worker->exec, work->handle, &run, &fault) : DJ_E_HANDLE_UNKNOWN;
        list_remove(&work->queue);
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
        struct work *work = list_entry(node, struct work, queue);
        if (work->link == link)
            worker_work_free(work);
    }
}
