// Actors: state, behaviour and a bounded mailbox inside one process; run to completion, one at a time, on the core's thread.
//
// An actor is made from a class, gets letters, and may send letters, emit effects, make children and watch others. It never blocks and
// never calls another actor. A handler that returns an error, or that breaks its contract, ends the actor: its supervisor (the parent)
// decides (restart with fresh state, stop, escalate), and everyone who watches it gets LETTER_DOWN. A process is a tree of actors
// with one root per role.
//
// Routing: links, tickets and requests are owned by actors: who opens a link, submits a list or commits a batch gets the matching event
// as a letter. Accepted links go to the actor that registered as acceptor.

#ifndef CORE_ACTORS_ACTOR_H
#define CORE_ACTORS_ACTOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/error.h"
#include "core/io/device.h"
#include "core/io/io.h"
#include "core/io/store.h"

struct process;
struct actor;

// Names an actor for ever; 0 is nobody. A stale id is noticed (generation inside), not followed.
typedef uint64_t actor_id;

enum {
    MAILBOX_CAPACITY_MAX = 1 << 16,
    MAILBOX_CAPACITY_DEFAULT = 1024,
    PROCESS_ACTORS_MAX = 1 << 16,
    PROCESS_EVENTS_MAX = 1 << 16,       // queued between two runs; beyond it process_post refuses
    PROCESS_STEP_LETTERS_MAX = 4096,    // handled in one process_run before it returns with more to do
};

// The receiver owns what a letter carries (event.recv.body and bulk, event.store_done.result, payload): it drops or keeps them. letter_drop
// frees all of it. This holds when the handler fails, too.
enum letter_kind {
    LETTER_EVENT = 1,       // an io_event this actor owns: letter->event
    LETTER_TIMER,           // a timer it set: letter->number is the name it gave
    LETTER_DOWN,            // an actor it watches ended: letter->from, letter->error
    LETTER_USER,            // from another actor: letter->number is a verb both know, letter->payload its struct
};

struct letter {
    uint8_t kind;
    actor_id from;
    uint32_t number;
    enum dj_error error;
    struct io_event event;
    void *payload;                      // LETTER_USER: the receiver takes ownership
    void (*payload_free)(void *payload);    // called when the letter cannot be delivered; may be NULL
};

void letter_drop(struct letter *letter);    // frees what is left in it and clears it; payload by payload_free

enum actor_verdict { ACTOR_RESTART, ACTOR_STOP, ACTOR_ESCALATE };

struct actor_class {
    const char *name;
    size_t state_bytes;                 // zeroed before start
    uint32_t mailbox_capacity;          // 0: MAILBOX_CAPACITY_DEFAULT
    // On make and on restart, in the first process_run for roots. When it fails it has freed what it took: `end` is not called.
    enum dj_error (*start)(struct actor *self, void *state, const void *argument);
    enum dj_error (*receive)(struct actor *self, void *state, struct letter *letter);
    void (*end)(struct actor *self, void *state);                                   // frees what state holds; may be NULL
    enum actor_verdict (*child_failed)(struct actor *self, void *state, actor_id child, enum dj_error error);  // NULL: ESCALATE
    uint32_t restarts_max;              // restarts of this actor within 10 s before it is escalated
};

// A restarted actor keeps its id, its argument and those registrations below that name it; its children, timers, letters and links are gone.
// When an actor ends, its links are closed and answers to its tickets are dropped: what a device list or a computation names must not die with
// the state. Only a root may free it in `end`: that comes with process_free, when nothing is under way.

// What a handler may do; `self` is the actor that runs.
uint64_t actor_now_ns(const struct actor *self);                        // the time of this step
actor_id actor_self(const struct actor *self);
void *actor_state(const struct actor *self);
// Makes a child. `argument` is copied by the class's start, and kept (argument_bytes) for restarts.
DJ_MUST_USE enum dj_error actor_make(struct actor *self, const struct actor_class *class, const void *argument, size_t argument_bytes,
                                     actor_id *ret);
void actor_stop(struct actor *self, actor_id who);                      // itself or a descendant; after the current letter
void actor_watch(struct actor *self, actor_id who);                     // LETTER_DOWN once; at once if it is gone already
// Posts to another actor. On DJ_E_MAILBOX_FULL or DJ_E_NOT_FOUND the caller still owns the payload.
DJ_MUST_USE enum dj_error actor_post(struct actor *self, actor_id to, uint32_t number, void *payload, void (*payload_free)(void *));
void actor_timer(struct actor *self, uint32_t number, uint64_t at_ns);  // (re)sets; at_ns 0 clears. Up to 16 per actor

// Effects on behalf of the actor; events that answer them come back to it.
uint64_t actor_link_open(struct actor *self, const char *address);      // returns the request; LINK_UP / LINK_DOWN carry it
void actor_link_take(struct actor *self, uint64_t link);                // from now on the link's events come to this actor
void actor_link_close(struct actor *self, uint64_t link);               // no event of the link comes after this, LINK_DOWN neither
// Takes both holds. bulk_bytes 0 with a bulk means all of it from bulk_offset on.
void actor_send(struct actor *self, uint64_t link, uint16_t message, struct blob *body, struct blob *bulk, uint64_t bulk_offset,
                uint64_t bulk_bytes, uint64_t not_after_ns);
uint64_t actor_store_commit(struct actor *self, struct store_batch *batch);     // returns the ticket
uint64_t actor_store_read(struct actor *self, struct store_batch *batch);
uint64_t actor_device_submit(struct actor *self, uint32_t device, struct device_list *list);   // sets list->ticket and returns it
uint64_t actor_compute(struct actor *self, void *(*function)(void *), void *input);
void actor_answer(struct actor *self, uint64_t request, enum dj_error error, void *result);
void actor_exit(struct actor *self, int exit_code);                     // the whole process

// Registers self for events nobody owns: accepted links (LINK_UP with request 0 and their RECVs), and IO_SUBMIT.
// Every actor that registered for submits gets each of them (an embedded process's head and worker both hear the signal). Links of a listener
// go to who registered for that listener, else to the last who registered for all.
void actor_accept_links(struct actor *self);
void actor_accept_links_of(struct actor *self, uint32_t listener);
void actor_accept_submits(struct actor *self);

// The process.
struct process_stats { uint64_t events, letters, refused, restarts; uint32_t actors, queue_max; };

DJ_MUST_USE enum dj_error process_make(struct process **ret);
// Adds a root actor (several are allowed: an embedded process has a head's and a worker's). Before the first process_run.
DJ_MUST_USE enum dj_error process_root(struct process *process, const struct actor_class *class, const void *argument, size_t argument_bytes);
void process_free(struct process *process);                             // ends every actor, drops what is queued
// Only enqueues. DJ_E_MAILBOX_FULL when PROCESS_EVENTS_MAX wait: a driver then stops reading links until the next run.
DJ_MUST_USE enum dj_error process_post(struct process *process, const struct io_event *event);
// Handles what is queued, with one clock value; appends effects. True when there is more to do at once.
bool process_run(struct process *process, uint64_t now_ns, struct io_effects *ret);
uint64_t process_deadline_ns(const struct process *process);            // when to run again at the latest; UINT64_MAX: never
struct process_stats process_stats(const struct process *process);

#endif
