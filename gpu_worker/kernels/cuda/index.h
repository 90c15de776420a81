// Index: what the host halves of gathers, scatters and sorts share. Private to this folder.

#ifndef GPU_WORKER_KERNELS_CUDA_INDEX_H
#define GPU_WORKER_KERNELS_CUDA_INDEX_H

#include <stdbool.h>
#include <stdint.h>

#include "gpu_worker/kernels/cuda/cuda.h"
#include "gpu_worker/kernels/cuda/gather.h"
#include "gpu_worker/kernels/cuda/sort.h"

// The space that an op with indices runs over, before dimensions are merged: sizes, and what each tensor steps by, in bytes. A dimension is
// free where no index depends on it: what lies along it moves together.
struct index_space {
    uint32_t rank, indices;
    int64_t bytes;                                  // of an element
    bool may_wrap;
    int64_t size[INDEX_RANK_MAX];
    bool is_free[INDEX_RANK_MAX];
    int64_t plain[INDEX_RANK_MAX], indexed[INDEX_RANK_MAX], number[INDEX_RANK_MAX];
    int64_t step[INDEX_TENSORS_MAX][INDEX_RANK_MAX];
    const struct tensor *index[INDEX_TENSORS_MAX];
    int64_t extent[INDEX_TENSORS_MAX], index_step[INDEX_TENSORS_MAX], number_step[INDEX_TENSORS_MAX];
    int64_t numbers;                                // places that number counts; 0: nobody asks
};

enum walk_part { WALK_ALL, WALK_INDICES, WALK_FREE };
// The walk over all of a space, or over its dimensions with or without indices (a walk of free ones reads no index). `may_slice`: rows
// may be longer than an element.
void index_walk_make(const struct index_space *space, enum walk_part part, bool may_slice, struct index_walk *ret);

bool cuda_index_dtype(enum dtype dtype);
bool cuda_index_dtypes(const struct tensor *index, uint32_t n);      // present ones

// The space of index and index_put: `n` index tensors (some absent) for the first dimensions of `indexed`. `plain` is the result, or what
// is put, broadcast to the space. Adjacent indices put their dimensions where they stand, others to the front (NumPy's rule).
void index_space_make(const struct tensor *indexed, const struct tensor *index, uint32_t n, const struct tensor *plain,
                      struct index_space *ret);

uint64_t index_units(const struct index_walk *walk);            // what a thread moves at a time, counted
struct cuda_shape index_shape(uint64_t items);
// Every index of the tensor is in [0, extent), or the task fails.
void index_emit_check(struct cuda_program *program, const struct tensor *index, int64_t extent);
// to = from, sizes and dtypes equal; from NULL: the element `value` everywhere.
void index_emit_copy(struct cuda_program *program, const struct tensor *from, const struct tensor *to, const void *value);

// Sorts `rows` rows of `length` entries each, in place or into `spare`; returns where they are.
struct sort_entry *sort_emit(struct cuda_program *program, struct sort_entry *entry, struct sort_entry *spare, int64_t rows,
                             int64_t length);

#endif
