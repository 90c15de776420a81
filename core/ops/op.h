// Ops: the table of everything that a node can be (ops.def), and shape, stride, dtype and cost inference shared by clients,
// the head and workers. Pure; reentrant; nothing here allocates.
//
// Signature language of ops.def (one string a row, parsed once by ops_init and by the PyTorch shim): space-separated arguments in
// the order of the ATen schema, each `name:kind`:
//   T tensor   T? optional tensor   T[] list of tensors   T?[] list of optional tensors
//   i int   b bool   f float   n scalar (bool, int or float: its kind is static)   i[] list of ints   e enumeration (see enum below)
//   a trailing `?` makes i b f n i[] optional (absence is static); a leading `!` marks a static attribute (part of the
//   fingerprint); attributes without it are bound (part of the bindings). List lengths are always static.
//   `_` an ATen argument that is not carried (layout, device, pin_memory, dtype, generator): the result dtype is carried by the
//   node itself.
// Where the aten name is "" or the row has the flag MANUAL, the frontend lowers by hand.

#ifndef CORE_OPS_OP_H
#define CORE_OPS_OP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/error.h"
#include "core/ops/tensor.h"

enum op {
    OP_NONE = 0,
#define OP(number, NAME, aten, signature, outputs, infer, dtype_rule, cost, flags) OP_##NAME = number,
#include "core/ops/ops.def"
#undef OP
    OP_LIMIT = 512                      // numbers are below this
};

enum op_flag {
    OP_DET = 1,             // every backend's kernel for it must be deterministic
    OP_IS_VIEW = 2,         // the output shares the first input's storage: metadata only (ATen's `view` itself is OP_VIEW_SIZES)
    OP_RANDOM = 4,          // takes seed and offset attributes (Philox)
    OP_SIZED = 8,           // the output size depends on data: the recorder cuts there
    OP_MANUAL = 16,         // the frontend lowers it by hand
    OP_CREATES = 32,        // takes no tensor: needs to be told sizes
};

enum {
    OP_ATTRS_MAX = 10,
    OP_OUTPUTS_MAX = 4,
    OP_INPUTS_MAX = 1024,   // flattened
    ATTR_INTS_MAX = 32,
};

enum attr_kind { ATTR_ABSENT, ATTR_INT, ATTR_BOOL, ATTR_FLOAT, ATTR_INTS };

// One attribute's value. Enumerations are ATTR_INT.
struct attr {
    uint8_t kind;
    uint8_t count;                      // of ints
    union {
        int64_t i;                      // INT, BOOL (0 or 1)
        double f;                       // FLOAT
        const int64_t *ints;            // INTS; not owned
    };
};

// Enumerations that attributes carry. Numbers are PyTorch's where it has them.
enum memory_format { FORMAT_CONTIGUOUS = 0, FORMAT_PRESERVE = 1, FORMAT_CHANNELS_LAST = 2, FORMAT_CHANNELS_LAST_3D = 3 };
enum gelu_form { GELU_NONE = 0, GELU_TANH = 1 };
enum rounding { ROUND_NONE = 0, ROUND_TRUNC = 1, ROUND_FLOOR = 2 };
enum reduction { REDUCTION_NONE = 0, REDUCTION_MEAN = 1, REDUCTION_SUM = 2 };      // of losses

enum arg_kind { ARG_TENSOR, ARG_TENSOR_OPT, ARG_TENSORS, ARG_TENSORS_OPT, ARG_INT, ARG_BOOL, ARG_FLOAT, ARG_SCALAR, ARG_INTS, ARG_ENUM, ARG_IGNORED };

struct op_arg {
    char name[20];
    uint8_t kind;                       // enum arg_kind
    bool is_optional, is_static;
    int8_t attr;                        // its position among the attributes, -1 for tensors and ignored arguments
};

enum { OP_ARGS_MAX = 16 };

struct op_info {
    uint16_t number;
    uint8_t flags;                      // enum op_flag
    uint8_t outputs;                    // 1 to OP_OUTPUTS_MAX
    uint8_t args, attrs;                // counts
    uint8_t inputs_min;                 // tensor arguments, a list counted once
    const char *name;                   // "ADD"
    const char *aten;                   // "add.Tensor", or ""
    const char *signature;
    struct op_arg arg[OP_ARGS_MAX];
};

// Parses the table; call once at start-up, before threads (idempotent). Aborts on a malformed row: that is a bug in the build.
void ops_init(void);
const struct op_info *op_info(uint32_t number);                     // NULL when no op has this number
const struct op_info *op_find(const char *name);                    // by name or by aten name; NULL when there is none
uint32_t op_count(void);                                            // rows in the table
const struct op_info *op_at(uint32_t row);                          // 0 <= row < op_count(), in the order of the table

// One call of an op, with list arguments flattened into `in` in the order of the signature. For ops with one list argument all
// inputs that are not other arguments belong to it.
struct op_call {
    const struct op_info *op;
    const struct tensor_meta *in;       // absent optional tensors have dtype DTYPE_NONE
    const bool *in_is_scalar;           // wrapped Python numbers (rank 0; bool, int64 or float64), which promote weakly; NULL: none
    uint32_t n_in;
    const struct attr *attr;            // op->attrs of them
    enum dtype dtype;                   // the result dtype that was decided when recorded; DTYPE_NONE: derive it (PyTorch's rules)
    enum dtype default_dtype;           // for int division and the like: torch.get_default_dtype(); DTYPE_NONE means float32
};

struct op_result {
    struct tensor_meta out[OP_OUTPUTS_MAX];
    int64_t view_offset[OP_OUTPUTS_MAX];    // for views: elements from the input's first element to the output's
};

// Infers the outputs of a call (rank elements of size and stride are written, no more; view_offset only for views; on failure *ret is
// undefined, which spares a copy on the recording path), or says why it is not valid (DJ_E_SHAPE, DJ_E_DTYPE, DJ_E_INDEX, DJ_E_OVERFLOW, DJ_E_RANK,
// DJ_E_BINDINGS_INVALID). Sizes and strides are exactly those that PyTorch's meta kernels give. Safe on hostile attributes as long as
// the input metas passed tensor_check; outputs pass it too. `fault` may be NULL. Tens of nanoseconds for common ops. What differs from
// PyTorch on purpose is listed in README.md.
DJ_MUST_USE enum dj_error op_infer(const struct op_call *call, struct op_result *ret, struct fault *fault);

// The dtype in which a pointwise op computes before it converts to the result dtype (e.g. comparisons: the promoted inputs).
enum dtype op_compute_dtype(const struct op_call *call);

struct op_cost { double flops, bytes_read, bytes_written; };
struct op_cost op_cost(const struct op_call *call, const struct op_result *result);

#endif
