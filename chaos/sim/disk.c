// Disk: the store port. Batches become durable in the order in which they were accepted, each a while after the last; reads wait in the same
// queue, so they see what was accepted before them. A death keeps the batches up to a random point: durable, but nobody was told.

#include "chaos/sim/world.h"

#include "core/base/assert.h"
#include "core/io/blob.h"

#include <stdlib.h>
#include <string.h>

enum { ENTRIES_FIRST = 32 };

struct sim_table {
    struct store_entry *entry;
    uint32_t count, capacity;
};

struct sim_disk {
    struct sim_table table[STORE_TABLES];    // each in key order
    uint64_t last_ns;                        // when the last accepted batch is done
    uint64_t full_until_ns;
};

struct sim_disk *disk_make(void)
{
    struct sim_disk *disk = calloc(1, sizeof *disk);
    assert(disk != NULL);
    return disk;
}

void disk_free(struct sim_disk *disk)
{
    if (disk == NULL)
        return;
    for (uint32_t t = 0; t < STORE_TABLES; t++) {
        for (uint32_t i = 0; i < disk->table[t].count; i++)
            blob_drop(disk->table[t].entry[i].value);
        free(disk->table[t].entry);
    }
    free(disk);
}

static int compare(const struct store_entry *entry, const void *key, size_t key_bytes)
{
    size_t common = entry->key_bytes < key_bytes ? entry->key_bytes : key_bytes;
    int order = common == 0 ? 0 : memcmp(entry->key, key, common);
    return order != 0 ? order : (entry->key_bytes > key_bytes) - (entry->key_bytes < key_bytes);
}

