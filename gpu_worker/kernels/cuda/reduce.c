// Reduce, host half: which dimensions go, how many threads fold an output, and whether it is cut into splits. All of that follows from
// sizes, never from strides, so that a result's bits do not depend on how its input lies in memory.

#include "gpu_worker/kernels/cuda/reduce.h"

#include "gpu_worker/kernels/cuda/cuda.h"

enum {
    WARP = 32,
    BLOCKS_MOST = 1 << 14,
    BLOCKS_BUSY = 512,    // blocks that fill a GPU
    SPLITS_MOST = 256,
    LANE_LEAST = 8,        // elements for which there is another lane
    LANE_SPLIT = 16,       // what a lane of a split folds at least
    PIECE_MULTIPLE = 8,    // splits begin where groups do
    SCAN_PIECE = 8192,     // elements of a row below which it is not cut
    SCAN_PIECES_MOST = 512,
};

// Bit d: dimension d is reduced.
static uint32_t reduced_dims(const struct kernel_call *call)
{
    uint32_t rank = call->in[0].meta.rank, all = (1u << rank) - 1;
    const struct attr *attr = &call->attr[call->op->number == OP_NORM_DIM ? 1 : 0];
    switch (call->op->number) {
    case OP_SUM:
    case OP_MEAN:
    case OP_MAX:
    case OP_MIN:
    case OP_ANY:
    case OP_ALL:
    case OP_PROD: return all;
    default: break;
    }
    if (attr->kind == ATTR_ABSENT || rank == 0)
        return all;
    if (attr->kind == ATTR_INT)
        return 1u << cuda_dim_wrap(attr->i, rank);
    uint32_t dims = 0;
    for (uint32_t i = 0; i < attr->count; i++)
        dims |= 1u << cuda_dim_wrap(attr->ints[i], rank);
    return attr->count == 0 ? all : dims;
}

static enum reduce_rule rule_of(uint32_t op)
{
    switch (op) {
    case OP_PROD: return REDUCE_PROD;
    case OP_AMAX:
    case OP_MAX:
    case OP_MAX_DIM:
    case OP_ARGMAX: return REDUCE_MAX;
    case OP_AMIN:
    case OP_MIN:
    case OP_MIN_DIM:
    case OP_ARGMIN: return REDUCE_MIN;
    case OP_ANY:
    case OP_ANY_DIM: return REDUCE_ANY;
    case OP_ALL:
    case OP_ALL_DIM: return REDUCE_ALL;
    case OP_VAR: return REDUCE_VAR;
    case OP_NORM_DIM: return REDUCE_NORM;
    default: return REDUCE_SUM;
    }
}

// What is folded in: float32, float64 or int64.
static enum dtype fold_dtype(const struct kernel_call *call)
{
    enum reduce_rule rule = rule_of(call->op->number);
    bool sums = rule == REDUCE_SUM || rule == REDUCE_PROD || rule == REDUCE_NORM;
    enum dtype dtype = sums ? call->out[0].meta.dtype : call->in[0].meta.dtype;
    return dtype == DTYPE_F64 ? DTYPE_F64 : dtype_is_float(dtype) ? DTYPE_F32 : DTYPE_I64;
}

static bool is_real(enum dtype dtype)
{
    return dtype > DTYPE_NONE && dtype <= DTYPE_F64;
}

static bool reduce_can(const struct kernel_call *call)
{
    enum reduce_rule rule = rule_of(call->op->number);
    bool wants_float = rule == REDUCE_VAR || rule == REDUCE_NORM || call->op->number == OP_MEAN ||
                       call->op->number == OP_MEAN_DIM;
    return is_real(call->in[0].meta.dtype) && is_real(call->out[0].meta.dtype) && !call->in[0].is_scalar &&
           (!wants_float || fold_dtype(call) != DTYPE_I64);
}

