// Process: the step. What was posted is routed to its owner's mailbox, due timers become letters, and letters are handled one at a time, actors
// taking turns in the order in which they became ready. Nothing here depends on anything but the events and the clock value, so the same
// events give the same effects. The manual is actor.h.

#include "core/actors/process.h"

#include "core/base/assert.h"
#include "core/base/log.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { EVENTS_FIRST = 64 };

enum dj_error process_make(struct process **ret)
{
    struct process *process = calloc(1, sizeof *process);
    if (process == NULL)
        return DJ_E_NO_MEMORY;
    list_init(&process->ready);
    effects_init(&process->silent);
    process->effects = &process->silent;
    enum dj_error error = map_make(PROCESS_LINKS_MAX, &process->links);
    if (error == DJ_OK)
        error = map_make(PROCESS_TICKETS_MAX, &process->tickets);
    if (error != DJ_OK) {
        process_free(process);
        return error;
    }
    *ret = process;
    return DJ_OK;
}

enum dj_error process_root(struct process *process, const struct actor_class *class, const void *argument, size_t argument_bytes)
{
    assert(!process->is_started);
    if (process->roots == PROCESS_ROOTS_MAX)
        return DJ_E_LIMIT;
    void *kept = malloc(argument_bytes == 0 ? 1 : argument_bytes);
    if (kept == NULL)
        return DJ_E_NO_MEMORY;
    if (argument_bytes != 0)
        memcpy(kept, argument, argument_bytes);
    process->root[process->roots].class = class;
    process->root[process->roots].argument = kept;
    process->root[process->roots].argument_bytes = argument_bytes;
    process->roots++;
    return DJ_OK;
}

static uint32_t events_waiting(const struct process *process)
{
    return process->event_head - process->event_tail;
}

void process_free(struct process *process)
{
    if (process == NULL)
        return;
    process->has_exited = true;
    for (uint32_t i = 0; i < process->slots; i++) {
        struct actor *actor = process->slot[i].actor;
        if (actor != NULL) {
            while (actor->parent != NULL)
                actor = actor->parent;
            actor_end(actor, DJ_E_CLOSED);
        }
    }
    for (; events_waiting(process) > 0; process->event_tail++)
        event_drop(&process->event[process->event_tail & (process->event_slots - 1)]);
    for (uint32_t i = 0; i < process->roots; i++)
        free(process->root[i].argument);
    effects_free(&process->silent);
    timers_free(&process->timers);
    map_free(process->links);
    map_free(process->tickets);
    free(process->event);
    free(process->slot);
    free(process->free_slot);
    free(process->stop);
    free(process);
}

// Events -----------------------------------------------------------------------------------------------------------------

static bool grow_events(struct process *process)
{
    uint32_t slots = process->event_slots == 0 ? EVENTS_FIRST : process->event_slots * 2;
    struct io_event *event = malloc(slots * sizeof *event);
    if (event == NULL)
        return false;
    uint32_t waiting = events_waiting(process);
    for (uint32_t i = 0; i < waiting; i++)
        event[i] = process->event[(process->event_tail + i) & (process->event_slots - 1)];
    free(process->event);
    process->event = event;
    process->event_slots = slots;
    process->event_tail = 0;
    process->event_head = waiting;
    return true;
}

enum dj_error process_post(struct process *process, const struct io_event *event)
{
    uint32_t waiting = events_waiting(process);
    if (waiting == process->event_slots && (waiting == PROCESS_EVENTS_MAX || !grow_events(process))) {
        process->stats.refused++;
        return waiting == PROCESS_EVENTS_MAX ? DJ_E_MAILBOX_FULL : DJ_E_NO_MEMORY;
    }
    process->event[process->event_head++ & (process->event_slots - 1)] = *event;
    process->stats.events++;
    if (waiting + 1 > process->stats.queue_max)
        process->stats.queue_max = waiting + 1;
    return DJ_OK;
}

// Routing ----------------------------------------------------------------------------------------------------------------

