// Actor: what a handler may do. Each call changes the process's tables or adds an effect; none reaches another actor's code. The manual is
// actor.h.

#include "core/actors/process.h"

#include "core/base/assert.h"
#include "core/base/log.h"
#include "core/io/blob.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { STOPS_FIRST = 8 };

uint64_t actor_now_ns(const struct actor *self)
{
    return self->process->now_ns;
}

actor_id actor_self(const struct actor *self)
{
    return self->id;
}

void *actor_state(const struct actor *self)
{
    return self->state;
}

void actor_wake(struct actor *actor)
{
    if (list_is_empty(&actor->ready))
        list_push(&actor->process->ready, &actor->ready);
}

enum dj_error actor_make(struct actor *self, const struct actor_class *class, const void *argument, size_t argument_bytes,
                         actor_id *ret)
{
    return actor_make_under(self->process, self, class, argument, argument_bytes, ret);
}

static bool is_descendant(const struct actor *actor, const struct actor *ancestor)
{
    while (actor != NULL && actor != ancestor)
        actor = actor->parent;
    return actor != NULL;
}

void actor_stop(struct actor *self, actor_id who)
{
    struct process *process = self->process;
    struct actor *actor = actor_find(process, who);
    if (actor == NULL)
        return;
    if (!is_descendant(actor, self)) {
        self->broken = DJ_E_INVALID;
        return;
    }
    if (process->stops == process->stop_capacity) {
        uint32_t capacity = process->stop_capacity == 0 ? STOPS_FIRST : process->stop_capacity * 2;
        actor_id *stop = realloc(process->stop, capacity * sizeof *stop);
        assert(stop != NULL);
        process->stop = stop;
        process->stop_capacity = capacity;
    }
    process->stop[process->stops++] = who;
}

enum dj_error actor_post(struct actor *self, actor_id to, uint32_t number, void *payload, void (*payload_free)(void *))
{
    struct actor *receiver = actor_find(self->process, to);
    if (receiver == NULL || receiver->is_ending)
        return DJ_E_NOT_FOUND;
    struct letter letter = {
        .kind = LETTER_USER, .from = self->id, .number = number, .payload = payload, .payload_free = payload_free};
    enum dj_error error = mailbox_post(&receiver->box, &letter);
    if (error == DJ_OK)
        actor_wake(receiver);
    else
        self->process->stats.refused++;
    return error;
}

// Timers -----------------------------------------------------------------------------------------------------------------

static struct timer *timer_named(struct actor *self, uint32_t number)
{
    struct timer *unset = NULL;
    for (uint32_t i = 0; i < self->timers; i++) {
        struct timer *timer = &self->timer[i];
        bool is_used = timer->position != TIMER_NONE || timer->fired != 0;
        if (is_used && timer->number == number)
            return timer;
        if (!is_used)
            unset = timer;
    }
    if (unset == NULL && self->timers < ACTOR_TIMERS_MAX)
        unset = &self->timer[self->timers++];
    return unset;
}

void actor_timer(struct actor *self, uint32_t number, uint64_t at_ns)
{
    struct timer *timer = timer_named(self, number);
    if (timer == NULL) {
        self->broken = DJ_E_LIMIT;
        return;
    }
    timer->fired = 0;
    if (at_ns == 0) {
        timers_clear(&self->process->timers, timer);
        return;
    }
    timer->actor = self;
    timer->number = number;
    timers_set(&self->process->timers, timer, at_ns);
}

bool actor_timer_arrives(struct actor *actor, struct letter *letter)
{
    for (uint32_t i = 0; i < actor->timers; i++) {
        struct timer *timer = &actor->timer[i];
        if (timer->number == letter->number && timer->fired != 0 && timer->fired == letter->from) {
            timer->fired = 0;
            letter->from = 0;
            return true;
        }
    }
    return false;
}

// Effects ----------------------------------------------------------------------------------------------------------------

static struct hash128 number_key(uint64_t number)
{
    return map_key(number);
}

static void *id_value(actor_id id)
{
    return (void *)(uintptr_t)id;
}

// A number for a request or ticket whose answer comes back to `self`. Past the bound the actor is broken: it asks for answers faster than
// the world can give them.
static uint64_t ticket_for(struct actor *self)
{
    uint64_t ticket = ++self->process->number_next;
    if (map_put(self->process->tickets, number_key(ticket), id_value(self->id)) != DJ_OK)
        self->broken = DJ_E_LIMIT;
    return ticket;
}

static struct io_effect *effect_of(struct actor *self, enum io_effect_kind kind)
{
    return effects_add(self->process->effects, kind);
}

uint64_t actor_link_open(struct actor *self, const char *address)
{
    uint64_t request = ticket_for(self);
    struct io_effect *effect = effect_of(self, IO_LINK_OPEN);
    effect->link_open.request = request;
    // An address that is too long arrives cut, and is refused by the driver as any other that leads nowhere.
    strncpy(effect->link_open.address, address, IO_ADDRESS_MAX - 1);
    return request;
}

static struct actor *owner_of(struct process *process, uint64_t link)
{
    actor_id id = (actor_id)(uintptr_t)map_get(process->links, number_key(link));
    return id == 0 ? NULL : actor_find(process, id);
}

