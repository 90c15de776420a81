// Sched: the head's actor: membership, sessions and grants, the plan registry with its annotations, placement, the journal's way into
// the store, where leaves are, and what people ask. Pure: events in, effects out (core/actors).
//
// States of the head: STARTING (reads the store, commits its generation; messages wait), SERVING, STOPPING.

#ifndef SCHED_SCHED_H
#define SCHED_SCHED_H

#include <stdbool.h>
#include <stdint.h>

#include "core/actors/actor.h"
#include "core/base/hash.h"
#include "core/base/planted.h"

enum {
    HEAD_WORKERS_MAX = 1024,
    HEAD_DEVICES_MAX = 4096,
    HEAD_SESSIONS_MAX = 1 << 16,
    HEAD_PLANS_MAX = 1 << 16,
    HEAD_LEAVES_MAX = 1 << 20,
    HEAD_LINKS_MAX = 1 << 16,
    HEAD_PARKED_MAX = 1024,       // messages that wait while the head is STARTING
    HEAD_TRANSFERS_MAX = 4096,    // leaves on their way out of the store
};
#define HEAD_LEASE_NS ((uint64_t)4000000000)
#define HEAD_HEARTBEAT_NS ((uint64_t)500000000)
#define HEAD_RETENTION_NS ((uint64_t)7 * 24 * 3600 * 1000000000)    // of a named session's records, unless configured
#define HEAD_LEAF_STORE_BYTES ((uint64_t)64 << 30)                 // of leaves, unless configured: beyond it what nobody names goes
#define HEAD_GRACE_NS ((uint64_t)30000000000)
#define HEAD_ASSEMBLY_BYTES_MAX ((uint64_t)1 << 34)

// IO_SUBMIT verbs the head takes.
enum head_verb { HEAD_STOP = 1 };

struct head_config {
    char address[128];    // as people should write it: "127.0.0.1:7070"
    char version[32];
    struct hash128 token;      // zero: none asked for
    uint64_t incarnation;      // random, by the composition root
    int64_t wall_offset_ns;    // wall clock minus the driver's clock
    uint32_t pid;
    uint64_t retention_ns, leaf_store_bytes;    // 0: as above
    uint32_t trim_records;                      // of a session since its last trim until the next; 0: thousands
    bool is_sync;    // workers hold answers until the record of the execution is durable
};

// A root actor; its argument is a struct head_config.
extern const struct actor_class head_class;

#endif
