// The loss of classes and the gradients that scatter into rows.
//
//     nll loss             -w[t_i] x[i][t_i] for each row i whose class t_i is not the ignored one; their sum, or that over the sum
//                          of w[t_i]
//     its gradient         -w[t_i] g at [i][t_i] (over the sum of weights for the mean), 0 elsewhere
//     embedding's          row r is the sum of the gradients of all places that name r, in the order of places
//
// Sums over rows are one chain of doubles in order. Classes and indices are checked before anything is written.

#include "gpu_worker/kernels/cpu.h"
#include "gpu_worker/kernels/failure.h"
#include "gpu_worker/kernels/index.h"

#include <math.h>
#include <string.h>

enum { PART_ROWS_ELEMENTS = 1 << 15, PART_COLUMNS = 64 };

// Values are float32 or float64 twins.
struct loss {
    enum dtype dtype;
    const void *grad, *total, *weight;
    void *out, *out_total;
    const int64_t *class;
    int64_t rows, classes, ignored, grad_step, rows_per_part;
    enum reduction reduction;
};

static enum dtype wide_of(enum dtype dtype)
{
    return dtype == DTYPE_F64 ? DTYPE_F64 : DTYPE_F32;
}

static double value_at(const void *data, enum dtype dtype, int64_t i)
{
    return dtype == DTYPE_F64 ? ((const double *)data)[i] : (double)((const float *)data)[i];
}

static void set_value(void *data, enum dtype dtype, int64_t i, double value)
{
    if (dtype == DTYPE_F64)
        ((double *)data)[i] = value;
    else
        ((float *)data)[i] = (float)value;
}

static double weight_of(const struct loss *p, int64_t class)
{
    return p->weight == NULL ? 1.0 : value_at(p->weight, p->dtype, class);
}

static const void *wide_take(struct scratch *scratch, const struct kernel_call *call, uint32_t i, enum dtype dtype)
{
    if (!is_present(&call->in[i]))
        return NULL;
    return dense_take(scratch, &call->in[i], dtype, scratch->data != NULL, call->team);
}

// `values` is the index of the input that the loss is of; class and weight follow it. The values themselves are read where they are.
static void loss_memory(const struct kernel_call *call, uint32_t values, struct scratch *scratch, struct loss *ret)
{
    const struct tensor_meta *meta = &call->in[values].meta;
    ret->dtype = wide_of(meta->dtype);
    ret->class = wide_take(scratch, call, values + 1, DTYPE_I64);
    ret->weight = wide_take(scratch, call, values + 2, ret->dtype);
    if (values == 1) {
        ret->grad = wide_take(scratch, call, 0, ret->dtype);
        ret->total = wide_take(scratch, call, 4, ret->dtype);
    }
    ret->out = dense_take(scratch, &call->out[0], ret->dtype, false, call->team);
    if (values == 0)
        ret->out_total = dense_take(scratch, &call->out[1], ret->dtype, false, call->team);
    ret->classes = meta->size[meta->rank - 1];
    ret->rows = meta->rank == 2 ? meta->size[0] : 1;
    ret->reduction = (enum reduction)call->attr[0].i;
    ret->ignored = attr_int(&call->attr[1]);
}

static uint32_t values_of(const struct kernel_call *call)
{
    return call->op->number == OP_NLL_LOSS_BACKWARD ? 1 : 0;
}

static size_t loss_scratch(const struct kernel_call *call)
{
    struct scratch scratch = {0};
    struct loss p;
    loss_memory(call, values_of(call), &scratch, &p);
    return scratch.used;
}

static enum dj_error classes_check(const struct kernel_call *call, const struct loss *p)
{
    for (int64_t i = 0; i < p->rows; i++)
        if (p->class[i] != p->ignored && (p->class[i] < 0 || p->class[i] >= p->classes))
            return failure_say(call->fault, FAILURE_CLASS, call->op->name, p->class[i], p -> classes);
    return DJ_OK;
}

static enum dj_error loss_run(const struct kernel_call *call)
{
    struct scratch scratch = {.data = call->scratch};
    const struct tensor *values = &call->in[0];
    struct loss p = {0};
    loss_memory(call, 0, &scratch, &p);
    enum dj_error error = classes_check(call, &p);
    if (error != DJ_OK)
        return error;

    convert_function read = convert_find(values->meta.dtype, DTYPE_F64);
    int64_t bytes = (int64_t)dtype_bytes(values->meta.dtype), column = values->meta.stride[values->meta.rank - 1] * bytes;
    int64_t row = values->meta.rank == 2 ? values->meta.stride[0] * bytes : 0;
    bool is_each = p.reduction == REDUCTION_NONE && values->meta.rank == 2;
    double sum = 0, weights = 0;
    for (int64_t i = 0; i < p.rows; i++) {
        double value = 0, weight = 0;
        if (p.class[i] != p.ignored) {
            read((const char *)values->data + i * row + p.class[i] * column, 0, (char *)&value, 0, 1);
            weight = weight_of(&p, p.class[i]);
            value *= -weight;
        }
        if (is_each)
            set_value(p.out, p.dtype, i, value);
        sum += value;
        weights += weight;
    }
    if (!is_each)
        set_value(p.out, p.dtype, 0, p.reduction == REDUCTION_MEAN ? sum / weights : sum);
    set_value(p.out_total, p.dtype, 0, is_each ? 0.0 : weights);
    dense_return(p.out, p.dtype, &call->out[0], call->team);
    dense_return(p.out_total, p.dtype, &call->out[1], call->team);
    return DJ_OK;
}

