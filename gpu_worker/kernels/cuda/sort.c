// Sort, host half: sort, topk and isin, and sorted entries for scatters. A row of at most a tile is one launch; longer ones are tiles and
// one launch for each doubling of their runs. topk keeps k of each tile while that makes rows shorter by half at least.

#include "gpu_worker/kernels/cuda/index.h"

enum { WARP = 32, SORT_THREADS = 256, SORT_BLOCKS_MOST = 1 << 14 };

static uint32_t tile_of(int64_t length)
{
    uint32_t tile = 2;
    while (tile < SORT_TILE_MAX && tile < length)
        tile *= 2;
    return tile;
}

// `args` says what is read and written, and how many entries a row keeps.
static void emit_tiles(struct cuda_program *program, const struct sort_args *args)
{
    uint32_t pairs = args->tile / 2, block = pairs < WARP ? WARP : pairs > SORT_THREADS ? SORT_THREADS : pairs;
    struct cuda_shape shape = {
        .grid_x = cuda_blocks(args->rows * args->tiles, 1, SORT_BLOCKS_MOST), .grid_y = 1, .grid_z = 1, .block = block};
    cuda_emit(program, CUDA_sort_tiles, shape, args, sizeof *args);
}

static void emit_merge(struct cuda_program *program, const struct sort_args *args)
{
    struct cuda_shape shape = {.grid_x = cuda_blocks(args->rows * args->length, SORT_THREADS, SORT_BLOCKS_MOST),
                               .grid_y = 1,
                               .grid_z = 1,
                               .block = SORT_THREADS};
    cuda_emit(program, CUDA_sort_merge, shape, args, sizeof *args);
}

// Sorts rows of more than a tile and writes the first `keep` of each as `last` says (its `to`, or values and indices). Entries are read
// where last->from says, or made of its tensor; both buffers hold rows of last->length.
static void emit_long(struct cuda_program *program, const struct sort_args *last, int64_t keep, struct sort_entry *buffer[2])
{
    struct sort_args args = *last;
    args.tile = SORT_TILE_MAX;
    args.tiles = (uint32_t)((args.length + SORT_TILE_MAX - 1) / SORT_TILE_MAX);
    args.keep = SORT_TILE_MAX;
    args.kept_length = args.length;
    args.to = buffer[0];
    emit_tiles(program, &args);
    uint32_t at = 0;
    for (args.run = SORT_TILE_MAX; args.run < args.length; args.run *= 2) {
        bool is_last = args.run * 2 >= args.length;
        args.from = buffer[at];
        args.to = is_last ? last->to : buffer[at ^ 1];
        args.keep = is_last ? keep : args.length;
        args.kept_length = is_last ? last->kept_length : args.length;
        emit_merge(program, &args);
        at ^= 1;
    }
}

struct sort_entry *sort_emit(struct cuda_program *program, struct sort_entry *entry, struct sort_entry *spare, int64_t rows,
                             int64_t length)
{
    struct sort_args args = {
        .from = entry, .to = entry, .rows = rows, .length = length, .kept_length = length, .keep = length, .tiles = 1};
    if (length < 2 || rows == 0)
        return entry;
    if (length <= SORT_TILE_MAX) {
        args.tile = tile_of(length);
        emit_tiles(program, &args);
        return entry;
    }
    // Tiles are sorted in place; each merge goes to the other buffer.
    uint32_t merges = 0;
    for (int64_t run = SORT_TILE_MAX; run < length; run *= 2)
        merges++;
    args.to = merges % 2 == 0 ? entry : spare;
    emit_long(program, &args, length, (struct sort_entry *[2]){entry, spare});
    return args.to;
}

// Sort and topk ----------------------------------------------------------------------------------------------------------------

static uint32_t order_dim(const struct kernel_call *call)
{
    return cuda_dim_wrap(call->attr[call->op->number == OP_TOPK ? 1 : 0].i, call->in[0].meta.rank);
}

static int64_t order_length(const struct kernel_call *call)
{
    return call->in[0].meta.rank == 0 ? 1 : call->in[0].meta.size[order_dim(call)];
}

static int64_t order_rows(const struct kernel_call *call)
{
    int64_t rows = 1;
    for (uint32_t d = 0; d < call->in[0].meta.rank; d++)
        rows *= d == order_dim(call) ? 1 : call->in[0].meta.size[d];
    return rows;
}

static bool order_can(const struct kernel_call *call)
{
    enum dtype dtype = call->in[0].meta.dtype;
    return dtype > DTYPE_NONE && dtype <= DTYPE_F64 && call->out[0].meta.dtype == dtype && !call->in[0].is_scalar;
}

static size_t order_scratch(const struct kernel_call *call)
{
    struct cuda_scratch scratch = {0};
    int64_t length = order_length(call);
    if (length <= SORT_TILE_MAX)
        return 0;
    for (uint32_t i = 0; i < 2; i++)
        cuda_scratch_take(&scratch, (uint64_t)order_rows(call) * (uint64_t)length * sizeof(struct sort_entry));
    return scratch.used;
}

// What tiles leave of a row when each keeps at most `keep`.
static int64_t left(int64_t length, int64_t keep)
{
    int64_t tiles = (length + SORT_TILE_MAX - 1) / SORT_TILE_MAX, rest = length - (tiles - 1) * SORT_TILE_MAX;
    return (tiles - 1) * keep + (rest < keep ? rest : keep);
}

