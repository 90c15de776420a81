// Attention, host half: which kernel, and how many parts of the keys. Prompts go to cuDNN where it serves (attention_dnn.c).

#include "gpu_worker/kernels/cuda/attention.h"

#include <math.h>

#include "gpu_worker/kernels/cuda/attention_dnn.h"
#include "gpu_worker/kernels/cuda/cuda.h"

enum {
    FEW = 8,                  // queries up to here split the keys
    BLOCKS_WANTED = 1056,     // of them: eight for each of 132 multiprocessors
    ROUND_KEYS_LEAST = 32,    // a part more costs its joining
    HEAD_MAX = 256,
    KEYS_MAX = 1 << 30,
    GRID_Y_MAX = 65535,
};

static int by_depth(const struct kernel_call *call)
{
    int64_t depth = call->in[0].meta.size[3], values = call->in[2].meta.size[3], larger = depth > values ? depth : values;
    return larger <= 64 ? 0 : larger <= 128 ? 1 : 2;
}

static int by_dtype(enum dtype dtype)
{
    return dtype == DTYPE_F32 ? 0 : dtype == DTYPE_F16 ? 1 : dtype == DTYPE_BF16 ? 2 : -1;
}

static enum attention_mask mask_kind(const struct kernel_call *call)
{
    if (call->n_in < 4)
        return MASK_NONE;
    switch (call->in[3].meta.dtype) {
    case DTYPE_BOOL: return MASK_BOOL;
    case DTYPE_F32: return MASK_F32;
    case DTYPE_F16: return MASK_F16;
    case DTYPE_BF16: return MASK_BF16;
    default: return MASK_NONE;
    }
}

static bool sdpa_can(const struct kernel_call *call)
{
    const struct tensor_meta *q = &call->in[0].meta, *k = &call->in[1].meta, *v = &call->in[2].meta;
    if (by_dtype(q->dtype) < 0 || k->dtype != q->dtype || v->dtype != q->dtype || call->out[0].meta.dtype != q->dtype)
        return false;
    if (q->rank != 4 || k->rank != 4 || v->rank != 4 || q->size[1] != k->size[1] || q->size[1] != v->size[1])
        return false;
    if (call->n_out > 1 && call->out[1].meta.dtype != DTYPE_F32)
        return false;
    bool has_mask = call->n_in > 3 && call->in[3].meta.dtype != DTYPE_NONE;
    if (has_mask && (mask_kind(call) == MASK_NONE || call->in[3].meta.rank > 4))
        return false;
    return q->size[3] <= HEAD_MAX && v->size[3] <= HEAD_MAX && k->size[2] <= KEYS_MAX &&
           q->size[0] * q->size[1] <= GRID_Y_MAX / FEW;
}

static bool is_few(const struct kernel_call *call)
{
    return call->in[0].meta.size[2] <= FEW;
}

static int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

// The parts of the keys: whole rounds of a block, as many as give each multiprocessor its blocks. Follows from sizes and the dtype only.
static void split(const struct kernel_call *call, struct attention_args *args)
{
    int64_t rows = call->in[0].meta.size[0] * args->heads * args->queries,
            round = ATTENTION_ROUND_BYTES / ((64 << by_depth(call)) * (int64_t)dtype_bytes(call->in[0].meta.dtype));
    if (round < ROUND_KEYS_LEAST)
        round = ROUND_KEYS_LEAST;
    int64_t rounds = ceil_div(args->keys, round), parts = BLOCKS_WANTED / (rows == 0 ? 1 : rows);
    if (parts > ATTENTION_PARTS_MOST)
        parts = ATTENTION_PARTS_MOST;
    args->part_keys = round * cuda_bucket((uint32_t)(parts <= 1 ? rounds : ceil_div(rounds, parts)));
    args->parts = args->keys <= args->part_keys ? 1 : ceil_div(args->keys, args->part_keys);
    args->part_pitch = args->value_depth == 0 ? 4 : ceil_div(args->value_depth, 4) * 4;
    while (((int64_t)4 << args->join_lane_bits) < args->part_pitch)
        args->join_lane_bits++;
}

// Whether rows are whole pieces of 16 bytes, each at a multiple of 16.
static bool is_in_pieces(const struct tensor *tensor)
{
    const struct tensor_meta *meta = &tensor->meta;
    int64_t length = 16 / (int64_t)dtype_bytes(meta->dtype);
    if ((uintptr_t)tensor->data % 16 != 0 || meta->size[3] == 0 || meta->size[3] % length != 0 || meta->stride[3] != 1)
        return false;
    for (int d = 0; d < 3; d++)
        if (meta->size[d] > 1 && meta->stride[d] % length != 0)
            return false;
    return true;
}

static void take_strides(int64_t stride[4], const struct tensor_meta *meta)
{
    for (int d = 0; d < 4; d++)
        stride[d] = meta->stride[d];
}

// The mask's dimensions are matched from the last one on; where it has one element, or none of that dimension, it is broadcast.
static void mask_strides(int64_t stride[4], const struct tensor_meta *meta)
{
    for (uint32_t d = 0; d < 4; d++) {
        bool is_there = d + meta->rank >= 4;
        uint32_t own = is_there ? d + meta->rank - 4 : 0;
        stride[d] = is_there && meta->size[own] != 1 ? meta->stride[own] : 0;
    }
}

