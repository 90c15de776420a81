// Leaves by content. The manual is leaf.h.

#include "frontend/client/protocol/leaf.h"

#include <stdlib.h>

#include "core/base/assert.h"
#include "core/base/map.h"
#include "core/io/blob.h"

// Below this, keeping the bytes costs less than asking the store for them.
enum { LEAF_KEEP_BYTES = 64 << 10 };

struct leaf_table {
    struct map *by_content;
    struct leaf_stats stats;
};

enum dj_error leaf_table_make(struct leaf_table **ret)
{
    struct leaf_table *table = calloc(1, sizeof *table);
    if (table == NULL)
        return DJ_E_NO_MEMORY;
    enum dj_error error = map_make(LEAVES_MAX, &table->by_content);
    if (error != DJ_OK) {
        free(table);
        return error;
    }
    *ret = table;
    return DJ_OK;
}

void leaf_table_free(struct leaf_table *table)
{
    if (table == NULL)
        return;
    assert(map_count(table->by_content) == 0);
    map_free(table->by_content);
    free(table);
}

struct leaf *leaf_find(struct leaf_table *table, struct hash128 content)
{
    return map_get(table->by_content, content);
}

// The bytes were dropped and are here again: a worker may ask for them after all.
static enum dj_error leaf_refill(struct leaf *leaf, const void *data)
{
    if (leaf->blob != NULL)
        return DJ_OK;
    leaf->blob = blob_copy(data, leaf->bytes);
    if (leaf->blob == NULL)
        return DJ_E_NO_MEMORY;
    leaf->table->stats.bytes_held += leaf->bytes;
    return DJ_OK;
}

enum dj_error leaf_of(struct leaf_table *table, const void *data, uint64_t bytes, struct leaf **ret)
{
    struct hash128 content = hash128(data, bytes);
    struct leaf *leaf = map_get(table->by_content, content);
    if (leaf != NULL && leaf->bytes == bytes) {
        // A durable leaf is fetched from the store by whoever needs it; its bytes stay dropped.
        if (!leaf->is_durable) {
            enum dj_error error = leaf_refill(leaf, data);
            if (error != DJ_OK)
                return error;
        }
        table->stats.leaves_reused++;
        *ret = leaf_hold(leaf);
        return DJ_OK;
    }
    leaf = calloc(1, sizeof *leaf);
    if (leaf == NULL)
        return DJ_E_NO_MEMORY;
    *leaf = (struct leaf){.holders = 1, .content = content, .bytes = bytes, .table = table, .blob = blob_copy(data, bytes)};
    enum dj_error error = leaf->blob == NULL ? DJ_E_NO_MEMORY : map_put(table->by_content, content, leaf);
    if (error != DJ_OK) {
        blob_drop(leaf->blob);
        free(leaf);
        return error;
    }
    table->stats.leaves++;
    table->stats.bytes_held += bytes;
    *ret = leaf;
    return DJ_OK;
}

enum dj_error leaf_named(struct leaf_table *table, struct hash128 content, uint64_t bytes, struct leaf **ret)
{
    struct leaf *leaf = map_get(table->by_content, content);
    if (leaf != NULL && leaf->bytes != bytes)
        return DJ_E_MALFORMED;
    if (leaf != NULL) {
        leaf->is_durable = true;
        *ret = leaf_hold(leaf);
        return DJ_OK;
    }
    leaf = calloc(1, sizeof *leaf);
    if (leaf == NULL)
        return DJ_E_NO_MEMORY;
    *leaf = (struct leaf){.holders = 1, .content = content, .bytes = bytes, .table = table, .is_durable = true};
    enum dj_error error = map_put(table->by_content, content, leaf);
    if (error != DJ_OK) {
        free(leaf);
        return error;
    }
    table->stats.leaves++;
    *ret = leaf;
    return DJ_OK;
}

struct leaf *leaf_hold(struct leaf *leaf)
{
    leaf->holders++;
    return leaf;
}

static void leaf_drop_bytes(struct leaf *leaf)
{
    if (leaf->blob == NULL)
        return;
    leaf->table->stats.bytes_held -= leaf->bytes;
    blob_drop(leaf->blob);
    leaf->blob = NULL;
}

void leaf_drop(struct leaf *leaf)
{
    if (leaf == NULL)
        return;
    assert(leaf->holders > 0);
    if (--leaf->holders > 0)
        return;
    leaf_drop_bytes(leaf);
    map_take(leaf->table->by_content, leaf->content);
    free(leaf);
}

void leaf_set_durable(struct leaf *leaf)
{
    leaf->is_durable = true;
    if (leaf->bytes > LEAF_KEEP_BYTES)
        leaf_drop_bytes(leaf);
}

void leaf_forget_peer(struct leaf_table *table, uint32_t slot)
{
    uint32_t cursor = 0;
    for (struct leaf *leaf = map_next(table->by_content, &cursor, NULL); leaf != NULL;
         leaf = map_next(table->by_content, &cursor, NULL))
        leaf->known &= ~((uint64_t)1 << slot);
}

struct leaf_stats leaf_table_stats(const struct leaf_table *table)
{
    return table->stats;
}
