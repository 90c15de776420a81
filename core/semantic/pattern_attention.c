// Attention: an SDPA node, or softmax between two products: (query x key) ... softmax ... x value, with scaling, masks, views and
// dropout between. The nodes of one attention form a colocation group.

#include "core/semantic/pattern.h"

// What may stand between the first product and the softmax, or the softmax and the second product.
static bool is_between(uint32_t op)
{
    return survey_is_view_or_copy(op) || survey_is_pointwise(op) || op == OP_DROPOUT;
}

// Backwards from the softmax to the product that made the scores, breadth first: masks and conditions are operands too. path gets the
// nodes between; UINT32_MAX when there is none.
static uint32_t find_scores(const struct survey *survey, uint32_t softmax, uint32_t *path, uint32_t *ret_length)
{
    struct {
        uint32_t node, parent;
    } queue[WALK_MAX] = {{.node = softmax}};
    uint32_t last = 1;
    for (uint32_t first = 0; first < last; first++) {
        const struct srg_node *node = &survey->plan->node[queue[first].node];
        for (uint32_t k = 0; k < node->refs && last < WALK_MAX; k++) {
            const struct srg_ref *ref = &survey->plan->ref[node->first_ref + k];
            if (ref->kind != REF_NODE)
                continue;
            uint32_t op = survey->plan->node[ref->index].op;
            if (survey_is_product(op)) {
                uint32_t length = 0;
                for (uint32_t at = first; at != 0; at = queue[at].parent)
                    path[length++] = queue[at].node;
                *ret_length = length;
                return ref->index;
            }
            if (!is_between(op))
                continue;
            queue[last].node = ref->index;
            queue[last++].parent = first;
        }
    }
    return UINT32_MAX;
}

// Forwards from the softmax to the product with the values.
static uint32_t find_product(const struct survey *survey, uint32_t softmax, uint32_t *path, uint32_t *ret_length)
{
    uint32_t at = softmax, length = 0;
    while (length < WALK_MAX) {
        uint32_t next = UINT32_MAX;
        for (uint32_t r = survey->first_reader[at], end = survey_readers_end(survey, at); r < end; r++) {
            uint32_t reader = survey->reader[r], op = survey->plan->node[reader].op;
            if (survey_is_product(op)) {
                const struct srg_ref *left = survey_operand(survey, reader, survey_product_left(op));
                if (left->kind != REF_NODE || left->index != at)
                    continue;    // the weights are the left matrix
                *ret_length = length;
                return reader;
            }
            if (next == UINT32_MAX && is_between(op))
                next = reader;
        }
        if (next == UINT32_MAX)
            return UINT32_MAX;
        path[length++] = next;
        at = next;
    }
    return UINT32_MAX;
}

// What an attention reads as key or value: the node that made it is one that a cache may end in; an input is a cache itself.
static bool note_kv_operand(struct survey *survey, const struct srg_ref *ref)
{
    struct srg_ref at = *ref;
    for (uint32_t step = 0; step < WALK_MAX && at.kind == REF_NODE; step++) {
        const struct srg_node *node = &survey->plan->node[at.index];
        survey->is_kv_operand[at.index] = 1;
        bool is_scale = (node->op == OP_MUL || node->op == OP_DIV) && node->refs == 2 && node->outputs == 1;
        if ((!survey_is_view_or_copy(node->op) && !is_scale) || node->refs == 0)
            return false;
        at = survey->plan->ref[node->first_ref];
    }
    if (at.kind != REF_INPUT || survey->plan->input[at.index].is_leaf)
        return false;
    survey->notes->input_residency[at.index] = RESIDENCY_STATEFUL_KV_CACHE;    // a cache that is only read: cross attention
    survey->facts.kv_handles++;
    return true;
}

static void found(struct survey *survey, int64_t query_length, const struct srg_ref *key, const struct srg_ref *value)
{
    survey->facts.attentions++;
    if (query_length > survey->facts.query_length)
        survey->facts.query_length = query_length;
    note_kv_operand(survey, key);
    note_kv_operand(survey, value);
}

static void group(struct survey *survey, uint32_t node, uint32_t confidence)
{
    uint32_t number = survey->facts.attentions + 1;
    survey_mark(survey, node, ROLE_ATTENTION, confidence);
    survey->notes->node[node].colocation = (uint16_t)(number < UINT16_MAX ? number : 0);
}

static void find_composed(struct survey *survey, uint32_t softmax)
{
    uint32_t before[WALK_MAX], after[WALK_MAX], before_length = 0, after_length = 0;
    uint32_t scores = find_scores(survey, softmax, before, &before_length);
    uint32_t product = scores == UINT32_MAX ? UINT32_MAX : find_product(survey, softmax, after, &after_length);
    if (product == UINT32_MAX)
        return;
    group(survey, scores, ROLE_SURE);
    group(survey, softmax, ROLE_SURE);
    group(survey, product, ROLE_SURE);
    for (uint32_t i = 0; i < before_length; i++)
        group(survey, before[i], ROLE_SURE);
    for (uint32_t i = 0; i < after_length; i++)
        group(survey, after[i], ROLE_SURE);
    const struct tensor_meta *weights = &survey->out[survey->plan->node[softmax].first_output];
    uint32_t left_scores = survey_product_left(survey->plan->node[scores].op);
    uint32_t left_product = survey_product_left(survey->plan->node[product].op);
    found(survey, weights->rank >= 2 ? weights->size[weights->rank - 2] : 1, survey_operand(survey, scores, left_scores + 1),
          survey_operand(survey, product, left_product + 1));
}

static void find(struct survey *survey)
{
    for (uint32_t n = 0; n < survey->plan->nodes; n++) {
        uint16_t op = survey->plan->node[n].op;
        if (op == OP_SOFTMAX)
            find_composed(survey, n);
        if (op != OP_SDPA)
            continue;
        group(survey, n, ROLE_SURE);
        const struct tensor_meta *query = survey_meta(survey, survey_operand(survey, n, 0));
        found(survey, query != NULL && query->rank >= 2 ? query->size[query->rank - 2] : 1, survey_operand(survey, n, 1),
              survey_operand(survey, n, 2));
    }
}

static void claim(const struct facts *facts, struct claim *ret)
{
    if (facts->attentions != 0)
        *ret = (struct claim){PHASE_FORWARD, MODALITY_UNKNOWN, facts->attention_by_name ? 80 : 75};
}

const struct pattern PATTERN_ATTENTION = {.name = "attention", .find = find, .claim = claim};
