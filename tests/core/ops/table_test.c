// The table itself, what dtypes and tensor metas promise, and what hostile calls get. That inference is right is test_meta.py's.

#include "core/ops/op.h"
#include "tests/lib/case.h"

#include <string.h>

static struct tensor_meta dense(enum dtype dtype, uint32_t rank, const int64_t *size)
{
    struct tensor_meta meta = {.dtype = dtype, .rank = rank};
    for (uint32_t i = 0; i < rank; i++)
        meta.size[i] = size[i];
    tensor_make_contiguous(&meta);
    return meta;
}

#define DENSE(dtype, ...) dense(dtype, sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t), (const int64_t[]){__VA_ARGS__})

static enum dj_error infer(const char *name, const struct tensor_meta *in, uint32_t n_in, const struct attr *attr,
                           struct op_result *ret)
{
    ops_init();
    struct fault fault = {0};
    struct op_call call = {.op = op_find(name), .in = in, .n_in = n_in, .attr = attr};
    assert_non_null(call.op);
    enum dj_error error = op_infer(&call, ret, &fault);
    assert_int_equal(fault.code, error);
    assert_true(error == DJ_OK || fault.text[0] != '\0');
    return error;
}

static uint64_t below(struct prng *prng, uint64_t limit)
{
    return prng_between(prng, 0, limit - 1);
}
static struct attr ints(const int64_t *values, uint8_t count)
{
    return (struct attr){.kind = ATTR_INTS, .count = count, .ints = values};
}
static struct attr integer(int64_t value)
{
    return (struct attr){.kind = ATTR_INT, .i = value};
}
static struct attr boolean(int64_t value)
{
    return (struct attr){.kind = ATTR_BOOL, .i = value};
}

static void every_row_is_found_by_number_and_by_name(void **state)
{
    (void)state;
    ops_init();
    ops_init();
    assert_true(op_count() > 100);
    for (uint32_t i = 0; i < op_count(); i++) {
        const struct op_info *info = op_at(i);
        assert_ptr_equal(op_info(info->number), info);
        assert_ptr_equal(op_find(info->name), info);
        if (info->aten[0] != '\0')
            assert_ptr_equal(op_find(info->aten), info);
        assert_true(info->aten[0] != '\0' || (info->flags & OP_MANUAL));
        assert_true(info->inputs_min > 0 || (info->flags & OP_CREATES));
    }
    assert_null(op_info(0));
    assert_null(op_info(OP_LIMIT));
    assert_null(op_info(UINT32_MAX));
    assert_null(op_find(""));
    assert_null(op_find("no such op"));
}

static void a_signature_is_parsed_into_arguments_and_attributes(void **state)
{
    (void)state;
    ops_init();
    const struct op_info *info = op_find("slice.Tensor");
    assert_int_equal(info->args, 5);
    assert_int_equal(info->attrs, 4);
    assert_int_equal(info->arg[0].kind, ARG_TENSOR);
    assert_int_equal(info->arg[0].attr, -1);
    assert_string_equal(info->arg[1].name, "dim");
    assert_true(info->arg[1].is_static && !info->arg[1].is_optional);
    assert_true(!info->arg[2].is_static && info->arg[2].is_optional);
    assert_int_equal(info->arg[4].attr, 3);
    assert_true(op_find("VIEW_SIZES")->flags & OP_IS_VIEW);
    assert_int_equal(op_find("_to_copy")->arg[1].kind, ARG_IGNORED);
}

static void promotion_is_commutative_and_idempotent(void **state)
{
    (void)state;
    for (enum dtype a = DTYPE_BOOL; a < DTYPE_COUNT; a++) {
        assert_int_equal(dtype_promote(a, a), a);
        for (enum dtype b = DTYPE_BOOL; b < DTYPE_COUNT; b++) {
            assert_int_equal(dtype_promote(a, b), dtype_promote(b, a));
            assert_int_equal(dtype_promote(dtype_promote(a, b), b), dtype_promote(a, b));
        }
    }
    assert_int_equal(dtype_promote(DTYPE_U8, DTYPE_I8), DTYPE_I16);
    assert_int_equal(dtype_promote(DTYPE_F16, DTYPE_BF16), DTYPE_F32);
    assert_int_equal(dtype_promote(DTYPE_I64, DTYPE_F16), DTYPE_F16);
    enum dtype parsed;
    for (enum dtype a = DTYPE_BOOL; a < DTYPE_COUNT; a++)
        assert_true(dtype_parse(dtype_name(a), &parsed) && parsed == a);
    assert_false(dtype_parse("none", &parsed));
    assert_string_equal(dtype_name((enum dtype)99), "unknown");
}

