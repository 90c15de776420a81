// Matmul, host half: brings mm, addmm, bmm, baddbmm, mv and dot into one form, and chooses by sizes and layout who computes it:
// kernels that read b once (few rows), cuBLASLt, or tiles.

#include "gpu_worker/kernels/cuda/matmul.h"

#include "gpu_worker/kernels/cuda/cuda.h"
#include "gpu_worker/kernels/cuda/matmul_blas.h"

enum {
    WARP = 32,
    K_LEAST = 32,                 // below it tiles are as good as the kernels for few rows
    NK_WARPS_WANTED = 2048,       // in all blocks: about sixteen for each of 132 multiprocessors
    KN_BLOCKS_WANTED = 96,        // else rows of b are read in narrower pieces
    KN_BLOCKS_ALONE = 132,        // up to here each has a multiprocessor, and more threads
    SPLIT_BLOCKS_WANTED = 128,    // where k is split over blocks
    SPLIT_BLOCKS_FEW = 48,        // below it it is split
    SPLIT_K_LEAST = 2048,         // of k in a split: a pass more costs as much as reading about so many rows
    SPLITS_MAX = 128,
    GRID_MAX = 1 << 16,
};

// Sizes and steps as [batch, row, column].
struct view3 {
    int64_t size[3], stride[3];
};

// From the right; what is missing has size 1. Dimensions of size 1 have no step.
static struct view3 view_of(const struct tensor_meta *meta, uint32_t missing_right)
{
    struct view3 v = {{1, 1, 1}, {0, 0, 0}};
    for (uint32_t d = 0; d < meta->rank; d++) {
        uint32_t at = 3 - missing_right - meta->rank + d;
        v.size[at] = meta->size[d];
        v.stride[at] = meta->size[d] == 1 ? 0 : meta->stride[d];
    }
    return v;
}

static bool adds(const struct kernel_call *call)
{
    return call->op->number == OP_ADDMM || call->op->number == OP_BADDBMM;
}

static void take_added(const struct kernel_call *call, struct matmul_args *args)
{
    struct view3 self = view_of(&call->in[0].meta, 0);
    args->beta = cuda_attr_double(&call->attr[0]);
    args->alpha = cuda_attr_double(&call->attr[1]);
    args->beta_int = cuda_attr_int(&call->attr[0]);
    args->alpha_int = cuda_attr_int(&call->attr[1]);
    args->add = args->beta == 0 ? NULL : call->in[0].data;
    args->add_batch = self.stride[0];
    args->add_m = self.stride[1];
    args->add_n = self.stride[2];
    if (args->k == 0)    // whatever alpha is
        args->alpha = 0;
}

static struct matmul_args args_of(const struct kernel_call *call)
{
    const struct tensor *a = &call->in[adds(call) ? 1 : 0], *b = &call->in[adds(call) ? 2 : 1], *out = &call->out[0];
    bool by_vector = call->op->number == OP_MV || call->op->number == OP_DOT;
    struct view3 x = view_of(&a->meta, 0), y = view_of(&b->meta, by_vector ? 1 : 0), o = view_of(&out->meta, by_vector ? 1 : 0);
    if (call->op->number == OP_DOT)
        o = view_of(&out->meta, 0);
    if (by_vector) {    // a vector of k: [1][k][1]
        y.size[1] = b->meta.size[0];
        y.stride[1] = b->meta.size[0] == 1 ? 0 : b->meta.stride[0];
    }
    struct matmul_args args = {.a = a->data,
                               .b = b->data,
                               .out = out->data,
                               .batch = o.size[0],
                               .m = o.size[1],
                               .n = o.size[2],
                               .k = x.size[2],
                               .a_batch = x.stride[0],
                               .a_m = x.stride[1],
                               .a_k = x.stride[2],
                               .b_batch = y.stride[0],
                               .b_k = y.stride[1],
                               .b_n = y.stride[2],
                               .out_batch = o.stride[0],
                               .out_m = o.stride[1],
                               .out_n = o.stride[2],
                               .alpha = 1,
                               .alpha_int = 1,
                               .splits = 1};
    if (adds(call))
        take_added(call, &args);
    return args;
}

static void swap(int64_t *a, int64_t *b)
{
    int64_t kept = *a;
    *a = *b;
    *b = kept;
}

