// Launch: a program's steps on a lane's stream. Step by step, the arguments go to the device part by part, each part with its
// report before it, zeros that kernels write to. As a graph, they go to the graph's own place.

#include "gpu_worker/device/cuda/state.h"

#include <string.h>

static uint32_t step_bytes(const struct cuda_step *step)
{
    return (step->args_bytes + CUDA_ARGS_ALIGNMENT - 1) & ~(uint32_t)(CUDA_ARGS_ALIGNMENT - 1);
}

static int launch_kernel(struct cuda_device *device, struct lane *lane, const struct cuda_step *step, const struct launch *launch)
{
    const void *args = launch->args + (step->args_offset - launch->args_offset), *report = launch->report;
    unsigned task = step->task;
    void *parameter[] = {&args, &report, &task};

    device->stats.launches++;
    return device->api->cudaLaunchKernel(device->functions.kernel[step->function],
                                         (struct cuda_dim){step->grid_x, step->grid_y, step->grid_z},
                                         (struct cuda_dim){step->block, 1, 1}, parameter, step->shared_bytes, lane->stream);
}

bool steps_launch(struct cuda_device *device, struct lane *lane, const struct launch *launch, uint32_t *ret_task,
                  struct fault *fault)
{
    timing_before_steps(device, lane, launch->end - launch->first);
    for (uint32_t i = launch->first; i < launch->end; i++) {
        const struct cuda_step *step = &lane->program.step[i];
        *ret_task = step->task;
        timing_before(device, lane);
        if (step->function == CUDA_FUNCTION_NONE) {
            enum dj_error error = step->call(lane->program.context + step->args_offset, lane->program.libraries, lane->stream,
                                             fault);
            if (error != DJ_OK) {
                // Libraries report CUDA's sticky errors as their own: the device is asked whether it is still there.
                struct fault own = *fault;
                (void)device_check(device, device->api->cudaGetLastError(), "a library's call", fault);
                *fault = own;
                fault->code = error;
                return false;
            }
        } else if (!function_ready(device, step->function, step->shared_bytes, fault) ||
                   !device_check(device, launch_kernel(device, lane, step, launch), cuda_kernel_names[step->function].name,
                                 fault)) {
            return false;
        }
        timing_after(device, lane, step);
    }
    return true;
}

// The arguments and before them a zeroed report, on their way to `to`; the report's way back comes after the steps.
static bool send_args(struct cuda_device *device, struct lane *lane, uint8_t *pinned, const uint8_t *args, uint32_t bytes,
                      uint8_t *to, struct fault *fault)
{
    memset(pinned, 0, REPORT_BYTES);
    if (bytes > 0)    // a program of library calls has none
        memcpy(pinned + REPORT_BYTES, args, bytes);
    return device_check(device, device->api->cudaMemcpyAsync(to, pinned, REPORT_BYTES + bytes, CUDA_HOST_TO_DEVICE, lane->stream),
                        "copying arguments", fault);
}

static void read_report(struct cuda_device *device, struct lane *lane, struct flight *flight, uint32_t task, uint8_t *pinned,
                        const uint8_t *from)
{
    if (!lane->program.may_fault)
        return;
    memset(pinned, 0, REPORT_BYTES);
    int code = device->api->cudaMemcpyAsync(pinned, from, REPORT_BYTES, CUDA_DEVICE_TO_HOST, lane->stream);
    if (flight_check(device, flight, task, code, "copying from the device"))
        lane_add_read(lane, &(struct read){.from = pinned, .bytes = REPORT_BYTES, .flight = flight});
}

// Steps from the lane's on whose arguments fit a segment. False: no room now.
static bool launch_segment(struct cuda_device *device, struct lane *lane, struct flight *flight)
{
    const struct cuda_program *program = &lane->program;
    struct launch launch = {.first = lane->step, .end = lane->step};
    struct fault fault = {.text = ""};
    uint32_t bytes = 0, task = program->step[lane->step].task;

    for (; launch.end < program->steps; launch.end++) {
        const struct cuda_step *step = &program->step[launch.end];
        if (step->function == CUDA_FUNCTION_NONE)
            continue;
        if (launch.end > launch.first && bytes + step_bytes(step) > SEGMENT_BYTES_MAX)
            break;
        if (bytes == 0)
            launch.args_offset = step->args_offset;
        bytes += step_bytes(step);
    }
    if (bytes > LANE_ARGS_BYTES / 4) {
        fault_set(&fault, DJ_E_LIMIT, "a kernel's arguments have %u bytes; at most %u are taken", bytes,
                  (uint32_t)LANE_ARGS_BYTES / 4);
        flight_fail(flight, task, &fault);
        lane->step = program->steps;
        return true;
    }
    uint64_t all = REPORT_BYTES + bytes;
    if (!lane_has_room(device, lane, all + REPORT_BYTES, all, 1))
        return false;
    uint8_t *pinned = lane_take_pinned(lane, all + REPORT_BYTES);
    launch.report = lane_take_args(lane, all);
    launch.args = launch.report + REPORT_BYTES;
    if (send_args(device, lane, pinned, program->args + launch.args_offset, bytes, launch.report, &fault) &&
        steps_launch(device, lane, &launch, &task, &fault)) {
        lane->step = launch.end;
    } else {
        flight_fail(flight, task, &fault);
        lane->step = program->steps;
    }
    // Also after a failure: a kernel launched before it may have failed earlier.
    if (!device->is_lost)
        read_report(device, lane, flight, task, pinned + all, launch.report);
    return true;
}

static bool launch_graph(struct cuda_device *device, struct lane *lane, struct flight *flight, struct graph *graph)
{
    const struct cuda_program *program = &lane->program;
    uint64_t all = REPORT_BYTES + program->args_bytes;
    struct fault fault = {.text = ""};
    uint32_t task = program->step[0].task;

    uint8_t *pinned = lane_take_pinned(lane, all + REPORT_BYTES), *to = graph_args(device, graph);
    graph->flight = lane->flight_issue;
    if (send_args(device, lane, pinned, program->args, program->args_bytes, to, &fault) &&
        device_check(device, device->api->cudaGraphLaunch(graph->exec, lane->stream), "launching a graph", &fault)) {
        device->stats.graph_launches++;
        flight->graph = graph;
        read_report(device, lane, flight, task, pinned + all, to);
    } else {
        flight_fail(flight, task, &fault);
    }
    lane->step = program->steps;
    return true;
}

bool program_launch(struct cuda_device *device, struct lane *lane, struct flight *flight)
{
    if (lane->step == 0 && lane->program.steps > 0 && lane == &device->lane[DEVICE_COMPUTE] && flight->error == DJ_OK &&
        !timing_is_stepwise(device)) {
        // Room first, so that a program which has to wait is not counted twice.
        if (lane->program.args_bytes <= GRAPH_ARGS_BYTES_MAX - REPORT_BYTES &&
            !lane_has_room(device, lane, lane->program.args_bytes + 2 * REPORT_BYTES, lane->program.args_bytes + REPORT_BYTES, 1))
            return false;
        struct graph *graph = graphs_choose(device, lane);
        if (graph != NULL)
            return launch_graph(device, lane, flight, graph);
    }
    while (lane->step < lane->program.steps && !device->is_lost)
        if (!launch_segment(device, lane, flight))
            return false;
    return true;
}
