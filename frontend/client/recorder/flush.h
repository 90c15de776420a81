// Flush: what its two source files share.

#ifndef FRONTEND_CLIENT_RECORDER_FLUSH_H
#define FRONTEND_CLIENT_RECORDER_FLUSH_H

#include "frontend/client/recorder/graph.h"

// Half of what a plan may have, so that a segment always fits in one.
enum { FLUSH_SEGMENT_NODES_MAX = PLAN_NODES_MAX / 2, FLUSH_SEGMENT_REFS_MAX = PLAN_INPUTS_MAX / 2 };

// Sets is_needed on every recorded node.
void flush_mark(struct recorder *recorder);
// Submits the needed nodes of node[first, end), all of one place, and turns what is kept into handles. On failure nothing was submitted.
DJ_MUST_USE enum dj_error segment_submit(struct recorder *recorder, uint32_t first, uint32_t end, struct fault *fault);
// The plan of the needed nodes of node[first, end), without submitting; *ret has one holder. Leaves every value as it was.
DJ_MUST_USE enum dj_error segment_plan(struct recorder *recorder, uint32_t first, uint32_t end, struct srg_plan **ret,
                                       struct fault *fault);
// Everything pending fails with these words.
void recorder_abandon_pending(struct recorder *recorder, enum dj_error error, const char *text);

#endif
