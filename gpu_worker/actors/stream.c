// Stream: a session's messages in their order become work. Everything is decoded and checked here, once; run.c then only runs.

#include "core/base/log.h"
#include "core/base/planted.h"
#include "gpu_worker/actors/state.h"

#include <stdlib.h>
#include <string.h>

void worker_work_free(struct work *work)
{
    if (work == NULL)
        return;
    list_remove(&work->stream);
    exec_plan_drop(work->plan);
    blob_drop(work->value);
    free(work);
}

void worker_link_plans_free(struct worker_link *link)
{
    for (uint32_t i = 0; i < link->plans_capacity; i++) {
        struct link_plan *plan = &link->plan[i];
        if (plan->plan != NULL)
            history_free(&plan->history);
        exec_plan_drop(plan->plan);
        free(plan->kept);
        free(plan->donated);
    }
    free(link->plan);
    link->plan = NULL;
    link->plans_capacity = 0;
}

static enum dj_error plan_slot(struct worker_link *link, uint32_t index, struct link_plan **ret)
{
    if (index >= WORKER_PLANS_MAX)
        return DJ_E_LIMIT;
    if (index >= link->plans_capacity) {
        uint32_t capacity = link->plans_capacity == 0 ? 16 : link->plans_capacity;
        while (capacity <= index)
            capacity *= 2;
        struct link_plan *plan = realloc(link->plan, capacity * sizeof *plan);
        if (plan == NULL)
            return DJ_E_NO_MEMORY;
        memset(plan + link->plans_capacity, 0, (capacity - link->plans_capacity) * sizeof *plan);
        link->plan = plan;
        link->plans_capacity = capacity;
    }
    *ret = &link->plan[index];
    return DJ_OK;
}

static enum dj_error learn_plan(struct worker *worker, const struct wire_plan *said, struct fault *fault)
{
    struct srg_plan *plan;
    if (said->encoded_bytes == 0)
        return fault_set(fault, DJ_E_PLAN_UNKNOWN, "%s", dj_error_text(DJ_E_PLAN_UNKNOWN));
    enum dj_error error = plan_decode(said->encoded, said->encoded_bytes, &plan, fault);
    if (error != DJ_OK)
        return error;
    if (!hash128_equal(plan->fingerprint, said->fingerprint))
        error = fault_set(fault, DJ_E_PLAN_INVALID, "the plan has another fingerprint than its message says");
    if (error == DJ_OK)
        error = exec_plan_put(worker->exec, plan);
    if (error == DJ_OK)
        worker_journal_plan(worker, said->fingerprint, said->encoded, said->encoded_bytes);
    plan_drop(plan);
    return error;
}

enum dj_error worker_stream_plan(struct worker *worker, struct worker_link *link, const struct wire_plan *said)
{
    struct link_plan *slot;
    struct fault fault = {0};
    enum dj_error error = plan_slot(link, said->index, &slot);
    if (error != DJ_OK)
        return error;
    struct exec_plan *plan = exec_plan_find(worker->exec, said->fingerprint);
    if (plan == NULL && (error = learn_plan(worker, said, &fault)) != DJ_OK) {
        log_write(LOG_WARN, "worker", "a plan is refused: %s", fault.text);
        return error;
    }
    plan = exec_plan_find(worker->exec, said->fingerprint);
    if (slot->plan != NULL)
        history_free(&slot->history);
    exec_plan_drop(slot->plan);
    free(slot->kept);
    free(slot->donated);
    exec_plan_hold(plan);
    *slot = (struct link_plan){.plan = plan};
    history_init(&slot->history, exec_plan_structure(plan)->words);
    return DJ_OK;
}

// Sets or reuses a mask: empty means as the last time.
static enum dj_error take_mask(uint8_t **mask, uint32_t *mask_bytes, const uint8_t *said, uint32_t bytes)
{
    if (bytes == 0)
        return DJ_OK;
    uint8_t *copy = malloc(bytes);
    if (copy == NULL)
        return DJ_E_NO_MEMORY;
    memcpy(copy, said, bytes);
    free(*mask);
    *mask = copy;
    *mask_bytes = bytes;
    return DJ_OK;
}

