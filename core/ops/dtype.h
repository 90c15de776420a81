// Dtype: the element types, their sizes and PyTorch's promotion lattice.

#ifndef CORE_OPS_DTYPE_H
#define CORE_OPS_DTYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Numbers cross the wire and the disk: never reused.
enum dtype {
    DTYPE_NONE = 0,         // an absent optional tensor, or "not asked for"
    DTYPE_BOOL = 1,         // one byte, 0 or 1
    DTYPE_U8 = 2,
    DTYPE_I8 = 3,
    DTYPE_I16 = 4,
    DTYPE_I32 = 5,
    DTYPE_I64 = 6,
    DTYPE_F16 = 7,
    DTYPE_BF16 = 8,
    DTYPE_F32 = 9,
    DTYPE_F64 = 10,
    DTYPE_C64 = 11,         // complex dtypes can be stored, moved and viewed; no kernel computes with them
    DTYPE_C128 = 12,
    DTYPE_COUNT
};

size_t dtype_bytes(enum dtype dtype);                       // 0 for DTYPE_NONE and unknown numbers
const char *dtype_name(enum dtype dtype);                   // PyTorch's: "float32", "int64", "bool"; "none"
bool dtype_parse(const char *name, enum dtype *ret);
static inline bool dtype_is_known(uint64_t number) { return number > DTYPE_NONE && number < DTYPE_COUNT; }
static inline bool dtype_is_float(enum dtype d) { return d >= DTYPE_F16 && d <= DTYPE_F64; }
static inline bool dtype_is_complex(enum dtype d) { return d == DTYPE_C64 || d == DTYPE_C128; }
static inline bool dtype_is_integral(enum dtype d) { return d >= DTYPE_U8 && d <= DTYPE_I64; }   // without bool

// The least upper bound of two dtypes in PyTorch's lattice (torch.promote_types).
enum dtype dtype_promote(enum dtype a, enum dtype b);

#endif
