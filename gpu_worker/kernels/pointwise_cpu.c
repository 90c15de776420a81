// Pointwise: out[i] = f(a[i], b[i], c[i]) with broadcasting and any strides, in the compute dtype that PyTorch would choose.
//
// One loop per op and compute dtype works on contiguous blocks (pointwise_loops.inc; float32 comes from simd). Here a row is cut into
// blocks; an operand that is strided, broadcast or of another dtype is converted into a block on the stack, so that ops need neither
// know strides nor other dtypes. Half floats compute in float32 and round once.

#include "gpu_worker/kernels/cpu.h"

#include <math.h>
#include <string.h>

#include "gpu_worker/kernels/failure.h"

#define T double
#define FUNCTION(name) f64_##name
#define KIND_FLOAT 1
#include "gpu_worker/kernels/pointwise_loops.inc"
#define T uint8_t
#define FUNCTION(name) bool_##name
#define KIND_BOOL 1
#include "gpu_worker/kernels/pointwise_loops.inc"
#define T uint8_t
#define FUNCTION(name) u8_##name
#define KIND_INT 1
#include "gpu_worker/kernels/pointwise_loops.inc"
#define T int8_t
#define FUNCTION(name) i8_##name
#define KIND_INT 1
#include "gpu_worker/kernels/pointwise_loops.inc"
#define T int16_t
#define FUNCTION(name) i16_##name
#define KIND_INT 1
#include "gpu_worker/kernels/pointwise_loops.inc"
#define T int32_t
#define FUNCTION(name) i32_##name
#define KIND_INT 1
#include "gpu_worker/kernels/pointwise_loops.inc"
#define T int64_t
#define FUNCTION(name) i64_##name
#define KIND_INT 1
#include "gpu_worker/kernels/pointwise_loops.inc"

static const block_function tables[DTYPE_COUNT][POINTWISE_OPS] = {
    [DTYPE_BOOL] = {POINTWISE_TABLE_INTEGER(bool_)}, [DTYPE_U8] = {POINTWISE_TABLE_INTEGER(u8_)},
    [DTYPE_I8] = {POINTWISE_TABLE_INTEGER(i8_)},     [DTYPE_I16] = {POINTWISE_TABLE_INTEGER(i16_)},
    [DTYPE_I32] = {POINTWISE_TABLE_INTEGER(i32_)},   [DTYPE_I64] = {POINTWISE_TABLE_INTEGER(i64_)},
    [DTYPE_F64] = {POINTWISE_TABLE(f64_)},
};

enum { INPUTS_MAX = 3 };

// How a call is computed: the block function and the dtypes it wants of each operand.
struct pointwise {
    block_function run;
    enum dtype dtype[INPUTS_MAX + 1];    // [0] the output's, then the inputs', as the block function sees them
    uint32_t inputs;
    convert_function convert[INPUTS_MAX + 1];    // NULL: the operand has that dtype already
    convert_function move[INPUTS_MAX + 1];       // to or from a block, whatever the dtype
    struct block_scalars scalars;
    bool divides_by_zero;    // integers only; set by the check before the run
};

static bool gives_bool(uint32_t op)
{
    return (op >= OP_EQ && op <= OP_GE_SCALAR) || op == OP_LOGICAL_AND || op == OP_LOGICAL_OR || op == OP_LOGICAL_NOT ||
           op == OP_ISNAN;
}

// The dtype that the operands are converted to. Logical ops read each operand as it is, so theirs is bool.
static enum dtype compute_of(const struct kernel_call *call)
{
    uint32_t op = call->op->number;
    enum dtype compute = call->compute;
    if (op == OP_WHERE || op == OP_MASKED_FILL || op == OP_MASKED_FILL_TENSOR)
        compute = call->out[0].meta.dtype;
    else if (op == OP_LOGICAL_AND || op == OP_LOGICAL_OR || op == OP_LOGICAL_NOT)
        compute = DTYPE_BOOL;
    else if (op == OP_ISNAN)
        compute = call->in[0].meta.dtype;
    else if (compute == DTYPE_NONE)
        compute = call->out[0].meta.dtype;
    return compute == DTYPE_F16 || compute == DTYPE_BF16 ? DTYPE_F32 : compute;
}

static block_function function_of(uint32_t op, enum dtype compute, const struct kernel_call *call)
{
    if (op == OP_ADD && dtype_is_float(compute) && attr_double(&call->attr[0]) == 1.0)
        op = OP_NONE;    // a + b without the product: one load less, and exact for infinities
    return compute == DTYPE_F32 ? simd()->pointwise[op] : tables[compute][op];
}