static uint32_t varints_in(const uint8_t *data, uint32_t bytes)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < bytes; i++)
        count += data[i] < 0x80;
    return count;
}

static size_t room(size_t bytes)
{
    return (bytes + 15) & ~(size_t)15;
}

// One block: the work, then its arrays.
static struct work *execute_alloc(const struct link_plan *plan, const struct wire_execute *said)
{
    uint32_t words = exec_plan_structure(plan->plan)->words, answers = varints_in(said->answers, said->answers_bytes),
             releases = varints_in(said->released, said->released_bytes) / 2;
    if (answers > EXEC_ANSWERS_MAX)
        return NULL;
    size_t bytes = room(sizeof(struct work)) + room(words * sizeof(int64_t)) + room(releases * sizeof(struct handle)) +
                   room(answers * sizeof(uint32_t)) + room(plan->kept_bytes) + room(plan->donated_bytes) +
                   room(said->delta_bytes);
    uint8_t *block = malloc(bytes);
    if (block == NULL)
        return NULL;
    struct work *work = (struct work *)(void *)block;
    *work = (struct work){.kind = WORK_EXECUTE, .counter = said->counter, .answers = answers, .releases = releases};
    list_init(&work->stream);
    block += room(sizeof *work);
    work->word = (int64_t *)(void *)block;
    block += room(words * sizeof(int64_t));
    work->released = (struct handle *)(void *)block;
    block += room(releases * sizeof(struct handle));
    work->answer = (uint32_t *)(void *)block;
    block += room(answers * sizeof(uint32_t));
    work->kept = block;
    block += room(plan->kept_bytes);
    work->donated = block;
    block += room(plan->donated_bytes);
    work->delta = block;
    return work;
}

static enum dj_error read_lists(struct work *work, const struct session *session, const struct wire_execute *said)
{
    struct reader answers = reader_make(said->answers, said->answers_bytes);
    for (uint32_t i = 0; i < work->answers; i++)
        work->answer[i] = (uint32_t)read_var_max(&answers, UINT32_MAX);
    struct reader released = reader_make(said->released, said->released_bytes);
    for (uint32_t i = 0; i < work->releases; i++) {
        uint64_t distance = read_var(&released);
        uint32_t output = (uint32_t)read_var_max(&released, UINT32_MAX);
        if (distance >= said->counter && distance != 0)
            return DJ_E_BINDINGS_INVALID;
        work->released[i] = (struct handle){
            .execution = {.session = session->id, .counter = said->counter - distance},
            .output = output};
    }
    if (reader_left(&answers) != 0 || reader_left(&released) != 0)
        return DJ_E_MALFORMED;
    return answers.error != DJ_OK ? answers.error : released.error;
}

static enum dj_error read_words(struct work *work, struct link_plan *plan, const struct wire_execute *said)
{
    if (said->reset)
        history_reset(&plan->history);
    work->base = said->reset ? 0 : plan->last_counter;
    work->before = said->reset ? 0 : plan->before_counter;
    struct reader reader = reader_make(said->delta, said->delta_bytes);
    enum dj_error error = bindings_decode(&plan->history, &reader, work->word);
    if (error == DJ_OK && reader_left(&reader) != 0)
        error = DJ_E_MALFORMED;
    if (error == DJ_OK)
        error = history_push(&plan->history, work->word);
    return error;
}

static uint64_t content_of(const struct work *work)
{
    const struct srg_plan *srg = exec_plan_structure(work->plan);
    uint64_t hash = hash64_seed(work->word, srg->words * sizeof(int64_t), srg->fingerprint.lo);
    hash = hash64_seed(work->kept, work->kept_bytes, hash);
    hash = hash64_seed(work->donated, work->donated_bytes, hash);
    return hash64_seed(work->answer, work->answers * sizeof(uint32_t), hash);
}

