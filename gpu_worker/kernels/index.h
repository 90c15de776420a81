// Index: what gathers and scatters share. Private to this folder.

#ifndef GPU_WORKER_KERNELS_INDEX_H
#define GPU_WORKER_KERNELS_INDEX_H

#include "gpu_worker/kernels/cpu.h"

// A dimension that an index tensor decides.
struct index_dim {
    bool is_wide;           // int64, else int32
    int64_t size, step;     // step in bytes
};

// The byte offset that a checked index stands for; negative ones count from the end.
static inline int64_t index_offset(const struct index_dim *dim, const char *at)
{
    int64_t i = dim->is_wide ? *(const int64_t *)(const void *)at : *(const int32_t *)(const void *)at;
    return (i < 0 ? i + dim->size : i) * dim->step;
}

bool index_dtype(enum dtype dtype);
bool indices_can(const struct tensor *index, uint32_t n);
// DJ_E_INDEX unless every index is in [0, size), or in [-size, size) where it may wrap.
enum dj_error index_check(const struct kernel_call *call, const struct tensor *index, int64_t size, bool may_wrap);

// Advanced indexing: the space of `shaped` (the result of index, the values of index_put broadcast) with the steps of self and of each
// index tensor in it. Adjacent indices put their dimensions where they stand, others at the front (NumPy's rule).
struct index_plan {
    uint32_t indices;
    struct index_dim dim[DJ_RANK_MAX];
    const struct tensor *index[DJ_RANK_MAX];
    int64_t self_step[DJ_RANK_MAX], index_step[DJ_RANK_MAX][DJ_RANK_MAX];
};
void index_plan(const struct tensor *self, const struct tensor *index, uint32_t n_index, const struct tensor *shaped, struct index_plan *ret);
enum dj_error index_check_all(const struct kernel_call *call, const struct index_plan *plan);

#endif
