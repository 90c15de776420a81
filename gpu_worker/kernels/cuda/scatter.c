// Scatter, host half: out = self, then what the index names is assigned or added to. Each op becomes a space (index.h): its dimensions,
// which of them carry an index, and how many places the indices can name.
//
// Scratch: of assignments, an integer for each place; of sums, two entries for each position. Indices are checked also where nothing moves.

#include "gpu_worker/kernels/cuda/scatter.h"

#include <string.h>

#include "gpu_worker/kernels/cuda/index.h"
#include "gpu_worker/kernels/half.h"

// An element of `dtype` from a number, as the CPU's conversions give it.
static void write_number(enum dtype dtype, bool is_float, double real, int64_t whole, uint8_t *ret)
{
    int64_t integer = !is_float                        ? whole
                      : real >= 9223372036854775807.0  ? INT64_MAX
                      : real <= -9223372036854775808.0 ? INT64_MIN
                                                       : (int64_t)real;
    float single = is_float ? (float)real : (float)whole;
    double wide = is_float ? real : (double)whole;
    uint16_t half = dtype == DTYPE_F16 ? half_from_float(single) : brain_from_float(single);
    switch (dtype) {
    case DTYPE_BOOL: *ret = is_float ? real != 0 : whole != 0; break;
    case DTYPE_F16:
    case DTYPE_BF16: memcpy(ret, &half, sizeof half); break;
    case DTYPE_F32: memcpy(ret, &single, sizeof single); break;
    case DTYPE_F64: memcpy(ret, &wide, sizeof wide); break;
    default: memcpy(ret, &integer, dtype_bytes(dtype)); break;    // little-endian: the low bytes
    }
}

// What is scattered: a tensor, or one element for all (a number in an attribute or a wrapped scalar).
struct source {
    const struct tensor *tensor;    // NULL: value
    uint8_t value[16];
};

static void repeat(struct source *source, enum dtype dtype)
{
    size_t bytes = dtype_bytes(dtype);
    for (size_t at = bytes; at < sizeof source->value; at += bytes)
        memcpy(source->value + at, source->value, bytes);
}

static struct source source_tensor(const struct tensor *tensor, enum dtype dtype)
{
    struct source source = {.tensor = tensor->is_scalar ? NULL : tensor};
    if (tensor->is_scalar && tensor->data != NULL) {
        write_number(dtype, tensor->meta.dtype == DTYPE_F64, cuda_scalar(tensor), cuda_scalar_int(tensor), source.value);
        repeat(&source, dtype);
    }
    return source;
}

static struct source source_attr(const struct attr *attr, enum dtype dtype)
{
    struct source source = {.tensor = NULL};
    write_number(dtype, attr->kind == ATTR_FLOAT, cuda_attr_double(attr), attr->kind == ATTR_FLOAT ? 0 : attr->i, source.value);
    repeat(&source, dtype);
    return source;
}

// A scatter, whatever op it is.
struct scatter {
    struct index_space space;
    struct source source;
    const struct tensor *out;
    int64_t ignored;
    double scale;
    bool adds, by_frequency;
};

static int64_t positions_of(const struct index_space *space)
{
    int64_t positions = 1;
    for (uint32_t d = 0; d < space->rank; d++)
        positions *= space->is_free[d] ? 1 : space->size[d];
    return positions;
}

static bool is_empty(const struct index_space *space)
{
    for (uint32_t d = 0; d < space->rank; d++)
        if (space->size[d] == 0)
            return true;
    return false;
}

// Scratch, on both passes.
struct memory {
    uint64_t winner, entry, spare;
};

static struct memory scatter_memory(const struct scatter *scatter, struct cuda_scratch *scratch)
{
    struct memory memory = {0};
    uint64_t positions = (uint64_t)positions_of(&scatter->space);
    if (is_empty(&scatter->space))
        return memory;
    if (scatter->adds) {
        memory.entry = cuda_scratch_take(scratch, positions * sizeof(struct sort_entry));
        memory.spare = cuda_scratch_take(scratch, positions * sizeof(struct sort_entry));
    } else if (positions > 1 && scatter->source.tensor != NULL) {
        memory.winner = cuda_scratch_take(scratch, (uint64_t)scatter->space.numbers * sizeof(int32_t));
    }
    return memory;
}