// Inline leaves stay in the message until the device has them.
static enum dj_error take_leaves(struct worker *worker, const struct wire_execute *said, struct blob *body)
{
    for (uint32_t i = 0; i < said->leaves_count; i++) {
        const struct wire_leaf *leaf = &said->leaves[i];
        if (leaf->data_bytes != leaf->bytes)
            continue;    // only named
        bool is_new = exec_leaf_state(worker->exec, leaf->content) == LEAF_ABSENT;
        uint64_t offset = leaf->data_bytes == 0 ? 0 : (uint64_t)(leaf->data - body->data);
        enum dj_error error = exec_leaf_put(worker->exec, leaf->content, body, offset, leaf->bytes);
        if (error != DJ_OK && error != DJ_E_BUSY)
            return error;
        if (error == DJ_OK)
            worker_leaf_is_here(worker, leaf->content, is_new);
    }
    return DJ_OK;
}

static enum dj_error enqueue(struct worker *worker, struct session *session, struct work *work)
{
    if (session->waiting >= WORKER_STREAM_MAX) {
        worker_work_free(work);
        return DJ_E_BUSY;
    }
    work->session = session;
    list_push(&session->stream, &work->stream);
    session->waiting++;
    worker_session_pump(worker, session);
    return DJ_OK;
}

// Makes the work of an EXECUTE; the link's history moves on whether it is new or not.
static enum dj_error read_execute(struct session *session, struct link_plan *plan, const struct wire_execute *said,
                                  struct work **ret)
{
    enum dj_error error = take_mask(&plan->kept, &plan->kept_bytes, said->kept, said->kept_bytes);
    if (error == DJ_OK)
        error = take_mask(&plan->donated, &plan->donated_bytes, said->donated, said->donated_bytes);
    if (error != DJ_OK)
        return error;
    struct work *work = execute_alloc(plan, said);
    if (work == NULL)
        return DJ_E_NO_MEMORY;
    error = read_words(work, plan, said);
    if (error == DJ_OK)
        error = read_lists(work, session, said);
    if (error != DJ_OK) {
        worker_work_free(work);
        return error;
    }
    work->plan = plan->plan;
    exec_plan_hold(work->plan);
    work->kept_bytes = plan->kept_bytes;
    work->donated_bytes = plan->donated_bytes;
    work->delta_bytes = said->delta_bytes;
    if (plan->kept_bytes > 0)
        memcpy(work->kept, plan->kept, plan->kept_bytes);
    if (plan->donated_bytes > 0)
        memcpy(work->donated, plan->donated, plan->donated_bytes);
    if (said->delta_bytes > 0)
        memcpy(work->delta, said->delta, said->delta_bytes);
    *ret = work;
    return DJ_OK;
}

enum dj_error worker_stream_execute(struct worker *worker, struct worker_link *link, const struct wire_execute *said,
                                    struct blob *body)
{
    struct session *session = link->session;
    if (said->plan >= link->plans_capacity || link->plan[said->plan].plan == NULL)
        return DJ_E_PLAN_UNKNOWN;
    struct link_plan *plan = &link->plan[said->plan];
    struct work *work = NULL;
    worker->load.bytes_in += body->bytes;
    worker_session_confirm(session, said->confirmed);
    enum dj_error error = read_execute(session, plan, said, &work);
    if (error != DJ_OK)
        return error;
    error = take_leaves(worker, said, body);
    if (error != DJ_OK) {
        worker_work_free(work);
        return error;
    }
    uint64_t content = content_of(work);
    plan->before_counter = said->reset ? 0 : plan->last_counter;
    plan->last_counter = said->counter;
    if (said->counter <= session->last_counter && !(PLANTED(RUN_TWICE) && session->in_flight > 0)) {
        worker_session_repeat(worker, session, said->counter, content, work->answers > 0);
        worker_work_free(work);
        return DJ_OK;
    }
    work->kept_answer = worker_session_expect(session, said->counter, content);
    if (work->kept_answer == NULL) {
        worker_work_free(work);
        return DJ_E_NO_MEMORY;
    }
    session->last_counter = said->counter;
    for (uint32_t i = 0; PLANTED(EARLY_RELEASE) && i < work->releases; i++)
        exec_release(worker->exec, work->released[i]);
    return enqueue(worker, session, work);
}

