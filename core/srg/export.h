// Export: plans together with what they mean, for the store, for people and for other tools. The schema is srg.proto; JSON says the
// same in words (docs/srg.md).

#ifndef CORE_SRG_EXPORT_H
#define CORE_SRG_EXPORT_H

#include <stddef.h>
#include <stdint.h>

#include "core/base/arena.h"
#include "core/base/codec.h"
#include "core/base/error.h"
#include "core/srg/annotation.h"
#include "core/srg/plan.h"

enum {
    PLAN_UNPACK_RATIO = 16,            // memory that decoding may take, as a multiple of the encoded length ...
    PLAN_UNPACK_FLOOR = 256 * 1024,    // ... and at least
    PLAN_JSON_BYTES_MAX = 16 << 20,    // of a text that is read
    PLAN_JSON_VALUES_MAX = 1 << 20,    // values in it: a parsed one takes 64 bytes and more
    PLAN_JSON_DEPTH_MAX = 16,
};

// Annotations alone, as the store keeps them beside the plan. Decoded arrays live in `arena`; `nodes` and `inputs` are those of the plan
// that they belong to, and others are refused. DJ_E_PLAN_INVALID.
DJ_MUST_USE enum dj_error annotations_encode(const struct srg_annotations *annotations, struct writer *writer);
DJ_MUST_USE enum dj_error annotations_decode(const void *bytes, size_t length, uint32_t nodes, uint32_t inputs,
                                             struct arena *arena, struct srg_annotations *ret, struct fault *fault);

// A plan with its annotations (NULL: without) in one message, which plan_decode reads too.
DJ_MUST_USE enum dj_error plan_export(const struct srg_plan *plan, const struct srg_annotations *annotations,
                                      struct writer *writer);

// As JSON, with annotations (NULL: without) and the sizes of one execution (words; NULL: without), one line a node.
DJ_MUST_USE enum dj_error plan_export_json(const struct srg_plan *plan, const struct srg_annotations *annotations,
                                           const int64_t *words, struct writer *writer);

#endif
