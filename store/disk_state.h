// Disk's state, shared by disk.c and disk_open.c.

#ifndef STORE_DISK_STATE_H
#define STORE_DISK_STATE_H

#include <lmdb.h>
#include <zstd.h>

#include "store/disk.h"
#include "store/files.h"
#include "store/schema.h"
#include "store/steady.h"

struct numbers {
    uint32_t count, capacity;
    uint64_t *number;
};

struct disk {
    MDB_env *env;    // NULL: could not be opened again after a failure; the next use tries
    struct tables tables;
    struct files files;
    struct steady steady;
    enum store_durability durability;
    size_t map_bytes, page_bytes;
    int lock_fd, pin_fd;
    struct numbers born, dying, dead;    // blob files: of this transaction, and gone with one that committed
    struct {
        uint64_t files, file_bytes;    // modulo 2^64
    } change;                          // by this transaction
    uint64_t file_count, file_bytes, tree_bytes, entries[STORE_TABLES];
    uint64_t syncs, last_sync_ns, unsynced_since_ns, commits_unsynced, full;
    bool is_known_full;
    ZSTD_CCtx *compressor;
    uint8_t packed[ZSTD_COMPRESSBOUND(STORE_INLINE_BYTES)];
    char path[FILES_PATH_MAX], tree_path[FILES_NAME_MAX];
};

enum dj_error disk_error_of(const struct disk *disk, int code);
bool disk_pin_exclusive(const struct disk *disk);    // nobody copies the store, and nobody can begin to until flock(LOCK_UN)
int disk_reopen(struct disk *disk);                  // after LMDB has refused to go on. Its codes
int disk_grow(struct disk *disk);                    // doubles the map

#endif
