// Cpu device: the manual is cpu_device.h.
//
// The queue is a ring under a mutex that is never held across a task. The device's thread looks at `submitted` for SPIN_NS before it
// sleeps: a token's execution often follows its predecessor's answer by a few microseconds, and waking costs about five.

#include "gpu_worker/device/cpu_device.h"

#include "core/base/assert.h"
#include "core/base/knobs.h"
#include "core/base/log.h"
#include "core/io/blob.h"
#include "gpu_worker/device/operands.h"
#include "gpu_worker/kernels/kernel.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { QUEUE_FIRST = 64, SPIN_NS = 20000, SPIN_LOOKS = 64, HUGE_PAGE_BYTES = 2 << 20 };
// Of the machine's memory, for the region where nobody says; and the part of the region's size that packed weights may take besides it:
// 64 % and a quarter of that make 80 %.
enum { MEMORY_PERCENT = 64, PACK_DIVISOR = 4 };

// What an op's kernels took, all together: with DJINN_OP_TIMES set, logged when the device stops.
struct op_time {
    uint64_t calls, ns;
};

struct cpu_device {
    struct device_port port;
    struct device_info info;
    const struct kernel_table *kernels;
    struct team *team;
    const struct io_sink *sink;
    uint32_t index;
    uint8_t *region;
    uint64_t lost;                      // the incarnation that lost the device (DEVICE_LOST); 0: none
    struct operands asking, running;    // of the core's thread, of the device's
    struct op_time *times;              // by op number, of the device's thread; NULL unless asked for
    pthread_t thread;
    pthread_mutex_t mutex;    // guards queue, head, tail, capacity, is_stopping
    pthread_cond_t more;
    struct device_list **queue;
    uint64_t head, tail;
    uint64_t capacity;    // a power of two
    bool is_stopping;
    // Release by the submitter, acquire by the spinning thread: only a hint that the mutex is worth taking.
    _Atomic uint64_t submitted;
};

static uint64_t now_ns(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

uint32_t cpu_device_default_threads(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) != 0)
        return 1;
    int count = CPU_COUNT(&set);
    return count < 1 ? 1 : (uint32_t)count;
}

uint64_t cpu_device_default_memory_bytes(void)
{
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    uint64_t bytes = pages > 0 && page > 0 ? (uint64_t)pages * (uint64_t)page : (uint64_t)1 << 32;
    return bytes / 100 * MEMORY_PERCENT;
}

static bool device_can(void *self, const struct device_task *task)
{
    struct cpu_device *device = self;
    const struct kernel *kernel = &device->kernels->kernel[task->op->number];
    if (kernel->run == NULL)
        return false;
    if (kernel->can == NULL)
        return true;
    if (!operands_fill(&device->asking, task, NULL))
        return false;
    struct kernel_call call = call_of(task, &device->asking, NULL);
    call.team = device->team;
    return kernel->can(&call);
}

static size_t device_scratch_bytes(void *self, const struct device_task *task)
{
    struct cpu_device *device = self;
    const struct kernel *kernel = &device->kernels->kernel[task->op->number];
    if (kernel->scratch == NULL || !operands_fill(&device->asking, task, NULL))
        return 0;
    struct kernel_call call = call_of(task, &device->asking, NULL);
    call.team = device->team;
    return kernel->scratch(&call);
}

static enum dj_error run_task(struct cpu_device *device, const struct device_task *task, struct fault *fault)
{
    assert(task->offset <= device->info.capacity_bytes && task->bytes <= device->info.capacity_bytes - task->offset);
    switch ((enum device_task_kind)task->kind) {
    case DEVICE_WRITE: memcpy(device->region + task->offset, task->blob->data + task->blob_offset, task->bytes); return DJ_OK;
    case DEVICE_READ: memcpy(task->blob->data + task->blob_offset, device->region + task->offset, task->bytes); return DJ_OK;
    case DEVICE_ZERO: memset(device->region + task->offset, 0, task->bytes); return DJ_OK;
    case DEVICE_COPY_PEER: return fault_set(fault, DJ_E_DEVICE, "a CPU device does not open the memory of other processes");
    case DEVICE_KERNEL: break;
    }
    if (!operands_fill(&device->running, task, device->region))
        return fault_set(fault, DJ_E_NO_MEMORY, "%s", dj_error_text(DJ_E_NO_MEMORY));
    struct kernel_call call = call_of(task, &device->running, device->region);
    call.team = device->team;
    call.fault = fault;
    fault->text[0] = '\0';
    uint64_t start = device->times == NULL ? 0 : now_ns();
    enum dj_error error = device->kernels->kernel[task->op->number].run(&call);
    if (device->times != NULL) {
        device->times[task->op->number].calls++;
        device->times[task->op->number].ns += now_ns() - start;
    }
    if (error != DJ_OK && fault->text[0] == '\0')
        fault_set(fault, error, "%s: %s", task->op->name, dj_error_text(error));
    if (error != DJ_OK)
        fault->code = error;
    return error;
}

