// Lane: rings, marks and what happens when a mark comes. See state.h.

#include "gpu_worker/device/cuda/state.h"

#include <string.h>

#include "core/base/assert.h"
#include "core/io/blob.h"
#include "gpu_worker/kernels/failure.h"

// Where `bytes` in one piece would begin; a piece does not go around the end.
static uint64_t ring_start(const struct ring *ring, uint64_t bytes)
{
    uint64_t at = ring->head % ring->bytes;
    return at + bytes > ring->bytes ? ring->head + (ring->bytes - at) : ring->head;
}

static bool ring_has(const struct ring *ring, uint64_t bytes)
{
    return bytes == 0 || ring_start(ring, bytes) + bytes - ring->tail <= ring->bytes;
}

static uint64_t ring_take(struct ring *ring, uint64_t bytes)
{
    uint64_t start = ring_start(ring, bytes);
    ring->head = start + bytes;
    assert(ring->head - ring->tail <= ring->bytes);
    return start % ring->bytes;
}

bool lane_has_mark(const struct lane *lane)
{
    return lane->mark_tail - lane->mark_head < LANE_MARKS_MAX;
}

static bool has_unmarked(const struct lane *lane)
{
    const struct mark *newest = &lane->mark[(lane->mark_tail - 1) % LANE_MARKS_MAX];
    if (lane->mark_tail == lane->mark_head)
        return lane->pinned_ring.head != lane->pinned_ring.tail || lane->read_tail != lane->read_head;
    return lane->pinned_ring.head != newest->pinned_end || lane->read_tail != newest->reads_end;
}

bool lane_has_room(struct cuda_device *device, struct lane *lane, uint64_t pinned, uint64_t args, uint32_t reads)
{
    assert(place_bytes(pinned) <= lane->pinned_ring.bytes / 2 && place_bytes(args) <= lane->args_ring.bytes / 2);
    if (ring_has(&lane->pinned_ring, place_bytes(pinned)) && ring_has(&lane->args_ring, place_bytes(args)) &&
        lane->read_tail - lane->read_head + reads <= LANE_READS_MAX)
        return true;
    // An older mark may be what frees it; if none is out, or they are all there are, this one does.
    if (has_unmarked(lane) && lane_has_mark(lane))
        lane_mark(device, lane, NULL);
    return false;
}

uint8_t *lane_take_pinned(struct lane *lane, uint64_t bytes)
{
    return lane->pinned + ring_take(&lane->pinned_ring, place_bytes(bytes));
}

uint8_t *lane_take_args(struct lane *lane, uint64_t bytes)
{
    return lane->args + ring_take(&lane->args_ring, place_bytes(bytes));
}

void lane_add_read(struct lane *lane, const struct read *read)
{
    assert(lane->read_tail - lane->read_head < LANE_READS_MAX);
    lane->read[lane->read_tail++ % LANE_READS_MAX] = *read;
}

void lane_mark(struct cuda_device *device, struct lane *lane, struct flight *ends)
{
    struct flight *flight = ends != NULL ? ends : &lane->flight[lane->flight_issue % LANE_FLIGHTS_MAX];

    assert(lane_has_mark(lane));
    struct mark *mark = &lane->mark[lane->mark_tail++ % LANE_MARKS_MAX];
    mark->ends = ends;
    mark->pinned_end = lane->pinned_ring.head;
    mark->args_end = lane->args_ring.head;
    mark->reads_end = lane->read_tail;
    int code = device->api->cudaEventRecord(ends != NULL ? ends->end : mark->own, lane->stream);
    mark->is_come = code != CUDA_OK;
    // Without an event nobody would hear of the end, so it is waited for here; if that is refused too, the device cannot be
    // used any more.
    if (!flight_check(device, flight, flight->task, code, "recording an event") && !device->is_lost) {
        code = device->api->cudaStreamSynchronize(lane->stream);
        if (!device_check(device, code, "waiting for a stream", &device->lost))
            device->is_lost = true;
    }
}

