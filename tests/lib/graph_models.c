// Models for tests: the ops that a forward of each family records, in order. Sizes are the caller's; weights are leaves.

#include "tests/lib/graph.h"

#include <stdio.h>

static const struct srg_ref ABSENT = {.kind = REF_ABSENT};

static struct srg_ref norm(struct graph *g, struct srg_ref x, int64_t hidden)
{
    INTS(g, "shape", hidden);
    graph_float(g, "eps", 1e-5);
    return OP3(g, OP_LAYER_NORM, x, LEAF(g, DTYPE_F32, hidden), LEAF(g, DTYPE_F32, hidden));
}

static struct srg_ref linear(struct graph *g, struct srg_ref x, int64_t in, int64_t out)
{
    const struct tensor_meta meta = *graph_meta(g, x);
    INTS(g, "size", -1, in);
    struct srg_ref flat = OP1(g, OP_VIEW_SIZES, x);
    graph_int(g, "beta", 1);
    graph_int(g, "alpha", 1);
    struct srg_ref y = OP3(g, OP_ADDMM, LEAF(g, DTYPE_F32, out), flat, LEAF(g, DTYPE_F32, in, out));
    INTS(g, "size", meta.size[0], meta.size[1], out);
    return OP1(g, OP_VIEW_SIZES, y);
}

static struct srg_ref add(struct graph *g, struct srg_ref a, struct srg_ref b)
{
    graph_int(g, "alpha", 1);
    return OP2(g, OP_ADD, a, b);
}

static struct srg_ref split_heads(struct graph *g, struct srg_ref x, int64_t heads)
{
    const struct tensor_meta meta = *graph_meta(g, x);
    INTS(g, "size", meta.size[0], meta.size[1], heads, meta.size[2] / heads);
    x = OP1(g, OP_VIEW_SIZES, x);
    graph_int(g, "dim0", 1);
    graph_int(g, "dim1", 2);
    return OP1(g, OP_TRANSPOSE, x);
}

static struct srg_ref merge_heads(struct graph *g, struct srg_ref x)
{
    const struct tensor_meta meta = *graph_meta(g, x);
    graph_int(g, "dim0", 1);
    graph_int(g, "dim1", 2);
    x = OP1(g, OP_TRANSPOSE, x);
    graph_int(g, "format", FORMAT_CONTIGUOUS);
    x = OP1(g, OP_CLONE, x);
    INTS(g, "size", meta.size[0], meta.size[2], meta.size[1] * meta.size[3]);
    return OP1(g, OP_VIEW_SIZES, x);
}

// [B, H, T, D] as [B * H, T, D]
static struct srg_ref flatten_heads(struct graph *g, struct srg_ref x)
{
    const struct tensor_meta meta = *graph_meta(g, x);
    graph_int(g, "format", FORMAT_CONTIGUOUS);
    x = OP1(g, OP_CLONE, x);
    INTS(g, "size", meta.size[0] * meta.size[1], meta.size[2], meta.size[3]);
    return OP1(g, OP_VIEW_SIZES, x);
}

static struct srg_ref attend(struct graph *g, struct srg_ref q, struct srg_ref k, struct srg_ref v, bool is_causal, bool is_fused)
{
    if (is_fused) {
        graph_bool(g, "is_causal", is_causal);
        return OP4(g, OP_SDPA, q, k, v, ABSENT);
    }
    const struct tensor_meta meta = *graph_meta(g, q);
    struct srg_ref query = flatten_heads(g, q), key = flatten_heads(g, k), value = flatten_heads(g, v);
    graph_int(g, "dim0", 1);
    graph_int(g, "dim1", 2);
    key = OP1(g, OP_TRANSPOSE, key);
    struct srg_ref scores = OP2(g, OP_BMM, query, key);
    scores = OP2(g, OP_DIV, scores, graph_scalar(g, 8.0));
    const struct tensor_meta *sizes = graph_meta(g, scores);
    struct srg_ref mask = LEAF(g, DTYPE_BOOL, 1, sizes->size[1], sizes->size[2]);
    mask = OP1(g, OP_LOGICAL_NOT, mask);
    struct srg_ref low = LEAF(g, DTYPE_F32, 1, 1, 1);
    scores = OP3(g, OP_WHERE, mask, scores, low);
    graph_int(g, "dim", -1);
    graph_bool(g, "half_to_float", false);
    scores = OP1(g, OP_SOFTMAX, scores);
    struct srg_ref y = OP2(g, OP_BMM, scores, value);
    INTS(g, "size", meta.size[0], meta.size[1], meta.size[2], meta.size[3]);
    return OP1(g, OP_VIEW_SIZES, y);
}

