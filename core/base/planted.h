// Planted: deliberate bugs, for the simulator's tests to prove that it finds such things. Only a build with DJINN_PLANTED_BUGS (tests/chaos)
// has them; in every other PLANTED(...) is false at compile time and nothing remains.

#ifndef CORE_BASE_PLANTED_H
#define CORE_BASE_PLANTED_H

#include <stdbool.h>

#ifdef DJINN_PLANTED_BUGS

enum planted_bug {
    PLANTED_NONE,
    PLANTED_RUN_TWICE,            // the worker runs a duplicate of what it is still running
    PLANTED_EARLY_ACKNOWLEDGE,    // the head acknowledges what it accepted, not only what is durable
    PLANTED_FORGET_LAST,          // the client gives everything again after a lost link but the last of several
    PLANTED_STEAL_ROWS,           // the executor appends without looking where the buffer's committed rows end
    PLANTED_EARLY_RELEASE,        // a release takes effect when it is read, not in its turn
    PLANTED_EARLY_CONFIRM,        // the client confirms what it has sent, not what was answered
    PLANTED_DONATE_SHARED,        // the executor takes over donated memory that one other still reads
    PLANTED_BUGS
};

extern enum planted_bug planted_bug;
#define PLANTED(bug) (planted_bug == PLANTED_##bug)

#else

#define PLANTED(bug) false

#endif

#endif
