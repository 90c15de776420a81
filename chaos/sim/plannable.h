// Plannable: whether everything that a living client needs could be brought back at this moment from what lies in the head's store, if every
// worker were gone: the planner itself is asked (core/lineage/recovery.h). What the client still has in its window it would submit again.

#ifndef CHAOS_SIM_PLANNABLE_H
#define CHAOS_SIM_PLANNABLE_H

#include "chaos/sim/ledger.h"

// `needed`: handles of one session. False, with the reason.
bool plannable(struct sim *sim, struct ledger *ledger, uint32_t head_node, uint64_t session, const struct record_ref *needed, uint32_t count,
               char text[SIM_TEXT_MAX]);

#endif
