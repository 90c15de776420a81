// State: what the parts of the CUDA device share. Everything here belongs to the device's thread but what stands under "queue".
//
// A list becomes a flight on its stream's lane. Lanes issue flights in order, piece by piece, as far as rings have room: a
// stalled lane never holds up the other. What was issued is closed by marks, events that say how far the rings are free again;
// the mark of a flight's end is its own event. Marks come in order, so every ring and queue here is first in, first out.
//
//     submit -> queue -> flight (start event, pieces, end event) -> marks come: READs are copied out, reports looked at
//            -> IO_DEVICE_DONE

#ifndef GPU_WORKER_DEVICE_CUDA_STATE_H
#define GPU_WORKER_DEVICE_CUDA_STATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "gpu_worker/device/cuda/cuda_device.h"
#include "gpu_worker/device/cuda/timing.h"
#include "gpu_worker/device/operands.h"
#include "gpu_worker/kernels/cuda/cuda.h"
#include "gpu_worker/kernels/cuda/libraries.h"

enum {
    LANE_FLIGHTS_MAX = 32,                                      // powers of two, all three
    LANE_MARKS_MAX = 32,
    LANE_READS_MAX = 4096,
    LANE_PINNED_BYTES = CUDA_STAGING_BYTES / DEVICE_STREAMS,    // pinned memory of a lane: staging and arguments on their way
    LANE_ARGS_BYTES = 8 << 20,                                  // device memory of a lane: arguments of launches
    SEGMENT_BYTES_MAX = 1 << 20,                                // arguments of one launch of a part of a program
    PLACE_ALIGNMENT = 256,
    REPORT_BYTES = sizeof(struct cuda_report),                  // stands before the arguments
    GRAPH_UNIT_BYTES = 32 << 10,                                // arguments of captured programs lie in runs of units
    GRAPH_UNITS = 512,
    GRAPH_ARGS_BYTES_MAX = LANE_ARGS_BYTES / 4,                 // programs with more are not captured
    GRAPH_KEYS_MAX = 256,                                       // programs that are watched for recurring
    GRAPH_STEPS_MIN = 2,                                        // below it a graph saves nothing
    WORKSPACE_BYTES = 64 << 20,                                 // of cuBLASLt and cuDNN
};

// Bytes taken at the head and given back at the tail. Counters only grow; the place is a counter modulo `bytes`.
struct ring { uint64_t bytes, head, tail; };

struct flight {
    struct device_list *list;
    cuda_event start, end;
    enum dj_error error;                // as the list's, until it is posted
    uint32_t failed_task;
    struct fault fault;
    bool is_started, is_issued;
    struct graph *graph;                // that it was launched as, the newest one; NULL: step by step
    uint64_t issued_ns;                 // when the last of it was
    uint32_t task;                      // the next to issue
    uint64_t moved_bytes;               // of this task
    uint64_t accepted_ns;               // timing_now
};

struct read {                           // from pinned memory, once its mark has come
    const uint8_t *from;
    uint8_t *to;                        // NULL: a report
    uint64_t bytes;
    struct flight *flight;
};

struct mark {
    cuda_event own;
    struct flight *ends;                // then the flight's end is the event
    uint64_t pinned_end, args_end, reads_end;
    bool is_come;                       // no event could be recorded, and the stream was waited for instead
};

struct lane {
    cuda_stream stream;
    uint8_t *pinned, *args;             // args: a device address
    struct ring pinned_ring, args_ring;
    struct flight flight[LANE_FLIGHTS_MAX];
    uint64_t flight_head, flight_issue, flight_tail;            // the oldest out, the one being issued, the end
    uint64_t ended_ns;                                          // when the one before the oldest had come
    struct mark mark[LANE_MARKS_MAX];
    uint64_t mark_head, mark_tail;
    struct read read[LANE_READS_MAX];
    uint64_t read_head, read_tail;
    struct cuda_program program;        // of the kernels from the flight's task on, being launched
    uint32_t step, program_end;         // the next step; the task after the program
    bool has_program;
};

struct graph {
    struct hash128 key;
    uint64_t used;                      // when, as graphs.clock counts; 0: the place is free
    uint64_t flight;                    // the newest one of its launches, as the lane counts
    uint32_t seen;
    bool is_eager;                      // could not be captured
    bool has_calls;                     // of libraries
    uint64_t elapsed_ns;                // of the list that launched it last
    cuda_graph_exec exec;               // NULL: not captured
    uint32_t place, units;              // of its arguments: the run's first unit, and its length
};

struct graphs {
    struct graph graph[GRAPH_KEYS_MAX];
    uint8_t *args;                      // device memory, GRAPH_UNITS units
    bool is_taken[GRAPH_UNITS];
    uint64_t clock;
};

struct functions {
    cuda_library library[CUDA_FAMILIES];
    cuda_kernel kernel[CUDA_FUNCTIONS_END];
    uint32_t shared_bytes[CUDA_FUNCTIONS_END];      // that the kernel was told to allow
};

