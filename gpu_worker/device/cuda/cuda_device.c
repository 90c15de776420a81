// Cuda device: the port, the queue and the thread. The manual is cuda_device.h; what the parts share is in state.h.
//
// The thread issues what it can, looks which marks have come, and has nothing to do until one comes or a list is submitted: for
// SPIN_NS it looks again at once, since a token's execution often follows its predecessor's answer by a few microseconds; then
// it sleeps, but never through a submission. A graph takes about as long as it took before, so its end is slept for and then
// looked for; of other work the thread looks again after an eighth of the time it has taken so far.

#include "gpu_worker/device/cuda/state.h"

#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

#include "core/base/assert.h"
#include "core/base/log.h"

enum {
    QUEUE_FIRST = 64,
    SPIN_NS = 20000,
    SPIN_LOOKS = 64,
    SLEEP_FIRST_NS = 10000,
    SLEEP_LAST_NS = 200000,
    SLEEP_KNOWN_NS = 10000000,
    SLACK_NS = 1000,    // by which the kernel may let a sleep last longer, instead of 50 us
    SECOND_NS = 1000000000
};

uint64_t device_now_ns(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * SECOND_NS + (uint64_t)time.tv_nsec;
}

static void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

static bool lane_is_full(const struct lane *lane)
{
    return lane->flight_tail - lane->flight_head == LANE_FLIGHTS_MAX;
}

static void add_flight(struct cuda_device *device, struct lane *lane, struct device_list *list)
{
    struct flight *flight = &lane->flight[lane->flight_tail++ % LANE_FLIGHTS_MAX];
    cuda_event begin = flight->start, end = flight->end;
    *flight = (struct flight){.list = list, .start = begin, .end = end, .accepted_ns = timing_now(device)};
}

// Lists become flights in the order of submission, so that whatever a list comes after is a flight before it.
static bool accept(struct cuda_device *device, uint64_t *seen)
{
    bool any = false;

    if (atomic_load_explicit(&device->submitted, memory_order_acquire) == *seen && device->head == *seen)
        return false;
    pthread_mutex_lock(&device->mutex);
    *seen = device->tail;
    while (device->head != device->tail) {
        struct device_list *list = device->queue[device->head & (device->capacity - 1)];
        assert(list->stream < DEVICE_STREAMS);
        struct lane *lane = &device->lane[list->stream];
        if (lane_is_full(lane))
            break;
        add_flight(device, lane, list);
        device->head++;
        any = true;
    }
    pthread_mutex_unlock(&device->mutex);
    return any;
}

static bool is_quiet(const struct cuda_device *device)
{
    for (uint32_t i = 0; i < DEVICE_STREAMS; i++)
        if (device->lane[i].flight_head != device->lane[i].flight_tail)
            return false;
    return true;
}

static bool is_told(struct cuda_device *device, uint64_t seen)
{
    return atomic_load_explicit(&device->submitted, memory_order_acquire) != seen;
}

// When the first of the graphs that run should have ended; UINT64_MAX: nobody knows.
static uint64_t expected_end(const struct cuda_device *device)
{
    uint64_t first = UINT64_MAX;

    for (uint32_t i = 0; i < DEVICE_STREAMS; i++) {
        const struct lane *lane = &device->lane[i];
        const struct flight *flight = &lane->flight[lane->flight_head % LANE_FLIGHTS_MAX];
        if (lane->flight_head == lane->flight_tail || !flight->is_issued || flight->graph == NULL ||
            flight->graph->elapsed_ns == 0)
            continue;
        uint64_t begun = flight->issued_ns > lane->ended_ns ? flight->issued_ns : lane->ended_ns;
        if (begun + flight->graph->elapsed_ns < first)
            first = begun + flight->graph->elapsed_ns;
    }
    return first;
}

