// Timers: every actor's timers of one process in a binary heap, earliest first; equal times in the order in which they were set, so that
// a run is deterministic. For this folder.

#ifndef CORE_ACTORS_TIMERS_H
#define CORE_ACTORS_TIMERS_H

#include <stdint.h>

struct actor;

enum { TIMER_NONE = UINT32_MAX };

struct timer {
    uint64_t at_ns;
    uint64_t sequence;
    struct actor *actor;
    uint32_t number;                    // the name that the actor gave it
    uint64_t fired;                     // its letter is under way: the sequence it had; 0 when none is, or it was set or cleared since
    uint32_t position;                  // in the heap; TIMER_NONE when it is not set
};

struct timers {
    struct timer **heap;
    uint32_t count, capacity;
    uint64_t sequence;
};

void timers_free(struct timers *timers);
void timers_set(struct timers *timers, struct timer *timer, uint64_t at_ns);    // or moves it; aborts out of memory
void timers_clear(struct timers *timers, struct timer *timer);                  // does nothing when it is not set
uint64_t timers_next_ns(const struct timers *timers);                           // UINT64_MAX: none
struct timer *timers_take(struct timers *timers, uint64_t now_ns);              // the earliest that is due, now unset; NULL

#endif
