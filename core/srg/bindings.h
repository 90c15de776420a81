// Bindings: what a plan leaves open, for one execution: a vector of words (laid out as plan.h says), which outputs are kept, which
// inputs are donated. Sent as a delta against the vectors before it, so that a step like the last one costs a few bytes.

#ifndef CORE_SRG_BINDINGS_H
#define CORE_SRG_BINDINGS_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/codec.h"
#include "core/base/error.h"
#include "core/ops/op.h"
#include "core/srg/plan.h"

// Reading and writing words (no checks beyond asserts: the vector has plan->words words).
struct hash128 binding_leaf(const struct srg_plan *plan, const int64_t *word, uint32_t input);
void binding_set_leaf(const struct srg_plan *plan, int64_t *word, uint32_t input, struct hash128 content);
// A handle input: the execution `distance` (>= 1) before this one in the session made it, as flat output `output`.
void binding_handle(const struct srg_plan *plan, const int64_t *word, uint32_t input, uint64_t *ret_distance, uint32_t *ret_output);
void binding_set_handle(const struct srg_plan *plan, int64_t *word, uint32_t input, uint64_t distance, uint32_t output);
void binding_set_meta(const struct srg_plan *plan, int64_t *word, uint32_t input, const struct tensor_meta *meta);
// The input's metadata as bound; checked by tensor_check, so hostile sizes are refused here.
DJ_MUST_USE enum dj_error binding_meta(const struct srg_plan *plan, const int64_t *word, uint32_t input, struct tensor_meta *ret,
                                       struct fault *fault);
// All attributes of a node, static and bound together; ints point into `word` or the plan. attr has OP_ATTRS_MAX entries.
void binding_attrs(const struct srg_plan *plan, const int64_t *word, uint32_t node, struct attr *attr);
// The bits of the k-th reference of `node`, which must be a REF_SCALAR.
int64_t binding_scalar(const struct srg_plan *plan, const int64_t *word, uint32_t node, uint32_t ref);
// Writes a node's bound words from full attributes and the scalars among its references, in order.
void binding_set_node(const struct srg_plan *plan, int64_t *word, uint32_t node, const struct attr *attr, const int64_t *scalars);

// Infers every output of the plan for these words: out has plan->outputs entries, offset (may be NULL) gets view offsets.
// The worker's and the client's shared truth. DJ_E_BINDINGS_INVALID / DJ_E_SHAPE ... with the node named in the fault; *ret_node
// (may be NULL) gets its index.
DJ_MUST_USE enum dj_error plan_infer(const struct srg_plan *plan, const int64_t *word, struct tensor_meta *out, int64_t *offset,
                                     uint32_t *ret_node, struct fault *fault);

// Delta coding. History: the last two vectors of the same plan on the same stream; a word is predicted as linear extrapolation
// (2a - b) of the last two, as the last one when there is only one, and as 0 at the start. Only mispredicted words are written.
// Both ends push each vector after coding it.
struct binding_history {
    uint32_t words;
    uint8_t depth;                      // 0, 1, 2: how many vectors are known
    int64_t *last, *before;             // malloc'd on first push
};

void history_init(struct binding_history *history, uint32_t words);
void history_free(struct binding_history *history);
void history_reset(struct binding_history *history);                            // forget: the next delta stands alone
void bindings_encode(const struct binding_history *history, const int64_t *word, struct writer *writer);
// Reconstructs into word[history->words]; DJ_E_BINDINGS_INVALID on anything that does not fit.
DJ_MUST_USE enum dj_error bindings_decode(const struct binding_history *history, struct reader *reader, int64_t *word);
DJ_MUST_USE enum dj_error history_push(struct binding_history *history, const int64_t *word);

#endif
