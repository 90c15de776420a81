// Start: everything that the device will ever need, made before it says that it is there; and given back at the end. What ran
// out is told with sizes.

#include "gpu_worker/device/cuda/state.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gpu_worker/kernels/cuda/cublaslt.h"
#include "gpu_worker/kernels/cuda/cudnn.h"

enum { REGION_GRAIN = 2 << 20, REGION_PERCENT = 90, CAPABILITY_LEAST = 80 };

static bool is_final(int code)
{
    switch (code) {
#define X(name, number, nvidias) case name:
        CUDA_FINAL_ERRORS(X)
#undef X
        return true;
    default: return false;
    }
}

bool device_check(struct cuda_device *device, int code, const char *what, struct fault *fault)
{
    const struct cuda_api *api = device->api;
    size_t free_bytes, all_bytes;
    struct fault own;

    if (code == CUDA_OK)
        return true;
    (void)api->cudaGetLastError();
    fault_set(&own, DJ_E_DEVICE, "GPU %d (%s): %s: %s (%s)", device->config.ordinal, device->info.name, what,
              api->cudaGetErrorName(code), api->cudaGetErrorString(code));
    // An error that stays is what every call returns from then on, a harmless one too; but while a stream is captured it may be refused.
    // Whether the device is there is then found out by the capture's end.
    if (!device->is_lost && (is_final(code) || (device->has_gpu && !device->libraries.is_capturing &&
                                                api->cudaMemGetInfo(&free_bytes, &all_bytes) != CUDA_OK))) {
        device->is_lost = true;
        device->lost = own;
    }
    if (fault != NULL)
        *fault = own;
    return false;
}

void flight_fail(struct flight *flight, uint32_t task, const struct fault *fault)
{
    if (flight->error != DJ_OK)
        return;
    flight->error = fault->code;
    flight->failed_task = task;
    flight->fault = *fault;
}

bool flight_check(struct cuda_device *device, struct flight *flight, uint32_t task, int code, const char *what)
{
    struct fault fault;
    if (device_check(device, code, what, &fault))
        return true;
    flight_fail(flight, task, &fault);
    return false;
}

static enum dj_error identify(struct cuda_device *device, struct fault *fault)
{
    const struct cuda_api *api = device->api;
    int ordinal = device->config.ordinal, processors, major, minor;
    union {
        char bytes[CUDA_PROPERTIES_BYTES];
        uint64_t align;
    } *properties = calloc(1, sizeof *properties);

    bool is_first = device->info.lives == 0;    // later nothing of it changes, and others may be reading

    if (is_first)
        snprintf(device->info.name, sizeof device->info.name, "unknown");
    if (properties == NULL)
        return fault_set(fault, DJ_E_NO_MEMORY, "%s", dj_error_text(DJ_E_NO_MEMORY));
    device->has_gpu = device_check(device, api->cudaSetDevice(ordinal), "choosing the GPU", fault);
    bool is_known = device->has_gpu &&
                    device_check(device, api->cudaGetDeviceProperties(properties, ordinal), "asking for its properties", fault);
    if (is_known && is_first)
        snprintf(device->info.name, sizeof device->info.name, "%.*s", (int)sizeof device->info.name - 1, properties->bytes);
    free(properties);
    if (!is_known ||
        !device_check(device, api->cudaDeviceGetAttribute(&processors, CUDA_ATTR_PROCESSORS, ordinal), "asking for an attribute",
                      fault) ||
        !device_check(device, api->cudaDeviceGetAttribute(&major, CUDA_ATTR_MAJOR, ordinal), "asking for an attribute", fault) ||
        !device_check(device, api->cudaDeviceGetAttribute(&minor, CUDA_ATTR_MINOR, ordinal), "asking for an attribute", fault))
        return DJ_E_DEVICE;
    if (is_first)
        device->info.threads = (uint32_t)processors;
    device->libraries.processors = (uint32_t)processors;
    device->libraries.capability = (uint32_t)(major * 10 + minor);
    if (device->libraries.capability < CAPABILITY_LEAST)
        return fault_set(fault, DJ_E_NO_DEVICE, "GPU %d (%s) has compute capability %d.%d; djinn's kernels need %d.%d or later",
                         ordinal, device->info.name, major, minor, CAPABILITY_LEAST / 10, CAPABILITY_LEAST % 10);
    return DJ_OK;
}