static void run_list(struct cpu_device *device, struct device_list *list)
{
    uint64_t start = now_ns();
    list->error = DJ_OK;
    list->fault.code = DJ_OK;
    if (list->tasks > 0 && list->incarnation != 0 && knob_take(KNOB_DEVICE_LOST)) {
        device->lost = list->incarnation;
        device->info.lives++;
        madvise(device->region, device->info.capacity_bytes, MADV_DONTNEED);
    }
    if (device->lost != 0 && device->lost == list->incarnation) {
        list->failed_task = 0;
        list->error = fault_set(&list->fault, DJ_E_DEVICE_LOST, "%s", dj_error_text(DJ_E_DEVICE_LOST));
    } else if (list->tasks > 0 && knob_take(KNOB_DEVICE_FULL)) {
        list->failed_task = 0;
        list->error = fault_set(&list->fault, DJ_E_DEVICE_MEMORY, "%s", dj_error_text(DJ_E_DEVICE_MEMORY));
    }
    for (uint32_t i = 0; i < list->tasks && list->error == DJ_OK; i++) {
        list->error = run_task(device, &list->task[i], &list->fault);
        list->failed_task = i;
    }
    list->elapsed_ns = now_ns() - start;
    struct io_event event = {.kind = IO_DEVICE_DONE, .device_done = {.device = device->index, .list = list}};
    device->sink->post(device->sink->self, &event);
}

static void spin(struct cpu_device *device, uint64_t seen)
{
    uint64_t end = now_ns() + SPIN_NS;
    do {
        for (int look = 0; look < SPIN_LOOKS; look++) {
            if (atomic_load_explicit(&device->submitted, memory_order_acquire) != seen)
                return;
#if defined(__x86_64__)
            __builtin_ia32_pause();
#endif
        }
    } while (now_ns() < end);
}

static void *serve(void *self)
{
    struct cpu_device *device = self;
    uint64_t seen = 0;
    for (;;) {
        spin(device, seen);
        pthread_mutex_lock(&device->mutex);
        while (device->head == device->tail && !device->is_stopping)
            pthread_cond_wait(&device->more, &device->mutex);
        if (device->head == device->tail) {
            pthread_mutex_unlock(&device->mutex);
            return NULL;
        }
        struct device_list *list = device->queue[device->head++ & (device->capacity - 1)];
        pthread_mutex_unlock(&device->mutex);
        run_list(device, list);
        seen++;
    }
}

// Called with the mutex held.
static bool queue_grow(struct cpu_device *device)
{
    struct device_list **larger = malloc(device->capacity * 2 * sizeof *larger);
    if (larger == NULL)
        return false;
    for (uint64_t i = device->head; i != device->tail; i++)
        larger[i & (device->capacity * 2 - 1)] = device->queue[i & (device->capacity - 1)];
    free(device->queue);
    device->queue = larger;
    device->capacity *= 2;
    return true;
}

static void device_submit(void *self, struct device_list *list)
{
    struct cpu_device *device = self;
    pthread_mutex_lock(&device->mutex);
    bool has_room = device->tail - device->head < device->capacity || queue_grow(device);
    if (has_room)
        device->queue[device->tail++ & (device->capacity - 1)] = list;
    pthread_mutex_unlock(&device->mutex);
    if (has_room) {
        atomic_fetch_add_explicit(&device->submitted, 1, memory_order_release);
        pthread_cond_signal(&device->more);
        return;
    }
    list->error = fault_set(&list->fault, DJ_E_NO_MEMORY, "the device's queue cannot grow");
    list->failed_task = UINT32_MAX;
    struct io_event event = {.kind = IO_DEVICE_DONE, .device_done = {.device = device->index, .list = list}};
    device->sink->post(device->sink->self, &event);
}

// Whole pages inside the span only; what is read of them later is zeros.
static void device_trim(void *self, uint64_t offset, uint64_t bytes)
{
    struct cpu_device *device = self;
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    uint64_t first = (offset + page - 1) & ~(page - 1), end = (offset + bytes) & ~(page - 1);
    if (end > first)
        madvise(device->region + first, end - first, MADV_DONTNEED);
}

