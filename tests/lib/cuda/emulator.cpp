// Emulator: see emulator.h. Coroutines are entered through ucontext once in their life and then switched with _setjmp and _longjmp, which
// make no system call: each runs a thread of one block after the other. Sanitizers are told of every switch: to the thread sanitizer a
// coroutine is a thread of its own, which meets the others at each switch.

#include "tests/lib/cuda/emulator.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#define SWITCH_BEGIN(fake, bottom, size) __sanitizer_start_switch_fiber(fake, bottom, size)
#define SWITCH_END(fake, bottom, size) __sanitizer_finish_switch_fiber(fake, bottom, size)
#else
#define SWITCH_BEGIN(fake, bottom, size) ((void)(fake), (void)(bottom), (void)(size))
#define SWITCH_END(fake, bottom, size) ((void)(fake), (void)(bottom), (void)(size))
#endif
// Functions that switch are entered on one stack and left on another: the thread sanitizer must not count their frames.
#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#define TWIN_MAKE() __tsan_create_fiber(0)
#define TWIN_OWN() __tsan_get_current_fiber()
#define TWIN_SWITCH(twin) __tsan_switch_to_fiber(twin, 0)
#define UNSEEN __attribute__((no_sanitize("thread")))
#else
#define TWIN_MAKE() NULL
#define TWIN_OWN() NULL
#define TWIN_SWITCH(twin) ((void)(twin))
#define UNSEEN
#endif

struct emulator_dim threadIdx, blockIdx, blockDim, gridDim;
unsigned char *emulator_dynamic;

namespace
{

enum { THREADS_MAX = 1024, STACK_BYTES = 64 << 10, WARP = 32, SHARED_MAX = 256 << 10 };
enum state { READY, AT_BLOCK, AT_WARP, DONE };

struct fiber {
    bool is_entered;
    jmp_buf here;
    enum state state;
    void *fake, *twin;    // of sanitizers
    unsigned exchanges;
};

struct {
    struct fiber fiber[THREADS_MAX];
    char *stacks;
    jmp_buf scheduler;
    ucontext_t entry;
    const void *scheduler_bottom;
    size_t scheduler_bytes;
    void *scheduler_fake, *scheduler_twin;
    unsigned current;
    uint64_t slot[THREADS_MAX / WARP][2][WARP];
    uint64_t random;
    const struct emulated *kernel;
    const struct emulator_launch *launch;
} all;

[[noreturn]] void die(const char *what)
{
    fprintf(stderr, "emulator: kernel %s, block (%u, %u, %u): %s\n", all.kernel->name, blockIdx.x, blockIdx.y, blockIdx.z, what);
    abort();
}

uint64_t draw()
{
    all.random ^= all.random << 13;
    all.random ^= all.random >> 7;
    all.random ^= all.random << 17;
    return all.random;
}

char *stack_of(unsigned thread)
{
    return all.stacks + (size_t)thread * STACK_BYTES;
}

UNSEEN void leave(enum state state)
{
    struct fiber *fiber = &all.fiber[all.current];
    fiber->state = state;
    if (_setjmp(fiber->here) == 0) {
        SWITCH_BEGIN(&fiber->fake, all.scheduler_bottom, all.scheduler_bytes);
        TWIN_SWITCH(all.scheduler_twin);
        _longjmp(all.scheduler, 1);
    }
    SWITCH_END(all.fiber[all.current].fake, &all.scheduler_bottom, &all.scheduler_bytes);
}

UNSEEN void begin()
{
    SWITCH_END(NULL, &all.scheduler_bottom, &all.scheduler_bytes);
    for (;;) {
        all.kernel->run(all.launch->args, all.launch->fault, all.launch->task);
        leave(DONE);
    }
}

// The first time: on a stack of its own.
UNSEEN void enter(unsigned thread)
{
    ucontext_t *entry = &all.entry;    // not in this frame, which is never left
    getcontext(entry);
    entry->uc_stack.ss_sp = stack_of(thread);
    entry->uc_stack.ss_size = STACK_BYTES;
    entry->uc_link = NULL;
    makecontext(entry, begin, 0);
    SWITCH_BEGIN(&all.scheduler_fake, stack_of(thread), STACK_BYTES);
    TWIN_SWITCH(all.fiber[thread].twin);
    setcontext(entry);
}

UNSEEN void resume(unsigned thread)
{
    struct fiber *fiber = &all.fiber[thread];
    all.current = thread;
    threadIdx = {thread, 0, 0};
    if (_setjmp(all.scheduler) == 0) {
        if (!fiber->is_entered) {
            fiber->is_entered = true;
            fiber->twin = TWIN_MAKE();
            enter(thread);
        }
        SWITCH_BEGIN(&all.scheduler_fake, stack_of(thread), STACK_BYTES);
        TWIN_SWITCH(fiber->twin);
        _longjmp(fiber->here, 1);
    }
    SWITCH_END(all.scheduler_fake, NULL, NULL);
}

// Lets warps go whose threads have all arrived; whether any did.
bool release_warps(unsigned threads)
{
    bool any = false;
    for (unsigned first = 0; first < threads; first += WARP) {
        unsigned end = first + WARP < threads ? first + WARP : threads, waiting = 0, gone = 0;
        for (unsigned t = first; t < end; t++) {
            waiting += all.fiber[t].state == AT_WARP;
            gone += all.fiber[t].state == DONE;
        }
        if (waiting > 0 && gone > 0)
            die("a warp's threads exchange values although some have left");
        if (waiting != end - first)
            continue;
        for (unsigned t = first; t < end; t++)
            all.fiber[t].state = READY;
        any = true;
    }
    return any;
}

bool release_block(unsigned threads)
{
    bool any = false;
    for (unsigned t = 0; t < threads; t++)
        if (all.fiber[t].state != AT_BLOCK && all.fiber[t].state != DONE)
            return false;
    for (unsigned t = 0; t < threads; t++)
        if (all.fiber[t].state == AT_BLOCK) {
            all.fiber[t].state = READY;
            any = true;
        }
    return any;
}

void run_block(unsigned threads)
{
    for (unsigned t = 0; t < threads; t++) {
        all.fiber[t].state = READY;
        all.fiber[t].exchanges = 0;
    }
    for (;;) {
        unsigned start = (unsigned)(draw() % threads), done = 0;
        bool is_backwards = draw() & 1;
        for (unsigned i = 0; i < threads; i++) {
            unsigned t = (start + (is_backwards ? threads - i : i)) % threads;
            if (all.fiber[t].state == READY)
                resume(t);
        }
        for (unsigned t = 0; t < threads; t++)
            done += all.fiber[t].state == DONE;
        if (done == threads)
            return;
        if (!release_warps(threads) && !release_block(threads))
            die("threads wait at different barriers for ever");
    }
}

}    // namespace

