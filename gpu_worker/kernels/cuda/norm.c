// Norms, host half: which kernels, how many blocks, and every tensor as places of rows, of channels, or as a vector. What a kernel
// cannot read that way (a vector that is no line in memory) is refused.

#include "gpu_worker/kernels/cuda/norm.h"

#include "gpu_worker/kernels/cuda/cuda.h"
#include "gpu_worker/kernels/cuda/loss.h"

enum { WARP = 32, ROWS_MOST = 1 << 16, PIECES_PER_THREAD = 2, WIDE_BYTES = 16 };
enum {
    SUM_BLOCKS = 1024,
    SUM_SPLITS_MOST = 64,
    SUM_ITEMS_LEAST = 64,
    SUM_CHANNEL_ITEMS_LEAST = 2048,
};

struct functions {
    enum cuda_function rows, rows_backward, sums, apply;
};

static struct functions functions_of(enum dtype dtype)
{
    switch (dtype) {
#define FUNCTIONS(suffix) \
    { \
        CUDA_norm_rows_##suffix, CUDA_norm_rows_backward_##suffix, CUDA_norm_sums_##suffix, CUDA_norm_apply_##suffix \
    }
    case DTYPE_F32: return (struct functions)FUNCTIONS(f32);
    case DTYPE_F16: return (struct functions)FUNCTIONS(f16);
    case DTYPE_BF16: return (struct functions)FUNCTIONS(bf16);
    default: return (struct functions){0};
    }
}

static enum norm_kind kind_of(enum dtype dtype)
{
    return dtype == DTYPE_F32 ? NORM_F32 : dtype == DTYPE_F16 ? NORM_F16 : dtype == DTYPE_BF16 ? NORM_BF16 : NORM_NONE;
}

static bool is_aligned(const void *data)
{
    return (uintptr_t)data % WIDE_BYTES == 0;
}

// A tensor's elements in their order as a line in memory; false where they are none, or of a dtype that no kernel reads.
static bool vector_of(const struct tensor *tensor, struct norm_vector *ret)
{
    const struct tensor_meta *meta = &tensor->meta;
    struct loop loop;
    *ret = (struct norm_vector){.kind = NORM_NONE};
    if (meta->dtype == DTYPE_NONE)
        return true;
    if (kind_of(meta->dtype) == NORM_NONE || !cuda_loop_make(meta, &meta, 1, &loop))
        return false;
    ret->data = tensor->data;
    ret->kind = (int32_t)kind_of(meta->dtype);
    ret->stride = loop.rank == 0 ? 1 : loop.stride[0][0];
    ret->is_wide = ret->stride == 1 && is_aligned(ret->data);
    return loop.rank < 2;
}

// A dense float32 vector in scratch.
static struct norm_vector vector_at(float *data)
{
    return (struct norm_vector){.data = data, .stride = 1, .kind = NORM_F32, .is_wide = is_aligned(data)};
}

static struct tensor_meta dims(const struct tensor_meta *meta, uint32_t first, uint32_t end)
{
    struct tensor_meta part = {.dtype = meta->dtype, .rank = end - first};
    for (uint32_t d = first; d < end; d++) {
        part.size[d - first] = meta->size[d];
        part.stride[d - first] = meta->stride[d];
    }
    return part;
}

// Dimensions 0 and 1 up to the groups of channels; and a group's channels with what follows.
static struct tensor_meta group_rows(const struct tensor_meta *meta, int64_t groups)
{
    struct tensor_meta rows = dims(meta, 0, 2);
    rows.size[1] = groups;
    rows.stride[1] *= meta->size[1] / groups;
    return rows;
}

static struct tensor_meta group_columns(const struct tensor_meta *meta, int64_t groups)
{
    struct tensor_meta columns = dims(meta, 1, meta->rank);
    columns.size[0] /= groups;
    return columns;
}

static bool make_loop(const struct tensor_meta *part, uint32_t tensors, struct loop *ret)
{
    const struct tensor_meta *pointers[LOOP_TENSORS_MAX];
    for (uint32_t i = 0; i < tensors; i++)
        pointers[i] = &part[i];
    return cuda_loop_make(&part[0], pointers, tensors, ret);
}

static bool is_float(const struct tensor *tensor)
{
    return kind_of(tensor->meta.dtype) != NORM_NONE;
}

// Inputs from `first` on are vectors.
static bool vectors_can(const struct kernel_call *call, uint32_t first)
{
    struct norm_vector vector;
    for (uint32_t i = first; i < call->n_in; i++)
        if (!vector_of(&call->in[i], &vector))
            return false;
    return true;
}

