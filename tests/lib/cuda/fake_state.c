// Fake state: see fake_state.h; and the test's side of fake_runtime.h.

#include "tests/lib/cuda/fake_state.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct fake_state fake_state;
_Thread_local bool fake_has_device;
struct fake_image fake_images[CUDA_FAMILIES];

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

const char *const fake_runtime_functions[] = {
#define X(name, parameters) #name,
    CUDA_FUNCTIONS(X)
#undef X
};
const uint32_t fake_runtime_function_count = FUNCTIONS;

_Noreturn void fake_die(const char *what)
{
    fprintf(stderr, "fake cuda: %s\n", what);
    abort();
}

static void *get(size_t bytes)
{
    void *memory = calloc(1, bytes);
    if (memory == NULL)
        fake_die("no memory");
    return memory;
}

// Entering and leaving ------------------------------------------------------------------------------------------------------

int fake_leave(int code)
{
    if (code != CUDA_OK && code != CUDA_NOT_READY)
        fake_state.last = code;
    pthread_mutex_unlock(&mutex);
    return code;
}

static bool needs_device(enum function function)
{
    switch (function) {
    case F_cudaRuntimeGetVersion:
    case F_cudaDriverGetVersion:
    case F_cudaGetDeviceCount:
    case F_cudaSetDevice:
    case F_cudaGetLastError: return false;
    default: return true;
    }
}

// What the call has to return although it has not begun; CUDA_OK for none.
int fake_enter(enum function function)
{
    pthread_mutex_lock(&mutex);
    fake_state.calls[function]++;
    if (!fake_has_device && needs_device(function))
        fake_die("a thread that chose no GPU, so that CUDA would take the first");
    if (fake_state.fail_in > 0 &&
        (fake_state.failing == NULL || strcmp(fake_state.failing, fake_runtime_functions[function]) == 0) &&
        --fake_state.fail_in == 0) {
        fake_state.has_failed = true;
        return fake_state.fail_error;
    }
    return function == F_cudaDeviceReset || function == F_cudaGetDeviceCount ? CUDA_OK : fake_state.sticky;
}

// Objects and memory --------------------------------------------------------------------------------------------------------

void *fake_make_object(enum object_kind kind, size_t bytes)
{
    struct object *object = get(bytes);
    object->kind = kind;
    object->next = fake_state.objects;
    fake_state.objects = object;
    return object;
}

void fake_check_object(const void *pointer, enum object_kind kind, const char *what)
{
    const struct object *object = pointer;
    if (object == NULL || object->kind != kind || object->is_dead)
        fake_die(what);
}

static struct memory *find_memory(const void *data, size_t bytes)
{
    for (struct memory *memory = fake_state.memories; memory != NULL; memory = memory->next)
        if ((const uint8_t *)data >= memory->data && (const uint8_t *)data + bytes <= memory->data + memory->bytes)
            return memory;
    return NULL;
}

void fake_check_memory(const void *data, size_t bytes, bool is_pinned)
{
    struct memory *memory = find_memory(data, bytes);
    if (memory == NULL)
        fake_die(is_pinned ? "a copy's host memory is not pinned" : "an operation outside of every reservation");
    if (memory->is_pinned != is_pinned)
        fake_die("host and device memory are mixed up");
}

static bool overlaps(const struct memory *memory, const uint8_t *data, size_t bytes)
{
    return data != NULL && data < memory->data + memory->bytes && data + bytes > memory->data;
}

static void check_unused_by(const struct memory *memory, const struct operation *operation)
{
    for (; operation != NULL; operation = operation->next) {
        if (overlaps(memory, operation->to, operation->bytes + 1) || overlaps(memory, operation->from, operation->bytes + 1) ||
            overlaps(memory, operation->launch.args, 1))
            fake_die("memory is freed under a queued operation");
        if (operation->kind == REPLAY)
            check_unused_by(memory, operation->exec->operations.first);
    }
}

static void check_unused(const struct memory *memory)
{
    for (struct object *object = fake_state.objects; object != NULL; object = object->next)
        if (object->kind == STREAM)
            check_unused_by(memory, ((cuda_stream)object)->queue.first);
}

