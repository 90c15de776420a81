// Timing: see timing.h. Pairs of events are a ring, in the order of the launches; those that have come are summed when a list ends, or
// when the ring is full and its stream was waited for.

#include "gpu_worker/device/cuda/timing.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/log.h"
#include "gpu_worker/device/cuda/state.h"

enum {
    LAUNCH_NS = 10000,    // what a launch between two events takes the host
    DELAYS_MAX = 1024,    // fills before a program
};

struct row {
    const struct op_info *op;
    uint32_t function;      // enum cuda_function; CUDA_FUNCTION_NONE: a library's
    uint32_t bytes_log2;    // of one op's operands; 0: none, or counted at its first step
    uint64_t count, ns, bytes;
};

struct pair {
    cuda_event before, after;
    uint32_t row;
    uint64_t bytes;
};

struct timing {
    char path[TIMING_PATH_MAX];
    bool is_stepwise, is_due, is_recording;
    uint64_t program_ns, launch_ns, list_ns, elapsed_ns, unmeasured;
    uint64_t delays, fill_ns;          // fill_ns 0: not looked at yet
    const struct device_list *list;    // of the step before
    uint32_t task;
    struct pair pair[TIMING_PAIRS];
    uint64_t pair_head, pair_tail;
    struct row row[TIMING_ROWS_MAX];
    uint32_t rows;
};

enum dj_error timing_make(struct cuda_device *device, struct fault *fault)
{
    const char *file = device->config.timing_file;

    if (file == NULL || file[0] == '\0')
        return DJ_OK;
    struct timing *timing = calloc(1, sizeof *timing);
    if (timing == NULL)
        return fault_set(fault, DJ_E_NO_MEMORY, "%s", dj_error_text(DJ_E_NO_MEMORY));
    int length = device->config.ordinal == 0 ? snprintf(timing->path, sizeof timing->path, "%s", file)
                                             : snprintf(timing->path, sizeof timing->path, "%s.%d", file, device->config.ordinal);
    if (length < 0 || (size_t)length >= sizeof timing->path) {
        free(timing);
        return fault_set(fault, DJ_E_INVALID, "the file for the GPU's times has a name of more than %d bytes",
                         TIMING_PATH_MAX - 1);
    }
    timing->is_stepwise = device->config.times_launches;
    timing->is_due = true;    // an empty file says that it is on
    device->timing = timing;
    return DJ_OK;
}

void timing_free(struct cuda_device *device)
{
    free(device->timing);
    device->timing = NULL;
}

bool timing_is_stepwise(const struct cuda_device *device)
{
    return device->timing != NULL && device->timing->is_stepwise;
}

uint64_t timing_now(const struct cuda_device *device)
{
    return device->timing == NULL ? 0 : device_now_ns();
}

// Pairs ---------------------------------------------------------------------------------------------------------------------------

// Errors are of no interest here: whatever is wrong, the device's own calls meet it too.
static void take_pairs(struct cuda_device *device)
{
    struct timing *timing = device->timing;
    float milliseconds;

    for (; timing->pair_head != timing->pair_tail; timing->pair_head++) {
        const struct pair *pair = &timing->pair[timing->pair_head % TIMING_PAIRS];
        int code = device->api->cudaEventQuery(pair->after);
        if (code == CUDA_NOT_READY)
            return;
        if (!device_check(device, code, "asking for a time", NULL) ||
            !device_check(device, device->api->cudaEventElapsedTime(&milliseconds, pair->before, pair->after), "reading a time",
                          NULL)) {
            timing->unmeasured++;
            continue;
        }
        struct row *row = &timing->row[pair->row];
        row->count++;
        row->ns += milliseconds > 0 ? (uint64_t)((double)milliseconds * 1e6) : 0;
        row->bytes += pair->bytes;
    }
}

static bool make_pair(struct cuda_device *device, struct pair *pair)
{
    if (pair->before == NULL &&
        !device_check(device, device->api->cudaEventCreateWithFlags(&pair->before, 0), "making an event", NULL))
        return false;
    return pair->after != NULL ||
           device_check(device, device->api->cudaEventCreateWithFlags(&pair->after, 0), "making an event", NULL);
}

static bool has_pair(struct cuda_device *device, const struct lane *lane)
{
    struct timing *timing = device->timing;

    if (timing->pair_tail - timing->pair_head == TIMING_PAIRS) {
        (void)device_check(device, device->api->cudaStreamSynchronize(lane->stream), "waiting for a stream", NULL);
        take_pairs(device);
    }
    return timing->pair_tail - timing->pair_head < TIMING_PAIRS;
}

void timing_before(struct cuda_device *device, struct lane *lane)
{
    struct timing *timing = device->timing;

    if (!timing_is_stepwise(device) || device->is_lost)
        return;
    timing->is_recording = false;
    if (!has_pair(device, lane))
        return;
    struct pair *pair = &timing->pair[timing->pair_tail % TIMING_PAIRS];
    timing->is_recording = make_pair(device, pair) &&
                           device_check(device, device->api->cudaEventRecord(pair->before, lane->stream), "recording an event",
                                        NULL);
}

