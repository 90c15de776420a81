// Matrix products: out[b][i][j] = alpha * sum over k of x[b][i][k] * y[b][k][j] + beta * self, for mm, addmm, bmm, baddbmm, mv and dot.
//
// float32 goes to gemv (few rows) or gemm; half floats too, through float32 twins; float64 and integers take a plain loop. What the
// inner loops cannot address (an output whose rows are not dense) goes through dense twins in scratch.

#include "gpu_worker/kernels/cpu.h"

#include <string.h>

struct product {
    const struct tensor *x, *y, *self;    // self NULL: none
    double alpha, beta;
    int64_t alpha_int, beta_int;
};

static struct product product_of(const struct kernel_call *call)
{
    struct product p = {.alpha = 1, .beta = 1, .alpha_int = 1, .beta_int = 1};
    uint32_t op = call->op->number;
    bool adds = op == OP_ADDMM || op == OP_BADDBMM;
    p.x = &call->in[adds ? 1 : 0];
    p.y = &call->in[adds ? 2 : 1];
    if (adds) {
        p.beta = attr_double(&call->attr[0]);
        p.alpha = attr_double(&call->attr[1]);
        p.beta_int = attr_int(&call->attr[0]);
        p.alpha_int = attr_int(&call->attr[1]);
        p.self = p.beta == 0 ? NULL : &call->in[0];
    }
    return p;
}

// Sizes and steps of x, y, self and out as [batch, row, column], whatever their rank. A vector y is one row of the transposed
// problem: out^T = y^T x^T, so that m is 1.
struct view3 {
    int64_t size[3], stride[3];
};

static struct view3 view_of(const struct tensor_meta *meta)
{
    struct view3 v = {{1, 1, 1}, {0, 0, 0}};
    for (uint32_t d = 0; d < meta->rank; d++) {
        uint32_t at = 3 - meta->rank + d;
        v.size[at] = meta->size[d];
        v.stride[at] = meta->size[d] == 1 ? 0 : meta->stride[d];
    }
    return v;
}

// A dimension of size 1 may claim any step; the claims made here let the fast loops apply.
static int64_t step_of(const struct view3 *v, int d, int64_t if_one)
{
    return v->size[d] == 1 ? if_one : v->stride[d];
}

static struct gemm gemm_shape(const struct kernel_call *call, const struct product *p, const struct view3 *x,
                              const struct view3 *y, const struct view3 *self, const struct view3 *out)
{
    struct gemm g = {.alpha = (float)p->alpha, .beta = (float)p->beta};
    if (call->op->number == OP_MV || call->op->number == OP_DOT) {
        // x is [1 or m][k] and y a vector of k, both viewed from the right: y has rows of 1.
        g = (struct gemm){.batch = 1,
                          .m = 1,
                          .n = x->size[1],
                          .k = x->size[2],
                          .alpha = 1,
                          .a_k = step_of(y, 2, 1),
                          .b_k = step_of(x, 2, 1),
                          .b_n = step_of(x, 1, x->size[2]),
                          .c_m = x->size[1]};
        g.a_m = g.k;
        return g;
    }
    g.batch = out->size[0];
    g.m = out->size[1];
    g.n = out->size[2];
    g.k = x->size[2];
    g.a_batch = step_of(x, 0, 0);
    g.a_k = step_of(x, 2, 1);
    g.a_m = step_of(x, 1, g.k * i64_most(1, g.a_k));
    g.b_batch = step_of(y, 0, 0);
    g.b_n = step_of(y, 2, 1);
    g.b_k = step_of(y, 1, g.b_n == 1 ? g.n : 1);
    g.c_batch = step_of(out, 0, 0);
    g.c_m = step_of(out, 1, g.n);
    g.add_batch = self->stride[0];
    g.add_m = self->stride[1];
    g.add_n = self->stride[2];
    return g;
}

struct memory {
    void *x, *y, *self, *out;
    void *rest;    // for gemm or gemv
};