void actor_link_take(struct actor *self, uint64_t link)
{
    struct process *process = self->process;
    struct actor *owner = owner_of(process, link);
    if (owner == self)
        return;
    // What already waits for the former owner comes along.
    if (owner != NULL) {
        enum dj_error error = map_put(process->links, number_key(link), id_value(self->id));    // replaces: cannot fail
        assert(error == DJ_OK);
        owner->links--;
        self->links++;
        if (mailbox_move_link(&owner->box, link, &self->box) > 0)
            actor_wake(self);
        return;
    }
    // The link is down by now; whoever owned it may still have its last letters.
    for (uint32_t i = 0; i < process->slots; i++) {
        struct actor *holder = process->slot[i].actor;
        if (holder != NULL && holder != self && mailbox_move_link(&holder->box, link, &self->box) > 0)
            actor_wake(self);
    }
}

void actor_link_close(struct actor *self, uint64_t link)
{
    struct process *process = self->process;
    struct actor *owner = owner_of(process, link);
    if (owner != NULL)
        owner->links--;
    // Without an owner the link is down already; its last letters are those of whoever closes it.
    mailbox_move_link(owner != NULL ? &owner->box : &self->box, link, NULL);
    map_take(process->links, number_key(link));
    effect_of(self, IO_LINK_CLOSE)->link_close.link = link;
}

void actor_forget_links(struct actor *actor)
{
    struct process *process = actor->process;
    while (actor->links > 0) {
        uint32_t cursor = 0;
        struct hash128 key = {0};
        void *value;
        while ((value = map_next(process->links, &cursor, &key)) != NULL && value != id_value(actor->id))
            ;
        assert(value != NULL);
        map_take(process->links, key);
        actor->links--;
        effects_add(process->effects, IO_LINK_CLOSE)->link_close.link = key.lo;
    }
}

void actor_send(struct actor *self, uint64_t link, uint16_t message, struct blob *body, struct blob *bulk, uint64_t bulk_offset,
                uint64_t bulk_bytes, uint64_t not_after_ns)
{
    // Encoders give NULL when memory is short or a field is over its bound: nothing that can be sent.
    if (body == NULL || (bulk != NULL && (bulk_offset > bulk->bytes || bulk_bytes > bulk->bytes - bulk_offset))) {
        log_write(LOG_ERROR, "actors", "not sent: no body, or a bulk outside its blob actor=%s message=%u", self->class->name,
                  message);
        blob_drop(body);
        blob_drop(bulk);
        self->broken = body == NULL ? DJ_E_NO_MEMORY : DJ_E_INVALID;
        return;
    }
    struct io_effect *effect = effect_of(self, IO_SEND);
    effect->send.link = link;
    effect->send.message = message;
    effect->send.body = body;
    effect->send.bulk = bulk;
    effect->send.bulk_offset = bulk_offset;
    effect->send.bulk_bytes = bulk != NULL && bulk_bytes == 0 ? bulk->bytes - bulk_offset : bulk_bytes;
    effect->send.not_after_ns = not_after_ns;
}

uint64_t actor_store_commit(struct actor *self, struct store_batch *batch)
{
    uint64_t ticket = ticket_for(self);
    struct io_effect *effect = effect_of(self, IO_STORE_COMMIT);
    effect->store_commit.ticket = ticket;
    effect->store_commit.batch = batch;
    return ticket;
}

uint64_t actor_store_read(struct actor *self, struct store_batch *batch)
{
    uint64_t ticket = ticket_for(self);
    struct io_effect *effect = effect_of(self, IO_STORE_READ);
    effect->store_read.ticket = ticket;
    effect->store_read.batch = batch;
    return ticket;
}

uint64_t actor_device_submit(struct actor *self, uint32_t device, struct device_list *list)
{
    uint64_t ticket = ticket_for(self);
    list->ticket = ticket;
    struct io_effect *effect = effect_of(self, IO_DEVICE_SUBMIT);
    effect->device_submit.device = device;
    effect->device_submit.list = list;
    return ticket;
}

uint64_t actor_compute(struct actor *self, void *(*function)(void *), void *input)
{
    uint64_t ticket = ticket_for(self);
    struct io_effect *effect = effect_of(self, IO_COMPUTE);
    effect->compute.ticket = ticket;
    effect->compute.function = function;
    effect->compute.input = input;
    return ticket;
}

void actor_answer(struct actor *self, uint64_t request, enum dj_error error, void *result)
{
    struct io_effect *effect = effect_of(self, IO_ANSWER);
    effect->answer.request = request;
    effect->answer.error = error;
    effect->answer.result = result;
}

void actor_exit(struct actor *self, int exit_code)
{
    if (self->process->has_exited)
        return;
    self->process->has_exited = true;
    effect_of(self, IO_STOP)->stop.exit_code = exit_code;
}

void actor_accept_links(struct actor *self)
{
    self->process->acceptor = self->id;
}

void actor_accept_links_of(struct actor *self, uint32_t listener)
{
    if (listener >= PROCESS_LISTENERS_MAX)
        self->broken = DJ_E_LIMIT;
    else
        self->process->acceptor_of[listener] = self->id;
}

void actor_accept_submits(struct actor *self)
{
    struct process *process = self->process;
    uint32_t kept = 0;
    for (uint32_t i = 0; i < process->submit_acceptors; i++) {
        actor_id id = process->submit_acceptor[i];
        if (id != self->id && actor_find(process, id) != NULL)
            process->submit_acceptor[kept++] = id;
    }
    process->submit_acceptors = kept;
    if (kept == PROCESS_ROOTS_MAX)
        self->broken = DJ_E_LIMIT;
    else
        process->submit_acceptor[process->submit_acceptors++] = self->id;
}
