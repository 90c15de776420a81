// Recovery, inside: what recovery.h's functions share. Of nobody else's concern.
//
// Known records lie in one array in the order of their counters; a value is made when somebody names it (a need, a location, a
// checkpoint, an input of what is to run again). Bindings are decoded chain by chain, each from its start, by a cursor that remembers the
// last two vectors; of what was decoded only the handle inputs stay, so that memory grows with what is looked at and not with the words.

#ifndef CORE_LINEAGE_RECOVERY_INTERNAL_H
#define CORE_LINEAGE_RECOVERY_INTERNAL_H

#include "core/base/list.h"
#include "core/base/map.h"
#include "core/lineage/recovery.h"
#include "core/srg/bindings.h"

enum {
    RECOVERY_VALUES_MAX = 1 << 26,
    RECOVERY_ENDS_MAX = 256,    // chains of a plan that records to come may go on with
    RECOVERY_NEST_MAX = 64,              // chains that are decoded for the sake of one another, at once
    RECOVERY_EFFORT_MAX = 1 << 17,       // records that are decoded for one that needs other chains
};
#define RECOVERY_CURSOR_BYTES ((uint64_t)256 << 20)         // of all open cursors together
#define RECOVERY_PART_WORD_BYTES ((uint64_t)64 << 20)       // of one part of the encoding, decoded
#define RECOVERY_NONE UINT32_MAX

// Why something cannot be brought back; the words are in recovery_plan.c.
enum why {
    WHY_NOT = 0,
    WHY_NO_RECORD,
    WHY_NO_PLAN,
    WHY_PLAN_BAD,
    WHY_NO_BASE,
    WHY_BROKEN,      // of its chain, something does not decode
    WHY_CHECK,
    WHY_TANGLED,
    WHY_INPUT,
    WHY_OUTPUT,
    WHY_IMPORT,
    WHY_NUMERICS,
    WHY_SHAPE,
};

enum known_state { KNOWN_RAW = 0, KNOWN_DECODED, KNOWN_BAD };

struct known_plan {
    struct hash128 fingerprint;
    const uint8_t *bytes;
    size_t length;
    struct srg_plan *plan;     // decoded when first needed
    uint32_t *handle_input;    // those of its inputs that are handles
    uint32_t handle_inputs;
    uint32_t first_step;       // of those planned
    uint32_t ends;             // trim: of its chains, that stay
    bool is_bad;
    uint32_t in_part;          // encoding: 1 + its number in the part; 0: not in it
    struct binding_history history;    // encoding: of the part's steps
};

struct value;

struct input {
    uint32_t input, output;
    uint64_t counter;
    struct value *value;    // set where the walk passed
};

struct cursor {
    struct list used;    // the last used one last
    struct binding_history history;
    uint32_t root, at;
    bool is_busy;
};

struct known {
    uint64_t counter;
    const uint8_t *bytes;
    const uint8_t *delta;
    struct input *input;
    struct value *wanted;       // outputs of it that are to come from it
    struct value *because;      // the first of those that need it to run again
    struct cursor *cursor;      // of the chain that starts here
    struct record_ref source;   // imports
    uint64_t cost_ns;
    uint32_t length, delta_length;
    uint32_t plan;              // RECOVERY_NONE: unknown
    uint32_t prev;              // the record of its base; RECOVERY_NONE: none, or missing
    uint32_t root;              // where its chain starts
    uint32_t before;            // the record of the vector before its base's; RECOVERY_NONE: there was none, or it is missing
    uint32_t effort;            // records to decode for this one, from nothing
    uint32_t inputs;
    uint32_t check, numerics;
    uint32_t output;            // imports
    uint8_t kind, state, why;
    uint8_t nest;               // chains inside one another until it is decoded, beyond its own
    bool has_answers, is_replayed;
    bool stands_alone;
    bool has_next;              // trim: a record that is there was coded against it
    bool is_kept, is_pinned;    // trim; is_pinned: recovery_keep
};

