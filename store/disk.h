// Disk: the LMDB environment and the blob files, used by one thread at a time. No queue, no events: store.c has those.

#ifndef STORE_DISK_H
#define STORE_DISK_H

#include <stdbool.h>

#include "core/base/error.h"
#include "core/io/store.h"
#include "store/store.h"

struct disk;

DJ_MUST_USE enum dj_error disk_open(const struct store_config *config, struct disk **ret, struct fault *fault);
void disk_close(struct disk *disk);    // NULL is allowed

// Applies the batches in order, in one transaction, all or none: durable on return, as far as the configured durability goes.
// DJ_E_STORE_FULL when the disk is full, DJ_E_STORE with a log line otherwise; then nothing of them is visible.
DJ_MUST_USE enum dj_error disk_commit(struct disk *disk, struct store_batch *const *batch, uint32_t batches);
// Answers GET and SCAN items. Absent keys give no entry. DJ_E_STORE_CORRUPT when a checksum fails.
DJ_MUST_USE enum dj_error disk_read(struct disk *disk, const struct store_batch *batch, struct store_result *result);

#endif
