// Semantic: runs the table of patterns over a survey, takes the surest claim, and spreads it over the nodes. The manual is semantic.h.
//
// Order of the table: embeddings and convolutions first (attention claims differ by them), attention before caches (a cache is what an
// attention reads), training before dense layers (of two equal claims it is the better one), dense layers last (what is still unmarked).

#include "core/semantic/semantic.h"

#include "core/semantic/pattern.h"

#include <stdio.h>
#include <string.h>

enum { PRIORITY_NORMAL = 128, PRIORITY_DECODE = 160 };

static const struct pattern *const PATTERN[] = {&PATTERN_EMBEDDING, &PATTERN_VISION,   &PATTERN_ATTENTION,
                                                &PATTERN_KV,        &PATTERN_TRAINING, &PATTERN_MLP};

#define COUNT_OF(array) (sizeof(array) / sizeof(array)[0])

// Words in module paths and class names, and which fact each supports.
static void find_names(struct survey *survey)
{
    struct facts *facts = &survey->facts;
    for (uint32_t i = 1; i < survey->plan->modules; i++) {
        facts->attention_by_name |= survey_module_has(survey, i, "attention") || survey_module_has(survey, i, "attn");
        facts->embedding_by_name |= survey_module_has(survey, i, "embed");
        facts->vision_by_name |= survey_module_has(survey, i, "resnet") || survey_module_has(survey, i, "vit") ||
                                 survey_module_has(survey, i, "vision") || survey_module_has(survey, i, "conv2d");
        facts->text_by_name |= survey_module_has(survey, i, "bert") || survey_module_has(survey, i, "gpt") ||
                               survey_module_has(survey, i, "t5") || survey_module_has(survey, i, "llama");
        facts->audio_by_name |= survey_module_has(survey, i, "whisper") || survey_module_has(survey, i, "wav") ||
                                survey_module_has(survey, i, "audio");
    }
}

// Nodes that no pattern marked but whose module says what they are.
static void mark_by_name(struct survey *survey, uint8_t *role_of_module)
{
    static const struct {
        const char *word;
        uint8_t role;
    } words[] = {
        {"attention", ROLE_ATTENTION}, {"attn", ROLE_ATTENTION},      {"mlp", ROLE_MLP},   {"feedforward", ROLE_MLP},
        {"embed", ROLE_EMBEDDING},     {"lm_head", ROLE_OUTPUT_HEAD}, {"norm", ROLE_NORM},
    };
    for (uint32_t i = 1; i < survey->plan->modules; i++) {
        for (size_t w = 0; w < COUNT_OF(words) && role_of_module[i] == ROLE_NONE; w++) {
            if (survey_module_has(survey, i, words[w].word))
                role_of_module[i] = words[w].role;
        }
    }
    for (uint32_t n = 0; n < survey->plan->nodes; n++) {
        uint8_t role = role_of_module[survey->plan->node[n].module];
        if (role != ROLE_NONE && survey->notes->node[n].role == ROLE_NONE)
            survey_mark(survey, n, role, ROLE_BY_NAME);
    }
}

// Whether operand k of an op is where weights go.
static bool is_weight_place(uint32_t op, uint32_t k)
{
    switch (op) {
    case OP_MM: return k == 1;
    case OP_ADDMM: return k == 0 || k == 2;
    case OP_EMBEDDING: return k == 0;
    case OP_CONVOLUTION:
    case OP_LAYER_NORM:
    case OP_GROUP_NORM: return k == 1 || k == 2;
    case OP_BATCH_NORM: return k >= 1;
    default: return false;
    }
}

// Whether it is where data goes: what only comes here is not a weight, however big it is.
static bool is_data_place(uint32_t op, uint32_t k)
{
    return (op == OP_CONVOLUTION || op == OP_LAYER_NORM || op == OP_GROUP_NORM || op == OP_BATCH_NORM || op == OP_MM)
               ? k == 0
               : op == OP_ADDMM && k == 1;
}

static void find_weights(struct survey *survey, uint8_t *use)
{
    enum { USED_AS_WEIGHT = 1, USED_AS_DATA = 2 };
    const struct srg_plan *plan = survey->plan;
    for (uint32_t n = 0; n < plan->nodes; n++) {
        const struct srg_node *node = &plan->node[n];
        for (uint32_t k = 0; k < node->refs && k < 8; k++) {
            bool is_weight = is_weight_place(node->op, k);
            if (!is_weight && !is_data_place(node->op, k))
                continue;
            struct srg_ref origin = survey_origin(survey, plan->ref[node->first_ref + k]);
            if (origin.kind == REF_INPUT)
                use[origin.index] |= is_weight ? USED_AS_WEIGHT : USED_AS_DATA;
        }
    }
    for (uint32_t i = 0; i < plan->inputs; i++) {
        const struct tensor_meta *meta = &survey->input[i];
        if (survey->notes->input_residency[i] != RESIDENCY_EPHEMERAL_ACTIVATION || !dtype_is_float(meta->dtype) ||
            meta->rank == 0)
            continue;
        bool is_weight = (use[i] & USED_AS_WEIGHT) != 0;
        bool is_big_leaf = plan->input[i].is_leaf && tensor_bytes(meta) > WEIGHT_BYTES_MIN && !(use[i] & USED_AS_DATA);
        if (is_weight || is_big_leaf)
            survey->notes->input_residency[i] = RESIDENCY_PERSISTENT_WEIGHT;
    }
}

