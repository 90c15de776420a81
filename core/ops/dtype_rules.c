// Dtype rules: the result and compute dtypes of every op, as torch.result_type and ATen's checks decide them.
//
// Promotion knows three classes of operands: tensors with dimensions, tensors of rank 0, Python numbers. A class yields to the one
// before unless it is of a higher category (bool < integer < floating < complex). A Python float counts as the default dtype.
// A dtype that was asked for is not derived but checked: it must be one to which PyTorch lets the derived dtype be cast.

#include "core/ops/infer.h"

enum domain {
    DOMAIN_ANY = 0,
    DOMAIN_NO_BOOL,     // integers, floating, complex
    DOMAIN_REAL,        // no complex
    DOMAIN_NUMBER,      // no complex, no bool
    DOMAIN_INTEGRAL,    // integers and bool
    DOMAIN_FLOAT,       // floating
    DOMAIN_INEXACT,     // floating and complex
};

// What an op computes with, where PyTorch refuses the rest on every device.
static const uint8_t domain_of[OP_LIMIT] = {
    [OP_SUB] = DOMAIN_NO_BOOL,
    [OP_RSUB_SCALAR] = DOMAIN_NO_BOOL,
    [OP_NEG] = DOMAIN_NO_BOOL,
    [OP_REMAINDER] = DOMAIN_NUMBER,
    [OP_MINIMUM] = DOMAIN_REAL,
    [OP_MAXIMUM] = DOMAIN_REAL,
    [OP_DIV_MODE] = DOMAIN_NUMBER,
    [OP_ATAN2] = DOMAIN_REAL,
    [OP_POW] = DOMAIN_NO_BOOL,
    [OP_LT] = DOMAIN_REAL,
    [OP_LE] = DOMAIN_REAL,
    [OP_GT] = DOMAIN_REAL,
    [OP_GE] = DOMAIN_REAL,
    [OP_LT_SCALAR] = DOMAIN_REAL,
    [OP_LE_SCALAR] = DOMAIN_REAL,
    [OP_GT_SCALAR] = DOMAIN_REAL,
    [OP_GE_SCALAR] = DOMAIN_REAL,
    [OP_ERF] = DOMAIN_REAL,
    [OP_RELU] = DOMAIN_NUMBER,
    [OP_GELU] = DOMAIN_FLOAT,
    [OP_SILU] = DOMAIN_INEXACT,
    [OP_FLOOR] = DOMAIN_NUMBER,
    [OP_CEIL] = DOMAIN_NUMBER,
    [OP_ROUND] = DOMAIN_NUMBER,
    [OP_TRUNC] = DOMAIN_NUMBER,
    [OP_SIGN] = DOMAIN_REAL,
    [OP_HARDTANH] = DOMAIN_NUMBER,
    [OP_LEAKY_RELU] = DOMAIN_FLOAT,
    [OP_ELU] = DOMAIN_FLOAT,
    [OP_TANH_BACKWARD] = DOMAIN_INEXACT,
    [OP_SIGMOID_BACKWARD] = DOMAIN_INEXACT,
    [OP_THRESHOLD_BACKWARD] = DOMAIN_NUMBER,
    [OP_GELU_BACKWARD] = DOMAIN_FLOAT,
    [OP_SILU_BACKWARD] = DOMAIN_INEXACT,
    [OP_HARDTANH_BACKWARD] = DOMAIN_FLOAT,
    [OP_LEAKY_RELU_BACKWARD] = DOMAIN_FLOAT,
    [OP_ELU_BACKWARD] = DOMAIN_FLOAT,
    [OP_CLAMP] = DOMAIN_NUMBER,
    [OP_CLAMP_MIN] = DOMAIN_NUMBER,
    [OP_ADDCMUL] = DOMAIN_NO_BOOL,
    [OP_ADDCDIV] = DOMAIN_INEXACT,
    [OP_LERP_SCALAR] = DOMAIN_INEXACT,
    [OP_VAR] = DOMAIN_INEXACT,
    [OP_ARGMAX] = DOMAIN_NUMBER,
    [OP_ARGMIN] = DOMAIN_NUMBER,
    [OP_AMAX] = DOMAIN_REAL,
    [OP_AMIN] = DOMAIN_REAL,
    [OP_MAX] = DOMAIN_REAL,
    [OP_MIN] = DOMAIN_REAL,
    [OP_MAX_DIM] = DOMAIN_REAL,
    [OP_MIN_DIM] = DOMAIN_REAL,
    [OP_TOPK] = DOMAIN_NUMBER,
    [OP_SORT] = DOMAIN_REAL,
    [OP_ISIN] = DOMAIN_REAL,
    [OP_MM] = DOMAIN_NO_BOOL,
    [OP_ADDMM] = DOMAIN_NO_BOOL,
    [OP_BMM] = DOMAIN_NO_BOOL,
    [OP_BADDBMM] = DOMAIN_NO_BOOL,
    [OP_DOT] = DOMAIN_NO_BOOL,
    [OP_MV] = DOMAIN_NO_BOOL,
    [OP_SOFTMAX] = DOMAIN_FLOAT,
    [OP_LOG_SOFTMAX] = DOMAIN_FLOAT,
    [OP_LAYER_NORM] = DOMAIN_FLOAT,
    [OP_BATCH_NORM] = DOMAIN_FLOAT,
    [OP_GROUP_NORM] = DOMAIN_FLOAT,
    [OP_CONVOLUTION] = DOMAIN_NO_BOOL,
    [OP_MAX_POOL2D] = DOMAIN_NUMBER,
    [OP_AVG_POOL2D] = DOMAIN_NUMBER,
    [OP_ADAPTIVE_AVG_POOL2D] = DOMAIN_FLOAT,
    [OP_SDPA] = DOMAIN_FLOAT,
    [OP_SOFTMAX_BACKWARD] = DOMAIN_FLOAT,
    [OP_LOG_SOFTMAX_BACKWARD] = DOMAIN_FLOAT,
    [OP_LAYER_NORM_BACKWARD] = DOMAIN_FLOAT,
    [OP_LAYER_NORM_BACKWARD_PARAMS] = DOMAIN_FLOAT,
    [OP_NLL_LOSS] = DOMAIN_FLOAT,
    [OP_NLL_LOSS_BACKWARD] = DOMAIN_FLOAT,
    [OP_EMBEDDING_BACKWARD] = DOMAIN_FLOAT,
    [OP_BATCH_NORM_TRAIN] = DOMAIN_FLOAT,
    [OP_BATCH_NORM_BACKWARD] = DOMAIN_FLOAT,
    [OP_CONVOLUTION_BACKWARD_INPUT] = DOMAIN_FLOAT,
    [OP_CONVOLUTION_BACKWARD_WEIGHT] = DOMAIN_FLOAT,
    [OP_MAX_POOL2D_BACKWARD] = DOMAIN_FLOAT,
    [OP_AVG_POOL2D_BACKWARD] = DOMAIN_FLOAT,
    [OP_ADAPTIVE_AVG_POOL2D_BACKWARD] = DOMAIN_FLOAT,
    [OP_GROUP_NORM_BACKWARD] = DOMAIN_FLOAT,
    [OP_DROPOUT] = DOMAIN_FLOAT,
    [OP_MULTINOMIAL] = DOMAIN_FLOAT,
    [OP_UNIFORM] = DOMAIN_FLOAT,
    [OP_NORMAL] = DOMAIN_FLOAT,
    [OP_BERNOULLI] = DOMAIN_REAL,
    [OP_RANDINT] = DOMAIN_REAL,
    [OP_ARANGE] = DOMAIN_NUMBER,
};

