// Stream: a stream's messages in their order become work. Everything is decoded and checked here, once; run.c then only runs.

#include "core/base/log.h"
#include "core/base/planted.h"
#include "gpu_worker/actors/state.h"

#include <stdlib.h>
#include <string.h>

void worker_work_free(struct work *work)
{
    if (work == NULL)
        return;
    list_remove(&work->queue);
    exec_plan_drop(work->plan);
    worker_chain_drop(work->chain);
    blob_drop(work->value);
    free(work->location);
    free(work);
}

static void link_plan_clear(struct link_plan *plan)
{
    if (plan->plan != NULL)
        history_free(&plan->history);
    worker_chain_drop(plan->chain);
    exec_plan_drop(plan->plan);
    free(plan->kept);
    free(plan->donated);
    *plan = (struct link_plan){0};
}

void worker_link_plans_free(struct worker_link *link)
{
    for (uint32_t i = 0; i < link->plans_capacity; i++)
        link_plan_clear(&link->plan[i]);
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
    struct chain *chain = calloc(1, sizeof *chain);
    if (chain == NULL)
        return DJ_E_NO_MEMORY;
    link_plan_clear(slot);
    exec_plan_hold(plan);
    chain->refs = 1;
    *slot = (struct link_plan){.plan = plan, .chain = chain};
    history_init(&slot->history, exec_plan_structure(plan)->words);
    history_init(&chain->history, exec_plan_structure(plan)->words);
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
             releases = varints_in(said->released, said->released_bytes) / 2, names = varints_in(said->names, said->names_bytes);
    if (answers > EXEC_ANSWERS_MAX)
        return NULL;
    size_t bytes = room(sizeof(struct work)) + room(words * sizeof(int64_t)) + room(releases * sizeof(struct handle)) +
                   room(answers * sizeof(uint32_t)) + room(names * sizeof(uint32_t)) + room(plan->kept_bytes) +
                   room(plan->donated_bytes) + room(said->delta_bytes);
    uint8_t *block = malloc(bytes);
    if (block == NULL)
        return NULL;
    struct work *work = (struct work *)(void *)block;
    *work = (struct work){.kind = WORK_EXECUTE,
                          .position = {said->counter, said->part},
                          .is_replay = said->is_replay,
                          .answers = answers,
                          .names = names,
                          .releases = releases};
    list_init(&work->queue);
    block += room(sizeof *work);
    work->word = (int64_t *)(void *)block;
    block += room(words * sizeof(int64_t));
    work->released = (struct handle *)(void *)block;
    block += room(releases * sizeof(struct handle));
    work->answer = (uint32_t *)(void *)block;
    block += room(answers * sizeof(uint32_t));
    work->name = names == 0 ? NULL : (uint32_t *)(void *)block;
    block += room(names * sizeof(uint32_t));
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
    struct reader names = reader_make(said->names, said->names_bytes);
    for (uint32_t i = 0; i < work->names; i++)
        work->name[i] = (uint32_t)read_var_max(&names, RECORD_BITS_MAX - 1);
    // A record names what it kept by flat outputs only.
    if (work->names > 0 && !said->is_replay)
        return DJ_E_BINDINGS_INVALID;
    struct reader released = reader_make(said->released, said->released_bytes);
    for (uint32_t i = 0; i < work->releases; i++) {
        uint64_t distance = read_var(&released);
        uint32_t output = (uint32_t)read_var_max(&released, UINT32_MAX);
        if (distance >= said->counter && distance != 0)
            return DJ_E_BINDINGS_INVALID;
        work->released[i] = (struct handle){.execution = {.session = session->id, .counter = said->counter - distance},
                                            .output = output};
    }
    if (reader_left(&answers) != 0 || reader_left(&released) != 0 || names.error != DJ_OK || reader_left(&names) != 0)
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
    hash = hash64_seed(work->name, work->names * sizeof(uint32_t), hash);
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

// Releases that were left from a lost link stay behind what they came behind the first time.
static enum dj_error enqueue(struct worker *worker, struct stream *stream, struct work *work)
{
    if (stream->waiting >= WORKER_STREAM_MAX) {
        worker_work_free(work);
        return DJ_E_BUSY;
    }
    struct list *before = &stream->queue;
    bool has_position = work->kind == WORK_EXECUTE || work->kind == WORK_IMPORT;
    while (has_position && before->prev != &stream->queue) {
        const struct work *last = list_entry(before->prev, struct work, queue);
        if (last->kind != WORK_RELEASE || position_compare(last->position, work->position) < 0)
            break;
        before = before->prev;
    }
    work->stream = stream;
    list_push(before, &work->queue);
    stream->waiting++;
    worker_stream_pump(worker, stream);
    return DJ_OK;
}

// Makes the work of an EXECUTE; the link's history moves on whether it is new or not.
static enum dj_error read_execute(const struct session *session, struct link_plan *plan, const struct wire_execute *said,
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
    work->chain = plan->chain;
    work->chain->refs++;
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

// A recovery's leaves are asked for before its turn: they come from the store one by one.
static void want_leaves(struct worker *worker, struct work *work, uint64_t link)
{
    struct hash128 content;
    for (uint32_t input = 0; exec_missing_leaf(worker->exec, work->plan, work->word, &input, &content); input++)
        worker_leaf_want(worker, content, 0, link, true);
    work->asked = 1;
}

enum dj_error worker_stream_execute(struct worker *worker, struct worker_link *link, const struct wire_execute *said,
                                    struct blob *body)
{
    struct stream *stream = link->stream;
    if (said->plan >= link->plans_capacity || link->plan[said->plan].plan == NULL)
        return DJ_E_PLAN_UNKNOWN;
    struct link_plan *plan = &link->plan[said->plan];
    struct work *work = NULL;
    worker->load.bytes_in += body->bytes;
    worker_stream_confirm(stream, said->confirmed);
    enum dj_error error = read_execute(stream->session, plan, said, &work);
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
    bool is_repeated = position_compare(work->position, stream->last) <= 0 ||
                       (PLANTED(DEDUPE_PART) && work->position.counter == stream->last.counter && work->position.part > 1);
    if (is_repeated && !(PLANTED(RUN_TWICE) && stream->in_flight > 0)) {
        worker_stream_repeat(worker, stream, work->position, content, work->answers > 0);
        worker_work_free(work);
        return DJ_OK;
    }
    work->kept_answer = worker_stream_expect(stream, work->position, content);
    if (work->kept_answer == NULL) {
        worker_work_free(work);
        return DJ_E_NO_MEMORY;
    }
    stream->last = work->position;
    if (work->is_replay)
        want_leaves(worker, work, link->link);
    for (uint32_t i = 0; PLANTED(EARLY_RELEASE) && i < work->releases; i++)
        exec_release(worker->exec, work->released[i]);
    return enqueue(worker, stream, work);
}

static struct handle handle_of(const struct wire_handle *said)
{
    return (struct handle){.execution = {.session = said->session, .counter = said->counter}, .output = said->output};
}

enum dj_error worker_stream_import(struct worker *worker, struct worker_link *link, const struct wire_import *said)
{
    struct stream *stream = link->stream;
    struct position position = {said->counter, said->part};
    if (said->handles_count != 1 || said->locations_count != 1 || said->handles[0].session != stream->session->id)
        return DJ_E_MALFORMED;
    struct handle handle = handle_of(&said->handles[0]);
    uint64_t content = hash_mix(hash_mix(handle_key(handle).lo, handle_key(handle).hi), said->output);
    if (position_compare(position, stream->last) <= 0) {
        worker_stream_repeat(worker, stream, position, content, false);
        return DJ_OK;
    }
    struct work *work = calloc(1, sizeof *work);
    struct wire_location *location = malloc(sizeof *location);
    struct kept_answer *answer = work == NULL || location == NULL ? NULL : worker_stream_expect(stream, position, content);
    if (answer == NULL) {
        free(location);
        free(work);
        return DJ_E_NO_MEMORY;
    }
    *location = said->locations[0];
    *work = (struct work){.kind = WORK_IMPORT,
                          .position = position,
                          .output = PLANTED(IMPORT_NAME) && handle.output > 2 ? handle.output : said->output,
                          .is_replay = said->is_replay,
                          .handle = handle,
                          .location = location,
                          .kept_answer = answer,
                          .stream = stream,
                          .waiting_since_ns = actor_now_ns(worker->self)};
    list_init(&work->queue);
    stream->last = position;
    struct handle made = {.execution = {.session = stream->session->id, .counter = position.counter}, .output = said->output};
    if (location->incarnation != worker->incarnation && !exec_has(worker->exec, made))
        worker_import_begin(worker, work, location);
    return enqueue(worker, stream, work);
}

enum dj_error worker_stream_fetch(struct worker *worker, struct worker_link *link, const struct wire_fetch *said)
{
    if (said->handles_count != 1)
        return DJ_E_MALFORMED;
    if (link->role == ROLE_CLIENT && link->stream == NULL)
        return DJ_E_SESSION_UNKNOWN;
    struct work *work = calloc(1, sizeof *work);
    if (work == NULL)
        return DJ_E_NO_MEMORY;
    *work = (struct work){.kind = WORK_FETCH,
                          .request = said->request,
                          .link = link->link,
                          .handle = handle_of(&said->handles[0]),
                          .waiting_since_ns = actor_now_ns(worker->self)};
    list_init(&work->queue);
    if (link->role == ROLE_CLIENT) {
        if (work->handle.execution.session == link->stream->session->id)
            return enqueue(worker, link->stream, work);
        worker_fail(worker, link->link, said->request, DJ_E_HANDLE_UNKNOWN, "the value belongs to another session");
        worker_work_free(work);
        return DJ_OK;
    }
    const struct device_info *info = worker->config.device[0]->info;
    work->takes_place = said->domain[0] != '\0' && strcmp(said->domain, info->domain) == 0;
    list_push(&worker->peer_fetches, &work->queue);
    worker_peer_fetches_pump(worker);
    return DJ_OK;
}

// A work that names handles of its session: pairs of counter and flat output.
static enum dj_error read_handles(const struct stream *stream, uint8_t kind, const uint8_t *bytes, uint32_t length,
                                  struct work **ret)
{
    uint32_t handles = varints_in(bytes, length) / 2;
    struct work *work = malloc(room(sizeof *work) + handles * sizeof(struct handle));
    if (work == NULL)
        return DJ_E_NO_MEMORY;
    *work = (struct work){.kind = kind, .releases = handles, .position = stream->last};
    list_init(&work->queue);
    work->released = (struct handle *)(void *)((uint8_t *)work + room(sizeof *work));
    struct reader reader = reader_make(bytes, length);
    for (uint32_t i = 0; i < handles; i++) {
        uint64_t counter = read_var(&reader);
        work->released[i] = (struct handle){.execution = {.session = stream->session->id, .counter = counter},
                                            .output = (uint32_t)read_var_max(&reader, UINT32_MAX)};
    }
    if (reader.error != DJ_OK || reader_left(&reader) != 0) {
        worker_work_free(work);
        return DJ_E_MALFORMED;
    }
    *ret = work;
    return DJ_OK;
}

enum dj_error worker_stream_release(struct worker *worker, struct worker_link *link, const struct wire_release *said)
{
    struct work *work;
    enum dj_error error = read_handles(link->stream, WORK_RELEASE, said->handles, said->handles_bytes, &work);
    return error == DJ_OK ? enqueue(worker, link->stream, work) : error;
}

enum dj_error worker_stream_checkpoint(struct worker *worker, struct worker_link *link, const struct wire_checkpoint *said)
{
    struct work *work;
    enum dj_error error = read_handles(link->stream, WORK_CHECKPOINT, said->handles, said->handles_bytes, &work);
    if (error != DJ_OK)
        return error;
    work->request = said->request;
    work->link = link->link;
    return enqueue(worker, link->stream, work);
}