static void loss_backward_part(void *context, uint32_t part)
{
    const struct loss *p = context;
    int64_t first = part * p->rows_per_part, last = i64_least(first + p->rows_per_part, p->rows);
    size_t bytes = dtype_bytes(p->dtype), row = (size_t)p->classes * bytes;
    memset((char *)p->out + (size_t)first * row, 0, (size_t)(last - first) * row);
    double total = value_at(p->total, p->dtype, 0);
    for (int64_t i = first; i < last; i++) {
        if (p->class[i] == p->ignored)
            continue;
        double slope = -weight_of(p, p->class[i]) * value_at(p->grad, p->dtype, i * p->grad_step);
        set_value(p->out, p->dtype, i * p->classes + p->class[i], p -> reduction == REDUCTION_MEAN ? slope / total : slope);
    }
}

static enum dj_error loss_backward_run(const struct kernel_call *call)
{
    struct scratch scratch = {.data = call->scratch};
    struct loss p = {0};
    loss_memory(call, 1, &scratch, &p);
    enum dj_error error = classes_check(call, &p);
    if (error != DJ_OK)
        return error;
    p.grad_step = p.reduction == REDUCTION_NONE && call->in[1].meta.rank == 2;
    p.rows_per_part = i64_most(1, PART_ROWS_ELEMENTS / i64_most(1, p.classes));
    if (p.classes > 0)
        team_run(call->team, (uint32_t)ceil_div(p.rows, p.rows_per_part), loss_backward_part, &p);
    dense_return(p.out, p.dtype, &call->out[0], call->team);
    return DJ_OK;
}

static bool loss_can(const struct kernel_call *call)
{
    return dtype_is_float(call->in[0].meta.dtype);
}

// Embedding ----------------------------------------------------------------------------------------------------------------

struct embedding {
    enum dtype dtype;    // float32 or float64
    const void *grad;
    void *out;
    const int64_t *index, *count;    // count NULL: gradients are not divided by how often their row is named
    int64_t places, rows, width, padding, rows_per_part;
};

static void zero_part(void *context, uint32_t part)
{
    const struct embedding *p = context;
    int64_t first = part * p->rows_per_part, last = i64_least(first + p->rows_per_part, p->rows);
    size_t row = (size_t)p->width * dtype_bytes(p->dtype);
    memset((char *)p->out + (size_t)first * row, 0, (size_t)(last - first) * row);
}

#define ADD_PART(name, type) \
    static void name(void *context, uint32_t part) \
    { \
        const struct embedding *p = context; \
        int64_t first = part * PART_COLUMNS, n = i64_least(PART_COLUMNS, p->width - first); \
        for (int64_t i = 0; i < p->places; i++) { \
            int64_t row = p->index[i]; \
            if (row == p->padding) \
                continue; \
            const type *from = (const type *)p->grad + i * p->width + first; \
            type *to = (type *)p->out + row * p->width + first; \
            type share = p->count == NULL ? 1 : 1 / (type)p->count[row]; \
            for (int64_t j = 0; j < n; j++) \
                to[j] += from[j] * share; \
        } \
    }
ADD_PART(add_part_f32, float)
ADD_PART(add_part_f64, double)

static int64_t *embedding_memory(const struct kernel_call *call, struct scratch *scratch, struct embedding *ret)
{
    ret->dtype = wide_of(call->in[0].meta.dtype);
    ret->grad = wide_take(scratch, call, 0, ret->dtype);
    ret->index = dense_take(scratch, &call->in[1], DTYPE_I64, scratch->data != NULL, call->team);
    ret->out = dense_take(scratch, &call->out[0], ret->dtype, false, call->team);
    ret->rows = call->out[0].meta.size[0];
    ret->width = call->out[0].meta.size[1];
    return attr_int(&call->attr[2]) == 0 ? NULL : scratch_take(scratch, (size_t)ret->rows * sizeof(int64_t));
}

static size_t embedding_scratch(const struct kernel_call *call)
{
    struct scratch scratch = {0};
    struct embedding p;
    embedding_memory(call, &scratch, &p);
    return scratch.used;
}

static enum dj_error embedding_run(const struct kernel_call *call)
{
    struct scratch scratch = {.data = call->scratch};
    struct embedding p = {.places = tensor_count(&call->in[1].meta), .padding = attr_int(&call->attr[1])};
    enum dj_error error = index_check(call, &call->in[1], call->out[0].meta.size[0], false);
    if (error != DJ_OK)
        return error;
    int64_t *count = embedding_memory(call, &scratch, &p);
    if (p.rows == 0 || p.width == 0)
        return DJ_OK;
    if (count != NULL) {
        memset(count, 0, (size_t)p.rows * sizeof *count);
        for (int64_t i = 0; i < p.places; i++)
            count[p.index[i]]++;
        p.count = count;
    }
    p.rows_per_part = i64_most(1, PART_ROWS_ELEMENTS / p.width);
    team_run(call->team, (uint32_t)ceil_div(p.rows, p.rows_per_part), zero_part, &p);
    team_run(call->team, (uint32_t)ceil_div(p.width, PART_COLUMNS), p.dtype == DTYPE_F64 ? add_part_f64 : add_part_f32, &p);
    dense_return(p.out, p.dtype, &call->out[0], call->team);
    return DJ_OK;
}

static bool embedding_can(const struct kernel_call *call)
{
    return dtype_is_float(call->in[0].meta.dtype) && indices_can(&call->in[1], 1);
}

void table_loss(struct kernel *kernel)
{
    kernel[OP_NLL_LOSS] = (struct kernel){.run = loss_run, .scratch = loss_scratch, .can = loss_can};
    kernel[OP_NLL_LOSS_BACKWARD] = (struct kernel){.run = loss_backward_run, .scratch = loss_scratch, .can = loss_can};
    kernel[OP_EMBEDDING_BACKWARD] = (struct kernel){.run = embedding_run, .scratch = embedding_scratch, .can = embedding_can};
}