static bool domain_has(enum domain domain, enum dtype dtype)
{
    switch (domain) {
    case DOMAIN_ANY: return true;
    case DOMAIN_NO_BOOL: return dtype != DTYPE_BOOL;
    case DOMAIN_REAL: return !dtype_is_complex(dtype);
    case DOMAIN_NUMBER: return dtype != DTYPE_BOOL && !dtype_is_complex(dtype);
    case DOMAIN_INTEGRAL: return dtype == DTYPE_BOOL || dtype_is_integral(dtype);
    case DOMAIN_FLOAT: return dtype_is_float(dtype);
    case DOMAIN_INEXACT: return dtype_is_float(dtype) || dtype_is_complex(dtype);
    }
    return false;
}

static enum dtype default_dtype(const struct op_call *call)
{
    return call->default_dtype == DTYPE_NONE ? DTYPE_F32 : call->default_dtype;
}

static enum dtype complex_of(enum dtype dtype)
{
    return dtype == DTYPE_F64 || dtype == DTYPE_C128 ? DTYPE_C128 : DTYPE_C64;
}

static enum dtype real_of(enum dtype dtype)
{
    return dtype == DTYPE_C64 ? DTYPE_F32 : dtype == DTYPE_C128 ? DTYPE_F64 : dtype;
}

