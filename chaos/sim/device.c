// Device: the device port. Every task of a list is a happening of its own, so the tasks of two streams interleave in every way that the port
// allows, and a death can fall between any two. Memory starts as garbage in every life, and scratch is garbage before every task: whoever reads
// what was not written sees another value in another run.

#include "chaos/sim/world.h"

#include "core/base/assert.h"
#include "core/base/hash.h"
#include "core/io/blob.h"

#include <stdlib.h>
#include <string.h>

#define LONG_COPY_NS ((uint64_t)300000000)
#define LONGEST_COPY_NS ((uint64_t)13000000000)    // more than a worker waits for who copies from it

enum {
    LISTS_MAX = 4096,
    SCRATCH_BYTES = 64,
    LONG_COPY_ONE_IN = 2,
    LONGEST_COPY_ONE_IN = 16,
    DEATH_ONE_IN = 2,
    ERRORS_A_LOSS = 8
};

struct stream {
    struct device_list *list[LISTS_MAX];    // a ring
    uint32_t head, tail, next_task;
    bool is_running;    // a task happens soon
    uint64_t started_ns;
};

struct sim_device {
    struct sim *sim;
    uint32_t node, index;
    struct device_info info;
    struct device_port port;
    uint8_t *region;
    uint64_t epoch;    // of the region: its key is for one life of the process, and of the device
    bool is_closed;    // opening it fails
    uint64_t lost;     // the incarnation that lost the device; 0: none
    struct stream stream[DEVICE_STREAMS];
};

static bool device_can(void *self, const struct device_task *task)
{
    (void)self;
    return task->op != NULL;
}

static size_t device_scratch_bytes(void *self, const struct device_task *task)
{
    (void)self, (void)task;
    return SCRATCH_BYTES;
}

static void pump(struct sim_device *device);

static void device_submit(void *self, struct device_list *list)
{
    struct sim_device *device = self;
    assert(list->stream < DEVICE_STREAMS);
    struct stream *stream = &device->stream[list->stream];
    assert(stream->head - stream->tail < LISTS_MAX);
    stream->list[stream->head++ % LISTS_MAX] = list;
    pump(device);
}

static void device_trim(void *self, uint64_t offset, uint64_t bytes)
{
    struct sim_device *device = self;
    assert(offset <= device->info.capacity_bytes && bytes <= device->info.capacity_bytes - offset);
    memset(device->region + offset, 0xDB, bytes);
}

static void device_stop(void *self)
{
    (void)self;
}

struct sim_device *device_make(struct sim *sim, uint32_t node, uint32_t index, uint64_t capacity_bytes)
{
    struct sim_device *device = calloc(1, sizeof *device);
    assert(device != NULL);
    device->sim = sim;
    device->node = node;
    device->index = index;
    device->region = malloc(capacity_bytes);
    assert(device->region != NULL);
    strcpy(device->info.name, "simulated");
    strcpy(device->info.backend, "sim");
    strcpy(device->info.numerics, "sim-1");
    device->info.capacity_bytes = capacity_bytes;
    device->info.threads = 1;
    memset(device->info.ops, 0xFF, sizeof device->info.ops);
    device->port = (struct device_port){
        .info = &device->info,
        .self = device,
        .can = device_can,
        .scratch_bytes = device_scratch_bytes,
        .submit = device_submit,
        .trim = device_trim,
        .stop = device_stop,
    };
    return device;
}

void device_free(struct sim_device *device)
{
    free(device->region);
    free(device);
}

// What COPY_PEER opens.
struct sim_key {
    uint32_t node, index;
    uint64_t epoch;
};

static void make_key(struct sim_device *device)
{
    struct sim_key key = {.node = device->node, .index = device->index, .epoch = ++device->epoch};
    if (device->info.domain[0] == '\0')
        return;
    device->info.key.bytes = sizeof key;
    memcpy(device->info.key.data, &key, sizeof key);
}

void sim_reach(struct device_port *port, const char *domain, bool is_open)
{
    struct sim_device *device = port->self;
    assert(strlen(domain) < sizeof device->info.domain);
    strcpy(device->info.domain, domain);
    device->is_closed = !is_open;
}

struct device_port *device_port_of(struct sim_device *device)
{
    return &device->port;
}

static void fill_with_garbage(struct sim_device *device, uint64_t offset, uint64_t bytes)
{
    uint64_t seed = prng_next(&device->sim->prng), i = 0;
    for (; i + sizeof seed <= bytes; i += sizeof seed)
        memcpy(device->region + offset + i, &seed, sizeof seed);
    memcpy(device->region + offset + i, &seed, bytes - i);
}

