// Conversion between element types, and what is built on it: copies, dense twins, attributes as numbers. Casts are C's where PyTorch's
// are: float to integer truncates, anything to bool is `!= 0`. Half floats round to nearest even.

#include "gpu_worker/kernels/cpu.h"

#include <string.h>

#include "core/base/assert.h"
#include "core/base/bits.h"
#include "gpu_worker/kernels/half.h"

#define CONTIGUOUS(S, D) (from_step == (int64_t)sizeof(S) && to_step == (int64_t)sizeof(D))
#define CONVERT(s, S, d, D, expression) \
    static void convert_##s##_##d(const char *from, int64_t from_step, char *to, int64_t to_step, int64_t n) \
    { \
        if (CONTIGUOUS(S, D)) { \
            const S *restrict source = (const void *)from; \
            D *restrict target = (void *)to; \
            for (int64_t i = 0; i < n; i++) { \
                S x = source[i]; \
                target[i] = (D)(expression); \
            } \
            return; \
        } \
        for (int64_t i = 0; i < n; i++) { \
            S x = *(const S *)(const void *)(from + i * from_step); \
            *(D *)(void *)(to + i * to_step) = (D)(expression); \
        } \
    }

// One conversion a line, whatever fits on it.
// clang-format off
#define FROM_NUMBER(s, S) \
    CONVERT(s, S, byte, uint8_t, x != 0) \
    CONVERT(s, S, u8, uint8_t, x) \
    CONVERT(s, S, i8, int8_t, x) \
    CONVERT(s, S, i16, int16_t, x) \
    CONVERT(s, S, i32, int32_t, x) \
    CONVERT(s, S, i64, int64_t, x) \
    CONVERT(s, S, f16, uint16_t, half_from_float((float)x)) \
    CONVERT(s, S, bf16, uint16_t, brain_from_float((float)x)) \
    CONVERT(s, S, f32, float, x) \
    CONVERT(s, S, f64, double, x)
FROM_NUMBER(byte, uint8_t)
FROM_NUMBER(i8, int8_t)
FROM_NUMBER(i16, int16_t)
FROM_NUMBER(i32, int32_t)
FROM_NUMBER(i64, int64_t)
FROM_NUMBER(f32, float)
FROM_NUMBER(f64, double)
#define FROM_HALF(s, widen) \
    CONVERT(s, uint16_t, byte, uint8_t, widen(x) != 0) \
    CONVERT(s, uint16_t, u8, uint8_t, widen(x)) \
    CONVERT(s, uint16_t, i8, int8_t, widen(x)) \
    CONVERT(s, uint16_t, i16, int16_t, widen(x)) \
    CONVERT(s, uint16_t, i32, int32_t, widen(x)) \
    CONVERT(s, uint16_t, i64, int64_t, widen(x)) \
    CONVERT(s, uint16_t, f16, uint16_t, half_from_float(widen(x))) \
    CONVERT(s, uint16_t, bf16, uint16_t, brain_from_float(widen(x))) \
    CONVERT(s, uint16_t, f32, float, widen(x)) \
    CONVERT(s, uint16_t, f64, double, widen(x))
// clang-format on
FROM_HALF(f16, half_to_float)
FROM_HALF(bf16, brain_to_float)

#define ROW(s) \
    { \
        [DTYPE_BOOL] = convert_##s##_byte, [DTYPE_U8] = convert_##s##_u8, [DTYPE_I8] = convert_##s##_i8, \
        [DTYPE_I16] = convert_##s##_i16, [DTYPE_I32] = convert_##s##_i32, [DTYPE_I64] = convert_##s##_i64, \
        [DTYPE_F16] = convert_##s##_f16, [DTYPE_BF16] = convert_##s##_bf16, [DTYPE_F32] = convert_##s##_f32, \
        [DTYPE_F64] = convert_##s##_f64 \
    }

static const convert_function converts[DTYPE_COUNT][DTYPE_COUNT] = {
    [DTYPE_BOOL] = ROW(byte), [DTYPE_U8] = ROW(byte), [DTYPE_I8] = ROW(i8),     [DTYPE_I16] = ROW(i16), [DTYPE_I32] = ROW(i32),
    [DTYPE_I64] = ROW(i64),   [DTYPE_F16] = ROW(f16), [DTYPE_BF16] = ROW(bf16), [DTYPE_F32] = ROW(f32), [DTYPE_F64] = ROW(f64),
};

