// Arena: memory for what lives as long as one request, plan or process role; freed all at once. Bounded. One thread.

#ifndef CORE_BASE_ARENA_H
#define CORE_BASE_ARENA_H

#include <stddef.h>

#include "core/base/error.h"

struct arena;

// Makes an arena that grows in chunks of `chunk_bytes` (at least 256) up to `limit_bytes` in all (0: no limit but memory).
DJ_MUST_USE enum dj_error arena_make(size_t chunk_bytes, size_t limit_bytes, struct arena **ret);
void arena_free(struct arena *arena);                       // NULL is allowed

void *arena_alloc(struct arena *arena, size_t bytes);       // aligned to 16; uninitialised; NULL at the limit or out of memory
void *arena_zero(struct arena *arena, size_t bytes);        // the same, zeroed
void *arena_copy(struct arena *arena, const void *from, size_t bytes);
char *arena_text(struct arena *arena, const char *text);    // a NUL-terminated copy

// Forgets everything allocated and keeps the first chunk, so that a hot loop allocates nothing.
void arena_reset(struct arena *arena);
size_t arena_used_bytes(const struct arena *arena);

#endif