static void forget_streams(struct sim_device *device)
{
    for (uint32_t s = 0; s < DEVICE_STREAMS; s++) {
        struct stream *stream = &device->stream[s];
        stream->head = stream->tail = stream->next_task = 0;
        stream->is_running = false;
    }
}

void device_birth(struct sim_device *device)
{
    forget_streams(device);
    device->lost = 0;
    device->info.lives = 0;
    make_key(device);
    fill_with_garbage(device, 0, device->info.capacity_bytes);
}

static bool is_pending(const struct sim_device *device, uint64_t ticket)
{
    for (uint32_t s = 0; s < DEVICE_STREAMS; s++) {
        const struct stream *stream = &device->stream[s];
        for (uint32_t i = stream->tail; i != stream->head; i++) {
            if (stream->list[i % LISTS_MAX]->ticket == ticket)
                return true;
        }
    }
    return false;
}

// Tasks ------------------------------------------------------------------------------------------------------------------

static void check_span(struct sim_device *device, uint64_t offset, uint64_t bytes)
{
    if (offset > device->info.capacity_bytes || bytes > device->info.capacity_bytes - offset)
        sim_fail(device->sim, "a task touches [%llu, +%llu) of a region of %llu bytes", (unsigned long long)offset,
                 (unsigned long long)bytes, (unsigned long long)device->info.capacity_bytes);
}

static void check_tensor(struct sim_device *device, const struct device_tensor *tensor)
{
    if (tensor->meta.dtype == DTYPE_NONE || tensor->is_scalar || tensor_count(&tensor->meta) == 0)
        return;
    check_span(device, tensor->offset, (uint64_t)tensor_span(&tensor->meta) * dtype_bytes(tensor->meta.dtype));
}

// Who opened a region before its owner died goes on reading it, and reads anything.
static bool copy_peer(struct sim_device *device, const struct device_task *task)
{
    struct sim *sim = device->sim;
    struct sim_key key;

    assert(task->peer->key.bytes == sizeof key);
    memcpy(&key, task->peer->key.data, sizeof key);
    assert(key.node < sim->nodes && key.index < sim->node[key.node].devices);
    struct sim_device *peer = sim->node[key.node].device[key.index];
    if (strcmp(peer->info.domain, device->info.domain) != 0)
        sim_fail(sim, "a region of another host is opened");
    if (peer->is_closed)
        return false;
    check_span(device, task->offset, task->bytes);
    check_span(peer, task->blob_offset, task->bytes);
    if (sim->has_failed)
        return true;
    if (peer->epoch != key.epoch || !sim->node[key.node].is_alive) {
        if (prng_chance(&sim->prng, 1, 2))
            return false;
        fill_with_garbage(device, task->offset, task->bytes);
        sim->stats.ghost_copies++;
        return true;
    }
    memcpy(device->region + task->offset, peer->region + task->blob_offset, task->bytes);
    sim->stats.peer_copies++;
    return true;
}

// False: what it names cannot be opened.
static bool run_task(struct sim_device *device, const struct device_task *task)
{
    switch ((enum device_task_kind)task->kind) {
    case DEVICE_KERNEL:
        for (uint32_t i = 0; i < task->n_in; i++)
            check_tensor(device, &task->in[i]);
        for (uint32_t i = 0; i < task->n_out; i++)
            check_tensor(device, &task->out[i]);
        check_span(device, task->offset, task->bytes);
        if (device->sim->has_failed)
            return true;
        fill_with_garbage(device, task->offset, task->bytes);
        value_run(device->region, task);
        return true;
    case DEVICE_WRITE:
        check_span(device, task->offset, task->bytes);
        if (!device->sim->has_failed)
            memcpy(device->region + task->offset, task->blob->data + task->blob_offset, task->bytes);
        return true;
    case DEVICE_READ:
        check_span(device, task->offset, task->bytes);
        if (!device->sim->has_failed)
            memcpy(task->blob->data + task->blob_offset, device->region + task->offset, task->bytes);
        return true;
    case DEVICE_ZERO:
        check_span(device, task->offset, task->bytes);
        if (!device->sim->has_failed)
            memset(device->region + task->offset, 0, task->bytes);
        return true;
    case DEVICE_COPY_PEER: return copy_peer(device, task);
    }
    sim_fail(device->sim, "a task of unknown kind %u", task->kind);
    return true;
}

static void list_is_done(struct sim_device *device, struct stream *stream)
{
    struct device_list *list = stream->list[stream->tail++ % LISTS_MAX];
    stream->next_task = 0;
    list->elapsed_ns = device->sim->now_ns - stream->started_ns;
    struct io_event event = {.kind = IO_DEVICE_DONE};
    event.device_done.device = device->index;
    event.device_done.list = list;
    sim_later_event(device->sim, device->sim->now_ns + sim_random(device->sim, 0, 20000), device->node, &event);
}