// Rows ---------------------------------------------------------------------------------------------------------------------

static bool is_group(const struct kernel_call *call)
{
    return call->op->number == OP_GROUP_NORM || call->op->number == OP_GROUP_NORM_BACKWARD;
}

// What group norm sees as [n, c, ...]: PyTorch names n, c and the plane besides the tensor, whose own sizes may be others
// where it is contiguous.
static bool group_view(const struct kernel_call *call, const struct tensor_meta *meta, struct tensor_meta *ret)
{
    int64_t n = cuda_attr_int(&call->attr[0]), c = cuda_attr_int(&call->attr[1]);
    *ret = *meta;
    if (meta->rank >= 2 && meta->size[0] == n && meta->size[1] == c)
        return true;
    *ret = (struct tensor_meta){.dtype = meta->dtype, .rank = 3, .size = {n, c, cuda_attr_int(&call->attr[2])}};
    tensor_make_contiguous(ret);
    return tensor_is_contiguous(meta);
}

// Tensors of a call by their part: x, out and, of a backward, the gradient.
struct operands {
    const struct tensor *x, *out, *gradient;
    struct tensor_meta meta[3];
    uint32_t count;
};

static bool operands_of(const struct kernel_call *call, bool is_backward, struct operands *ret)
{
    *ret = (struct operands){
        .x = &call->in[is_backward], .out = &call->out[0], .gradient = &call->in[0], .count = is_backward ? 3 : 2};
    const struct tensor *tensor[3] = {ret->x, ret->out, ret->gradient};
    for (uint32_t i = 0; i < 3; i++) {
        ret->meta[i] = tensor[i]->meta;
        if (is_group(call) && !group_view(call, &tensor[i]->meta, &ret->meta[i]))
            return false;
    }
    return true;
}

static bool rows_can(const struct kernel_call *call, bool is_backward)
{
    struct operands o;
    if (!operands_of(call, is_backward, &o) || !is_float(o.x) || o.out->meta.dtype != o.x->meta.dtype)
        return false;
    if (is_backward)
        return o.gradient->meta.dtype == o.x->meta.dtype && vectors_can(call, 2);
    for (uint32_t k = 1; k <= 2; k++)
        if (call->out[k].meta.dtype != DTYPE_F32 || (is_group(call) && call->out[k].meta.rank != 2))
            return false;
    return vectors_can(call, 1);
}

static bool forward_can(const struct kernel_call *call)
{
    return rows_can(call, false);
}

static bool backward_can(const struct kernel_call *call)
{
    struct norm_vector vector;
    for (uint32_t k = 1; k < call->n_out; k++)
        if (!vector_of(&call->out[k], &vector) || vector.kind == NORM_NONE)
            return false;
    return rows_can(call, true);
}

// 16-byte accesses along rows: they are dense, of whole pieces, and every row of every tensor begins at one.
static bool rows_are_wide(const struct norm_rows_args *args, uint32_t tensors, int64_t piece)
{
    const void *data[3] = {args->x, args->out, args->gradient};
    bool is_wide = args->columns.is_dense && args->length > 0 && args->length % piece == 0;
    for (uint32_t t = 0; t < tensors; t++) {
        is_wide = is_wide && is_aligned(data[t]);
        for (uint32_t d = 0; d < args->rows.rank; d++)
            is_wide = is_wide && args->rows.stride[t][d] % piece == 0;
    }
    return is_wide;
}

// The places of rows and columns, sizes, and the shape of the launch.
static enum dj_error make_rows(const struct kernel_call *call, const struct operands *o, struct norm_rows_args *args,
                               struct cuda_shape *shape)
{
    struct tensor_meta rows[4], columns[3];
    const struct tensor_meta *meta = o->meta;
    int64_t groups = is_group(call) ? cuda_attr_int(&call->attr[3]) : 1, piece = WIDE_BYTES / (int64_t)dtype_bytes(meta->dtype);
    bool is_backward = o->count == 3;
    uint32_t split = meta->rank - (is_group(call) ? 0 : call->attr[0].count);

