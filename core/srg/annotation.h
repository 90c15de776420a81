// Annotations: what a plan means, node by node. Filled by core/semantic on the head; read by placement, memory management and people.

#ifndef CORE_SRG_ANNOTATION_H
#define CORE_SRG_ANNOTATION_H

#include <stdint.h>

#include "core/srg/plan.h"

// Numbers cross the wire and the disk: never reused.
enum srg_phase { PHASE_UNKNOWN, PHASE_FORWARD, PHASE_LLM_PREFILL, PHASE_LLM_DECODE, PHASE_VISION_ENCODING, PHASE_VISION_DECODING,
                 PHASE_MULTIMODAL_FUSION, PHASE_TRAINING, PHASE_COUNT };
enum srg_residency { RESIDENCY_EPHEMERAL_ACTIVATION, RESIDENCY_PERSISTENT_WEIGHT, RESIDENCY_STATEFUL_KV_CACHE, RESIDENCY_GRADIENT,
                     RESIDENCY_COUNT };
enum srg_modality { MODALITY_UNKNOWN, MODALITY_VISION, MODALITY_TEXT, MODALITY_AUDIO, MODALITY_FUSION, MODALITY_COUNT };
enum srg_role { ROLE_NONE, ROLE_ATTENTION, ROLE_KV_APPEND, ROLE_MLP, ROLE_EMBEDDING, ROLE_NORM, ROLE_CONV_STAGE, ROLE_OUTPUT_HEAD, ROLE_SAMPLING,
                ROLE_COUNT };

struct srg_annotation {                 // of a node
    uint8_t phase, residency, modality, role;
    uint8_t priority;                   // 0 to 255; 128 is normal
    uint8_t confidence;                 // percent
    uint16_t colocation;                // nodes of one group run on one device; 0: none
    float criticality;                  // 0 to 1: share of the plan's longest path that goes through the node
    double flops, bytes;                // at the sizes it was annotated with
};

struct srg_annotations {
    uint32_t nodes, inputs;
    uint8_t phase, modality, confidence;    // of the plan as a whole
    struct srg_annotation *node;            // nodes
    uint8_t *input_residency;               // inputs: enum srg_residency
};

const char *phase_name(enum srg_phase phase);               // "llm_decode"
const char *residency_name(enum srg_residency residency);   // "stateful_kv_cache"
const char *modality_name(enum srg_modality modality);
const char *role_name(enum srg_role role);

#endif
