// Semantic: what a plan means. Fills the annotations of a plan (core/srg/annotation.h) from its structure, the sizes of one execution
// and the module paths that the program gave: phase, modality, residency, role, colocation, cost, criticality, confidence.
//
// The rules are a table (semantic.c) of patterns, each in its own file (pattern_*.c). A pattern claims; the claim with the highest
// confidence wins; below CONFIDENCE_SURE percent the plan's phase stays PHASE_UNKNOWN and a warning says what was nearly found.
//
// Pure and deterministic; linear in nodes and references; any thread.

#ifndef CORE_SEMANTIC_SEMANTIC_H
#define CORE_SEMANTIC_SEMANTIC_H

#include <stdint.h>

#include "core/base/arena.h"
#include "core/base/error.h"
#include "core/srg/annotation.h"
#include "core/srg/plan.h"

enum { CONFIDENCE_SURE = 70, SEMANTIC_WARNING_MAX = 160 };

struct semantic_input {
    const struct srg_plan *plan;
    const int64_t *word;              // plan->words
    const struct tensor_meta *out;    // plan->outputs, as plan_infer gave them for these words
    const uint8_t *keep;    // one bit a flat output: it outlives the execution; NULL: not known, assume what nobody reads
};

// Annotates. The arrays of *ret live in `arena`. `warning` (NULL is allowed; SEMANTIC_WARNING_MAX bytes) gets a sentence when the plan
// was not classified with confidence, else "". DJ_E_NO_MEMORY; DJ_E_BINDINGS_INVALID when an input's sizes are not valid.
DJ_MUST_USE enum dj_error semantic_annotate(const struct semantic_input *input, struct arena *arena, struct srg_annotations *ret,
                                            char *warning, struct fault *fault);

#endif
