// Timing: where a GPU's time goes, for measuring; off unless asked for, and then free.
//
// Two depths. Counts (DJINN_CUDA_COUNTS=FILE): lists, launches, graphs, bytes moved, and what the device's thread spent on them; nothing runs differently.
// Launches (DJINN_CUDA_TIMING=FILE): besides, programs are launched step by step, never as graphs, each step between two events, and summed by op, kernel and
// the power of two of the bytes that the op's operands have. An event pair around a lone launch measures the launch; so before a program's steps the stream is given
// fills of the libraries' workspace that take about as long as the launching, and the GPU finds its work queued.
//
// The file is JSON, replaced as a whole when nothing has been submitted for TIMING_REST_NS and at the end: whoever pauses that long reads figures that are
// complete. Of GPU 0 it is FILE, of GPU N FILE.N. Everything here belongs to the device's thread.

#ifndef GPU_WORKER_DEVICE_CUDA_TIMING_H
#define GPU_WORKER_DEVICE_CUDA_TIMING_H

#include <stdbool.h>
#include <stdint.h>

#include "gpu_worker/kernels/cuda/program.h"

struct cuda_device;
struct flight;
struct lane;

enum { TIMING_REST_NS = 100000000, TIMING_PAIRS = 2048, TIMING_ROWS_MAX = 1024, TIMING_PATH_MAX = 512 };

// device->timing as device->config asks for; NULL when it does not.
DJ_MUST_USE enum dj_error timing_make(struct cuda_device *device, struct fault *fault);
void timing_free(struct cuda_device *device);

bool timing_is_stepwise(const struct cuda_device *device);
// Now, of the monotonic clock; 0 when nothing is timed.
uint64_t timing_now(const struct cuda_device *device);

// Around `steps` launches, and around each.
void timing_before_steps(struct cuda_device *device, struct lane *lane, uint32_t steps);
void timing_before(struct cuda_device *device, struct lane *lane);
void timing_after(struct cuda_device *device, struct lane *lane, const struct cuda_step *step);
// A program's kernels were written from `begun` to `written`, and launched since.
void timing_program(struct cuda_device *device, uint64_t begun, uint64_t written);
// A list is done; the GPU says that it took so long.
void timing_list(struct cuda_device *device, const struct flight *flight, uint64_t elapsed_ns);

// Whether something happened since the file was written.
bool timing_is_due(const struct cuda_device *device);
void timing_write(struct cuda_device *device);
// The streams are idle and CUDA's things are about to end: takes what is out, writes, gives the events back.
void timing_release(struct cuda_device *device);

#endif