int fake_reserve(void **ret, size_t bytes, bool is_pinned)
{
    if (!is_pinned && bytes > fake_state.device_bytes - fake_state.used_bytes)
        return CUDA_OUT_OF_MEMORY;
    struct memory *memory = get(sizeof *memory);
    memory->data = aligned_alloc(256, (bytes + 255) & ~(size_t)255);
    if (memory->data == NULL)
        fake_die("no memory");
    memset(memory->data, 0xdd, bytes < GARBAGE_BYTES ? bytes : GARBAGE_BYTES);
    memory->bytes = bytes;
    memory->is_pinned = is_pinned;
    memory->next = fake_state.memories;
    fake_state.memories = memory;
    fake_state.used_bytes += is_pinned ? 0 : bytes;
    *ret = memory->data;
    return CUDA_OK;
}

void fake_give_back(void *data, bool is_pinned)
{
    struct memory **at = &fake_state.memories;
    while (*at != NULL && (*at)->data != data)
        at = &(*at)->next;
    struct memory *memory = *at;
    if (memory == NULL || memory->is_pinned != is_pinned)
        fake_die("memory is freed that is not there");
    check_unused(memory);
    *at = memory->next;
    fake_state.used_bytes -= is_pinned ? 0 : memory->bytes;
    free(memory->data);
    free(memory);
}

// Streams -------------------------------------------------------------------------------------------------------------------

void fake_append(struct operations *operations, const struct operation *operation)
{
    struct operation *copy = get(sizeof *copy);
    *copy = *operation;
    copy->next = NULL;
    if (operations->first == NULL)
        operations->end = &operations->first;
    *operations->end = copy;
    operations->end = &copy->next;
}

void fake_drop(struct operations *operations)
{
    while (operations->first != NULL) {
        struct operation *next = operations->first->next;
        free(operations->first);
        operations->first = next;
    }
}

int fake_enqueue(cuda_stream stream, const struct operation *operation)
{
    fake_append(stream->capture != NULL ? &stream->capture->operations : &stream->queue, operation);
    return CUDA_OK;
}

static void run(const struct operation *operation)
{
    switch (operation->kind) {
    case COPY: memmove(operation->to, operation->from, operation->bytes); break;
    case FILL: memset(operation->to, operation->value, operation->bytes); break;
    case LAUNCH:
        if (fake_state.fault_in > 0 && --fake_state.fault_in == 0) {
            fake_state.sticky = CUDA_ILLEGAL_ADDRESS;
            break;
        }
        fake_state.kernels++;
        emulator_run(operation->kernel, &operation->launch, ++fake_state.seed);
        break;
    case CALL:
        fake_state.kernels++;
        operation->call(operation->context);
        break;
    case RECORD:
        operation->event->done = operation->turn;
        operation->event->time = fake_state.clock;
        break;
    case WAIT: break;
    case REPLAY:
        fake_check_object(operation->exec, EXEC, "a graph was destroyed before it ran");
        for (const struct operation *at = operation->exec->operations.first; at != NULL && fake_state.sticky == CUDA_OK;
             at = at->next)
            run(at);
        break;
    }
    fake_state.clock++;
}

static bool is_runnable(cuda_stream stream)
{
    const struct operation *first = stream->queue.first;
    if (first == NULL)
        return false;
    if (first->kind != WAIT || first->event->done >= first->turn)
        return true;
    if (!stream->has_waited)
        fake_state.waits++;
    stream->has_waited = true;
    return false;
}

// Runs the next operation of a stream that the seed chooses. False: nothing can run.
bool fake_step(void)
{
    cuda_stream chosen = NULL;
    uint64_t candidates = 0;

    for (struct object *object = fake_state.objects; object != NULL && fake_state.sticky == CUDA_OK; object = object->next)
        if (object->kind == STREAM && !object->is_dead && is_runnable((cuda_stream)object) &&
            prng_between(&fake_state.prng, 0, candidates++) == 0)
            chosen = (cuda_stream)object;
    if (chosen == NULL)
        return false;
    struct operation *operation = chosen->queue.first;
    chosen->queue.first = operation->next;
    chosen->has_waited = false;
    run(operation);
    free(operation);
    return true;
}

void fake_burst(void)
{
    for (uint64_t n = prng_between(&fake_state.prng, 0, BURST_MOST); n > 0 && !fake_state.is_held; n--)
        fake_step();
}

void fake_kill_everything(void)
{
    for (struct object *object = fake_state.objects; object != NULL; object = object->next) {
        object->is_dead = true;
        if (object->kind == STREAM)
            fake_drop(&((cuda_stream)object)->queue);
        if (object->kind == GRAPH)
            fake_drop(&((cuda_graph)object)->operations);
        if (object->kind == EXEC)
            fake_drop(&((cuda_graph_exec)object)->operations);
    }
    while (fake_state.memories != NULL)
        fake_give_back(fake_state.memories->data, fake_state.memories->is_pinned);
}

