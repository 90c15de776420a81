// Fills: out[i] = value (full, fill), start + i * step (arange), i == j (eye).

#include "gpu_worker/kernels/cpu.h"

// Any scalar as a rank 0 tensor; kept in `number`.
union number {
    double f;
    int64_t i;
};

static struct tensor scalar_tensor(const struct attr *attr, union number *number)
{
    bool is_float = attr->kind == ATTR_FLOAT;
    if (is_float)
        number->f = attr->f;
    else
        number->i = attr_int(attr);
    return (struct tensor){.data = number, .meta = {.dtype = is_float ? DTYPE_F64 : DTYPE_I64}};
}

static enum dj_error fill_with(const struct kernel_call *call, const struct tensor *value)
{
    if (!convert_tensor(value, &call->out[0], call->team))
        return fault_set(call->fault, DJ_E_DTYPE, "%s: %s cannot be filled", call->op->name, dtype_name(call->out[0].meta.dtype));
    return DJ_OK;
}

static enum dj_error full_run(const struct kernel_call *call)
{
    union number number;
    struct tensor value = scalar_tensor(&call->attr[1], &number);
    return fill_with(call, &value);
}

static enum dj_error fill_run(const struct kernel_call *call)
{
    union number number;
    struct tensor value = scalar_tensor(&call->attr[0], &number);
    return fill_with(call, &value);
}

static enum dj_error fill_tensor_run(const struct kernel_call *call)
{
    return fill_with(call, &call->in[1]);
}

static bool fill_can(const struct kernel_call *call)
{
    return dtype_is_real(call->out[0].meta.dtype);
}

static bool fill_tensor_can(const struct kernel_call *call)
{
    return convert_find(call->in[1].meta.dtype, call->out[0].meta.dtype) != NULL && tensor_count(&call->in[1].meta) == 1;
}

// Integers count exactly; floats compute start + step * i in double and round once, float32 as PyTorch does.
static enum dj_error arange_run(const struct kernel_call *call)
{
    const struct tensor *out = &call->out[0];
    int64_t n = tensor_count(&out->meta), start = attr_int(&call->attr[0]), step = attr_int(&call->attr[2]);
    double from = attr_double(&call->attr[0]), by = attr_double(&call->attr[2]);
    bool is_float = dtype_is_float(out->meta.dtype);
    convert_function convert = convert_find(is_float ? DTYPE_F64 : DTYPE_I64, out->meta.dtype);
    int64_t bytes = (int64_t)dtype_bytes(out->meta.dtype), stride = out->meta.stride[0] * bytes;
    union number block[256];
    for (int64_t first = 0; first < n; first += 256) {
        int64_t count = i64_least(256, n - first);
        for (int64_t i = 0; i < count; i++)
            if (is_float)
                block[i].f = from + by * (double)(first + i);
            else
                block[i].i = (int64_t)((uint64_t)start + (uint64_t)step * (uint64_t)(first + i));
        convert((const char *)block, 8, (char *)out->data + first * stride, stride, count);
    }
    return DJ_OK;
}

static enum dj_error eye_run(const struct kernel_call *call)
{
    const struct tensor *out = &call->out[0];
    int64_t number = 0;
    struct tensor value = {.data = &number, .meta = {.dtype = DTYPE_I64}};
    enum dj_error error = fill_with(call, &value);
    if (error != DJ_OK)
        return error;
    number = 1;
    struct tensor diagonal = *out;
    diagonal.meta.rank = 1;
    diagonal.meta.size[0] = i64_least(out->meta.size[0], out->meta.size[1]);
    diagonal.meta.stride[0] = out->meta.stride[0] + out->meta.stride[1];
    (void)convert_tensor(&value, &diagonal, NULL);
    return DJ_OK;
}

static bool eye_can(const struct kernel_call *call)
{
    return fill_can(call) && call->out[0].meta.rank == 2;
}

void table_fill(struct kernel *kernel)
{
    kernel[OP_FULL] = (struct kernel){.run = full_run, .can = fill_can};
    kernel[OP_FILL] = (struct kernel){.run = fill_run, .can = fill_can};
    kernel[OP_FILL_TENSOR] = (struct kernel){.run = fill_tensor_run, .can = fill_tensor_can};
    kernel[OP_ARANGE] = (struct kernel){.run = arange_run, .can = fill_can};
    kernel[OP_EYE] = (struct kernel){.run = eye_run, .can = eye_can};
}
