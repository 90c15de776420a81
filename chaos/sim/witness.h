// Witness: reads along with everything that the head, the workers and the clients say to each other, as it is sent and as it arrives, and fails
// the run when a rule of the design is broken. It changes nothing. With the ledger it holds:
//
//   nothing acknowledged lost   JOURNAL_OK and WATERMARK speak only of what the store has had
//   one run per life            a worker journals an execution under one number in its life
//   one value per id            whoever answers (ledger.h)
//   held until durable          what a living client was answered and is not durable is in its window, and the window keeps its bounds
//   no answer after the lease   once the head has counted a living worker's lease expired, no answer of that life leaves it any more
//   no older epoch             a worker that has confirmed an epoch of a session lets no client of an older one attach
//   one recovery at a time      no two questions of a client about the same lost handle are open at once

#ifndef CHAOS_SIM_WITNESS_H
#define CHAOS_SIM_WITNESS_H

#include "chaos/sim/ledger.h"
#include "core/wire/wire.h"

enum { WITNESS_NODES_MAX = 8 };

struct witness_config {
    struct sim *sim;
    struct ledger *ledger;
    uint32_t head, workers, clients;
    uint32_t worker[WITNESS_NODES_MAX], client[WITNESS_NODES_MAX];
    // What a client that is alive and has a session keeps that is not durable: false when it has none.
    bool (*window)(void *client, uint64_t *ret_executions, uint64_t *ret_bytes);
    uint64_t window_max, window_bytes_max;
};

struct witness_totals {
    uint64_t journalled, client_journalled, acknowledged, duplicates, answers, watermarks, fences, ended_lives, recoveries, steps, replays,
        imports, checkpoints, inventories, resumed, held, copies_given_up, copies_refused;
};

struct witness;

struct witness *witness_make(const struct witness_config *config);    // listens (sim_on_message); aborts out of memory
void witness_free(struct witness *witness);
bool witness_holds(struct sim *sim, void *witness, char *text);    // a sim_invariant
struct witness_totals witness_totals(const struct witness *witness);
const struct wire_heartbeat *witness_heartbeat(const struct witness *witness, uint32_t worker);    // the last of its present life

#endif
