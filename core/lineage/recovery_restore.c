// Restore: the small plans that put a value together from leaves, or copy it.

#include "core/base/assert.h"
#include "core/lineage/recovery.h"
#include "core/srg/bindings.h"

#include <stdlib.h>
#include <string.h>

enum { ANY_DEVICE = 255 };

static void attr_set(const struct op_info *op, const char *name, int64_t value, struct attr *attr)
{
    for (uint32_t i = 0; i < op->args; i++) {
        if (op->arg[i].attr >= 0 && strcmp(op->arg[i].name, name) == 0)
            attr[op->arg[i].attr] = (struct attr){.kind = ATTR_INT, .i = value};
    }
}

// One node over `inputs` inputs of that dtype and rank: CAT along `dim`, or CLONE of the only one.
static enum dj_error build(const struct tensor_meta *meta, uint32_t inputs, bool is_leaf, uint32_t dim, struct srg_plan **ret,
                           struct fault *fault)
{
    struct plan_builder *builder = NULL;
    enum dj_error error = plan_builder_make(&builder);
    if (error != DJ_OK)
        return error;
    struct srg_input input = {.is_leaf = is_leaf,
                              .is_contiguous = true,
                              .dtype = (uint8_t)meta->dtype,
                              .rank = (uint8_t)meta->rank,
                              .device = ANY_DEVICE};
    struct srg_ref *ref = calloc(inputs, sizeof *ref);
    error = ref == NULL ? DJ_E_NO_MEMORY : DJ_OK;
    for (uint32_t i = 0; i < inputs && error == DJ_OK; i++) {
        ref[i].kind = REF_INPUT;
        error = plan_add_input(builder, &input, &ref[i].index);
    }
    const struct op_info *op = op_info(inputs == 1 ? OP_CLONE : OP_CAT);
    struct attr attr[OP_ATTRS_MAX] = {0};
    attr_set(op, inputs == 1 ? "format" : "dim", inputs == 1 ? FORMAT_CONTIGUOUS : (int64_t)dim, attr);
    uint8_t dtype[OP_OUTPUTS_MAX] = {(uint8_t)meta->dtype};
    uint32_t node;
    if (error == DJ_OK)
        error = plan_add_node(builder, op, ref, inputs, attr, dtype, 0, ANY_DEVICE, &node);
    if (error == DJ_OK)
        error = plan_finish(builder, ret, fault);
    free(ref);
    plan_builder_free(builder);
    return error;
}

// Words of the node too: what is left to be bound there is nothing, but the layout is the plan's business.
static enum dj_error make(const struct tensor_meta *meta, uint32_t inputs, bool is_leaf, uint32_t dim, struct srg_plan **ret,
                          int64_t **ret_word, struct fault *fault)
{
    struct srg_plan *plan = NULL;
    enum dj_error error = build(meta, inputs, is_leaf, dim, &plan, fault);
    if (error != DJ_OK)
        return fault_set(fault, error, "a value could not be put together again: %s", dj_error_text(error));
    int64_t *word = calloc(plan->words + 1, sizeof *word);
    if (word == NULL) {
        plan_drop(plan);
        return fault_set(fault, DJ_E_NO_MEMORY, "%s", dj_error_text(DJ_E_NO_MEMORY));
    }
    *ret = plan;
    *ret_word = word;
    return DJ_OK;
}

enum dj_error recovery_restore_plan(const struct recovery_step *step, struct hash128 fact_content, struct srg_plan **ret,
                                    int64_t **ret_word, struct fault *fault)
{
    assert(step->kind == STEP_RESTORE && step->meta.rank <= DJ_RANK_MAX);
    uint32_t inputs = step->fact != NULL ? 1 : step->pieces;
    if (inputs == 0 || inputs > RECORD_PIECES_MAX)
        return fault_set(fault, DJ_E_INVALID, "a value of %u pieces cannot be put together", inputs);
    enum dj_error error = make(&step->meta, inputs, true, step->dim, ret, ret_word, fault);
    if (error != DJ_OK)
        return error;
    if (step->fact != NULL) {
        binding_set_leaf(*ret, *ret_word, 0, fact_content);
        binding_set_meta(*ret, *ret_word, 0, &step->meta);
        return DJ_OK;
    }
    struct reader pieces = reader_make(step->piece, step->piece_bytes);
    for (uint32_t i = 0; i < inputs; i++) {
        struct record_piece piece = record_piece_read(&pieces);
        struct tensor_meta meta = step->meta;
        if (meta.rank > 0)
            meta.size[step->dim] = piece.rows;
        tensor_make_contiguous(&meta);
        binding_set_leaf(*ret, *ret_word, i, piece.content);
        binding_set_meta(*ret, *ret_word, i, &meta);
    }
    return DJ_OK;
}

enum dj_error recovery_copy_plan(const struct recovery_step *step, struct srg_plan **ret, int64_t **ret_word, struct fault *fault)
{
    assert(step->kind == STEP_COPY);
    enum dj_error error = make(&step->meta, 1, false, 0, ret, ret_word, fault);
    if (error != DJ_OK)
        return error;
    binding_set_handle(*ret, *ret_word, 0, step->counter - step->source.counter, step->source.output);
    binding_set_meta(*ret, *ret_word, 0, &step->meta);
    return DJ_OK;
}
