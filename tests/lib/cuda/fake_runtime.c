// Fake runtime: CUDA's functions. See fake_runtime.h and fake_state.h.

#include <stdio.h>
#include <string.h>

#include "tests/lib/cuda/fake_state.h"

// The functions -------------------------------------------------------------------------------------------------------------

#define FAKE(name, parameters) static int fake_##name parameters

FAKE(cudaRuntimeGetVersion, (int *ret))
{
    ENTER(cudaRuntimeGetVersion);
    *ret = 13000;
    return fake_leave(CUDA_OK);
}

FAKE(cudaDriverGetVersion, (int *ret))
{
    ENTER(cudaDriverGetVersion);
    *ret = 13000;
    return fake_leave(CUDA_OK);
}

FAKE(cudaGetDeviceCount, (int *ret))
{
    ENTER(cudaGetDeviceCount);
    *ret = 1;
    return fake_leave(CUDA_OK);
}

FAKE(cudaSetDevice, (int device))
{
    ENTER(cudaSetDevice);
    fake_has_device = true;
    return fake_leave(device == 0 ? CUDA_OK : 101);
}

FAKE(cudaDeviceReset, (void))
{
    int early = fake_enter(F_cudaDeviceReset);
    fake_kill_everything();
    fake_state.last = CUDA_OK;
    if (!fake_state.keeps_fault)
        fake_state.sticky = CUDA_OK;
    fake_state.capturing = NULL;
    return fake_leave(early);
}

FAKE(cudaGetDeviceProperties, (void *ret, int device))
{
    (void)device;
    ENTER(cudaGetDeviceProperties);
    memset(ret, 0, CUDA_PROPERTIES_BYTES);
    strcpy(ret, "Fake GPU");
    return fake_leave(CUDA_OK);
}

FAKE(cudaDeviceGetAttribute, (int *ret, int attribute, int device))
{
    (void)device;
    ENTER(cudaDeviceGetAttribute);
    *ret = attribute == CUDA_ATTR_PROCESSORS           ? 132
           : attribute == CUDA_ATTR_MAJOR              ? fake_state.capability / 10
           : attribute == CUDA_ATTR_MINOR              ? fake_state.capability % 10
           : attribute == CUDA_ATTR_SHARED_BYTES_OPTIN ? SHARED_MOST
                                                       : 0;
    return fake_leave(CUDA_OK);
}

FAKE(cudaDeviceGetPCIBusId, (char *ret, int length, int device))
{
    (void)device;
    ENTER(cudaDeviceGetPCIBusId);
    snprintf(ret, (size_t)length, "0000:01:00.0");
    return fake_leave(CUDA_OK);
}

FAKE(cudaDeviceCanAccessPeer, (int *ret, int device, int peer))
{
    (void)device, (void)peer;
    ENTER(cudaDeviceCanAccessPeer);
    *ret = 0;
    return fake_leave(CUDA_OK);
}

FAKE(cudaDeviceEnablePeerAccess, (int peer, unsigned flags))
{
    (void)peer, (void)flags;
    ENTER(cudaDeviceEnablePeerAccess);
    return fake_leave(CUDA_INVALID_VALUE);
}

FAKE(cudaMemGetInfo, (size_t * ret_free, size_t *ret_all))
{
    ENTER_UNCAPTURED(cudaMemGetInfo);
    *ret_free = fake_state.device_bytes - fake_state.used_bytes;
    *ret_all = fake_state.device_bytes;
    return fake_leave(CUDA_OK);
}

FAKE(cudaMalloc, (void **ret, size_t bytes))
{
    ENTER_UNCAPTURED(cudaMalloc);
    return fake_leave(fake_reserve(ret, bytes, false));
}

FAKE(cudaHostAlloc, (void **ret, size_t bytes, unsigned flags))
{
    (void)flags;
    ENTER_UNCAPTURED(cudaHostAlloc);
    return fake_leave(fake_reserve(ret, bytes, true));
}

FAKE(cudaFree, (void *data))
{
    ENTER_RELEASE(cudaFree);
    fake_give_back(data, false);
    return fake_leave(early);
}

FAKE(cudaFreeHost, (void *data))
{
    ENTER_RELEASE(cudaFreeHost);
    fake_give_back(data, true);
    return fake_leave(early);
}

