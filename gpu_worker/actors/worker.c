// Worker: the root actor: starts, and routes events to the files of this folder. The manual is worker.h.

#include "gpu_worker/actors/worker.h"

#include "core/base/assert.h"
#include "core/base/log.h"
#include "core/base/planted.h"
#include "gpu_worker/actors/state.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAILBOX = 1 << 15, ARENA_CHUNK = 1 << 16, ARENA_MAX = 256 << 20, LOSSES_MAX = 3 };
#define SWEEP_EVERY_NS ((uint64_t)250000000)
#define STOP_WITHIN_NS ((uint64_t)5000000000)

// Sending ------------------------------------------------------------------------------------------------------------

void worker_send(struct worker *worker, uint64_t link, uint16_t message, struct blob *body)
{
    if (body == NULL) {
        log_write(LOG_ERROR, "worker", "cannot encode a message message=%s", wire_name(message));
        return;
    }
    actor_send(worker->self, link, message, body, NULL, 0, 0, 0);
}

void worker_fail(struct worker *worker, uint64_t link, uint64_t request, enum dj_error error, const char *format, ...)
{
    struct wire_failed failed = {.request = request, .error = (uint32_t)error};
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(failed.text, sizeof failed.text, format, arguments);
    va_end(arguments);
    worker_send(worker, link, WIRE_FAILED, wire_failed_encode(&failed));
}

// A lease runs from when the heartbeat that renewed it was sent; without one, nothing is answered (design, rule 17).
bool worker_may_answer(const struct worker *worker)
{
    return worker->config.head[0] == '\0' || actor_now_ns(worker->self) < worker_lease(worker);
}

uint64_t worker_lease(const struct worker *worker)
{
    return worker->config.head[0] == '\0'
               ? 0
               : worker->lease_until_ns + (PLANTED(LATE_ANSWER) && map_count(worker->sessions) > 1) * (uint64_t)3000000000;
}

// Devices ------------------------------------------------------------------------------------------------------------

bool worker_submit(struct worker *worker, struct exec_run *run, const struct flight *flight)
{
    struct flight *made = malloc(sizeof *made);
    if (made == NULL)
        return false;
    *made = *flight;
    made->run = run;
    list_init(&made->early);
    run->list.incarnation = worker->incarnation;
    uint64_t ticket = actor_device_submit(worker->self, made->device, &run->list);
    worker->out++;
    if (map_put(worker->flights, map_key(ticket), made) == DJ_OK)
        return true;
    // The list is on its way and cannot be called back: without a record of it its end would be lost.
    log_write(LOG_ERROR, "worker", "no room to remember what is on the device");
    actor_exit(worker->self, 1);
    return true;
}

static void complete(struct worker *worker, struct flight *done)
{
    struct flight flight = *done;
    list_remove(&done->early);
    map_take(worker->flights, map_key(done->run->list.ticket));
    free(done);
    exec_complete(worker->exec, flight.run);
    switch ((enum run_owner)flight.kind) {
    case OWNER_WORK: worker_run_done(worker, flight.work, flight.run); break;
    case OWNER_LEAF_IN: worker_leaf_chunk_done(worker, flight.content, flight.run); break;
    case OWNER_LEAF_OUT: worker_serve_chunk_done(worker, flight.served, flight.run); break;
    case OWNER_PIECE: worker_cut_read_done(worker, flight.piece, flight.run); break;
    case OWNER_LANDING: worker_direct_done(worker, flight.landing, flight.run); break;
    }
}

static struct flight *next_early(const struct worker *worker)
{
    list_each (node, &worker->early) {
        struct flight *flight = list_entry(node, struct flight, early);
        if (exec_may_complete(flight->run))
            return flight;
    }
    return NULL;
}

