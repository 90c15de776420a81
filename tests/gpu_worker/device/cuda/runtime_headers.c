// Our declarations of the CUDA runtime (gpu_worker/kernels/cuda/api.h) beside NVIDIA's, by the compiler: this file compiles only when they agree. Where their header is
// not installed there is nothing to compare: cmake leaves it out.
//
// How: our opaque types are made theirs by name, then every function of our table is declared once more as theirs. C refuses a second declaration of another
// type. The few that have enumerations or structures as parameters, which are ints and void pointers in ours, are compared by hand.

#include "tests/lib/case.h"

#include <cuda_runtime_api.h>

#define cuda_stream_object CUstream_st
#define cuda_event_object CUevent_st
#define cuda_graph_object CUgraph_st
#define cuda_graph_exec_object CUgraphExec_st
#define cuda_library_object CUlib_st
#define cuda_kernel_object CUkern_st

// By hand, below: their names are put aside so that the table does not declare them.
#define cudaGetDeviceProperties by_hand_cudaGetDeviceProperties
#define cudaDeviceGetAttribute by_hand_cudaDeviceGetAttribute
#define cudaMemcpyAsync by_hand_cudaMemcpyAsync
#define cudaStreamBeginCapture by_hand_cudaStreamBeginCapture
#define cudaLibraryLoadData by_hand_cudaLibraryLoadData
#define cudaKernelSetAttributeForDevice by_hand_cudaKernelSetAttributeForDevice
#define cudaLaunchKernel by_hand_cudaLaunchKernel
#define cudaIpcGetMemHandle by_hand_cudaIpcGetMemHandle
#define cudaIpcOpenMemHandle by_hand_cudaIpcOpenMemHandle

#include "gpu_worker/kernels/cuda/api.h"

#define X(name, parameters) cudaError_t name parameters;
CUDA_FUNCTIONS(X)
CUDA_IPC_FUNCTIONS(X)
#undef X

#undef cudaGetDeviceProperties
#undef cudaDeviceGetAttribute
#undef cudaMemcpyAsync
#undef cudaStreamBeginCapture
#undef cudaLibraryLoadData
#undef cudaKernelSetAttributeForDevice
#undef cudaLaunchKernel
#undef cudaIpcGetMemHandle
#undef cudaIpcOpenMemHandle

