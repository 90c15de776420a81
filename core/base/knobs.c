// Knobs: the numbers. The manual is knobs.h.

#include "core/base/knobs.h"

uint64_t knob_value[KNOBS];

static const char *const name[KNOBS] = {
#define KNOB(NAME, text) #NAME,
#include "core/base/knobs.def"
#undef KNOB
};

void knob_set(enum knob which, uint64_t value)
{
    __atomic_store_n(&knob_value[which], value, __ATOMIC_RELAXED);
}

bool knob_take(enum knob which)
{
    uint64_t left = knob(which);
    while (left > 0)
        if (__atomic_compare_exchange_n(&knob_value[which], &left, left - 1, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
            return true;
    return false;
}

const char *knob_name(enum knob which)
{
    return which < KNOBS ? name[which] : "?";
}
