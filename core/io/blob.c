// Blob: header and bytes in one allocation; the header fills the first cache line, so that the bytes start on the next. The manual is
// blob.h.
//
// The count of holders is atomic because batches and queues with blobs in them are freed where they were used up, not where they were made.
// Memory order: a new hold needs none (whoever copies a hold has one); a drop releases what its thread did with the bytes, and the last
// one acquires all of that before it frees.

#include "core/io/blob.h"

#include "core/base/assert.h"
#include "core/base/bits.h"

#include <stdlib.h>
#include <string.h>

enum { BLOB_ALIGNMENT = 64 };

_Static_assert(sizeof(struct blob) <= BLOB_ALIGNMENT, "the header has its own cache line");

static void release(struct blob *blob)
{
    free(blob);
}

struct blob *blob_make(size_t bytes)
{
    size_t whole;
    if (!size_add(bytes, BLOB_ALIGNMENT, &whole))
        return NULL;
    void *memory = NULL;
    if (posix_memalign(&memory, BLOB_ALIGNMENT, whole) != 0)
        return NULL;
    struct blob *blob = memory;
    *blob = (struct blob){.holders = 1, .bytes = bytes, .data = (uint8_t *)memory + BLOB_ALIGNMENT, .release = release};
    return blob;
}

struct blob *blob_copy(const void *data, size_t bytes)
{
    struct blob *blob = blob_make(bytes);
    if (blob != NULL && bytes != 0)
        memcpy(blob->data, data, bytes);
    return blob;
}

struct blob *blob_hold(struct blob *blob)
{
    uint32_t before = __atomic_fetch_add(&blob->holders, 1, __ATOMIC_RELAXED);
    assert(before > 0);
    return blob;
}

void blob_drop(struct blob *blob)
{
    if (blob == NULL)
        return;
    uint32_t before = __atomic_fetch_sub(&blob->holders, 1, __ATOMIC_ACQ_REL);
    assert(before > 0);
    if (before == 1)
        blob->release(blob);
}
