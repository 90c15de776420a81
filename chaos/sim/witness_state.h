// What witness.c and witness_client.c share. Nobody else includes it.

#ifndef CHAOS_SIM_WITNESS_STATE_H
#define CHAOS_SIM_WITNESS_STATE_H

#include "chaos/sim/witness.h"
#include "core/base/arena.h"

enum { LINKS_FIRST = 64, ENTRIES_FIRST = 64, DEEDS_FIRST = 64, FENCES_MAX = 64, NEEDED_MAX = 256, QUESTIONS_MAX = 64 };

struct heard_link {
    uint64_t session;    // ATTACH; 0: not attached
    uint32_t epoch, stream;
};

struct entry {
    struct fact *fact;
    uint64_t number;
};

// Who journals: a life of a worker, or a client on one link.
struct sender {
    uint32_t node;
    uint64_t life, which;    // which: the incarnation of a worker, the link of a client
    bool is_worker;
    struct entry *entry;
    uint32_t entries, capacity, acknowledged;
};

struct fence {
    uint64_t incarnation, life, at_ns;
    uint32_t node;
};

// One submission of a client's present life that is not known to be durable.
struct deed {
    struct fact *fact;
    uint32_t node;    // the worker it went to last, and its life
    uint64_t life;
    bool has_run, is_marked;    // is_marked: told durable
};

// A RECOVER.
struct question {
    uint64_t incarnation;    // of the target
    uint32_t count;
    struct record_ref needed[NEEDED_MAX];
};

// Of one client's present life.
struct account {
    uint64_t life, session;
    struct deed *deed;
    uint32_t deeds, deed_capacity;
    struct question *question;
    uint32_t questions;
};

// The last epoch of a session that a life of a worker has confirmed.
struct admission {
    uint64_t session, life;
    uint32_t node, epoch;
};

struct witness {
    struct witness_config config;
    struct admission *admission;
    uint32_t admissions;
    struct arena *arena;
    struct heard_link *link;
    uint64_t link_capacity;
    struct sender **sender;
    uint32_t senders, fences;
    struct fence fence[FENCES_MAX];
    uint64_t incarnation[WITNESS_NODES_MAX], life[WITNESS_NODES_MAX], joined[WITNESS_NODES_MAX],
        ended[WITNESS_NODES_MAX], beat_life[WITNESS_NODES_MAX];
    struct wire_heartbeat beat[WITNESS_NODES_MAX];
    struct account account[WITNESS_NODES_MAX];
    struct witness_totals totals;
};

uint32_t witness_index(const uint32_t *node, uint32_t count, uint32_t wanted);    // count: it is not there
bool witness_is_worker(const struct witness *witness, uint32_t node);
struct heard_link *witness_link(struct witness *witness, uint64_t link);
void witness_check_lease(struct witness *witness, const struct sim_message *message);

// witness_client.c
void witness_client_sends(struct witness *witness, const struct sim_message *message);    // not only clients: whatever witness.c has no use for
void witness_client_hears(struct witness *witness, const struct sim_message *message);

#endif
