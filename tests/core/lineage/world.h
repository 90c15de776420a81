// World: a session's random history for tests of recovery: plans, executions with donations in two places, imports, answers, checkpoints,
// locations, and the records of it as a store would have them, with gaps and damage. Values are 16 bytes that follow from everything that
// went into them, so that a value made in any wrong way is another one.
//
// The oracle says by the rules of docs/recovery.md, recursively and from what the generator knows (never from records), how each value
// comes back.

#ifndef TESTS_CORE_LINEAGE_WORLD_H
#define TESTS_CORE_LINEAGE_WORLD_H

#include "core/base/prng.h"
#include "core/lineage/recovery.h"
#include "tests/lib/graph.h"

enum {
    WORLD_PLANS = 6,
    WORLD_EVENTS_MAX = 400,
    WORLD_INPUTS_MAX = 4,
    WORLD_OUTPUTS_MAX = 4,
    WORLD_WORKERS = 4,    // incarnations 1 to 4; 1 is the target
    WORLD_TARGET = 1,
    WORLD_NUMERICS = 7,
    WORLD_SESSION = 17,
    WORLD_VALUE_BYTES = 16,
};

struct world_value {
    struct hash128 bits;
    bool exists;               // was kept, or imported
    bool is_live;
    bool is_fact, is_checkpoint, is_replica, has_leaves;
    uint32_t pieces;
    uint8_t rows[4];
    uint8_t at;                // bits: workers that hold it
};

// An execution or an import.
struct world_event {
    uint64_t counter;
    bool is_import, is_dropped, is_damaged, is_alone;    // the record: absent, with a wrong check, standing alone
    uint32_t plan, place;
    int64_t *word;
    int32_t base, before;      // events whose vectors the delta refers to; -1: none
    int32_t stored_base;       // what the record says
    uint32_t inputs;
    struct { int32_t event; uint32_t output; bool is_donated; } input[WORLD_INPUTS_MAX];
    struct world_value output[WORLD_OUTPUTS_MAX];
    uint32_t numerics;
    uint64_t cost_ns;
};

struct world {
    struct graph_result plan[WORLD_PLANS];
    uint32_t alpha[WORLD_PLANS];    // a bound word of each plan that is different in every execution
    uint32_t events;
    struct world_event event[WORLD_EVENTS_MAX];
    struct stored { uint8_t *bytes; size_t length; int32_t event; uint32_t output; } stored[4 * WORLD_EVENTS_MAX];
    uint32_t records;
};

struct world_options {
    uint32_t events;
    bool is_whole;     // no gaps, no damage, one numerics class
    bool is_narrow;    // mostly one plan, in long turns of two places, and often the client's record in place of the worker's
};

struct world *world_make(struct prng *prng, struct world_options options);    // aborts when memory runs out
void world_free(void *world);

// What executing gives: from the plan, its words but for names of handles, and the values of its handle inputs in order.
struct hash128 world_evaluate(const struct srg_plan *plan, const int64_t *word, const struct hash128 *input, uint32_t output);
int32_t world_plan_of(const struct world *world, struct hash128 fingerprint);
int32_t world_event_of(const struct world *world, uint64_t counter);
// The bytes of a checkpoint's piece by their name.
bool world_leaf(const struct world *world, struct hash128 content, uint8_t *ret, uint64_t *ret_bytes);
bool world_has_leaf(void *world, struct hash128 content);    // recovery_has_leaf: of replicas
void world_load(const struct world *world, struct recovery *recovery);    // records and locations; aborts on an error

// The oracle. Ways, by value; `needed` and the rest of the question are in the struct.
enum world_way { BY_NONE = 0, BY_HELD, BY_FETCH, BY_PIECES, BY_FACT, BY_REPLAY, BY_COPY };
struct world_answer {
    bool is_possible;
    uint8_t way[WORLD_EVENTS_MAX][WORLD_OUTPUTS_MAX];
    bool is_asked[WORLD_EVENTS_MAX][WORLD_OUTPUTS_MAX];    // needed, or an input of what is run again
    bool is_reached[WORLD_EVENTS_MAX];                     // its record is used
};
struct world_question {
    bool needs[WORLD_EVENTS_MAX][WORLD_OUTPUTS_MAX];
    bool allows_close;
    bool is_trim;    // nothing is held, replicas do not count, numerics does not matter, nothing fails
};
void world_ask(const struct world *world, const struct world_question *question, struct world_answer *ret);
bool world_decodes(const struct world *world, int32_t event);

#endif
