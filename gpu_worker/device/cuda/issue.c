// Issue: the tasks of a lane's flights, one after the other, as CUDA's copies, fills and launches. Whatever finds no room is
// tried again after the next mark.

#include "gpu_worker/device/cuda/state.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/assert.h"
#include "core/io/blob.h"

// False: the list that it comes after is not issued as a whole yet, or has to be waited for.
static bool wait_for_after(struct cuda_device *device, struct lane *lane, const struct flight *flight)
{
    uint64_t after = flight->list->after;

    for (uint32_t i = 0; i < DEVICE_STREAMS && after != 0; i++) {
        struct lane *other = &device->lane[i];
        for (uint64_t at = other->flight_head; other != lane && at != other->flight_tail; at++) {
            struct flight *before = &other->flight[at % LANE_FLIGHTS_MAX];
            if (before->list->ticket != after)
                continue;
            if (!before->is_issued)
                return false;
            // Where the stream cannot be told to wait, this thread does: what comes later on it relies on the order too.
            return device_check(device, device->api->cudaStreamWaitEvent(lane->stream, before->end, 0),
                                "waiting for another stream", NULL);
        }
    }
    return true;
}

// Faults that a list meets before any of its tasks: `djinn chaos` has asked for them, or its incarnation has lost the device. False: now the
// device is lost.
static bool meet_faults(struct cuda_device *device, struct flight *flight)
{
    const struct device_list *list = flight->list;
    const struct cuda_chaos *chaos = &device->config.chaos;
    struct fault fault;

    if (device->is_fenced && list->incarnation == device->fenced) {
        flight_fail(flight, UINT32_MAX, &device->fence);
    } else if (list->tasks > 0 && list->incarnation != 0 && chaos->loses_all != NULL && chaos->loses_all()) {
        fault_set(&device->lost, DJ_E_DEVICE_LOST, "GPU %d (%s): %s", device->config.ordinal, device->info.name,
                  dj_error_text(DJ_E_DEVICE_LOST));
        device->is_lost = true;
    } else if (list->tasks > 0 && chaos->is_full != NULL && chaos->is_full()) {
        fault_set(&fault, DJ_E_DEVICE_MEMORY, "%s", dj_error_text(DJ_E_DEVICE_MEMORY));
        flight_fail(flight, 0, &fault);
    }
    return !device->is_lost;
}

static bool start(struct cuda_device *device, struct lane *lane, struct flight *flight)
{
    if (!wait_for_after(device, lane, flight) || !meet_faults(device, flight))
        return false;
    flight->is_started = true;
    flight_check(device, flight, UINT32_MAX, device->api->cudaEventRecord(flight->start, lane->stream), "recording an event");
    return true;
}

// Through pinned memory, a chunk at a time, each with its mark, so that this thread's copying overlaps with the bus. False: no room.
static bool move_chunk(struct cuda_device *device, struct lane *lane, struct flight *flight, const struct device_task *task)
{
    uint64_t left = task->bytes - flight->moved_bytes, bytes = left < CUDA_CHUNK_BYTES ? left : CUDA_CHUNK_BYTES;
    bool is_write = task->kind == DEVICE_WRITE, is_chunk = bytes == CUDA_CHUNK_BYTES;
    uint8_t *host = task->blob->data + task->blob_offset + flight->moved_bytes,
            *there = device->region + task->offset + flight->moved_bytes;

    if (!lane_has_room(device, lane, bytes, 0, is_write ? 0 : 1) || (is_chunk && !lane_has_mark(lane)))
        return false;
    uint8_t *pinned = lane_take_pinned(lane, bytes);
    int code;
    if (is_write) {
        memcpy(pinned, host, bytes);
        code = device->api->cudaMemcpyAsync(there, pinned, bytes, CUDA_HOST_TO_DEVICE, lane->stream);
        device->stats.bytes_in += bytes;
    } else {
        code = device->api->cudaMemcpyAsync(pinned, there, bytes, CUDA_DEVICE_TO_HOST, lane->stream);
        device->stats.bytes_out += bytes;
    }
    if (!flight_check(device, flight, flight->task, code, is_write ? "copying to the device" : "copying from the device"))
        return true;
    if (!is_write)
        lane_add_read(lane, &(struct read){.from = pinned, .to = host, .bytes = bytes, .flight = flight});
    flight->moved_bytes += bytes;
    if (is_chunk)
        lane_mark(device, lane, NULL);
    return true;
}