// How long to sleep when nothing has moved since `since_ns`; 0: look again at once.
static uint64_t sleep_for(const struct cuda_device *device, uint64_t since_ns, uint64_t now)
{
    uint64_t end = expected_end(device), waited = now - since_ns;

    if (waited < SPIN_NS || (end != UINT64_MAX && now + SPIN_NS >= end && now < end + SPIN_NS))
        return 0;
    if (end != UINT64_MAX && now < end)
        return end - now - SPIN_NS < SLEEP_KNOWN_NS ? end - now - SPIN_NS : SLEEP_KNOWN_NS;
    uint64_t sleep_ns = waited / 8 < SLEEP_FIRST_NS ? SLEEP_FIRST_NS : waited / 8;
    return sleep_ns < SLEEP_LAST_NS ? sleep_ns : SLEEP_LAST_NS;
}

// Called with the mutex held: until there is a submission or the time is over.
static void sleep_a_while(struct cuda_device *device, uint64_t ns)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    uint64_t after = (uint64_t)until.tv_nsec + ns;
    until.tv_sec += (time_t)(after / SECOND_NS);
    until.tv_nsec = (long)(after % SECOND_NS);
    pthread_cond_timedwait(&device->more, &device->mutex, &until);
}

// Nothing moved since `since_ns` (0: until now). False: the device is stopping and everything is done.
static bool idle(struct cuda_device *device, uint64_t *since_ns, uint64_t seen)
{
    uint64_t now = device_now_ns();
    bool goes_on = true, is_resting = false;

    if (*since_ns == 0)
        *since_ns = now;
    uint64_t sleep_ns = sleep_for(device, *since_ns, now);
    if (sleep_ns == 0) {
        for (int look = 0; look < SPIN_LOOKS && !is_told(device, seen); look++)
            relax();
        return true;
    }
    pthread_mutex_lock(&device->mutex);
    if (is_quiet(device) && timing_is_due(device)) {
        sleep_a_while(device, TIMING_REST_NS);
        is_resting = device->head == device->tail;
    } else if (is_quiet(device)) {
        while (device->head == device->tail && device->phase == PHASE_RUNNING && device->forgotten_count == 0)
            pthread_cond_wait(&device->more, &device->mutex);
        goes_on = device->head != device->tail || device->phase == PHASE_RUNNING;
    } else if (device->tail == seen) {
        sleep_a_while(device, sleep_ns);
    }
    peers_mark_forgotten(device);
    pthread_mutex_unlock(&device->mutex);
    if (is_resting)
        timing_write(device);
    return goes_on;
}

static const struct device_list *first_out(const struct cuda_device *device)
{
    for (uint32_t i = 0; i < DEVICE_STREAMS; i++)
        if (device->lane[i].flight_head != device->lane[i].flight_tail)
            return device->lane[i].flight[device->lane[i].flight_head % LANE_FLIGHTS_MAX].list;
    return NULL;
}

// The device made anew, with a new context of CUDA's. Where that fails there is none any more.
static void revive(struct cuda_device *device)
{
    struct fault fault;

    device_release(device);
    device->is_lost = false;
    enum dj_error error = device_reserve(device, &fault);
    if (error == DJ_OK && device->is_lost)
        fault = device->lost;
    if (error == DJ_OK && !device->is_lost) {
        log_write(LOG_INFO, "device", "GPU %d (%s) was made anew", device->config.ordinal, device->info.name);
        return;
    }
    device_release(device);
    device->is_lost = device->info.is_gone = true;
    log_write(LOG_ERROR, "device", "GPU %d (%s) cannot be made anew, which takes a new process: %s", device->config.ordinal,
              device->info.name, fault.text);
}

