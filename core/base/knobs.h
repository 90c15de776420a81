// Knobs: numbers that chaos/live turns in a running process to break it in a known way, read where the breaking is done.
//
// All of them are 0, for ever, in a process that was not started with --chaos (DJINN_CHAOS=1): nothing else in it calls knob_set. They are the one
// thing in this folder that several threads share. Every load and store is relaxed: a knob is a number of its own, nothing is published by it, and
// it does not matter which of two frames is the first to see it.

#ifndef CORE_BASE_KNOBS_H
#define CORE_BASE_KNOBS_H

#include <stdbool.h>
#include <stdint.h>

enum knob {
#define KNOB(NAME, text) KNOB_##NAME,
#include "core/base/knobs.def"
#undef KNOB
    KNOBS
};

extern uint64_t knob_value[KNOBS];

static inline uint64_t knob(enum knob which)
{
    return __atomic_load_n(&knob_value[which], __ATOMIC_RELAXED);
}

void knob_set(enum knob which, uint64_t value);
// Takes one from a knob that counts down: true for as many callers, of all threads together, as it stood at.
bool knob_take(enum knob which);
const char *knob_name(enum knob which);

#endif
