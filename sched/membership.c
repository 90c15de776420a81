// Membership: workers join, are heard of, and are fenced: when their connection closes, when they fall silent for longer than their lease,
// or when a new life of the same worker joins.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/log.h"
#include "sched/state.h"

struct head_worker *worker_find(struct head *head, uint32_t id)
{
    return id == 0 || id > HEAD_WORKERS_MAX ? NULL : head->worker[id - 1];
}

static struct head_worker *find_named(struct head *head, const char *name)
{
    for (uint32_t i = 0; i < HEAD_WORKERS_MAX; i++)
        if (head->worker[i] != NULL && strcmp(head->worker[i]->name, name) == 0)
            return head->worker[i];
    return NULL;
}

// A run of free places in the pool's numbering, the lowest first, so that remote_accelerator:0 is the first worker's first device.
static bool take_devices(struct head *head, struct head_worker *worker)
{
    for (uint32_t first = 0; first + worker->devices <= HEAD_DEVICES_MAX; first++) {
        uint32_t free_run = 0;
        while (free_run < worker->devices && head->device[first + free_run] == NULL)
            free_run++;
        if (free_run < worker->devices)
            continue;
        worker->first_device = first;
        for (uint32_t i = 0; i < worker->devices; i++)
            head->device[first + i] = worker;
        if (first + worker->devices > head->devices)
            head->devices = first + worker->devices;
        return true;
    }
    return false;
}

static void give_devices(struct head *head, const struct head_worker *worker)
{
    for (uint32_t i = 0; i < worker->devices; i++)
        head->device[worker->first_device + i] = NULL;
    while (head->devices > 0 && head->device[head->devices - 1] == NULL)
        head->devices--;
}

static struct head_worker *fill(struct head_link *link, const struct wire_join *join, uint64_t now_ns)
{
    struct head_worker *worker = calloc(1, sizeof *worker);
    if (worker == NULL)
        return NULL;
    worker->link = link->link;
    snprintf(worker->name, sizeof worker->name, "%s", join->name);
    snprintf(worker->address_unix, sizeof worker->address_unix, "%s", join->address_unix);
    snprintf(worker->address_tcp, sizeof worker->address_tcp, "%s", join->address_tcp);
    snprintf(worker->host, sizeof worker->host, "%s", join->host);
    worker->incarnation = join->incarnation;
    worker->pid = join->pid;
    worker->devices = join->devices_count;
    worker->joined_ns = worker->last_heard_ns = now_ns;
    for (uint32_t i = 0; i < join->devices_count; i++) {
        worker->device[i] = join->devices[i];
        if (worker->device[i].ops_bytes > sizeof worker->ops[i])
            worker->device[i].ops_bytes = sizeof worker->ops[i];
        if (worker->device[i].ops_bytes > 0)
            memcpy(worker->ops[i], join->devices[i].ops, worker->device[i].ops_bytes);
        worker->device[i].ops = worker->ops[i];
    }
    return worker;
}

uint32_t worker_numerics(const struct head_worker *worker, uint32_t device)
{
    const char *numerics = worker->device[device].numerics;
    return record_numerics(numerics);
}

void worker_location(const struct head_worker *worker, struct wire_location *ret)
{
    *ret = (struct wire_location){.worker = worker->id, .incarnation = worker->incarnation};
    memcpy(ret->address_unix, worker->address_unix, sizeof ret->address_unix);
    memcpy(ret->address_tcp, worker->address_tcp, sizeof ret->address_tcp);
    memcpy(ret->host, worker->host, sizeof ret->host);
}

struct head_worker *worker_living(struct head *head, uint64_t incarnation)
{
    for (uint32_t i = 0; i < HEAD_WORKERS_MAX; i++)
        if (head->worker[i] != NULL && head->worker[i]->incarnation == incarnation)
            return head->worker[i];
    return NULL;
}

