// Index: what device code of gathers and scatters shares: where a row of a walk lies, and how bytes move.

#ifndef GPU_WORKER_KERNELS_CUDA_INDEX_CUH
#define GPU_WORKER_KERNELS_CUDA_INDEX_CUH

#include "gpu_worker/kernels/cuda/device.cuh"
#include "gpu_worker/kernels/cuda/gather.h"

struct alignas(16) bytes16 { uint64_t low, high; };

struct index_spot { int64_t plain, indexed, number, position; };

// The remainder of *index by size; *index becomes the quotient. 64-bit divisions take several times as long as 32-bit ones.
DJ_FN int64_t index_split(int64_t *index, int64_t size)
{
    if (((uint64_t)*index | (uint64_t)size) >> 32 == 0) {
        uint32_t whole = (uint32_t)*index / (uint32_t)size, rest = (uint32_t)*index - whole * (uint32_t)size;
        *index = whole;
        return rest;
    }
    int64_t whole = *index / size, rest = *index - whole * size;
    *index = whole;
    return rest;
}

// False where an index is out of range.
DJ_FN bool index_find(const struct index_walk *walk, int64_t row, struct index_spot *ret)
{
    struct index_spot spot = {0, 0, 0, 0};
    int64_t at[INDEX_TENSORS_MAX] = {0, 0, 0, 0, 0, 0, 0, 0};
    for (int d = (int)walk->rank - 1; d >= 0; d--) {
        int64_t coordinate = d == 0 ? row : index_split(&row, walk->size[d]);
        spot.plain += coordinate * walk->step[WALK_PLAIN][d];
        spot.indexed += coordinate * walk->step[WALK_INDEXED][d];
        spot.number += coordinate * walk->step[WALK_NUMBER][d];
        spot.position += coordinate * walk->step[WALK_POSITION][d];
        for (uint32_t k = 0; k < INDEX_TENSORS_MAX; k++)
            if (k < walk->indices)
                at[k] += coordinate * walk->step[WALK_INDEX + k][d];
    }
    for (uint32_t k = 0; k < INDEX_TENSORS_MAX; k++) {
        if (k >= walk->indices)
            continue;
        const char *place = (const char *)walk->index[k] + at[k];
        int64_t index = walk->wide >> k & 1 ? *(const int64_t *)place : *(const int32_t *)place, extent = walk->extent[k];
        if (index >= extent || index < (walk->may_wrap ? -extent : 0))
            return false;
        index += index < 0 ? extent : 0;
        spot.indexed += index * walk->index_step[k];
        spot.number += index * walk->number_step[k];
    }
    *ret = spot;
    return true;
}

// Reports the index for which index_find gave false. Indices of one tensor come before those of the next.
[[maybe_unused]] DJ_COLD void index_fail(const struct index_walk *walk, int64_t row, unsigned long long *fault, unsigned task)
{
    for (uint32_t k = 0; k < walk->indices; k++) {
        int64_t rest = row, at = 0;
        for (int d = (int)walk->rank - 1; d >= 0; d--)
            at += (d == 0 ? rest : index_split(&rest, walk->size[d])) * walk->step[WALK_INDEX + k][d];
        const char *place = (const char *)walk->index[k] + at;
        int64_t index = walk->wide >> k & 1 ? *(const int64_t *)place : *(const int32_t *)place, extent = walk->extent[k];
        if (index >= extent || index < (walk->may_wrap ? -extent : 0)) {
            dj_fail(fault, task, FAILURE_INDEX, (uint64_t)k << 56 | (uint64_t)at, index, extent);
            return;
        }
    }
}

// Where a row lies in the plain tensor alone.
DJ_COLD int64_t index_plain_far(const struct index_walk *walk, int64_t row)
{
    int64_t plain = 0;
    for (int d = (int)walk->rank - 1; d >= 0; d--)
        plain += (d == 0 ? row : index_split(&row, walk->size[d])) * walk->step[WALK_PLAIN][d];
    return plain;
}
DJ_FN int64_t index_plain(const struct index_walk *walk, int64_t row)
{
    return walk->rank == 1 ? row * walk->step[WALK_PLAIN][0] : index_plain_far(walk, row);
}

// How many bytes can move at once, given where the tensors start.
DJ_FN uint32_t index_unit(const struct index_walk *walk, const void *a, const void *b)
{
    uint32_t unit = walk->unit;
    while (((uintptr_t)a | (uintptr_t)b) & (unit - 1))
        unit /= 2;
    return unit;
}

#endif
