// Vectors: decoding and what is kept. The manual is vectors.h.

#include "core/lineage/vectors.h"

#include "core/base/list.h"
#include "core/base/map.h"
#include "core/srg/bindings.h"

#include <stdlib.h>

struct vector {
    struct list node;
    uint64_t counter;
    struct hash128 plan;
    uint32_t words;
    int64_t word[];
};

struct vectors {
    struct map *by_counter;
    struct list by_age;    // the first to go first
    uint32_t entries_max;
    uint64_t bytes, bytes_max;
};

enum dj_error vectors_make(uint32_t entries_max, uint64_t bytes_max, struct vectors **ret)
{
    struct vectors *vectors = calloc(1, sizeof *vectors);
    if (vectors == NULL)
        return DJ_E_NO_MEMORY;
    enum dj_error error = map_make(entries_max, &vectors->by_counter);
    if (error != DJ_OK) {
        free(vectors);
        return error;
    }
    vectors->entries_max = entries_max;
    vectors->bytes_max = bytes_max;
    list_init(&vectors->by_age);
    *ret = vectors;
    return DJ_OK;
}

static size_t size_of(uint32_t words)
{
    return sizeof(struct vector) + words * sizeof(int64_t);
}

static void drop(struct vectors *vectors, struct vector *vector)
{
    map_take(vectors->by_counter, map_key(vector->counter));
    list_remove(&vector->node);
    vectors->bytes -= size_of(vector->words);
    free(vector);
}

void vectors_free(struct vectors *vectors)
{
    if (vectors == NULL)
        return;
    list_each (node, &vectors->by_age)
        drop(vectors, list_entry(node, struct vector, node));
    map_free(vectors->by_counter);
    free(vectors);
}

// Counter 0 names none, which is no failure.
static bool find(const struct vectors *vectors, const struct record_execution *execution, uint64_t counter, uint32_t words,
                 struct vector **ret)
{
    *ret = counter == 0 ? NULL : map_get(vectors->by_counter, map_key(counter));
    return counter == 0 || (*ret != NULL && (*ret)->words == words && hash128_equal((*ret)->plan, execution->plan));
}

static bool keep(struct vectors *vectors, struct vector *vector)
{
    struct vector *same = map_get(vectors->by_counter, map_key(vector->counter));
    if (same != NULL)
        drop(vectors, same);
    vectors->bytes += size_of(vector->words);
    while (!list_is_empty(&vectors->by_age) &&
           (map_count(vectors->by_counter) == vectors->entries_max || vectors->bytes > vectors->bytes_max))
        // NOLINTNEXTLINE(clang-analyzer-unix.Malloc): what was dropped is unlinked
        drop(vectors, list_entry(vectors->by_age.next, struct vector, node));
    list_push(&vectors->by_age, &vector->node);
    if (map_put(vectors->by_counter, map_key(vector->counter), vector) == DJ_OK)
        return true;
    drop(vectors, vector);
    return false;
}

const int64_t *vectors_decode(struct vectors *vectors, const struct record_execution *execution, uint32_t words)
{
    struct vector *base, *before;
    if (!find(vectors, execution, execution->base, words, &base) || !find(vectors, execution, execution->before, words, &before))
        return NULL;
    struct vector *vector = malloc(size_of(words));
    if (vector == NULL)
        return NULL;
    vector->counter = execution->id.counter;
    vector->plan = execution->plan;
    vector->words = words;
    struct binding_history history = {.words = words};
    history.depth = base == NULL ? 0 : before == NULL ? 1 : 2;
    history.last = base == NULL ? NULL : base->word;
    history.before = before == NULL ? NULL : before->word;
    struct reader reader = reader_make(execution->delta, execution->delta_length);
    if (bindings_decode(&history, &reader, vector->word) != DJ_OK || reader_left(&reader) != 0 ||
        record_words_check(vector->word, words) != execution->check) {
        free(vector);
        return NULL;
    }
    if (before != NULL) {    // the next one's are base and this
        list_remove(&before->node);
        list_push(vectors->by_age.next, &before->node);
    }
    return keep(vectors, vector) ? vector->word : NULL;
}
