// Reductions: out[kept] = fold over the reduced dimensions of in[kept, reduced], for sum, mean, prod, max, min, arg max, any, all,
// variance and vector norms.
//
// Everything folds in one of three types: float32 (inner sums by simd, blocks added in double), float64, or int64 for integers and bool.
// An output element reads its inputs in their logical order, block by block, through a converted copy where they are strided or of
// another dtype. Sums of float32 that keep the innermost dimension fold whole rows side by side instead. Which of the two, and where
// blocks end, is fixed by the shape; strides decide only whether a block is copied.

#include "gpu_worker/kernels/cpu.h"

#include <math.h>
#include <string.h>

#include "core/base/bits.h"

enum { FOLD_BLOCK = 4096, COLUMN_BLOCK = 256, PART_INPUTS = 1 << 15 };

// What has been folded so far. Float folds use f, integer ones i; `index` counts elements of the reduced space.
struct state {
    double f, g;
    int64_t i, at, count;
    bool is_started;
};

typedef void (*fold_function)(struct state *s, const void *block, int64_t n, int64_t first, double parameter);

struct reduce {
    uint32_t op;
    enum dtype in, fold, out;    // dtypes; fold is F32, F64 or I64
    fold_function run;
    double parameter;    // the norm's order; var's correction
    int64_t length;      // reduced elements for each output
    bool wants_index, wants_value;
    uint32_t reduced_rank;
    int64_t reduced_size[DJ_RANK_MAX], reduced_step[DJ_RANK_MAX];
    struct team *team;
};

static void sum_f32(struct state *s, const void *block, int64_t n, int64_t first, double parameter)
{
    (void)first, (void)parameter;
    s->f += simd()->sum(block, n);
}

#define FOLD(name, type, ...) \
    static void name(struct state *s, const void *block, int64_t n, int64_t first, double parameter) \
    { \
        const type *x = block; \
        (void)first, (void)parameter; \
        for (int64_t j = 0; j < n; j++) { \
            __VA_ARGS__; \
        } \
    }
FOLD(sum_f64, double, s->f += x[j])
FOLD(sum_i64, int64_t, s->i = (int64_t)((uint64_t)s->i + (uint64_t)x[j]))
FOLD(prod_f32, float, s->f *= (double)x[j])
FOLD(prod_f64, double, s->f *= x[j])
FOLD(prod_i64, int64_t, s->i = (int64_t)((uint64_t)s->i * (uint64_t)x[j]))
FOLD(any_f32, float, s->i |= x[j] != 0)
FOLD(any_f64, double, s->i |= x[j] != 0)
FOLD(any_i64, int64_t, s->i |= x[j] != 0)
FOLD(all_f32, float, s->i &= x[j] != 0)
FOLD(all_f64, double, s->i &= x[j] != 0)
FOLD(all_i64, int64_t, s->i &= x[j] != 0)
// The first NaN wins and stays; else the first of the best.
#define BEST(name, type, is_better, field) \
    FOLD(name, type, if (!s->is_started || (s->field == s->field && (x[j] is_better s->field || x[j] != x[j]))) s->field = x[j], \
         s->at = first + j, s->is_started = true)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wtautological-compare"
#pragma GCC diagnostic ignored "-Wdouble-promotion"
BEST(max_f64, double, >, f)
BEST(min_f32, float, <, f)
BEST(min_f64, double, <, f)
BEST(max_i64, int64_t, >, i)
BEST(min_i64, int64_t, <, i)
#pragma GCC diagnostic pop

// The largest by simd, then its position if it is new.
static void max_f32(struct state *s, const void *block, int64_t n, int64_t first, double parameter)
{
    const float *x = block;
    float top = simd()->max(x, n);
    (void)parameter;
    if (n == 0 || (s->is_started && (s->f != s->f || (top == top && (double)top <= s->f))))
        return;
    int64_t at = 0;
    while (at + 1 < n && x[at] != top && x[at] == x[at])
        at++;
    s->f = (double)top;
    s->at = first + at;
    s->is_started = true;
}