static void a_meta_that_could_overflow_is_refused(void **state)
{
    (void)state;
    struct tensor_meta meta = DENSE(DTYPE_F32, 2, 3);
    assert_ok(tensor_check(&meta, NULL));
    meta.size[1] = INT64_MAX;
    assert_error(DJ_E_OVERFLOW, tensor_check(&meta, NULL));
    meta = DENSE(DTYPE_F32, 2, 3);
    meta.stride[0] = INT64_MAX / 8;
    assert_error(DJ_E_OVERFLOW, tensor_check(&meta, NULL));
    meta.stride[0] = -1;
    assert_error(DJ_E_SHAPE, tensor_check(&meta, NULL));
    meta = DENSE(DTYPE_F32, 2, -3);
    assert_error(DJ_E_SHAPE, tensor_check(&meta, NULL));
    meta = DENSE(DTYPE_F32, 2, 3);
    meta.rank = DJ_RANK_MAX + 1;
    assert_error(DJ_E_RANK, tensor_check(&meta, NULL));
    meta = DENSE(DTYPE_NONE, 2, 3);
    assert_error(DJ_E_DTYPE, tensor_check(&meta, NULL));
    meta = DENSE(DTYPE_F32, 0, INT64_MAX / 2, 4);    // empty, but its row-major strides would overflow
    meta.stride[0] = meta.stride[1] = meta.stride[2] = 1;
    assert_error(DJ_E_OVERFLOW, tensor_check(&meta, NULL));
}

static void span_and_density_follow_the_strides(void **state)
{
    (void)state;
    struct tensor_meta meta = DENSE(DTYPE_F32, 2, 3);
    assert_true(tensor_is_contiguous(&meta) && tensor_is_dense(&meta));
    assert_int_equal(tensor_span(&meta), 6);
    meta.stride[0] = 1, meta.stride[1] = 2;
    assert_true(!tensor_is_contiguous(&meta) && tensor_is_dense(&meta));
    meta.stride[1] = 4;
    assert_false(tensor_is_dense(&meta));
    assert_int_equal(tensor_span(&meta), 10);
    meta.stride[0] = 0;
    assert_false(tensor_is_dense(&meta));
    assert_int_equal(tensor_span(&meta), 9);
    assert_int_equal(tensor_bytes(&meta), 24);
    meta.size[0] = 0;
    assert_int_equal(tensor_span(&meta), 0);
    char text[TENSOR_TEXT_MAX];
    assert_string_equal(tensor_text(&meta, text), "float32[0, 3]");
    meta = DENSE(DTYPE_C128, INT64_MAX, INT64_MAX, INT64_MAX, INT64_MAX, INT64_MAX, INT64_MAX, INT64_MAX, INT64_MAX);
    assert_true(strlen(tensor_text(&meta, text)) < TENSOR_TEXT_MAX && text[strlen(text) - 1] == ']');
}