// One error in a few takes everything with it; so do all further lists of that incarnation fail.
static void fail_task(struct sim_device *device, struct device_list *list)
{
    struct sim *sim = device->sim;

    sim->stats.device_errors++;
    if (list->incarnation == 0 || !prng_chance(&sim->prng, 1, ERRORS_A_LOSS)) {
        list->error = fault_set(&list->fault, DJ_E_DEVICE, "the simulated device failed");
        return;
    }
    sim->stats.device_losses++;
    device->lost = list->incarnation;
    device->info.lives++;
    make_key(device);
    memset(device->region, 0xDB, device->info.capacity_bytes);
}

static bool is_lost(const struct sim_device *device, struct device_list *list)
{
    if (device->lost == 0 || device->lost != list->incarnation)
        return false;
    list->error = fault_set(&list->fault, DJ_E_DEVICE_LOST, "the simulated device was lost");
    list->failed_task = 0;
    return true;
}

static void task_happens(struct sim *sim, struct happening *happening)
{
    struct sim_device *device = happening->pointer;
    struct stream *stream = &device->stream[happening->number];
    struct device_list *list = stream->list[stream->tail % LISTS_MAX];
    stream->is_running = false;
    if (is_lost(device, list))
        stream->next_task = list->tasks;
    if (stream->next_task < list->tasks) {
        uint32_t index = stream->next_task++;
        sim->stats.tasks++;
        if (sim->now_ns < sim->chaos.until_ns && prng_chance(&sim->prng, sim->options.device_error_per_million, 1000000)) {
            fail_task(device, list);
            (void)is_lost(device, list);
            list->failed_task = index;
            stream->next_task = list->tasks;
        } else if (!run_task(device, &list->task[index])) {
            list->error = fault_set(&list->fault, DJ_E_DEVICE, "the simulated peer's memory cannot be opened");
            list->failed_task = index;
            stream->next_task = list->tasks;
        }
    }
    if (stream->next_task >= list->tasks)
        list_is_done(device, stream);
    pump(device);
}

static void owner_dies(struct sim *sim, void *node)
{
    sim_kill(sim, (uint32_t)(uintptr_t)node, sim_random(sim, 1000000, sim->chaos.restart_max_ns + 1000000));
}

// Copies between devices may take long, so that much happens to the other side meanwhile; now and then it dies, and
// its death may be heard of after the copy.
static uint64_t copy_delay_ns(struct sim *sim, const struct device_task *task)
{
    struct sim_key key;

    memcpy(&key, task->peer->key.data, sizeof key);
    if (!prng_chance(&sim->prng, 1, LONG_COPY_ONE_IN))
        return sim_random(sim, 100, sim->options.task_delay_max_ns);
    bool is_longest = prng_chance(&sim->prng, 1, LONGEST_COPY_ONE_IN);
    uint64_t delay_ns = is_longest ? LONGEST_COPY_NS : sim_random(sim, 100, LONG_COPY_NS);
    uint64_t before_ns = sim_random(sim, 0, sim->options.delay_max_ns),
             death_ns = sim->now_ns + delay_ns - (before_ns < delay_ns ? before_ns : 0);
    if (sim->node[key.node].is_mortal && death_ns < sim->chaos.until_ns && prng_chance(&sim->prng, 1, DEATH_ONE_IN))
        sim_at(sim, death_ns, owner_dies, (void *)(uintptr_t)key.node);
    return delay_ns;
}

static void pump(struct sim_device *device)
{
    for (uint32_t s = 0; s < DEVICE_STREAMS; s++) {
        struct stream *stream = &device->stream[s];
        if (stream->is_running || stream->head == stream->tail)
            continue;
        struct device_list *list = stream->list[stream->tail % LISTS_MAX];
        if (stream->next_task == 0 && list->after != 0 && list->after != list->ticket && is_pending(device, list->after))
            continue;
        if (stream->next_task == 0) {
            stream->started_ns = device->sim->now_ns;
            list->error = DJ_OK;
        }
        stream->is_running = true;
        bool is_copy = stream->next_task < list->tasks && list->task[stream->next_task].kind == DEVICE_COPY_PEER;
        uint64_t delay_ns = is_copy ? copy_delay_ns(device->sim, &list->task[stream->next_task])
                                    : sim_random(device->sim, 100, device->sim->options.task_delay_max_ns);
        struct happening *happening = sim_later(device->sim, device->sim->now_ns + delay_ns, task_happens);
        happening->node = device->node;
        happening->number = s;
        happening->pointer = device;
    }
}

static bool is_task_of(const struct happening *happening, const void *context)
{
    return happening->act == task_happens && happening->pointer == context;
}

void device_death(struct sim_device *device)
{
    sim_cancel(device->sim, is_task_of, device);
    forget_streams(device);
}
