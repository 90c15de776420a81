// Region: who holds which bytes of the device's one flat region. Offsets only; the bytes are the device's.
//
// Idea: two-level segregated fit (TLSF, Masmano et al. 2004): free blocks hang in lists by size class, two bitmaps find the first class
// that surely fits in a few instructions; freed blocks join their neighbours at once, so no two free blocks ever touch. The block
// records lie outside the region, since the core cannot write to it.
//
// Deterministic: the same calls give the same offsets. Everything is in units of DEVICE_ALIGNMENT bytes. One thread.

#ifndef GPU_WORKER_EXEC_REGION_H
#define GPU_WORKER_EXEC_REGION_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/error.h"

struct region;

struct region_block {
    uint64_t offset, bytes;                     // both multiples of DEVICE_ALIGNMENT
    struct region_block *before, *behind;       // neighbours in the region
    struct region_block *next, *prev;           // in the list of its size class, when free
    bool is_free;
    bool is_touched;                            // somebody may have written to it since it was last trimmed
};

// A region of capacity_bytes (rounded down to the alignment, at least one unit) in at most blocks_max blocks.
DJ_MUST_USE enum dj_error region_make(uint64_t capacity_bytes, uint32_t blocks_max, struct region **ret);
void region_free(struct region *region);                                        // NULL is allowed

// Takes at least `bytes` (0 counts as 1), aligned. NULL when no free block is large enough or blocks_max blocks exist. The block
// belongs to the region; region_release gives it back.
struct region_block *region_take(struct region *region, uint64_t bytes);
void region_release(struct region *region, struct region_block *block);

uint64_t region_capacity_bytes(const struct region *region);
uint64_t region_used_bytes(const struct region *region);
uint64_t region_largest_free_bytes(const struct region *region);                // linear in the free blocks: for error texts

// Calls trim(self, offset, bytes) for each free block of at least least_bytes that was used since it was last trimmed.
void region_trim(struct region *region, uint64_t least_bytes, void (*trim)(void *self, uint64_t offset, uint64_t bytes), void *self);

#endif
