// Copies: out[i] = convert(in[f(i)]) where f is a permutation of strides (clone, _to_copy, copy), a concatenation (cat), a mirror (flip),
// a rotation (roll), a tiling (repeat), a frame (constant_pad_nd) or a mask by position (tril, triu).
//
// Each is made of rectangles that convert_tensor moves: a view of the output and a view of the input.

#include "gpu_worker/kernels/cpu.h"

#include <string.h>

// The part [start, start + length) of a tensor along `dim`.
static struct tensor narrowed(const struct tensor *tensor, uint32_t dim, int64_t start, int64_t length)
{
    struct tensor part = *tensor;
    part.data = (char *)tensor->data + start * tensor->meta.stride[dim] * (int64_t)dtype_bytes(tensor->meta.dtype);
    part.meta.size[dim] = length;
    return part;
}

static bool copy_can(const struct kernel_call *call)
{
    for (uint32_t i = 0; i < call->n_in; i++)
        if (is_present(&call->in[i]) && convert_find(call->in[i].meta.dtype, call->out[0].meta.dtype) == NULL)
            return false;
    return true;
}

static enum dj_error refuse(const struct kernel_call *call)
{
    return fault_set(call->fault, DJ_E_DTYPE, "%s: no conversion to %s", call->op->name, dtype_name(call->out[0].meta.dtype));
}

static enum dj_error copy_run(const struct kernel_call *call)
{
    return convert_tensor(&call->in[0], &call->out[0], call->team) ? DJ_OK : refuse(call);
}

// copy(self, src): the value of src with the sizes and dtype of self.
static enum dj_error copy_into_run(const struct kernel_call *call)
{
    return convert_tensor(&call->in[1], &call->out[0], call->team) ? DJ_OK : refuse(call);
}

static enum dj_error cat_run(const struct kernel_call *call)
{
    const struct tensor *out = &call->out[0];
    uint32_t dim = dim_wrap(call->attr[0].i, out->meta.rank);
    int64_t start = 0;
    for (uint32_t i = 0; i < call->n_in; i++) {
        const struct tensor *in = &call->in[i];
        if (in->meta.rank == 1 && in->meta.size[0] == 0)    // PyTorch lets an empty vector join anything
            continue;
        struct tensor part = narrowed(out, dim, start, in->meta.size[dim]);
        if (!convert_tensor(in, &part, call->team))
            return refuse(call);
        start += in->meta.size[dim];
    }
    return DJ_OK;
}

// Rows are copied backwards along flipped dimensions: a loop with negative steps.
static void move_row(void *context, char *const at[], const int64_t step[], int64_t n)
{
    convert_function move = *(convert_function *)context;
    move(at[1], step[1], at[0], step[0], n);
}

static enum dj_error flip_run(const struct kernel_call *call)
{
    const struct tensor *in = &call->in[0], *out = &call->out[0];
    int64_t bytes = (int64_t)dtype_bytes(in->meta.dtype), step[DJ_RANK_MAX] = {0};
    char *data = in->data;
    for (uint32_t d = 0; d < in->meta.rank; d++)
        step[d] = in->meta.stride[d] * bytes;
    for (uint32_t i = 0; i < call->attr[0].count; i++) {
        uint32_t d = dim_wrap(call->attr[0].ints[i], in->meta.rank);
        if (in->meta.rank == 0 || in->meta.size[d] == 0)
            continue;
        data += (in->meta.size[d] - 1) * step[d];
        step[d] = -step[d];
    }
    convert_function move = convert_find(in->meta.dtype, out->meta.dtype);
    struct loop loop;
    loop_begin(&loop, out->meta.rank, out->meta.size);
    loop_add(&loop, out);
    loop_add_raw(&loop, data, step);
    loop_finish(&loop, true);
    loop_run(&loop, call->team, move_row, &move);
    return DJ_OK;
}

// Rolls dimension by dimension from `at` on: two rectangles each.
static bool roll_dims(const struct kernel_call *call, const struct tensor *in, const struct tensor *out, uint32_t at)
{
    if (at == call->attr[0].count)
        return convert_tensor(in, out, call->team);
    uint32_t dim = dim_wrap(call->attr[1].ints[at], in->meta.rank);
    int64_t size = in->meta.size[dim];
    if (size == 0)
        return true;
    int64_t shift = ((call->attr[0].ints[at] % size) + size) % size;
    struct tensor in_head = narrowed(in, dim, 0, size - shift), in_tail = narrowed(in, dim, size - shift, shift);
    struct tensor out_head = narrowed(out, dim, 0, shift), out_tail = narrowed(out, dim, shift, size - shift);
    return roll_dims(call, &in_head, &out_tail, at + 1) && roll_dims(call, &in_tail, &out_head, at + 1);
}

enum { ROLL_DIMS_MAX = DJ_RANK_MAX };

static bool roll_can(const struct kernel_call *call)
{
    // Without dims PyTorch rolls the flattened tensor: the recorder flattens first.
    return copy_can(call) && call->attr[0].count == call->attr[1].count && call->attr[0].count <= ROLL_DIMS_MAX &&
           call->in[0].meta.rank > 0;
}

static enum dj_error roll_run(const struct kernel_call *call)
{
    return roll_dims(call, &call->in[0], &call->out[0], 0) ? DJ_OK : refuse(call);
}

