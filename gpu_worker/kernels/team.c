// Team: see kernel.h. Threads wait for work in two steps: they spin for TEAM_SPIN_NS, which covers the gap between two kernels of a
// plan, and then sleep on a futex, so that an idle worker costs nothing.
//
// Parts are claimed one by one from `ticket`, a generation in the high half and the next part in the low one. A thread may read
// run/context/parts of a generation that is already over, but then its claim fails: the compare-and-swap succeeds only while that
// generation has unclaimed parts, and the caller does not publish the next before all parts are done.
//
// Memory order. `ticket` is stored with release by the caller after the fields of the call, and claimed with acquire, which makes
// them visible. `done` is added to with release by whoever ran a part and read with acquire by the caller, which makes the results
// visible. `wake` with `sleepers`, and `done` with `is_waiting`, are store-then-load pairs on both sides (each side announces itself,
// then looks), so those four are sequentially consistent; otherwise a wake-up could be lost.

#include "gpu_worker/kernels/kernel.h"

#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "core/base/assert.h"

enum {
    TEAM_THREADS_MAX = 1024,
    TEAM_SPIN_NS = 50000,
    TEAM_WAIT_SPIN_NS = 20000,    // how long the caller spins for the last part of somebody else
    SPINS_PER_CLOCK = 32,
};

typedef void (*part_function)(void *context, uint32_t index);

struct team {
    _Alignas(64) _Atomic uint64_t ticket;
    _Alignas(64) _Atomic uint32_t done;
    _Atomic uint32_t is_waiting;
    _Alignas(64) _Atomic uint32_t wake;
    _Atomic uint32_t sleepers;
    _Atomic uint32_t is_stopping;
    _Atomic uint32_t parts;
    _Atomic part_function run;
    _Atomic(void *) context;
    uint32_t threads;    // the caller's included
    uint32_t started;
    pthread_t *thread;
};

static void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void futex_wait(_Atomic uint32_t *word, uint32_t value)
{
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *word, int threads)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, threads, NULL, NULL, 0);
}

// Runs parts of the current generation until none is left.
static void take_parts(struct team *team)
{
    for (;;) {
        uint64_t ticket = atomic_load_explicit(&team->ticket, memory_order_acquire);
        uint32_t part = (uint32_t)ticket;
        uint32_t parts = atomic_load_explicit(&team->parts, memory_order_relaxed);
        part_function run = atomic_load_explicit(&team->run, memory_order_relaxed);
        void *context = atomic_load_explicit(&team->context, memory_order_relaxed);
        if (part >= parts)
            return;
        if (!atomic_compare_exchange_weak_explicit(&team->ticket, &ticket, ticket + 1, memory_order_acq_rel,
                                                   memory_order_relaxed))
            continue;
        run(context, part);
        if (atomic_fetch_add(&team->done, 1) + 1 == parts && atomic_load(&team->is_waiting))
            futex_wake(&team->done, 1);
    }
}

// Spins, then sleeps, until `wake` differs from `seen`; returns its new value.
static uint32_t wait_for_work(struct team *team, uint32_t seen)
{
    uint64_t give_up_ns = now_ns() + TEAM_SPIN_NS;
    do {
        for (int i = 0; i < SPINS_PER_CLOCK; i++) {
            uint32_t wake = atomic_load_explicit(&team->wake, memory_order_acquire);
            if (wake != seen)
                return wake;
            relax();
        }
    } while (now_ns() < give_up_ns);

    atomic_fetch_add(&team->sleepers, 1);
    uint32_t wake;
    while ((wake = atomic_load(&team->wake)) == seen)
        futex_wait(&team->wake, seen);
    atomic_fetch_sub(&team->sleepers, 1);
    return wake;
}

static void *team_main(void *context)
{
    struct team *team = context;
    uint32_t seen = 0;
    for (;;) {
        seen = wait_for_work(team, seen);
        if (atomic_load_explicit(&team->is_stopping, memory_order_acquire))
            return NULL;
        take_parts(team);
    }
}

enum dj_error team_make(uint32_t n_threads, struct team **ret)
{
    if (n_threads == 0 || n_threads > TEAM_THREADS_MAX)
        return DJ_E_INVALID;
    struct team *team = aligned_alloc(64, sizeof *team);
    pthread_t *thread = calloc(n_threads, sizeof *thread);
    if (team == NULL || thread == NULL) {
        free(team);
        free(thread);
        return DJ_E_NO_MEMORY;
    }
    *team = (struct team){.threads = n_threads, .thread = thread};

    // Signals belong to the process's other threads.
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (team->started + 1 < n_threads && pthread_create(&thread[team->started], NULL, team_main, team) == 0)
        team->started++;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (team->started + 1 < n_threads) {
        team_free(team);
        return DJ_E_SYSTEM;
    }
    *ret = team;
    return DJ_OK;
}

void team_free(struct team *team)
{
    if (team == NULL)
        return;
    atomic_store_explicit(&team->is_stopping, 1, memory_order_release);
    atomic_fetch_add(&team->wake, 1);
    futex_wake(&team->wake, INT_MAX);
    for (uint32_t i = 0; i < team->started; i++)
        pthread_join(team->thread[i], NULL);
    free(team->thread);
    free(team);
}

uint32_t team_threads(const struct team *team)
{
    return team == NULL ? 1 : team->threads;
}

static void wait_until_done(struct team *team, uint32_t parts)
{
    uint64_t give_up_ns = 0;
    while (atomic_load_explicit(&team->done, memory_order_acquire) < parts) {
        for (int i = 0; i < SPINS_PER_CLOCK; i++) {
            if (atomic_load_explicit(&team->done, memory_order_acquire) >= parts)
                return;
            relax();
        }
        uint64_t now = now_ns();
        if (give_up_ns == 0)
            give_up_ns = now + TEAM_WAIT_SPIN_NS;
        if (now < give_up_ns)
            continue;
        atomic_store(&team->is_waiting, 1);
        uint32_t done;
        while ((done = atomic_load(&team->done)) < parts)
            futex_wait(&team->done, done);
        atomic_store(&team->is_waiting, 0);
    }
}

void team_run(struct team *team, uint32_t parts, part_function part, void *context)
{
    if (team == NULL || team->threads == 1 || parts <= 1) {
        for (uint32_t i = 0; i < parts; i++)
            part(context, i);
        return;
    }

    uint64_t generation = (atomic_load_explicit(&team->ticket, memory_order_relaxed) >> 32) + 1;
    atomic_store_explicit(&team->done, 0, memory_order_relaxed);
    // Between here and the next store the old ticket is exhausted for every value of parts up to its own: claims need ticket < parts,
    // so the ticket is moved past all parts first.
    atomic_store_explicit(&team->ticket, generation << 32 | UINT32_MAX, memory_order_release);
    atomic_store_explicit(&team->run, part, memory_order_relaxed);
    atomic_store_explicit(&team->context, context, memory_order_relaxed);
    atomic_store_explicit(&team->parts, parts, memory_order_relaxed);
    atomic_store_explicit(&team->ticket, (generation + 1) << 32, memory_order_release);
    atomic_fetch_add(&team->wake, 1);
    if (atomic_load(&team->sleepers) > 0)
        futex_wake(&team->wake, (int)(parts < team->threads ? parts : team->threads) - 1);
    take_parts(team);
    wait_until_done(team, parts);
}