static void emit_put(struct cuda_program *program, const struct scatter *scatter, const struct memory *memory)
{
    struct scatter_put_args args = {.plain = scatter->source.tensor == NULL ? NULL : scatter->source.tensor->data,
                                    .indexed = scatter->out->data,
                                    .winner = (int32_t *)(uintptr_t)memory->winner};
    memcpy(args.value, scatter->source.value, sizeof args.value);
    index_walk_make(&scatter->space, WALK_ALL, true, &args.walk);
    if (args.winner != NULL) {
        struct scatter_clear_args clear = {.winner = args.winner, .count = scatter->space.numbers};
        cuda_emit(program, CUDA_scatter_clear, index_shape((uint64_t)clear.count), &clear, sizeof clear);
        cuda_emit(program, CUDA_scatter_contend, index_shape((uint64_t)args.walk.rows), &args, sizeof args);
    }
    cuda_emit(program, CUDA_scatter_put, index_shape(index_units(&args.walk)), &args, sizeof args);
}

static enum cuda_function sum_function(enum dtype dtype)
{
    switch (dtype) {
    case DTYPE_BOOL: return CUDA_scatter_sum_bool;
    case DTYPE_U8: return CUDA_scatter_sum_u8;
    case DTYPE_I8: return CUDA_scatter_sum_i8;
    case DTYPE_I16: return CUDA_scatter_sum_i16;
    case DTYPE_I32: return CUDA_scatter_sum_i32;
    case DTYPE_I64: return CUDA_scatter_sum_i64;
    case DTYPE_F16: return CUDA_scatter_sum_f16;
    case DTYPE_BF16: return CUDA_scatter_sum_bf16;
    case DTYPE_F32: return CUDA_scatter_sum_f32;
    case DTYPE_F64: return CUDA_scatter_sum_f64;
    default: return CUDA_FUNCTION_NONE;
    }
}

static void emit_sum(struct cuda_program *program, const struct scatter *scatter, const struct memory *memory)
{
    struct sort_entry *entry = (struct sort_entry *)(uintptr_t)memory->entry,
                      *spare = (struct sort_entry *)(uintptr_t)memory->spare;
    struct scatter_keys_args keys = {.entry = entry, .ignored = scatter->ignored};
    index_walk_make(&scatter->space, WALK_INDICES, false, &keys.walk);
    cuda_emit(program, CUDA_scatter_keys, index_shape((uint64_t)keys.walk.rows), &keys, sizeof keys);

    struct scatter_sum_args args = {.plain = scatter->source.tensor == NULL ? NULL : scatter->source.tensor->data,
                                    .indexed = scatter->out->data,
                                    .entries = keys.walk.rows,
                                    .scale = scatter->scale,
                                    .is_scaled = scatter->scale != 1,
                                    .by_frequency = scatter->by_frequency,
                                    .walk = keys.walk};
    memcpy(args.value, scatter->source.value, sizeof args.value);
    args.entry = sort_emit(program, entry, spare, 1, args.entries);
    index_walk_make(&scatter->space, WALK_FREE, false, &args.free);
    cuda_emit(program, sum_function(scatter->out->meta.dtype), index_shape((uint64_t)(args.entries * args.free.rows)), &args,
              sizeof args);
}

// The index of ops with one tells also where there is nothing to move.
static enum dj_error emit(const struct kernel_call *call, struct cuda_program *program, const struct scatter *scatter,
                          const struct tensor *index)
{
    struct cuda_scratch scratch = {.data = (uint64_t)(uintptr_t)call->scratch};
    if (index != NULL && is_empty(&scatter->space))
        index_emit_check(program, index, scatter->space.extent[0]);
    if (is_empty(&scatter->space))
        return DJ_OK;
    program->may_fault = program->may_fault || scatter->space.indices > 0;
    struct memory memory = scatter_memory(scatter, &scratch);
    if (scatter->adds)
        emit_sum(program, scatter, &memory);
    else
        emit_put(program, scatter, &memory);
    return DJ_OK;
}

// Ops --------------------------------------------------------------------------------------------------------------------------

static int64_t index_bytes(const struct tensor *index)
{
    return (int64_t)dtype_bytes(index->meta.dtype);
}

