// Fake cuDNN, what it thinks of tensors, operations and graphs. See fake_cudnn.h.

#include "tests/lib/cuda/fake_cudnn_object.h"

// Tensors and operations ------------------------------------------------------------------------------------------------------

const int64_t *tensor_sizes(const struct object *tensor)
{
    return object_find(tensor, CUDNN_ATTR_TENSOR_DIMENSIONS)->value.i64;
}

const int64_t *tensor_strides(const struct object *tensor)
{
    return object_find(tensor, CUDNN_ATTR_TENSOR_STRIDES)->value.i64;
}

int64_t tensor_uid(const struct object *tensor)
{
    return object_find(tensor, CUDNN_ATTR_TENSOR_UNIQUE_ID)->value.i64[0];
}

bool tensor_is(const struct object *tensor, int flag)
{
    const struct attribute *found = object_find(tensor, flag);
    return found != NULL && found->value.byte[0] != 0;
}

int64_t tensor_elements(const struct object *tensor)
{
    const int64_t *size = tensor_sizes(tensor);
    return size[0] * size[1] * size[2] * size[3];
}

struct operation operation_of(const struct object *self)
{
    static const struct {
        int type, description, in[3], out;
    } operands[] = {
        {FORWARD,
         CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
         {CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W, -1},
         CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y},
        {DATA,
         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
         {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W, -1},
         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX},
        {FILTER,
         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
         {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY, -1},
         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW},
        {MATMUL,
         CUDNN_ATTR_OPERATION_MATMUL_DESC,
         {CUDNN_ATTR_OPERATION_MATMUL_ADESC, CUDNN_ATTR_OPERATION_MATMUL_BDESC, -1},
         CUDNN_ATTR_OPERATION_MATMUL_CDESC},
        {POINTWISE,
         CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR,
         {CUDNN_ATTR_OPERATION_POINTWISE_XDESC, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, CUDNN_ATTR_OPERATION_POINTWISE_TDESC},
         CUDNN_ATTR_OPERATION_POINTWISE_YDESC},
        {REDUCTION,
         CUDNN_ATTR_OPERATION_REDUCTION_DESC,
         {CUDNN_ATTR_OPERATION_REDUCTION_XDESC, -1, -1},
         CUDNN_ATTR_OPERATION_REDUCTION_YDESC},
    };
    struct operation ret = {.self = self};
    for (size_t i = 0; i < sizeof operands / sizeof operands[0]; i++) {
        if (operands[i].type != self->type)
            continue;
        ret.description = object_at(self, operands[i].description);
        for (int k = 0; k < 3; k++)
            ret.in[k] = object_at(self, operands[i].in[k]);
        ret.out = object_at(self, operands[i].out);
    }
    return ret;
}

static int check_tensor(const struct object *tensor)
{
    int type = object_number(tensor, CUDNN_ATTR_TENSOR_DATA_TYPE, -1);
    int64_t alignment = object_find(tensor, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT)->value.i64[0];
    bool is_virtual = tensor_is(tensor, CUDNN_ATTR_TENSOR_IS_VIRTUAL),
         is_known = type == CUDNN_DATA_FLOAT || type == CUDNN_DATA_HALF || type == CUDNN_DATA_BFLOAT16 ||
                    (is_virtual && (type == CUDNN_DATA_INT32 || type == CUDNN_DATA_BOOLEAN));
    for (int d = 0; d < RANK; d++)
        if (tensor_sizes(tensor)[d] < 1 || tensor_strides(tensor)[d] < 1)
            return CUDNN_STATUS_BAD_PARAM;
    bool is_power = alignment > 0 && (alignment & (alignment - 1)) == 0;
    return is_known && is_power && !(is_virtual && tensor_is(tensor, CUDNN_ATTR_TENSOR_IS_BY_VALUE)) ? 0 : CUDNN_STATUS_BAD_PARAM;
}

static bool fits(const struct object *small, const int64_t *whole)
{
    for (int d = 0; d < RANK; d++)
        if (tensor_sizes(small)[d] != 1 && tensor_sizes(small)[d] != whole[d])
            return false;
    return true;
}

static bool is_convolution(int type)
{
    return type == FORWARD || type == DATA || type == FILTER;
}

