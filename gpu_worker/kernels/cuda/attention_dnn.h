// Attention of prompts by cuDNN: calls of its plans as steps of a program.

#ifndef GPU_WORKER_KERNELS_CUDA_ATTENTION_DNN_H
#define GPU_WORKER_KERNELS_CUDA_ATTENTION_DNN_H

#include <stdbool.h>

#include "gpu_worker/kernels/cuda/attention.h"
#include "gpu_worker/kernels/cuda/cuda.h"

enum {
    ATTENTION_DNN_VERSION_LEAST = 91900,    // of cuDNN: plans of it for these graphs were made, lengths of a family sharing their code
    ATTENTION_DNN_QUERIES_LEAST = 64,       // reasoned: below half a tile of its kernels a plan for each length does not pay
    ATTENTION_DNN_DEPTH_MOST = 128,
    ATTENTION_DNN_GRAIN = 8,                // elements: depths and strides are multiples, so that rows are loaded 16 bytes at a time
};

// Adds the call of the plan for this attention: fp16 and bf16, no mask or the causal one, elements of a head side by side. False:
// attention.cu's kernels serve. `args` as for attention.cu, of `batch` sequences.
bool attention_dnn_emit(struct cuda_program *program, enum dtype dtype, int64_t batch, const struct attention_args *args);

#endif