static void a_result_too_large_to_address_is_an_error(void **state)
{
    (void)state;
    struct op_result result;
    struct tensor_meta pair[2] = {DENSE(DTYPE_BOOL, INT64_C(1) << 40, 1), DENSE(DTYPE_BOOL, 1, INT64_C(1) << 40)};
    assert_error(DJ_E_OVERFLOW, infer("mul.Tensor", pair, 2, NULL, &result));
    pair[0].dtype = pair[1].dtype = DTYPE_F32;
    assert_error(DJ_E_OVERFLOW, infer("mm", pair, 2, NULL, &result));
    struct tensor_meta one = DENSE(DTYPE_F32, 1);
    const int64_t huge[2] = {INT64_C(1) << 40, INT64_C(1) << 40};
    struct attr attr[1] = {ints(huge, 2)};
    assert_error(DJ_E_OVERFLOW, infer("expand", &one, 1, attr, &result));
    assert_error(DJ_E_OVERFLOW, infer("repeat", &one, 1, attr, &result));
    assert_error(DJ_E_OVERFLOW, infer("view", &one, 1, attr, &result));
    struct tensor_meta wide = DENSE(DTYPE_F32, 4, 4);
    struct attr slice[4] = {integer(0), integer(INT64_MIN), integer(INT64_MAX), integer(INT64_MAX)};
    assert_error(DJ_E_OVERFLOW, infer("slice.Tensor", &wide, 1, slice, &result));
    const int64_t strides[2] = {INT64_MAX, INT64_MAX};
    const int64_t sizes[2] = {2, 2};
    struct attr strided[3] = {ints(sizes, 2), ints(strides, 2), integer(INT64_MAX)};
    assert_error(DJ_E_OVERFLOW, infer("as_strided", &wide, 1, strided, &result));
    const int64_t pads[2] = {INT64_MAX, INT64_MAX};
    struct attr pad[2] = {ints(pads, 2), integer(0)};
    assert_error(DJ_E_OVERFLOW, infer("constant_pad_nd", &one, 1, pad, &result));
}

static void as_strided_never_reaches_outside_its_input(void **state)
{
    (void)state;
    struct op_result result;
    struct tensor_meta in = DENSE(DTYPE_F32, 10);
    const int64_t size[2] = {2, 3}, stride[2] = {5, 2};
    struct attr attr[3] = {ints(size, 2), ints(stride, 2), integer(0)};
    assert_ok(infer("as_strided", &in, 1, attr, &result));
    assert_int_equal(result.view_offset[0], 0);
    attr[2] = integer(1);
    assert_error(DJ_E_INDEX, infer("as_strided", &in, 1, attr, &result));
    attr[2] = integer(-1);
    assert_error(DJ_E_SHAPE, infer("as_strided", &in, 1, attr, &result));
}

static void attributes_of_the_wrong_kind_are_refused(void **state)
{
    (void)state;
    struct op_result result;
    struct tensor_meta in = DENSE(DTYPE_F32, 2, 3);
    struct attr attr = boolean(1);
    assert_error(DJ_E_BINDINGS_INVALID, infer("unsqueeze", &in, 1, &attr, &result));
    attr = (struct attr){.kind = 250};
    assert_error(DJ_E_BINDINGS_INVALID, infer("unsqueeze", &in, 1, &attr, &result));
    attr = (struct attr){.kind = ATTR_ABSENT};
    assert_error(DJ_E_BINDINGS_INVALID, infer("unsqueeze", &in, 1, &attr, &result));
    attr = ints(NULL, 2);
    assert_error(DJ_E_BINDINGS_INVALID, infer("view", &in, 1, &attr, &result));
    attr = (struct attr){.kind = ATTR_INTS, .count = ATTR_INTS_MAX + 1, .ints = (const int64_t[ATTR_INTS_MAX + 1]){0}};
    assert_error(DJ_E_BINDINGS_INVALID, infer("view", &in, 1, &attr, &result));
    attr = integer(7);
    assert_error(DJ_E_BINDINGS_INVALID, infer("gelu", &in, 1, &attr, &result));
    struct attr pair[2] = {ints((const int64_t[]){0}, 1), {.kind = ATTR_BOOL, .i = 2}};
    assert_error(DJ_E_BINDINGS_INVALID, infer("amax", &in, 1, pair, &result));
}

static void calls_with_missing_or_extra_inputs_are_refused(void **state)
{
    (void)state;
    struct op_result result;
    struct tensor_meta in[3] = {DENSE(DTYPE_F32, 2), {.dtype = DTYPE_NONE}, {.dtype = (enum dtype)77}};
    assert_error(DJ_E_PLAN_INVALID, infer("neg", in, 0, NULL, &result));
    assert_error(DJ_E_PLAN_INVALID, infer("neg", in, 2, NULL, &result));
    assert_error(DJ_E_PLAN_INVALID, infer("mul.Tensor", in, 2, NULL, &result));
    assert_error(DJ_E_PLAN_INVALID, infer("neg", &in[2], 1, NULL, &result));
    in[1] = in[0], in[1].rank = 9;
    assert_error(DJ_E_PLAN_INVALID, infer("mul.Tensor", in, 2, NULL, &result));
}

