// Recovery: which steps bring lost values to a worker: the smallest part of a session's lineage (docs/recovery.md, "The plan of a
// recovery").
//
// Idea: the caller collects what is known (plans, records, checkpoints, who holds what), names what is needed, and gets steps in the
// order of their counters. Records are decoded once, on the way in: bindings are deltas, so a session's records are added in the order of
// their counters, from one whose chain starts. Then a walk from the latest execution back marks what is needed, output by output; a walk
// forward writes the steps and sees what each replayed value is used for last.
//
// Pure; one thread; made on one and used up on another (a COMPUTE). Bounded by the limits of recovery_make.

#ifndef CORE_LINEAGE_RECOVERY_H
#define CORE_LINEAGE_RECOVERY_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/arena.h"
#include "core/base/codec.h"
#include "core/base/error.h"
#include "core/lineage/handle.h"
#include "core/lineage/record.h"
#include "core/srg/plan.h"

struct recovery;

enum { RECOVERY_RECORDS_MAX = 1 << 21, RECOVERY_PLANS_MAX = 4096, RECOVERY_STEPS_MAX = 1 << 20 };
#define RECOVERY_BYTES_MAX ((uint64_t)1 << 31)    // of everything it decodes

// One session's. DJ_E_NO_MEMORY.
DJ_MUST_USE enum dj_error recovery_make(uint64_t session, struct recovery **ret);
void recovery_free(struct recovery *recovery);    // NULL is allowed

// What is known. `bytes` are as stored (record_write), and are copied where they are needed later. A plan comes before the records that
// name it. EXECUTION and IMPORT records in the order of their counters; a record whose plan or base is missing is remembered as not
// replayable, with the reason, and is no error here. DJ_E_MALFORMED, DJ_E_LIMIT, DJ_E_NO_MEMORY; DJ_E_INVALID: out of order or of another
// session.
DJ_MUST_USE enum dj_error recovery_add(struct recovery *recovery, const void *bytes, size_t length);
// `incarnation` holds the handle. With no location at all a handle is lost.
DJ_MUST_USE enum dj_error recovery_add_location(struct recovery *recovery, struct record_ref handle, uint64_t incarnation);

struct recovery_options {
    uint64_t target;          // the incarnation that the values are wanted on
    uint32_t numerics;        // its numerics class
    bool allows_close;        // records of other classes may be replayed all the same
};

// Names a needed handle; each once.
DJ_MUST_USE enum dj_error recovery_need(struct recovery *recovery, struct record_ref handle);
// The bytes of a leaf (of a replica's piece) are still with some worker, or not. Called by the planner; NULL: every replica counts as gone.
typedef bool (*recovery_has_leaf)(void *context, struct hash128 content);

enum recovery_step_kind {
    STEP_REPLAY = 1,    // run the record's execution again
    STEP_RESTORE,       // put the pieces, or the recorded bytes, together
    STEP_FETCH,         // import it from a worker that holds it, under its own name
    STEP_COPY,          // an import's value: a copy of its source under its own name
};

struct recovery_input {    // a handle input of a replay
    uint32_t input;
    struct record_ref handle;
};

// One step. What it points to is the recovery's (planning) or the decode arena's.
struct recovery_step {
    uint8_t kind;
    uint64_t counter;
    uint32_t part;                // 0, 1, ... within the counter
    uint32_t output;              // RESTORE, FETCH, COPY: of the handle
    uint64_t cost_ns;             // REPLAY: as it took first
    // REPLAY
    struct hash128 plan;          // its bytes come in an earlier RECORD_PLAN of the encoding
    uint32_t words;
    const int64_t *word;
    const uint8_t *keep, *donate;    // bits over flat outputs and inputs
    uint32_t keep_bytes, donate_bytes;
    // RESTORE: either pieces (record.h) or the bytes themselves
    struct tensor_meta meta;      // contiguous; also COPY
    uint32_t dim, pieces;
    const uint8_t *piece;
    uint32_t piece_bytes;
    const uint8_t *fact;          // RECORD_ANSWER_BYTES_MAX at most; NULL: pieces
    uint32_t fact_bytes;
    // FETCH
    uint64_t from;                // incarnation
    // COPY
    struct record_ref source;
    // What nobody needs after this step.
    const struct record_ref *released;
    uint32_t releases;
};

