// The interpreter. The manual is plan_eval.h.

#include "tests/frontend/client/plan_eval.h"

#include <string.h>

#include "core/base/bits.h"
#include "core/io/blob.h"
#include "core/srg/bindings.h"
#include "tests/lib/case.h"

static bool index_next(const struct tensor_meta *meta, int64_t *index)
{
    for (uint32_t d = meta->rank; d-- > 0;) {
        if (++index[d] < meta->size[d])
            return true;
        index[d] = 0;
    }
    return false;
}

static double *at(const struct eval_value *value, const int64_t *index)
{
    int64_t offset = 0;
    for (uint32_t d = 0; d < value->meta.rank; d++)
        offset += index[d] * value->meta.stride[d];
    return value->data + offset;
}

// Broadcast: `index` is of the output; dimensions align at the end.
static double at_broadcast(const struct eval_value *value, const struct tensor_meta *out, const int64_t *index)
{
    int64_t offset = 0;
    uint32_t skip = out->rank - value->meta.rank;
    for (uint32_t d = 0; d < value->meta.rank; d++)
        if (value->meta.size[d] > 1)
            offset += index[d + skip] * value->meta.stride[d];
    return value->data[offset];
}

double *eval_row_major(struct eval *eval, const struct eval_value *value)
{
    int64_t count = tensor_count(&value->meta), n = 0, index[DJ_RANK_MAX] = {0};
    double *to = arena_alloc(eval->arena, (size_t)(count + 1) * sizeof *to);
    if (count > 0)
        do
            to[n++] = *at(value, index);
        while (index_next(&value->meta, index));
    return to;
}

static double scalar_of(const struct attr *attr)
{
    return attr->kind == ATTR_FLOAT ? attr->f : (double)attr->i;
}

static void pointwise(uint16_t op, const struct eval_value *in, const struct attr *attr, struct eval_value *out)
{
    int64_t index[DJ_RANK_MAX] = {0};
    if (tensor_count(&out->meta) == 0)
        return;
    do {
        double a = op == OP_FULL ? 0 : at_broadcast(&in[0], &out->meta, index);
        double b = op == OP_ADD || op == OP_MUL ? at_broadcast(&in[1], &out->meta, index) : 0;
        double result = op == OP_ADD    ? a + scalar_of(&attr[0]) * b
                        : op == OP_MUL  ? a * b
                        : op == OP_NEG  ? -a
                        : op == OP_FULL ? scalar_of(&attr[1])
                                        : a;
        *at(out, index) = result;
    } while (index_next(&out->meta, index));
}

static void scatter(struct arena *arena, struct eval_value *out, const struct eval_value *in, const struct tensor_meta *window,
                    int64_t offset)
{
    // The window is geometry over `in`'s logical layout, which is dense; out has the same layout or is written by position.
    int64_t span = tensor_span(&in[0].meta), index[DJ_RANK_MAX] = {0};
    double *flat = arena_alloc(arena, (size_t)(span + 1) * sizeof *flat);
    memcpy(flat, in[0].data, (size_t)span * sizeof *flat);
    struct eval_value target = {.meta = *window, .data = flat + offset};
    if (tensor_count(window) > 0)
        do
            *at(&target, index) = *at(&in[1], index);
        while (index_next(window, index));
    struct eval_value whole = {.meta = in[0].meta, .data = flat};
    memset(index, 0, sizeof index);
    if (tensor_count(&out->meta) > 0)
        do
            *at(out, index) = *at(&whole, index);
        while (index_next(&out->meta, index));
}

static void compute(struct arena *arena, const struct srg_node *node, const struct eval_value *in, const struct attr *attr,
                    struct eval_value *out)
{
    switch (node->op) {
    case OP_ADD:
    case OP_MUL:
    case OP_NEG:
    case OP_FULL:
    case OP_CLONE:
    case OP_TO_COPY: pointwise(node->op, in, attr, out); return;
    case OP_AS_STRIDED_SCATTER: {
        struct tensor_meta window = {.dtype = out->meta.dtype, .rank = attr[0].count};
        memcpy(window.size, attr[0].ints, window.rank * sizeof window.size[0]);
        memcpy(window.stride, attr[1].ints, window.rank * sizeof window.stride[0]);
        scatter(arena, out, in, &window, attr[2].i);
        return;
    }
    case OP_SLICE_SCATTER:
    case OP_SELECT_SCATTER: {
        // The window that the matching view would give.
        struct op_call call = {
            .op = op_info(node->op == OP_SLICE_SCATTER ? OP_SLICE : OP_SELECT), .in = &in[0].meta, .n_in = 1, .attr = attr};
        struct op_result result;
        assert_ok(op_infer(&call, &result, NULL));
        scatter(arena, out, in, &result.out[0], result.view_offset[0]);
        return;
    }
    default: fail_msg("the interpreter does not know op %u", node->op);
    }
}

const struct eval_handle *eval_find(const struct eval *eval, uint64_t counter, uint32_t output)
{
    for (uint32_t i = 0; i < eval->handles; i++)
        if (eval->handle[i].counter == counter && eval->handle[i].output == output)
            return &eval->handle[i];
    return NULL;
}

static void forget(struct eval *eval, uint64_t counter, uint32_t output)
{
    for (uint32_t i = 0; i < eval->handles; i++)
        if (eval->handle[i].counter == counter && eval->handle[i].output == output) {
            eval->handle[i] = eval->handle[--eval->handles];
            return;
        }
    fail_msg("a handle was donated or released that this worker does not have: %lu:%u", (unsigned long)counter, output);
}

