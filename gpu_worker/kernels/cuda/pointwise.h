// Pointwise: arguments of pointwise.cu. One kernel a type that is computed in; which op and which dtypes are read and written, the
// arguments say.

#ifndef GPU_WORKER_KERNELS_CUDA_POINTWISE_H
#define GPU_WORKER_KERNELS_CUDA_POINTWISE_H

#include <stdint.h>

#include "core/base/error.h"
#include "gpu_worker/kernels/cuda/sweep.h"

enum pointwise_op {
    POINTWISE_IDENTITY,                         // a conversion
#define OP(number, NAME, aten, signature, outputs, infer, dtype_rule, cost, flags) POINTWISE_##NAME = number,
#include "core/ops/ops.def"
#undef OP
    POINTWISE_OPS = 128                         // pointwise ops have numbers below
};

enum { POINTWISE_INPUTS = 3, POINTWISE_ATTRS = 4, POINTWISE_THREADS = 128, POINTWISE_BLOCKS = 5 };
enum { POINTWISE_WIDE = 8, POINTWISE_NARROW = 4, POINTWISE_LONE = 1 };     // elements that a thread takes: the more, the simpler its ops
enum { POINTWISE_ROUND_TRUNC = 1, POINTWISE_ROUND_FLOOR = 2, POINTWISE_GELU_TANH = 1 };

struct pointwise_args {
    void *out;
    const void *in[POINTWISE_INPUTS];           // NULL: the number below
    double number[POINTWISE_INPUTS];            // its bits: of a double, an int64 or a byte, as in_dtype says
    double f[POINTWISE_ATTRS];
    int64_t i[POINTWISE_ATTRS];
    uint8_t has[POINTWISE_ATTRS];
    uint32_t op, mode, inputs;
    uint32_t is_vector;                         // a thread's elements are neighbours, read and written as one
    uint32_t parts;                             // of a chain, in its first part: arguments of the others lie behind
    uint32_t out_dtype, in_dtype[POINTWISE_INPUTS], in_bytes[POINTWISE_INPUTS];
    uint8_t is_one[POINTWISE_INPUTS];           // an input of one value for all of a thread's elements
    uint32_t pad[2];                            // the parts of a chain lie side by side, aligned as arguments are
    uint32_t in_as[POINTWISE_INPUTS], out_as;   // integers are wrapped to these dtypes when read and before they are written
    struct sweep sweep;                         // out and the inputs
};

#ifndef __cplusplus
struct cuda_program;
struct tensor;
// to = from with the sizes of `to`, between real dtypes that differ.
enum dj_error pointwise_emit_conversion(struct cuda_program *program, const struct tensor *from, const struct tensor *to);
#endif

#endif