FAKE(cudaMemcpyAsync, (void *to, const void *from, size_t bytes, int direction, cuda_stream stream))
{
    ENTER(cudaMemcpyAsync);
    STREAM_OF(stream);
    fake_check_memory(to, bytes, direction == CUDA_DEVICE_TO_HOST);
    fake_check_memory(from, bytes, direction == CUDA_HOST_TO_DEVICE);
    return fake_leave(fake_enqueue(stream, &(struct operation){.kind = COPY, .to = to, .from = from, .bytes = bytes}));
}

FAKE(cudaMemcpyPeerAsync, (void *to, int to_device, const void *from, int from_device, size_t bytes, cuda_stream stream))
{
    (void)to_device, (void)from_device;
    ENTER(cudaMemcpyPeerAsync);
    STREAM_OF(stream);
    fake_check_memory(to, bytes, false);
    fake_check_memory(from, bytes, false);
    return fake_leave(fake_enqueue(stream, &(struct operation){.kind = COPY, .to = to, .from = from, .bytes = bytes}));
}

FAKE(cudaMemsetAsync, (void *to, int value, size_t bytes, cuda_stream stream))
{
    ENTER(cudaMemsetAsync);
    STREAM_OF(stream);
    fake_check_memory(to, bytes, false);
    return fake_leave(fake_enqueue(stream, &(struct operation){.kind = FILL, .to = to, .value = value, .bytes = bytes}));
}

FAKE(cudaStreamCreateWithPriority, (cuda_stream * ret, unsigned flags, int priority))
{
    (void)flags, (void)priority;
    ENTER_UNCAPTURED(cudaStreamCreateWithPriority);
    *ret = fake_make_object(STREAM, sizeof **ret);
    return fake_leave(CUDA_OK);
}

FAKE(cudaStreamDestroy, (cuda_stream stream))
{
    ENTER_RELEASE(cudaStreamDestroy);
    STREAM_OF(stream);
    while (stream->queue.first != NULL && fake_state.sticky == CUDA_OK)
        if (!fake_step())
            fake_die("a stream is destroyed whose operations can never run");
    stream->object.is_dead = true;
    return fake_leave(early);
}

FAKE(cudaStreamSynchronize, (cuda_stream stream))
{
    ENTER_UNCAPTURED(cudaStreamSynchronize);
    STREAM_OF(stream);
    while (stream->queue.first != NULL && fake_state.sticky == CUDA_OK)
        if (!fake_step())
            fake_die("a stream is waited for whose operations can never run");
    return fake_leave(fake_state.sticky);
}

FAKE(cudaStreamWaitEvent, (cuda_stream stream, cuda_event event, unsigned flags))
{
    (void)flags;
    ENTER(cudaStreamWaitEvent);
    STREAM_OF(stream);
    EVENT_OF(event);
    if (stream->capture != NULL)
        fake_die("a wait between streams is captured");
    return fake_leave(fake_enqueue(stream, &(struct operation){.kind = WAIT, .event = event, .turn = event->asked}));
}

FAKE(cudaEventCreateWithFlags, (cuda_event * ret, unsigned flags))
{
    ENTER(cudaEventCreateWithFlags);
    *ret = fake_make_object(EVENT, sizeof **ret);
    (*ret)->is_timed = (flags & CUDA_EVENT_NO_TIMING) == 0;
    return fake_leave(CUDA_OK);
}

FAKE(cudaEventDestroy, (cuda_event event))
{
    ENTER_RELEASE(cudaEventDestroy);
    EVENT_OF(event);
    event->object.is_dead = true;
    return fake_leave(early);
}

FAKE(cudaEventRecord, (cuda_event event, cuda_stream stream))
{
    ENTER(cudaEventRecord);
    STREAM_OF(stream);
    EVENT_OF(event);
    if (stream->capture != NULL)
        fake_die("an event is captured");
    return fake_leave(fake_enqueue(stream, &(struct operation){.kind = RECORD, .event = event, .turn = ++event->asked}));
}

FAKE(cudaEventQuery, (cuda_event event))
{
    ENTER_UNCAPTURED(cudaEventQuery);
    EVENT_OF(event);
    fake_burst();
    return fake_leave(fake_state.sticky != CUDA_OK ? fake_state.sticky : event->done >= event->asked ? CUDA_OK : CUDA_NOT_READY);
}

FAKE(cudaEventSynchronize, (cuda_event event))
{
    ENTER_UNCAPTURED(cudaEventSynchronize);
    EVENT_OF(event);
    while (event->done < event->asked && fake_state.sticky == CUDA_OK)
        if (!fake_step())
            fake_die("an event is waited for that can never come");
    return fake_leave(fake_state.sticky);
}