// The transposed problem: out^T = b^T a^T.
static void transpose(struct matmul_args *args)
{
    const void *a = args->a;
    args->a = args->b;
    args->b = a;
    swap(&args->m, &args->n);
    swap(&args->a_batch, &args->b_batch);
    swap(&args->a_m, &args->b_n);
    swap(&args->a_k, &args->b_k);
    swap(&args->add_m, &args->add_n);
    swap(&args->out_m, &args->out_n);
}

enum form { FORM_TILES, FORM_NK_1, FORM_NK_4, FORM_NK_8, FORM_KN_1, FORM_KN_4, FORM_KN_8, FORM_SPLITS, FORMS };

static const enum cuda_function functions[DTYPE_COUNT][FORMS] = {
#define FLOATS(suffix) \
    { \
        CUDA_matmul_tiles_##suffix, CUDA_matmul_nk_1_##suffix, CUDA_matmul_nk_4_##suffix, CUDA_matmul_nk_8_##suffix, \
            CUDA_matmul_kn_1_##suffix, CUDA_matmul_kn_4_##suffix, CUDA_matmul_kn_8_##suffix, CUDA_matmul_splits_##suffix \
    }
    [DTYPE_F32] = FLOATS(f32),
    [DTYPE_F16] = FLOATS(f16),
    [DTYPE_BF16] = FLOATS(bf16),
    [DTYPE_F64] = {CUDA_matmul_tiles_f64, CUDA_matmul_nk_1_f64, 0, 0, CUDA_matmul_kn_1_f64, 0, 0, CUDA_matmul_splits_f64},
    [DTYPE_U8] = {CUDA_matmul_tiles_i8},
    [DTYPE_I8] = {CUDA_matmul_tiles_i8},
    [DTYPE_I16] = {CUDA_matmul_tiles_i16},
    [DTYPE_I32] = {CUDA_matmul_tiles_i32},
    [DTYPE_I64] = {CUDA_matmul_tiles_i64},
};

static bool matmul_can(const struct kernel_call *call)
{
    enum dtype dtype = call->out[0].meta.dtype;
    if (functions[dtype][FORM_TILES] == CUDA_FUNCTION_NONE)
        return false;
    for (uint32_t i = 0; i < call->n_in; i++)    // what beta = 0 leaves out may be anything
        if (call->in[i].meta.dtype != dtype && !(i == 0 && adds(call) && cuda_attr_double(&call->attr[0]) == 0))
            return false;
    return true;
}

// How a product is computed: follows from sizes, strides and the dtype only.
struct choice {
    enum form form;
    struct cuda_shape shape;
};

static int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

// k over blocks, where there are few of them and k is long.
static void split(struct matmul_args *args, int64_t blocks, int64_t step)
{
    int64_t splits = 1;
    if (blocks < SPLIT_BLOCKS_FEW && args->k >= 2 * SPLIT_K_LEAST) {
        splits = cuda_bucket((uint32_t)(SPLIT_BLOCKS_WANTED / blocks));
        while (splits > 1 && (splits > SPLITS_MAX || splits * SPLIT_K_LEAST > args->k))
            splits /= 2;
    }
    args->splits = (int32_t)splits;
    args->k_part = ceil_div(ceil_div(args->k, splits), step) * step;
}

static void choose_nk(struct matmul_args *args, int64_t vector, struct cuda_shape *shape)
{
    int64_t groups = ceil_div(args->n, MATMUL_NK_COLUMNS(args->m)) * args->batch;
    args->k_warps = 1;
    while (args->k_warps < MATMUL_NK_WARPS && groups * args->k_warps < NK_WARPS_WANTED &&
           args->k >= 2 * args->k_warps * WARP * vector)
        args->k_warps *= 2;
    int64_t per_block = MATMUL_NK_WARPS / args->k_warps;
    split(args, ceil_div(groups, per_block), WARP * vector);
    shape->grid_x = cuda_blocks(groups, per_block, GRID_MAX);
    shape->block = MATMUL_NK_THREADS;
}

static void choose_kn(struct matmul_args *args, int64_t vector, struct cuda_shape *shape)
{
    args->lanes = MATMUL_LANES_MOST;
    while (args->lanes > MATMUL_LANES_LEAST && ceil_div(args->n, args->lanes * vector) * args->batch < KN_BLOCKS_WANTED)
        args->lanes /= 2;
    int64_t groups = ceil_div(args->n, args->lanes * vector) * args->batch;
    split(args, groups, 1);
    shape->grid_x = cuda_blocks(groups, 1, GRID_MAX);
    shape->block = groups <= KN_BLOCKS_ALONE ? MATMUL_KN_THREADS_MOST : MATMUL_KN_THREADS;
}