// Its record with the generation in which it was last here; 0: the next life of the head need not wait for it.
static void remember(struct head *head, const struct head_worker *worker, uint64_t generation)
{
    struct record record = {.kind = RECORD_WORKER};

    record.worker.incarnation = worker->incarnation;
    record.worker.generation = generation;
    record.worker.memory_bytes = worker->devices > 0 ? worker->device[0].capacity_bytes : 0;
    record.worker.seen_ns = (uint64_t)((int64_t)worker->joined_ns + head->config.wall_offset_ns);
    record.worker.devices = worker->devices;
    snprintf(record.worker.name, sizeof record.worker.name, "%s", worker->name);
    snprintf(record.worker.address, sizeof record.worker.address, "%s", worker->address_tcp);
    snprintf(record.worker.backend, sizeof record.worker.backend, "%s", worker->devices > 0 ? worker->device[0].backend : "");
    record.worker.numerics = worker->devices > 0 ? worker_numerics(worker, 0) : 0;
    head_commit_record(head, &record, STORE_WORKER, TICKET_SIDE);
}

void worker_unremember(struct head *head, const char *name)
{
    struct record record = {.kind = RECORD_WORKER};

    snprintf(record.worker.name, sizeof record.worker.name, "%s", name);
    head_commit_record(head, &record, STORE_WORKER, TICKET_SIDE);
}

void worker_name(const struct head *head, uint64_t incarnation, char ret[64])
{
    ret[0] = '\0';
    for (uint32_t i = 0; i < GONE_REMEMBERED; i++)
        if (incarnation != 0 && head->gone[i].incarnation == incarnation)
            memcpy(ret, head->gone[i].name, sizeof head->gone[i].name);
    for (uint32_t i = 0; i < HEAD_WORKERS_MAX; i++)
        if (head->worker[i] != NULL && head->worker[i]->incarnation == incarnation)
            memcpy(ret, head->worker[i]->name, sizeof head->worker[i]->name);
}

// Whoever joins under the name of a worker that counts as alive is a new life of it whose old connection has not closed here yet, or a twin.
// Only the old one can tell them apart: the dead one is silent. A lease's worth of heartbeats says that it lives; a count and not a time,
// since a clock may jump. Until then the newcomer may ask again. One newcomer is judged at a time.
static bool has_outlived(struct head_worker *old, uint64_t newcomer)
{
    bool is_judged = old->beats_challenged >= HEAD_LEASE_NS / HEAD_HEARTBEAT_NS;

    if (old->challenger == newcomer)
        return is_judged;
    if (old->challenger == 0 || is_judged) {
        old->challenger = newcomer;
        old->beats_challenged = 0;
    }
    return false;
}

static void refuse_name(struct head *head, const struct head_link *link, struct head_worker *old, uint64_t newcomer)
{
    if (has_outlived(old, newcomer))
        head_reply_failed(head, link->link, 0, DJ_E_INVALID,
                          "another worker named %s is alive here; start this one with another --name", old->name);
    else
        head_reply_failed(head, link->link, 0, DJ_E_BUSY,
                          "a worker named %s was heard a moment ago; if that was an earlier life of this one, its name is free "
                          "within %u s",
                          old->name, (uint32_t)(HEAD_LEASE_NS / 1000000000));
    head_close(head, link->link);
}