void eval_release(struct eval *eval, const struct released *released, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        forget(eval, released[i].counter, released[i].output);
    eval->released += count;
}

static struct eval_value leaf_value(struct eval *eval, const struct submission *to, struct hash128 content,
                                    const struct tensor_meta *meta)
{
    for (uint32_t i = 0; i < to->leaves_count; i++) {
        if (!hash128_equal(to->leaves[i]->content, content))
            continue;
        int64_t span = tensor_span(meta);
        assert_int_equal(to->leaves[i]->bytes, span * (int64_t)dtype_bytes(meta->dtype));
        double *data = arena_alloc(eval->arena, (size_t)span * sizeof *data);
        for (int64_t k = 0; k < span; k++)
            data[k] = meta->dtype == DTYPE_F32 ? (double)((const float *)(const void *)to->leaves[i]->blob->data)[k]
                                               : (double)((const int64_t *)(const void *)to->leaves[i]->blob->data)[k];
        return (struct eval_value){.meta = *meta, .data = data};
    }
    fail_msg("a leaf input is not among the submission's leaves");
    return (struct eval_value){0};
}

static struct eval_value input_value(struct eval *eval, const struct submission *to, uint32_t input)
{
    struct tensor_meta meta;
    assert_ok(binding_meta(to->plan, to->word, input, &meta, NULL));
    if (to->plan->input[input].is_leaf)
        return leaf_value(eval, to, binding_leaf(to->plan, to->word, input), &meta);
    uint64_t distance;
    uint32_t output;
    binding_handle(to->plan, to->word, input, &distance, &output);
    assert_true(distance >= 1 && distance < to->counter);
    const struct eval_handle *handle = eval_find(eval, to->counter - distance, output);
    assert_non_null(handle);
    for (uint32_t d = 0; d < meta.rank; d++) {
        assert_int_equal(meta.size[d], handle->value.meta.size[d]);
        if (meta.size[d] > 1)
            assert_int_equal(meta.stride[d], handle->value.meta.stride[d]);
    }
    return handle->value;
}

static void run_node(struct eval *eval, const struct submission *to, uint32_t n, const struct eval_value *input,
                     struct eval_value *flat, const int64_t *offset)
{
    const struct srg_node *node = &to->plan->node[n];
    struct eval_value in[8];
    assert_true(node->refs <= 8);
    for (uint32_t r = 0; r < node->refs; r++) {
        const struct srg_ref *ref = &to->plan->ref[node->first_ref + r];
        if (ref->kind == REF_NODE) {
            in[r] = flat[to->plan->node[ref->index].first_output + ref->output];
        } else if (ref->kind == REF_INPUT) {
            in[r] = input[ref->index];
        } else {
            int64_t bits = binding_scalar(to->plan, to->word, n, r);
            in[r] = (struct eval_value){.data = arena_alloc(eval->arena, sizeof(double))};
            if (ref->dtype == DTYPE_F64)
                memcpy(in[r].data, &bits, sizeof bits);
            else
                in[r].data[0] = (double)bits;
        }
    }
    struct attr attr[OP_ATTRS_MAX];
    binding_attrs(to->plan, to->word, n, attr);
    struct eval_value *out = &flat[node->first_output];
    if ((op_info(node->op)->flags & OP_IS_VIEW) != 0) {
        out->data = in[0].data + offset[node->first_output];
    } else {
        out->data = arena_zero(eval->arena, (size_t)(tensor_span(&out->meta) + 1) * sizeof(double));
        compute(eval->arena, node, in, attr, out);
    }
    eval->nodes++;
}

void eval_run(struct eval *eval, const struct submission *to, double **answer)
{
    const struct srg_plan *plan = to->plan;
    struct fault fault = {0};
    struct tensor_meta *meta = arena_alloc(eval->arena, (plan->outputs + 1) * sizeof *meta);
    int64_t *offset = arena_zero(eval->arena, (plan->outputs + 1) * sizeof *offset);
    enum dj_error error = plan_infer(plan, to->word, meta, offset, NULL, &fault);
    if (error != DJ_OK)
        fail_msg("the worker cannot infer what the client recorded: %s %s", dj_error_name(error), fault.text);
    struct eval_value *input = arena_alloc(eval->arena, (plan->inputs + 1) * sizeof *input);
    struct eval_value *flat = arena_zero(eval->arena, (plan->outputs + 1) * sizeof *flat);
    for (uint32_t i = 0; i < plan->inputs; i++)
        input[i] = input_value(eval, to, i);
    for (uint32_t f = 0; f < plan->outputs; f++)
        flat[f].meta = meta[f];
    for (uint32_t n = 0; n < plan->nodes; n++)
        run_node(eval, to, n, input, flat, offset);
    for (uint32_t i = 0; i < plan->inputs; i++)
        if (bit_get(to->donated, i)) {
            uint64_t distance;
            uint32_t output;
            binding_handle(plan, to->word, i, &distance, &output);
            forget(eval, to->counter - distance, output);
            eval->donated++;
        }
    eval_release(eval, to->released, to->released_count);
    for (uint32_t f = 0; f < plan->outputs; f++)
        if (bit_get(to->kept, f)) {
            assert_true(eval->handles < EVAL_HANDLES_MAX);
            eval->handle[eval->handles++] = (struct eval_handle){.counter = to->counter, .output = f, .value = flat[f]};
        }
    for (uint32_t i = 0; i < to->answers_count; i++)
        answer[i] = eval_row_major(eval, &flat[to->answers[i]]);
}
