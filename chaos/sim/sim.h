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
    uint64_t blackout_mean_ns;                       // every mortal node is killed at once
    uint64_t jump_mean_ns, jump_max_ns;              // a node's clock jumps forward, as after a suspend
    uint64_t full_mean_ns, full_max_ns;              // a disk takes nothing more for a while
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
// How the device meets others: it opens regions of its domain ("": none), and others of it open its own, unless that always fails.
void sim_reach(struct device_port *port, const char *domain, bool is_open);
void sim_on_answer(struct sim *sim, uint32_t node,
                   void (*answered)(void *context, uint64_t request, enum dj_error error, void *result), void *context);
void sim_mortal(struct sim *sim, uint32_t node);    // sim_unleash may kill it, and trouble it otherwise
void sim_expose(struct sim *sim, uint32_t node);    // ... may trouble it otherwise
// When it ends itself with a failure, whoever runs it starts it again so long after.
void sim_serve(struct sim *sim, uint32_t node, uint64_t after_ns);
void sim_unleash(struct sim *sim, const struct sim_chaos *chaos);

// A node's clock shows offset_ns + time * (1 + ppm / 10^6); all of its deadlines and limits are in that. Kept through its deaths.
void sim_set_clock(struct sim *sim, uint32_t node, uint64_t offset_ns, int32_t ppm);

// Who listens: to every message as it is sent and again as it arrives, ...
struct sim_message {
    bool is_arrival;
    uint32_t from, to;
    uint64_t from_life, to_life;
    uint64_t link;           // the same for both ends, never used again
    uint64_t departed_ns;    // the world's time
    uint16_t message;
    const struct blob *body, *bulk;
    uint64_t bulk_offset, bulk_bytes;
};
void sim_on_message(struct sim *sim, void (*passes)(void *context, const struct sim_message *message), void *context);
// ... and to every change of a store as it becomes durable: put or deleted (value NULL), and at the end of a batch once with key NULL.
struct sim_change {
    uint32_t node;
    enum store_table table;
    const uint8_t *key, *value;
    uint64_t key_bytes, value_bytes;
};
void sim_on_store(struct sim *sim, void (*changes)(void *context, const struct sim_change *change), void *context);
bool sim_is_linked(const struct sim *sim, uint32_t a, uint32_t b);    // a has a link to the present life of b, and thinks that it is up
void sim_doom(struct sim *sim, uint32_t node);                        // its next death is its last

// What a test does to the world, from outside sim_run_until or from its callbacks.
void sim_submit(struct sim *sim, uint32_t node, uint32_t verb, void *argument);    // IO_SUBMIT
void sim_at(struct sim *sim, uint64_t at_ns, void (*act)(struct sim *sim, void *context), void *context);
void sim_kill(struct sim *sim, uint32_t node, uint64_t restart_after_ns);    // UINT64_MAX: stays dead
void sim_pause(struct sim *sim, uint32_t node, uint64_t for_ns);
void sim_partition(struct sim *sim, uint32_t a, uint32_t b, uint64_t for_ns);    // what is under way arrives when it heals
void sim_break_links(struct sim *sim, uint32_t a, uint32_t b);
void sim_jump_clock(struct sim *sim, uint32_t node, uint64_t by_ns);
void sim_fill_disk(struct sim *sim, uint32_t node, uint64_t for_ns);    // most commits fail with STORE_FULL meanwhile
bool sim_is_alive(const struct sim *sim, uint32_t node);
uint64_t sim_life(const struct sim *sim, uint32_t node);    // of the present, or the last, life: 0, 1, ...
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
    uint64_t commits_refused;          // by a full disk
    uint64_t tasks, device_errors, device_losses;
    uint64_t peer_copies, ghost_copies;    // from other devices' memory; from that of the dead
    uint64_t blackouts, jumps;
};
struct sim_stats sim_stats(const struct sim *sim);

#endif