// The test's side -------------------------------------------------------------------------------------------------------------

const struct cuda_image *fake_runtime_images(void)
{
    static struct cuda_image image[CUDA_FAMILIES];
    for (uint32_t family = 0; family < CUDA_FAMILIES; family++) {
        fake_images[family].magic = IMAGE_MAGIC;
        fake_images[family].family = family;
        image[family] = (struct cuda_image){.data = &fake_images[family], .bytes = sizeof fake_images[family]};
    }
    return image;
}

void fake_runtime_begin(uint64_t seed, uint64_t device_bytes)
{
    (void)fake_runtime_end();
    memset(&fake_state, 0, sizeof fake_state);
    fake_state.prng = prng_make(seed);
    fake_state.seed = seed;
    fake_state.device_bytes = device_bytes;
    fake_state.capability = 90;
}

uint32_t fake_runtime_end(void)
{
    uint32_t left = 0;
    pthread_mutex_lock(&mutex);
    for (struct memory *memory = fake_state.memories; memory != NULL; memory = memory->next)
        left++;
    for (struct object *object = fake_state.objects; object != NULL; object = object->next)
        left += !object->is_dead && object->kind != KERNEL_HANDLE;
    fake_kill_everything();
    while (fake_state.objects != NULL) {
        struct object *next = fake_state.objects->next;
        free(fake_state.objects);
        fake_state.objects = next;
    }
    pthread_mutex_unlock(&mutex);
    return left;
}

void fake_runtime_fail(const char *function, uint64_t nth, int error)
{
    pthread_mutex_lock(&mutex);
    fake_state.failing = function;
    fake_state.fail_in = nth;
    fake_state.fail_error = error;
    fake_state.has_failed = false;
    pthread_mutex_unlock(&mutex);
}

bool fake_runtime_has_failed(void)
{
    pthread_mutex_lock(&mutex);
    bool has_failed = fake_state.has_failed;
    pthread_mutex_unlock(&mutex);
    return has_failed;
}

void fake_runtime_fault(uint64_t nth)
{
    pthread_mutex_lock(&mutex);
    fake_state.fault_in = nth;
    pthread_mutex_unlock(&mutex);
}

void fake_runtime_set_capability(int capability)
{
    pthread_mutex_lock(&mutex);
    fake_state.capability = capability;
    pthread_mutex_unlock(&mutex);
}

void fake_runtime_keep_fault(void)
{
    pthread_mutex_lock(&mutex);
    fake_state.keeps_fault = true;
    pthread_mutex_unlock(&mutex);
}

void fake_runtime_set_running(bool is_running)
{
    pthread_mutex_lock(&mutex);
    fake_state.is_held = !is_running;
    pthread_mutex_unlock(&mutex);
}

void fake_runtime_run(unsigned function, const struct emulator_launch *launch)
{
    pthread_mutex_lock(&mutex);
    emulator_run(emulator_find(function), launch, ++fake_state.seed);
    pthread_mutex_unlock(&mutex);
}

void fake_runtime_enqueue(cuda_stream stream, void (*call)(const void *context), const void *context, size_t bytes)
{
    struct operation operation = {.kind = CALL, .call = call};
    pthread_mutex_lock(&mutex);
    STREAM_OF(stream);
    if (bytes > sizeof operation.context)
        fake_die("a library's call with too large a context");
    memcpy(operation.context, context, bytes);
    fake_enqueue(stream, &operation);
    pthread_mutex_unlock(&mutex);
}

uint64_t fake_runtime_calls(const char *function)
{
    uint64_t calls = 0;
    pthread_mutex_lock(&mutex);
    for (uint32_t f = 0; f < FUNCTIONS; f++)
        if (strcmp(fake_runtime_functions[f], function) == 0)
            calls = fake_state.calls[f];
    pthread_mutex_unlock(&mutex);
    return calls;
}

uint64_t fake_runtime_kernels(void)
{
    pthread_mutex_lock(&mutex);
    uint64_t kernels = fake_state.kernels;
    pthread_mutex_unlock(&mutex);
    return kernels;
}

uint64_t fake_runtime_waits(void)
{
    pthread_mutex_lock(&mutex);
    uint64_t waits = fake_state.waits;
    pthread_mutex_unlock(&mutex);
    return waits;
}