    for (uint32_t i = 0; i < 3; i++) {
        rows[i] = is_group(call) ? group_rows(&meta[i], groups) : dims(&meta[i], 0, split);
        columns[i] = is_group(call) ? group_columns(&meta[i], groups) : dims(&meta[i], split, meta[i].rank);
    }
    for (uint32_t k = 1; k <= 2 && !is_backward; k++)
        rows[1 + k] = is_group(call) ? call->out[k].meta : dims(&call->out[k].meta, 0, split);
    if (!make_loop(rows, is_backward ? 3 : 4, &args->rows) || !make_loop(columns, o->count, &args->columns))
        return DJ_E_INTERNAL;
    args->x = o->x->data;
    args->out = o->out->data;
    args->gradient = is_backward ? o->gradient->data : NULL;
    args->length = args->columns.count;
    args->groups = groups;
    args->channels = is_group(call) ? meta->size[1] / groups : args->length;
    args->plane = is_group(call) ? cuda_attr_int(&call->attr[2]) : 1;
    args->is_wide = rows_are_wide(args, o->count, piece);
    uint32_t warps = cuda_blocks(args->length, WARP * piece * PIECES_PER_THREAD, NORM_ROW_THREADS / WARP);
    *shape = (struct cuda_shape){
        .grid_x = cuda_blocks(args->rows.count, 1, ROWS_MOST), .grid_y = 1, .grid_z = 1, .block = warps * WARP};
    return DJ_OK;
}

static enum dj_error emit_rows(const struct kernel_call *call, struct cuda_program *program)
{
    struct operands o;
    struct norm_rows_args args = {.eps = cuda_attr_double(&call->attr[is_group(call) ? 4 : 1])};
    struct cuda_shape shape;
    if (!operands_of(call, false, &o) || !vector_of(&call->in[1], &args.weight) || !vector_of(&call->in[2], &args.bias))
        return DJ_E_INTERNAL;
    enum dj_error error = make_rows(call, &o, &args, &shape);
    if (error != DJ_OK || args.rows.count == 0)
        return error;
    args.ret_mean = call->out[1].data;
    args.ret_rstd = call->out[2].data;
    cuda_emit(program, functions_of(o.x->meta.dtype).rows, shape, &args, sizeof args);
    return DJ_OK;
}

static enum dj_error emit_rows_backward(const struct kernel_call *call, struct cuda_program *program)
{
    struct operands o;
    struct norm_rows_args args = {0};
    struct cuda_shape shape;
    if (!operands_of(call, true, &o) || !vector_of(&call->in[2], &args.mean) || !vector_of(&call->in[3], &args.rstd) ||
        !vector_of(&call->in[4], &args.weight))
        return DJ_E_INTERNAL;
    enum dj_error error = make_rows(call, &o, &args, &shape);
    if (error != DJ_OK || args.rows.count == 0)
        return error;
    cuda_emit(program, functions_of(o.x->meta.dtype).rows_backward, shape, &args, sizeof args);
    return DJ_OK;
}

// Sums of channels ---------------------------------------------------------------------------------------------------------

// How the sums of x (and of a gradient) are cut: `channel` and `item` are x's and the gradient's places.
struct sums {
    struct norm_sums_args args;
    uint32_t tiles, splits;
};

static bool make_sums(const struct tensor_meta channel[2], const struct tensor_meta item[2], struct sums *ret)
{
    struct norm_sums_args *args = &ret->args;
    if (!make_loop(channel, 2, &args->channel) || !make_loop(item, 2, &args->item))
        return false;
    args->channels = args->channel.count;
    args->items = args->item.count;
    // Neighbouring threads take what is nearer in memory.
    int64_t across = args->channel.rank == 0 ? INT64_MAX : args->channel.stride[0][args->channel.rank - 1];
    int64_t along = args->item.rank == 0 ? INT64_MAX : args->item.stride[0][args->item.rank - 1];
    args->is_by_lanes = across < along;
    uint32_t by_channels = cuda_blocks(args->channels, args->is_by_lanes ? WARP : 1, SUM_BLOCKS);
    uint32_t by_items = cuda_blocks(args->items, args->is_by_lanes ? SUM_ITEMS_LEAST : SUM_CHANNEL_ITEMS_LEAST, SUM_SPLITS_MOST);
    ret->tiles = cuda_blocks(args->channels, args->is_by_lanes ? WARP : 1, ROWS_MOST);
    ret->splits = SUM_BLOCKS / by_channels < by_items ? SUM_BLOCKS / by_channels : by_items;
    args->items_per_split = (args->items + ret->splits - 1) / ret->splits;
    return true;
}

static double *partial_take(struct cuda_scratch *scratch, const struct sums *sums)
{
    return (double *)(uintptr_t)cuda_scratch_take(scratch, 2 * sums->splits * (uint64_t)sums->args.channels * sizeof(double));
}

