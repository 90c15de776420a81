// Cpu: what the kernel families of the CPU backend share: the strided loop, conversion, scratch, and the rows of the table.
// Private to this folder.

#ifndef GPU_WORKER_KERNELS_CPU_H
#define GPU_WORKER_KERNELS_CPU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/ops/op.h"
#include "gpu_worker/kernels/kernel.h"
#include "gpu_worker/kernels/simd.h"

enum {
    LOOP_OPERANDS_MAX = DJ_RANK_MAX + 3,
    BLOCK_ELEMENTS = 1024,          // what a pointwise loop converts at a time: four operands of it fit a first-level cache
    PART_ELEMENTS = 1 << 15,        // what one part of a pointwise loop covers, and below which waking a thread costs more than it gives
};

// Loop: several operands walked over one index space. Dimensions are sorted by the first operand's steps and merged where every
// operand allows it; the last is the row.
struct loop {
    uint32_t operands, rank;
    bool is_empty;
    int64_t size[DJ_RANK_MAX];
    int64_t step[LOOP_OPERANDS_MAX][DJ_RANK_MAX];       // in bytes; 0 where broadcast
    char *base[LOOP_OPERANDS_MAX];
};

// Begins a loop over `size`; operands are then added, each broadcast to it from the right.
void loop_begin(struct loop *loop, uint32_t rank, const int64_t *size);
void loop_add(struct loop *loop, const struct tensor *tensor);
void loop_add_raw(struct loop *loop, void *data, const int64_t *step_bytes);        // one step a dimension of `size`
void loop_finish(struct loop *loop, bool may_reorder);

typedef void (*loop_row)(void *context, char *const at[], const int64_t step[], int64_t n);
// Calls `row` for pieces of rows that together cover the space; on the team when it is large. Pieces are cut by shape.
void loop_run(const struct loop *loop, struct team *team, loop_row row, void *context);

// Converts n elements between dtypes (PyTorch's casts) and strides in bytes. NULL for complex dtypes unless from == to.
typedef void (*convert_function)(const char *from, int64_t from_step, char *to, int64_t to_step, int64_t n);
convert_function convert_find(enum dtype from, enum dtype to);
// to = from, element by element, sizes equal or broadcast. False where the dtypes do not convert.
bool convert_tensor(const struct tensor *from, const struct tensor *to, struct team *team);
bool dtype_is_real(enum dtype dtype);               // bool, integers, floats: what convert_find takes

// Scratch: memory taken in order from call->scratch. With data == NULL it only measures, so one function plans for both.
struct scratch { char *data; size_t used; };
void *scratch_take(struct scratch *scratch, size_t bytes);
// A dense row-major float32 (or other dtype) twin of a tensor: the tensor's own memory when it is that already, else scratch;
// `copy` fills it, when there is memory (an input); an output is copied back with dense_return.
void *dense_take(struct scratch *scratch, const struct tensor *tensor, enum dtype dtype, bool copy, struct team *team);
// A float32 twin of input `i`, NULL where it is absent.
const float *optional_take(struct scratch *scratch, const struct kernel_call *call, uint32_t i);
void dense_return(const void *data, enum dtype dtype, const struct tensor *tensor, struct team *team);

// Attributes as numbers.
double attr_double(const struct attr *attr);
int64_t attr_int(const struct attr *attr);

static inline int64_t i64_least(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t i64_most(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
// A dimension attribute, wrapped; rank 0 counts as rank 1.
static inline uint32_t dim_wrap(int64_t dim, uint32_t rank)
{
    int64_t n = rank == 0 ? 1 : (int64_t)rank;
    return (uint32_t)(dim < 0 ? dim + n : dim);
}
static inline bool is_present(const struct tensor *tensor) { return tensor->meta.dtype != DTYPE_NONE; }

// A matrix product c[m][n] = alpha * a b + beta * add, in float32. `b_key` names constant bytes of b that may be kept packed.
struct gemm {
    int64_t batch, m, n, k;
    const float *a, *b, *add;               // add NULL: none
    float *c;
    int64_t a_batch, a_m, a_k;              // steps in elements
    int64_t b_batch, b_k, b_n;
    int64_t c_batch, c_m;                   // c_n is 1
    int64_t add_batch, add_m, add_n;
    float alpha, beta;
    uint64_t b_key;
};
size_t gemm_scratch(const struct gemm *gemm);
void gemm_run(const struct gemm *gemm, void *scratch, struct team *team);
bool gemv_fits(const struct gemm *gemm);
size_t gemv_scratch(const struct gemm *gemm);
void gemv_run(const struct gemm *gemm, void *scratch, struct team *team);
void gemm_finish(const struct gemm *gemm, float *c, int64_t c_m, const float *add, int64_t m, int64_t n);

// Packs: constant operands kept in the layout that a kernel wants, within the limit (kernel.h); those long unused make room.
struct pack_key { uint64_t constant, data, shape[4]; };
struct pack;
enum { PACK_BYTES_LIMIT = 1 << 30 };        // unless kernels_cpu_pack_limit says otherwise
// The memory of the pack named by `key`, `bytes` long. *is_new says that the caller must fill it before pack_release; it is always true
// with NULL, which says that nothing is kept (no room, or another device is filling it): the caller packs into scratch then.
struct pack *pack_acquire(const struct pack_key *key, size_t bytes, bool *is_new);
float *pack_data(struct pack *pack);
void pack_release(struct pack *pack);

// Families: each fills its rows of the table.
void table_pointwise(struct kernel *kernel);
void table_copy(struct kernel *kernel);
void table_fill(struct kernel *kernel);
void table_random(struct kernel *kernel);
void table_gather(struct kernel *kernel);
void table_scatter(struct kernel *kernel);
void table_reduce(struct kernel *kernel);
void table_scan(struct kernel *kernel);
void table_sort(struct kernel *kernel);
void table_matmul(struct kernel *kernel);
void table_softmax(struct kernel *kernel);
void table_norm(struct kernel *kernel);
void table_norm_backward(struct kernel *kernel);
void table_batch_norm(struct kernel *kernel);
void table_loss(struct kernel *kernel);
void table_conv(struct kernel *kernel);
void table_conv_backward(struct kernel *kernel);
void table_pool(struct kernel *kernel);
void table_pool_backward(struct kernel *kernel);
void table_attention(struct kernel *kernel);

#endif
