// Fake state: what the parts of the fake runtime share (fake_runtime.h): its objects, its memory, and streams as queues of operations.
//
// Objects stay allocated until the end, marked dead, so that whoever uses one after its end is told; memory is really freed, so
// that the address sanitizer tells. Everything here is under one lock, taken by fake_enter.

#ifndef TESTS_LIB_CUDA_FAKE_STATE_H
#define TESTS_LIB_CUDA_FAKE_STATE_H

#include "core/base/prng.h"
#include "gpu_worker/kernels/cuda/program.h"
#include "tests/lib/cuda/emulator.h"
#include "tests/lib/cuda/fake_runtime.h"

enum {
    INVALID_HANDLE = 400,
    SHARED_UNASKED = 0,    // CUDA gives 48 KiB less what the kernel has of its own, which is not known here
    SHARED_MOST = 227 << 10,
    GARBAGE_BYTES = 1 << 20,
    BURST_MOST = 4,
    IMAGE_MAGIC = 0x1ab1e,
};

enum operation_kind { COPY, FILL, LAUNCH, CALL, RECORD, WAIT, REPLAY };
enum { CALL_BYTES_MAX = 256 };
struct operation {
    struct operation *next;
    enum operation_kind kind;
    uint8_t *to;    // COPY, FILL; the report
    const uint8_t *from;
    size_t bytes;
    int value;
    const struct emulated *kernel;
    struct emulator_launch launch;
    void (*call)(const void *context);
    uint64_t context[CALL_BYTES_MAX / 8];
    cuda_event event;
    uint64_t turn;
    cuda_graph_exec exec;
};
struct operations {
    struct operation *first, **end;
};

enum object_kind { STREAM = 1, EVENT, GRAPH, EXEC, LIBRARY, KERNEL_HANDLE };
struct object {
    struct object *next;
    enum object_kind kind;
    bool is_dead;
};
struct cuda_stream_object {
    struct object object;
    struct operations queue;
    cuda_graph capture;
    bool is_invalid, has_waited;
};
struct cuda_event_object {
    struct object object;
    bool is_timed;
    uint64_t asked, done, time;
};
struct cuda_graph_object {
    struct object object;
    struct operations operations;
};
struct cuda_graph_exec_object {
    struct object object;
    struct operations operations;
};
struct cuda_library_object {
    struct object object;
    uint32_t family;
};
struct cuda_kernel_object {
    struct object object;
    cuda_library library;
    const struct emulated *kernel;
    int shared_most;
};

struct memory {
    struct memory *next;
    uint8_t *data;
    size_t bytes;
    bool is_pinned;
};

enum function {
#define X(name, parameters) F_##name,
    CUDA_FUNCTIONS(X)
#undef X
        FUNCTIONS
};

struct fake_state {
    struct prng prng;
    struct object *objects;
    struct memory *memories;
    uint64_t device_bytes, used_bytes, clock, seed;
    uint64_t calls[FUNCTIONS], kernels, waits;
    const char *failing;
    uint64_t fail_in, fault_in;
    int fail_error, sticky, last;
    bool has_failed, is_held, keeps_fault;
    int capability;
    cuda_stream capturing;
};
extern struct fake_state fake_state;
extern _Thread_local bool fake_has_device;    // the thread has chosen one

struct fake_image { uint32_t magic, family; };
extern struct fake_image fake_images[CUDA_FAMILIES];

_Noreturn void fake_die(const char *what);

// What the call has to return although it has not begun, CUDA_OK for none; and its end. A lock is held in between.
int fake_enter(enum function function);
int fake_leave(int code);
#define ENTER(name) \
    do { \
        int early = fake_enter(F_##name); \
        if (early != CUDA_OK) \
            return fake_leave(early); \
    } while (0)

// What is not allowed while this thread captures a stream, and ends the capture.
#define ENTER_UNCAPTURED(name) \
    ENTER(name); \
    do { \
        if (fake_state.capturing != NULL) { \
            fake_state.capturing->is_invalid = true; \
            return fake_leave(CUDA_CAPTURE_UNSUPPORTED); \
        } \
    } while (0)

void *fake_make_object(enum object_kind kind, size_t bytes);
void fake_check_object(const void *pointer, enum object_kind kind, const char *what);
#define STREAM_OF(stream) fake_check_object(stream, STREAM, "a stream that is not there")
#define EVENT_OF(event) fake_check_object(event, EVENT, "an event that is not there")

// Memory: `is_pinned` is host memory of the runtime's own.
void fake_check_memory(const void *data, size_t bytes, bool is_pinned);
int fake_reserve(void **ret, size_t bytes, bool is_pinned);
void fake_give_back(void *data, bool is_pinned);

void fake_append(struct operations *operations, const struct operation *operation);
void fake_drop(struct operations *operations);
// Into the stream's queue, or its capture. CUDA_OK.
int fake_enqueue(cuda_stream stream, const struct operation *operation);
// Runs the next operation of a stream that the seed chooses; false: nothing can run. And a few of them.
bool fake_step(void);
void fake_burst(void);
void fake_kill_everything(void);

// Whatever gives something back does so also when it reports an error: CUDA reports one of an earlier call then. But not after a loss.
#define ENTER_RELEASE(name) \
    int early = fake_enter(F_##name); \
    if (fake_state.sticky != CUDA_OK) \
    return fake_leave(fake_state.sticky)

#endif
