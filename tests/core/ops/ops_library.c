// The op table for Python's ctypes: the functions of op.h under names that the library shows. test_meta.py mirrors the structs; the
// sizes below let it notice when it no longer does.

#include "core/ops/op.h"

#define SHOWN __attribute__((visibility("default")))

SHOWN void ops_library_init(size_t sizes[4]);
SHOWN uint32_t ops_library_count(void);
SHOWN const struct op_info *ops_library_row(uint32_t row, const char **name, const char **aten, const char **signature,
                                            uint32_t *outputs, uint32_t *flags);
SHOWN int ops_library_infer(const struct op_call *call, struct op_result *ret, struct fault *fault);
SHOWN int ops_library_check(const struct tensor_meta *meta, struct fault *fault);
SHOWN int ops_library_compute_dtype(const struct op_call *call);
SHOWN int ops_library_promote(int a, int b);

void ops_library_init(size_t sizes[4])
{
    ops_init();
    sizes[0] = sizeof(struct tensor_meta);
    sizes[1] = sizeof(struct attr);
    sizes[2] = sizeof(struct op_call);
    sizes[3] = sizeof(struct op_result);
}

uint32_t ops_library_count(void)
{
    return op_count();
}

const struct op_info *ops_library_row(uint32_t row, const char **name, const char **aten, const char **signature,
                                      uint32_t *outputs, uint32_t *flags)
{
    const struct op_info *info = op_at(row);
    *name = info->name;
    *aten = info->aten;
    *signature = info->signature;
    *outputs = info->outputs;
    *flags = info->flags;
    return info;
}

int ops_library_infer(const struct op_call *call, struct op_result *ret, struct fault *fault)
{
    return (int)op_infer(call, ret, fault);
}

int ops_library_check(const struct tensor_meta *meta, struct fault *fault)
{
    return (int)tensor_check(meta, fault);
}

int ops_library_compute_dtype(const struct op_call *call)
{
    return (int)op_compute_dtype(call);
}

int ops_library_promote(int a, int b)
{
    return (int)dtype_promote((enum dtype)a, (enum dtype)b);
}