static int check_convolution(const struct operation *operation)
{
    int type = operation->self->type;
    const struct object *x = type == DATA ? operation->out : operation->in[0],
                        *w = type == FILTER ? operation->out : operation->in[1],
                        *y = type == FORWARD ? operation->out : operation->in[type == DATA ? 0 : 1];
    const int64_t *xs = tensor_sizes(x), *ws = tensor_sizes(w), *ys = tensor_sizes(y);
    const struct object *how = operation->description;
    if (how->type != CONVOLUTION || object_number(how, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, -1) != CUDNN_DATA_FLOAT ||
        object_number(how, CUDNN_ATTR_CONVOLUTION_CONV_MODE, -1) != CUDNN_CROSS_CORRELATION)
        return CUDNN_STATUS_BAD_PARAM;
    for (int d = 0; d < 2; d++) {
        int64_t pads = object_find(how, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS)->value.i64[d] +
                       object_find(how, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS)->value.i64[d],
                step = object_find(how, CUDNN_ATTR_CONVOLUTION_DILATIONS)->value.i64[d],
                stride = object_find(how, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES)->value.i64[d];
        if ((xs[2 + d] + pads - step * (ws[2 + d] - 1) - 1) / stride + 1 != ys[2 + d])
            return CUDNN_STATUS_BAD_PARAM;
    }
    bool has_groups = xs[1] % ws[1] == 0 && ys[1] == ws[0] && ws[0] % (xs[1] / ws[1]) == 0;
    return xs[0] == ys[0] && has_groups ? 0 : CUDNN_STATUS_BAD_PARAM;
}

static int check_operation(const struct object *self)
{
    struct operation operation = operation_of(self);
    const int64_t *out = tensor_sizes(operation.out);
    bool is_good = true;

    if (is_convolution(self->type))
        return check_convolution(&operation);
    if (self->type == MATMUL) {
        const int64_t *a = tensor_sizes(operation.in[0]), *b = tensor_sizes(operation.in[1]);
        is_good = a[3] == b[2] && a[2] == out[2] && b[3] == out[3];
        for (int d = 0; d < 2; d++)
            is_good = is_good && a[d] == out[d] && b[d] == out[d];
    } else if (self->type == REDUCTION) {
        is_good = fits(operation.out, tensor_sizes(operation.in[0]));
    } else {
        int mode = object_number(operation.description, CUDNN_ATTR_POINTWISE_MODE, -1);
        bool is_unary = mode == CUDNN_POINTWISE_EXP || mode == CUDNN_POINTWISE_LOG || mode == CUDNN_POINTWISE_GEN_INDEX;
        is_good = (operation.in[1] == NULL) == is_unary && (operation.in[2] != NULL) == (mode == CUDNN_POINTWISE_BINARY_SELECT);
        for (int k = 0; k < 3; k++)
            is_good = is_good && (operation.in[k] == NULL || fits(operation.in[k], out));
    }
    return is_good ? 0 : CUDNN_STATUS_BAD_PARAM;
}

// Graphs ------------------------------------------------------------------------------------------------------------------------

// What an operation is, in one number: a pointwise function's or a reduction's, or its descriptor's.
static int kind_of(const struct object *self)
{
    struct operation operation = operation_of(self);
    return self->type == POINTWISE   ? 1000 + object_number(operation.description, CUDNN_ATTR_POINTWISE_MODE, -1)
           : self->type == REDUCTION ? 2000 + object_number(operation.description, CUDNN_ATTR_REDUCTION_OPERATOR, -1)
                                     : self->type;
}

