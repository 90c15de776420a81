// Index: spaces, walks and what moves bytes along them; see index.h.

#include "gpu_worker/kernels/cuda/index.h"

#include <string.h>

enum { INDEX_THREADS = 256, INDEX_BLOCKS_MOST = 4096, INDEX_UNIT_MAX = 16 };

bool cuda_index_dtype(enum dtype dtype)
{
    return dtype == DTYPE_I64 || dtype == DTYPE_I32;
}

static bool is_present(const struct tensor *tensor)
{
    return tensor->meta.dtype != DTYPE_NONE;
}

bool cuda_index_dtypes(const struct tensor *index, uint32_t n)
{
    if (n > INDEX_TENSORS_MAX)
        return false;
    for (uint32_t i = 0; i < n; i++)
        if (is_present(&index[i]) && (!cuda_index_dtype(index[i].meta.dtype) || index[i].is_scalar))
            return false;
    return true;
}

// Walks ----------------------------------------------------------------------------------------------------------------------

static void steps_of(const struct index_space *space, uint32_t d, int64_t position, int64_t step[WALK_STEPS])
{
    memset(step, 0, WALK_STEPS * sizeof step[0]);
    step[WALK_PLAIN] = space->plain[d];
    step[WALK_INDEXED] = space->indexed[d];
    step[WALK_NUMBER] = space->number[d];
    step[WALK_POSITION] = position;
    for (uint32_t k = 0; k < space->indices; k++)
        step[WALK_INDEX + k] = space->step[k][d];
}

static bool continues(const struct index_walk *walk, const int64_t step[WALK_STEPS], int64_t size)
{
    for (uint32_t t = 0; t < WALK_STEPS; t++)
        if (walk->step[t][walk->rank - 1] != step[t] * size)
            return false;
    return true;
}

// Takes the last dimension off the loop where it is contiguous bytes in both tensors.
static void make_rows(struct index_walk *walk)
{
    uint32_t last = walk->rank - 1;
    if (walk->rank == 0 || walk->step[WALK_PLAIN][last] != walk->row_bytes || walk->step[WALK_INDEXED][last] != walk->row_bytes)
        return;
    for (uint32_t t = WALK_NUMBER; t < WALK_STEPS; t++)
        if (walk->step[t][last] != 0)
            return;
    walk->row_bytes *= walk->size[last];
    walk->rank = last;
    for (uint32_t t = 0; t < WALK_STEPS; t++)
        walk->step[t][last] = 0;
}

static void choose_unit(struct index_walk *walk)
{
    uint64_t all = (uint64_t)walk->row_bytes | INDEX_UNIT_MAX;
    for (uint32_t t = WALK_PLAIN; t <= WALK_INDEXED; t++)
        for (uint32_t d = 0; d < walk->rank; d++)
            all |= (uint64_t)walk->step[t][d];
    for (uint32_t k = 0; k < walk->indices; k++)
        all |= (uint64_t)walk->index_step[k];
    walk->unit = (uint32_t)(all & -all);
}

void index_walk_make(const struct index_space *space, enum walk_part part, bool may_slice, struct index_walk *ret)
{
    struct index_walk walk = {.row_bytes = space->bytes, .may_wrap = space->may_wrap, .rows = 1};
    int64_t position[INDEX_RANK_MAX], positions = 1;

    for (uint32_t d = space->rank; d-- > 0;) {
        position[d] = space->is_free[d] ? 0 : positions;
        positions *= space->is_free[d] ? 1 : space->size[d];
    }
    for (uint32_t d = 0; d < space->rank; d++) {
        int64_t step[WALK_STEPS], size = space->size[d];
        if (size == 1 || (part == WALK_INDICES && space->is_free[d]) || (part == WALK_FREE && !space->is_free[d]))
            continue;
        walk.rows *= size;
        steps_of(space, d, position[d], step);
        if (walk.rank > 0 && continues(&walk, step, size))
            walk.size[walk.rank - 1] *= size;
        else
            walk.size[walk.rank++] = size;
        for (uint32_t t = 0; t < WALK_STEPS; t++)
            walk.step[t][walk.rank - 1] = step[t];
    }
    for (uint32_t k = 0; k < space->indices && part != WALK_FREE; k++) {
        walk.index[k] = space->index[k]->data;
        walk.wide |= (uint32_t)(space->index[k]->meta.dtype == DTYPE_I64) << k;
        walk.extent[k] = space->extent[k];
        walk.index_step[k] = space->index_step[k];
        walk.number_step[k] = space->number_step[k];
        walk.indices++;
    }
    if (may_slice && walk.rows > 0) {
        make_rows(&walk);
        walk.rows = 1;
        for (uint32_t d = 0; d < walk.rank; d++)
            walk.rows *= walk.size[d];
    }
    choose_unit(&walk);
    *ret = walk;
}

// Spaces ---------------------------------------------------------------------------------------------------------------------

// What index tensor `meta` steps by in the dimensions [at, at + rank) that the indices have together.
static void align(const struct tensor_meta *meta, uint32_t at, uint32_t rank, int64_t step[INDEX_RANK_MAX])
{
    for (uint32_t e = 0; e < meta->rank; e++)
        step[at + rank - meta->rank + e] = meta->size[e] == 1 ? 0 : meta->stride[e] * (int64_t)dtype_bytes(meta->dtype);
}