// Welford's update, so that a large mean costs no digits: f the mean, g the sum of squared differences.
#define VARIANCE(name, type) \
    FOLD(name, type, double d = (double)x[j] - s->f; s->count++; s->f += d / (double)s->count; s->g += d * ((double)x[j] - s->f))
VARIANCE(var_f32, float)
VARIANCE(var_f64, double)

static void norm_step(struct state *s, double x, double order)
{
    double a = fabs(x);
    if (order == 2)
        s->f += a * a;
    else if (order == 1)
        s->f += a;
    else if (order == 0)
        s->f += a != 0;
    else if (isinf(order))
        s->f = !s->is_started || a != a || (s->f == s->f && (order > 0 ? a > s->f : a < s->f)) ? a : s->f;
    else
        s->f += pow(a, order);
    s->is_started = true;
}
FOLD(norm_f32, float, norm_step(s, (double)x[j], parameter))
FOLD(norm_f64, double, norm_step(s, x[j], parameter))

static fold_function choose(uint32_t op, enum dtype fold)
{
#define BY_TYPE(name) (fold == DTYPE_F32 ? name##_f32 : fold == DTYPE_F64 ? name##_f64 : name##_i64)
    switch (op) {
    case OP_SUM:
    case OP_SUM_DIM:
    case OP_MEAN:
    case OP_MEAN_DIM: return BY_TYPE(sum);
    case OP_PROD: return BY_TYPE(prod);
    case OP_AMAX:
    case OP_MAX:
    case OP_MAX_DIM:
    case OP_ARGMAX: return BY_TYPE(max);
    case OP_AMIN:
    case OP_MIN:
    case OP_MIN_DIM:
    case OP_ARGMIN: return BY_TYPE(min);
    case OP_ANY:
    case OP_ANY_DIM: return BY_TYPE(any);
    case OP_ALL:
    case OP_ALL_DIM: return BY_TYPE(all);
    case OP_VAR: return fold == DTYPE_F32 ? var_f32 : fold == DTYPE_F64 ? var_f64 : NULL;
    case OP_NORM_DIM: return fold == DTYPE_F32 ? norm_f32 : fold == DTYPE_F64 ? norm_f64 : NULL;
    default: return NULL;
    }
}

static struct state start(const struct reduce *r)
{
    struct state s = {0};
    if (r->op == OP_PROD)
        s.f = 1, s.i = 1;
    if (r->op == OP_ALL || r->op == OP_ALL_DIM)
        s.i = 1;
    return s;
}

// The value of a finished fold, as a double or an int64 (*is_float).
static double finish(const struct reduce *r, const struct state *s, int64_t *whole, bool *is_float)
{
    *is_float = r->fold != DTYPE_I64;
    *whole = s->i;
    switch (r->op) {
    case OP_ANY:
    case OP_ANY_DIM:
    case OP_ALL:
    case OP_ALL_DIM: *is_float = false; return 0;
    case OP_MEAN:
    case OP_MEAN_DIM: return s->f / (double)r->length;
    case OP_VAR: {
        double freedom = (double)r->length - r->parameter;
        return s->g / (freedom > 0 ? freedom : 0.0);
    }
    case OP_NORM_DIM:
        return r->parameter == 2                                               ? sqrt(s->f)
               : r->parameter == 0 || r->parameter == 1 || isinf(r->parameter) ? s->f
                                                                               : pow(s->f, 1.0 / r->parameter);
    default: return s->f;
    }
}

static void store(const struct reduce *r, const struct state *s, char *value, char *index)
{
    int64_t whole;
    bool is_float;
    double f = finish(r, s, &whole, &is_float);
    if (r->wants_value)
        convert_find(is_float ? DTYPE_F64 : DTYPE_I64, r->out)(is_float ? (const char *)&f : (const char *)&whole, 0, value, 0,
                                                               1);
    if (r->wants_index)
        memcpy(index, &s->at, sizeof s->at);
}

// Element `index` of the reduced space, `at` being its first.
static const char *element_at(const struct reduce *r, const char *at, int64_t index)
{
    for (uint32_t d = r->reduced_rank; d-- > 1; index /= r->reduced_size[d])
        at += index % r->reduced_size[d] * r->reduced_step[d];
    return at + index * r->reduced_step[0];
}