static void emit_sums(struct cuda_program *program, struct sums *sums, struct norm_finish_args *finish, enum dtype dtype)
{
    uint32_t warps = cuda_blocks(sums->args.items_per_split, sums->args.is_by_lanes ? 4 : 4 * WARP, NORM_SUM_THREADS / WARP);
    struct cuda_shape shape = {.grid_x = sums->tiles, .grid_y = sums->splits, .grid_z = 1, .block = warps * WARP};
    struct cuda_shape last = {
        .grid_x = cuda_blocks(sums->args.channels, NORM_APPLY_THREADS, ROWS_MOST), 1, 1, .block = NORM_APPLY_THREADS};
    if (sums->args.channels == 0)
        return;
    cuda_emit(program, functions_of(dtype).sums, shape, &sums->args, sizeof sums->args);
    finish->partial = sums->args.partial;
    finish->channels = sums->args.channels;
    finish->items = sums->args.items;
    finish->splits = sums->splits;
    finish->sum = sums->args.sum;
    cuda_emit(program, CUDA_norm_finish, last, finish, sizeof *finish);
}

// Sums over rows: the gradients of a layer norm's or a group norm's weight and bias. The gradient is input 0, x is 1, mean 2, rstd 3.
static bool row_sums(const struct kernel_call *call, struct sums *ret)
{
    struct tensor_meta channel[2], item[2];
    *ret = (struct sums){.args = {.sum = NORM_SUM_ROWS, .per_row = 1, .groups = 1}};
    for (uint32_t i = 0; i < 2; i++) {
        struct tensor_meta meta = call->in[1 - i].meta;
        if (is_group(call)) {
            if (!group_view(call, &meta, &meta))
                return false;
            channel[i] = dims(&meta, 1, 2);
            item[i] = dims(&meta, 1, meta.rank);
            item[i].size[0] = meta.size[0];
            item[i].stride[0] = meta.stride[0];
        } else {
            uint32_t split = meta.rank - call->attr[0].count;
            channel[i] = dims(&meta, split, meta.rank);
            item[i] = dims(&meta, 0, split);
        }
    }
    if (!make_sums(channel, item, ret))
        return false;
    ret->args.per_group = ret->args.channels;
    if (is_group(call)) {
        ret->args.per_row = cuda_attr_int(&call->attr[2]);
        ret->args.groups = cuda_attr_int(&call->attr[3]);
        ret->args.per_group /= ret->args.groups;
    }
    return true;
}

static size_t row_sums_scratch(const struct kernel_call *call)
{
    struct cuda_scratch scratch = {0};
    struct sums sums;
    if (row_sums(call, &sums))
        partial_take(&scratch, &sums);
    return (size_t)scratch.used;
}

static enum dj_error emit_row_sums(const struct kernel_call *call, struct cuda_program *program, const struct tensor *dw,
                                   const struct tensor *db)
{
    struct cuda_scratch scratch = {.data = (uintptr_t)call->scratch};
    struct sums sums;
    struct norm_finish_args finish = {0};
    if (!row_sums(call, &sums) || !vector_of(&call->in[2], &sums.args.mean) || !vector_of(&call->in[3], &sums.args.rstd) ||
        !vector_of(dw, &finish.first) || !vector_of(db, &finish.second))
        return DJ_E_INTERNAL;
    sums.args.gradient = call->in[0].data;
    sums.args.x = call->in[1].data;
    sums.args.partial = partial_take(&scratch, &sums);
    emit_sums(program, &sums, &finish, call->in[1].meta.dtype);
    return DJ_OK;
}

static bool params_can(const struct kernel_call *call)
{
    struct norm_vector vector;
    for (uint32_t k = 0; k < 2; k++)
        if (!vector_of(&call->out[k], &vector) || vector.kind == NORM_NONE)
            return false;
    return is_float(&call->in[1]) && call->in[0].meta.dtype == call->in[1].meta.dtype && vectors_can(call, 2);
}

static enum dj_error emit_params(const struct kernel_call *call, struct cuda_program *program)
{
    return emit_row_sums(call, program, &call->out[0], &call->out[1]);
}

static enum dj_error emit_group_backward(const struct kernel_call *call, struct cuda_program *program)
{
    enum dj_error error = emit_rows_backward(call, program);
    return error != DJ_OK ? error : emit_row_sums(call, program, &call->out[1], &call->out[2]);
}