// Same dtype: bytes move unchanged (NaN payloads too).
#define MOVE(name, S) \
    static void move_##name(const char *from, int64_t from_step, char *to, int64_t to_step, int64_t n) \
    { \
        if (CONTIGUOUS(S, S)) { \
            memcpy(to, from, (size_t)n * sizeof(S)); \
            return; \
        } \
        for (int64_t i = 0; i < n; i++) \
            memcpy(to + i * to_step, from + i * from_step, sizeof(S)); \
    }
struct sixteen_bytes {
    uint64_t half[2];
};
MOVE(1, uint8_t)
MOVE(2, uint16_t)
MOVE(4, uint32_t)
MOVE(8, uint64_t)
MOVE(16, struct sixteen_bytes)

convert_function convert_find(enum dtype from, enum dtype to)
{
    if (from != to)
        return converts[from][to];
    switch (dtype_bytes(from)) {
    case 1: return move_1;
    case 2: return move_2;
    case 4: return move_4;
    case 8: return move_8;
    case 16: return move_16;
    default: return NULL;
    }
}

bool dtype_is_real(enum dtype dtype)
{
    return dtype > DTYPE_NONE && dtype <= DTYPE_F64;
}

static void convert_row(void *context, char *const at[], const int64_t step[], int64_t n)
{
    convert_function convert = *(convert_function *)context;
    convert(at[1], step[1], at[0], step[0], n);
}

bool convert_tensor(const struct tensor *from, const struct tensor *to, struct team *team)
{
    convert_function convert = convert_find(from->meta.dtype, to->meta.dtype);
    if (convert == NULL)
        return false;

    struct loop loop;
    loop_begin(&loop, to->meta.rank, to->meta.size);
    loop_add(&loop, to);
    loop_add(&loop, from);
    loop_finish(&loop, true);
    loop_run(&loop, team, convert_row, &convert);
    return true;
}

void *scratch_take(struct scratch *scratch, size_t bytes)
{
    size_t at = scratch->used;
    scratch->used += size_round_up(bytes, 64);
    return scratch->data == NULL ? NULL : scratch->data + at;
}

static struct tensor dense_twin(const void *data, enum dtype dtype, const struct tensor *tensor)
{
    struct tensor twin = {.data = (void *)(uintptr_t)data, .meta = tensor->meta};
    twin.meta.dtype = dtype;
    tensor_make_contiguous(&twin.meta);
    return twin;
}

void *dense_take(struct scratch *scratch, const struct tensor *tensor, enum dtype dtype, bool copy, struct team *team)
{
    if (tensor->meta.dtype == dtype && tensor_is_contiguous(&tensor->meta))
        return tensor->data;

    void *data = scratch_take(scratch, (size_t)tensor_count(&tensor->meta) * dtype_bytes(dtype));
    if (data != NULL && copy) {
        struct tensor twin = dense_twin(data, dtype, tensor);
        bool converted = convert_tensor(tensor, &twin, team);
        assert(converted);
    }
    return data;
}

const float *optional_take(struct scratch *scratch, const struct kernel_call *call, uint32_t i)
{
    if (i >= call->n_in || !is_present(&call->in[i]))
        return NULL;
    return dense_take(scratch, &call->in[i], DTYPE_F32, scratch->data != NULL, call->team);
}

void dense_return(const void *data, enum dtype dtype, const struct tensor *tensor, struct team *team)
{
    if (data == tensor->data)
        return;
    struct tensor twin = dense_twin(data, dtype, tensor);
    bool converted = convert_tensor(&twin, tensor, team);
    assert(converted);
}

double attr_double(const struct attr *attr)
{
    return attr->kind == ATTR_FLOAT ? attr->f : attr->kind == ATTR_INT || attr->kind == ATTR_BOOL ? (double)attr->i : 0.0;
}

// Out of range is C's undefined; PyTorch refuses such scalars before they come here, so saturating is as good as anything.
int64_t attr_int(const struct attr *attr)
{
    if (attr->kind != ATTR_FLOAT)
        return attr->kind == ATTR_INT || attr->kind == ATTR_BOOL ? attr->i : 0;
    return attr->f >= 9223372036854775807.0 ? INT64_MAX : attr->f <= -9223372036854775808.0 ? INT64_MIN : (int64_t)attr->f;
}
