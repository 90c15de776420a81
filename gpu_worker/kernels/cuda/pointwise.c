// Pointwise, host half: the type that is computed in, the kernel that has the op, and whether a thread's elements can be read as vectors.

#include "gpu_worker/kernels/cuda/pointwise.h"

#include <string.h>

#include "gpu_worker/kernels/cuda/cuda.h"

enum { POINTWISE_BLOCKS_MOST = 1 << 16, VECTOR_BYTES = 16 };

// Where an op is computed in float32, and whether integers have it.
enum place { NOWHERE, SIMPLE, SMOOTH, RARE };
struct row {
    uint8_t place;
    bool has_integers;
};

static const struct row rows[POINTWISE_OPS] = {
    [OP_ADD] = {SIMPLE, true},
    [OP_SUB] = {SIMPLE, true},
    [OP_MUL] = {SIMPLE, true},
    [OP_DIV] = {SIMPLE, false},
    [OP_DIV_MODE] = {RARE, true},
    [OP_REMAINDER] = {RARE, true},
    [OP_MINIMUM] = {SIMPLE, true},
    [OP_MAXIMUM] = {SIMPLE, true},
    [OP_POW] = {RARE, true},
    [OP_POW_SCALAR] = {RARE, true},
    [OP_RSUB_SCALAR] = {SIMPLE, true},
    [OP_BITWISE_AND] = {NOWHERE, true},
    [OP_BITWISE_OR] = {NOWHERE, true},
    [OP_BITWISE_XOR] = {NOWHERE, true},
    [OP_LOGICAL_AND] = {SIMPLE, true},
    [OP_LOGICAL_OR] = {SIMPLE, true},
    [OP_ATAN2] = {RARE, false},
    [OP_EQ] = {SIMPLE, true},
    [OP_NE] = {SIMPLE, true},
    [OP_LT] = {SIMPLE, true},
    [OP_LE] = {SIMPLE, true},
    [OP_GT] = {SIMPLE, true},
    [OP_GE] = {SIMPLE, true},
    [OP_EQ_SCALAR] = {SIMPLE, true},
    [OP_NE_SCALAR] = {SIMPLE, true},
    [OP_LT_SCALAR] = {SIMPLE, true},
    [OP_LE_SCALAR] = {SIMPLE, true},
    [OP_GT_SCALAR] = {SIMPLE, true},
    [OP_GE_SCALAR] = {SIMPLE, true},
    [OP_TANH_BACKWARD] = {SIMPLE, false},
    [OP_SIGMOID_BACKWARD] = {SIMPLE, false},
    [OP_THRESHOLD_BACKWARD] = {SIMPLE, true},
    [OP_GELU_BACKWARD] = {SMOOTH, false},
    [OP_SILU_BACKWARD] = {SMOOTH, false},
    [OP_HARDTANH_BACKWARD] = {SIMPLE, false},
    [OP_LEAKY_RELU_BACKWARD] = {SIMPLE, false},
    [OP_ELU_BACKWARD] = {SMOOTH, false},
    [OP_NEG] = {SIMPLE, true},
    [OP_ABS] = {SIMPLE, true},
    [OP_EXP] = {SMOOTH, false},
    [OP_LOG] = {SMOOTH, false},
    [OP_SQRT] = {SIMPLE, false},
    [OP_RSQRT] = {SIMPLE, false},
    [OP_RECIPROCAL] = {SIMPLE, false},
    [OP_SIN] = {RARE, false},
    [OP_COS] = {RARE, false},
    [OP_TANH] = {SMOOTH, false},
    [OP_SIGMOID] = {SMOOTH, false},
    [OP_ERF] = {SMOOTH, false},
    [OP_RELU] = {SIMPLE, true},
    [OP_GELU] = {SMOOTH, false},
    [OP_SILU] = {SMOOTH, false},
    [OP_BITWISE_NOT] = {NOWHERE, true},
    [OP_LOGICAL_NOT] = {SIMPLE, true},
    [OP_FLOOR] = {SIMPLE, true},
    [OP_CEIL] = {SIMPLE, true},
    [OP_ROUND] = {SIMPLE, true},
    [OP_SIGN] = {SIMPLE, true},
    [OP_ISNAN] = {SIMPLE, true},
    [OP_EXP2] = {SMOOTH, false},
    [OP_LOG1P] = {SMOOTH, false},
    [OP_HARDTANH] = {SIMPLE, true},
    [OP_LEAKY_RELU] = {SIMPLE, false},
    [OP_TRUNC] = {SIMPLE, true},
    [OP_ELU] = {SMOOTH, false},
    [OP_DROPOUT_BACKWARD] = {SIMPLE, false},
    [OP_WHERE] = {SIMPLE, true},
    [OP_MASKED_FILL] = {SIMPLE, true},
    [OP_MASKED_FILL_TENSOR] = {SIMPLE, true},
    [OP_CLAMP] = {SIMPLE, true},
    [OP_ADDCMUL] = {SIMPLE, true},
    [OP_ADDCDIV] = {SIMPLE, false},
    [OP_LERP_SCALAR] = {SIMPLE, false},
    [OP_CLAMP_MIN] = {SIMPLE, true},
};

