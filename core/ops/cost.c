// Cost: what a call does and moves at least, for placement and the recovery limits. Estimates in double, so nothing overflows.

#include "core/ops/infer.h"

#include <math.h>

// Operations an element; exp, tanh and their kin as a vector library does them.
static const double TRANSCENDENTAL_FLOPS = 10, SOFTMAX_FLOPS = 14, NORM_FLOPS = 8, RANDOM_FLOPS = 20;

static double count_of(const struct tensor_meta *meta)
{
    return meta->dtype == DTYPE_NONE ? 0 : (double)tensor_count(meta);
}

// What reading it once moves: an expanded tensor has fewer elements in memory than it shows.
static double bytes_of(const struct tensor_meta *meta)
{
    if (meta->dtype == DTYPE_NONE)
        return 0;
    int64_t count = tensor_count(meta), span = tensor_span(meta);
    return (double)(count < span ? count : span) * (double)dtype_bytes(meta->dtype);
}

static double matmul_flops(const struct op_call *call, const struct tensor_meta *out)
{
    // The last factor's second dimension from the end is the one summed over; a vector has only one.
    const struct tensor_meta *b = &call->in[call->n_in - 1];
    double inner = b->rank == 0 ? 1 : (double)b->size[b->rank >= 2 ? b->rank - 2 : 0];
    return 2 * count_of(out) * inner;
}

static double convolution_flops(const struct op_call *call, const struct tensor_meta *out)
{
    const struct tensor_meta *in = &call->in[0], *weight = &call->in[1];
    double taps = (double)weight->size[1];    // of one output element, or of one input element when transposed
    for (uint32_t i = 2; i < weight->rank; i++)
        taps *= (double)weight->size[i];
    return 2 * taps * count_of(call->attr[3].i != 0 ? in : out);
}

// Of the input's or of the weight's gradient: each as much as the forward.
static double convolution_backward_flops(const struct op_call *call)
{
    const struct tensor_meta *weight = &call->in[2];
    double taps = (double)weight->size[1];
    for (uint32_t i = 2; i < weight->rank; i++)
        taps *= (double)weight->size[i];
    return 2 * taps * count_of(&call->in[call->attr[3].i != 0 ? 1 : 0]);
}

static double pool_flops(const struct op_call *call, const struct tensor_meta *out)
{
    if (call->op->number == OP_ADAPTIVE_AVG_POOL2D)
        return count_of(&call->in[0]);
    const struct attr *kernel = &call->attr[0];
    return count_of(out) * (double)kernel->ints[0] * (double)kernel->ints[kernel->count - 1];
}

static double attention_flops(const struct op_call *call)
{
    const struct tensor_meta *query = &call->in[0], *value = &call->in[2];
    double keys = (double)value->size[value->rank - 2], rows = 1;
    for (uint32_t i = 0; i + 1 < query->rank; i++)
        rows *= (double)query->size[i];
    double flops = rows * keys *
                   (2 * (double)query->size[query->rank - 1] + 2 * (double)value->size[value->rank - 1] + SOFTMAX_FLOPS);
    return call->attr[0].i != 0 ? flops / 2 : flops;
}

static double flops_of(const struct op_call *call, const struct op_result *result, enum cost_rule rule)
{
    const struct tensor_meta *out = &result->out[0];
    double in = call->n_in > 0 ? count_of(&call->in[0]) : 0;
    switch (rule) {
    case COST_none:
    case COST_copy:
    case COST_fill:
    case COST_gather: return 0;
    case COST_pointwise: return count_of(out);
    case COST_transcendental: return TRANSCENDENTAL_FLOPS * count_of(out);
    case COST_random: return RANDOM_FLOPS * count_of(out);
    case COST_reduce: return in;
    case COST_sort: return in > 1 ? in * log2(in) : in;
    case COST_matmul: return matmul_flops(call, out);
    case COST_softmax: return SOFTMAX_FLOPS * count_of(out);
    case COST_norm: return NORM_FLOPS * count_of(out);
    case COST_norm_backward: return NORM_FLOPS * in;
    case COST_convolution_backward: return convolution_backward_flops(call);
    case COST_convolution: return convolution_flops(call, out);
    case COST_pool: return pool_flops(call, out);
    case COST_attention: return attention_flops(call);
    }
    return 0;
}

struct op_cost op_cost(const struct op_call *call, const struct op_result *result)
{
    enum cost_rule rule = (enum cost_rule)op_rows[call->op->number].cost_rule;
    struct op_cost cost = {.flops = flops_of(call, result, rule)};
    if (rule == COST_none)
        return cost;
    for (uint32_t i = 0; i < call->op->outputs; i++)
        cost.bytes_written += count_of(&result->out[i]) * (double)dtype_bytes(result->out[i].dtype);
    for (uint32_t i = 0; i < call->n_in; i++)
        cost.bytes_read += bytes_of(&call->in[i]);
    if (rule == COST_gather)    // only the rows asked for are read
        cost.bytes_read += cost.bytes_written - bytes_of(&call->in[0]);
    return cost;
}
