// Pool: objects of one size that come and go; a free list over bounded chunks. One thread. Memory is zeroed on pool_take.

#ifndef CORE_BASE_POOL_H
#define CORE_BASE_POOL_H

#include <stddef.h>
#include <stdint.h>

#include "core/base/error.h"

struct pool;

DJ_MUST_USE enum dj_error pool_make(size_t object_bytes, uint32_t objects_max, struct pool **ret);
void pool_free(struct pool *pool);          // NULL is allowed; objects still out die with it
void *pool_take(struct pool *pool);         // zeroed; NULL when objects_max are out, or out of memory
void pool_give(struct pool *pool, void *object);
uint32_t pool_out(const struct pool *pool); // how many are out now

#endif
