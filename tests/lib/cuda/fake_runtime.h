// Fake runtime: CUDA's runtime (struct cuda_api) on this machine's memory, for tests of the CUDA device. Kernels run in the emulator.
//
// Nothing happens when it is asked for: copies, fills and launches wait in their streams, and run when somebody asks for an event or waits
// for a stream, a few at a time, in an order of the streams drawn from a seed. Captured streams record, graphs replay what was recorded.
// What a GPU would leave undefined ends the process with a sentence: pageable memory in a copy, memory freed under a queued operation, a
// handle used after its end, an operation outside of every reservation, a thread that never chose its GPU.
//
// One runtime a process; any thread may call it, one at a time is served.

#ifndef TESTS_LIB_CUDA_FAKE_RUNTIME_H
#define TESTS_LIB_CUDA_FAKE_RUNTIME_H

#include <stdbool.h>
#include <stdint.h>

#include "gpu_worker/device/cuda/cuda_device.h"
#include "gpu_worker/kernels/cuda/api.h"

enum { FAKE_RUNTIME_UNKNOWN_ERROR = 999 };      // an error that does not stay

// A new, empty runtime whose GPU has so much memory. Ends the one before.
void fake_runtime_begin(uint64_t seed, uint64_t device_bytes);
// How many things (memory, streams, events, graphs, libraries) were made and not given back; frees them.
uint32_t fake_runtime_end(void);

const struct cuda_api *fake_runtime_api(void);
const struct cuda_image *fake_runtime_images(void);

// Its compute capability, 90 for 9.0, which it is at first.
void fake_runtime_set_capability(int capability);

// The n-th call from now on (1: the next) of `function` (NULL: of any) returns `error`, once. What gives something back does so
// all the same.
void fake_runtime_fail(const char *function, uint64_t nth, int error);
bool fake_runtime_has_failed(void);                     // whether it came to that
// The n-th kernel that runs from now on fails as one that leaves its memory does: from then on every call returns
// CUDA_ILLEGAL_ADDRESS until the device is reset.
void fake_runtime_fault(uint64_t nth);
// That failure stays whatever is reset: only another process could go on.
void fake_runtime_keep_fault(void);
// Operations run only when this is true (it is at the start): with false, everything stays in its stream.
void fake_runtime_set_running(bool is_running);

// What a library's call puts into a stream, for fakes of libraries: call(a copy of `bytes`) when its turn comes, at each replay too where
// it was captured.
void fake_runtime_enqueue(cuda_stream stream, void (*call)(const void *context), const void *context, size_t bytes);

// Runs a kernel (enum cuda_function) at once, while the device's thread may be running others: the emulator does one thing at a time.
struct emulator_launch;
void fake_runtime_run(unsigned function, const struct emulator_launch *launch);

uint64_t fake_runtime_calls(const char *function);      // since the beginning
uint64_t fake_runtime_kernels(void);                    // kernels that ran
uint64_t fake_runtime_waits(void);                      // times that a stream's next operation had to wait for another stream's event

// X of CUDA_FUNCTIONS, by number, for sweeps.
extern const char *const fake_runtime_functions[];
extern const uint32_t fake_runtime_function_count;

#endif
