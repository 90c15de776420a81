// Images: the device code that the module carries (code/images.c), one fatbin a family.

#ifndef GPU_WORKER_DEVICE_CUDA_IMAGES_H
#define GPU_WORKER_DEVICE_CUDA_IMAGES_H

#include "gpu_worker/device/cuda/cuda_device.h"
#include "gpu_worker/kernels/cuda/program.h"

// CUDA_FAMILIES of them, by enum cuda_family; 0 bytes: the family has no device code. One thread at a time.
const struct cuda_image *cuda_images(void);

#endif
