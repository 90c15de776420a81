// Fake cuDNN, second half: a graph's operations one after the other, number by number. Every tensor becomes dense floats; what is written
// is rounded to its type.

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "gpu_worker/kernels/half.h"
#include "tests/lib/cuda/fake_cudnn_object.h"

struct value {
    const struct object *tensor;
    float *data;
    int64_t stride[RANK];    // dense
};

struct values {
    const struct binding *binding;
    uint32_t count;
    struct value value[TENSORS_MAX];
};

static float rounded(int type, double x)
{
    switch (type) {
    case CUDNN_DATA_HALF: return half_to_float(half_from_float((float)x));
    case CUDNN_DATA_BFLOAT16: return brain_to_float(brain_from_float((float)x));
    default: return (float)x;
    }
}

static float load(const void *data, int type, int64_t at)
{
    switch (type) {
    case CUDNN_DATA_HALF: return half_to_float(((const uint16_t *)data)[at]);
    case CUDNN_DATA_BFLOAT16: return brain_to_float(((const uint16_t *)data)[at]);
    default: return ((const float *)data)[at];
    }
}

static void store(void *data, int type, int64_t at, float x)
{
    switch (type) {
    case CUDNN_DATA_HALF: ((uint16_t *)data)[at] = half_from_float(x); return;
    case CUDNN_DATA_BFLOAT16: ((uint16_t *)data)[at] = brain_from_float(x); return;
    default: ((float *)data)[at] = x;
    }
}

static int type_of(const struct object *tensor)
{
    return object_number(tensor, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_DATA_FLOAT);
}

// The element that is number `at` in the order of the dimensions, by other strides.
static int64_t place(const int64_t *size, const int64_t *stride, int64_t at)
{
    int64_t offset = 0;
    for (int d = RANK - 1; d >= 0; d--) {
        offset += at % size[d] * stride[d];
        at /= size[d];
    }
    return offset;
}

static uint32_t bound(const struct binding *binding, const struct object *tensor)
{
    for (uint32_t i = 0; i < binding->count; i++)
        if (binding->uid[i] == tensor_uid(tensor))
            return i;
    fake_cudnn_die("a tensor has no address");
}

// The numbers of a tensor, read from memory the first time.
static struct value *value_of(struct values *values, const struct object *tensor, bool is_read)
{
    for (uint32_t i = 0; i < values->count; i++)
        if (tensor_uid(values->value[i].tensor) == tensor_uid(tensor))
            return &values->value[i];
    struct value *value = &values->value[values->count++];
    const int64_t *size = tensor_sizes(tensor);
    int64_t count = tensor_elements(tensor), dense = 1;
    *value = (struct value){.tensor = tensor, .data = calloc((size_t)count, sizeof(float))};
    if (value->data == NULL)
        fake_cudnn_die("no memory");
    for (int d = RANK - 1; d >= 0; d--) {
        value->stride[d] = dense;
        dense *= size[d];
    }
    if (!is_read || tensor_is(tensor, CUDNN_ATTR_TENSOR_IS_VIRTUAL))
        return value;
    uint32_t at = bound(values->binding, tensor);
    for (int64_t i = 0; i < count; i++)
        value->data[i] = tensor_is(tensor, CUDNN_ATTR_TENSOR_IS_BY_VALUE)
                             ? values->binding->value[at]
                             : load(values->binding->data[at], type_of(tensor), place(size, tensor_strides(tensor), i));
    return value;
}

static void put(struct value *value, int64_t at, double x)
{
    value->data[at] = rounded(type_of(value->tensor), x);
}

// Where the element `at` of `whole` is in a tensor that is broadcast to it.
static int64_t broadcast(const struct value *value, const int64_t *whole, int64_t at)
{
    const int64_t *size = tensor_sizes(value->tensor);
    int64_t offset = 0;
    for (int d = RANK - 1; d >= 0; d--) {
        offset += size[d] == 1 ? 0 : at % whole[d] * value->stride[d];
        at /= whole[d];
    }
    return offset;
}

static void multiply(const struct value *a, const struct value *b, struct value *c)
{
    const int64_t *left = tensor_sizes(a->tensor), *whole = tensor_sizes(c->tensor);
    int64_t rows = whole[2], columns = whole[3], depth = left[3];
    for (int64_t i = 0; i < tensor_elements(c->tensor); i++) {
        int64_t both = i / (rows * columns), row = i / columns % rows, column = i % columns;
        double sum = 0;
        for (int64_t k = 0; k < depth; k++)
            sum += (double)a->data[(both * rows + row) * depth + k] * b->data[(both * depth + k) * columns + column];
        put(c, i, sum);
    }
}

static double applied(int mode, double x, double b, double t, int64_t index)
{
    switch (mode) {
    case CUDNN_POINTWISE_ADD: return x + b;
    case CUDNN_POINTWISE_SUB: return x - b;
    case CUDNN_POINTWISE_MUL: return x * b;
    case CUDNN_POINTWISE_DIV: return x / b;
    case CUDNN_POINTWISE_EXP: return exp(x);
    case CUDNN_POINTWISE_LOG: return log(x);
    case CUDNN_POINTWISE_CMP_GE: return x >= b;
    case CUDNN_POINTWISE_GEN_INDEX: return (double)index;
    case CUDNN_POINTWISE_BINARY_SELECT: return t != 0 ? x : b;
    default: fake_cudnn_die("a function that is not known here");
    }
}

