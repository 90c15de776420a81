// Survey: what every pattern needs, computed once: the sizes of the inputs, who reads whom, and walks through views and copies.

#include "core/semantic/pattern.h"

#include "core/base/assert.h"
#include "core/srg/bindings.h"

#include <string.h>

static enum dj_error make_inputs(struct survey *survey, struct arena *arena, struct fault *fault)
{
    const struct srg_plan *plan = survey->plan;
    survey->input = arena_alloc(arena, plan->inputs * sizeof survey->input[0]);
    if (survey->input == NULL)
        return fault_set(fault, DJ_E_NO_MEMORY, "no memory to annotate a plan of %u inputs", plan->inputs);
    for (uint32_t i = 0; i < plan->inputs; i++) {
        enum dj_error error = binding_meta(plan, survey->word, i, &survey->input[i], fault);
        if (error != DJ_OK)
            return error;
    }
    return DJ_OK;
}

// Counting sort of the references by the node that they name.
static enum dj_error make_readers(struct survey *survey, struct arena *arena, struct fault *fault)
{
    const struct srg_plan *plan = survey->plan;
    survey->first_reader = arena_zero(arena, (plan->nodes + 2) * sizeof survey->first_reader[0]);
    survey->reader = arena_alloc(arena, plan->refs * sizeof survey->reader[0]);
    survey->is_kv_operand = arena_zero(arena, plan->nodes);
    if (survey->first_reader == NULL || survey->reader == NULL || survey->is_kv_operand == NULL)
        return fault_set(fault, DJ_E_NO_MEMORY, "no memory to annotate a plan of %u nodes", plan->nodes);
    uint32_t *start = survey->first_reader + 1;    // start[n] becomes the end of n's readers while they are dealt
    for (uint32_t r = 0; r < plan->refs; r++) {
        if (plan->ref[r].kind == REF_NODE && plan->ref[r].index + 1 < plan->nodes)
            start[plan->ref[r].index + 1]++;
    }
    for (uint32_t n = 1; n < plan->nodes; n++)
        start[n] += start[n - 1];
    for (uint32_t n = 0; n < plan->nodes; n++) {
        const struct srg_node *node = &plan->node[n];
        for (uint32_t r = node->first_ref; r < node->first_ref + node->refs; r++) {
            if (plan->ref[r].kind == REF_NODE)
                survey->reader[start[plan->ref[r].index]++] = n;
        }
    }
    return DJ_OK;
}

enum dj_error survey_make(const struct semantic_input *input, struct srg_annotations *notes, struct arena *arena,
                          struct survey *ret, struct fault *fault)
{
    *ret = (struct survey){.plan = input->plan, .word = input->word, .out = input->out, .keep = input->keep, .notes = notes};
    enum dj_error error = make_inputs(ret, arena, fault);
    if (error == DJ_OK)
        error = make_readers(ret, arena, fault);
    return error;
}

const struct srg_ref *survey_operand(const struct survey *survey, uint32_t node, uint32_t k)
{
    const struct srg_node *at = &survey->plan->node[node];
    return k < at->refs ? &survey->plan->ref[at->first_ref + k] : NULL;
}

const struct tensor_meta *survey_meta(const struct survey *survey, const struct srg_ref *ref)
{
    if (ref == NULL)
        return NULL;
    if (ref->kind == REF_NODE)
        return &survey->out[survey->plan->node[ref->index].first_output + ref->output];
    return ref->kind == REF_INPUT ? &survey->input[ref->index] : NULL;
}

bool survey_is_view_or_copy(uint32_t op)
{
    const struct op_info *info = op_info(op);
    return (info->flags & OP_IS_VIEW) || op == OP_CLONE || op == OP_TO_COPY || op == OP_REPEAT;
}

bool survey_is_product(uint32_t op)
{
    return op == OP_MM || op == OP_ADDMM || op == OP_BMM || op == OP_BADDBMM;
}

uint32_t survey_product_left(uint32_t op)
{
    return op == OP_ADDMM || op == OP_BADDBMM ? 1 : 0;
}

bool survey_is_pointwise(uint32_t op)
{
    // The table keeps the pointwise families in one range of numbers; what it must not take for one are products and reductions.
    return op >= OP_ADD && op <= OP_CLAMP_MIN;
}

bool survey_is_gradient(uint32_t op)
{
    if (op == OP_NLL_LOSS || op == OP_BATCH_NORM_TRAIN)    // in the range of the gradients, but a forward pass records them too
        return false;
    return (op >= OP_TANH_BACKWARD && op <= OP_ELU_BACKWARD) || op == OP_DROPOUT_BACKWARD ||
           (op >= OP_SOFTMAX_BACKWARD && op <= OP_GROUP_NORM_BACKWARD);
}

struct srg_ref survey_origin(const struct survey *survey, struct srg_ref ref)
{
    for (uint32_t step = 0; step < WALK_MAX && ref.kind == REF_NODE; step++) {
        const struct srg_node *node = &survey->plan->node[ref.index];
        if (!survey_is_view_or_copy(node->op) || node->refs == 0)
            break;
        ref = survey->plan->ref[node->first_ref];
    }
    return ref;
}

void survey_mark(struct survey *survey, uint32_t node, enum srg_role role, uint32_t confidence)
{
    struct srg_annotation *note = &survey->notes->node[node];
    if (note->role != ROLE_NONE && note->confidence >= confidence)
        return;
    note->role = (uint8_t)role;
    note->confidence = (uint8_t)confidence;
}

static bool has_word(const char *text, const char *word)
{
    size_t length = strlen(word);
    for (; *text != '\0'; text++) {
        size_t i = 0;
        while (i < length && (text[i] | 0x20) == word[i])    // `word` is lower case; a NUL differs from every letter
            i++;
        if (i == length)
            return true;
    }
    return false;
}

bool survey_module_has(const struct survey *survey, uint32_t module, const char *word)
{
    assert(module < survey->plan->modules);
    const struct srg_module *at = &survey->plan->module[module];
    return has_word(at->type, word) || has_word(at->path, word);
}