// Folds elements [first, last) of the reduced space, FOLD_BLOCK at a time: what a block holds depends on sizes alone, not on which
// dimensions the strides let merge.
static void fold_range(const struct reduce *r, struct state *s, const char *at, int64_t first, int64_t last)
{
    const uint32_t inner = r->reduced_rank - 1;
    const int64_t run = r->reduced_size[inner], step = r->reduced_step[inner], bytes = (int64_t)dtype_bytes(r->fold);
    const bool is_direct = r->in == r->fold && step == bytes;
    convert_function convert = convert_find(r->in, r->fold);
    _Alignas(64) char block[FOLD_BLOCK * 8];
    for (int64_t i = first, count; i < last; i += count) {
        count = i64_least(FOLD_BLOCK, last - i);
        if (is_direct && i % run + count <= run) {
            r->run(s, element_at(r, at, i), count, i, r->parameter);
            continue;
        }
        for (int64_t filled = 0, n; filled < count; filled += n) {
            n = i64_least(count - filled, run - (i + filled) % run);
            convert(element_at(r, at, i + filled), step, block + filled * bytes, bytes, n);
        }
        r->run(s, block, count, i, r->parameter);
    }
}

// Operands of the loop over kept dimensions: value output, input, index output.
static void reduce_row(void *context, char *const at[], const int64_t step[], int64_t n)
{
    const struct reduce *r = context;
    for (int64_t j = 0; j < n; j++) {
        struct state s = start(r);
        fold_range(r, &s, at[1] + j * step[1], 0, r->length);
        store(r, &s, at[0] + j * step[0], at[2] + j * step[2]);
    }
}

// Sums of float32 columns, side by side; each is one chain of sums in double.
static void column_row(void *context, char *const at[], const int64_t step[], int64_t n)
{
    const struct reduce *r = context;
    double sum[COLUMN_BLOCK];
    for (int64_t first = 0; first < n; first += COLUMN_BLOCK) {
        int64_t width = i64_least(COLUMN_BLOCK, n - first);
        memset(sum, 0, sizeof sum);
        for (int64_t i = 0; i < r->length; i++) {
            const char *x = element_at(r, at[1] + first * step[1], i);
            if (step[1] == sizeof(float))
                for (int64_t j = 0; j < width; j++)
                    sum[j] += (double)((const float *)(const void *)x)[j];
            else
                for (int64_t j = 0; j < width; j++)
                    sum[j] += (double)*(const float *)(const void *)(x + j * step[1]);
        }
        for (int64_t j = 0; j < width; j++) {
            struct state s = {.f = sum[j]};
            store(r, &s, at[0] + (first + j) * step[0], NULL);
        }
    }
}

// Which dimensions are reduced: bit d of the result.
static uint32_t reduced_dims(const struct kernel_call *call)
{
    uint32_t rank = call->in[0].meta.rank, all = (1u << rank) - 1;
    const struct attr *attr = &call->attr[call->op->number == OP_NORM_DIM ? 1 : 0];
    switch (call->op->number) {
    case OP_SUM:
    case OP_MEAN:
    case OP_MAX:
    case OP_MIN:
    case OP_ANY:
    case OP_ALL:
    case OP_PROD: return all;
    default: break;
    }
    if (attr->kind == ATTR_ABSENT || rank == 0)
        return all;
    if (attr->kind == ATTR_INT)
        return 1u << dim_wrap(attr->i, rank);
    uint32_t dims = 0;
    for (uint32_t i = 0; i < attr->count; i++)
        dims |= 1u << dim_wrap(attr->ints[i], rank);
    return attr->count == 0 ? all : dims;
}

static bool keeps_index(uint32_t op)
{
    return op == OP_ARGMAX || op == OP_ARGMIN || op == OP_MAX_DIM || op == OP_MIN_DIM;
}

