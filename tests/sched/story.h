// Story: a session's lineage for the head's tests: one execution that starts from a leaf, then steps that each make a value of the one
// before and end it, as a worker journals them: deltas against the records before, plans first. The counters are 1, 2, 3, ... Each has a
// bound scalar that no extrapolation predicts, so that a record decodes only against the right vectors.

#ifndef TESTS_SCHED_STORY_H
#define TESTS_SCHED_STORY_H

#include "core/lineage/recovery.h"
#include "tests/lib/graph.h"
#include "tests/sched/rig.h"

struct story {
    struct rig *rig;
    uint64_t session;
    uint32_t epoch;
    uint64_t made;              // counter of the last execution
    uint64_t journalled;        // number of the last record told
    struct story_plan {
        struct graph_result graph;
        struct binding_history history;
        uint64_t last, before;  // the chain's last counters
        uint32_t scalar;        // its word
    } begin, step;
    bool keeps;                 // steps do not end what they were made of
    bool is_alone;              // what follows is told by somebody without a history: each delta stands alone
    bool begins;                // what follows starts from a leaf too, and ends nothing
};

struct story *story_make(void **state, struct rig *rig);
// A client with a session, granted on whatever worker the head chooses, which must be one of `worker` (admits it). Returns the client's
// link.
uint64_t story_open(struct story *story, const char *name, const uint64_t *worker, uint32_t workers);
// Runs `count` more executions and journals them on `link`.
void story_run(struct story *story, uint64_t link, uint32_t count);
void story_journal(struct story *story, uint64_t link, const struct record *record);    // one record of any kind
// Asks for (counter, output 0) on the worker of that incarnation.
void story_recover(struct story *story, uint64_t client, uint64_t counter, uint64_t target, uint64_t lost, uint64_t absent);
// The answer on `client`: its steps counted by kind, false when there is none (yet). Fails the test when it is a FAILED.
struct story_steps { uint32_t all, replays, fetches, restores; uint64_t first; };
bool story_recovery(struct story *story, uint64_t client, struct story_steps *ret);

#endif
