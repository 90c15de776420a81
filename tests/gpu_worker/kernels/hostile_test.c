// Plans from outside: whatever op_infer lets through, a kernel runs or refuses with an error. Random ops over random dtypes, sizes and
// attributes; memory ends where the last element does, for the sanitizers.

#include "gpu_worker/kernels/kernel.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/lib/case.h"

enum {
    ROUNDS = 400,
    INPUTS_MAX = 32,
    LIST_MAX = 3,
    SIZE_MAX_TRIED = 6,
    BYTES_MAX = 1 << 19,
    SCRATCH_MAX = 1 << 24,
    VECTOR_BYTES = 64
};

struct trial {
    const struct op_info *op;
    struct tensor_meta in[INPUTS_MAX];
    bool is_scalar[INPUTS_MAX];
    uint32_t n_in;
    struct attr attr[OP_ATTRS_MAX];
    int64_t ints[OP_ATTRS_MAX][4];
};

static enum dtype any_dtype(struct prng *prng)
{
    static const enum dtype dtypes[] = {DTYPE_F32,  DTYPE_F32, DTYPE_F32, DTYPE_F64, DTYPE_I64, DTYPE_I64,
                                        DTYPE_BOOL, DTYPE_U8,  DTYPE_I32, DTYPE_F16, DTYPE_BF16};
    return dtypes[prng_between(prng, 0, sizeof dtypes / sizeof dtypes[0] - 1)];
}

static int64_t any_int(struct prng *prng)
{
    return prng_between(prng, 0, 19) == 0 ? (int64_t)prng_next(prng) : (int64_t)prng_between(prng, 0, 9) - 3;
}

// Mostly the shape `like`, so that much is let through, with a size or the rank changed now and then.
static void any_meta(struct prng *prng, const struct tensor_meta *like, enum dtype dtype, struct tensor_meta *ret)
{
    *ret = *like;
    ret->dtype = prng_between(prng, 0, 3) == 0 ? any_dtype(prng) : dtype;
    if (prng_between(prng, 0, 3) == 0)
        ret->rank = (uint32_t)prng_between(prng, 0, 5);
    for (uint32_t d = 0; d < ret->rank; d++)
        if (d >= like->rank || prng_between(prng, 0, 4) == 0)
            ret->size[d] = (int64_t)prng_between(prng, 0, SIZE_MAX_TRIED);
    tensor_make_contiguous(ret);
    if (ret->rank > 0 && prng_between(prng, 0, 3) == 0)
        ret->stride[prng_between(prng, 0, ret->rank - 1)] += (int64_t)prng_between(prng, 0, 2);
}

static void any_attr(struct prng *prng, struct trial *t, const struct op_arg *arg)
{
    struct attr *attr = &t->attr[arg->attr];
    *attr = (struct attr){.kind = ATTR_INT, .i = any_int(prng)};
    if (arg->is_optional && prng_between(prng, 0, 2) == 0)
        *attr = (struct attr){.kind = ATTR_ABSENT};
    else if (arg->kind == ARG_BOOL)
        *attr = (struct attr){.kind = ATTR_BOOL, .i = (int64_t)prng_between(prng, 0, 1)};
    else if (arg->kind == ARG_FLOAT || (arg->kind == ARG_SCALAR && prng_between(prng, 0, 1) == 0))
        *attr = (struct attr){.kind = ATTR_FLOAT, .f = prng_unit(prng) * 4 - 1};
    else if (arg->kind == ARG_INTS) {
        *attr = (struct attr){.kind = ATTR_INTS, .count = (uint8_t)prng_between(prng, 0, 4), .ints = t->ints[arg->attr]};
        for (int i = 0; i < 4; i++)
            t->ints[arg->attr][i] = any_int(prng);
    }
}

