// Functions: handles of kernels; the device code of a family is loaded when the first of its kernels is launched.

#include "gpu_worker/device/cuda/state.h"

static const char *const family_names[CUDA_FAMILIES] = {
#define FAMILY(name) [CUDA_FAMILY_##name] = #name,
#include "gpu_worker/kernels/cuda/kernels.def"
};

static bool library_ready(struct cuda_device *device, enum cuda_family family, struct fault *fault)
{
    const struct cuda_image *image = &device->config.image[family];

    if (device->functions.library[family] != NULL)
        return true;
    if (image->bytes == 0) {
        fault_set(fault, DJ_E_UNSUPPORTED, "this build has no device code of the kernels \"%s\"", family_names[family]);
        return false;
    }
    int code = device->api->cudaLibraryLoadData(&device->functions.library[family], image->data, NULL, NULL, 0, NULL, NULL, 0);
    if (device_check(device, code, "loading device code", fault))
        return true;
    fault_wrap(fault, "the kernels \"%s\"", family_names[family]);
    device->functions.library[family] = NULL;
    return false;
}

bool function_ready(struct cuda_device *device, uint32_t function, uint32_t shared_bytes, struct fault *fault)
{
    const struct cuda_kernel_name *name = &cuda_kernel_names[function];
    struct functions *functions = &device->functions;

    if (functions->kernel[function] == NULL) {
        cuda_kernel kernel;
        if (!library_ready(device, name->family, fault))
            return false;
        int code = device->api->cudaLibraryGetKernel(&kernel, functions->library[name->family], name->name);
        if (!device_check(device, code, name->name, fault))
            return false;
        functions->kernel[function] = kernel;
    }
    // Without being asked CUDA gives 48 KiB in all, and how much of that the kernel has of its own (DJ_SHARED) is not known here.
    if (shared_bytes <= functions->shared_bytes[function])
        return true;
    int code = device->api->cudaKernelSetAttributeForDevice(functions->kernel[function], CUDA_KERNEL_SHARED_BYTES_MAX,
                                                            (int)shared_bytes, device->config.ordinal);
    if (!device_check(device, code, name->name, fault))
        return false;
    functions->shared_bytes[function] = shared_bytes;
    return true;
}

void functions_release(struct cuda_device *device)
{
    for (uint32_t i = 0; i < CUDA_FAMILIES; i++)
        if (device->functions.library[i] != NULL)
            (void)device->api->cudaLibraryUnload(device->functions.library[i]);
}
