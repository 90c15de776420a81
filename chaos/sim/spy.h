// Spy: a worker's process with somebody who reads along: what it journals, what it is told is durable, what it answers twice, what it says of
// its memory. It changes nothing; it fails the run when a rule of the design is broken.

#ifndef CHAOS_SIM_SPY_H
#define CHAOS_SIM_SPY_H

#include "chaos/sim/sim.h"
#include "core/wire/wire.h"
#include "gpu_worker/actors/worker.h"

struct spy_config {
    struct worker_config worker;
    uint32_t head_node;
    struct spy_totals *totals;    // of all lives
};

struct spy_totals {
    uint64_t journalled, acknowledged, duplicates, appends, lives;
    struct wire_heartbeat last;    // of the present life
};

extern const struct sim_ops spy_ops;
void *spy_make(struct sim *sim, uint32_t node, uint64_t life, void *config);    // a sim_make_node; config: struct spy_config

#endif
