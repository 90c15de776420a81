// Family: how actors come to be, end and are restarted. The manual is actor.h.
//
// Ending goes from the leaves up, so that an actor's `end` never meets a child that still runs. Restarting ends everything inside an actor and
// starts it again in its old slot: those who know its id need not be told.

#include "core/actors/process.h"

#include "core/base/assert.h"
#include "core/base/log.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define RESTART_WINDOW_NS 10000000000u

enum { SLOTS_FIRST = 16, WATCHERS_FIRST = 4 };

static uint32_t index_of(actor_id id)
{
    return (uint32_t)id;
}

struct actor *actor_find(const struct process *process, actor_id id)
{
    uint32_t index = index_of(id);
    if (index >= process->slots || process->slot[index].generation != (uint32_t)(id >> 32))
        return NULL;
    return process->slot[index].actor;
}

static bool grow_slots(struct process *process)
{
    uint32_t slots = process->slots == 0 ? SLOTS_FIRST : process->slots * 2;
    if (slots > PROCESS_ACTORS_MAX)
        return false;
    struct actor_slot *slot = realloc(process->slot, slots * sizeof *slot);
    if (slot != NULL)
        process->slot = slot;
    uint32_t *free_slot = realloc(process->free_slot, slots * sizeof *free_slot);
    if (free_slot != NULL)
        process->free_slot = free_slot;
    if (slot == NULL || free_slot == NULL)
        return false;
    for (uint32_t i = slots; i > process->slots; i--) {
        slot[i - 1] = (struct actor_slot){.generation = 1};
        free_slot[process->free_slots++] = i - 1;
    }
    process->slots = slots;
    return true;
}

static void actor_free(struct actor *actor)
{
    struct process *process = actor->process;
    uint32_t index = index_of(actor->id);
    process->slot[index].actor = NULL;
    process->slot[index].generation++;
    process->free_slot[process->free_slots++] = index;
    process->stats.actors--;
    list_remove(&actor->sibling);
    free(actor->state);
    free(actor->argument);
    free(actor->watcher);
    free(actor);
}

static struct actor *actor_alloc(struct process *process, struct actor *parent, const struct actor_class *class,
                                 const void *argument, size_t argument_bytes)
{
    struct actor *actor = calloc(1, sizeof *actor);
    void *state = calloc(1, class->state_bytes == 0 ? 1 : class->state_bytes);
    void *kept = malloc(argument_bytes == 0 ? 1 : argument_bytes);
    if (actor == NULL || state == NULL || kept == NULL) {
        free(actor);
        free(state);
        free(kept);
        return NULL;
    }
    if (argument_bytes != 0)
        memcpy(kept, argument, argument_bytes);

    uint32_t index = process->free_slot[--process->free_slots];
    process->slot[index].actor = actor;
    process->stats.actors++;
    actor->process = process;
    actor->class = class;
    actor->id = (uint64_t)process->slot[index].generation << 32 | index;
    actor->parent = parent;
    actor->depth = parent == NULL ? 0 : parent->depth + 1;
    actor->state = state;
    actor->argument = kept;
    actor->argument_bytes = argument_bytes;
    list_init(&actor->children);
    list_init(&actor->sibling);
    list_init(&actor->ready);
    mailbox_init(&actor->box, class->mailbox_capacity == 0 ? MAILBOX_CAPACITY_DEFAULT : class->mailbox_capacity);
    for (uint32_t i = 0; i < ACTOR_TIMERS_MAX; i++)
        actor->timer[i].position = TIMER_NONE;
    if (parent != NULL)
        list_push(&parent->children, &actor->sibling);
    return actor;
}

static void actor_clear(struct actor *actor);

static enum dj_error actor_start(struct actor *actor)
{
    const void *argument = actor->argument_bytes == 0 ? NULL : actor->argument;
    enum dj_error error = actor->class->start == NULL ? DJ_OK : actor->class->start(actor, actor->state, argument);
    if (error == DJ_OK && actor->broken != DJ_OK)
        error = actor->broken;
    return error;
}

enum dj_error actor_make_under(struct process *process, struct actor *parent, const struct actor_class *class,
                               const void *argument, size_t argument_bytes, actor_id *ret)
{
    assert(class->receive != NULL && class->mailbox_capacity <= MAILBOX_CAPACITY_MAX);
    if (parent != NULL && (parent->depth + 1 >= ACTOR_DEPTH_MAX || parent->is_ending))
        return parent->is_ending ? DJ_E_CLOSED : DJ_E_LIMIT;
    if (process->free_slots == 0 && !grow_slots(process))
        return process->slots >= PROCESS_ACTORS_MAX ? DJ_E_LIMIT : DJ_E_NO_MEMORY;

    struct actor *actor = actor_alloc(process, parent, class, argument, argument_bytes);
    if (actor == NULL)
        return DJ_E_NO_MEMORY;
    enum dj_error error = actor_start(actor);
    if (error != DJ_OK) {
        actor->is_ending = true;
        actor_clear(actor);
        actor_free(actor);
        return error;
    }
    if (ret != NULL)
        *ret = actor->id;
    return DJ_OK;
}

// None of them is ending already: an actor ends from the leaves up, and nothing that runs meanwhile can end one above it.
static void end_children(struct actor *actor)
{
    for (struct list *first = actor->children.next; first != &actor->children; first = actor->children.next) {
        struct actor *child = list_entry(first, struct actor, sibling);
        assert(!child->is_ending);    // NOLINT(clang-analyzer-unix.Malloc): freeing a child has unlinked it
        actor_end(child, DJ_E_CLOSED);
    }
}

