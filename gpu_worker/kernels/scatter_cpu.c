// Scatters: out = self, then out[..., index[...], ...] (=|+=) src.
//
// Element scatters (scatter, scatter_add, index_put, index_add) write in the order of the index, on one thread, so that the last of
// two writes to one place wins and sums have one order. Region scatters (slice_scatter, select_scatter, as_strided_scatter) are a copy
// into a view.

#include "gpu_worker/kernels/index.h"

#include <string.h>

#include "gpu_worker/kernels/half.h"

typedef void (*add_function)(char *to, const char *value);

#define ADD_AS(name, type) \
    static void add_##name(char *to, const char *value) \
    { \
        *(type *)(void *)to = (type)(*(type *)(void *)to + *(const type *)(const void *)value); \
    }
ADD_AS(u8, uint8_t)
ADD_AS(i8, int8_t)
ADD_AS(i16, int16_t)
ADD_AS(i32, uint32_t)
ADD_AS(i64, uint64_t)
ADD_AS(f32, float)
ADD_AS(f64, double)

static void add_bool(char *to, const char *value)
{
    if (*value)
        *to = 1;
}

static void add_f16(char *to, const char *value)
{
    uint16_t *t = (void *)to;
    *t = half_from_float(half_to_float(*t) + half_to_float(*(const uint16_t *)(const void *)value));
}

static void add_bf16(char *to, const char *value)
{
    uint16_t *t = (void *)to;
    *t = brain_from_float(brain_to_float(*t) + brain_to_float(*(const uint16_t *)(const void *)value));
}

static const add_function adds[DTYPE_COUNT] = {
    [DTYPE_BOOL] = add_bool, [DTYPE_U8] = add_u8,   [DTYPE_I8] = add_i8,     [DTYPE_I16] = add_i16, [DTYPE_I32] = add_i32,
    [DTYPE_I64] = add_i64,   [DTYPE_F16] = add_f16, [DTYPE_BF16] = add_bf16, [DTYPE_F32] = add_f32, [DTYPE_F64] = add_f64,
};

// Operands: out (steps 0 where an index decides), the value, then the index tensors. The value is converted to out's dtype.
struct put {
    uint32_t indices;
    struct index_dim dim[DJ_RANK_MAX];
    size_t bytes;
    convert_function convert;
    add_function add;    // NULL: assign
    double scale;        // index_add's alpha
    bool is_scaled;
    enum dtype dtype;
};

static void put_one(const struct put *put, char *to, const char *value)
{
    _Alignas(16) char converted[16];
    put->convert(value, 0, converted, 0, 1);
    if (put->is_scaled) {
        double x;
        convert_find(put->dtype, DTYPE_F64)(converted, 0, (char *)&x, 0, 1);
        x *= put->scale;
        convert_find(DTYPE_F64, put->dtype)((const char *)&x, 0, converted, 0, 1);
    }
    if (put->add != NULL)
        put->add(to, converted);
    else
        memcpy(to, converted, put->bytes);
}

static void put_row(void *context, char *const at[], const int64_t step[], int64_t n)
{
    const struct put *put = context;
    for (int64_t j = 0; j < n; j++) {
        char *to = at[0] + j * step[0];
        for (uint32_t i = 0; i < put->indices; i++)
            to += index_offset(&put->dim[i], at[2 + i] + j * step[2 + i]);
        put_one(put, to, at[1] + j * step[1]);
    }
}

// scatter and scatter_add: for every position i of index, out[i with i[dim] = index[i]] (+)= src[i].
static enum dj_error scatter_run(const struct kernel_call *call)
{
    const struct tensor *index = &call->in[1], *out = &call->out[0];
    uint32_t op = call->op->number, dim = dim_wrap(call->attr[0].i, out->meta.rank);
    int64_t size = out->meta.rank == 0 ? 1 : out->meta.size[dim], bytes = (int64_t)dtype_bytes(out->meta.dtype);
    enum dj_error error = index_check(call, index, size, false);
    if (error != DJ_OK)
        return error;
    if (!convert_tensor(&call->in[0], out, call->team))
        return DJ_E_DTYPE;

    double number = attr_double(&call->attr[op == OP_SCATTER_VALUE ? 1 : 0]);
    struct tensor value = {.data = &number, .meta = {.dtype = DTYPE_F64}};
    int64_t whole = attr_int(&call->attr[op == OP_SCATTER_VALUE ? 1 : 0]);
    if (op == OP_SCATTER_VALUE && call->attr[1].kind != ATTR_FLOAT)
        value = (struct tensor){.data = &whole, .meta = {.dtype = DTYPE_I64}};
    const struct tensor *src = op == OP_SCATTER_VALUE ? &value : &call->in[2];

