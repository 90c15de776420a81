// A driver for no GPU: libcuda.so.1 with the functions that cuDNN looks up before it makes a plan. It says its version, and takes code
// without looking at it, since a plan loads that of its kernels when it is made; whatever else is called says that there is no device.

#include <stddef.h>

#define EXPORT(name, parameters) \
    int name parameters; \
    __attribute__((visibility("default"))) int name parameters

EXPORT(cuDriverGetVersion, (int *ret))
{
    *ret = 13000;
    return 0;
}

static char code, kernel;

EXPORT(cuLibraryLoadData, (void **ret, const void *data, void *options, void **values, unsigned count, void *more, void **others,
                           unsigned other_count))
{
    (void)options, (void)values, (void)count, (void)more, (void)others, (void)other_count;
    *ret = &code;
    return data == NULL;
}

EXPORT(cuLibraryGetKernel, (void **ret, void *library, const char *name))
{
    *ret = &kernel;
    return library != &code || name == NULL;
}

EXPORT(cuLibraryUnload, (void *library))
{
    return library != &code;
}

EXPORT(cuKernelSetAttribute, (int attribute, int value, void *which, int device))
{
    (void)attribute, (void)value, (void)device;
    return which != &kernel;
}

enum { NO_DEVICE = 100 };

#define ABSENT(name) \
    EXPORT(name, (void)) \
    { \
        return NO_DEVICE; \
    }

ABSENT(cuCtxGetCurrent)
ABSENT(cuCtxGetDevice)
ABSENT(cuCtxGetLimit)
ABSENT(cuCtxPopCurrent)
ABSENT(cuCtxPushCurrent)
ABSENT(cuDeviceGet)
ABSENT(cuDeviceGetAttribute)
ABSENT(cuDeviceGetCount)
ABSENT(cuDevicePrimaryCtxRelease)
ABSENT(cuDevicePrimaryCtxReset)
ABSENT(cuDevicePrimaryCtxRetain)
ABSENT(cuFuncGetAttribute)
ABSENT(cuFuncSetAttribute)
ABSENT(cuGetErrorName)
ABSENT(cuGetErrorString)
ABSENT(cuInit)
ABSENT(cuKernelGetAttribute)
ABSENT(cuLaunchCooperativeKernel)
ABSENT(cuLaunchKernel)
ABSENT(cuLaunchKernelEx)
ABSENT(cuLibraryLoadFromFile)
ABSENT(cuLinkAddData)
ABSENT(cuLinkAddData_v2)
ABSENT(cuLinkAddFile_v2)
ABSENT(cuLinkComplete)
ABSENT(cuLinkCreate)
ABSENT(cuLinkCreate_v2)
ABSENT(cuLinkDestroy)
ABSENT(cuMemcpyDtoH_v2)
ABSENT(cuModuleGetFunction)
ABSENT(cuModuleGetGlobal_v2)
ABSENT(cuModuleLoadData)
ABSENT(cuModuleLoadDataEx)
ABSENT(cuModuleLoadFatBinary)
ABSENT(cuModuleUnload)
ABSENT(cuOccupancyMaxActiveBlocksPerMultiprocessor)
ABSENT(cuOccupancyMaxPotentialClusterSize)
ABSENT(cuStreamGetCtx)
ABSENT(cuStreamSynchronize)
ABSENT(cuTensorMapEncodeTiled)
