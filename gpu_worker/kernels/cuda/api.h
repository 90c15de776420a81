// Cuda api: the functions of the CUDA runtime that Djinn calls, as a table. The device fills it from libcudart.so.13 (device/cuda/load.h), tests from
// their fake of it, so nothing of NVIDIA's is needed to build this folder or to link it.
//
// Declarations are our own; tests/gpu_worker/device/cuda/runtime_headers.c compares them with NVIDIA's header where there is one. Handles are opaque, errors are
// cudaError_t's numbers.

#ifndef GPU_WORKER_KERNELS_CUDA_API_H
#define GPU_WORKER_KERNELS_CUDA_API_H

#include <stddef.h>
#include <stdint.h>

typedef struct cuda_stream_object *cuda_stream;
typedef struct cuda_event_object *cuda_event;
typedef struct cuda_graph_object *cuda_graph;
typedef struct cuda_graph_exec_object *cuda_graph_exec;
typedef struct cuda_library_object *cuda_library;
typedef struct cuda_kernel_object *cuda_kernel;

struct cuda_dim { unsigned x, y, z; };
struct cuda_ipc_memory { char reserved[64]; };

// Errors that stay: after one, whatever the context is asked for fails. X(name, number, NVIDIA's name).
#define CUDA_FINAL_ERRORS(X)                                              \
    X(CUDA_ECC, 214, cudaErrorECCUncorrectable)                           \
    X(CUDA_NVLINK, 220, cudaErrorNvlinkUncorrectable)                     \
    X(CUDA_CONTAINED, 226, cudaErrorContained)                            \
    X(CUDA_ILLEGAL_ADDRESS, 700, cudaErrorIllegalAddress)                 \
    X(CUDA_LAUNCH_TIMEOUT, 702, cudaErrorLaunchTimeout)                   \
    X(CUDA_CONTEXT_DESTROYED, 709, cudaErrorContextIsDestroyed)           \
    X(CUDA_ASSERTION, 710, cudaErrorAssert)                               \
    X(CUDA_STACK_ERROR, 714, cudaErrorHardwareStackError)                 \
    X(CUDA_ILLEGAL_INSTRUCTION, 715, cudaErrorIllegalInstruction)         \
    X(CUDA_MISALIGNED_ADDRESS, 716, cudaErrorMisalignedAddress)           \
    X(CUDA_ADDRESS_SPACE, 717, cudaErrorInvalidAddressSpace)              \
    X(CUDA_INVALID_PC, 718, cudaErrorInvalidPc)                           \
    X(CUDA_LAUNCH_FAILED, 719, cudaErrorLaunchFailure)                    \
    X(CUDA_TENSOR_MEMORY_LEAK, 721, cudaErrorTensorMemoryLeak)            \
    X(CUDA_MPS_TERMINATED, 810, cudaErrorMpsClientTerminated)             \
    X(CUDA_EXTERNAL_DEVICE, 911, cudaErrorExternalDevice)

enum cuda_error {
    CUDA_OK = 0,
    CUDA_INVALID_VALUE = 1,
    CUDA_OUT_OF_MEMORY = 2,
    CUDA_UNLOADING = 4,
    CUDA_DRIVER_TOO_OLD = 35,           // also: no driver at all
    CUDA_DEVICES_UNAVAILABLE = 46,
    CUDA_NO_DEVICE = 100,
    CUDA_NOT_READY = 600,
    CUDA_PEER_ALREADY_ENABLED = 704,
    CUDA_CAPTURE_UNSUPPORTED = 900,
    CUDA_CAPTURE_INVALIDATED = 901,
#define X(name, number, nvidias) name = number,
    CUDA_FINAL_ERRORS(X)
#undef X
};

enum { CUDA_STREAM_NON_BLOCKING = 1, CUDA_EVENT_NO_TIMING = 2, CUDA_HOST_PORTABLE = 1, CUDA_CAPTURE_THREAD_LOCAL = 1, CUDA_IPC_LAZY_PEER_ACCESS = 1 };
enum { CUDA_HOST_TO_DEVICE = 1, CUDA_DEVICE_TO_HOST = 2, CUDA_DEVICE_TO_DEVICE = 3 };
enum { CUDA_ATTR_PROCESSORS = 16, CUDA_ATTR_L2_BYTES = 38, CUDA_ATTR_MAJOR = 75, CUDA_ATTR_MINOR = 76, CUDA_ATTR_SHARED_BYTES_OPTIN = 97 };
enum { CUDA_KERNEL_SHARED_BYTES_MAX = 8 };
enum { CUDA_PROPERTIES_BYTES = 8192 };      // room for cudaDeviceProp of any version; only its first 256 bytes, the name, are read

