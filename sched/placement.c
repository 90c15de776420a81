// Placement: which worker serves a session's next stage. A session that names a device gets it; one that does not stays where it is (its
// caches are there), else goes to the worker with the fewest sessions, then the least memory in use, then the lowest number. One that
// recovers prefers the numerics class of what it lost, and avoids the worker that it cannot reach. Each choice is kept with its reason, for
// `djinn plan`.

#include <stdio.h>

#include "sched/state.h"

// The first device of the class that is wanted; the worker's first one when it has none.
static uint32_t device_for(const struct head_worker *worker, uint32_t numerics)
{
    for (uint32_t i = 0; numerics != 0 && i < worker->devices; i++)
        if (worker_numerics(worker, i) == numerics)
            return i;
    return 0;
}

static bool is_better(const struct head_worker *a, const struct head_worker *b, const struct wire_grant_ask *ask)
{
    // One that cannot be reached is the last resort. Replay gives the same bits only within a numerics class.
    if ((a->incarnation == ask->avoid) != (b->incarnation == ask->avoid))
        return a->incarnation != ask->avoid;
    bool a_fits = ask->numerics == 0 || worker_numerics(a, device_for(a, ask->numerics)) == ask->numerics;
    bool b_fits = ask->numerics == 0 || worker_numerics(b, device_for(b, ask->numerics)) == ask->numerics;
    if (a_fits != b_fits)
        return a_fits;
    if (a->sessions != b->sessions)
        return a->sessions < b->sessions;
    if (a->load.queued != b->load.queued)
        return a->load.queued < b->load.queued;
    if (a->load.memory_used_bytes != b->load.memory_used_bytes)
        return a->load.memory_used_bytes < b->load.memory_used_bytes;
    return a->load.executions != b->load.executions ? a->load.executions < b->load.executions : a->id < b->id;
}

static struct head_worker *named_device(struct head *head, int64_t index, uint32_t *ret_device, enum dj_error *ret_error,
                                        char reason[REASON_MAX])
{
    if (index >= (int64_t)head->devices || head->device[index] == NULL) {
        *ret_error = DJ_E_NO_DEVICE;
        snprintf(reason, REASON_MAX, "there is no remote_accelerator:%lld; the pool has %u devices", (long long)index,
                 head->devices);
        return NULL;
    }
    *ret_device = (uint32_t)index;
    snprintf(reason, REASON_MAX, "the program named remote_accelerator:%lld", (long long)index);
    return head->device[index];
}

static bool is_named(const struct head *head, const struct wire_grant_ask *ask)
{
    if (ask->device_index < 0)
        return false;
    // Who recovers from the loss of a device takes another for it.
    bool is_recovery = ask->numerics != 0 || ask->avoid != 0;
    const struct head_worker *worker = ask->device_index < (int64_t)head->devices ? head->device[ask->device_index] : NULL;
    return !is_recovery || (worker != NULL && worker->incarnation != ask->avoid && !worker->is_draining);
}

struct head_worker *placement_choose(struct head *head, const struct head_session *session, const struct wire_grant_ask *ask,
                                     uint32_t *ret_device, enum dj_error *ret_error, char reason[REASON_MAX])
{
    struct head_worker *best = NULL;
    uint32_t workers = 0;

    if (is_named(head, ask))
        return named_device(head, ask->device_index, ret_device, ret_error, reason);
    for (uint32_t i = 0; i < session->grants; i++) {
        const struct head_worker *worker = session->grant[i].worker;
        if (worker == NULL || worker->is_draining || worker->incarnation == ask->avoid)
            continue;
        if (ask->numerics != 0 && worker_numerics(worker, session->grant[i].device_index - worker->first_device) != ask->numerics)
            continue;
        *ret_device = session->grant[i].device_index;
        snprintf(reason, REASON_MAX, "the session's values are there");
        return session->grant[i].worker;
    }
    for (uint32_t i = 0; i < HEAD_WORKERS_MAX; i++) {
        struct head_worker *worker = head->worker[i];
        if (worker == NULL || worker->is_draining)
            continue;
        workers++;
        if (best == NULL || is_better(worker, best, ask))
            best = worker;
    }
    if (best == NULL) {
        *ret_error = DJ_E_NO_WORKER;
        snprintf(reason, REASON_MAX, "no worker is connected to the head; start one: djinn start --worker --head %.64s",
                 head->config.address);
        return NULL;
    }
    *ret_device = best->first_device + device_for(best, ask->numerics);
    snprintf(reason, REASON_MAX, "least loaded of %u workers (%u sessions)", workers, best->sessions);
    return best;
}