static enum dj_error open_libraries(struct cuda_device *device, struct fault *fault)
{
    struct cuda_libraries *libraries = &device->libraries;
    const struct cuda_device_config *config = &device->config;

    libraries->api = device->api;
    libraries->allows_tf32 = config->allows_tf32;
    if (config->blas != NULL) {
        int status = config->blas->cublasLtCreate(&libraries->blas_handle);
        if (status != 0)
            return fault_set(fault, DJ_E_DEVICE, "GPU %d (%s): cuBLASLt cannot be started: status %d", config->ordinal,
                             device->info.name, status);
        libraries->blas = config->blas;
        if (matmul_cache_make(&libraries->matmuls) != DJ_OK)
            return fault_set(fault, DJ_E_NO_MEMORY, "%s", dj_error_text(DJ_E_NO_MEMORY));
    }
    if (config->dnn != NULL) {
        int status = config->dnn->cudnnCreate(&libraries->dnn_handle);
        if (status != 0)
            return fault_set(fault, DJ_E_DEVICE, "GPU %d (%s): cuDNN cannot be started: %s", config->ordinal, device->info.name,
                             config->dnn->cudnnGetErrorString(status));
        libraries->dnn = config->dnn;
        libraries->evicting = graphs_evicting;
        libraries->evicting_self = device;
        if (dnn_cache_make(&libraries->plans) != DJ_OK)
            return fault_set(fault, DJ_E_NO_MEMORY, "%s", dj_error_text(DJ_E_NO_MEMORY));
    }
    device->plain = (struct cuda_libraries){.api = libraries->api,
                                            .processors = libraries->processors,
                                            .capability = libraries->capability,
                                            .allows_tf32 = libraries->allows_tf32};
    return DJ_OK;
}

static void say_version(char *text, size_t bytes, const char *name, bool is_there, size_t version)
{
    size_t at = strlen(text);
    if (is_there)
        snprintf(text + at, bytes - at, " %s-%zu", name, version);
    else
        snprintf(text + at, bytes - at, " %s-none", name);
}

static void describe_numerics(struct cuda_device *device)
{
    struct cuda_libraries *libraries = &device->libraries;
    char *text = device->info.numerics;
    size_t bytes = sizeof device->info.numerics;

    snprintf(text, bytes, "cuda sm_%u kernels-%d", libraries->capability, KERNELS_CUDA_VERSION);
    say_version(text, bytes, "cublasLt", libraries->blas != NULL,
                libraries->blas == NULL ? 0 : libraries->blas->cublasLtGetVersion());
    say_version(text, bytes, "cudnn", libraries->dnn != NULL, libraries->dnn == NULL ? 0 : libraries->dnn->cudnnGetVersion());
    size_t at = strlen(text);
    if (libraries->blas != NULL)
        at += (size_t)snprintf(text + at, bytes - at, " products-%016" PRIx64, matmul_numerics(libraries));
    if (libraries->dnn != NULL)
        at += (size_t)snprintf(text + at, bytes - at, " plans-%016" PRIx64, dnn_numerics(libraries));
    snprintf(text + at, bytes - at, " tf32-%s", libraries->allows_tf32 ? "on" : "off");
}

