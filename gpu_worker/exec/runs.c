// Runs: one task list in flight with everything that it needs to stay. Runs are used again with their arrays, so that a warm execution
// allocates nothing.

#include "gpu_worker/exec/state.h"

#include "core/base/assert.h"

#include <stdlib.h>
#include <string.h>

// A pointer to an array of any type.
typedef void *__attribute__((may_alias)) array_pointer;

// Makes room for `need` entries of `size` bytes in *array; false out of memory.
static bool grow(array_pointer *array, uint32_t *capacity, uint64_t need, size_t size)
{
    if (need <= *capacity)
        return true;
    if (need > UINT32_MAX / 2)
        return false;
    uint32_t wanted = *capacity == 0 ? 16 : *capacity;
    while (wanted < need)
        wanted *= 2;
    void *larger = realloc(*array, wanted * size);
    if (larger == NULL)
        return false;
    *array = larger;
    *capacity = wanted;
    return true;
}

struct run *exec_run_take(struct exec *exec)
{
    struct run *run = exec->idle_count > 0 ? exec->idle[--exec->idle_count] : calloc(1, sizeof *run);
    if (run == NULL)
        return NULL;
    memset(&run->face, 0, sizeof run->face);
    run->face.node = -1;
    list_init(&run->in_flight);
    run->failure = NULL;
    run->dependencies = run->buffers = run->kept = run->staged_count = 0;
    run->workspace = NULL;
    run->leaf = NULL;
    run->tasks = run->tensors = run->attrs = 0;
    return run;
}

static void run_destroy(struct run *run)
{
    free(run->buffer);
    free(run->handle);
    free(run->staged);
    free(run->task);
    free(run->part);
    free(run->tensor);
    free(run->storage);
    free(run->attr);
    free(run->word);
    free(run->answer);
    free(run);
}

void exec_run_give(struct exec *exec, struct run *run)
{
    assert(list_is_empty(&run->in_flight));
    for (uint32_t i = 0; i < run->tasks; i++) {
        if (run->task[i].kind == DEVICE_WRITE)
            blob_drop(run->task[i].blob);
    }
    run->tasks = 0;
    blob_drop(run->face.blob);
    run->face.blob = NULL;
    for (uint32_t i = 0; i < run->buffers; i++)
        exec_buffer_drop(exec, run->buffer[i]);
    run->buffers = 0;
    if (run->workspace != NULL)
        region_release(exec->region, run->workspace);
    run->workspace = NULL;
    exec_failure_drop(run->failure);
    run->failure = NULL;
    if (exec->idle_count < RUNS_IDLE_MAX)
        exec->idle[exec->idle_count++] = run;
    else
        run_destroy(run);
}

enum dj_error exec_run_pin(struct run *run, struct buffer *buffer, uint32_t *ret_storage)
{
    if (!grow((array_pointer *)&run->buffer, &run->buffers_capacity, (uint64_t)run->buffers + 1, sizeof run->buffer[0]))
        return DJ_E_NO_MEMORY;
    run->buffer[run->buffers++] = buffer;
    *ret_storage = run->buffers;
    return DJ_OK;
}

struct device_task *exec_run_task(struct run *run, enum device_task_kind kind)
{
    uint32_t part_capacity = run->tasks_capacity;
    if (!grow((array_pointer *)&run->part, &part_capacity, (uint64_t)run->tasks + 1, sizeof run->part[0]) ||
        !grow((array_pointer *)&run->task, &run->tasks_capacity, (uint64_t)run->tasks + 1, sizeof run->task[0]))
        return NULL;
    struct device_task *task = &run->task[run->tasks];
    run->part[run->tasks] = (struct task_part){.storage = STORAGE_NONE};
    run->tasks++;
    memset(task, 0, sizeof *task);
    task->kind = (uint8_t)kind;
    return task;
}

struct device_tensor *exec_run_tensors(struct run *run, uint32_t count, uint32_t *ret_first)
{
    uint32_t storage_capacity = run->tensors_capacity;
    if (!grow((array_pointer *)&run->storage, &storage_capacity, (uint64_t)run->tensors + count, sizeof run->storage[0]) ||
        !grow((array_pointer *)&run->tensor, &run->tensors_capacity, (uint64_t)run->tensors + count, sizeof run->tensor[0]))
        return NULL;
    *ret_first = run->tensors;
    run->tensors += count;
    return &run->tensor[*ret_first];
}