static enum dj_error add_as(enum dtype a, enum dtype b, enum dtype asked, enum dtype *ret)
{
    ops_init();
    struct tensor_meta in[2] = {DENSE(a, 2), DENSE(b, 2)};
    struct attr alpha = integer(1);
    struct op_call call = {.op = op_find("ADD"), .in = in, .n_in = 2, .attr = &alpha, .dtype = asked};
    struct op_result result;
    enum dj_error error = op_infer(&call, &result, NULL);
    if (error == DJ_OK)
        *ret = result.out[0].dtype;
    return error;
}

static void a_recorded_dtype_must_be_one_that_the_result_can_be_cast_to(void **state)
{
    (void)state;
    enum dtype dtype;
    assert_ok(add_as(DTYPE_F16, DTYPE_F32, DTYPE_F16, &dtype));    // what an in-place add records
    assert_int_equal(dtype, DTYPE_F16);
    assert_ok(add_as(DTYPE_I32, DTYPE_I64, DTYPE_I32, &dtype));
    assert_error(DJ_E_DTYPE, add_as(DTYPE_F32, DTYPE_F32, DTYPE_I64, &dtype));
    assert_error(DJ_E_DTYPE, add_as(DTYPE_I64, DTYPE_I64, DTYPE_BOOL, &dtype));
    assert_error(DJ_E_DTYPE, add_as(DTYPE_F32, DTYPE_F32, (enum dtype)55, &dtype));
    struct tensor_meta in[2] = {DENSE(DTYPE_F32, 2, 2), DENSE(DTYPE_F32, 2, 2)};
    struct op_call call = {.op = op_find("mm"), .in = in, .n_in = 2, .dtype = DTYPE_F64};
    struct op_result result;
    assert_error(DJ_E_DTYPE, op_infer(&call, &result, NULL));
}

