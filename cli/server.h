// Server: builds a head or a worker from options and runs it on the calling thread. Used by start and embedded.

#ifndef CLI_SERVER_H
#define CLI_SERVER_H

#include "cli/command.h"
#include "cli/gpus.h"
#include "core/driver/driver.h"
#include "store/store.h"

struct head_options {
    const char *listen;                 // HOST:PORT; port 0: the system chooses
    const char *state;                  // NULL: the default
    enum store_durability durability;
    bool is_sync;                       // answers wait until their records are durable
    uint32_t retention_days;            // of a named session's records; 0: the head's default
    uint64_t leaf_store_bytes;          // 0: the head's default
    bool is_chaos;                      // `djinn chaos` may break it on purpose (chaos/live)
};

struct worker_options {
    const char *head;                   // HOST:PORT
    const char *listen;                 // HOST:PORT for clients and other workers; port 0: the system chooses
    const char *advertise;              // what others are told; NULL: what was bound
    const char *state;                  // folder with the token
    const char *name;                   // NULL: HOST-PID
    const char *suffix;                 // behind the name; NULL: none
    uint32_t threads;                   // 0: as many as there are cores
    uint64_t memory_bytes;              // 0: 64 % of the machine's; on a GPU, most of what is free there
    struct gpus gpus;                   // resolved, at most one
    bool is_chaos;                      // as a head's
    uint32_t grace_s;                   // how long a client that is gone is waited for; 0: the worker's default
};

// One process (core/actors) with its driver and ports: a head or a worker.
struct server {
    struct process *process;
    struct driver *driver;
    struct store_port store;
    bool has_store;
    struct device_port *device;         // NULL for a head
    struct hash128 token;
    char head_address[CLI_ADDRESS_MAX]; // bound
    char folder[CLI_PATH_MAX];
    char socket[CLI_PATH_MAX];          // the worker's unix socket, removed at the end
};

// Fills *server; on failure the fault says what to do, and server_end must still be called.
DJ_MUST_USE enum dj_error server_make(struct server *server, const char *state, bool make_token, struct fault *fault);
DJ_MUST_USE enum dj_error server_add_head(struct server *server, const struct head_options *options, struct fault *fault);
DJ_MUST_USE enum dj_error server_add_worker(struct server *server, const struct worker_options *options, struct fault *fault);
int server_run(struct server *server);  // until stopped; the exit code
void server_end(struct server *server);

#endif
