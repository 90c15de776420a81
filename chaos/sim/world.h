// What the files of this folder share. Nobody else includes it.
//
// sim.c is time, nodes and trouble; network.c, disk.c and device.c are the ports; value.c is what the simulated device computes.

#ifndef CHAOS_SIM_WORLD_H
#define CHAOS_SIM_WORLD_H

#include "chaos/sim/sim.h"

// Something that happens at a time. Made by sim_later; `act` and, when the world ends first, `drop` see it once, then it is freed.
struct happening {
    uint64_t at_ns, sequence;
    void (*act)(struct sim *sim, struct happening *happening);
    void (*drop)(struct happening *happening);    // NULL: it holds nothing but `event`
    uint32_t node;
    uint64_t life;    // of the node, when it matters
    uint64_t sent;    // RECV: the order in which it was sent
    uint64_t number, departed_ns;
    void *pointer;    // LINK_OPEN: the address, malloc'd
    struct io_event event;
};

struct sim_link {
    uint32_t node[2];
    uint64_t life[2];
    bool is_up[2];             // this end has heard LINK_UP, and neither closed it nor heard LINK_DOWN
    bool is_cut;               // nothing more arrives
    uint64_t arrival_ns[2];    // of the last thing on its way to this end
    uint64_t request;          // of end 0, which opened it
};

struct sim_disk;
struct sim_device;

struct sim_node {
    const char *name;
    const struct sim_ops *ops;
    sim_make_node make;
    sim_make_process make_process;
    void *argument, *self;
    bool is_started, is_alive, is_mortal, is_exposed, is_doomed;
    int exit_code;
    uint64_t served_ns;    // it is started again so long after it failed; 0: nobody does
    uint64_t life, lives;
    uint64_t paused_until_ns;
    uint64_t clock_offset_ns;
    int32_t clock_ppm;
    uint32_t listeners;
    char listener[SIM_LISTENERS_MAX][IO_ADDRESS_MAX];
    struct sim_disk *disk;
    struct sim_device *device[SIM_DEVICES_MAX];
    uint32_t devices;
    uint64_t sent_last;    // the latest-sent message that arrived
    void (*answered)(void *context, uint64_t request, enum dj_error error, void *result);
    void *answered_context;
};

struct sim_invariant_claim {
    const char *name;
    bool (*holds)(struct sim *, void *, char *);
    void *context;
};

struct sim {
    struct sim_options options;
    struct sim_chaos chaos;
    struct prng prng;
    uint64_t now_ns, sequence, trace, sent;
    struct happening **heap, *spare;    // spare: a list through `pointer`
    uint32_t heap_count, heap_capacity;
    struct sim_node node[SIM_NODES_MAX];
    uint32_t nodes;
    struct sim_link *link;
    uint32_t links, link_capacity;
    uint64_t healed_ns[SIM_NODES_MAX][SIM_NODES_MAX];    // when the pair can reach each other again
    struct sim_invariant_claim invariant[SIM_INVARIANTS_MAX];
    uint32_t invariants;
    void (*passes)(void *context, const struct sim_message *message);
    void (*changes)(void *context, const struct sim_change *change);
    void *passes_context, *changes_context;
    struct io_effects effects;
    struct sim_stats stats;
    bool has_failed;
    char failure[SIM_TEXT_MAX];
};

// sim.c
struct happening *sim_later(struct sim *sim, uint64_t at_ns, void (*act)(struct sim *, struct happening *));
// The same again at a later time, in its old place among what happens then: a link delivers in order, also what a partition held up.
struct happening *sim_put_off(struct sim *sim, const struct happening *happening, uint64_t at_ns);
struct happening *sim_later_event(struct sim *sim, uint64_t at_ns, uint32_t node,
                                  const struct io_event *event);             // to this life of it
void sim_deliver(struct sim *sim, uint32_t node, struct io_event *event);    // now; takes its holds
void sim_cancel(struct sim *sim, bool (*is_meant)(const struct happening *happening, const void *context), const void *context);
uint64_t sim_random(struct sim *sim, uint64_t low, uint64_t high);
uint64_t sim_local_ns(const struct sim *sim, uint32_t node, uint64_t at_ns);    // what its clock shows then
void sim_say(const struct sim *sim, const char *format, ...) DJ_PRINTF(2, 3);

// network.c
void network_send(struct sim *sim, uint32_t node, struct io_effect *effect);    // takes its holds
void network_open(struct sim *sim, uint32_t node, const struct io_effect *effect);
void network_close(struct sim *sim, uint32_t node, uint64_t link);
void network_death(struct sim *sim, uint32_t node);    // its links, seen from the others
void network_break(struct sim *sim, uint32_t index);
bool network_break_any(struct sim *sim);    // one link between living nodes, if there is one

// disk.c
struct sim_disk *disk_make(void);
void disk_free(struct sim_disk *disk);
void disk_use(struct sim *sim, uint32_t node, uint64_t ticket, struct store_batch *batch, bool is_read);    // takes the batch
void disk_fill(struct sim *sim, uint32_t node, uint64_t for_ns);
void disk_death(struct sim *sim, uint32_t node);

// device.c
struct sim_device *device_make(struct sim *sim, uint32_t node, uint32_t index, uint64_t capacity_bytes);
void device_free(struct sim_device *device);
struct device_port *device_port_of(struct sim_device *device);
void device_birth(struct sim_device *device);    // memory full of garbage
void device_death(struct sim_device *device);

// value.c
// Runs one KERNEL task on the region: data movement as it is, every other op as a function of all its input bits.
void value_run(uint8_t *region, const struct device_task *task);

#endif