static bool is_real(enum dtype dtype)
{
    return dtype > DTYPE_NONE && dtype <= DTYPE_F64;
}

static bool gives_bool(uint32_t op)
{
    return (op >= OP_EQ && op <= OP_GE_SCALAR && rows[op].place == SIMPLE) || op == OP_LOGICAL_AND || op == OP_LOGICAL_OR ||
           op == OP_LOGICAL_NOT || op == OP_ISNAN;
}

// The dtype that the operands are converted to. Logical ops read each operand as it is, so theirs is bool.
static enum dtype compute_of(const struct kernel_call *call)
{
    uint32_t op = call->op->number;
    if (op == OP_WHERE || op == OP_MASKED_FILL || op == OP_MASKED_FILL_TENSOR || call->compute == DTYPE_NONE)
        return call->out[0].meta.dtype;
    if (op == OP_LOGICAL_AND || op == OP_LOGICAL_OR || op == OP_LOGICAL_NOT)
        return DTYPE_BOOL;
    return op == OP_ISNAN ? call->in[0].meta.dtype : call->compute;
}

static enum cuda_function function_of(uint32_t op, enum dtype compute)
{
    if (!dtype_is_float(compute))
        return rows[op].has_integers ? CUDA_pointwise_whole : CUDA_FUNCTION_NONE;
    if (rows[op].place == NOWHERE)
        return CUDA_FUNCTION_NONE;
    if (compute == DTYPE_F64)
        return CUDA_pointwise_f64;
    return rows[op].place == SIMPLE   ? CUDA_pointwise_simple_f32
           : rows[op].place == SMOOTH ? CUDA_pointwise_smooth_f32
                                      : CUDA_pointwise_rare_f32;
}

static uint32_t elements_of(enum cuda_function function)
{
    switch (function) {
    case CUDA_pointwise_simple_f32: return POINTWISE_WIDE;
    case CUDA_pointwise_smooth_f32:
    case CUDA_pointwise_chain_f32:
    case CUDA_pointwise_whole: return POINTWISE_NARROW;
    default: return POINTWISE_LONE;
    }
}

static bool pointwise_can(const struct kernel_call *call)
{
    enum dtype compute = compute_of(call);
    if (call->n_in == 0 || call->n_in > POINTWISE_INPUTS || !is_real(call->out[0].meta.dtype) || !is_real(compute))
        return false;
    for (uint32_t i = 0; i < call->n_in; i++)
        if (!is_real(call->in[i].meta.dtype))
            return false;
    return function_of(call->op->number, compute) != CUDA_FUNCTION_NONE;
}

static int64_t wrapped(int64_t value, enum dtype dtype)
{
    switch (dtype) {
    case DTYPE_BOOL: return value != 0;
    case DTYPE_U8: return (uint8_t)value;
    case DTYPE_I8: return (int8_t)value;
    case DTYPE_I16: return (int16_t)value;
    case DTYPE_I32: return (int32_t)value;
    default: return value;
    }
}