// Batch norm ---------------------------------------------------------------------------------------------------------------

static bool same_strides(const struct tensor_meta *a, const struct tensor_meta *b)
{
    for (uint32_t d = 0; d < a->rank; d++)
        if (a->size[d] != 1 && a->stride[d] != b->stride[d])
            return false;
    return true;
}

static enum dj_error emit_apply(struct cuda_program *program, const struct tensor *x, const struct tensor *out,
                                const struct tensor *gradient, struct norm_apply_args *args)
{
    const struct tensor *g = gradient == NULL ? x : gradient;
    struct tensor_meta meta[4] = {x->meta, out->meta, g->meta, x->meta};
    int64_t piece = WIDE_BYTES / (int64_t)dtype_bytes(x->meta.dtype);

    for (uint32_t d = 0; d < x->meta.rank; d++)
        meta[3].stride[d] = d == 1;
    if (!make_loop(meta, 4, &args->all))
        return DJ_E_INTERNAL;
    if (args->all.count == 0)
        return DJ_OK;
    args->x = x->data;
    args->out = out->data;
    args->gradient = g->data;
    args->channels = x->meta.size[1];
    args->is_dense = tensor_is_dense(&out->meta) && same_strides(&x->meta, &out->meta) && same_strides(&x->meta, &g->meta);
    args->is_wide = args->is_dense && is_aligned(x->data) && is_aligned(out->data) && is_aligned(g->data);
    args->inner = args->channels > 1 && args->is_dense ? out->meta.stride[1] : args->all.count;
    struct cuda_shape shape = {.grid_x = cuda_blocks(args->all.count, NORM_APPLY_THREADS * NORM_APPLY_PIECES * piece, ROWS_MOST),
                               1,
                               1,
                               .block = NORM_APPLY_THREADS};
    cuda_emit(program, functions_of(x->meta.dtype).apply, shape, args, sizeof *args);
    return DJ_OK;
}

static bool batch_can(const struct kernel_call *call)
{
    return is_float(&call->in[0]) && call->out[0].meta.dtype == call->in[0].meta.dtype && vectors_can(call, 1);
}

static enum dj_error emit_batch(const struct kernel_call *call, struct cuda_program *program)
{
    struct norm_apply_args args = {.apply = NORM_APPLY_VARIANCE, .eps = cuda_attr_double(&call->attr[0])};
    if (!vector_of(&call->in[1], &args.weight) || !vector_of(&call->in[2], &args.bias) || !vector_of(&call->in[3], &args.mean) ||
        !vector_of(&call->in[4], &args.spread))
        return DJ_E_INTERNAL;
    return emit_apply(program, &call->in[0], &call->out[0], NULL, &args);
}

// Sums over all images and places of each channel.
static bool channel_sums(const struct tensor_meta *x, const struct tensor_meta *gradient, struct sums *ret)
{
    const struct tensor_meta *meta[2] = {x, gradient};
    struct tensor_meta channel[2], item[2];
    *ret = (struct sums){0};
    for (uint32_t i = 0; i < 2; i++) {
        channel[i] = dims(meta[i], 1, 2);
        item[i] = dims(meta[i], 1, x->rank);
        item[i].size[0] = meta[i]->size[0];
        item[i].stride[0] = meta[i]->stride[0];
    }
    return make_sums(channel, item, ret);
}

static bool train_can(const struct kernel_call *call)
{
    struct norm_vector vector;
    for (uint32_t k = 1; k < 4; k++)
        if (!vector_of(&call->out[k], &vector) || vector.kind == NORM_NONE)
            return false;
    return batch_can(call);
}

static size_t train_scratch(const struct kernel_call *call)
{
    struct cuda_scratch scratch = {0};
    struct sums sums;
    if (channel_sums(&call->in[0].meta, &call->in[0].meta, &sums))
        partial_take(&scratch, &sums);
    return (size_t)scratch.used;
}