// Float32 from any float dtype. Strided float32 is read in place; other dtypes and awkward outputs get dense twins.
static struct gemm float_plan(const struct kernel_call *call, const struct product *p, struct scratch *scratch,
                              struct memory *ret)
{
    const struct tensor *out = &call->out[0];
    struct view3 x = view_of(&p->x->meta), y = view_of(&p->y->meta), o = view_of(&out->meta), self = {{1, 1, 1}, {0, 0, 0}};
    bool fill = scratch->data != NULL, is_f32 = out->meta.dtype == DTYPE_F32;
    struct tensor_meta dense;
    ret->x = p->x->data;
    ret->y = p->y->data;
    ret->out = out->data;
    if (!is_f32) {
        ret->x = dense_take(scratch, p->x, DTYPE_F32, fill, call->team);
        ret->y = dense_take(scratch, p->y, DTYPE_F32, fill, call->team);
        dense = p->x->meta, tensor_make_contiguous(&dense), x = view_of(&dense);
        dense = p->y->meta, tensor_make_contiguous(&dense), y = view_of(&dense);
    }
    if (p->self != NULL) {
        ret->self = p->self->data;
        dense = p->self->meta;
        if (dense.dtype != DTYPE_F32)
            ret->self = dense_take(scratch, p->self, DTYPE_F32, fill, call->team), tensor_make_contiguous(&dense);
        self = view_of(&dense);
    }
    if (!is_f32 || (o.size[2] > 1 && o.stride[2] != 1)) {
        ret->out = dense_take(scratch, out, DTYPE_F32, false, call->team);
        dense = out->meta, tensor_make_contiguous(&dense), o = view_of(&dense);
    }
    struct gemm g = gemm_shape(call, p, &x, &y, &self, &o);
    bool swapped = call->op->number == OP_MV || call->op->number == OP_DOT;
    g.a = swapped ? ret->y : ret->x;
    g.b = swapped ? ret->x : ret->y;
    g.add = p->self == NULL ? NULL : ret->self;
    g.c = ret->out;
    const struct tensor *b = swapped ? p->x : p->y;
    g.b_key = is_f32 && b->is_constant ? b->constant_key : 0;
    return g;
}

static size_t product_scratch(const struct gemm *g)
{
    if (g->m == 0 || g->n == 0 || g->k == 0 || g->batch == 0)
        return 0;
    return gemv_fits(g) ? gemv_scratch(g) : gemm_scratch(g);
}

static void fill_without_k(const struct gemm *g)
{
    for (int64_t b = 0; b < g->batch; b++)
        for (int64_t i = 0; i < g->m; i++)
            for (int64_t j = 0; j < g->n; j++)
                g->c[b * g->c_batch + i * g->c_m + j] = g->add == NULL
                                                            ? 0.0f
                                                            : g->beta * g->add[b * g->add_batch + i * g->add_m + j * g->add_n];
}

static enum dj_error float_run(const struct kernel_call *call, const struct product *p)
{
    struct scratch scratch = {.data = call->scratch};
    struct memory memory = {0};
    struct gemm g = float_plan(call, p, &scratch, &memory);

    if (g.k == 0)
        fill_without_k(&g);
    else if (g.m > 0 && g.n > 0 && g.batch > 0)
        (gemv_fits(&g) ? gemv_run : gemm_run)(&g, scratch.data == NULL ? NULL : scratch.data + scratch.used, call->team);
    dense_return(memory.out, DTYPE_F32, &call->out[0], call->team);
    return DJ_OK;
}

// The plain loop, over dense twins in the type that sums: float64, or int64 for every integer.
struct plain {
    struct gemm shape;
    double *xd, *yd, *sd, *od;
    int64_t *xi, *yi, *si, *oi;
    double alpha, beta;
    int64_t alpha_int, beta_int;
};

#define PLAIN_ROW(type, x, y, s, o, Alpha, Beta) \
    static void x##_row(void *context, uint32_t part) \
    { \
        const struct plain *p = context; \
        const struct gemm *g = &p->shape; \
        int64_t batch = part / g->m, row = part % g->m; \
        const type *a = p->x + batch * g->a_batch + row * g->a_m, *b = p->y + batch * g->b_batch; \
        type *c = p->o + batch * g->c_batch + row * g->c_m; \
        for (int64_t j = 0; j < g->n; j++) { \
            type sum = 0; \
            for (int64_t k = 0; k < g->k; k++) \
                sum = (type)(sum + a[k * g->a_k] * b[k * g->b_k + j * g->b_n]); \
            type more = p->s == NULL ? 0 : p->s[batch * g->add_batch + row * g->add_m + j * g->add_n]; \
            c[j] = (type)(p->Alpha * sum + p->Beta * more); \
        } \
    }
