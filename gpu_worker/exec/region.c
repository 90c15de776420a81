// Region: two-level segregated fit over block records. The manual is region.h.
//
// Class of a size in units: the position of its highest bit (first level) and the SECOND_BITS bits below it (second level); sizes below
// 2^SECOND_BITS have a class each. A search rounds the size up to the next class border, so any block found there fits; only when
// that finds nothing is the size's own class searched block by block, so that a region can be filled to its last byte.

#include "gpu_worker/exec/region.h"

#include "core/base/assert.h"
#include "core/base/pool.h"
#include "core/io/device.h"

#include <stdlib.h>

enum { SECOND_BITS = 4, SECOND = 1 << SECOND_BITS, FIRST = 64 - SECOND_BITS };

struct region {
    struct pool *blocks;
    uint64_t units, used_units;
    uint64_t first_map;    // bit f: second_map[f] is not 0
    uint32_t second_map[FIRST];
    struct region_block *list[FIRST][SECOND];
};

struct class_of {
    uint32_t first, second;
};

static struct class_of class_of(uint64_t units)
{
    if (units < SECOND)
        return (struct class_of){.first = 0, .second = (uint32_t)units};
    uint32_t high = 63 - (uint32_t)__builtin_clzll(units);
    return (struct class_of){.first = high - SECOND_BITS + 1, .second = (uint32_t)(units >> (high - SECOND_BITS)) & (SECOND - 1)};
}

static void list_in(struct region *region, struct region_block *block)
{
    struct class_of at = class_of(block->bytes / DEVICE_ALIGNMENT);
    struct region_block **head = &region->list[at.first][at.second];
    block->is_free = true;
    block->prev = NULL;
    block->next = *head;
    if (*head != NULL)
        (*head)->prev = block;
    *head = block;
    region->second_map[at.first] |= 1u << at.second;
    region->first_map |= (uint64_t)1 << at.first;
}

static void list_out(struct region *region, struct region_block *block)
{
    struct class_of at = class_of(block->bytes / DEVICE_ALIGNMENT);
    block->is_free = false;
    if (block->next != NULL)
        block->next->prev = block->prev;
    if (block->prev != NULL) {
        block->prev->next = block->next;
        return;
    }
    region->list[at.first][at.second] = block->next;
    if (block->next != NULL)
        return;
    region->second_map[at.first] &= ~(1u << at.second);
    if (region->second_map[at.first] == 0)
        region->first_map &= ~((uint64_t)1 << at.first);
}

enum dj_error region_make(uint64_t capacity_bytes, uint32_t blocks_max, struct region **ret)
{
    uint64_t units = capacity_bytes / DEVICE_ALIGNMENT;
    if (units == 0 || blocks_max < 2)
        return DJ_E_INVALID;
    struct region *region = calloc(1, sizeof *region);
    if (region == NULL)
        return DJ_E_NO_MEMORY;
    enum dj_error error = pool_make(sizeof(struct region_block), blocks_max, &region->blocks);
    if (error != DJ_OK) {
        free(region);
        return error;
    }
    struct region_block *whole = pool_take(region->blocks);
    if (whole == NULL) {
        region_free(region);
        return DJ_E_NO_MEMORY;
    }
    region->units = units;
    whole->bytes = units * DEVICE_ALIGNMENT;
    list_in(region, whole);
    *ret = region;
    return DJ_OK;
}

void region_free(struct region *region)
{
    if (region == NULL)
        return;
    pool_free(region->blocks);
    free(region);
}

// The first block of the lowest class whose every block has at least `units`.
static struct region_block *find_surely(const struct region *region, uint64_t units)
{
    uint64_t up = units;
    if (units >= SECOND) {
        uint32_t high = 63 - (uint32_t)__builtin_clzll(units);
        up = units + ((uint64_t)1 << (high - SECOND_BITS)) - 1;
    }
    struct class_of at = class_of(up);
    uint32_t second = region->second_map[at.first] & (~0u << at.second);
    if (second == 0) {
        uint64_t first = at.first + 1 < 64 ? region->first_map & (~(uint64_t)0 << (at.first + 1)) : 0;
        if (first == 0)
            return NULL;
        at.first = (uint32_t)__builtin_ctzll(first);
        second = region->second_map[at.first];
    }
    return region->list[at.first][__builtin_ctz(second)];
}

