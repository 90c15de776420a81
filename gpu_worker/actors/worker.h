// Worker: the actor of a worker's process. Joins the head, takes clients that the head admitted, runs their executions on its devices,
// answers, journals behind the answers, and moves leaves and values between clients, the store and other workers.
//
// Pure: events in, effects out (core/actors). One root actor; its parts are in the files of this folder.
//
//   head link   CLOSED -> DIALING -> GREETING -> JOINING -> JOINED; any -> CLOSED when the link goes down, then again after a pause
//   session     ADMITTED -> has links <-> AWAY -> gone (DISMISS, or AWAY for longer than grace_ns); a newer epoch takes it over with its
// values
//   stream      ATTACHED <-> AWAY -> gone (its session, a newer epoch, or AWAY for longer than grace_ns)

#ifndef GPU_WORKER_ACTORS_WORKER_H
#define GPU_WORKER_ACTORS_WORKER_H

#include <stdint.h>

#include "core/actors/actor.h"
#include "core/base/hash.h"

enum {
    WORKER_DEVICES_MAX = 8,
    WORKER_SESSIONS_MAX = 1 << 14,
    WORKER_LINKS_MAX = 1 << 14,
    WORKER_STREAMS_MAX = 256,           // of one session
    WORKER_STREAM_MAX = 8192,           // messages of one stream that wait for their turn
    WORKER_PLANS_MAX = 4096,            // names one link may give to plans
    WORKER_KEPT_MAX = 8192,             // unconfirmed answers of one stream
    WORKER_IN_FLIGHT_MAX = 2,           // executions of one session on the device at a time: others get their turn
    WORKER_WANTS_MAX = 1 << 15,         // leaves on their way here
    WORKER_PEERS_MAX = 256,
};
#define WORKER_GRACE_NS ((uint64_t)30000000000)
#define WORKER_FETCH_NS ((uint64_t)10000000000)         // how long a value or leaf from elsewhere may take to make progress
#define WORKER_KEPT_BYTES_MAX ((uint64_t)256 << 20)     // likewise
#define WORKER_JOURNAL_BYTES_MAX ((uint64_t)64 << 20)   // unacknowledged records; beyond it executions wait

// IO_SUBMIT verbs the worker takes.
enum worker_verb { WORKER_STOP = 2 };   // leaves the head, finishes what is on the device, ends the process

struct worker_config {
    char name[64];                      // unique in the pool
    char head[IO_ADDRESS_MAX];          // "head://host:port"; "": none (tests), then sessions are admitted by whoever attaches first
    char address_unix[IO_ADDRESS_MAX], address_tcp[IO_ADDRESS_MAX];     // what others are told
    char host[64];                      // equal for processes that share a machine
    char version[32];
    struct hash128 token;               // zero: none asked for
    uint64_t incarnation;               // random, by the composition root
    uint32_t pid;
    uint64_t grace_ns;                  // 0: WORKER_GRACE_NS
    uint32_t devices;
    struct device_port *device[WORKER_DEVICES_MAX];     // also set in the driver, under the same index
};

// A root actor; its argument is a struct worker_config.
extern const struct actor_class worker_class;

#endif