// Everything inside the actor but its state: children, letters, timers, links.
static void actor_clear(struct actor *actor)
{
    end_children(actor);
    actor_forget_links(actor);
    for (uint32_t i = 0; i < actor->timers; i++)
        timers_clear(&actor->process->timers, &actor->timer[i]);
    memset(actor->timer, 0, sizeof actor->timer);
    for (uint32_t i = 0; i < ACTOR_TIMERS_MAX; i++)
        actor->timer[i].position = TIMER_NONE;
    actor->timers = 0;
    actor->broken = DJ_OK;
    mailbox_free(&actor->box);
    list_remove(&actor->ready);
}

static void tell_watchers(struct actor *actor, enum dj_error error)
{
    uint32_t watchers = actor->watchers;
    actor->watchers = 0;
    for (uint32_t i = 0; i < watchers; i++) {
        struct actor *watcher = actor_find(actor->process, actor->watcher[i]);
        if (watcher == NULL || watcher->is_ending)
            continue;
        mailbox_force(&watcher->box, &(struct letter){.kind = LETTER_DOWN, .from = actor->id, .error = error});
        actor_wake(watcher);
    }
}

// The end of what the actor was; its slot and id stay.
static void actor_close(struct actor *actor, enum dj_error error)
{
    actor->is_ending = true;
    end_children(actor);
    if (actor->class->end != NULL)
        actor->class->end(actor, actor->state);
    actor_clear(actor);
    tell_watchers(actor, error);
}

void actor_end(struct actor *actor, enum dj_error error)
{
    if (actor->is_ending)
        return;
    actor_close(actor, error);
    actor_free(actor);
}

// Starts the actor again; false when its start fails, after which its state holds nothing.
static bool actor_restart(struct actor *actor, enum dj_error error)
{
    actor_close(actor, error);
    memset(actor->state, 0, actor->class->state_bytes);
    actor->is_ending = false;
    actor->process->stats.restarts++;
    enum dj_error again = actor_start(actor);
    if (again == DJ_OK)
        return true;
    log_write(LOG_WARN, "actors", "restart failed actor=%s error=%s", actor->class->name, dj_error_name(again));
    actor->is_ending = true;
    actor_clear(actor);
    actor_free(actor);
    return false;
}

static bool may_restart(struct actor *actor)
{
    uint64_t now_ns = actor->process->now_ns;
    if (actor->restarts == 0 || now_ns - actor->restarts_since_ns > RESTART_WINDOW_NS) {
        actor->restarts = 0;
        actor->restarts_since_ns = now_ns;
    }
    return actor->restarts++ < actor->class->restarts_max;
}

static enum actor_verdict verdict_on(struct actor *actor, enum dj_error error)
{
    struct actor *parent = actor->parent;
    if (parent == NULL)
        return actor->class->restarts_max > 0 ? ACTOR_RESTART : ACTOR_ESCALATE;
    if (parent->class->child_failed == NULL)
        return ACTOR_ESCALATE;
    return parent->class->child_failed(parent, parent->state, actor->id, error);
}

void actor_failed(struct actor *actor, enum dj_error error)
{
    struct process *process = actor->process;
    while (actor != NULL && !actor->is_ending) {
        log_write(LOG_WARN, "actors", "actor failed actor=%s id=%" PRIx64 " error=%s", actor->class->name, actor->id,
                  dj_error_name(error));
        struct actor *parent = actor->parent;
        enum actor_verdict verdict = verdict_on(actor, error);
        if (verdict == ACTOR_STOP) {
            actor_end(actor, error);
            return;
        }
        if (verdict == ACTOR_RESTART && may_restart(actor)) {
            if (actor_restart(actor, error))
                return;
        } else if (parent != NULL) {
            actor_end(actor, error);
        }    // a root ends with the process, when nothing of it is under way any more
        actor = parent;
        if (parent == NULL && !process->has_exited) {
            log_write(LOG_ERROR, "actors", "a root actor failed; the process ends error=%s", dj_error_name(error));
            effects_add(process->effects, IO_STOP)->stop.exit_code = PROCESS_EXIT_FAILED;
            process->has_exited = true;
        }
    }
}

void actor_watch(struct actor *self, actor_id who)
{
    struct actor *watched = actor_find(self->process, who);
    if (watched == NULL || watched->is_ending) {
        mailbox_force(&self->box, &(struct letter){.kind = LETTER_DOWN, .from = who, .error = DJ_E_NOT_FOUND});
        actor_wake(self);
        return;
    }
    // Those who are gone make room before the list grows.
    uint32_t kept = 0;
    for (uint32_t i = 0; i < watched->watchers && watched->watchers == watched->watcher_capacity; i++) {
        if (actor_find(self->process, watched->watcher[i]) != NULL)
            watched->watcher[kept++] = watched->watcher[i];
    }
    if (watched->watchers == watched->watcher_capacity)
        watched->watchers = kept;
    if (watched->watchers == ACTOR_WATCHERS_MAX) {
        self->broken = DJ_E_LIMIT;
        return;
    }
    if (watched->watchers == watched->watcher_capacity) {
        uint32_t capacity = watched->watcher_capacity == 0 ? WATCHERS_FIRST : watched->watcher_capacity * 2;
        actor_id *watcher = realloc(watched->watcher, capacity * sizeof *watcher);
        assert(watcher != NULL);
        watched->watcher = watcher;
        watched->watcher_capacity = capacity;
    }
    watched->watcher[watched->watchers++] = self->id;
}