FAKE(cudaEventElapsedTime, (float *ret_ms, cuda_event start, cuda_event end))
{
    ENTER(cudaEventElapsedTime);
    EVENT_OF(start);
    EVENT_OF(end);
    if (!start->is_timed || !end->is_timed || start->asked == 0 || end->asked == 0)
        return fake_leave(INVALID_HANDLE);
    if (start->done < start->asked || end->done < end->asked)
        return fake_leave(CUDA_NOT_READY);
    *ret_ms = (float)(end->time - start->time) * 0.001f;
    return fake_leave(CUDA_OK);
}

FAKE(cudaStreamBeginCapture, (cuda_stream stream, int mode))
{
    ENTER(cudaStreamBeginCapture);
    if (mode != CUDA_CAPTURE_THREAD_LOCAL)
        fake_die("a capture that other threads would disturb");
    STREAM_OF(stream);
    if (fake_state.capturing != NULL)
        fake_die("two captures at once");
    stream->capture = fake_make_object(GRAPH, sizeof *stream->capture);
    stream->is_invalid = false;
    fake_state.capturing = stream;
    return fake_leave(CUDA_OK);
}

FAKE(cudaStreamEndCapture, (cuda_stream stream, cuda_graph *ret))
{
    ENTER_RELEASE(cudaStreamEndCapture);
    STREAM_OF(stream);
    if (stream->capture == NULL)
        fake_die("a capture ends that has not begun");
    bool is_whole = early == CUDA_OK && !stream->is_invalid;
    *ret = is_whole ? stream->capture : NULL;
    if (!is_whole) {
        stream->capture->object.is_dead = true;
        fake_drop(&stream->capture->operations);
    }
    stream->capture = NULL;
    fake_state.capturing = NULL;
    return fake_leave(is_whole ? CUDA_OK : early != CUDA_OK ? early : CUDA_CAPTURE_INVALIDATED);
}

FAKE(cudaGraphInstantiate, (cuda_graph_exec * ret, cuda_graph graph, unsigned long long flags))
{
    (void)flags;
    ENTER_UNCAPTURED(cudaGraphInstantiate);
    fake_check_object(graph, GRAPH, "a graph that is not there");
    *ret = fake_make_object(EXEC, sizeof **ret);
    for (const struct operation *at = graph->operations.first; at != NULL; at = at->next)
        fake_append(&(*ret)->operations, at);
    return fake_leave(CUDA_OK);
}

FAKE(cudaGraphUpload, (cuda_graph_exec graph, cuda_stream stream))
{
    ENTER_UNCAPTURED(cudaGraphUpload);
    fake_check_object(graph, EXEC, "a graph that is not there");
    STREAM_OF(stream);
    return fake_leave(CUDA_OK);
}

FAKE(cudaGraphLaunch, (cuda_graph_exec graph, cuda_stream stream))
{
    ENTER(cudaGraphLaunch);
    fake_check_object(graph, EXEC, "a graph that is not there");
    STREAM_OF(stream);
    return fake_leave(fake_enqueue(stream, &(struct operation){.kind = REPLAY, .exec = graph}));
}

FAKE(cudaGraphExecDestroy, (cuda_graph_exec graph))
{
    ENTER_RELEASE(cudaGraphExecDestroy);
    fake_check_object(graph, EXEC, "a graph that is not there");
    graph->object.is_dead = true;
    return fake_leave(early);
}

FAKE(cudaGraphDestroy, (cuda_graph graph))
{
    ENTER_RELEASE(cudaGraphDestroy);
    fake_check_object(graph, GRAPH, "a graph that is not there");
    graph->object.is_dead = true;
    return fake_leave(early);
}

FAKE(cudaLibraryLoadData, (cuda_library * ret, const void *code, const void *jit_options, const void *jit_values,
                           unsigned jit_count, const void *options, const void *values, unsigned count))
{
    (void)jit_options, (void)jit_values, (void)jit_count, (void)options, (void)values, (void)count;
    ENTER_UNCAPTURED(cudaLibraryLoadData);
    const struct fake_image *image = code;
    if (image < fake_images || image >= fake_images + CUDA_FAMILIES || image->magic != IMAGE_MAGIC)
        fake_die("device code that is not the fake's");
    *ret = fake_make_object(LIBRARY, sizeof **ret);
    (*ret)->family = image->family;
    return fake_leave(CUDA_OK);
}