static uint8_t merge(uint8_t a, uint8_t b)
{
    return a == MODALITY_UNKNOWN ? b : b == MODALITY_UNKNOWN || a == b ? a : MODALITY_FUSION;
}

static uint8_t modality_made(const struct survey *survey, uint32_t n)
{
    const struct srg_node *node = &survey->plan->node[n];
    if (node->op == OP_EMBEDDING)
        return MODALITY_TEXT;
    if (node->op != OP_CONVOLUTION)
        return MODALITY_UNKNOWN;
    const struct tensor_meta *weight = survey_meta(survey, survey_operand(survey, n, 1));
    return weight == NULL ? MODALITY_UNKNOWN : weight->rank == 3 ? MODALITY_AUDIO : MODALITY_VISION;
}

// Modalities flow from where they are made; views of weights stay weights; everything else is the plan's.
static void spread(struct survey *survey)
{
    const struct srg_plan *plan = survey->plan;
    struct srg_annotations *notes = survey->notes;
    for (uint32_t n = 0; n < plan->nodes; n++) {
        const struct srg_node *node = &plan->node[n];
        struct srg_annotation *note = &notes->node[n];
        note->phase = notes->phase;
        note->priority = notes->phase == PHASE_LLM_DECODE ? PRIORITY_DECODE : PRIORITY_NORMAL;
        if (note->role == ROLE_NONE)
            note->confidence = notes->confidence;
        note->modality = modality_made(survey, n);
        bool is_made_here = note->modality != MODALITY_UNKNOWN;
        for (uint32_t r = node->first_ref; !is_made_here && r < node->first_ref + node->refs; r++) {
            if (plan->ref[r].kind == REF_NODE)
                note->modality = merge(note->modality, notes->node[plan->ref[r].index].modality);
        }
        const struct srg_ref *first = survey_operand(survey, n, 0);
        if (first == NULL || note->residency != RESIDENCY_EPHEMERAL_ACTIVATION || !(op_info(node->op)->flags & OP_IS_VIEW))
            continue;
        note->residency = first->kind == REF_INPUT  ? notes->input_residency[first->index]
                          : first->kind == REF_NODE ? notes->node[first->index].residency
                                                    : RESIDENCY_EPHEMERAL_ACTIVATION;
    }
    for (uint32_t n = 0; n < plan->nodes; n++) {
        if (notes->node[n].modality == MODALITY_UNKNOWN && notes->modality != MODALITY_FUSION)
            notes->node[n].modality = notes->modality;
    }
}

static void decide(struct survey *survey, char *warning)
{
    struct claim best = {0};
    const char *by = "";
    for (size_t i = 0; i < COUNT_OF(PATTERN); i++) {
        struct claim claim = {0};
        PATTERN[i]->claim(&survey->facts, &claim);
        if (claim.confidence > best.confidence) {
            best = claim;
            by = PATTERN[i]->name;
        }
    }
    survey->notes->modality = best.modality;
    survey->notes->confidence = best.confidence;
    survey->notes->phase = best.confidence >= CONFIDENCE_SURE ? best.phase : PHASE_UNKNOWN;
    if (warning == NULL || best.confidence >= CONFIDENCE_SURE)
        return;
    if (best.confidence == 0)
        snprintf(warning, SEMANTIC_WARNING_MAX, "no pattern matched %u nodes: scheduled without assumptions",
                 survey->plan->nodes);
    else
        snprintf(warning, SEMANTIC_WARNING_MAX,
                 "pattern %s says %s with %u %% confidence, less than %d %%: scheduled without assumptions", by,
                 phase_name(best.phase), best.confidence, CONFIDENCE_SURE);
}

enum dj_error semantic_annotate(const struct semantic_input *input, struct arena *arena, struct srg_annotations *ret,
                                char *warning, struct fault *fault)
{
    const struct srg_plan *plan = input->plan;
    struct srg_annotations notes = {.nodes = plan->nodes, .inputs = plan->inputs};
    notes.node = arena_zero(arena, plan->nodes * sizeof notes.node[0]);
    notes.input_residency = arena_zero(arena, plan->inputs);
    uint8_t *use = arena_zero(arena, plan->inputs);
    uint8_t *role_of_module = arena_zero(arena, plan->modules);
    if (notes.node == NULL || notes.input_residency == NULL || use == NULL || role_of_module == NULL)
        return fault_set(fault, DJ_E_NO_MEMORY, "no memory to annotate a plan of %u nodes", plan->nodes);
    struct survey survey;
    enum dj_error error = survey_make(input, &notes, arena, &survey, fault);
    if (error == DJ_OK)
        error = survey_cost(&survey, arena, fault);
    if (error != DJ_OK)
        return error;

    find_names(&survey);
    for (size_t i = 0; i < COUNT_OF(PATTERN); i++)
        PATTERN[i]->find(&survey);
    find_weights(&survey, use);
    mark_by_name(&survey, role_of_module);
    if (warning != NULL)
        warning[0] = '\0';
    decide(&survey, warning);
    spread(&survey);
    *ret = notes;
    return DJ_OK;
}
