// Arena: a chain of chunks, the first of which is allocated together with the arena and kept by arena_reset.
//
// Invariants: reserved <= limit; every block is aligned to ARENA_ALIGN; a chunk's free part is poisoned for AddressSanitizer, so that
// a use after arena_reset is found like a use after free.

#include "core/base/arena.h"

#include "core/base/bits.h"

#include <sanitizer/asan_interface.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { ARENA_ALIGN = 16, ARENA_CHUNK_MIN = 256 };

struct chunk {
    struct chunk *next;    // older; the first is the last in the chain
    size_t capacity;
    size_t used;
    _Alignas(ARENA_ALIGN) unsigned char data[];
};

struct arena {
    struct chunk *current;
    struct chunk *first;
    size_t chunk_bytes;
    size_t limit;       // SIZE_MAX: none
    size_t reserved;    // capacities of all chunks
    size_t used;        // bytes handed out, rounded up to the alignment
};

static struct chunk *chunk_make(size_t capacity)
{
    size_t bytes;
    if (!size_add(capacity, sizeof(struct chunk), &bytes))
        return NULL;
    struct chunk *chunk = malloc(bytes);
    if (chunk == NULL)
        return NULL;
    chunk->next = NULL;
    chunk->capacity = capacity;
    chunk->used = 0;
    ASAN_POISON_MEMORY_REGION(chunk->data, capacity);
    return chunk;
}

static void chunk_free(struct chunk *chunk)
{
    ASAN_UNPOISON_MEMORY_REGION(chunk->data, chunk->capacity);
    free(chunk);
}

static void *chunk_take(struct chunk *chunk, size_t bytes)
{
    void *block = chunk->data + chunk->used;
    chunk->used += bytes;
    ASAN_UNPOISON_MEMORY_REGION(block, bytes);
    return block;
}

enum dj_error arena_make(size_t chunk_bytes, size_t limit_bytes, struct arena **ret)
{
    if (chunk_bytes < ARENA_CHUNK_MIN || chunk_bytes > SIZE_MAX / 4)
        return DJ_E_INVALID;

    size_t limit = limit_bytes == 0 ? SIZE_MAX : limit_bytes;
    size_t chunk = size_round_up(chunk_bytes, ARENA_ALIGN);
    size_t first = chunk <= limit ? chunk : limit & ~(size_t)(ARENA_ALIGN - 1);

    struct arena *arena = malloc(sizeof *arena);
    if (arena == NULL)
        return DJ_E_NO_MEMORY;
    *arena = (struct arena){.chunk_bytes = chunk, .limit = limit, .reserved = first, .first = chunk_make(first)};
    if (arena->first == NULL) {
        free(arena);
        return DJ_E_NO_MEMORY;
    }
    arena->current = arena->first;
    *ret = arena;
    return DJ_OK;
}

void arena_free(struct arena *arena)
{
    if (arena == NULL)
        return;
    for (struct chunk *chunk = arena->current, *next; chunk != NULL; chunk = next) {
        next = chunk->next;
        chunk_free(chunk);
    }
    free(arena);
}

// A block that fits no common chunk gets one of its own, behind the current one, whose free part stays in use.
static void *grow(struct arena *arena, size_t bytes)
{
    size_t left = (arena->limit - arena->reserved) & ~(size_t)(ARENA_ALIGN - 1);
    if (bytes > left)
        return NULL;
    bool is_large = bytes > arena->chunk_bytes / 4;
    size_t capacity = is_large ? bytes : arena->chunk_bytes <= left ? arena->chunk_bytes : left;

    struct chunk *chunk = chunk_make(capacity);
    if (chunk == NULL)
        return NULL;
    arena->reserved += capacity;
    if (is_large) {
        // Behind the current chunk, but never behind the first: the first stays the end of the chain.
        if (arena->current == arena->first) {
            chunk->next = arena->current;
            arena->current = chunk;
        } else {
            chunk->next = arena->current->next;
            arena->current->next = chunk;
        }
    } else {
        chunk->next = arena->current;
        arena->current = chunk;
    }
    return chunk_take(chunk, bytes);
}

void *arena_alloc(struct arena *arena, size_t bytes)
{
    if (bytes > SIZE_MAX / 2)
        return NULL;
    size_t rounded = bytes == 0 ? ARENA_ALIGN : size_round_up(bytes, ARENA_ALIGN);

    void *block;
    if (rounded <= arena->current->capacity - arena->current->used)
        block = chunk_take(arena->current, rounded);
    else
        block = grow(arena, rounded);
    if (block != NULL)
        arena->used += rounded;
    return block;
}

void *arena_zero(struct arena *arena, size_t bytes)
{
    void *block = arena_alloc(arena, bytes);
    if (block != NULL)
        memset(block, 0, bytes);
    return block;
}

void *arena_copy(struct arena *arena, const void *from, size_t bytes)
{
    void *block = arena_alloc(arena, bytes);
    if (block != NULL && bytes != 0)
        memcpy(block, from, bytes);
    return block;
}

char *arena_text(struct arena *arena, const char *text)
{
    return arena_copy(arena, text, strlen(text) + 1);
}

void arena_reset(struct arena *arena)
{
    for (struct chunk *chunk = arena->current, *next; chunk != arena->first; chunk = next) {
        next = chunk->next;
        chunk_free(chunk);
    }
    arena->current = arena->first;
    arena->first->used = 0;
    ASAN_POISON_MEMORY_REGION(arena->first->data, arena->first->capacity);
    arena->reserved = arena->first->capacity;
    arena->used = 0;
}

size_t arena_used_bytes(const struct arena *arena)
{
    return arena->used;
}