// A fetch that overtakes computing may be back before what made its value, of which it is not known yet whether it failed.
static void device_done(struct worker *worker, const struct device_list *list)
{
    struct flight *done = map_get(worker->flights, map_key(list->ticket));
    assert(done != NULL);
    worker->out--;
    if (list->error == DJ_E_DEVICE_LOST && !worker->is_lost)
        log_write(LOG_WARN, "worker", "%s; starting anew: %s", dj_error_text(DJ_E_DEVICE_LOST), list->fault.text);
    worker->is_lost = worker->is_lost || list->error == DJ_E_DEVICE_LOST;
    if (worker->is_lost)
        return;    // nobody hears of it: to all others this life of the worker died
    list_push(&worker->early, &done->early);
    while ((done = next_early(worker)) != NULL)
        complete(worker, done);
}

// Events -------------------------------------------------------------------------------------------------------------

static void link_up(struct worker *worker, const struct io_event *event)
{
    uint64_t link = event->link_up.link, request = event->link_up.request;
    struct peer *peer;
    if (request == 0)
        worker_links_up(worker, link);
    else if (request == worker->head_request)
        worker_head_up(worker, link);
    else if (worker_peer_owns(worker, 0, request, &peer))
        worker_peer_up(worker, peer, link);
    else
        actor_link_close(worker->self, link);
}

static void link_down(struct worker *worker, const struct io_event *event)
{
    uint64_t link = event->link_down.link, request = event->link_down.request;
    struct peer *peer;
    bool is_head = link != 0 ? link == worker->head_link : request == worker->head_request && worker->head_request != 0;
    if (is_head) {
        worker_head_down(worker, event->link_down.error);
        return;
    }
    if (worker_peer_owns(worker, link, request, &peer)) {
        worker_peer_down(worker, peer);
        return;
    }
    worker_links_down(worker, link);
}

static void received(struct worker *worker, const struct io_event *event)
{
    uint64_t id = event->recv.link;
    uint16_t message = event->recv.message;
    struct blob *body = event->recv.body, *bulk = event->recv.bulk;
    struct worker_link *link = map_get(worker->links, map_key(id));
    struct peer *peer;
    enum dj_error error = DJ_OK;
    if (link != NULL) {
        worker_links_message(worker, link, message, body, bulk);
    } else if (id == worker->head_link) {
        error = worker_head_message(worker, message, body, bulk);
        if (error != DJ_OK) {
            log_write(LOG_ERROR, "worker", "the head said what it may not: %s message=%s", dj_error_text(error),
                      wire_name(message));
            actor_link_close(worker->self, id);
            worker_head_down(worker, error);
        }
    } else if (worker_peer_owns(worker, id, 0, &peer)) {
        error = worker_peer_message(worker, peer, message, body, bulk);
        if (error != DJ_OK) {
            actor_link_close(worker->self, id);
            worker_peer_down(worker, peer);
        }
    }
    blob_drop(body);
    blob_drop(bulk);
}

static void stop(struct worker *worker)
{
    if (worker->is_stopping)
        return;
    worker->is_stopping = true;
    worker->stop_at_ns = actor_now_ns(worker->self) + STOP_WITHIN_NS;
    log_write(LOG_INFO, "worker", "stopping in_flight=%u", map_count(worker->flights));
    worker_head_leave(worker);
}

// A stop ends the process once the device is idle, or when it takes too long; a drain once the last session has gone.
static void stop_if_done(struct worker *worker)
{
    if (worker->is_draining && !worker->is_stopping && map_count(worker->sessions) == 0)
        stop(worker);
    if (worker->is_stopping && (map_count(worker->flights) == 0 || actor_now_ns(worker->self) >= worker->stop_at_ns))
        actor_exit(worker->self, 0);
}

static void worker_event(struct worker *worker, const struct io_event *event)
{
    switch (event->kind) {
    case IO_RECV: received(worker, event); break;
    case IO_LINK_UP: link_up(worker, event); break;
    case IO_LINK_DOWN: link_down(worker, event); break;
    case IO_DEVICE_DONE: device_done(worker, event->device_done.list); break;
    case IO_SUBMIT:
        if (event->submit.verb == WORKER_STOP)
            stop(worker);
        break;
    case IO_START:
    case IO_WRITABLE:
    case IO_TIMER:
    case IO_STORE_DONE:
    case IO_COMPUTE_DONE: break;
    }
}

