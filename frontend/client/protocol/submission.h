// Submission: one execution as the recorder hands it to the protocol: a plan and what it leaves open, before any encoding.
// Everything it points to is borrowed for the call; the protocol copies or holds what it keeps.

#ifndef FRONTEND_CLIENT_PROTOCOL_SUBMISSION_H
#define FRONTEND_CLIENT_PROTOCOL_SUBMISSION_H

#include <stdint.h>

#include "core/srg/plan.h"
#include "frontend/client/protocol/leaf.h"

struct released {
    uint64_t counter;    // of the execution that made it
    uint32_t output;     // flat
};

struct submission {
    uint32_t place;      // where it runs (protocol_place)
    uint64_t counter;    // grows over all submissions and imports of the session
    struct srg_plan *plan;
    uint32_t plan_number;               // dense; a number may name another plan later, which the fingerprint tells
    const int64_t *word;                // plan->words
    const uint8_t *kept, *donated;      // bitmasks over flat outputs and inputs
    const uint32_t *answers;            // flat outputs wanted at once
    const struct released *released;    // handles of this place that nobody needs any more
    struct leaf *const *leaves;         // the leaf inputs
    uint32_t answers_count, released_count, leaves_count;
    void *tag;    // comes back with the outcome
};

#endif