// Whether `elements` neighbours can be read, or written, as vectors: the innermost dimension is dense (or one value) in every tensor
// and a multiple long, and each vector is aligned. A tensor that is dense throughout may have a rest, which its last thread takes one
// by one. Inputs are read so only if their elements are no larger than what is computed in.
static bool is_vector(const struct sweep *sweep, uint32_t tensors, void *const *data, const enum dtype *dtype, uint32_t elements,
                      uint64_t bytes_most)
{
    const struct loop *loop = &sweep->loop;
    if (loop->rank == 0 || (loop->rank > 1 && loop->size[loop->rank - 1] % elements != 0))
        return false;
    for (uint32_t t = 0; t < tensors; t++) {
        uint64_t bytes = dtype_bytes(dtype[t]) * elements, alignment = bytes < VECTOR_BYTES ? bytes : VECTOR_BYTES;
        int64_t inner = loop->stride[t][loop->rank - 1];
        if (inner != 1 && (inner != 0 || t == 0))
            return false;
        if (inner == 1 && ((uintptr_t)data[t] % alignment != 0 || (t > 0 && dtype_bytes(dtype[t]) > bytes_most)))
            return false;
        for (uint32_t d = 0; inner == 1 && d + 1 < loop->rank; d++)
            if ((uint64_t)loop->stride[t][d] * dtype_bytes(dtype[t]) % alignment != 0)
                return false;
    }
    return true;
}

// Whether chains have the op: those in float32 but for the rare ones, of which the powers that are products stay.
static bool is_of_chains(enum cuda_function function, const struct pointwise_args *args)
{
    static const double product[] = {2, 3, 0.5, -0.5, -1, -2};
    if (function != CUDA_pointwise_rare_f32 || args->op != OP_POW_SCALAR)
        return function == CUDA_pointwise_simple_f32 || function == CUDA_pointwise_smooth_f32;
    for (uint32_t i = 0; i < sizeof product / sizeof product[0]; i++)
        if (args->f[0] == product[i])
            return true;
    return false;
}

static struct cuda_shape shape_of(enum cuda_function function, int64_t count)
{
    return (struct cuda_shape){
        .grid_x = cuda_blocks(count, (int64_t)POINTWISE_THREADS * elements_of(function), POINTWISE_BLOCKS_MOST),
        .grid_y = 1,
        .grid_z = 1,
        .block = POINTWISE_THREADS};
}

// Adds the launch, or makes the op a part of the launch before it.
static void emit_part(struct cuda_program *program, enum cuda_function function, const struct tensor *out,
                      const struct tensor *in, uint32_t inputs, struct pointwise_args *args)
{
    struct chain *chain = &program->chain;
    bool can_chain = is_of_chains(function, args);
    int64_t count = args->sweep.loop.count;

    if (can_chain && cuda_goes_on(program) && chain_join(chain, out, in, inputs)) {
        cuda_emit_more(program, CUDA_pointwise_chain_f32, shape_of(CUDA_pointwise_chain_f32, count), args, sizeof *args);
        if (program->error == DJ_OK)
            ((struct pointwise_args *)(void *)(program->args + program->step[chain->step].args_offset))->parts = chain->parts;
        return;
    }
    chain->kind = CHAIN_NONE;
    cuda_emit(program, function, shape_of(function, count), args, sizeof *args);
    if (can_chain && program->error == DJ_OK)
        chain_begin(chain, program->steps - 1, out, in, inputs);
}

// Adds the sweep, places and dtypes, and the launch.
static enum dj_error launch(struct cuda_program *program, enum cuda_function function, const struct tensor *out,
                            const struct tensor *in, uint32_t inputs, struct pointwise_args *args)
{
    const struct tensor_meta *meta[POINTWISE_INPUTS + 1] = {&out->meta};
    void *data[POINTWISE_INPUTS + 1] = {out->data};
    enum dtype dtype[POINTWISE_INPUTS + 1] = {out->meta.dtype};

    args->out = out->data;
    args->inputs = inputs;
    args->out_dtype = out->meta.dtype;
    for (uint32_t i = 0; i < inputs; i++) {
        meta[i + 1] = &in[i].meta;
        dtype[i + 1] = in[i].meta.dtype;
        args->in_dtype[i] = in[i].meta.dtype;
        args->in_bytes[i] = (uint32_t)dtype_bytes(in[i].meta.dtype);
        if (in[i].is_scalar)
            memcpy(&args->number[i], in[i].data, dtype_bytes(in[i].meta.dtype));
        else
            args->in[i] = data[i + 1] = in[i].data;
    }
    if (!sweep_make(&out->meta, meta, inputs + 1, &args->sweep))
        return DJ_E_INTERNAL;
    // As a part of a chain its thread takes POINTWISE_NARROW elements, whatever it would take alone.
    uint32_t elements = elements_of(function);
    bool is_wide = function == CUDA_pointwise_f64 || function == CUDA_pointwise_whole;
    args->is_vector = is_vector(&args->sweep, inputs + 1, data, dtype, elements > POINTWISE_NARROW ? elements : POINTWISE_NARROW,
                                is_wide ? sizeof(double) : sizeof(float));
    for (uint32_t i = 0; i < inputs; i++)
        args->is_one[i] = args->sweep.loop.rank > 0 && args->sweep.loop.stride[i + 1][args->sweep.loop.rank - 1] == 0;
    emit_part(program, function, out, in, inputs, args);
    return DJ_OK;
}

