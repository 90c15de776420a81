// Graphs: programs that recur are captured and from then on replayed with one launch. A graph owns the place of its arguments, so that
// what it was captured with stays true: new arguments go there before each launch, in the order of the stream.
//
// A captured library call holds kernels whose code may belong to a plan of cuDNN. So before a plan goes, the stream's work is waited for,
// all graphs with library calls go, and their programs are counted anew: one that is captured later has run step by step since, and every
// plan that it needs is there and has run.

#include "gpu_worker/device/cuda/state.h"

#include <string.h>

#include "core/base/log.h"

uint8_t *graph_args(struct cuda_device *device, const struct graph *graph)
{
    return device->graphs.args + (size_t)graph->place * GRAPH_UNIT_BYTES;
}

// A graph may still run as long as the flight of its newest launch is out.
static bool is_idle(const struct cuda_device *device, const struct graph *graph)
{
    return graph->exec == NULL || graph->flight < device->lane[DEVICE_COMPUTE].flight_head;
}

static void forget(struct cuda_device *device, struct graph *graph)
{
    if (graph->exec == NULL)
        return;
    memset(device->graphs.is_taken + graph->place, 0, graph->units);
    device->stats.graphs--;
    (void)device_check(device, device->api->cudaGraphExecDestroy(graph->exec), "destroying a graph", NULL);
    graph->exec = NULL;
    graph->seen = 0;
}

// The graph of this key, else the place of the one that was used longest ago; NULL: all of them run.
static struct graph *find(struct cuda_device *device, struct hash128 key, bool has_calls)
{
    struct graph *oldest = NULL;

    for (uint32_t i = 0; i < GRAPH_KEYS_MAX; i++) {
        struct graph *graph = &device->graphs.graph[i];
        if (graph->used != 0 && hash128_equal(graph->key, key))
            return graph;
        if (is_idle(device, graph) && (oldest == NULL || graph->used < oldest->used))
            oldest = graph;
    }
    if (oldest == NULL)
        return NULL;
    forget(device, oldest);
    *oldest = (struct graph){.key = key, .has_calls = has_calls};
    return oldest;
}

// The first run of free units that is long enough.
static bool find_run(const struct graphs *graphs, uint32_t units, uint32_t *ret)
{
    uint32_t free_units = 0;

    for (uint32_t i = 0; i < GRAPH_UNITS; i++) {
        free_units = graphs->is_taken[i] ? 0 : free_units + 1;
        if (free_units == units) {
            *ret = i + 1 - units;
            return true;
        }
    }
    return false;
}

// A place for so many bytes of arguments; captured graphs that were used longest ago make room if need be. False: those that are left run.
static bool find_place(struct cuda_device *device, uint32_t args_bytes, struct graph *ret)
{
    ret->units = (REPORT_BYTES + args_bytes + GRAPH_UNIT_BYTES - 1) / GRAPH_UNIT_BYTES;
    while (device->stats.graphs >= CUDA_GRAPHS_MAX || !find_run(&device->graphs, ret->units, &ret->place)) {
        struct graph *oldest = NULL;
        for (uint32_t i = 0; i < GRAPH_KEYS_MAX; i++) {
            struct graph *graph = &device->graphs.graph[i];
            if (graph->exec != NULL && is_idle(device, graph) && (oldest == NULL || graph->used < oldest->used))
                oldest = graph;
        }
        if (oldest == NULL)
            return false;
        forget(device, oldest);
    }
    return true;
}

// The steps of the lane's program as a graph of CUDA's, nothing of it run.
// NOLINTNEXTLINE(readability-non-const-parameter): kernels write the report there
static bool record(struct cuda_device *device, struct lane *lane, uint8_t *args, cuda_graph *ret, struct fault *fault)
{
    const struct cuda_api *api = device->api;
    struct launch launch = {.end = lane->program.steps, .args = args + REPORT_BYTES, .report = args};
    uint64_t launches = device->stats.launches;
    uint32_t task;

    // Loading device code is not allowed while a stream is captured.
    for (uint32_t i = 0; i < lane->program.steps; i++) {
        const struct cuda_step *step = &lane->program.step[i];
        if (step->function != CUDA_FUNCTION_NONE && !function_ready(device, step->function, step->shared_bytes, fault))
            return false;
    }
    if (!device_check(device, api->cudaStreamBeginCapture(lane->stream, CUDA_CAPTURE_THREAD_LOCAL), "beginning a capture", fault))
        return false;
    device->libraries.is_capturing = true;
    bool is_whole = steps_launch(device, lane, &launch, &task, fault);
    device->libraries.is_capturing = false;
    device->stats.launches = launches;
    cuda_graph graph = NULL;
    // The capture is ended in any case: the stream would take nothing else before.
    bool is_ended = device_check(device, api->cudaStreamEndCapture(lane->stream, &graph), "ending a capture",
                                 is_whole ? fault : NULL);
    if (is_whole && is_ended) {
        *ret = graph;
        return true;
    }
    if (graph != NULL)
        (void)api->cudaGraphDestroy(graph);
    return false;
}

static bool capture(struct cuda_device *device, struct lane *lane, struct graph *graph, struct fault *fault)
{
    const struct cuda_api *api = device->api;
    uint8_t *args = graph_args(device, graph);
    cuda_graph steps = NULL;
    cuda_graph_exec exec = NULL;

    if (!record(device, lane, args, &steps, fault))
        return false;
    bool is_made = device_check(device, api->cudaGraphInstantiate(&exec, steps, 0), "making a graph", fault);
    (void)device_check(device, api->cudaGraphDestroy(steps), "destroying a graph", NULL);
    if (!is_made)
        return false;
    graph->exec = exec;
    memset(device->graphs.is_taken + graph->place, true, graph->units);
    device->stats.graph_captures++;
    device->stats.graphs++;
    // Only an advance of what the first launch would do.
    (void)device_check(device, api->cudaGraphUpload(exec, lane->stream), "uploading a graph", NULL);
    return true;
}

struct graph *graphs_choose(struct cuda_device *device, struct lane *lane)
{
    const struct cuda_program *program = &lane->program;
    struct fault fault = {.text = ""};

    if (program->steps < GRAPH_STEPS_MIN || program->args_bytes > GRAPH_ARGS_BYTES_MAX - REPORT_BYTES)
        return NULL;
    struct graph *graph = find(device, cuda_program_key(program), program->context_bytes > 0);
    if (graph == NULL)
        return NULL;
    graph->used = ++device->graphs.clock;
    graph->seen++;
    if (graph->exec != NULL)
        return graph;
    if (graph->is_eager || graph->seen < CUDA_GRAPH_AFTER || !find_place(device, program->args_bytes, graph))
        return NULL;
    if (capture(device, lane, graph, &fault))
        return graph;
    graph->is_eager = true;
    log_write(LOG_WARN, "device", "a program of %u steps cannot be captured as a graph and is launched step by step: %s",
              program->steps, fault.text);
    return NULL;
}

void graphs_evicting(void *self)
{
    struct cuda_device *device = self;

    (void)device_check(device, device->api->cudaStreamSynchronize(device->lane[DEVICE_COMPUTE].stream), "waiting for a stream",
                       NULL);
    for (uint32_t i = 0; i < GRAPH_KEYS_MAX; i++) {
        struct graph *graph = &device->graphs.graph[i];
        if (!graph->has_calls)
            continue;
        forget(device, graph);
        graph->seen = 0;
    }
}

void graphs_release(struct cuda_device *device)
{
    for (uint32_t i = 0; i < GRAPH_KEYS_MAX; i++)
        forget(device, &device->graphs.graph[i]);
}