static void any_trial(struct prng *prng, const struct op_info *op, struct trial *t)
{
    struct tensor_meta like = {.rank = (uint32_t)prng_between(prng, 0, 4)};
    enum dtype dtype = any_dtype(prng);
    memset(t, 0, sizeof *t);
    t->op = op;
    for (uint32_t d = 0; d < DJ_RANK_MAX; d++)
        like.size[d] = (int64_t)prng_between(prng, prng_between(prng, 0, 9) == 0 ? 0 : 1, SIZE_MAX_TRIED);
    for (uint32_t i = 0; i < op->args; i++) {
        const struct op_arg *arg = &op->arg[i];
        bool is_list = arg->kind == ARG_TENSORS || arg->kind == ARG_TENSORS_OPT;
        if (arg->attr >= 0)
            any_attr(prng, t, arg);
        if (arg->kind > ARG_TENSORS_OPT)
            continue;
        for (uint64_t n = is_list ? prng_between(prng, 1, LIST_MAX) : 1; n > 0; n--, t->n_in++) {
            bool may_lack = arg->kind == ARG_TENSOR_OPT || arg->kind == ARG_TENSORS_OPT;
            if (!may_lack || prng_between(prng, 0, 1) == 0)
                any_meta(prng, &like, dtype, &t->in[t->n_in]);
        }
    }
}

// Bytes from the first element to the end of the last, or more than BYTES_MAX.
static size_t extent(const struct tensor_meta *meta)
{
    size_t width = dtype_bytes(meta->dtype), bytes = width;
    for (uint32_t d = 0; d < meta->rank; d++) {
        if (meta->size[d] > BYTES_MAX || meta->stride[d] > BYTES_MAX || bytes > BYTES_MAX)
            return (size_t)BYTES_MAX + 1;
        bytes += (size_t)(meta->size[d] > 0 ? meta->size[d] - 1 : 0) * (size_t)meta->stride[d] * width;
    }
    return bytes;
}

// Fresh memory for the tensor, of random bytes that are small numbers in every dtype; NULL if it is absent.
static void *memory_of(struct prng *prng, const struct tensor_meta *meta)
{
    size_t bytes = extent(meta);
    void *memory = NULL;
    assert_int_equal(posix_memalign(&memory, VECTOR_BYTES, bytes), 0);
    for (size_t i = 0; i < bytes; i++)
        ((uint8_t *)memory)[i] = i % dtype_bytes(meta->dtype) == 0
                                     ? (uint8_t)prng_between(prng, 0, meta->dtype == DTYPE_BOOL ? 1 : 3)
                                     : 0;
    return memory;
}

static bool is_small(const struct op_result *result, uint32_t outputs)
{
    for (uint32_t i = 0; i < outputs; i++)
        if (extent(&result->out[i]) > BYTES_MAX)
            return false;
    return true;
}

// Convolutions, pools and norms want sizes that agree: most of their trials get them. What attributes say stays as it is, small.
static void agree(struct prng *prng, struct trial *t)
{
    static const enum op windows[] = {OP_CONVOLUTION, OP_MAX_POOL2D, OP_AVG_POOL2D, OP_BATCH_NORM, OP_GROUP_NORM};
    bool is_one = false;
    for (size_t i = 0; i < sizeof windows / sizeof windows[0]; i++)
        is_one |= t->op->number == windows[i];
    if (!is_one || prng_between(prng, 0, 9) == 0)
        return;
    int64_t channels = (int64_t)prng_between(prng, 1, 3) * 2, groups = (int64_t)prng_between(prng, 1, 2);
    t->in[0] = (struct tensor_meta){.dtype = DTYPE_F32, .rank = 4, .size = {(int64_t)prng_between(prng, 1, 2), channels, 7, 9}};
    for (uint32_t i = 1; i < t->n_in; i++)
        if (t->in[i].dtype != DTYPE_NONE || t->op->arg[i].kind == ARG_TENSOR)
            t->in[i] = (struct tensor_meta){.dtype = DTYPE_F32, .rank = 1, .size = {channels}};
    if (t->op->number == OP_CONVOLUTION) {
        t->in[1] = (struct tensor_meta){
            .dtype = DTYPE_F32,
            .rank = 4,
            .size = {channels, channels / groups, (int64_t)prng_between(prng, 1, 4), (int64_t)prng_between(prng, 1, 4)}};
        t->attr[5].i = groups;
        t->attr[3].i = 0;
    }
    if (t->op->number == OP_GROUP_NORM) {
        t->attr[0].i = t->in[0].size[0], t->attr[1].i = channels, t->attr[2].i = 63;
        t->attr[3].i = prng_between(prng, 0, 3) == 0 ? t->attr[3].i : groups;
    }
    for (uint32_t i = 0; i < t->n_in; i++)
        tensor_make_contiguous(&t->in[i]);
    for (uint32_t i = 0; i < t->op->attrs; i++)
        if (t->attr[i].kind == ATTR_INTS && prng_between(prng, 0, 9) != 0) {
            t->attr[i].count = 2;
            for (int k = 0; k < 2; k++)
                t->ints[i][k] = (int64_t)prng_between(prng, prng_between(prng, 0, 9) == 0 ? 0 : 1, 3);
        }
}

