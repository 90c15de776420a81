// Convolution by cuDNN: calls of its plans as steps of a program.

#ifndef GPU_WORKER_KERNELS_CUDA_CONV_DNN_H
#define GPU_WORKER_KERNELS_CUDA_CONV_DNN_H

#include <stdbool.h>

#include "gpu_worker/kernels/cuda/conv.h"
#include "gpu_worker/kernels/cuda/cuda.h"

enum conv_kind { CONV_FORWARD, CONV_INPUT, CONV_WEIGHT };

// Adds the call of the plan for this convolution; false where cuDNN is absent, or has no engine for it that is deterministic, of full
// precision and within the workspace: then conv.c's own kernel serves. `args` as for conv.cu; the bias is not added.
bool conv_dnn_emit(struct cuda_program *program, enum conv_kind kind, enum dtype dtype, const struct conv_args *args);

#endif
