// Copy, host half: every op here is made of rectangles, a view of the output and a view of the input (or a value), of which one launch
// takes many. What needs conversion goes through pointwise's kernels, one launch a rectangle.

#include "gpu_worker/kernels/cuda/copy.h"

#include <stddef.h>
#include <string.h>

#include "gpu_worker/kernels/cuda/cuda.h"
#include "gpu_worker/kernels/cuda/pointwise.h"
#include "gpu_worker/kernels/half.h"

enum { PARTS_MOST = 64, BLOCKS_MOST = 4096, UNIT_MOST = 16, TURN_LEAST = 8 };

// Rectangles that wait for their launch.
struct parts {
    struct cuda_program *program;
    uint32_t count;
    int64_t bytes;    // of the largest
    struct copy_part part[PARTS_MOST];
};

static bool is_real(enum dtype dtype)
{
    return dtype > DTYPE_NONE && dtype <= DTYPE_F64;
}

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t most(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

// Adds the launch, or the rectangles to the launch before it.
static void parts_launch(const struct parts *parts)
{
    struct cuda_program *program = parts->program;
    struct chain_place place[2 * PARTS_MOST];
    uint32_t places = 0, bytes = parts->count * (uint32_t)sizeof parts->part[0];
    struct cuda_shape shape = {.grid_x = cuda_blocks(parts->bytes, COPY_TILE_BYTES, BLOCKS_MOST),
                               .grid_y = parts->count,
                               .grid_z = 1,
                               .block = COPY_THREADS};

    for (uint32_t i = 0; i < parts->count; i++) {
        const struct copy_part *part = &parts->part[i];
        place[places++] = chain_place_of(&part->sweep.loop, 0, part->to, part->unit, true);
        if (part->from != NULL)
            place[places++] = chain_place_of(&part->sweep.loop, 1, part->from, part->unit, false);
    }
    if (cuda_goes_on(program) && chain_join_apart(&program->chain, place, places)) {
        const struct cuda_step *last = &program->step[program->steps - 1];
        shape.grid_x = shape.grid_x > last->grid_x ? shape.grid_x : last->grid_x;
        shape.grid_y += last->grid_y;
        cuda_emit_more(program, CUDA_copy_move, shape, parts->part, bytes);
        return;
    }
    cuda_emit(program, CUDA_copy_move, shape, parts->part, bytes);
    if (program->error == DJ_OK)
        chain_begin_apart(&program->chain, program->steps - 1, place, places);
}

static void parts_flush(struct parts *parts)
{
    _Static_assert(sizeof(struct copy_part) % 16 == 0 && offsetof(struct copy_part, pattern) % 16 == 0,
                   "patterns are read as 16 bytes");
    if (parts->count > 0)
        parts_launch(parts);
    parts->count = 0;
    parts->bytes = 0;
}

// Takes the largest units in which the rectangle can be moved; `tensors` 1: it is filled.
static void parts_add(struct parts *parts, struct copy_part *part, uint32_t tensors, uint64_t bytes)
{
    uint32_t group = bytes >= UNIT_MOST ? 1 : sweep_group(&part->sweep, tensors, (uint32_t)(UNIT_MOST / bytes));
    while (group > 1 && ((uintptr_t)part->to % (group * bytes) != 0 || (uintptr_t)part->from % (group * bytes) != 0))
        group /= 2;
    parts->bytes = most(parts->bytes, part->sweep.loop.count * (int64_t)bytes);
    sweep_widen(&part->sweep, tensors, group);
    part->unit = group * (uint32_t)bytes;
    if (parts->count == PARTS_MOST)
        parts_flush(parts);
    parts->part[parts->count++] = *part;
}

static void fill_add(struct parts *parts, const struct tensor *to, const uint8_t pattern[COPY_PATTERN_BYTES])
{
    struct copy_part part = {.to = to->data};
    if (tensor_count(&to->meta) == 0 || !sweep_make(&to->meta, (const struct tensor_meta *const[]){&to->meta}, 1, &part.sweep))
        return;
    memcpy(part.pattern, pattern, sizeof part.pattern);
    parts_add(parts, &part, 1, dtype_bytes(to->meta.dtype));
}

// A dimension along which `from` is dense while `to` is dense along the innermost one: reads and writes cannot both be coalesced
// without shared memory.
static int turned_dim(const struct loop *loop, uint64_t bytes)
{
    int last = (int)loop->rank - 1;
    if (last < 1 || bytes > sizeof(uint64_t) || loop->stride[0][last] != 1 || loop->size[last] < TURN_LEAST)
        return -1;
    if (loop->stride[1][last] == 0 || loop->stride[1][last] == 1)
        return -1;
    for (int d = last - 1; d >= 0; d--)
        if (loop->stride[1][d] == 1 && loop->size[d] >= TURN_LEAST)
            return d;
    return -1;
}

static void turn_emit(struct cuda_program *program, const struct copy_part *part, uint32_t dim, uint64_t bytes)
{
    const struct loop *loop = &part->sweep.loop;
    uint32_t last = loop->rank - 1;
    struct turn_args args = {
        .from = part->from, .to = part->to, .rows = loop->size[dim], .columns = loop->size[last], .unit = (uint32_t)bytes};
    args.batch.count = 1;
    for (uint32_t t = 0; t < 2; t++) {
        args.row_stride[t] = loop->stride[t][dim];
        args.column_stride[t] = loop->stride[t][last];
    }
    for (uint32_t d = 0; d < last; d++) {
        if (d == dim)
            continue;
        args.batch.size[args.batch.rank] = loop->size[d];
        args.batch.stride[0][args.batch.rank] = loop->stride[0][d];
        args.batch.stride[1][args.batch.rank] = loop->stride[1][d];
        args.batch.count *= loop->size[d];
        args.batch.rank++;
    }
    int64_t tiles = args.batch.count * ((args.rows - 1) / TURN_TILE + 1) * ((args.columns - 1) / TURN_TILE + 1);
    struct cuda_shape shape = {
        .grid_x = cuda_blocks(tiles, 1, BLOCKS_MOST), .grid_y = 1, .grid_z = 1, .block = TURN_TILE * TURN_ROWS};
    cuda_emit(program, CUDA_copy_turn, shape, &args, sizeof args);
}

static void pattern_make(enum dtype dtype, const struct attr *value, uint8_t pattern[COPY_PATTERN_BYTES]);

// The value of a host scalar.
static struct attr scalar_attr(const struct tensor *scalar)
{
    if (scalar->meta.dtype == DTYPE_F64)
        return (struct attr){.kind = ATTR_FLOAT, .f = cuda_scalar(scalar)};
    return (struct attr){.kind = ATTR_INT, .i = cuda_scalar_int(scalar)};
}

// to = from; false where the dtypes do not convert.
static bool copy_add(struct parts *parts, const struct tensor *from, const struct tensor *to)
{
    uint64_t bytes = dtype_bytes(to->meta.dtype);
    if (tensor_count(&to->meta) == 0)
        return true;
    if (from->is_scalar && is_real(to->meta.dtype)) {
        struct attr value = scalar_attr(from);
        uint8_t pattern[COPY_PATTERN_BYTES];
        pattern_make(to->meta.dtype, &value, pattern);
        fill_add(parts, to, pattern);
        return true;
    }
    if (from->meta.dtype != to->meta.dtype)
        return pointwise_emit_conversion(parts->program, from, to) == DJ_OK;
    struct copy_part part = {.from = from->data, .to = to->data};
    if (bytes == 0 || !sweep_make(&to->meta, (const struct tensor_meta *const[]){&to->meta, &from->meta}, 2, &part.sweep))
        return false;
    int dim = turned_dim(&part.sweep.loop, bytes);
    if (dim >= 0)
        turn_emit(parts->program, &part, (uint32_t)dim, bytes);
    else
        parts_add(parts, &part, 2, bytes);
    return true;
}

enum dj_error cuda_emit_copy(struct cuda_program *program, const struct tensor *from, const struct tensor *to)
{
    struct parts parts = {.program = program};
    bool converts = copy_add(&parts, from, to);
    parts_flush(&parts);
    return converts ? DJ_OK : DJ_E_DTYPE;
}

static bool converts(enum dtype from, enum dtype to)
{
    return from == to ? dtype_bytes(from) > 0 : is_real(from) && is_real(to);
}

static bool copy_can(const struct kernel_call *call)
{
    for (uint32_t i = 0; i < call->n_in; i++)
        if (call->in[i].meta.dtype != DTYPE_NONE && !converts(call->in[i].meta.dtype, call->out[0].meta.dtype))
            return false;
    return true;
}

static enum dj_error copy_emit(const struct kernel_call *call, struct cuda_program *program)
{
    return cuda_emit_copy(program, &call->in[0], &call->out[0]);
}

// copy(self, src): the value of src with the sizes and dtype of self; fill(self, value) alike.
static enum dj_error copy_second_emit(const struct kernel_call *call, struct cuda_program *program)
{
    struct tensor value = call->in[1];
    if (tensor_count(&value.meta) == 1)
        value.meta.rank = 0;
    return cuda_emit_copy(program, &value, &call->out[0]);
}

static bool copy_second_can(const struct kernel_call *call)
{
    return converts(call->in[1].meta.dtype, call->out[0].meta.dtype) &&
           (call->op->number != OP_FILL_TENSOR || tensor_count(&call->in[1].meta) == 1);
}

// The part [start, start + length) of a tensor along `dim`.
static struct tensor narrowed(const struct tensor *tensor, uint32_t dim, int64_t start, int64_t length)
{
    struct tensor part = *tensor;
    part.data = (char *)tensor->data + start * tensor->meta.stride[dim] * (int64_t)dtype_bytes(tensor->meta.dtype);
    part.meta.size[dim] = length;
    return part;
}

static enum dj_error cat_emit(const struct kernel_call *call, struct cuda_program *program)
{
    struct parts parts = {.program = program};
    uint32_t dim = cuda_dim_wrap(call->attr[0].i, call->out[0].meta.rank);
    int64_t start = 0;
    for (uint32_t i = 0; i < call->n_in; i++) {
        const struct tensor *in = &call->in[i];
        if (in->meta.rank == 1 && in->meta.size[0] == 0)    // PyTorch lets an empty vector join anything
            continue;
        struct tensor part = narrowed(&call->out[0], dim, start, in->meta.size[dim]);
        if (!copy_add(&parts, in, &part))
            return DJ_E_DTYPE;
        start += in->meta.size[dim];
    }
    parts_flush(&parts);
    return DJ_OK;
}

// Flipped dimensions are read backwards: negative strides from the last element on.
static enum dj_error flip_emit(const struct kernel_call *call, struct cuda_program *program)
{
    struct tensor in = call->in[0];
    if (tensor_count(&in.meta) == 0)
        return DJ_OK;
    for (uint32_t i = 0; i < call->attr[0].count && in.meta.rank > 0; i++) {
        uint32_t d = cuda_dim_wrap(call->attr[0].ints[i], in.meta.rank);
        in.data = (char *)in.data + (in.meta.size[d] - 1) * in.meta.stride[d] * (int64_t)dtype_bytes(in.meta.dtype);
        in.meta.stride[d] = -in.meta.stride[d];
    }
    return cuda_emit_copy(program, &in, &call->out[0]);
}

// Rolls dimension by dimension from `at` on: two rectangles each.
static bool roll_dims(const struct kernel_call *call, struct parts *parts, const struct tensor *in, const struct tensor *out,
                      uint32_t at)
{
    if (at == call->attr[0].count)
        return copy_add(parts, in, out);
    uint32_t dim = cuda_dim_wrap(call->attr[1].ints[at], in->meta.rank);
    int64_t size = in->meta.size[dim];
    if (size == 0)
        return true;
    int64_t shift = ((call->attr[0].ints[at] % size) + size) % size;
    struct tensor in_head = narrowed(in, dim, 0, size - shift), in_tail = narrowed(in, dim, size - shift, shift);
    struct tensor out_head = narrowed(out, dim, 0, shift), out_tail = narrowed(out, dim, shift, size - shift);
    return roll_dims(call, parts, &in_head, &out_tail, at + 1) && roll_dims(call, parts, &in_tail, &out_head, at + 1);
}

static bool roll_can(const struct kernel_call *call)
{
    // Without dims PyTorch rolls the flattened tensor: the recorder flattens first.
    return copy_can(call) && call->attr[0].count == call->attr[1].count && call->attr[0].count <= DJ_RANK_MAX &&
           call->in[0].meta.rank > 0;
}

static enum dj_error roll_emit(const struct kernel_call *call, struct cuda_program *program)
{
    struct parts parts = {.program = program};
    if (!roll_dims(call, &parts, &call->in[0], &call->out[0], 0))
        return DJ_E_DTYPE;
    parts_flush(&parts);
    return DJ_OK;
}

// The output as [times, size] for each dimension; those of 1 go. False: more dimensions than a loop has.
static bool repeat_views(const struct kernel_call *call, struct tensor *from, struct tensor *to)
{
    const struct tensor_meta *in = &call->in[0].meta, *out = &call->out[0].meta;
    uint32_t skip = out->rank - in->rank, rank = 0;
    *from = call->in[0];
    *to = call->out[0];
    for (uint32_t d = 0; d < out->rank; d++) {
        int64_t size = d < skip ? 1 : in->size[d - skip], stride = d < skip ? 0 : in->stride[d - skip],
                times = call->attr[0].ints[d];
        for (uint32_t half = 0; half < 2; half++) {
            int64_t length = half == 0 ? times : size;
            if (length == 1)
                continue;
            if (rank == DJ_RANK_MAX)
                return false;
            to->meta.size[rank] = from->meta.size[rank] = length;
            to->meta.stride[rank] = half == 0 ? out->stride[d] * size : out->stride[d];
            from->meta.stride[rank++] = half == 0 ? 0 : stride;
        }
    }
    to->meta.rank = from->meta.rank = rank;
    return true;
}

static bool repeat_can(const struct kernel_call *call)
{
    struct tensor from, to;
    return copy_can(call) && repeat_views(call, &from, &to);
}

static enum dj_error repeat_emit(const struct kernel_call *call, struct cuda_program *program)
{
    struct tensor from, to;
    if (!repeat_views(call, &from, &to))
        return DJ_E_RANK;
    return tensor_count(&call->out[0].meta) == 0 ? DJ_OK : cuda_emit_copy(program, &from, &to);
}

// Values ------------------------------------------------------------------------------------------------------------------------

// A number as an element of `dtype`, repeated.
static void pattern_make(enum dtype dtype, const struct attr *value, uint8_t pattern[COPY_PATTERN_BYTES])
{
    bool is_float = value->kind == ATTR_FLOAT;
    int64_t whole = cuda_attr_int(value);
    double f64 = cuda_attr_double(value);
    float f32 = is_float ? (float)value->f : (float)whole;
    uint16_t half;
    size_t bytes = dtype_bytes(dtype);
    switch (dtype) {
    case DTYPE_BOOL: pattern[0] = is_float ? value->f != 0 : whole != 0; break;
    case DTYPE_F64: memcpy(pattern, &f64, sizeof f64); break;
    case DTYPE_F32: memcpy(pattern, &f32, sizeof f32); break;
    case DTYPE_F16:
    case DTYPE_BF16:
        half = dtype == DTYPE_F16 ? half_from_float(f32) : brain_from_float(f32);
        memcpy(pattern, &half, sizeof half);
        break;
    default: memcpy(pattern, &whole, bytes); break;    // little-endian: the low bytes
    }
    for (size_t at = bytes; at < COPY_PATTERN_BYTES; at += bytes)
        memcpy(pattern + at, pattern, bytes);
}

static enum dj_error fill_emit_all(struct cuda_program *program, const struct tensor *to, const struct attr *value)
{
    struct parts parts = {.program = program};
    uint8_t pattern[COPY_PATTERN_BYTES];
    pattern_make(to->meta.dtype, value, pattern);
    fill_add(&parts, to, pattern);
    parts_flush(&parts);
    return DJ_OK;
}

static bool fill_can(const struct kernel_call *call)
{
    return is_real(call->out[0].meta.dtype);
}

static enum dj_error fill_emit(const struct kernel_call *call, struct cuda_program *program)
{
    return fill_emit_all(program, &call->out[0], &call->attr[call->op->number == OP_FULL ? 1 : 0]);
}

static bool eye_can(const struct kernel_call *call)
{
    return fill_can(call) && call->out[0].meta.rank == 2;
}

static enum dj_error eye_emit(const struct kernel_call *call, struct cuda_program *program)
{
    struct tensor diagonal = call->out[0];
    diagonal.meta.rank = 1;
    diagonal.meta.size[0] = least(diagonal.meta.size[0], diagonal.meta.size[1]);
    diagonal.meta.stride[0] += diagonal.meta.stride[1];
    enum dj_error error = fill_emit_all(program, &call->out[0], &(struct attr){.kind = ATTR_INT, .i = 0});
    return error != DJ_OK ? error : fill_emit_all(program, &diagonal, &(struct attr){.kind = ATTR_INT, .i = 1});
}

static enum dj_error range_emit(const struct kernel_call *call, struct cuda_program *program)
{
    const struct tensor *out = &call->out[0];
    struct range_args args = {.to = out->data,
                              .count = tensor_count(&out->meta),
                              .stride = out->meta.rank == 0 ? 1 : out->meta.stride[0],
                              .start = cuda_attr_int(&call->attr[0]),
                              .step = cuda_attr_int(&call->attr[2]),
                              .from = cuda_attr_double(&call->attr[0]),
                              .by = cuda_attr_double(&call->attr[2]),
                              .dtype = out->meta.dtype,
                              .is_float = dtype_is_float(out->meta.dtype)};
    if (args.count == 0)
        return DJ_OK;
    struct cuda_shape shape = {
        .grid_x = cuda_blocks(args.count, COPY_THREADS, BLOCKS_MOST), .grid_y = 1, .grid_z = 1, .block = COPY_THREADS};
    cuda_emit(program, CUDA_copy_range, shape, &args, sizeof args);
    return DJ_OK;
}

// Regions -----------------------------------------------------------------------------------------------------------------------

static bool pad_can(const struct kernel_call *call)
{
    return copy_can(call) && is_real(call->out[0].meta.dtype) && call->attr[0].count <= 2 * call->in[0].meta.rank;
}

// pad: (before, after) pairs from the last dimension on; negative ones crop.
static enum dj_error pad_emit(const struct kernel_call *call, struct cuda_program *program)
{
    const struct attr *pad = &call->attr[0];
    struct tensor in = call->in[0], out = call->out[0];
    enum dj_error error = fill_emit_all(program, &out, &call->attr[1]);
    if (error != DJ_OK)
        return error;
    for (uint32_t i = 0; i + 1 < pad->count; i += 2) {
        uint32_t dim = in.meta.rank - 1 - i / 2;
        int64_t before = pad->ints[i], after = pad->ints[i + 1], size = in.meta.size[dim];
        int64_t cut_before = most(0, -before), cut_after = most(0, -after);
        in = narrowed(&in, dim, cut_before, most(0, size - cut_before - cut_after));
        out = narrowed(&out, dim, most(0, before), in.meta.size[dim]);
    }
    return cuda_emit_copy(program, &in, &out);
}

static bool triangle_can(const struct kernel_call *call)
{
    return is_real(call->in[0].meta.dtype) && call->in[0].meta.rank >= 2;
}

// tril keeps j <= i + diagonal, triu j >= i + diagonal.
static enum dj_error triangle_emit(const struct kernel_call *call, struct cuda_program *program)
{
    const struct tensor *in = &call->in[0], *out = &call->out[0];
    const uint32_t rank = in->meta.rank;
    struct tensor_meta batch[2] = {out->meta, in->meta};
    struct triangle_args args = {.from = in->data,
                                 .to = out->data,
                                 .rows = in->meta.size[rank - 2],
                                 .columns = in->meta.size[rank - 1],
                                 .diagonal = cuda_attr_int(&call->attr[0]),
                                 .is_lower = call->op->number == OP_TRIL,
                                 .unit = (uint32_t)dtype_bytes(in->meta.dtype)};
    if (tensor_count(&out->meta) == 0)
        return DJ_OK;
    // Beyond the edges all diagonals are alike, and sums with them stay small.
    args.diagonal = most(-args.rows - 1, least(args.diagonal, args.columns + 1));
    for (uint32_t t = 0; t < 2; t++) {
        batch[t].rank = rank - 2;
        args.row_stride[t] = (t == 0 ? out : in)->meta.stride[rank - 2];
        args.column_stride[t] = (t == 0 ? out : in)->meta.stride[rank - 1];
    }
    if (!cuda_loop_make(&batch[0], (const struct tensor_meta *const[]){&batch[0], &batch[1]}, 2, &args.batch))
        return DJ_E_INTERNAL;
    struct cuda_shape shape = {
        .grid_x = cuda_blocks(tensor_count(&out->meta), COPY_THREADS, 1 << 16), .grid_y = 1, .grid_z = 1, .block = COPY_THREADS};
    cuda_emit(program, CUDA_copy_triangle, shape, &args, sizeof args);
    return DJ_OK;
}

// The region of out that src is copied into; returns its first element.
static int64_t region_of(const struct kernel_call *call, struct tensor_meta *ret)
{
    const struct tensor_meta *out = &call->out[0].meta, *src = &call->in[1].meta;
    const struct attr *attr = call->attr;
    *ret = *out;
    if (call->op->number == OP_AS_STRIDED_SCATTER) {
        ret->rank = attr[0].count;
        for (uint32_t d = 0; d < ret->rank && d < DJ_RANK_MAX; d++) {
            ret->size[d] = attr[0].ints[d];
            ret->stride[d] = attr[1].ints[d];
        }
        return attr[2].kind == ATTR_ABSENT ? 0 : attr[2].i;
    }
    uint32_t dim = cuda_dim_wrap(attr[0].i, out->rank);
    int64_t size = out->size[dim];
    if (call->op->number == OP_SLICE_SCATTER) {
        int64_t start = attr[1].kind == ATTR_ABSENT ? 0 : attr[1].i;
        ret->size[dim] = src->size[dim];
        ret->stride[dim] *= attr[3].i;
        return most(0, least(start < 0 ? start + size : start, size)) * out->stride[dim];
    }
    for (uint32_t d = dim; d + 1 < out->rank; d++) {
        ret->size[d] = out->size[d + 1];
        ret->stride[d] = out->stride[d + 1];
    }
    ret->rank--;
    return (attr[1].i < 0 ? attr[1].i + size : attr[1].i) * out->stride[dim];
}

// Two elements of the region may be one place: which of the two is written last is nobody's choice here.
static bool overlaps(const struct tensor_meta *meta)
{
    int64_t reach = 0, bound = INT64_MAX;
    for (uint32_t n = 0; n < meta->rank; n++) {
        // The dimension with the next larger stride, each once: dimensions are few.
        uint32_t next = DJ_RANK_MAX;
        for (uint32_t d = 0; d < meta->rank; d++) {
            uint32_t smaller = 0;
            for (uint32_t e = 0; e < meta->rank; e++)
                smaller += meta->stride[e] < meta->stride[d] || (meta->stride[e] == meta->stride[d] && e < d);
            next = smaller == n ? d : next;
        }
        if (meta->size[next] < 2)
            continue;
        if (meta->stride[next] <= reach || meta->stride[next] > bound / meta->size[next])
            return true;
        reach += (meta->size[next] - 1) * meta->stride[next];
    }
    return false;
}

static bool region_can(const struct kernel_call *call)
{
    struct tensor_meta region;
    if (!converts(call->in[1].meta.dtype, call->out[0].meta.dtype) || call->in[0].meta.dtype != call->out[0].meta.dtype)
        return false;
    if (call->op->number != OP_AS_STRIDED_SCATTER)
        return true;
    (void)region_of(call, &region);
    return region.rank <= DJ_RANK_MAX && !overlaps(&region);
}

static enum dj_error region_emit(const struct kernel_call *call, struct cuda_program *program)
{
    struct tensor region = call->out[0];
    int64_t start = region_of(call, &region.meta);
    if (tensor_count(&region.meta) > 0 && (start < 0 || start + tensor_span(&region.meta) > tensor_span(&call->out[0].meta)))
        return fault_set(call->fault, DJ_E_SHAPE, "%s: the region reaches outside the tensor", call->op->name);
    region.data = (char *)region.data + start * (int64_t)dtype_bytes(region.meta.dtype);
    enum dj_error error = cuda_emit_copy(program, &call->in[0], &call->out[0]);
    return error != DJ_OK ? error : cuda_emit_copy(program, &call->in[1], &region);
}

void cuda_table_copy(struct cuda_entry *entry)
{
    _Static_assert(sizeof(struct copy_part) % CUDA_ARGS_ALIGNMENT == 0, "rectangles that join lie side by side");
    entry[OP_CLONE] = entry[OP_TO_COPY] = (struct cuda_entry){.emit = copy_emit, .can = copy_can};
    entry[OP_COPY_INTO] = entry[OP_FILL_TENSOR] = (struct cuda_entry){.emit = copy_second_emit, .can = copy_second_can};
    entry[OP_CAT] = (struct cuda_entry){.emit = cat_emit, .can = copy_can};
    entry[OP_FLIP] = (struct cuda_entry){.emit = flip_emit, .can = copy_can};
    entry[OP_ROLL] = (struct cuda_entry){.emit = roll_emit, .can = roll_can};
    entry[OP_REPEAT] = (struct cuda_entry){.emit = repeat_emit, .can = repeat_can};
    entry[OP_FULL] = entry[OP_FILL] = (struct cuda_entry){.emit = fill_emit, .can = fill_can};
    entry[OP_ARANGE] = (struct cuda_entry){.emit = range_emit, .can = fill_can};
    entry[OP_EYE] = (struct cuda_entry){.emit = eye_emit, .can = eye_can};
    entry[OP_CONSTANT_PAD] = (struct cuda_entry){.emit = pad_emit, .can = pad_can};
    entry[OP_TRIL] = entry[OP_TRIU] = (struct cuda_entry){.emit = triangle_emit, .can = triangle_can};
    entry[OP_SLICE_SCATTER] = entry[OP_SELECT_SCATTER] = entry[OP_AS_STRIDED_SCATTER] = (struct cuda_entry){.emit = region_emit,
                                                                                                            .can = region_can};
}