// All lists of the incarnation that lost the device fail, once the device is there for another: whoever hears of the loss may count on that.
static bool after_loss(struct cuda_device *device)
{
    struct device_list *list[DEVICE_STREAMS * LANE_FLIGHTS_MAX];
    const struct device_list *first = first_out(device);
    uint32_t lists = 0;

    if (first == NULL)
        return false;
    if (!device->info.is_gone) {
        device->is_fenced = true;
        device->fenced = first->incarnation;
        device->fence = device->lost;
        device->fence.code = DJ_E_DEVICE_LOST;
        device->info.lives++;
    }
    for (uint32_t i = 0; i < DEVICE_STREAMS; i++)
        for (struct lane *lane = &device->lane[i]; lane->flight_head != lane->flight_tail; lane->flight_head++)
            list[lists++] = lane->flight[lane->flight_head % LANE_FLIGHTS_MAX].list;
    if (!device->info.is_gone)
        revive(device);
    for (uint32_t i = 0; i < lists; i++)
        if (device->info.is_gone || list[i]->incarnation == device->fenced)
            list_fail(device, list[i], &device->fence);
        else
            add_flight(device, &device->lane[list[i]->stream], list[i]);
    return true;
}

static void work(struct cuda_device *device)
{
    uint64_t since_ns = 0, seen = 0;

    for (;;) {
        bool any = accept(device, &seen);
        for (uint32_t i = 0; i < DEVICE_STREAMS; i++)
            any |= lane_issue(device, &device->lane[i]);
        for (uint32_t i = 0; i < DEVICE_STREAMS; i++)
            any |= lane_poll(device, &device->lane[i]);
        if (device->is_lost)
            any |= after_loss(device);
        any |= peers_close_forgotten(device);
        if (any)
            since_ns = 0;
        else if (!idle(device, &since_ns, seen))
            return;
    }
}

static void enter(struct cuda_device *device, enum phase phase)
{
    pthread_mutex_lock(&device->mutex);
    device->phase = phase;
    pthread_cond_broadcast(&device->started);
    pthread_cond_broadcast(&device->more);
    pthread_mutex_unlock(&device->mutex);
}

static void *serve(void *self)
{
    struct cuda_device *device = self;
    (void)prctl(PR_SET_TIMERSLACK, (unsigned long)SLACK_NS);    // of this thread
    enum dj_error error = device_reserve(device, &device->start_fault);
    if (error == DJ_OK) {
        enter(device, PHASE_RUNNING);
        work(device);
    }
    device_release(device);
    if (error != DJ_OK)
        enter(device, PHASE_FAILED);
    return NULL;
}

static bool device_can(void *self, const struct device_task *task)
{
    struct cuda_device *device = self;
    const struct cuda_entry *entry = &kernels_cuda()->entry[task->op->number];
    if (entry->emit == NULL)
        return false;
    if (entry->can == NULL)
        return true;
    if (!operands_fill(&device->asking, task, NULL))
        return false;
    struct kernel_call call = call_of(task, &device->asking, NULL);
    return entry->can(&call);
}

static size_t device_scratch_bytes(void *self, const struct device_task *task)
{
    struct cuda_device *device = self;
    const struct cuda_entry *entry = &kernels_cuda()->entry[task->op->number];
    if (entry->scratch == NULL || !operands_fill(&device->asking, task, NULL))
        return 0;
    struct kernel_call call = call_of(task, &device->asking, NULL);
    return entry->scratch(&call);
}

// Called with the mutex held.
static bool queue_grow(struct cuda_device *device)
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
    struct cuda_device *device = self;
    pthread_mutex_lock(&device->mutex);
    bool has_room = device->tail - device->head < device->capacity || queue_grow(device);
    if (has_room) {
        device->queue[device->tail++ & (device->capacity - 1)] = list;
        atomic_fetch_add_explicit(&device->submitted, 1, memory_order_release);
    }
    pthread_mutex_unlock(&device->mutex);
    if (has_room) {
        pthread_cond_signal(&device->more);
        return;
    }
    list->error = fault_set(&list->fault, DJ_E_NO_MEMORY, "the device's queue cannot grow");
    list->failed_task = UINT32_MAX;
    struct io_event event = {.kind = IO_DEVICE_DONE, .device_done = {.device = device->config.index, .list = list}};
    device->config.sink->post(device->config.sink->self, &event);
}