static enum dj_error emit_train(const struct kernel_call *call, struct cuda_program *program)
{
    struct cuda_scratch scratch = {.data = (uintptr_t)call->scratch};
    const struct tensor *x = &call->in[0];
    struct sums sums;
    struct norm_finish_args finish = {.x = x->data,
                                      .x_kind = (int32_t)kind_of(x->meta.dtype),
                                      .step = x->meta.stride[1],
                                      .eps = cuda_attr_double(&call->attr[0])};
    struct norm_apply_args args = {.apply = NORM_APPLY_RSTD};
    if (!channel_sums(&x->meta, &x->meta, &sums) || !vector_of(&call->out[1], &finish.first) ||
        !vector_of(&call->out[2], &finish.second) || !vector_of(&call->out[3], &finish.variance) ||
        !vector_of(&call->in[1], &args.weight) || !vector_of(&call->in[2], &args.bias))
        return DJ_E_INTERNAL;
    sums.args.sum = NORM_SUM_MOMENTS;
    sums.args.x = sums.args.gradient = x->data;
    sums.args.partial = partial_take(&scratch, &sums);
    emit_sums(program, &sums, &finish, x->meta.dtype);
    args.mean = finish.first;
    args.spread = finish.second;
    return emit_apply(program, x, &call->out[0], NULL, &args);
}

static size_t batch_backward_scratch(const struct kernel_call *call)
{
    struct cuda_scratch scratch = {0};
    struct sums sums;
    if (channel_sums(&call->in[1].meta, &call->in[0].meta, &sums)) {
        partial_take(&scratch, &sums);
        cuda_scratch_take(&scratch, 3 * (uint64_t)sums.args.channels * sizeof(float));
    }
    return (size_t)scratch.used;
}

static enum dj_error emit_batch_backward(const struct kernel_call *call, struct cuda_program *program)
{
    struct cuda_scratch scratch = {.data = (uintptr_t)call->scratch};
    const struct tensor *g = &call->in[0], *x = &call->in[1];
    struct sums sums;
    struct norm_finish_args finish = {.is_training = cuda_attr_int(&call->attr[0]) != 0};
    struct norm_apply_args args = {.apply = NORM_APPLY_GRADIENT};
    if (!channel_sums(&x->meta, &g->meta, &sums) || !vector_of(&call->in[2], &finish.weight) ||
        !vector_of(&call->in[3], &finish.mean) || !vector_of(&call->in[4], &finish.rstd) ||
        !vector_of(&call->out[1], &finish.first) || !vector_of(&call->out[2], &finish.second))
        return DJ_E_INTERNAL;
    sums.args.sum = NORM_SUM_CHANNELS;
    sums.args.x = x->data;
    sums.args.gradient = g->data;
    sums.args.mean = args.mean = finish.mean;
    sums.args.partial = partial_take(&scratch, &sums);
    int64_t channels = sums.args.channels;
    finish.coefficients = (float *)(uintptr_t)cuda_scratch_take(&scratch, 3 * (uint64_t)channels * sizeof(float));
    emit_sums(program, &sums, &finish, x->meta.dtype);
    args.spread = vector_at(finish.coefficients);
    args.weight = vector_at(finish.coefficients + channels);
    args.bias = vector_at(finish.coefficients + 2 * channels);
    return emit_apply(program, x, &call->out[0], g, &args);
}

static bool batch_backward_can(const struct kernel_call *call)
{
    struct norm_vector vector;
    for (uint32_t k = 1; k < 3; k++)
        if (!vector_of(&call->out[k], &vector) || vector.kind == NORM_NONE)
            return false;
    return is_float(&call->in[1]) && call->in[0].meta.dtype == call->in[1].meta.dtype &&
           call->out[0].meta.dtype == call->in[1].meta.dtype && vectors_can(call, 2);
}

void cuda_table_norm(struct cuda_entry *entry)
{
    entry[OP_LAYER_NORM] = entry[OP_GROUP_NORM] = (struct cuda_entry){.emit = emit_rows, .can = forward_can};
    entry[OP_LAYER_NORM_BACKWARD] = (struct cuda_entry){.emit = emit_rows_backward, .can = backward_can};
    entry[OP_LAYER_NORM_BACKWARD_PARAMS] = (struct cuda_entry){
        .emit = emit_params, .scratch = row_sums_scratch, .can = params_can};
    entry[OP_GROUP_NORM_BACKWARD] = (struct cuda_entry){
        .emit = emit_group_backward, .scratch = row_sums_scratch, .can = backward_can};
    entry[OP_BATCH_NORM] = (struct cuda_entry){.emit = emit_batch, .can = batch_can};
    entry[OP_BATCH_NORM_TRAIN] = (struct cuda_entry){.emit = emit_train, .scratch = train_scratch, .can = train_can};
    entry[OP_BATCH_NORM_BACKWARD] = (struct cuda_entry){
        .emit = emit_batch_backward, .scratch = batch_backward_scratch, .can = batch_backward_can};
    cuda_table_loss(entry);
}