struct attr *exec_run_attrs(struct run *run, uint32_t count, uint32_t *ret_first)
{
    if (!grow((array_pointer *)&run->attr, &run->attrs_capacity, (uint64_t)run->attrs + count, sizeof run->attr[0]))
        return NULL;
    *ret_first = run->attrs;
    run->attrs += count;
    return &run->attr[*ret_first];
}

bool exec_run_words(struct run *run, const int64_t *word, uint32_t words)
{
    if (!grow((array_pointer *)&run->word, &run->words_capacity, (uint64_t)words + 1, sizeof run->word[0]))
        return false;
    if (words > 0)
        memcpy(run->word, word, words * sizeof word[0]);
    return true;
}

bool exec_run_keep(struct run *run, struct handle handle)
{
    if (!grow((array_pointer *)&run->handle, &run->kept_capacity, (uint64_t)run->kept + 1, sizeof run->handle[0]))
        return false;
    run->handle[run->kept++] = handle;
    return true;
}

bool exec_run_stage(struct run *run, struct leaf *leaf)
{
    if (!grow((array_pointer *)&run->staged, &run->staged_capacity, (uint64_t)run->staged_count + 1, sizeof run->staged[0]))
        return false;
    run->staged[run->staged_count++] = leaf;
    return true;
}

enum dj_error exec_run_depend(struct run *run, struct run *on)
{
    for (uint32_t i = 0; i < run->dependencies; i++) {
        if (run->builds_on[i] == on)
            return DJ_OK;
    }
    if (run->dependencies == EXEC_DEPENDENCIES_MAX)
        return DJ_E_BUSY;
    run->builds_on[run->dependencies++] = on;
    return DJ_OK;
}

static uint64_t base_of(const struct run *run, uint32_t storage)
{
    if (storage == STORAGE_NONE)
        return 0;
    return storage == STORAGE_WORKSPACE ? run->workspace->offset : run->buffer[storage - 1]->block->offset;
}

void exec_run_resolve(struct run *run)
{
    for (uint32_t i = 0; i < run->tensors; i++)
        run->tensor[i].offset += base_of(run, run->storage[i]);
    for (uint32_t i = 0; i < run->tasks; i++) {
        struct device_task *task = &run->task[i];
        task->in = &run->tensor[run->part[i].tensor];
        task->out = task->in + task->n_in;
        task->attr = &run->attr[run->part[i].attr];
        task->offset += base_of(run, run->part[i].storage);
        if (task->kind == DEVICE_READ)
            task->blob = run->face.blob;
        else if (task->kind == DEVICE_COPY_PEER)
            task->peer = &run->peer;
    }
    run->face.list.tasks = run->tasks;
    run->face.list.task = run->task;
}

bool exec_run_add_answer(struct run *run, uint32_t output, const struct tensor_meta *meta)
{
    if (!grow((array_pointer *)&run->answer, &run->answers_capacity, (uint64_t)run->face.answers + 1, sizeof run->answer[0]))
        return false;
    struct exec_answer *answer = &run->answer[run->face.answers++];
    *answer = (struct exec_answer){.output = output, .meta = *meta};
    tensor_make_contiguous(&answer->meta);
    answer->bytes = (uint64_t)tensor_bytes(&answer->meta);
    run->face.answer = run->answer;
    return true;
}

enum dj_error exec_run_place_answers(struct run *run)
{
    if (run->face.answers == 0)
        return DJ_OK;
    uint64_t at = 0;
    for (int is_small = 0; is_small < 2; is_small++) {
        for (uint32_t i = 0; i < run->face.answers; i++) {
            struct exec_answer *answer = &run->answer[i];
            if ((answer->bytes <= EXEC_INLINE_BYTES) != (is_small != 0))
                continue;
            answer->offset = at;
            if (__builtin_add_overflow(at, answer->bytes, &at))
                return DJ_E_OVERFLOW;
        }
    }
    run->face.blob = blob_make(at);
    return run->face.blob == NULL ? DJ_E_NO_MEMORY : DJ_OK;
}

void exec_run_free(struct exec *exec, struct exec_run *face)
{
    exec_run_give(exec, (struct run *)face);
}

void exec_runs_free_idle(struct exec *exec)
{
    while (exec->idle_count > 0)
        run_destroy(exec->idle[--exec->idle_count]);
}
