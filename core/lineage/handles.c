// Handles, the head's table. A location hangs in two lists, its handle's and its incarnation's, so that fencing costs what the
// incarnation held and not what the table holds. References are found by a map, so that a handle may have many.
//
// Invariants: an entry is lost if and only if it had a location and has none; a fenced incarnation has no locations and never gets one.

#include "core/lineage/handles.h"

#include "core/base/assert.h"
#include "core/base/list.h"
#include "core/base/map.h"
#include "core/base/pool.h"

#include <stdlib.h>

struct entry {
    struct handle handle;
    uint64_t bytes;
    uint32_t locations, references;
    bool is_lost;
    struct list location_list, reference_list;
};

struct incarnation {
    uint64_t number;
    bool is_fenced;
    uint32_t locations;
    struct list location_list;
};

struct location {
    struct list of_entry, of_incarnation;
    struct entry *entry;
    struct incarnation *incarnation;
};

struct reference {
    struct list of_entry;
    struct hash128 key;
    struct entry *entry;
    uint64_t holder, sequence;
};

struct handles {
    struct map *entries, *incarnations, *references;
    struct pool *entry_pool, *incarnation_pool, *location_pool, *reference_pool;
    struct handles_limits limits;
    uint32_t lost, fenced;
};

void handles_free(struct handles *handles)
{
    if (handles == NULL)
        return;
    map_free(handles->entries);
    map_free(handles->incarnations);
    map_free(handles->references);
    pool_free(handles->entry_pool);
    pool_free(handles->incarnation_pool);
    pool_free(handles->location_pool);
    pool_free(handles->reference_pool);
    free(handles);
}

enum dj_error handles_make(struct handles_limits limits, struct handles **ret)
{
    struct handles *handles = calloc(1, sizeof *handles);
    if (handles == NULL)
        return DJ_E_NO_MEMORY;
    handles->limits = limits;
    enum dj_error error = map_make(limits.handles, &handles->entries);
    if (error == DJ_OK)
        error = map_make(limits.incarnations, &handles->incarnations);
    if (error == DJ_OK)
        error = map_make(limits.references, &handles->references);
    if (error == DJ_OK)
        error = pool_make(sizeof(struct entry), limits.handles, &handles->entry_pool);
    if (error == DJ_OK)
        error = pool_make(sizeof(struct incarnation), limits.incarnations, &handles->incarnation_pool);
    if (error == DJ_OK)
        error = pool_make(sizeof(struct location), limits.locations, &handles->location_pool);
    if (error == DJ_OK)
        error = pool_make(sizeof(struct reference), limits.references, &handles->reference_pool);
    if (error == DJ_OK)
        *ret = handles;
    else
        handles_free(handles);
    return error;
}

static struct entry *find(const struct handles *handles, struct handle handle)
{
    struct entry *entry = map_get(handles->entries, handle_key(handle));
    return entry != NULL && handle_equal(entry->handle, handle) ? entry : NULL;
}

// An object of a pool that holds `limit`; NULL when they are all out, or out of memory, which *error tells apart.
static void *take(struct pool *pool, uint32_t limit, enum dj_error *error)
{
    void *object = pool_take(pool);
    if (object == NULL)
        *error = pool_out(pool) == limit ? DJ_E_LIMIT : DJ_E_NO_MEMORY;
    return object;
}

enum dj_error handles_put(struct handles *handles, struct handle handle, uint64_t bytes)
{
    struct entry *entry = map_get(handles->entries, handle_key(handle));
    if (entry != NULL)
        return handle_equal(entry->handle, handle) && entry->bytes == bytes ? DJ_OK : DJ_E_DUPLICATE_DIFFERS;
    enum dj_error error = DJ_OK;
    entry = take(handles->entry_pool, handles->limits.handles, &error);
    if (entry == NULL)
        return error;
    *entry = (struct entry){.handle = handle, .bytes = bytes};
    list_init(&entry->location_list);
    list_init(&entry->reference_list);
    error = map_put(handles->entries, handle_key(handle), entry);
    if (error != DJ_OK)
        pool_give(handles->entry_pool, entry);
    return error;
}