// ATen's combine_categories: `lower` counts only where its category is higher.
static enum dtype combine(enum dtype higher, enum dtype lower)
{
    if (higher == DTYPE_NONE)
        return lower;
    if (dtype_is_complex(higher))
        return higher;
    if (dtype_is_float(higher))
        return dtype_is_complex(lower) ? complex_of(higher) : higher;
    if (higher == DTYPE_BOOL || dtype_is_float(lower) || dtype_is_complex(lower))
        return dtype_promote(higher, lower);
    return higher;
}

struct classes {
    enum dtype with_dims, rank_0, number;
    bool has_default;    // a Python float takes part
};

static void classes_add_number(struct classes *classes, const struct op_call *call, enum dtype dtype)
{
    if (dtype_is_float(dtype) || dtype_is_complex(dtype)) {
        classes->has_default = true;
        dtype = dtype_is_float(dtype) ? default_dtype(call) : complex_of(default_dtype(call));
    }
    classes->number = dtype_promote(classes->number, dtype);
}

static enum dtype classes_common(const struct classes *classes)
{
    return combine(classes->with_dims, combine(classes->rank_0, classes->number));
}

// The common dtype of inputs [first, last). `*uses_default` is set when a Python float decided it.
static enum dtype common_of(const struct op_call *call, uint32_t first, uint32_t last, bool with_attrs, bool *uses_default)
{
    const struct tensor_meta *in = call->in;
    bool is_plain = call->in_is_scalar == NULL && !with_attrs;
    for (uint32_t i = first + 1; i < last && is_plain; i++)
        is_plain = in[i].dtype == in[first].dtype;
    if (is_plain)
        return first < last ? in[first].dtype : DTYPE_NONE;

    struct classes classes = {0};
    for (uint32_t i = first; i < last; i++) {
        if (call->in_is_scalar != NULL && call->in_is_scalar[i])
            classes_add_number(&classes, call, in[i].dtype);
        else if (in[i].rank > 0)
            classes.with_dims = dtype_promote(classes.with_dims, in[i].dtype);
        else
            classes.rank_0 = dtype_promote(classes.rank_0, in[i].dtype);
    }
    uint32_t attrs = !with_attrs ? 0 : call->op->number == OP_RSUB_SCALAR ? 1 : call->op->attrs;    // alpha never promotes
    for (uint32_t i = 0; i < attrs; i++) {
        if (call->attr[i].kind == ATTR_ABSENT)
            continue;
        enum dtype kind = call->attr[i].kind == ATTR_FLOAT ? DTYPE_F64 : call->attr[i].kind == ATTR_BOOL ? DTYPE_BOOL : DTYPE_I64;
        classes_add_number(&classes, call, kind);
    }
    enum dtype common = classes_common(&classes);
    if (classes.has_default && !dtype_is_float(classes.with_dims) && !dtype_is_float(classes.rank_0))
        *uses_default = true;
    return common;
}

