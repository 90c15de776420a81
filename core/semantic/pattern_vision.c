// Vision: stacks of convolution and norm (ResNet and its kin), and a convolution that cuts an image into patches in front of
// attention (ViT). Convolutions over one dimension in front of attention are audio (Whisper).

#include "core/semantic/pattern.h"

#include "core/srg/bindings.h"

enum { PATCH_MIN = 4, STACK_MIN = 3 };

static bool is_norm(uint32_t op)
{
    return op == OP_BATCH_NORM || op == OP_GROUP_NORM || op == OP_LAYER_NORM;
}

// A patch embedding's window steps by its own size.
static bool is_patch_embed(const struct survey *survey, uint32_t n, const struct tensor_meta *weight)
{
    struct attr attr[OP_ATTRS_MAX];
    binding_attrs(survey->plan, survey->word, n, attr);
    const struct attr *stride = &attr[0];    // the first of its attributes
    if (weight->rank < 4 || stride->kind != ATTR_INTS || stride->count == 0)
        return false;
    for (uint32_t d = 2; d < weight->rank; d++) {
        int64_t step = stride->ints[d - 2 < stride->count ? d - 2 : 0];
        if (weight->size[d] < PATCH_MIN || step != weight->size[d])
            return false;
    }
    return true;
}

// Marks what follows a convolution in its stage: norm, activation, residual sum, pooling. True when there was a norm.
static bool mark_stage(struct survey *survey, uint32_t n)
{
    bool has_norm = false;
    uint32_t at = n;
    for (uint32_t step = 0; step < WALK_MAX; step++) {
        uint32_t first = survey->first_reader[at], end = survey_readers_end(survey, at), next = UINT32_MAX;
        for (uint32_t r = first; r < end && next == UINT32_MAX; r++) {
            uint32_t op = survey->plan->node[survey->reader[r]].op;
            if (is_norm(op) || survey_is_pointwise(op) || survey_is_view_or_copy(op) || op == OP_MAX_POOL2D ||
                op == OP_AVG_POOL2D || op == OP_ADAPTIVE_AVG_POOL2D)
                next = survey->reader[r];
        }
        if (next == UINT32_MAX)
            break;
        uint32_t op = survey->plan->node[next].op;
        if (survey->notes->node[next].role == ROLE_CONV_STAGE)
            break;    // somebody was here: the walks together stay linear
        if (is_norm(op)) {
            if (has_norm || op == OP_LAYER_NORM)
                break;    // the next block begins
            has_norm = true;
        }
        survey_mark(survey, next, ROLE_CONV_STAGE, ROLE_LIKELY);
        at = next;
    }
    return has_norm;
}

static void find(struct survey *survey)
{
    struct facts *facts = &survey->facts;
    for (uint32_t n = 0; n < survey->plan->nodes; n++) {
        if (survey->plan->node[n].op != OP_CONVOLUTION)
            continue;
        const struct tensor_meta *weight = survey_meta(survey, survey_operand(survey, n, 1));
        if (weight == NULL)
            continue;
        if (weight->rank == 3)
            facts->convolutions_1d++;
        else
            facts->convolutions++;
        survey_mark(survey, n, ROLE_CONV_STAGE, ROLE_SURE);
        if (is_patch_embed(survey, n, weight))
            facts->patch_embeds++;
        else
            facts->conv_norms += mark_stage(survey, n);
    }
}

static void claim(const struct facts *facts, struct claim *ret)
{
    if (facts->patch_embeds != 0 && facts->attentions != 0 && facts->embeddings != 0)
        *ret = (struct claim){PHASE_MULTIMODAL_FUSION, MODALITY_FUSION, 93};
    else if (facts->patch_embeds != 0 && facts->attentions != 0)
        *ret = (struct claim){PHASE_VISION_ENCODING, MODALITY_VISION, 93};
    else if (facts->conv_norms >= STACK_MIN && facts->attentions == 0)
        *ret = (struct claim){PHASE_VISION_ENCODING, MODALITY_VISION, facts->vision_by_name ? 95 : 90};
    else if (facts->convolutions >= STACK_MIN)
        *ret = (struct claim){PHASE_VISION_ENCODING, MODALITY_VISION, 78};
    else if (facts->convolutions_1d != 0 && facts->attentions != 0)
        *ret = (struct claim){PHASE_FORWARD, MODALITY_AUDIO, facts->audio_by_name ? 92 : 80};
}

const struct pattern PATTERN_VISION = {.name = "vision", .find = find, .claim = claim};