static enum dtype fold_dtype(const struct kernel_call *call)
{
    enum dtype in = call->in[0].meta.dtype, out = call->out[0].meta.dtype;
    bool sums = call->op->number == OP_SUM || call->op->number == OP_SUM_DIM || call->op->number == OP_MEAN ||
                call->op->number == OP_MEAN_DIM || call->op->number == OP_PROD || call->op->number == OP_NORM_DIM;
    enum dtype dtype = sums ? out : in;
    return dtype == DTYPE_F64 ? DTYPE_F64 : dtype_is_float(dtype) ? DTYPE_F32 : DTYPE_I64;
}

static bool reduce_can(const struct kernel_call *call)
{
    return dtype_is_real(call->in[0].meta.dtype) && dtype_is_real(call->out[0].meta.dtype) &&
           choose(call->op->number, fold_dtype(call)) != NULL;
}

static void reduced_space(const struct kernel_call *call, uint32_t dims, struct reduce *r)
{
    const struct tensor_meta *meta = &call->in[0].meta;
    int64_t bytes = (int64_t)dtype_bytes(meta->dtype);
    r->length = 1;
    for (uint32_t d = 0; d < meta->rank; d++) {
        if (!(dims >> d & 1) || meta->size[d] == 1)
            continue;
        uint32_t last = r->reduced_rank;
        int64_t step = meta->stride[d] * bytes;
        r->length *= meta->size[d];
        if (last > 0 && r->reduced_step[last - 1] == step * meta->size[d]) {
            r->reduced_size[last - 1] *= meta->size[d];
            r->reduced_step[last - 1] = step;
            continue;
        }
        r->reduced_size[last] = meta->size[d];
        r->reduced_step[last] = step;
        r->reduced_rank++;
    }
    if (r->reduced_rank == 0) {
        r->reduced_size[0] = 1;
        r->reduced_rank = 1;
    }
}

// The loop over kept dimensions. Outputs that keep reduced dimensions as size 1 line up with the input; others skip them.
static void kept_loop(const struct kernel_call *call, uint32_t dims, const struct reduce *r, struct loop *loop)
{
    const struct tensor *in = &call->in[0];
    int64_t size[DJ_RANK_MAX], in_step[DJ_RANK_MAX], value_step[DJ_RANK_MAX], index_step[DJ_RANK_MAX];
    const struct tensor *index = call->n_out > 1 ? &call->out[1] : &call->out[0];
    bool keeps = call->out[0].meta.rank == in->meta.rank;
    uint32_t at = 0;
    for (uint32_t d = 0, o = 0; d < in->meta.rank; d++) {
        bool is_reduced = dims >> d & 1;
        if (!is_reduced) {
            size[at] = in->meta.size[d];
            in_step[at] = in->meta.stride[d] * (int64_t)dtype_bytes(in->meta.dtype);
            value_step[at] = call->out[0].meta.stride[o] * (int64_t)dtype_bytes(call->out[0].meta.dtype);
            index_step[at] = index->meta.stride[o] * (int64_t)dtype_bytes(index->meta.dtype);
            at++;
        }
        if (!is_reduced || keeps)
            o++;
    }
    (void)r;
    loop_begin(loop, at, size);
    loop_add_raw(loop, call->out[0].data, value_step);
    loop_add_raw(loop, in->data, in_step);
    loop_add_raw(loop, index->data, index_step);
    loop_finish(loop, true);
}

// A large reduction to one value is cut into pieces, folded apart and joined in order. Only sums, means and their like: the order of
// joining is part of the result.
enum { PIECES_MAX = 64, PIECE_ELEMENTS = 1 << 16 };

struct pieces {
    const struct reduce *reduce;
    const char *in;
    int64_t length;    // of a piece
    double sum[PIECES_MAX];
};

static void piece_part(void *context, uint32_t part)
{
    struct pieces *p = context;
    int64_t first = part * p->length;
    struct state s = {0};
    fold_range(p->reduce, &s, p->in, first, i64_least(first + p->length, p->reduce->length));
    p->sum[part] = s.f;
}

