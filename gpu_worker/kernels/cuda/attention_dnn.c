// Attention by cuDNN: see attention_dnn.h. The graph, whose engine computes all of it in one kernel with tensor cores (FlashAttention: Dao
// et al. 2022):
//
//     scores = q k^T; scaled = scores * scale; causal: scaled = row >= column ? scaled : -most; top = max(scaled); weights = exp(scaled -
//     top);
//     sum = sum of weights; lse = log(sum) + top; shares = weights / sum, rounded to the inputs' dtype; out = shares v
//
// The steps of the softmax with its statistics (lse) are what cuDNN 9.19 knows the pattern by, so they stand there also when nobody asked
// for lse. All of it is in fp32 but the shares: that is what tensor cores take.

#include "gpu_worker/kernels/cuda/attention_dnn.h"

#include <float.h>
#include <string.h>

#include "gpu_worker/kernels/cuda/dnn_graph.h"

enum { B, H, ROW, COLUMN };
enum {
    UID_Q = 1,
    UID_K,
    UID_V,
    UID_OUT,
    UID_LSE,
    UID_SCALE,
    UID_HIDDEN,
    UID_VIRTUAL = 100,    // and on
};

// What a plan depends on. k is [batch, heads, depth, keys] here: transposed.
struct attention_shape {
    int64_t graph, dtype, is_causal, has_lse;
    struct dnn_plane q, k, v, out, lse;
};

// What the code of its kernels depends on: everything but lengths.
struct attention_family {
    int64_t graph, dtype, is_causal, has_lse, heads, depth, value_depth;
    int64_t by_head[4];    // q, k, v, out: a head's rows lie together
};

struct attention_call {
    struct attention_shape shape;
    const void *q, *k, *v;
    void *out;
    float *lse;
    float scale, hidden;    // hidden: the score of a key that is not seen
};

// A graph being written: operations in their order, tensors named as they come.
struct writer {
    struct dnn_builder *b;
    void **operation;
    uint32_t operations;
    int64_t next_uid;
};

static struct dnn_plane dense(int64_t batch, int64_t heads, int64_t rows, int64_t columns)
{
    return (struct dnn_plane){.size = {batch, heads, rows, columns},
                              .stride = {heads * rows * columns, rows * columns, columns, 1}};
}

static void *make_virtual(struct writer *w, const struct dnn_plane *plane, int type)
{
    return dnn_make_tensor(w->b, &(struct dnn_tensor){.plane = *plane, .uid = w->next_uid++, .type = type, .is_virtual = true});
}

static void *make_scalar(struct writer *w, int64_t uid)
{
    return dnn_make_tensor(
        w->b, &(struct dnn_tensor){.plane = dense(1, 1, 1, 1), .uid = uid, .type = CUDNN_DATA_FLOAT, .is_by_value = true});
}

static void *make_real(struct writer *w, const struct dnn_plane *plane, int64_t uid, int type)
{
    return dnn_make_tensor(w->b, &(struct dnn_tensor){.plane = *plane, .uid = uid, .type = type});
}

static void add(struct writer *w, void *operation)
{
    dnn_finalize(w->b, operation);
    if (w->operations < DNN_OPERATIONS_MAX)
        w->operation[w->operations++] = operation;
}

static void multiply(struct writer *w, void *a, void *b, void *c)
{
    void *product = dnn_make(w->b, CUDNN_BACKEND_MATMUL_DESCRIPTOR);
    int compute = CUDNN_DATA_FLOAT;
    dnn_set(w->b, product, CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &compute);
    dnn_finalize(w->b, product);
    void *operation = dnn_make(w->b, CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR);
    dnn_set_object(w->b, operation, CUDNN_ATTR_OPERATION_MATMUL_ADESC, a);
    dnn_set_object(w->b, operation, CUDNN_ATTR_OPERATION_MATMUL_BDESC, b);
    dnn_set_object(w->b, operation, CUDNN_ATTR_OPERATION_MATMUL_CDESC, c);
    dnn_set_object(w->b, operation, CUDNN_ATTR_OPERATION_MATMUL_DESC, product);
    add(w, operation);
}

