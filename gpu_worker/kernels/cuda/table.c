// The table, and what families' host halves share: see cuda.h.

#include <pthread.h>
#include <string.h>

#include "gpu_worker/kernels/cuda/cuda.h"

static struct cuda_table table;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void build(void)
{
#define FAMILY(name) cuda_table_##name(table.entry);
#include "gpu_worker/kernels/cuda/kernels.def"
}

const struct cuda_table *kernels_cuda(void)
{
    pthread_once(&once, build);
    return &table;
}

enum { SCRATCH_ALIGNMENT = 256 };

uint64_t cuda_scratch_take(struct cuda_scratch *scratch, uint64_t bytes)
{
    uint64_t at = scratch->data == 0 ? 0 : scratch->data + scratch->used;
    scratch->used += (bytes + SCRATCH_ALIGNMENT - 1) & ~(uint64_t)(SCRATCH_ALIGNMENT - 1);
    return at;
}

double cuda_scalar(const struct tensor *tensor)
{
    double real;
    switch (tensor->meta.dtype) {
    case DTYPE_F64: memcpy(&real, tensor->data, sizeof real); return real;
    case DTYPE_BOOL: return *(const uint8_t *)tensor->data != 0;
    default: return (double)cuda_scalar_int(tensor);
    }
}

int64_t cuda_scalar_int(const struct tensor *tensor)
{
    int64_t whole;
    switch (tensor->meta.dtype) {
    case DTYPE_F64: return (int64_t)cuda_scalar(tensor);
    case DTYPE_BOOL: return *(const uint8_t *)tensor->data != 0;
    default: memcpy(&whole, tensor->data, sizeof whole); return whole;
    }
}

double cuda_attr_double(const struct attr *attr)
{
    return attr->kind == ATTR_FLOAT ? attr->f : attr->kind == ATTR_INT || attr->kind == ATTR_BOOL ? (double)attr->i : 0.0;
}

int64_t cuda_attr_int(const struct attr *attr)
{
    if (attr->kind != ATTR_FLOAT)
        return attr->kind == ATTR_INT || attr->kind == ATTR_BOOL ? attr->i : 0;
    return attr->f >= 9223372036854775807.0 ? INT64_MAX : attr->f <= -9223372036854775808.0 ? INT64_MIN : (int64_t)attr->f;
}