enum route { ROUTED, ROUTE_FULL, ROUTE_NOBODY };

static enum route deliver(struct process *process, actor_id to, const struct io_event *event)
{
    struct actor *actor = to == 0 ? NULL : actor_find(process, to);
    if (actor == NULL)
        return ROUTE_NOBODY;
    if (mailbox_post(&actor->box, &(struct letter){.kind = LETTER_EVENT, .event = *event}) != DJ_OK)
        return ROUTE_FULL;
    actor_wake(actor);
    return ROUTED;
}

static actor_id look_up(const struct map *map, uint64_t number)
{
    return (actor_id)(uintptr_t)map_get(map, map_key(number));
}

static enum route route_link_up(struct process *process, const struct io_event *event)
{
    uint64_t link = event->link_up.link, request = event->link_up.request;
    actor_id owner = process->acceptor;
    if (request != 0)
        owner = look_up(process->tickets, request);
    else if (event->link_up.listener < PROCESS_LISTENERS_MAX && process->acceptor_of[event->link_up.listener] != 0)
        owner = process->acceptor_of[event->link_up.listener];

    enum route route = ROUTE_NOBODY;
    struct actor *actor = owner == 0 ? NULL : actor_find(process, owner);
    if (actor != NULL && map_put(process->links, map_key(link), (void *)(uintptr_t)owner) == DJ_OK) {
        actor->links++;
        route = deliver(process, owner, event);
        if (route != ROUTED) {
            map_take(process->links, map_key(link));
            actor->links--;
        }
    }
    if (route != ROUTE_FULL)
        map_take(process->tickets, map_key(request));
    if (route == ROUTE_NOBODY)
        effects_add(process->effects, IO_LINK_CLOSE)->link_close.link = link;
    return route;
}

static enum route route_link_down(struct process *process, const struct io_event *event)
{
    uint64_t link = event->link_down.link;
    if (link == 0) {
        enum route route = deliver(process, look_up(process->tickets, event->link_down.request), event);
        if (route != ROUTE_FULL)
            map_take(process->tickets, map_key(event->link_down.request));
        return route;
    }
    actor_id owner = look_up(process->links, link);
    enum route route = deliver(process, owner, event);
    if (route != ROUTE_FULL && map_take(process->links, map_key(link)) != NULL) {
        struct actor *actor = actor_find(process, owner);
        if (actor != NULL)
            actor->links--;
    }
    return route;
}

static enum route route_ticket(struct process *process, uint64_t ticket, const struct io_event *event)
{
    enum route route = deliver(process, look_up(process->tickets, ticket), event);
    if (route != ROUTE_FULL)
        map_take(process->tickets, map_key(ticket));
    return route;
}

// To each of several actors, or to none yet.
static enum route route_to_all(struct process *process, const actor_id *id, uint32_t count, const struct io_event *event)
{
    for (uint32_t i = 0; i < count; i++) {
        struct actor *actor = actor_find(process, id[i]);
        if (actor != NULL && mailbox_is_full(&actor->box))
            return ROUTE_FULL;
    }
    enum route route = ROUTE_NOBODY;
    for (uint32_t i = 0; i < count; i++) {
        if (deliver(process, id[i], event) == ROUTED)
            route = ROUTED;
    }
    return route;
}

static enum route route_event(struct process *process, const struct io_event *event)
{
    switch (event->kind) {
    case IO_START: return route_to_all(process, process->root_id, process->roots, event);
    case IO_RECV: return deliver(process, look_up(process->links, event->recv.link), event);
    case IO_WRITABLE: return deliver(process, look_up(process->links, event->writable.link), event);
    case IO_LINK_UP: return route_link_up(process, event);
    case IO_LINK_DOWN: return route_link_down(process, event);
    case IO_STORE_DONE: return route_ticket(process, event->store_done.ticket, event);
    case IO_DEVICE_DONE: return route_ticket(process, event->device_done.list->ticket, event);
    case IO_COMPUTE_DONE: return route_ticket(process, event->compute_done.ticket, event);
    case IO_SUBMIT: return route_to_all(process, process->submit_acceptor, process->submit_acceptors, event);
    case IO_TIMER: return ROUTED;    // a reason to run; the clock does the rest
    }
    return ROUTE_NOBODY;
}