static bool is_exact(enum dtype dtype)
{
    return dtype == DTYPE_BOOL || dtype_is_integral(dtype);
}

static enum dtype promoted_float(const struct op_call *call, bool *uses_default)
{
    enum dtype common = common_of(call, 0, call->n_in, false, uses_default);
    if (!is_exact(common))
        return common;
    *uses_default = true;
    return default_dtype(call);
}

// The dtype in which the op computes, before any cast to what was asked for. DTYPE_NONE: the rule has none.
static enum dtype pointwise_dtype(const struct op_call *call, enum dtype_rule rule, bool *uses_default)
{
    switch (rule) {
    case RULE_promote:
    case RULE_promote_int: return common_of(call, 0, call->n_in, false, uses_default);
    case RULE_promote_attr: return common_of(call, 0, call->n_in, true, uses_default);
    case RULE_promote_float: return promoted_float(call, uses_default);
    case RULE_promote_div:
        return call->attr[0].i == ROUND_NONE ? promoted_float(call, uses_default)
                                             : common_of(call, 0, call->n_in, false, uses_default);
    case RULE_bool: return common_of(call, 0, call->n_in, call->op->attrs > 0 && call->op->number != OP_ISIN, uses_default);
    case RULE_where: return common_of(call, 1, call->n_in, false, uses_default);
    default: return DTYPE_NONE;
    }
}

static enum dj_error refuse(const struct op_call *call, enum dtype dtype, const char *why, struct fault *fault)
{
    return fault_set(fault, DJ_E_DTYPE, "%s: %s, not %s", call->op->name, why, dtype_name(dtype));
}

// PyTorch's canCast.
static bool can_cast(enum dtype from, enum dtype to)
{
    if (dtype_is_complex(from) && !dtype_is_complex(to))
        return false;
    if (dtype_is_float(from) && is_exact(to))
        return false;
    return from == DTYPE_BOOL || to != DTYPE_BOOL;
}

static enum dj_error check_alpha(const struct op_call *call, enum dtype common, const struct attr *alpha, struct fault *fault)
{
    if (alpha->kind == ATTR_BOOL && common != DTYPE_BOOL)
        return fault_set(fault, DJ_E_DTYPE, "%s: Boolean alpha only supported for Boolean results", call->op->name);
    if (alpha->kind == ATTR_FLOAT && is_exact(common))
        return fault_set(fault, DJ_E_DTYPE, "%s: For integral input tensors, argument alpha must not be a floating point number",
                         call->op->name);
    return DJ_OK;
}

