// What the files of this folder share: the structs behind `struct process` and `struct actor`. Nobody else includes it.
//
// process.c is the step (events in, letters out); actor.c is what a handler may do; family.c makes, ends and restarts actors.

#ifndef CORE_ACTORS_PROCESS_H
#define CORE_ACTORS_PROCESS_H

#include "core/actors/actor.h"
#include "core/actors/mailbox.h"
#include "core/actors/timers.h"
#include "core/base/list.h"
#include "core/base/map.h"

enum {
    ACTOR_TIMERS_MAX = 16,
    ACTOR_DEPTH_MAX = 32,               // of the tree: ending one recurses over its descendants
    ACTOR_WATCHERS_MAX = 1 << 12,
    PROCESS_ROOTS_MAX = 16,
    PROCESS_LISTENERS_MAX = 16,
    PROCESS_LINKS_MAX = 1 << 17,
    PROCESS_TICKETS_MAX = 1 << 20,      // requests, batches, lists and computations in flight
    PROCESS_EXIT_FAILED = 70,           // EX_SOFTWARE: a root actor failed and nobody could restart it
};

struct actor {
    struct process *process;
    const struct actor_class *class;
    actor_id id;
    struct actor *parent;               // NULL: a root
    struct list children, sibling;
    struct list ready;                  // in process->ready while letters wait
    void *state;
    void *argument;
    size_t argument_bytes;
    uint32_t depth;
    uint32_t links;                     // owned: entries of process->links that name it
    bool is_ending;
    enum dj_error broken;               // it broke its contract: it ends after the current letter
    struct mailbox box;
    struct timer timer[ACTOR_TIMERS_MAX];
    uint32_t timers;
    actor_id *watcher;
    uint32_t watchers, watcher_capacity;
    uint64_t restarts_since_ns;
    uint32_t restarts;
};

struct actor_slot { struct actor *actor; uint32_t generation; };

struct process {
    uint64_t now_ns;
    struct io_effects *effects;         // of the step that runs; `silent` between steps
    struct io_effects silent;
    bool is_started, has_exited;

    struct io_event *event;             // a ring: what was posted and not yet routed
    uint32_t event_slots, event_head, event_tail;

    struct actor_slot *slot;
    uint32_t slots, free_slots;
    uint32_t *free_slot;
    struct list ready;
    struct timers timers;

    struct map *links;                  // link -> owner's id
    struct map *tickets;                // request or ticket -> owner's id
    uint64_t number_next;               // of requests and tickets

    actor_id acceptor;
    actor_id acceptor_of[PROCESS_LISTENERS_MAX];
    actor_id submit_acceptor[PROCESS_ROOTS_MAX];
    uint32_t submit_acceptors;

    struct { const struct actor_class *class; void *argument; size_t argument_bytes; } root[PROCESS_ROOTS_MAX];
    uint32_t roots;
    actor_id root_id[PROCESS_ROOTS_MAX];

    actor_id *stop;                     // asked to stop during the current letter
    uint32_t stops, stop_capacity;

    struct process_stats stats;
};

// family.c
struct actor *actor_find(const struct process *process, actor_id id);       // NULL when it is gone
enum dj_error actor_make_under(struct process *process, struct actor *parent, const struct actor_class *class, const void *argument,
                               size_t argument_bytes, actor_id *ret);
void actor_end(struct actor *actor, enum dj_error error);                   // it and its descendants; LETTER_DOWN to who watches
void actor_failed(struct actor *actor, enum dj_error error);                // asks the supervisor, and does what it says
void actor_forget_links(struct actor *actor);                               // closes them

// actor.c
// A timer's letter is about to be handled: false when the timer was set or cleared after it fired, and the letter must be forgotten.
bool actor_timer_arrives(struct actor *actor, struct letter *letter);
void actor_wake(struct actor *actor);                                       // a letter was put into its mailbox

#endif