// The one index's dimension `dim` of out.
static struct scatter one_index(const struct tensor *out, const struct tensor *index, uint32_t dim)
{
    struct scatter scatter = {.out = out, .ignored = -1, .scale = 1};
    int64_t bytes = (int64_t)dtype_bytes(out->meta.dtype);
    scatter.space = (struct index_space){.indices = 1, .bytes = bytes, .index = {index}, .number_step = {1}, .numbers = 1};
    scatter.space.extent[0] = out->meta.rank == 0 ? 1 : out->meta.size[dim];
    scatter.space.index_step[0] = out->meta.rank == 0 ? 0 : out->meta.stride[dim] * bytes;
    return scatter;
}

// scatter, scatter_add: for every position i of index, out[i with i[dim] = index[i]] (+)= src[i]. Places are elements of out.
static struct scatter plan_scatter(const struct kernel_call *call)
{
    const struct tensor *index = &call->in[1], *out = &call->out[0];
    uint32_t op = call->op->number, dim = cuda_dim_wrap(call->attr[0].i, out->meta.rank);
    struct scatter scatter = one_index(out, index, dim);
    struct index_space *space = &scatter.space;
    scatter.adds = op == OP_SCATTER_ADD;
    scatter.source = op == OP_SCATTER_VALUE ? source_attr(&call->attr[1], out->meta.dtype)
                                            : source_tensor(&call->in[2], out->meta.dtype);
    const struct tensor *src = scatter.source.tensor;

    // Along dimensions where the index is only expanded, all moves together.
    int64_t number = 1;
    space->rank = index->meta.rank;
    for (uint32_t d = index->meta.rank; d-- > 0;) {
        bool is_dim = d == dim || out->meta.rank == 0;
        space->size[d] = index->meta.size[d];
        space->step[0][d] = index->meta.stride[d] * index_bytes(index);
        space->is_free[d] = !is_dim && index->meta.stride[d] == 0;
        space->indexed[d] = is_dim ? 0 : out->meta.stride[d] * space->bytes;
        space->plain[d] = src == NULL || src->meta.rank == 0 ? 0 : src->meta.stride[d] * space->bytes;
        if (is_dim)
            space->number_step[0] = number;
        else
            space->number[d] = space->is_free[d] ? 0 : number;
        number *= space->is_free[d] || out->meta.rank == 0 ? 1 : out->meta.size[d];
    }
    space->numbers = index->meta.rank == 0 ? space->extent[0] : number;
    return scatter;
}

// index_add: out.select(dim, index[j]) += alpha * source.select(dim, j). Places are the slices of out.
static struct scatter plan_index_add(const struct kernel_call *call)
{
    const struct tensor *index = &call->in[1], *source = &call->in[2], *out = &call->out[0];
    uint32_t dim = cuda_dim_wrap(call->attr[0].i, out->meta.rank);
    struct scatter scatter = one_index(out, index, dim);
    struct index_space *space = &scatter.space;
    scatter.adds = true;
    scatter.scale = cuda_attr_double(&call->attr[1]);
    scatter.source = source_tensor(source, out->meta.dtype);
    space->rank = source->meta.rank;
    space->numbers = space->extent[0];
    for (uint32_t d = 0; d < source->meta.rank; d++) {
        space->size[d] = source->meta.size[d];
        space->plain[d] = source->is_scalar ? 0 : source->meta.stride[d] * space->bytes;
        space->is_free[d] = d != dim;
        space->indexed[d] = d == dim || out->meta.rank == 0 ? 0 : out->meta.stride[d] * space->bytes;
        space->step[0][d] = d == dim && index->meta.rank > 0 ? index->meta.stride[0] * index_bytes(index) : 0;
    }
    return scatter;
}

// The gradient of an embedding: row r is the sum of the gradients of all places that name r. Out is cleared before.
static struct scatter plan_embedding(const struct kernel_call *call)
{
    const struct tensor *grad = &call->in[0], *index = &call->in[1], *out = &call->out[0];
    struct scatter scatter = one_index(out, index, 0);
    struct index_space *space = &scatter.space;
    uint32_t last = index->meta.rank;
    scatter.adds = true;
    scatter.ignored = call->attr[1].i < 0 ? -1 : call->attr[1].i;
    scatter.by_frequency = call->attr[2].i != 0;
    scatter.source.tensor = grad;
    space->rank = last + 1;
    space->numbers = space->extent[0];
    for (uint32_t d = 0; d < last; d++) {
        space->size[d] = index->meta.size[d];
        space->step[0][d] = index->meta.stride[d] * index_bytes(index);
        space->plain[d] = grad->meta.stride[d] * space->bytes;
    }
    space->size[last] = out->meta.size[1];
    space->is_free[last] = true;
    space->plain[last] = grad->meta.stride[last] * space->bytes;
    space->indexed[last] = out->meta.stride[1] * space->bytes;
    return scatter;
}