static enum dj_error check_pointwise(const struct op_call *call, enum dtype_rule rule, enum dtype common, struct fault *fault)
{
    enum op op = (enum op)call->op->number;
    if (rule == RULE_promote_int && !is_exact(common))
        return refuse(call, common, "takes integers and bool", fault);
    switch (op) {
    case OP_ADD:
    case OP_SUB:
    case OP_RSUB_SCALAR: {
        bool has_bool = call->in[0].dtype == DTYPE_BOOL || call->in[call->n_in - 1].dtype == DTYPE_BOOL;
        if (op != OP_ADD && (has_bool || (op == OP_RSUB_SCALAR && call->attr[0].kind == ATTR_BOOL)))
            return fault_set(fault, DJ_E_DTYPE, "%s: Subtraction, the `-` operator, with a bool tensor is not supported",
                             call->op->name);
        return check_alpha(call, common, &call->attr[op == OP_RSUB_SCALAR ? 1 : 0], fault);
    }
    case OP_POW_SCALAR:
        if (is_exact(common) && call->attr[0].kind == ATTR_INT && call->attr[0].i < 0)
            return fault_set(fault, DJ_E_DTYPE, "%s: Integers to negative integer powers are not allowed.", call->op->name);
        return DJ_OK;
    case OP_WHERE:
        if (call->in[0].dtype != DTYPE_BOOL && call->in[0].dtype != DTYPE_U8)
            return refuse(call, call->in[0].dtype, "the condition must be bool", fault);
        return DJ_OK;
    case OP_LERP_SCALAR:
        if (call->in[0].dtype != call->in[1].dtype)
            return refuse(call, call->in[1].dtype, "both ends must have one dtype", fault);
        return DJ_OK;
    case OP_HARDTANH:
        if (common == DTYPE_U8 && (attr_number(&call->attr[0]) < 0 || attr_number(&call->attr[1]) < 0))
            return fault_set(fault, DJ_E_DTYPE, "HARDTANH: cannot do hardtanh on an unsigned type with negative limits");
        return DJ_OK;
    case OP_ISIN:
        if (call->in[0].dtype == DTYPE_BOOL || call->in[1].dtype == DTYPE_BOOL)
            return refuse(call, DTYPE_BOOL, "takes numbers", fault);
        return DJ_OK;
    case OP_LEAKY_RELU_BACKWARD:
    case OP_ELU_BACKWARD:
        if (call->attr[call->op->attrs - 1].i != 0 && attr_number(&call->attr[0]) < 0)
            return fault_set(fault, DJ_E_BINDINGS_INVALID, "%s: a negative slope has no gradient from the result alone",
                             call->op->name);
        return DJ_OK;
    case OP_ADDCDIV:
        if (is_exact(call->in[1].dtype) && is_exact(call->in[2].dtype))
            return fault_set(fault, DJ_E_DTYPE, "ADDCDIV: Integer division with addcdiv is no longer supported");
        return DJ_OK;
    case OP_CLAMP:
        if (!attr_is_present(&call->attr[0]) && !attr_is_present(&call->attr[1]))
            return fault_set(fault, DJ_E_BINDINGS_INVALID, "CLAMP: At least one of 'min' or 'max' must not be None");
        return DJ_OK;
    default: return DJ_OK;
    }
}

static enum dj_error decide_pointwise(const struct op_call *call, enum dtype_rule rule, struct op_result *ret,
                                      struct fault *fault)
{
    bool uses_default = false;
    enum dtype common = pointwise_dtype(call, rule, &uses_default);
    enum domain domain = (enum domain)domain_of[call->op->number];
    if (domain != DOMAIN_ANY && !domain_has(domain, common))
        return refuse(call, common, "does not compute with this dtype", fault);
    enum dj_error error = check_pointwise(call, rule, common, fault);
    if (error != DJ_OK)
        return error;

    enum dtype result = rule == RULE_bool ? DTYPE_BOOL : call->op->number == OP_ABS ? real_of(common) : common;
    if (call->dtype != DTYPE_NONE && call->dtype != result) {
        if (!dtype_is_known((uint64_t)call->dtype) || !can_cast(result, call->dtype))
            return fault_set(fault, DJ_E_DTYPE, "%s: result type %s can't be cast to the desired output type %s", call->op->name,
                             dtype_name(result), dtype_name(call->dtype));
        result = call->dtype;
    }
    ret->out[0].dtype = result;
    return DJ_OK;
}

static bool index_dtype(enum dtype dtype)
{
    return dtype == DTYPE_I64 || dtype == DTYPE_I32;
}

// Dtypes of inputs other than the first, for ops whose result follows the first.
static enum dj_error check_others(const struct op_call *call, struct fault *fault)
{
    const struct tensor_meta *in = call->in;
    uint32_t index = 0, like = 0;    // positions of an index and of an input that must have in[0]'s dtype; 0: none
    switch ((enum op)call->op->number) {
    case OP_EMBEDDING:
    case OP_EMBEDDING_BACKWARD:
    case OP_INDEX_SELECT:
    case OP_GATHER:
    case OP_SCATTER_VALUE: index = 1; break;
    case OP_SCATTER_SRC:
    case OP_SCATTER_ADD:
    case OP_INDEX_ADD: index = 1, like = 2; break;
    case OP_INDEX_PUT: like = call->n_in - 1; break;
    case OP_MASKED_FILL:
    case OP_MASKED_FILL_TENSOR:
        if (in[1].dtype != DTYPE_BOOL)
            return refuse(call, in[1].dtype, "the mask must be bool", fault);
        break;
    default: break;
    }
    if (index != 0 && !index_dtype(in[index].dtype))
        return refuse(call, in[index].dtype, "indices must be int64 or int32", fault);
    if (like != 0 && in[like].dtype != in[0].dtype)
        return refuse(call, in[like].dtype, "the source must have the dtype of the destination", fault);
    return DJ_OK;
}