static bool make_lane(struct cuda_device *device, struct lane *lane, struct fault *fault)
{
    const struct cuda_api *api = device->api;

    if (!device_check(device, api->cudaStreamCreateWithPriority(&lane->stream, CUDA_STREAM_NON_BLOCKING, 0), "making a stream",
                      fault))
        return false;
    for (uint32_t i = 0; i < LANE_FLIGHTS_MAX; i++)
        if (!device_check(device, api->cudaEventCreateWithFlags(&lane->flight[i].start, 0), "making an event", fault) ||
            !device_check(device, api->cudaEventCreateWithFlags(&lane->flight[i].end, 0), "making an event", fault))
            return false;
    for (uint32_t i = 0; i < LANE_MARKS_MAX; i++)
        if (!device_check(device, api->cudaEventCreateWithFlags(&lane->mark[i].own, CUDA_EVENT_NO_TIMING), "making an event",
                          fault))
            return false;
    return true;
}

// Device memory; what for is told when there is none.
static enum dj_error reserve(struct cuda_device *device, void **ret, uint64_t bytes, const char *what, struct fault *fault)
{
    size_t free_bytes = 0, all_bytes = 0;

    int code = device->api->cudaMalloc(ret, bytes);
    if (code == CUDA_OK)
        return DJ_OK;
    (void)device_check(device, code, what, fault);
    if (code != CUDA_OUT_OF_MEMORY)
        return DJ_E_DEVICE;
    (void)device->api->cudaMemGetInfo(&free_bytes, &all_bytes);
    return fault_set(fault, DJ_E_DEVICE_MEMORY,
                     "GPU %d (%s) has no %" PRIu64
                     " bytes for %s: %zu of its %zu bytes are free; start the worker with a smaller --memory",
                     device->config.ordinal, device->info.name, bytes, what, free_bytes, all_bytes);
}

static enum dj_error reserve_pinned(struct cuda_device *device, struct fault *fault)
{
    void *memory;

    int code = device->api->cudaHostAlloc(&memory, CUDA_STAGING_BYTES, CUDA_HOST_PORTABLE);
    if (code == CUDA_OK) {
        device->pinned = memory;
        return DJ_OK;
    }
    (void)device_check(device, code, "reserving pinned memory", fault);
    if (code != CUDA_OUT_OF_MEMORY)
        return DJ_E_DEVICE;
    return fault_set(
        fault, DJ_E_DEVICE_MEMORY,
        "GPU %d (%s): this machine does not give %d bytes of pinned memory for copies; the limit of locked memory may be lower",
        device->config.ordinal, device->info.name, (int)CUDA_STAGING_BYTES);
}

static enum dj_error reserve_region(struct cuda_device *device, struct fault *fault)
{
    size_t free_bytes, all_bytes;
    uint64_t bytes = device->config.memory_bytes;
    void *memory;

    if (bytes == 0) {
        if (!device_check(device, device->api->cudaMemGetInfo(&free_bytes, &all_bytes), "asking for free memory", fault))
            return DJ_E_DEVICE;
        bytes = free_bytes / 100 * REGION_PERCENT;
    }
    bytes &= ~(uint64_t)(REGION_GRAIN - 1);
    if (bytes == 0)
        return fault_set(fault, DJ_E_DEVICE_MEMORY, "GPU %d (%s): the device's memory cannot be less than %d bytes",
                         device->config.ordinal, device->info.name, (int)REGION_GRAIN);
    enum dj_error error = reserve(device, &memory, bytes, "the device's memory", fault);
    if (error != DJ_OK)
        return error;
    device->region = memory;
    if (device->info.lives == 0)
        device->info.capacity_bytes = device->config.memory_bytes = bytes;    // of all its lives
    return DJ_OK;
}

static enum dj_error reserve_memory(struct cuda_device *device, struct fault *fault)
{
    void *args;