// 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))), as Hugging Face writes it out
static struct srg_ref gelu_new(struct graph *g, struct srg_ref x)
{
    struct srg_ref half = OP2(g, OP_MUL, x, graph_scalar(g, 0.5));
    graph_float(g, "exponent", 3.0);
    struct srg_ref y = OP1(g, OP_POW_SCALAR, x);
    y = OP2(g, OP_MUL, y, graph_scalar(g, 0.044715));
    y = add(g, x, y);
    y = OP2(g, OP_MUL, y, graph_scalar(g, 0.7978845608));
    y = OP1(g, OP_TANH, y);
    y = add(g, y, graph_scalar(g, 1.0));
    return OP2(g, OP_MUL, half, y);
}

static struct srg_ref part(struct graph *g, struct srg_ref x, int64_t start, int64_t end)
{
    graph_int(g, "dim", 2);
    graph_int(g, "start", start);
    graph_int(g, "end", end);
    graph_int(g, "step", 1);
    return OP1(g, OP_SLICE, x);
}

// cat(cache, new): the cache is a handle, or an empty leaf in the first execution.
static struct srg_ref append(struct graph *g, struct srg_ref x, int64_t past)
{
    const struct tensor_meta meta = *graph_meta(g, x);
    struct srg_ref cache = past == 0 ? LEAF(g, DTYPE_F32, 0)
                                     : HANDLE(g, DTYPE_F32, meta.size[0], meta.size[1], past, meta.size[3]);
    graph_int(g, "dim", -2);
    struct srg_ref all = OP2(g, OP_CAT, cache, x);
    graph_keep(g, all);
    return all;
}

static struct srg_ref gpt2_block(struct graph *g, struct srg_ref x, int64_t hidden, int64_t heads, int64_t past, bool has_cache,
                                 bool is_fused)
{
    struct srg_ref qkv = linear(g, norm(g, x, hidden), hidden, 3 * hidden);
    struct srg_ref q = split_heads(g, part(g, qkv, 0, hidden), heads);
    struct srg_ref k = split_heads(g, part(g, qkv, hidden, 2 * hidden), heads);
    struct srg_ref v = split_heads(g, part(g, qkv, 2 * hidden, 3 * hidden), heads);
    if (has_cache) {
        k = append(g, k, past);
        v = append(g, v, past);
    }
    bool is_causal = graph_meta(g, q)->size[2] > 1;
    struct srg_ref y = merge_heads(g, attend(g, q, k, v, is_causal, is_fused));
    x = add(g, linear(g, y, hidden, hidden), x);
    y = gelu_new(g, linear(g, norm(g, x, hidden), hidden, 4 * hidden));
    return add(g, x, linear(g, y, 4 * hidden, hidden));
}

