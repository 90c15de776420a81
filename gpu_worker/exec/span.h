// Spans: the plan of one execution's workspace: which bytes of it each intermediate has while it lives. Best fit over a short sorted
// list; the workspace is as long as its highest span. Forgotten and made again for every execution, so it must be cheap.

#ifndef GPU_WORKER_EXEC_SPAN_H
#define GPU_WORKER_EXEC_SPAN_H

#include <stdbool.h>
#include <stdint.h>

struct spans {
    struct span { uint64_t offset, bytes; } *hole;  // free spans below `bytes`, by offset; no two touch
    uint32_t holes, capacity;
    uint64_t bytes;                                 // the workspace's length so far
};

void spans_reset(struct spans *spans);
void spans_free(struct spans *spans);
// Takes `bytes` (0 counts as one unit; rounded up to DEVICE_ALIGNMENT). False out of memory or beyond 2^62.
bool spans_take(struct spans *spans, uint64_t bytes, uint64_t *ret_offset);
// Gives back exactly what was taken with `bytes`. Out of memory the span is simply not used again.
void spans_give(struct spans *spans, uint64_t offset, uint64_t bytes);

#endif
