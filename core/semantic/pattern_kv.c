// KV cache: cat(cache, new) where the cache came from an earlier execution, or is empty in the first one, and where what comes of it
// is read by an attention as key or value and outlives the execution. Scatters into a handle that does the same (caches of fixed
// size) count too. With a cache, a query of one token is decode; a longer one is prefill.

#include "core/semantic/pattern.h"

#include "core/base/bits.h"

static bool is_empty(const struct tensor_meta *meta)
{
    return meta != NULL && tensor_count(meta) == 0;
}

static bool outlives(const struct survey *survey, uint32_t n)
{
    if (survey->keep == NULL)
        return true;
    if (bit_get(survey->keep, survey->plan->node[n].first_output))
        return true;
    // A view of it may be what is kept.
    for (uint32_t r = survey->first_reader[n], end = survey_readers_end(survey, n); r < end; r++) {
        const struct srg_node *reader = &survey->plan->node[survey->reader[r]];
        if (survey_is_view_or_copy(reader->op) && bit_get(survey->keep, reader->first_output))
            return true;
    }
    return false;
}

static bool is_update(uint32_t op)
{
    return op == OP_CAT || op == OP_SLICE_SCATTER || op == OP_INDEX_PUT || op == OP_SCATTER_SRC || op == OP_INDEX_ADD;
}

// The attention that reads the cache: its group is the cache's.
static uint16_t group_of_reader(const struct survey *survey, uint32_t n)
{
    for (uint32_t step = 0; step < WALK_MAX; step++) {
        uint32_t next = UINT32_MAX;
        for (uint32_t r = survey->first_reader[n], end = survey_readers_end(survey, n); r < end; r++) {
            uint32_t reader = survey->reader[r];
            if (survey->notes->node[reader].role == ROLE_ATTENTION)
                return survey->notes->node[reader].colocation;
            if (survey->is_kv_operand[reader])
                next = reader;
        }
        if (next == UINT32_MAX)
            return 0;
        n = next;
    }
    return 0;
}

static void find(struct survey *survey)
{
    for (uint32_t n = 0; n < survey->plan->nodes; n++) {
        const struct srg_node *node = &survey->plan->node[n];
        if (!is_update(node->op) || node->refs < 2 || !survey->is_kv_operand[n] || !outlives(survey, n))
            continue;
        struct srg_ref cache = survey_origin(survey, survey->plan->ref[node->first_ref]);
        bool is_handle = cache.kind == REF_INPUT && !survey->plan->input[cache.index].is_leaf;
        bool is_first = node->op == OP_CAT && is_empty(survey_meta(survey, &cache));
        if (!is_handle && !is_first)
            continue;
        if (cache.kind == REF_INPUT)
            survey->notes->input_residency[cache.index] = RESIDENCY_STATEFUL_KV_CACHE;
        survey->facts.kv_appends++;
        survey_mark(survey, n, ROLE_KV_APPEND, ROLE_SURE);
        survey->notes->node[n].residency = RESIDENCY_STATEFUL_KV_CACHE;
        survey->notes->node[n].colocation = group_of_reader(survey, n);
    }
}

static void claim(const struct facts *facts, struct claim *ret)
{
    if (facts->kv_appends == 0 || facts->attentions == 0)
        return;
    // One lone append may be a coincidence; a model has two a layer.
    uint8_t confidence = facts->kv_appends >= 2 ? 96 : 85;
    *ret = (struct claim){facts->query_length == 1 ? PHASE_LLM_DECODE : PHASE_LLM_PREFILL, MODALITY_TEXT, confidence};
}

const struct pattern PATTERN_KV = {.name = "kv", .find = find, .claim = claim};
