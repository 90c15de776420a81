// Store: durable storage behind the store port (core/io/store.h): LMDB for keys and small values, files for big ones, one thread.
//
// The thread takes every batch that waits, applies them in order in one LMDB transaction and syncs once (group commit), then reports
// each with IO_STORE_DONE. Values over STORE_INLINE_BYTES are files under blobs/, written and synced before the transaction that names
// them commits, and removed after the one that forgets them. Values of STORE_COMPRESS_BYTES and more are compressed where it pays. Every
// value carries the XXH3 of its plain bytes, which is checked when it is read (DJ_E_STORE_CORRUPT).
//
// Folder: <state>/lineage.mdb, <state>/lineage.mdb-lock, <state>/blobs/2a/000000000000012a, <state>/lock (held by the head), <state>/pin
// (held by who copies), <state>/unsynced (durability below `disk`: which boot of the machine wrote here). What is lost when is in
// docs/durability.md.

#ifndef STORE_STORE_H
#define STORE_STORE_H

#include <stdint.h>

#include "core/base/error.h"
#include "core/io/io.h"
#include "core/io/store.h"

enum {
    STORE_SCHEMA_VERSION = 2,
    STORE_INLINE_BYTES = 64 << 10,
    STORE_COMPRESS_BYTES = 4 << 10,
    STORE_QUEUE_MAX = 1 << 16,    // batches waiting; beyond it a batch is answered DJ_E_BUSY at once
};
#define STORE_OS_SYNC_NS ((uint64_t)1000000000)    // at `os`: how old what is not yet synced may get

enum store_durability {
    STORE_MEMORY,    // nothing is synced while it runs: survives the death of the process
    STORE_OS,        // synced behind the answers, every STORE_OS_SYNC_NS: survives the process; the machine but for the last second
    STORE_DISK,      // synced at every group commit, before it is answered: survives loss of power
};

struct store_config {
    const char *path;    // the state folder; made if absent (0700)
    enum store_durability durability;
    uint64_t map_bytes;    // LMDB's map to begin with, which grows by itself; 0: the default
};

struct store_stats {
    uint64_t commits, batches, items, bytes, reads, sync_ns;
    uint64_t syncs;                     // times the disk was waited for
    uint64_t last_sync_ns;              // wall clock: all that was committed until then survives loss of power; 0: not yet
    uint64_t map_bytes;                 // LMDB's map; grown before it is full
    uint64_t tree_bytes;                // lineage.mdb on disk
    uint64_t files, file_bytes;         // blob files, and what they take
    uint64_t entries[STORE_TABLES];     // by table
    uint64_t full;                      // commits refused because the disk was full
};

// Opens or creates the store and starts its thread; a store of an older schema is migrated first. Answers are posted to `sink`, which must
// outlive the port. On failure the fault names the path, the reason and the cure; DJ_E_STORE_VERSION for a newer schema, DJ_E_BUSY when
// another head has it open, DJ_E_STORE_CORRUPT when the machine went down in a way that its durability does not survive.
DJ_MUST_USE enum dj_error store_open(const struct store_config *config, const struct io_sink *sink, struct store_port *ret,
                                     struct fault *fault);
struct store_stats store_stats(const struct store_port *port);    // as of the last commit; any thread

#endif
