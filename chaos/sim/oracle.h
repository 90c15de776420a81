// Oracle: what a program's tensors must hold, worked out at once, in plain memory, one op after the other. No plan, no flush, no donation, no
// other process: so whatever a client reads must equal what lies here, or something between the two is wrong.
//
// A storage is a flat row of elements in the geometry that the recorder told; a window (struct dj_tensor) shows some of them. Views are windows,
// writes change elements, every other op gives a fresh storage by value.h's function of its inputs.

#ifndef CHAOS_SIM_ORACLE_H
#define CHAOS_SIM_ORACLE_H

#include <stdint.h>

#include "core/ops/op.h"
#include "frontend/client/recorder/recorder.h"

struct shadow {
    uint32_t holders;
    enum dtype dtype;
    int64_t elements;
    uint8_t *bytes;
};

struct shadow *shadow_hold(struct shadow *shadow);
void shadow_drop(struct shadow *shadow);    // NULL is allowed

// A fresh storage that shows `dense` (row-major) through the window.
struct shadow *shadow_of(const struct dj_tensor *window, const void *dense);
// The window's elements, row-major, in memory that the caller frees.
uint8_t *shadow_read(const struct shadow *shadow, const struct dj_tensor *window, size_t *ret_bytes);
void shadow_write(struct shadow *shadow, const struct dj_tensor *window, const void *dense);

// One op on windows of shadows: ret[o] shows what out[o], the window that was recorded, must hold. Aborts on what the op does not take.
struct oracle_input {
    const struct shadow *shadow;
    const struct dj_tensor *window;
    int32_t scalar_dtype;
    int64_t scalar;
};    // shadow NULL: a scalar
void oracle_run(const struct op_info *op, const struct oracle_input *in, uint32_t n_in, const struct dj_attr *attr,
                const struct dj_tensor *out, struct shadow *ret[OP_OUTPUTS_MAX]);

#endif
