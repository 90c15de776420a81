// Tensor metadata: dtype, sizes and strides (in elements) of one value. No memory, no device.

#ifndef CORE_OPS_TENSOR_H
#define CORE_OPS_TENSOR_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/error.h"
#include "core/ops/dtype.h"

enum { DJ_RANK_MAX = 8 };

struct tensor_meta {
    enum dtype dtype;
    uint32_t rank;                      // 0 to DJ_RANK_MAX
    int64_t size[DJ_RANK_MAX];          // >= 0
    int64_t stride[DJ_RANK_MAX];        // in elements, >= 0; 0 where expanded
};

// Validates what came from outside: known dtype, rank, sizes and strides not negative, byte count and the last element's offset
// within 63 bits. DJ_E_RANK, DJ_E_DTYPE, DJ_E_SHAPE, DJ_E_OVERFLOW.
DJ_MUST_USE enum dj_error tensor_check(const struct tensor_meta *meta, struct fault *fault);

int64_t tensor_count(const struct tensor_meta *meta);               // elements; of a checked meta (no overflow)
int64_t tensor_bytes(const struct tensor_meta *meta);               // tensor_count * dtype_bytes
int64_t tensor_span(const struct tensor_meta *meta);                // elements from the first to the last inclusive; 0 when empty
bool tensor_is_contiguous(const struct tensor_meta *meta);          // row-major dense, PyTorch's is_contiguous()
bool tensor_is_dense(const struct tensor_meta *meta);               // non-overlapping and dense in some order of dimensions
void tensor_make_contiguous(struct tensor_meta *meta);              // sets row-major strides for its sizes
bool tensor_same_sizes(const struct tensor_meta *a, const struct tensor_meta *b);

// "float32[2, 3]" into text; always NUL-terminated. For error messages.
enum { TENSOR_TEXT_MAX = 192 };
const char *tensor_text(const struct tensor_meta *meta, char text[TENSOR_TEXT_MAX]);

#endif
