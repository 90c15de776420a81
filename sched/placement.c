// Placement: which worker serves a session's next stage. A session that names a device gets it; one that does not stays where it is (its
// caches are there), else goes to the worker with the fewest sessions, then the least memory in use, then the lowest number. Each choice is
// kept with its reason, for `djinn plan`.

#include <stdio.h>

#include "sched/state.h"

static bool is_better(const struct head_worker *a, const struct head_worker *b)
{
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

struct head_worker *placement_choose(struct head *head, const struct head_session *session, int64_t device_index,
                                     uint32_t *ret_device, enum dj_error *ret_error, char reason[REASON_MAX])
{
    struct head_worker *best = NULL;
    uint32_t workers = 0;

    if (device_index >= 0)
        return named_device(head, device_index, ret_device, ret_error, reason);
    for (uint32_t i = 0; i < session->grants; i++) {
        if (session->grant[i].worker == NULL || session->grant[i].worker->is_draining)
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
        if (best == NULL || is_better(worker, best))
            best = worker;
    }
    if (best == NULL) {
        *ret_error = DJ_E_NO_WORKER;
        snprintf(reason, REASON_MAX, "no worker is connected to the head; start one: djinn start --worker --head %.64s",
                 head->config.address);
        return NULL;
    }
    *ret_device = best->first_device;
    snprintf(reason, REASON_MAX, "least loaded of %u workers (%u sessions)", workers, best->sessions);
    return best;
}