static struct scatter plan_index_put(const struct kernel_call *call)
{
    const struct tensor *out = &call->out[0], *values = &call->in[call->n_in - 1];
    static const struct tensor one = {.meta = {.rank = 0}};
    struct scatter scatter = {.out = out, .ignored = -1, .scale = 1, .adds = call->attr[0].i != 0};
    scatter.source = source_tensor(values, out->meta.dtype);
    index_space_make(out, call->in + 1, call->n_in - 2, scatter.source.tensor == NULL ? &one : values, &scatter.space);
    return scatter;
}

static struct scatter plan(const struct kernel_call *call)
{
    switch (call->op->number) {
    case OP_INDEX_PUT: return plan_index_put(call);
    case OP_INDEX_ADD: return plan_index_add(call);
    case OP_EMBEDDING_BACKWARD: return plan_embedding(call);
    default: return plan_scatter(call);
    }
}

static size_t scratch(const struct kernel_call *call)
{
    struct cuda_scratch counted = {0};
    struct scatter scatter = plan(call);
    scatter_memory(&scatter, &counted);
    return counted.used;
}

static enum dj_error emit_scatter(const struct kernel_call *call, struct cuda_program *program)
{
    struct scatter scatter = plan(call);
    index_emit_copy(program, &call->in[0], &call->out[0], NULL);
    return emit(call, program, &scatter, call->op->number == OP_INDEX_PUT ? NULL : &call->in[1]);
}

static enum dj_error emit_embedding(const struct kernel_call *call, struct cuda_program *program)
{
    struct scatter scatter = plan(call);
    index_emit_copy(program, NULL, &call->out[0], (const uint8_t[16]){0});
    return emit(call, program, &scatter, &call->in[1]);
}

// What is scattered has the result's dtype, or is a number. Positions are counted in 31 bits.
static bool dtypes_can(const struct kernel_call *call, const struct tensor *source)
{
    enum dtype dtype = call->out[0].meta.dtype;
    return dtype > DTYPE_NONE && dtype <= DTYPE_F64 && !call->in[0].is_scalar &&
           (source == NULL || source->is_scalar || source->meta.dtype == dtype);
}

static bool counts_can(const struct kernel_call *call)
{
    struct scatter scatter = plan(call);
    return is_empty(&scatter.space) || positions_of(&scatter.space) < INT32_MAX;
}

static bool scatter_can(const struct kernel_call *call)
{
    return cuda_index_dtypes(&call->in[1], 1) && call->in[0].meta.dtype == call->out[0].meta.dtype &&
           dtypes_can(call, call->n_in > 2 ? &call->in[2] : NULL) && counts_can(call);
}

static bool index_put_can(const struct kernel_call *call)
{
    return call->n_in >= 2 && call->n_in - 2 <= call->in[0].meta.rank && cuda_index_dtypes(call->in + 1, call->n_in - 2) &&
           call->in[0].meta.dtype == call->out[0].meta.dtype && dtypes_can(call, &call->in[call->n_in - 1]) && counts_can(call);
}

static bool embedding_can(const struct kernel_call *call)
{
    return dtype_is_float(call->in[0].meta.dtype) && call->in[0].meta.dtype == call->out[0].meta.dtype &&
           cuda_index_dtypes(&call->in[1], 1) && !call->in[0].is_scalar && call->in[1].meta.rank < INDEX_RANK_MAX &&
           counts_can(call);
}

void cuda_table_scatter(struct cuda_entry *entry)
{
    entry[OP_SCATTER_SRC] = entry[OP_SCATTER_VALUE] = entry[OP_SCATTER_ADD] = entry[OP_INDEX_ADD] = (struct cuda_entry){
        .emit = emit_scatter, .scratch = scratch, .can = scatter_can};
    entry[OP_INDEX_PUT] = (struct cuda_entry){.emit = emit_scatter, .scratch = scratch, .can = index_put_can};
    entry[OP_EMBEDDING_BACKWARD] = (struct cuda_entry){.emit = emit_embedding, .scratch = scratch, .can = embedding_can};
}