static bool pointwise_plan(const struct kernel_call *call, struct pointwise *ret)
{
    uint32_t op = call->op->number;
    if (call->n_in == 0 || call->n_in > INPUTS_MAX || !dtype_is_real(call->out[0].meta.dtype))
        return false;
    for (uint32_t i = 0; i < call->n_in; i++)
        if (!dtype_is_real(call->in[i].meta.dtype))
            return false;
    enum dtype compute = compute_of(call);
    if (!dtype_is_real(compute))
        return false;

    *ret = (struct pointwise){.run = function_of(op, compute, call), .inputs = call->n_in};
    if (ret->run == NULL)
        return false;
    ret->dtype[0] = gives_bool(op) ? DTYPE_BOOL : compute;
    for (uint32_t i = 0; i < call->n_in; i++)
        ret->dtype[i + 1] = compute;
    if (op == OP_WHERE)
        ret->dtype[1] = DTYPE_BOOL;
    if (op == OP_MASKED_FILL || op == OP_MASKED_FILL_TENSOR || op == OP_DROPOUT_BACKWARD)
        ret->dtype[2] = DTYPE_BOOL;

    ret->move[0] = convert_find(ret->dtype[0], call->out[0].meta.dtype);
    ret->convert[0] = ret->dtype[0] == call->out[0].meta.dtype ? NULL : ret->move[0];
    for (uint32_t i = 0; i < call->n_in; i++) {
        ret->move[i + 1] = convert_find(call->in[i].meta.dtype, ret->dtype[i + 1]);
        ret->convert[i + 1] = ret->dtype[i + 1] == call->in[i].meta.dtype ? NULL : ret->move[i + 1];
    }
    for (uint32_t i = 0; i < call->op->attrs && i < SCALARS_MAX; i++) {
        ret->scalars.f[i] = attr_double(&call->attr[i]);
        ret->scalars.i[i] = attr_int(&call->attr[i]);
        ret->scalars.has[i] = call->attr[i].kind != ATTR_ABSENT;
    }
    ret->scalars.mode = ret->scalars.i[0];
    return true;
}

static bool pointwise_can(const struct kernel_call *call)
{
    struct pointwise plan;
    return pointwise_plan(call, &plan);
}

static void pointwise_row(void *context, char *const at[], const int64_t step[], int64_t n)
{
    const struct pointwise *plan = context;
    _Alignas(64) char block[INPUTS_MAX + 1][BLOCK_ELEMENTS * 8];
    int64_t width[INPUTS_MAX + 1];
    bool is_direct[INPUTS_MAX + 1], all_direct = true;
    const void *input[INPUTS_MAX] = {NULL};

    for (uint32_t i = 0; i <= plan->inputs; i++) {
        width[i] = (int64_t)dtype_bytes(plan->dtype[i]);
        is_direct[i] = plan->convert[i] == NULL && (step[i] == width[i] || (n == 1 && i > 0));
        all_direct &= is_direct[i];
    }
    int64_t length = all_direct ? n : BLOCK_ELEMENTS;
    for (uint32_t i = 1; i <= plan->inputs; i++)
        if (!is_direct[i] && step[i] == 0)    // one value: the block is filled once
            plan->move[i](at[i], 0, block[i], width[i], i64_least(n, BLOCK_ELEMENTS));
    for (int64_t start = 0; start < n; start += length) {
        int64_t count = i64_least(length, n - start);
        for (uint32_t i = 1; i <= plan->inputs; i++) {
            const char *from = at[i] + start * step[i];
            if (!is_direct[i] && step[i] != 0)
                plan->move[i](from, step[i], block[i], width[i], count);
            input[i - 1] = is_direct[i] ? from : block[i];
        }
        char *to = at[0] + start * step[0];
        plan->run(input[0], input[1], input[2], is_direct[0] ? to : block[0], count, &plan->scalars);
        if (!is_direct[0])
            plan->move[0](block[0], width[0], to, step[0], count);
    }
}

static void divisor_row(void *context, char *const at[], const int64_t step[], int64_t n)
{
    struct pointwise *plan = context;
    for (int64_t i = 0; i < n; i++) {
        int64_t value;
        plan->move[2](at[0] + i * step[0], 0, (char *)&value, 0, 1);
        plan->divides_by_zero |= value == 0;
    }
}

// Integers refuse a divisor of 0 before anything is computed.
static enum dj_error check_divisor(const struct kernel_call *call, const struct pointwise *plan)
{
    uint32_t op = call->op->number;
    if ((op != OP_DIV_MODE && op != OP_REMAINDER) || dtype_is_float(plan->dtype[2]))
        return DJ_OK;

    struct pointwise check = {.move = {[2] = convert_find(call->in[1].meta.dtype, DTYPE_I64)}};
    struct loop loop;
    loop_begin(&loop, call->in[1].meta.rank, call->in[1].meta.size);
    loop_add(&loop, &call->in[1]);
    loop_finish(&loop, true);
    loop_run(&loop, NULL, divisor_row, &check);
    return check.divides_by_zero ? failure_say(call->fault, FAILURE_DIVISOR, call->op->name, 0, 0) : DJ_OK;
}

static enum dj_error pointwise_run(const struct kernel_call *call)
{
    struct pointwise plan;
    if (!pointwise_plan(call, &plan))
        return fault_set(call->fault, DJ_E_DTYPE, "%s: the CPU backend does not compute with these dtypes", call->op->name);
    enum dj_error error = check_divisor(call, &plan);
    if (error != DJ_OK)
        return error;

    struct loop loop;
    loop_begin(&loop, call->out[0].meta.rank, call->out[0].meta.size);
    loop_add(&loop, &call->out[0]);
    for (uint32_t i = 0; i < call->n_in; i++)
        loop_add(&loop, &call->in[i]);
    loop_finish(&loop, true);
    loop_run(&loop, call->team, pointwise_row, &plan);
    return DJ_OK;
}

void table_pointwise(struct kernel *kernel)
{
    for (uint32_t op = 1; op < POINTWISE_OPS; op++)
        if (simd()->pointwise[op] != NULL || tables[DTYPE_I64][op] != NULL)
            kernel[op] = (struct kernel){.run = pointwise_run, .can = pointwise_can};
}
