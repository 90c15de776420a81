// The executor's twin: interprets plans in the simplest way, fresh memory for every value, logical strides, no reuse, no views into
// shared memory but those that the plan says. Same element functions as the fake device.

#ifndef TESTS_GPU_WORKER_EXEC_TWIN_H
#define TESTS_GPU_WORKER_EXEC_TWIN_H

#include "core/srg/bindings.h"
#include "tests/gpu_worker/exec/fake_device.h"
#include "tests/lib/case.h"

struct twin_value {
    struct handle handle;
    struct fake_tensor tensor;
};

static inline uint8_t *twin_memory(struct arena *arena, const struct tensor_meta *meta)
{
    return arena_zero(arena, (size_t)tensor_span(meta) * dtype_bytes(meta->dtype) + 16);
}

// `from`'s elements in fresh memory with the strides of `meta` (equal sizes).
static inline struct fake_tensor twin_copy(struct arena *arena, const struct fake_tensor *from, const struct tensor_meta *meta)
{
    struct fake_tensor to = {.data = twin_memory(arena, meta), .meta = *meta};
    fake_move(from, meta, &to);
    return to;
}

// All outputs of the plan; in[i] has the bound strides.
static inline void twin_run(struct arena *arena, const struct srg_plan *plan, const int64_t *word, const struct fake_tensor *in,
                            struct fake_tensor *out)
{
    struct tensor_meta *meta = arena_zero(arena, (plan->outputs + 1) * sizeof *meta);
    int64_t *offset = arena_zero(arena, (plan->outputs + 1) * sizeof *offset);
    int64_t *bits = arena_zero(arena, (plan->refs + 1) * sizeof *bits);
    assert_ok(plan_infer(plan, word, meta, offset, NULL, NULL));
    for (uint32_t n = 0; n < plan->nodes; n++) {
        const struct srg_node *node = &plan->node[n];
        struct fake_tensor operand[FAKE_OPERANDS_MAX];
        for (uint32_t r = 0; r < node->refs; r++) {
            const struct srg_ref *ref = &plan->ref[node->first_ref + r];
            operand[r] = (struct fake_tensor){.meta = {.dtype = DTYPE_NONE}};
            if (ref->kind == REF_NODE)
                operand[r] = out[plan->node[ref->index].first_output + ref->output];
            if (ref->kind == REF_INPUT)
                operand[r] = in[ref->index];
            if (ref->kind == REF_SCALAR) {
                bits[node->first_ref + r] = binding_scalar(plan, word, n, r);
                operand[r] = (struct fake_tensor){.data = (uint8_t *)&bits[node->first_ref + r], .meta = {.dtype = ref->dtype}};
            }
        }
        struct fake_tensor *result = &out[node->first_output];
        const struct op_info *op = op_info(node->op);
        for (uint32_t o = 0; o < node->outputs; o++)
            result[o].meta = meta[node->first_output + o];
        if ((op->flags & OP_IS_VIEW) != 0) {
            result[0].data = operand[0].data + (size_t)offset[node->first_output] * dtype_bytes(result[0].meta.dtype);
            continue;
        }
        for (uint32_t o = 0; o < node->outputs; o++)
            result[o].data = twin_memory(arena, &result[o].meta);
        struct attr attr[OP_ATTRS_MAX];
        binding_attrs(plan, word, n, attr);
        fake_kernel(op, attr, operand, node->refs, result, node->outputs);
    }
}

// The elements in row-major order, as answers carry them.
static inline struct blob *twin_bytes(const struct fake_tensor *tensor)
{
    struct fake_tensor dense = {.meta = tensor->meta};
    tensor_make_contiguous(&dense.meta);
    struct blob *blob = blob_make((size_t)tensor_bytes(&dense.meta) + 1);
    dense.data = blob->data;
    fake_move(tensor, &dense.meta, &dense);
    return blob;
}

#endif
