// Sort: arguments of sort.cu, and the entries that are sorted, which scatters sort too.

#ifndef GPU_WORKER_KERNELS_CUDA_SORT_H
#define GPU_WORKER_KERNELS_CUDA_SORT_H

#include <stdint.h>

#include "gpu_worker/kernels/cuda/loop.h"

// Ordered by key, then by position: no two are equal, so every order is stable.
struct sort_entry { uint64_t key; int64_t at; };

enum { SORT_TILE_MAX = 2048 };      // entries that one block sorts in its shared memory

struct sort_args {
    const struct sort_entry *from;      // NULL: `in` is read
    struct sort_entry *to;              // NULL: values and indices are written
    const void *in;
    void *values;
    int64_t *indices;
    int64_t rows, length;               // of a row of what is read
    int64_t keep;                       // of each tile
    int64_t kept_length;                // of a row of what is written
    int64_t run;                        // sorted runs that are merged
    int64_t in_stride, value_stride, index_stride;      // along a row, in elements
    struct loop places;                 // tensors in, values, indices without the row's dimension
    uint32_t tile, tiles;               // entries of a tile, a power of two; tiles of a row
    uint32_t dtype, bytes, is_descending, pad;
};

struct isin_args {
    const void *elements, *tests;
    uint8_t *out;
    struct sort_entry *entry;           // of the tests; sorted when elements are looked up
    struct loop test_places, places;    // tests; elements and out
    uint32_t element_dtype, test_dtype, is_float, is_inverted;
};

#endif