// Random calls of every op with random attributes: nothing but an error or an output that passes tensor_check, under the sanitizers.
static void no_call_however_hostile_breaks_the_inference(void **state)
{
    static const int64_t edges[] = {
        0, 1, -1, 2, 3, INT64_MAX, INT64_MIN, INT64_C(1) << 31, INT64_C(1) << 59, -(INT64_C(1) << 59)};
    ops_init();
    struct prng prng = case_prng(state, 20);
    uint32_t accepted = 0;
    for (uint32_t round = 0; round < 200000; round++) {
        const struct op_info *op = op_at((uint32_t)below(&prng, op_count()));
        struct tensor_meta in[6];
        int64_t lists[OP_ATTRS_MAX][8];
        struct attr attr[OP_ATTRS_MAX];
        bool is_scalar[6];
        uint32_t n_in = prng_chance(&prng, 1, 10) ? (uint32_t)below(&prng, 6) : op->inputs_min;
        for (uint32_t i = 0; i < n_in; i++) {
            in[i] = (struct tensor_meta){.dtype = (enum dtype)below(&prng, DTYPE_COUNT), .rank = (uint32_t)below(&prng, 6)};
            for (uint32_t d = 0; d < in[i].rank; d++) {
                in[i].size[d] = prng_chance(&prng, 1, 20) ? edges[below(&prng, 10)] : (int64_t)below(&prng, 4);
                in[i].stride[d] = prng_chance(&prng, 1, 20) ? edges[below(&prng, 10)] : (int64_t)below(&prng, 9);
            }
            is_scalar[i] = prng_chance(&prng, 1, 8);
            if (tensor_check(&in[i], NULL) != DJ_OK)
                in[i] = (struct tensor_meta){.dtype = is_scalar[i] ? DTYPE_F64 : DTYPE_NONE};
            if (is_scalar[i])
                in[i].rank = 0;
        }
        for (uint32_t i = 0; i < OP_ATTRS_MAX; i++) {
            attr[i].kind = (uint8_t)below(&prng, ATTR_INTS + 1);
            for (uint32_t k = 0; k < 8; k++)
                lists[i][k] = prng_chance(&prng, 1, 4) ? edges[below(&prng, 10)] : (int64_t)below(&prng, 4);
            attr[i].count = (uint8_t)below(&prng, 9);
            attr[i].i = attr[i].kind == ATTR_BOOL ? (int64_t)below(&prng, 2) : lists[i][0];
            if (attr[i].kind == ATTR_INTS)
                attr[i].ints = lists[i];
            if (attr[i].kind == ATTR_FLOAT)
                attr[i].f = prng_chance(&prng, 1, 2) ? (double)lists[i][0] : __builtin_nan("");
        }
        // Kinds mostly as the row wants them, so that calls get past the first check.
        for (uint32_t i = 0; i < op->args; i++) {
            int8_t at = op->arg[i].attr;
            if (at < 0 || prng_chance(&prng, 1, 10))
                continue;
            if (op->arg[i].kind == ARG_INTS)
                attr[at].kind = ATTR_INTS, attr[at].ints = lists[at];
            else if (op->arg[i].kind == ARG_BOOL)
                attr[at].kind = ATTR_BOOL, attr[at].i = lists[at][1] & 1;
            else if (op->arg[i].kind == ARG_FLOAT)
                attr[at].kind = ATTR_FLOAT, attr[at].f = 0.5;
            else
                attr[at].kind = ATTR_INT, attr[at].i = lists[at][2];
        }
        struct op_call call = {.op = op,
                               .in = in,
                               .in_is_scalar = is_scalar,
                               .n_in = n_in,
                               .attr = attr,
                               .dtype = (enum dtype)(prng_chance(&prng, 1, 2) ? 0 : below(&prng, DTYPE_COUNT + 2))};
        struct op_result result;
        struct fault fault;
        if (op_infer(&call, &result, &fault) != DJ_OK)
            continue;
        accepted++;
        for (uint32_t i = 0; i < op->outputs; i++)
            assert_ok(tensor_check(&result.out[i], NULL));
        struct op_cost cost = op_cost(&call, &result);
        assert_true(cost.flops >= 0 && cost.bytes_read >= 0 && cost.bytes_written >= 0);
        op_compute_dtype(&call);
    }
    print_message("%u of 200000 hostile calls were valid\n", accepted);
    assert_true(accepted > 10000);
}

static void cost_counts_multiplications_and_bytes(void **state)
{
    (void)state;
    struct op_result result;
    struct tensor_meta in[2] = {DENSE(DTYPE_F32, 4, 5), DENSE(DTYPE_F32, 5, 6)};
    ops_init();
    struct op_call call = {.op = op_find("mm"), .in = in, .n_in = 2};
    assert_ok(op_infer(&call, &result, NULL));
    struct op_cost cost = op_cost(&call, &result);
    assert_true(cost.flops == 2.0 * 4 * 5 * 6);
    assert_true(cost.bytes_read == 4.0 * (20 + 30) && cost.bytes_written == 4.0 * 24);
    struct tensor_meta rows[2] = {DENSE(DTYPE_F32, 1000, 8), DENSE(DTYPE_I64, 3)};
    call = (struct op_call){.op = op_find("embedding"), .in = rows, .n_in = 2};
    assert_ok(op_infer(&call, &result, NULL));
    assert_true(op_cost(&call, &result).bytes_read == 4.0 * 3 * 8 + 8.0 * 3);
}

CASES(every_row_is_found_by_number_and_by_name, a_signature_is_parsed_into_arguments_and_attributes,
      promotion_is_commutative_and_idempotent, a_meta_that_could_overflow_is_refused, span_and_density_follow_the_strides,
      a_result_too_large_to_address_is_an_error, as_strided_never_reaches_outside_its_input,
      attributes_of_the_wrong_kind_are_refused, calls_with_missing_or_extra_inputs_are_refused,
      a_recorded_dtype_must_be_one_that_the_result_can_be_cast_to, no_call_however_hostile_breaks_the_inference,
      cost_counts_multiplications_and_bytes)