// Until an owner's mailbox is full: then letters are handled first, and routing goes on from there, so that order is kept.
static void route_events(struct process *process)
{
    while (events_waiting(process) > 0) {
        struct io_event *event = &process->event[process->event_tail & (process->event_slots - 1)];
        enum route route = route_event(process, event);
        if (route == ROUTE_FULL)
            return;
        if (route == ROUTE_NOBODY)
            event_drop(event);
        process->event_tail++;
    }
}

static void fire_timers(struct process *process)
{
    struct timer *timer;
    while ((timer = timers_take(&process->timers, process->now_ns)) != NULL) {
        mailbox_force(&timer->actor->box, &(struct letter){.kind = LETTER_TIMER, .number = timer->number, .from = timer->fired});
        actor_wake(timer->actor);
    }
}

// The step ---------------------------------------------------------------------------------------------------------------

static void stop_those_asked(struct process *process)
{
    for (uint32_t i = 0; i < process->stops; i++) {    // ending one may ask for more
        struct actor *actor = actor_find(process, process->stop[i]);
        if (actor != NULL)
            actor_end(actor, DJ_OK);
    }
    process->stops = 0;
}

static void run_letter(struct process *process, struct actor *actor)
{
    actor_id id = actor->id;
    struct letter letter;
    if (!mailbox_take(&actor->box, &letter))
        return;    // its letters went away with a link
    process->stats.letters++;

    enum dj_error error = DJ_OK;
    if (letter.kind != LETTER_TIMER || actor_timer_arrives(actor, &letter))
        error = actor->class->receive(actor, actor->state, &letter);
    if (error == DJ_OK)
        error = actor->broken;
    if (error != DJ_OK)
        actor_failed(actor, error);
    stop_those_asked(process);
    actor = actor_find(process, id);
    if (actor != NULL && mailbox_depth(&actor->box) > 0)
        actor_wake(actor);
}

static void start_roots(struct process *process)
{
    process->is_started = true;
    for (uint32_t i = 0; i < process->roots && !process->has_exited; i++) {
        enum dj_error error = actor_make_under(process, NULL, process->root[i].class, process->root[i].argument,
                                               process->root[i].argument_bytes, &process->root_id[i]);
        if (error == DJ_OK)
            continue;
        log_write(LOG_ERROR, "actors", "a root actor did not start actor=%s error=%s", process->root[i].class->name,
                  dj_error_name(error));
        process->has_exited = true;
        effects_add(process->effects, IO_STOP)->stop.exit_code = PROCESS_EXIT_FAILED;
    }
    stop_those_asked(process);
}

bool process_run(struct process *process, uint64_t now_ns, struct io_effects *ret)
{
    // A clock that goes back would make timers fire out of order.
    if (now_ns > process->now_ns)
        process->now_ns = now_ns;
    process->effects = ret;
    if (!process->is_started)
        start_roots(process);

    uint32_t left = PROCESS_STEP_LETTERS_MAX;
    fire_timers(process);
    while (left > 0 && !process->has_exited) {
        route_events(process);
        if (list_is_empty(&process->ready))
            break;
        struct actor *actor = list_entry(process->ready.next, struct actor, ready);
        list_remove(&actor->ready);
        run_letter(process, actor);
        left--;
    }
    process->effects = &process->silent;
    return process_deadline_ns(process) <= process->now_ns;
}

uint64_t process_deadline_ns(const struct process *process)
{
    if (process->has_exited)
        return UINT64_MAX;
    if (!process->is_started || events_waiting(process) > 0 || !list_is_empty(&process->ready))
        return 0;
    return timers_next_ns(&process->timers);
}

struct process_stats process_stats(const struct process *process)
{
    return process->stats;
}