static void location_remove(struct handles *handles, struct location *location)
{
    list_remove(&location->of_entry);
    list_remove(&location->of_incarnation);
    location->entry->locations--;
    location->incarnation->locations--;
    pool_give(handles->location_pool, location);
}

static void set_lost(struct handles *handles, struct entry *entry, bool is_lost)
{
    if (entry->is_lost == is_lost)
        return;
    entry->is_lost = is_lost;
    handles->lost = is_lost ? handles->lost + 1 : handles->lost - 1;
}

static void reference_remove(struct handles *handles, struct reference *reference)
{
    map_take(handles->references, reference->key);
    list_remove(&reference->of_entry);
    reference->entry->references--;
    pool_give(handles->reference_pool, reference);
}

bool handles_drop(struct handles *handles, struct handle handle)
{
    struct entry *entry = find(handles, handle);
    if (entry == NULL)
        return false;
    list_each (node, &entry->location_list)
        location_remove(handles, list_entry(node, struct location, of_entry));
    list_each (node, &entry->reference_list)
        reference_remove(handles, list_entry(node, struct reference, of_entry));
    set_lost(handles, entry, false);
    map_take(handles->entries, handle_key(handle));
    pool_give(handles->entry_pool, entry);
    return true;
}

static struct handles_info info_of(const struct entry *entry)
{
    const struct location *first = list_entry(entry->location_list.next, struct location, of_entry);
    return (struct handles_info){
        .handle = entry->handle,
        .bytes = entry->bytes,
        .locations = entry->locations,
        .references = entry->references,
        .location = entry->locations == 0 ? 0 : first->incarnation->number,
        .is_lost = entry->is_lost,
    };
}

bool handles_find(const struct handles *handles, struct handle handle, struct handles_info *ret)
{
    const struct entry *entry = find(handles, handle);
    if (entry == NULL)
        return false;
    if (ret != NULL)
        *ret = info_of(entry);
    return true;
}

static enum dj_error incarnation_get(struct handles *handles, uint64_t number, struct incarnation **ret)
{
    struct incarnation *incarnation = map_get(handles->incarnations, map_key(number));
    if (incarnation == NULL) {
        enum dj_error error = DJ_OK;
        incarnation = take(handles->incarnation_pool, handles->limits.incarnations, &error);
        if (incarnation == NULL)
            return error;
        *incarnation = (struct incarnation){.number = number};
        list_init(&incarnation->location_list);
        error = map_put(handles->incarnations, map_key(number), incarnation);
        if (error != DJ_OK) {
            pool_give(handles->incarnation_pool, incarnation);
            return error;
        }
    }
    *ret = incarnation;
    return DJ_OK;
}

static struct location *location_find(const struct entry *entry, uint64_t incarnation)
{
    list_each (node, &entry->location_list) {
        struct location *location = list_entry(node, struct location, of_entry);
        if (location->incarnation->number == incarnation)
            return location;
    }
    return NULL;
}

enum dj_error handles_add_location(struct handles *handles, struct handle handle, uint64_t incarnation)
{
    struct entry *entry = find(handles, handle);
    if (entry == NULL)
        return DJ_E_HANDLE_UNKNOWN;
    if (location_find(entry, incarnation) != NULL)
        return DJ_OK;
    struct incarnation *where;
    enum dj_error error = incarnation_get(handles, incarnation, &where);
    if (error != DJ_OK)
        return error;
    if (where->is_fenced)
        return DJ_E_EPOCH_FENCED;
    struct location *location = take(handles->location_pool, handles->limits.locations, &error);
    if (location == NULL)
        return error;
    location->entry = entry;
    location->incarnation = where;
    list_push(&entry->location_list, &location->of_entry);
    list_push(&where->location_list, &location->of_incarnation);
    entry->locations++;
    where->locations++;
    set_lost(handles, entry, false);
    return DJ_OK;
}