static void device_forget_peer(void *self, uint64_t incarnation)
{
    struct cuda_device *device = self;
    pthread_mutex_lock(&device->mutex);
    if (device->forgotten_count < CUDA_PEERS_MAX)
        device->forgotten[device->forgotten_count] = incarnation;
    device->forgotten_count += device->forgotten_count <= CUDA_PEERS_MAX;
    pthread_mutex_unlock(&device->mutex);
    pthread_cond_signal(&device->more);
}

static void device_free(struct cuda_device *device)
{
    free(device->queue);
    free(device->asking.tensor);
    free(device->running.tensor);
    timing_free(device);
    pthread_mutex_destroy(&device->mutex);
    pthread_cond_destroy(&device->more);
    pthread_cond_destroy(&device->started);
    free(device);
}

static void device_stop(void *self)
{
    struct cuda_device *device = self;
    enter(device, PHASE_STOPPING);
    pthread_join(device->thread, NULL);
    device_free(device);
}

static void describe(struct cuda_device *device)
{
    struct device_info *info = &device->info;
    strcpy(info->backend, "cuda");
    for (uint32_t row = 0; row < op_count(); row++) {
        const struct op_info *op = op_at(row);
        if (kernels_cuda()->entry[op->number].emit != NULL || (op->flags & OP_IS_VIEW) != 0)
            info->ops[op->number / 8] = (uint8_t)(info->ops[op->number / 8] | 1u << (op->number % 8));
    }
    device->port = (struct device_port){.info = info,
                                        .self = device,
                                        .can = device_can,
                                        .scratch_bytes = device_scratch_bytes,
                                        .submit = device_submit,
                                        .forget_peer = device_forget_peer,
                                        .stop = device_stop};
}

static void make_locks(struct cuda_device *device)
{
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&device->mutex, NULL);
    pthread_cond_init(&device->more, &monotonic);
    pthread_cond_init(&device->started, NULL);
    pthread_condattr_destroy(&monotonic);
}

static enum phase wait_for_start(struct cuda_device *device)
{
    pthread_mutex_lock(&device->mutex);
    while (device->phase == PHASE_STARTING)
        pthread_cond_wait(&device->started, &device->mutex);
    enum phase phase = device->phase;
    pthread_mutex_unlock(&device->mutex);
    return phase;
}

enum dj_error cuda_device_make(const struct cuda_device_config *config, struct device_port **ret, struct fault *fault)
{
    struct cuda_device *device = calloc(1, sizeof *device);
    if (device == NULL)
        return fault_set(fault, DJ_E_NO_MEMORY, "%s", dj_error_text(DJ_E_NO_MEMORY));
    make_locks(device);
    device->config = *config;
    device->api = config->api;
    device->capacity = QUEUE_FIRST;
    device->queue = malloc(QUEUE_FIRST * sizeof device->queue[0]);
    describe(device);
    enum dj_error error = timing_make(device, fault);
    if (error == DJ_OK && device->queue == NULL)
        error = fault_set(fault, DJ_E_NO_MEMORY, "%s", dj_error_text(DJ_E_NO_MEMORY));
    if (error == DJ_OK && pthread_create(&device->thread, NULL, serve, device) != 0)
        error = fault_set(fault, DJ_E_SYSTEM, "the device's thread cannot be started");
    if (error == DJ_OK && wait_for_start(device) == PHASE_FAILED) {
        pthread_join(device->thread, NULL);
        error = fault_set(fault, device->start_fault.code, "%s", device->start_fault.text);
    }
    if (error != DJ_OK) {
        device_free(device);
        return error;
    }
    *ret = &device->port;
    return DJ_OK;
}

struct cuda_device_stats cuda_device_stats(const struct device_port *port)
{
    struct cuda_device *device = port->self;
    pthread_mutex_lock(&device->mutex);
    struct cuda_device_stats stats = device->shown_stats;
    pthread_mutex_unlock(&device->mutex);
    return stats;
}

bool cuda_device_is_lost(const struct device_port *port)
{
    struct cuda_device *device = port->self;
    pthread_mutex_lock(&device->mutex);
    bool is_lost = device->is_shown_lost;
    pthread_mutex_unlock(&device->mutex);
    return is_lost;
}