static struct tensor_meta meta_of(enum dtype dtype, uint32_t rank, const int64_t *size)
{
    struct tensor_meta meta = {.dtype = dtype, .rank = rank};
    for (uint32_t d = 0; d < rank; d++)
        meta.size[d] = size[d];
    tensor_make_contiguous(&meta);
    return meta;
}
#define META(dtype, ...) meta_of(dtype, sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t), (const int64_t[]){__VA_ARGS__})

// A gradient has the sizes of what the forward would give; false where that refuses.
static bool gradient_of(struct trial *t, enum op forward, uint32_t n_in)
{
    struct op_result result;
    struct op_call call = {.op = op_info(forward), .in = &t->in[1], .n_in = n_in, .attr = t->attr};
    struct tensor_meta in[3] = {t->in[1], t->in[2], {.dtype = DTYPE_NONE}};
    if (forward == OP_CONVOLUTION)
        call.in = in;
    if (op_infer(&call, &result, NULL) != DJ_OK)
        return false;
    t->in[0] = result.out[0];
    return true;
}

static void agree_norm_gradient(struct prng *prng, struct trial *t, int64_t channels)
{
    int64_t images = (int64_t)prng_between(prng, 1, 2), groups = (int64_t)prng_between(prng, 1, 2);
    t->in[0] = t->in[1] = META(DTYPE_F32, images, channels, 7, 9);
    switch (t->op->number) {
    case OP_LAYER_NORM_BACKWARD:
    case OP_LAYER_NORM_BACKWARD_PARAMS:
        t->in[2] = t->in[3] = META(DTYPE_F32, images, channels, 7, 1);
        t->in[4] = META(DTYPE_F32, 9);
        t->attr[0].count = 1;
        t->ints[0][0] = 9;
        break;
    case OP_GROUP_NORM_BACKWARD:
        t->in[2] = t->in[3] = META(DTYPE_F32, images, groups);
        t->in[4] = META(DTYPE_F32, channels);
        t->attr[0].i = images, t->attr[1].i = channels, t->attr[2].i = 63, t->attr[3].i = groups;
        break;
    case OP_BATCH_NORM_BACKWARD: t->in[2] = t->in[3] = t->in[4] = META(DTYPE_F32, channels); break;
    default: t->in[1] = t->in[2] = META(DTYPE_F32, channels); break;
    }
}