    struct put put = {.indices = 1,
                      .bytes = (size_t)bytes,
                      .convert = convert_find(src->meta.dtype, out->meta.dtype),
                      .add = op == OP_SCATTER_ADD ? adds[out->meta.dtype] : NULL};
    put.dim[0] = (struct index_dim){
        .is_wide = index->meta.dtype == DTYPE_I64, .size = size, .step = out->meta.rank == 0 ? 0 : out->meta.stride[dim] * bytes};
    int64_t out_step[DJ_RANK_MAX] = {0}, src_step[DJ_RANK_MAX] = {0};
    for (uint32_t d = 0; d < index->meta.rank; d++) {
        out_step[d] = d == dim || out->meta.rank == 0 ? 0 : out->meta.stride[d] * bytes;
        src_step[d] = src == &value || src->meta.rank == 0 ? 0 : src->meta.stride[d] * (int64_t)dtype_bytes(src->meta.dtype);
    }
    struct loop loop;
    loop_begin(&loop, index->meta.rank, index->meta.size);
    loop_add_raw(&loop, out->data, out_step);
    loop_add_raw(&loop, src->data, src_step);
    loop_add(&loop, index);
    loop_finish(&loop, false);
    loop_run(&loop, NULL, put_row, &put);
    return DJ_OK;
}

static bool scatter_can(const struct kernel_call *call)
{
    return index_dtype(call->in[1].meta.dtype) && dtype_is_real(call->in[0].meta.dtype) &&
           (call->n_in < 3 || dtype_is_real(call->in[2].meta.dtype));
}

// The space of index_put: the dimensions that index(self, indices) would have.
static void put_space(const struct tensor *self, const struct tensor *index, uint32_t n_index, struct tensor_meta *ret)
{
    int64_t size[DJ_RANK_MAX];
    uint32_t first = DJ_RANK_MAX, last = 0, count = 0, rank = 0;
    for (uint32_t d = 0; d < DJ_RANK_MAX; d++)
        size[d] = 1;
    for (uint32_t d = 0; d < n_index; d++)
        if (is_present(&index[d])) {
            const struct tensor_meta *meta = &index[d].meta;
            first = d < first ? d : first;
            last = d;
            count++;
            rank = meta->rank > rank ? meta->rank : rank;
            for (uint32_t e = 0; e < meta->rank; e++)
                if (meta->size[e] != 1)
                    size[DJ_RANK_MAX - meta->rank + e] = meta->size[e];
        }
    uint32_t where = count > 0 && last - first + 1 == count ? first : 0, at = 0;
    *ret = (struct tensor_meta){.dtype = self->meta.dtype};
    for (uint32_t d = 0; d <= self->meta.rank; d++) {
        if (at == where && (d == first || where == 0) && count > 0) {
            for (uint32_t e = 0; e < rank; e++)
                ret->size[at++] = size[DJ_RANK_MAX - rank + e];
            count = 0;
        }
        if (d < self->meta.rank && !(d < n_index && is_present(&index[d])))
            ret->size[at++] = self->meta.size[d];
    }
    ret->rank = at;
}

static enum dj_error index_put_run(const struct kernel_call *call)
{
    const struct tensor *self = &call->in[0], *values = &call->in[call->n_in - 1], *out = &call->out[0];
    uint32_t n_index = call->n_in - 2;
    struct tensor space = {.data = NULL};
    struct index_plan plan;
    put_space(self, call->in + 1, n_index, &space.meta);
    index_plan(out, call->in + 1, n_index, &space, &plan);
    enum dj_error error = tensor_count(&space.meta) == 0 ? DJ_OK : index_check_all(call, &plan);
    if (error != DJ_OK)
        return error;
    if (!convert_tensor(self, out, call->team))
        return DJ_E_DTYPE;

    struct put put = {.indices = plan.indices,
                      .bytes = dtype_bytes(out->meta.dtype),
                      .convert = convert_find(values->meta.dtype, out->meta.dtype),
                      .add = attr_int(&call->attr[0]) ? adds[out->meta.dtype] : NULL};
    memcpy(put.dim, plan.dim, sizeof put.dim);
    struct loop loop;
    loop_begin(&loop, space.meta.rank, space.meta.size);
    loop_add_raw(&loop, out->data, plan.self_step);
    loop_add(&loop, values);
    for (uint32_t i = 0; i < plan.indices; i++)
        loop_add_raw(&loop, plan.index[i]->data, plan.index_step[i]);
    loop_finish(&loop, false);
    loop_run(&loop, NULL, put_row, &put);
    return DJ_OK;
}

static bool index_put_can(const struct kernel_call *call)
{
    return call->n_in >= 2 && call->n_in - 2 <= call->in[0].meta.rank && indices_can(call->in + 1, call->n_in - 2) &&
           dtype_is_real(call->in[0].meta.dtype) && dtype_is_real(call->in[call->n_in - 1].meta.dtype);
}

// index_add: out.select(dim, index[j]) += alpha * source.select(dim, j)
static enum dj_error index_add_run(const struct kernel_call *call)
{
    const struct tensor *index = &call->in[1], *source = &call->in[2], *out = &call->out[0];
    uint32_t dim = dim_wrap(call->attr[0].i, out->meta.rank);
    int64_t size = out->meta.rank == 0 ? 1 : out->meta.size[dim], bytes = (int64_t)dtype_bytes(out->meta.dtype);
    enum dj_error error = index_check(call, index, size, false);
    if (error != DJ_OK)
        return error;
    if (!convert_tensor(&call->in[0], out, call->team))
        return DJ_E_DTYPE;

