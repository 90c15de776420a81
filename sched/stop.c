// Stop: an administrator ends the pool. Workers are told to drain (no new sessions; leave with the last one) and the head stays, so that
// leases hold and what was run is still journalled. Sessions that are still there after a while are ended: an idle client would keep its
// worker for ever. The head ends once no worker is left, or after a bounded time, and only then answers who asked.
//
// SIGTERM ends the head alone: workers keep what they hold for its next life.

#include "sched/state.h"

#include "core/base/log.h"

#define CHECK_EVERY_NS ((uint64_t)10000000)
#define DISMISS_AFTER_NS ((uint64_t)1000000000)
#define STOP_AFTER_NS ((uint64_t)6000000000)    // a worker that drains waits for its device for at most 5 s

void stop_begin(struct head *head, const struct head_link *link, uint64_t request)
{
    struct wire_drain drain = {.deadline_ns = DISMISS_AFTER_NS};
    uint64_t now_ns = actor_now_ns(head->self);
    uint32_t workers = 0;

    for (uint32_t i = 0; i < HEAD_WORKERS_MAX; i++)
        if (head->worker[i] != NULL) {
            head->worker[i]->is_draining = true;
            head_send(head, head->worker[i]->link, WIRE_DRAIN, wire_drain_encode(&drain));
            workers++;
        }
    log_write(LOG_INFO, "head", "asked to stop workers=%u sessions=%u", workers, map_count(head->sessions));
    if (head->phase != HEAD_STOPPING)
        head->stopping_since_ns = now_ns;
    head->phase = HEAD_STOPPING;
    head->stop_link = link->link;
    head->stop_request = request;
    stop_check(head, now_ns);
}

static void dismiss_sessions(struct head *head)
{
    struct head_session *session;

    // One that goes is taken out of the map, which must not change while it is visited.
    for (uint32_t cursor = 0; (session = map_next(head->sessions, &cursor, NULL)) != NULL;)
        if (!session->is_retired) {
            session_leave(head, session);
            cursor = 0;
        }
}

void stop_check(struct head *head, uint64_t now_ns)
{
    uint64_t passed_ns = now_ns - head->stopping_since_ns;
    bool has_workers = false;

    for (uint32_t i = 0; i < HEAD_WORKERS_MAX; i++)
        has_workers = has_workers || head->worker[i] != NULL;
    if (!has_workers || passed_ns >= STOP_AFTER_NS) {
        admin_tell_stopped(head, head->stop_link, head->stop_request);
        head_finish(head);
        return;
    }
    if (passed_ns >= DISMISS_AFTER_NS)
        dismiss_sessions(head);
    head_check_at(head, now_ns + CHECK_EVERY_NS);
}
