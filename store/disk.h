// Disk: the LMDB environment and the blob files, used by one thread at a time. No queue, no events: store.c has those.

#ifndef STORE_DISK_H
#define STORE_DISK_H

#include <stdbool.h>

#include "core/base/error.h"
#include "core/io/store.h"
#include "store/store.h"

struct disk;

DJ_MUST_USE enum dj_error disk_open(const struct store_config *config, struct disk **ret, struct fault *fault);
void disk_close(struct disk *disk);    // syncs what was committed, at every durability; NULL is allowed

// Applies the batches in order, in one transaction, all or none: durable on return, as far as the configured durability goes.
// DJ_E_STORE_FULL when the disk is full, DJ_E_STORE with a log line otherwise; then nothing of them is visible, and the next commit works
// as soon as the disk does.
DJ_MUST_USE enum dj_error disk_commit(struct disk *disk, struct store_batch *const *batch, uint32_t batches);
// Answers GET and SCAN items. Absent keys give no entry. DJ_E_STORE_CORRUPT when a checksum fails.
DJ_MUST_USE enum dj_error disk_read(struct disk *disk, const struct store_batch *batch, struct store_result *result);

// At `os`: syncs when something was committed and the last sync is old or many commits ago. How long until then; UINT64_MAX: nothing to do.
void disk_sync_if_due(struct disk *disk);
uint64_t disk_sync_due_ns(const struct disk *disk);

// Fills what the disk knows: syncs, last_sync_ns, map_bytes, tree_bytes, files, file_bytes, entries, full.
void disk_stats(const struct disk *disk, struct store_stats *stats);

#endif
