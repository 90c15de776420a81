// A plain interpreter of plans, for tests: every value is doubles in the layout of its logical strides; views are pointers; no memory is
// ever reused. It stands for a worker: it keeps handles, forgets what is donated and released, and complains about what it does not have.

#ifndef TESTS_FRONTEND_CLIENT_PLAN_EVAL_H
#define TESTS_FRONTEND_CLIENT_PLAN_EVAL_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/hash.h"
#include "core/ops/tensor.h"
#include "frontend/client/protocol/submission.h"

enum { EVAL_HANDLES_MAX = 4096 };

struct eval_value { struct tensor_meta meta; double *data; };      // data: in the arena, tensor_span elements

struct eval_handle { uint64_t counter; uint32_t output; struct eval_value value; };

struct eval {
    struct arena *arena;
    struct eval_handle handle[EVAL_HANDLES_MAX];
    uint32_t handles;
    uint32_t donated, released, nodes;      // counted over all executions
};

// Runs a submission; fails the test on anything a worker would refuse. Answers (row-major float64) go to answer[i], in the arena.
void eval_run(struct eval *eval, const struct submission *submission, double **answer);
const struct eval_handle *eval_find(const struct eval *eval, uint64_t counter, uint32_t output);    // NULL: none
void eval_release(struct eval *eval, const struct released *released, uint32_t count);
// Row-major copy, in the arena.
double *eval_row_major(struct eval *eval, const struct eval_value *value);

#endif
