// Pool: chunks of slots that double in size until objects_max slots exist; free slots are linked through their own memory.
//
// Invariants: out <= slots <= objects_max; a free slot is poisoned for AddressSanitizer but for its link, so that a use after
// pool_give is found like a use after free.

#include "core/base/pool.h"

#include "core/base/assert.h"
#include "core/base/bits.h"

#include <sanitizer/asan_interface.h>
#include <stdlib.h>
#include <string.h>

enum { POOL_ALIGN = 16, POOL_CHUNK_FIRST = 16, POOL_CHUNK_MAX = 4096 };

struct slot {
    struct slot *next;
};

struct chunk {
    struct chunk *next;
    size_t bytes;    // of the slots
    _Alignas(POOL_ALIGN) unsigned char data[];
};

struct pool {
    struct chunk *chunks;
    struct slot *free;
    size_t slot_bytes;
    uint32_t slots, slots_max, chunk_slots, out;
};

enum dj_error pool_make(size_t object_bytes, uint32_t objects_max, struct pool **ret)
{
    if (object_bytes == 0 || objects_max == 0)
        return DJ_E_INVALID;
    size_t total;
    if (object_bytes > SIZE_MAX / 2 || !size_mul(size_round_up(object_bytes, POOL_ALIGN), objects_max, &total) ||
        total > SIZE_MAX / 2)
        return DJ_E_OVERFLOW;

    struct pool *pool = malloc(sizeof *pool);
    if (pool == NULL)
        return DJ_E_NO_MEMORY;
    *pool = (struct pool){
        .slot_bytes = size_round_up(object_bytes, POOL_ALIGN),
        .slots_max = objects_max,
        .chunk_slots = POOL_CHUNK_FIRST,
    };
    *ret = pool;
    return DJ_OK;
}

void pool_free(struct pool *pool)
{
    if (pool == NULL)
        return;
    for (struct chunk *chunk = pool->chunks, *next; chunk != NULL; chunk = next) {
        next = chunk->next;
        ASAN_UNPOISON_MEMORY_REGION(chunk->data, chunk->bytes);
        free(chunk);
    }
    free(pool);
}

static void slot_release(struct pool *pool, void *memory)
{
    struct slot *slot = memory;
    slot->next = pool->free;
    pool->free = slot;
    ASAN_POISON_MEMORY_REGION((unsigned char *)memory + sizeof *slot, pool->slot_bytes - sizeof *slot);
}

static bool grow(struct pool *pool)
{
    uint32_t left = pool->slots_max - pool->slots;
    uint32_t count = pool->chunk_slots < left ? pool->chunk_slots : left;
    if (count == 0)
        return false;
    size_t bytes = count * pool->slot_bytes;    // no overflow: pool_make checked slots_max of them
    struct chunk *chunk = malloc(sizeof *chunk + bytes);
    if (chunk == NULL)
        return false;
    chunk->next = pool->chunks;
    chunk->bytes = bytes;
    pool->chunks = chunk;
    pool->slots += count;
    if (pool->chunk_slots < POOL_CHUNK_MAX)
        pool->chunk_slots *= 2;
    for (uint32_t i = count; i-- > 0;)    // backwards, so that slots are taken in the order of their addresses
        slot_release(pool, chunk->data + i * pool->slot_bytes);
    return true;
}

void *pool_take(struct pool *pool)
{
    if (pool->free == NULL && !grow(pool))
        return NULL;
    struct slot *slot = pool->free;
    pool->free = slot->next;
    pool->out++;
    ASAN_UNPOISON_MEMORY_REGION(slot, pool->slot_bytes);
    memset(slot, 0, pool->slot_bytes);
    return slot;
}

void pool_give(struct pool *pool, void *object)
{
    assert(object != NULL);
    assert(pool->out > 0);
    pool->out--;
    slot_release(pool, object);
}

uint32_t pool_out(const struct pool *pool)
{
    return pool->out;
}