static bool run_in_pieces(const struct kernel_call *call, const struct reduce *r, const struct loop *loop)
{
    if (r->run != sum_f32 || loop->rank != 1 || loop->size[0] != 1 || r->length < 4 * PIECE_ELEMENTS)
        return false;
    struct pieces p = {.reduce = r, .in = call->in[0].data};
    int64_t pieces = i64_least(PIECES_MAX, r->length / PIECE_ELEMENTS);
    p.length = (int64_t)size_round_up((size_t)ceil_div(r->length, pieces), FOLD_BLOCK);
    pieces = ceil_div(r->length, p.length);
    team_run(call->team, (uint32_t)pieces, piece_part, &p);
    struct state s = {0};
    for (int64_t i = 0; i < pieces; i++)
        s.f += p.sum[i];
    store(r, &s, call->out[0].data, NULL);
    return true;
}

// Loops hand out parts by their number of outputs; a reduction's work is its inputs, so its parts are cut here.
struct cut {
    const struct loop *loop;
    loop_row row;
    void *context;
    int64_t rows;
};

static void cut_part(void *context, uint32_t part)
{
    const struct cut *cut = context;
    struct loop some = *cut->loop;
    int64_t first = part * cut->rows;
    for (uint32_t i = 0; i < some.operands; i++)
        some.base[i] += first * some.step[i][0];
    some.size[0] = i64_least(cut->rows, some.size[0] - first);
    loop_run(&some, NULL, cut->row, cut->context);
}

// Whether the last dimension that is one is kept.
static bool keeps_last(const struct tensor_meta *meta, uint32_t dims)
{
    for (uint32_t d = meta->rank; d-- > 0;)
        if (meta->size[d] != 1)
            return !(dims >> d & 1);
    return false;
}

static enum dj_error reduce_run(const struct kernel_call *call)
{
    uint32_t op = call->op->number, dims = reduced_dims(call);
    struct reduce r = {.op = op,
                       .in = call->in[0].meta.dtype,
                       .fold = fold_dtype(call),
                       .out = call->out[0].meta.dtype,
                       .team = call->team,
                       .wants_index = keeps_index(op),
                       .wants_value = op != OP_ARGMAX && op != OP_ARGMIN};
    r.run = choose(op, r.fold);
    if (op == OP_NORM_DIM)
        r.parameter = attr_double(&call->attr[0]);
    if (op == OP_VAR)
        r.parameter = call->attr[1].kind == ATTR_ABSENT ? 1.0 : attr_double(&call->attr[1]);
    reduced_space(call, dims, &r);
    struct loop loop;
    kept_loop(call, dims, &r, &loop);
    if (loop.is_empty || run_in_pieces(call, &r, &loop))
        return DJ_OK;

    bool by_column = r.run == sum_f32 && r.in == DTYPE_F32 && keeps_last(&call->in[0].meta, dims);
    loop_row row = by_column ? column_row : reduce_row;
    int64_t outputs = 1;
    for (uint32_t d = 0; d < loop.rank; d++)
        outputs *= loop.size[d];
    int64_t per_row = outputs / loop.size[0] * i64_most(1, r.length);
    struct cut cut = {.loop = &loop, .row = row, .context = &r, .rows = i64_most(1, PART_INPUTS / i64_most(1, per_row))};
    team_run(call->team, (uint32_t)ceil_div(loop.size[0], cut.rows), cut_part, &cut);
    return DJ_OK;
}

void table_reduce(struct kernel *kernel)
{
    static const enum op ops[] = {OP_SUM, OP_SUM_DIM, OP_MEAN,    OP_MEAN_DIM, OP_AMAX,    OP_AMIN, OP_MAX,
                                  OP_MIN, OP_MAX_DIM, OP_MIN_DIM, OP_ARGMAX,   OP_ARGMIN,  OP_ANY,  OP_ANY_DIM,
                                  OP_ALL, OP_ALL_DIM, OP_PROD,    OP_VAR,      OP_NORM_DIM};
    for (size_t i = 0; i < sizeof ops / sizeof ops[0]; i++)
        kernel[ops[i]] = (struct kernel){.run = reduce_run, .can = reduce_can};
}
