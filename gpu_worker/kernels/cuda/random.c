// Random, host half: what is drawn, with which parameters.

#include "gpu_worker/kernels/cuda/random.h"

#include "gpu_worker/kernels/cuda/cuda.h"

enum { BLOCKS_MOST = 1 << 13, ROWS_MOST = 1 << 13, RACE_MOST = 4096, WARP = 32 };

static bool is_real(enum dtype dtype)
{
    return dtype > DTYPE_NONE && dtype <= DTYPE_F64;
}

static bool random_can(const struct kernel_call *call)
{
    enum dtype dtype = call->out[0].meta.dtype;
    uint32_t op = call->op->number;
    return is_real(dtype) && (op == OP_BERNOULLI || op == OP_RANDINT || dtype_is_float(dtype));
}

static enum dj_error launch(struct cuda_program *program, const struct tensor_meta *const *meta, uint32_t tensors,
                            struct random_args *args)
{
    if (tensor_count(meta[0]) == 0)
        return DJ_OK;
    if (!cuda_loop_make(meta[0], meta, tensors, &args->loop))
        return DJ_E_INTERNAL;
    struct cuda_shape shape = {.grid_x = cuda_blocks(args->loop.count, RANDOM_THREADS * RANDOM_ELEMENTS, BLOCKS_MOST),
                               .grid_y = 1,
                               .grid_z = 1,
                               .block = RANDOM_THREADS};
    cuda_emit(program, CUDA_random_draw, shape, args, sizeof *args);
    return DJ_OK;
}

static enum random_kind kind_of(uint32_t op)
{
    switch (op) {
    case OP_UNIFORM: return RANDOM_UNIFORM;
    case OP_NORMAL: return RANDOM_NORMAL;
    case OP_BERNOULLI: return RANDOM_BERNOULLI;
    default: return RANDOM_INTEGER;
    }
}

static enum dj_error random_emit(const struct kernel_call *call, struct cuda_program *program)
{
    const struct tensor *out = &call->out[0];
    enum random_kind kind = kind_of(call->op->number);
    uint32_t seed_at = kind == RANDOM_BERNOULLI ? 2 : 3;
    struct random_args args = {.seed = (uint64_t)cuda_attr_int(&call->attr[seed_at]),
                               .offset = (uint64_t)cuda_attr_int(&call->attr[seed_at + 1]),
                               .a = cuda_attr_double(&call->attr[1]),
                               .b = kind == RANDOM_BERNOULLI ? 0 : cuda_attr_double(&call->attr[2]),
                               .out = out->data,
                               .kind = kind,
                               .dtype = out->meta.dtype};
    if (kind == RANDOM_INTEGER) {
        int64_t high = cuda_attr_int(&call->attr[2]);
        args.low = cuda_attr_int(&call->attr[1]);
        args.range = (uint64_t)high - (uint64_t)args.low;
        if (high <= args.low)
            return fault_set(call->fault, DJ_E_INVALID, "RANDINT: low %lld is not below high %lld", (long long)args.low,
                             (long long)high);
    }
    return launch(program, (const struct tensor_meta *const[]){&out->meta}, 1, &args);
}

static bool dropout_can(const struct kernel_call *call)
{
    return dtype_is_float(call->in[0].meta.dtype) && call->out[0].meta.dtype == call->in[0].meta.dtype;
}

static enum dj_error dropout_emit(const struct kernel_call *call, struct cuda_program *program)
{
    const struct tensor *in = &call->in[0], *out = &call->out[0], *mask = &call->out[1];
    double p = cuda_attr_double(&call->attr[0]);
    struct random_args args = {.seed = (uint64_t)cuda_attr_int(&call->attr[1]),
                               .offset = (uint64_t)cuda_attr_int(&call->attr[2]),
                               .a = p,
                               .b = p >= 1.0 ? 0.0 : 1.0 / (1.0 - p),
                               .in = in->data,
                               .out = out->data,
                               .mask = mask->data,
                               .kind = RANDOM_DROPOUT,
                               .dtype = out->meta.dtype};
    return launch(program, (const struct tensor_meta *const[]){&out->meta, &in->meta, &mask->meta}, 3, &args);
}

// Without replacement each draw looks at all weights again: few draws only.
static bool multinomial_can(const struct kernel_call *call)
{
    return dtype_is_float(call->in[0].meta.dtype) && call->in[0].meta.rank <= 2 && tensor_is_contiguous(&call->out[0].meta) &&
           (cuda_attr_int(&call->attr[1]) != 0 || cuda_attr_int(&call->attr[0]) <= RACE_MOST);
}

// Few for few classes; a power of two.
static uint32_t row_threads(int64_t classes)
{
    uint32_t threads = WARP;
    while (threads < MULTINOMIAL_THREADS && threads < classes)
        threads *= 2;
    return threads;
}

static enum dj_error multinomial_emit(const struct kernel_call *call, struct cuda_program *program)
{
    const struct tensor_meta *meta = &call->in[0].meta;
    struct multinomial_args args = {.seed = (uint64_t)cuda_attr_int(&call->attr[2]),
                                    .offset = (uint64_t)cuda_attr_int(&call->attr[3]),
                                    .weight = call->in[0].data,
                                    .out = call->out[0].data,
                                    .rows = meta->rank == 2 ? meta->size[0] : 1,
                                    .classes = meta->rank == 0 ? 1 : meta->size[meta->rank - 1],
                                    .draws = cuda_attr_int(&call->attr[0]),
                                    .row_stride = meta->rank == 2 ? meta->stride[0] : 0,
                                    .class_stride = meta->rank == 0 ? 1 : meta->stride[meta->rank - 1],
                                    .dtype = meta->dtype,
                                    .replaces = cuda_attr_int(&call->attr[1]) != 0};
    if (args.draws < 0 || (!args.replaces && args.draws > args.classes))
        return fault_set(call->fault, DJ_E_INDEX, "MULTINOMIAL: cannot draw %lld of %lld without replacement",
                         (long long)args.draws, (long long)args.classes);
    program->may_fault = true;    // weights that are no weights
    struct cuda_shape shape = {
        .grid_x = cuda_blocks(args.rows, 1, ROWS_MOST), .grid_y = 1, .grid_z = 1, .block = row_threads(args.classes)};
    cuda_emit(program, CUDA_random_multinomial, shape, &args, sizeof args);
    return DJ_OK;
}

void cuda_table_random(struct cuda_entry *entry)
{
    entry[OP_UNIFORM] = entry[OP_NORMAL] = entry[OP_BERNOULLI] = entry[OP_RANDINT] = (struct cuda_entry){.emit = random_emit,
                                                                                                         .can = random_can};
    entry[OP_DROPOUT] = (struct cuda_entry){.emit = dropout_emit, .can = dropout_can};
    entry[OP_MULTINOMIAL] = (struct cuda_entry){.emit = multinomial_emit, .can = multinomial_can};
}
