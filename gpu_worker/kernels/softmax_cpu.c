// Softmax: y_i = exp(x_i - max x) / sum_j exp(x_j - max x); log softmax: y_i = x_i - max x - log(sum_j exp(x_j - max x)).
//
// Gradients from the result y: (g_i - sum_j g_j y_j) y_i, and g_i - exp(y_i) sum_j g_j.
//
// Rows of dense float32 go straight to the inner loop; other dimensions, strides and dtypes through one dense twin with the dimension
// last.

#include "gpu_worker/kernels/cpu.h"

#include <math.h>

enum { ROWS_ELEMENTS = 1 << 14 };    // elements of rows in one part

struct rows {
    const float *x;
    float *y;
    int64_t rows, length, rows_per_part;
    bool is_log;
};

// The tensor with `dim` moved last, so that its dense twin has rows along it.
static struct tensor moved_last(const struct tensor *tensor, uint32_t dim)
{
    struct tensor moved = *tensor;
    uint32_t at = 0;
    for (uint32_t d = 0; d < tensor->meta.rank; d++)
        if (d != dim) {
            moved.meta.size[at] = tensor->meta.size[d];
            moved.meta.stride[at++] = tensor->meta.stride[d];
        }
    if (tensor->meta.rank > 0) {
        moved.meta.size[at] = tensor->meta.size[dim];
        moved.meta.stride[at] = tensor->meta.stride[dim];
    }
    return moved;
}

static void softmax_part(void *context, uint32_t part)
{
    const struct rows *r = context;
    int64_t first = part * r->rows_per_part, last = i64_least(first + r->rows_per_part, r->rows);
    for (int64_t i = first; i < last; i++)
        simd()->softmax(r->x + i * r->length, r->y + i * r->length, r->length, r->is_log);
}

static void softmax_row_f64(const double *x, double *y, int64_t n, bool is_log)
{
    double top = -INFINITY, total = 0;
    for (int64_t i = 0; i < n; i++)
        top = x[i] > top || x[i] != x[i] ? x[i] : top;
    for (int64_t i = 0; i < n; i++)
        total += exp(x[i] - top);
    double shift = top + log(total);
    for (int64_t i = 0; i < n; i++)
        y[i] = is_log ? x[i] - shift : exp(x[i] - top) / total;
}

static enum dtype row_dtype(const struct kernel_call *call)
{
    return call->in[0].meta.dtype == DTYPE_F64 ? DTYPE_F64 : DTYPE_F32;
}

static void softmax_memory(const struct kernel_call *call, struct scratch *scratch, void **x, void **y)
{
    uint32_t dim = dim_wrap(call->attr[0].i, call->in[0].meta.rank);
    struct tensor in = moved_last(&call->in[0], dim), out = moved_last(&call->out[0], dim);
    *x = dense_take(scratch, &in, row_dtype(call), scratch->data != NULL, call->team);
    *y = dense_take(scratch, &out, row_dtype(call), false, call->team);
}

static size_t softmax_scratch(const struct kernel_call *call)
{
    struct scratch scratch = {0};
    void *x, *y;
    softmax_memory(call, &scratch, &x, &y);
    return scratch.used;
}

static enum dj_error softmax_run(const struct kernel_call *call)
{
    struct scratch scratch = {.data = call->scratch};
    uint32_t dim = dim_wrap(call->attr[0].i, call->in[0].meta.rank);
    int64_t count = tensor_count(&call->in[0].meta), length = call->in[0].meta.rank == 0 ? 1 : call->in[0].meta.size[dim];
    void *x, *y;
    if (count == 0)
        return DJ_OK;

    softmax_memory(call, &scratch, &x, &y);
    bool is_log = call->op->number == OP_LOG_SOFTMAX;
    if (row_dtype(call) == DTYPE_F64) {
        for (int64_t i = 0; i < count; i += length)
            softmax_row_f64((double *)x + i, (double *)y + i, length, is_log);
    } else {
        struct rows rows = {.x = x,
                            .y = y,
                            .rows = count / length,
                            .length = length,
                            .is_log = is_log,
                            .rows_per_part = i64_most(1, ROWS_ELEMENTS / length)};
        team_run(call->team, (uint32_t)ceil_div(rows.rows, rows.rows_per_part), softmax_part, &rows);
    }
    struct tensor out = moved_last(&call->out[0], dim);
    dense_return(y, row_dtype(call), &out, call->team);
    return DJ_OK;
}

