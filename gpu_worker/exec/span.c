// Spans: the manual is span.h. The list is short (some tens of holes), so a linear search beats anything clever.

#include "gpu_worker/exec/span.h"

#include "core/base/assert.h"
#include "core/io/device.h"

#include <stdlib.h>
#include <string.h>

enum { SPAN_HOLES_FIRST = 64 };
#define SPAN_BYTES_MAX ((uint64_t)1 << 62)

void spans_reset(struct spans *spans)
{
    spans->holes = 0;
    spans->bytes = 0;
}

void spans_free(struct spans *spans)
{
    free(spans->hole);
    *spans = (struct spans){0};
}

static uint64_t rounded(uint64_t bytes)
{
    return bytes == 0 ? DEVICE_ALIGNMENT : (bytes + DEVICE_ALIGNMENT - 1) & ~(uint64_t)(DEVICE_ALIGNMENT - 1);
}

static void remove_hole(struct spans *spans, uint32_t at)
{
    spans->holes--;
    memmove(&spans->hole[at], &spans->hole[at + 1], (spans->holes - at) * sizeof spans->hole[0]);
}

bool spans_take(struct spans *spans, uint64_t bytes, uint64_t *ret_offset)
{
    if (bytes > SPAN_BYTES_MAX)
        return false;
    uint64_t want = rounded(bytes);
    uint32_t best = UINT32_MAX;
    for (uint32_t i = 0; i < spans->holes; i++) {
        if (spans->hole[i].bytes >= want && (best == UINT32_MAX || spans->hole[i].bytes < spans->hole[best].bytes))
            best = i;
    }
    if (best != UINT32_MAX) {
        struct span *hole = &spans->hole[best];
        *ret_offset = hole->offset;
        hole->offset += want;
        hole->bytes -= want;
        if (hole->bytes == 0)
            remove_hole(spans, best);
        return true;
    }
    // A hole at the very end is grown rather than left behind.
    struct span *last = spans->holes > 0 ? &spans->hole[spans->holes - 1] : NULL;
    uint64_t at = spans->bytes;
    if (last != NULL && last->offset + last->bytes == spans->bytes) {
        at = last->offset;
        spans->holes--;
    }
    if (want > SPAN_BYTES_MAX - at)
        return false;
    spans->bytes = at + want;
    *ret_offset = at;
    return true;
}

void spans_give(struct spans *spans, uint64_t offset, uint64_t bytes)
{
    uint64_t back = rounded(bytes);
    assert(offset + back <= spans->bytes);
    uint32_t low = 0, high = spans->holes;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (spans->hole[middle].offset < offset)
            low = middle + 1;
        else
            high = middle;
    }
    struct span *before = low > 0 ? &spans->hole[low - 1] : NULL;
    struct span *behind = low < spans->holes ? &spans->hole[low] : NULL;
    bool joins_before = before != NULL && before->offset + before->bytes == offset;
    bool joins_behind = behind != NULL && offset + back == behind->offset;
    if (joins_before) {
        before->bytes += back + (joins_behind ? behind->bytes : 0);
        if (joins_behind)
            remove_hole(spans, low);
        return;
    }
    if (joins_behind) {
        behind->offset = offset;
        behind->bytes += back;
        return;
    }
    if (spans->holes == spans->capacity) {
        uint32_t capacity = spans->capacity == 0 ? SPAN_HOLES_FIRST : spans->capacity * 2;
        struct span *hole = realloc(spans->hole, capacity * sizeof *hole);
        if (hole == NULL)
            return;
        spans->hole = hole;
        spans->capacity = capacity;
    }
    memmove(&spans->hole[low + 1], &spans->hole[low], (spans->holes - low) * sizeof spans->hole[0]);
    spans->hole[low] = (struct span){.offset = offset, .bytes = back};
    spans->holes++;
}
