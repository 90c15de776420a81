// Client: a node of the simulated world that is a client process: the real recorder and the real protocol, driven as the client's loop drives
// them, with a seeded program (program.h) on top. It also keeps the account of its own submissions that the invariants need.

#ifndef CHAOS_SIM_CLIENT_H
#define CHAOS_SIM_CLIENT_H

#include "chaos/sim/program.h"
#include "chaos/sim/sim.h"
#include "frontend/client/protocol/protocol.h"
#include "frontend/client/recorder/recorder.h"

struct client;

struct client_config {
    char head[IO_ADDRESS_MAX], host[64];
    char name[64];    // of its session; "": it cannot be resumed, and every life runs another program
    uint32_t index;
    struct program_options program;
    uint8_t policy;    // enum lineage_policy
    uint64_t replay_limit_ns;
    bool (*may_fail)(void *context, enum dj_error error, bool is_opening);    // whether a typed error is an answer in this world
    void *context;
    struct client_totals *totals;    // of all lives; outlives the node
};

struct client_totals {
    uint64_t reads, errors, steps, finished, lives, resubmissions, links_lost, executions, fetches;
};

extern const struct sim_ops client_ops;
void *client_make(struct sim *sim, uint32_t node, uint64_t life,
                  void *config);    // a sim_make_node; config: struct client_config
bool client_is_finished(const struct client *client);
void client_say_state(const struct client *client, char *text, size_t bytes);    // what it waits for
// What it keeps that is not durable; false while it has no session.
bool client_window(void *client, uint64_t *ret_executions, uint64_t *ret_bytes);

// What it needs of what workers hold, by the names of its session; at most `most`. 0 while it has none.
struct record_ref;
uint32_t client_live_handles(const struct client *client, struct record_ref *ret, uint32_t most, uint64_t *ret_session);

// For program.c.
struct recorder *client_recorder(struct client *client);
void client_begin_read(struct client *client,
                       struct value *value);       // takes the reader's reference; program_read or program_failed follows
void client_begin_flush(struct client *client);    // program_flushed or program_failed follows
// An error that the program met: counted where it is an answer in this world, else the run fails.
void client_met_error(struct client *client, enum dj_error error, const char *text);
void client_wrong(struct client *client, const char *format, ...) DJ_PRINTF(2, 3);

#endif
