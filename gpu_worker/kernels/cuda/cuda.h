// Cuda: the kernels of the CUDA backend as the device calls them, and what their host halves share. A family is four files: <family>.cu (device code), <family>.h
// (argument structures, read by both halves), <family>.c (chooses kernels and shapes, writes arguments into a program) and <family>.def (names of its kernels).
//
// The contract is kernel.h's (strides in and out, sizes 0 and 1, PyTorch's semantics, the same bits from run to run where the op carries OP_DET), except that
// nothing runs when `emit` returns: it only writes steps. Tensors' `data` are device addresses, but scalars' (`is_scalar`), which are host addresses: their
// values go into the arguments. An index out of range in the data is found on the device (dj_fail), and its kernel touches nothing outside its tensors.
//
// Numbers: fp32 is computed in fp32 (no TF32 unless asked for), fp16 and bf16 in fp32 and rounded once at the end; sums in an order that depends on shapes only.

#ifndef GPU_WORKER_KERNELS_CUDA_CUDA_H
#define GPU_WORKER_KERNELS_CUDA_CUDA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/ops/op.h"
#include "gpu_worker/kernels/cuda/program.h"
#include "gpu_worker/kernels/cuda/loop.h"
#include "gpu_worker/kernels/kernel.h"

// `call->team` and `call->scratch` are as in kernel.h: no team; scratch is a device address of the bytes that `scratch` said.
struct cuda_entry {
    enum dj_error (*emit)(const struct kernel_call *call, struct cuda_program *program);     // NULL: the backend lacks the op
    kernel_scratch scratch;                     // NULL: none needed
    kernel_can can;                             // NULL: everything that op_infer accepts
};

struct cuda_table {
    struct cuda_entry entry[OP_LIMIT];
};

// Never NULL. Any thread.
const struct cuda_table *kernels_cuda(void);

enum { KERNELS_CUDA_VERSION = 2 };              // counts changes of any kernel's bits: part of the numerics class

// The families' rows.
void cuda_table_pointwise(struct cuda_entry *entry);
void cuda_table_copy(struct cuda_entry *entry);
void cuda_table_random(struct cuda_entry *entry);
void cuda_table_gather(struct cuda_entry *entry);
void cuda_table_scatter(struct cuda_entry *entry);
void cuda_table_reduce(struct cuda_entry *entry);
void cuda_table_sort(struct cuda_entry *entry);
void cuda_table_softmax(struct cuda_entry *entry);
void cuda_table_norm(struct cuda_entry *entry);
void cuda_table_matmul(struct cuda_entry *entry);
void cuda_table_conv(struct cuda_entry *entry);
void cuda_table_pool(struct cuda_entry *entry);
void cuda_table_attention(struct cuda_entry *entry);

// What families share ------------------------------------------------------------------------------------------------------

// Merged loops over tensors of the same sizes: dimensions of size 1 are dropped and neighbours that are contiguous in every tensor are merged, the last
// one innermost. A tensor of fewer dimensions, or of size 1 where others are larger, is broadcast (stride 0). False: more than LOOP_TENSORS_MAX tensors.
bool cuda_loop_make(const struct tensor_meta *sizes, const struct tensor_meta *const *tensor, uint32_t tensors, struct loop *ret);

// Copies with conversion, emitted as steps: what a family does with strides or dtypes that its kernels do not read themselves.
enum dj_error cuda_emit_copy(struct cuda_program *program, const struct tensor *from, const struct tensor *to);

// Scratch as the CPU's families take it: bytes are counted on the first pass (data 0), handed out on the second.
struct cuda_scratch { uint64_t data, used; };
uint64_t cuda_scratch_take(struct cuda_scratch *scratch, uint64_t bytes);      // 256-aligned; the address, or 0 when counting

double cuda_scalar(const struct tensor *tensor);        // of an is_scalar tensor
int64_t cuda_scalar_int(const struct tensor *tensor);

double cuda_attr_double(const struct attr *attr);       // attributes as numbers; 0 where absent
int64_t cuda_attr_int(const struct attr *attr);         // saturates

static inline uint32_t cuda_dim_wrap(int64_t dim, uint32_t rank) { return (uint32_t)(dim < 0 ? dim + (rank == 0 ? 1 : rank) : dim); }

#endif