static struct handle handle_of(const struct wire_handle *said)
{
    return (struct handle){.execution = {.session = said->session, .counter = said->counter},
                           .output = said->output};
}

enum dj_error worker_stream_import(struct worker *worker, struct worker_link *link, const struct wire_import *said)
{
    struct session *session = link->session;
    if (said->handles_count != 1 || said->locations_count != 1)
        return DJ_E_MALFORMED;
    struct handle handle = handle_of(&said->handles[0]);
    uint64_t content = hash_mix(handle_key(handle).lo, handle_key(handle).hi);
    if (said->counter <= session->last_counter) {
        worker_session_repeat(worker, session, said->counter, content, false);
        return DJ_OK;
    }
    struct work *work = calloc(1, sizeof *work);
    struct kept_answer *answer = work == NULL ? NULL : worker_session_expect(session, said->counter, content);
    if (answer == NULL) {
        free(work);
        return DJ_E_NO_MEMORY;
    }
    *work = (struct work){.kind = WORK_IMPORT,
                          .counter = said->counter,
                          .handle = handle,
                          .kept_answer = answer,
                          .session = session,
                          .waiting_since_ns = actor_now_ns(worker->self)};
    list_init(&work->stream);
    session->last_counter = said->counter;
    worker_import_begin(worker, work, &said->locations[0]);
    return enqueue(worker, session, work);
}

enum dj_error worker_stream_fetch(struct worker *worker, struct worker_link *link, const struct wire_fetch *said)
{
    if (said->handles_count != 1)
        return DJ_E_MALFORMED;
    if (link->role == ROLE_CLIENT && link->session == NULL)
        return DJ_E_SESSION_UNKNOWN;
    struct work *work = calloc(1, sizeof *work);
    if (work == NULL)
        return DJ_E_NO_MEMORY;
    *work = (struct work){.kind = WORK_FETCH,
                          .request = said->request,
                          .link = link->link,
                          .handle = handle_of(&said->handles[0]),
                          .waiting_since_ns = actor_now_ns(worker->self)};
    list_init(&work->stream);
    if (link->role == ROLE_CLIENT) {
        if (work->handle.execution.session == link->session->id)
            return enqueue(worker, link->session, work);
        worker_fail(worker, link->link, said->request, DJ_E_HANDLE_UNKNOWN, "the value belongs to another session");
        worker_work_free(work);
        return DJ_OK;
    }
    list_push(&worker->peer_fetches, &work->stream);
    worker_peer_fetches_pump(worker);
    return DJ_OK;
}

enum dj_error worker_stream_release(struct worker *worker, struct worker_link *link, const struct wire_release *said)
{
    struct session *session = link->session;
    uint32_t releases = varints_in(said->handles, said->handles_bytes) / 2;
    struct work *work = malloc(room(sizeof *work) + releases * sizeof(struct handle));
    if (work == NULL)
        return DJ_E_NO_MEMORY;
    *work = (struct work){.kind = WORK_RELEASE, .releases = releases};
    list_init(&work->stream);
    work->released = (struct handle *)(void *)((uint8_t *)work + room(sizeof *work));
    struct reader reader = reader_make(said->handles, said->handles_bytes);
    for (uint32_t i = 0; i < releases; i++) {
        uint64_t counter = read_var(&reader);
        work->released[i] = (struct handle){.execution = {.session = session->id, .counter = counter},
                                            .output = (uint32_t)read_var_max(&reader, UINT32_MAX)};
    }
    if (reader.error != DJ_OK || reader_left(&reader) != 0) {
        worker_work_free(work);
        return DJ_E_MALFORMED;
    }
    return enqueue(worker, session, work);
}
