// Dtype: the element types as three small tables; the lattice is PyTorch's, written out so that it can be compared by eye.

#include "core/ops/dtype.h"

#include <string.h>

static const uint8_t bytes_of[DTYPE_COUNT] = {
    [DTYPE_BOOL] = 1, [DTYPE_U8] = 1,   [DTYPE_I8] = 1,  [DTYPE_I16] = 2, [DTYPE_I32] = 4, [DTYPE_I64] = 8,
    [DTYPE_F16] = 2,  [DTYPE_BF16] = 2, [DTYPE_F32] = 4, [DTYPE_F64] = 8, [DTYPE_C64] = 8, [DTYPE_C128] = 16,
};

static const char *const name_of[DTYPE_COUNT] = {
    [DTYPE_NONE] = "none",       [DTYPE_BOOL] = "bool",   [DTYPE_U8] = "uint8",    [DTYPE_I8] = "int8",
    [DTYPE_I16] = "int16",       [DTYPE_I32] = "int32",   [DTYPE_I64] = "int64",   [DTYPE_F16] = "float16",
    [DTYPE_BF16] = "bfloat16",   [DTYPE_F32] = "float32", [DTYPE_F64] = "float64", [DTYPE_C64] = "complex64",
    [DTYPE_C128] = "complex128",
};

#define b1 DTYPE_BOOL
#define u1 DTYPE_U8
#define i1 DTYPE_I8
#define i2 DTYPE_I16
#define i4 DTYPE_I32
#define i8 DTYPE_I64
#define f2 DTYPE_F16
#define bf DTYPE_BF16
#define f4 DTYPE_F32
#define f8 DTYPE_F64
#define c8 DTYPE_C64
#define cc DTYPE_C128

// Rows and columns in the order of the enumeration, without DTYPE_NONE.
static const uint8_t lattice[DTYPE_COUNT - 1][DTYPE_COUNT - 1] = {
    //       b1  u1  i1  i2  i4  i8  f2  bf  f4  f8  c8  cc
    /*b1*/ {b1, u1, i1, i2, i4, i8, f2, bf, f4, f8, c8, cc},
    /*u1*/ {u1, u1, i2, i2, i4, i8, f2, bf, f4, f8, c8, cc},
    /*i1*/ {i1, i2, i1, i2, i4, i8, f2, bf, f4, f8, c8, cc},
    /*i2*/ {i2, i2, i2, i2, i4, i8, f2, bf, f4, f8, c8, cc},
    /*i4*/ {i4, i4, i4, i4, i4, i8, f2, bf, f4, f8, c8, cc},
    /*i8*/ {i8, i8, i8, i8, i8, i8, f2, bf, f4, f8, c8, cc},
    /*f2*/ {f2, f2, f2, f2, f2, f2, f2, f4, f4, f8, c8, cc},
    /*bf*/ {bf, bf, bf, bf, bf, bf, f4, bf, f4, f8, c8, cc},
    /*f4*/ {f4, f4, f4, f4, f4, f4, f4, f4, f4, f8, c8, cc},
    /*f8*/ {f8, f8, f8, f8, f8, f8, f8, f8, f8, f8, cc, cc},
    /*c8*/ {c8, c8, c8, c8, c8, c8, c8, c8, c8, cc, c8, cc},
    /*cc*/ {cc, cc, cc, cc, cc, cc, cc, cc, cc, cc, cc, cc},
};

size_t dtype_bytes(enum dtype dtype)
{
    return dtype_is_known((uint64_t)dtype) ? bytes_of[dtype] : 0;
}

const char *dtype_name(enum dtype dtype)
{
    return (uint64_t)dtype < DTYPE_COUNT ? name_of[dtype] : "unknown";
}

bool dtype_parse(const char *name, enum dtype *ret)
{
    for (uint32_t i = DTYPE_NONE + 1; i < DTYPE_COUNT; i++) {
        if (strcmp(name, name_of[i]) == 0) {
            *ret = (enum dtype)i;
            return true;
        }
    }
    return false;
}

enum dtype dtype_promote(enum dtype a, enum dtype b)
{
    if (!dtype_is_known((uint64_t)a))
        return dtype_is_known((uint64_t)b) ? b : DTYPE_NONE;
    if (!dtype_is_known((uint64_t)b))
        return a;
    return (enum dtype)lattice[a - 1][b - 1];
}
