// Plan: the structure of a piece of SRG: ops, topology, dtypes, ranks, static attributes. Sizes and every other bound number live
// in the bindings (bindings.h). Immutable once finished; named by its fingerprint, which covers exactly the structure.
//
// Words (int64 slots of a binding vector), in this order:
//   for each external input:  2 words of identity (leaf: content hash hi, lo; handle: counter distance, flat output)
//                             rank words of sizes; and, if the input is not contiguous, rank words of strides
//   for each node:            for each scalar reference among its inputs, 1 word (its 64 bits)
//                             for each bound attribute that is present, 1 word (int, bool, float bits), or `count` words (ints)
// Flat outputs: node outputs numbered through the plan in node order (node n's output o is first_output + o).

#ifndef CORE_SRG_PLAN_H
#define CORE_SRG_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/codec.h"
#include "core/base/error.h"
#include "core/base/hash.h"
#include "core/ops/op.h"

enum {
    PLAN_NODES_MAX = 1 << 16,
    PLAN_REFS_MAX = 1 << 18,
    PLAN_INPUTS_MAX = 1 << 15,
    PLAN_WORDS_MAX = 1 << 20,
    PLAN_MODULES_MAX = 1 << 14,
    PLAN_BYTES_MAX = 16 << 20,          // encoded
};

enum srg_ref_kind { REF_ABSENT = 0, REF_NODE = 1, REF_INPUT = 2, REF_SCALAR = 3 };

struct srg_ref {
    uint8_t kind;                       // enum srg_ref_kind
    uint8_t dtype;                      // REF_SCALAR: DTYPE_BOOL, DTYPE_I64 or DTYPE_F64
    uint8_t output;                     // REF_NODE: which output of the node
    uint32_t index;                     // REF_NODE: node (always an earlier one); REF_INPUT: external input
};

struct srg_node {
    uint16_t op;                        // enum op
    uint8_t outputs;                    // == op_info->outputs
    uint8_t dtype[OP_OUTPUTS_MAX];      // result dtypes, decided when recorded
    uint32_t first_ref, refs;           // into plan->ref
    uint32_t first_attr;                // into plan->attr: op_info->attrs entries
    uint32_t first_word;                // into the binding words
    uint32_t first_output;              // flat number of output 0
    uint16_t module;                    // into plan->module (0: outside every module); not part of the fingerprint
    uint8_t device;                     // index of the pool device it was recorded for; 255: the head chooses
};

// The static side of an attribute: kind and count always; the value only when the attribute is static.
struct srg_attr {
    uint8_t kind;                       // enum attr_kind
    uint8_t count;
    bool is_bound;
    uint32_t first;                     // static: into plan->constant, 1 or `count` values (floats as bits); bound: into the words
};

struct srg_input {
    bool is_leaf;                       // named by content; else a handle
    bool is_contiguous;                 // else its strides are bound too
    uint8_t dtype;
    uint8_t rank;
    uint8_t device;
    uint32_t first_word;
};

struct srg_module {                     // annotation material: where in the program a node was recorded
    const char *path;                   // "transformer.h.0.attn"
    const char *type;                   // "GPT2Attention"
    bool is_training;
};

struct srg_plan {
    struct hash128 fingerprint;
    uint32_t nodes, refs, attrs, constants, inputs, outputs, words, modules;
    struct srg_node *node;
    struct srg_ref *ref;
    struct srg_attr *attr;
    int64_t *constant;
    struct srg_input *input;
    struct srg_module *module;          // module[0] is {"", "", false}
    struct arena *arena;                // owns everything above
    uint32_t holders;                   // reference count; one thread
};

// Building, in record order. The builder copies what it is given. Every add_* returns an index or fails (DJ_E_LIMIT,
// DJ_E_NO_MEMORY, DJ_E_INVALID), after which only plan_builder_free is allowed.
struct plan_builder;
DJ_MUST_USE enum dj_error plan_builder_make(struct plan_builder **ret);
void plan_builder_free(struct plan_builder *builder);                           // NULL is allowed
void plan_builder_reset(struct plan_builder *builder);                          // keeps the memory
DJ_MUST_USE enum dj_error plan_add_input(struct plan_builder *builder, const struct srg_input *input, uint32_t *ret_index);
DJ_MUST_USE enum dj_error plan_add_module(struct plan_builder *builder, const char *path, const char *type, bool is_training,
                                          uint16_t *ret_index);                 // finds an equal one first
// `attr` gives kinds, counts and (for static ones) values; bound values are ignored here.
DJ_MUST_USE enum dj_error plan_add_node(struct plan_builder *builder, const struct op_info *op, const struct srg_ref *ref,
                                        uint32_t refs, const struct attr *attr, const uint8_t dtype[OP_OUTPUTS_MAX],
                                        uint16_t module, uint8_t device, uint32_t *ret_index);
// The fingerprint of what was added so far, without finishing (for a look-up in a plan cache). O(1): it was folded as it grew.
struct hash128 plan_builder_fingerprint(const struct plan_builder *builder);
// Validates and freezes. The plan has one holder.
DJ_MUST_USE enum dj_error plan_finish(struct plan_builder *builder, struct srg_plan **ret, struct fault *fault);

struct srg_plan *plan_hold(struct srg_plan *plan);
void plan_drop(struct srg_plan *plan);                                          // frees at the last holder; NULL is allowed

// Protocol Buffers schema v1 (core/srg/srg.proto); decoding validates everything (bounds, topological order, op table, attribute
// kinds) and recomputes the fingerprint. Malformed: DJ_E_PLAN_INVALID, unknown op: DJ_E_OP_UNKNOWN (named in the fault).
DJ_MUST_USE enum dj_error plan_encode(const struct srg_plan *plan, struct writer *writer);
DJ_MUST_USE enum dj_error plan_decode(const void *bytes, size_t length, struct srg_plan **ret, struct fault *fault);

// The same as JSON, for people and other tools; `djinn srg export|import`. plan_from_json validates like plan_decode.
DJ_MUST_USE enum dj_error plan_to_json(const struct srg_plan *plan, struct writer *writer);
DJ_MUST_USE enum dj_error plan_from_json(const char *text, size_t length, struct srg_plan **ret, struct fault *fault);

#endif