enum phase { PHASE_STARTING, PHASE_RUNNING, PHASE_STOPPING, PHASE_FAILED };

struct cuda_device {
    struct device_port port;
    struct device_info info;
    struct cuda_device_config config;
    const struct cuda_api *api;
    uint8_t *region;
    uint8_t *pinned, *args;             // what lanes' parts lie in
    struct lane lane[DEVICE_STREAMS];
    struct graphs graphs;
    struct functions functions;
    struct cuda_libraries libraries;    // of the compute stream, which alone uses the workspace
    struct cuda_libraries plain;        // of the others: our own kernels only
    struct operands running;
    struct operands asking;             // of the core's thread
    bool has_gpu;                       // the thread has chosen it: until then CUDA would take the first one
    bool is_lost;
    struct fault lost;                  // why
    bool is_fenced;                     // an incarnation has lost the device: `fenced`, for the reason `fence`
    uint64_t fenced;
    struct fault fence;
    struct fault start_fault;           // why it could not start
    struct cuda_device_stats stats;
    struct timing *timing;              // NULL: nothing is timed

    pthread_t thread;                   // queue: the mutex guards the rest but `submitted`
    pthread_mutex_t mutex;
    pthread_cond_t more, started;
    struct device_list **queue;
    uint64_t head, tail, capacity;      // capacity: a power of two
    enum phase phase;
    struct cuda_device_stats shown_stats;
    bool is_shown_lost;
    _Atomic uint64_t submitted;         // release by submitters, acquire by the thread: only a hint that the mutex is worth taking
};

// Judges what a function of CUDA's returned: true for success. Else `fault` (NULL is allowed) gets DJ_E_DEVICE, CUDA's name and
// text and `what`; and when the error is one that stays, the device is lost.
bool device_check(struct cuda_device *device, int code, const char *what, struct fault *fault);
// The same, as the error of the flight's `task` unless it has one already.
bool flight_check(struct cuda_device *device, struct flight *flight, uint32_t task, int code, const char *what);
void flight_fail(struct flight *flight, uint32_t task, const struct fault *fault);

// start.c: everything the device needs, from the thread that will use it; and its end. A failed start is cleaned up by
// device_release too.
DJ_MUST_USE enum dj_error device_reserve(struct cuda_device *device, struct fault *fault);
void device_release(struct cuda_device *device);

// lane.c: whether `pinned` bytes of pinned memory, `args` of the arguments' and `reads` reads can be had now; else a mark is seen to.
bool lane_has_room(struct cuda_device *device, struct lane *lane, uint64_t pinned, uint64_t args, uint32_t reads);
// Take what lane_has_room has found. The address of pinned memory, and the device address.
uint8_t *lane_take_pinned(struct lane *lane, uint64_t bytes);
uint8_t *lane_take_args(struct lane *lane, uint64_t bytes);
void lane_add_read(struct lane *lane, const struct read *read);
// Closes what was issued since the newest mark; `ends` is the flight that ends here, or NULL. Needs a free mark.
void lane_mark(struct cuda_device *device, struct lane *lane, struct flight *ends);
bool lane_has_mark(const struct lane *lane);
// Takes the marks that have come: true if there were any.
bool lane_poll(struct cuda_device *device, struct lane *lane);
// Gives a list back that is no flight (any more).
void list_fail(struct cuda_device *device, struct device_list *list, const struct fault *fault);

// issue.c: gives the next pieces of the lane's flights to CUDA: true if there were any.
bool lane_issue(struct cuda_device *device, struct lane *lane);

// launch.c: launches the lane's program, or a part of it. False: it waits for room.
bool program_launch(struct cuda_device *device, struct lane *lane, struct flight *flight);
// Launches steps [first, end) with arguments at `args`, a device address that stands for program->args + args_offset; 0 and
// `fault` on failure.
struct launch { uint32_t first, end; uint32_t args_offset; uint8_t *args, *report; };
bool steps_launch(struct cuda_device *device, struct lane *lane, const struct launch *launch, uint32_t *ret_task, struct fault *fault);

// graphs.c: the graph of the lane's program, captured if it is time to; NULL: launch it step by step.
struct graph *graphs_choose(struct cuda_device *device, struct lane *lane);
uint8_t *graph_args(struct cuda_device *device, const struct graph *graph);
// cuda_libraries.evicting of the device: the compute stream has nothing left to do, and graphs with library calls are gone.
void graphs_evicting(void *device);
void graphs_release(struct cuda_device *device);

// functions.c: sees to it that the kernel can be launched with so much shared memory, loading its family's image the first time.
bool function_ready(struct cuda_device *device, uint32_t function, uint32_t shared_bytes, struct fault *fault);
void functions_release(struct cuda_device *device);

uint64_t device_now_ns(void);           // a clock that only grows

static inline uint64_t place_bytes(uint64_t bytes) { return (bytes + PLACE_ALIGNMENT - 1) & ~(uint64_t)(PLACE_ALIGNMENT - 1); }

#endif