#define IS(name, ...) \
    _Static_assert(__builtin_types_compatible_p(__typeof__(&name), cudaError_t (*)(__VA_ARGS__)), #name " has other parameters")
IS(cudaGetDeviceProperties, struct cudaDeviceProp *, int);
IS(cudaDeviceGetAttribute, int *, enum cudaDeviceAttr, int);
IS(cudaMemcpyAsync, void *, const void *, size_t, enum cudaMemcpyKind, cudaStream_t);
IS(cudaStreamBeginCapture, cudaStream_t, enum cudaStreamCaptureMode);
IS(cudaLibraryLoadData, cudaLibrary_t *, const void *, enum cudaJitOption *, void **, unsigned, enum cudaLibraryOption *, void **,
   unsigned);
IS(cudaKernelSetAttributeForDevice, cudaKernel_t, enum cudaFuncAttribute, int, int);
IS(cudaIpcGetMemHandle, cudaIpcMemHandle_t *, void *);
IS(cudaIpcOpenMemHandle, void **, cudaIpcMemHandle_t, unsigned);
_Static_assert(sizeof(struct cuda_ipc_memory) == sizeof(cudaIpcMemHandle_t), "a handle of memory has another size");
_Static_assert(_Alignof(struct cuda_ipc_memory) == _Alignof(cudaIpcMemHandle_t), "a handle of memory is aligned otherwise");
IS(cudaLaunchKernel, const void *, dim3, dim3, void **, size_t, cudaStream_t);

#define SAYS(name) \
    _Static_assert(__builtin_types_compatible_p(__typeof__(&name), const char *(*)(cudaError_t)), #name " has other parameters")
SAYS(cudaGetErrorString);
SAYS(cudaGetErrorName);

// Enumerations travel as ints, dim3 as our struct.
#define IS_INT(type) _Static_assert(sizeof(type) == sizeof(int), #type " is no int")
IS_INT(cudaError_t);
IS_INT(enum cudaDeviceAttr);
IS_INT(enum cudaMemcpyKind);
IS_INT(enum cudaStreamCaptureMode);
IS_INT(enum cudaFuncAttribute);
_Static_assert(sizeof(struct cuda_dim) == sizeof(dim3), "dim3 has another size");
#define IS_AT(member) \
    _Static_assert(offsetof(struct cuda_dim, member) == offsetof(struct dim3, member), "dim3 has another layout")
IS_AT(x);
IS_AT(y);
IS_AT(z);
_Static_assert(sizeof(struct cudaDeviceProp) <= CUDA_PROPERTIES_BYTES, "the properties need more room");
_Static_assert(offsetof(struct cudaDeviceProp, name) == 0 && sizeof(((struct cudaDeviceProp *)0)->name) == 256,
               "the name lies elsewhere");

#define EQUAL(ours, theirs) _Static_assert((int)(ours) == (int)(theirs), #ours " is not " #theirs)
EQUAL(CUDA_OK, cudaSuccess);
EQUAL(CUDA_INVALID_VALUE, cudaErrorInvalidValue);
EQUAL(CUDA_OUT_OF_MEMORY, cudaErrorMemoryAllocation);
EQUAL(CUDA_UNLOADING, cudaErrorCudartUnloading);
EQUAL(CUDA_DRIVER_TOO_OLD, cudaErrorInsufficientDriver);
EQUAL(CUDA_DEVICES_UNAVAILABLE, cudaErrorDevicesUnavailable);
EQUAL(CUDA_NO_DEVICE, cudaErrorNoDevice);
EQUAL(CUDA_NOT_READY, cudaErrorNotReady);
EQUAL(CUDA_PEER_ALREADY_ENABLED, cudaErrorPeerAccessAlreadyEnabled);
EQUAL(CUDA_CAPTURE_UNSUPPORTED, cudaErrorStreamCaptureUnsupported);
EQUAL(CUDA_CAPTURE_INVALIDATED, cudaErrorStreamCaptureInvalidated);
#define X(name, number, nvidias) EQUAL(name, nvidias);
CUDA_FINAL_ERRORS(X)
#undef X
EQUAL(CUDA_STREAM_NON_BLOCKING, cudaStreamNonBlocking);
EQUAL(CUDA_EVENT_NO_TIMING, cudaEventDisableTiming);
EQUAL(CUDA_HOST_PORTABLE, cudaHostAllocPortable);
EQUAL(CUDA_CAPTURE_THREAD_LOCAL, cudaStreamCaptureModeThreadLocal);
EQUAL(CUDA_IPC_LAZY_PEER_ACCESS, cudaIpcMemLazyEnablePeerAccess);
EQUAL(CUDA_HOST_TO_DEVICE, cudaMemcpyHostToDevice);
EQUAL(CUDA_DEVICE_TO_HOST, cudaMemcpyDeviceToHost);
EQUAL(CUDA_DEVICE_TO_DEVICE, cudaMemcpyDeviceToDevice);
EQUAL(CUDA_ATTR_PROCESSORS, cudaDevAttrMultiProcessorCount);
EQUAL(CUDA_ATTR_L2_BYTES, cudaDevAttrL2CacheSize);
EQUAL(CUDA_ATTR_MAJOR, cudaDevAttrComputeCapabilityMajor);
EQUAL(CUDA_ATTR_MINOR, cudaDevAttrComputeCapabilityMinor);
EQUAL(CUDA_ATTR_SHARED_BYTES_OPTIN, cudaDevAttrMaxSharedMemoryPerBlockOptin);
EQUAL(CUDA_KERNEL_SHARED_BYTES_MAX, cudaFuncAttributeMaxDynamicSharedMemorySize);

static void our_declarations_of_the_runtime_are_nvidias(void **state)
{
    (void)state;
    // The compiler has compared; the version says with what.
    print_message("compared with CUDA %d.%d\n", CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10);
    assert_int_equal(CUDART_VERSION / 1000, 13);
}

CASES(our_declarations_of_the_runtime_are_nvidias)
