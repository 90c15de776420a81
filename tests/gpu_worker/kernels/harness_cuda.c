// CUDA's kernels on a GPU, through the CUDA device itself: what a call's tensors span is written to the device's region, the call is one list, and the spans are
// read back whole, so that what lies between an output's elements is compared too.
//
// The first GPU, or the emulated one where the library is linked with tests/gpu_worker/device/cuda/emulated.

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/io/blob.h"
#include "core/io/io.h"
#include "gpu_worker/device/cuda/module.h"
#include "tests/gpu_worker/kernels/harness_backend.h"

enum { TENSORS_MAX = 80, REGION_BYTES = 1 << 30, SPAN_ALIGNMENT = 512, ANSWER_S = 60 };

cuda_module_get djinn_cuda_module;

// The list in flight. One at a time.
static struct {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    bool is_done;
} flight = {.mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static void post(void *self, const struct io_event *event)
{
    (void)self, (void)event;
    pthread_mutex_lock(&flight.mutex);
    flight.is_done = true;
    pthread_cond_signal(&flight.changed);
    pthread_mutex_unlock(&flight.mutex);
}

static const struct io_sink sink = {.post = post};

static struct device_port *port(void)
{
    static struct device_port *made;
    struct fault fault = {0};

    if (made == NULL) {
        struct cuda_module_config config = {.memory_bytes = REGION_BYTES, .sink = &sink};
        if (djinn_cuda_module()->make(&config, &made, &fault) != DJ_OK) {
            fprintf(stderr, "no GPU: %s\n", fault.text);
            exit(1);
        }
    }
    return made;
}

// Spans -----------------------------------------------------------------------------------------------------------------------------

struct span {
    const uint8_t *from;
    size_t bytes;
    uint64_t offset;
    struct blob *blob;
};

struct plan {
    struct span span[TENSORS_MAX];
    uint32_t spans;
    uint64_t used;
    struct device_tensor in[TENSORS_MAX], out[OP_OUTPUTS_MAX];
    struct device_task task[3 * TENSORS_MAX];
    uint32_t tasks;
};

// The bytes from the first to the last element; strides are not negative.
static size_t extent(const struct tensor_meta *meta)
{
    int64_t last = 0;
    for (uint32_t d = 0; d < meta->rank; d++) {
        if (meta->size[d] == 0)
            return 0;
        last += (meta->size[d] - 1) * meta->stride[d];
    }
    return ((size_t)last + 1) * dtype_bytes(meta->dtype);
}

// Adds what a tensor spans; spans that touch become one, so that tensors that share memory share it on the device.
static void add_span(struct plan *plan, const struct tensor *tensor)
{
    size_t bytes = tensor->meta.dtype == DTYPE_NONE || tensor->is_scalar ? 0 : extent(&tensor->meta);
    const uint8_t *from = tensor->data, *to = from + bytes;

    if (bytes == 0)
        return;
    for (uint32_t i = 0; i < plan->spans;) {
        struct span *other = &plan->span[i];
        if (other->from > to || from > other->from + other->bytes) {
            i++;
            continue;
        }
        from = other->from < from ? other->from : from;
        to = other->from + other->bytes > to ? other->from + other->bytes : to;
        *other = plan->span[--plan->spans];
        i = 0;
    }
    plan->span[plan->spans++] = (struct span){.from = from, .bytes = (size_t)(to - from)};
}

static void place(struct plan *plan)
{
    for (uint32_t i = 0; i < plan->spans; i++) {
        struct span *span = &plan->span[i];
        // As aligned as it was here: kernels look at it.
        span->offset = plan->used + (uintptr_t)span->from % SPAN_ALIGNMENT;
        plan->used = (span->offset + span->bytes + SPAN_ALIGNMENT - 1) / SPAN_ALIGNMENT * SPAN_ALIGNMENT;
    }
}

static struct device_tensor describe(const struct plan *plan, const struct tensor *tensor)
{
    struct device_tensor ret = {.meta = tensor->meta,
                                .is_scalar = tensor->is_scalar,
                                .is_constant = tensor->is_constant,
                                .constant_key = tensor->constant_key};
    const uint8_t *data = tensor->data;

    if (tensor->meta.dtype == DTYPE_NONE)
        return ret;
    if (tensor->is_scalar)
        memcpy(&ret.scalar, data, dtype_bytes(tensor->meta.dtype));
    for (uint32_t i = 0; i < plan->spans && !tensor->is_scalar; i++)
        if (data >= plan->span[i].from && data < plan->span[i].from + plan->span[i].bytes)
            ret.offset = plan->span[i].offset + (uint64_t)(data - plan->span[i].from);
    return ret;
}

static struct device_task *kernel_task(struct plan *plan, const struct kernel_call *call)
{
    struct device_task *task = &plan->task[plan->tasks++];

    for (uint32_t i = 0; i < call->n_in; i++)
        plan->in[i] = describe(plan, &call->in[i]);
    for (uint32_t i = 0; i < call->n_out; i++)
        plan->out[i] = describe(plan, &call->out[i]);
    *task = (struct device_task){.kind = DEVICE_KERNEL,
                                 .n_in = call->n_in,
                                 .n_out = (uint8_t)call->n_out,
                                 .compute = (uint8_t)call->compute,
                                 .op = call->op,
                                 .in = plan->in,
                                 .out = plan->out,
                                 .attr = call->attr};
    return task;
}

static void make_plan(struct plan *plan, const struct kernel_call *call)
{
    memset(plan, 0, sizeof *plan);
    for (uint32_t i = 0; i < call->n_in; i++)
        add_span(plan, &call->in[i]);
    for (uint32_t i = 0; i < call->n_out; i++)
        add_span(plan, &call->out[i]);
    place(plan);
}

static void copies(struct plan *plan, enum device_task_kind kind)
{
    for (uint32_t i = 0; i < plan->spans; i++) {
        struct span *span = &plan->span[i];
        plan->task[plan->tasks++] = (struct device_task){
            .kind = (uint8_t)kind, .offset = span->offset, .bytes = span->bytes, .blob = span->blob};
    }
}

// The backend -----------------------------------------------------------------------------------------------------------------------

const char *backend_numerics(void)
{
    return port()->info->numerics;
}

bool backend_has(uint32_t op)
{
    return (port()->info->ops[op / 8] >> op % 8 & 1) != 0;
}

bool backend_can(const struct kernel_call *call)
{
    static struct plan plan;

    make_plan(&plan, call);
    return port()->can(port()->self, kernel_task(&plan, call));
}

// The device's, of the region: none is asked for here.
size_t backend_scratch(const struct kernel_call *call)
{
    (void)call;
    return 0;
}

// A kernel that never ends cannot be called back: the process ends, and whoever runs the tests goes on behind this one.
static void wait_for_answer(void)
{
    struct timespec until;
    int code = 0;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += ANSWER_S;
    pthread_mutex_lock(&flight.mutex);
    while (!flight.is_done && code == 0)
        code = pthread_cond_timedwait(&flight.changed, &flight.mutex, &until);
    bool is_done = flight.is_done;
    pthread_mutex_unlock(&flight.mutex);
    if (is_done)
        return;
    fprintf(stderr, "the GPU did not answer within %d s\n", ANSWER_S);
    _exit(3);
}

static enum dj_error run(struct plan *plan, struct fault *fault)
{
    static uint64_t ticket, incarnation = 1;
    struct device_list list = {.ticket = ++ticket, .incarnation = incarnation, .tasks = plan->tasks, .task = plan->task};

    flight.is_done = false;
    port()->submit(port()->self, &list);
    wait_for_answer();
    if (list.error == DJ_E_DEVICE_LOST)
        incarnation++;    // the next call has a device made anew
    if (list.error != DJ_OK)
        *fault = list.fault;
    return list.error;
}

enum dj_error backend_run(const struct kernel_call *call)
{
    static struct plan plan;
    enum dj_error error = DJ_OK;

    make_plan(&plan, call);
    for (uint32_t i = 0; i < plan.spans; i++)
        if ((plan.span[i].blob = blob_copy(plan.span[i].from, plan.span[i].bytes)) == NULL)
            error = DJ_E_NO_MEMORY;
    copies(&plan, DEVICE_WRITE);
    struct device_task *kernel = kernel_task(&plan, call);
    kernel->bytes = port()->scratch_bytes(port()->self, kernel);
    kernel->offset = plan.used;
    copies(&plan, DEVICE_READ);
    if (error == DJ_OK && plan.used + kernel->bytes > port()->info->capacity_bytes)
        error = DJ_E_DEVICE_MEMORY;
    if (error == DJ_OK)
        error = run(&plan, call->fault);
    for (uint32_t i = 0; i < plan.spans; i++) {
        if (error == DJ_OK)
            memcpy((void *)(uintptr_t)plan.span[i].from, plan.span[i].blob->data, plan.span[i].bytes);
        blob_drop(plan.span[i].blob);
    }
    return error;
}
