// Training: a plan with gradients in it is a training step, whatever its forward looks like; dropout among layers with weights hints at
// one. (An optimizer's step alone is element by element arithmetic, which nothing tells from any other.)

#include "core/semantic/pattern.h"

static void find(struct survey *survey)
{
    for (uint32_t n = 0; n < survey->plan->nodes; n++) {
        uint16_t op = survey->plan->node[n].op;
        survey->facts.gradients += survey_is_gradient(op);
        survey->facts.dropouts += op == OP_DROPOUT;
    }
}

static void claim(const struct facts *facts, struct claim *ret)
{
    uint8_t modality = facts->embeddings != 0 && facts->attentions != 0 ? MODALITY_TEXT
                       : facts->convolutions != 0                       ? MODALITY_VISION
                                                                        : MODALITY_UNKNOWN;
    if (facts->gradients != 0)
        *ret = (struct claim){PHASE_TRAINING, modality, 97};    // surer than a cache: inference records no gradient
    else if (facts->dropouts != 0 && facts->linears + facts->convolutions != 0)
        *ret = (struct claim){PHASE_TRAINING, MODALITY_UNKNOWN, 74};    // evaluation records no dropout
}

const struct pattern PATTERN_TRAINING = {.name = "training", .find = find, .claim = claim};
