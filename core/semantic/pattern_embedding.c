// Embeddings: rows of a table picked by integers. Several of them without attention, beside dense layers, are a recommender's sparse
// side; together with attention they are text.

#include "core/semantic/pattern.h"

static void find(struct survey *survey)
{
    for (uint32_t n = 0; n < survey->plan->nodes; n++) {
        uint16_t op = survey->plan->node[n].op;
        uint32_t table = 0, index = op == OP_EMBEDDING ? 1 : 2;
        if (op == OP_INDEX_SELECT || op == OP_INDEX)
            index = 1;
        else if (op != OP_EMBEDDING)
            continue;
        const struct srg_ref *weight = survey_operand(survey, n, table);
        const struct tensor_meta *picks = survey_meta(survey, survey_operand(survey, n, index));
        if (weight == NULL || picks == NULL || !dtype_is_integral(picks->dtype))
            continue;
        struct srg_ref origin = survey_origin(survey, *weight);
        const struct tensor_meta *rows = survey_meta(survey, &origin);
        bool is_table = origin.kind == REF_INPUT && rows->rank == 2 && dtype_is_float(rows->dtype);
        if (op != OP_EMBEDDING && !(is_table && survey->plan->input[origin.index].is_leaf))
            continue;
        if (origin.kind == REF_INPUT)
            survey->notes->input_residency[origin.index] = RESIDENCY_PERSISTENT_WEIGHT;
        survey->facts.embeddings++;
        survey_mark(survey, n, ROLE_EMBEDDING, op == OP_EMBEDDING ? ROLE_SURE : ROLE_LIKELY);
    }
}

static void claim(const struct facts *facts, struct claim *ret)
{
    if (facts->embeddings != 0 && facts->attentions != 0)
        *ret = (struct claim){PHASE_FORWARD, MODALITY_TEXT, facts->text_by_name ? 92 : 88};
    else if (facts->embeddings >= 2 && facts->linears != 0)
        *ret = (struct claim){PHASE_FORWARD, MODALITY_UNKNOWN, 78};
    else if (facts->embeddings != 0 && facts->linears != 0)
        *ret = (struct claim){PHASE_FORWARD, MODALITY_TEXT, 72};
}

const struct pattern PATTERN_EMBEDDING = {.name = "embedding", .find = find, .claim = claim};
