// Random plans: valid DAGs over about forty ops, with one binding vector each, for round-trip, fuzz and executor tests. Seedable; the
// same seed gives the same plan. Inputs are leaves and handles, contiguous and permuted, some with a size of 0 or 1; there are views,
// chains of cat, scalars, ops with several outputs, absent operands and absent attributes.
//
// Every value is small (RANDOM_PLAN_COUNT_MAX elements). Indices (of embedding, index_select, gather) come from int64 values of any
// origin: whoever runs such a plan must accept an index error as an answer, or fill int64 inputs with 0 and see
// `random_plan_options.is_runnable`, which leaves those ops out.

#ifndef TESTS_LIB_RANDOM_PLAN_H
#define TESTS_LIB_RANDOM_PLAN_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/prng.h"
#include "core/srg/bindings.h"
#include "core/srg/plan.h"

enum { RANDOM_PLAN_COUNT_MAX = 4096 };

struct random_plan_options {
    uint32_t nodes;
    bool is_runnable;    // only ops whose success does not depend on data, fp32 arithmetic
};

struct random_plan {
    struct srg_plan *plan;      // one holder: random_plan_free drops it
    int64_t *word;              // plan->words; handle inputs have distance 1, output = the input's number
    struct tensor_meta *out;    // plan->outputs, as op_infer gave them one by one while building
};

// Aborts when memory runs out: it is a test's tool.
struct random_plan random_plan_make(struct prng *prng, struct random_plan_options options);
void random_plan_free(struct random_plan *random);

#endif