PLAIN_ROW(double, xd, yd, sd, od, alpha, beta)
#pragma GCC diagnostic push
PLAIN_ROW(int64_t, xi, yi, si, oi, alpha_int, beta_int)
#pragma GCC diagnostic pop

static enum dtype plain_dtype(const struct kernel_call *call)
{
    return call->out[0].meta.dtype == DTYPE_F64 ? DTYPE_F64 : DTYPE_I64;
}

static void plain_memory(const struct kernel_call *call, const struct product *p, struct scratch *scratch, struct memory *ret)
{
    enum dtype dtype = plain_dtype(call);
    bool fill = scratch->data != NULL;
    ret->x = dense_take(scratch, p->x, dtype, fill, call->team);
    ret->y = dense_take(scratch, p->y, dtype, fill, call->team);
    ret->self = p->self == NULL ? NULL : dense_take(scratch, p->self, dtype, fill, call->team);
    ret->out = dense_take(scratch, &call->out[0], dtype, false, call->team);
}

static enum dj_error plain_run(const struct kernel_call *call, const struct product *p)
{
    struct scratch scratch = {.data = call->scratch};
    struct memory memory;
    plain_memory(call, p, &scratch, &memory);
    struct tensor_meta x = p->x->meta, y = p->y->meta, o = call->out[0].meta, s = p->self == NULL ? p->x->meta : p->self->meta;
    tensor_make_contiguous(&x);
    tensor_make_contiguous(&y);
    tensor_make_contiguous(&o);
    tensor_make_contiguous(&s);
    struct view3 vx = view_of(&x), vy = view_of(&y), vo = view_of(&o), vs = view_of(&s);
    struct plain plain = {.shape = gemm_shape(call, p, &vx, &vy, &vs, &vo),
                          .alpha = p->alpha,
                          .beta = p->beta,
                          .alpha_int = p->alpha_int,
                          .beta_int = p->beta_int};
    bool swapped = call->op->number == OP_MV || call->op->number == OP_DOT, is_f64 = plain_dtype(call) == DTYPE_F64;
    void *a = swapped ? memory.y : memory.x, *b = swapped ? memory.x : memory.y;
    plain.xd = a, plain.yd = b, plain.sd = memory.self, plain.od = memory.out;
    plain.xi = a, plain.yi = b, plain.si = memory.self, plain.oi = memory.out;
    team_run(call->team, (uint32_t)(plain.shape.batch * plain.shape.m), is_f64 ? xd_row : xi_row, &plain);
    dense_return(memory.out, plain_dtype(call), &call->out[0], call->team);
    return DJ_OK;
}

static bool is_plain(const struct kernel_call *call)
{
    enum dtype dtype = call->out[0].meta.dtype;
    return dtype == DTYPE_F64 || dtype_is_integral(dtype);
}

static bool matmul_can(const struct kernel_call *call)
{
    struct product p = product_of(call);
    enum dtype dtype = call->out[0].meta.dtype;
    return (dtype_is_float(dtype) || dtype_is_integral(dtype)) && p.x->meta.dtype == dtype && p.y->meta.dtype == dtype &&
           (p.self == NULL || dtype_is_real(p.self->meta.dtype));
}

static size_t matmul_scratch(const struct kernel_call *call)
{
    struct product p = product_of(call);
    struct scratch scratch = {0};
    struct memory memory;
    if (is_plain(call)) {
        plain_memory(call, &p, &scratch, &memory);
        return scratch.used;
    }
    struct gemm g = float_plan(call, &p, &scratch, &memory);
    return scratch.used + product_scratch(&g);
}

static enum dj_error matmul_run(const struct kernel_call *call)
{
    struct product p = product_of(call);
    return is_plain(call) ? plain_run(call, &p) : float_run(call, &p);
}

void table_matmul(struct kernel *kernel)
{
    static const enum op ops[] = {OP_MM, OP_ADDMM, OP_BMM, OP_BADDBMM, OP_DOT, OP_MV};
    for (size_t i = 0; i < sizeof ops / sizeof ops[0]; i++)
        kernel[ops[i]] = (struct kernel){.run = matmul_run, .scratch = matmul_scratch, .can = matmul_can};
}