void worker_join(struct head *head, struct head_link *link, const struct wire_join *join)
{
    uint32_t slot = 0;

    if (link->worker != NULL || join->name[0] == '\0' || join->devices_count == 0) {
        head_reply_failed(head, link->link, 0, DJ_E_MALFORMED, "JOIN needs a name and at least one device, once");
        return;
    }
    struct head_worker *old = find_named(head, join->name);
    if (old != NULL && old->incarnation != join->incarnation && old->link != 0 &&
        actor_now_ns(head->self) - old->last_heard_ns < HEAD_LEASE_NS && old->pid != join->pid) {
        refuse_name(head, link, old, join->incarnation);
        return;
    }
    if (old != NULL)
        worker_fence(head, old, "a new life of it joins");
    while (slot < HEAD_WORKERS_MAX && head->worker[slot] != NULL)
        slot++;
    struct head_worker *worker = slot == HEAD_WORKERS_MAX ? NULL : fill(link, join, actor_now_ns(head->self));
    if (worker == NULL || !take_devices(head, worker)) {
        free(worker);
        head_reply_failed(head, link->link, 0, DJ_E_LIMIT, "this head serves at most %d workers with %d devices",
                          HEAD_WORKERS_MAX, HEAD_DEVICES_MAX);
        head_close(head, link->link);
        return;
    }
    worker->id = slot + 1;
    head->worker[slot] = worker;
    link->worker = worker;

    struct wire_joined joined = {
        .worker = worker->id, .generation = head->generation, .lease_ns = HEAD_LEASE_NS, .heartbeat_ns = HEAD_HEARTBEAT_NS};
    head_send(head, link->link, WIRE_JOINED, wire_joined_encode(&joined));
    remember(head, worker, head->generation);
    log_write(LOG_INFO, "head", "worker joined name=%s id=%u devices=%u address=%s", worker->name, worker->id, worker->devices,
              worker->address_tcp);
    session_worker_joined(head);
}

void worker_heard(struct head *head, struct head_worker *worker, const struct wire_heartbeat *beat)
{
    worker->last_heard_ns = actor_now_ns(head->self);
    worker->load = *beat;
    worker->beats_challenged++;
    struct wire_heartbeat_ok ok = {.sequence = beat->sequence, .sent_ns = beat->sent_ns, .generation = head->generation};
    head_send(head, worker->link, WIRE_HEARTBEAT_OK, wire_heartbeat_ok_encode(&ok));
}

// From here on nothing that this incarnation says counts.
void worker_fence(struct head *head, struct head_worker *worker, const char *why)
{
    struct wire_worker_gone gone = {.worker = worker->id, .incarnation = worker->incarnation};
    struct hash128 key;
    uint32_t cursor = 0;
    struct head_link *link;

    log_write(LOG_WARN, "head", "worker fenced name=%s id=%u: %s", worker->name, worker->id, why);
    snprintf(gone.name, sizeof gone.name, "%s", worker->name);
    while ((link = map_next(head->links, &cursor, &key)) != NULL)
        if (link->role == ROLE_CLIENT)
            head_send(head, link->link, WIRE_WORKER_GONE, wire_worker_gone_encode(&gone));
    link = map_get(head->links, map_key(worker->link));
    if (link != NULL && link->worker == worker) {
        link->worker = NULL;
        head_close(head, worker->link);
    }
    struct gone_worker *remembered = &head->gone[head->gones++ % GONE_REMEMBERED];
    remembered->incarnation = worker->incarnation;
    memcpy(remembered->name, worker->name, sizeof remembered->name);
    remember(head, worker, 0);
    give_devices(head, worker);
    head->worker[worker->id - 1] = NULL;
    lineage_fence(head, worker->incarnation);
    leaves_worker_gone(head, worker);
    recoveries_worker_gone(head, worker);
    session_worker_gone(head, worker);
    free(worker);
}

// Silence counts only as far as the head itself was awake. A gap between two checks is time in which it could not have heard anybody: every
// lease is longer by that much (a worker counts its own from what it sent, so the head's is never the shorter one). And a head that was
// held up finds heartbeats still waiting in its queue: silence must be seen twice, a check apart.
void workers_check(struct head *head, uint64_t now_ns)
{
    uint64_t since_ns = now_ns - head->checked_ns, gap_ns = since_ns > HEAD_CHECK_NS ? since_ns - HEAD_CHECK_NS : 0;

    head->checked_ns = now_ns;
    for (uint32_t i = 0; i < HEAD_WORKERS_MAX; i++) {
        struct head_worker *worker = head->worker[i];
        if (worker == NULL)
            continue;
        worker->last_heard_ns = now_ns - worker->last_heard_ns > gap_ns ? worker->last_heard_ns + gap_ns : now_ns;
        bool is_silent = now_ns - worker->last_heard_ns > HEAD_LEASE_NS;
        if (is_silent && worker->is_suspect)
            worker_fence(head, worker, "no heartbeat for longer than its lease");
        else
            worker->is_suspect = is_silent;
    }
}
