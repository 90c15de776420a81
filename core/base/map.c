// Map: linear probing in a power-of-two table at most three quarters full; deletion shifts the run behind the hole back.
//
// Invariant: between an entry's home slot and the slot it is in, no slot is empty. So a search ends at the first empty slot.
//
// Keys are mixed before use (callers pass counters as well as hashes). The mixing is not keyed, so whoever chooses keys can make
// runs long: keys that come from outside must be bounded in number by entries_max, as everything here is.

#include "core/base/map.h"

#include "core/base/assert.h"
#include "core/base/bits.h"

#include <stdlib.h>

enum { MAP_SLOTS_FIRST = 16, MAP_ENTRIES_MAX = 1 << 30 };

struct entry {
    struct hash128 key;
    void *value;    // NULL: the slot is empty
};

struct map {
    struct entry *slot;
    uint32_t mask;    // slots - 1; 0 while there is no table
    uint32_t count;
    uint32_t entries_max;
};

enum dj_error map_make(uint32_t entries_max, struct map **ret)
{
    if (entries_max == 0 || entries_max > MAP_ENTRIES_MAX)
        return DJ_E_INVALID;
    struct map *map = malloc(sizeof *map);
    if (map == NULL)
        return DJ_E_NO_MEMORY;
    *map = (struct map){.entries_max = entries_max};
    *ret = map;
    return DJ_OK;
}

void map_free(struct map *map)
{
    if (map == NULL)
        return;
    free(map->slot);
    free(map);
}

static uint32_t home_of(struct hash128 key, uint32_t mask)
{
    return (uint32_t)hash_mix(key.hi, key.lo) & mask;
}

// The slot that holds `key`, or the empty one where it belongs.
static uint32_t find(const struct map *map, struct hash128 key)
{
    uint32_t at = home_of(key, map->mask);
    while (map->slot[at].value != NULL && !hash128_equal(map->slot[at].key, key))
        at = (at + 1) & map->mask;
    return at;
}

void *map_get(const struct map *map, struct hash128 key)
{
    return map->slot == NULL ? NULL : map->slot[find(map, key)].value;
}

static bool grow(struct map *map)
{
    uint32_t slots = map->slot == NULL ? MAP_SLOTS_FIRST : (map->mask + 1) * 2;
    struct entry *slot = calloc(slots, sizeof *slot);
    if (slot == NULL)
        return false;

    struct map old = *map;
    map->slot = slot;
    map->mask = slots - 1;
    if (old.slot != NULL) {
        for (uint32_t i = 0; i <= old.mask; i++) {
            if (old.slot[i].value != NULL)
                map->slot[find(map, old.slot[i].key)] = old.slot[i];
        }
        free(old.slot);
    }
    return true;
}

enum dj_error map_put(struct map *map, struct hash128 key, void *value)
{
    assert(value != NULL);

    if (map->slot != NULL) {
        struct entry *entry = &map->slot[find(map, key)];
        if (entry->value != NULL) {
            entry->value = value;
            return DJ_OK;
        }
    }
    if (map->count == map->entries_max)
        return DJ_E_LIMIT;
    bool is_crowded = map->slot == NULL || (uint64_t)(map->count + 1) * 4 > ((uint64_t)map->mask + 1) * 3;
    if (is_crowded && !grow(map))
        return DJ_E_NO_MEMORY;
    map->slot[find(map, key)] = (struct entry){.key = key, .value = value};
    map->count++;
    return DJ_OK;
}

void *map_take(struct map *map, struct hash128 key)
{
    if (map->slot == NULL)
        return NULL;
    uint32_t hole = find(map, key);
    void *value = map->slot[hole].value;
    if (value == NULL)
        return NULL;

    for (uint32_t at = (hole + 1) & map->mask; map->slot[at].value != NULL; at = (at + 1) & map->mask) {
        uint32_t home = home_of(map->slot[at].key, map->mask);
        // The entry may move into the hole if its home is not behind the hole, counted around the table.
        if (((at - home) & map->mask) >= ((at - hole) & map->mask)) {
            map->slot[hole] = map->slot[at];
            hole = at;
        }
    }
    map->slot[hole] = (struct entry){.value = NULL};
    map->count--;
    return value;
}

uint32_t map_count(const struct map *map)
{
    return map->count;
}

void *map_next(const struct map *map, uint32_t *cursor, struct hash128 *key)
{
    if (map->slot == NULL)
        return NULL;
    while (*cursor <= map->mask) {
        const struct entry *entry = &map->slot[(*cursor)++];
        if (entry->value != NULL) {
            if (key != NULL)
                *key = entry->key;
            return entry->value;
        }
    }
    return NULL;
}
