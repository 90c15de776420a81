// Store: durable storage behind the store port (core/io/store.h): LMDB for keys and small values, files for big ones, one thread.
//
// The thread takes every batch that waits, applies them in order in one LMDB transaction and syncs once (group commit), then reports
// each with IO_STORE_DONE. Values over STORE_INLINE_BYTES are files under blobs/, written, synced and renamed into place before the
// transaction that names them commits. Every value carries its XXH3 and is checked when read (DJ_E_STORE_CORRUPT).
//
// Folder: <state>/lineage.mdb, <state>/lineage.mdb-lock, <state>/blobs/ab/<hex key>.

#ifndef STORE_STORE_H
#define STORE_STORE_H

#include <stdint.h>

#include "core/base/error.h"
#include "core/io/io.h"
#include "core/io/store.h"

enum {
    STORE_SCHEMA_VERSION = 1,
    STORE_INLINE_BYTES = 64 << 10,
    STORE_QUEUE_MAX = 1 << 16,    // batches waiting; beyond it a batch is answered DJ_E_BUSY at once
};

enum store_durability {
    STORE_MEMORY,    // nothing is synced: survives the death of the process
    STORE_OS,        // written to the operating system at every commit, synced by it later: survives the process, not the machine
    STORE_DISK,      // synced at every group commit: survives loss of power
};

struct store_config {
    const char *path;    // the state folder; made if absent (0700)
    enum store_durability durability;
};

struct store_stats {
    uint64_t commits, batches, items, bytes, reads, sync_ns;
};

// Opens or creates the store and starts its thread. Answers are posted to `sink`, which must outlive the port. On failure the fault
// names the path, the reason and the cure; DJ_E_STORE_VERSION for another schema, DJ_E_BUSY when another head has it open.
DJ_MUST_USE enum dj_error store_open(const struct store_config *config, const struct io_sink *sink, struct store_port *ret,
                                     struct fault *fault);
struct store_stats store_stats(const struct store_port *port);    // approximate while it runs

#endif