static enum cuda_function choose(const struct reduce_args *args, enum dtype fold)
{
    bool is_frequent = args->rule == REDUCE_SUM || args->rule == REDUCE_MAX || args->rule == REDUCE_MIN;
    if (fold == DTYPE_I64)
        return CUDA_reduce_to_i64;
    if (fold == DTYPE_F64)
        return CUDA_reduce_to_f64;
    if (is_frequent && args->in_dtype == DTYPE_F32)
        return CUDA_reduce_f32;
    if (is_frequent && args->in_dtype == DTYPE_F16)
        return CUDA_reduce_f16;
    return is_frequent && args->in_dtype == DTYPE_BF16 ? CUDA_reduce_bf16 : CUDA_reduce_to_f32;
}

// The last dimension that is not 1 is kept: neighbouring elements belong to neighbouring outputs.
static bool keeps_last(const struct tensor_meta *meta, uint32_t dims)
{
    for (uint32_t d = meta->rank; d-- > 0;)
        if (meta->size[d] != 1)
            return !(dims >> d & 1);
    return false;
}

static uint32_t power_from(int64_t n, uint32_t most)
{
    uint32_t power = 1;
    while (power < most && (int64_t)power < n)
        power *= 2;
    return power;
}

static int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

// Lanes and splits. A block has as many outputs side by side as its threads allow.
static void cut(struct reduce_args *args)
{
    uint32_t side = args->is_column
                        ? power_from(args->outputs, args->outputs < BLOCKS_BUSY * REDUCE_THREADS ? WARP : REDUCE_THREADS)
                        : 1;
    args->lanes = power_from(ceil_div(args->length, LANE_LEAST), REDUCE_THREADS / side);
    int64_t blocks = ceil_div(args->outputs, REDUCE_THREADS / args->lanes),
            most = args->length / ((int64_t)args->lanes * LANE_SPLIT);
    int64_t splits = BLOCKS_BUSY / cuda_bucket((uint32_t)(blocks < 1 ? 1 : blocks < BLOCKS_BUSY ? blocks : BLOCKS_BUSY));
    splits = splits < most ? splits : most;
    splits = splits < SPLITS_MOST ? splits : SPLITS_MOST;
    args->splits = splits > 1 ? cuda_bucket((uint32_t)splits) : 1;
    args->piece = ceil_div(ceil_div(args->length, args->splits), PIECE_MULTIPLE) * PIECE_MULTIPLE;
}

static void measure(const struct kernel_call *call, uint32_t dims, struct reduce_args *ret)
{
    const struct tensor_meta *meta = &call->in[0].meta;
    ret->outputs = ret->length = 1;
    for (uint32_t d = 0; d < meta->rank; d++)
        *(dims >> d & 1 ? &ret->length : &ret->outputs) *= meta->size[d];
    ret->is_column = keeps_last(meta, dims);
    cut(ret);
}

// Scratch is the splits' states; as many bytes whatever the data pointers.
static size_t reduce_scratch(const struct kernel_call *call)
{
    struct reduce_args args = {0};
    measure(call, reduced_dims(call), &args);
    return args.splits > 1 ? (size_t)args.outputs * args.splits * REDUCE_STATE_BYTES : 0;
}