static bool softmax_can(const struct kernel_call *call)
{
    return dtype_is_float(call->in[0].meta.dtype) && dtype_is_float(call->out[0].meta.dtype);
}

// Gradients ----------------------------------------------------------------------------------------------------------------

struct gradient_rows {
    const float *g, *y;
    float *dx;
    int64_t rows, length, rows_per_part;
    bool is_log;
};

static void backward_part(void *context, uint32_t part)
{
    const struct gradient_rows *r = context;
    int64_t first = part * r->rows_per_part, last = i64_least(first + r->rows_per_part, r->rows);
    for (int64_t i = first * r->length; i < last * r->length; i += r->length)
        simd()->softmax_backward(r->g + i, r->y + i, r->dx + i, r->length, r->is_log);
}

static void backward_row_f64(const double *g, const double *y, double *dx, int64_t n, bool is_log)
{
    double total = 0;
    for (int64_t i = 0; i < n; i++)
        total += is_log ? g[i] : g[i] * y[i];
    for (int64_t i = 0; i < n; i++)
        dx[i] = is_log ? g[i] - exp(y[i]) * total : (g[i] - total) * y[i];
}

static void backward_memory(const struct kernel_call *call, struct scratch *scratch, void **g, void **y, void **dx)
{
    uint32_t dim = dim_wrap(call->attr[0].i, call->in[0].meta.rank);
    struct tensor grad = moved_last(&call->in[0], dim), from = moved_last(&call->in[1], dim),
                  out = moved_last(&call->out[0], dim);
    *g = dense_take(scratch, &grad, row_dtype(call), scratch->data != NULL, call->team);
    *y = dense_take(scratch, &from, row_dtype(call), scratch->data != NULL, call->team);
    *dx = dense_take(scratch, &out, row_dtype(call), false, call->team);
}

static size_t backward_scratch(const struct kernel_call *call)
{
    struct scratch scratch = {0};
    void *g, *y, *dx;
    backward_memory(call, &scratch, &g, &y, &dx);
    return scratch.used;
}

static enum dj_error backward_run(const struct kernel_call *call)
{
    struct scratch scratch = {.data = call->scratch};
    uint32_t dim = dim_wrap(call->attr[0].i, call->in[0].meta.rank);
    int64_t count = tensor_count(&call->in[0].meta), length = call->in[0].meta.rank == 0 ? 1 : call->in[0].meta.size[dim];
    void *g, *y, *dx;
    if (count == 0)
        return DJ_OK;

    backward_memory(call, &scratch, &g, &y, &dx);
    bool is_log = call->op->number == OP_LOG_SOFTMAX_BACKWARD;
    if (row_dtype(call) == DTYPE_F64) {
        for (int64_t i = 0; i < count; i += length)
            backward_row_f64((double *)g + i, (double *)y + i, (double *)dx + i, length, is_log);
    } else {
        struct gradient_rows rows = {.g = g,
                                     .y = y,
                                     .dx = dx,
                                     .rows = count / length,
                                     .length = length,
                                     .is_log = is_log,
                                     .rows_per_part = i64_most(1, ROWS_ELEMENTS / length)};
        team_run(call->team, (uint32_t)ceil_div(rows.rows, rows.rows_per_part), backward_part, &rows);
    }
    struct tensor out = moved_last(&call->out[0], dim);
    dense_return(dx, row_dtype(call), &out, call->team);
    return DJ_OK;
}

void table_softmax(struct kernel *kernel)
{
    kernel[OP_SOFTMAX] = kernel[OP_LOG_SOFTMAX] = (struct kernel){
        .run = softmax_run, .scratch = softmax_scratch, .can = softmax_can};
    kernel[OP_SOFTMAX_BACKWARD] = kernel[OP_LOG_SOFTMAX_BACKWARD] = (struct kernel){
        .run = backward_run, .scratch = backward_scratch, .can = softmax_can};
}
