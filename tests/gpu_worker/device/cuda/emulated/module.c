// The CUDA module with no CUDA in it: gpu_worker/device/cuda as it is, on the fake runtime and the emulator (tests/lib/cuda).
// DJINN_CUDA_MODULE names it, and whole workers run "on GPUs" where there are none: slowly, and with every rule of streams and memory
// checked.
//
// It takes the places of load.c and of the images; DJINN_EMULATED_GPUS says how many GPUs there are (1), of DJINN_EMULATED_GIB each (2).
// With DJINN_EMULATED_CUDNN=1 there is a fake of cuDNN too.

#include <stdlib.h>

#include "core/ops/op.h"
#include "gpu_worker/device/cuda/images.h"
#include "gpu_worker/device/cuda/load.h"
#include "tests/lib/cuda/fake_cudnn.h"
#include "tests/lib/cuda/fake_runtime.h"

enum { SEED = 1, GPUS_MOST = 8, GIB_MOST = 16 };

static int number(const char *name, int otherwise, int most)
{
    const char *text = getenv(name);
    long given = text == NULL ? otherwise : strtol(text, NULL, 10);
    return given < 0 || given > most ? otherwise : (int)given;
}

// The fake has one GPU: each process that was told of several has it under the number that it asks for.
static int set_device(int device)
{
    (void)device;
    return fake_runtime_api()->cudaSetDevice(0);
}

static int get_properties(void *ret, int device)
{
    (void)device;
    return fake_runtime_api()->cudaGetDeviceProperties(ret, 0);
}

static int get_attribute(int *ret, int attribute, int device)
{
    (void)device;
    return fake_runtime_api()->cudaDeviceGetAttribute(ret, attribute, 0);
}

static int set_kernel_attribute(cuda_kernel kernel, int attribute, int value, int device)
{
    (void)device;
    return fake_runtime_api()->cudaKernelSetAttributeForDevice(kernel, attribute, value, 0);
}

enum dj_error cuda_load(struct cuda_load *ret, struct fault *fault)
{
    *ret = (struct cuda_load){.devices = number("DJINN_EMULATED_GPUS", 1, GPUS_MOST)};
    if (ret->devices == 0)
        return fault_set(fault, DJ_E_NO_DEVICE, "no CUDA driver or GPU: none is emulated");
    ops_init();
    fake_runtime_begin(SEED, (uint64_t)number("DJINN_EMULATED_GIB", 2, GIB_MOST) << 30);
    ret->api = *fake_runtime_api();
    ret->api.cudaSetDevice = set_device;
    ret->api.cudaGetDeviceProperties = get_properties;
    ret->api.cudaDeviceGetAttribute = get_attribute;
    ret->api.cudaKernelSetAttributeForDevice = set_kernel_attribute;
    ret->has_dnn = number("DJINN_EMULATED_CUDNN", 0, 1) == 1;
    if (ret->has_dnn) {
        ret->dnn = *fake_cudnn_api();
        fake_cudnn.enqueue = fake_runtime_enqueue;
    }
    return DJ_OK;
}

const struct cuda_image *cuda_images(void)
{
    return fake_runtime_images();
}
