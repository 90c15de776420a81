// Failure: what a kernel may find wrong with the values that it was given, and the words in which every backend says it. Of several wrong
// values of a task the first in memory is named, so that the words do not depend on who looked first.

#ifndef GPU_WORKER_KERNELS_FAILURE_H
#define GPU_WORKER_KERNELS_FAILURE_H

enum failure {
    FAILURE_NONE,
    FAILURE_INDEX,              // `value` is not in [0, size), or in [-size, size) where indices may wrap
    FAILURE_CLASS,              // `value` is no class
    FAILURE_WINDOW,             // `value` is a place outside its window
    FAILURE_DIVISOR,            // integers are divided by zero
    FAILURE_PROBABILITIES,      // negative, infinite, NaN, or nothing but zeros
};

#ifndef __cplusplus             // device code has the names only
#include <stdint.h>

#include "core/base/error.h"

static inline enum dj_error failure_say(struct fault *fault, enum failure failure, const char *op, int64_t value, int64_t size)
{
    switch (failure) {
    case FAILURE_INDEX:
        return fault_set(fault, DJ_E_INDEX, "%s: index %lld is out of range for a dimension of size %lld", op, (long long)value,
                         (long long)size);
    case FAILURE_CLASS: return fault_set(fault, DJ_E_INDEX, "Target %lld is out of bounds.", (long long)value);
    case FAILURE_WINDOW: return fault_set(fault, DJ_E_INDEX, "%s: index %lld lies outside of its window", op, (long long)value);
    case FAILURE_DIVISOR: return fault_set(fault, DJ_E_INVALID, "%s: integer division by zero", op);
    case FAILURE_PROBABILITIES:
        return fault_set(fault, DJ_E_INVALID, "%s: probabilities must be finite, not negative and not all 0", op);
    case FAILURE_NONE: break;
    }
    return fault_set(fault, DJ_E_INTERNAL, "%s: a failure of an unknown kind (%d)", op, (int)failure);
}
#endif

#endif