static void worker_timer(struct worker *worker, uint32_t number)
{
    switch (number) {
    case TIMER_HEAD: worker_head_dial(worker); break;
    case TIMER_BEAT: worker_head_beat(worker); break;
    case TIMER_BATCH: worker_serve_flush(worker); break;
    case TIMER_JOURNAL:
        if (worker_journal_flush(worker))
            worker_sessions_admit_settled(worker);
        break;
    case TIMER_CUTS: worker_cuts_tick(worker); break;
    case TIMER_SWEEP:
        actor_timer(worker->self, TIMER_SWEEP, actor_now_ns(worker->self) + SWEEP_EVERY_NS);
        worker_sessions_sweep(worker);
        worker_streams_probe(worker);
        worker_cuts_sweep(worker);
        worker_journal_sweep(worker);
        worker_leaves_sweep(worker);
        worker_imports_sweep(worker);
        worker_lents_sweep(worker);
        worker_peer_fetches_pump(worker);
        if (map_count(worker->flights) == 0 && worker->load.executions != worker->trimmed_at) {
            worker->trimmed_at = worker->load.executions;
            exec_trim(worker->exec);
        }
        worker_pump(worker);
        break;
    default: break;
    }
}

static enum dj_error worker_receive(struct actor *self, void *state, struct letter *letter)
{
    struct worker *worker = state;
    worker->self = self;
    arena_reset(worker->arena);
    if (worker->is_lost && !(letter->kind == LETTER_EVENT && letter->event.kind == IO_DEVICE_DONE)) {
        if (letter->kind == LETTER_EVENT)
            event_drop(&letter->event);
    } else if (letter->kind == LETTER_EVENT)
        worker_event(worker, &letter->event);
    else if (letter->kind == LETTER_TIMER)
        worker_timer(worker, letter->number);
    if (worker->is_lost && worker->is_stopping)
        actor_exit(self, 0);
    if (worker->is_lost && worker->out == 0)
        return DJ_E_DEVICE_LOST;    // its supervisor starts it again
    stop_if_done(worker);
    return DJ_OK;
}

// Life ---------------------------------------------------------------------------------------------------------------

static void leaf_dropped(void *context, struct hash128 content)
{
    worker_serve_tell(context, content, 0, false, false);
}

static enum dj_error make_tables(struct worker *worker)
{
    enum dj_error error = map_make(WORKER_LINKS_MAX, &worker->links);
    if (error == DJ_OK)
        error = map_make(WORKER_SESSIONS_MAX, &worker->sessions);
    if (error == DJ_OK)
        error = map_make(WORKER_WANTS_MAX, &worker->wants);
    if (error == DJ_OK)
        error = map_make(WORKER_PEERS_MAX, &worker->peers);
    if (error == DJ_OK)
        error = map_make(1 << 20, &worker->flights);
    if (error == DJ_OK)
        error = map_make(1 << 20, &worker->pieces);
    if (error == DJ_OK)
        error = map_make(1 << 16, &worker->safe);
    if (error == DJ_OK)
        error = arena_make(ARENA_CHUNK, ARENA_MAX, &worker->arena);
    return error;
}