// What a tensor has in memory; elements that a stride of 0 repeats are there once.
static uint64_t bytes_in_memory(const struct device_tensor *tensor)
{
    uint64_t count = 1;

    if (tensor->meta.dtype == DTYPE_NONE || tensor->is_scalar)
        return 0;
    for (uint32_t d = 0; d < tensor->meta.rank; d++)
        if (tensor->meta.stride[d] != 0 || tensor->meta.size[d] == 0)
            count *= (uint64_t)tensor->meta.size[d];
    return count * dtype_bytes(tensor->meta.dtype);
}

static uint64_t all_bytes(const struct device_tensor *tensor, uint32_t tensors)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < tensors; i++)
        bytes += bytes_in_memory(&tensor[i]);
    return bytes;
}

// A gather reads as much of its table as it writes.
static uint64_t task_bytes(const struct device_task *task)
{
    uint64_t in = all_bytes(task->in, task->n_in), out = all_bytes(task->out, task->n_out),
             table = task->n_in == 0 ? 0 : bytes_in_memory(&task->in[0]);

    switch (task->op->number) {
    case OP_EMBEDDING:
    case OP_GATHER:
    case OP_INDEX:
    case OP_INDEX_SELECT: return in - table + (table < out ? table : out) + out;
    default: return in + out;
    }
}

// Of the tasks from `first` on that have no step of their own before `end`: what follows a chain's first one is in its launch.
static uint64_t operand_bytes(const struct device_list *list, uint32_t first, uint32_t end)
{
    uint64_t bytes = 0;
    for (uint32_t at = first; at < end || at == first; at++)
        bytes += task_bytes(&list->task[at]);
    return bytes;
}

// The row, made if there is none yet; the last one stands for all that find no room.
static uint32_t find_row(struct timing *timing, const struct op_info *op, uint32_t function, uint64_t bytes)
{
    uint32_t log2 = bytes == 0 ? 0 : 63 - (uint32_t)__builtin_clzll(bytes);

    for (uint32_t i = 0; i < timing->rows; i++) {
        const struct row *row = &timing->row[i];
        if (row->op == op && row->function == function && row->bytes_log2 == log2)
            return i;
    }
    if (timing->rows == TIMING_ROWS_MAX)
        return TIMING_ROWS_MAX - 1;
    timing->row[timing->rows] = (struct row){.op = op, .function = function, .bytes_log2 = log2};
    return timing->rows++;
}

void timing_after(struct cuda_device *device, struct lane *lane, const struct cuda_step *step)
{
    struct timing *timing = device->timing;

    if (!timing_is_stepwise(device) || device->is_lost)
        return;
    if (!timing->is_recording) {
        timing->unmeasured++;
        return;
    }
    const struct device_list *list = lane->flight[lane->flight_issue % LANE_FLIGHTS_MAX].list;
    const struct cuda_step *next = step + 1;
    bool is_last = next == lane->program.step + lane->program.steps;
    bool is_first = timing->list != list || timing->task != step->task;
    struct pair *pair = &timing->pair[timing->pair_tail % TIMING_PAIRS];
    pair->bytes = is_first ? operand_bytes(list, step->task, is_last ? lane->program_end : next->task) : 0;
    pair->row = find_row(timing, list->task[step->task].op, step->function, pair->bytes);
    timing->list = list;
    timing->task = step->task;
    if (device_check(device, device->api->cudaEventRecord(pair->after, lane->stream), "recording an event", NULL))
        timing->pair_tail++;
    else
        timing->unmeasured++;
}

// How long a fill of the workspace takes: the second of two, when nothing has to be made for it any more.
static void look_at_fill(struct cuda_device *device, struct lane *lane)
{
    const struct cuda_libraries *libraries = &device->libraries;
    const struct cuda_api *api = device->api;
    struct timing *timing = device->timing;
    struct pair *pair = &timing->pair[timing->pair_tail % TIMING_PAIRS];
    float milliseconds = 0;

    timing->fill_ns = UINT64_MAX;    // none is worth it
    if (make_pair(device, pair) &&
        api->cudaMemsetAsync(libraries->workspace, 0, libraries->workspace_bytes, lane->stream) == CUDA_OK &&
        api->cudaEventRecord(pair->before, lane->stream) == CUDA_OK &&
        api->cudaMemsetAsync(libraries->workspace, 0, libraries->workspace_bytes, lane->stream) == CUDA_OK &&
        api->cudaEventRecord(pair->after, lane->stream) == CUDA_OK && api->cudaStreamSynchronize(lane->stream) == CUDA_OK &&
        api->cudaEventElapsedTime(&milliseconds, pair->before, pair->after) == CUDA_OK && milliseconds > 0)
        timing->fill_ns = (uint64_t)((double)milliseconds * 1e6) + 1;
    else
        (void)api->cudaGetLastError();
}