static struct region_block *find(const struct region *region, uint64_t units)
{
    struct region_block *block = find_surely(region, units);
    if (block != NULL)
        return block;
    struct class_of at = class_of(units);
    for (block = region->list[at.first][at.second]; block != NULL; block = block->next) {
        if (block->bytes >= units * DEVICE_ALIGNMENT)
            return block;
    }
    return NULL;
}

// Cuts what `block` has beyond `bytes` off into a free block behind it. Without a record for it the block stays whole.
static void split(struct region *region, struct region_block *block, uint64_t bytes)
{
    if (block->bytes == bytes)
        return;
    struct region_block *rest = pool_take(region->blocks);
    if (rest == NULL)
        return;
    rest->offset = block->offset + bytes;
    rest->bytes = block->bytes - bytes;
    rest->is_touched = block->is_touched;
    rest->before = block;
    rest->behind = block->behind;
    if (block->behind != NULL)
        block->behind->before = rest;
    block->behind = rest;
    block->bytes = bytes;
    list_in(region, rest);
}

struct region_block *region_take(struct region *region, uint64_t bytes)
{
    if (bytes > region->units * DEVICE_ALIGNMENT)
        return NULL;
    uint64_t units = bytes == 0 ? 1 : (bytes + DEVICE_ALIGNMENT - 1) / DEVICE_ALIGNMENT;
    struct region_block *block = find(region, units);
    if (block == NULL)
        return NULL;
    list_out(region, block);
    split(region, block, units * DEVICE_ALIGNMENT);
    block->is_touched = true;
    region->used_units += block->bytes / DEVICE_ALIGNMENT;
    return block;
}

// `low` takes over its neighbour `high`; both are out of the lists.
static void join(struct region *region, struct region_block *low, struct region_block *high)
{
    low->bytes += high->bytes;
    low->is_touched = low->is_touched || high->is_touched;
    low->behind = high->behind;
    if (high->behind != NULL)
        high->behind->before = low;
    pool_give(region->blocks, high);
}

void region_release(struct region *region, struct region_block *block)
{
    assert(!block->is_free);
    region->used_units -= block->bytes / DEVICE_ALIGNMENT;
    struct region_block *behind = block->behind, *before = block->before;
    if (behind != NULL && behind->is_free) {
        list_out(region, behind);
        join(region, block, behind);
    }
    if (before != NULL && before->is_free) {
        list_out(region, before);
        join(region, before, block);
        block = before;
    }
    list_in(region, block);
}

uint64_t region_capacity_bytes(const struct region *region)
{
    return region->units * DEVICE_ALIGNMENT;
}

uint64_t region_used_bytes(const struct region *region)
{
    return region->used_units * DEVICE_ALIGNMENT;
}

uint64_t region_largest_free_bytes(const struct region *region)
{
    if (region->first_map == 0)
        return 0;
    uint32_t first = 63 - (uint32_t)__builtin_clzll(region->first_map);
    uint32_t second = 31 - (uint32_t)__builtin_clz(region->second_map[first]);
    uint64_t largest = 0;
    for (const struct region_block *block = region->list[first][second]; block != NULL; block = block->next)
        largest = block->bytes > largest ? block->bytes : largest;
    return largest;
}

void region_trim(struct region *region, uint64_t least_bytes, void (*trim)(void *self, uint64_t offset, uint64_t bytes),
                 void *self)
{
    for (uint32_t first = 0; first < FIRST; first++) {
        for (uint32_t second = 0; region->second_map[first] != 0 && second < SECOND; second++) {
            for (struct region_block *block = region->list[first][second]; block != NULL; block = block->next) {
                if (!block->is_touched || block->bytes < least_bytes)
                    continue;
                trim(self, block->offset, block->bytes);
                block->is_touched = false;
            }
        }
    }
}
