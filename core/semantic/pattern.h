// Patterns: what a rule sees (struct survey) and what it says (roles of nodes, residency of inputs, facts, a claim about the plan).
//
// A pattern is a row of the table in semantic.c with two functions, either of which may be NULL:
//   find    walks the survey once, marks roles and residencies and counts what it saw in survey->facts. Earlier rows have run.
//   claim   from all facts together, says what the plan as a whole may be and how sure it is. The surest claim wins; of equal ones
//           the earlier row.
// Walks are bounded by WALK_MAX nodes, so that all patterns together stay linear. Patterns keep no state of their own.

#ifndef CORE_SEMANTIC_PATTERN_H
#define CORE_SEMANTIC_PATTERN_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/arena.h"
#include "core/ops/op.h"
#include "core/semantic/semantic.h"
#include "core/srg/annotation.h"
#include "core/srg/plan.h"

enum { WALK_MAX = 24, WEIGHT_BYTES_MIN = 1024, ROLE_SURE = 95, ROLE_LIKELY = 80, ROLE_BY_NAME = 75 };

struct facts {
    uint32_t embeddings, attentions, kv_appends, kv_handles, convolutions, convolutions_1d, conv_norms, patch_embeds, linears,
        mlps, norms, samplings, dropouts, gradients;
    int64_t query_length;    // the longest of the attentions that use a cache, else of all; 0: no attention
    bool attention_by_name, embedding_by_name, vision_by_name, text_by_name, audio_by_name;
};

struct claim {
    uint8_t phase, modality;
    uint8_t confidence;    // 0: no claim
};

struct survey {
    const struct srg_plan *plan;
    const int64_t *word;
    const struct tensor_meta *out;    // of every flat output
    struct tensor_meta *input;        // of every input
    const uint8_t *keep;
    uint32_t *first_reader;    // CSR: readers of node n are reader[first_reader[n]] to reader[first_reader[n + 1] - 1]
    uint32_t *reader;
    uint8_t *is_kv_operand;    // a node each: 1 when an attention reads it as key or value through it
    struct srg_annotations *notes;
    struct facts facts;
};

struct pattern {
    const char *name;
    void (*find)(struct survey *survey);
    void (*claim)(const struct facts *facts, struct claim *ret);
};

extern const struct pattern PATTERN_EMBEDDING, PATTERN_VISION, PATTERN_ATTENTION, PATTERN_KV, PATTERN_TRAINING, PATTERN_MLP;

// Helpers (survey.c) -----------------------------------------------------------------------------------------------------------

// Makes the survey in `arena`. DJ_E_NO_MEMORY; DJ_E_BINDINGS_INVALID and others when an input's sizes are not valid.
DJ_MUST_USE enum dj_error survey_make(const struct semantic_input *input, struct srg_annotations *notes, struct arena *arena,
                                      struct survey *ret, struct fault *fault);

// The k-th operand of a node; NULL when it has fewer.
const struct srg_ref *survey_operand(const struct survey *survey, uint32_t node, uint32_t k);
const struct tensor_meta *survey_meta(const struct survey *survey, const struct srg_ref *ref);    // NULL: absent or scalar

// Where a node's readers end, looking at no more than WALK_MAX of them.
static inline uint32_t survey_readers_end(const struct survey *survey, uint32_t node)
{
    uint32_t first = survey->first_reader[node], end = survey->first_reader[node + 1];
    return end - first > WALK_MAX ? first + WALK_MAX : end;
}

// Follows views and copies backwards to where the value was made.
struct srg_ref survey_origin(const struct survey *survey, struct srg_ref ref);

bool survey_is_view_or_copy(uint32_t op);
bool survey_is_pointwise(uint32_t op);
bool survey_is_product(uint32_t op);          // MM, ADDMM, BMM, BADDBMM
bool survey_is_gradient(uint32_t op);         // what only a backward pass records
uint32_t survey_product_left(uint32_t op);    // which operand is the left matrix; the right one follows

// Marks a node's role if `confidence` is higher than that of the role it has.
void survey_mark(struct survey *survey, uint32_t node, enum srg_role role, uint32_t confidence);

// Whether the node's module, or one around it, has `word` in its class name or path (ASCII, any case).
bool survey_module_has(const struct survey *survey, uint32_t module, const char *word);

// Cost and criticality of every node (cost.c): flops and bytes by the op table, and how long the longest path through the node is,
// as a share of the plan's longest.
DJ_MUST_USE enum dj_error survey_cost(struct survey *survey, struct arena *arena, struct fault *fault);

#endif