FAKE(cudaLibraryUnload, (cuda_library library))
{
    ENTER_RELEASE(cudaLibraryUnload);
    fake_check_object(library, LIBRARY, "device code that is not loaded");
    library->object.is_dead = true;
    return fake_leave(early);
}

FAKE(cudaLibraryGetKernel, (cuda_kernel * ret, cuda_library library, const char *name))
{
    ENTER_UNCAPTURED(cudaLibraryGetKernel);
    fake_check_object(library, LIBRARY, "device code that is not loaded");
    for (unsigned f = 1; f < CUDA_FUNCTIONS_END; f++) {
        if (strcmp(cuda_kernel_names[f].name, name) != 0 || (uint32_t)cuda_kernel_names[f].family != library->family)
            continue;
        *ret = fake_make_object(KERNEL_HANDLE, sizeof **ret);
        **ret = (struct cuda_kernel_object){
            .object = (*ret)->object, .library = library, .kernel = emulator_find(f), .shared_most = SHARED_UNASKED};
        return fake_leave(CUDA_OK);
    }
    return fake_leave(500);
}

FAKE(cudaKernelSetAttributeForDevice, (cuda_kernel kernel, int attribute, int value, int device))
{
    (void)device;
    ENTER_UNCAPTURED(cudaKernelSetAttributeForDevice);
    fake_check_object(kernel, KERNEL_HANDLE, "a kernel that is not there");
    if (attribute != CUDA_KERNEL_SHARED_BYTES_MAX || value > SHARED_MOST)
        return fake_leave(CUDA_INVALID_VALUE);
    kernel->shared_most = value;
    return fake_leave(CUDA_OK);
}

FAKE(cudaLaunchKernel,
     (const void *function, struct cuda_dim grid, struct cuda_dim block, void **args, size_t shared_bytes, cuda_stream stream))
{
    ENTER(cudaLaunchKernel);
    const struct cuda_kernel_object *kernel = function;
    fake_check_object(kernel, KERNEL_HANDLE, "a kernel that is not there");
    fake_check_object(kernel->library, LIBRARY, "a kernel of device code that was unloaded");
    STREAM_OF(stream);
    struct emulator_launch launch = {.grid = {grid.x, grid.y, grid.z}, .block = block.x, .shared_bytes = shared_bytes};
    memcpy(&launch.args, args[0], sizeof launch.args);
    memcpy(&launch.fault, args[1], sizeof launch.fault);
    memcpy(&launch.task, args[2], sizeof launch.task);
    fake_check_memory(launch.args, 1, false);
    fake_check_memory(launch.fault, sizeof(struct cuda_report), false);
    if (block.x == 0 || block.x > kernel->kernel->threads_max || block.y != 1 || block.z != 1 || grid.x == 0 || grid.y == 0 ||
        grid.z == 0 || grid.y > 65535 || grid.z > 65535 || shared_bytes > (size_t)kernel->shared_most)
        return fake_leave(CUDA_INVALID_VALUE);
    return fake_leave(fake_enqueue(
        stream, &(struct operation){.kind = LAUNCH, .to = (uint8_t *)launch.fault, .kernel = kernel->kernel, .launch = launch}));
}

FAKE(cudaGetLastError, (void))
{
    (void)fake_enter(F_cudaGetLastError);
    int last = fake_state.sticky != CUDA_OK ? fake_state.sticky : fake_state.last;
    fake_state.last = CUDA_OK;
    (void)fake_leave(CUDA_OK);
    return last;
}

static const char *error_name(int error)
{
    return error == CUDA_ILLEGAL_ADDRESS ? "cudaErrorIllegalAddress"
           : error == CUDA_OUT_OF_MEMORY ? "cudaErrorMemoryAllocation"
                                         : "cudaErrorUnknown";
}

static const char *error_text(int error)
{
    return error == CUDA_ILLEGAL_ADDRESS ? "an illegal memory access was encountered"
           : error == CUDA_OUT_OF_MEMORY ? "out of memory"
                                         : "unknown error";
}

const struct cuda_api *fake_runtime_api(void)
{
    static const struct cuda_api api = {
#define X(name, parameters) .name = fake_##name,
        CUDA_FUNCTIONS(X)
#undef X
            .cudaGetErrorString = error_text,
        .cudaGetErrorName = error_name};
    return &api;
}