struct recovery_sum {
    uint32_t steps, replays, restores, fetches;
    uint64_t cost_ns;             // of the replays, as they took first
    uint64_t restored_bytes;
};

// Plans. DJ_E_LINEAGE: something needed can be brought back by nothing; the fault names the handle, the ancestor that is missing, and why.
DJ_MUST_USE enum dj_error recovery_plan(struct recovery *recovery, const struct recovery_options *options, recovery_has_leaf has_leaf,
                                        void *context, struct recovery_sum *ret, struct fault *fault);
// After recovery_plan: the steps, by index; valid until the next call here. Quick when asked for in order: words are decoded as they are
// looked at. NULL: out of memory.
const struct recovery_step *recovery_step_at(struct recovery *recovery, uint32_t index);

// The steps as they travel in RECOVERY messages: from step *from (0 at first) as many as fit in `max_bytes`, at least one; RECORD_PLANs
// of plans that were not in an earlier part come before the step that needs them. Moves *from on. Each part decodes alone but for the
// plans.
DJ_MUST_USE enum dj_error recovery_encode(struct recovery *recovery, uint32_t *from, size_t max_bytes, struct writer *writer,
                                          uint32_t *ret_steps);

// Reading a part: plans and steps in order. Set `reader`, `arena` and `scratch`; each part has a reader of its own, its `part` NULL. What
// steps point to is in the arena (at most some 64 MiB a part, and the bytes read). Masks have at least one byte, so that none is taken
// for "as before". What only the plan can tell (how many words, inputs and outputs it has) is checked by whoever has it.
struct recovery_reading;
struct recovery_reader {
    struct reader reader;
    struct arena *arena;    // of words and lists; reset by the caller between parts at the earliest
    struct record_scratch *scratch;
    struct recovery_reading *part;
};
enum recovery_item { RECOVERY_END, RECOVERY_PLAN, RECOVERY_STEP, RECOVERY_BAD };
// Hostile until checked: RECOVERY_BAD with reader.error set.
enum recovery_item recovery_next(struct recovery_reader *reader, struct record_plan *ret_plan, struct recovery_step *ret_step);

// Small plans that steps need: `cat` of `pieces` leaves along `dim` (one piece: a copy), and a copy of a handle. The only output is flat
// 0 (of the only node). `words` has plan->words entries; RESTORE's leaves are set with binding_set_leaf and binding_set_meta by these
// functions.
DJ_MUST_USE enum dj_error recovery_restore_plan(const struct recovery_step *step, struct hash128 fact_content, struct srg_plan **ret,
                                                int64_t **ret_word, struct fault *fault);    // *ret_word malloc'd
DJ_MUST_USE enum dj_error recovery_copy_plan(const struct recovery_step *step, struct srg_plan **ret, int64_t **ret_word,
                                             struct fault *fault);

// Trim: what of the added records no live handle reaches any more. `live` as named with recovery_need; checkpoints in the store end the
// walk. The ends of chains stay by themselves, with the record before each: records to come build on them. recovery_keep: this record stays
// as well, and decodes as it did, whatever its inputs come to.
DJ_MUST_USE enum dj_error recovery_keep(struct recovery *recovery, uint64_t counter);    // one that was not added: nothing
// Visits each record to delete (bytes NULL), and each to write anew, standing alone, where what its delta refers to goes.
// Deletions and rewritings are one whole: apply all or none. Plans are not visited: they are everybody's.
typedef enum dj_error (*recovery_trim_visit)(void *context, const struct record *record, const uint8_t *bytes, size_t length);
DJ_MUST_USE enum dj_error recovery_trim(struct recovery *recovery, recovery_trim_visit visit, void *context);

// Explain: for one needed handle, after recovery_plan (options.target 0: as if nobody held it): how it came to be, as JSON.
DJ_MUST_USE enum dj_error recovery_explain(struct recovery *recovery, struct record_ref handle, struct writer *json);

#endif