// Whether `vector` elements from every multiple of them on can be read at once.
static bool is_wide(const void *data, int64_t step, int64_t other, int64_t batch, int64_t vector)
{
    return (uintptr_t)data % MATMUL_VECTOR_BYTES == 0 && step == 1 && other % vector == 0 && batch % vector == 0;
}

static struct choice choose(enum dtype dtype, struct matmul_args *args)
{
    struct choice choice = {.form = FORM_TILES, .shape = {.grid_y = 1, .grid_z = 1}};
    int64_t vector = MATMUL_VECTOR_BYTES / (int64_t)dtype_bytes(dtype);

    if (args->n < args->m && args->n <= MATMUL_ROWS_MAX)
        transpose(args);
    if (args->m <= MATMUL_ROWS_MAX && args->k >= K_LEAST) {
        // b with rows of k if its elements are neighbours along k, or nowhere and closer along k.
        bool is_nk = args->b_k == 1 || args->n == 1 || (args->b_n != 1 && args->b_k <= args->b_n);
        enum form form = (is_nk ? FORM_NK_1 : FORM_KN_1) + (args->m == 1 ? 0 : args->m <= 4 ? 1 : 2);
        if (functions[dtype][form] != CUDA_FUNCTION_NONE) {
            choice.form = form;
            if (is_nk)
                choose_nk(args, vector, &choice.shape);
            else
                choose_kn(args, vector, &choice.shape);
            choice.shape.grid_y = (uint32_t)args->splits;
            args->a_is_wide = args->k % vector == 0 && is_wide(args->a, args->a_k, args->a_m, args->a_batch, vector);
            args->b_is_wide = is_nk ? is_wide(args->b, args->b_k, args->b_n, args->b_batch, vector)
                                    : is_wide(args->b, args->b_n, args->b_k, args->b_batch, vector);
            return choice;
        }
    }
    int64_t tiles = ceil_div(args->m, MATMUL_TILE) * ceil_div(args->n, MATMUL_TILE) * args->batch;
    choice.shape.grid_x = cuda_blocks(tiles, 1, GRID_MAX);
    choice.shape.block = MATMUL_TILE_THREADS;
    return choice;
}

static size_t matmul_scratch(const struct kernel_call *call)
{
    struct matmul_args args = args_of(call);
    enum dtype dtype = call->out[0].meta.dtype;
    if (tensor_count(&call->out[0].meta) == 0)
        return 0;
    choose(dtype, &args);
    size_t sum_bytes = dtype == DTYPE_F64 ? sizeof(double) : sizeof(float);
    return args.splits == 1 ? 0 : (size_t)(args.splits * args.batch * args.m * args.n) * sum_bytes;
}

static enum dj_error matmul_emit(const struct kernel_call *call, struct cuda_program *program)
{
    enum dtype dtype = call->out[0].meta.dtype;
    struct matmul_args args = args_of(call);

    if (tensor_count(&call->out[0].meta) == 0)
        return DJ_OK;
    args.partial = call->scratch;
    struct choice choice = choose(dtype, &args);
    if (choice.form == FORM_TILES && matmul_blas_emit(program, dtype, &args))
        return DJ_OK;
    cuda_emit(program, functions[dtype][choice.form], choice.shape, &args, sizeof args);
    if (args.splits > 1) {
        struct cuda_shape shape = {.grid_x = cuda_blocks(args.batch * args.m * args.n, MATMUL_SUM_THREADS, GRID_MAX),
                                   .grid_y = 1,
                                   .grid_z = 1,
                                   .block = MATMUL_SUM_THREADS};
        cuda_emit(program, functions[dtype][FORM_SPLITS], shape, &args, sizeof args);
    }
    return DJ_OK;
}

void cuda_table_matmul(struct cuda_entry *entry)
{
    static const enum op ops[] = {OP_MM, OP_ADDMM, OP_BMM, OP_BADDBMM, OP_DOT, OP_MV};
    for (size_t i = 0; i < sizeof ops / sizeof ops[0]; i++)
        entry[ops[i]] = (struct cuda_entry){.emit = matmul_emit, .scratch = matmul_scratch, .can = matmul_can};
}
