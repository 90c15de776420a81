// Dense layers: products with a weight, two of them around an activation (MLP), norms (fused, or RMS norm written out), the head
// (the last product with a weight) and sampling behind it.

#include "core/semantic/pattern.h"

static bool is_norm(uint32_t op)
{
    return op == OP_LAYER_NORM || op == OP_BATCH_NORM || op == OP_GROUP_NORM;
}

static bool is_activation(uint32_t op)
{
    return op == OP_GELU || op == OP_RELU || op == OP_SILU || op == OP_TANH || op == OP_SIGMOID || op == OP_ERF ||
           op == OP_LEAKY_RELU || op == OP_ELU || op == OP_HARDTANH || op == OP_CLAMP;
}

// A product whose right matrix is an input (through views): a layer with weights.
static bool is_linear(const struct survey *survey, uint32_t n)
{
    uint16_t op = survey->plan->node[n].op;
    if (!survey_is_product(op))
        return false;
    const struct srg_ref *right = survey_operand(survey, n, survey_product_left(op) + 1);
    struct srg_ref origin = right == NULL ? (struct srg_ref){0} : survey_origin(survey, *right);
    return origin.kind == REF_INPUT && (survey->plan->input[origin.index].is_leaf || op == OP_MM || op == OP_ADDMM) &&
           survey->notes->input_residency[origin.index] != RESIDENCY_STATEFUL_KV_CACHE;
}

// Backwards from a linear's left operand through pointwise ops, breadth first: an activation on the way and a linear at the end make
// an MLP (gated ones have two at the end; a GELU that is written out has several branches).
static bool find_mlp(struct survey *survey, uint32_t n)
{
    uint32_t queue[WALK_MAX], first = 0, last = 0;
    bool has_activation = false, has_linear = false;
    const struct srg_ref *left = survey_operand(survey, n, survey_product_left(survey->plan->node[n].op));
    if (left->kind == REF_NODE)
        queue[last++] = left->index;
    while (first < last) {
        uint32_t at = queue[first++];
        const struct srg_node *node = &survey->plan->node[at];
        has_activation |= is_activation(node->op);
        if (survey_is_product(node->op)) {
            has_linear |= is_linear(survey, at);
            continue;
        }
        if (!survey_is_pointwise(node->op) && !survey_is_view_or_copy(node->op) && node->op != OP_DROPOUT)
            continue;
        for (uint32_t k = 0; k < node->refs && last < WALK_MAX; k++) {
            const struct srg_ref *ref = &survey->plan->ref[node->first_ref + k];
            bool is_new = ref->kind == REF_NODE;
            for (uint32_t i = 0; is_new && i < last; i++)
                is_new = queue[i] != ref->index;
            if (is_new)
                queue[last++] = ref->index;
        }
    }
    if (!has_activation || !has_linear)
        return false;
    survey_mark(survey, n, ROLE_MLP, ROLE_LIKELY);
    for (uint32_t i = 0; i < last; i++) {
        uint32_t op = survey->plan->node[queue[i]].op;
        if (survey_is_pointwise(op) || survey_is_view_or_copy(op) || is_linear(survey, queue[i]))
            survey_mark(survey, queue[i], ROLE_MLP, ROLE_LIKELY);
    }
    return true;
}

// mean(x^2) -> + eps -> rsqrt -> times x
static bool find_rms_norm(struct survey *survey, uint32_t rsqrt)
{
    struct srg_ref at = *survey_operand(survey, rsqrt, 0);
    for (uint32_t step = 0; step < 4 && at.kind == REF_NODE; step++) {
        const struct srg_node *node = &survey->plan->node[at.index];
        if (node->op == OP_MEAN_DIM) {
            survey_mark(survey, rsqrt, ROLE_NORM, ROLE_LIKELY);
            survey_mark(survey, at.index, ROLE_NORM, ROLE_LIKELY);
            for (uint32_t r = survey->first_reader[rsqrt], end = survey_readers_end(survey, rsqrt); r < end; r++)
                survey_mark(survey, survey->reader[r], ROLE_NORM, ROLE_LIKELY);
            return true;
        }
        if (node->op != OP_ADD && !survey_is_view_or_copy(node->op))
            return false;
        at = survey->plan->ref[node->first_ref];
    }
    return false;
}

static void find(struct survey *survey)
{
    struct facts *facts = &survey->facts;
    uint32_t last_linear = UINT32_MAX;
    for (uint32_t n = 0; n < survey->plan->nodes; n++) {
        uint16_t op = survey->plan->node[n].op;
        if (is_linear(survey, n)) {
            facts->linears++;
            last_linear = n;
            facts->mlps += find_mlp(survey, n);
        } else if (is_norm(op)) {
            facts->norms++;
            survey_mark(survey, n, ROLE_NORM, ROLE_SURE);
        } else if (op == OP_RSQRT) {
            facts->norms += find_rms_norm(survey, n);
        } else if (op == OP_ARGMAX || op == OP_MULTINOMIAL || op == OP_TOPK) {
            facts->samplings++;
            survey_mark(survey, n, ROLE_SAMPLING, last_linear == UINT32_MAX ? ROLE_BY_NAME : ROLE_LIKELY);
        }
    }
    if (last_linear != UINT32_MAX && survey->notes->node[last_linear].role == ROLE_NONE)
        survey_mark(survey, last_linear, ROLE_OUTPUT_HEAD, ROLE_BY_NAME);
}

static void claim(const struct facts *facts, struct claim *ret)
{
    if (facts->mlps != 0)
        *ret = (struct claim){PHASE_FORWARD, MODALITY_UNKNOWN, 74};
    else if (facts->linears != 0)
        *ret = (struct claim){PHASE_FORWARD, MODALITY_UNKNOWN, 71};
}

const struct pattern PATTERN_MLP = {.name = "mlp", .find = find, .claim = claim};
