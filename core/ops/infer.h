// Infer: the seam between op_infer and the functions that know one family of shapes. Internal to core/ops.
//
// op_infer checks a call's form (counts, attribute kinds, absent inputs), decides the dtypes of the outputs, then calls the row's
// function, which fills rank, sizes and strides (and view_offset for views) and may rely on all that.

#ifndef CORE_OPS_INFER_H
#define CORE_OPS_INFER_H

#include "core/base/assert.h"
#include "core/base/bits.h"
#include "core/ops/layout.h"
#include "core/ops/op.h"

typedef enum dj_error (*infer_function)(const struct op_call *call, struct op_result *ret, struct fault *fault);

enum dtype_rule {
    RULE_promote,          // TensorIterator's common dtype of the tensors
    RULE_promote_attr,     // the same with the scalar attributes
    RULE_promote_float,    // the same; integers become the default dtype
    RULE_promote_div,      // by the rounding: promote_float without one, else promote
    RULE_promote_int,      // promote; integers and bool only
    RULE_mean,             // the first input's, or a floating dtype asked for
    RULE_norm,             // the same, complex to real
    RULE_bool,
    RULE_where,    // promote, of all inputs but the first
    RULE_first,
    RULE_first_i64,     // second output: int64
    RULE_first_bool,    // second output: bool
    RULE_any,           // bool, but uint8 for uint8
    RULE_i64,
    RULE_asked,         // call->dtype
    RULE_sum,           // call->dtype, else integers and bool become int64
    RULE_cat,           // promote, of the list
    RULE_same,          // all inputs must have one dtype
    RULE_softmax,       // first; float32 when half_to_float
    RULE_layer_norm,    // statistics in float32 or better
    RULE_sdpa,          // same; logsumexp in float32
    RULE_batch_norm,    // first; statistics in float32 or better
    RULE_gradient,      // all outputs as the first input, which has the second's dtype
    RULE_softmax_backward,    // the same; float16 where float32 was made of it
    RULE_loss,          // all outputs as the values that the loss is of; classes are int64
};

enum cost_rule {
    COST_none,
    COST_pointwise,
    COST_transcendental,
    COST_copy,
    COST_fill,
    COST_random,
    COST_gather,
    COST_reduce,
    COST_sort,
    COST_matmul,
    COST_softmax,
    COST_norm,
    COST_norm_backward,
    COST_convolution,
    COST_convolution_backward,
    COST_pool,
    COST_attention,
};

// What op_infer needs to know of a row beyond op_info, derived from the signature by ops_init.
struct op_row {
    infer_function infer;
    uint8_t dtype_rule, cost_rule;
    uint8_t fixed;                       // inputs that are not in a list
    int8_t list;                         // where the list of inputs begins; -1: none
    bool list_is_optional;               // its members may be absent
    uint32_t optional;                   // bit i: fixed input i may be absent
    uint8_t attr_kinds[OP_ATTRS_MAX];    // bit ATTR_x: that kind is allowed
    uint8_t attr_limit[OP_ATTRS_MAX];    // enumerations: numbers are below this; else 0
};

extern struct op_row op_rows[OP_LIMIT];

// Sets the dtypes of all outputs. dtype_rules.c
DJ_MUST_USE enum dj_error dtype_decide(const struct op_call *call, enum dtype_rule rule, struct op_result *ret,
                                       struct fault *fault);

// Helpers for families -------------------------------------------------------------------------------------------------

// Wraps a dimension index as PyTorch does: [-rank, rank), where rank 0 counts as 1.
static inline bool dim_wrap(int64_t dim, uint32_t rank, uint32_t *ret)
{
    int64_t limit = rank == 0 ? 1 : (int64_t)rank;
    if (dim < -limit || dim >= limit)
        return false;
    *ret = (uint32_t)(dim < 0 ? dim + limit : dim);
    return true;
}

enum dj_error fault_dim(const struct op_call *call, int64_t dim, uint32_t rank, struct fault *fault);
enum dj_error fault_shape(const struct op_call *call, const char *why,
                          struct fault *fault);    // names the op and its inputs' shapes
enum dj_error fault_large(const struct op_call *call, struct fault *fault);

// An absent list of dims means all of them, and so does an empty one. Bit i of *ret: dimension i is meant.
DJ_MUST_USE enum dj_error dims_mask(const struct op_call *call, const struct attr *dims, uint32_t rank, uint32_t *ret,
                                    struct fault *fault);

static inline bool attr_is_present(const struct attr *attr)
{
    return attr->kind != ATTR_ABSENT;
}
static inline double attr_number(const struct attr *attr)
{
    return attr->kind == ATTR_FLOAT ? attr->f : (double)attr->i;
}

// Copies rank and sizes (not strides).
static inline void copy_sizes(struct tensor_meta *out, const struct tensor_meta *in)
{
    out->rank = in->rank;
    for (uint32_t i = 0; i < in->rank; i++)
        out->size[i] = in->size[i];
}

// Copies rank, sizes and strides, not the dtype.
static inline void copy_geometry(struct tensor_meta *out, const struct tensor_meta *in)
{
    copy_sizes(out, in);
    for (uint32_t i = 0; i < in->rank; i++)
        out->stride[i] = in->stride[i];
}

// Families --------------------------------------------------------------------------------------------------------------

#define INFER(name) enum dj_error infer_##name(const struct op_call *call, struct op_result *ret, struct fault *fault)
// clang-format off
INFER(pointwise); INFER(with_number); INFER(converted); INFER(masked_fill);                     // infer_pointwise.c
INFER(copy); INFER(like_dense); INFER(like_contiguous);
INFER(create); INFER(arange); INFER(multinomial); INFER(dropout);                               // infer_create.c
INFER(view); INFER(permute); INFER(transpose); INFER(t); INFER(expand); INFER(slice);           // infer_view.c
INFER(select); INFER(unsqueeze); INFER(squeeze); INFER(as_strided); INFER(alias); INFER(diagonal); INFER(unfold);
INFER(slice_scatter); INFER(select_scatter); INFER(as_strided_scatter);
INFER(cat); INFER(embedding); INFER(index); INFER(index_put); INFER(index_select);              // infer_index.c
INFER(gather); INFER(scatter); INFER(index_add); INFER(triangle); INFER(pad); INFER(repeat); INFER(flip); INFER(roll);
INFER(reduce_all); INFER(reduce); INFER(scan); INFER(isin); INFER(topk); INFER(sort);           // infer_reduce.c
INFER(mm); INFER(addmm); INFER(bmm); INFER(baddbmm); INFER(dot); INFER(mv);                     // infer_matmul.c
INFER(softmax); INFER(layer_norm); INFER(batch_norm); INFER(group_norm); INFER(sdpa);           // infer_nn.c
INFER(softmax_backward); INFER(layer_norm_backward); INFER(layer_norm_params);                  // infer_backward.c
INFER(nll_loss); INFER(nll_loss_backward); INFER(embedding_backward); INFER(batch_norm_train); INFER(batch_norm_backward);
INFER(convolution_backward); INFER(max_pool2d_backward); INFER(avg_pool2d_backward); INFER(adaptive_pool2d_backward);
INFER(group_norm_backward); INFER(values_first);
INFER(convolution); INFER(max_pool2d); INFER(avg_pool2d); INFER(adaptive_pool2d);               // infer_conv.c
// clang-format on

#endif
