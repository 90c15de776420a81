// Interpreter: runs the steps of a recovery on a worker that is a set of values, and fails the test at the first step that a worker could
// not take or that makes another value than the undisturbed run did.

#ifndef TESTS_CORE_LINEAGE_INTERPRETER_H
#define TESTS_CORE_LINEAGE_INTERPRETER_H

#include "tests/core/lineage/world.h"

struct interpreter {
    const struct world *world;
    bool holds[WORLD_EVENTS_MAX][WORLD_OUTPUTS_MAX];
    struct hash128 value[WORLD_EVENTS_MAX][WORLD_OUTPUTS_MAX];
    uint8_t way[WORLD_EVENTS_MAX][WORLD_OUTPUTS_MAX];            // enum world_way by which it came
    int32_t ended[WORLD_EVENTS_MAX][WORLD_OUTPUTS_MAX];          // 1 + step that ended it; 0: none did
    int32_t used[WORLD_EVENTS_MAX][WORLD_OUTPUTS_MAX];           // 1 + the last step that used it
    bool could_donate[WORLD_EVENTS_MAX][WORLD_OUTPUTS_MAX];      // of that step: it took it over originally
    bool was_donated[WORLD_EVENTS_MAX][WORLD_OUTPUTS_MAX];
    uint64_t counter;
    uint32_t part, steps, donations;
};

void interpreter_start(struct interpreter *interpreter, const struct world *world);    // the target, as it is
void interpreter_step(struct interpreter *interpreter, const struct recovery_step *step);
// At the end: what was asked for is there with its value and came by the oracle's way, nothing else came and stayed, nothing stayed
// longer than it was used, and what could be donated was.
void interpreter_end(const struct interpreter *interpreter, const struct world_question *question, const struct world_answer *answer);

#endif
