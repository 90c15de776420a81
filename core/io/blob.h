// Blob: host bytes with holders. The core passes blobs by pointer and never looks inside those that carry tensor bytes.
//
// Thread: any thread may hold and drop (the store's thread frees its batches). Another thread (device, store, link) may read or fill the
// bytes between the effect that names the blob and the event that reports it done; the core keeps its hold meanwhile.

#ifndef CORE_IO_BLOB_H
#define CORE_IO_BLOB_H

#include <stddef.h>
#include <stdint.h>

struct blob {
    uint32_t holders;
    size_t bytes;
    uint8_t *data;                      // 64-aligned
    void (*release)(struct blob *blob); // called at the last drop; frees data and blob
    void *owner;                        // for release
};

struct blob *blob_make(size_t bytes);                       // uninitialised, one holder; NULL out of memory
struct blob *blob_copy(const void *data, size_t bytes);     // NULL out of memory
struct blob *blob_hold(struct blob *blob);
void blob_drop(struct blob *blob);                          // NULL is allowed

#endif