    enum dj_error error = reserve_pinned(device, fault);
    if (error == DJ_OK)
        error = reserve(device, &args, (uint64_t)DEVICE_STREAMS * LANE_ARGS_BYTES + (uint64_t)GRAPH_UNITS * GRAPH_UNIT_BYTES,
                        "kernels' arguments", fault);
    if (error != DJ_OK)
        return error;
    device->args = args;
    device->graphs.args = device->args + (size_t)DEVICE_STREAMS * LANE_ARGS_BYTES;
    for (uint32_t i = 0; i < DEVICE_STREAMS; i++) {
        struct lane *lane = &device->lane[i];
        lane->pinned = device->pinned + (size_t)i * LANE_PINNED_BYTES;
        lane->args = device->args + (size_t)i * LANE_ARGS_BYTES;
        lane->pinned_ring.bytes = LANE_PINNED_BYTES;
        lane->args_ring.bytes = LANE_ARGS_BYTES;
    }
    if (device->libraries.blas != NULL || device->libraries.dnn != NULL) {
        error = reserve(device, &device->libraries.workspace, WORKSPACE_BYTES, "libraries' workspace", fault);
        if (error != DJ_OK)
            return error;
        device->libraries.workspace_bytes = WORKSPACE_BYTES;
    }
    return reserve_region(device, fault);
}

enum dj_error device_reserve(struct cuda_device *device, struct fault *fault)
{
    enum dj_error error = identify(device, fault);
    if (error == DJ_OK)
        error = open_libraries(device, fault);
    if (error != DJ_OK)
        return error;
    for (uint32_t i = 0; i < DEVICE_STREAMS; i++)
        if (!make_lane(device, &device->lane[i], fault))
            return DJ_E_DEVICE;
    error = reserve_memory(device, fault);
    if (error == DJ_OK && device->info.lives == 0)
        describe_numerics(device);
    return error;
}

// Errors are of no interest any more; what CUDA does not take back goes with the process, or with the reset after a loss.
static void release_lane(struct cuda_device *device, struct lane *lane)
{
    const struct cuda_api *api = device->api;

    cuda_program_free(&lane->program);
    for (uint32_t i = 0; i < LANE_FLIGHTS_MAX; i++) {
        if (lane->flight[i].start != NULL)
            (void)api->cudaEventDestroy(lane->flight[i].start);
        if (lane->flight[i].end != NULL)
            (void)api->cudaEventDestroy(lane->flight[i].end);
    }
    for (uint32_t i = 0; i < LANE_MARKS_MAX; i++)
        if (lane->mark[i].own != NULL)
            (void)api->cudaEventDestroy(lane->mark[i].own);
    if (lane->stream != NULL)
        (void)api->cudaStreamDestroy(lane->stream);
}

void device_release(struct cuda_device *device)
{
    const struct cuda_api *api = device->api;
    struct cuda_libraries *libraries = &device->libraries;

    for (uint32_t i = 0; i < DEVICE_STREAMS; i++)
        if (device->lane[i].stream != NULL)
            (void)api->cudaStreamSynchronize(device->lane[i].stream);
    timing_release(device);
    graphs_release(device);
    functions_release(device);
    if (libraries->blas != NULL) {
        matmul_cache_free(libraries->matmuls, libraries->blas);
        (void)libraries->blas->cublasLtDestroy(libraries->blas_handle);
    }
    if (libraries->dnn != NULL) {
        dnn_cache_free(libraries->plans, libraries->dnn);
        (void)libraries->dnn->cudnnDestroy(libraries->dnn_handle);
    }
    for (uint32_t i = 0; i < DEVICE_STREAMS; i++)
        release_lane(device, &device->lane[i]);
    if (libraries->workspace != NULL)
        (void)api->cudaFree(libraries->workspace);
    if (device->region != NULL)
        (void)api->cudaFree(device->region);
    if (device->args != NULL)
        (void)api->cudaFree(device->args);
    if (device->pinned != NULL)
        (void)api->cudaFreeHost(device->pinned);
    // An error that stays ends only with the context; the next incarnation begins with a new one.
    if (device->is_lost && device->has_gpu)
        (void)api->cudaDeviceReset();
    device->region = device->pinned = device->args = NULL;
    memset(device->lane, 0, sizeof device->lane);
    memset(&device->graphs, 0, sizeof device->graphs);
    memset(&device->functions, 0, sizeof device->functions);
    device->libraries = device->plain = (struct cuda_libraries){0};
}