void graph_gpt2(struct graph *g, uint32_t layers, int64_t hidden, int64_t heads, int64_t past, int64_t tokens, bool has_cache,
                bool is_fused)
{
    struct srg_ref table = LEAF(g, DTYPE_F32, 50257, hidden);
    struct srg_ref ids = HANDLE(g, DTYPE_I64, 1, tokens);
    graph_module(g, "transformer.wte", "Embedding");
    struct srg_ref x = OP2(g, OP_EMBEDDING, table, ids);
    graph_module(g, "transformer.wpe", "Embedding");
    graph_int(g, "start", past);
    graph_int(g, "end", past + tokens);
    graph_int(g, "step", 1);
    struct srg_ref positions = graph_op_as(g, OP_ARANGE, DTYPE_I64, 0, NULL);
    graph_int(g, "dim", 0);
    positions = OP1(g, OP_UNSQUEEZE, positions);
    x = add(g, x, OP2(g, OP_EMBEDDING, LEAF(g, DTYPE_F32, 1024, hidden), positions));
    for (uint32_t i = 0; i < layers; i++) {
        char path[64];
        snprintf(path, sizeof path, "transformer.h.%u", i);
        graph_module(g, path, "GPT2Block");
        x = gpt2_block(g, x, hidden, heads, past, has_cache, is_fused);
    }
    graph_module(g, "lm_head", "Linear");
    x = norm(g, x, hidden);
    graph_int(g, "dim", 1);
    graph_int(g, "start", -1);
    graph_int(g, "step", 1);
    x = OP1(g, OP_SLICE, x);
    INTS(g, "size", 1, hidden);
    x = OP1(g, OP_VIEW_SIZES, x);
    x = OP2(g, OP_MM, x, OP1(g, OP_T, table));
    graph_module(g, "", "");
    graph_int(g, "dim", -1);
    graph_bool(g, "keepdim", false);
    graph_keep(g, OP1(g, OP_ARGMAX, x));
}

void graph_bert(struct graph *g, uint32_t layers, int64_t hidden, int64_t heads, int64_t tokens)
{
    struct srg_ref x = OP2(g, OP_EMBEDDING, LEAF(g, DTYPE_F32, 30522, hidden), LEAF(g, DTYPE_I64, 1, tokens));
    x = add(g, x, OP2(g, OP_EMBEDDING, LEAF(g, DTYPE_F32, 512, hidden), LEAF(g, DTYPE_I64, 1, tokens)));
    x = norm(g, x, hidden);
    for (uint32_t i = 0; i < layers; i++) {
        struct srg_ref q = split_heads(g, linear(g, x, hidden, hidden), heads);
        struct srg_ref k = split_heads(g, linear(g, x, hidden, hidden), heads);
        struct srg_ref v = split_heads(g, linear(g, x, hidden, hidden), heads);
        x = norm(g, add(g, x, linear(g, merge_heads(g, attend(g, q, k, v, false, true)), hidden, hidden)), hidden);
        struct srg_ref y = linear(g, x, hidden, 4 * hidden);
        graph_int(g, "approximate", GELU_NONE);
        y = OP1(g, OP_GELU, y);
        x = norm(g, add(g, x, linear(g, y, 4 * hidden, hidden)), hidden);
    }
}

static struct srg_ref convolution(struct graph *g, struct srg_ref x, int64_t in, int64_t out, int64_t kernel, int64_t stride)
{
    INTS(g, "stride", stride, stride);
    INTS(g, "padding", stride == kernel ? 0 : kernel / 2, stride == kernel ? 0 : kernel / 2);
    INTS(g, "dilation", 1, 1);
    graph_bool(g, "transposed", false);
    INTS(g, "output_padding", 0, 0);
    graph_int(g, "groups", 1);
    return OP3(g, OP_CONVOLUTION, x, LEAF(g, DTYPE_F32, out, in, kernel, kernel), ABSENT);
}