static enum dj_error pointwise_emit(const struct kernel_call *call, struct cuda_program *program)
{
    const uint32_t op = call->op->number;
    enum dtype compute = compute_of(call);
    enum cuda_function function = function_of(op, compute);
    struct pointwise_args args = {.op = op, .out_as = gives_bool(op) ? DTYPE_BOOL : compute};

    if (!pointwise_can(call))
        return fault_set(call->fault, DJ_E_DTYPE, "%s: the CUDA backend does not compute with these dtypes", call->op->name);
    if (tensor_count(&call->out[0].meta) == 0)
        return DJ_OK;
    for (uint32_t i = 0; i < call->op->attrs && i < POINTWISE_ATTRS; i++) {
        int64_t whole = cuda_attr_int(&call->attr[i]);
        args.f[i] = cuda_attr_double(&call->attr[i]);
        args.i[i] = op == OP_POW_SCALAR || dtype_is_float(compute) ? whole : wrapped(whole, compute);
        args.has[i] = call->attr[i].kind != ATTR_ABSENT;
    }
    args.mode = call->op->attrs > 0 ? (uint32_t)cuda_attr_int(&call->attr[0]) : 0;
    for (uint32_t i = 0; i < call->n_in; i++)
        args.in_as[i] = compute;
    if (op == OP_WHERE)
        args.in_as[0] = DTYPE_BOOL;
    if (op == OP_MASKED_FILL || op == OP_MASKED_FILL_TENSOR || op == OP_DROPOUT_BACKWARD)
        args.in_as[1] = DTYPE_BOOL;
    if (function == CUDA_pointwise_whole && (op == OP_DIV_MODE || op == OP_REMAINDER))
        program->may_fault = true;                                                         // a divisor of 0
    if (op == OP_POW_SCALAR && function == CUDA_pointwise_rare_f32 && args.f[0] == 2) {    // RMS norms begin with a square
        const struct tensor twice[2] = {call->in[0], call->in[0]};
        args.op = OP_MUL;
        args.in_as[1] = compute;
        return launch(program, CUDA_pointwise_simple_f32, &call->out[0], twice, 2, &args);
    }
    return launch(program, function, &call->out[0], call->in, call->n_in, &args);
}

enum dj_error pointwise_emit_conversion(struct cuda_program *program, const struct tensor *from, const struct tensor *to)
{
    enum dtype dtype = from->meta.dtype;
    struct pointwise_args args = {.op = POINTWISE_IDENTITY, .in_as = {dtype}, .out_as = dtype};
    if (!is_real(dtype) || !is_real(to->meta.dtype))
        return DJ_E_DTYPE;
    if (tensor_count(&to->meta) == 0)
        return DJ_OK;
    enum cuda_function function = !dtype_is_float(dtype) ? CUDA_pointwise_whole
                                  : dtype == DTYPE_F64   ? CUDA_pointwise_f64
                                                         : CUDA_pointwise_simple_f32;
    return launch(program, function, to, from, 1, &args);
}

void cuda_table_pointwise(struct cuda_entry *entry)
{
    _Static_assert(sizeof(struct pointwise_args) % CUDA_ARGS_ALIGNMENT == 0, "the parts of a chain lie side by side");
    for (uint32_t op = 1; op < POINTWISE_OPS; op++)
        if (rows[op].place != NOWHERE || rows[op].has_integers)
            entry[op] = (struct cuda_entry){.emit = pointwise_emit, .can = pointwise_can};
}
