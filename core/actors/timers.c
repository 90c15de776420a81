// Timers: a binary heap of pointers; each timer knows its position, so that moving one costs O(log n). The manual is timers.h.

#include "core/actors/timers.h"

#include "core/base/assert.h"

#include <stdbool.h>
#include <stdlib.h>

enum { HEAP_FIRST = 32 };

void timers_free(struct timers *timers)
{
    free(timers->heap);
    *timers = (struct timers){0};
}

static bool is_before(const struct timer *a, const struct timer *b)
{
    return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->sequence < b->sequence;
}

static void place(struct timers *timers, struct timer *timer, uint32_t position)
{
    timers->heap[position] = timer;
    timer->position = position;
}

// Moves the timer at `position` up or down to where it belongs.
static void settle(struct timers *timers, uint32_t position)
{
    struct timer *timer = timers->heap[position];
    while (position > 0 && is_before(timer, timers->heap[(position - 1) / 2])) {
        place(timers, timers->heap[(position - 1) / 2], position);
        position = (position - 1) / 2;
    }
    for (;;) {
        uint32_t child = 2 * position + 1;
        if (child >= timers->count)
            break;
        if (child + 1 < timers->count && is_before(timers->heap[child + 1], timers->heap[child]))
            child++;
        if (!is_before(timers->heap[child], timer))
            break;
        place(timers, timers->heap[child], position);
        position = child;
    }
    place(timers, timer, position);
}

void timers_set(struct timers *timers, struct timer *timer, uint64_t at_ns)
{
    timer->at_ns = at_ns;
    timer->sequence = ++timers->sequence;
    if (timer->position == TIMER_NONE) {
        if (timers->count == timers->capacity) {
            uint32_t capacity = timers->capacity == 0 ? HEAP_FIRST : timers->capacity * 2;
            struct timer **heap = realloc(timers->heap, capacity * sizeof *heap);
            assert(heap != NULL);
            timers->heap = heap;
            timers->capacity = capacity;
        }
        place(timers, timer, timers->count++);
    }
    settle(timers, timer->position);
}

void timers_clear(struct timers *timers, struct timer *timer)
{
    uint32_t position = timer->position;
    if (position == TIMER_NONE)
        return;
    timer->position = TIMER_NONE;
    struct timer *last = timers->heap[--timers->count];
    if (last == timer)
        return;
    place(timers, last, position);
    settle(timers, position);
}

uint64_t timers_next_ns(const struct timers *timers)
{
    return timers->count == 0 ? UINT64_MAX : timers->heap[0]->at_ns;
}

struct timer *timers_take(struct timers *timers, uint64_t now_ns)
{
    if (timers_next_ns(timers) > now_ns || timers->count == 0)
        return NULL;
    struct timer *timer = timers->heap[0];
    timers_clear(timers, timer);
    timer->fired = timer->sequence;
    return timer;
}