void graph_vit(struct graph *g, uint32_t layers, int64_t hidden, int64_t heads)
{
    struct srg_ref x = convolution(g, LEAF(g, DTYPE_F32, 1, 3, 224, 224), 3, hidden, 16, 16);
    INTS(g, "size", 1, hidden, 196);
    x = OP1(g, OP_VIEW_SIZES, x);
    graph_int(g, "dim0", 1);
    graph_int(g, "dim1", 2);
    x = OP1(g, OP_TRANSPOSE, x);
    graph_int(g, "dim", 1);
    x = OP2(g, OP_CAT, LEAF(g, DTYPE_F32, 1, 1, hidden), x);
    x = add(g, x, LEAF(g, DTYPE_F32, 1, 197, hidden));
    for (uint32_t i = 0; i < layers; i++) {
        struct srg_ref y = norm(g, x, hidden);
        struct srg_ref q = split_heads(g, linear(g, y, hidden, hidden), heads);
        struct srg_ref k = split_heads(g, linear(g, y, hidden, hidden), heads);
        struct srg_ref v = split_heads(g, linear(g, y, hidden, hidden), heads);
        x = add(g, x, linear(g, merge_heads(g, attend(g, q, k, v, false, true)), hidden, hidden));
        y = linear(g, norm(g, x, hidden), hidden, 4 * hidden);
        graph_int(g, "approximate", GELU_NONE);
        y = OP1(g, OP_GELU, y);
        x = add(g, x, linear(g, y, 4 * hidden, hidden));
    }
}

static struct srg_ref batch_norm(struct graph *g, struct srg_ref x, int64_t channels)
{
    graph_float(g, "eps", 1e-5);
    struct srg_ref ref[5] = {x, LEAF(g, DTYPE_F32, channels), LEAF(g, DTYPE_F32, channels), LEAF(g, DTYPE_F32, channels),
                             LEAF(g, DTYPE_F32, channels)};
    return graph_op_as(g, OP_BATCH_NORM, DTYPE_NONE, 5, ref);
}

void graph_resnet(struct graph *g, uint32_t blocks)
{
    struct srg_ref x = convolution(g, LEAF(g, DTYPE_F32, 1, 3, 64, 64), 3, 64, 7, 2);
    x = OP1(g, OP_RELU, batch_norm(g, x, 64));
    for (uint32_t i = 0; i < blocks; i++) {
        struct srg_ref y = OP1(g, OP_RELU, batch_norm(g, convolution(g, x, 64, 64, 3, 1), 64));
        y = batch_norm(g, convolution(g, y, 64, 64, 3, 1), 64);
        x = OP1(g, OP_RELU, add(g, y, x));
    }
    INTS(g, "dims", -1, -2);
    graph_bool(g, "keepdim", false);
    x = OP1(g, OP_MEAN_DIM, x);
    struct srg_ref weight = OP1(g, OP_T, LEAF(g, DTYPE_F32, 1000, 64));
    graph_int(g, "beta", 1);
    graph_int(g, "alpha", 1);
    OP3(g, OP_ADDMM, LEAF(g, DTYPE_F32, 1000), x, weight);
}

void graph_dlrm(struct graph *g, uint32_t tables)
{
    graph_int(g, "beta", 1);
    graph_int(g, "alpha", 1);
    struct srg_ref x = OP3(g, OP_ADDMM, LEAF(g, DTYPE_F32, 16), LEAF(g, DTYPE_F32, 128, 13), LEAF(g, DTYPE_F32, 13, 16));
    x = OP1(g, OP_RELU, x);
    for (uint32_t i = 0; i < tables; i++) {
        struct srg_ref rows = OP2(g, OP_EMBEDDING, LEAF(g, DTYPE_F32, 1000, 16), LEAF(g, DTYPE_I64, 128));
        graph_int(g, "dim", 1);
        x = OP2(g, OP_CAT, x, rows);
    }
    int64_t width = graph_meta(g, x)->size[1];
    graph_int(g, "beta", 1);
    graph_int(g, "alpha", 1);
    x = OP3(g, OP_ADDMM, LEAF(g, DTYPE_F32, 1), x, LEAF(g, DTYPE_F32, width, 1));
    OP1(g, OP_SIGMOID, x);
}