static bool move(struct cuda_device *device, struct lane *lane, struct flight *flight, const struct device_task *task)
{
    if (flight->moved_bytes < task->bytes && !move_chunk(device, lane, flight, task))
        return false;
    if (flight->moved_bytes == task->bytes) {
        flight->moved_bytes = 0;
        flight->task++;
    }
    return true;
}

static void zero(struct cuda_device *device, struct lane *lane, struct flight *flight, const struct device_task *task)
{
    if (task->bytes > 0)
        flight_check(device, flight, flight->task,
                     device->api->cudaMemsetAsync(device->region + task->offset, 0, task->bytes, lane->stream),
                     "filling with zeros");
    flight->task++;
}

static void emit(struct cuda_device *device, struct lane *lane, struct flight *flight, uint32_t number)
{
    const struct device_task *task = &flight->list->task[number];
    const struct cuda_entry *entry = &kernels_cuda()->entry[task->op->number];
    struct fault fault = {.text = ""};
    enum dj_error error = DJ_E_OP_UNSUPPORTED;

    lane->program.task = number;
    if (!operands_fill(&device->running, task, device->region)) {
        error = DJ_E_NO_MEMORY;
    } else if (entry->emit != NULL) {
        struct kernel_call call = call_of(task, &device->running, device->region);
        call.fault = &fault;
        error = entry->emit(&call, &lane->program);
    }
    if (error == DJ_OK)
        error = lane->program.error;
    if (error == DJ_OK)
        return;
    if (fault.text[0] == '\0')
        fault_set(&fault, error, "%s: %s", task->op->name, dj_error_text(error));
    fault.code = error;
    flight_fail(flight, number, &fault);
}

// One program of all kernels that follow each other. What was written before one of them failed is still launched.
static void begin_program(struct cuda_device *device, struct lane *lane, struct flight *flight)
{
    const struct device_list *list = flight->list;
    uint32_t task = flight->task;

    cuda_program_reset(&lane->program);
    lane->program.libraries = lane == &device->lane[DEVICE_COMPUTE] ? &device->libraries : &device->plain;
    for (; task < list->tasks && list->task[task].kind == DEVICE_KERNEL && flight->error == DJ_OK; task++)
        emit(device, lane, flight, task);
    lane->program_end = task;
    lane->step = 0;
    lane->has_program = true;
}

static bool run_program(struct cuda_device *device, struct lane *lane, struct flight *flight)
{
    uint64_t begun = timing_now(device);
    if (!lane->has_program)
        begin_program(device, lane, flight);
    uint64_t written = timing_now(device);
    bool is_launched = program_launch(device, lane, flight);
    timing_program(device, begun, written);
    if (!is_launched)
        return false;
    lane->has_program = false;
    flight->task = lane->program_end;
    return true;
}

static bool issue_task(struct cuda_device *device, struct lane *lane, struct flight *flight)
{
    const struct device_task *task = &flight->list->task[flight->task];

    assert(task->offset <= device->info.capacity_bytes && task->bytes <= device->info.capacity_bytes - task->offset);
    switch ((enum device_task_kind)task->kind) {
    case DEVICE_WRITE:
    case DEVICE_READ: return move(device, lane, flight, task);
    case DEVICE_ZERO: zero(device, lane, flight, task); return true;
    case DEVICE_COPY_PEER: return peer_copy(device, lane, flight, task);
    case DEVICE_KERNEL: return run_program(device, lane, flight);
    }
    return true;
}

bool lane_issue(struct cuda_device *device, struct lane *lane)
{
    uint64_t before = lane->pinned_ring.head;
    bool any = false;

    // No more than a chunk at a time: the other lane has its turn then.
    while (lane->flight_issue != lane->flight_tail && !device->is_lost && lane->pinned_ring.head - before < CUDA_CHUNK_BYTES) {
        struct flight *flight = &lane->flight[lane->flight_issue % LANE_FLIGHTS_MAX];
        if (!flight->is_started && !start(device, lane, flight))
            return any;
        // A program that was begun is launched to its failure; other tasks after a failure are not.
        if (flight->task < flight->list->tasks && (flight->error == DJ_OK || lane->has_program)) {
            if (!issue_task(device, lane, flight))
                return any;
        } else if (lane_has_mark(lane)) {
            flight->is_issued = true;
            flight->issued_ns = device_now_ns();
            lane_mark(device, lane, flight);
            lane->flight_issue++;
        } else {
            return any;
        }
        any = true;
    }
    return any;
}
