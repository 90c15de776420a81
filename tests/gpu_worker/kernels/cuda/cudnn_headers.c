// Our declarations of cuDNN (gpu_worker/kernels/cuda/cudnn.h) beside NVIDIA's, by the compiler: this file compiles only when they agree.
// Where their header is not installed there is nothing to compare: cmake leaves it out.
//
// Numbers: cmake writes each of ours as an assertion about theirs. Functions: theirs stand here with their own types; ours have void
// pointers for handles and descriptors, and ints for enumerations.

#include "tests/lib/case.h"

#include <cudnn.h>

#define IS_NUMBER(name, number) _Static_assert((int)(name) == (number), #name " is another number");
#include "cudnn_numbers.h"

#define SAME(name, returns, takes) \
    _Static_assert(__builtin_types_compatible_p(__typeof__(name), returns takes), #name " is not so in NVIDIA's header")

SAME(cudnnGetVersion, size_t, (void));
SAME(cudnnGetErrorString, const char *, (cudnnStatus_t));
SAME(cudnnGetLastErrorString, void, (char *, size_t));
SAME(cudnnCreate, cudnnStatus_t, (cudnnHandle_t *));
SAME(cudnnDestroy, cudnnStatus_t, (cudnnHandle_t));
SAME(cudnnSetStream, cudnnStatus_t, (cudnnHandle_t, cudaStream_t));
SAME(cudnnBackendCreateDescriptor, cudnnStatus_t, (cudnnBackendDescriptorType_t, cudnnBackendDescriptor_t *));
SAME(cudnnBackendDestroyDescriptor, cudnnStatus_t, (cudnnBackendDescriptor_t));
SAME(cudnnBackendFinalize, cudnnStatus_t, (cudnnBackendDescriptor_t));
SAME(cudnnBackendSetAttribute, cudnnStatus_t,
     (cudnnBackendDescriptor_t, cudnnBackendAttributeName_t, cudnnBackendAttributeType_t, int64_t, const void *));
SAME(cudnnBackendGetAttribute, cudnnStatus_t,
     (cudnnBackendDescriptor_t, cudnnBackendAttributeName_t, cudnnBackendAttributeType_t, int64_t, int64_t *, void *));
SAME(cudnnBackendExecute, cudnnStatus_t, (cudnnHandle_t, cudnnBackendDescriptor_t, cudnnBackendDescriptor_t));

#define IS_INT(type) _Static_assert(sizeof(type) == sizeof(int), #type " is no int")
IS_INT(cudnnStatus_t);
IS_INT(cudnnDataType_t);
IS_INT(cudnnBackendDescriptorType_t);
IS_INT(cudnnBackendAttributeName_t);
IS_INT(cudnnBackendAttributeType_t);
IS_INT(cudnnBackendHeurMode_t);
IS_INT(cudnnBackendNumericalNote_t);
IS_INT(cudnnConvolutionMode_t);
IS_INT(cudnnPointwiseMode_t);
IS_INT(cudnnReduceTensorOp_t);
_Static_assert(sizeof(cudnnHandle_t) == sizeof(void *), "a handle is no pointer");
_Static_assert(sizeof(cudnnBackendDescriptor_t) == sizeof(void *), "a descriptor is no pointer");

static void our_declarations_of_cudnn_are_nvidias(void **state)
{
    (void)state;
    // The compiler has compared; the version says with what.
    print_message("compared with cuDNN %d.%d.%d\n", CUDNN_MAJOR, CUDNN_MINOR, CUDNN_PATCHLEVEL);
    assert_int_equal(CUDNN_MAJOR, 9);
}

CASES(our_declarations_of_cudnn_are_nvidias)