static enum dj_error worker_start(struct actor *self, void *state, const void *argument)
{
    struct worker *worker = state;
    worker->self = self;
    worker->config = *(const struct worker_config *)argument;
    if (worker->config.devices > 0 && worker->config.device[0]->info->is_gone) {
        log_write(LOG_ERROR, "worker", "the device is gone for as long as this process lives: it ends, to be started again");
        return DJ_E_DEVICE_LOST;
    }
    if (worker->config.devices > 0 && worker->config.device[0]->info->lives > 0)
        worker->config.incarnation = hash_mix(worker->config.incarnation, (uint64_t)worker->config.device[0]->info->lives << 32);
    worker->incarnation = worker->config.incarnation;
    if (worker->config.grace_ns == 0)
        worker->config.grace_ns = WORKER_GRACE_NS;
    worker->journal_next = 1;
    worker->scratch = writer_make(RECORD_BYTES_MAX);
    worker->delta = writer_make(RECORD_DELTA_BYTES_MAX);
    list_init(&worker->serving);
    list_init(&worker->early);
    list_init(&worker->peer_fetches);
    list_init(&worker->gone);
    list_init(&worker->gone_streams);
    list_init(&worker->timed_values);
    list_init(&worker->cuts);
    list_init(&worker->safe_order);
    list_init(&worker->imports);
    list_init(&worker->lents);
    list_init(&worker->journal);
    if (worker->config.devices == 0)
        return DJ_E_NO_DEVICE;
    const char *numerics = worker->config.device[0]->info->numerics;
    worker->numerics = record_numerics(numerics);
    enum dj_error error = make_tables(worker);
    if (error == DJ_OK)
        error = exec_make(worker->config.device[0], &worker->exec);
    if (error != DJ_OK)
        return error;
    exec_on_leaf_dropped(worker->exec, leaf_dropped, worker);
    actor_accept_links(self);
    actor_accept_submits(self);
    actor_timer(self, TIMER_SWEEP, actor_now_ns(self) + SWEEP_EVERY_NS);
    worker_head_dial(worker);
    return DJ_OK;
}

static void free_links(struct worker *worker)
{
    uint32_t cursor = 0;
    for (struct worker_link *link; worker->links != NULL && (link = map_next(worker->links, &cursor, NULL)) != NULL;) {
        worker_link_plans_free(link);
        free(link);
    }
    cursor = 0;
    for (void *entry; worker->wants != NULL && (entry = map_next(worker->wants, &cursor, NULL)) != NULL;)
        free(entry);
    cursor = 0;
    for (void *entry; worker->peers != NULL && (entry = map_next(worker->peers, &cursor, NULL)) != NULL;)
        free(entry);
}

// A leaf on its way out stays in `serving` while a piece of it is read, and is freed there.
static void free_flights(struct worker *worker)
{
    uint32_t cursor = 0;
    for (struct flight *flight; worker->flights != NULL && (flight = map_next(worker->flights, &cursor, NULL)) != NULL;) {
        if (flight->kind == OWNER_WORK) {
            worker_cut_free(worker, flight->work->cut);
            worker_work_free(flight->work);
        } else if (flight->kind == OWNER_PIECE) {
            worker_cuts_piece_free(worker, flight->piece);
        }
        free(flight->landing);
        free(flight);
    }
}

static void worker_end(struct actor *self, void *state)
{
    struct worker *worker = state;
    worker->self = self;
    worker_sessions_free(worker);    // it looks at links
    free_links(worker);
    free_flights(worker);
    list_each (node, &worker->serving) {
        struct served *served = list_entry(node, struct served, list);
        list_remove(node);
        blob_drop(served->piece);
        free(served);
    }
    list_each (node, &worker->imports) {
        list_remove(node);
        free(list_entry(node, struct import, list));
    }
    list_each (node, &worker->lents) {
        list_remove(node);
        free(list_entry(node, struct lent, list));
    }
    list_each (node, &worker->peer_fetches) {
        list_remove(node);
        worker_work_free(list_entry(node, struct work, queue));
    }
    worker_values_free(worker);
    worker_journal_free(worker);
    free(worker->held);
    free(worker->gained);
    free(worker->dropped);
    free(worker->to_store);
    map_free(worker->links);
    map_free(worker->sessions);
    map_free(worker->wants);
    map_free(worker->peers);
    map_free(worker->flights);
    map_free(worker->pieces);
    map_free(worker->safe);
    arena_free(worker->arena);
    exec_free(worker->exec);
}

const struct actor_class worker_class = {
    .name = "worker",
    .state_bytes = sizeof(struct worker),
    .mailbox_capacity = MAILBOX,
    .start = worker_start,
    .receive = worker_receive,
    .end = worker_end,
    .restarts_max = LOSSES_MAX,
};