static void log_times(const struct cpu_device *device)
{
    for (uint32_t row = 0; row < op_count(); row++) {
        const struct op_info *op = op_at(row);
        const struct op_time *time = &device->times[op->number];
        if (time->calls > 0)
            log_write(LOG_INFO, "device", "op=%s calls=%" PRIu64 " total_us=%" PRIu64, op->name, time->calls, time->ns / 1000);
    }
}

static void device_free(struct cpu_device *device)
{
    free(device->times);
    if (device->region != NULL)
        munmap(device->region, device->info.capacity_bytes);
    team_free(device->team);
    free(device->queue);
    free(device->asking.tensor);
    free(device->running.tensor);
    pthread_mutex_destroy(&device->mutex);
    pthread_cond_destroy(&device->more);
    free(device);
}

static void device_stop(void *self)
{
    struct cpu_device *device = self;
    pthread_mutex_lock(&device->mutex);
    device->is_stopping = true;
    pthread_mutex_unlock(&device->mutex);
    atomic_fetch_add_explicit(&device->submitted, 1, memory_order_release);
    pthread_cond_signal(&device->more);
    pthread_join(device->thread, NULL);
    if (device->times != NULL)
        log_times(device);
    device_free(device);
}

static void describe(struct cpu_device *device, uint32_t threads, uint64_t memory_bytes)
{
    struct device_info *info = &device->info;
    strcpy(info->name, "cpu");
    strcpy(info->backend, "cpu");
    strncpy(info->numerics, device->kernels->numerics, sizeof info->numerics - 1);
    info->capacity_bytes = memory_bytes & ~(uint64_t)(HUGE_PAGE_BYTES - 1);
    info->threads = threads;
    for (uint32_t row = 0; row < op_count(); row++) {
        const struct op_info *op = op_at(row);
        if (device->kernels->kernel[op->number].run != NULL || (op->flags & OP_IS_VIEW) != 0)
            info->ops[op->number / 8] = (uint8_t)(info->ops[op->number / 8] | 1u << (op->number % 8));
    }
    device->port = (struct device_port){.info = info,
                                        .self = device,
                                        .can = device_can,
                                        .scratch_bytes = device_scratch_bytes,
                                        .submit = device_submit,
                                        .trim = device_trim,
                                        .stop = device_stop};
}

static enum dj_error map_region(struct cpu_device *device, struct fault *fault)
{
    uint64_t bytes = device->info.capacity_bytes;
    void *region = bytes == 0 ? MAP_FAILED
                              : mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (region == MAP_FAILED)
        return fault_set(fault, DJ_E_SYSTEM,
                         "the device's memory, %" PRIu64
                         " bytes, cannot be mapped (%s); start the worker with a smaller --memory",
                         bytes, bytes == 0 ? "less than 2 MiB" : strerror(errno));
    device->region = region;
    // Weights are read end to end once a token: with 4 KiB pages a matrix-vector product misses the TLB in every row.
    (void)madvise(region, bytes, MADV_HUGEPAGE);
    return DJ_OK;
}

enum dj_error cpu_device_make(const struct cpu_device_config *config, struct device_port **ret, struct fault *fault)
{
    struct cpu_device *device = calloc(1, sizeof *device);
    if (device == NULL)
        return fault_set(fault, DJ_E_NO_MEMORY, "%s", dj_error_text(DJ_E_NO_MEMORY));
    pthread_mutex_init(&device->mutex, NULL);
    pthread_cond_init(&device->more, NULL);
    device->kernels = kernels_cpu();
    device->sink = config->sink;
    device->index = config->index;
    device->capacity = QUEUE_FIRST;
    device->queue = malloc(QUEUE_FIRST * sizeof device->queue[0]);
    if (getenv("DJINN_OP_TIMES") != NULL)
        device->times = calloc(OP_LIMIT, sizeof *device->times);
    uint32_t threads = config->threads == 0 ? cpu_device_default_threads() : config->threads;
    describe(device, threads, config->memory_bytes == 0 ? cpu_device_default_memory_bytes() : config->memory_bytes);
    enum dj_error error = map_region(device, fault);
    if (error == DJ_OK) {
        error = device->queue == NULL ? DJ_E_NO_MEMORY : team_make(threads, &device->team);
        if (error != DJ_OK)
            fault_set(fault, error, "%u threads cannot be started: %s", threads, dj_error_text(error));
    }
    if (error == DJ_OK && pthread_create(&device->thread, NULL, serve, device) != 0)
        error = fault_set(fault, DJ_E_SYSTEM, "the device's thread cannot be started");
    if (error != DJ_OK) {
        device_free(device);
        return error;
    }
    kernels_cpu_pack_limit((size_t)(device->info.capacity_bytes / PACK_DIVISOR));
    *ret = &device->port;
    return DJ_OK;
}
