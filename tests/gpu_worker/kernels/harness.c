// Harness: a backend's kernels (harness_backend.h) behind a flat C interface, for test_*.py and tests/bench/kernels.py (ctypes). Tensors arrive
// as records of int64, attributes as records and a pool of ints; output sizes and strides are inferred by core/ops or given by the caller.

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/ops/op.h"
#include "gpu_worker/kernels/kernel.h"
#include "tests/gpu_worker/kernels/harness_backend.h"

#define EXPORT __attribute__((visibility("default")))

enum { TENSORS_MAX = 64, TEAMS_MAX = 16 };

// data, dtype, rank, is_scalar, constant_key, sizes, strides
struct flat_tensor {
    int64_t data, dtype, rank, is_scalar, constant_key, size[DJ_RANK_MAX], stride[DJ_RANK_MAX];
};
// kind, integer, float, count and first of ints
struct flat_attr {
    int64_t kind, i;
    double f;
    int64_t count, first;
};

struct flat_call {
    int64_t op, n_in, n_out, n_attr, dtype, compute, threads, repeat;
    struct flat_tensor *in, *out;
    struct flat_attr *attr;
    int64_t *ints;
    double best_ns;
    char text[FAULT_TEXT_MAX];
};

static struct team *teams[TEAMS_MAX];

static struct team *team_of(int64_t threads)
{
    if (threads < 2 || threads >= TEAMS_MAX)
        return NULL;
    if (teams[threads] == NULL && team_make((uint32_t)threads, &teams[threads]) != DJ_OK)
        return NULL;
    return teams[threads];
}

static void tensor_of(const struct flat_tensor *flat, struct tensor *ret)
{
    memset(ret, 0, sizeof *ret);
    ret->data = (void *)(uintptr_t)flat->data;
    ret->meta.dtype = (enum dtype)flat->dtype;
    ret->meta.rank = (uint32_t)flat->rank;
    memcpy(ret->meta.size, flat->size, sizeof flat->size);
    memcpy(ret->meta.stride, flat->stride, sizeof flat->stride);
    ret->is_scalar = flat->is_scalar != 0;
    ret->is_constant = flat->constant_key != 0;
    ret->constant_key = (uint64_t)flat->constant_key;
}

struct call_memory {
    struct tensor in[TENSORS_MAX], out[OP_OUTPUTS_MAX];
    struct tensor_meta meta[TENSORS_MAX];
    bool is_scalar[TENSORS_MAX];
    struct attr attr[OP_ATTRS_MAX];
    struct op_call op_call;
    struct kernel_call call;
    struct fault fault;
};

static void build(struct flat_call *flat, struct call_memory *m)
{
    memset(m, 0, sizeof *m);
    for (int64_t i = 0; i < flat->n_in; i++) {
        tensor_of(&flat->in[i], &m->in[i]);
        m->meta[i] = m->in[i].meta;
        m->is_scalar[i] = m->in[i].is_scalar;
    }
    for (int64_t i = 0; i < flat->n_out; i++)
        tensor_of(&flat->out[i], &m->out[i]);
    for (int64_t i = 0; i < flat->n_attr; i++) {
        struct attr *a = &m->attr[i];
        a->kind = (uint8_t)flat->attr[i].kind;
        a->count = (uint8_t)flat->attr[i].count;
        if (a->kind == ATTR_FLOAT)
            a->f = flat->attr[i].f;
        else if (a->kind == ATTR_INTS)
            a->ints = flat->ints + flat->attr[i].first;
        else
            a->i = flat->attr[i].i;
    }
    m->op_call = (struct op_call){.op = op_info((uint32_t)flat->op),
                                  .in = m->meta,
                                  .in_is_scalar = m->is_scalar,
                                  .n_in = (uint32_t)flat->n_in,
                                  .attr = m->attr,
                                  .dtype = (enum dtype)flat->dtype};
    m->call = (struct kernel_call){.op = m->op_call.op,
                                   .in = m->in,
                                   .n_in = (uint32_t)flat->n_in,
                                   .out = m->out,
                                   .n_out = (uint32_t)flat->n_out,
                                   .attr = m->attr,
                                   .team = team_of(flat->threads),
                                   .fault = &m->fault,
                                   .compute = flat->compute ? (enum dtype)flat->compute : op_compute_dtype(&m->op_call)};
}

EXPORT const char *harness_numerics(void)
{
    ops_init();
    return backend_numerics();
}

EXPORT int harness_op(const char *name)
{
    ops_init();
    const struct op_info *info = op_find(name);
    return info == NULL ? 0 : (int)info->number;
}

EXPORT int harness_attrs(int op)
{
    ops_init();
    return op_info((uint32_t)op)->attrs;
}

// Fills the outputs' dtypes, sizes and strides; the number of outputs is left in n_out.
EXPORT int harness_infer(struct flat_call *flat)
{
    static struct call_memory m;
    struct op_result result;
    ops_init();
    build(flat, &m);
    enum dj_error error = op_infer(&m.op_call, &result, &m.fault);
    memcpy(flat->text, m.fault.text, sizeof flat->text);
    if (error != DJ_OK)
        return (int)error;
    flat->n_out = m.op_call.op->outputs;
    for (int64_t i = 0; i < flat->n_out; i++) {
        flat->out[i].dtype = (int64_t)result.out[i].dtype;
        flat->out[i].rank = result.out[i].rank;
        memcpy(flat->out[i].size, result.out[i].size, sizeof result.out[i].size);
        memcpy(flat->out[i].stride, result.out[i].stride, sizeof result.out[i].stride);
    }
    return DJ_OK;
}

static double now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

// Runs the call `repeat` times (at least once) and keeps the shortest time. -1: no kernel; -2: `can` says no.
EXPORT int harness_call(struct flat_call *flat)
{
    static struct call_memory m;
    ops_init();
    if (!backend_has((uint32_t)flat->op))
        return -1;
    build(flat, &m);
    if (!backend_can(&m.call))
        return -2;
    m.call.scratch_bytes = backend_scratch(&m.call);
    size_t bytes = (m.call.scratch_bytes + 63) / 64 * 64;
    char *memory = bytes == 0 ? NULL : aligned_alloc(64, bytes + 64);
    if (memory != NULL) {
        memset(memory, 0xff, bytes);    // NaNs: what is used before it is written shows
        memset(memory + bytes, 0x5a, 64);
    }
    m.call.scratch = memory;

    enum dj_error error = DJ_OK;
    flat->best_ns = 1e30;
    for (int64_t i = 0; i < (flat->repeat < 1 ? 1 : flat->repeat) && error == DJ_OK; i++) {
        double start = now_ns();
        error = backend_run(&m.call);
        double ns = now_ns() - start;
        flat->best_ns = ns < flat->best_ns ? ns : flat->best_ns;
    }
    memcpy(flat->text, m.fault.text, sizeof flat->text);
    for (size_t i = 0; memory != NULL && i < 64; i++)
        if (memory[bytes + i] != 0x5a)
            return -3;    // wrote past its scratch
    free(memory);
    return (int)error;
}
