// Allocation failure: the linker's --wrap turns calls of malloc and its kin into calls of the functions here.

#include "tests/lib/alloc_fail.h"

#include <errno.h>
#include <stddef.h>

void *__real_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t bytes);
void *__real_realloc(void *old, size_t bytes);
void *__real_aligned_alloc(size_t alignment, size_t bytes);
int __real_posix_memalign(void **ret, size_t alignment, size_t bytes);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
void *__wrap_realloc(void *old, size_t bytes);
void *__wrap_aligned_alloc(size_t alignment, size_t bytes);
int __wrap_posix_memalign(void **ret, size_t alignment, size_t bytes);

static _Thread_local struct {
    uint64_t asked;
    uint64_t left;
    bool is_armed, has_failed;
} gate;

void alloc_fail_after(uint64_t n)
{
    gate.left = n;
    gate.is_armed = true;
    gate.has_failed = false;
}

bool alloc_fail_stop(void)
{
    bool has_failed = gate.is_armed && gate.has_failed;
    gate.is_armed = false;
    return has_failed;
}

uint64_t alloc_count(void)
{
    return gate.asked;
}

static bool may_pass(void)
{
    gate.asked++;
    if (!gate.is_armed)
        return true;
    if (gate.left > 0) {
        gate.left--;
        return true;
    }
    gate.has_failed = true;
    errno = ENOMEM;
    return false;
}

void *__wrap_malloc(size_t bytes)
{
    return may_pass() ? __real_malloc(bytes) : NULL;
}

void *__wrap_calloc(size_t count, size_t bytes)
{
    return may_pass() ? __real_calloc(count, bytes) : NULL;
}

void *__wrap_realloc(void *old, size_t bytes)
{
    return may_pass() ? __real_realloc(old, bytes) : NULL;
}

void *__wrap_aligned_alloc(size_t alignment, size_t bytes)
{
    return may_pass() ? __real_aligned_alloc(alignment, bytes) : NULL;
}

int __wrap_posix_memalign(void **ret, size_t alignment, size_t bytes)
{
    return may_pass() ? __real_posix_memalign(ret, alignment, bytes) : ENOMEM;
}
