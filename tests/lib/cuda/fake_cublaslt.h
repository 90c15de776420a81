// Fake cuBLASLt: products on this machine's memory, one number after the other, as the descriptors say (types, layouts, batches,
// transposition, epilogue, alpha and beta). It refuses with CUBLAS_INVALID_VALUE what the library refuses: leading dimensions that are
// too small, sizes that do not fit, an algorithm that was found for other descriptors, a workspace that is smaller than it wants,
// pointers less aligned than promised. One thread.

#ifndef TESTS_LIB_CUDA_FAKE_CUBLASLT_H
#define TESTS_LIB_CUDA_FAKE_CUBLASLT_H

#include <stdbool.h>
#include <stdint.h>

#include "gpu_worker/kernels/cuda/cublaslt.h"

enum { FAKE_CUBLASLT_VERSION = 130100, FAKE_CUBLASLT_WORKSPACE = 1024 };

struct fake_cublaslt_state {
    uint64_t calls;             // of functions that return a status, but those that destroy
    uint64_t heuristics, products;
    int64_t live;               // objects made and not destroyed
    uint64_t fail_at;           // the call of this number, from 1, fails with `fail_status`; 0: none
    int fail_status;
    bool finds_nothing;         // the heuristic knows no algorithm
    int last_compute;           // of the product before
    uint32_t last_epilogue;
};

// State and calls are of the process; reset between tests.
extern struct fake_cublaslt_state fake_cublaslt;
void fake_cublaslt_reset(void);
const struct cublaslt_api *fake_cublaslt_api(void);

#endif
