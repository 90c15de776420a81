// Layout: which strides PyTorch gives to an output: channels_last, preserve_format, and the order of dimensions that its
// TensorIterator chooses. Internal to core/ops.
//
// Names follow ATen: `suggests_*` is suggest_memory_format(), which guesses a format from strides; `is_channels_last` is
// is_contiguous(channels_last), which checks one. They differ on sizes 0 and 1, and ops differ in which they ask.

#ifndef CORE_OPS_LAYOUT_H
#define CORE_OPS_LAYOUT_H

#include "core/ops/op.h"
#include "core/ops/tensor.h"

// 2^59 elements of 16 bytes are 2^63 bytes.
#define TENSOR_COUNT_MAX (INT64_MAX / 16)

// True when the sizes (empty dimensions counted as one) and the reach of the strides stay within TENSOR_COUNT_MAX.
bool meta_fits(const struct tensor_meta *meta);

// Sets row-major strides for meta's sizes (not negative); false when they do not fit.
bool layout_contiguous(struct tensor_meta *meta);

// Sets the strides of `format` for meta's sizes: contiguous, or channels_last (rank 4; in 3D rank 5). False when they do not fit.
bool layout_format(struct tensor_meta *meta, enum memory_format format);

// PyTorch's suggest_memory_format() and is_contiguous(format).
enum memory_format layout_suggest(const struct tensor_meta *meta);
bool layout_is_channels_last(const struct tensor_meta *meta);
bool layout_is_channels_last_3d(const struct tensor_meta *meta);

// Gives `out` (which has in's sizes, or other ones whose order of dimensions shall follow in's strides) dense strides in the
// order of in's strides: PyTorch's infer_dense_strides. False when they do not fit.
bool layout_follow(struct tensor_meta *out, const struct tensor_meta *in);

// empty_like(preserve_format): sizes of `in`; its strides if it is dense, else layout_follow. Leaves out->dtype alone.
void layout_preserve(struct tensor_meta *out, const struct tensor_meta *in);

// Strides under which `out`, whose sizes are set and hold as many elements, sees in's elements without a copy. False when there are
// none. Not for empty tensors.
bool layout_view(struct tensor_meta *out, const struct tensor_meta *in);

// TensorIterator's output for inputs that broadcast together: sizes and strides of `out`. n is 1 to ITER_OPERANDS_MAX.
enum { ITER_OPERANDS_MAX = 1 + DJ_RANK_MAX };
DJ_MUST_USE enum dj_error iter_output(const struct tensor_meta *const in[], uint32_t n, struct tensor_meta *out,
                                      struct fault *fault);

#endif
