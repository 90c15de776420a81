// Allocation failure as an input. In every test program malloc, calloc, realloc, aligned_alloc and posix_memalign, called from code of
// this tree, go through a wrapper; a library in a shared object of its own is not affected.
//
// The sweep: every allocation of a piece of code fails once, and each time nothing may leak, crash or be half done.
//
//     for (uint64_t n = 0, more = 1; more; n++) {
//         alloc_fail_after(n);
//         enum dj_error error = thing_make(&thing);
//         more = alloc_fail_stop();
//         assert_error(more ? DJ_E_NO_MEMORY : DJ_OK, error);
//     }

#ifndef TESTS_LIB_ALLOC_FAIL_H
#define TESTS_LIB_ALLOC_FAIL_H

#include <stdbool.h>
#include <stdint.h>

// From now on, in this thread, `n` allocations succeed and all later ones fail, until alloc_fail_stop().
void alloc_fail_after(uint64_t n);

// Allocations succeed again; true if any failed since alloc_fail_after(). Does nothing when it is not armed.
bool alloc_fail_stop(void);

// How many allocations this thread has asked for so far: a hot path's count must not change.
uint64_t alloc_count(void);

#endif