void emulator_block_barrier()
{
    leave(AT_BLOCK);
}
void emulator_warp_barrier()
{
    leave(AT_WARP);
}

const uint64_t *emulator_exchange(uint64_t bits)
{
    unsigned thread = all.current;
    unsigned parity = all.fiber[thread].exchanges++ & 1;
    all.slot[thread / WARP][parity][thread % WARP] = bits;
    leave(AT_WARP);
    return all.slot[thread / WARP][parity];
}

extern "C" void emulator_run(const struct emulated *kernel, const struct emulator_launch *launch, uint64_t seed)
{
    all.scheduler_twin = TWIN_OWN();
    if (all.stacks == NULL) {
        void *memory = mmap(NULL, (size_t)THREADS_MAX * STACK_BYTES, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        all.stacks = memory == MAP_FAILED ? NULL : static_cast<char *>(memory);
        emulator_dynamic = static_cast<unsigned char *>(aligned_alloc(16, SHARED_MAX));
    }
    all.kernel = kernel;
    all.launch = launch;
    all.random = seed * 0x9E3779B97F4A7C15u + 1;
    blockDim = {launch->block, 1, 1};
    gridDim = {launch->grid[0], launch->grid[1], launch->grid[2]};
    if (all.stacks == NULL || emulator_dynamic == NULL)
        die("no memory");
    if (launch->block == 0 || launch->block > kernel->threads_max || launch->shared_bytes > SHARED_MAX || gridDim.x == 0 ||
        gridDim.y == 0 || gridDim.z == 0 || gridDim.y > 65535 || gridDim.z > 65535)
        die("the launch's shape is not one that a GPU accepts for it");
    for (unsigned z = 0; z < gridDim.z; z++)
        for (unsigned y = 0; y < gridDim.y; y++)
            for (unsigned x = 0; x < gridDim.x; x++) {
                blockIdx = {x, y, z};
                memset(emulator_dynamic, 0xff, launch->shared_bytes);
                run_block(launch->block);
            }
}

// The kernels, by enum cuda_function.
#define KERNEL(family, name) \
    extern "C" emulated_kernel emulated_##name; \
    extern "C" const unsigned emulated_##name##_threads;
#include "gpu_worker/kernels/cuda/kernels.def"

extern "C" const struct emulated *emulator_find(unsigned function)
{
    static const struct emulated kernels[] = {
        {NULL, NULL, 0},
#define KERNEL(family, name) {#name, emulated_##name, emulated_##name##_threads},
#include "gpu_worker/kernels/cuda/kernels.def"
    };
    return function > 0 && function < sizeof kernels / sizeof kernels[0] ? &kernels[function] : NULL;
}