static void apply(const struct operation *operation, struct value *const in[3], struct value *y)
{
    const int64_t *whole = tensor_sizes(y->tensor);
    int mode = object_number(operation->description, CUDNN_ATTR_POINTWISE_MODE, -1);
    const struct attribute *axis = object_find(operation->description, CUDNN_ATTR_POINTWISE_AXIS);
    for (int64_t i = 0; i < tensor_elements(y->tensor); i++) {
        double x[3] = {0};
        for (int k = 0; k < 3; k++)
            x[k] = in[k] == NULL ? 0 : in[k]->data[broadcast(in[k], whole, i)];
        int64_t index = axis == NULL ? 0 : i / y->stride[axis->value.i64[0]] % whole[axis->value.i64[0]];
        put(y, i, applied(mode, x[0], x[1], x[2], index));
    }
}

static void reduce(const struct operation *operation, const struct value *x, struct value *y)
{
    const int64_t *whole = tensor_sizes(x->tensor);
    bool is_max = object_number(operation->description, CUDNN_ATTR_REDUCTION_OPERATOR, -1) == CUDNN_REDUCE_TENSOR_MAX;
    for (int64_t i = 0; i < tensor_elements(y->tensor); i++)
        y->data[i] = is_max ? -INFINITY : 0;
    for (int64_t i = 0; i < tensor_elements(x->tensor); i++) {
        float *to = &y->data[broadcast(y, whole, i)];
        *to = is_max ? (x->data[i] > *to ? x->data[i] : *to) : *to + x->data[i];
    }
}

// For every product of a convolution: y[image][output][..] += x[image][channel][..] * w[output][channel of its group][..]; one of the
// three is made of the others.
static void convolve(const struct operation *operation, struct value *x, struct value *w, struct value *y, struct value *made)
{
    const struct object *how = operation->description;
    const int64_t *xs = tensor_sizes(x->tensor), *ws = tensor_sizes(w->tensor), *ys = tensor_sizes(y->tensor);
    const int64_t *pad = object_find(how, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS)->value.i64,
                  *stride = object_find(how, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES)->value.i64,
                  *step = object_find(how, CUDNN_ATTR_CONVOLUTION_DILATIONS)->value.i64;
    int64_t outputs = ys[1] / (xs[1] / ws[1]);    // of a group
    double *sum = calloc((size_t)tensor_elements(made->tensor), sizeof *sum);
    if (sum == NULL)
        fake_cudnn_die("no memory");
    for (int64_t at = 0; at < tensor_elements(y->tensor); at++) {
        int64_t column = at % ys[3], row = at / ys[3] % ys[2], output = at / (ys[3] * ys[2]) % ys[1],
                image = at / (ys[3] * ys[2] * ys[1]);
        for (int64_t tap = 0; tap < ws[1] * ws[2] * ws[3]; tap++) {
            int64_t across = column * stride[1] - pad[1] + tap % ws[3] * step[1],
                    down = row * stride[0] - pad[0] + tap / ws[3] % ws[2] * step[0],
                    channel = output / outputs * ws[1] + tap / (ws[3] * ws[2]);
            if (across < 0 || across >= xs[3] || down < 0 || down >= xs[2])
                continue;
            int64_t x_at = ((image * xs[1] + channel) * xs[2] + down) * xs[3] + across,
                    w_at = output * ws[1] * ws[2] * ws[3] + tap;
            if (made == y)
                sum[at] += (double)x->data[x_at] * w->data[w_at];
            else if (made == x)
                sum[x_at] += (double)y->data[at] * w->data[w_at];
            else
                sum[w_at] += (double)y->data[at] * x->data[x_at];
        }
    }
    for (int64_t i = 0; i < tensor_elements(made->tensor); i++)
        put(made, i, sum[i]);
    free(sum);
}

static void operate(struct values *values, const struct object *self)
{
    struct operation operation = operation_of(self);
    struct value *in[3] = {0};
    for (int k = 0; k < 3; k++)
        in[k] = operation.in[k] == NULL ? NULL : value_of(values, operation.in[k], true);
    struct value *out = value_of(values, operation.out, false);
    switch (self->type) {
    case CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR: multiply(in[0], in[1], out); break;
    case CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR: apply(&operation, in, out); break;
    case CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR: reduce(&operation, in[0], out); break;
    case CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR: convolve(&operation, in[0], in[1], out, out); break;
    case CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR: convolve(&operation, out, in[1], in[0], out); break;
    case CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR: convolve(&operation, in[0], out, in[1], out); break;
    default: fake_cudnn_die("an operation that is not known here");
    }
    if (tensor_is(operation.out, CUDNN_ATTR_TENSOR_IS_VIRTUAL))
        return;
    void *data = values->binding->data[bound(values->binding, operation.out)];
    for (int64_t i = 0; i < tensor_elements(operation.out); i++)
        store(data, type_of(operation.out), place(tensor_sizes(operation.out), tensor_strides(operation.out), i), out->data[i]);
}

void graph_compute(const struct object *graph, const struct binding *binding)
{
    const struct attribute *operations = object_find(graph, CUDNN_ATTR_OPERATIONGRAPH_OPS);
    struct values values = {.binding = binding};
    for (int64_t i = 0; i < operations->count; i++)
        operate(&values, operations->value.object[i]);
    for (uint32_t i = 0; i < values.count; i++)
        free(values.value[i].data);
}
