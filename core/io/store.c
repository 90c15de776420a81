// Batches and results: arrays that the core and the store hand each other. The manual is store.h.

#include "core/io/store.h"

#include "core/base/assert.h"
#include "core/io/blob.h"

#include <stdlib.h>
#include <string.h>

enum { ITEMS_FIRST = 8 };

struct store_batch *batch_make(void)
{
    return calloc(1, sizeof(struct store_batch));
}

struct store_item *batch_add(struct store_batch *batch, enum store_verb verb, enum store_table table, const void *key,
                             size_t key_bytes)
{
    assert(key_bytes <= STORE_KEY_MAX);
    if (batch->items == batch->capacity) {
        uint32_t capacity = batch->capacity == 0 ? ITEMS_FIRST : batch->capacity * 2;
        struct store_item *item = realloc(batch->item, capacity * sizeof *item);
        if (item == NULL)
            return NULL;
        batch->item = item;
        batch->capacity = capacity;
    }
    struct store_item *added = &batch->item[batch->items++];
    *added = (struct store_item){.verb = verb, .table = table, .key_bytes = (uint32_t)key_bytes};
    if (key_bytes != 0)
        memcpy(added->key, key, key_bytes);
    return added;
}

void batch_free(struct store_batch *batch)
{
    if (batch == NULL)
        return;
    for (uint32_t i = 0; i < batch->items; i++)
        blob_drop(batch->item[i].value);
    free(batch->item);
    free(batch);
}

struct store_result *result_make(void)
{
    return calloc(1, sizeof(struct store_result));
}

struct store_entry *result_add(struct store_result *result, uint32_t item, const void *key, size_t key_bytes, struct blob *value)
{
    assert(key_bytes <= STORE_KEY_MAX);
    if (result->entries == result->capacity) {
        uint32_t capacity = result->capacity == 0 ? ITEMS_FIRST : result->capacity * 2;
        struct store_entry *entry = realloc(result->entry, capacity * sizeof *entry);
        if (entry == NULL) {
            blob_drop(value);
            return NULL;
        }
        result->entry = entry;
        result->capacity = capacity;
    }
    struct store_entry *added = &result->entry[result->entries++];
    *added = (struct store_entry){.item = item, .key_bytes = (uint32_t)key_bytes, .value = value};
    added->bytes = value == NULL ? 0 : value->bytes;
    if (key_bytes != 0)
        memcpy(added->key, key, key_bytes);
    return added;
}

void result_free(struct store_result *result)
{
    if (result == NULL)
        return;
    for (uint32_t i = 0; i < result->entries; i++)
        blob_drop(result->entry[i].value);
    batch_free(result->batch);
    free(result->entry);
    free(result);
}