// The output seen as [repeat, size] for each dimension at once would need twice the rank: tiles are copied one by one instead.
static bool repeat_dims(const struct kernel_call *call, const struct tensor *in, const struct tensor *out, uint32_t dim)
{
    if (dim == out->meta.rank)
        return convert_tensor(in, out, call->team);
    uint32_t skip = out->meta.rank - in->meta.rank;
    int64_t size = dim < skip ? 1 : in->meta.size[dim - skip], times = call->attr[0].ints[dim];
    if (size == 1) {    // broadcasting does it at once
        return times == 0 || repeat_dims(call, in, out, dim + 1);
    }
    for (int64_t i = 0; i < times; i++) {
        struct tensor part = narrowed(out, dim, i * size, size);
        if (!repeat_dims(call, in, &part, dim + 1))
            return false;
    }
    return true;
}

static enum dj_error repeat_run(const struct kernel_call *call)
{
    return repeat_dims(call, &call->in[0], &call->out[0], 0) ? DJ_OK : refuse(call);
}

static void fill_all(const struct tensor *out, const struct attr *value, struct team *team)
{
    double f = attr_double(value);
    int64_t i = attr_int(value);
    bool is_float = value->kind == ATTR_FLOAT || dtype_is_float(out->meta.dtype);
    struct tensor one = {.data = is_float ? (void *)&f : (void *)&i, .meta = {.dtype = is_float ? DTYPE_F64 : DTYPE_I64}};
    (void)convert_tensor(&one, out, team);
}

// pad: (before, after) pairs from the last dimension on; negative ones crop.
static enum dj_error pad_run(const struct kernel_call *call)
{
    const struct attr *pad = &call->attr[0];
    struct tensor in = call->in[0], out = call->out[0];
    fill_all(&out, &call->attr[1], call->team);
    for (uint32_t i = 0; i + 1 < pad->count; i += 2) {
        uint32_t dim = in.meta.rank - 1 - i / 2;
        int64_t before = pad->ints[i], after = pad->ints[i + 1], size = in.meta.size[dim];
        int64_t cut_before = before < 0 ? -before : 0, cut_after = after < 0 ? -after : 0;
        in = narrowed(&in, dim, cut_before, i64_most(0, size - cut_before - cut_after));
        out = narrowed(&out, dim, before > 0 ? before : 0, in.meta.size[dim]);
    }
    return convert_tensor(&in, &out, call->team) ? DJ_OK : refuse(call);
}

static bool pad_can(const struct kernel_call *call)
{
    return copy_can(call) && dtype_is_real(call->out[0].meta.dtype) && call->attr[0].count <= 2 * call->in[0].meta.rank;
}

// tril keeps j <= i + diagonal, triu j >= i + diagonal; each row is a copy and zeros.
static enum dj_error triangle_run(const struct kernel_call *call)
{
    const struct tensor *in = &call->in[0], *out = &call->out[0];
    const uint32_t rank = in->meta.rank, row_dim = rank - 2, column_dim = rank - 1;
    const int64_t zero = 0;
    struct tensor nothing = {.data = (void *)(uintptr_t)&zero, .meta = {.dtype = DTYPE_I64}};
    if (tensor_count(&out->meta) == 0)
        return DJ_OK;
    for (int64_t i = 0; i < in->meta.size[row_dim]; i++) {
        int64_t columns = in->meta.size[column_dim], diagonal = attr_int(&call->attr[0]);
        bool is_lower = call->op->number == OP_TRIL;
        int64_t edge = is_lower ? i + diagonal + 1 : i + diagonal;    // the first column of the right side
        edge = i64_most(0, i64_least(edge, columns));
        struct tensor from = narrowed(in, row_dim, i, 1), to = narrowed(out, row_dim, i, 1);
        struct tensor left = narrowed(&to, column_dim, 0, edge), right = narrowed(&to, column_dim, edge, columns - edge);
        struct tensor from_left = narrowed(&from, column_dim, 0, edge),
                      from_right = narrowed(&from, column_dim, edge, columns - edge);
        (void)convert_tensor(is_lower ? &from_left : &nothing, &left, NULL);
        (void)convert_tensor(is_lower ? &nothing : &from_right, &right, NULL);
    }
    return DJ_OK;
}

static bool triangle_can(const struct kernel_call *call)
{
    return dtype_is_real(call->in[0].meta.dtype) && call->in[0].meta.rank >= 2;
}

void table_copy(struct kernel *kernel)
{
    kernel[OP_CLONE] = kernel[OP_TO_COPY] = (struct kernel){.run = copy_run, .can = copy_can};
    kernel[OP_COPY_INTO] = (struct kernel){.run = copy_into_run, .can = copy_can};
    kernel[OP_CAT] = (struct kernel){.run = cat_run, .can = copy_can};
    kernel[OP_FLIP] = (struct kernel){.run = flip_run, .can = copy_can};
    kernel[OP_ROLL] = (struct kernel){.run = roll_run, .can = roll_can};
    kernel[OP_REPEAT] = (struct kernel){.run = repeat_run, .can = copy_can};
    kernel[OP_CONSTANT_PAD] = (struct kernel){.run = pad_run, .can = pad_can};
    kernel[OP_TRIL] = kernel[OP_TRIU] = (struct kernel){.run = triangle_run, .can = triangle_can};
}