static struct attention_args args_of(const struct kernel_call *call)
{
    const struct tensor_meta *q = &call->in[0].meta, *k = &call->in[1].meta;
    struct attention_args args = {.q = call->in[0].data,
                                  .k = call->in[1].data,
                                  .v = call->in[2].data,
                                  .out = call->out[0].data,
                                  .heads = q->size[1],
                                  .queries = q->size[2],
                                  .keys = k->size[2],
                                  .depth = q->size[3],
                                  .value_depth = call->in[2].meta.size[3]};
    take_strides(args.q_stride, q);
    take_strides(args.k_stride, k);
    take_strides(args.v_stride, &call->in[2].meta);
    take_strides(args.out_stride, &call->out[0].meta);
    args.mask_kind = mask_kind(call);
    if (args.mask_kind != MASK_NONE) {
        args.mask = call->in[3].data;
        mask_strides(args.mask_stride, &call->in[3].meta);
    }
    if (call->n_out > 1) {
        args.lse = call->out[1].data;
        for (int d = 0; d < 3; d++)
            args.lse_stride[d] = call->out[1].meta.stride[d];
    }
    args.is_causal = call->attr[0].i != 0;
    args.scale = (float)(call->attr[1].kind == ATTR_ABSENT ? 1.0 / sqrt((double)args.depth) : cuda_attr_double(&call->attr[1]));
    split(call, &args);
    return args;
}

static int64_t part_count(const struct kernel_call *call, const struct attention_args *args)
{
    return call->in[0].meta.size[0] * args->heads * args->queries * args->parts;
}

static size_t sdpa_scratch(const struct kernel_call *call)
{
    if (!is_few(call))
        return 0;
    struct attention_args args = args_of(call);
    return args.parts == 1 ? 0 : (size_t)(part_count(call, &args) * (args.part_pitch + 2)) * sizeof(float);
}

static bool is_wide(const struct kernel_call *call)
{
    return is_in_pieces(&call->in[0]) && is_in_pieces(&call->in[1]) && is_in_pieces(&call->in[2]);
}

static void emit_few(const struct kernel_call *call, struct cuda_program *program, struct attention_args *args)
{
#define FEW_OF(name, suffix) \
    { \
        CUDA_attention_##name##_64_##suffix, CUDA_attention_##name##_128_##suffix, CUDA_attention_##name##_256_##suffix \
    }
    static const enum cuda_function few[2][3][3] = {
        {FEW_OF(apart, f32), FEW_OF(apart, f16), FEW_OF(apart, bf16)},
        {FEW_OF(few, f32), FEW_OF(few, f16), FEW_OF(few, bf16)},
    };
    static const enum cuda_function join[3] = {CUDA_attention_join_f32, CUDA_attention_join_f16, CUDA_attention_join_bf16};
    int dtype = by_dtype(call->in[0].meta.dtype);
    uint32_t both = (uint32_t)(call->in[0].meta.size[0] * args->heads), queries = (uint32_t)args->queries;
    struct cuda_shape walk = {
        .grid_x = cuda_bucket((uint32_t)args->parts), .grid_y = both, .grid_z = queries, .block = ATTENTION_FEW_THREADS};
    struct cuda_shape rest = {.grid_x = both, .grid_y = queries, .grid_z = 1, .block = ATTENTION_JOIN_THREADS};

    if (args->parts > 1) {
        args->part = call->scratch;
        args->part_top = args->part + part_count(call, args) * args->part_pitch;
    }
    cuda_emit(program, few[is_wide(call)][dtype][by_depth(call)], walk, args, sizeof *args);
    if (args->parts > 1)
        cuda_emit(program, join[dtype], rest, args, sizeof *args);
}

static enum dj_error sdpa_emit(const struct kernel_call *call, struct cuda_program *program)
{
    static const enum cuda_function many[3][3] = {
        {CUDA_attention_many_64_f32, CUDA_attention_many_128_f32, CUDA_attention_many_256_f32},
        {CUDA_attention_many_64_f16, CUDA_attention_many_128_f16, CUDA_attention_many_256_f16},
        {CUDA_attention_many_64_bf16, CUDA_attention_many_128_bf16, CUDA_attention_many_256_bf16},
    };
    struct attention_args args = args_of(call);
    int dtype = by_dtype(call->in[0].meta.dtype), depth = by_depth(call);
    uint32_t both = (uint32_t)(call->in[0].meta.size[0] * args.heads);

    if (both == 0 || args.queries == 0)
        return DJ_OK;
    if (is_few(call)) {
        emit_few(call, program, &args);
        return DJ_OK;
    }
    if (attention_dnn_emit(program, call->in[0].meta.dtype, call->in[0].meta.size[0], &args))
        return DJ_OK;
    uint32_t row = (64u << depth) + 1;
    struct cuda_shape shape = {
        .grid_x = cuda_blocks(args.queries, ATTENTION_QUERIES, UINT32_MAX >> 1),
        .grid_y = both,
        .grid_z = 1,
        .block = ATTENTION_MANY_THREADS,
        .shared_bytes = ((ATTENTION_QUERIES + 2 * ATTENTION_KEYS) * row + ATTENTION_QUERIES * (ATTENTION_KEYS + 1)) *
                        (uint32_t)sizeof(float)};
    cuda_emit(program, many[dtype][depth], shape, &args, sizeof args);
    return DJ_OK;
}

void cuda_table_attention(struct cuda_entry *entry)
{
    entry[OP_SDPA] = (struct cuda_entry){.emit = sdpa_emit, .scratch = sdpa_scratch, .can = sdpa_can};
}
