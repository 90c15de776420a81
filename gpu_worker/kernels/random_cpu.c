// Random numbers: element e of a call is a function of (seed, offset, e) alone, so cuts, threads and replays do not matter.
//
// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) with
//     key     = (seed low, seed high)
//     counter = (block low, block high, offset low, offset high), block = e / 4 for 32-bit draws, e / 2 for 64-bit ones
// gives four words; element e takes word e % 4, or the words 2 (e % 2) and the next as low and high half.
//     uniform     low + (high - low) * u,  u = (word >> 8) * 2^-24; float64: u = (draw >> 11) * 2^-53
//     normal      Box-Muller on the pairs of words (0, 1) and (2, 3): r = sqrt(-2 ln(1 - u0)), r cos(2 pi u1), r sin(2 pi u1), mean + std * z
//     bernoulli   u < p (32-bit u)
//     randint     low + draw % (high - low), 64-bit draw
//     dropout     keep = u >= p, out = keep ? x / (1 - p) : 0
// All in the type of the output; half floats are drawn as float32 and rounded.

#include "gpu_worker/kernels/cpu.h"

#include <math.h>

#include "gpu_worker/kernels/philox.h"

struct draw {
    uint32_t op;
    uint64_t seed, offset;
    double a, b;    // low, high | mean, std | p
    int64_t low;
    uint64_t range;
    enum dtype dtype;    // in which values are drawn: F32, F64 or I64
    char *out;
    convert_function convert;
    int64_t count, out_bytes;
    const char *in;    // dropout
    convert_function widen;
    int64_t in_bytes;
    uint8_t *mask;
};

enum { DRAW_BLOCK = 1024, DRAW_PART = 1 << 14 };

static float unit_f32(uint32_t word)
{
    return (float)(word >> 8) * 0x1p-24f;
}
static double unit_f64(uint64_t word)
{
    return (double)(word >> 11) * 0x1p-53;
}

static uint32_t word_of(const struct draw *d, uint64_t element)
{
    uint32_t word[4];
    philox(d->seed, d->offset, element / 4, word);
    return word[element % 4];
}

static uint64_t long_of(const struct draw *d, uint64_t element)
{
    uint32_t word[4];
    philox(d->seed, d->offset, element / 2, word);
    return word[element % 2 * 2] | (uint64_t)word[element % 2 * 2 + 1] << 32;
}

static double normal_of(const struct draw *d, uint64_t element)
{
    double u0, u1;
    uint32_t word[4];
    if (d->dtype == DTYPE_F64) {
        u0 = unit_f64(long_of(d, element & ~(uint64_t)1));
        u1 = unit_f64(long_of(d, element | 1));
    } else {
        philox(d->seed, d->offset, element / 4, word);
        u0 = (double)unit_f32(word[element % 4 & 2]);
        u1 = (double)unit_f32(word[(element % 4 & 2) + 1]);
    }
    double r = sqrt(-2.0 * log(1.0 - u0)), angle = 6.283185307179586477 * u1;
    return d->a + d->b * (element % 2 == 0 ? r * cos(angle) : r * sin(angle));
}

static double float_of(const struct draw *d, uint64_t element)
{
    if (d->op == OP_NORMAL)
        return normal_of(d, element);
    if (d->op == OP_BERNOULLI)
        return (double)unit_f32(word_of(d, element)) < d->a ? 1.0 : 0.0;
    double u = d->dtype == DTYPE_F64 ? unit_f64(long_of(d, element)) : (double)unit_f32(word_of(d, element));
    return d->a + (d->b - d->a) * u;
}

static void draw_part(void *context, uint32_t part)
{
    const struct draw *d = context;
    double block[DRAW_BLOCK];
    int64_t integers[DRAW_BLOCK];
    int64_t first = (int64_t)part * DRAW_PART, last = i64_least(first + DRAW_PART, d->count);
    for (int64_t at = first; at < last; at += DRAW_BLOCK) {
        int64_t n = i64_least(DRAW_BLOCK, last - at);
        for (int64_t i = 0; i < n; i++)
            if (d->op == OP_RANDINT)
                integers[i] = (int64_t)((uint64_t)d->low + long_of(d, (uint64_t)(at + i)) % d->range);
            else
                block[i] = float_of(d, (uint64_t)(at + i));
        d->convert(d->op == OP_RANDINT ? (const char *)integers : (const char *)block, 8, d->out + at * d->out_bytes,
                   d->out_bytes, n);
    }
}

static bool random_can(const struct kernel_call *call)
{
    enum dtype dtype = call->out[0].meta.dtype;
    uint32_t op = call->op->number;
    return dtype_is_real(dtype) && (op == OP_BERNOULLI || op == OP_RANDINT || dtype_is_float(dtype));
}

static size_t random_scratch(const struct kernel_call *call)
{
    struct scratch scratch = {0};
    dense_take(&scratch, &call->out[0], call->out[0].meta.dtype, false, NULL);
    return scratch.used;
}

