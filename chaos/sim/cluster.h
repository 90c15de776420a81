// Cluster: a whole pool in the simulated world: the real head, workers and clients, what goes wrong with them, and what must hold all the same.
// Everything follows from one seed (swarm.h). What holds after every step:
//
//   one value per id            what a client reads equals the oracle's (program.c); whoever answers gives the same bytes (ledger.c)
//   nothing acknowledged lost   (witness.c)
//   causal closure              at every commit prefix, imports included (ledger.c)
//   no byte reused              follows from the first, as the device's memory is real and is garbage before it is written
//   held until durable          (witness_client.c), with bounded windows
//   no answer after the lease   also with clocks that differ and jump (witness.c)
//   no older epoch              (witness.c)
//   one recovery at a time      (witness_client.c)
//   everything can be planned   from the store and the clients' windows alone, if every worker were gone (plannable.c)
//   every request ends          in a value, or in an error that the faults explain: with a worker and a head that come back, hardly any
//   convergence                 in bounded time after the last fault every client is done; then memory comes back: leaves are all that is left

#ifndef CHAOS_SIM_CLUSTER_H
#define CHAOS_SIM_CLUSTER_H

#include "chaos/sim/client.h"
#include "chaos/sim/swarm.h"
#include "chaos/sim/witness.h"

struct cluster_result {
    bool is_ok;
    char failure[SIM_TEXT_MAX];
    uint64_t trace, virtual_ns;
    struct swarm swarm;
    struct sim_stats sim;
    struct client_totals clients;    // sums
    struct witness_totals witness;
    struct ledger_totals ledger;
    uint64_t appends;
};

struct cluster_result cluster_run(const struct swarm_options *options);

// A small world that still breaks the same invariant: fault kinds, clients, workers, steps and time are taken away one by one while it does. `options`
// must fail. At most `runs` runs. Returns how many it took.
uint32_t cluster_shrink(struct swarm_options *options, uint32_t runs);

#endif