// Loops over kept and reduced dimensions. Outputs that keep reduced dimensions as size 1 line up with the input, others skip them.
static bool make_loops(const struct kernel_call *call, uint32_t dims, struct reduce_args *args)
{
    const struct tensor_meta *in = &call->in[0].meta, *value = &call->out[0].meta,
                             *index = &call->out[call->n_out > 1 ? 1 : 0].meta;
    struct tensor_meta kept[3] = {{.dtype = in->dtype}, {.dtype = value->dtype}, {.dtype = index->dtype}},
                       reduced = {.dtype = in->dtype};
    bool keeps = value->rank == in->rank;
    for (uint32_t d = 0, o = 0; d < in->rank; d++) {
        bool is_reduced = dims >> d & 1;
        struct tensor_meta *to = is_reduced ? &reduced : &kept[0];
        if (!is_reduced) {
            kept[1].stride[to->rank] = value->stride[o];
            kept[2].stride[to->rank] = index->stride[o];
            kept[1].size[to->rank] = kept[2].size[to->rank] = in->size[d];
        }
        to->size[to->rank] = in->size[d];
        to->stride[to->rank++] = in->stride[d];
        o += !is_reduced || keeps;
    }
    kept[1].rank = kept[2].rank = kept[0].rank;
    return cuda_loop_make(&kept[0], (const struct tensor_meta *const[]){&kept[0], &kept[1], &kept[2]}, 3, &args->kept) &&
           cuda_loop_make(&reduced, (const struct tensor_meta *const[]){&reduced}, 1, &args->reduced);
}

static enum dj_error emit_reduce(const struct kernel_call *call, struct cuda_program *program)
{
    uint32_t op = call->op->number, dims = reduced_dims(call);
    bool is_place = op == OP_ARGMAX || op == OP_ARGMIN;
    enum dtype fold = fold_dtype(call);
    struct reduce_args args = {.in = call->in[0].data,
                               .value = is_place ? NULL : call->out[0].data,
                               .index = is_place          ? call->out[0].data
                                        : call->n_out > 1 ? call->out[1].data
                                                          : NULL,
                               .rule = rule_of(op),
                               .is_mean = op == OP_MEAN || op == OP_MEAN_DIM,
                               .in_dtype = call->in[0].meta.dtype,
                               .out_dtype = call->out[0].meta.dtype};
    if (op == OP_NORM_DIM)
        args.parameter = cuda_attr_double(&call->attr[0]);
    if (op == OP_VAR)
        args.parameter = call->attr[1].kind == ATTR_ABSENT ? 1.0 : cuda_attr_double(&call->attr[1]);
    measure(call, dims, &args);
    if (args.outputs == 0)
        return DJ_OK;
    if (!make_loops(call, dims, &args))
        return DJ_E_INTERNAL;

    args.partial = args.splits > 1 ? call->scratch : NULL;
    struct cuda_shape shape = {.grid_x = cuda_blocks(args.outputs, REDUCE_THREADS / args.lanes, BLOCKS_MOST),
                               .grid_y = args.splits,
                               .grid_z = 1,
                               .block = args.lanes * power_from(args.outputs, REDUCE_THREADS / args.lanes)};
    shape.block = shape.block < WARP ? WARP : shape.block;
    cuda_emit(program, choose(&args, fold), shape, &args, sizeof args);
    if (args.splits == 1)
        return DJ_OK;
    shape.grid_x = cuda_blocks(args.outputs, REDUCE_THREADS / WARP, BLOCKS_MOST);
    shape.grid_y = 1;
    shape.block = REDUCE_THREADS;
    cuda_emit(program,
              fold == DTYPE_F32   ? CUDA_reduce_join_f32
              : fold == DTYPE_F64 ? CUDA_reduce_join_f64
                                  : CUDA_reduce_join_i64,
              shape, &args, sizeof args);
    return DJ_OK;
}

// Running sums -----------------------------------------------------------------------------------------------------------------

static bool scan_can(const struct kernel_call *call)
{
    return is_real(call->in[0].meta.dtype) && is_real(call->out[0].meta.dtype) && !call->in[0].is_scalar;
}