// Losses and gradients want more agreement than chance gives: most of their trials get it.
static void agree_gradient(struct prng *prng, struct trial *t)
{
    int64_t channels = (int64_t)prng_between(prng, 1, 3) * 2, rows = (int64_t)prng_between(prng, 1, 5);
    if (prng_between(prng, 0, 9) == 0)
        return;
    for (uint32_t i = 0; i < t->op->attrs && t->op->number >= OP_CONVOLUTION_BACKWARD_INPUT; i++)
        if (t->attr[i].kind == ATTR_INTS) {
            t->attr[i].count = 2;
            for (int k = 0; k < 2; k++)
                t->ints[i][k] = (int64_t)prng_between(prng, i == 2 ? 0 : 1, 2);
        }
    switch (t->op->number) {
    case OP_SOFTMAX_BACKWARD:
    case OP_LOG_SOFTMAX_BACKWARD: t->in[1] = t->in[0]; break;
    case OP_LAYER_NORM_BACKWARD:
    case OP_LAYER_NORM_BACKWARD_PARAMS:
    case OP_GROUP_NORM_BACKWARD:
    case OP_BATCH_NORM_TRAIN:
    case OP_BATCH_NORM_BACKWARD: agree_norm_gradient(prng, t, channels); break;
    case OP_NLL_LOSS:
    case OP_NLL_LOSS_BACKWARD: {
        uint32_t at = t->op->number == OP_NLL_LOSS_BACKWARD;
        t->attr[0].i = (int64_t)prng_between(prng, 0, 2);
        t->in[0] = t->attr[0].i == REDUCTION_NONE ? META(DTYPE_F32, rows) : meta_of(DTYPE_F32, 0, NULL);
        t->in[at] = META(DTYPE_F32, rows, channels);
        t->in[at + 1] = META(DTYPE_I64, rows);
        t->in[at + 2] = META(DTYPE_F32, channels);
        t->in[4] = at == 1 ? meta_of(DTYPE_F32, 0, NULL) : t->in[4];
        break;
    }
    case OP_EMBEDDING_BACKWARD:
        t->in[0] = META(DTYPE_F32, rows, channels);
        t->in[1] = META(DTYPE_I64, rows);
        break;
    case OP_CONVOLUTION_BACKWARD_INPUT:
    case OP_CONVOLUTION_BACKWARD_WEIGHT:
        t->attr[5].i = (int64_t)prng_between(prng, 1, 2);
        t->in[1] = META(DTYPE_F32, 2, channels, 7, 9);
        t->in[2] = META(DTYPE_F32, 4, channels / t->attr[5].i, rows, 2);
        gradient_of(t, OP_CONVOLUTION, 3);
        break;
    case OP_MAX_POOL2D_BACKWARD:
    case OP_AVG_POOL2D_BACKWARD:
        t->in[1] = META(DTYPE_F32, 2, channels, 7, 9);
        if (gradient_of(t, t->op->number == OP_AVG_POOL2D_BACKWARD ? OP_AVG_POOL2D : OP_MAX_POOL2D, 1) && t->n_in == 3) {
            t->in[2] = t->in[0];
            t->in[2].dtype = DTYPE_I64;
        }
        break;
    case OP_ADAPTIVE_AVG_POOL2D_BACKWARD:
        t->in[0] = META(DTYPE_F32, 2, channels, rows, 2);
        t->in[1] = META(DTYPE_F32, 2, channels, 7, 9);
        break;
    default: break;
    }
}

