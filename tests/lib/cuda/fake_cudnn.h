// Fake cuDNN: its backend API for the graphs that we make, computed on this machine's memory.
//
// Descriptors keep what is set and check it as the library does: attributes of the right descriptor, type and count; those that must be
// there when it is finalized; nothing set afterwards; nothing used before. A graph is judged as a whole: sizes that fit, virtual tensors
// made by one operation before others read them, a pattern that has engines. Calls are judged: every tensor of the graph with an address,
// as aligned as promised, a workspace. It refuses with cuDNN's statuses; what the library would leave undefined (a plan that is gone when
// its kernels run) ends the process with a sentence.
//
// Engines, in the order in which the heuristics name them: see enum fake_cudnn_engine. One thread but where `enqueue` runs what it was
// given.

#ifndef TESTS_LIB_CUDA_FAKE_CUDNN_H
#define TESTS_LIB_CUDA_FAKE_CUDNN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gpu_worker/kernels/cuda/cudnn.h"

enum { FAKE_CUDNN_VERSION = 91900, FAKE_CUDNN_WORKSPACE = 4096 };

// Mode A names the first five, the fallback mode the last.
enum fake_cudnn_engine {
    FAKE_CUDNN_UNORDERED,           // not deterministic
    FAKE_CUDNN_LOSSY,               // rounds its inputs
    FAKE_CUDNN_HUGE,                // wants more memory than any workspace has
    FAKE_CUDNN_TENSOR_CORES,        // wants FAKE_CUDNN_WORKSPACE bytes
    FAKE_CUDNN_PLAIN,               // convolutions only
    FAKE_CUDNN_LAST,                // of the fallback; convolutions only
    FAKE_CUDNN_ENGINES,
};

struct fake_cudnn_state {
    uint64_t calls;                 // of functions that return a status, but those that destroy
    uint64_t plans, executions;     // made (but of FAKE_CUDNN_HUGE), asked for
    uint64_t compiled;              // plans that did not find their kernels in a kernel cache
    int64_t live;                   // descriptors and handles made and not destroyed
    uint64_t fail_at;               // the call of this number, from 1, fails with `fail_status`; 0: none
    int fail_status;
    bool finds_nothing;             // the heuristics know no engine
    bool lacks_first;               // mode A names none
    size_t version;                 // that it says it is; 0: FAKE_CUDNN_VERSION
    int last_engine;                // of the newest plan
    // Puts work into the stream; copies the bytes. NULL: it is done at once.
    void (*enqueue)(cuda_stream stream, void (*run)(const void *context), const void *context, size_t bytes);
};

// State and calls are of the process; reset between tests.
extern struct fake_cudnn_state fake_cudnn;
void fake_cudnn_reset(void);
const struct cudnn_api *fake_cudnn_api(void);

#endif