bool handles_remove_location(struct handles *handles, struct handle handle, uint64_t incarnation)
{
    struct entry *entry = find(handles, handle);
    struct location *location = entry == NULL ? NULL : location_find(entry, incarnation);
    if (location == NULL)
        return false;
    location_remove(handles, location);
    set_lost(handles, entry, entry->locations == 0);
    return true;
}

uint32_t handles_locations(const struct handles *handles, struct handle handle, uint64_t *ret, uint32_t max)
{
    const struct entry *entry = find(handles, handle);
    if (entry == NULL)
        return 0;
    uint32_t count = 0;
    list_each (node, &entry->location_list) {
        if (count == max)
            break;
        ret[count++] = list_entry(node, struct location, of_entry)->incarnation->number;
    }
    return entry->locations;
}

enum dj_error handles_fence(struct handles *handles, uint64_t incarnation, struct handle **ret, uint32_t *ret_count)
{
    struct incarnation *where;
    enum dj_error error = incarnation_get(handles, incarnation, &where);
    if (error != DJ_OK)
        return error;
    struct handle *lost = NULL;
    if (where->locations != 0) {
        lost = malloc(where->locations * sizeof *lost);
        if (lost == NULL)
            return DJ_E_NO_MEMORY;    // nothing was changed: the caller can ask again
    }
    if (!where->is_fenced)
        handles->fenced++;
    where->is_fenced = true;
    uint32_t count = 0;
    list_each (node, &where->location_list) {
        struct location *location = list_entry(node, struct location, of_incarnation);
        struct entry *entry = location->entry;
        location_remove(handles, location);
        if (entry->locations != 0)
            continue;
        set_lost(handles, entry, true);
        lost[count++] = entry->handle;
    }
    if (count == 0) {
        free(lost);
        lost = NULL;
    }
    *ret = lost;
    *ret_count = count;
    return DJ_OK;
}

bool handles_is_fenced(const struct handles *handles, uint64_t incarnation)
{
    const struct incarnation *where = map_get(handles->incarnations, map_key(incarnation));
    return where != NULL && where->is_fenced;
}

static struct hash128 reference_key(struct handle handle, uint64_t holder, uint64_t sequence)
{
    struct hash128 key = handle_key(handle);
    return (struct hash128){.hi = hash_mix(hash_mix(key.hi, key.lo), holder), .lo = sequence};
}

enum dj_error handles_hold(struct handles *handles, struct handle handle, uint64_t holder, uint64_t sequence)
{
    struct entry *entry = find(handles, handle);
    if (entry == NULL)
        return DJ_E_HANDLE_UNKNOWN;
    struct hash128 key = reference_key(handle, holder, sequence);
    if (map_get(handles->references, key) != NULL)
        return DJ_OK;
    enum dj_error error = DJ_OK;
    struct reference *reference = take(handles->reference_pool, handles->limits.references, &error);
    if (reference == NULL)
        return error;
    *reference = (struct reference){.key = key, .entry = entry, .holder = holder, .sequence = sequence};
    error = map_put(handles->references, key, reference);
    if (error != DJ_OK) {
        pool_give(handles->reference_pool, reference);
        return error;
    }
    list_push(&entry->reference_list, &reference->of_entry);
    entry->references++;
    return DJ_OK;
}

bool handles_release(struct handles *handles, struct handle handle, uint64_t holder, uint64_t sequence)
{
    struct entry *entry = find(handles, handle);
    if (entry == NULL)
        return false;
    struct reference *reference = map_get(handles->references, reference_key(handle, holder, sequence));
    if (reference != NULL)
        reference_remove(handles, reference);
    return entry->references == 0;
}

bool handles_next(const struct handles *handles, uint32_t *cursor, struct handles_info *ret)
{
    const struct entry *entry = map_next(handles->entries, cursor, NULL);
    if (entry == NULL)
        return false;
    *ret = info_of(entry);
    return true;
}

struct handles_stats handles_stats(const struct handles *handles)
{
    return (struct handles_stats){
        .handles = map_count(handles->entries),
        .locations = pool_out(handles->location_pool),
        .references = map_count(handles->references),
        .lost = handles->lost,
        .fenced = handles->fenced,
    };
}
