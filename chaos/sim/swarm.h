// Swarm: which world a seed is. Every seed picks its own mix of faults, sizes, paces, workloads and policies; each choice comes from a generator of
// its own, so that switching one fault off, or making the pool smaller, leaves the rest as it was: that is what shrinking lives on.

#ifndef CHAOS_SIM_SWARM_H
#define CHAOS_SIM_SWARM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "chaos/sim/program.h"

enum swarm_fault {
#define FAULT(NAME, name, one_in) FAULT_##NAME,
#include "chaos/sim/faults.def"
#undef FAULT
    FAULT_KINDS
};

enum { SWARM_WORKERS_MAX = 3, SWARM_CLIENTS_MAX = 3, SWARM_NODES_MAX = 2 + SWARM_WORKERS_MAX + SWARM_CLIENTS_MAX };

struct swarm_options {
    uint64_t seed;
    uint32_t without;                   // bits of enum swarm_fault that are switched off
    uint32_t workers, clients, steps;   // at most so many (0: as the seed says)
    uint64_t until_ns;                  // no fault after this (0: as the seed says)
    bool is_loud;
};

struct swarm_client {
    uint64_t seed;
    uint32_t steps;
    uint64_t think_ns;    // its pauses are so long at most, usually: it goes on about as long as the faults do
    enum workload workload;
    bool is_named;        // resumed by name after a death; else the next life is another program
    uint64_t twin_at_ns;  // TAKEOVER, of the first client: when its second process begins; 0: there is none
    bool is_deviant;      // a later life does something else from some step on
    bool names_devices;
    uint8_t policy;       // enum lineage_policy
    uint64_t replay_limit_ns;
};

struct swarm {
    uint64_t seed;
    uint32_t faults;    // bits
    uint32_t workers, clients;
    uint32_t doomed;    // NO_RESTART: this worker
    uint64_t until_ns, delay_max_ns, disk_delay_max_ns, task_delay_max_ns, region_bytes, restart_max_ns;
    uint64_t mean_ns[FAULT_KINDS];    // of those that come again and again
    uint32_t break_per_million, device_error_per_million;
    uint64_t clock_offset_ns[SWARM_NODES_MAX];    // head, workers, clients, twin
    int32_t clock_ppm[SWARM_NODES_MAX];
    uint32_t trim_records;    // until the head trims a session; 0: it never comes to that here
    bool rests_long;    // the run goes on until the head has given up who left without a word
    struct swarm_client client[SWARM_CLIENTS_MAX];
};

struct swarm swarm_make(const struct swarm_options *options);
static inline bool swarm_has(const struct swarm *swarm, enum swarm_fault fault)
{
    return (swarm->faults >> fault & 1) != 0;
}
const char *swarm_fault_name(enum swarm_fault fault);
bool swarm_fault_parse(const char *list, uint32_t *ret_bits);    // "pause,break-send"; false: a name is not known
void swarm_describe(const struct swarm *swarm, char *text, size_t bytes);
// The command that repeats it.
void swarm_command(const struct swarm_options *options, char *text, size_t bytes);

#endif