static void emit_rows(struct cuda_program *program, struct sort_args args, int64_t k, struct sort_entry *buffer[2])
{
    uint32_t at = 0;
    // Each tile keeps k, until one tile is left or that shortens rows too little.
    while (args.length > SORT_TILE_MAX && k <= SORT_TILE_MAX / 2) {
        struct sort_args round = args;
        round.tile = SORT_TILE_MAX;
        round.tiles = (uint32_t)((args.length + SORT_TILE_MAX - 1) / SORT_TILE_MAX);
        round.keep = k;
        round.kept_length = left(args.length, k);
        round.to = buffer[at];
        emit_tiles(program, &round);
        args.from = buffer[at];
        args.length = round.kept_length;
        at ^= 1;
    }
    if (args.length > SORT_TILE_MAX) {
        emit_long(program, &args, k, buffer);
        return;
    }
    args.tile = tile_of(args.length);
    args.tiles = 1;
    args.keep = k;
    emit_tiles(program, &args);
}

static enum dj_error emit_order(const struct kernel_call *call, struct cuda_program *program)
{
    const struct tensor *in = &call->in[0], *values = &call->out[0], *indices = &call->out[1];
    bool is_topk = call->op->number == OP_TOPK;
    uint32_t dim = order_dim(call);
    struct sort_args args = {.in = in->data,
                             .values = values->data,
                             .indices = indices->data,
                             .rows = order_rows(call),
                             .length = order_length(call),
                             .dtype = in->meta.dtype,
                             .bytes = (uint32_t)dtype_bytes(in->meta.dtype),
                             .is_descending = call->attr[is_topk ? 2 : 1].i != 0};
    int64_t k = is_topk ? call->attr[0].i : args.length;
    struct tensor_meta from = in->meta, to = values->meta, to_indices = indices->meta;

    if (k > args.length || k < 0)
        return fault_set(call->fault, DJ_E_INDEX, "TOPK: k is %lld but the dimension has %lld", (long long)k,
                         (long long)args.length);
    if (args.rows == 0 || k == 0)
        return DJ_OK;
    if (in->meta.rank > 0) {
        args.in_stride = from.stride[dim];
        args.value_stride = to.stride[dim];
        args.index_stride = to_indices.stride[dim];
        from.size[dim] = to.size[dim] = to_indices.size[dim] = 1;
    }
    if (!cuda_loop_make(&from, (const struct tensor_meta *const[]){&from, &to, &to_indices}, 3, &args.places))
        return DJ_E_INTERNAL;
    struct cuda_scratch scratch = {.data = (uint64_t)(uintptr_t)call->scratch};
    uint64_t bytes = (uint64_t)args.rows * (uint64_t)args.length * sizeof(struct sort_entry);
    struct sort_entry *buffer[2] = {NULL, NULL};
    for (uint32_t i = 0; i < 2 && args.length > SORT_TILE_MAX; i++)
        buffer[i] = (struct sort_entry *)(uintptr_t)cuda_scratch_take(&scratch, bytes);
    emit_rows(program, args, k, buffer);
    return DJ_OK;
}

// Membership -------------------------------------------------------------------------------------------------------------------

static bool isin_can(const struct kernel_call *call)
{
    for (uint32_t i = 0; i < 2; i++)
        if (call->in[i].meta.dtype == DTYPE_NONE || call->in[i].meta.dtype > DTYPE_F64 || call->in[i].is_scalar)
            return false;
    return call->out[0].meta.dtype == DTYPE_BOOL;
}

static size_t isin_scratch(const struct kernel_call *call)
{
    struct cuda_scratch scratch = {0};
    for (uint32_t i = 0; i < 2; i++)
        cuda_scratch_take(&scratch, (uint64_t)tensor_count(&call->in[1].meta) * sizeof(struct sort_entry));
    return scratch.used;
}

static enum dj_error emit_isin(const struct kernel_call *call, struct cuda_program *program)
{
    const struct tensor *elements = &call->in[0], *tests = &call->in[1], *out = &call->out[0];
    struct cuda_scratch scratch = {.data = (uint64_t)(uintptr_t)call->scratch};
    struct isin_args args = {.elements = elements->data,
                             .tests = tests->data,
                             .out = out->data,
                             .element_dtype = elements->meta.dtype,
                             .test_dtype = tests->meta.dtype,
                             .is_float = dtype_is_float(elements->meta.dtype) || dtype_is_float(tests->meta.dtype),
                             .is_inverted = call->attr[0].i != 0};
    int64_t n = tensor_count(&tests->meta);

    if (tensor_count(&out->meta) == 0)
        return DJ_OK;
    if (!cuda_loop_make(&tests->meta, (const struct tensor_meta *const[]){&tests->meta}, 1, &args.test_places) ||
        !cuda_loop_make(&out->meta, (const struct tensor_meta *const[]){&elements->meta, &out->meta}, 2, &args.places))
        return DJ_E_INTERNAL;
    if (n > 0) {
        args.entry = (struct sort_entry *)(uintptr_t)cuda_scratch_take(&scratch, (uint64_t)n * sizeof(struct sort_entry));
        struct sort_entry *spare = (struct sort_entry *)(uintptr_t)cuda_scratch_take(&scratch,
                                                                                     (uint64_t)n * sizeof(struct sort_entry));
        cuda_emit(program, CUDA_isin_keys, index_shape((uint64_t)n), &args, sizeof args);
        args.entry = sort_emit(program, args.entry, spare, 1, n);
    }
    cuda_emit(program, CUDA_isin_find, index_shape((uint64_t)args.places.count), &args, sizeof args);
    return DJ_OK;
}

void cuda_table_sort(struct cuda_entry *entry)
{
    entry[OP_SORT] = entry[OP_TOPK] = (struct cuda_entry){.emit = emit_order, .scratch = order_scratch, .can = order_can};
    entry[OP_ISIN] = (struct cuda_entry){.emit = emit_isin, .scratch = isin_scratch, .can = isin_can};
}
