// Images: the device code of every family, as nvcc left it in DJ_FATBIN_FOLDER, put into the module's read-only data. A family without device code has an
// empty image.

#include "gpu_worker/device/cuda/images.h"

// Only the assembler can put the bytes of a file into an object.
#define FAMILY(name) \
    __asm__(".section .rodata\n" \
            ".balign 16\n" \
            "djinn_image_" #name ":\n" \
            ".incbin \"" DJ_FATBIN_FOLDER "/" #name ".fatbin\"\n" \
            "djinn_image_" #name "_end:\n" \
            ".byte 0\n" \
            ".previous\n"); \
    extern const char djinn_image_##name[], djinn_image_##name##_end[];
#include "gpu_worker/kernels/cuda/kernels.def"

const struct cuda_image *cuda_images(void)
{
    static struct cuda_image images[CUDA_FAMILIES];

#define FAMILY(name) \
    images[CUDA_FAMILY_##name] = (struct cuda_image){.data = djinn_image_##name, \
                                                     .bytes = (size_t)(djinn_image_##name##_end - djinn_image_##name)};
#include "gpu_worker/kernels/cuda/kernels.def"
    return images;
}