// The first failure of a list in the order of its tasks: kernels report after what the host saw.
static void look_at_report(struct flight *flight, const uint8_t *from)
{
    struct cuda_report report;
    struct fault fault;

    memcpy(&report, from, sizeof report);
    uint32_t task = cuda_report_task(&report);
    if (report.first == 0 || (flight->error != DJ_OK && flight->failed_task <= task))
        return;
    const char *name = task < flight->list->tasks && flight->list->task[task].op != NULL ? flight->list->task[task].op->name
                                                                                         : "a kernel";
    (void)failure_say(&fault, (enum failure)(uint32_t)report.first, name, report.value, report.size);
    flight->error = DJ_OK;
    flight_fail(flight, task, &fault);
}

static void post(struct cuda_device *device, struct device_list *list)
{
    pthread_mutex_lock(&device->mutex);
    device->stats.lists++;
    device->shown_stats = device->stats;
    device->is_shown_lost = device->is_lost;
    pthread_mutex_unlock(&device->mutex);
    struct io_event event = {.kind = IO_DEVICE_DONE, .device_done = {.device = device->config.index, .list = list}};
    device->config.sink->post(device->config.sink->self, &event);
}

static void finish(struct cuda_device *device, struct lane *lane, struct flight *flight, bool has_end)
{
    float milliseconds = 0;

    assert(flight == &lane->flight[lane->flight_head % LANE_FLIGHTS_MAX]);
    // Time is for information: a list does not fail because it could not be taken.
    if (has_end && flight->is_started &&
        !device_check(device, device->api->cudaEventElapsedTime(&milliseconds, flight->start, flight->end), "reading a time",
                      NULL))
        milliseconds = 0;
    uint64_t elapsed_ns = milliseconds > 0 ? (uint64_t)((double)milliseconds * 1e6) : 0;
    timing_list(device, flight, elapsed_ns);
    if (flight->graph != NULL)
        flight->graph->elapsed_ns = elapsed_ns;
    lane->flight_head++;
    lane->ended_ns = device_now_ns();
    struct device_list *list = flight->list;
    list->error = flight->error;
    list->failed_task = flight->failed_task;
    if (flight->error != DJ_OK)
        list->fault = flight->fault;
    else
        list->fault.code = DJ_OK;
    list->elapsed_ns = elapsed_ns;
    flight->list = NULL;
    post(device, list);
}

static void settle(struct cuda_device *device, struct lane *lane, const struct mark *mark)
{
    for (; lane->read_head != mark->reads_end; lane->read_head++) {
        const struct read *read = &lane->read[lane->read_head % LANE_READS_MAX];
        if (read->to == NULL)
            look_at_report(read->flight, read->from);
        else
            memcpy(read->to, read->from, read->bytes);
    }
    lane->pinned_ring.tail = mark->pinned_end;
    lane->args_ring.tail = mark->args_end;
    if (mark->ends != NULL)
        finish(device, lane, mark->ends, !mark->is_come);
}

bool lane_poll(struct cuda_device *device, struct lane *lane)
{
    bool any = false;

    while (lane->mark_head != lane->mark_tail && !device->is_lost) {
        struct mark *mark = &lane->mark[lane->mark_head % LANE_MARKS_MAX];
        if (!mark->is_come) {
            int code = device->api->cudaEventQuery(mark->ends != NULL ? mark->ends->end : mark->own);
            if (code == CUDA_NOT_READY)
                return any;
            struct flight *flight = mark->ends != NULL ? mark->ends : &lane->flight[lane->flight_head % LANE_FLIGHTS_MAX];
            if (!flight_check(device, flight, flight->task, code, "asking for an event")) {
                if (!device->is_lost && !device_check(device, device->api->cudaStreamSynchronize(lane->stream),
                                                      "waiting for a stream", &device->lost))
                    device->is_lost = true;
                mark->is_come = true;
                continue;
            }
        }
        lane->mark_head++;
        settle(device, lane, mark);
        any = true;
    }
    return any;
}

void list_fail(struct cuda_device *device, struct device_list *list, const struct fault *fault)
{
    list->error = fault->code;
    list->failed_task = UINT32_MAX;
    list->fault = *fault;
    list->elapsed_ns = 0;
    post(device, list);
}
