// Annotations: their names, in one table for each enumeration.

#include "core/srg/annotation.h"

#include <stddef.h>

static const char *const PHASE[] = {"unknown",         "forward",         "llm_prefill",       "llm_decode",
                                    "vision_encoding", "vision_decoding", "multimodal_fusion", "training"};
static const char *const RESIDENCY[] = {"ephemeral_activation", "persistent_weight", "stateful_kv_cache", "gradient"};
static const char *const MODALITY[] = {"unknown", "vision", "text", "audio", "fusion"};
static const char *const ROLE[] = {"none", "attention",  "kv_append",   "mlp",     "embedding",
                                   "norm", "conv_stage", "output_head", "sampling"};

#define COUNT_OF(array) (sizeof(array) / sizeof(array)[0])
_Static_assert(COUNT_OF(PHASE) == PHASE_COUNT && COUNT_OF(RESIDENCY) == RESIDENCY_COUNT && COUNT_OF(MODALITY) == MODALITY_COUNT &&
                   COUNT_OF(ROLE) == ROLE_COUNT,
               "every number has its name");

static const char *name_in(const char *const *names, size_t count, size_t number)
{
    return number < count ? names[number] : "invalid";
}

const char *phase_name(enum srg_phase phase)
{
    return name_in(PHASE, COUNT_OF(PHASE), (size_t)phase);
}

const char *residency_name(enum srg_residency residency)
{
    return name_in(RESIDENCY, COUNT_OF(RESIDENCY), (size_t)residency);
}

const char *modality_name(enum srg_modality modality)
{
    return name_in(MODALITY, COUNT_OF(MODALITY), (size_t)modality);
}

const char *role_name(enum srg_role role)
{
    return name_in(ROLE, COUNT_OF(ROLE), (size_t)role);
}
