// Sim: the world in one thread, in virtual time, from one seed: processes, the network between them, their disks and their devices, and
// everything that can go wrong with them.
//
// The processes are the real ones (core/actors, or anything with the four functions of struct sim_ops); only the driver is another. The same
// seed and the same calls give the same run: `sim_trace` is a hash over everything that was delivered to anybody, and says so. A day in here
// takes seconds, so faults that need months of luck outside are met.
//
//     struct sim *sim = sim_make(&(struct sim_options){.seed = seed, ...});
//     uint32_t head = sim_add_process(sim, "head", make_head, &config);
//     sim_listen(sim, head, "head://head:1");
//     sim_add_store(sim, head);
//     sim_unleash(sim, &(struct sim_chaos){.until_ns = ..., .death_mean_ns = ...});
//     sim_invariant(sim, "one value per id", holds, context);
//     bool is_done = sim_run_until(sim, all_answered, context, limit_ns);
//
// What holds in here as it does outside: a link delivers in order and without loss until it goes down, and then both ends hear of it (messages
// under way may be lost, or arrive before); between links nothing is ordered. A store answers once a batch would survive a death; batches that
// were accepted and not yet answered survive in order up to some point. A device runs each stream in order and forgets everything with its process.

#ifndef CHAOS_SIM_SIM_H
#define CHAOS_SIM_SIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/actors/actor.h"
#include "core/base/prng.h"
#include "core/io/device.h"
#include "core/io/io.h"
#include "core/io/store.h"

struct sim;

enum {
    SIM_NODES_MAX = 64,
    SIM_LISTENERS_MAX = 4,    // of one node
    SIM_DEVICES_MAX = 4,      // of one node
    SIM_INVARIANTS_MAX = 32,
    SIM_TEXT_MAX = 512,
};

struct sim_options {
    uint64_t seed;
    uint64_t delay_min_ns, delay_max_ns;    // of a message, one way; 0: 20 us to 2 ms
    uint64_t disk_delay_max_ns;             // until a batch is durable; 0: 5 ms
    uint64_t task_delay_max_ns;             // of a device task; 0: 100 us
    uint32_t break_per_million;             // messages that take their link down with them
    uint32_t device_error_per_million;      // tasks that fail
    bool is_loud;                           // prints what happens, for one seed under study
};

// Random trouble for the nodes that are mortal (sim_mortal), each kind on its own mean interval (0: never), until until_ns.
struct sim_chaos {
    uint64_t until_ns;
    uint64_t death_mean_ns, restart_max_ns;          // killed, and started again after up to restart_max_ns
    uint64_t pause_mean_ns, pause_max_ns;            // stands still
    uint64_t partition_mean_ns, partition_max_ns;    // two nodes cannot reach each other
    uint64_t break_mean_ns;                          // a link between living nodes is lost
};

// How the simulator talks to whatever runs in a node. The effects' holds pass to the simulator; event's holds pass to the node.
struct sim_ops {
    enum dj_error (*post)(void *self, const struct io_event *event);
    bool (*run)(void *self, uint64_t now_ns, struct io_effects *ret);
    uint64_t (*deadline_ns)(const void *self);
    void (*free)(void *self);
};

// Makes what runs in a node, for each of its lives (0, 1, ...). NULL: the node stays dead.
typedef void *(*sim_make_node)(struct sim *sim, uint32_t node, uint64_t life, void *argument);
typedef struct process *(*sim_make_process)(struct sim *sim, uint32_t node, uint64_t life, void *argument);

struct sim *sim_make(const struct sim_options *options);    // aborts out of memory: it is a test
void sim_free(struct sim *sim);

// Setting up. Nodes start with the first sim_run_until, in the order in which they were added.
uint32_t sim_add_node(struct sim *sim, const char *name, const struct sim_ops *ops, sim_make_node make, void *argument);
uint32_t sim_add_process(struct sim *sim, const char *name, sim_make_process make, void *argument);
void sim_listen(struct sim *sim, uint32_t node, const char *address);    // listener index: the order of the calls
void sim_add_store(struct sim *sim, uint32_t node);                      // survives the node's deaths
struct device_port *sim_add_device(struct sim *sim, uint32_t node,
                                   uint64_t capacity_bytes);    // the port lives as long as the sim
void sim_on_answer(struct sim *sim, uint32_t node,
                   void (*answered)(void *context, uint64_t request, enum dj_error error, void *result), void *context);
void sim_mortal(struct sim *sim, uint32_t node);    // sim_unleash may trouble it
void sim_unleash(struct sim *sim, const struct sim_chaos *chaos);

// What a test does to the world, from outside sim_run_until or from its callbacks.
void sim_submit(struct sim *sim, uint32_t node, uint32_t verb, void *argument);    // IO_SUBMIT
void sim_at(struct sim *sim, uint64_t at_ns, void (*act)(struct sim *sim, void *context), void *context);
void sim_kill(struct sim *sim, uint32_t node, uint64_t restart_after_ns);    // UINT64_MAX: stays dead
void sim_pause(struct sim *sim, uint32_t node, uint64_t for_ns);
void sim_partition(struct sim *sim, uint32_t a, uint32_t b, uint64_t for_ns);    // what is under way arrives when it heals
void sim_break_links(struct sim *sim, uint32_t a, uint32_t b);
bool sim_is_alive(const struct sim *sim, uint32_t node);
void *sim_self(const struct sim *sim, uint32_t node);       // what make gave for this life; NULL when dead
int sim_exit_code(const struct sim *sim, uint32_t node);    // of its last STOP; -1: none

// A claim that must hold after every step. `text` (SIM_TEXT_MAX) says what is wrong where it does not.
void sim_invariant(struct sim *sim, const char *name, bool (*holds)(struct sim *sim, void *context, char *text), void *context);
void sim_fail(struct sim *sim, const char *format, ...) DJ_PRINTF(2, 3);    // by anybody who sees something impossible
const char *sim_failure(const struct sim *sim);                             // the first failure's words; NULL: none

// Runs until done(context), a failure, nothing left to happen, or limit_ns. True when done and nothing failed. done NULL: until the limit.
bool sim_run_until(struct sim *sim, bool (*done)(void *context), void *context, uint64_t limit_ns);

uint64_t sim_now_ns(const struct sim *sim);
struct prng *sim_prng(struct sim *sim);
uint64_t sim_trace(const struct sim *sim);

// What the node's disk holds durably now: the value (not held for the caller) or NULL; and the entries of a table in key order.
const struct blob *sim_store_get(const struct sim *sim, uint32_t node, enum store_table table, const void *key, size_t key_bytes);
uint32_t sim_store_count(const struct sim *sim, uint32_t node, enum store_table table);
const struct store_entry *sim_store_at(const struct sim *sim, uint32_t node, enum store_table table, uint32_t index);

struct sim_stats {
    uint64_t steps, messages, deaths, restarts, pauses, partitions, links_opened, links_broken;
    uint64_t lost;                     // messages that were sent and never arrived
    uint64_t reordered;                // that arrived before one sent to the same node earlier, on another link
    uint64_t late;                     // not sent because their time had passed
    uint64_t commits, commits_lost;    // batches; those lost by a death
    uint64_t tasks, device_errors;
};
struct sim_stats sim_stats(const struct sim *sim);

#endif
