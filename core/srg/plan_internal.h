// What the files of this folder share and nobody else needs.

#ifndef CORE_SRG_PLAN_INTERNAL_H
#define CORE_SRG_PLAN_INTERNAL_H

#include "core/srg/plan.h"

// Bounds that follow from the public ones: no op has as many attributes or constants on average.
enum { PLAN_ATTRS_MAX = 1 << 18, PLAN_CONSTANTS_MAX = 1 << 18 };

// Says what is wrong with a plan whose arrays hold what the counts say but whose contents may be anything (plan_check.c).
DJ_MUST_USE enum dj_error plan_check(const struct srg_plan *plan, struct fault *fault);

// True when `text` is UTF-8 up to its NUL.
bool text_is_utf8(const char *text);

#endif
