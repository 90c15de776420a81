// Cluster: a whole pool in the simulated world: the real head, workers and clients, what goes wrong with them, and what must hold all the same.
// Everything follows from one seed: how many there are, what they compute, which faults come and when.
//
//   one value per id          what a client reads equals the oracle's (program.c); an answer given twice is the same answer (spy.c)
//   nothing acknowledged lost what a worker may forget (JOURNAL_OK) or a client was told (WATERMARK) is in the head's store (spy.c, client.c)
//   causal closure            a stored execution's producers are stored (invariants.c)
//   no byte reused            follows from the first, as the device's memory is real; and when all sessions are over, leaves are all that is left
//   bounded window            the client keeps no more than it may (client.c)
//   every request ends        in a value or in an error that the faults explain, in bounded time after the last fault
//   no second run             no execution is journalled twice in a worker's life (spy.c)

#ifndef CHAOS_SIM_CLUSTER_H
#define CHAOS_SIM_CLUSTER_H

#include "chaos/sim/client.h"
#include "chaos/sim/spy.h"

enum cluster_faults {
    FAULTS_NONE,
    FAULTS_CLIENT_LINKS,
    FAULTS_ANY_LINK,
    FAULTS_WORKER_DEATH,
    FAULTS_HEAD_DEATH,
    FAULTS_CLIENT_DEATH,
    FAULTS_STILLNESS,
    FAULTS_ALL,
    FAULTS_KINDS
};

struct cluster_options {
    uint64_t seed;    // seed % FAULTS_KINDS is the kind of faults
    bool is_loud;
};

struct cluster_result {
    bool is_ok;
    char failure[SIM_TEXT_MAX];
    uint64_t trace, virtual_ns;
    enum cluster_faults faults;
    struct sim_stats sim;
    struct client_totals clients;    // sums
    uint64_t journalled, acknowledged, duplicates, appends;
};

struct cluster_result cluster_run(const struct cluster_options *options);
const char *cluster_faults_name(enum cluster_faults faults);

// invariants.c: a claim for sim_invariant; `context` is a struct closure.
struct closure {
    uint32_t head_node, checked;
    struct record_scratch *scratch;
    bool (*is_import)(void *context, uint64_t session, uint64_t counter);
    void *context;
};
bool closure_holds(struct sim *sim, void *context, char *text);

#endif