static enum dj_error check_same(const struct op_call *call, struct fault *fault)
{
    for (uint32_t i = 1; i < call->n_in; i++)
        if (call->in[i].dtype != call->in[0].dtype && call->in[i].dtype != DTYPE_NONE)
            return refuse(call, call->in[i].dtype, "all inputs must have one dtype", fault);
    return DJ_OK;
}

static enum dtype wide(enum dtype dtype)
{
    return dtype == DTYPE_F16 || dtype == DTYPE_BF16 ? DTYPE_F32 : dtype;
}

// A gradient has the dtype of what it is the gradient of.
static enum dj_error check_gradient(const struct op_call *call, struct op_result *ret, struct fault *fault)
{
    for (uint32_t i = 1; i < call->op->outputs; i++)
        ret->out[i].dtype = call->in[0].dtype;
    return call->in[1].dtype == call->in[0].dtype
               ? DJ_OK
               : refuse(call, call->in[1].dtype, "a gradient and its values must have one dtype", fault);
}

static enum dj_error check_loss(const struct op_call *call, struct op_result *ret, struct fault *fault)
{
    bool is_gradient = call->op->number == OP_NLL_LOSS_BACKWARD;
    const struct tensor_meta *values = &call->in[is_gradient], *classes = values + 1, *weight = values + 2;
    if (!is_gradient)
        ret->out[1].dtype = values->dtype;
    if (classes->dtype != DTYPE_I64 && classes->dtype != DTYPE_U8)
        return refuse(call, classes->dtype, "classes must be int64 or uint8", fault);
    if (weight->dtype != DTYPE_NONE && weight->dtype != values->dtype)
        return refuse(call, weight->dtype, "the weight must have the dtype of the values", fault);
    if (is_gradient && (call->in[0].dtype != values->dtype || call->in[4].dtype != values->dtype))
        return refuse(call, call->in[0].dtype, "the gradient must have the dtype of the values", fault);
    return DJ_OK;
}

// A dtype that reductions let the caller ask for.
static enum dj_error decide_asked(const struct op_call *call, enum dtype_rule rule, enum dtype *ret, struct fault *fault)
{
    enum dtype asked = call->dtype, first = call->n_in > 0 ? call->in[0].dtype : DTYPE_NONE;
    if (asked != DTYPE_NONE && !dtype_is_known((uint64_t)asked))
        return refuse(call, asked, "was asked for a dtype that does not exist", fault);
    switch (rule) {
    case RULE_asked:
        if (asked == DTYPE_NONE)
            return refuse(call, asked, "the result dtype must be given", fault);
        *ret = asked;
        break;
    case RULE_sum: *ret = asked != DTYPE_NONE ? asked : is_exact(first) ? DTYPE_I64 : first; break;
    case RULE_norm:
        if (is_exact(first) || (asked != DTYPE_NONE && dtype_promote(first, asked) != asked))
            return refuse(call, first, "takes floating or complex inputs that convert to the result's dtype without narrowing",
                          fault);
        *ret = real_of(asked != DTYPE_NONE ? asked : first);
        break;
    default:
        *ret = asked != DTYPE_NONE ? asked : first;
        if (is_exact(*ret))
            return refuse(call, *ret, "Input dtype must be either a floating point or complex dtype", fault);
        break;
    }
    return DJ_OK;
}