static void scan_measure(const struct kernel_call *call, uint32_t *dim, struct scan_args *ret)
{
    const struct tensor_meta *meta = &call->in[0].meta;
    int64_t rows = 1;
    *dim = cuda_dim_wrap(call->attr[0].i, meta->rank);
    ret->length = meta->rank == 0 ? 1 : meta->size[*dim];
    for (uint32_t d = 0; d < meta->rank; d++)
        rows *= d == *dim ? 1 : meta->size[d];
    ret->is_column = meta->rank > 0 && keeps_last(meta, 1u << *dim) && rows >= REDUCE_THREADS;
    ret->pieces = 1;
    if (!ret->is_column && rows < BLOCKS_BUSY && ret->length >= 2 * SCAN_PIECE) {
        int64_t pieces = ret->length / SCAN_PIECE, most = ceil_div(BLOCKS_BUSY, rows < 1 ? 1 : rows);
        ret->pieces = cuda_bucket((uint32_t)(pieces < most ? pieces : most));
        ret->pieces = ret->pieces > SCAN_PIECES_MOST ? SCAN_PIECES_MOST : ret->pieces;
    }
    ret->piece = ceil_div(ret->length, ret->pieces);
    ret->rows.count = rows;
}

static size_t scan_scratch(const struct kernel_call *call)
{
    struct scan_args args = {0};
    uint32_t dim;
    scan_measure(call, &dim, &args);
    return args.pieces > 1 ? (size_t)args.rows.count * args.pieces * sizeof(int64_t) : 0;
}

static enum dj_error emit_scan(const struct kernel_call *call, struct cuda_program *program)
{
    const struct tensor *in = &call->in[0], *out = &call->out[0];
    struct scan_args args = {.in = in->data, .out = out->data, .in_dtype = in->meta.dtype, .out_dtype = out->meta.dtype};
    struct tensor_meta from = in->meta, to = out->meta;
    bool is_float = dtype_is_float(out->meta.dtype);
    uint32_t dim;

    if (tensor_count(&in->meta) == 0)
        return DJ_OK;
    scan_measure(call, &dim, &args);
    if (in->meta.rank > 0) {
        args.in_stride = in->meta.stride[dim];
        args.out_stride = out->meta.stride[dim];
        from.size[dim] = to.size[dim] = 1;
    }
    if (!cuda_loop_make(&to, (const struct tensor_meta *const[]){&from, &to}, 2, &args.rows))
        return DJ_E_INTERNAL;
    struct cuda_shape threads = {
        .grid_x = cuda_blocks(args.rows.count, REDUCE_THREADS, BLOCKS_MOST), .grid_y = 1, .grid_z = 1, .block = REDUCE_THREADS};
    struct cuda_shape blocks = threads;
    blocks.grid_x = cuda_blocks(args.rows.count, 1, BLOCKS_MOST);
    blocks.grid_y = args.pieces;
    if (args.pieces > 1) {
        args.carry = call->scratch;
        cuda_emit(program, is_float ? CUDA_scan_sums_f64 : CUDA_scan_sums_i64, blocks, &args, sizeof args);
        cuda_emit(program, is_float ? CUDA_scan_carries_f64 : CUDA_scan_carries_i64, threads, &args, sizeof args);
    }
    cuda_emit(program, is_float ? CUDA_scan_f64 : CUDA_scan_i64, args.is_column ? threads : blocks, &args, sizeof args);
    return DJ_OK;
}

void cuda_table_reduce(struct cuda_entry *entry)
{
    static const enum op ops[] = {OP_SUM, OP_SUM_DIM, OP_MEAN,    OP_MEAN_DIM, OP_AMAX,    OP_AMIN, OP_MAX,
                                  OP_MIN, OP_MAX_DIM, OP_MIN_DIM, OP_ARGMAX,   OP_ARGMIN,  OP_ANY,  OP_ANY_DIM,
                                  OP_ALL, OP_ALL_DIM, OP_PROD,    OP_VAR,      OP_NORM_DIM};
    for (size_t i = 0; i < sizeof ops / sizeof ops[0]; i++)
        entry[ops[i]] = (struct cuda_entry){.emit = emit_reduce, .scratch = reduce_scratch, .can = reduce_can};
    entry[OP_CUMSUM] = (struct cuda_entry){.emit = emit_scan, .scratch = scan_scratch, .can = scan_can};
}