// Whether the kernel ran, successfully or not.
static bool try(struct prng *prng, struct trial *t)
{
    const struct kernel *kernel = &kernels_cpu()->kernel[t->op->number];
    struct tensor in[INPUTS_MAX], out[OP_OUTPUTS_MAX];
    struct op_result result;
    struct fault fault = {0};
    struct op_call op_call = {.op = t->op, .in = t->in, .in_is_scalar = t->is_scalar, .n_in = t->n_in, .attr = t->attr};
    if ((t->op->flags & OP_CREATES) != 0 || prng_between(prng, 0, 7) == 0)
        op_call.dtype = any_dtype(prng);
    if (op_infer(&op_call, &result, &fault) != DJ_OK || !is_small(&result, t->op->outputs))
        return false;
    memset(in, 0, sizeof in);
    memset(out, 0, sizeof out);
    for (uint32_t i = 0; i < t->n_in; i++)
        in[i].meta = t->in[i];
    for (uint32_t i = 0; i < t->op->outputs; i++)
        out[i].meta = result.out[i];
    struct kernel_call call = {.op = t->op,
                               .in = in,
                               .n_in = t->n_in,
                               .out = out,
                               .n_out = t->op->outputs,
                               .attr = t->attr,
                               .compute = op_compute_dtype(&op_call),
                               .fault = &fault};
    if (kernel->can != NULL && !kernel->can(&call))
        return false;
    call.scratch_bytes = kernel->scratch == NULL ? 0 : kernel->scratch(&call);
    if (call.scratch_bytes > SCRATCH_MAX)
        return false;
    if (call.scratch_bytes > 0)
        assert_int_equal(posix_memalign(&call.scratch, VECTOR_BYTES, call.scratch_bytes), 0);
    for (uint32_t i = 0; i < t->n_in; i++)
        in[i].data = t->in[i].dtype == DTYPE_NONE ? NULL : memory_of(prng, &t->in[i]);
    for (uint32_t i = 0; i < t->op->outputs; i++)
        out[i].data = memory_of(prng, &result.out[i]);

    enum dj_error error = kernel->run(&call);
    (void)error;    // any: what is tried here is that it comes back
    for (uint32_t i = 0; i < t->n_in; i++)
        free(in[i].data);
    for (uint32_t i = 0; i < t->op->outputs; i++)
        free(out[i].data);
    free(call.scratch);
    return true;
}

static void what_inference_lets_through_a_kernel_runs_or_refuses(void **state)
{
    uint32_t never = 0, ran_ops = 0;
    ops_init();
    for (uint32_t row = 0; row < op_count(); row++) {
        const struct op_info *op = op_at(row);
        struct prng prng = case_prng(state, 100 + row);
        uint32_t ran = 0;
        if (kernels_cpu()->kernel[op->number].run == NULL)
            continue;
        if (getenv("DJINN_TEST_VERBOSE") != NULL)
            fprintf(stderr, "%s\n", op->name);
        for (int round = 0; round < ROUNDS; round++) {
            struct trial trial;
            any_trial(&prng, op, &trial);
            agree(&prng, &trial);
            agree_gradient(&prng, &trial);
            ran += try(&prng, &trial);
        }
        ran_ops++;
        never += ran == 0;
        if (ran == 0 && getenv("DJINN_TEST_VERBOSE") != NULL)
            fprintf(stderr, "never: %s\n", op->name);
    }
    assert_true(ran_ops > 100);
    assert_true(never < 8);    // else the trials are too wild to say anything
}

// Two operands that do not broadcast never reach a loop.
static void operands_that_do_not_broadcast_are_refused(void **state)
{
    static const enum op ops[] = {OP_ADD, OP_SUB, OP_MUL, OP_DIV, OP_MAXIMUM, OP_EQ, OP_LOGICAL_AND, OP_POW, OP_ATAN2};
    (void)state;
    ops_init();
    for (size_t i = 0; i < sizeof ops / sizeof ops[0]; i++) {
        struct tensor_meta in[2] = {{.dtype = DTYPE_F32, .rank = 2, .size = {4, 5}},
                                    {.dtype = DTYPE_F32, .rank = 1, .size = {4}}};
        tensor_make_contiguous(&in[0]);
        tensor_make_contiguous(&in[1]);
        struct attr attr[OP_ATTRS_MAX] = {{.kind = ATTR_INT, .i = 1}};
        struct op_call call = {.op = op_info(ops[i]), .in = in, .n_in = 2, .attr = attr};
        struct op_result result;
        assert_error(DJ_E_SHAPE, op_infer(&call, &result, NULL));
    }
}

CASES(what_inference_lets_through_a_kernel_runs_or_refuses, operands_that_do_not_broadcast_are_refused)