// The first entry that is not before the key.
static uint32_t lower_bound(const struct sim_table *table, const void *key, size_t key_bytes)
{
    uint32_t low = 0, high = table->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (compare(&table->entry[middle], key, key_bytes) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

// Whether anything is different now.
static bool apply_item(struct sim_disk *disk, const struct store_item *item)
{
    struct sim_table *table = &disk->table[item->table];
    uint32_t at = lower_bound(table, item->key, item->key_bytes);
    bool is_there = at < table->count && compare(&table->entry[at], item->key, item->key_bytes) == 0;
    if (item->verb == STORE_DELETE && is_there) {
        blob_drop(table->entry[at].value);
        memmove(&table->entry[at], &table->entry[at + 1], (--table->count - at) * sizeof table->entry[0]);
        return true;
    }
    if (item->verb == STORE_DELETE || (item->verb == STORE_PUT_IF_ABSENT && is_there))
        return false;
    struct blob *value = blob_copy(item->value == NULL ? NULL : item->value->data + item->value_offset, item->value_bytes);
    assert(value != NULL);
    if (is_there) {
        blob_drop(table->entry[at].value);
        table->entry[at].value = value;
        return true;
    }
    if (table->count == table->capacity) {
        table->capacity = table->capacity == 0 ? ENTRIES_FIRST : table->capacity * 2;
        table->entry = realloc(table->entry, table->capacity * sizeof *table->entry);
        assert(table->entry != NULL);
    }
    memmove(&table->entry[at + 1], &table->entry[at], (table->count++ - at) * sizeof table->entry[0]);
    table->entry[at] = (struct store_entry){.key_bytes = item->key_bytes, .value = value};
    memcpy(table->entry[at].key, item->key, item->key_bytes);
    return true;
}

static void apply(struct sim *sim, uint32_t node, const struct store_batch *batch)
{
    for (uint32_t i = 0; i < batch->items; i++) {
        const struct store_item *item = &batch->item[i];
        if (!apply_item(sim->node[node].disk, item) || sim->changes == NULL)
            continue;
        struct sim_change change = {.node = node, .table = item->table, .key = item->key, .key_bytes = item->key_bytes};
        if (item->verb != STORE_DELETE) {
            change.value = item->value == NULL ? item->key : item->value->data + item->value_offset;
            change.value_bytes = item->value == NULL ? 0 : item->value_bytes;
        }
        sim->changes(sim->changes_context, &change);
    }
    if (sim->changes != NULL)
        sim->changes(sim->changes_context, &(struct sim_change){.node = node});
}

static struct store_result *answer(const struct sim_disk *disk, const struct store_batch *batch)
{
    struct store_result *result = result_make();
    assert(result != NULL);
    for (uint32_t i = 0; i < batch->items; i++) {
        const struct store_item *item = &batch->item[i];
        const struct sim_table *table = &disk->table[item->table];
        uint32_t at = lower_bound(table, item->key, item->key_bytes);
        uint32_t left = item->verb == STORE_SCAN ? item->scan_max : 1;
        for (; left > 0 && at < table->count; left--, at++) {
            const struct store_entry *entry = &table->entry[at];
            if (item->verb == STORE_GET && compare(entry, item->key, item->key_bytes) != 0)
                break;
            result_add(result, i, entry->key, entry->key_bytes, blob_copy(entry->value->data, entry->value->bytes));
        }
    }
    return result;
}

static void batch_drop(struct happening *happening)
{
    batch_free(happening->pointer);
}

static void batch_is_done(struct sim *sim, struct happening *happening)
{
    struct sim_disk *disk = sim->node[happening->node].disk;
    struct store_batch *batch = happening->pointer;
    struct io_event event = {.kind = IO_STORE_DONE};
    event.store_done.ticket = happening->number;
    bool is_read = happening->sent != 0;
    event.store_done.result = is_read ? answer(disk, batch) : result_make();
    assert(event.store_done.result != NULL);
    event.store_done.result->batch = batch;    // back to who asked, of a commit too
    // While it is full a small batch may fit where a large one did not: what fails is no prefix.
    bool is_refused = !is_read && sim->now_ns < disk->full_until_ns && !prng_chance(&sim->prng, 1, 4);
    if (is_refused) {
        event.store_done.error = DJ_E_STORE_FULL;
        sim->stats.commits_refused++;
    } else if (!is_read) {
        apply(sim, happening->node, batch);
    }
    sim_deliver(sim, happening->node, &event);
}

void disk_use(struct sim *sim, uint32_t index, uint64_t ticket, struct store_batch *batch, bool is_read)
{
    struct sim_disk *disk = sim->node[index].disk;
    if (disk == NULL) {
        struct io_event event = {.kind = IO_STORE_DONE};
        event.store_done.ticket = ticket;
        event.store_done.error = DJ_E_UNSUPPORTED;
        batch_free(batch);
        sim_later_event(sim, sim->now_ns + 1000, index, &event);
        return;
    }
    uint64_t start_ns = disk->last_ns > sim->now_ns ? disk->last_ns : sim->now_ns;
    disk->last_ns = start_ns + sim_random(sim, 1000, is_read ? 200000 : sim->options.disk_delay_max_ns);
    sim->stats.commits += !is_read;
    struct happening *happening = sim_later(sim, disk->last_ns, batch_is_done);
    happening->node = index;
    happening->life = sim->node[index].life;
    happening->number = ticket;
    happening->sent = is_read;
    happening->pointer = batch;
    happening->drop = batch_drop;
}

void disk_fill(struct sim *sim, uint32_t node, uint64_t for_ns)
{
    sim_say(sim, "the disk of %s is full for %.3f s", sim->node[node].name, (double)for_ns / 1e9);
    sim->node[node].disk->full_until_ns = sim->now_ns + for_ns;
}

static bool is_batch_of(const struct happening *happening, const void *context)
{
    return happening->act == batch_is_done && happening->node == *(const uint32_t *)context;
}

void disk_death(struct sim *sim, uint32_t index)
{
    struct sim_disk *disk = sim->node[index].disk;
    // In the order in which they would have been done: survivors first, then, from a random point on, none.
    for (bool is_lost = false;;) {
        struct happening *first = NULL;
        for (uint32_t i = 0; i < sim->heap_count; i++) {
            struct happening *happening = sim->heap[i];
            bool is_waiting = is_batch_of(happening, &index) && happening->pointer != NULL;
            if (is_waiting && (first == NULL || happening->sequence < first->sequence))
                first = happening;
        }
        if (first == NULL)
            break;
        is_lost = is_lost || prng_chance(&sim->prng, 1, 2);
        if (!is_lost && first->sent == 0)
            apply(sim, index, first->pointer);
        sim->stats.commits_lost += is_lost && first->sent == 0;
        batch_free(first->pointer);
        first->pointer = NULL;
    }
    sim_cancel(sim, is_batch_of, &index);
    disk->last_ns = sim->now_ns;
}

// Looking -----------------------------------------------------------------------------------------------------------------

const struct blob *sim_store_get(const struct sim *sim, uint32_t node, enum store_table table, const void *key, size_t key_bytes)
{
    const struct sim_table *entries = &sim->node[node].disk->table[table];
    uint32_t at = lower_bound(entries, key, key_bytes);
    return at < entries->count && compare(&entries->entry[at], key, key_bytes) == 0 ? entries->entry[at].value : NULL;
}

uint32_t sim_store_count(const struct sim *sim, uint32_t node, enum store_table table)
{
    return sim->node[node].disk->table[table].count;
}

const struct store_entry *sim_store_at(const struct sim *sim, uint32_t node, enum store_table table, uint32_t index)
{
    const struct sim_table *entries = &sim->node[node].disk->table[table];
    return index < entries->count ? &entries->entry[index] : NULL;
}