void timing_before_steps(struct cuda_device *device, struct lane *lane, uint32_t steps)
{
    struct timing *timing = device->timing;

    if (!timing_is_stepwise(device) || device->is_lost || lane != &device->lane[DEVICE_COMPUTE] ||
        device->libraries.workspace == NULL)
        return;
    if (timing->fill_ns == 0) {
        if (!has_pair(device, lane))
            return;
        look_at_fill(device, lane);
    }
    uint64_t fills = (uint64_t)steps * LAUNCH_NS / timing->fill_ns;
    for (uint64_t i = 0; i < fills && i < DELAYS_MAX; i++, timing->delays++)
        (void)device_check(
            device, device->api->cudaMemsetAsync(device->libraries.workspace, 0, device->libraries.workspace_bytes, lane->stream),
            "filling the workspace", NULL);
}

// Sums ----------------------------------------------------------------------------------------------------------------------------

void timing_program(struct cuda_device *device, uint64_t begun, uint64_t written)
{
    struct timing *timing = device->timing;

    if (timing == NULL)
        return;
    timing->program_ns += written - begun;
    timing->launch_ns += timing_now(device) - written;
}

void timing_list(struct cuda_device *device, const struct flight *flight, uint64_t elapsed_ns)
{
    struct timing *timing = device->timing;

    if (timing == NULL)
        return;
    timing->elapsed_ns += elapsed_ns;
    timing->list_ns += timing_now(device) - flight->accepted_ns;
    timing->is_due = true;
    timing->list = NULL;    // its address may be another's soon
    if (timing->is_stepwise)
        take_pairs(device);
}

// The file ------------------------------------------------------------------------------------------------------------------------

bool timing_is_due(const struct cuda_device *device)
{
    return device->timing != NULL && device->timing->is_due;
}

static void write_rows(const struct timing *timing, FILE *file)
{
    for (uint32_t i = 0; i < timing->rows; i++) {
        const struct row *row = &timing->row[i];
        fprintf(file,
                "%s\n  {\"op\": \"%s\", \"kernel\": \"%s\", \"count\": %" PRIu64 ", \"ns\": %" PRIu64 ", \"bytes\": %" PRIu64 "}",
                i == 0 ? "" : ",", row->op->name,
                row->function == CUDA_FUNCTION_NONE ? "library" : cuda_kernel_names[row->function].name, row->count, row->ns,
                row->bytes);
    }
}

static bool write_file(const struct cuda_device *device, const char *path)
{
    const struct timing *timing = device->timing;
    const struct cuda_device_stats *stats = &device->stats;

    FILE *file = fopen(path, "w");
    if (file == NULL)
        return false;
    fprintf(file, "{\"gpu\": %d, \"is_stepwise\": %s,\n", device->config.ordinal, timing->is_stepwise ? "true" : "false");
    fprintf(file,
            " \"lists\": %" PRIu64 ", \"launches\": %" PRIu64 ", \"graph_launches\": %" PRIu64 ", \"graph_captures\": %" PRIu64
            ",\n",
            stats->lists, stats->launches, stats->graph_launches, stats->graph_captures);
    fprintf(file, " \"graphs\": %" PRIu64 ", \"bytes_in\": %" PRIu64 ", \"bytes_out\": %" PRIu64 ",\n", stats->graphs,
            stats->bytes_in, stats->bytes_out);
    fprintf(file,
            " \"list_ns\": %" PRIu64 ", \"elapsed_ns\": %" PRIu64 ", \"program_ns\": %" PRIu64 ", \"launch_ns\": %" PRIu64 ",\n",
            timing->list_ns, timing->elapsed_ns, timing->program_ns, timing->launch_ns);
    fprintf(file, " \"delays\": %" PRIu64 ", \"unmeasured\": %" PRIu64 ",\n \"kernels\": [", timing->delays, timing->unmeasured);
    write_rows(timing, file);
    fprintf(file, "]}\n");
    bool is_written = ferror(file) == 0;
    return fclose(file) == 0 && is_written;
}

void timing_write(struct cuda_device *device)
{
    struct timing *timing = device->timing;
    char beside[TIMING_PATH_MAX + 8];

    if (timing->is_stepwise && !device->is_lost)
        take_pairs(device);
    timing->is_due = false;
    snprintf(beside, sizeof beside, "%s.new", timing->path);
    if (!write_file(device, beside) || rename(beside, timing->path) != 0)
        log_write(LOG_WARN, "device", "the GPU's times cannot be written to %s", timing->path);
}

void timing_release(struct cuda_device *device)
{
    struct timing *timing = device->timing;

    if (timing == NULL)
        return;
    timing_write(device);
    for (uint32_t i = 0; i < TIMING_PAIRS; i++) {
        if (timing->pair[i].before != NULL)
            (void)device->api->cudaEventDestroy(timing->pair[i].before);
        if (timing->pair[i].after != NULL)
            (void)device->api->cudaEventDestroy(timing->pair[i].after);
        timing->pair[i] = (struct pair){0};
    }
    timing->pair_head = timing->pair_tail = 0;
    timing->fill_ns = 0;
}