    double alpha = attr_double(&call->attr[1]);
    struct put put = {.indices = 1,
                      .bytes = (size_t)bytes,
                      .convert = convert_find(source->meta.dtype, out->meta.dtype),
                      .add = adds[out->meta.dtype],
                      .scale = alpha,
                      .is_scaled = alpha != 1.0,
                      .dtype = out->meta.dtype};
    put.dim[0] = (struct index_dim){
        .is_wide = index->meta.dtype == DTYPE_I64, .size = size, .step = out->meta.rank == 0 ? 0 : out->meta.stride[dim] * bytes};
    int64_t out_step[DJ_RANK_MAX] = {0}, index_step[DJ_RANK_MAX] = {0};
    for (uint32_t d = 0; d < source->meta.rank; d++)
        out_step[d] = d == dim || out->meta.rank == 0 ? 0 : out->meta.stride[d] * bytes;
    index_step[dim] = index->meta.rank == 0 ? 0 : index->meta.stride[0] * (int64_t)dtype_bytes(index->meta.dtype);
    struct loop loop;
    loop_begin(&loop, source->meta.rank, source->meta.size);
    loop_add_raw(&loop, out->data, out_step);
    loop_add(&loop, source);
    loop_add_raw(&loop, index->data, index_step);
    loop_finish(&loop, false);
    loop_run(&loop, NULL, put_row, &put);
    return DJ_OK;
}

// The region scatters: the view of out that src is copied into.
static enum dj_error region_run(const struct kernel_call *call)
{
    const struct tensor *self = &call->in[0], *src = &call->in[1], *out = &call->out[0];
    const struct attr *attr = call->attr;
    int64_t bytes = (int64_t)dtype_bytes(out->meta.dtype), start = 0;
    struct tensor view = *out;
    switch (call->op->number) {
    case OP_SLICE_SCATTER: {
        uint32_t dim = dim_wrap(attr[0].i, out->meta.rank);
        int64_t size = out->meta.size[dim];
        start = attr[1].kind == ATTR_ABSENT ? 0 : attr[1].i;
        start = i64_most(0, i64_least(start < 0 ? start + size : start, size));
        start *= out->meta.stride[dim];
        view.meta.size[dim] = src->meta.size[dim];
        view.meta.stride[dim] *= attr[3].i;
        break;
    }
    case OP_SELECT_SCATTER: {
        uint32_t dim = dim_wrap(attr[0].i, out->meta.rank);
        int64_t index = attr[1].i < 0 ? attr[1].i + out->meta.size[dim] : attr[1].i;
        start = index * out->meta.stride[dim];
        for (uint32_t d = dim; d + 1 < out->meta.rank; d++) {
            view.meta.size[d] = out->meta.size[d + 1];
            view.meta.stride[d] = out->meta.stride[d + 1];
        }
        view.meta.rank--;
        break;
    }
    default:
        start = attr[2].kind == ATTR_ABSENT ? 0 : attr[2].i;
        view.meta.rank = attr[0].count;
        for (uint32_t d = 0; d < view.meta.rank; d++) {
            view.meta.size[d] = attr[0].ints[d];
            view.meta.stride[d] = attr[1].ints[d];
        }
        break;
    }
    if (tensor_count(&view.meta) > 0 && (start < 0 || start + tensor_span(&view.meta) > tensor_span(&out->meta)))
        return fault_set(call->fault, DJ_E_SHAPE, "%s: the region reaches outside the tensor", call->op->name);
    view.data = (char *)out->data + start * bytes;
    if (!convert_tensor(self, out, call->team) || !convert_tensor(src, &view, NULL))
        return fault_set(call->fault, DJ_E_DTYPE, "%s: the dtypes do not convert", call->op->name);
    return DJ_OK;
}

static bool region_can(const struct kernel_call *call)
{
    return convert_find(call->in[1].meta.dtype, call->out[0].meta.dtype) != NULL &&
           call->in[0].meta.dtype == call->out[0].meta.dtype;
}

void table_scatter(struct kernel *kernel)
{
    kernel[OP_SCATTER_SRC] = kernel[OP_SCATTER_VALUE] = kernel[OP_SCATTER_ADD] = (struct kernel){.run = scatter_run,
                                                                                                 .can = scatter_can};
    kernel[OP_INDEX_PUT] = (struct kernel){.run = index_put_run, .can = index_put_can};
    kernel[OP_INDEX_ADD] = (struct kernel){.run = index_add_run, .can = scatter_can};
    kernel[OP_SLICE_SCATTER] = kernel[OP_SELECT_SCATTER] = kernel[OP_AS_STRIDED_SCATTER] = (struct kernel){.run = region_run,
                                                                                                           .can = region_can};
}