// The sizes that the index tensors broadcast to, and how many dimensions they have.
static uint32_t index_sizes(const struct index_space *space, int64_t size[INDEX_RANK_MAX])
{
    uint32_t rank = 0;
    for (uint32_t k = 0; k < space->indices; k++)
        rank = space->index[k]->meta.rank > rank ? space->index[k]->meta.rank : rank;
    for (uint32_t e = 0; e < rank; e++)
        size[e] = 1;
    for (uint32_t k = 0; k < space->indices; k++) {
        const struct tensor_meta *meta = &space->index[k]->meta;
        for (uint32_t e = 0; e < meta->rank; e++)
            if (meta->size[e] != 1)
                size[rank - meta->rank + e] = meta->size[e];
    }
    return rank;
}

static void add_indices(struct index_space *space, uint32_t rank, const int64_t size[INDEX_RANK_MAX])
{
    for (uint32_t k = 0; k < space->indices; k++)
        align(&space->index[k]->meta, space->rank, rank, space->step[k]);
    for (uint32_t e = 0; e < rank; e++)
        space->size[space->rank++] = size[e];
}

static void add_plain(struct index_space *space, const struct tensor_meta *plain)
{
    uint32_t missing = space->rank - plain->rank;
    for (uint32_t d = missing; d < space->rank; d++)
        space->plain[d] = plain->size[d - missing] == 1 ? 0 : plain->stride[d - missing] * space->bytes;
}

void index_space_make(const struct tensor *indexed, const struct tensor *index, uint32_t n, const struct tensor *plain,
                      struct index_space *ret)
{
    struct index_space space = {.bytes = (int64_t)dtype_bytes(indexed->meta.dtype), .may_wrap = true, .numbers = 1};
    const struct tensor_meta *meta = &indexed->meta;
    int64_t number[INDEX_RANK_MAX], size[INDEX_RANK_MAX];
    uint32_t first = INDEX_RANK_MAX, last = 0;

    for (uint32_t d = 0; d < n; d++)
        if (is_present(&index[d])) {
            first = first == INDEX_RANK_MAX ? d : first;
            last = d;
            space.index[space.indices++] = &index[d];
        }
    // Places are numbered by the indexed dimensions alone: what is free moves together.
    for (uint32_t d = meta->rank; d-- > 0;) {
        bool is_indexed = d < n && is_present(&index[d]);
        number[d] = is_indexed ? space.numbers : 0;
        space.numbers *= is_indexed ? meta->size[d] : 1;
    }
    for (uint32_t d = 0, k = 0; d < n; d++)
        if (is_present(&index[d])) {
            space.extent[k] = meta->size[d];
            space.index_step[k] = meta->stride[d] * space.bytes;
            space.number_step[k++] = number[d];
        }
    uint32_t rank = index_sizes(&space, size), where = space.indices > 0 && last - first + 1 == space.indices ? first : 0;
    for (uint32_t d = 0; d <= meta->rank; d++) {
        if (d == where)
            add_indices(&space, rank, size);
        if (d < meta->rank && !(d < n && is_present(&index[d]))) {
            space.is_free[space.rank] = true;
            space.indexed[space.rank] = meta->stride[d] * space.bytes;
            space.size[space.rank++] = meta->size[d];
        }
    }
    add_plain(&space, &plain->meta);
    *ret = space;
}

// Steps ----------------------------------------------------------------------------------------------------------------------

uint64_t index_units(const struct index_walk *walk)
{
    return (uint64_t)walk->rows * ((uint64_t)walk->row_bytes / walk->unit);
}

struct cuda_shape index_shape(uint64_t items)
{
    uint32_t blocks = cuda_blocks((int64_t)items, INDEX_THREADS, INDEX_BLOCKS_MOST);
    return (struct cuda_shape){.grid_x = blocks, .grid_y = 1, .grid_z = 1, .block = INDEX_THREADS};
}

void index_emit_check(struct cuda_program *program, const struct tensor *index, int64_t extent)
{
    struct index_check_args args;
    struct index_space space = {.rank = index->meta.rank, .indices = 1, .bytes = 1, .index = {index}, .extent = {extent}};
    for (uint32_t d = 0; d < index->meta.rank; d++) {
        space.size[d] = index->meta.size[d];
        space.step[0][d] = index->meta.stride[d] * (int64_t)dtype_bytes(index->meta.dtype);
    }
    index_walk_make(&space, WALK_ALL, false, &args.walk);
    if (args.walk.rows == 0)
        return;
    program->may_fault = true;
    cuda_emit(program, CUDA_gather_check, index_shape((uint64_t)args.walk.rows), &args, sizeof args);
}

void index_emit_copy(struct cuda_program *program, const struct tensor *from, const struct tensor *to, const void *value)
{
    size_t bytes = dtype_bytes(to->meta.dtype);
    struct gather_args args = {.plain = to->data, .indexed = from == NULL ? NULL : from->data};
    struct index_space space = {.rank = to->meta.rank, .bytes = (int64_t)bytes};
    for (uint32_t d = 0; d < to->meta.rank; d++) {
        space.size[d] = to->meta.size[d];
        space.is_free[d] = true;
        space.plain[d] = to->meta.stride[d] * space.bytes;
        space.indexed[d] = from == NULL ? space.plain[d] : from->meta.stride[d] * space.bytes;
    }
    for (size_t at = 0; from == NULL && at < sizeof args.value; at += bytes)
        memcpy(args.value + at, value, bytes);
    index_walk_make(&space, WALK_ALL, true, &args.walk);
    if (args.walk.rows > 0 && args.walk.row_bytes > 0)
        cuda_emit(program, CUDA_gather_take, index_shape(index_units(&args.walk)), &args, sizeof args);
}