struct location {
    struct location *next;
    uint64_t incarnation;
};

struct checkpoint {
    struct tensor_meta meta;
    uint32_t dim, pieces, piece_bytes;
    const uint8_t *piece;
    bool is_replica;
};

enum way {
    WAY_NONE = 0,
    WAY_HELD,       // on the target already
    WAY_FETCH,
    WAY_RESTORE,    // from pieces
    WAY_FACT,       // from recorded bytes
    WAY_RECORD,     // by its record, which was not looked at yet
    WAY_REPLAY,
    WAY_COPY,
    WAY_LOST,       // trim: by nothing
};

struct value {
    struct record_ref ref;
    struct value *next;           // of all
    struct value *next_wanted;    // of the same record
    struct value *next_made;      // of those that are not held
    struct location *location;
    struct checkpoint *checkpoint;
    struct tensor_meta *meta;     // COPY and FACT: contiguous
    const uint8_t *fact;
    uint64_t from;
    uint32_t fact_bytes;
    uint32_t record;              // RECOVERY_NONE: none
    uint32_t by;                  // the record that needs it; RECOVERY_NONE: the caller does
    uint32_t last_use;            // step
    uint32_t ended;               // step at which it was donated or released, + 1
    uint8_t way;
    bool is_needed;
};

struct planned {
    uint64_t counter;
    uint32_t part;
    uint32_t record;         // REPLAY
    struct value *value;     // the others
    uint8_t *keep, *donate;
    struct record_ref *released;
    uint32_t keep_bytes, donate_bytes, releases;
    uint8_t kind;
};

struct recovery {
    uint64_t session;
    struct arena *arena;    // everything whose size comes from outside, bounded by RECOVERY_BYTES_MAX
    struct map *plans, *values;
    struct known_plan *plan;
    struct known *record;
    struct value *first_value, *made;
    struct record_scratch scratch;
    struct record *parsed;    // room for one
    struct list cursors;
    uint64_t cursor_bytes;
    int64_t *word;            // room for the longest vector of the plans that were decoded
    struct tensor_meta *out;  // likewise, outputs
    uint32_t words, outs;
    uint32_t known_plans, plans_capacity, records, records_capacity;

    const struct recovery_options *options;    // while planning
    recovery_has_leaf has_leaf;
    void *context;
    struct fault *fault;
    bool is_trim;
    uint64_t *ignored;        // incarnations whose values count as gone
    uint32_t ignored_count;

    struct planned *step;
    uint32_t steps;
    struct recovery_sum sum;
    struct recovery_step shown;    // what recovery_step_at gave last
    struct fault planned_fault;    // of the last recovery_plan
};

// recovery.c
void *recovery_alloc(struct recovery *recovery, size_t bytes, enum dj_error *error);    // zeroed; DJ_E_LIMIT, DJ_E_NO_MEMORY
enum dj_error recovery_value(struct recovery *recovery, struct record_ref ref, struct value **ret);    // finds or makes
struct value *recovery_value_find(const struct recovery *recovery, struct record_ref ref);
uint32_t recovery_record_find(const struct recovery *recovery, uint64_t counter, uint32_t hint);
enum dj_error recovery_parse(struct recovery *recovery, uint32_t index);    // into recovery->parsed

// recovery_words.c
enum dj_error recovery_structure(struct recovery *recovery, uint32_t plan, const struct srg_plan **ret);    // NULL: not a plan
// Decodes a record's bindings (once it did, its handle inputs are known); *ret NULL: it does not decode, and record->why says why. The
// words stay until the next call.
enum dj_error recovery_words(struct recovery *recovery, uint32_t index, const int64_t **ret);
void recovery_cursors_free(struct recovery *recovery);

// recovery_walk.c
// Marks how everything that is needed comes back. With is_trim nothing fails: what cannot come back is WAY_LOST.
enum dj_error recovery_walk(struct recovery *recovery);
const char *recovery_why_text(uint8_t why);

#endif