static enum dj_error decide_other(const struct op_call *call, enum dtype_rule rule, struct op_result *ret, struct fault *fault)
{
    enum dtype first = call->n_in > 0 ? call->in[0].dtype : DTYPE_NONE, result = first;
    enum dj_error error = DJ_OK;
    bool ignored = false;
    switch (rule) {
    case RULE_first: error = check_others(call, fault); break;
    case RULE_first_i64: ret->out[1].dtype = DTYPE_I64; break;
    case RULE_first_bool: ret->out[1].dtype = DTYPE_BOOL; break;
    case RULE_any: result = first == DTYPE_U8 ? DTYPE_U8 : DTYPE_BOOL; break;
    case RULE_i64: result = DTYPE_I64; break;
    case RULE_cat: result = common_of(call, 0, call->n_in, false, &ignored); break;
    case RULE_same: error = check_same(call, fault); break;
    case RULE_softmax:
        if (call->attr[1].i != 0) {
            if (first != DTYPE_F16)
                return refuse(call, first, "conversion is supported for Half type only", fault);
            result = DTYPE_F32;
        }
        break;
    case RULE_batch_norm:
        for (uint32_t i = 1; i < call->op->outputs; i++)
            ret->out[i].dtype = wide(first);
        if (call->op->number == OP_BATCH_NORM_BACKWARD)
            error = check_gradient(call, ret, fault);
        break;
    case RULE_gradient: error = check_gradient(call, ret, fault); break;
    case RULE_softmax_backward:
        error = check_gradient(call, ret, fault);
        if (first == DTYPE_F32 && call->dtype == DTYPE_F16)
            result = DTYPE_F16;
        break;
    case RULE_loss: error = check_loss(call, ret, fault); break;
    case RULE_layer_norm: ret->out[1].dtype = ret->out[2].dtype = wide(first); break;
    case RULE_sdpa:
        ret->out[1].dtype = DTYPE_F32;
        if (call->in[1].dtype != first || call->in[2].dtype != first)
            return refuse(call, call->in[1].dtype, "query, key and value must have one dtype", fault);
        break;
    default: assert(!"a rule without a case");
    }
    enum domain domain = (enum domain)domain_of[call->op->number];
    if (error == DJ_OK && domain != DOMAIN_ANY && !domain_has(domain, first))
        return refuse(call, first, "does not compute with this dtype", fault);
    if (error == DJ_OK && call->dtype != DTYPE_NONE && call->dtype != result)
        return fault_set(fault, DJ_E_DTYPE, "%s: the result is %s; %s was recorded", call->op->name, dtype_name(result),
                         dtype_name(call->dtype));
    ret->out[0].dtype = result;
    return error;
}

enum dj_error dtype_decide(const struct op_call *call, enum dtype_rule rule, struct op_result *ret, struct fault *fault)
{
    switch (rule) {
    case RULE_promote:
    case RULE_promote_attr:
    case RULE_promote_float:
    case RULE_promote_div:
    case RULE_promote_int:
    case RULE_bool:
    case RULE_where: return decide_pointwise(call, rule, ret, fault);
    case RULE_asked:
    case RULE_sum:
    case RULE_mean:
    case RULE_norm: {
        enum dj_error error = decide_asked(call, rule, &ret->out[0].dtype, fault);
        enum domain domain = (enum domain)domain_of[call->op->number];
        if (error == DJ_OK && rule == RULE_asked && !domain_has(domain, ret->out[0].dtype))
            return refuse(call, ret->out[0].dtype, "cannot make this dtype", fault);
        return error;
    }
    default: return decide_other(call, rule, ret, fault);
    }
}

enum dtype op_compute_dtype(const struct op_call *call)
{
    enum dtype_rule rule = (enum dtype_rule)op_rows[call->op->number].dtype_rule;
    bool uses_default = false;
    enum dtype common = pointwise_dtype(call, rule, &uses_default);
    if (common == DTYPE_NONE)
        return call->dtype != DTYPE_NONE || call->n_in == 0 ? call->dtype : call->in[0].dtype;
    // The default dtype is the client's, and a worker is not told it; where it decided, it is what was asked for.
    return uses_default && rule != RULE_bool && dtype_is_float(call->dtype) ? call->dtype : common;
}