static enum dj_error random_run(const struct kernel_call *call)
{
    struct scratch scratch = {.data = call->scratch};
    const struct tensor *out = &call->out[0];
    enum dtype dtype = out->meta.dtype;
    uint32_t op = call->op->number;
    uint32_t seed_at = op == OP_BERNOULLI ? 2 : 3;
    struct draw d = {.op = op,
                     .seed = (uint64_t)attr_int(&call->attr[seed_at]),
                     .offset = (uint64_t)attr_int(&call->attr[seed_at + 1]),
                     .a = attr_double(&call->attr[1]),
                     .b = op == OP_BERNOULLI ? 0 : attr_double(&call->attr[2])};
    d.dtype = op == OP_RANDINT ? DTYPE_I64 : dtype == DTYPE_F64 ? DTYPE_F64 : DTYPE_F32;
    if (op == OP_RANDINT) {
        d.low = attr_int(&call->attr[1]);
        d.range = (uint64_t)attr_int(&call->attr[2]) - (uint64_t)d.low;
        if (attr_int(&call->attr[2]) <= d.low)
            return fault_set(call->fault, DJ_E_INVALID, "RANDINT: low %lld is not below high %lld", (long long)d.low,
                             (long long)attr_int(&call->attr[2]));
    }
    d.out = dense_take(&scratch, out, dtype, false, call->team);
    d.convert = convert_find(op == OP_RANDINT ? DTYPE_I64 : DTYPE_F64, dtype);
    d.count = tensor_count(&out->meta);
    d.out_bytes = (int64_t)dtype_bytes(dtype);
    team_run(call->team, (uint32_t)ceil_div(d.count, DRAW_PART), draw_part, &d);
    dense_return(d.out, dtype, out, call->team);
    return DJ_OK;
}

static void dropout_part(void *context, uint32_t part)
{
    const struct draw *d = context;
    double block[DRAW_BLOCK];
    int64_t first = (int64_t)part * DRAW_PART, last = i64_least(first + DRAW_PART, d->count);
    double scale = d->a >= 1.0 ? 0.0 : 1.0 / (1.0 - d->a);
    for (int64_t at = first; at < last; at += DRAW_BLOCK) {
        int64_t n = i64_least(DRAW_BLOCK, last - at);
        d->widen(d->in + at * d->in_bytes, d->in_bytes, (char *)block, 8, n);
        for (int64_t i = 0; i < n; i++) {
            bool keep = (double)unit_f32(word_of(d, (uint64_t)(at + i))) >= d->a;
            block[i] = keep ? block[i] * scale : 0.0;
            d->mask[at + i] = keep;
        }
        d->convert((const char *)block, 8, d->out + at * d->out_bytes, d->out_bytes, n);
    }
}

static void dropout_memory(const struct kernel_call *call, struct scratch *scratch, struct draw *ret)
{
    enum dtype dtype = call->in[0].meta.dtype;
    ret->in = dense_take(scratch, &call->in[0], dtype, scratch->data != NULL, call->team);
    ret->out = dense_take(scratch, &call->out[0], dtype, false, call->team);
    ret->mask = dense_take(scratch, &call->out[1], DTYPE_BOOL, false, call->team);
}

static size_t dropout_scratch(const struct kernel_call *call)
{
    struct scratch scratch = {0};
    struct draw d;
    dropout_memory(call, &scratch, &d);
    return scratch.used;
}

static enum dj_error dropout_run(const struct kernel_call *call)
{
    struct scratch scratch = {.data = call->scratch};
    enum dtype dtype = call->in[0].meta.dtype;
    struct draw d = {.op = OP_DROPOUT,
                     .a = attr_double(&call->attr[0]),
                     .seed = (uint64_t)attr_int(&call->attr[1]),
                     .offset = (uint64_t)attr_int(&call->attr[2])};
    dropout_memory(call, &scratch, &d);
    d.widen = convert_find(dtype, DTYPE_F64);
    d.convert = convert_find(DTYPE_F64, dtype);
    d.count = tensor_count(&call->in[0].meta);
    d.in_bytes = d.out_bytes = (int64_t)dtype_bytes(dtype);
    team_run(call->team, (uint32_t)ceil_div(d.count, DRAW_PART), dropout_part, &d);
    dense_return(d.out, dtype, &call->out[0], call->team);
    dense_return(d.mask, DTYPE_BOOL, &call->out[1], call->team);
    return DJ_OK;
}

static bool dropout_can(const struct kernel_call *call)
{
    return dtype_is_float(call->in[0].meta.dtype);
}

void table_random(struct kernel *kernel)
{
    kernel[OP_UNIFORM] = kernel[OP_NORMAL] = kernel[OP_BERNOULLI] = kernel[OP_RANDINT] = (struct kernel){
        .run = random_run, .scratch = random_scratch, .can = random_can};
    kernel[OP_DROPOUT] = (struct kernel){.run = dropout_run, .scratch = dropout_scratch, .can = dropout_can};
}