// Attention as it is known: with the causal mask or without, and always with the statistics.
static bool is_attention(const struct attribute *operations)
{
    static const int known[] = {MATMUL,
                                1000 + CUDNN_POINTWISE_MUL,
                                1000 + CUDNN_POINTWISE_GEN_INDEX,
                                1000 + CUDNN_POINTWISE_GEN_INDEX,
                                1000 + CUDNN_POINTWISE_CMP_GE,
                                1000 + CUDNN_POINTWISE_BINARY_SELECT,
                                2000 + CUDNN_REDUCE_TENSOR_MAX,
                                1000 + CUDNN_POINTWISE_SUB,
                                1000 + CUDNN_POINTWISE_EXP,
                                2000 + CUDNN_REDUCE_TENSOR_ADD,
                                1000 + CUDNN_POINTWISE_LOG,
                                1000 + CUDNN_POINTWISE_ADD,
                                1000 + CUDNN_POINTWISE_DIV,
                                MATMUL};
    enum { ALL = sizeof known / sizeof known[0], MASK = 2, MASKED = 4 };
    int skipped = operations->count == ALL ? 0 : MASKED;
    if (operations->count + skipped != ALL)
        return false;
    for (int i = 0; i < operations->count; i++)
        if (kind_of(operations->value.object[i]) != known[i < MASK ? i : i + skipped])
            return false;
    // Half precision in memory, heads that tensor cores load 16 bytes at a time.
    struct operation first = operation_of(operations->value.object[0]),
                     last = operation_of(operations->value.object[operations->count - 1]);
    const struct object *half[] = {first.in[0], first.in[1], last.in[0], last.in[1], last.out};
    int type = object_number(first.in[0], CUDNN_ATTR_TENSOR_DATA_TYPE, -1);
    for (int i = 0; i < 5; i++)
        if (object_number(half[i], CUDNN_ATTR_TENSOR_DATA_TYPE, -1) != type || type == CUDNN_DATA_FLOAT)
            return false;
    return tensor_sizes(first.in[0])[3] % 8 == 0 && tensor_sizes(first.in[0])[3] <= 128 && tensor_sizes(last.out)[3] % 8 == 0 &&
           tensor_sizes(last.out)[3] <= 128 && tensor_strides(first.in[0])[3] == 1 && tensor_strides(first.in[1])[2] == 1 &&
           tensor_strides(last.in[1])[3] == 1 && tensor_strides(last.out)[3] == 1;
}

// Tensors are made before they are read, once, and those with one unique id are one.
static int check_flow(const struct attribute *operations)
{
    const struct object *made[OPERATIONS_MAX];
    for (int64_t i = 0; i < operations->count; i++) {
        struct operation operation = operation_of(operations->value.object[i]);
        for (int k = 0; k < 3; k++) {
            bool is_made = false;
            for (int64_t m = 0; operation.in[k] != NULL && m < i; m++)
                is_made = is_made || made[m] == operation.in[k];
            if (operation.in[k] != NULL && is_made != tensor_is(operation.in[k], CUDNN_ATTR_TENSOR_IS_VIRTUAL))
                return CUDNN_STATUS_BAD_PARAM;
        }
        for (int64_t m = 0; m < i; m++)
            if (tensor_uid(made[m]) == tensor_uid(operation.out))
                return CUDNN_STATUS_BAD_PARAM;
        made[i] = operation.out;
    }
    return 0;
}

static int check_graph(const struct object *graph)
{
    const struct attribute *operations = object_find(graph, CUDNN_ATTR_OPERATIONGRAPH_OPS);
    bool is_one_convolution = operations->count == 1 && is_convolution(operations->value.object[0]->type);
    int code = check_flow(operations);
    return code != 0 ? code : is_one_convolution || is_attention(operations) ? 0 : CUDNN_STATUS_NOT_SUPPORTED;
}

// The head's sizes and type: code that is shared is of these.
bool graph_is_family(const struct object *graph, const struct object *other)
{
    struct operation own = operation_of(object_at(graph, CUDNN_ATTR_OPERATIONGRAPH_OPS)),
                     its = operation_of(object_at(other, CUDNN_ATTR_OPERATIONGRAPH_OPS));
    return own.self->type == its.self->type && tensor_sizes(own.in[0])[1] == tensor_sizes(its.in[0])[1] &&
           tensor_sizes(own.in[0])[3] == tensor_sizes(its.in[0])[3] &&
           object_number(own.in[0], CUDNN_ATTR_TENSOR_DATA_TYPE, -1) ==
               object_number(its.in[0], CUDNN_ATTR_TENSOR_DATA_TYPE, -1) &&
           object_find(graph, CUDNN_ATTR_OPERATIONGRAPH_OPS)->count == object_find(other, CUDNN_ATTR_OPERATIONGRAPH_OPS)->count;
}

int graph_check(const struct object *object)
{
    switch (object->type) {
    case TENSOR: return check_tensor(object);
    case FORWARD:
    case DATA:
    case FILTER:
    case MATMUL:
    case POINTWISE:
    case REDUCTION: return check_operation(object);
    case GRAPH: return check_graph(object);
    default: return 0;
    }
}