// X(name, (parameters)): `int name parameters`, by the runtime's own names.
#define CUDA_FUNCTIONS(X)                                                                                                    \
    X(cudaRuntimeGetVersion, (int *ret))                                                                                     \
    X(cudaDriverGetVersion, (int *ret))                                                                                      \
    X(cudaGetDeviceCount, (int *ret))                                                                                        \
    X(cudaSetDevice, (int device))                                                                                           \
    X(cudaDeviceReset, (void))                                                                                               \
    X(cudaGetDeviceProperties, (void *ret, int device))                                                                      \
    X(cudaDeviceGetAttribute, (int *ret, int attribute, int device))                                                         \
    X(cudaDeviceGetPCIBusId, (char *ret, int length, int device))                                                            \
    X(cudaDeviceCanAccessPeer, (int *ret, int device, int peer))                                                             \
    X(cudaDeviceEnablePeerAccess, (int peer, unsigned flags))                                                                \
    X(cudaMemGetInfo, (size_t *ret_free, size_t *ret_all))                                                                   \
    X(cudaMalloc, (void **ret, size_t bytes))                                                                                \
    X(cudaFree, (void *data))                                                                                                \
    X(cudaHostAlloc, (void **ret, size_t bytes, unsigned flags))                                                             \
    X(cudaFreeHost, (void *data))                                                                                            \
    X(cudaMemcpyAsync, (void *to, const void *from, size_t bytes, int direction, cuda_stream stream))                       \
    X(cudaMemcpyPeerAsync, (void *to, int to_device, const void *from, int from_device, size_t bytes, cuda_stream stream))  \
    X(cudaMemsetAsync, (void *to, int value, size_t bytes, cuda_stream stream))                                             \
    X(cudaStreamCreateWithPriority, (cuda_stream *ret, unsigned flags, int priority))                                       \
    X(cudaStreamDestroy, (cuda_stream stream))                                                                               \
    X(cudaStreamSynchronize, (cuda_stream stream))                                                                           \
    X(cudaStreamWaitEvent, (cuda_stream stream, cuda_event event, unsigned flags))                                          \
    X(cudaEventCreateWithFlags, (cuda_event *ret, unsigned flags))                                                           \
    X(cudaEventDestroy, (cuda_event event))                                                                                  \
    X(cudaEventRecord, (cuda_event event, cuda_stream stream))                                                               \
    X(cudaEventQuery, (cuda_event event))                                                                                    \
    X(cudaEventSynchronize, (cuda_event event))                                                                              \
    X(cudaEventElapsedTime, (float *ret_ms, cuda_event start, cuda_event end))                                              \
    X(cudaStreamBeginCapture, (cuda_stream stream, int mode))                                                                \
    X(cudaStreamEndCapture, (cuda_stream stream, cuda_graph *ret))                                                           \
    X(cudaGraphInstantiate, (cuda_graph_exec *ret, cuda_graph graph, unsigned long long flags))                             \
    X(cudaGraphUpload, (cuda_graph_exec graph, cuda_stream stream))                                                          \
    X(cudaGraphLaunch, (cuda_graph_exec graph, cuda_stream stream))                                                          \
    X(cudaGraphExecDestroy, (cuda_graph_exec graph))                                                                         \
    X(cudaGraphDestroy, (cuda_graph graph))                                                                                  \
    X(cudaLibraryLoadData, (cuda_library *ret, const void *code, const void *jit_options, const void *jit_values,           \
                            unsigned jit_count, const void *options, const void *values, unsigned count))                   \
    X(cudaLibraryUnload, (cuda_library library))                                                                             \
    X(cudaLibraryGetKernel, (cuda_kernel *ret, cuda_library library, const char *name))                                     \
    X(cudaKernelSetAttributeForDevice, (cuda_kernel kernel, int attribute, int value, int device))                          \
    X(cudaLaunchKernel, (const void *kernel, struct cuda_dim grid, struct cuda_dim block, void **args, size_t shared_bytes, \
                         cuda_stream stream))                                                                                \
    X(cudaGetLastError, (void))

// X(name, (parameters)): likewise, and NULL where the runtime has none of that name. One process opens another's memory with them; containers may forbid it.
#define CUDA_IPC_FUNCTIONS(X)                                                                                                \
    X(cudaIpcGetMemHandle, (struct cuda_ipc_memory *ret, void *data))                                                       \
    X(cudaIpcOpenMemHandle, (void **ret, struct cuda_ipc_memory memory, unsigned flags))                                    \
    X(cudaIpcCloseMemHandle, (void *data))

struct cuda_api {
#define X(name, parameters) int (*name) parameters;
    CUDA_FUNCTIONS(X)
    CUDA_IPC_FUNCTIONS(X)
#undef X
    const char *(*cudaGetErrorString)(int error);
    const char *(*cudaGetErrorName)(int error);
};

#endif