// y = mode(x), mode(x, b), or t ? x : b; for GEN_INDEX along `axis`. NULL: the operand is not there.
struct pointwise {
    int mode;
    void *x, *b, *t, *y;
    int64_t axis;
};

static void apply(struct writer *w, const struct pointwise *p)
{
    void *function = dnn_make(w->b, CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
    int compute = CUDNN_DATA_FLOAT;
    dnn_set(w->b, function, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &p->mode);
    dnn_set(w->b, function, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, 1, &compute);
    if (p->mode == CUDNN_POINTWISE_GEN_INDEX)
        dnn_set(w->b, function, CUDNN_ATTR_POINTWISE_AXIS, CUDNN_TYPE_INT64, 1, &p->axis);
    dnn_finalize(w->b, function);
    void *operation = dnn_make(w->b, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
    dnn_set_object(w->b, operation, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, function);
    dnn_set_object(w->b, operation, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, p->x);
    if (p->b != NULL)
        dnn_set_object(w->b, operation, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, p->b);
    if (p->t != NULL)
        dnn_set_object(w->b, operation, CUDNN_ATTR_OPERATION_POINTWISE_TDESC, p->t);
    dnn_set_object(w->b, operation, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, p->y);
    add(w, operation);
}

static void reduce(struct writer *w, int how, void *x, void *y)
{
    void *reduction = dnn_make(w->b, CUDNN_BACKEND_REDUCTION_DESCRIPTOR);
    int compute = CUDNN_DATA_FLOAT;
    dnn_set(w->b, reduction, CUDNN_ATTR_REDUCTION_OPERATOR, CUDNN_TYPE_REDUCTION_OPERATOR_TYPE, 1, &how);
    dnn_set(w->b, reduction, CUDNN_ATTR_REDUCTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &compute);
    dnn_finalize(w->b, reduction);
    void *operation = dnn_make(w->b, CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR);
    dnn_set_object(w->b, operation, CUDNN_ATTR_OPERATION_REDUCTION_XDESC, x);
    dnn_set_object(w->b, operation, CUDNN_ATTR_OPERATION_REDUCTION_YDESC, y);
    dnn_set_object(w->b, operation, CUDNN_ATTR_OPERATION_REDUCTION_DESC, reduction);
    add(w, operation);
}

// Scores of keys after the query become so small that their weights are 0. Every query sees the first key.
static void *hide(struct writer *w, const struct dnn_plane *scores, void *x)
{
    void *row = make_virtual(w, scores, CUDNN_DATA_INT32), *column = make_virtual(w, scores, CUDNN_DATA_INT32),
         *is_seen = make_virtual(w, scores, CUDNN_DATA_BOOLEAN), *y = make_virtual(w, scores, CUDNN_DATA_FLOAT);
    apply(w, &(struct pointwise){.mode = CUDNN_POINTWISE_GEN_INDEX, .x = x, .y = row, .axis = ROW});
    apply(w, &(struct pointwise){.mode = CUDNN_POINTWISE_GEN_INDEX, .x = x, .y = column, .axis = COLUMN});
    apply(w, &(struct pointwise){.mode = CUDNN_POINTWISE_CMP_GE, .x = row, .b = column, .y = is_seen});
    apply(w, &(struct pointwise){
                 .mode = CUDNN_POINTWISE_BINARY_SELECT, .x = x, .b = make_scalar(w, UID_HIDDEN), .t = is_seen, .y = y});
    return y;
}

static void *softmax(struct writer *w, const struct attention_shape *shape, const struct dnn_plane *scores, void *x)
{
    struct dnn_plane rows = dense(scores->size[B], scores->size[H], scores->size[ROW], 1);
    void *top = make_virtual(w, &rows, CUDNN_DATA_FLOAT), *less = make_virtual(w, scores, CUDNN_DATA_FLOAT),
         *weights = make_virtual(w, scores, CUDNN_DATA_FLOAT), *sum = make_virtual(w, &rows, CUDNN_DATA_FLOAT),
         *logarithm = make_virtual(w, &rows, CUDNN_DATA_FLOAT);
    void *lse = shape->has_lse ? make_real(w, &shape->lse, UID_LSE, CUDNN_DATA_FLOAT) : make_virtual(w, &rows, CUDNN_DATA_FLOAT);
    void *shares = make_virtual(w, scores, dnn_data_type(shape->dtype));
    reduce(w, CUDNN_REDUCE_TENSOR_MAX, x, top);
    apply(w, &(struct pointwise){.mode = CUDNN_POINTWISE_SUB, .x = x, .b = top, .y = less});
    apply(w, &(struct pointwise){.mode = CUDNN_POINTWISE_EXP, .x = less, .y = weights});
    reduce(w, CUDNN_REDUCE_TENSOR_ADD, weights, sum);
    apply(w, &(struct pointwise){.mode = CUDNN_POINTWISE_LOG, .x = sum, .y = logarithm});
    apply(w, &(struct pointwise){.mode = CUDNN_POINTWISE_ADD, .x = logarithm, .b = top, .y = lse});
    apply(w, &(struct pointwise){.mode = CUDNN_POINTWISE_DIV, .x = weights, .b = sum, .y = shares});
    return shares;
}

static uint32_t operate(struct dnn_builder *b, const void *problem, void **ret)
{
    const struct attention_shape *shape = problem;
    struct writer w = {.b = b, .operation = ret, .next_uid = UID_VIRTUAL};
    struct dnn_plane scores = dense(shape->q.size[B], shape->q.size[H], shape->q.size[ROW], shape->k.size[COLUMN]);
    int type = dnn_data_type(shape->dtype);
    void *product = make_virtual(&w, &scores, CUDNN_DATA_FLOAT), *scaled = make_virtual(&w, &scores, CUDNN_DATA_FLOAT);

    multiply(&w, make_real(&w, &shape->q, UID_Q, type), make_real(&w, &shape->k, UID_K, type), product);
    apply(&w, &(struct pointwise){.mode = CUDNN_POINTWISE_MUL, .x = product, .b = make_scalar(&w, UID_SCALE), .y = scaled});
    if (shape->is_causal)
        scaled = hide(&w, &scores, scaled);
    void *shares = softmax(&w, shape, &scores, scaled);
    multiply(&w, shares, make_real(&w, &shape->v, UID_V, type), make_real(&w, &shape->out, UID_OUT, type));
    return w.operations;
}

static struct attention_family family_of(const struct attention_shape *shape)
{
    return (struct attention_family){
        .graph = DNN_ATTENTION,
        .dtype = shape->dtype,
        .is_causal = shape->is_causal,
        .has_lse = shape->has_lse,
        .heads = shape->q.size[H],
        .depth = shape->q.size[COLUMN],
        .value_depth = shape->v.size[COLUMN],
        .by_head = {shape->q.stride[H] > shape->q.stride[ROW], shape->k.stride[H] > shape->k.stride[COLUMN],
                    shape->v.stride[H] > shape->v.stride[ROW], shape->out.stride[H] > shape->out.stride[ROW]}};
}

static struct dnn_problem problem_of(const struct attention_shape *shape, const struct attention_family *family)
{
    return (struct dnn_problem){
        .shape = shape, .shape_bytes = sizeof *shape, .family = family, .family_bytes = sizeof *family, .operate = operate};
}

static enum dj_error run(const void *context, const struct cuda_libraries *libraries, cuda_stream stream, struct fault *fault)
{
    const struct attention_call *call = context;
    struct attention_family family = family_of(&call->shape);
    struct dnn_problem problem = problem_of(&call->shape, &family);
    struct dnn_pointers pointers = {.count = 5,
                                    .uid = {UID_Q, UID_K, UID_V, UID_OUT, UID_SCALE},
                                    .data = {call->q, call->k, call->v, call->out, &call->scale}};
    if (call->shape.is_causal) {
        pointers.uid[pointers.count] = UID_HIDDEN;
        pointers.data[pointers.count++] = &call->hidden;
    }
    if (call->shape.has_lse) {
        pointers.uid[pointers.count] = UID_LSE;
        pointers.data[pointers.count++] = call->lse;
    }
    return dnn_run(libraries, &problem, &pointers, stream, fault);
}

// What is taken -----------------------------------------------------------------------------------------------------------------

static bool is_taken_size(int64_t depth)
{
    return depth > 0 && depth <= ATTENTION_DNN_DEPTH_MOST && depth % ATTENTION_DNN_GRAIN == 0;
}

// Elements of a head side by side, rows that begin at multiples of 16 bytes, nothing that is read twice (a stride of 0).
static bool take(struct dnn_plane *ret, const void *data, const int64_t size[DNN_RANK], const int64_t stride[DNN_RANK])
{
    *ret = dnn_plane_make(size, stride);
    if (!dnn_is_aligned(data) || ret->stride[COLUMN] != 1)
        return false;
    for (int d = B; d < COLUMN; d++)
        if (ret->stride[d] <= 0 || ret->stride[d] % ATTENTION_DNN_GRAIN != 0)
            return false;
    return true;
}

static void turn(struct dnn_plane *plane)
{
    int64_t size = plane->size[ROW], stride = plane->stride[ROW];
    plane->size[ROW] = plane->size[COLUMN];
    plane->stride[ROW] = plane->stride[COLUMN];
    plane->size[COLUMN] = size;
    plane->stride[COLUMN] = stride;
}

static bool shape_make(struct attention_shape *ret, enum dtype dtype, int64_t batch, const struct attention_args *args)
{
    const int64_t q[] = {batch, args->heads, args->queries, args->depth}, k[] = {batch, args->heads, args->keys, args->depth},
                  v[] = {batch, args->heads, args->keys, args->value_depth},
                  out[] = {batch, args->heads, args->queries, args->value_depth}, lse[] = {batch, args->heads, args->queries, 1},
                  lse_stride[] = {args->lse_stride[0], args->lse_stride[1], args->lse_stride[2], 1};

    *ret = (struct attention_shape){
        .graph = DNN_ATTENTION, .dtype = dtype, .is_causal = args->is_causal != 0, .has_lse = args->lse != NULL};
    if ((dtype != DTYPE_F16 && dtype != DTYPE_BF16) || args->mask_kind != MASK_NONE ||
        args->queries < ATTENTION_DNN_QUERIES_LEAST || args->keys == 0)
        return false;
    if (!is_taken_size(args->depth) || !is_taken_size(args->value_depth) || !take(&ret->q, args->q, q, args->q_stride) ||
        !take(&ret->k, args->k, k, args->k_stride) || !take(&ret->v, args->v, v, args->v_stride) ||
        !take(&ret->out, args->out, out, args->out_stride))
        return false;
    if (ret->has_lse)
        ret->lse = dnn_plane_make(lse, lse_stride);
    turn(&ret->k);
    return !ret->has_lse || dnn_is_aligned(args->lse);
}

bool attention_dnn_emit(struct cuda_program *program, enum dtype dtype, int64_t batch, const struct attention_args *args)
{
    struct attention_call call;

    if (program->libraries == NULL || program->libraries->dnn == NULL ||
        program->libraries->dnn->cudnnGetVersion() < ATTENTION_DNN_VERSION_LEAST)
        return false;
    memset(&call, 0, sizeof call);
    if (!shape_make(&call.shape, dtype, batch, args))
        return false;
    struct attention_family family = family_of(&call.shape);
    struct dnn_problem problem = problem_of(&call.shape, &family);
    if (!dnn_serves(program->libraries, &problem))
        return false;
    call.q = args->q;
    call.k = args->k;
    call.v = args->v;
    call.out = args->out;
    call.lse = args->lse;
    call.scale = args->scale;
    call.hidden = -FLT_MAX;
    cuda_emit_call(program, run, &call, sizeof call);
    return true;
}
